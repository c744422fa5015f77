//! What the receiver of an answer, who offered, is told (RFC 3264 §6): nothing that his offer had not.
//!
//! In: the answer's section, the flags, the offer. Out: a [`Told`]; and on the answerer's side what he took. Not here: ports
//! (`address`), the text (`compose`).

use super::memory::{MediaMemory, Security, SecurityTold, Told};
use super::said::Said;
use super::{Input, Kind, Refusal, Supply, address, codecs, dtls, ice, mux, profile};
use crate::ng::DtlsFlag;
use crate::sdp::{Profile, Section, Setup};

impl MediaMemory {
    pub(super) fn told_answer(
        &mut self,
        index: usize,
        section: &Section<'_, '_>,
        said: &Said,
        input: &Input<'_>,
        supply: &mut dyn Supply,
    ) -> Result<Told, Refusal> {
        let flags = input.flags;
        let receiver = input.sender.other();
        let offer = self.side(receiver).said.clone();
        let mid = match &offer {
            Some(offer) => offer.mid.clone(),
            None => said.mid.clone().filter(|_| flags.generate_mid),
        };
        let refused = || Told {
            protocol: offer.as_deref().unwrap_or(said).protocol.clone(),
            ..Told::rejected(said, mid.clone())
        };
        if said.passes && offer.as_ref().is_none_or(|offer| offer.passes) {
            return Ok(Told { rejected: false, passed: true, ..refused() });
        }
        if said.rejected || offer.as_ref().is_some_and(|offer| offer.rejected) {
            return Ok(refused());
        }
        let offered = offer.as_ref().map_or(said.profile, |offer| offer.profile);
        let Some(profile) = profile::answered(flags, offered, said.profile).filter(|_| offered.is_some())
        else {
            return match said.opaque && offer.as_ref().is_none_or(|offer| offer.opaque) {
                true => Ok(Told { rejected: false, opaque: true, ..refused() }),
                false => Ok(refused()),
            };
        };
        self.check_taken(index, said, input)?;
        let sender = self.side_mut(input.sender);
        sender.role = Some(dtls::role(sender.role, said.setup, Kind::Answer, flags.dtls));
        self.agree(input.sender);

        let mux = mux::answered(flags, self.side(receiver), said);
        let ice = ice::answered(flags, self.side(receiver));
        let security = self.answered_security(index, offer.as_deref(), profile, input, supply)?;
        let side = self.side_mut(receiver);
        if side.controlling.is_none() && ice {
            // He offered; only a lite peer leaves the choice to us (RFC 8445 §6.1.1).
            let lite = offer.as_ref().and_then(|offer| offer.ice.as_ref()).is_some_and(|ice| ice.lite);
            side.controlling = Some(lite);
        }
        Ok(Told {
            protocol: profile.as_str().to_owned(),
            profile: Some(profile),
            formats: codecs::answered(section, said, offer.as_deref(), flags),
            mid,
            mux,
            own_rtcp: !mux,
            zeros: address::keeps_zeros(said, ice, flags),
            ice,
            trickle: offer.as_ref().is_some_and(|offer| offer.trickle),
            security,
            ..Told::default()
        })
    }

    /// The leg of who answers: whether he took one of the ways to agree on keys that we offered him.
    fn check_taken(&self, index: usize, said: &Said, input: &Input<'_>) -> Result<(), Refusal> {
        let side = self.side(input.sender);
        let Some(told) = &side.told else { return Ok(()) };
        // Keys beside a plain profile may be left alone (RFC 8643).
        if told.security.is_none() || !told.profile.is_some_and(Profile::is_secure) {
            return Ok(());
        }
        let dtls = told.security.dtls.is_some() && !said.fingerprints.is_empty();
        let sdes = side.sdes().is_some();
        match (dtls || sdes, told.security.dtls) {
            (true, _) => Ok(()),
            (false, Some(_)) if told.security.sdes.is_empty() => Err(Refusal::NoFingerprint { media: index }),
            (false, _) => Err(Refusal::NoKeys { media: index }),
        }
    }

    fn answered_security(
        &mut self,
        index: usize,
        offer: Option<&Said>,
        profile: Profile,
        input: &Input<'_>,
        supply: &mut dyn Supply,
    ) -> Result<SecurityTold, Refusal> {
        let flags = input.flags;
        let receiver = input.sender.other();
        let no_keys = Err(Refusal::NoKeys { media: index });
        let Some(offer) = offer else {
            // Without the offer at hand: what a browser's would have wanted.
            return match (profile.is_secure(), flags.dtls) {
                (false, _) => Ok(SecurityTold::default()),
                (true, DtlsFlag::Off) => no_keys,
                (true, _) => Ok(SecurityTold { dtls: Some(Setup::Passive), sdes: Vec::new() }),
            };
        };
        let keyed = !flags.sdes.off && !offer.keys.is_empty();
        if !profile.is_secure() {
            // RFC 8643: taken where the other side took it, or where it is asked for.
            let taken = self.side(input.sender).security() == Security::Sdes;
            let sdes = match keyed && (taken || flags.osrtp.accept) {
                true => self.answered_key(receiver, profile, &flags.sdes, supply),
                false => None,
            };
            return Ok(SecurityTold { dtls: None, sdes: sdes.into_iter().collect() });
        }
        if !offer.fingerprints.is_empty() && flags.dtls != DtlsFlag::Off {
            let side = self.side_mut(receiver);
            let role = dtls::role(side.role, offer.setup, Kind::Offer, flags.dtls);
            side.role = Some(role);
            return Ok(SecurityTold { dtls: Some(dtls::setup_of(role)), sdes: Vec::new() });
        }
        if keyed && let Some(key) = self.answered_key(receiver, profile, &flags.sdes, supply) {
            return Ok(SecurityTold { dtls: None, sdes: vec![key] });
        }
        // Another profile than the offer's was asked for by name: his to make sense of.
        match offer.profile.is_some_and(Profile::is_secure) {
            true => no_keys,
            false => Ok(SecurityTold::default()),
        }
    }
}
