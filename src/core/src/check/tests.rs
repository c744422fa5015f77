//! Each rule on what breaks it, and none of them on what is right.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // It reads fixtures.

use super::{Context, Finding, Reader, Rule, Severity, check};
use proptest::prelude::*;
use std::collections::HashSet;

const PHONE: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=sendrecv\r\n";

const BROWSER: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\n\
a=ice-pwd:x9cml/YzichV2+XlhiMu8g8g\r\na=ice-options:trickle\r\na=fingerprint:sha-256 \
D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10\r\n\
m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8g8g\r\n\
a=fingerprint:sha-256 \
D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
a=setup:actpass\r\na=mid:1\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n";

const CRYPTO: &str = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw\r\n";

fn rules(sdp: &str, context: &Context) -> Vec<(u32, Rule)> {
    check(sdp.as_bytes(), context).into_iter().map(|finding| (finding.line, finding.rule)).collect()
}

fn claimed(sdp: &str) -> Vec<(u32, Rule)> {
    rules(sdp, &Context::default())
}

/// The SDP with one text in place of another, which is there.
fn with(sdp: &str, old: &str, new: &str) -> String {
    assert!(sdp.contains(old), "{old}");
    sdp.replacen(old, new, 1)
}

#[test]
fn what_is_right_has_no_findings() {
    assert_eq!(claimed(PHONE), []);
    assert_eq!(claimed(BROWSER), []);
    let sdes = with(PHONE, "RTP/AVP", "RTP/SAVP") + CRYPTO;
    assert_eq!(claimed(&sdes), []);
    assert_eq!(claimed(&with(PHONE, "m=audio 4000", "m=audio 0")), []);
}

#[test]
fn every_rule_has_its_case() {
    let fingerprint = "a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n";
    let cases = [
        (with(PHONE, "t=0 0", "t 0"), 5, Rule::NotSdp),
        (with(PHONE, "t=0 0\r\n", "t=0 0\r\nx=1\r\n"), 6, Rule::UnknownLetter),
        (with(PHONE, "c=IN IP4 192.0.2.10\r\nt=0 0", "t=0 0\r\nc=IN IP4 192.0.2.10"), 5, Rule::LineOrder),
        (with(PHONE, "t=0 0\r\n", ""), 4, Rule::MissingLine),
        (with(PHONE, "o=- 1 1 IN", "o=- 1 IN"), 2, Rule::Origin),
        (with(PHONE, "o=- 1 1", "o=- 1 99999999999999999999"), 2, Rule::Origin),
        (with(PHONE, "s=-", "s="), 3, Rule::EmptyName),
        (with(PHONE, "c=IN IP4 192.0.2.10\r\n", ""), 5, Rule::NoConnection),
        (with(PHONE, "c=IN IP4 192.0.2.10", "c=IN IP6 192.0.2.10"), 4, Rule::Connection),
        (with(PHONE, "c=IN IP4 192.0.2.10", "c=IN IP4 192.0.2.310"), 4, Rule::Connection),
        (with(PHONE, "c=IN IP4 192.0.2.10", "c=IN IP4 10.1.2.3"), 4, Rule::PrivateAddress),
        (with(PHONE, "c=IN IP4 192.0.2.10", "c=IN IP4 100.64.2.3"), 4, Rule::PrivateAddress),
        (with(PHONE, "c=IN IP4 192.0.2.10", "c=IN IP6 fd00::3"), 4, Rule::PrivateAddress),
        (with(PHONE, "c=IN IP4 192.0.2.10", "c=IN IP4 0.0.0.0"), 4, Rule::ZeroAddress),
        (with(PHONE, " 8 101", " 8 97 101"), 6, Rule::NoRtpmap),
        (with(PHONE, "event/8000", "event/8000#0"), 7, Rule::BadRtpmap),
        (with(PHONE, " 0 8 ", " 0 8 300 "), 6, Rule::BadRtpmap),
        (with(PHONE, " 0 8 ", " 0 8 8 "), 6, Rule::DuplicatePayloadType),
        (with(PHONE, "a=fmtp", "a=rtpmap:101 iLBC/8000\r\na=fmtp"), 8, Rule::DuplicatePayloadType),
        (
            BROWSER.replace("SAVPF 96", "SAVPF 111").replace("96 VP8", "111 VP8"),
            19,
            Rule::DuplicatePayloadType,
        ),
        (with(PHONE, " 8 101", " 8"), 7, Rule::UnlistedPayloadType),
        (with(BROWSER, " 111 0\r\n", " 111 0 72\r\na=rtpmap:72 X/8000\r\n"), 6, Rule::MuxPayloadType),
        (with(PHONE, "a=sendrecv", "a=sendrecv\r\na=sendonly"), 10, Rule::TwoDirections),
        (PHONE.to_owned() + "a=rtcp-fb:* nack\r\n", 10, Rule::FeedbackWithoutF),
        (with(BROWSER, "a=mid:0\r\n", &format!("a=mid:0\r\n{CRYPTO}")), 15, Rule::SdesAndDtls),
        (with(PHONE, "RTP/AVP", "RTP/SAVP"), 6, Rule::SrtpWithoutKeys),
        (PHONE.to_owned() + CRYPTO, 10, Rule::KeysInPlain),
        (PHONE.to_owned() + fingerprint, 10, Rule::KeysInPlain),
        (with(PHONE, "RTP/AVP", "RTP/SAVP") + &with(CRYPTO, "MTIz", ""), 10, Rule::BadCrypto),
        (with(PHONE, "RTP/AVP", "RTP/SAVP") + CRYPTO + CRYPTO, 11, Rule::BadCrypto),
        (
            with(
                BROWSER,
                "a=setup",
                "a=fingerprint:sha-1 DF:FA:FB:08:3B:3C:54:1D:D7:D4:05:77:A0:72:9B:14:08:6D:0F:4C\r\na=setup",
            ),
            13,
            Rule::WeakFingerprint,
        ),
        (with(BROWSER, "sha-256 D2:", "sha-256 "), 12, Rule::BadFingerprint),
        (BROWSER.replace(fingerprint, ""), 6, Rule::NoFingerprint),
        (BROWSER.replace("a=setup:actpass\r\n", ""), 12, Rule::NoSetup),
        (BROWSER.replace("actpass", "holdconn"), 13, Rule::HoldConn),
        (BROWSER.replace("a=rtcp-mux\r\n", ""), 6, Rule::NoMux),
        (BROWSER.replace("a=group:BUNDLE 0 1\r\n", "").replace("a=mid:0\r\n", ""), 5, Rule::NoMid),
        (
            BROWSER.replace("BUNDLE 0", "BUNDLE abcdefghijklmnopq").replace("mid:0", "mid:abcdefghijklmnopq"),
            14,
            Rule::LongMid,
        ),
        (with(BROWSER, "a=mid:1", "a=mid:0"), 25, Rule::DuplicateMid),
        (with(BROWSER, "a=mid:1\r\n", ""), 5, Rule::GroupWithoutMid),
        (
            BROWSER.replace("a=ice-ufrag:F7gI\r\n", "").replace("a=ice-pwd:x9cml/YzichV2+XlhiMu8g8g\r\n", ""),
            6,
            Rule::NoIce,
        ),
        (with(BROWSER, "ufrag:F7gI", "ufrag:F7"), 9, Rule::BadIce),
        (with(BROWSER, "a=ice-pwd:x9cml/YzichV2+XlhiMu8g8g\r\n", ""), 9, Rule::BadIce),
        (with(BROWSER, "a=mid:0", "a=candidate:1 1 UDP x\r\na=mid:0"), 14, Rule::BadCandidate),
        (with(BROWSER, "a=fmtp:111 minptime=10", "a=ssrc:abc cname:x"), 18, Rule::Firefox),
    ];
    let (mut seen, mut missed) = (HashSet::new(), Vec::new());
    for (sdp, line, rule) in cases {
        let found = claimed(&sdp);
        if !found.contains(&(line, rule)) {
            missed.push(format!("{rule:?} in line {line} not in {found:?}"));
        }
        seen.insert(rule);
    }
    assert!(missed.is_empty(), "{missed:#?}");
    // An answer's own rule.
    let answer = Context { is_answer: true, ..Context::default() };
    assert!(rules(BROWSER, &answer).contains(&(13, Rule::SetupInAnswer)));
    seen.insert(Rule::SetupInAnswer);
    for rule in Rule::ALL {
        assert!(seen.contains(&rule), "{rule:?} has no case");
        assert_eq!(Rule::by_code(rule.text().code), Some(rule));
    }
}

#[test]
fn a_phone_is_judged_as_a_phone_unless_it_is_for_a_browser() {
    let browser = Context { reader: Reader::Browser, ..Context::default() };
    let found: HashSet<Rule> = rules(PHONE, &browser).into_iter().map(|(_, rule)| rule).collect();
    assert_eq!(found, HashSet::from([Rule::NoFingerprint, Rule::NoIce, Rule::NoMux, Rule::NoMid]));
    // And keys that are only SDES, for a browser.
    let sdes = with(PHONE, "RTP/AVP", "RTP/SAVP") + CRYPTO;
    assert!(rules(&sdes, &browser).contains(&(10, Rule::NoFingerprint)));
    let phone = Context { reader: Reader::Phone, ..Context::default() };
    assert_eq!(rules(&BROWSER.replace("a=rtcp-mux\r\n", ""), &phone), []);
}

/// The corpus: what a real browser took as an offer has no errors, but for those that are listed with their reason.
#[test]
fn what_a_browser_took_has_no_errors() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus/sdp");
    let Ok(index) = std::fs::read(format!("{dir}/index.json")) else {
        return eprintln!("SKIPPED: no corpus beside the repository");
    };
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for (name, about) in index.as_object().unwrap() {
        let data = std::fs::read(format!("{dir}/{name}")).unwrap();
        if about["chromium"]["accepts_as_offer"] == true {
            taken += 1;
            let found = check(&data, &Context::default());
            let errors: Vec<&Finding> = found.iter().filter(|f| f.severity == Severity::Error).collect();
            assert!(errors.is_empty(), "{name}: {errors:#?}");
            continue;
        }
        // And what the browser said of the others, is found.
        let said = about["chromium"]["error"].as_str().unwrap_or_default();
        let browser = Context { reader: Reader::Browser, ..Context::default() };
        let found: HashSet<Rule> = check(&data, &browser).into_iter().map(|finding| finding.rule).collect();
        for (words, rules) in [
            ("without DTLS fingerprint", &[Rule::NoFingerprint, Rule::SrtpWithoutKeys][..]),
            ("without ice-ufrag", &[Rule::NoIce]),
            ("MID attribute exceeds", &[Rule::LongMid]),
            ("Expect line: s=", &[Rule::EmptyName, Rule::MissingLine, Rule::LineOrder]),
            // Chromium knows no e=, and neither does Firefox.
            ("Expect line: t=", &[Rule::MissingLine, Rule::LineOrder, Rule::Firefox]),
            ("Expect line: v=", &[Rule::NotSdp]),
        ] {
            if said.contains(words) {
                refused += 1;
                assert!(rules.iter().any(|rule| found.contains(rule)), "{name}: {said}: {found:?}");
            }
        }
    }
    assert!(taken >= 10 && refused >= 30, "{taken} {refused}");
}

proptest! {
    #[test]
    fn never_panics(
        browser in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        lines in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let mut text = if browser { BROWSER } else { PHONE }.as_bytes().to_vec();
        for (index, byte) in changes {
            let at = index.index(text.len());
            text[at] = byte;
        }
        let mut all: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        for index in lines {
            let line = all.remove(index.index(all.len()));
            all.push(line);
        }
        for reader in [Reader::Claimed, Reader::Browser, Reader::Phone] {
            check(&all.concat(), &Context { reader, is_answer: browser });
        }
    }
}
