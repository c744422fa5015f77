//! Keys that sign what we mint: flow tokens, route tokens, nonces, branches.
//!
//! HMAC-SHA-256 (RFC 2104, RFC 6234). Goes in: the lines of `--secret-file`; the first signs, all verify. Comes out: MACs,
//! each bound to its purpose, so that a nonce never passes for a token. Not here: reading the file (`sipbox-io`, `secrets`).

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Says which key signed; one byte in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub u8);

/// Bytes of a whole MAC. Tokens carry the first 8 or more of them.
pub const MAC_BYTES: usize = 32;
/// A shorter one can be guessed online.
pub const MAC_BYTES_LEAST: usize = 8;

#[derive(Clone)]
struct Key {
    id: KeyId,
    mac: Hmac<Sha256>,
}

/// One or more keys.
#[derive(Clone)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// None where there is no key. The id of a key is a hash of it, so it is the same wherever the key is.
    pub fn new<T: AsRef<[u8]>>(secrets: &[T]) -> Option<Keys> {
        let keys: Vec<Key> = secrets
            .iter()
            .filter_map(|secret| {
                let id =
                    Sha256::new().chain_update(b"sipbox key id\0").chain_update(secret.as_ref()).finalize();
                let mac = Hmac::<Sha256>::new_from_slice(secret.as_ref()).ok()?;
                Some(Key { id: KeyId(id.first().copied()?), mac })
            })
            .collect();
        (!keys.is_empty()).then_some(Keys(keys))
    }

    fn compute(key: &Key, purpose: &str, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        let mut mac = key.mac.clone();
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            mac.update(&(part.len() as u32).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Signs with the first key. `purpose` keeps kinds of tokens apart; the parts cannot run into each other.
    pub fn sign(&self, purpose: &str, parts: &[&[u8]]) -> (KeyId, [u8; MAC_BYTES]) {
        match self.0.first() {
            Some(key) => (key.id, Self::compute(key, purpose, parts)),
            // `new` makes no empty list; a MAC that verifies nowhere is the harmless answer all the same.
            None => (KeyId(0), [0; MAC_BYTES]),
        }
    }

    /// Id of the key that signs: it goes into what is signed, before it is.
    pub fn signing_id(&self) -> KeyId {
        self.0.first().map_or(KeyId(0), |key| key.id)
    }

    /// Whether `mac`, whole or cut to no less than [`MAC_BYTES_LEAST`], was made by one of the keys with this id.
    /// Takes the same time wherever it differs.
    pub fn verify(&self, id: KeyId, purpose: &str, parts: &[&[u8]], mac: &[u8]) -> bool {
        if mac.len() < MAC_BYTES_LEAST || mac.len() > MAC_BYTES {
            return false;
        }
        self.0
            .iter()
            .filter(|key| key.id == id)
            .any(|key| Self::compute(key, purpose, parts)[..mac.len()].ct_eq(mac).into())
    }

    /// The same for a token that has no room for a key id: every key is tried.
    pub fn verify_any(&self, purpose: &str, parts: &[&[u8]], mac: &[u8]) -> bool {
        self.0.iter().any(|key| self.verify(key.id, purpose, parts, mac))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signs_and_all_verify() {
        let old = Keys::new(&["an old key that is long"]).unwrap();
        let both = Keys::new(&["a new key that is long", "an old key that is long"]).unwrap();
        let (id, mac) = old.sign("flow", &[b"a", b"b"]);
        assert!(both.verify(id, "flow", &[b"a", b"b"], &mac[..8]));
        let (new_id, new_mac) = both.sign("flow", &[b"a", b"b"]);
        assert_ne!(id, new_id);
        assert!(!old.verify(new_id, "flow", &[b"a", b"b"], &new_mac));
        assert_eq!(both.signing_id(), new_id);
    }

    #[test]
    fn binds_purpose_parts_and_length() {
        let keys = Keys::new(&["an old key that is long"]).unwrap();
        let (id, mac) = keys.sign("flow", &[b"a", b"b"]);
        assert!(!keys.verify(id, "nonce", &[b"a", b"b"], &mac));
        assert!(!keys.verify(id, "flow", &[b"ab", b""], &mac));
        assert!(!keys.verify(id, "flow", &[b"a", b"b"], &mac[..7]));
        assert!(!keys.verify(id, "flow", &[b"a", b"b"], b""));
        assert!(!keys.verify(KeyId(id.0.wrapping_add(1)), "flow", &[b"a", b"b"], &mac));
        assert!(Keys::new::<&str>(&[]).is_none());
    }
}
