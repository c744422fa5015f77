//! m-sections: payload types, directions, keys, mids and groups, ICE, and what a browser wants of each.
//!
//! In: a parsed SDP and for whom it is. Out: findings, and whether any of it is a browser's. Not here: the grammar of lines
//! that are no attributes (`session`).

use super::{Context, Findings, Reader, Rule};
use crate::sdp::{Candidate, Crypto, Direction, Fingerprint, Line, Media, RtpMap, Sdp, Section, Setup};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An m-section in the light of what it claims.
struct Part<'s, 'a> {
    section: Section<'s, 'a>,
    m: Media<'a>,
    line: u32,
    /// Secure, with feedback, and without SDES alone; or a data channel: nobody but a browser sends it.
    browser: bool,
    secure: bool,
    /// Keys by DTLS.
    dtls: bool,
    /// Its transport is that of an earlier m-line of the same BUNDLE group (RFC 9143 §7.1.3).
    bundled: bool,
    /// Port 0 without `bundle-only`: nothing hangs on it.
    dead: bool,
}

pub(super) fn check(sdp: &Sdp<'_>, context: &Context, findings: &mut Findings) -> bool {
    let session = sdp.session();
    let bundles: Vec<Vec<&str>> = session
        .groups()
        .filter(|group| group.semantics == "BUNDLE")
        .map(|group| group.mids.split_ascii_whitespace().collect())
        .collect();
    let mut tagged = HashSet::new();
    let mut parts = Vec::with_capacity(sdp.media_count());
    for section in sdp.medias() {
        let (Some(m), Some(line)) = (section.media(), section.line(b'm')) else { continue };
        let mid = section.get("mid").map(str::trim);
        let bundle = bundles.iter().position(|mids| mid.is_some_and(|mid| mids.contains(&mid)));
        let dead = m.port == 0 && !section.has("bundle-only");
        let bundled = !dead && bundle.is_some_and(|bundle| !tagged.insert(bundle));
        let has = |name: &str| section.has(name) || session.has(name);
        let (dtls, ice, sdes) = (has("fingerprint"), has("ice-ufrag"), has("crypto"));
        let channel = m.protocol.contains("DTLS/SCTP");
        let profile = m.profile();
        let secure = channel || profile.is_some_and(|profile| profile.is_secure());
        let claims = match profile {
            Some(profile) => secure && profile.has_feedback() && (dtls || ice || !sdes),
            None => channel,
        };
        let browser = match context.reader {
            Reader::Claimed => claims,
            Reader::Browser => profile.is_some() || channel,
            Reader::Phone => false,
        };
        parts.push(Part { section, m, line: line.number, browser, secure, dtls, bundled, dead });
    }
    mids(sdp, &parts, findings);
    addresses(sdp, &parts, findings);
    for part in &parts {
        if part.dead {
            continue;
        }
        part.formats(findings);
        part.direction(findings);
        part.keys(&session, context, findings);
        part.ice(&session, findings);
        let multiplexes = part.m.profile().is_some() && part.browser && !part.bundled;
        if multiplexes && !part.section.has("rtcp-mux") {
            findings.error(part.line, Rule::NoMux, format!("m={} without a=rtcp-mux", part.m.media));
        }
    }
    payload_types_of_bundles(&bundles, &parts, findings);
    parts.iter().any(|part| part.browser && !part.dead)
}

/// The `a=` lines of this name, with their values.
fn named<'s, 'a>(
    section: &Section<'s, 'a>,
    name: &'static str,
) -> impl Iterator<Item = (&'s Line<'a>, &'a str)> + use<'s, 'a> {
    section.lines().iter().filter_map(move |line| match line.attribute() {
        Some((found, value)) if found == name => Some((line, value)),
        Some(_) | None => None,
    })
}

fn mids(sdp: &Sdp<'_>, parts: &[Part<'_, '_>], findings: &mut Findings) {
    let mut seen = HashSet::new();
    for part in parts {
        let Some((line, mid)) = named(&part.section, "mid").next() else { continue };
        let mid = mid.trim();
        if !seen.insert(mid) {
            findings.error(line.number, Rule::DuplicateMid, format!("a second a=mid:{mid}"));
        }
        if part.browser && mid.len() > 16 {
            findings.warning(line.number, Rule::LongMid, format!("a=mid of {} characters", mid.len()));
        }
    }
    let mut grouped = false;
    for (line, value) in named(&sdp.session(), "group") {
        let mut words = value.split_ascii_whitespace();
        let semantics = words.next().unwrap_or_default();
        for mid in words {
            grouped = true;
            if !seen.contains(mid) {
                let what = format!("a=group:{semantics} names {mid}, and no m-line has that a=mid");
                findings.error(line.number, Rule::GroupWithoutMid, what);
            }
        }
    }
    for part in parts.iter().filter(|part| !part.dead && !part.section.has("mid")) {
        if grouped {
            let what = format!("m={} without a=mid in a description with a=group", part.m.media);
            findings.error(part.line, Rule::GroupWithoutMid, what);
        } else if part.browser {
            findings.warning(part.line, Rule::NoMid, format!("m={} without a=mid", part.m.media));
        }
    }
}

/// Not to be reached from everywhere.
fn is_private(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => private_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => private_v4(&ip),
            None => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        },
    }
}

fn private_v4(ip: &Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || (a == 100 && (64..128).contains(&b))
}

const NOWHERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// Where media is asked for: a private address of who has no ICE to find a way.
fn addresses(sdp: &Sdp<'_>, parts: &[Part<'_, '_>], findings: &mut Findings) {
    let session = sdp.session();
    let mut told = HashSet::new();
    for part in parts.iter().filter(|part| !part.dead) {
        let has_ice = part.section.has("ice-ufrag") || session.has("ice-ufrag");
        let Some(line) = part.section.line(b'c').or_else(|| session.line(b'c')) else { continue };
        let ip = part.section.connection().or_else(|| session.connection()).and_then(|c| c.ip());
        let Some(ip) = ip.filter(|_| !has_ice && told.insert(line.number)) else { continue };
        if NOWHERE.contains(&ip) {
            findings.warning(line.number, Rule::ZeroAddress, format!("media is asked for at {ip}"));
        } else if is_private(&ip) {
            findings.warning(
                line.number,
                Rule::PrivateAddress,
                format!("media is asked for at the private address {ip}"),
            );
        }
    }
    // With ICE, candidates that are all private say the same.
    for part in parts.iter().filter(|part| !part.dead) {
        let mut candidates = named(&part.section, "candidate")
            .filter_map(|(line, value)| Some((line, Candidate::parse(value)?)))
            .peekable();
        let Some(first) = candidates.peek().map(|(line, _)| line.number) else { continue };
        let private = |c: &Candidate<'_>| c.address.parse().is_ok_and(|ip| is_private(&ip));
        let ended = part.section.has("end-of-candidates") || !part.section.has("ice-options");
        if ended && candidates.all(|(_, candidate)| private(&candidate)) {
            let what = "all candidates have private addresses";
            findings.warning(first, Rule::PrivateAddress, what);
        }
    }
}

impl Part<'_, '_> {
    fn formats(&self, findings: &mut Findings) {
        let Some(profile) = self.m.profile() else { return };
        let listed: Vec<u8> = self.m.payload_types().collect();
        let mut seen = HashSet::new();
        for payload_type in &listed {
            if !seen.insert(*payload_type) {
                findings.error(
                    self.line,
                    Rule::DuplicatePayloadType,
                    format!("payload type {payload_type} stands twice in m={}", self.m.media),
                );
            }
        }
        for format in self.m.formats.split_ascii_whitespace() {
            if !format.parse::<u8>().is_ok_and(|payload_type| payload_type < 128) {
                findings.error(
                    self.line,
                    Rule::BadRtpmap,
                    format!("{format} in m={} is no payload type from 0 to 127", self.m.media),
                );
            }
        }
        let mut maps: HashMap<u8, RtpMap<'_>> = HashMap::new();
        for (line, value) in named(&self.section, "rtpmap") {
            let Some(map) = RtpMap::parse(value) else {
                let what = format!("a=rtpmap:{value} cannot be read");
                findings.error(line.number, Rule::BadRtpmap, what);
                continue;
            };
            let clock = value.split('/').nth(1).unwrap_or_default().trim();
            if !clock.bytes().all(|byte| byte.is_ascii_digit()) {
                let what = format!("the clock rate {clock} is no number");
                findings.error(line.number, Rule::BadRtpmap, what);
            }
            let number = map.payload_type;
            if !listed.contains(&number) {
                let what = format!("a=rtpmap:{number} is not in the m-line");
                findings.warning(line.number, Rule::UnlistedPayloadType, what);
            }
            match maps.insert(number, map) {
                Some(before) if !same_format(&before, &map) => findings.error(
                    line.number,
                    Rule::DuplicatePayloadType,
                    format!("payload type {number} is {} here and {} before", map.encoding, before.encoding),
                ),
                Some(_) | None => {}
            }
        }
        for (line, value) in named(&self.section, "fmtp") {
            let format = value.split_ascii_whitespace().next().unwrap_or_default();
            if !self.m.formats.split_ascii_whitespace().any(|listed| listed == format) {
                let what = format!("a=fmtp:{format} is not in the m-line");
                findings.warning(line.number, Rule::UnlistedPayloadType, what);
            }
        }
        // Each once, though it may be listed twice.
        let mut told = HashSet::new();
        for payload_type in listed.iter().filter(|payload_type| told.insert(**payload_type)) {
            // A malformed one was told.
            let mapped = maps.contains_key(payload_type)
                || named(&self.section, "rtpmap").any(|(_, value)| {
                    value.split_ascii_whitespace().next().and_then(|n| n.parse().ok()) == Some(*payload_type)
                });
            if !mapped && RtpMap::of_static(*payload_type).is_none() {
                let what = format!("payload type {payload_type} in m={} without a=rtpmap", self.m.media);
                findings.error(self.line, Rule::NoRtpmap, what);
            }
            if self.section.has("rtcp-mux") && (64..96).contains(payload_type) {
                findings.warning(
                    self.line,
                    Rule::MuxPayloadType,
                    format!("payload type {payload_type} with a=rtcp-mux"),
                );
            }
        }
        if !profile.has_feedback()
            && !self.browser
            && let Some((line, _)) = named(&self.section, "rtcp-fb").next()
        {
            findings.warning(line.number, Rule::FeedbackWithoutF, format!("a=rtcp-fb with {profile}"));
        }
    }

    fn direction(&self, findings: &mut Findings) {
        let mut first = None;
        for line in self.section.lines() {
            let Some((name, "")) = line.attribute() else { continue };
            let Some(direction) = Direction::parse(name) else { continue };
            match first {
                None => first = Some(direction),
                Some(first) => findings.error(
                    line.number,
                    Rule::TwoDirections,
                    format!("a={name} after a={}", first.as_str()),
                ),
            }
        }
    }

    fn keys(&self, session: &Section<'_, '_>, context: &Context, findings: &mut Findings) {
        let crypto = named(&self.section, "crypto").next().map(|(line, _)| line.number);
        let fingerprint = named(&self.section, "fingerprint")
            .next()
            .or_else(|| named(session, "fingerprint").next())
            .map(|(line, _)| line.number);
        let rtp = self.m.profile();
        self.cryptos(findings);
        for (line, value) in named(&self.section, "fingerprint").chain(named(session, "fingerprint")) {
            fingerprint_line(line.number, value, findings);
        }
        match (crypto, fingerprint) {
            (Some(line), Some(other)) => findings.error(
                line.max(other),
                Rule::SdesAndDtls,
                format!("m={} has a=crypto and a=fingerprint (SDES and DTLS)", self.m.media),
            ),
            (Some(line), None) if self.browser && context.reader == Reader::Browser => {
                let what = format!("m={} has its keys in a=crypto", self.m.media);
                findings.error(line, Rule::NoFingerprint, what);
            }
            (Some(line), None) | (None, Some(line)) if rtp.is_some() && !self.secure => {
                let name = if crypto.is_some() { "crypto" } else { "fingerprint" };
                let what = format!("m={} is {} and has a={name}", self.m.media, self.m.protocol);
                findings.warning(line, Rule::KeysInPlain, what);
            }
            (None, None) if self.browser && !self.bundled => {
                let what = format!("m={} {} without a=fingerprint", self.m.media, self.m.protocol);
                findings.error(self.line, Rule::NoFingerprint, what);
            }
            (None, None) if self.secure && !self.bundled && !self.section.has("key-mgmt") => {
                let what = format!("m={} {} without a=crypto", self.m.media, self.m.protocol);
                findings.error(self.line, Rule::SrtpWithoutKeys, what);
            }
            (Some(_) | None, Some(_) | None) => {}
        }
        if self.secure && self.dtls && !self.bundled {
            let line = named(&self.section, "setup").next().or_else(|| named(session, "setup").next());
            match line.map(|(line, value)| (line.number, Setup::parse(value))) {
                None => findings.warning(
                    fingerprint.unwrap_or(self.line),
                    Rule::NoSetup,
                    format!("m={} has a fingerprint and no a=setup", self.m.media),
                ),
                Some((line, Some(Setup::HoldConn))) => {
                    findings.error(line, Rule::HoldConn, "a=setup:holdconn with DTLS");
                }
                Some((line, Some(Setup::ActPass))) if context.is_answer => {
                    findings.error(line, Rule::SetupInAnswer, "an answer with a=setup:actpass");
                }
                Some((line, None)) => findings.error(line, Rule::NoSetup, "a=setup cannot be read"),
                Some((_, Some(Setup::Active | Setup::Passive | Setup::ActPass))) => {}
            }
        }
    }

    fn cryptos(&self, findings: &mut Findings) {
        let mut tags = HashSet::new();
        for (line, value) in named(&self.section, "crypto") {
            let Some(crypto) = Crypto::parse(value) else {
                findings.error(line.number, Rule::BadCrypto, "a=crypto cannot be read");
                continue;
            };
            if !tags.insert(crypto.tag) {
                let what = format!("a second a=crypto:{}", crypto.tag);
                findings.error(line.number, Rule::BadCrypto, what);
            }
            match key_bytes(crypto.suite) {
                Some(wanted) if wanted != crypto.key.len() => findings.error(
                    line.number,
                    Rule::BadCrypto,
                    format!(
                        "{} wants {wanted} bytes of key and salt, not {}",
                        crypto.suite,
                        crypto.key.len()
                    ),
                ),
                Some(_) | None => {}
            }
        }
    }

    fn ice(&self, session: &Section<'_, '_>, findings: &mut Findings) {
        let find = |name| named(&self.section, name).next().or_else(|| named(session, name).next());
        match (find("ice-ufrag"), find("ice-pwd")) {
            (Some((at, ufrag)), Some((pwd_at, pwd))) => {
                let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/');
                for (line, name, value, least) in
                    [(at, "ice-ufrag", ufrag.trim(), 4), (pwd_at, "ice-pwd", pwd.trim(), 22)]
                {
                    if !(least..=256).contains(&value.len()) {
                        let what = format!("a={name} of {} characters", value.len());
                        findings.error(line.number, Rule::BadIce, what);
                    } else if let Some(bad) = value.chars().find(|c| !u8::try_from(*c).is_ok_and(legal)) {
                        findings.warning(line.number, Rule::BadIce, format!("a={name} with {bad:?}"));
                    }
                }
            }
            (Some((line, _)), None) => {
                findings.error(line.number, Rule::BadIce, "a=ice-ufrag without a=ice-pwd");
            }
            (None, Some((line, _))) => {
                findings.error(line.number, Rule::BadIce, "a=ice-pwd without a=ice-ufrag");
            }
            (None, None) => match named(&self.section, "candidate").next() {
                Some((line, _)) if !self.bundled => {
                    findings.error(line.number, Rule::BadIce, "candidates without a=ice-ufrag and a=ice-pwd");
                }
                Some(_) | None if self.browser && !self.bundled => {
                    let what = format!("m={} without a=ice-ufrag and a=ice-pwd", self.m.media);
                    findings.error(self.line, Rule::NoIce, what);
                }
                Some(_) | None => {}
            },
        }
        for (line, value) in named(&self.section, "candidate") {
            if Candidate::parse(value).is_none() {
                findings.error(
                    line.number,
                    Rule::BadCandidate,
                    format!("a=candidate:{value} cannot be read"),
                );
            }
        }
    }
}

fn same_format(a: &RtpMap<'_>, b: &RtpMap<'_>) -> bool {
    a.encoding.eq_ignore_ascii_case(b.encoding) && (a.clock_rate, a.channels) == (b.clock_rate, b.channels)
}

fn fingerprint_line(line: u32, value: &str, findings: &mut Findings) {
    let Some(fingerprint) = Fingerprint::parse(value) else {
        return findings.error(line, Rule::BadFingerprint, "a=fingerprint cannot be read");
    };
    let wanted = match fingerprint.hash.as_str() {
        "md2" | "md5" => 16,
        "sha-1" => 20,
        "sha-224" => 28,
        "sha-256" => 32,
        "sha-384" => 48,
        "sha-512" => 64,
        other => {
            return findings.error(line, Rule::BadFingerprint, format!("the hash {other} is unknown"));
        }
    };
    if fingerprint.digest.len() != wanted {
        let what = format!("{} has {wanted} bytes, not {}", fingerprint.hash, fingerprint.digest.len());
        return findings.error(line, Rule::BadFingerprint, what);
    }
    match fingerprint.hash.as_str() {
        "md2" | "md5" => {
            findings.error(line, Rule::WeakFingerprint, format!("a fingerprint by {}", fingerprint.hash));
        }
        "sha-1" => findings.warning(line, Rule::WeakFingerprint, "a fingerprint by sha-1"),
        _ => {}
    }
}

/// Key and salt of a suite (RFC 4568 §6.2, 6188 §4, 7714 §14).
fn key_bytes(suite: &str) -> Option<usize> {
    Some(match suite {
        "AES_CM_128_HMAC_SHA1_80" | "AES_CM_128_HMAC_SHA1_32" | "F8_128_HMAC_SHA1_80" => 30,
        "AES_192_CM_HMAC_SHA1_80" | "AES_192_CM_HMAC_SHA1_32" => 38,
        "AES_256_CM_HMAC_SHA1_80" | "AES_256_CM_HMAC_SHA1_32" => 46,
        "AEAD_AES_128_GCM" => 28,
        "AEAD_AES_256_GCM" => 44,
        _ => return None,
    })
}

/// In one BUNDLE group a payload type has one meaning (RFC 9143 §9.1).
fn payload_types_of_bundles(bundles: &[Vec<&str>], parts: &[Part<'_, '_>], findings: &mut Findings) {
    for mids in bundles {
        let mut meanings: HashMap<u8, (RtpMap<'_>, &str)> = HashMap::new();
        for part in parts.iter().filter(|part| !part.dead) {
            let mid = part.section.get("mid").map(str::trim);
            if !mid.is_some_and(|mid| mids.contains(&mid)) {
                continue;
            }
            for map in part.section.rtpmaps() {
                match meanings.insert(map.payload_type, (map, part.m.media)) {
                    Some((before, media)) if !same_format(&before, &map) || media != part.m.media => {
                        let what = format!(
                            "payload type {} is {} here and {} in another m-line of the bundle",
                            map.payload_type, map.encoding, before.encoding
                        );
                        findings.error(part.line, Rule::DuplicatePayloadType, what);
                    }
                    Some(_) | None => {}
                }
            }
        }
    }
}
