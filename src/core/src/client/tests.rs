//! The user agent against a server that is played by hand.

use super::*;
use crate::flow::{ConnectionId, ListenerId};

const NOW: Instant = Instant::from_secs(1_700_000_000);
const CHALLENGE: &str = "Digest realm=\"example.com\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"";

fn flow() -> Flow {
    Flow {
        transport: Transport::Wss,
        listener: ListenerId(0),
        remote: "192.0.2.1:443".parse().expect("an address"),
        connection: Some(ConnectionId(1)),
    }
}

fn agent() -> UserAgent {
    let config = Config {
        user: "alice".into(),
        domain: "example.com".into(),
        password: "wonder".into(),
        target: Target::Flow(flow()),
        sent_by: "a.invalid".into(),
        expires: Duration::from_secs(600),
        instance: Some("urn:uuid:0".into()),
        agent: "test".into(),
    };
    UserAgent::new(config, Rng::from_seed(1))
}

/// The only message that it wants to send.
fn sent(agent: &mut UserAgent) -> Bytes {
    let (target, data) = agent.poll_transmit().expect("a message");
    assert_eq!(target, Target::Flow(flow()));
    assert!(agent.poll_transmit().is_none(), "one message, not two");
    Message::parse(&data).and_then(|message| message.check()).expect("a well-formed message");
    data
}

fn read(data: &Bytes) -> Message<'_> {
    Message::parse(data).expect("a message")
}

/// Answers a request of the agent.
fn reply(agent: &mut UserAgent, request: &Bytes, status: u16, headers: &[(&str, &str)], body: &str) {
    let tag = (status > 100).then_some("peer");
    let data = build::response(&read(request), status, None, tag, headers, body.as_bytes());
    agent.handle_packet(NOW, flow(), &data.into());
}

fn has(data: &Bytes, line: &str) -> bool {
    std::str::from_utf8(data).expect("text").contains(&format!("\r\n{line}"))
}

#[test]
fn it_registers_with_its_password_and_refreshes() {
    let mut agent = agent();
    agent.register(NOW);
    let first = sent(&mut agent);
    assert_eq!(read(&first).request_uri(), b"sip:example.com");
    assert!(has(
        &first,
        "Contact: <sip:alice@a.invalid;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:0>\""
    ));
    reply(&mut agent, &first, 401, &[("WWW-Authenticate", CHALLENGE)], "");
    let second = sent(&mut agent);
    assert!(has(&second, "Authorization: Digest username=\"alice\", realm=\"example.com\", nonce=\"n1\""));
    assert_eq!(read(&first).call_id(), read(&second).call_id());
    assert_eq!(read(&second).cseq().expect("CSeq").0, 2);
    let contact = format!("<{}>;expires=300", agent.contact_uri());
    reply(&mut agent, &second, 200, &[("Contact", &contact)], "");
    assert_eq!(agent.poll_notice(), Some(Notice::Registered { expires: Duration::from_secs(300) }));
    assert!(agent.poll_transmit().is_none());
    let mut now = NOW;
    for _ in 0..20 {
        now = agent.poll_timeout().expect("a refresh to come");
        agent.handle_timeout(now);
        if let Some((_, data)) = agent.poll_transmit() {
            assert!(data.starts_with(b"REGISTER "));
            break;
        }
    }
    let passed = now.saturating_since(NOW).as_secs();
    assert!((150..300).contains(&passed), "refreshed after {passed} s of 300");
}

#[test]
fn a_wrong_password_is_told_once() {
    let mut agent = agent();
    agent.register(NOW);
    for _ in 0..2 {
        let request = sent(&mut agent);
        reply(&mut agent, &request, 401, &[("WWW-Authenticate", CHALLENGE)], "");
    }
    assert!(agent.poll_transmit().is_none());
    assert!(matches!(agent.poll_notice(), Some(Notice::NotRegistered { status: 401, .. })));
}

#[test]
fn silence_and_a_lost_connection_end_a_registration() {
    let mut agent = agent();
    agent.register(NOW);
    sent(&mut agent);
    agent.handle_timeout(NOW + Duration::from_secs(33));
    assert!(matches!(agent.poll_notice(), Some(Notice::NotRegistered { status: 408, .. })));
    agent.register(NOW);
    sent(&mut agent);
    agent.flow_closed(NOW, &flow());
    assert!(matches!(agent.poll_notice(), Some(Notice::NotRegistered { status: 503, .. })));
}

/// Calls Bob up to his 200, and gives the INVITE and the ACK.
fn called(agent: &mut UserAgent) -> (Bytes, Bytes) {
    assert!(agent.call(NOW, "sip:bob@example.com", "v=0 offer".into()));
    let first = sent(agent);
    reply(agent, &first, 407, &[("Proxy-Authenticate", CHALLENGE)], "");
    let (_, ack) = agent.poll_transmit().expect("the ACK to the 407");
    assert!(ack.starts_with(b"ACK "));
    let invite = sent(agent);
    assert!(has(&invite, "Proxy-Authorization: Digest ") && invite.ends_with(b"v=0 offer"));
    reply(agent, &invite, 100, &[], "");
    reply(agent, &invite, 180, &[], "");
    assert_eq!(agent.poll_notice(), Some(Notice::Progress { status: 180, sdp: None }));
    let way = [
        ("Record-Route", "<sip:one.example.com;lr>, <sip:two.example.com;lr>"),
        ("Contact", "<sip:bob@192.0.2.9:5070>"),
    ];
    reply(agent, &invite, 200, &way, "v=0 answer");
    assert_eq!(agent.poll_notice(), Some(Notice::Answered { answer: "v=0 answer".into() }));
    let ack = sent(agent);
    (invite, ack)
}

#[test]
fn it_calls_and_hangs_up() {
    let mut agent = agent();
    let (invite, ack) = called(&mut agent);
    assert_eq!(read(&ack).request_uri(), b"sip:bob@192.0.2.9:5070");
    assert_eq!(read(&ack).cseq().expect("CSeq").0, read(&invite).cseq().expect("CSeq").0);
    let routes: Vec<_> = read(&ack).headers(Name::Route).map(|h| h.value.to_vec()).collect();
    assert_eq!(routes, [b"<sip:two.example.com;lr>", b"<sip:one.example.com;lr>"]);
    assert!(has(&ack, "Proxy-Authorization: Digest "), "RFC 3261 §22.1");
    // The 200 comes again: so does the ACK, and no second notice.
    reply(&mut agent, &invite, 200, &[("Contact", "<sip:bob@192.0.2.9:5070>")], "v=0 answer");
    assert_eq!(sent(&mut agent), ack);
    assert_eq!(agent.poll_notice(), None);
    agent.hangup(NOW);
    let bye = sent(&mut agent);
    assert!(bye.starts_with(b"BYE sip:bob@192.0.2.9:5070 ") && has(&bye, "CSeq: 3 BYE\r\n"));
    assert!(agent.is_busy());
    reply(&mut agent, &bye, 200, &[], "");
    assert_eq!(agent.poll_notice(), Some(Notice::Ended { by: Side::Us }));
    assert!(!agent.is_busy());
}

#[test]
fn a_second_phone_that_answers_is_let_go() {
    let mut agent = agent();
    let (invite, _) = called(&mut agent);
    let contact = [("Contact", "<sip:bob@192.0.2.10>")];
    let late = build::response(&read(&invite), 200, None, Some("late"), &contact, b"v=0");
    agent.handle_packet(NOW, flow(), &late.into());
    let (_, ack) = agent.poll_transmit().expect("an ACK");
    assert!(ack.starts_with(b"ACK sip:bob@192.0.2.10 "));
    assert!(sent(&mut agent).starts_with(b"BYE sip:bob@192.0.2.10 "));
    assert!(agent.in_call(), "the first one stays");
}

#[test]
fn a_call_that_rings_is_cancelled() {
    let mut agent = agent();
    agent.call(NOW, "sip:bob@example.com", "v=0".into());
    let invite = sent(&mut agent);
    agent.hangup(NOW);
    assert!(agent.poll_transmit().is_none(), "RFC 3261 §9.1: not before a provisional response");
    reply(&mut agent, &invite, 180, &[], "");
    assert!(sent(&mut agent).starts_with(b"CANCEL sip:bob@example.com "));
    reply(&mut agent, &invite, 487, &[], "");
    assert!(sent(&mut agent).starts_with(b"ACK "));
    assert_eq!(agent.poll_notice(), Some(Notice::Progress { status: 180, sdp: None }));
    assert_eq!(agent.poll_notice(), Some(Notice::Ended { by: Side::Us }));
}

fn incoming(method: &str, cseq: u32, to_tag: &str, branch: &str, body: &str) -> Bytes {
    let (to, via) =
        (format!("<sip:alice@example.com>{to_tag}"), format!("SIP/2.0/WSS s;branch=z9hG4bK{branch}"));
    let cseq = format!("{cseq} {method}");
    let headers = [
        ("Via", via.as_str()),
        ("Record-Route", "<sip:one.example.com;lr>"),
        ("From", "<sip:bob@example.com>;tag=b"),
        ("To", &to),
        ("Call-ID", "in@example.com"),
        ("CSeq", &cseq),
        ("Contact", "<sip:bob@192.0.2.9>"),
    ];
    build::request(method, "sip:alice@a.invalid;transport=ws", &headers, body.as_bytes()).into()
}

#[test]
fn it_is_called_and_answers() {
    let mut agent = agent();
    agent.handle_packet(NOW, flow(), &incoming("INVITE", 5, "", "i", "v=0 offer"));
    let from = "<sip:bob@example.com>;tag=b".to_owned();
    assert_eq!(agent.poll_notice(), Some(Notice::Incoming { from, offer: "v=0 offer".into() }));
    agent.ring(NOW);
    assert_eq!(read(&sent(&mut agent)).status(), 180);
    // Somebody else: busy.
    let other = incoming("INVITE", 1, "", "other", "v=0");
    agent.handle_packet(NOW, flow(), &other);
    assert_eq!(read(&sent(&mut agent)).status(), 486);

    agent.answer(NOW, "v=0 answer");
    let answer = sent(&mut agent);
    assert_eq!(read(&answer).status(), 200);
    assert!(has(&answer, "Record-Route: <sip:one.example.com;lr>\r\n") && answer.ends_with(b"v=0 answer"));
    agent.handle_timeout(NOW + timing::T1);
    assert_eq!(sent(&mut agent), answer, "again, until it is acknowledged");
    let tag = format!(";tag={}", String::from_utf8_lossy(read(&answer).to_tag().expect("a tag")));
    agent.handle_packet(NOW, flow(), &incoming("ACK", 5, &tag, "a", ""));
    assert_eq!(agent.poll_notice(), Some(Notice::Established));
    agent.handle_timeout(NOW + Duration::from_secs(30));
    assert!(agent.poll_transmit().is_none());

    agent.handle_packet(NOW, flow(), &incoming("INFO", 6, &tag, "n", ""));
    assert_eq!(read(&sent(&mut agent)).status(), 200);
    agent.handle_packet(NOW, flow(), &incoming("BYE", 7, ";tag=wrong", "w", ""));
    assert_eq!(read(&sent(&mut agent)).status(), 481);
    agent.handle_packet(NOW, flow(), &incoming("BYE", 8, &tag, "y", ""));
    assert_eq!(read(&sent(&mut agent)).status(), 200);
    assert_eq!(agent.poll_notice(), Some(Notice::Ended { by: Side::Peer }));
    assert!(!agent.in_call());
}

#[test]
fn a_caller_may_give_up() {
    let mut agent = agent();
    agent.handle_packet(NOW, flow(), &incoming("INVITE", 5, "", "i", "v=0 offer"));
    agent.handle_packet(NOW, flow(), &incoming("CANCEL", 5, "", "i", ""));
    let statuses: Vec<u16> =
        std::iter::from_fn(|| agent.poll_transmit()).map(|(_, data)| read(&data).status()).collect();
    assert_eq!(statuses, [200, 487]);
    assert!(matches!(agent.poll_notice(), Some(Notice::Incoming { .. })));
    assert_eq!(agent.poll_notice(), Some(Notice::Ended { by: Side::Peer }));
}

#[test]
fn an_answer_that_nobody_acknowledges_ends() {
    let mut agent = agent();
    agent.handle_packet(NOW, flow(), &incoming("INVITE", 5, "", "i", "v=0 offer"));
    agent.answer(NOW, "v=0");
    let mut last = Bytes::new();
    for _ in 0..40 {
        let Some(at) = agent.poll_timeout() else { break };
        agent.handle_timeout(at);
        while let Some((_, data)) = agent.poll_transmit() {
            last = data;
        }
        if last.starts_with(b"BYE ") {
            break;
        }
    }
    assert!(last.starts_with(b"BYE sip:bob@192.0.2.9 "), "{last:?}");
}

#[test]
fn rubbish_is_passed_over() {
    let mut agent = agent();
    for data in ["", "\r\n\r\n", "SIP/2.0 200 OK\r\n\r\n", "INVITE sip:a SIP/2.0\r\n\r\n", "\0\0\0"] {
        agent.handle_packet(NOW, flow(), &Bytes::from_static(data.as_bytes()));
    }
    assert!(agent.poll_transmit().is_none() && agent.poll_notice().is_none());
}
