//! A request on its way: the response context of RFC 3261 §16.2, and its branches.
//!
//! Values only; what happens to them is in `mod`, `fork`, `response`.

use super::media::{Key, Peer};
use super::token::{RouteToken, Toward};
use crate::flow::{Flow, Target};
use crate::machine::Ticket;
use crate::resolve::{Hop, Wanted};
use crate::sdp::Profile;
use crate::transaction::{ClientId, ServerId};
use bytes::Bytes;
use std::collections::VecDeque;

/// Names one request on its way; never used twice in a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ContextId(pub u64);

/// One request on its way.
pub(super) struct Context {
    pub id: ContextId,
    pub server: ServerId,
    /// As it came, with `received` and `rport` in its top Via.
    pub request: Bytes,
    pub flow: Flow,
    pub method: Kind,
    /// To-tag of what we answer by ourselves.
    pub tag: String,
    /// Our credentials are in it, and verified: they go no further.
    pub authenticated: bool,
    /// The first of our boxes that the request came to: what the source says of itself is seen here, and only here.
    pub first_hop: bool,
    /// Route values of ours on top, which are taken off.
    pub own_routes: usize,
    pub dialog: Option<(RouteToken, Toward)>,
    /// Written into our branches: a mark of what decided where it goes, so that a loop shows.
    pub looked_up: String,
    /// Branches that may be open at a time, here and behind us (RFC 5393 §5).
    pub breadth: u32,
    /// The server transaction is over; what is left waits for late answers of callees.
    pub over: bool,
    /// The question that has to be answered before there are branches.
    pub asking: Option<Ticket>,
    pub sender: Peer,
    /// The sender's NAT was seen here, so that his Contact gets an alias.
    pub alias: bool,
    pub sdp: Option<Profile>,
    pub has_sdp: bool,
    pub branches: Vec<Branch>,
    /// Destinations that wait for their turn (serial forking).
    pub later: VecDeque<Destination>,
    pub cancelled: bool,
    /// A final response went upstream.
    pub finished: bool,
    /// The relay that has this call's media.
    pub relay: Option<u8>,
}

/// What the proxy tells apart among methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Invite,
    Register,
    Bye,
    Update,
    Subscribe,
    Publish,
    Notify,
    Refer,
    Other,
}

impl Kind {
    /// Offers and answers may be in it and in its responses.
    pub const fn has_media(self) -> bool {
        matches!(self, Kind::Invite | Kind::Update)
    }

    /// It may make a dialog, so that our Record-Route belongs in it.
    pub const fn makes_dialog(self) -> bool {
        matches!(self, Kind::Invite | Kind::Subscribe | Kind::Refer)
    }
}

/// Where a branch goes.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    /// The Request-URI.
    pub uri: Vec<u8>,
    /// Values of Route, in order, with their brackets, that go in front of those that stay.
    pub routes: Vec<Vec<u8>>,
    /// Whether the Route values of the request stay (but for our own on top of them).
    pub keep_routes: bool,
    pub next: NextHop,
    pub peer: Peer,
    /// Not one of ours: a trunk, another domain.
    pub foreign: bool,
    /// No other box of ours is between us and it: NAT and alias of its answers are ours.
    pub direct: bool,
}

/// Where a message is sent to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NextHop {
    Target(Target),
    /// To be resolved first.
    Host(Wanted),
}

/// One copy of the request.
pub(super) struct Branch {
    pub destination: Destination,
    pub target: Option<Target>,
    /// Who is tried after it (RFC 3263 §4.3).
    pub others: VecDeque<Hop>,
    /// Nobody answered there, or there is no way.
    pub unreached: bool,
    /// Something was heard of it, be it a 100.
    pub heard: bool,
    /// It went by TCP for its length alone: where it would have gone.
    pub datagram: Option<Target>,
    /// It stays a datagram whatever its length: TCP was tried.
    pub stays_datagram: bool,
    pub client: Option<ClientId>,
    /// Its share of the request's breadth.
    pub breadth: u32,
    /// To tags of the callees whose answers came too late.
    pub hung_up: Vec<Box<[u8]>>,
    /// The question that has to be answered before it goes on.
    pub asking: Option<Ticket>,
    pub relayed: bool,
    /// The relay has heard of this branch: it has to be told of its end.
    pub told: bool,
    /// Bodies of responses that the relay rewrote: a repeated response gets the same again.
    pub rewritten: Vec<(Bytes, Vec<u8>)>,
    /// Responses that wait for the relay's answer to an earlier one.
    pub waiting: VecDeque<(Flow, Bytes)>,
    pub outcome: Option<Outcome>,
}

/// How a branch ended.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// A final response, without our Via.
    Response(u16, Bytes),
    /// Ours: status and reason.
    Local(u16, &'static str),
}

impl Outcome {
    pub const fn status(&self) -> u16 {
        match self {
            Outcome::Response(status, _) | Outcome::Local(status, _) => *status,
        }
    }
}

impl Context {
    /// Bytes that are held for it besides its transactions.
    pub fn held(&self) -> usize {
        self.branches.iter().map(Branch::held).sum()
    }
}

impl Branch {
    fn held(&self) -> usize {
        let outcome = match &self.outcome {
            Some(Outcome::Response(_, data)) => data.len(),
            Some(Outcome::Local(..)) | None => 0,
        };
        let rewritten: usize = self.rewritten.iter().map(|(body, sdp)| body.len() + sdp.len()).sum();
        outcome + rewritten + self.waiting.iter().map(|(_, data)| data.len()).sum::<usize>()
    }

    pub fn new(destination: Destination, breadth: u32) -> Self {
        Branch {
            destination,
            target: None,
            others: VecDeque::new(),
            unreached: false,
            heard: false,
            datagram: None,
            stays_datagram: false,
            client: None,
            breadth,
            hung_up: Vec::new(),
            asking: None,
            relayed: false,
            told: false,
            rewritten: Vec::new(),
            waiting: VecDeque::new(),
            outcome: None,
        }
    }
}

/// An ACK to a 2xx, of which the relay or a name server is asked.
pub(super) struct WaitingAck {
    pub request: Bytes,
    pub shown: super::dialog::Shown,
    pub own_routes: usize,
    /// In the place of its own session description: what the relay made of it.
    pub sdp: Option<Vec<u8>>,
}

/// What an answer is for.
pub(super) enum Waiting {
    Credentials(ContextId),
    Location(ContextId),
    /// Where the client of a dialog is now, whose connection is gone; else this destination.
    Moved(ContextId, Box<Destination>),
    Resolve(ContextId, usize),
    Offer(ContextId, usize),
    Answer(ContextId, usize),
    /// What the relay makes of its answer.
    Ack(Box<WaitingAck>),
    /// Where the name leads that it goes to.
    AckTarget(Box<WaitingAck>),
    /// Nobody waits for it.
    Delete(Key),
}
