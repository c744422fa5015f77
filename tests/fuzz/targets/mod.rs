//! What is fuzzed: a function of bytes for each target, which panics where a law is broken.
//!
//! libFuzzer calls them from `fuzz_targets/` (scripts/fuzz), and the ordinary tests call the same functions with every seed in
//! `tests/data/fuzz/TARGET` (`replay.rs`), so that a find that became a seed stays found. A new target is a file here, a line
//! in [`TARGETS`], a file in `fuzz_targets/` with its `[[bin]]`, and a folder of seeds.

pub mod check;
pub mod digest;
pub mod framing;
pub mod inputs;
pub mod message;
pub mod pair;
pub mod proxy;
pub mod rewrite;
pub mod sdp;
pub mod transactions;
pub mod uri;

/// A target: its name, which is its folder of seeds too, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("check", check::run),
    ("digest", digest::run),
    ("framing", framing::run),
    ("inputs", inputs::run),
    ("message", message::run),
    ("pair", pair::run),
    ("proxy", proxy::run),
    ("rewrite", rewrite::run),
    ("sdp", sdp::run),
    ("transactions", transactions::run),
    ("uri", uri::run),
];
