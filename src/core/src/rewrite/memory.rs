//! What both sides of a dialog said and were told, m-line by m-line.
//!
//! In and out: values. Not here: how they come about (`said`, `offer`, `answer`), the text (`compose`), the media engine's
//! terms (`plan`).

use super::keys::SdesTold;
use super::origin::Origins;
use super::said::{Said, read};
use super::{Address, Input, Kind, Refusal, Supply};
use crate::media::plan::{Arriving, DtlsRole, Learning, Side};
use crate::ng::MediaEcho;
use crate::sdp::{Profile, Sdp, Section, Setup};
use std::sync::Arc;

/// How keys may be agreed, as we told a side: in an offer both ways may stand beside each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecurityTold {
    pub dtls: Option<Setup>,
    pub sdes: Vec<SdesTold>,
}

impl SecurityTold {
    pub fn is_none(&self) -> bool {
        self.dtls.is_none() && self.sdes.is_empty()
    }
}

/// How the keys of a leg are agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    None,
    Dtls,
    Sdes,
}

/// What a side was told about one m-line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub rejected: bool,
    /// The m-line was left out (`sdp-media-remove`).
    pub removed: bool,
    /// It passed as it is: what it speaks of goes from peer to peer.
    pub passed: bool,
    /// Forwarded without a look inside (T.38 over UDPTL).
    pub opaque: bool,
    pub protocol: String,
    pub profile: Option<Profile>,
    /// The formats of the m-line, separated by blanks.
    pub formats: String,
    pub mid: Option<String>,
    /// `a=rtcp-mux` stands there.
    pub mux: bool,
    /// RTCP has a port and a candidate of its own, used where mux is not agreed.
    pub own_rtcp: bool,
    /// The address of zeros stays (RFC 3264 §8.4's hold of old).
    pub zeros: bool,
    pub ice: bool,
    pub trickle: bool,
    pub security: SecurityTold,
}

impl Told {
    pub(super) fn rejected(said: &Said, mid: Option<String>) -> Told {
        Told {
            rejected: true,
            protocol: said.protocol.clone(),
            formats: said.formats.clone(),
            mid,
            ..Told::default()
        }
    }
}

/// One side of one m-line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideMemory {
    /// Shared with the copies of this memory: it is never changed, only replaced.
    pub said: Option<Arc<Said>>,
    pub told: Option<Told>,
    pub(super) address: Option<Address>,
    /// Ports of the other address family, for ICE.
    pub(super) more: Option<Address>,
    /// Our ufrag, password and foundation toward this side.
    pub(super) ice: Option<(String, String, String)>,
    /// Keys that we made for this side.
    pub(super) made: Vec<SdesTold>,
    /// What an answer settled on.
    pub(super) agreed: Option<SdesTold>,
    pub(super) role: Option<DtlsRole>,
    pub(super) tls_id: Option<String>,
    pub(super) controlling: Option<bool>,
    /// Toward this side our agent is a lite one.
    pub(super) lite: bool,
    pub(super) learning: Option<Learning>,
    pub(super) arriving: Arriving,
    /// The flags of its offer forbid to accept its mux, or want it accepted.
    pub(super) refuse_mux: bool,
    pub(super) accept_mux: bool,
    /// The flags of its offer want this in the answer to it.
    pub(super) ptime_reverse: Option<u32>,
}

impl SideMemory {
    /// How this side's address is found.
    pub fn learning(&self) -> Option<Learning> {
        self.learning
    }

    /// Our role in DTLS with this side, once it is decided.
    pub fn role(&self) -> Option<DtlsRole> {
        self.role
    }

    /// Our role in ICE with this side. A lite agent leaves it to a full one (RFC 8445 §6.1.1).
    pub fn is_controlling(&self) -> bool {
        let full = self.said.as_ref().and_then(|said| said.ice.as_ref()).is_none_or(|ice| !ice.lite);
        self.controlling.unwrap_or(true) && !(self.lite && full)
    }
}

/// One m-line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MediaMemory {
    offerer: SideMemory,
    answerer: SideMemory,
}

/// One dialog.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    pub(super) media: Vec<MediaMemory>,
    pub(super) origin: Origins,
    /// An offer was seen: an answer to it has no m-line that it had not, even where it had none.
    pub(super) offered: bool,
}

impl Memory {
    /// The memory of a dialog of which only the offer is known, as `sdp-rewrite --answers` has it.
    pub fn of_offer(offer: &[u8], flags: &crate::ng::Flags) -> Result<Memory, Refusal> {
        let sdp = Sdp::parse(offer).map_err(Refusal::Sdp)?;
        let input = Input { sdp: offer, kind: Kind::Offer, sender: Side::Offerer, flags, cuts: false };
        let media = sdp.medias().map(|section| {
            let mut slot = MediaMemory::default();
            slot.hear(&sdp, &section, &input);
            slot
        });
        Ok(Memory { media: media.collect(), origin: Origins::default(), offered: true })
    }

    pub fn media_count(&self) -> usize {
        self.media.len()
    }

    pub fn side(&self, media: usize, side: Side) -> Option<&SideMemory> {
        self.media.get(media).map(|slot| slot.side(side))
    }

    pub(super) fn told_mut(&mut self, media: usize, side: Side) -> Option<&mut Told> {
        self.media.get_mut(media)?.side_mut(side).told.as_mut()
    }

    /// The ports of an m-line were closed.
    pub fn forget_ports(&mut self, media: usize) {
        if let Some(slot) = self.media.get_mut(media) {
            for side in [&mut slot.offerer, &mut slot.answerer] {
                side.address = None;
                side.more = None;
            }
        }
    }

    /// Which sides have a lite agent before them. It is so for all m-lines: `a=ice-lite` is the session's (RFC 8839 §5.3).
    pub(super) fn settle_lite(&mut self, input: &Input<'_>) {
        let flag = input.flags.ice_lite;
        for (side, wanted) in [(input.sender.other(), flag.forward), (input.sender, flag.backward)] {
            let was = self.media.iter().any(|slot| slot.side(side).lite);
            let lite = wanted.unwrap_or(was);
            for side in self.media.iter_mut().map(|slot| slot.side_mut(side)) {
                // A full agent becomes a lite one, or the other way, by a restart only.
                if side.lite != lite {
                    side.ice = None;
                }
                side.lite = lite;
            }
        }
    }

    /// Where the m-lines of this side's descriptions are.
    pub(super) fn places(&self, sender: Side) -> Vec<usize> {
        let removed = |slot: &MediaMemory| slot.side(sender).told.as_ref().is_some_and(|told| told.removed);
        self.media.iter().enumerate().filter(|(_, slot)| !removed(slot)).map(|(at, _)| at).collect()
    }
}

impl MediaMemory {
    pub(super) fn side(&self, side: Side) -> &SideMemory {
        match side {
            Side::Offerer => &self.offerer,
            Side::Answerer => &self.answerer,
        }
    }

    pub(super) fn side_mut(&mut self, side: Side) -> &mut SideMemory {
        match side {
            Side::Offerer => &mut self.offerer,
            Side::Answerer => &mut self.answerer,
        }
    }

    /// Takes in what the sender says.
    pub(super) fn hear(&mut self, sdp: &Sdp<'_>, section: &Section<'_, '_>, input: &Input<'_>) {
        let said = read(sdp, section, input);
        let side = self.side_mut(input.sender);
        if let Some(before) = &side.said {
            let restarted = match (&before.ice, &said.ice) {
                (Some(a), Some(b)) => a.ufrag != b.ufrag || a.pwd != b.pwd,
                (Some(_), None) | (None, Some(_)) => true,
                (None, None) => false,
            };
            // A restart that is offered is answered with credentials of ours that are new too (RFC 8839 §4.4.3.1.1).
            if input.kind == Kind::Offer && restarted {
                side.ice = None;
            }
            // Another certificate is another association, and its role is open again (RFC 8842 §5.1).
            if before.fingerprints != said.fingerprints {
                side.role = None;
            }
        }
        side.learning = Some(if input.flags.asymmetric {
            Learning::Off
        } else if input.flags.strict_source {
            Learning::Strict
        } else {
            Learning::Immediate
        });
        if let Some(echo) = input.flags.media_echo {
            let (sender, receiver) = match echo {
                MediaEcho::Forward => (Arriving::Dropped, Arriving::Back),
                MediaEcho::Backward => (Arriving::Back, Arriving::Dropped),
                MediaEcho::Both => (Arriving::Back, Arriving::Back),
                MediaEcho::Blackhole => (Arriving::Dropped, Arriving::Dropped),
            };
            side.arriving = sender;
            self.side_mut(input.sender.other()).arriving = receiver;
        }
        let side = self.side_mut(input.sender);
        if input.kind == Kind::Offer {
            side.refuse_mux = input.flags.rtcp_mux.reject;
            side.accept_mux = input.flags.rtcp_mux.demux || input.flags.rtcp_mux.accept;
            side.ptime_reverse = input.flags.ptime_reverse;
        }
        side.said = Some(Arc::new(said));
    }

    /// The answer lacks this m-line.
    pub(super) fn miss(&mut self, sender: Side) {
        let receiver = self.side_mut(sender.other());
        if let Some(said) = &receiver.said {
            receiver.told = Some(Told::rejected(said, said.mid.clone()));
        }
    }

    /// Decides what the receiver is told, and gets what that takes.
    pub(super) fn decide(
        &mut self,
        index: usize,
        section: &Section<'_, '_>,
        input: &Input<'_>,
        supply: &mut dyn Supply,
    ) -> Result<(), Refusal> {
        let Some(said) = self.side(input.sender).said.clone() else { return Ok(()) };
        let told = match input.kind {
            Kind::Offer => self.told_offer(index, section, &said, input, supply)?,
            Kind::Answer => self.told_answer(index, section, &said, input, supply)?,
        };
        self.open(index, &told, &said, input, supply)?;
        self.side_mut(input.sender.other()).told = Some(told);
        Ok(())
    }
}
