//! The shell of a user agent server: the way of a request before a method has its own word, and the answer's way out.
//!
//! RFC 3261 §8.2 (UAS behaviour), §18.2.1 and RFC 3581 (where the answer goes), §22.2 (401). A server owns one [`Uas`] and
//! asks it in this order: [`Uas::read`] (400 to what is malformed), [`Uas::receive`] (transactions, CANCEL, overload),
//! [`Uas::admit`] (method, scheme, Require, OPTIONS), [`Uas::claim`] and, with what the store has,
//! [`Uas::judge`]. Whoever gets nothing back from one of them is done: the answer is on its way. Not here: what a
//! request changes, and what the open questions are for (the servers).

use crate::auth::{Checker, Credentials, Keys, NonceState, Verdict};
use crate::flow::{Flow, Target};
use crate::limits;
use crate::machine::{Event, Level, Output, Question, Ticket};
use crate::rng::Rng;
use crate::sip::edit::Edit;
use crate::sip::{Aor, Message, Method, Name, Rport, Scheme, Uri, build};
use crate::store;
use crate::time::Instant;
use crate::transaction::{Layer, Received, RequestId, ServerId};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How long a nonce is good. Requests with credentials come once in several minutes at most: a new one each time does no
/// harm.
const NONCE_LIFETIME: Duration = Duration::from_secs(300);
/// What a client is told to wait after a 503.
const RETRY_AFTER: &str = "5";

/// What a server answers by itself: constants of its own.
#[derive(Debug)]
pub struct Rules {
    /// The methods that it knows, as in Allow; OPTIONS is answered here.
    pub allow: &'static str,
    /// Option tags that it takes in Require, in small letters.
    pub require: &'static [&'static str],
    /// What its 200 to OPTIONS says beside Allow.
    pub options: &'static [(&'static str, &'static str)],
}

/// A request that has its transaction.
#[derive(Clone, Debug)]
pub struct Request {
    pub server: ServerId,
    pub flow: Flow,
    /// As it came, with its top Via marked.
    pub data: Bytes,
}

/// Credentials with a nonce of ours, and what they are shown for.
pub struct Claim {
    credentials: Credentials,
    aor: Aor,
    realm: String,
}

impl Claim {
    /// What the store has of who claims it.
    pub fn question(&self) -> store::Query {
        store::Query::Secret { user: self.credentials.user().to_owned(), domain: self.aor.domain.clone() }
    }

    /// The event of one that was refused.
    pub fn failed(&self, why: &'static str) -> Event {
        Event::new(Level::Warn, "auth-failed")
            .with("aor", &self.aor)
            .with("user", &self.credentials.username)
            .with("reason", why)
    }
}

/// One worker's shell.
pub struct Uas {
    pub layer: Layer,
    pub rng: Rng,
    /// Of the table `domain`.
    pub stored_domains: BTreeSet<String>,
    /// After SIGTERM.
    pub draining: bool,
    rules: &'static Rules,
    /// Of `--domain`.
    domains: Vec<String>,
    checker: Checker,
    tickets: u64,
    output: VecDeque<Output>,
}

impl Uas {
    pub fn new(rules: &'static Rules, domains: Vec<String>, keys: Keys, worker: u8, mut rng: Rng) -> Self {
        Uas {
            layer: Layer::new(&mut rng, worker).knowing_merged(),
            checker: Checker::new(keys, worker, rng.u32(), NONCE_LIFETIME),
            rng,
            stored_domains: BTreeSet::new(),
            draining: false,
            rules,
            domains,
            tickets: 0,
            output: VecDeque::new(),
        }
    }

    // --- requests ---

    /// The message, if it can be worked with. What cannot is told, and answered with 400 where it can be answered at all;
    /// nothing else is known of it, so no transaction.
    pub fn read<'a>(&mut self, flow: &Flow, data: &'a [u8]) -> Option<Message<'a>> {
        let error = match Message::parse(data).and_then(|message| message.check().map(|()| message)) {
            Ok(message) => return Some(message),
            Err(error) => error,
        };
        self.event(Event::new(Level::Warn, "malformed").with("peer", flow).with("fault", error));
        let message = Message::parse_to_refuse(data)?;
        let marked = mark(&message, flow);
        let message = Message::parse_to_refuse(&marked)?;
        let reason = error.kind.to_string();
        self.answer_stateless(flow, &message, error.kind.status(), Some(&reason), &[]);
        None
    }

    /// A request that is new. Retransmissions are absorbed, and a CANCEL has nothing to cancel: whatever is asked of our
    /// servers is answered at once or by the store (§9.2).
    pub fn receive(&mut self, now: Instant, flow: Flow, message: &Message<'_>) -> Option<Request> {
        let data = mark(message, &flow);
        let message = Message::parse(&data).ok()?;
        match self.layer.receive_request(now, &RequestId::of(&message), Target::Flow(flow)) {
            // RFC 3261 §8.2.2.2: a request that was forked before it reached us; its first copy is what counts.
            Received::New(server) if self.layer.is_merged(server) => {
                self.answer(now, server, &message, 482, None, &[]);
            }
            Received::New(server) => return Some(Request { server, flow, data }),
            Received::Cancel { id, invite } => {
                self.answer(now, id, &message, if invite.is_some() { 200 } else { 481 }, None, &[]);
            }
            Received::Ack(_) | Received::Absorbed => {}
            Received::Overload => {
                self.answer_stateless(&flow, &message, 503, None, &[("Retry-After", RETRY_AFTER)]);
            }
        }
        None
    }

    /// Whether it is for the server's own word: §8.2.1, §8.2.2.1 and §8.2.2.3, in this order.
    #[must_use]
    pub fn admit(&mut self, now: Instant, server: ServerId, message: &Message<'_>) -> bool {
        let method = message.method();
        if !self.rules.allow.split(", ").any(|known| known.as_bytes() == method.as_bytes()) {
            self.answer(now, server, message, 405, None, &[("Allow", self.rules.allow)]);
            return false;
        }
        match Uri::parse(message.request_uri()).map(|uri| uri.scheme) {
            Ok(Scheme::Sip | Scheme::Sips) => {}
            _ => {
                self.answer(now, server, message, 416, None, &[]);
                return false;
            }
        }
        let unknown: Vec<String> = message
            .values(Name::Require)
            .filter(|token| {
                !self.rules.require.iter().any(|known| token.eq_ignore_ascii_case(known.as_bytes()))
            })
            .map(|token| String::from_utf8_lossy(token).into_owned())
            .collect();
        if !unknown.is_empty() {
            self.answer(now, server, message, 420, None, &[("Unsupported", &unknown.join(", "))]);
            return false;
        }
        if method == Method::Options {
            let mut headers = vec![("Allow", self.rules.allow)];
            headers.extend(self.rules.options);
            self.answer(now, server, message, 200, None, &headers);
            return false;
        }
        true
    }

    /// Whether a domain is ours: every one where none is named.
    pub fn serves(&self, domain: &str) -> bool {
        (self.domains.is_empty() && self.stored_domains.is_empty())
            || self.domains.iter().any(|d| d.eq_ignore_ascii_case(domain))
            || self.stored_domains.contains(domain)
    }

    /// All that are named, for the dump.
    pub fn domains(&self) -> Vec<&String> {
        self.domains.iter().chain(&self.stored_domains).collect()
    }

    // --- who it is ---

    /// What the request shows for `aor`, with a nonce that is ours and new; else it is challenged.
    pub fn claim(
        &mut self,
        now: Instant,
        server: ServerId,
        message: &Message<'_>,
        aor: Aor,
        realm: String,
    ) -> Option<Claim> {
        let stale = match Credentials::of(message, Name::Authorization, &realm) {
            None => false,
            Some(credentials) => match self.checker.nonce_state(now, &credentials) {
                NonceState::Fresh => return Some(Claim { credentials, aor, realm }),
                NonceState::Stale | NonceState::Replayed => true,
                NonceState::Foreign => false,
            },
        };
        self.challenge(now, server, message, &realm, stale);
        None
    }

    /// Whether a claim is good. `uri` is what its credentials have to name, None where that is not held against them. Err:
    /// it was answered; with the reason where somebody should look.
    pub fn judge(
        &mut self,
        now: Instant,
        server: ServerId,
        message: &Message<'_>,
        claim: &Claim,
        secret: Option<&store::Secret>,
        uri: Option<&[u8]>,
    ) -> Result<(), Option<&'static str>> {
        let Claim { credentials, aor, realm } = claim;
        let verdict = match secret {
            Some(secret) => self.checker.judge(now, credentials, message.method().as_bytes(), uri, secret),
            None => Verdict::Bad,
        };
        match verdict {
            Verdict::Good if credentials.belong_to(&aor.user, &aor.domain) => Ok(()),
            Verdict::Good => {
                self.answer(now, server, message, 403, None, &[]);
                Err(Some("another user's address"))
            }
            Verdict::Stale => {
                self.challenge(now, server, message, realm, true);
                Err(None)
            }
            Verdict::Bad => {
                self.challenge(now, server, message, realm, false);
                Err(Some(if secret.is_some() { "wrong password" } else { "unknown user" }))
            }
        }
    }

    fn challenge(&mut self, now: Instant, server: ServerId, message: &Message<'_>, realm: &str, stale: bool) {
        let challenge = self.checker.challenge(now, realm, stale);
        self.answer(now, server, message, 401, None, &[("WWW-Authenticate", &challenge)]);
    }

    // --- answers, questions, events ---

    /// A final answer of a transaction.
    pub fn answer(
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

    /// 503: we cannot, now.
    pub fn unavailable(&mut self, now: Instant, server: ServerId, message: &Message<'_>) {
        self.answer(now, server, message, 503, None, &[("Retry-After", RETRY_AFTER)]);
    }

    fn answer_stateless(
        &mut self,
        flow: &Flow,
        message: &Message<'_>,
        status: u16,
        reason: Option<&str>,
        headers: &[(&str, &str)],
    ) {
        let tag = self.rng.token(12);
        let data = build::response(message, status, reason, Some(&tag), headers, b"");
        self.layer.send_stateless(Target::Flow(*flow), data.into());
    }

    /// Whether one more question may be open beside `open` of them.
    pub fn may_ask(&self, open: usize) -> bool {
        open < limits::OPEN_TICKETS
    }

    /// Asks; the answer comes under the ticket.
    pub fn ask(&mut self, question: Question) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.output.push_back(Output::Ask { ticket, question });
        ticket
    }

    /// Told as it is.
    pub fn event(&mut self, event: Event) {
        self.output.push_back(Output::Event(event));
    }

    /// Told of a request, with its Call-ID and who sent it.
    pub fn tell(&mut self, event: Event, peer: &impl ToString, message: &Message<'_>) {
        let call_id = String::from_utf8_lossy(message.call_id().unwrap_or_default());
        self.event(event.with("peer", peer.to_string()).with("call_id", call_id));
    }

    /// The store said that it is away.
    pub fn store_unavailable(&mut self, why: &str, peer: &impl ToString, message: &Message<'_>) {
        // That the store is away it tells itself, once, and not with every request.
        self.tell(Event::new(Level::Debug, "store-unavailable").with("reason", why), peer, message);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some((target, data)) = self.layer.poll_transmit() {
            return Some(Output::Transmit { target, data });
        }
        self.output.pop_front()
    }
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
