//! SQLite: WAL, BEGIN IMMEDIATE, synchronous=FULL.
//!
//! In: one [`Query`] at a time, changes inside of a transaction that carries several. Out: its [`Reply`]. Times are Julian days
//! in REAL, as Kamailio's driver writes them; text and Unix seconds are read too. `ruid` is computed for every row that is
//! read, so that rows of a Kamailio, which names them otherwise, are found and replaced. Not here: threads (`mod.rs`).

use super::presence;
use super::schema::{self, Fault};
use crate::start::{Kind, StartError};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};
use sipbox_core::sip::Aor;
use sipbox_core::store::{self, Binding, Change, Error, Query, Refusal, Reply, Save, Saved, Secret, plan};
use sipbox_core::time::Instant;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another process may hold the lock before a query gives up. Less than the machines' own deadline.
const BUSY: Duration = Duration::from_secs(2);
/// Julian day of the Unix epoch.
const EPOCH: f64 = 2_440_587.5;
const DAY: f64 = 86_400.0;
/// Larger numbers are no Julian days (this one is in the year 22,666) but Unix seconds.
const JULIAN_LIMIT: f64 = 10_000_000.0;
/// What a permanent binding of Kamailio's (`expires` is the epoch) counts as.
const NEVER: Instant = Instant(u64::MAX / 2);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Read,
    Write,
}

/// One connection, made again when it is lost.
pub(super) struct Sqlite {
    path: PathBuf,
    mode: Mode,
    connection: Option<Connection>,
}

/// Whether a query belongs to the writer.
pub(super) const fn changes(query: &Query) -> bool {
    match query {
        Query::Presence(query) => query.changes(),
        Query::Secret { .. }
        | Query::Bindings { .. }
        | Query::Contacts { .. }
        | Query::Domains
        | Query::Users { .. } => false,
        Query::Save(_)
        | Query::RemoveFlow { .. }
        | Query::Expire { .. }
        | Query::RemoveBindings { .. }
        | Query::RemoveContact { .. }
        | Query::UserAdd { .. }
        | Query::UserPassword { .. }
        | Query::UserRemove { .. } => true,
    }
}

fn unavailable(error: &rusqlite::Error) -> Error {
    Error::Unavailable(error.to_string())
}

/// Whether only another process is in the way: the connection itself is sound.
fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

impl Sqlite {
    pub fn open(path: &Path, mode: Mode) -> Result<Self, StartError> {
        let fault =
            |kind, text: String| StartError::new(kind, format!("--db sqlite:{}: {text}", path.display()));
        if mode == Mode::Write && !path.exists() {
            // It holds what passwords are checked against: not for everybody.
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o640)
                .open(path)
                .map_err(|error| StartError::file("--db", path, &error))?;
        }
        let connection = connect(path, mode).map_err(|error| match error {
            Fault::Version(text) => fault(Kind::Config, text),
            Fault::Sql(error) if is_busy(&error) => {
                fault(Kind::Unavailable, format!("{error}; who holds it?"))
            }
            Fault::Sql(error) => match error.sqlite_error_code() {
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                    fault(Kind::Data, format!("{error}; name another file, or restore it"))
                }
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => fault(
                    Kind::System,
                    format!("{error}; check the owner and the mode of it and its directory"),
                ),
                _ => fault(Kind::Io, error.to_string()),
            },
        })?;
        Ok(Sqlite { path: path.to_owned(), mode, connection: Some(connection) })
    }

    fn connection(&mut self) -> Result<&mut Connection, Error> {
        if self.connection.is_none() {
            let connection = connect(&self.path, self.mode).map_err(|error| match error {
                Fault::Version(text) => Error::Unavailable(text),
                Fault::Sql(error) => unavailable(&error),
            })?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or_else(|| Error::Unavailable("not open".to_owned()))
    }

    /// Drops a connection that is no longer sound.
    fn judge(&mut self, error: &rusqlite::Error) -> Error {
        if !is_busy(error) {
            self.connection = None;
        }
        unavailable(error)
    }

    pub fn read(&mut self, query: &Query) -> Result<Reply, Error> {
        let connection = self.connection()?;
        read(connection, query).map_err(|error| self.judge(&error))
    }

    /// Runs `work` in a write transaction and commits it. An error means that nothing of it was done.
    pub fn transaction(&mut self, work: impl FnOnce(&Transaction<'_>)) -> Result<(), Error> {
        let connection = self.connection()?;
        let done = (|| {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            work(&Transaction(&transaction));
            transaction.commit()
        })();
        done.map_err(|error| self.judge(&error))
    }
}

fn connect(path: &Path, mode: Mode) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    if mode == Mode::Write && !schema::is_whole(&connection)? {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        schema::make(&transaction)?;
        transaction.commit()?;
    }
    if mode == Mode::Read {
        connection.execute_batch("PRAGMA query_only = 1;")?;
    }
    Ok(connection)
}

// --- times ---

fn julian(at: Instant) -> f64 {
    at.0 as f64 / 1e6 / DAY + EPOCH
}

/// To whole seconds, downwards: Kamailio counts in seconds, and a client must not be told more than he asked for.
fn julian_seconds(at: Instant) -> f64 {
    at.unix_secs() as f64 / DAY + EPOCH
}

fn instant(value: ValueRef<'_>) -> Instant {
    let unix = match value {
        ValueRef::Integer(n) => from_number(n as f64),
        ValueRef::Real(n) => from_number(n),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(from_text).unwrap_or(0.0),
        ValueRef::Null | ValueRef::Blob(_) => 0.0,
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

// --- rows ---

const COLUMNS: &str = "id, username, domain, contact, received, path, expires, q, callid, cseq, last_modified, cflags, user_agent, \
     socket, methods, instance, reg_id";

/// A row with its key. `domain`: what counts for rows of a Kamailio that does not fill that column.
fn row(row: &Row<'_>, domain: Option<&str>) -> rusqlite::Result<(i64, Aor, Binding)> {
    let text = |index| row.get::<_, Option<String>>(index).map(|text| text.filter(|t| !t.is_empty()));
    let aor = Aor {
        user: row.get(1)?,
        domain: text(2)?.map_or_else(|| domain.unwrap_or_default().to_owned(), |d| d.to_ascii_lowercase()),
    };
    let contact: String = row.get(3)?;
    let expires = instant(row.get_ref(6)?);
    let q: f64 = row.get(7)?;
    let (instance, reg_id) = (text(15)?, row.get::<_, u32>(16)?);
    let binding = Binding {
        ruid: store::ruid(&aor, instance.as_deref(), reg_id, &contact),
        contact,
        received: text(4)?,
        path: text(5)?,
        expires: if expires == Instant(0) { NEVER } else { expires },
        q: (q >= 0.0).then(|| (q * 1000.0).round().min(1000.0) as u16),
        call_id: row.get(8)?,
        cseq: row.get::<_, i64>(9)?.try_into().unwrap_or(u32::MAX),
        modified: instant(row.get_ref(10)?),
        cflags: row.get::<_, i64>(11)? as u32,
        user_agent: row.get(12)?,
        socket: text(13)?,
        methods: row.get::<_, Option<i64>>(14)?.map(|bits| bits as u32),
        instance,
        reg_id,
    };
    Ok((row.get(0)?, aor, binding))
}

pub(super) fn rows_of(connection: &Connection, aor: &Aor) -> rusqlite::Result<Vec<(i64, Aor, Binding)>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM location WHERE username = ?1 AND (domain = ?2 OR domain IS NULL OR domain = '')"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![aor.user, aor.domain], |r| row(r, Some(&aor.domain)))?;
    rows.collect()
}

fn read(connection: &Connection, query: &Query) -> rusqlite::Result<Reply> {
    Ok(match query {
        Query::Secret { user, domain } => Reply::Secret(
            connection
                .prepare_cached(
                    "SELECT password, ha1, ha1b FROM subscriber WHERE username = ?1 AND domain = ?2",
                )?
                .query_row(params![user, domain.to_ascii_lowercase()], |r| {
                    Ok(Secret { password: r.get(0)?, ha1: r.get(1)?, ha1b: r.get(2)? })
                })
                .optional()?,
        ),
        Query::Bindings { aor, now } => {
            Reply::Bindings(plan::live(rows_of(connection, aor)?.into_iter().map(|(_, _, b)| b), *now))
        }
        Query::Contacts { aor, now } => {
            let mut all: Vec<(Aor, Binding)> = match aor {
                Some(aor) => rows_of(connection, aor)?,
                None => {
                    let sql = format!("SELECT {COLUMNS} FROM location");
                    let mut statement = connection.prepare_cached(&sql)?;
                    statement.query_map([], |r| row(r, None))?.collect::<rusqlite::Result<_>>()?
                }
            }
            .into_iter()
            .map(|(_, aor, binding)| (aor, binding))
            .filter(|(_, binding)| binding.expires > *now)
            .collect();
            all.sort_by(|(a, x), (b, y)| {
                let order = |row: &Binding| std::cmp::Reverse((row.q.unwrap_or(1000), row.modified));
                a.cmp(b).then_with(|| order(x).cmp(&order(y))).then_with(|| x.ruid.cmp(&y.ruid))
            });
            Reply::Contacts(all)
        }
        Query::Domains => {
            let mut statement = connection.prepare_cached("SELECT domain FROM domain ORDER BY id")?;
            let domains = statement.query_map([], |r| r.get::<_, String>(0))?;
            Reply::Domains(
                domains.map(|d| d.map(|d| d.to_ascii_lowercase())).collect::<rusqlite::Result<_>>()?,
            )
        }
        Query::Users { of } => {
            let sql = "SELECT username, domain FROM subscriber WHERE (?1 IS NULL OR domain = ?1) \
                       AND (?2 = '' OR username = ?2) ORDER BY username, domain";
            let mut statement = connection.prepare_cached(sql)?;
            let domain = of.as_ref().map(|of| of.domain.as_str());
            let user = of.as_ref().map_or("", |of| of.user.as_str());
            let users = statement
                .query_map(params![domain, user], |r| Ok(Aor { user: r.get(0)?, domain: r.get(1)? }))?;
            Reply::Users(users.collect::<rusqlite::Result<_>>()?)
        }
        Query::Presence(query) => Reply::Presence(presence::read(connection, query)?),
        Query::Save(_)
        | Query::RemoveFlow { .. }
        | Query::Expire { .. }
        | Query::RemoveBindings { .. }
        | Query::RemoveContact { .. }
        | Query::UserAdd { .. }
        | Query::UserPassword { .. }
        | Query::UserRemove { .. } => return Err(rusqlite::Error::InvalidQuery),
    })
}

/// A write transaction under way.
pub(super) struct Transaction<'c>(&'c Connection);

impl Transaction<'_> {
    /// One change; where it fails, it alone is rolled back.
    pub fn change(&self, query: &Query) -> Result<Reply, Error> {
        let run = || {
            self.0.prepare_cached("SAVEPOINT one")?.execute([])?;
            let reply = self.carry_out(query);
            if reply.is_err() {
                self.0.prepare_cached("ROLLBACK TO one")?.execute([])?;
            }
            self.0.prepare_cached("RELEASE one")?.execute([])?;
            reply
        };
        run().map_err(|error| unavailable(&error))
    }

    fn carry_out(&self, query: &Query) -> rusqlite::Result<Reply> {
        Ok(match query {
            Query::Save(save) => self.save(save)?,
            Query::RemoveFlow { aor, token, now } => {
                let rows = rows_of(self.0, aor)?;
                self.remove(rows, *now, |row| {
                    row.path.as_deref().is_some_and(|path| plan::path_has_token(path, token))
                })?
            }
            Query::RemoveBindings { aor, now } => {
                let rows = rows_of(self.0, aor)?;
                self.remove(rows, *now, |_| true)?
            }
            Query::RemoveContact { contact, now } => {
                let sql = format!("SELECT {COLUMNS} FROM location WHERE contact = ?1");
                let rows = self
                    .0
                    .prepare_cached(&sql)?
                    .query_map([contact], |r| row(r, None))?
                    .collect::<rusqlite::Result<_>>()?;
                self.remove(rows, *now, |_| true)?
            }
            Query::Expire { now, limit } => self.expire(*now, *limit)?,
            Query::Presence(query) => Reply::Presence(presence::change(self.0, query)?),
            Query::UserAdd { user, domain, secret } => {
                let added = self
                    .0
                    .prepare_cached(
                        "INSERT OR IGNORE INTO subscriber (username, domain, password, ha1, ha1b) \
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![
                        user,
                        domain.to_ascii_lowercase(),
                        secret.password,
                        secret.ha1,
                        secret.ha1b
                    ])?;
                if added == 0 { Reply::Refused(Refusal::UserExists) } else { Reply::Done }
            }
            Query::UserPassword { user, domain, secret } => {
                let changed = self
                    .0
                    .prepare_cached(
                        "UPDATE subscriber SET password = ?3, ha1 = ?4, ha1b = ?5 \
                         WHERE username = ?1 AND domain = ?2",
                    )?
                    .execute(params![
                        user,
                        domain.to_ascii_lowercase(),
                        secret.password,
                        secret.ha1,
                        secret.ha1b
                    ])?;
                if changed == 0 { Reply::Refused(Refusal::NoSuchUser) } else { Reply::Done }
            }
            Query::UserRemove { user, domain } => {
                let domain = domain.to_ascii_lowercase();
                let gone = self
                    .0
                    .prepare_cached("DELETE FROM subscriber WHERE username = ?1 AND domain = ?2")?
                    .execute(params![user, domain])?;
                self.0
                    .prepare_cached("DELETE FROM location WHERE username = ?1 AND domain = ?2")?
                    .execute(params![user, domain])?;
                if gone == 0 { Reply::Refused(Refusal::NoSuchUser) } else { Reply::Done }
            }
            Query::Secret { .. }
            | Query::Bindings { .. }
            | Query::Contacts { .. }
            | Query::Domains
            | Query::Users { .. } => read(self.0, query)?,
        })
    }

    fn save(&self, save: &Save) -> rusqlite::Result<Reply> {
        let rows = rows_of(self.0, &save.aor)?;
        let bindings: Vec<Binding> = rows.iter().map(|(_, _, binding)| binding.clone()).collect();
        let changes = match plan::save(&bindings, save) {
            Ok(changes) => changes,
            Err(refusal) => return Ok(Reply::Refused(refusal)),
        };
        for (change, binding) in &changes {
            for (id, _, _) in rows.iter().filter(|(_, _, row)| row.ruid == binding.ruid) {
                self.delete(*id)?;
            }
            match change {
                Change::Added | Change::Refreshed => self.insert(&save.aor, binding)?,
                Change::Removed | Change::Replaced => {}
            }
        }
        let bindings = rows_of(self.0, &save.aor)?.into_iter().map(|(_, _, binding)| binding);
        Ok(Reply::Saved(Saved { bindings: plan::live(bindings, save.now), changes }))
    }

    fn insert(&self, aor: &Aor, binding: &Binding) -> rusqlite::Result<()> {
        self.0
            .prepare_cached(
                "INSERT INTO location (ruid, username, domain, contact, received, path, expires, q, callid, cseq, \
                 last_modified, cflags, user_agent, socket, methods, instance, reg_id) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            )?
            .execute(params![
                binding.ruid,
                aor.user,
                aor.domain,
                binding.contact,
                binding.received,
                binding.path,
                julian_seconds(binding.expires),
                // Kamailio's mark for none.
                binding.q.map_or(-1.0, |q| f64::from(q) / 1000.0),
                binding.call_id,
                binding.cseq,
                julian(binding.modified),
                binding.cflags,
                binding.user_agent,
                binding.socket,
                binding.methods,
                binding.instance,
                binding.reg_id,
            ])?;
        Ok(())
    }

    fn delete(&self, id: i64) -> rusqlite::Result<()> {
        self.0.prepare_cached("DELETE FROM location WHERE id = ?1")?.execute([id])?;
        Ok(())
    }

    /// Removes the rows that fit; tells those that were live.
    fn remove(
        &self,
        rows: Vec<(i64, Aor, Binding)>,
        now: Instant,
        fits: impl Fn(&Binding) -> bool,
    ) -> rusqlite::Result<Reply> {
        let mut gone = Vec::new();
        for (id, aor, binding) in rows {
            if fits(&binding) {
                self.delete(id)?;
                if binding.expires > now {
                    gone.push((aor, binding));
                }
            }
        }
        Ok(Reply::Removed(gone))
    }

    fn expire(&self, now: Instant, limit: usize) -> rusqlite::Result<Reply> {
        // Three ranges of one index: Julian days (the epoch stands for never), Unix seconds, and text, which sorts last.
        let sql = format!(
            "SELECT {COLUMNS} FROM location WHERE (expires <= ?1 AND expires <> ?2) \
             OR (expires > ?4 AND expires <= ?5) OR (expires >= '' AND julianday(expires) <= ?1) LIMIT ?3"
        );
        let rows: Vec<(i64, Aor, Binding)> = self
            .0
            .prepare_cached(&sql)?
            .query_map(
                params![julian(now), EPOCH, limit as i64, JULIAN_LIMIT, now.unix_secs() as f64],
                |r| row(r, None),
            )?
            .collect::<rusqlite::Result<_>>()?;
        let mut gone = Vec::new();
        for (id, aor, binding) in rows {
            self.delete(id)?;
            gone.push((aor, binding));
        }
        Ok(Reply::Removed(gone))
    }
}
