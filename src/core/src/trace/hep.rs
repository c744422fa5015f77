//! HEPv3, the encapsulation of Homer: what our servers send of each SIP message with `--hep`, and what others send us.
//!
//! "The Homer Encapsulation Protocol", version 3: `HEP3`, the total length, then chunks of vendor, type, length, value.
//! In: a datagram, or a [`Packet`]. Out: the other one. Not here: sockets; chunks of vendors, compressed payloads.

use crate::flow::Transport;
use crate::time::Instant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What every packet begins with.
pub const MAGIC: &[u8; 4] = b"HEP3";

/// Payload type (chunk 11) of SIP.
const SIP: u8 = 1;

// Generic chunk types (vendor 0).
const FAMILY: u16 = 1;
const PROTOCOL: u16 = 2;
const SOURCE_V4: u16 = 3;
const DESTINATION_V4: u16 = 4;
const SOURCE_V6: u16 = 5;
const DESTINATION_V6: u16 = 6;
const SOURCE_PORT: u16 = 7;
const DESTINATION_PORT: u16 = 8;
const SECONDS: u16 = 9;
const MICROSECONDS: u16 = 10;
const PAYLOAD_TYPE: u16 = 11;
const AGENT: u16 = 12;
const PAYLOAD: u16 = 15;

/// One captured message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub time: Instant,
    pub transport: Transport,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Whoever captured it; a number of the deployment's choice.
    pub agent: u32,
    pub payload: &'a [u8],
}

/// Why a datagram is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HepError {
    /// It does not begin with `HEP3`: version 1 and 2 are not read.
    Magic,
    /// A length reaches behind the end, or a chunk's length is under its head's.
    Length,
    /// A chunk that is needed is not there, or has the wrong size; its type.
    Chunk(u16),
    /// The payload is something else than SIP; its type.
    NotSip(u8),
}

impl std::fmt::Display for HepError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HepError::Magic => f.write_str("no HEPv3: it does not begin with HEP3"),
            HepError::Length => f.write_str("HEPv3: a length that does not fit"),
            HepError::Chunk(kind) => write!(f, "HEPv3: chunk {kind} is missing or has a wrong size"),
            HepError::NotSip(kind) => write!(f, "HEPv3: payload type {kind} is not SIP"),
        }
    }
}

fn number(value: &[u8]) -> Option<u32> {
    match *value {
        [a] => Some(u32::from(a)),
        [a, b] => Some(u32::from(u16::from_be_bytes([a, b]))),
        [a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d])),
        _ => None,
    }
}

/// Reads a datagram.
pub fn decode(data: &[u8]) -> Result<Packet<'_>, HepError> {
    if !data.starts_with(MAGIC) {
        return Err(HepError::Magic);
    }
    let total = data.get(4..6).and_then(number).ok_or(HepError::Length)? as usize;
    let mut rest = data.get(6..total).ok_or(HepError::Length)?;
    let (mut source, mut destination) = (None::<IpAddr>, None::<IpAddr>);
    let (mut source_port, mut destination_port) = (None, None);
    let (mut seconds, mut micros, mut agent) = (None, 0, 0);
    let (mut protocol, mut kind, mut payload) = (17, SIP, None);
    while !rest.is_empty() {
        let head: &[u8; 6] = rest.first_chunk().ok_or(HepError::Length)?;
        let vendor = u16::from_be_bytes([head[0], head[1]]);
        let chunk = u16::from_be_bytes([head[2], head[3]]);
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let value = rest.get(6..length).ok_or(HepError::Length)?;
        rest = rest.get(length..).ok_or(HepError::Length)?;
        if vendor != 0 {
            continue;
        }
        let bad = HepError::Chunk(chunk);
        let int = || number(value).ok_or(bad);
        let v4 = || value.try_into().map(|b: [u8; 4]| IpAddr::V4(Ipv4Addr::from(b))).map_err(|_| bad);
        let v6 = || value.try_into().map(|b: [u8; 16]| IpAddr::V6(Ipv6Addr::from(b))).map_err(|_| bad);
        match chunk {
            PROTOCOL => protocol = int()?,
            SOURCE_V4 => source = Some(v4()?),
            DESTINATION_V4 => destination = Some(v4()?),
            SOURCE_V6 => source = Some(v6()?),
            DESTINATION_V6 => destination = Some(v6()?),
            SOURCE_PORT => source_port = Some(int()? as u16),
            DESTINATION_PORT => destination_port = Some(int()? as u16),
            SECONDS => seconds = Some(int()?),
            MICROSECONDS => micros = int()?,
            PAYLOAD_TYPE => kind = int()? as u8,
            AGENT => agent = int()?,
            PAYLOAD => payload = Some(value),
            _ => {}
        }
    }
    if kind != SIP {
        return Err(HepError::NotSip(kind));
    }
    let seconds = seconds.ok_or(HepError::Chunk(SECONDS))?;
    Ok(Packet {
        time: Instant(u64::from(seconds) * 1_000_000 + u64::from(micros.min(999_999))),
        // HEP knows IP protocols only; Homer's readers take the rest from the Via, and so do we.
        transport: if protocol == 6 { Transport::Tcp } else { Transport::Udp },
        source: SocketAddr::new(
            source.ok_or(HepError::Chunk(SOURCE_V4))?,
            source_port.ok_or(HepError::Chunk(SOURCE_PORT))?,
        ),
        destination: SocketAddr::new(
            destination.ok_or(HepError::Chunk(DESTINATION_V4))?,
            destination_port.ok_or(HepError::Chunk(DESTINATION_PORT))?,
        ),
        agent,
        payload: payload.ok_or(HepError::Chunk(PAYLOAD))?,
    })
}

/// Appends the datagram of a packet to `out`. A payload that would not fit into a datagram is refused.
pub fn encode(packet: &Packet<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0, 0]);
    let mut chunk = |kind: u16, value: &[u8]| {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&kind.to_be_bytes());
        // The payload is the only long one, and is checked with the total below.
        out.extend_from_slice(&((value.len() + 6) as u16).to_be_bytes());
        out.extend_from_slice(value);
    };
    // Both have the family of the source: a v4-mapped address counts as IPv4.
    let addresses = (packet.source.ip().to_canonical(), packet.destination.ip().to_canonical());
    match addresses {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            chunk(FAMILY, &[2]);
            chunk(SOURCE_V4, &source.octets());
            chunk(DESTINATION_V4, &destination.octets());
        }
        (source, destination) => {
            chunk(FAMILY, &[10]);
            chunk(SOURCE_V6, &mapped(source).octets());
            chunk(DESTINATION_V6, &mapped(destination).octets());
        }
    }
    chunk(PROTOCOL, &[if packet.transport == Transport::Udp { 17 } else { 6 }]);
    chunk(SOURCE_PORT, &packet.source.port().to_be_bytes());
    chunk(DESTINATION_PORT, &packet.destination.port().to_be_bytes());
    chunk(SECONDS, &(packet.time.unix_secs() as u32).to_be_bytes());
    chunk(MICROSECONDS, &packet.time.subsec_micros().to_be_bytes());
    chunk(PAYLOAD_TYPE, &[SIP]);
    chunk(AGENT, &packet.agent.to_be_bytes());
    chunk(PAYLOAD, packet.payload);
    let total = out.len() - start;
    match (u16::try_from(total), out.get_mut(start + 4..start + 6)) {
        (Ok(total), Some(length)) => {
            length.copy_from_slice(&total.to_be_bytes());
            true
        }
        _ => {
            out.truncate(start);
            false
        }
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(source: &str, destination: &str) -> Packet<'static> {
        Packet {
            time: Instant(1_565_592_060_343_987),
            transport: Transport::Udp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            agent: 2001,
            payload: b"OPTIONS sip:bob@example.com SIP/2.0\r\n\r\n",
        }
    }

    #[test]
    fn goes_there_and_back() {
        for packet in [
            packet("192.0.2.1:5060", "198.51.100.2:5062"),
            packet("[2001:db8::1]:5060", "[2001:db8::2]:5061"),
            Packet { transport: Transport::Tcp, ..packet("192.0.2.1:5060", "192.0.2.2:5060") },
        ] {
            let mut datagram = Vec::new();
            assert!(encode(&packet, &mut datagram));
            assert_eq!(decode(&datagram), Ok(packet));
        }
    }

    /// By hand, chunk for chunk, in another order, with a vendor's chunk and one that nobody knows.
    #[test]
    fn reads_what_others_write() {
        let mut datagram = b"HEP3\0\0".to_vec();
        let mut chunk = |vendor: u16, kind: u16, value: &[u8]| {
            datagram.extend(vendor.to_be_bytes());
            datagram.extend(kind.to_be_bytes());
            datagram.extend((value.len() as u16 + 6).to_be_bytes());
            datagram.extend(value);
        };
        chunk(0, 15, b"SIP/2.0 200 OK\r\n\r\n");
        chunk(0xffff, 15, b"a vendor's");
        chunk(0, 1, &[2]);
        chunk(0, 2, &[6]);
        chunk(0, 3, &[192, 0, 2, 1]);
        chunk(0, 4, &[192, 0, 2, 2]);
        chunk(0, 7, &[0x13, 0xc4]);
        chunk(0, 8, &[0x13, 0xc5]);
        chunk(0, 9, &[0, 0, 0, 5]);
        chunk(0, 11, &[1]);
        chunk(0, 99, b"?");
        let length = datagram.len() as u16;
        datagram[4..6].copy_from_slice(&length.to_be_bytes());
        let read = decode(&datagram).unwrap();
        assert_eq!(read.source, "192.0.2.1:5060".parse().unwrap());
        assert_eq!(read.destination, "192.0.2.2:5061".parse().unwrap());
        assert_eq!((read.transport, read.time), (Transport::Tcp, Instant::from_secs(5)));
        assert_eq!(read.payload, b"SIP/2.0 200 OK\r\n\r\n");
        for end in 0..datagram.len() {
            assert!(decode(&datagram[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn too_long_is_refused() {
        let payload = vec![b'x'; 65_500];
        let mut out = vec![1];
        let long = Packet { payload: &payload, ..packet("192.0.2.1:5060", "192.0.2.2:5060") };
        assert!(!encode(&long, &mut out));
        assert_eq!(out, [1]);
    }

    proptest! {
        #[test]
        fn survives_anything(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let length = bytes.len() as u16 + 6;
            bytes.splice(0..0, [b'H', b'E', b'P', b'3', (length >> 8) as u8, length as u8]);
            let _ = decode(&bytes);
        }
    }
}
