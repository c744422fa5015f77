//! The ciphers that go with HMAC-SHA1: AES in counter mode, AES in f8 mode, none.
//!
//! RFC 3711 §4.1, RFC 6188. In: session keys, a packet and its index. Out: the packet's payload, turned: each cipher is its
//! own inverse. Not here: authentication, key derivation, GCM (`srtp`).

use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit as _, StreamCipherCore};
use aes::{Aes128, Aes192, Aes256};

/// A payload's cipher.
pub(super) enum Body {
    Cm128(Aes128),
    Cm192(Aes192),
    Cm256(Aes256),
    F8(Box<F8>),
    Null,
}

/// RFC 3711 §4.1.2.
pub(super) struct F8 {
    key: Aes128,
    /// Of the key xor the padded salt.
    masked: Aes128,
}

impl Body {
    /// AES in counter mode, of the key's length.
    pub fn counter(key: &[u8]) -> Option<Body> {
        Some(match key.len() {
            16 => Body::Cm128(Aes128::new_from_slice(key).ok()?),
            24 => Body::Cm192(Aes192::new_from_slice(key).ok()?),
            32 => Body::Cm256(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        })
    }

    /// AES in f8 mode. The salt is padded with 0x55.
    pub fn f8(key: &[u8], salt: &[u8]) -> Option<Body> {
        let mut masked: [u8; 16] = key.try_into().ok()?;
        let pad = salt.iter().copied().chain(std::iter::repeat(0x55));
        for (byte, mask) in masked.iter_mut().zip(pad) {
            *byte ^= mask;
        }
        let key = Aes128::new_from_slice(key).ok()?;
        Some(Body::F8(Box::new(F8 { key, masked: Aes128::new_from_slice(&masked).ok()? })))
    }

    /// The payload of an RTP packet, `packet[header..]`.
    pub fn rtp(&self, salt: &[u8; 14], ssrc: u32, index: u64, packet: &mut [u8], header: usize) {
        match self {
            Body::Cm128(_) | Body::Cm192(_) | Body::Cm256(_) => {
                self.counter_mode(salt, ssrc, index, &mut packet[header..]);
            }
            Body::F8(f8) => {
                // §4.1.2.2: a zero byte, the rest of the fixed header, the roll-over counter.
                let mut iv = [0; 16];
                iv[1..12].copy_from_slice(&packet[1..12]);
                iv[12..].copy_from_slice(&((index >> 16) as u32).to_be_bytes());
                f8.apply(iv, &mut packet[header..]);
            }
            Body::Null => {}
        }
    }

    /// The payload of an RTCP compound, `packet[8..]`.
    pub fn rtcp(&self, salt: &[u8; 14], ssrc: u32, index: u32, packet: &mut [u8]) {
        match self {
            Body::Cm128(_) | Body::Cm192(_) | Body::Cm256(_) => {
                self.counter_mode(salt, ssrc, index.into(), &mut packet[8..]);
            }
            Body::F8(f8) => {
                // §4.1.2.3: four zero bytes, the word with flag and index, the first eight bytes.
                let mut iv = [0; 16];
                iv[4..8].copy_from_slice(&(index | 1 << 31).to_be_bytes());
                iv[8..].copy_from_slice(&packet[..8]);
                f8.apply(iv, &mut packet[8..]);
            }
            Body::Null => {}
        }
    }

    /// RFC 3711 §4.1.1: the block is salt · 2^16 xor SSRC · 2^64 xor index · 2^16, and counts from there.
    pub fn counter_mode(&self, salt: &[u8; 14], ssrc: u32, index: u64, data: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(salt);
        for (byte, other) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *byte ^= other;
        }
        for (byte, other) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= other;
        }
        match self {
            Body::Cm128(aes) => keystream(aes, &iv, data),
            Body::Cm192(aes) => keystream(aes, &iv, data),
            Body::Cm256(aes) => keystream(aes, &iv, data),
            Body::F8(_) | Body::Null => {}
        }
    }
}

impl F8 {
    fn apply(&self, iv: [u8; 16], data: &mut [u8]) {
        let encrypt = |aes: &Aes128, mut block: [u8; 16]| {
            aes.encrypt_block((&mut block).into());
            block
        };
        let iv = encrypt(&self.masked, iv);
        let mut before = [0; 16];
        for (count, chunk) in data.chunks_mut(16).enumerate() {
            let mut block = u128::from_be_bytes(iv) ^ u128::from_be_bytes(before);
            block ^= count as u128;
            before = encrypt(&self.key, block.to_be_bytes());
            for (byte, key) in chunk.iter_mut().zip(before) {
                *byte ^= key;
            }
        }
    }
}

pub(super) fn keystream<
    C: BlockCipherEncrypt + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16> + Clone,
>(
    aes: &C,
    iv: &[u8; 16],
    data: &mut [u8],
) {
    let core = ctr::CtrCore::<C, ctr::flavors::Ctr128BE>::inner_iv_init(aes.clone(), &(*iv).into());
    core.apply_keystream_partial(data.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 3711 appendix B.1.
    #[test]
    fn f8_vector() {
        let key = hex("234829008467be186c3de14aae72d62c");
        let Some(Body::F8(f8)) = Body::f8(&key, &hex("32f2870d")) else { panic!("a key") };
        let mut data = b"pseudorandomness is the next best thing".to_vec();
        f8.apply(hex("006e5cba50681de55c621599d462564a").try_into().unwrap(), &mut data);
        let expected = "019ce7a26e7854014a6366aa95d4eefd1ad4172a14f9faf455b7f1d4b62bd08f562c0eef7c4802";
        assert_eq!(data, hex(expected));
    }
}
