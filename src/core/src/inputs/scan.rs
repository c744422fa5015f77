//! Where an item begins and where it ends.
//!
//! In: the bytes from an item's first one on, and whether more can come. Out: its kind and length, or that more bytes are
//! needed; an answer other than that never changes with further bytes. Not here: the stream around it (`mod.rs`).

use super::Kind;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The kind, and how many bytes of a log's heading stand before it.
    At(Kind, usize),
    More,
    No,
}

/// Where the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    End(usize),
    More,
    /// Bencode that is none.
    Bad(usize),
}

/// A line that is longer begins neither a SIP message nor a log's dump.
pub(super) const BEGINNING: usize = 8_192;

/// Tells the kind. `strict` is for the search after a fault: there, any line of an SDP is no beginning, only its first is.
pub(super) fn begin(data: &[u8], ended: bool, strict: bool) -> Begin {
    match data {
        [b'{', ..] => return Begin::At(Kind::Json, 0),
        [b'v', b'=', ..] => return Begin::At(Kind::Sdp, 0),
        [b'a'..=b'z', b'=', ..] if !strict => return Begin::At(Kind::Sdp, 0),
        [b'd', rest @ ..] => match bencode_key(rest) {
            Some(true) => return Begin::At(Kind::Bencode, 0),
            None if !ended => return Begin::More,
            // Cut off within its first key: who reads it says so.
            None if !rest.is_empty() => return Begin::At(Kind::Bencode, 0),
            Some(false) | None => {}
        },
        [b'a'..=b'z'] if !ended => return Begin::More,
        _ => {}
    }
    let window = &data[..data.len().min(BEGINNING)];
    let line = match memchr::memchr(b'\n', window) {
        Some(lf) => &window[..lf],
        None if ended || window.len() == BEGINNING => window,
        None => return Begin::More,
    };
    if is_start_line(line) {
        return Begin::At(Kind::Sip, 0);
    }
    if !is_heading(line) {
        return Begin::No;
    }
    // The dictionary stands behind it, or on the next line.
    match memchr::memchr(b'{', window) {
        Some(at) if window[line.len().min(at)..at].iter().all(u8::is_ascii_whitespace) => {
            Begin::At(Kind::Json, at)
        }
        Some(_) => Begin::No,
        None if ended || window.len() == BEGINNING => Begin::No,
        None => Begin::More,
    }
}

/// `7:command` or the `e` of an empty dictionary; `None` where it is too short to tell.
fn bencode_key(rest: &[u8]) -> Option<bool> {
    let digits = rest.iter().take(7).take_while(|byte| byte.is_ascii_digit()).count();
    match (digits, rest.get(digits)) {
        (0, Some(b'e')) => rest.get(1).map(u8::is_ascii_whitespace),
        (0, Some(_)) => Some(false),
        (_, Some(b':')) => Some(digits < 7),
        (_, Some(_)) => Some(false),
        (_, None) => None,
    }
}

/// A Request-Line or Status-Line (RFC 3261 §7.1, §7.2).
pub(super) fn is_start_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if let Some(rest) = line.strip_prefix(b"SIP/2.0 ") {
        return rest.len() >= 3 && rest[..3].iter().all(u8::is_ascii_digit);
    }
    let Some(rest) = line.strip_suffix(b" SIP/2.0") else { return false };
    let method = rest.iter().position(|byte| *byte == b' ').unwrap_or(0);
    method > 0 && rest[..method].iter().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(b))
}

/// What a relay's log writes before a dictionary.
fn is_heading(line: &[u8]) -> bool {
    let has = |text: &[u8]| memchr::memmem::find(line, text).is_some();
    has(b"Dump for") || has(b"Response dump")
}

/// The end of the item that begins at `from`.
pub(super) fn end(kind: Kind, data: &[u8], from: usize, ended: bool) -> Scan {
    match kind {
        Kind::Json => json(data, from, ended),
        Kind::Sdp => sdp(data, from, ended),
        Kind::Bencode => bencode(data, from, ended),
        Kind::Sip => sip(data, from, ended),
    }
}

/// To the brace that closes the first one. A line that begins with a brace is another object: this one is broken.
fn json(data: &[u8], from: usize, ended: bool) -> Scan {
    let (mut at, mut depth, mut within) = (from, 0_usize, false);
    let cut = |lf: usize| matches!(data.get(lf + 1), Some(b'{'));
    while let Some(byte) = data.get(at) {
        if within {
            let Some(found) = memchr::memchr3(b'"', b'\\', b'\n', &data[at..]) else { break };
            at += found;
            match data[at] {
                b'"' => within = false,
                b'\\' => at += 1,
                _ if cut(at) => return Scan::End(at + 1),
                _ => {}
            }
        } else {
            match byte {
                b'"' => within = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Scan::End(at + 1);
                    }
                }
                b'\n' if cut(at) => return Scan::End(at + 1),
                _ => {}
            }
        }
        at += 1;
    }
    if ended { Scan::End(data.len()) } else { Scan::More }
}

/// To the next `v=`, or to the line that begins another kind.
fn sdp(data: &[u8], from: usize, ended: bool) -> Scan {
    let mut at = from;
    loop {
        let Some(lf) = memchr::memchr(b'\n', &data[at..]) else {
            return if ended { Scan::End(data.len()) } else { Scan::More };
        };
        at += lf + 1;
        let rest = &data[at..];
        // Most lines need no second look.
        if matches!(rest, [b'a'..=b'u' | b'w'..=b'z', b'=', ..]) {
            continue;
        }
        match begin(rest, ended, true) {
            Begin::At(..) => return Scan::End(at),
            Begin::More if rest.len() >= BEGINNING => {}
            Begin::More if !ended => return Scan::More,
            Begin::More | Begin::No => {}
        }
    }
}

fn bencode(data: &[u8], from: usize, ended: bool) -> Scan {
    let (mut at, mut depth) = (from, 0_usize);
    let more = if ended { Scan::End(data.len()) } else { Scan::More };
    loop {
        match data.get(at) {
            None => return more,
            Some(b'd' | b'l') => depth += 1,
            Some(b'e') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Scan::End(at + 1);
                }
            }
            Some(b'i') => match number(data, at + 1, b'e') {
                Number::More => return more,
                Number::Bad => return Scan::Bad(at - from),
                Number::At(end, _) => at = end,
            },
            Some(b'0'..=b'9') => match number(data, at, b':') {
                Number::More => return more,
                Number::Bad => return Scan::Bad(at - from),
                Number::At(colon, length) => {
                    let Some(end) = usize::try_from(length).ok().and_then(|n| colon.checked_add(n)) else {
                        return Scan::Bad(at - from);
                    };
                    if end >= data.len() {
                        // Too long for any window is too long: who called sees it by the window's length.
                        return more;
                    }
                    at = end;
                }
            },
            Some(_) => return Scan::Bad(at - from),
        }
        at += 1;
    }
}

enum Number {
    /// Where the stop stands, and the value.
    At(usize, i64),
    More,
    Bad,
}

fn number(data: &[u8], from: usize, stop: u8) -> Number {
    const LONGEST: usize = 20;
    let rest = data.get(from..).unwrap_or_default();
    let window = &rest[..rest.len().min(LONGEST + 1)];
    match memchr::memchr(stop, window) {
        Some(length) => {
            let value = std::str::from_utf8(&window[..length]).ok().and_then(|text| text.parse().ok());
            value.map_or(Number::Bad, |value| Number::At(from + length, value))
        }
        None if window.len() > LONGEST => Number::Bad,
        None => Number::More,
    }
}

/// By its Content-Length; without one, or where line ends were lost and no length can be right, to the next start-line.
fn sip(data: &[u8], from: usize, ended: bool) -> Scan {
    let more = if ended { Scan::End(data.len()) } else { Scan::More };
    let mut at = from;
    let head_end = loop {
        let Some(lf) = memchr::memchr(b'\n', &data[at..]) else { return more };
        at += lf + 1;
        match &data[at..] {
            [b'\r', b'\n', ..] => break at + 2,
            [b'\n', ..] => break at + 1,
            [] | [b'\r'] => return more,
            _ => {}
        }
    };
    let head = &data[from..head_end];
    let declared = crate::sip::declared_length(head).ok().flatten();
    let has_crs = head.ends_with(b"\r\n\r\n");
    match declared {
        Some(0) => return Scan::End(head_end),
        Some(length) if has_crs => {
            let Some(end) = head_end.checked_add(length) else { return more };
            return if end <= data.len() { Scan::End(end) } else { more };
        }
        Some(_) | None => {}
    }
    let mut at = head_end;
    loop {
        let rest = &data[at..];
        let window = &rest[..rest.len().min(BEGINNING)];
        let line = match memchr::memchr(b'\n', window) {
            Some(lf) => &window[..lf],
            None if ended || window.len() == BEGINNING => window,
            None => return Scan::More,
        };
        if is_start_line(line) {
            return Scan::End(at);
        }
        let Some(lf) = memchr::memchr(b'\n', rest) else { return more };
        at += lf + 1;
    }
}
