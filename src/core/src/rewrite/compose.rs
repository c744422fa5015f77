//! The text of the new SDP.
//!
//! In: the sender's SDP and what the receiver is told. Out: bytes, every line ended by CRLF. The session's lines and an
//! m-section's lines that are not attributes keep their places; the attributes come in rtpengine's order of 2019: those
//! that nobody here knows, mid, rtpmap (static ones added), fmtp, direction, rtcp, rtcp-mux, crypto, setup, fingerprint,
//! ICE, candidates. Not here: decisions (`memory`).

use super::memory::{Memory, SecurityTold, SideMemory, Told};
use super::{Address, Input, Supply, other};
use crate::ng::Flags;
use crate::sdp::{Direction, Family, Line, Profile, RtpMap, Sdp, Section};
use base64::Engine as _;
use std::net::IpAddr;

/// RFC 8445 §5.1.2.1 with type preference 126 and local preference 65535; less the component.
const HOST_PRIORITY: u32 = (126 << 24) + (65_535 << 8) + 256;

/// What the relay writes itself, or what would be untrue of its legs.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "mid"
            | "rtpmap"
            | "fmtp"
            | "sendrecv"
            | "sendonly"
            | "recvonly"
            | "inactive"
            | "rtcp"
            | "rtcp-mux"
            | "rtcp-mux-only"
            | "crypto"
            | "key-mgmt"
            | "setup"
            | "fingerprint"
            | "tls-id"
            | "identity"
            | "candidate"
            | "end-of-candidates"
            | "remote-candidates"
            | "ice-ufrag"
            | "ice-pwd"
            | "bundle-only"
            | "ice-lite"
            | "ice-options"
            | "ice-mismatch"
            | "ice-pacing"
    )
}

/// What only browsers use.
fn is_browsers(name: &str, feedback: bool) -> bool {
    match name {
        "msid" | "msid-semantic" | "ssrc" | "ssrc-group" | "rid" | "simulcast" | "x-google-flag" => true,
        "rtcp-fb" | "rtcp-rsize" | "extmap" | "extmap-allow-mixed" => !feedback,
        _ => false,
    }
}

pub(super) fn compose(sdp: &Sdp<'_>, input: &Input<'_>, memory: &Memory, supply: &mut dyn Supply) -> Vec<u8> {
    let receiver = other(input.sender);
    let sides: Vec<&SideMemory> = memory.media.iter().map(|slot| slot.side(receiver)).collect();
    let own = |side: &&SideMemory| side.address.map(|address| told_address(&address, input.flags));
    let ours: Option<IpAddr> = input.flags.media_address.or_else(|| sides.iter().find_map(own));
    let has_connection = sdp.session().line(b'c').is_some() && input.flags.replace_session_connection;
    let mut out = Out(Vec::with_capacity(2048));

    let feedback = sides.iter().any(|side| profile(side).is_some_and(Profile::has_feedback));
    for line in sdp.session().lines() {
        session_line(&mut out, line, input.flags, ours, feedback);
    }
    for (index, side) in sides.iter().enumerate() {
        match (sdp.media(index), &side.told) {
            (Some(section), Some(told)) => {
                let said = memory.media.get(index).and_then(|slot| slot.side(input.sender).said.as_ref());
                let direction = said.map_or(Direction::SendRecv, |said| said.direction);
                let part = Part { section, side, told, direction, ours, has_connection };
                part.write(&mut out, input, supply);
            }
            // An answer that lacks this m-line.
            (None, Some(told)) if told.rejected => {
                if let Some(said) = &side.said {
                    m_line(&mut out, &said.media, 0, &told.protocol, &said.formats);
                    if let Some(mid) = &told.mid {
                        out.line(format_args!("a=mid:{mid}"));
                    }
                }
            }
            (None, _) | (Some(_), None) => {}
        }
    }
    out.0
}

fn profile(side: &SideMemory) -> Option<Profile> {
    side.told.as_ref()?.profile
}

fn told_address(address: &Address, flags: &Flags) -> IpAddr {
    flags.media_address.unwrap_or(address.advertised)
}

struct Out(Vec<u8>);

impl Out {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        use std::io::Write;
        // Writing to a Vec cannot fail.
        let _ = self.0.write_fmt(text);
        self.0.extend_from_slice(b"\r\n");
    }

    /// The name is one of ours; the value, of one line that was read.
    fn attribute(&mut self, name: &str, value: &str) {
        for part in ["a=", name, ":", value, "\r\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// A line as it came.
    fn keep(&mut self, line: &Line<'_>) {
        if line.kind != 0 {
            self.0.extend_from_slice(&[line.kind, b'=']);
            self.0.extend_from_slice(line.value);
            self.0.extend_from_slice(b"\r\n");
        }
    }

    fn connection(&mut self, address: IpAddr) {
        self.line(format_args!("c=IN {} {address}", Family::of(&address).as_str()));
    }
}

fn m_line(out: &mut Out, media: &str, port: u16, protocol: &str, formats: &str) {
    match formats.trim() {
        "" => out.line(format_args!("m={media} {port} {protocol}")),
        formats => out.line(format_args!("m={media} {port} {protocol} {formats}")),
    }
}

fn session_line(out: &mut Out, line: &Line<'_>, flags: &Flags, ours: Option<IpAddr>, feedback: bool) {
    match (line.kind, ours) {
        (b'o', Some(address)) if flags.replace_origin => match crate::sdp::Origin::parse(line.value) {
            Some(o) => out.line(format_args!(
                "o={} {} {} IN {} {address}",
                o.username,
                o.session_id,
                o.session_version,
                Family::of(&address).as_str()
            )),
            None => out.keep(line),
        },
        (b'c', Some(address)) if flags.replace_session_connection => out.connection(address),
        (b'a', _) => {
            let Some((name, value)) = line.attribute() else { return out.keep(line) };
            let bundle = name == "group" && value.split(' ').next() == Some("BUNDLE");
            let stripped = flags.strip_browser && is_browsers(name, feedback);
            // Legs are not bundled (RFC 8843 §7.3.3: an answer without the group refuses it).
            if !is_ours(name) && !bundle && !stripped && (name != "extmap-allow-mixed" || feedback) {
                out.keep(line);
            }
        }
        _ => out.keep(line),
    }
}

/// One m-section.
struct Part<'a, 's> {
    section: Section<'s, 'a>,
    side: &'s SideMemory,
    told: &'s Told,
    direction: Direction,
    ours: Option<IpAddr>,
    /// The session's c= is ours.
    has_connection: bool,
}

impl<'a> Part<'a, '_> {
    fn write(&self, out: &mut Out, input: &Input<'_>, supply: &mut dyn Supply) {
        let Some(m) = self.section.media() else { return };
        let address = self.side.address.filter(|_| !self.told.rejected);
        let port = address.map_or(0, |address| address.rtp.port());
        m_line(out, m.media, port, &self.told.protocol, m.formats);
        let host = address.map(|address| told_address(&address, input.flags)).or(self.ours);
        let mut connected = self.has_connection || self.section.line(b'c').is_some();
        for line in self.section.lines().iter().skip(1) {
            match (line.kind, host) {
                (b'a', _) => {}
                (b'c', Some(host)) => out.connection(host),
                (b'i', _) => out.keep(line),
                // c= stands before b= and k= (RFC 8866 §9).
                (_, Some(host)) if !connected => {
                    connected = true;
                    out.connection(host);
                    out.keep(line);
                }
                _ => out.keep(line),
            }
        }
        if let (false, Some(host)) = (connected, host) {
            out.connection(host);
        }
        let Some(address) = address else {
            if let Some(mid) = &self.told.mid {
                out.line(format_args!("a=mid:{mid}"));
            }
            return;
        };
        self.unknown(out, input.flags);
        if let Some(mid) = &self.told.mid {
            out.line(format_args!("a=mid:{mid}"));
        }
        self.formats(out, m.formats);
        out.line(format_args!("a={}", self.direction.as_str()));
        self.rtcp(out, &address, input.flags);
        self.security(out, supply);
        self.ice(out, &address, input.flags);
    }

    fn unknown(&self, out: &mut Out, flags: &Flags) {
        let profile = self.told.profile;
        let feedback = profile.is_some_and(Profile::has_feedback);
        let sent = self.section.media().and_then(|m| m.profile());
        let loses_feedback = !feedback && sent.is_some_and(Profile::has_feedback);
        for line in self.section.lines().iter().filter(|line| line.kind == b'a') {
            let Some((name, _)) = line.attribute() else {
                out.keep(line);
                continue;
            };
            // A plain phone would not know what the extensions are for (the seed's relay takes them out as well).
            let extension = loses_feedback && matches!(name, "extmap" | "extmap-allow-mixed");
            let stripped = flags.strip_browser && is_browsers(name, feedback);
            if !is_ours(name) && !extension && !stripped {
                out.keep(line);
            }
        }
    }

    /// rtpmap and fmtp in the order of the m-line; those of formats that it has not, come last.
    fn formats(&self, out: &mut Out, formats: &str) {
        let formats: Vec<&str> = formats.split_ascii_whitespace().collect();
        let of = |name| -> Vec<(&str, &str)> {
            let format = |value: &'a str| value.split_ascii_whitespace().next().unwrap_or_default();
            self.section.all(name).map(|value| (format(value), value)).collect()
        };
        let (rtpmaps, fmtps) = (of("rtpmap"), of("fmtp"));
        let is_rtp = self.told.profile.is_some();
        for wanted in &formats {
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
        for (_, value) in rtpmaps.iter().filter(|(format, _)| !formats.contains(format)) {
            out.attribute("rtpmap", value);
        }
        for wanted in &formats {
            for (_, value) in fmtps.iter().filter(|(format, _)| format == wanted) {
                out.attribute("fmtp", value);
            }
        }
        for (_, value) in fmtps.iter().filter(|(format, _)| !formats.contains(format)) {
            out.attribute("fmtp", value);
        }
    }

    fn rtcp(&self, out: &mut Out, address: &Address, flags: &Flags) {
        if !flags.no_rtcp_attribute {
            let port = if self.told.own_rtcp { address.rtcp.port() } else { address.rtp.port() };
            let host = told_address(address, flags);
            if flags.full_rtcp_attribute {
                out.line(format_args!("a=rtcp:{port} IN {} {host}", Family::of(&host).as_str()));
            } else {
                out.line(format_args!("a=rtcp:{port}"));
            }
        }
        if self.told.mux {
            out.line(format_args!("a=rtcp-mux"));
        }
    }

    fn security(&self, out: &mut Out, supply: &mut dyn Supply) {
        match &self.told.security {
            SecurityTold::None => {}
            SecurityTold::Dtls { setup } => {
                out.line(format_args!("a=setup:{}", setup.as_str()));
                out.line(format_args!("a=fingerprint:{}", supply.fingerprint().to_value()));
            }
            SecurityTold::Sdes { tag, suite, key } => {
                let key = base64::engine::general_purpose::STANDARD.encode(key);
                out.line(format_args!("a=crypto:{tag} {suite} inline:{key}"));
            }
        }
    }

    fn ice(&self, out: &mut Out, address: &Address, flags: &Flags) {
        let Some((ufrag, pwd, foundation)) = self.side.ice.as_ref().filter(|_| self.told.ice) else { return };
        out.line(format_args!("a=ice-ufrag:{ufrag}"));
        out.line(format_args!("a=ice-pwd:{pwd}"));
        if self.told.trickle {
            out.line(format_args!("a=ice-options:trickle"));
        }
        let host = told_address(address, flags);
        let mut candidate = |component: u32, port: u16| {
            let priority = HOST_PRIORITY - component;
            out.line(format_args!(
                "a=candidate:{foundation} {component} UDP {priority} {host} {port} typ host"
            ));
        };
        candidate(1, address.rtp.port());
        if self.told.own_rtcp {
            candidate(2, address.rtcp.port());
        }
        if self.told.trickle {
            out.line(format_args!("a=end-of-candidates"));
        }
    }
}
