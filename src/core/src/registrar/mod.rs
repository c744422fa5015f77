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

use crate::auth::FlowToken;
use crate::flow::Flow;
use crate::machine::{Event, Input, Level, Machine, Output, Question, Reply, Ticket};
use crate::rng::Rng;
use crate::sip::{Aor, Message, Name, Uri};
use crate::store::{self, Binding, Change, Query, Refusal, Save};
use crate::time::Instant;
use crate::transaction;
use crate::uas::{Claim, Request, Rules, Uas};
use request::{No, Order};
use std::collections::BTreeMap;
use std::time::Duration;

/// After that a question to the store is given up, and its request answered with 503.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// How often rows that have expired are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// Rows that one look takes, so that the transaction stays short.
const EXPIRE_BATCH: usize = 500;
const SUPPORTED: &str = "path, outbound";
static RULES: Rules = Rules {
    allow: "REGISTER, OPTIONS",
    require: &["path", "outbound"],
    options: &[("Supported", SUPPORTED), ("Accept", "application/sdp")],
};

/// A request that waits for the store.
struct Waiting {
    request: Request,
    deadline: Instant,
    step: Step,
}

/// Which question is open.
enum Step {
    Secret(Box<Claim>),
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
    uas: Uas,
    asked: BTreeMap<Ticket, Asked>,
    next_expire: Instant,
    /// When the table `domain` is to be read: at the start, after SIGHUP, and again where it could not be.
    next_domains: Option<Instant>,
}

impl Registrar {
    pub fn new(config: Config, worker: u8, rng: Rng) -> Self {
        Registrar {
            uas: Uas::new(&RULES, config.domains.clone(), config.keys.clone(), worker, rng),
            config,
            asked: BTreeMap::new(),
            next_expire: Instant(0),
            next_domains: Some(Instant(0)),
        }
    }

    // --- requests ---

    fn packet(&mut self, now: Instant, flow: Flow, data: &[u8]) {
        let Some(message) = self.uas.read(&flow, data) else { return };
        if !message.is_request() {
            // We sent no request: this answers nothing.
            return;
        }
        let Some(request) = self.uas.receive(now, flow, &message) else { return };
        let Ok(message) = Message::parse(&request.data) else { return };
        if self.uas.draining {
            return self.uas.unavailable(now, request.server, &message);
        }
        if self.uas.admit(now, request.server, &message) {
            self.register(now, &request, &message);
        }
    }

    /// §10.3 steps 2 to 5, as far as they go without the store.
    fn register(&mut self, now: Instant, request: &Request, message: &Message<'_>) {
        let Some(aor) = address_of_record(message) else {
            return self.uas.answer(now, request.server, message, 400, Some("To Is No SIP Address"), &[]);
        };
        if !self.uas.serves(&aor.domain) {
            return self.uas.answer(now, request.server, message, 404, Some("Not Our Domain"), &[]);
        }
        // wsgw tells that a connection is gone, perhaps by way of a proxy: a REGISTER whose TOKEN is its credential.
        if message.header(Name::Authorization).is_none()
            && request::only_removes(message)
            && let Some(token) = self.own_token(message, &request.flow, &aor)
        {
            return self.ask(now, Query::RemoveFlow { aor, token, now }, request, Step::FlowLost, message);
        }
        if self.config.auth == Auth::None {
            return self.carry_out(now, request, message);
        }
        let realm = self.config.realm.clone().unwrap_or_else(|| aor.domain.clone());
        if let Some(claim) = self.uas.claim(now, request.server, message, aor, realm) {
            self.ask(now, claim.question(), request, Step::Secret(Box::new(claim)), message);
        }
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

    /// Steps 3 and 4, with what the store has of the user.
    fn authenticate(
        &mut self,
        now: Instant,
        request: &Request,
        message: &Message<'_>,
        claim: &Claim,
        secret: Option<&store::Secret>,
    ) {
        let uri = Some(message.request_uri());
        let why = match self.uas.judge(now, request.server, message, claim, secret, uri) {
            Ok(()) => return self.carry_out(now, request, message),
            Err(None) => return,
            Err(Some(why)) => why,
        };
        let Some(aor) = address_of_record(message) else { return };
        let peer = request::source(&self.config, message, &request.flow, &aor).address;
        let contact = message.contacts().find_map(Result::ok);
        let mut event = claim.failed(why);
        if let Some(contact) = contact {
            event = event.with("contact", String::from_utf8_lossy(contact.uri.as_bytes()));
        }
        self.uas.tell(event, &peer.unwrap_or(request.flow.remote), message);
    }

    /// Steps 6 to 8.
    fn carry_out(&mut self, now: Instant, request: &Request, message: &Message<'_>) {
        let Some(aor) = address_of_record(message) else { return };
        let source = request::source(&self.config, message, &request.flow, &aor);
        let order = match request::order(&self.config, message, &request.flow, &aor, &source, now) {
            Ok(order) => order,
            Err(No { status, reason, header }) => {
                let header = header.as_ref().map(|(name, value)| (*name, value.as_str()));
                return self.uas.answer(now, request.server, message, status, reason, header.as_slice());
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
        self.ask(now, query, request, step, message);
    }

    // --- the store ---

    fn ask(&mut self, now: Instant, query: Query, request: &Request, step: Step, message: &Message<'_>) {
        if !self.uas.may_ask(self.asked.len()) {
            return self.uas.unavailable(now, request.server, message);
        }
        let waiting = Waiting { request: request.clone(), deadline: now + ASK_DEADLINE, step };
        self.put_question(query, Asked::Request(Box::new(waiting)));
    }

    fn put_question(&mut self, query: Query, asked: Asked) {
        let ticket = self.uas.ask(Question::Store(query));
        self.asked.insert(ticket, asked);
    }

    fn told(&mut self, now: Instant, ticket: Ticket, reply: Reply) {
        // One that was given up: its request has its 503.
        let Some(asked) = self.asked.remove(&ticket) else { return };
        let Reply::Store(reply) = reply else { return };
        match asked {
            Asked::Domains => match reply {
                Ok(store::Reply::Domains(domains)) => {
                    self.uas.stored_domains = domains.into_iter().collect();
                }
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

    fn request_told(&mut self, now: Instant, waiting: Waiting, reply: Result<store::Reply, store::Error>) {
        let Waiting { request, step, .. } = waiting;
        let Ok(message) = Message::parse(&request.data) else { return };
        let server = request.server;
        let reply = match reply {
            Ok(reply) => reply,
            Err(store::Error::Unavailable(why)) => {
                self.uas.store_unavailable(&why, &request.flow.remote, &message);
                return self.uas.unavailable(now, server, &message);
            }
        };
        match (step, reply) {
            (Step::Secret(claim), store::Reply::Secret(secret)) => {
                self.authenticate(now, &request, &message, &claim, secret.as_ref());
            }
            (Step::Fetch, store::Reply::Bindings(bindings)) => {
                self.accept(now, &request, &message, &bindings);
            }
            (Step::Save, store::Reply::Saved(saved)) => {
                self.accept(now, &request, &message, &saved.bindings);
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
                self.uas.answer(now, server, &message, 200, None, &[]);
                for (aor, binding) in rows {
                    self.binding_event("flow-lost", &aor, &binding, Some(&message));
                }
            }
            (_, store::Reply::Refused(Refusal::OutOfOrder)) => {
                self.uas.answer(now, server, &message, 500, Some("Overtaken By A Later Request"), &[]);
            }
            (_, store::Reply::Refused(Refusal::TooManyContacts)) => {
                self.uas.answer(now, server, &message, 403, Some("Too Many Contacts"), &[]);
            }
            (_, store::Reply::Refused(Refusal::DoesNotFit)) => {
                self.uas.answer(now, server, &message, 400, Some("Too Long For The Database"), &[]);
            }
            // A store that answers another question than was asked is no store.
            (_, _) => self.uas.unavailable(now, server, &message),
        }
    }

    // --- answers and events ---

    /// Step 8: every binding with its time.
    fn accept(&mut self, now: Instant, request: &Request, message: &Message<'_>, bindings: &[Binding]) {
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
        self.uas.answer(now, request.server, message, 200, None, &headers);
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
        self.uas.event(event);
    }
}

impl Machine for Registrar {
    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Packet { flow, data } => self.packet(now, flow, &data),
            Input::FlowOpened { .. } => {}
            Input::FlowClosed { flow } => self.uas.layer.flow_closed(&flow),
            // Only answers are sent here; who wanted one asks again.
            Input::SendFailed { .. } => {}
            Input::Answer { ticket, reply } => self.told(now, ticket, reply),
            Input::Reload => self.next_domains = Some(now),
            Input::Drain => self.uas.draining = true,
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        while let Some(event) = self.uas.layer.poll_event() {
            match event {
                // A server transaction that is over needs nothing; there are no others.
                transaction::Event::ServerEnded(_)
                | transaction::Event::Unacknowledged(_)
                | transaction::Event::TimedOut(_)
                | transaction::Event::TransportFailed(_)
                | transaction::Event::ClientEnded(_) => {}
            }
        }
        self.uas.poll_output()
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
        [Some(self.next_expire), self.next_domains, deadline, self.uas.layer.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.uas.layer.handle_timeout(now);
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
            if let Some(Asked::Request(waiting)) = self.asked.remove(&ticket)
                && let Ok(message) = Message::parse(&waiting.request.data)
            {
                self.uas.unavailable(now, waiting.request.server, &message);
            }
        }
    }

    fn is_idle(&self) -> bool {
        !self.asked.values().any(|asked| matches!(asked, Asked::Request(_)))
    }

    fn dump(&self, out: &mut Vec<String>) {
        let line = serde_json::json!({
            "machine": "registrar",
            "domains": self.uas.domains(),
            "transactions": self.uas.layer.pending(),
            "questions": self.asked.len(),
            "draining": self.uas.draining,
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
