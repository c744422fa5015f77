//! What a SUBSCRIBE or a PUBLISH asks for, as values.
//!
//! RFC 6665 §4.2.1 (notifiers), RFC 3903 §6, RFC 3856, RFC 4235. Goes in: a request. Comes out: what it wants, or the answer that
//! refuses it. Not here: whether its sender may (`mod.rs`), what is there already (store).

use super::config::Config;
use super::document;
use crate::flow::{Flow, Transport};
use crate::limits;
use crate::sip::{self, Aor, Message, Name, Uri};
use crate::store::presence::{DialogKey, Package, Subscription};
use crate::time::Instant;
use std::net::SocketAddr;
use std::time::Duration;

/// Widths of Kamailio's columns; a longer value would be cut by some databases, and refused by others.
const USER: usize = 64;
const URI: usize = 255;
const TAG: usize = 128;
const CALL_ID: usize = 255;
const EVENT_ID: usize = 64;
const USER_AGENT: usize = 255;
/// Without Expires (RFC 3856 §6.4, RFC 4235 §3.4).
const DEFAULT_EXPIRES: u32 = 3600;
/// A shorter time than this may be refused as too brief, a longer one never (RFC 6665 §4.2.1.1).
const HOUR: u32 = 3600;

/// A refusal: status, reason, and the header that goes with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct No {
    pub status: u16,
    pub reason: Option<String>,
    pub header: Option<(&'static str, String)>,
}

pub(super) const fn no(status: u16) -> No {
    No { status, reason: None, header: None }
}

pub(super) fn because(status: u16, reason: impl Into<String>) -> No {
    No { status, reason: Some(reason.into()), header: None }
}

/// The packages that we serve, for Allow-Events.
pub(super) const EVENTS: &str = "presence, dialog";

/// The package in Event, and its parameter `id`.
pub(super) fn event(message: &Message<'_>) -> Result<(Package, Option<String>), No> {
    let bad = || No { status: 489, reason: None, header: Some(("Allow-Events", EVENTS.to_owned())) };
    let value = message.valued(Name::Event).ok_or_else(bad)?;
    let package = Package::parse(value.value).ok_or_else(bad)?;
    let params = value.params().map_err(|_| because(400, "Bad Event"))?;
    match params.get_str("id") {
        Some(id) if id.len() > EVENT_ID || !sip::lex::is_token(id.as_bytes()) => {
            Err(because(400, "Bad Event"))
        }
        id => Ok((package, id.map(str::to_owned))),
    }
}

/// The time that a request asks for, as it is granted; zero ends.
pub(super) fn expires(config: &Config, message: &Message<'_>) -> Result<Duration, No> {
    let asked = message.expires().unwrap_or(DEFAULT_EXPIRES.min(config.max_expires));
    if asked > 0 && asked < config.min_expires && asked < HOUR {
        let header = Some(("Min-Expires", config.min_expires.to_string()));
        return Err(No { status: 423, reason: None, header });
    }
    Ok(Duration::from_secs(u64::from(asked.min(config.max_expires))))
}

/// Whose state a request is about: its Request-URI.
pub(super) fn presentity(message: &Message<'_>) -> Result<Aor, No> {
    let aor = Uri::parse(message.request_uri()).ok().and_then(|uri| uri.aor()).ok_or(no(416))?;
    if aor.user.is_empty() || aor.user.len() > USER || aor.domain.len() > USER {
        return Err(no(404));
    }
    Ok(aor)
}

/// Whether the sender can read the package's documents (RFC 6665 §3.1.3; without Accept he can).
fn accepts(message: &Message<'_>, package: Package) -> bool {
    let mut any = false;
    for value in message.values(Name::Accept) {
        any = true;
        let kind = sip::Valued::parse(value);
        if [package.content_type(), "application/*", "*/*"].iter().any(|known| kind.is(known)) {
            return true;
        }
    }
    !any
}

/// The row of a new subscription. `from_packet`: the watcher sent it himself, so that is where he is.
pub(super) fn subscription(
    config: &Config,
    message: &Message<'_>,
    flow: &Flow,
    local_tag: &str,
    now: Instant,
) -> Result<Subscription, No> {
    let (package, event_id) = event(message)?;
    let presentity = presentity(message)?;
    if !accepts(message, package) {
        return Err(no(406));
    }
    let lives = expires(config, message)?;
    let (Ok(from), Ok(to)) = (message.from(), message.to()) else { return Err(no(400)) };
    let (Some(watcher), Some(to)) = (from.uri.aor(), to.uri.aor()) else {
        return Err(because(400, "From Or To Is No SIP Address"));
    };
    let remote_tag = from.tag().and_then(|tag| text(tag, TAG)).ok_or_else(|| because(400, "No From Tag"))?;
    let call_id =
        message.call_id().and_then(|id| text(id, CALL_ID)).ok_or_else(|| because(400, "Call-ID Too Long"))?;
    if [&watcher, &to].iter().any(|aor| aor.user.len() > USER || aor.domain.len() > USER) {
        return Err(because(400, "Address Too Long"));
    }
    let mut record_route = String::new();
    for value in message.values(Name::RecordRoute) {
        let value = std::str::from_utf8(value).map_err(|_| because(400, "Bad Record-Route"))?;
        if !record_route.is_empty() {
            record_route.push(',');
        }
        record_route.push_str(value);
    }
    if record_route.len() > limits::ROUTE_BYTES {
        return Err(because(400, "Record-Route Too Long"));
    }
    let listener = config.listeners.iter().find(|listener| listener.id == flow.listener);
    let listener = listener.or(config.listeners.first()).ok_or(no(500))?;
    let (host, port) = listener.told(flow.remote.ip());
    let mut local_contact = format!("sip:{host}:{port}");
    if listener.transport != Transport::Udp {
        local_contact.push_str(&format!(";transport={}", listener.transport.uri_param()));
    }
    Ok(Subscription {
        key: DialogKey { call_id, local_tag: local_tag.to_owned(), remote_tag },
        presentity,
        package,
        event_id,
        watcher,
        to,
        local_cseq: 0,
        remote_cseq: message.cseq().map_or(0, |(number, _)| number),
        contact: contact(message, flow)?,
        record_route: (!record_route.is_empty()).then_some(record_route),
        expires: now + lives,
        version: 0,
        socket: format!("{}:{}", listener.transport, listener.local),
        local_contact,
        user_agent: message
            .header(Name::UserAgent)
            .map(|agent| cut(&String::from_utf8_lossy(&sip::unfold(agent)), USER_AGENT))
            .unwrap_or_default(),
    })
}

/// The remote target. Where the watcher sent it himself and is somewhere else than he says (NAT), Kamailio's `alias` has it.
pub(super) fn contact(message: &Message<'_>, flow: &Flow) -> Result<String, No> {
    let contact = message.contacts().next().and_then(Result::ok).ok_or_else(|| because(400, "No Contact"))?;
    if !contact.uri.is_sip() {
        return Err(because(400, "Contact Is No SIP Address"));
    }
    let mut uri = text(contact.uri.as_bytes(), URI).ok_or_else(|| because(400, "Contact Too Long"))?;
    let direct = message.vias().count() == 1 && message.header(Name::RecordRoute).is_none();
    let named = contact
        .uri
        .ip()
        .map(|ip| SocketAddr::new(ip, contact.uri.port.unwrap_or(flow.transport.default_port())));
    if direct && named != Some(flow.remote) && contact.uri.params.get("alias").is_none() {
        let (ip, port, transport) = (flow.remote.ip(), flow.remote.port(), flow.transport.kamailio());
        uri.push_str(&format!(";alias={ip}~{port}~{transport}"));
        if uri.len() > URI {
            return Err(because(400, "Contact Too Long"));
        }
    }
    Ok(uri)
}

/// What a stored target's `alias` says, and the target without it, as it goes into a Request-URI.
pub(super) fn without_alias(target: &str) -> (String, Option<(SocketAddr, Transport)>) {
    let Some((before, behind)) = target.split_once(";alias=") else { return (target.to_owned(), None) };
    let (alias, rest) = behind.find([';', '?']).map_or((behind, ""), |at| behind.split_at(at));
    let mut parts = alias.split('~');
    let address = (|| {
        let ip = sip::uri::host_ip(parts.next()?)?;
        let port = parts.next()?.parse().ok()?;
        let transport = Transport::from_kamailio(parts.next()?.parse().ok()?)?;
        Some((SocketAddr::new(ip, port), transport))
    })();
    (format!("{before}{rest}"), address)
}

/// What a PUBLISH wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publishing {
    pub presentity: Aor,
    pub package: Package,
    pub if_match: Option<String>,
    pub body: Option<Vec<u8>>,
    pub lives: Duration,
}

/// RFC 3903 §6 steps 1 to 6. Err with the document's fault where the body is the reason.
pub(super) fn publishing(
    config: &Config,
    message: &Message<'_>,
) -> Result<Publishing, (No, Option<document::Fault>)> {
    let plain = |no| (no, None);
    let presentity = presentity(message).map_err(plain)?;
    let (package, _) = event(message).map_err(plain)?;
    let if_match = match message.header(Name::SipIfMatch) {
        Some(tag) => Some(text(tag, TAG).ok_or_else(|| plain(no(412)))?),
        None => None,
    };
    let lives = expires(config, message).map_err(plain)?;
    let body = message.body();
    if body.is_empty() || lives.is_zero() {
        if if_match.is_none() && body.is_empty() {
            return Err(plain(because(400, "Nothing To Publish")));
        }
        return Ok(Publishing { presentity, package, if_match, body: None, lives });
    }
    if !message.content_type().is_some_and(|kind| kind.is(package.content_type())) {
        let header = Some(("Accept", package.content_type().to_owned()));
        return Err(plain(No { status: 415, reason: None, header }));
    }
    if body.len() > limits::PRESENCE_BYTES {
        return Err(plain(no(413)));
    }
    if let Err(fault) = document::check(package, body) {
        // XML errors may quote the document: a reason phrase takes only what is plain.
        return Err((because(400, "Bad XML"), Some(fault)));
    }
    Ok(Publishing { presentity, package, if_match, body: Some(body.to_vec()), lives })
}

fn text(value: &[u8], most: usize) -> Option<String> {
    std::str::from_utf8(value).ok().filter(|text| text.len() <= most).map(str::to_owned)
}

fn cut(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_an_alias_off() {
        let (uri, alias) = without_alias("sip:a@10.0.0.1;alias=192.0.2.1~5062~2;ob");
        assert_eq!(uri, "sip:a@10.0.0.1;ob");
        assert_eq!(alias, Some(("192.0.2.1:5062".parse().unwrap(), Transport::Tcp)));
        assert_eq!(without_alias("sip:a@10.0.0.1;ob"), ("sip:a@10.0.0.1;ob".to_owned(), None));
        assert_eq!(without_alias("sip:a@h;alias=x~y~z").1, None);
    }
}
