//! A driver on loopback with a machine that echoes.

use super::*;
use crate::listen::{Spec, bind, parse};
use sipbox_core::flow::{ListenerId, Transport};
use sipbox_core::time::Instant;
use std::net::{SocketAddr, UdpSocket};
use std::thread::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(5);

/// Sends each packet back on its flow; `ask` asks the relay, `later` is answered after a timeout.
#[derive(Default)]
pub(super) struct Echo {
    outputs: VecDeque<Output>,
    last: Option<Target>,
    timeout: Option<Instant>,
}

impl Echo {
    /// To whom it last heard by UDP: a word to a connection that is gone would fail, and cause the next one.
    fn say(&mut self, text: &[u8]) {
        if let Some(target) = self.last.filter(|target| target.transport() == Transport::Udp) {
            self.outputs.push_back(Output::Transmit { target, data: Bytes::copy_from_slice(text) });
        }
    }
}

impl Machine for Echo {
    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Packet { flow, data } => {
                self.last = Some(Target::Flow(flow));
                match &*data {
                    b"ask" => self.outputs.push_back(Output::Ask {
                        ticket: Ticket(7),
                        question: Question::Relay {
                            relay: 0,
                            request: Bytes::from_static(b"d7:command4:pinge"),
                        },
                    }),
                    b"resolve" => self.outputs.push_back(Output::Ask {
                        ticket: Ticket(8),
                        question: Question::Resolve { host: "localhost".into(), port: 5060 },
                    }),
                    text if text.starts_with(b"call ") => {
                        let remote = String::from_utf8_lossy(&text[5..]).parse().unwrap();
                        let target =
                            Target::Address { listener: ListenerId(1), transport: Transport::Tcp, remote };
                        let data = Bytes::from_static(OPTIONS.as_bytes());
                        self.outputs.push_back(Output::Transmit { target, data });
                    }
                    b"later" => self.timeout = Some(now + Duration::from_millis(50)),
                    _ => self.outputs.push_back(Output::Transmit { target: Target::Flow(flow), data }),
                }
            }
            Input::Answer { ticket: Ticket(7), reply: Reply::Relay(reply) } => {
                self.say(&reply.unwrap_or(Bytes::from_static(b"silence")));
            }
            Input::Answer { ticket: Ticket(8), reply: Reply::Resolve(found) } => {
                self.say(if found.iter().any(|a| a.ip().is_loopback()) { b"found" } else { b"nothing" });
            }
            Input::Answer { .. } | Input::Reload | Input::Drain => {}
            Input::FlowOpened { .. } => self.say(b"opened"),
            Input::FlowClosed { .. } => self.say(b"closed"),
            Input::SendFailed { .. } => self.say(b"failed"),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.timeout.is_some_and(|at| at <= now) {
            self.timeout = None;
            self.say(b"timeout");
        }
    }

    fn is_idle(&self) -> bool {
        self.timeout.is_none()
    }

    fn dump(&self, _: &mut Vec<String>) {}
}

/// A driver on a thread of its own, stopped when the test ends.
pub(super) struct Running {
    pub addresses: Vec<SocketAddr>,
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<Result<(), StartError>>>,
}

impl Running {
    pub fn start(uris: &[&str], relays: Vec<SocketAddr>) -> Running {
        Self::start_with(uris, relays, tls::Settings::default())
    }

    pub fn start_with(uris: &[&str], relays: Vec<SocketAddr>, tls: tls::Settings) -> Running {
        let all = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
        let specs: Vec<Spec> = uris.iter().map(|uri| parse("--listen", uri, &all).unwrap()).collect();
        let bound = bind(&specs, None).unwrap();
        let addresses = bound.iter().map(|b| b.listener.local).collect();
        let (orders, control) = mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            let options =
                Options { drain: Duration::from_secs(1), tls, ..Options::new("echo", Clock::start()) };
            let services = Services { relays, ..Services::default() };
            let control = Control::Channel(control);
            runtime()?.block_on(LocalSet::new().run_until(serve(
                Echo::default(),
                bound,
                services,
                options,
                control,
            )))
        });
        Running { addresses, orders, thread: Some(thread) }
    }

    pub fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

fn phone() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.3.2:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn exchange(phone: &UdpSocket, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    phone.send_to(data, to).unwrap();
    let mut buffer = [0; 2048];
    let (length, from) = phone.recv_from(&mut buffer).unwrap();
    assert_eq!(from, to);
    buffer[..length].to_vec()
}

#[test]
fn udp_there_and_back() {
    let running = Running::start(&["udp:127.0.3.1:0", "udp:127.0.3.3:0"], Vec::new());
    let phone = phone();
    for address in &running.addresses {
        // Keep-alives: line breaks are passed over, STUN is answered; the machine sees neither.
        phone.send_to(b"\r\n\r\n", address).unwrap();
        assert_eq!(exchange(&phone, *address, b"hello"), b"hello");
        let stun = [&[0u8, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[9; 12]].concat();
        assert_eq!(exchange(&phone, *address, &stun)[..2], [1, 1]);
    }
    // More than a batch, at once.
    for n in 0..200u8 {
        phone.send_to(&[b'x', n], running.addresses[0]).unwrap();
    }
    let mut buffer = [0; 16];
    for n in 0..200u8 {
        assert_eq!(phone.recv_from(&mut buffer).unwrap().0, 2);
        assert_eq!(buffer[1], n);
    }
    running.order(Order::Stop);
    running.join();
}

#[test]
fn timers_and_names() {
    let running = Running::start(&["udp:127.0.3.1:0"], Vec::new());
    let phone = phone();
    assert_eq!(exchange(&phone, running.addresses[0], b"resolve"), b"found");
    phone.send_to(b"later", running.addresses[0]).unwrap();
    // Drains: what is under way is finished first.
    std::thread::sleep(Duration::from_millis(10));
    running.order(Order::Stop);
    let mut buffer = [0; 16];
    assert_eq!(phone.recv(&mut buffer).unwrap(), 7);
    running.join();
}

#[test]
fn asks_relays_again_and_gives_up() {
    let relay = phone();
    let running = Running::start(&["udp:127.0.3.1:0"], vec![relay.local_addr().unwrap()]);
    let phone = phone();
    phone.send_to(b"ask", running.addresses[0]).unwrap();
    let mut first = [0; 64];
    let mut again = [0; 64];
    let (length, _) = relay.recv_from(&mut first).unwrap();
    let (_, source) = relay.recv_from(&mut again).unwrap();
    assert_eq!(first, again, "the same cookie");
    let packet = &first[..length];
    let space = packet.iter().position(|b| *b == b' ').unwrap();
    assert_eq!(&packet[space + 1..], b"d7:command4:pinge");
    // A stranger's answer does not count.
    let stranger = UdpSocket::bind("127.0.3.4:0").unwrap();
    stranger.send_to(&[&packet[..space], b" forged"].concat(), source).unwrap();
    relay.send_to(&[&packet[..space], b" d6:result4:ponge"].concat(), source).unwrap();
    let mut buffer = [0; 64];
    let length = phone.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"d6:result4:ponge");
    // Silence ends after three seconds.
    let asked = std::time::Instant::now();
    assert_eq!(exchange(&phone, running.addresses[0], b"ask"), b"silence");
    assert!((2900..4500).contains(&asked.elapsed().as_millis()));
    running.order(Order::Stop);
    running.join();
}

type Browser = tokio_tungstenite::tungstenite::WebSocket<std::net::TcpStream>;

fn browser(address: SocketAddr, protocol: &str) -> Result<Browser, u16> {
    use tokio_tungstenite::tungstenite::client::{IntoClientRequest, client};
    use tokio_tungstenite::tungstenite::{Error, HandshakeError};
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("ws://{address}/").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    match client(request, stream) {
        Ok((browser, response)) => {
            assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "sip");
            Ok(browser)
        }
        Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn websocket_there_and_back() {
    use tokio_tungstenite::tungstenite::Message as Frame;
    let running = Running::start(&["ws:127.0.3.1:0"], Vec::new());
    let address = running.addresses[0];
    assert_eq!(browser(address, "chat").err(), Some(400));
    let mut browser = browser(address, "sip").unwrap();
    browser.send(Frame::text("hello")).unwrap();
    assert_eq!(browser.read().unwrap(), Frame::text("hello"));
    // A ping is answered below the machine, a pong is passed over, and what is no text comes back as bytes.
    browser.send(Frame::text("\r\n\r\n")).unwrap();
    assert_eq!(browser.read().unwrap(), Frame::text("\r\n"));
    browser.send(Frame::text("\r\n")).unwrap();
    browser.send(Frame::binary(vec![0xff, 0xfe])).unwrap();
    assert_eq!(browser.read().unwrap(), Frame::binary(vec![0xff, 0xfe]));
    browser.send(Frame::text("x".repeat(SIP_MESSAGE_BYTES))).unwrap();
    assert_eq!(browser.read().unwrap().len(), SIP_MESSAGE_BYTES);
    browser.send(Frame::text("x".repeat(SIP_MESSAGE_BYTES + 1))).unwrap();
    assert!(!matches!(browser.read(), Ok(Frame::Text(_))), "too long a message ends the connection");
    running.order(Order::Stop);
    running.join();
}

#[test]
fn draining_says_goodbye() {
    use tokio_tungstenite::tungstenite::Message as Frame;
    let running = Running::start(&["ws:127.0.3.1:0"], Vec::new());
    let mut browser = browser(running.addresses[0], "sip").unwrap();
    browser.send(Frame::text("hello")).unwrap();
    assert_eq!(browser.read().unwrap(), Frame::text("hello"));
    running.order(Order::Stop);
    assert!(matches!(browser.read(), Ok(Frame::Close(Some(_)))));
    running.join();
}

const OPTIONS: &str = "OPTIONS sip:a@example.com SIP/2.0\r\nContent-Length: 2\r\n\r\nhi";

fn read_exactly(stream: &mut std::net::TcpStream, length: usize) -> String {
    use std::io::Read;
    let mut buffer = vec![0; length];
    stream.read_exact(&mut buffer).unwrap();
    String::from_utf8(buffer).unwrap()
}

#[test]
fn tcp_is_cut_into_messages() {
    use std::io::{Read, Write};
    let running = Running::start(&["tcp:127.0.3.1:0"], Vec::new());
    let mut peer = std::net::TcpStream::connect(running.addresses[0]).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    // In pieces, and two at once.
    for piece in OPTIONS.as_bytes().chunks(7) {
        peer.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(read_exactly(&mut peer, OPTIONS.len()), OPTIONS);
    peer.write_all(format!("{OPTIONS}{OPTIONS}").as_bytes()).unwrap();
    assert_eq!(read_exactly(&mut peer, 2 * OPTIONS.len()), format!("{OPTIONS}{OPTIONS}"));
    peer.write_all(b"\r\n\r\n").unwrap();
    assert_eq!(read_exactly(&mut peer, 2), "\r\n");
    // What cannot be cut ends the connection.
    peer.write_all(b"OPTIONS sip:a@example.com SIP/2.0\r\n\r\n").unwrap();
    assert_eq!(peer.read(&mut [0; 16]).unwrap(), 0);
    running.order(Order::Stop);
    running.join();
}

#[test]
fn connections_are_opened_reused_and_missed() {
    let running = Running::start(&["udp:127.0.3.1:0", "tcp:127.0.3.1:0"], Vec::new());
    let callee = std::net::TcpListener::bind("127.0.3.5:0").unwrap();
    let address = callee.local_addr().unwrap();
    let phone = phone();
    let call = format!("call {address}");
    assert_eq!(exchange(&phone, running.addresses[0], call.as_bytes()), b"opened");
    phone.send_to(call.as_bytes(), running.addresses[0]).unwrap();
    let (mut stream, from) = callee.accept().unwrap();
    assert_eq!(from.ip(), running.addresses[1].ip(), "from the listener's address");
    assert_eq!(
        read_exactly(&mut stream, 2 * OPTIONS.len()),
        format!("{OPTIONS}{OPTIONS}"),
        "on one connection"
    );
    drop((stream, callee));
    let mut buffer = [0; 16];
    assert_eq!(phone.recv(&mut buffer).unwrap(), 6, "closed");
    assert_eq!(exchange(&phone, running.addresses[0], call.as_bytes()), b"failed");
    running.order(Order::Stop);
    running.join();
}

/// Writes a pair for 127.0.3.1 and returns its certificate.
fn write_pair(cert: &std::path::Path, key: &std::path::Path) -> Vec<u8> {
    let pair = rcgen::generate_simple_self_signed(vec!["127.0.3.1".to_owned()]).unwrap();
    std::fs::write(cert, pair.cert.pem()).unwrap();
    std::fs::write(key, pair.signing_key.serialize_pem()).unwrap();
    pair.cert.der().to_vec()
}

/// An echo through TLS, trusting this certificate alone. `None` where it is another.
fn echo_by_tls(address: SocketAddr, trusted: &[u8]) -> Option<String> {
    use std::io::Write;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.to_vec().into()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = rustls::ClientConnection::new(std::sync::Arc::new(config), address.ip().into()).unwrap();
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = rustls::StreamOwned::new(session, stream);
    stream.write_all(OPTIONS.as_bytes()).ok()?;
    let mut buffer = vec![0; OPTIONS.len()];
    std::io::Read::read_exact(&mut stream, &mut buffer).ok()?;
    String::from_utf8(buffer).ok()
}

#[test]
fn tls_and_a_new_certificate_on_sighup() {
    let base = std::env::temp_dir().join(format!("sipbox-driver-tls-{}", std::process::id()));
    let (cert, key) = (base.with_extension("crt"), base.with_extension("key"));
    let first = write_pair(&cert, &key);
    let settings = tls::Settings { pairs: vec![(cert.clone(), key.clone())] };
    let running = Running::start_with(&["tls:127.0.3.1:0"], Vec::new(), settings);
    let address = running.addresses[0];
    assert_eq!(echo_by_tls(address, &first).as_deref(), Some(OPTIONS));
    // One that cannot be read changes nothing.
    std::fs::write(&cert, "nothing").unwrap();
    running.order(Order::Reload);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(echo_by_tls(address, &first).as_deref(), Some(OPTIONS));
    let second = write_pair(&cert, &key);
    running.order(Order::Reload);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(echo_by_tls(address, &second).as_deref(), Some(OPTIONS));
    assert_eq!(echo_by_tls(address, &first), None);
    running.order(Order::Stop);
    running.join();
    std::fs::remove_file(&cert).unwrap();
    std::fs::remove_file(&key).unwrap();
}
