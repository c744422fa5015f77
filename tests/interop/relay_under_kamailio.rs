//! Kamailio's own `rtpengine` module drives our relay: phone to phone, browser to phone, phone to browser, with the flags of the
//! deployment that sipbox reproduces; the statistics that it gets back; and a relay that goes and comes again.

use crate::baresip::Baresip;
use crate::harness::{Server, TempDir, ng};
use crate::kamailio::Kamailio;
use crate::namespace::{self, udp_ports};
use crate::witness::Witness;
use crate::{BEFORE_DTLS, BROWSER_HZ, DOMAIN, PHONE_HZ, Party, TALK};
use crate::{counted, faults, heard, measured, probe, registered, ssrc};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const KAMAILIO: &str = "127.42.0.2";
const RELAY: &str = "127.42.0.3";
const ALICE: &str = "127.42.0.11";
const CAROL: &str = "127.42.0.12";
const CAROL_HZ: u32 = 700;

/// Kamailio with our relay, and phones that are registered there.
struct House {
    carol: Baresip,
    alice: Baresip,
    kamailio: Kamailio,
    relay: Server,
    dir: Arc<TempDir>,
}

impl House {
    fn start(flags: &[&str]) -> Self {
        namespace::enter();
        let dir = Arc::new(TempDir::new());
        let relay = relay(&dir, 0);
        let (sip, web) = (format!("{KAMAILIO}:5060"), format!("{KAMAILIO}:8080"));
        let control = format!("udp:{}", relay.address("udp"));
        let fill = [("SIP", sip.as_str()), ("WS", &web), ("RELAY", &control)];
        let kamailio = Kamailio::start(&dir, "relay.cfg", &fill, flags, "UTC");
        let phone = |address, user, hz| {
            Baresip::start(&dir, address, user, DOMAIN, sip.parse().expect("an address"), hz)
        };
        let (alice, carol) = (phone(ALICE, "alice", PHONE_HZ), phone(CAROL, "carol", CAROL_HZ));
        House { carol, alice, kamailio, relay, dir }
    }

    /// The relay's record of the end of call number `index` (from 0): it holds what `delete` was answered.
    fn call_end(&self, index: usize) -> Value {
        let mut seen = 0;
        let found = self.relay.process.stdout.wait(1, Duration::from_secs(5), |line| {
            let record: Value = serde_json::from_str(line).ok()?;
            let end = record["event"] == "call-end";
            seen += usize::from(end);
            (end && seen > index).then_some(record)
        });
        found.unwrap_or_else(|| panic!("no call-end; {:?}\n{}", self.relay.records(), self.relay.stderr()))
    }

    /// Alice calls Carol, and one of them hangs up after a while.
    fn phones_talk(&mut self, talk: Duration) {
        self.alice.dial(&format!("sip:carol@{DOMAIN}"));
        for phone in [&mut self.alice, &mut self.carol] {
            phone.wait("CALL_ESTABLISHED", Duration::from_secs(10));
        }
        std::thread::sleep(talk);
        self.carol.hangup();
        for phone in [&mut self.alice, &mut self.carol] {
            phone.wait("CALL_CLOSED", Duration::from_secs(5));
        }
    }

    /// What Kamailio read from the replies of the relay to `query` and `delete` is what the relay says of this call.
    fn kamailio_read(&self, stats: &Value) {
        let totals = &stats["totals"];
        let number = |kind: &str, of: &str| totals[kind][of].as_u64().unwrap_or_else(|| panic!("{stats}"));
        let before = self.kamailio.wait_log("before: ");
        let words: Vec<&str> = before.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
        let (rtp, rtcp) = match words[..] {
            [
                "RTP:",
                _,
                "bytes",
                rtp,
                "packets",
                _,
                "errors",
                "RTCP:",
                _,
                "bytes",
                rtcp,
                "packets",
                _,
                "errors",
            ] => (rtp.parse::<u64>().expect("a number"), rtcp.parse::<u64>().expect("a number")),
            _ => panic!("$rtpstat is {before:?}"),
        };
        // The query came a moment before the delete.
        assert!(rtp > 0 && number("RTP", "packets") - rtp <= 5, "{before}, then {totals}");
        assert!(rtcp > 0 && number("RTCP", "packets") - rtcp <= 2, "{before}, then {totals}");

        let deleted = self.kamailio.wait_log("deleted: ");
        let read = |name: &str| {
            let value = deleted.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value
                .and_then(|value| value.parse::<f64>().ok())
                .unwrap_or_else(|| panic!("no {name} in {deleted}"))
        };
        // Kamailio's figures are the mean over the sources that have any.
        let sources = stats["SSRC"].as_object().unwrap_or_else(|| panic!("{stats}"));
        let mean = |part: &str, name: &str| {
            let all: Vec<f64> = sources.values().filter_map(|source| source[part][name].as_f64()).collect();
            assert!(!all.is_empty(), "no {part} {name} in {stats}");
            all.iter().sum::<f64>() / all.len() as f64
        };
        for (name, part) in [("average", "average MOS"), ("lowest", "lowest MOS"), ("highest", "highest MOS")]
        {
            let (kamailio, ours) = (read(name), mean(part, "MOS") / 10.0);
            assert!((kamailio - ours).abs() < 0.06 && kamailio > 4.0, "{name}: {deleted}; {stats}");
        }
        for (name, of) in [
            ("loss", "packet loss"),
            ("jitter", "jitter"),
            ("roundtrip", "round-trip time"),
            ("samples", "samples"),
        ] {
            assert!((read(name) - mean("average MOS", of)).abs() <= 1.0, "{name}: {deleted}; {stats}");
        }
        assert!(read("samples") >= 1.0, "{deleted}");
        // The media are gone, so a query after the delete finds nothing.
        assert!(deleted.ends_with("after="), "{deleted}");
        assert_eq!(ng(self.relay.address("udp"), &json!({ "command": "list" }))["calls"], json!([]));
        assert_eq!(udp_ports(RELAY), [self.relay.address("udp").port()]);
    }
}

fn relay(dir: &Arc<TempDir>, port: u16) -> Server {
    let control = format!("udp:{RELAY}:{port}");
    let words = ["--control", &control, "--interface", RELAY, "--port-range", "40000-40999", "--events", "-"];
    Server::start_in(Arc::clone(dir), "relay", &words)
}

fn witness(house: &House) -> Witness {
    Witness::start(&house.dir)
}

fn count(witness: Witness) -> std::collections::BTreeMap<u32, crate::witness::Seen> {
    witness.count(RELAY.parse().expect("an address"), 40_000..=40_999)
}

#[test]
fn phones_talk_through_our_relay() {
    // With offer, answer and delete by name, and with `rtpengine_manage`, which finds out by itself.
    for flags in [&[][..], &["-A", "MANAGE"]] {
        let mut house = House::start(flags);
        let witness = witness(&house);
        house.phones_talk(TALK);
        let seen = count(witness);
        let stats = house.call_end(0)["stats"].clone();
        let party = |name, phone: &Baresip, address| {
            let counts = phone.counts(0);
            Party { name, sent: counts.sent, received: counts.received, ssrc: ssrc(&stats, address) }
        };
        let parties = [party("alice", &house.alice, ALICE), party("carol", &house.carol, CAROL)];
        let packets = counted(&stats);
        assert_eq!(faults(parties, 0, &seen, &packets), [""; 0], "{flags:?}: {stats}");
        heard(&house.alice.heard(0), CAROL_HZ);
        heard(&house.carol.heard(0), PHONE_HZ);
        house.kamailio_read(&stats);
        // The same call by anybody else's count is no good one.
        let mut wrong = parties;
        wrong[0].sent += 100;
        assert_ne!(faults(wrong, 0, &seen, &packets), [""; 0]);
        assert_ne!(faults(parties, 0, &Default::default(), &packets), [""; 0]);
        assert_ne!(faults(parties, 0, &seen, &Default::default()), [""; 0]);
    }
}

#[test]
fn a_browser_and_a_phone_talk_through_our_relay() {
    let mut house = House::start(&[]);
    let server = format!("ws://{KAMAILIO}:8080/");
    let talk = |house: &mut House, index: usize, browser_calls: bool| {
        let witness = witness(house);
        let browser = if browser_calls {
            probe(&house.dir, &server, &["--call", &format!("alice@{DOMAIN}")])
        } else {
            let browser = probe(&house.dir, &server, &["--answer"]);
            registered(&browser);
            house.alice.dial(&format!("sip:bob@{DOMAIN}"));
            browser
        };
        house.alice.wait("CALL_ESTABLISHED", Duration::from_secs(15));
        house.alice.wait("CALL_CLOSED", Duration::from_secs(30));
        let (sent, received) = measured(browser);
        let seen = count(witness);
        let stats = house.call_end(index)["stats"].clone();
        let browser = Party { name: "bob", sent, received, ssrc: ssrc(&stats, "RTP/SAVPF") };
        let counts = house.alice.counts(index);
        let phone = Party {
            name: "alice",
            sent: counts.sent,
            received: counts.received,
            ssrc: ssrc(&stats, "RTP/AVP"),
        };
        assert_eq!(faults([browser, phone], BEFORE_DTLS, &seen, &counted(&stats)), [""; 0], "{stats}");
        heard(&house.alice.heard(index), BROWSER_HZ);
        stats
    };
    let stats = talk(&mut house, 0, true);
    house.kamailio_read(&stats);
    talk(&mut house, 1, false);
}

/// Kamailio goes without a relay that is away, says so, and takes it again when it is back.
#[test]
fn kamailio_does_without_our_relay_and_takes_it_again() {
    let mut house = House::start(&[]);
    let control = house.relay.address("udp");
    let uri = format!("udp:{control}");
    let disabled = |house: &House| {
        let shown = house.kamailio.rpc(&["rtpengine.show", "all"]);
        assert!(shown.contains(&format!("url: {uri}")), "{shown}");
        shown
            .lines()
            .find_map(|line| line.trim().strip_prefix("disabled: ").map(str::to_owned))
            .expect("a state")
    };
    // What it asks itself: `ping`, and the administrator's word.
    assert_eq!(disabled(&house), "0");
    let told = |house: &House, words: &[&str], status: &str| {
        let answer = house.kamailio.rpc(words);
        assert!(answer.contains(&format!("status: {status}")), "{words:?}: {answer}{}", house.kamailio.log());
    };
    told(&house, &["rtpengine.ping", &uri], "success");
    told(&house, &["rtpengine.enable", &uri, "0"], "disable");
    assert!(disabled(&house).starts_with('1'), "{}", disabled(&house));
    told(&house, &["rtpengine.enable", &uri, "1"], "enable");
    assert_eq!(disabled(&house), "0");

    let second = Duration::from_secs(1);
    house.phones_talk(second);
    assert!(house.call_end(0)["stats"]["totals"]["RTP"]["packets"].as_u64() > Some(50));

    house.relay.process.kill();
    told(&house, &["rtpengine.ping", &uri], "fail");
    house.phones_talk(second);
    house.kamailio.wait_log("no relay for");
    assert!(disabled(&house).starts_with('1'), "{}", disabled(&house));
    // The phones found each other without it: this is what a call around the relay looks like.
    assert!(house.carol.counts(1).received > 30);
    assert_eq!(udp_ports(RELAY), [0u16; 0]);

    house.relay = relay(&house.dir, control.port());
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut calls = 2;
    loop {
        house.phones_talk(second);
        calls += 1;
        if house.relay.records().iter().any(|record| record["event"] == "call-end") {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "Kamailio does not take the relay again\n{}",
            house.kamailio.log()
        );
    }
    assert_eq!(disabled(&house), "0");
    assert!(house.call_end(0)["stats"]["totals"]["RTP"]["packets"].as_u64() > Some(50));
    assert!(house.carol.counts(calls - 1).received > 30);
}
