//! Drop-in both ways: Kamailio drives our relay, our proxy drives rtpengine, and either opens the other's database.
//!
//! Debian's packages, unmodified (issue "Eight commands stand", deliver 5). Each test has a network of its own, with the
//! addresses 127.42.0.x in it. A call is judged by what both phones counted, by the relay's own statistics and by tshark.

#[path = "../harness/mod.rs"]
mod harness;

mod bare_phone;
#[allow(dead_code)] // the other test binary takes the rest
mod baresip;
mod database;
#[allow(dead_code)]
mod ear;
mod kamailio;
#[allow(dead_code)]
mod namespace;
mod relay_under_kamailio;
mod rtpengine;
mod witness;

use harness::{Process, TempDir, server_command};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use witness::Seen;

/// The domain of all users.
const DOMAIN: &str = "example.com";
/// What the phone plays, and what the scripted browser plays.
const PHONE_HZ: u32 = 440;
const BROWSER_HZ: u32 = 1000;
/// How long each call talks: past baresip's first RTCP report at 5 seconds.
const TALK: Duration = Duration::from_secs(7);
/// Packets that may be on their way when one counts: 200 ms.
const SLACK: u64 = 10;
/// Packets of a phone that a relay can't pass on before DTLS is up: a second.
const BEFORE_DTLS: u64 = 50;

/// One end of a call: its own count, and its stream's name.
#[derive(Clone, Copy, Debug)]
struct Party {
    name: &'static str,
    sent: u64,
    received: u64,
    ssrc: u32,
}

/// All that is wrong with a call between two; empty for a good one. `early`: what either may miss of the other;
/// `counted`: the relay's own count of what each SSRC sent.
fn faults(
    parties: [Party; 2],
    early: u64,
    seen: &BTreeMap<u32, Seen>,
    counted: &BTreeMap<u32, u64>,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |from: &Party, to: &Party, early: u64| {
        let way = format!("{} to {}", from.name, to.name);
        // 20 ms packets: a side that hardly sends proves nothing.
        let least = TALK.as_millis() as u64 / 20 * 9 / 10;
        if from.sent < least {
            faults.push(format!("{way}: only {} packets sent", from.sent));
        }
        if to.received + SLACK + early < from.sent || to.received > from.sent {
            faults.push(format!("{way}: {} of {} packets arrived", to.received, from.sent));
        }
        let wire = seen.get(&from.ssrc).copied().unwrap_or_default();
        // What comes between the two ends of a handshake, the relay has sent and the receiver can't read yet.
        let unread = wire.out.saturating_sub(to.received);
        if wire.into.abs_diff(from.sent) > SLACK || to.received > wire.out + SLACK || unread > SLACK + early {
            faults.push(format!("{way}: tshark saw {wire:?} of {} and {}", from.sent, to.received));
        }
        let counted = counted.get(&from.ssrc).copied().unwrap_or_default();
        if counted.abs_diff(wire.into) > SLACK {
            faults.push(format!("{way}: the relay counted {counted} packets of {}", wire.into));
        }
    };
    let [a, b] = &parties;
    check(a, b, early);
    check(b, a, early);
    faults
}

/// The first RTP stream of each tag in a reply to `query` or `delete`, behind its media.
fn streams(stats: &Value) -> Vec<(&Value, &Value)> {
    let tags = stats["tags"].as_object().unwrap_or_else(|| panic!("no tags in {stats}"));
    let medias = tags.values().map(|tag| &tag["medias"][0]);
    medias.map(|media| (media, &media["streams"][0])).collect()
}

fn ssrc_of(stream: &Value) -> u32 {
    stream["SSRC"]
        .as_u64()
        .and_then(|ssrc| ssrc.try_into().ok())
        .unwrap_or_else(|| panic!("no SSRC in {stream}"))
}

/// The SSRC of whoever told this address, or speaks a transport protocol with this end.
fn ssrc(stats: &Value, who: &str) -> u32 {
    let mut all = streams(stats).into_iter();
    let found = all.find(|(media, stream)| {
        media["protocol"].as_str().is_some_and(|profile| profile.ends_with(who))
            || stream["advertised endpoint"]["address"] == who
    });
    ssrc_of(found.unwrap_or_else(|| panic!("nobody is {who} in {stats}")).1)
}

/// Packets of each SSRC, as a reply to `query` or `delete` has them.
fn counted(stats: &Value) -> BTreeMap<u32, u64> {
    let packets = |stream: &Value| stream["stats"]["packets"].as_u64().unwrap_or_default();
    streams(stats).into_iter().map(|(_, stream)| (ssrc_of(stream), packets(stream))).collect()
}

/// `wsgw probe`, a WebRTC stack of its own, as bob.
fn probe(dir: &TempDir, server: &str, role: &[&str]) -> Process {
    let bob = format!("bob@{DOMAIN}");
    let seconds = TALK.as_secs().to_string();
    let tone = BROWSER_HZ.to_string();
    let mut words = vec!["probe", server, "--user", &bob, "--password-stdin", "--seconds", &seconds];
    words.extend(["--tone", &tone]);
    if server.starts_with("wss:") {
        words.push("--tls-insecure");
    }
    words.extend(role);
    Process::start_with(server_command(dir, "wsgw", &words), b"bob-password\n")
}

/// Waits until the probe is registered.
fn registered(probe: &Process) {
    let line =
        probe.stderr.wait(0, Duration::from_secs(10), |line| line.contains("is registered").then_some(()));
    assert!(line.is_some(), "{}", probe.log());
}

/// What the probe measured, at its end; it heard the phone's tone and nothing else.
fn measured(mut probe: Process) -> (u64, u64) {
    let code = probe.exit_code(Duration::from_secs(30));
    let line = probe.stdout.wait(0, Duration::from_secs(1), |line| Some(line.to_owned())).expect("a record");
    let record: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(code, 0, "{record}\n{}", probe.log());
    let media = &record["media"];
    assert_eq!(media["dtls"], "connected", "{record}");
    let tones = media["received"]["tones"].as_array().unwrap_or_else(|| panic!("{record}"));
    assert_eq!((tones.len(), &tones[0]["hz"]), (1, &PHONE_HZ.into()), "{record}");
    let packets = |way: &str| media[way]["packets"].as_u64().unwrap_or_else(|| panic!("{record}"));
    (packets("sent"), packets("received"))
}

/// The phone's decoder gave the other's tone for most of the call.
fn heard(samples: &[i16], hz: u32) {
    let heard = ear::listen(samples, 8000, hz);
    assert!(heard.share > 0.9 && heard.seconds > TALK.as_secs_f64() * 0.85, "{hz} Hz: {heard:?}");
}
