//! JSON objects out of a text, one a line or written over several.
//!
//! In: lines. Out: values, and for each that is none its line and why; the next one is read all the same. An object
//! that is written over several lines begins and ends at the left margin, as every tool writes it. Not here: what is in them.

use serde_json::Value;
use sipbox_core::limits::REPORT_RECORD_BYTES;

/// What is wrong with a line or an object of more than [`REPORT_RECORD_BYTES`].
pub const TOO_LONG: &str = "longer than 16 MiB";

/// A text under way.
#[derive(Default)]
pub struct Records {
    /// Of an object that has not ended.
    open: Vec<u8>,
    /// Where that began, from 1.
    start: usize,
    line: usize,
    pub values: Vec<Value>,
    /// Line, and what is wrong there.
    pub bad: Vec<(usize, String)>,
}

impl Records {
    /// One line, with its end.
    pub fn line(&mut self, line: &[u8]) {
        self.line += 1;
        let begins = line.trim_ascii_start().first() == Some(&b'{');
        let goes_on =
            matches!(line.first(), Some(b' ' | b'\t' | b'\r' | b'\n' | b'}' | b']' | b'[' | b'"' | b','));
        if !self.open.is_empty() && !goes_on {
            self.close("it ends within");
        }
        if self.open.is_empty() {
            if line.trim_ascii().is_empty() {
                return;
            }
            self.start = self.line;
            if !begins {
                self.bad.push((self.line, "no JSON object".to_owned()));
                return;
            }
        }
        let first = self.open.is_empty();
        if self.open.len() + line.len() > REPORT_RECORD_BYTES {
            self.bad.push((self.start, TOO_LONG.to_owned()));
            self.open.clear();
            return;
        }
        self.open.extend_from_slice(line);
        if first || line.first() == Some(&b'}') {
            self.parse(false);
        }
    }

    /// A line that was not read, since it is too long; an object that it belongs to goes with it.
    pub fn too_long(&mut self) {
        self.line += 1;
        self.open.clear();
        self.bad.push((self.line, TOO_LONG.to_owned()));
    }

    /// There are no more.
    pub fn finish(&mut self) {
        if !self.open.is_empty() {
            self.parse(true);
        }
    }

    fn parse(&mut self, last: bool) {
        let mut values = Vec::new();
        for value in serde_json::Deserializer::from_slice(self.open.trim_ascii_end()).into_iter::<Value>() {
            match value {
                Ok(value) => values.push(value),
                Err(error) if error.is_eof() && !last => return,
                Err(error) => {
                    self.bad.push((self.start + error.line().max(1) - 1, format!("no JSON: {error}")));
                    break;
                }
            }
        }
        self.values.append(&mut values);
        self.open.clear();
    }

    fn close(&mut self, why: &str) {
        self.bad.push((self.start, format!("no JSON: {why}")));
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (usize, Vec<usize>) {
        let mut records = Records::default();
        for line in text.split_inclusive('\n') {
            records.line(line.as_bytes());
        }
        records.finish();
        (records.values.len(), records.bad.iter().map(|(line, _)| *line).collect())
    }

    #[test]
    fn a_bad_one_is_named_and_the_rest_goes_on() {
        assert_eq!(read("{\"a\":1}\n\n{\"a\":\n{\"a\":2}\nwhat\n{\"a\":3}{\"a\":4}\n"), (4, vec![3, 5]));
        assert_eq!(read("{\"a\":\"b\nwhat\n{\"a\":2}\n"), (1, vec![1, 2]));
        assert_eq!(read("{\n  \"a\": {\n    \"b\": 1\n  }\n}\n{\n  \"a\": 2\n}\n"), (2, vec![]));
        assert_eq!(read("{\n  \"a\": x\n}\n{\"a\":2}\n"), (1, vec![2]));
        assert_eq!(read("{\"a\":1} x\n{\"a\":2}\n"), (2, vec![1]));
        assert_eq!(read("{\"a\":1}\n{\"a\":"), (1, vec![2]));
        assert_eq!(read(""), (0, vec![]));
    }
}
