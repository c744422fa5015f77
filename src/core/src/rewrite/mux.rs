//! `rtcp-mux`, and the attributes of RTCP's port (RFC 5761, RFC 3605).
//!
//! In: flags, what was said. Out: whether RTP and RTCP share a port, and the lines that say so. Not here: ICE's candidates for
//! RTCP (`ice`).

use super::compose::Out;
use super::memory::{SideMemory, Told};
use super::said::Said;
use super::{Address, address};
use crate::ng::Flags;

/// Whether an offer's receiver is offered mux.
pub(super) fn offered(flags: &Flags, said: &Said) -> bool {
    let mux = &flags.rtcp_mux;
    mux.require || mux.offer || (said.mux && !mux.demux)
}

/// Whether an offer's mux is accepted. Where one side multiplexes and the other does not, we bridge only if asked to; but
/// who speaks ICE or DTLS is a browser, and has no other way (RFC 8834 §4.5).
pub(super) fn answered(flags: &Flags, offerer: &SideMemory, answer: &Said) -> bool {
    let mux = &flags.rtcp_mux;
    if mux.reject || offerer.refuse_mux {
        return false;
    }
    let asked = mux.accept || mux.require || mux.offer || offerer.accept_mux;
    match &offerer.said {
        Some(offer) => {
            let browser = offer.ice.is_some() || !offer.fingerprints.is_empty();
            offer.mux && (asked || browser || answer.mux)
        }
        None => asked,
    }
}

pub(super) fn write(out: &mut Out, told: &Told, own: &Address, flags: &Flags) {
    if !flags.no_rtcp_attribute {
        let port = if told.own_rtcp { own.rtcp.port() } else { own.rtp.port() };
        let host = address::told(own, flags);
        if flags.full_rtcp_attribute {
            out.words(&["a=rtcp:"]);
            out.number(port);
            out.words(&[" "]);
            out.address(host);
            out.parts(&[]);
        } else {
            out.words(&["a=rtcp:"]);
            out.number(port);
            out.parts(&[]);
        }
    }
    if told.mux {
        out.parts(&["a=rtcp-mux"]);
    }
}
