//! mos-report from the outside: the seed's reply to the digit, its log lines, and RTP made here.

#[path = "../harness/mod.rs"]
mod harness;

use harness::{Finished, TempDir, run, run_in, shared_captures};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

const REPLY: &str = include_str!("../data/seed/delete-reply.json");

fn report(args: &[&str], input: &[u8]) -> Finished {
    run(&[&["mos-report"], args].concat(), input)
}

fn records(finished: &Finished) -> Vec<Value> {
    finished.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// `MOS` of 40, 43, 42 and 41 in the reply, each figured out anew from loss, jitter and round trip.
fn is_the_seed_s(row: &Value) {
    let figures = ["model", "mos", "lowest", "highest", "samples", "packets"].map(|key| row[key].clone());
    assert_eq!(json!(figures), json!(["legacy-2019", 4.1, 4.0, 4.3, 3, 1090]));
    let progression: Vec<_> =
        row["progression"].as_array().unwrap().iter().map(|p| p["mos"].clone()).collect();
    assert_eq!(json!(progression), json!([4.0, 4.3, 4.2]));
    assert_eq!(row["lowest_at"], "2019-08-12T06:41:15.000000Z");
    assert_eq!(row["peer"], "f706186c");
}

#[test]
fn the_seed_s_reply_to_the_digit() {
    let finished = report(&["--model", "legacy-2019", "-o", "json"], REPLY.as_bytes());
    let rows = records(&finished);
    let row = rows.iter().find(|row| row["ssrc"] == 201_209_520).expect("the source with samples");
    is_the_seed_s(row);
    assert_eq!(rows.iter().find(|row| row["ssrc"] == 2_071_600_809u32).unwrap()["model"], "none");
    // The printed scores have no part in it.
    let spoilt = REPLY.replace("\"MOS\": 4", "\"MOS\": 1");
    is_the_seed_s(&records(&report(&["--model", "legacy"], spoilt.as_bytes()))[1]);
}

#[test]
fn an_event_says_the_same_and_models_stand_side_by_side() {
    let stats: Value = serde_json::from_str(REPLY).unwrap();
    let events = format!(
        "{}\n{}\n",
        json!({ "event": "ready", "command": "relay", "listen": [] }),
        json!({ "event": "call-end", "call_id": "a@192.0.2.1", "stats": stats })
    );
    let rows = records(&report(&["--model", "legacy-2019", "--model", "g107"], events.as_bytes()));
    assert!(rows.iter().all(|row| row["call_id"] == "a@192.0.2.1"));
    let models: Vec<_> = rows.iter().filter(|row| row["ssrc"] == 201_209_520).collect();
    is_the_seed_s(models[0]);
    assert_eq!(models[1]["model"], "g107");
    // By G.107 4 % loss costs 95*4/(4+25.1) = 13.1 of R, and a round trip of 250 ms some more.
    let figures = ["mos", "lowest", "highest"].map(|key| models[1][key].as_f64().unwrap());
    assert!((4.1..4.2).contains(&figures[0]) && (3.8..4.0).contains(&figures[1]), "{figures:?}");
    let csv = report(&["-o", "csv", "--model", "legacy"], events.as_bytes());
    assert!(
        csv.stdout.contains("a@192.0.2.1,201209520,f706186c,call-end,,1090,,legacy-2019,3,4.1,4.0,"),
        "{}",
        csv.stdout
    );
    let table = report(&["-o", "table"], events.as_bytes()).stdout;
    let mut lines = table.lines();
    let head = lines.next().unwrap();
    let row = lines.find(|line| line.contains("0bfe36b0")).unwrap_or_else(|| panic!("{table}"));
    for (name, value) in
        [("SSRC", "0bfe36b0"), ("peer", "f706186c"), ("call-id", "a@192.0.2.1"), ("packets", "1090")]
    {
        assert_eq!(head.find(name), row.find(value), "{name} does not stand above {value}:\n{table}");
    }
}

#[test]
fn a_threshold_is_an_exit_status() {
    let code = |least| report(&["--model", "legacy", "--min-mos", least], REPLY.as_bytes()).code;
    assert_eq!((code("4.1"), code("4.2")), (0, 1));
    // Nothing that has a score has not passed.
    let mut silent = Capture::new();
    silent.sip(0, ("192.0.2.1:5060", "192.0.2.2:5060"), "BYE sip:b@192.0.2.2 SIP/2.0", "2 BYE", "one", "");
    assert_eq!(report(&[], &silent.0).code, 0);
    let finished = report(&["--min-mos", "1"], &silent.0);
    assert_eq!(finished.code, 65);
    assert!(finished.stderr.contains("--min-mos: no stream"), "{}", finished.stderr);
    assert_eq!(report(&[], b"nothing of this kind\n").code, 65);
    assert_eq!(report(&[], b"{\"SSRC\": ").code, 65);
}

/// What cannot be read is named by its place, and the rest is told all the same.
#[test]
fn the_rest_goes_on() {
    let dir = TempDir::new();
    let stats: Value = serde_json::from_str(REPLY).unwrap();
    let event = |id: &str| json!({ "event": "call-end", "call_id": id, "stats": stats }).to_string();
    let events =
        [event("one"), "{\"event\": \"call-end\", \"sta".to_owned(), "oops".to_owned(), event("two")];
    std::fs::write(dir.join("relay.events"), events.join("\n")).unwrap();
    std::fs::write(dir.join("reply.json"), REPLY).unwrap();
    std::fs::create_dir(dir.join("directory")).unwrap();
    let words =
        ["mos-report", "--model", "legacy", "relay.events", "missing.pcap", "directory", "reply.json"];
    let finished = run_in(&dir, &words, b"");
    assert_eq!(finished.code, 65, "of the first fault: {}", finished.stderr);
    let calls: Vec<Value> = records(&finished)
        .iter()
        .filter(|row| row["ssrc"] == 201_209_520)
        .map(|row| row["call_id"].clone())
        .collect();
    assert_eq!(json!(calls), json!(["one", "two", null]), "{}", finished.stderr);
    for place in ["relay.events:2: ", "relay.events:3: ", "missing.pcap", "directory"] {
        let lines = finished.stderr.lines().filter(|line| line.contains(place)).count();
        assert_eq!(lines, 1, "{place} in {}", finished.stderr);
    }
    let cut = dir.join("cut.pcap");
    let mut capture = Capture::new();
    capture.rtp(0, ("192.0.2.1:4000", "192.0.2.2:5000"), 8, 160, 20, |_| false);
    let at = capture.0.len();
    capture.rtp(1_000_000, ("192.0.2.1:4000", "192.0.2.2:5000"), 8, 160, 1, |_| false);
    std::fs::write(&cut, &capture.0[..capture.0.len() - 3]).unwrap();
    let finished = run_in(&dir, &["mos-report", "cut.pcap", "reply.json"], b"");
    assert_eq!(finished.code, 65);
    assert_eq!(records(&finished)[0]["packets"], 20);
    assert!(records(&finished).len() > 1, "and the reply");
    assert!(finished.stderr.contains(&format!("cut.pcap: packet 21 at byte {at}: ")), "{}", finished.stderr);
}

/// However much a file has, all of it is read, in bounded memory; what is too long by itself is named and passed over.
#[test]
fn a_large_file_is_read_whole() {
    let mut log = String::new();
    for call in 0..6_000 {
        log += &format!(
            "ci=call{call}, ml0_local_tag=a, ml0_midx1_rtp_relayed_packets={call}, \
             ml1_local_tag=b, ml1_midx1_rtp_relayed_packets=1, \n"
        );
    }
    let rows = records(&report(&["-o", "json"], log.as_bytes()));
    assert_eq!(
        (rows.len(), &rows[0]["packets"], &rows[11_998]["packets"]),
        (12_000, &json!(0), &json!(5_999))
    );

    let stats: Value = serde_json::from_str(REPLY).unwrap();
    let event = |id: &str| json!({ "event": "call-end", "call_id": id, "stats": stats }).to_string();
    let long = "x".repeat(9 << 20);
    let lines = format!(
        "{}\n{{\"a\": \"{long}{long}\"}}\n{}\n{{\n  \"{long}\": 1,\n  \"{long}\": 1\n}}\n{}\n",
        event("one"),
        event("two"),
        event("three")
    );
    let finished = report(&["--model", "legacy"], lines.as_bytes());
    assert_eq!(finished.code, 65);
    let mut calls: Vec<Value> = records(&finished).iter().map(|row| row["call_id"].clone()).collect();
    calls.dedup();
    assert_eq!(json!(calls), json!(["one", "two", "three"]), "{}", finished.stderr);
    for place in ["-:2: longer than 16 MiB", "-:4: longer than 16 MiB"] {
        assert!(finished.stderr.contains(place), "{place}: {}", finished.stderr);
    }
}

/// More flows than there is room for: it is told that this is not all.
#[test]
fn flows_without_room_are_told() {
    let mut capture = Capture::new();
    for port in 10_000..14_100 {
        capture.rtp(0, (&format!("192.0.2.1:{port}"), "192.0.2.2:5000"), 8, 160, 1, |_| false);
    }
    let finished = report(&[], &capture.0);
    assert_eq!(finished.code, 0);
    assert!(finished.stderr.contains(": 4 packets or streams had no room"), "{}", finished.stderr);
}

#[test]
fn log_lines_of_2019() {
    let log = "\
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: Final packet stats:
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: --- Tag 'f706186c', created 0:37 ago for branch '', in dialogue with '8fevqpird6'
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: ------ Media #1 (audio over RTP/AVP) using PCMA/8000
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: --------- Port   192.0.2.1:10220 <>   192.0.2.9:45310, SSRC bfe36b0, 1090 p, 187321 b, 1 e, 11 ts
[ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: --------- Port   192.0.2.1:10221 <>   192.0.2.9:28064 (RTCP), SSRC bfe36b0, 6 p, 368 b, 0 e, 11 ts
INFO: [ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: --- SSRC bfe36b0
INFO: [ID=\"5ojn2BUAQNNqxgBRSq4DLg..\"]: ------ Average MOS 4.1, lowest MOS 4.0 (at 0:15), highest MOS 4.3 (at 0:19)
ci=5ojn2BUAQNNqxgBRSq4DLg.., created_from=192.0.2.9:58280, ml0_local_tag=f706186c, ml0_midx1_rtp_relayed_packets=1090, \
ml1_local_tag=8fevqpird6, ml1_midx1_rtp_relayed_packets=1575, ";
    let rows = records(&report(&[], log.as_bytes()));
    assert_eq!(rows.len(), 3, "{rows:?}");
    let figures = ["call_id", "ssrc", "peer", "codec", "packets", "model", "mos", "lowest", "highest"];
    assert_eq!(
        json!(figures.map(|key| rows[0][key].clone())),
        json!([
            "5ojn2BUAQNNqxgBRSq4DLg..",
            201_209_520,
            "f706186c",
            "PCMA",
            1090,
            "as-printed",
            4.1,
            4.0,
            4.3
        ])
    );
    assert_eq!((&rows[2]["peer"], &rows[2]["packets"]), (&json!("8fevqpird6"), &json!(1575)));
}

/// A pcap that is written packet by packet, Ethernet with a VLAN tag.
struct Capture(Vec<u8>);

impl Capture {
    fn new() -> Capture {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend(word.to_le_bytes());
        }
        Capture(file)
    }

    fn udp(&mut self, micros: u64, from: &str, to: &str, payload: &[u8]) {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let mut datagram = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        datagram.extend((payload.len() as u16 + 8).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        let length = datagram.len() as u16;
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 42];
        match (from, to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                frame.extend([8, 0, 0x45, 0]);
                frame.extend((length + 20).to_be_bytes());
                frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
                frame.extend(from.ip().octets());
                frame.extend(to.ip().octets());
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([17, 64]);
                frame.extend(from.ip().octets());
                frame.extend(to.ip().octets());
            }
            _ => panic!("two families"),
        }
        frame.extend(datagram);
        let length = frame.len() as u32;
        for word in [(micros / 1_000_000) as u32, (micros % 1_000_000) as u32, length, length] {
            self.0.extend(word.to_le_bytes());
        }
        self.0.extend(frame);
    }

    /// `count` packets each 20 ms from `start` on, without those that `lost` names.
    fn rtp(
        &mut self,
        start: u64,
        way: (&str, &str),
        pt: u8,
        step: u32,
        count: u32,
        lost: impl Fn(u32) -> bool,
    ) {
        for number in (0..count).filter(|number| !lost(*number)) {
            let mut rtp = vec![0x80, pt];
            rtp.extend((number as u16).to_be_bytes());
            rtp.extend((number * step).to_be_bytes());
            rtp.extend(7u32.to_be_bytes());
            rtp.extend([0xd5; 160]);
            self.udp(start + u64::from(number) * 20_000, way.0, way.1, &rtp);
        }
    }

    fn sip(&mut self, micros: u64, way: (&str, &str), start: &str, cseq: &str, call_id: &str, sdp: &str) {
        let text = format!(
            "{start}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{call_id}\r\nFrom: <sip:alice@example.com>;tag=a\r\n\
             To: <sip:bob@example.com>\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n{}Content-Length: {}\r\n\r\n{sdp}",
            if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" },
            sdp.len()
        );
        self.udp(micros, way.0, way.1, text.as_bytes());
    }
}

fn figures(row: &Value, keys: &[&str]) -> Value {
    keys.iter().map(|key| row[*key].clone()).collect()
}

/// Ten seconds of G.711, of which every tenth packet is lost.
#[test]
fn rtp_in_a_capture() {
    let mut capture = Capture::new();
    capture.rtp(0, ("192.0.2.1:4000", "192.0.2.2:5000"), 8, 160, 500, |number| number % 10 == 5);
    let file = capture.0;
    let rows = records(&report(&[], &file));
    assert_eq!(rows.len(), 1, "{rows:?}");
    let keys = ["ssrc", "codec", "packets", "lost", "model", "call_id", "jitter", "max_jitter"];
    assert_eq!(figures(&rows[0], &keys), json!([7, "PCMA", 450, 50, "g107-lq", null, 0.0, 0.0]));
    // G.107 with 10 % random loss: Ie,eff = 95*10/(10+25.1) = 27.1, R = 66, MOS 3.4.
    let mos = rows[0]["mos"].as_f64().unwrap();
    assert!((3.3..3.6).contains(&mos), "{mos}");
    let cut = report(&[], &file[..file.len() - 5]);
    assert_eq!((cut.code, records(&cut).len()), (65, 1));
    // What has the bits of RTP's version and does not count up, as NetBIOS, is none.
    let mut other = Capture(file);
    for number in 0..99u8 {
        let name = [&[0x80, number, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 0], &[b'A'; 32][..]].concat();
        other.udp(0, "192.0.2.1:137", "192.0.2.255:137", &name);
    }
    assert_eq!(records(&report(&[], &other.0)).len(), 1);
}

/// The SDPs in a capture say whose a stream is, and what its payload types are; also over IPv6.
#[test]
fn a_stream_has_the_call_of_its_sdp() {
    for (alice, bob, family) in [("192.0.2.1", "192.0.2.2", "IP4"), ("[2001:db8::1]", "[2001:db8::2]", "IP6")]
    {
        let sip = (format!("{alice}:5060"), format!("{bob}:5060"));
        let (there, back) = ((sip.0.as_str(), sip.1.as_str()), (sip.1.as_str(), sip.0.as_str()));
        let media = (format!("{alice}:4000"), format!("{bob}:5000"));
        let (audio, audio_back) =
            ((media.0.as_str(), media.1.as_str()), (media.1.as_str(), media.0.as_str()));
        let sdp = |address: &str, port: u16, formats: &str| {
            let address = address.trim_matches(['[', ']']);
            format!(
                "v=0\r\no=- 1 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n\
                 m=audio {port} RTP/AVP 97 98\r\n{formats}a=ptime:20\r\n"
            )
        };
        let offer = sdp(alice, 4000, "a=rtpmap:97 G722/8000\r\na=rtpmap:98 telephone-event/8000\r\n");
        // The same number means another codec toward Bob: each end names what it receives.
        let answer = sdp(bob, 5000, "a=rtpmap:97 opus/48000/2\r\na=rtpmap:98 telephone-event/8000\r\n");
        let mut capture = Capture::new();
        capture.sip(0, there, "INVITE sip:bob@example.com SIP/2.0", "1 INVITE", "one", &offer);
        // Early media come before the answer.
        capture.rtp(100_000, audio_back, 97, 160, 50, |_| false);
        capture.sip(1_200_000, back, "SIP/2.0 200 OK", "1 INVITE", "one", &answer);
        capture.rtp(1_300_000, audio, 97, 960, 4, |number| number == 2);
        capture.sip(2_000_000, there, "BYE sip:bob@example.com SIP/2.0", "2 BYE", "one", "");
        // The same ports again, in another call.
        capture.sip(3_000_000, there, "INVITE sip:bob@example.com SIP/2.0", "1 INVITE", "two", &offer);
        capture.rtp(3_100_000, audio_back, 97, 160, 20, |_| false);
        let rows = records(&report(&["-o", "json"], &capture.0));
        let keys = ["call_id", "peer", "codec", "packets", "lost", "ptime", "from", "to", "max_jitter"];
        let mut rows: Vec<Value> = rows.iter().map(|row| figures(row, &keys)).collect();
        rows.sort_by_key(Value::to_string);
        let row = |call_id: &str, way: (&str, &str), codec: &str, packets: u64, lost: u64| {
            let peer = format!("{} > {}", way.0, way.1);
            let (from, to) = ("sip:alice@example.com", "sip:bob@example.com");
            json!([call_id, peer, codec, packets, lost, 20, from, to, 0.0])
        };
        let mut expected = vec![
            row("one", audio_back, "G722", 50, 0),
            row("one", audio, "opus", 3, 1),
            row("two", audio_back, "G722", 20, 0),
        ];
        expected.sort_by_key(Value::to_string);
        assert_eq!(rows, expected);
    }
}

// --- Against tshark ---

/// tshark's figures of one stream: packets, lost, mean and greatest jitter in milliseconds.
type Figures = (u64, i64, f64, f64);

/// tshark's streams of one capture, by ends and source.
fn tshark(path: &str) -> BTreeMap<(String, u64), Figures> {
    let words = ["-q", "--enable-heuristic", "rtp_udp", "-z", "rtp,streams", "-r", path];
    let output = Command::new("tshark").args(words).output();
    let output = output.expect("tshark, which scripts/test installs");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, _, from, from_port, to, to_port, ssrc] = words.get(..7)?[..] else { return None };
            let ssrc = u64::from_str_radix(ssrc.strip_prefix("0x")?, 16).ok()?;
            // Names of payloads may have blanks: the rest is counted from the loss in percent.
            let percent = words.iter().position(|word| word.starts_with('('))?;
            let number = |at: usize| words.get(at)?.parse::<f64>().ok();
            let address = |ip: &str, port: &str| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?));
            let (from, to) = (address(from, from_port), address(to, to_port));
            let figures = (
                words[percent - 2].parse().ok()?,
                words[percent - 1].parse().ok()?,
                number(percent + 5)?,
                number(percent + 6)?,
            );
            Some(((format!("{} > {}", from?, to?), ssrc), figures))
        })
        .collect()
}

fn ours(path: &str) -> BTreeMap<(String, u64), Figures> {
    let finished = run(&["mos-report", "-o", "json", path], b"");
    assert_eq!(finished.code, 0, "{path}: {}", finished.stderr);
    let row = |row: Value| {
        let number = |key: &str| row[key].as_f64().unwrap_or_default();
        let figures =
            (number("packets") as u64, number("lost") as i64, number("jitter"), number("max_jitter"));
        ((row["peer"].as_str().unwrap().to_owned(), row["ssrc"].as_u64().unwrap()), figures)
    };
    records(&finished).into_iter().map(row).collect()
}

/// Steps of 16ths of a tick are not tshark's, which reckons with fractions.
fn near(ours: f64, theirs: f64) -> bool {
    (ours - theirs).abs() < 0.02 * theirs + 0.05
}

/// Loss, reordering and jitter made here, of a payload type that only the SDP explains.
#[test]
fn figures_are_those_of_tshark() {
    let mut capture = Capture::new();
    let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\n\
               m=audio 5000 RTP/AVP 97\r\na=rtpmap:97 SPEEX/16000\r\n";
    let way = ("192.0.2.2:5060", "192.0.2.1:5060");
    capture.sip(0, way, "INVITE sip:bob@example.com SIP/2.0", "1 INVITE", "one", sdp);
    let mut random = 12_345u32;
    let mut packets: Vec<(u64, u32)> = (0..2000u32)
        .filter_map(|number| {
            random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            let late = u64::from(random >> 16) % 30_000;
            (random >> 8 & 0x1f != 3).then_some((10_000 + u64::from(number) * 20_000 + late, number))
        })
        .collect();
    packets.sort_unstable();
    for (at, number) in packets {
        let mut rtp = vec![0x80, 97];
        rtp.extend((number as u16).wrapping_add(65_000).to_be_bytes());
        rtp.extend((number * 320).to_be_bytes());
        rtp.extend(7u32.to_be_bytes());
        rtp.extend([0xd5; 60]);
        capture.udp(at, "192.0.2.1:4000", "192.0.2.2:5000", &rtp);
    }
    let dir = TempDir::new();
    let path = dir.join("made.pcap");
    std::fs::write(&path, &capture.0).unwrap();
    let path = path.display().to_string();
    let (theirs, ours) = (tshark(&path), ours(&path));
    let key = ("192.0.2.1:4000 > 192.0.2.2:5000".to_owned(), 7);
    let (theirs, ours) = (theirs[&key], ours[&key]);
    assert!(theirs.1 > 30 && theirs.2 > 3.0, "it is a bad line: {theirs:?}");
    assert_eq!((ours.0, ours.1), (theirs.0, theirs.1));
    assert!(near(ours.2, theirs.2) && near(ours.3, theirs.3), "{ours:?} {theirs:?}");
}

/// Streams of at least ten packets in the shared captures, and shorter ones that have an SDP. What is left out: T.38 in
/// RTP, which tshark does not count; duplicates, which it takes for packets (its loss is below zero then); jitter of
/// payload types that no SDP explains, and of silence, after which we begin anew.
#[test]
fn figures_of_the_corpus_are_those_of_tshark() {
    let Some(dir) = shared_captures() else { return };
    let mut compared = 0;
    for (name, jitter) in [
        ("sipp-g711a.pcap", true),
        ("ndpi-sip.pcap", true),
        ("sngrep-aaa.pcap", true),
        ("suricata-verify-sip-method-sip.pcap", true),
        ("ndpi-wa_voice.pcap", false),
        ("ndpi-wa_video.pcap", false),
        ("ndpi-stun_wa_call.pcapng", false),
    ] {
        let path = dir.join(name).display().to_string();
        let (theirs, ours) = (tshark(&path), ours(&path));
        for key in ours.keys() {
            assert!(theirs.contains_key(key), "{name}: {key:?} is no stream to tshark");
        }
        for (key, their) in theirs.iter().filter(|(_, their)| (jitter || their.0 >= 10) && their.1 >= 0) {
            let our = ours.get(key).unwrap_or_else(|| panic!("{name}: {key:?} is not among {ours:?}"));
            assert_eq!((our.0, our.1), (their.0, their.1), "{name} {key:?}");
            if jitter {
                assert!(near(our.2, their.2) && near(our.3, their.3), "{name} {key:?}: {our:?} {their:?}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 12, "only {compared} streams");
}
