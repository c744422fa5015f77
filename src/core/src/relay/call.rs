//! One call: its branches, each with the two sides' tags, what was said on it, and its bridges.
//!
//! A forking proxy offers each branch by itself, with its own `via-branch`; a later offer within a dialog is found by
//! the two tags. In: offers and answers. Out: SDP, and calls of the engine. Not here: ng (`mod`), numbers (`report`).

use super::Family;
use super::engine::{Engine, PortError, Ports};
use crate::media::plan::{BridgeId, Side};
use crate::ng::Flags;
use crate::rewrite::{self, Address, Input, Kind, Memory, Outcome, Refusal, Supply, Want};
use crate::rng::Rng;
use crate::sdp::Fingerprint;
use crate::time::Instant;
use std::net::SocketAddr;

/// Lengths as rtpengine draws them; RFC 8839 §5.4 asks for 4 and 22 at least.
const UFRAG: usize = 8;
const PWD: usize = 26;

/// What all calls of a process share.
pub(super) struct Common {
    pub fingerprint: Fingerprint,
    /// The same certificate by other hashes.
    pub fingerprints: Vec<Fingerprint>,
    pub foundation: String,
    pub rng: Rng,
    pub next_bridge: u64,
}

/// The bridge of one m-line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub bridge: BridgeId,
    pub offerer: Option<Ports>,
    pub answerer: Option<Ports>,
    /// Of the other address family, for ICE.
    pub more_offerer: Option<Ports>,
    pub more_answerer: Option<Ports>,
}

impl Slot {
    pub fn ports(&self, side: Side) -> Option<Ports> {
        match side {
            Side::Offerer => self.offerer,
            Side::Answerer => self.answerer,
        }
    }
}

/// One side of a branch.
#[derive(Debug, Default)]
pub(super) struct Party {
    /// Empty: not known yet.
    pub tag: String,
    /// Tags that a fork answered with before this one; the last [`RELAY_TAGS`](crate::limits::RELAY_TAGS).
    pub former: Vec<String>,
    pub label: Option<String>,
    pub created: Instant,
}

impl Party {
    pub fn has(&self, tag: &str) -> bool {
        !tag.is_empty() && (self.tag == tag || self.former.iter().any(|former| former == tag))
    }

    /// Takes another tag; the one before is still found.
    pub fn rename(&mut self, tag: &str) {
        if self.tag == tag {
            return;
        }
        self.former.retain(|former| former != tag);
        let before = std::mem::replace(&mut self.tag, tag.to_owned());
        if !before.is_empty() {
            if self.former.len() >= crate::limits::RELAY_TAGS {
                self.former.remove(0);
            }
            self.former.push(before);
        }
    }
}

/// What one offer, and whatever answered it, set up.
pub(super) struct Branch {
    pub via_branch: Option<String>,
    pub offerer: Party,
    pub answerer: Party,
    pub memory: Memory,
    pub slots: Vec<Option<Slot>>,
    /// An answer came: both sides have been told.
    pub answered: bool,
}

impl Branch {
    pub fn new(via_branch: Option<String>) -> Self {
        Branch {
            via_branch,
            offerer: Party::default(),
            answerer: Party::default(),
            memory: Memory::default(),
            slots: Vec::new(),
            answered: false,
        }
    }

    pub fn party(&self, side: Side) -> &Party {
        match side {
            Side::Offerer => &self.offerer,
            Side::Answerer => &self.answerer,
        }
    }

    /// The side that has this tag, or had it before.
    pub fn side_of(&self, tag: &str) -> Option<Side> {
        if self.offerer.tag == tag {
            Some(Side::Offerer)
        } else if self.answerer.has(tag) {
            Some(Side::Answerer)
        } else {
            None
        }
    }

    pub fn bridges(&self) -> impl Iterator<Item = (usize, Slot)> + '_ {
        self.slots.iter().enumerate().filter_map(|(media, slot)| Some((media, (*slot)?)))
    }

    /// Rewrites one SDP and carries out what follows from it.
    pub fn pass(
        &mut self,
        kind: Kind,
        sender: Side,
        sdp: &[u8],
        flags: &Flags,
        common: &mut Common,
        engine: &mut dyn Engine,
    ) -> Result<Vec<u8>, Refusal> {
        let input = Input { sdp, kind, sender, flags, cuts: false };
        let mut ports = FromEngine { slots: &mut self.slots, common, engine };
        let rewritten = rewrite::rewrite(&input, &mut self.memory, &mut ports)?;
        for (media, outcome) in rewritten.media.into_iter().enumerate() {
            match outcome {
                Outcome::Rejected => {
                    if let Some(slot) = self.slots.get_mut(media).and_then(Option::take) {
                        engine.close(slot.bridge);
                    }
                    self.memory.forget_ports(media);
                }
                Outcome::Legs(legs) => {
                    let Some(slot) = self.slots.get(media).copied().flatten() else { continue };
                    for (side, plan) in legs {
                        engine.apply(slot.bridge, side, plan);
                    }
                }
            }
        }
        self.answered |= kind == Kind::Answer;
        Ok(rewritten.sdp)
    }

    pub fn close(&mut self, engine: &mut dyn Engine) {
        for slot in self.slots.drain(..).flatten() {
            engine.close(slot.bridge);
        }
    }
}

/// Ports from the engine, secrets from the generator.
struct FromEngine<'a> {
    slots: &'a mut Vec<Option<Slot>>,
    common: &'a mut Common,
    engine: &'a mut dyn Engine,
}

impl FromEngine<'_> {
    fn slot(&mut self, media: usize) -> Option<&mut Slot> {
        if self.slots.len() <= media {
            self.slots.resize(media + 1, None);
        }
        let place = self.slots.get_mut(media)?;
        Some(place.get_or_insert_with(|| {
            self.common.next_bridge += 1;
            let bridge = BridgeId(self.common.next_bridge);
            Slot { bridge, offerer: None, answerer: None, more_offerer: None, more_answerer: None }
        }))
    }
}

impl Supply for FromEngine<'_> {
    fn ports(&mut self, media: usize, side: Side, want: &Want) -> Result<Address, String> {
        let slot = self.slot(media).ok_or("no such m-line")?;
        let known = match side {
            Side::Offerer => slot.offerer,
            Side::Answerer => slot.answerer,
        };
        // Opened for an SDP that was refused then: still ours.
        let ports = match known {
            Some(ports) => ports,
            None => {
                let bridge = slot.bridge;
                let opened = self.engine.open(bridge, side, want).map_err(|error| match error {
                    PortError::Exhausted => "the range is exhausted".to_owned(),
                    PortError::NoInterface => match (&want.interface, want.family) {
                        (Some(name), _) => format!("no interface {name}"),
                        (None, Some(Family::V6)) => "no IPv6 interface".to_owned(),
                        (None, Some(Family::V4) | None) => "no IPv4 interface".to_owned(),
                    },
                })?;
                if let Some(slot) = self.slot(media) {
                    match side {
                        Side::Offerer => slot.offerer = Some(opened),
                        Side::Answerer => slot.answerer = Some(opened),
                    }
                }
                opened
            }
        };
        Ok(Address { advertised: ports.advertised, rtp: ports.rtp, rtcp: ports.rtcp })
    }

    fn more_ports(&mut self, media: usize, side: Side, want: &Want) -> Option<Address> {
        let slot = self.slot(media)?;
        let known = match side {
            Side::Offerer => slot.more_offerer,
            Side::Answerer => slot.more_answerer,
        };
        let ports = match known {
            Some(ports) => ports,
            None => {
                let bridge = slot.bridge;
                let opened = self.engine.open(bridge, side, want).ok()?;
                let slot = self.slot(media)?;
                match side {
                    Side::Offerer => slot.more_offerer = Some(opened),
                    Side::Answerer => slot.more_answerer = Some(opened),
                }
                opened
            }
        };
        Some(Address { advertised: ports.advertised, rtp: ports.rtp, rtcp: ports.rtcp })
    }

    fn ice(&mut self) -> (String, String) {
        (self.common.rng.token(UFRAG), self.common.rng.token(PWD))
    }

    fn foundation(&mut self) -> String {
        self.common.foundation.clone()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.common.fingerprint.clone()
    }

    fn fingerprint_by(&self, hash: &str) -> Option<Fingerprint> {
        let known = || self.common.fingerprints.iter().find(|one| one.hash == hash).cloned();
        known().or_else(|| Some(self.fingerprint()).filter(|one| one.hash == hash))
    }

    fn sdes_key(&mut self) -> Vec<u8> {
        let mut key = vec![0; 30];
        self.common.rng.fill(&mut key);
        key
    }
}

/// One call.
pub(super) struct Call {
    pub id: String,
    pub created: Instant,
    pub created_from: SocketAddr,
    pub last_signal: Instant,
    pub branches: Vec<Branch>,
    /// When it is looked at again for silence.
    pub check: Instant,
}

impl Call {
    pub fn new(id: &str, now: Instant, created_from: SocketAddr) -> Self {
        Call {
            id: id.to_owned(),
            created: now,
            created_from,
            last_signal: now,
            branches: Vec::new(),
            check: now,
        }
    }

    /// The branch that an offer belongs to, and which side of it sends: one with both tags, else one whose
    /// answer is still open with this `via-branch` and offerer.
    pub fn find_offer(&self, from: &str, to: &str, via_branch: Option<&str>) -> Option<(usize, Side)> {
        self.of_tags(from, to).or_else(|| {
            let same = |b: &Branch| b.via_branch.as_deref() == via_branch && b.offerer.tag == from;
            // Without a to-tag it is the first offer again, whether or not somebody answered it by now.
            let open = |b: &Branch| to.is_empty() || b.answerer.tag.is_empty();
            let first =
                || self.branches.iter().position(|b| same(b) && open(b)).map(|at| (at, Side::Offerer));
            // The other side's offer by its tag alone.
            let back = || {
                let at = self.branches.iter().position(|b| to.is_empty() && b.answerer.has(from))?;
                Some((at, Side::Answerer))
            };
            first().or_else(back)
        })
    }

    /// The branch that an answer belongs to, and which side offered.
    pub fn find_answer(&self, from: &str, to: &str, via_branch: Option<&str>) -> Option<(usize, Side)> {
        let of_branch = || {
            via_branch?;
            let at = self
                .branches
                .iter()
                .position(|b| b.via_branch.as_deref() == via_branch && b.offerer.tag == from)?;
            Some((at, Side::Offerer))
        };
        // A call may fork without branches: another tag answers the same offer.
        let only = || {
            let open = |b: &Branch| b.offerer.tag == from && b.answerer.tag.is_empty();
            let forked = |b: &Branch| b.offerer.tag == from && via_branch.is_none() && b.via_branch.is_none();
            let at = self.branches.iter().position(open).or_else(|| self.branches.iter().position(forked))?;
            Some((at, Side::Offerer))
        };
        self.of_tags(from, to).or_else(of_branch).or_else(only)
    }

    fn of_tags(&self, from: &str, to: &str) -> Option<(usize, Side)> {
        if to.is_empty() {
            return None;
        }
        self.branches.iter().enumerate().find_map(|(at, branch)| {
            let side = branch.side_of(from)?;
            let other = rewrite::other(side);
            branch.party(other).has(to).then_some((at, side))
        })
    }

    pub fn has_tag(&self, tag: &str) -> bool {
        self.branches.iter().any(|branch| branch.side_of(tag).is_some())
    }

    /// Nobody wants to send: both sides hold, or no answer came yet.
    pub fn is_silent(&self) -> bool {
        let sends = |branch: &Branch, side| {
            let said = |media| branch.memory.side(media, side).and_then(|side| side.said.as_ref());
            (0..branch.memory.media_count())
                .filter_map(said)
                .any(|said| !said.rejected && said.direction.sends())
        };
        !self
            .branches
            .iter()
            .any(|branch| branch.answered && (sends(branch, Side::Offerer) || sends(branch, Side::Answerer)))
    }

    pub fn close(&mut self, engine: &mut dyn Engine) {
        for branch in &mut self.branches {
            branch.close(engine);
        }
    }
}
