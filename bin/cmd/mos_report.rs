//! `mos-report`: what calls sounded like, stream by stream, with the model's name in each row.

mod records;

use super::Entry;
use crate::exit::{Code, Failure};
use crate::output::{Output, plain};
use crate::progress;
use clap::{ArgMatches, Args as _, Command, FromArgMatches, ValueEnum};
use records::{Records, TOO_LONG};
use serde_json::{Value, json};
use sipbox_core::limits::{NG_MESSAGE_BYTES, REPORT_RECORD_BYTES};
use sipbox_core::ng;
use sipbox_core::trace::quality::{self, Asked, Log, Rating, Stream};
use sipbox_core::trace::rtp::Rtp;
use sipbox_io::capture::{self, Capture, Content, Input};
use std::io::{self, BufRead, BufReader, IsTerminal, Read};

pub const ENTRY: Entry = Entry {
    name: "mos-report",
    command: || {
        Flags::augment_args(
            Command::new("mos-report")
                .about("Tell what calls sounded like, from captures, replies, events and logs"),
        )
    },
    run,
    prose: include_str!("../../man/prose/mos-report.roff"),
};

/// The table's columns.
const HEAD: [&str; 12] = [
    "MOS", "lowest", "highest", "model", "codec", "samples", "packets", "lost", "jitter", "SSRC", "peer",
    "call-id",
];
/// The columns of CSV: members of the JSON record.
const COLUMNS: [&str; 20] = [
    "call_id",
    "ssrc",
    "peer",
    "origin",
    "codec",
    "packets",
    "lost",
    "model",
    "samples",
    "mos",
    "lowest",
    "lowest_at",
    "highest",
    "highest_at",
    "from",
    "to",
    "ptime",
    "jitter",
    "max_jitter",
    "round_trip",
];
/// Bad lines of one file that are told one by one: the first ones say what is wrong.
const TOLD: usize = 10;

#[derive(clap::Args, Clone, Debug)]
struct Flags {
    /// Captures with RTP, replies to 'delete' or 'query' (JSON, bencode), events of the relay, rtpengine's log; '-' for standard input [default: -]
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// How to score
    #[arg(long, value_name = "MODEL", value_enum, default_values_t = [ModelFlag::G107])]
    model: Vec<ModelFlag>,
    /// What is written [default: table on a terminal, else json]
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    /// Exit with 1 if the average of any stream is below it
    #[arg(long, value_name = "MOS")]
    min_mos: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModelFlag {
    /// rtpengine's formula of April 2017 to March 2021
    #[value(name = "legacy-2019", alias = "legacy")]
    Legacy2019,
    /// The E-model of ITU-T G.107; g107-lq where no delay is known
    G107,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let flags = Flags::from_arg_matches(matches).map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
    let terminal = std::io::stdout().is_terminal();
    let format = flags.output.unwrap_or(if terminal { Format::Table } else { Format::Json });
    let stdin = ["-".to_owned()];
    let files = if flags.files.is_empty() { &stdin[..] } else { &flags.files };
    let (mut streams, mut result) = (Vec::new(), Ok(()));
    for name in files {
        match read(name, &mut streams) {
            // The other files are read all the same; each error is told, the first one's code is the command's.
            Err(failure) if result.is_ok() => result = Err(failure),
            Err(failure) => tell(&failure.message),
            Ok(()) => {}
        }
    }
    let mut out = Output::new();
    if format == Format::Csv {
        out.text(&format!("{}\n", COLUMNS.join(",")))?;
    }
    let mut table = vec![HEAD.map(str::to_owned)];
    let (mut low, mut scored) = (0usize, 0usize);
    for stream in &streams {
        for row in rows(stream, &flags.model) {
            scored += usize::from(row.average.is_some());
            low += usize::from(row.average.is_some_and(|mos| flags.min_mos.is_some_and(|least| mos < least)));
            match format {
                Format::Table => table.push(row.cells(stream)),
                Format::Csv => out.text(&row.csv(stream))?,
                Format::Json => out.record(&row.json(stream))?,
            }
        }
    }
    if format == Format::Table {
        out.text(&aligned(&table))?;
    }
    out.flush()?;
    result?;
    match flags.min_mos {
        Some(least) if low > 0 => {
            Err(Failure::new(Code::Failed, format!("{low} rows have an average below {least}")))
        }
        // A check of nothing has not passed.
        Some(_) if scored == 0 => Err(Failure::new(
            Code::Data,
            "--min-mos: no stream in it has a score; give a capture with RTP, or records of calls that talked",
        )),
        _ => Ok(()),
    }
}

fn tell(what: &str) {
    progress::tell(&format!("sipbox mos-report: {what}"));
}

/// One stream by one model.
struct Row {
    model: &'static str,
    average: Option<f64>,
    lowest: Option<f64>,
    highest: Option<f64>,
    rating: Option<Rating>,
}

fn rows(stream: &Stream, models: &[ModelFlag]) -> Vec<Row> {
    let asked = models.iter().map(|model| match model {
        ModelFlag::Legacy2019 => Asked::Legacy2019,
        ModelFlag::G107 => Asked::G107,
    });
    let mut rows: Vec<Row> = asked
        .filter_map(|asked| stream.rate(asked))
        .map(|rating| Row {
            model: rating.model,
            average: Some(rating.average),
            lowest: Some(rating.lowest.0),
            highest: Some(rating.highest.0),
            rating: Some(rating),
        })
        .collect();
    if let Some(printed) = stream.printed {
        // A log line does not say by which formula, nor what went into it.
        rows.push(Row {
            model: "as-printed",
            average: Some(printed.average),
            lowest: Some(printed.lowest),
            highest: Some(printed.highest),
            rating: None,
        });
    }
    if rows.is_empty() {
        rows.push(Row { model: "none", average: None, lowest: None, highest: None, rating: None });
    }
    rows
}

/// Scores are shown to hundredths: more is not in any of the models.
fn hundredths(mos: f64) -> f64 {
    (mos * 100.0).round() / 100.0
}

/// As it is written: to a thousandth.
fn milliseconds(microseconds: u32) -> f64 {
    f64::from(microseconds) / 1000.0
}

impl Row {
    fn json(&self, stream: &Stream) -> Value {
        let time = |at: sipbox_core::time::Instant| (at.0 > 0).then(|| at.rfc3339());
        let mut record = json!({
            "call_id": (!stream.call_id.is_empty()).then_some(&stream.call_id),
            "ssrc": stream.ssrc,
            "peer": (!stream.peer.is_empty()).then_some(&stream.peer),
            "origin": stream.origin,
            "codec": stream.codec,
            "packets": stream.packets,
            "lost": stream.lost,
            "model": self.model,
            "mos": self.average.map(hundredths),
            "lowest": self.lowest.map(hundredths),
            "highest": self.highest.map(hundredths),
            "from": stream.from,
            "to": stream.to,
            "ptime": stream.ptime,
            "jitter": stream.jitter().map(|(mean, _)| milliseconds(mean)),
            "max_jitter": stream.jitter().map(|(_, most)| milliseconds(most)),
            "round_trip": stream.round_trip_us().map(milliseconds),
        });
        if let Some(rating) = &self.rating {
            record["samples"] = rating.samples.into();
            record["lowest_at"] = time(rating.lowest.1).into();
            record["highest_at"] = time(rating.highest.1).into();
            record["progression"] = rating
                .progression
                .iter()
                .map(|(at, mos)| json!({ "time": time(*at), "mos": hundredths(*mos) }))
                .collect();
        }
        record
    }

    /// Under [`HEAD`].
    fn cells(&self, stream: &Stream) -> [String; HEAD.len()] {
        let none = || "-".to_owned();
        let mos = |mos: Option<f64>| mos.map_or_else(none, |mos| format!("{mos:.2}"));
        let count = |count: Option<u64>| count.map_or_else(none, |count| count.to_string());
        [
            mos(self.average),
            mos(self.lowest),
            mos(self.highest),
            self.model.to_owned(),
            stream.codec.as_deref().map_or_else(none, plain),
            count(self.rating.as_ref().map(|rating| rating.samples)),
            count(stream.packets),
            count(stream.lost),
            stream.jitter().map_or_else(none, |(mean, _)| format!("{:.1}", milliseconds(mean))),
            stream.ssrc.map_or_else(none, |ssrc| format!("{ssrc:08x}")),
            plain(&stream.peer),
            plain(&stream.call_id),
        ]
    }

    fn csv(&self, stream: &Stream) -> String {
        let record = self.json(stream);
        let cells = COLUMNS.map(|key| match record.get(key) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) if text.contains([',', '"', '\n', '\r']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        });
        format!("{}\n", cells.join(","))
    }
}

fn read(name: &str, streams: &mut Vec<Stream>) -> Result<(), Failure> {
    let (content, input) = capture::open(name, |input, length| progress::reader(name, input, length))?;
    match content {
        Content::Pcap | Content::Pcapng => {
            let mut capture = Capture::new(name, content, input)?;
            let mut rtp = Rtp::default();
            let result = loop {
                match capture.next() {
                    Ok(Some(packet)) => {
                        if let Some(link) = packet.link {
                            rtp.packet(packet.number, packet.time, link, packet.data);
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.into()),
                }
            };
            if rtp.passed_over > 0 {
                tell(&format!(
                    "{name}: {} packets or streams had no room among so many; cut the capture into pieces, with editcap -i",
                    rtp.passed_over
                ));
            }
            streams.extend(rtp.finish());
            result
        }
        Content::Other => text(name, input, streams),
    }
}

/// Rows whose columns stand below each other.
fn aligned(rows: &[[String; HEAD.len()]]) -> String {
    let mut widths = [0; HEAD.len()];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; HEAD.len()]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Bad lines of one file: told, a few of them, and the first one's failure is the file's.
struct Faults<'a> {
    name: &'a str,
    first: Option<Failure>,
    told: usize,
}

impl Faults<'_> {
    fn add(&mut self, line: usize, why: &str) {
        let message = format!("{}:{line}: {why}; the rest was read", self.name);
        match self.first {
            None => self.first = Some(Failure::new(Code::Data, message)),
            Some(_) => {
                self.told += 1;
                if self.told < TOLD {
                    tell(&message);
                }
            }
        }
    }

    fn end(self) -> Result<(), Failure> {
        if self.told >= TOLD {
            tell(&format!("{}: {} bad lines more", self.name, self.told + 1 - TOLD));
        }
        self.first.map_or(Ok(()), Err)
    }
}

/// One line.
enum Line {
    /// With its end.
    Read,
    /// It was passed over.
    TooLong,
    End,
}

fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let most = REPORT_RECORD_BYTES;
    let length = input.by_ref().take(most as u64).read_until(b'\n', line)?;
    if length < most || line.ends_with(b"\n") {
        return Ok(if length == 0 { Line::End } else { Line::Read });
    }
    line.clear();
    loop {
        let bytes = input.fill_buf()?;
        let (length, whole) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (bytes.len(), bytes.is_empty()),
        };
        input.consume(length);
        if whole {
            return Ok(Line::TooLong);
        }
    }
}

fn text(name: &str, input: Input, streams: &mut Vec<Stream>) -> Result<(), Failure> {
    let io = |error: io::Error| Failure::new(Code::Io, format!("{name}: {error}"));
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let mut faults = Faults { name, first: None, told: 0 };
    let first = input.fill_buf().map_err(io)?;
    let first: Vec<u8> = first.iter().copied().skip_while(u8::is_ascii_whitespace).take(2).collect();
    match first[..] {
        [b'{', ..] => {
            let mut records = Records::default();
            loop {
                let read = next_line(&mut input, &mut line).map_err(io)?;
                match read {
                    Line::Read => records.line(&line),
                    Line::TooLong => records.too_long(),
                    Line::End => records.finish(),
                }
                streams.extend(records.values.drain(..).flat_map(|value| quality::from_value(&value)));
                records.bad.drain(..).for_each(|(line, why)| faults.add(line, &why));
                if matches!(read, Line::End) {
                    return faults.end();
                }
            }
        }
        [b'd', b'0'..=b'9'] => {
            let mut bytes = Vec::new();
            // One byte more than an ng message may have, so that the decoder sees that it is too long.
            input.take(NG_MESSAGE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
            let (_, dict) = ng::decode(bytes.trim_ascii())
                .map_err(|error| Failure::new(Code::Data, format!("{name}: {error}")))?;
            let value = serde_json::from_str(&dict.encode_json())
                .map_err(|error| Failure::new(Code::Data, format!("{name}: {error}")))?;
            streams.extend(quality::from_value(&value));
        }
        _ => {
            let mut log = Log::default();
            let (before, mut number) = (streams.len(), 0);
            loop {
                number += 1;
                match next_line(&mut input, &mut line).map_err(io)? {
                    Line::Read => log.line(String::from_utf8_lossy(&line).trim_end()),
                    Line::TooLong => faults.add(number, TOO_LONG),
                    Line::End => break,
                }
                streams.extend(log.settled());
            }
            streams.extend(log.finish());
            if streams.len() == before {
                return Err(Failure::new(
                    Code::Data,
                    format!(
                        "{name}: nothing known in it; give a capture, a reply to delete or query, the relay's --events or rtpengine's log"
                    ),
                ));
            }
            return faults.end();
        }
    }
    Ok(())
}
