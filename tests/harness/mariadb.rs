//! Debian's MariaDB, started by a test for itself: a data directory, a socket, an address and a certificate of its own.
//!
//! [`MariaDb::shared`] is the one server of this test process, started by whoever asks first (half a second); each test takes
//! a fresh [`Schema`] in it. A test that kills or stops its server starts one of its own ([`MariaDb::start`]). Either runs
//! as whoever runs the test, needs no running server of the system and disturbs none, and is gone with the test process,
//! however that ends: a shell beside it waits for the end of a pipe that only we hold, kills it by its process id and removes
//! its directory. On its own: this file needs no other of the harness, so that unit tests can take it by `#[path]`.
#![allow(dead_code)] // each test binary takes what it needs

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// From its start to its first answer.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Free bytes that a file system of memory must have; a server takes some 50 MB.
const ROOM: u64 = 1 << 30;

/// Who may do everything, over TCP and the socket.
pub const USER: &str = "sipbox";
pub const PASSWORD: &str = "wonderland";
/// The same, with a password that a URL must escape ([`HARD_PASSWORD_ESCAPED`]).
pub const HARD_USER: &str = "hard";
pub const HARD_PASSWORD: &str = "p@ss/w:rd%?#é";
pub const HARD_PASSWORD_ESCAPED: &str = "p%40ss%2Fw%3Ard%25%3F%23%C3%A9";

/// Reads words: `start` and `kill`. At the end of its input, which is the end of the test, all goes.
const KEEPER: &str = r#"
directory=$1; shift
server=
while read -r word; do
  case $word in
    start) "$@" >>"$directory/log" 2>&1 & server=$!; echo "$server" ;;
    kill) kill -9 "$server"; wait "$server" 2>/dev/null; echo gone ;;
  esac
done
[ -z "$server" ] || kill -9 "$server" 2>/dev/null
wait
rm -rf "$directory"
"#;

/// A running server.
pub struct MariaDb {
    directory: PathBuf,
    address: Ipv4Addr,
    port: u16,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    shell: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: u32,
}

impl Keeper {
    fn say(&mut self, word: &str) -> String {
        let words = self.words.as_mut().expect("until it ends");
        writeln!(words, "{word}").and_then(|()| words.flush()).expect("the shell beside the server");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("its answer");
        answer.trim().to_owned()
    }
}

impl MariaDb {
    /// The server of this test process.
    pub fn shared() -> &'static MariaDb {
        static SHARED: OnceLock<MariaDb> = OnceLock::new();
        SHARED.get_or_init(MariaDb::start)
    }

    /// A server of the caller's own; it ends with the value.
    pub fn start() -> MariaDb {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Memory where there is some: making the tables of a new server takes seconds on a disk.
        let base = Some(PathBuf::from("/dev/shm")).filter(|path| {
            let probe = path.join(format!("sipbox-probe-{pid}-{number}"));
            std::fs::create_dir(&probe).is_ok() && std::fs::remove_dir(&probe).is_ok()
        });
        let directory =
            base.unwrap_or_else(std::env::temp_dir).join(format!("sipbox-mariadb-{pid}-{number}"));
        std::fs::create_dir_all(&directory).expect("a directory");
        let address = Ipv4Addr::new(127, 41, (pid >> 8) as u8, pid as u8);
        // Free now; nobody else uses this address.
        let port =
            TcpListener::bind((address, 0)).and_then(|probe| probe.local_addr()).expect("a free port").port();
        certificate(&directory, address);
        install(&directory);
        std::fs::write(directory.join("users.sql"), users()).expect("its users");

        let mut shell = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(&directory)
            .args(server(&directory, address, port))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let keeper = Keeper {
            words: shell.stdin.take(),
            answers: BufReader::new(shell.stdout.take().expect("piped")),
            shell,
            server: 0,
        };
        let server = MariaDb { directory, address, port, keeper: Mutex::new(keeper) };
        server.start_again();
        server
    }

    /// After [`kill`](Self::kill): the same data on the same address.
    pub fn start_again(&self) {
        let mut keeper = self.keeper.lock().expect("no panic under it");
        let answer = keeper.say("start");
        keeper.server = answer.parse().unwrap_or_else(|_| panic!("no process id: {answer:?}"));
        drop(keeper);
        let deadline = Instant::now() + STARTS_WITHIN;
        while let Err(error) = self.try_connect(None) {
            assert!(Instant::now() < deadline, "MariaDB does not answer: {error}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL, and reaped.
    pub fn kill(&self) {
        assert_eq!(self.keeper.lock().expect("no panic under it").say("kill"), "gone");
    }

    /// Process id of the server, for signals.
    pub fn pid(&self) -> u32 {
        self.keeper.lock().expect("no panic under it").server
    }

    /// Stops it where it stands: it takes connections and answers nothing, until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        // The signal is sent before it is obeyed, by each thread for itself.
        let deadline = Instant::now() + Duration::from_secs(5);
        let tasks = format!("/proc/{}/task", self.pid());
        let stands = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        };
        while !std::fs::read_dir(&tasks).is_ok_and(|all| all.flatten().all(stands)) {
            assert!(Instant::now() < deadline, "MariaDB does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        // SAFETY: plain system call; the shell beside it does not reap it before it is told to.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// The authority that signed its certificate, which names its address.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// `mysql://sipbox:wonderland@ADDRESS:PORT/NAME`, for sipbox and for Kamailio.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{USER}:{PASSWORD}@{}:{}/{database}", self.address, self.port)
    }

    /// A connection of [`USER`]'s.
    pub fn connect(&self, database: Option<&str>) -> Conn {
        self.try_connect(database).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    fn try_connect(&self, database: Option<&str>) -> Result<Conn, mysql::Error> {
        let socket = self.socket();
        Conn::new(
            OptsBuilder::new()
                .socket(socket.to_str())
                .user(Some(USER))
                .pass(Some(PASSWORD))
                .db_name(database)
                .prefer_socket(false),
        )
    }

    /// A fresh, empty database; it goes with the value.
    pub fn schema(&'static self) -> Schema<'static> {
        Schema::new(self)
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of MariaDB\n{}\n---", self.log());
        }
        if let Ok(keeper) = self.keeper.get_mut() {
            drop(keeper.words.take());
            let _ = keeper.shell.wait();
        }
    }
}

/// A database of its own in a server.
pub struct Schema<'s> {
    pub server: &'s MariaDb,
    pub name: String,
}

impl<'s> Schema<'s> {
    pub fn new(server: &'s MariaDb) -> Schema<'s> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        server.connect(None).query_drop(format!("CREATE DATABASE {name}")).expect("a fresh database");
        Schema { server, name }
    }

    /// For `--db`, and for Kamailio's `db_url`.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub fn connect(&self) -> Conn {
        self.server.connect(Some(&self.name))
    }

    /// Runs a file of statements as `mariadb < FILE` does: Kamailio's own `*-create.sql`.
    pub fn run_file(&self, path: &Path) {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut connection = self.connect();
        for statement in text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            connection.query_drop(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }
}

impl Drop for Schema<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Ok(mut connection) = self.server.try_connect(None)
        {
            let _ = connection.query_drop(format!("DROP DATABASE {}", self.name));
        }
    }
}

fn free_bytes(path: &str) -> u64 {
    let Ok(path) = std::ffi::CString::new(path) else { return 0 };
    let mut room = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: both pointers are valid for the call; `statvfs` is a plain structure for which zeros are a value.
    unsafe {
        libc::statvfs(path.as_ptr(), room.as_mut_ptr());
        let room = room.assume_init();
        room.f_bavail * room.f_frsize
    }
}

/// `program` with its directory, where Debian has it outside of a user's path.
fn program(name: &str) -> PathBuf {
    let usual = Path::new("/usr/sbin").join(name);
    if usual.exists() { usual } else { PathBuf::from(name) }
}

/// What both the installer and the server are told.
fn common(directory: &Path) -> Vec<String> {
    let mut words = vec![
        "--no-defaults".to_owned(),
        format!("--datadir={}", directory.join("data").display()),
        format!("--tmpdir={}", directory.display()),
        "--innodb-log-file-size=4M".to_owned(),
        "--innodb-buffer-pool-size=16M".to_owned(),
    ];
    // SAFETY: plain system call.
    if unsafe { libc::geteuid() } == 0 {
        words.push("--user=root".to_owned());
    }
    words
}

fn install(directory: &Path) {
    let done = Command::new("mariadb-install-db")
        .args(common(directory))
        .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("mariadb-install-db (Debian package mariadb-server): {error}"));
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

fn server(directory: &Path, address: Ipv4Addr, port: u16) -> Vec<String> {
    let mut words = vec![program("mariadbd").display().to_string()];
    words.extend(common(directory));
    let file = |flag: &str, name: &str| format!("--{flag}={}", directory.join(name).display());
    words.extend([
        file("socket", "socket"),
        file("pid-file", "pid"),
        file("init-file", "users.sql"),
        file("ssl-ca", "ca.pem"),
        file("ssl-cert", "cert.pem"),
        file("ssl-key", "key.pem"),
        format!("--bind-address={address}"),
        format!("--port={port}"),
        "--skip-name-resolve".to_owned(),
        "--performance-schema=off".to_owned(),
        "--skip-log-bin".to_owned(),
    ]);
    words
}

/// Runs at each start.
fn users() -> String {
    [(USER, PASSWORD), (HARD_USER, HARD_PASSWORD)]
        .map(|(user, password)| {
            format!(
                "CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{password}';\n\
                 GRANT ALL ON *.* TO '{user}'@'%' WITH GRANT OPTION;\n"
            )
        })
        .concat()
}

/// An authority, and a server's certificate by it.
fn certificate(directory: &Path, address: Ipv4Addr) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "Example CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&key).expect("an authority");
    let issuer = Issuer::new(authority, key);
    let server_key = KeyPair::generate().expect("a key");
    let mut server = CertificateParams::new(vec![address.to_string()]).expect("names");
    server.distinguished_name.push(DnType::CommonName, "db.example.com");
    let server = server.signed_by(&server_key, &issuer).expect("a certificate");
    for (name, text) in
        [("ca.pem", ca.pem()), ("cert.pem", server.pem()), ("key.pem", server_key.serialize_pem())]
    {
        std::fs::write(directory.join(name), text).expect("a file");
    }
}
