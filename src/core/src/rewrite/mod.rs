//! One SDP in, the SDP for the other side out, and what must be opened for it. `relay` and `sdp-rewrite` both call [`rewrite`].
//!
//! RFC 3264 (offer and answer), 5763/8842 (DTLS roles), 8839 (ICE), 5761 (rtcp-mux), 8858, 3605, 4568, 8843 (BUNDLE is not taken).
//! One file a family of flags: `address codecs dtls ice keys mux origin profile lines manipulate browser`; `said` reads what
//! a side says, `offer` and `answer` decide what the other is told, `memory` keeps both, `compose` writes, `plan` opens.
//! In: an SDP, who sent it, the ng flags, and the [`Memory`] of what was said before in this dialog. Out: the new text, and
//! for each m-line the plans of the legs that changed. Each leg is negotiated by itself: what one side can't, is ours to bridge.
//! Not here: ports and secrets (they come from a [`Supply`]), calls and tags (`relay`), packets (`media`).

mod address;
mod answer;
mod browser;
mod codecs;
mod compose;
mod dtls;
mod ice;
mod keys;
mod lines;
mod manipulate;
mod memory;
mod mux;
mod offer;
mod origin;
mod plan;
mod profile;
mod said;
#[cfg(test)]
mod tests;

pub use browser::Cut;
pub use keys::SdesTold;
pub use memory::{Memory, Security, SecurityTold, SideMemory, Told};
pub use said::Said;

use crate::limits;
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
    /// An interface that has the same name as the one with this address: for a candidate of the other family.
    pub beside: Option<IpAddr>,
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
    /// Ports of the other address family beside those, for ICE; `None` where there are none.
    fn more_ports(&mut self, media: usize, side: Side, want: &Want) -> Option<Address> {
        let _ = (media, side, want);
        None
    }
    /// Ufrag and password of a leg (RFC 8839 §5.4).
    fn ice(&mut self) -> (String, String);
    /// The foundation of all host candidates of one call's leg (RFC 8445 §5.1.1.3).
    fn foundation(&mut self) -> String;
    /// Of the one certificate that all legs show.
    fn fingerprint(&self) -> Fingerprint;
    /// The same by another hash; `None`: it cannot be had.
    fn fingerprint_by(&self, hash: &str) -> Option<Fingerprint> {
        Some(self.fingerprint()).filter(|fingerprint| fingerprint.hash == hash)
    }
    /// 30 secret bytes: key and salt for SDES.
    fn sdes_key(&mut self) -> Vec<u8>;
    /// As many secret bytes as a suite wants.
    fn secret(&mut self, length: usize) -> Vec<u8> {
        let mut secret = self.sdes_key();
        while secret.len() < length {
            secret.extend(self.sdes_key());
        }
        secret.truncate(length);
        secret
    }
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
    /// A secure profile, and nothing that both can agree keys with.
    NoKeys { media: usize },
    /// The relay has no ports.
    Ports(String),
    /// With what was added, it would be longer than a session description may be ([`limits::SDP_BYTES`],
    /// [`limits::SDP_LINES`]).
    TooLong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Sdp(error) => write!(f, "not an SDP: {error}"),
            Refusal::MoreMedia { offered } => {
                write!(f, "the answer has more than the {offered} m-lines of its offer")
            }
            Refusal::NoFingerprint { media } => write!(f, "m-line {}: DTLS without a fingerprint", media + 1),
            Refusal::NoKeys { media } => {
                write!(
                    f,
                    "m-line {}: a secure profile, but neither DTLS nor SDES to agree on keys",
                    media + 1
                )
            }
            Refusal::Ports(why) => write!(f, "no ports: {why}"),
            Refusal::TooLong => write!(
                f,
                "rewritten, it would have more than {} bytes or {} lines",
                limits::SDP_BYTES,
                limits::SDP_LINES
            ),
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
    /// Whether [`Rewritten::cut`] is wanted.
    pub cuts: bool,
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
    /// One for each m-line of the dialog.
    pub media: Vec<Outcome>,
    /// What was taken out for the receiver's sake; empty unless [`Input::cuts`].
    pub cut: Vec<Cut>,
}

/// Rewrites one SDP. A refusal leaves the memory as it was.
pub fn rewrite(
    input: &Input<'_>,
    memory: &mut Memory,
    supply: &mut dyn Supply,
) -> Result<Rewritten, Refusal> {
    let sdp = Sdp::parse(input.sdp).map_err(Refusal::Sdp)?;
    let mut next = memory.clone();
    // The sender's m-lines are those that he was told of; what was taken out for him keeps its place here.
    let mut places = next.places(input.sender);
    let known = places.len();
    // Without its offer, as a tool may be given it, an answer is taken as it is.
    if input.kind == Kind::Answer && next.offered && sdp.media_count() > known {
        return Err(Refusal::MoreMedia { offered: known });
    }
    next.offered |= input.kind == Kind::Offer;
    while places.len() < sdp.media_count() {
        places.push(next.media.len());
        next.media.push(MediaMemory::default());
    }
    places.truncate(sdp.media_count());
    next.settle_lite(input);

    let mut media = vec![Outcome::Legs(Vec::new()); next.media.len()];
    for (section, place) in sdp.medias().zip(&places) {
        let (Some(slot), Some(outcome)) = (next.media.get_mut(*place), media.get_mut(*place)) else { break };
        slot.hear(&sdp, &section, input);
        slot.decide(*place, &section, input, supply)?;
        *outcome = slot.outcome(input);
    }
    // An answer that lacks an m-line refuses it; the offerer still gets one for each of his (RFC 3264 §6).
    if input.kind == Kind::Answer {
        for (at, slot) in next.media.iter_mut().enumerate().filter(|(at, _)| !places.contains(at)) {
            slot.miss(input.sender);
            if let Some(outcome) = media.get_mut(at) {
                *outcome = Outcome::Rejected;
            }
        }
    }
    if input.kind == Kind::Offer {
        browser::settle_mids(&mut next, input.sender.other());
    }
    let origin = next.origin.told(&sdp, input);
    let (text, cut) = compose::compose(&sdp, &places, input, &next, &origin, supply);
    if is_too_long(&text) {
        return Err(Refusal::TooLong);
    }
    *memory = next;
    Ok(Rewritten { sdp: text, media, cut })
}

/// Whether nobody, ourselves included, need read it.
fn is_too_long(sdp: &[u8]) -> bool {
    // The shortest line is a type, its `=` and CRLF: few texts need their lines counted.
    sdp.len() > limits::SDP_BYTES
        || sdp.len() > 4 * limits::SDP_LINES && memchr::memchr_iter(b'\n', sdp).count() > limits::SDP_LINES
}
