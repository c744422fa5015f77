//! One media thread: epoll over the sockets of its bridges.

use super::batch::{Batch, DATAGRAMS, Outgoing};
use super::{Command, Notice};
use crate::clock::Clock;
use crate::listen::set_tos;
use sipbox_core::media::bridge::{Bridge, Verdict};
use sipbox_core::media::dtls::Identity;
use sipbox_core::media::ice::Anchor;
use sipbox_core::media::leg::Component;
use sipbox_core::media::plan::{BridgeId, Side};
use sipbox_core::time::Instant;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// What epoll tells of the descriptor that wakes us; sockets have the numbers of their places.
const WAKE: u64 = u64::MAX;
/// Events that one epoll_wait(2) tells.
const EVENTS: usize = 128;
/// A timer comes no sooner.
const SOON: Duration = Duration::from_millis(1);
/// Batches of one socket before the others have their turn.
const TURNS: usize = 4;

/// A socket and whose it is.
struct Port {
    socket: UdpSocket,
    bridge: usize,
    side: Side,
    component: Component,
}

struct Entry {
    id: BridgeId,
    bridge: Bridge,
    /// Places in `ports`, by side, component and address family.
    ports: [Option<usize>; 8],
    /// The deadline that is in the heap for it.
    scheduled: Option<Instant>,
}

/// A leg with ICE may have ports of both families: what leaves, leaves from the one of its destination's.
const fn place(side: Side, component: Component, address: &SocketAddr) -> usize {
    let side = match side {
        Side::Offerer => 0,
        Side::Answerer => 4,
    };
    let component = match component {
        Component::Rtp => 0,
        Component::Rtcp => 2,
    };
    side + component + address.is_ipv6() as usize
}

/// The thread's state.
pub struct Worker {
    orders: Receiver<Command>,
    wake: Arc<File>,
    epoll: OwnedFd,
    identity: Identity,
    anchor: Anchor,
    clock: Clock,
    notify: Box<dyn Fn(Notice) + Send>,
    ports: Vec<Option<Port>>,
    free_ports: Vec<usize>,
    entries: Vec<Option<Entry>>,
    free_entries: Vec<usize>,
    by_id: HashMap<BridgeId, usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    batch: Batch,
}

impl Worker {
    pub fn new(
        orders: Receiver<Command>,
        wake: Arc<File>,
        identity: Identity,
        anchor: Anchor,
        clock: Clock,
        notify: Box<dyn Fn(Notice) + Send>,
    ) -> io::Result<Worker> {
        // SAFETY: epoll_create1(2) gives a new descriptor that nobody else owns, or -1.
        let epoll = unsafe {
            let descriptor = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(descriptor)
        };
        watch(&epoll, wake.as_raw_fd(), WAKE)?;
        Ok(Worker {
            orders,
            wake,
            epoll,
            identity,
            anchor,
            clock,
            notify,
            ports: Vec::new(),
            free_ports: Vec::new(),
            entries: Vec::new(),
            free_entries: Vec::new(),
            by_id: HashMap::new(),
            timers: BinaryHeap::new(),
            batch: Batch::new(),
        })
    }

    /// Until it is told to stop, or nobody is there any more who could tell it something.
    pub fn run(mut self) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            let timeout = self.timeout();
            // SAFETY: the kernel writes at most `EVENTS` entries into an array of that many.
            let count = unsafe {
                libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, timeout)
            };
            if count < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                tracing::error!(error = %io::Error::last_os_error(), "media-worker-failed");
                return;
            }
            for event in events.iter().take(count.max(0) as usize) {
                match event.u64 {
                    WAKE => {
                        let _ = (&*self.wake).read(&mut [0; 8]);
                        if !self.obey() {
                            return;
                        }
                    }
                    port => self.serve(port as usize),
                }
            }
            self.fire();
        }
    }

    fn timeout(&self) -> i32 {
        match self.timers.peek() {
            None => -1,
            Some(Reverse((at, _))) => {
                let wait = at.saturating_since(self.clock.now()).as_micros().div_ceil(1000);
                wait.min(60_000) as i32
            }
        }
    }

    /// Everything that the control side asked for; false when the thread shall end.
    fn obey(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Command::Open { bridge, side, pair }) => {
                    let entry = self.entry(bridge);
                    self.add_port(entry, side, Component::Rtp, pair.rtp);
                    self.add_port(entry, side, Component::Rtcp, pair.rtcp);
                }
                Ok(Command::Apply { bridge, side, plan }) => {
                    let now = self.clock.now();
                    let at = self.entry(bridge);
                    if let Some(entry) = self.entries.get_mut(at).and_then(Option::as_mut) {
                        entry.bridge.apply(now, side, *plan);
                        self.settle(at, now);
                    }
                }
                Ok(Command::Mark { bridge, tos }) => self.mark(bridge, tos),
                Ok(Command::Close { bridge, done }) => {
                    self.close(bridge);
                    let _ = done.send(());
                }
                Ok(Command::Query { bridge, reply }) => {
                    let entry = self.by_id.get(&bridge).and_then(|at| self.entries.get(*at)?.as_ref());
                    let _ = reply.send(entry.map(|entry| entry.bridge.stats()));
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn entry(&mut self, id: BridgeId) -> usize {
        if let Some(at) = self.by_id.get(&id) {
            return *at;
        }
        let entry = Entry {
            id,
            bridge: Bridge::new(self.identity.clone(), self.anchor),
            ports: [None; 8],
            scheduled: None,
        };
        let at = put(&mut self.entries, &mut self.free_entries, entry);
        self.by_id.insert(id, at);
        at
    }

    fn add_port(&mut self, bridge: usize, side: Side, component: Component, socket: UdpSocket) {
        let descriptor = socket.as_raw_fd();
        let Ok(address) = socket.local_addr() else { return };
        let port = put(&mut self.ports, &mut self.free_ports, Port { socket, bridge, side, component });
        if let Err(error) = watch(&self.epoll, descriptor, port as u64) {
            tracing::error!(%error, "media-port-not-watched");
        }
        if let Some(entry) = self.entries.get_mut(bridge).and_then(Option::as_mut)
            && let Some(old) = entry.ports[place(side, component, &address)].replace(port)
        {
            self.ports[old] = None;
            self.free_ports.push(old);
        }
    }

    fn mark(&self, id: BridgeId, tos: u8) {
        let entry = self.by_id.get(&id).and_then(|at| self.entries.get(*at)?.as_ref());
        for port in entry.iter().flat_map(|entry| entry.ports).flatten() {
            let Some(port) = self.ports.get(port).and_then(Option::as_ref) else { continue };
            let v6 = port.socket.local_addr().is_ok_and(|address| address.is_ipv6());
            if let Err(error) = set_tos(&(&port.socket).into(), v6, tos) {
                tracing::warn!(tos, %error, "media-port-not-marked");
            }
        }
    }

    /// Dropping the sockets takes them out of epoll's set.
    fn close(&mut self, id: BridgeId) {
        let Some(at) = self.by_id.remove(&id) else { return };
        let Some(entry) = self.entries.get_mut(at).and_then(Option::take) else { return };
        for port in entry.ports.into_iter().flatten() {
            self.ports[port] = None;
            self.free_ports.push(port);
        }
        self.free_entries.push(at);
    }

    /// What waits on one socket.
    fn serve(&mut self, port: usize) {
        for _ in 0..TURNS {
            let Some(Some(here)) = self.ports.get(port) else { return };
            let (at, side, component) = (here.bridge, here.side, here.component);
            let Ok(count) = self.batch.receive(here.socket.as_raw_fd()) else { return };
            let Some(entry) = self.entries.get_mut(at).and_then(Option::as_mut) else { return };
            let now = self.clock.now();
            // Where the queued ones go out: nearly always one socket for a whole batch.
            let mut out: Option<RawFd> = None;
            let mut consumed = false;
            for index in 0..count {
                let Some((from, length)) = self.batch.received(index) else { continue };
                let buffer = self.batch.buffer(index);
                match entry.bridge.handle_packet(now, side, component, from, buffer, length) {
                    Verdict::Forward { side, component, to, length } => {
                        let socket = entry.ports[place(side, component, &to)]
                            .and_then(|port| self.ports.get(port)?.as_ref())
                            .map(|port| port.socket.as_raw_fd());
                        if socket != out
                            && let Some(before) = out
                        {
                            self.batch.flush(before);
                        }
                        out = socket;
                        if socket.is_some() {
                            self.batch.queue(Outgoing { buffer: index, length, to });
                        }
                    }
                    Verdict::Consumed => consumed = true,
                    Verdict::Dropped(_) => {}
                }
            }
            if let Some(socket) = out {
                self.batch.flush(socket);
            }
            // Learned addresses are events too, and are told by a packet that was forwarded.
            if consumed || entry.bridge.has_events() {
                self.settle(at, now);
            }
            if count < DATAGRAMS {
                return;
            }
        }
    }

    /// Sends what the bridge itself has to send, tells its events, and keeps its timer.
    fn settle(&mut self, at: usize, now: Instant) {
        let Some(entry) = self.entries.get_mut(at).and_then(Option::as_mut) else { return };
        while let Some(transmit) = entry.bridge.poll_transmit() {
            let port = entry.ports[place(transmit.side, transmit.component, &transmit.to)];
            if let Some(port) = port.and_then(|port| self.ports.get(port)?.as_ref()) {
                // A datagram that the kernel refuses is lost like any other: ICE and DTLS send it again.
                let _ = port.socket.send_to(&transmit.data, transmit.to);
            }
        }
        while let Some(event) = entry.bridge.poll_event() {
            (self.notify)(Notice { at: now, bridge: entry.id, event });
        }
        // What is due already is done by the next round, not by this one: the others have their turn.
        let deadline = entry.bridge.poll_timeout().map(|deadline| deadline.max(now + SOON));
        if let Some(deadline) = deadline
            && entry.scheduled.is_none_or(|scheduled| deadline < scheduled)
        {
            entry.scheduled = Some(deadline);
            self.timers.push(Reverse((deadline, at)));
        }
    }

    /// Timers that are due. One that was overtaken by an earlier, or whose bridge is gone, does nothing.
    fn fire(&mut self) {
        let now = self.clock.now();
        while let Some(Reverse((deadline, at))) = self.timers.peek().copied() {
            if deadline > now {
                return;
            }
            self.timers.pop();
            let Some(entry) = self.entries.get_mut(at).and_then(Option::as_mut) else { continue };
            if entry.scheduled != Some(deadline) {
                continue;
            }
            entry.scheduled = None;
            if entry.bridge.poll_timeout().is_some_and(|due| due <= now) {
                entry.bridge.handle_timeout(now);
            }
            self.settle(at, now);
        }
    }
}

fn put<T>(places: &mut Vec<Option<T>>, free: &mut Vec<usize>, value: T) -> usize {
    match free.pop() {
        Some(at) => {
            places[at] = Some(value);
            at
        }
        None => {
            places.push(Some(value));
            places.len() - 1
        }
    }
}

fn watch(epoll: &OwnedFd, descriptor: RawFd, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
    // SAFETY: both descriptors are open, and the kernel copies the event.
    let result =
        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &raw mut event) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
