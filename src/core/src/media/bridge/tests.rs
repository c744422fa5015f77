//! One bridge, on a virtual clock: phones with RTP and with keys of SDES. What browsers do is in `browser`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "an anchor needs one moment of the real clock"
)]

mod browser;

use super::*;
use crate::media::plan::{
    DtlsPlan, DtlsRole, IcePlan, IceRemote, Learning, PayloadFormat, SdesPlan, Security,
};
use crate::media::rtcp::tests::{BLOCK, receiver_report, sender_report};
use sha2::Digest;
use std::time::Duration;

const START: u64 = 1_000_000_000;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn identity() -> (Identity, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["relay.example.com".into()]).expect("a certificate");
    let der = made.cert.der().to_vec();
    let digest = sha2::Sha256::digest(&der).to_vec();
    (Identity::new(der, made.signing_key.serialize_der()).expect("a configuration"), digest)
}

fn anchor() -> Anchor {
    Anchor { ours: Instant(START), std: std::time::Instant::now() }
}

fn plain(remote: &str) -> LegPlan {
    let remote = address(remote);
    LegPlan {
        remote_rtp: Some(remote),
        remote_rtcp: Some(SocketAddr::new(remote.ip(), remote.port() + 1)),
        rtcp_mux: false,
        ice: None,
        security: Security::None,
        peer_sends: true,
        peer_receives: true,
        feedback: false,
        opaque: false,
        payloads: vec![PayloadFormat {
            payload_type: 8,
            encoding: "PCMA".into(),
            clock_rate: 8000,
            channels: 1,
        }],
        learning: Learning::Immediate,
        arriving: Arriving::Across,
    }
}

fn rtp(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 8];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([sequence as u8; 160]);
    packet
}

/// Hands a datagram to the bridge; gives what is forwarded.
fn put(
    bridge: &mut Bridge,
    now: Instant,
    side: Side,
    component: Component,
    from: &str,
    datagram: &[u8],
) -> (Verdict, Vec<u8>) {
    let mut buffer = datagram.to_vec();
    buffer.resize(datagram.len() + srtp::OVERHEAD, 0);
    let verdict = bridge.handle_packet(now, side, component, address(from), &mut buffer, datagram.len());
    match verdict {
        Verdict::Forward { length, .. } => buffer.truncate(length),
        Verdict::Consumed | Verdict::Dropped(_) => buffer.clear(),
    }
    (verdict, buffer)
}

fn events(bridge: &mut Bridge) -> Vec<Event> {
    std::iter::from_fn(|| bridge.poll_event()).collect()
}

#[test]
fn plain_to_plain_both_ways() {
    let mut bridge = Bridge::new(identity().0, anchor());
    let mut now = Instant(START);
    bridge.apply(now, Side::Offerer, plain("192.0.2.1:4000"));
    // Nothing goes to a leg that is not there.
    let (verdict, _) = put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &rtp(0, 1));
    assert_eq!(verdict, Verdict::Dropped(DropReason::NoDestination));
    bridge.apply(now, Side::Answerer, plain("192.0.2.2:5000"));
    for n in 1..=100u16 {
        now = now + Duration::from_millis(20);
        let (verdict, out) =
            put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &rtp(n, 1));
        let to = address("192.0.2.2:5000");
        assert_eq!(
            verdict,
            Verdict::Forward { side: Side::Answerer, component: Component::Rtp, to, length: 172 }
        );
        assert_eq!(out, rtp(n, 1));
        let (verdict, _) =
            put(&mut bridge, now, Side::Answerer, Component::Rtp, "192.0.2.2:5000", &rtp(n, 2));
        assert!(matches!(verdict, Verdict::Forward { side: Side::Offerer, .. }));
    }
    // RTCP takes the odd ports.
    let report = receiver_report(1, BLOCK);
    let (verdict, _) = put(&mut bridge, now, Side::Offerer, Component::Rtcp, "192.0.2.1:4001", &report);
    let to = address("192.0.2.2:5001");
    assert_eq!(
        verdict,
        Verdict::Forward { side: Side::Answerer, component: Component::Rtcp, to, length: 32 }
    );
    let stats = bridge.stats();
    assert_eq!((stats.offerer.rtp.packets, stats.answerer.rtp.packets), (101, 100));
    assert_eq!((stats.offerer.sent.packets, stats.answerer.sent.packets), (100, 101));
    assert_eq!(stats.offerer.streams[0].lost, 0);
    assert_eq!(stats.offerer.drops, [(DropReason::NoDestination, 1)]);
}

#[test]
fn hostile_datagrams_are_dropped_and_counted() {
    let mut bridge = Bridge::new(identity().0, anchor());
    let now = Instant(START);
    bridge.apply(now, Side::Offerer, plain("192.0.2.1:4000"));
    bridge.apply(now, Side::Answerer, plain("192.0.2.2:5000"));
    put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &rtp(1, 1));
    let hostile: [(&[u8], DropReason); 6] = [
        (b"", DropReason::Malformed),
        (b"\x80", DropReason::Malformed),
        (b"INVITE sip:", DropReason::Malformed),
        (&[0x80; 5], DropReason::Malformed),
        (&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], DropReason::Unexpected),
        (&[22, 254, 253, 0, 0], DropReason::Unexpected),
    ];
    for (datagram, reason) in hostile {
        let (verdict, _) = put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", datagram);
        assert_eq!(verdict, Verdict::Dropped(reason), "{datagram:?}");
    }
    // Another source than the one that was advertised and heard.
    let (verdict, _) = put(&mut bridge, now, Side::Offerer, Component::Rtp, "198.51.100.7:9", &rtp(2, 1));
    assert_eq!(verdict, Verdict::Dropped(DropReason::Source));
    let stats = bridge.stats();
    assert_eq!((stats.offerer.rtp.packets, stats.offerer.rtp.errors), (1, 5));
}

#[test]
fn nat_is_learned_and_hold_is_kept() {
    let mut bridge = Bridge::new(identity().0, anchor());
    let now = Instant(START);
    bridge.apply(now, Side::Offerer, plain("10.0.0.1:4000"));
    bridge.apply(now, Side::Answerer, plain("192.0.2.2:5000"));
    let nat = "198.51.100.1:61000";
    put(&mut bridge, now, Side::Offerer, Component::Rtp, nat, &rtp(1, 1));
    let learned = Event::Learned { side: Side::Offerer, component: Component::Rtp, address: address(nat) };
    assert_eq!(events(&mut bridge), [learned]);
    let (verdict, _) = put(&mut bridge, now, Side::Answerer, Component::Rtp, "192.0.2.2:5000", &rtp(1, 2));
    assert!(matches!(verdict, Verdict::Forward { to, .. } if to == address(nat)));
    bridge.apply(now, Side::Offerer, LegPlan { peer_receives: false, ..plain("10.0.0.1:4000") });
    let (verdict, _) = put(&mut bridge, now, Side::Answerer, Component::Rtp, "192.0.2.2:5000", &rtp(2, 2));
    assert_eq!(verdict, Verdict::Dropped(DropReason::Direction));
    assert_eq!(bridge.stats().offerer.remote_rtp, Some(address(nat)));
}

#[test]
fn sdes_on_one_side() {
    let mut bridge = Bridge::new(identity().0, anchor());
    let now = Instant(START);
    let (ours, theirs): (Vec<u8>, Vec<u8>) = ((0..30).collect(), (100..130).collect());
    let sdes = SdesPlan {
        suite: "AES_CM_128_HMAC_SHA1_80".into(),
        local_key: ours.clone(),
        remote_key: theirs.clone(),
        local_mki: Vec::new(),
        remote_mki: Vec::new(),
        is_shared: false,
    };
    let secure = LegPlan { security: Security::Sdes(sdes), ..plain("192.0.2.1:4000") };
    bridge.apply(now, Side::Offerer, secure);
    bridge.apply(now, Side::Answerer, plain("192.0.2.2:5000"));
    let suite = Suite::AesCm128HmacSha1_80;
    let mut out = srtp::Context::from_concatenated(suite, &theirs).expect("a key");
    let mut into = srtp::Context::from_concatenated(suite, &ours).expect("a key");
    let mut sealed = rtp(1, 1);
    sealed.resize(200, 0);
    let length = out.protect_rtp(&mut sealed, 172).expect("protects");
    let (_, clear) =
        put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &sealed[..length]);
    assert_eq!(clear, rtp(1, 1));
    let (_, mut sealed) = put(&mut bridge, now, Side::Answerer, Component::Rtp, "192.0.2.2:5000", &rtp(1, 2));
    let length = sealed.len();
    let length = into.unprotect_rtp(&mut sealed, length).expect("unprotects");
    assert_eq!(sealed[..length], rtp(1, 2));
    // Plain RTP on a secure leg is not taken, and nobody's address is learned from it.
    let (verdict, _) = put(&mut bridge, now, Side::Offerer, Component::Rtp, "203.0.113.1:1", &rtp(2, 1));
    assert_eq!(verdict, Verdict::Dropped(DropReason::Authentication));
}

/// What an offer or answer may change about a leg whose own key, or whose peer's, stays.
fn sdes_leg(local: u8, remote: u8, mki: &[u8], is_shared: bool) -> LegPlan {
    let key = |from: u8| (from..from + 30).collect::<Vec<u8>>();
    let sdes = SdesPlan {
        suite: Suite::AesCm128HmacSha1_80.name().into(),
        local_key: key(local),
        remote_key: key(remote),
        local_mki: mki.to_vec(),
        remote_mki: Vec::new(),
        is_shared,
    };
    LegPlan { security: Security::Sdes(sdes), ..plain("192.0.2.1:4000") }
}

/// RFC 3711 §9.1: a keystream that is used twice gives both texts away. Each row is what happens between two packets.
#[test]
fn our_key_goes_on_where_it_was_whatever_else_changes() {
    let none = || plain("192.0.2.1:4000");
    for between in [
        vec![sdes_leg(0, 120, &[], false)],
        vec![sdes_leg(0, 100, &[7], false)],
        vec![sdes_leg(0, 100, &[], true)],
        vec![none(), sdes_leg(0, 100, &[], false)],
        vec![sdes_leg(50, 100, &[], false), sdes_leg(0, 100, &[], false)],
        vec![sdes_leg(50, 120, &[], false), none(), sdes_leg(0, 140, &[], false)],
    ] {
        let mut bridge = Bridge::new(identity().0, anchor());
        let now = Instant(START);
        bridge.apply(now, Side::Offerer, sdes_leg(0, 100, &[], false));
        bridge.apply(now, Side::Answerer, plain("192.0.2.2:5000"));
        let report = |fill: u8| {
            let mut report = sender_report(9, 0, None);
            report[8..].fill(fill);
            report
        };
        let send = |bridge: &mut Bridge, component, from: &str, packet: &[u8]| {
            put(bridge, now, Side::Answerer, component, from, packet)
        };
        let (_, one) = send(&mut bridge, Component::Rtcp, "192.0.2.2:5001", &report(0x11));
        let (first, _) = send(&mut bridge, Component::Rtp, "192.0.2.2:5000", &rtp(7, 2));
        assert!(matches!(first, Verdict::Forward { .. }), "{first:?}");
        for plan in &between {
            bridge.apply(now, Side::Offerer, plan.clone());
        }
        let (_, two) = send(&mut bridge, Component::Rtcp, "192.0.2.2:5001", &report(0x22));
        assert!(one.len() > 28 && two.len() >= one.len(), "{between:?}");
        let both: Vec<u8> = one[8..28].iter().zip(&two[8..28]).map(|(a, b)| a ^ b).collect();
        assert_ne!(both, [0x33; 20], "one keystream for two reports: {between:?}");
        // The same sequence number again, with other bytes.
        let mut again = rtp(7, 2);
        again[20] ^= 0xff;
        let (verdict, _) = send(&mut bridge, Component::Rtp, "192.0.2.2:5000", &again);
        assert!(matches!(verdict, Verdict::Dropped(_)), "{verdict:?} after {between:?}");
    }
}

#[test]
fn a_packet_passes_once_whatever_else_changes() {
    for between in [
        vec![sdes_leg(40, 100, &[], false)],
        vec![sdes_leg(0, 100, &[7], false)],
        vec![sdes_leg(0, 100, &[], true)],
        vec![sdes_leg(0, 140, &[], false), sdes_leg(0, 100, &[], false)],
        vec![plain("192.0.2.1:4000"), sdes_leg(0, 100, &[], false)],
    ] {
        let mut bridge = Bridge::new(identity().0, anchor());
        let now = Instant(START);
        bridge.apply(now, Side::Offerer, sdes_leg(0, 100, &[], false));
        bridge.apply(now, Side::Answerer, plain("192.0.2.2:5000"));
        let theirs: Vec<u8> = (100..130).collect();
        let mut phone = srtp::Context::from_concatenated(Suite::AesCm128HmacSha1_80, &theirs).expect("a key");
        let packet = sealed(rtp(1, 1), |data, length| phone.protect_rtp(data, length));
        let mut hear = || put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &packet).0;
        assert!(matches!(hear(), Verdict::Forward { .. }));
        for plan in &between {
            bridge.apply(now, Side::Offerer, plan.clone());
        }
        let verdict = put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &packet).0;
        assert!(matches!(verdict, Verdict::Dropped(_)), "passed again after {between:?}");
    }
}

/// A packet as one of a context's methods protects it.
fn sealed(
    mut packet: Vec<u8>,
    mut protect: impl FnMut(&mut [u8], usize) -> Result<usize, srtp::Error>,
) -> Vec<u8> {
    let length = packet.len();
    packet.resize(length + srtp::OVERHEAD, 0);
    let length = protect(&mut packet, length).expect("protects");
    packet.truncate(length);
    packet
}

/// Keys that pass from leg to leg: every byte leaves as it came, feedback too, and under its sender's own index.
#[test]
fn what_is_under_its_senders_keys_leaves_as_it_came() {
    let suite = Suite::AesCm128HmacSha1_80;
    let (alice, bob): (Vec<u8>, Vec<u8>) = ((0..30).collect(), (100..130).collect());
    let keys = |local: &[u8], remote: &[u8]| {
        Security::Sdes(SdesPlan {
            suite: suite.name().into(),
            local_key: local.to_vec(),
            remote_key: remote.to_vec(),
            local_mki: Vec::new(),
            remote_mki: Vec::new(),
            is_shared: true,
        })
    };
    let now = Instant(START);
    let mut bridge = Bridge::new(identity().0, anchor());
    bridge.apply(now, Side::Offerer, LegPlan { security: keys(&bob, &alice), ..plain("192.0.2.1:4000") });
    bridge.apply(now, Side::Answerer, LegPlan { security: keys(&alice, &bob), ..plain("192.0.2.2:5000") });
    let mut phone = srtp::Context::from_concatenated(suite, &alice).expect("a key");
    let came = sealed(rtp(1, 1), |data, length| phone.protect_rtp(data, length));
    let (_, out) = put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &came);
    assert_eq!(out, came);
    // A report with a picture loss indication behind it, that a profile without feedback would lose.
    let report = [sender_report(1, 0, None), vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]].concat();
    for _ in 0..3 {
        let came = sealed(report.clone(), |data, length| phone.protect_rtcp(data, length));
        let (_, out) = put(&mut bridge, now, Side::Offerer, Component::Rtcp, "192.0.2.1:4001", &came);
        assert_eq!(out, came);
    }
}

/// Fax goes across unread; on a leg for RTP the same bytes are nothing.
#[test]
fn an_opaque_leg_looks_into_nothing() {
    let now = Instant(START);
    let udptl = [0, 1, 6, 0x11, 0x22];
    let opaque = |opaque, at| LegPlan { opaque, ..plain(at) };
    for is_opaque in [true, false] {
        let mut bridge = Bridge::new(identity().0, anchor());
        bridge.apply(now, Side::Offerer, opaque(is_opaque, "192.0.2.1:4000"));
        bridge.apply(now, Side::Answerer, opaque(is_opaque, "192.0.2.2:5000"));
        let (verdict, out) = put(&mut bridge, now, Side::Answerer, Component::Rtp, "203.0.113.9:6", &udptl);
        let to = address("192.0.2.1:4000");
        match is_opaque {
            true => {
                let component = Component::Rtp;
                assert_eq!(verdict, Verdict::Forward { side: Side::Offerer, component, to, length: 5 });
                assert_eq!(out, udptl);
                // Learned as RTP's source would be: the way back leads there.
                let (verdict, _) =
                    put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &udptl);
                assert!(matches!(verdict, Verdict::Forward { to, .. } if to == address("203.0.113.9:6")));
            }
            false => assert!(matches!(verdict, Verdict::Dropped(_)), "{verdict:?}"),
        }
    }
}

/// `media-echo`, on a leg in the clear and on one with keys: what comes back has a source of its own, is under our key, and
/// nothing crosses.
#[test]
fn media_comes_back_or_nowhere() {
    let now = Instant(START);
    let suite = Suite::AesCm128HmacSha1_80;
    let key =
        |from: u8| srtp::Context::from_concatenated(suite, &(from..from + 30).collect::<Vec<u8>>()).unwrap();
    for is_secure in [false, true] {
        for (arriving, drops) in [(Arriving::Back, 1), (Arriving::Dropped, 2)] {
            let mut bridge = Bridge::new(identity().0, anchor());
            let near = if is_secure { sdes_leg(0, 100, b"", false) } else { plain("192.0.2.1:4000") };
            bridge.apply(now, Side::Offerer, LegPlan { arriving, ..near });
            bridge.apply(now, Side::Answerer, plain("192.0.2.2:5000"));
            let (mut theirs, mut ours) = (key(100), key(0));
            let sent = match is_secure {
                true => sealed(rtp(1, 7), |data, length| theirs.protect_rtp(data, length)),
                false => rtp(1, 7),
            };
            let (verdict, mut back) =
                put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &sent);
            if arriving == Arriving::Back {
                assert!(
                    matches!(verdict, Verdict::Forward { side: Side::Offerer, to, .. } if to == address("192.0.2.1:4000"))
                );
                if is_secure {
                    let length = back.len();
                    let length = ours.unprotect_rtp(&mut back, length).expect("under our key");
                    back.truncate(length);
                }
                assert_eq!(back, rtp(1, !7));
            } else {
                assert_eq!(verdict, Verdict::Dropped(DropReason::Echo));
            }
            // Reports would tell of what is not passed on.
            let report = match is_secure {
                true => sealed(receiver_report(7, BLOCK), |data, length| theirs.protect_rtcp(data, length)),
                false => receiver_report(7, BLOCK),
            };
            let (verdict, _) =
                put(&mut bridge, now, Side::Offerer, Component::Rtcp, "192.0.2.1:4001", &report);
            assert_eq!(verdict, Verdict::Dropped(DropReason::Echo));
            let stats = bridge.stats();
            assert_eq!(stats.offerer.drops, [(DropReason::Echo, drops)]);
            assert_eq!((stats.answerer.sent.packets, stats.offerer.sent.packets), (0, 2 - drops));
        }
    }
    // Fax too, which is not looked into.
    let udptl = [0, 1, 6, 0x11, 0x22];
    for arriving in [Arriving::Across, Arriving::Back, Arriving::Dropped] {
        let mut bridge = Bridge::new(identity().0, anchor());
        let fax = |at| LegPlan { opaque: true, arriving, ..plain(at) };
        bridge.apply(now, Side::Offerer, fax("192.0.2.1:4000"));
        bridge.apply(now, Side::Answerer, fax("192.0.2.2:5000"));
        let (verdict, _) = put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &udptl);
        match arriving {
            Arriving::Across => assert!(matches!(verdict, Verdict::Forward { side: Side::Answerer, .. })),
            Arriving::Back => assert!(matches!(verdict, Verdict::Forward { side: Side::Offerer, .. })),
            Arriving::Dropped => assert_eq!(verdict, Verdict::Dropped(DropReason::Echo)),
        }
    }
}
