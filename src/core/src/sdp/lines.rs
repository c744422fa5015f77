//! Typed views of the lines that are no attributes: m=, c=, o= (RFC 8866 §5).
//!
//! In: a line's value. Out: its parts, borrowed; `None` where it does not hold to the grammar.
//! Not here: attributes (`attributes`).

use super::{Section, split_at};
use std::fmt;
use std::net::IpAddr;

/// The transport protocols of an m-line that carry RTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// RFC 3551.
    Avp,
    /// RFC 4585.
    Avpf,
    /// RFC 3711.
    Savp,
    /// RFC 5124.
    Savpf,
    /// RFC 5764 §8.
    DtlsSavp,
    DtlsSavpf,
}

impl Profile {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "RTP/AVP" => Profile::Avp,
            "RTP/AVPF" => Profile::Avpf,
            "RTP/SAVP" => Profile::Savp,
            "RTP/SAVPF" => Profile::Savpf,
            "UDP/TLS/RTP/SAVP" => Profile::DtlsSavp,
            "UDP/TLS/RTP/SAVPF" => Profile::DtlsSavpf,
            _ => return None,
        })
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Profile::Avp => "RTP/AVP",
            Profile::Avpf => "RTP/AVPF",
            Profile::Savp => "RTP/SAVP",
            Profile::Savpf => "RTP/SAVPF",
            Profile::DtlsSavp => "UDP/TLS/RTP/SAVP",
            Profile::DtlsSavpf => "UDP/TLS/RTP/SAVPF",
        }
    }

    /// SRTP, however its keys are agreed.
    pub const fn is_secure(self) -> bool {
        match self {
            Profile::Savp | Profile::Savpf | Profile::DtlsSavp | Profile::DtlsSavpf => true,
            Profile::Avp | Profile::Avpf => false,
        }
    }

    /// Early RTCP feedback (RFC 4585).
    pub const fn has_feedback(self) -> bool {
        match self {
            Profile::Avpf | Profile::Savpf | Profile::DtlsSavpf => true,
            Profile::Avp | Profile::Savp | Profile::DtlsSavp => false,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `IP4` and `IP6` of c= and o= lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IP4",
            Family::V6 => "IP6",
        }
    }
}

/// `m=<media> <port>[/<number>] <proto> <fmt> …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media<'a> {
    pub media: &'a str,
    pub port: u16,
    pub port_count: Option<u16>,
    pub protocol: &'a str,
    /// The formats as they stand, separated by blanks.
    pub formats: &'a str,
}

impl<'a> Media<'a> {
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (media, rest) = split_at(text, b' ')?;
        let (port, rest) = split_at(rest, b' ')?;
        // Some peers leave the format out where they refuse: then nothing hangs on it.
        let (protocol, formats) = split_at(rest, b' ').or((port == "0").then_some((rest, "")))?;
        let (port, port_count) = match split_at(port, b'/') {
            Some((port, count)) => (port, Some(count.parse().ok()?)),
            None => (port, None),
        };
        if media.is_empty() || protocol.is_empty() || (formats.trim().is_empty() && port != "0") {
            return None;
        }
        Some(Media { media, port: port.parse().ok()?, port_count, protocol, formats })
    }

    pub fn profile(&self) -> Option<Profile> {
        Profile::parse(self.protocol)
    }

    /// The formats that are RTP payload types.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.formats.split_ascii_whitespace().filter_map(|format| format.parse().ok()).filter(|pt| *pt < 128)
    }
}

/// `c=<nettype> <addrtype> <connection-address>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    pub network: &'a str,
    pub address_type: &'a str,
    /// With `/TTL` and `/COUNT` where it is multicast; may be a host's name.
    pub address: &'a str,
}

impl<'a> Connection<'a> {
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(value).ok()?.split_ascii_whitespace();
        let (network, address_type, address) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some(Connection { network, address_type, address })
    }

    /// The address, where it is one and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.split('/').next()?.parse().ok()
    }
}

/// `o=<username> <sess-id> <sess-version> <nettype> <addrtype> <unicast-address>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    pub username: &'a str,
    /// Text: some peers exceed 64 bits.
    pub session_id: &'a str,
    pub session_version: &'a str,
    pub network: &'a str,
    pub address_type: &'a str,
    pub address: &'a str,
}

impl<'a> Origin<'a> {
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(value).ok()?.split_ascii_whitespace();
        let origin = Origin {
            username: parts.next()?,
            session_id: parts.next()?,
            session_version: parts.next()?,
            network: parts.next()?,
            address_type: parts.next()?,
            address: parts.next()?,
        };
        parts.next().is_none().then_some(origin)
    }
}

impl<'a> Section<'_, 'a> {
    /// The m-line of a media section.
    pub fn media(&self) -> Option<Media<'a>> {
        Media::parse(self.line(b'm')?.value)
    }

    pub fn connection(&self) -> Option<Connection<'a>> {
        Connection::parse(self.line(b'c')?.value)
    }

    pub fn origin(&self) -> Option<Origin<'a>> {
        Origin::parse(self.line(b'o')?.value)
    }
}
