//! One SDP in, the SDP for the other side out, and what must be opened for it. `relay` and `sdp-rewrite` both call [`rewrite`].
//!
//! RFC 3264 (offer and answer), 5763/8842 (DTLS roles), 8839 (ICE), 5761 (rtcp-mux), 8858, 3605, 4568, 8843 (BUNDLE is not taken).
//! In: an SDP, who sent it, the ng flags, and the [`Memory`] of what was said before in this dialog. Out: the new text, and
//! for each m-line the plans of the legs that changed. Each leg is negotiated by itself: what one side can't, is ours to bridge.
//! Not here: ports and secrets (they come from a [`Supply`]), calls and tags (`relay`), packets (`media`).

mod compose;
mod memory;
mod plan;
#[cfg(test)]
mod tests;

pub use memory::{Memory, Said, SecurityTold, Told};

use crate::media::plan::{LegPlan, Side};
use crate::ng::Flags;
use crate::sdp::{Family, Fingerprint, ParseError, Sdp};
use memory::MediaMemory;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// RFC 3264's two kinds of description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Offer,
    Answer,
}

/// What a leg's ports should be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// `None`: the family of the interface that is used by default.
    pub family: Option<Family>,
    /// The NAME of an `--interface NAME/ADDRESS` (ng `direction`); `None`: the first one.
    pub interface: Option<String>,
}

/// The relay's own ports of one leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// What the peer is told.
    pub advertised: IpAddr,
    /// As bound: ICE's host candidates, in the agent's eyes.
    pub rtp: SocketAddr,
    pub rtcp: SocketAddr,
}

/// Where ports and secrets come from. Each is asked for once a leg, and remembered.
pub trait Supply {
    /// `Err` says why there are none.
    fn ports(&mut self, media: usize, side: Side, want: &Want) -> Result<Address, String>;
    /// Ufrag and password of a leg (RFC 8839 §5.4).
    fn ice(&mut self) -> (String, String);
    /// The foundation of all host candidates of one call's leg (RFC 8445 §5.1.1.3).
    fn foundation(&mut self) -> String;
    /// Of the one certificate that all legs show.
    fn fingerprint(&self) -> Fingerprint;
    /// Key and salt for SDES: 30 bytes.
    fn sdes_key(&mut self) -> Vec<u8>;
}

/// Why an SDP is not rewritten; the proxy answers 488.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a session description.
    Sdp(ParseError),
    /// An answer has more m-lines than its offer (RFC 3264 §6).
    MoreMedia { offered: usize },
    /// DTLS-SRTP without a fingerprint to check the peer by (RFC 5763 §5).
    NoFingerprint { media: usize },
    /// A DTLS leg that does not multiplex RTP and RTCP: the relay has one component a leg.
    NoMux { media: usize },
    /// A secure profile, and nothing that both can agree keys with.
    NoKeys { media: usize },
    /// The relay has no ports.
    Ports(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Sdp(error) => write!(f, "not an SDP: {error}"),
            Refusal::MoreMedia { offered } => {
                write!(f, "the answer has more than the {offered} m-lines of its offer")
            }
            Refusal::NoFingerprint { media } => write!(f, "m-line {}: DTLS without a fingerprint", media + 1),
            Refusal::NoMux { media } => write!(f, "m-line {}: DTLS without rtcp-mux", media + 1),
            Refusal::NoKeys { media } => {
                write!(
                    f,
                    "m-line {}: a secure profile, but neither DTLS nor SDES to agree on keys",
                    media + 1
                )
            }
            Refusal::Ports(why) => write!(f, "no ports: {why}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// One SDP on its way through.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub sdp: &'a [u8],
    pub kind: Kind,
    /// Who sent it: [`Side::Offerer`] made the first offer of the dialog, whoever makes a later one.
    pub sender: Side,
    pub flags: &'a Flags,
}

/// What became of one m-line.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Refused by somebody, or nothing that a relay could carry: whatever is open for it is to be closed.
    Rejected,
    /// These legs are to be as planned, others stay as they are.
    Legs(Vec<(Side, LegPlan)>),
}

/// The result.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    pub sdp: Vec<u8>,
    /// One for each m-line.
    pub media: Vec<Outcome>,
}

pub(crate) const fn other(side: Side) -> Side {
    match side {
        Side::Offerer => Side::Answerer,
        Side::Answerer => Side::Offerer,
    }
}

/// Rewrites one SDP. A refusal leaves the memory as it was.
pub fn rewrite(
    input: &Input<'_>,
    memory: &mut Memory,
    supply: &mut dyn Supply,
) -> Result<Rewritten, Refusal> {
    let sdp = Sdp::parse(input.sdp).map_err(Refusal::Sdp)?;
    let mut next = memory.clone();
    let known = next.media.len();
    if input.kind == Kind::Answer && known > 0 && sdp.media_count() > known {
        return Err(Refusal::MoreMedia { offered: known });
    }
    next.media.resize_with(known.max(sdp.media_count()), MediaMemory::default);

    let mut media = Vec::with_capacity(next.media.len());
    for (index, section) in sdp.medias().enumerate() {
        let Some(slot) = next.media.get_mut(index) else { break };
        slot.hear(&sdp, &section, input);
        slot.decide(index, input, supply)?;
        media.push(slot.outcome(input));
    }
    // An answer that lacks an m-line refuses it; the offerer still gets one for each of his (RFC 3264 §6).
    if input.kind == Kind::Answer {
        for slot in next.media.iter_mut().skip(sdp.media_count()) {
            slot.miss(input.sender);
            media.push(Outcome::Rejected);
        }
    }
    let text = compose::compose(&sdp, input, &next, supply);
    *memory = next;
    Ok(Rewritten { sdp: text, media })
}
