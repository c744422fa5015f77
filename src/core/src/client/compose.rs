//! Requests of ours, written by way of rsip's typed values.
//!
//! RFC 3261 §7.1, §8.1.1. Goes in: method, Request-URI, headers in order, body. Comes out: bytes, the same as
//! [`build::request`] would write. Each value becomes rsip's typed value where that writes it again byte for byte, so
//! another reader than our own has understood what we send. What rsip cannot carry without loss stays with our own writer:
//!
//! - a request whose method or Request-URI it does not take or misreads: IPv6 hosts, `tel:`, a `;transport=` (it writes
//!   the value in capitals), headers in the URI, a user with a dot (the whole is a host to it);
//! - a header, as plain text, for the same reasons, and a display name with quoted pairs where an address could begin, a
//!   Via with an IPv6 host, several values in one header, answers to challenges (it knows MD5 alone);
//! - a body, always: it would write one that is not UTF-8 with replacement characters.
//!
//! rsip's defaults draw random numbers (branches, tags, Call-IDs): none of them is used here. Not here: what goes into a
//! request (`outgoing`, `watch`).

use crate::sip::{self, NameAddr, build};
use rsip::headers::{self, UntypedHeader};
use rsip::{Header, Headers, Method, Uri, Version, typed};
use std::fmt::Display;

/// A request: the start-line, `headers` in order, Content-Length, and the body.
pub(super) fn request(method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let Some(request) = values(method, uri, headers, body.len()) else {
        return build::request(method, uri, headers, body);
    };
    let rsip::Request { method, uri, version, headers, .. } = request;
    let mut out = format!("{method} {uri} {version}\r\n{headers}\r\n").into_bytes();
    out.extend_from_slice(body);
    out
}

/// The request without its body; None where its start-line is not rsip's to write.
fn values(method: &str, uri: &str, headers: &[(&str, &str)], length: usize) -> Option<rsip::Request> {
    let method = method.parse().ok().filter(|parsed: &Method| parsed.to_string() == method)?;
    // rsip takes anything at all for a host, line ends and dotted users too: it has to be the one that we see.
    let host = sip::Uri::parse(uri.as_bytes()).ok()?.host;
    let uri = Uri::try_from(uri)
        .ok()
        .filter(|parsed| parsed.to_string() == uri && parsed.host().to_string() == host)?;
    let mut all: Vec<Header> =
        headers.iter().map(|(name, value)| header(&one_line(name), &one_line(value))).collect();
    all.push(headers::ContentLength::new(length.to_string()).into());
    Some(rsip::Request { method, uri, version: Version::V2, headers: Headers::from(all), body: Vec::new() })
}

/// One header: typed where nothing is lost by it.
fn header(name: &str, value: &str) -> Header {
    let carried = match name {
        "Via" => carried::<typed::Via, headers::Via>(value, |_| None),
        "From" => carried::<typed::From, headers::From>(value, |own| Some(&own.uri)),
        "To" => carried::<typed::To, headers::To>(value, |own| Some(&own.uri)),
        "CSeq" => carried::<typed::CSeq, headers::CSeq>(value, |_| None),
        "Contact" => carried::<typed::Contact, headers::Contact>(value, |own| Some(&own.uri)),
        "Route" => carried::<typed::Route, headers::Route>(value, |_| None),
        "Allow" => carried::<typed::Allow, headers::Allow>(value, |_| None),
        "Accept" => carried::<typed::Accept, headers::Accept>(value, |_| None),
        "Content-Type" => carried::<typed::ContentType, headers::ContentType>(value, |_| None),
        // Of these rsip has a name and no more.
        "Call-ID" => Some(headers::CallId::new(value).into()),
        "Max-Forwards" => Some(headers::MaxForwards::new(value).into()),
        "Expires" => Some(headers::Expires::new(value).into()),
        "Event" => Some(headers::Event::new(value).into()),
        "Supported" => Some(headers::Supported::new(value).into()),
        "User-Agent" => Some(headers::UserAgent::new(value).into()),
        _ => None,
    };
    carried
        .filter(|header| header.to_string() == format!("{name}: {value}"))
        .unwrap_or_else(|| Header::Other(name.to_owned(), value.to_owned()))
}

/// `uri`: the address in it, where rsip has one.
fn carried<T, U>(value: &str, uri: impl Fn(&T) -> Option<&Uri>) -> Option<Header>
where
    U: for<'a> UntypedHeader<'a>,
    T: TryFrom<U> + Display + Into<Header>,
{
    let typed = T::try_from(U::new(value)).ok()?;
    let understood = uri(&typed).is_none_or(|uri| {
        NameAddr::parse(value.as_bytes()).is_ok_and(|own| own.uri.host == uri.host().to_string())
    });
    (understood && typed.to_string() == value).then(|| typed.into())
}

/// A value of a peer's may hold line ends, which must not make headers of it.
fn one_line(value: &str) -> String {
    value.replace(['\r', '\n', '\0'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADERS: &[(&str, &str)] = &[
        ("Via", "SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bKa"),
        ("Max-Forwards", "70"),
        ("Route", "<sip:192.0.2.2;lr>"),
        ("From", "<sip:alice@example.com>;tag=1"),
        ("To", "\"Bob\" <sip:bob@example.com>"),
        ("Call-ID", "a"),
        ("CSeq", "1 REGISTER"),
        ("Contact", "<sip:alice@192.0.2.1:5060>;expires=600"),
        ("Expires", "600"),
        ("Supported", "path, outbound, gruu"),
        ("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE"),
        ("Content-Type", "application/sdp"),
        ("User-Agent", "test"),
    ];

    /// Names of what went as plain text.
    fn plain(headers: &[(&str, &str)]) -> Vec<String> {
        let values = values("REGISTER", "sip:example.com", headers, 0).expect("a request of rsip's");
        let plain = values.headers.iter().filter_map(|header| match header {
            Header::Other(name, _) => Some(name.clone()),
            _ => None,
        });
        plain.collect()
    }

    #[test]
    fn what_we_send_is_typed() {
        assert_eq!(plain(HEADERS), Vec::<String>::new());
        let whole = request("REGISTER", "sip:example.com", HEADERS, b"\xff");
        assert_eq!(whole, build::request("REGISTER", "sip:example.com", HEADERS, b"\xff"));
    }

    #[test]
    fn what_would_be_changed_is_not() {
        for (name, value) in [
            ("Contact", "<sip:alice@a.invalid;transport=ws>"),
            ("To", "<sip:a.b@example.com>"),
            ("Via", "SIP/2.0/UDP [2001:db8::1];branch=z9hG4bKa"),
            ("From", "\"Bell, \\\"Al\\\" <x>;\" <sip:alice@example.com>;tag=1"),
            ("Route", "<sip:a.example.com;transport=tcp;lr>"),
            ("Authorization", "Digest username=\"a\", algorithm=SHA-256"),
        ] {
            assert_eq!(plain(&[(name, value)]), [name], "{value}");
        }
        for uri in [
            "sip:a@[2001:db8::1]",
            "tel:+1",
            "sip:a@b;transport=ws",
            "sip:a@b?Subject=x",
            "sip:a b",
            "sip:a.b@c",
        ] {
            assert!(values("INVITE", uri, &[], 0).is_none(), "{uri}");
        }
        assert!(values("FOO", "sip:a@b", &[], 0).is_none());
        assert!(values("invite", "sip:a@b", &[], 0).is_none());
    }

    fn name() -> impl Strategy<Value = String> {
        let known = HEADERS.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        prop_oneof![4 => proptest::sample::select(known), 1 => "[A-Z][a-z-]{0,8}"]
    }

    /// Values of ours with something else in their middle, and anything.
    fn value() -> impl Strategy<Value = String> {
        let known = HEADERS.iter().map(|(_, value)| (*value).to_owned()).collect::<Vec<_>>();
        let spoilt = (proptest::sample::select(known), any::<prop::sample::Index>(), "[ -~\r\n\0é]{0,3}");
        prop_oneof![
            4 => spoilt.prop_map(|(value, at, more)| {
                let at = at.index(value.len() + 1);
                format!("{}{more}{}", &value[..at], &value[at..])
            }),
            1 => "\\PC{0,20}",
        ]
    }

    proptest! {
        /// Whatever is in it, the bytes are those of our own writer.
        #[test]
        fn nothing_is_lost(
            method in prop_oneof!["INVITE", "REGISTER", "[A-Za-z]{1,8}"],
            uri in prop_oneof!["sips?:[a-z]{1,4}@[a-z0-9.]{1,9}(:[0-9]{1,5})?(;[a-z]{1,4}(=[A-Za-z0-9]{1,3})?){0,2}", value()],
            headers in prop::collection::vec((name(), value()), 0..6),
            body in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(
                request(&method, &uri, &headers, &body),
                build::request(&method, &uri, &headers, &body)
            );
        }
    }
}
