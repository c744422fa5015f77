//! What differs in meaning between two session descriptions.
//!
//! RFC 8866, 3264 §5.1 (the order of formats is a preference), 8839, 4568, 8122. In: two parsed SDPs. Out: [`Difference`]s.
//! Without meaning are: the order of lines and of parameters, upper and lower case where it does not count, whether an attribute
//! stands in the session or in each m-line, and what is drawn anew for each description: the o= line, ports (but not
//! whether one is 0), ICE's fragment, password, foundations and priorities, fingerprints' digests, SDES keys, SSRCs with
//! their names, msid and its kin. Addresses and payload types have a meaning. Not here: whether either of them is right (`check`).

#[cfg(test)]
mod tests;

use crate::sdp::{Candidate, Direction, Family, RtpMap, Sdp, Section};
use std::collections::{BTreeMap, BTreeSet};

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The index of the m-line; None: of the session.
    pub media: Option<usize>,
    /// `codec opus/48000/2`, `direction`, …
    pub what: String,
    /// What the first has, and the second; empty where it has none.
    pub a: Vec<String>,
    pub b: Vec<String>,
}

type Facts = BTreeMap<String, BTreeSet<String>>;

/// Compares two descriptions.
pub fn diff(a: &Sdp<'_>, b: &Sdp<'_>) -> Vec<Difference> {
    let mut out = Vec::new();
    compare(None, &session(a), &session(b), &mut out);
    let none = Facts::new();
    for index in 0..a.media_count().max(b.media_count()) {
        let of = |sdp: &Sdp<'_>| sdp.media(index).map(|section| media(sdp, &section));
        let (in_a, in_b) = (of(a), of(b));
        if let (Some(_), None) | (None, Some(_)) = (&in_a, &in_b) {
            let there = |facts: &Option<Facts>| match facts {
                Some(facts) => facts.get("media").into_iter().flatten().cloned().collect(),
                None => Vec::new(),
            };
            out.push(Difference {
                media: Some(index),
                what: "m-line".to_owned(),
                a: there(&in_a),
                b: there(&in_b),
            });
            continue;
        }
        compare(Some(index), in_a.as_ref().unwrap_or(&none), in_b.as_ref().unwrap_or(&none), &mut out);
    }
    out
}

fn compare(media: Option<usize>, a: &Facts, b: &Facts, out: &mut Vec<Difference>) {
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let get = |facts: &Facts| facts.get(key).cloned().unwrap_or_default();
        let (in_a, in_b) = (get(a), get(b));
        if in_a != in_b {
            out.push(Difference {
                media,
                what: key.clone(),
                a: in_a.difference(&in_b).cloned().collect(),
                b: in_b.difference(&in_a).cloned().collect(),
            });
        }
    }
}

fn add(facts: &mut Facts, key: impl Into<String>, value: impl Into<String>) {
    facts.entry(key.into()).or_default().insert(value.into());
}

fn lossy(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim().to_owned()
}

/// Attributes that an m-section takes from the session where it has none of its own, so that they are told there.
const INHERITED: [&str; 6] = ["ice-ufrag", "ice-pwd", "fingerprint", "setup", "ice-options", "ptime"];

/// Drawn anew for each description, or told in another way.
fn is_generated(name: &str) -> bool {
    const NAMES: [&str; 18] = [
        "ssrc",
        "ssrc-group",
        "msid",
        "msid-semantic",
        "ice-ufrag",
        "ice-pwd",
        "end-of-candidates",
        "remote-candidates",
        "tls-id",
        "identity",
        "rtcp",
        "rtpmap",
        "fmtp",
        "rtcp-fb",
        "fingerprint",
        "crypto",
        "candidate",
        "group",
    ];
    NAMES.contains(&name)
}

fn session(sdp: &Sdp<'_>) -> Facts {
    let mut facts = Facts::new();
    let session = sdp.session();
    for line in session.lines() {
        match (line.kind, line.attribute()) {
            (b'a', Some((name, value))) => {
                if name == "group" {
                    let mut words = value.split_ascii_whitespace();
                    let semantics = words.next().unwrap_or_default();
                    let mids: BTreeSet<&str> = words.collect();
                    add(&mut facts, format!("group {semantics}"), join(mids));
                } else if !is_generated(name)
                    && !INHERITED.contains(&name)
                    && Direction::parse(name).is_none()
                {
                    add(&mut facts, format!("a={name}"), words(value));
                }
            }
            // Told with each m-line; without meaning; or the one that has none.
            (b'c' | b'o' | b'v' | 0, _) => {}
            // Without a name: each peer has its own custom.
            (b's', _) if matches!(lossy(line.value).as_str(), "" | "-") => {}
            (kind, _) => add(&mut facts, format!("{}=", kind as char), lossy(line.value)),
        }
    }
    facts
}

fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(" ")
}

/// The words of a value, with one blank between them.
fn words(value: &str) -> String {
    join(value.split_ascii_whitespace())
}

fn media(sdp: &Sdp<'_>, section: &Section<'_, '_>) -> Facts {
    let mut facts = Facts::new();
    let session = sdp.session();
    let Some(m) = section.media() else { return facts };
    add(&mut facts, "media", m.media);
    add(&mut facts, "protocol", m.protocol);
    if m.port == 0 && !section.has("bundle-only") {
        // Nothing else of it counts.
        add(&mut facts, "use", "refused (port 0)");
        return facts;
    }
    add(&mut facts, "use", "offered");
    if let Some(count) = m.port_count.filter(|count| *count > 1) {
        add(&mut facts, "ports", count.to_string());
    }
    if let Some(connection) = section.connection().or_else(|| session.connection()) {
        let address = match connection.ip() {
            Some(ip) => format!("{} {ip}", Family::of(&ip).as_str()),
            None => connection.address.to_ascii_lowercase(),
        };
        add(&mut facts, "address", address);
    }
    let own = section.direction().or_else(|| session.direction()).unwrap_or(Direction::SendRecv);
    add(&mut facts, "direction", own.as_str());
    formats(section, &mut facts);
    keys(section, &session, &mut facts);
    add(&mut facts, "rtcp", if section.has("rtcp-mux") { "on the same port" } else { "on its own port" });
    ice(section, &session, &mut facts);
    for line in section.lines().iter().skip(1) {
        match (line.kind, line.attribute()) {
            (b'a', Some((name, value))) => {
                let told = matches!(name, "setup" | "ice-options" | "ptime" | "rtcp-mux");
                if !is_generated(name) && !told && Direction::parse(name).is_none() {
                    add(&mut facts, format!("a={name}"), words(value));
                }
            }
            (b'c' | 0, _) => {}
            (kind, _) => add(&mut facts, format!("{}=", kind as char), lossy(line.value)),
        }
    }
    if let Some(ptime) = section.get("ptime").or_else(|| session.get("ptime")) {
        add(&mut facts, "ptime", words(ptime));
    }
    facts
}

/// Codecs by name; numbers, parameters and feedback belong to them, and the order is the preference.
fn formats(section: &Section<'_, '_>, facts: &mut Facts) {
    let Some(m) = section.media() else { return };
    let is_rtp = m.profile().is_some();
    let name_of = |number: &str| {
        let payload_type: Option<u8> = number.parse().ok().filter(|_| is_rtp);
        let map = payload_type.and_then(|payload_type| {
            let map = section.rtpmaps().find(|map| map.payload_type == payload_type);
            map.or_else(|| RtpMap::of_static(payload_type))
        });
        match map {
            Some(map) if map.channels > 1 => {
                format!("{}/{}/{}", map.encoding.to_ascii_lowercase(), map.clock_rate, map.channels)
            }
            Some(map) => format!("{}/{}", map.encoding.to_ascii_lowercase(), map.clock_rate),
            None => number.to_owned(),
        }
    };
    let mut order: Vec<String> = Vec::new();
    for number in m.formats.split_ascii_whitespace() {
        let name = name_of(number);
        add(facts, format!("codec {name}"), format!("payload type {number}"));
        for fmtp in section.fmtps().filter(|fmtp| fmtp.format == number) {
            let parameters: BTreeSet<String> =
                fmtp.parameters.split(';').map(words).filter(|p| !p.is_empty()).collect();
            let sorted: Vec<String> = parameters.into_iter().collect();
            add(facts, format!("parameters of {name} ({number})"), sorted.join("; "));
        }
        for value in section.all("rtcp-fb") {
            let (format, feedback) = value.trim().split_once(' ').unwrap_or((value, ""));
            if format == number || format == "*" {
                add(facts, format!("feedback of {name}"), words(feedback));
            }
        }
        order.push(name);
    }
    add(facts, "preference", order.join(", "));
}

fn keys(section: &Section<'_, '_>, session: &Section<'_, '_>, facts: &mut Facts) {
    for crypto in section.cryptos() {
        let parameters = words(crypto.session_parameters);
        add(facts, "keys", format!("SDES {} {parameters}", crypto.suite).trim_end());
    }
    let mut fingerprints = section.fingerprints().peekable();
    if fingerprints.peek().is_some() {
        fingerprints.for_each(|fingerprint| add(facts, "keys", format!("DTLS, {}", fingerprint.hash)));
    } else {
        session
            .fingerprints()
            .for_each(|fingerprint| add(facts, "keys", format!("DTLS, {}", fingerprint.hash)));
    }
    if let Some(setup) = section.get("setup").or_else(|| session.get("setup")) {
        add(facts, "setup", words(setup));
    }
}

fn ice(section: &Section<'_, '_>, session: &Section<'_, '_>, facts: &mut Facts) {
    let has = |name: &str| section.has(name) || session.has(name);
    if !has("ice-ufrag") {
        return;
    }
    add(facts, "ICE", if session.has("ice-lite") { "lite" } else { "full" });
    let options = section.get("ice-options").or_else(|| session.get("ice-options")).unwrap_or_default();
    for option in options.split_ascii_whitespace() {
        add(facts, "ICE options", option);
    }
    for candidate in section.all("candidate").filter_map(Candidate::parse) {
        let text = format!(
            "component {} {} {} {}",
            candidate.component,
            candidate.transport.to_ascii_lowercase(),
            candidate.kind,
            candidate.address
        );
        add(facts, "candidates", text);
    }
}
