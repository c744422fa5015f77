//! Writes pcapng (draft-ietf-opsawg-pcapng): UDP datagrams as they came, each with an IP header of our own making.
//!
//! In: datagrams with their addresses and time. Out: a file that Wireshark and [`capture`](crate::capture) read. A file that is
//! there already gets a further section. Not here: reading, what is in a datagram.

use crate::start::StartError;
use sipbox_core::time::Instant;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// LINKTYPE_RAW: an IP header comes first.
const RAW: u16 = 101;
/// Blocks: section header, interface description, enhanced packet.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// A capture that grows.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    packet: Vec<u8>,
}

impl Writer {
    /// Opens or makes the file, readable for its owner and group: it holds whole messages.
    pub fn open(flag: &str, path: &Path) -> Result<Self, StartError> {
        let file = begin(path).map_err(|error| StartError::file(flag, path, &error))?;
        Ok(Writer { path: path.to_owned(), file, packet: Vec::new() })
    }

    /// The name is opened anew: the file may have been moved away.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file = begin(&self.path)?;
        Ok(())
    }

    /// One datagram.
    pub fn datagram(
        &mut self,
        time: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        self.packet.clear();
        if !ip_udp(&mut self.packet, source, destination, payload) {
            return Ok(());
        }
        let length = self.packet.len() as u32;
        let mut head = Vec::with_capacity(20);
        // Interface 0, and microseconds in two halves.
        for word in [0, (time.0 >> 32) as u32, time.0 as u32, length, length] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        block(&mut self.file, PACKET, &[&head, &self.packet])
    }

    /// What was written is in the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn begin(path: &Path) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    let mut file = BufWriter::new(file);
    // Byte order, version 1.0, a section of unknown length.
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend_from_slice(&[1, 0, 0, 0]);
    section.extend_from_slice(&(-1i64).to_le_bytes());
    block(&mut file, SECTION, &[&section])?;
    let mut interface = RAW.to_le_bytes().to_vec();
    // Reserved, and no limit to a packet's length.
    interface.extend_from_slice(&[0; 6]);
    block(&mut file, INTERFACE, &[&interface])?;
    file.flush()?;
    Ok(file)
}

/// Type, length, the parts padded to four bytes, and the length again.
fn block(to: &mut impl Write, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let padding = length.wrapping_neg() & 3;
    let total = ((length + padding + 12) as u32).to_le_bytes();
    to.write_all(&kind.to_le_bytes())?;
    to.write_all(&total)?;
    for part in parts {
        to.write_all(part)?;
    }
    to.write_all(&[0; 3][..padding])?;
    to.write_all(&total)
}

/// RFC 791, RFC 8200 and RFC 768 headers and the payload; false where both addresses are not of one family, or the
/// payload is larger than a datagram.
fn ip_udp(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> bool {
    let Ok(length) = u16::try_from(UDP_HEADER + payload.len()) else { return false };
    let mut pseudo;
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let Some(total) = length.checked_add(20) else { return false };
            let [high, low] = total.to_be_bytes();
            // Version and header length; then "do not fragment", a time to live.
            let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, UDP, 0, 0];
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            let sum = checksum(&[&header]).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            out.extend_from_slice(&header);
            pseudo = header.split_off(12);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[UDP, 64]);
            pseudo = [from.octets(), to.octets()].concat();
            out.extend_from_slice(&pseudo);
        }
        _ => return false,
    }
    pseudo.extend_from_slice(&[0, UDP]);
    pseudo.extend_from_slice(&length.to_be_bytes());
    let mut header = Vec::with_capacity(UDP_HEADER);
    for word in [source.port(), destination.port(), length, 0] {
        header.extend_from_slice(&word.to_be_bytes());
    }
    // All ones stand for none: 0 would say that there is no checksum.
    let sum = match checksum(&[&pseudo, &header, payload]) {
        0 => 0xffff,
        sum => sum,
    };
    header[6..8].copy_from_slice(&sum.to_be_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    true
}

/// RFC 1071 over the parts; all but the last are of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from))
        .fold(0, |sum, word| ((sum + word) & 0xffff) + ((sum + word) >> 16));
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{self, Capture, Content};
    use sipbox_core::trace::{Net, Segment};

    #[test]
    fn what_is_written_is_read() {
        let path = std::env::temp_dir().join(format!("sipbox-pcapng-{}", std::process::id()));
        let name = path.to_str().unwrap();
        let pairs: [(SocketAddr, SocketAddr); 2] = [
            ("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:9060".parse().unwrap()),
            ("[2001:db8::1]:5060".parse().unwrap(), "[2001:db8::2]:9060".parse().unwrap()),
        ];
        let mut writer = Writer::open("-w", &path).unwrap();
        writer.datagram(Instant(5_000_000_000_000_001), pairs[0].0, pairs[0].1, b"odd").unwrap();
        writer.datagram(Instant(2), pairs[0].0, pairs[1].1, b"of no family").unwrap();
        writer.datagram(Instant(2), pairs[0].0, pairs[0].1, &[7; 65_508]).unwrap();
        // A second section.
        writer.reopen().unwrap();
        writer.datagram(Instant(3), pairs[1].0, pairs[1].1, &[7; 1000]).unwrap();
        writer.flush().unwrap();

        let (content, input) = capture::open(name, |input, _| input).unwrap();
        assert_eq!(content, Content::Pcapng);
        let mut capture = Capture::new(name, content, input).unwrap();
        let mut net = Net::default();
        for (time, (source, destination), payload) in
            [(5_000_000_000_000_001, pairs[0], &b"odd"[..]), (3, pairs[1], &[7; 1000][..])]
        {
            let packet = capture.next().unwrap().unwrap();
            assert_eq!(packet.time, Instant(time));
            let segment = net.segment(packet.link.unwrap(), packet.data);
            assert_eq!(segment, Some(Segment::Udp { source, destination, payload }));
        }
        assert!(capture.next().unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
    }

    /// RFC 1071 §3's own example, and a header that is known to be right.
    #[test]
    fn checksums_are_the_rfcs() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8, 0x00, 0x01,
            0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(checksum(&[&header]), 0xb861);
    }
}
