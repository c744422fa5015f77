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

/// In a multipart body, the relay gets the description alone, and all other parts stay as they came (RFC 5621 §3.1).
#[test]
fn a_description_in_a_multipart_body_goes_through_the_relay() {
    let parts = |sdp: &str| {
        format!(
            "preamble\r\n--x\r\nContent-Type: application/resource-lists+xml\r\n\r\n<a/>\n\r\n\
             --x\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n\
             --x\r\nContent-Type: application/pidf+xml\r\nContent-ID: <w@x>\r\n\r\n<b/>\r\n--x--\r\n"
        )
    };
    let whole = |message: &str, sdp: &str| {
        let body = parts(sdp);
        assert!(message.ends_with(&format!("\r\n\r\n{body}")), "{message}");
        assert_eq!(header(message, "Content-Length"), Some(body.len().to_string().as_str()));
        assert_eq!(header(message, "Content-Type"), Some("multipart/mixed;boundary=x"));
    };
    let typed = |text: String| {
        text.replace("Type: application/sdp\r\nContent-L", "Type: multipart/mixed;boundary=x\r\nContent-L")
    };
    let mut net = Net::new(Config { relay_policy: RelayPolicy::Always, ..with_relay() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let phone = parts(PHONE_SDP);
    net.receive(ALICE, &typed(Call { body: &phone, ..Call::new("INVITE", "sip:bob@example.com") }.text()));
    let offer = net.relay_gives("v=0\r\nOFFER\r\n");
    assert_eq!(offer.get_str("sdp"), Some(PHONE_SDP));
    let at_bob = net.last(BOB);
    whole(&at_bob, "v=0\r\nOFFER\r\n");

    let ok = typed(respond(&at_bob, 200, "tb", &format!("sip:bob@{BOB}"), &phone));
    net.receive(BOB, &ok);
    assert_eq!(net.relay_gives("v=0\r\nANSWER\r\n").get_str("sdp"), Some(PHONE_SDP));
    whole(&net.last(ALICE), "v=0\r\nANSWER\r\n");
    // The 2xx again: the same body, which the relay is not asked for again.
    net.receive(BOB, &ok);
    assert!(net.asked.is_empty());
    whole(&net.last(ALICE), "v=0\r\nANSWER\r\n");

    // A late offer's answer, in the ACK.
    let route = header(&at_bob, "Record-Route").expect("a Record-Route").to_owned();
    let ack = Call { branch: "z9hG4bKack".into(), cseq: 1, body: &phone, ..in_dialog("ACK", &route) };
    net.receive(ALICE, &typed(ack.text()));
    assert_eq!(net.relay_gives("v=0\r\nLATE\r\n").get_str("sdp"), Some(PHONE_SDP));
    whole(&net.last(BOB), "v=0\r\nLATE\r\n");
}

/// Only one of them could go through the relay: the callee might take the other, and there would be no sound.
#[test]
fn two_descriptions_in_one_body_are_488_on_the_way_to_a_relay() {
    let body = format!("--x\r\nContent-Type: application/sdp\r\n\r\n{PHONE_SDP}\r\n").repeat(2) + "--x--\r\n";
    for (relay_policy, passes) in [(RelayPolicy::Always, false), (RelayPolicy::Never, true)] {
        let mut net = Net::new(Config { relay_policy, ..with_relay() });
        net.bind("bob", &format!("sip:bob@{BOB}"), None);
        let invite = Call { body: &body, ..Call::new("INVITE", "sip:bob@example.com") }.text();
        net.receive(
            ALICE,
            &invite.replace(
                "Type: application/sdp\r\nContent-L",
                "Type: multipart/mixed;boundary=x\r\nContent-L",
            ),
        );
        assert!(net.asked.iter().all(|(_, question)| !matches!(question, Question::Relay { .. })));
        assert_eq!(net.to(BOB).len(), usize::from(passes));
        assert!(passes || net.status() == 488);
    }
}

/// Ports and secrets of a relay, as long as real ones.
struct Relay;

impl crate::rewrite::Supply for Relay {
    fn ports(
        &mut self,
        _: usize,
        _: crate::media::plan::Side,
        _: &crate::rewrite::Want,
    ) -> Result<crate::rewrite::Address, String> {
        let address = |port: u16| std::net::SocketAddr::from(([198, 51, 100, 101], port));
        Ok(crate::rewrite::Address {
            advertised: address(0).ip(),
            rtp: address(38_210),
            rtcp: address(38_211),
        })
    }

    fn ice(&mut self) -> (String, String) {
        ("ufragufr".into(), "passwordpasswordpasswordpa".into())
    }

    fn foundation(&mut self) -> String {
        "foundationfounda".into()
    }

    fn fingerprint(&self) -> crate::sdp::Fingerprint {
        crate::sdp::Fingerprint { hash: "sha-256".into(), digest: vec![7; 32] }
    }

    fn sdes_key(&mut self) -> Vec<u8> {
        vec![7; 30]
    }
}

/// The seed's Chrome offer, in what JsSIP and an edge put around it, leaves for a phone as one datagram of an Ethernet.
#[test]
fn a_browsers_invite_to_a_phone_fits_one_datagram() {
    const OFFER: &str = include_str!("../../../../../tests/data/seed/3-webrtc-to-sip-offer.in.sdp");
    let mut net = Net::new(with_relay());
    net.bind("bob", "sip:bob@203.0.113.7:19145;rinstance=c4b04a708c006af2", None);
    let invite = format!(
        "INVITE sip:bob@example.com SIP/2.0\r\n\
         Via: SIP/2.0/UDP {EDGE};branch=z9hG4bK8d331bee61423445fbc620d8076cb89c\r\n\
         Via: SIP/2.0/WSS vd4mdr8kjs9o.invalid;branch=z9hG4bK7729401;received=203.0.113.200;rport=53917\r\n\
         Record-Route: <sip:0123456789012345678901234567890123456789abc@{EDGE};lr;ob>\r\n\
         Max-Forwards: 69\r\nTo: <sip:bob@example.com>\r\n\
         From: \"Alice Example\" <sip:alice@example.com>;tag=2fsmjbh0ud\r\nCall-ID: ekmrb62i6d19nkau6gbr\r\n\
         CSeq: 5171 INVITE\r\nContact: <sip:9nvkvrsi@vd4mdr8kjs9o.invalid;transport=ws;ob>\r\n\
         Content-Type: application/sdp\r\nSession-Expires: 90\r\n\
         Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\r\n\
         Supported: timer,ice,replaces,outbound\r\nUser-Agent: JsSIP 3.10.1\r\nContent-Length: {}\r\n\r\n{OFFER}",
        OFFER.len()
    );
    assert!(invite.len() > 2_500, "what came was much longer: {}", invite.len());
    net.receive(EDGE, &invite);
    let (ticket, asked) = net.relay_asked();
    let flags = ng::Flags::parse(&asked).expect("flags that our relay knows");
    assert!(flags.ignored.is_empty(), "{:?}", flags.ignored);
    let input = crate::rewrite::Input {
        sdp: asked.get_bytes("sdp").expect("an SDP"),
        kind: crate::rewrite::Kind::Offer,
        sender: crate::media::plan::Side::Offerer,
        flags: &flags,
        cuts: false,
    };
    let rewritten = crate::rewrite::rewrite(&input, &mut crate::rewrite::Memory::default(), &mut Relay);
    let sdp = rewritten.expect("an offer for a phone").sdp;
    assert!(sdp.len() < 450, "{}:\n{}", sdp.len(), String::from_utf8_lossy(&sdp));
    net.relay_says(ticket, Some(ng::Dict::new().with("result", "ok").with("sdp", sdp)));
    let leaves = net.last("203.0.113.7:19145");
    assert!(leaves.starts_with("INVITE ") && leaves.contains("m=audio 38210 RTP/AVP "), "{leaves}");
    assert!(leaves.len() < 1_450, "{}:\n{leaves}", leaves.len());
}
