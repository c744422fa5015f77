//! SIP that we originate: a small user agent, with one registration and one call at a time.
//!
//! RFC 3261 §10 (REGISTER), §12 to §15 (dialogs, INVITE, BYE), §22 (digest), with RFC 7118 §5 where it sits on a
//! WebSocket and RFC 5626 for its contact. It hands session descriptions in and out as text, and never looks into
//! them. In go packets from the flow to its one server, and its user's wishes as method calls; out come messages, and
//! [`Notice`]s for the user. Requests that come are in `incoming`, those that go in `outgoing`, and what became of them in
//! `outcome`; how they are written in `compose`. Not here: media, sockets, a dial plan, offers in anything but the INVITE.

mod compose;
mod dialog;
mod incoming;
mod outcome;
mod outgoing;
#[cfg(test)]
mod tests;
pub mod watch;

use crate::auth;
use crate::flow::{Flow, Target, Transport};
use crate::rng::Rng;
use crate::sip::{self, Message, Method, Name, build};
use crate::time::Instant;
use crate::transaction::{
    Answered, ClientId, Event, Layer, Received, RequestId, ResponseId, ServerId, timing,
};
use bytes::Bytes;
use dialog::{Dialog, header};
use outgoing::Invite;
use std::collections::VecDeque;
use std::time::Duration;

/// What it understands, in Allow.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE";
/// Challenges that one request may answer: the first, and one that says `stale`.
const CHALLENGES: u8 = 2;

/// Who it is, and how it reaches its server.
#[derive(Clone, Debug)]
pub struct Config {
    pub user: String,
    pub domain: String,
    pub password: String,
    /// All requests go here (RFC 3261 §8.1.2, a pre-loaded outbound proxy).
    pub target: Target,
    /// HOST[:PORT] in Via and Contact. A WebSocket has no address that a peer could use: a name under `.invalid`.
    pub sent_by: String,
    /// Asked for in REGISTER.
    pub expires: Duration,
    /// `urn:uuid:…` (RFC 5626 §4.1), where it has one.
    pub instance: Option<String>,
    /// In User-Agent.
    pub agent: String,
}

/// News for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Registered {
        expires: Duration,
    },
    /// The server's final answer, or 408 for none and 503 for a lost connection.
    NotRegistered {
        status: u16,
        reason: String,
    },
    Unregistered,
    /// Somebody calls: [`UserAgent::answer`] or [`UserAgent::reject`].
    Incoming {
        from: String,
        offer: String,
    },
    /// A provisional answer to our call, other than 100.
    Progress {
        status: u16,
        sdp: Option<String>,
    },
    /// Our call was answered; the ACK is on its way.
    Answered {
        answer: String,
    },
    /// Our answer was acknowledged.
    Established,
    /// Our call was not answered.
    Failed {
        status: u16,
        reason: String,
    },
    /// The call is over.
    Ended {
        by: Side,
    },
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Us,
    Peer,
}

/// Why a message of the peer was no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Parse(sip::ParseError),
    Missing(Name),
    NoTag,
}

impl From<sip::ParseError> for Fault {
    fn from(error: sip::ParseError) -> Self {
        Fault::Parse(error)
    }
}

/// What a client transaction of ours was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Register { expires: Duration },
    Invite,
    Bye,
}

/// A request under way, with what is needed to send it again with credentials.
struct Pending {
    id: ClientId,
    purpose: Purpose,
    challenges: u8,
}

/// The one call.
enum Call {
    None,
    /// We called.
    Outgoing {
        invite: ClientId,
        cseq: u32,
        call_id: String,
        local: String,
        remote: String,
        uri: String,
        offer: String,
        /// Credentials of the INVITE, which its ACK repeats (§22.1).
        credentials: Option<(&'static str, String)>,
        cancelled: bool,
    },
    /// We are called, and have not answered.
    Incoming {
        invite: ServerId,
        request: Bytes,
        local_tag: String,
    },
    /// We answered; the 2xx is repeated until its ACK (§13.3.1.4).
    Answering {
        dialog: Dialog,
        response: Bytes,
        again: Instant,
        interval: Duration,
        give_up: Instant,
    },
    Up {
        dialog: Dialog,
        /// The ACK to our INVITE's 2xx, to be sent again when the 2xx comes again (§13.2.2.4).
        ack: Option<Bytes>,
    },
}

/// The user agent.
pub struct UserAgent {
    config: Config,
    rng: Rng,
    layer: Layer,
    pending: Vec<Pending>,
    call: Call,
    /// The registration's Call-ID and From tag stay the same for its life (§10.2).
    register_call_id: String,
    register_tag: String,
    register_cseq: u32,
    refresh_at: Option<Instant>,
    notices: VecDeque<Notice>,
}

impl UserAgent {
    pub fn new(config: Config, mut rng: Rng) -> Self {
        let layer = Layer::new(&mut rng, 0);
        let (register_call_id, register_tag) = (rng.token(22), rng.token(10));
        UserAgent {
            config,
            layer,
            pending: Vec::new(),
            call: Call::None,
            register_call_id,
            register_tag,
            register_cseq: 0,
            refresh_at: None,
            notices: VecDeque::new(),
            rng,
        }
    }

    /// Registers, and refreshes from then on.
    pub fn register(&mut self, now: Instant) {
        let expires = self.config.expires;
        self.send_register(now, expires, None, 0);
    }

    /// Takes the binding away.
    pub fn unregister(&mut self, now: Instant) {
        self.refresh_at = None;
        self.send_register(now, Duration::ZERO, None, 0);
    }

    /// Calls `uri` with this offer. False: there is a call already.
    pub fn call(&mut self, now: Instant, uri: &str, offer: String) -> bool {
        if !matches!(self.call, Call::None) {
            return false;
        }
        let (call_id, tag) = (self.rng.token(22), self.rng.token(10));
        let local = format!("<{}>;tag={tag}", self.aor());
        let remote = format!("<{uri}>");
        self.send_invite(
            now,
            Invite { call_id, local, remote, uri: uri.to_owned(), offer, cseq: 1 },
            None,
            0,
        );
        true
    }

    /// 180 to the call that comes in.
    pub fn ring(&mut self, now: Instant) {
        let Call::Incoming { invite, request, local_tag } = &self.call else { return };
        let (invite, tag, request) = (*invite, local_tag.clone(), request.clone());
        let contact = self.contact();
        self.respond(now, invite, &request, 180, Some(&tag), &[("Contact", &contact)]);
    }

    /// 200 with this answer to the call that comes in.
    pub fn answer(&mut self, now: Instant, answer: &str) {
        let Call::Incoming { invite, request, local_tag } = std::mem::replace(&mut self.call, Call::None)
        else {
            return;
        };
        let Ok(message) = Message::parse(&request) else { return };
        let Ok(dialog) = Dialog::from_request(&message, &local_tag) else {
            self.respond(now, invite, &request, 400, Some(&local_tag), &[]);
            return;
        };
        let record_routes: Vec<&str> =
            message.headers(Name::RecordRoute).filter_map(|h| std::str::from_utf8(h.value).ok()).collect();
        let contact = self.contact();
        let mut headers: Vec<(&str, &str)> =
            record_routes.iter().map(|route| ("Record-Route", *route)).collect();
        headers.extend([
            ("Contact", contact.as_str()),
            ("Allow", ALLOW),
            ("User-Agent", self.config.agent.as_str()),
            ("Content-Type", "application/sdp"),
        ]);
        let response: Bytes =
            build::response(&message, 200, None, Some(&local_tag), &headers, answer.as_bytes()).into();
        self.layer.respond(now, invite, 200, response.clone());
        self.call = Call::Answering {
            dialog,
            response,
            again: now + timing::T1,
            interval: timing::T1,
            give_up: now + timing::T1 * 64,
        };
    }

    /// Refuses the call that comes in.
    pub fn reject(&mut self, now: Instant, status: u16) {
        let Call::Incoming { invite, request, local_tag } = std::mem::replace(&mut self.call, Call::None)
        else {
            return;
        };
        self.respond(now, invite, &request, status, Some(&local_tag), &[]);
        self.notices.push_back(Notice::Ended { by: Side::Us });
    }

    /// Ends whatever call there is: CANCEL, BYE or 603, as its state asks for.
    pub fn hangup(&mut self, now: Instant) {
        match &mut self.call {
            Call::None => {}
            Call::Outgoing { invite, cancelled, .. } => {
                *cancelled = true;
                let invite = *invite;
                self.layer.cancel(now, invite);
            }
            Call::Incoming { .. } => self.reject(now, 603),
            // §15: a callee waits for the ACK before its BYE; where none comes, the time-out sends it.
            Call::Answering { give_up, .. } => *give_up = now,
            Call::Up { .. } => {
                self.send_bye(now);
                self.notices.push_back(Notice::Ended { by: Side::Us });
            }
        }
    }

    /// Whether there is a call, in any state.
    pub fn in_call(&self) -> bool {
        !matches!(self.call, Call::None)
    }

    /// Whether a call or a BYE is under way.
    pub fn is_busy(&self) -> bool {
        self.in_call() || self.pending.iter().any(|pending| pending.purpose == Purpose::Bye)
    }

    /// News, oldest first.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// One whole message came.
    pub fn handle_packet(&mut self, now: Instant, flow: Flow, data: &Bytes) {
        // What can't be read is no message, and its sender hears nothing: it is our own server.
        let Ok(message) = Message::parse(data) else { return };
        if message.check().is_err() {
            return;
        }
        if message.is_request() {
            self.receive_request(now, &message, data, Target::Flow(flow));
        } else {
            self.receive_response(now, &message);
        }
        self.drain_events(now);
    }

    /// The connection is gone.
    pub fn flow_closed(&mut self, now: Instant, flow: &Flow) {
        self.layer.flow_closed(flow);
        self.drain_events(now);
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<(Target, Bytes)> {
        self.layer.poll_transmit()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let again = match &self.call {
            Call::Answering { again, give_up, .. } => Some((*again).min(*give_up)),
            Call::None | Call::Outgoing { .. } | Call::Incoming { .. } | Call::Up { .. } => None,
        };
        [self.layer.poll_timeout(), self.refresh_at, again].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            self.register(now);
        }
        if let Call::Answering { response, again, interval, give_up, .. } = &mut self.call {
            if *give_up <= now {
                self.send_bye(now);
                self.notices.push_back(Notice::Ended { by: Side::Us });
            } else if *again <= now {
                *interval = (*interval * 2).min(timing::T2);
                *again = now + *interval;
                let data = response.clone();
                self.layer.send_stateless(self.config.target, data);
            }
        }
        self.drain_events(now);
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.layer.poll_event() {
            match event {
                Event::TimedOut(id) => self.finished(now, id, 408, "no answer", None),
                Event::TransportFailed(id) => self.finished(now, id, 503, "connection lost", None),
                Event::ClientEnded(id) => self.pending.retain(|pending| pending.id != id),
                // Not answered with a 2xx, so nothing is left of it.
                Event::Unacknowledged(_) | Event::ServerEnded(_) => {}
            }
        }
    }
}

/// One line of text: folds become blanks, other than UTF-8 is none.
fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
