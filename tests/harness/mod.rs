//! What every black-box test needs: a `sipbox` process with a directory of its own, found by its ready line,
//! and gone when the test ends, however it ends.
//!
//! In go a command's name and flags (`--listen udp:127.0.0.1:0`), out come its real addresses, its records and
//! its log. Not here: what a test sends to it.
#![allow(dead_code)] // each test binary takes what it needs

pub mod mariadb;

use mariadb::{MariaDb, Schema};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a server may take from its start to its ready line.
pub const READY_WITHIN: Duration = Duration::from_secs(20);

/// The binary under test.
pub fn sipbox() -> &'static str {
    env!("CARGO_BIN_EXE_sipbox")
}

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Db {
    /// The file in the state directory, which every command takes by itself.
    Sqlite,
    /// A fresh one in the MariaDB of this test process, named by `SIPBOX_DB`.
    MySql,
}

/// Each case on each database, as a test of its own. A case is a function that takes a [`Db`].
#[macro_export]
macro_rules! on_each_database {
    ($($case:ident)*) => {
        mod on_sqlite { $(#[test] fn $case() { super::$case(super::harness::Db::Sqlite); })* }
        mod on_mysql { $(#[test] fn $case() { super::$case(super::harness::Db::MySql); })* }
    };
}

/// A directory that goes away with the value; one whose test failed stays, and is named on stderr. With it goes the
/// database of the servers and commands that run in it.
pub struct TempDir {
    path: PathBuf,
    schema: Option<Schema<'static>>,
}

impl TempDir {
    /// For what has no database, or SQLite's file.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sipbox-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        TempDir { path, schema: None }
    }

    /// On this kind of database.
    pub fn on(db: Db) -> Self {
        match db {
            Db::Sqlite => TempDir::new(),
            Db::MySql => TempDir::with(MariaDb::shared().schema()),
        }
    }

    /// On MySQL, in a server that the test may kill.
    pub fn with(schema: Schema<'static>) -> Self {
        let mut dir = TempDir::new();
        dir.schema = Some(schema);
        dir
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or directory in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What `--db` says where it is said.
    pub fn db(&self) -> String {
        match &self.schema {
            Some(schema) => schema.url(),
            None => format!("sqlite:{}", self.join("sipbox.db").display()),
        }
    }

    /// One statement behind the servers' backs.
    pub fn sql(&self, statement: &str) {
        match &self.schema {
            Some(schema) => mysql::prelude::Queryable::query_drop(&mut schema.connect(), statement)
                .unwrap_or_else(|error| panic!("{statement}: {error}")),
            None => rusqlite::Connection::open(self.join("sipbox.db"))
                .and_then(|raw| raw.execute_batch(statement))
                .unwrap_or_else(|error| panic!("{statement}: {error}")),
        }
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.path.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// An address of 127.0.0.0/8 that no other test process, and no other call in this one, uses.
pub fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 1;
    let pid = std::process::id();
    // 127.16.x.y upwards: well away from the addresses that people pick by hand.
    Ipv4Addr::new(127, 16 + (pid >> 8 & 0x7f) as u8, pid as u8, number as u8)
}

/// Lines of one output stream, collected by a thread so that the process never blocks on a full pipe.
#[derive(Clone)]
pub struct Lines(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Reads `stream` to its end.
    pub fn collect(stream: impl Read + Send + 'static) -> Self {
        let lines = Lines(Arc::new((Mutex::new(Collected::default()), Condvar::new())));
        let theirs = lines.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                theirs.0.0.lock().unwrap().lines.push(text);
                theirs.0.1.notify_all();
                line.clear();
            }
            theirs.0.0.lock().unwrap().ended = true;
            theirs.0.1.notify_all();
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }

    /// The first line from number `from` on that `wanted` takes; `None` when the stream ended or time is up.
    pub fn wait<T>(
        &self,
        from: usize,
        within: Duration,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut next = from;
        let mut collected = self.0.0.lock().unwrap();
        loop {
            while let Some(line) = collected.lines.get(next) {
                if let Some(found) = wanted(line) {
                    return Some(found);
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if collected.ended || left.is_zero() {
                return None;
            }
            collected = self.0.1.wait_timeout(collected, left).unwrap().0;
        }
    }
}

/// A child that is killed (by its own process id) and reaped on drop, and by the kernel when we die.
pub struct Process {
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
    name: String,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts it with nothing on its standard input.
    pub fn start(command: Command) -> Self {
        Process::start_with(command, b"")
    }

    /// Starts it with `input` on its standard input.
    pub fn start_with(command: Command, input: &[u8]) -> Self {
        let (process, mut pipe) = Process::start_piped(command);
        // A command that exits without reading closes the pipe: that is its right.
        let _ = pipe.write_all(input);
        process
    }

    /// Starts it, and leaves its standard input to the caller.
    pub fn start_piped(mut command: Command) -> (Self, ChildStdin) {
        let name = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl is async-signal-safe, and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = Lines::collect(child.stdout.take().expect("piped"));
        let stderr = Lines::collect(child.stderr.take().expect("piped"));
        let stdin = child.stdin.take().expect("piped");
        (Process { child, stdout, stderr, name, status: None }, stdin)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to this process.
    pub fn signal(&self, signal: i32) {
        if self.status.is_none() {
            // SAFETY: plain system call; the id is our unreaped child's, so it names no other process.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }

    /// Waits for its end; `None` when it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        while self.status.is_none() {
            self.status = self.child.try_wait().expect("our child");
            if self.status.is_none() {
                if Instant::now() > deadline {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            // What it wrote is read by threads, which may be behind: after its end, its log is whole.
            for stream in [&self.stdout, &self.stderr] {
                stream.wait(usize::MAX, Duration::from_secs(1), |_| None::<()>);
            }
        }
        self.status
    }

    /// Its exit code within `within`; a panic with its log when it hangs or died of a signal.
    pub fn exit_code(&mut self, within: Duration) -> i32 {
        let Some(status) = self.wait(within) else {
            panic!("{} still runs after {within:?}; its log:\n{}", self.name, self.log());
        };
        status.code().unwrap_or_else(|| {
            panic!("{} died of signal {:?}; its log:\n{}", self.name, status.signal(), self.log())
        })
    }

    /// SIGKILL, and reaped.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let _ = self.wait(Duration::from_secs(5));
    }

    /// Everything that it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.stderr.all().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}\n---", self.name, self.log());
        }
        self.kill();
    }
}

/// Whoever reads `--events` looks in the manual page for what a name means.
impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let command = self.ready["command"].as_str().unwrap_or_default().to_owned();
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("man/sipbox-{command}.1"));
        let page = std::fs::read_to_string(&page).unwrap_or_default();
        let page = ["\\fB", "\\fI", "\\fR", "\\"].iter().fold(page, |page, roff| page.replace(roff, ""));
        let words: Vec<&str> = page.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
        for record in self.records() {
            if let Some(name) = record["event"].as_str() {
                assert!(words.contains(&name), "{command}'s manual page does not tell of the event {name:?}");
            }
        }
    }
}

/// A running sipbox server.
pub struct Server {
    pub process: Process,
    /// The ready line.
    pub ready: Value,
    listen: Vec<String>,
    dir: Arc<TempDir>,
}

impl Server {
    /// Starts `sipbox COMMAND ARGS` in a directory of its own and waits until it serves.
    pub fn start<S: AsRef<str>>(command: &str, args: &[S]) -> Server {
        Server::start_in(Arc::new(TempDir::new()), command, args)
    }

    /// The same in a directory that several servers, or a server and its successor, share.
    pub fn start_in<S: AsRef<str>>(dir: Arc<TempDir>, command: &str, args: &[S]) -> Server {
        let line = server_command(&dir, command, args);
        Server::of(dir, command, line)
    }

    /// The same with a command line made by [`server_command`], and changed since.
    pub fn of(dir: Arc<TempDir>, command: &str, line: Command) -> Server {
        let mut process = Process::start(line);
        let ready = process.stdout.wait(0, READY_WITHIN, |line| Some(line.to_owned()));
        let Some(line) = ready else {
            let status = process.wait(Duration::from_millis(500));
            panic!("{command} gave no ready line ({status:?}); its log:\n{}", process.log());
        };
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{command}: {line}: {e}"));
        assert_eq!(ready["event"], "ready", "{command}: the first line on stdout is {line}");
        let listen = ready["listen"].as_array().unwrap_or_else(|| panic!("{command}: no listen in {line}"));
        let listen = listen.iter().map(|uri| uri.as_str().unwrap_or_default().to_owned()).collect();
        Server { process, ready, listen, dir }
    }

    /// What it listens on, as URIs with the real ports: `udp:127.0.0.1:5060`.
    pub fn listen(&self) -> &[String] {
        &self.listen
    }

    /// The address behind the first listener of this scheme (`udp`, `tcp`, `tls`, `ws`, `wss`).
    pub fn address(&self, scheme: &str) -> SocketAddr {
        let found = self.listen.iter().find_map(|uri| uri.strip_prefix(scheme)?.strip_prefix(':'));
        let found = found.unwrap_or_else(|| panic!("no {scheme} among {:?}", self.listen));
        found.parse().unwrap_or_else(|error| panic!("{found}: {error}"))
    }

    /// Its directory: the state directory, and its working directory.
    pub fn dir(&self) -> &Arc<TempDir> {
        &self.dir
    }

    /// All of its log so far.
    pub fn stderr(&self) -> String {
        self.process.log()
    }

    /// Records that followed the ready line on stdout (`--events -`).
    pub fn records(&self) -> Vec<Value> {
        self.process.stdout.all().iter().skip(1).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first record on stdout that `wanted` takes, waiting for it.
    pub fn wait_record(&self, within: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        self.process
            .stdout
            .wait(1, within, |line| serde_json::from_str::<Value>(line).ok().filter(|record| wanted(record)))
    }

    /// The first log line that contains `text`, waiting for it.
    pub fn wait_log(&self, within: Duration, text: &str) -> Option<String> {
        self.process.stderr.wait(0, within, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// SIGTERM; its exit code. It may drain for as long as it was told to.
    pub fn stop(&mut self) -> i32 {
        self.process.signal(libc::SIGTERM);
        self.process.exit_code(Duration::from_secs(15))
    }
}

/// `sipbox COMMAND ARGS`, in `dir` as state and working directory, deaf to the caller's `SIPBOX_*`.
pub fn server_command<S: AsRef<str>>(dir: &TempDir, command: &str, args: &[S]) -> Command {
    let mut line = Command::new(sipbox());
    line.arg(command).args(args.iter().map(AsRef::as_ref)).current_dir(dir.path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SIPBOX_") {
            line.env_remove(name);
        }
    }
    if let Some(schema) = &dir.schema {
        line.env("SIPBOX_DB", schema.url());
    }
    line.env("STATE_DIRECTORY", dir.path()).env("HOME", dir.path()).env_remove("NOTIFY_SOCKET");
    line
}

/// What a command left when it ended.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `sipbox ARGS` with `input` on its standard input to its end, at most 60 seconds.
pub fn run<S: AsRef<str>>(args: &[S], input: &[u8]) -> Finished {
    run_in(&TempDir::new(), args, input)
}

/// The same in this directory.
pub fn run_in<S: AsRef<str>>(dir: &TempDir, args: &[S], input: &[u8]) -> Finished {
    let (command, rest) = args.split_first().expect("a command");
    let mut process = Process::start_with(server_command(dir, command.as_ref(), rest), input);
    let code = process.exit_code(Duration::from_secs(60));
    // The readers see the end of the pipes a moment after the exit.
    for lines in [&process.stdout, &process.stderr] {
        lines.wait(usize::MAX, Duration::from_secs(2), |_| None::<()>);
    }
    let text = |lines: &Lines| lines.all().iter().map(|line| format!("{line}\n")).collect();
    Finished { code, stdout: text(&process.stdout), stderr: text(&process.stderr) }
}

/// The shared captures, which stand beside the repository and not in it; None, said aloud, where they do not.
pub fn shared_captures() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/pcap");
    if !dir.join("expected.json").is_file() {
        eprintln!("SKIPPED: no shared corpus at {}", dir.display());
        return None;
    }
    Some(dir)
}

/// Runs `sipbox ARGS` with a terminal as its standard error, and gives what it wrote there, bytes and all.
pub fn run_on_terminal<S: AsRef<str>>(args: &[S]) -> (Finished, Vec<u8>) {
    use std::os::fd::{FromRawFd, OwnedFd};
    let dir = TempDir::new();
    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors are written before they are read, and are ours alone from then on.
    let (ours, theirs) = unsafe {
        let made = libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size);
        assert_eq!(made, 0, "openpty: {}", std::io::Error::last_os_error());
        (std::fs::File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    };
    let (command, rest) = args.split_first().expect("a command");
    let mut command = server_command(&dir, command.as_ref(), rest);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(theirs);
    let mut child = command.spawn().expect("sipbox");
    // The command has our end of the terminal's other side: without it, reading ends when the child does.
    drop(command);
    let screen = std::thread::spawn(move || {
        let (mut ours, mut seen, mut buffer) = (ours, Vec::new(), [0; 4096]);
        // A terminal that nobody has open any more is an I/O error, not an end.
        while let Ok(length @ 1..) = ours.read(&mut buffer) {
            seen.extend(&buffer[..length]);
        }
        seen
    });
    let stdout = Lines::collect(child.stdout.take().expect("piped"));
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        match child.try_wait().expect("our child") {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("still runs: {:?}", stdout.all());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    stdout.wait(usize::MAX, Duration::from_secs(2), |_| None::<()>);
    let screen = screen.join().expect("a reader");
    let text = stdout.all().iter().map(|line| format!("{line}\n")).collect();
    let stderr = String::from_utf8_lossy(&screen).into_owned();
    (Finished { code: status.code().unwrap_or(-1), stdout: text, stderr }, screen)
}

/// A bar was drawn on the terminal `screen`, and nothing of it is left.
pub fn assert_bar_came_and_went(screen: &[u8], name: &str) {
    let text = String::from_utf8_lossy(screen);
    let at = text.find(name).unwrap_or_else(|| panic!("no bar for {name}: {text:?}"));
    assert!(text[at..].contains("% of "), "no bar: {text:?}");
    // The last thing that is done to the line is that it is emptied.
    let cleared = text.rfind("\x1b[2K").unwrap_or_else(|| panic!("never cleared: {text:?}"));
    let left = text[cleared + 4..].replace(['\r', '\n'], "").replace("\x1b[1A", "");
    assert_eq!(left, "", "left on the terminal: {text:?}");
}

/// One ng request in JSON to a relay, and its reply; sent again twice when nothing comes.
pub fn ng(relay: SocketAddr, request: &Value) -> Value {
    static COOKIE: AtomicU32 = AtomicU32::new(0);
    let cookie = format!("t{}_{}", std::process::id(), COOKIE.fetch_add(1, Ordering::Relaxed));
    let any = if relay.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
    let mut buffer = vec![0; 65_536];
    for _ in 0..3 {
        socket.send_to(format!("{cookie} {request}").as_bytes(), relay).expect("sent to the relay");
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            if let Some(body) = text.strip_prefix(cookie.as_str()) {
                return serde_json::from_str(body.trim_start()).unwrap_or_else(|e| panic!("{body}: {e}"));
            }
        }
    }
    panic!("the relay at {relay} does not answer {request}");
}
