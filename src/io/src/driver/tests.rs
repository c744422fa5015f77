//! A driver on loopback with a machine that echoes.

#[path = "tests/tls.rs"]
mod secured;

use super::*;
use crate::clock::Clock;
use crate::listen::{Spec, bind, parse};
use sipbox_core::cidr::Cidr;
use sipbox_core::flow::{ListenerId, ServerKey, Transport};
use sipbox_core::limits::SIP_MESSAGE_BYTES;
use sipbox_core::time::Instant;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::thread::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(5);

/// Sends each packet back on its flow; `ask` asks the relay, `later` is answered after a timeout.
#[derive(Default)]
pub(super) struct Echo {
    outputs: VecDeque<Output>,
    last: Option<Target>,
    timeout: Option<Instant>,
    /// Its worker's, which it tells to who asks `who`.
    number: u8,
    flows: Vec<Flow>,
}

impl Echo {
    /// To whom it last heard by UDP: a word to a connection that is gone would fail, and cause the next one.
    fn say(&mut self, text: &[u8]) {
        if let Some(target) = self.last.filter(|target| target.transport() == Transport::Udp) {
            self.outputs.push_back(Output::Transmit { target, data: Bytes::copy_from_slice(text) });
        }
    }
}

impl Echo {
    fn dial(&mut self, transport: Transport, remote: SocketAddr, server: ServerKey) {
        let target = Target::Address { listener: ListenerId(1), transport, remote, server };
        let data = Bytes::from_static(OPTIONS.as_bytes());
        self.outputs.push_back(Output::Transmit { target, data });
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
                        self.dial(Transport::Tcp, remote, ServerKey::ADDRESS);
                    }
                    // By TLS, to whoever has to have that name.
                    text if text.starts_with(b"secure ") => {
                        let text = String::from_utf8_lossy(&text[7..]).into_owned();
                        let (host, remote) = text.split_once(' ').unwrap();
                        self.outputs.push_back(Output::Ask {
                            ticket: Ticket(9),
                            question: Question::Resolve { host: host.into(), port: 5061 },
                        });
                        self.dial(Transport::Tls, remote.parse().unwrap(), ServerKey::of(host));
                    }
                    b"count" => self.say(self.flows.len().to_string().as_bytes()),
                    // To a connection, whoever's it is, as often as said.
                    text if text.starts_with(b"deliver ") => {
                        let text = String::from_utf8_lossy(&text[8..]).into_owned();
                        let (remote, times) = text.split_once(' ').unwrap();
                        let flow = self.flows.iter().find(|flow| flow.remote.to_string() == remote);
                        let body = if times == "1" { "hi".to_owned() } else { "x".repeat(60_000) };
                        let data = Bytes::from(request(self.number, "deliver", &body));
                        for _ in 0..times.parse().unwrap() {
                            let target = Target::Flow(*flow.unwrap());
                            self.outputs.push_back(Output::Transmit { target, data: data.clone() });
                        }
                    }
                    // A machine that needs its time: more comes than it can take.
                    text if text.starts_with(b"INVITE sip:slow@") => {
                        std::thread::sleep(Duration::from_micros(500));
                        self.say(b"done");
                    }
                    text if text.starts_with(b"OPTIONS sip:who@") => {
                        self.say(self.number.to_string().as_bytes());
                    }
                    // Which connection that came by, in twenty digits.
                    text if text.starts_with(b"OPTIONS sip:which@") => {
                        let data = format!("{:020}", flow.connection.unwrap().0).into();
                        self.outputs.push_back(Output::Transmit { target: Target::Flow(flow), data });
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
            Input::FlowOpened { flow } => {
                self.flows.push(flow);
                self.say(b"opened");
            }
            Input::FlowClosed { flow } => {
                self.flows.retain(|other| *other != flow);
                self.say(b"closed");
            }
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
        Self::start_crew(1, uris, relays, |options| options.tls = tls)
    }

    /// Workers of whom the first has the only machine.
    fn start_sole(workers: u8, uris: &[&str]) -> Running {
        Self::begin(
            uris,
            |_| {},
            move |bound, options, control| {
                let (lead, others) =
                    (|| (Some(Echo::default()), Services::default()), |_| (None, Services::default()));
                work_together(workers, Owners::First, lead, &others, bound, options, control)
            },
        )
    }

    pub fn start_crew(
        workers: u8,
        uris: &[&str],
        relays: Vec<SocketAddr>,
        change: impl FnOnce(&mut Options),
    ) -> Running {
        Self::begin(uris, change, move |bound, options, control| {
            let each = |number| {
                let services = Services { relays: relays.clone(), ..Services::default() };
                (Echo { number, ..Echo::default() }, services)
            };
            work_together(workers, Owners::Each, || each(0), &each, bound, options, control)
        })
    }

    fn begin(
        uris: &[&str],
        change: impl FnOnce(&mut Options),
        work: impl FnOnce(Vec<Bound>, Options, Control) -> Result<(), StartError> + Send + 'static,
    ) -> Running {
        let all = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
        let specs: Vec<Spec> = uris.iter().map(|uri| parse("--listen", uri, &all).unwrap()).collect();
        let bound = bind(&specs, None).unwrap();
        let addresses = bound.iter().map(|b| b.listener.local).collect();
        let (orders, control) = mpsc::unbounded_channel();
        let mut options = Options { drain: Duration::from_secs(1), ..Options::new("echo", Clock::start()) };
        change(&mut options);
        let thread = std::thread::spawn(move || work(bound, options, Control::Channel(control)));
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

/// A request whose branch worker `number` made.
fn request(number: u8, call_id: &str, body: &str) -> String {
    format!(
        "OPTIONS sip:who@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 127.48.0.1;branch=z9hG4bK{number:02x}abc\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 OPTIONS\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn phone_at(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Connections are the kernel's to spread; each names its worker in its number.
#[test]
fn one_machine_has_the_connections_of_all_workers() {
    let running = Running::start_sole(3, &["tcp:127.48.0.5:0"]);
    let connect = || {
        let stream = std::net::TcpStream::connect(running.addresses[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let worker = |mut stream: &std::net::TcpStream| {
        stream.write_all(request(0, "call", "").replace("sip:who@", "sip:which@").as_bytes()).unwrap();
        let mut number = [0; 20];
        stream.read_exact(&mut number).unwrap();
        std::str::from_utf8(&number).unwrap().parse::<u64>().unwrap() % 3
    };
    // The first one answers when all are there.
    worker(&connect());
    let streams: Vec<_> = (0..60).map(|_| connect()).collect();
    let workers: std::collections::BTreeSet<_> = streams.iter().map(worker).collect();
    assert_eq!(workers.len(), 3, "each worker has its share");
    running.order(Order::Stop);
    running.join();
}

#[test]
fn a_call_has_one_worker_wherever_its_packets_land() {
    let running = Running::start_crew(3, &["udp:127.48.0.1:0"], Vec::new(), |_| {});
    let phones: Vec<_> = (0..12).map(|_| phone_at("127.48.0.2")).collect();
    let mut workers = std::collections::BTreeSet::new();
    for call in 0..12 {
        let ask = request(0, &format!("call-{call}"), "");
        let said: std::collections::BTreeSet<_> =
            phones.iter().map(|phone| exchange(phone, running.addresses[0], ask.as_bytes())).collect();
        assert_eq!(said.len(), 1, "call {call} had {said:?}");
        workers.extend(said);
    }
    assert_eq!(workers.len(), 3, "and each worker its share");
    running.order(Order::Stop);
    running.join();
}

#[test]
fn a_connection_is_reached_from_every_worker() {
    let running = Running::start_crew(3, &["udp:127.48.0.4:0", "tcp:127.48.0.4:0"], Vec::new(), |_| {});
    let mut peers: Vec<_> = (0..9)
        .map(|_| {
            let peer = std::net::TcpStream::connect(running.addresses[1]).unwrap();
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            peer
        })
        .collect();
    let phones: Vec<_> = (0..9).map(|_| phone_at("127.48.0.5")).collect();
    let knows = |phone: &UdpSocket, count: &str| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while exchange(phone, running.addresses[0], b"count") != count.as_bytes() {
            assert!(std::time::Instant::now() < deadline, "never {count}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    for phone in &phones {
        knows(phone, "9");
        for peer in &mut peers {
            let text = format!("deliver {} 1", peer.local_addr().unwrap());
            phone.send_to(text.as_bytes(), running.addresses[0]).unwrap();
            let length = request(0, "deliver", "hi").len();
            assert!(read_exactly(peer, length).ends_with("\r\n\r\nhi"));
        }
    }
    // One that reads nothing loses its connection, and whoever sent to it is told, whosever connection it was.
    for (phone, peer) in phones.iter().zip(&peers) {
        let text = format!("deliver {} 400", peer.local_addr().unwrap());
        phone.send_to(text.as_bytes(), running.addresses[0]).unwrap();
        let mut buffer = [0; 64];
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let length = phone.recv(&mut buffer).unwrap();
            if &buffer[..length] == b"failed" {
                break;
            }
            assert!(std::time::Instant::now() < deadline);
        }
        phone.set_nonblocking(true).unwrap();
        while phone.recv(&mut buffer).is_ok() {}
        phone.set_nonblocking(false).unwrap();
    }
    running.order(Order::Stop);
    running.join();
}

#[test]
fn a_flooding_address_is_dropped_and_no_other() {
    let running = Running::start_crew(1, &["udp:127.48.0.6:0", "tcp:127.48.0.6:0"], Vec::new(), |options| {
        options.rate_limit = Some(RateLimit {
            most: 16,
            window: Duration::from_secs(2),
            exempt: vec!["127.48.0.8/32".parse::<Cidr>().unwrap()],
        });
    });
    let heard = |ip: &str, wanted: usize| {
        let phone = phone_at(ip);
        for _ in 0..100 {
            phone.send_to(b"INVITE sip:x@example.com SIP/2.0", running.addresses[0]).unwrap();
        }
        let mut buffer = [0; 64];
        for n in 0..wanted {
            assert!(phone.recv(&mut buffer).is_ok(), "only {n} of {ip}");
        }
        phone.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(phone.recv(&mut buffer).is_err(), "more than {wanted} of {ip}");
    };
    heard("127.48.0.7", 16);
    // From another port neither; and one who is exempt.
    heard("127.48.0.7", 0);
    heard("127.48.0.8", 100);
    let phone = phone_at("127.48.0.9");
    assert_eq!(exchange(&phone, running.addresses[0], b"hello"), b"hello");
    // Nor a connection of its own, and no answer to a keep-alive that could be sent at others.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.48.0.7:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&running.addresses[1].into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = std::io::Write::write_all(&mut stream, OPTIONS.as_bytes());
    assert!(!matches!(std::io::Read::read(&mut stream, &mut [0; 8]), Ok(1..)));
    running.order(Order::Stop);
    running.join();
}

#[test]
fn new_work_is_refused_while_datagrams_are_lost() {
    let running = Running::start(&["udp:127.48.0.10:0"], Vec::new());
    let address = running.addresses[0];
    let phone = phone_at("127.48.0.11");
    let ask = |call: usize, to_tag: &str| {
        format!(
            "INVITE sip:slow@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.48.0.11;branch=z9hG4bK{call}\r\nCall-ID: {call}\r\n\
             CSeq: 1 INVITE\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:slow@example.com>{to_tag}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    phone.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut buffer = [0; 1024];
    let (mut refused, mut done) = (0, 0);
    let mut read = |phone: &UdpSocket| {
        while let Ok(length) = phone.recv(&mut buffer) {
            if buffer[..length].starts_with(b"SIP/2.0 503") {
                let text = String::from_utf8_lossy(&buffer[..length]);
                assert!(text.contains("\r\nRetry-After: 5\r\n"), "{text}");
                refused += 1;
            } else {
                assert_eq!(&buffer[..length], b"done");
                done += 1;
            }
        }
        (refused, done)
    };
    // Faster than it is: until it says no, or for as long as a loaded machine may need.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let mut sent = 0;
    while read(&phone).0 < 100 {
        assert!(std::time::Instant::now() < deadline, "{sent} sent");
        for _ in 0..5000 {
            phone.send_to(ask(sent, "").as_bytes(), address).unwrap();
            sent += 1;
        }
    }
    // What belongs to a call goes on; and after a while, so does new work.
    let (_, before) = read(&phone);
    phone.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let (_, quiet) = read(&phone);
    assert!(quiet >= before);
    phone.send_to(ask(sent, ";tag=2").as_bytes(), address).unwrap();
    assert_eq!(read(&phone).1, quiet + 1);
    phone.send_to(ask(sent + 1, "").as_bytes(), address).unwrap();
    assert_eq!(read(&phone).1, quiet + 2);
    running.order(Order::Stop);
    running.join();
}
