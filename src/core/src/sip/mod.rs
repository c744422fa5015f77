//! SIP messages: a lazy scanner over the receive buffer, typed views on demand, and writers.
//!
//! RFC 3261 §7, §20, §25; RFC 4475 and 5118 are the tests. Goes in: one datagram, one WebSocket message, or one message
//! that [`framing`](crate::framing) cut from a stream. Comes out: a [`Message`] that borrows from it: where each header
//! begins and ends, and nothing more until it is asked for. [`edit::Edit`] forwards a message with a few headers changed and
//! everything else byte for byte; [`build`] makes messages of our own. Not here: state of any kind.

pub mod addr;
pub mod body;
pub mod build;
pub mod edit;
pub mod error;
pub mod lex;
pub mod method;
pub mod name;
pub mod params;
pub mod status;
pub mod uri;
pub mod via;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

pub use addr::NameAddr;
pub use body::Valued;
pub use error::{ParseError, ParseErrorKind};
pub use lex::{List, unfold, unquote};
pub use method::Method;
pub use name::Name;
pub use params::{Param, Params};
pub use uri::{Aor, Scheme, Uri};
pub use via::{Rport, Via};

use crate::limits;

/// Headers for which there is room without an allocation. A message with more is moved about more slowly, not refused.
const INLINE: usize = 40;

/// Where a header field lies. 16 bits reach, since a message is at most [`limits::SIP_MESSAGE_BYTES`] long.
#[derive(Clone, Copy)]
struct Entry {
    name: Name,
    start: u16,
    name_end: u16,
    value_start: u16,
    value_end: u16,
    /// Past the line end.
    end: u16,
}

const NO_ENTRY: Entry =
    Entry { name: Name::Other, start: 0, name_end: 0, value_start: 0, value_end: 0, end: 0 };

#[derive(Clone)]
struct Table {
    inline: [Entry; INLINE],
    used: usize,
    spill: Vec<Entry>,
    /// The index of each name's first header field, or one before it; [`NO_HEADER`] where it has none.
    first: [u8; Name::COUNT],
}

const NO_HEADER: u8 = u8::MAX;

impl Table {
    fn push(&mut self, entry: Entry) {
        let first = &mut self.first[entry.name as usize];
        if *first == NO_HEADER {
            let index = self.used + self.spill.len();
            *first = index.min(usize::from(NO_HEADER - 1)) as u8;
        }
        match self.inline.get_mut(self.used) {
            Some(slot) => {
                *slot = entry;
                self.used += 1;
            }
            None => self.spill.push(entry),
        }
    }

    fn len(&self) -> usize {
        self.used + self.spill.len()
    }

    fn iter(&self) -> impl Iterator<Item = Entry> + Clone + '_ {
        self.from(0)
    }

    fn from(&self, index: usize) -> impl Iterator<Item = Entry> + Clone + '_ {
        let inline = self.inline[..self.used].get(index..).unwrap_or_default();
        let spill = self.spill.get(index.saturating_sub(self.used)..).unwrap_or_default();
        inline.iter().chain(spill).copied()
    }

    /// The first of a name.
    fn first(&self, name: Name) -> Option<Entry> {
        self.all(name).next()
    }

    /// All of a name.
    fn all(&self, name: Name) -> impl Iterator<Item = Entry> + Clone + '_ {
        let index = match self.first[name as usize] {
            NO_HEADER => self.used + self.spill.len(),
            index => usize::from(index),
        };
        self.from(index).filter(move |entry| entry.name == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartLine<'a> {
    Request { method: Method<'a>, uri: &'a [u8] },
    Response { status: u16, reason: &'a [u8] },
}

/// A header field; the name as written (perhaps compact), the value without the blanks around it, perhaps folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub id: Name,
    pub name: &'a [u8],
    pub value: &'a [u8],
}

/// One SIP message in its buffer.
#[derive(Clone)]
pub struct Message<'a> {
    /// From the start-line to the end of the body; blank lines before and bytes behind are cut.
    raw: &'a [u8],
    start: StartLine<'a>,
    /// First byte of the first header.
    headers_at: usize,
    /// First byte of the empty line.
    head_end: usize,
    body_at: usize,
    table: Table,
}

/// How strict [`Message::scan`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Strict,
    /// Only so much that it can be refused: see [`Message::parse_to_refuse`].
    ToRefuse,
}

impl<'a> Message<'a> {
    /// Splits a datagram (or one framed message) into start-line, headers and body. What it checks is what it must know
    /// to do so; [`check`](Self::check) has the rest. Content-Length: larger than what is there is an error, smaller cuts
    /// what is behind, absent means all that is there (RFC 3261 §18.3).
    pub fn parse(data: &'a [u8]) -> Result<Self, ParseError> {
        Self::scan(data, Mode::Strict)
    }

    /// Reads a request that [`parse`](Self::parse) or [`check`](Self::check) refused, so far that a 400 can be written: broken
    /// header lines, another version and a wrong Content-Length are passed over, and what cannot be read goes into the
    /// answer as it came. None where there is no Request-Line or no Via at all, or it is an ACK, which has no answer.
    pub fn parse_to_refuse(data: &'a [u8]) -> Option<Self> {
        let message = Self::scan(data, Mode::ToRefuse).ok()?;
        let answerable =
            message.is_request() && message.method() != Method::Ack && message.header(Name::Via).is_some();
        answerable.then_some(message)
    }

    /// Reads what [`parse`](Self::parse) refused so far as it can be, for whoever shows it to people and never acts on it:
    /// broken header lines and the Content-Length are passed over, and there is no body.
    pub fn parse_to_show(data: &'a [u8]) -> Option<Self> {
        Self::scan(data, Mode::ToRefuse).ok()
    }

    fn scan(data: &'a [u8], mode: Mode) -> Result<Self, ParseError> {
        let blank = data.iter().position(|&b| !matches!(b, b'\r' | b'\n')).unwrap_or(data.len());
        let data = &data[blank..];
        let fault = |at: usize, kind| ParseError { at: blank + at, kind };
        if data.is_empty() {
            return Err(fault(0, ParseErrorKind::Empty));
        }
        // Beyond that, a datagram cannot be; a stream's framing has refused it before.
        let window = &data[..data.len().min(limits::SIP_MESSAGE_BYTES)];
        let lf = memchr::memchr(b'\n', window).ok_or(fault(0, ParseErrorKind::StartLine))?;
        let start = match Self::start_line(strip_cr(&window[..lf]), mode) {
            Ok(start) => start,
            Err((at, kind)) => return Err(fault(at, kind)),
        };

        let headers_at = lf + 1;
        let first = [NO_HEADER; Name::COUNT];
        let table = Table { inline: [NO_ENTRY; INLINE], used: 0, spill: Vec::new(), first };
        let mut message = Message { raw: data, start, headers_at, head_end: 0, body_at: 0, table };
        let table = &mut message.table;
        let mut at = headers_at;
        let (head_end, body_at) = loop {
            match &window[at..] {
                [b'\r', b'\n', ..] => break (at, at + 2),
                [b'\n', ..] => break (at, at + 1),
                [] if mode == Mode::ToRefuse => break (at, at),
                _ => {}
            }
            // One header, with the lines that are folded into it.
            let mut end = at;
            loop {
                match memchr::memchr(b'\n', &window[end..]) {
                    Some(lf) => end += lf + 1,
                    None if mode == Mode::ToRefuse => end = window.len(),
                    None if data.len() > window.len() => return Err(fault(at, ParseErrorKind::TooLarge)),
                    None => return Err(fault(at, ParseErrorKind::HeadEnd)),
                }
                if !matches!(window.get(end), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let line = &window[at..end];
            let colon = memchr::memchr(b':', line).unwrap_or(0);
            let name = trim_blanks_end(&line[..colon]);
            let known = Name::parse(name);
            // A name that is known is a token.
            if known != Name::Other || lex::is_token(name) {
                if table.len() == limits::SIP_HEADERS {
                    return Err(fault(at, ParseErrorKind::TooManyHeaders));
                }
                let value = lex::trim(&line[colon + 1..]);
                // An empty value points behind its colon.
                let value_at = if value.is_empty() {
                    colon + 1
                } else {
                    value.as_ptr() as usize - line.as_ptr() as usize
                };
                // None of these is over 65,535: they lie within the window.
                table.push(Entry {
                    name: known,
                    start: at as u16,
                    name_end: (at + name.len()) as u16,
                    value_start: (at + value_at) as u16,
                    value_end: (at + value_at + value.len()) as u16,
                    end: end as u16,
                });
            } else if mode == Mode::Strict {
                return Err(fault(at, ParseErrorKind::HeaderSyntax));
            }
            at = end;
        };

        (message.head_end, message.body_at) = (head_end, body_at);
        if mode == Mode::ToRefuse {
            message.raw = &data[..body_at];
            return Ok(message);
        }
        if let Some((declared, at)) =
            message.declared_length().map_err(|at| fault(at, ParseErrorKind::ContentLength))?
        {
            let end = body_at + declared as usize;
            if end > data.len() {
                return Err(fault(at, ParseErrorKind::BodyShort));
            }
            message.raw = &data[..end];
        }
        if message.raw.len() > limits::SIP_MESSAGE_BYTES {
            return Err(fault(limits::SIP_MESSAGE_BYTES, ParseErrorKind::TooLarge));
        }
        Ok(message)
    }

    fn start_line(line: &'a [u8], mode: Mode) -> Result<StartLine<'a>, (usize, ParseErrorKind)> {
        let bad = |at| Err((at, ParseErrorKind::StartLine));
        if line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
            let Some(space) = memchr::memchr(b' ', line) else { return bad(0) };
            if !line[4..space].eq_ignore_ascii_case(b"2.0") {
                return Err((4, ParseErrorKind::Version));
            }
            let rest = &line[space + 1..];
            let (code, reason) = match memchr::memchr(b' ', rest) {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, &rest[rest.len()..]),
            };
            return match lex::number(code, false) {
                Some(status @ 100..=699) if code.len() == 3 => {
                    Ok(StartLine::Response { status: status as u16, reason })
                }
                _ => bad(space + 1),
            };
        }
        // Method SP Request-URI SP SIP-Version, each SP one space (RFC 4475 §3.1.2.9: no leniency here). Blanks at the end are
        // passed over where they are refused, for the answer's sake (§3.1.2.10).
        let line = if mode == Mode::ToRefuse { trim_blanks_end(line) } else { line };
        let Some(first) = memchr::memchr(b' ', line) else { return bad(0) };
        let Some(last) = memchr::memrchr(b' ', line) else { return bad(0) };
        let method = &line[..first];
        if !lex::is_token(method) {
            return bad(0);
        }
        if last == first {
            return bad(first);
        }
        let (uri, version) = (&line[first + 1..last], &line[last + 1..]);
        if !(version.len() > 4 && version[..4].eq_ignore_ascii_case(b"SIP/")) {
            return bad(last + 1);
        }
        if version[4..] != *b"2.0" && mode == Mode::Strict {
            return Err((last + 1, ParseErrorKind::Version));
        }
        if (uri.is_empty() || !lex::all(uri, |byte| byte > b' ')) && mode == Mode::Strict {
            return Err((first + 1, ParseErrorKind::RequestUri));
        }
        Ok(StartLine::Request { method: Method::parse(method), uri })
    }

    /// Content-Length and its place; Err with the place of one that is no number, or differs from another.
    fn declared_length(&self) -> Result<Option<(u32, usize)>, usize> {
        let mut found: Option<(u32, usize)> = None;
        for entry in self.table.all(Name::ContentLength) {
            let at = usize::from(entry.value_start);
            let value = lex::number(&self.raw[at..usize::from(entry.value_end)], false).ok_or(at)?;
            if found.is_some_and(|(first, _)| first != value) {
                return Err(at);
            }
            found = Some((value, at));
        }
        Ok(found)
    }

    /// What every server must check before it acts (RFC 3261 §8.1.1, §8.2, §16.3): the headers that must be there are, once,
    /// and can be read; the Request-URI is one; CSeq names the method. A scheme that nobody knows passes: that is 416, not 400.
    pub fn check(&self) -> Result<(), ParseError> {
        let head = |kind| ParseError { at: self.head_end, kind };
        for name in [Name::From, Name::To, Name::CallId, Name::CSeq] {
            let mut all = self.headers(name);
            let first = all.next().ok_or(head(ParseErrorKind::Missing(name)))?;
            if let Some(second) = all.next() {
                return Err(self.fault(second.name, ParseErrorKind::Twice(name)));
            }
            if first.value.is_empty() {
                return Err(self.fault(first.value, ParseErrorKind::Bad(name)));
            }
        }
        if self.header(Name::Via).is_none() {
            return Err(head(ParseErrorKind::Missing(Name::Via)));
        }
        for via in self.vias() {
            via?;
        }
        self.from()?;
        self.to()?;
        if self.call_id().is_some_and(|id| id.iter().any(|&b| lex::is_lws(b))) {
            return Err(self.bad(Name::CallId));
        }
        let (_, cseq_method) = self.cseq()?;
        self.max_forwards()?;
        if let StartLine::Request { method, uri } = self.start {
            if cseq_method != method {
                return Err(ParseError { kind: ParseErrorKind::CSeqMethod, ..self.bad(Name::CSeq) });
            }
            let parsed = Uri::parse(uri)
                .map_err(|e| ParseError { at: self.offset(uri) + e.at, kind: ParseErrorKind::RequestUri })?;
            if parsed.headers.is_some() {
                return Err(self.fault(uri, ParseErrorKind::RequestUri));
            }
        }
        if !self.contact_is_wildcard() {
            for contact in self.contacts() {
                contact?;
            }
        }
        for name in [Name::Route, Name::RecordRoute, Name::Path] {
            for route in self.addresses(name) {
                route?;
            }
        }
        Ok(())
    }

    fn offset(&self, part: &[u8]) -> usize {
        (part.as_ptr() as usize).wrapping_sub(self.raw.as_ptr() as usize).min(self.raw.len())
    }

    fn fault(&self, part: &[u8], kind: ParseErrorKind) -> ParseError {
        ParseError { at: self.offset(part), kind }
    }

    /// The fault of a header as a whole: malformed, or missing.
    fn bad(&self, name: Name) -> ParseError {
        match self.header(name) {
            Some(value) => self.fault(value, ParseErrorKind::Bad(name)),
            None => ParseError { at: self.head_end, kind: ParseErrorKind::Missing(name) },
        }
    }

    /// The whole message without what lies before and behind it.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    pub const fn is_request(&self) -> bool {
        matches!(self.start, StartLine::Request { .. })
    }

    /// A request's method; a response's by its CSeq.
    pub fn method(&self) -> Method<'a> {
        match self.start {
            StartLine::Request { method, .. } => method,
            StartLine::Response { .. } => self.cseq().map_or(Method::Other(b""), |(_, method)| method),
        }
    }

    /// As written; empty in a response.
    pub const fn request_uri(&self) -> &'a [u8] {
        match self.start {
            StartLine::Request { uri, .. } => uri,
            StartLine::Response { .. } => b"",
        }
    }

    /// 100 to 699; 0 in a request.
    pub const fn status(&self) -> u16 {
        match self.start {
            StartLine::Request { .. } => 0,
            StartLine::Response { status, .. } => status,
        }
    }

    /// A response's reason phrase; empty in a request.
    pub const fn reason(&self) -> &'a [u8] {
        match self.start {
            StartLine::Request { .. } => b"",
            StartLine::Response { reason, .. } => reason,
        }
    }

    fn view(&self, entry: Entry) -> Header<'a> {
        Header {
            id: entry.name,
            name: &self.raw[usize::from(entry.start)..usize::from(entry.name_end)],
            value: &self.raw[usize::from(entry.value_start)..usize::from(entry.value_end)],
        }
    }

    /// Every header field in order.
    pub fn all_headers(&self) -> impl Iterator<Item = Header<'a>> + Clone + '_ {
        self.table.iter().map(|entry| self.view(entry))
    }

    /// The header fields of one name, long or compact, in order.
    pub fn headers(&self, name: Name) -> impl Iterator<Item = Header<'a>> + Clone + '_ {
        self.table.all(name).map(|entry| self.view(entry))
    }

    /// The header fields of a name that [`Name`] does not know.
    pub fn named<'m>(&'m self, name: &'m str) -> impl Iterator<Item = Header<'a>> + Clone + 'm {
        self.all_headers().filter(move |header| header.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The first value of a name, without the blanks around it; [`unfold`] it before it is shown.
    pub fn header(&self, name: Name) -> Option<&'a [u8]> {
        self.table.first(name).map(|entry| self.view(entry).value)
    }

    /// Each element of the comma-separated values of a name, over all its header fields.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &'a [u8]> + Clone + '_ {
        self.headers(name).flat_map(|header| List::new(header.value))
    }

    /// Whether a comma-separated list of tokens (Supported, Require, Allow, …) has this one.
    pub fn has_token(&self, name: Name, token: &str) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(token.as_bytes()))
    }

    pub fn body(&self) -> &'a [u8] {
        &self.raw[self.body_at..]
    }

    /// As declared; None where it is absent.
    pub fn content_length(&self) -> Option<usize> {
        self.declared_length().ok().flatten().map(|(length, _)| length as usize)
    }

    pub fn vias(&self) -> impl Iterator<Item = Result<Via<'a>, ParseError>> + '_ {
        self.values(Name::Via).map(|value| {
            Via::parse(value).map_err(|e| ParseError {
                at: self.offset(value) + e.at,
                kind: ParseErrorKind::Bad(Name::Via),
            })
        })
    }

    pub fn top_via(&self) -> Result<Via<'a>, ParseError> {
        self.vias().next().unwrap_or_else(|| Err(self.bad(Name::Via)))
    }

    fn address(&self, name: Name, value: &'a [u8]) -> Result<NameAddr<'a>, ParseError> {
        NameAddr::parse(value)
            .map_err(|e| ParseError { at: self.offset(value) + e.at, kind: ParseErrorKind::Bad(name) })
    }

    /// The addresses in a list of them (Contact, Route, Path, …).
    pub fn addresses(&self, name: Name) -> impl Iterator<Item = Result<NameAddr<'a>, ParseError>> + '_ {
        self.values(name).map(move |value| self.address(name, value))
    }

    pub fn from(&self) -> Result<NameAddr<'a>, ParseError> {
        self.address(Name::From, self.header(Name::From).ok_or_else(|| self.bad(Name::From))?)
    }

    pub fn to(&self) -> Result<NameAddr<'a>, ParseError> {
        self.address(Name::To, self.header(Name::To).ok_or_else(|| self.bad(Name::To))?)
    }

    /// None also where From cannot be read; its URI is not looked at.
    pub fn from_tag(&self) -> Option<&'a [u8]> {
        addr::tag(self.header(Name::From)?)
    }

    pub fn to_tag(&self) -> Option<&'a [u8]> {
        addr::tag(self.header(Name::To)?)
    }

    pub fn call_id(&self) -> Option<&'a [u8]> {
        self.header(Name::CallId)
    }

    pub fn cseq(&self) -> Result<(u32, Method<'a>), ParseError> {
        let value = self.header(Name::CSeq).ok_or_else(|| self.bad(Name::CSeq))?;
        let end = value.iter().position(|&b| lex::is_lws(b)).unwrap_or(value.len());
        let (digits, method) = (&value[..end], lex::trim(&value[end..]));
        // §8.1.1.5: less than 2^31.
        match lex::number(digits, false) {
            Some(number) if number < 1 << 31 && lex::is_token(method) => Ok((number, Method::parse(method))),
            _ => Err(self.bad(Name::CSeq)),
        }
    }

    /// None where it is absent; an error where it is not a number up to 255.
    pub fn max_forwards(&self) -> Result<Option<u8>, ParseError> {
        match self.header(Name::MaxForwards) {
            None => Ok(None),
            Some(value) => match lex::number(value, false).and_then(|n| u8::try_from(n).ok()) {
                Some(hops) => Ok(Some(hops)),
                None => Err(self.bad(Name::MaxForwards)),
            },
        }
    }

    /// RFC 5393 §5.3; one that is no number does not count.
    pub fn max_breadth(&self) -> Option<u32> {
        self.header(Name::MaxBreadth).and_then(|value| lex::number(value, true))
    }

    /// Seconds; too large a number is the largest, and what is no number is 3600 (§20.19 by way of §10.2.1.1).
    pub fn expires(&self) -> Option<u32> {
        self.header(Name::Expires).map(seconds)
    }

    pub fn contacts(&self) -> impl Iterator<Item = Result<NameAddr<'a>, ParseError>> + '_ {
        self.addresses(Name::Contact)
    }

    /// `Contact: *`, alone.
    pub fn contact_is_wildcard(&self) -> bool {
        let mut values = self.values(Name::Contact);
        values.next() == Some(b"*") && values.next().is_none()
    }

    pub fn routes(&self) -> impl Iterator<Item = Result<NameAddr<'a>, ParseError>> + '_ {
        self.addresses(Name::Route)
    }

    pub fn record_routes(&self) -> impl Iterator<Item = Result<NameAddr<'a>, ParseError>> + '_ {
        self.addresses(Name::RecordRoute)
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("start", &self.start)
            .field("headers", &self.table.len())
            .field("body", &self.body().len())
            .finish()
    }
}

/// Content-Length of a head that ends with its empty line, for whoever cuts a stream into messages. Broken header lines are
/// left to [`Message::parse`]; a start-line or a Content-Length that cannot be read is an error.
pub fn declared_length(head: &[u8]) -> Result<Option<usize>, ParseError> {
    let message = Message::scan(head, Mode::ToRefuse)?;
    match message.declared_length() {
        Ok(found) => Ok(found.map(|(length, _)| length as usize)),
        Err(at) => Err(ParseError { at, kind: ParseErrorKind::ContentLength }),
    }
}

/// `delta-seconds`, with the leniency of RFC 3261 §20.19 and §10.2.1.1: an unreadable one counts as an hour.
pub fn seconds(value: &[u8]) -> u32 {
    lex::number(value, true).unwrap_or(3600)
}

fn strip_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn trim_blanks_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&b| !matches!(b, b' ' | b'\t')).map_or(0, |last| last + 1);
    &text[..end]
}
