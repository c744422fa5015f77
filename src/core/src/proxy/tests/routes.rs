//! Where requests outside of a dialog go: RFC 3261 §16.3 to §16.7, RFC 3327, `--registrar`, `--presence`, `--route`.

use super::*;
use crate::flow::ServerKey;
use crate::resolve::Hop;

#[test]
fn a_call_goes_through_and_ends() {
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    invite.body = PHONE_SDP;
    net.call(&invite);
    assert_eq!(status_of(net.to(ALICE)[0]), 100, "before anything else");
    let at_bob = net.last(BOB);
    assert!(at_bob.starts_with(&format!("INVITE sip:bob@{BOB} SIP/2.0\r\n")), "{at_bob}");
    assert!(at_bob.contains("\r\nMax-Forwards: 69\r\n"), "{at_bob}");
    assert!(at_bob.ends_with(PHONE_SDP), "SIP to SIP without NAT goes without a relay");
    assert_eq!(at_bob.matches("\r\nVia: ").count(), 2);
    let route = header(&at_bob, "Record-Route").expect("a Record-Route").to_owned();
    assert!(route.starts_with("<sip:") && route.ends_with("@192.0.2.50:5060;lr>"), "{route}");
    assert_eq!(route.split(['<', '@']).nth(1).expect("a token").len(), "sip:".len() + 43);

    let contact = format!("sip:bob@{BOB}");
    net.receive(BOB, &respond(&at_bob, 180, "tb", &contact, ""));
    let ringing = net.last(ALICE);
    assert_eq!(status_of(&ringing), 180);
    assert_eq!(ringing.matches("\r\nVia: ").count(), 1, "{ringing}");
    net.receive(BOB, &respond(&at_bob, 200, "tb", &contact, PHONE_SDP));
    assert_eq!(net.status(), 200);
    // The callee repeats its 2xx, and each goes on.
    net.receive(BOB, &respond(&at_bob, 200, "tb", &contact, PHONE_SDP));
    assert_eq!(net.status(), 200);

    net.call(&Call { branch: "z9hG4bKack".into(), cseq: 1, ..in_dialog("ACK", &route) });
    let ack = net.last(BOB);
    assert!(ack.starts_with("ACK sip:bob@192.0.2.2:5060 SIP/2.0\r\n"), "{ack}");
    assert_eq!(header(&ack, "Route"), None);

    // From the callee: the same Route, tags swapped.
    let bye = format!(
        "BYE sip:alice@{ALICE} SIP/2.0\r\nVia: SIP/2.0/UDP {BOB};branch=z9hG4bKbye\r\nMax-Forwards: 70\r\n\
         From: <sip:bob@example.com>;tag=tb\r\nTo: <sip:alice@example.com>;tag=ta\r\nCall-ID: call-1\r\nCSeq: 1 BYE\r\n\
         Route: {route}\r\nContent-Length: 0\r\n\r\n"
    );
    net.receive(BOB, &bye);
    let at_alice = net.last(ALICE);
    assert!(at_alice.starts_with("BYE sip:alice@192.0.2.1:5060 "), "{at_alice}");
    net.receive(ALICE, &respond(&at_alice, 200, "", "sip:x", ""));
    assert_eq!(status_of(&net.last(BOB)), 200);
    assert_eq!(net.events(), ["call-start", "call-answered", "call-end"]);
    assert!(net.asked.is_empty(), "no relay was asked");

    net.wait(Duration::from_secs(200));
    assert!(net.proxy.is_idle());
    assert!(
        net.proxy.contexts.is_empty() && net.proxy.by_client.is_empty() && net.proxy.by_server.is_empty()
    );
    assert_eq!(net.proxy.poll_timeout(), None);
}

#[test]
fn sanity_has_the_right_answers() {
    let cases: &[(&str, &str, &str, u16)] = &[
        ("Max-Forwards: 70", "Max-Forwards: 0", "hops", 483),
        ("sip:bob@example.com SIP", "mailto:bob@example.com SIP", "scheme", 416),
        ("SIP/2.0\r\nVia", "SIP/3.0\r\nVia", "version", 505),
        ("CSeq: 1 INVITE", "CSeq: 1 BYE", "CSeq", 400),
        ("Max-Forwards: 70", "Max-Forwards: x", "Max-Forwards", 400),
        ("Max-Forwards: 70", "Proxy-Require: foo", "extension", 420),
        ("Content-Length: 0", "Content-Length: 99", "length", 400),
        ("sip:bob@example.com SIP", "sip:example.com SIP", "no user", 484),
        ("sip:bob@example.com SIP", "sip:nobody@example.com SIP", "nobody", 404),
        ("From: <sip:alice@example.com>;tag=ta", "From: <<sip", "From", 400),
    ];
    for (from, to, what, status) in cases {
        let mut net = Net::new(config());
        let text = Call::new("INVITE", "sip:bob@example.com").text();
        assert!(text.contains(from), "{what}");
        net.receive(ALICE, &text.replacen(from, to, 1));
        assert_eq!(net.status(), *status, "{what}: {}", net.last(ALICE));
        assert_eq!(net.told.len(), 1, "{what}: one clear line: {:?}", net.told);
    }
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    invite.body = "this is no SDP";
    net.call(&invite);
    assert_eq!(net.status(), 488);
    net.receive(ALICE, "\0\0garbage");
    assert!(net.sent.is_empty());
    net.receive(ALICE, "ACK sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP x\r\nCSeq: 1 INVITE\r\n\r\n");
    assert!(net.sent.is_empty(), "an ACK is never answered");
}

#[test]
fn register_is_passed_with_a_path_at_the_first_hop_only() {
    let mut net = Net::new(config());
    let register = Call::new("REGISTER", "sip:example.com").text();
    net.receive(ALICE, &register);
    let passed = net.last(REGISTRAR);
    assert!(passed.starts_with("REGISTER sip:example.com SIP/2.0"), "{passed}");
    let path = header(&passed, "Path").expect("a Path");
    assert!(path.ends_with("@192.0.2.50:5060;lr;ob>"), "{path}");
    assert_eq!(header(&passed, "Contact"), Some("<sip:alice@192.0.2.1:5060>"), "the registrar's business");

    // The registrar believes what we bring: a client's own words about the way to it stay here, also where it pretends
    // that there was a hop before us.
    let forged = register.replace("Contact:", "Path: <sip:203.0.113.9;lr>\r\nContact:");
    net.receive(ALICE, &forged.replace("z9hG4bKREGISTER1", "z9hG4bKf1"));
    let passed = net.last(REGISTRAR);
    assert_eq!(passed.matches("Path: ").count(), 1, "{passed}");
    assert_eq!(header(&passed, "Path"), Some(path), "{passed}");
    let via = "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKf2\r\nVia: SIP/2.0/UDP";
    net.receive(ALICE, &forged.replace("Via: SIP/2.0/UDP", via));
    assert_eq!(header(&net.last(REGISTRAR), "Path"), None);

    // From a source that may be forged, in our name: that would be the word of an edge, which needs no password.
    let as_us = register
        .replace("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK", "SIP/2.0/UDP 192.0.2.50:5060;branch=z9hG4bKus");
    assert_ne!(as_us, register);
    net.receive(ALICE, &as_us);
    assert!(net.last(ALICE).starts_with("SIP/2.0 403 Via Names Us"));

    // Through an edge of ours: it put its own Path already.
    let via = "Via: SIP/2.0/TCP 192.0.2.40;branch=z9hG4bKe\r\nVia: SIP/2.0/UDP";
    net.receive(EDGE, &register.replace("Via: SIP/2.0/UDP", via));
    assert_eq!(header(&net.last(REGISTRAR), "Path"), None);
}

#[test]
fn a_binding_is_reached_by_the_token_in_its_path() {
    let mut net = Net::new(config());
    // Behind a NAT: the Contact leads nowhere.
    let register = Call::new("REGISTER", "sip:example.com")
        .text()
        .replace("Contact: <sip:alice@192.0.2.1:5060>", "Contact: <sip:alice@10.0.0.9>");
    net.receive("192.0.2.1:4444", &register);
    let path = header(&net.last(REGISTRAR), "Path").expect("a Path").to_owned();
    net.bind("alice", "sip:alice@10.0.0.9", Some(&path));
    let mut call = Call::new("MESSAGE", "sip:alice@example.com");
    call.source = BOB;
    call.from = "bob@example.com";
    net.call(&call);
    let got = net.last("192.0.2.1:4444");
    assert!(got.starts_with("MESSAGE sip:alice@10.0.0.9 SIP/2.0"), "{got}");
    assert_eq!(header(&got, "Route"), None, "our own Path is taken as the flow");

    // A binding of our gateway: its Path becomes Route, and the request goes there.
    net.bind("web", "sip:x@y.invalid;transport=ws", Some("<sip:TOKEN@192.0.2.40:5060;lr>"));
    call.uri = "sip:web@example.com";
    call.call_id = "call-2";
    call.branch = "z9hG4bK2".into();
    net.call(&call);
    assert_eq!(header(&net.last(EDGE), "Route"), Some("<sip:TOKEN@192.0.2.40:5060;lr>"));
}

#[test]
fn a_server_of_ours_follows_a_path_and_a_stranger_does_not() {
    let mut net = Net::new(config());
    net.receive(ALICE, &Call::new("REGISTER", "sip:example.com").text());
    let path = header(&net.last(REGISTRAR), "Path").expect("a Path").to_owned();
    let mut ping = Call::new("OPTIONS", "sip:alice@192.0.2.1:5060");
    ping.extra = format!("Route: {path}\r\n");
    ping.from = "registrar@example.org";
    ping.source = EDGE;
    net.call(&ping);
    assert!(net.last(ALICE).starts_with("OPTIONS sip:alice@192.0.2.1:5060 "));
    ping.source = STRANGER;
    ping.branch = "z9hG4bKother".into();
    net.call(&ping);
    assert!(net.to(ALICE).is_empty());
    assert_eq!(status_of(&net.last(STRANGER)), 403);
}

#[test]
fn presence_goes_to_its_server_or_is_404() {
    for method in ["SUBSCRIBE", "PUBLISH"] {
        let mut net = Net::new(config());
        net.call(&Call::new(method, "sip:bob@example.com"));
        assert_eq!(net.status(), 404);
        let mut net = Net::new(Config { presence: Some(format!("sip:{PRESENCE}")), ..config() });
        net.call(&Call::new(method, "sip:bob@example.com"));
        assert!(net.last(PRESENCE).starts_with(method));
    }
    let mut net = Net::new(config());
    let mut subscribe = Call::new("SUBSCRIBE", "sip:bob@example.com");
    subscribe.extra = "Event: reg\r\n".into();
    net.call(&subscribe);
    assert!(net.last(REGISTRAR).starts_with("SUBSCRIBE"));
}

/// Answers the challenge that Alice has got.

#[test]
fn drain_takes_no_new_calls_and_keeps_dialogs() {
    let mut net = Net::new(config());
    let route = net.established();
    net.proxy.handle_input(net.now, Input::Drain);
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    (invite.call_id, invite.branch) = ("call-9", "z9hG4bK9".into());
    net.call(&invite);
    assert_eq!(net.status(), 503);
    net.call(&in_dialog("BYE", &route));
    assert!(net.last(BOB).starts_with("BYE "));
}

#[test]
fn foreign_domains_go_by_route_or_by_themselves() {
    let routes = vec![Route { pattern: "*.example.net".into(), uri: "sip:192.0.2.77".into() }];
    let mut net = Net::new(Config { routes, ..config() });
    net.call(&Call::new("INVITE", "sip:x@pbx.example.net"));
    assert!(net.last("192.0.2.77:5060").starts_with("INVITE sip:x@pbx.example.net "));
    let mut call = Call::new("OPTIONS", "sip:x@other.example.org");
    call.branch = "z9hG4bKdns".into();
    net.call(&call);
    let (ticket, question) = net.asked.remove(0);
    assert!(
        matches!(question, Question::Locate(wanted) if wanted.host == "other.example.org" && wanted.port.is_none())
    );
    let hop = |remote: &str| Hop { transport: Transport::Udp, remote: remote.parse().expect("an address") };
    let reply = Reply::Locate(vec![hop("[2001:db8::1]:5060"), hop(BOB)]);
    net.proxy.handle_input(net.now, Input::Answer { ticket, reply });
    net.drain();
    assert!(net.last(BOB).starts_with("OPTIONS "), "the one for which there is a socket");
}

fn hop(transport: Transport, remote: &str) -> Hop {
    Hop { transport, remote: remote.parse().expect("an address") }
}

/// A proxy that listens by UDP and TCP.
fn with_tcp() -> Config {
    let mut config = config();
    let tcp = Listener { id: ListenerId(1), transport: Transport::Tcp, ..config.listeners[0].clone() };
    config.listeners.push(tcp);
    config
}

/// Answers the question where `other.example.org` is, in a new call to there.
fn locate(net: &mut Net, number: u32, hops: &[Hop]) {
    let call_id = format!("call-to-{number}");
    let mut call = Call::new("INVITE", "sip:x@other.example.org");
    (call.branch, call.call_id) = (format!("z9hG4bKto{number}"), &call_id);
    net.call(&call);
    let (ticket, question) = net.asked.remove(0);
    assert!(matches!(question, Question::Locate(_)), "{question:?}");
    net.proxy.handle_input(net.now, Input::Answer { ticket, reply: Reply::Locate(hops.to_vec()) });
    net.drain();
}

fn lost(net: &mut Net, to: &str) {
    let (target, text) = net
        .sent
        .iter()
        .rev()
        .find(|(target, _)| target.remote() == to.parse().expect("one"))
        .cloned()
        .expect("sent");
    net.proxy.handle_input(net.now, Input::SendFailed { target, data: Bytes::from(text) });
    net.drain();
}

#[test]
fn the_next_server_has_its_turn_and_a_dead_one_is_left_out() {
    let mut net = Net::new(with_tcp());
    let (one, two, three) = ("198.51.100.1:5060", "198.51.100.2:5060", "198.51.100.3:5060");
    let hops = [hop(Transport::Tcp, one), hop(Transport::Udp, two), hop(Transport::Udp, three)];
    locate(&mut net, 1, &hops);
    let first = net.last(one);
    assert!(first.contains("Via: SIP/2.0/TCP "), "{first}");
    assert!(net.to(two).is_empty());
    lost(&mut net, one);
    // 503: the next one; what is asked for elsewhere has a branch of its own.
    let second = net.last(two);
    assert!(second.contains("Via: SIP/2.0/UDP ") && net.to(three).is_empty(), "{second}");
    net.receive_on(udp(two), &respond(&second, 503, "t2", "sip:x@198.51.100.2", ""));
    let third = net.last(three);
    assert_ne!(header(&second, "Via"), header(&third, "Via"));
    net.receive_on(udp(three), &respond(&third, 486, "t3", "sip:x@198.51.100.3", ""));
    assert_eq!(net.status(), 486, "the best of them, and not the 503");
    // A 503 is somebody's word; who could not be reached is left out.
    locate(&mut net, 2, &hops);
    assert!(net.to(one).is_empty() && net.last(two).starts_with("INVITE "));
    net.wait(Duration::from_secs(61));
    locate(&mut net, 3, &hops);
    assert!(net.last(one).starts_with("INVITE "));
}

#[test]
fn a_server_that_says_nothing_is_passed_over_after_the_time_out() {
    let mut net = Net::new(with_tcp());
    let (one, two) = ("198.51.100.1:5060", "198.51.100.2:5060");
    let hops = [hop(Transport::Udp, one), hop(Transport::Udp, two)];
    locate(&mut net, 1, &hops);
    net.wait(Duration::from_secs(31));
    assert!(net.to(two).is_empty());
    net.wait(Duration::from_secs(2));
    assert!(net.last(two).starts_with("INVITE "));
    // A cancelled one is not tried elsewhere.
    locate(&mut net, 2, &[hop(Transport::Udp, two), hop(Transport::Udp, "198.51.100.3:5060")]);
    let mut cancel = Call::new("CANCEL", "sip:x@other.example.org");
    (cancel.branch, cancel.call_id) = ("z9hG4bKto2".into(), "call-to-2");
    net.call(&cancel);
    net.wait(Duration::from_secs(70));
    assert!(net.to("198.51.100.3:5060").is_empty());
}

#[test]
fn a_long_request_goes_by_tcp_and_comes_back_to_udp() {
    let there = "198.51.100.4:5060";
    let big = "x".repeat(1200);
    let send = |net: &mut Net, number: u32, uri: &str| {
        let call_id = format!("big-{number}");
        let mut call = Call::new("MESSAGE", uri);
        (call.branch, call.call_id) = (format!("z9hG4bKbig{number}"), &call_id);
        call.extra = format!("Subject: {big}\r\n");
        net.call(&call);
    };
    let stream = |net: &Net| -> Vec<Transport> {
        let there = there.parse().expect("an address");
        net.sent
            .iter()
            .filter(|(target, _)| target.remote() == there)
            .map(|(target, _)| target.transport())
            .collect()
    };
    // Refused: at once a datagram; and the next one does not ask again.
    let mut net = Net::new(with_tcp());
    send(&mut net, 1, "sip:x@198.51.100.4");
    assert_eq!(stream(&net), [Transport::Tcp]);
    assert!(net.last(there).contains("Via: SIP/2.0/TCP "));
    lost(&mut net, there);
    assert_eq!(stream(&net), [Transport::Tcp, Transport::Udp]);
    assert!(net.last(there).contains("Via: SIP/2.0/UDP "));
    send(&mut net, 2, "sip:x@198.51.100.4");
    assert_eq!(stream(&net), [Transport::Udp]);
    // Silent: two seconds.
    let mut net = Net::new(with_tcp());
    send(&mut net, 3, "sip:x@198.51.100.4");
    net.wait(Duration::from_millis(1900));
    assert_eq!(stream(&net), [Transport::Tcp]);
    net.wait(Duration::from_millis(200));
    assert_eq!(stream(&net), [Transport::Tcp, Transport::Udp]);
    // Answered: that is it.
    let mut net = Net::new(with_tcp());
    send(&mut net, 4, "sip:x@198.51.100.4");
    let (target, text) = net.sent.last().cloned().expect("sent");
    assert_eq!(
        target,
        Target::Address {
            listener: ListenerId(1),
            transport: Transport::Tcp,
            remote: there.parse().expect("one"),
            server: ServerKey::ADDRESS
        }
    );
    net.receive(there, &respond(&text, 200, "t", "sip:x@198.51.100.4", ""));
    net.wait(Duration::from_secs(5));
    assert_eq!(stream(&net).len(), 0, "nothing more went there");
    // Who says UDP means it, and a short one needs no TCP.
    let mut net = Net::new(with_tcp());
    send(&mut net, 5, "sip:x@198.51.100.4;transport=udp");
    assert_eq!(stream(&net), [Transport::Udp]);
    net.call(&Call::new("MESSAGE", "sip:x@198.51.100.4"));
    assert_eq!(stream(&net), [Transport::Udp]);
}

/// `--local-net`: each side of a call is told the address by which it reaches us, and comes back by it.
#[test]
fn who_is_near_is_told_the_address_itself() {
    let told = |near: &[&str]| {
        let mut config = config();
        for listener in &mut config.listeners {
            (listener.advertised_host, listener.advertised_port) = ("sip.example.com".into(), 5090);
            listener.local_nets = near.iter().map(|net| net.parse().expect("a network")).collect();
        }
        let own = config.listeners[0].local.to_string();
        let mut net = Net::new(config);
        net.bind("bob", &format!("sip:bob@{BOB}"), None);
        let mut invite = Call::new("INVITE", "sip:bob@example.com");
        invite.body = PHONE_SDP;
        net.call(&invite);
        let at_bob = net.last(BOB);
        net.receive(BOB, &respond(&at_bob, 200, "tb", &format!("sip:bob@{BOB}"), PHONE_SDP));
        // The caller's way is the other way round (RFC 3261 section 12.1.2).
        let mut routes: Vec<String> = net
            .last(ALICE)
            .lines()
            .filter_map(|line| line.strip_prefix("Record-Route: ").map(str::to_owned))
            .collect();
        routes.reverse();
        let mut bye = Call::new("BYE", "sip:bob@192.0.2.20");
        (bye.to_tag, bye.cseq) = ("tb", 2);
        bye.extra = routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
        net.call(&bye);
        let bye = net.last(BOB);
        assert!(bye.starts_with("BYE ") && header(&bye, "Route").is_none(), "{bye}");
        let is_own = |text: &str| {
            assert!(text.contains(&own) != text.contains("sip.example.com:5090"), "{text}");
            text.contains(&own)
        };
        (
            is_own(header(&at_bob, "Via").expect("a Via")),
            routes.iter().map(|route| is_own(route)).collect::<Vec<_>>(),
        )
    };
    let (alice, bob) =
        (ALICE.split(':').next().expect("an address"), BOB.split(':').next().expect("an address"));
    assert_eq!(told(&[]), (false, vec![false]));
    assert_eq!(told(&[alice, bob]), (true, vec![true]));
    assert_eq!(told(&[alice]), (false, vec![true, false]), "the nearest one first");
    assert_eq!(told(&[bob]), (true, vec![false, true]));
}

#[test]
fn a_ping_is_answered_alike_and_nothing_is_kept_of_it() {
    let us = format!("sip:{PROXY}");
    let mut net = Net::new(Config { auth: Auth::Digest, ..config() });
    let mut ping = Call::new("OPTIONS", &us);
    ping.from = "monitor@example.org";
    net.call(&ping);
    let first = net.last(ALICE);
    assert_eq!(status_of(&first), 200);
    assert!(header(&first, "To").is_some_and(|to| to.contains(";tag=")), "{first}");
    assert_eq!(header(&first, "Supported"), Some("path, outbound"));
    net.call(&ping);
    assert_eq!(net.last(ALICE), first, "a copy gets the same answer");
    ping.branch = "z9hG4bKnext".into();
    ping.cseq = 2;
    net.call(&ping);
    assert_ne!(header(&net.last(ALICE), "To"), header(&first, "To"), "another one has another tag");
    assert_eq!(net.proxy.layer.held(), transaction::Held::default());
    assert!(net.proxy.contexts.is_empty() && net.proxy.by_server.is_empty());
    // What has to be proved, or is wrong, goes the ordinary way.
    ping.from = "alice@example.com";
    ping.branch = "z9hG4bKclaims".into();
    net.call(&ping);
    assert_eq!(net.status(), 407);
    ping.from = "monitor@example.org";
    for (nth, (extra, status)) in
        [("Proxy-Require: magic\r\n", 420), ("Route: <sip:203.0.113.9;lr>\r\n", 200)].iter().enumerate()
    {
        ping.branch = format!("z9hG4bKextra{nth}");
        ping.extra = (*extra).into();
        net.call(&ping);
        assert_eq!(net.status(), *status, "{extra}");
    }
    assert_eq!(net.proxy.layer.held().servers, 3);
}

/// A proxy whose calls to `example.net` go out by a trunk.
fn with_trunk() -> Config {
    Config { routes: vec![Route { pattern: "example.net".into(), uri: format!("sip:{BOB}") }], ..config() }
}

/// An established call by the trunk, which stays in the way by its name (RFC 3261 §16.6 step 4): our route, then its.
fn by_a_name(net: &mut Net) -> String {
    net.call(&Call::new("INVITE", "sip:bob@example.net"));
    let ours = header(&net.last(BOB), "Record-Route").expect("a Record-Route").to_owned();
    net.receive(BOB, &respond(&net.last(BOB), 200, "tb", "sip:bob@198.51.100.9", ""));
    assert_eq!(net.status(), 200);
    format!("{ours}, <sip:edge.example.org;lr>")
}

#[test]
fn an_ack_goes_to_a_name_as_its_invite_did() {
    let mut net = Net::new(with_trunk());
    let route = by_a_name(&mut net);
    net.call(&Call { branch: "z9hG4bKack".into(), cseq: 1, ..in_dialog("ACK", &route) });
    let (ticket, question) = net.asked.remove(0);
    assert!(matches!(question, Question::Locate(wanted) if wanted.host == "edge.example.org"));
    let found =
        vec![hop(Transport::Tls, BOB), hop(Transport::Tcp, "198.51.100.1:5060"), hop(Transport::Udp, BOB)];
    net.proxy.handle_input(net.now, Input::Answer { ticket, reply: Reply::Locate(found) });
    net.drain();
    let ack = net.last("198.51.100.1:5060");
    assert!(
        ack.starts_with("ACK sip:bob@") && header(&ack, "Route") == Some("<sip:edge.example.org;lr>"),
        "{ack}"
    );
    // A name that leads nowhere, and one whose server is silent: no ACK, nothing left.
    for answer in [true, false] {
        net.call(&Call { branch: format!("z9hG4bKack{answer}"), cseq: 1, ..in_dialog("ACK", &route) });
        let (ticket, _) = net.asked.remove(0);
        if answer {
            net.proxy.handle_input(net.now, Input::Answer { ticket, reply: Reply::Locate(Vec::new()) });
        }
        net.wait(Duration::from_secs(70));
        assert!(net.sent.is_empty());
    }
    assert!(net.proxy.tickets.is_empty());
    assert_eq!(net.proxy.held, 0);
}

#[test]
fn a_transport_that_nobody_listens_for_is_told_with_its_mend() {
    let mut net = Net::new(with_trunk());
    let route = by_a_name(&mut net);
    let tls = vec![hop(Transport::Tls, "198.51.100.1:5061")];
    // An INVITE by its Request-URI, and an ACK by its Route.
    locate(&mut net, 1, &tls);
    assert_eq!(net.status(), 503);
    net.call(&Call { branch: "z9hG4bKack".into(), cseq: 1, ..in_dialog("ACK", &route) });
    let (ticket, _) = net.asked.remove(0);
    net.proxy.handle_input(net.now, Input::Answer { ticket, reply: Reply::Locate(tls) });
    net.drain();
    let told: Vec<_> = net.told.iter().filter(|event| event.name == "no-listener").collect();
    let field = |nth: usize, key: &str| {
        told[nth].fields.iter().find(|(name, _)| *name == key).map(|(_, value)| value.to_string())
    };
    for (nth, host) in ["other.example.org", "edge.example.org"].into_iter().enumerate() {
        assert_eq!(field(nth, "peer").as_deref(), Some(&*format!("tls:{host}")));
        assert!(field(nth, "mend").is_some_and(|mend| mend.starts_with("add --listen tls:ADDRESS")));
    }
    assert_eq!(told.len(), 2);
}
