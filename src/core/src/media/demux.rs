//! Which protocol a datagram on a media port belongs to, by its first byte.
//!
//! RFC 7983 §7 as updated by RFC 9443 §3 (QUIC's range), and RFC 5761 §4 for RTP against RTCP.
//! In: the datagram. Out: its [`Kind`]. Not here: any check of what follows the first two bytes.

/// What a datagram is, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// STUN (RFC 8489): 0 to 3.
    Stun,
    /// DTLS records (RFC 6347, RFC 9147): 20 to 63.
    Dtls,
    Rtp,
    Rtcp,
    /// ZRTP, TURN channels, QUIC, and what nobody has assigned: a relay has no use for it.
    Other,
}

/// Tells a datagram's protocol.
pub fn classify(datagram: &[u8]) -> Kind {
    let Some(&first) = datagram.first() else { return Kind::Other };
    match first {
        0..=3 => Kind::Stun,
        20..=63 => Kind::Dtls,
        128..=191 => match datagram.get(1) {
            // RFC 5761 §4: payload types 64 to 95 are not for RTP that shares a port, so 192 to 223 is RTCP.
            Some(192..=223) => Kind::Rtcp,
            Some(_) => Kind::Rtp,
            None => Kind::Other,
        },
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_first_bytes() {
        assert_eq!(classify(&[]), Kind::Other);
        assert_eq!(classify(&[0, 1]), Kind::Stun);
        assert_eq!(classify(&[3]), Kind::Stun);
        assert_eq!(classify(&[4]), Kind::Other);
        assert_eq!(classify(&[16]), Kind::Other);
        assert_eq!(classify(&[20]), Kind::Dtls);
        assert_eq!(classify(&[63]), Kind::Dtls);
        assert_eq!(classify(&[64]), Kind::Other);
        assert_eq!(classify(&[0x80]), Kind::Other);
        assert_eq!(classify(&[0x80, 0]), Kind::Rtp);
        assert_eq!(classify(&[0x80, 0x80 | 111]), Kind::Rtp);
        assert_eq!(classify(&[0x80, 200]), Kind::Rtcp);
        assert_eq!(classify(&[0x8f, 223]), Kind::Rtcp);
        assert_eq!(classify(&[0x80, 224]), Kind::Rtp);
        assert_eq!(classify(&[192, 0]), Kind::Other);
    }
}
