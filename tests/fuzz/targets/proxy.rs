//! Sequences of packets, answers, time-outs and losses, through the whole proxy machine.
//!
//! An input is a list of steps between 0x1e bytes. A step's first byte says what it is: `A` to `D` a packet of that party
//! (the rest, byte for byte), `r` an answer of a callee (`r0200`: to the first request that was sent on, with 200; then what
//! it has as its body), `s` the store's (`s2`: two bindings), `n` the relay's (`no`, `ne`, `nx`), `t` time (`t5`: half a
//! second), `x` a failed send. Laws: what leaves is a message; no request gets two different final answers; when everybody
//! is silent, nothing is left.

use bytes::Bytes;
use sipbox_core::auth::Keys;
use sipbox_core::flow::{Flow, Listener, ListenerId, ServerKey, Target, Transport};
use sipbox_core::limits;
use sipbox_core::machine::{Input, Machine, Output, Question, Reply, Ticket};
use sipbox_core::ng;
use sipbox_core::proxy::{Auth, Config, Fork, Proxy, RelayPolicy};
use sipbox_core::rng::Rng;
use sipbox_core::sip::{Message, Method, Name, build};
use sipbox_core::store::{self, Binding};
use sipbox_core::time::Instant;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

const PROXY: &str = "192.0.2.50:5060";
/// Timer C, a CANCEL that nobody answers, and what lingers.
const LINGER: Duration = Duration::from_secs(300);
/// Timers J and H: as long a final answer is remembered. After it, the same request is a new one.
const REMEMBERED: Duration = Duration::from_secs(32);
/// Steps of one input: more only take longer.
const MOST_STEPS: usize = 64;

struct World {
    proxy: Proxy,
    now: Instant,
    /// Requests that left, to be answered.
    sent: Vec<(SocketAddr, Bytes)>,
    asked: Vec<(Ticket, Question)>,
    /// The final answer of each request that came: who asked, branch, method.
    finals: HashMap<(SocketAddr, Vec<u8>, Vec<u8>), Final>,
}

struct Final {
    status: u16,
    at: Instant,
}

pub fn run(data: &[u8]) {
    let Some((&kind, steps)) = data.split_first() else { return };
    let Some(keys) = Keys::new(&["a key for fuzzing, long enough"]) else { return };
    let local: SocketAddr = PROXY.parse().expect("an address");
    let listener = Listener {
        id: ListenerId(0),
        transport: Transport::Udp,
        local,
        advertised_host: local.ip().to_string(),
        advertised_port: local.port(),
        local_nets: Vec::new(),
    };
    let config = Config {
        listeners: vec![listener],
        domains: vec!["example.com".into()],
        registrar: Some("sip:192.0.2.51".into()),
        presence: None,
        relays: vec!["one".into()],
        relay_policy: if kind & 1 == 0 { RelayPolicy::Always } else { RelayPolicy::Never },
        auth: if kind & 2 == 0 { Auth::None } else { Auth::Digest },
        trust: Vec::new(),
        edge: Vec::new(),
        fork: if kind & 4 == 0 { Fork::Parallel } else { Fork::Serial },
        ring_timeout: Duration::from_secs(20),
        routes: Vec::new(),
        keys,
        worker: 0,
        epoch: 7,
    };
    let mut world = World {
        proxy: Proxy::new(config, Rng::from_seed(1)),
        now: Instant::from_secs(1_700_000_000),
        sent: Vec::new(),
        asked: Vec::new(),
        finals: HashMap::new(),
    };
    for step in steps.split(|&byte| byte == 0x1e).take(MOST_STEPS) {
        if let Some((&what, rest)) = step.split_first() {
            world.step(what, rest);
            world.drain();
        }
    }
    world.pass(LINGER);
    world.nothing_is_left();
}

fn party(number: u8) -> Flow {
    let remote = ([192, 0, 2, number], 5060).into();
    Flow { transport: Transport::Udp, listener: ListenerId(0), remote, connection: None }
}

fn digit(text: &[u8], at: usize) -> usize {
    text.get(at).map_or(0, |&byte| usize::from(byte.wrapping_sub(b'0')))
}

impl World {
    fn input(&mut self, input: Input) {
        self.proxy.handle_input(self.now, input);
    }

    fn step(&mut self, what: u8, rest: &[u8]) {
        match what {
            b'A'..=b'D' => {
                let data = Bytes::copy_from_slice(rest);
                self.input(Input::Packet { flow: party(what - b'A' + 1), data });
            }
            b'r' => self.answer(rest),
            b's' => {
                let Some(at) = self.asked.iter().position(|(_, asked)| matches!(asked, Question::Store(_)))
                else {
                    return;
                };
                let (ticket, _) = self.asked.remove(at);
                let bindings =
                    (0..digit(rest, 0) % 4).map(|nth| binding(party(nth as u8 + 2).remote)).collect();
                let reply = Reply::Store(Ok(store::Reply::Bindings(bindings)));
                self.input(Input::Answer { ticket, reply });
            }
            b'n' => {
                let Some(at) =
                    self.asked.iter().position(|(_, asked)| matches!(asked, Question::Relay { .. }))
                else {
                    return;
                };
                let (ticket, _) = self.asked.remove(at);
                let dict = match rest.first() {
                    Some(b'o') => Some(
                        ng::Dict::new().with("result", "ok").with("sdp", "v=0\r\nm=audio 9 RTP/AVP 0\r\n"),
                    ),
                    Some(b'e') => Some(ng::Dict::new().with("result", "error").with("error-reason", "no")),
                    _ => None,
                };
                let reply = Reply::Relay(dict.map(|dict| dict.encode_bencode().into()));
                self.input(Input::Answer { ticket, reply });
            }
            b't' => self.pass(Duration::from_millis(100) * digit(rest, 0) as u32),
            b'x' => {
                if let Some((remote, data)) = self.sent.last().cloned() {
                    let target = Target::Address {
                        listener: ListenerId(0),
                        transport: Transport::Udp,
                        remote,
                        server: ServerKey::ADDRESS,
                    };
                    self.input(Input::SendFailed { target, data });
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, how: &[u8]) {
        let Some((remote, request)) = self.sent.get(digit(how, 0)).cloned() else { return };
        let status = (digit(how, 1) * 100 + digit(how, 2) * 10 + digit(how, 3)).clamp(100, 699) as u16;
        let Ok(request) = Message::parse(&request) else { return };
        let routes: Vec<String> = request
            .values(Name::RecordRoute)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        let mut headers: Vec<(&str, &str)> =
            routes.iter().map(|value| ("Record-Route", value.as_str())).collect();
        let contact = format!("<sip:callee@{remote}>");
        headers.push(("Contact", &contact));
        let body = how.get(4..).unwrap_or_default();
        if !body.is_empty() {
            headers.push(("Content-Type", "application/sdp"));
        }
        let data = build::response(&request, status, None, Some("callee"), &headers, body);
        let flow = Flow { remote, ..party(1) };
        self.input(Input::Packet { flow, data: data.into() });
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.proxy.poll_timeout().filter(|&at| at <= end) {
            assert!(at >= self.now, "a timer of the past");
            self.now = at;
            self.proxy.handle_timeout(at);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Transmit { target, data } => self.left(target.remote(), data),
                Output::Ask { ticket, question } => self.asked.push((ticket, question)),
                Output::Close { .. } | Output::Event(_) => {}
            }
        }
    }

    fn left(&mut self, remote: SocketAddr, data: Bytes) {
        if data.len() > limits::SIP_MESSAGE_BYTES {
            return;
        }
        let message = match Message::parse(&data) {
            Ok(message) => message,
            // Grown beyond a limit: the next hop refuses it.
            Err(error) if error.kind.status() == 513 => return,
            Err(error) => panic!("what leaves is no message: {error}: {}", String::from_utf8_lossy(&data)),
        };
        if message.is_request() {
            if message.method() != Method::Ack && self.sent.len() < 200 {
                self.sent.push((remote, data.clone()));
            }
            return;
        }
        let status = message.status();
        let branch = message.top_via().ok().and_then(|via| via.branch()).unwrap_or_default();
        // What cannot be read is answered without a transaction, as often as it comes; and a branch of RFC 2543, or of nobody,
        // names no request.
        if status < 200
            || matches!(status, 400 | 505 | 513)
            || !branch.starts_with(b"z9hG4bK")
            || message.check().is_err()
        {
            return;
        }
        let method = message.method().as_bytes().to_vec();
        let tagged = [
            branch,
            b" ",
            message.call_id().unwrap_or_default(),
            b" ",
            message.header(Name::CSeq).unwrap_or_default(),
            b" ",
            message.top_via().map_or("", |via| via.sent_by).to_ascii_lowercase().as_bytes(),
        ]
        .concat();
        let given = self
            .finals
            .entry((remote, tagged, method))
            .and_modify(|given| {
                if self.now >= given.at + REMEMBERED {
                    *given = Final { status, at: self.now };
                }
            })
            .or_insert(Final { status, at: self.now });
        let known = given.status;
        let both_2xx = (200..300).contains(&known) && (200..300).contains(&status);
        assert!(known == status || both_2xx, "{known}, and then {status}");
    }

    fn nothing_is_left(&self) {
        let mut lines = Vec::new();
        self.proxy.dump(&mut lines);
        let state: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
        for name in ["requests", "pending", "questions", "transactions", "timers", "bytes"] {
            assert_eq!(state[name], 0, "left: {state}");
        }
    }
}

/// A phone that registered from this address.
pub fn binding(at: SocketAddr) -> Binding {
    Binding {
        ruid: at.to_string(),
        contact: format!("sip:callee@{at}"),
        received: None,
        path: None,
        expires: Instant::from_secs(2_000_000_000),
        q: None,
        call_id: "r".into(),
        cseq: 1,
        modified: Instant::from_secs(1),
        cflags: 0,
        user_agent: String::new(),
        socket: None,
        methods: None,
        instance: None,
        reg_id: 0,
    }
}
