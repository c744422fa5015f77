//! The gateway between a browser and an upstream, both played by hand on a virtual clock.

use super::*;
use crate::flow::ConnectionId;
use std::net::SocketAddr;

struct Edge {
    gateway: Gateway,
    now: Instant,
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn upstream() -> Flow {
    Flow {
        transport: Transport::Tcp,
        listener: ListenerId(1),
        remote: address("192.0.2.5:5060"),
        connection: Some(ConnectionId(100)),
    }
}

fn browser(connection: u64) -> Flow {
    Flow {
        transport: Transport::Wss,
        listener: ListenerId(0),
        remote: SocketAddr::new([198, 51, 100, 7].into(), 50_000 + connection as u16),
        connection: Some(ConnectionId(connection)),
    }
}

fn edge() -> Edge {
    let listener = |id, transport, port| Listener {
        id: ListenerId(id),
        transport,
        local: SocketAddr::new([192, 0, 2, 1].into(), port),
        advertised_host: "edge.example.com".into(),
        advertised_port: port,
        local_nets: Vec::new(),
    };
    let config = Config {
        listeners: vec![listener(0, Transport::Wss, 443), listener(1, Transport::Tcp, 5060)],
        sip: ListenerId(1),
        upstream: Target::Address {
            listener: ListenerId(1),
            transport: Transport::Tcp,
            remote: upstream().remote,
            server: crate::flow::ServerKey::ADDRESS,
        },
        keys: Keys::new(&["a key for the gateway's tests"]).unwrap(),
        epoch: 7,
        rng: Rng::from_seed(1),
    };
    Edge { gateway: Gateway::new(config).unwrap(), now: Instant::from_secs(1_700_000_000) }
}

impl Edge {
    fn feed(&mut self, input: Input) -> Vec<(Target, String)> {
        self.gateway.handle_input(self.now, input);
        self.sent()
    }

    /// What was put out to send; events are left aside.
    fn sent(&mut self) -> Vec<(Target, String)> {
        std::iter::from_fn(|| self.gateway.poll_output())
            .filter_map(|output| match output {
                Output::Transmit { target, data } => {
                    Some((target, String::from_utf8(data.to_vec()).unwrap()))
                }
                Output::Ask { .. } | Output::Close { .. } | Output::Event(_) => None,
            })
            .collect()
    }

    fn packet(&mut self, flow: Flow, text: &str) -> Vec<(Target, String)> {
        self.feed(Input::Packet { flow, data: Bytes::from(text.replace('\n', "\r\n")) })
    }

    /// Registers Alice on this connection; returns the Path that the upstream was shown.
    fn register(&mut self, connection: u64, host: &str) -> String {
        self.feed(Input::FlowOpened { flow: browser(connection) });
        let sent = self.packet(
            browser(connection),
            &format!(
                "REGISTER sip:example.com SIP/2.0
Via: SIP/2.0/WSS {host};branch=z9hG4bKr{connection}
Max-Forwards: 69
From: <sip:alice@example.com>;tag=a
To: <sip:alice@example.com>
Call-ID: register-{connection}
CSeq: 1 REGISTER
Path: <sip:192.0.2.66;lr>
Contact: <sip:x@{host};transport=ws>;expires=600
Content-Length: 0

"
            ),
        );
        let request = only(sent, upstream().remote);
        let answer = reply(&request, "200 OK");
        let back = self.packet(upstream(), &answer);
        assert!(back[0].1.starts_with("SIP/2.0 200"), "{back:?}");
        assert_eq!(back[0].0, Target::Flow(browser(connection)));
        assert_eq!(request.matches("Path: ").count(), 1, "a browser's own Path stays behind: {request}");
        header(&request, "Path").unwrap()
    }
}

fn only(sent: Vec<(Target, String)>, remote: SocketAddr) -> String {
    let mut there: Vec<_> = sent.into_iter().filter(|(target, _)| target.remote() == remote).collect();
    assert_eq!(there.len(), 1, "{there:?}");
    there.remove(0).1
}

fn header(message: &str, name: &str) -> Option<String> {
    message
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}: ")).map(|value| value.trim().to_owned()))
}

/// A response with all of a request's Vias.
fn reply(request: &str, status: &str) -> String {
    let keep =
        |line: &&str| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|n| line.starts_with(n));
    let head: Vec<&str> = request.lines().filter(keep).collect();
    format!("SIP/2.0 {status}\n{}\nContent-Length: 0\n\n", head.join("\n"))
}

fn invite(via: &str, branch: &str, route: &str) -> String {
    format!(
        "INVITE sip:x@a.invalid;transport=ws SIP/2.0
Via: {via};branch={branch}
Max-Forwards: 70
{route}From: <sip:bob@example.com>;tag=b
To: <sip:alice@example.com>
Call-ID: call-1
CSeq: 1 INVITE
Contact: <sip:bob@192.0.2.9>
Content-Length: 0

"
    )
}

#[test]
fn a_browser_s_register_gets_a_path_and_a_call_finds_the_way_back() {
    let mut edge = edge();
    let path = edge.register(1, "a.invalid");
    assert!(path.ends_with("@edge.example.com:5060;transport=tcp;lr;ob>"), "{path}");

    let sent =
        edge.packet(upstream(), &invite("SIP/2.0/TCP 192.0.2.5", "z9hG4bKi1", &format!("Route: {path}\n")));
    assert!(only(sent.clone(), upstream().remote).starts_with("SIP/2.0 100 "));
    let toward = only(sent, browser(1).remote);
    assert!(toward.starts_with(
        "INVITE sip:x@a.invalid;transport=ws SIP/2.0\r\nVia: SIP/2.0/WSS edge.example.com:443;"
    ));
    assert_eq!(header(&toward, "Route"), None);
    let record_route = header(&toward, "Record-Route").unwrap();
    assert!(record_route.ends_with("@edge.example.com:5060;transport=tcp;lr>"), "{record_route}");
    assert_eq!(header(&toward, "Max-Forwards").unwrap(), "69");

    let back = edge.packet(browser(1), &reply(&toward, "180 Ringing"));
    let ringing = only(back, upstream().remote);
    assert!(ringing.starts_with("SIP/2.0 180 "));
    assert!(!ringing.contains("WSS edge"), "our hop is taken off: {ringing}");
}

#[test]
fn a_browser_s_call_goes_upstream_wherever_it_says() {
    let mut edge = edge();
    edge.register(1, "a.invalid");
    let route = "Route: <sip:edge.example.com:443;transport=ws;lr>, <sip:192.0.2.66;lr>\n";
    let sent = edge.packet(browser(1), &invite("SIP/2.0/WSS a.invalid", "z9hG4bKi2", route));
    let toward = only(sent, upstream().remote);
    assert_eq!(header(&toward, "Route").unwrap(), "<sip:192.0.2.66;lr>");
    assert!(header(&toward, "Record-Route").unwrap().contains("@edge.example.com:5060;transport=tcp;lr>"));
    assert!(
        toward.contains("SIP/2.0/WSS a.invalid;branch=z9hG4bKi2;received=198.51.100.7;rport=50001"),
        "{toward}"
    );
}

/// Record-Route is read by whoever a browser talks to, a stranger perhaps; its Path is the registrar's and its own.
#[test]
fn a_partner_learns_no_path_and_begins_nothing_with_what_he_learns() {
    let mut edge = edge();
    let path = edge.register(1, "a.invalid");
    let secret = path.split(['@', ':']).nth(1).unwrap();
    let called =
        edge.packet(upstream(), &invite("SIP/2.0/TCP 192.0.2.5", "z9hG4bKs1", &format!("Route: {path}\n")));
    let called = only(called, browser(1).remote);
    let calling = invite("SIP/2.0/WSS a.invalid", "z9hG4bKs2", "")
        .replace("From: <sip:bob@", "From: <sip:alice@")
        .replace("<sip:bob@192.0.2.9>", "<sip:x@a.invalid;transport=ws>");
    let calling = only(edge.packet(browser(1), &calling), upstream().remote);
    for (number, seen) in [called, calling].iter().enumerate() {
        let route = header(seen, "Record-Route").unwrap();
        assert!(!seen.contains(secret), "{seen}");
        let again =
            invite("SIP/2.0/TCP 192.0.2.5", &format!("z9hG4bKs3{number}"), &format!("Route: {route}\n"));
        let refused = edge.packet(upstream(), &again);
        assert!(only(refused, upstream().remote).starts_with("SIP/2.0 403 "));
        let within = again
            .replace("z9hG4bKs3", "z9hG4bKs4")
            .replace("To: <sip:alice@example.com>", "To: <sip:alice@example.com>;tag=t");
        let sent = edge.packet(upstream(), &within);
        assert!(only(sent, browser(1).remote).starts_with("INVITE "));
    }
}

/// Another proxy on the same database follows a Path of ours by itself: the browser's BYE must go back to that one.
#[test]
fn a_dialog_stays_with_the_server_that_began_it() {
    let mut edge = edge();
    let path = edge.register(1, "a.invalid");
    let other =
        Flow { remote: address("192.0.2.6:40000"), connection: Some(ConnectionId(101)), ..upstream() };
    let called =
        edge.packet(other, &invite("SIP/2.0/TCP 192.0.2.6:5062", "z9hG4bKo1", &format!("Route: {path}\n")));
    let ours = header(&only(called, browser(1).remote), "Record-Route").unwrap();
    let say = |ours: &str, method: &str, tag: &str, number: u8, next: &str| {
        invite("SIP/2.0/WSS a.invalid", &format!("z9hG4bKo2{number}"), &format!("Route: {ours}, {next}\n"))
            .replace("INVITE", method)
            .replace("To: <sip:alice@example.com>", &format!("To: <sip:alice@example.com>{tag}"))
    };
    let theirs = "<sip:192.0.2.6:5062;transport=tcp;lr>";
    for (number, method, tag, next, to) in [
        (0, "BYE", ";tag=t", theirs, "192.0.2.6:5062"),
        // Elsewhere, by UDP, and for what begins anew: the upstream, which judges.
        (1, "BYE", ";tag=t", "<sip:192.0.2.66:5062;transport=tcp;lr>", "192.0.2.5:5060"),
        (2, "BYE", ";tag=t", "<sip:192.0.2.6:5062;lr>", "192.0.2.5:5060"),
        (3, "INVITE", "", theirs, "192.0.2.5:5060"),
    ] {
        let sent = edge.packet(browser(1), &say(&ours, method, tag, number, next));
        let there = only(sent, address(to));
        assert!(there.starts_with(method) && header(&there, "Route").unwrap() == next, "{there}");
    }
    // The upstream is reached as it was configured, whatever it calls itself.
    let called =
        edge.packet(upstream(), &invite("SIP/2.0/TCP 192.0.2.6", "z9hG4bKo5", &format!("Route: {path}\n")));
    let ours = header(&only(called, browser(1).remote), "Record-Route").unwrap();
    only(edge.packet(browser(1), &say(&ours, "BYE", ";tag=t", 6, theirs)), upstream().remote);
    // What the browser began itself is the upstream's, whatever its token's address is.
    let calling = invite("SIP/2.0/WSS a.invalid", "z9hG4bKo3", "").replace("<sip:bob@", "<sip:alice@");
    let ours = header(&only(edge.packet(browser(1), &calling), upstream().remote), "Record-Route").unwrap();
    let near = "<sip:198.51.100.7;transport=tcp;lr>";
    only(edge.packet(browser(1), &say(&ours, "BYE", ";tag=t", 7, near)), upstream().remote);
}

#[test]
fn cancel_reaches_the_browser_and_a_stranger_s_gets_481() {
    let mut edge = edge();
    let path = edge.register(1, "a.invalid");
    let request = invite("SIP/2.0/TCP 192.0.2.5", "z9hG4bKi3", &format!("Route: {path}\n"));
    let toward = only(edge.packet(upstream(), &request), browser(1).remote);
    edge.packet(browser(1), &reply(&toward, "180 Ringing"));
    let cancel = request.replacen("INVITE", "CANCEL", 1).replace("1 INVITE", "1 CANCEL");
    let sent = edge.packet(upstream(), &cancel);
    assert!(only(sent.clone(), upstream().remote).starts_with("SIP/2.0 200 "));
    assert!(only(sent, browser(1).remote).starts_with("CANCEL "));
    let stray = edge.packet(upstream(), &cancel.replace("z9hG4bKi3", "z9hG4bKother"));
    assert!(only(stray, upstream().remote).starts_with("SIP/2.0 481 "));
}

#[test]
fn no_token_forged_token_and_gone_flow() {
    let mut edge = edge();
    let path = edge.register(1, "a.invalid");
    let status = |edge: &mut Edge, branch: &str, route: &str| {
        let sent = edge.packet(upstream(), &invite("SIP/2.0/TCP 192.0.2.5", branch, route));
        only(sent, upstream().remote)[8..11].to_owned()
    };
    assert_eq!(status(&mut edge, "z9hG4bKn1", ""), "404");
    // One character of the token's middle is another.
    let mut forged = path.clone().into_bytes();
    forged[20] = if forged[20] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    assert_eq!(status(&mut edge, "z9hG4bKn2", &format!("Route: {forged}\n")), "403");
    edge.feed(Input::FlowClosed { flow: browser(1) });
    assert_eq!(status(&mut edge, "z9hG4bKn3", &format!("Route: {path}\n")), "430");
}

#[test]
fn a_closed_flow_is_told_to_the_registrar_and_its_ringing_call_gets_430() {
    let mut edge = edge();
    let path = edge.register(1, "a.invalid");
    edge.packet(upstream(), &invite("SIP/2.0/TCP 192.0.2.5", "z9hG4bKl1", &format!("Route: {path}\n")));
    let sent = edge.feed(Input::FlowClosed { flow: browser(1) });
    let (register, answer): (Vec<_>, Vec<_>) =
        sent.into_iter().partition(|(_, text)| text.starts_with("REGISTER"));
    assert!(only(answer, upstream().remote).starts_with("SIP/2.0 430 "));
    let register = only(register, upstream().remote);
    assert_eq!(header(&register, "Contact").unwrap(), "<sip:x@a.invalid;transport=ws>;expires=0");
    assert_eq!(header(&register, "Path").unwrap(), path);
    assert_eq!(header(&register, "To").unwrap(), "<sip:alice@example.com>");
    // Once only: nothing is left to be lost.
    assert!(edge.feed(Input::FlowClosed { flow: browser(1) }).is_empty());
}

#[test]
fn an_old_token_leads_to_the_same_client_s_new_connection_and_to_no_other() {
    let mut edge = edge();
    let path = edge.register(1, "a.invalid");
    edge.register(2, "a.invalid");
    edge.register(3, "c.invalid");
    edge.feed(Input::FlowClosed { flow: browser(1) });
    let route = format!("Route: {path}\n");
    let sent = edge.packet(upstream(), &invite("SIP/2.0/TCP 192.0.2.5", "z9hG4bKo1", &route));
    only(sent, browser(2).remote);
    edge.feed(Input::FlowClosed { flow: browser(2) });
    let sent = edge.packet(upstream(), &invite("SIP/2.0/TCP 192.0.2.5", "z9hG4bKo2", &route));
    assert!(only(sent, upstream().remote).starts_with("SIP/2.0 430 "));
}

#[test]
fn an_unanswered_request_leaves_nothing_behind() {
    let mut edge = edge();
    edge.feed(Input::FlowOpened { flow: browser(1) });
    edge.packet(browser(1), &invite("SIP/2.0/WSS a.invalid", "z9hG4bKu1", ""));
    assert!(!edge.gateway.is_idle());
    let mut answers = Vec::new();
    while let Some(at) = edge.gateway.poll_timeout() {
        edge.now = at;
        edge.gateway.handle_timeout(at);
        answers.extend(edge.sent());
    }
    assert!(answers.iter().any(|(_, text)| text.starts_with("SIP/2.0 408 ")), "{answers:?}");
    assert!(edge.gateway.is_idle());
    assert!(edge.gateway.by_client.is_empty() && edge.gateway.by_server.is_empty());
}

#[test]
fn a_malformed_request_gets_400() {
    let mut edge = edge();
    let broken = invite("SIP/2.0/WSS a.invalid", "z9hG4bKm1", "").replace("CSeq: 1 INVITE", "CSeq: x INVITE");
    let sent = edge.packet(browser(1), &broken);
    assert!(only(sent, browser(1).remote).starts_with("SIP/2.0 400 "));
}
