//! The two client transactions.
//!
//! RFC 3261 §17.1.1 and §17.1.2 with RFC 6026 §7.2 (a 2xx leads to Accepted, where each further 2xx goes up), the ACK
//! to a final response that is no 2xx (§17.1.1.3), and the CANCEL that waits for the first provisional response (§9.1).
//! In go responses and timers; out come requests, and word of time-outs and of the end.

use super::{ClientId, Event, Fate, Letter, Out, Owner, hop, timing};
use crate::flow::Target;
use crate::time::Instant;
use bytes::Bytes;
use std::time::Duration;

/// RFC 3261 figures 5 and 6, RFC 6026 figure 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// INVITE: nothing was heard yet.
    Calling,
    /// Non-INVITE: nothing was heard yet.
    Trying,
    Proceeding,
    /// INVITE only: a 2xx came.
    Accepted,
    Completed,
}

pub(super) struct Client {
    pub id: ClientId,
    pub key: Box<str>,
    pub invite: bool,
    pub state: ClientState,
    pub target: Target,
    /// The request, for its retransmission, its ACK and its CANCEL.
    pub request: Bytes,
    /// Of a final response that is no 2xx, to be repeated with it.
    ack: Option<Bytes>,
    /// The current interval of timer A or E.
    interval: Duration,
    cancel: Cancel,
    /// A CANCEL that this layer sent: its answer is nobody's business.
    pub silent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    /// Wanted, but nothing may be sent before a provisional response.
    Wanted,
    Sent,
}

/// What a response does to the transaction user.
pub(super) struct Heard {
    pub pass: bool,
    /// The CANCEL that waited may go now.
    pub cancel_now: bool,
    pub fate: Fate,
}

impl Client {
    pub fn new(id: ClientId, key: Box<str>, invite: bool, target: Target, request: Bytes) -> Self {
        let state = if invite { ClientState::Calling } else { ClientState::Trying };
        let (interval, cancel) = (timing::T1, Cancel::No);
        Client { id, key, invite, state, target, request, ack: None, interval, cancel, silent: false }
    }

    /// Bytes that are held for it.
    pub fn held(&self) -> usize {
        self.request.len() + self.ack.as_ref().map_or(0, Bytes::len)
    }

    fn owner(&self) -> Owner {
        Owner::Client(self.id)
    }

    fn reliable(&self) -> bool {
        self.target.transport().is_reliable()
    }

    /// Whether a final response came.
    pub fn is_final(&self) -> bool {
        matches!(self.state, ClientState::Accepted | ClientState::Completed)
    }

    /// Sends the request for the first time.
    pub fn start(&mut self, now: Instant, out: &mut Out) {
        let (repeat, give_up) = if self.invite { (Letter::A, Letter::B) } else { (Letter::E, Letter::F) };
        if !self.reliable() {
            out.timers.arm((self.owner(), repeat), now + self.interval);
        }
        out.timers.arm((self.owner(), give_up), now + timing::T1 * 64);
        out.transmit(self.target, self.request.clone());
    }

    /// Whether a CANCEL may go now; where it has to wait it is remembered.
    pub fn cancel(&mut self, now: Instant, out: &mut Out) -> bool {
        match (self.state, self.cancel) {
            (ClientState::Calling, Cancel::No) => {
                self.cancel = Cancel::Wanted;
                false
            }
            (ClientState::Proceeding, Cancel::No | Cancel::Wanted) if self.invite => {
                self.cancel = Cancel::Sent;
                // RFC 3261 §9.1: no final response in 64*T1 after the CANCEL means that none will come.
                out.timers.arm((self.owner(), Letter::Cancelled), now + timing::T1 * 64);
                true
            }
            _ => false,
        }
    }

    pub fn heard(&mut self, now: Instant, status: u16, to: &str, out: &mut Out) -> Heard {
        if self.invite { self.heard_invite(now, status, to, out) } else { self.heard_other(now, status, out) }
    }

    fn heard_invite(&mut self, now: Instant, status: u16, to: &str, out: &mut Out) -> Heard {
        let owner = self.owner();
        let mut heard = Heard { pass: false, cancel_now: false, fate: Fate::Lives };
        match (self.state, status) {
            (ClientState::Calling | ClientState::Proceeding, 100..=199) => {
                self.state = ClientState::Proceeding;
                out.timers.disarm((owner, Letter::A));
                out.timers.disarm((owner, Letter::B));
                heard.pass = true;
                heard.cancel_now = self.cancel == Cancel::Wanted && self.cancel(now, out);
            }
            (ClientState::Calling | ClientState::Proceeding, 200..=299) => {
                self.state = ClientState::Accepted;
                out.disarm(owner, &[Letter::A, Letter::B, Letter::Cancelled]);
                out.timers.arm((owner, Letter::M), now + timing::T1 * 64);
                heard.pass = true;
            }
            (ClientState::Accepted, 200..=299) => heard.pass = true,
            (ClientState::Calling | ClientState::Proceeding, 300..) => {
                self.state = ClientState::Completed;
                out.disarm(owner, &[Letter::A, Letter::B, Letter::Cancelled]);
                if let Some(ack) = hop::ack(&self.request, to) {
                    out.transmit(self.target, ack.clone());
                    out.keep(&mut self.ack, &ack);
                }
                heard.pass = true;
                if self.reliable() {
                    heard.fate = Fate::Ends;
                } else {
                    out.timers.arm((owner, Letter::D), now + timing::D);
                }
            }
            (ClientState::Completed, 300..) => self.send_ack(out),
            // Late or nonsense: a provisional response after the final one, a final one of another kind.
            (ClientState::Calling | ClientState::Trying | ClientState::Proceeding, _)
            | (ClientState::Accepted | ClientState::Completed, _) => {}
        }
        heard
    }

    fn send_ack(&self, out: &mut Out) {
        if let Some(ack) = &self.ack {
            out.transmit(self.target, ack.clone());
        }
    }

    fn heard_other(&mut self, now: Instant, status: u16, out: &mut Out) -> Heard {
        let mut heard = Heard { pass: false, cancel_now: false, fate: Fate::Lives };
        match (self.state, status) {
            (ClientState::Trying | ClientState::Proceeding, 100..=199) => {
                self.state = ClientState::Proceeding;
                heard.pass = true;
            }
            (ClientState::Trying | ClientState::Proceeding, 200..) => {
                self.state = ClientState::Completed;
                out.disarm(self.owner(), &[Letter::E, Letter::F]);
                heard.pass = true;
                if self.reliable() {
                    heard.fate = Fate::Ends;
                } else {
                    out.timers.arm((self.owner(), Letter::K), now + timing::T4);
                }
            }
            (ClientState::Calling | ClientState::Trying | ClientState::Proceeding, _)
            | (ClientState::Accepted | ClientState::Completed, _) => {}
        }
        heard
    }

    pub fn fire(&mut self, now: Instant, letter: Letter, out: &mut Out) -> Fate {
        match letter {
            Letter::A => {
                out.transmit(self.target, self.request.clone());
                self.interval *= 2;
                out.timers.arm((self.owner(), Letter::A), now + self.interval);
                Fate::Lives
            }
            Letter::E => {
                out.transmit(self.target, self.request.clone());
                self.interval = match self.state {
                    ClientState::Proceeding => timing::T2,
                    _ => (self.interval * 2).min(timing::T2),
                };
                out.timers.arm((self.owner(), Letter::E), now + self.interval);
                Fate::Lives
            }
            Letter::B | Letter::F | Letter::Cancelled => {
                if !self.silent {
                    out.events.push_back(Event::TimedOut(self.id));
                }
                Fate::Ends
            }
            Letter::D | Letter::K | Letter::M => Fate::Ends,
            Letter::G | Letter::H | Letter::I | Letter::J | Letter::L => Fate::Lives,
        }
    }
}
