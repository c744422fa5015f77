//! The seed's four conversions line by line, what phones and browsers of today send, and what is to be refused.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // reads recorded files

use super::*;
use crate::limits;
use crate::media::plan::{DtlsRole, Learning, Security};
use crate::ng::{self, Flags};
use crate::sdp::Direction;
use proptest::prelude::*;

/// Ports and secrets as a test wants them.
struct Pinned {
    port: u16,
    ice: Vec<(&'static str, &'static str)>,
    asked: Vec<(usize, Side, Want)>,
}

impl Pinned {
    fn at(port: u16) -> Self {
        Pinned { port, ice: Vec::new(), asked: Vec::new() }
    }
}

const RELAY: &str = "198.51.100.1";
const DIGEST: &str =
    "E7:F7:1B:E7:65:08:C5:88:29:74:7D:CC:BB:26:99:4B:11:A7:41:3D:A4:57:31:CA:56:EA:DE:D4:3D:EB:45:E4";

impl Supply for Pinned {
    fn ports(&mut self, media: usize, side: Side, want: &Want) -> Result<Address, String> {
        self.asked.push((media, side, want.clone()));
        let advertised = match want.family {
            Some(Family::V6) => "2001:db8::1".parse().unwrap(),
            Some(Family::V4) | None => RELAY.parse().unwrap(),
        };
        let bound = "10.0.0.1".parse().unwrap();
        let port = self.port;
        self.port += 2;
        let address = |port| SocketAddr::new(bound, port);
        Ok(Address { advertised, rtp: address(port), rtcp: address(port + 1) })
    }

    fn ice(&mut self) -> (String, String) {
        let (ufrag, pwd) = self.ice.pop().unwrap_or(("ufrg", "passwordpasswordpassword"));
        (ufrag.to_owned(), pwd.to_owned())
    }

    fn foundation(&mut self) -> String {
        "KJ7F9EsxS4CtrMjN".to_owned()
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::parse(&format!("sha-256 {DIGEST}")).unwrap()
    }

    fn sdes_key(&mut self) -> Vec<u8> {
        vec![7; 30]
    }
}

fn flags(text: &str) -> Flags {
    let (_, dict) = ng::decode(text.as_bytes()).unwrap();
    Flags::parse(&dict).unwrap()
}

const TO_WEBRTC: &str = r#"{"DTLS":"passive","ICE":"force","SDES":["off"],"transport-protocol":"RTP/SAVPF",
    "rtcp-mux":["offer"],"flags":["generate-mid"],"replace":["origin","session-connection"]}"#;
const TO_SIP: &str = r#"{"DTLS":"off","ICE":"remove","SDES":["off"],"transport-protocol":"RTP/AVP",
    "rtcp-mux":["demux"],"flags":["trust-address","strip-browser"],"replace":["origin","session-connection"]}"#;

fn offer(sdp: &[u8], flags: &Flags, memory: &mut Memory, supply: &mut Pinned) -> Result<Rewritten, Refusal> {
    rewrite(&Input { sdp, kind: Kind::Offer, sender: Side::Offerer, flags, cuts: true }, memory, supply)
}

fn answer(sdp: &[u8], flags: &Flags, memory: &mut Memory, supply: &mut Pinned) -> Result<Rewritten, Refusal> {
    rewrite(&Input { sdp, kind: Kind::Answer, sender: Side::Answerer, flags, cuts: false }, memory, supply)
}

fn text(rewritten: &Rewritten) -> &str {
    std::str::from_utf8(&rewritten.sdp).unwrap()
}

fn legs(outcome: &Outcome) -> &[(Side, LegPlan)] {
    match outcome {
        Outcome::Legs(legs) => legs,
        Outcome::Rejected => panic!("rejected"),
    }
}

macro_rules! seed {
    ($name:literal, $part:literal) => {
        include_bytes!(concat!("../../../../tests/data/seed/", $name, ".", $part))
    };
}

struct Conversion {
    kind: Kind,
    flags: &'static [u8],
    sdp: &'static [u8],
    seed: &'static [u8],
    port: u16,
    ice: (&'static str, &'static str),
    /// Line of the seed, line of ours, why.
    deviations: &'static [(&'static str, &'static str, &'static str)],
}

const SHA256: (&str, &str, &str) = (
    "a=fingerprint:sha-1 31:02:B2:35:5B:64:B2:7A:82:A8:5C:74:AE:BA:9C:31:50:72:1D:25",
    "a=fingerprint:sha-256 E7:F7:1B:E7:65:08:C5:88:29:74:7D:CC:BB:26:99:4B:11:A7:41:3D:A4:57:31:CA:56:EA:DE:D4:3D:EB:45:E4",
    "RFC 8122 section 5, RFC 8827 section 6.5: SHA-256",
);

const CALLS: [[Conversion; 2]; 2] = [
    [
        Conversion {
            kind: Kind::Offer,
            flags: seed!("1-sip-to-webrtc-offer", "flags.json"),
            sdp: seed!("1-sip-to-webrtc-offer", "in.sdp"),
            seed: seed!("1-sip-to-webrtc-offer", "seed.sdp"),
            port: 10210,
            ice: ("oqrWXyzO", "aeZz7aRvLYvLeiZEP9wvCuwXVB"),
            deviations: &[SHA256],
        },
        Conversion {
            kind: Kind::Answer,
            flags: seed!("2-webrtc-to-sip-answer", "flags.json"),
            sdp: seed!("2-webrtc-to-sip-answer", "in.sdp"),
            seed: seed!("2-webrtc-to-sip-answer", "seed.sdp"),
            port: 10220,
            ice: ("", ""),
            deviations: &[],
        },
    ],
    [
        Conversion {
            kind: Kind::Offer,
            flags: seed!("3-webrtc-to-sip-offer", "flags.json"),
            sdp: seed!("3-webrtc-to-sip-offer", "in.sdp"),
            seed: seed!("3-webrtc-to-sip-offer", "seed.sdp"),
            port: 10242,
            ice: ("", ""),
            deviations: &[],
        },
        Conversion {
            kind: Kind::Answer,
            flags: seed!("4-sip-to-webrtc-answer", "flags.json"),
            sdp: seed!("4-sip-to-webrtc-answer", "in.sdp"),
            seed: seed!("4-sip-to-webrtc-answer", "seed.sdp"),
            port: 10262,
            ice: ("cuLPfZNk", "8NuoK05mpxck9v6oBRITQUwKIF"),
            deviations: &[SHA256],
        },
    ],
];

#[test]
fn the_seeds_conversions_line_by_line() {
    for call in CALLS {
        let mut memory = Memory::default();
        for case in call {
            let flags = flags(std::str::from_utf8(case.flags).unwrap());
            let sender = if case.kind == Kind::Offer { Side::Offerer } else { Side::Answerer };
            let mut supply = Pinned { ice: vec![case.ice], ..Pinned::at(case.port) };
            let input = Input { sdp: case.sdp, kind: case.kind, sender, flags: &flags, cuts: false };
            let out = rewrite(&input, &mut memory, &mut supply).unwrap();
            let ours: Vec<&str> = text(&out).split_terminator("\r\n").collect();
            let seed: Vec<&str> = std::str::from_utf8(case.seed).unwrap().split_terminator("\r\n").collect();
            let mut deviations = case.deviations.iter();
            for (ours, seed) in ours.iter().zip(&seed) {
                if ours != seed {
                    let (theirs, mine, why) =
                        deviations.next().unwrap_or_else(|| panic!("{ours} is not {seed}"));
                    assert_eq!((theirs, mine), (seed, ours), "{why}");
                }
            }
            assert_eq!(ours.len(), seed.len(), "{}", text(&out));
            assert_eq!(deviations.next(), None);
        }
    }
}

/// The published dumps have lost line breaks: refused or rewritten, but never a panic.
#[test]
fn the_seeds_raw_dumps_are_survived() {
    for raw in [
        &include_bytes!("../../../../tests/data/seed/raw/1-sip-to-webrtc-offer.in.txt")[..],
        include_bytes!("../../../../tests/data/seed/raw/1-sip-to-webrtc-offer.out.txt"),
        include_bytes!("../../../../tests/data/seed/raw/2-webrtc-to-sip-answer.in.txt"),
        include_bytes!("../../../../tests/data/seed/raw/2-webrtc-to-sip-answer.out.txt"),
        include_bytes!("../../../../tests/data/seed/raw/3-webrtc-to-sip-offer.in.txt"),
        include_bytes!("../../../../tests/data/seed/raw/3-webrtc-to-sip-offer.out.txt"),
        include_bytes!("../../../../tests/data/seed/raw/4-sip-to-webrtc-answer.in.txt"),
        include_bytes!("../../../../tests/data/seed/raw/4-sip-to-webrtc-answer.out.txt"),
    ] {
        let raw = String::from_utf8(raw.to_vec()).unwrap();
        let start = raw.find("v=0").unwrap();
        let end = raw[start..].find('"').unwrap() + start;
        let lines: Vec<&str> =
            raw[start..end].lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        for joined in [lines.join("\r\n"), lines.join("\n"), raw[start..end].to_owned()] {
            for flags in [flags(TO_SIP), flags(TO_WEBRTC)] {
                let mut memory = Memory::default();
                let _ = offer(joined.as_bytes(), &flags, &mut memory, &mut Pinned::at(10000));
                let _ = answer(joined.as_bytes(), &flags, &mut memory, &mut Pinned::at(10000));
            }
        }
    }
}

/// As Chromium offers audio in 2026.
const CHROME: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
a=extmap-allow-mixed\r\na=msid-semantic: WMS aaaa\r\nm=audio 50001 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n\
c=IN IP4 203.0.113.20\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
a=candidate:1 1 udp 2122260223 203.0.113.20 50001 typ host generation 0 network-id 1\r\n\
a=candidate:2 1 tcp 1518280447 203.0.113.20 9 typ host tcptype active generation 0\r\n\
a=ice-ufrag:Ab1/\r\na=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa\r\na=ice-options:trickle\r\n\
a=fingerprint:sha-256 7E:E1:B4:05:57:E8:84:98:59:A7:80:19:61:D8:C1:12:E3:55:B9:D9:EB:E1:AA:8F:D5:4E:A9:DE:25:23:C9:53\r\n\
a=setup:actpass\r\na=mid:0\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=sendrecv\r\n\
a=msid:aaaa bbbb\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n\
a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\n\
a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
a=rtpmap:126 telephone-event/8000\r\na=ssrc:598828615 cname:XXVSBOK9mWpJCaF7\r\na=ssrc:598828615 msid:aaaa bbbb\r\n";

/// As baresip answers.
const BARESIP: &str = "v=0\r\no=- 3724394400 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
a=tool:baresip 1.0.0\r\nm=audio 20002 RTP/AVP 0 8 126\r\nb=AS:125\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:126 telephone-event/8000\r\na=fmtp:126 0-15\r\na=rtcp:20003\r\na=sendrecv\r\na=label:1\r\na=ptime:20\r\n";

#[test]
fn a_browser_calls_a_phone() {
    let (to_sip, to_webrtc) =
        (flags(TO_SIP), flags(r#"{"ICE":"force","DTLS":"passive","replace":["origin"]}"#));
    let mut memory = Memory::default();
    let mut supply = Pinned::at(20000);
    let out = offer(CHROME.as_bytes(), &to_sip, &mut memory, &mut supply).unwrap();
    assert_eq!(
        text(&out),
        "v=0\r\no=- 4611731400430051336 2 IN IP4 198.51.100.1\r\ns=-\r\nt=0 0\r\n\
         m=audio 20000 RTP/AVP 111 9 0 8 13 110 126\r\nc=IN IP4 198.51.100.1\r\na=mid:0\r\n\
         a=rtpmap:111 opus/48000/2\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
         a=rtpmap:126 telephone-event/8000\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
         a=sendrecv\r\na=rtcp:20001\r\n"
    );
    let [(Side::Answerer, plan)] = legs(&out.media[0]) else { panic!("{:?}", out.media) };
    assert_eq!((plan.remote_rtp, &plan.ice, &plan.security), (None, &None, &Security::None));
    assert_eq!(plan.payloads.len(), 8);

    let out = answer(BARESIP.as_bytes(), &to_webrtc, &mut memory, &mut supply).unwrap();
    assert_eq!(
        text(&out),
        "v=0\r\no=- 3724394400 1 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 198.51.100.1\r\nt=0 0\r\na=tool:baresip 1.0.0\r\n\
         m=audio 20002 UDP/TLS/RTP/SAVPF 0 8 126\r\nb=AS:125\r\na=label:1\r\na=ptime:20\r\n\
         a=mid:0\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:126 telephone-event/8000\r\n\
         a=fmtp:126 0-15\r\na=sendrecv\r\na=rtcp:20002\r\na=rtcp-mux\r\na=setup:passive\r\n"
            .to_owned()
            + &format!("a=fingerprint:sha-256 {DIGEST}\r\n")
            + "a=ice-ufrag:ufrg\r\na=ice-pwd:passwordpasswordpassword\r\na=ice-options:trickle\r\n\
               a=candidate:KJ7F9EsxS4CtrMjN 1 UDP 2130706431 198.51.100.1 20002 typ host\r\na=end-of-candidates\r\n"
    );
    let [(Side::Answerer, phone), (Side::Offerer, browser)] = legs(&out.media[0]) else {
        panic!("{:?}", out.media)
    };
    assert_eq!(phone.remote_rtp, Some("192.0.2.10:20002".parse().unwrap()));
    assert_eq!(phone.remote_rtcp, Some("192.0.2.10:20003".parse().unwrap()));
    assert!(!phone.rtcp_mux && !phone.feedback && phone.learning == Learning::Immediate);
    assert!(browser.rtcp_mux && browser.feedback);
    let ice = browser.ice.as_ref().unwrap();
    assert!(!ice.controlling);
    assert_eq!(ice.local_candidates, ["10.0.0.1:20002".parse().unwrap()]);
    assert_eq!(ice.remote.as_ref().unwrap().candidates.len(), 2);
    let Security::Dtls(dtls) = &browser.security else { panic!("{:?}", browser.security) };
    assert_eq!((dtls.role, dtls.fingerprints.len()), (DtlsRole::Passive, 1));
}

#[test]
fn a_phone_calls_a_browser() {
    let (to_webrtc, to_sip) = (flags(TO_WEBRTC), flags(TO_SIP));
    for (setup, role) in
        [("active", DtlsRole::Passive), ("passive", DtlsRole::Active), ("actpass", DtlsRole::Passive)]
    {
        let mut memory = Memory::default();
        let mut supply = Pinned::at(20000);
        let out = offer(BARESIP.as_bytes(), &to_webrtc, &mut memory, &mut supply).unwrap();
        assert!(text(&out).contains("a=setup:actpass\r\n"));
        let [(Side::Answerer, browser)] = legs(&out.media[0]) else { panic!() };
        assert!(browser.ice.as_ref().unwrap().controlling);
        let ice = browser.ice.as_ref().unwrap();
        assert_eq!((ice.local_candidates.len(), ice.local_rtcp.len()), (1, 1));
        let Security::Dtls(dtls) = &browser.security else { panic!() };
        assert_eq!((dtls.role, dtls.fingerprints.len()), (DtlsRole::Passive, 0));

        let theirs = CHROME.replace("setup:actpass", &format!("setup:{setup}"));
        let out = answer(theirs.as_bytes(), &to_sip, &mut memory, &mut supply).unwrap();
        assert!(text(&out).contains("m=audio 20002 RTP/AVP "), "{}", text(&out));
        assert!(!text(&out).contains("a=mid:"));
        let [(Side::Answerer, browser), (Side::Offerer, phone)] = legs(&out.media[0]) else { panic!() };
        let Security::Dtls(dtls) = &browser.security else { panic!() };
        assert_eq!(dtls.role, role, "{setup}");
        assert!(browser.rtcp_mux && browser.ice.as_ref().unwrap().controlling);
        assert!(browser.ice.as_ref().unwrap().local_rtcp.is_empty());
        assert!(phone.ice.is_none() && phone.security == Security::None);
    }
}

#[test]
fn a_later_offer_keeps_ports_secrets_and_roles() {
    let (to_webrtc, to_sip) = (flags(TO_WEBRTC), flags(TO_SIP));
    let mut memory = Memory::default();
    let mut supply = Pinned::at(20000);
    offer(BARESIP.as_bytes(), &to_webrtc, &mut memory, &mut supply).unwrap();
    let passive = CHROME.replace("setup:actpass", "setup:passive");
    let first = answer(passive.as_bytes(), &to_sip, &mut memory, &mut supply).unwrap();
    assert_eq!(supply.asked.len(), 2);

    // The browser holds: it offers, we answer with the role that we have.
    let hold = CHROME.replace("a=sendrecv", "a=sendonly");
    let input = Input {
        sdp: hold.as_bytes(),
        kind: Kind::Offer,
        sender: Side::Answerer,
        flags: &to_sip,
        cuts: false,
    };
    let out = rewrite(&input, &mut memory, &mut supply).unwrap();
    assert!(text(&out).contains("m=audio 20002 RTP/AVP ") && text(&out).contains("a=sendonly\r\n"));
    assert_eq!(legs(&out.media[0]), []);
    let held = BARESIP.replace("a=sendrecv", "a=recvonly");
    let input = Input {
        sdp: held.as_bytes(),
        kind: Kind::Answer,
        sender: Side::Offerer,
        flags: &to_webrtc,
        cuts: false,
    };
    let out = rewrite(&input, &mut memory, &mut supply).unwrap();
    assert!(text(&out).contains("a=setup:active\r\n"), "{}", text(&out));
    assert!(text(&out).contains("m=audio 20000 RTP/SAVPF ") && text(&out).contains("a=recvonly\r\n"));
    assert!(text(&out).contains("a=ice-ufrag:ufrg\r\n"));
    let leg = |rewritten: &Rewritten, wanted: Side| {
        legs(&rewritten.media[0]).iter().find(|(side, _)| *side == wanted).unwrap().1.clone()
    };
    let (before, after) = (leg(&first, Side::Answerer), leg(&out, Side::Answerer));
    assert_eq!((&before.ice, &before.security), (&after.ice, &after.security));
    assert!(!after.peer_receives && after.peer_sends);
    assert_eq!(supply.asked.len(), 2);

    // It restarts ICE: our credentials on that leg are new, the phone's leg does not notice.
    supply.ice = vec![("newu", "newpasswordnewpasswordnew")];
    let restart = CHROME.replace("Ab1/", "Zz9/");
    let input = Input {
        sdp: restart.as_bytes(),
        kind: Kind::Offer,
        sender: Side::Answerer,
        flags: &to_sip,
        cuts: false,
    };
    rewrite(&input, &mut memory, &mut supply).unwrap();
    let input = Input {
        sdp: BARESIP.as_bytes(),
        kind: Kind::Answer,
        sender: Side::Offerer,
        flags: &to_webrtc,
        cuts: false,
    };
    let out = rewrite(&input, &mut memory, &mut supply).unwrap();
    assert!(text(&out).contains("a=ice-ufrag:newu\r\n"));
    assert_eq!(leg(&out, Side::Answerer).ice.unwrap().remote.unwrap().ufrag, "Zz9/");
    assert_eq!(leg(&out, Side::Answerer).security, after.security);
}

#[test]
fn refused_media_keeps_its_place() {
    let (to_webrtc, to_sip) = (flags(TO_WEBRTC), flags(TO_SIP));
    let two = CHROME.to_owned()
        + "m=video 50001 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 203.0.113.20\r\na=rtcp-mux\r\na=mid:1\r\na=setup:actpass\r\n\
           a=ice-ufrag:Ab1/\r\na=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa\r\na=rtpmap:96 VP8/90000\r\na=fingerprint:sha-256 "
        + DIGEST
        + "\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctp-port:5000\r\n";
    let mut memory = Memory::default();
    let mut supply = Pinned::at(20000);
    let out = offer(two.as_bytes(), &to_sip, &mut memory, &mut supply).unwrap();
    assert!(text(&out).contains("m=video 20002 RTP/AVP 96\r\n"), "{}", text(&out));
    assert!(text(&out).contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
    assert!(matches!(out.media[2], Outcome::Rejected));

    // The phone refuses video, and does not even list the third.
    let one = BARESIP.to_owned() + "m=video 0 RTP/AVP 96\r\n";
    let out = answer(one.as_bytes(), &to_webrtc, &mut memory, &mut supply).unwrap();
    assert!(
        text(&out).contains("m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4")
            || text(&out).contains("m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n"),
        "{}",
        text(&out)
    );
    assert!(
        text(&out)
            .ends_with("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\n")
    );
    assert!(matches!(&out.media[..], [Outcome::Legs(_), Outcome::Rejected, Outcome::Rejected]));

    let more = one + "m=audio 9 RTP/AVP 0\r\nm=audio 9 RTP/AVP 0\r\n";
    let refused = answer(more.as_bytes(), &to_webrtc, &mut memory.clone(), &mut supply);
    assert_eq!(refused, Err(Refusal::MoreMedia { offered: 3 }));
    // Nor has an answer any where its offer had none; one whose offer nobody has seen is taken as it is.
    let (none, one) =
        ("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n", BARESIP.as_bytes());
    let mut empty = Memory::default();
    offer(none.as_bytes(), &to_sip, &mut empty, &mut supply).unwrap();
    assert_eq!(answer(one, &to_sip, &mut empty, &mut supply), Err(Refusal::MoreMedia { offered: 0 }));
    assert!(answer(one, &to_sip, &mut Memory::default(), &mut supply).is_ok());
}

/// `a=ice-lite` is the session's, stays for later offers, and goes with new credentials; a full peer has the lead.
#[test]
fn a_lite_agent() {
    let lite = |value: &str| flags(&TO_WEBRTC.replacen('{', &format!(r#"{{"ICE-lite":"{value}","#), 1));
    let ice = |out: &Rewritten| legs(&out.media[0]).last().and_then(|(_, leg)| leg.ice.clone()).expect("ICE");
    let (mut memory, mut supply) = (Memory::default(), Pinned::at(20000));
    supply.ice = vec![("full", "passwordpasswordpassword"), ("lite", "passwordpasswordpassword")];
    let out = offer(BARESIP.as_bytes(), &lite("forward"), &mut memory, &mut supply).unwrap();
    let session = text(&out).split("m=").next().unwrap();
    assert!(
        session.ends_with("a=ice-lite\r\n") && text(&out).matches("ice-lite").count() == 1,
        "{}",
        text(&out)
    );
    assert!(text(&out).contains("a=ice-ufrag:lite\r\n"));
    assert!(ice(&out).lite && !ice(&out).controlling, "the other is a full one (RFC 8445 §6.1.1)");
    // The phone has no ICE, and nothing of it in the answer.
    let out = answer(CHROME.as_bytes(), &flags(TO_SIP), &mut memory, &mut supply).unwrap();
    assert!(!text(&out).contains("ice-lite"));
    let out = offer(BARESIP.as_bytes(), &flags(TO_WEBRTC), &mut memory, &mut supply).unwrap();
    assert!(text(&out).contains("a=ice-lite\r\n") && text(&out).contains("a=ice-ufrag:lite\r\n"));
    let out = offer(BARESIP.as_bytes(), &lite("off"), &mut memory, &mut supply).unwrap();
    assert!(!text(&out).contains("a=ice-lite\r\n") && text(&out).contains("a=ice-ufrag:full\r\n"));

    // Toward who offers: in the answer. Another lite agent leaves the lead to who offered.
    let (mut memory, mut supply) = (Memory::default(), Pinned::at(20000));
    let offered = CHROME.replacen("a=group", "a=ice-lite\r\na=group", 1);
    let to_sip = flags(&TO_SIP.replacen('{', r#"{"ICE-lite":"backward","#, 1));
    let out = offer(offered.as_bytes(), &to_sip, &mut memory, &mut supply).unwrap();
    assert!(!text(&out).contains("ice-lite"), "{}", text(&out));
    let out = answer(BARESIP.as_bytes(), &flags(TO_WEBRTC), &mut memory, &mut supply).unwrap();
    assert!(text(&out).contains("a=ice-lite\r\n"), "{}", text(&out));
    assert!(ice(&out).lite);
}

#[test]
fn an_address_of_zeros_is_a_hold() {
    let zeros = BARESIP.replace("c=IN IP4 192.0.2.10", "c=IN IP4 0.0.0.0");
    let mut memory = Memory::default();
    let out = offer(zeros.as_bytes(), &flags(TO_WEBRTC), &mut memory, &mut Pinned::at(20000)).unwrap();
    assert!(text(&out).contains("a=sendonly\r\n") && !text(&out).contains("0.0.0.0"), "{}", text(&out));
    let said = memory.side(0, Side::Offerer).unwrap().said.as_ref().unwrap();
    assert_eq!((said.rtp, said.direction), (None, Direction::SendOnly));
}

#[test]
fn keys_in_the_sdp() {
    let key = "inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    let crypto = |tag| format!("a=crypto:{tag} AES_CM_128_HMAC_SHA1_80 {key}|2^31\r\n");
    let phone = BARESIP.replace("RTP/AVP", "RTP/SAVP")
        + "a=crypto:1 F8_128_HMAC_SHA1_80 inline:AA==\r\n"
        + &crypto(2);
    let to_plain = flags(r#"{"transport-protocol":"RTP/AVP","replace":["session-connection"]}"#);
    let back = flags(r#"{"replace":["session-connection"]}"#);
    let mut memory = Memory::default();
    let mut supply = Pinned::at(20000);
    let out = offer(phone.as_bytes(), &to_plain, &mut memory, &mut supply).unwrap();
    assert!(!text(&out).contains("crypto"));
    let out = answer(BARESIP.as_bytes(), &back, &mut memory, &mut supply).unwrap();
    assert!(text(&out).contains("m=audio 20002 RTP/SAVP "));
    assert!(text(&out).contains("a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:BwcH"), "{}", text(&out));
    let (_, leg) = legs(&out.media[0]).iter().find(|(side, _)| *side == Side::Offerer).unwrap();
    let Security::Sdes(sdes) = &leg.security else { panic!() };
    assert_eq!((&sdes.local_key, sdes.remote_key.len()), (&vec![7; 30], 30));

    // A key and a fingerprint never stand together.
    let out = offer(phone.as_bytes(), &flags(TO_WEBRTC), &mut Memory::default(), &mut supply).unwrap();
    assert!(text(&out).contains("a=fingerprint:") && !text(&out).contains("a=crypto:"));
}

#[test]
fn what_cannot_be_bridged_is_refused() {
    let (to_webrtc, to_sip) = (flags(TO_WEBRTC), flags(TO_SIP));
    let mut supply = Pinned::at(20000);
    for junk in [&b""[..], b"hello", b"v=0\r\nm=audio\r\n"] {
        assert!(matches!(offer(junk, &to_sip, &mut Memory::default(), &mut supply), Err(Refusal::Sdp(_))));
    }
    let mut memory = Memory::default();
    offer(BARESIP.as_bytes(), &to_webrtc, &mut memory, &mut supply).unwrap();
    let before = memory.clone();
    let bare = CHROME.replace("a=fingerprint:", "a=x-fingerprint:");
    let refused = answer(bare.as_bytes(), &to_sip, &mut memory, &mut supply);
    assert_eq!(refused, Err(Refusal::NoFingerprint { media: 0 }));
    assert_eq!(memory, before);
    let no_keys = flags(r#"{"transport-protocol":"RTP/SAVPF","DTLS":"off","SDES":["off"]}"#);
    let refused = offer(BARESIP.as_bytes(), &no_keys, &mut Memory::default(), &mut supply);
    assert_eq!(refused, Err(Refusal::NoKeys { media: 0 }));

    // A dozen keys for each m-line would make of this more than anybody reads.
    let many = format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{}",
        "m=audio 9000 RTP/AVP 0\r\n".repeat(limits::SDP_MEDIA)
    );
    let keys = flags(r#"{"transport-protocol":"RTP/SAVP","DTLS":"off","ICE":"remove"}"#);
    let mut memory = Memory::default();
    let refused = offer(many.as_bytes(), &keys, &mut memory, &mut supply);
    assert_eq!(refused, Err(Refusal::TooLong));
    assert_eq!(memory, Memory::default());
}

/// Without rtcp-mux, RTCP has an agent and a handshake of its own, on its own port.
#[test]
fn two_components() {
    let no_mux = CHROME.replace("a=rtcp-mux\r\n", "");
    let (mut memory, mut supply) = (Memory::default(), Pinned::at(20000));
    offer(no_mux.as_bytes(), &flags(TO_SIP), &mut memory, &mut supply).unwrap();
    let out = answer(BARESIP.as_bytes(), &flags(TO_WEBRTC), &mut memory, &mut supply).unwrap();
    assert!(!text(&out).contains("a=rtcp-mux") && text(&out).contains("a=rtcp:20003\r\n"), "{}", text(&out));
    assert!(text(&out).contains(" 1 UDP 2130706431 198.51.100.1 20002 typ host"), "{}", text(&out));
    assert!(text(&out).contains(" 2 UDP 2130706430 198.51.100.1 20003 typ host"), "{}", text(&out));
    let (_, leg) = legs(&out.media[0]).iter().find(|(side, _)| *side == Side::Offerer).unwrap();
    let ice = leg.ice.as_ref().unwrap();
    assert_eq!((ice.local_candidates.len(), ice.local_rtcp.len(), leg.rtcp_mux), (1, 1, false));
    assert!(matches!(leg.security, Security::Dtls(_)));
}

/// The seed's Chrome offer, as a phone gets it: room for what a SIP message needs besides, in one datagram.
#[test]
fn a_phones_offer_is_small() {
    let out =
        offer(CHROME.as_bytes(), &flags(TO_SIP), &mut Memory::default(), &mut Pinned::at(20000)).unwrap();
    assert!(out.sdp.len() < 450, "{}:\n{}", out.sdp.len(), text(&out));
    assert!(out.cut.iter().any(|cut| cut.text.starts_with("a=ssrc:")), "{:?}", out.cut);
}

#[test]
fn flags_of_address_and_rtcp() {
    let with = |more: &str| flags(&format!("{{\"replace\":[\"origin\",\"session-connection\"],{more}}}"));
    let sdp = |flags: &Flags| {
        let mut supply = Pinned::at(20000);
        let out = offer(BARESIP.as_bytes(), flags, &mut Memory::default(), &mut supply).unwrap();
        (text(&out).to_owned(), supply.asked)
    };
    let (v6, asked) = sdp(&with(r#""address-family":"IP6","direction":["in","out"]"#));
    assert!(v6.contains("c=IN IP6 2001:db8::1\r\n") && v6.contains("1 IN IP6 2001:db8::1\r\n"), "{v6}");
    let want = Want { family: Some(Family::V6), interface: Some("out".to_owned()), beside: None };
    assert_eq!(asked, [(0, Side::Answerer, want)]);
    let natural = Want { family: Some(Family::V4), interface: None, beside: None };
    assert_eq!(sdp(&with(r#""flags":[]"#)).1, [(0, Side::Answerer, natural)]);
    assert!(sdp(&with(r#""media-address":"203.0.113.99""#)).0.contains("c=IN IP4 203.0.113.99\r\n"));
    assert!(!sdp(&with(r#""flags":["no-rtcp-attribute"]"#)).0.contains("a=rtcp:"));
    let full = sdp(&with(r#""flags":["full-rtcp-attribute"]"#)).0;
    assert!(full.contains("a=rtcp:20001 IN IP4 198.51.100.1\r\n"));
    let require = sdp(&with(r#""ICE":"force","rtcp-mux":["require"]"#)).0;
    assert!(require.contains("a=rtcp:20000\r\na=rtcp-mux\r\n") && !require.contains(" 2 UDP"), "{require}");

    let source = with(r#""flags":["SIP-source-address"],"received-from":["IP4","203.0.113.77"]"#);
    let mut memory = Memory::default();
    offer(BARESIP.as_bytes(), &source, &mut memory, &mut Pinned::at(20000)).unwrap();
    let said = memory.side(0, Side::Offerer).unwrap().said.as_ref().unwrap();
    assert_eq!(said.rtp, Some("203.0.113.77:20002".parse().unwrap()));

    // A phone behind a NAT, unless the request vouches for its address.
    let natted = BARESIP.replace("192.0.2.10", "10.1.2.3");
    for (more, expected) in [("\"x\"", "203.0.113.77:20002"), ("\"trust-address\"", "10.1.2.3:20002")] {
        let flags = with(&format!(r#""flags":[{more}],"received-from":["IP4","203.0.113.77"]"#));
        let mut memory = Memory::default();
        offer(natted.as_bytes(), &flags, &mut memory, &mut Pinned::at(20000)).unwrap();
        let said = memory.side(0, Side::Offerer).unwrap().said.as_ref().unwrap();
        assert_eq!(said.rtp, Some(expected.parse().unwrap()));
    }
}

/// What others recorded, as an offer both ways and as an answer: refused with a reason, or as many m-lines come out, each
/// with an address of the relay or refused, and nothing of the sender's transport left.
#[test]
fn the_corpus_both_ways() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus/sdp");
    let Ok(files) = std::fs::read_dir(root) else {
        eprintln!("SKIPPED: {root} is not there");
        return;
    };
    let (mut passed, mut refused) = (0, 0);
    for path in
        files.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "sdp"))
    {
        let data = std::fs::read(&path).unwrap();
        let Ok(before) = Sdp::parse(&data) else { continue };
        for (to, secure) in [(TO_WEBRTC, true), (TO_SIP, false)] {
            let flags = flags(to);
            let mut memory = Memory::default();
            let mut supply = Pinned::at(20000);
            let out = match offer(&data, &flags, &mut memory, &mut supply) {
                Ok(out) => out,
                Err(Refusal::NoKeys { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(other) => panic!("{}: {other}", path.display()),
            };
            passed += 1;
            let after = Sdp::parse(&out.sdp).unwrap();
            assert_eq!(after.media_count(), before.media_count(), "{}", path.display());
            for (section, old) in after.medias().zip(before.medias()) {
                let (m, before) = (section.media().unwrap(), old.media().unwrap());
                assert_eq!(m.media, before.media, "{}", path.display());
                let theirs: Vec<&str> = before.formats.split_ascii_whitespace().collect();
                let kept: Vec<&str> = m.formats.split_ascii_whitespace().collect();
                assert!(kept.iter().all(|format| theirs.contains(format)), "{}", path.display());
                // Only what goes to a phone loses any.
                assert!(!kept.is_empty() && (!secure || kept == theirs), "{}", path.display());
                if m.port == 0 {
                    continue;
                }
                // What is no RTP goes from peer to peer, or not at all.
                if m.profile().is_none() {
                    assert_eq!((m, m.protocol.contains("SCTP")), (before, false), "{}", path.display());
                    continue;
                }
                assert!(m.port >= 20000, "{}", path.display());
                let ours = section.connection().or(after.session().connection()).unwrap();
                let own = if ours.address_type == "IP6" { "2001:db8::1" } else { RELAY };
                assert_eq!(ours.address, own, "{}", path.display());
                assert!(section.candidates().all(|candidate| candidate.address == own));
                assert_eq!(section.candidates().count(), if secure { 2 } else { 0 });
                assert_eq!(section.fingerprints().count(), usize::from(secure));
                assert_eq!(section.cryptos().count(), 0);
                let told = |format: &str| kept.contains(&format);
                let maps = old.all("rtpmap").filter(|map| map.split(' ').next().is_some_and(told)).count();
                assert!(section.all("rtpmap").count() >= maps, "{}", path.display());
            }
            let _ = answer(&data, &flags, &mut memory, &mut supply);
        }
    }
    assert!(passed > 60 && refused > 5, "{passed} passed, {refused} refused");
}

proptest! {
    /// Whatever lines a peer leaves out, doubles or turns: no panic, and what comes out is an SDP with as many m-lines.
    #[test]
    fn any_order_of_lines(picks in proptest::collection::vec((any::<bool>(), 0..60usize), 0..60), webrtc in any::<bool>()) {
        let chrome: Vec<&str> = CHROME.split_terminator("\r\n").collect();
        let phone: Vec<&str> = BARESIP.split_terminator("\r\n").collect();
        let mut sdp = String::from("v=0\r\n");
        for (which, at) in picks {
            let lines = if which { &chrome } else { &phone };
            let line = lines[at % lines.len()];
            sdp.push_str(if line == "v=0" { "a=x" } else { line });
            sdp.push_str("\r\n");
        }
        let flags = flags(if webrtc { TO_WEBRTC } else { TO_SIP });
        let mut memory = Memory::default();
        let mut supply = Pinned::at(20000);
        if let Ok(out) = offer(sdp.as_bytes(), &flags, &mut memory, &mut supply) {
            let (before, after) = (Sdp::parse(sdp.as_bytes()).unwrap(), Sdp::parse(&out.sdp).unwrap());
            prop_assert_eq!(before.media_count(), after.media_count());
        }
        if let Ok(out) = answer(sdp.as_bytes(), &flags, &mut memory, &mut supply) {
            prop_assert!(Sdp::parse(&out.sdp).is_ok());
        }
    }
}
