//! Tables, their versions, and how they are made.
//!
//! Kamailio 5.6's (`version`, `subscriber`, `location`, `location_attrs`, `domain`, `domain_attrs`, and presence's
//! `presentity`, `active_watchers`, `watchers`), with its columns, types, defaults and indexes, so that a Kamailio opens the same file; and `sipbox_version`, which is ours. In: a connection in a
//! write transaction. Out: the tables are there, or why this database is not for us. A table of Kamailio's that is there is
//! never altered, nor is its row in `version`.

use rusqlite::{Connection, OptionalExtension, Result};

/// Our own tables' version; a higher one in the file was written by a newer sipbox.
const OURS: i64 = 1;

/// Name, version, and SQL of each of Kamailio's tables.
const TABLES: &[(&str, i64, &str)] = &[
    (
        "subscriber",
        7,
        "CREATE TABLE subscriber (
            id INTEGER PRIMARY KEY NOT NULL,
            username VARCHAR(64) DEFAULT '' NOT NULL,
            domain VARCHAR(64) DEFAULT '' NOT NULL,
            password VARCHAR(64) DEFAULT '' NOT NULL,
            ha1 VARCHAR(128) DEFAULT '' NOT NULL,
            ha1b VARCHAR(128) DEFAULT '' NOT NULL,
            CONSTRAINT subscriber_account_idx UNIQUE (username, domain));
        CREATE INDEX subscriber_username_idx ON subscriber (username);",
    ),
    (
        "location",
        9,
        "CREATE TABLE location (
            id INTEGER PRIMARY KEY NOT NULL,
            ruid VARCHAR(64) DEFAULT '' NOT NULL,
            username VARCHAR(64) DEFAULT '' NOT NULL,
            domain VARCHAR(64) DEFAULT NULL,
            contact VARCHAR(512) DEFAULT '' NOT NULL,
            received VARCHAR(128) DEFAULT NULL,
            path VARCHAR(512) DEFAULT NULL,
            expires TIMESTAMP WITHOUT TIME ZONE DEFAULT '2030-05-28 21:32:15' NOT NULL,
            q REAL DEFAULT 1.0 NOT NULL,
            callid VARCHAR(255) DEFAULT 'Default-Call-ID' NOT NULL,
            cseq INTEGER DEFAULT 1 NOT NULL,
            last_modified TIMESTAMP WITHOUT TIME ZONE DEFAULT '2000-01-01 00:00:01' NOT NULL,
            flags INTEGER DEFAULT 0 NOT NULL,
            cflags INTEGER DEFAULT 0 NOT NULL,
            user_agent VARCHAR(255) DEFAULT '' NOT NULL,
            socket VARCHAR(64) DEFAULT NULL,
            methods INTEGER DEFAULT NULL,
            instance VARCHAR(255) DEFAULT NULL,
            reg_id INTEGER DEFAULT 0 NOT NULL,
            server_id INTEGER DEFAULT 0 NOT NULL,
            connection_id INTEGER DEFAULT 0 NOT NULL,
            keepalive INTEGER DEFAULT 0 NOT NULL,
            partition INTEGER DEFAULT 0 NOT NULL,
            CONSTRAINT location_ruid_idx UNIQUE (ruid));
        CREATE INDEX location_account_contact_idx ON location (username, domain, contact);
        CREATE INDEX location_expires_idx ON location (expires);
        CREATE INDEX location_tcpcon_idx ON location (connection_id);
        CREATE INDEX location_connection_idx ON location (server_id, connection_id);",
    ),
    (
        "location_attrs",
        1,
        "CREATE TABLE location_attrs (
            id INTEGER PRIMARY KEY NOT NULL,
            ruid VARCHAR(64) DEFAULT '' NOT NULL,
            username VARCHAR(64) DEFAULT '' NOT NULL,
            domain VARCHAR(64) DEFAULT NULL,
            aname VARCHAR(64) DEFAULT '' NOT NULL,
            atype INTEGER DEFAULT 0 NOT NULL,
            avalue VARCHAR(512) DEFAULT '' NOT NULL,
            last_modified TIMESTAMP WITHOUT TIME ZONE DEFAULT '2000-01-01 00:00:01' NOT NULL);
        CREATE INDEX location_attrs_account_record_idx ON location_attrs (username, domain, ruid);
        CREATE INDEX location_attrs_last_modified_idx ON location_attrs (last_modified);",
    ),
    (
        "domain",
        2,
        "CREATE TABLE domain (
            id INTEGER PRIMARY KEY NOT NULL,
            domain VARCHAR(64) NOT NULL,
            did VARCHAR(64) DEFAULT NULL,
            last_modified TIMESTAMP WITHOUT TIME ZONE DEFAULT '2000-01-01 00:00:01' NOT NULL,
            CONSTRAINT domain_domain_idx UNIQUE (domain));",
    ),
    (
        "domain_attrs",
        1,
        "CREATE TABLE domain_attrs (
            id INTEGER PRIMARY KEY NOT NULL,
            did VARCHAR(64) NOT NULL,
            name VARCHAR(32) NOT NULL,
            type INTEGER NOT NULL,
            value VARCHAR(255) NOT NULL,
            last_modified TIMESTAMP WITHOUT TIME ZONE DEFAULT '2000-01-01 00:00:01' NOT NULL);
        CREATE INDEX domain_attrs_domain_attrs_idx ON domain_attrs (did, name);",
    ),
    (
        "presentity",
        5,
        "CREATE TABLE presentity (
            id INTEGER PRIMARY KEY NOT NULL,
            username VARCHAR(64) NOT NULL,
            domain VARCHAR(64) NOT NULL,
            event VARCHAR(64) NOT NULL,
            etag VARCHAR(128) NOT NULL,
            expires INTEGER NOT NULL,
            received_time INTEGER NOT NULL,
            body BLOB NOT NULL,
            sender VARCHAR(255) NOT NULL,
            priority INTEGER DEFAULT 0 NOT NULL,
            ruid VARCHAR(64),
            CONSTRAINT presentity_presentity_idx UNIQUE (username, domain, event, etag),
            CONSTRAINT presentity_ruid_idx UNIQUE (ruid));
        CREATE INDEX presentity_presentity_expires ON presentity (expires);
        CREATE INDEX presentity_account_idx ON presentity (username, domain, event);",
    ),
    (
        "active_watchers",
        12,
        "CREATE TABLE active_watchers (
            id INTEGER PRIMARY KEY NOT NULL,
            presentity_uri VARCHAR(255) NOT NULL,
            watcher_username VARCHAR(64) NOT NULL,
            watcher_domain VARCHAR(64) NOT NULL,
            to_user VARCHAR(64) NOT NULL,
            to_domain VARCHAR(64) NOT NULL,
            event VARCHAR(64) DEFAULT 'presence' NOT NULL,
            event_id VARCHAR(64),
            to_tag VARCHAR(128) NOT NULL,
            from_tag VARCHAR(128) NOT NULL,
            callid VARCHAR(255) NOT NULL,
            local_cseq INTEGER NOT NULL,
            remote_cseq INTEGER NOT NULL,
            contact VARCHAR(255) NOT NULL,
            record_route TEXT,
            expires INTEGER NOT NULL,
            status INTEGER DEFAULT 2 NOT NULL,
            reason VARCHAR(64),
            version INTEGER DEFAULT 0 NOT NULL,
            socket_info VARCHAR(64) NOT NULL,
            local_contact VARCHAR(255) NOT NULL,
            from_user VARCHAR(64) NOT NULL,
            from_domain VARCHAR(64) NOT NULL,
            updated INTEGER NOT NULL,
            updated_winfo INTEGER NOT NULL,
            flags INTEGER DEFAULT 0 NOT NULL,
            user_agent VARCHAR(255) DEFAULT '',
            CONSTRAINT active_watchers_active_watchers_idx UNIQUE (callid, to_tag, from_tag));
        CREATE INDEX active_watchers_active_watchers_expires ON active_watchers (expires);
        CREATE INDEX active_watchers_active_watchers_pres ON active_watchers (presentity_uri, event);
        CREATE INDEX active_watchers_updated_idx ON active_watchers (updated);
        CREATE INDEX active_watchers_updated_winfo_idx ON active_watchers (updated_winfo, presentity_uri);",
    ),
    (
        "watchers",
        3,
        "CREATE TABLE watchers (
            id INTEGER PRIMARY KEY NOT NULL,
            presentity_uri VARCHAR(255) NOT NULL,
            watcher_username VARCHAR(64) NOT NULL,
            watcher_domain VARCHAR(64) NOT NULL,
            event VARCHAR(64) DEFAULT 'presence' NOT NULL,
            status INTEGER NOT NULL,
            reason VARCHAR(64),
            inserted_time INTEGER NOT NULL,
            CONSTRAINT watchers_watcher_idx UNIQUE (presentity_uri, watcher_username, watcher_domain, event));",
    ),
];

const VERSION: &str = "CREATE TABLE version (
    id INTEGER PRIMARY KEY NOT NULL,
    table_name VARCHAR(32) NOT NULL,
    table_version INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT version_table_name_idx UNIQUE (table_name));
INSERT INTO version (table_name, table_version) VALUES ('version', 1);";

/// Why it is not for us; one line with the mend.
pub(super) enum Fault {
    Version(String),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sql(error)
    }
}

/// Whether all is there already, in versions that we know; then nobody needs the write lock.
pub(super) fn is_whole(connection: &Connection) -> std::result::Result<bool, Fault> {
    if !exists(connection, "version")? || !exists(connection, "sipbox_version")? {
        return Ok(false);
    }
    check_ours(connection)?;
    for (name, version, _) in TABLES {
        if !exists(connection, name)? {
            return Ok(false);
        }
        check(connection, name, *version)?;
    }
    Ok(true)
}

/// Makes what is missing. In a write transaction.
pub(super) fn make(connection: &Connection) -> std::result::Result<(), Fault> {
    if !exists(connection, "version")? {
        connection.execute_batch(VERSION)?;
    }
    if exists(connection, "sipbox_version")? {
        check_ours(connection)?;
    } else {
        connection.execute_batch("CREATE TABLE sipbox_version (version INTEGER NOT NULL)")?;
        connection.execute("INSERT INTO sipbox_version (version) VALUES (?1)", [OURS])?;
    }
    for (name, version, sql) in TABLES {
        if exists(connection, name)? {
            check(connection, name, *version)?;
        } else {
            connection.execute_batch(sql)?;
            connection.execute(
                "INSERT OR REPLACE INTO version (table_name, table_version) VALUES (?1, ?2)",
                (name, version),
            )?;
        }
    }
    Ok(())
}

fn exists(connection: &Connection, table: &str) -> Result<bool> {
    connection
        .query_row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1", [table], |_| Ok(()))
        .optional()
        .map(|found| found.is_some())
}

fn check_ours(connection: &Connection) -> std::result::Result<(), Fault> {
    let found: i64 = connection.query_row("SELECT max(version) FROM sipbox_version", [], |row| row.get(0))?;
    if found > OURS {
        return Err(Fault::Version(format!(
            "made by a newer sipbox (version {found}, this one knows {OURS}); use that one"
        )));
    }
    Ok(())
}

fn check(connection: &Connection, table: &str, known: i64) -> std::result::Result<(), Fault> {
    let found: Option<i64> = connection
        .query_row("SELECT table_version FROM version WHERE table_name = ?1", [table], |row| row.get(0))
        .optional()?;
    match found {
        Some(found) if found == known => Ok(()),
        found => Err(Fault::Version(format!(
            "its table {table} has version {}, this sipbox knows {known} (Kamailio 5.6); migrate it with kamdbctl, or name another file",
            found.map_or("none".to_owned(), |v| v.to_string())
        ))),
    }
}
