//! The session description in a SIP message, and the message with another one in its place.
//!
//! RFC 3261 §7.4, §20.14, RFC 5621 §3.1 (multipart bodies). In: an item of the stream, perhaps with LF alone or with a wrong
//! Content-Length. Out: where the description is, and the message with a new one and a right Content-Length.
//! Not here: what is in the description.

use crate::sip::edit::Edit;
use crate::sip::{Message, ParseError, ParseErrorKind};
use std::borrow::Cow;
use std::ops::Range;

/// A message that can be parsed: with CRLF in its head, and a Content-Length that is right.
#[derive(Clone, Debug)]
pub struct Mended<'a> {
    pub data: Cow<'a, [u8]>,
    /// What was mended.
    pub what: Option<&'static str>,
}

/// Makes a message of an item; `Err` where it is none.
pub fn mend(data: &[u8]) -> Result<Mended<'_>, ParseError> {
    let error = match Message::parse(data) {
        Ok(_) => {
            let lone = memchr::memchr_iter(b'\n', data).any(|lf| lf == 0 || data[lf - 1] != b'\r');
            if !lone {
                return Ok(Mended { data: Cow::Borrowed(data), what: None });
            }
            None
        }
        Err(error) => Some(error),
    };
    let mut whole = Vec::with_capacity(data.len() + 64);
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        whole.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
        whole.extend_from_slice(b"\r\n");
    }
    // Without an empty line there is no body.
    if memchr::memmem::find(&whole, b"\r\n\r\n").is_none() {
        whole.extend_from_slice(b"\r\n");
    }
    let Some(shown) = Message::parse_to_show(&whole) else {
        return Err(error.unwrap_or(ParseError { at: 0, kind: ParseErrorKind::StartLine }));
    };
    let body = whole.get(shown.as_bytes().len()..).unwrap_or_default();
    let mut out = Vec::with_capacity(whole.len() + 32);
    Edit::new().replace_body(None, body).write(&shown, &mut out);
    Message::parse(&out)?;
    let what =
        if error.is_some() { "Content-Length or line ends were wrong" } else { "line ends were LF alone" };
    Ok(Mended { data: Cow::Owned(out), what: Some(what) })
}

/// Where the first session description is within the body.
pub fn description(message: &Message<'_>) -> Option<Range<usize>> {
    message.description_place()
}

/// Appends the message with `sdp` where `place` (of [`description`]) is, and its Content-Length mended.
pub fn put(message: &Message<'_>, place: &Range<usize>, sdp: &[u8], out: &mut Vec<u8>) {
    Edit::new().replace_body(None, message.body_with(place, sdp)).write(message, out);
}
