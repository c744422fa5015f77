//! The RTP header, viewed in place.
//!
//! RFC 3550 §5.1 and §5.3.1. In: a datagram. Out: its fields and the header's length with CSRCs and extension.
//! Not here: what an extension holds (RFC 8285), payload formats, SRTP.

/// A datagram whose RTP header is whole.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Bytes up to the payload: 12, four for each CSRC, and the extension.
    pub length: usize,
}

/// The fixed part.
pub const FIXED: usize = 12;

impl Header {
    /// Reads the header; `None` where it is not version 2 or does not fit the datagram.
    pub fn parse(packet: &[u8]) -> Option<Header> {
        let fixed: &[u8; FIXED] = packet.first_chunk()?;
        let [b0, b1, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if b0 >> 6 != 2 {
            return None;
        }
        let mut length = FIXED + 4 * usize::from(b0 & 0x0f);
        if b0 & 0x10 != 0 {
            let words = packet.get(length + 2..length + 4)?;
            length += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
        }
        if length > packet.len() {
            return None;
        }
        Some(Header {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_fields() {
        let packet = [0x80, 0x88, 0x12, 0x34, 0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef, 1, 2];
        let header = Header::parse(&packet).expect("whole");
        assert!(header.marker);
        assert_eq!(header.payload_type, 8);
        assert_eq!(header.sequence, 0x1234);
        assert_eq!(header.timestamp, 160);
        assert_eq!(header.ssrc, 0xdead_beef);
        assert_eq!(header.length, 12);
    }

    #[test]
    fn counts_csrcs_and_extension() {
        let mut packet = vec![0x92, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        packet.extend([0; 8]);
        packet.extend([0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0]);
        packet.push(0x55);
        assert_eq!(Header::parse(&packet).expect("whole").length, 28);
        assert!(Header::parse(&packet[..27]).is_none());
        assert!(Header::parse(&packet[..21]).is_none());
    }

    #[test]
    fn refuses_other_versions() {
        assert!(Header::parse(&[0x40; 20]).is_none());
    }

    proptest! {
        #[test]
        fn header_lies_within(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(header) = Header::parse(&packet) {
                prop_assert!(header.length <= packet.len());
            }
        }
    }
}
