//! `sipbox wsgw` from the outside: a real WebSocket client on one side, a plain SIP socket as its upstream on the other.
//! RFC 7118, RFC 5626 §5, RFC 3327.

#[path = "../harness/mod.rs"]
mod harness;

use harness::{Server, TempDir, loopback, run_in, server_command};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio_tungstenite::tungstenite::client::{IntoClientRequest, client};
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket};

const PATIENCE: Duration = Duration::from_secs(10);

/// The proxy behind the gateway.
struct Upstream(UdpSocket);

impl Upstream {
    fn new() -> Self {
        let socket = UdpSocket::bind((loopback(), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Upstream(socket)
    }

    fn uri(&self) -> String {
        format!("udp:{}", self.0.local_addr().unwrap())
    }

    fn receive(&self) -> (String, SocketAddr) {
        let mut buffer = [0; 65_535];
        let (length, from) = self.0.recv_from(&mut buffer).expect("the gateway sends something");
        (String::from_utf8(buffer[..length].to_vec()).unwrap(), from)
    }

    fn send(&self, message: &str, to: SocketAddr) {
        self.0.send_to(message.as_bytes(), to).unwrap();
    }
}

fn gateway(upstream: &Upstream, more: &[&str]) -> Server {
    let ip = loopback();
    let (ws, sip, up) = (format!("ws:{ip}:0"), format!("udp:{ip}:0"), upstream.uri());
    let mut args = vec!["--listen", &ws, "--sip-listen", &sip, "--upstream", &up, "--events", "-"];
    args.extend(more);
    Server::start("wsgw", &args)
}

/// Connects as a page of `origin`; the status where it is refused.
fn browser<S: Read + Write>(
    stream: S,
    host: &str,
    protocol: &str,
    origin: Option<&str>,
) -> Result<WebSocket<S>, u16> {
    let mut request = format!("ws://{host}/").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    if let Some(origin) = origin {
        request.headers_mut().insert("Origin", origin.parse().unwrap());
    }
    match client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
        Err(HandshakeError::Failure(error)) => panic!("{error}"),
        Err(HandshakeError::Interrupted(_)) => panic!("the gateway did not answer the upgrade"),
    }
}

fn connect(server: &Server) -> WebSocket<TcpStream> {
    let address = server.address("ws");
    browser(tcp(address), &address.to_string(), "sip", None).expect("an upgrade")
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The next SIP message; pings are the library's.
fn read<S: Read + Write>(browser: &mut WebSocket<S>) -> String {
    loop {
        match browser.read().expect("the gateway sends something") {
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Values of all lines of a header.
fn header<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let prefix = format!("{name}: ");
    message.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).map(str::trim).collect()
}

/// The response to a request: its Via, From, To with a tag, Call-ID and CSeq; and `more`.
fn answer(request: &str, status: &str, more: &str) -> String {
    let mut response = format!("SIP/2.0 {status}\r\n");
    for name in ["Via", "From", "Call-ID", "CSeq"] {
        for value in header(request, name) {
            response += &format!("{name}: {value}\r\n");
        }
    }
    let to = header(request, "To")[0];
    let tag = if to.contains(";tag=") { "" } else { ";tag=up" };
    response + &format!("To: {to}{tag}\r\n{more}Content-Length: 0\r\n\r\n")
}

const CONTACT: &str = "<sip:x7a@k2j4.invalid;transport=ws>";

fn register() -> String {
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/WS k2j4.invalid;branch=z9hG4bKreg1\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.com>;tag=a\r\nTo: <sip:alice@example.com>\r\nCall-ID: reg@k2j4.invalid\r\n\
         CSeq: 1 REGISTER\r\nContact: {CONTACT};+sip.instance=\"<urn:uuid:1>\";reg-id=1;expires=600\r\n\
         Supported: path, outbound\r\nContent-Length: 0\r\n\r\n"
    )
}

fn invite(upstream: &Upstream, branch: &str, path: &str) -> String {
    format!(
        "INVITE sip:x7a@k2j4.invalid;transport=ws SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK{branch};rport\r\n\
         Route: {path}\r\nMax-Forwards: 69\r\nFrom: <sip:bob@example.com>;tag=b\r\nTo: <sip:alice@example.com>\r\n\
         Call-ID: {branch}@example.com\r\nCSeq: 1 INVITE\r\nContact: <sip:bob@192.0.2.1>\r\nContent-Length: 0\r\n\r\n",
        upstream.0.local_addr().unwrap()
    )
}

/// Registers, answers as the registrar would, and returns the Path and where the gateway sends from.
fn registered(browser: &mut WebSocket<TcpStream>, upstream: &Upstream) -> (String, SocketAddr) {
    browser.send(Message::text(register())).unwrap();
    let (request, gateway) = upstream.receive();
    let path = header(&request, "Path").first().expect("a Path").to_string();
    let reply = answer(&request, "200 OK", &format!("Path: {path}\r\nContact: {CONTACT};expires=600\r\n"));
    upstream.send(&reply, gateway);
    let response = read(browser);
    assert!(response.starts_with("SIP/2.0 200 OK\r\n"), "{response}");
    assert_eq!(header(&response, "Via").len(), 1, "only the browser's own: {response}");
    (path, gateway)
}

#[test]
fn a_browser_registers_is_called_and_is_missed_when_it_goes() {
    registers_is_called_and_is_missed(&[]);
    // A browser's connection is any worker's, and its SIP the first one's.
    for _ in 0..8 {
        registers_is_called_and_is_missed(&["--workers", "3"]);
    }
}

fn registers_is_called_and_is_missed(more: &[&str]) {
    let upstream = Upstream::new();
    let mut server = gateway(&upstream, more);
    let mut alice = connect(&server);
    let peer = format!("ws:{}", alice.get_ref().local_addr().unwrap());
    assert!(server.wait_record(PATIENCE, |r| r["event"] == "connected" && r["peer"] == peer).is_some());

    // The request goes on with our Via on top, the browser's real address in its own, and a Path with a token.
    alice.send(Message::text(register())).unwrap();
    let (request, gateway) = upstream.receive();
    let vias = header(&request, "Via");
    let sip = server.address("udp");
    assert!(vias[0].starts_with(&format!("SIP/2.0/UDP {sip};branch=z9hG4bK")), "{request}");
    assert!(vias[1].contains("k2j4.invalid") && vias[1].contains("received=127."), "{request}");
    let path = header(&request, "Path")[0].to_owned();
    assert!(path.starts_with("<sip:") && path.ends_with(&format!("@{sip};lr;ob>")), "{path}");
    assert_eq!(header(&request, "Max-Forwards"), ["69"]);
    assert!(header(&request, "Contact")[0].contains("x7a@k2j4.invalid"), "left as it was");
    upstream.send(&answer(&request, "200 OK", &format!("Contact: {CONTACT};expires=600\r\n")), gateway);
    assert!(read(&mut alice).starts_with("SIP/2.0 200"));

    // A call to that Path comes through this connection, and its answer goes back.
    upstream.send(&invite(&upstream, "call1", &path), gateway);
    let (trying, _) = upstream.receive();
    assert!(trying.starts_with("SIP/2.0 100"), "{trying}");
    let call = read(&mut alice);
    assert!(call.starts_with("INVITE sip:x7a@k2j4.invalid;transport=ws SIP/2.0\r\n"), "{call}");
    assert!(header(&call, "Route").is_empty() && header(&call, "Record-Route").len() == 1, "{call}");
    assert!(header(&call, "Via")[0].starts_with("SIP/2.0/WS "), "{call}");
    alice.send(Message::text(answer(&call, "486 Busy Here", ""))).unwrap();
    let ack = read(&mut alice);
    assert!(ack.starts_with("ACK "), "{ack}");
    let (busy, _) = upstream.receive();
    assert!(busy.starts_with("SIP/2.0 486") && header(&busy, "Via").len() == 1, "{busy}");

    // It goes without a word: the registrar is told at once, by the flow's own token.
    drop(alice);
    let lost = loop {
        // The 486 may be repeated: nobody acknowledged it here.
        let (message, _) = upstream.receive();
        if !message.starts_with("SIP/2.0 486") {
            break message;
        }
    };
    assert!(lost.starts_with("REGISTER sip:example.com SIP/2.0\r\n"), "{lost}");
    assert!(header(&lost, "Contact")[0].contains("expires=0"), "{lost}");
    assert!(header(&lost, "Contact")[0].contains("x7a@k2j4.invalid"), "{lost}");
    assert_eq!(header(&lost, "Path"), [path.as_str()]);
    assert!(header(&lost, "To")[0].contains("alice@example.com"), "{lost}");
    upstream.send(&answer(&lost, "200 OK", ""), gateway);
    let record = server.wait_record(PATIENCE, |r| r["event"] == "flow-lost").expect("a record");
    assert_eq!((&record["aor"], &record["peer"]), (&"alice@example.com".into(), &peer.into()));
    assert!(server.wait_record(PATIENCE, |r| r["event"] == "closed").is_some());

    // Whoever still calls is told that the flow is gone.
    upstream.send(&invite(&upstream, "call2", &path), gateway);
    let failed = loop {
        let (message, _) = upstream.receive();
        if message.contains("call2@example.com") && !message.starts_with("SIP/2.0 100") {
            break message;
        }
    };
    assert!(failed.starts_with("SIP/2.0 430"), "{failed}");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_token_that_we_did_not_sign_reaches_nobody() {
    let upstream = Upstream::new();
    let server = gateway(&upstream, &[]);
    let mut alice = connect(&server);
    let (path, gateway) = registered(&mut alice, &upstream);
    let at = path.find('@').unwrap();
    let last = &path[at - 1..at];
    let forged = format!("{}{}{}", &path[..at - 1], if last == "A" { "B" } else { "A" }, &path[at..]);
    // The last character of base64 may have spare bits, so one in the middle is changed too.
    let middle = &forged[20..21];
    let forged = format!("{}{}{}", &forged[..20], if middle == "x" { "y" } else { "x" }, &forged[21..]);
    upstream.send(&invite(&upstream, "forged", &forged), gateway);
    let (refused, _) = upstream.receive();
    assert!(refused.starts_with("SIP/2.0 403"), "{refused}");
    // The next thing that she hears is what was meant for her.
    upstream.send(&invite(&upstream, "genuine", &path), gateway);
    assert!(read(&mut alice).contains("genuine@example.com"));
}

#[test]
fn keep_alives_are_answered_and_the_silent_are_closed() {
    let upstream = Upstream::new();
    let server = gateway(&upstream, &["--ping", "1"]);
    let mut alice = connect(&server);
    alice.send(Message::text("\r\n\r\n")).unwrap();
    assert_eq!(read(&mut alice), "\r\n");
    // She reads no more, so her library answers no ping.
    let closed = server.wait_record(PATIENCE, |r| r["event"] == "closed");
    assert!(closed.is_some(), "{}", server.stderr());
}

#[test]
fn the_door_is_kept() {
    let root = TempDir::new();
    std::fs::write(root.join("index.html"), "<p>phone</p>").unwrap();
    let upstream = Upstream::new();
    let path = root.path().to_str().unwrap();
    let more = ["--web-root", path, "--domain", "example.com", "--origin", "https://*.example.com"];
    let server =
        gateway(&upstream, &[&more[..], &["--max-connections", "2", "--max-message", "1000"]].concat());
    let address = server.address("ws");
    let host = address.to_string();
    let status = |host: &str, protocol: &str, origin: Option<&str>| {
        browser(tcp(address), host, protocol, origin).map(drop).err().unwrap_or(101)
    };
    assert_eq!(status(&host, "sip", Some("https://phone.example.com")), 101);
    assert_eq!(status("sip.example.com", "sip", None), 101);
    assert_eq!(status(&host, "sip", Some("https://evil.example.net")), 403);
    assert_eq!(status("evil.example.net", "sip", None), 403);
    assert_eq!(status(&host, "chat", None), 400);
    let http = |request: &str| {
        let mut stream = tcp(address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    let page = http(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert!(page.starts_with("HTTP/1.1 200") && page.ends_with("<p>phone</p>"), "{page}");
    let none = http(&format!("GET /../secrets HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert!(none.starts_with("HTTP/1.1 404"), "{none}");
    // SIP without WebSocket is not spoken here.
    assert!(http("SIP/2.0 200 OK\r\nVia: x\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(server.wait_record(PATIENCE, |r| r["event"] == "refused").is_some());

    // Too long a message closes its connection, and too many connections are closed at once.
    let mut alice = connect(&server);
    alice.send(Message::text("x".repeat(1001))).unwrap();
    assert!(!matches!(alice.read(), Ok(Message::Text(_))));
    drop(alice);
    let held: Vec<TcpStream> = (0..3).map(|_| tcp(address)).collect();
    let mut last = &held[2];
    assert_eq!(last.read(&mut [0]).unwrap_or(0), 0, "closed without a word");
}

#[test]
fn wss_with_a_certificate_of_its_own() {
    let upstream = Upstream::new();
    let ip = loopback();
    let (wss, up) = (format!("wss:{ip}:0"), upstream.uri());
    let server = Server::start("wsgw", &["--listen", &wss, "--upstream", &up, "--tls-self-signed"]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(server.dir().join("self-signed.crt")).unwrap();
    use rustls::pki_types::pem::PemObject;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The address is in the certificate.
    let name = rustls::pki_types::ServerName::from(std::net::IpAddr::from(ip));
    let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = rustls::StreamOwned::new(session, tcp(server.address("wss")));
    let mut alice = browser(stream, &format!("{ip}"), "sip", None).expect("an upgrade");
    alice.send(Message::text(register())).unwrap();
    let (request, gateway) = upstream.receive();
    upstream.send(&answer(&request, "401 Unauthorized", ""), gateway);
    assert!(read(&mut alice).starts_with("SIP/2.0 401"));
    use std::os::unix::fs::PermissionsExt;
    for secret in ["self-signed.key", "secrets"] {
        let mode = std::fs::metadata(server.dir().join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
}

#[test]
fn faults_at_start_have_their_codes() {
    let dir = TempDir::new();
    let code = |args: &[&str]| {
        let finished = run_in(&dir, args, b"");
        assert!(finished.stderr.trim_end().lines().count() >= 1, "{finished:?}");
        (finished.code, finished.stderr)
    };
    let ip = loopback();
    let (ws, wss) = (format!("ws:{ip}:0"), format!("wss:{ip}:0"));
    let up = ["--upstream", "udp:127.0.0.1:5060"];
    let with = |more: &[&str]| code(&[&["wsgw"][..], &up[..], more].concat());
    assert_eq!(code(&["wsgw", "--listen", &ws]).0, 64);
    assert_eq!(with(&["--listen", "ws:nowhere"]).0, 64);
    let (status, text) = with(&["--listen", "udp:127.0.0.1:0"]);
    assert!(status == 64 && text.contains("--listen") && text.contains("ws: wss:"), "{text}");
    assert_eq!(with(&["--listen", &wss]).0, 64);
    assert_eq!(with(&["--listen", &wss, "--tls-cert", "none.crt", "--tls-key", "none.key"]).0, 66);
    assert_eq!(with(&["--listen", &ws, "--no-such-flag"]).0, 64);
    assert_eq!(with(&["--listen", &ws, "--web-root", "none"]).0, 66);
    // A taken port, by a stranger and by another sipbox.
    let upstream = Upstream::new();
    let first = gateway(&upstream, &[]);
    let stranger = std::net::TcpListener::bind((ip, 0)).unwrap();
    for address in [first.address("ws"), stranger.local_addr().unwrap()] {
        let (status, text) = with(&["--listen", &format!("ws:{address}")]);
        assert!(status == 71 && text.contains("--listen") && text.contains("in use"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn every_flag_may_come_from_the_environment() {
    let upstream = Upstream::new();
    let dir = Arc::new(TempDir::new());
    let ip = loopback();
    let mut command = server_command(&dir, "wsgw", &["--events=-"]);
    command.env("SIPBOX_WSGW_UPSTREAM", upstream.uri());
    command.env("SIPBOX_LISTEN", format!("ws:{ip}:0 ws:{ip}:0"));
    command.env("SIPBOX_TLS_SELF_SIGNED", "no");
    let mut process = harness::Process::start(command);
    let ready = process.stdout.wait(0, PATIENCE, |line| Some(line.to_owned())).expect("a ready line");
    assert_eq!(ready.matches("\"ws:").count(), 2, "{ready}");
    process.signal(libc::SIGTERM);
    assert_eq!(process.exit_code(PATIENCE), 0);
}

/// One SIP message without a body from a stream.
fn read_stream(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the gateway sends something");
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn the_upstream_is_reached_by_tcp_unless_it_says_otherwise() {
    let ip = loopback();
    let listener = std::net::TcpListener::bind((ip, 0)).unwrap();
    let (ws, sip) = (format!("ws:{ip}:0"), format!("tcp:{ip}:0"));
    let up = listener.local_addr().unwrap().to_string();
    let server = Server::start("wsgw", &["--listen", &ws, "--sip-listen", &sip, "--upstream", &up]);
    let mut alice = connect(&server);
    alice.send(Message::text(register())).unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = read_stream(&mut upstream);
    assert!(
        header(&request, "Via")[0].starts_with(&format!("SIP/2.0/TCP {}", server.address("tcp"))),
        "{request}"
    );
    let path = header(&request, "Path")[0].to_owned();
    assert!(path.contains(";transport=tcp;lr;ob>"), "{path}");
    let reply = answer(&request, "200 OK", &format!("Contact: {CONTACT};expires=600\r\n"));
    upstream.write_all(reply.as_bytes()).unwrap();
    assert!(read(&mut alice).starts_with("SIP/2.0 200"));

    // The upstream connects on its own to call; the answer goes back on that connection.
    let mut caller = tcp(server.address("tcp"));
    let other = Upstream::new();
    let call = invite(&other, "call3", &path).replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    caller.write_all(call.as_bytes()).unwrap();
    assert!(read_stream(&mut caller).starts_with("SIP/2.0 100"));
    let call = read(&mut alice);
    alice.send(Message::text(answer(&call, "480 Temporarily Unavailable", ""))).unwrap();
    assert!(read_stream(&mut caller).starts_with("SIP/2.0 480"));

    // An upstream that is gone: the browser is told.
    drop((upstream, listener));
    std::thread::sleep(Duration::from_millis(50));
    alice.send(Message::text(register().replace("reg1", "reg2").replace("CSeq: 1", "CSeq: 2"))).unwrap();
    let failed = loop {
        let message = read(&mut alice);
        if message.starts_with("SIP/2.0") {
            break message;
        }
    };
    assert!(failed.starts_with("SIP/2.0 503"), "{failed}");
}

#[test]
fn stopping_tells_the_registrar_who_is_gone() {
    stopping_tells_who_is_gone(&[]);
    for _ in 0..8 {
        stopping_tells_who_is_gone(&["--workers", "3"]);
    }
}

fn stopping_tells_who_is_gone(more: &[&str]) {
    let upstream = Upstream::new();
    let mut server = gateway(&upstream, more);
    let mut alice = connect(&server);
    let (path, gateway) = registered(&mut alice, &upstream);
    server.process.signal(libc::SIGTERM);
    assert!(matches!(alice.read(), Ok(Message::Close(Some(_)))));
    let (lost, _) = upstream.receive();
    assert!(lost.starts_with("REGISTER ") && header(&lost, "Path") == [path.as_str()], "{lost}");
    assert!(header(&lost, "Contact")[0].contains("expires=0"), "{lost}");
    upstream.send(&answer(&lost, "200 OK", ""), gateway);
    assert_eq!(server.process.exit_code(PATIENCE), 0);
}
