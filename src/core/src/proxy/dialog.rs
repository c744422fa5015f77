//! Requests in a dialog: they go where our token says, and nowhere else.
//!
//! RFC 3261 §16.4 (strict routers before us), §16.12, §13.3.1.4 and §17 (the ACK to a 2xx is end to end, and gets
//! no answer). In go requests with a To-tag; one whose Route is not ours is no business of ours (404, as in the seed),
//! one whose token does not verify gets 403. Not here: the token (`token`).

use super::context::{Context, Destination, Kind, NextHop, Waiting, WaitingAck};
use super::media::{self, Half, Key, Peer, Verdict};
use super::token::{Hop, RouteToken, Toward};
use super::{Proxy, event, forward, lossy, nat};
use crate::cidr::Cidr;
use crate::flow::{ConnectionId, Flow, ListenerId, ServerKey, Target, Transport};
use crate::limits;
use crate::machine::{Level, Output, Question, Reply};
use crate::resolve;
use crate::rng::{KeyedHash, Rng};
use crate::sip::{Aor, Message, Name, NameAddr, Uri};
use crate::store;
use crate::time::Instant;
use crate::transaction::timing;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;

/// What a request in a dialog has to show.
pub(super) struct Shown {
    pub token: RouteToken,
    pub toward: Toward,
    /// Its text, as it stands in our Route value.
    pub text: String,
    /// The Route value of ours was in the Request-URI: a strict router sent it (§16.4).
    pub strict: bool,
    /// It comes from where the token has its sender, or from a server of ours: what it says of the way beyond a foreign
    /// hop is followed. Of anybody else it is not: a stranger who called one of our users has a token too, and could
    /// have us send to whomever he likes.
    pub believed: bool,
}

/// When calls were answered, and which have just ended, by dialog. Bounded: beyond it the oldest is forgotten, and its end
/// tells no duration.
pub(super) struct Answered {
    /// Of Call-ID and both tags; nobody can aim at another's.
    hash: KeyedHash,
    since: HashMap<u64, (Instant, u64), KeyedHash>,
    /// Dialogs in the order in which they were answered.
    order: BTreeMap<u64, u64>,
    answers: u64,
    /// Dialogs that ended, while the other side's BYE may still come; and in the order in which they did.
    ended: HashSet<u64, KeyedHash>,
    ends: VecDeque<(Instant, u64)>,
}

/// How a call ends.
pub(super) enum End {
    /// With its first BYE; since when it stood, where that is known.
    First(Option<Instant>),
    /// With one that crossed another on its way, or came again.
    Again,
}

impl Answered {
    pub fn new(rng: &mut Rng) -> Self {
        let hash = KeyedHash::new(rng);
        Answered {
            since: HashMap::with_hasher(hash.clone()),
            ended: HashSet::with_hasher(hash.clone()),
            hash,
            order: BTreeMap::new(),
            answers: 0,
            ends: VecDeque::new(),
        }
    }

    /// The same for both sides, whoever is From.
    fn key(&self, message: &Message<'_>) -> u64 {
        let from = message.from_tag().unwrap_or_default();
        let to = message.to_tag().unwrap_or_default();
        self.hash.hash_one((message.call_id().unwrap_or_default(), from.min(to), from.max(to)))
    }

    /// `message`: the 2xx.
    pub fn begin(&mut self, now: Instant, message: &Message<'_>) {
        let key = self.key(message);
        if self.since.contains_key(&key) {
            return;
        }
        if self.since.len() >= limits::PROXY_CALLS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.since.remove(&oldest);
        }
        self.answers += 1;
        self.since.insert(key, (now, self.answers));
        self.order.insert(self.answers, key);
    }

    /// `message`: a BYE.
    pub fn end(&mut self, now: Instant, message: &Message<'_>) -> End {
        let key = self.key(message);
        // As long as a BYE is repeated.
        let late = timing::T1 * 64;
        while let Some(&(at, oldest)) = self.ends.front()
            && (now.saturating_since(at) > late || self.ends.len() >= limits::PROXY_CALLS)
        {
            self.ends.pop_front();
            self.ended.remove(&oldest);
        }
        if !self.ended.insert(key) {
            return End::Again;
        }
        self.ends.push_back((now, key));
        let known = self.since.remove(&key);
        if let Some((_, number)) = known {
            self.order.remove(&number);
        }
        End::First(known.map(|(since, _)| since))
    }

    pub fn len(&self) -> usize {
        self.since.len()
    }
}

impl Proxy {
    /// How many Route values on top are ours.
    pub(super) fn own_routes(&self, message: &Message<'_>) -> usize {
        message
            .routes()
            .take_while(|route| {
                route.as_ref().is_ok_and(|route| self.is_ours(route.uri.host, route.uri.port))
            })
            .count()
    }

    /// The token of ours that this request shows.
    pub(super) fn shown(&self, message: &Message<'_>, flow: &Flow, own_routes: usize) -> Option<Shown> {
        let call_id = message.call_id()?;
        let (from, to) = (message.from_tag()?, message.to_tag()?);
        let verify = |uri: &Uri<'_>, strict| {
            let text = uri.user?;
            let (token, toward) = RouteToken::verify(text, &self.config.keys, call_id, from, to)?;
            let sender = match toward {
                Toward::Caller => &token.callee,
                Toward::Callee => &token.caller,
            };
            let ip = flow.remote.ip();
            let believed = sender.remote.ip() == ip
                || Cidr::any(&self.config.edge, ip)
                || Cidr::any(&self.config.trust, ip);
            Some(Shown { token, toward, text: lossy(text), strict, believed })
        };
        let uri = Uri::parse(message.request_uri()).ok()?;
        if self.is_ours(uri.host, uri.port)
            && let Some(shown) = verify(&uri, true)
        {
            return Some(shown);
        }
        message.routes().take(own_routes).find_map(|route| verify(&route.ok()?.uri, false))
    }

    pub(super) fn in_dialog(&mut self, now: Instant, context: &mut Context, message: &Message<'_>) {
        let Some(shown) = self.shown(message, &context.flow, context.own_routes) else {
            return if context.own_routes > 0 {
                self.answer(now, context, 403, Some("Not Our Dialog"), &[])
            } else {
                self.answer(now, context, 404, Some("Not Here"), &[])
            };
        };
        let (token, toward) = (shown.token, shown.toward);
        context.dialog = Some((token, toward));
        context.relay = token.relay;
        let from = match toward {
            Toward::Caller => token.callee,
            Toward::Callee => token.caller,
        };
        context.sender.browser = from.browser;
        context.sender.v6 = from.remote.is_ipv6();
        if context.method == Kind::Bye {
            self.dialog_ends(now, context, message, token);
        }
        let destination = self.along(message, &shown, context.own_routes);
        let hop = token.hop(toward);
        let still_there = destination.next != NextHop::Target(self.hop_target(hop)) || !self.is_gone(hop);
        if hop.foreign || still_there {
            return self.start(now, context, vec![destination]);
        }
        // Its connection is gone; perhaps it registered again by another one.
        let aor = message.to().ok().and_then(|to| {
            let domain = self.local_domain(to.uri.host, to.uri.port)?;
            Some(Aor { domain: domain.to_ascii_lowercase(), ..to.uri.aor()? })
        });
        let Some(aor) = aor else { return self.start(now, context, vec![destination]) };
        let waiting = Waiting::Moved(context.id, Box::new(destination));
        context.asking = self.ask(now, Question::Store(store::Query::Bindings { aor, now }), waiting);
        if context.asking.is_none() {
            self.answer(now, context, 503, Some("Too Many Questions"), &[("Retry-After", "5")]);
        }
    }

    /// The store's word on a client whose connection is gone: a binding of the same Contact has the newer flow.
    pub(super) fn moved(
        &mut self,
        now: Instant,
        context: &mut Context,
        mut destination: Destination,
        reply: Option<Reply>,
    ) {
        context.asking = None;
        let place =
            |uri: &Uri<'_>| Some((uri.user.map(<[u8]>::to_vec), uri.host.to_ascii_lowercase(), uri.port));
        let wanted = Uri::parse(&destination.uri).ok().and_then(|uri| place(&uri));
        if let Some(Reply::Store(Ok(store::Reply::Bindings(bindings)))) = reply {
            let same = bindings.iter().find(|binding| {
                wanted.is_some()
                    && Uri::parse(binding.contact.as_bytes()).ok().and_then(|uri| place(&uri)) == wanted
            });
            if let Some(found) = same.and_then(|binding| self.destination(binding)) {
                destination.next = found.next;
                destination.routes = found.routes;
            }
        }
        self.start(now, context, vec![destination]);
    }

    /// BYE: the media go at once, as in the seed; whatever is answered, this side has hung up.
    fn dialog_ends(&mut self, now: Instant, context: &Context, message: &Message<'_>, token: RouteToken) {
        let End::First(since) = self.answered.end(now, message) else { return };
        let mut ended = event(Level::Info, "call-end", message, &context.flow);
        if let Some(since) = since {
            ended = ended.with("seconds", format!("{:.3}", now.saturating_since(since).as_secs_f64()));
        }
        self.outputs.push_back(Output::Event(ended));
        if token.relay.is_some() {
            let key = Key {
                call_id: lossy(message.call_id().unwrap_or_default()),
                from_tag: lossy(message.from_tag().unwrap_or_default()),
                to_tag: lossy(message.to_tag().unwrap_or_default()),
                via_branch: String::new(),
            };
            self.delete_media(now, token.relay, key);
        }
    }

    /// Where the token leads.
    pub(super) fn along(&self, message: &Message<'_>, shown: &Shown, own_routes: usize) -> Destination {
        let hop = shown.token.hop(shown.toward);
        let mut rest: Vec<&[u8]> = message.values(Name::Route).skip(own_routes).collect();
        let mut uri =
            nat::without_alias(message.request_uri()).unwrap_or_else(|| message.request_uri().to_vec());
        let mut keep_routes = true;
        if shown.strict
            && let Some(last) = rest.pop()
        {
            // §16.4: the strict router before us put the real Request-URI at the end of Route.
            if let Ok(address) = NameAddr::parse(last) {
                uri = address.uri.as_bytes().to_vec();
            }
            keep_routes = false;
        }
        let next_route = rest.first().and_then(|route| NameAddr::parse(route).ok());
        if let Some(next) = &next_route
            && !next.uri.is_loose()
        {
            // §16.6 step 6: a strict router is next; it wants its own URI in the request line.
            let mut routes: Vec<Vec<u8>> = rest[1..].iter().map(|route| route.to_vec()).collect();
            routes.push([b"<", uri.as_slice(), b">"].concat());
            let next_hop = if hop.foreign && shown.believed { forward::next_hop(&next.uri) } else { None };
            let uri = next.uri.as_bytes().to_vec();
            return self.to_hop(hop, uri, routes, false, next_hop);
        }
        let next_hop = match (hop.foreign, &next_route) {
            (true, _) if !shown.believed => None,
            // The connection that the token names is gone, and the next Route is the same host's own word on how it is
            // reached: an edge that connected to us anew.
            (false, Some(route)) if self.is_gone(hop) && route.uri.ip() == Some(hop.remote.ip()) => {
                forward::next_hop(&route.uri)
            }
            (false, _) => None,
            (true, Some(route)) => forward::next_hop(&route.uri),
            (true, None) => Uri::parse(&uri).ok().and_then(|uri| forward::next_hop(&uri)),
        };
        let routes = if keep_routes { Vec::new() } else { rest.iter().map(|route| route.to_vec()).collect() };
        self.to_hop(hop, uri, routes, keep_routes, next_hop)
    }

    fn to_hop(
        &self,
        hop: &Hop,
        uri: Vec<u8>,
        routes: Vec<Vec<u8>>,
        keep_routes: bool,
        next: Option<NextHop>,
    ) -> Destination {
        Destination {
            uri,
            routes,
            keep_routes,
            next: next.unwrap_or_else(|| NextHop::Target(self.hop_target(hop))),
            peer: Peer { browser: hop.browser, nat: false, v6: hop.remote.is_ipv6() },
            foreign: hop.foreign,
            direct: false,
        }
    }

    fn is_gone(&self, hop: &Hop) -> bool {
        let connection = ConnectionId(u64::from(hop.connection));
        hop.connection != 0 && self.connections.get(&connection).is_none_or(|flow| flow.remote != hop.remote)
    }

    /// The flow that a token names, or the address where its connection is gone.
    pub(super) fn hop_target(&self, hop: &Hop) -> Target {
        let connection = ConnectionId(u64::from(hop.connection));
        if hop.connection != 0
            && !self.is_gone(hop)
            && let Some(flow) = self.connections.get(&connection)
        {
            return Target::Flow(*flow);
        }
        let listener = self.config.listeners.iter().find(|listener| listener.id == ListenerId(hop.listener));
        let transport = listener.map_or(Transport::Udp, |listener| listener.transport);
        Target::Address {
            listener: ListenerId(hop.listener),
            transport,
            remote: hop.remote,
            server: ServerKey::ADDRESS,
        }
    }

    /// An ACK that no transaction absorbed: to a 2xx, so it goes end to end. It is never answered.
    pub(super) fn ack(&mut self, now: Instant, flow: Flow, data: Bytes, message: &Message<'_>) {
        let own_routes = self.own_routes(message);
        let Some(shown) = self.shown(message, &flow, own_routes) else {
            let event =
                event(Level::Debug, "dropped", message, &flow).with("reason", "ACK to nothing of ours");
            self.outputs.push_back(Output::Event(event));
            return;
        };
        if message.max_forwards().ok().flatten() == Some(0) {
            return;
        }
        let ack = Box::new(WaitingAck { request: data, shown, own_routes, sdp: None });
        let (token, toward) = (ack.shown.token, ack.shown.toward);
        if let (Some(relay), Some(sdp)) = (token.relay, message.description()) {
            // A late offer: it was in the 2xx, and this is its answer (RFC 3261 §13.2.1).
            let (sender, receiver) = match toward {
                Toward::Caller => (token.callee, token.caller),
                Toward::Callee => (token.caller, token.callee),
            };
            let peer = |hop: Hop| Peer { browser: hop.browser, nat: false, v6: hop.remote.is_ipv6() };
            let key = Key {
                call_id: lossy(message.call_id().unwrap_or_default()),
                from_tag: lossy(message.to_tag().unwrap_or_default()),
                to_tag: lossy(message.from_tag().unwrap_or_default()),
                via_branch: String::new(),
            };
            let source = self.source(message, &flow);
            let dict = media::request(&key, Half::Answer(None), sdp, peer(sender), peer(receiver), source);
            let question = Question::Relay { relay: u16::from(relay), request: dict.encode_bencode().into() };
            return self.hold_ack(now, question, ack, Waiting::Ack);
        }
        self.send_ack(now, ack);
    }

    /// Without room it is dropped: it comes again with the next copy of the 2xx.
    fn hold_ack(
        &mut self,
        now: Instant,
        question: Question,
        ack: Box<WaitingAck>,
        waiting: impl FnOnce(Box<WaitingAck>) -> Waiting,
    ) {
        let length = ack.request.len();
        if self.has_room(length) && self.ask(now, question, waiting(ack)).is_some() {
            self.held += length;
        }
    }

    /// The relay's word on an answer in an ACK. Where it has none, the ACK goes as it is: the dialog stands all the same.
    pub(super) fn ack_rewritten(&mut self, now: Instant, mut ack: Box<WaitingAck>, verdict: Verdict) {
        self.held -= ack.request.len();
        ack.sdp = match verdict {
            Verdict::Sdp(sdp) => Some(sdp),
            Verdict::Refused(_) | Verdict::Unusable => None,
        };
        self.send_ack(now, ack);
    }

    fn send_ack(&mut self, now: Instant, ack: Box<WaitingAck>) {
        let Ok(message) = Message::parse(&ack.request) else { return };
        let destination = self.along(&message, &ack.shown, ack.own_routes);
        match &destination.next {
            NextHop::Target(target) => self.write_ack(&message, &ack, &destination, *target),
            NextHop::Host(wanted) => match (wanted.literal(), self.literal_target(wanted)) {
                (_, Some(target)) => self.write_ack(&message, &ack, &destination, target),
                (Some(hop), None) => self.tell_no_listener(hop.transport, &wanted.host),
                (None, None) => {
                    let question = Question::Locate(wanted.clone());
                    self.hold_ack(now, question, ack, Waiting::AckTarget);
                }
            },
        }
    }

    /// Where the name leads that an ACK goes to: a transaction of its own, so it has its own look (RFC 3263 §4). It goes to the
    /// first server that can be reached; nobody answers it, so the second never has its turn.
    pub(super) fn ack_located(&mut self, now: Instant, ack: &WaitingAck, found: Vec<resolve::Hop>) {
        self.held -= ack.request.len();
        let Ok(message) = Message::parse(&ack.request) else { return };
        let destination = self.along(&message, &ack.shown, ack.own_routes);
        let NextHop::Host(wanted) = &destination.next else { return };
        let server = ServerKey::of(&wanted.host);
        let first = self.reachable(now, found, &wanted.host).front().copied();
        if let Some(target) = first.and_then(|hop| self.address_target(hop.remote, hop.transport, server)) {
            self.write_ack(&message, ack, &destination, target);
        }
    }

    fn write_ack(
        &mut self,
        message: &Message<'_>,
        ack: &WaitingAck,
        destination: &Destination,
        target: Target,
    ) {
        let body = ack.sdp.as_ref().map(|sdp| message.with_description(sdp.clone()));
        let leaving = forward::Leaving {
            destination,
            target,
            branch: self.layer.branch(&mut self.rng),
            own_routes: ack.own_routes,
            strip_credentials: true,
            record_routes: Vec::new(),
            path: None,
            strip_path: false,
            contact: None,
            max_breadth: None,
            body,
        };
        let data = self.write(message, leaving);
        self.layer.send_stateless(target, data);
    }
}
