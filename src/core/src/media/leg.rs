//! One side of a bridge: how its peer is reached, and what guards the way.
//!
//! RFC 4961 (symmetric RTP), RFC 5761 (RTP and RTCP on one port), RFC 8842 §5 (when a DTLS association is kept).
//! In: the [`LegPlan`], datagrams of this side, time. Out: plain packets for the other side, datagrams to send, events.
//! Not here: what goes from one leg to the other (`bridge`), counting (`stats`).

use super::bridge::{DropReason, Event};
use super::dtls::{Dtls, Identity, NoKeys};
use super::ice::{self, Anchor, Ice};
use super::plan::{DtlsRole, Learning, LegPlan, SdesPlan, Security, Side};
use super::srtp::{self, Suite};
use crate::limits::{DTLS_ATTEMPTS, SDES_KEYS};
use crate::time::Instant;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Which of a leg's two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The even port; everything, where RTCP is multiplexed.
    Rtp,
    /// The odd one.
    Rtcp,
}

/// How long, from its first packet, a peer may still turn out to be elsewhere.
const LEARNING_WINDOW: Duration = Duration::from_secs(3);
/// Within the window a source of equal standing takes over only from one that fell silent.
const SILENT: Duration = Duration::from_millis(500);

/// How well a source fits what the SDP said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Stranger,
    SameHost,
    AsAdvertised,
}

/// Where one component's peer is.
#[derive(Debug, Default)]
pub(super) struct Path {
    advertised: Option<SocketAddr>,
    learned: Option<(SocketAddr, Standing, Instant)>,
    window_end: Option<Instant>,
}

/// What a source is to a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Known,
    /// Packets go there from now on.
    Learned(SocketAddr),
    Refused,
}

impl Path {
    /// A new address in the SDP starts all over; the same one, said again, opens the window again. One of zeros (hold)
    /// says nothing about where packets come from: what was learned stays.
    fn apply(&mut self, advertised: Option<SocketAddr>, changed: bool) {
        if advertised.is_none() {
            self.advertised = None;
        } else if self.advertised != advertised {
            self.advertised = advertised;
            self.learned = None;
            self.window_end = None;
        } else if changed {
            self.window_end = None;
        }
    }

    pub(super) fn admit(&mut self, now: Instant, from: SocketAddr, learning: Learning) -> Admission {
        // Before its SDP a peer has no business here, nor has anybody else.
        if self.advertised.is_none() && self.learned.is_none() {
            return Admission::Refused;
        }
        if learning == Learning::Off {
            return Admission::Known;
        }
        let standing = match self.advertised {
            Some(advertised) if advertised == from => Standing::AsAdvertised,
            Some(advertised) if advertised.ip() == from.ip() => Standing::SameHost,
            _ => Standing::Stranger,
        };
        match &mut self.learned {
            None => {}
            Some((source, _, last)) if *source == from => {
                *last = now;
                self.window_end.get_or_insert(now + LEARNING_WINDOW);
                return Admission::Known;
            }
            Some((_, known, last)) => {
                let open = learning == Learning::Immediate
                    && *known != Standing::AsAdvertised
                    && self.window_end.is_none_or(|end| now < end);
                let better = standing > *known || standing == *known && now.saturating_since(*last) > SILENT;
                // After a new offer or answer, a silent path may move even if it was the advertised one.
                let moved = learning == Learning::Immediate
                    && self.window_end.is_none()
                    && now.saturating_since(*last) > SILENT;
                if !(open && better || moved) {
                    return Admission::Refused;
                }
            }
        }
        self.learned = Some((from, standing, now));
        self.window_end.get_or_insert(now + LEARNING_WINDOW);
        Admission::Learned(from)
    }

    pub(super) fn destination(&self, learning: Learning) -> Option<SocketAddr> {
        // Nothing is sent to an address of zeros (RFC 3264 §8.4), nor to one that was only heard.
        let advertised = self.advertised?;
        match (learning, &self.learned) {
            (Learning::Off, _) | (_, None) => Some(advertised),
            (_, Some((source, _, _))) => Some(*source),
        }
    }
}

/// DTLS and what came of it.
struct DtlsState {
    engine: Dtls,
    /// Who the handshake is held with.
    peer: Option<SocketAddr>,
    attempts: usize,
    /// The mismatch was told.
    refused: bool,
}

/// How one of a leg's ports reaches the peer's: where RTCP is not multiplexed, each has ICE and DTLS of its own.
#[derive(Default)]
struct Channel {
    path: Path,
    ice: Option<Ice>,
    dtls: Option<DtlsState>,
    /// What the handshake gave.
    keys: Option<Keys>,
}

/// Both directions.
struct Keys {
    protect: srtp::Context,
    unprotect: srtp::Context,
}

impl Channel {
    fn nominated(&self) -> Option<SocketAddr> {
        self.ice.as_ref().and_then(Ice::nominated)
    }

    fn forget_dtls(&mut self) {
        self.dtls = None;
        self.keys = None;
    }
}

/// One side of a bridge.
pub struct Leg {
    side: Side,
    pub(super) plan: LegPlan,
    anchor: Anchor,
    rtp: Channel,
    rtcp: Channel,
    /// Keys that the SDP gave: the same for both ports.
    sdes: Sdes,
}

/// A datagram of our own: STUN or DTLS.
pub(super) type Own = (Component, SocketAddr, Vec<u8>);

impl Leg {
    pub(super) fn new(side: Side, plan: LegPlan, identity: &Identity, now: Instant, anchor: Anchor) -> Leg {
        let mut leg = Leg {
            side,
            plan: LegPlan {
                ice: None,
                security: Security::None,
                remote_rtp: None,
                remote_rtcp: None,
                ..plan.clone()
            },
            anchor,
            rtp: Channel::default(),
            rtcp: Channel::default(),
            sdes: Sdes::default(),
        };
        leg.apply(plan, identity, now);
        leg
    }

    fn channel(&self, component: Component) -> &Channel {
        match component {
            Component::Rtp => &self.rtp,
            Component::Rtcp => &self.rtcp,
        }
    }

    fn channel_mut(&mut self, component: Component) -> &mut Channel {
        match component {
            Component::Rtp => &mut self.rtp,
            Component::Rtcp => &mut self.rtcp,
        }
    }

    /// Whether this port has an agent and a handshake of its own. RTCP's has, once the peer's SDP says that it does not
    /// multiplex: until then nobody has a reason to use it.
    fn is_used(plan: &LegPlan, component: Component) -> bool {
        let heard = match (&plan.ice, &plan.security) {
            (Some(ice), _) => ice.remote.is_some(),
            (None, Security::Dtls(dtls)) => !dtls.fingerprints.is_empty(),
            (None, Security::None | Security::Sdes(_)) => true,
        };
        component == Component::Rtp || heard && !plan.rtcp_mux
    }

    /// Takes what signalling changed, and leaves the rest as it is.
    pub(super) fn apply(&mut self, plan: LegPlan, identity: &Identity, now: Instant) {
        let changed = self.plan != plan;
        let rtcp = if plan.rtcp_mux { plan.remote_rtp } else { plan.remote_rtcp };
        self.rtp.path.apply(plan.remote_rtp, changed);
        self.rtcp.path.apply(rtcp, changed);
        let anchor = self.anchor;
        for component in [Component::Rtp, Component::Rtcp] {
            let wanted = plan.ice.as_ref().filter(|_| Self::is_used(&plan, component));
            let channel = self.channel_mut(component);
            match (&mut channel.ice, wanted) {
                (Some(ice), Some(wanted)) => ice.apply(wanted, now),
                (none, Some(wanted)) => *none = Some(Ice::new(wanted, component, now, anchor)),
                (some, None) => *some = None,
            }
        }
        match &plan.security {
            Security::None => {
                self.rtp.forget_dtls();
                self.rtcp.forget_dtls();
            }
            Security::Sdes(wanted) => {
                self.rtp.forget_dtls();
                self.rtcp.forget_dtls();
                if self.plan.security != plan.security {
                    self.sdes.apply(wanted);
                }
            }
            Security::Dtls(wanted) => {
                // RFC 8842 §5.5: another role, or another peer, is another association.
                let others = match &self.plan.security {
                    Security::Dtls(before) => before.fingerprints != wanted.fingerprints,
                    Security::None | Security::Sdes(_) => true,
                };
                for component in [Component::Rtp, Component::Rtcp] {
                    let used = Self::is_used(&plan, component);
                    let channel = self.channel_mut(component);
                    let keep = channel.dtls.as_ref().is_some_and(|dtls| {
                        used && dtls.engine.role() == wanted.role
                            && !(dtls.refused && others)
                            && (!dtls.engine.is_connected()
                                || wanted.fingerprints.is_empty()
                                || dtls.engine.is_peer(&wanted.fingerprints)
                                || channel.keys.is_none())
                    });
                    if !keep {
                        channel.forget_dtls();
                    }
                }
            }
        }
        self.plan = plan;
        for component in [Component::Rtp, Component::Rtcp] {
            self.start_dtls(component, identity, now);
        }
    }

    /// The passive side listens from the start; the active one speaks once it knows where to.
    fn start_dtls(&mut self, component: Component, identity: &Identity, now: Instant) {
        let Security::Dtls(wanted) = &self.plan.security else { return };
        if self.channel(component).dtls.is_some() || !Self::is_used(&self.plan, component) {
            return;
        }
        let channel = self.channel(component);
        let peer = match &channel.ice {
            Some(ice) => ice.nominated(),
            None => channel.path.destination(self.plan.learning),
        };
        if wanted.role == DtlsRole::Active && peer.is_none() {
            return;
        }
        let engine = Dtls::new(identity, wanted.role, now, self.anchor);
        self.channel_mut(component).dtls = Some(DtlsState { engine, peer, attempts: 1, refused: false });
    }

    pub(super) fn handle_stun(
        &mut self,
        now: Instant,
        component: Component,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let ice = self.channel_mut(component).ice.as_mut().ok_or(DropReason::Unexpected)?;
        if ice.handle_packet(now, from, datagram) { Ok(()) } else { Err(DropReason::Stun) }
    }

    pub(super) fn handle_dtls(
        &mut self,
        now: Instant,
        component: Component,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let learning = self.plan.learning;
        let channel = self.channel_mut(component);
        match &channel.ice {
            Some(ice) if !ice.is_valid(from) => return Err(DropReason::Source),
            Some(_) => {}
            None => {
                if channel.path.admit(now, from, learning) == Admission::Refused {
                    return Err(DropReason::Source);
                }
            }
        }
        let dtls = channel.dtls.as_mut().ok_or(DropReason::Unexpected)?;
        dtls.peer = Some(from);
        if dtls.engine.handle_packet(now, datagram) { Ok(()) } else { Err(DropReason::Dtls) }
    }

    /// Carries on with what packets and timers moved: starts DTLS on nomination, takes keys, tells events.
    pub(super) fn settle(
        &mut self,
        identity: &Identity,
        now: Instant,
        own: &mut Vec<Own>,
        events: &mut VecDeque<Event>,
    ) {
        for component in [Component::Rtp, Component::Rtcp] {
            self.settle_channel(component, identity, now, own, events);
        }
    }

    fn settle_channel(
        &mut self,
        component: Component,
        identity: &Identity,
        now: Instant,
        own: &mut Vec<Own>,
        events: &mut VecDeque<Event>,
    ) {
        let (side, anchor) = (self.side, self.anchor);
        // What becomes of a leg is told by its first port.
        let tells = component == Component::Rtp;
        if let Some(ice) = &mut self.channel_mut(component).ice {
            while let Some((to, datagram)) = ice.poll_transmit() {
                own.push((component, to, datagram));
            }
            while let Some(event) = ice.poll_event() {
                if tells {
                    events.push_back(match event {
                        ice::Event::Nominated(remote) => Event::IceConnected { side, remote },
                        ice::Event::Disconnected => Event::IceDisconnected { side },
                    });
                }
            }
        }
        self.start_dtls(component, identity, now);
        let Leg { plan, rtp, rtcp, .. } = self;
        let Security::Dtls(wanted) = &plan.security else { return };
        let channel = match component {
            Component::Rtp => rtp,
            Component::Rtcp => rtcp,
        };
        let nominated = channel.nominated();
        let Some(dtls) = &mut channel.dtls else { return };
        if channel.ice.is_some() && dtls.peer.is_none() {
            dtls.peer = nominated;
        }
        let destination = dtls.peer.or(nominated);
        while let Some(datagram) = dtls.engine.poll_transmit() {
            if let Some(destination) = destination {
                own.push((component, destination, datagram));
            }
        }
        if channel.keys.is_none() && !dtls.refused {
            match dtls.engine.keys_for(&wanted.fingerprints) {
                Ok(pair) => {
                    if tells {
                        events.push_back(Event::DtlsConnected { side, suite: pair.protect.suite() });
                    }
                    channel.keys = Some(Keys { protect: pair.protect, unprotect: pair.unprotect });
                }
                Err(NoKeys::NotYet) => {}
                Err(NoKeys::Fingerprint) => {
                    dtls.refused = true;
                    events.push_back(Event::FingerprintMismatch { side });
                }
                Err(NoKeys::Profile) => {
                    dtls.refused = true;
                    events.push_back(Event::DtlsFailed { side, reason: "no SRTP profile in common".into() });
                }
            }
        }
        if let Some(reason) = dtls.engine.failure() {
            let attempts = dtls.attempts;
            events.push_back(Event::DtlsFailed { side, reason: reason.into() });
            if attempts < DTLS_ATTEMPTS && channel.keys.is_none() {
                let peer = dtls.peer;
                let engine = Dtls::new(identity, wanted.role, now, anchor);
                channel.dtls = Some(DtlsState { engine, peer, attempts: attempts + 1, refused: false });
            } else {
                dtls.engine.forget_failure();
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for channel in [&mut self.rtp, &mut self.rtcp] {
            if let Some(ice) = &mut channel.ice
                && ice.poll_timeout().is_some_and(|at| at <= now)
            {
                ice.handle_timeout(now);
            }
            if let Some(dtls) = &mut channel.dtls
                && dtls.engine.poll_timeout().is_some_and(|at| at <= now)
            {
                dtls.engine.handle_timeout(now);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let of = |channel: &Channel| {
            let ice = channel.ice.as_ref().and_then(Ice::poll_timeout);
            let dtls = channel.dtls.as_ref().and_then(|dtls| dtls.engine.poll_timeout());
            ice.into_iter().chain(dtls).min()
        };
        of(&self.rtp).into_iter().chain(of(&self.rtcp)).min()
    }

    /// Checks source and protection of a media packet; gives its length in plain, and an address just learned.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        component: Component,
        from: SocketAddr,
        buffer: &mut [u8],
        length: usize,
        rtcp: bool,
    ) -> Result<(usize, Option<SocketAddr>), DropReason> {
        let Leg { plan, rtp: first, rtcp: second, sdes, .. } = self;
        let channel = match component {
            Component::Rtp => first,
            Component::Rtcp => second,
        };
        if plan.ice.is_some() && !channel.ice.as_ref().is_some_and(|ice| ice.is_valid(from)) {
            return Err(DropReason::Source);
        }
        let unprotect = match &plan.security {
            Security::None => None,
            Security::Sdes(_) => Some(sdes.unprotect().ok_or(DropReason::NoKeys)?),
            Security::Dtls(_) => Some(&mut channel.keys.as_mut().ok_or(DropReason::NoKeys)?.unprotect),
        };
        let length = match unprotect {
            None => length,
            Some(context) if rtcp => context.unprotect_rtcp(buffer, length).map_err(DropReason::from)?,
            Some(context) => context.unprotect_rtp(buffer, length).map_err(DropReason::from)?,
        };
        if plan.ice.is_some() {
            return Ok((length, None));
        }
        match channel.path.admit(now, from, plan.learning) {
            Admission::Known => Ok((length, None)),
            Admission::Learned(address) => Ok((length, Some(address))),
            Admission::Refused => Err(DropReason::Source),
        }
    }

    /// Checks the source of a datagram of no known kind; gives an address that was just learned.
    pub(super) fn admit_opaque(
        &mut self,
        now: Instant,
        from: SocketAddr,
    ) -> Result<Option<SocketAddr>, DropReason> {
        match self.rtp.path.admit(now, from, self.plan.learning) {
            Admission::Known => Ok(None),
            Admission::Learned(address) => Ok(Some(address)),
            Admission::Refused => Err(DropReason::Source),
        }
    }

    /// The index of the SRTCP packet that came last, where keys of the SDP protected it.
    pub(super) fn rtcp_index(&self) -> Option<u32> {
        match &self.plan.security {
            Security::Sdes(_) => self.sdes.unprotect.current().map(srtp::Context::rtcp_index_seen),
            Security::None | Security::Dtls(_) => None,
        }
    }

    /// Its peer gets what the other peer protected, under that one's own keys.
    pub(super) fn has_shared_keys(&self) -> bool {
        matches!(&self.plan.security, Security::Sdes(keys) if keys.is_shared)
    }

    /// Protects a packet for this side's peer: which port it leaves from, where to, and its length. `index` is what the
    /// sender's own SRTCP had, in case that both legs have his keys.
    pub(super) fn send(
        &mut self,
        buffer: &mut [u8],
        length: usize,
        rtcp: bool,
        index: Option<u32>,
    ) -> Result<(Component, SocketAddr, usize), DropReason> {
        let component = if rtcp && !self.plan.rtcp_mux { Component::Rtcp } else { Component::Rtp };
        let to = self.destination(component).ok_or(DropReason::NoDestination)?;
        let Leg { plan, rtp: first, rtcp: second, sdes, .. } = self;
        let (protect, index) = match &plan.security {
            Security::None => return Ok((component, to, length)),
            Security::Sdes(keys) => (sdes.protect(), index.filter(|_| keys.is_shared)),
            Security::Dtls(_) => {
                let channel = match component {
                    Component::Rtp => first,
                    Component::Rtcp => second,
                };
                (channel.keys.as_mut().map(|keys| &mut keys.protect), None)
            }
        };
        let protect = protect.ok_or(DropReason::NoKeys)?;
        let length = match (rtcp, index) {
            (false, _) => protect.protect_rtp(buffer, length),
            (true, Some(index)) => protect.protect_rtcp_as(buffer, length, index),
            (true, None) => protect.protect_rtcp(buffer, length),
        };
        Ok((component, to, length.map_err(DropReason::from)?))
    }

    /// Where this side's packets go.
    pub fn destination(&self, component: Component) -> Option<SocketAddr> {
        let component = if self.plan.rtcp_mux { Component::Rtp } else { component };
        let channel = self.channel(component);
        if self.plan.ice.is_some() {
            return channel.nominated().or_else(|| channel.dtls.as_ref().and_then(|dtls| dtls.peer));
        }
        channel.path.destination(self.plan.learning)
    }

    /// The SRTP suite in use, if any.
    pub fn suite(&self) -> Option<Suite> {
        match &self.plan.security {
            Security::None => None,
            Security::Sdes(_) => self.sdes.protect.current().map(srtp::Context::suite),
            Security::Dtls(_) => self.rtp.keys.as_ref().map(|keys| keys.protect.suite()),
        }
    }

    /// Whether a nominated pair is there.
    pub fn ice_connected(&self) -> bool {
        self.rtp.nominated().is_some()
    }
}

/// Keys that the SDP gave, and those that it gave before.
///
/// A key that comes back, or never went, goes on where it was: an index that is used again for other bytes gives both away,
/// and a window that begins anew takes old packets for new ones (RFC 3711 §3.3.2, §9.1). So a context lives on while the
/// other direction's key changes, and while the leg has other keys or none.
#[derive(Default)]
struct Sdes {
    protect: Contexts,
    unprotect: Contexts,
}

impl Sdes {
    /// Both directions, once both keys are known; until then neither.
    fn apply(&mut self, plan: &SdesPlan) {
        let chosen = Suite::from_sdes(&plan.suite).is_some_and(|suite| {
            self.protect.choose(suite, &plan.local_key, &plan.local_mki)
                && self.unprotect.choose(suite, &plan.remote_key, &plan.remote_mki)
        });
        if !chosen {
            self.protect.in_use = false;
            self.unprotect.in_use = false;
        }
    }

    fn protect(&mut self) -> Option<&mut srtp::Context> {
        self.protect.current_mut()
    }

    fn unprotect(&mut self) -> Option<&mut srtp::Context> {
        self.unprotect.current_mut()
    }
}

/// One direction: a context for each key that was in use, the latest first.
#[derive(Default)]
struct Contexts {
    known: Vec<(Suite, Vec<u8>, srtp::Context)>,
    in_use: bool,
}

impl Contexts {
    /// Takes the context of this key to the front, or makes it; false where suite, key and identifier make none.
    fn choose(&mut self, suite: Suite, key: &[u8], mki: &[u8]) -> bool {
        let at = self.known.iter().position(|(of, with, _)| *of == suite && with == key);
        let known = match at {
            Some(at) => Some(self.known.remove(at)),
            None => srtp::Context::from_concatenated(suite, key).ok().map(|new| (suite, key.to_vec(), new)),
        };
        let Some(mut known) = known else { return false };
        self.in_use = known.2.set_mki(mki).is_ok();
        self.known.insert(0, known);
        self.known.truncate(SDES_KEYS);
        self.in_use
    }

    fn current(&self) -> Option<&srtp::Context> {
        self.known.first().filter(|_| self.in_use).map(|(_, _, context)| context)
    }

    fn current_mut(&mut self) -> Option<&mut srtp::Context> {
        self.known.first_mut().filter(|_| self.in_use).map(|(_, _, context)| context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn the_advertised_address_is_locked_at_once() {
        let mut path = Path::default();
        let phone = address("192.0.2.1:4000");
        path.apply(Some(phone), true);
        assert_eq!(path.destination(Learning::Immediate), Some(phone));
        assert_eq!(path.admit(at(0), phone, Learning::Immediate), Admission::Learned(phone));
        assert_eq!(path.admit(at(10), address("192.0.2.9:4000"), Learning::Immediate), Admission::Refused);
        assert_eq!(path.admit(at(20), phone, Learning::Immediate), Admission::Known);
        assert_eq!(
            path.admit(at(60_000), address("192.0.2.9:4000"), Learning::Immediate),
            Admission::Refused
        );
    }

    #[test]
    fn behind_nat_the_first_source_is_learned_and_a_better_one_replaces_it() {
        let mut path = Path::default();
        path.apply(Some(address("10.0.0.1:4000")), true);
        let (nat, other) = (address("198.51.100.1:61000"), address("203.0.113.5:1"));
        assert_eq!(path.admit(at(0), nat, Learning::Immediate), Admission::Learned(nat));
        assert_eq!(path.admit(at(20), other, Learning::Immediate), Admission::Refused);
        assert_eq!(path.destination(Learning::Immediate), Some(nat));
        // The advertised one shows up within the window.
        let phone = address("10.0.0.1:4000");
        assert_eq!(path.admit(at(40), phone, Learning::Immediate), Admission::Learned(phone));
        assert_eq!(path.admit(at(60), nat, Learning::Immediate), Admission::Refused);
    }

    #[test]
    fn the_window_closes() {
        let mut path = Path::default();
        path.apply(Some(address("10.0.0.1:4000")), true);
        let (nat, other) = (address("198.51.100.1:61000"), address("203.0.113.5:1"));
        path.admit(at(0), nat, Learning::Immediate);
        // Silent for long enough, within the window.
        assert_eq!(path.admit(at(600), other, Learning::Immediate), Admission::Learned(other));
        assert_eq!(path.admit(at(9_000), nat, Learning::Immediate), Admission::Refused);
        // A re-INVITE with the same address opens it again.
        path.apply(Some(address("10.0.0.1:4000")), true);
        assert_eq!(path.admit(at(9_020), nat, Learning::Immediate), Admission::Learned(nat));
    }

    #[test]
    fn nobody_is_learned_before_the_sdp_and_hold_forgets_nothing() {
        let mut path = Path::default();
        let phone = address("10.0.0.1:4000");
        assert_eq!(path.admit(at(0), phone, Learning::Immediate), Admission::Refused);
        path.apply(Some(phone), true);
        path.admit(at(20), phone, Learning::Immediate);
        path.apply(None, true);
        assert_eq!(path.admit(at(40), phone, Learning::Immediate), Admission::Known);
        assert_eq!(path.destination(Learning::Immediate), None);
    }

    #[test]
    fn strict_locks_the_first_and_off_never_moves() {
        let (phone, other) = (address("10.0.0.1:4000"), address("203.0.113.5:1"));
        let mut path = Path::default();
        path.apply(Some(phone), true);
        assert_eq!(path.admit(at(0), other, Learning::Strict), Admission::Learned(other));
        assert_eq!(path.admit(at(900), phone, Learning::Strict), Admission::Refused);
        let mut path = Path::default();
        path.apply(Some(phone), true);
        assert_eq!(path.admit(at(0), other, Learning::Off), Admission::Known);
        assert_eq!(path.destination(Learning::Off), Some(phone));
    }
}
