//! `wsgw`: the edge for browsers. Turns flags into a [`Gateway`] and its sockets.

use super::Entry;
use super::wsgw_probe::Probe;
use crate::common::{
    ConnectionWorkers, Domains, Drain, EventsTo, HepTo, Listen, Log, MetricsAt, Secrets, Tls, usage,
};
use crate::exit::{Code, Failure};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use sipbox_core::auth::Keys;
use sipbox_core::flow::{ListenerId, ServerKey, Target, Transport};
use sipbox_core::gateway::{Config, Gateway};
use sipbox_core::limits;
use sipbox_io::clock::Clock;
use sipbox_io::driver::{self, Options, WebSocketOptions};
use sipbox_io::entropy;
use sipbox_io::listen::{self, Spec, split_host_port};
use sipbox_io::services::Services;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

pub const ENTRY: Entry =
    Entry { name: "wsgw", command: Args::command, run, prose: include_str!("../../man/prose/wsgw.roff") };

/// The edge for browsers: SIP over WebSocket on one side, plain SIP on the other
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum What {
    /// Serve browsers; the same as without a word
    Serve(Box<Serve>),
    /// Be a browser: register over WebSocket, call or answer, and tell what was heard
    Probe(Box<Probe>),
}

#[derive(clap::Args)]
struct Serve {
    #[command(flatten)]
    listen: Listen,
    /// The proxy that everything from browsers goes to: [tcp:|udp:]HOST[:PORT], or a sip: URI; TCP unless it says otherwise
    #[arg(long, value_name = "URI")]
    upstream: Option<String>,
    /// Where the upstream reaches us: tcp: or udp:, as the upstream has it [default: any port of the address that faces it]
    #[arg(long, value_name = "URI[!ADVERTISED]")]
    sip_listen: Option<String>,
    /// Allowed Origin of pages, with * for any characters [default: the page's own host]
    #[arg(long, value_name = "PATTERN")]
    origin: Vec<String>,
    /// Pause between WebSocket pings; a browser that is silent for two is gone
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    ping: u64,
    /// Connections that may be open at a time
    #[arg(long, value_name = "NUMBER", default_value_t = limits::CONNECTIONS)]
    max_connections: usize,
    /// Bytes of one message from a browser
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    max_message: u64,
    /// Serve the files of this directory on the same port
    #[arg(long, value_name = "DIR")]
    web_root: Option<PathBuf>,
    #[command(flatten)]
    domains: Domains,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    tls: Tls,
    #[command(flatten)]
    events: EventsTo,
    #[command(flatten)]
    hep: HepTo,
    #[command(flatten)]
    metrics: MetricsAt,
    #[command(flatten)]
    workers: ConnectionWorkers,
    #[command(flatten)]
    drain: Drain,
    #[command(flatten)]
    log: Log,
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let args = Args::from_arg_matches(matches).map_err(|error| usage(error.to_string()))?;
    match args.what {
        Some(What::Serve(serve)) => serve.run(),
        Some(What::Probe(probe)) => probe.run(),
        None => args.serve.run(),
    }
}

impl Serve {
    fn run(self) -> Result<(), Failure> {
        let clock = Clock::start();
        self.log.start("wsgw", clock)?;
        let upstream = self.upstream.as_deref().ok_or_else(|| {
            usage("--upstream is missing; give the proxy's address, as --upstream tcp:127.0.0.1:5060")
        })?;
        let (transport, remote) = parse_upstream(upstream)?;
        if self.listen.listen.is_empty() {
            return Err(usage(
                "--listen is missing; give where browsers connect, as --listen ws:127.0.0.1:8080",
            ));
        }
        if let Some(root) = &self.web_root
            && !root.is_dir()
        {
            return Err(Failure::new(
                Code::NoInput,
                format!("--web-root {}: there is no such directory; check the path", root.display()),
            ));
        }
        let keys = Keys::new(&self.secrets.load()?).ok_or_else(|| usage("--secret-file: no key in it"))?;

        let mut specs = Vec::new();
        for uri in &self.listen.listen {
            specs.push(listen::parse("--listen", uri, &[Transport::Ws, Transport::Wss])?);
        }
        let sip = ListenerId(specs.len() as u8);
        specs.push(self.sip_spec(transport, remote)?);
        let bound = self.listen.bind_all(&specs)?;

        let mut rng = entropy::rng().map_err(|error| Failure::new(Code::System, error.to_string()))?;
        let epoch = rng.u32();
        let gateway = Gateway::new(Config {
            listeners: listen::listeners(&bound),
            sip,
            upstream: Target::Address { listener: sip, transport, remote, server: ServerKey::ADDRESS },
            keys,
            epoch,
            rng,
        })
        .ok_or_else(|| usage("--sip-listen: there is none"))?;

        let (events, _writer) = self.events.open()?;
        let mut hosts = self.domains.domain.clone();
        if !hosts.is_empty() {
            for listener in listen::listeners(&bound) {
                hosts.push(listen::uri_host(&listener.local));
                hosts.push(listener.advertised_host);
            }
        }
        let options = Options {
            drain: self.drain.duration(),
            events,
            hep: self.hep.open()?,
            dscp: self.listen.dscp,
            metrics_at: self.metrics.bind()?,
            tls: self.tls.settings(&bound, &self.domains.domain)?,
            websocket: WebSocketOptions {
                hosts,
                origins: self.origin,
                max_message: self.max_message as usize,
                ping: Duration::from_secs(self.ping),
                web_root: self.web_root,
            },
            max_connections: self.max_connections,
            ..Options::new("wsgw", clock)
        };
        Ok(driver::run(self.workers.workers, gateway, bound, Services::default(), options)?)
    }

    /// `--sip-listen`, or an address of ours that faces the upstream.
    fn sip_spec(&self, transport: Transport, remote: SocketAddr) -> Result<Spec, Failure> {
        let Some(uri) = &self.sip_listen else {
            let uri = format!("{transport}:{}", SocketAddr::new(facing(remote)?, 0));
            return Ok(listen::parse("--sip-listen", &uri, &[transport])?);
        };
        let spec = listen::parse("--sip-listen", uri, &[Transport::Tcp, Transport::Udp])?;
        if spec.transport != transport {
            return Err(usage(format!(
                "--sip-listen {uri}: the upstream is {transport}:; give both the same transport"
            )));
        }
        Ok(spec)
    }
}

/// The address from which the system would send there. Nothing is sent.
fn facing(remote: SocketAddr) -> Result<IpAddr, Failure> {
    let any: SocketAddr = if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let address = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(remote)?;
        socket.local_addr()
    });
    address.map(|address| address.ip()).map_err(|error| {
        Failure::new(
            Code::System,
            format!("--upstream {remote}: {error}; there is no way there, or give --sip-listen"),
        )
    })
}

/// `tcp:HOST:PORT`, `udp:HOST:PORT`, `HOST[:PORT]`, or `sip:HOST[:PORT][;transport=udp]`.
fn parse_upstream(text: &str) -> Result<(Transport, SocketAddr), Failure> {
    let fault = |what: String| usage(format!("--upstream {text}: {what}"));
    let (mut transport, mut rest) = (Transport::Tcp, text);
    if let Some(uri) = text.strip_prefix("sip:") {
        let mut parts = uri.split(';');
        rest = parts.next().unwrap_or_default();
        for parameter in parts {
            match parameter.to_ascii_lowercase().as_str() {
                "transport=udp" => transport = Transport::Udp,
                "transport=tcp" => transport = Transport::Tcp,
                "lr" => {}
                other => {
                    return Err(fault(format!(
                        "'{other}' has no meaning here; use transport=udp or transport=tcp"
                    )));
                }
            }
        }
    } else if let Some(address) = text.strip_prefix("udp:") {
        (transport, rest) = (Transport::Udp, address);
    } else if let Some(address) = text.strip_prefix("tcp:") {
        rest = address;
    }
    let (host, port) = split_host_port(rest).map_err(|what| fault(what.to_owned()))?;
    let port = port.unwrap_or(transport.default_port());
    match (host.trim_matches(['[', ']']), port).to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(address)) => Ok((transport, address)),
        Ok(None) => Err(fault("the host has no address".to_owned())),
        Err(error) => {
            Err(Failure::new(Code::Unavailable, format!("--upstream {text}: {error}; check the name")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_is_tcp_unless_it_says_otherwise() {
        let parsed = |text| parse_upstream(text).unwrap();
        assert_eq!(parsed("127.0.0.1"), (Transport::Tcp, "127.0.0.1:5060".parse().unwrap()));
        assert_eq!(parsed("udp:127.0.0.1:5070"), (Transport::Udp, "127.0.0.1:5070".parse().unwrap()));
        assert_eq!(
            parsed("sip:127.0.0.1;transport=UDP"),
            (Transport::Udp, "127.0.0.1:5060".parse().unwrap())
        );
        assert_eq!(parsed("tcp:[::1]:5060"), (Transport::Tcp, "[::1]:5060".parse().unwrap()));
        for bad in ["ws:127.0.0.1:80:1", "sip:127.0.0.1;transport=tls", "::1", ""] {
            assert_eq!(parse_upstream(bad).unwrap_err().code, Code::Usage as u8, "{bad}");
        }
    }
}
