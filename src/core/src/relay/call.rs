//! One call: its branches, each with the two sides' tags, what was said on it, and its bridges.
//!
//! A forking proxy offers each branch by itself, with its own `via-branch`; a later offer within a dialog is found by
//! the two tags. In: offers and answers. Out: SDP, and calls of the engine. Not here: ng (`mod`), numbers (`report`).

use super::Family;
use super::engine::{Engine, PortError, Ports};
use crate::media::plan::{BridgeId, Side};
use crate::ng::{Flags, Parties};
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

/// What one offer, and whatever answered it, set up.
pub(super) struct Branch {
    pub parties: Parties,
    pub memory: Memory,
    pub slots: Vec<Option<Slot>>,
    /// An answer came: both sides have been told.
    pub answered: bool,
}

impl Branch {
    pub fn new(parties: Parties) -> Self {
        Branch { parties, memory: Memory::default(), slots: Vec::new(), answered: false }
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
    /// What its packets are marked with, where a request said so.
    pub tos: Option<u8>,
    /// It was deleted, and ends then.
    pub ends: Option<Instant>,
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
            tos: None,
            ends: None,
            check: now,
        }
    }

    pub fn parties(&self) -> impl Iterator<Item = &Parties> + Clone {
        self.branches.iter().map(|branch| &branch.parties)
    }

    /// Marks the packets of all that is open.
    pub fn mark(&self, engine: &mut dyn Engine) {
        let Some(tos) = self.tos else { return };
        for (_, slot) in self.branches.iter().flat_map(Branch::bridges) {
            engine.mark(slot.bridge, tos);
        }
    }

    pub fn has_tag(&self, tag: &str) -> bool {
        self.branches.iter().any(|branch| branch.parties.side_of(tag).is_some())
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
