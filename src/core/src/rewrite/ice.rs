//! `ICE`: who gets it, and the lines (RFC 8445, RFC 8839).
//!
//! In: flags, what was said. Out: yes or no; credentials and candidates as lines. Our candidates are all the ports that the leg
//! has: of each address family one, and for RTCP those of its own where it may not be multiplexed. Not here: the agent
//! (`media::ice`).

use super::compose::Out;
use super::memory::{SideMemory, Told};
use super::{Address, address};
use crate::ng::{Flags, IceFlag};

/// RFC 8445 §5.1.2.1 with type preference 126 and local preference 65535; less the component.
const HOST_PRIORITY: u32 = (126 << 24) + (65_535 << 8) + 256;

/// Whether an offer's receiver gets ICE: as asked; else as he speaks himself, or was told before; else as the sender.
pub(super) fn offered(flags: &Flags, sender_has: bool, receiver: &SideMemory) -> bool {
    match flags.ice {
        IceFlag::Force => true,
        IceFlag::Remove => false,
        IceFlag::Default => {
            let speaks = receiver.said.as_ref().filter(|said| !said.rejected).map(|said| said.ice.is_some());
            let told = || receiver.told.as_ref().filter(|told| !told.rejected).map(|told| told.ice);
            speaks.or_else(told).unwrap_or(sender_has)
        }
    }
}

/// Whether an answer has ICE: an answer has nothing that its offer had not.
pub(super) fn answered(flags: &Flags, offerer: &SideMemory) -> bool {
    match (flags.ice, &offerer.said) {
        (IceFlag::Remove, _) | (IceFlag::Default, None) => false,
        (IceFlag::Force | IceFlag::Default, Some(offer)) => offer.ice.is_some(),
        (IceFlag::Force, None) => true,
    }
}

pub(super) fn write(out: &mut Out, side: &SideMemory, told: &Told, own: &Address, flags: &Flags) {
    let Some((ufrag, pwd, foundation)) = side.ice.as_ref().filter(|_| told.ice) else { return };
    out.attribute("ice-ufrag", ufrag);
    out.attribute("ice-pwd", pwd);
    if told.trickle {
        out.attribute("ice-options", "trickle");
    }
    // Where an address is put in for ours, it stands for all of them.
    let more = side.more.as_ref().filter(|_| flags.media_address.is_none());
    let all = || std::iter::once(own).chain(more).zip(0u32..);
    let mut candidate = |component: u32, preference: u32, own: &Address, port: u16| {
        let priority = HOST_PRIORITY - (preference << 8) - component;
        let host = address::told(own, flags);
        out.line(format_args!("a=candidate:{foundation} {component} UDP {priority} {host} {port} typ host"));
    };
    for (own, preference) in all() {
        candidate(1, preference, own, own.rtp.port());
    }
    for (own, preference) in all().filter(|_| told.own_rtcp) {
        candidate(2, preference, own, own.rtcp.port());
    }
    if told.trickle {
        out.parts(&["a=end-of-candidates"]);
    }
}
