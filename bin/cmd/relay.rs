//! `relay`: forwards media, and is told what to do in rtpengine's ng protocol. CONTRACT 6.

use super::Entry;
use crate::common::{Drain, EventsTo, Log};
use crate::exit::{Code, Failure};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use sipbox_core::cidr::Cidr;
use sipbox_core::flow::Transport;
use sipbox_core::relay::{Config, Relay};
use sipbox_core::sdp::Fingerprint;
use sipbox_io::clock::Clock;
use sipbox_io::media::Workers;
use sipbox_io::ports::{Allocator, Interface, Range};
use sipbox_io::{certificate, control, entropy, listen};
use std::time::Duration;

pub const ENTRY: Entry =
    Entry { name: "relay", command, run, prose: include_str!("../../man/prose/relay.roff") };

/// The flags.
#[derive(Args, Clone, Debug)]
struct Serve {
    /// Where ng requests come in, as bencode or JSON
    #[arg(long, value_name = "udp:HOST:PORT", default_value = "udp:127.0.0.1:2223")]
    control: Vec<String>,
    /// A network that may ask; without it, whoever reaches --control
    #[arg(long, value_name = "CIDR")]
    control_allow: Vec<Cidr>,
    /// An address of this machine for media; before '/' its name for the ng key direction, after '!' what peers are told
    #[arg(long, value_name = "[NAME/]ADDRESS[!ADVERTISED]", required = true)]
    interface: Vec<Interface>,
    /// UDP ports for media, both included
    #[arg(long, value_name = "LOW-HIGH", default_value = "10000-20000")]
    port_range: Range,
    /// After so long without a packet a call has ended
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// The same for a call on hold
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    silent_timeout: u64,
    /// Media threads [default: the number of cores]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    #[command(flatten)]
    events: EventsTo,
    #[command(flatten)]
    drain: Drain,
    #[command(flatten)]
    log: Log,
}

fn command() -> Command {
    let about = "Forward media between phones and browsers, told how by the ng protocol";
    // `relay` alone serves; the word may stand there for clearness' sake.
    Serve::augment_args(Command::new("relay"))
        .about(about)
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .subcommand(Serve::augment_args(Command::new("serve")).about("The same, said in full"))
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let matches = matches.subcommand_matches("serve").unwrap_or(matches);
    let flags =
        Serve::from_arg_matches(matches).map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    let clock = Clock::start();
    flags.log.start("relay", clock)?;
    let (events, _writer) = flags.events.open()?;

    let mut sockets = Vec::with_capacity(flags.control.len());
    for text in &flags.control {
        let spec = listen::parse("--control", text, &[Transport::Udp])?;
        sockets.push(control::bind(spec.address, text)?);
    }
    let ports = Allocator::new(flags.interface, flags.port_range)?;
    let identity = certificate::self_signed()
        .map_err(|error| Failure::new(Code::System, format!("certificate: {error}")))?;
    let system = |error: std::io::Error| Failure::new(Code::System, error.to_string());
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (notify, notices) = tokio::sync::mpsc::unbounded_channel();
    let workers =
        Workers::start(flags.workers.unwrap_or_else(cores), ports, &identity, clock, move |notice| {
            let _ = notify.send(notice);
        })
        .map_err(system)?;
    let relay = Relay::new(
        Config {
            fingerprint: Fingerprint { hash: "sha-256".into(), digest: identity.sha256() },
            timeout: Duration::from_secs(flags.timeout),
            silent_timeout: Duration::from_secs(flags.silent_timeout),
        },
        entropy::rng().map_err(system)?,
    );
    let options =
        control::Options { clock, drain: flags.drain.duration(), events, allow: flags.control_allow };
    Ok(control::run(relay, workers, notices, sockets, options)?)
}

#[cfg(test)]
mod tests;
