//! The registrar against the reference store: RFC 3261 §10.3 step by step, and who may do what.

use super::*;
use crate::auth::digest::{self, Challenge};
use crate::auth::{FlowToken, Keys, flow_token};
use crate::flow::{ConnectionId, Listener, ListenerId, Transport};
use crate::sip::Rport;
use crate::store::memory::Memory;
use bytes::Bytes;
use std::time::Duration;

const PHONE: &str = "198.51.100.7:5062";
const EDGE: &str = "192.0.2.10:5080";

struct Bench {
    registrar: Registrar,
    store: Memory,
    now: Instant,
    cseq: u32,
    /// Off: the store does not answer.
    store_answers: bool,
    events: Vec<Event>,
}

fn keys() -> Keys {
    Keys::new(&["a key that signs the tokens"]).unwrap()
}

fn bench_with(change: impl FnOnce(&mut Config)) -> Bench {
    let mut config = Config {
        listeners: vec![Listener {
            id: ListenerId(0),
            transport: Transport::Udp,
            local: "192.0.2.50:5060".parse().unwrap(),
            advertised_host: "192.0.2.50".to_owned(),
            advertised_port: 5060,
            local_nets: Vec::new(),
        }],
        domains: vec!["example.com".to_owned()],
        realm: None,
        auth: Auth::Digest,
        min_expires: 60,
        max_expires: 3600,
        default_expires: 1800,
        max_contacts: 3,
        edge: vec!["192.0.2.0/28".parse().unwrap()],
        keys: keys(),
    };
    change(&mut config);
    let mut store = Memory::new();
    for (user, password) in [("alice", "wonder"), ("bob", "builder")] {
        let secret = digest::secret(user, "example.com", "example.com", password);
        store.ask(Query::UserAdd { user: user.to_owned(), domain: "example.com".to_owned(), secret });
    }
    let now = Instant::from_secs(1_000_000);
    let registrar = Registrar::new(config, 0, Rng::from_seed(1));
    let mut bench = Bench { registrar, store, now, cseq: 0, store_answers: true, events: Vec::new() };
    bench.registrar.handle_timeout(now);
    bench.run();
    bench
}

fn bench() -> Bench {
    bench_with(|_| {})
}

/// One request's parts; the rest is filled in.
#[derive(Clone)]
struct Ask<'a> {
    from: &'a str,
    to: &'a str,
    vias: usize,
    /// Host of the first hop's Via.
    first_via: &'a str,
    source: &'a str,
    headers: Vec<String>,
}

fn ask<'a>(headers: &[&str]) -> Ask<'a> {
    Ask {
        from: "sip:alice@example.com",
        to: "sip:alice@example.com",
        vias: 1,
        first_via: "10.0.0.1",
        source: PHONE,
        headers: headers.iter().map(|h| (*h).to_owned()).collect(),
    }
}

impl Bench {
    /// Carries out what was put out; gives back what was sent.
    fn run(&mut self) -> Vec<Bytes> {
        let mut sent = Vec::new();
        while let Some(output) = self.registrar.poll_output() {
            match output {
                Output::Transmit { data, .. } => sent.push(data),
                Output::Ask { ticket, question: Question::Store(query) } if self.store_answers => {
                    let reply = Reply::Store(Ok(self.store.ask(query)));
                    self.registrar.handle_input(self.now, Input::Answer { ticket, reply });
                }
                Output::Ask { .. } => {}
                Output::Event(event) => self.events.push(event),
                Output::Close { .. } => panic!("closed a flow"),
            }
        }
        sent
    }

    fn give(&mut self, source: &str, data: Vec<u8>) -> Vec<Bytes> {
        let flow = Flow {
            transport: Transport::Udp,
            listener: ListenerId(0),
            remote: source.parse().unwrap(),
            connection: None,
        };
        self.registrar.handle_input(self.now, Input::Packet { flow, data: data.into() });
        self.run()
    }

    fn send(&mut self, method: &str, ask: &Ask<'_>) -> Option<Bytes> {
        self.cseq += 1;
        let mut text = format!("{method} sip:example.com SIP/2.0\r\n");
        for i in (0..ask.vias).rev() {
            let host = if i == 0 { ask.first_via.to_owned() } else { format!("192.0.2.{i}") };
            text += &format!("Via: SIP/2.0/UDP {host};branch=z9hG4bK{}-{i}\r\n", self.cseq);
        }
        text += &format!(
            "From: <{}>;tag=1\r\nTo: <{}>\r\nCall-ID: c1\r\nCSeq: {} {method}\r\n",
            ask.from, ask.to, self.cseq
        );
        for header in &ask.headers {
            text += header;
            text += "\r\n";
        }
        self.give(ask.source, (text + "\r\n").into_bytes()).pop()
    }

    /// Registers, and answers the challenge as `user`.
    fn register_as(&mut self, user: &str, password: &str, ask: &Ask<'_>) -> Bytes {
        let first = self.send("REGISTER", ask).unwrap();
        let response = Message::parse(&first).unwrap();
        if response.status() != 401 {
            return first;
        }
        let (name, challenge) = Challenge::of(&response).unwrap();
        let answer = challenge.answer(user, password, "REGISTER", "sip:example.com", 1, "cn");
        let mut again = ask.clone();
        again.headers.push(format!("{name}: {answer}"));
        self.send("REGISTER", &again).unwrap()
    }

    fn register(&mut self, headers: &[&str]) -> Bytes {
        self.register_as("alice", "wonder", &ask(headers))
    }

    fn events(&mut self) -> Vec<&'static str> {
        self.events.drain(..).map(|event| event.name).collect()
    }
}

fn status(data: &[u8]) -> u16 {
    Message::parse(data).unwrap().status()
}

fn contacts(data: &[u8]) -> Vec<String> {
    let message = Message::parse(data).unwrap();
    assert_eq!(message.status(), 200, "{}", String::from_utf8_lossy(data));
    message.headers(Name::Contact).map(|h| String::from_utf8_lossy(h.value).into_owned()).collect()
}

fn field<'e>(event: &'e Event, name: &str) -> &'e str {
    event.fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
}

#[test]
fn adds_refreshes_fetches_and_removes() {
    let mut b = bench();
    let r = b.register(&["Contact: <sip:alice@10.0.0.0>;q=0.5"]);
    assert_eq!(contacts(&r), ["<sip:alice@10.0.0.0>;q=0.500;expires=1800"]);
    assert_eq!(Message::parse(&r).unwrap().header(Name::Date), Some(&b"Mon, 12 Jan 1970 13:46:40 GMT"[..]));
    assert_eq!(
        b.events.last().map(|e| (e.name, field(e, "peer"))),
        Some(("registered", "udp:198.51.100.7:5062"))
    );
    b.now = b.now + Duration::from_secs(100);
    let r = b.register(&["Contact: <sip:alice@10.0.0.0>;expires=9999, <sip:alice@10.0.0.9>", "Expires: 60"]);
    assert_eq!(contacts(&r).len(), 2);
    assert!(contacts(&r).contains(&"<sip:alice@10.0.0.0>;expires=3600".to_owned()));
    assert!(contacts(&r).contains(&"<sip:alice@10.0.0.9>;expires=60".to_owned()));
    assert_eq!(contacts(&b.register(&[])).len(), 2);
    let r = b.register(&["Contact: <sip:alice@10.0.0.9>;expires=0"]);
    assert_eq!(contacts(&r), ["<sip:alice@10.0.0.0>;expires=3600"]);
    assert_eq!(contacts(&b.register(&["Contact: *", "Expires: 0"])), [""; 0]);
    assert_eq!(b.events(), ["registered", "refreshed", "registered", "removed", "removed"]);
}

#[test]
fn refuses_what_the_rfc_refuses() {
    let mut b = bench_with(|config| config.auth = Auth::None);
    for (headers, code) in [
        (&["Contact: *"][..], 400),
        (&["Contact: *, <sip:a@b>", "Expires: 0"], 400),
        (&["Contact: *", "Expires: 1"], 400),
        (&["Contact: <sip:a@b>;expires=59"], 423),
        (&["Require: gruu, path"], 420),
        (&["Contact: <sip:a@b>, <sip:b@b>, <sip:c@b>, <sip:d@b>"], 403),
    ] {
        let r = b.register(headers);
        assert_eq!(status(&r), code, "{headers:?}");
        let message = Message::parse(&r).unwrap();
        match code {
            423 => assert_eq!(message.header(Name::MinExpires), Some(&b"60"[..])),
            420 => assert_eq!(message.header(Name::Unsupported), Some(&b"gruu"[..])),
            _ => {}
        }
    }
    let nowhere = Ask { to: "sip:alice@example.org", ..ask(&[]) };
    assert_eq!(status(&b.send("REGISTER", &nowhere).unwrap()), 404);
    let tel = Ask { to: "tel:+15551234", ..ask(&[]) };
    assert_eq!(status(&b.send("REGISTER", &tel).unwrap()), 400);
    assert_eq!(status(&b.send("INVITE", &ask(&[])).unwrap()), 405);
    assert_eq!(status(&b.send("OPTIONS", &ask(&[])).unwrap()), 200);
}

#[test]
fn challenges_again_who_is_wrong_or_unknown() {
    let mut b = bench();
    assert_eq!(status(&b.register_as("alice", "wrong", &ask(&["Contact: <sip:alice@h>"]))), 401);
    let event = b.events.pop().unwrap();
    assert_eq!((event.name, field(&event, "aor")), ("auth-failed", "alice@example.com"));
    assert_eq!((field(&event, "contact"), field(&event, "peer")), ("sip:alice@h", PHONE));
    let carol = Ask { to: "sip:carol@example.com", from: "sip:carol@example.com", ..ask(&[]) };
    assert_eq!(status(&b.register_as("carol", "x", &carol)), 401);
    assert_eq!(b.events(), ["auth-failed"]);
}

#[test]
fn nobody_registers_as_another() {
    let mut b = bench();
    for from in ["sip:alice@example.com", "sip:bob@example.com"] {
        let as_bob = Ask { from, to: "sip:bob@example.com", ..ask(&["Contact: <sip:alice@h>"]) };
        assert_eq!(status(&b.register_as("alice", "wonder", &as_bob)), 403);
        assert_eq!(b.events(), ["auth-failed"]);
    }
    assert_eq!(
        contacts(&b.register_as("bob", "builder", &Ask { to: "sip:bob@example.com", ..ask(&[]) })),
        [""; 0]
    );
}

#[test]
fn a_request_passes_once() {
    let mut b = bench();
    b.register(&["Contact: <sip:alice@h>"]);
    let first = b.send("REGISTER", &ask(&[])).unwrap();
    let (name, challenge) = Challenge::of(&Message::parse(&first).unwrap()).unwrap();
    let answer = challenge.answer("alice", "wonder", "REGISTER", "sip:example.com", 1, "cn");
    let again = ask(&[&format!("{name}: {answer}")]);
    assert_eq!(status(&b.send("REGISTER", &again).unwrap()), 200);
    let replayed = b.send("REGISTER", &again).unwrap();
    assert_eq!(status(&replayed), 401);
    assert!(Challenge::of(&Message::parse(&replayed).unwrap()).unwrap().1.stale);
}

fn token(aor: &str, contact_host: &str, connection: u64) -> String {
    flow_token_of(aor, contact_host, connection).mint(&keys())
}

fn flow_token_of(aor: &str, contact_host: &str, connection: u64) -> FlowToken {
    FlowToken {
        worker: 0,
        listener: ListenerId(1),
        transport: Transport::Wss,
        epoch: 9,
        connection: Some(ConnectionId(connection)),
        remote: "203.0.113.5:40000".parse().unwrap(),
        client: flow_token::client_hash(&Aor::parse(aor).unwrap(), contact_host),
        dialog: false,
    }
}

#[test]
fn believes_a_token_that_names_the_client_and_nothing_else_from_strangers() {
    let mut b = bench();
    let contact = "Contact: <sip:x@a.invalid;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"";
    let path = |token: &str| format!("Path: <sip:{token}@192.0.2.10;lr;ob>");
    let own = token("alice@example.com", "a.invalid", 1);
    let others = token("bob@example.com", "a.invalid", 2);
    let bindings = |b: &mut Bench| {
        let aor = Aor::parse("alice@example.com").unwrap();
        match b.store.ask(Query::Bindings { aor, now: b.now }) {
            store::Reply::Bindings(bindings) => bindings,
            other => panic!("{other:?}"),
        }
    };
    let two = |source, headers: &[&str]| Ask { source, vias: 2, ..ask(headers) };

    // Through wsgw, whatever its address.
    let ask_own = two("203.0.113.99:5060", &[contact, &path(&own), "Supported: path, outbound"]);
    let r = b.register_as("alice", "wonder", &ask_own);
    let row = bindings(&mut b).pop().unwrap();
    assert_eq!(row.received.as_deref(), Some("sip:203.0.113.5:40000;transport=ws"));
    assert_eq!(row.path.as_deref(), Some(&path(&own)[6..]));
    assert_eq!((row.instance.as_deref(), row.reg_id), (Some("<urn:uuid:1>"), 1));
    let message = Message::parse(&r).unwrap();
    assert_eq!(message.header(Name::Path), Some(&path(&own).as_bytes()[6..]));
    assert!(message.has_token(Name::Require, "outbound"));
    assert!(contacts(&r)[0].ends_with(";expires=1800;+sip.instance=\"<urn:uuid:1>\";reg-id=1"));

    // Somebody else's TOKEN, and a Path of the client's own: as if they were not there.
    for told in [path(&others), "Path: <sip:evil@203.0.113.66;lr>".to_owned()] {
        b.register_as("alice", "wonder", &ask(&[contact, &told]));
        let row = bindings(&mut b).into_iter().find(|row| row.reg_id == 0).unwrap();
        assert_eq!((row.path, row.received.as_deref()), (None, Some("sip:198.51.100.7:5062")));
    }
    // From an edge of ours both count.
    let edge =
        two(EDGE, &[contact, "Path: <sip:192.0.2.10;lr;received=sip:203.0.113.8:5070%3Btransport%3Dtcp>"]);
    b.register_as("alice", "wonder", &edge);
    let row = bindings(&mut b).into_iter().find(|row| row.reg_id == 0).unwrap();
    assert_eq!(row.received.as_deref(), Some("sip:203.0.113.8:5070;transport=tcp"));
    assert!(row.path.is_some());
}

#[test]
fn a_lost_flow_takes_its_own_binding() {
    let mut b = bench();
    let (old, new) = (token("alice@example.com", "a.invalid", 1), token("alice@example.com", "a.invalid", 2));
    let path = |token: &str| format!("Path: <sip:{token}@192.0.2.10;lr;ob>");
    let lost = |token: &str| Ask {
        source: EDGE,
        first_via: "192.0.2.10",
        ..ask(&["Contact: <sip:x@a.invalid>;expires=0", &path(token)])
    };
    let register = Ask { vias: 2, source: EDGE, ..ask(&["Contact: <sip:x@a.invalid>", &path(&old)]) };
    b.register_as("alice", "wonder", &register);
    b.events();

    // Back already, on another connection: the old one's loss changes nothing.
    let mut back = register.clone();
    back.headers[1] = path(&new);
    b.register_as("alice", "wonder", &back);
    assert_eq!(status(&b.send("REGISTER", &lost(&old)).unwrap()), 200);
    assert_eq!(b.events(), ["refreshed"]);
    assert_eq!(status(&b.send("REGISTER", &lost(&new)).unwrap()), 200);
    assert_eq!(b.events(), ["flow-lost"]);
    // By way of a proxy it is the same.
    b.register_as("alice", "wonder", &register);
    assert_eq!(status(&b.send("REGISTER", &Ask { vias: 2, ..lost(&old) }).unwrap()), 200);
    assert_eq!(b.events(), ["registered", "flow-lost"]);
    // With another's TOKEN, or from the client himself, it is a REGISTER like any other.
    let forged = lost(&token("bob@example.com", "a.invalid", 2));
    let forged = Ask { source: "203.0.113.66:5060", ..forged };
    assert_eq!(status(&b.send("REGISTER", &forged).unwrap()), 401);
    let own = Ask { vias: 2, first_via: "a.invalid", ..lost(&new) };
    assert_eq!(status(&b.send("REGISTER", &own).unwrap()), 401);
    // Whoever the client called knows the token of that dialog: it takes nothing off.
    let dialog = FlowToken { dialog: true, ..flow_token_of("alice@example.com", "a.invalid", 2) };
    assert_eq!(status(&b.send("REGISTER", &lost(&dialog.mint(&keys()))).unwrap()), 401);
}

#[test]
fn no_answer_before_the_store_has_one() {
    let mut b = bench_with(|config| config.auth = Auth::None);
    b.store_answers = false;
    assert_eq!(b.send("REGISTER", &ask(&["Contact: <sip:alice@h>"])), None);
    assert!(!b.registrar.is_idle());
    b.now = b.now + ASK_DEADLINE;
    assert!(b.registrar.poll_timeout() <= Some(b.now));
    b.registrar.handle_timeout(b.now);
    assert_eq!(status(&b.run().pop().unwrap()), 503);
    // The answer that comes too late is nobody's.
    let reply = Reply::Store(Ok(store::Reply::Bindings(Vec::new())));
    b.registrar.handle_input(b.now, Input::Answer { ticket: Ticket(3), reply });
    assert!(b.run().is_empty());
    assert!(b.registrar.is_idle());
}

#[test]
fn a_store_that_is_away_is_503() {
    let mut b = bench_with(|config| config.auth = Auth::None);
    b.store_answers = false;
    b.send("REGISTER", &ask(&["Contact: <sip:alice@h>"]));
    let reply = Reply::Store(Err(store::Error::Unavailable("locked".to_owned())));
    b.registrar.handle_input(b.now, Input::Answer { ticket: Ticket(3), reply });
    let answer = b.run().pop().unwrap();
    assert_eq!(status(&answer), 503);
    assert!(Message::parse(&answer).unwrap().header(Name::RetryAfter).is_some());
}

#[test]
fn an_overtaken_request_fails() {
    let mut b = bench_with(|config| config.auth = Auth::None);
    b.cseq = 10;
    b.register(&["Contact: <sip:alice@h>"]);
    b.cseq = 5;
    assert_eq!(status(&b.register(&["Contact: <sip:alice@h>;expires=0"])), 500);
    assert_eq!(contacts(&b.register(&[])).len(), 1);
}

#[test]
fn tells_what_expired() {
    let mut b = bench_with(|config| config.auth = Auth::None);
    b.register(&["Contact: <sip:alice@h>"]);
    b.events();
    b.now = b.now + Duration::from_secs(1800);
    b.registrar.handle_timeout(b.now);
    b.run();
    assert_eq!(b.events(), ["expired"]);
}

#[test]
fn malformed_requests_get_their_answer_and_noise_none() {
    let mut b = bench();
    let bad = b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx;rport\r\nno colon\r\n\
        From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\n\r\n";
    let answer = b.give(PHONE, bad.to_vec()).pop().unwrap();
    assert_eq!(status(&answer), 400);
    let via = Message::parse(&answer).unwrap().top_via().unwrap().rport();
    assert_eq!(via, Rport::Port(5062));
    assert!(b.give(PHONE, b"\x00\x01noise".to_vec()).is_empty());
    let version = String::from_utf8(bad.to_vec()).unwrap().replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia");
    assert_eq!(status(&b.give(PHONE, version.into_bytes()).pop().unwrap()), 505);
    // RFC 4475 §3.1.2.1 and §3.3.1: a Via that cannot be read, and next to nothing there.
    let via =
        b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;;,;,,\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 2 REGISTER\r\n\r\n";
    assert_eq!(status(&b.give(PHONE, via.to_vec()).pop().unwrap()), 400);
    let bare =
        b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKy\r\nCSeq: 3 REGISTER\r\n\r\n";
    assert_eq!(status(&b.give(PHONE, bare.to_vec()).pop().unwrap()), 400);
}

#[test]
fn takes_no_new_work_when_it_ends() {
    let mut b = bench();
    b.registrar.handle_input(b.now, Input::Drain);
    assert_eq!(status(&b.send("REGISTER", &ask(&[])).unwrap()), 503);
    assert!(b.registrar.is_idle());
}
