//! `--events PATH|-`: JSON lines of what happened.
//!
//! In: events of the machines, from any thread. Out: one object a line, `event` first, then `time`. A thread of its
//! own writes, so that a slow disk never holds up a call; where it falls behind, records are dropped and the loss is
//! told in the log. SIGHUP reopens a path (log rotation). Not here: the log on standard error (`log`).

use crate::start::StartError;
use serde_json::{Map, Value};
use sipbox_core::machine::{Event, Level};
use sipbox_core::time::Instant;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Records that may wait for the writer: some seconds of a busy server.
const QUEUE: usize = 8192;

enum Order {
    Record(String),
    Reopen,
    Stop,
}

/// Where records go; a clone goes to the same place.
#[derive(Clone)]
pub struct Events {
    queue: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

/// Ends the writer and waits for what is queued when it is dropped.
pub struct Writer {
    queue: SyncSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// Opens the file (appending) or standard output for `-`.
pub fn open(target: &str) -> Result<(Events, Writer), StartError> {
    let path = (target != "-").then(|| PathBuf::from(target));
    let sink = sink(path.as_deref())
        .map_err(|error| StartError::file("--events", path.as_deref().unwrap_or(Path::new("-")), &error))?;
    let (queue, orders) = sync_channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    let thread = std::thread::Builder::new()
        .name("events".into())
        .spawn(move || write_all(path, sink, &orders))
        .map_err(|error| StartError::file("--events", Path::new(target), &error))?;
    Ok((Events { queue: queue.clone(), lost }, Writer { queue, thread: Some(thread) }))
}

impl Events {
    /// One record. Debug events are for the log alone.
    pub fn write(&self, now: Instant, event: &Event) {
        if event.level == Level::Debug {
            return;
        }
        self.line(record(now, event).to_string());
    }

    /// One line that was made elsewhere (the relay's end-of-call dictionary).
    pub fn line(&self, mut line: String) {
        line.push('\n');
        match self.queue.try_send(Order::Record(line)) {
            Ok(()) => {
                let lost = self.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::warn!(lost, "events-lost");
                }
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The path is opened anew.
    pub fn reopen(&self) {
        let _ = self.queue.send(Order::Reopen);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.queue.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The object of one event.
pub fn record(now: Instant, event: &Event) -> Value {
    let mut record = Map::new();
    record.insert("event".into(), event.name.into());
    record.insert("time".into(), now.rfc3339().into());
    for (key, value) in &event.fields {
        record.insert((*key).into(), value.as_str().into());
    }
    Value::Object(record)
}

enum Sink {
    File(File),
    Stdout(io::Stdout),
}

fn sink(path: Option<&Path>) -> io::Result<Sink> {
    match path {
        Some(path) => Ok(Sink::File(OpenOptions::new().append(true).create(true).open(path)?)),
        None => Ok(Sink::Stdout(io::stdout())),
    }
}

fn write_all(path: Option<PathBuf>, mut to: Sink, orders: &Receiver<Order>) {
    let mut told = false;
    while let Ok(order) = orders.recv() {
        let result = match order {
            Order::Record(line) => match &mut to {
                Sink::File(file) => file.write_all(line.as_bytes()),
                Sink::Stdout(stdout) => {
                    let mut stdout = stdout.lock();
                    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush())
                }
            },
            Order::Reopen if path.is_some() => sink(path.as_deref()).map(|new| to = new),
            Order::Reopen => Ok(()),
            Order::Stop => return,
        };
        match result {
            Ok(()) => told = false,
            // The reader went away: the server serves on, as it would without the flag.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
            Err(error) if !told => {
                tracing::warn!(%error, "events-not-written");
                told = true;
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_lines_and_reopening_follows_the_name() {
        let path = std::env::temp_dir().join(format!("sipbox-events-{}", std::process::id()));
        let moved = path.with_extension("1");
        let (events, writer) = open(path.to_str().unwrap()).unwrap();
        events.write(Instant(0), &Event::new(Level::Info, "connected").with("peer", "ws:192.0.2.1:1"));
        events.write(Instant(0), &Event::new(Level::Debug, "chatter"));
        // The rename may overtake the writer, which has the file open: both lines are in order all the same.
        std::fs::rename(&path, &moved).unwrap();
        events.reopen();
        events.write(Instant(1_000_000), &Event::new(Level::Info, "closed"));
        drop(writer);
        assert_eq!(
            std::fs::read_to_string(&moved).unwrap(),
            "{\"event\":\"connected\",\"time\":\"1970-01-01T00:00:00.000000Z\",\"peer\":\"ws:192.0.2.1:1\"}\n"
        );
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"event\":\"closed\",\"time\":\"1970-01-01T00:00:01.000000Z\"}\n"
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&moved).unwrap();
    }
}
