//! `--check`, `--pair`, `--diff`, `--anonymise`, `-o`, and what is promised of a pipeline.

use super::harness::{Process, TempDir, server_command};
use super::{Done, file, request, run, run_in};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

const PHONE: &str = "v=0\r\no=alice 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";

fn lines(done: &Done) -> Vec<Value> {
    done.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn invite(sdp: &str) -> String {
    message("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", sdp)
}

fn message(start: &str, cseq: &str, sdp: &str) -> String {
    format!(
        "{start}\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKa1b2c3\r\nFrom: <sip:alice@example.com>;tag=a73kszlfl\r\n\
To: <sip:bob@example.com>\r\nCall-ID: 8f3a@192.0.2.10\r\nCSeq: {cseq}\r\nContent-Type: application/sdp\r\n\
Content-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

/// The body of the n-th message, each with a Content-Length that is right.
fn bodies(text: &str) -> Vec<&str> {
    let (mut rest, mut bodies) = (text, Vec::new());
    while !rest.is_empty() {
        let (head, behind) = rest.split_once("\r\n\r\n").expect("a head");
        let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next());
        let (body, behind) = behind.split_at(length.expect("a length").parse().expect("a number"));
        bodies.push(body);
        rest = behind;
    }
    bodies
}

#[test]
fn findings_have_place_reason_and_mend() {
    let dir = TempDir::new();
    // The seed's Debug issue 3 and 4.
    let fingerprint = format!("a=fingerprint:sha-256 {}\r\n", super::DIGEST);
    let crypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw\r\n";
    let both = PHONE.replace("RTP/AVP", "RTP/SAVPF") + &fingerprint + crypto;
    std::fs::write(dir.join("both.sdp"), both).unwrap();
    std::fs::write(dir.join("none.sdp"), format!("{PHONE}{}", PHONE.replace("RTP/AVP", "RTP/SAVP"))).unwrap();
    std::fs::write(dir.join("fine.sdp"), PHONE).unwrap();
    let done = run_in(&dir, &["--check", "both.sdp", "none.sdp", "fine.sdp"], b"");
    assert_eq!((done.code, done.stderr.as_str()), (1, ""));
    for (start, parts) in [
        (
            "both.sdp:9: error: ",
            ["SDES and DTLS-SRTP cannot be enabled at the same time", "RFC 8827 §6.5", "--SDES=off"],
        ),
        (
            "none.sdp:13: error: ",
            ["no crypto suite can be negotiated", "RFC 4568 §5.1", "--transport-protocol=RTP/AVP"],
        ),
    ] {
        let found = done
            .stdout
            .lines()
            .any(|line| line.starts_with(start) && parts.iter().all(|part| line.contains(part)));
        assert!(found, "{start} {parts:?}\n{}", done.stdout);
    }
    assert!(!done.stdout.contains("fine.sdp") && !done.stdout.contains("v=0"));

    let done = run_in(&dir, &["--check", "-o", "json", "none.sdp"], b"");
    let found = lines(&done);
    assert_eq!((done.code, found.len()), (1, 1));
    assert_eq!((&found[0]["file"], &found[0]["line"]), (&json!("none.sdp"), &json!(13)));
    assert_eq!((&found[0]["code"], &found[0]["severity"]), (&json!("srtp-without-keys"), &json!("error")));
    for member in ["what", "why", "rfc", "mend"] {
        assert!(found[0][member].as_str().is_some_and(|text| text.len() > 5), "{}", found[0]);
    }
    assert_eq!(run_in(&dir, &["--check", "--allow", "srtp-without-keys", "none.sdp"], b"").code, 0);
    assert_eq!(run_in(&dir, &["--check", "--allow", "no-such", "none.sdp"], b"").code, 64);

    // Whom it is for.
    assert_eq!(run(&["--check"], PHONE.as_bytes()).code, 0);
    let done = run(&["--check", "--to", "webrtc"], PHONE.as_bytes());
    assert!(
        ["no-ice", "no-rtcp-mux", "no-fingerprint", "no-mid"].iter().all(|code| done.stdout.contains(code))
    );

    // What Firefox alone refuses: nothing of our own rules speaks of it.
    let made = run(&["--to", "webrtc", "--media-address", "198.51.100.1", "--seed", "1"], PHONE.as_bytes());
    assert_eq!(run(&["--check"], made.stdout.as_bytes()).code, 0);
    let done = run(&["--check", "-o", "json"], format!("{}a=rid:1 up\r\n", made.stdout).as_bytes());
    let found = lines(&done);
    assert_eq!((done.code, found.len()), (1, 1), "{}", done.stdout);
    assert_eq!((&found[0]["code"], &found[0]["severity"]), (&json!("firefox"), &json!("error")));
    assert_eq!(found[0]["line"], json!(made.stdout.lines().count() + 1));
    assert!(found[0]["what"].as_str().is_some_and(|what| what.contains("direction")), "{}", found[0]);

    // In a message the file's line; in a record the record's, and the SDP's.
    let secure = PHONE.replace("RTP/AVP", "RTP/SAVP");
    let done = run(&["--check"], invite(&secure).as_bytes());
    assert!(done.stdout.starts_with("stdin:15: error: "), "{}", done.stdout);
    let records = format!("{}\n{}\n", json!({"sdp": PHONE}), json!({"sdp": secure}));
    let done = run(&["--check"], records.as_bytes());
    assert!(done.stdout.starts_with("stdin:2: SDP line 6: error: "), "{}", done.stdout);
    // What cannot be read at all is told apart from what is wrong.
    let done = run(&["--check"], b"hello\n");
    assert_eq!((done.code, done.stdout.as_str()), (65, ""));
    // Nothing moves the cursor of whoever reads it.
    let done =
        run(&["--check"], PHONE.replace("rtpmap:101 t", "candidate:\x1b[2J\r\na=rtpmap:101 t").as_bytes());
    assert!(done.code == 1 && !done.stdout.contains('\x1b'));
}

#[test]
fn what_our_rewriter_makes_for_a_browser_has_no_findings() {
    let records = format!("{}\n{}\n", request("1-sip-to-webrtc-offer"), json!({"sdp": PHONE}));
    let args = ["--to", "webrtc", "--media-address", "198.51.100.1", "--seed", "1"];
    let made = run(&args, records.as_bytes());
    assert_eq!(made.code, 0);
    let done = run(&["--check", "--to", "webrtc"], made.stdout.as_bytes());
    assert_eq!((done.code, done.stdout.as_str()), (0, ""));
}

#[test]
fn what_was_negotiated_and_what_breaks() {
    let dir = TempDir::new();
    let data = |name: &str| format!("{}/{name}", super::DATA);
    let (offer, answer) = (data("1-sip-to-webrtc-offer.seed.sdp"), data("2-webrtc-to-sip-answer.in.sdp"));
    let done = run(&["--pair", &offer, &answer], b"");
    let found = lines(&done);
    assert_eq!((done.code, found.len(), &found[0]["breaks"]), (0, 1, &json!([])), "{}", done.stdout);
    let media = &found[0]["media"][0];
    assert_eq!(media["keys"], json!({"kind": "dtls", "client": "answerer", "hash": "sha-256"}));
    assert_eq!(
        (&media["rtcp_mux"], &media["ice"]["used"], &media["to_offerer"]),
        (&true.into(), &true.into(), &true.into())
    );

    std::fs::write(dir.join("offer.sdp"), PHONE).unwrap();
    let answer =
        PHONE.replace(" 0 101", " 8 101").replace("a=rtpmap", "a=setup:actpass\r\na=mid:7\r\na=rtpmap");
    std::fs::write(dir.join("answer.sip"), message("SIP/2.0 200 OK", "1 INVITE", &answer)).unwrap();
    let done = run_in(&dir, &["--pair", "offer.sdp", "answer.sip", "-o", "text"], b"");
    assert_eq!(done.code, 1);
    // The line in the message.
    for start in [
        "answer.sip:15: error: m-line 1: m=audio: no codec is in both (RFC 3264 §6.1)",
        "answer.sip:17: error: m-line 1: a=mid:7 ",
    ] {
        assert!(done.stdout.lines().any(|line| line.starts_with(start)), "{start}\n{}", done.stdout);
    }
    for args in [
        &["--pair", "offer.sdp"][..],
        &["--pair", "offer.sdp", "offer.sdp", "--check"],
        &["--pair", "offer.sdp", "offer.sdp", "-o", "sdp"],
    ] {
        assert_eq!(run_in(&dir, args, b"").code, 64, "{args:?}");
    }
    assert_eq!(run_in(&dir, &["--pair", "offer.sdp", "missing.sdp"], b"").code, 66);
    std::fs::write(dir.join("bad.sdp"), "v=0\r\nm=audio\r\n").unwrap();
    let done = run_in(&dir, &["--pair", "offer.sdp", "bad.sdp"], b"");
    assert!(done.code == 65 && done.stderr.contains("bad.sdp:2: not an SDP"), "{}", done.stderr);
}

#[test]
fn what_differs_in_meaning() {
    let dir = TempDir::new();
    std::fs::write(dir.join("a.sdp"), PHONE).unwrap();
    let same =
        PHONE.replace("alice 1 1", "bob 5 6").replace("audio 4000", "audio 6000").replace("\r\n", "\n");
    std::fs::write(dir.join("b.json"), json!({"sdp": same}).to_string()).unwrap();
    std::fs::write(dir.join("c.sdp"), PHONE.replace(" 0 101", " 101 0") + "a=sendonly\r\n").unwrap();
    let done = run_in(&dir, &["--diff", "a.sdp", "b.json"], b"");
    assert_eq!((done.code, done.stdout.as_str()), (0, ""));
    let done = run_in(&dir, &["--diff", "a.sdp", "c.sdp"], b"");
    assert_eq!(done.code, 1);
    let direction = json!({"media": 1, "what": "direction", "a": ["sendrecv"], "b": ["sendonly"]});
    assert!(lines(&done).contains(&direction), "{}", done.stdout);
    let done = run_in(&dir, &["--diff", "a.sdp", "c.sdp", "-o", "text"], b"");
    assert!(done.stdout.contains("m-line 1: direction\n  - sendrecv\n  + sendonly\n"), "{}", done.stdout);
}

#[test]
fn anonymised_alike_across_files_and_kinds() {
    let dir = TempDir::new();
    std::fs::write(dir.join("one.sip"), invite(PHONE)).unwrap();
    let ng = json!({"command": "offer", "call-id": "8f3a@192.0.2.10", "from-tag": "a73kszlfl", "sdp": PHONE,
        "received-from": ["IP4", "192.0.2.10"]});
    std::fs::write(
        dir.join("two.json"),
        format!("{ng}\n{}\n", json!({"n": 7, "sdp": PHONE, "text": invite(PHONE)})),
    )
    .unwrap();
    std::fs::write(dir.join("three.ben"), super::bencode(&ng)).unwrap();
    let args = ["--anonymise", "--seed", "3", "one.sip", "two.json", "three.ben"];
    let done = run_in(&dir, &args, b"");
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    for private in ["alice", "192.0.2.10", "a73kszlfl", "a1b2c3", "8f3a"] {
        assert!(!done.stdout.contains(private), "{private}\n{}", done.stdout);
    }
    let (sip, rest) = done.stdout.split_once("{\"command\"").expect("the second file");
    let (ng, rest) = rest.split_once('\n').unwrap();
    let ng: Value = serde_json::from_str(&format!("{{\"command\"{ng}")).unwrap();
    let (record, bencode) = rest.split_once('\n').unwrap();
    let record: Value = serde_json::from_str(record).unwrap();
    let sdp = bodies(sip)[0];
    assert_eq!((&ng["sdp"], &record["sdp"], &record["n"]), (&json!(sdp), &json!(sdp), &json!(7)));
    assert_eq!(record["text"], sip);
    assert!(sip.contains(&format!("tag={}\r\n", ng["from-tag"].as_str().unwrap())));
    assert!(sip.contains(&format!("Call-ID: {}\r\n", ng["call-id"].as_str().unwrap())));
    let address = ng["received-from"][1].as_str().unwrap();
    assert!(sdp.contains(&format!("c=IN IP4 {address}\r\n")) && sip.contains(&format!("UDP {address}:5060")));
    assert_eq!(bencode, super::bencode(&ng));
    assert!(sdp.contains("m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"));
    // The same in each run of one seed, and not without.
    assert_eq!(run_in(&dir, &args, b"").stdout, done.stdout);
    assert_ne!(run_in(&dir, &["--anonymise", "one.sip"], b"").stdout, sip);
}

#[test]
fn a_message_gets_its_new_body_and_length() {
    let offer = file("1-sip-to-webrtc-offer.in.sdp");
    let answer = file("2-webrtc-to-sip-answer.in.sdp");
    let bye = "BYE sip:bob@example.com SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n";
    let stream = [
        invite(&offer),
        message("SIP/2.0 180 Ringing", "1 INVITE", ""),
        message("SIP/2.0 200 OK", "1 INVITE", &answer),
        bye.to_owned(),
    ];
    let args = ["--to", "webrtc", "--seed", "4", "--media-address", "198.51.100.1"];
    let done = run(&args, stream.concat().as_bytes());
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let bodies = bodies(&done.stdout);
    assert_eq!(bodies.len(), 4);
    assert!(
        bodies[0].contains(" RTP/SAVPF ")
            && bodies[0].contains("a=setup:actpass\r\n")
            && bodies[0].contains("a=ice-ufrag:")
    );
    // The answer to a phone's offer is one that the phone understands.
    assert!(
        bodies[2].contains("m=audio 10002 RTP/AVP ") && !bodies[2].contains("a=fingerprint"),
        "{}",
        bodies[2]
    );
    assert!(done.stdout.ends_with(bye) && done.stdout.contains("SIP/2.0 180 Ringing\r\n"));
    // Pasted from a page: line feeds, and a length that is no longer right.
    let pasted = invite(&offer).replace("\r\n", "\n").replace("Content-Length: ", "Content-Length: 1");
    let pasted = run(&args, pasted.as_bytes());
    assert_eq!(
        (pasted.code, pasted.stdout),
        (0, done.stdout[..done.stdout.find("SIP/2.0 180").unwrap()].to_owned())
    );
}

#[test]
fn many_in_one_stream_and_the_bad_ones_are_named() {
    let record = json!({"n": 1.50, "sdp": PHONE, "deep": {"sdp": [null, {"a": "\u{1f4de}"}]}}).to_string();
    let odd = format!(" {{ \"n\" : 1.5e3,\"sdp\":{} , \"x\":{{}} }}", json!(PHONE));
    let stream = format!(
        "{record}\n{{\"sdp\": 7}}\n{odd}\nnonsense\n{{\"a\":\n{record}\n{PHONE}{}{PHONE}",
        PHONE.replace("m=audio 4000", "m=audio")
    );
    let args = ["--to", "sip", "--seed", "1"];
    let done = run(&args, stream.as_bytes());
    assert_eq!(
        (done.code, done.stdout.matches("m=audio 100").count()),
        (65, 5),
        "{}\n{}",
        done.stdout,
        done.stderr
    );
    let bad: Vec<&str> = done.stderr.lines().collect();
    for (line, place) in bad.iter().zip([
        "stdin:2: the field sdp is no text (number 2, byte ",
        "stdin:4: neither an SDP nor ",
        "stdin:5: no JSON: ",
        "stdin:19: not an SDP: ",
    ]) {
        assert!(line.contains(place), "{place}\n{}", done.stderr);
    }
    assert_eq!(bad.len(), 4);
    // All that is not the SDP stays as it was written.
    let kept: Vec<&str> = done.stdout.lines().filter(|line| line.contains("\"sdp\"")).collect();
    assert!(
        kept[0].starts_with("{\"n\":1.5,\"sdp\":\"v=0")
            && kept[0].ends_with(",\"deep\":{\"sdp\":[null,{\"a\":\"\u{1f4de}\"}]}}")
    );
    assert!(
        kept[1].starts_with("{ \"n\" : 1.5e3,\"sdp\":\"v=0") && kept[1].ends_with("\" , \"x\":{} }"),
        "{}",
        kept[1]
    );
    // The same bytes with the same seed; with --strict no further than the first bad one.
    assert_eq!(run(&args, stream.as_bytes()).stdout, done.stdout);
    let strict = run(&[&args[..], &["--strict"]].concat(), stream.as_bytes());
    assert_eq!((strict.code, strict.stdout.lines().count(), strict.stderr.lines().count()), (65, 1, 1));
}

#[test]
fn no_flag_is_taken_and_ignored() {
    for args in [
        &["--check", "--port", "4000"][..],
        &["--check", "--seed", "1"],
        &["--anonymise", "--to", "sip"],
        &["--anonymise", "--ICE", "remove"],
        &["--pair", "a", "b", "--media-address", "192.0.2.1"],
        &["--diff", "a", "b", "--seed", "1"],
    ] {
        let done = run(args, PHONE.as_bytes());
        assert_eq!((done.code, done.stdout.as_str()), (64, ""), "{args:?}");
        assert!(done.stderr.contains(args[args.len() - 2]), "{}", done.stderr);
    }
}

/// `-v`: each line that a phone does not get, with its place; without it, nothing.
#[test]
fn what_was_cut_is_told_with_its_place() {
    let offer = file("3-webrtc-to-sip-offer.in.sdp");
    let args = ["--to", "sip", "--media-address", "192.0.2.1", "--seed", "1"];
    let quiet = run(&args, offer.as_bytes());
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    let told = run(&[&args[..], &["-v"]].concat(), offer.as_bytes());
    assert_eq!((told.code, &told.stdout), (0, &quiet.stdout));
    let cut: Vec<(usize, &str)> = told
        .stderr
        .lines()
        .map(|line| {
            let (place, text) = line.strip_prefix("stdin:").unwrap().split_once(": cut: ").unwrap();
            (place.parse().unwrap(), text)
        })
        .collect();
    for (number, text) in &cut {
        assert_eq!(offer.lines().nth(number - 1), Some(*text), "the line that it names");
        assert!(!told.stdout.contains(text), "{text} is there");
    }
    // Each line about streams, and the codecs that only browsers have.
    let ssrcs = offer.lines().filter(|line| line.starts_with("a=ssrc:")).count();
    assert!(
        ssrcs > 0 && cut.iter().filter(|(_, text)| text.starts_with("a=ssrc:")).count() == ssrcs,
        "{cut:?}"
    );
    assert!(cut.iter().any(|(_, text)| text.starts_with("a=rtpmap:")), "{cut:?}");
    // In a message, the SDP's own line is told, with the message's.
    let told = run(&[&args[..], &["-v"]].concat(), json!({"sdp": offer}).to_string().as_bytes());
    let (number, text) = cut[0];
    let first = told.stderr.lines().next().unwrap();
    assert_eq!(first, format!("stdin:1: cut: {text} (line {number} of the SDP)"));
}

#[test]
fn forms_there_and_back() {
    for name in
        ["1-sip-to-webrtc-offer.in.sdp", "3-webrtc-to-sip-offer.in.sdp", "4-sip-to-webrtc-answer.seed.sdp"]
    {
        let text = file(name);
        let form = run(&["-o", "json"], text.as_bytes());
        assert_eq!((form.code, lines(&form).len()), (0, 1));
        assert_eq!(run(&["-o", "sdp"], form.stdout.as_bytes()).stdout, text);
        let feeds = text.replace("\r\n", "\n");
        let form = run(&["-o", "json"], feeds.as_bytes());
        assert_eq!(run(&["-o", "sdp"], form.stdout.as_bytes()).stdout, feeds);
        // Out of whatever carries it.
        assert_eq!(run(&["-o", "sdp"], invite(&text).as_bytes()).stdout, text);
        assert_eq!(run(&["-o", "sdp"], json!({"sdp": text}).to_string().as_bytes()).stdout, text);
    }
    // With flags it is rewritten, and stays JSON where nothing else is asked for.
    let form = run(&["-o", "json"], PHONE.as_bytes()).stdout;
    let args = ["--to", "webrtc", "--seed", "1"];
    let rewritten = run(&args, PHONE.as_bytes()).stdout;
    assert_eq!(run(&[&args[..], &["-o", "sdp"]].concat(), form.as_bytes()).stdout, rewritten);
    let kept = run(&args, form.as_bytes()).stdout;
    assert_eq!(run(&["-o", "sdp"], kept.as_bytes()).stdout, rewritten);
    assert_eq!(run(&["-o", "text"], PHONE.as_bytes()).code, 64);
    let done = run(
        &["-o", "sdp"],
        b"{\"session\":{\"lines\":[{\"type\":\"v\",\"value\":\"0\\na=b\"}]},\"media\":[]}",
    );
    assert_eq!((done.code, done.stdout.as_str()), (65, ""));
}

/// What is written comes out while the input is still open, a reader that goes away ends it quietly, and memory does not grow.
#[test]
fn a_pipe_is_a_pipe() {
    let dir = TempDir::new();
    let record = format!("{}\n", json!({"sdp": PHONE}));
    let start = || {
        let mut command = server_command(&dir, "sdp-rewrite", &["--to", "webrtc", "--seed", "1"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let mut child = start();
    let mut input = child.stdin.take().expect("piped");
    input.write_all(record.as_bytes()).expect("taken");
    let mut first = [0; 8];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("it is written before the end");
    assert_eq!(&first, b"{\"sdp\":\"");
    let resident = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak").to_owned();
        line.split_ascii_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number")
    };
    let pid = child.id();
    let before = resident(pid);
    let mut output = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()).expect("read"));
    let many = record.repeat(100);
    for _ in 0..100 {
        input.write_all(many.as_bytes()).expect("taken");
    }
    let after = resident(pid);
    assert!(after < before + 4_096, "{before} kB became {after} kB");
    drop(input);
    assert!(child.wait().expect("its end").success());
    assert!(reader.join().expect("no panic") > 10_000 * 400);

    let mut child = start();
    drop(child.stdout.take());
    let mut input = child.stdin.take().expect("piped");
    let began = Instant::now();
    while input.write_all(many.as_bytes()).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "it reads on without a reader");
    }
    let output = child.wait_with_output().expect("its end");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

/// Each example of the man page does what it says.
#[test]
fn the_manuals_examples() {
    let dir = TempDir::new();
    std::fs::write(dir.join("offer.sdp"), file("3-webrtc-to-sip-offer.in.sdp")).unwrap();
    std::fs::write(dir.join("answer.sdp"), file("4-sip-to-webrtc-answer.in.sdp")).unwrap();
    std::fs::write(dir.join("phone.sdp"), PHONE).unwrap();
    std::fs::write(dir.join("call.sip"), invite(PHONE)).unwrap();
    std::fs::write(dir.join("records.jsonl"), format!("{}\n", json!({"sdp": PHONE})).repeat(5)).unwrap();
    let page = include_str!("../../../man/prose/sdp-rewrite.roff").replace("\\-", "-");
    let examples: Vec<&str> = page
        .split(".SH EXAMPLES")
        .nth(1)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("sipbox "))
        .collect();
    assert!(examples.len() >= 9);
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_sipbox")).parent().unwrap();
    for example in examples {
        let mut command = std::process::Command::new("bash");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        command.args(["-o", "pipefail", "-c", example]).current_dir(dir.path()).env("PATH", path);
        let mut child = Process::start(command);
        let code = child.exit_code(Duration::from_secs(20));
        // The pair is a browser's offer and a phone's answer: no relay was between them, and that is told.
        let wanted =
            if example.contains("--pair") || example.contains("--check --to webrtc") { 1 } else { 0 };
        assert_eq!(code, wanted, "{example}\n{}", child.log());
    }
    assert!(std::fs::read_to_string(dir.join("public.sip")).unwrap().starts_with("INVITE sip:"));
}

/// A file that cannot be opened does not keep the others from being read.
#[test]
fn an_unreadable_file_does_not_stop_the_others() {
    let dir = TempDir::new();
    std::fs::write(dir.join("good.sdp"), PHONE).unwrap();
    let files = ["missing.sdp", "good.sdp", "other.sdp"];
    let done = run_in(&dir, &[&["--ICE=remove"][..], &files].concat(), b"");
    assert_eq!((done.code, done.stderr.lines().count()), (66, 2), "{}", done.stderr);
    assert!(done.stdout.starts_with("v=0"), "{}", done.stdout);
    assert!(["missing.sdp", "other.sdp"].iter().all(|name| done.stderr.contains(name)), "{}", done.stderr);
    let checked = run_in(&dir, &["--check", "missing.sdp", "good.sdp"], b"");
    assert_eq!((checked.code, checked.stderr.lines().count()), (66, 1), "{}", checked.stderr);
    let strict = run_in(&dir, &[&["--ICE=remove", "--strict"][..], &files].concat(), b"");
    assert_eq!((strict.code, strict.stdout.as_str()), (66, ""), "{}", strict.stderr);
}
