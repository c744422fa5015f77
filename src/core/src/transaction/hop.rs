//! Requests that a client transaction makes by itself, from the request that it sent.
//!
//! RFC 3261 §17.1.1.3 (ACK to a final response that is no 2xx: its request-URI, top Via, Route, From, Call-ID and CSeq
//! number, the To of the response) and §9.1 (CANCEL: the same with the request's own To). In goes the request as it
//! left us, so well-formed; out comes the new one, without a body.

use crate::sip::{Message, Name};
use bytes::Bytes;

/// The ACK; `to` is the value of To in the response.
pub(super) fn ack(request: &[u8], to: &str) -> Option<Bytes> {
    derive(request, "ACK", Some(to))
}

pub(super) fn cancel(request: &[u8]) -> Option<Bytes> {
    derive(request, "CANCEL", None)
}

fn derive(request: &[u8], method: &str, to: Option<&str>) -> Option<Bytes> {
    // The scanner's own reading, so that nothing here is a header that is none there: a body, say, behind an empty line
    // that ends with LF alone.
    let message = Message::parse(request).ok()?;
    let mut out = Vec::with_capacity(512);
    for part in [method.as_bytes(), b" ", message.request_uri(), b" SIP/2.0\r\n"] {
        out.extend_from_slice(part);
    }
    let mut via = message.values(Name::Via).next();
    via?;
    for header in message.all_headers() {
        match header.id {
            Name::Via => {
                if let Some(via) = via.take() {
                    put(&mut out, "Via", via);
                }
            }
            Name::Route | Name::From | Name::CallId => put(&mut out, header.id.as_str(), header.value),
            Name::To => put(&mut out, "To", to.map_or(header.value, str::as_bytes)),
            Name::CSeq => {
                let (number, _) = message.cseq().ok()?;
                put(&mut out, "CSeq", format!("{number} {method}").as_bytes());
            }
            _ => {}
        }
    }
    out.extend_from_slice(b"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
    Some(out.into())
}

fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:bob@192.0.2.2 SIP/2.0\r\n\
        v: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKours,\r\n SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKtheirs\r\n\
        Via: SIP/2.0/UDP 192.0.2.8;branch=z9hG4bKmore\r\n\
        Max-Forwards: 12\r\n\
        Route: <sip:192.0.2.3;lr>\r\nRoute: <sip:192.0.2.4;lr>\r\n\
        To: Bob\r\n <sip:bob@example.com>\r\nFrom: <sip:alice@example.com>;tag=a\r\n\
        i: call@example.com\r\nCSeq: 7  INVITE\r\nContent-Type: application/sdp\r\nContent-Length: 4\r\n\r\nv=0\n";

    #[test]
    fn an_ack_has_what_17_1_1_3_asks_for() {
        let ack = ack(INVITE.as_bytes(), "<sip:bob@example.com>;tag=b").expect("a well-formed INVITE");
        assert_eq!(
            std::str::from_utf8(&ack).expect("text"),
            "ACK sip:bob@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKours\r\n\
             Route: <sip:192.0.2.3;lr>\r\nRoute: <sip:192.0.2.4;lr>\r\n\
             To: <sip:bob@example.com>;tag=b\r\nFrom: <sip:alice@example.com>;tag=a\r\n\
             Call-ID: call@example.com\r\nCSeq: 7 ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_cancel_keeps_the_to() {
        let cancel = cancel(INVITE.as_bytes()).expect("a well-formed INVITE");
        let text = std::str::from_utf8(&cancel).expect("text");
        assert!(text.starts_with("CANCEL sip:bob@192.0.2.2 SIP/2.0\r\n"), "{text}");
        assert!(text.contains("\r\nTo: Bob\r\n <sip:bob@example.com>\r\n"), "{text}");
        assert!(text.contains("\r\nCSeq: 7 CANCEL\r\n"), "{text}");
    }

    #[test]
    fn line_ends_are_read_as_everywhere_else() {
        let lf = INVITE.replace("\r\n", "\n");
        assert!(ack(lf.as_bytes(), "<sip:bob@example.com>;tag=b").is_some());
        // The head ends with LF LF; what follows is a body, whatever it looks like.
        let smuggled = lf
            .replace("v=0\n", "Call-ID: another\r\nRoute: <sip:192.0.2.66;lr>\r\n\r\n")
            .replace("Content-Length: 4", "l: 48");
        let cancel = cancel(smuggled.as_bytes()).expect("a well-formed INVITE");
        let text = std::str::from_utf8(&cancel).expect("text");
        assert!(!text.contains("another") && !text.contains("192.0.2.66"), "{text}");
        assert_eq!(text.matches("Call-ID").count(), 1);
    }
}
