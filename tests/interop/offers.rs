//! `sdp-rewrite --to webrtc` judged by a browser: whatever comes out is an offer that Chromium takes and answers.
//!
//! In go the seed's offers, our fixtures of ng's flags, descriptions that phones write in their own way, and the corpus
//! beside the checkout where it is there. Not here: media.

use crate::chromium::{self, Chromium};
use crate::harness::{Finished, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What phones write, and no browser reads as it is.
const ODD: [(&str, &str); 7] = [
    (
        "a session without a name",
        "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n",
    ),
    ("no s=, no t=", "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\nc=IN IP4 192.0.2.10\r\nm=audio 4000 RTP/AVP 0\r\n"),
    (
        "an order of its own",
        "v=0\r\ns=-\r\nt=0 0\r\nc=IN IP4 192.0.2.10\r\no=- 1 1 IN IP4 192.0.2.10\r\nx=odd\r\nm=audio 4000 RTP/AVP 0\r\nb=AS:80\r\ni=talk\r\nz=0 0\r\n",
    ),
    (
        "one mid twice, one that is none",
        "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=mid:2\r\nm=audio 4002 RTP/AVP 8\r\na=mid:2\r\nm=video 4004 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=mid:a b;\r\n",
    ),
    (
        "fax, chat and a whiteboard",
        "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\nm=image 4010 udptl t38\r\nm=message 2855 TCP/MSRP *\r\na=path:msrp://a.example.com:2855/s;tcp\r\nm=whiteboard 32416 udp wb\r\nc=IN IP4 224.2.17.12/127\r\n",
    ),
    (
        "keys in the SDP, on hold, in IPv6",
        "v=0\r\no=- 1 1 IN IP6 2001:db8::10\r\ns=-\r\nc=IN IP6 ::\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n",
    ),
    (
        "simulcast without its extension, several contacts",
        "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\ne=a@example.com\r\ne=b@example.com\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=video 4004 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=rid:1 send\r\na=rid:2 send\r\na=simulcast:send 1;2\r\n",
    ),
];

fn to_webrtc(sdp: &[u8]) -> Finished {
    let addresses = ["--media-address", "192.0.2.1", "--media-address", "2001:db8::1"];
    run(&[&["sdp-rewrite", "--to", "webrtc", "--seed", "7"][..], &addresses].concat(), sdp)
}

/// The harness reads lines.
fn with_crlf(text: &str) -> String {
    text.lines().map(|line| format!("{line}\r\n")).collect()
}

/// The offers, by where they are from; and how many must come out of them at least.
fn offers() -> (BTreeMap<String, Vec<u8>>, usize) {
    let mut offers = BTreeMap::new();
    for (name, sdp) in ODD {
        offers.insert(format!("odd: {name}"), sdp.as_bytes().to_vec());
    }
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let read =
        |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for name in ["1-sip-to-webrtc-offer", "3-webrtc-to-sip-offer"] {
        offers.insert(format!("seed: {name}"), read(&data.join(format!("seed/{name}.in.sdp"))));
    }
    for file in std::fs::read_dir(data.join("ng")).expect("fixtures").map(|file| file.expect("a file").path())
    {
        if file.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let cases: Value = serde_json::from_slice(&read(&file)).expect("JSON");
        for case in cases.as_array().expect("cases") {
            let lines = case["exchanges"][0]["request"]["sdp"].as_array().expect("lines");
            let sdp: String =
                lines.iter().map(|line| format!("{}\r\n", line.as_str().expect("a line"))).collect();
            let name = format!("{}: {}", file.file_stem().unwrap_or_default().display(), case["name"]);
            offers.insert(name, sdp.into_bytes());
        }
    }
    let own = offers.len();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/sdp");
    let Ok(files) = std::fs::read_dir(&corpus) else {
        eprintln!("SKIPPED: the corpus; {} is not there", corpus.display());
        return (offers, own);
    };
    for file in files.map(|file| file.expect("a file").path()) {
        if file.extension().is_some_and(|end| end == "sdp") {
            offers.insert(format!("corpus: {}", file.file_name().unwrap_or_default().display()), read(&file));
        }
    }
    // The others are no descriptions, or have a secure profile and nothing to agree on keys with.
    (offers, own + 50)
}

/// What must be so without asking a browser.
fn faults(sdp: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut mids = Vec::new();
    for section in sdp.split("\r\nm=").skip(1) {
        let has = |name: &str| section.split("\r\n").any(|line| line.starts_with(&format!("a={name}")));
        let line = section.lines().next().unwrap_or_default();
        let mut words = line.split(' ').skip(1);
        if words.next() == Some("0") || !words.next().is_some_and(|protocol| protocol.contains("RTP/")) {
            continue;
        }
        for name in [
            "mid:",
            "rtcp-mux",
            "setup:actpass",
            "fingerprint:sha-256 ",
            "ice-ufrag:",
            "ice-pwd:",
            "candidate:",
        ] {
            if !has(name) {
                faults.push(format!("{line}: no {name}"));
            }
        }
        if has("crypto:") || has("fingerprint:sha-1 ") || line.contains("/AVP") {
            faults.push(format!("{line}: not for a browser"));
        }
        mids.push(section.lines().find(|line| line.starts_with("a=mid:")));
    }
    let count = mids.len();
    mids.sort();
    mids.dedup();
    if mids.len() < count {
        faults.push("one mid twice".to_owned());
    }
    faults
}

#[test]
fn a_browser_takes_whatever_is_made_for_it() {
    chromium::web_root();
    let mut browser = Chromium::open("about:blank");
    let (offers, least) = offers();
    let (mut taken, mut wrong) = (0, Vec::new());
    for (name, sdp) in &offers {
        let done = to_webrtc(sdp);
        // No valid offer: comments before it, no description at all, no keys to agree on.
        if done.code != 0 {
            assert_eq!(done.code, 65, "{name}: {}", done.stderr);
            continue;
        }
        let text = with_crlf(&done.stdout);
        wrong.extend(faults(&text).into_iter().map(|fault| format!("{name}: {fault}")));
        match browser.take(&text) {
            Ok(media) => {
                taken += 1;
                // A codec that every browser has is not refused.
                let offered = text.lines().filter(|line| line.starts_with("m="));
                for (line, answer) in offered.zip(&media) {
                    let words: Vec<&str> = line.split(' ').collect();
                    let known = words[0] == "m=audio" && words[1] != "0" && words[3..].contains(&"0");
                    if known && answer.split(' ').nth(1) == Some("0") && !line.ends_with(" wb") {
                        wrong.push(format!("{name}: {line} answered by {answer}"));
                    }
                }
            }
            Err(reason) => wrong.push(format!("{name}: {reason}\n{text}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), offers.len(), wrong.join("\n"));
    assert!(taken >= least, "only {taken} of {} came out", offers.len());
    // The judge refuses what is wrong: each of these is a line of an offer that it took.
    let good = with_crlf(&to_webrtc(ODD[0].1.as_bytes()).stdout);
    assert!(browser.take(&good).is_ok());
    for line in ["a=fingerprint:", "a=ice-pwd:", "s=", "a=rtcp-mux"] {
        let without: String = good.split_inclusive("\r\n").filter(|text| !text.starts_with(line)).collect();
        assert!(browser.take(&without).is_err(), "without {line} too");
    }
}
