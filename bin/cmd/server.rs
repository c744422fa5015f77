//! What a SIP server with a database is set up from: the flags that each of them has, and the way from them to a machine
//! that runs.
//!
//! A command flattens [`Server`] beside its own flags, checks those, and then: [`Server::start`] (log, keys,
//! sockets, database, events), its machine from what was [`Given`], [`Started::run`]. Whatever is wrong with a flag is told before
//! anything serves. Not here: what a machine is told beside that (the commands), flags of one alone (`common`).

use crate::common::{
    ConnectionWorkers, Database, Domains, Drain, Edge, EventsTo, HepTo, Listen, Log, MetricsAt, Outward,
    RateLimited, Secrets, Tls, Workers,
};
use crate::exit::{Code, Failure};
use clap::{Args, ValueEnum};
use sipbox_core::auth::Keys;
use sipbox_core::cidr::Cidr;
use sipbox_core::flow::{Listener, Transport};
use sipbox_core::machine::Machine;
use sipbox_core::rng::Rng;
use sipbox_io::clock::Clock;
use sipbox_io::driver::{self, Options};
use sipbox_io::events::Writer;
use sipbox_io::listen::{self, Bound};
use sipbox_io::services::Services;
use sipbox_io::{entropy, store};
use std::net::SocketAddr;

/// The flags that they share.
#[derive(Args, Clone, Debug)]
pub struct Server {
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub domains: Domains,
    #[command(flatten)]
    pub edge: Edge,
    #[command(flatten)]
    pub secrets: Secrets,
    #[command(flatten)]
    pub database: Database,
    #[command(flatten)]
    pub tls: Tls,
    #[command(flatten)]
    pub events: EventsTo,
    #[command(flatten)]
    pub hep: HepTo,
    #[command(flatten)]
    pub metrics: MetricsAt,
    #[command(flatten)]
    pub rate: RateLimited,
    #[command(flatten)]
    pub drain: Drain,
    #[command(flatten)]
    pub log: Log,
}

/// Values of `--auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    Digest,
    None,
}

/// What a machine is made of.
pub struct Given {
    pub listeners: Vec<Listener>,
    /// Of `--domain`, in small letters.
    pub domains: Vec<String>,
    pub keys: Keys,
    pub rng: Rng,
}

/// A server that only wants its machine.
pub struct Started {
    bound: Vec<Bound>,
    database: store::Database,
    options: Options,
    /// Dropped last: it waits for the events that are queued.
    _events: Option<Writer>,
}

impl Server {
    /// Everything that can fail, in the order in which somebody would mend it. `listen`: where it serves without `--listen`;
    /// `trust`: who is, beside `--edge`, exempt from `--rate-limit`.
    pub fn start(
        &self,
        command: &'static str,
        listen: &str,
        trust: &[Cidr],
    ) -> Result<(Given, Started), Failure> {
        let clock = Clock::start();
        self.log.start(command, clock)?;
        let keys = Keys::new(&self.secrets.load()?)
            .ok_or_else(|| Failure::new(Code::Config, "--secret-file: no key in it; give it one a line"))?;
        let bound = self.listen.bind(&[Transport::Udp, Transport::Tcp, Transport::Tls], &[listen])?;
        let database = store::open(self.database.db.as_deref())?;
        let (events, writer) = self.events.open()?;
        let domains: Vec<String> =
            self.domains.domain.iter().map(|domain| domain.to_ascii_lowercase()).collect();
        let options = Options {
            drain: self.drain.duration(),
            events,
            hep: self.hep.open()?,
            dscp: self.listen.dscp,
            metrics_at: self.metrics.bind()?,
            tls: self.tls.settings(&bound, &domains)?,
            rate_limit: self.rate.limit([&self.edge.edge, trust].concat()),
            ..Options::new(command, clock)
        };
        let rng =
            entropy::rng().map_err(|error| Failure::new(Code::System, format!("random numbers: {error}")))?;
        let given = Given { listeners: listen::listeners(&bound), domains, keys, rng };
        Ok((given, Started { bound, database, options, _events: writer }))
    }
}

impl Started {
    /// For a server that connects to others.
    pub fn outward(mut self, flags: &Outward) -> Self {
        self.options.tls.insecure = flags.tls_insecure;
        self.options.dns.clone_from(&flags.dns);
        self
    }

    /// Until it is stopped. `relays`: addresses of ng relays by index.
    pub fn run(
        self,
        workers: &ConnectionWorkers,
        machine: impl Machine,
        relays: Vec<SocketAddr>,
    ) -> Result<(), Failure> {
        let services = Services { store: Some(Box::new(self.database)), relays };
        Ok(driver::run(workers.workers, machine, self.bound, services, self.options)?)
    }

    /// The same with a machine for each of `--workers`; `make` has its number and its own randomness.
    pub fn run_each<M: Machine>(
        self,
        workers: &Workers,
        make: impl Fn(u8, Rng) -> M + Sync,
        relays: Vec<SocketAddr>,
    ) -> Result<(), Failure> {
        let seeds: Vec<[u8; 32]> = (0..workers.workers)
            .map(|_| entropy::seed())
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::new(Code::System, format!("random numbers: {error}")))?;
        let Started { bound, database, options, _events } = self;
        let each = |number: u8| {
            let rng = Rng::from_entropy(seeds[usize::from(number)]);
            let services = Services { store: Some(Box::new(database.clone())), relays: relays.clone() };
            (make(number, rng), services)
        };
        Ok(driver::run_workers(workers.workers, each, bound, options)?)
    }
}
