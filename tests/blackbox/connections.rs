//! Connections that live through a new certificate, and peers that are slow, silent or too many.
//!
//! The real proxy, with TLS between it and both ends; the ends are written here, on rustls and plain sockets, since each of them
//! does what no phone would.

#[path = "../harness/mod.rs"]
mod harness;

use harness::{Server, TempDir, loopback};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(10);
/// Who the proxy proves to be.
const NAME: &str = "proxy.example.com";

/// A key with its self-signed certificate, written where the proxy reads them.
fn pair(dir: &TempDir) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let pair = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a pair");
    std::fs::write(dir.join("a.crt"), pair.cert.pem()).expect("written");
    std::fs::write(dir.join("a.key"), pair.signing_key.serialize_pem()).expect("written");
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("a key");
    (pair.cert.der().clone(), key)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Who believes this certificate, and no other.
fn believer(certificate: CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    Arc::new(builder.expect("versions").with_root_certificates(roots).with_no_client_auth())
}

fn secured(config: &Arc<ClientConfig>, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(WITHIN)).expect("set");
    let name = NAME.try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).expect("a session"), socket)
}

/// One end of a connection that carries SIP.
struct End<S> {
    stream: S,
    read: Vec<u8>,
}

impl<S: Read + Write> End<S> {
    fn new(stream: S) -> Self {
        End { stream, read: Vec::new() }
    }

    fn send(&mut self, message: &str) {
        self.stream.write_all(message.as_bytes()).expect("sent");
        self.stream.flush().expect("sent");
    }

    /// The next whole message; `None`: it is closed.
    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(self.read[..end + 4].to_vec()).expect("text");
                let length: usize = header(&head, "Content-Length").parse().expect("a length");
                if self.read.len() >= end + 4 + length {
                    let rest = self.read.split_off(end + 4 + length);
                    return Some(String::from_utf8(std::mem::replace(&mut self.read, rest)).expect("text"));
                }
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(count @ 1..) => self.read.extend_from_slice(&buffer[..count]),
                Ok(_) => return None,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
                Err(error) => panic!("no message: {error}; {:?}", String::from_utf8_lossy(&self.read)),
            }
        }
    }

    /// The next final response; provisional ones are passed over.
    fn final_response(&mut self) -> String {
        loop {
            let message = self.next().expect("the connection is open");
            if !message.starts_with("SIP/2.0 1") {
                return message;
            }
        }
    }
}

fn header<'t>(message: &'t str, name: &str) -> &'t str {
    let mut lines = message.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
}

/// All lines of this header, as they stand.
fn lines(message: &str, name: &str) -> String {
    let of = message.lines().filter(|line| line.starts_with(&format!("{name}:")));
    of.map(|line| format!("{line}\r\n")).collect()
}

/// The answer of a peer: 200 to whatever asks.
fn answer(request: &str, number: usize, at: SocketAddr) -> String {
    let tag = if header(request, "To").contains(";tag=") { String::new() } else { format!(";tag=b{number}") };
    let kept: String =
        ["Via", "Record-Route", "From", "Call-ID", "CSeq"].map(|name| lines(request, name)).concat();
    format!(
        "SIP/2.0 200 OK\r\n{kept}To: {}{tag}\r\nContact: <sip:bob@{at};transport=tls>\r\nContent-Length: 0\r\n\r\n",
        header(request, "To")
    )
}

/// One call of the caller's.
struct Call {
    number: usize,
    /// Where the other end is, once it has answered.
    uri: String,
    to: String,
    routes: String,
}

impl Call {
    fn new(number: usize) -> Call {
        let uri = "sip:bob@example.net".to_owned();
        Call { number, to: format!("<{uri}>"), uri, routes: String::new() }
    }

    fn request(&self, method: &str, cseq: usize) -> String {
        let number = self.number;
        let uri = &self.uri;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.8;branch=z9hG4bK{method}{number}x{cseq}\r\nMax-Forwards: 70\r\n\
             {}From: <sip:alice@example.com>;tag=a{number}\r\nTo: {}\r\nCall-ID: call-{number}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:alice@192.0.2.8;transport=tls>\r\nContent-Length: 0\r\n\r\n",
            self.routes, self.to
        )
    }

    /// INVITE to ACK, or a re-INVITE.
    fn invite<S: Read + Write>(&mut self, caller: &mut End<S>, cseq: usize) {
        caller.send(&self.request("INVITE", cseq));
        let response = caller.final_response();
        assert!(response.starts_with("SIP/2.0 200"), "{response}");
        self.to = header(&response, "To").to_owned();
        self.uri = header(&response, "Contact").trim_matches(['<', '>']).to_owned();
        if self.routes.is_empty() {
            // In reverse, for who called (RFC 3261 §12.1.2); there is one.
            self.routes = lines(&response, "Record-Route").replace("Record-Route:", "Route:");
        }
        caller.send(&self.request("ACK", cseq));
    }

    fn bye<S: Read + Write>(&self, caller: &mut End<S>, cseq: usize) {
        caller.send(&self.request("BYE", cseq));
        let response = caller.final_response();
        assert!(response.starts_with("SIP/2.0 200"), "{response}");
    }
}

/// The proxy's own count of what is open.
fn state(server: &Server) -> Value {
    let before = server.stderr().lines().filter(|line| line.contains("\"transactions\"")).count();
    server.process.signal(libc::SIGUSR1);
    let until = Instant::now() + WITHIN;
    loop {
        let log = server.stderr();
        if let Some(line) = log.lines().filter(|line| line.contains("\"transactions\"")).nth(before) {
            return serde_json::from_str(line).expect("JSON");
        }
        assert!(Instant::now() < until, "no state: {log}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Calls are up, are set up and are torn down while the certificate changes again and again: no call and no connection is lost.
#[test]
fn calls_go_on_through_new_certificates() {
    const CALLS: usize = 40;
    let dir = Arc::new(TempDir::new());
    let (certificate, key) = pair(&dir);
    let first = believer(certificate.clone());
    // Who is called: each connection that comes, each request with 200; how many connections there were is told at the end.
    let callee = TcpListener::bind((loopback(), 0)).expect("a port");
    let callee_at = callee.local_addr().expect("bound");
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_no_client_auth().with_single_cert(vec![certificate], key);
    let config = Arc::new(config.expect("a pair"));
    thread::spawn(move || {
        for (connection, socket) in callee.incoming().enumerate() {
            assert_eq!(connection, 0, "one connection is enough for all calls");
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut end = End::new(StreamOwned::new(session, socket.expect("a connection")));
            for number in 0.. {
                let Some(request) = end.next() else { return };
                if !request.starts_with("ACK ") {
                    end.send(&answer(&request, number, callee_at));
                }
            }
        }
    });
    let (listen, route) = (format!("tls:{}:0", loopback()), format!("*=sip:{callee_at};transport=tls"));
    let files = [dir.join("a.crt").display().to_string(), dir.join("a.key").display().to_string()];
    let args = ["--listen", &listen, "--tls-cert", &files[0], "--tls-key", &files[1], "--tls-insecure"];
    let more = ["--route", &route, "--domain", "example.com", "--auth", "none", "--rate-limit", "off"];
    let server = Server::start_in(dir.clone(), "proxy", &[&args[..], &more].concat());
    let address = server.address("tls");

    let mut caller = End::new(secured(&first, address));
    let mut calls: Vec<Call> = (0..CALLS).map(Call::new).collect();
    calls.iter_mut().take(CALLS / 2).for_each(|call| call.invite(&mut caller, 1));
    assert_eq!(state(&server)["connections"], 2);

    // New ones, all the time.
    let mut last = None;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let renews = scope.spawn(|| {
            let mut last = None;
            // Not for ever, if the others fail.
            for _ in 0..200 {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                last = Some(pair(&dir).0);
                server.process.signal(libc::SIGHUP);
                thread::sleep(Duration::from_millis(50));
            }
            last
        });
        thread::sleep(Duration::from_millis(200));
        // Those that are up are changed and ended, the others come and go.
        for (number, call) in calls.iter_mut().enumerate() {
            call.invite(&mut caller, 2);
            if number % 2 == 0 {
                call.bye(&mut caller, 3);
            }
            thread::sleep(Duration::from_millis(20));
        }
        done.store(true, Ordering::Relaxed);
        last = renews.join().expect("new certificates");
    });
    calls.iter().skip(1).step_by(2).for_each(|call| call.bye(&mut caller, 3));
    assert_eq!(state(&server)["connections"], 2, "the caller's, and the callee's");

    // What comes now sees the last one.
    let last = believer(last.expect("there were some"));
    let shown = || {
        let mut new = secured(&last, address);
        new.conn.complete_io(&mut new.sock).is_ok()
    };
    let until = Instant::now() + WITHIN;
    while !shown() {
        assert!(Instant::now() < until, "the last certificate is not shown: {}", server.stderr());
        // It may have read the new certificate with the old key.
        server.process.signal(libc::SIGHUP);
        thread::sleep(Duration::from_millis(50));
    }
    let mut new = End::new(secured(&last, address));
    let mut call = Call::new(CALLS);
    call.invite(&mut new, 1);
    call.bye(&mut new, 2);

    // One that cannot be read changes nothing, and is told.
    std::fs::write(dir.join("a.crt"), "no certificate").expect("written");
    server.process.signal(libc::SIGHUP);
    let told = |line: &str| (line.contains("certificates-not-read") && line.contains("a.crt")).then_some(());
    assert!(server.process.stderr.wait(0, WITHIN, told).is_some(), "{}", server.stderr());
    let mut newest = End::new(secured(&last, address));
    let mut call = Call::new(CALLS + 1);
    call.invite(&mut newest, 1);
    call.bye(&mut caller, 2);
}

/// Peers that say nothing, or half of something, or do not read: each costs little, for a bounded time, and nobody else anything.
#[test]
fn slow_and_silent_peers_cost_little_and_end() {
    const EACH: usize = 100;
    /// A handshake has ten seconds, a message thirty (`io::driver`).
    const HANDSHAKE: Duration = Duration::from_secs(10);
    const MESSAGE: Duration = Duration::from_secs(30);
    let dir = Arc::new(TempDir::new());
    let (certificate, _) = pair(&dir);
    let config = believer(certificate);
    let (tcp, tls) = (format!("tcp:{}:0", loopback()), format!("tls:{}:0", loopback()));
    let files = [dir.join("a.crt").display().to_string(), dir.join("a.key").display().to_string()];
    let args = ["--listen", &tcp, "--listen", &tls, "--tls-cert", &files[0], "--tls-key", &files[1]];
    let more = ["--domain", "example.com", "--rate-limit", "off"];
    let mut server = Server::start_in(dir.clone(), "proxy", &[&args[..], &more].concat());
    let (tcp, tls) = (server.address("tcp"), server.address("tls"));
    let resident = || -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", server.process.pid())).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let options = |number: usize| {
        format!(
            "OPTIONS sip:{tls} SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.8;branch=z9hG4bKo{number}\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@example.net>;tag=o\r\nTo: <sip:{tls}>\r\nCall-ID: o-{number}\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n"
        )
    };
    // Who is served meanwhile.
    let mut good = End::new(secured(&config, tls));
    let served = |good: &mut End<StreamOwned<ClientConnection, TcpStream>>, number: usize| {
        let asked = Instant::now();
        good.send(&options(number));
        let response = good.final_response();
        assert!(response.starts_with("SIP/2.0 200"), "{response}");
        asked.elapsed()
    };
    served(&mut good, 0);
    let empty = resident();
    // Each address may have some of each kind.
    let from = |address: SocketAddr| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(IpAddr::from(loopback()), 0).into()).expect("bound");
        socket.connect(&address.into()).expect("connected");
        TcpStream::from(socket)
    };
    // What is left to read is the end.
    let closed = |streams: &mut Vec<TcpStream>| {
        for stream in streams.iter_mut() {
            stream.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
            let mut rest = [0; 1024];
            loop {
                match stream.read(&mut rest) {
                    Ok(0) => break,
                    // An alert, or a refusal.
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                    Err(error) => panic!("still open: {error}"),
                }
            }
        }
    };
    let begin = Instant::now();
    let mut silent: Vec<TcpStream> = (0..EACH).map(|_| from(tcp)).collect();
    let mut no_handshake: Vec<TcpStream> = (0..EACH).map(|_| from(tls)).collect();
    let mut half_handshake: Vec<TcpStream> = (0..EACH)
        .map(|_| {
            let mut stream = from(tls);
            // The beginning of a record that says it is 512 bytes long.
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).expect("sent");
            stream
        })
        .collect();
    let mut trickling: Vec<TcpStream> = (0..EACH).map(|_| from(tcp)).collect();
    // Asks and never reads the answers: what is queued for it is bounded, and so is the time.
    let mut deaf = from(tcp);
    deaf.set_nonblocking(true).expect("set");
    let many: String = (0..200).map(|number| options(1_000_000 + number)).collect();
    let text = options(1);
    let (mut worst, mut second, mut deaf_ended) = (Duration::ZERO, 0, None);
    let mut asked = 0;
    while begin.elapsed() < MESSAGE + Duration::from_secs(5) {
        worst = worst.max(served(&mut good, 10 + second));
        // A byte a second.
        let byte = &text.as_bytes()[second..=second];
        trickling.iter_mut().for_each(|stream| drop(stream.write(byte)));
        for _ in 0..200 {
            match deaf.write(many.as_bytes()) {
                Ok(count) => asked += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    deaf_ended.get_or_insert(begin.elapsed());
                    break;
                }
            }
        }
        let each = (resident().saturating_sub(empty)) as f64 / (4 * EACH + 1) as f64;
        assert!(each < 64.0, "{each} KiB for each of those that say nothing");
        if begin.elapsed() > HANDSHAKE + Duration::from_secs(2) && !no_handshake.is_empty() {
            closed(&mut no_handshake);
            closed(&mut half_handshake);
            no_handshake.clear();
        }
        second += 1;
        thread::sleep(Duration::from_secs(1));
    }
    println!(
        "{asked} bytes asked by who never reads, ended after {deaf_ended:?}; slowest answer to others {worst:?}"
    );
    assert!(worst < Duration::from_secs(1), "others waited for {worst:?}");
    assert!(deaf_ended.is_some(), "who never reads is closed, at last");
    // All are closed.
    closed(&mut silent);
    closed(&mut trickling);
    served(&mut good, 1000);
    assert_eq!(server.stop(), 0);
}
