//! Parameters: `;name=value` after a URI's host or a header's value.
//!
//! RFC 3261 §25.1 (`uri-parameters`, `generic-param`), §7.3.1. Goes in: the text from the first `;` on. Comes out: names
//! and values in order, as slices; names compare without case. Not here: what they mean.

use super::error::{ParseError, ParseErrorKind};
use super::lex;

/// A list of parameters, read when asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a>(&'a [u8]);

/// One parameter; a flag (`;lr`) has no value. A quoted value keeps its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    pub name: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl<'a> Params<'a> {
    /// Checks the text: empty, or each parameter after a `;` has a name.
    pub fn parse(text: &'a [u8]) -> Result<Self, ParseError> {
        let params = Params(lex::trim(text));
        match params.0.first() {
            None => return Ok(params),
            Some(b';') => {}
            Some(_) => return Err(ParseError { at: 0, kind: ParseErrorKind::Params }),
        }
        for param in params.iter() {
            let sound = !param.name.is_empty()
                && param.name.iter().all(|&b| lex::is_token_byte(b) || b"[]/:&$".contains(&b))
                && param.value.is_none_or(Self::is_value);
            if !sound {
                let at = param.name.as_ptr() as usize - text.as_ptr() as usize;
                return Err(ParseError { at, kind: ParseErrorKind::Params });
            }
        }
        Ok(params)
    }

    /// One quoted string, or something without blanks, quotes and separators.
    fn is_value(value: &[u8]) -> bool {
        match value.first() {
            None => true,
            Some(b'"') => lex::quoted_end(value) == Some(value.len()),
            Some(b'<') => value.last() == Some(&b'>'),
            Some(_) => lex::all(value, lex::is_value_byte),
        }
    }

    pub fn iter(&self) -> ParamsIter<'a> {
        ParamsIter(self.0.get(1..))
    }

    /// The value of a parameter; an empty slice for a flag.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.find(name).map(|param| param.value.unwrap_or_default())
    }

    /// The value as text; None where it is absent or not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub fn find(&self, name: &str) -> Option<Param<'a>> {
        self.iter().find(|param| param.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they stand in the message, from the first `;` on.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// Iterator over [`Params`].
#[derive(Clone, Debug)]
pub struct ParamsIter<'a>(Option<&'a [u8]>);

impl<'a> Iterator for ParamsIter<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        let text = self.0?;
        // Nearly always a token and `=`, or a token alone; the rest is read with more care.
        let name_end = lex::token_end(text);
        match text.get(name_end) {
            Some(b'=') => {
                let end = name_end + 1 + lex::find_outside(&text[name_end + 1..], b';');
                self.0 = text.get(end + 1..);
                return Some(Param {
                    name: &text[..name_end],
                    value: Some(lex::trim(&text[name_end + 1..end])),
                });
            }
            Some(b';') | None => {
                self.0 = text.get(name_end + 1..);
                return Some(Param { name: &text[..name_end], value: None });
            }
            Some(_) => {}
        }
        let end = lex::find_outside(text, b';');
        self.0 = text.get(end + 1..);
        let one = &text[..end];
        Some(match memchr::memchr(b'=', one) {
            Some(eq) => Param { name: lex::trim(&one[..eq]), value: Some(lex::trim(&one[eq + 1..])) },
            None => Param { name: lex::trim(one), value: None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_flags_values_and_quotes() {
        let params = Params::parse(b" ;lr; Tag = \"a;b\"\r\n ;x=1").unwrap();
        assert!(params.has("LR"));
        assert_eq!(params.get("tag"), Some(&b"\"a;b\""[..]));
        assert_eq!(params.get("x"), Some(&b"1"[..]));
        assert_eq!(params.get("y"), None);
        assert_eq!(params.iter().count(), 3);
    }

    #[test]
    fn refuses_empty_names() {
        for bad in [&b";;"[..], b";", b";a=1;;b", b"a=1", b";=1", b";a=b c", b";a=\"b"] {
            assert!(Params::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
