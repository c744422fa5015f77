//! `sdp-rewrite`: the relay's rewriter as a filter, and what else there is to know about an SDP.
//!
//! In: SDPs, SIP messages, ng dictionaries (bencode, JSON, or the loose JSON of a log's dump), JSON objects with a field `sdp`.
//! Out: the same kind, or findings. Here are the flags, and which part of the command they mean.
//! Not here: what is rewritten and how (`sipbox_core::rewrite`), how a stream is cut (`sipbox_core::inputs`).

mod anonymise;
mod check;
mod compare;
mod extract;
mod filter;
mod source;
mod supply;

use super::Entry;
use crate::common::usage;
use crate::exit::{Code, Failure};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, FromArgMatches, ValueEnum};
use filter::Filter;
use sipbox_core::anonymise::Anonymiser;
use sipbox_core::check::{Context, Reader, Rule};
use sipbox_core::inputs::Place;
use sipbox_core::ng::{self, Dict, Flags};
use sipbox_core::rng::Rng;
use sipbox_core::sdp::Fingerprint;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use supply::Pinned;

pub const ENTRY: Entry = Entry {
    name: "sdp-rewrite",
    command: || {
        Args::augment_args(Command::new("sdp-rewrite"))
            .about("Rewrite SDPs between SIP and WebRTC as the relay does")
    },
    run,
    prose: include_str!("../../man/prose/sdp-rewrite.roff"),
};

/// The flags of ng that `--to` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    Webrtc,
    Sip,
}

/// What `-o` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Text,
    Json,
    Sdp,
}

#[derive(clap::Args)]
struct Args {
    /// What to read; '-' or nothing is standard input
    file: Vec<PathBuf>,
    /// Whom the result is for: sets the flags that the relay is given for him
    #[arg(long, value_name = "PEER", value_enum)]
    to: Option<To>,
    /// force, remove or default (force-relay and optional are as force)
    #[arg(long = "ICE", value_name = "VALUE")]
    ice: Option<String>,
    /// off, passive, active or default
    #[arg(long = "DTLS", value_name = "VALUE")]
    dtls: Option<String>,
    /// off, nonew, pad, lifetime, static, only-SUITE, no-SUITE, order:SUITE;SUITE
    #[arg(long = "SDES", value_name = "LIST")]
    sdes: Option<String>,
    /// RTP/AVP, RTP/AVPF, RTP/SAVP, RTP/SAVPF, UDP/TLS/RTP/SAVP or UDP/TLS/RTP/SAVPF
    #[arg(long, value_name = "PROFILE")]
    transport_protocol: Option<String>,
    /// offer, require, demux, accept, reject
    #[arg(long, value_name = "LIST")]
    rtcp_mux: Option<String>,
    /// Flags of ng, in place of those of --to: generate-mid, trust-address, strip-browser, codec-strip-opus …
    ///
    /// Among them any other key of ng as KEY=VALUE or KEY-VALUE (ptime=20, ICE-lite-forward). Or a JSON dictionary of keys:
    /// '{"sdp-attr": {"audio": {"add": ["ptime:20"]}}}'. sipbox-relay(1) lists them all.
    #[arg(long, value_name = "LIST")]
    flags: Option<String>,
    /// origin, session-connection, username, session-name, SDP-version, origin-full, zero-address
    #[arg(long, value_name = "LIST")]
    replace: Option<String>,
    /// The input is an answer to the SDP in this file
    #[arg(long, value_name = "OFFER")]
    answers: Option<PathBuf>,
    /// The address of the relay that is put in; once for each address family
    #[arg(long, value_name = "ADDRESS")]
    media_address: Vec<IpAddr>,
    /// The first RTP port of the relay; RTCP is on the next one, and so on for further m-lines
    #[arg(long, value_name = "PORT", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..65_535))]
    port: u16,
    /// The certificate's: 'sha-256 AB:CD:…' [default: random]
    #[arg(long, value_name = "HASH DIGEST", value_parser = fingerprint)]
    fingerprint: Option<Fingerprint>,
    /// The ICE user fragment that is put in [default: random]
    #[arg(long, value_name = "TEXT")]
    ufrag: Option<String>,
    /// The ICE password that is put in [default: random]
    #[arg(long, value_name = "TEXT")]
    pwd: Option<String>,
    /// The foundation of the ICE candidates that are put in [default: random]
    #[arg(long, value_name = "TEXT")]
    foundation: Option<String>,
    /// Makes all that is random the same in each run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Say what is wrong, a line a finding, and rewrite nothing; --to and --answers tell what to judge it as
    #[arg(long, group = "mode")]
    check: bool,
    /// With --check: pass over this kind of finding, by the name in its brackets
    #[arg(long, value_name = "CODE", value_parser = rule, requires = "check")]
    allow: Vec<Rule>,
    /// Say what an offer and its answer negotiated, and what breaks the rules
    #[arg(long, num_args = 2, value_names = ["OFFER", "ANSWER"], group = "mode", conflicts_with = "file")]
    pair: Vec<PathBuf>,
    /// Say what differs in meaning between two, whatever the order of their lines and what is drawn anew
    #[arg(long, num_args = 2, value_names = ["A", "B"], group = "mode", conflicts_with = "file")]
    diff: Vec<PathBuf>,
    /// Put other names, addresses, keys and tags in, the same for the same, and rewrite nothing
    #[arg(long, group = "mode")]
    anonymise: bool,
    /// Stop at the first that is bad; else it is told, and the rest goes on
    #[arg(long)]
    strict: bool,
    /// Say on standard error which lines were taken out for the receiver's sake
    #[arg(short, long, conflicts_with = "mode")]
    verbose: bool,
    /// sdp or json: the SDP alone in that form, and without a flag that says how to rewrite it, as it is; text or json: how
    /// findings are written
    #[arg(short, long, value_name = "FORM", value_enum)]
    output: Option<Form>,
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    let text = if text.contains(' ') { text.to_owned() } else { format!("sha-256 {text}") };
    Fingerprint::parse(&text).filter(|f| !f.digest.is_empty()).ok_or("want 'sha-256 AB:CD:…'".to_owned())
}

fn rule(code: &str) -> Result<Rule, String> {
    Rule::by_code(code).ok_or_else(|| {
        let all: Vec<&str> = Rule::ALL.iter().map(|rule| rule.text().code).collect();
        format!("one of {}", all.join(", "))
    })
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let args = Args::from_arg_matches(matches).map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
    let of_findings = args.check || !args.pair.is_empty() || !args.diff.is_empty();
    match args.output {
        Some(Form::Sdp) if of_findings => return Err(usage("-o sdp: findings are text or json")),
        Some(Form::Text) if !of_findings => return Err(usage("-o text: an SDP is sdp or json")),
        Some(_) if args.anonymise => return Err(usage("-o: --anonymise writes what it reads")),
        Some(_) | None => {}
    }
    args.means_something(matches)?;
    if args.check {
        return args.check();
    }
    if !args.pair.is_empty() {
        return compare::pairs(&args.pair, args.output);
    }
    if !args.diff.is_empty() {
        return compare::diffs(&args.diff, args.output);
    }
    if args.anonymise {
        let mut anonymise = anonymise::Anonymise::new(Anonymiser::new(&mut args.rng()?), args.strict);
        let unread = source::each(&args.file, args.strict, &mut anonymise)?;
        anonymise.finish()?;
        return unread.map_or(Ok(()), Err);
    }
    let flags = args.to_flags().map_err(|reason| Failure::new(Code::Usage, format!("--{reason}")))?;
    let answers = match &args.answers {
        Some(path) => Some(description_in(path)?.0),
        None => None,
    };
    let converts_only =
        flags == Flags::default() && args.to.is_none() && answers.is_none() && args.pins_nothing();
    let supply = args.supply()?;
    let mut filter = Filter::new(flags, answers, supply, args.strict)
        .map_err(|refusal| Failure::new(Code::Data, format!("--answers: {refusal}")))?
        .with_form(args.output, converts_only)
        .telling_cuts(args.verbose);
    let unread = source::each(&args.file, args.strict, &mut filter)?;
    filter.finish()?;
    unread.map_or(Ok(()), Err)
}

/// The first SDP of a file, alone or in whatever carries it, and the line that it begins in.
fn description_in(path: &Path) -> Result<(Vec<u8>, u64), Failure> {
    source::first(path, |item| match extract::description(item)? {
        Some(description) => Ok((description.sdp.into_owned(), description.line)),
        None => Err("a message without an SDP".to_owned()),
    })
}

/// `FILE:LINE: what (which one in the stream, and where)`
fn place(file: &str, place: &Place, reason: impl std::fmt::Display) -> String {
    format!("{file}:{}: {reason} (number {}, byte {})", place.line, place.number, place.at)
}

/// What was passed over; each is told, the last with the exit code.
struct Bad {
    strict: bool,
    last: Option<String>,
}

impl Bad {
    const fn new(strict: bool) -> Bad {
        Bad { strict, last: None }
    }

    fn add(&mut self, message: String) -> Result<(), Failure> {
        if self.strict {
            return Err(Failure::new(Code::Data, message));
        }
        if let Some(before) = self.last.replace(message) {
            crate::progress::tell(&format!("sipbox sdp-rewrite: {before}"));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.last.take().map_or(Ok(()), |last| Err(Failure::new(Code::Data, last)))
    }
}

/// What only rewriting asks for.
const OF_REWRITING: [&str; 13] = [
    "ICE",
    "DTLS",
    "SDES",
    "transport-protocol",
    "rtcp-mux",
    "flags",
    "replace",
    "media-address",
    "port",
    "fingerprint",
    "ufrag",
    "pwd",
    "foundation",
];

impl Args {
    /// Refuses on the command line what would be ignored; the environment is for all runs, and may say more than this one needs.
    fn means_something(&self, matches: &ArgMatches) -> Result<(), Failure> {
        let (mode, more): (_, &[&str]) = match (self.check, self.anonymise, self.pair.is_empty()) {
            (true, _, _) => ("--check", &["seed"]),
            (_, true, _) => ("--anonymise", &["to", "answers"]),
            (_, _, false) => ("--pair", &["to", "answers", "seed", "strict"]),
            _ if !self.diff.is_empty() => ("--diff", &["to", "answers", "seed", "strict"]),
            _ => return Ok(()),
        };
        let given = |name: &&&str| {
            let id = name.replace('-', "_").to_ascii_lowercase();
            matches.value_source(&id) == Some(ValueSource::CommandLine)
        };
        match OF_REWRITING.iter().chain(more).find(given) {
            Some(name) => Err(usage(format!("--{name}: {mode} has no use for it; leave it out"))),
            None => Ok(()),
        }
    }

    /// `--check`: as what it is judged is what it would be rewritten to.
    fn check(self) -> Result<(), Failure> {
        let reader = match self.to {
            Some(To::Webrtc) => Reader::Browser,
            Some(To::Sip) => Reader::Phone,
            None => Reader::Claimed,
        };
        let context = Context { reader, is_answer: self.answers.is_some() };
        let as_json = self.output == Some(Form::Json);
        let mut check = check::Check::new(context, self.allow, as_json, self.strict);
        let unread = source::each(&self.file, self.strict, &mut check)?;
        check.finish()?;
        unread.map_or(Ok(()), Err)
    }

    /// The flags of `--to`, each overridden by what is given by its name.
    fn to_flags(&self) -> Result<Flags, String> {
        let mut dict = match self.to {
            Some(To::Webrtc) => Dict::new()
                .with("DTLS", "passive")
                .with("ICE", "force")
                .with("SDES", "off")
                .with("transport-protocol", "RTP/SAVPF")
                .with("rtcp-mux", "offer")
                .with("flags", "generate-mid")
                .with("replace", "origin,session-connection"),
            Some(To::Sip) => Dict::new()
                .with("DTLS", "off")
                .with("ICE", "remove")
                .with("SDES", "off")
                .with("transport-protocol", "RTP/AVP")
                .with("rtcp-mux", "demux")
                .with("flags", "trust-address,strip-browser")
                .with("replace", "origin,session-connection"),
            None => Dict::new(),
        };
        // An answer has the transport of its offer, unless one is asked for by name.
        if self.answers.is_some() {
            dict = dict
                .iter()
                .filter(|(key, _)| *key != "transport-protocol")
                .map(|(k, v)| (k.to_owned(), v.clone()))
                .collect();
        }
        for (key, value) in [
            ("ICE", &self.ice),
            ("DTLS", &self.dtls),
            ("SDES", &self.sdes),
            ("transport-protocol", &self.transport_protocol),
            ("rtcp-mux", &self.rtcp_mux),
            ("replace", &self.replace),
        ] {
            if let Some(value) = value {
                dict.set(key, value);
            }
        }
        match &self.flags {
            Some(json) if json.trim_start().starts_with('{') => {
                let (_, given) = ng::decode(json.as_bytes()).map_err(|error| format!("flags: {error}"))?;
                for (key, value) in given.iter() {
                    if ng::OF_REQUEST.contains(&key.replace(' ', "-").as_str()) {
                        return Err(format!("flags: {key}: says whose SDP it is, and changes none"));
                    }
                    dict.set(key, value.clone());
                }
            }
            Some(words) => dict.set("flags", words),
            None => {}
        }
        let flags = Flags::parse(&dict)?;
        match flags.ignored.first() {
            Some(word) if word.contains('=') => Err(format!("{word}: not a value that is known here")),
            Some(word) => Err(format!("flags={word}: not a flag that is known here")),
            None => Ok(flags),
        }
    }

    fn rng(&self) -> Result<Rng, Failure> {
        Ok(match self.seed {
            Some(seed) => Rng::from_seed(seed),
            None => Rng::from_entropy(sipbox_io::entropy::seed()?),
        })
    }

    /// Nothing of a relay's is given: an SDP that is only to change its form stays as it is.
    fn pins_nothing(&self) -> bool {
        let pinned = [&self.ufrag, &self.pwd, &self.foundation].iter().any(|pinned| pinned.is_some());
        !pinned && self.media_address.is_empty() && self.fingerprint.is_none()
    }

    fn supply(&self) -> Result<Pinned, Failure> {
        let mut rng = self.rng()?;
        let fingerprint = self.fingerprint.clone().unwrap_or_else(|| {
            let mut digest = vec![0; 32];
            rng.fill(&mut digest);
            Fingerprint { hash: "sha-256".to_owned(), digest }
        });
        let foundation = self.foundation.clone().unwrap_or_else(|| rng.token(16));
        let addresses = self.media_address.clone();
        Ok(Pinned {
            addresses,
            first_port: self.port,
            port: self.port,
            fingerprint,
            foundation,
            ufrag: self.ufrag.clone(),
            pwd: self.pwd.clone(),
            rng,
        })
    }
}
