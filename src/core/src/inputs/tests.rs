//! The splitter: the same items however the bytes come, and what is none is told once.

use super::json::{members, put_text, text_of};
use super::{Kind, Piece, Reason, Splitter, sip};
use crate::limits::INPUT_ITEM_BYTES;
use crate::sip::Message;
use proptest::prelude::*;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// Kind or fault, line, byte offset and text of each piece.
fn pieces(data: &[u8], size: usize) -> Vec<(String, u64, u64, Vec<u8>)> {
    let mut splitter = Splitter::new();
    let mut out = Vec::new();
    let mut drain = |splitter: &mut Splitter| {
        while let Some(piece) = splitter.next() {
            out.push(match piece {
                Piece::Item(item) => {
                    (format!("{:?}", item.kind), item.place.line, item.place.at, item.data.to_vec())
                }
                Piece::Fault(place, reason) => (format!("{reason:?}"), place.line, place.at, Vec::new()),
            });
        }
        splitter.compact();
    };
    for chunk in data.chunks(size.max(1)) {
        splitter.push(chunk);
        drain(&mut splitter);
    }
    splitter.end();
    drain(&mut splitter);
    out
}

fn kinds(data: &[u8]) -> Vec<(String, u64)> {
    pieces(data, 7).into_iter().map(|(kind, line, _, _)| (kind, line)).collect()
}

fn kind(kind: Kind) -> String {
    format!("{kind:?}")
}

fn invite(body: &str) -> String {
    format!(
        "INVITE sip:bob@example.com SIP/2.0\r\nCall-ID: 1\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn each_kind_is_told_by_its_content() {
    let json = "{\"sdp\":\"v=0\\r\\n{\",\"n\":[1,{}]}";
    let dump = "Jan 1 relay: Dump for 'offer' from 192.0.2.1:\n{ \n\"sdp\": \n\t\"v=0\n\to=-\"\n}";
    let bencode = "d7:command5:offer3:sdp5:v=0\r\ne";
    let all = format!("{json}\n{SDP}{SDP}{}\r\n{bencode}{bencode}\n{dump}\n{json}{json}\n", invite(SDP));
    let expected = [
        (kind(Kind::Json), json.to_owned()),
        (kind(Kind::Sdp), SDP.to_owned()),
        (kind(Kind::Sdp), SDP.to_owned()),
        (kind(Kind::Sip), invite(SDP)),
        (kind(Kind::Bencode), bencode.to_owned()),
        (kind(Kind::Bencode), bencode.to_owned()),
        (kind(Kind::Json), dump[dump.find('{').unwrap()..].to_owned()),
        (kind(Kind::Json), json.to_owned()),
        (kind(Kind::Json), json.to_owned()),
    ];
    let found = pieces(all.as_bytes(), 3);
    let texts: Vec<(String, String)> = found
        .iter()
        .map(|(kind, _, _, text)| (kind.clone(), String::from_utf8(text.clone()).unwrap()))
        .collect();
    assert_eq!(texts, expected);
    for (_, line, at, text) in found {
        let at = at as usize;
        assert_eq!(&all.as_bytes()[at..at + text.len()], text);
        assert_eq!(all[..at].matches('\n').count() as u64 + 1, line);
    }
}

#[test]
fn what_is_bad_is_told_once_and_the_rest_goes_on() {
    assert_eq!(
        kinds(format!("hello\nworld\n\n{SDP}").as_bytes()),
        [(format!("{:?}", Reason::Unknown), 1), (kind(Kind::Sdp), 4)]
    );
    // A broken object ends where the next line begins one.
    assert_eq!(
        kinds(b"{\"a\":\"x\n{\"b\":1}\n{\"c\":[}\n"),
        [(kind(Kind::Json), 1), (kind(Kind::Json), 2), (kind(Kind::Json), 3)]
    );
    assert_eq!(
        kinds(format!("d3:abcx\nd1:a\n{SDP}").as_bytes()),
        [
            (format!("{:?}", Reason::Bencode(6)), 1),
            (format!("{:?}", Reason::Bencode(4)), 2),
            (kind(Kind::Sdp), 3)
        ]
    );
    // One that never ends costs no more than its bound.
    let endless = format!("{{\"a\":\"{}\n{SDP}", "x".repeat(INPUT_ITEM_BYTES + 10));
    assert_eq!(kinds(endless.as_bytes()), [(format!("{:?}", Reason::TooLong), 1), (kind(Kind::Sdp), 2)]);
    let line = "x".repeat(3 * INPUT_ITEM_BYTES);
    let mut splitter = Splitter::new();
    for chunk in line.as_bytes().chunks(65_536) {
        splitter.push(chunk);
        while splitter.next().is_some() {}
        splitter.compact();
        assert!(splitter.waiting() <= INPUT_ITEM_BYTES + 65_536);
    }
    assert_eq!(kinds(b" \r\n\t"), []);
}

#[test]
fn sip_by_its_length_or_to_the_next_one() {
    let one = invite(SDP);
    assert_eq!(kinds(format!("{one}{one}\r\n{one}").as_bytes()).len(), 3);
    // Line feeds alone: no length is right any more.
    let feeds = one.replace("\r\n", "\n");
    let found = pieces(format!("{feeds}{feeds}").as_bytes(), 50);
    assert_eq!(found.len(), 2);
    for (_, _, _, text) in found {
        let mended = sip::mend(&text).unwrap();
        assert_eq!((&mended.data[..], mended.what.is_some()), (one.as_bytes(), true));
    }
    // A length that is too large, at the end of the stream.
    let long = one.replace("Content-Length: ", "Content-Length: 9");
    let found = pieces(long.as_bytes(), 50);
    assert_eq!(&sip::mend(&found[0].3).unwrap().data[..], one.as_bytes());
}

#[test]
fn a_description_in_a_body_of_several_parts() {
    let body = format!(
        "--b1\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b1\r\nContent-Type: application/sdp;x=y\r\n\r\n{SDP}\r\n--b1--\r\n"
    );
    let text =
        invite(&body).replace("application/sdp\r\nContent-L", "multipart/mixed;boundary=\"b1\"\r\nContent-L");
    let message = Message::parse(text.as_bytes()).unwrap();
    let place = sip::description(&message).unwrap();
    assert_eq!(&message.body()[place.clone()], SDP.as_bytes());
    let mut out = Vec::new();
    sip::put(&message, &place, b"v=0\r\n", &mut out);
    let message = Message::parse(&out).unwrap();
    assert_eq!(message.content_length(), Some(message.body().len()));
    assert_eq!(message.body(), body.replace(SDP, "v=0\r\n").as_bytes());
}

#[test]
fn strings_there_and_back() {
    for text in ["", "v=0\r\n", "\"\\\u{1}\u{7f}é😀\t\u{8}"] {
        let mut quoted = Vec::new();
        put_text(text.as_bytes(), &mut quoted);
        let read: String = serde_json::from_slice(&quoted).unwrap();
        let mut back = Vec::new();
        assert!(text_of(&quoted, &mut back));
        assert_eq!((read.as_str(), back.as_slice()), (text, text.as_bytes()));
    }
    let mut out = Vec::new();
    assert!(text_of(br#""\u0041\ud83d\ude00\/\b""#, &mut out));
    assert_eq!(out, "A😀/\u{8}".as_bytes());
    assert!(!text_of(b"12", &mut out));
}

/// JSON, mostly valid, and some of it broken by one byte.
fn json() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        "\"(\\\\u[0-9a-f]{4}|[a-z ]|\\\\[bfnrt/])*\"",
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(" ,"))),
            prop::collection::vec(inner, 0..4).prop_map(|list| {
                let members: Vec<String> = list.iter().map(|value| format!("\"k\" : {value}")).collect();
                format!("{{ {} }}", members.join(","))
            }),
        ]
    });
    (value, any::<prop::sample::Index>(), prop::option::weighted(0.5, any::<u8>())).prop_map(
        |(value, index, change)| {
            let mut text = format!("{{\"sdp\":{value}}}").into_bytes();
            if let Some(byte) = change {
                let at = index.index(text.len());
                text[at] = byte;
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn pieces_do_not_depend_on_how_bytes_come(
        parts in prop::collection::vec(prop_oneof![
            Just(SDP.as_bytes().to_vec()),
            Just(invite(SDP).into_bytes()),
            Just(invite(SDP).replace("\r\n", "\n").into_bytes()),
            Just(b"{\"sdp\":\"v=0\\r\\n\"}\n".to_vec()),
            Just(b"{\"a\":\"\n".to_vec()),
            Just(b"{ \"sdp\": \n\t\"v=0\n\to=x\" }\n".to_vec()),
            Just(b"d3:sdp3:v=0e".to_vec()),
            Just(b"d3:sd".to_vec()),
            Just(b"Dump for x\n {\"a\":1}\n".to_vec()),
            Just(b"Dump for x\n".to_vec()),
            Just(b"\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..12),
            "[vd{}\"\n=0-9: a-z]{0,12}".prop_map(String::into_bytes),
        ], 0..9),
        size in 1_usize..90,
    ) {
        let all = parts.concat();
        let whole = pieces(&all, usize::MAX);
        prop_assert_eq!(&whole, &pieces(&all, size));
        prop_assert_eq!(&whole, &pieces(&all, 1));
        // In order, and nothing twice.
        let mut end = 0;
        for (_, _, at, text) in whole {
            prop_assert!(at >= end);
            end = at + text.len() as u64;
        }
    }

    #[test]
    fn takes_the_json_that_a_strict_parser_takes(text in json()) {
        let ours = members(&text, |_, _| {}).is_ok();
        // Halves of a surrogate pair are looked at in strings only where they are read.
        let theirs = serde_json::from_slice::<serde_json::Value>(&text);
        prop_assert_eq!(ours, theirs.is_ok(), "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn a_members_place_is_its_value(text in json()) {
        let mut found = Vec::new();
        if members(&text, |key, place| found.push((key.to_vec(), place))).is_ok() {
            for (_, place) in found {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&text[place]).is_ok());
            }
        }
    }

    #[test]
    fn any_message_is_mended_or_refused(
        text in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(index, byte)| {
                let mut text = invite(SDP).into_bytes();
                let at = index.index(text.len());
                text[at] = byte;
                text
            }),
        ],
    ) {
        if let Ok(mended) = sip::mend(&text) {
            let message = Message::parse(&mended.data).unwrap();
            if let Some(place) = sip::description(&message) {
                let mut out = Vec::new();
                sip::put(&message, &place, b"v=0\r\n", &mut out);
                prop_assert!(Message::parse(&out).is_ok());
            }
        }
    }
}
