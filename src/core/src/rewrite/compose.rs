//! The text of the new SDP.
//!
//! In: the sender's SDP and what the receiver is told. Out: bytes, every line ended by CRLF. The session's lines and an
//! m-section's lines that are not attributes keep their places; the attributes come in rtpengine's order of 2019: those
//! that nobody here knows, mid, rtpmap (static ones added), fmtp, direction, rtcp, rtcp-mux, crypto, setup, fingerprint,
//! ICE, candidates. Not here: decisions (`offer`, `answer`).

use super::browser::{Cut, Cuts, are_for_browser, is_browsers, is_for_browser, mend};
use super::memory::{Memory, SideMemory, Told};
use super::origin::OriginTold;
use super::said::Said;
use super::{Input, Supply, address, codecs, dtls, ice, keys, manipulate, mux};
use crate::sdp::{Family, Line, Profile, Sdp, Section};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};

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

/// The text, and what `strip-browser` took out of it. `places`: where in the memory the sender's m-lines are.
pub(super) fn compose(
    sdp: &Sdp<'_>,
    places: &[usize],
    input: &Input<'_>,
    memory: &Memory,
    origin: &OriginTold,
    supply: &mut dyn Supply,
) -> (Vec<u8>, Vec<Cut>) {
    let receiver = input.sender.other();
    let sides: Vec<&SideMemory> = memory.media.iter().map(|slot| slot.side(receiver)).collect();
    let hosts: Vec<Option<IpAddr>> = sides.iter().map(|side| host(side, input)).collect();
    let ours = input.flags.media_address.or_else(|| {
        sides.iter().find_map(|side| side.address.as_ref().map(|own| address::told(own, input.flags)))
    });
    let mut writer = Writer {
        out: Out(Vec::with_capacity(2048)),
        cut: Cuts::new(input.cuts),
        input,
        origin,
        ours,
        session: hosts.iter().flatten().next().copied().or(ours).unwrap_or(REFUSED),
        feedback: sides.iter().any(|side| profile(side).is_some_and(Profile::has_feedback)),
        has_connection: sdp.session().line(b'c').is_some(),
        lite: sides.iter().any(|side| side.lite && side.told.as_ref().is_some_and(|told| told.ice)),
    };
    writer.session(&sdp.session());
    for (at, side) in sides.iter().enumerate() {
        let Some(told) = side.told.as_ref().filter(|told| !told.removed) else { continue };
        let section = places.iter().position(|place| *place == at).and_then(|index| sdp.media(index));
        let said = memory.media.get(at).and_then(|slot| slot.side(input.sender).said.as_ref());
        match (section, said) {
            (Some(section), Some(_)) if told.passed => writer.passed(&section, &sdp.session()),
            (Some(section), Some(said)) => {
                let part = Part { section, said, side, told, host: hosts.get(at).copied().flatten() };
                part.write(&mut writer, supply);
            }
            // An answer that lacks this m-line.
            (None, _) if told.rejected => {
                if let Some(said) = &side.said {
                    writer.out.media(&said.media, 0, told);
                    writer.out.connection(REFUSED);
                    writer.mid(told);
                }
            }
            (None, _) | (Some(_), None) => {}
        }
    }
    let Writer { out, mut cut, .. } = writer;
    let mut text = out.0;
    let for_browser = sides.iter().any(|side| side.told.as_ref().is_some_and(is_for_browser));
    if for_browser || are_for_browser(input.flags) {
        text = mend(text, &mut cut);
    }
    (manipulate::apply(text, &input.flags.manipulations), cut.into_list())
}

/// In the c= line of an m-line that is refused.
const REFUSED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn profile(side: &SideMemory) -> Option<Profile> {
    side.told.as_ref()?.profile
}

/// What stands in c= of a leg that is open.
fn host(side: &SideMemory, input: &Input<'_>) -> Option<IpAddr> {
    let told = side.told.as_ref().filter(|told| !told.rejected && !told.removed && !told.passed)?;
    let own = address::told(side.address.as_ref()?, input.flags);
    Some(if told.zeros { address::zeros(own) } else { own })
}

/// Lines.
pub(super) struct Out(Vec<u8>);

impl Out {
    pub fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a Vec cannot fail.
        let _ = self.0.write_fmt(text);
        self.0.extend_from_slice(b"\r\n");
    }

    /// A line's beginning.
    pub fn words(&mut self, parts: &[&str]) {
        for part in parts {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// A line, or its end, of these parts; formatting costs several times as much.
    pub fn parts(&mut self, parts: &[&str]) {
        self.words(parts);
        self.0.extend_from_slice(b"\r\n");
    }

    /// The name is one of ours; the value, of one line that was read.
    pub fn attribute(&mut self, name: &str, value: &str) {
        self.parts(&["a=", name, ":", value]);
    }

    pub fn raw(&mut self, kind: u8, value: &[u8]) {
        self.0.extend_from_slice(&[kind, b'=']);
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
    }

    /// A line as it came.
    pub fn keep(&mut self, line: &Line<'_>) {
        if line.kind != 0 {
            self.raw(line.kind, line.value);
        }
    }

    fn connection(&mut self, address: IpAddr) {
        self.0.extend_from_slice(b"c=");
        self.address(address);
        self.parts(&[]);
    }

    /// `IN IP4 192.0.2.1`
    pub fn address(&mut self, address: IpAddr) {
        self.words(&["IN ", Family::of(&address).as_str(), " "]);
        match address {
            IpAddr::V4(ip) => {
                for (at, octet) in ip.octets().into_iter().enumerate() {
                    if at > 0 {
                        self.0.push(b'.');
                    }
                    self.number(octet.into());
                }
            }
            // Writing to a Vec cannot fail.
            IpAddr::V6(ip) => drop(write!(self.0, "{ip}")),
        }
    }

    /// At most five decimal digits.
    pub fn number(&mut self, number: u16) {
        let mut digits = [b'0'; 5];
        let (mut rest, mut first) = (number, digits.len() - 1);
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
            if *digit != b'0' {
                first = at;
            }
        }
        self.0.extend_from_slice(digits.get(first..).unwrap_or_default());
    }

    fn media(&mut self, media: &str, port: u16, told: &Told) {
        let formats = told.formats.trim();
        let blank = if formats.is_empty() { "" } else { " " };
        self.words(&["m=", media, " "]);
        self.number(port);
        self.parts(&[" ", &told.protocol, blank, formats]);
    }
}

/// What all parts of the text need.
struct Writer<'a> {
    out: Out,
    cut: Cuts,
    input: &'a Input<'a>,
    origin: &'a OriginTold,
    ours: Option<IpAddr>,
    /// In the session's c= line.
    session: IpAddr,
    /// Some m-line's profile has early feedback.
    feedback: bool,
    /// The session has a c= line.
    has_connection: bool,
    /// The receiver's ICE is with a lite agent.
    lite: bool,
}

impl Writer<'_> {
    fn session(&mut self, section: &Section<'_, '_>) {
        for line in section.lines() {
            match line.kind {
                b'o' => self.origin.write(&mut self.out, line, self.input.flags, self.ours),
                b's' => self.origin.write_name(&mut self.out, line),
                b'c' => self.out.connection(self.session),
                b'a' => self.session_attribute(line),
                _ => self.out.keep(line),
            }
        }
        if self.lite {
            self.out.parts(&["a=ice-lite"]);
        }
    }

    fn session_attribute(&mut self, line: &Line<'_>) {
        let Some((name, value)) = line.attribute() else { return self.out.keep(line) };
        // Legs are not bundled (RFC 8843 §7.3.3: an answer without the group refuses it).
        let bundle = name == "group" && value.split(' ').next() == Some("BUNDLE");
        if is_ours(name) || bundle || (name == "extmap-allow-mixed" && !self.feedback) {
            return;
        }
        if self.input.flags.strip_browser && is_browsers(name, self.feedback) {
            return self.cut.add(line);
        }
        self.out.keep(line);
    }

    /// A section that is no concern of ours; the session's c= line was its own.
    fn passed(&mut self, section: &Section<'_, '_>, session: &Section<'_, '_>) {
        let mut lines = section.lines().iter();
        if let Some(m) = lines.next() {
            self.out.keep(m);
        }
        if let (None, Some(connection)) = (section.line(b'c'), session.line(b'c')) {
            self.out.keep(connection);
        }
        for line in lines {
            self.out.keep(line);
        }
    }

    fn mid(&mut self, told: &Told) {
        if let Some(mid) = &told.mid {
            self.out.attribute("mid", mid);
        }
    }
}

/// One m-section.
struct Part<'a, 's> {
    section: Section<'s, 'a>,
    said: &'s Said,
    side: &'s SideMemory,
    told: &'s Told,
    /// In its c= line; `None`: it is refused.
    host: Option<IpAddr>,
}

impl Part<'_, '_> {
    fn write(&self, writer: &mut Writer<'_>, supply: &mut dyn Supply) {
        let flags = writer.input.flags;
        let own = self.side.address.as_ref().filter(|_| self.host.is_some());
        writer.out.media(&self.said.media, own.map_or(0, |own| own.rtp.port()), self.told);
        self.other_lines(writer);
        let Some(own) = own else { return writer.mid(self.told) };
        self.unknown(writer);
        writer.mid(self.told);
        if self.told.opaque {
            return;
        }
        let out = &mut writer.out;
        codecs::write(out, &self.section, self.said, &self.told.formats);
        if let Some(ptime) = self.ptime(writer.input) {
            writer.out.line(format_args!("a=ptime:{ptime}"));
        }
        let out = &mut writer.out;
        out.parts(&["a=", self.said.direction.as_str()]);
        mux::write(out, self.told, own, flags);
        keys::write(out, &self.told.security.sdes, flags);
        dtls::write(out, self.side, self.told, flags, supply);
        ice::write(out, self.side, self.told, own, flags);
    }

    /// All that is no attribute, with our c= in its place: before b= and k= (RFC 8866 §9).
    fn other_lines(&self, writer: &mut Writer<'_>) {
        let host = self.host.unwrap_or(REFUSED);
        // The session's c= line says the same, where its sender did without one here.
        let said_already = writer.has_connection && writer.session == host;
        let mut connected = said_already && self.section.line(b'c').is_none();
        for line in self.section.lines().iter().skip(1) {
            match line.kind {
                b'a' => {}
                b'c' if connected => {}
                b'i' => writer.out.keep(line),
                b'o' => writer.origin.write(&mut writer.out, line, writer.input.flags, writer.ours),
                b'c' => {
                    connected = true;
                    writer.out.connection(host);
                }
                _ => {
                    // A c= line of its own comes yet.
                    if !connected && self.section.line(b'c').is_none() {
                        connected = true;
                        writer.out.connection(host);
                    }
                    writer.out.keep(line);
                }
            }
        }
        if !connected {
            writer.out.connection(host);
        }
    }

    fn ptime(&self, input: &Input<'_>) -> Option<u32> {
        let reverse = match input.kind {
            super::Kind::Answer => self.side.ptime_reverse,
            super::Kind::Offer => None,
        };
        codecs::ptime(input, reverse)
    }

    /// Attributes that pass.
    fn unknown(&self, writer: &mut Writer<'_>) {
        let flags = writer.input.flags;
        let feedback = self.told.profile.is_some_and(Profile::has_feedback);
        let loses_feedback = !feedback && self.said.profile.is_some_and(Profile::has_feedback);
        let new_ptime = self.ptime(writer.input).is_some();
        for line in self.section.lines().iter().filter(|line| line.kind == b'a') {
            let Some((name, value)) = line.attribute() else {
                writer.out.keep(line);
                continue;
            };
            if self.told.opaque && !matches!(name, "mid" | "crypto" | "candidate") {
                writer.out.keep(line);
                continue;
            }
            let gone = match name {
                // A plain phone would not know what the extensions are for (the seed's relay takes them out as well).
                "extmap" | "extmap-allow-mixed" if loses_feedback => true,
                "extmap" => is_stripped(value, &flags.extmap_strip),
                "rtcp-fb" => !self.is_told(value),
                "ptime" => new_ptime,
                _ => false,
            };
            if is_ours(name) || gone {
                continue;
            }
            if flags.strip_browser && is_browsers(name, feedback) {
                writer.cut.add(line);
                continue;
            }
            writer.out.keep(line);
        }
        if flags.strip_browser && writer.input.cuts {
            self.cut_codecs(writer);
        }
    }

    /// Whether the format that a value begins with is told; `*` is all of them.
    fn is_told(&self, value: &str) -> bool {
        let format = value.split_ascii_whitespace().next().unwrap_or_default();
        let of = |formats: &str| formats.split_ascii_whitespace().any(|known| known == format);
        format == "*" || of(&self.told.formats) || !of(&self.said.formats)
    }

    fn cut_codecs(&self, writer: &mut Writer<'_>) {
        for line in self.section.lines() {
            let Some(("rtpmap" | "fmtp", value)) = line.attribute() else { continue };
            if !self.is_told(value) {
                writer.cut.add(line);
            }
        }
    }
}

/// `extmap-strip`: `all`, or the URIs that are named.
fn is_stripped(value: &str, names: &[String]) -> bool {
    let uri = value.split_ascii_whitespace().nth(1).unwrap_or_default();
    names.iter().any(|name| name == "all" || name == uri)
}
