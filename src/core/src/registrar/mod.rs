//! The registrar: who may be reached where.
//!
//! RFC 3261 §10.3, RFC 3327 (Path), RFC 5626 §6 (instance and reg-id). Goes in: REGISTER and OPTIONS, and what the store
//! answers. Comes out: challenges, answers, changes to the store, events. A 200 goes out when the store has said that the
//! change is durable, never before. Not here: keep-alives (whoever owns the flow), routing (proxy).

mod config;
mod request;
#[cfg(test)]
mod tests;

pub use config::{Auth, Config};

use crate::auth::{Checker, Credentials, FlowToken, NonceState, Verdict};
use crate::flow::{Flow, Target};
use crate::limits;
use crate::machine::{Event, Input, Level, Machine, Output, Question, Reply, Ticket};
use crate::rng::Rng;
use crate::sip::edit::Edit;
use crate::sip::{Aor, Message, Method, Name, Rport, Scheme, Uri, build};
use crate::store::{self, Binding, Change, Query, Refusal, Save};
use crate::time::Instant;
use crate::transaction::{self, Layer, Received, RequestId, ServerId};
use bytes::Bytes;
use request::{No, Order};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a nonce is good. Registrations come once in several minutes at most: a new one each time does no harm.
const NONCE_LIFETIME: Duration = Duration::from_secs(300);
/// After that a question to the store is given up, and its request answered with 503.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// How often rows that have expired are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// Rows that one look takes, so that the transaction stays short.
const EXPIRE_BATCH: usize = 500;
/// What a client is told to wait after a 503.
const RETRY_AFTER: &str = "5";
const ALLOW: &str = "REGISTER, OPTIONS";
const SUPPORTED: &str = "path, outbound";

/// A request that waits for the store.
struct Waiting {
    server: ServerId,
    /// As it came, with its top Via marked.
    request: Bytes,
    flow: Flow,
    deadline: Instant,
    step: Step,
}

/// Which question is open.
enum Step {
    Secret(Box<Credentials>),
    Save,
    Fetch,
    FlowLost,
}

/// What an answer of the store is for.
enum Asked {
    Request(Box<Waiting>),
    Expire { deadline: Instant },
    Domains,
}

/// One worker's registrar.
pub struct Registrar {
    config: Config,
    layer: Layer,
    rng: Rng,
    checker: Checker,
    /// Of the table `domain`.
    stored_domains: BTreeSet<String>,
    asked: BTreeMap<Ticket, Asked>,
    tickets: u64,
    output: VecDeque<Output>,
    next_expire: Instant,
    /// When the table `domain` is to be read: at the start, after SIGHUP, and again where it could not be.
    next_domains: Option<Instant>,
    draining: bool,
}

impl Registrar {
    pub fn new(config: Config, worker: u8, mut rng: Rng) -> Self {
        let layer = Layer::new(&mut rng, worker);
        let checker = Checker::new(config.keys.clone(), worker, rng.u32(), NONCE_LIFETIME);
        Registrar {
            config,
            layer,
            rng,
            checker,
            stored_domains: BTreeSet::new(),
            asked: BTreeMap::new(),
            tickets: 0,
            output: VecDeque::new(),
            next_expire: Instant(0),
            next_domains: Some(Instant(0)),
            draining: false,
        }
    }

    // --- requests ---

    fn packet(&mut self, now: Instant, flow: Flow, data: &Bytes) {
        let message = match Message::parse(data).and_then(|m| m.check().map(|()| m)) {
            Ok(message) => message,
            Err(error) => return self.malformed(&flow, data, error),
        };
        if !message.is_request() {
            // We sent no request: this answers nothing.
            return;
        }
        let request = mark(&message, &flow);
        let Ok(message) = Message::parse(&request) else { return };
        match self.layer.receive_request(now, &RequestId::of(&message), Target::Flow(flow)) {
            Received::New(server) => self.request(now, server, flow, &message, &request),
            // A REGISTER is answered at once or by the store: there is nothing to cancel (§9.2).
            Received::Cancel { id, invite } => {
                self.answer(now, id, &message, if invite.is_some() { 200 } else { 481 }, None, &[]);
            }
            Received::Ack(_) | Received::Absorbed => {}
            Received::Overload => {
                let headers = [("Retry-After", RETRY_AFTER)];
                let data = build::response(&message, 503, None, Some(&self.rng.token(12)), &headers, b"");
                self.layer.send_stateless(Target::Flow(flow), data.into());
            }
        }
    }

    /// 400 to what can be answered at all; nothing else is known of it, so no transaction.
    fn malformed(&mut self, flow: &Flow, data: &[u8], error: crate::sip::ParseError) {
        let event = Event::new(Level::Warn, "malformed").with("peer", flow).with("fault", error);
        self.output.push_back(Output::Event(event));
        let Some(message) = Message::parse_to_refuse(data) else { return };
        let marked = mark(&message, flow);
        let Some(message) = Message::parse_to_refuse(&marked) else { return };
        let reason = error.kind.to_string();
        let tag = self.rng.token(12);
        let data = build::response(&message, error.kind.status(), Some(&reason), Some(&tag), &[], b"");
        self.layer.send_stateless(Target::Flow(*flow), data.into());
    }

    fn request(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        message: &Message<'_>,
        request: &Bytes,
    ) {
        if self.draining {
            return self.answer(now, server, message, 503, None, &[("Retry-After", RETRY_AFTER)]);
        }
        // §8.2.1, §8.2.2.1, §8.2.2.3, in this order.
        let method = message.method();
        if !matches!(method, Method::Register | Method::Options) {
            return self.answer(now, server, message, 405, None, &[("Allow", ALLOW)]);
        }
        match Uri::parse(message.request_uri()).map(|uri| uri.scheme) {
            Ok(Scheme::Sip | Scheme::Sips) => {}
            _ => return self.answer(now, server, message, 416, None, &[]),
        }
        let unknown: Vec<String> = message
            .values(Name::Require)
            .filter(|token| {
                !["path", "outbound"].iter().any(|known| token.eq_ignore_ascii_case(known.as_bytes()))
            })
            .map(|token| String::from_utf8_lossy(token).into_owned())
            .collect();
        if !unknown.is_empty() {
            return self.answer(now, server, message, 420, None, &[("Unsupported", &unknown.join(", "))]);
        }
        if method == Method::Options {
            let headers = [("Allow", ALLOW), ("Supported", SUPPORTED), ("Accept", "application/sdp")];
            return self.answer(now, server, message, 200, None, &headers);
        }
        self.register(now, server, flow, message, request);
    }

    /// §10.3 steps 2 to 5, as far as they go without the store.
    fn register(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        message: &Message<'_>,
        request: &Bytes,
    ) {
        let Some(aor) = address_of_record(message) else {
            return self.answer(now, server, message, 400, Some("To Is No SIP Address"), &[]);
        };
        if !self.serves(&aor.domain) {
            return self.answer(now, server, message, 404, Some("Not Our Domain"), &[]);
        }
        let waiting =
            |step| Waiting { server, request: request.clone(), flow, deadline: now + ASK_DEADLINE, step };
        // wsgw tells that a connection is gone, perhaps by way of a proxy: a REGISTER whose TOKEN is its credential.
        if message.header(Name::Authorization).is_none()
            && request::only_removes(message)
            && let Some(token) = self.own_token(message, &flow, &aor)
        {
            let query = Query::RemoveFlow { aor, token, now };
            return self.ask(now, query, waiting(Step::FlowLost), message);
        }
        if self.config.auth == Auth::None {
            return self.carry_out(now, server, flow, message, request);
        }
        let realm = self.realm(&aor);
        let Some(credentials) = Credentials::of(message, Name::Authorization, &realm) else {
            return self.challenge(now, server, message, &realm, false);
        };
        match self.checker.nonce_state(now, &credentials) {
            NonceState::Fresh => {}
            NonceState::Stale | NonceState::Replayed => {
                return self.challenge(now, server, message, &realm, true);
            }
            NonceState::Foreign => return self.challenge(now, server, message, &realm, false),
        }
        let query = Query::Secret { user: credentials.user().to_owned(), domain: aor.domain };
        self.ask(now, query, waiting(Step::Secret(Box::new(credentials))), message);
    }

    /// The text of the TOKEN in Path that names this client, in a request that whoever minted it began: its first Via has
    /// the address of the Path. A client's own REGISTER has a Via of the client's there. (One that forges it can take
    /// off without a password what the same connection registered with one, and nothing else.)
    fn own_token(&self, message: &Message<'_>, flow: &Flow, aor: &Aor) -> Option<String> {
        request::source(&self.config, message, flow, aor).token?;
        let hop = message
            .addresses(Name::Path)
            .filter_map(Result::ok)
            .filter(|hop| {
                hop.uri.user.is_some_and(|user| FlowToken::verify_path(user, &self.config.keys).is_some())
            })
            .last()?;
        let first = message.vias().last()?.ok()?;
        let its_own = first.host.eq_ignore_ascii_case(hop.uri.host) && first.port == hop.uri.port;
        String::from_utf8(hop.uri.user?.to_vec()).ok().filter(|_| its_own)
    }

    fn serves(&self, domain: &str) -> bool {
        (self.config.domains.is_empty() && self.stored_domains.is_empty())
            || self.config.domains.iter().any(|d| d.eq_ignore_ascii_case(domain))
            || self.stored_domains.contains(domain)
    }

    fn realm(&self, aor: &Aor) -> String {
        self.config.realm.clone().unwrap_or_else(|| aor.domain.clone())
    }

    fn challenge(&mut self, now: Instant, server: ServerId, message: &Message<'_>, realm: &str, stale: bool) {
        let challenge = self.checker.challenge(now, realm, stale);
        self.answer(now, server, message, 401, None, &[("WWW-Authenticate", &challenge)]);
    }

    /// Steps 3 and 4, with what the store has of the user.
    fn authenticate(
        &mut self,
        now: Instant,
        waiting: Waiting,
        credentials: &Credentials,
        secret: Option<&store::Secret>,
    ) {
        let Ok(message) = Message::parse(&waiting.request) else { return };
        let Some(aor) = address_of_record(&message) else { return };
        let realm = self.realm(&aor);
        let verdict = match secret {
            Some(secret) => {
                let uri = Some(message.request_uri());
                self.checker.judge(now, credentials, b"REGISTER", uri, secret)
            }
            None => Verdict::Bad,
        };
        let why = match verdict {
            Verdict::Good if credentials.belong_to(&aor.user, &aor.domain) => {
                return self.carry_out(now, waiting.server, waiting.flow, &message, &waiting.request);
            }
            Verdict::Good => {
                self.answer(now, waiting.server, &message, 403, None, &[]);
                "another user's address"
            }
            Verdict::Stale => return self.challenge(now, waiting.server, &message, &realm, true),
            Verdict::Bad => {
                self.challenge(now, waiting.server, &message, &realm, false);
                if secret.is_some() { "wrong password" } else { "unknown user" }
            }
        };
        let peer = request::source(&self.config, &message, &waiting.flow, &aor).address;
        let event = Event::new(Level::Warn, "auth-failed")
            .with("aor", &aor)
            .with("user", &credentials.username)
            .with("reason", why);
        let contact = message
            .contacts()
            .find_map(Result::ok)
            .map(|c| String::from_utf8_lossy(c.uri.as_bytes()).into_owned());
        self.tell(event, contact.as_deref(), peer.unwrap_or(waiting.flow.remote), &message);
    }

    /// Steps 6 to 8.
    fn carry_out(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        message: &Message<'_>,
        request: &Bytes,
    ) {
        let Some(aor) = address_of_record(message) else { return };
        let source = request::source(&self.config, message, &flow, &aor);
        let order = match request::order(&self.config, message, &flow, &aor, &source, now) {
            Ok(order) => order,
            Err(No { status, reason, header }) => {
                let header = header.as_ref().map(|(name, value)| (*name, value.as_str()));
                return self.answer(now, server, message, status, reason, header.as_slice());
            }
        };
        let (query, step) = match order {
            Order::Fetch => (Query::Bindings { aor, now }, Step::Fetch),
            Order::Change(contacts) => {
                let call_id = String::from_utf8_lossy(message.call_id().unwrap_or_default()).into_owned();
                let cseq = message.cseq().map_or(0, |(number, _)| number);
                let max_contacts = self.config.max_contacts;
                (Query::Save(Box::new(Save { aor, now, call_id, cseq, contacts, max_contacts })), Step::Save)
            }
        };
        let waiting = Waiting { server, request: request.clone(), flow, deadline: now + ASK_DEADLINE, step };
        self.ask(now, query, waiting, message);
    }

    // --- the store ---

    fn ask(&mut self, now: Instant, query: Query, waiting: Waiting, message: &Message<'_>) {
        if self.asked.len() >= limits::OPEN_TICKETS {
            return self.answer(now, waiting.server, message, 503, None, &[("Retry-After", RETRY_AFTER)]);
        }
        self.put_question(query, Asked::Request(Box::new(waiting)));
    }

    fn put_question(&mut self, query: Query, asked: Asked) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.asked.insert(ticket, asked);
        self.output.push_back(Output::Ask { ticket, question: Question::Store(query) });
    }

    fn told(&mut self, now: Instant, ticket: Ticket, reply: Reply) {
        // One that was given up: its request has its 503.
        let Some(asked) = self.asked.remove(&ticket) else { return };
        let Reply::Store(reply) = reply else { return };
        match asked {
            Asked::Domains => match reply {
                Ok(store::Reply::Domains(domains)) => self.stored_domains = domains.into_iter().collect(),
                Ok(_) => {}
                // Without the table nobody knows which domains are served: it is asked for again.
                Err(store::Error::Unavailable(_)) => self.next_domains = Some(now + EXPIRE_EVERY),
            },
            Asked::Expire { .. } => {
                if let Ok(store::Reply::Removed(rows)) = reply {
                    if rows.len() >= EXPIRE_BATCH {
                        self.next_expire = now;
                    }
                    for (aor, binding) in rows {
                        self.binding_event("expired", &aor, &binding, None);
                    }
                }
            }
            Asked::Request(waiting) => self.request_told(now, *waiting, reply),
        }
    }

    fn request_told(
        &mut self,
        now: Instant,
        mut waiting: Waiting,
        reply: Result<store::Reply, store::Error>,
    ) {
        let request = waiting.request.clone();
        let Ok(message) = Message::parse(&request) else { return };
        let reply = match reply {
            Ok(reply) => reply,
            Err(store::Error::Unavailable(why)) => {
                let event = Event::new(Level::Warn, "store-unavailable").with("reason", why);
                self.tell(event, None, waiting.flow.remote, &message);
                return self.unavailable(now, &waiting);
            }
        };
        match (std::mem::replace(&mut waiting.step, Step::Fetch), reply) {
            (Step::Secret(credentials), store::Reply::Secret(secret)) => {
                self.authenticate(now, waiting, &credentials, secret.as_ref());
            }
            (Step::Fetch, store::Reply::Bindings(bindings)) => {
                self.accept(now, &waiting, &message, &bindings)
            }
            (Step::Save, store::Reply::Saved(saved)) => {
                self.accept(now, &waiting, &message, &saved.bindings);
                let Some(aor) = address_of_record(&message) else { return };
                for (change, binding) in &saved.changes {
                    let name = match change {
                        Change::Added => "registered",
                        Change::Refreshed => "refreshed",
                        Change::Removed | Change::Replaced => "removed",
                    };
                    self.binding_event(name, &aor, binding, Some(&message));
                }
            }
            (Step::FlowLost, store::Reply::Removed(rows)) => {
                self.answer(now, waiting.server, &message, 200, None, &[]);
                for (aor, binding) in rows {
                    self.binding_event("flow-lost", &aor, &binding, Some(&message));
                }
            }
            (_, store::Reply::Refused(Refusal::OutOfOrder)) => {
                self.answer(now, waiting.server, &message, 500, Some("Overtaken By A Later Request"), &[]);
            }
            (_, store::Reply::Refused(Refusal::TooManyContacts)) => {
                self.answer(now, waiting.server, &message, 403, Some("Too Many Contacts"), &[]);
            }
            // A store that answers another question than was asked is no store.
            (_, _) => self.unavailable(now, &waiting),
        }
    }

    fn unavailable(&mut self, now: Instant, waiting: &Waiting) {
        if let Ok(message) = Message::parse(&waiting.request) {
            self.answer(now, waiting.server, &message, 503, None, &[("Retry-After", RETRY_AFTER)]);
        }
    }

    // --- answers and events ---

    /// Step 8: every binding with its time.
    fn accept(&mut self, now: Instant, waiting: &Waiting, message: &Message<'_>, bindings: &[Binding]) {
        let mut headers: Vec<(&str, String)> = Vec::with_capacity(bindings.len() + 4);
        let mut outbound = false;
        for binding in bindings {
            let mut value = format!("<{}>", binding.contact);
            if let Some(q) = binding.q {
                value.push_str(&format!(";q={}.{:03}", q / 1000, q % 1000));
            }
            let left = binding.expires.saturating_since(now);
            // Rounded up: a binding that lives is never told as 0, which would mean that it is gone.
            value.push_str(&format!(";expires={}", left.as_micros().div_ceil(1_000_000)));
            if let Some(instance) = &binding.instance {
                value.push_str(&format!(
                    ";+sip.instance=\"{}\"",
                    instance.replace('\\', "\\\\").replace('"', "\\\"")
                ));
                if binding.reg_id > 0 {
                    value.push_str(&format!(";reg-id={}", binding.reg_id));
                    outbound |= message.call_id() == Some(binding.call_id.as_bytes());
                }
            }
            headers.push(("Contact", value));
        }
        // RFC 3327 §5.3: the client learns by which way he is reached.
        if message.has_token(Name::Supported, "path") {
            for value in message.values(Name::Path) {
                headers.push(("Path", String::from_utf8_lossy(value).into_owned()));
            }
        }
        if outbound {
            // RFC 5626 §6: says that reg-id was taken as one.
            headers.push(("Require", "outbound".to_owned()));
        }
        headers.push(("Supported", SUPPORTED.to_owned()));
        headers.push(("Date", now.rfc1123()));
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.answer(now, waiting.server, message, 200, None, &headers);
    }

    fn answer(
        &mut self,
        now: Instant,
        server: ServerId,
        message: &Message<'_>,
        status: u16,
        reason: Option<&str>,
        headers: &[(&str, &str)],
    ) {
        let tag = self.rng.token(12);
        let data = build::response(message, status, reason, Some(&tag), headers, b"");
        self.layer.respond(now, server, status, data.into());
    }

    fn binding_event(
        &mut self,
        name: &'static str,
        aor: &Aor,
        binding: &Binding,
        message: Option<&Message<'_>>,
    ) {
        let mut event = Event::new(Level::Info, name).with("aor", aor).with("contact", &binding.contact);
        if let Some(peer) = binding.received.as_deref().and_then(peer) {
            event = event.with("peer", peer);
        }
        if message.is_some() {
            event = event.with("call_id", &binding.call_id);
        }
        self.output.push_back(Output::Event(event));
    }

    fn tell(&mut self, mut event: Event, contact: Option<&str>, peer: SocketAddr, message: &Message<'_>) {
        if let Some(contact) = contact {
            event = event.with("contact", contact);
        }
        let call_id = String::from_utf8_lossy(message.call_id().unwrap_or_default());
        self.output.push_back(Output::Event(event.with("peer", peer).with("call_id", call_id)));
    }
}

impl Machine for Registrar {
    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Packet { flow, data } => self.packet(now, flow, &data),
            Input::FlowOpened { .. } => {}
            Input::FlowClosed { flow } => self.layer.flow_closed(&flow),
            // Only answers are sent here; who wanted one asks again.
            Input::SendFailed { .. } => {}
            Input::Answer { ticket, reply } => self.told(now, ticket, reply),
            Input::Reload => self.next_domains = Some(now),
            Input::Drain => self.draining = true,
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some((target, data)) = self.layer.poll_transmit() {
            return Some(Output::Transmit { target, data });
        }
        while let Some(event) = self.layer.poll_event() {
            match event {
                // A server transaction that is over needs nothing; there are no others.
                transaction::Event::ServerEnded(_)
                | transaction::Event::Unacknowledged(_)
                | transaction::Event::TimedOut(_)
                | transaction::Event::TransportFailed(_)
                | transaction::Event::ClientEnded(_) => {}
            }
        }
        self.output.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self
            .asked
            .values()
            .filter_map(|asked| match asked {
                Asked::Request(waiting) => Some(waiting.deadline),
                Asked::Expire { deadline } => Some(*deadline),
                Asked::Domains => None,
            })
            .min();
        [Some(self.next_expire), self.next_domains, deadline, self.layer.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        if self.next_domains.is_some_and(|due| due <= now) {
            self.next_domains = None;
            self.put_question(Query::Domains, Asked::Domains);
        }
        if now >= self.next_expire {
            self.next_expire = now + EXPIRE_EVERY;
            if !self.asked.values().any(|asked| matches!(asked, Asked::Expire { .. })) {
                let asked = Asked::Expire { deadline: now + ASK_DEADLINE };
                self.put_question(Query::Expire { now, limit: EXPIRE_BATCH }, asked);
            }
        }
        let late: Vec<Ticket> = self
            .asked
            .iter()
            .filter(|(_, asked)| match asked {
                Asked::Request(waiting) => waiting.deadline <= now,
                Asked::Expire { deadline } => *deadline <= now,
                Asked::Domains => false,
            })
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in late {
            if let Some(Asked::Request(waiting)) = self.asked.remove(&ticket) {
                self.unavailable(now, &waiting);
            }
        }
    }

    fn is_idle(&self) -> bool {
        !self.asked.values().any(|asked| matches!(asked, Asked::Request(_)))
    }

    fn dump(&self, out: &mut Vec<String>) {
        let line = serde_json::json!({
            "machine": "registrar",
            "domains": self.config.domains.iter().chain(&self.stored_domains).collect::<Vec<_>>(),
            "transactions": self.layer.pending(),
            "questions": self.asked.len(),
            "draining": self.draining,
        });
        out.push(line.to_string());
    }
}

/// `sip:192.0.2.1:5060;transport=ws` as events write an address, `ws:192.0.2.1:5060`.
fn peer(received: &str) -> Option<String> {
    let uri = Uri::parse(received.as_bytes()).ok()?;
    let transport = uri.transport().unwrap_or(crate::flow::Transport::Udp);
    Some(format!("{transport}:{}:{}", uri.host, uri.port.unwrap_or(transport.default_port())))
}

/// To names the address-of-record (step 5); None where it is no SIP address.
fn address_of_record(message: &Message<'_>) -> Option<Aor> {
    message.to().ok()?.uri.aor()
}

/// RFC 3261 §18.2.1 and RFC 3581, before anything else reads the request. rport is forced, as in the seed: the answer
/// goes to where the request came from.
fn mark(message: &Message<'_>, flow: &Flow) -> Bytes {
    let mut edit = Edit::new();
    if let Ok(via) = message.top_via() {
        let same = crate::sip::uri::host_ip(via.host) == Some(flow.remote.ip());
        let port = via.port.unwrap_or(flow.transport.default_port());
        if !same || via.rport() != Rport::Absent || via.received().is_some() {
            edit.set_received(flow.remote.ip());
        }
        if via.rport() != Rport::Absent || (!flow.transport.is_reliable() && port != flow.remote.port()) {
            edit.set_rport(flow.remote.port());
        }
    }
    let mut out = Vec::new();
    edit.write(message, &mut out);
    out.into()
}
