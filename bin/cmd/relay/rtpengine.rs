//! rtpengine's own command line and configuration file, told in `relay`'s flags.
//!
//! In: the words after the command. Out: the same with rtpengine's options replaced by ours; what has no meaning here
//! (its kernel table, Redis, its command port …) is named in `--without-meaning`, so that it is told once, in one line.
//! Names that both have (`--interface`, `--timeout`, `--silent-timeout`) mean the same and pass as they are. `-v` and
//! `-q` are ours, except under the name `rtpengine`. Not here: what the flags do (`relay`).

use crate::exit::{Code, Failure};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

/// Where a packaged rtpengine has its configuration.
const CONFIG: &str = "/etc/rtpengine/rtpengine.conf";

/// What becomes of one of its options.
#[derive(Clone, Copy)]
enum Means {
    /// Our flag of this name takes its value.
    Flag(&'static str),
    /// Our switch of this name.
    Switch(&'static str),
    /// Addresses for ng over this transport: `PORT` or `HOST:PORT`.
    Control(&'static str),
    PortMin,
    PortMax,
    /// syslog's numbers: from 6 on all is logged, from 4 on what needs a look.
    LogLevel,
    ConfigFile,
    ConfigSection,
    /// It is so here in any case: stay in the foreground, log on standard error.
    Always,
    /// Nothing here, with a value or without.
    Nothing,
    NothingOf,
}

use Means::{Always, Flag, Nothing, NothingOf, Switch};

/// Short name, long name, meaning.
const OPTIONS: &[(char, &str, Means)] = &[
    ('i', "interface", Flag("interface")),
    ('n', "listen-ng", Means::Control("udp")),
    ('m', "port-min", Means::PortMin),
    ('M', "port-max", Means::PortMax),
    ('o', "timeout", Flag("timeout")),
    ('s', "silent-timeout", Flag("silent-timeout")),
    ('a', "final-timeout", Flag("final-timeout")),
    ('L', "log-level", Means::LogLevel),
    ('E', "log-stderr", Always),
    ('f', "foreground", Always),
    ('p', "pidfile", Flag("pidfile")),
    ('t', "table", NothingOf),
    ('F', "no-fallback", Nothing),
    ('S', "save-interface-ports", Nothing),
    ('k', "subscribe-keyspace", NothingOf),
    ('l', "listen-tcp", NothingOf),
    ('u', "listen-udp", NothingOf),
    ('N', "listen-tcp-ng", Means::Control("tcp")),
    ('c', "listen-cli", NothingOf),
    ('g', "graphite", NothingOf),
    ('G', "graphite-interval", NothingOf),
    ('T', "tos", Flag("tos")),
    ('r', "redis", NothingOf),
    ('w', "redis-write", NothingOf),
    ('v', "version", Switch("version")),
    ('q', "no-redis-required", Nothing),
    ('y', "redis-delete-async", Nothing),
    ('b', "b2b-url", NothingOf),
    ('x', "xmlrpc-format", NothingOf),
    ('d', "delete-delay", Flag("delete-delay")),
    ('-', "num-threads", Flag("workers")),
    ('-', "max-sessions", Flag("max-sessions")),
    ('-', "sip-source", Switch("sip-source")),
    ('-', "endpoint-learning", Flag("endpoint-learning")),
    ('-', "config-file", Means::ConfigFile),
    ('-', "config-section", Means::ConfigSection),
    ('-', "dtls-passive", Always),
    ('-', "split-logs", Nothing),
    ('-', "no-log-timestamps", Nothing),
    ('-', "log-srtp-keys", Nothing),
    ('-', "active-switchover", Nothing),
    ('-', "dtmf-log-ng-tcp", Nothing),
    ('-', "dtmf-no-suppress", Nothing),
    ('-', "debug-srtp", Nothing),
    ('-', "reject-invalid-sdp", Always),
    ('-', "poller-per-thread", Nothing),
    ('-', "jb-clock-drift", Nothing),
    ('-', "measure-rtp", Always),
    ('-', "mos", NothingOf),
    ('-', "offer-timeout", NothingOf),
];

/// Beginnings of long names whose options take a value and mean nothing here.
const GROUPS: &[&str] = &[
    "amr-",
    "b2b-",
    "cn-payload",
    "control-",
    "dtls-",
    "dtmf-",
    "dtx-",
    "graphite-",
    "homer",
    "http",
    "idle-",
    "iptables-",
    "janus-",
    "jitter-buffer",
    "listen-http",
    "log-facility",
    "log-format",
    "log-level-",
    "log-mark-",
    "max-bandwidth",
    "max-cpu",
    "max-dtx",
    "max-load",
    "max-log-line-length",
    "media-num-threads",
    "moh-",
    "mqtt-",
    "mysql-",
    "priority",
    "recording-",
    "redis-",
    "scheduling",
    "silence-detect",
    "socket-cpu-affinity",
    "software-id",
    "thread-stack",
];

/// Flags of ours that begin like one of those groups.
const OURS: &[&str] = &["control-allow"];

/// The words in our flags. `drop_in`: we were started as `rtpengine`.
pub fn translate(words: &[OsString], drop_in: bool) -> Result<Vec<OsString>, Failure> {
    let mut told = Told { drop_in, ..Told::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            told.out.push(word.clone());
            continue;
        };
        let (option, value) = match split(text, drop_in) {
            Some(found) => found,
            None => {
                told.out.push(word.clone());
                continue;
            }
        };
        let value = match (takes_value(option.1), value) {
            (false, _) => String::new(),
            (true, Some(value)) => value.to_owned(),
            (true, None) => {
                let value = words.next().and_then(|word| word.to_str());
                value.ok_or_else(|| usage(format!("--{}: a value is missing", option.0)))?.to_owned()
            }
        };
        told.take(option.0, option.1, &value)?;
    }
    told.finish()
}

fn usage(message: String) -> Failure {
    Failure::new(Code::Usage, message)
}

/// Name, meaning and attached value of one of its options; `None` for a word that is ours or no option.
fn split(text: &str, drop_in: bool) -> Option<((&str, Means), Option<&str>)> {
    if let Some(long) = text.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        return Some((lookup(name)?, value));
    }
    let mut letters = text.strip_prefix('-')?.chars();
    let letter = letters.next()?;
    if !drop_in && matches!(letter, 'q' | 'v' | 'h' | 'V') {
        return None;
    }
    let (_, name, means) = OPTIONS.iter().find(|(short, ..)| *short == letter && letter != '-')?;
    let rest = letters.as_str();
    Some(((name, *means), (!rest.is_empty()).then_some(rest)))
}

fn lookup(name: &str) -> Option<(&str, Means)> {
    let known = OPTIONS.iter().find(|(_, long, _)| *long == name).map(|(_, long, means)| (*long, *means));
    let grouped = !OURS.contains(&name) && GROUPS.iter().any(|group| name.starts_with(group));
    known.or_else(|| grouped.then_some((name, NothingOf)))
}

const fn takes_value(means: Means) -> bool {
    match means {
        Switch(_) | Always | Nothing => false,
        Flag(_) | Means::Control(_) | Means::PortMin | Means::PortMax | Means::LogLevel | NothingOf => true,
        Means::ConfigFile | Means::ConfigSection => true,
    }
}

#[derive(Default)]
struct Told {
    drop_in: bool,
    out: Vec<OsString>,
    /// Long names that were given: the command line goes before the file.
    given: BTreeSet<String>,
    low: Option<String>,
    high: Option<String>,
    config: Option<String>,
    section: Option<String>,
    without_meaning: Vec<String>,
}

impl Told {
    fn take(&mut self, name: &str, means: Means, value: &str) -> Result<(), Failure> {
        self.given.insert(name.to_owned());
        match means {
            Flag(flag) => self.out.push(format!("--{flag}={value}").into()),
            Switch(flag) => self.out.push(format!("--{flag}").into()),
            // It listens on all addresses where none is named.
            Means::Control(transport) if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.out.push(format!("--control={transport}:0.0.0.0:{value}").into());
            }
            Means::Control(transport) => self.out.push(format!("--control={transport}:{value}").into()),
            Means::PortMin => self.low = Some(value.to_owned()),
            Means::PortMax => self.high = Some(value.to_owned()),
            Means::LogLevel => match value.parse::<u8>() {
                Ok(0..=3) => self.out.push("-qq".into()),
                Ok(4) => self.out.push("-q".into()),
                Ok(5 | 6) => {}
                Ok(7) => self.out.push("--verbose".into()),
                _ => return Err(usage(format!("--log-level {value}: give 0 to 7"))),
            },
            Means::ConfigFile => self.config = Some(value.to_owned()),
            Means::ConfigSection => self.section = Some(value.to_owned()),
            Always => {}
            Nothing | NothingOf => self.without_meaning.push(name.to_owned()),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<OsString>, Failure> {
        self.file()?;
        if self.low.is_some() || self.high.is_some() {
            let range = (self.low.as_deref().unwrap_or("30000"), self.high.as_deref().unwrap_or("40000"));
            self.out.push(format!("--port-range={}-{}", range.0, range.1).into());
        } else if self.drop_in {
            self.out.push("--port-range=30000-40000".into());
        }
        if !self.without_meaning.is_empty() {
            self.out.push(format!("--without-meaning={}", self.without_meaning.join(",")).into());
        }
        Ok(self.out)
    }

    /// The file that was named, or the packaged one where we stand in for rtpengine; `none` reads none.
    fn file(&mut self) -> Result<(), Failure> {
        let path = match self.config.take() {
            Some(path) if path == "none" => return Ok(()),
            Some(path) => path,
            None if self.drop_in && Path::new(CONFIG).exists() => CONFIG.to_owned(),
            None => return Ok(()),
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::new(Code::NoInput, format!("--config-file {path}: {error}")))?;
        let wanted = self.section.take().unwrap_or_else(|| "rtpengine".to_owned());
        let typed = std::mem::take(&mut self.given);
        let mut inside = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                inside = section == wanted;
                continue;
            }
            if !inside {
                continue;
            }
            let fault = |what: &str| {
                let place = format!("{path}:{}", number + 1);
                Failure::new(Code::Config, format!("{place}: {what}"))
            };
            let (name, value) = line.split_once('=').ok_or_else(|| fault("want 'name = value'"))?;
            let (name, value) = (name.trim(), value.trim());
            let Some((name, means)) = lookup(name) else {
                return Err(fault(&format!("'{name}' is no option that is known here; take it out")));
            };
            if typed.contains(name) {
                continue;
            }
            if !takes_value(means) {
                if !matches!(value, "false" | "no" | "0") {
                    self.take(name, means, "")?;
                }
                continue;
            }
            // Lists are separated by semicolons.
            for value in value.split(';').map(str::trim).filter(|value| !value.is_empty()) {
                self.take(name, means, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(words: &[&str], drop_in: bool) -> Vec<String> {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let told = translate(&words, drop_in).unwrap();
        told.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn options_of_a_daemon_become_flags() {
        let words = [
            "-i",
            "203.0.113.1",
            "-i",
            "pub/2001:db8::1!2001:db8::2",
            "-n",
            "2223",
            "-N127.0.0.1:2225",
            "--tos=184",
            "-c",
            "12345",
            "-m",
            "4000",
            "-M4999",
            "-f",
            "-L",
            "7",
            "-E",
            "-t",
            "-1",
            "--silence-detect=1",
            "--endpoint-learning=delayed",
        ];
        assert_eq!(
            ours(&words, false),
            [
                "--interface=203.0.113.1",
                "--interface=pub/2001:db8::1!2001:db8::2",
                "--control=udp:0.0.0.0:2223",
                "--control=tcp:127.0.0.1:2225",
                "--tos=184",
                "--verbose",
                "--endpoint-learning=delayed",
                "--port-range=4000-4999",
                "--without-meaning=listen-cli,table,silence-detect",
            ]
        );
    }

    #[test]
    fn our_own_flags_pass() {
        let words = ["serve", "--interface", "192.0.2.1", "-v", "--control", "udp:127.0.0.1:2223"];
        assert_eq!(
            ours(&words, false),
            ["serve", "--interface=192.0.2.1", "-v", "--control", "udp:127.0.0.1:2223"]
        );
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let path = std::env::temp_dir().join(format!("sipbox-rtpengine-{}.conf", std::process::id()));
        let text = "[other]\ntimeout = 1\n[rtpengine]\n# a comment\ninterface = a/192.0.2.1;b/192.0.2.2!198.51.100.1\n\
                    listen-ng = 127.0.0.1:2223\ntimeout = 30\nforeground = true\ntable = 0\n";
        std::fs::write(&path, text).unwrap();
        let file = format!("--config-file={}", path.display());
        assert_eq!(
            ours(&[&file, "--timeout", "90"], false),
            [
                "--timeout=90",
                "--interface=a/192.0.2.1",
                "--interface=b/192.0.2.2!198.51.100.1",
                "--control=udp:127.0.0.1:2223",
                "--without-meaning=table",
            ]
        );
        std::fs::write(&path, "[rtpengine]\nnonsense = 1\n").unwrap();
        let failure = translate(&[file.into()], false).unwrap_err();
        assert!(failure.message.contains(":2: 'nonsense'"), "{}", failure.message);
        std::fs::remove_file(path).unwrap();
    }
}
