//! A request as it leaves: RFC 3261 §16.6.
//!
//! Via, Max-Forwards, Route, Record-Route, Path and Contact's alias are changed; all else goes on byte for byte. In go
//! the request and where it goes; out come the bytes. Not here: why (`dialog`, `location`, `fork`).

use super::context::{Context, Destination, NextHop};
use super::token::{Hop, RouteToken};
use super::{Proxy, nat};
use crate::cidr::Cidr;
use crate::flow::{Flow, Listener, ListenerId, ServerKey, Target, Transport};
use crate::resolve::Wanted;
use crate::sip::edit::Edit;
use crate::sip::{Message, Name, Uri};
use bytes::Bytes;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// Max-Forwards of a request that came without (§16.6 step 3).
const MAX_FORWARDS: u8 = 70;

/// One copy of a request, on its way out.
pub(super) struct Leaving<'a> {
    pub destination: &'a Destination,
    pub target: Target,
    pub branch: String,
    pub own_routes: usize,
    pub strip_credentials: bool,
    /// Top first.
    pub record_routes: Vec<String>,
    pub path: Option<String>,
    /// What is said of the way to a client by somebody who is not believed.
    pub strip_path: bool,
    pub contact: Option<Vec<u8>>,
    /// RFC 5393 §5.3.3, where it is to be told.
    pub max_breadth: Option<u32>,
    pub body: Option<Vec<u8>>,
}

/// Where a URI leads, by its own words.
pub(super) fn next_hop(uri: &Uri<'_>) -> Option<NextHop> {
    Wanted::of(uri).map(NextHop::Host)
}

impl Proxy {
    pub(super) fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.config.listeners.iter().find(|listener| listener.id == id)
    }

    fn told(&self, listener: ListenerId, peer: IpAddr) -> Option<(Cow<'_, str>, u16)> {
        self.listener(listener).map(|own| own.told(peer))
    }

    /// The socket for a transport and an address family.
    fn listener_for(&self, transport: Transport, v6: bool) -> Option<&Listener> {
        self.config
            .listeners
            .iter()
            .find(|listener| listener.transport == transport && listener.local.is_ipv6() == v6)
    }

    /// `server` is who has to be there, where TLS asks.
    pub(super) fn address_target(
        &self,
        remote: SocketAddr,
        transport: Transport,
        server: ServerKey,
    ) -> Option<Target> {
        let listener = self.listener_for(transport, remote.is_ipv6())?;
        Some(Target::Address { listener: listener.id, transport, remote, server })
    }

    /// The target of a host that is an address by itself.
    pub(super) fn literal_target(&self, wanted: &Wanted) -> Option<Target> {
        let hop = wanted.literal()?;
        self.address_target(hop.remote, hop.transport, ServerKey::ADDRESS)
    }

    /// The real address of a request's sender: what an edge of ours says of it, else the packet's.
    pub(super) fn source(&self, message: &Message<'_>, flow: &Flow) -> IpAddr {
        let ip = flow.remote.ip();
        if !Cidr::any(&self.config.edge, ip) {
            return ip;
        }
        let client = message.vias().nth(1).and_then(Result::ok);
        client.and_then(|via| via.received().or_else(|| crate::sip::uri::host_ip(via.host))).unwrap_or(ip)
    }

    /// Our Via, by the listener that sends.
    pub(super) fn via(&self, target: &Target, branch: &str) -> String {
        let listener = match target {
            Target::Flow(flow) => flow.listener,
            Target::Address { listener, .. } => *listener,
        };
        let transport = target.transport().via();
        match self.listener(listener) {
            Some(own) => {
                // RFC 5923: by this connection we are reached too.
                let alias = if own.transport == Transport::Tls { ";alias" } else { "" };
                let (host, port) = own.told(target.remote().ip());
                format!("SIP/2.0/{transport} {host}:{port}{alias};branch={branch}")
            }
            None => format!("SIP/2.0/{transport} invalid.invalid;branch={branch}"),
        }
    }

    /// Our URI on a listener, for Record-Route, as the side at `peer` is to reach us.
    fn record_route(&self, listener: ListenerId, token: &str, peer: IpAddr) -> Option<String> {
        let own = self.listener(listener)?;
        let transport = match own.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
            Transport::Ws | Transport::Wss => ";transport=ws",
        };
        let (host, port) = own.told(peer);
        Some(format!("<sip:{token}@{host}:{port}{transport};lr>"))
    }

    /// The Record-Route values of a request that makes a dialog: one, or two where it leaves by another listener than it
    /// came by (RFC 5658).
    pub(super) fn record_routes(
        &self,
        context: &Context,
        message: &Message<'_>,
        destination: &Destination,
        target: &Target,
        relay: Option<u8>,
    ) -> Vec<String> {
        let (Some(call_id), Some(tag)) = (message.call_id(), message.from_tag()) else { return Vec::new() };
        let (out_listener, connection) = match target {
            Target::Flow(flow) => (flow.listener, flow.connection),
            Target::Address { listener, .. } => (*listener, None),
        };
        let id = |connection: Option<crate::flow::ConnectionId>| {
            connection.and_then(|connection| u32::try_from(connection.0).ok()).unwrap_or(0)
        };
        let caller = Hop {
            listener: context.flow.listener.0,
            remote: if context.first_hop {
                nat::takes_requests_at(message, &context.flow)
            } else {
                context.flow.remote
            },
            connection: id(context.flow.connection),
            foreign: self.is_foreign_sender(message, &context.flow),
            browser: context.sender.browser,
        };
        let callee = Hop {
            listener: out_listener.0,
            remote: target.remote(),
            connection: id(connection),
            foreign: destination.foreign,
            browser: destination.peer.browser,
        };
        let token = RouteToken { caller, callee, relay }.mint(&self.config.keys, call_id, tag);
        let mut values = Vec::with_capacity(2);
        let (behind, before) = (target.remote().ip(), context.flow.remote.ip());
        values.extend(self.record_route(out_listener, &token, behind));
        // Whoever is told another address needs one of his own, as across transports.
        if out_listener != context.flow.listener
            || self.told(out_listener, behind) != self.told(out_listener, before)
        {
            values.extend(self.record_route(context.flow.listener, &token, before));
        }
        values
    }

    /// Record-Route with the token that the dialog has already (NOTIFY, whose dialog the other side may not have yet).
    pub(super) fn same_record_route(&self, target: &Target, token: &str) -> Vec<String> {
        let listener = match target {
            Target::Flow(flow) => flow.listener,
            Target::Address { listener, .. } => *listener,
        };
        self.record_route(listener, token, target.remote().ip()).into_iter().collect()
    }

    /// Whether a request's sender is reached by following what it says: a server of another domain, or a trunk. A
    /// client of ours, or whatever came through an edge of ours, is reached where it came from, whatever it says.
    fn is_foreign_sender(&self, message: &Message<'_>, flow: &Flow) -> bool {
        let ip = flow.remote.ip();
        !Cidr::any(&self.config.edge, ip)
            && (self.claimed(message).is_none() || Cidr::any(&self.config.trust, ip))
            && message.record_routes().next().is_some()
    }

    pub(super) fn write(&self, message: &Message<'_>, leaving: Leaving<'_>) -> Bytes {
        let mut edit = Edit::new();
        let destination = leaving.destination;
        edit.prepend_via(self.via(&leaving.target, &leaving.branch));
        let hops = message.max_forwards().ok().flatten();
        edit.set_max_forwards(hops.map_or(MAX_FORWARDS, |hops| hops.saturating_sub(1)));
        if destination.uri != message.request_uri() {
            edit.set_request_uri(destination.uri.as_slice());
        }
        if destination.keep_routes {
            for _ in 0..leaving.own_routes {
                edit.remove_first_route();
            }
        } else {
            edit.remove(Name::Route);
        }
        for route in destination.routes.iter().rev() {
            edit.prepend_route(route.as_slice());
        }
        for value in leaving.record_routes.into_iter().rev() {
            edit.prepend_record_route(value);
        }
        if leaving.strip_path {
            edit.remove(Name::Path);
        }
        if let Some(path) = leaving.path {
            edit.prepend_path(path);
        }
        if leaving.strip_credentials {
            edit.remove(Name::ProxyAuthorization);
        }
        if let Some(breadth) = leaving.max_breadth {
            edit.remove(Name::MaxBreadth).add("Max-Breadth", breadth.to_string());
        }
        if let Some(contact) = leaving.contact {
            edit.replace_contacts(contact);
        }
        if let Some(body) = leaving.body {
            edit.replace_body(None, body);
        }
        let mut out = Vec::with_capacity(message.as_bytes().len() + 512);
        edit.write(message, &mut out);
        out.into()
    }
}
