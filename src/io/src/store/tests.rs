//! One battery of cases over the reference store, SQLite and MySQL, and below it what each database has for itself.

use super::*;
use crate::start::StartError;
use sipbox_core::sip::Aor;
use sipbox_core::store::memory::Memory;
use sipbox_core::store::presence::{self, DialogKey, Package, Publish, Subscription};
use sipbox_core::store::{Binding, Contacts, Refusal, Save, Secret, ruid};
use sipbox_core::time::Instant as At;
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

#[path = "../../../../tests/harness/mariadb.rs"]
mod mariadb;
mod on_mysql;
mod on_sqlite;

use mariadb::{MariaDb, Schema};

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

    fn url(&self) -> String {
        format!("sqlite:{}", self.file().display())
    }

    fn open(&self) -> Result<Database, StartError> {
        open(Some(&self.url()))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store under test, with what holds it.
enum Store {
    Memory(RefCell<Box<Memory>>),
    Sqlite(Dir, Database),
    MySql(Schema<'static>, Database),
}

impl Store {
    fn memory() -> Store {
        Store::Memory(RefCell::default())
    }

    fn sqlite() -> Store {
        let dir = Dir::new();
        let database = dir.open().unwrap();
        Store::Sqlite(dir, database)
    }

    fn mysql() -> Store {
        let schema = MariaDb::shared().schema();
        let database = open(Some(&schema.url())).unwrap();
        Store::MySql(schema, database)
    }

    fn ask(&self, query: Query) -> Reply {
        match self {
            Store::Memory(memory) => memory.borrow_mut().ask(query),
            Store::Sqlite(_, database) | Store::MySql(_, database) => database.ask_and_wait(query).unwrap(),
        }
    }

    /// The database, or nothing of the reference store, which has no threads and no second door.
    fn database(&self) -> Option<&Database> {
        match self {
            Store::Memory(_) => None,
            Store::Sqlite(_, database) | Store::MySql(_, database) => Some(database),
        }
    }

    /// The same rows, as another process sees them.
    fn open_again(&self) -> Option<Database> {
        match self {
            Store::Memory(_) => None,
            Store::Sqlite(dir, _) => Some(dir.open().unwrap()),
            Store::MySql(schema, _) => Some(open(Some(&schema.url())).unwrap()),
        }
    }

    /// One statement behind its back.
    fn sql(&self, statement: &str) {
        match self {
            Store::Memory(_) => {}
            Store::Sqlite(dir, _) => {
                rusqlite::Connection::open(dir.file()).unwrap().execute_batch(statement).unwrap();
            }
            Store::MySql(schema, _) => {
                ::mysql::prelude::Queryable::query_drop(&mut schema.connect(), statement).unwrap();
            }
        }
    }

    fn count(&self, table: &str) -> Option<i64> {
        let text = format!("SELECT count(*) FROM {table}");
        match self {
            Store::Memory(_) => None,
            Store::Sqlite(dir, _) => {
                let raw = rusqlite::Connection::open(dir.file()).unwrap();
                Some(raw.query_row(&text, [], |row| row.get(0)).unwrap())
            }
            Store::MySql(schema, _) => {
                ::mysql::prelude::Queryable::query_first(&mut schema.connect(), text).unwrap()
            }
        }
    }
}

/// Each case on each store, as a test of its own.
macro_rules! battery {
    ($($case:ident)*) => {
        mod battery_memory { $(#[test] fn $case() { super::$case(&super::Store::memory()); })* }
        mod battery_sqlite { $(#[test] fn $case() { super::$case(&super::Store::sqlite()); })* }
        mod battery_mysql { $(#[test] fn $case() { super::$case(&super::Store::mysql()); })* }
    };
}

battery! {
    answers_as_the_reference_does
    any_letter_comes_back_as_it_was
    names_are_told_apart_by_case
    many_bindings
    presence_is_as_in_the_reference
    many_at_once_are_all_answered
    a_query_that_fails_fails_alone
    what_was_answered_is_there_for_the_next_one
    two_writers_do_not_lose_or_double
    two_writers_take_a_rush_of_new_users
}

fn at(seconds: u64) -> At {
    At::from_secs(1_700_000_000 + seconds)
}

fn alice() -> Aor {
    Aor::parse("alice@example.com").unwrap()
}

fn binding(contact: &str, cseq: u32, now: At, lives: u64) -> Binding {
    binding_of(&alice(), contact, cseq, now, lives)
}

fn binding_of(aor: &Aor, contact: &str, cseq: u32, now: At, lives: u64) -> Binding {
    Binding {
        ruid: ruid(aor, None, 0, contact),
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
    save_of(&alice(), cseq, now, contacts)
}

fn save_of(aor: &Aor, cseq: u32, now: At, contacts: Vec<Binding>) -> Query {
    Query::Save(Box::new(Save {
        aor: aor.clone(),
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

/// Asks the store and a fresh reference the same, in the same order.
fn as_reference(store: &Store, queries: impl IntoIterator<Item = Query>) {
    let mut reference = Memory::new();
    for query in queries {
        let wanted = reference.ask(query.clone());
        assert_eq!(store.ask(query.clone()), wanted, "{query:?}");
    }
}

fn answers_as_the_reference_does(store: &Store) {
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
    let mut edges = binding("sip:a@h2", 5, at(9), 60);
    (edges.q, edges.cflags, edges.methods, edges.cseq) = (Some(0), u32::MAX, Some(u32::MAX), i32::MAX as u32);
    let same_secret =
        || Query::UserPassword { user: "alice".into(), domain: "EXAMPLE.com".into(), secret: secret("new") };
    as_reference(
        store,
        [
            add("alice", "one"),
            add("alice", "two"),
            add("bob", "three"),
            same_secret(),
            // Changed to what it is: changed all the same.
            same_secret(),
            Query::UserPassword { user: "carol".into(), domain: "example.com".into(), secret: secret("new") },
            Query::Secret { user: "alice".into(), domain: "example.com".into() },
            Query::Users { of: None },
            Query::Users { of: Some(alice()) },
            Query::Users { of: Some(Aor { user: String::new(), domain: "example.com".into() }) },
            Query::Users { of: Some(Aor { user: String::new(), domain: "example.org".into() }) },
            save(1, at(0), vec![binding("sip:a@h1", 1, at(0), 60)]),
            save(1, at(1), vec![binding("sip:a@h1", 1, at(1), 60)]),
            save(2, at(2), vec![binding("sip:a@h1", 2, at(2), 60)]),
            save(3, at(3), vec![binding("sip:a@h2", 3, at(3), 30)]),
            bindings(at(4)),
            bindings(at(40)),
            save(4, at(9), vec![unset]),
            Query::Contacts { aor: None, now: at(10) },
            Query::Contacts { aor: Some(alice()), now: at(10) },
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
            save(11, at(72), vec![edges]),
            bindings(at(72)),
            Query::Domains,
            Query::UserRemove { user: "bob".into(), domain: "example.com".into() },
            Query::UserRemove { user: "bob".into(), domain: "example.com".into() },
            // His bindings go with him.
            Query::UserRemove { user: "alice".into(), domain: "example.com".into() },
            bindings(at(72)),
            Query::Users { of: None },
        ],
    );
}

/// What would end a string in SQL, what is a pattern, what is nothing in C, and what takes four bytes.
const HOSTILE: [&str; 6] = [
    "a'b\"c`d",
    "back\\slash\\'; DROP TABLE location; -- ",
    "nul\0nul",
    "100%_?:1$1",
    "Ünïcødé",
    "😀𐍈\u{10ffff}",
];

fn any_letter_comes_back_as_it_was(store: &Store) {
    let mut queries = Vec::new();
    for (number, text) in HOSTILE.iter().enumerate() {
        let aor = Aor { user: (*text).to_owned(), domain: "example.com".to_owned() };
        let mut row = binding_of(&aor, &format!("sip:{text}@h1"), 1, at(0), 60);
        for field in [&mut row.received, &mut row.path, &mut row.socket, &mut row.instance] {
            *field = Some(format!("<{text}>"));
        }
        row.call_id = format!("c1{text}");
        row.user_agent = (*text).to_owned();
        row.ruid = ruid(&aor, None, 0, &row.contact);
        let contact = row.contact.clone();
        let (user, domain) = (aor.user.clone(), aor.domain.clone());
        let mut wanted = secret(text);
        wanted.password = format!("{text}{number}");
        queries.extend([
            Query::UserAdd { user: user.clone(), domain: domain.clone(), secret: wanted },
            Query::Secret { user, domain },
            save_of(&aor, 1, at(0), vec![row.clone()]),
            save_of(&aor, 2, at(1), vec![row]),
            Query::Bindings { aor: aor.clone(), now: at(1) },
            Query::RemoveContact { contact: contact.replace("sip:", "sip:x"), now: at(1) },
            Query::Contacts { aor: Some(aor), now: at(1) },
        ]);
        if number % 2 == 1 {
            queries.push(Query::RemoveContact { contact, now: at(1) });
        }
    }
    // The widest that the columns take, in letters, not in bytes.
    let mut wide = binding(&format!("sip:{}@h1", "é".repeat(505)), 1, at(0), 60);
    assert_eq!(wide.contact.chars().count(), 512);
    wide.path = Some("😀".repeat(512));
    (wide.call_id, wide.user_agent) = ("ü".repeat(255), "\\".repeat(255));
    queries.push(save(1, at(0), vec![wide]));
    queries.extend([Query::Users { of: None }, Query::Contacts { aor: None, now: at(1) }]);
    // A document is bytes, whatever they are.
    let body: Vec<u8> = (0..=255).collect();
    for text in HOSTILE {
        queries.push(Query::Presence(publish(None, text, Some(&body), at(0), 60)));
    }
    queries.push(Query::Presence(presence::Query::Publications { of: None, now: at(1) }));
    as_reference(store, queries);
}

fn names_are_told_apart_by_case(store: &Store) {
    let upper = Aor { user: "Alice".to_owned(), domain: "example.com".to_owned() };
    let add = |user: &str| Query::UserAdd {
        user: user.to_owned(),
        domain: "example.com".to_owned(),
        secret: secret(user),
    };
    let user = |user: &str| (user.to_owned(), "example.com".to_owned());
    let (name, domain) = user("ALICE");
    as_reference(
        store,
        [
            add("alice"),
            add("Alice"),
            Query::Secret { user: name.clone(), domain: domain.clone() },
            Query::UserPassword { user: name.clone(), domain: domain.clone(), secret: secret("x") },
            Query::UserRemove { user: name, domain: domain.clone() },
            Query::Secret { user: "Alice".to_owned(), domain },
            save(1, at(0), vec![binding("sip:a@h1", 1, at(0), 60)]),
            save_of(&upper, 1, at(0), vec![binding_of(&upper, "sip:a@h1", 1, at(0), 60)]),
            Query::Bindings { aor: alice(), now: at(1) },
            Query::Bindings { aor: upper.clone(), now: at(1) },
            Query::RemoveContact { contact: "sip:A@h1".to_owned(), now: at(1) },
            Query::RemoveBindings { aor: upper, now: at(1) },
            Query::Users { of: None },
            Query::Contacts { aor: None, now: at(1) },
        ],
    );
}

fn many_bindings(store: &Store) {
    let mut queries = Vec::new();
    for user in 0..60 {
        let aor = Aor { user: format!("user{user}"), domain: "example.com".to_owned() };
        let row = |contact: u64| {
            let uri = format!("sip:{user}@h{contact}");
            binding_of(&aor, &uri, 1, at(0), 60 + 10 * contact)
        };
        let contacts = (0..10).map(row).collect();
        let mut query = save_of(&aor, 1, at(0), contacts);
        if let Query::Save(save) = &mut query {
            save.max_contacts = 10;
        }
        queries.extend([query, Query::Bindings { aor, now: at(1) }]);
    }
    queries.push(Query::Contacts { aor: None, now: at(100) });
    as_reference(store, queries);
    // By tens, the oldest first or not: none twice, none left, and none that lives.
    let mut gone = 0;
    for round in 0.. {
        let Reply::Removed(rows) = store.ask(Query::Expire { now: at(100), limit: 77 }) else { panic!() };
        assert!(rows.len() <= 77 && rows.iter().all(|(_, row)| row.expires <= at(100)));
        gone += rows.len();
        if rows.is_empty() {
            assert!(round > 3);
            break;
        }
    }
    assert_eq!(gone, 60 * 5);
    let Reply::Contacts(left) = store.ask(Query::Contacts { aor: None, now: at(0) }) else { panic!() };
    assert_eq!(left.len(), 60 * 5);
}

fn publish(if_match: Option<&str>, etag: &str, body: Option<&[u8]>, now: At, lives: u64) -> presence::Query {
    presence::Query::Publish(Box::new(Publish {
        presentity: alice(),
        package: Package::Presence,
        if_match: if_match.map(str::to_owned),
        etag: etag.to_owned(),
        body: body.map(<[u8]>::to_vec),
        expires: now + Duration::from_secs(lives),
        now,
        sender: "sip:alice@example.com".to_owned(),
    }))
}

fn dialog_key(call_id: &str) -> DialogKey {
    DialogKey { call_id: call_id.to_owned(), local_tag: "ours".to_owned(), remote_tag: "theirs".to_owned() }
}

fn subscription(call_id: &str, expires: At) -> Subscription {
    Subscription {
        key: dialog_key(call_id),
        presentity: alice(),
        package: Package::Dialog,
        event_id: Some("7".to_owned()),
        watcher: Aor::parse("bob@example.com").unwrap(),
        to: alice(),
        local_cseq: 1,
        remote_cseq: 2,
        contact: "sip:bob@192.0.2.1;alias=192.0.2.1~5062~1".to_owned(),
        record_route: Some("<sip:192.0.2.10;lr>".repeat(50)),
        expires,
        version: 3,
        socket: "udp:192.0.2.52:5060".to_owned(),
        local_contact: "sip:192.0.2.52:5060".to_owned(),
        user_agent: "test".to_owned(),
    }
}

fn presence_is_as_in_the_reference(store: &Store) {
    let mut memory = Memory::new();
    let mut both = |query: presence::Query| {
        let query = Query::Presence(query);
        let reply = store.ask(query.clone());
        assert_eq!(reply, memory.ask(query.clone()), "{query:?}");
        match reply {
            Reply::Presence(reply) => reply,
            other => panic!("{other:?}"),
        }
    };
    let all = |now| presence::Query::Subscriptions { of: None, now };
    let states = |now| presence::Query::States { of: vec![alice()], now };
    for call_id in ["a", "b"] {
        both(presence::Query::Subscribe { row: Box::new(subscription(call_id, at(600))), now: at(0) });
    }
    both(presence::Query::Subscribe { row: Box::new(subscription("a", at(900))), now: at(1) });
    both(presence::Query::Counted(vec![(dialog_key("b"), 40, 41)]));
    assert!(matches!(both(all(at(599))), presence::Reply::Subscriptions(rows) if rows.len() == 2));
    assert!(matches!(both(all(at(600))), presence::Reply::Subscriptions(rows) if rows.len() == 1));
    both(presence::Query::Subscriptions { of: Some(alice()), now: at(1) });
    both(presence::Query::Subscriptions { of: Aor::parse("bob@example.com"), now: at(1) });
    both(publish(None, "e1", Some(b"<one/>"), at(0), 60));
    both(publish(None, "e2", Some(b"<two/>"), at(1), 60));
    both(publish(Some("e1"), "e3", None, at(2), 60));
    both(states(at(3)));
    let refused = presence::Reply::Refused(Refusal::NoSuchTag);
    assert_eq!(both(publish(Some("e1"), "e4", None, at(3), 60)), refused);
    both(publish(Some("e2"), "e5", None, at(4), 0));
    both(states(at(5)));
    both(presence::Query::Publications { of: None, now: at(5) });
    both(states(at(62)));
    both(presence::Query::Unsubscribe(vec![dialog_key("b"), dialog_key("unknown")]));
    both(all(at(5)));

    // The watcher's mark goes with his last subscription, not before; what expired leaves nothing.
    let counts =
        || ["active_watchers", "watchers", "presentity"].map(|table| store.count(table).unwrap_or(1));
    assert_eq!(counts(), [1, 1, 1]);
    both(presence::Query::Expire { now: at(2000), limit: 10 });
    if store.database().is_some() {
        assert_eq!(counts(), [0, 0, 0]);
    }
}

fn many_at_once_are_all_answered(store: &Store) {
    let Some(database) = store.database() else { return };
    let (sender, answers) = channel();
    for i in 0..200 {
        let sender = sender.clone();
        let contact = format!("sip:a@h{}", i % 2);
        // One in ten is refused, alone: its Call-ID went further already.
        let cseq = if i % 10 == 9 { 1 } else { i + 1 };
        let query = save(cseq, at(0), vec![binding(&contact, cseq, at(0), 60)]);
        database.put(query, Box::new(move |reply| sender.send((i, reply)).unwrap()));
    }
    drop(sender);
    let all: Vec<_> = answers.iter().collect();
    assert_eq!(all.len(), 200);
    for (number, (i, reply)) in all.iter().enumerate() {
        assert_eq!(number as u32, *i);
        match reply {
            Ok(Reply::Saved(_)) => assert_ne!(i % 10, 9),
            Ok(Reply::Refused(Refusal::OutOfOrder)) => assert_eq!(i % 10, 9),
            other => panic!("{i}: {other:?}"),
        }
    }
}

/// A table is gone, which is a fault of its own: who asks for something else is not turned away with it.
fn a_query_that_fails_fails_alone(store: &Store) {
    let Some(database) = store.database() else { return };
    store.ask(save(1, at(0), vec![binding("sip:a@h1", 1, at(0), 60)]));
    store.sql("DROP TABLE domain");
    store.sql("DROP TABLE presentity");
    let (sender, answers) = channel();
    for number in 0..100 {
        for (fails, query) in [
            (true, Query::Domains),
            (false, Query::Bindings { aor: alice(), now: at(1) }),
            (true, Query::Presence(publish(None, "e", Some(b"<a/>"), at(0), 60))),
            (false, save(2 + number, at(1), vec![binding("sip:a@h1", 2 + number, at(1), 60)])),
        ] {
            let sender = sender.clone();
            database.put(query, Box::new(move |reply| sender.send((fails, reply)).unwrap()));
        }
    }
    for _ in 0..400 {
        let (fails, reply) = answers.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(reply.is_err(), fails, "{reply:?}");
    }
}

fn what_was_answered_is_there_for_the_next_one(store: &Store) {
    store.ask(save(1, at(0), vec![binding("sip:a@h1", 1, at(0), 60)]));
    let Some(next) = store.open_again() else { return };
    let reply = next.ask_and_wait(Query::Bindings { aor: alice(), now: at(1) });
    assert!(matches!(reply, Ok(Reply::Bindings(rows)) if rows.len() == 1));
}

/// Two hosts register the same phone at the same time, each believing to be first.
fn two_writers_do_not_lose_or_double(store: &Store) {
    let (Some(one), Some(two)) = (store.database().cloned(), store.open_again()) else { return };
    const EACH: u32 = 60;
    let write = |database: Database, mine: &'static str| {
        std::thread::spawn(move || {
            for cseq in 1..=EACH {
                // A phone of its own, and one that both know.
                for contact in [mine, "sip:a@shared"] {
                    let mut row = binding(contact, cseq, at(cseq.into()), 600);
                    row.call_id = format!("of{mine}");
                    let query = Query::Save(Box::new(Save {
                        aor: alice(),
                        now: at(cseq.into()),
                        call_id: row.call_id.clone(),
                        cseq,
                        contacts: Contacts::Each(vec![row]),
                        max_contacts: 3,
                    }));
                    let reply = database.ask_and_wait(query);
                    let Ok(Reply::Saved(saved)) = reply else { panic!("{mine} {cseq}: {reply:?}") };
                    assert!(saved.bindings.iter().any(|row| row.contact == contact && row.cseq == cseq));
                }
            }
        })
    };
    for thread in [write(one, "sip:a@one"), write(two, "sip:a@two")] {
        thread.join().unwrap();
    }
    let Reply::Bindings(rows) = store.ask(Query::Bindings { aor: alice(), now: at(100) }) else { panic!() };
    let mut contacts: Vec<&str> = rows.iter().map(|row| row.contact.as_str()).collect();
    contacts.sort();
    assert_eq!(contacts, ["sip:a@one", "sip:a@shared", "sip:a@two"]);
    assert!(rows.iter().all(|row| row.cseq == EACH));
    assert_eq!(store.count("location"), Some(3));
}

/// All phones of a town come back after a power cut, to two hosts: whatever the hosts lock, nobody is turned away.
fn two_writers_take_a_rush_of_new_users(store: &Store) {
    let (Some(one), Some(two)) = (store.database().cloned(), store.open_again()) else { return };
    const EACH: usize = 300;
    let (sender, answers) = channel();
    for number in 0..EACH {
        for (host, database) in [&one, &two].into_iter().enumerate() {
            // Neighbours in every index, so that locks of more than a row would meet.
            let aor = Aor { user: format!("user{number}-{host}"), domain: "example.com".to_owned() };
            let query = save_of(&aor, 1, at(0), vec![binding_of(&aor, "sip:a@h1", 1, at(0), 600)]);
            let sender = sender.clone();
            database.put(query, Box::new(move |reply| sender.send(reply).unwrap()));
        }
    }
    for _ in 0..2 * EACH {
        let reply = answers.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(matches!(reply, Ok(Reply::Saved(_))), "{reply:?}");
    }
    assert_eq!(store.count("location"), Some(2 * EACH as i64));
}
