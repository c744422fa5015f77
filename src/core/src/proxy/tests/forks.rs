//! Branches: CANCEL (§9), forking and the best answer (§16.7), timer C and the ring timeout.

use super::*;

#[test]
fn cancel_reaches_the_branches_and_ends_in_487() {
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let invite = Call::new("INVITE", "sip:bob@example.com");
    net.call(&invite);
    let at_bob = net.last(BOB);
    net.receive(BOB, &respond(&at_bob, 180, "tb", "sip:bob@x", ""));
    let cancel = Call { branch: invite.branch.clone(), ..Call::new("CANCEL", "sip:bob@example.com") };
    net.call(&cancel);
    assert_eq!(net.status(), 200);
    assert!(net.last(BOB).starts_with("CANCEL sip:bob@192.0.2.2:5060 "), "{}", net.last(BOB));
    net.receive(BOB, &respond(&at_bob, 487, "tb", "", ""));
    assert_eq!(net.status(), 487);
    assert!(net.last(BOB).starts_with("ACK "), "hop by hop");

    let lost = Call { branch: "z9hG4bKnone".into(), ..Call::new("CANCEL", "sip:bob@example.com") };
    net.call(&lost);
    assert_eq!(net.status(), 481);
}

#[test]
fn a_cancel_drops_the_question_that_is_open() {
    let mut net = Net::new(config());
    net.store_answers = false;
    let invite = Call::new("INVITE", "sip:bob@example.com");
    net.call(&invite);
    net.call(&Call { branch: invite.branch.clone(), ..Call::new("CANCEL", "sip:bob@example.com") });
    let codes: Vec<u16> = net.to(ALICE).iter().map(|text| status_of(text)).collect();
    assert_eq!(codes, [200, 487]);
    assert!(net.proxy.tickets.is_empty());
}

#[test]
fn forks_to_all_and_cancels_the_losers() {
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    net.bind("bob", &format!("sip:bob@{BOB_TOO}"), None);
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    let (one, two) = (net.last(BOB), net.last(BOB_TOO));
    net.receive(BOB, &respond(&one, 180, "t1", "sip:bob@x", ""));
    net.receive(BOB_TOO, &respond(&two, 180, "t2", "sip:bob@x", ""));
    net.receive(BOB_TOO, &respond(&two, 200, "t2", "sip:bob@x", ""));
    assert_eq!(net.status(), 200);
    assert!(net.last(BOB).starts_with("CANCEL "));
    net.receive(BOB, &respond(&one, 487, "t1", "", ""));
    assert!(net.to(ALICE).is_empty(), "the caller has his answer");
}

#[test]
fn the_best_answer_of_all_branches_goes_back() {
    for (fork, codes, best) in [
        (Fork::Parallel, [404, 486], 486),
        (Fork::Parallel, [486, 603], 603),
        (Fork::Serial, [480, 486], 486),
        (Fork::None, [486, 0], 486),
    ] {
        let mut net = Net::new(Config { fork, ..config() });
        net.bind("bob", &format!("sip:bob@{BOB}"), None);
        net.now = net.now + Duration::from_secs(1);
        net.bind("bob", &format!("sip:bob@{BOB_TOO}"), None);
        net.call(&Call::new("INVITE", "sip:bob@example.com"));
        let mut requests: Vec<(String, String)> = Vec::new();
        for code in codes {
            for address in [BOB, BOB_TOO] {
                if let Some(request) = net.to(address).iter().find(|text| text.starts_with("INVITE")) {
                    requests.push((address.to_owned(), request.to_string()));
                }
            }
            if code != 0 {
                let (address, request) = requests.remove(0);
                net.receive(&address, &respond(&request, code, "t", "", ""));
            }
        }
        assert_eq!(net.status(), best, "{fork:?} {codes:?}");
    }
}

/// Two bindings that lead back to us would make 2^70 requests of one (RFC 5393).
#[test]
fn bindings_that_lead_back_to_us_end_at_the_second_pass() {
    let mut net = Net::new(config());
    // A host of our name, at an address that we do not know to be ours.
    net.bind("bob", "sip:bob@example.com;maddr=192.0.2.77;x=1", None);
    net.bind("bob", "sip:bob@example.com;maddr=192.0.2.77;x=2", None);
    net.call(&Call::new("MESSAGE", "sip:bob@example.com"));
    let out: Vec<String> = net.to("192.0.2.77:5060").iter().map(|text| text.to_string()).collect();
    assert_eq!(out.len(), 2);
    for request in &out {
        net.receive("192.0.2.77:5060", request);
        assert_eq!(net.sent.len(), 1, "{:?}", net.sent);
        assert_eq!(status_of(&net.last("192.0.2.77:5060")), 482);
        let answer = net.last("192.0.2.77:5060");
        net.receive("192.0.2.77:5060", &answer);
    }
    assert_eq!(net.status(), 482);
    // Who is reached by way of another user's binding is none.
    net.bind("carol", "sip:dave@example.com;maddr=192.0.2.77", None);
    net.bind("dave", &format!("sip:dave@{BOB_TOO}"), None);
    let mut call = Call::new("MESSAGE", "sip:carol@example.com");
    call.branch = "z9hG4bKspiral".into();
    net.call(&call);
    let request = net.last("192.0.2.77:5060");
    net.receive("192.0.2.77:5060", &request);
    assert!(net.last(BOB_TOO).starts_with("MESSAGE "));
}

#[test]
fn nobody_answers_ends_with_the_ring_timeout() {
    let mut net = Net::new(Config { ring_timeout: Duration::from_secs(20), ..config() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    let at_bob = net.last(BOB);
    net.receive(BOB, &respond(&at_bob, 180, "tb", "sip:bob@x", ""));
    net.wait(Duration::from_secs(19));
    assert_eq!(net.status(), 180);
    net.wait(Duration::from_secs(1));
    assert_eq!(net.status(), 408);
    assert!(net.last(BOB).starts_with("CANCEL "));
}

#[test]
fn timer_c_ends_a_branch_that_rings_for_ever() {
    let mut net = Net::new(Config { ring_timeout: Duration::from_secs(100_000), ..config() });
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    let at_bob = net.last(BOB);
    net.receive(BOB, &respond(&at_bob, 180, "tb", "sip:bob@x", ""));
    net.wait(Duration::from_secs(100));
    net.receive(BOB, &respond(&at_bob, 180, "tb", "sip:bob@x", ""));
    net.wait(Duration::from_secs(184));
    assert_eq!(net.status(), 180);
    net.wait(Duration::from_secs(1));
    assert_eq!(net.status(), 408);
}

#[test]
fn a_branch_that_cannot_be_reached_is_503() {
    let mut net = Net::new(config());
    net.bind("bob", "sip:bob@192.0.2.2;transport=tcp", None);
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    let (target, data) = net.sent.last().expect("an INVITE").clone();
    assert_eq!(target.transport(), Transport::Tcp);
    let data = Bytes::from(data);
    net.proxy.handle_input(net.now, Input::SendFailed { target, data });
    net.drain();
    assert_eq!(net.status(), 503);
}
