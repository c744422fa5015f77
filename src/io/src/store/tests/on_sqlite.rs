//! What SQLite has for itself: files, their lock, and Kamailio's ways to write a time.

use super::*;
use rusqlite::Connection;

#[test]
fn times_are_julian_days() {
    let dir = Dir::new();
    dir.open().unwrap().ask_and_wait(save(1, at(0), vec![binding("sip:a@h1", 1, at(0), 60)])).unwrap();
    let raw = Connection::open(dir.file()).unwrap();
    let (julian, kind): (f64, String) = raw
        .query_row("SELECT expires, typeof(expires) FROM location", [], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap();
    assert_eq!(kind, "real");
    assert!((julian - (1_700_000_060.0 / 86_400.0 + 2_440_587.5)).abs() < 1e-6);
}

/// Kamailio's own files make the same tables, columns and indexes as we do.
#[test]
fn tables_are_kamailios() {
    const KAMAILIO: &str = "/usr/share/kamailio/db_sqlite";
    if !std::path::Path::new(KAMAILIO).exists() {
        eprintln!("SKIPPED: {KAMAILIO} is not there (Debian package kamailio-sqlite-modules)");
        return;
    }
    let (ours, theirs) = (Dir::new(), Dir::new());
    drop(ours.open().unwrap());
    let raw = Connection::open(theirs.file()).unwrap();
    for file in ["standard", "auth_db", "usrloc", "domain", "presence"] {
        raw.execute_batch(&std::fs::read_to_string(format!("{KAMAILIO}/{file}-create.sql")).unwrap())
            .unwrap();
    }
    let told = |dir: &Dir| -> Vec<String> {
        let raw = Connection::open(dir.file()).unwrap();
        let text = "SELECT t.name || ' ' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || \
                    coalesce(c.dflt_value, '') || ' ' || c.pk FROM sqlite_master t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT IN ('xcap', 'pua', 'sipbox_version') \
             UNION ALL \
             SELECT t.name || ' ' || i.\"unique\" || ' ' || group_concat(c.name) FROM sqlite_master t, \
                    pragma_index_list(t.name) i, pragma_index_info(i.name) c \
             WHERE t.type = 'table' AND t.name NOT IN ('xcap', 'pua', 'sipbox_version') GROUP BY t.name, i.name \
             ORDER BY 1";
        let mut statement = raw.prepare(text).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let wanted = told(&theirs);
    assert!(wanted.len() > 100);
    assert_eq!(told(&ours), wanted);
    drop(theirs.open().unwrap());
    assert_eq!(told(&theirs), wanted);
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

/// What is written to a file that has no name any more is gone with the process: nobody is told that it is kept.
#[test]
fn a_file_that_is_taken_away_is_not_written_to() {
    let dir = Dir::new();
    let database = dir.open().unwrap();
    database.ask_and_wait(save(1, at(0), vec![binding("sip:a@h1", 1, at(0), 60)])).unwrap();
    let aside = dir.file().with_extension("aside");
    std::fs::rename(dir.file(), &aside).unwrap();
    let again = || database.ask_and_wait(save(2, at(0), vec![binding("sip:a@h1", 2, at(0), 60)]));
    assert!(matches!(again(), Err(Error::Unavailable(_))));
    let read = database.ask_and_wait(Query::Bindings { aor: alice(), now: at(0) });
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    assert!(!dir.file().exists(), "an empty one was made in its place");
    // Put back, it is found by itself, by the writer and the readers.
    let in_time = |what: &str, done: &dyn Fn() -> bool| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !done() {
            assert!(std::time::Instant::now() < end, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    let holds = |contact: &str| match database.ask_and_wait(Query::Bindings { aor: alice(), now: at(0) }) {
        Ok(Reply::Bindings(rows)) => rows.iter().map(|row| row.contact.as_str()).eq([contact]),
        _ => false,
    };
    std::fs::rename(&aside, dir.file()).unwrap();
    in_time("the writer does not come back", &|| again().is_ok());
    in_time("the readers do not come back", &|| holds("sip:a@h1"));
    // Another one in its place is taken as it is.
    let other = Dir::new();
    let filled = other.open().unwrap();
    filled.ask_and_wait(save(1, at(0), vec![binding("sip:a@other", 1, at(0), 60)])).unwrap();
    Connection::open(other.file())
        .unwrap()
        .execute_batch("VACUUM INTO 'ASIDE'".replace("ASIDE", aside.to_str().unwrap()).as_str())
        .unwrap();
    for leftover in ["-wal", "-shm"] {
        let mut name = dir.file().into_os_string();
        name.push(leftover);
        let _ = std::fs::remove_file(name);
    }
    std::fs::rename(&aside, dir.file()).unwrap();
    in_time("the other file is not read", &|| holds("sip:a@other"));
}

#[test]
fn refuses_newer_and_other_files() {
    for sql in [
        "UPDATE version SET table_version = 10 WHERE table_name = 'location'",
        "INSERT INTO sipbox_version (version) VALUES (1000)",
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
