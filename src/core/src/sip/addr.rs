//! From, To, Contact, Route, Record-Route, Path: a name and a URI in brackets, or a bare URI.
//!
//! RFC 3261 §20.10, §25.1 (`name-addr`, `addr-spec`). Goes in: one value of such a header. Comes out: its parts as slices.
//! Not here: lists (`lex::List`) and the `*` of Contact.

use super::error::{ParseError, ParseErrorKind};
use super::lex;
use super::params::Params;
use super::uri::Uri;

/// One address with the parameters of the header around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    raw: &'a [u8],
    /// As written, a quoted one with its quotes; empty where there is none.
    pub display: &'a [u8],
    pub uri: Uri<'a>,
    /// Of the header, not of the URI.
    pub params: Params<'a>,
}

/// A value's parts, before its URI is looked at.
struct Split<'a> {
    display: &'a [u8],
    /// With its place.
    uri: (usize, &'a [u8]),
    params: Params<'a>,
}

/// Splits a value whose blanks were cut.
fn split(raw: &[u8]) -> Result<Split<'_>, ParseError> {
    let fault = |at| ParseError { at, kind: ParseErrorKind::NameAddr };
    let name_end = match raw.first() {
        Some(b'"') => lex::quoted_end(raw).ok_or(fault(0))?,
        _ => 0,
    };
    // A "<" behind the first ";" is no bracket of the address.
    let stop = memchr::memchr2(b'<', b';', &raw[name_end..]).map(|at| at + name_end);
    let open = match stop {
        Some(at) if raw[at] == b'<' => Some(at),
        // But behind a quoted name it is, whatever stands between; that is refused below.
        Some(at) if name_end > 0 => memchr::memchr(b'<', &raw[at..]).map(|open| open + at),
        Some(_) | None => None,
    };
    if let Some(open) = open {
        let display = lex::trim(&raw[..open]);
        let sound = if name_end > 0 {
            lex::trim(&raw[name_end..open]).is_empty()
        } else {
            // Phones send more than tokens here; only what makes the value ambiguous is refused.
            !display.iter().any(|b| matches!(b, b'"' | b',' | b';' | b'>' | 0))
        };
        if !sound {
            return Err(fault(0));
        }
        let close = memchr::memchr(b'>', &raw[open..]).ok_or(fault(open))? + open;
        let params = Params::parse(&raw[close + 1..]).map_err(|e| fault(close + 1 + e.at))?;
        return Ok(Split { display, uri: (open + 1, &raw[open + 1..close]), params });
    }
    // §20.10: without brackets, all parameters are the header's, and "," and "?" must not be there.
    let bare_end = if name_end == 0 { stop } else { memchr::memchr(b';', raw) }.unwrap_or(raw.len());
    let addr = lex::trim(&raw[..bare_end]);
    if let Some(at) = memchr::memchr2(b',', b'?', addr) {
        return Err(fault(at));
    }
    let params = Params::parse(&raw[bare_end..]).map_err(|e| fault(bare_end + e.at))?;
    if memchr::memchr(b'?', params.as_bytes()).is_some() {
        return Err(fault(bare_end));
    }
    Ok(Split { display: b"", uri: (0, addr), params })
}

/// The tag of From or To, whatever its URI is.
pub(super) fn tag(value: &[u8]) -> Option<&[u8]> {
    split(value).ok()?.params.get("tag").filter(|tag| !tag.is_empty())
}

impl<'a> NameAddr<'a> {
    pub fn parse(raw: &'a [u8]) -> Result<Self, ParseError> {
        let raw = lex::trim(raw);
        let Split { display, uri: (at, uri), params } = split(raw)?;
        let uri = Uri::parse(uri)
            .map_err(|error| ParseError { at: at + error.at, kind: ParseErrorKind::NameAddr })?;
        Ok(NameAddr { raw, display, uri, params })
    }

    /// As it stands in the message.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.get("tag").filter(|tag| !tag.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_header_from_uri_parameters() {
        let a = NameAddr::parse(b"\"Bell, \\\"Al\\\" <x>;\" <sip:al@example.com;lr>;tag=1").unwrap();
        assert_eq!(a.display, b"\"Bell, \\\"Al\\\" <x>;\"");
        assert_eq!((a.uri.user, a.tag()), (Some(&b"al"[..]), Some(&b"1"[..])));
        assert!(a.uri.is_loose());
        let b = NameAddr::parse(b"sip:bob@example.com;tag=2").unwrap();
        assert!(b.uri.params.is_empty());
        assert_eq!(b.tag(), Some(&b"2"[..]));
        let c = NameAddr::parse(b"caller<sip:c@example.com>").unwrap();
        assert_eq!(c.display, b"caller");
    }

    #[test]
    fn refuses_what_is_none() {
        for bad in [
            "",
            "*",
            "\"Al <sip:a@b>",
            "Bell, Al <sip:a@b>",
            "<sip:a@b",
            "<sip:a@b>;;",
            "<sip:a@b> x",
            "sip:a@b;x?Route=%3Csip:c%3E",
        ] {
            assert!(NameAddr::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
