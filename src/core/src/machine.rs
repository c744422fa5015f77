//! The contract of every SIP server in core: what goes in, what comes out, and in which order.
//!
//! A driver calls, for each thing that happened, `handle_input` (or `handle_timeout` when `poll_timeout` has
//! passed), and then drains `poll_output` until it is `None`, before the next input. What a machine wants to
//! know from a database, DNS or a relay it asks for with a ticket; it keeps what is pending under it and goes
//! on. An answer may come late or never: the machine has its own deadline, and ignores a ticket it dropped.
//! Not here: who carries it out (`sipbox-io`, `driver`).

use crate::flow::{Flow, Target};
use crate::resolve;
use crate::store;
use crate::time::Instant;
use bytes::Bytes;
use std::net::SocketAddr;

/// Names one question of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// One whole SIP message, or one datagram. Keep-alives were answered below, and do not come here.
    Packet {
        flow: Flow,
        data: Bytes,
    },
    /// A connection is there, accepted or opened.
    FlowOpened {
        flow: Flow,
    },
    /// A connection is gone.
    FlowClosed {
        flow: Flow,
    },
    /// A `Transmit` could not be carried out: refused, unreachable, closed, or too slow.
    SendFailed {
        target: Target,
        data: Bytes,
    },
    Answer {
        ticket: Ticket,
        reply: Reply,
    },
    /// Tables and configuration were read again (SIGHUP).
    Reload,
    /// Take no new work (SIGTERM): answer new requests outside of a dialog with 503.
    Drain,
}

/// One thing to do.
#[derive(Debug)]
pub enum Output {
    Transmit {
        target: Target,
        data: Bytes,
    },
    Ask {
        ticket: Ticket,
        question: Question,
    },
    /// Close this connection.
    Close {
        flow: Flow,
    },
    Event(Event),
}

#[derive(Debug, Clone)]
pub enum Question {
    /// Read, or change under preconditions, in the database.
    Store(store::Query),
    /// Addresses of a host; the literal address never comes here.
    Resolve { host: String, port: u16 },
    /// Where a URI leads, by RFC 3263.
    Locate(resolve::Wanted),
    /// One ng request to the relay of this index: a dictionary in bencode without the cookie.
    Relay { relay: u16, request: Bytes },
}

#[derive(Debug, Clone)]
pub enum Reply {
    Store(Result<store::Reply, store::Error>),
    Resolve(Vec<SocketAddr>),
    /// In the order in which they are to be tried; empty: there is none, or DNS does not answer.
    Locate(Vec<resolve::Hop>),
    /// The reply's dictionary without the cookie, or `None` after the last retransmission had no answer.
    Relay(Option<Bytes>),
}

/// Something that an operator wants to read or count: one log line, and one JSON record on `--events`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub level: Level,
    /// Stable name, in the man page: `registered`, `auth-failed`, …
    pub name: &'static str,
    /// Fields in order; `call_id` and `peer` by these names everywhere. Never a credential, key or nonce.
    pub fields: Vec<(&'static str, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Per decision.
    Debug,
    /// A registration, a call.
    Info,
    /// Somebody should look.
    Warn,
    /// We cannot go on.
    Error,
}

impl Event {
    pub fn new(level: Level, name: &'static str) -> Self {
        Event { level, name, fields: Vec::new() }
    }

    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.fields.push((key, value.to_string()));
        self
    }
}

/// A server's logic.
pub trait Machine {
    fn handle_input(&mut self, now: Instant, input: Input);
    fn poll_output(&mut self) -> Option<Output>;
    /// When `handle_timeout` wants to be called next.
    fn poll_timeout(&self) -> Option<Instant>;
    fn handle_timeout(&mut self, now: Instant);
    /// True once a drained machine has nothing under way.
    fn is_idle(&self) -> bool;
    /// Its state as JSON objects, one a line (SIGUSR1).
    fn dump(&self, out: &mut Vec<String>);
}

/// `None` has nothing to say: a worker that keeps connections for the one that has the machine.
impl<M: Machine> Machine for Option<M> {
    fn handle_input(&mut self, now: Instant, input: Input) {
        if let Some(machine) = self {
            machine.handle_input(now, input);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.as_mut()?.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.as_ref()?.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(machine) = self {
            machine.handle_timeout(now);
        }
    }

    fn is_idle(&self) -> bool {
        self.as_ref().is_none_or(Machine::is_idle)
    }

    fn dump(&self, out: &mut Vec<String>) {
        if let Some(machine) = self {
            machine.dump(out);
        }
    }
}
