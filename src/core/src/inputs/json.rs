//! One JSON object as bytes (RFC 8259): where its members are, and the text of a string, without building a tree.
//!
//! In: an object. Out: the places of its members, so that one value can be put in another's place and all else stays byte for
//! byte. It takes exactly what a strict parser takes. Not here: objects in a stream (`scan`), trees (serde_json).

use crate::limits::JSON_DEPTH;
use std::ops::Range;

/// Byte offset of what is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: usize,
}

/// Checks an object and calls `member` with each of its own members: the key's text (still escaped) and where the value is.
pub fn members(text: &[u8], mut member: impl FnMut(&[u8], Range<usize>)) -> Result<(), Fault> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(Fault { at: error.valid_up_to() });
    }
    let mut reader = Reader { text, at: 0 };
    reader.blanks();
    reader.expect(b'{')?;
    reader.blanks();
    if reader.peek() == Some(b'}') {
        reader.at += 1;
        return reader.end();
    }
    loop {
        let key = reader.key()?;
        let start = reader.at;
        reader.value()?;
        member(&text[key], start..reader.at);
        reader.blanks();
        match reader.peek() {
            Some(b',') => reader.at += 1,
            Some(b'}') => {
                reader.at += 1;
                return reader.end();
            }
            _ => return Err(reader.fault()),
        }
        reader.blanks();
    }
}

/// Bytes that end or interrupt the plain run of a string.
const fn is_special(byte: u8) -> bool {
    byte < 32 || byte == b'"' || byte == b'\\'
}

/// How many bytes of a string stand for themselves: eight at a time, as lines of an SDP are too short for `memchr`.
fn plain_run(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = 0;
    let (eights, _) = text.as_chunks::<8>();
    for eight in eights {
        let word = u64::from_le_bytes(*eight);
        // The first hit of each is exact; a borrow can only make another one after it.
        let control = word.wrapping_sub(ONES * 32) & !word & HIGH;
        let quote = zero(word ^ (ONES * b'"' as u64));
        let backslash = zero(word ^ (ONES * b'\\' as u64));
        let hits = control | quote | backslash;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + text[at..].iter().position(|byte| is_special(*byte)).unwrap_or(text.len() - at)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    const fn fault(&self) -> Fault {
        Fault { at: self.at }
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(self.fault());
        }
        self.at += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.blanks();
        if self.at == self.text.len() { Ok(()) } else { Err(self.fault()) }
    }

    /// A key and its colon; where the text between its quotation marks is.
    fn key(&mut self) -> Result<Range<usize>, Fault> {
        let start = self.at + 1;
        self.string()?;
        let end = self.at - 1;
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        Ok(start..end)
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.expect(b'"')?;
        loop {
            let rest = &self.text[self.at..];
            let run = plain_run(rest);
            self.at += run;
            match rest.get(run) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) | None => return Err(self.fault()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = self.unit(self.at).ok_or(self.fault())?;
                let pair = match unit {
                    // The halves of a pair come together, in their order.
                    0xd800..0xdc00 => {
                        self.unit(self.at + 6).is_some_and(|low| (0xdc00..0xe000).contains(&low))
                    }
                    0xdc00..0xe000 => return Err(self.fault()),
                    _ => {
                        self.at += 6;
                        return Ok(());
                    }
                };
                if !pair {
                    return Err(self.fault());
                }
                self.at += 12;
            }
            _ => return Err(self.fault()),
        }
        Ok(())
    }

    /// The number of a `\uXXXX` there.
    fn unit(&self, at: usize) -> Option<u32> {
        unit(self.text.get(at..at + 6)?)
    }

    fn number(&mut self) -> Result<(), Fault> {
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while matches!(reader.peek(), Some(b'0'..=b'9')) {
                reader.at += 1;
            }
            if reader.at == from { Err(reader.fault()) } else { Ok(()) }
        };
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => digits(self)?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            digits(self)?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            digits(self)?;
        }
        Ok(())
    }

    /// One value; what is open is remembered in bits: 1 for an object, 0 for a list.
    fn value(&mut self) -> Result<(), Fault> {
        let (mut open, mut depth) = (0_u64, 0);
        loop {
            match self.peek() {
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                Some(bracket @ (b'{' | b'[')) => {
                    if depth == JSON_DEPTH {
                        return Err(self.fault());
                    }
                    self.at += 1;
                    self.blanks();
                    let is_object = bracket == b'{';
                    if self.peek() == Some(if is_object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        depth += 1;
                        open = open << 1 | u64::from(is_object);
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                _ => return Err(self.fault()),
            }
            // A value ended; so may those around it.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = open & 1 == 1;
                self.blanks();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.blanks();
                        if is_object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if is_object => {}
                    Some(b']') if !is_object => {}
                    _ => return Err(self.fault()),
                }
                self.at += 1;
                depth -= 1;
                open >>= 1;
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.fault());
        }
        self.at += word.len();
        Ok(())
    }
}

fn unit(escape: &[u8]) -> Option<u32> {
    let digits = escape.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Appends the text of a string that [`members`] took; false where the value is no string.
pub fn text_of(value: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(mut rest) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return false;
    };
    out.reserve(rest.len());
    while let Some(run) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..run]);
        let plain = match rest.get(run + 1) {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                rest = &rest[run..];
                let unit_at = |at: usize| rest.get(at..at + 6).and_then(unit);
                let first = unit_at(0).unwrap_or(0xfffd);
                let (scalar, length) = match unit_at(6).filter(|_| (0xd800..0xdc00).contains(&first)) {
                    Some(low) => {
                        (0x10000 + ((first - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff), 12)
                    }
                    None => (first, 6),
                };
                let c = char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = rest.get(length..).unwrap_or_default();
                continue;
            }
            Some(byte) => *byte,
            None => return false,
        };
        out.push(plain);
        rest = &rest[run + 2..];
    }
    out.extend_from_slice(rest);
    true
}

/// Appends a string; bytes that are no UTF-8 become U+FFFD.
pub fn put_text(text: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(text) {
        Ok(text) => put(text.as_bytes(), out),
        Err(_) => put(String::from_utf8_lossy(text).as_bytes(), out),
    }
}

fn put(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + text.len() / 8 + 2);
    out.push(b'"');
    let mut rest = text;
    loop {
        let run = plain_run(rest);
        out.extend_from_slice(&rest[..run]);
        let Some(special) = rest.get(run) else { break };
        match *special {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = &rest[run + 1..];
    }
    out.push(b'"');
}

/// JSON out of what logs print: within a string, a line's end is the SDP's and the indentation after it is the log's.
pub fn mend(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::with_capacity(text.len() + 256);
    let (mut within, mut escaped, mut indented) = (false, false, false);
    for c in text.chars() {
        let blank = matches!(c, ' ' | '\t' | '\r');
        if !within {
            within = c == '"';
            out.push(c);
        } else if c == '\n' {
            out.push_str("\\r\\n");
            indented = true;
        } else if c == '\r' || (indented && blank) {
            // Indentation, or the first half of a line's end.
        } else {
            indented = false;
            if c == '"' && !escaped {
                within = false;
            }
            escaped = c == '\\' && !escaped;
            match c {
                '\t' => out.push_str("\\t"),
                c => out.push(c),
            }
        }
    }
    out
}
