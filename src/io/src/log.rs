//! The log on standard error (`--log text|json|journal`, `-v`, `-q`): one line an event.
//!
//! In: events of the machines, and what `tracing` macros in `io` and `bin` say. Out: lines; Call-ID and peer are
//! fields of their own. `journal` speaks systemd's native protocol, so that `journalctl CALL_ID=…` finds a call.
//! A thread that has much to say may hold its lines together for a moment ([`hold`]): a system call for each line was a seventh
//! of what a call cost. A warning never waits, nor what came before it.
//! Not here: `--events` (`events`).

use crate::clock::Clock;
use crate::start::{Kind, StartError};
use serde_json::{Map, Value};
use sipbox_core::machine::{Event, Level};
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// systemd's socket for the native protocol.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// How long a line may be held, and how many bytes.
const HOLD: Duration = Duration::from_millis(20);
const HOLD_BYTES: usize = 16 * 1024;

/// Lines that wait, of a thread that holds them.
struct Held {
    lines: Vec<u8>,
    /// Of the first of them.
    since: Instant,
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// While it lives, this thread's lines wait for [`flush_due`]; when it ends, also by a panic, they are written.
pub struct Holding(());

/// Begins to hold this thread's lines.
#[must_use]
pub fn hold() -> Holding {
    HELD.set(Some(Held { lines: Vec::with_capacity(HOLD_BYTES), since: Instant::now() }));
    Holding(())
}

impl Drop for Holding {
    fn drop(&mut self) {
        flush();
        HELD.set(None);
    }
}

/// When the lines that this thread holds have to be written; `None`: it holds none.
pub fn due() -> Option<Instant> {
    HELD.with_borrow(|held| held.as_ref().filter(|held| !held.lines.is_empty()).map(|held| held.since + HOLD))
}

/// Writes what is held for long enough.
pub fn flush_due() {
    if due().is_some_and(|due| due <= Instant::now()) {
        flush();
    }
}

/// Writes what is held.
pub fn flush() {
    HELD.with_borrow_mut(|held| {
        if let Some(held) = held.as_mut().filter(|held| !held.lines.is_empty()) {
            let _ = std::io::stderr().lock().write_all(&held.lines);
            held.lines.clear();
        }
    });
}

/// Writes a line, or holds it.
fn put(line: &str, level: Level) {
    let held = HELD.with_borrow_mut(|held| {
        let Some(held) = held else { return false };
        if held.lines.is_empty() {
            held.since = Instant::now();
        }
        held.lines.extend_from_slice(line.as_bytes());
        level < Level::Warn && held.lines.len() < HOLD_BYTES
    });
    if HELD.with_borrow(Option::is_none) {
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    } else if !held {
        flush();
    }
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Journal,
}

struct Log {
    format: Format,
    least: Level,
    clock: Clock,
    command: &'static str,
    journal: Option<UnixDatagram>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Begins logging for the whole process; once. `least` is the lowest level that is written.
pub fn start(format: Format, least: Level, command: &'static str, clock: Clock) -> Result<(), StartError> {
    let journal = match format {
        Format::Text | Format::Json => None,
        Format::Journal => Some(open_journal().map_err(|error| {
            StartError::new(
                Kind::Unavailable,
                format!(
                    "--log journal: {JOURNAL}: {error}; use --log text or json where systemd is not there"
                ),
            )
        })?),
    };
    if LOG.set(Log { format, least, clock, command, journal }).is_ok() {
        // Fails only where a test harness has its own subscriber, which then keeps what the macros say.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Macros));
    }
    Ok(())
}

/// Whether events of this level are written: spares their making.
pub fn wants(level: Level) -> bool {
    LOG.get().is_some_and(|log| level >= log.least)
}

/// Writes one event.
pub fn write(event: &Event) {
    if let Some(log) = LOG.get()
        && event.level >= log.least
    {
        let fields = event.fields.iter().map(|(key, value)| (*key, value.as_str()));
        log.write(event.level, event.name, fields);
    }
}

fn open_journal() -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(JOURNAL)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Log {
    fn write<'a>(&self, level: Level, name: &str, fields: impl Iterator<Item = (&'a str, &'a str)>) {
        let time = self.clock.now().rfc3339();
        if let Some(journal) = &self.journal {
            // A journal that is full or away loses lines; it never holds up a call.
            let _ = journal.send(&journal_entry(self.command, level, name, fields));
            return;
        }
        let line = match self.format {
            Format::Text | Format::Journal => text_line(&time, level, name, fields),
            Format::Json => json_line(&time, self.command, level, name, fields),
        };
        put(&line, level);
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

fn text_line<'a>(
    time: &str,
    level: Level,
    name: &str,
    fields: impl Iterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut line = format!("{time} {:5} {name}", word(level));
    for (key, value) in fields {
        let plain =
            !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        // Quoted as JSON where it could be misread: what a peer sent never makes a second line.
        let _ = match plain {
            true => write!(line, " {key}={value}"),
            false => write!(line, " {key}={}", Value::from(value)),
        };
    }
    line.push('\n');
    line
}

fn json_line<'a>(
    time: &str,
    command: &str,
    level: Level,
    name: &str,
    fields: impl Iterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut record = Map::new();
    record.insert("time".into(), time.into());
    record.insert("level".into(), word(level).into());
    record.insert("command".into(), command.into());
    record.insert("event".into(), name.into());
    for (key, value) in fields {
        record.insert(key.into(), value.into());
    }
    let mut line = Value::Object(record).to_string();
    line.push('\n');
    line
}

/// systemd's native protocol: `KEY=value` a line, or `KEY`, a 64-bit little-endian length and the bytes where the
/// value has line breaks.
fn journal_entry<'a>(
    command: &str,
    level: Level,
    name: &str,
    fields: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<u8> {
    let priority = match level {
        Level::Debug => "7",
        Level::Info => "6",
        Level::Warn => "4",
        Level::Error => "3",
    };
    let mut message = name.to_owned();
    let mut entry = Vec::new();
    for (key, value) in fields {
        let _ = write!(message, " {key}={value}");
        journal_field(&mut entry, &key.to_ascii_uppercase(), value);
    }
    journal_field(&mut entry, "MESSAGE", &message);
    journal_field(&mut entry, "PRIORITY", priority);
    journal_field(&mut entry, "SYSLOG_IDENTIFIER", &format!("sipbox-{command}"));
    journal_field(&mut entry, "SIPBOX_EVENT", name);
    entry
}

fn journal_field(entry: &mut Vec<u8>, key: &str, value: &str) {
    entry.extend_from_slice(key.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// Brings what `tracing` macros say into the same lines.
struct Macros;

impl<S: tracing::Subscriber> Layer<S> for Macros {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        // Other crates' spans and events are theirs; ours say what an operator can act on.
        metadata.target().starts_with("sipbox") && wants(level_of(metadata.level()))
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(log) = LOG.get() {
            let pairs = fields.pairs.iter().map(|(key, value)| (*key, value.as_str()));
            log.write(level_of(event.metadata().level()), &fields.message, pairs);
        }
    }
}

fn level_of(level: &tracing::Level) -> Level {
    match *level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, String)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.pairs.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [(&str, &str); 2] = [("call_id", "a84b4c@example.com"), ("reason", "two\nlines \"q\"")];

    #[test]
    fn one_line_whatever_the_peer_sent() {
        let line = text_line("T", Level::Warn, "refused", FIELDS.into_iter());
        assert_eq!(line, "T warn  refused call_id=a84b4c@example.com reason=\"two\\nlines \\\"q\\\"\"\n");
        let line = json_line("T", "wsgw", Level::Warn, "refused", FIELDS.into_iter());
        assert_eq!(
            line,
            "{\"time\":\"T\",\"level\":\"warn\",\"command\":\"wsgw\",\"event\":\"refused\",\
             \"call_id\":\"a84b4c@example.com\",\"reason\":\"two\\nlines \\\"q\\\"\"}\n"
        );
    }

    #[test]
    fn held_lines_are_due_and_written_together() {
        assert_eq!(due(), None);
        let holding = hold();
        assert_eq!(due(), None, "nothing said");
        put("one\n", Level::Info);
        let first = due().expect("a line");
        put("two\n", Level::Info);
        assert_eq!(due(), Some(first), "the first one counts");
        flush_due();
        assert!(due().is_some(), "too early");
        put("three\n", Level::Warn);
        assert_eq!(due(), None, "a warning takes them along");
        put(&"x".repeat(HOLD_BYTES), Level::Info);
        assert_eq!(due(), None, "too many to hold");
        put("four\n", Level::Debug);
        std::thread::sleep(HOLD);
        flush_due();
        assert_eq!(due(), None);
        drop(holding);
        put("five\n", Level::Info);
        assert_eq!(due(), None, "nobody holds");
    }

    #[test]
    fn journal_has_fields_of_their_own() {
        let entry = journal_entry("wsgw", Level::Info, "closed", FIELDS.into_iter());
        assert!(
            entry.starts_with(b"CALL_ID=a84b4c@example.com\nREASON\n\x0d\0\0\0\0\0\0\0two\nlines \"q\"\n")
        );
        assert!(entry.ends_with(b"PRIORITY=6\nSYSLOG_IDENTIFIER=sipbox-wsgw\nSIPBOX_EVENT=closed\n"));
    }
}
