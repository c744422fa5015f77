//! The real registrar over UDP: who is let in, what is kept, and that what was confirmed survives `kill -9`.

#[macro_use]
#[path = "../harness/mod.rs"]
mod harness;

use harness::mariadb::{MariaDb, PASSWORD};
use harness::{Db, Process, Server, TempDir, loopback, run_in, server_command};
use sipbox_core::auth::digest::Challenge;
use sipbox_core::sip::{Message, Name, ParseError};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Every case of the issue has to be over by then.
const SOON: Duration = Duration::from_secs(5);

struct Phone {
    socket: UdpSocket,
    registrar: SocketAddr,
    cseq: u32,
    call_id: String,
}

impl Phone {
    fn new(registrar: SocketAddr, call_id: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Phone { socket, registrar, cseq: 0, call_id: call_id.to_owned() }
    }

    fn text(&mut self, from: &str, to: &str, headers: &[&str]) -> String {
        self.cseq += 1;
        let local = self.socket.local_addr().unwrap();
        let mut text = format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{}{};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{from}@example.com>;tag=f\r\nTo: <sip:{to}@example.com>\r\n\
             Call-ID: {}\r\nCSeq: {} REGISTER\r\n",
            self.call_id, self.cseq, self.call_id, self.cseq
        );
        for header in headers {
            text += &format!("{header}\r\n");
        }
        text + "\r\n"
    }

    fn exchange(&self, text: &str) -> Vec<u8> {
        self.socket.send_to(text.as_bytes(), self.registrar).unwrap();
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).expect("an answer");
        buffer.truncate(length);
        buffer
    }

    /// Registers, answering a challenge as `user`; the last answer.
    fn register(&mut self, user: &str, password: &str, to: &str, headers: &[&str]) -> Vec<u8> {
        let text = self.text(to, to, headers);
        let first = self.exchange(&text);
        let message = Message::parse(&first).unwrap();
        let Some((name, challenge)) = Challenge::of(&message) else { return first };
        let answer = challenge.answer(user, password, "REGISTER", "sip:example.com", 1, "cnonce");
        let credentials = format!("{name}: {answer}");
        let text = self.text(to, to, &[headers, &[&credentials]].concat());
        self.exchange(&text)
    }
}

fn status(answer: &[u8]) -> u16 {
    Message::parse(answer).map_or(0, |message| message.status())
}

fn contacts(answer: &[u8]) -> Vec<String> {
    let message = Message::parse(answer).unwrap();
    assert_eq!(message.status(), 200);
    let uris: Result<Vec<String>, ParseError> = message
        .contacts()
        .map(|c| c.map(|c| String::from_utf8_lossy(c.uri.as_bytes()).into_owned()))
        .collect();
    uris.unwrap()
}

fn listen() -> String {
    format!("udp:{}:0", loopback())
}

fn server(dir: &Arc<TempDir>, more: &[&str]) -> Server {
    let listen = listen();
    let args = [&["--listen", &listen, "--domain", "example.com", "--events", "-"], more].concat();
    Server::start_in(dir.clone(), "registrar", &args)
}

on_each_database! {
    lets_in_who_knows_the_password_and_nobody_else
    users_that_a_kamailio_left_are_let_in
    what_was_confirmed_survives_kill_9
}

fn lets_in_who_knows_the_password_and_nobody_else(db: Db) {
    let dir = Arc::new(TempDir::on(db));
    for (user, password) in [("alice", "wonder\n"), ("bob", "builder\n")] {
        let added = run_in(
            &dir,
            &["registrar", "user", "add", &format!("{user}@example.com"), "--password-stdin"],
            password.as_bytes(),
        );
        assert_eq!(added.code, 0, "{added:?}");
    }
    let registrar = server(&dir, &[]);
    let address = registrar.address("udp");
    let contact = "Contact: <sip:alice@192.0.2.7:5070>;expires=120";
    let cases = [
        ("alice", "wonder", "alice", 200),
        ("alice", "wrong", "alice", 401),
        ("carol", "any", "carol", 401),
        ("alice", "wonder", "bob", 403),
    ];
    for (number, (user, password, to, wanted)) in cases.into_iter().enumerate() {
        let mut phone = Phone::new(address, &format!("case{number}"));
        let began = Instant::now();
        let answer = phone.register(user, password, to, &[contact]);
        assert_eq!(status(&answer), wanted, "{user} as {to}: {}", String::from_utf8_lossy(&answer));
        assert!(began.elapsed() < SOON);
        if wanted != 200 {
            let call_id = format!("case{number}");
            let told = registrar
                .wait_record(SOON, |r| r["event"] == "auth-failed" && r["call_id"] == call_id.as_str())
                .expect("an event");
            assert_eq!(told["aor"], format!("{to}@example.com"));
            assert_eq!(told["contact"], "sip:alice@192.0.2.7:5070");
            assert_eq!(told["peer"], phone.socket.local_addr().unwrap().to_string());
            // Log and records are two streams.
            registrar.wait_log(SOON, &call_id).expect("a line in the log");
            let lines = registrar.stderr().lines().filter(|line| line.contains(&call_id)).count();
            assert_eq!(lines, 1, "{}", registrar.stderr());
        }
    }
    let told = registrar.wait_record(SOON, |r| r["event"] == "registered").expect("an event");
    assert_eq!(
        (&told["aor"], &told["contact"]),
        (&"alice@example.com".into(), &"sip:alice@192.0.2.7:5070".into())
    );

    // By hand, while it serves.
    let listed = run_in(&dir, &["registrar", "contacts", "alice@example.com"], b"");
    assert!(listed.stdout.contains("\"contact\":\"sip:alice@192.0.2.7:5070\""), "{listed:?}");
    assert_eq!(run_in(&dir, &["registrar", "expire", "sip:alice@192.0.2.7:5070"], b"").code, 0);
    assert_eq!(run_in(&dir, &["registrar", "expire", "sip:alice@192.0.2.7:5070"], b"").code, 1);
    assert_eq!(run_in(&dir, &["registrar", "contacts"], b"").stdout, "");
    let users = run_in(&dir, &["registrar", "user", "list"], b"").stdout;
    assert_eq!(users.lines().count(), 2);
    assert!(!users.contains("wonder"));
    assert_eq!(run_in(&dir, &["registrar", "user", "passwd", "alice@example.com"], b"new\n").code, 0);
    let mut phone = Phone::new(address, "after");
    assert_eq!(status(&phone.register("alice", "new", "alice", &[])), 200);
    assert_eq!(run_in(&dir, &["registrar", "user", "del", "alice@example.com"], b"").code, 0);
    assert_eq!(status(&phone.register("alice", "new", "alice", &[])), 401);
}

/// Rows of `subscriber` as Kamailio's tools write them: with the password alone (`calculate_ha1` 1), with hashes alone, and
/// with both, where the hash counts.
fn users_that_a_kamailio_left_are_let_in(db: Db) {
    let dir = Arc::new(TempDir::on(db));
    // Makes the tables.
    assert_eq!(run_in(&dir, &["registrar", "user", "list"], b"").code, 0);
    let ha1 = |user: &str| sipbox_core::auth::digest::ha1(user, "example.com", "hashed");
    dir.sql("INSERT INTO subscriber (username, domain, password) VALUES ('plain', 'example.com', 'wonder')");
    for (user, password) in [("hashed", ""), ("both", "wonder")] {
        dir.sql(&format!(
            "INSERT INTO subscriber (username, domain, password, ha1, ha1b) VALUES \
             ('{user}', 'example.com', '{password}', '{}', '{}')",
            ha1(user),
            ha1(&format!("{user}@example.com"))
        ));
    }
    dir.sql("INSERT INTO subscriber (username, domain) VALUES ('empty', 'example.com')");
    let registrar = server(&dir, &[]);
    for (number, (user, password, wanted)) in [
        ("plain", "wonder", 200),
        ("plain", "hashed", 401),
        ("plain", "", 401),
        ("hashed", "hashed", 200),
        ("hashed", "", 401),
        ("both", "hashed", 200),
        ("both", "wonder", 401),
        ("empty", "", 401),
    ]
    .into_iter()
    .enumerate()
    {
        // Also where the client gives his name with its domain.
        for name in [user.to_owned(), format!("{user}@example.com")] {
            let mut phone = Phone::new(registrar.address("udp"), &format!("k{number}{name}"));
            let answer = phone.register(&name, password, user, &["Contact: <sip:a@192.0.2.7>"]);
            assert_eq!(status(&answer), wanted, "{name} with {password}");
        }
    }
}

/// The database goes and comes while it serves: 503 meanwhile, one line in the log when it goes and one when it is back, and
/// what was confirmed before is still there.
#[test]
fn a_mysql_that_goes_and_comes() {
    let mariadb: &'static MariaDb = Box::leak(Box::new(MariaDb::start()));
    let dir = Arc::new(TempDir::with(mariadb.schema()));
    let mut registrar = server(&dir, &["--auth", "none", "--rate-limit", "off"]);
    let mut phone = Phone::new(registrar.address("udp"), "goes");
    let contact = "sip:alice@192.0.2.7";
    let header = format!("Contact: <{contact}>");
    assert_eq!(contacts(&phone.register("", "", "alice", &[&header])), [contact]);

    mariadb.kill();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(status(&phone.register("", "", "alice", &[&header])), 503);
        assert!(began.elapsed() < SOON);
    }
    let listen = listen();
    let mut second = Process::start(server_command(&dir, "registrar", &["--listen", &listen]));
    assert_eq!(second.exit_code(SOON), 69);
    assert_eq!(second.log().lines().count(), 1, "{}", second.log());
    assert!(second.log().contains("--db mysql://sipbox@"), "{}", second.log());
    assert!(!second.log().contains(PASSWORD), "{}", second.log());

    mariadb.start_again();
    let began = Instant::now();
    while status(&phone.register("", "", "bob", &["Contact: <sip:bob@192.0.2.7>"])) != 200 {
        assert!(began.elapsed() < 2 * SOON, "{}", registrar.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(registrar.wait_log(2 * SOON, "store-back").is_some(), "{}", registrar.stderr());
    assert_eq!(contacts(&phone.register("", "", "alice", &[])), [contact]);
    assert_eq!(registrar.stop(), 0);
    let log = registrar.stderr();
    for event in ["store-unavailable", "store-back"] {
        assert_eq!(log.lines().filter(|line| line.contains(event)).count(), 1, "{event}: {log}");
    }
    assert!(!log.contains(PASSWORD) && !log.contains("panicked"), "{log}");
}

#[test]
fn a_database_url_that_cannot_be_is_told() {
    let dir = TempDir::new();
    for (url, code) in [
        ("mysql://sipbox:hidden@192.0.2.1", 64),
        ("mysql://sipbox:hid/den@192.0.2.1/db", 64),
        ("postgres://sipbox:hidden@192.0.2.1/db", 64),
        ("mysql://sipbox:hidden@192.0.2.1/db?ssl-ca=/no/such/file", 66),
        ("mysql://sipbox:hidden@/db?socket=/no/such/socket", 69),
    ] {
        let done = run_in(&dir, &["registrar", "user", "list", "--db", url], b"");
        assert_eq!(done.code, code, "{url}: {done:?}");
        assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
        assert!(done.stderr.contains("--db") && !done.stderr.contains("hid"), "{done:?}");
    }
}

#[test]
fn malformed_requests_get_400_and_noise_nothing() {
    let mut registrar = server(&Arc::new(TempDir::new()), &["--auth", "none"]);
    let mut phone = Phone::new(registrar.address("udp"), "malformed");
    phone.socket.send_to(b"\x00\x80 noise \r\n\r\n", phone.registrar).unwrap();
    let text = phone.text("alice", "alice", &["no colon in this line"]);
    assert_eq!(status(&phone.exchange(&text)), 400);
    let text = phone.text("alice", "alice", &["Contact: <sip:alice@192.0.2.1>;;"]);
    assert_eq!(status(&phone.exchange(&text)), 400);
    let answer = phone.register("", "", "alice", &["Contact: <sip:alice@192.0.2.1>;expires=59"]);
    let message = Message::parse(&answer).unwrap();
    assert_eq!((message.status(), message.header(Name::MinExpires)), (423, Some(&b"60"[..])));
    assert_eq!(registrar.stop(), 0);
}

#[test]
fn an_address_that_is_taken_is_told_with_71() {
    let stranger = UdpSocket::bind((loopback(), 0)).unwrap();
    let first = server(&Arc::new(TempDir::new()), &[]);
    for address in [stranger.local_addr().unwrap(), first.address("udp")] {
        let listen = format!("udp:{address}");
        let dir = TempDir::new();
        let mut second = Process::start(server_command(&dir, "registrar", &["--listen", &listen]));
        assert_eq!(second.exit_code(SOON), 71);
        assert!(second.log().contains("--listen"), "{}", second.log());
        assert_eq!(second.log().lines().count(), 1, "{}", second.log());
    }
}

/// A hundred times (on MySQL, whose durability is not ours, fewer): the 200 is read, the process gets SIGKILL within a
/// millisecond, and its successor has the binding.
fn what_was_confirmed_survives_kill_9(db: Db) {
    let kills: usize = if db == Db::Sqlite { 100 } else { 25 };
    let dir = Arc::new(TempDir::on(db));
    let mut last: Option<(String, String)> = None;
    let (mut counted, mut started) = (0, 0);
    loop {
        let mut registrar = server(&dir, &["--auth", "none", "--quiet"]);
        if let Some((user, uri)) = &last {
            let mut phone = Phone::new(registrar.address("udp"), &format!("fetch{started}"));
            assert_eq!(
                contacts(&phone.register("", "", user, &[])),
                [uri.as_str()],
                "lost after kill {started}"
            );
        }
        if counted == kills {
            break;
        }
        started += 1;
        assert!(
            started < 3 * kills,
            "this machine is too slow to kill within a millisecond: {counted} of {started}"
        );
        let user = format!("user{started}");
        let uri = format!("sip:{user}@192.0.2.7:{}", 10_000 + started);
        let mut phone = Phone::new(registrar.address("udp"), &format!("call{started}"));
        let text = phone.text(&user, &user, &[&format!("Contact: <{uri}>")]);
        let answer = phone.exchange(&text);
        let read = Instant::now();
        registrar.process.signal(libc::SIGKILL);
        let took = read.elapsed();
        assert_eq!(status(&answer), 200);
        assert!(registrar.process.wait(SOON).is_some());
        // One that came later proves less: it is checked all the same, and not counted.
        if took < Duration::from_millis(1) {
            counted += 1;
        }
        last = Some((user, uri));
    }
}

/// Whether, in a trace, the last write to the WAL before the 200 was synced before the 200 was sent.
fn synced_before_200(trace: &str) -> Result<(), String> {
    let lines: Vec<&str> = trace.lines().collect();
    let sent = lines
        .iter()
        .position(|line| line.contains("send") && line.contains("SIP/2.0 200"))
        .ok_or("no 200 was sent")?;
    let before = &lines[..sent];
    let written = before
        .iter()
        .rposition(|line| line.contains("pwrite64(") && line.contains("-wal>"))
        .ok_or("nothing was written to the WAL")?;
    // A call that another thread interrupts in the trace ends on a line of its own: what counts is the end.
    let mut open: Option<&str> = None;
    for line in &before[written..] {
        let pid = line.split_whitespace().next().unwrap_or_default();
        let is_sync = line.contains("fdatasync") || line.contains("fsync");
        if is_sync && line.contains("-wal>") && line.contains("unfinished") {
            open = Some(pid);
        } else if is_sync && line.ends_with("= 0") && (line.contains("-wal>") || open == Some(pid)) {
            return Ok(());
        }
    }
    Err("the WAL was not synced between its write and the 200".to_owned())
}

#[test]
fn the_trace_reader_sees_a_missing_sync() {
    let write = "1 pwrite64(9</a/sipbox.db-wal>, \"\"..., 24, 0) = 24";
    let send = "2 sendto(5<UDP>, \"SIP/2.0 200 OK\"..., 300, 0, NULL, 0) = 300";
    let sync = "1 fdatasync(9</a/sipbox.db-wal>) = 0";
    let begun = "1 fdatasync(9</a/sipbox.db-wal> <unfinished ...>";
    let ended = "1 <... fdatasync resumed>)          = 0";
    assert!(synced_before_200(&[write, sync, send].join("\n")).is_ok());
    assert!(synced_before_200(&[write, begun, ended, send].join("\n")).is_ok());
    assert!(synced_before_200(&[write, send, sync].join("\n")).is_err());
    assert!(synced_before_200(&[sync, write, send].join("\n")).is_err());
    assert!(synced_before_200(&[write, begun, send, ended].join("\n")).is_err());
}

#[test]
fn the_disk_has_it_before_the_client() {
    let dir = TempDir::new();
    let trace = dir.join("trace");
    let listen = listen();
    let args = ["--listen", listen.as_str(), "--domain", "example.com", "--auth", "none", "--quiet"];
    let plain = server_command(&dir, "registrar", &args);
    // -D: the registrar is our child, and strace its grandchild, so that it is the registrar that we stop.
    let mut command = Command::new("strace");
    command.args([
        "-D",
        "-f",
        "-y",
        "-s",
        "64",
        "-e",
        "trace=pwrite64,fsync,fdatasync,sendto,sendmsg,sendmmsg",
        "-o",
    ]);
    command.arg(&trace).arg(plain.get_program()).args(plain.get_args()).current_dir(dir.path());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut process = Process::start(command);
    let ready = process.stdout.wait(0, harness::READY_WITHIN, |line| {
        let ready: serde_json::Value = serde_json::from_str(line).ok()?;
        ready["listen"][0].as_str()?.strip_prefix("udp:")?.parse::<SocketAddr>().ok()
    });
    let address = ready.expect("strace (Debian package strace) and a ready line");
    let mut phone = Phone::new(address, "traced");
    assert_eq!(
        contacts(&phone.register("", "", "alice", &["Contact: <sip:alice@192.0.2.7>"])),
        ["sip:alice@192.0.2.7"]
    );
    process.signal(libc::SIGTERM);
    assert_eq!(process.exit_code(Duration::from_secs(15)), 0);
    // strace ends a moment after what it traced.
    let deadline = Instant::now() + SOON;
    loop {
        let text = std::fs::read_to_string(&trace).unwrap();
        if text.contains("+++ exited with 0 +++") || Instant::now() > deadline {
            synced_before_200(&text).unwrap_or_else(|fault| panic!("{fault}:\n{text}"));
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
