//! A browser's stack that is not ours (the `webrtc` crate) and a phone that speaks plain RTP, through the relay's own
//! workers, in both directions of calling.

use super::*;
use crate::probe::media::Media;
use serde_json::{Value, json};
use sipbox_core::relay::Engine as _;
use std::net::{IpAddr, SocketAddr};
use tokio::net::UdpSocket;

const PACKETS: u16 = 150;

struct House {
    relay: Relay,
    workers: Workers,
    clock: Clock,
    notices: tokio::sync::mpsc::UnboundedReceiver<sipbox_io::media::Notice>,
    cookie: u32,
}

impl House {
    fn new(range: &str) -> House {
        let clock = Clock::start();
        let ports = Allocator::new(vec!["127.0.5.10".parse().unwrap()], range.parse().unwrap()).unwrap();
        let identity = certificate::self_signed().unwrap();
        let (notify, notices) = tokio::sync::mpsc::unbounded_channel();
        let workers = Workers::start(1, ports, &identity, clock, move |notice| {
            let _ = notify.send(notice);
        })
        .unwrap();
        let config = Config {
            fingerprint: Fingerprint { hash: "sha-256".into(), digest: identity.sha256() },
            fingerprints: Vec::new(),
            timeout: Duration::from_secs(60),
            silent_timeout: Duration::from_secs(60),
            final_timeout: None,
            max_calls: usize::MAX,
            delete_delay: Duration::ZERO,
            sip_source: false,
            learning: Learning::Immediate,
        };
        House { relay: Relay::new(config, entropy::rng().unwrap()), workers, clock, notices, cookie: 0 }
    }

    fn ask(&mut self, mut request: Value) -> Value {
        request["call-id"] = "call".into();
        self.cookie += 1;
        let datagram = format!("{} {request}", self.cookie);
        let source = "127.0.0.1:5000".parse().unwrap();
        let reply = self
            .relay
            .handle_request(self.clock.now(), source, datagram.as_bytes(), &mut self.workers)
            .expect("a reply");
        let reply = String::from_utf8(reply).unwrap();
        let reply: Value = serde_json::from_str(reply.split_once(' ').unwrap().1).unwrap();
        assert_eq!(reply["result"], "ok", "{reply}");
        reply
    }
}

/// The flags of the seed, by who receives the SDP.
fn toward(browser: bool, mut request: Value) -> Value {
    let flags = if browser {
        json!({ "ICE": "force", "DTLS": "passive", "SDES": ["off"], "transport-protocol": "RTP/SAVPF",
            "rtcp-mux": ["offer"], "flags": ["generate-mid", "trust-address"] })
    } else {
        json!({ "ICE": "remove", "DTLS": "off", "SDES": ["off"], "transport-protocol": "RTP/AVP",
            "rtcp-mux": ["demux"], "flags": ["trust-address"] })
    };
    for (key, value) in flags.as_object().unwrap() {
        request[key] = value.clone();
    }
    request["replace"] = json!(["origin", "session-connection"]);
    request
}

fn sdp(address: SocketAddr) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\n\
         a=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n",
        ip = address.ip(),
        port = address.port()
    )
}

fn port_of(reply: &Value) -> SocketAddr {
    let sdp = reply["sdp"].as_str().unwrap();
    let line = sdp.lines().find_map(|line| line.strip_prefix("m=audio ")).unwrap();
    SocketAddr::new("127.0.5.10".parse().unwrap(), line.split(' ').next().unwrap().parse().unwrap())
}

/// Sends in real time, and counts what arrives.
async fn talk(phone: &UdpSocket, to: SocketAddr) -> u64 {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let (mut sequence, mut heard, mut buffer) = (0u16, 0, [0; 2048]);
    while sequence < PACKETS {
        tokio::select! {
            _ = ticks.tick() => {
                let mut packet = vec![0x80, 8];
                packet.extend(sequence.to_be_bytes());
                packet.extend((u32::from(sequence) * 160).to_be_bytes());
                packet.extend(7u32.to_be_bytes());
                packet.extend([0xd5; 160]);
                phone.send_to(&packet, to).await.unwrap();
                sequence += 1;
            }
            received = phone.recv_from(&mut buffer) => {
                let (length, from) = received.unwrap();
                assert_eq!((from, length), (to, 172));
                assert_eq!(buffer[1] & 0x7f, 8, "PCMA");
                heard += 1;
            }
        }
    }
    heard
}

async fn call(browser_calls: bool) {
    let mut house = House::new(if browser_calls { "33000-33019" } else { "33020-33039" });
    let phone = UdpSocket::bind("127.0.5.11:0").await.unwrap();
    let browser = Media::new(IpAddr::from([127, 0, 5, 12]), 0x0b0b_0b0b).await.unwrap();
    let phone_sdp = sdp(phone.local_addr().unwrap());
    let offer = if browser_calls { browser.offer().await.unwrap() } else { phone_sdp.clone() };
    let offered =
        house.ask(toward(!browser_calls, json!({ "command": "offer", "from-tag": "a", "sdp": offer })));
    let answer = if browser_calls {
        phone_sdp
    } else {
        browser.answer(offered["sdp"].as_str().unwrap()).await.unwrap()
    };
    let answered = house.ask(toward(
        browser_calls,
        json!({ "command": "answer", "from-tag": "a", "to-tag": "b", "sdp": answer }),
    ));
    let (for_browser, for_phone) = if browser_calls { (&answered, &offered) } else { (&offered, &answered) };
    if browser_calls {
        browser.accept(for_browser["sdp"].as_str().unwrap()).await.unwrap();
    }
    assert!(browser.connected(Duration::from_secs(10)).await, "{}\n{}", offered["sdp"], answered["sdp"]);
    let heard = tokio::select! {
        heard = talk(&phone, port_of(for_phone)) => heard,
        ended = browser.send_tone(440.0) => panic!("{ended:?}"),
    };
    let report = browser.report().await;
    assert_eq!(report["dtls"], "connected", "{report}");
    // The last may still be on their way, no more.
    assert!(heard + 5 > u64::from(PACKETS), "the phone heard {heard}");
    assert!(report["received"]["packets"].as_u64().unwrap() + 5 > u64::from(PACKETS), "{report}");
    let delete = house.ask(json!({ "command": "delete", "from-tag": "a" }));
    let flags = &delete["tags"][if browser_calls { "a" } else { "b" }]["medias"][0]["flags"];
    for flag in ["ICE", "DTLS-SRTP", "rtcp-mux"] {
        assert!(flags.as_array().unwrap().iter().any(|has| has == flag), "{flag}: {delete}");
    }
    assert!(delete["measured"].as_array().unwrap().iter().all(|source| source["lost"] == 0), "{delete}");
    assert_eq!(house.workers.ports_in_use(), 0);
    let told = std::iter::from_fn(|| house.notices.try_recv().ok());
    let dtls = |notice: &sipbox_io::media::Notice| {
        matches!(notice.event, sipbox_core::media::bridge::Event::DtlsConnected { .. })
    };
    assert_eq!(told.filter(dtls).count(), 1);
    assert!(house.workers.stats(sipbox_core::media::plan::BridgeId(1)).is_none());
    browser.close().await;
}

fn run_call(browser_calls: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(call(browser_calls));
}

#[test]
fn a_browser_calls_a_phone() {
    run_call(true);
}

#[test]
fn a_phone_calls_a_browser() {
    run_call(false);
}

/// A group of rtpengine's options that swallows a flag of ours would take it back in silence: `--control-allow` once.
#[test]
fn no_flag_of_ours_is_without_meaning() {
    let command = command();
    let names: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    assert!(names.contains(&"control-allow"), "{names:?}");
    for name in names {
        let words = [format!("--{name}=1").into()];
        // rtpengine's own files are no part of this.
        let Ok(told) = translate(&words, None) else { continue };
        let lost = told.iter().find(|word| {
            word.to_string_lossy().starts_with("--without-meaning=") && name != "without-meaning"
        });
        assert_eq!(lost, None, "--{name}");
    }
}
