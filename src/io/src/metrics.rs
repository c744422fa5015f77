//! `--metrics HOST:PORT`: what a server counts, in Prometheus' text format.
//!
//! In: counts from all workers; each is an atomic number, so nobody waits. Out: the page. `sipbox_messages_total` by direction
//! and transport, `sipbox_dropped_total` by reason, `sipbox_connections`, `sipbox_events_total` by the names that the log and
//! `--events` have too. Not here: who serves the page (`driver`, `scrape`).

use crate::listen::split_host_port;
use crate::start::{Kind, StartError};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sipbox_core::flow::Transport;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Content-Type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const TRANSPORTS: [(Transport, &str); 5] = [
    (Transport::Udp, "udp"),
    (Transport::Tcp, "tcp"),
    (Transport::Tls, "tls"),
    (Transport::Ws, "ws"),
    (Transport::Wss, "wss"),
];

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// One server's; a clone counts the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    /// By the transport's place above: a message must not look for its counter.
    received: [Counter; TRANSPORTS.len()],
    sent: [Counter; TRANSPORTS.len()],
    connections: Gauge,
    events: Family<Labels<1>, Counter>,
    /// Of a banned address.
    banned: Counter,
    /// New work in an overload.
    refused: Counter,
    serving: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sipbox");
        let messages = Family::<Labels<2>, Counter>::default();
        let counters = |direction: &'static str| {
            TRANSPORTS.map(|(_, transport)| {
                messages.get_or_create(&[("direction", direction), ("transport", transport)]).clone()
            })
        };
        let (received, sent) = (counters("in"), counters("out"));
        let dropped = Family::<Labels<1>, Counter>::default();
        let reason = |reason: &'static str| dropped.get_or_create(&[("reason", reason)]).clone();
        let (banned, refused) = (reason("banned"), reason("overload"));
        let (connections, events) = (Gauge::default(), Family::default());
        registry.register("messages", "SIP messages", messages);
        registry.register("dropped", "Requests that were not worked on", dropped);
        registry.register("connections", "Open connections", connections.clone());
        registry.register("events", "Events of the log, by name", events.clone());
        let serving = AtomicBool::new(false);
        Metrics(Arc::new(Inner { registry, received, sent, connections, events, banned, refused, serving }))
    }
}

impl Metrics {
    pub fn received(&self, transport: Transport) {
        self.0.received[place(transport)].inc();
    }

    pub fn sent(&self, transport: Transport) {
        self.0.sent[place(transport)].inc();
    }

    pub fn connected(&self) {
        self.0.connections.inc();
    }

    pub fn disconnected(&self) {
        self.0.connections.dec();
    }

    pub fn banned(&self) {
        self.0.banned.inc();
    }

    pub fn refused(&self) {
        self.0.refused.inc();
    }

    /// Events are rare beside messages.
    pub fn event(&self, name: &'static str) {
        self.0.events.get_or_create(&[("event", name)]).inc();
    }

    /// Whether new work is taken: `/readyz`.
    pub fn set_serving(&self, serving: bool) {
        self.0.serving.store(serving, Ordering::Relaxed);
    }

    pub fn is_serving(&self) -> bool {
        self.0.serving.load(Ordering::Relaxed)
    }

    /// The page.
    pub fn text(&self) -> String {
        let mut page = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut page, &self.0.registry);
        page
    }
}

const fn place(transport: Transport) -> usize {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::Ws => 3,
        Transport::Wss => 4,
    }
}

/// Binds the address of `--metrics`.
pub fn bind(address: &str) -> Result<TcpListener, StartError> {
    let fault = |kind, what: String| StartError::new(kind, format!("--metrics {address}: {what}"));
    let (host, port) = match split_host_port(address) {
        Ok((host, Some(port))) => (host.trim_matches(['[', ']']), port),
        Ok((_, None)) => return Err(fault(Kind::Usage, "no port; give it as HOST:PORT".to_owned())),
        Err(what) => return Err(fault(Kind::Usage, format!("{what}; give it as HOST:PORT"))),
    };
    let addresses = (host, port).to_socket_addrs().map_err(|error| fault(Kind::Usage, error.to_string()))?;
    let addresses: Vec<_> = addresses.collect();
    let listener = TcpListener::bind(&*addresses)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| fault(Kind::System, format!("{error}; choose another port or address")))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_transport_and_name() {
        let metrics = Metrics::default();
        for (transport, _) in TRANSPORTS {
            metrics.received(transport);
        }
        metrics.clone().received(Transport::Wss);
        metrics.sent(Transport::Udp);
        metrics.connected();
        metrics.connected();
        metrics.disconnected();
        metrics.event("banned");
        let page = metrics.text();
        for line in [
            "sipbox_messages_total{direction=\"in\",transport=\"wss\"} 2",
            "sipbox_messages_total{direction=\"in\",transport=\"tls\"} 1",
            "sipbox_messages_total{direction=\"out\",transport=\"udp\"} 1",
            "sipbox_connections 1",
            "sipbox_events_total{event=\"banned\"} 1",
            "sipbox_dropped_total{reason=\"banned\"} 0",
        ] {
            assert!(page.lines().any(|is| is == line), "no {line} in {page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_wrong_address_is_told_with_the_flag_s_name() {
        for (wrong, kind) in
            [("127.0.0.1", Kind::Usage), ("::1:9", Kind::Usage), ("192.0.2.1:1", Kind::System)]
        {
            let error = bind(wrong).unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.starts_with(&format!("--metrics {wrong}: ")), "{error}");
        }
    }
}
