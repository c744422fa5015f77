//! `registrar`: who may be reached where.

use super::Entry;
use super::server::{self, Server};
use crate::common::{Database, Workers, usage};
use crate::exit::{Code, Failure};
use crate::output::Output;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use serde_json::json;
use sipbox_core::auth::digest;
use sipbox_core::registrar::{Auth, Config, Registrar};
use sipbox_core::sip::Aor;
use sipbox_core::store::{Binding, Error, Query, Refusal, Reply, Secret};
use sipbox_io::clock::Clock;
use sipbox_io::store;
use std::io::{IsTerminal, Read, Write};

pub const ENTRY: Entry = Entry {
    name: "registrar",
    command: || {
        Flags::augment_args(Command::new("registrar"))
            .about("Answer REGISTER, and keep who is reached where")
            .args_conflicts_with_subcommands(true)
    },
    run,
    prose: include_str!("../../man/prose/registrar.roff"),
};

/// Longest password on standard input.
const PASSWORD_BYTES: u64 = 1024;

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
    /// Users, and what their passwords are checked against
    User {
        #[command(subcommand)]
        what: User,
    },
    /// Print the live bindings, one JSON object a line
    Contacts {
        /// Only those of this address-of-record
        aor: Option<String>,
        #[command(flatten)]
        database: Database,
    },
    /// Remove bindings
    Expire {
        /// An address-of-record, for all its bindings, or one Contact URI as `contacts` prints it
        #[arg(value_name = "AOR|CONTACT")]
        which: String,
        #[command(flatten)]
        database: Database,
    },
}

#[derive(Subcommand, Clone, Debug)]
enum User {
    /// Add a user
    Add(WithPassword),
    /// Change a user's password
    Passwd(WithPassword),
    /// Remove a user and his bindings
    Del {
        /// USER@DOMAIN
        aor: String,
        #[command(flatten)]
        database: Database,
    },
    /// Print the users, one JSON object a line
    List {
        /// USER@DOMAIN, or a DOMAIN for all its users
        aor: Option<String>,
        #[command(flatten)]
        database: Database,
    },
}

#[derive(Args, Clone, Debug)]
struct WithPassword {
    /// USER@DOMAIN
    aor: String,
    /// Read the password from standard input (its first line)
    #[arg(long)]
    password_stdin: bool,
    /// The realm that the registrar challenges with [default: the domain]
    #[arg(long, value_name = "NAME")]
    realm: Option<String>,
    #[command(flatten)]
    database: Database,
}

#[derive(Args, Clone, Debug)]
struct Serve {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    workers: Workers,
    /// Realm of the challenge [default: the domain of the address-of-record]
    #[arg(long, value_name = "NAME")]
    realm: Option<String>,
    /// Whether passwords are asked for
    #[arg(long, value_enum, default_value_t = server::Auth::Digest)]
    auth: server::Auth,
    /// Refuse shorter registrations with 423
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    min_expires: u32,
    /// Shorten longer registrations
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    max_expires: u32,
    /// For who asks for no time
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    default_expires: u32,
    /// Of one address-of-record; the oldest makes room
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    max_contacts: u16,
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let flags = Flags::from_arg_matches(matches).map_err(|error| usage(error.to_string()))?;
    match flags.what {
        None => serve(flags.serve),
        Some(What::Serve(serve_flags)) => serve(*serve_flags),
        Some(What::User { what }) => match what {
            User::Add(with) => {
                let (query, open) =
                    with.query(|user, domain, secret| Query::UserAdd { user, domain, secret })?;
                done(&open, query, &with.aor)
            }
            User::Passwd(with) => {
                let (query, open) =
                    with.query(|user, domain, secret| Query::UserPassword { user, domain, secret })?;
                done(&open, query, &with.aor)
            }
            User::Del { aor, database } => {
                let Aor { user, domain } = user_at_domain(&aor)?;
                done(&store::open(database.db.as_deref())?, Query::UserRemove { user, domain }, &aor)
            }
            User::List { aor, database } => list_users(aor.as_deref(), &database),
        },
        Some(What::Contacts { aor, database }) => {
            let aor = aor.as_deref().map(user_at_domain).transpose()?;
            let now = Clock::start().now();
            let mut out = Output::new();
            if let Reply::Contacts(rows) = ask(&database, Query::Contacts { aor, now })? {
                for (aor, binding) in &rows {
                    out.record(&record(aor, binding))?;
                }
            }
            out.flush()
        }
        Some(What::Expire { which, database }) => {
            let now = Clock::start().now();
            let query = match user_at_domain(&which) {
                // A Contact is a URI; an address-of-record may be written as one too, and comes first.
                Ok(aor) if !which.contains(';') => {
                    match ask(&database, Query::RemoveBindings { aor, now })? {
                        Reply::Removed(rows) if !rows.is_empty() => return removed(&rows),
                        _ => Query::RemoveContact { contact: which.clone(), now },
                    }
                }
                _ => Query::RemoveContact { contact: which.clone(), now },
            };
            match ask(&database, query)? {
                Reply::Removed(rows) if !rows.is_empty() => removed(&rows),
                _ => {
                    Err(Failure::new(Code::Failed, format!("{which}: no binding; see 'registrar contacts'")))
                }
            }
        }
    }
}

fn serve(flags: Serve) -> Result<(), Failure> {
    if flags.min_expires > flags.max_expires {
        return Err(usage("--min-expires is more than --max-expires; no registration could succeed"));
    }
    let (given, started) = flags.server.start("registrar", "udp:127.0.0.1:5060", &[])?;
    let config = Config {
        listeners: given.listeners,
        domains: given.domains,
        realm: flags.realm,
        auth: match flags.auth {
            server::Auth::Digest => Auth::Digest,
            server::Auth::None => Auth::None,
        },
        min_expires: flags.min_expires,
        max_expires: flags.max_expires,
        default_expires: flags.default_expires,
        max_contacts: usize::from(flags.max_contacts),
        edge: flags.server.edge.edge,
        keys: given.keys,
    };
    started.run_each(&flags.workers, |worker, rng| Registrar::new(config.clone(), worker, rng), Vec::new())
}

impl WithPassword {
    fn query(&self, make: fn(String, String, Secret) -> Query) -> Result<(Query, store::Database), Failure> {
        let Aor { user, domain } = user_at_domain(&self.aor)?;
        let password = password(self.password_stdin)?;
        let realm = self.realm.as_deref().unwrap_or(&domain);
        let secret = digest::secret(&user, &domain, realm, &password);
        Ok((make(user, domain, secret), store::open(self.database.db.as_deref())?))
    }
}

/// From standard input; a person at a terminal is asked, and does not see what he types.
fn password(from_stdin: bool) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let text = if from_stdin || !stdin.is_terminal() {
        let mut text = String::new();
        stdin
            .lock()
            .take(PASSWORD_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| Failure::new(Code::Io, format!("standard input: {error}")))?;
        text
    } else {
        let _ = write!(std::io::stderr(), "Password: ");
        let _ = std::io::stderr().flush();
        let text = without_echo(|| {
            let mut text = String::new();
            stdin.read_line(&mut text).map(|_| text)
        })
        .map_err(|error| Failure::new(Code::Io, format!("standard input: {error}")))?;
        let _ = writeln!(std::io::stderr());
        text
    };
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(Failure::new(Code::Data, "no password on standard input; give it as one line")),
    }
}

/// Runs `read` while the terminal on standard input shows nothing.
fn without_echo<T>(read: impl FnOnce() -> T) -> T {
    // SAFETY: termios is plain data, filled in by tcgetattr before it is used; descriptor 0 is open.
    let before = unsafe {
        let mut terminal: libc::termios = std::mem::zeroed();
        (libc::tcgetattr(0, &mut terminal) == 0).then_some(terminal)
    };
    if let Some(mut quiet) = before {
        quiet.c_lflag &= !libc::ECHO;
        // SAFETY: as above.
        unsafe { libc::tcsetattr(0, libc::TCSANOW, &quiet) };
    }
    let result = read();
    if let Some(before) = before {
        // SAFETY: as above.
        unsafe { libc::tcsetattr(0, libc::TCSANOW, &before) };
    }
    result
}

fn user_at_domain(text: &str) -> Result<Aor, Failure> {
    match Aor::parse(text) {
        Some(aor) if !aor.user.is_empty() => Ok(aor),
        _ => Err(usage(format!("{text}: no address; give it as USER@DOMAIN"))),
    }
}

fn unavailable(error: Error) -> Failure {
    match error {
        Error::Unavailable(why) => Failure::new(Code::Unavailable, format!("--db: {why}; try again")),
    }
}

fn ask(database: &Database, query: Query) -> Result<Reply, Failure> {
    store::open(database.db.as_deref())?.ask_and_wait(query).map_err(unavailable)
}

fn done(database: &store::Database, query: Query, aor: &str) -> Result<(), Failure> {
    match database.ask_and_wait(query).map_err(unavailable)? {
        Reply::Refused(Refusal::UserExists) => Err(Failure::new(
            Code::Failed,
            format!("{aor}: there is such a user; 'registrar user passwd' changes his password"),
        )),
        Reply::Refused(Refusal::DoesNotFit) => Err(Failure::new(
            Code::Data,
            format!(
                "{aor}: too long for the database, or letters that it does not have; choose another name"
            ),
        )),
        Reply::Refused(_) => {
            Err(Failure::new(Code::Failed, format!("{aor}: no such user; see 'registrar user list'")))
        }
        _ => Ok(()),
    }
}

fn list_users(aor: Option<&str>, database: &Database) -> Result<(), Failure> {
    let of = match aor {
        None => None,
        Some(text) => Some(
            Aor::parse(text)
                .ok_or_else(|| usage(format!("{text}: no address; give it as USER@DOMAIN or DOMAIN")))?,
        ),
    };
    let mut out = Output::new();
    if let Reply::Users(users) = ask(database, Query::Users { of })? {
        for user in users {
            out.record(&json!({"aor": user.to_string(), "user": user.user, "domain": user.domain}))?;
        }
    }
    out.flush()
}

fn removed(rows: &[(Aor, Binding)]) -> Result<(), Failure> {
    let mut out = Output::new();
    for (aor, binding) in rows {
        out.record(&record(aor, binding))?;
    }
    out.flush()
}

fn record(aor: &Aor, binding: &Binding) -> serde_json::Value {
    json!({
        "aor": aor.to_string(),
        "contact": binding.contact,
        "received": binding.received,
        "path": binding.path,
        "expires": binding.expires.rfc3339(),
        "q": binding.q.map(|q| f64::from(q) / 1000.0),
        "call_id": binding.call_id,
        "cseq": binding.cseq,
        "modified": binding.modified.rfc3339(),
        "user_agent": binding.user_agent,
        "instance": binding.instance,
        "reg_id": (binding.reg_id > 0).then_some(binding.reg_id),
    })
}
