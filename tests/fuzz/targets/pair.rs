//! Two SDPs, parted by a NUL: what was negotiated, and what differs.
//!
//! Laws: an m-line of the offer, an entry; an SDP does not differ from itself; who differs in one direction does so in the other.

use sipbox_core::diff::diff;
use sipbox_core::pair::pair;
use sipbox_core::sdp::Sdp;

pub fn run(data: &[u8]) {
    let cut = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    let (offer, answer) = data.split_at(cut);
    let Ok(offer) = Sdp::parse(offer) else { return };
    assert!(diff(&offer, &offer).is_empty(), "it differs from itself");
    let Ok(answer) = Sdp::parse(answer.get(1..).unwrap_or_default()) else { return };
    let found = pair(&offer, &answer);
    assert_eq!(found.media.len(), offer.media_count());
    for flaw in &found.breaks {
        assert!(flaw.media.is_none_or(|index| index < offer.media_count().max(answer.media_count())));
    }
    assert_eq!(diff(&offer, &answer).is_empty(), diff(&answer, &offer).is_empty());
}
