//! `transport-protocol`: the profile that a receiver is told.
//!
//! In: flags, what was said. Out: a [`Profile`]. Not here: how its keys are agreed (`dtls`, `keys`).

use super::memory::SideMemory;
use crate::ng::Flags;
use crate::sdp::Profile;

/// Of an offer: what is asked for; else what its receiver speaks or was told before; else the sender's own.
pub(super) fn offered(flags: &Flags, heard: Profile, receiver: &SideMemory) -> Profile {
    let before = receiver.said.as_ref().filter(|said| !said.rejected).and_then(|said| said.profile);
    let told = || receiver.told.as_ref().and_then(|told| told.profile);
    flags.transport_protocol.or(before).or_else(told).unwrap_or(heard)
}

/// Of an answer: what is asked for; else what was offered (RFC 3264 §6).
pub(super) fn answered(flags: &Flags, offered: Option<Profile>, said: Option<Profile>) -> Option<Profile> {
    let accepted = said.filter(|_| flags.accept_transport);
    flags.transport_protocol.or(accepted).or(offered).or(said)
}
