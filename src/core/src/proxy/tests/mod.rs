//! The seed's routing table row by row, on a virtual clock, with a store in memory and a relay that is answered by hand.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // reads the torture messages

mod anything;
mod auth;
mod dialogs;
mod forks;
mod late;
mod media;
mod routes;

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
        local_nets: Vec::new(),
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
        worker: 0,
        epoch: 7,
    }
}

fn with_relay() -> Config {
    Config { relays: vec!["east".into(), "west".into()], ..config() }
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
