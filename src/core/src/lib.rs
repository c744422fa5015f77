//! sipbox's protocol machines: pure functions and state machines over bytes and time.
//!
//! Nothing here opens a socket or a file, reads a clock, draws a random number, spawns, sleeps,
//! locks or prints (ARCHITECTURE.md, invariant 1). `sipbox-io` feeds the machines and carries out
//! what they ask for.
//!
//! Arrows go down only:
//!
//! ```text
//! registrar proxy gateway presence relay trace
//! uas
//! machine
//! rewrite
//! client dialog auth store ng mos resolve check pair diff anonymise
//! transaction sdp media inputs
//! sip framing
//! time rng limits cidr flow timer rate
//! ```

pub mod anonymise;
pub mod auth;
pub mod check;
pub mod cidr;
pub mod client;
pub mod diff;
pub mod flow;
pub mod framing;
pub mod gateway;
pub mod inputs;
pub mod limits;
pub mod machine;
pub mod media;
pub mod mos;
pub mod ng;
pub mod pair;
pub mod presence;
pub mod proxy;
pub mod rate;
pub mod registrar;
#[cfg(feature = "webrtc")]
pub mod relay;
pub mod resolve;
pub mod rewrite;
pub mod rng;
pub mod sdp;
pub mod sip;
pub mod store;
pub mod time;
pub mod timer;
pub mod trace;
pub mod transaction;
pub mod uas;
