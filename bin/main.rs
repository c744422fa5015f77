//! `sipbox`: one binary of many commands. Which one is told by the name of the link that it was started by
//! (`sipbox-proxy`, `proxy`), else by the first word.

mod cmd;
mod common;
mod environment;
mod exit;
mod output;
mod probe;
mod progress;

use clap::error::ErrorKind;
use clap::{ArgAction, Command};
use cmd::{COMMANDS, Entry};
use exit::{Code, Failure};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let (entry, name, rest) = match choose(&arguments) {
        Some(chosen) => chosen,
        None => return ExitCode::from(without_command(&arguments)),
    };
    let translated = match entry.name {
        "relay" => cmd::relay::translate(rest, Some(name)),
        _ => Ok(rest.to_vec()),
    };
    let rest = match translated {
        Ok(words) => words,
        Err(failure) => return ExitCode::from(failed(entry, &failure)),
    };
    let command = environment::bind((entry.command)(), entry.name, &rest)
        .name(entry.name)
        .bin_name(format!("sipbox {}", entry.name))
        .version(env!("CARGO_PKG_VERSION"))
        .no_binary_name(true);
    let result = match command.try_get_matches_from(&rest) {
        Ok(matches) => (entry.run)(&matches),
        Err(error) => return ExitCode::from(usage(&error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failed(entry, &failure)),
    }
}

/// Tells what went wrong. The exit code.
fn failed(entry: &Entry, failure: &Failure) -> u8 {
    if !failure.message.is_empty() {
        let _ = writeln!(std::io::stderr(), "sipbox {}: {}", entry.name, failure.message);
    }
    failure.code
}

/// The command, the name that it was called by, and the words that are its own.
fn choose(arguments: &[OsString]) -> Option<(&'static Entry, &str, &[OsString])> {
    let (first, rest) = arguments.split_first()?;
    let link = Path::new(first).file_name()?.to_str()?;
    let link = link.strip_prefix("sipbox-").unwrap_or(link);
    if let Some(entry) = cmd::find(link) {
        return Some((entry, link, rest));
    }
    let (word, rest) = rest.split_first()?;
    let word = word.to_str()?;
    Some((cmd::find(word)?, word, rest))
}

/// The flags of `sipbox` itself.
pub fn toplevel() -> Command {
    let mut command = Command::new("sipbox")
        .about("SIP and WebRTC telephony in composable commands")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_value_name("COMMAND")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .after_help(
            "sipbox COMMAND --help tells more. A link named sipbox-COMMAND or COMMAND is that command.\n\
             Each flag has an environment variable: SIPBOX_COMMAND_FLAG.",
        )
        .arg(clap::arg!(--list "List the commands, one a line").action(ArgAction::SetTrue).exclusive(true));
    for entry in COMMANDS {
        command = command.subcommand((entry.command)().name(entry.name));
    }
    command
}

/// `--list`, `--help`, `--version`, or a mistake. The exit code.
fn without_command(arguments: &[OsString]) -> u8 {
    if arguments.get(1).is_some_and(|word| word == "--list") {
        let mut out = output::Output::new();
        let result = COMMANDS
            .iter()
            .try_for_each(|entry| out.text(&format!("{}\n", entry.name)))
            .and_then(|()| out.flush());
        return result.err().map_or(0, |failure: Failure| failure.code);
    }
    match toplevel().try_get_matches_from(arguments) {
        Ok(_) => 0,
        Err(error) => usage(&error),
    }
}

/// Help and version go to standard output and are no failure; anything else is usage.
fn usage(error: &clap::Error) -> u8 {
    let printed = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            printed.err().map_or(0, |error| Failure::from(error).code)
        }
        _ => Code::Usage as u8,
    }
}
