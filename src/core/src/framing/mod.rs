//! SIP on a stream: cuts TCP's and TLS's bytes into messages and keep-alives.
//!
//! RFC 3261 §18.3 (Content-Length), §7.5 (line ends before a message); RFC 5626 §4.4.1 (CRLF keep-alive). Goes in: bytes as
//! they come, in any pieces. Comes out: whole messages, pings and pongs, or a fault, after which nobody knows where a message
//! begins and the connection has to be closed. Not here: WebSocket (one message a frame) and datagrams, which need none of it.

use crate::limits;
use crate::sip::{self, ParseError, ParseErrorKind};
use bytes::{Bytes, BytesMut};

/// Which end of the connection we are: only the one that opened it sends pings and is sent pongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We accepted it.
    Server,
    /// We opened it.
    Client,
}

/// One thing that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One message, as [`Message::parse`](sip::Message::parse) takes it.
    Message(Bytes),
    /// CRLF CRLF: to be answered with CRLF.
    Ping,
    /// CRLF: the answer to our ping.
    Pong,
}

/// Bytes that came and are not yet a whole message; never more than one message and one read.
#[derive(Debug)]
pub struct Framer {
    end: End,
    buffer: BytesMut,
    /// Up to here there is no end of a head.
    scanned: usize,
    /// Length of the message at the front, once its head is there.
    whole: Option<usize>,
}

impl Framer {
    pub fn new(end: End) -> Self {
        Framer { end, buffer: BytesMut::new(), scanned: 0, whole: None }
    }

    /// Takes what was read. [`next`](Self::next) is to be called until it has nothing more.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Room to read into, without a copy; what was not filled has to be cut off again.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether part of a message is waiting for the rest (to close a connection that dribbles).
    pub fn is_partial(&self) -> bool {
        self.buffer.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// The next frame; None where more bytes are needed.
    #[allow(clippy::should_implement_trait)] // An iterator that is exhausted stays so; this one goes on after `push`.
    pub fn next(&mut self) -> Result<Option<Frame>, ParseError> {
        loop {
            if let Some(length) = self.whole {
                if self.buffer.len() < length {
                    return Ok(None);
                }
                self.whole = None;
                self.scanned = 0;
                return Ok(Some(Frame::Message(self.buffer.split_to(length).freeze())));
            }
            if self.scanned == 0 {
                match self.line_ends() {
                    LineEnds::Frame(frame, length) => {
                        let _ = self.buffer.split_to(length);
                        return Ok(Some(frame));
                    }
                    LineEnds::Skip(length) => {
                        let _ = self.buffer.split_to(length);
                        continue;
                    }
                    LineEnds::Wait => return Ok(None),
                    LineEnds::None => {}
                }
            }
            let Some(head) = self.head_end() else {
                if self.buffer.len() > limits::SIP_MESSAGE_BYTES {
                    return Err(ParseError { at: limits::SIP_MESSAGE_BYTES, kind: ParseErrorKind::TooLarge });
                }
                return Ok(None);
            };
            let body = sip::declared_length(&self.buffer[..head])?
                .ok_or(ParseError { at: head, kind: ParseErrorKind::NoContentLength })?;
            let length = head.saturating_add(body);
            if length > limits::SIP_MESSAGE_BYTES {
                return Err(ParseError { at: limits::SIP_MESSAGE_BYTES, kind: ParseErrorKind::TooLarge });
            }
            self.whole = Some(length);
        }
    }

    /// What the line ends before a message mean.
    fn line_ends(&self) -> LineEnds {
        match (self.end, &self.buffer[..]) {
            (_, []) => LineEnds::Wait,
            (End::Client, [b'\r', b'\n', ..]) => LineEnds::Frame(Frame::Pong, 2),
            (End::Server, [b'\r', b'\n', b'\r', b'\n', ..]) => LineEnds::Frame(Frame::Ping, 4),
            // The rest of a ping may be on its way.
            (End::Server, [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r']) => LineEnds::Wait,
            (End::Client, [b'\r']) => LineEnds::Wait,
            (_, [b'\r' | b'\n', ..]) => LineEnds::Skip(1),
            (_, _) => LineEnds::None,
        }
    }

    /// Just past the empty line, looking only at bytes that were not looked at before.
    fn head_end(&mut self) -> Option<usize> {
        let mut at = self.scanned;
        while let Some(lf) = memchr::memchr(b'\n', &self.buffer[at..]).map(|i| i + at) {
            match &self.buffer[lf + 1..] {
                [b'\r', b'\n', ..] => return Some(lf + 3),
                [b'\n', ..] => return Some(lf + 2),
                // Too early to tell: begin here again.
                [] | [b'\r'] => {
                    self.scanned = lf;
                    return None;
                }
                _ => at = lf + 1,
            }
        }
        // 1: not 0, which stands for a message that has not begun.
        self.scanned = self.buffer.len().max(1);
        None
    }
}

enum LineEnds {
    Frame(Frame, usize),
    Skip(usize),
    Wait,
    None,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &[u8] = b"BYE sip:a@b SIP/2.0\r\nContent-Length: 3\r\n\r\nabc";
    const TWO: &[u8] = b"ACK sip:a@b SIP/2.0\r\nl: 0\r\n\r\n";

    fn frames(end: End, pieces: &[&[u8]]) -> Result<Vec<Frame>, ParseError> {
        let mut framer = Framer::new(end);
        let mut out = Vec::new();
        for piece in pieces {
            framer.push(piece);
            while let Some(frame) = framer.next()? {
                out.push(frame);
            }
        }
        Ok(out)
    }

    fn message(data: &'static [u8]) -> Frame {
        Frame::Message(Bytes::from_static(data))
    }

    #[test]
    fn cuts_messages_and_keepalives_in_any_pieces() {
        let all = [b"\r\n\r\n", ONE, b"\r\n", TWO, b"\r\n\r\n\r\n\r\n", ONE].concat();
        let wanted = [Frame::Ping, message(ONE), message(TWO), Frame::Ping, Frame::Ping, message(ONE)];
        for size in [1, 2, 3, 7, 1000] {
            let pieces: Vec<&[u8]> = all.chunks(size).collect();
            assert_eq!(frames(End::Server, &pieces).unwrap(), wanted, "{size}");
        }
        let all = [b"\r\n", ONE, b"\r\n\r\n"].concat();
        assert_eq!(
            frames(End::Client, &[&all]).unwrap(),
            [Frame::Pong, message(ONE), Frame::Pong, Frame::Pong]
        );
    }

    #[test]
    fn faults_end_it() {
        let kind = |data: &[u8]| frames(End::Server, &[data]).unwrap_err().kind;
        assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\n\r\n"), ParseErrorKind::NoContentLength);
        assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\nl: 99999\r\n\r\n"), ParseErrorKind::TooLarge);
        assert_eq!(kind(b"BYE sip:a@b SIP/2.0\r\nl: x\r\n\r\n"), ParseErrorKind::ContentLength);
        assert_eq!(kind(b"GET / HTTP/1.1\r\n\r\n"), ParseErrorKind::StartLine);
        assert_eq!(kind(&[b'a'; limits::SIP_MESSAGE_BYTES + 1]), ParseErrorKind::TooLarge);
        assert_eq!(frames(End::Server, &[&[b'a'; 1000]]), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn never_panics_and_pieces_do_not_matter(
            parts in prop::collection::vec(prop_oneof![
                Just(ONE.to_vec()), Just(TWO.to_vec()), Just(b"\r\n\r\n".to_vec()), Just(b"\n".to_vec()),
                prop::collection::vec(any::<u8>(), 0..20),
            ], 0..6),
            size in 1usize..40,
        ) {
            let all = parts.concat();
            let pieces: Vec<&[u8]> = all.chunks(size).collect();
            let whole = frames(End::Server, &[&all]);
            prop_assert_eq!(whole.is_err(), frames(End::Server, &pieces).is_err());
            if let Ok(whole) = whole {
                prop_assert_eq!(whole, frames(End::Server, &pieces).unwrap());
            }
        }
    }
}
