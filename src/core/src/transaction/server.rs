//! The two server transactions.
//!
//! RFC 3261 §17.2.1 and §17.2.2 with RFC 6026 §7.1 (a 2xx leads to Accepted, where its retransmissions come from the
//! transaction user) and RFC 4320 §4 (what may not be sent to a non-INVITE request). In go retransmitted requests,
//! ACKs, the transaction user's responses and timers; out come responses, and word of the end.

use super::{Event, Letter, Out, Owner, ServerId, timing};
use crate::flow::Target;
use crate::time::Instant;
use bytes::Bytes;
use std::time::Duration;

/// RFC 3261 figures 7 and 8, RFC 6026 figure 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Non-INVITE only: nothing was answered yet.
    Trying,
    Proceeding,
    /// INVITE only: a 2xx was sent; the transaction stays to absorb the INVITE's retransmissions.
    Accepted,
    Completed,
    /// INVITE only: the ACK came.
    Confirmed,
}

pub(super) struct Server {
    pub id: ServerId,
    pub key: Box<str>,
    pub invite: bool,
    pub state: ServerState,
    pub reply_to: Target,
    born: Instant,
    /// What a retransmitted request gets again.
    last: Option<Bytes>,
    /// Bytes of the request.
    request: usize,
    /// What finds it as a merged request's first copy.
    pub merge_key: Option<Box<str>>,
    /// Another copy of it came before, by another way.
    pub merged: bool,
    /// The current interval of timer G.
    interval: Duration,
}

/// What becomes of the transaction.
#[derive(PartialEq, Eq)]
pub(super) enum Fate {
    Lives,
    Ends,
}

impl Server {
    pub fn new(
        id: ServerId,
        key: Box<str>,
        invite: bool,
        reply_to: Target,
        request: usize,
        now: Instant,
    ) -> Self {
        let state = if invite { ServerState::Proceeding } else { ServerState::Trying };
        Server {
            id,
            key,
            invite,
            state,
            reply_to,
            born: now,
            last: None,
            request,
            merge_key: None,
            merged: false,
            interval: timing::T1,
        }
    }

    /// Bytes that are held for it.
    pub fn held(&self) -> usize {
        self.request + self.last.as_ref().map_or(0, Bytes::len)
    }

    fn owner(&self) -> Owner {
        Owner::Server(self.id)
    }

    fn reliable(&self) -> bool {
        self.reply_to.transport().is_reliable()
    }

    /// Whether a final response was sent.
    pub fn is_final(&self) -> bool {
        !matches!(self.state, ServerState::Trying | ServerState::Proceeding)
    }

    /// The request came again.
    pub fn retransmitted(&self, out: &mut Out) {
        match self.state {
            // A 2xx is repeated by whoever answered, end to end; after the ACK nothing is.
            ServerState::Accepted | ServerState::Confirmed => {}
            ServerState::Trying | ServerState::Proceeding | ServerState::Completed => {
                if let Some(last) = &self.last {
                    out.transmit(self.reply_to, last.clone());
                }
            }
        }
    }

    /// An ACK with this INVITE's branch; `true` where it answers a 2xx and belongs to the transaction user.
    pub fn acked(&mut self, now: Instant, out: &mut Out) -> (bool, Fate) {
        match self.state {
            ServerState::Completed if self.invite => {
                self.state = ServerState::Confirmed;
                out.timers.disarm((self.owner(), Letter::G));
                out.timers.disarm((self.owner(), Letter::H));
                if self.reliable() {
                    return (false, Fate::Ends);
                }
                out.timers.arm((self.owner(), Letter::I), now + timing::T4);
                (false, Fate::Lives)
            }
            ServerState::Accepted => (true, Fate::Lives),
            ServerState::Trying
            | ServerState::Proceeding
            | ServerState::Completed
            | ServerState::Confirmed => (false, Fate::Lives),
        }
    }

    /// A response from the transaction user; `false` where it may not be sent any more, or at all.
    pub fn respond(&mut self, now: Instant, status: u16, data: Bytes, out: &mut Out) -> (bool, Fate) {
        if self.invite {
            self.respond_invite(now, status, data, out)
        } else {
            self.respond_other(now, status, data, out)
        }
    }

    fn respond_invite(&mut self, now: Instant, status: u16, data: Bytes, out: &mut Out) -> (bool, Fate) {
        match (self.state, status) {
            (ServerState::Proceeding, 100..=199) => {
                out.keep(&mut self.last, &data);
                out.transmit(self.reply_to, data);
                (true, Fate::Lives)
            }
            (ServerState::Proceeding, 200..=299) => {
                self.state = ServerState::Accepted;
                out.let_go(&mut self.last);
                out.timers.arm((self.owner(), Letter::L), now + timing::T1 * 64);
                out.transmit(self.reply_to, data);
                (true, Fate::Lives)
            }
            // Also the 2xx of another branch: a proxy passes each one on (RFC 6026 §7.1).
            (ServerState::Accepted, 200..=299) => {
                out.transmit(self.reply_to, data);
                (true, Fate::Lives)
            }
            (ServerState::Proceeding, _) => {
                self.state = ServerState::Completed;
                out.keep(&mut self.last, &data);
                if !self.reliable() {
                    out.timers.arm((self.owner(), Letter::G), now + self.interval);
                }
                out.timers.arm((self.owner(), Letter::H), now + timing::T1 * 64);
                out.transmit(self.reply_to, data);
                (true, Fate::Lives)
            }
            (
                ServerState::Trying | ServerState::Accepted | ServerState::Completed | ServerState::Confirmed,
                _,
            ) => (false, Fate::Lives),
        }
    }

    fn respond_other(&mut self, now: Instant, status: u16, data: Bytes, out: &mut Out) -> (bool, Fate) {
        if self.is_final() {
            return (false, Fate::Lives);
        }
        let age = now.saturating_since(self.born);
        if age >= timing::T1 * 64 || status == 408 {
            // RFC 4320 §4.2: the client's timer F has fired, or is about to; an answer would only be a stray.
            return (false, Fate::Ends);
        }
        if status < 200 {
            // RFC 4320 §4.1: only a 100, and over an unreliable transport not before the client repeats at T2.
            if status != 100 || (!self.reliable() && age < timing::TRYING_AFTER) {
                return (false, Fate::Lives);
            }
            self.state = ServerState::Proceeding;
            out.keep(&mut self.last, &data);
            out.transmit(self.reply_to, data);
            return (true, Fate::Lives);
        }
        self.state = ServerState::Completed;
        out.timers.disarm((self.owner(), Letter::F));
        out.transmit(self.reply_to, data.clone());
        if self.reliable() {
            return (true, Fate::Ends);
        }
        out.keep(&mut self.last, &data);
        out.timers.arm((self.owner(), Letter::J), now + timing::T1 * 64);
        (true, Fate::Lives)
    }

    pub fn fire(&mut self, now: Instant, letter: Letter, out: &mut Out) -> Fate {
        match letter {
            Letter::G => {
                if let Some(last) = &self.last {
                    out.transmit(self.reply_to, last.clone());
                }
                self.interval = (self.interval * 2).min(timing::T2);
                out.timers.arm((self.owner(), Letter::G), now + self.interval);
                Fate::Lives
            }
            Letter::H => {
                out.events.push_back(Event::Unacknowledged(self.id));
                Fate::Ends
            }
            // F here is the client's: when it has given up, nothing is left to answer (RFC 4320 §4.2).
            Letter::F | Letter::I | Letter::J | Letter::L => Fate::Ends,
            Letter::A | Letter::B | Letter::Cancelled | Letter::D | Letter::E | Letter::K | Letter::M => {
                Fate::Lives
            }
        }
    }
}
