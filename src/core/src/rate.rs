//! How much one source may send: `--rate-limit N/SECONDS`.
//!
//! In: the address of each packet that is no response, and of whoever was answered as one who proved himself. Out: to
//! take it, or to drop it before anybody reads it. An address that sends more than N in a window of SECONDS is banned for
//! [`BAN`]. One that was served lately, so that somebody there has a password or a call, may send [`SERVED`] times as much:
//! an office behind one NAT boots its phones at once, a switchboard subscribes to everybody. IPv6 counts by /64, since that
//! is what one customer has. Not here: who is exempt (`driver`), because it depends on flags; log lines.

use crate::limits::{RATE_SOURCES, RATE_STANDING};
use crate::rng::{KeyedHash, Rng};
use crate::time::Instant;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// How long a flooding address is banned.
pub const BAN: Duration = Duration::from_secs(300);
/// How long an address that was served counts as such: longer than a phone's registration.
const STANDING: Duration = Duration::from_secs(2 * 3600);
/// What it may send, times what a stranger may.
pub const SERVED: u32 = 64;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Take,
    /// The first one too many: it is dropped, and to be told.
    Ban,
    /// Of a banned address.
    Drop,
}

#[derive(Clone, Copy)]
enum Standing {
    Banned { until: Instant, dropped: u64 },
    Served { until: Instant },
}

/// One server's, or one worker's, account.
pub struct Rate {
    most: u32,
    window: Duration,
    window_ends: Instant,
    /// In this window.
    counts: HashMap<IpAddr, u32, KeyedHash>,
    standing: HashMap<IpAddr, Standing, KeyedHash>,
    dropped: u64,
    /// When those whose time is over were last looked for.
    swept: Instant,
}

impl Rate {
    pub fn new(most: u32, window: Duration, rng: &mut Rng) -> Self {
        let hash = KeyedHash::new(rng);
        Rate {
            most,
            window,
            window_ends: Instant::default(),
            counts: HashMap::with_hasher(hash.clone()),
            standing: HashMap::with_hasher(hash),
            dropped: 0,
            swept: Instant::default(),
        }
    }

    /// A request, or anything else that is no response, came from there.
    pub fn count(&mut self, now: Instant, from: IpAddr) -> Verdict {
        let from = key(from);
        let mut most = self.most;
        match self.standing.get_mut(&from) {
            Some(Standing::Banned { until, dropped }) if *until > now => {
                *dropped += 1;
                self.dropped += 1;
                return Verdict::Drop;
            }
            Some(Standing::Served { until }) if *until > now => most = most.saturating_mul(SERVED),
            Some(Standing::Banned { .. } | Standing::Served { .. }) => {
                self.standing.remove(&from);
            }
            None => {}
        }
        if now >= self.window_ends {
            self.counts.clear();
            self.window_ends = now + self.window;
        }
        if let Some(count) = self.counts.get_mut(&from) {
            *count += 1;
            if *count <= most {
                return Verdict::Take;
            }
        } else {
            // A flood from more addresses than that is made of forged ones, and to ban them would ban others.
            if self.counts.len() < RATE_SOURCES {
                self.counts.insert(from, 1);
            }
            return Verdict::Take;
        }
        self.dropped += 1;
        self.put(now, from, Standing::Banned { until: now + BAN, dropped: 1 });
        Verdict::Ban
    }

    /// Whether it is banned now; a look, that counts nothing.
    pub fn is_banned(&self, now: Instant, from: IpAddr) -> bool {
        matches!(self.standing.get(&key(from)), Some(Standing::Banned { until, .. }) if *until > now)
    }

    /// Something that takes a password, or somebody's answering, was done for it.
    pub fn served(&mut self, now: Instant, to: IpAddr) {
        let to = key(to);
        match self.standing.get(&to) {
            // A ban is not lifted by what was asked before it; and one word in half the time is enough.
            Some(Standing::Banned { until, .. }) if *until > now => {}
            Some(Standing::Served { until }) if *until > now + STANDING / 2 => {}
            Some(Standing::Banned { .. } | Standing::Served { .. }) | None => {
                self.put(now, to, Standing::Served { until: now + STANDING });
            }
        }
    }

    fn put(&mut self, now: Instant, address: IpAddr, standing: Standing) {
        if self.standing.len() >= RATE_STANDING && !self.standing.contains_key(&address) {
            // Those whose time is over make room. Looking for them takes long, so it is not done for each.
            if now < self.swept + self.window {
                return;
            }
            self.swept = now;
            self.standing.retain(|_, standing| match standing {
                Standing::Banned { until, .. } | Standing::Served { until } => *until > now,
            });
            if self.standing.len() >= RATE_STANDING {
                return;
            }
        }
        self.standing.insert(address, standing);
    }

    /// Packets that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The banned addresses, with what was dropped of each.
    pub fn banned(&self, now: Instant) -> impl Iterator<Item = (IpAddr, u64)> + '_ {
        self.standing.iter().filter_map(move |(address, standing)| match standing {
            Standing::Banned { until, dropped } if *until > now => Some((*address, *dropped)),
            Standing::Banned { .. } | Standing::Served { .. } => None,
        })
    }
}

fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate() -> Rate {
        Rate::new(16, 2 * SECOND, &mut Rng::from_seed(1))
    }

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(1000 + seconds)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_seventeenth_in_two_seconds_is_banned_for_five_minutes() {
        let (mut rate, flood, phone) = (rate(), ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..16 {
            assert_eq!(rate.count(at(0), flood), Verdict::Take);
        }
        assert_eq!(rate.count(at(1), flood), Verdict::Ban);
        assert_eq!(rate.count(at(1), flood), Verdict::Drop);
        assert_eq!(rate.count(at(1), phone), Verdict::Take, "others are not touched");
        assert!(rate.is_banned(at(1), flood) && !rate.is_banned(at(1), phone));
        rate.served(at(1), flood);
        assert_eq!(rate.count(at(300), flood), Verdict::Drop, "a late answer does not lift it");
        assert_eq!(rate.banned(at(300)).collect::<Vec<_>>(), [(flood, 3)]);
        assert_eq!(rate.count(at(301), flood), Verdict::Take);
        assert_eq!(rate.banned(at(301)).count(), 0);
        assert_eq!(rate.dropped(), 3);
    }

    #[test]
    fn sixteen_in_each_window_go_on_for_ever() {
        let mut rate = rate();
        for n in 0..1000 {
            assert_eq!(rate.count(at(n / 8), ip("192.0.2.1")), Verdict::Take, "{n}");
        }
    }

    /// An office: sixty phones behind one address, each challenged once and then let in, within one second; and then
    /// their subscriptions.
    #[test]
    fn an_office_boots_after_its_first_phone_is_in() {
        let (mut rate, office) = (rate(), ip("198.51.100.7"));
        for _ in 0..60 {
            assert_eq!(rate.count(at(0), office), Verdict::Take);
            assert_eq!(rate.count(at(0), office), Verdict::Take);
            rate.served(at(0), office);
        }
        // And an hour later.
        for _ in 0..(16 * SERVED) {
            assert_eq!(rate.count(at(3600), office), Verdict::Take);
        }
        assert_eq!(rate.count(at(3600), office), Verdict::Ban, "there is an end");
    }

    #[test]
    fn ipv6_counts_by_its_network() {
        let mut rate = rate();
        for n in 0..16 {
            assert_eq!(rate.count(at(0), ip(&format!("2001:db8::{n:x}"))), Verdict::Take);
        }
        assert_eq!(rate.count(at(0), ip("2001:db8::ffff")), Verdict::Ban);
        assert_eq!(rate.count(at(0), ip("2001:db8:0:1::1")), Verdict::Take);
        assert_eq!(rate.count(at(0), ip("::ffff:192.0.2.1")), Verdict::Take);
    }

    #[test]
    fn forged_sources_fill_no_memory_and_hide_nobody() {
        let mut rate = rate();
        let forged = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
        let flood = ip("192.0.2.1");
        for _ in 0..17 {
            rate.count(at(0), flood);
        }
        for n in 0..(RATE_SOURCES as u32 * 2) {
            assert_eq!(rate.count(at(1), forged(n)), Verdict::Take);
        }
        assert!(rate.counts.len() <= RATE_SOURCES);
        assert_eq!(rate.count(at(1), flood), Verdict::Drop);
        for n in 0..(RATE_STANDING as u32 * 2) {
            rate.served(at(1), forged(n));
        }
        assert!(rate.standing.len() <= RATE_STANDING);
        // Their time over, there is room again.
        rate.served(at(8000), ip("192.0.2.9"));
        assert_eq!(rate.standing.len(), 1);
    }
}
