//! Who has to prove himself, and whether he did.
//!
//! RFC 3261 §22.3 (407), and the seed's AUTH block: what claims a From of ours is challenged, but for REGISTER (the
//! registrar's own business), ACK and CANCEL (they cannot be answered so) and what has a verified Route token. Who has
//! neither a From nor a Request-URI of ours is refused: no open relay. Credentials must belong to the From user. Not here:
//! digest itself (`auth`), the user's secret (asked of the store).

use super::config::{Auth, Config};
use super::context::{Context, Kind, Waiting};
use super::{DATABASE_AWAY, Proxy, event, lossy};
use crate::auth::{Checker, Credentials, NonceState, Verdict};
use crate::cidr::Cidr;
use crate::machine::{Level, Output, Question, Reply};
use crate::sip::{Message, Name, Uri};
use crate::store;
use crate::time::Instant;
use std::time::Duration;

/// How long a nonce is good: a browser that refreshes its credentials within a call is not asked twice.
const NONCE_LIFETIME: Duration = Duration::from_secs(300);

pub(super) fn checker(config: &Config, epoch: u32) -> Checker {
    Checker::new(config.keys.clone(), config.worker, epoch, NONCE_LIFETIME)
}

/// What a request outside of a dialog has to show.
pub(super) enum Need {
    Nothing,
    /// It claims to come from this user of ours.
    Proof,
    Refuse(u16, &'static str),
}

impl Proxy {
    pub(super) fn must_prove(&self, context: &Context, message: &Message<'_>) -> Need {
        let trusted = Cidr::any(&self.config.trust, context.flow.remote.ip());
        if trusted || context.method == Kind::Register {
            return Need::Nothing;
        }
        if self.claimed(message).is_some() {
            return match self.config.auth {
                Auth::Digest => Need::Proof,
                Auth::None => Need::Nothing,
            };
        }
        let to_us = Uri::parse(message.request_uri())
            .is_ok_and(|uri| self.local_domain(uri.host, uri.port).is_some());
        if to_us { Need::Nothing } else { Need::Refuse(403, "Not Relaying") }
    }

    /// User and domain of a From that is ours.
    pub(super) fn claimed(&self, message: &Message<'_>) -> Option<(String, String)> {
        let from = message.from().ok()?;
        let domain = self.local_domain(from.uri.host, from.uri.port)?;
        let user = from.uri.aor().map(|aor| aor.user).unwrap_or_default();
        Some((user, domain))
    }

    pub(super) fn ask_credentials(&mut self, now: Instant, context: &mut Context, message: &Message<'_>) {
        let Some((user, domain)) = self.claimed(message) else { return };
        let Some(credentials) = Credentials::of(message, Name::ProxyAuthorization, &domain) else {
            return self.challenge(now, context, &domain, false);
        };
        if !credentials.belong_to(&user, &domain) {
            // The answer is told, with whose the credentials are; that is the one line.
            return self.answer(now, context, 403, Some("Not Your Identity"), &[]);
        }
        match self.checker.nonce_state(now, &credentials) {
            NonceState::Fresh => {}
            NonceState::Stale | NonceState::Replayed => return self.challenge(now, context, &domain, true),
            NonceState::Foreign => return self.challenge(now, context, &domain, false),
        }
        let query = store::Query::Secret { user, domain };
        context.asking = self.ask(now, Question::Store(query), Waiting::Credentials(context.id));
        if context.asking.is_none() {
            self.answer(now, context, 503, Some("Too Many Questions"), &[("Retry-After", "5")]);
        }
    }

    pub(super) fn credentials(
        &mut self,
        now: Instant,
        context: &mut Context,
        message: &Message<'_>,
        reply: Option<Reply>,
    ) {
        context.asking = None;
        let Some((_, domain)) = self.claimed(message) else { return };
        let Some(credentials) = Credentials::of(message, Name::ProxyAuthorization, &domain) else { return };
        let secret = match reply {
            Some(Reply::Store(Ok(store::Reply::Secret(secret)))) => secret,
            _ => {
                return self.answer(now, context, 503, Some(DATABASE_AWAY), &[("Retry-After", "5")]);
            }
        };
        let Some(secret) = secret else {
            self.auth_failed(context, message, &credentials.username, "no such user");
            return self.challenge(now, context, &domain, false);
        };
        let method = message.method();
        let uri = Some(message.request_uri());
        match self.checker.judge(now, &credentials, method.as_bytes(), uri, &secret) {
            Verdict::Good => {
                context.authenticated = true;
                self.admitted(now, context, message);
            }
            Verdict::Stale => self.challenge(now, context, &domain, true),
            Verdict::Bad => {
                self.auth_failed(context, message, &credentials.username, "wrong password");
                self.challenge(now, context, &domain, false);
            }
        }
    }

    fn challenge(&mut self, now: Instant, context: &mut Context, realm: &str, stale: bool) {
        let challenge = self.checker.challenge(now, realm, stale);
        self.answer(now, context, 407, None, &[("Proxy-Authenticate", &challenge)]);
    }

    fn auth_failed(&mut self, context: &Context, message: &Message<'_>, user: &str, reason: &str) {
        let event = event(Level::Warn, "auth-failed", message, &context.flow)
            .with("source", self.source(message, &context.flow))
            .with("user", user)
            .with("method", message.method())
            .with("uri", lossy(message.request_uri()))
            .with("reason", reason);
        self.outputs.push_back(Output::Event(event));
    }
}
