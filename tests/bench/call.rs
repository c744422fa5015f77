//! A call through the proxy in its own process: time and allocations of each message, without sockets.
//!
//! Goes in: nothing, or how many calls (`scripts/bench call 20000`), and `--cold`: a cache's worth of other memory is walked
//! before each message, as on a server that wakes for each. Comes out: JSON lines, a row a message, the timers' and the sum of
//! all. Calls follow each other at 200 a second of the machine's own time, so that what lingers for 32 s is there. Nothing is
//! asked of a database: the next hop is fixed. An OPTIONS to the proxy itself has a row of its own, beside the sum. Not here: system calls (`proxy`), what is fast enough.

#[allow(dead_code)] // Rounds of one closure are for the scanner.
mod measure;

use bytes::Bytes;
use measure::{Counting, allocations};
use sipbox_core::auth::Keys;
use sipbox_core::flow::{Flow, Listener, ListenerId, Target, Transport};
use sipbox_core::machine::{Input, Machine, Output};
use sipbox_core::proxy::{Auth, Config, Fork, Proxy, RelayPolicy, Route};
use sipbox_core::rng::Rng;
use sipbox_core::sip::{Message, Name, build};
use sipbox_core::time::Instant;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PROXY: &str = "192.0.2.50:5060";
const ALICE: &str = "192.0.2.1:5060";
const BOB: &str = "192.0.2.2:5060";
const SDP: &str = "v=0\r\no=- 2890844526 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                   m=audio 49170 RTP/AVP 9 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n";
/// Between two calls.
const GAP: Duration = Duration::from_millis(5);
/// Calls before anything is counted: the lingering ones of 32 s.
const WARM: u64 = 6400;
/// Larger than a core's own caches.
const COLD: usize = 8 << 20;
const ROWS: [&str; 8] = ["invite", "180", "200", "ack", "bye", "200-bye", "timers", "options"];
/// The row that is no part of a call.
const OPTIONS: usize = 7;

#[derive(Clone, Copy, Default)]
struct Row {
    nanos: u64,
    allocations: u64,
}

struct Bench {
    proxy: Proxy,
    now: Instant,
    sent: Vec<(Target, Bytes)>,
    rows: [Row; 8],
    cold: Vec<u8>,
}

impl Bench {
    fn drain(&mut self) {
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Transmit { target, data } => self.sent.push((target, data)),
                Output::Ask { .. } => panic!("nothing is to be asked"),
                Output::Close { .. } | Output::Event(_) => {}
            }
        }
    }

    fn timed(&mut self, row: usize, work: impl FnOnce(&mut Self)) {
        self.cold.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
        let before = (allocations(), std::time::Instant::now());
        work(self);
        let nanos = before.1.elapsed().as_nanos() as u64;
        self.rows[row].nanos += nanos;
        self.rows[row].allocations += allocations() - before.0;
    }

    fn receive(&mut self, row: usize, from: &str, text: &[u8]) {
        self.sent.clear();
        let remote = from.parse().expect("an address");
        let flow = Flow { transport: Transport::Udp, listener: ListenerId(0), remote, connection: None };
        let data = Bytes::copy_from_slice(text);
        self.timed(row, |bench| {
            bench.proxy.handle_input(bench.now, Input::Packet { flow, data });
            bench.drain();
        });
    }

    /// What went there last.
    fn last(&self, to: &str) -> Bytes {
        let to = to.parse().expect("an address");
        let found = self.sent.iter().rev().find(|(target, _)| target.remote() == to);
        found.expect("something was sent there").1.clone()
    }

    fn call(&mut self, nth: u64) {
        let request = |method: &str, uri: &str, cseq: u32, route: &str, tag: &str, body: &str| {
            let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
            format!(
                "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {ALICE};branch=z9hG4bK-{nth}-{method}\r\nMax-Forwards: 70\r\n{route}\
                 From: \"Alice\" <sip:alice@example.com>;tag=a{nth}\r\nTo: <sip:bob@example.net>{tag}\r\n\
                 Call-ID: {nth}-8231@192.0.2.1\r\nCSeq: {cseq} {method}\r\nContact: <sip:alice@{ALICE}>\r\n\
                 Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE, SUBSCRIBE, INFO\r\nUser-Agent: bench\r\n\
                 {kind}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        };
        self.receive(0, ALICE, &request("INVITE", "sip:bob@example.net", 1, "", "", SDP));
        let invite = self.last(BOB);
        self.receive(1, BOB, &answer(&invite, 180, ""));
        self.receive(2, BOB, &answer(&invite, 200, SDP));
        let ok = self.last(ALICE);
        let ok = Message::parse(&ok).expect("a response");
        let route = ok.values(Name::RecordRoute).next().expect("a Record-Route");
        let route = format!("Route: {}\r\n", String::from_utf8_lossy(route));
        let contact = format!("sip:bob@{BOB}");
        self.receive(3, ALICE, &request("ACK", &contact, 1, &route, ";tag=b", ""));
        self.receive(4, ALICE, &request("BYE", &contact, 2, &route, ";tag=b", ""));
        let bye = self.last(BOB);
        self.receive(5, BOB, &answer(&bye, 200, ""));
        assert!(self.last(ALICE).starts_with(b"SIP/2.0 200"), "the call went through");
        let end = self.now + GAP;
        self.timed(6, |bench| {
            while let Some(at) = bench.proxy.poll_timeout().filter(|at| *at <= end) {
                bench.now = at;
                bench.proxy.handle_timeout(at);
                bench.drain();
            }
        });
        self.now = end;
    }
}

impl Bench {
    /// Whoever only wants to know that we are there.
    fn ping(&mut self, nth: u64) {
        let text = format!(
            "OPTIONS sip:{PROXY} SIP/2.0\r\nVia: SIP/2.0/UDP {ALICE};branch=z9hG4bK-{nth}-5060\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@example.com>;tag={nth}\r\nTo: <sip:{PROXY}>\r\nCall-ID: {nth}-5060@192.0.2.1\r\n\
             CSeq: 1 OPTIONS\r\nContact: <sip:alice@{ALICE}>\r\nContent-Length: 0\r\n\r\n"
        );
        self.receive(OPTIONS, ALICE, text.as_bytes());
        assert!(self.last(ALICE).starts_with(b"SIP/2.0 200"), "it was answered");
    }
}

fn answer(request: &[u8], status: u16, body: &str) -> Vec<u8> {
    let message = Message::parse(request).expect("a request");
    let routes: Vec<_> = message.values(Name::RecordRoute).map(String::from_utf8_lossy).collect();
    let mut headers: Vec<(&str, &str)> = routes.iter().map(|route| ("Record-Route", &**route)).collect();
    let contact = format!("<sip:bob@{BOB}>");
    headers.push(("Contact", &contact));
    if !body.is_empty() {
        headers.push(("Content-Type", "application/sdp"));
    }
    build::response(&message, status, None, Some("b"), &headers, body.as_bytes())
}

fn main() {
    let mut calls = 20_000u64;
    let mut cold = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.parse() {
            Ok(number) => calls = number,
            Err(_) if argument == "--cold" => cold = vec![0; COLD],
            Err(_) => {
                eprintln!("call: {argument}: neither a number of calls nor --cold");
                std::process::exit(64);
            }
        }
    }
    let local: std::net::SocketAddr = PROXY.parse().expect("an address");
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
        registrar: None,
        presence: None,
        relays: Vec::new(),
        relay_policy: RelayPolicy::Auto,
        auth: Auth::None,
        trust: vec!["192.0.2.1/32".parse().expect("a network")],
        edge: Vec::new(),
        fork: Fork::Parallel,
        ring_timeout: Duration::from_secs(120),
        routes: vec![Route { pattern: "*".into(), uri: format!("sip:{BOB}") }],
        keys: Keys::new(&["a key for benches, long enough"]).expect("a key"),
        worker: 0,
        epoch: 1,
    };
    let mut bench = Bench {
        proxy: Proxy::new(config, Rng::from_seed(1)),
        now: Instant::from_secs(1_000_000),
        sent: Vec::new(),
        rows: Default::default(),
        cold,
    };
    for nth in 0..WARM {
        bench.call(nth);
    }
    bench.rows = Default::default();
    for nth in 0..calls {
        bench.call(WARM + nth);
        bench.ping(nth);
    }
    let calls = calls.max(1);
    let row = |name: &str, row: Row| {
        println!(
            "{{\"bench\":\"call\",\"what\":\"{name}\",\"cold\":{},\"ns\":{},\"allocations\":{:.2}}}",
            !bench.cold.is_empty(),
            row.nanos / calls,
            row.allocations as f64 / calls as f64
        );
    };
    let mut sum = Row::default();
    for (name, cost) in ROWS.iter().zip(bench.rows).take(OPTIONS) {
        row(name, cost);
        sum.nanos += cost.nanos;
        sum.allocations += cost.allocations;
    }
    row("sum", sum);
    row(ROWS[OPTIONS], bench.rows[OPTIONS]);
}
