//! The relay in the way of offer and answer: RFC 3264, RFC 3261 §13, and relays that fail.

use super::*;

#[test]
fn a_phone_calls_a_browser() {
    let mut net = Net::new(with_relay());
    net.bind("bob", "sip:x@y.invalid;transport=ws", Some("<sip:TOKEN@192.0.2.40:5060;lr>"));
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    invite.body = PHONE_SDP;
    net.call(&invite);
    assert!(net.to(EDGE).is_empty(), "the relay is asked first");
    let offer = net.relay_gives("v=0\r\nOFFER\r\n");
    assert_eq!(offer.get_str("command"), Some("offer"));
    assert_eq!(offer.get_str("transport-protocol"), Some("RTP/SAVPF"));
    assert_eq!(offer.get_str("ICE"), Some("force"));
    assert_eq!(offer.get_str("from-tag"), Some("ta"));
    assert_eq!(offer.get_str("via-branch"), Some("z9hG4bKINVITE10"));
    assert_eq!(offer.get("to-tag"), None);
    let at_edge = net.last(EDGE);
    assert!(at_edge.ends_with("\r\nContent-Length: 12\r\n\r\nv=0\r\nOFFER\r\n"), "{at_edge}");

    let ok = respond(&at_edge, 200, "tb", "sip:x@y.invalid;transport=ws", WEB_SDP);
    net.receive(EDGE, &ok);
    assert!(net.to(ALICE).is_empty());
    let answer = net.relay_gives("v=0\r\nANSWER\r\n");
    assert_eq!(answer.get_str("command"), Some("answer"));
    assert_eq!(answer.get_str("transport-protocol"), Some("RTP/AVP"));
    assert_eq!(answer.get_str("ICE"), Some("remove"));
    assert_eq!(answer.get_str("via-branch"), Some("z9hG4bKINVITE10"));
    assert_eq!((answer.get_str("from-tag"), answer.get_str("to-tag")), (Some("ta"), Some("tb")));
    assert!(net.last(ALICE).ends_with("v=0\r\nANSWER\r\n"));
    // Repeated: the same body again, and the relay is left alone.
    net.receive(EDGE, &ok);
    assert!(net.last(ALICE).ends_with("v=0\r\nANSWER\r\n"));
    assert!(net.asked.is_empty());

    // A re-INVITE of the browser, with the token's decisions: to the phone.
    let route = header(&at_edge, "Record-Route").expect("a Record-Route").to_owned();
    let again = format!(
        "INVITE sip:alice@{ALICE} SIP/2.0\r\nVia: SIP/2.0/UDP {EDGE};branch=z9hG4bKre\r\nMax-Forwards: 70\r\n\
         From: <sip:bob@example.com>;tag=tb\r\nTo: <sip:alice@example.com>;tag=ta\r\nCall-ID: call-1\r\nCSeq: 1 INVITE\r\n\
         Route: {route}\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{WEB_SDP}",
        WEB_SDP.len()
    );
    net.receive(EDGE, &again);
    let offer = net.relay_gives("v=0\r\nOFFER2\r\n");
    assert_eq!((offer.get_str("from-tag"), offer.get_str("to-tag")), (Some("tb"), Some("ta")));
    assert_eq!(offer.get_str("transport-protocol"), Some("RTP/AVP"));
    let at_alice = net.last(ALICE);
    assert!(at_alice.ends_with("v=0\r\nOFFER2\r\n"));
    net.receive(ALICE, &respond(&at_alice, 200, "", "sip:a", PHONE_SDP));
    let answer = net.relay_gives("v=0\r\nANSWER2\r\n");
    assert_eq!(answer.get_str("transport-protocol"), Some("UDP/TLS/RTP/SAVPF"), "as the browser offered");
    assert!(net.last(EDGE).ends_with("v=0\r\nANSWER2\r\n"));

    net.call(&Call { extra: format!("Route: {route}\r\n"), ..in_dialog("BYE", &route) });
    let delete = net.relay_asked().1;
    assert_eq!(delete.get_str("command"), Some("delete"));
    assert_eq!((delete.get_str("call-id"), delete.get("via-branch")), (Some("call-1"), None));
    assert!(net.last(EDGE).starts_with("BYE "));
}

#[test]
fn a_late_offer_is_answered_in_the_ack() {
    let mut net = Net::new(Config { relay_policy: RelayPolicy::Always, ..with_relay() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    let at_bob = net.last(BOB);
    net.receive(BOB, &respond(&at_bob, 200, "tb", &format!("sip:bob@{BOB}"), PHONE_SDP));
    let offer = net.relay_gives("v=0\r\nOFFER\r\n");
    assert_eq!(offer.get_str("command"), Some("offer"));
    assert_eq!((offer.get_str("from-tag"), offer.get_str("to-tag")), (Some("tb"), Some("ta")));
    assert!(net.last(ALICE).ends_with("v=0\r\nOFFER\r\n"));
    let route = header(&at_bob, "Record-Route").expect("a Record-Route").to_owned();
    net.call(&Call { branch: "z9hG4bKack".into(), cseq: 1, body: PHONE_SDP, ..in_dialog("ACK", &route) });
    let answer = net.relay_gives("v=0\r\nANSWER\r\n");
    assert_eq!(answer.get_str("command"), Some("answer"));
    assert_eq!((answer.get_str("from-tag"), answer.get_str("to-tag")), (Some("tb"), Some("ta")));
    let ack = net.last(BOB);
    assert!(ack.starts_with("ACK ") && ack.ends_with("v=0\r\nANSWER\r\n"), "{ack}");
}

#[test]
fn a_relay_that_is_silent_is_503_and_gets_no_new_calls() {
    let mut net = Net::new(Config { relay_policy: RelayPolicy::Always, ..with_relay() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    invite.body = PHONE_SDP;
    net.call(&invite);
    let relay = |net: &Net| match net.asked.last() {
        Some((_, Question::Relay { relay, .. })) => *relay,
        other => panic!("{other:?}"),
    };
    let first = relay(&net);
    net.wait(Duration::from_millis(4_500));
    assert_eq!(net.status(), 503);
    assert!(net.to(BOB).is_empty());
    assert_eq!(net.events(), ["unavailable"]);
    // The same Call-ID would choose it again.
    (invite.branch, invite.from_tag) = ("z9hG4bKnext".into(), "tz");
    net.call(&invite);
    assert_ne!(relay(&net), first);
    net.wait(Duration::from_secs(40));
    invite.branch = "z9hG4bKlater".into();
    net.call(&invite);
    assert_eq!(relay(&net), first, "and later it is tried anew");
}

#[test]
fn an_sdp_that_the_relay_refuses_is_488() {
    let mut net = Net::new(Config { relay_policy: RelayPolicy::Always, ..with_relay() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    invite.body = PHONE_SDP;
    net.call(&invite);
    let (ticket, _) = net.relay_asked();
    net.relay_says(
        ticket,
        Some(ng::Dict::new().with("result", "error").with("error-reason", "Failed to parse SDP")),
    );
    assert_eq!(net.status(), 488);
}

#[test]
fn a_failed_branch_takes_its_media_along() {
    let mut net = Net::new(Config { relay_policy: RelayPolicy::Always, ..with_relay() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    net.bind("bob", &format!("sip:bob@{BOB_TOO}"), None);
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    invite.body = PHONE_SDP;
    net.call(&invite);
    net.relay_gives("v=0\r\nONE\r\n");
    net.relay_gives("v=0\r\nTWO\r\n");
    let (one, two) = (net.last(BOB), net.last(BOB_TOO));
    let branch = if one.ends_with("ONE\r\n") { "z9hG4bKINVITE10" } else { "z9hG4bKINVITE11" };
    net.receive(BOB, &respond(&one, 486, "t1", "", ""));
    let (_, delete) = net.relay_asked();
    assert_eq!(delete.get_str("command"), Some("delete"));
    assert_eq!(delete.get_str("via-branch"), Some(branch), "this branch's media only");
    assert!(net.to(ALICE).is_empty());
    net.receive(BOB_TOO, &respond(&two, 486, "t2", "", ""));
    let (_, delete) = net.relay_asked();
    assert_eq!((delete.get_str("command"), delete.get("via-branch")), (Some("delete"), None), "the last one");
    assert_eq!(net.status(), 486);
}

#[test]
fn responses_stay_in_order_behind_the_relay() {
    let mut net = Net::new(Config { relay_policy: RelayPolicy::Always, ..with_relay() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    invite.body = PHONE_SDP;
    net.call(&invite);
    net.relay_gives("v=0\r\nOFFER\r\n");
    let at_bob = net.last(BOB);
    net.receive(BOB, &respond(&at_bob, 183, "tb", "sip:bob@x", PHONE_SDP));
    net.receive_on(udp(BOB), &respond(&at_bob, 200, "tb", "sip:bob@x", PHONE_SDP));
    assert!(net.to(ALICE).is_empty());
    net.relay_gives("v=0\r\nANSWER\r\n");
    let codes: Vec<u16> = net.to(ALICE).iter().map(|text| status_of(text)).collect();
    assert_eq!(codes, [183, 200]);
    assert!(net.last(ALICE).ends_with("v=0\r\nANSWER\r\n"));
}
