//! Each family of ng's flags about SDPs, in fixtures of requests (`tests/data/ng`): the running relay over UDP and the
//! filter over a pipe give the text that stands there. What is drawn anew each time is told by a word: RELAY, RELAY6, PORT,
//! KEY with its length, UFRAG, PWD, FOUNDATION, DIGEST, ID.

use super::harness::{Server, TempDir, loopback, ng};
use super::run_in;
use serde_json::{Value, json};

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ng");

/// An SDP's lines, with words for what is drawn. What stands in one of `theirs` is the peers' own.
fn normal(text: &str, relay: &str, theirs: &[&str]) -> Vec<String> {
    assert!(text.ends_with("\r\n") && !text.replace("\r\n", "").contains(['\r', '\n']), "{text:?}");
    let line = |line: &str| {
        let line = line.replace(relay, "RELAY").replace("::1", "RELAY6");
        let mut words: Vec<&str> = line.split(' ').collect();
        let hidden;
        if line.starts_with("m=") && !theirs.contains(&line.as_str()) && words[1] != "0" {
            words[1] = "PORT";
        } else if line.starts_with("a=rtcp:") {
            words[0] = "a=rtcp:PORT";
        } else if line.starts_with("a=candidate:") {
            words[0] = "a=candidate:FOUNDATION";
            words[5] = "PORT";
        } else if line.starts_with("a=fingerprint:") {
            words[1] = "DIGEST";
        } else if let Some((_, key)) = line.split_once(" inline:").filter(|_| line.starts_with("a=crypto:")) {
            let (key, rest) = key.split_at(key.find('|').unwrap_or(key.len()));
            if !theirs.iter().any(|line| line.contains(key)) {
                hidden = format!("inline:KEY{}{rest}", key.len());
                words[2] = &hidden;
            }
        } else {
            for (name, word) in [
                ("a=ice-ufrag:", "a=ice-ufrag:UFRAG"),
                ("a=ice-pwd:", "a=ice-pwd:PWD"),
                ("a=tls-id:", "a=tls-id:ID"),
            ] {
                if line.starts_with(name) {
                    words = vec![word];
                }
            }
        }
        words.join(" ")
    };
    text.split_terminator("\r\n").map(line).collect()
}

fn lines(value: &Value) -> Vec<&str> {
    value.as_array().expect("lines").iter().map(|line| line.as_str().expect("a line")).collect()
}

/// What each exchange asks, as the relay is asked.
fn requests(case: &Value, id: &str) -> Vec<Value> {
    let exchanges = case["exchanges"].as_array().expect("exchanges");
    let request = |exchange: &Value| {
        let mut request = exchange["request"].clone();
        request["sdp"] = (lines(&request["sdp"]).join("\r\n") + "\r\n").into();
        request["call-id"] = id.into();
        request["from-tag"] = "alice".into();
        if request["command"] == "answer" {
            request["to-tag"] = "bob".into();
        }
        request
    };
    exchanges.iter().map(request).collect()
}

/// A reply as a fixture has it.
fn told(reply: &Value, relay: &str, theirs: &[&str]) -> Value {
    match reply["result"].as_str() {
        Some("ok") => json!({ "reply": normal(reply["sdp"].as_str().expect("an SDP"), relay, theirs) }),
        _ => json!({ "error": reply["error-reason"] }),
    }
}

#[test]
fn the_relay_and_the_filter_know_each_family() {
    let address = loopback().to_string();
    let control = format!("udp:{address}:0");
    let interfaces = ["--interface", &address, "--interface", "::1", "--port-range", "21200-21999"];
    let relay = Server::start("relay", &[&["--control", &control], &interfaces[..]].concat());
    let socket = relay.address("udp");
    let dir = TempDir::new();
    let mut files: Vec<_> =
        std::fs::read_dir(DIR).expect(DIR).map(|file| file.expect("a file").path()).collect();
    files.sort();
    let mut families = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "json")) {
        let family = file.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        families.push(family);
        let cases: Value = serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON");
        for case in cases.as_array().expect("cases") {
            let name = format!("{family}: {}", case["name"]);
            let exchanges = case["exchanges"].as_array().expect("exchanges");
            let theirs: Vec<&str> = exchanges.iter().flat_map(|one| lines(&one["request"]["sdp"])).collect();
            let expected: Vec<Value> = exchanges
                .iter()
                .map(|one| match one.get("error") {
                    Some(error) => json!({ "error": error }),
                    None => json!({ "reply": one["reply"] }),
                })
                .collect();
            let requests = requests(case, &name);
            let replies: Vec<Value> =
                requests.iter().map(|request| told(&ng(socket, request), &address, &theirs)).collect();
            assert_eq!(replies, expected, "the relay, {name}");
            ng(socket, &json!({ "command": "delete", "call-id": name, "from-tag": "alice" }));

            if case["only"] == "relay" {
                continue;
            }
            let input: String = requests.iter().map(|request| format!("{request}\n")).collect();
            let flags = ["--media-address", &address, "--media-address", "::1"];
            let done = run_in(&dir, &flags, input.as_bytes());
            let mut written = done.stdout.lines();
            for wanted in &expected {
                match wanted.get("error") {
                    Some(error) => {
                        let error = error.as_str().expect("a reason");
                        assert!(done.code == 65 && done.stderr.contains(error), "{name}: {}", done.stderr);
                    }
                    None => {
                        let reply = written.next().unwrap_or_else(|| panic!("{name}: {}", done.stderr));
                        let reply: Value = serde_json::from_str(reply).expect("JSON");
                        assert_eq!(told(&reply, &address, &theirs), *wanted, "the filter, {name}");
                    }
                }
            }
            assert_eq!(written.next(), None, "{name}");
        }
    }
    let all = [
        "address",
        "browser",
        "codecs",
        "dtls",
        "ice",
        "keys",
        "lines",
        "manipulate",
        "mux",
        "origin",
        "profile",
    ];
    assert_eq!(families, all);
}
