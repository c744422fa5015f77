//! The main job, seen from outside: a browser and a SIP phone, neither written here, call each other through sipbox.
//!
//! Headless Chromium with JsSIP over WSS on one side, baresip on the other (issue "First call", "It must show").
//! A call is judged by what each peer's own decoder heard, and by each peer's own count of packets.

#[path = "../harness/mod.rs"]
mod harness;

mod baresip;
mod chromium;
mod deployment;
mod ear;
mod namespace;
mod offers;

use baresip::{Baresip, Counts};
use chromium::{Chromium, Report};
use deployment::{DOMAIN, Deployment};
use harness::{Process, TempDir, server_command};
use namespace::{PHONE, PROXY, RELAY, iptables};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// What the phone plays, and what the browser plays.
const PHONE_HZ: u32 = 440;
const BROWSER_HZ: u32 = 1000;
/// How long each call talks.
const TALK: Duration = Duration::from_secs(10);
/// The part of the packets of one side that must arrive at the other.
const LEAST_ARRIVING: f64 = 0.95;

/// Both phones, registered, on a house of their own.
struct Scene {
    // Dropped in this order: the peers go before their servers.
    browser: Chromium,
    phone: Baresip,
    house: Deployment,
}

impl Scene {
    fn set() -> Self {
        let web_root: PathBuf = chromium::web_root();
        namespace::enter();
        let house = Deployment::start(&web_root);
        let phone = phone(&house);
        let mut browser = Chromium::open(&format!("https://{}/", house.web()));
        browser.register(&format!("wss://{}/", house.web()), "bob", DOMAIN, BROWSER_HZ);
        Scene { browser, phone, house }
    }

    /// One of them calls; gives control back when both know that the call is up, and DTLS is.
    fn call(&mut self, caller: Caller, count: usize) {
        match caller {
            Caller::Browser => self.browser.call(&format!("sip:alice@{DOMAIN}")),
            Caller::Phone => self.phone.dial(&format!("sip:bob@{DOMAIN}")),
        }
        self.phone.wait("CALL_ESTABLISHED", Duration::from_secs(15));
        self.browser.wait("confirmed", count);
        self.browser.wait_dtls();
    }

    /// One of them hangs up; both must know it, and the relay must hold nothing more.
    fn hang_up(&mut self, who: Caller, count: usize) {
        match who {
            Caller::Browser => self.browser.hangup(),
            Caller::Phone => self.phone.hangup(),
        }
        self.browser.wait("ended", count);
        // Each end tells it, and the browser by whom: one that gave up by itself would say "local".
        let by = if who == Caller::Browser { "local" } else { "remote" };
        assert_eq!(self.browser.last("ended")["originator"], by);
        self.phone.wait("CALL_CLOSED", Duration::from_secs(5));
        self.house.wait_freed();
    }
}

/// Alice's phone, registered.
fn phone(house: &Deployment) -> Baresip {
    let proxy = house.proxy.address("udp");
    assert_eq!(proxy.ip().to_string(), PROXY);
    Baresip::start(house.dir(), PHONE, "alice", DOMAIN, proxy, PHONE_HZ)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Browser,
    Phone,
}

/// What both peers say of one call.
struct Evidence {
    browser: Report,
    phone: Counts,
    /// 8 kHz.
    phone_heard: Vec<i16>,
}

/// All that is wrong with a call; empty for a good one.
fn faults(evidence: &Evidence, talked: Duration) -> Vec<String> {
    let mut faults = Vec::new();
    let Evidence { browser, phone, phone_heard } = evidence;
    if browser.dtls != "connected" {
        faults.push(format!("DTLS is {}", browser.dtls));
    }
    let mut arriving = |way: &str, sent: u64, received: u64| {
        // 20 ms packets: a side that hardly sends proves nothing.
        let least = talked.as_millis() as u64 / 20 * 9 / 10;
        if sent < least {
            faults.push(format!("{way}: {sent} packets sent, in {talked:?}"));
        }
        if (received as f64) < sent as f64 * LEAST_ARRIVING {
            faults.push(format!("{way}: {received} of {sent} packets arrived"));
        }
    };
    arriving("browser to phone", browser.sent, phone.received);
    arriving("phone to browser", phone.sent, browser.received);
    let mut tone = |who: &str, heard: ear::Heard| {
        if heard.share < 0.9 || heard.seconds < talked.as_secs_f64() * 0.85 {
            faults.push(format!(
                "{who} heard the other's tone for {} s, {:.3} of all",
                heard.seconds, heard.share
            ));
        }
    };
    tone("the phone", ear::listen(phone_heard, 8000, BROWSER_HZ));
    tone("the browser", ear::listen(&browser.samples, browser.rate, PHONE_HZ));
    faults
}

/// The same evidence with the two recordings exchanged, and with each of them silent: the judge must see all three.
fn judge_is_not_blind(evidence: Evidence) {
    let Evidence { browser, phone, phone_heard } = evidence;
    let silent = vec![0; phone_heard.len()];
    let deaf_phone = Evidence { browser, phone, phone_heard: silent };
    assert!(!faults(&deaf_phone, TALK).is_empty(), "a muted browser passes");
    let Evidence { mut browser, phone, .. } = deaf_phone;
    let heard = std::mem::take(&mut browser.samples);
    let deaf_browser = Evidence { browser, phone, phone_heard: phone_heard.clone() };
    assert!(!faults(&deaf_browser, TALK).is_empty(), "a muted phone passes");
    let mut swapped = deaf_browser;
    swapped.browser.samples = phone_heard;
    let heard_at = swapped.browser.rate as usize;
    // To the phone's 8 kHz, as coarsely as it goes: a tone stays a tone.
    swapped.phone_heard = heard.into_iter().step_by((heard_at / 8000).max(1)).collect();
    swapped.browser.rate = 8000;
    assert!(!faults(&swapped, TALK).is_empty(), "swapped media pass");
}

fn one_call(scene: &mut Scene, caller: Caller, hangs_up: Caller, index: usize) -> Evidence {
    scene.call(caller, index + 1);
    assert_eq!(scene.house.relay_calls().len(), 1, "the call goes through the relay");
    // Two plain ones for the phone's RTP and RTCP, and one or two for the browser, by who offered.
    let ports = scene.house.relay_ports();
    assert!((3..=4).contains(&ports.len()), "ports of one call: {ports:?}");
    std::thread::sleep(TALK);
    let browser = scene.browser.report();
    scene.hang_up(hangs_up, index + 1);
    Evidence { browser, phone: scene.phone.counts(index), phone_heard: scene.phone.heard(index) }
}

#[test]
fn browser_and_phone_call_each_other() {
    let mut scene = Scene::set();
    let evidence = one_call(&mut scene, Caller::Browser, Caller::Phone, 0);
    assert_eq!(faults(&evidence, TALK), [""; 0], "browser to phone");
    judge_is_not_blind(evidence);
    let evidence = one_call(&mut scene, Caller::Phone, Caller::Browser, 1);
    assert_eq!(faults(&evidence, TALK), [""; 0], "phone to browser");
}

#[test]
fn a_relay_that_stops_forwarding_is_seen() {
    let mut scene = Scene::set();
    scene.call(Caller::Browser, 1);
    // Everything that the relay sends is lost from here on, but for the ng protocol.
    let control = scene.house.relay_control().port();
    iptables(&format!("-A OUTPUT -p udp -s {RELAY} ! --sport {control} -j DROP"));
    std::thread::sleep(TALK);
    let browser = scene.browser.report();
    scene.hang_up(Caller::Browser, 1);
    let evidence = Evidence { browser, phone: scene.phone.counts(0), phone_heard: scene.phone.heard(0) };
    let faults = faults(&evidence, TALK);
    // Both go on sending, so it is what does not arrive that is seen.
    for (way, what) in [
        ("browser to phone", "packets arrived"),
        ("phone to browser", "packets arrived"),
        ("the phone heard", ""),
        ("the browser heard", ""),
    ] {
        let seen = faults.iter().any(|found| found.starts_with(way) && found.ends_with(what));
        assert!(seen, "{way}: not among {faults:?}");
    }
    assert!(!faults.iter().any(|found| found.contains("packets sent")), "{faults:?}");
}

/// The relay's records of the streams of one call: from the phone, and from the browser.
fn streams(scene: &Scene) -> (Value, Value) {
    let end = scene.house.call_end(0);
    let call_id = &end["call_id"];
    let of = |event: &'static str| {
        let all = scene.house.relay.records().into_iter();
        all.filter(move |record| record["event"] == event && record["call_id"] == *call_id)
    };
    let caller = of("call-start").next().map(|start| start["from_tag"].clone()).expect("a call-start");
    // The browser called.
    let from = |browser: bool| {
        of("stream-stats").find(|stream| (stream["tag"] == caller) == browser).expect("a stream-stats")
    };
    (from(false), from(true))
}

#[test]
fn loss_shows_in_the_direction_that_has_it() {
    let mut scene = Scene::set();
    scene.call(Caller::Browser, 1);
    // Every twentieth packet that the phone sends, so 5 %; the other three ways are whole.
    let port = scene.house.relay_port("RTP/AVP");
    iptables(&format!(
        "-A INPUT -p udp -d {RELAY} --dport {port} -m statistic --mode nth --every 20 --packet 0 -j DROP"
    ));
    std::thread::sleep(TALK);
    scene.hang_up(Caller::Browser, 1);
    let (phone, browser) = streams(&scene);
    let number =
        |record: &Value, name: &str| record[name].as_f64().unwrap_or_else(|| panic!("no {name} in {record}"));
    let (lossy, clean) = (number(&phone, "loss_percent"), number(&browser, "loss_percent"));
    assert!((4.0..6.0).contains(&lossy), "the phone's stream lost {lossy} %: {phone}");
    assert!(clean < 0.5, "the browser's stream lost {clean} %: {browser}");
    let (lossy, clean) = (number(&phone, "mos"), number(&browser, "mos"));
    // G.107 with G.113's Bpl of 25.1 for G.711 with concealment gives 3.93 for 5 %, and 4.41 for none.
    assert!(lossy < clean - 0.3 && clean > 4.3, "MOS {lossy} with loss, {clean} without: {phone} {browser}");
    assert_eq!(phone["mos_model"], browser["mos_model"]);
    // The reply to `delete`, which the record of the end repeats, says the same.
    let measured = scene.house.call_end(0)["stats"]["measured"].clone();
    for (stream, name) in [(&phone, "the phone"), (&browser, "the browser")] {
        let same = |entry: &&Value| entry["SSRC"] == stream["ssrc"] && entry["lost"] == stream["lost"];
        let found = measured.as_array().and_then(|entries| entries.iter().find(same));
        assert!(found.is_some(), "{name} is not as in stream-stats: {measured}");
    }
}

/// The page of `scripts/demo --keep`, used as a user would: sign in, call, mute, press a key, hang up.
#[test]
fn the_web_phone_calls() {
    let web_root = chromium::webphone_root();
    namespace::enter();
    let house = Deployment::start(&web_root);
    let mut phone = phone(&house);
    let mut page = Chromium::open(&format!("https://{}/?user=bob&domain={DOMAIN}", house.web()));
    page.fill("input[name=password]", "bob-password");
    page.click("#account button");
    page.fill("input[name=target]", "alice");
    page.click("#dial button.primary");
    phone.wait("CALL_ESTABLISHED", Duration::from_secs(15));
    page.click("#mute");
    assert_eq!(page.read("#peer"), format!("alice@{DOMAIN}"));
    page.click("#keys button:first-child");
    std::thread::sleep(Duration::from_secs(2));
    page.click("#hangup");
    phone.wait("CALL_CLOSED", Duration::from_secs(5));
    house.wait_freed();
    let counts = phone.counts(0);
    assert!(counts.received > 50, "{counts:?}");
}

/// `wsgw probe` and the phone call each other; the probe tells what it heard, and its exit code whether.
#[test]
fn the_probe_and_a_phone_call_each_other() {
    namespace::enter();
    let root = TempDir::new();
    let house = Deployment::start(root.path());
    let mut phone = phone(&house);
    let server = format!("wss://{}/", house.web());
    let alice = format!("alice@{DOMAIN}");
    let bob = format!("bob@{DOMAIN}");
    let flags = ["--password-stdin", "--tls-insecure", "--seconds", "3", "--tone", "1000"];
    let probe = |more: &[&str], password: &str| {
        let mut words = vec!["probe", server.as_str(), "--user", bob.as_str()];
        words.extend(flags);
        words.extend(more);
        Process::start_with(server_command(house.dir(), "wsgw", &words), password.as_bytes())
    };
    let check = |mut probe: Process, heard_by_phone: Vec<i16>| {
        let code = probe.exit_code(Duration::from_secs(20));
        let line =
            probe.stdout.wait(0, Duration::from_secs(1), |line| Some(line.to_owned())).expect("a record");
        let record: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(code, 0, "{record}\n{}", probe.log());
        let media = &record["media"];
        assert_eq!(media["dtls"], "connected", "{record}");
        assert_eq!(media["received"]["tones"][0]["hz"], PHONE_HZ, "{record}");
        assert!(media["received"]["packets"].as_u64() > Some(120), "{record}");
        let heard = ear::listen(&heard_by_phone, 8000, 1000);
        assert!(heard.seconds > 2.5, "{heard:?}");
    };

    let caller = probe(&["--call", &alice], "bob-password");
    phone.wait("CALL_CLOSED", Duration::from_secs(20));
    check(caller, phone.heard(0));

    let callee = probe(&["--answer"], "bob-password");
    let registered =
        callee.stderr.wait(0, Duration::from_secs(10), |line| line.contains("is registered").then_some(()));
    assert!(registered.is_some(), "{}", callee.log());
    phone.dial(&format!("sip:{bob}"));
    phone.wait("CALL_CLOSED", Duration::from_secs(20));
    check(callee, phone.heard(1));

    let mut stranger = probe(&["--call", &alice], "wrong");
    assert_eq!(stranger.exit_code(Duration::from_secs(20)), 1);
    assert!(stranger.log().contains("refused to register"), "{}", stranger.log());
    let nobody = format!("nobody@{DOMAIN}");
    let mut lost = probe(&["--call", &nobody], "bob-password");
    assert_eq!(lost.exit_code(Duration::from_secs(20)), 1);
    assert!(lost.log().contains("no call: 404"), "{}", lost.log());
}

#[test]
fn a_probe_without_a_gateway_says_so() {
    namespace::enter();
    let words =
        ["wsgw", "probe", "ws://127.0.0.1:9/", "--user", "bob@example.com", "--password-stdin", "--answer"];
    let done = harness::run(&words, b"x");
    assert_eq!(done.code, 69, "{done:?}");
    assert!(done.stderr.contains("ws://127.0.0.1:9/: Connection refused"), "{done:?}");
}
