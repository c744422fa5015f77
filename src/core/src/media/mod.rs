//! Media: what a relay does with packets between two peers.
//!
//! Knows nothing of SDP or SIP: what was negotiated comes in as a [`plan`].

pub mod plan;
