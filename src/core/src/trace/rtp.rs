//! RTP and RTCP in a capture: streams with their quality, each with its call where the capture has the signalling.
//!
//! RFC 3550 by [`media`](crate::media). In: packets. Out: [`Stream`]s, scored by [`quality`](super::quality). What SIP in the
//! same capture says of an address (`described`) gives Call-ID, from, to, and what its payload types mean; without it
//! static payload types have their names, and a flow counts from ten packets on, as much looks like RTP. When another call
//! takes an address over, its streams are new ones. Not here: SRTP's contents, sockets.

use super::described::{About, Described, static_formats};
use super::quality::{Point, Stream};
use super::{Finder, Link, Traced};
use crate::limits::TRACE_RTP_FLOWS;
use crate::media::demux::{Kind, classify};
use crate::media::plan::PayloadFormat;
use crate::media::rtcp;
use crate::media::rtp::Header;
use crate::media::stats::{Sample, StreamStats, Streams};
use crate::mos::fraction_lost_percent;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Packets with numbers of their own under which a flow is taken for something that only looks like RTP, unless an SDP
/// names it.
const PACKETS: u64 = 10;

/// Source and destination.
type Ends = (SocketAddr, SocketAddr);

/// What went one way between two addresses, in one call.
#[derive(Debug)]
struct Flow {
    streams: Streams,
    formats: Arc<Vec<PayloadFormat>>,
    about: Option<Arc<About>>,
    ptime: Option<u32>,
    /// Of what was said of it last.
    serial: u64,
    /// By source: sum, count and greatest of the jitter after each packet but the first.
    jitter: BTreeMap<u32, (u64, u64, u32)>,
}

impl Flow {
    fn new() -> Flow {
        let formats = Arc::new(static_formats());
        let mut streams = Streams::default();
        streams.set_formats(&formats);
        Flow { streams, formats, about: None, ptime: None, serial: 0, jitter: BTreeMap::new() }
    }

    fn finish(&self, (source, destination): Ends, out: &mut Vec<Stream>) {
        for stats in self.streams.snapshot(|_| None) {
            // What only looks like RTP does not count up: NetBIOS has the same two bytes in each packet.
            let numbered = stats.expected.saturating_sub(stats.lost);
            if self.about.is_none() && (numbered < PACKETS || numbered < stats.packets / 2) {
                continue;
            }
            let format = |pt| self.formats.iter().find(|format| format.payload_type == pt);
            let codec = stats.encoding.clone().or_else(|| Some(format(stats.payload_type)?.encoding.clone()));
            let jitter = self.jitter.get(&stats.ssrc).filter(|(_, count, _)| *count > 0);
            out.push(Stream {
                call_id: self.about.as_ref().map_or_else(String::new, |about| about.call_id.clone()),
                from: self.about.as_ref().map(|about| about.from.clone()),
                to: self.about.as_ref().map(|about| about.to.clone()),
                ptime: self.ptime,
                peer: format!("{source} > {destination}"),
                codec,
                jitter_us: jitter.map(|(sum, count, most)| ((sum / count) as u32, *most)),
                ..of_stats(stats)
            });
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Rtp {
    finder: Finder,
    described: Described,
    flows: BTreeMap<Ends, Flow>,
    found: Vec<Traced>,
    done: Vec<Stream>,
    /// Packets, and streams that had ended, for which there was no room: what is told is not all.
    pub passed_over: u64,
}

impl Rtp {
    /// One packet of a capture, by its number there.
    pub fn packet(&mut self, number: u64, now: Instant, link: Link, data: &[u8]) {
        let Rtp { finder, described, flows, found, done, passed_over } = self;
        finder.packet_and(number, now, link, data, found, |source, destination, payload| {
            match classify(payload) {
                Kind::Rtp => {
                    let kept = rtp_packet(described, flows, done, now, (source, destination), payload);
                    *passed_over += u64::from(!kept);
                }
                Kind::Rtcp => rtcp_packet(flows, now, source, destination, payload),
                Kind::Stun | Kind::Dtls | Kind::Other => {}
            }
        });
        for traced in found.drain(..) {
            described.message(&traced);
        }
    }

    pub fn finish(mut self) -> Vec<Stream> {
        for (ends, mut flow) in self.flows {
            if flow.about.is_none()
                && let Some(media) = self.described.find(Instant(0), ends.0, ends.1)
            {
                // Its SDP came after the last of its packets.
                flow.about = Some(Arc::clone(&media.about));
                flow.formats = Arc::clone(&media.formats);
                flow.ptime = media.ptime;
            }
            flow.finish(ends, &mut self.done);
        }
        self.done
    }
}

/// Whether there was room for all of it.
fn rtp_packet(
    described: &mut Described,
    flows: &mut BTreeMap<Ends, Flow>,
    done: &mut Vec<Stream>,
    now: Instant,
    ends: Ends,
    payload: &[u8],
) -> bool {
    let Some(header) = Header::parse(payload) else { return true };
    if !flows.contains_key(&ends) && flows.len() >= TRACE_RTP_FLOWS {
        return false;
    }
    let mut kept = true;
    let back = flows.get(&(ends.1, ends.0)).and_then(|flow| flow.streams.any_round_trip());
    let flow = flows.entry(ends).or_insert_with(Flow::new);
    if let Some(media) = described.find(now, ends.0, ends.1)
        && media.serial != flow.serial
    {
        if flow.about.as_ref().is_some_and(|about| *about != media.about) {
            kept = done.len() < TRACE_RTP_FLOWS;
            if kept {
                flow.finish(ends, done);
            }
            *flow = Flow::new();
        }
        flow.serial = media.serial;
        flow.about = Some(Arc::clone(&media.about));
        flow.formats = Arc::clone(&media.formats);
        flow.ptime = media.ptime;
        flow.streams.set_formats(&flow.formats);
    }
    flow.streams.rtp(now, &header, payload.len(), |way| sum(way, back));
    if let Some(jitter) = flow.streams.jitter_us(header.ssrc) {
        match flow.jitter.entry(header.ssrc) {
            // One packet has none.
            Entry::Vacant(entry) => {
                entry.insert((0, 0, 0));
            }
            Entry::Occupied(mut entry) => {
                let (sum, count, most) = entry.get_mut();
                *sum += u64::from(jitter);
                *count += 1;
                *most = (*most).max(jitter);
            }
        }
    }
    kept
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
    flows: &mut BTreeMap<Ends, Flow>,
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
        if let (Some(info), Some(flow)) = (packet.sender_info(), flows.get_mut(&(source, destination))) {
            flow.streams.sender_report(now, &info);
        }
        let Some(reporter) = packet.sender() else { continue };
        for block in packet.reports() {
            let Some((clock_rate, way)) =
                flows.get_mut(&(destination, source)).and_then(|flow| flow.streams.reported_on(now, &block))
            else {
                continue;
            };
            let Some(Flow { streams, .. }) = flows.get_mut(&(source, destination)) else { continue };
            let jitter_us = u64::from(block.jitter) * 1_000_000 / u64::from(clock_rate.max(1));
            let sample = Sample {
                at: now,
                fraction_lost: block.fraction_lost,
                jitter_us: u32::try_from(jitter_us).unwrap_or(u32::MAX),
                round_trip: sum(way, streams.any_round_trip()),
            };
            streams.keep_report(now, reporter, sample);
        }
    }
}
