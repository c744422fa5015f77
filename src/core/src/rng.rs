//! Random numbers from a seed that is handed in.
//!
//! ChaCha with 12 rounds: what is drawn ends in tags, branches, ICE passwords and nonces, so it has to be
//! unpredictable to a peer. The driver seeds it from the operating system, a test with a number that it prints.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// A seeded cryptographic generator.
pub struct Rng(ChaCha12Rng);

/// RFC 3986's unreserved characters less `-._~`: fit for a tag, a branch, an ufrag and a file name alike.
const ALPHANUMERIC: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl Rng {
    /// For servers: 32 bytes that the operating system drew.
    pub fn from_entropy(seed: [u8; 32]) -> Self {
        Rng(ChaCha12Rng::from_seed(seed))
    }

    /// For tests, and for `--seed`.
    pub fn from_seed(seed: u64) -> Self {
        Rng(ChaCha12Rng::seed_from_u64(seed))
    }

    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..bound`; `bound` must not be 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        // The bias of the multiplication is under 2^-32 times the bound: nothing that is drawn here minds it.
        ((u64::from(self.u32()) * u64::from(bound)) >> 32) as u32
    }

    /// `length` characters of A-Z, a-z, 0-9: 5.95 bits each.
    pub fn token(&mut self, length: usize) -> String {
        (0..length).map(|_| ALPHANUMERIC[self.below(62) as usize] as char).collect()
    }
}

/// Hashing of what a peer chose (branches, tags, Call-IDs) under a secret, so that nobody can aim at one bucket.
/// The standard library's own state would draw its secret from the operating system by itself.
#[derive(Clone)]
pub struct KeyedHash([u64; 2]);

impl KeyedHash {
    pub fn new(rng: &mut Rng) -> Self {
        KeyedHash([rng.u64(), rng.u64()])
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0[0]);
        hasher.write_u64(self.0[1]);
        hasher
    }
}
