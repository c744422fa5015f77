//! rtpengine's control protocol, "ng": the values, their two encodings, and the flags of a request.
//!
//! No RFC: the reference is rtpengine's own documentation and behaviour (the protocol's forms of 2019 to 2026).
//! A message is `COOKIE SP DICTIONARY`; the dictionary is bencode or JSON, told apart by its first byte.
//! In: a datagram's bytes. Out: [`Message`], and bytes again in the encoding that the peer chose.
//! Not here: what a command does (`relay`), how flags change an SDP (`rewrite`), sockets and retransmission (`sipbox-io`).

mod bencode;
mod codec;
mod flags;
mod json;
mod manipulate;
mod parties;
mod sdes;
mod stream;
mod value;

pub use codec::CodecFlags;
pub use flags::{
    DtlsFlag, Flags, IceFlag, IceLiteFlag, MediaEcho, OF_REQUEST, OsrtpFlags, RtcpMuxFlags, words,
};
pub use manipulate::{Manipulations, Rules};
pub use parties::{Parties, Party, find_answer, find_offer};
pub use sdes::SdesFlags;
pub use stream::Framer;
pub use value::{Dict, Value};

use std::fmt;

/// Bytes of a cookie at most: it is echoed, and is half of the key of the reply cache.
const COOKIE_BYTES: usize = 255;

/// Which of the two encodings a peer speaks; the reply speaks the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Bencode,
    Json,
}

/// Where and why a message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Byte offset into what was decoded.
    pub at: usize,
    pub kind: ErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No `COOKIE SP` in front, or a cookie of no or too many bytes.
    Cookie,
    /// The input ends within a value.
    Truncated,
    /// A byte that begins no value, or a malformed number.
    Syntax,
    /// Nested deeper than [`NG_DEPTH`](crate::limits::NG_DEPTH).
    TooDeep,
    /// Longer than [`NG_MESSAGE_BYTES`](crate::limits::NG_MESSAGE_BYTES).
    TooLong,
    /// A key that is no UTF-8 text.
    Key,
    /// The whole is a value, but no dictionary.
    NotADictionary,
    /// More after the dictionary.
    Trailing,
    /// JSON's true, false, null or fractions, which the protocol has not.
    NotAnNgValue,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ErrorKind::Cookie => "no cookie in front of the dictionary",
            ErrorKind::Truncated => "the message ends within a value",
            ErrorKind::Syntax => "neither bencode nor JSON",
            ErrorKind::TooDeep => "nested too deep",
            ErrorKind::TooLong => "too long",
            ErrorKind::Key => "a key that is not UTF-8",
            ErrorKind::NotADictionary => "not a dictionary",
            ErrorKind::Trailing => "something follows the dictionary",
            ErrorKind::NotAnNgValue => "a value that is neither text, whole number, list nor dictionary",
        };
        write!(f, "{what} (byte {})", self.at)
    }
}

impl std::error::Error for ParseError {}

/// One message with its cookie.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub cookie: Vec<u8>,
    pub encoding: Encoding,
    pub dict: Dict,
}

/// Splits `COOKIE SP DICTIONARY`; the second part is still encoded.
pub fn split_cookie(data: &[u8]) -> Result<(&[u8], &[u8]), ParseError> {
    let error = ParseError { at: 0, kind: ErrorKind::Cookie };
    // Searched no further than a cookie may reach: an SDP is full of blanks.
    let window = data.get(..data.len().min(COOKIE_BYTES + 1)).unwrap_or(data);
    let at = memchr::memchr(b' ', window).ok_or(error)?;
    if at == 0 || window[..at].iter().any(|b| !b.is_ascii_graphic()) {
        return Err(error);
    }
    Ok((&data[..at], &data[at + 1..]))
}

/// A dictionary without a cookie, in either encoding.
pub fn decode(data: &[u8]) -> Result<(Encoding, Dict), ParseError> {
    if data.len() > crate::limits::NG_MESSAGE_BYTES {
        return Err(ParseError { at: crate::limits::NG_MESSAGE_BYTES, kind: ErrorKind::TooLong });
    }
    match data.first() {
        Some(b'd') => Ok((Encoding::Bencode, bencode::decode(data)?)),
        Some(b'{') => Ok((Encoding::Json, json::decode(data)?)),
        Some(_) => Err(ParseError { at: 0, kind: ErrorKind::Syntax }),
        None => Err(ParseError { at: 0, kind: ErrorKind::Truncated }),
    }
}

/// A whole message as it comes from a socket.
pub fn decode_message(data: &[u8]) -> Result<Message, ParseError> {
    let (cookie, rest) = split_cookie(data)?;
    let offset = cookie.len() + 1;
    let (encoding, dict) = decode(rest).map_err(|e| ParseError { at: e.at + offset, kind: e.kind })?;
    Ok(Message { cookie: cookie.to_vec(), encoding, dict })
}

/// `COOKIE SP DICTIONARY`.
pub fn encode_message(cookie: &[u8], encoding: Encoding, dict: &Dict) -> Vec<u8> {
    let mut out = Vec::with_capacity(cookie.len() + 1 + 512);
    out.extend_from_slice(cookie);
    out.push(b' ');
    match encoding {
        Encoding::Bencode => bencode::write_dict(dict, &mut out),
        Encoding::Json => out.extend_from_slice(dict.encode_json().as_bytes()),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NG_DEPTH;
    use proptest::prelude::*;

    #[test]
    fn both_encodings_say_the_same() {
        let bencode = b"1_2 d7:command5:offer3:sdp5:v=0\r\n5:flagsl12:generate-mide4:porti-7ee";
        let json = br#"1_2 {"command":"offer","sdp":"v=0\r\n","flags":["generate-mid"],"port":-7}"#;
        let a = decode_message(bencode).unwrap();
        let b = decode_message(json).unwrap();
        assert_eq!((a.encoding, b.encoding), (Encoding::Bencode, Encoding::Json));
        assert_eq!(a.dict, b.dict);
        assert_eq!(a.cookie, b"1_2");
        assert_eq!(encode_message(&a.cookie, a.encoding, &a.dict), bencode);
        assert_eq!(encode_message(&b.cookie, b.encoding, &b.dict), json);
        assert_eq!(a.dict.get_str("sdp"), Some("v=0\r\n"));
        assert_eq!(a.dict.get_int("port"), Some(-7));
    }

    #[test]
    fn blank_and_hyphen_are_one_in_a_key() {
        let dict = Dict::new().with("from-tag", "a").with("call id", "c");
        assert_eq!(dict.get_str("from tag"), Some("a"));
        assert_eq!(dict.get_str("call-id"), Some("c"));
        assert_eq!(dict.get_str("callid"), None);
        assert_eq!(dict.get_str("created_us"), None);
    }

    #[test]
    fn unsorted_dictionaries_are_taken_and_order_is_kept() {
        let (_, dict) = decode(b"d1:z1:11:a1:2e").unwrap();
        assert_eq!(dict.iter().map(|(k, _)| k).collect::<Vec<_>>(), ["z", "a"]);
        assert_eq!(dict.encode_bencode(), b"d1:z1:11:a1:2e");
    }

    #[test]
    fn nesting_ends_at_the_limit_in_both() {
        let nest = |n: usize| [b"d1:a".to_vec(), vec![b'l'; n], vec![b'e'; n], b"e".to_vec()].concat();
        assert!(decode(&nest(NG_DEPTH - 1)).is_ok());
        assert_eq!(decode(&nest(NG_DEPTH)).unwrap_err().kind, ErrorKind::TooDeep);
        assert_eq!(decode(&nest(30_000)).unwrap_err().kind, ErrorKind::TooDeep);
        let nest = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n)).into_bytes();
        assert!(decode(&nest(NG_DEPTH - 1)).is_ok());
        assert_eq!(decode(&nest(NG_DEPTH)).unwrap_err().kind, ErrorKind::TooDeep);
        assert!(decode(&nest(30_000)).is_err());
    }

    #[test]
    fn what_is_none_says_where() {
        for (data, kind) in [
            (&b"d"[..], ErrorKind::Truncated),
            (b"d3:ab", ErrorKind::Truncated),
            (b"d1:a", ErrorKind::Truncated),
            (b"d1:a1:be trailing", ErrorKind::Trailing),
            (b"d1:ai1xee", ErrorKind::Syntax),
            (b"d1:aiee", ErrorKind::Syntax),
            (b"d1:a99999999999999999999:e", ErrorKind::Syntax),
            (b"d1:a60000:xe", ErrorKind::Truncated),
            (b"di1ei2ee", ErrorKind::Key),
            (b"d2:\xff\xfe1:ae", ErrorKind::Key),
            (b"", ErrorKind::Truncated),
            (b"x", ErrorKind::Syntax),
            (b"{\"a\":true}", ErrorKind::NotAnNgValue),
            (b"{\"a\":1.5}", ErrorKind::NotAnNgValue),
            (b"{\"a\":", ErrorKind::Truncated),
            (b"{} {}", ErrorKind::Trailing),
        ] {
            assert_eq!(decode(data).map_err(|e| e.kind), Err(kind), "{}", String::from_utf8_lossy(data));
        }
        for data in [&b""[..], b" d1:a1:be", b"cookie", b"cook\nie de"] {
            assert_eq!(decode_message(data).map_err(|e| e.kind), Err(ErrorKind::Cookie));
        }
        assert_eq!(decode_message(&vec![b'a'; 70_000]).map_err(|e| e.kind), Err(ErrorKind::Cookie));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
            any::<i64>().prop_map(Value::Int),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
                dict_of(inner).prop_map(Value::Dict),
            ]
        })
    }

    fn dict_of(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Dict> {
        proptest::collection::btree_map("[a-z -]{1,8}", inner, 0..5)
            .prop_map(|m| m.into_iter().fold(Dict::new(), |d, (k, v)| d.with(&k, v)))
    }

    proptest! {
        #[test]
        fn bencode_round_trip(dict in dict_of(value())) {
            prop_assert_eq!(decode(&dict.encode_bencode()).unwrap(), (Encoding::Bencode, dict));
        }

        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..200), json in any::<bool>()) {
            let head: &[u8] = if json { b"c {" } else { b"c d" };
            let _ = decode_message(&[head, &data].concat());
        }

        #[test]
        fn a_changed_byte_is_survived(dict in dict_of(value()), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut data = dict.encode_bencode();
            let at = at.index(data.len());
            data[at] = byte;
            let _ = decode(&data);
        }
    }
}
