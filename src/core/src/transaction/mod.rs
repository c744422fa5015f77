//! The transaction layer: what a machine puts between itself and the transport.
//!
//! RFC 3261 §17 with RFC 6026 (a 2xx to INVITE) and RFC 4320 (non-INVITE). Retransmissions are absorbed and made here,
//! a final response that is no 2xx is acknowledged here, hop by hop. A machine owns one [`Layer`]:
//!
//! - a request came: [`Layer::receive_request`] says whether it is new, and the machine answers it with
//!   [`Layer::respond`] under its [`ServerId`];
//! - a request is to be sent: [`Layer::send_request`], with a branch of [`Layer::branch`] in its top Via;
//! - a response came: [`Layer::receive_response`] says whose it is, and whether the machine is to see it;
//! - then [`Layer::poll_transmit`] and [`Layer::poll_event`] are drained, and [`Layer::poll_timeout`] is obeyed.
//!
//! A 2xx to an INVITE is repeated by the user agent that made it, and its ACK is a request of its own that goes
//! through no transaction (§13.3.1.4, §17.1.1.3): both are the machine's. So is timer C (§16.6).
//! Not here: reading and writing messages (`sip`), where to send (`resolve`, the machines).

mod client;
mod hop;
mod ids;
mod key;
mod server;
pub mod timing;

pub use client::ClientState;
pub use key::{MAGIC_COOKIE, RequestId, ResponseId};
pub use server::ServerState;

use crate::flow::{ConnectionId, Flow, Target};
use crate::limits;
use crate::rng::{KeyedHash, Rng};
use crate::time::Instant;
use crate::timer::{OwnHash, Timers};
use bytes::Bytes;
use client::Client;
use server::{Fate, Server};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// A request that we received and answer; never used twice in a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u64);

/// A request that we sent; never used twice in a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// What a request is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Seen for the first time: to be answered under this id.
    New(ServerId),
    /// A CANCEL, to be answered under `id`: 200 where `invite` names what it cancels, else 481 (RFC 3261 §9.2).
    /// `invite` may have its final response already; then the CANCEL changes nothing.
    Cancel { id: ServerId, invite: Option<ServerId> },
    /// An ACK that is not ours to absorb: for a 2xx, so end to end. It has the INVITE's transaction only where the
    /// client reuses the branch.
    Ack(Option<ServerId>),
    /// Dealt with: a retransmission, or the ACK to our own final response.
    Absorbed,
    /// Too many transactions: to be answered statelessly with 503.
    Overload,
}

/// What a response is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// News for the sender of this request.
    Pass(ClientId),
    /// Dealt with: repeated, late, or the answer to a CANCEL that the layer sent.
    Absorbed,
    /// It belongs to nothing that we sent, or that is still remembered.
    Stray,
}

/// What the layer tells by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// No final response: timer B or F, or 64*T1 after a CANCEL. To be taken as 408 (RFC 3261 §8.1.3.1).
    TimedOut(ClientId),
    /// The request could not be sent, or its connection closed before the final response. To be taken as 503.
    TransportFailed(ClientId),
    /// Our final response to an INVITE was never acknowledged (timer H).
    Unacknowledged(ServerId),
    /// Over: the id means nothing any more. Comes last, and once for every id.
    ClientEnded(ClientId),
    ServerEnded(ServerId),
}

/// RFC 3261 table 4 and RFC 6026 §7, by letter; timer C is the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Letter {
    A,
    B,
    D,
    E,
    F,
    G,
    H,
    I,
    J,
    K,
    L,
    M,
    /// 64*T1 after a CANCEL (§9.1).
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    Server(ServerId),
    Client(ClientId),
}

/// What the transactions put out.
#[derive(Default)]
struct Out {
    timers: Timers<(Owner, Letter)>,
    transmits: VecDeque<(Target, Bytes)>,
    events: VecDeque<Event>,
    /// Of all messages that are held.
    bytes: usize,
}

impl Out {
    /// Keeps a message for its retransmission, in place of an earlier one, while there is room.
    fn keep(&mut self, place: &mut Option<Bytes>, data: &Bytes) {
        self.let_go(place);
        if self.bytes + data.len() <= limits::TRANSACTION_BYTES {
            self.bytes += data.len();
            *place = Some(data.clone());
        }
    }

    fn let_go(&mut self, place: &mut Option<Bytes>) {
        self.bytes -= place.take().map_or(0, |data| data.len());
    }

    fn transmit(&mut self, target: Target, data: Bytes) {
        self.transmits.push_back((target, data));
    }

    fn disarm(&mut self, owner: Owner, letters: &[Letter]) {
        for &letter in letters {
            self.timers.disarm((owner, letter));
        }
    }
}

/// Ids are made by us, so their hash needs no secret.
type ById<K, V> = HashMap<K, V, OwnHash>;

/// What a layer holds at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub servers: usize,
    pub clients: usize,
    pub timers: usize,
    /// Of the messages that are kept for them.
    pub bytes: usize,
}

/// All transactions of one machine.
pub struct Layer {
    servers: ById<ServerId, Server>,
    clients: ById<ClientId, Client>,
    server_keys: HashMap<Box<str>, ServerId, KeyedHash>,
    client_keys: HashMap<Box<str>, ClientId, KeyedHash>,
    /// First copies of requests, where others of them are to be known.
    merges: Option<HashMap<Box<str>, ServerId, KeyedHash>>,
    /// Client transactions that hang on a connection.
    connections: BTreeSet<(ConnectionId, ClientId)>,
    out: Out,
    ids: u64,
    worker: u8,
    scratch: String,
}

impl Layer {
    /// `worker` is written into every branch, so that the response to it finds its owner (ARCHITECTURE.md, invariant 7).
    pub fn new(rng: &mut Rng, worker: u8) -> Self {
        let hash = KeyedHash::new(rng);
        Layer {
            servers: HashMap::default(),
            clients: HashMap::default(),
            server_keys: HashMap::with_hasher(hash.clone()),
            client_keys: HashMap::with_hasher(hash),
            merges: None,
            connections: BTreeSet::new(),
            out: Out::default(),
            ids: 0,
            worker,
            scratch: String::new(),
        }
    }

    /// For a user agent server: knows the further copies of a request that was forked before it reached us, so that it does
    /// not act twice (RFC 3261 §8.2.2.2). A proxy passes each on.
    #[must_use]
    pub fn knowing_merged(mut self) -> Self {
        self.merges = Some(HashMap::with_hasher(self.server_keys.hasher().clone()));
        self
    }

    /// Whether a new request is another copy of one that is still here: to be answered with 482.
    pub fn is_merged(&self, id: ServerId) -> bool {
        self.servers.get(&id).is_some_and(|server| server.merged)
    }

    /// What is held now.
    pub fn held(&self) -> Held {
        Held {
            servers: self.servers.len(),
            clients: self.clients.len(),
            timers: self.out.timers.len(),
            bytes: self.out.bytes,
        }
    }

    /// A branch for a request of ours: cookie, worker in two hexadecimal digits, 95 random bits.
    pub fn branch(&self, rng: &mut Rng) -> String {
        format!("{MAGIC_COOKIE}{:02x}{}", self.worker, rng.token(16))
    }

    /// The worker that made a branch of ours.
    pub fn worker_of(branch: &str) -> Option<u8> {
        let digits = branch.strip_prefix(MAGIC_COOKIE)?.get(..2)?;
        u8::from_str_radix(digits, 16).ok()
    }

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// A request came; `reply_to` is where RFC 3261 §18.2.2 sends its responses.
    pub fn receive_request(&mut self, now: Instant, id: &RequestId<'_>, reply_to: Target) -> Received {
        match id.method {
            "ACK" => return self.receive_ack(now, id),
            "CANCEL" => {
                let received = self.receive_new(now, id, reply_to);
                let Received::New(cancel) = received else { return received };
                key::server(id, "INVITE", &mut self.scratch);
                let invite = self.server_keys.get(self.scratch.as_str()).copied();
                return Received::Cancel { id: cancel, invite };
            }
            _ => {}
        }
        self.receive_new(now, id, reply_to)
    }

    fn receive_new(&mut self, now: Instant, id: &RequestId<'_>, reply_to: Target) -> Received {
        key::server(id, id.method, &mut self.scratch);
        if let Some(known) = self.server_keys.get(self.scratch.as_str()) {
            if let Some(server) = self.servers.get(known) {
                server.retransmitted(&mut self.out);
            }
            return Received::Absorbed;
        }
        if self.servers.len() >= limits::TRANSACTIONS || self.out.bytes + id.bytes > limits::TRANSACTION_BYTES
        {
            return Received::Overload;
        }
        let server_id = ServerId(self.next_id());
        let key: Box<str> = self.scratch.as_str().into();
        let invite = id.method == "INVITE";
        self.server_keys.insert(key.clone(), server_id);
        let mut server = Server::new(server_id, key, invite, reply_to, id.bytes, now);
        if let Some(merges) = self.merges.as_mut().filter(|_| !id.in_dialog && id.method != "CANCEL") {
            key::merged(id, &mut self.scratch);
            if merges.contains_key(self.scratch.as_str()) {
                server.merged = true;
            } else {
                let key: Box<str> = self.scratch.as_str().into();
                server.merge_key = Some(key.clone());
                merges.insert(key, server_id);
            }
        }
        self.out.bytes += id.bytes;
        self.servers.insert(server_id, server);
        if !invite {
            // A machine that never answers must not leave its transaction behind (RFC 4320 §4.2).
            self.out.timers.arm((Owner::Server(server_id), Letter::F), now + timing::T1 * 64);
        }
        Received::New(server_id)
    }

    fn receive_ack(&mut self, now: Instant, id: &RequestId<'_>) -> Received {
        key::server(id, "INVITE", &mut self.scratch);
        let Some(&server_id) = self.server_keys.get(self.scratch.as_str()) else {
            return Received::Ack(None);
        };
        let Some(server) = self.servers.get_mut(&server_id) else { return Received::Ack(None) };
        let (for_2xx, fate) = server.acked(now, &mut self.out);
        if fate == Fate::Ends {
            self.end_server(server_id);
        }
        if for_2xx { Received::Ack(Some(server_id)) } else { Received::Absorbed }
    }

    /// Answers a request. `false`: the transaction is over, or may not answer so (a second final response, a 408
    /// or an early 100 to a non-INVITE request); nothing was sent.
    pub fn respond(&mut self, now: Instant, id: ServerId, status: u16, data: Bytes) -> bool {
        let Some(server) = self.servers.get_mut(&id) else { return false };
        let (sent, fate) = server.respond(now, status, data, &mut self.out);
        // What was refused may be tried again, by a client that forgets to count its CSeq up, too.
        if sent
            && status >= 300
            && let (Some(merges), Some(key)) = (&mut self.merges, server.merge_key.take())
        {
            merges.remove(&key);
        }
        if fate == Fate::Ends {
            self.end_server(id);
        }
        sent
    }

    /// Ends a transaction that nobody will answer: a request that is to be dropped.
    pub fn drop_server(&mut self, id: ServerId) {
        self.end_server(id);
    }

    /// Sends a request with `branch` in its top Via. `None`: too many transactions, nothing was sent.
    pub fn send_request(
        &mut self,
        now: Instant,
        target: Target,
        method: &str,
        branch: &str,
        data: Bytes,
    ) -> Option<ClientId> {
        self.send(now, target, method, branch, data, false)
    }

    fn send(
        &mut self,
        now: Instant,
        target: Target,
        method: &str,
        branch: &str,
        data: Bytes,
        silent: bool,
    ) -> Option<ClientId> {
        if self.clients.len() >= limits::TRANSACTIONS
            || self.out.bytes + data.len() > limits::TRANSACTION_BYTES
        {
            return None;
        }
        self.out.bytes += data.len();
        let id = ClientId(self.next_id());
        key::client(branch, method, &mut self.scratch);
        let key: Box<str> = self.scratch.as_str().into();
        let mut client = Client::new(id, key.clone(), method == "INVITE", target, data);
        client.silent = silent;
        client.start(now, &mut self.out);
        if let Target::Flow(Flow { connection: Some(connection), .. }) = target {
            self.connections.insert((connection, id));
        }
        self.client_keys.insert(key, id);
        self.clients.insert(id, client);
        Some(id)
    }

    /// Sends what needs no transaction: the ACK to a 2xx, a stateless answer.
    pub fn send_stateless(&mut self, target: Target, data: Bytes) {
        self.out.transmit(target, data);
    }

    /// Cancels an INVITE that we sent, as soon as its first provisional response is there (RFC 3261 §9.1). Its final
    /// response still comes, 487 as a rule, or else a time-out. No effect after the final response.
    pub fn cancel(&mut self, now: Instant, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.cancel(now, &mut self.out) {
            self.send_cancel(now, id);
        }
    }

    fn send_cancel(&mut self, now: Instant, id: ClientId) {
        let Some(client) = self.clients.get(&id) else { return };
        let Some(request) = hop::cancel(&client.request) else { return };
        let Some(branch) = client.key.strip_suffix("\nINVITE").map(str::to_owned) else { return };
        let target = client.target;
        self.send(now, target, "CANCEL", &branch, request, true);
    }

    /// A response came.
    pub fn receive_response(&mut self, now: Instant, id: &ResponseId<'_>) -> Answered {
        key::client(id.branch, id.method, &mut self.scratch);
        let Some(&client_id) = self.client_keys.get(self.scratch.as_str()) else { return Answered::Stray };
        let Some(client) = self.clients.get_mut(&client_id) else { return Answered::Stray };
        let heard = client.heard(now, id.status, id.to, &mut self.out);
        let silent = client.silent;
        if heard.cancel_now {
            self.send_cancel(now, client_id);
        }
        if heard.fate == Fate::Ends {
            self.end_client(client_id);
        }
        if heard.pass && !silent { Answered::Pass(client_id) } else { Answered::Absorbed }
    }

    /// A request of ours with this branch could not be sent.
    pub fn send_failed(&mut self, method: &str, branch: &str) {
        key::client(branch, method, &mut self.scratch);
        if let Some(&id) = self.client_keys.get(self.scratch.as_str()) {
            self.transport_failed(id);
        }
    }

    /// A connection closed: no response comes through it any more.
    pub fn flow_closed(&mut self, flow: &Flow) {
        let Some(connection) = flow.connection else { return };
        let range = (connection, ClientId(0))..=(connection, ClientId(u64::MAX));
        let ids: Vec<ClientId> = self.connections.range(range).map(|&(_, id)| id).collect();
        for id in ids {
            self.transport_failed(id);
        }
    }

    fn transport_failed(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(&id) else { return };
        // After the final response nothing is lost with the connection (an ACK that fails: RFC 3261 §17.1.1.2).
        if !client.is_final() {
            if !client.silent {
                self.out.events.push_back(Event::TransportFailed(id));
            }
            self.end_client(id);
        }
    }

    /// Where the state of a transaction stands; `None` when it is over.
    pub fn server_state(&self, id: ServerId) -> Option<ServerState> {
        self.servers.get(&id).map(|server| server.state)
    }

    pub fn client_state(&self, id: ClientId) -> Option<ClientState> {
        self.clients.get(&id).map(|client| client.state)
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<(Target, Bytes)> {
        self.out.transmits.pop_front()
    }

    /// What to know next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.out.timers.next()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((owner, letter)) = self.out.timers.expire(now) {
            match owner {
                Owner::Server(id) => {
                    let Some(server) = self.servers.get_mut(&id) else { continue };
                    if server.fire(now, letter, &mut self.out) == Fate::Ends {
                        self.end_server(id);
                    }
                }
                Owner::Client(id) => {
                    let Some(client) = self.clients.get_mut(&id) else { continue };
                    if client.fire(now, letter, &mut self.out) == Fate::Ends {
                        self.end_client(id);
                    }
                }
            }
        }
    }

    /// Server transactions without a final response, and client transactions that wait for one.
    pub fn pending(&self) -> usize {
        self.servers.values().filter(|server| !server.is_final()).count()
            + self.clients.values().filter(|client| !client.is_final()).count()
    }

    fn end_server(&mut self, id: ServerId) {
        let Some(server) = self.servers.remove(&id) else { return };
        self.server_keys.remove(&server.key);
        if let (Some(merges), Some(key)) = (&mut self.merges, &server.merge_key) {
            merges.remove(key);
        }
        self.out.bytes -= server.held();
        self.out
            .disarm(Owner::Server(id), &[Letter::F, Letter::G, Letter::H, Letter::I, Letter::J, Letter::L]);
        self.out.events.push_back(Event::ServerEnded(id));
    }

    fn end_client(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        self.client_keys.remove(&client.key);
        self.out.bytes -= client.held();
        if let Target::Flow(Flow { connection: Some(connection), .. }) = client.target {
            self.connections.remove(&(connection, id));
        }
        let letters =
            [Letter::A, Letter::B, Letter::Cancelled, Letter::D, Letter::E, Letter::F, Letter::K, Letter::M];
        self.out.disarm(Owner::Client(id), &letters);
        if !client.silent {
            self.out.events.push_back(Event::ClientEnded(id));
        }
    }
}

#[cfg(test)]
mod tests;
