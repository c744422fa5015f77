//! Databases: `--db` becomes threads that carry out queries.
//!
//! In: [`Query`] values, from machines by ticket and from commands by hand. Out: their [`Reply`], for a change only when it
//! is durable (ARCHITECTURE.md, invariant 5). Reading and writing have a thread each, so that no look-up waits for a disk.
//! Changes are committed in groups: all that arrived while the last commit ran goes into the next one. A database that is
//! away or locked is [`Error::Unavailable`] for those who ask meanwhile, and is tried again for the next.
//! Not here: what a REGISTER does to rows (`core`, `store::plan`).

mod presence;
mod schema;
mod sqlite;
#[cfg(test)]
mod tests;

use crate::services::{self, ReplyTo};
use crate::start::{Kind, StartError, state_directory};
use sipbox_core::machine;
use sipbox_core::store::{Error, Query, Reply};
use sqlite::Sqlite;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Name of the file in the state directory.
const FILE: &str = "sipbox.db";
/// A transaction takes no more changes after that, so that other processes have their turn.
const TRANSACTION: Duration = Duration::from_millis(5);

type Answer = Result<Reply, Error>;
type Job = (Query, Box<dyn FnOnce(Answer) + Send>);

/// A database that is open. Clones share its threads, which end with the last of them.
#[derive(Clone)]
pub struct Database {
    reads: Sender<Job>,
    changes: Sender<Job>,
}

/// Where `--db` points to: `sqlite:PATH`, or `sipbox.db` in the state directory.
pub fn path(url: Option<&str>) -> Result<PathBuf, StartError> {
    match url {
        None => Ok(state_directory()?.join(FILE)),
        Some(url) => match url.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
            _ => Err(StartError::new(Kind::Usage, format!("--db {url}: give it as sqlite:PATH"))),
        },
    }
}

/// Opens it, makes it where it is missing, and checks that its tables are ones that we know.
pub fn open(url: Option<&str>) -> Result<Database, StartError> {
    let path = path(url)?;
    // The writer first: it makes file and tables.
    let writer = Sqlite::open(&path, sqlite::Mode::Write)?;
    let reader = Sqlite::open(&path, sqlite::Mode::Read)?;
    Ok(Database { reads: start("store-read", reader, read)?, changes: start("store-write", writer, write)? })
}

fn start(
    name: &str,
    mut database: Sqlite,
    serve: fn(&mut Sqlite, &Receiver<Job>),
) -> Result<Sender<Job>, StartError> {
    let (sender, jobs) = channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || serve(&mut database, &jobs))
        .map_err(|error| StartError::new(Kind::System, format!("thread {name}: {error}")))?;
    Ok(sender)
}

impl Database {
    fn put(&self, query: Query, answer: Box<dyn FnOnce(Answer) + Send>) {
        let to = if sqlite::changes(&query) { &self.changes } else { &self.reads };
        if let Err(error) = to.send((query, answer)) {
            // A thread ends early only by a fault of ours; whoever asks is told like by any database that is away.
            (error.0.1)(Err(Error::Unavailable("its thread has ended".to_owned())));
        }
    }

    /// For commands: asks and waits.
    pub fn ask_and_wait(&self, query: Query) -> Answer {
        let (sender, answer) = channel();
        self.put(query, Box::new(move |reply| drop(sender.send(reply))));
        answer.recv().unwrap_or_else(|_| Err(Error::Unavailable("its thread has ended".to_owned())))
    }
}

impl services::Store for Database {
    fn ask(&mut self, query: Query, to: ReplyTo) {
        self.put(query, Box::new(move |reply| to.send(machine::Reply::Store(reply))));
    }
}

fn read(database: &mut Sqlite, jobs: &Receiver<Job>) {
    while let Ok((query, answer)) = jobs.recv() {
        answer(database.read(&query));
    }
}

fn write(database: &mut Sqlite, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let began = Instant::now();
        let mut group = vec![first];
        let mut answers = Vec::new();
        let committed = database.transaction(|transaction| {
            loop {
                for (query, answer) in group.drain(..) {
                    answers.push((answer, transaction.change(&query)));
                }
                if began.elapsed() > TRANSACTION {
                    return;
                }
                match jobs.try_recv() {
                    Ok(job) => group.push(job),
                    Err(_) => return,
                }
            }
        });
        match committed {
            Ok(()) => answers.into_iter().for_each(|(answer, reply)| answer(reply)),
            Err(error) => {
                answers.into_iter().for_each(|(answer, _)| answer(Err(error.clone())));
                // Those that never came into the transaction, because it could not begin.
                group.into_iter().for_each(|(_, answer)| answer(Err(error.clone())));
                // And those that asked meanwhile: one after the other would wait as long again each, far beyond their
                // askers' deadlines, and longer the more there are.
                jobs.try_iter().for_each(|(_, answer)| answer(Err(error.clone())));
            }
        }
    }
}
