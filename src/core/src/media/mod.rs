//! Media: what a relay does with packets between two peers.
//!
//! Knows nothing of SDP or SIP: what was negotiated comes in as a [`plan`]. What stands on ICE and DTLS is there with the
//! feature `webrtc`, which is on unless a build says otherwise.

#[cfg(feature = "webrtc")]
pub mod bridge;
pub mod demux;
#[cfg(feature = "webrtc")]
pub mod dtls;
#[cfg(feature = "webrtc")]
pub mod ice;
#[cfg(feature = "webrtc")]
pub mod leg;
pub mod plan;
pub mod rtcp;
pub mod rtp;
pub mod srtp;
pub mod stats;
