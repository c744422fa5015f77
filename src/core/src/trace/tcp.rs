//! TCP streams put together again, and SIP and WebSocket in them.
//!
//! RFC 9293 §3.4 (sequence numbers), RFC 3261 §18.3 by [`framing`](crate::framing), RFC 6455 §5.2 (frames) and RFC 7118.
//! In: the segments of one direction in the order of the capture, which may have lost or repeated some, and may have begun
//! in the middle. Out: SIP messages. Not here: TLS, compressed WebSocket messages (RFC 7692; RFC 7118 clients don't ask for it).

use super::looks_like_sip;
use crate::flow::Transport;
use crate::framing::{End, Frame, Framer};
use crate::limits::{SIP_MESSAGE_BYTES, TRACE_PENDING_BYTES, TRACE_PENDING_SEGMENTS};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Bytes of an HTTP head that are waited for.
const HTTP_HEAD_BYTES: usize = 16_384;

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Direction {
    /// The next byte's number; None before anything was seen.
    next: Option<u32>,
    /// Segments that came too early, by their distance from `next` at arrival; bounded.
    pending: BTreeMap<u32, Vec<u8>>,
    pending_bytes: usize,
    content: Content,
}

#[derive(Debug, Default)]
enum Content {
    /// Nothing was understood so far; each segment may be the beginning of something.
    #[default]
    Unknown,
    /// A head of HTTP that is not whole yet.
    Http(Vec<u8>),
    Sip(Framer),
    WebSocket(WebSocket),
}

impl Direction {
    /// One segment. Messages that it completes are given to `out`.
    pub fn segment(
        &mut self,
        sequence: u32,
        syn: bool,
        payload: &[u8],
        mut out: impl FnMut(Transport, Bytes),
    ) {
        if syn {
            *self = Direction { next: Some(sequence.wrapping_add(1)), ..Direction::default() };
            if payload.is_empty() {
                return;
            }
        }
        if payload.is_empty() {
            return;
        }
        let sequence = if syn { sequence.wrapping_add(1) } else { sequence };
        let next = *self.next.get_or_insert(sequence);
        // Distance in sequence space; negative: (partly) repeated.
        let ahead = sequence.wrapping_sub(next) as i32;
        if ahead > 0 {
            self.pending_bytes += payload.len();
            if let Some(old) = self.pending.insert(sequence, payload.to_vec()) {
                self.pending_bytes -= old.len();
            }
            if self.pending.len() > TRACE_PENDING_SEGMENTS || self.pending_bytes > TRACE_PENDING_BYTES {
                self.give_up_gap(&mut out);
            }
            return;
        }
        let Some(fresh) = payload.get(ahead.unsigned_abs() as usize..).filter(|fresh| !fresh.is_empty())
        else {
            return;
        };
        self.next = Some(next.wrapping_add(fresh.len() as u32));
        self.content.take(fresh, &mut out);
        self.drain(&mut out);
    }

    /// What had come early and is in its turn now.
    fn drain(&mut self, out: &mut impl FnMut(Transport, Bytes)) {
        while let Some(next) = self.next {
            // The map is ordered by number, which wraps: the due one is looked for by distance.
            let due = self.pending.keys().copied().find(|at| at.wrapping_sub(next) as i32 <= 0);
            let Some(at) = due else { return };
            let Some(bytes) = self.pending.remove(&at) else { return };
            self.pending_bytes -= bytes.len();
            let known = next.wrapping_sub(at) as usize;
            if let Some(fresh) = bytes.get(known..).filter(|fresh| !fresh.is_empty()) {
                self.next = Some(next.wrapping_add(fresh.len() as u32));
                self.content.take(fresh, out);
            }
        }
    }

    /// The capture lost a segment: goes on behind it, and looks for a beginning.
    fn give_up_gap(&mut self, out: &mut impl FnMut(Transport, Bytes)) {
        let Some(next) = self.next else { return };
        let Some(nearest) = self.pending.keys().copied().min_by_key(|at| at.wrapping_sub(next)) else {
            return;
        };
        self.next = Some(nearest);
        // Whoever spoke WebSocket still does, but where a frame begins is not known.
        self.content = Content::Unknown;
        self.drain(out);
    }
}

impl Content {
    fn take(&mut self, data: &[u8], out: &mut impl FnMut(Transport, Bytes)) {
        match self {
            Content::Unknown => self.begin(data, out),
            Content::Http(head) => {
                head.extend_from_slice(data);
                let head = std::mem::take(head);
                *self = Content::Unknown;
                self.http(head, out);
            }
            Content::Sip(framer) => {
                framer.push(data);
                loop {
                    match framer.next() {
                        Ok(Some(Frame::Message(message))) => out(Transport::Tcp, message),
                        Ok(Some(Frame::Ping | Frame::Pong)) => {}
                        Ok(None) => return,
                        Err(_) => {
                            *self = Content::Unknown;
                            return;
                        }
                    }
                }
            }
            Content::WebSocket(socket) => {
                if socket.take(data, out).is_err() {
                    *self = Content::Unknown;
                }
            }
        }
    }

    fn begin(&mut self, data: &[u8], out: &mut impl FnMut(Transport, Bytes)) {
        let skip = data.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(data.len());
        let text = &data[skip..];
        if text.is_empty() {
            return;
        }
        if text.starts_with(b"GET ") || text.starts_with(b"HTTP/1.1 101") {
            self.http(text.to_vec(), out);
        } else if looks_like_sip(text) || may_begin_sip(text) {
            // As a server: it reads any line ends before a message as keep-alives, whatever they are.
            *self = Content::Sip(Framer::new(End::Server));
            self.take(text, out);
        } else if frame_of_sip(data) {
            *self = Content::WebSocket(WebSocket::default());
            self.take(data, out);
        }
    }

    /// A handshake of RFC 6455; what follows its head are frames. Other HTTP is not ours.
    fn http(&mut self, head: Vec<u8>, out: &mut impl FnMut(Transport, Bytes)) {
        let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") else {
            if head.len() < HTTP_HEAD_BYTES {
                *self = Content::Http(head);
            }
            return;
        };
        let (lines, rest) = head.split_at(end + 4);
        let upgrades = lines.split(|&b| b == b'\n').any(|line| {
            let line = line.to_ascii_lowercase();
            line.starts_with(b"upgrade:") && memchr::memmem::find(&line, b"websocket").is_some()
        });
        if upgrades {
            let mut socket = WebSocket::default();
            if socket.take(rest, out).is_ok() {
                *self = Content::WebSocket(socket);
            }
        }
    }
}

/// A segment that is too short to tell, or whose first line is longer than itself.
fn may_begin_sip(data: &[u8]) -> bool {
    let Some(space) = memchr::memchr(b' ', data) else { return false };
    let (method, rest) = (&data[..space], &data[space + 1..]);
    !method.is_empty()
        && method.len() < 20
        && method.iter().all(u8::is_ascii_uppercase)
        && (rest.starts_with(b"sip:") || rest.starts_with(b"sips:") || rest.starts_with(b"tel:"))
}

/// Frames of RFC 6455 §5.2.
#[derive(Debug, Default)]
struct WebSocket {
    buffer: Vec<u8>,
    /// The fragments of a message so far.
    message: Vec<u8>,
}

/// Something that is no frame, or one that is too large.
struct NoFrame;

/// A frame's header: opcode, whether it is the last of its message, where its payload lies.
struct FrameHead {
    last: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    start: usize,
    end: usize,
}

fn frame_head(data: &[u8]) -> Result<Option<FrameHead>, NoFrame> {
    let [first, second, ..] = *data else { return Ok(None) };
    // Reserved bits are for extensions, which nobody here negotiates.
    if first & 0x70 != 0 {
        return Err(NoFrame);
    }
    let (length, mut start) = match second & 0x7f {
        126 => {
            let Some(&[a, b]) = data.get(2..4) else { return Ok(None) };
            (usize::from(u16::from_be_bytes([a, b])), 4)
        }
        127 => {
            let Some(bytes) = data.get(2..10) else { return Ok(None) };
            let length = bytes.iter().fold(0u64, |sum, &b| sum << 8 | u64::from(b));
            (usize::try_from(length).map_err(|_| NoFrame)?, 10)
        }
        short => (usize::from(short), 2),
    };
    if length > SIP_MESSAGE_BYTES {
        return Err(NoFrame);
    }
    let mask = if second & 0x80 != 0 {
        let Some(&[a, b, c, d]) = data.get(start..start + 4) else { return Ok(None) };
        start += 4;
        Some([a, b, c, d])
    } else {
        None
    };
    Ok(Some(FrameHead { last: first & 0x80 != 0, opcode: first & 0x0f, mask, start, end: start + length }))
}

fn unmasked(data: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mask = mask.unwrap_or_default();
    data.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

/// Whether this is a frame in whose payload SIP begins: for captures that missed the handshake.
fn frame_of_sip(data: &[u8]) -> bool {
    match frame_head(data) {
        Ok(Some(head)) if matches!(head.opcode, 1 | 2) => {
            let payload = data.get(head.start..head.end.min(data.len())).unwrap_or_default();
            looks_like_sip(&unmasked(payload, head.mask))
        }
        _ => false,
    }
}

impl WebSocket {
    fn take(&mut self, data: &[u8], out: &mut impl FnMut(Transport, Bytes)) -> Result<(), NoFrame> {
        self.buffer.extend_from_slice(data);
        let mut at = 0;
        while let Some(rest) = self.buffer.get(at..) {
            let Some(head) = frame_head(rest)? else { break };
            let Some(payload) = rest.get(head.start..head.end) else { break };
            // Data frames only: 0 goes on with a message, 1 and 2 begin one; the others are control frames.
            if head.opcode <= 2 {
                if self.message.len() + payload.len() > SIP_MESSAGE_BYTES {
                    return Err(NoFrame);
                }
                self.message.extend(unmasked(payload, head.mask));
                if head.last {
                    let message = std::mem::take(&mut self.message);
                    if looks_like_sip(&message) {
                        out(Transport::Ws, Bytes::from(message));
                    }
                }
            }
            at += head.end;
        }
        self.buffer.drain(..at);
        Ok(())
    }
}
