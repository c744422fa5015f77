//! The edge for browsers: SIP over WebSocket on one side, plain SIP toward one upstream on the other.
//!
//! RFC 7118 (SIP over WebSocket), RFC 5626 §5 (edge proxy: flow tokens, 430), RFC 3327 (Path), RFC 3261 §16 for a
//! stateful proxy that does not fork. In: SIP messages of browsers (on `ws:` and `wss:` listeners) and of the upstream (on
//! the `sip` listener). Out: the same messages on the other side, with one hop more.
//!
//! - What a browser sends goes upstream, wherever it says it wants to go: the upstream routes and challenges, we do not.
//!   But a dialog that another server began, which found the Path in the same database, goes on with that server.
//! - What the upstream sends goes to the connection that our token in its topmost Route names, and nowhere else.
//! - A connection that closes takes its bindings with it: the registrar is told at once (`flows`).
//!
//! It keeps no registration state beyond the AoR and Contact of each open connection's answered REGISTERs.
//! Not here: the WebSocket handshake, ping, CRLF keep-alive (`sipbox-io`).

mod flows;
mod forward;
#[cfg(test)]
mod tests;

use crate::auth::Keys;
use crate::flow::{Flow, Listener, ListenerId, Target, Transport};
use crate::machine::{Event, Input, Level, Machine, Output};
use crate::rng::Rng;
use crate::sip::edit::Edit;
use crate::sip::{Message, Method, Name, ParseError, build};
use crate::time::Instant;
use crate::transaction::{self, Answered, ClientId, Layer, Received, RequestId, ResponseId, ServerId};
use bytes::Bytes;
use flows::Flows;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// How a gateway is set up.
pub struct Config {
    /// All listeners, WebSocket and plain.
    pub listeners: Vec<Listener>,
    /// The plain listener that the upstream reaches us on: its address goes into Via, Path and Record-Route.
    pub sip: ListenerId,
    /// Where everything from browsers goes.
    pub upstream: Target,
    pub keys: Keys,
    /// Differs at each start, so that a token of an earlier one names no connection of this.
    pub epoch: u32,
    pub rng: Rng,
}

/// One request under way.
struct Pending {
    server: ServerId,
    client: ClientId,
    /// The request as it came, to answer it.
    request: Bytes,
    /// The browser's connection, for a REGISTER whose answer is to be remembered.
    registers: Option<Flow>,
}

/// The machine.
pub struct Gateway {
    listeners: Vec<Listener>,
    sip: Listener,
    upstream: Target,
    keys: Keys,
    epoch: u32,
    rng: Rng,
    layer: Layer,
    flows: Flows,
    by_client: BTreeMap<ClientId, Pending>,
    by_server: BTreeMap<ServerId, ClientId>,
    out: VecDeque<Output>,
    draining: bool,
}

/// Why a request went nowhere: the status, and the words for its answer and the log.
struct Refusal {
    status: u16,
    reason: &'static str,
}

impl Gateway {
    /// `None` when `sip` names no listener.
    pub fn new(mut config: Config) -> Option<Self> {
        let sip = config.listeners.iter().find(|listener| listener.id == config.sip)?.clone();
        let layer = Layer::new(&mut config.rng, 0);
        Some(Gateway {
            listeners: config.listeners,
            sip,
            upstream: config.upstream,
            keys: config.keys,
            epoch: config.epoch,
            rng: config.rng,
            layer,
            flows: Flows::default(),
            by_client: BTreeMap::new(),
            by_server: BTreeMap::new(),
            out: VecDeque::new(),
            draining: false,
        })
    }

    fn packet(&mut self, now: Instant, flow: Flow, data: Bytes) {
        let message = match Message::parse(&data).and_then(|message| message.check().map(|()| message)) {
            Ok(message) => message,
            Err(error) => return self.malformed(&flow, &data, &error),
        };
        if message.is_request() {
            self.request(now, flow, &message, &data);
        } else {
            self.response(now, &message);
        }
    }

    fn malformed(&mut self, flow: &Flow, data: &[u8], error: &ParseError) {
        let event = Event::new(Level::Warn, "malformed").with("peer", flow).with("error", error);
        let Some(request) = Message::parse_to_refuse(data) else { return self.event(event) };
        let call_id = String::from_utf8_lossy(request.call_id().unwrap_or_default()).into_owned();
        self.event(event.with("call_id", call_id));
        let tag = self.rng.token(10);
        let answer = build::response(&request, error.kind.status(), None, Some(&tag), &[], b"");
        self.layer.send_stateless(Target::Flow(*flow), answer.into());
    }

    fn request(&mut self, now: Instant, flow: Flow, message: &Message<'_>, data: &Bytes) {
        let id = RequestId::of(message);
        match self.layer.receive_request(now, &id, Target::Flow(flow)) {
            Received::Absorbed => {}
            Received::New(server) => {
                if let Err(refusal) = self.forward(now, server, flow, message, data) {
                    self.refuse(now, server, &flow, message, &refusal);
                }
            }
            Received::Cancel { id, invite } => {
                let client = invite.and_then(|invite| self.by_server.get(&invite)).copied();
                if let Some(client) = client {
                    self.layer.cancel(now, client);
                }
                let status = if invite.is_some() { 200 } else { 481 };
                let tag = self.rng.token(10);
                let answer = build::response(message, status, None, Some(&tag), &[], b"");
                self.layer.respond(now, id, status, answer.into());
            }
            // End to end: no transaction, and nobody to answer where it can't be sent.
            Received::Ack(_) => {
                if let Ok((target, bytes, _)) = self.rewrite(&flow, message) {
                    self.layer.send_stateless(target, bytes);
                }
            }
            Received::Overload => {
                let answer = build::response(message, 503, None, None, &[("Retry-After", "5")], b"");
                self.layer.send_stateless(Target::Flow(flow), answer.into());
            }
        }
    }

    fn forward(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: Flow,
        message: &Message<'_>,
        data: &Bytes,
    ) -> Result<(), Refusal> {
        let from_browser = flow.transport.is_websocket();
        let method = message.method();
        if self.draining && message.to_tag().is_none() && method != Method::Register {
            return Err(Refusal { status: 503, reason: "Stopping" });
        }
        if !from_browser && method == Method::Options && message.routes().next().is_none() {
            return self.answer_options(now, server, message);
        }
        let (target, bytes, branch) = self.rewrite(&flow, message)?;
        if method == Method::Invite {
            let trying = build::response(message, 100, None, None, &[], b"");
            self.layer.respond(now, server, 100, trying.into());
        }
        let name = String::from_utf8_lossy(method.as_bytes());
        let Some(client) = self.layer.send_request(now, target, &name, &branch, bytes) else {
            return Err(Refusal { status: 503, reason: "Too Many Transactions" });
        };
        let registers = (from_browser && method == Method::Register).then_some(flow);
        self.by_server.insert(server, client);
        self.by_client.insert(client, Pending { server, client, request: data.clone(), registers });
        Ok(())
    }

    fn answer_options(
        &mut self,
        now: Instant,
        server: ServerId,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let tag = self.rng.token(10);
        let answer = build::response(message, 200, None, Some(&tag), &[], b"");
        self.layer.respond(now, server, 200, answer.into());
        Ok(())
    }

    fn refuse(
        &mut self,
        now: Instant,
        server: ServerId,
        flow: &Flow,
        message: &Message<'_>,
        refusal: &Refusal,
    ) {
        self.event(
            Event::new(Level::Warn, "refused")
                .with("peer", flow)
                .with("call_id", String::from_utf8_lossy(message.call_id().unwrap_or_default()))
                .with("method", message.method())
                .with("status", refusal.status)
                .with("reason", refusal.reason),
        );
        self.answer(now, server, message, refusal.status, refusal.reason);
    }

    fn answer(&mut self, now: Instant, server: ServerId, request: &Message<'_>, status: u16, reason: &str) {
        let tag = self.rng.token(10);
        let retry: &[(&str, &str)] = if status == 503 { &[("Retry-After", "5")] } else { &[] };
        let answer = build::response(request, status, Some(reason), Some(&tag), retry, b"");
        self.layer.respond(now, server, status, answer.into());
    }

    fn response(&mut self, now: Instant, message: &Message<'_>) {
        let Some(id) = ResponseId::of(message) else { return };
        let client = match self.layer.receive_response(now, &id) {
            Answered::Pass(client) => client,
            Answered::Absorbed | Answered::Stray => return,
        };
        // A 100 is of one hop only (RFC 3261 §16.7, step 2).
        if message.status() == 100 {
            return;
        }
        let Some(pending) = self.by_client.get(&client) else { return };
        let mut bytes = Vec::new();
        let mut edit = Edit::new();
        edit.remove_top_via();
        edit.write(message, &mut bytes);
        self.layer.respond(now, pending.server, message.status(), bytes.into());
        if let (Some(flow), 200..=299) = (pending.registers, message.status())
            && let Ok(request) = Message::parse(&pending.request)
        {
            let token = self.token_of(&flow, &request, Name::To);
            self.flows.registered(&flow, &request, &token);
        }
    }

    /// What the transactions tell by themselves.
    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.layer.poll_event() {
            match event {
                transaction::Event::TimedOut(client) => self.failed(now, client, 408, "Request Timeout"),
                transaction::Event::TransportFailed(client) => {
                    // Toward a browser its flow is gone (RFC 5626 §5.3); toward the upstream the service is.
                    let to_browser =
                        self.by_client.get(&client).is_some_and(|pending| pending.came_from_upstream());
                    let (status, reason) =
                        if to_browser { (430, "Flow Failed") } else { (503, "Upstream Unreachable") };
                    self.failed(now, client, status, reason);
                }
                transaction::Event::ClientEnded(client) => {
                    if let Some(pending) = self.by_client.remove(&client)
                        && self.by_server.get(&pending.server) == Some(&pending.client)
                    {
                        self.by_server.remove(&pending.server);
                    }
                }
                transaction::Event::Unacknowledged(_) | transaction::Event::ServerEnded(_) => {}
            }
        }
        while let Some((target, data)) = self.layer.poll_transmit() {
            self.out.push_back(Output::Transmit { target, data });
        }
    }

    fn failed(&mut self, now: Instant, client: ClientId, status: u16, reason: &'static str) {
        let Some(pending) = self.by_client.get(&client) else { return };
        let (server, data) = (pending.server, pending.request.clone());
        if let Ok(request) = Message::parse(&data) {
            self.event(
                Event::new(Level::Warn, "failed")
                    .with("call_id", String::from_utf8_lossy(request.call_id().unwrap_or_default()))
                    .with("method", request.method())
                    .with("status", status)
                    .with("reason", reason),
            );
            self.answer(now, server, &request, status, reason);
        }
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    fn opened(&mut self, flow: Flow) {
        if flow.transport.is_websocket() {
            self.flows.open(flow);
            self.event(Event::new(Level::Info, "connected").with("peer", flow));
        }
    }

    fn closed(&mut self, now: Instant, flow: &Flow) {
        self.layer.flow_closed(flow);
        if !flow.transport.is_websocket() {
            return;
        }
        self.event(Event::new(Level::Info, "closed").with("peer", flow));
        for lost in self.flows.close(flow) {
            self.event(
                Event::new(Level::Info, "flow-lost")
                    .with("peer", flow)
                    .with("aor", &lost.aor)
                    .with("contact", &lost.contact),
            );
            self.unregister(now, &lost);
        }
    }

    /// Tells the registrar that this binding's flow is gone: a REGISTER that removes the Contact, with the flow's own
    /// token as Path, which is its credential.
    fn unregister(&mut self, now: Instant, lost: &flows::Binding) {
        let branch = self.layer.branch(&mut self.rng);
        let from = format!("<sip:{}>;tag={}", lost.aor, self.rng.token(10));
        let to = format!("<sip:{}>", lost.aor);
        let domain = lost.aor.split_once('@').map_or(lost.aor.as_str(), |(_, domain)| domain);
        let headers: [(&str, &str); 8] = [
            ("Via", &self.via(&self.sip, self.upstream.remote(), &branch)),
            ("Max-Forwards", "70"),
            ("From", &from),
            ("To", &to),
            ("Call-ID", &format!("{}@{}", self.rng.token(22), self.sip.advertised_host)),
            ("CSeq", "1 REGISTER"),
            ("Contact", &format!("<{}>;expires=0", lost.contact)),
            ("Path", &self.path(&lost.token)),
        ];
        let request = build::request("REGISTER", &format!("sip:{domain}"), &headers, b"");
        self.layer.send_request(now, self.upstream, "REGISTER", &branch, request.into());
    }

    /// As `peer` is told.
    fn via(&self, listener: &Listener, peer: SocketAddr, branch: &str) -> String {
        let (host, port) = listener.told(peer.ip());
        format!("SIP/2.0/{} {host}:{port};branch={branch};rport", listener.transport.via())
    }

    fn uri(&self, token: &str) -> String {
        // Read by the upstream, also where it stands in what a browser gets.
        let (host, port) = self.sip.told(self.upstream.remote().ip());
        let transport = match self.sip.transport {
            Transport::Udp => "",
            other => &format!(";transport={}", other.uri_param()),
        };
        format!("sip:{token}@{host}:{port}{transport};lr")
    }

    fn path(&self, token: &str) -> String {
        format!("<{};ob>", self.uri(token))
    }
}

impl Pending {
    fn came_from_upstream(&self) -> bool {
        // The browser's side has WebSocket in its Via; what came from upstream has another on top.
        Message::parse(&self.request)
            .and_then(|request| request.top_via().map(|via| via.transport()))
            .is_ok_and(|transport| !transport.is_some_and(Transport::is_websocket))
    }
}

impl Machine for Gateway {
    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Packet { flow, data } => self.packet(now, flow, data),
            Input::FlowOpened { flow } => self.opened(flow),
            Input::FlowClosed { flow } => self.closed(now, &flow),
            Input::SendFailed { data, .. } => {
                if let Ok(message) = Message::parse(&data)
                    && let (true, Ok(via)) = (message.is_request(), message.top_via())
                {
                    let branch = String::from_utf8_lossy(via.branch().unwrap_or_default()).into_owned();
                    let method = String::from_utf8_lossy(message.method().as_bytes()).into_owned();
                    self.layer.send_failed(&method, &branch);
                }
            }
            Input::Drain => self.draining = true,
            // It asks nothing; keys and certificates are read by the driver.
            Input::Answer { .. } | Input::Reload => {}
        }
        self.settle(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.layer.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        self.settle(now);
    }

    fn is_idle(&self) -> bool {
        self.layer.pending() == 0
    }

    fn dump(&self, out: &mut Vec<String>) {
        self.flows.dump(out);
    }
}
