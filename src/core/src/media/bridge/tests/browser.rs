//! A scripted browser at one side: ICE, DTLS and SRTP through a network that loses, and handshakes that mean no good.

use super::*;
use crate::media::dtls::Dtls;
use crate::media::ice::Ice;
use crate::media::plan::Fingerprint;
use crate::rng::Rng;

/// A browser made of the same parts: an ICE agent, a DTLS endpoint, SRTP.
struct Browser {
    at: SocketAddr,
    relay: SocketAddr,
    ice: Ice,
    dtls: Option<Dtls>,
    role: DtlsRole,
    identity: Identity,
    fingerprints: Vec<Fingerprint>,
    srtp: Option<crate::media::dtls::SrtpPair>,
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
