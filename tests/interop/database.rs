//! One database, two owners: Debian's Kamailio routes by what our registrar and commands wrote, and our proxy by what Kamailio
//! wrote, in SQLite and in MySQL, under a time zone that is not UTC.

use crate::bare_phone::BarePhone;
use crate::baresip::Baresip;
use crate::harness::mariadb::{MariaDb, Schema};
use crate::harness::{Process, Server, TempDir, server_command};
use crate::kamailio::Kamailio;
use crate::{BEFORE_DTLS, DOMAIN, PHONE_HZ, SLACK, measured, namespace, probe, registered};
use mysql::prelude::Queryable;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const KAMAILIO: &str = "127.42.0.2:5060";
const RELAY: &str = "127.42.0.3";
const PROXY: &str = "127.42.0.5";
const REGISTRAR: &str = "127.42.0.6";
const WSGW: &str = "127.42.0.7";
const ALICE: &str = "127.42.0.11";
const CAROL: &str = "127.42.0.12";
const DAVE: &str = "127.42.0.13";
/// Of the phone behind a NAT; its Contact is another.
const ERIN: &str = "127.42.0.14";
const ERIN_SAYS: &str = "sip:erin@10.9.9.9:5060";
const ZONE: &str = "America/New_York";
const WITHIN: Duration = Duration::from_secs(10);

/// A database of one test.
enum Store {
    Sqlite(PathBuf),
    Mysql(Schema<'static>),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Sqlite,
    Mysql,
}

impl Store {
    fn new(kind: Kind, dir: &TempDir) -> Self {
        match kind {
            Kind::Sqlite => Store::Sqlite(dir.join("shared.db")),
            // Started in the test's own network; it ends with the process.
            Kind::Mysql => Store::Mysql(Schema::new(Box::leak(Box::new(MariaDb::start())))),
        }
    }

    /// For `--db`.
    fn ours(&self) -> String {
        match self {
            Store::Sqlite(file) => format!("sqlite:{}", file.display()),
            Store::Mysql(schema) => schema.url(),
        }
    }

    /// Kamailio's driver and its URL.
    fn theirs(&self) -> (&'static str, String) {
        match self {
            Store::Sqlite(file) => ("db_sqlite", format!("sqlite:///{}", file.display())),
            Store::Mysql(schema) => ("db_mysql", schema.url()),
        }
    }

    /// Changes exactly one row.
    fn change(&self, sql: &str) {
        let changed = match self {
            Store::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file).expect("the database");
                connection.busy_timeout(WITHIN).expect("a time-out");
                connection.execute(sql, []).expect(sql) as u64
            }
            Store::Mysql(schema) => {
                let mut connection = schema.connect();
                connection.query_drop(sql).expect(sql);
                connection.affected_rows()
            }
        };
        assert_eq!(changed, 1, "{sql}");
    }

    /// A moment that is long over, as a value of `expires`.
    fn long_ago(&self) -> &'static str {
        match self {
            Store::Sqlite(_) => "2440600.5",
            Store::Mysql(_) => "'1970-01-14 00:00:00'",
        }
    }

    /// Its tables, by Kamailio's own files, as `kamdbctl create` makes them.
    fn create(&self) {
        for part in ["standard", "auth_db", "usrloc", "presence"] {
            match self {
                Store::Sqlite(file) => {
                    let path = format!("/usr/share/kamailio/db_sqlite/{part}-create.sql");
                    let sql =
                        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                    let connection = rusqlite::Connection::open(file).expect("the database");
                    connection.execute_batch(&sql).unwrap_or_else(|error| panic!("{path}: {error}"));
                }
                Store::Mysql(schema) => {
                    schema.run_file(Path::new(&format!("/usr/share/kamailio/mysql/{part}-create.sql")));
                }
            }
        }
    }
}

/// Kamailio, and ours beside it, on one database.
struct House {
    kamailio: Kamailio,
    wsgw: Server,
    presence: Server,
    proxy: Server,
    registrar: Server,
    relay: Server,
    store: Store,
    dir: Arc<TempDir>,
}

impl House {
    fn start(kind: Kind, kamailio_first: bool) -> Self {
        namespace::enter();
        let dir = Arc::new(TempDir::new());
        let store = Store::new(kind, &dir);
        if kamailio_first {
            store.create();
        }
        let db = store.ours();
        for user in ["alice", "bob", "carol", "dave", "erin"] {
            let aor = format!("{user}@{DOMAIN}");
            let words = ["user", "add", &aor, "--password-stdin", "--db", &db];
            run(&dir, "registrar", &words, &format!("{user}-password\n"));
        }
        let listen = |address: &str, transport: &str| format!("{transport}:{address}:0");
        let start = |command: &str, args: &[&str]| {
            let mut all = vec!["--events", "-"];
            all.extend(args);
            let mut line = server_command(&dir, command, &all);
            line.env("TZ", ZONE);
            Server::of(Arc::clone(&dir), command, line)
        };
        let (at_proxy, at_gate) = (format!("{PROXY}/32"), format!("{WSGW}/32"));
        let edges = ["--domain", DOMAIN, "--edge", &at_proxy, "--edge", &at_gate];
        let relay = start("relay", &["--control", &listen(RELAY, "udp"), "--interface", RELAY]);
        let registrar =
            start("registrar", &both(&edges, &["--db", &db, "--listen", &listen(REGISTRAR, "udp")]));
        let presence =
            start("presence", &both(&edges, &["--db", &db, "--listen", &listen(REGISTRAR, "udp")]));
        let uri = |server: &Server| format!("sip:{}", server.address("udp"));
        let control = format!("udp:{}", relay.address("udp"));
        let kamailio_only = format!("{}/32", KAMAILIO.split(':').next().expect("an address"));
        let proxy = start(
            "proxy",
            &both(
                &edges,
                &[
                    "--db",
                    &db,
                    "--listen",
                    &listen(PROXY, "udp"),
                    "--listen",
                    &listen(PROXY, "tcp"),
                    "--registrar",
                    &uri(&registrar),
                    "--presence",
                    &uri(&presence),
                    "--relay",
                    &control,
                    "--trust",
                    &kamailio_only,
                ],
            ),
        );
        let upstream = format!("sip:{};transport=tcp", proxy.address("tcp"));
        let wsgw = start(
            "wsgw",
            &[
                "--domain",
                DOMAIN,
                "--listen",
                &listen(WSGW, "ws"),
                "--sip-listen",
                &listen(WSGW, "tcp"),
                "--upstream",
                &upstream,
            ],
        );
        let (driver, url) = store.theirs();
        let fill = [("SIP", KAMAILIO), ("DRIVER", driver), ("DB", &url), ("RELAY", &control)];
        let kamailio = Kamailio::start(&dir, "database.cfg", &fill, &[], ZONE);
        House { kamailio, wsgw, presence, proxy, registrar, relay, store, dir }
    }

    /// baresip as `user`, registered at `server`.
    fn phone(&self, address: &str, user: &str, server: SocketAddr) -> Baresip {
        Baresip::start(&self.dir, address, user, DOMAIN, server, PHONE_HZ)
    }

    /// `registrar contacts AOR`.
    fn contacts(&self, user: &str) -> Vec<Value> {
        let aor = format!("{user}@{DOMAIN}");
        let out = run(&self.dir, "registrar", &["contacts", &aor, "--db", &self.store.ours()], "");
        out.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Seconds that Kamailio gives each binding of a user, by its own reading of the database.
    fn kamailio_expires(&self, user: &str) -> Vec<i64> {
        let answer = self.kamailio.rpc(&["ul.lookup", "location", &format!("{user}@{DOMAIN}")]);
        let lines = answer.lines().filter_map(|line| line.trim().strip_prefix("Expires: "));
        lines.map(|seconds| seconds.parse().unwrap_or_else(|_| panic!("{answer}"))).collect()
    }

    /// With Dave's place in Carol's row his phone rings, and hers does not; and a binding whose time is over is none.
    fn the_row_decides(&self, alice: &mut Baresip, dave: &mut Baresip, index: (usize, usize)) {
        let at_dave = self.contacts("dave")[0]["contact"].as_str().expect("a contact").to_owned();
        self.store.change(&format!(
            "UPDATE location SET contact = '{at_dave}', received = NULL, path = NULL WHERE username = 'carol'"
        ));
        talk(alice, dave, "carol", index);
        let long_ago = self.store.long_ago();
        self.store.change(&format!("UPDATE location SET expires = {long_ago} WHERE username = 'dave'"));
        assert_eq!(self.contacts("dave"), Vec::<Value>::new());
        refused(alice, "dave", "404");
    }

    /// Kamailio and we agree on who has how long.
    fn agree_on(&self, user: &str) {
        let ours: Vec<i64> = self
            .contacts(user)
            .iter()
            .map(|row| seconds_until(row["expires"].as_str().unwrap_or_else(|| panic!("{row}"))))
            .collect();
        let theirs = self.kamailio_expires(user);
        assert_eq!((ours.len(), theirs.len()), (1, 1), "{user}: {ours:?}, {theirs:?}");
        assert!(ours[0] > 20 && ours[0].abs_diff(theirs[0]) <= 2, "{user}: {ours:?}, {theirs:?}");
    }
}

fn both<'a>(some: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [some, more].concat()
}

/// `sipbox COMMAND WORDS` to its good end, in the time zone of the test; its lines.
fn run(dir: &TempDir, command: &str, words: &[&str], input: &str) -> Vec<String> {
    let mut line = server_command(dir, command, words);
    line.env("TZ", ZONE);
    let mut process = Process::start_with(line, input.as_bytes());
    assert_eq!(process.exit_code(WITHIN), 0, "{command} {words:?}: {}", process.log());
    process.stdout.all()
}

/// From now to a time in RFC 3339.
fn seconds_until(time: &str) -> i64 {
    let clock = rusqlite::Connection::open_in_memory().expect("SQLite");
    clock
        .query_row(
            "SELECT CAST(strftime('%s', ?1) AS INTEGER) - CAST(strftime('%s', 'now') AS INTEGER)",
            [time],
            |r| r.get(0),
        )
        .unwrap_or_else(|error| panic!("{time}: {error}"))
}

fn kamailio_at() -> SocketAddr {
    KAMAILIO.parse().expect("an address")
}

/// One calls, the other's phone answers; both count.
fn talk(caller: &mut Baresip, callee: &mut Baresip, user: &str, index: (usize, usize)) {
    caller.dial(&format!("sip:{user}@{DOMAIN}"));
    for phone in [&mut *caller, &mut *callee] {
        phone.wait("CALL_ESTABLISHED", WITHIN);
    }
    std::thread::sleep(Duration::from_secs(1));
    caller.hangup();
    for phone in [&mut *caller, &mut *callee] {
        phone.wait("CALL_CLOSED", WITHIN);
    }
    let (a, b) = (caller.counts(index.0), callee.counts(index.1));
    assert!(a.sent > 30 && b.received + SLACK >= a.sent, "{user}: {a:?} {b:?}");
    assert!(b.sent > 30 && a.received + SLACK >= b.sent, "{user}: {a:?} {b:?}");
}

/// The call ends with this status.
fn refused(caller: &mut Baresip, user: &str, status: &str) {
    caller.dial(&format!("sip:{user}@{DOMAIN}"));
    let closed = caller.wait("CALL_CLOSED", WITHIN);
    assert!(closed["param"].as_str().is_some_and(|why| why.starts_with(status)), "{user}: {closed}");
}

#[test]
fn kamailio_routes_by_what_we_wrote() {
    kamailio_routes_by_what_we_wrote_in(Kind::Sqlite);
}

#[test]
fn kamailio_routes_by_what_we_wrote_in_mysql() {
    kamailio_routes_by_what_we_wrote_in(Kind::Mysql);
}

fn kamailio_routes_by_what_we_wrote_in(kind: Kind) {
    let house = House::start(kind, false);
    // Who is where: Alice at Kamailio; Bob behind wsgw and Carol behind our proxy, each with a Path; Dave and Erin straight at
    // the registrar, she with a Contact that is not where she is.
    let mut alice = house.phone(ALICE, "alice", kamailio_at());
    let mut carol = house.phone(CAROL, "carol", house.proxy.address("udp"));
    let mut dave = house.phone(DAVE, "dave", house.registrar.address("udp"));
    let mut erin = BarePhone::new(ERIN, "erin", DOMAIN);
    assert_eq!(erin.register(house.registrar.address("udp"), "erin-password", ERIN_SAYS, 300), 200);
    for user in ["alice", "carol", "dave", "erin"] {
        house.agree_on(user);
    }
    // Kamailio checks passwords against what `user add` wrote.
    let mut thief = BarePhone::new(ERIN, "alice", DOMAIN);
    assert_eq!(thief.register(kamailio_at(), "wrong", "sip:alice@10.9.9.9", 300), 401);
    let mut nobody = BarePhone::new(ERIN, "nobody", DOMAIN);
    assert_eq!(nobody.register(kamailio_at(), "wrong", "sip:nobody@10.9.9.9", 300), 401);

    talk(&mut alice, &mut carol, "carol", (0, 0));
    let found = house.kamailio.wait_log("found: uri=sip:carol");
    assert!(found.contains(&format!("@{PROXY}:")) && found.ends_with(";lr;ob"), "{found}");
    let through = house.proxy.wait_record(WITHIN, |record| record["event"] == "call-start");
    assert!(through.is_some_and(|call| call["target"].as_str().is_some_and(|to| to.contains(CAROL))));

    talk(&mut alice, &mut dave, "dave", (1, 0));
    let found = house.kamailio.wait_log("found: uri=sip:dave");
    assert!(found.ends_with(&format!("next=sip:{DAVE}:5060")), "{found}");

    alice.dial(&format!("sip:erin@{DOMAIN}"));
    let (uri, from) = erin.is_called();
    assert_eq!((uri.as_str(), from.to_string().as_str()), (ERIN_SAYS, KAMAILIO));
    let closed = alice.wait("CALL_CLOSED", WITHIN);
    assert!(closed["param"].as_str().is_some_and(|why| why.starts_with("486")), "{closed}");

    // A browser's stack, along wsgw's Path, with media through our relay under Kamailio.
    let browser = probe(&house.dir, &format!("ws://{}/", house.wsgw.address("ws")), &["--answer"]);
    registered(&browser);
    house.agree_on("bob");
    alice.dial(&format!("sip:bob@{DOMAIN}"));
    alice.wait("CALL_ESTABLISHED", Duration::from_secs(15));
    alice.wait("CALL_CLOSED", Duration::from_secs(20));
    let (sent, received) = measured(browser);
    let counts = alice.counts(2);
    assert!(counts.received + SLACK >= sent && counts.received <= sent, "{counts:?} {sent}");
    assert!(received + BEFORE_DTLS >= counts.sent && received <= counts.sent, "{counts:?} {received}");
    let found = house.kamailio.wait_log("found: uri=sip:bob");
    assert!(found.contains(&format!("@{WSGW}:")), "{found}");

    house.the_row_decides(&mut alice, &mut dave, (3, 1));
}

#[test]
fn our_proxy_routes_by_what_kamailio_wrote() {
    our_proxy_routes_by_what_kamailio_wrote_in(Kind::Sqlite);
}

#[test]
fn our_proxy_routes_by_what_kamailio_wrote_in_mysql() {
    our_proxy_routes_by_what_kamailio_wrote_in(Kind::Mysql);
}

fn our_proxy_routes_by_what_kamailio_wrote_in(kind: Kind) {
    let house = House::start(kind, true);
    let mut alice = house.phone(ALICE, "alice", house.proxy.address("udp"));
    let mut carol = house.phone(CAROL, "carol", kamailio_at());
    let mut dave = house.phone(DAVE, "dave", kamailio_at());
    let mut erin = BarePhone::new(ERIN, "erin", DOMAIN);
    assert_eq!(erin.register(kamailio_at(), "erin-password", ERIN_SAYS, 300), 200);
    for user in ["alice", "carol", "dave", "erin"] {
        house.agree_on(user);
    }
    talk(&mut alice, &mut carol, "carol", (0, 0));

    alice.dial(&format!("sip:erin@{DOMAIN}"));
    let (uri, from) = erin.is_called();
    assert_eq!((uri.as_str(), from), (ERIN_SAYS, house.proxy.address("udp")));
    alice.wait("CALL_CLOSED", WITHIN);
    // Behind a NAT, so through the relay.
    let relayed = house.relay.wait_record(WITHIN, |record| record["event"] == "call-start");
    assert!(relayed.is_some(), "{:?}", house.relay.records());

    // The same binding again, by our registrar: one row, and then none.
    assert_eq!(erin.register(house.registrar.address("udp"), "erin-password", ERIN_SAYS, 600), 200);
    house.agree_on("erin");
    assert_eq!(erin.register(kamailio_at(), "erin-password", ERIN_SAYS, 0), 200);
    assert_eq!(house.contacts("erin"), Vec::<Value>::new());
    refused(&mut alice, "erin", "404");

    house.the_row_decides(&mut alice, &mut dave, (1, 0));
}

#[test]
fn presence_is_one_for_both() {
    presence_is_one_for_both_in(Kind::Sqlite);
}

#[test]
fn presence_is_one_for_both_in_mysql() {
    presence_is_one_for_both_in(Kind::Mysql);
}

fn presence_is_one_for_both_in(kind: Kind) {
    let house = House::start(kind, false);
    let (bob, erin) = (format!("sip:bob@{DOMAIN}"), format!("sip:erin@{DOMAIN}"));
    let ours = house.presence.address("udp");
    let mut watcher = BarePhone::new(ALICE, "alice", DOMAIN);
    let is = |document: &str, state: &str| document.contains(&format!("<basic>{state}</basic>"));

    // What we wrote, read by Kamailio.
    let nothing = watcher.fetch(kamailio_at(), "alice-password", &bob);
    assert!(!is(&nothing, "open"), "{nothing}");
    for (state, note) in [("open", "At lunch"), ("closed", "Asleep")] {
        let words = ["publish", &format!("bob@{DOMAIN}"), state, "--note", note, "--db", &house.store.ours()];
        run(&house.dir, "presence", &words, "");
        let document = watcher.fetch(kamailio_at(), "alice-password", &bob);
        assert!(is(&document, state) && document.contains(note), "{state}: {document}");
    }

    // What Kamailio wrote, read by our server and our command.
    let nothing = watcher.fetch(ours, "alice-password", &erin);
    assert!(!is(&nothing, "open"), "{nothing}");
    let document = "<?xml version=\"1.0\"?>\r\n\
        <presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:erin@example.com\"><tuple id=\"t1\">\
        <status><basic>open</basic></status><note>By Kamailio</note></tuple></presence>\r\n";
    let mut publisher = BarePhone::new(ERIN, "erin", DOMAIN);
    assert_eq!(publisher.publish(kamailio_at(), "erin-password", document), 200);
    let fetched = watcher.fetch(ours, "alice-password", &erin);
    assert!(is(&fetched, "open") && fetched.contains("By Kamailio"), "{fetched}");
    let listed =
        run(&house.dir, "presence", &["list", &format!("erin@{DOMAIN}"), "--db", &house.store.ours()], "");
    assert!(listed.iter().any(|line| line.contains("open")), "{listed:?}");
}
