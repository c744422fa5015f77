//! Where a request outside of a dialog goes: our servers, a local user's bindings, a foreign domain.
//!
//! RFC 3261 §16.5, RFC 3327 §5.4 (the Path of a binding becomes Route), RFC 5626 §5.3 (the token in a Path of our own is
//! the flow). In go the request and what the store knows; out come [`Destination`]s. Not here: trying them (`fork`).

use super::context::{Context, Destination, NextHop, Waiting};
use super::media::{Peer, is_private};
use super::{DATABASE_AWAY, Proxy, forward, nat};
use crate::auth::FlowToken;
use crate::cidr::Cidr;
use crate::flow::{Flow, Target};
use crate::machine::{Question, Reply};
use crate::sip::{Aor, List, Message, Name, NameAddr, Uri};
use crate::store::{self, Binding};
use crate::time::Instant;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Kamailio's usual branch flag for a binding behind a NAT (`nat_bflag` 6).
const CFLAG_NAT: u32 = 1 << 6;

/// Branches of one request; more bindings than this one address-of-record does not have.
const MOST_BRANCHES: usize = 32;

/// Bytes of the mark of a looked-up user in our branches.
const LOOP_MARK: usize = 6;

impl Proxy {
    /// To a server of ours, by its own URI; the request stays as it is.
    pub(super) fn pass_to_server(
        &mut self,
        now: Instant,
        context: &mut Context,
        message: &Message<'_>,
        server: Option<String>,
    ) {
        let next = server
            .as_deref()
            .and_then(|uri| Uri::parse(uri.as_bytes()).ok())
            .and_then(|uri| forward::next_hop(&uri));
        let Some(next) = next else {
            return self.answer(now, context, 404, Some("No Such Service"), &[]);
        };
        let destination = Destination {
            uri: message.request_uri().to_vec(),
            routes: Vec::new(),
            keep_routes: false,
            next,
            peer: Peer::default(),
            foreign: false,
            direct: false,
        };
        self.start(now, context, vec![destination]);
    }

    /// To a domain that is not ours: by `--route`, else by itself.
    pub(super) fn outbound(
        &mut self,
        now: Instant,
        context: &mut Context,
        message: &Message<'_>,
        uri: &Uri<'_>,
    ) {
        let route = self.config.routes.iter().find(|route| route.matches(uri.host));
        let next = match route {
            Some(route) => Uri::parse(route.uri.as_bytes()).ok().and_then(|uri| forward::next_hop(&uri)),
            None => forward::next_hop(uri),
        };
        let Some(next) = next else { return self.answer(now, context, 416, None, &[]) };
        let routes: Vec<&[u8]> = message.values(Name::Route).skip(context.own_routes).collect();
        if self.loops(context, message, &[&[message.request_uri()][..], &routes].concat()) {
            return self.answer(now, context, 482, None, &[]);
        }
        let destination = Destination {
            uri: message.request_uri().to_vec(),
            routes: Vec::new(),
            keep_routes: false,
            next,
            peer: Peer::default(),
            foreign: true,
            direct: true,
        };
        self.start(now, context, vec![destination]);
    }

    /// A user of ours: asks where he is. Who was looked up for this request before is one whose binding leads back to us:
    /// with several bindings that would double the request at each of its seventy hops (RFC 3261 §16.3 step 4, RFC 5393).
    pub(super) fn look_up(
        &mut self,
        now: Instant,
        context: &mut Context,
        message: &Message<'_>,
        uri: &Uri<'_>,
    ) {
        let (Some(aor), Some(domain)) = (uri.aor(), self.local_domain(uri.host, uri.port)) else {
            return self.answer(now, context, 404, None, &[]);
        };
        let aor = Aor { domain: domain.to_ascii_lowercase(), ..aor };
        if self.loops(context, message, &[aor.user.as_bytes(), aor.domain.as_bytes()]) {
            return self.answer(now, context, 482, None, &[]);
        }
        let query = store::Query::Bindings { aor, now };
        context.asking = self.ask(now, Question::Store(query), Waiting::Location(context.id));
        if context.asking.is_none() {
            self.answer(now, context, 503, Some("Too Many Questions"), &[("Retry-After", "5")]);
        }
    }

    /// Marks our branches with what decides where the request goes; whether it was here with the same before.
    fn loops(&self, context: &mut Context, message: &Message<'_>, decisive: &[&[u8]]) -> bool {
        let (_, mac) = self.config.keys.sign("loop", decisive);
        context.looked_up = format!("-{}", URL_SAFE_NO_PAD.encode(&mac[..LOOP_MARK]));
        let mark = context.looked_up.as_bytes();
        message.vias().flatten().any(|via| via.branch().is_some_and(|branch| branch.ends_with(mark)))
    }

    pub(super) fn located(&mut self, now: Instant, context: &mut Context, reply: Option<Reply>) {
        context.asking = None;
        let bindings = match reply {
            Some(Reply::Store(Ok(store::Reply::Bindings(bindings)))) => bindings,
            _ => {
                return self.answer(now, context, 503, Some(DATABASE_AWAY), &[("Retry-After", "5")]);
            }
        };
        if bindings.is_empty() {
            return self.answer(now, context, 404, None, &[]);
        }
        let destinations: Vec<_> =
            bindings.iter().take(MOST_BRANCHES).filter_map(|binding| self.destination(binding)).collect();
        if destinations.is_empty() {
            // Registered, but every connection is gone.
            return self.answer(now, context, 480, None, &[]);
        }
        self.start(now, context, destinations);
    }

    /// Where a binding leads; `None` where its connection is gone and nothing else leads there.
    pub(super) fn destination(&self, binding: &Binding) -> Option<Destination> {
        let contact = Uri::parse(binding.contact.as_bytes()).ok().filter(|contact| contact.is_sip())?;
        let received = binding.received.as_deref().and_then(|uri| Uri::parse(uri.as_bytes()).ok());
        let path: Vec<&[u8]> =
            binding.path.as_deref().map(|path| List::new(path.as_bytes()).collect()).unwrap_or_default();
        let first = match path.first() {
            Some(value) => Some(NameAddr::parse(value).ok()?),
            None => None,
        };
        let token = first
            .as_ref()
            .and_then(|first| first.uri.user)
            .and_then(|user| FlowToken::verify_path(user, &self.config.keys));
        let web = |uri: &Uri<'_>| uri.transport().is_some_and(|transport| transport.is_websocket());
        let browser = web(&contact)
            || received.as_ref().is_some_and(web)
            || token.is_some_and(|token| token.transport.is_websocket());
        let seen = token.map(|token| token.remote).or_else(|| {
            let received = received.as_ref()?;
            Some((received.ip()?, received.port.unwrap_or(5060)).into())
        });
        let differs = seen.is_some_and(|seen| {
            let stream = token.is_some_and(|token| token.connection.is_some());
            contact.ip() != Some(seen.ip()) || (!stream && contact.port.unwrap_or(5060) != seen.port())
        });
        let v6 = seen.map(|seen| seen.ip()).or_else(|| contact.ip()).is_some_and(|ip| ip.is_ipv6());
        let nat = !browser
            && !v6
            && (binding.cflags & CFLAG_NAT != 0 || differs || contact.ip().is_some_and(is_private));
        let mut destination = Destination {
            uri: binding.contact.as_bytes().to_vec(),
            routes: Vec::new(),
            keep_routes: false,
            next: forward::next_hop(&contact)?,
            peer: Peer { browser, nat, v6 },
            foreign: false,
            direct: true,
        };
        match first {
            Some(first) if self.is_ours(first.uri.host, first.uri.port) && token.is_some() => {
                destination.routes = path[1..].iter().map(|route| route.to_vec()).collect();
                destination.next = match self.flow_target(&token?) {
                    Some(target) => NextHop::Target(target),
                    // The connection is gone. A client whose Contact is where it was seen can be called back.
                    None if !differs && !browser => forward::next_hop(&contact)?,
                    None => return None,
                };
            }
            Some(first) => {
                destination.routes = path.iter().map(|route| route.to_vec()).collect();
                destination.next = forward::next_hop(&first.uri)?;
                destination.direct = false;
            }
            None => destination.next = forward::next_hop(received.as_ref().unwrap_or(&contact))?,
        }
        Some(destination)
    }

    /// The flow that a Path token of ours names, where it is still there.
    fn flow_target(&self, token: &FlowToken) -> Option<Target> {
        match token.connection {
            Some(connection) => self
                .connections
                .get(&connection)
                .filter(|flow| token.epoch == self.config.epoch && flow.remote == token.remote)
                .map(|flow| Target::Flow(*flow)),
            None => self.listener(token.listener).filter(|own| own.transport == token.transport).map(|own| {
                Target::Flow(Flow {
                    transport: own.transport,
                    listener: own.id,
                    remote: token.remote,
                    connection: None,
                })
            }),
        }
    }

    /// A request along a Path that we gave out (RFC 3327 §5.4): from a server of ours, and to the flow of its token.
    pub(super) fn along_path(&self, context: &Context, message: &Message<'_>) -> Option<Destination> {
        let ip = context.flow.remote.ip();
        if !Cidr::any(&self.config.edge, ip) && !Cidr::any(&self.config.trust, ip) {
            return None;
        }
        let route = message.routes().take(context.own_routes).find_map(|route| {
            let route = route.ok()?;
            FlowToken::verify_path(route.uri.user?, &self.config.keys)
        })?;
        Some(Destination {
            uri: message.request_uri().to_vec(),
            routes: Vec::new(),
            keep_routes: true,
            next: NextHop::Target(self.flow_target(&route)?),
            peer: Peer { browser: route.transport.is_websocket(), nat: false, v6: route.remote.is_ipv6() },
            foreign: false,
            direct: true,
        })
    }

    /// Whether a REGISTER's Path may stand: the registrar believes what we pass on. An edge may say anything; of others
    /// it must be of tokens only, which nobody makes up.
    pub(super) fn path_is_believed(&self, context: &Context, message: &Message<'_>) -> bool {
        Cidr::any(&self.config.edge, context.flow.remote.ip())
            || message.addresses(Name::Path).all(|hop| {
                hop.ok().and_then(|hop| FlowToken::verify_path(hop.uri.user?, &self.config.keys)).is_some()
            })
    }

    /// The Path value for a REGISTER whose first hop we are: its flow, signed.
    /// `reader` is who gets the REGISTER, and comes back by it.
    pub(super) fn path(
        &self,
        context: &Context,
        message: &Message<'_>,
        reader: std::net::IpAddr,
    ) -> Option<String> {
        let own = self.listener(context.flow.listener)?;
        let aor = message.to().ok()?.uri.aor()?;
        let contact = message.contacts().find_map(Result::ok);
        let token = FlowToken {
            worker: self.config.worker,
            listener: own.id,
            transport: context.flow.transport,
            epoch: self.config.epoch,
            connection: context.flow.connection,
            remote: nat::takes_requests_at(message, &context.flow),
            client: crate::auth::flow_token::client_hash(
                &aor,
                contact.map_or("", |contact| contact.uri.host),
            ),
            dialog: false,
        }
        .mint(&self.config.keys);
        let transport = match own.transport.uri_param() {
            "udp" => String::new(),
            name => format!(";transport={name}"),
        };
        let (host, port) = own.told(reader);
        Some(format!("<sip:{token}@{host}:{port}{transport};lr;ob>"))
    }
}
