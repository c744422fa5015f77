//! SQLite: WAL, BEGIN IMMEDIATE, synchronous=FULL.
//!
//! In: SQL of `tables`, `presence` and `schema`. Out: rows. Times are Julian days in REAL, as Kamailio's driver writes them; text
//! and Unix seconds are read too. Not here: what is asked (`tables`), when to commit (`session`), threads (`mod.rs`).

use super::session::Mode;
use super::sql::{Dialect, Fault, Result, Row, Sql, Value};
use crate::start::{Kind, StartError};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, ffi, params_from_iter};
use sipbox_core::time::Instant;
use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another process may hold the lock before a query gives up. Less than the machines' own deadline.
const BUSY: Duration = Duration::from_secs(2);
/// Statements that stay prepared.
const STATEMENTS: usize = 64;
/// Julian day of the Unix epoch.
const EPOCH: f64 = 2_440_587.5;
const DAY: f64 = 86_400.0;
/// Larger numbers are no Julian days (this one is in the year 22,666) but Unix seconds.
const JULIAN_LIMIT: f64 = 10_000_000.0;

static DIALECT: Dialect = Dialect {
    begin: "BEGIN IMMEDIATE",
    release: Some("RELEASE one"),
    // Whoever has begun to write is alone.
    lock: "",
    tables: "SELECT name FROM sqlite_master WHERE type = 'table'",
    // Three ranges of one index: Julian days (the epoch stands for never), Unix seconds, and text, which sorts last.
    expired: "((expires <= ? AND expires <> ?) OR (expires > ? AND expires <= ?) \
              OR (expires >= '' AND julianday(expires) <= ?))",
    types: &[
        ("ID", "INTEGER PRIMARY KEY NOT NULL"),
        ("INT", "INTEGER"),
        ("UINT", "INTEGER"),
        ("FLOAT", "REAL"),
        ("TIME", "TIMESTAMP WITHOUT TIME ZONE"),
    ],
    indexes_inside: false,
    table_options: "",
};

pub(super) struct Sqlite {
    connection: Connection,
    path: PathBuf,
    /// Device and inode of the file that was opened. One that was taken away or replaced can still be written to, and
    /// what was confirmed would be gone with the last process that has it open.
    file: (u64, u64),
}

/// Opens the file; `make`: makes it where it is missing. A server whose database is taken away must not go on with an
/// empty one.
pub(super) fn connect(path: &Path, mode: Mode, make: bool) -> std::result::Result<Box<dyn Sql>, StartError> {
    if make && !path.exists() {
        // It holds what passwords are checked against: not for everybody.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(path)
            .map_err(|error| StartError::file("--db", path, &error))?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(BUSY)?;
        // A file that may only be read is opened all the same, and would fail at the first change.
        if mode == Mode::Write && connection.is_readonly("main")? {
            let code = ffi::Error::new(ffi::SQLITE_READONLY);
            return Err(rusqlite::Error::SqliteFailure(code, Some("it may only be read".to_owned())));
        }
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        if mode == Mode::Read {
            connection.execute_batch("PRAGMA query_only = 1;")?;
        }
        Ok(connection)
    });
    let connection = opened.map_err(|error| {
        let (kind, mend) = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                (Kind::Unavailable, "; who holds it?")
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                (Kind::Data, "; name another file, or restore it")
            }
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                (Kind::System, "; check the owner and the mode of it and its directory")
            }
            _ => (Kind::Io, ""),
        };
        StartError::new(kind, format!("--db sqlite:{}: {error}{mend}", path.display()))
    })?;
    let file = file(path).map_err(|error| StartError::file("--db", path, &error))?;
    Ok(Box::new(Sqlite { connection, path: path.to_owned(), file }))
}

fn file(path: &Path) -> std::io::Result<(u64, u64)> {
    path.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Sqlite {
    fn still_there(&self) -> Result<()> {
        match file(&self.path) {
            Ok(file) if file == self.file => Ok(()),
            Ok(_) => Err(Fault::Lost("the file was replaced".to_owned())),
            Err(error) => Err(Fault::Lost(error.to_string())),
        }
    }
}

impl Sql for Sqlite {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn rows(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        if self.connection.is_autocommit() {
            self.still_there()?;
        }
        let mut statement = self.connection.prepare_cached(sql).map_err(fault)?;
        let columns = statement.column_count();
        let rows = statement
            .query_map(params_from_iter(values), |row| {
                (0..columns)
                    .map(|index| row.get_ref(index).map(value))
                    .collect::<rusqlite::Result<_>>()
                    .map(Row)
            })
            .map_err(fault)?;
        rows.collect::<rusqlite::Result<_>>().map_err(fault)
    }

    fn run(&mut self, sql: &str, values: &[Value]) -> Result<()> {
        let mut statement = self.connection.prepare_cached(sql).map_err(fault)?;
        statement.execute(params_from_iter(values)).map_err(fault).map(drop)
    }

    fn plain(&mut self, sql: &str) -> Result<()> {
        if sql == DIALECT.begin {
            self.still_there()?;
        }
        self.connection.execute_batch(sql).map_err(fault)?;
        // Before anybody is told that it is kept.
        if sql == "COMMIT" { self.still_there() } else { Ok(()) }
    }

    fn begin_schema(&mut self) -> Result<()> {
        self.plain(DIALECT.begin)
    }

    fn end_schema(&mut self) -> Result<()> {
        self.plain("COMMIT")
    }

    fn time(&self, value: &Value) -> Instant {
        instant(value)
    }

    fn expired(&self, now: Instant) -> Vec<Value> {
        let (julian, unix) = (Value::Real(julian(now)), Value::Real(now.unix_secs() as f64));
        vec![julian.clone(), Value::Real(EPOCH), Value::Real(JULIAN_LIMIT), unix, julian]
    }
}

fn fault(error: rusqlite::Error) -> Fault {
    let text = error.to_string();
    match error.sqlite_error() {
        Some(ffi::Error { code: ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, .. }) => {
            Fault::Busy(text)
        }
        Some(ffi::Error { code: ErrorCode::TooBig, .. }) => Fault::DoesNotFit(text),
        Some(ffi::Error { code: ErrorCode::ConstraintViolation, extended_code }) => match *extended_code {
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => Fault::Duplicate(text),
            _ => Fault::Statement(text),
        },
        Some(ffi::Error { code: ErrorCode::Unknown | ErrorCode::TypeMismatch, .. }) | None => {
            Fault::Statement(text)
        }
        // The file itself: opened anew, it may be another one, or be there again.
        Some(_) => Fault::Lost(text),
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Int(number) => ToSqlOutput::from(*number),
            Value::Real(number) => ToSqlOutput::from(*number),
            Value::Text(text) => ToSqlOutput::from(text.as_str()),
            Value::Bytes(bytes) => ToSqlOutput::from(bytes.as_slice()),
            Value::Time(at) => ToSqlOutput::from(julian(*at)),
        })
    }
}

// --- times ---

fn julian(at: Instant) -> f64 {
    at.0 as f64 / 1e6 / DAY + EPOCH
}

fn instant(value: &Value) -> Instant {
    let unix = match value {
        Value::Int(n) => from_number(*n as f64),
        Value::Real(n) => from_number(*n),
        Value::Text(text) => from_text(text).unwrap_or(0.0),
        Value::Time(at) => return *at,
        Value::Null | Value::Bytes(_) => 0.0,
    };
    // A double holds a Julian day to 40 µs; what was written was milliseconds or coarser.
    Instant((unix.max(0.0) * 1e3).round() as u64 * 1000)
}

fn from_number(number: f64) -> f64 {
    if number < JULIAN_LIMIT { (number - EPOCH) * DAY } else { number }
}

/// `YYYY-MM-DD HH:MM:SS`, in UTC.
fn from_text(text: &str) -> Option<f64> {
    let mut parts =
        text.split(['-', ' ', 'T', ':']).map(|part| part.trim_end_matches('Z').parse::<f64>().ok());
    let mut next = || parts.next().flatten();
    let (year, month, day) = (next()? as i64, next()? as i64, next()? as i64);
    let seconds = next().unwrap_or(0.0) * 3600.0 + next().unwrap_or(0.0) * 60.0 + next().unwrap_or(0.0);
    // Days since the epoch, with the year beginning in March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days as f64 * DAY + seconds)
}
