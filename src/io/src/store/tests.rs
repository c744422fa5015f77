//! SQLite against the reference store, the files it makes, and the ones it refuses.

use super::*;
use rusqlite::Connection;
use sipbox_core::sip::Aor;
use sipbox_core::store::memory::Memory;
use sipbox_core::store::{Binding, Contacts, Refusal, Save, Secret, ruid};
use sipbox_core::time::Instant as At;
use std::sync::atomic::{AtomicU32, Ordering};

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sipbox-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("a.db")
    }

    fn open(&self) -> Result<Database, StartError> {
        open(Some(&format!("sqlite:{}", self.file().display())))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn at(seconds: u64) -> At {
    At::from_secs(1_700_000_000 + seconds)
}

fn alice() -> Aor {
    Aor::parse("alice@example.com").unwrap()
}

fn binding(contact: &str, cseq: u32, now: At, lives: u64) -> Binding {
    Binding {
        ruid: ruid(&alice(), None, 0, contact),
        contact: contact.to_owned(),
        received: Some("sip:192.0.2.1:5060".to_owned()),
        path: Some("<sip:TOKEN@192.0.2.9;lr>".to_owned()),
        expires: now + Duration::from_secs(lives),
        q: Some(500),
        call_id: "c1".to_owned(),
        cseq,
        modified: now,
        cflags: 64,
        user_agent: "test".to_owned(),
        socket: Some("udp:192.0.2.50:5060".to_owned()),
        methods: Some(5951),
        instance: None,
        reg_id: 0,
    }
}

fn save(cseq: u32, now: At, contacts: Vec<Binding>) -> Query {
    Query::Save(Box::new(Save {
        aor: alice(),
        now,
        call_id: "c1".to_owned(),
        cseq,
        contacts: Contacts::Each(contacts),
        max_contacts: 2,
    }))
}

fn secret(text: &str) -> Secret {
    Secret { password: String::new(), ha1: text.to_owned(), ha1b: format!("{text}b") }
}

#[test]
fn answers_as_the_reference_does() {
    let dir = Dir::new();
    let database = dir.open().unwrap();
    let mut reference = Memory::new();
    let user = |user: &str| (user.to_owned(), "example.com".to_owned());
    let add = |name, text| {
        let (user, domain) = user(name);
        Query::UserAdd { user, domain, secret: secret(text) }
    };
    let bindings = |now| Query::Bindings { aor: alice(), now };
    let mut unset = binding("sip:a@h2", 4, at(9), 60);
    (unset.q, unset.path, unset.received, unset.methods, unset.socket) = (None, None, None, None, None);
    (unset.instance, unset.reg_id) = (Some("<urn:uuid:1>".to_owned()), 2);
    unset.ruid = ruid(&alice(), Some("<urn:uuid:1>"), 2, "sip:a@h2");
    let queries = [
        add("alice", "one"),
        add("alice", "two"),
        add("bob", "three"),
        Query::UserPassword { user: "alice".into(), domain: "EXAMPLE.com".into(), secret: secret("new") },
        Query::UserPassword { user: "carol".into(), domain: "example.com".into(), secret: secret("new") },
        Query::Secret { user: "alice".into(), domain: "example.com".into() },
        Query::Secret { user: "Alice".into(), domain: "example.com".into() },
        Query::Users { of: None },
        Query::Users { of: Some(alice()) },
        save(1, at(0), vec![binding("sip:a@h1", 1, at(0), 60)]),
        save(1, at(1), vec![binding("sip:a@h1", 1, at(1), 60)]),
        save(2, at(2), vec![binding("sip:a@h1", 2, at(2), 60)]),
        save(3, at(3), vec![binding("sip:a@h2", 3, at(3), 30)]),
        bindings(at(4)),
        bindings(at(40)),
        save(4, at(9), vec![unset]),
        Query::Contacts { aor: None, now: at(10) },
        Query::RemoveFlow { aor: alice(), token: "OTHER".into(), now: at(10) },
        Query::RemoveFlow { aor: alice(), token: "TOKEN".into(), now: at(10) },
        bindings(at(10)),
        Query::Expire { now: at(69), limit: 10 },
        Query::Expire { now: at(69), limit: 10 },
        save(9, at(70), vec![binding("sip:a@h3", 9, at(70), 60), binding("sip:a@h4", 9, at(70), 60)]),
        save(10, at(70), vec![binding("sip:a@h5", 10, at(71), 0)]),
        Query::RemoveContact { contact: "sip:a@h3".into(), now: at(71) },
        Query::RemoveBindings { aor: alice(), now: at(71) },
        bindings(at(71)),
        Query::Domains,
        Query::UserRemove { user: "bob".into(), domain: "example.com".into() },
        Query::UserRemove { user: "bob".into(), domain: "example.com".into() },
        Query::Users { of: None },
    ];
    for query in queries {
        let wanted = reference.ask(query.clone());
        assert_eq!(database.ask_and_wait(query.clone()), Ok(wanted), "{query:?}");
    }
}

#[test]
fn what_was_answered_is_there_for_the_next_one() {
    let dir = Dir::new();
    dir.open().unwrap().ask_and_wait(save(1, at(0), vec![binding("sip:a@h1", 1, at(0), 60)])).unwrap();
    let reply = dir.open().unwrap().ask_and_wait(Query::Bindings { aor: alice(), now: at(1) });
    assert!(matches!(reply, Ok(Reply::Bindings(rows)) if rows.len() == 1));
    let raw = Connection::open(dir.file()).unwrap();
    let (julian, kind): (f64, String) = raw
        .query_row("SELECT expires, typeof(expires) FROM location", [], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap();
    assert_eq!(kind, "real");
    assert!((julian - (1_700_000_060.0 / 86_400.0 + 2_440_587.5)).abs() < 1e-6);
}

#[test]
fn many_at_once_are_all_answered() {
    let dir = Dir::new();
    let database = dir.open().unwrap();
    let (sender, answers) = channel();
    for i in 0..200 {
        let sender = sender.clone();
        let contact = format!("sip:a@h{}", i % 2);
        let query = save(i + 1, at(0), vec![binding(&contact, i + 1, at(0), 60)]);
        database.put(query, Box::new(move |reply| sender.send((i, reply)).unwrap()));
    }
    drop(sender);
    let all: Vec<_> = answers.iter().collect();
    assert_eq!(all.len(), 200);
    assert!(all.iter().enumerate().all(|(n, (i, r))| n as u32 == *i && matches!(r, Ok(Reply::Saved(_)))));
}

#[test]
fn takes_over_rows_of_a_kamailio() {
    let dir = Dir::new();
    let database = dir.open().unwrap();
    let raw = Connection::open(dir.file()).unwrap();
    raw.execute_batch(
        "INSERT INTO domain (domain) VALUES ('Example.COM');
         INSERT INTO location (ruid, username, domain, contact, expires, callid, cseq) VALUES
            ('uloc-1', 'alice', NULL, 'sip:a@h1', 2460266.0, 'c1', 1),
            ('uloc-2', 'alice', 'example.com', 'sip:a@h2', '2023-11-16 00:00:00', 'c0', 1),
            ('uloc-3', 'alice', 'example.com', 'sip:a@h3', 2440587.5, 'c0', 1),
            ('uloc-4', 'alice', 'example.com', 'sip:a@h4', 1700100000, 'c0', 1);",
    )
    .unwrap();
    assert_eq!(database.ask_and_wait(Query::Domains), Ok(Reply::Domains(vec!["example.com".to_owned()])));
    let Ok(Reply::Bindings(rows)) = database.ask_and_wait(Query::Bindings { aor: alice(), now: at(0) })
    else {
        panic!()
    };
    let mut seen: Vec<(&str, u64)> =
        rows.iter().map(|r| (r.contact.as_str(), r.expires.unix_secs())).collect();
    seen.sort();
    assert_eq!(seen[0], ("sip:a@h1", 1_700_222_400));
    assert_eq!(seen[1], ("sip:a@h2", 1_700_092_800));
    assert!(seen[2].1 > 4_000_000_000);
    assert_eq!(seen[3], ("sip:a@h4", 1_700_100_000));
    // A refresh replaces Kamailio's row, whatever its ruid.
    let aor = alice();
    let mut query = save(2, at(0), vec![binding("sip:a@h1", 2, at(0), 60)]);
    if let Query::Save(save) = &mut query {
        save.max_contacts = 10;
    }
    let Ok(Reply::Saved(saved)) = database.ask_and_wait(query) else { panic!() };
    assert_eq!(saved.bindings.iter().filter(|b| b.contact == "sip:a@h1").count(), 1);
    // Text expires too; what is permanent stays.
    let Ok(Reply::Removed(gone)) = database.ask_and_wait(Query::Expire { now: at(1_000_000), limit: 10 })
    else {
        panic!()
    };
    assert_eq!(gone.len(), 3);
    let left = database.ask_and_wait(Query::Bindings { aor, now: at(1_000_000) });
    assert!(matches!(left, Ok(Reply::Bindings(rows)) if rows.len() == 1 && rows[0].contact == "sip:a@h3"));
}

#[test]
fn refuses_newer_and_other_files() {
    for sql in [
        "UPDATE version SET table_version = 10 WHERE table_name = 'location'",
        "UPDATE sipbox_version SET version = 2",
    ] {
        let dir = Dir::new();
        drop(dir.open().unwrap());
        Connection::open(dir.file()).unwrap().execute_batch(sql).unwrap();
        let Err(error) = dir.open() else { panic!("{sql}: opened") };
        assert_eq!(error.kind, Kind::Config, "{error}");
    }
    let dir = Dir::new();
    std::fs::write(dir.file(), "this is no database, and long enough to be sure of it".repeat(50)).unwrap();
    assert!(matches!(dir.open(), Err(error) if error.kind == Kind::Data));
    assert!(matches!(open(Some("mysql://a@b/c")), Err(error) if error.kind == Kind::Usage));
    assert!(matches!(open(Some("sqlite:/nowhere/at/all.db")), Err(error) if error.kind == Kind::NoInput));
}

#[test]
fn a_locked_database_is_unavailable_and_then_goes_on() {
    let dir = Dir::new();
    let database = dir.open().unwrap();
    let other = Connection::open(dir.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let query = || save(1, at(0), vec![binding("sip:a@h1", 1, at(0), 60)]);
    assert!(matches!(database.ask_and_wait(query()), Err(Error::Unavailable(_))));
    // Look-ups go on meanwhile.
    assert_eq!(
        database.ask_and_wait(Query::Bindings { aor: alice(), now: at(0) }),
        Ok(Reply::Bindings(Vec::new()))
    );
    other.execute_batch("ROLLBACK").unwrap();
    assert!(matches!(database.ask_and_wait(query()), Ok(Reply::Saved(_))));
}

/// The same questions to SQLite and to the reference store: the same answers.
#[test]
fn presence_is_as_in_the_reference_store() {
    use sipbox_core::store::presence::{self, DialogKey, Package, Publish, Subscription};
    let dir = Dir::new();
    let sqlite = dir.open().unwrap();
    let mut memory = Memory::new();
    let mut both = |query: presence::Query| {
        let query = Query::Presence(query);
        let reply = sqlite.ask_and_wait(query.clone()).unwrap();
        assert_eq!(reply, memory.ask(query.clone()), "{query:?}");
        match reply {
            Reply::Presence(reply) => reply,
            other => panic!("{other:?}"),
        }
    };
    let key = |call_id: &str| DialogKey {
        call_id: call_id.to_owned(),
        local_tag: "ours".to_owned(),
        remote_tag: "theirs".to_owned(),
    };
    let row = |call_id: &str, expires| Subscription {
        key: key(call_id),
        presentity: alice(),
        package: Package::Dialog,
        event_id: Some("7".to_owned()),
        watcher: Aor::parse("bob@example.com").unwrap(),
        to: alice(),
        local_cseq: 1,
        remote_cseq: 2,
        contact: "sip:bob@192.0.2.1;alias=192.0.2.1~5062~1".to_owned(),
        record_route: Some("<sip:192.0.2.10;lr>".to_owned()),
        expires,
        version: 3,
        socket: "udp:192.0.2.52:5060".to_owned(),
        local_contact: "sip:192.0.2.52:5060".to_owned(),
        user_agent: "test".to_owned(),
    };
    let publish = |if_match: Option<&str>, etag: &str, body: Option<&str>, now: At, lives: u64| {
        presence::Query::Publish(Box::new(Publish {
            presentity: alice(),
            package: Package::Presence,
            if_match: if_match.map(str::to_owned),
            etag: etag.to_owned(),
            body: body.map(|body| body.as_bytes().to_vec()),
            expires: now + Duration::from_secs(lives),
            now,
            sender: "sip:alice@example.com".to_owned(),
        }))
    };
    let all = |now| presence::Query::Subscriptions { of: None, now };
    let states = |now| presence::Query::States { of: vec![alice()], now };
    for call_id in ["a", "b"] {
        both(presence::Query::Subscribe { row: Box::new(row(call_id, at(600))), now: at(0) });
    }
    both(presence::Query::Subscribe { row: Box::new(row("a", at(900))), now: at(1) });
    both(presence::Query::Counted(vec![(key("b"), 40, 41)]));
    assert!(matches!(both(all(at(599))), presence::Reply::Subscriptions(rows) if rows.len() == 2));
    assert!(matches!(both(all(at(600))), presence::Reply::Subscriptions(rows) if rows.len() == 1));
    both(publish(None, "e1", Some("<one/>"), at(0), 60));
    both(publish(None, "e2", Some("<two/>"), at(1), 60));
    both(publish(Some("e1"), "e3", None, at(2), 60));
    both(states(at(3)));
    assert_eq!(
        both(publish(Some("e1"), "e4", None, at(3), 60)),
        presence::Reply::Refused(Refusal::NoSuchTag)
    );
    both(publish(Some("e2"), "e5", None, at(4), 0));
    both(states(at(5)));
    both(presence::Query::Publications { of: None, now: at(5) });
    both(states(at(62)));
    both(presence::Query::Unsubscribe(vec![key("b"), key("unknown")]));
    both(all(at(5)));

    // The watcher's mark goes with his last subscription, not before; what expired leaves nothing.
    let count = |table: &str| -> i64 {
        let connection = Connection::open(dir.file()).unwrap();
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("active_watchers"), count("watchers"), count("presentity")), (1, 1, 1));
    both(presence::Query::Expire { now: at(2000), limit: 10 });
    assert_eq!((count("active_watchers"), count("watchers"), count("presentity")), (0, 0, 0));
}

/// Each would wait for the lock by itself else: the last of these for twenty times as long as the first.
#[test]
fn all_who_wait_for_a_locked_database_are_told_at_once() {
    let dir = Dir::new();
    let database = dir.open().unwrap();
    let other = Connection::open(dir.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (told, answers) = channel();
    for number in 0..20 {
        let told = told.clone();
        let query = save(number, at(0), vec![binding("sip:a@h1", number, at(0), 60)]);
        database.put(query, Box::new(move |answer| drop(told.send(answer))));
    }
    for _ in 0..20 {
        let answer = answers.recv_timeout(Duration::from_secs(8)).unwrap();
        assert!(matches!(answer, Err(Error::Unavailable(_))));
    }
    other.execute_batch("ROLLBACK").unwrap();
    let query = save(30, at(0), vec![binding("sip:a@h1", 30, at(0), 60)]);
    assert!(matches!(database.ask_and_wait(query), Ok(Reply::Saved(_))));
}
