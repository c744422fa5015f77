//! Databases: `--db` becomes threads that carry out queries.
//!
//! In: [`Query`] values, from machines by ticket and from commands by hand. Out: their [`Reply`], for a change only when it
//! is durable (ARCHITECTURE.md, invariant 5). Reading and writing have a thread and a connection each, so that no look-up waits
//! for a disk. Changes are committed in groups: all that arrived while the last commit ran goes into the next one. A database
//! that is away or locked is [`Error::Unavailable`] for those who ask meanwhile, and is tried again for the next.
//!
//! The same tables and the same code on each database: `tables` and `presence` say what a query does in SQL, `schema` what the
//! tables are, both through the trait of `sql`, which `sqlite` and `mysql` carry out. `session` is a connection and what becomes of
//! it; `url` reads `--db`; `local_time` is how MySQL's times are meant.
//! Not here: what a REGISTER does to rows (`core`, `store::plan`).

mod local_time;
mod mysql;
mod presence;
mod schema;
mod session;
mod sql;
mod sqlite;
mod tables;
#[cfg(test)]
mod tests;
mod url;

use crate::services::{self, ReplyTo};
use crate::start::{Kind, StartError};
use session::{Health, Mode, Session};
use sipbox_core::machine;
use sipbox_core::store::{Error, Query, Reply};
use sql::Fault;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// A transaction takes no more changes after that, so that other processes have their turn.
const TRANSACTION: Duration = Duration::from_millis(5);
/// How often a group is carried out that had to make way for another host's, and after what time no more.
const ATTEMPTS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(2);

type Answer = Result<Reply, Error>;
type Job = (Query, Box<dyn FnOnce(Answer) + Send>);

/// A database that is open. Clones share its threads, which end with the last of them.
#[derive(Clone)]
pub struct Database {
    reads: Sender<Job>,
    changes: Sender<Job>,
}

/// Opens it, makes file and tables where they are missing, and checks that they are ones that we know.
pub fn open(url: Option<&str>) -> Result<Database, StartError> {
    let place = Arc::new(url::parse(url)?);
    let health = Arc::new(Health::default());
    // The writer first: it makes file and tables.
    let writer = Session::open(place.clone(), Mode::Write, health.clone())?;
    let reader = Session::open(place, Mode::Read, health)?;
    Ok(Database { reads: start("store-read", reader, read)?, changes: start("store-write", writer, write)? })
}

fn start(
    name: &str,
    mut session: Session,
    serve: fn(&mut Session, &Receiver<Job>),
) -> Result<Sender<Job>, StartError> {
    let (sender, jobs) = channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || serve(&mut session, &jobs))
        .map_err(|error| StartError::new(Kind::System, format!("thread {name}: {error}")))?;
    Ok(sender)
}

impl Database {
    fn put(&self, query: Query, answer: Box<dyn FnOnce(Answer) + Send>) {
        let to = if query.changes() { &self.changes } else { &self.reads };
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

fn read(session: &mut Session, jobs: &Receiver<Job>) {
    while let Ok((query, answer)) = jobs.recv() {
        match session.read(&query) {
            Ok(reply) => answer(Ok(reply)),
            Err(fault) => fail(session, vec![(query, answer)], jobs, &fault),
        }
    }
}

fn write(session: &mut Session, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let began = Instant::now();
        let mut group = vec![first];
        let mut attempt = 1;
        let done = loop {
            // What arrives from the second attempt on waits for the next group.
            let more = (attempt == 1).then_some(jobs);
            match carry_out(session, &mut group, more, began) {
                Err(Fault::Again(_)) if attempt < ATTEMPTS && began.elapsed() < PATIENCE => {
                    session.roll_back();
                    // The other one has its turn; who lost more often waits longer.
                    std::thread::sleep(Duration::from_millis(u64::from(attempt * attempt)));
                    attempt += 1;
                }
                done => break done,
            }
        };
        match done {
            Ok(answers) => {
                group.into_iter().zip(answers).for_each(|((_, answer), reply)| answer(reply));
            }
            Err(fault) => fail(session, group, jobs, &fault),
        }
    }
}

/// One transaction with all of the group, and with what arrives meanwhile. A fault: nothing of it was confirmed by the
/// database, and nobody may be told that it was done.
fn carry_out(
    session: &mut Session,
    group: &mut Vec<Job>,
    more: Option<&Receiver<Job>>,
    began: Instant,
) -> Result<Vec<Answer>, Fault> {
    session.begin()?;
    let mut answers = Vec::with_capacity(group.len());
    while let Some((query, _)) = group.get(answers.len()) {
        answers.push(session.change(query)?);
        if answers.len() == group.len()
            && began.elapsed() <= TRANSACTION
            && let Some(job) = more.and_then(|jobs| jobs.try_recv().ok())
        {
            group.push(job);
        }
    }
    session.commit()?;
    Ok(answers)
}

/// Tells those whose queries failed; and, where the database is away, those that asked meanwhile: one after the other would
/// wait as long again each, far beyond their askers' deadlines, and longer the more there are. Whoever asks again after that
/// answer is none of them.
fn fail(session: &mut Session, mut failed: Vec<Job>, jobs: &Receiver<Job>, fault: &Fault) {
    let error = session.judge(fault);
    session.roll_back();
    match fault {
        Fault::Lost(_) | Fault::Busy(_) | Fault::Again(_) => failed.extend(jobs.try_iter()),
        Fault::Duplicate(_) | Fault::DoesNotFit(_) | Fault::Statement(_) => {}
    }
    failed.into_iter().for_each(|(_, answer)| answer(Err(error.clone())));
}
