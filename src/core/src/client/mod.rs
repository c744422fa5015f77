//! SIP that we originate: a small user agent, with one registration and one call at a time.
//!
//! RFC 3261 §10 (REGISTER), §12 to §15 (dialogs, INVITE, BYE), §22 (digest), with RFC 7118 §5 where it sits on a
//! WebSocket and RFC 5626 for its contact. It hands session descriptions in and out as text, and never looks into
//! them. In go packets from the flow to its one server, and its user's wishes as method calls; out come messages, and
//! [`Notice`]s for the user. Not here: media, sockets, a dial plan, offers in anything but the INVITE.

mod dialog;
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

    // --- requests that come ---

    fn receive_request(&mut self, now: Instant, message: &Message<'_>, data: &Bytes, reply_to: Target) {
        match self.layer.receive_request(now, &RequestId::of(message), reply_to) {
            Received::New(id) => self.new_request(now, id, message, data),
            Received::Cancel { id, invite } => self.cancel_request(now, id, invite, data),
            Received::Ack(_) => self.acknowledged(message),
            Received::Absorbed => {}
            Received::Overload => {
                let response = build::response(message, 503, None, None, &[], b"");
                self.layer.send_stateless(reply_to, response.into());
            }
        }
    }

    fn new_request(&mut self, now: Instant, id: ServerId, message: &Message<'_>, data: &Bytes) {
        if message.to_tag().is_some() {
            return self.in_dialog(now, id, message, data);
        }
        match message.method() {
            Method::Invite if self.in_call() => self.respond(now, id, data, 486, None, &[]),
            Method::Invite => {
                let (Some(offer), Ok(from)) = (text(message.body()), header(message, Name::From)) else {
                    return self.respond(now, id, data, 400, None, &[]);
                };
                let local_tag = self.rng.token(10);
                self.call = Call::Incoming { invite: id, request: data.clone(), local_tag };
                self.notices.push_back(Notice::Incoming { from, offer });
            }
            Method::Options => self.respond(now, id, data, 200, None, &[("Allow", ALLOW)]),
            Method::Bye | Method::Info | Method::Update => self.respond(now, id, data, 481, None, &[]),
            Method::Ack
            | Method::Cancel
            | Method::Register
            | Method::Prack
            | Method::Subscribe
            | Method::Notify
            | Method::Refer
            | Method::Message
            | Method::Publish
            | Method::Other(_) => self.respond(now, id, data, 405, None, &[("Allow", ALLOW)]),
        }
    }

    fn in_dialog(&mut self, now: Instant, id: ServerId, message: &Message<'_>, data: &Bytes) {
        let dialog = match &mut self.call {
            Call::Up { dialog, .. } | Call::Answering { dialog, .. } if dialog.has(message) => dialog,
            Call::None
            | Call::Outgoing { .. }
            | Call::Incoming { .. }
            | Call::Up { .. }
            | Call::Answering { .. } => {
                return self.respond(now, id, data, 481, None, &[]);
            }
        };
        let Ok((cseq, method)) = message.cseq() else { return };
        // §12.2.2: an older request is out of order.
        if dialog.remote_cseq.is_some_and(|last| cseq < last) {
            return self.respond(now, id, data, 500, None, &[]);
        }
        dialog.remote_cseq = Some(cseq);
        match method {
            Method::Bye => {
                self.call = Call::None;
                self.respond(now, id, data, 200, None, &[]);
                self.notices.push_back(Notice::Ended { by: Side::Peer });
            }
            Method::Info | Method::Options => self.respond(now, id, data, 200, None, &[("Allow", ALLOW)]),
            Method::Update if message.body().is_empty() => {
                let contact = self.contact();
                self.respond(now, id, data, 200, None, &[("Contact", &contact)]);
            }
            // The session stays as it was agreed (§14.2).
            Method::Invite | Method::Update => self.respond(now, id, data, 488, None, &[]),
            Method::Ack
            | Method::Cancel
            | Method::Register
            | Method::Prack
            | Method::Subscribe
            | Method::Notify
            | Method::Refer
            | Method::Message
            | Method::Publish
            | Method::Other(_) => self.respond(now, id, data, 405, None, &[("Allow", ALLOW)]),
        }
    }

    fn cancel_request(&mut self, now: Instant, id: ServerId, invite: Option<ServerId>, data: &Bytes) {
        let status = if invite.is_some() { 200 } else { 481 };
        self.respond(now, id, data, status, None, &[]);
        let Call::Incoming { invite: ours, request, local_tag } = &self.call else { return };
        if invite != Some(*ours) {
            return;
        }
        let (ours, request, tag) = (*ours, request.clone(), local_tag.clone());
        self.call = Call::None;
        self.respond(now, ours, &request, 487, Some(&tag), &[]);
        self.notices.push_back(Notice::Ended { by: Side::Peer });
    }

    fn acknowledged(&mut self, message: &Message<'_>) {
        match std::mem::replace(&mut self.call, Call::None) {
            Call::Answering { dialog, .. } if dialog.has(message) => {
                self.call = Call::Up { dialog, ack: None };
                self.notices.push_back(Notice::Established);
            }
            other => self.call = other,
        }
    }

    fn respond(
        &mut self,
        now: Instant,
        id: ServerId,
        request: &Bytes,
        status: u16,
        tag: Option<&str>,
        headers: &[(&str, &str)],
    ) {
        let Ok(message) = Message::parse(request) else { return };
        let fresh;
        let tag = match tag {
            Some(tag) => tag,
            None => {
                fresh = self.rng.token(10);
                &fresh
            }
        };
        let response = build::response(&message, status, None, Some(tag), headers, b"");
        self.layer.respond(now, id, status, response.into());
    }

    // --- responses that come ---

    fn receive_response(&mut self, now: Instant, message: &Message<'_>) {
        let Some(id) = ResponseId::of(message) else { return };
        match self.layer.receive_response(now, &id) {
            Answered::Pass(id) if message.status() < 200 => {
                if message.status() > 100 && self.purpose(id) == Some(Purpose::Invite) {
                    let sdp = text(message.body()).filter(|body| !body.is_empty());
                    self.notices.push_back(Notice::Progress { status: message.status(), sdp });
                }
            }
            Answered::Pass(id) => {
                let reason = text(message.reason()).unwrap_or_default();
                self.finished(now, id, message.status(), &reason, Some(message));
            }
            Answered::Absorbed | Answered::Stray => {}
        }
    }

    fn purpose(&self, id: ClientId) -> Option<Purpose> {
        self.pending.iter().find(|pending| pending.id == id).map(|pending| pending.purpose)
    }

    /// The final answer to a request of ours; without a message it never came.
    fn finished(
        &mut self,
        now: Instant,
        id: ClientId,
        status: u16,
        reason: &str,
        message: Option<&Message<'_>>,
    ) {
        let Some(at) = self.pending.iter().position(|pending| pending.id == id) else { return };
        let (purpose, challenges) = (self.pending[at].purpose, self.pending[at].challenges);
        if let Some(message) = message
            && matches!(status, 401 | 407)
            && challenges < CHALLENGES
            && let Some(credentials) = self.credentials(message, purpose, challenges)
        {
            self.pending.remove(at);
            return self.send_again(now, purpose, credentials, challenges + 1);
        }
        match purpose {
            Purpose::Register { expires } => {
                self.pending.remove(at);
                self.register_finished(now, expires, status, reason, message);
            }
            // It stays, since each further 2xx comes up too; the end of its transaction takes it away.
            Purpose::Invite => self.invite_finished(now, id, status, reason, message),
            Purpose::Bye => drop(self.pending.remove(at)),
        }
    }

    fn register_finished(
        &mut self,
        now: Instant,
        asked: Duration,
        status: u16,
        reason: &str,
        message: Option<&Message<'_>>,
    ) {
        let Some(message) = message.filter(|_| (200..300).contains(&status)) else {
            // 423: the least that it takes (§10.2.8).
            if let (423, Some(message)) = (status, message)
                && let Some(least) = message.header(Name::MinExpires).map(sip::seconds)
                && Duration::from_secs(least.into()) > asked
                && !asked.is_zero()
            {
                return self.send_register(now, Duration::from_secs(least.into()), None, 0);
            }
            self.notices.push_back(Notice::NotRegistered { status, reason: reason.to_owned() });
            return;
        };
        if asked.is_zero() {
            self.notices.push_back(Notice::Unregistered);
            return;
        }
        let ours = self.contact_uri();
        let granted = message
            .contacts()
            .filter_map(Result::ok)
            .find(|contact| contact.uri.as_bytes() == ours.as_bytes())
            .and_then(|contact| contact.params.get("expires").map(sip::seconds))
            .or_else(|| message.expires());
        let expires = granted.map_or(asked, |seconds| Duration::from_secs(seconds.into()));
        // Early enough for a lost request and its repetitions, and never in a tight loop.
        let margin = (expires / 10).max(Duration::from_secs(5)).min(expires / 2);
        self.refresh_at = Some(now + (expires - margin).max(Duration::from_secs(1)));
        self.notices.push_back(Notice::Registered { expires });
    }

    fn invite_finished(
        &mut self,
        now: Instant,
        id: ClientId,
        status: u16,
        reason: &str,
        message: Option<&Message<'_>>,
    ) {
        if let (200..300, Some(message)) = (status, message) {
            return self.invite_accepted(now, message);
        }
        match &self.call {
            Call::Outgoing { invite, cancelled, .. } if *invite == id => {
                let cancelled = *cancelled;
                self.call = Call::None;
                self.notices.push_back(match (cancelled, status) {
                    (true, 487) => Notice::Ended { by: Side::Us },
                    _ => Notice::Failed { status, reason: reason.to_owned() },
                });
            }
            Call::None
            | Call::Outgoing { .. }
            | Call::Incoming { .. }
            | Call::Answering { .. }
            | Call::Up { .. } => {}
        }
    }

    /// A 2xx: acknowledged, whatever comes of it (§13.2.2.4).
    fn invite_accepted(&mut self, now: Instant, message: &Message<'_>) {
        let Ok((cseq, _)) = message.cseq() else { return };
        let Ok(mut dialog) = Dialog::from_response(message, cseq) else { return };
        if let Call::Up { dialog: known, ack } = &self.call
            && known.call_id == dialog.call_id
        {
            if known.remote_tag == dialog.remote_tag {
                if let Some(ack) = ack.clone() {
                    self.layer.send_stateless(self.config.target, ack);
                }
                return;
            }
            // A second phone took the same call: it is told that it is too late.
            let ack = self.in_dialog_request(&dialog, "ACK", cseq, None).0;
            self.layer.send_stateless(self.config.target, ack);
            dialog.local_cseq += 1;
            self.bye(now, &dialog, None, 0);
            return;
        }
        let (credentials, cancelled, answer) = match &self.call {
            Call::Outgoing { call_id, credentials, cancelled, .. } if *call_id == dialog.call_id => {
                (credentials.clone(), *cancelled, text(message.body()).unwrap_or_default())
            }
            // A repetition of what we hung up: only acknowledged.
            Call::None
            | Call::Outgoing { .. }
            | Call::Incoming { .. }
            | Call::Answering { .. }
            | Call::Up { .. } => {
                let ack = self.in_dialog_request(&dialog, "ACK", cseq, None).0;
                return self.layer.send_stateless(self.config.target, ack);
            }
        };
        let ack = self.in_dialog_request(&dialog, "ACK", cseq, credentials.as_ref()).0;
        self.layer.send_stateless(self.config.target, ack.clone());
        self.call = Call::Up { dialog, ack: Some(ack) };
        if cancelled {
            // The answer and our CANCEL crossed.
            self.send_bye(now);
            self.notices.push_back(Notice::Ended { by: Side::Us });
        } else {
            self.notices.push_back(Notice::Answered { answer });
        }
    }

    // --- requests that go ---

    fn aor(&self) -> String {
        format!("sip:{}@{}", self.config.user, self.config.domain)
    }

    fn transport(&self) -> Transport {
        self.config.target.transport()
    }

    fn contact_uri(&self) -> String {
        let Config { user, sent_by, .. } = &self.config;
        match self.transport() {
            Transport::Udp => format!("sip:{user}@{sent_by}"),
            transport => format!("sip:{user}@{sent_by};transport={}", transport.uri_param()),
        }
    }

    fn contact(&self) -> String {
        format!("<{}>", self.contact_uri())
    }

    fn via(&mut self) -> (String, String) {
        let branch = self.layer.branch(&mut self.rng);
        let via = format!("SIP/2.0/{} {};rport;branch={branch}", self.transport().via(), self.config.sent_by);
        (branch, via)
    }

    fn send(&mut self, now: Instant, method: &str, branch: &str, data: Bytes) -> Option<ClientId> {
        self.layer.send_request(now, self.config.target, method, branch, data)
    }

    fn send_again(
        &mut self,
        now: Instant,
        purpose: Purpose,
        credentials: (&'static str, String),
        challenges: u8,
    ) {
        match purpose {
            Purpose::Register { expires } => self.send_register(now, expires, Some(credentials), challenges),
            Purpose::Invite => match std::mem::replace(&mut self.call, Call::None) {
                Call::Outgoing { cancelled: true, .. } => {
                    self.notices.push_back(Notice::Ended { by: Side::Us });
                }
                Call::Outgoing { cseq, call_id, local, remote, uri, offer, .. } => {
                    let invite = Invite { cseq: cseq + 1, call_id, local, remote, uri, offer };
                    self.send_invite(now, invite, Some(credentials), challenges);
                }
                other => self.call = other,
            },
            // Our call is over for us; a server that wants a password for that does not get to keep it.
            Purpose::Bye => {}
        }
    }

    fn send_register(
        &mut self,
        now: Instant,
        expires: Duration,
        credentials: Option<(&'static str, String)>,
        challenges: u8,
    ) {
        self.register_cseq += 1;
        let (branch, via) = self.via();
        let aor = self.aor();
        let mut contact = self.contact();
        if let Some(instance) = &self.config.instance {
            contact.push_str(&format!(";reg-id=1;+sip.instance=\"<{instance}>\""));
        }
        contact.push_str(&format!(";expires={}", expires.as_secs()));
        let from = format!("<{aor}>;tag={}", self.register_tag);
        let to = format!("<{aor}>");
        let cseq = format!("{} REGISTER", self.register_cseq);
        let seconds = expires.as_secs().to_string();
        let mut headers = vec![
            ("Via", via.as_str()),
            ("Max-Forwards", "70"),
            ("From", from.as_str()),
            ("To", to.as_str()),
            ("Call-ID", self.register_call_id.as_str()),
            ("CSeq", cseq.as_str()),
            ("Contact", contact.as_str()),
            ("Expires", seconds.as_str()),
            ("Supported", "path, outbound, gruu"),
            ("Allow", ALLOW),
            ("User-Agent", self.config.agent.as_str()),
        ];
        if let Some((name, value)) = &credentials {
            headers.push((name, value));
        }
        let uri = format!("sip:{}", self.config.domain);
        let data: Bytes = build::request("REGISTER", &uri, &headers, b"").into();
        match self.send(now, "REGISTER", &branch, data) {
            Some(id) => self.pending.push(Pending { id, purpose: Purpose::Register { expires }, challenges }),
            None => self
                .notices
                .push_back(Notice::NotRegistered { status: 503, reason: "too much under way".into() }),
        }
    }

    fn send_invite(
        &mut self,
        now: Instant,
        invite: Invite,
        credentials: Option<(&'static str, String)>,
        challenges: u8,
    ) {
        let (branch, via) = self.via();
        let (contact, cseq) = (self.contact(), format!("{} INVITE", invite.cseq));
        let mut headers = vec![
            ("Via", via.as_str()),
            ("Max-Forwards", "70"),
            ("From", invite.local.as_str()),
            ("To", invite.remote.as_str()),
            ("Call-ID", invite.call_id.as_str()),
            ("CSeq", cseq.as_str()),
            ("Contact", contact.as_str()),
            ("Supported", "outbound"),
            ("Allow", ALLOW),
            ("User-Agent", self.config.agent.as_str()),
            ("Content-Type", "application/sdp"),
        ];
        if let Some((name, value)) = &credentials {
            headers.push((name, value));
        }
        let data: Bytes = build::request("INVITE", &invite.uri, &headers, invite.offer.as_bytes()).into();
        let Some(id) = self.send(now, "INVITE", &branch, data) else {
            self.notices.push_back(Notice::Failed { status: 503, reason: "too much under way".into() });
            return;
        };
        self.pending.push(Pending { id, purpose: Purpose::Invite, challenges });
        let Invite { cseq, call_id, local, remote, uri, offer } = invite;
        self.call = Call::Outgoing {
            invite: id,
            cseq,
            call_id,
            local,
            remote,
            uri,
            offer,
            credentials,
            cancelled: false,
        };
    }

    fn send_bye(&mut self, now: Instant) {
        match std::mem::replace(&mut self.call, Call::None) {
            Call::Up { mut dialog, .. } | Call::Answering { mut dialog, .. } => {
                dialog.local_cseq += 1;
                self.bye(now, &dialog, None, 0);
            }
            other => self.call = other,
        }
    }

    fn bye(
        &mut self,
        now: Instant,
        dialog: &Dialog,
        credentials: Option<&(&'static str, String)>,
        challenges: u8,
    ) {
        let (data, branch) = self.in_dialog_request(dialog, "BYE", dialog.local_cseq, credentials);
        if let Some(id) = self.send(now, "BYE", &branch, data) {
            self.pending.push(Pending { id, purpose: Purpose::Bye, challenges });
        }
    }

    /// §12.2.1.1. Its proxies are ours, and loose.
    fn in_dialog_request(
        &mut self,
        dialog: &Dialog,
        method: &str,
        cseq: u32,
        credentials: Option<&(&'static str, String)>,
    ) -> (Bytes, String) {
        let (branch, via) = self.via();
        let cseq = format!("{cseq} {method}");
        let mut headers = vec![("Via", via.as_str()), ("Max-Forwards", "70")];
        headers.extend(dialog.route.iter().map(|route| ("Route", route.as_str())));
        headers.extend([
            ("From", dialog.local.as_str()),
            ("To", dialog.remote.as_str()),
            ("Call-ID", dialog.call_id.as_str()),
            ("CSeq", cseq.as_str()),
            ("User-Agent", self.config.agent.as_str()),
        ]);
        if let Some((name, value)) = credentials {
            headers.push((name, value));
        }
        (build::request(method, &dialog.target, &headers, b"").into(), branch)
    }

    /// The header that answers a challenge (RFC 3261 §22.2, RFC 2617 §3.2.2); None where there is nothing to try.
    fn credentials(
        &mut self,
        message: &Message<'_>,
        purpose: Purpose,
        challenges: u8,
    ) -> Option<(&'static str, String)> {
        let (header, challenge) = auth::digest::Challenge::of(message)?;
        // A second challenge that is not stale means: wrong password.
        if challenges > 0 && !challenge.stale {
            return None;
        }
        let (method, uri) = match (purpose, &self.call) {
            (Purpose::Register { .. }, _) => ("REGISTER", format!("sip:{}", self.config.domain)),
            (Purpose::Invite, Call::Outgoing { uri, .. }) => ("INVITE", uri.clone()),
            (Purpose::Invite | Purpose::Bye, _) => return None,
        };
        let cnonce = self.rng.token(16);
        let Config { user, password, .. } = &self.config;
        // Each challenge brings a fresh nonce, so its count is always 1.
        Some((header, challenge.answer(user, password, method, &uri, 1, &cnonce)))
    }
}

/// The parts of an INVITE that stay the same when it is sent again with credentials.
struct Invite {
    cseq: u32,
    call_id: String,
    local: String,
    remote: String,
    uri: String,
    offer: String,
}

/// One line of text: folds become blanks, other than UTF-8 is none.
fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
