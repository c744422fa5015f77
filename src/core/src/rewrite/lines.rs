//! m-lines that are no RTP: which pass, which are carried, which are refused; and those that are taken out.
//!
//! In: protocols and kinds of media. Out: yes or no. A data channel's ICE and DTLS would have to end here, and nothing
//! carries SCTP on: it is refused. Not here: RTP (`profile`).

use crate::sdp::Section;

/// Forwarded from port to port without a look inside: T.38 (ITU-T T.38 annex D).
pub(super) fn is_opaque(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("udptl")
}

/// No media of ours: MSRP (RFC 4975), BFCP (RFC 8856) and what else goes from peer to peer; the line passes as it is.
pub(super) fn passes(protocol: &str) -> bool {
    let has = |part: &str| protocol.to_ascii_uppercase().contains(part);
    !has("SCTP") && !has("RTP/")
}

/// Whether `sdp-media-remove` names this m-line's kind.
pub(super) fn is_removed(section: &Section<'_, '_>, kinds: &[String]) -> bool {
    let Some(m) = section.media() else { return false };
    let known = ["audio", "video", "image", "text", "message", "application"].contains(&m.media);
    kinds.iter().any(|kind| kind == m.media || (kind == "other" && !known))
}
