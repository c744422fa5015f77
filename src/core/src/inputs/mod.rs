//! A stream of descriptions, told apart by content and cut into items: SDPs, SIP messages, ng dictionaries, JSON objects.
//!
//! RFC 8866 §5 (`v=` begins a description), RFC 3261 §18.3 (Content-Length), bencode, RFC 8259. In: bytes in any pieces. Out:
//! [`Piece`]s with their place in the stream; what is none of these is one fault, and the search goes on at the next line that
//! begins something. The pieces do not depend on how the bytes came. Memory is bounded by [`INPUT_ITEM_BYTES`].
//! Not here: what an item holds (`json`, `sip`), files.

pub mod json;
mod scan;
pub mod sip;
#[cfg(test)]
mod tests;

use crate::limits::INPUT_ITEM_BYTES;
use scan::Scan;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sdp,
    Sip,
    Bencode,
    /// One object; perhaps as a log prints it, with line ends in its strings.
    Json,
}

/// Where something begins in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which one in the stream, counted from 1; faults count too.
    pub number: u64,
    /// Byte offset, from 0.
    pub at: u64,
    /// Counted from 1.
    pub line: u64,
}

/// One item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub kind: Kind,
    pub place: Place,
    pub data: &'a [u8],
}

/// Why bytes are no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// None of the kinds.
    Unknown,
    /// Longer than [`INPUT_ITEM_BYTES`].
    TooLong,
    /// Not bencode, so many bytes into the item.
    Bencode(usize),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Unknown => f.write_str(
                "neither an SDP nor an ng dictionary, a SIP message or a JSON object; an SDP begins with v=0",
            ),
            Reason::TooLong => write!(f, "longer than {INPUT_ITEM_BYTES} bytes"),
            Reason::Bencode(at) => write!(f, "byte {at}: not bencode"),
        }
    }
}

/// What comes out of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Item(Item<'a>),
    Fault(Place, Reason),
}

/// Where the splitter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before an item, or the blanks before it.
    Between,
    /// In what was told as a fault, at the beginning of a line or within one.
    Lost { line_start: bool },
}

/// Cuts a stream.
#[derive(Debug)]
pub struct Splitter {
    buffer: Vec<u8>,
    /// Up to here all was handed out.
    start: usize,
    ended: bool,
    state: State,
    at: u64,
    line: u64,
    number: u64,
    /// A long item is not scanned again before so many bytes are there.
    enough: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Splitter {
            buffer: Vec::new(),
            start: 0,
            ended: false,
            state: State::Between,
            at: 0,
            line: 1,
            number: 0,
            enough: 0,
        }
    }
}

/// From this length on an unfinished item is scanned again only after it grew by an eighth.
const PATIENT: usize = 65_536;

impl Splitter {
    pub fn new() -> Self {
        Splitter::default()
    }

    /// Room for at least `size` further bytes, to read into; [`filled`](Self::filled) tells how many came.
    pub fn room(&mut self, size: usize) -> &mut [u8] {
        let length = self.buffer.len();
        self.buffer.resize(length + size, 0);
        &mut self.buffer[length..]
    }

    /// Of the `size` bytes that [`room`](Self::room) gave, only `came` are there.
    pub fn filled(&mut self, size: usize, came: usize) {
        let unused = size.saturating_sub(came);
        self.buffer.truncate(self.buffer.len().saturating_sub(unused));
    }

    /// Takes what was read.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Nothing more will come.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Forgets what was handed out. To be called before more is read.
    pub fn compact(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
    }

    /// Bytes that came and were not handed out.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next piece; `None` where more bytes are needed, or all were handed out.
    #[allow(clippy::should_implement_trait)] // It lends, and goes on after `push`.
    pub fn next(&mut self) -> Option<Piece<'_>> {
        loop {
            match self.state {
                State::Lost { line_start } => {
                    if !self.find_again(line_start) {
                        return None;
                    }
                }
                State::Between => {
                    self.skip_blanks();
                    let rest = &self.buffer[self.start..];
                    if rest.is_empty() || (rest.len() < self.enough && !self.ended) {
                        return None;
                    }
                    let window = &rest[..rest.len().min(INPUT_ITEM_BYTES + 1)];
                    let ended = self.ended && window.len() == rest.len();
                    let (kind, skipped, scan) = match scan::begin(window, ended, false) {
                        scan::Begin::More if window.len() <= INPUT_ITEM_BYTES => {
                            self.be_patient();
                            return None;
                        }
                        scan::Begin::More | scan::Begin::No => return Some(self.lose(Reason::Unknown)),
                        scan::Begin::At(kind, at) => (kind, at, scan::end(kind, window, at, ended)),
                    };
                    return match scan {
                        Scan::End(end) if end <= INPUT_ITEM_BYTES => Some(self.item(kind, skipped, end)),
                        Scan::More if window.len() <= INPUT_ITEM_BYTES => {
                            self.be_patient();
                            None
                        }
                        Scan::End(_) | Scan::More => Some(self.lose(Reason::TooLong)),
                        Scan::Bad(at) => Some(self.lose(Reason::Bencode(at))),
                    };
                }
            }
        }
    }

    fn be_patient(&mut self) {
        let waiting = self.waiting();
        self.enough = if waiting < PATIENT { 0 } else { (waiting + waiting / 8).min(INPUT_ITEM_BYTES + 1) };
    }

    fn pass(&mut self, length: usize) {
        let passed = &self.buffer[self.start..self.start + length];
        self.line += memchr::memchr_iter(b'\n', passed).count() as u64;
        self.at += length as u64;
        self.start += length;
        self.enough = 0;
    }

    fn place(&mut self) -> Place {
        self.number += 1;
        Place { number: self.number, at: self.at, line: self.line }
    }

    fn skip_blanks(&mut self) {
        let rest = &self.buffer[self.start..];
        let blanks = rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len());
        if blanks > 0 {
            self.pass(blanks);
        }
    }

    /// `skipped` bytes are a log's heading.
    fn item(&mut self, kind: Kind, skipped: usize, end: usize) -> Piece<'_> {
        self.pass(skipped);
        let place = self.place();
        let from = self.start;
        self.pass(end - skipped);
        Piece::Item(Item { kind, place, data: &self.buffer[from..self.start] })
    }

    fn lose(&mut self, reason: Reason) -> Piece<'static> {
        let place = self.place();
        // The line that it begins with is passed over in any case.
        self.state = State::Lost { line_start: false };
        Piece::Fault(place, reason)
    }

    /// Passes over what is lost; true at the beginning of something.
    fn find_again(&mut self, line_start: bool) -> bool {
        let mut at_start = line_start;
        loop {
            let rest = &self.buffer[self.start..];
            if rest.is_empty() {
                self.state = State::Lost { line_start: at_start };
                return false;
            }
            if at_start {
                let window = &rest[..rest.len().min(scan::BEGINNING)];
                match scan::begin(window, self.ended || rest.len() > window.len(), true) {
                    scan::Begin::At(..) => {
                        self.state = State::Between;
                        return true;
                    }
                    scan::Begin::More => {
                        self.state = State::Lost { line_start: true };
                        return false;
                    }
                    scan::Begin::No => {}
                }
            }
            match memchr::memchr(b'\n', rest) {
                Some(lf) => {
                    self.pass(lf + 1);
                    at_start = true;
                }
                None => {
                    self.pass(rest.len());
                    at_start = false;
                }
            }
        }
    }
}
