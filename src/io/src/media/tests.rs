//! Real sockets on loopback: plain RTP through a worker.

use super::*;
use crate::certificate;
use sipbox_core::media::plan::{Arriving, Learning, PayloadFormat, Security};
use std::net::UdpSocket;

fn plan(remote: SocketAddr) -> LegPlan {
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

fn packet(sequence: u16, ssrc: u8) -> Vec<u8> {
    let mut packet = vec![0x80, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, ssrc];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.extend([0x55; 160]);
    packet
}

#[test]
fn forwards_counts_and_frees() {
    let ports = Allocator::new(vec!["127.0.4.20".parse().unwrap()], "32000-32007".parse().unwrap()).unwrap();
    let clock = Clock::start();
    let identity = certificate::self_signed().unwrap();
    let (notices, heard) = channel();
    let mut workers = Workers::start(2, ports, &identity, clock, move |notice| {
        let _ = notices.send(notice);
    })
    .unwrap();
    let (alice, bob) = (UdpSocket::bind("127.0.4.21:0").unwrap(), UdpSocket::bind("127.0.4.22:0").unwrap());
    for socket in [&alice, &bob] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let bridge = BridgeId(1);
    let near = workers.open(bridge, Side::Offerer, &Want::default()).unwrap();
    let far = workers.open(bridge, Side::Answerer, &Want::default()).unwrap();
    workers.apply(bridge, Side::Offerer, plan(alice.local_addr().unwrap()));
    workers.apply(bridge, Side::Answerer, plan(bob.local_addr().unwrap()));
    // What was asked before is done before.
    workers.stats(bridge).unwrap();
    let mut buffer = [0; 2048];
    for sequence in 0..200 {
        alice.send_to(&packet(sequence, 1), near.rtp).unwrap();
        let (length, from) = bob.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&packet(sequence, 1)[..], far.rtp));
        bob.send_to(&packet(sequence, 2), far.rtp).unwrap();
        let (length, from) = alice.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&packet(sequence, 2)[..], near.rtp));
    }
    alice.send_to(b"INVITE sip:bob@example.com SIP/2.0\r\n", near.rtp).unwrap();
    alice.send_to(&[0x80; 4000], near.rtp).unwrap();
    alice.send_to(b"", near.rtp).unwrap();
    alice.send_to(&packet(200, 1), near.rtp).unwrap();
    bob.recv_from(&mut buffer).unwrap();
    let stats = workers.stats(bridge).unwrap();
    assert_eq!((stats.offerer.rtp.packets, stats.answerer.rtp.packets), (201, 200));
    assert_eq!(stats.offerer.rtp.errors, 2);
    assert_eq!(stats.offerer.streams[0].lost, 0);
    assert_eq!(heard.try_iter().count(), 2, "each peer's address was learned once");
    assert_eq!(workers.ports_in_use(), 2);
    workers.close(bridge);
    assert_eq!(workers.ports_in_use(), 0);
    assert!(workers.stats(bridge).is_none());
    // The ports really are free.
    UdpSocket::bind(near.rtp).unwrap();
    UdpSocket::bind(far.rtcp).unwrap();
}
