//! siptrace's logic: SIP found in packets or in HEP, put together into calls, and shown.
//!
//! In: packets of a capture with their time, or HEPv3 datagrams. Out: [`Traced`] messages, and [`Call`]s with their state;
//! `show` makes text and JSON of them. The parser is the proxy's own, [`sip`](crate::sip) and [`framing`](crate::framing):
//! what it refuses is shown all the same, with the reason. Memory is bounded: what is remembered of streams, fragments and
//! calls has limits, beyond which the oldest goes. Not here: files and sockets (`sipbox-io`, `capture`), TLS.

pub mod calls;
pub mod choice;
mod described;
pub mod hep;
pub mod net;
pub mod quality;
pub mod rtp;
pub mod show;
mod tcp;

#[cfg(test)]
mod tests;

pub use calls::{Call, Shown, State, Trace, View};
pub use choice::{Choice, StatusChoice};
pub use net::{Flags, Link, Net, Segment};

use crate::flow::Transport;
use crate::limits::TRACE_STREAMS;
use crate::sip::{Message, Name, ParseError, unfold};
use crate::time::Instant;
use bytes::Bytes;
use hep::HepError;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use tcp::Direction;

/// One SIP message that went over the wire.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The packet that completed it, counted from 1.
    pub packet: u64,
    pub time: Instant,
    pub transport: Transport,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub data: Bytes,
    /// Why a server would refuse it; `None` where it would not.
    pub fault: Option<ParseError>,
    pub summary: Summary,
}

impl Traced {
    /// Bytes that keeping it takes: a message is small beside what was read out of it.
    fn weight(&self) -> usize {
        let Summary { reason, method, request_uri, call_id, from, to, .. } = &self.summary;
        let texts = [reason, method, request_uri, call_id, from, to].map(String::capacity);
        size_of::<Traced>() + self.data.len() + texts.iter().sum::<usize>()
    }
}

/// What calls are made of and chosen by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// 0 in a request.
    pub status: u16,
    pub reason: String,
    /// Of the request, or of the CSeq in a response.
    pub method: String,
    pub request_uri: String,
    /// Empty where there is none.
    pub call_id: String,
    /// The URI, without parameters of the header.
    pub from: String,
    pub to: String,
    pub to_tag: bool,
    pub cseq: u32,
    pub sdp: bool,
}

impl Summary {
    fn of(message: &Message<'_>) -> Summary {
        let text = |bytes: &[u8]| printable(&unfold(bytes));
        let uri = |name: Name| match crate::sip::NameAddr::parse(message.header(name).unwrap_or_default()) {
            Ok(address) => text(address.uri.as_bytes()),
            Err(_) => text(message.header(name).unwrap_or_default()),
        };
        Summary {
            status: message.status(),
            reason: text(message.reason()),
            method: text(message.method().as_bytes()),
            request_uri: text(message.request_uri()),
            call_id: text(message.call_id().unwrap_or_default()),
            from: uri(Name::From),
            to: uri(Name::To),
            to_tag: message.to_tag().is_some(),
            cseq: message.cseq().map_or(0, |(number, _)| number),
            sdp: message
                .header(Name::ContentType)
                .is_some_and(|kind| kind.to_ascii_lowercase().starts_with(b"application/sdp")),
        }
    }

    pub const fn is_request(&self) -> bool {
        self.status == 0
    }
}

/// Text for a terminal or a record: what could move a cursor is shown as `?`.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Whether a SIP message begins here, as its first line says.
pub(crate) fn looks_like_sip(data: &[u8]) -> bool {
    let data = &data[..data.len().min(crate::limits::SIP_MESSAGE_BYTES)];
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let line = &data[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.starts_with(b"SIP/2.0 ") {
        return true;
    }
    let method = memchr::memchr(b' ', line).map(|space| &line[..space]);
    method.is_some_and(|method| !method.is_empty() && method.iter().all(|b| b.is_ascii_graphic()))
        && memchr::memmem::rfind(line, b" SIP/").is_some()
}

/// Finds SIP in packets.
#[derive(Debug, Default)]
pub struct Finder {
    net: Net,
    streams: HashMap<(SocketAddr, SocketAddr), Direction>,
    /// In the order in which they began.
    order: VecDeque<(SocketAddr, SocketAddr)>,
}

impl Finder {
    pub fn new() -> Self {
        Finder::default()
    }

    /// One packet of a capture; the messages that it completes are appended to `out`.
    pub fn packet(&mut self, number: u64, time: Instant, link: Link, data: &[u8], out: &mut Vec<Traced>) {
        self.packet_and(number, time, link, data, out, |_, _, _| {});
    }

    /// The same; `other` gets each datagram that is no SIP, with source and destination.
    pub fn packet_and(
        &mut self,
        number: u64,
        time: Instant,
        link: Link,
        data: &[u8],
        out: &mut Vec<Traced>,
        other: impl FnOnce(SocketAddr, SocketAddr, &[u8]),
    ) {
        match self.net.segment(link, data) {
            None => {}
            Some(Segment::Udp { source, destination, payload }) => {
                if payload.starts_with(hep::MAGIC) {
                    // Somebody captured HEP on its way to a collector: what it carries is meant.
                    let _ = from_hep(number, payload).map(|traced| out.push(traced));
                    return;
                }
                let skip = payload.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(payload.len());
                if looks_like_sip(&payload[skip..]) {
                    let data = Bytes::copy_from_slice(&payload[skip..]);
                    out.extend(traced(number, time, Transport::Udp, source, destination, data));
                } else {
                    other(source, destination, payload);
                }
            }
            Some(Segment::Tcp { source, destination, sequence, flags, payload }) => {
                let key = (source, destination);
                if !self.streams.contains_key(&key) {
                    if payload.is_empty() && !flags.syn {
                        return;
                    }
                    if self.streams.len() >= TRACE_STREAMS
                        && let Some(oldest) = self.order.pop_front()
                    {
                        self.streams.remove(&oldest);
                    }
                    self.order.push_back(key);
                }
                let direction = self.streams.entry(key).or_default();
                direction.segment(sequence, flags.syn, payload, |transport, data| {
                    out.extend(traced(number, time, transport, source, destination, data));
                });
                if flags.fin || flags.rst {
                    self.streams.remove(&key);
                    self.order.retain(|other| *other != key);
                }
            }
        }
    }
}

/// The message in a HEPv3 datagram.
pub fn from_hep(number: u64, datagram: &[u8]) -> Result<Traced, HepError> {
    let packet = hep::decode(datagram)?;
    let data = Bytes::copy_from_slice(packet.payload);
    let mut found = traced(number, packet.time, packet.transport, packet.source, packet.destination, data)
        .ok_or(HepError::Chunk(15))?;
    if packet.transport != Transport::Udp {
        // HEP says only that it was TCP; the hop's own Via says what ran on it.
        let via = Message::parse(&found.data).ok().and_then(|m| m.top_via().ok()?.transport());
        if let Some(transport) = via.filter(|transport| transport.is_reliable()) {
            found.transport = transport;
        }
    }
    Ok(found)
}

fn traced(
    packet: u64,
    time: Instant,
    transport: Transport,
    source: SocketAddr,
    destination: SocketAddr,
    data: Bytes,
) -> Option<Traced> {
    let (summary, fault) = match Message::parse(&data) {
        Ok(message) => (Summary::of(&message), message.check().err()),
        Err(fault) => (Summary::of(&Message::parse_to_show(&data)?), Some(fault)),
    };
    Some(Traced { packet, time, transport, source, destination, data, fault, summary })
}
