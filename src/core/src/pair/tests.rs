//! What is negotiated, and each break on an answer that has it.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // It reads fixtures.

use super::{Codec, Ice, Keys, Pair, Who, pair};
use crate::sdp::Sdp;
use proptest::prelude::*;
use std::collections::HashSet;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/seed");

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
m=audio 4000 UDP/TLS/RTP/SAVPF 111 0 101\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n\
a=maxptime:40\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\na=fingerprint:sha-256 00:01\r\n\
a=rtcp-mux\r\na=extmap:1 urn:x\r\nm=video 4002 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\na=ice-ufrag:abcd\r\n\
a=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\na=fingerprint:sha-256 00:01\r\na=rtcp-mux\r\na=sendonly\r\n";

const ANSWER: &str = "v=0\r\no=- 2 2 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
m=audio 5000 UDP/TLS/RTP/SAVPF 111 101\r\na=mid:0\r\na=rtpmap:111 OPUS/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n\
a=ptime:20\r\na=ice-ufrag:efgh\r\na=ice-pwd:0123456789012345678901\r\na=setup:active\r\na=fingerprint:sha-256 02:03\r\n\
a=rtcp-mux\r\na=extmap:1 urn:x\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n";

const SDES_OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 0 97\r\n\
a=rtpmap:97 iLBC/8000\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw\r\n\
a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw\r\na=recvonly\r\n";

fn of(offer: &str, answer: &str) -> Pair {
    pair(&Sdp::parse(offer.as_bytes()).unwrap(), &Sdp::parse(answer.as_bytes()).unwrap())
}

fn codec(name: &str, number: &str) -> Codec {
    Codec { name: name.to_owned(), to_offerer: number.to_owned(), to_answerer: number.to_owned() }
}

#[test]
fn what_was_negotiated() {
    let pair = of(OFFER, ANSWER);
    assert_eq!(pair.breaks, []);
    let [audio, video] = &pair.media[..] else { panic!("{:?}", pair.media) };
    assert_eq!(audio.codecs, [codec("OPUS/48000/2", "111"), codec("telephone-event/8000", "101")]);
    assert_eq!((audio.to_offerer, audio.to_answerer, audio.mux, audio.bundled), (true, true, true, true));
    assert_eq!(audio.keys, Keys::Dtls { client: Some(Who::Answerer), hash: "sha-256".to_owned() });
    assert_eq!((audio.ice, audio.ptime), (Ice::Yes { controlling: Who::Offerer }, (None, Some(20))));
    assert_eq!((video.refused_by, video.codecs.len()), (Some(Who::Answerer), 0));

    let answer = SDES_OFFER.replace("0 97", "96").replace(":97", ":96").replace("recvonly", "sendonly");
    let cut = answer.find("a=crypto:1").unwrap()..answer.find("a=crypto:2").unwrap();
    let pair = of(SDES_OFFER, &[&answer[..cut.start], &answer[cut.end..]].concat());
    let codes: Vec<&str> = pair.breaks.iter().map(|b| b.code).collect();
    assert_eq!(codes, ["payload-type-differs"]);
    let audio = &pair.media[0];
    // Each receives by the number of its own description.
    assert_eq!((audio.codecs[0].to_offerer.as_str(), audio.codecs[0].to_answerer.as_str()), ("97", "96"));
    assert_eq!(audio.keys, Keys::Sdes { suite: "AES_CM_128_HMAC_SHA1_32".to_owned() });
    assert_eq!((audio.to_offerer, audio.to_answerer, audio.ice), (true, false, Ice::No));
}

#[test]
fn each_break_has_its_code() {
    let answers = [
        (ANSWER.replace("m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n", ""), "fewer-m-lines", 17),
        (ANSWER.to_owned() + "m=audio 1 RTP/AVP 0\r\n", "more-m-lines", 20),
        (ANSWER.replace("m=video", "m=audio"), "media", 18),
        (ANSWER.replace("m=audio 5000 UDP/TLS/RTP/SAVPF", "m=audio 5000 RTP/AVP"), "protocol", 7),
        (ANSWER.replace("111", "8").replace(" OPUS/48000/2", " PCMA/8000"), "no-common-codec", 7),
        (ANSWER.replace(" 111 101", " 111 8 101"), "codec-not-offered", 7),
        (ANSWER.replace("111", "112"), "payload-type-differs", 7),
        (ANSWER.replace("101", "0").replace("telephone-event", "L16"), "payload-type-changed", 7),
        (ANSWER.replace("active", "actpass"), "setup", 14),
        (ANSWER.replace("a=setup:active\r\n", ""), "setup", 7),
        (ANSWER.replace("a=fingerprint:sha-256 02:03\r\n", ""), "no-keys", 7),
        (ANSWER.replace("a=mid:0", "a=mid:9"), "mid", 8),
        (ANSWER.replace("BUNDLE 0", "BUNDLE 0 7"), "bundle-not-offered", 6),
        (ANSWER.replace("BUNDLE 0", "BUNDLE 0 1"), "bundle-refused", 6),
        (ANSWER.replace("ptime:20", "ptime:60"), "ptime", 11),
        (ANSWER.replace("urn:x", "urn:y"), "extmap", 17),
        (ANSWER.replace("extmap:1", "extmap:2"), "extmap", 17),
        (ANSWER.replace("video 0 ", "video 6 "), "direction", 18),
    ];
    let (mut seen, mut missed) = (HashSet::new(), Vec::new());
    let mut expect = |offer: &str, answer: &str, code: &'static str, line: u32| {
        let pair = of(offer, answer);
        if !pair.breaks.iter().any(|b| (b.code, b.line) == (code, line)) {
            let found: Vec<_> = pair.breaks.iter().map(|b| (b.code, b.line)).collect();
            missed.push(format!("{code} in line {line} not in {found:?}"));
        }
        seen.insert(code);
    };
    for (answer, code, line) in answers {
        expect(OFFER, &answer, code, line);
    }
    expect(&OFFER.replace("a=rtcp-mux\r\n", ""), ANSWER, "rtcp-mux-not-offered", 16);
    expect(&OFFER.replace("a=ice-ufrag:abcd\r\n", ""), ANSWER, "ice-not-offered", 12);
    expect(&OFFER.replace("a=mid:0\r\n", ""), ANSWER, "mid-not-offered", 8);
    expect(&OFFER.replace("video 4002", "video 0"), &ANSWER.replace("video 0 ", "video 6 "), "port", 18);
    expect(SDES_OFFER, &SDES_OFFER.replace("recvonly", "sendonly"), "crypto", 8);
    let other_tag =
        SDES_OFFER.replace("crypto:1 AES_CM_128_HMAC_SHA1_80", "crypto:1 AES_CM_128_HMAC_SHA1_32");
    expect(SDES_OFFER, &other_tag, "crypto", 8);
    expect(SDES_OFFER, SDES_OFFER, "direction", 10);
    for both in ["active", "passive"] {
        expect(
            &OFFER.replace("actpass", both),
            &ANSWER.replace("setup:active", &format!("setup:{both}")),
            "setup",
            14,
        );
    }
    assert!(missed.is_empty(), "{missed:#?}");
    assert_eq!(seen.len(), 21);
}

/// The four that the reproduced relay made of one call each way: each leg by itself.
#[test]
fn the_seeds_legs() {
    let read = |name: &str| std::fs::read_to_string(format!("{DATA}/{name}")).unwrap();
    for (offer, answer, client) in [
        ("1-sip-to-webrtc-offer.seed.sdp", "2-webrtc-to-sip-answer.in.sdp", Some(Who::Answerer)),
        ("1-sip-to-webrtc-offer.in.sdp", "2-webrtc-to-sip-answer.seed.sdp", None),
        ("3-webrtc-to-sip-offer.in.sdp", "4-sip-to-webrtc-answer.seed.sdp", Some(Who::Offerer)),
        ("3-webrtc-to-sip-offer.seed.sdp", "4-sip-to-webrtc-answer.in.sdp", None),
    ] {
        let pair = of(&read(offer), &read(answer));
        let errors: Vec<_> = pair.breaks.iter().filter(|b| b.severity == super::Severity::Error).collect();
        assert!(errors.is_empty(), "{offer}: {errors:#?}");
        let keys = match client {
            Some(client) => matches!(&pair.media[0].keys, Keys::Dtls { client: Some(c), .. } if *c == client),
            None => pair.media[0].keys == Keys::None,
        };
        assert!(keys && !pair.media[0].codecs.is_empty(), "{offer}: {:?}", pair.media[0]);
    }
}

proptest! {
    #[test]
    fn never_panics_and_a_description_fits_itself(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut text = ANSWER.as_bytes().to_vec();
        for (index, byte) in changes {
            let at = index.index(text.len());
            text[at] = byte;
        }
        if let Ok(answer) = Sdp::parse(&text) {
            let offer = Sdp::parse(OFFER.as_bytes()).unwrap();
            pair(&offer, &answer);
            pair(&answer, &offer);
            prop_assert_eq!(crate::diff::diff(&answer, &answer), vec![]);
            crate::diff::diff(&offer, &answer);
        }
    }
}
