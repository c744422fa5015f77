//! Bencode, as rtpengine and Kamailio speak it.
//!
//! In: bytes; out: a [`Dict`], and back. Dictionaries need not be sorted, and keep their order.
//! Not here: JSON, the cookie.

use super::{Dict, ErrorKind, ParseError, Value};
use crate::limits::NG_DEPTH;

pub(super) fn decode(data: &[u8]) -> Result<Dict, ParseError> {
    let mut reader = Reader { data, at: 0 };
    let value = reader.value(0)?;
    // rtpengine's own clients may end a datagram with a line break.
    let rest = data.get(reader.at..).unwrap_or_default();
    if rest.iter().any(|b| !b.is_ascii_whitespace()) {
        return Err(reader.error(ErrorKind::Trailing));
    }
    match value {
        Value::Dict(dict) => Ok(dict),
        Value::Bytes(_) | Value::Int(_) | Value::List(_) => {
            Err(ParseError { at: 0, kind: ErrorKind::NotADictionary })
        }
    }
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, kind: ErrorKind) -> ParseError {
        ParseError { at: self.at, kind }
    }

    fn peek(&self) -> Result<u8, ParseError> {
        self.data.get(self.at).copied().ok_or(self.error(ErrorKind::Truncated))
    }

    fn value(&mut self, depth: usize) -> Result<Value, ParseError> {
        if depth >= NG_DEPTH {
            return Err(self.error(ErrorKind::TooDeep));
        }
        match self.peek()? {
            b'i' => {
                self.at += 1;
                let digits = self.until(b'e')?;
                let number = std::str::from_utf8(digits).ok().and_then(|s| s.parse().ok());
                number.map(Value::Int).ok_or(self.error(ErrorKind::Syntax))
            }
            b'l' => {
                self.at += 1;
                let mut list = Vec::new();
                while self.peek()? != b'e' {
                    list.push(self.value(depth + 1)?);
                }
                self.at += 1;
                Ok(Value::List(list))
            }
            b'd' => {
                self.at += 1;
                let mut entries = Vec::new();
                while self.peek()? != b'e' {
                    let start = self.at;
                    if !self.peek()?.is_ascii_digit() {
                        return Err(self.error(ErrorKind::Key));
                    }
                    let key = self.string()?;
                    let key = std::str::from_utf8(key)
                        .map_err(|_| ParseError { at: start, kind: ErrorKind::Key })?;
                    entries.push((key.to_owned(), self.value(depth + 1)?));
                }
                self.at += 1;
                Ok(Value::Dict(entries.into_iter().collect()))
            }
            b'0'..=b'9' => Ok(Value::Bytes(self.string()?.to_vec())),
            _ => Err(self.error(ErrorKind::Syntax)),
        }
    }

    /// `LENGTH:BYTES`
    fn string(&mut self) -> Result<&'a [u8], ParseError> {
        let digits = self.until(b':')?;
        let length = std::str::from_utf8(digits).ok().filter(|s| s.bytes().all(|b| b.is_ascii_digit()));
        let length: usize = length.and_then(|s| s.parse().ok()).ok_or(self.error(ErrorKind::Syntax))?;
        let end = self.at.checked_add(length).ok_or(self.error(ErrorKind::Truncated))?;
        let bytes = self.data.get(self.at..end).ok_or(self.error(ErrorKind::Truncated))?;
        self.at = end;
        Ok(bytes)
    }

    /// What stands before `stop`, which is passed; a number has 20 characters at most.
    fn until(&mut self, stop: u8) -> Result<&'a [u8], ParseError> {
        const NUMBER: usize = 20;
        let rest = self.data.get(self.at..).unwrap_or_default();
        let window = rest.get(..rest.len().min(NUMBER + 1)).unwrap_or(rest);
        match memchr::memchr(stop, window) {
            Some(length) => {
                self.at += length + 1;
                Ok(&window[..length])
            }
            None if rest.len() <= NUMBER => Err(self.error(ErrorKind::Truncated)),
            None => Err(self.error(ErrorKind::Syntax)),
        }
    }
}

pub(super) fn write_dict(dict: &Dict, out: &mut Vec<u8>) {
    out.push(b'd');
    for (key, value) in dict.iter() {
        write_bytes(key.as_bytes(), out);
        write_value(value, out);
    }
    out.push(b'e');
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bytes(bytes) => write_bytes(bytes, out),
        Value::Int(number) => out.extend_from_slice(format!("i{number}e").as_bytes()),
        Value::List(list) => {
            out.push(b'l');
            for item in list {
                write_value(item, out);
            }
            out.push(b'e');
        }
        Value::Dict(dict) => write_dict(dict, out),
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}
