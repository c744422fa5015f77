//! What was decided, in the media engine's terms.
//!
//! In: a [`MediaMemory`]. Out: [`Outcome`] with the plans of the legs that change now.
//! An offer opens the leg toward its receiver, since he may send as soon as he has it; whatever is running stays as it is
//! until the answer. An answer settles both legs. Not here: the text (`compose`).

use super::memory::MediaMemory;
use super::{Address, Input, Kind, Outcome, memory};
use crate::media::plan::{DtlsPlan, DtlsRole, Fingerprint, IcePlan, Learning, LegPlan, Security, Side};

use std::net::SocketAddr;

impl MediaMemory {
    pub(super) fn outcome(&self, input: &Input<'_>) -> Outcome {
        let receiver = input.sender.other();
        let told = self.side(receiver).told.as_ref();
        if told.is_none_or(|told| told.rejected || told.removed || told.passed) {
            return Outcome::Rejected;
        }
        let legs = match input.kind {
            Kind::Offer if self.side(receiver).said.is_some() => Vec::new(),
            Kind::Offer => vec![receiver],
            Kind::Answer => vec![input.sender, receiver],
        };
        Outcome::Legs(legs.into_iter().filter_map(|side| Some((side, self.leg(side)?))).collect())
    }

    /// The plan of one leg; `None` where that side was told nothing yet.
    fn leg(&self, side: Side) -> Option<LegPlan> {
        let this = self.side(side);
        let told = this.told.as_ref()?;
        let address = this.address?;
        let said = this.said.as_ref();
        let rtcp_mux = told.mux && said.is_some_and(|said| said.mux);
        let ice = this.ice.as_ref().filter(|_| told.ice && said.is_none_or(|said| said.ice.is_some()));
        let of_each = |port: &dyn Fn(&Address) -> SocketAddr| {
            std::iter::once(&address).chain(this.more.as_ref()).map(port).collect::<Vec<_>>()
        };
        let ice = ice.map(|(ufrag, pwd, _)| IcePlan {
            local_ufrag: ufrag.clone(),
            local_pwd: pwd.clone(),
            remote: said.and_then(|said| said.ice.clone()),
            controlling: this.is_controlling(),
            lite: this.lite,
            local_candidates: of_each(&|own| own.rtp),
            local_rtcp: if rtcp_mux || !told.own_rtcp { Vec::new() } else { of_each(&|own| own.rtcp) },
        });
        let security = match this.security() {
            memory::Security::None => Security::None,
            memory::Security::Dtls => Security::Dtls(DtlsPlan {
                fingerprints: said.map_or_else(Vec::new, |said| {
                    let ours = |f: &crate::sdp::Fingerprint| Fingerprint {
                        hash: f.hash.clone(),
                        digest: f.digest.clone(),
                    };
                    said.fingerprints.iter().map(ours).collect()
                }),
                role: this.role.unwrap_or(DtlsRole::Passive),
            }),
            memory::Security::Sdes => Security::Sdes(self.sdes_plan(side)),
        };
        // Before its own SDP came, a side may send in any of the formats that it was offered.
        let payloads = said.or(self.side(side.other()).said.as_ref()).map(|said| said.payloads.clone());
        let remote_rtp = said.and_then(|said| said.rtp);
        Some(LegPlan {
            remote_rtp,
            remote_rtcp: if rtcp_mux { remote_rtp } else { said.and_then(|said| said.rtcp) },
            rtcp_mux,
            ice,
            security,
            peer_sends: said.is_none_or(|said| said.direction.sends()),
            peer_receives: said.is_none_or(|said| said.direction.receives()),
            feedback: told.profile.is_some_and(|profile| profile.has_feedback()),
            payloads: payloads.unwrap_or_default(),
            opaque: told.opaque,
            learning: this.learning.unwrap_or(Learning::Immediate),
            arriving: this.arriving,
        })
    }
}
