//! SRTP and SRTCP, in place.
//!
//! RFC 3711 (AES in counter and in f8 mode, the null cipher, HMAC-SHA1, key derivation with rate 0, one MKI), RFC 6188 (AES
//! with 192 and 256 bits), RFC 7714 (AEAD AES-GCM).
//! In: a buffer with room at its end, and how much of it is the packet. Out: the packet's new length.
//! A [`Context`] is one direction of one leg: either it protects, or it unprotects.
//! Not here: where keys come from (`dtls`, or the SDP), and which profile was agreed.

mod cipher;

use super::rtp;
use crate::limits::{MKI_BYTES, SRTP_SOURCES};
use cipher::Body;
use hmac::{Hmac, KeyInit as _, Mac};
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
    AesCm192HmacSha1_80,
    AesCm192HmacSha1_32,
    AesCm256HmacSha1_80,
    AesCm256HmacSha1_32,
    F8HmacSha1_80,
    F8HmacSha1_32,
    /// Nothing is hidden, everything is authenticated.
    NullHmacSha1_80,
    NullHmacSha1_32,
}

/// The most that protecting adds to a packet: GCM's tag, SRTCP's index, and a key's identifier.
pub const OVERHEAD: usize = 20 + MKI_BYTES;

impl Suite {
    /// All, as rtpengine orders them in an offer: the strongest first, and those that nobody should take last.
    pub const ALL: [Suite; 12] = [
        Suite::AeadAes256Gcm,
        Suite::AeadAes128Gcm,
        Suite::AesCm256HmacSha1_80,
        Suite::AesCm256HmacSha1_32,
        Suite::AesCm192HmacSha1_80,
        Suite::AesCm192HmacSha1_32,
        Suite::AesCm128HmacSha1_80,
        Suite::AesCm128HmacSha1_32,
        Suite::F8HmacSha1_80,
        Suite::F8HmacSha1_32,
        Suite::NullHmacSha1_80,
        Suite::NullHmacSha1_32,
    ];

    /// By its name in `a=crypto` (RFC 4568 §6.2, RFC 6188 §4, RFC 7714 §14.2), and as rtpengine and others write it.
    pub fn from_sdes(name: &str) -> Option<Suite> {
        let name = match name {
            "AES_CM_256_HMAC_SHA1_80" => "AES_256_CM_HMAC_SHA1_80",
            "AES_CM_256_HMAC_SHA1_32" => "AES_256_CM_HMAC_SHA1_32",
            "AES_CM_192_HMAC_SHA1_80" => "AES_192_CM_HMAC_SHA1_80",
            "AES_CM_192_HMAC_SHA1_32" => "AES_192_CM_HMAC_SHA1_32",
            other => other,
        };
        Suite::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// As `a=crypto` and the replies of ng name it.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Suite::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Suite::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Suite::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Suite::AesCm192HmacSha1_80 => "AES_192_CM_HMAC_SHA1_80",
            Suite::AesCm192HmacSha1_32 => "AES_192_CM_HMAC_SHA1_32",
            Suite::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Suite::AesCm256HmacSha1_32 => "AES_256_CM_HMAC_SHA1_32",
            Suite::F8HmacSha1_80 => "F8_128_HMAC_SHA1_80",
            Suite::F8HmacSha1_32 => "F8_128_HMAC_SHA1_32",
            Suite::NullHmacSha1_80 => "NULL_HMAC_SHA1_80",
            Suite::NullHmacSha1_32 => "NULL_HMAC_SHA1_32",
        }
    }

    pub const fn key_length(self) -> usize {
        match self {
            Suite::AeadAes256Gcm | Suite::AesCm256HmacSha1_80 | Suite::AesCm256HmacSha1_32 => 32,
            Suite::AesCm192HmacSha1_80 | Suite::AesCm192HmacSha1_32 => 24,
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 | Suite::AeadAes128Gcm => 16,
            Suite::F8HmacSha1_80 | Suite::F8HmacSha1_32 => 16,
            Suite::NullHmacSha1_80 | Suite::NullHmacSha1_32 => 16,
        }
    }

    pub const fn salt_length(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// Bytes of key and salt in `inline:`.
    pub const fn key_and_salt_length(self) -> usize {
        self.key_length() + self.salt_length()
    }

    const fn is_aead(self) -> bool {
        matches!(self, Suite::AeadAes128Gcm | Suite::AeadAes256Gcm)
    }

    /// Bytes that an RTP packet grows by.
    pub const fn rtp_tag(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80
            | Suite::AesCm192HmacSha1_80
            | Suite::AesCm256HmacSha1_80
            | Suite::F8HmacSha1_80
            | Suite::NullHmacSha1_80 => 10,
            Suite::AesCm128HmacSha1_32
            | Suite::AesCm192HmacSha1_32
            | Suite::AesCm256HmacSha1_32
            | Suite::F8HmacSha1_32
            | Suite::NullHmacSha1_32 => 4,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 16,
        }
    }

    /// SRTCP's tag keeps 80 bits in the `_32` suites too (RFC 5764 §4.1.2, RFC 4568 §6.2.2).
    const fn rtcp_tag(self) -> usize {
        if self.is_aead() { 16 } else { 10 }
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
    Hmac(Box<Authenticated>),
    Gcm(Box<aead::LessSafeKey>),
}

/// A cipher, and HMAC-SHA1 beside it.
struct Authenticated {
    body: Body,
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
    /// Below it, indices were used for packets of our own making: a sender's own index is none of these.
    rtcp_own: u32,
    /// Of the SRTCP packet that was unprotected last.
    rtcp_index_seen: u32,
    /// The key's identifier in each packet (RFC 3711 §3.1); mostly empty.
    mki: Vec<u8>,
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
            rtcp_own: 0,
            rtcp_index_seen: 0,
            mki: Vec::new(),
        })
    }

    /// The key's identifier from here on, mostly empty; one longer than [`MKI_BYTES`] is refused. The key stays, and with it
    /// what of it was used.
    pub fn set_mki(&mut self, mki: &[u8]) -> Result<(), Error> {
        if mki.len() > MKI_BYTES {
            return Err(Error::Key);
        }
        self.mki = mki.to_vec();
        Ok(())
    }

    /// The index of the SRTCP packet that was unprotected last.
    pub const fn rtcp_index_seen(&self) -> u32 {
        self.rtcp_index_seen
    }

    /// Puts the key's identifier before an HMAC's tag, or behind GCM's.
    fn put_mki(&self, buffer: &mut [u8], end: usize, tag: usize) -> Result<usize, Error> {
        let length = self.mki.len();
        if length == 0 {
            return Ok(end);
        }
        let at = if self.suite.is_aead() { end } else { end - tag };
        let room = buffer.get_mut(at..end + length).ok_or(Error::NoRoom)?;
        room.copy_within(..end - at, length);
        room[..length].copy_from_slice(&self.mki);
        Ok(end + length)
    }

    /// Takes it out again; the length that is left.
    fn take_mki(&self, packet: &mut [u8], tag: usize) -> Result<usize, Error> {
        let length = self.mki.len();
        if length == 0 {
            return Ok(packet.len());
        }
        let tag = if self.suite.is_aead() { 0 } else { tag };
        let at = packet.len().checked_sub(tag + length).ok_or(Error::Malformed)?;
        if packet[at..at + length] != *self.mki {
            return Err(Error::Authentication);
        }
        packet.copy_within(at + length.., at);
        Ok(packet.len() - length)
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
        if end + self.mki.len() > buffer.len() {
            return Err(Error::NoRoom);
        }
        let (at, index) = locate(&self.rtp_sources, header.ssrc, header.sequence)?;
        match &self.rtp.cipher {
            Cipher::Hmac(hmac) => {
                hmac.body.rtp(&self.rtp.salt, header.ssrc, index, &mut buffer[..length], header.length);
                let full = rtp_tag(&hmac.mac, &buffer[..length], index);
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
        self.put_mki(buffer, end, tag)
    }

    /// Checks and decrypts the SRTP packet that is `buffer[..length]`.
    pub fn unprotect_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Error> {
        let packet = buffer.get_mut(..length).ok_or(Error::Malformed)?;
        let length = self.take_mki(packet, self.suite.rtp_tag())?;
        let packet = &mut packet[..length];
        let header = rtp::Header::parse(packet).ok_or(Error::Malformed)?;
        let end = length.checked_sub(self.suite.rtp_tag()).ok_or(Error::Malformed)?;
        if end < header.length {
            return Err(Error::Malformed);
        }
        let (at, index) = locate(&self.rtp_sources, header.ssrc, header.sequence)?;
        match &self.rtp.cipher {
            Cipher::Hmac(hmac) => {
                let (body, tag) = packet.split_at_mut(end);
                let full = rtp_tag(&hmac.mac, body, index);
                if !bool::from(full[..tag.len()].ct_eq(tag)) {
                    return Err(Error::Authentication);
                }
                hmac.body.rtp(&self.rtp.salt, header.ssrc, index, body, header.length);
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
        let length = self.seal_rtcp(buffer, length, self.rtcp_index)?;
        self.rtcp_own = self.rtcp_index;
        Ok(length)
    }

    /// The same with the index that its sender gave it, under its sender's own key: then the same bytes come out as went
    /// in, and no index is used twice for different ones.
    pub fn protect_rtcp_as(&mut self, buffer: &mut [u8], length: usize, index: u32) -> Result<usize, Error> {
        if index < self.rtcp_own {
            return Err(Error::Replay);
        }
        self.seal_rtcp(buffer, length, index)
    }

    fn seal_rtcp(&mut self, buffer: &mut [u8], length: usize, index: u32) -> Result<usize, Error> {
        let ssrc = buffer.get(..length).and_then(rtcp_sender).ok_or(Error::Malformed)?;
        let tag = self.suite.rtcp_tag();
        let end = length + 4 + tag;
        if end + self.mki.len() > buffer.len() {
            return Err(Error::NoRoom);
        }
        if index >= 1 << 31 {
            return Err(Error::Exhausted);
        }
        self.rtcp_index = self.rtcp_index.max(index + 1);
        let trailer = (index | 1 << 31).to_be_bytes();
        match &self.rtcp.cipher {
            Cipher::Hmac(hmac) => {
                hmac.body.rtcp(&self.rtcp.salt, ssrc, index, &mut buffer[..length]);
                buffer[length..length + 4].copy_from_slice(&trailer);
                let full = hmac.mac.clone().chain_update(&buffer[..length + 4]).finalize().into_bytes();
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
        self.put_mki(buffer, end, tag)
    }

    /// Checks and decrypts the SRTCP packet that is `buffer[..length]`.
    pub fn unprotect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Error> {
        let packet = buffer.get_mut(..length).ok_or(Error::Malformed)?;
        let tag = self.suite.rtcp_tag();
        let length = self.take_mki(packet, tag)?;
        let packet = &mut packet[..length];
        let ssrc = rtcp_sender(packet).ok_or(Error::Malformed)?;
        let end = length.checked_sub(4 + tag).filter(|end| *end >= 8).ok_or(Error::Malformed)?;
        let trailer_at = match self.rtcp.cipher {
            Cipher::Hmac(_) => end,
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
            Cipher::Hmac(hmac) => {
                let (body, given) = packet.split_at_mut(end + 4);
                let full = hmac.mac.clone().chain_update(&*body).finalize().into_bytes();
                if !bool::from(full[..tag].ct_eq(given)) {
                    return Err(Error::Authentication);
                }
                hmac.body.rtcp(&self.rtcp.salt, ssrc, index, &mut body[..end]);
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
        self.rtcp_index_seen = index;
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

impl Keys {
    /// RFC 3711 §4.3: labels 0 to 2 for RTP, 3 to 5 for RTCP; RFC 7714 §11 pads GCM's salt.
    fn derive(suite: Suite, key: &[u8], salt: &[u8], base: u8) -> Result<Keys, Error> {
        let mut master_salt = [0; 14];
        master_salt[..salt.len()].copy_from_slice(salt);
        // The derivation runs in counter mode under the master key, whatever the cipher is (RFC 3711 §4.3.3, RFC 6188 §3).
        let master = Body::counter(key).ok_or(Error::Key)?;
        let prf = |label: u8, out: &mut [u8]| {
            let mut salt = master_salt;
            salt[7] ^= label;
            master.counter_mode(&salt, 0, 0, out);
        };
        let mut session = [0; 32];
        let session = &mut session[..suite.key_length()];
        prf(base, session);
        let mut session_salt = [0; 14];
        prf(base + 2, &mut session_salt[..suite.salt_length()]);
        let mut authentication = [0; 20];
        prf(base + 1, &mut authentication);
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
        let hmac = |body: Option<Body>| {
            let mac = Hmac::new_from_slice(authentication).map_err(|_| Error::Key)?;
            Ok(Cipher::Hmac(Box::new(Authenticated { body: body.ok_or(Error::Key)?, mac })))
        };
        let cipher = match suite {
            Suite::AesCm128HmacSha1_80
            | Suite::AesCm128HmacSha1_32
            | Suite::AesCm192HmacSha1_80
            | Suite::AesCm192HmacSha1_32
            | Suite::AesCm256HmacSha1_80
            | Suite::AesCm256HmacSha1_32 => hmac(Body::counter(key))?,
            Suite::F8HmacSha1_80 | Suite::F8HmacSha1_32 => hmac(Body::f8(key, &salt))?,
            Suite::NullHmacSha1_80 | Suite::NullHmacSha1_32 => hmac(Some(Body::Null))?,
            Suite::AeadAes128Gcm => gcm(&aead::AES_128_GCM)?,
            Suite::AeadAes256Gcm => gcm(&aead::AES_256_GCM)?,
        };
        Ok(Keys { cipher, salt })
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
