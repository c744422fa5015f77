//! Asks DNS what a search wants to know (`core::resolve` has the order).
//!
//! hickory: its cache keeps each answer for its TTL, and a "no such name" for as long as the zone says. Searches are bounded
//! in number, and each question in time, so that a DNS that does not answer holds up nobody but those who ask for it. One for
//! each worker, on its runtime. The system's servers and hosts file, or `--dns`.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use sipbox_core::flow::Transport;
use sipbox_core::limits::{DNS_SEARCHES, RESOLVED_HOPS};
use sipbox_core::resolve::{Hop, Naptr, Query, Records, Search, Srv, Step, Wanted};
use sipbox_core::rng::Rng;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// Until a question is asked again; with [`ATTEMPTS`], within a machine's patience.
const TIMEOUT: Duration = Duration::from_millis(1200);
const ATTEMPTS: usize = 2;
/// Answers that are kept.
const CACHE: u64 = 8192;
/// A name that was not there is asked for again after that, whatever its zone says: it may have been just made.
const MISSING: Duration = Duration::from_secs(30);

/// A worker's resolver.
#[derive(Clone)]
pub struct Dns(Rc<Inner>);

struct Inner {
    servers: Vec<SocketAddr>,
    /// Made when the first name is asked for: not every server asks for one. None: the system has no configuration for
    /// it, so nothing is found.
    resolver: OnceCell<Option<TokioResolver>>,
    rng: RefCell<Rng>,
    searches: Cell<usize>,
}

/// Counts a search while it lasts.
struct Underway(Rc<Inner>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.searches.set(self.0.searches.get() - 1);
    }
}

impl Dns {
    /// `servers`: in place of the system's.
    pub fn new(servers: Vec<SocketAddr>, rng: Rng) -> Self {
        let (resolver, rng, searches) = (OnceCell::new(), RefCell::new(rng), Cell::new(0));
        Dns(Rc::new(Inner { servers, resolver, rng, searches }))
    }

    fn resolver(&self) -> Option<&TokioResolver> {
        let make = || match resolver(&self.0.servers) {
            Ok(resolver) => Some(resolver),
            Err(error) => {
                tracing::warn!(%error, mend = "mend /etc/resolv.conf, or give --dns", "no-dns: names are not found");
                None
            }
        };
        self.0.resolver.get_or_init(make).as_ref()
    }

    fn begin(&self) -> Option<Underway> {
        let count = self.0.searches.get();
        (count < DNS_SEARCHES).then(|| {
            self.0.searches.set(count + 1);
            Underway(self.0.clone())
        })
    }

    /// The servers of a URI, in the order in which they are to be tried.
    pub async fn locate(&self, wanted: Wanted, can: &[Transport]) -> Vec<Hop> {
        let Some(_underway) = self.begin() else { return Vec::new() };
        let mut search = Search::new(wanted, can);
        loop {
            match search.step() {
                Step::Done(hops) => return hops,
                Step::Ask(query) => {
                    let records = self.ask(query).await;
                    search.answer(&mut self.0.rng.borrow_mut(), records);
                }
            }
        }
    }

    /// The addresses of a host.
    pub async fn addresses(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        let Some(_underway) = self.begin() else { return Vec::new() };
        match self.ask(Query::Addresses(host.to_owned())).await {
            Records::Addresses(found) => found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(),
            Records::Naptr(_) | Records::Srv(_) => Vec::new(),
        }
    }

    async fn ask(&self, query: Query) -> Records {
        match query {
            Query::Naptr(name) => {
                let found = self.lookup(&name, RecordType::NAPTR).await;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Records::Naptr(
                    found
                        .into_iter()
                        .filter_map(|data| match data {
                            RData::NAPTR(naptr) => Some(Naptr {
                                order: naptr.order,
                                preference: naptr.preference,
                                flags: text(&naptr.flags),
                                services: text(&naptr.services),
                                replacement: naptr.replacement.to_ascii(),
                            }),
                            _ => None,
                        })
                        .collect(),
                )
            }
            Query::Srv(name) => {
                let found = self.lookup(&name, RecordType::SRV).await;
                Records::Srv(
                    found
                        .into_iter()
                        .filter_map(|data| match data {
                            RData::SRV(srv) => Some(Srv {
                                priority: srv.priority,
                                weight: srv.weight,
                                port: srv.port,
                                target: srv.target.to_ascii(),
                            }),
                            _ => None,
                        })
                        .collect(),
                )
            }
            Query::Addresses(name) => {
                let Some(resolver) = self.resolver() else { return Records::Addresses(Vec::new()) };
                let found = resolver.lookup_ip(name.as_str()).await;
                Records::Addresses(match found {
                    Ok(found) => found.iter().take(RESOLVED_HOPS).collect(),
                    Err(_) => Vec::new(),
                })
            }
        }
    }

    /// Services are absolute names: no search list makes sense of them.
    async fn lookup(&self, name: &str, kind: RecordType) -> Vec<RData> {
        let (Some(resolver), Ok(mut name)) = (self.resolver(), Name::from_ascii(name)) else {
            return Vec::new();
        };
        name.set_fqdn(true);
        match resolver.lookup(name, kind).await {
            Ok(found) => found.answers().iter().map(|record| record.data.clone()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            config
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    options(builder.options_mut());
    builder.build()
}

fn options(options: &mut ResolverOpts) {
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.cache_size = CACHE;
    options.negative_max_ttl = Some(MISSING);
    options.max_active_requests = DNS_SEARCHES;
}
