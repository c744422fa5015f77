//! A description as JSON, and back without loss.
//!
//! In: an [`Sdp`]. Out: `{"session": {"lines": […]}, "media": [{"media", "port", "protocol", "formats", "lines"}, …]}`; a line is
//! `{"type": "a", "name": "rtpmap", "value": "0 PCMU/8000"}`, all others have `type` and `value`. What cannot be told so is told as
//! it is: bytes that are no UTF-8 in `base64`, another line end than CRLF in `end` (of the whole, and of a line that differs), an
//! m-line that is not written in the usual way as a line. Not here: what any of it means (`attributes`, `lines`).

use super::{Line, Media, ParseError, Sdp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::fmt;

/// Why JSON is no description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// A member that is missing, or of another type than it must be.
    Member(&'static str),
    /// A line that would be two, or none.
    Line(String),
    /// Together they are no description.
    Sdp(ParseError),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::Member(what) => write!(f, "not an SDP in JSON: {what}"),
            JsonError::Line(line) => write!(f, "not an SDP in JSON: {line} is not one line"),
            JsonError::Sdp(error) => write!(f, "not an SDP: {error}"),
        }
    }
}

impl std::error::Error for JsonError {}

const CRLF: &str = "\r\n";

fn end_of<'a>(line: &Line<'a>) -> &'a str {
    match line.raw {
        [.., b'\r', b'\n'] => CRLF,
        [.., b'\n'] => "\n",
        [.., b'\r'] => "\r",
        _ => "",
    }
}

/// Whether an object may be a description in this form.
pub fn is_form(object: &Map<String, Value>) -> bool {
    object.get("session").is_some_and(Value::is_object) && object.get("media").is_some_and(Value::is_array)
}

impl Sdp<'_> {
    pub fn to_json(&self) -> Value {
        let usual = self.lines.first().map_or(CRLF, end_of);
        let mut out = Map::new();
        if usual != CRLF {
            out.insert("end".to_owned(), usual.into());
        }
        let lines =
            |lines: &[Line<'_>]| -> Value { lines.iter().map(|line| line_to_json(line, usual)).collect() };
        out.insert("session".to_owned(), json!({ "lines": lines(self.session().lines()) }));
        let media: Vec<Value> = self
            .medias()
            .map(|section| {
                let (first, rest) = (section.lines().first(), section.lines().get(1..).unwrap_or_default());
                match first.filter(|line| end_of(line) == usual).and_then(m_line) {
                    Some(mut media) => {
                        media.insert("lines".to_owned(), lines(rest));
                        Value::Object(media)
                    }
                    None => json!({ "lines": lines(section.lines()) }),
                }
            })
            .collect();
        out.insert("media".to_owned(), media.into());
        Value::Object(out)
    }
}

fn line_to_json(line: &Line<'_>, usual: &str) -> Value {
    let mut out = Map::new();
    let kind = if line.kind == 0 { String::new() } else { (line.kind as char).to_string() };
    out.insert("type".to_owned(), kind.into());
    match line.text() {
        None => {
            out.insert("base64".to_owned(), STANDARD.encode(line.value).into());
        }
        Some(text) if line.kind == b'a' => {
            let (name, value) = match text.split_once(':') {
                Some((name, value)) => (name, Some(value)),
                None => (text, None),
            };
            out.insert("name".to_owned(), name.into());
            if let Some(value) = value {
                out.insert("value".to_owned(), value.into());
            }
        }
        Some("") if line.kind == 0 => {}
        Some(text) => {
            out.insert("value".to_owned(), text.into());
        }
    }
    if end_of(line) != usual {
        out.insert("end".to_owned(), end_of(line).into());
    }
    Value::Object(out)
}

/// The parts of an m-line, if they make the same line again.
fn m_line(line: &Line<'_>) -> Option<Map<String, Value>> {
    let m = Media::parse(line.value)?;
    let formats: Vec<&str> = m.formats.split(' ').filter(|format| !format.is_empty()).collect();
    let mut out = Map::new();
    out.insert("media".to_owned(), m.media.into());
    out.insert("port".to_owned(), m.port.into());
    if let Some(count) = m.port_count {
        out.insert("ports".to_owned(), count.into());
    }
    out.insert("protocol".to_owned(), m.protocol.into());
    out.insert("formats".to_owned(), formats.into());
    (m_text(&out)?.as_bytes() == line.value).then_some(out)
}

fn m_text(media: &Map<String, Value>) -> Option<String> {
    let (name, port) = (media.get("media")?.as_str()?, media.get("port")?.as_u64()?);
    let count = match media.get("ports") {
        Some(count) => format!("/{}", count.as_u64()?),
        None => String::new(),
    };
    let mut out = format!("{name} {port}{count} {}", media.get("protocol")?.as_str()?);
    for format in media.get("formats")?.as_array()? {
        out.push(' ');
        out.push_str(format.as_str()?);
    }
    Some(out)
}

/// The text of a description in this form.
pub fn from_json(form: &Map<String, Value>) -> Result<Vec<u8>, JsonError> {
    let usual = match form.get("end") {
        Some(end) => end.as_str().ok_or(JsonError::Member("end is a text"))?,
        None => CRLF,
    };
    let mut out = Vec::with_capacity(2048);
    let lines = |object: &Value, out: &mut Vec<u8>| {
        let lines =
            object.get("lines").and_then(Value::as_array).ok_or(JsonError::Member("lines is a list"))?;
        lines.iter().try_for_each(|line| put_line(line, usual, out))
    };
    lines(form.get("session").unwrap_or(&Value::Null), &mut out)?;
    let media = form.get("media").and_then(Value::as_array).ok_or(JsonError::Member("media is a list"))?;
    for one in media {
        let object = one.as_object().ok_or(JsonError::Member("each of media is an object"))?;
        if object.contains_key("media") {
            let text = m_text(object)
                .ok_or(JsonError::Member("media, port, protocol and formats make an m-line"))?;
            put(b'm', text.as_bytes(), usual, &mut out)?;
        }
        lines(one, &mut out)?;
    }
    Sdp::parse(&out).map_err(JsonError::Sdp)?;
    Ok(out)
}

fn put_line(line: &Value, usual: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let text = |name: &str| line.get(name).and_then(Value::as_str);
    let kind = text("type").ok_or(JsonError::Member("a line has a type"))?;
    let end = text("end").unwrap_or(usual);
    let kind = match kind.as_bytes() {
        [] => 0,
        [letter] => *letter,
        _ => return Err(JsonError::Line(kind.to_owned())),
    };
    if let Some(encoded) = text("base64") {
        let value = STANDARD.decode(encoded).map_err(|_| JsonError::Member("base64 is base64"))?;
        return put(kind, &value, end, out);
    }
    match (text("name"), text("value")) {
        (Some(name), Some(value)) => put(kind, format!("{name}:{value}").as_bytes(), end, out),
        (Some(value), None) | (None, Some(value)) => put(kind, value.as_bytes(), end, out),
        (None, None) => put(kind, b"", end, out),
    }
}

fn put(kind: u8, value: &[u8], end: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
    if memchr::memchr2(b'\n', b'\r', value).is_some() || !matches!(end, "\r\n" | "\n" | "\r" | "") {
        return Err(JsonError::Line(String::from_utf8_lossy(value).into_owned()));
    }
    if kind != 0 {
        out.extend_from_slice(&[kind, b'=']);
    }
    out.extend_from_slice(value);
    out.extend_from_slice(end.as_bytes());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)] // It reads the corpus.
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back(data: &[u8]) -> Result<Vec<u8>, JsonError> {
        let form = Sdp::parse(data).map_err(JsonError::Sdp)?.to_json();
        // As text, since that is how it travels.
        let form: Value = serde_json::from_str(&form.to_string()).unwrap();
        from_json(form.as_object().unwrap())
    }

    #[test]
    fn the_form() {
        let text =
            "v=0\r\nt=0 0\r\nm=audio 4000/2 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\na=x:\r\n";
        let form = Sdp::parse(text.as_bytes()).unwrap().to_json();
        assert_eq!(
            form,
            json!({
                "session": {"lines": [{"type": "v", "value": "0"}, {"type": "t", "value": "0 0"}]},
                "media": [{
                    "media": "audio", "port": 4000, "ports": 2, "protocol": "RTP/AVP", "formats": ["0", "8"],
                    "lines": [
                        {"type": "a", "name": "rtpmap", "value": "0 PCMU/8000"},
                        {"type": "a", "name": "sendrecv"},
                        {"type": "a", "name": "x", "value": ""},
                    ],
                }],
            })
        );
        assert!(is_form(form.as_object().unwrap()));
        assert_eq!(there_and_back(text.as_bytes()).unwrap(), text.as_bytes());
    }

    #[test]
    fn whatever_is_a_description_comes_back() {
        for text in [
            &b"v=0"[..],
            b"v=0\n",
            b"v=0\nt=0 0\r\n\nm=audio  4000 RTP/AVP 0\n",
            b"v=0\r\n\r\ns=\xff\xfe\r\na=\xff:1\r\nm=audio 04000 RTP/AVP  0 \r\nm=x 0 y\r\na=a\n",
            b"v=0\r\nm=audio 0 RTP/AVP \r\n\r\n",
            b"v=0\r\na=x\r",
        ] {
            if Sdp::parse(text).is_ok() {
                assert_eq!(there_and_back(text).unwrap(), text, "{}", String::from_utf8_lossy(text));
            }
        }
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus/sdp");
        let Ok(files) = std::fs::read_dir(dir) else {
            return eprintln!("SKIPPED: no corpus beside the repository");
        };
        let mut count = 0;
        for file in files.map(|file| file.unwrap().path()) {
            let data = std::fs::read(&file).unwrap();
            if Sdp::parse(&data).is_ok() {
                count += 1;
                assert_eq!(there_and_back(&data).unwrap(), data, "{}", file.display());
            }
        }
        assert!(count > 60, "{count}");
    }

    #[test]
    fn no_line_makes_two() {
        for form in [
            json!({"session": {"lines": [{"type": "v", "value": "0\r\na=b"}]}, "media": []}),
            json!({"session": {"lines": [{"type": "v", "value": "0", "end": "a=b"}]}, "media": []}),
            json!({"session": {"lines": [{"type": "v", "value": "0"}]}, "media": [{"media": "audio"}]}),
            json!({"session": {"lines": [{"type": "vv", "value": "0"}]}, "media": []}),
            json!({"session": {}, "media": []}),
            json!({"session": {"lines": []}, "media": []}),
        ] {
            assert!(from_json(form.as_object().unwrap()).is_err(), "{form}");
        }
    }

    proptest! {
        #[test]
        fn any_description_comes_back(
            lines in prop::collection::vec(
                prop_oneof![
                    "[a-z]=[ -~]{0,20}".prop_map(String::into_bytes),
                    "a=[a-z]{1,4}(:[ -~]{0,9})?".prop_map(String::into_bytes),
                    "m=(audio|video) [0-9]{1,4}(/[0-9])? RTP/AVP( [0-9]{1,3} ?){0,4}".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..8).prop_map(|bytes| [b"a=", &bytes[..]].concat()),
                    Just(Vec::new()),
                ],
                0..12,
            ),
            ends in prop::collection::vec(prop_oneof![Just("\r\n"), Just("\n")], 13),
            cut in any::<bool>(),
        ) {
            let mut data = b"v=0".to_vec();
            for (line, end) in lines.iter().zip(&ends) {
                data.extend_from_slice(end.as_bytes());
                data.extend_from_slice(line);
            }
            if !cut {
                data.extend_from_slice(b"\r\n");
            }
            if Sdp::parse(&data).is_ok() {
                prop_assert_eq!(there_and_back(&data), Ok(data));
            }
        }
    }
}
