//! From a captured packet to a UDP datagram or a TCP segment.
//!
//! LINKTYPE_ values of pcap: Ethernet with VLAN tags, raw IP, null/loopback, Linux cooked v1 and v2. RFC 791 §3.2 and RFC 8200 §4.5
//! (fragments). In: link type and bytes, perhaps cut short by the capture's snap length. Out: [`Segment`].
//! Not here: what is inside of them, checksums (a capturing host often has not filled them in), tunnels.

use crate::limits::{TRACE_FRAGMENTED, TRACE_FRAGMENTS};
use etherparse::{
    EtherType, IpNumber, Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice, UdpSlice,
};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// The header types that are understood; the number is pcap's LINKTYPE_.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Ethernet,
    /// An IP header comes first: RAW (101, and 12 and 14 of old), IPV4 (228), IPV6 (229).
    Ip,
    /// A 32-bit address family of the host's order (0), or of network order (108), then IP.
    Loopback,
    /// Linux cooked v1: 16 bytes (113).
    Cooked,
    /// Linux cooked v2: 20 bytes (276).
    Cooked2,
}

impl Link {
    /// By pcap's number; None for one that carries no IP, or that nobody taught us.
    pub const fn from_number(number: u32) -> Option<Link> {
        match number {
            1 => Some(Link::Ethernet),
            12 | 14 | 101 | 228 | 229 => Some(Link::Ip),
            0 | 108 => Some(Link::Loopback),
            113 => Some(Link::Cooked),
            276 => Some(Link::Cooked2),
            _ => None,
        }
    }
}

/// What a packet carried.
#[derive(Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    Udp { source: SocketAddr, destination: SocketAddr, payload: &'a [u8] },
    Tcp { source: SocketAddr, destination: SocketAddr, sequence: u32, flags: Flags, payload: &'a [u8] },
}

/// The TCP flags that matter to whoever puts a stream together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
}

/// Takes packets apart; what it remembers is fragments only.
#[derive(Debug, Default)]
pub struct Net {
    fragmented: HashMap<FragmentKey, Fragments>,
    /// In the order in which they began, so that the oldest goes first.
    order: VecDeque<FragmentKey>,
    whole: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FragmentKey {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    protocol: IpNumber,
}

#[derive(Debug, Default)]
struct Fragments {
    /// Where each begins, and its bytes.
    pieces: Vec<(usize, Vec<u8>)>,
    end: Option<usize>,
}

struct Fragment {
    identification: u32,
    offset: usize,
    more: bool,
}

impl Net {
    /// The segment in a packet, `None` where there is none (yet).
    pub fn segment<'a>(&'a mut self, link: Link, data: &'a [u8]) -> Option<Segment<'a>> {
        let packet = slice(link, data)?;
        let net = packet.net.as_ref()?;
        let (source, destination) = match net {
            LaxNetSlice::Ipv4(ip) => {
                (IpAddr::V4(ip.header().source_addr()), IpAddr::V4(ip.header().destination_addr()))
            }
            LaxNetSlice::Ipv6(ip) => {
                (IpAddr::V6(ip.header().source_addr()), IpAddr::V6(ip.header().destination_addr()))
            }
            LaxNetSlice::Arp(_) => return None,
        };
        if let Some(fragment) = fragment(net) {
            let payload = net.ip_payload_ref()?;
            let key = FragmentKey {
                source,
                destination,
                identification: fragment.identification,
                protocol: payload.ip_number,
            };
            let protocol = payload.ip_number;
            self.whole = self.gather(key, &fragment, payload.payload)?;
            return transport(source, destination, protocol, &self.whole);
        }
        match packet.transport? {
            TransportSlice::Udp(udp) => Some(from_udp(source, destination, &udp)),
            TransportSlice::Tcp(tcp) => Some(from_tcp(source, destination, &tcp)),
            _ => None,
        }
    }

    /// Keeps a fragment; the whole when it was the last that was missing.
    fn gather(&mut self, key: FragmentKey, fragment: &Fragment, payload: &[u8]) -> Option<Vec<u8>> {
        if !self.fragmented.contains_key(&key) {
            if self.fragmented.len() >= TRACE_FRAGMENTED
                && let Some(oldest) = self.order.pop_front()
            {
                self.fragmented.remove(&oldest);
            }
            self.order.push_back(key);
        }
        let fragments = self.fragmented.entry(key).or_default();
        let end = fragment.offset + payload.len();
        if fragments.pieces.len() >= TRACE_FRAGMENTS || end > usize::from(u16::MAX) {
            self.forget(&key);
            return None;
        }
        if !fragment.more {
            fragments.end = Some(end);
        }
        let at = fragments.pieces.partition_point(|(offset, _)| *offset < fragment.offset);
        fragments.pieces.insert(at, (fragment.offset, payload.to_vec()));
        let mut reached = 0;
        for (offset, bytes) in &fragments.pieces {
            if *offset > reached {
                return None;
            }
            reached = reached.max(offset + bytes.len());
        }
        if fragments.end != Some(reached) {
            return None;
        }
        let mut whole = Vec::with_capacity(reached);
        for (offset, bytes) in &fragments.pieces {
            // Where pieces overlap, what came first in the datagram stays.
            if let Some(new) = bytes.get(whole.len().saturating_sub(*offset)..) {
                whole.extend_from_slice(new);
            }
        }
        self.forget(&key);
        Some(whole)
    }

    fn forget(&mut self, key: &FragmentKey) {
        self.fragmented.remove(key);
        self.order.retain(|other| other != key);
    }
}

fn slice(link: Link, data: &[u8]) -> Option<LaxSlicedPacket<'_>> {
    match link {
        Link::Ethernet => LaxSlicedPacket::from_ethernet(data).ok(),
        Link::Ip => LaxSlicedPacket::from_ip(data).ok(),
        // The family's number differs from system to system; IP's own version does not.
        Link::Loopback => LaxSlicedPacket::from_ip(data.get(4..)?).ok(),
        Link::Cooked => {
            let ether_type = u16::from_be_bytes([*data.get(14)?, *data.get(15)?]);
            Some(LaxSlicedPacket::from_ether_type(EtherType(ether_type), data.get(16..)?))
        }
        Link::Cooked2 => {
            let ether_type = u16::from_be_bytes([*data.first()?, *data.get(1)?]);
            Some(LaxSlicedPacket::from_ether_type(EtherType(ether_type), data.get(20..)?))
        }
    }
}

fn fragment(net: &LaxNetSlice<'_>) -> Option<Fragment> {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            header.is_fragmenting_payload().then(|| Fragment {
                identification: u32::from(header.identification()),
                offset: usize::from(header.fragments_offset().byte_offset()),
                more: header.more_fragments(),
            })
        }
        LaxNetSlice::Ipv6(ip) => ip.extensions().clone().into_iter().find_map(|extension| match extension {
            Ipv6ExtensionSlice::Fragment(header) if header.is_fragmenting_payload() => Some(Fragment {
                identification: header.identification(),
                offset: usize::from(header.fragment_offset().byte_offset()),
                more: header.more_fragments(),
            }),
            _ => None,
        }),
        LaxNetSlice::Arp(_) => None,
    }
}

fn transport(source: IpAddr, destination: IpAddr, protocol: IpNumber, payload: &[u8]) -> Option<Segment<'_>> {
    match protocol {
        IpNumber::UDP => Some(from_udp(source, destination, &UdpSlice::from_slice_lax(payload).ok()?)),
        IpNumber::TCP => Some(from_tcp(source, destination, &TcpSlice::from_slice(payload).ok()?)),
        _ => None,
    }
}

fn from_udp<'a>(source: IpAddr, destination: IpAddr, udp: &UdpSlice<'a>) -> Segment<'a> {
    Segment::Udp {
        source: SocketAddr::new(source, udp.source_port()),
        destination: SocketAddr::new(destination, udp.destination_port()),
        payload: udp.payload(),
    }
}

fn from_tcp<'a>(source: IpAddr, destination: IpAddr, tcp: &TcpSlice<'a>) -> Segment<'a> {
    Segment::Tcp {
        source: SocketAddr::new(source, tcp.source_port()),
        destination: SocketAddr::new(destination, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        flags: Flags { syn: tcp.syn(), fin: tcp.fin(), rst: tcp.rst() },
        payload: tcp.payload(),
    }
}
