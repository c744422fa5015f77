//! Presence: who is there, told to who asked.
//!
//! RFC 6665 (SUBSCRIBE, NOTIFY), RFC 3903 (PUBLISH), RFC 3856 and 3863 (package `presence`), RFC 4235 (package `dialog`). Goes in:
//! requests, what the store answers, answers to NOTIFYs. Comes out: challenges, answers, NOTIFYs, changes to the store,
//! events. A 200 goes out when the store has said that the change is durable, never before.
//!
//! A watched presentity is looked at in the store twice in each second and after each change of our own, and whoever was
//! told another document than what it composes to now is told the new one. So whoever changes the database (a registrar, a command,
//! another host) needs no line to us, and a NOTIFY that was lost is made good. Each watcher has at most one NOTIFY under
//! way: one that does not answer holds up nobody else. Not here: documents (`document`), resource lists, watcher information.

mod config;
pub mod document;
mod notify;
mod request;
mod subscriptions;
#[cfg(test)]
mod tests;

pub use config::{Auth, Config};

use crate::auth::{Checker, Credentials, NonceState, Verdict};
use crate::cidr::Cidr;
use crate::flow::{Flow, Target};
use crate::limits;
use crate::machine::{Event, Input, Level, Machine, Output, Question, Reply, Ticket};
use crate::rng::Rng;
use crate::sip::edit::Edit;
use crate::sip::{Aor, Message, Method, Name, Rport, Scheme, Uri, build};
use crate::store::presence::{self as rows, DialogKey, Publish, Subscription};
use crate::store::{self, Query, Refusal};
use crate::time::Instant;
use crate::timer::Timers;
use crate::transaction::{self, Answered, ClientId, Layer, Received, RequestId, ResponseId, ServerId};
use bytes::Bytes;
use request::No;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use subscriptions::{Subscriptions, Watch, WatchId};

/// How long a nonce is good.
const NONCE_LIFETIME: Duration = Duration::from_secs(300);
/// After that a question is given up, and its request answered with 503.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// How often watched presentities are looked at: the delay with which a registration is told.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Presentities in one look, so that a query stays short.
const LOOK_BATCH: usize = 256;
/// How often used numbers of dialogs are written, and rows that have expired are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(2);
/// Rows in one change.
const TIDY_BATCH: usize = 500;
/// How long what has expired stays in the store: another process may be about to tell its watcher.
const EXPIRED_STAYS: Duration = Duration::from_secs(60);
/// What CSeq and version skip after a restart: more than can have been used since they were last written, so that neither
/// ever goes back (RFC 3261 §12.2.1.1).
const RESTART_SKIP: u32 = 1000;
/// How long before a store that is away is asked again for what it must tell first.
const AGAIN: Duration = Duration::from_secs(1);
/// What a client is told to wait after a 503.
const RETRY_AFTER: &str = "5";
const ALLOW: &str = "SUBSCRIBE, PUBLISH, OPTIONS";

/// A request that waits for the store.
struct Waiting {
    server: ServerId,
    /// As it came, with its top Via marked.
    request: Bytes,
    flow: Flow,
    step: Step,
}

/// Which question is open.
enum Step {
    Secret(Credentials),
    /// A new subscription, or the new state of one that is there.
    Subscribe(Box<Subscription>),
    /// Its row goes.
    Unsubscribe(WatchId),
    Publish {
        presentity: Aor,
        package: rows::Package,
        etag: String,
        expires: u32,
        was: &'static str,
    },
}

/// What an answer is for.
enum Asked {
    Request(Box<Waiting>),
    /// At the start: who watches.
    Load,
    /// A look at watched presentities: the one that goes around, or one out of turn.
    Look {
        round: bool,
    },
    /// What a watcher is told who is told but once more.
    Last(WatchId),
    Resolve {
        watch: WatchId,
    },
    Domains,
    /// A change whose failure harms nobody: it is made again, or the row expires.
    Tidy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    Load,
    Look,
    Tidy,
    Domains,
    Expires(WatchId),
    Ask(Ticket),
}

/// One worker's presence server.
pub struct Presence {
    config: Config,
    layer: Layer,
    rng: Rng,
    checker: Checker,
    /// Of the table `domain`.
    stored_domains: BTreeSet<String>,
    watches: Subscriptions,
    /// NOTIFYs under way.
    notifies: BTreeMap<ClientId, WatchId>,
    /// Numbers that were used since they were last written.
    counted: BTreeSet<WatchId>,
    /// Whose rows are to go.
    gone: Vec<DialogKey>,
    /// The last presentity of the latest look.
    looked: Option<Aor>,
    looking: bool,
    loaded: bool,
    /// Requests that came before the first word of the store on who watches; they wait for it.
    early: Option<Vec<(Flow, Bytes)>>,
    asked: BTreeMap<Ticket, Asked>,
    tickets: u64,
    timers: Timers<Timer>,
    output: VecDeque<Output>,
    draining: bool,
}

impl Presence {
    pub fn new(config: Config, worker: u8, mut rng: Rng) -> Self {
        let layer = Layer::new(&mut rng, worker);
        let checker = Checker::new(config.keys.clone(), worker, rng.u32(), NONCE_LIFETIME);
        let mut timers = Timers::new();
        for timer in [Timer::Load, Timer::Look, Timer::Tidy, Timer::Domains] {
            timers.arm(timer, Instant(0));
        }
        Presence {
            config,
            layer,
            watches: Subscriptions::new(&mut rng),
            rng,
            checker,
            stored_domains: BTreeSet::new(),
            notifies: BTreeMap::new(),
            counted: BTreeSet::new(),
            gone: Vec::new(),
            looked: None,
            looking: false,
            loaded: false,
            early: Some(Vec::new()),
            asked: BTreeMap::new(),
            tickets: 0,
            timers,
            output: VecDeque::new(),
            draining: false,
        }
    }

    // --- packets ---

    fn packet(&mut self, now: Instant, flow: Flow, data: &Bytes) {
        let message = match Message::parse(data).and_then(|m| m.check().map(|()| m)) {
            Ok(message) => message,
            Err(error) => return self.malformed(&flow, data, error),
        };
        if !message.is_request() {
            return self.response(now, &message);
        }
        if let Some(early) = self.early.as_mut().filter(|early| early.len() < limits::EARLY_REQUESTS) {
            return early.push((flow, data.clone()));
        }
        let request = mark(&message, &flow);
        let Ok(message) = Message::parse(&request) else { return };
        match self.layer.receive_request(now, &RequestId::of(&message), Target::Flow(flow)) {
            Received::New(server) => self.request(now, server, flow, &message, &request),
            // Nothing here waits for a person: there is nothing to cancel (RFC 3261 §9.2).
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
        // RFC 3261 §8.2.1, §8.2.2.1, §8.2.2.3, in this order.
        let method = message.method();
        match method {
            Method::Subscribe | Method::Publish | Method::Options => {}
            // Not ours to answer in a dialog that we do not know, and there is none with another method.
            _ => return self.answer(now, server, message, 405, None, &[("Allow", ALLOW)]),
        }
        match Uri::parse(message.request_uri()).map(|uri| uri.scheme) {
            Ok(Scheme::Sip | Scheme::Sips) => {}
            _ => return self.answer(now, server, message, 416, None, &[]),
        }
        let unknown: Vec<String> =
            message.values(Name::Require).map(|token| String::from_utf8_lossy(token).into_owned()).collect();
        if !unknown.is_empty() {
            return self.answer(now, server, message, 420, None, &[("Unsupported", &unknown.join(", "))]);
        }
        if method == Method::Options {
            let headers = [("Allow", ALLOW), ("Allow-Events", request::EVENTS)];
            return self.answer(now, server, message, 200, None, &headers);
        }
        // Until it is known who watches, a refresh would be taken for a stranger's.
        let new = message.to_tag().is_none();
        if !self.loaded || (self.draining && new) {
            return self.answer(now, server, message, 503, None, &[("Retry-After", RETRY_AFTER)]);
        }
        if new {
            match request::presentity(message) {
                Ok(aor) if !self.serves(&aor.domain) => {
                    return self.answer(now, server, message, 404, Some("Not Our Domain"), &[]);
                }
                Ok(_) => {}
                Err(no) => return self.refuse(now, server, message, &no),
            }
        }
        let waiting = |step| Waiting { server, request: request.clone(), flow, step };
        if self.config.auth == Auth::None {
            return self.carry_out(now, server, flow, message, request);
        }
        if Cidr::any(&self.config.edge, flow.remote.ip()) {
            // Its proxy has seen his password for From; nobody publishes for somebody else (RFC 3903 §14.1).
            let own = || Some(message.from().ok()?.uri.aor()? == request::presentity(message).ok()?);
            if method == Method::Publish && own() != Some(true) {
                return self.answer(now, server, message, 403, None, &[]);
            }
            return self.carry_out(now, server, flow, message, request);
        }
        let Some(claimed) = claimed(message) else {
            return self.answer(now, server, message, 400, Some("From Is No SIP Address"), &[]);
        };
        let Some(credentials) = Credentials::of(message, Name::Authorization, &claimed.domain) else {
            return self.challenge(now, server, message, &claimed.domain, false);
        };
        match self.checker.nonce_state(now, &credentials) {
            NonceState::Fresh => {}
            NonceState::Stale | NonceState::Replayed => {
                return self.challenge(now, server, message, &claimed.domain, true);
            }
            NonceState::Foreign => return self.challenge(now, server, message, &claimed.domain, false),
        }
        let query = Query::Secret { user: credentials.user().to_owned(), domain: claimed.domain };
        self.ask_for(now, query, waiting(Step::Secret(credentials)), message);
    }

    fn serves(&self, domain: &str) -> bool {
        (self.config.domains.is_empty() && self.stored_domains.is_empty())
            || self.config.domains.iter().any(|d| d.eq_ignore_ascii_case(domain))
            || self.stored_domains.contains(domain)
    }

    fn challenge(&mut self, now: Instant, server: ServerId, message: &Message<'_>, realm: &str, stale: bool) {
        let challenge = self.checker.challenge(now, realm, stale);
        self.answer(now, server, message, 401, None, &[("WWW-Authenticate", &challenge)]);
    }

    fn authenticate(
        &mut self,
        now: Instant,
        waiting: &Waiting,
        credentials: &Credentials,
        secret: Option<&store::Secret>,
    ) {
        let Ok(message) = Message::parse(&waiting.request) else { return };
        let Some(claimed) = claimed(&message) else { return };
        let verdict = match secret {
            // In a dialog the Request-URI is our Contact, which no client need repeat in his credentials.
            Some(secret) => {
                let uri = message.to_tag().is_none().then(|| message.request_uri());
                self.checker.judge(now, credentials, message.method().as_bytes(), uri, secret)
            }
            None => Verdict::Bad,
        };
        let why = match verdict {
            Verdict::Good if credentials.belong_to(&claimed.user, &claimed.domain) => {
                return self.carry_out(now, waiting.server, waiting.flow, &message, &waiting.request);
            }
            Verdict::Good => {
                self.answer(now, waiting.server, &message, 403, None, &[]);
                "another user's address"
            }
            Verdict::Stale => return self.challenge(now, waiting.server, &message, &claimed.domain, true),
            Verdict::Bad => {
                self.challenge(now, waiting.server, &message, &claimed.domain, false);
                if secret.is_some() { "wrong password" } else { "unknown user" }
            }
        };
        let event = Event::new(Level::Warn, "auth-failed")
            .with("aor", &claimed)
            .with("user", &credentials.username)
            .with("reason", why);
        self.tell(event, &waiting.flow, &message);
    }

    /// The sender may.
    fn carry_out(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        message: &Message<'_>,
        request: &Bytes,
    ) {
        match message.method() {
            Method::Publish => self.publish(now, server, flow, message, request),
            _ if message.to_tag().is_some() => self.renew(now, server, flow, message, request),
            _ => self.subscribe(now, server, flow, message, request),
        }
    }

    /// RFC 6665 §4.2.1: a new subscription, or with Expires 0 one look.
    fn subscribe(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        message: &Message<'_>,
        request: &Bytes,
    ) {
        let tag = self.rng.token(12);
        let row = match request::subscription(&self.config, message, &flow, &tag, now) {
            Ok(row) => row,
            Err(no) => return self.refuse(now, server, message, &no),
        };
        if self.watches.len() >= limits::SUBSCRIPTIONS {
            return self.answer(now, server, message, 503, None, &[("Retry-After", RETRY_AFTER)]);
        }
        if row.expires <= now {
            self.accept(now, server, message, &row);
            let id = self.watches.add(row, direct(message, &flow));
            return self.last(now, id);
        }
        let query = rows::Query::Subscribe { row: Box::new(row.clone()), now };
        let step = Step::Subscribe(Box::new(row));
        let waiting = Waiting { server, request: request.clone(), flow, step };
        self.ask_for(now, Query::Presence(query), waiting, message);
    }

    /// Within a dialog: refreshed, or ended.
    fn renew(&mut self, now: Instant, server: ServerId, flow: Flow, message: &Message<'_>, request: &Bytes) {
        let known = dialog_key(message).and_then(|key| self.watches.find(&key));
        let Some((id, watch)) = known.and_then(|id| Some((id, self.watches.get(id)?))) else {
            return self.answer(now, server, message, 481, None, &[]);
        };
        let cseq = message.cseq().map_or(0, |(number, _)| number);
        let mut row = watch.row.clone();
        let refusal = match (request::event(message), request::expires(&self.config, message)) {
            // RFC 3261 §12.2.2: one that was overtaken.
            _ if cseq <= row.remote_cseq => Some(request::no(500)),
            // One dialog, one subscription (RFC 6665 §4.5.1: another one has a dialog of its own).
            (Ok((package, event_id)), Ok(_)) if (package, &event_id) != (row.package, &row.event_id) => {
                Some(request::no(481))
            }
            (Ok(_), Ok(lives)) => {
                row.expires = now + lives;
                row.remote_cseq = cseq;
                match message.header(Name::Contact).map(|_| request::contact(message, &flow)) {
                    Some(Ok(contact)) => {
                        row.contact = contact;
                        None
                    }
                    Some(Err(no)) => Some(no),
                    None => None,
                }
            }
            (Err(no), _) | (_, Err(no)) => Some(no),
        };
        if let Some(no) = refusal {
            return self.refuse(now, server, message, &no);
        }
        let (query, step) = if row.expires <= now {
            (rows::Query::Unsubscribe(vec![row.key]), Step::Unsubscribe(id))
        } else {
            (rows::Query::Subscribe { row: Box::new(row.clone()), now }, Step::Subscribe(Box::new(row)))
        };
        let waiting = Waiting { server, request: request.clone(), flow, step };
        self.ask_for(now, Query::Presence(query), waiting, message);
    }

    fn publish(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        message: &Message<'_>,
        request: &Bytes,
    ) {
        let wanted = match request::publishing(&self.config, message) {
            Ok(wanted) => wanted,
            Err((no, fault)) => {
                if let Some(fault) = fault {
                    let aor = request::presentity(message).map(|aor| aor.to_string()).unwrap_or_default();
                    let event =
                        Event::new(Level::Warn, "bad-document").with("aor", aor).with("fault", &fault);
                    self.tell(event, &flow, message);
                }
                return self.refuse(now, server, message, &no);
            }
        };
        let etag = self.rng.token(20);
        let was = match (&wanted.if_match, &wanted.body) {
            _ if wanted.lives.is_zero() => "unpublished",
            (Some(_), None) => "refreshed",
            (Some(_) | None, _) => "published",
        };
        let sender = claimed(message).map(|aor| format!("sip:{aor}")).unwrap_or_default();
        let expires = wanted.lives.as_secs() as u32;
        let publish = Publish {
            presentity: wanted.presentity.clone(),
            package: wanted.package,
            if_match: wanted.if_match,
            etag: etag.clone(),
            body: wanted.body,
            expires: now + wanted.lives,
            now,
            sender,
        };
        let step =
            Step::Publish { presentity: wanted.presentity, package: wanted.package, etag, expires, was };
        let waiting = Waiting { server, request: request.clone(), flow, step };
        self.ask_for(now, Query::Presence(rows::Query::Publish(Box::new(publish))), waiting, message);
    }

    // --- questions ---

    fn ask_for(&mut self, now: Instant, query: Query, waiting: Waiting, message: &Message<'_>) {
        if self.asked.len() >= limits::OPEN_TICKETS {
            return self.answer(now, waiting.server, message, 503, None, &[("Retry-After", RETRY_AFTER)]);
        }
        self.ask(now, Question::Store(query), Asked::Request(Box::new(waiting)));
    }

    fn ask(&mut self, now: Instant, question: Question, asked: Asked) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.asked.insert(ticket, asked);
        self.timers.arm(Timer::Ask(ticket), now + ASK_DEADLINE);
        self.output.push_back(Output::Ask { ticket, question });
    }

    fn ask_rows(&mut self, now: Instant, query: rows::Query, asked: Asked) {
        self.ask(now, Question::Store(Query::Presence(query)), asked);
    }

    fn told(&mut self, now: Instant, ticket: Ticket, reply: Reply) {
        // One that was given up: its request has its 503.
        let Some(asked) = self.asked.remove(&ticket) else { return };
        self.timers.disarm(Timer::Ask(ticket));
        let reply = match (asked, reply) {
            (Asked::Resolve { watch }, Reply::Resolve(found)) => {
                return self.resolved(now, watch, found.first().copied());
            }
            (asked, Reply::Store(reply)) => (asked, reply),
            (_, Reply::Resolve(_) | Reply::Relay(_)) => return,
        };
        match reply {
            (Asked::Request(waiting), reply) => self.request_told(now, &waiting, reply),
            (asked, Err(store::Error::Unavailable(_))) => self.not_told(now, asked),
            (Asked::Load, Ok(store::Reply::Presence(rows::Reply::Subscriptions(all)))) => {
                self.load(now, all);
                self.take_early(now);
            }
            (Asked::Domains, Ok(store::Reply::Domains(domains))) => {
                self.stored_domains = domains.into_iter().collect();
            }
            (Asked::Look { round }, Ok(store::Reply::Presence(rows::Reply::States(states)))) => {
                self.looking &= !round;
                for state in &states {
                    self.look(now, state);
                }
            }
            (Asked::Last(id), Ok(store::Reply::Presence(rows::Reply::States(states)))) => {
                self.tell_last(now, id, states.first());
            }
            (Asked::Tidy, Ok(_)) => {}
            // A store that answers another question than was asked is no store.
            (asked, Ok(_)) => self.not_told(now, asked),
        }
    }

    /// What waited for the store's first word has its turn: served, or told 503 where the store is away.
    fn take_early(&mut self, now: Instant) {
        for (flow, data) in self.early.take().unwrap_or_default() {
            self.packet(now, flow, &data);
        }
    }

    /// The answer is an error, or will not come.
    fn not_told(&mut self, now: Instant, asked: Asked) {
        match asked {
            Asked::Request(waiting) => self.unavailable(now, &waiting),
            Asked::Load => {
                self.timers.arm(Timer::Load, now + AGAIN);
                self.take_early(now);
            }
            Asked::Domains => self.timers.arm(Timer::Domains, now + AGAIN),
            Asked::Look { round } => self.looking &= !round,
            // He is told that it is over, if not what the state is.
            Asked::Last(id) => self.tell_last(now, id, None),
            Asked::Resolve { watch } => self.resolved(now, watch, None),
            Asked::Tidy => {}
        }
    }

    fn request_told(&mut self, now: Instant, waiting: &Waiting, reply: Result<store::Reply, store::Error>) {
        let Ok(message) = Message::parse(&waiting.request) else { return };
        let reply = match reply {
            Ok(store::Reply::Presence(reply)) => reply,
            Ok(store::Reply::Secret(secret)) => {
                if let Step::Secret(credentials) = &waiting.step {
                    self.authenticate(now, waiting, credentials, secret.as_ref());
                }
                return;
            }
            Ok(_) => return self.unavailable(now, waiting),
            Err(store::Error::Unavailable(why)) => {
                let event = Event::new(Level::Warn, "store-unavailable").with("reason", why);
                self.tell(event, &waiting.flow, &message);
                return self.unavailable(now, waiting);
            }
        };
        match (&waiting.step, reply) {
            (Step::Subscribe(row), rows::Reply::Done) => self.subscribed(now, waiting, &message, row),
            (Step::Unsubscribe(id), rows::Reply::Done) => {
                let Some(watch) = self.watches.get_mut(*id) else {
                    return self.answer(now, waiting.server, &message, 481, None, &[]);
                };
                watch.row.expires = now;
                let row = watch.row.clone();
                self.accept(now, waiting.server, &message, &row);
                self.subscription_event("unsubscribed", &row, &waiting.flow);
                self.last(now, *id);
            }
            (Step::Publish { presentity, package, etag, expires, was }, rows::Reply::Done) => {
                let expires = expires.to_string();
                let headers = [("SIP-ETag", etag.as_str()), ("Expires", &expires)];
                self.answer(now, waiting.server, &message, 200, None, &headers);
                let event =
                    Event::new(Level::Info, was).with("aor", presentity).with("package", package.as_str());
                self.tell(event, &waiting.flow, &message);
                self.look_soon(now, presentity);
            }
            (_, rows::Reply::Refused(Refusal::NoSuchTag)) => {
                self.answer(now, waiting.server, &message, 412, None, &[]);
            }
            (_, rows::Reply::Refused(Refusal::TooManyPublications)) => {
                self.answer(now, waiting.server, &message, 403, Some("Too Many Publications"), &[]);
            }
            (_, _) => self.unavailable(now, waiting),
        }
    }

    /// The row is durable.
    fn subscribed(&mut self, now: Instant, waiting: &Waiting, message: &Message<'_>, row: &Subscription) {
        self.accept(now, waiting.server, message, row);
        let way = direct(message, &waiting.flow);
        let id = match self.watches.find(&row.key) {
            Some(id) => {
                if let Some(watch) = self.watches.get_mut(id) {
                    watch.row.expires = row.expires;
                    watch.row.contact.clone_from(&row.contact);
                    watch.row.remote_cseq = watch.row.remote_cseq.max(row.remote_cseq);
                    watch.flow = way;
                    // RFC 6665 §4.2.1.2: each SUBSCRIBE brings a NOTIFY.
                    watch.sent = None;
                }
                // The row was written with numbers that may have been used since.
                self.counted.insert(id);
                self.subscription_event("renewed", row, &waiting.flow);
                id
            }
            None => {
                let id = self.watches.add(row.clone(), way);
                self.subscription_event("subscribed", row, &waiting.flow);
                id
            }
        };
        self.timers.arm(Timer::Expires(id), row.expires);
        self.look_soon(now, &row.presentity);
    }

    fn unavailable(&mut self, now: Instant, waiting: &Waiting) {
        if let Ok(message) = Message::parse(&waiting.request) {
            self.answer(now, waiting.server, &message, 503, None, &[("Retry-After", RETRY_AFTER)]);
        }
    }

    // --- answers and events ---

    fn refuse(&mut self, now: Instant, server: ServerId, message: &Message<'_>, no: &No) {
        let header = no.header.as_ref().map(|(name, value)| (*name, value.as_str()));
        self.answer(now, server, message, no.status, no.reason.as_deref(), header.as_slice());
    }

    /// 200 to a SUBSCRIBE: makes the dialog, or keeps it (RFC 3261 §12.1.1).
    fn accept(&mut self, now: Instant, server: ServerId, message: &Message<'_>, row: &Subscription) {
        let routes: Vec<String> = message
            .headers(Name::RecordRoute)
            .map(|header| String::from_utf8_lossy(&crate::sip::unfold(header.value)).into_owned())
            .collect();
        let expires = row.expires.saturating_since(now).as_micros().div_ceil(1_000_000).to_string();
        let contact = format!("<{}>", row.local_contact);
        let mut headers: Vec<(&str, &str)> =
            routes.iter().map(|route| ("Record-Route", route.as_str())).collect();
        headers.extend([
            ("Contact", contact.as_str()),
            ("Expires", &expires),
            ("Allow-Events", request::EVENTS),
        ]);
        let data = build::response(message, 200, None, Some(&row.key.local_tag), &headers, b"");
        self.layer.respond(now, server, 200, data.into());
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

    fn subscription_event(&mut self, name: &'static str, row: &Subscription, flow: &Flow) {
        let event = subscriptions::event(Level::Info, name, row).with("peer", flow);
        self.output.push_back(Output::Event(event));
    }

    fn tell(&mut self, event: Event, flow: &Flow, message: &Message<'_>) {
        let call_id = String::from_utf8_lossy(message.call_id().unwrap_or_default());
        self.output.push_back(Output::Event(event.with("peer", flow).with("call_id", call_id)));
    }

    // --- answers to NOTIFY ---

    fn response(&mut self, now: Instant, message: &Message<'_>) {
        let Some(id) = ResponseId::of(message) else { return };
        if let Answered::Pass(client) = self.layer.receive_response(now, &id)
            && message.status() >= 200
        {
            self.notified(now, client, message.status());
        }
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.layer.poll_event() {
            match event {
                transaction::Event::TimedOut(client) => self.notified(now, client, 408),
                transaction::Event::TransportFailed(client) => self.notified(now, client, 503),
                transaction::Event::ServerEnded(_)
                | transaction::Event::Unacknowledged(_)
                | transaction::Event::ClientEnded(_) => {}
            }
        }
    }
}

impl Machine for Presence {
    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Packet { flow, data } => self.packet(now, flow, &data),
            Input::FlowOpened { .. } => {}
            Input::FlowClosed { flow } => {
                self.watches.flow_closed(&flow);
                self.layer.flow_closed(&flow);
            }
            Input::SendFailed { data, .. } => {
                if let Ok(message) = Message::parse(&data)
                    && message.is_request()
                    && let Some(branch) = message.top_via().ok().and_then(|via| via.branch())
                    && let Ok(branch) = std::str::from_utf8(branch)
                {
                    self.layer.send_failed("NOTIFY", branch);
                }
            }
            Input::Answer { ticket, reply } => self.told(now, ticket, reply),
            Input::Reload => self.timers.arm(Timer::Domains, now),
            Input::Drain => {
                self.draining = true;
                self.tidy(now);
            }
        }
        self.drain_events(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some((target, data)) = self.layer.poll_transmit() {
            return Some(Output::Transmit { target, data });
        }
        self.output.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.layer.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        self.drain_events(now);
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Load => {
                    self.ask_rows(now, rows::Query::Subscriptions { of: None, now }, Asked::Load);
                }
                Timer::Domains => self.ask(now, Question::Store(Query::Domains), Asked::Domains),
                Timer::Look => {
                    self.timers.arm(Timer::Look, now + LOOK_EVERY);
                    self.look_round(now);
                }
                Timer::Tidy => {
                    self.timers.arm(Timer::Tidy, now + TIDY_EVERY);
                    self.tidy(now);
                    let before = now - EXPIRED_STAYS;
                    let query = rows::Query::Expire { now: before, limit: TIDY_BATCH };
                    self.ask_rows(now, query, Asked::Tidy);
                }
                Timer::Expires(id) => self.expired(now, id),
                Timer::Ask(ticket) => {
                    if let Some(asked) = self.asked.remove(&ticket) {
                        self.not_told(now, asked);
                    }
                }
            }
        }
        self.drain_events(now);
    }

    fn is_idle(&self) -> bool {
        self.notifies.is_empty()
            && !self.asked.values().any(|asked| match asked {
                Asked::Request(_) | Asked::Last(_) | Asked::Resolve { .. } | Asked::Tidy => true,
                Asked::Load | Asked::Look { .. } | Asked::Domains => false,
            })
    }

    fn dump(&self, out: &mut Vec<String>) {
        let line = serde_json::json!({
            "machine": "presence",
            "domains": self.config.domains.iter().chain(&self.stored_domains).collect::<Vec<_>>(),
            "subscriptions": self.watches.len(),
            "notifies": self.notifies.len(),
            "transactions": self.layer.pending(),
            "questions": self.asked.len(),
            "loaded": self.loaded,
            "draining": self.draining,
        });
        out.push(line.to_string());
        out.extend(self.watches.all().map(Watch::record));
    }
}

/// Who the sender says that he is.
fn claimed(message: &Message<'_>) -> Option<Aor> {
    message.from().ok()?.uri.aor()
}

fn dialog_key(message: &Message<'_>) -> Option<DialogKey> {
    let text = |value: Option<&[u8]>| value.and_then(|value| String::from_utf8(value.to_vec()).ok());
    Some(DialogKey {
        call_id: text(message.call_id())?,
        local_tag: text(message.to_tag())?,
        remote_tag: text(message.from_tag())?,
    })
}

/// The connection that a watcher himself is on: NOTIFYs go back along it.
fn direct(message: &Message<'_>, flow: &Flow) -> Option<Flow> {
    let direct = message.vias().count() == 1 && message.header(Name::RecordRoute).is_none();
    (direct && flow.connection.is_some()).then_some(*flow)
}

/// RFC 3261 §18.2.1 and RFC 3581, before anything else reads the request: the answer goes to where it came from.
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
