//! NOTIFY requests: what is written, and where they go.
//!
//! RFC 6665 §4.2.2, RFC 3261 §12.2.1.1 (route set, remote target, CSeq). Goes in: a subscription and a document. Comes out: the
//! bytes of a NOTIFY, and its next hop. Not here: when one is sent, and what its answer does (`mod.rs`).

use super::config::Config;
use super::request;
use crate::flow::{Flow, Listener, ServerKey, Target, Transport};
use crate::sip::{List, NameAddr, Scheme, Uri, build};
use crate::store::presence::Subscription;
use crate::time::Instant;
use std::net::SocketAddr;

/// Why a subscription ends (RFC 6665 §4.1.3); the value of `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its time is over, or its watcher ended it.
    Timeout,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Timeout => "timeout",
        }
    }
}

/// The first hop of a NOTIFY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    Target(Target),
    /// To be looked up first.
    Host {
        host: String,
        port: u16,
        transport: Transport,
    },
    /// There is no listener for it, or no address in it.
    Nowhere(&'static str),
}

/// Request-URI, values of Route, and where it goes: along the route set, else to the remote target. `flow` is the
/// connection on which the watcher himself is, while it lives.
pub(super) struct Way {
    pub uri: String,
    pub routes: Vec<String>,
    pub hop: Hop,
}

pub(super) fn way(config: &Config, row: &Subscription, flow: Option<Flow>) -> Way {
    // With a route set, an alias is a proxy's, and means something to it alone.
    let (target, alias) = match &row.record_route {
        Some(_) => (row.contact.clone(), None),
        None => request::without_alias(&row.contact),
    };
    let mut routes: Vec<String> = match &row.record_route {
        Some(values) => {
            List::new(values.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
        }
        None => Vec::new(),
    };
    let mut uri = target;
    let next = match routes.first().map(|first| NameAddr::parse(first.as_bytes())) {
        Some(Ok(first)) => {
            let next = String::from_utf8_lossy(first.uri.as_bytes()).into_owned();
            if !first.uri.is_loose() {
                // §12.2.1.1: a strict router wants its own URI in the request line, and the target last.
                routes.remove(0);
                routes.push(format!("<{uri}>"));
                uri.clone_from(&next);
            }
            next
        }
        Some(Err(_)) => return Way { uri, routes, hop: Hop::Nowhere("its Record-Route cannot be read") },
        None => match (flow, alias) {
            (Some(flow), _) => return Way { uri, routes, hop: Hop::Target(Target::Flow(flow)) },
            (None, Some((remote, transport))) => {
                let hop = address(config, row, transport, remote);
                return Way { uri, routes, hop };
            }
            (None, None) => uri.clone(),
        },
    };
    let hop = match Uri::parse(next.as_bytes()) {
        Ok(parsed) if parsed.is_sip() => {
            let transport = match parsed.transport() {
                Some(transport) => transport,
                None if parsed.scheme == Scheme::Sips => Transport::Tls,
                None => Transport::Udp,
            };
            let port = parsed.port.unwrap_or(transport.default_port());
            match parsed.ip() {
                Some(ip) => address(config, row, transport, SocketAddr::new(ip, port)),
                None => Hop::Host { host: parsed.host.to_owned(), port, transport },
            }
        }
        _ => Hop::Nowhere("its target is no SIP address"),
    };
    Way { uri, routes, hop }
}

/// From the listener that the SUBSCRIBE came in on where its transport fits, else from the first that does.
pub(super) fn address(config: &Config, row: &Subscription, transport: Transport, remote: SocketAddr) -> Hop {
    let fits = |listener: &&Listener| {
        listener.transport == transport && listener.local.is_ipv4() == remote.is_ipv4()
    };
    let own = |listener: &&Listener| format!("{}:{}", listener.transport, listener.local) == row.socket;
    let mut fitting = config.listeners.iter().filter(fits);
    match config.listeners.iter().filter(fits).find(own).or_else(|| fitting.next()) {
        Some(listener) => {
            let server = ServerKey::ADDRESS;
            Hop::Target(Target::Address { listener: listener.id, transport, remote, server })
        }
        None => Hop::Nowhere("there is no --listen of its transport"),
    }
}

/// One NOTIFY. `document`: its content type and body.
pub(super) struct Notify<'a> {
    pub row: &'a Subscription,
    pub uri: &'a str,
    pub routes: &'a [String],
    pub listener: &'a Listener,
    /// Whom it goes to.
    pub remote: SocketAddr,
    pub branch: &'a str,
    pub ending: Option<Reason>,
    pub document: Option<(&'a str, Vec<u8>)>,
}

impl Notify<'_> {
    pub fn write(&self, now: Instant) -> Vec<u8> {
        let row = self.row;
        let (host, port) = self.listener.told(self.remote.ip());
        let transport = self.listener.transport.via();
        let via = format!("SIP/2.0/{transport} {host}:{port};branch={};rport", self.branch);
        let from = format!("<sip:{}>;tag={}", row.to, row.key.local_tag);
        let to = format!("<sip:{}>;tag={}", row.watcher, row.key.remote_tag);
        let cseq = format!("{} NOTIFY", row.local_cseq);
        let contact = format!("<{}>", row.local_contact);
        let event = match &row.event_id {
            Some(id) => format!("{};id={id}", row.package),
            None => row.package.to_string(),
        };
        let state = match self.ending {
            Some(reason) => format!("terminated;reason={}", reason.as_str()),
            // Rounded up: one that lives is never told as 0.
            None => format!(
                "active;expires={}",
                row.expires.saturating_since(now).as_micros().div_ceil(1_000_000)
            ),
        };
        let mut headers: Vec<(&str, &str)> = vec![("Via", &via), ("Max-Forwards", "70")];
        headers.extend(self.routes.iter().map(|route| ("Route", route.as_str())));
        headers.extend([
            ("From", from.as_str()),
            ("To", &to),
            ("Call-ID", &row.key.call_id),
            ("CSeq", &cseq),
            ("Contact", &contact),
            ("Event", &event),
            ("Subscription-State", &state),
        ]);
        let body: &[u8] = match &self.document {
            Some((kind, body)) => {
                headers.push(("Content-Type", kind));
                body
            }
            None => b"",
        };
        build::request("NOTIFY", self.uri, &headers, body)
    }
}
