//! How long a call takes to set up through a server, from INVITE to 200 at the caller, by a clock of microseconds.
//!
//! Goes in: the server's address, those of a caller and a callee, how many calls a second and for how long. Comes out: a time for
//! each call, sorted. Both parties are here, over UDP: the callee rings and answers at once, the caller confirms and hangs up at
//! once. Nothing is sent twice, so a call that lost a message has no time. Not here: the server's CPU (`proxy`), sipp.

use sipbox_core::sip::{Message, Method, Name, build};
use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SDP: &str = "v=0\r\no=- 2890844526 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                   m=audio 49170 RTP/AVP 9 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n";
/// Without a packet for so long, the callee looks whether it is over, and the caller whether a call is due.
const LOOK: Duration = Duration::from_millis(1);
/// After the last call, answers may come for so long.
const LAST: Duration = Duration::from_secs(1);

pub struct Parties {
    pub server: SocketAddr,
    pub caller: SocketAddr,
    pub callee: SocketAddr,
    pub cps: u32,
    pub seconds: u32,
}

/// Milliseconds of each call that was answered, ascending.
pub fn measure(parties: &Parties) -> Result<Vec<f64>> {
    let callee = UdpSocket::bind(parties.callee)?;
    callee.set_read_timeout(Some(LOOK))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| answer(&callee, &over));
        let times = call(parties);
        over.store(true, Ordering::Relaxed);
        times
    })
}

/// The callee, until it is over.
fn answer(socket: &UdpSocket, over: &AtomicBool) {
    let mut buffer = [0; 65_535];
    while !over.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let Ok(request) = Message::parse(&buffer[..length]) else { continue };
        let contact = format!("<sip:bob@{from}>", from = socket.local_addr().expect("bound"));
        let routes: Vec<String> = request
            .values(Name::RecordRoute)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        let mut headers: Vec<(&str, &str)> =
            routes.iter().map(|route| ("Record-Route", route.as_str())).collect();
        headers.push(("Contact", &contact));
        let statuses: &[u16] = match request.method() {
            Method::Invite => &[180, 200],
            Method::Ack => &[],
            _ => &[200],
        };
        for &status in statuses {
            let sdp = if status == 200 && request.method() == Method::Invite { SDP } else { "" };
            let mut headers = headers.clone();
            if !sdp.is_empty() {
                headers.push(("Content-Type", "application/sdp"));
            }
            let response = build::response(&request, status, None, Some("b"), &headers, sdp.as_bytes());
            let _ = socket.send_to(&response, from);
        }
    }
}

/// The caller: a call whenever one is due.
fn call(parties: &Parties) -> Result<Vec<f64>> {
    let socket = UdpSocket::bind(parties.caller)?;
    socket.connect(parties.server)?;
    socket.set_read_timeout(Some(LOOK))?;
    let at = socket.local_addr()?;
    let request = |method: &str, uri: &str, nth: u64, cseq: u32, more: &str, sdp: &str| {
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{method}{nth}\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@example.com>;tag=a{nth}\r\nTo: <sip:bob@example.net>{more}Call-ID: {nth}@{at}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:alice@{at}>\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        )
    };
    let (start, gap) = (Instant::now(), Duration::from_secs(1) / parties.cps);
    let wanted = u64::from(parties.cps) * u64::from(parties.seconds);
    let end = start + gap * (parties.cps * parties.seconds) + LAST;
    let (mut sent, mut buffer) = (0, [0; 65_535]);
    let (mut under_way, mut times) = (HashMap::new(), Vec::new());
    while Instant::now() < end && (sent < wanted || !under_way.is_empty()) {
        if sent < wanted && start.elapsed() >= gap * sent as u32 {
            let more = "\r\nContent-Type: application/sdp\r\n";
            let invite = request("INVITE", "sip:bob@example.net", sent, 1, more, SDP);
            under_way.insert(sent, Instant::now());
            socket.send(invite.as_bytes())?;
            sent += 1;
        }
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        let Ok(response) = Message::parse(&buffer[..length]) else {
            return Err(Error::other("what came is no message"));
        };
        let of_invite = response.header(Name::CSeq).is_some_and(|value| value.ends_with(b"INVITE"));
        if !of_invite || response.status() < 200 {
            continue;
        }
        if response.status() != 200 {
            return Err(Error::other(format!("an INVITE was answered with {}", response.status())));
        }
        let nth =
            response.call_id().and_then(|id| std::str::from_utf8(id).ok()?.split('@').next()?.parse().ok());
        let Some((nth, begun)) = nth.and_then(|nth: u64| Some((nth, under_way.remove(&nth)?))) else {
            continue;
        };
        times.push((now - begun).as_secs_f64() * 1000.0);
        let mut more = "\r\n".to_owned();
        let routes: Vec<_> = response.values(Name::RecordRoute).collect();
        for route in routes.iter().rev() {
            more += &format!("Route: {}\r\n", String::from_utf8_lossy(route));
        }
        more.insert_str(0, ";tag=b");
        let uri = format!("sip:bob@{}", parties.callee);
        socket.send(request("ACK", &uri, nth, 1, &more, "").as_bytes())?;
        socket.send(request("BYE", &uri, nth, 2, &more, "").as_bytes())?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
