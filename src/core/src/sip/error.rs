//! What is wrong with a SIP message, and where.
//!
//! RFC 3261 §7, §8.2, §25. Goes in: nothing. Comes out: values that parsers return; they never log. Not here: who
//! answers (the machines; `kind.status()` is the code that they answer with).

use super::name::Name;
use std::fmt;

/// A fault and its place: the byte offset from the start of what was given to the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub at: usize,
    pub kind: ParseErrorKind,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// Nothing but line ends.
    Empty,
    /// More than [`SIP_MESSAGE_BYTES`](crate::limits::SIP_MESSAGE_BYTES).
    TooLarge,
    /// More than [`SIP_HEADERS`](crate::limits::SIP_HEADERS).
    TooManyHeaders,
    /// Neither a Request-Line nor a Status-Line.
    StartLine,
    /// A SIP version that is not 2.0.
    Version,
    /// A header field without a name or a colon.
    HeaderSyntax,
    /// No empty line after the header.
    HeadEnd,
    /// Content-Length is not a number, or there are two that differ.
    ContentLength,
    /// Content-Length is more than what came.
    BodyShort,
    /// A stream needs a Content-Length (RFC 3261 §18.3).
    NoContentLength,
    /// A header that every message must have is not there.
    Missing(Name),
    /// This header's value does not follow its grammar.
    Bad(Name),
    /// More than one of a header that may be there once.
    Twice(Name),
    /// The method in CSeq is not the request's.
    CSeqMethod,
    /// Not a URI, or one that a Request-URI must not be (§19.1.1: no headers).
    RequestUri,
    /// Not a URI.
    Uri,
    /// Not a via-parm.
    Via,
    /// Neither a name-addr nor an addr-spec.
    NameAddr,
    /// Not `;name` or `;name=value`.
    Params,
}

impl ParseErrorKind {
    /// The answer that a request with this fault gets.
    pub const fn status(self) -> u16 {
        match self {
            ParseErrorKind::TooLarge | ParseErrorKind::TooManyHeaders => 513,
            ParseErrorKind::Version => 505,
            ParseErrorKind::Empty
            | ParseErrorKind::StartLine
            | ParseErrorKind::HeaderSyntax
            | ParseErrorKind::HeadEnd
            | ParseErrorKind::ContentLength
            | ParseErrorKind::BodyShort
            | ParseErrorKind::NoContentLength
            | ParseErrorKind::Missing(_)
            | ParseErrorKind::Bad(_)
            | ParseErrorKind::Twice(_)
            | ParseErrorKind::CSeqMethod
            | ParseErrorKind::RequestUri
            | ParseErrorKind::Uri
            | ParseErrorKind::Via
            | ParseErrorKind::NameAddr
            | ParseErrorKind::Params => 400,
        }
    }
}

/// Short enough for a reason phrase.
impl fmt::Display for ParseErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseErrorKind::Empty => f.write_str("Empty Message"),
            ParseErrorKind::TooLarge => f.write_str("Message Too Large"),
            ParseErrorKind::TooManyHeaders => f.write_str("Too Many Header Fields"),
            ParseErrorKind::StartLine => f.write_str("Malformed Start-Line"),
            ParseErrorKind::Version => f.write_str("Version Not Supported"),
            ParseErrorKind::HeaderSyntax => f.write_str("Malformed Header Field"),
            ParseErrorKind::HeadEnd => f.write_str("Header Without End"),
            ParseErrorKind::ContentLength => f.write_str("Malformed Content-Length"),
            ParseErrorKind::BodyShort => f.write_str("Content-Length Larger Than Body"),
            ParseErrorKind::NoContentLength => f.write_str("Missing Content-Length"),
            ParseErrorKind::Missing(name) => write!(f, "Missing {}", name.as_str()),
            ParseErrorKind::Bad(name) => write!(f, "Malformed {}", name.as_str()),
            ParseErrorKind::Twice(name) => write!(f, "More Than One {}", name.as_str()),
            ParseErrorKind::CSeqMethod => f.write_str("CSeq Method Differs"),
            ParseErrorKind::RequestUri => f.write_str("Malformed Request-URI"),
            ParseErrorKind::Uri => f.write_str("Malformed URI"),
            ParseErrorKind::Via => f.write_str("Malformed Via"),
            ParseErrorKind::NameAddr => f.write_str("Malformed Address"),
            ParseErrorKind::Params => f.write_str("Malformed Parameters"),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.at)
    }
}

impl std::error::Error for ParseError {}
