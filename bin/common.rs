//! Flags that servers share, in small groups: a command flattens those that it carries out, and no others.

use crate::exit::{Code, Failure};
use clap::{ArgAction, Args};
use sipbox_core::cidr::Cidr;
use sipbox_core::flow::Transport;
use sipbox_core::machine::Level;
use sipbox_io::clock::Clock;
use sipbox_io::driver::{self, MOST_WORKERS};
use sipbox_io::events::{self, Events, Writer};
use sipbox_io::hep;
use sipbox_io::listen::{self, Bound, Spec};
use sipbox_io::{log, metrics, tls};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// `--listen` and what peers are told.
#[derive(Args, Clone, Debug)]
pub struct Listen {
    /// TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after '!' what peers are told
    #[arg(long, value_name = "URI[!ADVERTISED]")]
    pub listen: Vec<String>,
    /// What peers are told in place of the address, for every --listen without a '!'
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// A network whose hosts are told the address itself, in place of what --advertise or '!' says
    #[arg(long, value_name = "CIDR")]
    pub local_net: Vec<Cidr>,
    /// The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..64))]
    pub dscp: u8,
}

impl Listen {
    /// Checks and binds them; without any, those of `default`.
    pub fn bind(&self, allowed: &[Transport], default: &[&str]) -> Result<Vec<Bound>, Failure> {
        let specs: Vec<Spec> = if self.listen.is_empty() {
            default.iter().map(|uri| listen::parse("--listen", uri, allowed)).collect::<Result<_, _>>()?
        } else {
            self.listen.iter().map(|uri| listen::parse("--listen", uri, allowed)).collect::<Result<_, _>>()?
        };
        self.bind_all(&specs)
    }

    /// Binds them, with their class.
    pub fn bind_all(&self, specs: &[Spec]) -> Result<Vec<Bound>, Failure> {
        let mut bound = listen::bind(specs, self.advertise.as_deref())?;
        listen::set_local_nets(&mut bound, &self.local_net)?;
        if self.dscp != 0 {
            listen::mark(&bound, self.dscp)?;
        }
        Ok(bound)
    }
}

/// `--edge`.
#[derive(Args, Clone, Debug)]
pub struct Edge {
    /// A network of our own wsgw and proxies: believed about the client's address, and still asked for passwords
    #[arg(long, value_name = "CIDR")]
    pub edge: Vec<Cidr>,
}

/// `--secret-file`.
#[derive(Args, Clone, Debug)]
pub struct Secrets {
    /// Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
}

impl Secrets {
    pub fn load(&self) -> Result<Vec<Vec<u8>>, Failure> {
        Ok(sipbox_io::secrets::load(self.secret_file.as_deref())?)
    }
}

/// `--tls-cert`, `--tls-key`, `--tls-self-signed`.
#[derive(Args, Clone, Debug)]
pub struct Tls {
    /// Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Vec<PathBuf>,
    /// Private key in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Vec<PathBuf>,
    /// Make a certificate in the state directory, for a first try
    #[arg(long, conflicts_with = "tls_cert")]
    pub tls_self_signed: bool,
    /// The oldest version of TLS that is spoken
    #[arg(long, value_name = "VERSION", value_enum, default_value_t = TlsVersion::V12)]
    pub tls_min: TlsVersion,
    /// Authorities in PEM: of clients' certificates, and, where we connect by TLS, of servers' beside the system's
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Whether clients show a certificate
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = TlsVerify::None)]
    pub tls_verify: TlsVerify,
}

/// Values of `--tls-min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsVersion {
    #[value(name = "1.2")]
    V12,
    #[value(name = "1.3")]
    V13,
}

/// Values of `--tls-verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsVerify {
    /// They are not asked
    None,
    /// Who shows one has it verified
    Optional,
    /// Who shows none gets no connection
    Required,
}

/// How others are found and believed, of servers that connect to them.
#[derive(Args, Clone, Debug)]
pub struct Outward {
    /// A DNS server, ADDRESS or ADDRESS:PORT [default: the system's]
    #[arg(long, value_name = "ADDRESS", value_parser = dns_server)]
    pub dns: Vec<SocketAddr>,
    /// Where we connect by TLS, ask no server who it is; for a try
    #[arg(long)]
    pub tls_insecure: bool,
}

impl Tls {
    /// `bound` and `domains` are what a certificate of our own is made for.
    pub fn settings(&self, bound: &[Bound], domains: &[String]) -> Result<tls::Settings, Failure> {
        if self.tls_cert.len() != self.tls_key.len() {
            return Err(usage(format!(
                "--tls-cert: {} of them and {} of --tls-key; give each certificate its key",
                self.tls_cert.len(),
                self.tls_key.len()
            )));
        }
        let settings = |pairs| tls::Settings {
            pairs,
            only_13: self.tls_min == TlsVersion::V13,
            ca: self.tls_ca.clone(),
            verify: match self.tls_verify {
                TlsVerify::None => tls::Verify::None,
                TlsVerify::Optional => tls::Verify::Optional,
                TlsVerify::Required => tls::Verify::Required,
            },
            insecure: false,
        };
        let encrypted = bound.iter().any(|b| matches!(b.listener.transport, Transport::Tls | Transport::Wss));
        if !encrypted && (self.tls_self_signed || !self.tls_cert.is_empty()) {
            // The seed's first trouble, the other way round.
            tracing::warn!(
                mend = "add --listen tls:ADDRESS:5061, or leave --tls-cert away",
                "no-listener: --tls-cert is given, but nothing listens for TLS"
            );
        }
        if !self.tls_self_signed {
            let pairs = self.tls_cert.iter().cloned().zip(self.tls_key.iter().cloned()).collect();
            return Ok(settings(pairs));
        }
        let mut names = vec!["localhost".to_owned()];
        names.extend(domains.iter().cloned());
        for Bound { listener, .. } in bound {
            names.push(listener.local.ip().to_string());
            names.push(listener.advertised_host.trim_matches(['[', ']']).to_owned());
        }
        names.sort();
        names.dedup();
        Ok(settings(vec![tls::self_signed(names)?]))
    }
}

/// `--domain`.
#[derive(Args, Clone, Debug)]
pub struct Domains {
    /// A domain that it is responsible for
    #[arg(long, value_name = "NAME")]
    pub domain: Vec<String>,
}

/// `--db`.
#[derive(Args, Clone, Debug)]
pub struct Database {
    /// sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]
    #[arg(long, value_name = "URL")]
    pub db: Option<String>,
}

/// `--events`.
#[derive(Args, Clone, Debug)]
pub struct EventsTo {
    /// Write what happens as JSON lines to a file, or with '-' to standard output; SIGHUP reopens the file
    #[arg(long, value_name = "PATH|-")]
    pub events: Option<String>,
}

impl EventsTo {
    /// The writer must live until the command ends: dropping it waits for what is queued.
    pub fn open(&self) -> Result<(Option<Events>, Option<Writer>), Failure> {
        match &self.events {
            Some(target) => {
                let (events, writer) = events::open(target)?;
                Ok((Some(events), Some(writer)))
            }
            None => Ok((None, None)),
        }
    }
}

/// `--hep`.
#[derive(Args, Clone, Debug)]
pub struct HepTo {
    /// Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT
    #[arg(long, value_name = "URI")]
    pub hep: Option<String>,
}

impl HepTo {
    pub fn open(&self) -> Result<Option<hep::Sender>, Failure> {
        Ok(self.hep.as_deref().map(hep::Sender::open).transpose()?)
    }
}

/// `--workers`, of servers whose calls or users know nothing of each other.
#[derive(Args, Clone, Debug)]
pub struct Workers {
    /// Threads that work on SIP, each on calls and users of its own; one carries thousands of calls a second
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_WORKERS)))]
    pub workers: u8,
}

/// `--workers`, of servers that have one table for all.
#[derive(Args, Clone, Debug)]
pub struct ConnectionWorkers {
    /// Threads that share the connections, with their TLS and WebSocket; the first one works on all SIP
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_WORKERS)))]
    pub workers: u8,
}

/// `--rate-limit`.
#[derive(Args, Clone, Debug)]
pub struct RateLimited {
    /// Ban for 300 seconds who sends more requests than N in SECONDS, or "off"; 64 times as many where one was served; each worker counts for itself
    #[arg(long, value_name = "N/SECONDS|off", default_value = "16/2")]
    pub rate_limit: RateLimit,
}

/// A value of it: N and SECONDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit(Option<(u32, u32)>);

impl FromStr for RateLimit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(RateLimit(None));
        }
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        text.split_once('/')
            .and_then(|(most, seconds)| Some(RateLimit(Some((number(most)?, number(seconds)?)))))
            .ok_or("write N/SECONDS, as 16/2, or off")
    }
}

impl RateLimited {
    /// `exempt`: whom it does not concern.
    pub fn limit(&self, exempt: Vec<Cidr>) -> Option<driver::RateLimit> {
        let RateLimit(limit) = self.rate_limit;
        limit.map(|(most, seconds)| driver::RateLimit {
            most,
            window: Duration::from_secs(u64::from(seconds)),
            exempt,
        })
    }
}

/// `--metrics`.
#[derive(Args, Clone, Debug)]
pub struct MetricsAt {
    /// Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,
}

impl MetricsAt {
    pub fn bind(&self) -> Result<Option<Arc<TcpListener>>, Failure> {
        Ok(self.metrics.as_deref().map(metrics::bind).transpose()?.map(Arc::new))
    }
}

/// `--drain`.
#[derive(Args, Clone, Debug)]
pub struct Drain {
    /// How long what is under way may last after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub drain: u64,
}

impl Drain {
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.drain)
    }
}

/// `--log`, `-v`, `-q`.
#[derive(Args, Clone, Debug)]
pub struct Log {
    /// How the log on standard error looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub log: Format,
    /// Log each decision
    #[arg(short, long)]
    pub verbose: bool,
    /// Log what somebody should look at; twice: only what ends the command
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,
}

/// Values of `--log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
    Journal,
}

impl Log {
    pub fn start(&self, command: &'static str, clock: Clock) -> Result<(), Failure> {
        let format = match self.log {
            Format::Text => log::Format::Text,
            Format::Json => log::Format::Json,
            Format::Journal => log::Format::Journal,
        };
        let least = match (self.verbose, self.quiet) {
            (true, _) => Level::Debug,
            (false, 0) => Level::Info,
            (false, 1) => Level::Warn,
            (false, _) => Level::Error,
        };
        Ok(log::start(format, least, command, clock)?)
    }
}

fn dns_server(text: &str) -> Result<SocketAddr, &'static str> {
    let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
    address.map_err(|_| "write ADDRESS or ADDRESS:PORT, an IPv6 address with a port in brackets")
}

/// Flags that clap took and that contradict each other in a way that it cannot see.
pub fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Code::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_is_two_numbers_or_off() {
        assert_eq!("16/2".parse(), Ok(RateLimit(Some((16, 2)))));
        assert_eq!("off".parse(), Ok(RateLimit(None)));
        for bad in ["", "16", "0/2", "16/0", "16/", "/2", "16/2/2", "-1/2", "on"] {
            assert!(bad.parse::<RateLimit>().is_err(), "{bad}");
        }
    }
}
