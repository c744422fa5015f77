//! What the receiver of an offer is told (RFC 3264 §5).
//!
//! In: what the sender says, the flags, what the receiver said before. Out: a [`Told`]. Each family of flags decides in its own
//! file; here they are put together. Not here: ports (`address`), the text (`compose`).

use super::memory::{MediaMemory, SecurityTold, Told};
use super::said::Said;
use super::{Input, Refusal, Supply, address, browser, codecs, ice, lines, mux, profile};
use crate::ng::DtlsFlag;
use crate::sdp::{Profile, Section, Setup};

impl MediaMemory {
    pub(super) fn told_offer(
        &mut self,
        index: usize,
        section: &Section<'_, '_>,
        said: &Said,
        input: &Input<'_>,
        supply: &mut dyn Supply,
    ) -> Result<Told, Refusal> {
        let flags = input.flags;
        let receiver = input.sender.other();
        let generated = || flags.generate_mid.then(|| (index + 1).to_string());
        let mid = said.mid.clone().or_else(generated);
        if lines::is_removed(section, &flags.media_remove) {
            return Ok(Told { removed: true, ..Told::rejected(said, mid) });
        }
        // A browser has no use for it, and reads no m-line of a kind that it does not know.
        if said.passes && !browser::are_for_browser(flags) {
            return Ok(Told { rejected: false, passed: true, ..Told::rejected(said, mid) });
        }
        if said.rejected {
            return Ok(Told::rejected(said, mid));
        }
        let Some(heard) = said.profile else {
            return Ok(Told { rejected: false, opaque: true, ..Told::rejected(said, mid) });
        };
        let formats = codecs::offered(said, flags);
        if formats.is_empty() {
            return Ok(Told::rejected(said, mid));
        }
        if heard.is_secure() && said.fingerprints.is_empty() && said.keys.is_empty() {
            return Err(Refusal::NoKeys { media: index });
        }
        let profile = profile::offered(flags, heard, self.side(receiver));
        let ice = ice::offered(flags, said.ice.is_some(), self.side(receiver));
        let security = self.offered_security(index, said, profile, input, supply)?;
        let side = self.side_mut(receiver);
        if side.controlling.is_none() && ice {
            side.controlling = Some(true); // we are the offerer (RFC 8445 §6.1.1)
        }
        Ok(Told {
            protocol: profile.as_str().to_owned(),
            profile: Some(profile),
            formats,
            mid,
            mux: mux::offered(flags, said),
            own_rtcp: !flags.rtcp_mux.require,
            zeros: address::keeps_zeros(said, ice, flags),
            ice,
            trickle: flags.trickle || side.said.as_ref().is_some_and(|said| said.trickle),
            security,
            ..Told::default()
        })
    }

    /// DTLS, keys in the SDP, or both. Both only in RTP/SAVP, where a phone is told: browsers refuse an offer that has keys
    /// and a fingerprint (seed, Debug issue 3), and what they are offered is SAVPF.
    fn offered_security(
        &mut self,
        index: usize,
        said: &Said,
        profile: Profile,
        input: &Input<'_>,
        supply: &mut dyn Supply,
    ) -> Result<SecurityTold, Refusal> {
        let flags = input.flags;
        let receiver = input.sender.other();
        let sdes_on = !flags.sdes.off;
        if !profile.is_secure() {
            // RFC 8643: keys beside a plain profile, from who offers them so or where it is asked for.
            let heard = said.profile.is_some_and(|heard| !heard.is_secure()) && !said.keys.is_empty();
            let sdes = match sdes_on && (heard || flags.osrtp.offer) {
                true => self.offered_keys(receiver, said, profile, &flags.sdes, supply),
                false => Vec::new(),
            };
            return Ok(SecurityTold { dtls: None, sdes });
        }
        let (mut dtls, mut sdes) = (flags.dtls != DtlsFlag::Off, sdes_on);
        match profile {
            Profile::DtlsSavp | Profile::DtlsSavpf => sdes = false,
            Profile::Savpf if dtls && sdes => {
                // As the sender has it, where nobody chose.
                let by_keys = said.fingerprints.is_empty() && !said.keys.is_empty();
                let chosen = flags.transport_protocol.is_some();
                dtls = chosen || !by_keys;
                sdes = !dtls;
            }
            Profile::Savp | Profile::Savpf | Profile::Avp | Profile::Avpf => {}
        }
        // What the receiver took before, he is offered again, and nothing else.
        if dtls
            && sdes
            && let Some(before) = &self.side(receiver).said
        {
            (dtls, sdes) = match (before.fingerprints.is_empty(), before.keys.is_empty()) {
                (false, _) => (true, false),
                (true, false) => (false, true),
                (true, true) => (true, true),
            };
        }
        let sdes = match sdes {
            true => self.offered_keys(receiver, said, profile, &flags.sdes, supply),
            false => Vec::new(),
        };
        // Our own offers leave the role to the other side (RFC 5763 §5).
        let told = SecurityTold { dtls: dtls.then_some(Setup::ActPass), sdes };
        if told.is_none() { Err(Refusal::NoKeys { media: index }) } else { Ok(told) }
    }
}
