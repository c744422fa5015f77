//! The model on a description of the RFC, on what is broken, on what was recorded elsewhere, and on anything.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // reads recorded files

use super::*;
use proptest::prelude::*;

/// RFC 8866 §5 and RFC 8839's example put together, with lines that nobody knows.
const OFFER: &[u8] = b"v=0\r\n\
o=jdoe 3724394400 3724394405 IN IP4 198.51.100.1\r\n\
s=Call to John Smith\r\n\
c=IN IP4 198.51.100.1\r\n\
t=0 0\r\n\
a=group:BUNDLE 0 1\r\n\
y=what is that\r\n\
m=audio 49170/2 RTP/AVP 0 97\r\n\
b=AS:64\r\n\
a=rtpmap:97 opus/48000/2\r\n\
a=fmtp:97 useinbandfec=1\r\n\
a=rtcp:53020 IN IP6 2001:db8::1\r\n\
a=x-odd\r\n\
a=sendonly\r\n\
m=video 0 UDP/TLS/RTP/SAVPF 99\r\n\
c=IN IP4 0.0.0.0\r\n\
a=rtcp-mux\r\n\
a=mid:1\r\n\
a=setup:actpass\r\n\
a=fingerprint:SHA-256 00:aB:ff\r\n\
a=ice-ufrag:F7gI\r\n\
a=candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host generation 0\r\n\
a=candidate:2 1 udp 5 4c9e6b50.local 9 typ host\r\n\
a=candidate:broken\r\n\
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4 UNENCRYPTED_SRTCP\r\n";

#[test]
fn every_line_keeps_its_place() {
    let sdp = Sdp::parse(OFFER).unwrap();
    assert_eq!(sdp.lines().len(), 25);
    assert_eq!(
        sdp.lines()[6],
        Line { number: 7, kind: b'y', value: b"what is that", raw: b"y=what is that\r\n", attribute: None }
    );
    let mut out = Vec::new();
    sdp.write(&mut out);
    assert_eq!(out, OFFER);
    assert_eq!(sdp.session().lines().len(), 7);
    assert_eq!(sdp.media(0).unwrap().lines().len(), 7);
    assert_eq!(sdp.media(1).unwrap().lines().len(), 11);
    assert!(sdp.media(2).is_none());
}

#[test]
fn views() {
    let sdp = Sdp::parse(OFFER).unwrap();
    let session = sdp.session();
    let origin = session.origin().unwrap();
    assert_eq!(
        (origin.username, origin.session_version, origin.address),
        ("jdoe", "3724394405", "198.51.100.1")
    );
    assert_eq!(session.connection().unwrap().ip(), Some("198.51.100.1".parse().unwrap()));
    let group = session.groups().next().unwrap();
    assert_eq!((group.semantics, group.mids), ("BUNDLE", "0 1"));

    let audio = sdp.media(0).unwrap();
    let m = audio.media().unwrap();
    assert_eq!((m.media, m.port, m.port_count, m.profile()), ("audio", 49170, Some(2), Some(Profile::Avp)));
    assert_eq!(m.payload_types().collect::<Vec<_>>(), [0, 97]);
    let map = RtpMap { payload_type: 97, encoding: "opus", clock_rate: 48000, channels: 2 };
    assert_eq!(audio.rtpmaps().collect::<Vec<_>>(), [map]);
    assert_eq!(audio.fmtps().next(), Some(Fmtp { format: "97", parameters: "useinbandfec=1" }));
    assert_eq!(audio.rtcp(), Some(Rtcp { port: 53020, address: Some("2001:db8::1".parse().unwrap()) }));
    assert_eq!(audio.direction(), Some(Direction::SendOnly));
    assert!(audio.has("x-odd") && !audio.has("rtcp-mux"));

    let video = sdp.media(1).unwrap();
    assert_eq!(video.setup(), Some(Setup::ActPass));
    let fingerprint = video.fingerprints().next().unwrap();
    assert_eq!((fingerprint.hash.as_str(), &fingerprint.digest[..]), ("sha-256", &[0, 0xab, 0xff][..]));
    assert_eq!(fingerprint.to_value(), "sha-256 00:AB:FF");
    let candidates: Vec<_> = video.candidates().collect();
    assert_eq!(candidates.len(), 2);
    assert_eq!(
        (candidates[0].address, candidates[0].port, candidates[0].kind),
        ("203.0.113.141", 8998, "host")
    );
    let crypto = video.cryptos().next().unwrap();
    assert_eq!((crypto.suite, crypto.key.len(), crypto.has_mki), ("AES_CM_128_HMAC_SHA1_80", 30, true));
    assert_eq!(crypto.session_parameters, "UNENCRYPTED_SRTCP");
}

#[test]
fn a_line_feed_alone_ends_a_line() {
    let text = b"v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nt=0 0\nm=audio 9 RTP/AVP 0";
    let sdp = Sdp::parse(text).unwrap();
    assert_eq!(sdp.lines().len(), 5);
    assert_eq!(sdp.media(0).unwrap().media().unwrap().formats, "0");
    let mut out = Vec::new();
    sdp.write(&mut out);
    assert_eq!(out, text);
}

#[test]
fn what_is_none_says_where() {
    let long = [b"v=0\r\n".to_vec(), vec![b'a'; limits::SDP_BYTES]].concat();
    let lines = [b"v=0\n".to_vec(), b"a=x\n".repeat(limits::SDP_LINES)].concat();
    let media = [b"v=0\n".to_vec(), b"m=audio 9 RTP/AVP 0\n".repeat(limits::SDP_MEDIA + 1)].concat();
    let cases: [(&[u8], u32, usize, ErrorKind); 12] = [
        (b"", 1, 0, ErrorKind::Empty),
        (b"hello\r\n", 1, 0, ErrorKind::NotALine),
        (b"v=1\r\n", 1, 0, ErrorKind::Version),
        (b"o=- 1 1 IN IP4 192.0.2.1\r\n", 1, 0, ErrorKind::Version),
        (b"v=0\r\ns=a\rb\r\n", 2, 8, ErrorKind::ControlByte),
        (b"v=0\r\ns=a\0b\r\n", 2, 8, ErrorKind::ControlByte),
        (b"v=0\r\n1=x\r\n", 2, 5, ErrorKind::NotALine),
        (b"v=0\r\nm=audio 70000 RTP/AVP 0\r\n", 2, 5, ErrorKind::Media),
        (b"v=0\r\nm=audio 7000 RTP/AVP\r\n", 2, 5, ErrorKind::Media),
        (&long, 1, limits::SDP_BYTES, ErrorKind::TooLong),
        (&lines, limits::SDP_LINES as u32 + 1, 4 * limits::SDP_LINES, ErrorKind::TooManyLines),
        (&media, limits::SDP_MEDIA as u32 + 2, 4 + 20 * limits::SDP_MEDIA, ErrorKind::TooManyMedia),
    ];
    for (data, line, at, kind) in cases {
        assert_eq!(Sdp::parse(data), Err(ParseError { line, at, kind }));
    }
}

/// What others recorded: each that begins as a description does comes back byte for byte, with the m-lines that its list names.
#[test]
fn corpus_round_trip() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus/sdp");
    let Ok(index) = std::fs::read_to_string(format!("{root}/index.json")) else {
        eprintln!("SKIPPED: {root} is not there");
        return;
    };
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let mut parsed = 0;
    for (name, entry) in index.as_object().unwrap() {
        let data = std::fs::read(format!("{root}/{name}")).unwrap();
        let sdp = match Sdp::parse(&data) {
            Ok(sdp) => sdp,
            Err(error) => {
                // Comment lines, another version, and pieces without a beginning.
                assert!(!data.starts_with(b"v=0") || data.windows(2).any(|w| w == b"\n;"), "{name}: {error}");
                continue;
            }
        };
        parsed += 1;
        let mut out = Vec::new();
        sdp.write(&mut out);
        assert_eq!(out, data, "{name}");
        let media = entry["media"].as_array().unwrap();
        assert_eq!(sdp.media_count(), media.len(), "{name}");
        for (section, expected) in sdp.medias().zip(media) {
            let m = section.media().unwrap();
            assert_eq!(m.media, expected["kind"], "{name}");
            assert_eq!(m.protocol, expected["proto"], "{name}");
            assert_eq!(
                m.port.to_string(),
                expected["port"].as_str().unwrap().split('/').next().unwrap(),
                "{name}"
            );
        }
    }
    assert!(parsed > 60, "only {parsed} parsed");
}

proptest! {
    #[test]
    fn what_parses_comes_back(
        lines in proptest::collection::vec("[a-z]=[ -~äß]{0,30}|m=audio [0-9]{1,5} RTP/AVP 0 [0-9]{1,3}", 0..30),
        crlf in proptest::collection::vec(any::<bool>(), 31),
    ) {
        let mut text = String::from("v=0\r\n");
        for (line, crlf) in lines.iter().zip(&crlf) {
            text.push_str(line);
            text.push_str(if *crlf { "\r\n" } else { "\n" });
        }
        if let Ok(sdp) = Sdp::parse(text.as_bytes()) {
            let mut out = Vec::new();
            sdp.write(&mut out);
            prop_assert_eq!(out, text.as_bytes());
            prop_assert_eq!(sdp.lines().len(), lines.len() + 1);
        } else {
            prop_assert!(lines.iter().any(|line| line.starts_with("m=")));
        }
    }

    #[test]
    fn a_changed_byte_is_survived(at in 0..OFFER.len(), byte in any::<u8>()) {
        let mut data = OFFER.to_vec();
        data[at] = byte;
        if let Ok(sdp) = Sdp::parse(&data) {
            let mut out = Vec::new();
            sdp.write(&mut out);
            prop_assert_eq!(&out, &data);
            for section in sdp.medias().chain([sdp.session()]) {
                let _ = (section.origin(), section.connection(), section.rtcp(), section.direction(), section.setup());
                let _ = (section.rtpmaps().count(), section.fmtps().count(), section.candidates().count());
                let _ = (section.cryptos().count(), section.fingerprints().count(), section.groups().count());
            }
        }
    }
}
