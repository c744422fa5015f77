//! The real proxy over its real sockets, with the real registrar: calls, and each refusal within five seconds, with one
//! clear line in the log.

#[macro_use]
#[path = "../harness/mod.rs"]
mod harness;

use harness::{Db, Process, Server, TempDir, loopback, run_in, server_command};
use sipbox_core::auth::digest::Challenge;
use sipbox_core::sip::{Message, Name, build};
use std::cell::Cell;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(5);
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";

/// A registrar and a proxy, with Alice and Bob as users.
struct House {
    proxy: Server,
    registrar: Server,
    dir: Arc<TempDir>,
}

impl House {
    fn start(more: &[&str]) -> House {
        House::start_with(Db::Sqlite, &[], more)
    }

    fn start_on(db: Db, more: &[&str]) -> House {
        House::start_with(db, &[], more)
    }

    fn start_with(db: Db, registrar_more: &[&str], more: &[&str]) -> House {
        let dir = Arc::new(TempDir::on(db));
        let db = dir.db();
        for (user, password) in [("alice", "wonder"), ("bob", "builder")] {
            let words =
                ["registrar", "user", "add", &format!("{user}@example.com"), "--password-stdin", "--db", &db];
            let done = run_in(&dir, &words, format!("{password}\n").as_bytes());
            assert_eq!(done.code, 0, "{done:?}");
        }
        let (registrar_ip, proxy_ip) = (loopback(), loopback());
        let edge = format!("{proxy_ip}/32");
        let listen =
            [format!("udp:{registrar_ip}:0"), format!("udp:{proxy_ip}:0"), format!("tcp:{proxy_ip}:0")];
        // One state directory, so one file of keys.
        let shared = ["--domain", "example.com", "--db", &db];
        let mut args = vec!["--listen", &listen[0], "--edge", &edge];
        args.extend(shared);
        args.extend(registrar_more);
        let registrar = Server::start_in(Arc::clone(&dir), "registrar", &args);
        let uri = format!("sip:{}", registrar.address("udp"));
        let mut args =
            vec!["--listen", &listen[1], "--listen", &listen[2], "--registrar", &uri, "--events", "-"];
        args.extend(shared);
        args.extend(more);
        let proxy = Server::start_in(Arc::clone(&dir), "proxy", &args);
        House { proxy, registrar, dir }
    }

    /// The records of this name.
    fn events(&self, name: &str) -> usize {
        self.proxy.records().iter().filter(|record| record["event"] == name).count()
    }

    /// One clear line, in the log and in the records.
    fn told(&self, name: &str) {
        let found = self.proxy.wait_record(WITHIN, |record| record["event"] == name);
        assert!(found.is_some(), "no {name} among {:?}\n{}", self.proxy.records(), self.proxy.stderr());
        assert_eq!(self.events(name), 1, "{name}");
        // Another stream, so perhaps a moment later.
        assert!(self.proxy.wait_log(WITHIN, name).is_some(), "{}", self.proxy.stderr());
    }

    /// One clear line of this name about this phone's request, in the log and in the records.
    fn told_of(&self, name: &str, phone: &Phone) {
        let call_id = phone.call_id();
        let about =
            |record: &serde_json::Value| record["event"] == name && record["call_id"] == call_id.as_str();
        let found = self.proxy.wait_record(WITHIN, about);
        assert!(found.is_some(), "no {name} of {call_id}: {:?}", self.proxy.records());
        let line = format!("call_id={call_id}");
        assert!(self.proxy.wait_log(WITHIN, &line).is_some(), "{}", self.proxy.stderr());
        assert_eq!(self.proxy.records().iter().filter(|record| about(record)).count(), 1, "{name}");
        let log = self.proxy.stderr();
        let lines: Vec<_> = log.lines().filter(|text| text.contains(&line)).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(&format!(" {name} ")), "{lines:?}");
    }

    /// Alive, and never panicked.
    fn well(mut self) {
        for server in [&mut self.proxy, &mut self.registrar] {
            assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
            assert_eq!(server.stop(), 0);
        }
    }
}

/// A phone: one UDP socket.
struct Phone {
    socket: UdpSocket,
    user: &'static str,
    password: &'static str,
    proxy: SocketAddr,
    number: Cell<u32>,
}

impl Phone {
    fn new(house: &House, user: &'static str, password: &'static str) -> Phone {
        let socket = UdpSocket::bind((loopback(), 0)).expect("a socket");
        Phone { socket, user, password, proxy: house.proxy.address("udp"), number: Cell::new(0) }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    /// The Call-ID of all its requests.
    fn call_id(&self) -> String {
        format!("{}@{}", self.address().port(), self.user)
    }

    fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.proxy).expect("sent");
    }

    /// The next message.
    fn receive(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).expect("a time-out");
        let mut buffer = vec![0; 65_536];
        let (length, _) = self.socket.recv_from(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).expect("text"))
    }

    /// The final response to the request of this number.
    fn final_response(&self, cseq: u32) -> String {
        let deadline = Instant::now() + WITHIN;
        let wanted = format!("CSeq: {cseq} ");
        while let Some(text) = self.receive(deadline.saturating_duration_since(Instant::now())) {
            if text.starts_with("SIP/2.0 ") && !text.starts_with("SIP/2.0 1") && text.contains(&wanted) {
                return text;
            }
        }
        panic!("{}: no final response to {wanted}within {WITHIN:?}", self.user);
    }

    /// The next request.
    fn request(&self) -> String {
        let deadline = Instant::now() + WITHIN;
        while let Some(text) = self.receive(deadline.saturating_duration_since(Instant::now())) {
            if !text.starts_with("SIP/2.0 ") {
                return text;
            }
        }
        panic!("{}: no request within {WITHIN:?}", self.user);
    }

    fn silent(&self, within: Duration) {
        let deadline = Instant::now() + within;
        while let Some(text) = self.receive(deadline.saturating_duration_since(Instant::now())) {
            assert!(text.starts_with("SIP/2.0 "), "{} got {text}", self.user);
        }
    }

    /// A request of this phone with the next number.
    fn compose(&self, method: &str, uri: &str, to: &str, extra: &str, body: &str) -> String {
        self.number.set(self.number.get() + 1);
        let (address, number) = (self.address(), self.number.get());
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{}x{number}\r\nMax-Forwards: 70\r\n\
             From: <sip:{user}@example.com>;tag=t{user}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {number} {method}\r\n\
             Contact: <sip:{user}@{address}>\r\n{extra}{kind}Content-Length: {}\r\n\r\n{body}",
            address.port(),
            self.call_id(),
            body.len(),
            user = self.user,
        )
    }

    /// Sends it, answers a challenge with `user` and `password`, and gives the last request and its final response.
    fn ask(&self, method: &str, uri: &str, to: &str, body: &str) -> (String, String) {
        let first = self.compose(method, uri, to, "", body);
        self.send(&first);
        let response = self.final_response(self.number.get());
        if !response.starts_with("SIP/2.0 401") && !response.starts_with("SIP/2.0 407") {
            return (first, response);
        }
        self.acknowledge(&first, &response);
        let message = Message::parse(response.as_bytes()).expect("a response");
        let (header, challenge) = Challenge::of(&message).expect("a challenge");
        let proof = challenge.answer(self.user, self.password, method, uri, 1, "cnonce");
        let again = self.compose(method, uri, to, &format!("{header}: {proof}\r\n"), body);
        self.send(&again);
        if method == "INVITE" && body == SDP {
            // A call that may be answered: whoever waits for its end reads on.
            return (again, String::new());
        }
        let response = self.final_response(self.number.get());
        self.acknowledge(&again, &response);
        (again, response)
    }

    /// The ACK to a final response that is no 2xx.
    fn acknowledge(&self, request: &str, response: &str) {
        if !request.starts_with("INVITE ") || response.starts_with("SIP/2.0 2") {
            return;
        }
        let message = Message::parse(request.as_bytes()).expect("a request");
        let header = |name| String::from_utf8_lossy(message.header(name).unwrap_or_default()).into_owned();
        let to = Message::parse(response.as_bytes()).expect("a response");
        let to = String::from_utf8_lossy(to.header(Name::To).unwrap_or_default()).into_owned();
        let cseq = header(Name::CSeq).replace("INVITE", "ACK");
        let uri = String::from_utf8_lossy(message.request_uri()).into_owned();
        let headers = [
            ("Via", header(Name::Via)),
            ("Max-Forwards", "70".into()),
            ("From", header(Name::From)),
            ("To", to),
            ("Call-ID", header(Name::CallId)),
            ("CSeq", cseq),
        ];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let ack = build::request("ACK", &uri, &headers, b"");
        self.socket.send_to(&ack, self.proxy).expect("sent");
    }

    fn register(&self) {
        let to = format!("<sip:{}@example.com>", self.user);
        let (_, response) = self.ask("REGISTER", "sip:example.com", &to, "");
        assert!(response.starts_with("SIP/2.0 200"), "{response}");
    }

    fn invite(&self, callee: &str) -> String {
        self.ask("INVITE", &format!("sip:{callee}@example.com"), &format!("<sip:{callee}@example.com>"), SDP)
            .0
    }

    /// Answers a request that came.
    fn answer(&self, request: &str, status: u16, body: &str) {
        let message = Message::parse(request.as_bytes()).expect("a request");
        let contact = format!("<sip:{}@{}>", self.user, self.address());
        let routes: Vec<String> =
            message.values(Name::RecordRoute).map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        let mut headers: Vec<(&str, &str)> = vec![("Contact", &contact)];
        headers.extend(routes.iter().map(|route| ("Record-Route", route.as_str())));
        if !body.is_empty() {
            headers.push(("Content-Type", "application/sdp"));
        }
        let response = build::response(&message, status, None, Some("tcallee"), &headers, body.as_bytes());
        self.socket.send_to(&response, self.proxy).expect("sent");
    }
}

fn header<'t>(text: &'t str, name: &str) -> &'t str {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// A call of Alice to Bob that he answered: both phones, and the Record-Route.
fn established(house: &House) -> (Phone, Phone, String) {
    let (alice, bob) = (Phone::new(house, "alice", "wonder"), Phone::new(house, "bob", "builder"));
    bob.register();
    alice.invite("bob");
    let invite = bob.request();
    bob.answer(&invite, 200, SDP);
    let ok = alice.final_response(alice.number.get());
    assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
    (alice, bob, header(&ok, "Record-Route").to_owned())
}

on_each_database! { sipp_calls_through_by_real_servers }

fn sipp_calls_through_by_real_servers(db: Db) {
    let house = House::start_on(db, &[]);
    let bob = Phone::new(&house, "bob", "builder");
    bob.register();
    let address = bob.address();
    drop(bob);
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sipp");
    let sipp = |scenario: &str, local: SocketAddr, more: &[&str]| {
        let mut command = Command::new("sipp");
        command.current_dir(house.dir.path());
        command.args(["-sf", &format!("{data}/{scenario}.xml"), "-m", "5", "-r", "10", "-nostdin"]);
        command.args(["-i", &local.ip().to_string(), "-p", &local.port().to_string(), "-timeout", "20"]);
        command.args(["-mi", &local.ip().to_string(), "-timeout_error"]).args(more);
        Process::start(command)
    };
    let mut callee = sipp("uas", address, &[]);
    std::thread::sleep(Duration::from_millis(500));
    let caller = SocketAddr::new(loopback().into(), 5060);
    let proxy = house.proxy.address("udp").to_string();
    let mut calls = sipp("uac", caller, &["-s", "bob", "-auth_uri", "bob@example.com", &proxy]);
    let end = calls.exit_code(Duration::from_secs(30));
    assert_eq!(end, 0, "{}\n{}\n{}", calls.stdout.all().join("\n"), calls.log(), house.proxy.stderr());
    assert_eq!(callee.exit_code(Duration::from_secs(10)), 0, "{}", callee.log());
    for name in ["call-start", "call-answered", "call-end"] {
        assert_eq!(house.events(name), 5, "{name}");
    }
    house.well();
}

#[test]
fn a_caller_hangs_up_while_it_rings() {
    let house = House::start(&[]);
    let (alice, bob) = (Phone::new(&house, "alice", "wonder"), Phone::new(&house, "bob", "builder"));
    bob.register();
    let invite = alice.invite("bob");
    let ringing = bob.request();
    bob.answer(&ringing, 180, "");
    let cancel = invite.replacen("INVITE ", "CANCEL ", 1).replace(" INVITE\r\n", " CANCEL\r\n");
    let (head, _) = cancel.split_once("Content-Type").expect("a body");
    alice.send(&format!("{head}Content-Length: 0\r\n\r\n"));
    let cancelled = bob.request();
    assert!(cancelled.starts_with("CANCEL "), "{cancelled}");
    bob.answer(&cancelled, 200, "");
    bob.answer(&ringing, 487, "");
    let codes = [alice.final_response(alice.number.get()), alice.final_response(alice.number.get())];
    assert!(codes[0].starts_with("SIP/2.0 200") && codes[1].starts_with("SIP/2.0 487"), "{codes:?}");
    alice.acknowledge(&invite, &codes[1]);
    house.told("call-cancelled");
    house.well();
}

#[test]
fn who_cannot_prove_himself_is_challenged_again_or_refused() {
    let house = House::start(&[]);
    for (user, password) in [("alice", "wrong"), ("ghost", "wonder")] {
        let phone = Phone::new(&house, user, password);
        let (_, response) = phone.ask("MESSAGE", "sip:bob@example.com", "<sip:bob@example.com>", "");
        assert!(response.starts_with("SIP/2.0 407"), "{response}");
        house.told_of("auth-failed", &phone);
    }
    // Alice, with her own password, calls as Bob.
    let alice = Phone::new(&house, "alice", "wonder");
    let (uri, to) = ("sip:bob@example.com", "<sip:bob@example.com>");
    let as_bob = |text: String| text.replace("From: <sip:alice@", "From: <sip:bob@");
    let first = as_bob(alice.compose("INVITE", uri, to, "", SDP));
    alice.send(&first);
    let response = alice.final_response(1);
    alice.acknowledge(&first, &response);
    let message = Message::parse(response.as_bytes()).expect("a response");
    let (name, challenge) = Challenge::of(&message).expect("a challenge");
    let proof = challenge.answer("alice", "wonder", "INVITE", uri, 1, "c");
    let again = as_bob(alice.compose("INVITE", uri, to, &format!("{name}: {proof}\r\n"), SDP));
    alice.send(&again);
    let response = alice.final_response(2);
    assert!(response.starts_with("SIP/2.0 403"), "{response}");
    alice.acknowledge(&again, &response);
    house.told_of("refused", &alice);
    let refused = house.proxy.wait_record(WITHIN, |record| record["event"] == "refused").expect("told");
    assert_eq!(refused["user"], "alice", "whose credentials: {refused}");
    house.well();
}

/// By way of the proxy, so with its token: the same answers as face to face.
#[test]
fn who_registers_as_another_is_refused() {
    let house = House::start(&[]);
    for (user, password, to, wanted) in [
        ("alice", "wrong", "alice", "SIP/2.0 401"),
        ("ghost", "wonder", "ghost", "SIP/2.0 401"),
        ("alice", "wonder", "bob", "SIP/2.0 403"),
    ] {
        let phone = Phone::new(&house, user, password);
        let aor = format!("<sip:{to}@example.com>");
        let (_, response) = phone.ask("REGISTER", "sip:example.com", &aor, "");
        assert!(response.starts_with(wanted), "{user} as {to}: {response}");
        let line = format!("call_id={}", phone.call_id());
        assert!(house.registrar.wait_log(WITHIN, &line).is_some(), "{}", house.registrar.stderr());
        let log = house.registrar.stderr();
        assert_eq!(log.lines().filter(|text| text.contains(&line)).count(), 1, "{log}");
    }
    house.well();
}

#[test]
fn a_forged_dialog_reaches_nobody() {
    let house = House::start(&[]);
    let (alice, bob, route) = established(&house);
    let third = Phone::new(&house, "carol", "");
    let uri = format!("sip:carol@{}", third.address());
    let to = "<sip:bob@example.com>;tag=tcallee";
    // Our Route, without a token that we signed, and a third host behind it.
    let ours = house.proxy.address("udp");
    let forged = format!("Route: <sip:{ours};lr>\r\nRoute: <sip:{};lr>\r\n", third.address());
    alice.send(&alice.compose("INFO", &uri, to, &forged, ""));
    let response = alice.final_response(alice.number.get());
    assert!(response.starts_with("SIP/2.0 403"), "{response}");
    house.told("refused");
    // The genuine one of somebody else's call is no better.
    let eve = Phone::new(&house, "eve", "");
    let genuine = format!("Route: {route}\r\n");
    eve.send(&eve.compose("INFO", &uri, to, &genuine, ""));
    let response = eve.final_response(eve.number.get());
    assert!(response.starts_with("SIP/2.0 403"), "{response}");
    house.told_of("refused", &eve);
    // With a foreign Request-URI.
    alice.send(&alice.compose("INFO", &uri, to, &genuine, ""));
    let info = bob.request();
    assert!(info.starts_with(&format!("INFO {uri} SIP/2.0")), "{info}");
    assert!(info.contains(&format!("CSeq: {} INFO\r\n", alice.number.get())), "the forged one came: {info}");
    bob.answer(&info, 200, "");
    assert!(alice.final_response(alice.number.get()).starts_with("SIP/2.0 200"));
    third.silent(Duration::from_millis(500));
    house.well();
}

#[test]
fn calls_that_cannot_be_have_their_answers() {
    let house = House::start(&[]);
    let alice = Phone::new(&house, "alice", "wonder");
    let invite = alice.invite("nobody");
    let response = alice.final_response(alice.number.get());
    assert!(response.starts_with("SIP/2.0 404"), "{response}");
    alice.acknowledge(&invite, &response);
    house.told_of("call-failed", &alice);

    let uri = "sip:bob@example.com";
    let mend: [(&str, &str, &str); 4] = [
        ("Max-Forwards: 70", "Max-Forwards: seventy", "400 Malformed Max-Forwards"),
        ("From: <sip:alice@", "From: <sip:alice@\u{1}<", "400 "),
        (" INVITE\r\n", " MESSAGE\r\n", "400 "),
        ("Content-Length: ", "Content-Length: 9", "400 "),
    ];
    for (good, bad, wanted) in mend {
        let phone = Phone::new(&house, "alice", "wonder");
        let text = phone.compose("INVITE", uri, "<sip:bob@example.com>", "", SDP);
        assert!(text.contains(good), "{text}");
        phone.send(&text.replacen(good, bad, 1));
        let response = phone.final_response(1);
        assert!(response.starts_with(&format!("SIP/2.0 {wanted}")), "{bad}: {response}");
        house.told_of("malformed", &phone);
    }

    let alice = Phone::new(&house, "alice", "wonder");
    let text = alice.compose("INVITE", uri, "<sip:bob@example.com>", "", "this is no SDP");
    alice.send(&text);
    let response = alice.final_response(alice.number.get());
    assert!(response.starts_with("SIP/2.0 488"), "{response}");
    alice.acknowledge(&text, &response);
    house.told_of("call-failed", &alice);
    house.well();
}

#[test]
fn a_relay_that_does_not_answer_is_503_within_five_seconds() {
    // A socket that reads nothing.
    let deaf = UdpSocket::bind((loopback(), 0)).expect("a socket");
    let relay = format!("udp:{}", deaf.local_addr().expect("bound"));
    let house = House::start(&["--relay", &relay, "--relay-policy", "always"]);
    let (alice, bob) = (Phone::new(&house, "alice", "wonder"), Phone::new(&house, "bob", "builder"));
    bob.register();
    let began = Instant::now();
    let invite = alice.invite("bob");
    let response = alice.final_response(alice.number.get());
    assert!(response.starts_with("SIP/2.0 503"), "{response}");
    assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
    alice.acknowledge(&invite, &response);
    house.told("unavailable");
    house.well();
}

#[test]
fn an_address_that_is_taken_is_71() {
    let stranger = UdpSocket::bind((loopback(), 0)).expect("a socket");
    let listener = TcpListener::bind((loopback(), 0)).expect("a socket");
    let ip = loopback();
    let listen = [format!("udp:{ip}:0"), format!("tcp:{ip}:0")];
    let other =
        Server::start("proxy", &["--listen", &listen[0], "--listen", &listen[1], "--domain", "example.com"]);
    for (transport, taken) in [
        ("udp", stranger.local_addr().expect("bound")),
        ("tcp", listener.local_addr().expect("bound")),
        ("udp", other.address("udp")),
        ("tcp", other.address("tcp")),
    ] {
        let dir = TempDir::new();
        let uri = format!("{transport}:{taken}");
        let mut second = Process::start(server_command(&dir, "proxy", &["--listen", &uri]));
        assert_eq!(second.exit_code(WITHIN), 71);
        let log = second.log();
        assert!(log.contains("--listen") && log.contains(&taken.to_string()), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}

/// RFC 3263 over real sockets: a zone of our own in Debian's dnsmasq says by which transports, in which order, and where.
#[test]
fn dns_says_where_a_domain_is_and_the_next_server_takes_over() {
    let (dns, ip) = (loopback(), loopback());
    let refused = TcpListener::bind((ip, 0)).expect("a port").local_addr().expect("bound");
    let busy = TcpListener::bind((loopback(), 0)).expect("a port");
    let carol = UdpSocket::bind((loopback(), 0)).expect("a socket");
    carol.set_read_timeout(Some(WITHIN)).expect("a time-out");
    let busy_at = busy.local_addr().expect("bound");
    let carol_at = carol.local_addr().expect("bound");
    let mut command = Command::new("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--port=5300",
    ]);
    command.args([
        "--bind-interfaces",
        "--user=root",
        "--pid-file=",
        "--local=/example.org/",
        "--local-ttl=60",
    ]);
    command.args([format!("--listen-address={dns}")]);
    command.args(["--log-queries", "--log-facility=-"]);
    command.args([
        "--naptr-record=example.org,10,10,S,SIP+D2T,,_sip._tcp.example.org".to_owned(),
        "--naptr-record=example.org,20,10,S,SIP+D2U,,_sip._udp.example.org".to_owned(),
        format!("--srv-host=_sip._tcp.example.org,a.example.org,{},10,50", refused.port()),
        format!("--srv-host=_sip._tcp.example.org,b.example.org,{},20,50", busy_at.port()),
        format!("--srv-host=_sip._udp.example.org,c.example.org,{},10,50", carol_at.port()),
        format!("--host-record=a.example.org,{}", refused.ip()),
        format!("--host-record=b.example.org,{}", busy_at.ip()),
        format!("--host-record=c.example.org,{}", carol_at.ip()),
    ]);
    let dnsmasq = Process::start(command);
    assert!(
        dnsmasq.stderr.wait(0, WITHIN, |line| line.contains("started").then_some(())).is_some(),
        "{}",
        dnsmasq.log()
    );
    let house = House::start(&["--dns", &format!("{dns}:5300")]);
    let alice = Phone::new(&house, "alice", "wonder");
    // B answers 503 to whatever comes.
    std::thread::spawn(move || {
        for stream in busy.incoming() {
            let mut stream = stream.expect("a connection");
            stream.set_read_timeout(Some(WITHIN)).expect("a time-out");
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // ACKs come here too, and are read with what is left.
            while let Ok(length @ 1..) = std::io::Read::read(&mut stream, &mut buffer) {
                request.extend_from_slice(&buffer[..length]);
                if request.starts_with(b"OPTIONS ") && request.ends_with(b"\r\n\r\n") {
                    let message = Message::parse(&request).expect("a request");
                    let answer = build::response(&message, 503, None, Some("b"), &[], b"");
                    std::io::Write::write_all(&mut stream, &answer).expect("sent");
                    request.clear();
                }
            }
        }
    });
    // dnsmasq has no SOA to say for how long there is no IPv6 address: that is asked for each time.
    let asked = || {
        dnsmasq
            .stderr
            .all()
            .iter()
            .filter(|line| line.contains("query[") && !line.contains("query[AAAA]"))
            .count()
    };
    let call = || {
        let (uri, to) = ("sip:carol@example.org", "<sip:carol@example.org>");
        alice.send(&alice.compose("OPTIONS", uri, to, "", ""));
        let challenge = alice.final_response(alice.number.get());
        let message = Message::parse(challenge.as_bytes()).expect("a response");
        let (header, challenge) = Challenge::of(&message).expect("a challenge");
        let proof = challenge.answer(alice.user, alice.password, "OPTIONS", uri, 1, "cnonce");
        alice.send(&alice.compose("OPTIONS", uri, to, &format!("{header}: {proof}\r\n"), ""));
        let mut buffer = [0; 4096];
        let (length, from) = carol.recv_from(&mut buffer).expect("a request at the third server");
        let request = Message::parse(&buffer[..length]).expect("a request");
        let answer = build::response(&request, 200, None, Some("c"), &[], b"");
        carol.send_to(&answer, from).expect("sent");
        let response = alice.final_response(alice.number.get());
        assert!(response.starts_with("SIP/2.0 200"), "{response}");
    };
    call();
    assert!(house.proxy.wait_log(WITHIN, "unreachable").is_some(), "{}", house.proxy.stderr());
    let first = asked();
    assert!(first >= 5, "{}", dnsmasq.log());
    // A comes up; but it did not answer a moment ago, and its answers have a TTL.
    let again = TcpListener::bind(refused).expect("the port");
    again.set_nonblocking(true).expect("set");
    call();
    assert!(again.accept().is_err(), "left out");
    assert_eq!(asked(), first, "from the cache: {}", dnsmasq.log());
    house.well();
}

/// What an idle TLS connection costs, and that a new certificate takes none away.
#[test]
fn ten_thousand_idle_tls_connections_are_small_and_outlive_a_new_certificate() {
    const CONNECTIONS: usize = 10_000;
    const KIB_EACH: usize = 30;
    sipbox_io::start::raise_open_files();
    let files = std::fs::read_to_string("/proc/self/limits").expect("our limits");
    let files = files.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let files: Option<usize> = files.split_whitespace().nth(3).and_then(|soft| soft.parse().ok());
    if files.is_some_and(|files| files < CONNECTIONS + 200) {
        return eprintln!("skipped: {files:?} open files are too few");
    }
    let dir = TempDir::new();
    let (cert, key) = (dir.join("a.crt"), dir.join("a.key"));
    let write = || {
        let pair = rcgen::generate_simple_self_signed(vec!["proxy.example.com".to_owned()]).expect("a pair");
        std::fs::write(&cert, pair.cert.pem()).expect("written");
        std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
        pair.cert.der().clone()
    };
    let config = |root| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(builder.expect("versions").with_root_certificates(roots).with_no_client_auth())
    };
    let first = config(write());
    let listen = format!("tls:{}:0", loopback());
    let files = [cert.display().to_string(), key.display().to_string()];
    let mut server = Server::start(
        "proxy",
        &["--listen", &listen, "--tls-cert", &files[0], "--tls-key", &files[1], "--rate-limit", "off"],
    );
    let address = server.address("tls");
    let connect = |config: &Arc<rustls::ClientConfig>, from: std::net::Ipv4Addr| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from.into(), 0).into()).expect("bound");
        socket.connect(&address.into()).expect("connected");
        let socket = std::net::TcpStream::from(socket);
        socket.set_read_timeout(Some(WITHIN)).expect("a time-out");
        let name = "proxy.example.com".try_into().expect("a name");
        let session = rustls::ClientConnection::new(Arc::clone(config), name).expect("a session");
        rustls::StreamOwned::new(session, socket)
    };
    // A keep-alive there and back (RFC 5626 section 4.4.1).
    let ping = |stream: &mut rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>| {
        let mut pong = [0; 2];
        std::io::Write::write_all(stream, b"\r\n\r\n").expect("sent");
        std::io::Read::read_exact(stream, &mut pong).expect("an answer");
        assert_eq!(&pong, b"\r\n");
    };
    let resident = || -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", server.process.pid())).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    ping(&mut connect(&first, loopback()));
    let empty = resident();
    let sources: Vec<_> = (0..5).map(|_| loopback()).collect();
    let mut open: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let mut stream = connect(&first, sources[number % sources.len()]);
            ping(&mut stream);
            stream
        })
        .collect();
    let each = (resident() - empty) as f64 / CONNECTIONS as f64;
    println!("{each:.1} KiB each ({CONNECTIONS} idle TLS connections, {empty} KiB empty)");
    assert!(each <= KIB_EACH as f64, "{each} KiB each");
    // A new certificate, while some talk.
    let second = config(write());
    let (talking, idle) = open.split_at_mut(200);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|_| talking.iter_mut().for_each(ping)));
        for _ in 0..5 {
            server.process.signal(libc::SIGHUP);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    idle.iter_mut().for_each(ping);
    ping(&mut connect(&second, loopback()));
    let mut refused = connect(&first, loopback());
    assert!(refused.conn.complete_io(&mut refused.sock).is_err(), "the old certificate is still shown");
    drop(open);
    assert_eq!(server.stop(), 0);
}

/// sd_listen_fds(3): a socket that is bound already is no fault, but ours.
#[test]
fn sockets_of_systemd_are_used() {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    let ip = loopback();
    let udp = UdpSocket::bind((ip, 0)).expect("a socket");
    let tcp = TcpListener::bind(udp.local_addr().expect("bound")).expect("the same port");
    let dir = TempDir::new();
    let address = udp.local_addr().expect("bound");
    let (listen_udp, listen_tcp) = (format!("udp:{address}"), format!("tcp:{address}"));
    let flags = ["--listen", &listen_udp, "--listen", &listen_tcp, "--domain", "example.com"];
    let taken = run_in(&dir, &["proxy", "--listen", &listen_udp], b"");
    assert_eq!(taken.code, 71, "{taken:?}");
    let plain = server_command(&dir, "proxy", &flags);
    let mut command = Command::new("sh");
    command
        .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args());
    command.current_dir(dir.path()).env("STATE_DIRECTORY", dir.path()).env_remove("NOTIFY_SOCKET");
    let passed = [tcp.as_raw_fd(), udp.as_raw_fd()];
    // SAFETY: dup2 and fcntl are async-signal-safe; first out of the way of 3 and 4, then there.
    unsafe {
        command.pre_exec(move || {
            let high = passed.map(|fd| libc::fcntl(fd, libc::F_DUPFD, 100));
            libc::dup2(high[0], 3);
            libc::dup2(high[1], 4);
            let _ = high.map(|fd| libc::close(fd));
            Ok(())
        });
    }
    let mut process = Process::start(command);
    let ready = process.stdout.wait(0, WITHIN, |line| Some(line.to_owned()));
    assert!(ready.as_ref().is_some_and(|line| line.contains(&listen_tcp)), "{ready:?} {}", process.log());
    drop((udp, tcp));
    let options = format!(
        "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKs;rport\r\nMax-Forwards: 70\r\n\
         From: <sip:x@example.org>;tag=1\r\nTo: <sip:{address}>\r\nCall-ID: s\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    let phone = UdpSocket::bind((loopback(), 0)).expect("a socket");
    phone.set_read_timeout(Some(WITHIN)).expect("a time-out");
    phone.send_to(options.as_bytes(), address).expect("sent");
    let mut buffer = [0; 2048];
    let (length, _) = phone.recv_from(&mut buffer).expect("an answer by UDP");
    assert!(buffer[..length].starts_with(b"SIP/2.0 200"));
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(WITHIN)).expect("a time-out");
    std::io::Write::write_all(
        &mut stream,
        options.replace("UDP 192.0.2.1;branch=z9hG4bKs", "TCP 192.0.2.1;branch=z9hG4bKt").as_bytes(),
    )
    .expect("sent");
    let length = std::io::Read::read(&mut stream, &mut buffer).expect("an answer by TCP");
    assert!(buffer[..length].starts_with(b"SIP/2.0 200"));
    process.signal(libc::SIGTERM);
    assert_eq!(process.exit_code(WITHIN * 3), 0);
}

/// One request to the port of `--metrics`.
fn http(address: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(WITHIN)).expect("a time-out");
    std::io::Write::write_all(&mut stream, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .expect("sent");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    answer
}

#[test]
fn what_happens_is_counted_and_readiness_ends_with_the_drain() {
    let at = format!("{}:9464", loopback());
    let mut house = House::start(&["--metrics", &at, "--workers", "2"]);
    // Those who hold a connection and say nothing.
    let silent: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(&at).expect("a connection")).collect();
    let alice = Phone::new(&house, "alice", "wonder");
    alice.register();
    let (uri, to) = ("sip:ghost@example.com", "<sip:ghost@example.com>");
    assert!(alice.ask("MESSAGE", uri, to, "").1.starts_with("SIP/2.0 404"));
    let page = http(&at, "/metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("# EOF\n"), "{page}");
    let value = |name: &str| -> u64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().expect("a number")
    };
    // Two REGISTERs with their answers from the registrar, and two MESSAGEs.
    assert_eq!(value("sipbox_messages_total{direction=\"in\",transport=\"udp\"}"), 6);
    assert_eq!(value("sipbox_messages_total{direction=\"out\",transport=\"udp\"}"), 6);
    assert_eq!(value("sipbox_dropped_total{reason=\"banned\"}"), 0);
    assert!(http(&at, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(http(&at, "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(http(&at, "/etc/passwd").starts_with("HTTP/1.1 404 "));
    // A call that rings keeps the process from its end; new work goes elsewhere meanwhile.
    let bob = Phone::new(&house, "bob", "builder");
    bob.register();
    alice.invite("bob");
    let invite = bob.request();
    bob.answer(&invite, 180, "");
    house.proxy.process.signal(libc::SIGTERM);
    let deadline = Instant::now() + WITHIN;
    while !http(&at, "/readyz").starts_with("HTTP/1.1 503 ") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(http(&at, "/healthz").starts_with("HTTP/1.1 200 "));
    bob.answer(&invite, 486, "");
    assert_eq!(house.proxy.process.exit_code(WITHIN * 3), 0);
    drop(silent);
    assert_eq!(house.registrar.stop(), 0);
}

/// Several workers behave as one: the phones' packets land where the kernel puts them, the calls have one worker each.
#[test]
fn calls_and_registrations_go_through_several_workers() {
    let several = ["--workers", "3"];
    let house = House::start_with(Db::Sqlite, &several, &several);
    let bob = Phone::new(&house, "bob", "builder");
    bob.register();
    for number in 1..=8 {
        let alice = Phone::new(&house, "alice", "wonder");
        alice.register();
        alice.invite("bob");
        let invite = bob.request();
        bob.answer(&invite, 180, "");
        bob.answer(&invite, 200, SDP);
        let ok = alice.final_response(alice.number.get());
        assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
        let route = format!("Route: {}\r\n", header(&ok, "Record-Route"));
        let (uri, to) = (format!("sip:bob@{}", bob.address()), "<sip:bob@example.com>;tag=tcallee");
        let cseq = alice.number.get();
        let ack = alice.compose("ACK", &uri, to, &route, "");
        alice.send(&ack.replace(&format!("CSeq: {} ACK", cseq + 1), &format!("CSeq: {cseq} ACK")));
        assert!(bob.request().starts_with("ACK "));
        alice.send(&alice.compose("BYE", &uri, to, &route, ""));
        let bye = bob.request();
        assert!(bye.starts_with("BYE "), "{bye}");
        bob.answer(&bye, 200, "");
        let ok = alice.final_response(alice.number.get());
        assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
        let ended = house.proxy.wait_record(WITHIN, |record| {
            record["event"] == "call-end" && record["call_id"] == alice.call_id().as_str()
        });
        // The worker that ends a call is the one that knows since when it stood.
        assert!(ended.is_some_and(|record| record["seconds"].is_string()), "call {number}");
    }
    house.well();
}

#[test]
fn a_flood_is_dropped_with_one_line_and_phones_are_served_on() {
    let house = House::start(&[]);
    // More requests in a second than a stranger may send: this one was let in with the second.
    let phone = Phone::new(&house, "bob", "builder");
    (0..20).for_each(|_| phone.register());
    let stranger = UdpSocket::bind((loopback(), 0)).expect("a socket");
    for number in 0..200 {
        let address = stranger.local_addr().expect("bound");
        let text = format!(
            "OPTIONS sip:{proxy} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bKs{number}\r\nMax-Forwards: 70\r\n\
             From: <sip:scanner@example.org>;tag=s\r\nTo: <sip:{proxy}>\r\nCall-ID: s{number}\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n",
            proxy = house.proxy.address("udp")
        );
        stranger.send_to(text.as_bytes(), house.proxy.address("udp")).expect("sent");
    }
    let mut buffer = [0; 2048];
    stranger.set_read_timeout(Some(WITHIN)).expect("a time-out");
    for number in 0..16 {
        assert!(stranger.recv(&mut buffer).is_ok(), "{number} answers; {}", house.proxy.stderr());
    }
    stranger.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    assert!(stranger.recv(&mut buffer).is_err(), "more than 16");
    house.told("banned");
    house.proxy.process.signal(libc::SIGUSR1);
    let dropped = house.proxy.wait_log(WITHIN, "\"banned\":").expect("a line of the state");
    let dropped: serde_json::Value = serde_json::from_str(&dropped).expect("JSON");
    assert_eq!(dropped["dropped"], 184, "{dropped}");
    phone.register();
    house.well();
}
