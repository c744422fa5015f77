//! Sequences of transaction events: requests and responses in any order, time-outs, lost connections.
//!
//! An input is a program: a byte picks what happens, the next ones to what. Laws: every transaction ends once and is silent
//! then; a request has one final response only (but for a 2xx to INVITE); nothing is left after 64*T1 and what lingers; the
//! layer's count of bytes is right to the last one.

use bytes::Bytes;
use sipbox_core::flow::{ConnectionId, Flow, ListenerId, Target, Transport};
use sipbox_core::limits;
use sipbox_core::rng::Rng;
use sipbox_core::time::Instant;
use sipbox_core::transaction::{Answered, ClientId, Event, Layer, Received, RequestId, ResponseId, ServerId};
use std::collections::HashMap;
use std::time::Duration;

const METHODS: [&str; 6] = ["INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "NEW"];
const STATUS: [u16; 10] = [100, 180, 183, 200, 202, 302, 404, 408, 487, 603];
/// Ample for every timer of a transaction that has its final response: 64*T1, and T4 or D behind it.
const LINGER: Duration = Duration::from_secs(120);

/// Bytes as decisions; when they have run out, all are zero.
pub(super) struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    pub fn done(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }
}

struct Client {
    method: &'static str,
    branch: String,
    ended: bool,
}

struct Server {
    invite: bool,
    /// The first final status that went out.
    last: Option<u16>,
    ended: bool,
}

struct World {
    layer: Layer,
    rng: Rng,
    now: Instant,
    clients: Vec<(ClientId, Client)>,
    servers: HashMap<ServerId, Server>,
    order: Vec<ServerId>,
}

pub fn run(data: &[u8]) {
    let mut rng = Rng::from_seed(1);
    let layer = Layer::new(&mut rng, 3).knowing_merged();
    let (clients, servers, order) = (Vec::new(), HashMap::new(), Vec::new());
    let mut world = World { layer, rng, now: Instant::from_secs(1000), clients, servers, order };
    let mut choices = Choices(data);
    while !choices.done() {
        world.step(&mut choices);
        world.drain();
    }
    world.end();
}

fn target(choice: u8) -> Target {
    let connection = (choice & 1 == 1).then_some(ConnectionId(u64::from(choice >> 1 & 1) + 1));
    let transport = if connection.is_some() { Transport::Tcp } else { Transport::Udp };
    let remote = ([192, 0, 2, 1], 5060).into();
    Target::Flow(Flow { transport, listener: ListenerId(0), remote, connection })
}

impl World {
    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 9 {
            0 | 1 => self.request(choices),
            2 => self.respond(choices),
            3 => self.send(choices),
            4 | 5 => self.response(choices),
            6 => self.pass(Duration::from_millis(u64::from(choices.byte()) * 150)),
            7 => match choices.byte() {
                kind @ 0..=199 if !self.clients.is_empty() => {
                    let index = usize::from(kind) % self.clients.len();
                    self.layer.cancel(self.now, self.clients[index].0);
                }
                kind @ 200..=220 if !self.clients.is_empty() => {
                    let (_, client) = &self.clients[usize::from(kind) % self.clients.len()];
                    self.layer.send_failed(client.method, &client.branch);
                }
                kind if !self.order.is_empty() => {
                    self.layer.drop_server(self.order[usize::from(kind) % self.order.len()]);
                }
                _ => {}
            },
            _ => {
                if let Target::Flow(flow) = target(choices.byte()) {
                    self.layer.flow_closed(&flow);
                }
            }
        }
    }

    fn request(&mut self, choices: &mut Choices<'_>) {
        let method = choices.of(&METHODS);
        let kind = choices.byte();
        let branch = format!("{}{}", if kind & 64 == 0 { "z9hG4bK" } else { "" }, kind & 7);
        let id = RequestId {
            method,
            branch: &branch,
            sent_by: if kind & 8 == 0 { "client.example.com" } else { "CLIENT.example.com:5062" },
            uri: "sip:bob@example.com",
            from_tag: "a",
            call_id: if kind & 16 == 0 { "1" } else { "2" },
            cseq: 1,
            in_dialog: kind & 32 != 0,
            bytes: usize::from(kind) * 5,
        };
        match self.layer.receive_request(self.now, &id, target(kind >> 3)) {
            Received::New(server) | Received::Cancel { id: server, .. } => {
                let state = Server { invite: method == "INVITE", last: None, ended: false };
                assert!(self.servers.insert(server, state).is_none(), "an id twice");
                assert!(!self.layer.is_merged(server) || (!id.in_dialog && method != "CANCEL"));
                self.order.push(server);
            }
            Received::Ack(found) => {
                assert_eq!(method, "ACK");
                if let Some(server) = found {
                    assert!(self.servers[&server].last.is_some_and(|status| status < 300));
                }
            }
            Received::Absorbed => {}
            Received::Overload => panic!("so few, and too many"),
        }
    }

    fn respond(&mut self, choices: &mut Choices<'_>) {
        if self.order.is_empty() {
            return;
        }
        let id = choices.of(&self.order);
        let status = choices.of(&STATUS);
        let sent = self.layer.respond(self.now, id, status, Bytes::from(vec![b'x'; usize::from(status)]));
        let server = self.servers.get_mut(&id).expect("one that we made");
        if !sent {
            return;
        }
        assert!(!server.ended, "a response of a transaction that has ended");
        match server.last {
            Some(last) => {
                assert!(server.invite && last < 300 && (200..300).contains(&status), "{last}, then {status}");
            }
            None if status >= 200 => server.last = Some(status),
            None => assert!(server.invite || status == 100, "RFC 4320"),
        }
        assert!(server.invite || status != 408, "RFC 4320");
    }

    fn send(&mut self, choices: &mut Choices<'_>) {
        let method = choices.of(&["INVITE", "BYE", "OPTIONS", "NEW"]);
        let branch = self.layer.branch(&mut self.rng);
        let text = format!(
            "{method} sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP p;branch={branch}\r\nFrom: <sip:a@h>;tag=1\r\n\
             To: <sip:b@h>\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\n\r\n"
        );
        let sent =
            self.layer.send_request(self.now, target(choices.byte()), method, &branch, Bytes::from(text));
        let id = sent.expect("so few, and too many");
        self.clients.push((id, Client { method, branch, ended: false }));
    }

    fn response(&mut self, choices: &mut Choices<'_>) {
        if self.clients.is_empty() {
            return;
        }
        let index = usize::from(choices.byte()) % self.clients.len();
        let status = choices.of(&STATUS);
        let (id, client) = &self.clients[index];
        let method = if choices.byte() < 16 { "CANCEL" } else { client.method };
        let response = ResponseId { branch: &client.branch, method, status, to: "<sip:b@h>;tag=2" };
        if let Answered::Pass(passed) = self.layer.receive_response(self.now, &response) {
            assert_eq!(passed, *id);
            assert!(!client.ended, "news of a transaction that has ended");
        }
    }

    /// Lets every timer fire in its time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.layer.poll_timeout().filter(|&at| at <= end) {
            assert!(at >= self.now, "a timer of the past");
            self.now = at;
            self.layer.handle_timeout(at);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while self.layer.poll_transmit().is_some() {}
        while let Some(event) = self.layer.poll_event() {
            match event {
                Event::TimedOut(id) | Event::TransportFailed(id) => assert!(!self.client(id).ended),
                Event::ClientEnded(id) => {
                    assert!(!std::mem::replace(&mut self.client(id).ended, true), "ended twice");
                    assert_eq!(self.layer.client_state(id), None);
                }
                Event::Unacknowledged(id) => assert!(!self.servers[&id].ended),
                Event::ServerEnded(id) => {
                    let server = self.servers.get_mut(&id).expect("one that we made");
                    assert!(!std::mem::replace(&mut server.ended, true), "ended twice");
                    assert_eq!(self.layer.server_state(id), None);
                }
            }
        }
        assert!(self.layer.held().bytes <= limits::TRANSACTION_BYTES);
    }

    fn client(&mut self, id: ClientId) -> &mut Client {
        let found = self.clients.iter_mut().find(|(known, _)| *known == id);
        &mut found.expect("one that we made, and no CANCEL of the layer's own").1
    }

    /// What the machine does with everything that is still open; then nothing may be left.
    fn end(&mut self) {
        for id in self.order.clone() {
            self.layer.respond(self.now, id, 500, Bytes::from_static(b"x"));
        }
        for (id, _) in &self.clients {
            self.layer.cancel(self.now, *id);
        }
        self.drain();
        self.pass(LINGER);
        assert_eq!(self.layer.held(), Default::default(), "something is left");
        assert!(self.clients.iter().all(|(_, client)| client.ended));
        assert!(self.servers.values().all(|server| server.ended));
    }
}
