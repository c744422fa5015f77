//! What the headers say of a body, and where the session descriptions in it are.
//!
//! RFC 3261 §20.15 and §25.1 (a value with parameters: Content-Type, Event, Subscription-State, …), RFC 2046 §5.1 and
//! RFC 5621 §3.1 (multipart). Goes in: a message. Comes out: slices and places. Not here: SDP itself.

use super::{Message, Name, Params, ParseError, lex};
use std::ops::Range;

/// A value that parameters may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Valued<'a> {
    /// Without the blanks around it.
    pub value: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Valued<'a> {
    pub fn parse(text: &'a [u8]) -> Self {
        let end = lex::find_outside(text, b';');
        Valued { value: lex::trim(&text[..end]), rest: &text[end..] }
    }

    /// Tokens and media types compare without regard to case (RFC 3261 §7.3.1).
    pub fn is(&self, what: &str) -> bool {
        self.value.eq_ignore_ascii_case(what.as_bytes())
    }

    pub fn params(&self) -> Result<Params<'a>, ParseError> {
        Params::parse(self.rest)
    }
}

const SDP: &str = "application/sdp";

impl<'a> Message<'a> {
    /// The first value of a header that has parameters behind it.
    pub fn valued(&self, name: Name) -> Option<Valued<'a>> {
        self.header(name).map(Valued::parse)
    }

    pub fn content_type(&self) -> Option<Valued<'a>> {
        self.valued(Name::ContentType)
    }

    /// Where the first session description is within the body.
    pub fn description_place(&self) -> Option<Range<usize>> {
        let whole = !self.body().is_empty() && self.content_type().is_some_and(|kind| kind.is(SDP));
        if whole { Some(0..self.body().len()) } else { self.descriptions().into_iter().next() }
    }

    /// The first session description in the body: all of it, or a part (RFC 5621 §3.1).
    pub fn description(&self) -> Option<&[u8]> {
        self.body().get(self.description_place()?)
    }

    /// Whether there is a session description in the body.
    pub fn has_sdp(&self) -> bool {
        self.description_place().is_some()
    }

    /// The body with another first description, and all other parts byte for byte.
    pub fn with_description(&self, sdp: Vec<u8>) -> Vec<u8> {
        match self.description_place() {
            Some(place) if place != (0..self.body().len()) => self.body_with(&place, &sdp),
            Some(_) | None => sdp,
        }
    }

    /// The body with `sdp` at this place of it, and all other parts byte for byte.
    pub fn body_with(&self, place: &Range<usize>, sdp: &[u8]) -> Vec<u8> {
        let body = self.body();
        let (before, behind) = (body.get(..place.start), body.get(place.end..));
        [before.unwrap_or_default(), sdp, behind.unwrap_or_default()].concat()
    }

    /// Where the session descriptions are within the body: the whole of it, or parts of a multipart one.
    pub fn descriptions(&self) -> Vec<Range<usize>> {
        let body = self.body();
        let Some(kind) = self.content_type() else { return Vec::new() };
        if kind.is(SDP) {
            return Some(0..body.len()).filter(|whole| !whole.is_empty()).into_iter().collect();
        }
        let multipart = kind.value.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"));
        let boundary = kind.params().ok().and_then(|params| params.get("boundary"));
        match boundary.map(lex::unquote) {
            Some(boundary) if multipart && !boundary.is_empty() => parts(body, &boundary),
            Some(_) | None => Vec::new(),
        }
    }
}

fn parts(body: &[u8], boundary: &[u8]) -> Vec<Range<usize>> {
    let delimiter = [b"--", boundary].concat();
    let mut found = Vec::new();
    let Some(first) = memchr::memmem::find(body, &delimiter) else { return found };
    let mut at = first + delimiter.len();
    // A part that no delimiter ends is none.
    while let Some(length) = memchr::memmem::find(&body[at..], &delimiter) {
        let part = &body[at..at + length];
        if let Some((skipped, head_end)) = head_of(part)
            && part[skipped..head_end].split(|byte| *byte == b'\n').any(is_sdp)
        {
            // The line's end before the delimiter belongs to the delimiter (RFC 2046 §5.1.1).
            let text = &part[head_end..];
            let text = text.strip_suffix(b"\n").map_or(text, |text| text.strip_suffix(b"\r").unwrap_or(text));
            found.push(at + head_end..at + head_end + text.len());
        }
        at += length + delimiter.len();
    }
    found
}

/// The line's end behind the delimiter, and where the part's own head ends.
fn head_of(part: &[u8]) -> Option<(usize, usize)> {
    let first = memchr::memchr(b'\n', part)? + 1;
    let mut at = first;
    loop {
        match &part[at..] {
            [b'\r', b'\n', ..] => return Some((first, at + 2)),
            [b'\n', ..] => return Some((first, at + 1)),
            rest => at += memchr::memchr(b'\n', rest)? + 1,
        }
    }
}

fn is_sdp(line: &[u8]) -> bool {
    let colon = memchr::memchr(b':', line).unwrap_or(0);
    line[..colon].trim_ascii().eq_ignore_ascii_case(b"Content-Type")
        && Valued::parse(line.get(colon + 1..).unwrap_or_default()).is(SDP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: &str, body: &str) -> Vec<String> {
        let text = format!("INVITE sip:a@b SIP/2.0\r\nc: {kind}\r\n\r\n{body}");
        let message = Message::parse(text.as_bytes()).expect("a message");
        let text = |place: Range<usize>| String::from_utf8_lossy(&message.body()[place]).into_owned();
        message.descriptions().into_iter().map(text).collect()
    }

    #[test]
    fn finds_descriptions_alone_and_in_parts() {
        assert_eq!(found("Application/SDP ; charset=utf-8", "v=0\r\n"), ["v=0\r\n"]);
        assert_eq!(found("application/sdp", ""), [""; 0]);
        assert_eq!(found("text/plain", "v=0\r\n"), [""; 0]);
        let body = "preamble\r\n--a b\r\nContent-Type: application/pidf+xml\r\n\r\n<x/>\r\n--a b\r\n\
            content-type : application/sdp;x=y\r\nContent-ID: <1>\r\n\r\nv=0\r\n\r\n--a b\nContent-Type: APPLICATION/sdp\n\nv=0\n\n--a b--\r\n";
        assert_eq!(found("multipart/mixed;x=1; Boundary=\"a b\"", body), ["v=0\r\n", "v=0\n"]);
        assert_eq!(found("multipart/mixed", body), [""; 0]);
        assert_eq!(found("multipart/mixed;boundary=\"\"", body), [""; 0]);
        // What no delimiter ends was cut off.
        assert_eq!(
            found("multipart/mixed;boundary=x", "--x\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n"),
            [""; 0]
        );
    }

    #[test]
    fn reads_values_with_parameters() {
        let event = Valued::parse(b" Presence \r\n ;id=\"a;b\";x");
        assert!(event.is("presence"));
        assert_eq!(event.params().expect("sound").get("id"), Some(&b"\"a;b\""[..]));
        assert!(Valued::parse(b"active;;").params().is_err());
        assert!(Valued::parse(b"").is(""));
    }
}
