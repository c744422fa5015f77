//! How a server is run: values of flags, as the driver wants them.

use crate::clock::Clock;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::{hep, tls};
use sipbox_core::cidr::Cidr;
use sipbox_core::limits::{CONNECTIONS, SIP_MESSAGE_BYTES};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a server is run. [`Options::new`] has the defaults.
#[derive(Clone)]
pub struct Options {
    /// `proxy`: for the ready line.
    pub command: &'static str,
    pub clock: Clock,
    /// How long work that is under way may last after SIGTERM.
    pub drain: Duration,
    pub events: Option<Events>,
    /// For `tls:` and `wss:` listeners.
    pub tls: tls::Settings,
    /// For `ws:` and `wss:` listeners.
    pub websocket: WebSocketOptions,
    pub max_connections: usize,
    /// `--hep`: gets a copy of each SIP message, received and sent.
    pub hep: Option<hep::Sender>,
    /// What is counted, and where the page of it is served (`--metrics`).
    pub metrics: Metrics,
    pub metrics_at: Option<Arc<TcpListener>>,
    /// `--dscp`: of connections that we open; the listeners have it.
    pub dscp: u8,
    /// `--dns`: in place of the system's servers.
    pub dns: Vec<SocketAddr>,
    /// `--rate-limit`; none: off.
    pub rate_limit: Option<RateLimit>,
}

impl Options {
    pub fn new(command: &'static str, clock: Clock) -> Self {
        Options {
            command,
            clock,
            drain: Duration::from_secs(10),
            events: None,
            tls: tls::Settings::default(),
            websocket: WebSocketOptions::default(),
            max_connections: CONNECTIONS,
            hep: None,
            metrics: Metrics::default(),
            metrics_at: None,
            dscp: 0,
            dns: Vec::new(),
            rate_limit: None,
        }
    }
}

/// `--rate-limit N/SECONDS`, and whom it does not concern.
#[derive(Clone, Debug)]
pub struct RateLimit {
    pub most: u32,
    pub window: Duration,
    /// Our own servers and trunks: much of what many send comes from each.
    pub exempt: Vec<Cidr>,
}

/// How WebSocket ports behave.
#[derive(Clone, Debug)]
pub struct WebSocketOptions {
    /// Names that a Host may have, or be below; none: any.
    pub hosts: Vec<String>,
    /// Patterns of allowed Origins, `*` for any characters; none: the page's own host.
    pub origins: Vec<String>,
    /// Bytes of one message.
    pub max_message: usize,
    /// Pause between pings; a peer that is silent for two is gone.
    pub ping: Duration,
    /// A directory of static files on the same port.
    pub web_root: Option<PathBuf>,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        WebSocketOptions {
            hosts: Vec::new(),
            origins: Vec::new(),
            max_message: SIP_MESSAGE_BYTES,
            ping: Duration::from_secs(30),
            web_root: None,
        }
    }
}
