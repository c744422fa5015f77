//! mos-report's logic: streams with their samples, out of replies and events of relays, and of rtpengine's log lines.
//!
//! In: values, and lines, as rtpengine of 2019 and our relay write them. Out: [`Stream`]s, and their [`Rating`] by a model of [`mos`](crate::mos), which alone has formulas. `legacy-2019` is of what
//! receivers reported, filed under who reported; G.107 of what arrived where it was measured, else of the same reports.
//! Not here: RTP in captures (`rtp`), reading files, tables.

use crate::limits::{TRACE_CALL_MESSAGES, TRACE_LOG_STREAMS};
use crate::mos::{Codec, Delay, EModel, LegacySample, Model};
use crate::time::Instant;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// A model as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Legacy2019,
    G107,
}

/// The path at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Zero where it is not known.
    pub at: Instant,
    pub loss_percent: f64,
    pub jitter_us: u32,
    /// Over the whole path; zero where it is not known.
    pub round_trip_us: u32,
}

/// Figures that somebody else printed, of a model that he did not name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Printed {
    pub average: f64,
    pub lowest: f64,
    pub highest: f64,
}

/// One source of one call.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub call_id: String,
    pub ssrc: Option<u32>,
    /// Whose it is: a tag, or addresses.
    pub peer: String,
    /// Where this was read: `reply`, `call-end`, `log`, `cdr`, `rtp`.
    pub origin: &'static str,
    pub codec: Option<String>,
    /// Of the call, where its signalling was seen.
    pub from: Option<String>,
    pub to: Option<String>,
    /// In milliseconds.
    pub ptime: Option<u32>,
    pub packets: Option<u64>,
    pub lost: Option<u64>,
    /// Mean and greatest, where each packet was seen.
    pub jitter_us: Option<(u32, u32)>,
    pub reported: Vec<Point>,
    pub measured: Vec<Point>,
    /// How many samples the reporter had, and the mean of their scores in tenths, where the progression is thinned out.
    pub(super) stored: Option<(u64, u64)>,
    pub printed: Option<Printed>,
}

/// What a model says of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Rating {
    pub model: &'static str,
    pub average: f64,
    pub lowest: (f64, Instant),
    pub highest: (f64, Instant),
    pub progression: Vec<(Instant, f64)>,
    pub samples: u64,
}

impl Stream {
    /// Mean and greatest jitter: of each packet, else of what was measured, else of what was reported.
    pub fn jitter(&self) -> Option<(u32, u32)> {
        // Without the clock rate of its payload type it means nothing.
        if self.origin == "rtp" && self.codec.is_none() {
            return None;
        }
        let points = if self.measured.is_empty() { &self.reported } else { &self.measured };
        let sum: u64 = points.iter().map(|point| u64::from(point.jitter_us)).sum();
        let of_points = || {
            let mean = sum.checked_div(points.len() as u64)?;
            Some((saturated(mean), points.iter().map(|point| point.jitter_us).max()?))
        };
        self.jitter_us.or_else(of_points)
    }

    /// The mean of the round trips that are known.
    pub fn round_trip_us(&self) -> Option<u32> {
        let known =
            || self.measured.iter().chain(&self.reported).map(|p| p.round_trip_us).filter(|us| *us > 0);
        let mean = known().map(u64::from).sum::<u64>().checked_div(known().count() as u64)?;
        Some(saturated(mean))
    }

    /// None where there is nothing that this model scores.
    pub fn rate(&self, asked: Asked) -> Option<Rating> {
        match asked {
            Asked::Legacy2019 => self.legacy(),
            Asked::G107 => self.g107(),
        }
    }

    fn legacy(&self) -> Option<Rating> {
        let tenths: Vec<(Instant, u64)> = self
            .reported
            .iter()
            .map(|point| {
                let sample = LegacySample {
                    round_trip_us: point.round_trip_us,
                    jitter_ms: point.jitter_us / 1000,
                    loss_percent: point.loss_percent.clamp(0.0, 100.0) as u8,
                };
                (point.at, u64::from(sample.tenths()))
            })
            .collect();
        let count = tenths.len() as u64;
        // The mean of the tenths, cut off, as it was printed in 2019.
        let mean = tenths.iter().map(|(_, mos)| mos).sum::<u64>().checked_div(count)?;
        let (samples, average) = match self.stored {
            Some((samples, average)) if samples > count => (samples, average),
            _ => (count, mean),
        };
        let scores = tenths.into_iter().map(|(at, mos)| (at, mos as f64 / 10.0)).collect();
        rating(Model::Legacy2019.name(), average as f64 / 10.0, scores, samples)
    }

    fn g107(&self) -> Option<Rating> {
        let points = if self.measured.is_empty() { &self.reported } else { &self.measured };
        let codec = Codec::by_name(self.codec.as_deref().unwrap_or_default());
        // One stream has one model: a delay that is known for some points only counts for none.
        let delays = points.iter().all(|point| point.round_trip_us > 0);
        let mut model = Model::G107.name();
        let scores: Vec<(Instant, f64)> = points
            .iter()
            .map(|point| {
                let delay = if delays {
                    let one_way = u64::from(point.round_trip_us) / 2 + u64::from(point.jitter_us);
                    Delay::OneWay(Duration::from_micros(one_way))
                } else {
                    Delay::Unknown
                };
                let score =
                    EModel { codec, delay, loss_percent: point.loss_percent, burst_ratio: 1.0 }.score();
                model = score.model.name();
                (point.at, score.mos)
            })
            .collect();
        let count = scores.len() as u64;
        let average = scores.iter().map(|(_, mos)| mos).sum::<f64>() / count as f64;
        rating(model, average, scores, count)
    }
}

fn rating(
    model: &'static str,
    average: f64,
    progression: Vec<(Instant, f64)>,
    samples: u64,
) -> Option<Rating> {
    let mut all = progression.iter().map(|&(at, mos)| (mos, at));
    let first = all.next()?;
    // Of equal extremes the first.
    let (lowest, highest) = all.fold((first, first), |(low, high), one| {
        (if one.0 < low.0 { one } else { low }, if one.0 > high.0 { one } else { high })
    });
    Some(Rating { model, average, lowest, highest, progression, samples })
}

/// The streams in a reply to `delete` or `query`, or in a relay's event; none in any other value.
pub fn from_value(value: &Value) -> Vec<Stream> {
    if let Some(event) = value.get("event") {
        if event != "call-end" {
            return Vec::new();
        }
        let call_id = ["call_id", "call-id"].iter().find_map(|key| value.get(*key)?.as_str()).unwrap_or("");
        return value.get("stats").map(|stats| from_reply(stats, call_id, "call-end")).unwrap_or_default();
    }
    from_reply(value, value.get("call-id").and_then(Value::as_str).unwrap_or(""), "reply")
}

fn from_reply(reply: &Value, call_id: &str, origin: &'static str) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    let Some(ssrcs) = reply.get("SSRC").and_then(Value::as_object) else { return streams };
    for (ssrc, entry) in ssrcs.iter().take(TRACE_CALL_MESSAGES) {
        let Ok(number) = ssrc.parse::<u32>() else { continue };
        let mut stream =
            Stream { call_id: call_id.to_owned(), ssrc: Some(number), origin, ..Stream::default() };
        whose(reply, number, &mut stream);
        let entries = entry.get("MOS progression").and_then(|p| p.get("entries")).and_then(Value::as_array);
        let extremes = ["lowest MOS", "highest MOS"].iter().filter_map(|key| entry.get(*key));
        // By time: a thinned progression need not have the extremes.
        let points: BTreeMap<u64, Point> = entries
            .into_iter()
            .flatten()
            .chain(extremes)
            .map(|entry| {
                let at = int(entry, "reported at");
                let point = Point {
                    at: Instant::from_secs(at.min(u64::from(u32::MAX))),
                    loss_percent: int(entry, "packet loss").min(100) as f64,
                    jitter_us: saturated(int(entry, "jitter").saturating_mul(1000)),
                    round_trip_us: saturated(int(entry, "round-trip time")),
                };
                (at, point)
            })
            .collect();
        stream.reported = points.into_values().collect();
        stream.stored = entry
            .get("average MOS")
            .map(|average| (int(average, "samples"), int(average, "MOS")))
            .filter(|(samples, _)| *samples > 0);
        streams.push(stream);
    }
    for entry in reply.get("measured").and_then(Value::as_array).into_iter().flatten() {
        let ssrc = u32::try_from(int(entry, "SSRC")).ok();
        let Some(stream) = streams.iter_mut().find(|stream| stream.ssrc == ssrc) else { continue };
        let (expected, lost) = (int(entry, "expected"), int(entry, "lost"));
        stream.packets = Some(int(entry, "packets"));
        stream.lost = Some(lost);
        stream.codec =
            entry.get("codec").and_then(Value::as_str).filter(|c| *c != "unknown").map(str::to_owned);
        if expected > 0 {
            stream.measured.push(Point {
                loss_percent: lost.min(expected) as f64 * 100.0 / expected as f64,
                jitter_us: saturated(int(entry, "jitter").saturating_mul(1000)),
                ..Point::default()
            });
        }
    }
    streams
}

/// The tag and the packets of a source, from the reply's list of ports.
fn whose(reply: &Value, ssrc: u32, stream: &mut Stream) {
    for (tag, dict) in reply.get("tags").and_then(Value::as_object).into_iter().flatten() {
        let medias = dict.get("medias").and_then(Value::as_array).into_iter().flatten();
        for port in medias.flat_map(|media| media.get("streams").and_then(Value::as_array)).flatten() {
            let is_rtp = port
                .get("flags")
                .and_then(Value::as_array)
                .is_some_and(|flags| flags.iter().any(|flag| flag == "RTP"));
            if int(port, "SSRC") == u64::from(ssrc) && is_rtp {
                stream.peer.clone_from(tag);
                stream.packets = port.get("stats").map(|stats| int(stats, "packets"));
            }
        }
    }
}

fn int(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// rtpengine's log, line by line: final statistics and CDRs.
#[derive(Debug, Default)]
pub struct Log {
    call_id: String,
    peer: String,
    codec: Option<String>,
    ssrc: Option<u32>,
    streams: Vec<Stream>,
}

impl Log {
    pub fn line(&mut self, line: &str) {
        if let Some(id) = between(line, "[ID=\"", "\"]")
            && id != self.call_id
        {
            *self =
                Log { call_id: id.to_owned(), streams: std::mem::take(&mut self.streams), ..Log::default() };
        }
        if let Some(tag) = between(line, "--- Tag '", "'") {
            self.peer = tag.to_owned();
            self.codec = None;
        } else if line.contains("------ Media #") {
            self.codec =
                line.split_once(" using ").and_then(|(_, codec)| codec.split('/').next()).map(str::to_owned);
        } else if line.contains("--------- Port ") && !line.contains("(RTCP)") {
            let ssrc = between(line, "SSRC ", ",").and_then(|hex| u32::from_str_radix(hex.trim(), 16).ok());
            let packets = line
                .split(", ")
                .find_map(|part| part.trim().strip_suffix(" p"))
                .and_then(|packets| packets.trim().parse().ok());
            if ssrc.is_some() {
                self.streams.push(Stream {
                    call_id: self.call_id.clone(),
                    ssrc,
                    peer: self.peer.clone(),
                    origin: "log",
                    codec: self.codec.clone(),
                    packets,
                    ..Stream::default()
                });
            }
        } else if let Some(hex) = line.split_once("--- SSRC ").map(|(_, hex)| hex.trim()) {
            self.ssrc = u32::from_str_radix(hex, 16).ok();
        } else if let Some((_, figures)) = line.split_once("Average MOS ") {
            let number = |text: Option<&str>| text.and_then(|t| t.trim().parse::<f64>().ok());
            let printed = (
                number(figures.split(',').next()),
                number(between(figures, "lowest MOS ", " ")),
                number(between(figures, "highest MOS ", " ")),
            );
            let found = self
                .streams
                .iter_mut()
                .rev()
                .find(|stream| stream.ssrc == self.ssrc && stream.call_id == self.call_id);
            if let (Some(stream), (Some(average), Some(lowest), Some(highest))) = (found, printed) {
                stream.printed = Some(Printed { average, lowest, highest });
            }
        } else if let Some(at) = line.find("ci=") {
            self.cdr(&line[at..]);
        }
    }

    /// rtpengine's CDR line: comma-space separated, the leg in the name; no quality, but who sent how much.
    fn cdr(&mut self, line: &str) {
        let mut call_id = "";
        let mut tags: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in
            line.split(", ").filter_map(|field| field.trim_end_matches(',').trim().split_once('='))
        {
            if name == "ci" {
                call_id = value;
            } else if let Some(leg) = name.strip_suffix("_local_tag") {
                tags.insert(leg, value);
            } else if let Some(stream) = name.strip_suffix("_rtp_relayed_packets") {
                let leg = stream.split('_').next().unwrap_or_default();
                self.streams.push(Stream {
                    call_id: call_id.to_owned(),
                    peer: tags.get(leg).copied().unwrap_or_default().to_owned(),
                    origin: "cdr",
                    packets: value.parse().ok(),
                    ..Stream::default()
                });
            }
        }
    }

    /// The oldest streams, when so many came behind them that their calls are over; to be taken after each line.
    pub fn settled(&mut self) -> impl Iterator<Item = Stream> + '_ {
        // Rarely and many at once: the rest moves up.
        let over = if self.streams.len() < 2 * TRACE_LOG_STREAMS { 0 } else { TRACE_LOG_STREAMS };
        self.streams.drain(..over)
    }

    pub fn finish(self) -> Vec<Stream> {
        self.streams
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}
