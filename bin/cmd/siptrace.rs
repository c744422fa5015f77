//! `siptrace`: SIP out of captures and HEP, call by call.

use super::Entry;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::progress;
use clap::{ArgMatches, Args as _, Command, FromArgMatches, ValueEnum};
use sipbox_core::flow::Transport;
use sipbox_core::time::Instant;
use sipbox_core::trace::{self, Choice, Finder, Shown, StatusChoice, Trace, Traced, View, show};
use sipbox_io::capture::{self, Capture, Content};
use sipbox_io::clock::Clock;
use sipbox_io::hep::{self, Received};
use sipbox_io::{listen, pcapng};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const ENTRY: Entry = Entry {
    name: "siptrace",
    command: || {
        Flags::augment_args(
            Command::new("siptrace").about("Show the SIP in captures, or in what servers report by HEP"),
        )
    },
    run,
    prose: include_str!("../../man/prose/siptrace.roff"),
};

/// A call from which nothing more is expected is shown this long after its last message, where input has no end.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(clap::Args, Clone, Debug)]
struct Flags {
    /// Captures (pcap, pcapng, also packed by gzip), '-' for standard input [default: -]
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// Receive HEPv3 on udp:HOST:PORT, until SIGTERM
    #[arg(long, value_name = "URI", conflicts_with = "files")]
    hep_listen: Vec<String>,
    /// Also keep what --hep-listen takes, as pcapng, for this command or Wireshark; added to what is there, SIGHUP opens it anew
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// What is written [default: list on a terminal, else json]
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    /// Calls with this Call-ID
    #[arg(long, value_name = "CALL-ID")]
    call_id: Vec<String>,
    /// Calls with a message whose From has this in its URI
    #[arg(long, value_name = "TEXT")]
    from: Vec<String>,
    /// Calls with a message whose To has this in its URI
    #[arg(long, value_name = "TEXT")]
    to: Vec<String>,
    /// Calls with a request of this method, or an answer to one
    #[arg(long, value_name = "METHOD")]
    method: Vec<String>,
    /// Calls with such an answer: 486, 4xx, 400-499
    #[arg(long, value_name = "STATUS")]
    status: Vec<StatusChoice>,
    /// Only the messages that fit, not their whole calls
    #[arg(long)]
    only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line a call, for people
    List,
    /// Who sent what to whom, call by call
    Ladder,
    /// The messages as they were, each with a right Content-Length
    Sip,
    /// The session descriptions, one after the other
    Sdp,
    /// A JSON object a message
    Json,
    /// A JSON object a call
    Calls,
}

fn tell(what: &str) {
    progress::tell(&format!("sipbox siptrace: {what}"));
}

/// Writes what is to be shown.
struct Writer {
    out: Output,
    format: Format,
    started: bool,
}

impl Writer {
    fn show(&mut self, shown: &mut Vec<Shown>) -> Result<(), Failure> {
        for shown in shown.drain(..) {
            match shown {
                Shown::Message(traced) => self.message(&traced)?,
                Shown::Call(call) => match self.format {
                    Format::Ladder => self.out.text(&show::ladder(&call))?,
                    Format::Calls => self.out.record(&show::call_record(&call))?,
                    Format::List | Format::Sip | Format::Sdp | Format::Json => {
                        if !self.started {
                            self.started = true;
                            self.out.text(show::LIST_HEAD)?;
                        }
                        self.out.text(&show::list(&call))?;
                    }
                },
            }
        }
        Ok(())
    }

    fn message(&mut self, traced: &Traced) -> Result<(), Failure> {
        match self.format {
            Format::Sip => match show::sip(traced) {
                Some((bytes, mended)) => {
                    if let Some(what) = mended {
                        tell(&format!("packet {}: {what}: mended", traced.packet));
                    }
                    self.out.bytes(&bytes)
                }
                None => {
                    let why = traced.fault.as_ref().map(ToString::to_string).unwrap_or_default();
                    tell(&format!("packet {}: left out, it is no whole message: {why}", traced.packet));
                    Ok(())
                }
            },
            Format::Sdp => show::sdp(traced).iter().try_for_each(|sdp| self.out.bytes(sdp)),
            Format::Json | Format::List | Format::Ladder | Format::Calls => {
                self.out.record(&show::message_record(traced))
            }
        }
    }
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let flags = Flags::from_arg_matches(matches).map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
    let terminal = std::io::stdout().is_terminal();
    let format = flags.output.unwrap_or(if terminal { Format::List } else { Format::Json });
    let view = match format {
        Format::List | Format::Calls => View::Calls,
        Format::Ladder => View::Ladders,
        Format::Sip | Format::Sdp | Format::Json => View::Messages,
    };
    let choice = Choice {
        call_id: flags.call_id.clone(),
        from: flags.from.clone(),
        to: flags.to.clone(),
        method: flags.method.clone(),
        status: flags.status.clone(),
        only: flags.only,
    };
    // clap's own `requires` is silent beside FILE, which excludes what is required.
    if flags.write.is_some() && flags.hep_listen.is_empty() {
        return Err(Failure::new(Code::Usage, "--write: it keeps what --hep-listen takes; give that too"));
    }
    let mut trace = Trace::new(view, choice);
    let mut writer = Writer { out: Output::new(), format, started: false };
    let result = if flags.hep_listen.is_empty() {
        let stdin = ["-".to_owned()];
        let files = if flags.files.is_empty() { &stdin[..] } else { &flags.files };
        read(files, &mut trace, &mut writer)
    } else {
        receive(&flags.hep_listen, flags.write.as_deref(), &mut trace, &mut writer)
    };
    // Also after an error: what was read is shown.
    if result.as_ref().is_err_and(Failure::is_closed_pipe) {
        return result;
    }
    let mut shown = Vec::new();
    trace.finish(&mut shown);
    writer.show(&mut shown)?;
    writer.out.flush()?;
    if trace.forgotten > 0 {
        tell(&format!(
            "{} calls were let go before the end, to bound the memory; choose fewer by --call-id, --from or --to",
            trace.forgotten
        ));
    }
    result
}

fn read(files: &[String], trace: &mut Trace, writer: &mut Writer) -> Result<(), Failure> {
    let mut first = Ok(());
    for name in files {
        match read_one(name, trace, writer) {
            Err(failure) if failure.is_closed_pipe() => return Err(failure),
            // The other files are read all the same; each error is told, the first one's code is the command's.
            Err(failure) if first.is_ok() => first = Err(failure),
            Err(failure) => tell(&failure.message),
            Ok(()) => {}
        }
    }
    first
}

fn read_one(name: &str, trace: &mut Trace, writer: &mut Writer) -> Result<(), Failure> {
    let (content, input) = capture::open(name, |input, length| progress::reader(name, input, length))?;
    if content == Content::Other {
        return Err(Failure::new(
            Code::Data,
            format!("{name}: neither pcap nor pcapng (byte 0); capture with tcpdump -w or dumpcap"),
        ));
    }
    let mut capture = Capture::new(name, content, input)?;
    let mut finder = Finder::new();
    let (mut found, mut shown) = (Vec::new(), Vec::new());
    while let Some(packet) = capture.next()? {
        let Some(link) = packet.link else { continue };
        finder.packet(packet.number, packet.time, link, packet.data, &mut found);
        for traced in found.drain(..) {
            trace.add(traced, &mut shown);
        }
        writer.show(&mut shown)?;
    }
    if capture.unknown_links() > 0 {
        tell(&format!(
            "{name}: {} packets of a link type that is not understood were passed over",
            capture.unknown_links()
        ));
    }
    Ok(())
}

fn receive(
    uris: &[String],
    write: Option<&Path>,
    trace: &mut Trace,
    writer: &mut Writer,
) -> Result<(), Failure> {
    if write == Some(Path::new("-")) {
        return Err(Failure::new(Code::Usage, "--write -: the ready line is there already; name a file"));
    }
    let specs = uris
        .iter()
        .map(|uri| listen::parse("--hep-listen", uri, &[Transport::Udp]))
        .collect::<Result<Vec<_>, _>>()?;
    let bound = listen::bind(&specs, None)?;
    let mut kept = write.map(|path| pcapng::Writer::open("--write", path)).transpose()?;
    let lost = |error: std::io::Error| {
        let name = write.unwrap_or(Path::new("")).display();
        Failure::new(Code::Io, format!("--write {name}: {error}; make room, or choose another file"))
    };
    let clock = Clock::start();
    let (mut shown, mut number, mut bad) = (Vec::new(), 0, 0u64);
    // Messages carry their senders' time; what is over is judged by when it came here.
    let mut newest = (Instant::default(), Instant::default());
    let end = hep::receive("siptrace", bound, |received| {
        let mut done = Ok(());
        match received {
            Received::Datagram { source, destination, data } => {
                number += 1;
                if let Some(kept) = &mut kept {
                    done = kept.datagram(clock.now(), source, destination, data).map_err(lost);
                }
                match trace::from_hep(number, data) {
                    Ok(traced) => {
                        newest = (newest.0.max(traced.time), clock.now());
                        trace.add(traced, &mut shown);
                    }
                    Err(error) => {
                        bad += 1;
                        // The first few tell what is wrong; a flood of them must not fill a log.
                        if bad <= 3 {
                            tell(&format!("datagram {number}: {error}"));
                        }
                    }
                }
            }
            Received::Tick => {
                let now = newest.0 + clock.now().saturating_since(newest.1);
                trace.settle(now - SETTLED, &mut shown);
                if let Some(kept) = &mut kept {
                    done = kept.flush().map_err(lost);
                }
            }
            Received::Reload => {
                if let Some(kept) = &mut kept {
                    done = kept.reopen().map_err(lost);
                }
            }
        }
        match done.and_then(|()| writer.show(&mut shown)).and_then(|()| writer.out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => ControlFlow::Break(failure),
        }
    })?;
    if bad > 3 {
        tell(&format!("{bad} datagrams were no SIP in HEPv3"));
    }
    let flushed = kept.map_or(Ok(()), |mut kept| kept.flush().map_err(lost));
    end.map_or(flushed, Err)
}
