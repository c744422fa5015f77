//! ICE of one leg, around the crate `is`.
//!
//! RFC 8445, RFC 7675 (consent), RFC 8838 (candidates may come late). Each agent has one component: where RTCP is not
//! multiplexed, a second one runs on its port, with the same credentials.
//! In: the [`IcePlan`], STUN datagrams, time. Out: STUN datagrams, the nominated address, and which sources
//! proved that they know our password.
//! This file and `dtls` are the listed exceptions of invariant 1: the crate wants a `std::time::Instant`, and draws
//! transaction identifiers and its tie-breaker itself. No clock is read here: an [`Anchor`] is handed in.
//! Not here: where candidates come from (`ports`, the SDP).

#![allow(clippy::disallowed_types, reason = "the crate's interface; nothing reads a clock here")]

use super::leg::Component;
use super::plan::{IcePlan, IceRemote};
use crate::limits::{ICE_CANDIDATES, ICE_SOURCES};
use crate::time::Instant;
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, DefaultSha1HmacProvider, IceAgent, IceAgentEvent, IceCreds, Protocol, Sha1HmacProvider};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// One moment on both clocks, so that our numbers can be told to crates that want the standard library's.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    pub ours: Instant,
    pub std: std::time::Instant,
}

impl Anchor {
    pub(super) fn to_std(self, at: Instant) -> std::time::Instant {
        self.std + at.saturating_since(self.ours)
    }

    pub(super) fn to_ours(self, at: std::time::Instant) -> Instant {
        self.ours + at.saturating_duration_since(self.std)
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The pair to send on; may come again with another.
    Nominated(SocketAddr),
    /// No pair answers any more.
    Disconnected,
}

/// The addresses of this component that are offered.
fn locals(plan: &IcePlan, component: Component) -> impl Iterator<Item = SocketAddr> + '_ {
    let list = match component {
        Component::Rtp => &plan.local_candidates,
        Component::Rtcp => &plan.local_rtcp,
    };
    list.iter().copied().take(ICE_CANDIDATES)
}

/// The value of an `a=candidate` line as an agent of one component takes it; `None` for one of the other component.
fn of_component(line: &str, component: Component) -> Option<String> {
    let (foundation, rest) = line.trim().split_once(' ')?;
    let (number, rest) = rest.trim_start().split_once(' ')?;
    let wanted = match component {
        Component::Rtp => "1",
        Component::Rtcp => "2",
    };
    (number == wanted).then(|| format!("candidate:{foundation} 1 {rest}"))
}

/// The agent of one leg.
pub struct Ice {
    agent: IceAgent,
    anchor: Anchor,
    component: Component,
    plan: IcePlan,
    nominated: Option<SocketAddr>,
    /// Who sent a request or a reply with our password's integrity, the latest last.
    sources: Vec<SocketAddr>,
    replies: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<Event>,
    deadline: Option<Instant>,
}

impl Ice {
    pub fn new(plan: &IcePlan, component: Component, now: Instant, anchor: Anchor) -> Ice {
        let mut agent =
            IceAgent::new(IceCreds { ufrag: plan.local_ufrag.clone(), pass: plan.local_pwd.clone() });
        agent.set_controlling(plan.controlling);
        agent.set_ice_lite(plan.lite);
        agent.set_max_candidate_pairs(ICE_CANDIDATES);
        for address in locals(plan, component) {
            if let Ok(candidate) = Candidate::host(address, "udp") {
                agent.add_local_candidate(candidate);
            }
        }
        let mut ice = Ice {
            agent,
            anchor,
            component,
            plan: IcePlan { remote: None, ..plan.clone() },
            nominated: None,
            sources: Vec::new(),
            replies: VecDeque::new(),
            events: VecDeque::new(),
            deadline: None,
        };
        ice.agent.handle_timeout(anchor.to_std(now));
        ice.set_remote(now, plan.remote.as_ref());
        ice.pump();
        ice
    }

    /// Takes what signalling changed. New credentials on either side are a restart (RFC 8445 §9): what was nominated
    /// stays in use until the new pair is.
    pub fn apply(&mut self, plan: &IcePlan, now: Instant) {
        let known: Vec<SocketAddr> = locals(&self.plan, self.component).collect();
        let local = self.plan.local_ufrag != plan.local_ufrag || self.plan.local_pwd != plan.local_pwd;
        let remote = match (&self.plan.remote, &plan.remote) {
            (Some(old), Some(new)) => old.ufrag != new.ufrag || old.pwd != new.pwd,
            _ => false,
        };
        if local || remote {
            let creds = IceCreds { ufrag: plan.local_ufrag.clone(), pass: plan.local_pwd.clone() };
            self.agent.set_controlling(plan.controlling);
            self.agent.set_ice_lite(plan.lite);
            self.agent.ice_restart(creds, true);
            self.plan = IcePlan { remote: None, ..plan.clone() };
        }
        for address in locals(plan, self.component) {
            if !known.contains(&address)
                && let Ok(candidate) = Candidate::host(address, "udp")
            {
                self.agent.add_local_candidate(candidate);
            }
        }
        self.plan.local_candidates.clone_from(&plan.local_candidates);
        self.plan.local_rtcp.clone_from(&plan.local_rtcp);
        self.set_remote(now, plan.remote.as_ref());
        self.pump();
    }

    fn set_remote(&mut self, now: Instant, remote: Option<&IceRemote>) {
        let Some(remote) = remote else { return };
        let known = self.plan.remote.as_ref().map_or(&[][..], |known| &known.candidates);
        for line in remote.candidates.iter().take(ICE_CANDIDATES).filter(|line| !known.contains(line)) {
            // A name (mDNS) or TCP is no candidate for us: such a peer is found by its own checks.
            if let Some(line) = of_component(line, self.component)
                && let Ok(candidate) = Candidate::from_sdp_string(&line)
                && candidate.proto() == Protocol::Udp
            {
                self.agent.add_remote_candidate(candidate);
            }
        }
        if self.plan.remote.is_none() {
            self.agent
                .set_remote_credentials(IceCreds { ufrag: remote.ufrag.clone(), pass: remote.pwd.clone() });
            // Checks that came before the credentials wait in the agent; it takes one at each call.
            for _ in 0..8 {
                self.agent.handle_timeout(self.anchor.to_std(now));
            }
        }
        self.plan.remote = Some(remote.clone());
    }

    /// A datagram that looks like STUN. False where it is not for this agent, or its integrity fails.
    pub fn handle_packet(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> bool {
        let same_family = |local: &SocketAddr| local.is_ipv4() == from.is_ipv4();
        let Some(local) = locals(&self.plan, self.component).find(same_family) else {
            return false;
        };
        let Ok(message) = StunMessage::parse(datagram) else { return false };
        let early = self.plan.remote.is_none()
            && message.is_binding_request()
            && self.agent.accepts_message(&message);
        if early {
            self.answer_early(from, &message);
        }
        let packet = StunPacket { proto: Protocol::Udp, source: from, destination: local, message };
        let accepted = self.agent.handle_packet(self.anchor.to_std(now), packet);
        if accepted {
            self.agent.handle_timeout(self.anchor.to_std(now));
        }
        self.pump();
        accepted
    }

    /// RFC 8445 §7.3: a check that comes before the peer's answer is answered at once, since only our own password is
    /// needed for it. The agent would wait for the answer, and so would the peer's DTLS.
    fn answer_early(&mut self, from: SocketAddr, request: &StunMessage<'_>) {
        let mut reply = vec![0; 128];
        let written = StunMessage::binding_reply(request.trans_id(), from).to_bytes(
            Some(self.plan.local_pwd.as_bytes()),
            &mut reply,
            |key, parts| DefaultSha1HmacProvider.sha1_hmac(key, parts),
        );
        if let Ok(length) = written
            && self.replies.len() < ICE_SOURCES
        {
            reply.truncate(length);
            self.replies.push_back((from, reply));
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.agent.handle_timeout(self.anchor.to_std(now));
        self.pump();
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// The next STUN datagram and where it goes.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.replies.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Where media goes.
    pub fn nominated(&self) -> Option<SocketAddr> {
        self.nominated
    }

    /// Whether this source showed that it knows our password, so that its DTLS and media are listened to.
    pub fn is_valid(&self, source: SocketAddr) -> bool {
        self.nominated == Some(source) || self.sources.contains(&source)
    }

    fn pump(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            if self.replies.len() < 4 * ICE_CANDIDATES {
                self.replies.push_back((transmit.destination, transmit.contents.to_vec()));
            }
        }
        while let Some(event) = self.agent.poll_event() {
            match event {
                IceAgentEvent::IceRestart(_) => {}
                IceAgentEvent::IceConnectionStateChange(state) => {
                    if state.is_disconnected() && self.nominated.is_some() {
                        self.events.push_back(Event::Disconnected);
                    }
                }
                IceAgentEvent::DiscoveredRecv { source, .. } => {
                    if !self.sources.contains(&source) {
                        if self.sources.len() >= ICE_SOURCES {
                            self.sources.remove(0);
                        }
                        self.sources.push(source);
                    }
                }
                IceAgentEvent::NominatedSend { destination, .. } => {
                    if self.nominated != Some(destination) {
                        self.nominated = Some(destination);
                        self.events.push_back(Event::Nominated(destination));
                    }
                }
            }
        }
        self.deadline = self.agent.poll_timeout().map(|at| self.anchor.to_ours(at));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "an anchor needs a real clock once")]

    use super::*;
    use std::time::Duration;

    const FULL: &str = "192.0.2.20:6000";
    const LITE: &str = "192.0.2.10:10000";

    fn agent(own: &str, other: &str, lite: bool, now: Instant, anchor: Anchor) -> Ice {
        let at: SocketAddr = other.parse().unwrap();
        let plan = IcePlan {
            local_ufrag: format!("ufrag{lite}"),
            local_pwd: "passwordpasswordpassword".into(),
            remote: Some(IceRemote {
                ufrag: format!("ufrag{}", !lite),
                pwd: "passwordpasswordpassword".into(),
                candidates: vec![format!("1 1 udp 2130706431 {} {} typ host", at.ip(), at.port())],
                lite: !lite,
            }),
            controlling: !lite,
            lite,
            local_candidates: vec![own.parse().unwrap()],
            local_rtcp: Vec::new(),
        };
        Ice::new(&plan, Component::Rtp, now, anchor)
    }

    /// RFC 8445 §7, §8.1.2: a lite agent sends no check, answers those of a full one, and takes what that nominates.
    #[test]
    fn a_lite_agent_answers_only() {
        let mut now = Instant::from_secs(1_000);
        let anchor = Anchor { ours: now, std: std::time::Instant::now() };
        let mut lite = agent(LITE, FULL, true, now, anchor);
        let mut full = agent(FULL, LITE, false, now, anchor);
        let mut answers = 0;
        for _ in 0..200 {
            now = now + Duration::from_millis(10);
            for agent in [&mut lite, &mut full] {
                if agent.poll_timeout().is_some_and(|at| at <= now) {
                    agent.handle_timeout(now);
                }
            }
            while let Some((to, check)) = full.poll_transmit() {
                assert_eq!(to, LITE.parse().unwrap());
                assert!(lite.handle_packet(now, FULL.parse().unwrap(), &check));
            }
            while let Some((to, answer)) = lite.poll_transmit() {
                assert_eq!((to, &answer[..2]), (FULL.parse().unwrap(), &[1, 1][..]), "a binding response");
                answers += 1;
                full.handle_packet(now, LITE.parse().unwrap(), &answer);
            }
        }
        assert!(answers > 0);
        assert_eq!(lite.poll_event(), Some(Event::Nominated(FULL.parse().unwrap())));
        assert_eq!(full.poll_event(), Some(Event::Nominated(LITE.parse().unwrap())));
        // Who falls silent is given up: there are no checks of our own to notice it by (RFC 7675).
        let end = now + Duration::from_secs(120);
        while let Some(at) = lite.poll_timeout().filter(|at| *at <= end) {
            now = now.max(at) + Duration::from_millis(1);
            lite.handle_timeout(now);
        }
        assert_eq!(lite.poll_event(), Some(Event::Disconnected));
    }
}
