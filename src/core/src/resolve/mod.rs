//! Where a SIP URI leads: the order in which its servers are tried.
//!
//! RFC 3263 §4.1 (transport), §4.2 (port and address), §4.3 (the next one), RFC 2782 (priority and weight), RFC 2915/3403
//! (NAPTR). In: what a URI says, and the answers of DNS, one question after the other. Out: [`Hop`]s, best first. A server that
//! did not answer is left out for a while ([`Dead`]). Not here: asking DNS, its cache (`io`); trying the hops (`proxy`).

mod dead;
mod order;
#[cfg(test)]
mod tests;

pub use dead::Dead;

use crate::flow::Transport;
use crate::limits::{RESOLVED_HOPS, RESOLVED_SERVICES};
use crate::rng::Rng;
use crate::sip::uri::host_ip;
use crate::sip::{Scheme, Uri};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// What has to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// A name or an address; IPv6 with brackets.
    pub host: String,
    pub port: Option<u16>,
    /// What the URI asks for.
    pub transport: Option<Transport>,
    /// `sips:`, so only TLS will do.
    pub secure: bool,
}

impl Wanted {
    /// What a URI says by its own words; `maddr` takes the place of the host (RFC 3261 §19.1.1). `None`: no SIP URI.
    pub fn of(uri: &Uri<'_>) -> Option<Wanted> {
        if !uri.is_sip() {
            return None;
        }
        let host = uri.params.get_str("maddr").filter(|host| !host.is_empty()).unwrap_or(uri.host);
        let secure = match uri.scheme {
            Scheme::Sips => true,
            Scheme::Sip | Scheme::Tel | Scheme::Urn | Scheme::Other(_) => false,
        };
        // RFC 3261 §26.2.2: TCP under `sips:` is TLS.
        let transport = uri.transport().map(|asked| match asked {
            Transport::Tcp | Transport::Udp if secure => Transport::Tls,
            other => other,
        });
        Some(Wanted { host: host.to_owned(), port: uri.port, transport, secure })
    }

    /// The transport, where nothing but the URI decides it.
    pub fn plain_transport(&self) -> Transport {
        self.transport.unwrap_or(if self.secure { Transport::Tls } else { Transport::Udp })
    }

    /// A host that is an address needs no DNS.
    pub fn literal(&self) -> Option<Hop> {
        let transport = self.plain_transport();
        let port = self.port.unwrap_or(transport.default_port());
        Some(Hop { transport, remote: SocketAddr::new(host_ip(&self.host)?, port) })
    }
}

/// A server to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    pub transport: Transport,
    pub remote: SocketAddr,
}

/// A question to DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    Naptr(String),
    Srv(String),
    /// A and AAAA.
    Addresses(String),
}

/// What it has; what it does not have is an empty list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    Naptr(Vec<Naptr>),
    Srv(Vec<Srv>),
    Addresses(Vec<IpAddr>),
}

/// RFC 3403 §4.1; the regular expression is not used with SIP's services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    pub order: u16,
    pub preference: u16,
    pub flags: String,
    pub services: String,
    pub replacement: String,
}

/// RFC 2782.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: String,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Ask(Query),
    Done(Vec<Hop>),
}

/// A host whose addresses are to be asked for.
#[derive(Debug)]
struct Server {
    host: String,
    port: u16,
    transport: Transport,
}

/// One search. Call [`step`](Self::step), carry it out, [`answer`](Self::answer), and again.
#[derive(Debug)]
pub struct Search {
    wanted: Wanted,
    /// What we can send by, the one that we like best first.
    can: Vec<Transport>,
    asked: Option<Asked>,
    /// SRV names that are still to be asked for, with what they are for.
    services: VecDeque<(String, Transport)>,
    servers: VecDeque<Server>,
    hops: Vec<Hop>,
    /// Only the first service with an answer is taken, unless NAPTR listed them.
    listed: bool,
    /// There was an SRV record, so the host's own addresses are not asked for (RFC 3263 §4.2).
    served: bool,
    started: bool,
}

#[derive(Debug)]
enum Asked {
    Naptr,
    Srv(Transport),
    Addresses { port: u16, transport: Transport },
}

impl Search {
    /// `can`: the transports that we have a socket for.
    pub fn new(wanted: Wanted, can: &[Transport]) -> Self {
        let can =
            can.iter().copied().filter(|transport| !wanted.secure || *transport == Transport::Tls).collect();
        Search {
            wanted,
            can,
            asked: None,
            services: VecDeque::new(),
            servers: VecDeque::new(),
            hops: Vec::new(),
            listed: false,
            served: false,
            started: false,
        }
    }

    pub fn step(&mut self) -> Step {
        if !std::mem::replace(&mut self.started, true)
            && let Some(step) = self.start()
        {
            return step;
        }
        if self.hops.len() < RESOLVED_HOPS
            && let Some(Server { host, port, transport }) = self.servers.pop_front()
        {
            if let Some(ip) = host_ip(&host) {
                self.hops.push(Hop { transport, remote: SocketAddr::new(ip, port) });
                return self.step();
            }
            self.asked = Some(Asked::Addresses { port, transport });
            return Step::Ask(Query::Addresses(host));
        }
        if let Some((name, transport)) = self.services.pop_front() {
            self.asked = Some(Asked::Srv(transport));
            return Step::Ask(Query::Srv(name));
        }
        if !std::mem::replace(&mut self.served, true) {
            self.own_addresses();
            return self.step();
        }
        Step::Done(std::mem::take(&mut self.hops))
    }

    fn start(&mut self) -> Option<Step> {
        if let Some(hop) = self.wanted.literal() {
            return Some(Step::Done(vec![hop]));
        }
        match (self.wanted.port, self.wanted.transport) {
            // A port says that there is one server (§4.2).
            (Some(_), _) => None,
            (None, Some(transport)) => {
                self.services.extend(self.service(transport));
                None
            }
            (None, None) => {
                self.asked = Some(Asked::Naptr);
                Some(Step::Ask(Query::Naptr(self.wanted.host.clone())))
            }
        }
    }

    fn service(&self, transport: Transport) -> Option<(String, Transport)> {
        let prefix = match transport {
            Transport::Udp => "_sip._udp",
            Transport::Tcp => "_sip._tcp",
            Transport::Tls => "_sips._tcp",
            Transport::Ws | Transport::Wss => return None,
        };
        Some((format!("{prefix}.{}", self.wanted.host), transport))
    }

    fn own_addresses(&mut self) {
        let transport = self.wanted.plain_transport();
        let port = self.wanted.port.unwrap_or(transport.default_port());
        self.servers.push_back(Server { host: self.wanted.host.clone(), port, transport });
    }

    /// The answer to what was asked last; of another kind it counts as none.
    pub fn answer(&mut self, rng: &mut Rng, records: Records) {
        match (self.asked.take(), records) {
            (Some(Asked::Naptr), Records::Naptr(records)) => self.naptr(records),
            (Some(Asked::Srv(transport)), Records::Srv(records)) if !records.is_empty() => {
                self.served = true;
                if !self.listed {
                    self.services.clear();
                }
                for Srv { target, port, .. } in order::by_priority(rng, records) {
                    // RFC 2782: the service is decidedly not available there.
                    if !matches!(target.trim_end_matches('.'), "") {
                        self.servers.push_back(Server { host: target, port, transport });
                    }
                }
                self.servers.truncate(RESOLVED_HOPS);
            }
            (Some(Asked::Addresses { port, transport }), Records::Addresses(addresses)) => {
                let room = RESOLVED_HOPS.saturating_sub(self.hops.len());
                let hop = |ip| Hop { transport, remote: SocketAddr::new(ip, port) };
                self.hops.extend(addresses.into_iter().take(room).map(hop));
            }
            (Some(Asked::Naptr), _) => self.naptr(Vec::new()),
            (Some(Asked::Srv(_) | Asked::Addresses { .. }) | None, _) => {}
        }
    }

    /// §4.1: the services that we can use, in the domain's order. Without any, those that may be there by their names.
    fn naptr(&mut self, mut records: Vec<Naptr>) {
        records.sort_by_key(|record| (record.order, record.preference));
        let usable = records.into_iter().filter(|record| record.flags.eq_ignore_ascii_case("s")).filter_map(
            |record| {
                let transport = match record.services.to_ascii_uppercase().as_str() {
                    "SIP+D2U" => Transport::Udp,
                    "SIP+D2T" => Transport::Tcp,
                    "SIPS+D2T" => Transport::Tls,
                    _ => return None,
                };
                self.can.contains(&transport).then_some((record.replacement, transport))
            },
        );
        self.services = usable.take(RESOLVED_SERVICES).collect();
        self.listed = !self.services.is_empty();
        if !self.listed {
            self.services = self.can.iter().filter_map(|transport| self.service(*transport)).collect();
        }
    }
}
