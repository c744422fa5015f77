//! Timer tables of RFC 3261 §17 and RFC 6026 on a virtual clock, over a datagram and over a stream.

use super::*;
use crate::flow::{ListenerId, Transport};
use std::time::Duration;

/// A layer, what it has sent with the time of each, and what it has told.
struct Bench {
    layer: Layer,
    start: Instant,
    now: Instant,
    sent: Vec<(u64, String)>,
    told: Vec<Event>,
}

fn target(transport: Transport) -> Target {
    let connection = transport.is_reliable().then_some(ConnectionId(1));
    let remote = "192.0.2.1:5060".parse().expect("an address");
    Target::Flow(Flow { transport, listener: ListenerId(0), remote, connection })
}

fn request<'a>(method: &'a str, branch: &'a str) -> RequestId<'a> {
    RequestId {
        method,
        branch,
        sent_by: "Client.example.com",
        uri: "sip:bob@example.com",
        from_tag: "a",
        call_id: "1",
        cseq: 1,
        in_dialog: false,
        bytes: 400,
    }
}

fn text(method: &str, branch: &str) -> Bytes {
    format!(
        "{method} sip:bob@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP proxy;branch={branch}\r\nFrom: <sip:a@x>;tag=a\r\n\
         To: <sip:b@x>\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\n\r\n"
    )
    .into()
}

impl Bench {
    fn new() -> Self {
        let start = Instant::from_secs(1_000);
        let layer = Layer::new(&mut Rng::from_seed(1), 0);
        Bench { layer, start, now: start, sent: Vec::new(), told: Vec::new() }
    }

    fn drain(&mut self) {
        while let Some((_, data)) = self.layer.poll_transmit() {
            let line = String::from_utf8_lossy(&data).lines().next().unwrap_or_default().to_owned();
            let millis = self.now.saturating_since(self.start).as_millis() as u64;
            self.sent.push((millis, line.split(' ').next().unwrap_or_default().to_owned()));
        }
        while let Some(event) = self.layer.poll_event() {
            self.told.push(event);
        }
    }

    /// Lets every timer fire up to `millis` after the start.
    fn until(&mut self, millis: u64) {
        self.drain();
        let end = self.start + Duration::from_millis(millis);
        while let Some(at) = self.layer.poll_timeout().filter(|&at| at <= end) {
            self.now = at;
            self.layer.handle_timeout(at);
            self.drain();
        }
        self.now = end;
    }

    fn ask(&mut self, method: &str, transport: Transport) -> ServerId {
        match self.layer.receive_request(self.now, &request(method, "z9hG4bKx"), target(transport)) {
            Received::New(id) => id,
            other => panic!("{method} is {other:?}, not new"),
        }
    }

    fn again(&mut self, method: &str, transport: Transport) -> Received {
        let received = self.layer.receive_request(self.now, &request(method, "z9hG4bKx"), target(transport));
        self.drain();
        received
    }

    fn answer(&mut self, id: ServerId, status: u16) -> bool {
        let sent = self.layer.respond(self.now, id, status, format!("{status} x").into());
        self.drain();
        sent
    }

    fn send(&mut self, method: &str, transport: Transport) -> ClientId {
        let id = self
            .layer
            .send_request(self.now, target(transport), method, "z9hG4bKy", text(method, "z9hG4bKy"))
            .expect("room for a transaction");
        self.drain();
        id
    }

    fn hear(&mut self, method: &str, status: u16) -> Answered {
        let id = ResponseId { branch: "z9hG4bKy", method, status, to: "<sip:b@x>;tag=b" };
        let answered = self.layer.receive_response(self.now, &id);
        self.drain();
        answered
    }

    /// Times at which `what` was sent.
    fn times(&self, what: &str) -> Vec<u64> {
        self.sent.iter().filter(|(_, sent)| sent == what).map(|(at, _)| *at).collect()
    }

    fn assert_empty(&self) {
        assert!(
            self.layer.servers.is_empty() && self.layer.server_keys.is_empty(),
            "a server transaction is left"
        );
        assert!(
            self.layer.clients.is_empty() && self.layer.client_keys.is_empty(),
            "a client transaction is left"
        );
        assert!(self.layer.connections.is_empty(), "a connection is left");
        assert_eq!(self.layer.poll_timeout(), None, "a timer is left");
    }
}

#[test]
fn invite_client_a_and_b() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", Transport::Udp);
    bench.until(31_999);
    assert_eq!(bench.times("INVITE"), [0, 500, 1500, 3500, 7500, 15500, 31500]);
    assert!(bench.told.is_empty());
    bench.until(32_000);
    assert_eq!(bench.told, [Event::TimedOut(id), Event::ClientEnded(id)]);
    bench.assert_empty();
}

#[test]
fn invite_client_over_a_stream_has_b_only() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", Transport::Tcp);
    bench.until(40_000);
    assert_eq!(bench.times("INVITE"), [0]);
    assert_eq!(bench.told, [Event::TimedOut(id), Event::ClientEnded(id)]);
    bench.assert_empty();
}

#[test]
fn invite_client_waits_for_ever_once_it_rings() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", Transport::Udp);
    bench.until(600);
    assert_eq!(bench.hear("INVITE", 180), Answered::Pass(id));
    bench.until(500_000);
    assert_eq!(bench.times("INVITE"), [0, 500]);
    assert!(bench.told.is_empty());
    assert_eq!(bench.layer.client_state(id), Some(ClientState::Proceeding));
}

#[test]
fn invite_client_acknowledges_a_failure_for_d() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", Transport::Udp);
    bench.until(100);
    assert_eq!(bench.hear("INVITE", 486), Answered::Pass(id));
    bench.until(5_000);
    assert_eq!(bench.hear("INVITE", 486), Answered::Absorbed);
    assert_eq!(bench.hear("INVITE", 180), Answered::Absorbed);
    assert_eq!(bench.hear("INVITE", 200), Answered::Absorbed);
    assert_eq!(bench.times("ACK"), [100, 5_000]);
    bench.until(32_099);
    assert!(bench.told.is_empty());
    bench.until(32_100);
    assert_eq!(bench.told, [Event::ClientEnded(id)]);
    assert_eq!(bench.hear("INVITE", 486), Answered::Stray);
    bench.assert_empty();
}

#[test]
fn invite_client_over_a_stream_ends_with_the_failure() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", Transport::Ws);
    assert_eq!(bench.hear("INVITE", 603), Answered::Pass(id));
    assert_eq!(bench.times("ACK"), [0]);
    assert_eq!(bench.told, [Event::ClientEnded(id)]);
    bench.assert_empty();
}

#[test]
fn invite_client_passes_each_2xx_for_m() {
    for transport in [Transport::Udp, Transport::Tls] {
        let mut bench = Bench::new();
        let id = bench.send("INVITE", transport);
        assert_eq!(bench.hear("INVITE", 200), Answered::Pass(id));
        bench.until(31_000);
        assert_eq!(bench.hear("INVITE", 200), Answered::Pass(id));
        assert_eq!(bench.hear("INVITE", 486), Answered::Absorbed);
        assert!(bench.times("ACK").is_empty());
        bench.until(32_000);
        assert_eq!(bench.told, [Event::ClientEnded(id)]);
        bench.assert_empty();
    }
}

#[test]
fn other_client_e_and_f() {
    let mut bench = Bench::new();
    let id = bench.send("BYE", Transport::Udp);
    bench.until(60_000);
    assert_eq!(bench.times("BYE"), [0, 500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    assert_eq!(bench.told, [Event::TimedOut(id), Event::ClientEnded(id)]);
    bench.assert_empty();
}

#[test]
fn other_client_repeats_at_t2_after_a_provisional() {
    let mut bench = Bench::new();
    let id = bench.send("OPTIONS", Transport::Udp);
    bench.until(600);
    assert_eq!(bench.hear("OPTIONS", 100), Answered::Pass(id));
    bench.until(60_000);
    assert_eq!(bench.times("OPTIONS"), [0, 500, 1500, 5500, 9500, 13500, 17500, 21500, 25500, 29500]);
    assert_eq!(bench.told, [Event::TimedOut(id), Event::ClientEnded(id)]);
}

#[test]
fn other_client_absorbs_for_k() {
    let mut bench = Bench::new();
    let id = bench.send("BYE", Transport::Udp);
    assert_eq!(bench.hear("BYE", 200), Answered::Pass(id));
    bench.until(4_999);
    assert_eq!(bench.hear("BYE", 200), Answered::Absorbed);
    bench.until(5_000);
    assert_eq!(bench.told, [Event::ClientEnded(id)]);
    bench.assert_empty();

    let mut bench = Bench::new();
    let id = bench.send("BYE", Transport::Tcp);
    assert_eq!(bench.hear("BYE", 481), Answered::Pass(id));
    assert_eq!(bench.told, [Event::ClientEnded(id)]);
    bench.assert_empty();
}

#[test]
fn invite_server_g_h_and_i() {
    let mut bench = Bench::new();
    let id = bench.ask("INVITE", Transport::Udp);
    assert!(bench.answer(id, 100));
    bench.until(1_000);
    assert_eq!(bench.again("INVITE", Transport::Udp), Received::Absorbed);
    assert_eq!(bench.times("100"), [0, 1_000]);
    assert!(bench.answer(id, 486));
    assert!(!bench.answer(id, 200), "a second final response");
    bench.until(10_000);
    assert_eq!(bench.times("486"), [1_000, 1_500, 2_500, 4_500, 8_500]);
    assert_eq!(bench.again("INVITE", Transport::Udp), Received::Absorbed);
    assert_eq!(bench.times("486").len(), 6);
    assert_eq!(bench.again("ACK", Transport::Udp), Received::Absorbed);
    bench.until(14_999);
    assert_eq!(bench.again("ACK", Transport::Udp), Received::Absorbed);
    assert_eq!(bench.again("INVITE", Transport::Udp), Received::Absorbed);
    assert_eq!(bench.times("486").len(), 6);
    bench.until(15_000);
    assert_eq!(bench.told, [Event::ServerEnded(id)]);
    bench.assert_empty();
}

#[test]
fn invite_server_gives_up_without_ack_at_h() {
    for (transport, copies) in [(Transport::Udp, 11), (Transport::Tcp, 1)] {
        let mut bench = Bench::new();
        let id = bench.ask("INVITE", transport);
        assert!(bench.answer(id, 404));
        bench.until(60_000);
        assert_eq!(bench.times("404").len(), copies, "{transport}");
        assert_eq!(bench.told, [Event::Unacknowledged(id), Event::ServerEnded(id)]);
        bench.assert_empty();
    }
}

#[test]
fn invite_server_over_a_stream_ends_with_the_ack() {
    let mut bench = Bench::new();
    let id = bench.ask("INVITE", Transport::Wss);
    assert!(bench.answer(id, 404));
    assert_eq!(bench.again("ACK", Transport::Wss), Received::Absorbed);
    assert_eq!(bench.told, [Event::ServerEnded(id)]);
    bench.assert_empty();
}

#[test]
fn invite_server_accepted_for_l() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut bench = Bench::new();
        let id = bench.ask("INVITE", transport);
        assert!(bench.answer(id, 200));
        bench.until(2_000);
        // The layer does not repeat a 2xx; whoever made it does.
        assert_eq!(bench.times("200"), [0]);
        assert_eq!(bench.again("INVITE", transport), Received::Absorbed);
        assert_eq!(bench.times("200"), [0]);
        assert!(bench.answer(id, 200));
        assert_eq!(bench.times("200"), [0, 2_000]);
        assert!(!bench.answer(id, 486));
        assert_eq!(bench.again("ACK", transport), Received::Ack(Some(id)));
        bench.until(32_000);
        assert_eq!(bench.told, [Event::ServerEnded(id)]);
        bench.assert_empty();
    }
}

#[test]
fn other_server_repeats_for_j() {
    let mut bench = Bench::new();
    let id = bench.ask("REGISTER", Transport::Udp);
    assert_eq!(bench.again("REGISTER", Transport::Udp), Received::Absorbed);
    assert!(bench.times("200").is_empty());
    assert!(bench.answer(id, 200));
    bench.until(31_000);
    assert_eq!(bench.again("REGISTER", Transport::Udp), Received::Absorbed);
    assert_eq!(bench.times("200"), [0, 31_000]);
    bench.until(32_000);
    assert_eq!(bench.told, [Event::ServerEnded(id)]);
    bench.assert_empty();

    let mut bench = Bench::new();
    let id = bench.ask("REGISTER", Transport::Tcp);
    assert!(bench.answer(id, 200));
    assert_eq!(bench.told, [Event::ServerEnded(id)]);
    bench.assert_empty();
}

#[test]
fn other_server_obeys_rfc_4320() {
    let mut bench = Bench::new();
    let id = bench.ask("OPTIONS", Transport::Udp);
    assert!(!bench.answer(id, 100), "too early");
    assert!(!bench.answer(id, 180), "never");
    bench.until(3_500);
    assert!(bench.answer(id, 100));
    assert!(!bench.answer(id, 408), "never");
    assert!(bench.times("408").is_empty());
    bench.assert_empty();

    // Nobody answered: the client gave up, and so do we.
    let mut bench = Bench::new();
    let id = bench.ask("OPTIONS", Transport::Udp);
    bench.until(32_000);
    assert!(!bench.answer(id, 200));
    assert_eq!(bench.told, [Event::ServerEnded(id)]);
    bench.assert_empty();
}

#[test]
fn cancel_is_matched_to_its_invite() {
    let mut bench = Bench::new();
    let invite = bench.ask("INVITE", Transport::Udp);
    let cancel = match bench.again("CANCEL", Transport::Udp) {
        Received::Cancel { id, invite: Some(found) } if found == invite => id,
        other => panic!("{other:?}"),
    };
    assert!(bench.answer(cancel, 200));
    assert_eq!(bench.again("CANCEL", Transport::Udp), Received::Absorbed);
    assert_eq!(bench.times("200").len(), 2);
    let other =
        bench.layer.receive_request(bench.now, &request("CANCEL", "z9hG4bKother"), target(Transport::Udp));
    assert!(matches!(other, Received::Cancel { invite: None, .. }), "{other:?}");
}

#[test]
fn keys_mind_sent_by_and_not_its_case() {
    let mut bench = Bench::new();
    bench.ask("INVITE", Transport::Udp);
    let mut same = request("INVITE", "z9hG4bKx");
    same.sent_by = "client.EXAMPLE.com";
    assert_eq!(bench.layer.receive_request(bench.now, &same, target(Transport::Udp)), Received::Absorbed);
    let mut other = request("INVITE", "z9hG4bKx");
    other.sent_by = "client.example.com:5062";
    assert!(matches!(
        bench.layer.receive_request(bench.now, &other, target(Transport::Udp)),
        Received::New(_)
    ));
}

#[test]
fn requests_of_rfc_2543_match_by_their_fields() {
    let mut bench = Bench::new();
    let old = request("INVITE", "1");
    let Received::New(id) = bench.layer.receive_request(bench.now, &old, target(Transport::Udp)) else {
        panic!()
    };
    assert_eq!(bench.layer.receive_request(bench.now, &old, target(Transport::Udp)), Received::Absorbed);
    let mut next = old;
    next.cseq = 2;
    assert!(matches!(
        bench.layer.receive_request(bench.now, &next, target(Transport::Udp)),
        Received::New(_)
    ));
    bench.answer(id, 404);
    let mut ack = old;
    ack.method = "ACK";
    assert_eq!(bench.layer.receive_request(bench.now, &ack, target(Transport::Udp)), Received::Absorbed);
    assert_eq!(bench.layer.server_state(id), Some(ServerState::Confirmed));
}

#[test]
fn a_cancel_waits_for_the_first_provisional_response() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", Transport::Udp);
    bench.layer.cancel(bench.now, id);
    bench.until(700);
    assert!(bench.times("CANCEL").is_empty());
    assert_eq!(bench.hear("INVITE", 100), Answered::Pass(id));
    assert_eq!(bench.times("CANCEL"), [700]);
    bench.layer.cancel(bench.now, id);
    bench.until(800);
    assert_eq!(bench.hear("CANCEL", 200), Answered::Absorbed);
    assert_eq!(bench.times("CANCEL"), [700], "cancelled twice");
    assert_eq!(bench.hear("INVITE", 487), Answered::Pass(id));
    assert_eq!(bench.times("ACK"), [800]);
    bench.until(60_000);
    assert_eq!(bench.told, [Event::ClientEnded(id)]);
    bench.assert_empty();
}

#[test]
fn a_cancelled_invite_ends_though_no_final_response_comes() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", Transport::Tcp);
    bench.hear("INVITE", 180);
    bench.layer.cancel(bench.now, id);
    bench.until(60_000);
    assert_eq!(bench.told, [Event::TimedOut(id), Event::ClientEnded(id)]);
    bench.assert_empty();
}

#[test]
fn a_lost_connection_fails_what_hangs_on_it() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", Transport::Wss);
    let Target::Flow(flow) = target(Transport::Wss) else { unreachable!() };
    bench.layer.flow_closed(&flow);
    bench.drain();
    assert_eq!(bench.told, [Event::TransportFailed(id), Event::ClientEnded(id)]);
    bench.assert_empty();

    let mut bench = Bench::new();
    let id = bench.send("BYE", Transport::Udp);
    bench.layer.send_failed("BYE", "z9hG4bKy");
    bench.drain();
    assert_eq!(bench.told, [Event::TransportFailed(id), Event::ClientEnded(id)]);
    bench.assert_empty();
}

#[test]
fn branches_tell_their_worker() {
    let mut rng = Rng::from_seed(7);
    let branch = Layer::new(&mut rng, 0x2a).branch(&mut rng);
    assert!(branch.starts_with("z9hG4bK2a"), "{branch}");
    assert_eq!(Layer::worker_of(&branch), Some(0x2a));
    assert_eq!(Layer::worker_of("z9hG4bK\u{e9}\u{e9}"), None);
}

#[test]
fn the_table_of_transactions_is_bounded() {
    let mut bench = Bench::new();
    for n in 0..limits::TRANSACTIONS {
        let branch = format!("z9hG4bK{n}");
        let got =
            bench.layer.receive_request(bench.now, &request("OPTIONS", &branch), target(Transport::Udp));
        assert!(matches!(got, Received::New(_)), "{n}: {got:?}");
    }
    assert_eq!(bench.again("OPTIONS", Transport::Udp), Received::Overload);
}

#[test]
fn merged_requests_are_known_to_a_user_agent_server_only() {
    let copy = |branch: &'static str| request("MESSAGE", branch);
    for knowing in [false, true] {
        let mut bench = Bench::new();
        if knowing {
            bench.layer = Layer::new(&mut Rng::from_seed(2), 0).knowing_merged();
        }
        let mut ask = |id: &RequestId<'_>| {
            let got = bench.layer.receive_request(bench.now, id, target(Transport::Udp));
            let Received::New(server) = got else { panic!("{got:?}") };
            (server, bench.layer.is_merged(server))
        };
        let (first, merged) = ask(&copy("z9hG4bKone"));
        assert!(!merged, "the first copy");
        assert_eq!(ask(&copy("z9hG4bKtwo")).1, knowing, "another way");
        assert!(!ask(&RequestId { cseq: 2, ..copy("z9hG4bKthree") }).1, "another request");
        assert!(!ask(&RequestId { in_dialog: true, ..copy("z9hG4bKfour") }).1, "in a dialog");
        // What was refused may come again with the same CSeq; what was taken may not.
        assert!(bench.layer.respond(bench.now, first, 401, "401 x".into()));
        let mut ask = |branch: &'static str| {
            let got = bench.layer.receive_request(bench.now, &copy(branch), target(Transport::Udp));
            let Received::New(server) = got else { panic!("{got:?}") };
            (server, bench.layer.is_merged(server))
        };
        let (again, merged) = ask("z9hG4bKfive");
        assert!(!merged);
        assert!(bench.layer.respond(bench.now, again, 200, "200 x".into()));
        let mut other = copy("z9hG4bKsix");
        other.from_tag = "b";
        let got = bench.layer.receive_request(bench.now, &other, target(Transport::Udp));
        assert!(matches!(got, Received::New(id) if !bench.layer.is_merged(id)), "another caller");
    }
}

#[test]
fn the_bytes_of_transactions_are_bounded_and_given_back() {
    let mut bench = Bench::new();
    let large = 1 << 20;
    let most = limits::TRANSACTION_BYTES / large;
    for n in 0..most {
        let branch = format!("z9hG4bK{n}");
        let id = RequestId { bytes: large, ..request("OPTIONS", &branch) };
        let got = bench.layer.receive_request(bench.now, &id, target(Transport::Udp));
        assert!(matches!(got, Received::New(_)), "{n}: {got:?}");
    }
    assert_eq!(bench.layer.held().bytes, limits::TRANSACTION_BYTES);
    assert_eq!(bench.again("INVITE", Transport::Udp), Received::Overload);
    let sent = bench.layer.send_request(
        bench.now,
        target(Transport::Udp),
        "BYE",
        "z9hG4bKb",
        text("BYE", "z9hG4bKb"),
    );
    assert_eq!(sent, None);
    // A response goes out all the same; it is not kept.
    let id = ServerId(1);
    assert!(bench.answer(id, 200));
    assert_eq!(bench.layer.held().bytes, limits::TRANSACTION_BYTES);
    bench.until(40_000);
    assert_eq!(bench.layer.held(), Held::default());
    assert!(matches!(
        bench.layer.receive_request(bench.now, &request("OPTIONS", "z9hG4bKlater"), target(Transport::Udp)),
        Received::New(_)
    ));
}
