//! SRTP and SRTCP, in place.
//!
//! RFC 3711 (AES counter mode, HMAC-SHA1, key derivation with rate 0, no MKI), RFC 7714 (AEAD AES-GCM).
//! In: a buffer with room at its end, and how much of it is the packet. Out: the packet's new length.
//! A [`Context`] is one direction of one leg: either it protects, or it unprotects.
//! Not here: where keys come from (`dtls`, or the SDP), and which profile was agreed.

use super::rtp;
use crate::limits::SRTP_SOURCES;
use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit as _, StreamCipherCore};
use aes::{Aes128, Aes256};
use hmac::{Hmac, Mac};
use ring::aead;
use sha1::Sha1;
use subtle::ConstantTimeEq;

/// Cipher and authentication tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    AesCm128HmacSha1_80,
    AesCm128HmacSha1_32,
    AeadAes128Gcm,
    AeadAes256Gcm,
}

/// The most that protecting adds to a packet: GCM's tag and SRTCP's index.
pub const OVERHEAD: usize = 20;

impl Suite {
    /// By its name in `a=crypto` (RFC 4568 §6.2, RFC 7714 §14.2).
    pub fn from_sdes(name: &str) -> Option<Suite> {
        Some(match name {
            "AES_CM_128_HMAC_SHA1_80" => Suite::AesCm128HmacSha1_80,
            "AES_CM_128_HMAC_SHA1_32" => Suite::AesCm128HmacSha1_32,
            "AEAD_AES_128_GCM" => Suite::AeadAes128Gcm,
            "AEAD_AES_256_GCM" => Suite::AeadAes256Gcm,
            _ => return None,
        })
    }

    /// As `a=crypto` and the replies of ng name it.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Suite::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Suite::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Suite::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    pub const fn key_length(self) -> usize {
        match self {
            Suite::AeadAes256Gcm => 32,
            _ => 16,
        }
    }

    pub const fn salt_length(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => 14,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 12,
        }
    }

    /// Bytes that an RTP packet grows by.
    pub const fn rtp_tag(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80 => 10,
            Suite::AesCm128HmacSha1_32 => 4,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 16,
        }
    }

    /// SRTCP's tag keeps 80 bits in the `_32` suite too (RFC 5764 §4.1.2).
    const fn rtcp_tag(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => 10,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 16,
        }
    }
}

/// Why a packet did not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not RTP, not RTCP, or shorter than its tag.
    Malformed,
    /// The tag does not fit: tampered, or another key.
    Authentication,
    /// Its index was seen, or is older than the window.
    Replay,
    /// The buffer has no room for the tag.
    NoRoom,
    /// More synchronisation sources than one leg may have.
    TooManySources,
    /// SRTCP that is not encrypted, which nobody agreed to.
    Unencrypted,
    /// The SRTCP index or the roll-over counter is used up: these keys are finished.
    Exhausted,
    /// A master key or salt of the wrong length.
    Key,
}

enum Cipher {
    Cm128(Box<CounterMode>),
    Gcm(Box<aead::LessSafeKey>),
}

struct CounterMode {
    aes: Aes128,
    /// Keyed once; cloned for each packet.
    mac: Hmac<Sha1>,
}

/// Session keys of RTP or of RTCP.
struct Keys {
    cipher: Cipher,
    /// 14 bytes for counter mode, 12 for GCM.
    salt: [u8; 14],
}

/// Highest index and the window below it (RFC 3711 §3.3.2: at least 64; here 128).
#[derive(Clone, Copy)]
struct Window {
    highest: u64,
    seen: u128,
}

impl Window {
    fn new(first: u64) -> Self {
        Window { highest: first, seen: 0 }
    }

    fn is_fresh(&self, index: u64) -> bool {
        if index > self.highest {
            return true;
        }
        let age = self.highest - index;
        age < 128 && self.seen >> age & 1 == 0
    }

    fn mark(&mut self, index: u64) {
        if index > self.highest {
            let step = index - self.highest;
            self.seen = if step < 128 { self.seen << step } else { 0 } | 1;
            self.highest = index;
        } else if self.highest - index < 128 {
            self.seen |= 1 << (self.highest - index);
        }
    }
}

struct Source {
    ssrc: u32,
    window: Window,
}

/// One direction of one leg.
pub struct Context {
    suite: Suite,
    rtp: Keys,
    rtcp: Keys,
    rtp_sources: Vec<Source>,
    rtcp_sources: Vec<Source>,
    /// The next SRTCP index that we send; one counter for all our sources keeps it unique for each.
    rtcp_index: u32,
}

impl Context {
    /// From a master key and a master salt, as DTLS exported them or as the SDP gave them.
    pub fn new(suite: Suite, key: &[u8], salt: &[u8]) -> Result<Context, Error> {
        if key.len() != suite.key_length() || salt.len() != suite.salt_length() {
            return Err(Error::Key);
        }
        Ok(Context {
            suite,
            rtp: Keys::derive(suite, key, salt, 0)?,
            rtcp: Keys::derive(suite, key, salt, 3)?,
            rtp_sources: Vec::with_capacity(2),
            rtcp_sources: Vec::with_capacity(2),
            rtcp_index: 0,
        })
    }

    /// From key and salt in one piece.
    pub fn from_concatenated(suite: Suite, key_and_salt: &[u8]) -> Result<Context, Error> {
        let (key, salt) = key_and_salt.split_at_checked(suite.key_length()).ok_or(Error::Key)?;
        Context::new(suite, key, salt)
    }

    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Encrypts the RTP packet that is `buffer[..length]`.
    ///
    /// An index that was used is refused: to use it again for other bytes would give both away.
    pub fn protect_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Error> {
        let header = buffer.get(..length).and_then(rtp::Header::parse).ok_or(Error::Malformed)?;
        let tag = self.suite.rtp_tag();
        let end = length + tag;
        if end > buffer.len() {
            return Err(Error::NoRoom);
        }
        let (at, index) = locate(&self.rtp_sources, header.ssrc, header.sequence)?;
        match &self.rtp.cipher {
            Cipher::Cm128(cm) => {
                let iv = self.rtp.counter_iv(header.ssrc, index);
                keystream(&cm.aes, &iv, &mut buffer[header.length..length]);
                let full = rtp_tag(&cm.mac, &buffer[..length], index);
                buffer[length..end].copy_from_slice(&full[..tag]);
            }
            Cipher::Gcm(key) => {
                let nonce = self.rtp.gcm_rtp_nonce(header.ssrc, index);
                let (aad, payload) = buffer[..length].split_at_mut(header.length);
                let full = key
                    .seal_in_place_separate_tag(nonce, aead::Aad::from(&*aad), payload)
                    .map_err(|_| Error::Malformed)?;
                buffer[length..end].copy_from_slice(full.as_ref());
            }
        }
        remember(&mut self.rtp_sources, at, header.ssrc, index);
        Ok(end)
    }

    /// Checks and decrypts the SRTP packet that is `buffer[..length]`.
    pub fn unprotect_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Error> {
        let packet = buffer.get_mut(..length).ok_or(Error::Malformed)?;
        let header = rtp::Header::parse(packet).ok_or(Error::Malformed)?;
        let end = length.checked_sub(self.suite.rtp_tag()).ok_or(Error::Malformed)?;
        if end < header.length {
            return Err(Error::Malformed);
        }
        let (at, index) = locate(&self.rtp_sources, header.ssrc, header.sequence)?;
        match &self.rtp.cipher {
            Cipher::Cm128(cm) => {
                let (body, tag) = packet.split_at_mut(end);
                let full = rtp_tag(&cm.mac, body, index);
                if !bool::from(full[..tag.len()].ct_eq(tag)) {
                    return Err(Error::Authentication);
                }
                keystream(&cm.aes, &self.rtp.counter_iv(header.ssrc, index), &mut body[header.length..]);
            }
            Cipher::Gcm(key) => {
                let nonce = self.rtp.gcm_rtp_nonce(header.ssrc, index);
                let (aad, sealed) = packet.split_at_mut(header.length);
                key.open_in_place(nonce, aead::Aad::from(&*aad), sealed)
                    .map_err(|_| Error::Authentication)?;
            }
        }
        remember(&mut self.rtp_sources, at, header.ssrc, index);
        Ok(end)
    }

    /// Encrypts the RTCP compound that is `buffer[..length]`.
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Error> {
        let ssrc = buffer.get(..length).and_then(rtcp_sender).ok_or(Error::Malformed)?;
        let tag = self.suite.rtcp_tag();
        let end = length + 4 + tag;
        if end > buffer.len() {
            return Err(Error::NoRoom);
        }
        let index = self.rtcp_index;
        if index >= 1 << 31 {
            return Err(Error::Exhausted);
        }
        self.rtcp_index += 1;
        let trailer = (index | 1 << 31).to_be_bytes();
        match &self.rtcp.cipher {
            Cipher::Cm128(cm) => {
                keystream(&cm.aes, &self.rtcp.counter_iv(ssrc, index.into()), &mut buffer[8..length]);
                buffer[length..length + 4].copy_from_slice(&trailer);
                let full = cm.mac.clone().chain_update(&buffer[..length + 4]).finalize().into_bytes();
                buffer[length + 4..end].copy_from_slice(&full[..tag]);
            }
            Cipher::Gcm(key) => {
                let aad = gcm_rtcp_aad(buffer, trailer);
                let full = key
                    .seal_in_place_separate_tag(
                        self.rtcp.gcm_rtcp_nonce(ssrc, index),
                        aead::Aad::from(aad),
                        &mut buffer[8..length],
                    )
                    .map_err(|_| Error::Malformed)?;
                buffer[length..length + tag].copy_from_slice(full.as_ref());
                buffer[length + tag..end].copy_from_slice(&trailer);
            }
        }
        Ok(end)
    }

    /// Checks and decrypts the SRTCP packet that is `buffer[..length]`.
    pub fn unprotect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Error> {
        let packet = buffer.get_mut(..length).ok_or(Error::Malformed)?;
        let ssrc = rtcp_sender(packet).ok_or(Error::Malformed)?;
        let tag = self.suite.rtcp_tag();
        let end = length.checked_sub(4 + tag).filter(|end| *end >= 8).ok_or(Error::Malformed)?;
        let trailer_at = match self.rtcp.cipher {
            Cipher::Cm128(_) => end,
            Cipher::Gcm(_) => end + tag,
        };
        let trailer =
            [packet[trailer_at], packet[trailer_at + 1], packet[trailer_at + 2], packet[trailer_at + 3]];
        let word = u32::from_be_bytes(trailer);
        if word >> 31 == 0 {
            return Err(Error::Unencrypted);
        }
        let index = word & 0x7fff_ffff;
        let at = self.rtcp_sources.iter().position(|source| source.ssrc == ssrc);
        match at {
            Some(at) if !self.rtcp_sources[at].window.is_fresh(index.into()) => return Err(Error::Replay),
            None if self.rtcp_sources.len() >= SRTP_SOURCES => return Err(Error::TooManySources),
            _ => {}
        }
        match &self.rtcp.cipher {
            Cipher::Cm128(cm) => {
                let (body, given) = packet.split_at_mut(end + 4);
                let full = cm.mac.clone().chain_update(&*body).finalize().into_bytes();
                if !bool::from(full[..tag].ct_eq(given)) {
                    return Err(Error::Authentication);
                }
                keystream(&cm.aes, &self.rtcp.counter_iv(ssrc, index.into()), &mut body[8..end]);
            }
            Cipher::Gcm(key) => {
                let aad = gcm_rtcp_aad(packet, trailer);
                key.open_in_place(
                    self.rtcp.gcm_rtcp_nonce(ssrc, index),
                    aead::Aad::from(aad),
                    &mut packet[8..trailer_at],
                )
                .map_err(|_| Error::Authentication)?;
            }
        }
        remember(&mut self.rtcp_sources, at, ssrc, index.into());
        Ok(end)
    }
}

/// Where the source is kept, and the packet's 48-bit index (RFC 3711 §3.3.1 and appendix A).
fn locate(sources: &[Source], ssrc: u32, sequence: u16) -> Result<(Option<usize>, u64), Error> {
    let Some(at) = sources.iter().position(|source| source.ssrc == ssrc) else {
        if sources.len() >= SRTP_SOURCES {
            return Err(Error::TooManySources);
        }
        return Ok((None, sequence.into()));
    };
    let window = &sources[at].window;
    let (roc, last) = (window.highest >> 16, window.highest as u16);
    let roc = if last < 0x8000 {
        if sequence.saturating_sub(last) > 0x8000 {
            // From before the first roll-over that we know of.
            roc.checked_sub(1).ok_or(Error::Replay)?
        } else {
            roc
        }
    } else if last - 0x8000 > sequence {
        roc + 1
    } else {
        roc
    };
    if roc > u64::from(u32::MAX) {
        return Err(Error::Exhausted);
    }
    let index = roc << 16 | u64::from(sequence);
    if window.is_fresh(index) { Ok((Some(at), index)) } else { Err(Error::Replay) }
}

fn remember(sources: &mut Vec<Source>, at: Option<usize>, ssrc: u32, index: u64) {
    match at.and_then(|at| sources.get_mut(at)) {
        Some(source) => source.window.mark(index),
        None => {
            let mut window = Window::new(index);
            window.mark(index);
            sources.push(Source { ssrc, window });
        }
    }
}

/// The sender's SSRC, where the first packet has one.
fn rtcp_sender(packet: &[u8]) -> Option<u32> {
    let head: &[u8; 8] = packet.first_chunk()?;
    (head[0] >> 6 == 2).then(|| u32::from_be_bytes([head[4], head[5], head[6], head[7]]))
}

/// RFC 7714 §17: the first eight bytes, then the word with flag and index.
fn gcm_rtcp_aad(packet: &[u8], trailer: [u8; 4]) -> [u8; 12] {
    let mut aad = [0; 12];
    aad[..8].copy_from_slice(&packet[..8]);
    aad[8..].copy_from_slice(&trailer);
    aad
}

/// RFC 3711 §4.2: over the packet and the roll-over counter.
fn rtp_tag(mac: &Hmac<Sha1>, packet: &[u8], index: u64) -> [u8; 20] {
    let roc = ((index >> 16) as u32).to_be_bytes();
    mac.clone().chain_update(packet).chain_update(roc).finalize().into_bytes().into()
}

fn keystream<
    C: BlockCipherEncrypt + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16> + Clone,
>(
    aes: &C,
    iv: &[u8; 16],
    data: &mut [u8],
) {
    let core = ctr::CtrCore::<C, ctr::flavors::Ctr128BE>::inner_iv_init(aes.clone(), &(*iv).into());
    core.apply_keystream_partial(data.into());
}

impl Keys {
    /// RFC 3711 §4.3: labels 0 to 2 for RTP, 3 to 5 for RTCP; RFC 7714 §11 pads GCM's salt.
    fn derive(suite: Suite, key: &[u8], salt: &[u8], base: u8) -> Result<Keys, Error> {
        let mut master_salt = [0; 14];
        master_salt[..salt.len()].copy_from_slice(salt);
        let prf = |label: u8, out: &mut [u8]| {
            let mut iv = [0; 16];
            iv[..14].copy_from_slice(&master_salt);
            iv[7] ^= label;
            match suite {
                Suite::AeadAes256Gcm => {
                    keystream(&Aes256::new_from_slice(key).map_err(|_| Error::Key)?, &iv, out);
                }
                _ => keystream(&Aes128::new_from_slice(key).map_err(|_| Error::Key)?, &iv, out),
            }
            Ok(())
        };
        let mut session = [0; 32];
        let session = &mut session[..suite.key_length()];
        prf(base, session)?;
        let mut session_salt = [0; 14];
        prf(base + 2, &mut session_salt[..suite.salt_length()])?;
        let mut authentication = [0; 20];
        prf(base + 1, &mut authentication)?;
        Keys::from_session(suite, session, session_salt, &authentication)
    }

    fn from_session(
        suite: Suite,
        key: &[u8],
        salt: [u8; 14],
        authentication: &[u8; 20],
    ) -> Result<Keys, Error> {
        let gcm = |algorithm| {
            let key = aead::UnboundKey::new(algorithm, key).map_err(|_| Error::Key)?;
            Ok(Cipher::Gcm(Box::new(aead::LessSafeKey::new(key))))
        };
        let cipher = match suite {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => Cipher::Cm128(Box::new(CounterMode {
                aes: Aes128::new_from_slice(key).map_err(|_| Error::Key)?,
                mac: Hmac::new_from_slice(authentication).map_err(|_| Error::Key)?,
            })),
            Suite::AeadAes128Gcm => gcm(&aead::AES_128_GCM)?,
            Suite::AeadAes256Gcm => gcm(&aead::AES_256_GCM)?,
        };
        Ok(Keys { cipher, salt })
    }

    /// RFC 3711 §4.1.1: salt · 2^16 xor SSRC · 2^64 xor index · 2^16.
    fn counter_iv(&self, ssrc: u32, index: u64) -> [u8; 16] {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        for (byte, other) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *byte ^= other;
        }
        for (byte, other) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= other;
        }
        iv
    }

    /// RFC 7714 §8.1: 16 zero bits, SSRC, roll-over counter, sequence number; xor salt.
    fn gcm_rtp_nonce(&self, ssrc: u32, index: u64) -> aead::Nonce {
        self.gcm_nonce(ssrc, &index.to_be_bytes()[2..])
    }

    /// RFC 7714 §9.1: 16 zero bits, SSRC, 16 zero bits, index; xor salt.
    fn gcm_rtcp_nonce(&self, ssrc: u32, index: u32) -> aead::Nonce {
        self.gcm_nonce(ssrc, &u64::from(index).to_be_bytes()[2..])
    }

    fn gcm_nonce(&self, ssrc: u32, last_six: &[u8]) -> aead::Nonce {
        let mut nonce = [0; 12];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[6..].copy_from_slice(last_six);
        for (byte, salt) in nonce.iter_mut().zip(&self.salt[..12]) {
            *byte ^= salt;
        }
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests;
