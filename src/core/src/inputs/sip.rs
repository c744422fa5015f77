//! The session description in a SIP message, and the message with another one in its place.
//!
//! RFC 3261 §7.4, §20.14, RFC 5621 §3.1 (multipart bodies). In: an item of the stream, perhaps with LF alone or with a wrong
//! Content-Length. Out: where the description is, and the message with a new one and a right Content-Length.
//! Not here: what is in the description.

use crate::sip::edit::Edit;
use crate::sip::{Message, Name, ParseError, ParseErrorKind};
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
    let body = message.body();
    let kind = message.header(Name::ContentType)?;
    if is_sdp(kind) {
        return (!body.is_empty()).then_some(0..body.len());
    }
    if !kind.to_ascii_lowercase().starts_with(b"multipart/") {
        return None;
    }
    let delimiter = [b"--", boundary(kind)?].concat();
    let mut at = memchr::memmem::find(body, &delimiter)? + delimiter.len();
    while let Some(length) = memchr::memmem::find(body.get(at..)?, &delimiter) {
        let part = &body[at..at + length];
        let (skipped, head_end) = head_of(part)?;
        let sdp = part[skipped..head_end].split(|byte| *byte == b'\n').any(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
            let (name, value) = line.split_at(colon);
            name.eq_ignore_ascii_case(b"Content-Type")
                && is_sdp(value.trim_ascii_start().get(1..).unwrap_or(b""))
        });
        if sdp {
            // The line's end before the delimiter belongs to the delimiter (RFC 2046 §5.1.1).
            let text = &part[head_end..];
            let text = text.strip_suffix(b"\n").map_or(text, |text| text.strip_suffix(b"\r").unwrap_or(text));
            return Some(at + head_end..at + head_end + text.len());
        }
        at += length + delimiter.len();
    }
    None
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

fn is_sdp(kind: &[u8]) -> bool {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"application/sdp")
}

fn boundary(kind: &[u8]) -> Option<&[u8]> {
    let parameter = kind.split(|byte| *byte == b';').skip(1).find_map(|parameter| {
        let parameter = parameter.trim_ascii();
        let name = parameter.get(..9)?;
        name.eq_ignore_ascii_case(b"boundary=").then(|| &parameter[9..])
    })?;
    let value =
        parameter.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(parameter);
    (!value.is_empty()).then_some(value)
}

/// Appends the message with `sdp` where `place` (of [`description`]) is, and its Content-Length mended.
pub fn put(message: &Message<'_>, place: &Range<usize>, sdp: &[u8], out: &mut Vec<u8>) {
    let body = message.body();
    let (before, behind) = (body.get(..place.start).unwrap_or(b""), body.get(place.end..).unwrap_or(b""));
    if before.is_empty() && behind.is_empty() {
        Edit::new().replace_body(None, sdp).write(message, out);
    } else {
        Edit::new().replace_body(None, [before, sdp, behind].concat()).write(message, out);
    }
}
