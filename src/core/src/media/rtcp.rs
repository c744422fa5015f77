//! RTCP compounds, viewed and thinned out in place.
//!
//! RFC 3550 §6 (sender and receiver reports, BYE), RFC 4585 §6 (feedback), RFC 5506 (reduced size).
//! In: a datagram. Out: its packets one by one, reports as values, or the compound without feedback.
//! Not here: making reports, extended reports' blocks (RFC 3611), SRTCP.

/// Sender report.
pub const SR: u8 = 200;
/// Receiver report.
pub const RR: u8 = 201;
/// Source description.
pub const SDES: u8 = 202;
/// Goodbye.
pub const BYE: u8 = 203;
/// Transport layer feedback: NACK, TMMBR, transport-cc (RFC 4585 §6.2).
pub const RTPFB: u8 = 205;
/// Payload specific feedback: PLI, FIR, REMB (RFC 4585 §6.3).
pub const PSFB: u8 = 206;
/// Extended report (RFC 3611).
pub const XR: u8 = 207;

/// One packet of a compound.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub packet_type: u8,
    /// Reception report count, source count, or feedback message type.
    pub count: u8,
    /// The whole packet with its four-byte header.
    pub bytes: &'a [u8],
}

impl Packet<'_> {
    /// The SSRC that follows the header: who sent it.
    pub fn sender(&self) -> Option<u32> {
        word(self.bytes, 4)
    }

    /// What a sender report says of its sender; `None` for other types.
    pub fn sender_info(&self) -> Option<SenderInfo> {
        if self.packet_type != SR {
            return None;
        }
        Some(SenderInfo {
            ssrc: word(self.bytes, 4)?,
            ntp: (u64::from(word(self.bytes, 8)?) << 32) | u64::from(word(self.bytes, 12)?),
            rtp: word(self.bytes, 16)?,
            packets: word(self.bytes, 20)?,
            octets: word(self.bytes, 24)?,
        })
    }

    /// The reception report blocks of an SR or RR; at most 31, and none that the packet's length cuts off.
    pub fn reports(&self) -> impl Iterator<Item = ReportBlock> + '_ {
        let start = match self.packet_type {
            SR => 28,
            RR => 8,
            _ => self.bytes.len(),
        };
        let blocks = self.bytes.get(start..).unwrap_or_default();
        blocks.chunks_exact(24).take(usize::from(self.count)).filter_map(ReportBlock::parse)
    }
}

/// The sender information of an SR (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    pub ssrc: u32,
    pub ntp: u64,
    pub rtp: u32,
    pub packets: u32,
    pub octets: u32,
}

impl SenderInfo {
    /// The middle 32 bits of the NTP time stamp, as a report block's LSR gives them back.
    pub const fn ntp_middle(&self) -> u32 {
        (self.ntp >> 16) as u32
    }
}

/// A reception report block (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source that is reported on.
    pub ssrc: u32,
    /// Of the packets since the last report, in 256ths.
    pub fraction_lost: u8,
    /// 24 bits with sign.
    pub cumulative_lost: i32,
    pub highest_sequence: u32,
    /// In units of the media clock.
    pub jitter: u32,
    pub last_sr: u32,
    /// In 1/65536 seconds.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn parse(bytes: &[u8]) -> Option<ReportBlock> {
        let lost = word(bytes, 4)?;
        Some(ReportBlock {
            ssrc: word(bytes, 0)?,
            fraction_lost: (lost >> 24) as u8,
            cumulative_lost: ((lost << 8) as i32) >> 8,
            highest_sequence: word(bytes, 8)?,
            jitter: word(bytes, 12)?,
            last_sr: word(bytes, 16)?,
            delay_since_last_sr: word(bytes, 20)?,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// The length of the packet that begins `bytes`, where it is whole and of version 2.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    let [b0, _, l0, l1] = *bytes.first_chunk()?;
    let length = 4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1);
    (b0 >> 6 == 2 && length <= bytes.len()).then_some(length)
}

/// Walks a compound. It ends at the first packet that is not whole, or not of version 2.
pub fn packets(compound: &[u8]) -> impl Iterator<Item = Packet<'_>> {
    let mut rest = compound;
    std::iter::from_fn(move || {
        let (bytes, after) = rest.split_at(packet_length(rest)?);
        rest = after;
        Some(Packet { packet_type: bytes[1], count: bytes[0] & 0x1f, bytes })
    })
}

/// Takes RTPFB and PSFB out of a compound, for a peer that never agreed to feedback (RFC 4585 §4.2).
///
/// Returns the length that is left; 0 where it held nothing else, or nothing that can be read.
pub fn strip_feedback(compound: &mut [u8]) -> usize {
    let (mut read, mut write) = (0, 0);
    while let Some(length) = compound.get(read..).and_then(packet_length) {
        if !matches!(compound[read + 1], RTPFB | PSFB) {
            compound.copy_within(read..read + length, write);
            write += length;
        }
        read += length;
    }
    write
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An SR with one report block, as other tests of media want it.
    pub(crate) fn sender_report(ssrc: u32, ntp: u64, block: Option<ReportBlock>) -> Vec<u8> {
        let mut out = vec![0x80 | block.is_some() as u8, SR, 0, if block.is_some() { 12 } else { 6 }];
        out.extend(ssrc.to_be_bytes());
        out.extend(ntp.to_be_bytes());
        out.extend([0; 12]);
        if let Some(block) = block {
            put_block(&mut out, block);
        }
        out
    }

    pub(crate) fn receiver_report(ssrc: u32, block: ReportBlock) -> Vec<u8> {
        let mut out = vec![0x81, RR, 0, 7];
        out.extend(ssrc.to_be_bytes());
        put_block(&mut out, block);
        out
    }

    fn put_block(out: &mut Vec<u8>, block: ReportBlock) {
        out.extend(block.ssrc.to_be_bytes());
        out.push(block.fraction_lost);
        out.extend(&block.cumulative_lost.to_be_bytes()[1..]);
        out.extend(block.highest_sequence.to_be_bytes());
        out.extend(block.jitter.to_be_bytes());
        out.extend(block.last_sr.to_be_bytes());
        out.extend(block.delay_since_last_sr.to_be_bytes());
    }

    pub(crate) const BLOCK: ReportBlock = ReportBlock {
        ssrc: 7,
        fraction_lost: 12,
        cumulative_lost: -3,
        highest_sequence: 70_000,
        jitter: 80,
        last_sr: 0x3456_789a,
        delay_since_last_sr: 65_536,
    };

    #[test]
    fn reads_reports() {
        let mut compound = sender_report(1, 0x1234_3456_789a_bcde, Some(BLOCK));
        compound.extend(receiver_report(2, BLOCK));
        let all: Vec<_> = packets(&compound).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].sender_info().map(|i| i.ntp_middle()), Some(0x3456_789a));
        assert_eq!(all[0].reports().collect::<Vec<_>>(), [BLOCK]);
        assert_eq!(all[1].sender(), Some(2));
        assert_eq!(all[1].reports().collect::<Vec<_>>(), [BLOCK]);
    }

    #[test]
    fn count_beyond_the_packet_is_cut() {
        let mut report = receiver_report(2, BLOCK);
        report[0] = 0x9f;
        assert_eq!(packets(&report).next().map(|p| p.reports().count()), Some(1));
    }

    #[test]
    fn feedback_goes_and_the_rest_stays() {
        let pli = [0x81, PSFB, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let report = receiver_report(2, BLOCK);
        let sdes = [0x81, SDES, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0];
        let mut compound = [&report[..], &pli, &sdes, &pli].concat();
        let left = strip_feedback(&mut compound);
        assert_eq!(compound[..left], [&report[..], &sdes].concat());
        let mut alone = pli;
        assert_eq!(strip_feedback(&mut alone), 0);
    }

    proptest! {
        #[test]
        fn survives_anything(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if bytes.len() > 2 { bytes[0] = 0x80 | (bytes[0] & 0x3f); bytes[2] = 0; }
            for packet in packets(&bytes) {
                packet.sender();
                packet.sender_info();
                prop_assert!(packet.reports().count() <= 31);
            }
            let length = bytes.len();
            prop_assert!(strip_feedback(&mut bytes) <= length);
        }
    }
}
