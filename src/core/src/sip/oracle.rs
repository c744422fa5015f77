//! Our scanner against rsip, a parser that nobody here wrote.
//!
//! On canonical messages (RFC 3261 §25 without what rsip does not take) both must see the same: start-line, headers in
//! order, Via, URIs, names, tags, Call-ID, CSeq, body. Where they differ by rsip's doing is a list, which fails when one of them
//! changes.

use super::*;
use proptest::prelude::*;
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9.!*_+-]{1,12}"
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,6}[a-z0-9](\\.[a-z]{2,5}){0,2}",
        any::<[u8; 4]>().prop_map(|a| std::net::Ipv4Addr::from(a).to_string()),
    ]
}

fn port() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), (1u16..).prop_map(|port| format!(":{port}"))]
}

/// Names that have a meaning of their own have values of their own; rsip checks some of them.
fn params() -> impl Strategy<Value = String> {
    let one =
        ("x[a-z-]{0,6}", prop_oneof![Just(String::new()), token().prop_map(|value| format!("={value}"))]);
    prop::collection::vec(one.prop_map(|(name, value)| format!(";{name}{value}")), 0..3)
        .prop_map(|all| all.concat())
}

fn uri() -> impl Strategy<Value = String> {
    let user = prop_oneof![
        Just(String::new()),
        "[a-zA-Z0-9_~+&$/-]{1,10}@",
        "[a-z]{1,5}%[4-7][0-9]@",
        "[a-z]{1,5}:[a-z0-9]{1,5}@",
    ];
    let more =
        prop_oneof![Just(""), Just(";lr"), Just(";user=phone"), Just(";maddr=192.0.2.1"), Just(";ttl=1")];
    ("sips?", user, host(), port(), more, params()).prop_map(|(scheme, user, host, port, more, params)| {
        format!("{scheme}:{user}{host}{port}{more}{params}")
    })
}

/// A value of From, To or Contact with its tag.
fn name_addr() -> impl Strategy<Value = (String, Option<String>)> {
    let display = prop_oneof![Just(String::new()), "[A-Z][a-z]{1,6} ", "\"[A-Za-z0-9 .,!?]{0,9}\" "];
    (display, uri(), prop::option::of(token()), params()).prop_map(|(display, uri, tag, params)| {
        let with_tag = tag.as_ref().map_or(String::new(), |tag| format!(";tag={tag}"));
        (format!("{display}<{uri}>{with_tag}{params}"), tag)
    })
}

fn via() -> impl Strategy<Value = String> {
    let transport = prop::sample::select(vec!["UDP", "TCP", "TLS", "SCTP", "WS", "WSS"]);
    let more = prop_oneof![Just(""), Just(";rport"), Just(";received=192.0.2.9;rport=5062"), Just(";ttl=4")];
    (transport, host(), port(), more, "[a-zA-Z0-9]{1,20}", params()).prop_map(
        |(transport, host, port, more, branch, params)| {
            format!("SIP/2.0/{transport} {host}{port}{more};branch=z9hG4bK{branch}{params}")
        },
    )
}

/// A message, and its headers.
#[derive(Debug, Clone)]
struct Canonical {
    start: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Canonical {
    fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{}\r\n", self.start).into_bytes();
        for (name, value) in &self.headers {
            out.extend(format!("{name}: {value}\r\n").bytes());
        }
        out.extend(format!("Content-Length: {}\r\n\r\n", self.body.len()).bytes());
        out.extend(&self.body);
        out
    }
}

const METHODS: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "REGISTER",
    "OPTIONS",
    "INFO",
    "PRACK",
    "UPDATE",
    "SUBSCRIBE",
    "NOTIFY",
    "REFER",
    "MESSAGE",
    "PUBLISH",
];

fn message() -> impl Strategy<Value = Canonical> {
    let request = (prop::sample::select(METHODS.to_vec()), uri())
        .prop_map(|(method, uri)| (format!("{method} {uri} SIP/2.0"), method));
    let response = (
        prop::sample::select(vec![100u16, 180, 200, 302, 401, 404, 486, 503, 603]),
        prop::sample::select(METHODS.to_vec()),
    )
        .prop_map(|(status, method)| (format!("SIP/2.0 {status} {}", status::reason(status)), method));
    let other = ("X-[A-Z][a-z]{0,6}", "[!-~]([ -~]{0,20}[!-~])?");
    let parts = (
        prop::collection::vec(via(), 1..4),
        name_addr(),
        name_addr(),
        "[a-zA-Z0-9.-]{1,16}(@[a-z0-9.]{1,9})?",
        0u32..1 << 31,
        prop::option::of(name_addr()),
        0u8..=255,
        prop::collection::vec(other, 0..3),
    );
    (prop_oneof![3 => request, 1 => response], parts, prop::collection::vec(any::<u8>(), 0..40)).prop_map(
        |((start, method), (vias, (from, _), (to, _), call_id, cseq, contact, hops, others), body)| {
            let mut headers: Vec<(String, String)> =
                vias.into_iter().map(|via| ("Via".to_owned(), via)).collect();
            let mut push = |name: &str, value: String| headers.push((name.to_owned(), value));
            push("Max-Forwards", hops.to_string());
            push("From", from);
            push("To", to);
            push("Call-ID", call_id);
            push("CSeq", format!("{cseq} {method}"));
            if let Some((contact, _)) = contact {
                push("Contact", contact);
            }
            headers.extend(others);
            Canonical { start, headers, body }
        },
    )
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Names and values in order; a name that rsip gives a type to comes without its value.
fn ours(params: Params<'_>) -> Vec<(String, Option<String>)> {
    params.iter().map(|p| (text(p.name).to_owned(), p.value.map(|value| text(value).to_owned()))).collect()
}

fn theirs(params: &[rsip::Param]) -> Vec<(String, Option<String>)> {
    let text: String = params.iter().map(ToString::to_string).collect();
    text.split(';')
        .skip(1)
        .map(|param| match param.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (param.to_owned(), None),
        })
        .collect()
}

fn same_uri(own: &Uri<'_>, other: &rsip::Uri) {
    assert_eq!(text(own.as_bytes()), other.to_string());
    assert_eq!(own.user.map(text), other.auth.as_ref().map(|auth| auth.user.as_str()));
    assert_eq!(own.password.map(text), other.auth.as_ref().and_then(|auth| auth.password.as_deref()));
    assert_eq!(own.host, other.host().to_string());
    assert_eq!(own.port, other.port().map(|port| *port.value()));
    assert_eq!(own.scheme == Scheme::Sips, other.is_sips().expect("a known scheme"));
    assert_eq!(ours(own.params), theirs(&other.params));
}

fn same_address(own: &NameAddr<'_>, uri: &rsip::Uri, display: Option<&str>, params: &[rsip::Param]) {
    same_uri(&own.uri, uri);
    assert_eq!(text(&unquote(own.display)), display.unwrap_or_default().trim_matches('"'));
    assert_eq!(ours(own.params), theirs(params));
}

fn agree(message: &Canonical) {
    let bytes = message.bytes();
    let own = Message::parse(&bytes).expect("our scanner takes it");
    own.check().expect("and finds nothing wrong");
    let other = rsip::SipMessage::try_from(bytes.as_slice()).expect("rsip takes it");
    let headers = match &other {
        rsip::SipMessage::Request(request) => {
            assert!(own.is_request());
            assert_eq!(own.method().to_string(), request.method.to_string());
            same_uri(&Uri::parse(own.request_uri()).expect("a URI"), &request.uri);
            assert_eq!(own.body(), request.body);
            &request.headers
        }
        rsip::SipMessage::Response(response) => {
            assert!(!own.is_request());
            assert_eq!(own.status(), response.status_code.code());
            assert_eq!(own.body(), response.body);
            &response.headers
        }
    };
    let lines: Vec<String> =
        own.all_headers().map(|header| format!("{}: {}", text(header.name), text(header.value))).collect();
    assert_eq!(lines, headers.iter().map(ToString::to_string).collect::<Vec<_>>());
    let typed: Vec<rsip::typed::Via> = headers
        .iter()
        .filter_map(|header| match header {
            rsip::Header::Via(via) => Some(via.clone().typed().expect("a Via")),
            _ => None,
        })
        .collect();
    let vias: Vec<Via<'_>> = own.vias().map(|via| via.expect("a Via")).collect();
    assert_eq!(vias.len(), typed.len());
    for (own, other) in vias.iter().zip(&typed) {
        assert_eq!(text(own.protocol), other.transport.to_string());
        assert_eq!(
            (own.host.to_owned(), own.port),
            (other.uri.host().to_string(), other.uri.port().map(|p| *p.value()))
        );
        assert_eq!(own.branch().map(text), other.branch().map(|branch| branch.value()));
        assert_eq!(own.received(), other.received().expect("an address"));
        assert_eq!(ours(own.params), theirs(&other.params));
    }
    let (from, to) = (other.from_header().expect("From"), other.to_header().expect("To"));
    let (from, to) = (from.typed().expect("From"), to.typed().expect("To"));
    same_address(&own.from().expect("From"), &from.uri, from.display_name.as_deref(), &from.params);
    same_address(&own.to().expect("To"), &to.uri, to.display_name.as_deref(), &to.params);
    assert_eq!(own.from_tag().map(text), from.tag().map(|tag| tag.value()));
    assert_eq!(own.to_tag().map(text), to.tag().map(|tag| tag.value()));
    assert_eq!(own.call_id().map(text), other.call_id_header().ok().map(|id| id.value()));
    let cseq = other.cseq_header().expect("CSeq").typed().expect("CSeq");
    let (number, method) = own.cseq().expect("CSeq");
    assert_eq!((number, method.to_string()), (cseq.seq, cseq.method.to_string()));
    let hops = other.max_forwards_header().expect("Max-Forwards").num().expect("a number");
    assert_eq!(own.max_forwards().expect("Max-Forwards").map(u32::from), Some(hops));
    match own.contacts().next() {
        Some(contact) => {
            let other = other.contact_header().expect("Contact").typed().expect("Contact");
            same_address(
                &contact.expect("Contact"),
                &other.uri,
                other.display_name.as_deref(),
                &other.params,
            );
        }
        None => assert!(other.contact_header().is_err()),
    }
}

proptest! {
    #[test]
    fn canonical_messages_are_the_same_to_both(message in message()) {
        agree(&message);
    }
}

/// What RFC 3261 allows, and rsip refuses or changes, one reason each; we take all of it as it is.
#[test]
fn known_deviations_of_the_other() {
    const HEAD: &str =
        "From: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n";
    const VIA: &str = "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\n";
    let refused = |message: &[u8]| {
        let own = Message::parse(message).and_then(|own| own.check()).is_ok();
        (own, rsip::SipMessage::try_from(message).is_err())
    };
    for (why, message) in [
        (
            "unknown methods",
            format!("FOO sip:b@example.com SIP/2.0\r\n{VIA}{}\r\n", HEAD.replace("OPTIONS", "FOO")),
        ),
        ("IPv6 in the Request-URI", format!("OPTIONS sip:b@[2001:db8::1] SIP/2.0\r\n{VIA}{HEAD}\r\n")),
        ("tel: as Request-URI", format!("OPTIONS tel:+15551234 SIP/2.0\r\n{VIA}{HEAD}\r\n")),
        (
            "folded headers",
            format!("OPTIONS sip:b@example.com SIP/2.0\r\n{VIA}{HEAD}Subject: a\r\n b\r\n\r\n"),
        ),
        (
            "a blank before the colon",
            format!("OPTIONS sip:b@example.com SIP/2.0\r\n{VIA}{HEAD}Subject : a\r\n\r\n"),
        ),
        ("line ends before the message", format!("\r\nOPTIONS sip:b@example.com SIP/2.0\r\n{VIA}{HEAD}\r\n")),
    ] {
        assert_eq!(refused(message.as_bytes()), (true, true), "{why}");
    }
    let bytes =
        [format!("OPTIONS sip:b@example.com SIP/2.0\r\n{VIA}{HEAD}Subject: ").as_bytes(), b"\xff\r\n\r\n"]
            .concat();
    assert_eq!(refused(&bytes), (true, true), "bytes that are not UTF-8");

    // Taken as a whole, and a header not.
    let typed = |header: &str| {
        let (name, value) = header.split_once(": ").expect("a header");
        match name {
            "Via" => rsip::headers::Via::new(value).typed().map(|via| via.to_string()).ok(),
            "From" => rsip::headers::From::new(value).typed().map(|from| from.to_string()).ok(),
            _ => rsip::headers::Contact::new(value).typed().map(|contact| contact.to_string()).ok(),
        }
        .map(|written| written == value)
    };
    for (why, header, is) in [
        ("IPv6 in Via", "Via: SIP/2.0/UDP [2001:db8::1];branch=z9hG4bKa", None),
        ("blanks in Via", "Via: SIP / 2.0 / UDP 192.0.2.1;branch=z9hG4bKa", None),
        ("an unknown transport", "Via: SIP/2.0/FOO 192.0.2.1;branch=z9hG4bKa", None),
        ("an escaped quote", "From: \"Bell, \\\"Al\\\" <x>;\" <sip:a@example.com>;tag=1", None),
        ("two contacts", "Contact: <sip:a@example.com>, <sip:b@example.com>", None),
        ("transport in capitals", "Contact: <sip:a@example.com;transport=ws>", Some(false)),
    ] {
        assert_eq!(typed(header), is, "{why}");
        let others = HEAD.lines().filter(|line| !header.starts_with("From") || !line.starts_with("From"));
        let via = if header.starts_with("Via") { "" } else { VIA };
        let message = format!(
            "OPTIONS sip:b@example.com SIP/2.0\r\n{via}{header}\r\n{}\r\n\r\n",
            others.collect::<Vec<_>>().join("\r\n")
        );
        let own = Message::parse(message.as_bytes()).expect(why);
        own.check().expect(why);
        assert!(own.contacts().all(|contact| contact.is_ok()), "{why}");
    }

    // A dot in the user: the whole is a host to rsip.
    let other = rsip::Uri::try_from("sip:a.b@example.com").expect("a URI");
    assert_eq!((other.user(), other.host().to_string()), (None, "a.b@example.com".to_owned()));
    let own = Uri::parse(b"sip:a.b@example.com").expect("a URI");
    assert_eq!((own.user, own.host), (Some(&b"a.b"[..]), "example.com"));

    // rsip has no compact names, and no framing: what is behind Content-Length is body to it.
    let message = format!("OPTIONS sip:b@example.com SIP/2.0\r\nv: {}{HEAD}l: 2\r\n\r\nabcd", &VIA[5..]);
    let own = Message::parse(message.as_bytes()).expect("compact names");
    let other = rsip::SipMessage::try_from(message.as_bytes()).expect("a message all the same");
    assert_eq!((own.vias().count(), own.body()), (1, &b"ab"[..]));
    assert!(other.via_header().is_err());
    assert_eq!(rsip::message::HasHeaders::headers(&other).iter().count(), 6);
    let rsip::SipMessage::Request(other) = other else { panic!("a request") };
    assert_eq!(other.body, b"abcd");
}
