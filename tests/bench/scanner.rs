//! The scanner: what it costs to read what a proxy reads of a message, and to write the message that it sends on.
//!
//! Each kind of message that a server meets; the seed's INVITE and 200 from `tests/data/seed/sip`, the others of our own. JSON
//! on stdout, a line a row. Exit code 1 where the bounds of the design are passed: the seed's INVITE read in 500 ns without an
//! allocation, and forwarded in 1 µs. Beside it, in the same run, rsip.

mod measure;

use measure::{Cost, Counting, measure};
use sipbox_core::sip::edit::Edit;
use sipbox_core::sip::{Message, Name};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const INVITE: &[u8] = include_bytes!("../data/seed/sip/invite.sip");
const OK: &[u8] = include_bytes!("../data/seed/sip/ok.sip");
const REGISTER: &[u8] = b"REGISTER sip:example.com SIP/2.0\r\n\
Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK56sdasks;rport\r\n\
Max-Forwards: 69\r\nTo: <sip:alice@example.com>\r\nFrom: \"Alice\" <sip:alice@example.com>;tag=65bnmj.34asd\r\n\
Call-ID: aiuy7k9njasd\r\nCSeq: 82 REGISTER\r\n\
Authorization: Digest username=\"alice\", realm=\"example.com\", nonce=\"AAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\", \
uri=\"sip:example.com\", response=\"0123456789abcdef0123456789abcdef\", algorithm=MD5, cnonce=\"u4k\", qop=auth, nc=00000001\r\n\
Contact: <sip:vfo1k2@df7jal23ls0d.invalid;transport=ws>;+sip.instance=\"<urn:uuid:00000000-0000-0000-0000-000000000001>\";reg-id=1;expires=600\r\n\
Supported: path, gruu, outbound\r\nAllow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\r\n\
User-Agent: JsSIP 3.10.1\r\nContent-Length: 0\r\n\r\n";
const OPTIONS: &[u8] = b"OPTIONS sip:198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK1;rport\r\n\
Max-Forwards: 70\r\nFrom: <sip:ping@192.0.2.10>;tag=1\r\nTo: <sip:198.51.100.1>\r\nCall-ID: 1-2345@192.0.2.10\r\n\
CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
const ACK: &[u8] = b"ACK sip:bob@203.0.113.7:19145 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:18956;branch=z9hG4bK-9;rport\r\n\
Max-Forwards: 70\r\nRoute: <sip:ab3J-Kq0xT2mN8vRw1sYzE4cLhUgPdOi9bFa5@198.51.100.1;lr>\r\n\
To: <sip:bob@example.com>;tag=c33eb409\r\nFrom: <sip:alice@example.com>;tag=9d77522a\r\nCall-ID: ZjU2YjcwYjAy.\r\n\
CSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n";
const BYE: &[u8] = b"BYE sip:bob@203.0.113.7:19145 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:18956;branch=z9hG4bK-8;rport\r\n\
Max-Forwards: 70\r\nRoute: <sip:ab3J-Kq0xT2mN8vRw1sYzE4cLhUgPdOi9bFa5@198.51.100.1;lr>\r\n\
To: <sip:bob@example.com>;tag=c33eb409\r\nFrom: <sip:alice@example.com>;tag=9d77522a\r\nCall-ID: ZjU2YjcwYjAy.\r\n\
CSeq: 2 BYE\r\nUser-Agent: Bria 3 release 3.5.5\r\nReason: SIP;description=\"User Hung Up\"\r\nContent-Length: 0\r\n\r\n";
const RINGING: &[u8] = b"SIP/2.0 180 Ringing\r\nVia: SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bK00abcdefghijklmnop-x\r\n\
Via: SIP/2.0/UDP 192.0.2.10:18956;branch=z9hG4bK-8;rport=53917;received=203.0.113.7\r\n\
Record-Route: <sip:ab3J-Kq0xT2mN8vRw1sYzE4cLhUgPdOi9bFa5@198.51.100.1;lr>\r\nContact: <sip:bob@203.0.113.7:19145>\r\n\
To: <sip:bob@example.com>;tag=c33eb409\r\nFrom: <sip:alice@example.com>;tag=9d77522a\r\nCall-ID: ZjU2YjcwYjAy.\r\n\
CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";

/// What a proxy reads of every message: Request-URI, top Via, Route, tags, Call-ID, CSeq.
fn read(data: &[u8]) -> usize {
    let Ok(message) = Message::parse(data) else { return 0 };
    let via = message.top_via().ok().and_then(|via| via.branch()).map_or(0, <[u8]>::len);
    let route = message.routes().next().and_then(Result::ok).map_or(0, |route| route.uri.host.len());
    let tags = message.from_tag().map_or(0, <[u8]>::len) + message.to_tag().map_or(0, <[u8]>::len);
    let call_id = message.call_id().map_or(0, <[u8]>::len);
    let cseq = message.cseq().map_or(0, |(number, _)| number as usize);
    message.request_uri().len() + via + route + tags + call_id + cseq
}

/// The same, and everything that is checked before a request is acted on.
fn check(data: &[u8]) -> bool {
    Message::parse(data).is_ok_and(|message| message.check().is_ok())
}

/// Reads and forwards: a request gets our Via, Max-Forwards and Record-Route, a response loses our Via.
fn forward(data: &[u8], out: &mut Vec<u8>) -> usize {
    let Ok(message) = Message::parse(data) else { return 0 };
    out.clear();
    let mut edit = Edit::new();
    if message.is_request() {
        let hops = message.max_forwards().ok().flatten().unwrap_or(70);
        edit.prepend_via("SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bK00abcdefghijklmnop-k9k4fMBj")
            .set_max_forwards(hops.saturating_sub(1))
            .prepend_record_route("<sip:ab3J-Kq0xT2mN8vRw1sYzE4cLhUgPdOi9bFa5@198.51.100.1;lr>");
    } else {
        edit.remove_top_via();
    }
    edit.write(&message, out);
    out.len()
}

fn rsip(data: &[u8]) -> bool {
    use rsip::prelude::{HeadersExt, ToTypedHeader};
    let Ok(message) = rsip::SipMessage::try_from(data) else { return false };
    let via = message.via_header().is_ok_and(|via| via.typed().is_ok());
    let from = message.from_header().is_ok_and(|from| from.typed().is_ok());
    let to = message.to_header().is_ok_and(|to| to.typed().is_ok());
    let cseq = message.cseq_header().is_ok_and(|cseq| cseq.typed().is_ok());
    via && from && to && cseq && message.call_id_header().is_ok()
}

fn row(what: &str, message: &str, bytes: usize, cost: Cost) {
    println!(
        "{{\"bench\":\"scanner\",\"what\":\"{what}\",\"message\":\"{message}\",\"bytes\":{bytes},\"ns\":{:.0},\"allocations\":{:.2}}}",
        cost.nanos, cost.allocations
    );
}

fn main() {
    let kinds: [(&str, &[u8]); 8] = [
        ("invite", INVITE),
        ("200", OK),
        ("180", RINGING),
        ("ack", ACK),
        ("bye", BYE),
        ("register", REGISTER),
        ("options", OPTIONS),
        ("options-lf", b"OPTIONS sip:h SIP/2.0\nv: SIP/2.0/UDP h;branch=z9hG4bK1\nf: <sip:a@h>;tag=1\nt: <sip:h>\ni: 1\nCSeq: 1 OPTIONS\n\n"),
    ];
    let mut out = Vec::with_capacity(4096);
    let mut over = Vec::new();
    for (name, data) in kinds {
        assert!(check(data) && read(data) > 0, "{name} is not what it should be");
        row("parse", name, data.len(), measure(|| Message::parse(black_box(data)).is_ok()));
        let reading = measure(|| read(black_box(data)));
        row("read", name, data.len(), reading);
        row("check", name, data.len(), measure(|| check(black_box(data))));
        let forwarding = measure(|| forward(black_box(data), &mut out));
        row("forward", name, data.len(), forwarding);
        if name == "invite" {
            assert!(
                Message::parse(&out).is_ok_and(|sent| sent.values(Name::Via).count() == 3),
                "a third Via"
            );
            if reading.nanos > 500.0 || reading.allocations > 0.0 {
                over.push(format!("reading the INVITE: {reading:?}, wanted 500 ns without an allocation"));
            }
            if forwarding.nanos > 1000.0 {
                over.push(format!("forwarding the INVITE: {forwarding:?}, wanted 1000 ns"));
            }
        }
    }
    if rsip(INVITE) {
        row("read, by rsip", "invite", INVITE.len(), measure(|| rsip(black_box(INVITE))));
    }
    for line in &over {
        eprintln!("scanner: {line}");
    }
    std::process::exit(i32::from(!over.is_empty()));
}
