//! Answers that come too late or whose media cannot be had, BYEs that cross, and the breadth of a fork (RFC 5393).

use super::*;
use crate::transaction::timing;

/// What Bob was sent, by its request line's method.
fn methods(net: &Net, address: &str) -> Vec<String> {
    net.to(address).iter().map(|text| text.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_callee_that_answers_after_the_ring_timeout_is_hung_up_on() {
    let mut net = Net::new(Config { ring_timeout: Duration::from_secs(20), ..config() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    let at_bob = net.last(BOB);
    net.receive(BOB, &respond(&at_bob, 180, "tb", "sip:bob@x", ""));
    net.wait(Duration::from_secs(20));
    assert_eq!(net.status(), 408);
    net.receive(
        ALICE,
        &Call { branch: "z9hG4bKINVITE1".into(), ..Call::new("ACK", "sip:bob@example.com") }.text(),
    );
    // The caller's transaction is long over; the callee, behind two proxies of its own, picks up at last.
    net.wait(Duration::from_secs(8));
    let routes =
        "Record-Route: <sip:far@192.0.2.90;lr>\r\nRecord-Route: <sip:near@192.0.2.91;lr>\r\nRecord-Route";
    let late = respond(&at_bob, 200, "tb", "sip:bob@192.0.2.77", "").replacen("Record-Route", routes, 1);
    net.receive(BOB, &late);
    assert_eq!(methods(&net, BOB), ["ACK", "BYE"]);
    for (nth, cseq) in [(0, "1 ACK"), (1, "2 BYE")] {
        let text = net.to(BOB)[nth];
        let message = Message::parse(text.as_bytes()).expect("a message");
        assert_eq!(message.check(), Ok(()), "{text}");
        assert_eq!(message.request_uri(), b"sip:bob@192.0.2.77");
        assert_eq!(header(text, "CSeq"), Some(cseq));
        assert_eq!(header(text, "To"), Some("<sip:bob@example.com>;tag=tb"));
        let hosts: Vec<_> = message.routes().map(|route| route.expect("a route").uri.host).collect();
        assert_eq!(
            hosts,
            ["192.0.2.91", "192.0.2.90"],
            "the nearest first, and nothing of ours or before us"
        );
    }
    assert!(net.to(ALICE).is_empty(), "the caller has his answer");
    // Its ACK was lost: each copy gets one, the BYE repeats itself.
    net.receive(BOB, &late);
    assert_eq!(methods(&net, BOB), ["ACK"]);
    // Another phone behind the same branch.
    net.receive(BOB, &late.replace("tag=tb", "tag=tc"));
    assert_eq!(methods(&net, BOB), ["ACK", "BYE"]);
    assert_eq!(net.events().iter().filter(|name| **name == "hung-up").count(), 2);
    net.wait(timing::T1 * 64 * 2);
    assert!(net.proxy.contexts.is_empty() && net.proxy.by_client.is_empty(), "nothing is left");
}

#[test]
fn a_callee_whose_media_no_relay_has_is_hung_up_on() {
    let mut net =
        Net::new(Config { relays: vec!["one".into()], relay_policy: RelayPolicy::Always, ..config() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    invite.body = PHONE_SDP;
    net.call(&invite);
    net.relay_gives("v=0\r\nOFFER\r\n");
    let at_bob = net.last(BOB);
    let answer = respond(&at_bob, 200, "tb", "sip:bob@192.0.2.2", PHONE_SDP);
    net.receive(BOB, &answer);
    let (ticket, _) = net.relay_asked();
    net.relay_says(ticket, Some(ng::Dict::new().with("result", "error").with("error-reason", "no")));
    assert_eq!(net.status(), 488);
    assert_eq!(methods(&net, BOB), ["ACK", "BYE"]);
    net.receive(BOB, &answer);
    assert_eq!(methods(&net, BOB), ["ACK"]);
    assert!(!net.events().contains(&"call-answered"), "{:?}", net.events());
}

#[test]
fn a_2xx_behind_a_603_is_hung_up_on() {
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    net.bind("bob", &format!("sip:bob@{BOB_TOO}"), None);
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    let (one, two) = (net.last(BOB), net.last(BOB_TOO));
    net.receive(BOB, &respond(&one, 180, "t1", "sip:bob@192.0.2.2", ""));
    net.receive(BOB_TOO, &respond(&two, 603, "t2", "", ""));
    assert_eq!(methods(&net, BOB), ["CANCEL"]);
    // It was picked up before the CANCEL came: the caller, who has no final answer yet, gets it.
    net.receive(BOB, &respond(&one, 200, "t1", "sip:bob@192.0.2.2", ""));
    assert_eq!(net.status(), 200);
    assert!(net.to(BOB).is_empty());
}

#[test]
fn byes_that_cross_end_a_call_once() {
    let mut net = Net::new(config());
    let route = net.established();
    net.wait(Duration::from_secs(3));
    net.call(&in_dialog("BYE", &route));
    let theirs = Call {
        source: BOB,
        from: "bob@example.com",
        from_tag: "tb",
        to_tag: "ta",
        branch: "z9hG4bKtheirs".into(),
        ..in_dialog("BYE", &route)
    };
    net.call(&theirs);
    assert!(net.last(ALICE).starts_with("BYE "), "both go through");
    let ends: Vec<_> = net.told.iter().filter(|event| event.name == "call-end").collect();
    assert_eq!(ends.len(), 1, "{:?}", net.events());
    assert!(ends[0].fields.iter().any(|(name, value)| *name == "seconds" && value == "3.000"), "{ends:?}");
    // The same Call-ID with other tags is another call.
    let other = Call { from_tag: "other", branch: "z9hG4bKother".into(), ..in_dialog("BYE", &route) };
    net.call(&other);
    assert_eq!(net.status(), 403, "whose token this is not");
}

#[test]
fn a_fork_divides_the_breadth_that_it_came_with() {
    for (came, first, shares) in
        [("", 3, Some("20")), ("Max-Breadth: 6\r\n", 3, Some("2")), ("Max-Breadth: 2\r\n", 2, Some("1"))]
    {
        let mut net = Net::new(config());
        let phones = [BOB, BOB_TOO, "192.0.2.4:5060"];
        for phone in phones {
            net.bind("bob", &format!("sip:bob@{phone}"), None);
        }
        net.call(&Call { extra: came.into(), ..Call::new("INVITE", "sip:bob@example.com") });
        let asked: Vec<&str> = phones.iter().flat_map(|phone| net.to(phone)).collect();
        assert_eq!(asked.len(), first, "{came:?}");
        for text in &asked {
            assert_eq!(header(text, "Max-Breadth"), shares, "{came:?}");
            assert_eq!(text.matches("Max-Breadth").count(), 1);
        }
        // The last one's turn comes when the others are done: it has all the breadth to itself.
        let asked: Vec<String> = asked.into_iter().map(str::to_owned).collect();
        let mut rest = Vec::new();
        for text in &asked {
            let uri = text.split(' ').nth(1).expect("a Request-URI");
            let phone = uri.split('@').nth(1).expect("an address");
            net.receive(phone, &respond(text, 486, "t", "", ""));
            rest.extend(
                net.sent.iter().filter(|(_, text)| text.starts_with("INVITE ")).map(|(_, text)| text.clone()),
            );
        }
        assert_eq!(rest.len(), 3 - first, "{came:?}");
        if let Some(last) = rest.first() {
            assert_eq!(header(last, "Max-Breadth"), Some("2"));
        }
    }
    // One phone: what came goes on, and nothing is added.
    for came in ["", "Max-Breadth: 7\r\n"] {
        let mut net = Net::new(config());
        net.bind("bob", &format!("sip:bob@{BOB}"), None);
        net.call(&Call { extra: came.into(), ..Call::new("INVITE", "sip:bob@example.com") });
        assert_eq!(header(&net.last(BOB), "Max-Breadth"), came.trim_end().strip_prefix("Max-Breadth: "));
    }
}

#[test]
fn a_request_that_comes_back_from_outside_unchanged_is_a_loop() {
    let route = Route { pattern: "*".into(), uri: "sip:192.0.2.60".into() };
    let mut net = Net::new(Config { routes: vec![route], ..config() });
    net.call(&Call::new("INVITE", "sip:carol@example.net"));
    let there = net.last("192.0.2.60:5060");
    net.receive("192.0.2.60:5060", &there);
    assert_eq!(status_of(&net.last("192.0.2.60:5060")), 482);
    // A spiral, which comes back for somebody else, is none (RFC 3261 §16.3 step 4).
    let other = there.replacen("sip:carol@", "sip:dave@", 1).replace("branch=z9hG4bK00", "branch=z9hG4bK01");
    net.receive("192.0.2.60:5060", &other);
    assert!(net.to("192.0.2.60:5060").iter().any(|text| text.starts_with("INVITE sip:dave@")));
}

#[test]
fn what_waits_for_a_relay_is_bounded_in_bytes() {
    let mut net =
        Net::new(Config { relays: vec!["one".into()], relay_policy: RelayPolicy::Always, ..config() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let large = format!("{PHONE_SDP}{}", "a=x\r\n".repeat(12_000));
    // Each ringing answer waits behind the first, for a relay that is silent.
    let calls = limits::PROXY_BYTES / (8 * large.len()) + 20;
    let mut most = 0;
    for nth in 0..calls {
        // What the relay was asked before, it never answers.
        net.asked.clear();
        let (branch, call_id) = (format!("z9hG4bK{nth}"), format!("call-{nth}"));
        net.call(&Call {
            branch,
            call_id: &call_id,
            body: PHONE_SDP,
            ..Call::new("INVITE", "sip:bob@example.com")
        });
        net.relay_gives("v=0\r\n");
        let answer = respond(&net.last(BOB), 183, "tb", "sip:bob@192.0.2.2", &large);
        for _ in 0..10 {
            net.receive(BOB, &answer);
        }
        most = most.max(net.proxy.held);
    }
    assert!(most <= limits::PROXY_BYTES, "{most}");
    assert!(most > limits::PROXY_BYTES - limits::SIP_MESSAGE_BYTES, "the bound was reached: {most}");
    net.wait(Duration::from_secs(400));
    assert_eq!(net.proxy.held, 0);
    assert!(net.proxy.contexts.is_empty());
}
