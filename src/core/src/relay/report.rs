//! What a call was like: the reply to `delete` and `query` in rtpengine's structure of 2019, and records of streams.
//!
//! In: a [`Call`] and its bridges' counts. Out: dictionaries and records. The MOS of the reply is `legacy-2019`, from
//! receiver reports that passed; what was measured here without them stands beside it under `measured`, by G.107.
//! Not here: how it was counted (`media::stats`), what the numbers mean (`mos`).

use super::call::{Branch, Call, Slot};
use crate::media::bridge::{BridgeStats, Counter};
use crate::media::plan::{DtlsRole, Learning, Side};
use crate::media::stats::{Sample, StreamStats};
use crate::mos::{Codec, Delay, EModel, LegacySample, Model, Score, fraction_lost_percent};
use crate::ng::{Dict, Value};
use crate::rewrite::Security;
use crate::time::Instant;
use std::net::SocketAddr;

/// The counts of one bridge of a call.
pub(super) struct Counted {
    pub branch: usize,
    pub media: usize,
    pub slot: Slot,
    pub stats: BridgeStats,
}

/// The dictionary of `delete`, `query` and the event `call-end`.
pub(super) fn report(call: &Call, counted: &[Counted]) -> Dict {
    let mut ssrcs = Dict::new();
    let mut measured = Vec::new();
    let (mut rtp, mut rtcp) = (Counter::default(), Counter::default());
    for one in counted {
        for side in [Side::Answerer, Side::Offerer] {
            let stats = one.stats.side(side);
            add(&mut rtp, &stats.rtp);
            add(&mut rtcp, &stats.rtcp);
            for stream in &stats.streams {
                ssrcs.set(&stream.ssrc.to_string(), legacy(&stream.reported));
                let tag = call
                    .branches
                    .get(one.branch)
                    .map_or("", |branch| branch.parties.party(side).tag.as_str());
                if stream.packets > 0 {
                    measured.push(measured_entry(tag, one.media, stream));
                }
            }
        }
    }
    let mut reply = Dict::new()
        .with("created", call.created.unix_secs())
        .with("created_us", call.created.subsec_micros())
        .with("last signal", call.last_signal.unix_secs())
        .with("SSRC", ssrcs)
        .with("tags", tags(call, counted))
        .with("totals", Dict::new().with("RTP", counter(&rtp)).with("RTCP", counter(&rtcp)));
    if !measured.is_empty() {
        reply.push("measured", measured);
    }
    reply
}

fn add(sum: &mut Counter, counter: &Counter) {
    sum.packets += counter.packets;
    sum.bytes += counter.bytes;
    sum.errors += counter.errors;
}

fn counter(counter: &Counter) -> Dict {
    Dict::new().with("packets", counter.packets).with("bytes", counter.bytes).with("errors", counter.errors)
}

/// Average, lowest, highest and progression of what a source reported; empty without samples.
fn legacy(samples: &[Sample]) -> Dict {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Dict::new() };
    let scored: Vec<(LegacySample, u64, Instant)> = samples
        .iter()
        .map(|sample| {
            let legacy = legacy_sample(sample);
            (legacy, u64::from(legacy.tenths()), sample.at)
        })
        .collect();
    let entry = |(sample, mos, at): &(LegacySample, u64, Instant)| {
        numbers(*sample, *mos).with("reported at", at.unix_secs())
    };
    // The first of equal extremes is kept.
    let lowest = scored.iter().rev().min_by_key(|(_, mos, _)| *mos);
    let highest = scored.iter().rev().max_by_key(|(_, mos, _)| *mos);
    let lowest = scored.iter().find(|(_, mos, _)| Some(*mos) == lowest.map(|(_, mos, _)| *mos));
    let highest = scored.iter().find(|(_, mos, _)| Some(*mos) == highest.map(|(_, mos, _)| *mos));

    let count = scored.len() as u64;
    let mean = |field: fn(&LegacySample) -> u64| {
        scored.iter().map(|(sample, _, _)| field(sample)).sum::<u64>() / count
    };
    let average = Dict::new()
        .with("MOS", scored.iter().map(|(_, mos, _)| *mos).sum::<u64>() / count)
        .with("round-trip time", mean(|s| u64::from(s.round_trip_us)))
        .with("jitter", mean(|s| u64::from(s.jitter_ms)))
        .with("packet loss", mean(|s| u64::from(s.loss_percent)))
        .with("samples", count);

    let interval = last.at.unix_secs().saturating_sub(first.at.unix_secs()) / 10;
    let mut next = first.at.unix_secs();
    let mut entries = Vec::new();
    for sample in &scored {
        if sample.2.unix_secs() >= next {
            next = sample.2.unix_secs() + interval;
            entries.push(entry(sample));
        }
    }
    let mut dict = Dict::new().with("average MOS", average);
    if let (Some(lowest), Some(highest)) = (lowest, highest) {
        dict.push("lowest MOS", entry(lowest));
        dict.push("highest MOS", entry(highest));
    }
    dict.push("MOS progression", Dict::new().with("interval", interval).with("entries", entries));
    dict.with("MOS model", Model::Legacy2019.name())
}

fn legacy_sample(sample: &Sample) -> LegacySample {
    LegacySample {
        round_trip_us: sample.round_trip.map_or(0, |rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX)),
        jitter_ms: sample.jitter_us / 1000,
        loss_percent: fraction_lost_percent(sample.fraction_lost),
    }
}

fn numbers(sample: LegacySample, mos: u64) -> Dict {
    Dict::new()
        .with("MOS", mos)
        .with("round-trip time", sample.round_trip_us)
        .with("jitter", sample.jitter_ms)
        .with("packet loss", i64::from(sample.loss_percent))
}

/// What arrived here of one source: loss over its whole life, and the MOS that follows from it.
pub(super) struct Quality {
    pub loss_percent: f64,
    pub score: Option<Score>,
}

/// As it arrived here.
pub(super) fn quality(stream: &StreamStats) -> Quality {
    quality_of(stream, stream.lost, stream.expected, stream.jitter_us)
}

/// The same of other counts of it: what its receiver reported.
pub(super) fn quality_of(stream: &StreamStats, lost: u64, expected: u64, jitter_us: u32) -> Quality {
    if expected == 0 {
        return Quality { loss_percent: 0.0, score: None };
    }
    let loss_percent = lost as f64 * 100.0 / expected as f64;
    // Half of the round trip over both legs, and the jitter that a buffer must hold. Where one leg's is not known, there
    // is no delay to speak of: listening quality only.
    let delay = match stream.measured.last().and_then(|sample| sample.round_trip) {
        Some(rtt) => Delay::OneWay(rtt / 2 + std::time::Duration::from_micros(u64::from(jitter_us))),
        None => Delay::Unknown,
    };
    let codec = Codec::by_name(stream.encoding.as_deref().unwrap_or_default());
    let score = EModel { codec, delay, loss_percent, burst_ratio: 1.0 }.score();
    Quality { loss_percent, score: Some(score) }
}

/// ng has no fractions: MOS in tenths, as everywhere in this dictionary.
fn measured_entry(tag: &str, media: usize, stream: &StreamStats) -> Dict {
    let quality = quality(stream);
    let mut entry = Dict::new()
        .with("tag", tag)
        .with("index", media as u64 + 1)
        .with("SSRC", stream.ssrc)
        .with("codec", stream.encoding.as_deref().unwrap_or("unknown"))
        .with("packets", stream.packets)
        .with("bytes", stream.bytes)
        .with("expected", stream.expected)
        .with("lost", stream.lost)
        .with("jitter", stream.jitter_us / 1000);
    if let Some(score) = quality.score {
        entry.push("MOS", (score.mos * 10.0) as u64);
        entry.push("MOS model", score.model.name());
    }
    entry
}

fn tags(call: &Call, counted: &[Counted]) -> Dict {
    let mut tags = Dict::new();
    for (at, branch) in call.branches.iter().enumerate() {
        for side in [Side::Answerer, Side::Offerer] {
            let party = branch.parties.party(side);
            // One offerer has a leg on each branch: the answered one is the call.
            let known = tags.get(&party.tag).is_some();
            if party.tag.is_empty() || (known && !branch.answered) {
                continue;
            }
            let mut dict = Dict::new().with("tag", &party.tag);
            if let (Some(via), Side::Answerer) = (&branch.parties.via_branch, side) {
                dict.push("via-branch", via);
            }
            if let Some(label) = &party.label {
                dict.push("label", label);
            }
            dict.push("created", party.created.unix_secs());
            let partner = &branch.parties.party(side.other()).tag;
            if !partner.is_empty() {
                dict.push("in dialogue with", partner);
            }
            let medias: Vec<Dict> = (0..branch.memory.media_count())
                .filter_map(|media| {
                    let one = counted.iter().find(|one| one.branch == at && one.media == media);
                    media_entry(call, branch, media, side, one)
                })
                .collect();
            dict.push("medias", medias);
            tags.set(&party.tag, dict);
        }
    }
    tags
}

fn media_entry(
    call: &Call,
    branch: &Branch,
    media: usize,
    side: Side,
    one: Option<&Counted>,
) -> Option<Dict> {
    let memory = branch.memory.side(media, side)?;
    let said = memory.said.as_ref();
    let told = memory.told.as_ref();
    let kind = said.or(branch.memory.side(media, side.other())?.said.as_ref())?.media.clone();
    let protocol =
        told.or(None).map(|told| told.protocol.clone()).or(said.map(|said| said.protocol.clone()))?;
    let ports = one.and_then(|one| one.slot.ports(side));
    let stats = one.map(|one| one.stats.side(side));
    let live = told.is_some_and(|told| !told.rejected);
    let mux = told.is_some_and(|told| told.mux) && said.is_some_and(|said| said.mux);
    let ice = told.is_some_and(|told| told.ice) && said.is_none_or(|said| said.ice.is_some());
    let dtls = memory.security() == Security::Dtls;
    let sdes = memory.security() == Security::Sdes;

    let mut streams = Vec::new();
    if let (Some(ports), Some(stats)) = (ports, stats) {
        let suite = stats.suite.map(|suite| suite.name());
        let ssrc = stats.streams.iter().max_by_key(|stream| stream.packets).map(|stream| stream.ssrc);
        let stream = |port: u16, endpoint, advertised, counted: &Counter, mut flags: Vec<&str>| {
            if said.is_some() {
                flags.push("filled");
            }
            if counted.packets > 0 {
                flags.push("confirmed");
            }
            if dtls && suite.is_some() && counted.packets > 0 {
                flags.push("DTLS fingerprint verified");
            }
            if memory.learning() == Some(Learning::Strict) {
                flags.push("strict source address");
            }
            if ice {
                flags.push("ICE");
            }
            let mut dict = Dict::new()
                .with("local port", port)
                .with("endpoint", endpoint_of(endpoint))
                .with("advertised endpoint", endpoint_of(advertised));
            if let Some(suite) = suite {
                dict.push("crypto suite", suite);
            }
            dict.push("last packet", counted.last.unwrap_or(call.created).unix_secs());
            dict.push("flags", flags);
            if let Some(ssrc) = ssrc {
                dict.push("SSRC", ssrc);
            }
            dict.with("stats", self::counter(counted))
        };
        let advertised_rtp = said.and_then(|said| said.rtp);
        if mux {
            // One port carries both; the counters of RTCP stand where its own port would be.
            streams.push(stream(
                ports.rtp.port(),
                stats.remote_rtp,
                advertised_rtp,
                &stats.rtp,
                vec!["RTP", "RTCP"],
            ));
            streams.push(stream(ports.rtcp.port(), None, None, &stats.rtcp, vec!["RTCP", "fallback RTCP"]));
        } else {
            streams.push(stream(ports.rtp.port(), stats.remote_rtp, advertised_rtp, &stats.rtp, vec!["RTP"]));
            let advertised = said.and_then(|said| said.rtcp);
            streams.push(stream(ports.rtcp.port(), stats.remote_rtcp, advertised, &stats.rtcp, vec!["RTCP"]));
        }
    }

    let mut flags = Vec::new();
    let mut flag = |on: bool, name: &'static str| {
        if on {
            flags.push(name);
        }
    };
    flag(live, "initialized");
    flag(memory.learning() == Some(Learning::Off), "asymmetric");
    flag(live && said.is_none_or(|said| said.direction.receives()), "send");
    flag(live && said.is_none_or(|said| said.direction.sends()), "recv");
    flag(mux, "rtcp-mux");
    flag(dtls, "DTLS-SRTP");
    flag(dtls && memory.role() != Some(DtlsRole::Active), "DTLS role passive");
    flag(dtls && memory.role() == Some(DtlsRole::Active), "DTLS role active");
    flag(sdes, "SDES");
    flag(ice, "ICE");
    flag(ice && said.is_some_and(|said| said.trickle), "trickle ICE");
    flag(ice && memory.is_controlling(), "ICE controlling");
    Some(
        Dict::new()
            .with("index", media as u64 + 1)
            .with("type", kind)
            .with("protocol", protocol)
            .with("streams", streams)
            .with("flags", flags),
    )
}

fn endpoint_of(address: Option<SocketAddr>) -> Value {
    let Some(address) = address else { return Value::Dict(Dict::new()) };
    let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
    let dict = Dict::new().with("family", family).with("address", address.ip().to_string());
    Value::Dict(dict.with("port", address.port()))
}
