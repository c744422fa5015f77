//! siptrace from the outside: own captures made here, and the shared corpus against its index and against tshark.

#[path = "../harness/mod.rs"]
mod harness;

use harness::{
    Finished, Server, TempDir, assert_bar_came_and_went, run, run_in, run_on_terminal, shared_captures,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

// --- Captures of our own ---

/// A pcap of this link type; a packet a millisecond.
fn pcap(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, link] {
        file.extend(u32::to_le_bytes(word));
    }
    for (number, packet) in packets.iter().enumerate() {
        let length = packet.len() as u32;
        for word in [1_565_592_060, number as u32 * 1000, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

fn ip(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    fragment(protocol, from, to, 0, payload)
}

/// `place` is IPv4's field of flags and offset.
fn fragment(protocol: u8, from: [u8; 4], to: [u8; 4], place: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((payload.len() as u16 + 20).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(place.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    packet
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x13, 0xc4, 0x13, 0xc5];
    datagram.extend((payload.len() as u16 + 8).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x13, 0xc4, 0x13, 0xc5];
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

fn ethernet(vlan: bool, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if vlan {
        frame.extend([0x81, 0, 0, 42]);
    }
    frame.extend([8, 0]);
    frame.extend(packet);
    frame
}

const ALICE: [u8; 4] = [192, 0, 2, 1];
const BOB: [u8; 4] = [192, 0, 2, 2];

fn message(start: &str, cseq: &str, call_id: &str, body: &str) -> Vec<u8> {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{start}\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{}\r\nFrom: Alice <sip:alice@example.com>;tag=a\r\n\
         To: <sip:bob@example.com>\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        &cseq[..1],
        body.len()
    )
    .into_bytes()
}

const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// A call that is answered and ended, and one that is refused.
fn two_calls() -> Vec<(bool, Vec<u8>)> {
    let invite = "INVITE sip:bob@example.com SIP/2.0";
    vec![
        (true, message(invite, "1 INVITE", "first@192.0.2.1", SDP)),
        (true, message(invite, "1 INVITE", "second@192.0.2.1", SDP)),
        (false, message("SIP/2.0 180 Ringing", "1 INVITE", "first@192.0.2.1", "")),
        (false, message("SIP/2.0 486 Busy Here", "1 INVITE", "second@192.0.2.1", "")),
        (false, message("SIP/2.0 200 OK", "1 INVITE", "first@192.0.2.1", SDP)),
        (true, message("BYE sip:bob@example.com SIP/2.0", "2 BYE", "first@192.0.2.1", "")),
        (false, message("SIP/2.0 200 OK", "2 BYE", "first@192.0.2.1", "")),
    ]
}

fn over_udp(messages: &[(bool, Vec<u8>)]) -> Vec<Vec<u8>> {
    let packet = |(ahead, message): &(bool, Vec<u8>)| {
        let (from, to) = if *ahead { (ALICE, BOB) } else { (BOB, ALICE) };
        let mut datagram = udp(message);
        if !ahead {
            datagram[..4].rotate_left(2);
        }
        ip(17, from, to, &datagram)
    };
    messages.iter().map(packet).collect()
}

fn siptrace(args: &[&str], input: &[u8]) -> Finished {
    run(&[&["siptrace"], args].concat(), input)
}

fn records(finished: &Finished) -> Vec<Value> {
    finished.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn calls_with_their_state() {
    let file = pcap(101, &over_udp(&two_calls()));
    let calls = records(&siptrace(&["-o", "calls"], &file));
    let seen: Vec<_> = calls
        .iter()
        .map(|c| {
            (c["call_id"].as_str().unwrap(), c["status"].as_u64().unwrap(), c["state"].as_str().unwrap())
        })
        .collect();
    assert_eq!(seen, [("first@192.0.2.1", 200, "ended"), ("second@192.0.2.1", 486, "failed")]);
    assert_eq!(calls[0]["from"], "sip:alice@example.com");
    assert_eq!(calls[0]["to"], "sip:bob@example.com");
    assert_eq!(calls[0]["messages"], 5);
    assert_eq!(calls[0]["answered"], "2019-08-12T06:41:00.004000Z");
    let list = siptrace(&["-o", "list"], &file);
    assert_eq!(list.stdout.lines().count(), 3);
    assert!(list.stdout.lines().nth(2).unwrap().ends_with("sip:bob@example.com\tsecond@192.0.2.1"));
}

#[test]
fn a_message_that_fits_brings_its_call() {
    let file = pcap(101, &over_udp(&two_calls()));
    let whole = records(&siptrace(&["--status", "486"], &file));
    assert_eq!(whole.len(), 2);
    assert!(whole.iter().all(|m| m["call_id"] == "second@192.0.2.1"));
    let only = records(&siptrace(&["--status", "4xx", "--only"], &file));
    assert_eq!(only.len(), 1);
    assert_eq!(only[0]["reason"], "Busy Here");
    for (choice, messages) in [
        (&["--method", "BYE"][..], 5),
        (&["--call-id", "first@192.0.2.1", "--status", "486"], 0),
        (&["--from", "ALICE@", "--to", "bob"], 7),
        (&["--from", "bob"], 0),
        (&["--method", "BYE", "--method", "INVITE"], 7),
    ] {
        assert_eq!(records(&siptrace(choice, &file)).len(), messages, "{choice:?}");
    }
}

#[test]
fn sip_and_sdp_can_be_read_on() {
    let mut messages = two_calls();
    // A length that is wrong, and none: datagrams bear it, a stream of messages does not.
    let text = String::from_utf8(messages[0].1.clone()).unwrap();
    let length = format!("Content-Length: {}\r\n", SDP.len());
    messages[0].1 = text.replace(&length, "Content-Length: 999\r\n").into_bytes();
    messages[1].1 = text.replace(&length, "").replace("first@", "second@").into_bytes();
    let file = pcap(101, &over_udp(&messages));
    let sip = siptrace(&["-o", "sip"], &file);
    assert_eq!(sip.code, 0);
    assert_eq!(sip.stdout.matches(&length[..length.len() - 2]).count(), 3, "{}", sip.stdout);
    assert!(sip.stderr.contains("packet 1: Content-Length was wrong"), "{}", sip.stderr);
    assert!(sip.stderr.contains("packet 2: Content-Length was missing"), "{}", sip.stderr);
    let sdp = siptrace(&["-o", "sdp", "--call-id", "first@192.0.2.1"], &pcap(101, &over_udp(&two_calls())));
    assert_eq!(sdp.stdout.matches("v=0").count(), 2);
    let rewritten = run(&["sdp-rewrite", "--to", "sip"], sdp.stdout.replace('\n', "\r\n").as_bytes());
    assert_eq!(rewritten.code, 0, "{}", rewritten.stderr);
    assert_eq!(rewritten.stdout.matches("v=0").count(), 2, "{}", rewritten.stdout);
}

#[test]
fn a_ladder_is_readable() {
    let ladder = siptrace(&["-o", "ladder", "--status", "486"], &pcap(101, &over_udp(&two_calls())));
    let lines: Vec<&str> = ladder.stdout.lines().collect();
    assert_eq!(lines[0], "2019-08-12T06:41:00.001000Z INVITE 486 Busy Here (failed)");
    assert_eq!(lines[3], "Call-ID: second@192.0.2.1");
    assert!(lines[4].contains("192.0.2.1:5060") && lines[4].contains("192.0.2.2:5061"), "{}", ladder.stdout);
    assert!(lines[5].contains("|---") && lines[5].contains(" INVITE (SDP) ") && lines[5].ends_with(">|"));
    assert!(lines[6].contains("|<--") && lines[6].contains(" 486 Busy Here ") && lines[6].ends_with("-|"));
}

#[test]
fn every_link_and_fragments() {
    let call = &two_calls()[..1];
    let packet = &over_udp(call)[0];
    let datagram = udp(&call[0].1);
    let cooked = [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0][..], packet].concat();
    let cooked2 = [&[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], packet].concat();
    let cases = [
        ("ethernet", 1, vec![ethernet(false, packet)]),
        ("VLAN", 1, vec![ethernet(true, packet)]),
        ("raw", 101, vec![packet.clone()]),
        ("null", 0, vec![[&[2, 0, 0, 0][..], packet].concat()]),
        ("loop", 108, vec![[&[0, 0, 0, 2][..], packet].concat()]),
        ("SLL", 113, vec![cooked]),
        ("SLL2", 276, vec![cooked2]),
        (
            "fragments out of order",
            101,
            vec![
                fragment(17, ALICE, BOB, 160 / 8, &datagram[160..]),
                fragment(17, ALICE, BOB, 0x2000, &datagram[..160]),
            ],
        ),
    ];
    for (name, link, packets) in cases {
        let found = records(&siptrace(&[], &pcap(link, &packets)));
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0]["call_id"], "first@192.0.2.1", "{name}");
        assert_eq!(found[0]["source"], "192.0.2.1:5060", "{name}");
        assert_eq!(found[0]["message"].as_str().unwrap().as_bytes(), call[0].1, "{name}");
    }
}

#[test]
fn tcp_in_any_pieces() {
    let (one, two) = (&two_calls()[0].1, &two_calls()[1].1);
    let stream = [&b"\r\n\r\n"[..], one, two].concat();
    let at = |from: usize, to: usize| ip(6, ALICE, BOB, &tcp(1001 + from as u32, 0x10, &stream[from..to]));
    let end = stream.len();
    let packets = vec![
        ip(6, ALICE, BOB, &tcp(1000, 2, b"")),
        at(0, 50),
        at(200, 300),
        at(20, 120), // repeats a part
        at(100, 200),
        at(200, 300), // once more
        at(300, end),
    ];
    let found = records(&siptrace(&[], &pcap(101, &packets)));
    let ids: Vec<_> = found.iter().map(|m| m["call_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["first@192.0.2.1", "second@192.0.2.1"]);
    assert!(found.iter().all(|m| m["transport"] == "tcp"));
    assert_eq!(found[1]["message"].as_str().unwrap().as_bytes(), *two);
}

/// The handshake and a masked message in two fragments with a ping between, in pieces of seven bytes.
#[test]
fn websocket_with_mask_and_fragments() {
    let message = &two_calls()[0].1;
    let mask = [0xde, 0xad, 0xbe, 0xef];
    let frame = |first: u8, payload: &[u8]| {
        let mut frame = vec![first, 0x80 | 126];
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
        frame
    };
    let stream = [
        &b"GET /sip HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
            [..],
        &frame(0x01, &message[..100]),
        &frame(0x89, b"ping"),
        &frame(0x80, &message[100..]),
    ]
    .concat();
    let mut packets = vec![ip(6, ALICE, BOB, &tcp(0xffff_fff0, 2, b""))];
    for (index, piece) in stream.chunks(7).enumerate() {
        // The sequence number wraps on the way.
        packets.push(ip(6, ALICE, BOB, &tcp(0xffff_fff1u32.wrapping_add(index as u32 * 7), 0x10, piece)));
    }
    let found = records(&siptrace(&[], &pcap(101, &packets)));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["transport"], "ws");
    assert_eq!(found[0]["message"].as_str().unwrap().as_bytes(), *message);
    // Without the handshake: the capture began too late.
    let late = stream[stream.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4..].to_vec();
    let found = records(&siptrace(&[], &pcap(101, &[ip(6, ALICE, BOB, &tcp(5, 0x10, &late))])));
    assert_eq!(found.len(), 1);
}

#[test]
fn what_is_cut_off_or_no_capture_is_told() {
    let file = pcap(101, &over_udp(&two_calls()));
    let cut = siptrace(&["-o", "calls"], &file[..file.len() - 20]);
    assert_eq!(cut.code, 65);
    assert_eq!(records(&cut).len(), 2, "what was whole is shown");
    assert!(cut.stderr.contains("packet 7 at byte "), "{}", cut.stderr);
    assert_eq!(cut.stderr.lines().count(), 1, "{}", cut.stderr);
    assert_eq!(siptrace(&[], b"hello, this is no capture").code, 65);
    assert_eq!(siptrace(&[], b"").code, 65);
    assert_eq!(siptrace(&["/nonexistent/x.pcap"], b"").code, 66);
    assert_eq!(siptrace(&["--status", "7xx"], b"").code, 64);
}

/// What cannot be read among several is named, and the others are shown.
#[test]
fn an_unreadable_file_does_not_stop_the_others() {
    let dir = TempDir::new();
    let file = pcap(101, &over_udp(&two_calls()));
    std::fs::write(dir.join("good.pcap"), &file).unwrap();
    std::fs::write(dir.join("cut.pcap"), &file[..file.len() - 20]).unwrap();
    std::fs::write(dir.join("text.txt"), "hello").unwrap();
    std::fs::create_dir(dir.join("directory")).unwrap();
    let words = ["siptrace", "-o", "json", "missing.pcap", "directory", "cut.pcap", "text.txt", "good.pcap"];
    let finished = run_in(&dir, &words, b"");
    assert_eq!(finished.code, 66, "of the first fault: {}", finished.stderr);
    let messages = two_calls().len();
    assert_eq!(records(&finished).len(), 2 * messages - 1, "all but the one that is cut off");
    for place in ["missing.pcap: ", "directory: ", "cut.pcap: packet ", "text.txt: "] {
        let lines = finished.stderr.lines().filter(|line| line.contains(place)).count();
        assert_eq!(lines, 1, "{place} in {}", finished.stderr);
    }
}

#[test]
fn a_closed_pipe_is_quiet() {
    let many: Vec<_> = std::iter::repeat_with(two_calls).take(500).flatten().collect();
    let dir = TempDir::new();
    let path = dir.join("x.pcap");
    std::fs::write(&path, pcap(101, &over_udp(&many))).unwrap();
    let line =
        format!("{} siptrace {} | head -1; echo ${{PIPESTATUS[0]}}", harness::sipbox(), path.display());
    let output = Command::new("bash").args(["-c", &line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().last(), Some("0"), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// On a terminal, a large file has a progress bar, which is gone at the end; in a pipe there is none, nor for a small file.
#[test]
fn a_bar_shows_on_a_terminal_only() {
    let dir = TempDir::new();
    let mut packets = over_udp(&two_calls());
    let small = dir.join("small.pcap");
    std::fs::write(&small, pcap(101, &packets)).unwrap();
    packets.extend(std::iter::repeat_n(ip(17, ALICE, BOB, &udp(&[b'x'; 50_000])), 200));
    let large = dir.join("large.pcap");
    std::fs::write(&large, pcap(101, &packets)).unwrap();
    let (small, large) = (small.display().to_string(), large.display().to_string());
    for words in [&["siptrace", "-o", "calls"][..], &["mos-report", "-o", "json"]] {
        let words = |file| [words, &[file]].concat();
        let piped = run(&words(&large), b"");
        assert_eq!((piped.code, piped.stderr.as_str()), (0, ""), "{words:?}", words = words(&large));
        let (finished, screen) = run_on_terminal(&words(&large));
        assert_eq!((finished.code, finished.stdout), (0, piped.stdout));
        assert_bar_came_and_went(&screen, "large.pcap");
        let (finished, screen) = run_on_terminal(&words(&small));
        assert_eq!((finished.code, screen), (0, Vec::new()));
    }
}

/// HEPv3 as its specification lays it out, made here by hand.
fn hep(message: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    let mut chunk = |kind: u16, value: &[u8]| {
        chunks.extend([0, 0]);
        chunks.extend(kind.to_be_bytes());
        chunks.extend((value.len() as u16 + 6).to_be_bytes());
        chunks.extend(value);
    };
    chunk(1, &[2]);
    chunk(2, &[17]);
    chunk(3, &ALICE);
    chunk(4, &BOB);
    chunk(7, &[0x13, 0xc4]);
    chunk(8, &[0x13, 0xc5]);
    chunk(9, &1_565_592_060u32.to_be_bytes());
    chunk(10, &[0, 0, 0, 7]);
    chunk(11, &[1]);
    chunk(12, &[0, 0, 0, 1]);
    chunk(15, message);
    [b"HEP3", &(chunks.len() as u16 + 6).to_be_bytes()[..], &chunks].concat()
}

/// A good datagram, spoilt in its lengths, types and end.
fn hep_garbage() -> Vec<Vec<u8>> {
    let good = hep(&message("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", "spoilt", ""));
    let changed = |at: usize, bytes: &[u8]| {
        let mut spoilt = good.clone();
        spoilt[at..at + bytes.len()].copy_from_slice(bytes);
        spoilt
    };
    let mut all: Vec<Vec<u8>> = (0..good.len()).step_by(7).map(|end| good[..end].to_vec()).collect();
    all.extend([
        changed(4, &[0, 0]),
        changed(4, &[0xff, 0xff]),
        // The first chunk's length: none, and more than there is.
        changed(10, &[0, 0]),
        changed(10, &[0xff, 0xff]),
        hep(b""),
        hep(&[0xff; 300]),
        vec![0; 65_000],
        Vec::new(),
    ]);
    all
}

/// Garbage is neither shown nor does it fill the log, and what comes after it is traced.
#[test]
fn hep_garbage_is_passed_over() {
    let mut server = Server::start("siptrace", &["--hep-listen", "udp:127.0.0.1:0", "-o", "json"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = server.address("udp");
    for garbage in hep_garbage() {
        socket.send_to(&garbage, to).unwrap();
    }
    let good = message("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", "good", "");
    socket.send_to(&hep(&good), to).unwrap();
    let within = Duration::from_secs(10);
    assert!(
        server.wait_record(within, |record| record["call_id"] == "good").is_some(),
        "{}",
        server.stderr()
    );
    assert_eq!(server.stop(), 0);
    assert!(server.records().iter().all(|record| record["call_id"] != "spoilt"));
    let log = server.stderr();
    assert!(log.contains("no HEPv3") && log.contains("were no SIP in HEPv3"), "{log}");
    assert!(log.lines().count() < 8, "{log}");
}

#[test]
fn hep_is_listened_to() {
    let dir = harness::TempDir::new();
    let (kept, moved) = (dir.join("kept.pcapng"), dir.join("moved.pcapng"));
    let words = ["--hep-listen", "udp:127.0.0.1:0", "-o", "calls", "-w", kept.to_str().unwrap()];
    let mut server = Server::start("siptrace", &words);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = server.address("udp");
    socket.send_to(b"no hep", to).unwrap();
    for (_, message) in two_calls() {
        socket.send_to(&hep(&message), to).unwrap();
    }
    // Calls that are over show up by themselves.
    let within = Duration::from_secs(10);
    let first = server.wait_record(within, |r| r["call_id"] == "first@192.0.2.1").expect("the first call");
    assert_eq!((first["state"].as_str(), first["status"].as_u64()), (Some("ended"), Some(200)));
    assert_eq!(first["start"], "2019-08-12T06:41:00.000007Z");
    assert!(server.wait_record(within, |r| r["state"] == "failed").is_some());
    // Another name for what was kept so far, as log rotation does it.
    std::fs::rename(&kept, &moved).unwrap();
    server.process.signal(libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    socket
        .send_to(&hep(&message("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", "third", "")), to)
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.stop(), 0);
    assert!(server.wait_record(within, |r| r["call_id"] == "third" && r["state"] == "pending").is_some());
    assert!(server.stderr().contains("no HEPv3"), "{}", server.stderr());

    // What was kept is the same again, for us and for Wireshark's eyes, checksums and all.
    let again = run(&["siptrace", "-o", "calls", moved.to_str().unwrap(), kept.to_str().unwrap()], b"");
    assert_eq!(again.code, 0, "{again:?}");
    let records = |lines: &str| -> Vec<Value> {
        let mut all: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        all.sort_by_key(|record| record["call_id"].to_string());
        all
    };
    assert_eq!(records(&again.stdout), records(&server.process.stdout.all()[1..].join("\n")));
    let from = socket.local_addr().unwrap().port();
    for (file, count) in [(&moved, two_calls().len() + 1), (&kept, 1)] {
        let mut tshark = Command::new("tshark");
        tshark.args([
            "-r",
            file.to_str().unwrap(),
            "-o",
            "ip.check_checksum:TRUE",
            "-o",
            "udp.check_checksum:TRUE",
        ]);
        tshark.args([
            "-T",
            "fields",
            "-E",
            "separator=,",
            "-e",
            "ip.checksum.status",
            "-e",
            "udp.checksum.status",
        ]);
        let output = tshark.args(["-e", "udp.srcport", "-e", "udp.dstport"]).output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(lines, format!("1,1,{from},{}\n", to.port()).repeat(count), "{output:?}");
    }
    let bad = run(&["siptrace", "--hep-listen", "udp:127.0.0.1:0", "-w", "/no/such/directory/file"], b"");
    assert_eq!(bad.code, 66, "{bad:?}");
    assert_eq!(run(&["siptrace", "-w", "file", "-"], b"").code, 64);
}

/// What a server of ours receives and sends shows up in a tracer.
#[test]
fn servers_send_hep() {
    for command in ["registrar", "presence"] {
        sends_hep(command);
    }
}

fn sends_hep(command: &str) {
    let tracer = Server::start("siptrace", &["--hep-listen", "udp:127.0.0.1:0", "-o", "json"]);
    let hep = format!("udp:{}", tracer.address("udp"));
    let flags = ["--listen", "udp:127.0.0.1:0", "--domain", "example.com", "--auth", "none", "--hep", &hep];
    let server = Server::start(command, &flags);
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let request = message("OPTIONS sip:example.com SIP/2.0", "1 OPTIONS", "asked", "");
    phone.send_to(&request, server.address("udp")).unwrap();
    let mut answer = vec![0; 65_535];
    let length = phone.recv(&mut answer).unwrap_or_else(|e| panic!("{command}: {e}"));
    let within = Duration::from_secs(5);
    let received = tracer.wait_record(within, |r| r["method"] == "OPTIONS" && r["uri"] == "sip:example.com");
    let received = received.expect("the request");
    assert_eq!(received["message"].as_str().unwrap().as_bytes(), request);
    assert_eq!(received["source"], phone.local_addr().unwrap().to_string());
    assert_eq!(received["destination"], server.address("udp").to_string());
    let sent = tracer.wait_record(within, |r| r["status"].is_u64()).expect("the answer");
    assert_eq!(sent["message"].as_str().unwrap().as_bytes(), &answer[..length]);
    assert_eq!(sent["source"], received["destination"]);
    let bad = run(&[command, "--listen", "udp:127.0.0.1:0", "--hep", "tcp:127.0.0.1:9060"], b"");
    assert_eq!(bad.code, 64, "{}", bad.stderr);
}

// --- The shared corpus ---

#[test]
fn every_capture_has_the_calls_of_its_index() {
    let Some(dir) = shared_captures() else { return };
    let index = std::fs::read_to_string(dir.join("expected.json")).expect("the index");
    let index: Value = serde_json::from_str(&index).expect("JSON");
    let files = index["files"].as_object().expect("files");
    let mut with_calls = 0;
    for (name, expected) in files {
        let path = dir.join(name);
        let finished = siptrace(&["-o", "calls", path.to_str().unwrap()], b"");
        assert_eq!(finished.code, 0, "{name}: {}", finished.stderr);
        let found: BTreeSet<String> =
            records(&finished).iter().map(|c| c["call_id"].as_str().unwrap().to_owned()).collect();
        let calls = expected["sip_calls"].as_array().expect("sip_calls");
        let wanted: BTreeSet<String> =
            calls.iter().map(|c| c["call_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(finished.stdout.lines().count(), calls.len(), "{name}");
        assert_eq!(found, wanted, "{name}");
        with_calls += usize::from(!calls.is_empty());
    }
    assert!(files.len() > 30 && with_calls >= 10, "{} files, {with_calls} with calls", files.len());
}

/// (Call-ID, From, To, status) as tshark sees them: what it prints of each message, put together by the rule of the man page.
fn tshark(path: &str) -> Option<BTreeMap<String, (String, String, u64)>> {
    let fields =
        ["sip.Call-ID", "sip.from.addr", "sip.to.addr", "sip.Status-Code", "sip.CSeq.seq", "sip.CSeq.method"];
    let mut command = Command::new("tshark");
    command.args(["-r", path, "-Y", "sip.Call-ID", "-T", "fields", "-E", "occurrence=f"]);
    command.args(fields.iter().flat_map(|field| ["-e", field]));
    let output = command.output().ok()?;
    let mut calls: BTreeMap<String, (String, String, u64)> = BTreeMap::new();
    let mut method: BTreeMap<String, String> = BTreeMap::new();
    let mut attempt: BTreeMap<String, u64> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let [id, from, to, status, cseq, cseq_method] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("tshark: {line}");
        };
        let call = calls.entry(id.to_owned()).or_insert_with(|| (from.to_owned(), to.to_owned(), 0));
        let first = method.entry(id.to_owned()).or_insert_with(|| cseq_method.to_owned());
        let (Ok(status), Ok(cseq)) = (status.parse::<u64>(), cseq.parse::<u64>()) else { continue };
        let attempt = attempt.entry(id.to_owned()).or_default();
        let answered = (200..300).contains(&call.2);
        let stays = answered || cseq < *attempt || (cseq == *attempt && status < 200 && call.2 >= 200);
        if first == cseq_method && !stays {
            (*attempt, call.2) = (cseq, status);
        }
    }
    Some(calls)
}

#[test]
fn lists_are_those_of_tshark() {
    let Some(dir) = shared_captures() else { return };
    for name in [
        "sngrep-aaa.pcap",
        "ndpi-FAX-Call-t38-CA-TDM-SIP-FB-1.pcap",
        "suricata-verify-sip-body-frames-public-cloudshark-sip-s0.pcap",
        "ndpi-sip.pcap",
        "zeek-wireshark.pcap",
    ] {
        let path = dir.join(name);
        let path = path.to_str().unwrap();
        let Some(theirs) = tshark(path) else {
            eprintln!("SKIPPED: no tshark");
            return;
        };
        let ours: BTreeMap<String, (String, String, u64)> =
            siptrace(&["-o", "list", path], b"").stdout.lines().skip(1).map(row).collect();
        assert!(ours.len() > 1, "{name}: {ours:?}");
        assert_eq!(ours, theirs, "{name}");
    }
}

fn row(line: &str) -> (String, (String, String, u64)) {
    let [_, _, status, _, _, from, to, call_id] = line.split('\t').collect::<Vec<_>>()[..] else {
        panic!("a row has eight columns: {line}");
    };
    (call_id.to_owned(), (from.to_owned(), to.to_owned(), status.parse().unwrap_or(0)))
}
