//! The relay's control side against an engine that is a list.

use super::*;
use crate::media::bridge::{BridgeStats, Counter};
use crate::media::plan::{BridgeId, LegPlan, Security};
use crate::media::stats::{Sample, StreamStats};
use std::collections::BTreeMap;

/// What the control side did, and what it is told.
#[derive(Default)]
struct List {
    next: u16,
    open: Vec<(BridgeId, Side, Ports)>,
    plans: Vec<(BridgeId, Side, LegPlan)>,
    marks: Vec<(BridgeId, u8)>,
    closed: Vec<BridgeId>,
    stats: BTreeMap<BridgeId, BridgeStats>,
    full: bool,
    /// There is an IPv6 interface too.
    v6: bool,
}

impl Engine for List {
    fn open(&mut self, bridge: BridgeId, side: Side, want: &Want) -> Result<Ports, PortError> {
        if self.full {
            return Err(PortError::Exhausted);
        }
        if want.interface.as_deref().is_some_and(|name| name != "lan") {
            return Err(PortError::NoInterface);
        }
        let v6 = want.family == Some(Family::V6);
        if v6 && !self.v6 {
            return Err(PortError::NoInterface);
        }
        let port = 10_000 + self.next;
        self.next += 2;
        let (host, advertised) =
            if v6 { ("[2001:db8::1]", "2001:db8::1") } else { ("10.0.0.1", "198.51.100.1") };
        let address = |port| format!("{host}:{port}").parse().unwrap();
        let ports =
            Ports { rtp: address(port), rtcp: address(port + 1), advertised: advertised.parse().unwrap() };
        self.open.push((bridge, side, ports));
        Ok(ports)
    }

    fn apply(&mut self, bridge: BridgeId, side: Side, plan: LegPlan) {
        assert!(
            self.open.iter().any(|(b, s, _)| (*b, *s) == (bridge, side)),
            "a plan for a leg that is not open"
        );
        self.plans.push((bridge, side, plan));
    }

    fn mark(&mut self, bridge: BridgeId, tos: u8) {
        self.marks.push((bridge, tos));
    }

    fn stats(&mut self, bridge: BridgeId) -> Option<BridgeStats> {
        let open = self.open.iter().any(|(b, _, _)| *b == bridge);
        open.then(|| self.stats.get(&bridge).cloned().unwrap_or_default())
    }

    fn close(&mut self, bridge: BridgeId) {
        self.open.retain(|(b, _, _)| *b != bridge);
        self.closed.push(bridge);
    }
}

const PHONE: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 20002 RTP/AVP 8 0\r\na=sendrecv\r\n";
const BROWSER: &str = "v=0\r\no=- 2 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 50001 UDP/TLS/RTP/SAVPF 8\r\n\
c=IN IP4 203.0.113.20\r\na=ice-ufrag:Ab1/\r\na=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa\r\na=setup:active\r\na=rtcp-mux\r\n\
a=fingerprint:sha-256 7E:E1\r\na=candidate:1 1 udp 2122260223 203.0.113.20 50001 typ host\r\na=sendrecv\r\n";

const SOURCE: &str = "192.0.2.5:2224";
const T0: Instant = Instant(1_565_592_060_343_987);

struct Case {
    relay: Relay,
    engine: List,
    now: Instant,
    cookie: u32,
}

impl Case {
    fn new() -> Self {
        let fingerprint = Fingerprint { hash: "sha-256".to_owned(), digest: vec![0xab; 32] };
        let timeout = Duration::from_secs(60);
        let config = Config {
            timeout,
            silent_timeout: Duration::from_secs(3600),
            final_timeout: None,
            max_calls: usize::MAX,
            delete_delay: Duration::ZERO,
            sip_source: false,
            learning: Learning::Immediate,
            fingerprint,
            fingerprints: Vec::new(),
        };
        Case { relay: Relay::new(config, Rng::from_seed(7)), engine: List::default(), now: T0, cookie: 0 }
    }

    fn raw(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        self.relay.handle_request(self.now, SOURCE.parse().unwrap(), data, &mut self.engine)
    }

    fn ask(&mut self, request: &Dict) -> Dict {
        self.cookie += 1;
        let cookie = format!("c{}", self.cookie);
        let reply = self.raw(&ng::encode_message(cookie.as_bytes(), ng::Encoding::Bencode, request)).unwrap();
        let reply = ng::decode_message(&reply).unwrap();
        assert_eq!(reply.cookie, cookie.as_bytes());
        reply.dict
    }

    fn records(&mut self) -> Vec<serde_json::Value> {
        std::iter::from_fn(|| self.relay.poll_record())
            .map(|r| serde_json::from_str(&r.line).unwrap())
            .collect()
    }
}

fn request(command: &str, from: &str, to: &str) -> Dict {
    let dict = Dict::new().with("command", command).with("call-id", "c@example.com").with("from-tag", from);
    if to.is_empty() { dict } else { dict.with("to-tag", to) }
}

fn to_webrtc(dict: Dict, sdp: &str) -> Dict {
    dict.with("sdp", sdp)
        .with("ICE", "force")
        .with("DTLS", "passive")
        .with("SDES", ["off"])
        .with("transport-protocol", "RTP/SAVPF")
        .with("rtcp-mux", ["offer"])
        .with("flags", ["generate-mid"])
        .with("replace", ["origin", "session-connection"])
}

fn to_sip(dict: Dict, sdp: &str) -> Dict {
    dict.with("sdp", sdp)
        .with("ICE", "remove")
        .with("DTLS", "off")
        .with("SDES", ["off"])
        .with("transport-protocol", "RTP/AVP")
        .with("rtcp-mux", ["demux"])
        .with("flags", ["trust-address", "strip-browser"])
        .with("replace", ["origin", "session-connection"])
}

/// A phone calls a browser; both descriptions that came out.
fn call(case: &mut Case) -> (String, String) {
    let offer = case.ask(&to_webrtc(request("offer", "alice", ""), PHONE).with("via-branch", "z9hG4bK1.0"));
    let answer =
        case.ask(&to_sip(request("answer", "alice", "bob"), BROWSER).with("via-branch", "z9hG4bK1.0"));
    assert_eq!(
        (offer.get_str("result"), answer.get_str("result")),
        (Some("ok"), Some("ok")),
        "{offer:?} {answer:?}"
    );
    (offer.get_str("sdp").unwrap().to_owned(), answer.get_str("sdp").unwrap().to_owned())
}

/// A leg with ICE has ports of both families, and all of them are closed.
#[test]
fn a_browser_gets_candidates_of_both_families() {
    let mut case = Case::new();
    case.engine.v6 = true;
    let (offer, _) = call(&mut case);
    for candidate in [
        " 1 UDP 2130706431 198.51.100.1 10000 typ host",
        " 1 UDP 2130706175 2001:db8::1 10002 typ host",
        " 2 UDP 2130706430 198.51.100.1 10001 typ host",
        " 2 UDP 2130706174 2001:db8::1 10003 typ host",
    ] {
        assert!(offer.contains(candidate), "{candidate}: {offer}");
    }
    let ice = case.engine.plans[1].2.ice.as_ref().unwrap();
    let expected: Vec<SocketAddr> =
        vec!["10.0.0.1:10000".parse().unwrap(), "[2001:db8::1]:10002".parse().unwrap()];
    assert_eq!(ice.local_candidates, expected);
    assert_eq!(case.engine.open.len(), 3);
    case.ask(&request("delete", "alice", "bob"));
    assert!(case.engine.open.is_empty());
}

/// Two phones behind one branch answer one after the other: the last has the media, and both are known later.
#[test]
fn another_tag_answers_the_same_offer() {
    let mut case = Case::new();
    case.ask(&request("offer", "alice", "").with("sdp", PHONE));
    for (tag, from, to) in [("bob", "alice", "bob"), ("carol", "alice", "carol")] {
        let answer = case.ask(&request("answer", from, to).with("sdp", PHONE));
        assert_eq!(answer.get_str("result"), Some("ok"), "{tag}: {answer:?}");
    }
    let open = case.engine.open.len();
    for (from, to) in [("carol", "alice"), ("bob", "alice"), ("carol", "")] {
        let back = case.ask(&request("offer", from, to).with("sdp", PHONE));
        assert_eq!(back.get_str("result"), Some("ok"), "{from}: {back:?}");
    }
    assert_eq!(case.engine.open.len(), open, "the same call");
    assert_eq!(case.relay.call_count(), 1);
}

#[test]
fn a_call_from_offer_to_delete() {
    let mut case = Case::new();
    let (offer, answer) = call(&mut case);
    assert!(
        offer.contains("m=audio 10000 RTP/SAVPF 8 0\r\n") && offer.contains("a=setup:actpass\r\n"),
        "{offer}"
    );
    assert!(answer.contains("m=audio 10002 RTP/AVP 8\r\n"), "{answer}");
    let sides: Vec<Side> = case.engine.plans.iter().map(|(_, side, _)| *side).collect();
    assert_eq!(sides, [Side::Answerer, Side::Answerer, Side::Offerer]);
    assert!(matches!(case.engine.plans[1].2.security, Security::Dtls(_)));
    assert_eq!(case.relay.call_count(), 1);
    let listed = case.ask(&Dict::new().with("command", "list"));
    assert_eq!(listed.get_list("calls").unwrap()[0].as_str(), Some("c@example.com"));

    case.now = T0 + Duration::from_secs(37);
    let reply = case.ask(&request("delete", "alice", "bob"));
    assert_eq!(reply.get_str("result"), Some("ok"));
    assert!(case.engine.open.is_empty() && case.relay.is_idle());
    let again = case.ask(&request("delete", "alice", "bob"));
    assert_eq!(again.get_str("warning"), Some("Call-ID not found or tags didn't match"));
    assert_eq!(again.get_str("result"), Some("ok"));
    let fatal = case.ask(&request("delete", "alice", "bob").with("flags", ["fatal"]));
    assert_eq!(fatal.get_str("result"), Some("error"));
    let records = case.records();
    let names: Vec<&str> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["call-start", "call-end", "ng-refused"]);
    assert_eq!(records[1]["reason"], "delete");
    assert_eq!(records[1]["seconds"], 37.0);
}

fn sample(second: u64, round_trip: u64, jitter: u32, lost: u8) -> Sample {
    Sample {
        at: Instant::from_secs(1_565_592_000 + second),
        fraction_lost: lost,
        jitter_us: jitter * 1000 + 300,
        round_trip: Some(Duration::from_micros(round_trip)),
    }
}

/// The seed's call: its counters and its receiver reports give its reply, but for what a kernel module says of itself.
#[test]
fn the_reply_to_delete_is_the_seeds() {
    let mut case = Case::new();
    call(&mut case);
    let bridge = case.engine.plans[0].0;
    let at = |seconds| Some(Instant::from_secs(seconds));
    let stream = |ssrc, reported| StreamStats {
        ssrc,
        payload_type: 8,
        clock_rate: 8000,
        encoding: Some("PCMA".to_owned()),
        packets: 1000,
        bytes: 172_000,
        lost: 0,
        expected: 1000,
        jitter_us: 2000,
        first: T0,
        last: T0,
        measured: Vec::new(),
        reported,
        round_trip: None,
        far_end: None,
    };
    let mut stats = BridgeStats::default();
    stats.answerer.rtp = Counter { packets: 1575, bytes: 268_988, errors: 0, last: at(1_565_592_097) };
    stats.answerer.remote_rtp = Some("203.0.113.20:3017".parse().unwrap());
    stats.answerer.suite = Some(crate::media::srtp::Suite::AesCm128HmacSha1_80);
    stats.answerer.streams = vec![stream(2_071_600_809, Vec::new())];
    stats.offerer.rtp = Counter { packets: 1090, bytes: 187_321, errors: 1, last: at(1_565_592_086) };
    stats.offerer.rtcp = Counter { packets: 6, bytes: 368, errors: 0, last: at(1_565_592_086) };
    stats.offerer.remote_rtp = Some("192.0.2.10:45310".parse().unwrap());
    let reports = vec![sample(75, 249_450, 0, 11), sample(79, 261_626, 1, 0), sample(85, 380_912, 8, 0)];
    stats.offerer.streams = vec![stream(201_209_520, reports)];
    case.engine.stats.insert(bridge, stats);

    let reply = case.ask(&request("query", "alice", ""));
    let json: serde_json::Value = serde_json::from_str(&reply.encode_json()).unwrap();
    assert_eq!((&json["created"], &json["created_us"]), (&1_565_592_060.into(), &343_987.into()));
    assert_eq!(json["SSRC"]["2071600809"], serde_json::json!({}));
    let mut mos = json["SSRC"]["201209520"].clone();
    assert_eq!(mos["MOS model"], "legacy-2019");
    mos.as_object_mut().unwrap().remove("MOS model");
    assert_eq!(
        mos,
        serde_json::json!({
            "average MOS": {"MOS": 41, "round-trip time": 297_329, "jitter": 3, "packet loss": 1, "samples": 3},
            "lowest MOS": {"MOS": 40, "round-trip time": 249_450, "jitter": 0, "packet loss": 4, "reported at": 1_565_592_075},
            "highest MOS": {"MOS": 43, "round-trip time": 261_626, "jitter": 1, "packet loss": 0, "reported at": 1_565_592_079},
            "MOS progression": {"interval": 1, "entries": [
                {"MOS": 40, "round-trip time": 249_450, "jitter": 0, "packet loss": 4, "reported at": 1_565_592_075},
                {"MOS": 43, "round-trip time": 261_626, "jitter": 1, "packet loss": 0, "reported at": 1_565_592_079},
                {"MOS": 42, "round-trip time": 380_912, "jitter": 8, "packet loss": 0, "reported at": 1_565_592_085},
            ]}
        })
    );
    let browser = &json["tags"]["bob"];
    assert_eq!(
        browser,
        &serde_json::json!({
            "tag": "bob", "via-branch": "z9hG4bK1.0", "created": 1_565_592_060, "in dialogue with": "alice",
            "medias": [{
                "index": 1, "type": "audio", "protocol": "RTP/SAVPF",
                "streams": [
                    {
                        "local port": 10000,
                        "endpoint": {"family": "IPv4", "address": "203.0.113.20", "port": 3017},
                        "advertised endpoint": {"family": "IPv4", "address": "203.0.113.20", "port": 50001},
                        "crypto suite": "AES_CM_128_HMAC_SHA1_80", "last packet": 1_565_592_097,
                        "flags": ["RTP", "RTCP", "filled", "confirmed", "DTLS fingerprint verified", "ICE"],
                        "SSRC": 2_071_600_809u32,
                        "stats": {"packets": 1575, "bytes": 268_988, "errors": 0}
                    },
                    {
                        "local port": 10001, "endpoint": {}, "advertised endpoint": {},
                        "crypto suite": "AES_CM_128_HMAC_SHA1_80", "last packet": 1_565_592_060,
                        "flags": ["RTCP", "fallback RTCP", "filled", "ICE"],
                        "SSRC": 2_071_600_809u32,
                        "stats": {"packets": 0, "bytes": 0, "errors": 0}
                    }
                ],
                "flags": ["initialized", "send", "recv", "rtcp-mux", "DTLS-SRTP", "DTLS role passive", "ICE", "ICE controlling"]
            }]
        })
    );
    let phone = &json["tags"]["alice"]["medias"][0];
    assert_eq!(phone["flags"], serde_json::json!(["initialized", "send", "recv"]));
    assert_eq!(phone["streams"][0]["flags"], serde_json::json!(["RTP", "filled", "confirmed"]));
    assert_eq!(phone["streams"][1]["advertised endpoint"]["port"], 20003);
    assert_eq!(
        json["totals"],
        serde_json::json!({"RTP": {"packets": 2665, "bytes": 456_309, "errors": 1}, "RTCP": {"packets": 6, "bytes": 368, "errors": 0}})
    );
    let measured = &json["measured"][0];
    assert_eq!((&measured["MOS"], &measured["MOS model"]), (&44.into(), &"g107-lq".into()));

    case.ask(&request("delete", "alice", ""));
    let records = case.records();
    let of = |name: &str| records.iter().filter(|record| record["event"] == name).collect::<Vec<_>>();
    assert_eq!(of("stream-stats").len(), 2);
    assert_eq!(of("stream-stats")[0]["mos_model"], "g107-lq");
    assert_eq!(of("call-end")[0]["stats"], json_without_result(&json));
}

fn json_without_result(json: &serde_json::Value) -> serde_json::Value {
    let mut json = json.clone();
    json.as_object_mut().unwrap().remove("result");
    json
}

#[test]
fn a_repeated_request_gets_the_same_reply() {
    let mut case = Case::new();
    let offer = to_webrtc(request("offer", "alice", ""), PHONE);
    let message = ng::encode_message(b"same", ng::Encoding::Json, &offer);
    let first = case.raw(&message).unwrap();
    assert!(first.starts_with(b"same {"));
    assert_eq!(case.raw(&message).unwrap(), first);
    assert_eq!(case.engine.plans.len(), 1);
    // Another client may use the same cookie.
    let other =
        case.relay.handle_request(case.now, "192.0.2.6:1".parse().unwrap(), &message, &mut case.engine);
    assert_ne!(other.unwrap(), b"");
    assert_eq!(case.engine.plans.len(), 2);
    // The same offer under a new cookie: the same ports and secrets.
    let again = ng::encode_message(b"else", ng::Encoding::Json, &offer);
    assert_eq!(case.raw(&again).unwrap()[4..], first[4..]);
    assert_eq!(case.engine.open.len(), 1);
}

#[test]
fn what_is_wrong_is_answered() {
    let mut case = Case::new();
    assert_eq!(case.raw(b"no-cookie"), None);
    assert_eq!(
        case.raw(b"c d3:abc"),
        Some(b"c d6:result5:error12:error-reason40:the message ends within a value (byte 6)e".to_vec())
    );
    assert!(case.raw(b"j {\"command\":").unwrap().starts_with(b"j {\"result\":\"error\""));
    assert_eq!(case.raw(b"p d7:command4:pinge").unwrap(), b"p d6:result4:ponge");
    let reason = |reply: Dict| {
        assert_eq!(reply.get_str("result"), Some("error"));
        reply.get_str("error-reason").unwrap().to_owned()
    };
    assert_eq!(reason(case.ask(&Dict::new())), "no command");
    assert_eq!(reason(case.ask(&Dict::new().with("command", "dance"))), "unknown command 'dance'");
    assert_eq!(reason(case.ask(&Dict::new().with("command", "offer"))), "no call-id");
    let long = Dict::new().with("command", "offer").with("call-id", "x".repeat(2000));
    assert_eq!(reason(case.ask(&long)), "call-id is too long");
    let bad = reason(case.ask(&to_sip(request("offer", "alice", ""), "hello")));
    // The proxy tells an SDP that is none (488) from a relay that is full (503) by these words.
    assert!(bad.starts_with("Failed to parse SDP") && !bad.contains("port"), "{bad}");
    assert!(
        reason(case.ask(&to_sip(request("answer", "alice", "bob"), PHONE))).starts_with("unknown call-id")
    );
    assert_eq!(reason(case.ask(&request("query", "alice", ""))), "Unknown call-id");
    let interface = to_sip(request("offer", "alice", ""), PHONE).with("direction", ["lan", "moon"]);
    assert_eq!(reason(case.ask(&interface)), "Ran out of ports: no interface moon");
    case.engine.full = true;
    assert!(reason(case.ask(&to_sip(request("offer", "alice", ""), PHONE))).starts_with("Ran out of ports"));
    assert!(case.relay.is_idle() && case.engine.open.is_empty());
    case.engine.full = false;
    case.relay.drain();
    let reply = case.ask(&to_sip(request("offer", "alice", ""), PHONE));
    assert_eq!(reply.get_str("result"), Some("load limit"));
}

#[test]
fn branches_come_and_go_alone() {
    let mut case = Case::new();
    for via in ["z9hG4bK1.0", "z9hG4bK1.1"] {
        case.ask(&to_webrtc(request("offer", "alice", ""), PHONE).with("via-branch", via));
    }
    assert_eq!(case.engine.open.len(), 2);
    assert_eq!(case.relay.call_count(), 1);
    let answer =
        case.ask(&to_sip(request("answer", "alice", "bob"), BROWSER).with("via-branch", "z9hG4bK1.1"));
    assert_eq!(answer.get_str("result"), Some("ok"));
    case.ask(&request("delete", "alice", "").with("via-branch", "z9hG4bK1.0"));
    assert_eq!((case.engine.open.len(), case.engine.closed.len()), (2, 1));

    // Bob holds: his offer finds the dialog by its tags, whatever its branch.
    let hold = BROWSER.replace("a=sendrecv", "a=sendonly").replace("active", "actpass");
    let offer = case.ask(&to_sip(request("offer", "bob", "alice"), &hold).with("via-branch", "z9hG4bK9"));
    assert!(offer.get_str("sdp").unwrap().contains("a=sendonly\r\n"), "{offer:?}");
    let held = PHONE.replace("a=sendrecv", "a=recvonly");
    let answer =
        case.ask(&to_webrtc(request("answer", "bob", "alice"), &held).with("via-branch", "z9hG4bK9"));
    assert!(answer.get_str("sdp").unwrap().contains("a=setup:passive\r\n"), "{answer:?}");
    assert_eq!(case.engine.open.len(), 2);
    // BYE of Bob.
    let reply = case.ask(&request("delete", "bob", "alice"));
    assert_eq!(reply.get_dict("tags").unwrap().len(), 2);
    assert!(case.engine.open.is_empty() && case.relay.is_idle());
}

#[test]
fn an_offer_that_comes_late_is_answered_in_the_ack() {
    let mut case = Case::new();
    let offer = case.ask(&to_sip(request("offer", "bob", "alice"), &BROWSER.replace("active", "actpass")));
    assert_eq!(offer.get_str("result"), Some("ok"), "{offer:?}");
    let answer = case.ask(&to_webrtc(request("answer", "bob", "alice"), PHONE));
    assert!(answer.get_str("sdp").unwrap().contains("a=setup:passive\r\n"), "{answer:?}");
    assert_eq!(case.engine.open.len(), 2);
}

#[test]
fn silence_ends_a_call_and_a_held_one_later() {
    let mut case = Case::new();
    call(&mut case);
    let bridge = case.engine.plans[0].0;
    let mut stats = BridgeStats::default();
    stats.offerer.rtp.last = Some(T0 + Duration::from_secs(50));
    case.engine.stats.insert(bridge, stats);
    let step = |case: &mut Case| {
        let at = case.relay.poll_timeout().unwrap();
        case.now = at;
        case.relay.handle_timeout(at, &mut case.engine);
        at.saturating_since(T0).as_secs()
    };
    assert_eq!(step(&mut case), 60);
    assert_eq!(case.relay.call_count(), 1);
    assert_eq!(step(&mut case), 110);
    assert!(case.relay.is_idle() && case.engine.open.is_empty());
    let records = case.records();
    assert_eq!(records.last().unwrap()["reason"], "timeout");
    assert_eq!(case.relay.poll_timeout(), None);

    // Ringing for long is no silence, nor is a hold.
    let mut case = Case::new();
    case.ask(&to_webrtc(request("offer", "alice", ""), PHONE));
    assert_eq!(step(&mut case), 60);
    assert_eq!(case.relay.call_count(), 1);
    assert_eq!(step(&mut case), 3600);
    assert!(case.relay.is_idle());
    assert_eq!(case.records().last().unwrap()["reason"], "silent-timeout");
}

/// A call that is deleted with a delay, and offered again before it ends, is a call like any other.
#[test]
fn a_new_offer_keeps_a_call_that_was_deleted() {
    for (offered_again, reason, seconds) in [(false, "delete", 5), (true, "timeout", 62)] {
        let mut case = Case::new();
        call(&mut case);
        case.now = case.now + Duration::from_secs(2);
        let delete = case.ask(&request("delete", "alice", "").with("delete-delay", 3i64));
        assert_eq!(delete.get_str("result"), Some("ok"));
        assert!(case.engine.closed.is_empty());
        if offered_again {
            call(&mut case);
        }
        case.records();
        while case.engine.closed.is_empty() {
            case.now = case.relay.poll_timeout().unwrap();
            case.relay.handle_timeout(case.now, &mut case.engine);
        }
        assert_eq!(case.now, T0 + Duration::from_secs(seconds));
        assert_eq!(case.records().last().unwrap()["reason"], reason);
    }
    let mut case = Case::new();
    call(&mut case);
    for bad in [-1i64, 86_401] {
        let delete = case.ask(&request("delete", "alice", "").with("delete-delay", bad));
        assert_eq!(delete.get_str("result"), Some("error"), "{bad}");
    }
}

#[test]
fn refused_media_frees_its_ports() {
    let mut case = Case::new();
    let two = PHONE.to_owned() + "m=video 20004 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n";
    case.ask(&to_webrtc(request("offer", "alice", ""), &two));
    assert_eq!(case.engine.open.len(), 2);
    let answer = BROWSER.to_owned() + "m=video 0 UDP/TLS/RTP/SAVPF 96\r\n";
    let answer = case.ask(&to_sip(request("answer", "alice", "bob"), &answer));
    assert!(answer.get_str("sdp").unwrap().contains("m=video 0 RTP/AVP 96\r\n"), "{answer:?}");
    assert_eq!(case.engine.open.len(), 2, "both legs of audio");
    assert_eq!(case.engine.closed.len(), 1);
}

#[test]
fn kept_replies_are_bounded() {
    let mut case = Case::new();
    for number in 0..limits::NG_COOKIES + 10 {
        case.raw(format!("n{number} d7:command4:pinge").as_bytes()).unwrap();
    }
    assert_eq!(case.relay.cookies.len(), limits::NG_COOKIES);
    case.now = T0 + Duration::from_secs(31);
    case.raw(b"last d7:command4:pinge").unwrap();
    assert_eq!(case.relay.cookies.len(), 1);
}

proptest::proptest! {
    /// Whatever a peer sends: it is answered or dropped, and what was opened can be closed.
    #[test]
    fn any_requests_are_survived(steps in proptest::collection::vec((0..6usize, 0..3usize, 0..3usize, 0..4usize), 0..40)) {
        let mut case = Case::new();
        for (command, from, to, sdp) in steps {
            let tags = ["alice", "bob", ""];
            let command = ["offer", "answer", "delete", "query", "offer", "answer"][command];
            let dict = request(command, tags[from], tags[to]);
            let sdp = [PHONE, BROWSER, "v=0\r\n", "junk"][sdp];
            case.ask(&if sdp == BROWSER { to_sip(dict, sdp) } else { to_webrtc(dict, sdp) });
        }
        case.relay.close_all(case.now, &mut case.engine);
        proptest::prop_assert!(case.relay.is_idle());
        proptest::prop_assert!(case.engine.open.is_empty());
    }
}
