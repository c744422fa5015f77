//! Two legs and what passes between them.
//!
//! RFC 3550 §7 (a translator forwards RTP and RTCP with their SSRCs), RFC 4585 §4.2 (no feedback for who did not agree),
//! RFC 5761 (one port on one side, two on the other).
//! In: plans, datagrams with where they came in, time. Out: the same buffer to be sent elsewhere, datagrams of our own,
//! events, counts. Not here: sockets, and which packets of other bridges come when (`sipbox-io`, `media`).

use super::demux::{self, Kind};
use super::dtls::Identity;
use super::ice::Anchor;
use super::leg::{Component, Leg, Own};
use super::plan::{Arriving, LegPlan, Side};
use super::rtp::{self, Header};
use super::srtp::{self, Suite};
use super::stats::{Sample, StreamStats, Streams, ticks_to_us};
use super::{rtcp, srtp::Error};
use crate::time::Instant;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// What is to be done with a datagram that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send `buffer[..length]` from this port.
    Forward {
        side: Side,
        component: Component,
        to: SocketAddr,
        length: usize,
    },
    /// It was for us: STUN or DTLS. Look whether there is something to transmit.
    Consumed,
    Dropped(DropReason),
}

/// Why a datagram went no further; the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Neither STUN, DTLS, RTP nor RTCP, or with a broken header.
    Malformed,
    /// STUN or DTLS on a leg that has none.
    Unexpected,
    /// From an address that is not this peer's.
    Source,
    /// STUN that our agent does not take: another user's, or without integrity.
    Stun,
    /// DTLS beyond what one peer may send.
    Dtls,
    /// No keys on one of the legs yet.
    NoKeys,
    /// Not authentic.
    Authentication,
    /// Seen before, or too old.
    Replay,
    /// Longer than a packet may be, with a tag.
    TooLong,
    /// A leg has more sources than it may, or used up its keys.
    Exhausted,
    /// The other leg is not known yet, or not where.
    NoDestination,
    /// The other peer does not want to receive now (hold).
    Direction,
    /// Feedback for a peer that did not agree to it.
    Feedback,
    /// Not to be passed on (`media-echo`).
    Echo,
}

impl DropReason {
    pub const ALL: [DropReason; 14] = [
        DropReason::Malformed,
        DropReason::Unexpected,
        DropReason::Source,
        DropReason::Stun,
        DropReason::Dtls,
        DropReason::NoKeys,
        DropReason::Authentication,
        DropReason::Replay,
        DropReason::TooLong,
        DropReason::Exhausted,
        DropReason::NoDestination,
        DropReason::Direction,
        DropReason::Feedback,
        DropReason::Echo,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Malformed => "malformed",
            DropReason::Unexpected => "unexpected",
            DropReason::Source => "source",
            DropReason::Stun => "stun",
            DropReason::Dtls => "dtls",
            DropReason::NoKeys => "no-keys",
            DropReason::Authentication => "authentication",
            DropReason::Replay => "replay",
            DropReason::TooLong => "too-long",
            DropReason::Exhausted => "exhausted",
            DropReason::NoDestination => "no-destination",
            DropReason::Direction => "direction",
            DropReason::Feedback => "feedback",
            DropReason::Echo => "echo",
        }
    }

    /// Whether `errors` in ng's statistics counts it: the packet itself was at fault.
    pub const fn is_error(self) -> bool {
        match self {
            DropReason::Malformed
            | DropReason::Source
            | DropReason::Stun
            | DropReason::Dtls
            | DropReason::Authentication
            | DropReason::Replay
            | DropReason::TooLong
            | DropReason::Exhausted => true,
            DropReason::Unexpected
            | DropReason::NoKeys
            | DropReason::NoDestination
            | DropReason::Direction
            | DropReason::Feedback
            | DropReason::Echo => false,
        }
    }
}

impl From<Error> for DropReason {
    fn from(error: Error) -> Self {
        match error {
            Error::Malformed | Error::Unencrypted => DropReason::Malformed,
            Error::Authentication => DropReason::Authentication,
            Error::Replay => DropReason::Replay,
            Error::NoRoom => DropReason::TooLong,
            Error::TooManySources | Error::Exhausted => DropReason::Exhausted,
            Error::Key => DropReason::NoKeys,
        }
    }
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pair is nominated; media of this side goes there.
    IceConnected {
        side: Side,
        remote: SocketAddr,
    },
    /// No pair answers any more.
    IceDisconnected {
        side: Side,
    },
    /// The handshake is done, and the peer is who its SDP said.
    DtlsConnected {
        side: Side,
        suite: Suite,
    },
    /// The peer's certificate is none of those that its SDP named: no keys, no media.
    FingerprintMismatch {
        side: Side,
    },
    DtlsFailed {
        side: Side,
        reason: String,
    },
    /// A plain leg's peer really is here.
    Learned {
        side: Side,
        component: Component,
        address: SocketAddr,
    },
}

/// A datagram of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub side: Side,
    pub component: Component,
    pub to: SocketAddr,
    pub data: Vec<u8>,
}

/// Packets, bytes, and what was at fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
    pub errors: u64,
    pub last: Option<Instant>,
}

impl Counter {
    fn add(&mut self, now: Instant, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
        self.last = Some(now);
    }
}

/// What is known of one side.
#[derive(Clone, Debug, Default)]
pub struct SideStats {
    /// What this peer sent and we took, in plain length.
    pub rtp: Counter,
    pub rtcp: Counter,
    /// What we sent to this peer.
    pub sent: Counter,
    /// Where its RTP comes from and goes to.
    pub remote_rtp: Option<SocketAddr>,
    pub remote_rtcp: Option<SocketAddr>,
    pub suite: Option<Suite>,
    pub ice_connected: bool,
    /// Its sources: quality of what it sends, as it arrived here.
    pub streams: Vec<StreamStats>,
    pub drops: Vec<(DropReason, u64)>,
}

/// What is known of a bridge.
#[derive(Clone, Debug, Default)]
pub struct BridgeStats {
    pub offerer: SideStats,
    pub answerer: SideStats,
}

impl BridgeStats {
    pub fn side(&self, side: Side) -> &SideStats {
        match side {
            Side::Offerer => &self.offerer,
            Side::Answerer => &self.answerer,
        }
    }

    /// When anything was taken last, from either side.
    pub fn last(&self) -> Option<Instant> {
        [&self.offerer, &self.answerer]
            .iter()
            .flat_map(|side| [side.rtp.last, side.rtcp.last])
            .flatten()
            .max()
    }
}

/// One side with what is counted of it.
#[derive(Default)]
struct Half {
    leg: Option<Leg>,
    streams: Streams,
    rtp: Counter,
    rtcp: Counter,
    sent: Counter,
    drops: [u64; DropReason::ALL.len()],
}

impl Half {
    fn count_drop(&mut self, reason: DropReason, rtcp: bool) {
        self.drops[reason as usize] += 1;
        if reason.is_error() {
            let counter = if rtcp { &mut self.rtcp } else { &mut self.rtp };
            counter.errors += 1;
        }
    }
}

/// Two legs of one m-line.
pub struct Bridge {
    identity: Identity,
    anchor: Anchor,
    offerer: Half,
    answerer: Half,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    deadline: Option<Instant>,
}

impl Bridge {
    /// Without any plan yet: what comes is dropped and counted.
    pub fn new(identity: Identity, anchor: Anchor) -> Bridge {
        Bridge {
            identity,
            anchor,
            offerer: Half::default(),
            answerer: Half::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            deadline: None,
        }
    }

    /// What this side is from now on; what did not change goes on.
    pub fn apply(&mut self, now: Instant, side: Side, plan: LegPlan) {
        let (half, _) = self.halves(side);
        half.streams.set_formats(&plan.payloads);
        let (identity, anchor) = (self.identity.clone(), self.anchor);
        let (half, _) = self.halves(side);
        match &mut half.leg {
            Some(leg) => leg.apply(plan, &identity, now),
            none => *none = Some(Leg::new(side, plan, &identity, now, anchor)),
        }
        self.settle(now);
    }

    fn halves(&mut self, side: Side) -> (&mut Half, &mut Half) {
        match side {
            Side::Offerer => (&mut self.offerer, &mut self.answerer),
            Side::Answerer => (&mut self.answerer, &mut self.offerer),
        }
    }

    /// One datagram, `buffer[..length]`, that came in on a port of this side. The buffer has
    /// [`srtp::OVERHEAD`] bytes of room behind it.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        side: Side,
        component: Component,
        from: SocketAddr,
        buffer: &mut [u8],
        length: usize,
    ) -> Verdict {
        let Some(datagram) = buffer.get(..length) else { return Verdict::Dropped(DropReason::Malformed) };
        if component == Component::Rtp
            && let (Half { leg: Some(leg), .. }, _) = self.halves(side)
            && leg.plan.opaque
        {
            return self.forward_opaque(now, side, from, length);
        }
        let kind = demux::classify(datagram);
        let rtcp = kind == Kind::Rtcp || component == Component::Rtcp;
        let (half, other) = self.halves(side);
        let result = match (kind, &mut half.leg) {
            (Kind::Rtp | Kind::Rtcp, _) => {
                let came = (component, from);
                match forward(now, side, (half, other), came, buffer, length, rtcp) {
                    Ok((verdict, None)) => return verdict,
                    Ok((verdict, Some(address))) => {
                        self.events.push_back(Event::Learned { side, component, address });
                        return verdict;
                    }
                    Err(reason) => Err(reason),
                }
            }
            (Kind::Stun, Some(leg)) => leg.handle_stun(now, component, from, datagram),
            (Kind::Dtls, Some(leg)) => leg.handle_dtls(now, component, from, datagram),
            (Kind::Stun | Kind::Dtls, _) => Err(DropReason::Unexpected),
            (Kind::Other, _) => Err(DropReason::Malformed),
        };
        match result {
            Ok(()) => {
                self.settle(now);
                Verdict::Consumed
            }
            Err(reason) => {
                let (half, _) = self.halves(side);
                half.count_drop(reason, rtcp);
                Verdict::Dropped(reason)
            }
        }
    }

    /// A datagram that nobody looks into: the address that it came from is learned as RTP's would be.
    fn forward_opaque(&mut self, now: Instant, side: Side, from: SocketAddr, length: usize) -> Verdict {
        let (half, other) = self.halves(side);
        let admitted = half.leg.as_mut().map_or(Err(DropReason::Source), |leg| leg.admit_opaque(now, from));
        let arriving = half.leg.as_ref().map_or(Arriving::Across, |leg| leg.plan.arriving);
        let result = admitted.and_then(|learned| {
            half.rtp.add(now, length);
            let (toward, receiver) = match arriving {
                Arriving::Across => (side.other(), other),
                Arriving::Back => (side, half),
                Arriving::Dropped => return Err(DropReason::Echo),
            };
            let leg = receiver.leg.as_ref().ok_or(DropReason::NoDestination)?;
            let to = leg
                .destination(Component::Rtp)
                .filter(|_| leg.plan.opaque)
                .ok_or(DropReason::NoDestination)?;
            receiver.sent.add(now, length);
            Ok((learned, toward, to))
        });
        match result {
            Ok((learned, toward, to)) => {
                if let Some(address) = learned {
                    self.events.push_back(Event::Learned { side, component: Component::Rtp, address });
                }
                Verdict::Forward { side: toward, component: Component::Rtp, to, length }
            }
            Err(reason) => {
                let (half, _) = self.halves(side);
                half.count_drop(reason, false);
                Verdict::Dropped(reason)
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        for half in [&mut self.offerer, &mut self.answerer] {
            if let Some(leg) = &mut half.leg {
                leg.handle_timeout(now);
            }
        }
        self.settle(now);
    }

    /// The next datagram of our own.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Whether [`poll_event`](Self::poll_event) has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn settle(&mut self, now: Instant) {
        let mut own: Vec<Own> = Vec::new();
        self.deadline = None;
        for (side, half) in [(Side::Offerer, &mut self.offerer), (Side::Answerer, &mut self.answerer)] {
            let Some(leg) = &mut half.leg else { continue };
            leg.settle(&self.identity, now, &mut own, &mut self.events);
            let transmit = |(component, to, data)| Transmit { side, component, to, data };
            self.transmits.extend(own.drain(..).map(transmit));
            self.deadline = self.deadline.into_iter().chain(leg.poll_timeout()).min();
        }
    }

    /// What was counted so far.
    pub fn stats(&self) -> BridgeStats {
        BridgeStats {
            offerer: side_stats(&self.offerer, &self.answerer),
            answerer: side_stats(&self.answerer, &self.offerer),
        }
    }
}

fn side_stats(half: &Half, other: &Half) -> SideStats {
    let leg = half.leg.as_ref();
    SideStats {
        rtp: half.rtp,
        rtcp: half.rtcp,
        sent: half.sent,
        remote_rtp: leg.and_then(|leg| leg.destination(Component::Rtp)),
        remote_rtcp: leg.and_then(|leg| leg.destination(Component::Rtcp)),
        suite: leg.and_then(Leg::suite),
        ice_connected: leg.is_some_and(Leg::ice_connected),
        streams: half.streams.snapshot(|ssrc| end_to_end(&half.streams, &other.streams, ssrc)),
        drops: DropReason::ALL.into_iter().zip(half.drops).filter(|(_, count)| *count > 0).collect(),
    }
}

/// The round trip from a source of one peer to the other and back, as far as reports told of it.
fn end_to_end(here: &Streams, there: &Streams, ssrc: u32) -> Option<std::time::Duration> {
    match (here.round_trip(ssrc), there.any_round_trip()) {
        (Some(far), Some(near)) => Some(far + near),
        _ => None,
    }
}

/// Takes a media packet of one side to the other. Gives the verdict, and an address that was just learned.
fn forward(
    now: Instant,
    side: Side,
    (half, other): (&mut Half, &mut Half),
    (component, from): (Component, SocketAddr),
    buffer: &mut [u8],
    length: usize,
    rtcp: bool,
) -> Result<(Verdict, Option<SocketAddr>), DropReason> {
    let leg = half.leg.as_mut().ok_or(DropReason::Source)?;
    if buffer.len() < length + srtp::OVERHEAD {
        return Err(DropReason::TooLong);
    }
    // Nobody's address is learned from what is not even RTP.
    let header = Header::parse(&buffer[..length]);
    if !rtcp && header.is_none() || rtcp && rtcp::packets(&buffer[..length]).next().is_none() {
        return Err(DropReason::Malformed);
    }
    let (length, learned) = leg.receive(now, component, from, buffer, length, rtcp)?;
    if rtcp {
        half.rtcp.add(now, length);
        account_rtcp(now, half, other, &buffer[..length]);
    } else if let Some(header) = &header {
        half.rtp.add(now, length);
        let Half { streams, .. } = half;
        let near = || other.streams.any_round_trip();
        streams.rtp(now, header, length, |far| Some(far? + near()?));
    }
    // From here on the packet was good; that the other side does not take it is no fault of this one.
    let index = half.leg.as_ref().and_then(Leg::rtcp_index).filter(|_| rtcp);
    let arriving = half.leg.as_ref().map_or(Arriving::Across, |leg| leg.plan.arriving);
    let passed = match arriving {
        Arriving::Across => pass(other, buffer, length, index, rtcp),
        Arriving::Back if !rtcp => echo(half, buffer, length),
        // Reports on what is not passed on would mislead.
        Arriving::Back | Arriving::Dropped => Err(DropReason::Echo),
    };
    let verdict = match passed {
        Ok((component, to, length)) => {
            let (side, receiver) = match arriving {
                Arriving::Back => (side, half),
                Arriving::Across | Arriving::Dropped => (side.other(), other),
            };
            receiver.sent.add(now, length);
            Verdict::Forward { side, component, to, length }
        }
        Err(reason) => {
            half.count_drop(reason, rtcp);
            Verdict::Dropped(reason)
        }
    };
    Ok((verdict, learned))
}

/// Back to its sender. Its own source would look like a loop to him (RFC 3550 §8.2): it has another number.
fn echo(
    half: &mut Half,
    buffer: &mut [u8],
    length: usize,
) -> Result<(Component, SocketAddr, usize), DropReason> {
    let leg = half.leg.as_mut().ok_or(DropReason::NoDestination)?;
    if !leg.plan.peer_receives {
        return Err(DropReason::Direction);
    }
    for byte in buffer.get_mut(8..rtp::FIXED).ok_or(DropReason::Malformed)? {
        *byte = !*byte;
    }
    leg.send(buffer, length, false, None)
}

fn pass(
    other: &mut Half,
    buffer: &mut [u8],
    length: usize,
    index: Option<u32>,
    rtcp: bool,
) -> Result<(Component, SocketAddr, usize), DropReason> {
    let leg = other.leg.as_mut().ok_or(DropReason::NoDestination)?;
    let mut length = length;
    if rtcp {
        // Under its sender's own key nothing may change: other bytes at the same index would give both away.
        let as_it_came = index.is_some() && leg.has_shared_keys();
        if !leg.plan.feedback && !as_it_came {
            length = rtcp::strip_feedback(&mut buffer[..length]);
            if length == 0 {
                return Err(DropReason::Feedback);
            }
        }
    } else if !leg.plan.peer_receives {
        return Err(DropReason::Direction);
    }
    leg.send(buffer, length, rtcp, index)
}

/// Round trips and what the peer says it received, from the reports that pass.
fn account_rtcp(now: Instant, half: &mut Half, other: &mut Half, compound: &[u8]) {
    for packet in rtcp::packets(compound) {
        if let Some(info) = packet.sender_info() {
            half.streams.sender_report(now, &info);
        }
        let Some(reporter) = packet.sender() else { continue };
        for block in packet.reports() {
            // Only what the other side sent can be reported on.
            let Some((clock_rate, far)) = other.streams.reported_on(now, &block) else { continue };
            let round_trip = match (far, half.streams.round_trip(reporter)) {
                (None, None) => None,
                (far, near) => Some(far.unwrap_or_default() + near.unwrap_or_default()),
            };
            let sample = Sample {
                at: now,
                fraction_lost: block.fraction_lost,
                jitter_us: ticks_to_us(block.jitter, clock_rate),
                round_trip,
            };
            half.streams.keep_report(now, reporter, sample);
        }
    }
}

#[cfg(test)]
mod tests;
