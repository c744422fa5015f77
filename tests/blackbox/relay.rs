//! The real relay over its real sockets: ng in JSON and bencode, RTP both ways, what is counted, what is freed.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "relay/ng_cases.rs"]
mod ng_cases;
#[path = "relay/options.rs"]
mod options;

use harness::{Server, loopback, run};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A relay on addresses of its own, and a socket to ask it by.
struct Relay {
    server: Server,
    asker: UdpSocket,
    media: IpAddr,
}

impl Relay {
    fn start(more: &[&str]) -> Relay {
        let address = loopback().to_string();
        let control = format!("udp:{address}:0");
        let mut args =
            vec!["--control", &control, "--interface", &address, "--events", "-", "--workers", "2"];
        if !more.contains(&"--port-range") {
            args.extend(["--port-range", "20000-20099"]);
        }
        args.extend(more);
        let server = Server::start("relay", &args);
        let asker = UdpSocket::bind((loopback(), 0)).expect("a socket");
        asker.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        Relay { server, asker, media: address.parse().expect("an address") }
    }

    fn raw(&self, datagram: &[u8]) -> Vec<u8> {
        self.asker.send_to(datagram, self.server.address("udp")).expect("sent");
        let mut buffer = vec![0; 65_536];
        let (length, _) = self.asker.recv_from(&mut buffer).expect("the relay answers");
        buffer.truncate(length);
        buffer
    }

    fn ask(&self, request: &Value) -> Value {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cookie = format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let reply = self.raw(format!("{cookie} {request}").as_bytes());
        let reply = String::from_utf8(reply).expect("text");
        let body = reply.strip_prefix(&format!("{cookie} ")).unwrap_or_else(|| panic!("{reply}"));
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    /// Offers and answers a plain audio call; gives where each peer sends to.
    fn call(&self, id: &str, alice: &UdpSocket, bob: &UdpSocket) -> (SocketAddr, SocketAddr) {
        let offer = self.ask(&json!({ "command": "offer", "call-id": id, "from-tag": "a",
            "sdp": sdp(alice), "replace": ["origin", "session-connection"], "ICE": "remove" }));
        assert_eq!(offer["result"], "ok", "{offer}");
        let answer = self.ask(&json!({ "command": "answer", "call-id": id, "from-tag": "a", "to-tag": "b",
            "sdp": sdp(bob), "replace": ["origin", "session-connection"], "ICE": "remove" }));
        assert_eq!(answer["result"], "ok", "{answer}");
        (self.port(&answer), self.port(&offer))
    }

    /// Where an SDP of the relay says that audio goes.
    fn port(&self, reply: &Value) -> SocketAddr {
        let sdp = reply["sdp"].as_str().expect("an SDP");
        assert!(sdp.contains(&format!("c=IN IP4 {}\r\n", self.media)), "{sdp}");
        let line = sdp.lines().find_map(|line| line.strip_prefix("m=audio ")).expect("an m-line");
        let port = line.split(' ').next().and_then(|port| port.parse().ok()).expect("a port");
        SocketAddr::new(self.media, port)
    }
}

/// A phone: one socket for RTP. Its even port is not asked for, since nothing here sends RTCP to it.
fn phone() -> UdpSocket {
    let socket = UdpSocket::bind((loopback(), 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    socket
}

fn sdp(phone: &UdpSocket) -> String {
    let address = phone.local_addr().expect("bound");
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8 101\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n",
        ip = address.ip(),
        port = address.port()
    )
}

fn rtp(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 8];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([sequence as u8; 160]);
    packet
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("a packet");
    buffer.truncate(length);
    (buffer, from)
}

#[test]
fn a_plain_call_both_ways_is_counted_and_its_ports_are_freed() {
    let relay = Relay::start(&[]);
    let (alice, bob) = (phone(), phone());
    let (near, far) = relay.call("call-1@example.com", &alice, &bob);
    // Five of a hundred of Alice's never leave her; all of Bob's do.
    for sequence in 0..100u16 {
        if sequence % 20 != 7 {
            alice.send_to(&rtp(sequence, 1001), near).expect("sent");
            assert_eq!(receive(&bob), (rtp(sequence, 1001), far));
        }
        bob.send_to(&rtp(sequence, 2002), far).expect("sent");
        assert_eq!(receive(&alice), (rtp(sequence, 2002), near));
    }
    // What is no RTP, and who is not Alice, goes nowhere.
    let stranger = phone();
    for hostile in [&b""[..], b"\x80", b"INVITE sip:bob@example.com SIP/2.0\r\n\r\n", &[0x16; 60], &[0; 20]] {
        alice.send_to(hostile, near).expect("sent");
    }
    stranger.send_to(&rtp(500, 666), near).expect("sent");
    alice.send_to(&rtp(100, 1001), near).expect("sent");
    assert_eq!(receive(&bob).0, rtp(100, 1001), "the next that arrives is the next that Alice sent");

    let query = relay.ask(&json!({ "command": "query", "call-id": "call-1@example.com" }));
    assert_eq!(query["result"], "ok", "{query}");
    assert_eq!(query["totals"]["RTP"]["packets"], 196, "{query}");
    let list = relay.ask(&json!({ "command": "list" }));
    assert_eq!(list["calls"], json!(["call-1@example.com"]), "{list}");

    let delete = relay.ask(&json!({ "command": "delete", "call-id": "call-1@example.com", "from-tag": "a" }));
    assert_eq!(delete["result"], "ok", "{delete}");
    for (tag, packets) in [("a", 96), ("b", 100)] {
        let stream = &delete["tags"][tag]["medias"][0]["streams"][0];
        assert_eq!(stream["stats"]["packets"], packets, "{tag}: {delete}");
        assert_eq!(stream["stats"]["bytes"], packets * 172, "{tag}: {delete}");
    }
    assert!(
        delete["tags"]["a"]["medias"][0]["streams"][0]["stats"]["errors"].as_u64() >= Some(3),
        "{delete}"
    );
    // Measured without any RTCP: the loss is in its own direction only.
    let measured = delete["measured"].as_array().expect("measured");
    let of = |ssrc: u32| measured.iter().find(|entry| entry["SSRC"] == ssrc).expect("its source");
    assert_eq!((&of(1001)["lost"], &of(2002)["lost"]), (&json!(5), &json!(0)), "{delete}");
    let mos = |ssrc| of(ssrc)["MOS"].as_u64().expect("a MOS");
    assert!(mos(1001) < mos(2002), "{delete}");
    assert!(of(1001)["MOS model"].is_string());

    // Ports and call are gone.
    for port in [near, far] {
        UdpSocket::bind(port).unwrap_or_else(|error| panic!("{port}: {error}"));
        UdpSocket::bind((port.ip(), port.port() + 1)).unwrap_or_else(|error| panic!("{port}: {error}"));
    }
    let list = relay.ask(&json!({ "command": "list" }));
    assert_eq!(list["calls"], json!([]), "{list}");
    let end = relay.server.wait_record(Duration::from_secs(5), |record| record["event"] == "call-end");
    let end = end.unwrap_or_else(|| panic!("no call-end in {:?}", relay.server.records()));
    assert_eq!(end["stats"]["totals"]["RTP"]["packets"], 196, "{end}");
    assert!(relay.server.records().iter().any(|record| record["event"] == "call-start"));
}

#[test]
fn the_range_fills_fails_and_recovers() {
    let relay = Relay::start(&["--port-range", "20000-20007"]);
    let (alice, bob) = (phone(), phone());
    for round in 0..3 {
        for n in 0..2 {
            relay.call(&format!("{round}-{n}"), &alice, &bob);
        }
        let offer =
            relay.ask(&json!({ "command": "offer", "call-id": "more", "from-tag": "a", "sdp": sdp(&alice) }));
        assert_eq!(offer["result"], "error", "{offer}");
        assert!(offer["error-reason"].as_str().is_some_and(|reason| reason.contains("exhausted")), "{offer}");
        for n in 0..2 {
            let id = format!("{round}-{n}");
            let delete = relay.ask(&json!({ "command": "delete", "call-id": id, "from-tag": "a" }));
            assert_eq!(delete["result"], "ok", "{delete}");
        }
    }
}

#[test]
fn bencode_and_nonsense_on_the_control_port() {
    let relay = Relay::start(&[]);
    assert_eq!(relay.raw(b"x1 d7:command4:pinge"), b"x1 d6:result4:ponge");
    // The same cookie again gets the same reply.
    assert_eq!(relay.raw(b"x1 d7:command4:pinge"), b"x1 d6:result4:ponge");
    let control = relay.server.address("udp");
    let nested = [b"x2 ".to_vec(), b"l".repeat(60_000)].concat();
    for nonsense in [&b""[..], b"\0", b"x3", b"x3 ", b"x3 d", b"x3 {", &[0xff; 500], &nested] {
        relay.asker.send_to(nonsense, control).expect("sent");
    }
    relay.asker.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    let mut buffer = vec![0; 65_536];
    while relay.asker.recv_from(&mut buffer).is_ok() {}
    relay.asker.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    assert_eq!(relay.ask(&json!({ "command": "ping" }))["result"], "pong");
}

#[test]
fn a_taken_address_is_told() {
    let mut relay = Relay::start(&[]);
    let stranger = UdpSocket::bind((loopback(), 0)).expect("a socket");
    for address in [relay.server.address("udp"), stranger.local_addr().expect("bound")] {
        let taken = format!("udp:{address}");
        let second = run(&["relay", "--control", &taken, "--interface", "127.0.0.1"], b"");
        assert_eq!(second.code, 71, "{second:?}");
        assert!(second.stderr.contains("--control") && second.stderr.contains("in use"), "{second:?}");
        assert_eq!(second.stderr.lines().count(), 1, "{second:?}");
    }
    let away = run(&["relay", "--control", "udp:127.0.0.1:0", "--interface", "192.0.2.77"], b"");
    assert_eq!(away.code, 71, "{away:?}");
    assert!(away.stderr.contains("--interface 192.0.2.77"), "{away:?}");
    assert_eq!(relay.server.stop(), 0);
}

#[test]
fn a_call_without_packets_ends_by_itself() {
    let relay = Relay::start(&["--timeout", "1"]);
    let (alice, bob) = (phone(), phone());
    let (near, _) = relay.call("silent", &alice, &bob);
    // As long as one of them talks, it lives.
    for sequence in 0..8 {
        alice.send_to(&rtp(sequence, 1), near).expect("sent");
        receive(&bob);
        std::thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(relay.ask(&json!({ "command": "list" }))["calls"], json!(["silent"]));
    let end = relay.server.wait_record(Duration::from_secs(5), |record| record["event"] == "call-end");
    let end = end.unwrap_or_else(|| panic!("no call-end in {:?}", relay.server.records()));
    assert_eq!((&end["reason"], &end["call_id"]), (&json!("timeout"), &json!("silent")), "{end}");
    UdpSocket::bind(near).expect("its port is free");
    // Nobody spoke in the other direction, so there is nothing to score there.
    let streams: Vec<Value> =
        relay.server.records().into_iter().filter(|record| record["event"] == "stream-stats").collect();
    assert_eq!(streams.len(), 1, "{streams:?}");
    assert_eq!((&streams[0]["tag"], &streams[0]["packets"]), (&json!("a"), &json!(8)));
    assert!(streams[0]["mos"].is_number() && streams[0]["mos_model"].is_string(), "{streams:?}");
}

#[test]
fn a_draining_relay_keeps_its_calls_and_takes_no_new_ones() {
    let mut relay = Relay::start(&["--drain", "20"]);
    let (alice, bob) = (phone(), phone());
    let (near, far) = relay.call("kept", &alice, &bob);
    relay.server.process.signal(libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(200));
    let refused =
        relay.ask(&json!({ "command": "offer", "call-id": "new", "from-tag": "a", "sdp": sdp(&alice) }));
    assert_eq!(refused["result"], "load limit", "{refused}");
    alice.send_to(&rtp(1, 1), near).expect("sent");
    assert_eq!(receive(&bob), (rtp(1, 1), far));
    let delete = relay.ask(&json!({ "command": "delete", "call-id": "kept", "from-tag": "a" }));
    assert_eq!(delete["result"], "ok");
    assert_eq!(relay.server.process.exit_code(Duration::from_secs(5)), 0);
}

#[test]
fn who_may_not_ask_gets_nothing_and_the_log_tells_it_once() {
    let relay = Relay::start(&["--control-allow", "192.0.2.0/24"]);
    relay.asker.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    for cookie in ["x1", "x2", "x3"] {
        let ping = format!("{cookie} d7:command4:pinge");
        relay.asker.send_to(ping.as_bytes(), relay.server.address("udp")).expect("sent");
        assert!(relay.asker.recv(&mut [0; 64]).is_err());
    }
    let told = relay.server.wait_log(Duration::from_secs(5), "control-refused").expect("a log line");
    let source = relay.asker.local_addr().expect("bound").to_string();
    assert!(told.contains("warn") && told.contains(&source) && told.contains("--control-allow"), "{told}");
    assert_eq!(relay.server.stderr().matches("control-refused").count(), 1);
}
