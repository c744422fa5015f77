//! One connection to a database, and what is done when it fails.
//!
//! In: a query to read, or the steps of a transaction. Out: answers, or a [`Fault`] of the whole transaction. A connection that
//! is lost is made again for the next query, with growing pauses while the database is away: meanwhile whoever asks is told so
//! at once. What changes is told in the log once, not with every request. Not here: SQL (`tables`), threads and groups (`mod.rs`).

use super::sql::{self, Fault, Sql};
use super::url::Place;
use super::{Answer, mysql, schema, sqlite, tables};
use crate::start::StartError;
use sipbox_core::store::{Error, Query, Refusal, Reply, presence};
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Between two attempts to connect: at first, and at most.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that turns out to be lost sooner than that was closed before it was used; what takes longer is no idle one.
const QUICK: Duration = Duration::from_millis(500);

/// What it is for; each is a bit of [`Health`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Read = 1,
    Write = 2,
}

/// What the sessions of one database tell the log together: when it goes, and when all of them have it again.
#[derive(Default)]
pub(super) struct Health {
    /// Bits of [`Mode`].
    away: AtomicU8,
    /// The latest fault of a single statement.
    fault: Mutex<String>,
}

impl Health {
    fn away(&self, place: &Place, mode: Mode, reason: &str) {
        if self.away.fetch_or(mode as u8, Ordering::Relaxed) == 0 {
            tracing::warn!(database = %place, reason, "store-unavailable");
        }
    }

    fn back(&self, place: &Place, mode: Mode) {
        let bit = mode as u8;
        if self.away.load(Ordering::Relaxed) & bit != 0 && self.away.fetch_and(!bit, Ordering::Relaxed) == bit
        {
            tracing::info!(database = %place, "store-back");
        }
    }

    /// Once for each kind: it is a fault of ours or of the tables, and comes with every request of its kind.
    fn fault(&self, place: &Place, text: &str) {
        if let Ok(mut latest) = self.fault.lock()
            && *latest != text
        {
            tracing::error!(database = %place, reason = text, "store-fault");
            text.clone_into(&mut latest);
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Place::MySql(account) => account.fmt(f),
        }
    }
}

/// Until when nobody tries to connect, how long that was, and why.
struct Pause {
    until: Instant,
    length: Duration,
    reason: String,
}

pub(super) struct Session {
    place: Arc<Place>,
    mode: Mode,
    sql: Option<Box<dyn Sql>>,
    health: Arc<Health>,
    pause: Option<Pause>,
    /// A transaction is under way.
    begun: bool,
}

impl Session {
    /// For the writer, tables that are missing are made.
    pub fn open(place: Arc<Place>, mode: Mode, health: Arc<Health>) -> Result<Self, StartError> {
        let sql = Some(connect(&place, mode, mode == Mode::Write)?);
        Ok(Session { place, mode, sql, health, pause: None, begun: false })
    }

    fn sql(&mut self) -> sql::Result<&mut dyn Sql> {
        if self.sql.is_none() {
            let now = Instant::now();
            if let Some(pause) = self.pause.as_ref().filter(|pause| now < pause.until) {
                return Err(Fault::Lost(pause.reason.clone()));
            }
            match connect(&self.place, self.mode, false) {
                Ok(sql) => {
                    self.sql = Some(sql);
                    self.pause = None;
                }
                Err(StartError { message: reason, .. }) => {
                    let length =
                        self.pause.as_ref().map_or(PAUSE, |pause| (pause.length * 2).min(LONGEST_PAUSE));
                    self.pause =
                        Some(Pause { until: Instant::now() + length, length, reason: reason.clone() });
                    return Err(Fault::Lost(reason));
                }
            }
        }
        match &mut self.sql {
            Some(sql) => Ok(&mut **sql),
            None => Err(Fault::Lost("not connected".to_owned())),
        }
    }

    /// Carries out what may be carried out twice. Servers close connections that were idle for long: whether this one is
    /// away is for a new connection to tell.
    fn attempt<T>(&mut self, work: impl Fn(&mut dyn Sql) -> sql::Result<T>) -> sql::Result<T> {
        let (began, used) = (Instant::now(), self.sql.is_some());
        match work(self.sql()?) {
            Err(Fault::Lost(_)) if used && began.elapsed() < QUICK => {
                self.sql = None;
                work(self.sql()?)
            }
            done => done,
        }
    }

    pub fn read(&mut self, query: &Query) -> sql::Result<Reply> {
        let reply = self.attempt(|sql| tables::read(sql, query))?;
        self.health.back(&self.place, self.mode);
        Ok(reply)
    }

    pub fn begin(&mut self) -> sql::Result<()> {
        self.attempt(|sql| sql.plain(sql.dialect().begin))?;
        self.begun = true;
        Ok(())
    }

    /// One change of a transaction. Where it fails, it alone is rolled back, and that is its answer; a fault is the whole
    /// transaction's, which is then gone.
    pub fn change(&mut self, query: &Query) -> sql::Result<Answer> {
        let sql = self.sql()?;
        sql.plain("SAVEPOINT one")?;
        let mut reply = tables::change(sql, query);
        if matches!(reply, Err(Fault::Duplicate(_))) {
            // Another host made the same row since we looked. Now it is there to be seen.
            sql.plain("ROLLBACK TO one")?;
            reply = tables::change(sql, query);
        }
        let answer = match reply {
            Ok(reply) => Ok(reply),
            Err(fault @ (Fault::Lost(_) | Fault::Busy(_) | Fault::Again(_))) => return Err(fault),
            Err(fault) => {
                sql.plain("ROLLBACK TO one")?;
                Err(fault)
            }
        };
        if let Some(release) = sql.dialect().release {
            sql.plain(release)?;
        }
        Ok(answer.or_else(|fault| match (fault, query) {
            (Fault::Duplicate(_), Query::UserAdd { .. }) => Ok(Reply::Refused(Refusal::UserExists)),
            (Fault::DoesNotFit(_), Query::Presence(_)) => {
                Ok(Reply::Presence(presence::Reply::Refused(Refusal::DoesNotFit)))
            }
            (Fault::DoesNotFit(_), _) => Ok(Reply::Refused(Refusal::DoesNotFit)),
            (fault, _) => Err(self.judge(&fault)),
        }))
    }

    pub fn commit(&mut self) -> sql::Result<()> {
        self.sql()?.plain("COMMIT")?;
        self.begun = false;
        self.health.back(&self.place, self.mode);
        Ok(())
    }

    /// Ends a transaction that failed, so that the next one can begin. Where the connection was lost, it ended with that.
    pub fn roll_back(&mut self) {
        if std::mem::take(&mut self.begun)
            && let Some(sql) = &mut self.sql
            && sql.plain("ROLLBACK").is_err()
        {
            self.sql = None;
        }
    }

    /// What whoever asked is told, and the log where it is news. A connection that is lost goes.
    pub fn judge(&mut self, fault: &Fault) -> Error {
        let text = fault.text();
        match fault {
            Fault::Lost(_) => {
                self.sql = None;
                self.health.away(&self.place, self.mode, text);
            }
            Fault::Busy(_) | Fault::Again(_) => self.health.away(&self.place, self.mode, text),
            Fault::Duplicate(_) | Fault::DoesNotFit(_) | Fault::Statement(_) => {
                self.health.fault(&self.place, text);
            }
        }
        Error::Unavailable(text.to_owned())
    }
}

fn connect(place: &Place, mode: Mode, make: bool) -> Result<Box<dyn Sql>, StartError> {
    let mut sql = match place {
        Place::Sqlite(path) => sqlite::connect(path, mode, make)?,
        Place::MySql(account) => mysql::connect(account)?,
    };
    if mode == Mode::Write {
        schema::prepare(&mut *sql)
            .map_err(|why| StartError::new(why.kind(), format!("--db {place}: {why}")))?;
    }
    Ok(sql)
}
