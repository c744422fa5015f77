//! One request, rewritten for the other side.
//!
//! RFC 3261 §16.6 (a proxy that forwards to one target), RFC 3327 §5.2 (Path), RFC 5626 §5.2 and §5.3 (flow token; 430
//! when the flow is gone), RFC 3581 (received, rport), RFC 7118 §5.2 (a browser's Via and Contact hold `.invalid` names,
//! which nobody resolves). In: the flow that it came by, and the request. Out: where it goes, its bytes, its branch.
//! Not here: transactions and responses (`super`).

use super::{Gateway, Refusal};
use crate::auth::FlowToken;
use crate::auth::flow_token::client_hash;
use crate::flow::{Flow, Listener, ServerKey, Target, Transport};
use crate::sip::edit::Edit;
use crate::sip::uri::host_ip;
use crate::sip::{Message, Method, Name, NameAddr};
use bytes::Bytes;
use std::net::SocketAddr;

/// RFC 3261 §8.1.1.6, for a request without one.
const MAX_FORWARDS: u8 = 70;

impl Gateway {
    pub(super) fn rewrite(
        &mut self,
        flow: &Flow,
        message: &Message<'_>,
    ) -> Result<(Target, Bytes, String), Refusal> {
        let hops = message.max_forwards().ok().flatten().unwrap_or(MAX_FORWARDS + 1);
        let Some(hops) = hops.checked_sub(1) else {
            return Err(Refusal { status: 483, reason: "Too Many Hops" });
        };
        let mut edit = Edit::new();
        edit.set_max_forwards(hops);
        edit.set_received(flow.remote.ip());
        edit.set_rport(flow.remote.port());
        let branch = self.layer.branch(&mut self.rng);
        let target = if flow.transport.is_websocket() {
            let target = self.to_upstream(flow, message, &mut edit);
            edit.prepend_via(self.via(&self.sip, self.upstream.remote(), &branch));
            target
        } else {
            let browser = self.to_browser(flow, message, &mut edit)?;
            let listener = self.listener_of(&browser).ok_or(FLOW_FAILED)?;
            edit.prepend_via(self.via(listener, browser.remote, &branch));
            Target::Flow(browser)
        };
        let mut bytes = Vec::new();
        edit.write(message, &mut bytes);
        Ok((target, bytes.into(), branch))
    }

    /// What a browser sends: our token becomes part of the path back to it. Goes upstream, but for what belongs to a dialog
    /// that another server began along a Path of ours: that goes where its Route says, if this is that server.
    fn to_upstream(&self, flow: &Flow, message: &Message<'_>, edit: &mut Edit<'_>) -> Target {
        let mut target = self.upstream;
        let mut began = None;
        for route in message.routes().map_while(Result::ok) {
            if !self.is_us(&route) {
                if message.to_tag().is_some() && began.is_some() && route.uri.ip() == began {
                    target = self.address_of(&route).unwrap_or(target);
                }
                break;
            }
            let token = route.uri.user.and_then(|text| FlowToken::verify(text, &self.keys));
            // Of the plain side only where `to_browser` minted it.
            let token = token.filter(|token| token.dialog && !token.transport.is_websocket());
            began = token.map(|token| token.remote.ip()).or(began);
            edit.remove_first_route();
        }
        let method = message.method();
        if method == Method::Register {
            // We are the first hop, and what we pass on is believed: not what the browser says of the way to it.
            edit.remove(Name::Path);
            edit.prepend_path(self.path(&self.token_of(flow, message, Name::To)));
        } else if records_route(method) {
            edit.prepend_record_route(format!("<{}>", self.uri(&self.token_of(flow, message, Name::From))));
        }
        target
    }

    /// The address in a Route, where our plain side speaks its transport.
    fn address_of(&self, route: &NameAddr<'_>) -> Option<Target> {
        let transport = route.uri.transport().unwrap_or(Transport::Udp);
        let remote = SocketAddr::new(route.uri.ip()?, route.uri.port.unwrap_or(transport.default_port()));
        let ours = transport == self.sip.transport && remote.is_ipv6() == self.sip.local.is_ipv6();
        ours.then_some(Target::Address {
            listener: self.sip.id,
            transport,
            remote,
            server: ServerKey::ADDRESS,
        })
    }

    /// What the upstream sends: to the connection that the topmost Route's token names.
    fn to_browser(&self, flow: &Flow, message: &Message<'_>, edit: &mut Edit<'_>) -> Result<Flow, Refusal> {
        let route = message.routes().next().and_then(Result::ok);
        let Some(text) = route.and_then(|route| route.uri.user) else {
            return Err(Refusal { status: 404, reason: "Not Here" });
        };
        let Some(token) = FlowToken::verify(text, &self.keys) else {
            return Err(Refusal { status: 403, reason: "Forged Flow Token" });
        };
        // Whoever a browser talked to has its dialog's token: that alone lets nobody begin anything.
        if token.dialog && message.to_tag().is_none() {
            return Err(Refusal { status: 403, reason: "Token Of A Dialog" });
        }
        let browser = self.browser_of(&token).ok_or(FLOW_FAILED)?;
        edit.remove_first_route();
        if records_route(message.method()) {
            let mut token = FlowToken { dialog: true, ..token };
            if flow.remote.ip() != self.upstream.remote().ip() {
                // Not the upstream, but a server that shares its database: the browser's later requests go back to it. Its
                // Via holds the address that it goes by; the packet's need not be that one. The connection and the client
                // name the browser as well as its own address did.
                token.transport = flow.transport;
                token.remote = self.sent_by(message).unwrap_or(flow.remote);
            }
            let token = token.mint(&self.keys);
            edit.prepend_record_route(format!("<{}>", self.uri(&token)));
        }
        Ok(browser)
    }

    /// The address in the topmost Via, which the hop before us wrote itself.
    fn sent_by(&self, message: &Message<'_>) -> Option<SocketAddr> {
        let via = message.top_via().ok()?;
        let port = via.port.unwrap_or(self.sip.transport.default_port());
        Some(SocketAddr::new(host_ip(via.host)?, port))
    }

    /// The token's own connection, or the one that took its place: same AoR, same Contact host, authenticated.
    fn browser_of(&self, token: &FlowToken) -> Option<Flow> {
        let own = token.connection.filter(|_| token.epoch == self.epoch).and_then(|id| self.flows.get(id));
        own.or_else(|| self.flows.of_client(token.client))
    }

    /// The token of this connection for a message whose AoR stands in `whose`: To of a REGISTER, for Path, or From of
    /// what makes a dialog, for Record-Route.
    pub(super) fn token_of(&self, flow: &Flow, message: &Message<'_>, whose: Name) -> String {
        let address = if whose == Name::To { message.to() } else { message.from() };
        let aor = address.ok().and_then(|address| address.uri.aor());
        let host = message.contacts().next().and_then(Result::ok).map(|contact| contact.uri.host);
        FlowToken {
            worker: 0,
            listener: flow.listener,
            transport: flow.transport,
            epoch: self.epoch,
            connection: flow.connection,
            remote: flow.remote,
            // 0 is no client's: a message without an AoR or Contact is reached by its connection only.
            client: aor.zip(host).map_or(0, |(aor, host)| client_hash(&aor, host)),
            dialog: whose == Name::From,
        }
        .mint(&self.keys)
    }

    /// Whether a Route value names one of our listeners.
    fn is_us(&self, route: &NameAddr<'_>) -> bool {
        self.listeners.iter().any(|listener| {
            let port = route.uri.port.unwrap_or(listener.transport.default_port());
            let advertised = port == listener.advertised_port
                && route.uri.host.eq_ignore_ascii_case(&listener.advertised_host);
            advertised || (port == listener.local.port() && route.uri.ip() == Some(listener.local.ip()))
        })
    }

    fn listener_of(&self, flow: &Flow) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.id == flow.listener)
    }
}

pub(super) const FLOW_FAILED: Refusal = Refusal { status: 430, reason: "Flow Failed" };

/// Requests that make a dialog or move its target: later ones must find the way through us (RFC 3261 §16.6, step 4).
fn records_route(method: Method<'_>) -> bool {
    match method {
        Method::Invite | Method::Subscribe | Method::Notify | Method::Refer | Method::Update => true,
        Method::Ack
        | Method::Bye
        | Method::Cancel
        | Method::Register
        | Method::Options
        | Method::Info
        | Method::Prack
        | Method::Message
        | Method::Publish
        | Method::Other(_) => false,
    }
}
