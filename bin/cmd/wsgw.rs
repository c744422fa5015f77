//! `wsgw`: the edge for browsers. CONTRACT 5.

use super::Entry;
use super::wsgw_probe::Probe;
use crate::exit::Failure;
use clap::{ArgMatches, Args, Command, FromArgMatches};

pub const ENTRY: Entry = Entry { name: "wsgw", command, run, prose: "" };

fn command() -> Command {
    Command::new("wsgw")
        .about("The edge for browsers: SIP over WebSocket on one side, plain SIP on the other")
        .subcommand_required(true)
        .subcommand(Probe::augment_args(Command::new("probe")))
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("probe", matches)) => Probe::from_arg_matches(matches)
            .map_err(|error| Failure::new(crate::exit::Code::Usage, error.to_string()))?
            .run(),
        _ => Ok(()),
    }
}
