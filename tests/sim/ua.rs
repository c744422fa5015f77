//! A user agent: what RFC 3261 asks of a caller and of a phone, written anew and as plainly as can be.
//!
//! Its transactions are a table of what was sent, repeated until something stops it (§17), its dialogs a list (§12). What it
//! does of itself comes from a [`Plan`]. It notes what no user agent may ever see: two different final answers to one request.
//! Not here: any code of `sipbox_core` but for reading and composing messages.

use bytes::Bytes;
use sipbox_core::rng::Rng;
use sipbox_core::sip::{Message, Name, build};
use sipbox_core::time::Instant;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// 64*T1.
const GIVE_UP: Duration = Duration::from_secs(32);
const SDP: &[u8] =
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";

/// What a user agent is going to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A caller: gives up after so long without a final answer.
    cancel: Option<Duration>,
    /// A phone: silent, or rings, after so long.
    ring: Option<Duration>,
    /// A phone: the final answer, and when. None: never.
    answer: Option<(u16, Duration)>,
    /// A phone: its ringing is reliable (RFC 3262).
    reliable: bool,
    /// Hangs up so long after the call stands.
    hang_up: Option<Duration>,
    /// What is sent within the call, each a while after the other.
    within: Vec<&'static str>,
}

fn millis(rng: &mut Rng, most: u32) -> Duration {
    Duration::from_millis(u64::from(rng.below(most)))
}

impl Plan {
    fn within(rng: &mut Rng) -> Vec<&'static str> {
        let all = ["INFO", "UPDATE", "REFER", "NOTIFY", "MESSAGE", "SUBSCRIBE", "INVITE", "NEW"];
        (0..rng.below(4)).map(|_| all[rng.below(8) as usize]).collect()
    }

    pub fn caller(rng: &mut Rng) -> Plan {
        // Some at the very moment when a phone answers.
        let cancel = match rng.below(4) {
            0 => Some(millis(rng, 20_000)),
            1 => Some(Duration::from_millis(u64::from(rng.below(8)) * 250)),
            _ => None,
        };
        let hang_up = match rng.below(3) {
            0 => None,
            1 => Some(Duration::from_secs(5)),
            _ => Some(millis(rng, 12_000)),
        };
        Plan { cancel, ring: None, answer: None, reliable: false, hang_up, within: Self::within(rng) }
    }

    pub fn phone(rng: &mut Rng) -> Plan {
        let after = match rng.below(3) {
            0 => millis(rng, 500),
            1 => Duration::from_millis(u64::from(rng.below(8)) * 250),
            _ => millis(rng, 15_000),
        };
        let answer = match rng.below(10) {
            0..=5 => Some((200, after)),
            6..=8 => Some(([486, 404, 480, 603, 500, 302][rng.below(6) as usize], after)),
            _ => None,
        };
        let hang_up = match rng.below(3) {
            0 => None,
            1 => Some(Duration::from_secs(5)),
            _ => Some(millis(rng, 12_000)),
        };
        let ring = (rng.below(8) > 0).then(|| millis(rng, 400));
        let within = if rng.below(3) == 0 { Self::within(rng) } else { Vec::new() };
        Plan { cancel: None, ring, answer, reliable: rng.below(4) == 0, hang_up, within }
    }
}

/// What became of it, for the tally.
#[derive(Clone, Debug, Default)]
pub struct Met {
    pub invited: bool,
    pub answered: bool,
    pub refused: bool,
    pub cancelled: bool,
    pub said_bye: bool,
    /// A 2xx that nobody acknowledged.
    pub unacknowledged: bool,
    /// It rang until it gave up by itself.
    pub rang_out: bool,
    /// Requests of ours within a dialog that the other side took.
    pub in_dialog: u64,
    /// Provisional responses that were acknowledged.
    pub reliable: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Sends this request again.
    Again(String),
    /// Nobody answered this request.
    GivenUp(String),
    /// Sends this final response again.
    AnswerAgain(String),
    /// Nobody acknowledged it.
    AnswerGivenUp(String),
    Cancel,
    Ring(String),
    /// A phone does not ring for ever.
    RingsNoMore(String),
    Answer(String),
    HangUp(String),
    Within(String, usize),
}

/// A request of ours.
struct Client {
    method: String,
    data: Bytes,
    interval: Duration,
    /// A provisional response came.
    heard: bool,
    status: Option<u16>,
    /// Of a final response that is no 2xx.
    ack: Option<Bytes>,
    /// Of the dialog that it is in.
    tag: Option<String>,
}

/// A request that came.
struct Server {
    request: Bytes,
    last: Option<Bytes>,
    status: Option<u16>,
    interval: Duration,
    acknowledged: bool,
    /// Ours.
    tag: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Early,
    Confirmed,
    Ended,
}

/// §12: named by the phone's tag, which both ends know.
struct Dialog {
    standing: Standing,
    was_confirmed: bool,
    local: String,
    remote: String,
    call_id: String,
    target: String,
    routes: Vec<String>,
    cseq: u32,
    /// ACKs of 2xx by their CSeq, to be sent again with each copy.
    acks: BTreeMap<u32, Bytes>,
    /// Who the other side is.
    peer: String,
    reliable_seen: u32,
}

pub struct Ua {
    name: &'static str,
    pub at: SocketAddr,
    plan: Plan,
    rng: Rng,
    now: Instant,
    timers: BinaryHeap<Reverse<(Instant, u64, Timer)>>,
    serial: u64,
    clients: BTreeMap<String, Client>,
    servers: BTreeMap<String, Server>,
    dialogs: BTreeMap<String, Dialog>,
    pub out: Vec<Bytes>,
    faults: Vec<String>,
    met: Met,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn value(message: &Message<'_>, name: Name) -> String {
    message.header(name).map(text).unwrap_or_default()
}

fn uri_in(address: &str) -> String {
    let inner = address.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(address, |(uri, _)| uri).to_owned()
}

fn host_in(uri: &str) -> String {
    let host = uri.rsplit('@').next().unwrap_or_default();
    host.trim_start_matches("sip:").split([':', ';', '>']).next().unwrap_or_default().to_owned()
}

impl Ua {
    pub fn new(name: &'static str, at: SocketAddr, plan: Plan, seed: u64, now: Instant) -> Self {
        Ua {
            name,
            at,
            plan,
            rng: Rng::from_seed(seed),
            now,
            timers: BinaryHeap::new(),
            serial: 0,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            out: Vec::new(),
            faults: Vec::new(),
            met: Met::default(),
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    fn after(&mut self, time: Duration, timer: Timer) {
        self.serial += 1;
        self.timers.push(Reverse((self.now + time, self.serial, timer)));
    }

    pub fn met(&self) -> Met {
        self.met.clone()
    }

    /// Dialogs that stood at one time: the phone's tag, and the other side's host.
    pub fn established(&self) -> Vec<(String, String)> {
        let stood = self.dialogs.iter().filter(|(_, dialog)| dialog.was_confirmed);
        stood.map(|(tag, dialog)| (tag.clone(), dialog.peer.clone())).collect()
    }

    /// Whether there was such a dialog, if only until its 2xx was given up for want of an ACK.
    pub fn knows(&self, tag: &str) -> bool {
        self.dialogs.contains_key(tag)
    }

    /// Whether nothing of a call is left here.
    pub fn at_rest(&self) -> Result<(), String> {
        if let Some(fault) = self.faults.first() {
            return Err(fault.clone());
        }
        if let Some((tag, dialog)) =
            self.dialogs.iter().find(|(_, dialog)| dialog.standing == Standing::Confirmed)
        {
            return Err(format!("the call {tag} with {} still stands", dialog.peer));
        }
        // One that never said a word cannot be cancelled (§9.1), and does not ring.
        let ringing = |server: &Server| server.status.is_none() && server.last.is_some();
        if let Some((key, _)) = self.servers.iter().find(|(_, server)| ringing(server)) {
            return Err(format!("{key} still rings"));
        }
        if let Some((key, _)) = self.clients.iter().find(|(_, client)| client.status.is_none()) {
            return Err(format!("{key} still waits"));
        }
        Ok(())
    }

    fn via(&mut self) -> (String, String) {
        let branch = format!("z9hG4bK{}", self.rng.token(12));
        (format!("SIP/2.0/UDP {};branch={branch}", self.at), branch)
    }

    // --- the caller ---

    pub fn invite(&mut self, now: Instant) {
        self.now = now;
        let (via, branch) = self.via();
        let contact = format!("<sip:{}@{}>", self.name, self.at);
        let headers = [
            ("Via", via.as_str()),
            ("Max-Forwards", "70"),
            ("From", "<sip:alice@example.com>;tag=caller"),
            ("To", "<sip:bob@example.com>"),
            ("Call-ID", "a-call@192.0.2.1"),
            ("CSeq", "1 INVITE"),
            ("Contact", &contact),
            ("Supported", "100rel, timer"),
            ("Session-Expires", "1800"),
            ("Content-Type", "application/sdp"),
        ];
        let data = build::request("INVITE", "sip:bob@example.com", &headers, SDP);
        self.send(branch, "INVITE", data.into(), None);
        if let Some(time) = self.plan.cancel {
            self.after(time, Timer::Cancel);
        }
    }

    fn send(&mut self, branch: String, method: &str, data: Bytes, tag: Option<String>) {
        let key = format!("{branch} {method}");
        self.out.push(data.clone());
        self.after(T1, Timer::Again(key.clone()));
        self.after(GIVE_UP, Timer::GivenUp(key.clone()));
        let client =
            Client { method: method.into(), data, interval: T1, heard: false, status: None, ack: None, tag };
        self.clients.insert(key, client);
    }

    /// §9.1: not before a provisional response.
    fn cancel(&mut self) {
        let found = self.clients.iter().find(|(_, client)| client.method == "INVITE" && client.tag.is_none());
        let Some((key, client)) = found else { return };
        if client.status.is_some() {
            return;
        }
        if !client.heard {
            return self.after(Duration::from_millis(100), Timer::Cancel);
        }
        self.met.cancelled = true;
        let branch = key.trim_end_matches(" INVITE").to_owned();
        let data = derived(&client.data, "CANCEL", None);
        self.send(branch, "CANCEL", data, None);
    }

    // --- within a dialog ---

    fn request(&mut self, tag: &str, method: &str, extra: &[(&str, &str)]) {
        let (via, branch) = self.via();
        let contact = format!("<sip:{}@{}>", self.name, self.at);
        let Some(dialog) = self.dialogs.get_mut(tag) else { return };
        dialog.cseq += 1;
        let cseq = format!("{} {method}", dialog.cseq);
        let mut headers = vec![("Via", via.as_str()), ("Max-Forwards", "70")];
        headers.extend(dialog.routes.iter().map(|route| ("Route", route.as_str())));
        headers.extend([
            ("From", dialog.local.as_str()),
            ("To", dialog.remote.as_str()),
            ("Call-ID", dialog.call_id.as_str()),
            ("CSeq", &cseq),
            ("Contact", &contact),
        ]);
        headers.extend_from_slice(extra);
        let data = build::request(method, &dialog.target, &headers, b"");
        if method == "BYE" {
            dialog.standing = Standing::Ended;
            self.met.said_bye = true;
        }
        self.send(branch, method, data.into(), Some(tag.to_owned()));
    }

    fn acknowledge(&mut self, tag: &str, number: u32) {
        let (via, _) = self.via();
        let Some(dialog) = self.dialogs.get_mut(tag) else { return };
        let ack = dialog.acks.entry(number).or_insert_with(|| {
            let cseq = format!("{number} ACK");
            let mut headers = vec![("Via", via.as_str()), ("Max-Forwards", "70")];
            headers.extend(dialog.routes.iter().map(|route| ("Route", route.as_str())));
            headers.extend([
                ("From", dialog.local.as_str()),
                ("To", dialog.remote.as_str()),
                ("Call-ID", dialog.call_id.as_str()),
                ("CSeq", &cseq),
            ]);
            build::request("ACK", &dialog.target, &headers, b"").into()
        });
        self.out.push(ack.clone());
    }

    fn stands(&mut self, tag: &str) {
        let Some(dialog) = self.dialogs.get_mut(tag) else { return };
        if dialog.standing != Standing::Early {
            return;
        }
        (dialog.standing, dialog.was_confirmed) = (Standing::Confirmed, true);
        // The caller hangs up in the end, where nobody else does.
        let time =
            self.plan.hang_up.unwrap_or(Duration::from_secs(if self.name == "alice" { 25 } else { 60 }));
        self.after(time, Timer::HangUp(tag.to_owned()));
        for nth in 0..self.plan.within.len() {
            self.after(Duration::from_millis(900) * (nth as u32 + 1), Timer::Within(tag.to_owned(), nth));
        }
    }

    // --- messages ---

    pub fn receive(&mut self, now: Instant, data: &[u8]) {
        self.now = now;
        let message = match Message::parse(data).and_then(|message| message.check().map(|()| message)) {
            Ok(message) => message,
            Err(error) => return self.faults.push(format!("{error}: {}", text(data))),
        };
        if message.is_request() { self.requested(&message) } else { self.answered(&message) }
    }

    fn answered(&mut self, message: &Message<'_>) {
        let Ok(via) = message.top_via() else { return };
        if message.vias().count() != 1 || via.host != self.at.ip().to_string() {
            return self.faults.push(format!("a response that is not ours: {}", text(message.as_bytes())));
        }
        let branch = via.branch().map(text).unwrap_or_default();
        let (method, status) = (message.method().to_string(), message.status());
        let key = format!("{branch} {method}");
        let tag = message.to_tag().map(text).unwrap_or_default();
        let number = message.cseq().map_or(0, |(number, _)| number);
        let Some(client) = self.clients.get_mut(&key) else {
            return self.faults.push(format!("an answer to {key}, which nobody asked"));
        };
        if status < 200 {
            client.heard = true;
            if method == "INVITE" && status > 100 && !tag.is_empty() && client.tag.is_none() {
                self.open(message, &tag);
                self.reliably(message, &tag);
            }
            return;
        }
        let first = client.status.is_none();
        let known = *client.status.get_or_insert(status);
        let both_2xx = known < 300 && status < 300;
        // A time-out of our own (408) that an answer comes after is no second answer.
        if known != status && !both_2xx && known != 0 {
            return self.faults.push(format!("{key}: {known}, and then {status}"));
        }
        match (method.as_str(), status) {
            ("INVITE", ..=299) => self.accepted(message, &key, &tag, number),
            ("INVITE", _) => {
                let ack = client
                    .ack
                    .get_or_insert_with(|| derived(&client.data, "ACK", Some(&value(message, Name::To))));
                self.out.push(ack.clone());
                if first && client.tag.is_none() {
                    self.met.refused = true;
                    self.end_early();
                }
            }
            (_, ..=299) if first && client.tag.is_some() => self.met.in_dialog += 1,
            _ => {}
        }
    }

    /// A 2xx to our INVITE: each copy gets its ACK, each callee but the first a BYE.
    fn accepted(&mut self, message: &Message<'_>, key: &str, tag: &str, number: u32) {
        let within = self.clients.get(key).and_then(|client| client.tag.clone());
        if let Some(tag) = within {
            return self.acknowledge(&tag, number);
        }
        self.open(message, tag);
        self.acknowledge(tag, number);
        let news = self.dialogs.get(tag).is_some_and(|dialog| dialog.standing == Standing::Early);
        if !news {
            return;
        }
        let others = self.dialogs.values().any(|dialog| dialog.was_confirmed);
        self.met.answered = true;
        self.stands(tag);
        if others || self.met.cancelled {
            self.request(tag, "BYE", &[]);
        }
    }

    fn end_early(&mut self) {
        for dialog in self.dialogs.values_mut().filter(|dialog| dialog.standing == Standing::Early) {
            dialog.standing = Standing::Ended;
        }
    }

    fn open(&mut self, message: &Message<'_>, tag: &str) {
        let mut routes: Vec<String> = message.values(Name::RecordRoute).map(text).collect();
        routes.reverse();
        let target = uri_in(&value(message, Name::Contact));
        let dialog = self.dialogs.entry(tag.to_owned()).or_insert_with(|| Dialog {
            standing: Standing::Early,
            was_confirmed: false,
            local: value(message, Name::From),
            remote: value(message, Name::To),
            call_id: value(message, Name::CallId),
            target: target.clone(),
            routes: routes.clone(),
            cseq: 1,
            acks: BTreeMap::new(),
            peer: host_in(&target),
            reliable_seen: 0,
        });
        if dialog.standing == Standing::Early {
            (dialog.routes, dialog.target) = (routes, target);
        }
    }

    /// RFC 3262 §4.
    fn reliably(&mut self, message: &Message<'_>, tag: &str) {
        let Some(number) = message.header(Name::RSeq).map(text).and_then(|text| text.parse::<u32>().ok())
        else {
            return;
        };
        let Some(dialog) = self.dialogs.get_mut(tag) else { return };
        if dialog.reliable_seen < number {
            dialog.reliable_seen = number;
            self.met.reliable += 1;
            self.request(tag, "PRACK", &[("RAck", &format!("{number} 1 INVITE"))]);
        }
    }

    fn requested(&mut self, message: &Message<'_>) {
        let method = message.method().to_string();
        let branch = message.top_via().ok().and_then(|via| via.branch().map(text)).unwrap_or_default();
        let to_tag = message.to_tag().map(text);
        if method == "ACK" {
            return self.acknowledged(message, &branch, to_tag);
        }
        let key = format!("{branch} {method}");
        if let Some(server) = self.servers.get(&key) {
            // A retransmission; a 2xx to INVITE repeats itself.
            if let Some(last) = &server.last
                && (method != "INVITE" || server.status.is_none_or(|status| status >= 300))
            {
                self.out.push(last.clone());
            }
            return;
        }
        let server = Server {
            request: Bytes::copy_from_slice(message.as_bytes()),
            last: None,
            status: None,
            interval: T1,
            acknowledged: false,
            tag: to_tag.clone().unwrap_or_else(|| format!("t{}", self.rng.token(6))),
        };
        self.servers.insert(key.clone(), server);
        match (method.as_str(), to_tag) {
            ("CANCEL", _) => self.cancelled(&key, &branch),
            ("INVITE", None) => {
                self.met.invited = true;
                // Session timers (RFC 4028) and reliable responses are the ends' own business.
                for (name, said) in [(Name::SessionExpires, "1800"), (Name::Supported, "100rel, timer")] {
                    if value(message, name) != said {
                        self.faults.push(format!("{} did not come through", name.as_str()));
                    }
                }
                if let Some(time) = self.plan.ring {
                    self.after(time, Timer::Ring(key.clone()));
                }
                if let Some((_, time)) = self.plan.answer {
                    self.after(time, Timer::Answer(key));
                }
            }
            (_, Some(_)) => self.in_dialog(message, &method, &key),
            (_, None) => self.respond(&key, 501, &[], b""),
        }
    }

    /// The dialog's name: the phone's tag, whichever side sends.
    fn dialog_of(&self, message: &Message<'_>) -> Option<String> {
        let (from, to) = (message.from_tag().map(text)?, message.to_tag().map(text)?);
        let tag = if from == "caller" { to } else { from };
        self.dialogs.contains_key(&tag).then_some(tag)
    }

    fn in_dialog(&mut self, message: &Message<'_>, method: &str, key: &str) {
        let Some(tag) = self.dialog_of(message) else { return self.respond(key, 481, &[], b"") };
        if message.routes().count() != 0 {
            self.faults.push(format!("{method} came with a Route left: {}", text(message.as_bytes())));
        }
        let ended = self.dialogs.get(&tag).is_some_and(|dialog| dialog.standing == Standing::Ended);
        match method {
            "BYE" => {
                if let Some(dialog) = self.dialogs.get_mut(&tag) {
                    // Its ACK may have overtaken nothing yet: a call that the other side ends has stood.
                    dialog.was_confirmed |= dialog.standing == Standing::Early;
                    dialog.standing = Standing::Ended;
                }
                self.respond(key, 200, &[], b"");
            }
            _ if ended => self.respond(key, 481, &[], b""),
            "INVITE" => self.respond(key, 200, &[], SDP),
            _ => self.respond(key, 200, &[], b""),
        }
    }

    fn cancelled(&mut self, key: &str, branch: &str) {
        let invite = format!("{branch} INVITE");
        match self.servers.get(&invite).map(|server| server.status) {
            None => self.respond(key, 481, &[], b""),
            Some(status) => {
                self.respond(key, 200, &[], b"");
                if status.is_none() {
                    self.respond(&invite, 487, &[], b"");
                }
            }
        }
    }

    fn respond(&mut self, key: &str, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let contact = format!("<sip:{}@{}>", self.name, self.at);
        let Some(server) = self.servers.get_mut(key) else { return };
        let Ok(request) = Message::parse(&server.request) else { return };
        let routes: Vec<String> = request.values(Name::RecordRoute).map(text).collect();
        let mut all: Vec<(&str, &str)> =
            routes.iter().map(|route| ("Record-Route", route.as_str())).collect();
        all.push(("Contact", &contact));
        if !body.is_empty() {
            all.push(("Content-Type", "application/sdp"));
        }
        all.extend_from_slice(headers);
        let data: Bytes = build::response(&request, status, None, Some(&server.tag), &all, body).into();
        server.last = Some(data.clone());
        self.out.push(data);
        if status < 200 {
            return;
        }
        server.status = Some(status);
        if request.method().as_bytes() == b"INVITE" {
            self.after(T1, Timer::AnswerAgain(key.to_owned()));
            self.after(GIVE_UP, Timer::AnswerGivenUp(key.to_owned()));
        }
    }

    /// The phone's side of a dialog begins with its first response that has a tag.
    fn open_here(&mut self, key: &str) -> String {
        let Some(server) = self.servers.get(key) else { return String::new() };
        let tag = server.tag.clone();
        let Ok(request) = Message::parse(&server.request) else { return tag };
        let target = uri_in(&value(&request, Name::Contact));
        let dialog = Dialog {
            standing: Standing::Early,
            was_confirmed: false,
            local: format!("{};tag={tag}", value(&request, Name::To)),
            remote: value(&request, Name::From),
            call_id: value(&request, Name::CallId),
            peer: host_in(&target),
            target,
            routes: request.values(Name::RecordRoute).map(text).collect(),
            cseq: 100,
            acks: BTreeMap::new(),
            reliable_seen: 0,
        };
        self.dialogs.entry(tag.clone()).or_insert(dialog);
        tag
    }

    fn acknowledged(&mut self, message: &Message<'_>, branch: &str, to_tag: Option<String>) {
        let number = message.cseq().map_or(0, |(number, _)| number);
        // To a final response that is no 2xx: the INVITE's own branch. To a 2xx: by its dialog and number.
        let found = self.servers.iter_mut().find(|(key, server)| {
            let same = Message::parse(&server.request).is_ok_and(|request| {
                request.method().as_bytes() == b"INVITE"
                    && request.cseq().is_ok_and(|(known, _)| known == number)
            });
            let of_2xx =
                server.status.is_some_and(|status| status < 300) && Some(&server.tag) == to_tag.as_ref();
            same && (of_2xx || **key == format!("{branch} INVITE"))
        });
        let Some((_, server)) = found else { return };
        server.acknowledged = true;
        let (tag, accepted) = (server.tag.clone(), server.status.is_some_and(|status| status < 300));
        // Within a call the tag is whoever's the INVITE went to: only the phone's own names a dialog to begin.
        if accepted && self.dialogs.contains_key(&tag) {
            self.stands(&tag);
        }
    }

    // --- time ---

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, ..))) = self.timers.peek()
            && *at <= now
        {
            self.now = now;
            if let Some(Reverse((_, _, timer))) = self.timers.pop() {
                self.fire(timer);
            }
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Again(key) => {
                let Some(client) = self.clients.get_mut(&key) else { return };
                // §17.1.1.2: an INVITE is quiet once it was heard; others go on until the final response.
                if client.status.is_some() || (client.heard && client.method == "INVITE") {
                    return;
                }
                self.out.push(client.data.clone());
                client.interval *= 2;
                if client.method != "INVITE" {
                    client.interval = if client.heard { T2 } else { client.interval.min(T2) };
                }
                let interval = client.interval;
                self.after(interval, Timer::Again(key));
            }
            Timer::GivenUp(key) => {
                let Some(client) = self.clients.get_mut(&key) else { return };
                if client.status.is_some()
                    || (client.heard && client.method == "INVITE" && client.tag.is_none())
                {
                    return;
                }
                // 0: nobody answered.
                client.status = Some(0);
                if client.method == "INVITE" && client.tag.is_none() {
                    self.end_early();
                }
            }
            Timer::AnswerAgain(key) => {
                let Some(server) = self.servers.get_mut(&key) else { return };
                if server.acknowledged {
                    return;
                }
                let ended =
                    self.dialogs.get(&server.tag).is_some_and(|dialog| dialog.standing == Standing::Ended);
                if ended && server.status.is_some_and(|status| status < 300) {
                    return;
                }
                if let Some(last) = &server.last {
                    self.out.push(last.clone());
                }
                server.interval = (server.interval * 2).min(T2);
                let interval = server.interval;
                self.after(interval, Timer::AnswerAgain(key));
            }
            Timer::AnswerGivenUp(key) => {
                let Some(server) = self.servers.get_mut(&key) else { return };
                if std::mem::replace(&mut server.acknowledged, true) {
                    return;
                }
                let tag = server.tag.clone();
                let accepted = server.status.is_some_and(|status| status < 300);
                let ours = self.dialogs.get(&tag).is_some_and(|dialog| dialog.standing != Standing::Ended);
                self.met.unacknowledged |= accepted;
                // §13.3.1.4: a call whose 2xx is never acknowledged is ended.
                if accepted && ours {
                    self.request(&tag, "BYE", &[]);
                }
            }
            Timer::Cancel => self.cancel(),
            Timer::Ring(key) => {
                if self.servers.get(&key).is_some_and(|server| server.status.is_none()) {
                    self.after(Duration::from_secs(200), Timer::RingsNoMore(key.clone()));
                    self.open_here(&key);
                    let reliable = [("RSeq", "1"), ("Require", "100rel")];
                    if self.plan.reliable {
                        self.respond(&key, 183, &reliable, SDP);
                    } else {
                        self.respond(&key, 180, &[], b"");
                    }
                }
            }
            Timer::RingsNoMore(key) => {
                if self.servers.get(&key).is_some_and(|server| server.status.is_none()) {
                    self.met.rang_out = true;
                    self.respond(&key, 480, &[], b"");
                    self.end_early();
                }
            }
            Timer::Answer(key) => {
                let Some((status, _)) = self.plan.answer else { return };
                if self.servers.get(&key).is_some_and(|server| server.status.is_none()) {
                    if status < 300 {
                        self.open_here(&key);
                        self.respond(&key, status, &[], SDP);
                    } else {
                        self.respond(&key, status, &[], b"");
                        self.end_early();
                    }
                }
            }
            Timer::HangUp(tag) => {
                if self.dialogs.get(&tag).is_some_and(|dialog| dialog.standing == Standing::Confirmed) {
                    self.request(&tag, "BYE", &[]);
                }
            }
            Timer::Within(tag, nth) => {
                if self.dialogs.get(&tag).is_some_and(|dialog| dialog.standing == Standing::Confirmed) {
                    let method = self.plan.within[nth];
                    self.request(&tag, method, &[]);
                }
            }
        }
    }
}

/// §9.1 and §17.1.1.3: a request with the top Via, Route, From, To, Call-ID and CSeq number of another.
fn derived(of: &Bytes, method: &str, to: Option<&str>) -> Bytes {
    let Ok(request) = Message::parse(of) else { return Bytes::new() };
    let number = request.cseq().map_or(0, |(number, _)| number);
    let (via, from, call_id) =
        (value(&request, Name::Via), value(&request, Name::From), value(&request, Name::CallId));
    let own_to = value(&request, Name::To);
    let cseq = format!("{number} {method}");
    let routes: Vec<String> = request.values(Name::Route).map(text).collect();
    let mut headers = vec![("Via", via.as_str()), ("Max-Forwards", "70")];
    headers.extend(routes.iter().map(|route| ("Route", route.as_str())));
    headers.extend([
        ("From", from.as_str()),
        ("To", to.unwrap_or(&own_to)),
        ("Call-ID", call_id.as_str()),
        ("CSeq", cseq.as_str()),
    ]);
    build::request(method, &text(request.request_uri()), &headers, b"").into()
}
