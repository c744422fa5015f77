//! Typed views of the attributes that a relay must understand.
//!
//! rtpmap, fmtp, direction, mid, group (RFC 8866 §6, RFC 5888), rtcp (RFC 3605), rtcp-mux (RFC 5761), setup (RFC 4145, 5763),
//! fingerprint (RFC 8122), ICE (RFC 8839), crypto (RFC 4568). In: a section's lines. Out: values; a malformed one is `None`
//! or left out, and its line stays where it is. Not here: what they mean together (`rewrite`).

use super::{Section, split_at};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::net::IpAddr;

/// `a=rtpmap:<pt> <encoding>/<clock>[/<channels>]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpMap<'a> {
    pub payload_type: u8,
    pub encoding: &'a str,
    pub clock_rate: u32,
    pub channels: u8,
}

impl<'a> RtpMap<'a> {
    pub fn parse(value: &'a str) -> Option<Self> {
        let (payload_type, rest) = split_at(value.trim(), b' ')?;
        let (encoding, rest) = split_at(rest.trim(), b'/')?;
        let (clock, channels) = match split_at(rest, b'/') {
            Some((clock, more)) => (clock, Some(split_at(more, b'/').map_or(more, |(channels, _)| channels))),
            None => (rest, None),
        };
        // The seed's own dump has `G722/8000#0`: what follows the digits is not ours to judge.
        let digits = clock.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(clock.len());
        Some(RtpMap {
            payload_type: payload_type.parse().ok().filter(|pt| *pt < 128)?,
            encoding,
            clock_rate: clock[..digits].parse().ok()?,
            channels: channels.map_or(Some(1), |channels| channels.trim().parse().ok())?,
        })
    }

    /// The meaning of a payload type that needs no rtpmap (RFC 3551 §6).
    pub const fn of_static(payload_type: u8) -> Option<RtpMap<'static>> {
        let (encoding, clock_rate, channels) = match payload_type {
            0 => ("PCMU", 8000, 1),
            3 => ("GSM", 8000, 1),
            4 => ("G723", 8000, 1),
            5 => ("DVI4", 8000, 1),
            6 => ("DVI4", 16000, 1),
            7 => ("LPC", 8000, 1),
            8 => ("PCMA", 8000, 1),
            9 => ("G722", 8000, 1),
            10 => ("L16", 44100, 2),
            11 => ("L16", 44100, 1),
            12 => ("QCELP", 8000, 1),
            13 => ("CN", 8000, 1),
            14 => ("MPA", 90000, 1),
            15 => ("G728", 8000, 1),
            16 => ("DVI4", 11025, 1),
            17 => ("DVI4", 22050, 1),
            18 => ("G729", 8000, 1),
            25 => ("CelB", 90000, 1),
            26 => ("JPEG", 90000, 1),
            28 => ("nv", 90000, 1),
            31 => ("H261", 90000, 1),
            32 => ("MPV", 90000, 1),
            33 => ("MP2T", 90000, 1),
            34 => ("H263", 90000, 1),
            _ => return None,
        };
        Some(RtpMap { payload_type, encoding, clock_rate, channels })
    }
}

/// `a=fmtp:<pt> <parameters>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fmtp<'a> {
    pub format: &'a str,
    pub parameters: &'a str,
}

/// `a=rtcp:<port> [<nettype> <addrtype> <address>]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtcp {
    pub port: u16,
    pub address: Option<IpAddr>,
}

/// `a=sendrecv` and kin, from the view of whose description it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "sendrecv" => Direction::SendRecv,
            "sendonly" => Direction::SendOnly,
            "recvonly" => Direction::RecvOnly,
            "inactive" => Direction::Inactive,
            _ => return None,
        })
    }

    pub const fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    pub const fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// The same without receiving: what `c=IN IP4 0.0.0.0` meant (RFC 3264 §8.4).
    pub const fn deaf(self) -> Self {
        match self {
            Direction::SendRecv | Direction::SendOnly => Direction::SendOnly,
            Direction::RecvOnly | Direction::Inactive => Direction::Inactive,
        }
    }
}

/// RFC 4145 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    Active,
    Passive,
    ActPass,
    HoldConn,
}

impl Setup {
    pub const fn as_str(self) -> &'static str {
        match self {
            Setup::Active => "active",
            Setup::Passive => "passive",
            Setup::ActPass => "actpass",
            Setup::HoldConn => "holdconn",
        }
    }

    pub fn parse(value: &str) -> Option<Self> {
        Some(match value.trim() {
            "active" => Setup::Active,
            "passive" => Setup::Passive,
            "actpass" => Setup::ActPass,
            "holdconn" => Setup::HoldConn,
            _ => return None,
        })
    }
}

/// `a=fingerprint:<hash> <digest>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Lower case.
    pub hash: String,
    pub digest: Vec<u8>,
}

impl Fingerprint {
    pub fn parse(value: &str) -> Option<Self> {
        let (hash, digest) = value.trim().split_once(' ')?;
        let text = digest.trim().as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let mut digest = Vec::with_capacity(text.len() / 3 + 1);
        // Two digits each, with a colon between them.
        for byte in text.chunks(3) {
            match byte {
                [high, low] | [high, low, b':'] => digest.push(digit(*high)? << 4 | digit(*low)?),
                _ => return None,
            }
        }
        // The last has no colon after it.
        (text.len() % 3 == 2).then_some(Fingerprint { hash: hash.to_ascii_lowercase(), digest })
    }

    /// `sha-256 AB:CD:…`
    pub fn to_value(&self) -> String {
        let digit = |digit: u8| char::from_digit(digit.into(), 16).unwrap_or_default().to_ascii_uppercase();
        let mut value = String::with_capacity(self.hash.len() + self.digest.len() * 3);
        value.push_str(&self.hash);
        for (at, byte) in self.digest.iter().enumerate() {
            value.push(if at == 0 { ' ' } else { ':' });
            value.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        value
    }
}

/// `a=candidate:<foundation> <component> <transport> <priority> <address> <port> typ <type> …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub foundation: &'a str,
    pub component: u16,
    pub transport: &'a str,
    pub priority: u32,
    /// An address, or a name (mDNS).
    pub address: &'a str,
    pub port: u16,
    pub kind: &'a str,
}

impl<'a> Candidate<'a> {
    pub fn parse(value: &'a str) -> Option<Self> {
        let mut parts = value.split_ascii_whitespace();
        let candidate = Candidate {
            foundation: parts.next()?,
            component: parts.next()?.parse().ok()?,
            transport: parts.next()?,
            priority: parts.next()?.parse().ok()?,
            address: parts.next()?,
            port: parts.next()?.parse().ok()?,
            kind: parts.next().filter(|word| *word == "typ").and_then(|_| parts.next())?,
        };
        Some(candidate)
    }
}

/// `a=crypto:<tag> <suite> inline:<key and salt>[|lifetime][|MKI:length] [session parameters]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crypto<'a> {
    pub tag: &'a str,
    pub suite: &'a str,
    /// Key and salt of the first inline key.
    pub key: Vec<u8>,
    /// An MKI is in use: each packet carries its bytes.
    pub has_mki: bool,
    /// Its value and length as they stand, `1:4`; empty where there is none.
    pub mki: &'a str,
    /// `UNENCRYPTED_SRTP` and kin, as they stand.
    pub session_parameters: &'a str,
}

impl<'a> Crypto<'a> {
    pub fn parse(value: &'a str) -> Option<Self> {
        // Peers differ in padding.
        const BASE64: GeneralPurpose = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let mut parts = value.trim().splitn(4, ' ');
        let (tag, suite, keys) = (parts.next()?, parts.next()?, parts.next()?);
        let first = keys.split(';').next()?.strip_prefix("inline:")?;
        let mut fields = first.split('|');
        let key = BASE64.decode(fields.next()?).ok()?;
        let mki = fields.find(|field| field.contains(':')).unwrap_or_default();
        Some(Crypto {
            tag,
            suite,
            key,
            has_mki: !mki.is_empty(),
            mki,
            session_parameters: parts.next().unwrap_or(""),
        })
    }
}

impl Crypto<'_> {
    /// The MKI as packets carry it: a number in so many bytes (RFC 4568 §6.1).
    pub fn mki_bytes(&self) -> Option<Vec<u8>> {
        if self.mki.is_empty() {
            return Some(Vec::new());
        }
        let (value, length) = self.mki.split_once(':')?;
        let (value, length): (u128, usize) = (value.parse().ok()?, length.parse().ok()?);
        if !(1..=128).contains(&length) {
            return None;
        }
        let number = value.to_be_bytes();
        let mut bytes = vec![0; length.saturating_sub(number.len())];
        bytes.extend_from_slice(&number[number.len().saturating_sub(length)..]);
        Some(bytes)
    }
}

/// `a=group:<semantics> <mid> …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    pub semantics: &'a str,
    /// Separated by blanks.
    pub mids: &'a str,
}

impl<'s, 'a> Section<'s, 'a> {
    pub fn rtpmaps(&self) -> impl Iterator<Item = RtpMap<'a>> + use<'s, 'a> {
        self.all("rtpmap").filter_map(RtpMap::parse)
    }

    pub fn fmtps(&self) -> impl Iterator<Item = Fmtp<'a>> + use<'s, 'a> {
        self.all("fmtp").filter_map(|value| {
            let (format, parameters) = split_at(value, b' ')?;
            Some(Fmtp { format, parameters })
        })
    }

    /// The explicit RTCP port and address (RFC 3605).
    pub fn rtcp(&self) -> Option<Rtcp> {
        let mut parts = self.get("rtcp")?.split_ascii_whitespace();
        let port = parts.next()?.parse().ok()?;
        Some(Rtcp { port, address: parts.nth(2).and_then(|address| address.parse().ok()) })
    }

    pub fn direction(&self) -> Option<Direction> {
        self.attributes().filter(|(_, value)| value.is_empty()).find_map(|(name, _)| Direction::parse(name))
    }

    pub fn setup(&self) -> Option<Setup> {
        self.get("setup").and_then(Setup::parse)
    }

    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> + use<'s, 'a> {
        self.all("fingerprint").filter_map(Fingerprint::parse)
    }

    pub fn candidates(&self) -> impl Iterator<Item = Candidate<'a>> + use<'s, 'a> {
        self.all("candidate").filter_map(Candidate::parse)
    }

    pub fn cryptos(&self) -> impl Iterator<Item = Crypto<'a>> + use<'s, 'a> {
        self.all("crypto").filter_map(Crypto::parse)
    }

    pub fn groups(&self) -> impl Iterator<Item = Group<'a>> + use<'s, 'a> {
        self.all("group").map(|value| {
            let (semantics, mids) = value.split_once(' ').unwrap_or((value, ""));
            Group { semantics, mids }
        })
    }

    /// Milliseconds of audio in a packet.
    pub fn ptime(&self) -> Option<u32> {
        self.get("ptime")?.trim().parse().ok()
    }
}
