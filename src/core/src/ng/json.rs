//! ng's other encoding, JSON.
//!
//! In: bytes; out: a [`Dict`], and back, keys in order. Not here: bencode, the cookie.

use super::{Dict, ErrorKind, ParseError, Value};
use crate::limits::NG_DEPTH;
use serde_json::Value as Json;

pub(super) fn decode(data: &[u8]) -> Result<Dict, ParseError> {
    // serde_json bounds its own recursion (128); ours is narrower, and judged on the result.
    let json: Json = serde_json::from_slice(data).map_err(|e| {
        let kind = match (e.is_eof(), e.to_string()) {
            (true, _) => ErrorKind::Truncated,
            (false, text) if text.starts_with("recursion limit") => ErrorKind::TooDeep,
            (false, text) if text.starts_with("trailing characters") => ErrorKind::Trailing,
            (false, _) => ErrorKind::Syntax,
        };
        ParseError { at: offset(data, e.line(), e.column()), kind }
    })?;
    match from_json(json, 0)? {
        Value::Dict(dict) => Ok(dict),
        Value::Bytes(_) | Value::Int(_) | Value::List(_) => {
            Err(ParseError { at: 0, kind: ErrorKind::NotADictionary })
        }
    }
}

/// serde_json counts lines and columns from 1; we count bytes from 0.
fn offset(data: &[u8], line: usize, column: usize) -> usize {
    let start = memchr::memchr_iter(b'\n', data).nth(line.saturating_sub(2)).map_or(0, |at| at + 1);
    let start = if line <= 1 { 0 } else { start };
    (start + column.saturating_sub(1)).min(data.len())
}

fn from_json(json: Json, depth: usize) -> Result<Value, ParseError> {
    // Where in the text it stood, is lost here; the kind tells enough.
    let error = |kind| ParseError { at: 0, kind };
    if depth >= NG_DEPTH {
        return Err(error(ErrorKind::TooDeep));
    }
    match json {
        Json::String(text) => Ok(Value::Bytes(text.into_bytes())),
        Json::Number(number) => number.as_i64().map(Value::Int).ok_or(error(ErrorKind::NotAnNgValue)),
        Json::Array(list) => Ok(Value::List(
            list.into_iter().map(|item| from_json(item, depth + 1)).collect::<Result<_, _>>()?,
        )),
        Json::Object(map) => {
            let entries = map.into_iter().map(|(key, item)| Ok((key, from_json(item, depth + 1)?)));
            Ok(Value::Dict(entries.collect::<Result<_, ParseError>>()?))
        }
        Json::Null | Json::Bool(_) => Err(error(ErrorKind::NotAnNgValue)),
    }
}

pub(super) fn to_json(dict: &Dict) -> Json {
    Json::Object(dict.iter().map(|(key, value)| (key.to_owned(), value_to_json(value))).collect())
}

fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Bytes(bytes) => Json::String(String::from_utf8_lossy(bytes).into_owned()),
        Value::Int(number) => Json::from(*number),
        Value::List(list) => Json::Array(list.iter().map(value_to_json).collect()),
        Value::Dict(dict) => to_json(dict),
    }
}
