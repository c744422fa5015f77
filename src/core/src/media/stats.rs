//! What came from one peer, source by source: counts, loss, jitter, round trips, and samples of them over time.
//!
//! RFC 3550 appendix A.1 and A.3 (extended sequence numbers, loss), A.8 (jitter), §6.4.1 (round trip).
//! In: RTP headers with their arrival, and the RTCP that passes through. Out: [`StreamStats`].
//! There are two views. *Measured* is what arrived here: it exists without any RTCP. *Reported* is what a peer said
//! in its receiver reports about what it got from us.
//! Not here: a MOS (`mos`), which view is shown (`relay`).

use super::plan::PayloadFormat;
use super::rtcp::{self, ReportBlock};
use super::rtp::Header;
use crate::limits::{MEDIA_SAMPLES, MEDIA_STREAMS};
use crate::time::Instant;
use std::time::Duration;

/// RFC 3550 A.1: a jump ahead beyond this is a restart, not loss (one minute of 20 ms packets).
const MAX_DROPOUT: u16 = 3000;
/// RFC 3550 A.1: older than this is a restart, not reordering.
const MAX_MISORDER: u16 = 100;
/// How often a stream is sampled by what arrived.
const MEASURE_EVERY: Duration = Duration::from_secs(2);
/// A sample that comes sooner after the last that was kept says nothing new.
const SAMPLE_SPACING: Duration = Duration::from_secs(1);
/// A round trip beyond this is a mistaken report.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);
/// Sender reports of one source that a receiver report may still answer.
const KEPT_SENDER_REPORTS: usize = 4;

/// The state of a path at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at: Instant,
    /// In 256ths, of the packets since the sample before (RFC 3550 §6.4.1).
    pub fraction_lost: u8,
    pub jitter_us: u32,
    /// Peer to peer, over both legs, as far as they are known; `None` where neither is.
    pub round_trip: Option<Duration>,
}

/// Samples in time order. When it is full, every other one goes and the spacing doubles.
#[derive(Clone, Debug)]
pub struct Series {
    samples: Vec<Sample>,
    spacing: Duration,
}

impl Default for Series {
    fn default() -> Self {
        Series { samples: Vec::new(), spacing: SAMPLE_SPACING }
    }
}

impl Series {
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    fn push(&mut self, sample: Sample) {
        if self.samples.last().is_some_and(|last| sample.at.saturating_since(last.at) < self.spacing) {
            return;
        }
        if self.samples.len() >= MEDIA_SAMPLES {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.spacing *= 2;
        }
        self.samples.push(sample);
    }
}

/// RFC 3550 A.1, A.3 and A.8 for one source.
#[derive(Clone, Debug)]
struct Reception {
    /// The very first number.
    first: u64,
    base: u64,
    /// Highest extended sequence number.
    highest: u64,
    /// Which of the 64 up to `highest` came.
    seen: u64,
    received: u64,
    /// From before restarts.
    expected_before: u64,
    received_before: u64,
    /// Where a restart would go on, if this was one.
    suspect: Option<u16>,
    expected_prior: u64,
    received_prior: u64,
    transit: Option<u32>,
    /// Sixteenths of media clock ticks.
    jitter: u32,
}

enum Arrival {
    Next,
    Late,
    Duplicate,
    Restart,
    Suspect,
}

impl Reception {
    fn new(sequence: u16) -> Self {
        let sequence = u64::from(sequence) | 1 << 16;
        Reception {
            first: sequence,
            base: sequence,
            highest: sequence,
            seen: 1,
            received: 1,
            expected_before: 0,
            received_before: 0,
            suspect: None,
            expected_prior: 0,
            received_prior: 0,
            transit: None,
            jitter: 0,
        }
    }

    fn expected(&self) -> u64 {
        self.expected_before + self.highest.saturating_sub(self.base) + 1
    }

    fn received(&self) -> u64 {
        self.received_before + self.received
    }

    fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received())
    }

    /// A jump is taken for a restart when a second packet follows on it; then what was counted before stays, and
    /// the gap is no loss.
    fn arrived(&mut self, sequence: u16) -> Arrival {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead == 0 {
            return Arrival::Duplicate;
        }
        if ahead < MAX_DROPOUT {
            self.highest += u64::from(ahead);
            self.seen = if ahead < 64 { self.seen << ahead } else { 0 } | 1;
            self.received += 1;
            self.suspect = None;
            return Arrival::Next;
        }
        let behind = ahead.wrapping_neg();
        if behind <= MAX_MISORDER {
            let extended = self.highest.saturating_sub(u64::from(behind));
            if behind < 64 {
                if self.seen >> behind & 1 == 1 {
                    return Arrival::Duplicate;
                }
                self.seen |= 1 << behind;
            }
            self.base = self.base.min(extended);
            self.received += 1;
            return Arrival::Late;
        }
        if self.suspect != Some(sequence) {
            self.suspect = Some(sequence.wrapping_add(1));
            return Arrival::Suspect;
        }
        self.expected_before = self.expected();
        self.received_before = self.received();
        let first = sequence.wrapping_sub(1);
        self.base = u64::from(first) | 1 << 16;
        self.highest = self.base + 1;
        self.seen = 0b11;
        self.received = 2;
        self.suspect = None;
        Arrival::Restart
    }

    /// RFC 3550 A.8.
    fn jitter(&mut self, now: Instant, timestamp: u32, clock_rate: u32) {
        let arrival = (u128::from(now.0) * u128::from(clock_rate) / 1_000_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(before) = self.transit {
            let difference = (transit.wrapping_sub(before) as i32).unsigned_abs();
            // A step of more than two seconds is a new timeline, not jitter.
            if difference < clock_rate.saturating_mul(2) {
                let decay = self.jitter.saturating_add(8) >> 4;
                self.jitter = self.jitter.saturating_add(difference).saturating_sub(decay);
            }
        }
        self.transit = Some(transit);
    }

    /// Fraction lost since the last call (RFC 3550 A.3).
    fn take_fraction(&mut self) -> u8 {
        let expected = self.expected().saturating_sub(self.expected_prior);
        let received = self.received().saturating_sub(self.received_prior);
        self.expected_prior = self.expected();
        self.received_prior = self.received();
        match expected.saturating_sub(received) {
            0 => 0,
            lost => (lost * 256 / expected).min(255) as u8,
        }
    }
}

/// What the peer that receives a source reported of it last: loss and jitter of the whole way, before us and behind us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FarEnd {
    pub at: Instant,
    /// Since its first packet.
    pub lost: u32,
    pub expected: u64,
    pub jitter_us: u32,
}

/// One source of one peer.
#[derive(Clone, Debug)]
struct Stream {
    ssrc: u32,
    payload_type: u8,
    encoding: Option<usize>,
    clock_rate: u32,
    packets: u64,
    bytes: u64,
    first: Instant,
    last: Instant,
    reception: Option<Reception>,
    sampled: Instant,
    measured: Series,
    reported: Series,
    /// Sender reports as they passed: LSR, and when.
    sender_reports: [Option<(u32, Instant)>; KEPT_SENDER_REPORTS],
    next_sender_report: usize,
    /// Between us and the peer that receives this source.
    round_trip: Option<Duration>,
    far_end: Option<FarEnd>,
}

/// What a caller is told of one source.
#[derive(Clone, Debug)]
pub struct StreamStats {
    pub ssrc: u32,
    /// Of its last audible packet.
    pub payload_type: u8,
    pub clock_rate: u32,
    /// From the SDP; `None` for a payload type that it does not have.
    pub encoding: Option<String>,
    pub packets: u64,
    pub bytes: u64,
    /// Packets that should have come to us and did not.
    pub lost: u64,
    /// Packets that should have come to us.
    pub expected: u64,
    pub jitter_us: u32,
    pub first: Instant,
    pub last: Instant,
    /// How it arrived here.
    pub measured: Vec<Sample>,
    /// What its sender reported of what it received: quality in the other direction.
    pub reported: Vec<Sample>,
    /// Between us and the peer that receives this source.
    pub round_trip: Option<Duration>,
    /// What that peer received of it, if it tells.
    pub far_end: Option<FarEnd>,
}

/// All sources of one peer.
#[derive(Debug, Default)]
pub struct Streams {
    streams: Vec<Stream>,
    formats: Vec<PayloadFormat>,
}

impl Streams {
    /// What payload types mean from now on.
    pub fn set_formats(&mut self, formats: &[PayloadFormat]) {
        if self.formats != formats {
            self.formats = formats.to_vec();
            for stream in &mut self.streams {
                stream.encoding = None;
                stream.payload_type = u8::MAX;
            }
        }
    }

    fn find(&mut self, ssrc: u32, now: Instant) -> Option<&mut Stream> {
        if let Some(at) = self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            return self.streams.get_mut(at);
        }
        if self.streams.len() >= MEDIA_STREAMS {
            return None;
        }
        self.streams.push(Stream {
            ssrc,
            payload_type: u8::MAX,
            encoding: None,
            clock_rate: 8000,
            packets: 0,
            bytes: 0,
            first: now,
            last: now,
            reception: None,
            sampled: now,
            measured: Series::default(),
            reported: Series::default(),
            sender_reports: [None; KEPT_SENDER_REPORTS],
            next_sender_report: 0,
            round_trip: None,
            far_end: None,
        });
        self.streams.last_mut()
    }

    /// An RTP packet of this peer arrived; `bytes` is its length without SRTP's tag.
    /// When a sample is due, `round_trip` makes the whole way of the one between us and who receives this source.
    pub fn rtp(
        &mut self,
        now: Instant,
        header: &Header,
        bytes: usize,
        round_trip: impl FnOnce(Option<Duration>) -> Option<Duration>,
    ) {
        let format = self.formats.iter().position(|format| format.payload_type == header.payload_type);
        let aside = format.and_then(|at| self.formats.get(at)).map(|format| {
            let name = &format.encoding;
            let aside = name.eq_ignore_ascii_case("telephone-event") || name.eq_ignore_ascii_case("CN");
            (aside, format.clock_rate.max(1))
        });
        // RFC 3551 §6: 13 is comfort noise whether or not the SDP says so.
        let (aside, clock_rate) = aside.unwrap_or((header.payload_type == 13, 8000));
        let Some(stream) = self.find(header.ssrc, now) else { return };
        stream.packets += 1;
        stream.bytes += bytes as u64;
        stream.last = now;
        let (reception, arrival) = match &mut stream.reception {
            Some(reception) => {
                let arrival = reception.arrived(header.sequence);
                (reception, arrival)
            }
            none => {
                stream.sampled = now;
                (none.insert(Reception::new(header.sequence)), Arrival::Next)
            }
        };
        if aside {
            // Events repeat one timestamp (RFC 4733 §2.5.1.2) and comfort noise comes when it likes: no jitter.
            reception.transit = None;
        } else {
            if stream.payload_type != header.payload_type || stream.clock_rate != clock_rate {
                stream.payload_type = header.payload_type;
                stream.encoding = format;
                stream.clock_rate = clock_rate;
                reception.transit = None;
            }
            match arrival {
                // §6.4.1: in order of arrival, not necessarily in sequence.
                Arrival::Next | Arrival::Late => {
                    // A talkspurt begins: senders that stop their clock in silence would seem to jitter.
                    if header.marker {
                        reception.transit = None;
                    }
                    reception.jitter(now, header.timestamp, clock_rate);
                }
                Arrival::Restart => reception.transit = None,
                Arrival::Duplicate | Arrival::Suspect => {}
            }
        }
        if now.saturating_since(stream.sampled) >= MEASURE_EVERY {
            stream.sampled = now;
            let round_trip = round_trip(stream.round_trip);
            let fraction_lost = reception.take_fraction();
            let jitter_us = stream.jitter_us();
            stream.measured.push(Sample { at: now, fraction_lost, jitter_us, round_trip });
        }
    }

    /// A sender report of this peer passes on to the other.
    pub fn sender_report(&mut self, now: Instant, info: &rtcp::SenderInfo) {
        if let Some(stream) = self.find(info.ssrc, now) {
            let at = stream.next_sender_report % KEPT_SENDER_REPORTS;
            stream.sender_reports[at] = Some((info.ntp_middle(), now));
            stream.next_sender_report = at + 1;
        }
    }

    /// The other peer reports on a source of this one: gives the clock rate, and the round trip between us and it.
    pub fn reported_on(&mut self, now: Instant, block: &ReportBlock) -> Option<(u32, Option<Duration>)> {
        let stream = self.streams.iter_mut().find(|stream| stream.ssrc == block.ssrc)?;
        let passed = stream
            .sender_reports
            .iter()
            .flatten()
            .find(|(lsr, _)| *lsr == block.last_sr && block.last_sr != 0)
            .map(|(_, at)| now.saturating_since(*at));
        let held = Duration::from_micros(u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536);
        let round_trip = passed
            .and_then(|passed| passed.checked_sub(held))
            .filter(|round_trip| !round_trip.is_zero() && *round_trip <= MAX_ROUND_TRIP);
        if round_trip.is_some() {
            stream.round_trip = round_trip;
        }
        stream.far_end = stream.reception.as_ref().map(|reception| {
            // Its count of roll-overs begins with its first packet, as ours does.
            let first = reception.first & 0xffff;
            let expected = u64::from(block.highest_sequence).saturating_sub(first) + 1;
            FarEnd {
                at: now,
                lost: block.cumulative_lost.max(0).unsigned_abs(),
                expected: expected.min(reception.expected()),
                jitter_us: ticks_to_us(block.jitter, stream.clock_rate),
            }
        });
        Some((stream.clock_rate, round_trip))
    }

    /// Files a report under this peer's source that sent it.
    pub fn keep_report(&mut self, now: Instant, reporter: u32, sample: Sample) {
        if let Some(stream) = self.find(reporter, now) {
            stream.reported.push(sample);
        }
    }

    /// The jitter of a source after its last packet (RFC 3550 A.8).
    pub fn jitter_us(&self, ssrc: u32) -> Option<u32> {
        self.streams.iter().find(|stream| stream.ssrc == ssrc).map(Stream::jitter_us)
    }

    /// The last round trip between us and who receives this source.
    pub fn round_trip(&self, ssrc: u32) -> Option<Duration> {
        self.streams.iter().find(|stream| stream.ssrc == ssrc)?.round_trip
    }

    /// The last round trip of any source of this peer to its receiver.
    pub fn any_round_trip(&self) -> Option<Duration> {
        self.streams.iter().rev().find_map(|stream| stream.round_trip)
    }

    /// All sources. One that was never sampled, or not lately, gets a last sample of what came since.
    pub fn snapshot(&self, round_trip: impl Fn(u32) -> Option<Duration>) -> Vec<StreamStats> {
        self.streams.iter().map(|stream| stream.snapshot(&self.formats, round_trip(stream.ssrc))).collect()
    }
}

impl Stream {
    fn jitter_us(&self) -> u32 {
        let Some(reception) = &self.reception else { return 0 };
        // Not cut off to whole ticks first: at 8000 a second one of them is 125 us.
        ticks_to_us(reception.jitter, self.clock_rate) >> 4
    }

    fn snapshot(&self, formats: &[PayloadFormat], round_trip: Option<Duration>) -> StreamStats {
        let mut measured = self.measured.clone();
        if let Some(mut reception) = self.reception.clone() {
            measured.push(Sample {
                at: self.last,
                fraction_lost: reception.take_fraction(),
                jitter_us: self.jitter_us(),
                round_trip,
            });
        }
        StreamStats {
            ssrc: self.ssrc,
            payload_type: self.payload_type,
            clock_rate: self.clock_rate,
            encoding: self.encoding.and_then(|at| formats.get(at)).map(|format| format.encoding.clone()),
            packets: self.packets,
            bytes: self.bytes,
            lost: self.reception.as_ref().map_or(0, Reception::lost),
            expected: self.reception.as_ref().map_or(0, Reception::expected),
            jitter_us: self.jitter_us(),
            first: self.first,
            last: self.last,
            measured: measured.samples,
            reported: self.reported.samples.clone(),
            round_trip: self.round_trip,
            far_end: self.far_end,
        }
    }
}

/// Media clock ticks as microseconds.
pub(super) fn ticks_to_us(ticks: u32, clock_rate: u32) -> u32 {
    (u64::from(ticks) * 1_000_000 / u64::from(clock_rate.max(1))).min(u32::MAX.into()) as u32
}

#[cfg(test)]
mod tests;
