//! `presence`: who is there, told to who asks.

mod watch;

use super::Entry;
use super::server::{self, Server};
use crate::common::{ConnectionWorkers, Database, Outward, usage};
use crate::exit::{Code, Failure};
use crate::output::Output;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum};
use serde_json::json;
use sipbox_core::presence::{Auth, Config, Presence, document};
use sipbox_core::sip::Aor;
use sipbox_core::store::presence::{Package, Publication, Publish, Query, Reply, Subscription};
use sipbox_core::store::{self as tables, Error, Refusal};
use sipbox_io::clock::Clock;
use sipbox_io::store;
use std::time::Duration;

pub const ENTRY: Entry = Entry {
    name: "presence",
    command: || {
        Flags::augment_args(Command::new("presence"))
            .about("Tell watchers who is there: SUBSCRIBE, PUBLISH, NOTIFY")
            .args_conflicts_with_subcommands(true)
    },
    run,
    prose: include_str!("../../man/prose/presence.roff"),
};

/// The entity tag of what `presence publish` wrote: the next one takes its place.
const BY_HAND: &str = "sipbox-by-hand";

#[derive(Args, Clone, Debug)]
struct Flags {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Serve (the same as without a word)
    Serve(Box<Serve>),
    /// Print live subscriptions and publications, one JSON object a line
    List {
        /// Only those of this address-of-record
        aor: Option<String>,
        #[command(flatten)]
        database: Database,
    },
    /// Say by hand that somebody is there, or is not; for its time, beside what his phones say
    Publish {
        /// USER@DOMAIN
        aor: String,
        #[arg(value_enum)]
        basic: Basic,
        /// Words that his watchers read
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// How long it holds; 0 takes back what was said before
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        expires: u32,
        #[command(flatten)]
        database: Database,
    },
    /// Watch somebody, and print each state, one JSON object a line, until it is stopped
    Watch(watch::Watch),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Basic {
    Open,
    Closed,
}

#[derive(Args, Clone, Debug)]
struct Serve {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    outward: Outward,
    #[command(flatten)]
    workers: ConnectionWorkers,
    /// Whether passwords are asked for; never of --edge, where they were asked for already
    #[arg(long, value_enum, default_value_t = server::Auth::Digest)]
    auth: server::Auth,
    /// Refuse shorter subscriptions and publications with 423
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    min_expires: u32,
    /// Shorten longer ones
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..))]
    max_expires: u32,
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let flags = Flags::from_arg_matches(matches).map_err(|error| usage(error.to_string()))?;
    match flags.what {
        None => serve(flags.serve),
        Some(What::Serve(flags)) => serve(*flags),
        Some(What::List { aor, database }) => list(aor.as_deref(), &database),
        Some(What::Publish { aor, basic, note, expires, database }) => {
            publish(&aor, basic, note.as_deref(), expires, &database)
        }
        Some(What::Watch(watch)) => watch.run(),
    }
}

fn serve(flags: Serve) -> Result<(), Failure> {
    if flags.min_expires > flags.max_expires {
        return Err(usage("--min-expires is more than --max-expires; no subscription could succeed"));
    }
    let (given, started) = flags.server.start("presence", "udp:127.0.0.1:5060", &[])?;
    let config = Config {
        listeners: given.listeners,
        domains: given.domains,
        auth: match flags.auth {
            server::Auth::Digest => Auth::Digest,
            server::Auth::None => Auth::None,
        },
        min_expires: flags.min_expires,
        max_expires: flags.max_expires,
        edge: flags.server.edge.edge,
        keys: given.keys,
    };
    let machine = Presence::new(config, 0, given.rng);
    started.outward(&flags.outward).run(&flags.workers, machine, Vec::new())
}

fn user_at_domain(text: &str) -> Result<Aor, Failure> {
    match Aor::parse(text) {
        Some(aor) if !aor.user.is_empty() => Ok(aor),
        _ => Err(usage(format!("{text}: no address; give it as USER@DOMAIN"))),
    }
}

fn ask(database: &store::Database, query: Query) -> Result<Reply, Failure> {
    match database.ask_and_wait(tables::Query::Presence(query)) {
        Ok(tables::Reply::Presence(reply)) => Ok(reply),
        Ok(_) => Err(Failure::new(Code::Unavailable, "--db: it answered another question; try again")),
        Err(Error::Unavailable(why)) => {
            Err(Failure::new(Code::Unavailable, format!("--db: {why}; try again")))
        }
    }
}

fn list(aor: Option<&str>, database: &Database) -> Result<(), Failure> {
    let of = aor.map(user_at_domain).transpose()?;
    let database = store::open(database.db.as_deref())?;
    let now = Clock::start().now();
    let mut out = Output::new();
    if let Reply::Subscriptions(rows) = ask(&database, Query::Subscriptions { of: of.clone(), now })? {
        for row in &rows {
            out.record(&subscription(row))?;
        }
    }
    if let Reply::Publications(rows) = ask(&database, Query::Publications { of, now })? {
        for row in &rows {
            out.record(&publication(row))?;
        }
    }
    out.flush()
}

fn subscription(row: &Subscription) -> serde_json::Value {
    json!({
        "kind": "subscription",
        "presentity": row.presentity.to_string(),
        "package": row.package.as_str(),
        "watcher": row.watcher.to_string(),
        "contact": row.contact,
        "expires": row.expires.rfc3339(),
        "call_id": row.key.call_id,
        "user_agent": row.user_agent,
    })
}

fn publication(row: &Publication) -> serde_json::Value {
    let body = String::from_utf8_lossy(&row.body);
    json!({
        "kind": "publication",
        "presentity": row.presentity.to_string(),
        "package": row.package.as_str(),
        "basic": (row.package == Package::Presence).then(|| document::basic(&body)).flatten(),
        "sender": row.sender,
        "expires": row.expires.rfc3339(),
        "received": row.received.rfc3339(),
        "etag": row.etag,
        "body": body,
    })
}

/// Through the database: who serves it sees it at his next look.
fn publish(
    text: &str,
    basic: Basic,
    note: Option<&str>,
    expires: u32,
    database: &Database,
) -> Result<(), Failure> {
    let aor = user_at_domain(text)?;
    let database = store::open(database.db.as_deref())?;
    let now = Clock::start().now();
    let body = document::simple(&aor, "by-hand", basic == Basic::Open, note).into_bytes();
    if let Err(fault) = document::check(Package::Presence, &body) {
        return Err(Failure::new(Code::Data, format!("--note: {fault}; give it shorter, in plain words")));
    }
    if body.len() > sipbox_core::limits::PRESENCE_BYTES {
        return Err(Failure::new(Code::Data, "--note: too long; give it shorter"));
    }
    let publish = Publish {
        presentity: aor.clone(),
        package: Package::Presence,
        if_match: (expires == 0).then(|| BY_HAND.to_owned()),
        etag: BY_HAND.to_owned(),
        body: Some(body),
        expires: now + Duration::from_secs(expires.into()),
        now,
        sender: format!("sip:{aor}"),
    };
    match ask(&database, Query::Publish(Box::new(publish)))? {
        Reply::Refused(Refusal::NoSuchTag) => Err(Failure::new(
            Code::Failed,
            format!("{text}: nothing was published by hand; see 'presence list'"),
        )),
        Reply::Refused(Refusal::DoesNotFit) => Err(Failure::new(
            Code::Data,
            format!("{text}: too long for the database, or letters that it does not have"),
        )),
        Reply::Refused(_) => Err(Failure::new(
            Code::Failed,
            format!("{text}: too many publications already; see 'presence list {text}'"),
        )),
        _ => Ok(()),
    }
}
