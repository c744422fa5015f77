//! mos-report's logic: streams with their samples, out of replies and events of relays, rtpengine's log lines, and RTP.
//!
//! FEATURES of rtpengine's 2019 reply, log and CDR line; RFC 3550 by [`media`](crate::media). In: values, lines, packets. Out:
//! [`Stream`]s, and their [`Rating`] by a model of [`mos`](crate::mos), which alone has formulas. `legacy-2019` is of what
//! receivers reported, filed under who reported; G.107 of what arrived where it was measured, else of the same reports.
//! Not here: reading files, tables.

use super::{Link, Net, Segment};
use crate::limits::{TRACE_CALL_MESSAGES, TRACE_RTP_FLOWS};
use crate::media::demux::{Kind, classify};
use crate::media::plan::PayloadFormat;
use crate::media::rtcp;
use crate::media::rtp::Header;
use crate::media::stats::{Sample, StreamStats, Streams};
use crate::mos::{Codec, Delay, EModel, LegacySample, Model, fraction_lost_percent};
use crate::time::Instant;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Packets under which a flow is taken for something that only looks like RTP.
const PACKETS: u64 = 10;

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
    pub packets: Option<u64>,
    pub lost: Option<u64>,
    pub reported: Vec<Point>,
    pub measured: Vec<Point>,
    /// How many samples the reporter had, and the mean of their scores in tenths, where the progression is thinned out.
    stored: Option<(u64, u64)>,
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
        if self.streams.len() >= TRACE_CALL_MESSAGES {
            return;
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
                .find(|stream| stream.ssrc == self.ssrc && stream.call_id == self.call_id);
            if let (Some(stream), (Some(average), Some(lowest), Some(highest))) = (found, printed) {
                stream.printed = Some(Printed { average, lowest, highest });
            }
        } else if let Some(at) = line.find("ci=") {
            self.cdr(&line[at..]);
        }
    }

    /// FEATURES 5.2: comma-space separated, the leg in the name; no quality, but who sent how much.
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

    pub fn finish(self) -> Vec<Stream> {
        self.streams
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// RTP and RTCP of a capture.
#[derive(Debug, Default)]
pub struct Rtp {
    net: Net,
    flows: BTreeMap<(SocketAddr, SocketAddr), Streams>,
}

impl Rtp {
    pub fn packet(&mut self, now: Instant, link: Link, data: &[u8]) {
        let Some(Segment::Udp { source, destination, payload }) = self.net.segment(link, data) else {
            return;
        };
        match classify(payload) {
            Kind::Rtp => {
                let Some(header) = Header::parse(payload) else { return };
                let key = (source, destination);
                if !self.flows.contains_key(&key) && self.flows.len() >= TRACE_RTP_FLOWS {
                    return;
                }
                let back = self.flows.get(&(destination, source)).and_then(Streams::any_round_trip);
                let streams = self.flows.entry(key).or_insert_with(|| {
                    let mut streams = Streams::default();
                    streams.set_formats(&static_formats());
                    streams
                });
                streams.rtp(now, &header, payload.len(), |way| sum(way, back));
            }
            Kind::Rtcp => rtcp_packet(&mut self.flows, now, source, destination, payload),
            Kind::Stun | Kind::Dtls | Kind::Other => {}
        }
    }

    pub fn finish(self) -> Vec<Stream> {
        let flows = self.flows.into_iter();
        flows
            .flat_map(|((source, destination), streams)| {
                let all = streams.snapshot(|_| None);
                all.into_iter()
                    .filter(|stats| stats.packets >= PACKETS)
                    .map(move |stats| Stream { peer: format!("{source} > {destination}"), ..of_stats(stats) })
            })
            .collect()
    }
}

fn sum(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    (one.is_some() || other.is_some()).then(|| one.unwrap_or_default() + other.unwrap_or_default())
}

fn of_stats(stats: StreamStats) -> Stream {
    Stream {
        ssrc: Some(stats.ssrc),
        origin: "rtp",
        codec: stats.encoding,
        packets: Some(stats.packets),
        lost: Some(stats.lost),
        measured: stats
            .measured
            .iter()
            .map(|s| point(s, f64::from(s.fraction_lost) * 100.0 / 256.0))
            .collect(),
        reported: stats
            .reported
            .iter()
            .map(|s| point(s, f64::from(fraction_lost_percent(s.fraction_lost))))
            .collect(),
        ..Stream::default()
    }
}

fn point(sample: &Sample, loss_percent: f64) -> Point {
    Point {
        at: sample.at,
        loss_percent,
        jitter_us: sample.jitter_us,
        round_trip_us: sample.round_trip.map_or(0, |rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX)),
    }
}

/// Without rtcp-mux, RTCP has the ports above RTP's (RFC 3550 §11).
fn rtcp_packet(
    flows: &mut BTreeMap<(SocketAddr, SocketAddr), Streams>,
    now: Instant,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) {
    let below = |mut address: SocketAddr| {
        address.set_port(address.port().saturating_sub(1));
        address
    };
    let key = [(source, destination), (below(source), below(destination))]
        .into_iter()
        .find(|&(a, b)| flows.contains_key(&(a, b)) || flows.contains_key(&(b, a)));
    let Some((source, destination)) = key else { return };
    for packet in rtcp::packets(payload) {
        if let (Some(info), Some(streams)) = (packet.sender_info(), flows.get_mut(&(source, destination))) {
            streams.sender_report(now, &info);
        }
        let Some(reporter) = packet.sender() else { continue };
        for block in packet.reports() {
            let Some((clock_rate, way)) =
                flows.get_mut(&(destination, source)).and_then(|streams| streams.reported_on(now, &block))
            else {
                continue;
            };
            let Some(streams) = flows.get_mut(&(source, destination)) else { continue };
            let jitter_us = u64::from(block.jitter) * 1_000_000 / u64::from(clock_rate.max(1));
            let sample = Sample {
                at: now,
                fraction_lost: block.fraction_lost,
                jitter_us: saturated(jitter_us),
                round_trip: sum(way, streams.any_round_trip()),
            };
            streams.keep_report(now, reporter, sample);
        }
    }
}

/// Payload types that mean the same without any SDP (RFC 3551 §6).
fn static_formats() -> Vec<PayloadFormat> {
    let names = [(0, "PCMU"), (3, "GSM"), (4, "G723"), (8, "PCMA"), (9, "G722"), (13, "CN"), (18, "G729")];
    let format = |(payload_type, name): (u8, &str)| PayloadFormat {
        payload_type,
        encoding: name.to_owned(),
        clock_rate: 8000,
        channels: 1,
    };
    names.into_iter().map(format).collect()
}
