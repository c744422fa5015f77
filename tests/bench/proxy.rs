//! The proxy beside Kamailio: CPU of the server for a call and for an OPTIONS, and how long a call takes to set up.
//!
//! Goes in: `--what options|setup|call|all --transport udp|tcp|tls|all --workers N --runs N --cps N
//! --seconds N`, `SIPBOX` in the environment (the binary).
//! Comes out: JSON lines on stdout (a run each, then medians and ratios), a table on stderr. Both servers get the same calls
//! of the same sipp scenarios in turns, so that whatever else the machine does meets both; both add Record-Route, authenticate
//! nobody and ask no database. Kamailio has its quickest memory manager. CPU is that of all threads of all processes of
//! a server, from the scheduler. TLS is between a server and socat, before and behind it: Debian's sipp speaks none. OPTIONS
//! come in a closed loop from a thread here; the floor is a process that receives and sends. Exit code 1 where a median is
//! beyond the design: 0.7 of Kamailio a call and its set-up time at p99, 1.0 an OPTIONS. Not here: media, databases.

mod setup;

use std::fs;
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SERVER: &str = "127.49.0.1";
const CALLER: &str = "127.49.0.2";
const CALLEE: &str = "127.49.0.3";
const PORT: u16 = 5060;
const SECURE: u16 = 5061;
/// Where the caller's TLS begins.
const ENTRY: u16 = 5062;
/// OPTIONS under way at a time.
const WINDOW: usize = 16;
const FLOOD: Duration = Duration::from_secs(3);
const START: Duration = Duration::from_secs(20);
/// For an answer to OPTIONS.
const PATIENCE: Duration = Duration::from_millis(500);
/// At most so much of Kamailio's CPU.
const CALL_GOAL: f64 = 0.7;
const OPTIONS_GOAL: f64 = 1.0;
/// At most so much of Kamailio's set-up time at p99: no worse, but for what one run differs from the next.
const SETUP_GOAL: f64 = 1.1;

struct Plan {
    sipbox: PathBuf,
    scenarios: PathBuf,
    place: PathBuf,
    workers: u32,
    runs: u32,
    cps: u32,
    seconds: u32,
}

/// A process that ends with us.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        // By the system's own tool: SIGTERM takes what it forked with it.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Nanoseconds of CPU, of it and what it forked.
    fn cpu(&self) -> u64 {
        let own = self.0.id();
        let mut pids = vec![own];
        let tasks = fs::read_dir(format!("/proc/{own}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        let mut sum = 0;
        for pid in pids {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                sum += stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        sum
    }
}

fn failed(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Other, what.into())
}

fn port(transport: &str) -> u16 {
    if transport == "tls" { SECURE } else { PORT }
}

fn log(plan: &Plan, name: &str) -> Result<Stdio> {
    Ok(Stdio::from(fs::File::create(plan.place.join(name))?))
}

fn start(plan: &Plan, server: &str, transport: &str) -> Result<Process> {
    let next = format!("sip:{CALLEE}:{};transport={transport}", port(transport));
    let (key, certificate) = (plan.place.join("key.pem"), plan.place.join("certificate.pem"));
    let mut command;
    match server {
        "sipbox" => {
            command = Command::new(&plan.sipbox);
            command.args(["proxy", "--auth", "none", "--rate-limit", "off", "--domain", "example.com"]);
            command.args(["--listen", &format!("udp:{SERVER}:{PORT}"), "--route", &format!("*={next}")]);
            command.args(["--trust", &format!("{CALLER}/32"), "--workers", &plan.workers.to_string()]);
            command.arg("--db").arg(format!("sqlite:{}", plan.place.join("sipbox.db").display()));
            command.arg("--secret-file").arg(plan.place.join("secrets"));
            match transport {
                "tcp" => drop(command.args(["--listen", &format!("tcp:{SERVER}:{PORT}")])),
                "tls" => {
                    command.args(["--listen", &format!("tls:{SERVER}:{SECURE}"), "--tls-insecure"]);
                    command.arg("--tls-key").arg(&key).arg("--tls-cert").arg(&certificate);
                }
                _ => {}
            }
        }
        "kamailio" => {
            command = Command::new("kamailio");
            command.args(["-DD", "-E", "-m", "512", "-M", "16", "-x", "fm", "-X", "fm"]);
            command.arg("-f").arg(plan.scenarios.join("kamailio.cfg")).arg("-Y").arg(&plan.place);
            command.args(["-l", &format!("udp:{SERVER}:{PORT}"), "-n", &plan.workers.to_string()]);
            command.args(["-A", &format!("NEXT=\"{next}\""), "-A", &format!("WORKERS={}", plan.workers)]);
            if transport != "udp" {
                command.args(["-A", "WITH_TCP", "-l", &format!("{transport}:{SERVER}:{}", port(transport))]);
            }
            if transport == "tls" {
                command.args(["-A", "WITH_TLS", "-A", &format!("KEY=\"{}\"", key.display())]);
                command.args(["-A", &format!("CERTIFICATE=\"{}\"", certificate.display())]);
            }
        }
        _ => {
            command = Command::new(std::env::current_exe()?);
            command.arg("--floor");
        }
    }
    command.stdin(Stdio::null()).stdout(log(plan, &format!("{server}.out"))?);
    let mut process = Process(command.stderr(log(plan, &format!("{server}.err"))?).spawn()?);
    let probe = UdpSocket::bind((CALLER, 0))?;
    probe.connect((SERVER, PORT))?;
    let at = probe.local_addr()?;
    probe.set_read_timeout(Some(Duration::from_millis(100)))?;
    let until = Instant::now() + START;
    let mut buffer = [0; 2048];
    for nth in 0.. {
        // Refused while nobody listens.
        let _ = probe.send(options(at, "udp", nth).as_bytes());
        match probe.recv(&mut buffer) {
            Ok(_) => break,
            Err(_) if Instant::now() > until => return Err(failed(format!("{server} does not answer"))),
            Err(_) => sleep(Duration::from_millis(50)),
        }
        if let Some(status) = process.0.try_wait()? {
            return Err(failed(format!("{server} ended: {status}; see {}", plan.place.display())));
        }
    }
    Ok(process)
}

fn options(at: SocketAddr, transport: &str, nth: u64) -> String {
    let via = transport.to_uppercase();
    format!(
        "OPTIONS sip:{SERVER}:{PORT} SIP/2.0\r\nVia: SIP/2.0/{via} {at};branch=z9hG4bK-{nth}-{port}\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.com>;tag={nth}\r\nTo: <sip:{SERVER}:{PORT}>\r\nCall-ID: {nth}-{port}@{CALLER}\r\n\
         CSeq: 1 OPTIONS\r\nContact: <sip:alice@{at}>\r\nContent-Length: 0\r\n\r\n",
        port = at.port()
    )
}

/// As many OPTIONS as are answered in a while, so many under way at a time; microseconds of the server's CPU for each.
fn flood(plan: &Plan, server: &Process, transport: &str) -> Result<f64> {
    let _secured = if transport == "tls" { secured(plan)? } else { Vec::new() };
    let mut asker: Box<dyn Asker> = if transport == "udp" {
        let socket = UdpSocket::bind((CALLER, 0))?;
        socket.connect((SERVER, PORT))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Box::new(socket)
    } else {
        let stream = connect(if transport == "tls" { (CALLER, ENTRY) } else { (SERVER, PORT) })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Box::new(Stream(stream, Vec::new()))
    };
    let at = asker.address()?;
    let (mut sent, mut answered) = (0u64, 0u64);
    let mut ask = |asker: &mut dyn Asker| {
        sent += 1;
        asker.ask(options(at, transport, sent).as_bytes())
    };
    // What costs once is over: a handshake, a connection.
    ask(&mut *asker)?;
    if asker.answers()? == 0 {
        return Err(failed(format!("no OPTIONS is answered by {transport}")));
    }
    let begin = (Instant::now(), server.cpu());
    for _ in 0..WINDOW {
        ask(&mut *asker)?;
    }
    while begin.0.elapsed() < FLOOD {
        let came = asker.answers()?;
        answered += came;
        // Lost: another one takes its place.
        for _ in 0..came.max(1) {
            ask(&mut *asker)?;
        }
    }
    Ok((server.cpu() - begin.1) as f64 / 1000.0 / answered.max(1) as f64)
}

/// socat takes a moment to listen.
fn connect(to: (&str, u16)) -> Result<TcpStream> {
    let until = Instant::now() + START;
    loop {
        match TcpStream::connect(to) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < until => {
                sleep(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

/// Sends OPTIONS, and counts what is answered.
trait Asker {
    fn address(&self) -> Result<SocketAddr>;
    fn ask(&mut self, request: &[u8]) -> Result<()>;
    /// None: nothing came in time.
    fn answers(&mut self) -> Result<u64>;
}

impl Asker for UdpSocket {
    fn address(&self) -> Result<SocketAddr> {
        self.local_addr()
    }

    fn ask(&mut self, request: &[u8]) -> Result<()> {
        self.send(request).map(drop)
    }

    fn answers(&mut self) -> Result<u64> {
        in_time(self.recv(&mut [0; 2048])).map(|length| u64::from(length > 0))
    }
}

/// A connection, and the end of what came by it: a head may be cut anywhere.
struct Stream(TcpStream, Vec<u8>);

impl Asker for Stream {
    fn address(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }

    fn ask(&mut self, request: &[u8]) -> Result<()> {
        self.0.write_all(request)
    }

    /// None has a body, so each ends with an empty line.
    fn answers(&mut self) -> Result<u64> {
        const END: &[u8] = b"\r\n\r\n";
        let mut buffer = [0; 65_536];
        let length = in_time(self.0.read(&mut buffer))?;
        self.1.extend_from_slice(&buffer[..length]);
        let answers = self.1.windows(END.len()).filter(|bytes| *bytes == END).count();
        self.1.drain(..self.1.len().saturating_sub(END.len() - 1));
        Ok(answers as u64)
    }
}

fn in_time(read: Result<usize>) -> Result<usize> {
    match read {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// What receives and sends, and does nothing else.
fn floor() -> Result<()> {
    let socket = UdpSocket::bind((SERVER, PORT))?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], from)?;
    }
}

struct Run {
    cpu: f64,
    calls: u64,
    failed: u64,
}

/// TLS for the caller, and for the callee: each end speaks TCP with one that speaks TLS with the server.
fn secured(plan: &Plan) -> Result<Vec<Process>> {
    let ways = [
        (
            format!("TCP-LISTEN:{ENTRY},bind={CALLER},reuseaddr,fork,nodelay"),
            format!("OPENSSL:{SERVER}:{SECURE},bind={CALLER},verify=0,nodelay"),
        ),
        (
            format!(
                "OPENSSL-LISTEN:{SECURE},bind={CALLEE},reuseaddr,fork,nodelay,verify=0,cert=certificate.pem,key=key.pem"
            ),
            format!("TCP:{CALLEE}:{PORT},nodelay"),
        ),
    ];
    let mut all = Vec::new();
    for (number, (from, to)) in ways.iter().enumerate() {
        let mut command = Command::new("socat");
        command.args(["-b", "65536", from, to]).current_dir(&plan.place).stdin(Stdio::null());
        command
            .stdout(log(plan, &format!("socat{number}.out"))?)
            .stderr(log(plan, &format!("socat{number}.err"))?);
        all.push(Process(command.spawn()?));
    }
    Ok(all)
}

fn calls(plan: &Plan, server: &Process, transport: &str) -> Result<Run> {
    let sipp = |scenario: &str, address: &str| -> Result<Command> {
        let mut command = Command::new("sipp");
        command.arg("-sf").arg(plan.scenarios.join(scenario)).args(["-i", address, "-nostdin"]);
        command.args(["-p", &PORT.to_string(), "-t", if transport == "udp" { "u1" } else { "t1" }]);
        command.args(["-key", "told", &transport.to_uppercase()]);
        command.args(["-key", "told_port", &port(transport).to_string()]);
        command.args(["-buff_size", "4194304"]).current_dir(&plan.place).stdin(Stdio::null());
        Ok(command)
    };
    let secured = if transport == "tls" { secured(plan)? } else { Vec::new() };
    let callee = sipp("callee.xml", CALLEE)?
        .stdout(log(plan, "callee.out")?)
        .stderr(log(plan, "callee.err")?)
        .spawn()?;
    let _callee = Process(callee);
    sleep(Duration::from_millis(500));
    let before = server.cpu();
    let mut command = sipp("caller.xml", CALLER)?;
    let wanted = u64::from(plan.cps) * u64::from(plan.seconds);
    command.args(["-m", &wanted.to_string(), "-r", &plan.cps.to_string(), "-l", "20000"]);
    command.args(["-trace_stat", "-stf", "stat.csv", "-fd", "1"]);
    command.args(["-timeout", &format!("{}s", plan.seconds + 60), "-timeout_error"]);
    command.arg(if secured.is_empty() { format!("{SERVER}:{PORT}") } else { format!("{CALLER}:{ENTRY}") });
    command.stdout(log(plan, "caller.out")?).stderr(log(plan, "caller.err")?);
    let mut caller = Process(command.spawn()?);
    caller.0.wait()?;
    let cpu = (server.cpu() - before) as f64 / 1000.0;
    let stat = fs::read_to_string(plan.place.join("stat.csv"))?;
    let names = stat.lines().next().unwrap_or_default().split(';');
    let values = stat.lines().last().unwrap_or_default().split(';');
    let of = |name: &str| {
        let found = names.clone().zip(values.clone()).find(|(own, _)| *own == name);
        found.and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
    };
    let (calls, failed) = (of("SuccessfulCall(C)"), of("FailedCall(C)"));
    Ok(Run { cpu: cpu / calls.max(1) as f64, calls, failed })
}

fn at(sorted: &[f64], hundredth: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * hundredth / 100).min(last)).copied().unwrap_or(f64::NAN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    at(&values, 50)
}

fn bench_calls(plan: &Plan, transport: &str, over: &mut Vec<String>) -> Result<()> {
    let mut all = [Vec::new(), Vec::new()];
    for run in 0..plan.runs {
        for (server, costs) in ["kamailio", "sipbox"].iter().zip(&mut all) {
            let process = start(plan, server, transport)?;
            let done = calls(plan, &process, transport)?;
            println!(
                "{{\"bench\":\"proxy\",\"what\":\"call\",\"server\":\"{server}\",\"transport\":\"{transport}\",\"workers\":{},\"run\":{run},\
                 \"cpu_us\":{:.1},\"calls\":{},\"failed\":{}}}",
                plan.workers, done.cpu, done.calls, done.failed
            );
            if done.failed > 0 || done.calls == 0 {
                over.push(format!("{server} by {transport}: {} calls failed", done.failed));
            }
            costs.push(done.cpu);
        }
    }
    let [theirs, ours] = all.map(median);
    let ratio = ours / theirs;
    println!(
        "{{\"bench\":\"proxy\",\"what\":\"call\",\"transport\":\"{transport}\",\"workers\":{},\"kamailio_us\":{theirs:.1},\"sipbox_us\":{ours:.1},\
         \"ratio\":{ratio:.3}}}",
        plan.workers
    );
    eprintln!(
        "call    {transport} workers {}: kamailio {theirs:7.1} µs, sipbox {ours:7.1} µs, ratio {ratio:.2}",
        plan.workers
    );
    if ratio > CALL_GOAL {
        over.push(format!("a call by {transport}: {ratio:.2} of Kamailio's CPU, wanted {CALL_GOAL}"));
    }
    Ok(())
}

fn bench_setup(plan: &Plan, over: &mut Vec<String>) -> Result<()> {
    let address = |host: &str, port: u16| {
        (host.parse().map(|ip: std::net::IpAddr| (ip, port).into())).map_err(Error::other)
    };
    let parties = setup::Parties {
        server: address(SERVER, PORT)?,
        caller: address(CALLER, 0)?,
        callee: address(CALLEE, PORT)?,
        cps: plan.cps,
        seconds: plan.seconds,
    };
    let wanted = (plan.cps * plan.seconds) as usize;
    let mut all = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for run in 0..plan.runs {
        for (server, (p50, p99)) in ["kamailio", "sipbox"].iter().zip(&mut all) {
            let _process = start(plan, server, "udp")?;
            let times = setup::measure(&parties)?;
            let told = [at(&times, 50), at(&times, 99), at(&times, 100)];
            println!(
                "{{\"bench\":\"proxy\",\"what\":\"setup\",\"server\":\"{server}\",\"workers\":{},\"run\":{run},\"calls\":{},\
                 \"p50_ms\":{:.3},\"p99_ms\":{:.3},\"most_ms\":{:.3}}}",
                plan.workers,
                times.len(),
                told[0],
                told[1],
                told[2]
            );
            if times.len() < wanted {
                over.push(format!("{server}: {} of {wanted} calls were set up", times.len()));
            }
            p50.push(told[0]);
            p99.push(told[1]);
        }
    }
    let [theirs, ours] = all.map(|(p50, p99)| (median(p50), median(p99)));
    println!(
        "{{\"bench\":\"proxy\",\"what\":\"setup\",\"workers\":{},\"kamailio_p50_ms\":{:.3},\"sipbox_p50_ms\":{:.3},\
         \"kamailio_p99_ms\":{:.3},\"sipbox_p99_ms\":{:.3}}}",
        plan.workers, theirs.0, ours.0, theirs.1, ours.1
    );
    eprintln!(
        "set-up  udp workers {}: p50 kamailio {:.3} ms, sipbox {:.3} ms; p99 kamailio {:.3} ms, sipbox {:.3} ms",
        plan.workers, theirs.0, ours.0, theirs.1, ours.1
    );
    if ours.1 > theirs.1 * SETUP_GOAL {
        over.push(format!("set-up at p99: {:.3} ms, Kamailio {:.3}", ours.1, theirs.1));
    }
    Ok(())
}

fn bench_options(plan: &Plan, transport: &str, over: &mut Vec<String>) -> Result<()> {
    // The floor is known for UDP.
    let servers: &[&str] = &["kamailio", "sipbox", "floor"][..if transport == "udp" { 3 } else { 2 }];
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    for run in 0..plan.runs {
        for (server, costs) in servers.iter().zip(&mut all) {
            let process = start(plan, server, transport)?;
            let cost = flood(plan, &process, transport)?;
            println!(
                "{{\"bench\":\"proxy\",\"what\":\"options\",\"server\":\"{server}\",\"transport\":\"{transport}\",\"workers\":{},\"run\":{run},\
                 \"cpu_us\":{cost:.2}}}",
                plan.workers
            );
            costs.push(cost);
        }
    }
    let [theirs, ours, floor] = all.map(median);
    let ratio = ours / theirs;
    let (mut told, mut beside) = (String::new(), String::new());
    if transport == "udp" {
        told = format!(",\"floor_us\":{floor:.2},\"of_floor\":{:.3}", ours / floor);
        beside = format!("; floor {floor:.2} µs, of it {:.2}", ours / floor);
    }
    println!(
        "{{\"bench\":\"proxy\",\"what\":\"options\",\"transport\":\"{transport}\",\"workers\":{},\"kamailio_us\":{theirs:.2},\
         \"sipbox_us\":{ours:.2},\"ratio\":{ratio:.3}{told}}}",
        plan.workers
    );
    eprintln!(
        "OPTIONS {transport} workers {}: kamailio {theirs:7.2} µs, sipbox {ours:7.2} µs, ratio {ratio:.2}{beside}",
        plan.workers
    );
    if ratio > OPTIONS_GOAL {
        over.push(format!("an OPTIONS by {transport}: {ratio:.2} of Kamailio's CPU, wanted {OPTIONS_GOAL}"));
    }
    Ok(())
}

fn bench() -> Result<bool> {
    let mut what = "all".to_owned();
    let mut transports = vec!["udp".to_owned(), "tcp".to_owned(), "tls".to_owned()];
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = std::env::temp_dir().join(format!("sipbox-bench-{}", std::process::id()));
    let sipbox = std::env::var_os("SIPBOX").ok_or_else(|| failed("SIPBOX is the binary to measure"))?;
    let mut plan = Plan {
        sipbox: sipbox.into(),
        scenarios: here.join("proxy"),
        place,
        workers: 1,
        runs: 3,
        cps: 200,
        seconds: 8,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| failed(format!("{name} wants a value")))?;
        let number = || value.parse::<u32>().map_err(|_| failed(format!("{name} {value}: no number")));
        match name.as_str() {
            "--what" if ["options", "setup", "call", "all"].contains(&value.as_str()) => what = value,
            "--transport" if value == "all" => {}
            "--transport" => transports = vec![value],
            "--workers" => plan.workers = number()?,
            "--runs" => plan.runs = number()?,
            "--cps" => plan.cps = number()?,
            "--seconds" => plan.seconds = number()?,
            _ => return Err(failed(format!("{name} is not known"))),
        }
    }
    fs::create_dir_all(&plan.place)?;
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2"])
        .args(["-subj", "/CN=example.com", "-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(&plan.place)
        .stderr(log(&plan, "openssl.err")?)
        .status()?;
    if !made.success() {
        return Err(failed("openssl made no certificate"));
    }
    let mut over = Vec::new();
    let wanted = |name: &str| what == name || what == "all";
    let by_udp = transports.iter().any(|transport| transport == "udp");
    for transport in transports.iter().filter(|_| wanted("options")) {
        bench_options(&plan, transport, &mut over)?;
    }
    if by_udp && wanted("setup") {
        bench_setup(&plan, &mut over)?;
    }
    for transport in transports.iter().filter(|_| wanted("call")) {
        bench_calls(&plan, transport, &mut over)?;
    }
    over.iter().for_each(|line| eprintln!("proxy: {line}"));
    // What failed is left there to be read.
    if over.is_empty() {
        fs::remove_dir_all(&plan.place)?;
    } else {
        eprintln!("proxy: logs are in {}", plan.place.display());
    }
    Ok(over.is_empty())
}

fn main() {
    let done =
        if std::env::args().nth(1).as_deref() == Some("--floor") { floor().map(|()| true) } else { bench() };
    match done {
        Ok(good) => std::process::exit(i32::from(!good)),
        Err(error) => {
            eprintln!("proxy: {error}");
            std::process::exit(70);
        }
    }
}
