//! Tables, their versions, and how they are made.
//!
//! Kamailio 5.6's (`version`, `subscriber`, `location`, `location_attrs`, `domain`, `domain_attrs`, and presence's
//! `presentity`, `active_watchers`, `watchers`), with its columns, types, defaults and indexes on SQLite and on MySQL, so that a
//! Kamailio opens the same database; and ours, `sipbox_*`. In: a connection. Out: the tables are there, or why this database is
//! not for us. A table of Kamailio's that is there is never altered, nor is its row in `version`. Ours are made by numbered
//! migrations, each once. Not here: the words of a dialect (`sqlite`, `mysql`).

use super::sql::{Dialect, Fault, Sql, values};
use crate::start::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One of Kamailio's tables, in words that each dialect translates: `ID` a key that counts up, `INT`, `UINT` without a sign,
/// `FLOAT`, `TIME` a point in time; VARCHAR, TEXT and BLOB are what they are.
struct Table {
    name: &'static str,
    version: i64,
    columns: &'static str,
    /// Names and columns. SQLite knows one set of names for all tables, so there the table's stands before each.
    unique: &'static [(&'static str, &'static str)],
    indexes: &'static [(&'static str, &'static str)],
}

const VERSION: Table = Table {
    name: "version",
    version: 1,
    columns: "
            id ID,
            table_name VARCHAR(32) NOT NULL,
            table_version UINT DEFAULT 0 NOT NULL",
    unique: &[("table_name_idx", "table_name")],
    indexes: &[],
};

const TABLES: &[Table] = &[
    Table {
        name: "subscriber",
        version: 7,
        columns: "
            id ID,
            username VARCHAR(64) DEFAULT '' NOT NULL,
            domain VARCHAR(64) DEFAULT '' NOT NULL,
            password VARCHAR(64) DEFAULT '' NOT NULL,
            ha1 VARCHAR(128) DEFAULT '' NOT NULL,
            ha1b VARCHAR(128) DEFAULT '' NOT NULL",
        unique: &[("account_idx", "username, domain")],
        indexes: &[("username_idx", "username")],
    },
    Table {
        name: "location",
        version: 9,
        columns: "
            id ID,
            ruid VARCHAR(64) DEFAULT '' NOT NULL,
            username VARCHAR(64) DEFAULT '' NOT NULL,
            domain VARCHAR(64) DEFAULT NULL,
            contact VARCHAR(512) DEFAULT '' NOT NULL,
            received VARCHAR(128) DEFAULT NULL,
            path VARCHAR(512) DEFAULT NULL,
            expires TIME DEFAULT '2030-05-28 21:32:15' NOT NULL,
            q FLOAT DEFAULT 1.0 NOT NULL,
            callid VARCHAR(255) DEFAULT 'Default-Call-ID' NOT NULL,
            cseq INT DEFAULT 1 NOT NULL,
            last_modified TIME DEFAULT '2000-01-01 00:00:01' NOT NULL,
            flags INT DEFAULT 0 NOT NULL,
            cflags INT DEFAULT 0 NOT NULL,
            user_agent VARCHAR(255) DEFAULT '' NOT NULL,
            socket VARCHAR(64) DEFAULT NULL,
            methods INT DEFAULT NULL,
            instance VARCHAR(255) DEFAULT NULL,
            reg_id INT DEFAULT 0 NOT NULL,
            server_id INT DEFAULT 0 NOT NULL,
            connection_id INT DEFAULT 0 NOT NULL,
            keepalive INT DEFAULT 0 NOT NULL,
            `partition` INT DEFAULT 0 NOT NULL",
        unique: &[("ruid_idx", "ruid")],
        indexes: &[
            ("account_contact_idx", "username, domain, contact"),
            ("expires_idx", "expires"),
            ("tcpcon_idx", "connection_id"),
            ("connection_idx", "server_id, connection_id"),
        ],
    },
    Table {
        name: "location_attrs",
        version: 1,
        columns: "
            id ID,
            ruid VARCHAR(64) DEFAULT '' NOT NULL,
            username VARCHAR(64) DEFAULT '' NOT NULL,
            domain VARCHAR(64) DEFAULT NULL,
            aname VARCHAR(64) DEFAULT '' NOT NULL,
            atype INT DEFAULT 0 NOT NULL,
            avalue VARCHAR(512) DEFAULT '' NOT NULL,
            last_modified TIME DEFAULT '2000-01-01 00:00:01' NOT NULL",
        unique: &[],
        indexes: &[("account_record_idx", "username, domain, ruid"), ("last_modified_idx", "last_modified")],
    },
    Table {
        name: "domain",
        version: 2,
        columns: "
            id ID,
            domain VARCHAR(64) NOT NULL,
            did VARCHAR(64) DEFAULT NULL,
            last_modified TIME DEFAULT '2000-01-01 00:00:01' NOT NULL",
        unique: &[("domain_idx", "domain")],
        indexes: &[],
    },
    Table {
        name: "domain_attrs",
        version: 1,
        columns: "
            id ID,
            did VARCHAR(64) NOT NULL,
            name VARCHAR(32) NOT NULL,
            type UINT NOT NULL,
            value VARCHAR(255) NOT NULL,
            last_modified TIME DEFAULT '2000-01-01 00:00:01' NOT NULL",
        unique: &[],
        indexes: &[("domain_attrs_idx", "did, name")],
    },
    Table {
        name: "presentity",
        version: 5,
        columns: "
            id ID,
            username VARCHAR(64) NOT NULL,
            domain VARCHAR(64) NOT NULL,
            event VARCHAR(64) NOT NULL,
            etag VARCHAR(128) NOT NULL,
            expires INT NOT NULL,
            received_time INT NOT NULL,
            body BLOB NOT NULL,
            sender VARCHAR(255) NOT NULL,
            priority INT DEFAULT 0 NOT NULL,
            ruid VARCHAR(64)",
        unique: &[("presentity_idx", "username, domain, event, etag"), ("ruid_idx", "ruid")],
        indexes: &[("presentity_expires", "expires"), ("account_idx", "username, domain, event")],
    },
    Table {
        name: "active_watchers",
        version: 12,
        columns: "
            id ID,
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
            local_cseq INT NOT NULL,
            remote_cseq INT NOT NULL,
            contact VARCHAR(255) NOT NULL,
            record_route TEXT,
            expires INT NOT NULL,
            status INT DEFAULT 2 NOT NULL,
            reason VARCHAR(64),
            version INT DEFAULT 0 NOT NULL,
            socket_info VARCHAR(64) NOT NULL,
            local_contact VARCHAR(255) NOT NULL,
            from_user VARCHAR(64) NOT NULL,
            from_domain VARCHAR(64) NOT NULL,
            updated INT NOT NULL,
            updated_winfo INT NOT NULL,
            flags INT DEFAULT 0 NOT NULL,
            user_agent VARCHAR(255) DEFAULT ''",
        unique: &[("active_watchers_idx", "callid, to_tag, from_tag")],
        indexes: &[
            ("active_watchers_expires", "expires"),
            ("active_watchers_pres", "presentity_uri, event"),
            ("updated_idx", "updated"),
            ("updated_winfo_idx", "updated_winfo, presentity_uri"),
        ],
    },
    Table {
        name: "watchers",
        version: 3,
        columns: "
            id ID,
            presentity_uri VARCHAR(255) NOT NULL,
            watcher_username VARCHAR(64) NOT NULL,
            watcher_domain VARCHAR(64) NOT NULL,
            event VARCHAR(64) DEFAULT 'presence' NOT NULL,
            status INT NOT NULL,
            reason VARCHAR(64),
            inserted_time INT NOT NULL",
        unique: &[("watcher_idx", "presentity_uri, watcher_username, watcher_domain, event")],
        indexes: &[],
    },
];

/// What is ours, one migration after the other; its number is its place, from 1. Where definitions cannot be taken back
/// (MySQL), one that was interrupted runs again: each must be harmless where it is done already.
const MIGRATIONS: &[&str] = &["CREATE TABLE IF NOT EXISTS sipbox_version (version INTEGER NOT NULL)"];

/// Why it is not for us; one line with the mend.
pub(super) enum Why {
    Version(String),
    Sql(Fault),
}

impl Why {
    pub fn kind(&self) -> Kind {
        match self {
            Why::Version(_) => Kind::Config,
            Why::Sql(Fault::Lost(_) | Fault::Busy(_) | Fault::Again(_)) => Kind::Unavailable,
            Why::Sql(Fault::Duplicate(_) | Fault::DoesNotFit(_) | Fault::Statement(_)) => Kind::Io,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Version(text) => f.write_str(text),
            Why::Sql(Fault::Busy(text)) => write!(f, "{text}; who holds it?"),
            Why::Sql(fault) => f.write_str(fault.text()),
        }
    }
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Self {
        Why::Sql(fault)
    }
}

/// What is there.
struct Found {
    tables: BTreeSet<String>,
    /// Rows of `version`.
    versions: BTreeMap<String, i64>,
    /// The last migration of ours.
    ours: i64,
}

impl Found {
    fn look(sql: &mut dyn Sql) -> Result<Self, Fault> {
        let tables: BTreeSet<String> =
            sql.rows(sql.dialect().tables, &[])?.iter().map(|row| row.text(0)).collect();
        let mut found = Found { tables, versions: BTreeMap::new(), ours: 0 };
        if found.tables.contains(VERSION.name) {
            let rows = sql.rows("SELECT table_name, table_version FROM version", &[])?;
            found.versions = rows.iter().map(|row| (row.text(0), row.int(1))).collect();
        }
        if found.tables.contains("sipbox_version") {
            let rows = sql.rows("SELECT max(version) FROM sipbox_version", &[])?;
            found.ours = rows.first().map_or(0, |row| row.int(0));
        }
        Ok(found)
    }

    /// Whether all is there; an error where something is there that we do not know.
    fn is_whole(&self) -> Result<bool, Why> {
        let newest = MIGRATIONS.len() as i64;
        if self.ours > newest {
            return Err(Why::Version(format!(
                "made by a newer sipbox (version {}, this one knows {newest}); use that one",
                self.ours
            )));
        }
        for table in TABLES.iter().filter(|table| self.tables.contains(table.name)) {
            let found = self.versions.get(table.name);
            if found != Some(&table.version) {
                return Err(Why::Version(format!(
                    "its table {} has version {}, this sipbox knows {} (Kamailio 5.6); migrate it with kamdbctl, or name another database",
                    table.name,
                    found.map_or("none".to_owned(), |found| found.to_string()),
                    table.version
                )));
            }
        }
        Ok(self.ours == newest
            && self.tables.contains(VERSION.name)
            && TABLES.iter().all(|table| self.tables.contains(table.name)))
    }
}

/// Makes what is missing. Where nothing is, nobody is kept waiting.
pub(super) fn prepare(sql: &mut dyn Sql) -> Result<(), Why> {
    if Found::look(sql)?.is_whole()? {
        return Ok(());
    }
    sql.begin_schema()?;
    // Another one may have made it meanwhile.
    let found = Found::look(sql)?;
    if !found.is_whole()? {
        make(sql, &found)?;
    }
    Ok(sql.end_schema()?)
}

/// The order is such that wherever it is interrupted, it can be done again: the row in `version` comes before its table.
fn make(sql: &mut dyn Sql, found: &Found) -> Result<(), Fault> {
    let dialect = sql.dialect();
    if !found.tables.contains(VERSION.name) {
        define(sql, dialect, &VERSION)?;
    }
    for table in std::iter::once(&VERSION).chain(TABLES) {
        if found.tables.contains(table.name) {
            continue;
        }
        sql.run("DELETE FROM version WHERE table_name = ?", values![table.name])?;
        sql.run(
            "INSERT INTO version (table_name, table_version) VALUES (?, ?)",
            values![table.name, table.version],
        )?;
        if table.name != VERSION.name {
            define(sql, dialect, table)?;
        }
    }
    for (migration, number) in MIGRATIONS.iter().zip(1_i64..) {
        if number > found.ours {
            sql.plain(&format!("{migration}{}", dialect.table_options))?;
            sql.run("INSERT INTO sipbox_version (version) VALUES (?)", values![number])?;
        }
    }
    Ok(())
}

fn define(sql: &mut dyn Sql, dialect: &Dialect, table: &Table) -> Result<(), Fault> {
    for statement in definition(dialect, table) {
        sql.plain(&statement)?;
    }
    Ok(())
}

/// The table's CREATE TABLE, and the indexes that do not stand in it.
fn definition(dialect: &Dialect, table: &Table) -> Vec<String> {
    let Table { name, columns, unique, indexes, .. } = table;
    let prefix = if dialect.indexes_inside { String::new() } else { format!("{name}_") };
    let mut inside: Vec<String> = columns.trim().lines().map(|line| column(dialect, line)).collect();
    inside.extend(unique.iter().map(|(index, of)| format!("CONSTRAINT {prefix}{index} UNIQUE ({of})")));
    let mut behind = Vec::new();
    for (index, of) in *indexes {
        if dialect.indexes_inside {
            inside.push(format!("INDEX {index} ({of})"));
        } else {
            behind.push(format!("CREATE INDEX {prefix}{index} ON {name} ({of})"));
        }
    }
    let mut statements =
        vec![format!("CREATE TABLE {name} ({}){}", inside.join(", "), dialect.table_options)];
    statements.extend(behind);
    statements
}

/// `name TYPE …` with the dialect's type.
fn column(dialect: &Dialect, line: &str) -> String {
    let line = line.trim().trim_end_matches(',');
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (kind, rest) = rest.split_once(' ').map_or((rest, ""), |(kind, rest)| (kind, rest));
    let kind = dialect.types.iter().find(|(ours, _)| *ours == kind).map_or(kind, |(_, theirs)| theirs);
    format!("{name} {kind} {rest}").trim_end().to_owned()
}
