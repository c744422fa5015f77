//! The network between the user agents and the proxy, the proxy's database and relay, and the verdict.

use super::ua::{Plan, Ua};
use crate::fuzz::targets::proxy::binding;
use bytes::Bytes;
use sipbox_core::auth::Keys;
use sipbox_core::flow::{Flow, Listener, ListenerId, Transport};
use sipbox_core::machine::{Input, Machine, Output, Question, Reply, Ticket};
use sipbox_core::ng;
use sipbox_core::proxy::{Auth, Config, Fork, Proxy, RelayPolicy};
use sipbox_core::rng::Rng;
use sipbox_core::store::{self, Binding};
use sipbox_core::time::Instant;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

/// Messages that one call may cost the proxy: a few branches, each with every retransmission there is.
const STORM: u64 = 3_000;

fn address(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 5060).into()
}

/// Something on its way.
enum Arrival {
    Packet { from: SocketAddr, to: SocketAddr, data: Bytes },
    Answer { ticket: Ticket, reply: Reply },
}

/// What was met in all worlds together.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub answered: u64,
    pub refused: u64,
    pub cancelled: u64,
    pub answered_though_cancelled: u64,
    pub forked: u64,
    pub hung_up_by_the_proxy: u64,
    pub in_dialog: u64,
    pub reliable: u64,
    pub crossing_byes: u64,
    pub lost: u64,
    pub doubled: u64,
    pub relay_failures: u64,
}

impl Tally {
    pub fn parts(&self) -> [(&'static str, u64); 12] {
        [
            ("answered calls", self.answered),
            ("refused calls", self.refused),
            ("cancelled calls", self.cancelled),
            ("calls answered though cancelled", self.answered_though_cancelled),
            ("forked calls", self.forked),
            ("late answers that the proxy hung up on", self.hung_up_by_the_proxy),
            ("requests in dialogs", self.in_dialog),
            ("acknowledged provisional responses", self.reliable),
            ("calls that both hung up on", self.crossing_byes),
            ("lost packets", self.lost),
            ("doubled packets", self.doubled),
            ("failures of the relay", self.relay_failures),
        ]
    }

    pub fn add(&mut self, other: &Tally) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.cancelled += other.cancelled;
        self.answered_though_cancelled += other.answered_though_cancelled;
        self.forked += other.forked;
        self.hung_up_by_the_proxy += other.hung_up_by_the_proxy;
        self.in_dialog += other.in_dialog;
        self.reliable += other.reliable;
        self.crossing_byes += other.crossing_byes;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.relay_failures += other.relay_failures;
    }
}

pub struct World {
    rng: Rng,
    now: Instant,
    start: Instant,
    ladder: bool,
    proxy: Proxy,
    caller: Ua,
    phones: Vec<Ua>,
    bindings: Vec<Binding>,
    arrivals: BinaryHeap<Reverse<(Instant, u64)>>,
    what: BTreeMap<u64, Arrival>,
    serial: u64,
    /// Chances in a thousand.
    loss: u32,
    doubling: u32,
    /// Longest delay of a packet, in milliseconds.
    delay: u32,
    store_fails: bool,
    relay_fails: u32,
    sent_by_proxy: u64,
    events: BTreeMap<&'static str, u64>,
    lost: u64,
    doubled: u64,
    relay_failures: u64,
}

impl World {
    pub fn new(seed: u64, ladder: bool) -> Self {
        let mut rng = Rng::from_seed(seed);
        let start = Instant::from_secs(1_700_000_000);
        let proxy_at = address(50);
        let count = 1 + rng.below(3) as u8;
        let config = Config {
            listeners: vec![Listener {
                id: ListenerId(0),
                transport: Transport::Udp,
                local: proxy_at,
                advertised_host: proxy_at.ip().to_string(),
                advertised_port: proxy_at.port(),
                local_nets: Vec::new(),
            }],
            domains: vec!["example.com".into()],
            registrar: None,
            presence: None,
            relays: vec!["relay".into()],
            relay_policy: if rng.below(2) == 0 { RelayPolicy::Always } else { RelayPolicy::Never },
            auth: Auth::None,
            trust: Vec::new(),
            edge: Vec::new(),
            fork: [Fork::Parallel, Fork::Parallel, Fork::Serial, Fork::None][rng.below(4) as usize],
            epoch: 1,
            worker: 0,
            ring_timeout: Duration::from_secs([8, 30, 120][rng.below(3) as usize]),
            routes: Vec::new(),
            keys: Keys::new(&["a key for tests, long enough"]).expect("a key"),
        };
        let caller = Ua::new("alice", address(1), Plan::caller(&mut rng), rng.u64(), start);
        let phones: Vec<Ua> = (0..count)
            .map(|n| Ua::new("bob", address(2 + n), Plan::phone(&mut rng), rng.u64(), start))
            .collect();
        World {
            proxy: Proxy::new(config, Rng::from_seed(rng.u64())),
            bindings: phones.iter().map(|phone| binding(phone.at)).collect(),
            loss: [0, 20, 100, 200][rng.below(4) as usize],
            doubling: [0, 50, 200][rng.below(3) as usize],
            delay: [5, 80, 700][rng.below(3) as usize],
            store_fails: rng.below(40) == 0,
            relay_fails: [0, 0, 250][rng.below(3) as usize],
            rng,
            now: start,
            start,
            ladder,
            caller,
            phones,
            arrivals: BinaryHeap::new(),
            what: BTreeMap::new(),
            serial: 0,
            sent_by_proxy: 0,
            events: BTreeMap::new(),
            lost: 0,
            doubled: 0,
            relay_failures: 0,
        }
    }

    /// Plays until nobody has anything to do any more, or for `longest`.
    pub fn run(&mut self, longest: Duration) {
        let end = self.start + longest;
        self.caller.invite(self.now);
        self.drain();
        loop {
            let uas = self.phones.iter().chain([&self.caller]).filter_map(Ua::next).min();
            let next = [self.arrivals.peek().map(|Reverse((at, _))| *at), self.proxy.poll_timeout(), uas]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|&next| next <= end) else { break };
            assert!(next >= self.now, "time goes back");
            self.now = next;
            while let Some(&Reverse((at, serial))) = self.arrivals.peek()
                && at <= self.now
            {
                self.arrivals.pop();
                if let Some(arrival) = self.what.remove(&serial) {
                    self.arrive(arrival);
                    self.drain();
                }
            }
            if self.proxy.poll_timeout().is_some_and(|at| at <= self.now) {
                self.proxy.handle_timeout(self.now);
                self.drain();
            }
            for ua in self.phones.iter_mut().chain([&mut self.caller]) {
                ua.handle_timeout(self.now);
            }
            self.drain();
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Packet { from, to, data } if to == address(50) => {
                self.show(from, to, &data);
                let flow = Flow {
                    transport: Transport::Udp,
                    listener: ListenerId(0),
                    remote: from,
                    connection: None,
                };
                self.proxy.handle_input(self.now, Input::Packet { flow, data });
            }
            Arrival::Packet { from, to, data } => {
                self.show(from, to, &data);
                let now = self.now;
                match self.phones.iter_mut().chain([&mut self.caller]).find(|ua| ua.at == to) {
                    Some(ua) => ua.receive(now, &data),
                    None => panic!("the proxy sends to {to}, where nobody is"),
                }
            }
            Arrival::Answer { ticket, reply } => {
                self.proxy.handle_input(self.now, Input::Answer { ticket, reply });
            }
        }
    }

    fn show(&self, from: SocketAddr, to: SocketAddr, data: &Bytes) {
        if self.ladder {
            let text = String::from_utf8_lossy(data);
            let line = text.lines().next().unwrap_or_default();
            let cseq = text.lines().find(|line| line.starts_with("CSeq:")).unwrap_or_default();
            let seconds = self.now.saturating_since(self.start).as_secs_f64();
            println!("{seconds:9.3} {} > {}  {line}  ({cseq})", from.ip(), to.ip());
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Transmit { target, data } => {
                    self.sent_by_proxy += 1;
                    self.post(address(50), target.remote(), data);
                }
                Output::Ask { ticket, question } => self.ask(ticket, question),
                Output::Event(event) => {
                    if self.ladder {
                        println!("          {} {:?}", event.name, event.fields);
                    }
                    *self.events.entry(event.name).or_default() += 1;
                }
                Output::Close { .. } => panic!("a datagram socket is not closed"),
            }
        }
        let mut out = Vec::new();
        for ua in self.phones.iter_mut().chain([&mut self.caller]) {
            out.extend(ua.out.drain(..).map(|data| (ua.at, data)));
        }
        for (from, data) in out {
            self.post(from, address(50), data);
        }
    }

    fn chance(&mut self, per_thousand: u32) -> bool {
        self.rng.below(1000) < per_thousand
    }

    fn post(&mut self, from: SocketAddr, to: SocketAddr, data: Bytes) {
        if self.chance(self.loss) {
            self.lost += 1;
            return;
        }
        let copies = if self.chance(self.doubling) { 2 } else { 1 };
        self.doubled += copies - 1;
        for _ in 0..copies {
            let delay = Duration::from_millis(1 + u64::from(self.rng.below(self.delay)));
            self.later(delay, Arrival::Packet { from, to, data: data.clone() });
        }
    }

    fn later(&mut self, delay: Duration, arrival: Arrival) {
        self.serial += 1;
        self.what.insert(self.serial, arrival);
        self.arrivals.push(Reverse((self.now + delay, self.serial)));
    }

    fn ask(&mut self, ticket: Ticket, question: Question) {
        let reply = match question {
            Question::Store(store::Query::Bindings { .. }) if self.store_fails => {
                Reply::Store(Err(store::Error::Unavailable("away".into())))
            }
            Question::Store(store::Query::Bindings { .. }) => {
                Reply::Store(Ok(store::Reply::Bindings(self.bindings.clone())))
            }
            Question::Relay { request, .. } => {
                let (_, asked) = ng::decode(&request).expect("ng of our own");
                let command = asked.get_str("command").unwrap_or_default().to_owned();
                if command != "delete" && self.chance(self.relay_fails) {
                    self.relay_failures += 1;
                    // Refused, answered too late, or not at all.
                    match self.rng.below(3) {
                        0 => Reply::Relay(Some(
                            ng::Dict::new()
                                .with("result", "error")
                                .with("error-reason", "Failed to parse SDP")
                                .encode_bencode()
                                .into(),
                        )),
                        1 => Reply::Relay(None),
                        _ => return,
                    }
                } else {
                    let sdp = format!("v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns={command}\r\n");
                    let dict = ng::Dict::new().with("result", "ok").with("sdp", sdp.as_str());
                    Reply::Relay(Some(dict.encode_bencode().into()))
                }
            }
            other => panic!("nobody asked for {other:?}"),
        };
        let delay = Duration::from_millis(1 + u64::from(self.rng.below(self.delay * 2)));
        self.later(delay, Arrival::Answer { ticket, reply });
    }

    /// What must hold when everything is over.
    pub fn judge(&self, tally: &mut Tally) -> Result<(), String> {
        let mut lines = Vec::new();
        self.proxy.dump(&mut lines);
        let state: serde_json::Value = serde_json::from_str(&lines[0]).map_err(|error| error.to_string())?;
        for name in ["requests", "pending", "questions", "transactions", "timers", "bytes"] {
            if state[name] != 0 {
                return Err(format!("the proxy still holds {name}: {state}"));
            }
        }
        if self.proxy.poll_timeout().is_some() || !self.proxy.is_idle() {
            return Err("the proxy still waits for something".into());
        }
        if self.sent_by_proxy > STORM {
            return Err(format!("{} messages for one call", self.sent_by_proxy));
        }
        for ua in self.phones.iter().chain([&self.caller]) {
            ua.at_rest().map_err(|fault| format!("{}: {fault}", ua.at))?;
        }
        // What is established at one end is at the other.
        for (tag, by) in self.caller.established() {
            let there = self.phones.iter().find(|phone| phone.at.ip().to_string() == by);
            if !there.is_some_and(|phone| phone.knows(&tag)) {
                return Err(format!("the caller talked to {tag} of {by}, who knows nothing of it"));
            }
        }
        let count = |name| self.events.get(name).copied().unwrap_or(0);
        // That stood at one end, if only there: a call whose ACKs are all lost ends too.
        let ends = self.phones.iter().chain([&self.caller]);
        let stood: BTreeSet<_> = ends.flat_map(Ua::established).map(|(tag, _)| tag).collect();
        let dialogs = stood.len() as u64;
        if count("call-answered") > 1 || count("call-start") > self.phones.len() as u64 {
            return Err(format!("told more than there was: {:?}", self.events));
        }
        if count("call-end") > dialogs {
            return Err(format!("{} ends of {dialogs} dialogs: {:?}", count("call-end"), self.events));
        }
        let met = self.caller.met();
        let phones: Vec<_> = self.phones.iter().map(Ua::met).collect();
        // Where nothing is lost, every 2xx is acknowledged: by the caller, or by the proxy when it is too late for him.
        if self.loss == 0 && phones.iter().chain([&met]).any(|ua| ua.unacknowledged) {
            return Err("a 2xx that nobody acknowledged, though nothing was lost".into());
        }
        // No CANCEL comes where all that a phone said was lost until the proxy's timer B; else it must.
        if self.loss == 0 && phones.iter().any(|phone| phone.rang_out) {
            return Err("a phone was left ringing, though nothing was lost".into());
        }
        tally.answered += u64::from(met.answered);
        tally.refused += u64::from(met.refused);
        tally.cancelled += u64::from(met.cancelled);
        tally.answered_though_cancelled += u64::from(met.cancelled && met.answered);
        tally.forked += u64::from(phones.iter().filter(|phone| phone.invited).count() > 1);
        tally.hung_up_by_the_proxy += count("hung-up");
        tally.in_dialog += met.in_dialog + phones.iter().map(|phone| phone.in_dialog).sum::<u64>();
        tally.reliable += met.reliable;
        tally.crossing_byes += u64::from(met.said_bye && phones.iter().any(|phone| phone.said_bye));
        tally.lost += self.lost;
        tally.doubled += self.doubled;
        tally.relay_failures += self.relay_failures;
        Ok(())
    }
}
