//! Session descriptions, line by line (RFC 8866).
//!
//! In: bytes. Out: [`Sdp`], which keeps every line in its place with its number, known or not, so that what nobody
//! rewrites leaves byte for byte as it came; and typed views of single lines, parsed when asked for (`lines`, `attributes`).
//! LF alone is taken as the end of a line (RFC 8866 §5), and kept; what is written anew ends in CRLF.
//! Not here: offer and answer (`rewrite`).

mod attributes;
pub mod json;
mod lines;
mod severity;
#[cfg(test)]
mod tests;

pub use attributes::{Candidate, Crypto, Direction, Fingerprint, Fmtp, Group, Rtcp, RtpMap, Setup};
pub use lines::{Connection, Family, Media, Origin, Profile};
pub use severity::Severity;

use crate::limits;
use std::fmt;

/// Where and why bytes are no session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Counted from 1.
    pub line: u32,
    /// Byte offset from the beginning.
    pub at: usize,
    pub kind: ErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    Empty,
    /// Longer than [`SDP_BYTES`](limits::SDP_BYTES).
    TooLong,
    /// More lines than [`SDP_LINES`](limits::SDP_LINES).
    TooManyLines,
    /// More m-lines than [`SDP_MEDIA`](limits::SDP_MEDIA).
    TooManyMedia,
    /// The first line is not `v=0` (RFC 8866 §5.1).
    Version,
    /// Not a letter, `=` and a value.
    NotALine,
    /// NUL or CR within a line (RFC 8866 §9, byte-string).
    ControlByte,
    /// An m-line without media, port, protocol and a format (RFC 8866 §5.14).
    Media,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::Empty => "nothing there",
            ErrorKind::TooLong => "longer than a session description may be",
            ErrorKind::TooManyLines => "too many lines",
            ErrorKind::TooManyMedia => "too many m-lines",
            ErrorKind::Version => "does not begin with v=0",
            ErrorKind::NotALine => "not a letter, '=' and a value",
            ErrorKind::ControlByte => "a NUL or a bare CR",
            ErrorKind::Media => "an m-line without media, number, protocol or format",
        })
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {} (byte {})", self.line, self.kind, self.at)
    }
}

impl std::error::Error for ParseError {}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from 1.
    pub number: u32,
    /// The letter before `=`; 0 for an empty line.
    pub kind: u8,
    /// What follows `=`, without the line's end.
    pub value: &'a [u8],
    /// The whole line as it came, with its end.
    pub raw: &'a [u8],
    /// Read once: everything that looks for an attribute walks over all lines.
    attribute: Option<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    /// The value, where it is UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.value).ok()
    }

    /// Name and value of an `a=` line; a flag's value is empty.
    pub fn attribute(&self) -> Option<(&'a str, &'a str)> {
        self.attribute
    }
}

/// A session description over the bytes that it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sdp<'a> {
    lines: Vec<Line<'a>>,
    /// Indices of the m-lines, ascending.
    media: Vec<usize>,
}

impl<'a> Sdp<'a> {
    pub fn parse(data: &'a [u8]) -> Result<Self, ParseError> {
        if data.is_empty() {
            return Err(ParseError { line: 1, at: 0, kind: ErrorKind::Empty });
        }
        if data.len() > limits::SDP_BYTES {
            return Err(ParseError { line: 1, at: limits::SDP_BYTES, kind: ErrorKind::TooLong });
        }
        // Read as text once, and not line by line, where all of it is.
        let text = std::str::from_utf8(data).ok();
        let mut lines = Vec::with_capacity(data.len() / 24 + 1);
        let mut media = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let rest = &data[at..];
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
            let mut line = parse_line(&rest[..length], lines.len() as u32 + 1, at)?;
            if line.kind == b'a' {
                let value = match text {
                    Some(text) => text.get(at + 2..at + 2 + line.value.len()),
                    None => line.text(),
                };
                line.attribute = value.map(|value| split_at(value, b':').unwrap_or((value, "")));
            }
            let error = |kind| Err(ParseError { line: line.number, at, kind });
            if lines.is_empty() && (line.kind != b'v' || line.value != b"0") {
                return error(ErrorKind::Version);
            }
            if lines.len() >= limits::SDP_LINES {
                return error(ErrorKind::TooManyLines);
            }
            if line.kind == b'm' {
                if media.len() >= limits::SDP_MEDIA {
                    return error(ErrorKind::TooManyMedia);
                }
                if Media::parse(line.value).is_none() {
                    return error(ErrorKind::Media);
                }
                media.push(lines.len());
            }
            lines.push(line);
            at += length;
        }
        Ok(Sdp { lines, media })
    }

    pub fn lines(&self) -> &[Line<'a>] {
        &self.lines
    }

    /// The lines before the first m-line.
    pub fn session(&self) -> Section<'_, 'a> {
        let end = self.media.first().copied().unwrap_or(self.lines.len());
        Section { lines: &self.lines[..end] }
    }

    pub fn media_count(&self) -> usize {
        self.media.len()
    }

    /// The m-line of this index with what belongs to it.
    pub fn media(&self, index: usize) -> Option<Section<'_, 'a>> {
        let start = *self.media.get(index)?;
        let end = self.media.get(index + 1).copied().unwrap_or(self.lines.len());
        Some(Section { lines: &self.lines[start..end] })
    }

    /// All m-sections in order.
    pub fn medias(&self) -> impl Iterator<Item = Section<'_, 'a>> {
        (0..self.media.len()).filter_map(|index| self.media(index))
    }

    /// Writes what was read, byte for byte.
    pub fn write(&self, out: &mut Vec<u8>) {
        for line in &self.lines {
            out.extend_from_slice(line.raw);
        }
    }
}

fn parse_line(raw: &[u8], number: u32, at: usize) -> Result<Line<'_>, ParseError> {
    let text = raw.strip_suffix(b"\n").unwrap_or(raw);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if let Some(bad) = memchr::memchr2(b'\r', 0, text) {
        return Err(ParseError { line: number, at: at + bad, kind: ErrorKind::ControlByte });
    }
    match text {
        // Some peers end a body with an empty line.
        [] => Ok(Line { number, kind: 0, value: text, raw, attribute: None }),
        [kind, b'=', value @ ..] if kind.is_ascii_alphabetic() => {
            Ok(Line { number, kind: *kind, value, raw, attribute: None })
        }
        _ => Err(ParseError { line: number, at, kind: ErrorKind::NotALine }),
    }
}

/// What stands before and after the first of this ASCII character; quicker than the library's on words as short as these.
fn split_at(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|each| each == byte)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Some lines that belong together: the session's, or those of one m-line.
#[derive(Clone, Copy, Debug)]
pub struct Section<'s, 'a> {
    lines: &'s [Line<'a>],
}

impl<'s, 'a> Section<'s, 'a> {
    pub fn lines(&self) -> &'s [Line<'a>] {
        self.lines
    }

    /// The first line of this letter.
    pub fn line(&self, kind: u8) -> Option<&'s Line<'a>> {
        self.lines.iter().find(|line| line.kind == kind)
    }

    /// Names and values of all `a=` lines.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'s, 'a> {
        self.lines.iter().filter_map(Line::attribute)
    }

    /// The values of all attributes of this name.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'s, 'a, 'n> {
        self.attributes().filter_map(move |(n, value)| (n == name).then_some(value))
    }

    /// The value of the first attribute of this name; empty for a flag.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}
