//! Media: what a relay does with packets between two peers.
//!
//! Knows nothing of SDP or SIP: what was negotiated comes in as a [`plan`].

pub mod bridge;
pub mod demux;
pub mod dtls;
pub mod ice;
pub mod leg;
pub mod plan;
pub mod rtcp;
pub mod rtp;
pub mod srtp;
pub mod stats;
