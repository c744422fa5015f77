//! The connections of a driver: who is there, what waits to be written to them, and how many there may be.
//!
//! RFC 3261 §18 (reuse by the remote address), RFC 5626 (a flow is one connection, never another to the same peer).
//! Each connection is a task that reads and writes (`stream`, `websocket`); it and the driver talk by bounded
//! channels, so that a slow machine stops reading and a slow reader loses its connection.

use super::keepalive::is_line_breaks;
use bytes::Bytes;
use sipbox_core::flow::{ConnectionId, Flow, ListenerId, Target, Transport};
use sipbox_core::limits::{CONNECTIONS_PER_ADDRESS, QUEUED_BYTES, QUEUED_MESSAGES};
use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// What a connection's task tells the driver.
pub(super) enum Arrival {
    /// A peer connected, and its handshakes are done.
    Opened {
        flow: Flow,
        queue: Queue,
    },
    /// A connection that we opened is there.
    Established {
        flow: Flow,
    },
    Packet {
        flow: Flow,
        data: Bytes,
    },
    /// Its end, with what was not written.
    /// `opened` is false where we could not connect.
    Closed {
        flow: Flow,
        opened: bool,
        reason: String,
        unsent: Vec<(Target, Bytes)>,
    },
    /// A peer that got no connection.
    Refused {
        transport: Transport,
        remote: SocketAddr,
        reason: String,
    },
}

/// Where a task sends them.
pub(super) type Arrivals = mpsc::Sender<Arrival>;

/// The writing end of a connection's queue. Dropping it ends the connection after what is queued.
pub(super) struct Queue {
    messages: mpsc::Sender<(Target, Bytes)>,
    bytes: Rc<Cell<usize>>,
}

/// The task's end.
pub(super) struct Outbox {
    messages: mpsc::Receiver<(Target, Bytes)>,
    bytes: Rc<Cell<usize>>,
}

pub(super) fn queue() -> (Queue, Outbox) {
    let (sender, receiver) = mpsc::channel(QUEUED_MESSAGES);
    let bytes = Rc::new(Cell::new(0));
    (Queue { messages: sender, bytes: bytes.clone() }, Outbox { messages: receiver, bytes })
}

impl Queue {
    /// Gives it back where the queue is full or its task has ended.
    fn push(&self, target: Target, data: Bytes) -> Result<(), (Target, Bytes)> {
        let length = data.len();
        if self.bytes.get() + length > QUEUED_BYTES {
            return Err((target, data));
        }
        self.messages.try_send((target, data)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(item) | mpsc::error::TrySendError::Closed(item) => item,
        })?;
        self.bytes.set(self.bytes.get() + length);
        Ok(())
    }
}

impl Outbox {
    /// The next message; `None` when the driver wants the connection closed. Cancel safe.
    pub async fn next(&mut self) -> Option<(Target, Bytes)> {
        let item = self.messages.recv().await?;
        self.bytes.set(self.bytes.get().saturating_sub(item.1.len()));
        Some(item)
    }

    /// What will not be written; nothing more is taken.
    pub fn unsent(mut self, first: Option<(Target, Bytes)>) -> Vec<(Target, Bytes)> {
        self.messages.close();
        let mut unsent: Vec<_> = first.into_iter().collect();
        while let Ok(item) = self.messages.try_recv() {
            unsent.push(item);
        }
        unsent
    }
}

/// One connection as the driver knows it.
struct Connection {
    flow: Flow,
    queue: Queue,
}

/// All of them.
pub(super) struct Connections {
    by_id: HashMap<ConnectionId, Connection>,
    by_remote: HashMap<(Transport, SocketAddr), ConnectionId>,
    /// Those of other workers, by the peer.
    elsewhere: HashMap<(Transport, SocketAddr), ConnectionId>,
    worker: u64,
    workers: u64,
    pub ids: Ids,
    pub places: Places,
}

/// Why nothing was queued.
pub(super) enum NotSent {
    /// There is no such connection.
    Gone(Target, Bytes),
    /// Its reader is too slow: it has been closed.
    Full(Target, Bytes),
}

impl Connections {
    /// Of worker number `worker` among `workers`.
    pub fn new(places: Places, worker: u8, workers: usize) -> Self {
        let (worker, workers) = (u64::from(worker), workers as u64);
        Connections {
            by_id: HashMap::new(),
            by_remote: HashMap::new(),
            elsewhere: HashMap::new(),
            worker,
            workers,
            ids: Ids { last: Rc::new(Cell::new(worker)), step: workers },
            places,
        }
    }

    /// One of another worker.
    pub fn insert_elsewhere(&mut self, flow: &Flow) {
        if let Some(id) = flow.connection {
            self.elsewhere.insert((flow.transport, flow.remote), id);
        }
    }

    pub fn remove_elsewhere(&mut self, flow: &Flow) {
        let key = (flow.transport, flow.remote);
        if self.elsewhere.get(&key).copied() == flow.connection {
            self.elsewhere.remove(&key);
        }
    }

    /// The other worker whose connection this is for; `None`: ours, or none yet.
    pub fn elsewhere(&self, target: &Target) -> Option<u8> {
        if self.workers == 1 {
            return None;
        }
        let id = match target {
            Target::Flow(flow) => flow.connection?,
            Target::Address { transport, remote, .. } => {
                let key = (*transport, *remote);
                if self.by_remote.contains_key(&key) {
                    return None;
                }
                *self.elsewhere.get(&key)?
            }
        };
        let owner = id.0 % self.workers;
        (owner != self.worker).then_some(owner as u8)
    }

    /// One that was accepted, or one that we are opening: what is sent meanwhile waits.
    pub fn insert(&mut self, flow: Flow, queue: Queue) {
        if let Some(id) = flow.connection {
            self.by_id.insert(id, Connection { flow, queue });
            self.by_remote.insert((flow.transport, flow.remote), id);
        }
    }

    /// Forgets it, which ends its task after what is queued.
    pub fn remove(&mut self, flow: &Flow) {
        let Some(connection) = flow.connection.and_then(|id| self.by_id.remove(&id)) else { return };
        let key = (connection.flow.transport, connection.flow.remote);
        // A younger connection to the same peer keeps its entry.
        if self.by_remote.get(&key).copied() == flow.connection {
            self.by_remote.remove(&key);
        }
    }

    /// Queues on one connection: the named one, or the one to the address that is there.
    pub fn send(&mut self, target: Target, data: Bytes) -> Result<(), NotSent> {
        let id = match target {
            Target::Flow(flow) => flow.connection,
            Target::Address { transport, remote, .. } => self.by_remote.get(&(transport, remote)).copied(),
        };
        let Some(connection) = id.and_then(|id| self.by_id.get(&id)) else {
            return Err(NotSent::Gone(target, data));
        };
        let flow = connection.flow;
        match connection.queue.push(target, data) {
            Ok(()) => Ok(()),
            Err((target, data)) => {
                self.remove(&flow);
                Err(NotSent::Full(target, data))
            }
        }
    }

    /// Forgets all, so that their tasks write what is queued and end.
    pub fn clear(&mut self) {
        self.by_id.clear();
        self.by_remote.clear();
    }

    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.by_id.values().map(|connection| &connection.flow)
    }
}

/// Numbers for connections, never used twice; the remainder by the count of workers is the owner's.
#[derive(Clone)]
pub(super) struct Ids {
    last: Rc<Cell<u64>>,
    step: u64,
}

impl Ids {
    pub fn next(&self) -> ConnectionId {
        self.last.set(self.last.get() + self.step);
        ConnectionId(self.last.get())
    }
}

/// How many connections there may be, in all and from one address; for all workers together.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Taken>>);

struct Taken {
    most: usize,
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One taken place; given back when it is dropped.
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    pub fn new(most: usize) -> Self {
        Places(Arc::new(Mutex::new(Taken { most, all: 0, by_address: HashMap::new() })))
    }

    /// A place for a peer, or why there is none.
    pub fn take(&self, address: IpAddr) -> Result<Place, &'static str> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= taken.most {
            return Err("too many connections");
        }
        let from_there = taken.by_address.entry(address).or_default();
        if *from_there >= CONNECTIONS_PER_ADDRESS {
            return Err("too many connections from this address");
        }
        *from_there += 1;
        taken.all += 1;
        Ok(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(from_there) = taken.by_address.get_mut(&self.address) {
            *from_there -= 1;
            if *from_there == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// The flow of a new connection.
pub(super) fn flow(transport: Transport, listener: ListenerId, remote: SocketAddr, id: ConnectionId) -> Flow {
    Flow { transport, listener, remote, connection: Some(id) }
}

/// What a keep-alive on a connection is answered with (RFC 5626 §4.4.1): a ping is two line breaks, a pong one.
/// `None`: it is no keep-alive. `Some(false)`: it is one, and wants no answer.
pub(super) fn keepalive(data: &[u8]) -> Option<bool> {
    is_line_breaks(data).then_some(data == b"\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow_of(id: u64, remote: &str) -> Flow {
        flow(Transport::Tcp, ListenerId(0), remote.parse().unwrap(), ConnectionId(id))
    }

    fn address(remote: &str) -> Target {
        Target::Address {
            listener: ListenerId(0),
            transport: Transport::Tcp,
            remote: remote.parse().unwrap(),
        }
    }

    #[test]
    fn an_address_finds_the_youngest_connection_and_a_flow_only_itself() {
        let mut connections = Connections::new(Places::new(10), 0, 1);
        let (old, mut old_box) = queue();
        let (young, mut young_box) = queue();
        connections.insert(flow_of(1, "192.0.2.1:5060"), old);
        connections.insert(flow_of(2, "192.0.2.1:5060"), young);
        assert!(connections.send(address("192.0.2.1:5060"), Bytes::from_static(b"a")).is_ok());
        assert!(young_box.messages.try_recv().is_ok() && old_box.messages.try_recv().is_err());
        connections.remove(&flow_of(1, "192.0.2.1:5060"));
        let gone = connections.send(Target::Flow(flow_of(1, "192.0.2.1:5060")), Bytes::from_static(b"b"));
        assert!(matches!(gone, Err(NotSent::Gone(..))));
        assert!(connections.send(address("192.0.2.1:5060"), Bytes::from_static(b"c")).is_ok());
    }

    #[test]
    fn another_worker_s_connection_is_found_by_its_number_and_its_peer() {
        let mut connections = Connections::new(Places::new(10), 1, 3);
        assert_eq!([connections.ids.next().0, connections.ids.next().0], [4, 7]);
        let theirs = flow_of(3, "192.0.2.1:5060");
        assert_eq!(connections.elsewhere(&Target::Flow(theirs)), Some(0));
        assert_eq!(connections.elsewhere(&Target::Flow(flow_of(4, "192.0.2.1:5060"))), None);
        assert_eq!(connections.elsewhere(&address("192.0.2.1:5060")), None);
        connections.insert_elsewhere(&theirs);
        assert_eq!(connections.elsewhere(&address("192.0.2.1:5060")), Some(0));
        // An own one is nearer.
        let (own, _outbox) = queue();
        connections.insert(flow_of(4, "192.0.2.1:5060"), own);
        assert_eq!(connections.elsewhere(&address("192.0.2.1:5060")), None);
        connections.remove(&flow_of(4, "192.0.2.1:5060"));
        connections.remove_elsewhere(&theirs);
        assert_eq!(connections.elsewhere(&address("192.0.2.1:5060")), None);
    }

    #[test]
    fn a_slow_reader_loses_its_connection() {
        let mut connections = Connections::new(Places::new(10), 0, 1);
        let (queue, outbox) = queue();
        connections.insert(flow_of(1, "192.0.2.1:5060"), queue);
        let message = Bytes::from(vec![b'x'; 65_536]);
        let sent = (0..)
            .take_while(|_| connections.send(address("192.0.2.1:5060"), message.clone()).is_ok())
            .count();
        assert_eq!(sent, QUEUED_BYTES / 65_536);
        assert_eq!(connections.flows().count(), 0);
        assert_eq!(outbox.unsent(None).len(), sent);
    }

    #[test]
    fn places_are_given_back() {
        let places = Places::new(2);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let first = places.take(address).ok().unwrap();
        let _second = places.take(address).ok().unwrap();
        assert!(places.take(address).is_err());
        drop(first);
        assert!(places.take(address).is_ok());
    }
}
