//! The grammar of lines that every description must hold to: order, mandatory lines, o=, s=, c= (RFC 8866 §5, §9).
//!
//! In: a parsed SDP. Out: findings. Not here: m-sections' attributes (`media`).

use super::{Findings, Rule};
use crate::sdp::{Connection, Origin, Sdp};
use std::net::IpAddr;

const SESSION_ORDER: &[u8] = b"vosiuepcbtrzka";
const MEDIA_ORDER: &[u8] = b"micbka";

pub(super) fn check(sdp: &Sdp<'_>, findings: &mut Findings) {
    let session = sdp.session();
    order(session.lines().iter().map(|line| (line.number, line.kind)), SESSION_ORDER, findings);
    for section in sdp.medias() {
        order(section.lines().iter().map(|line| (line.number, line.kind)), MEDIA_ORDER, findings);
    }
    let end = session.lines().last().map_or(1, |line| line.number);
    for (letter, name) in [(b'o', "o="), (b's', "s="), (b't', "t=")] {
        if session.line(letter).is_none() {
            findings.error(end, Rule::MissingLine, format!("no {name} line"));
        }
    }
    if let Some(line) = session.line(b'o') {
        origin(line.number, line.value, findings);
    }
    match session.line(b's') {
        Some(line) if line.value.is_empty() => {
            findings.error(line.number, Rule::EmptyName, "s= is empty");
        }
        Some(_) | None => {}
    }
    for line in sdp.lines().iter().filter(|line| line.kind == b'c') {
        connection(line.number, line.value, findings);
    }
    for section in sdp.medias() {
        let (Some(m), Some(line)) = (section.media(), section.line(b'm')) else { continue };
        let connected = section.line(b'c').is_some() || session.line(b'c').is_some();
        if m.port != 0 && !connected {
            findings.error(line.number, Rule::NoConnection, format!("no c= line for m={}", m.media));
        }
    }
}

/// Letters that are unknown here, or come after one that should follow them.
fn order(lines: impl Iterator<Item = (u32, u8)>, order: &[u8], findings: &mut Findings) {
    let mut reached = 0;
    for (number, kind) in lines.filter(|(_, kind)| *kind != 0) {
        // t=, r= and z= repeat as a group.
        let ranked = if matches!(kind, b'r' | b'z') { b't' } else { kind };
        let letter = kind as char;
        match order.iter().position(|letter| *letter == ranked) {
            Some(place) if place < reached => {
                let after = order.get(reached).copied().unwrap_or_default() as char;
                findings.warning(number, Rule::LineOrder, format!("{letter}= stands after {after}="));
            }
            Some(place) => reached = place,
            None if SESSION_ORDER.contains(&kind) => {
                let what = format!("{letter}= belongs to the session, before the first m-line");
                findings.warning(number, Rule::LineOrder, what);
            }
            None => findings.error(number, Rule::UnknownLetter, format!("no line begins with {letter}=")),
        }
    }
}

fn origin(number: u32, value: &[u8], findings: &mut Findings) {
    let Some(origin) = Origin::parse(value) else {
        return findings.error(number, Rule::Origin, "o= has not its six fields");
    };
    for (name, text) in [("id", origin.session_id), ("version", origin.session_version)] {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            findings.error(number, Rule::Origin, format!("the {name} in o= is no number: {text}"));
        } else if text.parse::<u64>().is_err() {
            findings.warning(number, Rule::Origin, format!("the {name} in o= is beyond 2^64: {text}"));
        }
    }
    if let Some(what) = mixed(origin.address_type, origin.address) {
        findings.error(number, Rule::Origin, what);
    }
}

fn connection(number: u32, value: &[u8], findings: &mut Findings) {
    let Some(connection) = Connection::parse(value) else {
        return findings.error(number, Rule::Connection, "c= has not its three fields");
    };
    if connection.network != "IN" {
        return findings.warning(
            number,
            Rule::Connection,
            format!("c= is in a network of type {}", connection.network),
        );
    }
    let address = connection.address.split('/').next().unwrap_or_default();
    if let Some(what) = mixed(connection.address_type, address) {
        findings.error(number, Rule::Connection, what);
    }
}

/// The address is not of the type that is said, or cannot be an address at all.
fn mixed(address_type: &str, address: &str) -> Option<String> {
    let fits = match (address_type, address.parse::<IpAddr>()) {
        ("IP4", Ok(IpAddr::V4(_))) | ("IP6", Ok(IpAddr::V6(_))) => true,
        ("IP4" | "IP6", Ok(_)) => false,
        // A host's name; digits and dots alone are an address with a mistake.
        ("IP4" | "IP6", Err(_)) => {
            let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            !address.is_empty()
                && address.bytes().all(name)
                && address.bytes().any(|b| b.is_ascii_alphabetic())
        }
        (_, _) => return Some(format!("address type {address_type}: IP4 or IP6")),
    };
    (!fits).then(|| format!("{address} is no {address_type} address"))
}
