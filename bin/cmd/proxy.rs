//! `proxy`: routes calls, and has their media bridged.

use super::Entry;
use super::server::{self, Server};
use crate::common::{self, Outward, Workers};
use crate::exit::Failure;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use sipbox_core::cidr::Cidr;
use sipbox_core::proxy::{self, Config, Proxy, Route};
use sipbox_core::sip::Uri;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

pub const ENTRY: Entry =
    Entry { name: "proxy", command, run, prose: include_str!("../../man/prose/proxy.roff") };

/// The flags.
#[derive(Args, Clone, Debug)]
struct Flags {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    workers: Workers,
    #[command(flatten)]
    outward: Outward,
    /// Where REGISTER goes
    #[arg(long, value_name = "URI")]
    registrar: Option<String>,
    /// Where SUBSCRIBE and PUBLISH go [default: nowhere, they get 404]
    #[arg(long, value_name = "URI")]
    presence: Option<String>,
    /// An ng media relay, udp:HOST:PORT; several share the calls, and each call stays on its own
    #[arg(long, value_name = "NG-URI[#NAME]")]
    relay: Vec<String>,
    /// When media go through a relay: auto is all but SIP to SIP without NAT
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Policy::Auto)]
    relay_policy: Policy,
    /// How whoever claims a From of ours proves it
    #[arg(long, value_enum, value_name = "HOW", default_value_t = server::Auth::Digest)]
    auth: server::Auth,
    /// A network that needs no password, and may call anywhere (trunks)
    #[arg(long, value_name = "CIDR")]
    trust: Vec<Cidr>,
    /// Where requests for other domains go: PATTERN is a host, *.SUFFIX or *
    #[arg(long, value_name = "PATTERN=URI")]
    route: Vec<String>,
    /// How the phones of one user ring
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Fork::Parallel)]
    fork: Fork,
    /// How long a phone may ring
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    ring_timeout: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Fork {
    Parallel,
    Serial,
    None,
}

fn command() -> Command {
    Flags::augment_args(Command::new("proxy")).about("Route calls between phones, browsers and trunks")
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let flags = Flags::from_arg_matches(matches).map_err(|error| common::usage(error.to_string()))?;
    let relays = flags.relay.iter().map(|uri| relay(uri)).collect::<Result<Vec<_>, _>>()?;
    if relays.len() > usize::from(u8::MAX) {
        return Err(common::usage("--relay: at most 255"));
    }
    let (relays, relay_names): (Vec<SocketAddr>, Vec<String>) = relays.into_iter().unzip();
    for (flag, uri) in [("--registrar", &flags.registrar), ("--presence", &flags.presence)] {
        uri.as_deref().map_or(Ok(()), |uri| sip_uri(flag, uri))?;
    }
    let routes = flags.route.iter().map(|text| route(text)).collect::<Result<Vec<_>, _>>()?;
    let (mut given, started) = flags.server.start("proxy", "udp:0.0.0.0:5060", &flags.trust)?;
    let config = Config {
        listeners: given.listeners,
        domains: given.domains,
        registrar: flags.registrar.clone(),
        presence: flags.presence.clone(),
        relays: relay_names,
        relay_policy: match flags.relay_policy {
            Policy::Auto => proxy::RelayPolicy::Auto,
            Policy::Always => proxy::RelayPolicy::Always,
            Policy::Never => proxy::RelayPolicy::Never,
        },
        auth: match flags.auth {
            server::Auth::Digest => proxy::Auth::Digest,
            server::Auth::None => proxy::Auth::None,
        },
        trust: flags.trust.clone(),
        edge: flags.server.edge.edge.clone(),
        fork: match flags.fork {
            Fork::Parallel => proxy::Fork::Parallel,
            Fork::Serial => proxy::Fork::Serial,
            Fork::None => proxy::Fork::None,
        },
        ring_timeout: Duration::from_secs(flags.ring_timeout),
        routes,
        keys: given.keys,
        worker: 0,
        epoch: given.rng.u32(),
    };
    let make = |worker, rng| Proxy::new(Config { worker, ..config.clone() }, rng);
    started.outward(&flags.outward).run_each(&flags.workers, make, relays)
}

/// `udp:HOST:PORT`, as rtpengine's control URIs; behind `#` its name in events, else that is the address.
fn relay(text: &str) -> Result<(SocketAddr, String), Failure> {
    let fault = |why: &str| common::usage(format!("--relay {text}: {why}; give it as udp:HOST:PORT"));
    let (uri, name) = text.split_once('#').unwrap_or((text, text));
    let place = uri.strip_prefix("udp:").ok_or_else(|| fault("not an ng address over UDP"))?;
    let mut found = place.to_socket_addrs().map_err(|error| fault(&error.to_string()))?;
    let address = found.next().ok_or_else(|| fault("the name has no address"))?;
    Ok((address, name.to_owned()))
}

fn sip_uri(flag: &str, text: &str) -> Result<(), Failure> {
    match Uri::parse(text.as_bytes()) {
        Ok(uri) if uri.is_sip() => Ok(()),
        _ => Err(common::usage(format!("{flag} {text}: not a SIP URI; give it as sip:HOST:PORT"))),
    }
}

fn route(text: &str) -> Result<Route, Failure> {
    let Some((pattern, uri)) = text.split_once('=') else {
        return Err(common::usage(format!("--route {text}: no '='; give it as PATTERN=sip:HOST:PORT")));
    };
    sip_uri("--route", uri)?;
    Ok(Route { pattern: pattern.to_owned(), uri: uri.to_owned() })
}
