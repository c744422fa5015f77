//! In a dialog: our token in Route, strict routers (§16.4), connections that come anew, NAT.

use super::*;

#[test]
fn a_dialog_needs_our_token() {
    let mut net = Net::new(config());
    let route = net.established();
    // Forged: a To-tag, our address, and a third host behind it.
    let third = "<sip:203.0.113.9;lr>";
    for forged in
        ["<sip:192.0.2.50;lr>", &route.replacen("sip:", "sip:A", 1), "<sip:AAAA@192.0.2.50:5060;lr>"]
    {
        for uri in ["sip:bob@192.0.2.2:5060", "sip:victim@203.0.113.9"] {
            let mut call = in_dialog("BYE", forged);
            call.branch = format!("z9hG4bK{}{}", forged.len(), uri.len());
            call.extra += &format!("Route: {third}\r\n");
            call.uri = uri;
            net.call(&call);
            assert_eq!(net.status(), 403, "{forged}");
            assert_eq!(net.sent.len(), 1, "nothing else is sent");
        }
    }
    assert!(net.events().contains(&"refused"));
    // Genuine, with a foreign Request-URI: to the hop of the token, and no other.
    let mut call = in_dialog("INFO", &route);
    call.uri = "sip:victim@203.0.113.9";
    net.call(&call);
    assert!(net.last(BOB).starts_with("INFO sip:victim@203.0.113.9 "));
    assert_eq!(net.sent.len(), 1);
    // Of another call.
    let mut call = in_dialog("BYE", &route);
    call.call_id = "call-2";
    net.call(&call);
    assert_eq!(net.status(), 403);
    // Without any Route of ours.
    let mut call = in_dialog("UPDATE", "<sip:203.0.113.9;lr>");
    call.branch = "z9hG4bKnoroute".into();
    net.call(&call);
    assert_eq!(net.status(), 404);
}

/// What each method carries that is none of our business.
const METHODS: &[(&str, &str)] = &[
    ("INVITE", "Session-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\nSupported: timer, replaces\r\n"),
    ("PRACK", "RAck: 1 1 INVITE\r\n"),
    ("UPDATE", "x: 1800 ; refresher = uas\r\nRequire: timer\r\n"),
    (
        "REFER",
        "Refer-To: <sip:carol@example.com?Replaces=c1%40a%3Bto-tag%3D1>\r\nReferred-By: <sip:alice@example.com>\r\n",
    ),
    ("INFO", "Info-Package: dtmf\r\nRecv-Info:\r\n"),
    ("MESSAGE", "P-Unknown: a,\r\n\tb\r\n"),
    ("SUBSCRIBE", "Event: refer;id=7\r\nExpires: 60\r\n"),
    ("NOTIFY", "o: refer;id=7\r\nSubscription-State: active;expires=60\r\n"),
    ("OPTIONS", "Accept:\r\n"),
    ("NEWMETHOD", "x-y: z\r\n"),
    ("BYE", "Reason: Q.850;cause=16;text=\"Terminated\"\r\n"),
];

/// Without the lines that a proxy adds or takes away.
fn rest<'a>(text: &'a str, without: &[&str]) -> Vec<&'a str> {
    text.split("\r\n").filter(|line| !without.iter().any(|name| line.starts_with(name))).collect()
}

#[test]
fn every_method_of_a_dialog_passes_in_both_directions_and_keeps_its_route() {
    let (mut net, mut number) = (Net::new(config()), 0);
    let mut passes = |net: &mut Net, method: &str, theirs: &str, route: &str, back: bool, status: u16| {
        number += 1;
        let (from, to, uri, user, tags) = match back {
            false => (ALICE, BOB, format!("sip:bob@{BOB}"), "alice", ("ta", "tb")),
            true => (BOB, ALICE, format!("sip:alice@{ALICE}"), "bob", ("tb", "ta")),
        };
        let call = Call {
            from: &format!("{user}@example.com"),
            source: from,
            from_tag: tags.0,
            to_tag: tags.1,
            branch: format!("z9hG4bKdialog{number}"),
            extra: format!("Route: {route}\r\n{theirs}"),
            cseq: 10 + number,
            ..Call::new(method, &uri)
        };
        net.call(&call);
        let (asked, got) = (call.text(), net.last(to));
        assert!(header(&got, "Via").is_some_and(|via| via.contains(PROXY)), "{got}");
        assert_eq!(header(&got, "Max-Forwards"), Some("69"));
        assert!(header(&got, "Route").is_none(), "{got}");
        let ours = ["Via: ", "Max-Forwards: ", "Route: ", "Record-Route: "];
        assert_eq!(rest(&got, &ours), rest(&asked, &ours), "{method}, back: {back}");
        // Where the dialog's routes would be set anew, they are the same ones.
        let again = header(&got, "Record-Route").unwrap_or(route);
        assert_eq!(again.split(';').next(), route.split(';').next(), "{method}, back: {back}");

        let answer = respond(&got, status, "", &format!("sip:x@{to}"), "").replacen(
            "\r\nCSeq:",
            "\r\nx: 1800;refresher=uac\r\nMin-SE: 90\r\nRequire: timer\r\nCSeq:",
            1,
        );
        net.receive(to, &answer);
        let told = net.last(from);
        assert_eq!(rest(&told, &["Via: "]), rest(&answer, &["Via: "]), "{method}, back: {back}");
        assert_eq!(told.matches("\r\nVia: ").count(), 1, "{told}");
    };

    // In the early dialog (RFC 3262, RFC 3311): both may ask before anybody has answered.
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    let at_bob = net.last(BOB);
    let route = header(&at_bob, "Record-Route").expect("a Record-Route").to_owned();
    let reliable = respond(&at_bob, 183, "tb", &format!("sip:bob@{BOB}"), "").replacen(
        "\r\nCSeq:",
        "\r\nRSeq: 1\r\nRequire: 100rel\r\nCSeq:",
        1,
    );
    net.receive(BOB, &reliable);
    assert_eq!(rest(&net.last(ALICE), &["Via: "]), rest(&reliable, &["Via: "]));
    for (method, theirs) in [METHODS[1], METHODS[2], METHODS[4]] {
        passes(&mut net, method, theirs, &route, false, 200);
        passes(&mut net, method, theirs, &route, true, 200);
    }
    net.receive(BOB, &respond(&at_bob, 200, "tb", &format!("sip:bob@{BOB}"), ""));
    assert_eq!(net.status(), 200);
    for (method, theirs) in METHODS {
        for back in [true, false] {
            // Of BYE the first one ends it; what comes after still passes.
            let status = if *method == "REFER" { 202 } else { 200 };
            passes(&mut net, method, theirs, &route, back, status);
            passes(&mut net, method, theirs, &route, back, if *method == "INVITE" { 422 } else { 481 });
        }
    }
}

#[test]
fn strict_routers_on_either_side() {
    let mut net = Net::new(config());
    let route = net.established();
    // Before us: our URI is in the request line, the real one at the end of Route.
    let ours = route.trim_start_matches('<').trim_end_matches('>').to_owned();
    let mut call = in_dialog("INFO", "<sip:next.example.com;lr>");
    call.extra += "Route: <sip:bob@192.0.2.2>\r\n";
    call.uri = &ours;
    net.call(&call);
    let got = net.last(BOB);
    assert!(got.starts_with("INFO sip:bob@192.0.2.2 SIP/2.0"), "{got}");
    assert_eq!(header(&got, "Route"), Some("<sip:next.example.com;lr>"));
    // Behind us: it wants its own URI in the request line.
    let mut call = in_dialog("INFO", &route);
    call.branch = "z9hG4bKstrict".into();
    call.extra += "Route: <sip:strict.example.com>\r\n";
    net.call(&call);
    let got = net.last(BOB);
    assert!(got.starts_with("INFO sip:strict.example.com SIP/2.0"), "{got}");
    assert_eq!(header(&got, "Route"), Some("<sip:bob@192.0.2.2:5060>"));
}

#[test]
fn a_caller_on_a_connection_is_reached_by_it() {
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let flow = Flow {
        transport: Transport::Tcp,
        listener: ListenerId(1),
        remote: "192.0.2.1:40000".parse().expect("an address"),
        connection: Some(ConnectionId(7)),
    };
    net.proxy.handle_input(net.now, Input::FlowOpened { flow });
    let invite = Call::new("INVITE", "sip:bob@example.com").text().replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    net.receive_on(flow, &invite);
    let at_bob = net.last(BOB);
    let routes: Vec<&str> = at_bob.lines().filter_map(|line| line.strip_prefix("Record-Route: ")).collect();
    assert_eq!(routes.len(), 2, "one for each side: {at_bob}");
    assert!(routes[1].contains(";transport=tcp;lr>") && !routes[0].contains("transport"), "{routes:?}");
    let bye = format!(
        "BYE sip:alice@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {BOB};branch=z9hG4bKbye\r\nMax-Forwards: 70\r\n\
         From: <sip:bob@example.com>;tag=tb\r\nTo: <sip:alice@example.com>;tag=ta\r\nCall-ID: call-1\r\nCSeq: 1 BYE\r\n\
         Route: {}\r\nRoute: {}\r\nContent-Length: 0\r\n\r\n",
        routes[0], routes[1]
    );
    net.receive(BOB, &bye);
    let (target, text) = net.sent.last().expect("a BYE");
    assert_eq!(*target, Target::Flow(flow), "{text}");
    assert_eq!(header(text, "Route"), None);

    // The connection closed. A further Route at the same host tells how it is reached now; one elsewhere does not.
    net.proxy.handle_input(net.now, Input::FlowClosed { flow });
    for (host, port) in [("192.0.2.1:5062", 5062), ("203.0.113.9:5062", 40000)] {
        let further = format!("\r\nRoute: <sip:TOKEN@{host};transport=tcp;lr>\r\nContent-Length");
        let info = bye.replace("BYE", "INFO").replace("z9hG4bKbye", &format!("z9hG4bK{port}"));
        net.receive(BOB, &info.replace("\r\nContent-Length", &further));
        let (target, _) = net.sent.last().expect("an INFO");
        assert_eq!(target.remote(), std::net::SocketAddr::new([192, 0, 2, 1].into(), port));
    }
}

#[test]
fn a_client_that_connected_anew_keeps_its_dialog() {
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let flow = |connection: u64| Flow {
        transport: Transport::Tcp,
        listener: ListenerId(1),
        remote: format!("192.0.2.1:{}", 40_000 + connection).parse().expect("an address"),
        connection: Some(ConnectionId(connection)),
    };
    let tcp = |text: String| text.replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let (old, new) = (flow(7), flow(8));
    net.proxy.handle_input(net.now, Input::FlowOpened { flow: old });
    net.receive_on(old, &tcp(Call::new("INVITE", "sip:bob@example.com").text()));
    let at_bob = net.last(BOB);
    let routes: Vec<&str> = at_bob.lines().filter_map(|line| line.strip_prefix("Record-Route: ")).collect();
    net.proxy.handle_input(net.now, Input::FlowClosed { flow: old });
    net.proxy.handle_input(net.now, Input::FlowOpened { flow: new });
    net.receive_on(new, &tcp(Call::new("REGISTER", "sip:example.com").text()));
    let path = header(&net.last(REGISTRAR), "Path").expect("a Path").to_owned();
    net.bind("alice", &format!("sip:alice@{ALICE}"), Some(&path));
    let bye = format!(
        "BYE sip:alice@{ALICE} SIP/2.0\r\nVia: SIP/2.0/UDP {BOB};branch=z9hG4bKbye\r\nMax-Forwards: 70\r\n\
         From: <sip:bob@example.com>;tag=tb\r\nTo: <sip:alice@example.com>;tag=ta\r\nCall-ID: call-1\r\nCSeq: 1 BYE\r\n\
         Route: {}\r\nRoute: {}\r\nContent-Length: 0\r\n\r\n",
        routes[0], routes[1]
    );
    net.receive(BOB, &bye);
    let (target, text) = net.sent.last().expect("a BYE");
    assert_eq!(*target, Target::Flow(new), "{text}");
}

/// A stranger calls one of our users as if he were a server of another domain. He has the dialog's token as soon as it
/// rings; that must not have us send for him to third hosts.
#[test]
fn a_stranger_s_call_is_no_open_relay() {
    let third = "198.51.100.66:5060";
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut invite = Call::new("INVITE", "sip:bob@example.com");
    (invite.from, invite.source) = ("carol@example.org", STRANGER);
    invite.extra = format!("Record-Route: <sip:{STRANGER};lr>\r\n");
    net.call(&invite);
    let at_bob = net.last(BOB);
    net.receive(BOB, &respond(&at_bob, 180, "tb", &format!("sip:bob@{BOB}"), ""));
    let ringing = net.last(STRANGER);
    let route = header(&ringing, "Record-Route").expect("he learns it").to_owned();
    for (number, more) in
        ["", "Route: <sip:198.51.100.66;lr>\r\n", "Route: <sip:198.51.100.66>\r\n"].into_iter().enumerate()
    {
        for method in ["MESSAGE", "ACK"] {
            let text = format!(
                "{method} sip:victim@{third} SIP/2.0\r\nVia: SIP/2.0/UDP {STRANGER};branch=z9hG4bKx{number}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:bob@example.com>;tag=any\r\nTo: <sip:carol@example.org>;tag=ta\r\n\
                 Call-ID: call-1\r\nCSeq: 9 {method}\r\nRoute: {route}\r\n{more}Content-Length: 0\r\n\r\n"
            );
            net.receive(STRANGER, &text);
            assert_eq!(net.to(third), Vec::<&str>::new(), "{method} {more}");
            // The same from Bob's own address goes where it says.
            net.receive(BOB, &text.replace("z9hG4bKx", "z9hG4bKy"));
            assert_eq!(net.to(third).len(), 1, "{method} {more}");
        }
    }
}

#[test]
fn a_client_s_own_record_route_leads_nowhere() {
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    for (from, leads) in [("alice@example.com", ALICE), ("carol@example.org", STRANGER)] {
        let mut invite = Call::new("INVITE", "sip:bob@example.com");
        invite.from = from;
        invite.branch = format!("z9hG4bK{from}");
        invite.extra = format!("Record-Route: <sip:{STRANGER};lr>\r\n");
        net.call(&invite);
        let at_bob = net.last(BOB);
        let route = header(&at_bob, "Record-Route").expect("ours on top").to_owned();
        let bye = format!(
            "BYE sip:alice@{ALICE} SIP/2.0\r\nVia: SIP/2.0/UDP {BOB};branch=z9hG4bKbye{from}\r\nMax-Forwards: 70\r\n\
             From: <sip:bob@example.com>;tag=tb\r\nTo: <sip:{from}>;tag=ta\r\nCall-ID: call-1\r\nCSeq: 1 BYE\r\n\
             Route: {route}\r\nRoute: <sip:{STRANGER};lr>\r\nContent-Length: 0\r\n\r\n"
        );
        net.receive(BOB, &bye);
        assert!(net.last(leads).starts_with("BYE "), "{from}");
        assert_eq!(net.sent.len(), 1);
    }
}

#[test]
fn nat_is_written_down_where_it_is_seen() {
    let mut net = Net::new(config());
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let invite = Call::new("INVITE", "sip:bob@example.com").text().replace("192.0.2.1:5060", "10.0.0.9");
    net.receive("192.0.2.1:4444", &invite);
    let at_bob = net.last(BOB);
    assert!(at_bob.contains("received=192.0.2.1") && at_bob.contains("rport=4444"), "{at_bob}");
    assert_eq!(header(&at_bob, "Contact"), Some("<sip:alice@10.0.0.9;alias=192.0.2.1~4444~1>"));
    let mut call = in_dialog("INFO", header(&at_bob, "Record-Route").expect("a Record-Route"));
    call.uri = "sip:bob@192.0.2.2:5060;alias=192.0.2.2~5060~1";
    net.receive("192.0.2.1:4444", &call.text());
    assert!(net.last(BOB).starts_with("INFO sip:bob@192.0.2.2:5060 SIP"), "the alias is ours, and goes");
}
