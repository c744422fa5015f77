//! The small words of RFC 3261 §25.1: tokens, hosts, linear white space, quoted strings, lists.
//!
//! Goes in: slices of a message. Comes out: smaller slices of the same; nothing is copied. LWS here includes the line
//! end of a folded header, so that no value has to be unfolded before it is read. Not here: whole values.

use std::borrow::Cow;

/// SP, HT, and the CR and LF that fold a line.
pub(crate) const fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

pub(crate) fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&b| !is_lws(b)).unwrap_or(text.len());
    &text[start..]
}

pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let end = text.iter().rposition(|&b| !is_lws(b)).map_or(0, |last| last + 1);
    &text[..end]
}

/// One character of `token`.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & IN_TOKEN != 0
}

/// What a byte may be in: one load instead of a dozen comparisons, for every byte of every name.
const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
        {
            table[at] |= IN_TOKEN;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            table[at] |= IN_HOST;
        }
        at += 1;
    }
    table
};
const IN_TOKEN: u8 = 1;
/// A host that is no IPv6 address. An underscore is let through: the field has it.
const IN_HOST: u8 = 2;

/// The index of the first byte that is not of a class.
fn first_not(class: u8, text: &[u8]) -> Option<usize> {
    text.iter().position(|&byte| CLASSES[usize::from(byte)] & class == 0)
}

/// Whether a byte can stand in a URI at all: no blanks, controls, brackets, quotes.
pub(crate) const fn is_uri_byte(byte: u8) -> bool {
    !(byte <= b' ' || byte == b'<' || byte == b'>' || byte == b'"' || byte == 0x7f)
}

/// Whether all bytes are such. Without an early end, so that the compiler compares sixteen at a time.
pub(crate) fn all(text: &[u8], is: impl Fn(u8) -> bool) -> bool {
    text.iter().fold(true, |all, &byte| all & is(byte))
}

/// One byte of a parameter's value that is not quoted.
pub(crate) const fn is_value_byte(byte: u8) -> bool {
    !(byte == b' ' || byte == b'\t' || byte == b'\r' || byte == b'\n')
        && !(byte == b'"' || byte == b'<' || byte == b'>' || byte == b',' || byte == b';')
}

/// Where the token at the front ends.
pub(crate) fn token_end(text: &[u8]) -> usize {
    first_not(IN_TOKEN, text).unwrap_or(text.len())
}

pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && first_not(IN_TOKEN, text).is_none()
}

/// Decimal digits and nothing else; what does not fit into a u32 becomes the largest one where `saturate`.
pub(crate) fn number(text: &[u8], saturate: bool) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0u32;
    let mut over = false;
    for &byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        match value.checked_mul(10).and_then(|v| v.checked_add(u32::from(byte - b'0'))) {
            Some(next) => value = next,
            None => over = true,
        }
    }
    match (over, saturate) {
        (false, _) => Some(value),
        (true, true) => Some(u32::MAX),
        (true, false) => None,
    }
}

pub(crate) fn port(text: &[u8]) -> Option<u16> {
    number(text, false).and_then(|n| u16::try_from(n).ok())
}

/// `host [":" port]` and nothing else. IPv6 keeps its brackets.
pub(crate) fn host_port(text: &[u8]) -> Option<(&str, Option<u16>)> {
    let (host, rest) = if text.first() == Some(&b'[') {
        let end = memchr::memchr(b']', text)? + 1;
        let (host, rest) = text.split_at(end);
        let inner = std::str::from_utf8(&host[1..end - 1]).ok()?;
        inner.parse::<std::net::Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        let (host, rest) = text.split_at(first_not(IN_HOST, text).unwrap_or(text.len()));
        let ended = rest.first().is_none_or(|&byte| byte == b':' || is_lws(byte));
        if host.is_empty() || !ended {
            return None;
        }
        (host, rest)
    };
    let host = std::str::from_utf8(host).ok()?;
    let rest = trim(rest);
    match rest.split_first() {
        None => Some((host, None)),
        Some((b':', digits)) => Some((host, Some(port(trim(digits))?))),
        Some(_) => None,
    }
}

/// The index just past the quoted string that begins at `text[0]`, or None where it does not end.
pub(crate) fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Where the next of `stop` is outside of quotes and `<>`; the length of the text where there is none.
pub(crate) fn find_outside(text: &[u8], stop: u8) -> usize {
    let mut at = 0;
    while let Some(next) = memchr::memchr3(stop, b'"', b'<', &text[at..]) {
        at += next;
        let byte = text[at];
        if byte == stop {
            return at;
        }
        at += match byte {
            b'"' => quoted_end(&text[at..]).unwrap_or(text.len() - at),
            _ => memchr::memchr(b'>', &text[at..]).map_or(text.len() - at, |end| end + 1),
        };
    }
    text.len()
}

/// A quoted string without its quotes and backslashes; anything else as it is.
pub fn unquote(text: &[u8]) -> Cow<'_, [u8]> {
    let inner = match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => return Cow::Borrowed(text),
    };
    if memchr::memchr(b'\\', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next()),
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

/// A value with each fold turned into one space (RFC 3261 §7.3.1).
pub fn unfold(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\r', b'\n', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if matches!(text[at], b'\r' | b'\n') {
            while out.last().is_some_and(|&b| is_lws(b)) {
                out.pop();
            }
            out.push(b' ');
            while text.get(at).is_some_and(|&b| is_lws(b)) {
                at += 1;
            }
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    Cow::Owned(out)
}

/// Splits a comma-separated list; quotes and `<>` are respected, LWS around each element is cut.
#[derive(Clone, Debug)]
pub struct List<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> List<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        List { rest: Some(text) }
    }
}

impl<'a> Iterator for List<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest?;
        let end = find_outside(text, b',');
        self.rest = text.get(end + 1..);
        Some(trim(&text[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_lists_outside_of_quotes_and_brackets() {
        let parts: Vec<_> = List::new(b"\"a, \\\" b\" <sip:x,y@h>;q=1 ,\r\n <sip:z@h>").collect();
        assert_eq!(parts, [&b"\"a, \\\" b\" <sip:x,y@h>;q=1"[..], b"<sip:z@h>"]);
        assert_eq!(List::new(b"").count(), 1);
        assert_eq!(List::new(b"\"never ends, ").count(), 1);
    }

    #[test]
    fn reads_hosts() {
        assert_eq!(host_port(b"example.com"), Some(("example.com", None)));
        assert_eq!(host_port(b"[2001:db8::1]:5061"), Some(("[2001:db8::1]", Some(5061))));
        assert_eq!(host_port(b"192.0.2.1 : 5060"), Some(("192.0.2.1", Some(5060))));
        for bad in [&b""[..], b"2001:db8::1", b"[2001:db8::1", b"a:65536", b"a:", b"a b", b"a@b"] {
            assert_eq!(host_port(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn unfolds_and_unquotes() {
        assert_eq!(unfold(b"a \r\n\t b").as_ref(), b"a b");
        assert_eq!(unquote(b"\"a \\\"b\\\\\"").as_ref(), b"a \"b\\");
    }
}
