//! pcap and pcapng files, read as a stream.
//!
//! pcap (libpcap's, also with nanoseconds or of the other byte order) and pcapng (draft-ietf-opsawg-pcapng), each also
//! inside of gzip (RFC 1952); told apart by what they begin with, never by name. In: a path, or `-` for standard input.
//! Out: packets with number, time and link type, one at a time. A file that is cut off gives what is whole, then an error
//! with the packet's number and its byte offset. Not here: what is in a packet (`trace::net`), live capture.

use crate::start::{Kind, StartError};
use flate2::read::MultiGzDecoder;
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, LegacyPcapReader, PcapBlockOwned, PcapError, PcapNGReader};
use sipbox_core::time::Instant;
use sipbox_core::trace::Link;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The largest block that is taken: libpcap's own limit for a packet is 256 KiB.
const BLOCK_BYTES: usize = 1 << 20;
/// Interfaces in one section of a pcapng file that are remembered.
const INTERFACES: usize = 4096;

const DAMAGED: &str = "the packed file is cut off or damaged here; what was before it has been read";
const GZIP: [u8; 2] = [0x1f, 0x8b];
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// In both byte orders: microseconds, nanoseconds.
const PCAP: [[u8; 4]; 4] =
    [[0xa1, 0xb2, 0xc3, 0xd4], [0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0x3c, 0x4d], [0x4d, 0x3c, 0xb2, 0xa1]];

/// A stream whose kind is told by its first bytes, which are not lost by looking.
pub type Input = Box<dyn Read + Send>;

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Pcap,
    Pcapng,
    /// Anything else: text, perhaps.
    Other,
}

/// Opens a file, or standard input for `-`; unpacks gzip; tells what it is. `through` gets the bytes as they are read,
/// packed ones too, and how many there are where that is known.
pub fn open(
    name: &str,
    through: impl FnOnce(Input, Option<u64>) -> Input,
) -> Result<(Content, Input), StartError> {
    let (input, length): (Input, _) = if name == "-" {
        (Box::new(io::stdin()), length(&io::stdin()))
    } else {
        let path = Path::new(name);
        let file = File::open(path).map_err(|error| StartError::file("capture", path, &error))?;
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            return Err(StartError::new(Kind::NoInput, format!("{name}: a directory; name a file")));
        }
        let length = length(&file);
        (Box::new(file), length)
    };
    look(through(input, length), true).map_err(|error| {
        if is_damage(&error) {
            StartError::new(Kind::Data, format!("{name}: {DAMAGED}"))
        } else {
            StartError::new(Kind::Io, format!("{name}: {error}"))
        }
    })
}

/// What is unpacked does not go on as gzip has to: the file was cut off or spoilt, and reading it anew would not help.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | InvalidData | InvalidInput)
}

/// How long a regular file is, also one on standard input; of anything else nobody knows.
pub fn length(file: &impl AsFd) -> Option<u64> {
    let file = File::from(file.as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
}

/// `unpack`: gzip within gzip is not unpacked twice.
fn look(mut input: Input, unpack: bool) -> io::Result<(Content, Input)> {
    let mut first = Vec::new();
    input.by_ref().take(4).read_to_end(&mut first)?;
    let magic = first.clone();
    let whole: Input = Box::new(Cursor::new(first).chain(input));
    if unpack && magic.starts_with(&GZIP) {
        return look(Box::new(MultiGzDecoder::new(whole)), false);
    }
    let content = match <[u8; 4]>::try_from(magic) {
        Ok(PCAPNG) => Content::Pcapng,
        Ok(magic) if PCAP.contains(&magic) => Content::Pcap,
        _ => Content::Other,
    };
    Ok((content, whole))
}

/// One packet.
#[derive(Debug)]
pub struct Packet<'a> {
    /// From 1, over the file, as other programs count them.
    pub number: u64,
    pub time: Instant,
    /// `None`: of a link type that is not understood.
    pub link: Option<Link>,
    pub data: &'a [u8],
}

#[derive(Clone, Copy)]
struct Interface {
    link: Option<Link>,
    /// Ticks a second.
    resolution: u64,
    /// Seconds.
    offset: i64,
}

/// A capture that is being read.
pub struct Capture {
    name: String,
    reader: Box<dyn PcapReaderIterator + Send>,
    interfaces: Vec<Interface>,
    packets: u64,
    consumed: u64,
    data: Vec<u8>,
    /// Link types that were met and are not understood.
    unknown: u64,
    /// Reading failed by what the file holds, not by what holds the file.
    damaged: Arc<AtomicBool>,
}

impl Capture {
    /// `name` stands in errors. `content` must not be [`Content::Other`].
    pub fn new(name: &str, content: Content, input: Input) -> Result<Capture, StartError> {
        // The parser decides by its first read alone, which a pipe may answer with little.
        let damaged = Arc::new(AtomicBool::new(false));
        let input = Filled { input, damaged: damaged.clone(), met: None };
        let reader: Result<Box<dyn PcapReaderIterator + Send>, _> = match content {
            Content::Pcapng => PcapNGReader::new(BLOCK_BYTES, input)
                .map(|r| Box::new(r) as Box<dyn PcapReaderIterator + Send>),
            Content::Pcap | Content::Other => LegacyPcapReader::new(BLOCK_BYTES, input)
                .map(|r| Box::new(r) as Box<dyn PcapReaderIterator + Send>),
        };
        let reader = reader.map_err(|error| match error {
            PcapError::ReadError if damaged.load(Ordering::Relaxed) => {
                StartError::new(Kind::Data, format!("{name}: {DAMAGED}"))
            }
            PcapError::ReadError => StartError::new(Kind::Io, format!("{name}: cannot be read")),
            _ => StartError::new(
                Kind::Data,
                format!("{name}: neither pcap nor pcapng, or its header is cut off; capture it anew"),
            ),
        })?;
        Ok(Capture {
            name: name.to_owned(),
            reader,
            interfaces: Vec::new(),
            packets: 0,
            consumed: 0,
            data: Vec::new(),
            unknown: 0,
            damaged,
        })
    }

    /// Packets so far whose link type is not understood.
    pub fn unknown_links(&self) -> u64 {
        self.unknown
    }

    /// The next packet; `None` at the end.
    #[allow(clippy::should_implement_trait)] // What it gives borrows from it.
    pub fn next(&mut self) -> Result<Option<Packet<'_>>, StartError> {
        loop {
            let before = self.reader.data().len();
            let error = match self.reader.next() {
                Ok((length, block)) => {
                    let found = block_packet(&block, &mut self.interfaces, &mut self.data);
                    drop(block);
                    self.reader.consume(length);
                    self.consumed += length as u64;
                    if let Some((time, link)) = found {
                        self.packets += 1;
                        self.unknown += u64::from(link.is_none());
                        return Ok(Some(Packet { number: self.packets, time, link, data: &self.data }));
                    }
                    continue;
                }
                Err(error) => Fault::of(&error),
            };
            match error {
                Fault::Eof => return Ok(None),
                Fault::More => {
                    if self.reader.refill().is_err() {
                        return Err(self.unread());
                    }
                    // A block that claims to hold more than it does would ask for ever.
                    if self.reader.data().len() == before && !self.reader.reader_exhausted() {
                        return Err(self.fault(Kind::Data, "a block whose parts don't fit in it"));
                    }
                }
                Fault::Cut if self.reader.data().is_empty() => return Ok(None),
                Fault::Cut => {
                    return Err(
                        self.fault(Kind::Data, "the file ends within it; what was before it has been read")
                    );
                }
                Fault::TooLarge => return Err(self.fault(Kind::Data, "it claims to be larger than 1 MiB")),
                Fault::Read => return Err(self.unread()),
                Fault::Broken => return Err(self.fault(Kind::Data, "no block of a capture")),
            }
        }
    }

    fn unread(&self) -> StartError {
        if self.damaged.load(Ordering::Relaxed) {
            self.fault(Kind::Data, DAMAGED)
        } else {
            self.fault(Kind::Io, "cannot be read any further")
        }
    }

    fn fault(&self, kind: Kind, what: &str) -> StartError {
        StartError::new(
            kind,
            format!("{}: packet {} at byte {}: {what}", self.name, self.packets + 1, self.consumed),
        )
    }
}

enum Fault {
    Eof,
    More,
    Cut,
    TooLarge,
    Read,
    Broken,
}

impl Fault {
    fn of(error: &PcapError<&[u8]>) -> Fault {
        match error {
            PcapError::Eof => Fault::Eof,
            PcapError::Incomplete(_) => Fault::More,
            PcapError::UnexpectedEof => Fault::Cut,
            PcapError::BufferTooSmall => Fault::TooLarge,
            PcapError::ReadError => Fault::Read,
            PcapError::HeaderNotRecognized | PcapError::NomError(_, _) | PcapError::OwnedNomError(_, _) => {
                Fault::Broken
            }
        }
    }
}

/// Takes what a block says; a packet's bytes go to `data`.
fn block_packet(
    block: &PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
    data: &mut Vec<u8>,
) -> Option<(Instant, Option<Link>)> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            interfaces.clear();
            interfaces.push(Interface {
                link: link(header.network.0),
                resolution: if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 },
                offset: 0,
            });
            None
        }
        PcapBlockOwned::Legacy(packet) => {
            let interface = *interfaces.first()?;
            let micros = u64::from(packet.ts_usec) * 1_000_000 / interface.resolution;
            fill(data, packet.data);
            Some((Instant(u64::from(packet.ts_sec) * 1_000_000 + micros), interface.link))
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            if interfaces.len() < INTERFACES {
                interfaces.push(Interface {
                    link: link(interface.linktype.0),
                    resolution: resolution(interface.if_tsresol),
                    offset: interface.ts_offset(),
                });
            }
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            fill(data, packet.packet_data());
            let Some(interface) = interfaces.get(packet.if_id as usize) else {
                return Some((Instant::default(), None));
            };
            let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            Some((time(ticks, interface), interface.link))
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            fill(data, packet.packet_data());
            Some((Instant::default(), interfaces.first().and_then(|interface| interface.link)))
        }
        PcapBlockOwned::NG(_) => None,
    }
}

fn fill(data: &mut Vec<u8>, bytes: &[u8]) {
    data.clear();
    data.extend_from_slice(bytes);
}

fn link(number: i32) -> Option<Link> {
    // The upper bits of libpcap's field hold the length of a frame check sequence.
    Link::from_number(number as u32 & 0x0fff_ffff)
}

/// if_tsresol: a power of ten, or with the highest bit set a power of two; nonsense counts as microseconds.
fn resolution(exponent: u8) -> u64 {
    let value = match exponent & 0x80 {
        0 => 10u64.checked_pow(u32::from(exponent)),
        _ => 1u64.checked_shl(u32::from(exponent & 0x7f)),
    };
    value.unwrap_or(1_000_000)
}

fn time(ticks: u64, interface: &Interface) -> Instant {
    let micros = u128::from(ticks) * 1_000_000 / u128::from(interface.resolution);
    let micros = u64::try_from(micros).unwrap_or(u64::MAX);
    Instant(micros.saturating_add_signed(interface.offset.saturating_mul(1_000_000)))
}

/// A reader that gives less than was asked for only at the end.
struct Filled {
    input: Input,
    damaged: Arc<AtomicBool>,
    /// What was met after something had been read.
    met: Option<io::Error>,
}

impl Read for Filled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.met.take() {
            return Err(error);
        }
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.damaged.store(is_damage(&error), Ordering::Relaxed);
                    // What was read before is not lost: the error is the next call's.
                    if filled > 0 {
                        self.met = Some(error);
                        break;
                    }
                    return Err(error);
                }
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcap(packets: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend(word.to_le_bytes());
        }
        for (second, packet) in packets.iter().enumerate() {
            for word in [second as u32, 500_000, packet.len() as u32, packet.len() as u32] {
                file.extend(word.to_le_bytes());
            }
            file.extend(*packet);
        }
        file
    }

    /// Number, time in microseconds, bytes.
    type Packet = (u64, u64, Vec<u8>);

    fn read(bytes: Vec<u8>) -> (Vec<Packet>, Option<StartError>) {
        let (content, input) = look(Box::new(Cursor::new(bytes)), true).unwrap();
        let mut capture = match Capture::new("x", content, input) {
            Ok(capture) => capture,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut packets = Vec::new();
        loop {
            match capture.next() {
                Ok(Some(packet)) => packets.push((packet.number, packet.time.0, packet.data.to_vec())),
                Ok(None) => return (packets, None),
                Err(error) => return (packets, Some(error)),
            }
        }
    }

    #[test]
    fn whole_and_cut_off_anywhere() {
        let file = pcap(&[b"first", b"second"]);
        let (packets, error) = read(file.clone());
        assert_eq!(packets, [(1, 500_000, b"first".to_vec()), (2, 1_500_000, b"second".to_vec())]);
        assert!(error.is_none());
        for end in 4..file.len() {
            let (packets, error) = read(file[..end].to_vec());
            let whole = match end {
                ..45 => 0,
                _ => 1,
            };
            assert_eq!(packets.len(), whole, "cut at {end}");
            match end {
                24 | 45 => assert!(error.is_none(), "cut at {end}: {error:?}"),
                _ => {
                    let error = error.unwrap_or_else(|| panic!("cut at {end}: no error"));
                    assert_eq!(error.kind, Kind::Data);
                    if end > 45 {
                        assert!(error.message.contains("packet 2 at byte 45"), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn gzip_is_unpacked() {
        use std::io::Write;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&pcap(&[b"one"])).unwrap();
        assert_eq!(read(packer.finish().unwrap()).0, [(1, 500_000, b"one".to_vec())]);
    }

    #[test]
    fn a_packed_file_that_is_cut_off_is_bad_data() {
        use std::io::Write;
        // Noise, so that packing does not make it one block that is whole or not there.
        let noise: Vec<Vec<u8>> =
            (0..200u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes().repeat(50)).collect();
        let packets: Vec<&[u8]> = noise.iter().map(Vec::as_slice).collect();
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&pcap(&packets)).unwrap();
        let file = packer.finish().unwrap();
        assert_eq!(read(file.clone()).0.len(), 200);
        let mut most = 0;
        for end in (4..file.len()).step_by(7).chain([file.len() - 1]) {
            match look(Box::new(Cursor::new(file[..end].to_vec())), true) {
                Err(error) => assert!(is_damage(&error), "cut at {end}: {error}"),
                Ok(_) => {
                    let (packets, error) = read(file[..end].to_vec());
                    let error = error.unwrap_or_else(|| panic!("cut at {end}: no error"));
                    assert_eq!(error.kind, Kind::Data, "cut at {end}: {error}");
                    most = most.max(packets.len());
                }
            }
        }
        assert!(most > 100, "hardly anything of a cut file was shown: {most}");
    }

    /// Section header, interface with a resolution of 2^-10, packet, another section with its own interface.
    #[test]
    fn pcapng_with_its_own_clock() {
        fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
            let length = body.len() as u32 + 12;
            file.extend(kind.to_be_bytes());
            file.extend(length.to_be_bytes());
            file.extend(body);
            file.extend(length.to_be_bytes());
        }
        let section = [0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];
        let interface = [0, 101, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0x8a, 0, 0, 0, 0, 0, 0, 0];
        let packet = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 3, 0, 0, 0, 3, b'a', b'b', b'c', 0];
        let mut file = Vec::new();
        block(&mut file, 0x0a0d_0d0a, &section);
        block(&mut file, 1, &interface);
        block(&mut file, 6, &packet);
        let (packets, error) = read(file.clone());
        assert_eq!((packets, error), (vec![(1, 2_500_000, b"abc".to_vec())], None));
        // A packet that claims more than its block has.
        let mut lies = file;
        let at = lies.len() - 4 - 12 + 3;
        lies[at] = 200;
        let (_, error) = read(lies);
        assert_eq!(error.map(|e| e.kind), Some(Kind::Data));
    }

    #[test]
    fn other_content_is_told() {
        for (bytes, content) in
            [(&b"INVITE sip:"[..], Content::Other), (b"", Content::Other), (&PCAPNG, Content::Pcapng)]
        {
            assert_eq!(look(Box::new(Cursor::new(bytes.to_vec())), true).unwrap().0, content);
        }
    }
}
