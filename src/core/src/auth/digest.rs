//! Digest authentication, both sides.
//!
//! RFC 7616 and 2617 (MD5, qop=auth), RFC 8760 (SHA-256, for the client), RFC 3261 §22. Goes in: header values, secrets, time.
//! Comes out: challenges, verdicts, answers to challenges. A nonce is time, worker and serial number under a MAC: nothing is
//! remembered of it until it was used once with the right password; then which nonce counts were seen, so that no request
//! passes twice. Not here: asking the store, choosing 401 or 407.

use super::keys::{KeyId, Keys};
use crate::limits;
use crate::sip::{List, Message, Name, Uri, unquote};
use crate::store::Secret;
use crate::time::Instant;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::{Digest, Md5};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;
use subtle::ConstantTimeEq;

const PURPOSE: &str = "nonce";
const NONCE_MAC: usize = 10;
const NONCE_FIXED: usize = 1 + 1 + 4 + 6 + 8;
/// How far a nonce count may lag behind the highest that was seen: requests of one client overtake each other on UDP.
const WINDOW: u32 = 64;

/// The hash of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    /// As in the `algorithm` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Algorithm::Md5, Algorithm::Sha256].into_iter().find(|a| a.as_str().eq_ignore_ascii_case(text))
    }

    /// The hash of the parts with colons between them, in hexadecimal.
    fn hash(self, parts: &[&[u8]]) -> String {
        fn fed<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut digest = D::new();
            for (number, part) in parts.iter().enumerate() {
                if number > 0 {
                    digest.update(b":");
                }
                digest.update(part);
            }
            digest.finalize().to_vec()
        }
        let bytes = match self {
            Algorithm::Md5 => fed::<Md5>(parts),
            Algorithm::Sha256 => fed::<Sha256>(parts),
        };
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// HA1 with MD5, as the table `subscriber` keeps it.
pub fn ha1(user: &str, realm: &str, password: &str) -> String {
    Algorithm::Md5.hash(&[user.as_bytes(), realm.as_bytes(), password.as_bytes()])
}

/// What the table `subscriber` keeps of a password.
pub fn secret(user: &str, domain: &str, realm: &str, password: &str) -> Secret {
    Secret {
        password: String::new(),
        ha1: ha1(user, realm, password),
        ha1b: ha1(&format!("{user}@{domain}"), realm, password),
    }
}

fn response(
    algorithm: Algorithm,
    ha1: &str,
    method: &[u8],
    uri: &[u8],
    nonce: &str,
    qop: Option<(&str, &str)>,
) -> String {
    let ha2 = algorithm.hash(&[method, uri]);
    let (ha1, nonce, ha2) = (ha1.as_bytes(), nonce.as_bytes(), ha2.as_bytes());
    match qop {
        Some((nc, cnonce)) => algorithm.hash(&[ha1, nonce, nc.as_bytes(), cnonce.as_bytes(), b"auth", ha2]),
        None => algorithm.hash(&[ha1, nonce, ha2]),
    }
}

/// The parameters of a challenge or of credentials; None where the scheme is not Digest.
fn parameters(value: &[u8]) -> Option<impl Iterator<Item = (String, String)> + '_> {
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"digest") || !rest.first()?.is_ascii_whitespace() {
        return None;
    }
    Some(List::new(rest).take(limits::AUTH_PARAMETERS).filter_map(|part| {
        let eq = memchr::memchr(b'=', part)?;
        let name = std::str::from_utf8(part[..eq].trim_ascii()).ok()?.to_ascii_lowercase();
        let value = String::from_utf8(unquote(part[eq + 1..].trim_ascii()).into_owned()).ok()?;
        Some((name, value))
    }))
}

/// What a client says in Authorization or Proxy-Authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// As given, perhaps with a domain.
    pub username: String,
    pub realm: String,
    pub nonce: String,
    pub uri: String,
    response: String,
    algorithm: Option<String>,
    cnonce: Option<String>,
    qop: Option<String>,
    nc: Option<String>,
}

impl Credentials {
    /// Reads one header value; None where it is not Digest or lacks what it must have.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut found = Credentials::default();
        for (name, value) in parameters(value)? {
            match name.as_str() {
                "username" => found.username = value,
                "realm" => found.realm = value,
                "nonce" => found.nonce = value,
                "uri" => found.uri = value,
                "response" => found.response = value,
                "algorithm" => found.algorithm = Some(value),
                "cnonce" => found.cnonce = Some(value),
                "qop" => found.qop = Some(value),
                "nc" => found.nc = Some(value),
                _ => {}
            }
        }
        let whole = ![&found.username, &found.realm, &found.nonce, &found.uri, &found.response]
            .iter()
            .any(|v| v.is_empty());
        whole.then_some(found)
    }

    /// The credentials for this realm among those of a request (a request may hold those of several).
    pub fn of(message: &Message<'_>, header: Name, realm: &str) -> Option<Self> {
        message
            .headers(header)
            .take(limits::AUTH_HEADERS)
            .filter_map(|h| Self::parse(h.value))
            .find(|c| c.realm == realm)
    }

    /// The user's name without the domain that some clients append.
    pub fn user(&self) -> &str {
        self.username.split_once('@').map_or(self.username.as_str(), |(user, _)| user)
    }

    /// Whether these are of this user: `alice`, or `alice@example.com`.
    pub fn belong_to(&self, user: &str, domain: &str) -> bool {
        match self.username.split_once('@') {
            Some((name, at)) => name == user && at.eq_ignore_ascii_case(domain),
            None => self.username == user,
        }
    }
}

/// What can be said of a nonce before the store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceState {
    /// Ours, in time, and this count was not seen.
    Fresh,
    /// Ours but old, of another worker, or forgotten: challenge with `stale=true`.
    Stale,
    /// Ours, but this count came before, or there is none.
    Replayed,
    /// Not ours.
    Foreign,
}

/// What a request's credentials are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The user knows the password.
    Good,
    /// The password may be right; the nonce is not: challenge with `stale=true`.
    Stale,
    /// Wrong: challenge again.
    Bad,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    highest: u32,
    /// Bit n: `highest - n` was seen.
    window: u64,
    expires: Instant,
}

/// Mints nonces and judges credentials, for one worker.
#[derive(Debug)]
pub struct Checker {
    keys: Keys,
    worker: u8,
    epoch: u32,
    lifetime: Duration,
    serial: u64,
    /// Nonces that were used, by serial number.
    seen: BTreeMap<u64, Seen>,
    /// Serial numbers up to here were forgotten before their time.
    forgotten: u64,
}

struct Nonce {
    minted: Instant,
    serial: u64,
    ours: bool,
}

impl Checker {
    /// `epoch`: a number drawn at the start of the process, so that nonces of its predecessor, whose counts nobody knows any
    /// more, are stale and not replayable. `lifetime`: how long a nonce is good.
    pub fn new(keys: Keys, worker: u8, epoch: u32, lifetime: Duration) -> Self {
        Checker { keys, worker, epoch, lifetime, serial: 0, seen: BTreeMap::new(), forgotten: 0 }
    }

    /// Other keys (SIGHUP).
    pub fn set_keys(&mut self, keys: Keys) {
        self.keys = keys;
    }

    fn mint(&mut self, now: Instant) -> String {
        self.serial += 1;
        let mut bytes = Vec::with_capacity(NONCE_FIXED + NONCE_MAC);
        bytes.push(self.keys.signing_id().0);
        bytes.push(self.worker);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.serial.to_be_bytes()[2..]);
        bytes.extend_from_slice(&now.0.to_be_bytes());
        let (_, mac) = self.keys.sign(PURPOSE, &[&bytes]);
        bytes.extend_from_slice(&mac[..NONCE_MAC]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(&self, nonce: &str) -> Option<Nonce> {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
        let (signed, mac) = bytes.split_at_checked(NONCE_FIXED)?;
        let signed: &[u8; NONCE_FIXED] = signed.try_into().ok()?;
        if mac.len() != NONCE_MAC || !self.keys.verify(KeyId(signed[0]), PURPOSE, &[signed], mac) {
            return None;
        }
        let number = |part: &[u8]| part.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        Some(Nonce {
            minted: Instant(number(&signed[12..20])),
            serial: number(&signed[6..12]),
            ours: signed[1] == self.worker && number(&signed[2..6]) as u32 == self.epoch,
        })
    }

    /// The value of WWW-Authenticate or Proxy-Authenticate.
    pub fn challenge(&mut self, now: Instant, realm: &str, stale: bool) -> String {
        let nonce = self.mint(now);
        let realm = realm.replace(['"', '\\'], "");
        let stale = if stale { ", stale=true" } else { "" };
        format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\"{stale}")
    }

    /// Whether it is worth asking the store.
    pub fn nonce_state(&self, now: Instant, credentials: &Credentials) -> NonceState {
        let Some(nonce) = self.read(&credentials.nonce) else { return NonceState::Foreign };
        let Some(count) = count(credentials) else { return NonceState::Replayed };
        if !nonce.ours || nonce.minted + self.lifetime <= now || nonce.minted > now {
            return NonceState::Stale;
        }
        match self.seen.get(&nonce.serial) {
            Some(seen) if !seen.admits(count) => NonceState::Replayed,
            Some(_) => NonceState::Fresh,
            None if nonce.serial <= self.forgotten => NonceState::Stale,
            None => NonceState::Fresh,
        }
    }

    /// Judges credentials against what the store has. A good one uses its nonce count up. `request_uri`: checked against
    /// the `uri` of the credentials (same user and host), where it is given.
    pub fn judge(
        &mut self,
        now: Instant,
        credentials: &Credentials,
        method: &[u8],
        request_uri: Option<&[u8]>,
        secret: &Secret,
    ) -> Verdict {
        let right_kind = credentials.qop.as_deref().is_some_and(|qop| qop.eq_ignore_ascii_case("auth"))
            && credentials.algorithm.as_deref().is_none_or(|a| a.eq_ignore_ascii_case("MD5"))
            && request_uri.is_none_or(|uri| same_target(uri, credentials.uri.as_bytes()));
        let (Some(nc), Some(cnonce), true) = (&credentials.nc, &credentials.cnonce, right_kind) else {
            return Verdict::Bad;
        };
        let stored = if credentials.username.contains('@') { &secret.ha1b } else { &secret.ha1 };
        let computed;
        let ha1 = if !stored.is_empty() {
            stored
        } else if !secret.password.is_empty() {
            computed = ha1(&credentials.username, &credentials.realm, &secret.password);
            &computed
        } else {
            return Verdict::Bad;
        };
        let (method, uri) = (method, credentials.uri.as_bytes());
        let wanted = response(
            Algorithm::Md5,
            &ha1.to_ascii_lowercase(),
            method,
            uri,
            &credentials.nonce,
            Some((nc, cnonce)),
        );
        let given = credentials.response.to_ascii_lowercase();
        if !bool::from(wanted.as_bytes().ct_eq(given.as_bytes())) {
            return Verdict::Bad;
        }
        match self.nonce_state(now, credentials) {
            NonceState::Fresh => {}
            // A count that was used: whoever knows the password may try again with another nonce.
            NonceState::Stale | NonceState::Replayed => return Verdict::Stale,
            NonceState::Foreign => return Verdict::Bad,
        }
        if let (Some(nonce), Some(count)) = (self.read(&credentials.nonce), count(credentials)) {
            self.remember(now, &nonce, count);
        }
        Verdict::Good
    }

    fn remember(&mut self, now: Instant, nonce: &Nonce, count: u32) {
        let expires = nonce.minted + self.lifetime;
        let seen = self.seen.entry(nonce.serial).or_insert(Seen { highest: 0, window: 0, expires });
        seen.use_up(count);
        // Serial numbers are in the order of minting, so the first is the first to expire.
        while let Some(entry) = self.seen.first_entry() {
            if entry.get().expires <= now {
                entry.remove();
            } else if self.seen.len() > limits::NONCES {
                if let Some((serial, _)) = self.seen.pop_first() {
                    self.forgotten = self.forgotten.max(serial);
                }
            } else {
                break;
            }
        }
    }
}

impl Seen {
    fn admits(&self, count: u32) -> bool {
        match self.highest.checked_sub(count) {
            None => true,
            Some(lag) => lag < WINDOW && self.window & (1 << lag) == 0,
        }
    }

    fn use_up(&mut self, count: u32) {
        if count > self.highest {
            self.window = self.window.checked_shl(count - self.highest).unwrap_or(0) | 1;
            self.highest = count;
        } else {
            self.window |= 1u64.checked_shl(self.highest - count).unwrap_or(0);
        }
    }
}

/// The nonce count: eight hexadecimal digits, not 0. (Some clients give fewer digits; that does no harm.)
fn count(credentials: &Credentials) -> Option<u32> {
    let nc = credentials.nc.as_deref()?;
    if nc.len() > 8 || !nc.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(nc, 16).ok().filter(|&count| count > 0)
}

/// Clients put the Request-URI with other parameters, or none, into `uri`: user and host are what must agree.
fn same_target(request_uri: &[u8], uri: &[u8]) -> bool {
    match (Uri::parse(request_uri).map(|u| u.aor()), Uri::parse(uri).map(|u| u.aor())) {
        (Ok(Some(a)), Ok(Some(b))) => a == b,
        _ => request_uri == uri,
    }
}

/// A challenge as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub realm: String,
    pub nonce: String,
    pub algorithm: Algorithm,
    pub stale: bool,
    opaque: Option<String>,
    qop: bool,
}

impl Challenge {
    /// Reads one header value; None where it is not Digest, or asks for an algorithm or a qop that we don't have.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (mut realm, mut nonce, mut opaque) = (None, None, None);
        let (mut algorithm, mut stale, mut qop) = (Algorithm::Md5, false, false);
        for (name, value) in parameters(value)? {
            match name.as_str() {
                "realm" => realm = Some(value),
                "nonce" => nonce = Some(value),
                "opaque" => opaque = Some(value),
                "algorithm" => algorithm = Algorithm::parse(&value)?,
                "stale" => stale = value.eq_ignore_ascii_case("true"),
                "qop" => {
                    qop = value.split(',').any(|q| q.trim().eq_ignore_ascii_case("auth")).then_some(true)?
                }
                _ => {}
            }
        }
        Some(Challenge { realm: realm?, nonce: nonce?, algorithm, stale, opaque, qop })
    }

    /// The first challenge of a 401 or 407 that we can answer, and the header that takes the answer.
    pub fn of(response: &Message<'_>) -> Option<(&'static str, Self)> {
        [(Name::WwwAuthenticate, "Authorization"), (Name::ProxyAuthenticate, "Proxy-Authorization")]
            .into_iter()
            .flat_map(|(name, answer)| {
                response.headers(name).take(limits::AUTH_HEADERS).map(move |h| (answer, h))
            })
            .find_map(|(answer, header)| Some((answer, Self::parse(header.value)?)))
    }

    /// The value of Authorization or Proxy-Authorization. `count`: 1 for the first use of this nonce, then one more each time;
    /// `cnonce`: a new random token.
    pub fn answer(
        &self,
        user: &str,
        password: &str,
        method: &str,
        uri: &str,
        count: u32,
        cnonce: &str,
    ) -> String {
        let ha1 = self.algorithm.hash(&[user.as_bytes(), self.realm.as_bytes(), password.as_bytes()]);
        let nc = format!("{count:08x}");
        let qop = self.qop.then_some((nc.as_str(), cnonce));
        let response = response(self.algorithm, &ha1, method.as_bytes(), uri.as_bytes(), &self.nonce, qop);
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut out = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", response=\"{response}\", algorithm={}",
            quoted(user),
            quoted(&self.realm),
            quoted(&self.nonce),
            self.algorithm.as_str()
        );
        if let Some(opaque) = &self.opaque {
            let _ = write!(out, ", opaque=\"{}\"", quoted(opaque));
        }
        if self.qop {
            let _ = write!(out, ", qop=auth, nc={nc}, cnonce=\"{cnonce}\"");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(1_000_000);
    const URI: &str = "sip:example.com";

    fn checker() -> Checker {
        Checker::new(Keys::new(&["a key for the nonces, long"]).unwrap(), 1, 77, Duration::from_secs(300))
    }

    fn alice() -> Secret {
        secret("alice", "example.com", "example.com", "wonder")
    }

    fn answer(challenge: &str, user: &str, password: &str, count: u32) -> Credentials {
        let challenge = Challenge::parse(challenge.as_bytes()).unwrap();
        Credentials::parse(challenge.answer(user, password, "REGISTER", URI, count, "cn").as_bytes()).unwrap()
    }

    fn judge(checker: &mut Checker, now: Instant, credentials: &Credentials) -> Verdict {
        checker.judge(now, credentials, b"REGISTER", Some(b"sip:example.com;transport=tcp"), &alice())
    }

    /// RFC 7616 §3.9.1, both algorithms.
    #[test]
    fn computes_the_rfcs_example() {
        for (algorithm, wanted) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let ha1 = algorithm.hash(&[b"Mufasa", b"http-auth@example.org", b"Circle of Life"]);
            let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let got =
                response(algorithm, &ha1, b"GET", b"/dir/index.html", nonce, Some(("00000001", cnonce)));
            assert_eq!(got, wanted);
        }
        // RFC 2617 §3.5.
        let ha1 = ha1("Mufasa", "testrealm@host.com", "Circle Of Life");
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let got =
            response(Algorithm::Md5, &ha1, b"GET", b"/dir/index.html", nonce, Some(("00000001", "0a4f113b")));
        assert_eq!(got, "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn lets_in_who_knows_the_password_once_for_each_count() {
        let mut c = checker();
        let challenge = c.challenge(NOW, "example.com", false);
        let first = answer(&challenge, "alice", "wonder", 1);
        assert_eq!(c.nonce_state(NOW, &first), NonceState::Fresh);
        assert_eq!(judge(&mut c, NOW, &first), Verdict::Good);
        assert_eq!(c.nonce_state(NOW, &first), NonceState::Replayed);
        assert_eq!(judge(&mut c, NOW, &first), Verdict::Stale);
        // Out of order within the window, and each but once.
        for count in [5, 3, 4, 100, 37, 2_000_000_000] {
            let one = answer(&challenge, "alice", "wonder", count);
            assert_eq!(judge(&mut c, NOW, &one), Verdict::Good, "{count}");
            assert_eq!(judge(&mut c, NOW, &one), Verdict::Stale, "{count}");
        }
        assert_eq!(judge(&mut c, NOW, &answer(&challenge, "alice", "wonder", 101)), Verdict::Stale);
    }

    #[test]
    fn a_wrong_one_uses_nothing_up() {
        let mut c = checker();
        let challenge = c.challenge(NOW, "example.com", false);
        assert_eq!(judge(&mut c, NOW, &answer(&challenge, "alice", "wrong", 1)), Verdict::Bad);
        assert_eq!(judge(&mut c, NOW, &answer(&challenge, "alice", "wonder", 1)), Verdict::Good);
        let mut other = answer(&challenge, "alice", "wonder", 2);
        other.uri = "sip:other.example.com".to_owned();
        assert_eq!(judge(&mut c, NOW, &other), Verdict::Bad);
    }

    #[test]
    fn takes_the_name_with_the_domain_and_plain_passwords() {
        let mut c = checker();
        let challenge = c.challenge(NOW, "example.com", false);
        let long = answer(&challenge, "alice@example.com", "wonder", 1);
        assert!(long.belong_to("alice", "EXAMPLE.com") && !long.belong_to("alice", "example.org"));
        assert_eq!(long.user(), "alice");
        assert_eq!(judge(&mut c, NOW, &long), Verdict::Good);
        let plain = Secret { password: "wonder".to_owned(), ..Secret::default() };
        let short = answer(&challenge, "alice", "wonder", 2);
        assert_eq!(c.judge(NOW, &short, b"REGISTER", None, &plain), Verdict::Good);
        let third = answer(&challenge, "alice", "", 3);
        assert_eq!(c.judge(NOW, &third, b"REGISTER", None, &Secret::default()), Verdict::Bad);
    }

    #[test]
    fn old_and_foreign_nonces() {
        let mut c = checker();
        let challenge = c.challenge(NOW, "example.com", false);
        let one = answer(&challenge, "alice", "wonder", 1);
        let late = Instant::from_secs(1_000_300);
        assert_eq!(c.nonce_state(late, &one), NonceState::Stale);
        assert_eq!(judge(&mut c, late, &one), Verdict::Stale);
        // The worker beside us, and our predecessor, minted theirs under the same keys.
        for (worker, epoch) in [(2, 77), (1, 78)] {
            let mut other = checker();
            (other.worker, other.epoch) = (worker, epoch);
            assert_eq!(judge(&mut other, NOW, &one), Verdict::Stale);
        }
        let mut foreign = one.clone();
        foreign.nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcC".to_owned();
        assert_eq!(c.nonce_state(NOW, &foreign), NonceState::Foreign);
        assert!(c.challenge(NOW, "a\"b", true).ends_with(", qop=\"auth\", stale=true"));
    }

    #[test]
    fn what_was_forgotten_is_not_replayed() {
        let mut c = checker();
        let challenges: Vec<String> =
            (0..limits::NONCES + 2).map(|_| c.challenge(NOW, "example.com", false)).collect();
        let first = answer(&challenges[0], "alice", "wonder", 1);
        for challenge in &challenges[..limits::NONCES + 1] {
            let nonce = c.read(&Challenge::parse(challenge.as_bytes()).unwrap().nonce).unwrap();
            c.remember(NOW, &nonce, 1);
        }
        assert_eq!(c.seen.len(), limits::NONCES);
        assert_eq!(judge(&mut c, NOW, &first), Verdict::Stale);
        assert_eq!(
            judge(&mut c, NOW, &answer(&challenges[limits::NONCES + 1], "alice", "wonder", 1)),
            Verdict::Good
        );
        let later = c.challenge(Instant::from_secs(1_000_301), "example.com", false);
        assert_eq!(
            judge(&mut c, Instant::from_secs(1_000_301), &answer(&later, "alice", "wonder", 1)),
            Verdict::Good
        );
        assert_eq!(c.seen.len(), 1);
    }

    #[test]
    fn reads_what_is_no_digest_as_none() {
        for value in ["", "Basic YTpi", "Digest", "Digest username=\"a\"", "NoOneKnows a=b", "DigestX a=b"] {
            assert!(Credentials::parse(value.as_bytes()).is_none(), "{value}");
        }
        assert!(Challenge::parse(b"Digest realm=\"a\", nonce=\"b\", algorithm=SHA-512").is_none());
        assert!(Challenge::parse(b"Digest realm=\"a\", nonce=\"b\", qop=\"auth-int\"").is_none());
    }
}
