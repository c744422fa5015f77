//! Presence: who is there, told to who asked.
//!
//! RFC 6665 (SUBSCRIBE, NOTIFY), RFC 3903 (PUBLISH), RFC 3856 and 3863 (package `presence`), RFC 4235 (package `dialog`). Goes in:
//! requests, what the store answers, answers to NOTIFYs. Comes out: challenges, answers, NOTIFYs, changes to the store,
//! events. A 200 goes out when the store has said that the change is durable, never before.
//!
//! A watched presentity is looked at in the store twice in each second and after each change of our own, and whoever was
//! told another document than what it composes to now is told the new one. So whoever changes the database (a registrar, a command,
//! another host) needs no line to us, and a NOTIFY that was lost is made good. Each watcher has at most one NOTIFY under
//! way: one that does not answer holds up nobody else. Not here: what SUBSCRIBE (`subscribe`) and PUBLISH (`publish`) do, documents (`document`), resource lists, watcher information.

mod config;
pub mod document;
mod notify;
mod publish;
mod request;
mod subscribe;
mod subscriptions;
#[cfg(test)]
mod tests;

pub use config::{Auth, Config};

use crate::cidr::Cidr;
use crate::flow::Flow;
use crate::limits;
use crate::machine::{Input, Machine, Output, Question, Reply, Ticket};
use crate::rng::Rng;
use crate::sip::{Aor, Message, Method};
use crate::store::presence::{self as rows, DialogKey, Subscription};
use crate::store::{self, Query, Refusal};
use crate::time::Instant;
use crate::timer::Timers;
use crate::transaction::{self, Answered, ClientId, ResponseId};
use crate::uas::{Claim, Request, Rules, Uas};
use bytes::Bytes;
use publish::Published;
use request::No;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use subscriptions::{Subscriptions, Watch, WatchId};

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
static RULES: Rules = Rules {
    allow: "SUBSCRIBE, PUBLISH, OPTIONS",
    require: &[],
    options: &[("Allow-Events", request::EVENTS)],
};

/// A request that waits for the store.
struct Waiting {
    request: Request,
    step: Step,
}

/// Which question is open.
enum Step {
    Secret(Box<Claim>),
    /// A new subscription, or the new state of one that is there.
    Subscribe(Box<Subscription>),
    /// Its row goes.
    Unsubscribe(WatchId),
    Publish(Box<Published>),
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
    uas: Uas,
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
    timers: Timers<Timer>,
}

impl Presence {
    pub fn new(config: Config, worker: u8, mut rng: Rng) -> Self {
        let mut timers = Timers::new();
        for timer in [Timer::Load, Timer::Look, Timer::Tidy, Timer::Domains] {
            timers.arm(timer, Instant(0));
        }
        let watches = Subscriptions::new(&mut rng);
        Presence {
            uas: Uas::new(&RULES, config.domains.clone(), config.keys.clone(), worker, rng),
            config,
            watches,
            notifies: BTreeMap::new(),
            counted: BTreeSet::new(),
            gone: Vec::new(),
            looked: None,
            looking: false,
            loaded: false,
            early: Some(Vec::new()),
            asked: BTreeMap::new(),
            timers,
        }
    }

    // --- packets ---

    fn packet(&mut self, now: Instant, flow: Flow, data: &Bytes) {
        let Some(message) = self.uas.read(&flow, data) else { return };
        if !message.is_request() {
            return self.response(now, &message);
        }
        if let Some(early) = self.early.as_mut().filter(|early| early.len() < limits::EARLY_REQUESTS) {
            return early.push((flow, data.clone()));
        }
        let Some(request) = self.uas.receive(now, flow, &message) else { return };
        let Ok(message) = Message::parse(&request.data) else { return };
        if self.uas.admit(now, request.server, &message) {
            self.request(now, &request, &message);
        }
    }

    /// Whose it is, and whether he may.
    fn request(&mut self, now: Instant, request: &Request, message: &Message<'_>) {
        let server = request.server;
        // Until it is known who watches, a refresh would be taken for a stranger's.
        let new = message.to_tag().is_none();
        if !self.loaded || (self.uas.draining && new) {
            return self.uas.unavailable(now, server, message);
        }
        if new {
            match request::presentity(message) {
                Ok(aor) if !self.uas.serves(&aor.domain) => {
                    return self.uas.answer(now, server, message, 404, Some("Not Our Domain"), &[]);
                }
                Ok(_) => {}
                Err(no) => return self.refuse(now, request, message, &no),
            }
        }
        if self.config.auth == Auth::None {
            return self.carry_out(now, request, message);
        }
        if Cidr::any(&self.config.edge, request.flow.remote.ip()) {
            // Its proxy has seen his password for From; nobody publishes for somebody else (RFC 3903 §14.1).
            let own = || Some(message.from().ok()?.uri.aor()? == request::presentity(message).ok()?);
            if message.method() == Method::Publish && own() != Some(true) {
                return self.uas.answer(now, server, message, 403, None, &[]);
            }
            return self.carry_out(now, request, message);
        }
        let Some(claimed) = claimed(message) else {
            return self.uas.answer(now, server, message, 400, Some("From Is No SIP Address"), &[]);
        };
        let realm = claimed.domain.clone();
        if let Some(claim) = self.uas.claim(now, server, message, claimed, realm) {
            self.ask_for(now, claim.question(), request, Step::Secret(Box::new(claim)), message);
        }
    }

    fn authenticate(
        &mut self,
        now: Instant,
        request: &Request,
        message: &Message<'_>,
        claim: &Claim,
        secret: Option<&store::Secret>,
    ) {
        // In a dialog the Request-URI is our Contact, which no client need repeat in his credentials.
        let uri = message.to_tag().is_none().then(|| message.request_uri());
        match self.uas.judge(now, request.server, message, claim, secret, uri) {
            Ok(()) => self.carry_out(now, request, message),
            Err(None) => {}
            Err(Some(why)) => self.uas.tell(claim.failed(why), &request.flow, message),
        }
    }

    /// The sender may.
    fn carry_out(&mut self, now: Instant, request: &Request, message: &Message<'_>) {
        match message.method() {
            Method::Publish => self.publish(now, request, message),
            _ if message.to_tag().is_some() => self.renew(now, request, message),
            _ => self.subscribe(now, request, message),
        }
    }

    // --- questions ---

    fn ask_for(&mut self, now: Instant, query: Query, request: &Request, step: Step, message: &Message<'_>) {
        if !self.uas.may_ask(self.asked.len()) {
            return self.uas.unavailable(now, request.server, message);
        }
        let waiting = Waiting { request: request.clone(), step };
        self.ask(now, Question::Store(query), Asked::Request(Box::new(waiting)));
    }

    fn ask(&mut self, now: Instant, question: Question, asked: Asked) {
        let ticket = self.uas.ask(question);
        self.asked.insert(ticket, asked);
        self.timers.arm(Timer::Ask(ticket), now + ASK_DEADLINE);
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
            (_, Reply::Resolve(_) | Reply::Locate(_) | Reply::Relay(_)) => return,
        };
        match reply {
            (Asked::Request(waiting), reply) => self.request_told(now, *waiting, reply),
            (asked, Err(store::Error::Unavailable(_))) => self.not_told(now, asked),
            (Asked::Load, Ok(store::Reply::Presence(rows::Reply::Subscriptions(all)))) => {
                self.load(now, all);
                self.take_early(now);
            }
            (Asked::Domains, Ok(store::Reply::Domains(domains))) => {
                self.uas.stored_domains = domains.into_iter().collect();
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
            Asked::Request(waiting) => {
                if let Ok(message) = Message::parse(&waiting.request.data) {
                    self.uas.unavailable(now, waiting.request.server, &message);
                }
            }
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

    fn request_told(&mut self, now: Instant, waiting: Waiting, reply: Result<store::Reply, store::Error>) {
        let Waiting { request, step } = waiting;
        let Ok(message) = Message::parse(&request.data) else { return };
        let server = request.server;
        let reply = match reply {
            Ok(store::Reply::Presence(reply)) => reply,
            Ok(store::Reply::Secret(secret)) => {
                if let Step::Secret(claim) = &step {
                    self.authenticate(now, &request, &message, claim, secret.as_ref());
                }
                return;
            }
            Ok(_) => return self.uas.unavailable(now, server, &message),
            Err(store::Error::Unavailable(why)) => {
                self.uas.store_unavailable(&why, &request.flow, &message);
                return self.uas.unavailable(now, server, &message);
            }
        };
        match (step, reply) {
            (Step::Subscribe(row), rows::Reply::Done) => self.subscribed(now, &request, &message, &row),
            (Step::Unsubscribe(id), rows::Reply::Done) => self.unsubscribed(now, &request, &message, id),
            (Step::Publish(published), rows::Reply::Done) => {
                self.published(now, &request, &message, &published);
            }
            (_, rows::Reply::Refused(Refusal::NoSuchTag)) => {
                self.uas.answer(now, server, &message, 412, None, &[]);
            }
            (_, rows::Reply::Refused(Refusal::DoesNotFit)) => {
                self.uas.answer(now, server, &message, 400, Some("Too Long For The Database"), &[]);
            }
            (_, rows::Reply::Refused(Refusal::TooManyPublications)) => {
                self.uas.answer(now, server, &message, 403, Some("Too Many Publications"), &[]);
            }
            (_, _) => self.uas.unavailable(now, server, &message),
        }
    }

    // --- answers ---

    fn refuse(&mut self, now: Instant, request: &Request, message: &Message<'_>, no: &No) {
        let header = no.header.as_ref().map(|(name, value)| (*name, value.as_str()));
        self.uas.answer(now, request.server, message, no.status, no.reason.as_deref(), header.as_slice());
    }

    // --- answers to NOTIFY ---

    fn response(&mut self, now: Instant, message: &Message<'_>) {
        let Some(id) = ResponseId::of(message) else { return };
        if let Answered::Pass(client) = self.uas.layer.receive_response(now, &id)
            && message.status() >= 200
        {
            self.notified(now, client, message.status());
        }
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.uas.layer.poll_event() {
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
                self.uas.layer.flow_closed(&flow);
            }
            Input::SendFailed { data, .. } => {
                if let Ok(message) = Message::parse(&data)
                    && message.is_request()
                    && let Some(branch) = message.top_via().ok().and_then(|via| via.branch())
                    && let Ok(branch) = std::str::from_utf8(branch)
                {
                    self.uas.layer.send_failed("NOTIFY", branch);
                }
            }
            Input::Answer { ticket, reply } => self.told(now, ticket, reply),
            Input::Reload => self.timers.arm(Timer::Domains, now),
            Input::Drain => {
                self.uas.draining = true;
                self.tidy(now);
            }
        }
        self.drain_events(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.uas.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.uas.layer.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.uas.layer.handle_timeout(now);
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
            "domains": self.uas.domains(),
            "subscriptions": self.watches.len(),
            "notifies": self.notifies.len(),
            "transactions": self.uas.layer.pending(),
            "questions": self.asked.len(),
            "loaded": self.loaded,
            "draining": self.uas.draining,
        });
        out.push(line.to_string());
        out.extend(self.watches.all().map(Watch::record));
    }
}

/// Who the sender says that he is.
fn claimed(message: &Message<'_>) -> Option<Aor> {
    message.from().ok()?.uri.aor()
}
