//! Options of the daemon that another relay has too, and what they do on real sockets.

use super::harness::loopback;
use super::{Relay, phone, receive, rtp, sdp};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    stream
}

/// As many bytes as are expected, and what they are.
fn read(stream: &mut TcpStream, expected: &str) {
    let mut buffer = vec![0; expected.len()];
    stream.read_exact(&mut buffer).expect("a reply");
    assert_eq!(String::from_utf8_lossy(&buffer), expected);
}

#[test]
fn ng_over_a_connection() {
    let tcp = format!("{}:0", loopback());
    let relay = Relay::start(&["--listen-tcp-ng", &tcp]);
    let mut stream = connect(relay.server.address("tcp"));
    // A message in two pieces, two in one piece, and both encodings on one connection.
    stream.write_all(b"x1 d7:comm").expect("sent");
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all(b"and4:pinge").expect("sent");
    read(&mut stream, "x1 d6:result4:ponge");
    stream.write_all(b"x2 d7:command4:pinge\nx3 {\"command\":\"ping\"}").expect("sent");
    read(&mut stream, "x2 d6:result4:ponge");
    read(&mut stream, "x3 {\"result\":\"pong\"}\n");
    // A call that is offered here is known to who asks by UDP.
    let alice = phone();
    let offer = json!({ "command": "offer", "call-id": "tcp", "from-tag": "a", "sdp": sdp(&alice) });
    write!(stream, "x4 {offer}").expect("sent");
    read(&mut stream, "x4 {\"sdp\":\"v=0\\r\\n");
    assert_eq!(relay.ask(&json!({ "command": "list" }))["calls"], json!(["tcp"]));
    // What is no ng is told nothing, and its connection is closed; others go on.
    let mut stranger = connect(relay.server.address("tcp"));
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    // Closed with what it sent unread: an end, or a reset.
    assert!(matches!(stranger.read(&mut [0; 64]), Ok(0) | Err(_)));
    let mut other = connect(relay.server.address("tcp"));
    other.write_all(b"x5 d7:command4:pinge").expect("sent");
    read(&mut other, "x5 d6:result4:ponge");
}

#[test]
fn who_may_not_ask_is_not_connected() {
    let tcp = format!("tcp:{}:0", loopback());
    let relay = Relay::start(&["--control", &tcp, "--control-allow", "192.0.2.0/24"]);
    let mut stream = connect(relay.server.address("tcp"));
    let _ = stream.write_all(b"x1 d7:command4:pinge");
    assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
    assert!(relay.server.wait_log(Duration::from_secs(5), "control-refused").is_some());
}

/// A phone that is told how what it gets was marked.
fn watching() -> UdpSocket {
    let (socket, on): (_, libc::c_int) = (phone(), 1);
    // SAFETY: the value is an int that lives here, of the length that is given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_RECVTOS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(set, 0, "IP_RECVTOS");
    socket
}

/// How the next packet was marked, for one that is [`watching`].
fn tos_of_next(socket: &UdpSocket) -> u8 {
    let (mut data, mut control) = ([0u8; 2048], [0u8; 64]);
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: all pointers are to buffers that live here, with their lengths; a msghdr of zeros is a valid one.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len() as _;
        assert!(libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) > 0, "no packet");
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null() && (*header).cmsg_type == libc::IP_TOS, "no type of service");
        *libc::CMSG_DATA(header)
    }
}

#[test]
fn packets_are_marked() {
    let relay = Relay::start(&["--tos=184"]);
    let (alice, bob) = (watching(), watching());
    let (near, far) = relay.call("marked", &alice, &bob);
    alice.send_to(&rtp(1, 1), near).expect("sent");
    assert_eq!(tos_of_next(&bob), 184);
    // A request goes before the option, on both sides of its call, and only there.
    let offer = json!({ "command": "offer", "call-id": "marked", "from-tag": "a", "to-tag": "b",
        "sdp": sdp(&alice), "TOS": 72 });
    assert_eq!(relay.ask(&offer)["result"], "ok");
    alice.send_to(&rtp(2, 1), near).expect("sent");
    assert_eq!(tos_of_next(&bob), 72);
    bob.send_to(&rtp(3, 2), far).expect("sent");
    assert_eq!(tos_of_next(&alice), 72);
    let (carol, dave) = (watching(), watching());
    let (near, _) = relay.call("another", &carol, &dave);
    carol.send_to(&rtp(1, 1), near).expect("sent");
    assert_eq!(tos_of_next(&dave), 184);
}

#[test]
fn media_comes_back() {
    let relay = Relay::start(&[]);
    let (alice, bob) = (phone(), phone());
    let offer = relay.ask(&json!({ "command": "offer", "call-id": "echo", "from-tag": "a",
        "sdp": sdp(&alice), "media-echo": "backward" }));
    let answer = relay.ask(&json!({ "command": "answer", "call-id": "echo", "from-tag": "a", "to-tag": "b",
        "sdp": sdp(&bob) }));
    let (near, far) = (relay.port(&answer), relay.port(&offer));
    alice.send_to(&rtp(1, 1001), near).expect("sent");
    assert_eq!(receive(&alice), (rtp(1, !1001), near));
    // Bob's go nowhere, and nothing of Alice's reaches him.
    bob.send_to(&rtp(1, 2002), far).expect("sent");
    for silent in [&alice, &bob] {
        silent.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
        assert!(silent.recv(&mut [0; 64]).is_err());
    }
    let end = relay.ask(&json!({ "command": "delete", "call-id": "echo", "from-tag": "a" }));
    assert_eq!(end["totals"]["RTP"]["packets"], 2, "{end}");
}

#[test]
fn a_deleted_call_lasts_a_while() {
    let relay = Relay::start(&["--delete-delay=1"]);
    let (alice, bob) = (phone(), phone());
    let (near, _) = relay.call("late", &alice, &bob);
    let delete = |more: Value| {
        let mut request = json!({ "command": "delete", "call-id": "late", "from-tag": "a" });
        request.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        relay.ask(&request)
    };
    assert_eq!(delete(json!({}))["result"], "ok");
    // A late packet passes; a re-offer keeps the call.
    alice.send_to(&rtp(1, 1), near).expect("sent");
    receive(&bob);
    relay.call("late", &alice, &bob);
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(relay.ask(&json!({ "command": "list" }))["calls"], json!(["late"]));
    assert_eq!(delete(json!({}))["totals"]["RTP"]["packets"], 1);
    let end = relay.server.wait_record(Duration::from_secs(3), |record| record["event"] == "call-end");
    assert_eq!(end.unwrap_or_default()["reason"], "delete");
    // The request's own goes before the option.
    relay.call("late", &alice, &bob);
    assert_eq!(delete(json!({ "delete-delay": 0 }))["result"], "ok");
    assert_eq!(relay.ask(&json!({ "command": "list" }))["calls"], json!([]));
}
