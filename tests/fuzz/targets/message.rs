//! A datagram: the scanner, its views, and its writers.
//!
//! Laws: what is not changed is written byte for byte; what is put in can be read again; a limit is never passed; an answer
//! of ours to a request that was refused is a message.

use sipbox_core::limits;
use sipbox_core::sip::edit::Edit;
use sipbox_core::sip::{Message, Name, build, unfold, unquote};

pub fn run(data: &[u8]) {
    if let Some(refusable) = Message::parse_to_refuse(data) {
        let answer = build::response(&refusable, 400, None, Some("tag"), &[], b"");
        if answer.len() <= limits::SIP_MESSAGE_BYTES {
            let answered = Message::parse(&answer).map(|answer| answer.status());
            // A request at its limit, of Vias alone, has an answer above it.
            let full = refusable.all_headers().count() + 1 > limits::SIP_HEADERS;
            assert!(answered == Ok(400) || full, "{answered:?}");
        }
    }
    let _ = Message::parse_to_show(data);
    let message = match Message::parse(data) {
        Ok(message) => message,
        Err(error) => {
            assert!(error.at <= data.len(), "a fault behind the end");
            assert!(matches!(error.kind.status(), 400 | 505 | 513));
            return;
        }
    };
    assert!(message.as_bytes().len() <= limits::SIP_MESSAGE_BYTES);
    assert!(message.all_headers().count() <= limits::SIP_HEADERS);
    views(&message);
    unchanged(&message);
    changed(&message);
    if message.check().is_ok() && message.is_request() {
        let answer = build::response(&message, 200, None, Some("tag"), &[], b"");
        if let Ok(answer) = Message::parse(&answer) {
            assert_eq!(answer.check(), Ok(()), "our answer to a sound request");
            assert_eq!(answer.cseq(), message.cseq());
        }
    }
}

fn views(message: &Message<'_>) {
    for header in message.all_headers() {
        let shown = unfold(header.value);
        assert!(!shown.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "unfolded, and a line end in it");
        let _ = unquote(&shown);
    }
    let _ = (message.from(), message.to(), message.cseq(), message.max_forwards(), message.expires());
    let _ = (message.method(), message.content_length(), message.contact_is_wildcard(), message.to_tag());
    for via in message.vias().flatten() {
        let _ = (via.transport(), via.branch(), via.received(), via.rport(), via.has_cookie());
    }
    for name in [Name::Contact, Name::Route, Name::RecordRoute, Name::Path] {
        for address in message.addresses(name).flatten() {
            let _ = (address.uri.aor(), address.uri.transport(), address.tag());
        }
    }
    assert!(message.check().err().is_none_or(|error| error.at <= message.as_bytes().len()));
}

fn unchanged(message: &Message<'_>) {
    let mut same = Vec::new();
    Edit::new().write(message, &mut same);
    assert_eq!(same, message.as_bytes(), "nothing changed");
}

fn changed(message: &Message<'_>) {
    let mut out = Vec::new();
    Edit::new()
        .set_request_uri("sip:x@192.0.2.1")
        .prepend_via("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx")
        .set_received([192, 0, 2, 2].into())
        .set_rport(5062)
        .set_max_forwards(9)
        .remove_first_route()
        .prepend_record_route("<sip:192.0.2.1;lr>")
        .replace_contacts("<sip:y@192.0.2.1>")
        .add("X-New", "1\r\nX-Injected: 2")
        .replace_body(Some("text/plain"), "body")
        .write(message, &mut out);
    // It may have grown beyond the bounds; then it is refused, and that is all.
    let Ok(changed) = Message::parse(&out) else { return };
    assert_eq!(changed.body(), b"body");
    assert_eq!(changed.max_forwards(), Ok(Some(9)));
    assert_eq!(changed.top_via().map(|via| via.branch()), Ok(Some(&b"z9hG4bKx"[..])));
    assert_eq!(changed.contacts().count(), 1);
    assert_eq!(changed.named("X-Injected").count(), message.named("X-Injected").count());
    // Off again with our hop: the rest of the Vias is theirs, as many as before.
    let mut back = Vec::new();
    Edit::new().remove_top_via().write(&changed, &mut back);
    if let Ok(back) = Message::parse(&back) {
        let theirs =
            |message: &Message<'_>| message.values(Name::Via).filter(|value| !value.is_empty()).count();
        assert_eq!(theirs(&back), theirs(message), "Vias lost or won");
    }
}
