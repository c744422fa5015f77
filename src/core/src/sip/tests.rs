//! Whole messages: reading, changing, answering, and noise.

use super::edit::Edit;
use super::*;

const INVITE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\n\
v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport , SIP/2.0/WSS x.invalid;branch=z9hG4bKb\r\n\
Via: SIP/2.0/TCP 192.0.2.9;branch=z9hG4bKc\r\n\
Max-Forwards: 70\r\n\
Route: <sip:192.0.2.2;lr>,\r\n\t<sip:192.0.2.3;lr>\r\n\
f: \"Alice, A\" <sip:alice@example.com>;tag=1\r\n\
To: <sip:bob@example.com>\r\n\
Call-ID: abc@192.0.2.1\r\n\
CSeq: 17 INVITE\r\n\
X-What : folded\r\n  twice\r\n\
Contact: <sip:alice@192.0.2.1>\r\n\
Content-Type: text/plain\r\n\
Content-Length: 4\r\n\r\nbodytrailing";

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn reads_a_request() {
    let m = Message::parse(INVITE).unwrap();
    m.check().unwrap();
    assert!(m.is_request());
    assert_eq!(m.method(), Method::Invite);
    assert_eq!(m.request_uri(), b"sip:bob@example.com");
    assert_eq!(m.vias().count(), 3);
    assert_eq!(m.top_via().unwrap().branch(), Some(&b"z9hG4bKa"[..]));
    assert_eq!(m.routes().map(|r| r.unwrap().uri.host).collect::<Vec<_>>(), ["192.0.2.2", "192.0.2.3"]);
    assert_eq!(m.from_tag(), Some(&b"1"[..]));
    assert_eq!(m.to_tag(), None);
    assert_eq!(m.cseq().unwrap(), (17, Method::Invite));
    assert_eq!(m.max_forwards().unwrap(), Some(70));
    assert_eq!(unfold(m.named("x-what").next().unwrap().value).as_ref(), b"folded twice");
    assert_eq!(m.body(), b"body");
    assert_eq!(m.content_length(), Some(4));
}

#[test]
fn reads_a_response() {
    let m = Message::parse(b"\r\n\r\nSIP/2.0 486 Busy Here\r\nCSeq: 1 INVITE\r\n\r\n").unwrap();
    assert!(!m.is_request());
    assert_eq!((m.status(), m.reason()), (486, &b"Busy Here"[..]));
    assert_eq!(m.method(), Method::Invite);
}

#[test]
fn counts_the_body() {
    let kind = |data: &[u8]| Message::parse(data).map(|m| m.body().len()).map_err(|e| e.kind);
    assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\n\r\n12345"), Ok(5));
    assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\nl: 3\r\n\r\n12345"), Ok(3));
    assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\nl: 6\r\n\r\n12345"), Err(ParseErrorKind::BodyShort));
    assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\nl: 3\r\nl: 4\r\n\r\n12345"), Err(ParseErrorKind::ContentLength));
    assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\nl: 3\r\nContent-Length: 3\r\n\r\n12345"), Ok(3));
    assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\nl: -1\r\n\r\n12345"), Err(ParseErrorKind::ContentLength));
    assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\nl: 0\r\n"), Err(ParseErrorKind::HeadEnd));
}

#[test]
fn names_the_fault_and_its_answer() {
    let fault = |data: &[u8]| {
        let error = match Message::parse(data) {
            Ok(m) => m.check().unwrap_err(),
            Err(e) => e,
        };
        (error.at, error.kind, error.kind.status())
    };
    assert_eq!(fault(b"BYE sip:a@b SIP/7.0\r\n\r\n"), (12, ParseErrorKind::Version, 505));
    assert_eq!(fault(b"BYE  sip:a@b SIP/2.0\r\n\r\n"), (4, ParseErrorKind::RequestUri, 400));
    assert_eq!(fault(b"BYE sip:a@b SIP/2.0\r\nnonsense\r\n\r\n"), (21, ParseErrorKind::HeaderSyntax, 400));
    assert_eq!(fault(b"GET / HTTP/1.1\r\n\r\n"), (6, ParseErrorKind::StartLine, 400));
    assert_eq!(fault(b"\r\n"), (2, ParseErrorKind::Empty, 400));
    assert_eq!(fault(b"BYE sip:a@b SIP/2.0\r\n\r\n"), (21, ParseErrorKind::Missing(Name::From), 400));
    let mut many = b"BYE sip:a@b SIP/2.0\r\n".to_vec();
    (0..=limits::SIP_HEADERS).for_each(|_| many.extend_from_slice(b"a: b\r\n"));
    many.extend_from_slice(b"\r\n");
    assert_eq!(fault(&many).2, 513);
    let text = text(INVITE).replace("17 INVITE", "17 BYE");
    assert_eq!(fault(text.as_bytes()).1, ParseErrorKind::CSeqMethod);
}

#[test]
fn holds_more_headers_than_are_inline() {
    let mut data = b"BYE sip:a@b SIP/2.0\r\n".to_vec();
    (0..limits::SIP_HEADERS).for_each(|i| data.extend_from_slice(format!("X-{i}: {i}\r\n").as_bytes()));
    data.extend_from_slice(b"\r\n");
    let m = Message::parse(&data).unwrap();
    assert_eq!(m.all_headers().count(), limits::SIP_HEADERS);
    assert_eq!(m.named("x-200").next().unwrap().value, b"200");
}

#[test]
fn forwards_with_the_rest_untouched() {
    let m = Message::parse(INVITE).unwrap();
    let mut out = Vec::new();
    Edit::new().write(&m, &mut out);
    assert_eq!(text(&out), text(&INVITE[..INVITE.len() - 8]));

    out.clear();
    let mut edit = Edit::new();
    edit.set_request_uri("sip:bob@192.0.2.77:5070")
        .prepend_via("SIP/2.0/UDP 192.0.2.50;branch=z9hG4bKours")
        .set_received([198, 51, 100, 1].into())
        .set_rport(4321)
        .set_max_forwards(69)
        .prepend_record_route("<sip:192.0.2.50;lr>")
        .remove_first_route()
        .remove_named("x-what")
        .replace_contacts("<sip:alice@192.0.2.1;alias=198.51.100.1~4321~1>")
        .add("X-New", "a\r\nInjected: b")
        .replace_body(Some("application/sdp"), "v=0\r\n");
    edit.write(&m, &mut out);
    assert_eq!(
        text(&out),
        "INVITE sip:bob@192.0.2.77:5070 SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.50;branch=z9hG4bKours\r\n\
         Record-Route: <sip:192.0.2.50;lr>\r\n\
         v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport=4321;received=198.51.100.1, SIP/2.0/WSS x.invalid;branch=z9hG4bKb\r\n\
         Via: SIP/2.0/TCP 192.0.2.9;branch=z9hG4bKc\r\n\
         Max-Forwards: 69\r\n\
         Route: <sip:192.0.2.3;lr>\r\n\
         f: \"Alice, A\" <sip:alice@example.com>;tag=1\r\n\
         To: <sip:bob@example.com>\r\n\
         Call-ID: abc@192.0.2.1\r\n\
         CSeq: 17 INVITE\r\n\
         Contact: <sip:alice@192.0.2.1;alias=198.51.100.1~4321~1>\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: 5\r\n\
         X-New: a  Injected: b\r\n\r\nv=0\r\n"
    );
}

#[test]
fn takes_hops_off() {
    let m = Message::parse(INVITE).unwrap();
    for (count, left) in [(1, 2), (2, 1), (3, 0)] {
        let mut edit = Edit::new();
        (0..count).for_each(|_| {
            edit.remove_top_via();
        });
        let mut out = Vec::new();
        edit.write(&m, &mut out);
        assert_eq!(Message::parse(&out).unwrap().vias().filter(|v| v.is_ok()).count(), left);
    }
    let mut edit = Edit::new();
    edit.remove_first_route().remove_first_route().set_max_forwards(1);
    let mut out = Vec::new();
    edit.write(&m, &mut out);
    assert!(Message::parse(&out).unwrap().header(Name::Route).is_none());
}

#[test]
fn a_received_of_the_senders_own_goes() {
    let data = text(INVITE).replace(";rport ,", ";received=203.0.113.1,");
    let m = Message::parse(data.as_bytes()).unwrap();
    let mut out = Vec::new();
    Edit::new().set_received([198, 51, 100, 1].into()).write(&m, &mut out);
    let top = Message::parse(&out).unwrap().top_via().unwrap().received();
    assert_eq!(top, Some([198, 51, 100, 1].into()));
    assert!(!text(&out).contains("203.0.113.1"));
}

#[test]
fn answers() {
    let m = Message::parse(INVITE).unwrap();
    let out = build::response(&m, 486, None, Some("t1"), &[("Retry-After", "5")], b"");
    let r = Message::parse(&out).unwrap();
    r.check().unwrap();
    assert_eq!((r.status(), r.reason()), (486, &b"Busy Here"[..]));
    assert_eq!(r.to_tag(), Some(&b"t1"[..]));
    assert_eq!(r.vias().count(), 3);
    assert_eq!(r.header(Name::RetryAfter), Some(&b"5"[..]));
    assert_eq!(r.content_length(), Some(0));
    // A tag that is there stays.
    let again = build::response(&r, 200, None, Some("t2"), &[], b"");
    assert_eq!(Message::parse(&again).unwrap().to_tag(), Some(&b"t1"[..]));
}

#[test]
fn refuses_what_can_be_answered() {
    let broken =
        text(INVITE).replace("Max-Forwards: 70", "no colon here").replace("Content-Length: 4", "l: 99999");
    assert!(Message::parse(broken.as_bytes()).is_err());
    let m = Message::parse_to_refuse(broken.as_bytes()).unwrap();
    let out = build::response(&m, 400, None, Some("t"), &[], b"");
    assert_eq!(Message::parse(&out).unwrap().status(), 400);
    assert!(Message::parse_to_refuse(b"INVITE sip:a@b SIP/2.0\r\n\r\n").is_none());
}
