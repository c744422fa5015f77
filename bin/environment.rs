//! Each flag's environment variables.
//!
//! `--listen` of `proxy` is `SIPBOX_PROXY_LISTEN`, and, as a flag that servers share, also `SIPBOX_LISTEN`; the
//! command's own one wins, and the command line wins over both. A variable that is set to nothing is not set. In a
//! variable the values of a flag that may be repeated are separated by spaces.

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command};
use std::ffi::OsString;

/// The flags of every server (`common`), which mean the same for each.
const SHARED: &[&str] = &[
    "listen",
    "advertise",
    "dscp",
    "local-net",
    "edge",
    "secret-file",
    "domain",
    "db",
    "durability",
    "tls-cert",
    "tls-key",
    "tls-self-signed",
    "tls-min",
    "tls-ca",
    "tls-verify",
    "tls-insecure",
    "metrics",
    "hep",
    "events",
    "rate-limit",
    "log",
    "verbose",
    "quiet",
    "workers",
    "drain",
];

/// Binds the flags of `command` and of all its subcommands. `arguments` is the command line: a flag that stands there
/// keeps its values as they were typed, spaces and all.
pub fn bind(command: Command, name: &str, arguments: &[OsString]) -> Command {
    command
        .mut_args(|arg| bind_one(arg, name, arguments))
        .mut_subcommands(|subcommand| bind(subcommand, name, arguments))
}

fn bind_one(arg: Arg, name: &str, arguments: &[OsString]) -> Arg {
    let Some(flag) = arg.get_long().map(str::to_owned) else { return arg };
    let Some(variable) = names(&flag, name).into_iter().find(|variable| is_set(variable)) else { return arg };
    let arg = match arg.get_action() {
        // 1, yes, on … as people write them in unit files.
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        ArgAction::Append if !is_typed(&flag, arguments) => arg.value_delimiter(' '),
        _ => arg,
    };
    // clap wants the name for the rest of the process, and the process has one command line. Values stay out of
    // --help: one of them may be a password.
    arg.env(&*variable.leak()).hide_env(true)
}

/// The variables of one flag, the one that wins first.
pub fn names(flag: &str, command: &str) -> Vec<String> {
    if flag == "help" || flag == "version" {
        return Vec::new();
    }
    let mut names = vec![variable(&format!("{command}-{flag}"))];
    if SHARED.contains(&flag) {
        names.push(variable(flag));
    }
    names
}

/// `sdp-rewrite-to` → `SIPBOX_SDP_REWRITE_TO`.
fn variable(words: &str) -> String {
    let upper = words.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() });
    "SIPBOX_".chars().chain(upper).collect()
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn is_typed(flag: &str, arguments: &[OsString]) -> bool {
    let typed = |a: &OsString| a.to_str()?.strip_prefix("--")?.split('=').next().map(|name| name == flag);
    arguments.iter().any(|argument| typed(argument) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_flags() {
        assert_eq!(names("listen", "proxy"), ["SIPBOX_PROXY_LISTEN", "SIPBOX_LISTEN"]);
        assert_eq!(names("to", "sdp-rewrite"), ["SIPBOX_SDP_REWRITE_TO"]);
        assert!(names("help", "proxy").is_empty());
    }

    #[test]
    fn typed_values_are_seen() {
        let line: Vec<OsString> = ["--listen", "udp:127.0.0.1:0", "--route=a b"].map(Into::into).into();
        assert!(is_typed("listen", &line) && is_typed("route", &line));
        assert!(!is_typed("list", &line) && !is_typed("udp", &line));
    }
}
