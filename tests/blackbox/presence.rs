//! The real presence server over its real sockets and database: watchers, publishers, a kill, bad documents, and the way
//! through the real proxy.

#[macro_use]
#[path = "../harness/mod.rs"]
mod harness;

use harness::{Db, Process, Server, TempDir, loopback, run_in, server_command};
use serde_json::Value;
use sipbox_core::sip::{Message, Name};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(5);

/// A directory with a database in which Alice and Bob are users.
struct House {
    dir: Arc<TempDir>,
    db: String,
}

impl House {
    fn new(db: Db) -> House {
        let dir = Arc::new(TempDir::on(db));
        let db = dir.db();
        let house = House { dir, db };
        for user in ["alice", "bob"] {
            let words = ["registrar", "user", "add", &format!("{user}@example.com"), "--password-stdin"];
            let done = house.command(&words, &format!("{user}-password\n"));
            assert_eq!(done.code, 0, "{done:?}");
        }
        house
    }

    fn server(&self, command: &str, args: &[&str]) -> Server {
        let mut all = vec!["--domain", "example.com", "--db", &self.db, "--events", "-"];
        all.extend(args);
        Server::start_in(Arc::clone(&self.dir), command, &all)
    }

    fn command(&self, words: &[&str], input: &str) -> harness::Finished {
        let mut all = words.to_vec();
        all.extend(["--db", &self.db]);
        run_in(&self.dir, &all, input.as_bytes())
    }

    fn publish(&self, words: &[&str]) {
        let mut all = vec!["presence", "publish", "bob@example.com"];
        all.extend(words);
        let done = self.command(&all, "");
        assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
    }

    /// `presence list`, by kind.
    fn list(&self, kind: &str) -> Vec<Value> {
        let done = self.command(&["presence", "list"], "");
        assert_eq!(done.code, 0, "{done:?}");
        done.stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|record| record["kind"] == kind)
            .collect()
    }

    fn watch(&self, server: &str, password: &str) -> Watcher {
        let words = [
            "watch",
            "sip:bob@example.com",
            "--user",
            "alice@example.com",
            "--password-stdin",
            "--server",
            server,
        ];
        let command = server_command(&self.dir, "presence", &words);
        Watcher { process: Process::start_with(command, format!("{password}\n").as_bytes()), seen: 0 }
    }
}

/// `presence watch`.
struct Watcher {
    process: Process,
    seen: usize,
}

impl Watcher {
    /// The next record that says something else than `not`.
    fn wait(&mut self, basic: &str) -> Value {
        let mut seen = self.seen;
        let found = self.process.stdout.wait(self.seen, WITHIN, |line| {
            seen += 1;
            let record: Value = serde_json::from_str(line).unwrap();
            (record["basic"] == basic).then_some(record)
        });
        self.seen = seen;
        found.unwrap_or_else(|| {
            panic!("not told {basic}, but {:#?}\n{}", self.process.stdout.all(), self.process.log())
        })
    }
}

/// Sends one request from a socket, and gives its answer.
fn ask(socket: &UdpSocket, text: &str) -> Vec<u8> {
    socket.send(text.as_bytes()).unwrap();
    let mut buffer = vec![0; 65_536];
    let deadline = Instant::now() + WITHIN;
    loop {
        assert!(Instant::now() < deadline, "no answer to {text}");
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let message = Message::parse(&buffer[..length]).unwrap();
        if !message.is_request() {
            return buffer[..length].to_vec();
        }
    }
}

fn publish_request(number: u32, headers: &str, body: &str) -> String {
    format!(
        "PUBLISH sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bKp{number}\r\n\
         From: <sip:bob@example.com>;tag=p\r\nTo: <sip:bob@example.com>\r\nCall-ID: p{number}\r\n\
         CSeq: {number} PUBLISH\r\nMax-Forwards: 70\r\nEvent: presence\r\n{headers}Content-Type: application/pidf+xml\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn pidf(basic: &str) -> String {
    format!(
        "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:bob@example.com\"><tuple id=\"phone\">\
         <status><basic>{basic}</basic></status></tuple></presence>"
    )
}

fn phone(server: &Server) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address("udp")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

on_each_database! {
    watchers_and_publications_survive_a_kill
    through_the_proxy_both_ways
}

fn watchers_and_publications_survive_a_kill(db: Db) {
    let house = House::new(db);
    let ip = loopback();
    let mut first = house.server("presence", &["--listen", &format!("udp:{ip}:0")]);
    let address = first.address("udp").to_string();
    // Digest: the watcher is asked for his password, and has it.
    let mut watcher = house.watch(&address, "alice-password");
    watcher.wait("closed");
    assert_eq!(house.list("subscription").len(), 1);
    house.publish(&["open", "--note", "at <home> & \"well\""]);
    let told = watcher.wait("open");
    assert!(told["body"].as_str().unwrap().contains("at &lt;home&gt; &amp;"), "{told}");

    first.process.kill();
    let second = house.server("presence", &["--listen", &format!("udp:{address}")]);
    assert_eq!(house.list("publication").len(), 1);
    house.publish(&["closed"]);
    watcher.wait("closed");
    house.publish(&["open"]);
    watcher.wait("open");

    // He leaves: his server and the tables know.
    watcher.process.signal(libc::SIGINT);
    assert_eq!(watcher.process.exit_code(WITHIN), 0);
    assert!(second.wait_record(WITHIN, |record| record["event"] == "unsubscribed").is_some());
    assert!(house.list("subscription").is_empty());
    house.publish(&["open", "--expires", "0"]);
    assert!(house.list("publication").is_empty());
    let nothing = house.command(&["presence", "publish", "bob@example.com", "open", "--expires", "0"], "");
    assert_eq!(nothing.code, 1, "{nothing:?}");
    assert!(!second.stderr().contains("panicked"), "{}", second.stderr());
}

#[test]
fn a_wrong_password_watches_nobody() {
    let house = House::new(Db::Sqlite);
    let server = house.server("presence", &["--listen", &format!("udp:{}:0", loopback())]);
    let mut watcher = house.watch(&server.address("udp").to_string(), "wrong");
    assert_eq!(watcher.process.exit_code(WITHIN), 1, "{}", watcher.process.log());
    assert!(watcher.process.log().contains("401"), "{}", watcher.process.log());
    assert!(server.wait_record(WITHIN, |record| record["event"] == "auth-failed").is_some());
    assert!(house.list("subscription").is_empty());
}

#[test]
fn bad_xml_is_400_with_a_line_and_the_rest_goes_on() {
    let house = House::new(Db::Sqlite);
    let listen = format!("udp:{}:0", loopback());
    let server = house.server("presence", &["--listen", &listen, "--auth", "none"]);
    let mut watcher = house.watch(&server.address("udp").to_string(), "any");
    watcher.wait("closed");
    let socket = phone(&server);
    let status = |answer: &[u8]| Message::parse(answer).unwrap().status();
    let bad = ask(
        &socket,
        &publish_request(1, "", "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"><tuple></presence>"),
    );
    assert_eq!(status(&bad), 400);
    let line = server.wait_log(WITHIN, "bad-document").expect("a line in the log");
    assert!(line.contains("bob@example.com") && line.contains("at byte"), "{line}");

    let good = ask(&socket, &publish_request(2, "Expires: 600\r\n", &pidf("open")));
    assert_eq!(status(&good), 200);
    watcher.wait("open");
    let message = Message::parse(&good).unwrap();
    let etag = String::from_utf8(message.header(Name::SipETag).unwrap().to_vec()).unwrap();
    let stranger = ask(&socket, &publish_request(3, "SIP-If-Match: other\r\n", ""));
    assert_eq!(status(&stranger), 412);
    let removed = ask(&socket, &publish_request(4, &format!("SIP-If-Match: {etag}\r\nExpires: 0\r\n"), ""));
    assert_eq!(status(&removed), 200);
    watcher.wait("closed");
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}

#[test]
fn a_database_that_is_away_is_503_and_comes_back() {
    let house = House::new(Db::Sqlite);
    let listen = format!("udp:{}:0", loopback());
    let server = house.server("presence", &["--listen", &listen, "--auth", "none"]);
    let socket = phone(&server);
    let status = |answer: &[u8]| Message::parse(answer).unwrap().status();
    assert_eq!(status(&ask(&socket, &publish_request(1, "", &pidf("open")))), 200);
    // Somebody holds the lock for longer than the server waits.
    let holder = rusqlite::Connection::open(house.dir.join("sipbox.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(status(&ask(&socket, &publish_request(2, "", &pidf("open")))), 503);
    assert!(server.wait_log(WITHIN, "store-unavailable").is_some(), "{}", server.stderr());
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(status(&ask(&socket, &publish_request(3, "", &pidf("open")))), 200);
}

/// A file that is no database, that cannot be made, written or locked: one line with what, where and the mend.
#[test]
fn a_database_that_cannot_be_used_is_told() {
    let house = House::new(Db::Sqlite);
    std::fs::write(house.dir.join("junk.db"), [0x5a; 4096]).unwrap();
    std::fs::create_dir(house.dir.join("directory")).unwrap();
    std::fs::copy(house.dir.join("sipbox.db"), house.dir.join("readonly.db")).unwrap();
    let mut mode = std::fs::metadata(house.dir.join("readonly.db")).unwrap().permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(house.dir.join("readonly.db"), mode).unwrap();
    let holder = rusqlite::Connection::open(house.dir.join("sipbox.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (file, code, why) in [
        ("none/sipbox.db", 66, "check the path"),
        ("junk.db", 65, "not a database"),
        ("directory", 71, "unable to open"),
        ("readonly.db", 71, "only be read; check the owner"),
        ("sipbox.db", 69, "locked"),
    ] {
        let url = format!("sqlite:{file}");
        let words = ["publish", "bob@example.com", "open", "--db", &url];
        let mut command = server_command(&house.dir, "presence", &words);
        // SAFETY: prctl is async-signal-safe. Root may write whatever the mode says, unless it gives that up.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, || {
                const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
                libc::prctl(libc::PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0);
                Ok(())
            });
        }
        let mut process = Process::start(command);
        assert_eq!(process.exit_code(2 * WITHIN), code, "{file}: {}", process.log());
        let log = process.log();
        assert!(log.lines().count() == 1 && log.contains("--db") && log.contains(why), "{file}: {log}");
    }
    holder.execute_batch("ROLLBACK").unwrap();
    house.publish(&["open"]);
}

fn through_the_proxy_both_ways(db: Db) {
    let house = House::new(db);
    let (presence_ip, proxy_ip) = (loopback(), loopback());
    let edge = format!("{proxy_ip}/32");
    let presence = house.server("presence", &["--listen", &format!("udp:{presence_ip}:0"), "--edge", &edge]);
    let uri = format!("sip:{}", presence.address("udp"));
    let proxy = house.server("proxy", &["--listen", &format!("udp:{proxy_ip}:0"), "--presence", &uri]);
    let mut watcher = house.watch(&proxy.address("udp").to_string(), "alice-password");
    watcher.wait("closed");
    assert!(
        presence
            .wait_record(WITHIN, |record| {
                record["event"] == "subscribed"
                    && record["peer"].as_str().is_some_and(|peer| peer.contains(&proxy_ip.to_string()))
            })
            .is_some(),
        "{:?}",
        presence.records()
    );
    house.publish(&["open"]);
    watcher.wait("open");
    watcher.process.signal(libc::SIGINT);
    assert_eq!(watcher.process.exit_code(WITHIN), 0);
    assert!(house.list("subscription").is_empty(), "ended through the proxy");
    assert!(
        !presence.records().iter().any(|record| record["event"] == "notify-failed"),
        "{:?}",
        presence.records()
    );
}
