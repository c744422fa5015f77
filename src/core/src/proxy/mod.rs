//! The proxy: routes everything but registrations and presence, and has their media bridged.
//!
//! RFC 3261 §16, in the order of the seed's routing blocks: sanity, NAT, CANCEL, in a dialog, authentication,
//! Record-Route, foreign, presence, registrar, location, relay. In go packets, and the answers of database, DNS and
//! relays; out come packets, questions and events. Each concept has its file:
//!
//! | file | concept |
//! | --- | --- |
//! | `config` | what the flags say |
//! | `context` | a request on its way, and its branches |
//! | `nat` | `received`, `rport`, NAT detection, the Contact alias |
//! | `auth` | who is challenged, whose credentials count |
//! | `dialog` | requests in a dialog, ACK, loose and strict routing |
//! | `token` | the Route token |
//! | `location` | where a local user is; where a foreign domain is |
//! | `fork` | branches: resolving, asking the relay, sending, time-outs, the end |
//! | `forward` | the message as it leaves |
//! | `media` | the media decision and ng's words for it |
//! | `response` | responses on their way back |
//! | `orphan` | callees that answered when nobody is there for them any more |
//!
//! Not here: transactions (`transaction`), Contact bindings (`registrar`), presence, the WebSocket door (`gateway`).

mod auth;
pub mod config;
mod context;
mod dialog;
mod fork;
mod forward;
mod location;
mod media;
mod nat;
mod orphan;
mod response;
mod token;

pub use config::{Auth, Config, Fork, RelayPolicy, Route};

use crate::auth::{Checker, Credentials};
use crate::cidr::Cidr;
use crate::flow::{ConnectionId, Flow, Target, Transport};
use crate::limits;
use crate::machine::{Event, Input, Level, Machine, Output, Question, Reply, Ticket};
use crate::resolve::{Dead, Hop};
use crate::rng::{KeyedHash, Rng};
use crate::sip::{Message, Method, Name, ParseError, Uri, build};
use crate::time::Instant;
use crate::timer::{OwnHash, Timers};
use crate::transaction::{self, Answered, ClientId, Layer, Received, RequestId, ResponseId, ServerId};
use bytes::Bytes;
use context::{Context, ContextId, Kind, Waiting};
use media::Peer;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

/// How long a database or a resolver may take before the request gets 503.
const ASK_TIMEOUT: Duration = Duration::from_secs(4);
/// Why a request that needs the store gets 503 while that is away.
const DATABASE_AWAY: &str = "Database Unavailable";
/// How long a relay may take: its client repeats the question within this time.
const RELAY_TIMEOUT: Duration = Duration::from_millis(4500);
/// How long a relay that did not answer gets no new calls.
const RELAY_PENALTY: Duration = Duration::from_secs(30);

/// Of our 200 to OPTIONS.
const OPTIONS_HEADERS: [(&str, &str); 2] = [("Accept", "*/*"), ("Supported", "path, outbound")];

/// Max-Breadth of a request that came without (RFC 5393 §5.3.3).
const MAX_BREADTH: u32 = 60;

/// What a proxy waits for besides its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    /// The deadline of a question.
    Ticket(Ticket),
    /// Nobody answers this branch.
    Ring(ContextId, usize),
    /// RFC 3261 §16.6 step 11.
    C(ContextId, usize),
    /// Nothing was heard of what went by TCP for its length.
    Silent(ContextId, usize),
}

/// Ids are made by us, so their hash needs no secret.
type ById<K, V> = HashMap<K, V, OwnHash>;

/// The machine.
pub struct Proxy {
    config: Config,
    rng: Rng,
    layer: Layer,
    checker: Checker,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
    contexts: ById<ContextId, Context>,
    by_server: ById<ServerId, ContextId>,
    by_client: ById<ClientId, (ContextId, usize)>,
    tickets: ById<Ticket, Waiting>,
    connections: ById<ConnectionId, Flow>,
    /// When the calls that stand were answered, for their duration.
    answered: dialog::Answered,
    /// Servers that did not answer lately.
    dead: Dead,
    /// When each relay may be asked again.
    relays: Vec<Instant>,
    /// For the tags of what is answered without a transaction.
    pings: KeyedHash,
    ids: u64,
    draining: bool,
    /// Bytes that are held besides the transactions'.
    held: usize,
}

impl Proxy {
    pub fn new(config: Config, mut rng: Rng) -> Self {
        Proxy {
            layer: Layer::new(&mut rng, config.worker),
            // A nonce is judged by the worker that minted it.
            checker: auth::checker(&config, rng.u32()),
            dead: Dead::default(),
            relays: vec![Instant::default(); config.relays.len()],
            config,
            timers: Timers::new(),
            outputs: VecDeque::new(),
            contexts: HashMap::default(),
            by_server: HashMap::default(),
            by_client: HashMap::default(),
            tickets: HashMap::default(),
            connections: HashMap::default(),
            answered: dialog::Answered::new(&mut rng),
            pings: KeyedHash::new(&mut rng),
            ids: 0,
            draining: false,
            held: 0,
            rng,
        }
    }

    fn packet(&mut self, now: Instant, flow: Flow, data: &Bytes) {
        match Message::parse(data) {
            Ok(message) if message.is_request() => self.request(now, flow, data, &message),
            Ok(message) => self.response(now, flow, data, &message),
            Err(error) => self.malformed(flow, data, error),
        }
    }

    /// A request comes in: RFC 3261 §16.3, and its transaction.
    fn request(&mut self, now: Instant, flow: Flow, packet: &Bytes, raw: &Message<'_>) {
        if let Err(error) = raw.check() {
            return self.malformed(flow, raw.as_bytes(), error);
        }
        match nat::marked(raw, &flow) {
            Some(data) => {
                if let Ok(message) = Message::parse(&data) {
                    self.checked(now, flow, &message, || data.clone());
                }
            }
            None => self.checked(now, flow, raw, || kept(packet, raw, &flow)),
        }
    }

    /// A sound request, marked with where it came from. `keep` gives its bytes to who wants to have them for longer.
    fn checked(&mut self, now: Instant, flow: Flow, message: &Message<'_>, keep: impl FnOnce() -> Bytes) {
        if self.is_ping(message, &flow) {
            return self.pong(flow, message);
        }
        let received = self.layer.receive_request(now, &RequestId::of(message), Target::Flow(flow));
        match received {
            Received::New(server) => self.new_request(now, flow, server, keep(), message),
            Received::Cancel { id, invite } => self.cancel(now, id, invite, message),
            Received::Ack(_) => self.ack(now, flow, keep(), message),
            Received::Absorbed => {}
            Received::Overload => self.stateless(flow, message, 503, None),
        }
    }

    /// A request that nobody saw before: sanity and NAT, then where it goes.
    fn new_request(
        &mut self,
        now: Instant,
        flow: Flow,
        server: ServerId,
        data: Bytes,
        message: &Message<'_>,
    ) {
        self.ids += 1;
        let id = ContextId(self.ids);
        let from_edge = Cidr::any(&self.config.edge, flow.remote.ip());
        let first_hop = !from_edge && message.values(Name::Via).take(2).count() == 1;
        let described = message.description().map(media::describe);
        let natted = first_hop && nat::is_natted(message, &flow);
        let mut context = Context {
            id,
            server,
            method: kind(message.method()),
            tag: self.rng.token(10),
            authenticated: false,
            first_hop,
            own_routes: 0,
            dialog: None,
            looked_up: String::new(),
            breadth: message.max_breadth().unwrap_or(MAX_BREADTH),
            over: false,
            asking: None,
            sender: Peer {
                browser: described.flatten().map_or_else(|| is_web_contact(message), |d| d.browser),
                nat: natted,
                v6: described.flatten().map_or(flow.remote.is_ipv6(), |d| d.v6),
            },
            alias: natted,
            sdp: described.flatten().and_then(|d| d.profile),
            has_sdp: described.is_some(),
            branches: Vec::new(),
            later: VecDeque::new(),
            cancelled: false,
            finished: false,
            relay: None,
            request: data,
            flow,
        };
        self.by_server.insert(server, id);
        let uri = Uri::parse(message.request_uri()).ok();
        if let Some((status, headers)) = insane(message, uri.as_ref(), described == Some(None)) {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.answer(now, &mut context, status, None, &headers);
        } else if context.method == Kind::Invite {
            // Before anything is asked, so that the client stops repeating (RFC 3261 §16.2 and §17.2.1).
            let trying = build::response(message, 100, None, None, &[], b"");
            self.layer.respond(now, server, 100, trying.into());
            self.route(now, &mut context, message);
        } else {
            self.route(now, &mut context, message);
        }
        self.held += context.held();
        self.contexts.insert(id, context);
    }

    /// The seed's blocks 5 to 13.
    fn route(&mut self, now: Instant, context: &mut Context, message: &Message<'_>) {
        context.own_routes = self.own_routes(message);
        if message.to_tag().is_some() {
            return self.in_dialog(now, context, message);
        }
        if self.draining {
            return self.answer(now, context, 503, Some("Going Down"), &[("Retry-After", "5")]);
        }
        if let Some(destination) = self.along_path(context, message) {
            return self.start(now, context, vec![destination]);
        }
        match self.must_prove(context, message) {
            auth::Need::Nothing => self.admitted(now, context, message),
            auth::Need::Proof => self.ask_credentials(now, context, message),
            auth::Need::Refuse(status, reason) => self.answer(now, context, status, Some(reason), &[]),
        }
    }

    /// Whoever sent it may: where does it go?
    fn admitted(&mut self, now: Instant, context: &mut Context, message: &Message<'_>) {
        let Ok(uri) = Uri::parse(message.request_uri()) else {
            return self.answer(now, context, 400, None, &[]);
        };
        if context.method == Kind::Register {
            // What an edge of ours writes of itself tells the registrar that a flow is lost, without a password. A client
            // that wrote our name there, from a source address that is not his, could remove another one's binding.
            let from_edge = Cidr::any(&self.config.edge, context.flow.remote.ip());
            if !from_edge && message.vias().flatten().any(|via| self.is_ours(via.host, via.port)) {
                return self.answer(now, context, 403, Some("Via Names Us"), &[]);
            }
            return self.pass_to_server(now, context, message, self.config.registrar.clone());
        }
        if self.local_domain(uri.host, uri.port).is_none() {
            return self.outbound(now, context, message, &uri);
        }
        match context.method {
            Kind::Subscribe if message.valued(Name::Event).is_some_and(|event| event.is("reg")) => {
                self.pass_to_server(now, context, message, self.config.registrar.clone());
            }
            Kind::Subscribe | Kind::Publish => {
                self.pass_to_server(now, context, message, self.config.presence.clone())
            }
            _ if uri.user.is_none() && message.method() == Method::Options => self.options(now, context),
            _ if uri.user.is_none() => self.answer(now, context, 484, None, &[]),
            _ => self.look_up(now, context, message, &uri),
        }
    }

    /// OPTIONS to ourselves (RFC 3261 §11): we are alive, and this is what we forward.
    fn options(&mut self, now: Instant, context: &mut Context) {
        self.answer(now, context, 200, None, &OPTIONS_HEADERS);
    }

    /// Whether all that is wanted is to know that we are there: OPTIONS to ourselves that the ordinary way would answer with
    /// 200, and that nobody has to prove. Whatever is in doubt goes the ordinary way.
    fn is_ping(&self, message: &Message<'_>, flow: &Flow) -> bool {
        message.method() == Method::Options
            && !self.draining
            && message.to_tag().is_none()
            && message.header(Name::Route).is_none()
            && !message.has_sdp()
            && Uri::parse(message.request_uri()).is_ok_and(|uri| {
                uri.user.is_none()
                    && self.local_domain(uri.host, uri.port).is_some()
                    && insane(message, Some(&uri), false).is_none()
            })
            && (self.config.auth == Auth::None
                || Cidr::any(&self.config.trust, flow.remote.ip())
                || self.claimed(message).is_none())
    }

    /// Answers it without a transaction (§8.2.7): every copy alike, with the same tag, and nothing is kept of it.
    fn pong(&mut self, flow: Flow, message: &Message<'_>) {
        let named = [Name::CallId, Name::From, Name::CSeq].map(|name| message.header(name));
        let tag = format!("{:016x}", self.pings.hash_one(named));
        let response = build::response(message, 200, None, Some(&tag), &OPTIONS_HEADERS, b"");
        self.layer.send_stateless(Target::Flow(flow), response.into());
    }

    /// CANCEL (§16.10): answered by us, and sent to each branch as a CANCEL of its own.
    fn cancel(&mut self, now: Instant, server: ServerId, invite: Option<ServerId>, message: &Message<'_>) {
        let context = invite.and_then(|invite| self.by_server.get(&invite).copied());
        let status = if context.is_some() { 200 } else { 481 };
        let tag = self.rng.token(10);
        let response = build::response(message, status, None, Some(&tag), &[], b"");
        self.layer.respond(now, server, status, response.into());
        if let Some(id) = context {
            self.with(id, |proxy, context| proxy.cancel_all(now, context));
        }
    }

    /// Runs `step` on a context that is taken out of the table meanwhile.
    fn with(&mut self, id: ContextId, step: impl FnOnce(&mut Self, &mut Context)) {
        if let Some(mut context) = self.contexts.remove(&id) {
            let before = context.held();
            step(self, &mut context);
            self.held = self.held + context.held() - before;
            self.contexts.insert(id, context);
        }
    }

    /// Answers a request by ourselves, finally; a refusal is told.
    fn answer(
        &mut self,
        now: Instant,
        context: &mut Context,
        status: u16,
        reason: Option<&str>,
        headers: &[(&str, &str)],
    ) {
        if std::mem::replace(&mut context.finished, true) {
            return;
        }
        let request = context.request.clone();
        let Ok(message) = Message::parse(&request) else { return };
        self.tell(context, &message, status, reason.unwrap_or(crate::sip::status::reason(status)));
        let response = build::response(&message, status, reason, Some(&context.tag), headers, b"");
        self.layer.respond(now, context.server, status, response.into());
    }

    /// One clear line for what did not go through.
    fn tell(&mut self, context: &Context, message: &Message<'_>, status: u16, reason: &str) {
        let (level, name) = match (status, context.method) {
            (..=399 | 401 | 407 | 487, _) => return,
            (403, _) => (Level::Warn, "refused"),
            (400 | 416 | 420 | 483 | 505, _) => (Level::Warn, "malformed"),
            // Told by the store itself, once, and not with every request.
            (503, _) if reason == DATABASE_AWAY => (Level::Debug, "unavailable"),
            (503, _) => (Level::Warn, "unavailable"),
            (_, Kind::Invite) => (Level::Info, "call-failed"),
            (_, _) => (Level::Debug, "failed"),
        };
        let mut event = event(level, name, message, &context.flow)
            .with("status", status)
            .with("reason", reason)
            .with("method", message.method())
            .with("uri", lossy(message.request_uri()));
        if status == 403
            && let Some((_, domain)) = self.claimed(message)
            && let Some(credentials) = Credentials::of(message, Name::ProxyAuthorization, &domain)
        {
            event = event.with("user", credentials.username);
        }
        self.outputs.push_back(Output::Event(event));
    }

    /// A packet that is no SIP message: answered where its header lines permit (§16.3 step 1, §21.4.1).
    fn malformed(&mut self, flow: Flow, data: &[u8], error: ParseError) {
        let readable = Message::parse_to_refuse(data);
        let call_id = readable.as_ref().and_then(|message| message.call_id());
        let event = Event::new(Level::Warn, "malformed")
            .with("call_id", lossy(call_id.unwrap_or_default()))
            .with("peer", flow)
            .with("reason", error.kind)
            .with("offset", error.at);
        self.outputs.push_back(Output::Event(event));
        let Some(message) = readable else { return };
        self.stateless(flow, &message, error.kind.status(), Some(&error.kind.to_string()));
    }

    /// Answers without a transaction.
    fn stateless(&mut self, flow: Flow, message: &Message<'_>, status: u16, reason: Option<&str>) {
        if message.method() == Method::Ack {
            return;
        }
        let marked = nat::marked(message, &flow);
        let marked = marked.as_deref().unwrap_or(message.as_bytes());
        let Some(message) = Message::parse(marked).ok().or_else(|| Message::parse_to_refuse(marked)) else {
            return;
        };
        let tag = self.rng.token(10);
        let response = build::response(&message, status, reason, Some(&tag), &[], b"");
        self.layer.send_stateless(Target::Flow(flow), response.into());
    }

    /// Asks, with a deadline. `None`: too many questions are open.
    fn ask(&mut self, now: Instant, question: Question, waiting: Waiting) -> Option<Ticket> {
        if self.tickets.len() >= limits::OPEN_TICKETS {
            return None;
        }
        self.ids += 1;
        let ticket = Ticket(self.ids);
        let deadline = match question {
            Question::Relay { .. } => RELAY_TIMEOUT,
            Question::Store(_) | Question::Resolve { .. } | Question::Locate(_) => ASK_TIMEOUT,
        };
        self.timers.arm(Timer::Ticket(ticket), now + deadline);
        self.tickets.insert(ticket, waiting);
        self.outputs.push_back(Output::Ask { ticket, question });
        Some(ticket)
    }

    /// Nobody wants to know any more.
    fn drop_ticket(&mut self, ticket: Ticket) {
        self.timers.disarm(Timer::Ticket(ticket));
        self.tickets.remove(&ticket);
    }

    /// An answer came, or (`None`) did not come in time.
    fn answered(&mut self, now: Instant, ticket: Ticket, reply: Option<Reply>) {
        self.timers.disarm(Timer::Ticket(ticket));
        let Some(waiting) = self.tickets.remove(&ticket) else { return };
        match waiting {
            Waiting::Credentials(id) => self.with(id, |proxy, context| {
                let request = context.request.clone();
                let Ok(message) = Message::parse(&request) else { return };
                proxy.credentials(now, context, &message, reply);
            }),
            Waiting::Location(id) => self.with(id, |proxy, context| proxy.located(now, context, reply)),
            Waiting::Moved(id, destination) => {
                self.with(id, |proxy, context| proxy.moved(now, context, *destination, reply));
            }
            Waiting::Resolve(id, branch) => self.with(id, |proxy, context| {
                proxy.located_hops(now, context, branch, hops(reply));
            }),
            Waiting::Offer(id, branch) => self.with(id, |proxy, context| {
                let verdict = proxy.relay_said(now, context.relay, reply);
                proxy.offered(now, context, branch, verdict);
            }),
            Waiting::Answer(id, branch) => self.with(id, |proxy, context| {
                let verdict = proxy.relay_said(now, context.relay, reply);
                proxy.rewritten(now, context, branch, verdict);
            }),
            Waiting::Ack(ack) => {
                let verdict = self.relay_said(now, ack.shown.token.relay, reply);
                self.ack_rewritten(now, ack, verdict);
            }
            Waiting::AckTarget(ack) => self.ack_located(now, &ack, hops(reply)),
            Waiting::Delete(key) => {
                if let Some(Reply::Relay(Some(reply))) = reply {
                    // Of a call, not of a branch that nobody answered.
                    let totals = media::totals(&reply).filter(|_| key.via_branch.is_empty());
                    if let Some(totals) = totals {
                        let mut event = Event::new(Level::Info, "call-media")
                            .with("call_id", &key.call_id)
                            .with("rtp_packets", totals.rtp_packets)
                            .with("rtp_errors", totals.rtp_errors)
                            .with("rtcp_packets", totals.rtcp_packets);
                        if let Some(mos) = totals.mos {
                            event = event.with("mos", format!("{}.{}", mos / 10, mos.rem_euclid(10)));
                        }
                        self.outputs.push_back(Output::Event(event));
                    }
                } else {
                    let event = Event::new(Level::Warn, "relay-silent")
                        .with("call_id", &key.call_id)
                        .with("reason", "delete was not answered; the relay's own time-out ends the media");
                    self.outputs.push_back(Output::Event(event));
                }
            }
        }
    }

    fn relay_said(&mut self, now: Instant, relay: Option<u8>, reply: Option<Reply>) -> media::Verdict {
        let bytes = match reply {
            Some(Reply::Relay(bytes)) => bytes,
            _ => None,
        };
        if bytes.is_none()
            && let Some(until) = relay.and_then(|relay| self.relays.get_mut(usize::from(relay)))
        {
            *until = now + RELAY_PENALTY;
        }
        media::verdict(bytes.as_deref())
    }

    /// A response comes in (§16.7).
    fn response(&mut self, now: Instant, flow: Flow, packet: &Bytes, message: &Message<'_>) {
        let status = message.status();
        let Some(id) = ResponseId::of(message) else { return };
        match self.layer.receive_response(now, &id) {
            Answered::Pass(client) => {
                let Some(&(id, branch)) = self.by_client.get(&client) else { return };
                let data = kept(packet, message, &flow);
                self.with(id, |proxy, context| proxy.branch_response(now, context, branch, flow, data));
            }
            Answered::Absorbed => {}
            Answered::Stray => {
                let event = event(Level::Debug, "stray-response", message, &flow).with("status", status);
                self.outputs.push_back(Output::Event(event));
            }
        }
    }

    /// What the transaction layer has to tell.
    fn transactions(&mut self, now: Instant) {
        while let Some(event) = self.layer.poll_event() {
            match event {
                transaction::Event::TimedOut(client) => self.branch_lost(now, client, 408, "Request Timeout"),
                transaction::Event::TransportFailed(client) => {
                    self.branch_lost(now, client, 503, "Destination Unreachable");
                }
                transaction::Event::ClientEnded(client) => {
                    // The last answer that could still come for a request that is over.
                    let over = self.by_client.remove(&client).map(|(id, _)| id).filter(|id| {
                        self.contexts
                            .get(id)
                            .is_some_and(|context| context.over && !self.has_clients(context))
                    });
                    if let Some(id) = over {
                        self.held -= self.contexts.remove(&id).map_or(0, |context| context.held());
                    }
                }
                transaction::Event::Unacknowledged(_) => {}
                transaction::Event::ServerEnded(server) => {
                    if let Some(mut context) =
                        self.by_server.remove(&server).and_then(|id| self.contexts.remove(&id))
                    {
                        self.held -= context.held();
                        self.forget(&mut context);
                        context.over = true;
                        if self.has_clients(&context) {
                            self.held += context.held();
                            self.contexts.insert(context.id, context);
                        }
                    }
                }
            }
        }
    }

    /// Whether so many bytes more may be held.
    fn has_room(&self, bytes: usize) -> bool {
        self.held + bytes <= limits::PROXY_BYTES
    }

    /// Whether one of a request's branches may still be answered.
    fn has_clients(&self, context: &Context) -> bool {
        context.branches.iter().any(|branch| branch.client.is_some_and(|id| self.by_client.contains_key(&id)))
    }

    fn branch_lost(&mut self, now: Instant, client: ClientId, status: u16, reason: &'static str) {
        if let Some(&(id, branch)) = self.by_client.get(&client) {
            self.with(id, |proxy, context| {
                proxy.unreached(now, context, branch);
                proxy.branch_failed(now, context, branch, context::Outcome::Local(status, reason));
            });
        }
    }

    /// The domain of ours that a host names: one of `--domain`, or the first of them for our own addresses.
    fn local_domain(&self, host: &str, port: Option<u16>) -> Option<String> {
        if let Some(domain) = self.config.domains.iter().find(|domain| domain.eq_ignore_ascii_case(host)) {
            return Some(domain.clone());
        }
        self.is_ours(host, port)
            .then(|| self.config.domains.first().cloned().unwrap_or_else(|| host.to_owned()))
    }

    /// Whether a host and port are one of our listeners.
    fn is_ours(&self, host: &str, port: Option<u16>) -> bool {
        let ip = crate::sip::uri::host_ip(host);
        self.config.listeners.iter().any(|listener| {
            let default = listener.transport.default_port();
            let same = |own_port: u16| port.map_or(own_port == default, |port| port == own_port);
            (host.eq_ignore_ascii_case(&listener.advertised_host) && same(listener.advertised_port))
                || (ip == Some(listener.local.ip()) && same(listener.local.port()))
        })
    }
}

impl Machine for Proxy {
    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Packet { flow, data } => self.packet(now, flow, &data),
            Input::FlowOpened { flow } => {
                if let Some(connection) = flow.connection {
                    self.connections.insert(connection, flow);
                }
            }
            Input::FlowClosed { flow } => {
                if let Some(connection) = flow.connection {
                    self.connections.remove(&connection);
                }
                self.layer.flow_closed(&flow);
            }
            Input::SendFailed { data, .. } => {
                if let Ok(message) = Message::parse(&data)
                    && message.is_request()
                    && let Ok(via) = message.top_via()
                {
                    let branch = lossy(via.branch().unwrap_or_default());
                    self.layer.send_failed(&message.method().to_string(), &branch);
                }
            }
            Input::Answer { ticket, reply } => self.answered(now, ticket, Some(reply)),
            Input::Reload => {}
            Input::Drain => self.draining = true,
        }
        self.transactions(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some((target, data)) = self.layer.poll_transmit() {
            return Some(Output::Transmit { target, data });
        }
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.layer.poll_timeout(), self.timers.next()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        self.transactions(now);
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Ticket(ticket) => self.answered(now, ticket, None),
                Timer::Ring(id, branch) => {
                    self.with(id, |proxy, context| proxy.ring_timeout(now, context, branch))
                }
                Timer::Silent(id, branch) => {
                    self.with(id, |proxy, context| proxy.silent(now, context, branch))
                }
                Timer::C(id, branch) => {
                    self.with(id, |proxy, context| proxy.ring_timeout(now, context, branch))
                }
            }
        }
        self.transactions(now);
    }

    fn is_idle(&self) -> bool {
        self.layer.pending() == 0 && self.tickets.is_empty()
    }

    fn dump(&self, out: &mut Vec<String>) {
        let held = self.layer.held();
        let state = serde_json::json!({
            "requests": self.contexts.len(),
            "pending": self.layer.pending(),
            "transactions": held.servers + held.clients,
            "bytes": held.bytes + self.held,
            "timers": held.timers + self.timers.len(),
            "questions": self.tickets.len(),
            "connections": self.connections.len(),
            "dead_servers": self.dead.len(),
            "calls": self.answered.len(),
            "draining": self.draining,
        });
        out.push(state.to_string());
    }
}

/// What a request lacks to be forwarded (§16.3 steps 2 to 5, and the seed's sanity checks).
fn insane(
    message: &Message<'_>,
    uri: Option<&Uri<'_>>,
    bad_sdp: bool,
) -> Option<(u16, Vec<(&'static str, String)>)> {
    match uri {
        Some(uri) if uri.is_sip() => {}
        Some(_) => return Some((416, Vec::new())),
        None => return Some((400, Vec::new())),
    }
    if message.max_forwards().ok().flatten() == Some(0) {
        return Some((483, Vec::new()));
    }
    if message.header(Name::ProxyRequire).is_some() {
        let wanted: Vec<_> = message.values(Name::ProxyRequire).map(lossy).collect();
        return Some((420, vec![("Unsupported", wanted.join(", "))]));
    }
    if bad_sdp {
        return Some((488, Vec::new()));
    }
    None
}

fn kind(method: Method<'_>) -> Kind {
    match method {
        Method::Invite => Kind::Invite,
        Method::Register => Kind::Register,
        Method::Bye => Kind::Bye,
        Method::Update => Kind::Update,
        Method::Subscribe => Kind::Subscribe,
        Method::Publish => Kind::Publish,
        Method::Notify => Kind::Notify,
        Method::Refer => Kind::Refer,
        Method::Ack
        | Method::Cancel
        | Method::Options
        | Method::Info
        | Method::Prack
        | Method::Message
        | Method::Other(_) => Kind::Other,
    }
}

/// Whether a Contact says that its owner speaks WebRTC (RFC 7118 §5, RFC 5768).
fn is_web_contact(message: &Message<'_>) -> bool {
    message.contacts().filter_map(Result::ok).any(|contact| {
        contact.uri.transport().is_some_and(|transport| transport.is_websocket())
            || contact.params.has("+sip.ice")
    })
}

/// A message to be kept. A datagram is its own, and is shared; one from a stream lies in the buffer that it was read into,
/// which would stay for it whole: it is copied.
fn kept(packet: &Bytes, message: &Message<'_>, flow: &Flow) -> Bytes {
    match flow.transport {
        Transport::Udp => packet.slice_ref(message.as_bytes()),
        Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
            Bytes::copy_from_slice(message.as_bytes())
        }
    }
}

/// Where a name leads; nowhere, without an answer.
fn hops(reply: Option<Reply>) -> Vec<Hop> {
    match reply {
        Some(Reply::Locate(hops)) => hops,
        _ => Vec::new(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An event about a message, with the fields that all have.
fn event(level: Level, name: &'static str, message: &Message<'_>, flow: &Flow) -> Event {
    let uri = |address: Result<crate::sip::NameAddr<'_>, ParseError>| {
        address.map_or(String::new(), |address| lossy(address.uri.as_bytes()))
    };
    Event::new(level, name)
        .with("call_id", lossy(message.call_id().unwrap_or_default()))
        .with("peer", flow)
        .with("from", uri(message.from()))
        .with("to", uri(message.to()))
}

#[cfg(test)]
mod tests;
