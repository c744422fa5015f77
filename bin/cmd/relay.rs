//! `relay`: forwards media, and is told what to do in rtpengine's ng protocol.

mod rtpengine;

use super::Entry;
use crate::common::{Drain, EventsTo, Log};
use crate::exit::{Code, Failure};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use sipbox_core::cidr::Cidr;
use sipbox_core::flow::Transport;
use sipbox_core::limits::RELAY_DELETE_DELAY_SECONDS;
use sipbox_core::media::plan::Learning;
use sipbox_core::relay::{Config, Relay};
use sipbox_core::sdp::Fingerprint;
use sipbox_io::clock::Clock;
use sipbox_io::media::Workers;
use sipbox_io::ports::{Allocator, Interface, Range};
use sipbox_io::{certificate, control, entropy, listen};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub const ENTRY: Entry =
    Entry { name: "relay", command, run, prose: include_str!("../../man/prose/relay.roff") };

/// The flags.
#[derive(Args, Clone, Debug)]
struct Serve {
    /// Where ng requests come in, as bencode or JSON
    #[arg(long, value_name = "udp:|tcp:HOST:PORT", default_value = "udp:127.0.0.1:2223")]
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
    /// After so long a call is ended in any case
    #[arg(long, value_name = "SECONDS")]
    final_timeout: Option<u64>,
    /// Calls at a time; a further offer is answered with 'load limit'
    #[arg(long, value_name = "N")]
    max_sessions: Option<usize>,
    /// Between the reply to delete and the call's end, where the request does not say: late packets pass
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=RELAY_DELETE_DELAY_SECONDS))]
    delete_delay: u64,
    /// What media packets are marked with, where the request does not say: IPv4's type of service, IPv6's traffic class (184
    /// is expedited forwarding)
    #[arg(long, value_name = "BYTE", default_value_t = 0)]
    tos: u8,
    /// Look for each sender's media where its SIP came from, as if each request had the flag SIP-source-address
    #[arg(long)]
    sip_source: bool,
    /// Whether a plain leg's address is learned from its packets; 'off' sends to the address in the SDP only
    #[arg(long, value_name = "HOW", value_enum, default_value_t = EndpointLearning::Immediate)]
    endpoint_learning: EndpointLearning,
    /// Media threads [default: the number of cores]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Write the process's number to a file
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    #[arg(long, hide = true, value_delimiter = ',')]
    without_meaning: Vec<String>,
    #[command(flatten)]
    events: EventsTo,
    #[command(flatten)]
    drain: Drain,
    #[command(flatten)]
    log: Log,
}

/// Values of `--endpoint-learning`: rtpengine's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum EndpointLearning {
    Off,
    /// The first packets decide
    Immediate,
    /// The same here
    Delayed,
    /// The same here
    Heuristic,
}

/// The command line as clap shall see it: rtpengine's own options are taken too.
pub fn translate(words: &[OsString], link: Option<&str>) -> Result<Vec<OsString>, Failure> {
    rtpengine::translate(words, link == Some("rtpengine"))
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
    if !flags.without_meaning.is_empty() {
        tracing::warn!(options = flags.without_meaning.join(" "), "options-without-meaning");
    }
    if let Some(path) = &flags.pidfile {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| Failure::new(Code::System, format!("--pidfile {}: {error}", path.display())))?;
    }

    let mut sockets = Vec::with_capacity(flags.control.len());
    for text in &flags.control {
        let spec = listen::parse("--control", text, &[Transport::Udp, Transport::Tcp])?;
        sockets.push(control::bind(spec.address, spec.transport, text)?);
    }
    let ports = Allocator::new(flags.interface, flags.port_range)?.with_tos(flags.tos);
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
            fingerprints: ["sha-384", "sha-512"]
                .into_iter()
                .filter_map(|hash| Some(Fingerprint { hash: hash.into(), digest: identity.digest(hash)? }))
                .collect(),
            timeout: Duration::from_secs(flags.timeout),
            silent_timeout: Duration::from_secs(flags.silent_timeout),
            final_timeout: flags.final_timeout.filter(|seconds| *seconds > 0).map(Duration::from_secs),
            max_calls: flags.max_sessions.unwrap_or(usize::MAX),
            delete_delay: Duration::from_secs(flags.delete_delay),
            sip_source: flags.sip_source,
            learning: match flags.endpoint_learning {
                EndpointLearning::Off => Learning::Off,
                EndpointLearning::Immediate | EndpointLearning::Delayed | EndpointLearning::Heuristic => {
                    Learning::Immediate
                }
            },
        },
        entropy::rng().map_err(system)?,
    );
    let options =
        control::Options { clock, drain: flags.drain.duration(), events, allow: flags.control_allow };
    Ok(control::run(relay, workers, notices, sockets, options)?)
}

#[cfg(test)]
mod tests;
