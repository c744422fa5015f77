//! The torture messages of RFC 4475 and RFC 5118, and any bytes at all, through the scanner, its views and its writers; and
//! what the real proxy and the real registrar say to each.
//!
//! The corpus is not ours: it is read where it lies (`../shared` beside the repository), and the table says so loudly when it
//! is absent. It lacks a part of RFC 4475: [`OWN`] has messages of our own with the same faults, by section.

use crate::harness::{Server, TempDir, loopback};
use proptest::prelude::*;
use serde_json::Value;
use sipbox_core::sip::edit::Edit;
use sipbox_core::sip::{Message, Method, Name, ParseError, Uri, build};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Reads and writes all that can be (the laws are the fuzz target's), and says what is wrong with it.
fn look(data: &[u8]) -> Result<(), ParseError> {
    crate::fuzz::targets::message::run(data);
    Message::parse(data)?.check()
}

/// What a server of ours would say to it: None is nothing wrong.
fn verdict(data: &[u8]) -> Option<u16> {
    look(data).err().map(|error| error.kind.status())
}

/// Where the corpus is, and its index.
fn corpus() -> Option<(PathBuf, BTreeMap<String, Value>)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/sip-torture");
    let Ok(index) = std::fs::read(corpus.join("index.json")) else {
        eprintln!("SKIPPED: no torture corpus at {}", corpus.display());
        return None;
    };
    Some((corpus, serde_json::from_slice(&index).expect("the corpus's index")))
}

#[test]
fn the_rfcs_messages_get_their_verdicts() {
    let Some((corpus, index)) = corpus() else { return };
    // An invalid message whose fault is not the parser's to see: the machines answer, with this status.
    let later = ["rfc4475-novelsc.dat", "rfc4475-unksm2.dat"];
    let mut faults = Vec::new();
    let mut judged = 0;
    for (file, entry) in &index {
        let data = std::fs::read(corpus.join(file)).unwrap();
        let got = verdict(&data);
        let expect = &entry["expect"];
        let fits = match expect["parser"].as_str().unwrap() {
            "accept" => got.is_none(),
            "reject" => {
                let wanted: Vec<u64> =
                    expect["server"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
                got.is_some_and(|status| wanted.is_empty() || wanted.contains(&u64::from(status)))
            }
            "either" => {
                let wanted = expect["server"][0].as_u64().unwrap();
                got.map(u64::from) == Some(wanted)
            }
            // Collected messages: no crash is all.
            _ => continue,
        };
        judged += 1;
        if later.contains(&file.as_str()) {
            assert_eq!(got, None, "{file}: its scheme is for the machines to judge");
        }
        if !fits {
            faults.push(format!("{file}: got {got:?} ({:?}), wanted {expect}", look(&data)));
        }
    }
    assert!(judged > 30, "{judged}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

const SEEDS: [&[u8]; 3] = [
    b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa;rport, SIP/2.0/WSS x.invalid\r\n\
      From: \"A, \\\"B\" <sip:alice@example.com>;tag=1\r\nt: <sip:bob@example.com>\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\n\
      Contact: <sip:a@[2001:db8::1]:5060;transport=tcp>;q=0.5, sip:b@h\r\nRoute: <sip:r1;lr>,\r\n <sip:r2;lr>\r\n\
      Max-Forwards: 70\r\nContent-Type: text/plain\r\nl: 4\r\n\r\nbody",
    b"SIP/2.0 200 OK\r\nv: SIP / 2.0 / TCP [2001:db8::9]:5061;received=192.0.2.9\r\nf: <sip:a@b>;tag=2\r\nTo: sip:b@c;tag=3\r\n\
      i: x\r\nCSeq: 9 REGISTER\r\nm: *\r\nPath: <sip:t@h;lr;ob>\r\n\r\n",
    b"REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP h\nFrom: tel:+1555;x=y\nTo: <urn:service:sos>\nCall-ID: 1\n\
      CSeq: 1 REGISTER\nExpires: 0\nContact: *\n\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = look(&data);
        let _ = Uri::parse(&data);
        let _ = Method::parse(&data);
    }

    /// Messages with a few bytes changed, put in, taken out or cut off.
    #[test]
    fn damaged_messages_are_survived(
        seed in 0..SEEDS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..5u8), 0..6),
    ) {
        let mut data = SEEDS[seed].to_vec();
        for (place, byte, kind) in edits {
            let byte = if byte < 128 { b"\r\n \t:;,<>\"\\@=%/*?[]0"[usize::from(byte) % 20] } else { byte };
            let at = place.index(data.len() + 1);
            match kind {
                0 => data.truncate(at),
                1 if at < data.len() => { data.remove(at); }
                2 if at < data.len() => data[at] = byte,
                _ => data.insert(at, byte),
            }
        }
        let _ = look(&data);
    }

    /// What is forwarded keeps every header that was not touched.
    #[test]
    fn what_is_not_touched_stays(values in prop::collection::vec("[ -~]{0,40}", 0..80)) {
        let mut text = String::from("BYE sip:a@b SIP/2.0\r\n");
        for (i, value) in values.iter().enumerate() {
            text += &format!("X-{i}: {value}\r\n");
        }
        text += "\r\n";
        let message = Message::parse(text.as_bytes()).unwrap();
        let mut out = Vec::new();
        Edit::new().set_max_forwards(70).write(&message, &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), text.replacen("\r\n\r\n", "\r\nMax-Forwards: 70\r\n\r\n", 1));
        for (i, value) in values.iter().enumerate() {
            let name = format!("X-{i}");
            prop_assert_eq!(message.named(&name).next().unwrap().value, value.trim().as_bytes());
        }
    }
}

#[test]
fn the_seeds_are_sound() {
    assert_eq!(SEEDS.map(verdict), [None, None, None]);
}

/// A message with a fault, or an oddity, of RFC 4475 that the corpus does not have.
struct Own<'a> {
    /// What the RFC calls it, and its section.
    name: &'a str,
    start: &'a str,
    /// In place of the usual header field of the same name, or beside it.
    headers: &'a [&'a str],
    /// What the proxy does: 0 is that it goes on.
    proxy: u16,
}

/// Messages of our own after RFC 4475's sections; each has one thing wrong, or odd.
const OWN: &[Own<'static>] = &[
    // 3.1.1: valid.
    Own {
        name: "intmeth 3.1.1.2",
        start: "!strange-Method0123456789_*+`.%made'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0",
        headers: &[
            "CSeq: 139122385 !strange-Method0123456789_*+`.%made'~",
            "Call-ID: !token~`'%&=+$.(x)<y>:\\\"/[?]{}",
        ],
        proxy: 0,
    },
    Own {
        name: "esc02 3.1.1.5",
        start: "ME%47SAGE sip:user@example.com SIP/2.0",
        headers: &["CSeq: 1 ME%47SAGE"],
        proxy: 0,
    },
    Own {
        name: "semiuri 3.1.1.9",
        start: "OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0",
        headers: &[],
        proxy: 0,
    },
    Own {
        name: "longreq 3.1.1.7, compact and folded",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &[
            "f: \"A \\\\ \\\" name\"\r\n\t<sip:caller@example.net;x=%22>\r\n ;tag=12",
            "X-Folded:\r\n a\r\n  b",
        ],
        proxy: 0,
    },
    // 3.1.2: invalid.
    Own {
        name: "clerr 3.1.2.2",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["Content-Length: 9999"],
        proxy: 400,
    },
    Own {
        name: "scalar02 3.1.2.4, CSeq",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["CSeq: 36893488147419103232 OPTIONS"],
        proxy: 400,
    },
    Own {
        name: "scalar02 3.1.2.4, Max-Forwards",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["Max-Forwards: 300"],
        proxy: 400,
    },
    Own {
        name: "quotbal 3.1.2.6",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["To: \"Mr. J. User <sip:j.user@example.com>"],
        proxy: 400,
    },
    Own {
        name: "lwsruri 3.1.2.8",
        start: "OPTIONS sip:user@example.com; lr SIP/2.0",
        headers: &[],
        proxy: 400,
    },
    Own { name: "trws 3.1.2.10", start: "OPTIONS sip:user@example.com SIP/2.0  ", headers: &[], proxy: 400 },
    // Section 3.1.2.12: a bad Date may be ignored by an element that does not use it. Ours does not.
    Own {
        name: "baddate 3.1.2.12",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["Date: Fri, 01 Jan 2010 16:00:00 EST"],
        proxy: 0,
    },
    Own {
        name: "badaspec 3.1.2.14",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["To: \"Watson, T.\" < sip:t.watson@example.org >"],
        proxy: 400,
    },
    Own {
        name: "mismatch02 3.1.2.18",
        start: "NEWMETHOD sip:user@example.com SIP/2.0",
        headers: &["CSeq: 1 INVITE"],
        proxy: 400,
    },
    // 3.2: a branch that is the cookie alone names no transaction; the rule of RFC 2543 does.
    Own {
        name: "badbranch 3.2.1",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK"],
        proxy: 0,
    },
    // 3.3: what an element must answer.
    Own {
        name: "unkscm 3.3.2",
        start: "OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0",
        headers: &[],
        proxy: 416,
    },
    Own {
        name: "bext01 3.3.5",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["Proxy-Require: noProxiesSupportThis, norDoAnyProxiesSupportThis"],
        proxy: 420,
    },
    Own {
        name: "bext01 3.3.5, Require is the end's",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["Require: nothingSupportsThis"],
        proxy: 0,
    },
    Own {
        name: "multi01 3.3.8",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["From: <sip:one@example.net>;tag=1\r\nFrom: <sip:two@example.net>;tag=2"],
        proxy: 400,
    },
    Own {
        name: "zeromf 3.3.11",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["Max-Forwards: 0"],
        proxy: 483,
    },
    Own {
        name: "a tel URI, RFC 3966",
        start: "OPTIONS tel:+15551234;phone-context=example.com SIP/2.0",
        headers: &[],
        proxy: 416,
    },
    Own {
        name: "Max-Breadth 0, RFC 5393",
        start: "OPTIONS sip:user@example.com SIP/2.0",
        headers: &["Max-Breadth: 0"],
        proxy: 440,
    },
];

impl Own<'_> {
    fn text(&self) -> Vec<u8> {
        let method = self.start.split(' ').next().unwrap_or_default();
        let cseq = format!("CSeq: 1 {method}");
        let branch = format!(
            "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{}",
            self.name.replace(|c: char| !c.is_alphanumeric(), "")
        );
        let call_id = format!("Call-ID: {}", self.name.replace([' ', ','], "-"));
        let usual = [
            branch.as_str(),
            "Max-Forwards: 70",
            "From: <sip:caller@example.net>;tag=1",
            "To: <sip:user@example.com>",
            &call_id,
            &cseq,
            "Content-Length: 0",
        ];
        let name = |line: &str| match line.split(':').next().unwrap_or_default() {
            "f" => "From".to_owned(),
            name => name.to_owned(),
        };
        let mut text = format!("{}\r\n", self.start);
        for line in usual.iter().filter(|line| !self.headers.iter().any(|own| name(own) == name(line))) {
            text += &format!("{line}\r\n");
        }
        for line in self.headers {
            text += &format!("{line}\r\n");
        }
        (text + "\r\n").into_bytes()
    }
}

#[test]
fn what_the_corpus_lacks_has_its_verdict_too() {
    for own in OWN {
        let got = verdict(&own.text());
        // What the machines answer, the parser lets pass.
        let wanted = Some(own.proxy).filter(|&status| status == 400);
        assert_eq!(got, wanted, "{}: {:?}", own.name, look(&own.text()));
    }
    // Responses are read or dropped, never answered (bigcode 3.1.2.19, unreason 3.1.1.12).
    let response = |line: &str| {
        format!(
            "{line}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n"
        )
    };
    assert_eq!(verdict(response("SIP/2.0 4294967301 better not break the receiver").as_bytes()), Some(400));
    assert_eq!(verdict(response("SIP/2.0 200 = 2**3 * 5**2 \u{43d}\u{43e}").as_bytes()), None);
}

/// A server of ours, and a user agent behind it that whatever goes on arrives at.
struct Place {
    proxy: Server,
    registrar: Server,
    behind: UdpSocket,
}

/// What became of a message.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It went on, as this.
    Forwarded(Vec<u8>),
    Answered(u16),
    Silence,
}

impl Place {
    fn start() -> Place {
        let dir = Arc::new(TempDir::new());
        let behind = UdpSocket::bind((loopback(), 0)).expect("a socket");
        behind.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
        let (beyond, ip, ip_too) = (behind.local_addr().expect("an address"), loopback(), loopback());
        let (listen, route, to) = (format!("udp:{ip}:0"), format!("*=sip:{beyond}"), format!("sip:{beyond}"));
        let proxy = Server::start_in(
            Arc::clone(&dir),
            "proxy",
            &[
                "--listen",
                &listen,
                "--domain",
                "ours.invalid",
                "--auth",
                "none",
                "--route",
                &route,
                "--registrar",
                &to,
                // An edge of ours, so that no Contact is changed for a NAT.
                "--edge",
                "127.0.0.0/8",
                "--trust",
                "127.0.0.0/8",
                "--rate-limit",
                "off",
            ],
        );
        let listen = format!("udp:{ip_too}:0");
        let registrar = Server::start_in(
            dir,
            "registrar",
            &["--listen", &listen, "--auth", "none", "--rate-limit", "off"],
        );
        Place { proxy, registrar, behind }
    }

    fn ask(&self, server: &Server, data: &[u8], patience: Duration) -> Fate {
        let client = UdpSocket::bind((loopback(), 0)).expect("a socket");
        client.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
        client.send_to(data, server.address("udp")).expect("sent");
        let end = Instant::now() + patience;
        let mut buffer = vec![0; 65_535];
        while Instant::now() < end {
            if let Ok((length, from)) = self.behind.recv_from(&mut buffer) {
                let came = buffer[..length].to_vec();
                let message = Message::parse(&came).expect("what is forwarded is a message");
                if message.method() == Method::Ack {
                    continue;
                }
                // So that it comes once.
                let answer = build::response(&message, 404, None, Some("t"), &[], b"");
                self.behind.send_to(&answer, from).expect("sent");
                return Fate::Forwarded(came);
            }
            if let Ok(length) = client.recv(&mut buffer) {
                let status = Message::parse(&buffer[..length]).expect("an answer of ours").status();
                if status >= 200 {
                    return Fate::Answered(status);
                }
            }
        }
        Fate::Silence
    }
}

/// Whether all that a proxy has no business with went on byte for byte.
fn untouched(before: &[u8], after: &[u8]) -> Result<(), String> {
    let (before, after) = (Message::parse(before).expect("sound"), Message::parse(after).expect("sound"));
    let ours = [Name::Via, Name::MaxForwards, Name::RecordRoute, Name::Route, Name::Path];
    let rest = |message: &Message<'_>| -> Vec<(Vec<u8>, Vec<u8>)> {
        let others = message.all_headers().filter(|header| !ours.contains(&header.id));
        others.map(|header| (header.name.to_vec(), header.value.to_vec())).collect()
    };
    if before.request_uri() != after.request_uri() || before.body() != after.body() {
        return Err("the Request-URI or the body".into());
    }
    if before.values(Name::Via).count() + 1 != after.values(Name::Via).count() {
        return Err("Vias".into());
    }
    match rest(&before).iter().zip(&rest(&after)).find(|(a, b)| a != b) {
        Some((a, _)) => Err(format!("{} has changed", String::from_utf8_lossy(&a.0))),
        None if rest(&before).len() != rest(&after).len() => Err("a header field more or less".into()),
        None => Ok(()),
    }
}

#[test]
fn our_own_messages_get_their_answers_from_the_real_proxy() {
    let place = Place::start();
    for own in OWN {
        let data = own.text();
        match place.ask(&place.proxy, &data, Duration::from_secs(5)) {
            Fate::Forwarded(after) if own.proxy == 0 => {
                assert_eq!(untouched(&data, &after), Ok(()), "{}", own.name);
            }
            Fate::Answered(status) if status == own.proxy => {}
            other => panic!("{}: {other:?}, wanted {}", own.name, own.proxy),
        }
    }
    // An end answers for itself: unknown methods, also one that is REGISTER but for its escapes (3.1.1.5), what it does not
    // support (3.3.5), schemes that no binding can have (3.3.2, 3.3.4), and Contacts that say nothing clear (3.1.2.13, 3.3.14).
    let ends = [
        ("!strange-Method sip:example.com SIP/2.0", "CSeq: 1 !strange-Method", 405),
        ("RE%47IST%45R sip:example.com SIP/2.0", "CSeq: 1 RE%47IST%45R", 405),
        ("REGISTER sip:example.com SIP/2.0", "Require: nothingSupportsThis", 420),
        ("REGISTER nobodyKnowsThisScheme:x SIP/2.0", "X: y", 416),
        ("REGISTER sip:example.com SIP/2.0", "To: isbn:2983792873", 400),
        (
            "REGISTER sip:example.com SIP/2.0",
            "Contact: sip:user@example.com?Route=%3Csip:sip.example.com%3E",
            400,
        ),
        (
            "REGISTER sip:example.com SIP/2.0",
            "Contact: <sip:user@example.com?Route=%3Csip:sip.example.com%3E>",
            200,
        ),
        ("REGISTER sip:example.com SIP/2.0", "Contact: \"unbalanced <sip:user@example.com>", 400),
    ];
    for (nth, (start, header, wanted)) in ends.into_iter().enumerate() {
        let own = Own { name: &format!("end {nth}"), start, headers: &[header], proxy: 0 };
        let fate = place.ask(&place.registrar, &own.text(), Duration::from_secs(5));
        assert_eq!(fate, Fate::Answered(wanted), "{start}, {header}");
    }
}

#[test]
fn the_rfcs_messages_get_their_answers_from_the_real_servers() {
    let Some((corpus, index)) = corpus() else { return };
    let place = Place::start();
    let mut faults = Vec::new();
    let (mut forwarded, mut answered) = (0, 0);
    for (file, entry) in &index {
        let data = std::fs::read(corpus.join(file)).unwrap();
        let expect = &entry["expect"];
        // A collected message: that the server lives on is what the next one shows.
        let known = entry["verdict"] != "unknown";
        let request = entry["kind"] == "request";
        for (role, server) in [("proxy", &place.proxy), ("registrar", &place.registrar)] {
            let stated = [&expect[role], &expect["server"]].into_iter().find_map(Value::as_array);
            if role == "registrar" && stated.is_none() {
                continue;
            }
            let wanted: Vec<String> = match stated {
                Some(list) => list.iter().map(|one| one.to_string().replace('"', "")).collect(),
                None if request => vec!["forward".into(), "*".into()],
                None => vec!["none".into()],
            };
            let patient = known && request;
            let fate = place.ask(server, &data, Duration::from_millis(if patient { 5_000 } else { 100 }));
            if !known {
                continue;
            }
            let wants = |what: &str| wanted.iter().any(|one| one == what);
            let fits = match &fate {
                Fate::Forwarded(after) => {
                    forwarded += 1;
                    let same = untouched(&data, after);
                    if let Err(what) = &same {
                        faults.push(format!("{file}: {what}"));
                    }
                    wants("forward")
                }
                Fate::Answered(status) => {
                    answered += 1;
                    wants(&status.to_string()) || (wants("*") && *status != 400)
                }
                Fate::Silence => wants("none"),
            };
            if !fits {
                faults.push(format!("{file}, {role}: {fate:?}, wanted {wanted:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(
        forwarded >= 12 && answered >= 20,
        "{forwarded} forwarded, {answered} answered: too few to mean anything"
    );
}
