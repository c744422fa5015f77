//! MySQL and MariaDB: prepared statements over a connection with bounds on every wait.
//!
//! In: SQL of `tables`, `presence` and `schema`. Out: rows. Values never go into the text, so that no mode of the server changes
//! what they mean. Times are the host's local time (`local_time`). The session is set up by us, whatever the server's defaults
//! are: strict, so that a value that does not fit is refused and not cut; READ COMMITTED with locked reads before writes, so
//! that hosts that write at the same time wait for the same row and for nothing else. Not here: what is asked (`tables`), when
//! to commit and to try again (`session`).

use super::local_time::{self, Local};
use super::sql::{Dialect, Fault, Result, Row, Sql, Value};
use crate::start::{Kind, StartError};
use mysql::prelude::Queryable;
use mysql::{Conn, DriverError, OptsBuilder, Params, SslOpts};
use sipbox_core::time::Instant;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How long a connection may take to come about, and the server to answer one statement, a commit included. Less than the
/// machines' own deadline.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(3);
/// Statements that stay prepared.
const STATEMENTS: usize = 64;

/// What a session is told at its beginning. One second for a lock: the group is tried again (`session`).
const SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', SESSION innodb_lock_wait_timeout = 1, \
     SESSION autocommit = 1";
const ISOLATION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// For the making of tables, by name of the database; each attempt waits for less than [`ANSWER`].
const SCHEMA_LOCK: &str = "SELECT GET_LOCK(CONCAT('sipbox ', MD5(DATABASE())), 2)";
const SCHEMA_UNLOCK: &str = "DO RELEASE_LOCK(CONCAT('sipbox ', MD5(DATABASE())))";
const SCHEMA_ATTEMPTS: usize = 5;

static DIALECT: Dialect = Dialect {
    begin: "START TRANSACTION",
    // The next one of the same name takes its place: one round trip less.
    release: None,
    lock: " FOR UPDATE",
    tables: "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
    expired: "(expires <= ? AND expires <> ?)",
    types: &[
        ("ID", "INT(10) UNSIGNED AUTO_INCREMENT PRIMARY KEY NOT NULL"),
        ("INT", "INT(11)"),
        ("UINT", "INT UNSIGNED"),
        ("FLOAT", "FLOAT(10,2)"),
        ("TIME", "DATETIME"),
    ],
    indexes_inside: true,
    // A user part is compared octet by octet (RFC 3261 §19.1.4), and may have any letter.
    table_options: " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
};

/// Whose database, and where.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub user: String,
    pub password: Option<String>,
    /// Empty with a socket.
    pub host: String,
    pub port: u16,
    pub database: String,
    pub socket: Option<PathBuf>,
    /// TLS, with a server whose certificate is by this authority (or a public one) and names `host`.
    pub ssl_ca: Option<PathBuf>,
}

/// Without the password.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { user, host, port, database, .. } = self;
        match &self.socket {
            Some(socket) => write!(f, "mysql://{user}@/{database}?socket={}", socket.display()),
            None if host.contains(':') => write!(f, "mysql://{user}@[{host}]:{port}/{database}"),
            None => write!(f, "mysql://{user}@{host}:{port}/{database}"),
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) struct MySql(Conn);

pub(super) fn connect(account: &Account) -> std::result::Result<Box<dyn Sql>, StartError> {
    let mut options = OptsBuilder::new()
        .user(Some(&account.user))
        .pass(account.password.as_ref())
        .db_name(Some(&account.database))
        .tcp_connect_timeout(Some(CONNECT))
        .read_timeout(Some(ANSWER))
        .write_timeout(Some(ANSWER))
        .stmt_cache_size(STATEMENTS)
        .prefer_socket(false)
        .init(vec![SESSION, ISOLATION]);
    match &account.socket {
        Some(socket) => options = options.socket(Some(socket.display().to_string())),
        None => options = options.ip_or_hostname(Some(&account.host)).tcp_port(account.port),
    }
    if let Some(ca) = &account.ssl_ca {
        // Read here first: the driver would tell neither the flag nor the file.
        std::fs::read(ca).map_err(|error| StartError::file("--db: ssl-ca", ca, &error))?;
        // The first one in the process counts, and all are the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        options = options.ssl_opts(SslOpts::default().with_root_cert_path(Some(ca.clone())));
    }
    match Conn::new(options) {
        Ok(connection) => Ok(Box::new(MySql(connection))),
        Err(error) => Err(not_opened(account, &error)),
    }
}

fn not_opened(account: &Account, error: &mysql::Error) -> StartError {
    let text = text(error);
    let (kind, mend) = match error {
        mysql::Error::MySqlError(error) => match error.code {
            // Access denied, in its ways.
            1044 | 1045 | 1130 | 1698 => (Kind::Config, "; check user, password and grants"),
            1049 => (Kind::Config, "; CREATE DATABASE makes it, its tables are made by us"),
            _ => (Kind::Unavailable, ""),
        },
        mysql::Error::DriverError(DriverError::TlsNotSupported) => {
            (Kind::Config, "; leave ssl-ca out, or give the server a certificate")
        }
        // TLS's own refusals come as faults of reading, and are told apart by nothing else.
        _ if text.contains("certificate") => {
            (Kind::Config, "; ssl-ca must have signed the server's certificate, which must name the host")
        }
        _ => (Kind::Unavailable, "; does it run?"),
    };
    StartError::new(kind, format!("--db {account}: {text}{mend}"))
}

/// One line, without the driver's brackets.
fn text(error: &mysql::Error) -> String {
    let text = match error {
        mysql::Error::IoError(error) => error.to_string(),
        mysql::Error::CodecError(error) => error.to_string(),
        mysql::Error::DriverError(error) => error.to_string(),
        mysql::Error::MySqlError(error) => format!("{} ({})", error.message, error.code),
        error => error.to_string(),
    };
    // The system's word for a time-out of a socket's.
    if text.contains("(os error 11)") {
        return format!("no answer within {} s", ANSWER.as_secs());
    }
    text.replace(['\r', '\n'], " ")
}

fn fault(error: mysql::Error) -> Fault {
    let text = text(&error);
    match error {
        mysql::Error::MySqlError(error) => match error.code {
            // Deadlock, lock wait, and a row that changed since it was read (MariaDB's snapshot isolation, Galera).
            1213 | 1205 | 1020 => Fault::Again(text),
            1062 => Fault::Duplicate(text),
            // Too long, letters outside of the column's set, out of range, no such date.
            1406 | 1366 | 1264 | 1292 | 3854 => Fault::DoesNotFit(text),
            // Shutting down, killed, a Galera node that is not in the cluster, read-only after a fail-over, statements of
            // another life: what helps is another connection.
            1053 | 1927 | 3169 | 1047 | 1290 | 1836 | 1243 | 1615 => Fault::Lost(text),
            _ => Fault::Statement(text),
        },
        mysql::Error::FromValueError(_) | mysql::Error::FromRowError(_) => Fault::Statement(text),
        _ => Fault::Lost(text),
    }
}

/// Whether a value was compared with a column that does not know its letters: then it is none of the column's values.
fn is_foreign(error: &mysql::Error) -> bool {
    matches!(error, mysql::Error::MySqlError(error) if matches!(error.code, 1267 | 1270 | 1271))
}

impl Sql for MySql {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn rows(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        let rows = match self.0.exec_iter(sql, params(values)) {
            Err(error) if is_foreign(&error) => return Ok(Vec::new()),
            rows => rows.map_err(fault)?,
        };
        rows.map(|row| {
            let columns = row.map_err(fault)?.unwrap_raw();
            Ok(Row(columns.into_iter().map(|column| column.map_or(Value::Null, from)).collect()))
        })
        .collect()
    }

    fn run(&mut self, sql: &str, values: &[Value]) -> Result<()> {
        match self.0.exec_drop(sql, params(values)) {
            Err(error) if is_foreign(&error) => Ok(()),
            done => done.map_err(fault),
        }
    }

    fn plain(&mut self, sql: &str) -> Result<()> {
        self.0.query_drop(sql).map_err(fault)
    }

    /// Definitions end the transaction that they stand in: what keeps others away is a lock by name.
    fn begin_schema(&mut self) -> Result<()> {
        for _ in 0..SCHEMA_ATTEMPTS {
            let got: Option<Option<i64>> = self.0.query_first(SCHEMA_LOCK).map_err(fault)?;
            if got == Some(Some(1)) {
                return Ok(());
            }
        }
        Err(Fault::Busy("another sipbox is making its tables and does not end".to_owned()))
    }

    fn end_schema(&mut self) -> Result<()> {
        self.plain(SCHEMA_UNLOCK)
    }

    fn time(&self, value: &Value) -> Instant {
        match value {
            Value::Time(at) => *at,
            _ => Instant(0),
        }
    }

    fn expired(&self, now: Instant) -> Vec<Value> {
        vec![Value::Time(now), Value::Time(Instant(0))]
    }
}

fn params(values: &[Value]) -> Params {
    if values.is_empty() { Params::Empty } else { Params::Positional(values.iter().map(to).collect()) }
}

fn to(value: &Value) -> mysql::Value {
    match value {
        Value::Null => mysql::Value::NULL,
        Value::Int(number) => mysql::Value::Int(*number),
        Value::Real(number) => mysql::Value::Double(*number),
        Value::Text(text) => mysql::Value::Bytes(text.clone().into_bytes()),
        Value::Bytes(bytes) => mysql::Value::Bytes(bytes.clone()),
        // To whole seconds, downwards, which is all that the column holds.
        Value::Time(at) => match i64::try_from(at.unix_secs()).ok().and_then(local_time::local) {
            Some(at) => mysql::Value::Date(at.year, at.month, at.day, at.hour, at.minute, at.second, 0),
            None => mysql::Value::NULL,
        },
    }
}

fn from(value: mysql::Value) -> Value {
    match value {
        mysql::Value::NULL => Value::Null,
        mysql::Value::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Value::Text(text),
            Err(error) => Value::Bytes(error.into_bytes()),
        },
        mysql::Value::Int(number) => Value::Int(number),
        mysql::Value::UInt(number) => Value::Int(i64::try_from(number).unwrap_or(i64::MAX)),
        // As it is written in decimal: 0.1 as a float is 0.10000000149 as a double.
        mysql::Value::Float(number) => Value::Real(number.to_string().parse().unwrap_or(0.0)),
        mysql::Value::Double(number) => Value::Real(number),
        mysql::Value::Date(year, month, day, hour, minute, second, _) => {
            let unix = local_time::unix(Local { year, month, day, hour, minute, second });
            Value::Time(Instant::from_secs(unix.unwrap_or(0).max(0) as u64))
        }
        mysql::Value::Time(..) => Value::Null,
    }
}
