//! Requests that a client transaction makes by itself, from the request that it sent.
//!
//! RFC 3261 §17.1.1.3 (ACK to a final response that is no 2xx: its request-URI, top Via, Route, From, Call-ID and CSeq
//! number, the To of the response) and §9.1 (CANCEL: the same with the request's own To). In goes the request as it
//! left us, so well-formed; out comes the new one, without a body.

use bytes::Bytes;

/// The ACK; `to` is the value of To in the response.
pub(super) fn ack(request: &[u8], to: &str) -> Option<Bytes> {
    derive(request, "ACK", Some(to))
}

pub(super) fn cancel(request: &[u8]) -> Option<Bytes> {
    derive(request, "CANCEL", None)
}

fn derive(request: &[u8], method: &str, to: Option<&str>) -> Option<Bytes> {
    let end = memchr::memmem::find(request, b"\r\n\r\n")? + 2;
    let mut lines = Lines(&request[..end]);
    let start = lines.next()?;
    let uri_at = memchr::memchr(b' ', start)?;
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(&start[uri_at..]);
    out.extend_from_slice(b"\r\n");
    let mut via_done = false;
    for line in lines {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let name = line[..colon].trim_ascii();
        let is = |long: &str, compact: &str| {
            name.eq_ignore_ascii_case(long.as_bytes()) || name.eq_ignore_ascii_case(compact.as_bytes())
        };
        let value = line[colon + 1..].trim_ascii();
        if is("Via", "v") {
            if !std::mem::replace(&mut via_done, true) {
                put(&mut out, "Via", first_value(value));
            }
        } else if is("Route", "Route") {
            put(&mut out, "Route", value);
        } else if is("From", "f") {
            put(&mut out, "From", value);
        } else if is("To", "t") {
            put(&mut out, "To", to.map_or(value, str::as_bytes));
        } else if is("Call-ID", "i") {
            put(&mut out, "Call-ID", value);
        } else if is("CSeq", "CSeq") {
            let number = value.split(u8::is_ascii_whitespace).next()?;
            put(&mut out, "CSeq", &[number, b" ", method.as_bytes()].concat());
        }
    }
    out.extend_from_slice(b"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
    via_done.then(|| out.into())
}

fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The first of a comma-separated list; a comma in quotes does not count.
fn first_value(value: &[u8]) -> &[u8] {
    let mut quoted = false;
    let end = value.iter().position(|&byte| {
        quoted ^= byte == b'"';
        byte == b',' && !quoted
    });
    value[..end.unwrap_or(value.len())].trim_ascii()
}

/// Header lines without their CRLF, a folded one as a whole.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let mut from = 0;
        loop {
            let rest = &self.0[from..];
            let Some(end) = memchr::memmem::find(rest, b"\r\n") else {
                return Some(std::mem::take(&mut self.0));
            };
            let next = from + end + 2;
            if matches!(self.0.get(next), Some(b' ' | b'\t')) {
                from = next;
                continue;
            }
            let line = &self.0[..from + end];
            self.0 = &self.0[next..];
            return Some(line);
        }
    }
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
}
