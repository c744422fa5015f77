//! `--anonymise`: items in, the same items with other names out.
//!
//! In: items. Out: items of the same kind. Not here: what becomes of a name (`sipbox_core::anonymise`).

use super::extract::{Record, record};
use super::source::Sink;
use super::{Bad, place};
use crate::exit::Failure;
use crate::output::Output;
use sipbox_core::anonymise::Anonymiser;
use sipbox_core::inputs::{Item, Kind, Piece, sip};
use sipbox_core::ng::{Dict, Value};
use sipbox_core::sdp::{ParseError, Sdp, json as form};
use sipbox_core::sip::Message;

pub struct Anonymise {
    names: Anonymiser,
    out: Output,
    bad: Bad,
}

impl Anonymise {
    pub fn new(names: Anonymiser, strict: bool) -> Self {
        Anonymise { names, out: Output::new(), bad: Bad::new(strict) }
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        self.out.flush()?;
        self.bad.finish()
    }

    /// What is written for an item; an error with the line of the SDP that it is in.
    fn item(&mut self, item: &Item<'_>) -> Result<Vec<u8>, (u64, String)> {
        let mut out = Vec::with_capacity(item.data.len() + 64);
        match item.kind {
            Kind::Sdp => {
                let not_sdp = |error: ParseError| {
                    (u64::from(error.line.saturating_sub(1)), format!("not an SDP: {}", error.kind))
                };
                self.names.sdp(item.data, &mut out).map_err(not_sdp)?;
            }
            Kind::Sip => {
                let not_sip = |error| (0, format!("not a SIP message: {error}"));
                let mended = sip::mend(item.data).map_err(not_sip)?;
                self.names.sip(&Message::parse(&mended.data).map_err(not_sip)?, &mut out);
            }
            Kind::Bencode | Kind::Json => {
                let reason = |reason| (0, reason);
                match record(item) {
                    Ok(Record::Ng(dict)) => {
                        let dict = self.dict(&dict).map_err(reason)?;
                        if item.kind == Kind::Bencode {
                            out = dict.encode_bencode();
                        } else {
                            out = dict.encode_json().into_bytes();
                            out.push(b'\n');
                        }
                    }
                    Err(error) if item.kind == Kind::Bencode => return Err((0, error)),
                    // An object without an SDP has names all the same.
                    Ok(Record::Json { .. } | Record::Form(_)) | Err(_) => {
                        self.object(item.data, &mut out).map_err(reason)?;
                    }
                }
            }
        }
        Ok(out)
    }

    fn sdp(&mut self, text: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(text.len() + 64);
        self.names.sdp(text, &mut out).map_err(|error| format!("not an SDP: {error}"))?;
        Ok(out)
    }

    /// Each value by its key.
    fn dict(&mut self, dict: &Dict) -> Result<Dict, String> {
        dict.iter().map(|(key, value)| Ok((key.to_owned(), self.value(key, value)?))).collect()
    }

    fn value(&mut self, key: &str, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::Bytes(text) if key == "sdp" => Value::Bytes(self.sdp(text)?),
            Value::Bytes(text) => Value::from(self.names.field(key, &String::from_utf8_lossy(text))),
            Value::Int(number) => Value::Int(*number),
            Value::List(list) => {
                Value::List(list.iter().map(|one| self.value(key, one)).collect::<Result<_, String>>()?)
            }
            Value::Dict(dict) => Value::Dict(self.dict(dict)?),
        })
    }

    /// Each text by its key, in its place.
    fn object(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let mut value: serde_json::Value =
            serde_json::from_slice(data).map_err(|error| format!("no JSON: {error}"))?;
        match value.as_object().filter(|object| form::is_form(object)) {
            Some(object) => {
                let text = form::from_json(object).map_err(|error| error.to_string())?;
                let text = self.sdp(&text)?;
                value = Sdp::parse(&text).map_err(|error| error.to_string())?.to_json();
            }
            None => self.json("", &mut value)?,
        }
        out.extend_from_slice(value.to_string().as_bytes());
        out.push(b'\n');
        Ok(())
    }

    fn json(&mut self, key: &str, value: &mut serde_json::Value) -> Result<(), String> {
        match value {
            serde_json::Value::String(text) => {
                *text = if key == "sdp" {
                    String::from_utf8_lossy(&self.sdp(text.as_bytes())?).into_owned()
                } else if let Some(message) = self.message(text) {
                    message
                } else {
                    self.names.field(key, text)
                };
            }
            serde_json::Value::Array(list) => list.iter_mut().try_for_each(|one| self.json(key, one))?,
            serde_json::Value::Object(map) => {
                map.iter_mut().try_for_each(|(key, one)| self.json(key, one))?;
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
        }
        Ok(())
    }

    /// A record of a trace has whole messages in it.
    fn message(&mut self, text: &str) -> Option<String> {
        if !text.contains("SIP/2.0") {
            return None;
        }
        let mended = sip::mend(text.as_bytes()).ok()?;
        let mut out = Vec::new();
        self.names.sip(&Message::parse(&mended.data).ok()?, &mut out);
        Some(String::from_utf8_lossy(&out).into_owned())
    }
}

impl Sink for Anonymise {
    fn piece(&mut self, file: &str, piece: &Piece<'_>) -> Result<(), Failure> {
        let item = match piece {
            Piece::Item(item) => item,
            Piece::Fault(at, reason) => return self.bad.add(place(file, at, reason)),
        };
        match self.item(item) {
            Ok(out) => self.out.bytes(&out),
            Err((offset, reason)) => {
                let mut at = item.place;
                at.line += offset;
                self.bad.add(place(file, &at, reason))
            }
        }
    }

    fn idle(&mut self) -> Result<(), Failure> {
        self.out.flush()
    }
}
