//! The seed's routing table row by row, on a virtual clock, with a store in memory and a relay that is answered by hand.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // reads the torture messages

use super::*;
use crate::auth::Keys;
use crate::auth::digest::{Challenge, secret};
use crate::flow::{Listener, ListenerId, Transport};
use crate::ng;
use crate::sip::Aor;
use crate::store::memory::Memory;
use crate::store::{self, Binding};

const PROXY: &str = "192.0.2.50:5060";
const ALICE: &str = "192.0.2.1:5060";
const BOB: &str = "192.0.2.2:5060";
const BOB_TOO: &str = "192.0.2.3:5060";
const EDGE: &str = "192.0.2.40:5060";
const REGISTRAR: &str = "192.0.2.51:5060";
const PRESENCE: &str = "192.0.2.52:5060";
const STRANGER: &str = "203.0.113.9:5060";

const PHONE_SDP: &str =
    "v=0\r\no=a 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";
const WEB_SDP: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 8\r\n\
    c=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=fingerprint:sha-256 AA\r\n";

/// A proxy, all that it sent, and what it asked and nobody answered yet.
struct Net {
    proxy: Proxy,
    store: Memory,
    /// Answers what the store is asked.
    store_answers: bool,
    now: Instant,
    sent: Vec<(Target, String)>,
    asked: Vec<(Ticket, Question)>,
    told: Vec<Event>,
    calls: u32,
}

fn listener(id: u8, transport: Transport, local: &str) -> Listener {
    let local: std::net::SocketAddr = local.parse().expect("an address");
    Listener {
        id: ListenerId(id),
        transport,
        local,
        advertised_host: local.ip().to_string(),
        advertised_port: local.port(),
    }
}

fn config() -> Config {
    let cidr = |text: &str| text.parse().expect("a network");
    Config {
        listeners: vec![listener(0, Transport::Udp, PROXY), listener(1, Transport::Tcp, PROXY)],
        domains: vec!["example.com".into()],
        registrar: Some(format!("sip:{REGISTRAR}")),
        presence: None,
        relays: Vec::new(),
        relay_policy: RelayPolicy::Auto,
        auth: Auth::None,
        trust: vec![cidr("192.0.2.60/32")],
        edge: vec![cidr("192.0.2.40/32")],
        fork: Fork::Parallel,
        ring_timeout: Duration::from_secs(120),
        routes: Vec::new(),
        keys: Keys::new(&["a key for tests, long enough"]).expect("a key"),
    }
}

fn udp(remote: &str) -> Flow {
    Flow {
        transport: Transport::Udp,
        listener: ListenerId(0),
        remote: remote.parse().expect("an address"),
        connection: None,
    }
}

/// A request from `from@example.com`; `extra` are whole header lines.
struct Call<'a> {
    method: &'a str,
    uri: &'a str,
    from: &'a str,
    source: &'a str,
    to_tag: &'a str,
    from_tag: &'a str,
    branch: String,
    extra: String,
    body: &'a str,
    cseq: u32,
    call_id: &'a str,
}

impl<'a> Call<'a> {
    fn new(method: &'a str, uri: &'a str) -> Self {
        Call {
            method,
            uri,
            from: "alice@example.com",
            source: ALICE,
            to_tag: "",
            from_tag: "ta",
            branch: format!("z9hG4bK{method}1"),
            extra: String::new(),
            body: "",
            cseq: 1,
            call_id: "call-1",
        }
    }

    fn text(&self) -> String {
        let to_tag = if self.to_tag.is_empty() { String::new() } else { format!(";tag={}", self.to_tag) };
        let kind = if self.body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{} {} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={}\r\nMax-Forwards: 70\r\n\
             From: <sip:{}>;tag={}\r\nTo: <sip:bob@example.com>{to_tag}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n\
             Contact: <sip:alice@{}>\r\n{}{kind}Content-Length: {}\r\n\r\n{}",
            self.method,
            self.uri,
            self.source,
            self.branch,
            self.from,
            self.from_tag,
            self.call_id,
            self.cseq,
            self.method,
            self.source,
            self.extra,
            self.body.len(),
            self.body
        )
    }
}

fn status_of(text: &str) -> u16 {
    text.strip_prefix("SIP/2.0 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

fn header<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The response of whoever got `request`.
fn respond(request: &str, status: u16, tag: &str, contact: &str, body: &str) -> String {
    let message = Message::parse(request.as_bytes()).expect("a request of ours");
    let mut headers: Vec<(&str, &str)> = Vec::new();
    let contact = format!("<{contact}>");
    if status < 300 {
        headers.push(("Contact", &contact));
    }
    let routes: Vec<String> = message.values(Name::RecordRoute).map(lossy).collect();
    for route in &routes {
        headers.push(("Record-Route", route));
    }
    if !body.is_empty() {
        headers.push(("Content-Type", "application/sdp"));
    }
    let bytes = build::response(&message, status, None, Some(tag), &headers, body.as_bytes());
    String::from_utf8(bytes).expect("text")
}

impl Net {
    fn new(config: Config) -> Self {
        Net {
            proxy: Proxy::new(config, Rng::from_seed(11)),
            store: Memory::new(),
            store_answers: true,
            now: Instant::from_secs(1_000_000),
            sent: Vec::new(),
            asked: Vec::new(),
            told: Vec::new(),
            calls: 0,
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Transmit { target, data } => {
                    self.sent.push((target, String::from_utf8_lossy(&data).into_owned()));
                }
                Output::Ask { ticket, question: Question::Store(query) } if self.store_answers => {
                    let reply = Reply::Store(Ok(self.store.ask(query)));
                    self.proxy.handle_input(self.now, Input::Answer { ticket, reply });
                }
                Output::Ask { ticket, question } => self.asked.push((ticket, question)),
                Output::Event(event) => self.told.push(event),
                Output::Close { .. } => {}
            }
        }
    }

    fn receive_on(&mut self, flow: Flow, text: &str) {
        let data = Bytes::copy_from_slice(text.as_bytes());
        self.proxy.handle_input(self.now, Input::Packet { flow, data });
        self.drain();
    }

    /// From this address over UDP; what was sent before is forgotten.
    fn receive(&mut self, source: &str, text: &str) {
        self.sent.clear();
        self.receive_on(udp(source), text);
    }

    fn call(&mut self, call: &Call<'_>) {
        self.receive(call.source, &call.text());
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.proxy.poll_timeout().filter(|&at| at <= end) {
            self.now = at;
            self.proxy.handle_timeout(at);
            self.drain();
        }
        self.now = end;
    }

    /// What went to this address.
    fn to(&self, address: &str) -> Vec<&str> {
        let address: std::net::SocketAddr = address.parse().expect("an address");
        self.sent
            .iter()
            .filter(|(target, _)| target.remote() == address)
            .map(|(_, text)| text.as_str())
            .collect()
    }

    /// The one message that went there last.
    fn last(&self, address: &str) -> String {
        let all: Vec<&str> = self.sent.iter().map(|(_, text)| text.lines().next().unwrap_or("")).collect();
        self.to(address).last().unwrap_or_else(|| panic!("nothing went to {address}: {all:?}")).to_string()
    }

    fn status(&self) -> u16 {
        status_of(&self.last(ALICE))
    }

    fn events(&self) -> Vec<&str> {
        self.told.iter().map(|event| event.name).collect()
    }

    fn user(&mut self, user: &str, password: &str) {
        let secret = secret(user, "example.com", "example.com", password);
        let (user, domain) = (user.to_owned(), "example.com".to_owned());
        self.store.ask(store::Query::UserAdd { user, domain, secret });
    }

    fn bind(&mut self, user: &str, contact: &str, path: Option<&str>) {
        self.calls += 1;
        let aor = Aor::parse(&format!("{user}@example.com")).expect("an address-of-record");
        let binding = Binding {
            ruid: store::ruid(&aor, None, 0, contact),
            contact: contact.to_owned(),
            received: None,
            path: path.map(str::to_owned),
            expires: self.now + Duration::from_secs(3600),
            q: None,
            call_id: format!("reg-{}", self.calls),
            cseq: 1,
            modified: self.now,
            cflags: 0,
            user_agent: String::new(),
            socket: None,
            methods: None,
            instance: None,
            reg_id: 0,
        };
        let save = store::Save {
            aor,
            now: self.now,
            call_id: binding.call_id.clone(),
            cseq: 1,
            contacts: store::Contacts::Each(vec![binding]),
            max_contacts: 10,
        };
        let reply = self.store.ask(store::Query::Save(Box::new(save)));
        assert!(matches!(reply, store::Reply::Saved(_)), "{reply:?}");
    }

    /// Takes the question that the relay was asked.
    fn relay_asked(&mut self) -> (Ticket, ng::Dict) {
        let at = self
            .asked
            .iter()
            .position(|(_, question)| matches!(question, Question::Relay { .. }))
            .unwrap_or_else(|| panic!("the relay was not asked; told: {:?}", self.told));
        match self.asked.remove(at) {
            (ticket, Question::Relay { request, .. }) => (ticket, ng::decode(&request).expect("bencode").1),
            (_, other) => panic!("{other:?}"),
        }
    }

    fn relay_says(&mut self, ticket: Ticket, dict: Option<ng::Dict>) {
        let reply = Reply::Relay(dict.map(|dict| dict.encode_bencode().into()));
        self.proxy.handle_input(self.now, Input::Answer { ticket, reply });
        self.drain();
    }

    fn relay_gives(&mut self, sdp: &str) -> ng::Dict {
        let (ticket, asked) = self.relay_asked();
        self.relay_says(ticket, Some(ng::Dict::new().with("result", "ok").with("sdp", sdp)));
        asked
    }

    /// A call of Alice to Bob that he answered, and the Record-Route that both have.
    fn established(&mut self) -> String {
        self.bind("bob", &format!("sip:bob@{BOB}"), None);
        let mut invite = Call::new("INVITE", "sip:bob@example.com");
        invite.body = PHONE_SDP;
        self.call(&invite);
        let at_bob = self.last(BOB);
        let route = header(&at_bob, "Record-Route").expect("a Record-Route").to_owned();
        self.receive(BOB, &respond(&at_bob, 200, "tb", &format!("sip:bob@{BOB}"), PHONE_SDP));
        assert_eq!(self.status(), 200);
        route
    }
}

fn in_dialog<'a>(method: &'a str, route: &str) -> Call<'a> {
    Call {
        to_tag: "tb",
        extra: format!("Route: {route}\r\n"),
        cseq: 2,
        ..Call::new(method, "sip:bob@192.0.2.2:5060")
    }
}

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
fn proof(net: &Net, user: &str, password: &str, call: &Call<'_>) -> String {
    let challenge = net.last(ALICE);
    let value = header(&challenge, "Proxy-Authenticate").expect("a challenge");
    let challenge = Challenge::parse(value.as_bytes()).expect("Digest");
    assert_eq!(challenge.realm, "example.com");
    let answer = challenge.answer(user, password, call.method, call.uri, 1, "cnonce");
    format!("Proxy-Authorization: {answer}\r\n")
}

#[test]
fn who_claims_a_from_of_ours_proves_it() {
    let mut net = Net::new(Config { auth: Auth::Digest, ..config() });
    net.user("alice", "wonder");
    net.bind("bob", &format!("sip:bob@{BOB}"), None);
    let mut call = Call::new("INVITE", "sip:bob@example.com");
    net.call(&call);
    assert_eq!(net.status(), 407);
    let next = |net: &mut Net, call: &mut Call<'_>, extra: String| {
        call.extra = extra;
        call.cseq += 1;
        call.branch = format!("z9hG4bK{}", call.cseq);
        net.call(call);
        net.status()
    };
    for (user, password, status, event) in [
        ("alice", "wrong", 407, Some("auth-failed")),
        ("nobody", "x", 403, Some("refused")),
        ("alice", "wonder", 100, None),
    ] {
        net.told.clear();
        let fresh = next(&mut net, &mut call, String::new());
        assert_eq!(fresh, 407);
        let proof = proof(&net, user, password, &call);
        assert_eq!(next(&mut net, &mut call, proof), status, "{user} {password}");
        assert_eq!(net.told.iter().any(|told| Some(told.name) == event), event.is_some(), "{:?}", net.told);
    }
    let at_bob = net.last(BOB);
    assert_eq!(header(&at_bob, "Proxy-Authorization"), None, "credentials go no further");

    // A user who is not there is challenged like one who is.
    call.from = "ghost@example.com";
    assert_eq!(next(&mut net, &mut call, String::new()), 407);
    let proof = proof(&net, "ghost", "x", &call);
    assert_eq!(next(&mut net, &mut call, proof), 407);

    // From elsewhere to us, nobody can prove anything; from elsewhere to elsewhere is refused.
    call.from = "carol@example.org";
    assert_eq!(next(&mut net, &mut call, String::new()), 100);
    call.uri = "sip:dave@example.net";
    assert_eq!(next(&mut net, &mut call, String::new()), 403);

    // A trunk needs no password.
    let mut trunk = Call::new("INVITE", "sip:bob@example.com");
    (trunk.source, trunk.call_id) = ("192.0.2.60:5060", "trunk");
    net.call(&trunk);
    assert!(net.last(BOB).starts_with("INVITE"));
}

#[test]
fn a_silent_database_is_503_in_time() {
    let mut net = Net::new(config());
    net.store_answers = false;
    net.call(&Call::new("INVITE", "sip:bob@example.com"));
    assert_eq!(net.status(), 100);
    net.wait(Duration::from_secs(5));
    assert_eq!(net.status(), 503);
    // The answer comes after all.
    let (ticket, _) = net.asked.remove(0);
    let reply = Reply::Store(Ok(store::Reply::Bindings(Vec::new())));
    net.sent.clear();
    net.proxy.handle_input(net.now, Input::Answer { ticket, reply });
    net.drain();
    assert!(net.sent.is_empty());
}

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

// --- Media ---

fn with_relay() -> Config {
    Config { relays: vec!["east".into(), "west".into()], ..config() }
}

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
    assert!(matches!(question, Question::Resolve { host, port: 5060 } if host == "other.example.org"));
    let reply = Reply::Resolve(vec!["[2001:db8::1]:5060".parse().expect("v6"), BOB.parse().expect("v4")]);
    net.proxy.handle_input(net.now, Input::Answer { ticket, reply });
    net.drain();
    assert!(net.last(BOB).starts_with("OPTIONS "), "the one for which there is a socket");
}

// --- Whatever comes ---

mod anything {
    use super::*;
    use proptest::prelude::*;

    /// A phone's call over the relay, told as the packets that came, with the answers of all who were asked.
    fn play(mut spoil: impl FnMut(usize, String) -> Vec<u8>) {
        let mut net = Net::new(Config { relay_policy: RelayPolicy::Always, ..with_relay() });
        net.bind("bob", &format!("sip:bob@{BOB}"), None);
        let mut step = 0;
        let mut receive = |net: &mut Net, source: &str, text: String| {
            let data = Bytes::from(spoil(step, text));
            step += 1;
            net.proxy.handle_input(net.now, Input::Packet { flow: udp(source), data });
            while let Some(output) = net.proxy.poll_output() {
                match output {
                    Output::Ask { ticket, question: Question::Store(query) } => {
                        let reply = Reply::Store(Ok(net.store.ask(query)));
                        net.proxy.handle_input(net.now, Input::Answer { ticket, reply });
                    }
                    Output::Ask { ticket, question: Question::Relay { .. } } => {
                        let dict = ng::Dict::new().with("result", "ok").with("sdp", PHONE_SDP);
                        let reply = Reply::Relay(Some(dict.encode_bencode().into()));
                        net.proxy.handle_input(net.now, Input::Answer { ticket, reply });
                    }
                    Output::Transmit { target, data } => {
                        net.sent.push((target, String::from_utf8_lossy(&data).into_owned()));
                    }
                    Output::Ask { .. } | Output::Event(_) | Output::Close { .. } => {}
                }
            }
        };
        let mut invite = Call::new("INVITE", "sip:bob@example.com");
        invite.body = PHONE_SDP;
        receive(&mut net, ALICE, invite.text());
        // What does not get there any more is told as it would have been.
        let at_bob = net.to(BOB).first().map_or_else(
            || {
                invite.text().replacen(
                    "Via:",
                    "Via: SIP/2.0/UDP 192.0.2.50:5060;branch=z9hG4bK00x\r\nVia:",
                    1,
                )
            },
            |text| text.to_string(),
        );
        let contact = format!("sip:bob@{BOB}");
        if Message::parse(at_bob.as_bytes()).is_ok_and(|message| message.is_request()) {
            for (status, body) in [(183, PHONE_SDP), (200, PHONE_SDP), (486, "")] {
                receive(&mut net, BOB, respond(&at_bob, status, "tb", &contact, body));
            }
        }
        let route = header(&at_bob, "Record-Route").unwrap_or("<sip:192.0.2.50;lr>").to_owned();
        for method in ["ACK", "UPDATE", "BYE", "CANCEL", "REGISTER", "SUBSCRIBE"] {
            receive(&mut net, ALICE, in_dialog(method, &route).text());
        }
        net.wait(Duration::from_secs(400));
        assert!(net.proxy.is_idle());
        assert!(net.proxy.contexts.is_empty() && net.proxy.by_client.is_empty(), "something is left");
        assert_eq!(net.proxy.poll_timeout(), None);
    }

    #[test]
    fn the_play_itself_goes_well() {
        play(|_, text| text.into_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_spoilt_packet_is_survived_and_nothing_is_left(
            at in 0usize..10,
            place in any::<proptest::sample::Index>(),
            with in proptest::collection::vec(any::<u8>(), 0..6),
            cut in 0usize..40,
        ) {
            play(|step, text| {
                let mut bytes = text.into_bytes();
                if step == at {
                    let from = place.index(bytes.len());
                    let to = (from + cut).min(bytes.len());
                    bytes.splice(from..to, with.iter().copied());
                }
                bytes
            });
        }
    }

    /// RFC 4475 and RFC 5118, where they are at hand.
    #[test]
    fn torture_messages_are_survived() {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/sip-torture");
        let mut files = Vec::new();
        let mut folders = vec![folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        if files.is_empty() {
            eprintln!("SKIPPED: {} is not here", folder.display());
            return;
        }
        let mut net = Net::new(with_relay());
        for file in &files {
            let data = Bytes::from(std::fs::read(file).expect("a file of the folder"));
            net.proxy.handle_input(net.now, Input::Packet { flow: udp(ALICE), data });
            while net.proxy.poll_output().is_some() {}
        }
        net.wait(Duration::from_secs(400));
        assert!(net.proxy.is_idle() && net.proxy.contexts.is_empty());
    }
}
