//! Presence against the reference store, on a clock of the test: RFC 6665's states, RFC 3903's entity tags, and who may do what.

use super::*;
use crate::auth::Keys;
use crate::auth::digest::{self, Challenge};
use crate::flow::{Listener, ListenerId, Target, Transport};
use crate::machine::Event;
use crate::sip::{Name, build};
use crate::store::memory::Memory;
use crate::store::{Binding, Contacts, Save};

const ALICE: &str = "198.51.100.7:5062";
const CAROL: &str = "198.51.100.8:5062";
const EDGE: &str = "192.0.2.10:5060";
const PIDF: &str = "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:bob@example.com\"><tuple id=\"a\">\
                    <status><basic>open</basic></status></tuple></presence>";

struct Bench {
    presence: Presence,
    store: Memory,
    now: Instant,
    cseq: u32,
    /// Off: the store is away.
    store_answers: bool,
    events: Vec<Event>,
    /// What NOTIFYs to an address get; 200 otherwise, 0 for nothing.
    answers: Vec<(&'static str, u16)>,
    notifies: Vec<Bytes>,
    replies: Vec<Bytes>,
    changed: Vec<rows::Query>,
}

fn config() -> Config {
    Config {
        listeners: vec![Listener {
            id: ListenerId(0),
            transport: Transport::Udp,
            local: "192.0.2.52:5060".parse().unwrap(),
            advertised_host: "192.0.2.52".to_owned(),
            advertised_port: 5060,
            local_nets: Vec::new(),
        }],
        domains: vec!["example.com".to_owned()],
        auth: Auth::None,
        min_expires: 60,
        max_expires: 3600,
        edge: vec!["192.0.2.0/28".parse().unwrap()],
        keys: Keys::new(&["a key that signs the nonces"]).unwrap(),
    }
}

fn bench_on(config: Config, store: Memory, now: Instant) -> Bench {
    let presence = Presence::new(config, 0, Rng::from_seed(1));
    let mut bench = Bench {
        presence,
        store,
        now,
        cseq: 0,
        store_answers: true,
        events: Vec::new(),
        answers: Vec::new(),
        notifies: Vec::new(),
        replies: Vec::new(),
        changed: Vec::new(),
    };
    bench.pass(0);
    bench
}

fn bench() -> Bench {
    bench_on(config(), Memory::new(), Instant::from_secs(1_000_000))
}

fn value<'a>(message: &'a Message<'_>, name: Name) -> &'a str {
    std::str::from_utf8(message.header(name).unwrap_or_default()).unwrap()
}

fn header(data: &Bytes, name: Name) -> String {
    value(&Message::parse(data).unwrap(), name).to_owned()
}

fn tag_of(data: &Bytes) -> String {
    String::from_utf8(Message::parse(data).unwrap().to_tag().unwrap().to_vec()).unwrap()
}

fn status(data: &Bytes) -> u16 {
    Message::parse(data).unwrap().status()
}

fn body(data: &Bytes) -> String {
    String::from_utf8(Message::parse(data).unwrap().body().to_vec()).unwrap()
}

impl Bench {
    fn flow(&self, address: &str) -> Flow {
        Flow {
            transport: Transport::Udp,
            listener: ListenerId(0),
            remote: address.parse().unwrap(),
            connection: None,
        }
    }

    fn run(&mut self) {
        while let Some(output) = self.presence.poll_output() {
            match output {
                Output::Transmit { target, data } => self.sent(target, data),
                Output::Ask { ticket, question: Question::Store(query) } => {
                    if let Query::Presence(query) = &query
                        && query.changes()
                    {
                        self.changed.push(query.clone());
                    }
                    let reply = if self.store_answers {
                        Ok(self.store.ask(query))
                    } else {
                        Err(store::Error::Unavailable("away".to_owned()))
                    };
                    self.presence
                        .handle_input(self.now, Input::Answer { ticket, reply: Reply::Store(reply) });
                }
                Output::Ask { ticket, question: Question::Resolve { .. } } => {
                    let reply = Reply::Resolve(vec!["198.51.100.99:5060".parse().unwrap()]);
                    self.presence.handle_input(self.now, Input::Answer { ticket, reply });
                }
                Output::Ask { .. } | Output::Close { .. } => panic!("not presence's"),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn sent(&mut self, target: Target, data: Bytes) {
        let message = Message::parse(&data).unwrap();
        message.check().unwrap();
        if !message.is_request() {
            self.replies.push(data);
            return;
        }
        let to = target.remote().to_string();
        let code = self.answers.iter().find(|(address, _)| *address == to).map_or(200, |(_, code)| *code);
        self.notifies.push(data.clone());
        if code > 0 {
            let answer = build::response(&message, code, None, None, &[], b"");
            let flow = self.flow(&to);
            self.presence.handle_input(self.now, Input::Packet { flow, data: answer.into() });
        }
    }

    /// Time goes by, in steps.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            self.presence.handle_timeout(self.now);
            self.run();
            if self.now >= end {
                return;
            }
            self.now =
                self.presence.poll_timeout().unwrap_or(end).clamp(self.now + Duration::from_millis(1), end);
        }
    }

    /// The answer to a request with these further headers and this body.
    fn send(
        &mut self,
        method: &str,
        from: &str,
        source: &str,
        to_tag: &str,
        headers: &[&str],
        body: &str,
    ) -> Bytes {
        self.cseq += 1;
        let to_tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        let mut text = format!(
            "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {source};branch=z9hG4bK{}\r\n\
             From: <sip:{from}@example.com>;tag=f-{from}\r\nTo: <sip:bob@example.com>{to_tag}\r\nCall-ID: c-{from}\r\n\
             CSeq: {} {method}\r\nContact: <sip:{from}@{source}>\r\n",
            self.cseq, self.cseq
        );
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        self.replies.clear();
        let flow = self.flow(source);
        self.presence.handle_input(self.now, Input::Packet { flow, data: text.into() });
        self.run();
        assert_eq!(self.replies.len(), 1, "one answer to {method}");
        self.replies.pop().unwrap()
    }

    fn subscribe(&mut self, from: &str, source: &str, expires: u32) -> Bytes {
        self.send("SUBSCRIBE", from, source, "", &["Event: presence", &format!("Expires: {expires}")], "")
    }

    fn publish(&mut self, headers: &[&str], body: &str) -> Bytes {
        let mut all = vec!["Event: presence", "Content-Type: application/pidf+xml"];
        all.extend(headers);
        self.send("PUBLISH", "bob", "198.51.100.9:5060", "", &all, body)
    }

    /// The NOTIFYs since the last look: (To user's address, Subscription-State, basic).
    fn told(&mut self) -> Vec<(String, String, Option<String>)> {
        let taken = std::mem::take(&mut self.notifies);
        taken
            .iter()
            .map(|data| {
                let message = Message::parse(data).unwrap();
                let to = message.to().unwrap().uri.aor().unwrap().user;
                let state = value(&message, Name::SubscriptionState).to_owned();
                let text = String::from_utf8(message.body().to_vec()).unwrap();
                (to, state, document::basic(&text).map(str::to_owned))
            })
            .collect()
    }

    fn basics(&mut self) -> Vec<String> {
        self.told().into_iter().map(|(to, _, basic)| format!("{to} {}", basic.unwrap_or_default())).collect()
    }

    fn rows(&mut self) -> Vec<Subscription> {
        let query = rows::Query::Subscriptions { of: None, now: self.now };
        match self.store.ask(Query::Presence(query)) {
            store::Reply::Presence(rows::Reply::Subscriptions(rows)) => rows,
            other => panic!("{other:?}"),
        }
    }

    fn register(&mut self, lives: u64) {
        let aor = Aor::parse("bob@example.com").unwrap();
        let contact = "sip:bob@198.51.100.9".to_owned();
        let binding = Binding {
            ruid: store::ruid(&aor, None, 0, &contact),
            contact,
            received: None,
            path: None,
            expires: self.now + Duration::from_secs(lives),
            q: None,
            call_id: "r".to_owned(),
            cseq: self.now.unix_secs() as u32,
            modified: self.now,
            cflags: 0,
            user_agent: String::new(),
            socket: None,
            methods: None,
            instance: None,
            reg_id: 0,
        };
        let save = Save {
            aor,
            now: self.now,
            call_id: "r".to_owned(),
            cseq: self.now.unix_secs() as u32,
            contacts: Contacts::Each(vec![binding]),
            max_contacts: 9,
        };
        self.store.ask(Query::Save(Box::new(save)));
    }
}

#[test]
fn a_subscription_lives_is_refreshed_and_expires() {
    let mut bench = bench();
    let accepted = bench.subscribe("alice", ALICE, 600);
    assert_eq!((status(&accepted), header(&accepted, Name::Expires)), (200, "600".to_owned()));
    assert_eq!(bench.told(), [("alice".into(), "active;expires=600".into(), Some("closed".into()))]);
    let tag = tag_of(&accepted);
    bench.pass(500);
    assert_eq!(bench.told(), [], "nothing changed, nobody is told");
    let refreshed = bench.send("SUBSCRIBE", "alice", ALICE, &tag, &["Event: presence", "Expires: 600"], "");
    assert_eq!((status(&refreshed), tag_of(&refreshed)), (200, tag.clone()));
    // RFC 6665 §4.2.1.2: a refresh brings a NOTIFY.
    assert_eq!(bench.told(), [("alice".into(), "active;expires=600".into(), Some("closed".into()))]);
    bench.pass(599);
    assert_eq!(bench.rows().len(), 1);
    bench.pass(4);
    assert_eq!(bench.told(), [("alice".into(), "terminated;reason=timeout".into(), Some("closed".into()))]);
    assert!(bench.rows().is_empty());
    let late = bench.send("SUBSCRIBE", "alice", ALICE, &tag, &["Event: presence", "Expires: 600"], "");
    assert_eq!(status(&late), 481);
}

#[test]
fn expires_0_ends_or_only_fetches() {
    let mut bench = bench();
    let tag = tag_of(&bench.subscribe("alice", ALICE, 600));
    bench.told();
    let ended = bench.send("SUBSCRIBE", "alice", ALICE, &tag, &["Event: presence", "Expires: 0"], "");
    assert_eq!((status(&ended), header(&ended, Name::Expires)), (200, "0".to_owned()));
    assert_eq!(bench.told(), [("alice".into(), "terminated;reason=timeout".into(), Some("closed".into()))]);
    assert!(bench.rows().is_empty());
    let fetched = bench.subscribe("carol", CAROL, 0);
    assert_eq!(status(&fetched), 200);
    assert_eq!(bench.told(), [("carol".into(), "terminated;reason=timeout".into(), Some("closed".into()))]);
    bench.publish(&[], PIDF);
    bench.pass(5);
    assert_eq!(bench.told(), []);
    assert_eq!(bench.presence.watches.len(), 0);
}

#[test]
fn entity_tags_are_those_of_rfc_3903() {
    let mut bench = bench();
    bench.subscribe("alice", ALICE, 3600);
    bench.told();
    let initial = bench.publish(&["Expires: 100"], PIDF);
    assert_eq!((status(&initial), header(&initial, Name::Expires)), (200, "100".to_owned()));
    assert_eq!(bench.basics(), ["alice open"]);
    let first = header(&initial, Name::SipETag);
    bench.pass(90);
    let refresh = bench.publish(&["Expires: 100", &format!("SIP-If-Match: {first}")], "");
    let second = header(&refresh, Name::SipETag);
    assert_ne!(first, second);
    assert_eq!(status(&bench.publish(&["Expires: 100", &format!("SIP-If-Match: {first}")], "")), 412);
    bench.pass(60);
    assert_eq!(bench.told(), [], "refreshed in time, nothing changed");
    let closed = PIDF.replace("open", "closed");
    let modified = bench.publish(&["Expires: 100", &format!("SIP-If-Match: {second}")], &closed);
    assert_eq!(bench.basics(), ["alice closed"]);
    let third = header(&modified, Name::SipETag);
    assert_eq!(status(&bench.publish(&["Expires: 0", &format!("SIP-If-Match: {third}")], "")), 200);
    let gone = bench.notifies.last().map(body).unwrap_or_default();
    assert!(gone.contains("id=\"registration\""), "{gone}");
    // And one that is never refreshed goes by itself.
    bench.publish(&["Expires: 100"], PIDF);
    bench.told();
    bench.pass(102);
    assert_eq!(bench.basics(), ["alice closed"]);
}

#[test]
fn who_registers_is_open_until_he_leaves() {
    let mut bench = bench();
    bench.subscribe("alice", ALICE, 3600);
    bench.told();
    bench.register(60);
    bench.pass(1);
    assert_eq!(bench.basics(), ["alice open"]);
    bench.pass(61);
    assert_eq!(bench.basics(), ["alice closed"]);
}

#[test]
fn one_silent_watcher_holds_up_nobody_and_ends() {
    let mut bench = bench();
    bench.answers = vec![(ALICE, 0)];
    bench.subscribe("alice", ALICE, 3600);
    bench.subscribe("carol", CAROL, 3600);
    bench.notifies.clear();
    for (n, basic) in ["open", "closed", "open"].iter().enumerate() {
        bench.publish(&[], &PIDF.replace("open", basic).replace("\"a\"", &format!("\"a{n}\"")));
        bench.pass(1);
    }
    let carol = |data: &&Bytes| Message::parse(data).unwrap().to().unwrap().uri.user == Some(b"carol");
    assert_eq!(bench.notifies.iter().filter(carol).count(), 3);
    // Timer F: 32 s after his first NOTIFY he is given up, and only he.
    bench.pass(33);
    let left: Vec<String> = bench.rows().iter().map(|row| row.watcher.user.clone()).collect();
    assert_eq!(left, ["carol"]);
    assert!(bench.events.iter().any(|event| event.name == "notify-failed"));
}

#[test]
fn a_481_ends_one_and_a_500_none() {
    let mut bench = bench();
    bench.answers = vec![(ALICE, 481), (CAROL, 500)];
    bench.subscribe("alice", ALICE, 3600);
    bench.subscribe("carol", CAROL, 3600);
    bench.pass(3);
    let left: Vec<String> = bench.rows().iter().map(|row| row.watcher.user.clone()).collect();
    assert_eq!(left, ["carol"]);
    // He is told again, and again, until it arrives.
    bench.told();
    bench.answers.clear();
    bench.pass(1);
    assert_eq!(bench.basics(), ["carol closed"]);
}

#[test]
fn after_a_restart_numbers_only_grow() {
    let mut bench = bench();
    bench.subscribe("alice", ALICE, 3600);
    bench.publish(&[], PIDF);
    let last = Message::parse(bench.notifies.last().unwrap()).unwrap().cseq().unwrap().0;
    // Killed before any number was written.
    let mut again = bench_on(config(), bench.store.clone(), bench.now + Duration::from_secs(1));
    let first = Message::parse(again.notifies.first().expect("told at once")).unwrap().cseq().unwrap().0;
    assert!(first > last, "{first} after {last}");
    assert_eq!(again.basics(), ["alice open"]);
}

#[test]
fn a_notify_goes_along_the_route_set() {
    let mut bench = bench();
    let routes = [
        "Event: presence",
        "Expires: 600",
        "Record-Route: <sip:192.0.2.10:5070;lr>, <sip:tok@192.0.2.11;lr>",
    ];
    let accepted = bench.send("SUBSCRIBE", "alice", EDGE, "", &routes, "");
    assert_eq!(header(&accepted, Name::RecordRoute), routes[2].trim_start_matches("Record-Route: "));
    let notify = bench.notifies.pop().unwrap();
    let message = Message::parse(&notify).unwrap();
    assert_eq!(message.request_uri(), format!("sip:alice@{EDGE}").as_bytes());
    let route: Vec<&[u8]> = message.values(Name::Route).collect();
    assert_eq!(route, [&b"<sip:192.0.2.10:5070;lr>"[..], b"<sip:tok@192.0.2.11;lr>"]);
    assert_eq!(value(&message, Name::Event), "presence");
    assert_eq!(message.from_tag(), Some(tag_of(&accepted).as_bytes()));
}

#[test]
fn behind_nat_a_notify_goes_where_the_subscribe_came_from() {
    let mut bench = bench();
    let text = "SUBSCRIBE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKn;rport\r\n\
         From: <sip:alice@example.com>;tag=f\r\nTo: <sip:bob@example.com>\r\nCall-ID: n\r\nCSeq: 1 SUBSCRIBE\r\n\
         Contact: <sip:alice@10.0.0.1:5060>\r\nEvent: presence\r\nExpires: 600\r\n\r\n";
    let flow = bench.flow(ALICE);
    bench.answers = vec![(ALICE, 481)];
    bench.presence.handle_input(bench.now, Input::Packet { flow, data: text.into() });
    bench.run();
    let notify = bench.notifies.pop().unwrap();
    assert_eq!(Message::parse(&notify).unwrap().request_uri(), b"sip:alice@10.0.0.1:5060");
    bench.pass(3);
    assert!(bench.rows().is_empty(), "the 481 came from there");
}

#[test]
fn refuses_what_it_must() {
    let mut bench = bench();
    let mut subscribe = |headers: &[&str]| {
        let answer = bench.send("SUBSCRIBE", "alice", ALICE, "", headers, "");
        (status(&answer), answer)
    };
    assert_eq!(subscribe(&[]).0, 489);
    let (code, answer) = subscribe(&["Event: conference"]);
    assert_eq!((code, header(&answer, Name::AllowEvents)), (489, "presence, dialog".to_owned()));
    let (code, answer) = subscribe(&["Event: presence", "Expires: 5"]);
    assert_eq!((code, header(&answer, Name::MinExpires)), (423, "60".to_owned()));
    assert_eq!(subscribe(&["Event: presence", "Accept: text/plain"]).0, 406);
    assert_eq!(subscribe(&["Event: presence", "Require: magic"]).0, 420);
    let bad = bench.publish(&[], "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"><tuple></presence>");
    assert_eq!(status(&bad), 400);
    let told = bench.events.iter().find(|event| event.name == "bad-document").expect("one clear line");
    assert!(told.fields.iter().any(|(key, value)| *key == "fault" && value.contains("at byte")), "{told:?}");
    let kind = ["Event: presence", "Content-Type: text/plain"];
    assert_eq!(status(&bench.send("PUBLISH", "bob", ALICE, "", &kind, "hello")), 415);
    assert_eq!(status(&bench.send("INVITE", "bob", ALICE, "", &[], "")), 405);
    // And the rest goes on.
    assert_eq!(status(&bench.publish(&[], PIDF)), 200);
    bench.store_answers = false;
    assert_eq!(status(&bench.subscribe("carol", CAROL, 600)), 503);
    bench.store_answers = true;
    assert_eq!(status(&bench.subscribe("carol", CAROL, 600)), 200);
}

#[test]
fn passwords_are_asked_for_outside_of_the_edge() {
    let mut store = Memory::new();
    for (user, password) in [("alice", "wonder"), ("bob", "builder")] {
        let secret = digest::secret(user, "example.com", "example.com", password);
        store.ask(Query::UserAdd { user: user.to_owned(), domain: "example.com".to_owned(), secret });
    }
    let mut bench = bench_on(Config { auth: Auth::Digest, ..config() }, store, Instant::from_secs(1_000_000));
    let as_user = |bench: &mut Bench, from: &str, user: &str, password: &str| {
        let first = bench.subscribe(from, ALICE, 600);
        assert_eq!(status(&first), 401);
        let response = Message::parse(&first).unwrap();
        let (name, challenge) = Challenge::of(&response).unwrap();
        let answer = challenge.answer(user, password, "SUBSCRIBE", "sip:bob@example.com", 1, "cn");
        let headers = ["Event: presence", "Expires: 600", &format!("{name}: {answer}")];
        status(&bench.send("SUBSCRIBE", from, ALICE, "", &headers, ""))
    };
    assert_eq!(as_user(&mut bench, "alice", "alice", "wrong"), 401);
    assert_eq!(as_user(&mut bench, "alice", "bob", "builder"), 403);
    assert_eq!(as_user(&mut bench, "alice", "alice", "wonder"), 200);
    // Our own proxy asked already; but even its users publish for themselves only.
    assert_eq!(status(&bench.subscribe("carol", EDGE, 600)), 200);
    let kind = ["Event: presence", "Content-Type: application/pidf+xml"];
    assert_eq!(status(&bench.send("PUBLISH", "bob", EDGE, "", &kind, PIDF)), 200);
    assert_eq!(status(&bench.send("PUBLISH", "alice", EDGE, "", &kind, PIDF)), 403);
}

#[test]
fn no_200_before_the_store_has_it() {
    let mut bench = bench();
    let text = "SUBSCRIBE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bKq\r\n\
         From: <sip:alice@example.com>;tag=f\r\nTo: <sip:bob@example.com>\r\nCall-ID: q\r\nCSeq: 1 SUBSCRIBE\r\n\
         Contact: <sip:alice@198.51.100.7:5062>\r\nEvent: dialog\r\nExpires: 600\r\n\r\n";
    let flow = bench.flow(ALICE);
    bench.presence.handle_input(bench.now, Input::Packet { flow, data: text.into() });
    let Some(Output::Ask { ticket, question: Question::Store(query) }) = bench.presence.poll_output() else {
        panic!("asks the store first")
    };
    assert!(bench.presence.poll_output().is_none());
    let reply = Reply::Store(Ok(bench.store.ask(query)));
    bench.presence.handle_input(bench.now, Input::Answer { ticket, reply });
    bench.run();
    assert_eq!(status(&bench.replies.pop().unwrap()), 200);
    let first = body(&bench.notifies.pop().unwrap());
    assert!(first.contains("version=\"0\" state=\"full\""), "{first}");
    let dialog = "<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" state=\"full\" \
                  entity=\"sip:bob@example.com\"><dialog id=\"d\"><state>early</state></dialog></dialog-info>";
    let headers = ["Event: dialog", "Content-Type: application/dialog-info+xml"];
    bench.send("PUBLISH", "bob", "198.51.100.9:5060", "", &headers, dialog);
    let second = body(&bench.notifies.pop().unwrap());
    assert!(second.contains("version=\"1\"") && second.contains("<state>early</state>"), "{second}");
}
