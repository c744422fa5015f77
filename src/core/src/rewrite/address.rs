//! Addresses: which ports a leg gets, and which address stands in c= (`address-family`, `media-address`, `direction`,
//! `replace=zero-address`).
//!
//! In: flags, what was said and is to be told. Out: ports from the [`Supply`]; addresses for lines. Not here: candidates
//! (`ice`), where the peer is (`said`).

use super::memory::{MediaMemory, Told};
use super::said::Said;
use super::{Address, Input, Refusal, Supply, Want};
use crate::ng::Flags;
use crate::sdp::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a peer is told of an address of ours.
pub(super) fn told(address: &Address, flags: &Flags) -> IpAddr {
    flags.media_address.unwrap_or(address.advertised)
}

/// Zeros of the family of this address.
pub(super) const fn zeros(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Whether the sender's zeros stay in the receiver's SDP. With ICE they say nothing (RFC 8839 §4.2.1).
pub(super) fn keeps_zeros(said: &Said, ice: bool, flags: &Flags) -> bool {
    said.zeros && said.ice.is_none() && !ice && !flags.replace_zero_address && flags.media_address.is_none()
}

impl MediaMemory {
    /// Ports and credentials toward the receiver, asked for once and kept.
    pub(super) fn open(
        &mut self,
        index: usize,
        told: &Told,
        said: &Said,
        input: &Input<'_>,
        supply: &mut dyn Supply,
    ) -> Result<(), Refusal> {
        if told.rejected || told.removed || told.passed {
            return Ok(());
        }
        let receiver = input.sender.other();
        let side = self.side_mut(receiver);
        let interface = input.flags.direction.as_ref().map(|(_, to)| to.clone());
        let address = match side.address {
            Some(address) => address,
            None => {
                let want =
                    Want { family: input.flags.address_family, interface: interface.clone(), beside: None };
                // Unless told otherwise, in the family that the receiver speaks, or the sender; where there is none of
                // that, in what there is.
                let spoken = side.said.as_ref().and_then(|said| said.family).or(said.family);
                let implied = Want { family: want.family.or(spoken), ..want.clone() };
                let ports = match supply.ports(index, receiver, &implied) {
                    Err(_) if implied != want => supply.ports(index, receiver, &want),
                    ports => ports,
                };
                *side.address.insert(ports.map_err(Refusal::Ports)?)
            }
        };
        if told.ice && side.more.is_none() {
            let family = match Family::of(&address.advertised) {
                Family::V4 => Family::V6,
                Family::V6 => Family::V4,
            };
            let want = Want { family: Some(family), interface, beside: Some(address.rtp.ip()) };
            side.more = supply.more_ports(index, receiver, &want);
        }
        if told.ice && side.ice.is_none() {
            let (ufrag, pwd) = supply.ice();
            side.ice = Some((ufrag, pwd, supply.foundation()));
        }
        if told.security.dtls.is_some() && !told.ice && side.tls_id.is_none() {
            let bytes = supply.secret(16);
            side.tls_id = Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        Ok(())
    }
}
