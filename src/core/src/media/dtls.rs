//! DTLS-SRTP of one leg, around the crate `dimpl`.
//!
//! RFC 5763, RFC 5764 §4.2 (keys), RFC 6347 and RFC 9147 (the crate), RFC 8122 §5 (fingerprints).
//! In: datagrams of sources that ICE has validated, time. Out: datagrams, the peer's certificate, SRTP keys.
//! Keys are only given out by [`Dtls::keys_for`], against the fingerprints that the peer's SDP showed: the handshake
//! may end before that SDP comes.
//! The second listed exception of invariant 1, as `ice` tells. Not here: making the certificate (`sipbox-io`).

#![allow(clippy::disallowed_types, reason = "the crate's interface; nothing reads a clock here")]

use super::ice::Anchor;
use super::plan::{DtlsRole, Fingerprint};
use super::srtp::{self, Suite};
use crate::limits::{
    DTLS_HANDSHAKE_BYTES, DTLS_HANDSHAKE_DATAGRAMS, DTLS_LATER_DATAGRAMS, DTLS_OUTPUT_BYTES, DTLS_RECORDS,
};
use crate::time::Instant;
use dimpl::{DtlsCertificate, Output, SrtpProfile};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Browsers may not listen yet when our first flight leaves, so it comes again soon.
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(100);
/// Doubling from 100 ms, the last leaves after 25 s.
const RETRANSMISSIONS: usize = 8;

/// Our certificate and key, shared by all legs.
#[derive(Clone)]
pub struct Identity {
    config: Arc<dimpl::Config>,
    certificate: DtlsCertificate,
}

impl Identity {
    /// From an X.509 certificate and its ECDSA key (PKCS#8), both DER.
    pub fn new(certificate: Vec<u8>, private_key: Vec<u8>) -> Result<Identity, String> {
        let config = dimpl::Config::builder()
            .with_crypto_provider(dimpl::crypto::rust_crypto::default_provider())
            .flight_start_rto(FIRST_RETRANSMISSION)
            .flight_retries(RETRANSMISSIONS)
            .build()
            .map_err(|error| format!("{error:?}"))?;
        Ok(Identity { config: Arc::new(config), certificate: DtlsCertificate { certificate, private_key } })
    }

    /// What `a=fingerprint` shows by this hash; `None`: one that is not known here.
    pub fn digest(&self, hash: &str) -> Option<Vec<u8>> {
        digest(hash, &self.certificate.certificate)
    }

    /// What `a=fingerprint:sha-256` shows.
    pub fn sha256(&self) -> Vec<u8> {
        digest("sha-256", &self.certificate.certificate).unwrap_or_default()
    }
}

fn digest(hash: &str, certificate: &[u8]) -> Option<Vec<u8>> {
    use sha2::Digest;
    Some(match hash {
        "sha-256" => sha2::Sha256::digest(certificate).to_vec(),
        "sha-384" => sha2::Sha384::digest(certificate).to_vec(),
        "sha-512" => sha2::Sha512::digest(certificate).to_vec(),
        "sha-1" => sha1::Sha1::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// Whether a certificate is one of those that the SDP named. A hash that we don't know matches nothing.
fn matches(certificate: &[u8], fingerprints: &[Fingerprint]) -> bool {
    fingerprints.iter().any(|fingerprint| {
        digest(&fingerprint.hash, certificate)
            .is_some_and(|digest| bool::from(digest.ct_eq(&fingerprint.digest)))
    })
}

/// Why there are no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKeys {
    /// The handshake goes on, or the peer's SDP is still to come.
    NotYet,
    /// The certificate is none of those that the SDP names.
    Fingerprint,
    /// The profile is none of ours.
    Profile,
}

/// The SRTP contexts of a leg.
pub struct SrtpPair {
    pub protect: srtp::Context,
    pub unprotect: srtp::Context,
}

/// One association.
pub struct Dtls {
    /// None once it failed: the crate says that an object is not to be used after an error.
    engine: Option<dimpl::Dtls>,
    role: DtlsRole,
    anchor: Anchor,
    certificate: Option<Vec<u8>>,
    keys: Option<(dimpl::KeyingMaterial, SrtpProfile)>,
    outgoing: VecDeque<Vec<u8>>,
    deadline: Option<Instant>,
    buffer: Vec<u8>,
    datagrams: usize,
    bytes: usize,
    later: usize,
    failure: Option<String>,
    closed: bool,
}

impl Dtls {
    pub fn new(identity: &Identity, role: DtlsRole, now: Instant, anchor: Anchor) -> Dtls {
        let at = anchor.to_std(now);
        let mut engine = dimpl::Dtls::new_auto(identity.config.clone(), identity.certificate.clone(), at);
        if role == DtlsRole::Active {
            engine.set_active(true);
        }
        let mut dtls = Dtls {
            engine: Some(engine),
            role,
            anchor,
            certificate: None,
            keys: None,
            outgoing: VecDeque::new(),
            deadline: None,
            buffer: vec![0; 2048],
            datagrams: 0,
            bytes: 0,
            later: 0,
            failure: None,
            closed: false,
        };
        dtls.handle_timeout(now);
        dtls
    }

    pub const fn role(&self) -> DtlsRole {
        self.role
    }

    /// Whether the handshake is done, whoever the peer is.
    pub const fn is_connected(&self) -> bool {
        self.keys.is_some()
    }

    /// Whether anything of the peer arrived yet.
    pub const fn has_begun(&self) -> bool {
        self.datagrams > 0
    }

    /// Why it can go no further.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// It was told, and need not be told again.
    pub fn forget_failure(&mut self) {
        self.failure = None;
    }

    /// The peer said goodbye.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// A datagram from a source that ICE has validated. False where it was refused unread.
    pub fn handle_packet(&mut self, now: Instant, datagram: &[u8]) -> bool {
        if self.is_connected() {
            if self.later >= DTLS_LATER_DATAGRAMS {
                return false;
            }
            self.later += 1;
        } else {
            if self.datagrams >= DTLS_HANDSHAKE_DATAGRAMS
                || self.bytes + datagram.len() > DTLS_HANDSHAKE_BYTES
                || !records_are_few(datagram)
            {
                return false;
            }
            self.datagrams += 1;
            self.bytes += datagram.len();
        }
        let at = self.anchor.to_std(now);
        let Some(engine) = &mut self.engine else { return false };
        let result = engine.handle_timeout(at).and_then(|()| engine.handle_packet(datagram));
        match result {
            // Before the ServerHello, something else: the association is as it was.
            Err(dimpl::Error::UnexpectedMessage(
                dimpl::UnexpectedMessageError::UnrecognizedAutoServerResponse,
            )) => return false,
            Err(error) => self.fail(&error),
            Ok(()) => {}
        }
        self.drain();
        true
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let at = self.anchor.to_std(now);
        if let Some(engine) = &mut self.engine
            && let Err(error) = engine.handle_timeout(at)
        {
            self.fail(&error);
        }
        self.drain();
    }

    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// Whether the certificate that the peer showed is one of these.
    pub fn is_peer(&self, fingerprints: &[Fingerprint]) -> bool {
        self.certificate.as_deref().is_some_and(|certificate| matches(certificate, fingerprints))
    }

    /// SRTP contexts, if the handshake is done and its peer is who the SDP said.
    pub fn keys_for(&self, fingerprints: &[Fingerprint]) -> Result<SrtpPair, NoKeys> {
        let (Some((material, profile)), Some(_), false) =
            (&self.keys, &self.certificate, fingerprints.is_empty())
        else {
            return Err(NoKeys::NotYet);
        };
        if !self.is_peer(fingerprints) {
            return Err(NoKeys::Fingerprint);
        }
        let suite = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => Suite::AesCm128HmacSha1_80,
            SrtpProfile::AEAD_AES_128_GCM => Suite::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => Suite::AeadAes256Gcm,
            _ => return Err(NoKeys::Profile),
        };
        // RFC 5764 §4.2: client key, server key, client salt, server salt.
        let (key, salt) = (suite.key_length(), suite.salt_length());
        if material.len() < 2 * (key + salt) {
            return Err(NoKeys::Profile);
        }
        let (keys, salts) = material.split_at(2 * key);
        let client = srtp::Context::new(suite, &keys[..key], &salts[..salt]).map_err(|_| NoKeys::Profile)?;
        let server =
            srtp::Context::new(suite, &keys[key..], &salts[salt..2 * salt]).map_err(|_| NoKeys::Profile)?;
        Ok(match self.role {
            DtlsRole::Active => SrtpPair { protect: client, unprotect: server },
            DtlsRole::Passive => SrtpPair { protect: server, unprotect: client },
        })
    }

    fn fail(&mut self, error: &dimpl::Error) {
        // An object that gave an error may panic when it is asked again.
        self.engine = None;
        self.deadline = None;
        if !self.closed {
            self.failure = Some(format!("{error:?}"));
        }
    }

    fn drain(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        loop {
            let needed = match engine.poll_output(&mut self.buffer) {
                Output::Packet(packet) => {
                    self.outgoing.push_back(packet.to_vec());
                    continue;
                }
                Output::BufferTooSmall { needed } => needed,
                Output::Timeout(at) => {
                    self.deadline = Some(self.anchor.to_ours(at));
                    return;
                }
                Output::PeerCert(certificate) => {
                    self.certificate = Some(certificate.to_vec());
                    continue;
                }
                Output::KeyingMaterial(material, profile) => {
                    self.keys = Some((material, profile));
                    continue;
                }
                Output::CloseNotify => {
                    self.closed = true;
                    continue;
                }
                // Nobody agreed to data channels; what else a later version tells is not needed.
                _ => continue,
            };
            if needed > DTLS_OUTPUT_BYTES {
                self.failure =
                    Some(format!("the peer's certificate or data is larger than {DTLS_OUTPUT_BYTES}"));
                self.engine = None;
                self.deadline = None;
                return;
            }
            self.buffer.resize(needed, 0);
        }
    }
}

/// Whether a datagram holds few plaintext records: each is a fragment that the crate has to keep.
fn records_are_few(mut datagram: &[u8]) -> bool {
    for _ in 0..DTLS_RECORDS {
        // Only content types 20 to 23 have this header; RFC 9147's encrypted records fill the rest.
        if !matches!(datagram.first(), Some(20..=23)) {
            return true;
        }
        let Some(length) = datagram.get(11..13) else { return true };
        let length = 13 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let Some(rest) = datagram.get(length..) else { return true };
        datagram = rest;
    }
    datagram.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_records_are_refused() {
        let record = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        assert!(records_are_few(&record.repeat(DTLS_RECORDS)));
        assert!(!records_are_few(&record.repeat(DTLS_RECORDS + 1)));
        assert!(records_are_few(&[0x2f; 40]));
        assert!(records_are_few(&[22, 0xfe]));
    }

    #[test]
    fn any_of_the_known_hashes() {
        let of = |hash: &str| Fingerprint {
            hash: hash.into(),
            digest: digest(hash, b"certificate").expect("known"),
        };
        for hash in ["sha-1", "sha-256", "sha-384", "sha-512"] {
            assert!(matches(b"certificate", &[of(hash)]));
            assert!(!matches(b"another", &[of(hash)]));
        }
        let unknown = Fingerprint { hash: "md5".into(), digest: vec![0; 16] };
        assert!(!matches(b"certificate", std::slice::from_ref(&unknown)));
        assert!(matches(b"certificate", &[unknown, of("sha-256")]));
        assert!(!matches(b"certificate", &[]));
    }
}
