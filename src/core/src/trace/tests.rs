//! Memory that stays bounded, and packets that mean harm.

use super::*;
use crate::limits::{TRACE_CALLS, TRACE_FRAGMENTED, TRACE_KEPT_BYTES, TRACE_STREAMS};
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn ip(protocol: u8, source: u32, place: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((payload.len() as u16 + 20).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(place.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(Ipv4Addr::from(source).octets());
    packet.extend([192, 0, 2, 2]);
    packet.extend(payload);
    packet
}

fn tcp(sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x13, 0xc4, 0x13, 0xc5];
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

fn request(method: &str, call_id: &str) -> String {
    format!(
        "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:alice@example.com>;tag=a\r\n\
         To: <sip:bob@example.com>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn message(call_id: &str) -> Traced {
    let end = "192.0.2.1:5060".parse().unwrap();
    let data = Bytes::from(request("OPTIONS", call_id));
    traced(1, Instant::from_secs(1), Transport::Udp, end, end, data).expect("a message")
}

#[test]
fn fragments_and_streams_are_bounded() {
    let mut finder = Finder::new();
    let mut out = Vec::new();
    for source in 0..(TRACE_FRAGMENTED as u32 + 100) {
        finder.packet(1, Instant(1), Link::Ip, &ip(17, source, 0x2000, &[0; 64]), &mut out);
    }
    for source in 0..(TRACE_STREAMS as u32 + 100) {
        finder.packet(1, Instant(1), Link::Ip, &ip(6, source, 0, &tcp(7, b"INVITE sip:bob")), &mut out);
    }
    assert!(out.is_empty());
    assert!(finder.streams.len() <= TRACE_STREAMS && finder.order.len() <= TRACE_STREAMS);
}

/// The capture lost a segment: what comes behind it is found again, at a segment that begins with a message.
#[test]
fn a_gap_is_given_up() {
    let mut finder = Finder::new();
    let mut out = Vec::new();
    let text = request("INVITE", "before");
    finder.packet(1, Instant(1), Link::Ip, &ip(6, 1, 0, &tcp(0, text.as_bytes())), &mut out);
    let mut sequence = text.len() as u32 + 1000;
    for number in 0..600 {
        let text = request("OPTIONS", &format!("after{number}"));
        finder.packet(2, Instant(2), Link::Ip, &ip(6, 1, 0, &tcp(sequence, text.as_bytes())), &mut out);
        sequence += text.len() as u32;
    }
    let ids: Vec<&str> = out.iter().map(|m| m.summary.call_id.as_str()).collect();
    assert_eq!(ids[..2], ["before", "after0"]);
    assert_eq!(ids.len(), 601);
}

#[test]
fn calls_are_bounded_and_the_stalest_goes_first() {
    let mut trace = Trace::new(View::Calls, Choice::default());
    let mut out = Vec::new();
    for number in 0..TRACE_CALLS {
        trace.add(message(&number.to_string()), &mut out);
    }
    // Number 0 is touched once more: 1 is the one that was silent for longest.
    trace.add(message("0"), &mut out);
    assert!(out.is_empty());
    trace.add(message("new"), &mut out);
    let [Shown::Call(call)] = &out[..] else { panic!("{} shown", out.len()) };
    assert_eq!((call.call_id.as_str(), trace.forgotten), ("1", 1));
}

/// Small messages by the hundred thousand are not let off by their own size: what was read out of them counts.
#[test]
fn ladders_of_small_messages_are_bounded() {
    let mut trace = Trace::new(View::Ladders, Choice::default());
    let mut out = Vec::new();
    let whole = message("");
    let numbered = |number: usize| {
        let mut traced = whole.clone();
        traced.summary.call_id = format!("{number:017}");
        traced
    };
    let one = numbered(0).weight();
    assert!(one > whole.data.len() + 200, "{one}");
    let most = TRACE_KEPT_BYTES / one;
    assert!(most + 100 < TRACE_CALLS, "the number of calls is met before their bytes: {one}");
    for number in 0..most + 100 {
        trace.add(numbered(number), &mut out);
    }
    assert!(out.len() >= 90, "{} calls were let go", out.len());
}

#[test]
fn what_came_before_the_match_is_shown_in_order() {
    let choice = Choice { method: vec!["BYE".into()], ..Choice::default() };
    let mut trace = Trace::new(View::Messages, choice);
    let mut out = Vec::new();
    trace.add(message("a"), &mut out);
    trace.add(message("b"), &mut out);
    assert!(out.is_empty());
    let mut bye = message("a");
    bye.summary.method = "BYE".into();
    trace.add(bye, &mut out);
    trace.add(message("a"), &mut out);
    let methods: Vec<&str> = out
        .iter()
        .map(|shown| match shown {
            Shown::Message(traced) => traced.summary.method.as_str(),
            Shown::Call(_) => panic!("a call"),
        })
        .collect();
    assert_eq!(methods, ["OPTIONS", "BYE", "OPTIONS"]);
    trace.finish(&mut out);
    assert_eq!(out.len(), 3);
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let evil = message("x\x1b[2Jy");
    assert_eq!(evil.summary.call_id, "x?[2Jy");
}

proptest! {
    #[test]
    fn survives_any_packet(
        mut packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..8),
        link in proptest::sample::select(&[Link::Ethernet, Link::Ip, Link::Loopback, Link::Cooked, Link::Cooked2][..]),
    ) {
        let mut finder = Finder::new();
        let mut out = Vec::new();
        for packet in &mut packets {
            if packet.len() > 20 && link == Link::Ip {
                packet[0] = 0x45 | (packet[0] & 0x20);
            }
            finder.packet(1, Instant(1), link, packet, &mut out);
        }
    }

    /// Streams cut into pieces in any order: the same messages, or fewer, and never a panic.
    #[test]
    fn survives_any_order(order in proptest::collection::vec((0usize..600, 1usize..80), 1..60)) {
        let stream = [request("INVITE", "a"), request("BYE", "b")].concat();
        let mut finder = Finder::new();
        let mut out = Vec::new();
        for (from, length) in order {
            let from = from.min(stream.len() - 1);
            let piece = &stream.as_bytes()[from..(from + length).min(stream.len())];
            finder.packet(1, Instant(1), Link::Ip, &ip(6, 1, 0, &tcp(from as u32, piece)), &mut out);
        }
        for traced in &out {
            let _ = (show::sip(traced), show::sdp(traced), show::message_record(traced));
        }
    }
}
