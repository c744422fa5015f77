//! Where a message came from and where it goes: transports, listeners, flows.
//!
//! RFC 3261 §18 and RFC 5626 §3 (a flow is a transport-layer association between two sockets: a connection,
//! or the pair of addresses of a UDP exchange).

use crate::cidr::Cidr;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// How SIP is carried. RFC 3261 §18, RFC 7118.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Transport {
    /// The token of a Via's sent-protocol (RFC 3261 §20.42, RFC 7118 §5.2).
    pub const fn via(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// The value of a URI's `transport` parameter; RFC 7118 §5 wants `ws` for both kinds of WebSocket.
    pub const fn uri_param(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws | Transport::Wss => "ws",
        }
    }

    /// Kamailio's number of the transport, as in its `alias` and `received` parameters.
    pub const fn kamailio(self) -> u8 {
        match self {
            Transport::Udp => 1,
            Transport::Tcp => 2,
            Transport::Tls => 3,
            Transport::Ws => 5,
            Transport::Wss => 6,
        }
    }

    pub const fn from_kamailio(number: u8) -> Option<Self> {
        match number {
            1 => Some(Transport::Udp),
            2 => Some(Transport::Tcp),
            3 => Some(Transport::Tls),
            5 => Some(Transport::Ws),
            6 => Some(Transport::Wss),
            _ => None,
        }
    }

    /// Whether it retransmits by itself, so that transactions need not (RFC 3261 §17).
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Transport::Udp)
    }

    pub const fn is_websocket(self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }

    pub const fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
            Transport::Ws => 80,
            Transport::Wss => 443,
        }
    }
}

/// The scheme of `--listen` and of records: `udp`, `tcp`, `tls`, `ws`, `wss`.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        })
    }
}

/// Index of a `--listen` in the order of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u8);

/// A connection of this process; never used twice in its life. UDP has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One association with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub transport: Transport,
    /// The listener that received it, or that lends its address to a connection that we opened.
    pub listener: ListenerId,
    /// The peer's address as the socket shows it (or the PROXY protocol, from a trusted source).
    pub remote: SocketAddr,
    /// None for UDP.
    pub connection: Option<ConnectionId>,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.remote)
    }
}

/// A `--listen` as machines know it: what is bound, and what peers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub id: ListenerId,
    pub transport: Transport,
    /// The bound address with its real port.
    pub local: SocketAddr,
    /// HOST and port that go into Via, Record-Route, Path and Contact; IPv6 with brackets.
    pub advertised_host: String,
    pub advertised_port: u16,
    /// `--local-net`: whoever is in these networks is told the bound address instead.
    pub local_nets: Vec<Cidr>,
}

impl Listener {
    /// What a peer at this address is told: HOST (IPv6 with brackets) and port.
    pub fn told(&self, peer: IpAddr) -> (Cow<'_, str>, u16) {
        if self.local_nets.is_empty() || !Cidr::any(&self.local_nets, peer) {
            return (Cow::Borrowed(&self.advertised_host), self.advertised_port);
        }
        let host = match self.local.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        (Cow::Owned(host), self.local.port())
    }
}

/// Where to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// On this association and no other: a connection that is gone is [`machine::Input::SendFailed`](crate::machine::Input::SendFailed).
    Flow(Flow),
    /// To this address: a connection to it that is open is used, else one is opened.
    /// `listener` picks the socket (UDP) or the local address (connections); it has the same transport.
    /// `server` is who a TLS connection has to prove to be.
    Address { listener: ListenerId, transport: Transport, remote: SocketAddr, server: ServerKey },
}

/// The name that a TLS server's certificate must be for (RFC 5922 §7: the domain that was to be reached): a digest of it,
/// so that a target stays a few bytes. Whoever resolves names knows what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey(pub u64);

impl ServerKey {
    /// No name: the address itself.
    pub const ADDRESS: ServerKey = ServerKey(0);

    /// 64 bits of a digest: nobody finds a second name for another one's.
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.trim_end_matches('.').to_ascii_lowercase());
        let key = digest.iter().take(8).fold(0, |value, &byte| value << 8 | u64::from(byte));
        ServerKey(key.max(1))
    }
}

impl Target {
    pub const fn transport(&self) -> Transport {
        match self {
            Target::Flow(flow) => flow.transport,
            Target::Address { transport, .. } => *transport,
        }
    }

    pub const fn remote(&self) -> SocketAddr {
        match self {
            Target::Flow(flow) => flow.remote,
            Target::Address { remote, .. } => *remote,
        }
    }
}
