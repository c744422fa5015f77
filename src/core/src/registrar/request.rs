//! What a REGISTER asks for: its contacts as rows of `location`.
//!
//! RFC 3261 §10.3 steps 6 and 7, RFC 3327 §5.3, RFC 5626 §6. Goes in: a request that is allowed to change its
//! address-of-record. Comes out: an [`Order`], or the answer that refuses it. Not here: whether it is allowed (`mod.rs`), and
//! what the rows that are there already have to say (`store::plan`).

use super::config::Config;
use crate::auth::{FlowToken, flow_token};
use crate::cidr::Cidr;
use crate::flow::Flow;
use crate::sip::uri::Aor;
use crate::sip::{self, Message, Name, NameAddr, Uri, unquote};
use crate::store::{self, Binding, Contacts};
use crate::time::Instant;
use std::net::SocketAddr;
use std::time::Duration;

/// Widths of Kamailio's columns; a longer value would be cut by some databases, and refused by others.
const CONTACT: usize = 512;
const PATH: usize = 512;
const CALL_ID: usize = 255;
const INSTANCE: usize = 255;
const USER_AGENT: usize = 255;
/// Kamailio's usual flag for a client behind NAT, in `cflags`.
const NAT: u32 = 1 << 6;

/// What is wanted.
#[derive(Debug, PartialEq)]
pub(super) enum Order {
    /// No Contact: the list of bindings.
    Fetch,
    Change(Contacts),
}

/// A refusal: status, and the header that goes with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct No {
    pub status: u16,
    pub reason: Option<&'static str>,
    pub header: Option<(&'static str, String)>,
}

pub(super) const fn no(status: u16, reason: Option<&'static str>) -> No {
    No { status, reason, header: None }
}

/// Where the client really is, and the way to him.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    pub token: Option<FlowToken>,
    /// His own address: of the TOKEN, else of the packet where he sent it himself.
    pub address: Option<SocketAddr>,
    /// In Kamailio's form.
    pub received: Option<String>,
    /// Path as it is to be stored: empty where it is not believed.
    pub path: String,
}

/// Reads Path and the packet's source. A TOKEN is believed where it verifies and names this very client, whoever brings
/// it; everything else that is said about a client is believed of our own edges only.
pub(super) fn source(config: &Config, message: &Message<'_>, flow: &Flow, aor: &Aor) -> Source {
    let edge = Cidr::any(&config.edge, flow.remote.ip());
    let host = message.contacts().find_map(|c| c.ok().map(|c| c.uri.host)).unwrap_or_default();
    let client = flow_token::client_hash(aor, host);
    let token = message
        .addresses(Name::Path)
        .filter_map(Result::ok)
        .filter_map(|hop| FlowToken::verify_path(hop.uri.user?, &config.keys))
        .last()
        .filter(|token| edge || token.client == client);
    let mut path = String::new();
    if edge || token.is_some() {
        for value in message.values(Name::Path) {
            if !path.is_empty() {
                path.push_str(", ");
            }
            path.push_str(&String::from_utf8_lossy(&sip::unfold(value)));
        }
    }
    let direct = message.vias().count() == 1;
    let (address, received) = match token {
        Some(token) => (Some(token.remote), Some(kamailio_uri(token.transport.uri_param(), token.remote))),
        None if edge => {
            // A foreign edge of ours says it in Kamailio's form, in the parameter `received` of its Path.
            let told = message
                .addresses(Name::Path)
                .filter_map(Result::ok)
                .filter_map(|hop| {
                    let said = hop.params.get("received").or(hop.uri.params.get("received"))?;
                    String::from_utf8(unescape(&unquote(said))).ok()
                })
                .last()
                .filter(|said| Uri::parse(said.as_bytes()).is_ok_and(|uri| uri.ip().is_some()));
            let address = told.as_deref().and_then(|said| {
                let uri = Uri::parse(said.as_bytes()).ok()?;
                Some(SocketAddr::new(uri.ip()?, uri.port.unwrap_or(5060)))
            });
            match told {
                Some(_) => (address, told),
                None if direct && path.is_empty() => packet(flow),
                None => (None, None),
            }
        }
        None if direct => packet(flow),
        None => (None, None),
    };
    Source { token, address, received, path }
}

fn packet(flow: &Flow) -> (Option<SocketAddr>, Option<String>) {
    (Some(flow.remote), Some(kamailio_uri(flow.transport.uri_param(), flow.remote)))
}

fn kamailio_uri(transport: &str, address: SocketAddr) -> String {
    match transport {
        "udp" => format!("sip:{address}"),
        _ => format!("sip:{address};transport={transport}"),
    }
}

/// %HH to bytes, for a URI inside of a parameter.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = match (byte, tail) {
            (b'%', [high, low, ..]) => {
                (*high as char).to_digit(16).zip((*low as char).to_digit(16)).map(|(h, l)| (h * 16 + l) as u8)
            }
            _ => None,
        };
        match code {
            Some(code) => {
                out.push(code);
                rest = &tail[2..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// Whether every contact is to be removed (the form of a lost flow's REGISTER).
pub(super) fn only_removes(message: &Message<'_>) -> bool {
    let zero = message.expires() == Some(0);
    let mut contacts = message.contacts().peekable();
    contacts.peek().is_some()
        && contacts.all(|contact| {
            contact.is_ok_and(|c| match c.params.get("expires") {
                Some(value) => sip::seconds(value) == 0,
                None => zero,
            })
        })
}

/// Steps 6 and 7, up to the rows.
pub(super) fn order(
    config: &Config,
    message: &Message<'_>,
    flow: &Flow,
    aor: &Aor,
    source: &Source,
    now: Instant,
) -> Result<Order, No> {
    if message.values(Name::Contact).any(|value| value == b"*") {
        // Step 6: alone, and to remove.
        if !message.contact_is_wildcard() || message.expires() != Some(0) {
            return Err(no(400, Some("Wildcard Contact Needs Expires 0")));
        }
        return Ok(Order::Change(Contacts::RemoveAll));
    }
    let call_id = match message.call_id() {
        Some(id) if id.len() <= CALL_ID => String::from_utf8_lossy(id).into_owned(),
        _ => return Err(no(400, Some("Call-ID Too Long"))),
    };
    let Ok((cseq, _)) = message.cseq() else { return Err(no(400, None)) };
    if source.path.len() > PATH {
        return Err(no(400, Some("Path Too Long")));
    }
    let outbound = message.has_token(Name::Supported, "outbound");
    let user_agent = message.header(Name::UserAgent).map(text).unwrap_or_default();
    let methods = message.header(Name::Allow).map(|_| methods(message));
    let socket = config
        .listeners
        .iter()
        .find(|listener| listener.id == flow.listener)
        .map(|listener| format!("{}:{}", listener.transport, listener.local));
    let mut rows = Vec::new();
    for contact in message.contacts() {
        let Ok(contact) = contact else { return Err(no(400, Some("Malformed Contact"))) };
        if rows.len() == config.max_contacts {
            return Err(no(403, Some("Too Many Contacts")));
        }
        let Ok(uri) = std::str::from_utf8(contact.uri.as_bytes()) else {
            return Err(no(400, Some("Malformed Contact")));
        };
        if uri.len() > CONTACT {
            return Err(no(400, Some("Contact Too Long")));
        }
        let asked = match contact.params.get("expires") {
            Some(value) => sip::seconds(value),
            None => message.expires().unwrap_or(config.default_expires),
        };
        if asked > 0 && asked < config.min_expires {
            let header = Some(("Min-Expires", config.min_expires.to_string()));
            return Err(No { status: 423, reason: None, header });
        }
        let lives = Duration::from_secs(u64::from(asked.min(config.max_expires)));
        let instance = instance(&contact);
        // RFC 5626 §6: a reg-id counts only beside an instance, from a client that knows outbound.
        let reg_id = match instance {
            Some(_) if outbound => contact.params.get_str("reg-id").and_then(|n| n.parse().ok()).unwrap_or(0),
            _ => 0,
        };
        let behind_nat = source.address.is_some_and(|address| contact.uri.ip() != Some(address.ip()));
        rows.push(Binding {
            ruid: store::ruid(aor, instance.as_deref(), reg_id, uri),
            contact: uri.to_owned(),
            received: source.received.clone(),
            path: (!source.path.is_empty()).then(|| source.path.clone()),
            expires: now + lives,
            q: contact.params.get("q").and_then(q_value),
            call_id: call_id.clone(),
            cseq,
            modified: now,
            cflags: if behind_nat { NAT } else { 0 },
            user_agent: cut(&user_agent, USER_AGENT),
            socket: socket.clone(),
            methods,
            instance,
            reg_id,
        });
    }
    if rows.is_empty() {
        return Ok(Order::Fetch);
    }
    Ok(Order::Change(Contacts::Each(rows)))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(&sip::unfold(value)).into_owned()
}

fn cut(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text[..end].to_owned()
}

fn instance(contact: &NameAddr<'_>) -> Option<String> {
    let value = unquote(contact.params.get("+sip.instance")?).into_owned();
    String::from_utf8(value).ok().filter(|text| !text.is_empty() && text.len() <= INSTANCE)
}

/// `0`, `1`, or a fraction with up to three digits, in thousandths.
fn q_value(value: &[u8]) -> Option<u16> {
    let (whole, fraction) = match value.iter().position(|&b| b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &value[value.len()..]),
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let thousandths =
        (0..3).fold(0u16, |sum, i| sum * 10 + u16::from(fraction.get(i).map_or(0, |d| d - b'0')));
    match whole {
        b"0" => Some(thousandths),
        b"1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Kamailio's bits.
fn methods(message: &Message<'_>) -> u32 {
    const BITS: [&[u8]; 14] = [
        b"INVITE",
        b"CANCEL",
        b"ACK",
        b"BYE",
        b"INFO",
        b"REGISTER",
        b"SUBSCRIBE",
        b"NOTIFY",
        b"MESSAGE",
        b"OPTIONS",
        b"PRACK",
        b"UPDATE",
        b"REFER",
        b"PUBLISH",
    ];
    message
        .values(Name::Allow)
        .filter_map(|method| BITS.iter().position(|known| *known == method))
        .fold(0, |bits, bit| bits | 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_q() {
        for (text, q) in [("1", 1000), ("1.000", 1000), ("0.7", 700), ("0.125", 125), ("0", 0), ("0.", 0)] {
            assert_eq!(q_value(text.as_bytes()), Some(q), "{text}");
        }
        for text in ["", "1.1", "2", "0.1234", ".5", "-1", "0.x"] {
            assert_eq!(q_value(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn unescapes() {
        assert_eq!(unescape(b"sip:192.0.2.1%3Btransport%3dws%"), b"sip:192.0.2.1;transport=ws%");
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("abc", 9), "abc");
    }
}
