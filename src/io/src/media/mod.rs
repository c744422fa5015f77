//! Media workers: OS threads of their own that own the sockets of bridges and move their packets.
//!
//! In: commands of the control side, in the order in which they were made; datagrams. Out: datagrams, [`Notice`]s,
//! counts when they are asked for. Nothing is allocated, locked or logged for a packet that is forwarded.
//! Not here: what becomes of a packet (`sipbox_core::media`), who is called (`sipbox_core::relay`).

pub(crate) mod batch;
mod worker;

use crate::clock::Clock;
use crate::ports::{Allocator, Pair};
use sipbox_core::media::bridge::{self, BridgeStats};
use sipbox_core::media::dtls::Identity;
use sipbox_core::media::ice::Anchor;
use sipbox_core::media::plan::{BridgeId, LegPlan, Side};
use sipbox_core::relay::{Engine, PortError, Ports, Want};
use sipbox_core::time::Instant;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A worker that is asked for something answers between two batches; beyond this it is gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a worker tells of a bridge.
#[derive(Clone, Debug)]
pub struct Notice {
    pub at: Instant,
    pub bridge: BridgeId,
    pub event: bridge::Event,
}

/// What the control side asks of a worker.
enum Command {
    Open {
        bridge: BridgeId,
        side: Side,
        pair: Pair,
    },
    Apply {
        bridge: BridgeId,
        side: Side,
        plan: Box<LegPlan>,
    },
    Mark {
        bridge: BridgeId,
        tos: u8,
    },
    /// The sockets are closed when the answer comes.
    Close {
        bridge: BridgeId,
        done: Sender<()>,
    },
    Query {
        bridge: BridgeId,
        reply: Sender<Option<BridgeStats>>,
    },
    Stop,
}

/// The control side's end of one worker.
struct Handle {
    commands: Sender<Command>,
    wake: Arc<File>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = (&*self.wake).write(&1u64.to_ne_bytes());
        }
    }

    fn ask<T>(&self, make: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, answer): (Sender<T>, Receiver<T>) = channel();
        self.send(make(reply));
        answer.recv_timeout(PATIENCE).ok()
    }
}

/// All workers and the ports that they own.
pub struct Workers {
    handles: Vec<Handle>,
    ports: Allocator,
    bridges: HashMap<BridgeId, Placed>,
    next: usize,
}

/// Where a bridge is, and which pairs it holds.
struct Placed {
    worker: usize,
    pairs: Vec<SocketAddr>,
}

impl Workers {
    /// Starts `count` threads. `notify` is called from them, and must not block.
    pub fn start(
        count: usize,
        ports: Allocator,
        identity: &Identity,
        clock: Clock,
        notify: impl Fn(Notice) + Send + Clone + 'static,
    ) -> io::Result<Workers> {
        let ours = clock.now();
        let anchor = Anchor { ours, std: clock.to_std(ours) };
        let mut handles = Vec::with_capacity(count.max(1));
        for number in 0..count.max(1) {
            // SAFETY: eventfd(2) gives a new descriptor that nobody else owns, or -1.
            let wake = unsafe {
                let descriptor = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
                if descriptor < 0 {
                    return Err(io::Error::last_os_error());
                }
                Arc::new(File::from(OwnedFd::from_raw_fd(descriptor)))
            };
            let (commands, orders) = channel();
            let worker = worker::Worker::new(
                orders,
                wake.clone(),
                identity.clone(),
                anchor,
                clock,
                Box::new(notify.clone()),
            )?;
            let thread =
                std::thread::Builder::new().name(format!("media-{number}")).spawn(move || worker.run())?;
            handles.push(Handle { commands, wake, thread: Some(thread) });
        }
        Ok(Workers { handles, ports, bridges: HashMap::new(), next: 0 })
    }

    /// Pairs of ports in use.
    pub fn ports_in_use(&self) -> usize {
        self.ports.in_use()
    }

    fn placed(&mut self, bridge: BridgeId) -> &mut Placed {
        let (next, count) = (&mut self.next, self.handles.len());
        self.bridges.entry(bridge).or_insert_with(|| {
            *next = (*next + 1) % count;
            Placed { worker: *next, pairs: Vec::with_capacity(2) }
        })
    }
}

impl Engine for Workers {
    fn open(&mut self, bridge: BridgeId, side: Side, want: &Want) -> Result<Ports, PortError> {
        let pair = self.ports.open(want)?;
        let ports = Ports {
            rtp: pair.address,
            rtcp: SocketAddr::new(pair.address.ip(), pair.address.port() + 1),
            advertised: pair.advertised,
        };
        let placed = self.placed(bridge);
        placed.pairs.push(pair.address);
        let worker = placed.worker;
        if let Some(handle) = self.handles.get(worker) {
            handle.send(Command::Open { bridge, side, pair });
        }
        Ok(ports)
    }

    fn apply(&mut self, bridge: BridgeId, side: Side, plan: LegPlan) {
        if let Some(placed) = self.bridges.get(&bridge)
            && let Some(handle) = self.handles.get(placed.worker)
        {
            handle.send(Command::Apply { bridge, side, plan: Box::new(plan) });
        }
    }

    fn mark(&mut self, bridge: BridgeId, tos: u8) {
        if let Some(placed) = self.bridges.get(&bridge)
            && let Some(handle) = self.handles.get(placed.worker)
        {
            handle.send(Command::Mark { bridge, tos });
        }
    }

    fn stats(&mut self, bridge: BridgeId) -> Option<BridgeStats> {
        let placed = self.bridges.get(&bridge)?;
        self.handles.get(placed.worker)?.ask(|reply| Command::Query { bridge, reply })?
    }

    fn close(&mut self, bridge: BridgeId) {
        let Some(placed) = self.bridges.remove(&bridge) else { return };
        if let Some(handle) = self.handles.get(placed.worker) {
            handle.ask(|done| Command::Close { bridge, done });
        }
        for address in placed.pairs {
            self.ports.release(address);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.send(Command::Stop);
        }
        for handle in &mut self.handles {
            if let Some(thread) = handle.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests;
