//! The torture messages of RFC 4475 and RFC 5118, and any bytes at all, through the scanner, its views and its writers.
//!
//! The corpus is not ours: it is read where it lies (`../shared` beside the repository), and the table says so loudly when it
//! is absent. What the RFCs leave to the reader is decided here, and each leniency of ours is named.

use proptest::prelude::*;
use serde_json::Value;
use sipbox_core::sip::edit::Edit;
use sipbox_core::sip::{Message, Method, Name, ParseError, Uri, build, unfold};
use std::path::Path;

/// Reads everything that can be read of a message.
fn look(data: &[u8]) -> Result<(), ParseError> {
    if let Some(message) = Message::parse_to_refuse(data) {
        let answer = build::response(&message, 400, None, Some("tag"), &[], b"");
        let answer = Message::parse(&answer).expect("our own answer");
        assert_eq!(answer.status(), 400);
    }
    let message = Message::parse(data)?;
    for header in message.all_headers() {
        let _ = unfold(header.value);
    }
    let _ = (message.from(), message.to(), message.cseq(), message.max_forwards(), message.expires());
    let _ = (message.method(), message.content_length(), message.contact_is_wildcard(), message.to_tag());
    for via in message.vias().flatten() {
        let _ = (via.transport(), via.branch(), via.received(), via.rport());
    }
    for name in [Name::Contact, Name::Route, Name::RecordRoute, Name::Path] {
        for address in message.addresses(name).flatten() {
            let _ = (address.uri.aor(), address.uri.transport(), address.tag());
        }
    }
    // Nothing changed: the same bytes.
    let mut same = Vec::new();
    Edit::new().write(&message, &mut same);
    assert_eq!(same, message.as_bytes());
    // Everything changed: still a message, with what was put in.
    let mut changed = Vec::new();
    Edit::new()
        .set_request_uri("sip:x@192.0.2.1")
        .prepend_via("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx")
        .set_received([192, 0, 2, 2].into())
        .set_rport(5062)
        .set_max_forwards(9)
        .remove_first_route()
        .prepend_record_route("<sip:192.0.2.1;lr>")
        .replace_contacts("<sip:y@192.0.2.1>")
        .add("X-New", "1")
        .replace_body(Some("text/plain"), "body")
        .write(&message, &mut changed);
    // It may have grown beyond the bounds; then it is refused, and that is all.
    if let Ok(changed) = Message::parse(&changed) {
        assert_eq!(changed.body(), b"body");
        assert_eq!(changed.max_forwards(), Ok(Some(9)));
        assert_eq!(changed.top_via().expect("ours").branch(), Some(&b"z9hG4bKx"[..]));
        assert_eq!(changed.named("X-New").count(), 1);
    }
    message.check()
}

/// What a server of ours would say to it: None is nothing wrong.
fn verdict(data: &[u8]) -> Option<u16> {
    look(data).err().map(|error| error.kind.status())
}

#[test]
fn the_rfcs_messages_get_their_verdicts() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/sip-torture");
    let Ok(index) = std::fs::read_to_string(corpus.join("index.json")) else {
        eprintln!("SKIPPED: no torture corpus at {}", corpus.display());
        return;
    };
    // An invalid message whose fault is not the parser's to see: the machines answer, with this status.
    let later = ["rfc4475-novelsc.dat", "rfc4475-unksm2.dat"];
    let index: Value = serde_json::from_str(&index).unwrap();
    let mut faults = Vec::new();
    let mut judged = 0;
    for (file, entry) in index.as_object().unwrap() {
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
