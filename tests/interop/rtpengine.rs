//! Our proxy drives Debian's rtpengine 10.5, unmodified: a phone and a browser's stack call each other through proxy, registrar
//! and wsgw, with that in the relay's place.

use crate::baresip::Baresip;
use crate::harness::{Process, Server, TempDir, ng, run_in};
use crate::namespace;
use crate::witness::Witness;
use crate::{
    BEFORE_DTLS, BROWSER_HZ, DOMAIN, PHONE_HZ, Party, TALK, faults, heard, measured, probe, registered, ssrc,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PROXY: &str = "127.42.0.5";
const REGISTRAR: &str = "127.42.0.6";
const WSGW: &str = "127.42.0.7";
const RTPENGINE: &str = "127.42.0.4";
const ALICE: &str = "127.42.0.11";
const WITHIN: Duration = Duration::from_secs(10);

/// Starts rtpengine without its kernel part, and waits until it answers.
fn rtpengine(control: SocketAddr) -> Process {
    let mut command = Command::new("rtpengine");
    command.args(["--config-file=none", "--table=-1", "--foreground", "--log-stderr", "--log-level=6"]);
    command.args(["--port-min=41000", "--port-max=41999", "--num-threads=2", "--delete-delay=0"]);
    command.arg(format!("--interface={RTPENGINE}")).arg(format!("--listen-ng={control}"));
    let mut process = Process::start(command);
    let deadline = Instant::now() + WITHIN;
    // Nobody listens on its port until it does.
    while !namespace::udp_ports(RTPENGINE).contains(&control.port()) {
        let ended = process.wait(Duration::ZERO);
        assert!(ended.is_none() && Instant::now() < deadline, "rtpengine: {ended:?}\n{}", process.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ng(control, &json!({ "command": "ping" }))["result"], "pong");
    process
}

/// Packets of each SSRC in the statistics that rtpengine writes when a call is deleted; which side's stands with the port.
fn final_stats(rtpengine: &Process, call_id: &str) -> BTreeMap<u32, u64> {
    let mine =
        |line: &str| line.contains(&format!("[{call_id}]")) || line.contains(&format!("\"{call_id}\""));
    let done = rtpengine
        .stderr
        .wait(0, WITHIN, |line| (mine(line) && line.contains("Final packet stats")).then_some(()));
    assert!(done.is_some(), "no final statistics of {call_id}:\n{}", rtpengine.log());
    // They are written in one go, behind that line.
    std::thread::sleep(Duration::from_millis(300));
    let mut counted = BTreeMap::new();
    for line in rtpengine.stderr.all().iter().filter(|line| mine(line) && !line.contains("(RTCP)")) {
        let Some((_, rest)) = line.split_once("--- Port ").and_then(|(_, rest)| rest.split_once(", SSRC "))
        else {
            continue;
        };
        let words: Vec<&str> = rest.split([',', ' ']).filter(|word| !word.is_empty()).collect();
        if let [ssrc, packets, "p", ..] = words[..] {
            let ssrc = u32::from_str_radix(ssrc, 16).unwrap_or_else(|_| panic!("{line}"));
            counted.insert(ssrc, packets.parse().unwrap_or_else(|_| panic!("{line}")));
        }
    }
    counted
}

#[test]
fn rtpengine_carries_the_media_of_our_proxy_s_calls() {
    namespace::enter();
    let dir = Arc::new(TempDir::new());
    let control: SocketAddr = format!("{RTPENGINE}:2223").parse().expect("an address");
    let rtpengine = rtpengine(control);
    let db = format!("sqlite:{}", dir.join("sipbox.db").display());
    for user in ["alice", "bob"] {
        let aor = format!("{user}@{DOMAIN}");
        let words = ["registrar", "user", "add", &aor, "--password-stdin", "--db", &db];
        let done = run_in(&dir, &words, format!("{user}-password\n").as_bytes());
        assert_eq!(done.code, 0, "{done:?}");
    }
    let start = |command: &str, args: &[&str]| {
        let mut all = vec!["--domain", DOMAIN, "--events", "-"];
        all.extend(args);
        Server::start_in(Arc::clone(&dir), command, &all)
    };
    let (edge, gate) = (format!("{PROXY}/32"), format!("{WSGW}/32"));
    let listen = |address: &str, transport: &str| format!("{transport}:{address}:0");
    let registrar = start(
        "registrar",
        &["--db", &db, "--listen", &listen(REGISTRAR, "udp"), "--edge", &edge, "--edge", &gate],
    );
    let (register_at, relay) = (format!("sip:{}", registrar.address("udp")), format!("udp:{control}"));
    let (udp, tcp) = (listen(PROXY, "udp"), listen(PROXY, "tcp"));
    let mut words = vec!["--db", &db, "--listen", &udp, "--listen", &tcp, "--edge", &gate];
    words.extend(["--registrar", &register_at, "--relay", &relay]);
    let proxy = start("proxy", &words);
    let upstream = format!("sip:{};transport=tcp", proxy.address("tcp"));
    let (wss, sip) = (listen(WSGW, "wss"), listen(WSGW, "tcp"));
    let wsgw = start(
        "wsgw",
        &["--listen", &wss, "--tls-self-signed", "--sip-listen", &sip, "--upstream", &upstream],
    );
    let mut alice = Baresip::start(&dir, ALICE, "alice", DOMAIN, proxy.address("udp"), PHONE_HZ);

    let server = format!("wss://{}/", wsgw.address("wss"));
    for (index, browser_calls) in [(0, true), (1, false)] {
        let witness = Witness::start(&dir);
        let browser = if browser_calls {
            probe(&dir, &server, &["--call", &format!("alice@{DOMAIN}")])
        } else {
            let browser = probe(&dir, &server, &["--answer"]);
            registered(&browser);
            alice.dial(&format!("sip:bob@{DOMAIN}"));
            browser
        };
        alice.wait("CALL_ESTABLISHED", Duration::from_secs(15));
        std::thread::sleep(TALK / 2);
        // Who is who in this call.
        let calls = ng(control, &json!({ "command": "list" }))["calls"].clone();
        let call_id = calls[0].as_str().unwrap_or_else(|| panic!("no call at rtpengine: {calls}")).to_owned();
        let stats = ng(control, &json!({ "command": "query", "call-id": call_id }));
        let (bob, phone) = (ssrc(&stats, "RTP/SAVPF"), ssrc(&stats, "RTP/AVP"));
        alice.wait("CALL_CLOSED", Duration::from_secs(30));
        let (sent, received) = measured(browser);
        let seen = witness.count(control.ip(), 41_000..=41_999);
        let mut counted = final_stats(&rtpengine, &call_id);
        let all: u64 = counted.values().sum();
        // RTCP that shares a port with RTP is counted with it there.
        for (ssrc, packets) in &mut counted {
            *packets -= seen.get(ssrc).map_or(0, |seen| seen.rtcp);
        }
        let counts = alice.counts(index);
        let parties = [
            Party { name: "bob", sent, received, ssrc: bob },
            Party { name: "alice", sent: counts.sent, received: counts.received, ssrc: phone },
        ];
        assert_eq!(faults(parties, BEFORE_DTLS, &seen, &counted), [""; 0], "{stats}\n{}", rtpengine.log());
        heard(&alice.heard(index), BROWSER_HZ);

        // What rtpengine answered to our `delete`.
        let told = |record: &Value| record["event"] == "call-media" && record["call_id"] == call_id.as_str();
        let media = proxy.wait_record(WITHIN, told).unwrap_or_else(|| panic!("{:?}", proxy.records()));
        let number =
            |name: &str| media[name].as_str().and_then(|n| n.parse::<f64>().ok()).unwrap_or_default();
        assert!((number("rtp_packets") - all as f64).abs() <= 2.0, "{media}; {counted:?}");
        assert!(number("rtcp_packets") >= 1.0, "{media}");
        assert_eq!(ng(control, &json!({ "command": "list" }))["calls"], json!([]), "deleted");
    }
    // A flag of ours that it does not know did no harm: it says so, and goes on.
    let unknown = rtpengine.stderr.all().into_iter().find(|line| line.contains("strip-browser"));
    assert!(unknown.is_some(), "{}", rtpengine.log());
    assert!(
        !proxy.records().iter().any(|record| record["event"] == "relay-refused"),
        "{:?}",
        proxy.records()
    );
}
