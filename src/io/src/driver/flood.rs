//! Keeps what flooding addresses send from the machine: `--rate-limit`.
//!
//! In: each packet that came, and each answer that leaves. Out: whether it is looked at. What counts is all but responses:
//! requests, and what is no SIP. The account is `core::rate`'s; here is who is exempt, and what a SIP message is to it.

use super::RateLimit;
use sipbox_core::cidr::Cidr;
use sipbox_core::machine::{Event, Level};
use sipbox_core::rate::{BAN, Rate, Verdict};
use sipbox_core::rng::Rng;
use sipbox_core::sip::{Message, Method};
use sipbox_core::time::Instant;
use std::net::IpAddr;

/// A worker's guard.
pub(super) struct Flood {
    rate: Rate,
    limit: RateLimit,
}

impl Flood {
    pub fn new(limit: RateLimit, rng: &mut Rng) -> Self {
        Flood { rate: Rate::new(limit.most, limit.window, rng), limit }
    }

    /// Whether a packet from there is taken; a ban brings the one event that tells of it.
    pub fn takes(&mut self, now: Instant, from: IpAddr, data: &[u8]) -> Result<(), Option<Event>> {
        if data.starts_with(b"SIP/2.0 ") || Cidr::any(&self.limit.exempt, from) {
            return Ok(());
        }
        match self.rate.count(now, from) {
            Verdict::Take => Ok(()),
            Verdict::Drop => Err(None),
            Verdict::Ban => Err(Some(self.told(from))),
        }
    }

    /// Whether a connection from there is dropped before anybody shakes hands with it.
    pub fn is_banned(&self, now: Instant, from: IpAddr) -> bool {
        self.rate.is_banned(now, from)
    }

    fn told(&self, from: IpAddr) -> Event {
        Event::new(Level::Warn, "banned")
            .with("peer", from)
            .with("reason", format!("over {} requests in {} s", self.limit.most, self.limit.window.as_secs()))
            .with("seconds", BAN.as_secs())
            .with("mend", "a server of yours belongs into --edge, a trunk into --trust")
    }

    /// An answer leaves. A registration, a subscription or a call that came about shows that there is somebody.
    pub fn answered(&mut self, now: Instant, to: IpAddr, data: &[u8]) {
        if !data.starts_with(b"SIP/2.0 2") || Cidr::any(&self.limit.exempt, to) {
            return;
        }
        let proves = |method: Method<'_>| match method {
            Method::Register | Method::Invite | Method::Subscribe | Method::Publish => true,
            Method::Ack
            | Method::Bye
            | Method::Cancel
            | Method::Options
            | Method::Notify
            | Method::Refer
            | Method::Info
            | Method::Prack
            | Method::Update
            | Method::Message
            | Method::Other(_) => false,
        };
        if Message::parse(data).is_ok_and(|message| message.cseq().is_ok_and(|(_, method)| proves(method))) {
            self.rate.served(now, to);
        }
    }

    /// For the state dump.
    pub fn dump(&self, now: Instant, out: &mut Vec<String>) {
        for (address, dropped) in self.rate.banned(now) {
            out.push(serde_json::json!({ "banned": address.to_string(), "dropped": dropped }).to_string());
        }
        if self.rate.dropped() > 0 {
            out.push(serde_json::json!({ "dropped_of_banned": self.rate.dropped() }).to_string());
        }
    }
}
