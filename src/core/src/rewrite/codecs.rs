//! `codec`, `ptime`: which formats a receiver is told, and their lines (RFC 3264 §6.1, RFC 8866 §6, RFC 4733).
//!
//! In: a section, the flags, what was offered. Out: the formats of the m-line in their order; rtpmap and fmtp. Nothing is
//! offered that the sender has not: there is no transcoding here. Not here: what only browsers use besides codecs (`browser`).

use super::compose::Out;
use super::said::Said;
use super::{Input, browser};
use crate::ng::Flags;
use crate::sdp::{RtpMap, Section};

/// What a format means: its rtpmap, or what needs none.
fn map_of<'a>(maps: &[RtpMap<'a>], format: &str) -> Option<RtpMap<'a>> {
    let number: u8 = format.parse().ok()?;
    maps.iter().find(|map| map.payload_type == number).copied().or_else(|| RtpMap::of_static(number))
}

/// `NAME`, `NAME/CLOCK`, `NAME/CLOCK/CHANNELS`, `all`; or a bare number.
fn is_named(map: Option<&RtpMap<'_>>, format: &str, name: &str) -> bool {
    if name == "all" || name == format {
        return true;
    }
    let Some(map) = map else { return false };
    let mut parts = name.split('/');
    parts.next().is_some_and(|encoding| encoding.eq_ignore_ascii_case(map.encoding))
        && parts.next().is_none_or(|clock| clock.parse() == Ok(map.clock_rate))
        && parts.next().is_none_or(|channels| channels.parse() == Ok(map.channels))
}

/// The formats that an offer's receiver is told; empty: none of the sender's is left.
pub(super) fn offered(said: &Said, flags: &Flags) -> String {
    if said.profile.is_none() || (flags.codec.is_empty() && !flags.strip_browser) {
        return said.formats.clone();
    }
    let maps: Vec<_> =
        said.formats.split_ascii_whitespace().map(|format| (format, said.map_of(format))).collect();
    let named = |(format, map): &(&str, Option<RtpMap<'_>>), names: &[String]| {
        names.iter().position(|name| is_named(map.as_ref(), format, name))
    };
    let codec = &flags.codec;
    let keeps = |entry: &&(&str, Option<RtpMap<'_>>)| {
        let listed = named(entry, &codec.offer).is_some();
        let stripped = named(entry, &codec.strip).is_some();
        let excepted = codec.except.is_empty() || named(entry, &codec.except).is_some();
        listed || (!stripped && excepted)
    };
    let mut kept: Vec<_> = maps.iter().filter(keeps).collect();
    // Those that are named come first, in that order; the others keep theirs.
    kept.sort_by_key(|entry| named(entry, &codec.offer).unwrap_or(usize::MAX));
    if flags.strip_browser {
        kept.retain(|(_, map)| !map.as_ref().is_some_and(browser::is_browsers_codec));
    }
    // telephone-event and comfort noise go with a codec of their clock rate (RFC 4733 §2.1).
    let beside = |map: &RtpMap<'_>| is_beside(map.encoding);
    let clocks: Vec<u32> =
        kept.iter().filter_map(|(_, map)| map.filter(|map| !beside(map))).map(|map| map.clock_rate).collect();
    if clocks.is_empty() && kept.iter().all(|(_, map)| map.is_some()) {
        return String::new();
    }
    kept.retain(|(_, map)| !map.as_ref().is_some_and(|map| beside(map) && !clocks.contains(&map.clock_rate)));
    kept.iter().map(|(format, _)| *format).collect::<Vec<_>>().join(" ")
}

fn is_beside(encoding: &str) -> bool {
    encoding.eq_ignore_ascii_case("telephone-event") || encoding.eq_ignore_ascii_case("CN")
}

/// G.729's annexes have names of their own in some phones, and are one codec (RFC 3551 §4.5.6).
fn is_same(one: &str, other: &str) -> bool {
    let is_g729 =
        |name: &str| ["G729", "G729A", "G729B", "G729AB"].iter().any(|g| g.eq_ignore_ascii_case(name));
    one.eq_ignore_ascii_case(other) || (is_g729(one) && is_g729(other))
}

/// The formats of an answer: those of the offer, with the meaning that they had there (RFC 3264 §6.1). An answer that has
/// none of them passes as it is: it is not ours to tell its sender.
pub(super) fn answered(
    section: &Section<'_, '_>,
    said: &Said,
    offer: Option<&Said>,
    flags: &Flags,
) -> String {
    let Some(offer) = offer.filter(|_| said.profile.is_some() && !flags.codec.asymmetric) else {
        return said.formats.clone();
    };
    let rtpmaps: Vec<RtpMap<'_>> = section.rtpmaps().collect();
    let numbers: Vec<&str> = offer.formats.split_ascii_whitespace().collect();
    let fits = |format: &&str| {
        let map = map_of(&rtpmaps, format);
        let theirs = offer.payloads.iter().find(|theirs| Some(theirs.payload_type) == format.parse().ok());
        numbers.contains(format)
            && match (map, theirs) {
                (Some(map), Some(theirs)) => {
                    is_same(map.encoding, &theirs.encoding) && map.clock_rate == theirs.clock_rate
                }
                (None, _) | (_, None) => true,
            }
    };
    let mut kept: Vec<&str> = said.formats.split_ascii_whitespace().filter(fits).collect();
    if flags.codec.single {
        let mut first = true;
        kept.retain(|format| {
            map_of(&rtpmaps, format).is_some_and(|map| is_beside(map.encoding)) || std::mem::take(&mut first)
        });
    }
    if kept.is_empty() { said.formats.clone() } else { kept.join(" ") }
}

/// rtpmap and fmtp in the order of the m-line; those of formats that the sender's m-line has not, come last.
pub(super) fn write<'a>(out: &mut Out, section: &Section<'_, 'a>, said: &Said, told: &str) {
    let told: Vec<&str> = told.split_ascii_whitespace().collect();
    let known: Vec<&str> = said.formats.split_ascii_whitespace().collect();
    let of = |name| -> Vec<(&str, &str)> {
        let format = |value: &'a str| value.split_ascii_whitespace().next().unwrap_or_default();
        section.all(name).map(|value| (format(value), value)).collect()
    };
    let (rtpmaps, fmtps) = (of("rtpmap"), of("fmtp"));
    let is_rtp = said.profile.is_some();
    for wanted in &told {
        let mut found = false;
        for (_, value) in rtpmaps.iter().filter(|(format, _)| format == wanted) {
            found = true;
            out.attribute("rtpmap", value);
        }
        let known = wanted.parse().ok().filter(|_| is_rtp && !found).and_then(RtpMap::of_static);
        if let Some(map) = known {
            let channels = if map.channels > 1 { format!("/{}", map.channels) } else { String::new() };
            out.line(format_args!("a=rtpmap:{wanted} {}/{}{channels}", map.encoding, map.clock_rate));
        }
    }
    for (_, value) in rtpmaps.iter().filter(|(format, _)| !known.contains(format)) {
        out.attribute("rtpmap", value);
    }
    for wanted in &told {
        for (_, value) in fmtps.iter().filter(|(format, _)| format == wanted) {
            out.attribute("fmtp", value);
        }
    }
    for (_, value) in fmtps.iter().filter(|(format, _)| !known.contains(format)) {
        out.attribute("fmtp", value);
    }
}

/// The packet's length that the receiver is asked for in place of the sender's `a=ptime`.
pub(super) fn ptime(input: &Input<'_>, reverse: Option<u32>) -> Option<u32> {
    input.flags.ptime.or(reverse)
}
