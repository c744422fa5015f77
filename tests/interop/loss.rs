//! A thousand calls over lines that lose, delay and reorder, on real sockets.
//!
//! A network of its own; 2 % of all that the proxy receives and sends is dropped by the kernel, on both of its sides, and a
//! forwarder on each side holds every packet for a while of its own, drawn from a seed that is printed. sipp calls; who answers
//! is written here, as sipp's other end forgets a 200 that was lost once the INVITE comes again. Each call has to be set up and
//! torn down, and the proxy has to hold nothing when the last timer has run out.

#[path = "../harness/mod.rs"]
mod harness;

#[allow(dead_code, reason = "its addresses are of the browsers' house")]
mod namespace;

use harness::{Process, Server, TempDir};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CALLER: &str = "127.0.0.21";
const CALLER_SIDE: &str = "127.0.0.22";
const PROXY: &str = "127.0.0.23";
const CALLEE_SIDE: &str = "127.0.0.24";
const CALLEE: &str = "127.0.0.25";
const PORT: u16 = 5060;

const CALLS: u64 = 1000;
const CALLS_A_SECOND: &str = "100";
/// Each packet is held for so long, or less: those of one call overtake each other.
const DELAY: Duration = Duration::from_millis(30);
/// 64·T1 (RFC 3261 §17): no timer of ours is longer, but for those of calls that still ring.
const LAST_TIMER: Duration = Duration::from_secs(32);

/// Passes packets between two ends, each after a delay of its own.
struct Forwarder {
    passed: Arc<AtomicU64>,
    overtaken: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Forwarder {
    /// What comes from the proxy goes to `outside`, and all else to the proxy.
    fn start(at: &str, outside: &str, mut seed: u64) -> Forwarder {
        let socket = UdpSocket::bind((at, PORT)).expect("an address of this network");
        let (proxy, outside): (SocketAddr, SocketAddr) =
            (format!("{PROXY}:{PORT}").parse().unwrap(), format!("{outside}:{PORT}").parse().unwrap());
        let forwarder = Forwarder { passed: Arc::default(), overtaken: Arc::default(), ends: Arc::default() };
        let (passed, overtaken, ends) =
            (forwarder.passed.clone(), forwarder.overtaken.clone(), forwarder.ends.clone());
        thread::spawn(move || {
            // By when they are due; the number keeps two of one moment apart, and tells which came first.
            let mut held: BTreeMap<(Instant, u64), (SocketAddr, Vec<u8>)> = BTreeMap::new();
            let (mut buffer, mut number, mut last) = ([0; 65_535], 0, 0);
            while !ends.load(Ordering::Relaxed) {
                let now = Instant::now();
                while let Some(entry) = held.first_entry().filter(|entry| entry.key().0 <= now) {
                    let ((_, own), (to, packet)) = entry.remove_entry();
                    overtaken.fetch_add(u64::from(own < last), Ordering::Relaxed);
                    last = last.max(own);
                    socket.send_to(&packet, to).expect("room to send");
                    passed.fetch_add(1, Ordering::Relaxed);
                }
                let until = held.keys().next().map_or(DELAY, |(due, _)| due.saturating_duration_since(now));
                socket.set_read_timeout(Some(until.max(Duration::from_micros(200)))).unwrap();
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        // Steele and Vigna's SplitMix64.
                        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                        let micros = (mixed >> 32) % DELAY.as_micros() as u64;
                        number += 1;
                        let due = Instant::now() + Duration::from_micros(micros);
                        let to = if from == proxy { outside } else { proxy };
                        held.insert((due, number), (to, buffer[..length].to_vec()));
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    // A port that is closed already, told by ICMP.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => panic!("the forwarder's socket: {error}"),
                }
            }
        });
        forwarder
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// T1 and T2 (RFC 3261 §17.1.1.1).
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// Longer than what is sent later may overtake: sipp takes a 180 after the 200 for a fault.
const RINGS: Duration = Duration::from_millis(200);

/// One call of the phone that answers.
struct Call {
    /// Headers of the response that is sent last, and to whom.
    headers: String,
    peer: SocketAddr,
    is_answered: bool,
    acknowledged: bool,
    hung_up: bool,
    /// When the 200 is sent next, and how long after that again (RFC 3261 §13.3.1.4).
    due: Instant,
    interval: Duration,
}

/// A phone that answers each call.
struct Phone {
    socket: UdpSocket,
    calls: HashMap<String, Call>,
    /// What it did not expect.
    faults: Vec<String>,
}

impl Phone {
    fn start() -> (Arc<AtomicBool>, thread::JoinHandle<Phone>) {
        let socket = UdpSocket::bind((CALLEE, PORT)).expect("an address of this network");
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let (ends, phone) =
            (Arc::new(AtomicBool::new(false)), Phone { socket, calls: HashMap::new(), faults: Vec::new() });
        let told = ends.clone();
        (ends, thread::spawn(move || phone.run(&told)))
    }

    fn run(mut self, ends: &AtomicBool) -> Phone {
        let mut buffer = [0; 65_535];
        while !ends.load(Ordering::Relaxed) {
            if let Ok((length, peer)) = self.socket.recv_from(&mut buffer) {
                let message = String::from_utf8(buffer[..length].to_vec()).expect("UTF-8");
                self.request(&message, peer);
            }
            self.repeat();
        }
        self
    }

    fn request(&mut self, message: &str, peer: SocketAddr) {
        let method = message.split(' ').next().unwrap_or_default();
        let of = |names: &[&str]| -> String {
            let lines = message.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
            lines.map(|line| format!("{line}\r\n")).collect()
        };
        let call_id = of(&["Call-ID:"]);
        let mut headers = of(&["Via:", "Record-Route:", "From:", "Call-ID:", "CSeq:"]);
        let to = of(&["To:"]);
        match (method, self.calls.get_mut(&call_id)) {
            ("INVITE", None) => {
                headers += &format!("{};tag=b{}\r\n", to.trim_end(), self.calls.len());
                headers += &format!("Contact: <sip:bob@{CALLEE_SIDE}:{PORT}>\r\n");
                let now = Instant::now();
                let call = Call {
                    headers,
                    peer,
                    is_answered: false,
                    acknowledged: false,
                    hung_up: false,
                    due: now + RINGS,
                    interval: T1,
                };
                respond(&self.socket, "180 Ringing", &call.headers, peer);
                self.calls.insert(call_id, call);
            }
            // Again, since what was answered is lost or under way.
            ("INVITE", Some(call)) => {
                let status = if call.is_answered { "200 OK" } else { "180 Ringing" };
                respond(&self.socket, status, &call.headers, peer);
            }
            ("ACK", Some(call)) => call.acknowledged = true,
            ("BYE", Some(call)) => {
                call.hung_up = true;
                respond(&self.socket, "200 OK", &(headers + &to), peer);
            }
            _ => self.faults.push(message.to_owned()),
        }
    }

    fn repeat(&mut self) {
        let now = Instant::now();
        for call in self.calls.values_mut() {
            if !call.acknowledged && !call.hung_up && call.due <= now {
                respond(&self.socket, "200 OK", &call.headers, call.peer);
                call.is_answered = true;
                call.due = now + call.interval;
                call.interval = (call.interval * 2).min(T2);
            }
        }
    }
}

fn respond(socket: &UdpSocket, status: &str, headers: &str, peer: SocketAddr) {
    let message = format!("SIP/2.0 {status}\r\n{headers}Content-Length: 0\r\n\r\n");
    socket.send_to(message.as_bytes(), peer).expect("room to send");
}

fn sipp(dir: &TempDir, scenario: &str, address: &str, words: &[&str]) -> Process {
    let scenario = format!("{}/tests/data/sipp/{scenario}.xml", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("sipp");
    command.args(["-sf", &scenario, "-i", address, "-p", "5060", "-nostdin", "-m", &CALLS.to_string()]);
    command.args(["-buff_size", "1048576", "-trace_stat", "-fd", "1"]);
    command.arg("-stf").arg(dir.join(&format!("{address}.csv"))).args(words).current_dir(dir.path());
    Process::start(command)
}

/// Calls that succeeded and that failed, by sipp's own count.
fn counted(file: &Path) -> (u64, u64) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let names = text.lines().next().unwrap_or_default().split(';');
    let values = text.lines().last().unwrap_or_default().split(';');
    let of = |wanted: &str| {
        let found = names.clone().zip(values.clone()).find(|(name, _)| *name == wanted);
        found.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("no {wanted} in {text}"))
    };
    (of("SuccessfulCall(C)"), of("FailedCall(C)"))
}

/// Packets that the rules dropped, of all that passed them.
fn dropped() -> u64 {
    let output = Command::new("iptables").args(["-nvxL", "INPUT"]).output().expect("iptables");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_rule = |line: &str| line.split_whitespace().next().and_then(|count| count.parse::<u64>().ok());
    text.lines().filter(|line| line.contains("DROP ")).filter_map(of_rule).sum()
}

#[test]
fn a_thousand_calls_on_lines_that_lose() {
    namespace::enter();
    // To the proxy and from it, on both of its sides.
    for side in ["-d", "-s"] {
        namespace::iptables(&format!(
            "-A INPUT -p udp {side} {PROXY} -m statistic --mode random --probability 0.02 -j DROP"
        ));
    }
    let seed = u64::from(std::process::id());
    println!("seed of the delays: {seed}");
    let left = Forwarder::start(CALLER_SIDE, CALLER, seed);
    let right = Forwarder::start(CALLEE_SIDE, CALLEE, !seed);
    let dir = Arc::new(TempDir::new());
    let listen = format!("udp:{PROXY}:{PORT}");
    let route = format!("*=sip:{CALLEE_SIDE}:{PORT}");
    let args = ["--listen", &listen, "--route", &route, "--domain", "example.com", "--auth", "none"];
    let args = [&args[..], &["--rate-limit", "off", "--events", "-"]].concat();
    let proxy = Server::start_in(dir.clone(), "proxy", &args);

    let (ends, phone) = Phone::start();
    let target = format!("{CALLER_SIDE}:{PORT}");
    let mut caller = sipp(&dir, "lossy_uac", CALLER, &["-r", CALLS_A_SECOND, &target]);
    let called = caller.wait(Duration::from_secs(90));
    let quiet_since = Instant::now();
    assert!(called.is_some(), "{}", caller.log());
    assert_eq!(counted(&dir.join(&format!("{CALLER}.csv"))), (CALLS, 0), "{}", caller.log());
    ends.store(true, Ordering::Relaxed);
    let phone = phone.join().expect("the phone");
    assert_eq!(phone.faults, [""; 0]);
    let hung_up = phone.calls.values().filter(|call| call.hung_up).count();
    assert_eq!((phone.calls.len(), hung_up), (CALLS as usize, CALLS as usize));

    // The lines were bad: else all of this says nothing.
    let passed = left.passed.load(Ordering::Relaxed) + right.passed.load(Ordering::Relaxed);
    let overtaken = left.overtaken.load(Ordering::Relaxed) + right.overtaken.load(Ordering::Relaxed);
    println!("{passed} packets, {} dropped, {overtaken} overtaken", dropped());
    // Seven messages a call on either side, each with 2 % to lose; half of that is far below any chance.
    assert!(dropped() > CALLS * 14 / 100, "only {} dropped", dropped());
    assert!(overtaken > CALLS, "only {overtaken} overtaken");

    // Each call once, answered, and with its end.
    let records = proxy.records();
    let calls = |event: &str| -> Vec<&str> {
        let of = records.iter().filter(|record| record["event"] == event);
        of.filter_map(|record| record["call_id"].as_str()).collect()
    };
    for event in ["call-start", "call-answered", "call-end"] {
        let calls = calls(event);
        let different: HashSet<_> = calls.iter().collect();
        assert_eq!((calls.len() as u64, different.len() as u64), (CALLS, CALLS), "{event}");
    }

    thread::sleep((LAST_TIMER + Duration::from_secs(2)).saturating_sub(quiet_since.elapsed()));
    proxy.process.signal(libc::SIGUSR1);
    let state = proxy.wait_log(Duration::from_secs(5), "\"transactions\"").expect("its state");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    for held in ["requests", "pending", "transactions", "bytes", "timers", "questions", "calls"] {
        assert_eq!(state[held], 0, "{held}: {state}");
    }
}
