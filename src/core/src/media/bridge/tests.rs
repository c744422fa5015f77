//! A phone and a scripted browser around one bridge, on a virtual clock, with loss.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "an anchor needs one moment of the real clock"
)]

use super::*;
use crate::media::dtls::Dtls;
use crate::media::ice::Ice;
use crate::media::plan::{
    DtlsPlan, DtlsRole, Fingerprint, IcePlan, IceRemote, Learning, PayloadFormat, SdesPlan, Security,
};
use crate::media::rtcp::tests::{BLOCK, receiver_report, sender_report};
use crate::rng::Rng;
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

/// A browser made of the same parts: an ICE agent, a DTLS endpoint, SRTP.
struct Browser {
    at: SocketAddr,
    relay: SocketAddr,
    ice: Ice,
    dtls: Option<Dtls>,
    role: DtlsRole,
    identity: Identity,
    fingerprints: Vec<Fingerprint>,
    srtp: Option<super::super::dtls::SrtpPair>,
    connected_at: Option<Instant>,
    rtcp: usize,
    rtp: usize,
}

/// A bridge with a browser at the answerer's side and a phone at the offerer's, and a network that loses.
struct World {
    now: Instant,
    anchor: Anchor,
    bridge: Bridge,
    browser: Browser,
    /// (arrival, to the relay?, datagram)
    wire: Vec<(Instant, bool, Vec<u8>)>,
    rng: Rng,
    loss_percent: u32,
    events: Vec<Event>,
    answer: LegPlan,
}

const PHONE: &str = "192.0.2.1:4000";
const DELAY: Duration = Duration::from_millis(10);

fn fingerprint(digest: &[u8]) -> Vec<Fingerprint> {
    vec![Fingerprint { hash: "sha-256".into(), digest: digest.to_vec() }]
}

impl World {
    /// The relay offers `actpass` and ends as `relay_role`; `seed` drives the loss.
    fn new(relay_role: DtlsRole, loss_percent: u32, seed: u64, wrong_fingerprint: bool) -> World {
        let (relay_identity, relay_digest) = identity();
        let (identity, mut digest) = identity();
        let (relay, at) = (address("192.0.2.10:10000"), address("192.0.2.20:6000"));
        let now = Instant(START);
        let anchor = anchor();
        let mut bridge = Bridge::new(relay_identity, anchor);
        bridge.apply(now, Side::Offerer, plain(PHONE));
        let offer = LegPlan {
            remote_rtp: None,
            remote_rtcp: None,
            rtcp_mux: false,
            ice: Some(IcePlan {
                local_ufrag: "relayufrag".into(),
                local_pwd: "relaypasswordrelaypassword".into(),
                remote: None,
                controlling: true,
                lite: false,
                local_candidates: vec![relay],
                local_rtcp: Vec::new(),
            }),
            security: Security::Dtls(DtlsPlan { fingerprints: Vec::new(), role: DtlsRole::Passive }),
            feedback: true,
            ..plain("192.0.2.20:6000")
        };
        bridge.apply(now, Side::Answerer, offer.clone());
        if wrong_fingerprint {
            digest[3] ^= 1;
        }
        let mut answer = offer;
        answer.rtcp_mux = true;
        answer.remote_rtp = Some(at);
        answer.remote_rtcp = Some(at);
        answer.security = Security::Dtls(DtlsPlan { fingerprints: fingerprint(&digest), role: relay_role });
        if let Some(ice) = &mut answer.ice {
            ice.remote = Some(IceRemote {
                ufrag: "browserufrag".into(),
                pwd: "browserpasswordbrowserpw".into(),
                candidates: vec![
                    "1 1 udp 2130706431 9d2c1f4e-0000-4000-8000-000000000000.local 6000 typ host".into(),
                ],
                lite: false,
            });
        }
        let ice = Ice::new(
            &IcePlan {
                local_ufrag: "browserufrag".into(),
                local_pwd: "browserpasswordbrowserpw".into(),
                remote: Some(IceRemote {
                    ufrag: "relayufrag".into(),
                    pwd: "relaypasswordrelaypassword".into(),
                    candidates: vec!["1 1 udp 2130706431 192.0.2.10 10000 typ host".into()],
                    lite: false,
                }),
                controlling: false,
                lite: false,
                local_candidates: vec![at],
                local_rtcp: Vec::new(),
            },
            Component::Rtp,
            now,
            anchor,
        );
        let role = match relay_role {
            DtlsRole::Active => DtlsRole::Passive,
            DtlsRole::Passive => DtlsRole::Active,
        };
        let browser = Browser {
            at,
            relay,
            ice,
            dtls: None,
            role,
            identity,
            fingerprints: fingerprint(&relay_digest),
            srtp: None,
            connected_at: None,
            rtcp: 0,
            rtp: 0,
        };
        World {
            now,
            anchor,
            bridge,
            browser,
            wire: Vec::new(),
            rng: Rng::from_seed(seed),
            loss_percent,
            events: Vec::new(),
            answer,
        }
    }

    fn answer(&mut self) {
        self.bridge.apply(self.now, Side::Answerer, self.answer.clone());
        self.collect();
    }

    fn send(&mut self, to_relay: bool, data: Vec<u8>) {
        if self.rng.below(100) >= self.loss_percent {
            self.wire.push((self.now + DELAY, to_relay, data));
        }
    }

    fn collect(&mut self) {
        while let Some(transmit) = self.bridge.poll_transmit() {
            assert_eq!(transmit.side, Side::Answerer);
            assert_eq!(transmit.to, self.browser.at);
            self.send(false, transmit.data);
        }
        self.events.extend(events(&mut self.bridge));
        let browser = &mut self.browser;
        let mut out = Vec::new();
        while let Some((to, data)) = browser.ice.poll_transmit() {
            assert_eq!(to, browser.relay);
            out.push(data);
        }
        // A browser's path is writable from the first reply on; its server listens from the start.
        if browser.dtls.is_none() && browser.ice.is_valid(browser.relay) {
            browser.dtls = Some(Dtls::new(&browser.identity, browser.role, self.now, self.anchor));
        }
        if let Some(dtls) = &mut browser.dtls {
            out.extend(std::iter::from_fn(|| dtls.poll_transmit()));
            if browser.srtp.is_none()
                && let Ok(pair) = dtls.keys_for(&browser.fingerprints)
            {
                browser.srtp = Some(pair);
                browser.connected_at = Some(self.now);
            }
        }
        for data in out {
            self.send(true, data);
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(5);
        let (due, later) = std::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= self.now);
        self.wire = later;
        for (_, to_relay, data) in due {
            if to_relay {
                let from = self.browser.at;
                put(&mut self.bridge, self.now, Side::Answerer, Component::Rtp, &from.to_string(), &data);
            } else {
                self.browser_takes(data);
            }
            self.collect();
        }
        if self.bridge.poll_timeout().is_some_and(|at| at <= self.now) {
            self.bridge.handle_timeout(self.now);
        }
        if self.browser.ice.poll_timeout().is_some_and(|at| at <= self.now) {
            self.browser.ice.handle_timeout(self.now);
        }
        if let Some(dtls) = &mut self.browser.dtls
            && dtls.poll_timeout().is_some_and(|at| at <= self.now)
        {
            dtls.handle_timeout(self.now);
        }
        self.collect();
    }

    fn browser_takes(&mut self, mut data: Vec<u8>) {
        let browser = &mut self.browser;
        let length = data.len();
        match (demux::classify(&data), &mut browser.dtls, &mut browser.srtp) {
            (Kind::Stun, ..) => {
                browser.ice.handle_packet(self.now, browser.relay, &data);
            }
            (Kind::Dtls, Some(dtls), _) => {
                dtls.handle_packet(self.now, &data);
            }
            (Kind::Rtp, _, Some(srtp)) => {
                browser.rtp += usize::from(srtp.unprotect.unprotect_rtp(&mut data, length).is_ok());
            }
            (Kind::Rtcp, _, Some(srtp)) => {
                browser.rtcp += usize::from(srtp.unprotect.unprotect_rtcp(&mut data, length).is_ok());
            }
            _ => {}
        }
    }

    fn run(&mut self, limit: Duration, done: impl Fn(&World) -> bool) {
        let end = self.now + limit;
        while self.now < end && !done(self) {
            self.step();
        }
    }

    fn relay_connected(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::DtlsConnected { .. }))
    }

    fn connected(&self) -> bool {
        self.browser.srtp.is_some() && self.relay_connected()
    }

    /// A hundred packets each way; how many arrived at the phone.
    fn talk(&mut self) -> usize {
        let mut heard = 0;
        for n in 0..100u16 {
            self.run(Duration::from_millis(20), |_| false);
            let (verdict, data) =
                put(&mut self.bridge, self.now, Side::Offerer, Component::Rtp, PHONE, &rtp(n, 1));
            if let Verdict::Forward { to, .. } = verdict {
                assert_eq!(to, self.browser.at);
                self.browser_takes(data);
            }
            let mut sealed = rtp(n, 2);
            sealed.resize(200, 0);
            let Some(srtp) = &mut self.browser.srtp else { continue };
            let length = srtp.protect.protect_rtp(&mut sealed, 172).expect("protects");
            let from = self.browser.at.to_string();
            let (verdict, clear) =
                put(&mut self.bridge, self.now, Side::Answerer, Component::Rtp, &from, &sealed[..length]);
            if let Verdict::Forward { side, component, to, .. } = verdict {
                assert_eq!((side, component, to), (Side::Offerer, Component::Rtp, address(PHONE)));
                assert_eq!(clear, rtp(n, 2));
                heard += 1;
            }
        }
        heard
    }
}

#[test]
fn browser_and_phone_in_both_roles() {
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let mut world = World::new(role, 0, 1, false);
        world.answer();
        world.run(Duration::from_secs(5), World::connected);
        assert!(world.connected(), "{role:?}: {:?}", world.events);
        assert_eq!(world.talk(), 100, "{role:?}");
        assert_eq!(world.browser.rtp, 100, "{role:?}");
        let stats = world.bridge.stats();
        assert!(stats.answerer.suite.is_some() && stats.answerer.ice_connected);
        assert_eq!((stats.offerer.streams[0].lost, stats.answerer.streams[0].lost), (0, 0));
    }
}

#[test]
fn the_handshake_may_end_before_the_answer() {
    let mut world = World::new(DtlsRole::Passive, 0, 2, false);
    world.run(Duration::from_secs(3), |world| world.browser.srtp.is_some());
    assert!(world.browser.srtp.is_some(), "the ClientHello was not answered before the answer");
    assert!(!world.relay_connected());
    // No media before the peer is known to be who its SDP says.
    assert_eq!(world.talk(), 0);
    assert_eq!(world.browser.rtp, 0);
    world.answer();
    assert!(world.relay_connected(), "{:?}", world.events);
    world.run(Duration::from_secs(3), |world| world.bridge.stats().answerer.ice_connected);
    world.browser.rtp = 0;
    assert!(world.bridge.stats().answerer.ice_connected);
}

#[test]
fn a_wrong_fingerprint_gives_no_media() {
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let mut world = World::new(role, 0, 3, true);
        world.answer();
        world.run(Duration::from_secs(5), |world| world.browser.srtp.is_some());
        world.run(Duration::from_secs(1), |_| false);
        let told = |event: &Event| *event == Event::FingerprintMismatch { side: Side::Answerer };
        assert_eq!(world.events.iter().filter(|event| told(event)).count(), 1, "{:?}", world.events);
        assert!(!world.relay_connected());
        assert_eq!((world.talk(), world.browser.rtp), (0, 0));
    }
}

#[test]
fn connects_through_loss() {
    let mut worst = Duration::ZERO;
    for seed in 0..20 {
        for role in [DtlsRole::Passive, DtlsRole::Active] {
            let mut world = World::new(role, 25, seed, false);
            world.answer();
            world.run(Duration::from_secs(30), World::connected);
            assert!(world.connected(), "seed {seed}, {role:?}: {:?}", world.events);
            worst = worst.max(world.now.saturating_since(Instant(START)));
        }
    }
    assert!(worst < Duration::from_secs(15), "{worst:?}");
}

#[test]
fn rtcp_crosses_from_one_port_to_two_without_feedback() {
    let mut world = World::new(DtlsRole::Passive, 0, 4, false);
    world.answer();
    world.run(Duration::from_secs(5), World::connected);
    world.talk();
    // From the phone's odd port to the browser's only one.
    let report = sender_report(1, 0x0102_0304_0506_0708, None);
    let (verdict, data) =
        put(&mut world.bridge, world.now, Side::Offerer, Component::Rtcp, "192.0.2.1:4001", &report);
    assert!(matches!(verdict, Verdict::Forward { component: Component::Rtp, .. }), "{verdict:?}");
    world.browser_takes(data);
    assert_eq!(world.browser.rtcp, 1);
    // And back: a report that answers it, with feedback that the phone never agreed to.
    let sent = world.now;
    world.now = world.now + Duration::from_millis(80);
    let block = crate::media::rtcp::ReportBlock {
        ssrc: 1,
        fraction_lost: 26,
        last_sr: 0x0304_0506,
        delay_since_last_sr: 0,
        jitter: 16,
        ..BLOCK
    };
    let mut compound = receiver_report(2, block);
    let plain_length = compound.len();
    compound.extend([0x81, rtcp::PSFB, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1]);
    let length = compound.len();
    compound.resize(length + srtp::OVERHEAD, 0);
    let srtp = world.browser.srtp.as_mut().expect("connected");
    let length = srtp.protect.protect_rtcp(&mut compound, length).expect("protects");
    let from = world.browser.at.to_string();
    let (verdict, clear) =
        put(&mut world.bridge, world.now, Side::Answerer, Component::Rtp, &from, &compound[..length]);
    let to = address("192.0.2.1:4001");
    assert_eq!(
        verdict,
        Verdict::Forward { side: Side::Offerer, component: Component::Rtcp, to, length: plain_length }
    );
    assert_eq!(clear, receiver_report(2, block));
    let stats = world.bridge.stats();
    let reporter = stats.answerer.streams.iter().find(|stream| stream.ssrc == 2).expect("counted");
    let sample = reporter.reported[0];
    assert_eq!((sample.fraction_lost, sample.jitter_us), (26, 2000));
    assert_eq!(sample.round_trip, Some(world.now.saturating_since(sent)));
}

#[test]
fn an_ice_restart_keeps_keys_and_media() {
    let mut world = World::new(DtlsRole::Passive, 0, 5, false);
    world.answer();
    world.run(Duration::from_secs(5), World::connected);
    world.talk();
    let mut plan = world.answer.clone();
    if let Some(remote) = plan.ice.as_mut().and_then(|ice| ice.remote.as_mut()) {
        remote.ufrag = "restarted".into();
        remote.pwd = "restartedpasswordrestarted".into();
    }
    world.bridge.apply(world.now, Side::Answerer, plan);
    world.browser.rtp = 0;
    let (verdict, _) = put(&mut world.bridge, world.now, Side::Offerer, Component::Rtp, PHONE, &rtp(500, 1));
    assert!(matches!(verdict, Verdict::Forward { to, .. } if to == world.browser.at), "{verdict:?}");
    assert_eq!(world.events.iter().filter(|e| matches!(e, Event::DtlsConnected { .. })).count(), 1);
}

#[test]
fn loss_is_seen_in_its_direction_only() {
    let mut bridge = Bridge::new(identity().0, anchor());
    let mut now = Instant(START);
    bridge.apply(now, Side::Offerer, plain("192.0.2.1:4000"));
    bridge.apply(now, Side::Answerer, plain("192.0.2.2:5000"));
    for n in 0..1000u16 {
        now = now + Duration::from_millis(20);
        if n % 20 != 3 {
            put(&mut bridge, now, Side::Offerer, Component::Rtp, "192.0.2.1:4000", &rtp(n, 1));
        }
        put(&mut bridge, now, Side::Answerer, Component::Rtp, "192.0.2.2:5000", &rtp(n, 2));
    }
    let stats = bridge.stats();
    let (bad, good) = (&stats.offerer.streams[0], &stats.answerer.streams[0]);
    assert_eq!((bad.lost, bad.expected, good.lost), (50, 1000, 0));
    let mean =
        bad.measured.iter().map(|s| u32::from(s.fraction_lost)).sum::<u32>() / bad.measured.len() as u32;
    assert!((11..=14).contains(&mean), "{mean}");
    assert!(good.measured.iter().all(|sample| sample.fraction_lost == 0));
}

/// A whole handshake's datagrams, by who sent them.
fn handshake() -> Vec<(DtlsRole, Vec<u8>)> {
    let (anchor, mut now) = (anchor(), Instant(START));
    let mut client = Dtls::new(&identity().0, DtlsRole::Active, now, anchor);
    let mut server = Dtls::new(&identity().0, DtlsRole::Passive, now, anchor);
    let mut all = Vec::new();
    for _ in 0..20 {
        now = now + Duration::from_millis(10);
        while let Some(datagram) = client.poll_transmit() {
            server.handle_packet(now, &datagram);
            all.push((DtlsRole::Active, datagram));
        }
        while let Some(datagram) = server.poll_transmit() {
            client.handle_packet(now, &datagram);
            all.push((DtlsRole::Passive, datagram));
        }
    }
    assert!(client.is_connected() && server.is_connected());
    all
}

/// An ICE-validated peer may still send anything: whatever it is, the thread lives, and what it costs is bounded.
#[test]
fn dtls_survives_anything() {
    let recorded = handshake();
    let ours = identity().0;
    for seed in 0..400 {
        let mut rng = Rng::from_seed(seed);
        for role in [DtlsRole::Active, DtlsRole::Passive] {
            let mut now = Instant(START);
            let mut dtls = Dtls::new(&ours, role, now, anchor());
            for _ in 0..30 {
                now = now + Duration::from_millis(u64::from(rng.below(200)));
                let (_, datagram) = &recorded[rng.below(recorded.len() as u32) as usize];
                let mut datagram = datagram.clone();
                for _ in 0..rng.below(4) {
                    let at = rng.below(datagram.len() as u32) as usize;
                    datagram[at] = match rng.below(3) {
                        0 => rng.u32() as u8,
                        1 => 0,
                        _ => 0xff,
                    };
                }
                if rng.below(5) == 0 {
                    datagram.truncate(rng.below(datagram.len() as u32) as usize);
                }
                dtls.handle_packet(now, &datagram);
                dtls.handle_timeout(now);
                while dtls.poll_transmit().is_some() {}
            }
            assert!(!dtls.is_connected(), "seed {seed}: somebody else's handshake gave keys");
        }
    }
}

#[test]
fn a_flood_of_small_fragments_is_bounded() {
    let mut dtls = Dtls::new(&identity().0, DtlsRole::Passive, Instant(START), anchor());
    let mut taken = 0;
    for n in 0..40_000u32 {
        // One byte of a ClientHello of 60,000.
        let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0];
        record.extend(&n.to_be_bytes());
        record.extend([0, 13, 1, 0, 0xea, 0x60, 0, 0]);
        record.extend(&n.to_be_bytes()[1..]);
        record.extend([0, 0, 1, 0x41]);
        taken += usize::from(dtls.handle_packet(Instant(START + u64::from(n) * 100), &record));
        while dtls.poll_transmit().is_some() {}
    }
    assert!(taken <= crate::limits::DTLS_HANDSHAKE_DATAGRAMS, "{taken}");
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

/// A leg with ICE and DTLS on each of its two ports.
fn two_ports(own: &str, other: &str, controlling: bool, role: DtlsRole, peer: &[u8]) -> LegPlan {
    let (own, other) = (address(own), address(other));
    let next = |at: SocketAddr| SocketAddr::new(at.ip(), at.port() + 1);
    let name = |at: SocketAddr| format!("ufrag{}", at.port());
    let candidate = |component: u8, at: SocketAddr| {
        format!(
            "1 {component} UDP {} {} {} typ host",
            2_130_706_432 - u32::from(component),
            at.ip(),
            at.port()
        )
    };
    LegPlan {
        remote_rtp: Some(other),
        remote_rtcp: Some(next(other)),
        ice: Some(IcePlan {
            local_ufrag: name(own),
            local_pwd: "passwordpasswordpassword".into(),
            remote: Some(IceRemote {
                ufrag: name(other),
                pwd: "passwordpasswordpassword".into(),
                candidates: vec![candidate(1, other), candidate(2, next(other))],
                lite: false,
            }),
            controlling,
            lite: false,
            local_candidates: vec![own],
            local_rtcp: vec![next(own)],
        }),
        security: Security::Dtls(DtlsPlan { fingerprints: fingerprint(peer), role }),
        feedback: true,
        ..plain("192.0.2.1:4000")
    }
}

/// Without rtcp-mux each port has checks and a handshake of its own: two bridges, one at each end of such a leg.
#[test]
fn rtcp_has_a_way_of_its_own() {
    const WEST: &str = "192.0.2.10:10000";
    const EAST: &str = "192.0.2.20:6000";
    let ((west_identity, west_digest), (east_identity, east_digest)) = (identity(), identity());
    let (mut now, anchor) = (Instant(START), anchor());
    let mut west = Bridge::new(west_identity, anchor);
    let mut east = Bridge::new(east_identity, anchor);
    west.apply(now, Side::Offerer, plain("192.0.2.1:4000"));
    west.apply(now, Side::Answerer, two_ports(WEST, EAST, true, DtlsRole::Passive, &east_digest));
    east.apply(now, Side::Offerer, two_ports(EAST, WEST, false, DtlsRole::Active, &west_digest));
    east.apply(now, Side::Answerer, plain("192.0.2.2:5000"));
    let of_port = |port: u16| if port.is_multiple_of(2) { Component::Rtp } else { Component::Rtcp };
    let from = |base: &str, component| {
        let at = address(base);
        SocketAddr::new(at.ip(), at.port() + u16::from(component == Component::Rtcp)).to_string()
    };
    for _ in 0..600 {
        now = now + Duration::from_millis(5);
        for bridge in [&mut west, &mut east] {
            if bridge.poll_timeout().is_some_and(|at| at <= now) {
                bridge.handle_timeout(now);
            }
        }
        while let Some(sent) = west.poll_transmit() {
            let source = from(WEST, sent.component);
            put(&mut east, now, Side::Offerer, of_port(sent.to.port()), &source, &sent.data);
        }
        while let Some(sent) = east.poll_transmit() {
            let source = from(EAST, sent.component);
            put(&mut west, now, Side::Answerer, of_port(sent.to.port()), &source, &sent.data);
        }
    }
    // A phone at each end: its RTP and its RTCP come out at the other, each by its own way.
    let report = sender_report(1, 0, None);
    for (component, phone, packet, far) in [
        (Component::Rtp, "192.0.2.1:4000", rtp(1, 1), "192.0.2.2:5000"),
        (Component::Rtcp, "192.0.2.1:4001", report, "192.0.2.2:5001"),
    ] {
        let (verdict, sealed) = put(&mut west, now, Side::Offerer, component, phone, &packet);
        let Verdict::Forward { component: out, to, .. } = verdict else {
            panic!("{component:?}: {verdict:?}")
        };
        assert_eq!((out, of_port(to.port())), (component, component));
        assert_ne!(sealed, packet, "protected");
        // The other port's keys do not fit.
        let other = if component == Component::Rtp { Component::Rtcp } else { Component::Rtp };
        let (verdict, _) = put(&mut east, now, Side::Offerer, other, &from(WEST, other), &sealed);
        assert!(matches!(verdict, Verdict::Dropped(_)), "{component:?}: {verdict:?}");
        let (verdict, clear) = put(&mut east, now, Side::Offerer, component, &from(WEST, component), &sealed);
        assert!(
            matches!(verdict, Verdict::Forward { component: out, to, .. } if out == component && to == address(far)),
            "{component:?}: {verdict:?}"
        );
        assert_eq!(clear, packet);
    }
    assert_eq!(
        events(&mut west).iter().filter(|event| matches!(event, Event::DtlsConnected { .. })).count(),
        1
    );
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
            let seal =
                |packet: Vec<u8>, protect: &mut dyn FnMut(&mut [u8], usize) -> Result<usize, srtp::Error>| {
                    if is_secure { sealed(packet, protect) } else { packet }
                };
            let sent = seal(rtp(1, 7), &mut |data, length| theirs.protect_rtp(data, length));
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
            let report =
                seal(receiver_report(7, BLOCK), &mut |data, length| theirs.protect_rtcp(data, length));
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
