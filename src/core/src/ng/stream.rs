//! ng over a stream: where one message ends and the next begins.
//!
//! No RFC, and no length in front: a message is `COOKIE SP DICTIONARY`, and a dictionary of bencode or JSON ends by itself.
//! White space between messages is passed over, so that a line each is a stream too. In: bytes as they come. Out: whole
//! messages. Each byte is looked at once. Not here: what is in a message (`decode_message`), connections (`sipbox-io`).

use super::{COOKIE_BYTES, ErrorKind, ParseError};
use crate::limits::NG_MESSAGE_BYTES;

/// Where in a message the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    Cookie,
    /// The byte after the cookie's blank.
    First,
    /// Lists and dictionaries that are open, and what stands inside them.
    Bencode(usize, Token),
    /// The same; within a string, and after its backslash.
    Json(usize, Option<bool>),
}

/// Within bencode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// A value begins, or the one around it ends.
    Value,
    Int,
    Length(usize),
    /// Bytes of a string that come yet.
    Text(usize),
}

/// Cuts one connection's bytes into messages.
#[derive(Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Where the message at hand begins, and up to where it was looked at.
    start: usize,
    at: usize,
    state: State,
}

impl Default for Framer {
    fn default() -> Self {
        Framer { buffer: Vec::new(), start: 0, at: 0, state: State::Between }
    }
}

impl Framer {
    /// Takes what came.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.drain(..self.start);
        self.at -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(data);
    }

    /// The next whole message. After an error the stream is of no use: nobody knows where the next one begins.
    pub fn next_message(&mut self) -> Option<Result<Vec<u8>, ParseError>> {
        while let Some(byte) = self.buffer.get(self.at).copied() {
            self.at += 1;
            match step(self.state, byte, self.at - self.start) {
                Ok(Some(State::Between)) => {
                    self.state = State::Between;
                    self.start = self.at;
                }
                Ok(Some(state)) => self.state = state,
                Ok(None) => {
                    let message = self.buffer.get(self.start..self.at).unwrap_or_default().to_vec();
                    self.start = self.at;
                    self.state = State::Between;
                    return Some(Ok(message));
                }
                Err(kind) => return Some(Err(ParseError { at: self.at - 1 - self.start, kind })),
            }
        }
        None
    }
}

/// The state after this byte, the `length`th of its message; `None` where the message ends with it.
fn step(state: State, byte: u8, length: usize) -> Result<Option<State>, ErrorKind> {
    if length > NG_MESSAGE_BYTES {
        return Err(ErrorKind::TooLong);
    }
    Ok(Some(match state {
        State::Between if byte.is_ascii_whitespace() => State::Between,
        State::Between | State::Cookie => match byte {
            b' ' => State::First,
            _ if byte.is_ascii_graphic() && length <= COOKIE_BYTES => State::Cookie,
            _ => return Err(ErrorKind::Cookie),
        },
        State::First => match byte {
            b'd' => State::Bencode(1, Token::Value),
            b'{' => State::Json(1, None),
            _ => return Err(ErrorKind::Syntax),
        },
        State::Bencode(depth, token) => {
            let token = match (token, byte) {
                (Token::Value, b'd' | b'l') => return Ok(Some(State::Bencode(depth + 1, Token::Value))),
                (Token::Value, b'e') if depth == 1 => return Ok(None),
                (Token::Value, b'e') => return Ok(Some(State::Bencode(depth - 1, Token::Value))),
                (Token::Value, b'i') => Token::Int,
                (Token::Value, b'0'..=b'9') => Token::Length(usize::from(byte - b'0')),
                (Token::Int, b'e') => Token::Value,
                (Token::Int, b'-' | b'0'..=b'9') => Token::Int,
                (Token::Length(0), b':') => Token::Value,
                (Token::Length(rest), b':') => Token::Text(rest),
                (Token::Length(rest), b'0'..=b'9') if rest <= NG_MESSAGE_BYTES => {
                    Token::Length(rest * 10 + usize::from(byte - b'0'))
                }
                (Token::Text(1), _) => Token::Value,
                (Token::Text(rest), _) => Token::Text(rest - 1),
                (Token::Value | Token::Int | Token::Length(_), _) => return Err(ErrorKind::Syntax),
            };
            State::Bencode(depth, token)
        }
        State::Json(depth, Some(true)) => State::Json(depth, Some(false)),
        State::Json(depth, Some(false)) => match byte {
            b'\\' => State::Json(depth, Some(true)),
            b'"' => State::Json(depth, None),
            _ => State::Json(depth, Some(false)),
        },
        State::Json(depth, None) => match byte {
            b'"' => State::Json(depth, Some(false)),
            b'{' | b'[' => State::Json(depth + 1, None),
            b'}' | b']' if depth == 1 => return Ok(None),
            b'}' | b']' => State::Json(depth - 1, None),
            _ => State::Json(depth, None),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MESSAGES: [&[u8]; 4] = [
        b"1_a d7:command4:pinge",
        br#"1_b {"command":"offer","sdp":"v=0\r\na={\"}","flags":["x",["]"]]}"#,
        b"1_c d1:ai-7e1:bl0:3:}edd1:c1:eeee",
        b"1_d {}",
    ];

    fn cut(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, ParseError> {
        let mut framer = Framer::default();
        let mut out = Vec::new();
        for piece in pieces {
            framer.push(piece);
            while let Some(message) = framer.next_message() {
                out.push(message?);
            }
        }
        Ok(out)
    }

    proptest! {
        /// However a stream is cut on its way, the same messages come out of it.
        #[test]
        fn pieces_of_any_size(size in 1usize..40, gap in "[ \r\n]{0,2}") {
            let stream: Vec<u8> = MESSAGES.iter().flat_map(|message| [gap.as_bytes(), message].concat()).collect();
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            prop_assert_eq!(cut(&pieces).unwrap(), MESSAGES.to_vec());
        }

        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = cut(&[b"c d", &data]);
            let _ = cut(&[b"c {", &data]);
            let _ = cut(&[&data]);
        }
    }

    #[test]
    fn what_is_none_ends_the_stream() {
        for (data, kind) in [
            (&b"c x"[..], ErrorKind::Syntax),
            (b"c d1x", ErrorKind::Syntax),
            (b"c di1x", ErrorKind::Syntax),
            (b"\x00", ErrorKind::Cookie),
            (b"cook\nie d", ErrorKind::Cookie),
            (b"c d99999999999999999999999:", ErrorKind::Syntax),
        ] {
            assert_eq!(cut(&[data]).map_err(|error| error.kind), Err(kind), "{}", data.escape_ascii());
        }
        assert_eq!(cut(&[&[b'a'; 300]]).unwrap_err().kind, ErrorKind::Cookie);
        // Neither a string that is announced, nor one that never ends, is waited for beyond the bound.
        for head in [&b"c d99999:"[..], b"c {\"a\":\""] {
            let endless = vec![b'x'; NG_MESSAGE_BYTES];
            assert_eq!(cut(&[head, &endless]).unwrap_err().kind, ErrorKind::TooLong);
        }
    }
}
