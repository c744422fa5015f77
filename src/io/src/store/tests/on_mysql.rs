//! What MySQL has for itself: a server that goes and comes, TLS, its modes, local times, Kamailio's own tables.

use super::*;
use ::mysql::prelude::Queryable;
use mariadb::{HARD_PASSWORD_ESCAPED, HARD_USER};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::RecvTimeoutError;

/// Longer than any time-out of ours.
const LONG: Duration = Duration::from_secs(10);
/// Where Debian's package kamailio-mysql-modules has what makes Kamailio's tables.
const KAMAILIO: &str = "/usr/share/kamailio/mysql";

fn schema() -> Schema<'static> {
    MariaDb::shared().schema()
}

fn a_save(cseq: u32) -> Query {
    save(cseq, at(0), vec![binding("sip:a@h1", cseq, at(0), 600)])
}

fn is_saved(answer: &Answer) -> bool {
    matches!(answer, Ok(Reply::Saved(_)))
}

fn is_away(answer: &Answer) -> bool {
    matches!(answer, Err(Error::Unavailable(_)))
}

fn refused(url: &str) -> StartError {
    match open(Some(url)) {
        Err(error) => {
            assert_eq!(error.message.lines().count(), 1, "{error}");
            assert!(!error.message.contains(mariadb::PASSWORD), "{error}");
            error
        }
        Ok(_) => panic!("{url}: opened"),
    }
}

/// Its answer, and how long it took.
fn timed(database: &Database, query: Query) -> (Answer, Duration) {
    let began = Instant::now();
    let (sender, answer) = channel();
    database.put(query, Box::new(move |reply| drop(sender.send(reply))));
    match answer.recv_timeout(LONG) {
        Ok(reply) => (reply, began.elapsed()),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("no answer in {LONG:?}"),
    }
}

/// The definition of every table but ours, as the server tells it; without Kamailio's options, which are the database's.
fn definitions(schema: &Schema<'_>, only: &[&str]) -> Vec<String> {
    let mut connection = schema.connect();
    let columns: Vec<(String, String, String, String, Option<String>, String)> = connection
        .query(
            "SELECT table_name, column_name, column_type, is_nullable, column_default, extra \
             FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position",
        )
        .unwrap();
    let indexes: Vec<(String, String, i64, i64, String)> = connection
        .query(
            "SELECT table_name, index_name, non_unique, seq_in_index, column_name \
             FROM information_schema.statistics WHERE table_schema = DATABASE() \
             ORDER BY table_name, index_name, seq_in_index",
        )
        .unwrap();
    let columns =
        columns.into_iter().filter(|row| only.contains(&row.0.as_str())).map(|row| format!("{row:?}"));
    let indexes =
        indexes.into_iter().filter(|row| only.contains(&row.0.as_str())).map(|row| format!("{row:?}"));
    columns.chain(indexes).collect()
}

const TABLES: [&str; 9] = [
    "version",
    "subscriber",
    "location",
    "location_attrs",
    "domain",
    "domain_attrs",
    "presentity",
    "active_watchers",
    "watchers",
];

/// Kamailio's own files make the same tables as we do, and a database of theirs is taken over without a change.
#[test]
fn tables_are_kamailios() {
    if !Path::new(KAMAILIO).exists() {
        eprintln!("SKIPPED: {KAMAILIO} is not there (Debian package kamailio-mysql-modules)");
        return;
    }
    let ours = schema();
    let database = open(Some(&ours.url())).unwrap();
    assert!(is_saved(&database.ask_and_wait(a_save(1))));
    // A column in a set of letters and with a comparison that are not ours, as many such databases have it.
    let theirs = schema();
    theirs
        .connect()
        .query_drop(format!("ALTER DATABASE {} CHARACTER SET latin1 COLLATE latin1_swedish_ci", theirs.name))
        .unwrap();
    for file in ["standard", "auth_db", "usrloc", "domain", "presence"] {
        theirs.run_file(&Path::new(KAMAILIO).join(format!("{file}-create.sql")));
    }
    let before = definitions(&theirs, &TABLES);
    assert!(before.len() > 100);
    assert_eq!(definitions(&ours, &TABLES), before);
    let versions = |schema: &Schema<'_>| -> Vec<(String, i64)> {
        let text = "SELECT table_name, table_version FROM version WHERE table_name NOT IN ('xcap', 'pua') ORDER BY 1";
        schema.connect().query(text).unwrap()
    };
    assert_eq!(versions(&ours), versions(&theirs));

    let zone = local_time::local(i64::try_from(at(600).unix_secs()).unwrap()).unwrap();
    let expires = format!(
        "{}-{:02}-{:02} {:02}:{:02}:{:02}",
        zone.year, zone.month, zone.day, zone.hour, zone.minute, zone.second
    );
    let mut raw = theirs.connect();
    raw.query_drop(format!(
        "INSERT INTO location (ruid, username, domain, contact, expires, callid, cseq, q) VALUES \
         ('uloc-1', 'alice', NULL, 'sip:a@h1', '{expires}', 'c1', 1, 0.33), \
         ('uloc-2', 'Alice', 'example.com', 'sip:a@h2', '{expires}', 'c1', 1, -1), \
         ('uloc-3', 'alice', 'example.com', 'sip:a@h3', FROM_UNIXTIME(0), 'c1', 1, 1)"
    ))
    .unwrap();
    raw.query_drop(
        "INSERT INTO subscriber (username, domain, password) VALUES ('alice', 'example.com', 'wonder')",
    )
    .unwrap();
    raw.query_drop("INSERT INTO domain (domain) VALUES ('Example.COM')").unwrap();
    let database = open(Some(&theirs.url())).unwrap();
    assert_eq!(definitions(&theirs, &TABLES), before);
    assert_eq!(database.ask_and_wait(Query::Domains), Ok(Reply::Domains(vec!["example.com".to_owned()])));
    let Ok(Reply::Bindings(rows)) = database.ask_and_wait(Query::Bindings { aor: alice(), now: at(0) })
    else {
        panic!()
    };
    let mut seen: Vec<_> = rows.iter().map(|row| (row.contact.as_str(), row.q, row.expires)).collect();
    seen.sort();
    assert_eq!(seen[0], ("sip:a@h1", Some(330), at(600)));
    assert_eq!((seen[1].0, seen[1].1, seen.len()), ("sip:a@h3", Some(1000), 2));
    assert!(seen[1].2 > at(1 << 32), "permanent");
    let ask = |user: &str| {
        database
            .ask_and_wait(Query::Secret { user: user.to_owned(), domain: "example.com".to_owned() })
            .unwrap()
    };
    let plain = Secret { password: "wonder".to_owned(), ..Secret::default() };
    assert_eq!(ask("alice"), Reply::Secret(Some(plain)));
    // The column finds him, we do not.
    assert_eq!(ask("ALICE"), Reply::Secret(None));
    // Where the column cannot tell two apart, the second one is refused.
    let add = |user: &str| {
        let (user, domain) = (user.to_owned(), "example.com".to_owned());
        database.ask_and_wait(Query::UserAdd { user, domain, secret: secret("x") })
    };
    assert_eq!(add("ALICE"), Ok(Reply::Refused(Refusal::UserExists)));
    assert_eq!(add("bob"), Ok(Reply::Done));
    // Letters that it does not have are refused, not written as question marks.
    assert_eq!(add("ünï"), Ok(Reply::Done));
    assert_eq!(add("😀"), Ok(Reply::Refused(Refusal::DoesNotFit)));
    assert_eq!(ask("ünï"), Reply::Secret(Some(secret("x"))));
    // A refresh replaces Kamailio's row, whatever its name; the binding of another one stays.
    assert!(is_saved(&database.ask_and_wait(a_save(2))));
    let left: Vec<(String, String)> =
        raw.query("SELECT username, contact FROM location ORDER BY contact").unwrap();
    let left: Vec<(&str, &str)> =
        left.iter().map(|(user, contact)| (user.as_str(), contact.as_str())).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.contains(&("Alice", "sip:a@h2")) && left.contains(&("alice", "sip:a@h1")));

    for (sql, says) in [
        ("UPDATE version SET table_version = 10 WHERE table_name = 'location'", "location"),
        ("INSERT INTO sipbox_version (version) VALUES (1000)", "newer sipbox"),
    ] {
        ours.connect().query_drop(sql).unwrap();
        let error = refused(&ours.url());
        assert_eq!(error.kind, Kind::Config);
        assert!(error.message.contains(says), "{error}");
        ours.connect()
            .query_drop("UPDATE version SET table_version = 9 WHERE table_name = 'location'")
            .unwrap();
    }
}

/// Two at once, as at the first start of a deployment; and one that was interrupted in the middle.
#[test]
fn tables_are_made_once() {
    let schema = schema();
    let openers: Vec<_> = (0..4)
        .map(|_| {
            let url = schema.url();
            std::thread::spawn(move || open(Some(&url)).map(drop))
        })
        .collect();
    for opener in openers {
        opener.join().unwrap().unwrap();
    }
    let mut raw = schema.connect();
    assert_eq!(raw.query_first("SELECT count(*) FROM version").unwrap(), Some(TABLES.len()));
    assert_eq!(raw.query_first("SELECT count(*) FROM sipbox_version").unwrap(), Some(1));
    // The row in `version` was written, the table was not; and the last migration is not on record.
    raw.query_drop("DROP TABLE watchers").unwrap();
    raw.query_drop("DELETE FROM sipbox_version").unwrap();
    open(Some(&schema.url())).unwrap();
    assert_eq!(raw.query_first("SELECT count(*) FROM watchers").unwrap(), Some(0));
    assert_eq!(raw.query_first("SELECT count(*) FROM sipbox_version").unwrap(), Some(1));
}

#[test]
fn what_is_too_long_is_refused_alone_and_never_cut() {
    let schema = schema();
    let database = open(Some(&schema.url())).unwrap();
    let too_long: [fn(&mut Binding); 5] = [
        |row| row.contact = format!("sip:{}@h1", "a".repeat(506)),
        |row| row.path = Some("p".repeat(513)),
        |row| row.received = Some("r".repeat(129)),
        |row| row.user_agent = "u".repeat(256),
        |row| row.instance = Some("i".repeat(256)),
    ];
    let (sender, answers) = channel();
    let mut wanted = Vec::new();
    for (number, change) in too_long.into_iter().enumerate() {
        for long in [false, true] {
            let cseq = 2 * number as u32 + u32::from(long) + 1;
            let mut row = binding("sip:a@h1", cseq, at(0), 600);
            if long {
                change(&mut row);
            }
            let sender = sender.clone();
            wanted.push(long);
            database.put(save(cseq, at(0), vec![row]), Box::new(move |reply| sender.send(reply).unwrap()));
        }
    }
    for long in wanted {
        let reply = answers.recv_timeout(LONG).unwrap();
        match long {
            true => assert_eq!(reply, Ok(Reply::Refused(Refusal::DoesNotFit))),
            false => assert!(is_saved(&reply), "{reply:?}"),
        }
    }
    let user = Aor { user: "u".repeat(65), domain: "example.com".to_owned() };
    let query = save_of(&user, 1, at(0), vec![binding_of(&user, "sip:a@h1", 1, at(0), 60)]);
    assert_eq!(database.ask_and_wait(query), Ok(Reply::Refused(Refusal::DoesNotFit)));
    let body = vec![b'x'; 65_536];
    assert_eq!(
        database.ask_and_wait(Query::Presence(publish(None, "e", Some(&body), at(0), 60))),
        Ok(Reply::Presence(presence::Reply::Refused(Refusal::DoesNotFit)))
    );
    let rows: Vec<(String, u32)> = schema.connect().query("SELECT contact, cseq FROM location").unwrap();
    assert_eq!(rows, [("sip:a@h1".to_owned(), 9)]);
}

/// The server's own settings change neither what a value means nor what is refused.
#[test]
fn the_servers_modes_do_not_matter() {
    let server = MariaDb::start();
    let schema = Schema::new(&server);
    let mut raw = server.connect(None);
    for mode in ["NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT", ""] {
        raw.query_drop(format!("SET GLOBAL sql_mode = '{mode}'")).unwrap();
        raw.query_drop("SET GLOBAL time_zone = '+05:00'").unwrap();
        raw.query_drop("SET GLOBAL autocommit = 0").unwrap();
        let database = open(Some(&schema.url())).unwrap();
        for (number, text) in HOSTILE.iter().enumerate() {
            let (user, domain) = (format!("{number}{text}"), "example.com".to_owned());
            let ask = |query: Query| database.ask_and_wait(query).unwrap();
            let add = Query::UserAdd { user: user.clone(), domain: domain.clone(), secret: secret(text) };
            assert_eq!(ask(add), Reply::Done);
            let query = Query::Secret { user: user.clone(), domain: domain.clone() };
            assert_eq!(ask(query), Reply::Secret(Some(secret(text))), "{mode}: {text}");
            assert_eq!(ask(Query::UserRemove { user, domain }), Reply::Done);
        }
        let mut row = binding("sip:a@h1", 1, at(0), 600);
        row.path = Some("p".repeat(513));
        assert_eq!(
            database.ask_and_wait(save(1, at(0), vec![row])),
            Ok(Reply::Refused(Refusal::DoesNotFit)),
            "{mode}"
        );
        assert!(is_saved(&database.ask_and_wait(a_save(1))));
        let reply = database.ask_and_wait(Query::Bindings { aor: alice(), now: at(0) });
        assert!(matches!(reply, Ok(Reply::Bindings(rows)) if rows[0].expires == at(600)));
        database.ask_and_wait(Query::RemoveBindings { aor: alice(), now: at(0) }).unwrap();
    }
}

/// Runs in a child of its own for each zone, since a process has one: what is in the table is the zone's time, what is read
/// back is the time that was written.
#[test]
fn times_are_the_hosts() {
    const ZONE: &str = "SIPBOX_TEST_TIMES";
    let Ok(wanted) = std::env::var(ZONE) else {
        // Rules instead of names: they need no files of zones. Newfoundland is half an hour off, Auckland beyond noon.
        for (zone, wanted) in [
            ("NST3:30NDT,M3.2.0,M11.1.0", "2023-11-14 18:53:20"),
            ("NZST-12NZDT,M9.5.0,M4.1.0/3", "2023-11-15 11:23:20"),
            ("UTC0", "2023-11-14 22:23:20"),
        ] {
            let done = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::tests::on_mysql::times_are_the_hosts", "--nocapture"])
                .env("TZ", zone)
                .env(ZONE, wanted)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success(), "{zone}: {told}{}", String::from_utf8_lossy(&done.stderr));
            assert!(told.contains("1 passed"), "{zone}: {told}");
        }
        return;
    };
    let schema = schema();
    let database = open(Some(&schema.url())).unwrap();
    let ask = |query: Query| database.ask_and_wait(query).unwrap();
    assert!(is_saved(&Ok(ask(a_save(1)))));
    let mut raw = schema.connect();
    let written: Option<(String, String)> = raw
        .query_first(
            "SELECT CAST(expires AS CHAR), CAST(contact AS CHAR) FROM location WHERE contact = 'sip:a@h1'",
        )
        .unwrap();
    assert_eq!(written.unwrap().0, wanted);
    let expires = |now: At| match ask(Query::Bindings { aor: alice(), now }) {
        Reply::Bindings(rows) => rows.first().map(|row| row.expires),
        other => panic!("{other:?}"),
    };
    assert_eq!(expires(at(599)), Some(at(600)));
    assert_eq!(expires(at(600)), None);
    let gone = |now: At| match ask(Query::Expire { now, limit: 10 }) {
        Reply::Removed(rows) => rows.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((gone(at(599)), gone(at(600))), (0, 1));

    // Every half hour around both changes of Newfoundland's and Auckland's clocks in 2023: what is written is read back, but
    // for the first pass of an hour that comes twice, which counts as the second one. Never an hour too early.
    let hour = 3600;
    let changes = [
        (1_678_599_000, None),
        (1_699_158_600, wanted.starts_with("2023-11-14 18").then_some(1_699_158_600)),
        (1_680_357_600, wanted.starts_with("2023-11-15").then_some(1_680_357_600)),
        (1_695_477_600, None),
    ];
    for (around, doubled) in changes {
        for half in -5..=5 {
            let now = around + half * hour / 2 + 60;
            let unix = At::from_secs(u64::try_from(now).unwrap());
            let one = binding("sip:a@h1", 1, unix - Duration::from_secs(10), 10);
            ask(Query::RemoveBindings { aor: alice(), now: unix });
            ask(save(1, unix - Duration::from_secs(10), vec![one]));
            let read = expires(unix - Duration::from_secs(10)).unwrap();
            let first_pass = doubled.is_some_and(|back| now >= back - hour && now < back);
            let late = if first_pass { hour as u64 } else { 0 };
            assert_eq!(read, unix + Duration::from_secs(late), "{wanted}: {now}");
            if first_pass {
                assert_eq!(gone(unix), 0);
            }
            assert_eq!(gone(unix + Duration::from_secs(late)), 1);
        }
    }
}

#[test]
fn accounts_and_tls_are_as_the_url_says() {
    let schema = schema();
    let server = schema.server;
    let (address, port, name) = (server.address(), server.port(), &schema.name);
    let mut raw = server.connect(None);
    raw.query_drop("CREATE OR REPLACE USER 'tls'@'%' IDENTIFIED BY 'wonderland' REQUIRE SSL").unwrap();
    raw.query_drop("GRANT ALL ON *.* TO 'tls'@'%'").unwrap();
    let ca = server.ca();
    let ca = ca.display();
    let works = [
        format!("mysql://{HARD_USER}:{HARD_PASSWORD_ESCAPED}@{address}:{port}/{name}"),
        format!("mysql://{HARD_USER}:{HARD_PASSWORD_ESCAPED}@/{name}?socket={}", server.socket().display()),
        format!("mysql://tls:wonderland@{address}:{port}/{name}?ssl-ca={ca}"),
    ];
    for url in &works {
        let database = open(Some(url)).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(database.ask_and_wait(Query::Domains), Ok(Reply::Domains(Vec::new())));
    }
    // A certificate that somebody else signed, and the right one for another name.
    let other = MariaDb::start();
    let localhost = "127.0.0.1".parse::<std::net::IpAddr>().unwrap();
    let relay = Relay::start(SocketAddr::from((address, port)), localhost);
    for (url, kind, says) in [
        (format!("mysql://tls:wonderland@{address}:{port}/{name}"), Kind::Config, "grants"),
        (
            format!("mysql://tls:wonderland@{address}:{port}/{name}?ssl-ca={}", other.ca().display()),
            Kind::Config,
            "certificate",
        ),
        (format!("mysql://tls:wonderland@{}/{name}?ssl-ca={ca}", relay.address), Kind::Config, "certificate"),
        (format!("mysql://sipbox:wrong@{address}:{port}/{name}"), Kind::Config, "grants"),
        (format!("mysql://sipbox:wonderland@{address}:{port}/nowhere"), Kind::Config, "CREATE DATABASE"),
        (
            format!("mysql://tls:wonderland@{address}:{port}/{name}?ssl-ca=/no/file"),
            Kind::NoInput,
            "/no/file",
        ),
        (format!("mysql://sipbox:wonderland@{address}:9/{name}"), Kind::Unavailable, "does it run?"),
        (format!("mysql://sipbox:wonderland@/{name}?socket=/no/socket"), Kind::Unavailable, "does it run?"),
    ] {
        let error = refused(&url);
        assert_eq!(error.kind, kind, "{url}: {error}");
        assert!(error.message.contains(says), "{url}: {error}");
    }
}

/// Killed and started again: told at once while it is away, found again, and nothing of what was confirmed is lost.
#[test]
fn a_server_that_goes_and_comes() {
    let server = MariaDb::start();
    let schema = Schema::new(&server);
    let database = open(Some(&schema.url())).unwrap();
    for cseq in 1..4 {
        assert!(is_saved(&database.ask_and_wait(a_save(cseq))));
    }
    server.kill();
    for _ in 0..50 {
        for query in [a_save(9), Query::Bindings { aor: alice(), now: at(0) }] {
            let (answer, took) = timed(&database, query);
            assert!(is_away(&answer) && took < Duration::from_secs(1), "{answer:?} after {took:?}");
        }
    }
    assert_eq!(refused(&schema.url()).kind, Kind::Unavailable);
    server.start_again();
    let began = Instant::now();
    while is_away(&database.ask_and_wait(a_save(4))) {
        assert!(began.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    }
    while is_away(&database.ask_and_wait(Query::Domains)) {
        assert!(began.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    }
    let Ok(Reply::Bindings(rows)) = database.ask_and_wait(Query::Bindings { aor: alice(), now: at(0) })
    else {
        panic!()
    };
    assert_eq!((rows.len(), rows[0].cseq), (1, 4));

    // Frozen, it takes connections and does not answer: our time-outs end that, below the machines' own.
    server.freeze();
    let (answer, took) = timed(&database, a_save(5));
    assert!(is_away(&answer) && took < Duration::from_secs(4), "{answer:?} after {took:?}");
    server.thaw();
    let began = Instant::now();
    while is_away(&timed(&database, a_save(6)).0) {
        assert!(began.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    }

    // A server ends connections that were idle for long: nobody notices.
    let mut raw = schema.connect();
    let idle: Vec<u64> = raw
        .query(
            "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user = 'sipbox'",
        )
        .unwrap();
    assert!(!idle.is_empty());
    for id in idle {
        // One may be of a connection that was given up, and gone by now.
        let _ = raw.query_drop(format!("KILL {id}"));
    }
    assert!(is_saved(&database.ask_and_wait(a_save(7))));
    assert_eq!(database.ask_and_wait(Query::Domains), Ok(Reply::Domains(Vec::new())));
}

/// The server is killed while it writes, and what it confirmed is there when it is back.
#[test]
fn what_was_confirmed_survives_the_servers_end() {
    let server = MariaDb::start();
    let schema = Schema::new(&server);
    let database = open(Some(&schema.url())).unwrap();
    let mut confirmed = Vec::new();
    for round in 0..3 {
        let (sender, answers) = channel();
        let writer = database.clone();
        let thread = std::thread::spawn(move || {
            for number in 0..100_000 {
                let aor = Aor { user: format!("user{round}-{number}"), domain: "example.com".to_owned() };
                let query = save_of(&aor, 1, at(0), vec![binding_of(&aor, "sip:a@h1", 1, at(0), 600)]);
                let answer = writer.ask_and_wait(query);
                if !is_saved(&answer) {
                    return answer;
                }
                sender.send(aor.user).unwrap();
            }
            panic!("it was never killed");
        });
        // Not before some are in, and in the middle of whatever comes next.
        let first: Vec<String> = answers.iter().take(20 + 7 * round).collect();
        server.kill();
        assert!(is_away(&thread.join().unwrap()));
        confirmed.extend(first.into_iter().chain(answers.iter()));
        server.start_again();
        let stored: Vec<String> = schema.connect().query("SELECT username FROM location").unwrap();
        let lost: Vec<&String> = confirmed.iter().filter(|user| !stored.contains(user)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        let began = Instant::now();
        while is_away(&database.ask_and_wait(a_save(round as u32 + 1))) {
            assert!(began.elapsed() < LONG);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What arrives while a commit runs goes into the next one, all together.
#[test]
fn changes_are_committed_in_groups() {
    const CHANGES: u32 = 300;
    let server = MariaDb::start();
    let schema = Schema::new(&server);
    let database = open(Some(&schema.url())).unwrap();
    let commits = || -> u32 {
        let text = "SHOW GLOBAL STATUS LIKE 'Com_commit'";
        schema.connect().query_first::<(String, u32), _>(text).unwrap().unwrap().1
    };
    let before = commits();
    let (sender, answers) = channel();
    for cseq in 1..=CHANGES {
        let sender = sender.clone();
        database.put(a_save(cseq), Box::new(move |reply| sender.send(reply).unwrap()));
    }
    for _ in 0..CHANGES {
        assert!(is_saved(&answers.recv_timeout(LONG).unwrap()));
    }
    let after = commits() - before;
    assert!((1..=CHANGES / 3).contains(&after), "{after} commits for {CHANGES} changes");
}

/// Whoever is told that it is done, finds it; whoever is not, may or may not. Both ways that a connection can be cut at the
/// commit: before the server had it, and after.
#[test]
fn a_commit_that_is_cut_is_no_ok() {
    let schema = schema();
    let target = SocketAddr::from((schema.server.address(), schema.server.port()));
    let relay = Relay::start(target, std::net::IpAddr::from([127, 0, 0, 1]));
    let url = format!("mysql://sipbox:wonderland@{}/{}", relay.address, schema.name);
    let database = open(Some(&url)).unwrap();
    assert!(is_saved(&database.ask_and_wait(a_save(1))));
    for (cut, cseq, is_done) in [(Cut::Before, 2, false), (Cut::After, 3, true)] {
        *relay.cut.lock().unwrap() = Some(cut);
        let (answer, took) = timed(&database, a_save(cseq));
        assert!(is_away(&answer), "{cut:?}: {answer:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(*relay.cut.lock().unwrap(), None, "it was cut");
        let stored: Option<u32> = schema.connect().query_first("SELECT cseq FROM location").unwrap();
        assert_eq!(stored == Some(cseq), is_done, "{cut:?}");
        // It goes on by itself.
        let (answer, _) = timed(&database, a_save(10 + cseq));
        assert!(is_saved(&answer), "{answer:?}");
        let (answer, _) = timed(&database, Query::RemoveBindings { aor: alice(), now: at(0) });
        assert!(answer.is_ok());
        let (answer, _) = timed(&database, a_save(1));
        assert!(is_saved(&answer));
    }
}

/// One that has to make way is carried out again, as often as it takes within bounds.
#[test]
fn deadlocks_and_locks_are_tried_again() {
    let schema = schema();
    let database = open(Some(&schema.url())).unwrap();
    for call_id in ["a", "b"] {
        let row = Box::new(subscription(call_id, at(600)));
        let query = Query::Presence(presence::Query::Subscribe { row, now: at(0) });
        assert_eq!(database.ask_and_wait(query), Ok(Reply::Presence(presence::Reply::Done)));
    }
    let mut other = schema.connect();
    other.query_drop("CREATE TABLE heavy (a INT)").unwrap();
    let deadlocks = |other: &mut ::mysql::Conn| -> u64 {
        other
            .query_first::<(String, u64), _>("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
            .unwrap()
            .unwrap()
            .1
    };
    let before = deadlocks(&mut other);
    // On a machine that is busy the two may miss each other: then once more.
    for round in 0..5 {
        // The one with more changes wins: this one.
        other.query_drop("START TRANSACTION").unwrap();
        other.query_drop("INSERT INTO heavy SELECT seq FROM seq_1_to_500").unwrap();
        other.query_drop("UPDATE active_watchers SET version = 7 WHERE callid = 'b'").unwrap();
        let counted = vec![(dialog_key("a"), 40 + round, 41), (dialog_key("b"), 50 + round, 51)];
        let (sender, answer) = channel();
        let query = Query::Presence(presence::Query::Counted(counted));
        database.put(query, Box::new(move |reply| sender.send(reply).unwrap()));
        let mut watch = schema.connect();
        let began = Instant::now();
        let waits = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
        while watch.query_first::<u32, _>(waits).unwrap() == Some(0)
            && began.elapsed() < Duration::from_secs(1)
        {
            // The server looks again only when nobody asked for a tenth of a second.
            std::thread::sleep(Duration::from_millis(150));
        }
        other.query_drop("UPDATE active_watchers SET version = 8 WHERE callid = 'a'").unwrap();
        other.query_drop("COMMIT").unwrap();
        assert_eq!(answer.recv_timeout(LONG), Ok(Ok(Reply::Presence(presence::Reply::Done))));
        let rows: Vec<(u32, u32)> =
            other.query("SELECT local_cseq, version FROM active_watchers ORDER BY callid").unwrap();
        assert_eq!(rows, [(40 + round, 41), (50 + round, 51)]);
        if deadlocks(&mut other) > before {
            break;
        }
    }
    assert!(deadlocks(&mut other) > before, "there was no deadlock");

    // A row that somebody holds for longer than one wait for it, and for longer than all.
    assert!(is_saved(&database.ask_and_wait(a_save(1))));
    for (holds, wanted) in [(1500, true), (6000, false)] {
        other.query_drop("START TRANSACTION").unwrap();
        other.query_drop("UPDATE location SET cflags = 1").unwrap();
        let (sender, answer) = channel();
        database.put(a_save(2), Box::new(move |reply| sender.send(reply).unwrap()));
        let early = answer.recv_timeout(Duration::from_millis(holds));
        other.query_drop("COMMIT").unwrap();
        match wanted {
            true => {
                assert_eq!(early, Err(RecvTimeoutError::Timeout));
                assert!(is_saved(&answer.recv_timeout(LONG).unwrap()));
            }
            false => assert!(is_away(&early.unwrap())),
        }
    }
}

/// Where the relay cuts a connection that commits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Before,
    After,
}

/// Passes bytes on to a server, and cuts the connection that sends COMMIT, once, where it was told to.
struct Relay {
    address: SocketAddr,
    cut: Arc<Mutex<Option<Cut>>>,
}

impl Relay {
    /// Ends with the process.
    fn start(target: SocketAddr, on: std::net::IpAddr) -> Relay {
        let listener = TcpListener::bind((on, 0)).unwrap();
        let relay = Relay { address: listener.local_addr().unwrap(), cut: Arc::default() };
        let cut = relay.cut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(target).unwrap();
                let cut = cut.clone();
                std::thread::spawn(move || pass(client, server, &cut));
            }
        });
        relay
    }
}

fn pass(mut client: TcpStream, mut server: TcpStream, cut: &Mutex<Option<Cut>>) {
    let (mut back_from, mut back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let closed = Arc::new(Mutex::new(false));
    let is_closed = closed.clone();
    let back = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = back_from.read(&mut buffer) {
            if *is_closed.lock().unwrap() || back_to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = back_to.shutdown(std::net::Shutdown::Both);
    });
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let commits = buffer[..length].windows(6).any(|word| word == b"COMMIT");
        let now = if commits { cut.lock().unwrap().take() } else { None };
        if now.is_some() {
            *closed.lock().unwrap() = true;
        }
        if now == Some(Cut::Before) || server.write_all(&buffer[..length]).is_err() {
            break;
        }
        if now == Some(Cut::After) {
            // Until the server has answered, which nobody gets.
            let _ = back.join();
            return;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = back.join();
}
