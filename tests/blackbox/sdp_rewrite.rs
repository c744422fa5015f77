//! `sdp-rewrite` as a filter: the seed's conversions in each form that it takes, its exit codes, and the same text as
//! the running relay.

#[path = "sdp_rewrite/families.rs"]
mod families;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "sdp_rewrite/tools.rs"]
mod tools;

use harness::{Server, TempDir, loopback, ng, server_command};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/seed");
const DIGEST: &str =
    "E7:F7:1B:E7:65:08:C5:88:29:74:7D:CC:BB:26:99:4B:11:A7:41:3D:A4:57:31:CA:56:EA:DE:D4:3D:EB:45:E4";

/// What the filter left, byte for byte.
struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run_in<S: AsRef<str>>(dir: &TempDir, args: &[S], input: &[u8]) -> Done {
    let mut command = server_command(dir, "sdp-rewrite", args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // One that ends without reading closes the pipe: that is its right.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("its end");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Done {
        code: output.status.code().expect("no signal"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn run<S: AsRef<str>>(args: &[S], input: &[u8]) -> Done {
    run_in(&TempDir::new(), args, input)
}

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{DATA}/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The request of one of the seed's conversions, with its SDP.
fn request(name: &str) -> Value {
    let mut request: Value = serde_json::from_str(&file(&format!("{name}.flags.json"))).unwrap();
    request["sdp"] = file(&format!("{name}.in.sdp")).into();
    request
}

/// The seed's text with our hash of the fingerprint, the one deviation (tests/data/seed/README.md).
fn expected(name: &str) -> String {
    let line = |line: &str| match line.starts_with("a=fingerprint:") {
        true => format!("a=fingerprint:sha-256 {DIGEST}\r\n"),
        false => line.to_owned(),
    };
    file(&format!("{name}.seed.sdp")).split_inclusive('\n').map(line).collect()
}

fn bencode(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{}:{text}", text.len()),
        Value::Array(list) => format!("l{}e", list.iter().map(bencode).collect::<String>()),
        Value::Object(map) => {
            let entries: String = map.iter().map(|(k, v)| format!("{}:{k}{}", k.len(), bencode(v))).collect();
            format!("d{entries}e")
        }
        other => panic!("no ng value: {other}"),
    }
}

fn pinned(port: &str, ufrag: &str, pwd: &str) -> Vec<String> {
    let foundation = "KJ7F9EsxS4CtrMjN";
    [
        "--media-address",
        "198.51.100.1",
        "--port",
        port,
        "--fingerprint",
        DIGEST,
        "--foundation",
        foundation,
        "--ufrag",
        ufrag,
        "--pwd",
        pwd,
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn the_seeds_conversions() {
    // Each answer follows its offer in the stream: ports 10210 and 10212, then 10242 and 10244.
    for (offer, answer, port, ports, ice) in [
        (
            "1-sip-to-webrtc-offer",
            "2-webrtc-to-sip-answer",
            "10210",
            ("10220", "10212", "10221", "10213"),
            ("oqrWXyzO", "aeZz7aRvLYvLeiZEP9wvCuwXVB"),
        ),
        (
            "3-webrtc-to-sip-offer",
            "4-sip-to-webrtc-answer",
            "10242",
            ("10262", "10244", "10263", "10245"),
            ("cuLPfZNk", "8NuoK05mpxck9v6oBRITQUwKIF"),
        ),
    ] {
        let stream = format!("{}\n{}\n", request(offer), request(answer));
        let done = run(&pinned(port, ice.0, ice.1), stream.as_bytes());
        assert_eq!((done.code, done.stderr.as_str()), (0, ""));
        let replies: Vec<Value> =
            done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(replies[0], json!({"sdp": expected(offer), "result": "ok"}));
        let answered = expected(answer).replace(ports.0, ports.1).replace(ports.2, ports.3);
        assert_eq!(replies[1], json!({"sdp": answered, "result": "ok"}));

        let done = run(&pinned(port, ice.0, ice.1), bencode(&request(offer)).as_bytes());
        assert_eq!(done.stdout, bencode(&json!({"sdp": expected(offer), "result": "ok"})));
    }
}

#[test]
fn a_bare_sdp_by_the_flags_of_the_command_line() {
    let sdp = file("1-sip-to-webrtc-offer.in.sdp");
    let mut line = pinned("10210", "oqrWXyzO", "aeZz7aRvLYvLeiZEP9wvCuwXVB");
    line.extend(["--to".to_owned(), "webrtc".to_owned()]);
    let done = run(&line, sdp.as_bytes());
    assert_eq!((done.code, done.stdout), (0, expected("1-sip-to-webrtc-offer")));
    // Two in one stream, with line feeds alone.
    let both = format!("{sdp}{sdp}").replace("\r\n", "\n");
    let done = run(&line, both.as_bytes());
    assert_eq!(done.stdout.matches("v=0\r\n").count(), 2);
    assert!(done.stdout.contains("m=audio 10212 RTP/SAVPF ") && done.stdout.ends_with("\r\n"));

    // An answer has the profile of its offer, or the one that is asked for.
    let offer = format!("{DATA}/3-webrtc-to-sip-offer.in.sdp");
    let answer = file("4-sip-to-webrtc-answer.in.sdp");
    let answered = |more: &[&str]| {
        let line = ["--to", "webrtc", "--seed", "7", "--answers", &offer];
        let done = run(&[&line[..], more].concat(), answer.as_bytes());
        assert_eq!((done.code, done.stderr.as_str()), (0, ""));
        done.stdout
    };
    assert!(answered(&[]).contains("m=audio 10000 UDP/TLS/RTP/SAVPF 111 9 0 8 126\r\n"));
    assert!(answered(&[]).contains("a=mid:0\r\n"));
    assert!(answered(&["--transport-protocol", "RTP/SAVPF"]).contains("m=audio 10000 RTP/SAVPF 111"));
    assert_eq!(answered(&[]), answered(&[]), "the seed makes it repeatable");
    assert!(!answered(&["--ICE=remove"]).contains("a=candidate"));
}

#[test]
fn records_with_a_field_sdp() {
    let sdp = file("1-sip-to-webrtc-offer.in.sdp");
    let record = json!({"frame": 7, "sdp": sdp, "note": "kept"}).to_string();
    let done = run(&["--to", "webrtc", "--seed", "1"], format!("{record}\n{record}\n").as_bytes());
    let lines: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (done.code, lines.len(), &lines[0]["frame"], &lines[1]["note"]),
        (0, 2, &7.into(), &"kept".into())
    );
    assert!(lines[1]["sdp"].as_str().unwrap().contains("m=audio 10002 RTP/SAVPF "));
}

/// As they were published, with indentation and broken lines: rewritten or refused by name, and nothing hangs.
#[test]
fn the_seeds_dumps_as_they_were_published() {
    let mut done = Vec::new();
    for entry in std::fs::read_dir(format!("{DATA}/raw")).unwrap() {
        let path = entry.unwrap().path();
        let finished = run(&["--seed", "1", path.to_str().unwrap()], b"");
        match finished.code {
            0 => done.push(path.file_name().unwrap().to_str().unwrap().to_owned()),
            code => assert_eq!((code, finished.stderr.lines().count()), (65, 1), "{}", finished.stderr),
        }
    }
    assert_eq!(done, ["1-sip-to-webrtc-offer.in.txt"]);
}

#[test]
fn exit_codes_and_messages() {
    let dir = TempDir::new();
    std::fs::write(dir.join("bad.sdp"), "v=0\r\ns=-\r\nm=audio\r\n").unwrap();
    std::fs::write(dir.join("good.sdp"), file("1-sip-to-webrtc-offer.in.sdp")).unwrap();
    for (args, input, code, message) in [
        (&["--ICE", "maybe"][..], "", 64, "--ICE=maybe: force, force-relay, optional, remove or default"),
        (&["--flags", "frobnicate"], "", 64, "flags=frobnicate"),
        (&["--fingerprint", "xyz"], "", 64, "sha-256"),
        (&["--no-such"], "", 64, "--no-such"),
        (&[], "hello", 65, "stdin:1: neither an SDP nor an ng dictionary"),
        (&[], "", 65, "stdin:1: neither an SDP nor an ng dictionary"),
        (&[], "{\"command\":\"offer\"}", 65, "without sdp"),
        (&[], "{\"a\":", 65, "stdin:1: no JSON"),
        (&[], "d7:command", 65, "byte 10"),
        (&["bad.sdp"], "", 65, "bad.sdp:3: not an SDP: "),
        (&["missing.sdp"], "", 66, "missing.sdp: "),
        (&["--answers", "missing.sdp"], "v=0", 66, "missing.sdp: "),
    ] {
        let done = run_in(&dir, args, input.as_bytes());
        assert_eq!((done.code, done.stdout.as_str()), (code, ""), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(message), "{args:?}: {}", done.stderr);
    }
    // What is good in a stream is written all the same.
    let done = run_in(&dir, &["good.sdp", "bad.sdp", "good.sdp"], b"");
    assert_eq!((done.code, done.stdout.matches("m=audio").count()), (65, 2));
}

/// What stands in an SDP of the relay's after this, up to the line's end.
fn of<'a>(sdp: &'a str, start: &str) -> Option<&'a str> {
    sdp.split("\r\n").find_map(|line| line.strip_prefix(start))
}

/// The filter's flags that put in what the relay put in.
fn as_the_relay(address: &str, sdp: &str) -> Vec<String> {
    let port = of(sdp, "m=audio ").and_then(|rest| rest.split(' ').next()).expect("an m-line");
    let mut flags =
        vec!["--media-address".to_owned(), address.to_owned(), "--port".to_owned(), port.to_owned()];
    let foundation = of(sdp, "a=candidate:").and_then(|rest| rest.split(' ').next());
    for (flag, value) in [
        ("--fingerprint", of(sdp, "a=fingerprint:")),
        ("--ufrag", of(sdp, "a=ice-ufrag:")),
        ("--pwd", of(sdp, "a=ice-pwd:")),
        ("--foundation", foundation),
    ] {
        flags.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value.to_owned()]));
    }
    flags
}

/// The relay is asked over UDP, the filter over a pipe: given the ports and secrets that the relay drew, byte for byte
/// the same, for the four conversions and for what the proxy asks for.
#[test]
fn the_running_relay_gives_the_same_text() {
    let address = loopback().to_string();
    let control = format!("udp:{address}:0");
    let relay = Server::start(
        "relay",
        &["--control", &control, "--interface", &address, "--port-range", "21000-21199"],
    );
    let socket = relay.address("udp");
    let dir = TempDir::new();
    for (offer, answer) in [
        ("1-sip-to-webrtc-offer", "2-webrtc-to-sip-answer"),
        ("3-webrtc-to-sip-offer", "4-sip-to-webrtc-answer"),
    ] {
        for own in [false, true] {
            let change = |mut request: Value| {
                if own {
                    request["call-id"] = format!("own-{offer}").into();
                    if request["ICE"] == "remove" {
                        request["flags"] = json!(["trust-address", "strip-browser"]);
                    } else if request["command"] == "answer" {
                        request["transport-protocol"] = "UDP/TLS/RTP/SAVPF".into();
                    }
                }
                request
            };
            let (offer, answer) = (change(request(offer)), change(request(answer)));
            let offered = ng(socket, &offer);
            assert_eq!(offered["result"], "ok", "{offered}");
            let text = offered["sdp"].as_str().expect("an SDP");
            let done = run_in(&dir, &as_the_relay(&address, text), offer.to_string().as_bytes());
            assert_eq!((done.code, done.stderr.as_str()), (0, ""));
            assert_eq!(done.stdout, format!("{offered}\n"));

            let answered = ng(socket, &answer);
            assert_eq!(answered["result"], "ok", "{answered}");
            let text = answered["sdp"].as_str().expect("an SDP");
            std::fs::write(dir.join("offer.json"), offer.to_string()).expect("a file");
            let flags =
                [as_the_relay(&address, text), ["--answers", "offer.json"].map(str::to_owned).to_vec()]
                    .concat();
            let done = run_in(&dir, &flags, answer.to_string().as_bytes());
            assert_eq!((done.code, done.stderr.as_str()), (0, ""));
            assert_eq!(done.stdout, format!("{answered}\n"));
        }
    }
}

/// Each key of ng that changes an SDP can be given on the command line, in one form or the other.
#[test]
fn keys_of_ng_on_the_command_line() {
    let sdp = file("1-sip-to-webrtc-offer.in.sdp");
    let with = |flags: &str| {
        let done = run(&["--to", "webrtc", "--seed", "7", "--flags", flags], sdp.as_bytes());
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{flags}");
        done.stdout
    };
    let plain = with("generate-mid");
    assert!(plain.contains("a=mid:") && plain.contains("a=rtcp:") && plain.contains("a=fingerprint:sha-256"));
    for (flags, there, gone) in [
        ("ptime=40", "a=ptime:40\r\n", "a=mid:"),
        ("ptime-40 replace-username", "a=ptime:40\r\n", "a=mid:"),
        ("generate-mid,ICE-lite=forward", "a=ice-lite\r\n", "no such"),
        ("generate-mid no-rtcp-attribute", "a=mid:", "a=rtcp:"),
        ("full-rtcp-attribute", " IN IP4 ", "a=mid:"),
        ("codec-strip-PCMA", "PCMU/8000", "PCMA"),
        ("trickle-ICE", "a=ice-options:trickle\r\n", "a=mid:"),
        ("address-family=IP4,sdp-media-remove=video", "m=audio", "m=video"),
        (r#"{"ptime": 40}"#, "a=ptime:40\r\n", "no such"),
        (r#"{"ICE": "remove", "codec": {"strip": ["PCMA"]}}"#, "PCMU/8000", "PCMA"),
        (
            r#"{"sdp-attr": {"audio": {"add": ["x-own:1"]}}, "replace": "username"}"#,
            "a=x-own:1\r\n",
            "no such",
        ),
        (r#"{"rtcp-mux": ["require"], "DTLS-fingerprint": "sha-256"}"#, "a=rtcp-mux\r\n", "a=rtcp-mux-only"),
    ] {
        let text = with(flags);
        assert!(text.contains(there) && !text.contains(gone) && text != plain, "{flags}:\n{text}");
    }
    for (flags, message) in [
        (r#"{"ptime""#, "--flags: "),
        (r#"{"no-such": 1}"#, "no-such"),
        (r#"{"call-id": "x"}"#, "call-id"),
        ("label=x", "--flags=label: not a flag that is known here"),
        ("generate-mids", "--flags=generate-mids: not a flag that is known here"),
        (r#"{"sdp-attr": {"audio": {"hat": ["x"]}}}"#, "hat"),
        ("ptime=long", "--ptime: no number"),
    ] {
        let done = run(&["--flags", flags], sdp.as_bytes());
        assert_eq!((done.code, done.stdout.as_str()), (64, ""), "{flags}: {}", done.stderr);
        assert!(done.stderr.contains(message), "{flags}: {}", done.stderr);
    }
}

/// Later offers of either side, and a fork: whose they are is told by tags and branch, as the relay tells it.
#[test]
fn later_offers_of_either_side_go_as_through_the_relay() {
    let address = loopback().to_string();
    let control = format!("udp:{address}:0");
    let relay = Server::start(
        "relay",
        &["--control", &control, "--interface", &address, "--port-range", "21200-21399"],
    );
    let socket = relay.address("udp");
    let base = |name: &str, (from, to): (&str, &str), via: Option<&str>| {
        let mut request = request(name);
        (request["call-id"], request["from-tag"]) = ("again".into(), from.into());
        let map = request.as_object_mut().expect("a dictionary");
        map.remove("via-branch");
        map.remove("to-tag");
        for (key, value) in [("to-tag", Some(to).filter(|to| !to.is_empty())), ("via-branch", via)] {
            value.into_iter().for_each(|value| drop(map.insert(key.to_owned(), value.into())));
        }
        request
    };
    let (phone_offers, browser_answers) = ("1-sip-to-webrtc-offer", "2-webrtc-to-sip-answer");
    let (browser_offers, phone_answers) = ("3-webrtc-to-sip-offer", "4-sip-to-webrtc-answer");
    let stream = [
        base(phone_offers, ("phone", ""), Some("z9hG4bK1")),
        base(phone_offers, ("phone", ""), Some("z9hG4bK2")),
        base(browser_answers, ("phone", "browser"), Some("z9hG4bK2")),
        // The callee's, and its answer by the caller.
        base(browser_offers, ("browser", "phone"), Some("z9hG4bK3")),
        base(phone_answers, ("browser", "phone"), Some("z9hG4bK3")),
        // And the caller's again, with no branch at all.
        base(phone_offers, ("phone", "browser"), None),
        base(browser_answers, ("phone", "browser"), None),
    ];
    let input: String = stream.iter().map(|request| format!("{request}\n")).collect();
    let done = run(&["--seed", "5", "--media-address", &address], input.as_bytes());
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let ours: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let port = |sdp: &str| of(sdp, "m=audio ").and_then(|rest| rest.split(' ').next().map(str::to_owned));
    let mut ports = Vec::new();
    for (request, ours) in stream.iter().zip(&ours) {
        let relays = ng(socket, request);
        let (ours, relays) = (ours["sdp"].as_str().expect("an SDP"), relays["sdp"].as_str().expect("an SDP"));
        assert_eq!(without_drawn(ours), without_drawn(relays), "{request}");
        ports.push((port(ours), port(relays)));
    }
    for (first, later) in [(1, 5), (2, 3), (2, 6), (1, 4)] {
        assert_eq!(ports[first], ports[later], "a side keeps its ports: {ports:?}");
    }
    assert_ne!(ports[0], ports[1], "another branch has others");
}

/// Without what is drawn at random: ports, credentials, foundations, fingerprints.
fn without_drawn(sdp: &str) -> String {
    let line = |line: &str| match line.split_once([':', ' ']) {
        Some((name @ ("a=ice-ufrag" | "a=ice-pwd" | "a=fingerprint" | "a=candidate" | "a=rtcp"), _)) => {
            format!("{name}\n")
        }
        Some(("m=audio", rest)) => format!("m=audio {}\n", rest.split_once(' ').expect("a port").1),
        Some(_) | None => format!("{line}\n"),
    };
    sdp.lines().map(line).collect()
}
