//! The values of ng: byte strings, whole numbers, lists and dictionaries that keep their order.
//!
//! In: decoded messages, or what a caller puts together. Out: look-ups, and both encodings.
//! Not here: parsing (`bencode`, `json`).

use super::{bencode, json};

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string as the peer sent it; an SDP need not be UTF-8.
    Bytes(Vec<u8>),
    Int(i64),
    List(Vec<Value>),
    Dict(Dict),
}

impl Value {
    /// The text, where it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            Value::Int(_) | Value::List(_) | Value::Dict(_) => None,
        }
    }

    /// The number, also where a peer wrote it as text.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Bytes(_) => self.as_str()?.parse().ok(),
            Value::List(_) | Value::Dict(_) => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(list) => Some(list),
            Value::Bytes(_) | Value::Int(_) | Value::Dict(_) => None,
        }
    }

    pub fn as_dict(&self) -> Option<&Dict> {
        match self {
            Value::Dict(dict) => Some(dict),
            Value::Bytes(_) | Value::Int(_) | Value::List(_) => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Bytes(text.as_bytes().to_vec())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Bytes(text.into_bytes())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Value::Bytes(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Value::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Value::Bytes(bytes)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

/// Counters beyond 2^63 do not occur; they would stand at the greatest number.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Int(i64::from(number))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Value::Int(i64::from(number))
    }
}

impl From<Dict> for Value {
    fn from(dict: Dict) -> Self {
        Value::Dict(dict)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value
where
    Vec<T>: NotBytes,
{
    fn from(list: Vec<T>) -> Self {
        Value::List(list.into_iter().map(Into::into).collect())
    }
}

/// Lists that are no byte strings.
pub trait NotBytes {}
impl NotBytes for Vec<Value> {}
impl NotBytes for Vec<&str> {}
impl NotBytes for Vec<String> {}
impl NotBytes for Vec<Dict> {}
impl NotBytes for Vec<i64> {}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(list: [T; N]) -> Self {
        Value::List(list.into_iter().map(Into::into).collect())
    }
}

/// A dictionary: text keys in the order in which they came or were put.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dict {
    entries: Vec<(String, Value)>,
}

impl Dict {
    pub fn new() -> Self {
        Dict::default()
    }

    /// Appends an entry: `Dict::new().with("command", "offer").with("flags", ["generate-mid"])`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.push(key, value);
        self
    }

    /// Appends an entry; where the key is there already, look-ups still find the first.
    pub fn push(&mut self, key: &str, value: impl Into<Value>) {
        self.entries.push((key.to_owned(), value.into()));
    }

    /// Replaces the entry of this key in its place, or appends it.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.entries.iter_mut().find(|(k, _)| same_key(k, key)) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key; in keys a blank and a hyphen are one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| same_key(k, key)).map(|(_, value)| value)
    }

    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    pub fn get_bytes(&self, key: &str) -> Option<&[u8]> {
        match self.get(key)? {
            Value::Bytes(bytes) => Some(bytes),
            Value::Int(_) | Value::List(_) | Value::Dict(_) => None,
        }
    }

    pub fn get_int(&self, key: &str) -> Option<i64> {
        self.get(key)?.as_int()
    }

    pub fn get_list(&self, key: &str) -> Option<&[Value]> {
        self.get(key)?.as_list()
    }

    pub fn get_dict(&self, key: &str) -> Option<&Dict> {
        self.get(key)?.as_dict()
    }

    pub fn encode_bencode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        bencode::write_dict(self, &mut out);
        out
    }

    /// JSON on one line; bytes that are no UTF-8 become U+FFFD.
    pub fn encode_json(&self) -> String {
        json::to_json(self).to_string()
    }
}

impl FromIterator<(String, Value)> for Dict {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(entries: I) -> Self {
        Dict { entries: entries.into_iter().collect() }
    }
}

fn same_key(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b' ' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(x, y)| plain(x) == plain(y))
}
