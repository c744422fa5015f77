//! The commands: one thin file each, that turns flags into a machine and its sockets. A command stands in this table
//! when it works, and is then listed, run, and has its man page and completions.

use crate::exit::Failure;
use clap::{ArgMatches, Command};

/// One command.
pub struct Entry {
    pub name: &'static str,
    /// Its flags; the first line of its `about` is what `--list` shows.
    pub command: fn() -> Command,
    pub run: fn(&ArgMatches) -> Result<(), Failure>,
    /// Prose for the man page after the options, in roff: `man/prose/COMMAND.roff`.
    pub prose: &'static str,
}

/// In the order of a call's way through them.
pub static COMMANDS: &[Entry] = &[
    registrar::ENTRY,
    proxy::ENTRY,
    wsgw::ENTRY,
    presence::ENTRY,
    relay::ENTRY,
    sdp_rewrite::ENTRY,
    siptrace::ENTRY,
    mos_report::ENTRY,
    generate::ENTRY,
];

pub mod generate;
mod mos_report;
mod presence;
pub mod proxy;
pub mod registrar;
pub mod relay;
mod sdp_rewrite;
mod server;
mod siptrace;
pub mod wsgw;
mod wsgw_probe;

/// The command of this name; the relay also stands in for rtpengine.
pub fn find(name: &str) -> Option<&'static Entry> {
    let name = if name == "rtpengine" { "relay" } else { name };
    COMMANDS.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group of flags that is flattened into a command puts its own words in the place of the command's, unless
    /// `about` comes after.
    #[test]
    fn every_command_says_what_it_does() {
        for entry in COMMANDS {
            let about = (entry.command)().get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.starts_with(|c: char| c.is_ascii_uppercase()), "{}: {about:?}", entry.name);
        }
    }
}
