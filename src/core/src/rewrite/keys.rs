//! `SDES` and `OSRTP`: keys in the SDP (RFC 4568, RFC 8643).
//!
//! In: flags, what was said. Out: the `a=crypto` lines of an offer or an answer. An offer passes the sender's own keys on where
//! it can: then both legs have the same keys, and what he protected leaves as it came; after them come suites of ours. An
//! answer has the suite that the other side took, where it was offered. Not here: the packets (`media::srtp`).

use super::Supply;
use super::compose::Out;
use super::memory::{MediaMemory, Security, SideMemory};
use super::said::Said;
use crate::limits::MKI_BYTES;
use crate::media::plan::{SdesPlan, Side};
use crate::media::srtp::Suite;
use crate::ng::{Flags, SdesFlags};
use crate::sdp::{Crypto, Profile};
use base64::Engine as _;

/// One `a=crypto` of a peer that we can use.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub tag: u32,
    pub suite: Suite,
    /// Key and salt.
    pub key: Vec<u8>,
    /// The identifier in each packet, as it is sent and as it is written; mostly empty.
    pub mki: Vec<u8>,
    pub mki_text: String,
}

impl Key {
    /// `None` for a suite that we have not, a key of a wrong length, and session parameters: all of them would change packets.
    pub(super) fn of(crypto: &Crypto<'_>) -> Option<Key> {
        let suite = Suite::from_sdes(crypto.suite)?;
        let mki = crypto.mki_bytes().filter(|mki| mki.len() <= MKI_BYTES)?;
        let usable =
            crypto.key.len() == suite.key_and_salt_length() && crypto.session_parameters.trim().is_empty();
        usable.then(|| Key {
            tag: crypto.tag.parse().unwrap_or(1),
            suite,
            key: crypto.key.clone(),
            mki,
            mki_text: crypto.mki.to_owned(),
        })
    }
}

/// One `a=crypto` that a side is told.
#[derive(Clone, Debug, PartialEq)]
pub struct SdesTold {
    pub tag: u32,
    pub suite: Suite,
    pub key: Vec<u8>,
    pub mki: Vec<u8>,
    pub mki_text: String,
}

impl SdesTold {
    fn passing(key: &Key, tag: u32) -> SdesTold {
        SdesTold {
            tag,
            suite: key.suite,
            key: key.key.clone(),
            mki: key.mki.clone(),
            mki_text: key.mki_text.clone(),
        }
    }
}

impl SideMemory {
    /// Our own key of a suite for this side: made once.
    fn own_key(&mut self, suite: Suite, tag: u32, supply: &mut dyn Supply) -> SdesTold {
        let made = match self.made.iter().find(|made| made.suite == suite) {
            Some(made) => made.clone(),
            None => {
                let key = supply.secret(suite.key_and_salt_length());
                let made = SdesTold { tag, suite, key, mki: Vec::new(), mki_text: String::new() };
                self.made.push(made.clone());
                made
            }
        };
        SdesTold { tag, ..made }
    }

    /// Which of the keys that this side was told, and of those that it said, are in use.
    pub(super) fn sdes(&self) -> Option<(&SdesTold, Option<&Key>)> {
        let told = &self.told.as_ref()?.security.sdes;
        let Some(said) = &self.said else { return told.first().map(|first| (first, None)) };
        let pairs = || told.iter().flat_map(|told| said.keys.iter().map(move |key| (told, key)));
        let same = |exact: bool| {
            pairs().find(|(told, key)| told.suite == key.suite && (!exact || told.tag == key.tag))
        };
        let (told, key) = same(true).or_else(|| same(false))?;
        Some((told, Some(key)))
    }

    /// How this side's keys are agreed, as far as it is known.
    pub fn security(&self) -> Security {
        let Some(told) = &self.told else { return Security::None };
        let fingerprint = self.said.as_ref().is_none_or(|said| !said.fingerprints.is_empty());
        if told.security.dtls.is_some() && (fingerprint || told.security.sdes.is_empty()) {
            Security::Dtls
        } else if self.sdes().is_some()
            || (told.profile.is_some_and(Profile::is_secure) && !told.security.is_none())
        {
            Security::Sdes
        } else {
            Security::None
        }
    }
}

/// Keys may pass only where reports pass unchanged too: both sides understand early feedback, or neither does.
fn may_pass(said: &Said, profile: Profile) -> bool {
    said.profile.is_some_and(|theirs| theirs.has_feedback() == profile.has_feedback())
}

impl MediaMemory {
    /// The keys of an offer.
    pub(super) fn offered_keys(
        &mut self,
        receiver: Side,
        said: &Said,
        profile: Profile,
        flags: &SdesFlags,
        supply: &mut dyn Supply,
    ) -> Vec<SdesTold> {
        let mut list: Vec<SdesTold> = Vec::new();
        if may_pass(said, profile) {
            let keys = said.keys.iter().filter(|key| flags.allows(key.suite));
            list.extend(keys.map(|key| SdesTold::passing(key, key.tag)));
        }
        let side = self.side_mut(receiver);
        if list.is_empty() {
            list.extend(side.agreed.clone().filter(|agreed| flags.allows(agreed.suite)));
        }
        if flags.nonew && !said.keys.is_empty() && !list.is_empty() {
            return list;
        }
        let mut tag = list.iter().map(|told| told.tag).max().unwrap_or(0);
        for suite in flags.suites() {
            if list.iter().all(|told| told.suite != suite) {
                tag = tag.saturating_add(1);
                list.push(side.own_key(suite, tag, supply));
            }
        }
        list
    }

    /// The key of an answer: of the suite that the answerer took, else of the first that was offered.
    pub(super) fn answered_key(
        &mut self,
        receiver: Side,
        profile: Profile,
        flags: &SdesFlags,
        supply: &mut dyn Supply,
    ) -> Option<SdesTold> {
        let answerer = self.side(receiver.other());
        let taken = answerer
            .sdes()
            .and_then(|(_, key)| key)
            .filter(|_| answerer.security() == Security::Sdes)
            .cloned();
        let passes = answerer.said.as_ref().is_some_and(|said| may_pass(said, profile));
        let side = self.side(receiver);
        let offer = side.said.as_ref()?;
        let usable = || offer.keys.iter().filter(|key| flags.allows(key.suite));
        let like = |suite: Suite| usable().find(|key| key.suite == suite);
        let before = side.agreed.as_ref().filter(|_| flags.is_static).and_then(|agreed| like(agreed.suite));
        let preferred = || flags.order.iter().find_map(|suite| like(*suite));
        let theirs = taken.as_ref().and_then(|taken| like(taken.suite));
        let key = before.or(theirs).or_else(preferred).or_else(|| usable().next())?.clone();
        match taken.filter(|taken| taken.suite == key.suite && passes) {
            Some(taken) => Some(SdesTold::passing(&taken, key.tag)),
            None => Some(self.side_mut(receiver).own_key(key.suite, key.tag, supply)),
        }
    }

    /// Remembers what an answer settled on, for later offers.
    pub(super) fn agree(&mut self, side: Side) {
        let side = self.side_mut(side);
        let agreed = match side.security() {
            Security::Sdes => side.sdes().map(|(told, _)| told.clone()),
            Security::None | Security::Dtls => None,
        };
        side.agreed = agreed;
    }

    /// The leg's keys in the media engine's terms; without any that both have, nothing passes.
    pub(super) fn sdes_plan(&self, side: Side) -> SdesPlan {
        let Some((told, key)) = self.side(side).sdes() else { return SdesPlan::default() };
        // Shared: the other side's leg is protected with the very key that we protect this one with.
        let across = self.side(side.other());
        let theirs = across.sdes().and_then(|(_, key)| key).filter(|_| across.security() == Security::Sdes);
        let is_shared = theirs.is_some_and(|theirs| theirs.suite == told.suite && theirs.key == told.key);
        SdesPlan {
            suite: told.suite.name().to_owned(),
            local_key: told.key.clone(),
            remote_key: key.map(|key| key.key.clone()).unwrap_or_default(),
            local_mki: told.mki.clone(),
            remote_mki: key.map(|key| key.mki.clone()).unwrap_or_default(),
            is_shared,
        }
    }
}

pub(super) fn write(out: &mut Out, keys: &[SdesTold], flags: &Flags) {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    for told in keys {
        let key = if flags.sdes.pad { STANDARD.encode(&told.key) } else { STANDARD_NO_PAD.encode(&told.key) };
        let lifetime = if flags.sdes.lifetime { "|2^31" } else { "" };
        let bar = if told.mki_text.is_empty() { "" } else { "|" };
        let (tag, suite, mki) = (told.tag, told.suite.name(), &told.mki_text);
        out.line(format_args!("a=crypto:{tag} {suite} inline:{key}{lifetime}{bar}{mki}"));
    }
}
