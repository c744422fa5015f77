//! Random seeds from the operating system, for [`sipbox_core::rng::Rng`].

use sipbox_core::rng::Rng;
use std::io;

/// 32 bytes that nobody can guess.
pub fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(seed)
}

/// A generator seeded with them.
pub fn rng() -> io::Result<Rng> {
    Ok(Rng::from_entropy(seed()?))
}
