//! Nothing of the original is left, the structure is, and the same stays the same.

use super::Anonymiser;
use crate::rng::Rng;
use crate::sdp::Sdp;
use crate::sip::Message;
use proptest::prelude::*;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

const SDP: &str = "v=0\r\no=carol 3724394400 3724394405 IN IP4 10.20.30.40\r\ns=Carol's call\r\ni=-\r\n\
u=http://www.biloxi.test/carol\r\ne=carol@biloxi.test (Carol)\r\np=+44 171 380 7777\r\nc=IN IP4 8.8.4.4\r\nt=0 0\r\n\
a=tool:phone 1.2\r\na=X-secret:device0815x at 9.9.9.9 and host.biloxi.test, carol@biloxi.test\r\n\
m=audio 4000 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP6 2a02:810:1:2::3\r\na=rtcp:4001 IN IP6 2a02:810:1:2::3\r\n\
a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10\r\na=ice-ufrag:uFr4g\r\na=ice-pwd:passwordpasswordpass12\r\n\
a=candidate:H1a2b3 1 UDP 2130706431 192.168.7.9 4000 typ host generation 0 ufrag uFr4g\r\n\
a=candidate:2 1 UDP 1694498815 8.8.4.4 4000 typ srflx raddr 192.168.7.9 rport 4000\r\n\
a=candidate:3 1 UDP 1 1c2d3e4f-aaaa-bbbb-cccc-123456789abc.local 4000 typ host\r\n\
a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
a=setup:actpass\r\na=mid:0\r\na=rtcp-mux\r\na=msid:stream77 track88\r\na=ssrc:3735928559 cname:cName9x\r\n\
a=ssrc:3735928559 msid:stream77 track88\r\na=ssrc-group:FID 3735928559 12345\r\n\
m=audio 4002 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw|2^20|1:4\r\n";

const INVITE: &str = "INVITE sip:dave@biloxi.test;transport=udp SIP/2.0\r\n\
Via: SIP/2.0/UDP 10.20.30.40:5060;branch=z9hG4bKabc123;rport=5060;received=8.8.4.4, SIP/2.0/UDP host.biloxi.test;branch=z9hG4bKdef456\r\n\
Record-Route: <sip:8.8.4.4;lr;ftag=tagA1;did=f00.1234>\r\nMax-Forwards: 70\r\n\
From: \"Carol Q\" <sip:carol@biloxi.test>;tag=tagA1\r\nTo: Dave <tel:+491701234567>\r\nCall-ID: cafe0815babe@10.20.30.40\r\n\
CSeq: 1 INVITE\r\nContact: <sip:carol@10.20.30.40:5060;ob>;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"\r\n\
Authorization: Digest username=\"carol\", realm=\"biloxi.test\", nonce=\"n0nc3n0nc3\", uri=\"sip:dave@biloxi.test\", response=\"6629fae49393a05397450978507c4ef1\", algorithm=MD5\r\n\
P-Asserted-Identity: \"Carol, Q\" <sip:carol@biloxi.test>\r\nUser-Agent: Phone/1.0\r\nX-Custom: from 8.8.4.4 sip:carol@biloxi.test\r\n\
Content-Type: application/sdp\r\nContent-Length: LENGTH\r\n\r\n";

fn anonymiser(seed: u64) -> Anonymiser {
    Anonymiser::new(&mut Rng::from_seed(seed))
}

fn sdp(anonymiser: &mut Anonymiser, text: &str) -> String {
    let mut out = Vec::new();
    anonymiser.sdp(text.as_bytes(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn sip(anonymiser: &mut Anonymiser, text: &str) -> String {
    let mut out = Vec::new();
    anonymiser.sip(&Message::parse(text.as_bytes()).unwrap(), &mut out);
    String::from_utf8(out).unwrap()
}

fn invite() -> String {
    INVITE.replace("LENGTH", &SDP.len().to_string()) + SDP
}

/// What names somebody in the texts above.
const PRIVATE: [&str; 30] = [
    "carol",
    "Carol",
    "dave",
    "Dave",
    "biloxi",
    "10.20.30.40",
    "8.8.4.4",
    "9.9.9.9",
    "192.168.7.9",
    "2a02",
    "372439440",
    "380 7777",
    "uFr4g",
    "passwordpass",
    "H1a2b3",
    "1c2d3e4f",
    "D2:FA",
    "MTIzNDU2",
    "stream77",
    "track88",
    "3735928559",
    " 12345",
    "cName9x",
    "device0815x",
    "tagA1",
    "abc123",
    "cafe0815",
    "1701234567",
    "000A95A0E128",
    "n0nc3",
];

#[test]
fn nothing_of_the_original_is_left() {
    let out = sip(&mut anonymiser(1), &invite());
    for private in PRIVATE {
        assert!(invite().contains(private), "{private} is in the original");
        assert!(!out.contains(private), "{private} is left in\n{out}");
    }
    assert!(!out.contains("6629fae"));
}

#[test]
fn the_structure_is_kept() {
    let out = sdp(&mut anonymiser(1), SDP);
    let (before, after) = (Sdp::parse(SDP.as_bytes()).unwrap(), Sdp::parse(out.as_bytes()).unwrap());
    assert_eq!(before.lines().len(), after.lines().len());
    for (old, new) in before.lines().iter().zip(after.lines()) {
        assert_eq!(old.kind, new.kind);
        assert_eq!(old.attribute().map(|(name, _)| name), new.attribute().map(|(name, _)| name));
    }
    for kept in [
        "a=rtpmap:111 opus/48000/2\r\n",
        "a=fmtp:111 minptime=10\r\n",
        "m=audio 4000 UDP/TLS/RTP/SAVPF 111 0\r\n",
        "a=mid:0\r\n",
        "a=tool:phone 1.2\r\n",
        "a=setup:actpass\r\n",
        " typ srflx raddr 192.168.",
        "inline:",
        "|2^20|1:4\r\n",
        ".local 4000 typ host\r\n",
        "c=IN IP6 2001:db8:",
        "a=rtcp:4001 IN IP6 2001:db8:",
    ] {
        assert!(out.contains(kept), "{kept} is not in\n{out}");
    }
    let context = crate::check::Context::default();
    let rules = |text: &str| {
        let findings = crate::check::check(text.as_bytes(), &context).into_iter();
        findings.map(|finding| (finding.line, finding.rule)).collect::<Vec<_>>()
    };
    assert_eq!(rules(SDP), rules(&out));
    // A version stays as far from the number as it was.
    let origin = after.session().origin().unwrap();
    let distance = |id: &str, version: &str| version.parse::<u64>().unwrap() - id.parse::<u64>().unwrap();
    assert_eq!(distance(origin.session_id, origin.session_version), 5);
    assert!(origin.address.starts_with("10."));

    let text = sip(&mut anonymiser(1), &invite());
    let message = Message::parse(text.as_bytes()).unwrap();
    message.check().unwrap();
    assert_eq!(message.content_length(), Some(message.body().len()));
    assert_eq!(message.all_headers().count(), INVITE.lines().count() - 2);
    assert!(
        text.contains("branch=z9hG4bK")
            && text.contains("algorithm=MD5")
            && text.contains("User-Agent: Phone/1.0")
    );
    assert!(text.contains(";transport=udp SIP/2.0\r\n") && text.contains(";lr;ftag="));
}

#[test]
fn the_same_stays_the_same() {
    let mut one = anonymiser(7);
    let text = sip(&mut one, &invite());
    let message = Message::parse(text.as_bytes()).unwrap();
    let body = std::str::from_utf8(message.body()).unwrap();
    // Across headers and body, across messages, and across runs of one seed.
    let tag = std::str::from_utf8(message.from_tag().unwrap()).unwrap();
    assert!(text.contains(&format!("ftag={tag};")));
    let address = Sdp::parse(body.as_bytes()).unwrap().session().connection().unwrap().address.to_owned();
    assert!(
        text.contains(&format!("received={address},"))
            && text.contains(&format!("X-Custom: from {address} "))
    );
    assert!(body.contains(&format!(" {address} 4000 typ srflx")));
    assert_eq!(body, sdp(&mut one, SDP));
    assert_eq!(text, sip(&mut anonymiser(7), &invite()));
    assert_ne!(text, sip(&mut anonymiser(8), &invite()));
    let fragment = body.split("a=ice-ufrag:").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!(body.contains(&format!("ufrag {fragment}\r\n")));
    assert_eq!(one.field("from-tag", "tagA1"), tag);
}

#[test]
fn addresses_stay_of_their_kind_and_apart() {
    let mut one = anonymiser(3);
    let mut seen = HashSet::new();
    for host in 0..2000_u32 {
        let public = Ipv4Addr::from(0x5000_0000 + host * 77);
        let IpAddr::V4(new) = one.address(public.into()) else { panic!() };
        let documented = matches!(new.octets(), [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _]);
        assert!(documented || matches!(new.octets(), [198, 18 | 19, ..]), "{new}");
        assert!(documented || host >= 762, "{host}");
        assert!(seen.insert(new), "{new} twice");
        let private = Ipv4Addr::from(0x0a00_0000 + host);
        let IpAddr::V4(new) = one.address(private.into()) else { panic!() };
        assert!(new.octets()[0] == 10 && seen.insert(new));
    }
    for (address, start) in [
        ("172.20.1.2", "172."),
        ("192.168.1.2", "192.168."),
        ("169.254.1.2", "169.254."),
        ("100.70.1.2", "100."),
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("239.1.2.3", "233.252.0."),
        ("fd12::1", "fd"),
        ("fe80::1", "fe80::"),
        ("::1", "::1"),
        ("2620::1", "2001:db8:"),
        ("ff0e::7", "ff0e:"),
        ("::ffff:8.8.8.8", "::ffff:"),
    ] {
        let new = one.address(address.parse().unwrap()).to_string();
        assert!(new.starts_with(start), "{address}: {new}");
    }
    let [_, second, ..] = "172.20.1.2".parse::<Ipv4Addr>().map(|a| one.v4(a).octets()).unwrap();
    assert!((16..32).contains(&second));
}

#[test]
fn numbers_of_one_length_stay_apart() {
    let one = anonymiser(5);
    let all: HashSet<String> = (0..1000).map(|n| one.user(&format!("{n:03}"))).collect();
    assert_eq!(all.len(), 1000);
    assert!(all.iter().all(|user| user.len() == 3));
    assert_eq!(one.user("anonymous"), "anonymous");
}

proptest! {
    #[test]
    fn never_panics_and_stays_parsable(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut text = invite().into_bytes();
        for (index, byte) in changes {
            let at = index.index(text.len());
            text[at] = byte;
        }
        let mut one = anonymiser(1);
        if let Ok(message) = Message::parse(&text) {
            let mut out = Vec::new();
            one.sip(&message, &mut out);
            prop_assert!(Message::parse(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        }
        let body = &text[text.len() - SDP.len()..];
        if let Ok(before) = Sdp::parse(body) {
            let mut out = Vec::new();
            prop_assert!(one.sdp(body, &mut out).is_ok());
            prop_assert_eq!(Sdp::parse(&out).map(|after| after.lines().len()), Ok(before.lines().len()));
        }
    }

    #[test]
    fn any_text_is_taken(text in "\\PC{0,60}", name in "[a-z-]{0,10}") {
        let mut one = anonymiser(1);
        one.scrub(&text);
        one.field(&name, &text);
        one.host(&text);
        one.uri(&text);
    }
}
