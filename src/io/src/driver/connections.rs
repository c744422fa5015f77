//! The connections of a driver: who is there, what waits to be written to them, and how many there may be.
//!
//! RFC 3261 §18 (reuse by the remote address), RFC 5626 (a flow is one connection, never another to the same peer).
//! Each connection is a task that reads and writes (`stream`, `websocket`); it and the driver talk by bounded
//! channels, so that a slow machine stops reading and a slow reader loses its connection.

use super::keepalive::is_line_breaks;
use crate::tls::is_for;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use sipbox_core::flow::{ConnectionId, Flow, ListenerId, ServerKey, Target, Transport};
use sipbox_core::limits::{CONNECTIONS_PER_ADDRESS, QUEUED_BYTES, QUEUED_MESSAGES};
use sipbox_core::machine::Event;
use sipbox_core::sip::Message;
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
        /// What the peer proved to have by TLS.
        certificate: Option<Box<CertificateDer<'static>>>,
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
    /// A TLS handshake that failed, with the event that tells of it; one that we began is also `Closed`.
    NotSecured(Box<Event>),
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
    pub fn push(&self, target: Target, data: Bytes) -> Result<(), (Target, Bytes)> {
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

    /// The next one, if it waits already.
    pub fn try_next(&mut self) -> Option<(Target, Bytes)> {
        let item = self.messages.try_recv().ok()?;
        self.bytes.set(self.bytes.get().saturating_sub(item.1.len()));
        Some(item)
    }

    /// What will not be written; nothing more is taken.
    pub fn unsent(mut self, first: impl IntoIterator<Item = (Target, Bytes)>) -> Vec<(Target, Bytes)> {
        self.messages.close();
        let mut unsent: Vec<_> = first.into_iter().collect();
        while let Ok(item) = self.messages.try_recv() {
            unsent.push(item);
        }
        unsent
    }
}

/// Who is reached by a connection: the address, and who he proved to be.
type Peer = (Transport, SocketAddr, ServerKey);

/// One connection as the driver knows it.
struct Connection {
    flow: Flow,
    queue: Queue,
    /// Whoever is reached by it: where it came from or went to, and what its peer says of itself, believed by its
    /// certificate (RFC 5923).
    peers: Vec<Peer>,
    certificate: Option<Box<CertificateDer<'static>>>,
}

/// Names that one peer may prove a connection to be good for.
const ALIASES: usize = 8;

/// All of them.
pub(super) struct Connections {
    by_id: HashMap<ConnectionId, Connection>,
    by_remote: HashMap<Peer, ConnectionId>,
    /// Those of other workers, by the peer.
    elsewhere: HashMap<Peer, ConnectionId>,
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
            self.elsewhere.insert(peer(flow), id);
        }
    }

    pub fn remove_elsewhere(&mut self, flow: &Flow) {
        let key = peer(flow);
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
            Target::Address { transport, remote, server, .. } => {
                let key = (*transport, *remote, *server);
                if self.by_remote.contains_key(&key) {
                    return None;
                }
                *self.elsewhere.get(&key)?
            }
        };
        let owner = id.0 % self.workers;
        (owner != self.worker).then_some(owner as u8)
    }

    /// One that was accepted, with what its peer proved to have.
    pub fn accepted(&mut self, flow: Flow, queue: Queue, certificate: Option<Box<CertificateDer<'static>>>) {
        self.insert(flow, queue, vec![peer(&flow)], certificate);
    }

    /// One that we are opening to `server`: what is sent meanwhile waits.
    pub fn opening(&mut self, flow: Flow, queue: Queue, server: ServerKey) {
        // Whoever wants nothing but that address is served by whoever proved more.
        let mut peers = vec![peer(&flow), (flow.transport, flow.remote, server)];
        peers.dedup();
        self.insert(flow, queue, peers, None);
    }

    fn insert(
        &mut self,
        flow: Flow,
        queue: Queue,
        peers: Vec<Peer>,
        certificate: Option<Box<CertificateDer<'static>>>,
    ) {
        if let Some(id) = flow.connection {
            self.by_remote.extend(peers.iter().map(|peer| (*peer, id)));
            self.by_id.insert(id, Connection { flow, queue, peers, certificate });
        }
    }

    /// A message came by it.
    pub fn heard(&mut self, flow: &Flow, data: &[u8]) {
        let proved = |id| self.by_id.get(&id).is_some_and(|connection| connection.certificate.is_some());
        if flow.transport != Transport::Tls || !flow.connection.is_some_and(proved) {
            return;
        }
        if let Ok(message) = Message::parse(data)
            && message.is_request()
            && let Ok(via) = message.top_via()
            && via.params.has("alias")
        {
            self.alias(flow, via.host, via.port.unwrap_or(flow.transport.default_port()));
        }
    }

    /// RFC 5923 §8.2: the peer says that this connection reaches it as `host`:`port` too. It is believed where its
    /// certificate is for that host; over plain TCP it never is, since anybody could say so.
    fn alias(&mut self, flow: &Flow, host: &str, port: u16) {
        let Some(id) = flow.connection else { return };
        let Some(connection) = self.by_id.get_mut(&id) else { return };
        let Some(certificate) = &connection.certificate else { return };
        let peer = (flow.transport, SocketAddr::new(flow.remote.ip(), port), ServerKey::of(host));
        if connection.peers.len() < ALIASES && !connection.peers.contains(&peer) && is_for(certificate, host)
        {
            connection.peers.push(peer);
            self.by_remote.insert(peer, id);
        }
    }

    /// Forgets it, which ends its task after what is queued.
    pub fn remove(&mut self, flow: &Flow) {
        let Some(connection) = flow.connection.and_then(|id| self.by_id.remove(&id)) else { return };
        for peer in connection.peers {
            // A younger connection to the same peer keeps its entry.
            if self.by_remote.get(&peer).copied() == flow.connection {
                self.by_remote.remove(&peer);
            }
        }
    }

    /// Queues on one connection: the named one, or the one to the address that is there.
    pub fn send(&mut self, target: Target, data: Bytes) -> Result<(), NotSent> {
        let id = match target {
            Target::Flow(flow) => flow.connection,
            Target::Address { transport, remote, server, .. } => {
                self.by_remote.get(&(transport, remote, server)).copied()
            }
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

/// Whom an accepted connection reaches, if it says nothing of itself.
const fn peer(flow: &Flow) -> Peer {
    (flow.transport, flow.remote, ServerKey::ADDRESS)
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
            server: ServerKey::ADDRESS,
        }
    }

    #[test]
    fn an_address_finds_the_youngest_connection_and_a_flow_only_itself() {
        let mut connections = Connections::new(Places::new(10), 0, 1);
        let (old, mut old_box) = queue();
        let (young, mut young_box) = queue();
        connections.accepted(flow_of(1, "192.0.2.1:5060"), old, None);
        connections.accepted(flow_of(2, "192.0.2.1:5060"), young, None);
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
        connections.accepted(flow_of(4, "192.0.2.1:5060"), own, None);
        assert_eq!(connections.elsewhere(&address("192.0.2.1:5060")), None);
        connections.remove(&flow_of(4, "192.0.2.1:5060"));
        connections.remove_elsewhere(&theirs);
        assert_eq!(connections.elsewhere(&address("192.0.2.1:5060")), None);
    }

    #[test]
    fn a_slow_reader_loses_its_connection() {
        let mut connections = Connections::new(Places::new(10), 0, 1);
        let (queue, outbox) = queue();
        connections.accepted(flow_of(1, "192.0.2.1:5060"), queue, None);
        let message = Bytes::from(vec![b'x'; 65_536]);
        let sent = (0..)
            .take_while(|_| connections.send(address("192.0.2.1:5060"), message.clone()).is_ok())
            .count();
        assert_eq!(sent, QUEUED_BYTES / 65_536);
        assert_eq!(connections.flows().count(), 0);
        assert_eq!(outbox.unsent(None).len(), sent);
    }

    #[test]
    fn a_peer_is_believed_to_be_who_its_certificate_says() {
        let pair = rcgen::generate_simple_self_signed(vec!["proxy.example.com".to_owned()]).unwrap();
        let certificate = || Some(Box::new(pair.cert.der().clone().into_owned()));
        let mut connections = Connections::new(Places::new(10), 0, 1);
        let tls = |id| Flow { transport: Transport::Tls, ..flow_of(id, "192.0.2.1:40000") };
        let target = |name| Target::Address {
            listener: ListenerId(0),
            transport: Transport::Tls,
            remote: "192.0.2.1:5061".parse().unwrap(),
            server: ServerKey::of(name),
        };
        let (queue_1, _outbox_1) = queue();
        connections.accepted(tls(1), queue_1, certificate());
        connections.alias(&tls(1), "bank.example.com", 5061);
        assert!(connections.send(target("bank.example.com"), Bytes::new()).is_err());
        connections.alias(&tls(1), "proxy.example.com", 5061);
        assert!(connections.send(target("Proxy.Example.com"), Bytes::new()).is_ok());
        // Without a certificate nothing is believed.
        let (queue_2, _outbox_2) = queue();
        connections.accepted(tls(2), queue_2, None);
        connections.remove(&tls(1));
        connections.alias(&tls(2), "proxy.example.com", 5061);
        assert!(connections.send(target("proxy.example.com"), Bytes::new()).is_err());
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
