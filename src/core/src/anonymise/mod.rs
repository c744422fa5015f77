//! Session descriptions and SIP messages without anybody's name, address, key or tag, and with all of their structure.
//!
//! RFC 5737, 3849, 6676 and 2606 (what documentation may name), 1918, 4193. In: a key, and texts. Out: texts of the same
//! structure. The same goes in, the same comes out, in every message and file of one [`Anonymiser`]; what differs stays different
//! as far as there is room. A private address stays in its private network, a public one becomes one of documentation, IPv6 stays
//! IPv6; digits stay digits, and letters letters. Kept as they are: codecs and their parameters, ports, mids, times, what
//! software calls itself. Not here: streams, ng dictionaries (whoever reads them calls [`Anonymiser::field`]).

mod names;
mod sdp;
mod sip;
#[cfg(test)]
mod tests;

use crate::limits::ANONYMISED_ADDRESSES;
use crate::rng::Rng;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a text is: the same text as something else becomes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// People and extensions.
    User,
    /// What a display shows: words.
    Words,
    Host,
    Address,
    Tag,
    CallId,
    Branch,
    /// ICE fragments, passwords, foundations.
    Ice,
    /// Keys, digests, nonces, answers to challenges.
    Secret,
    /// Streams: SSRC, cname, msid.
    Stream,
    /// The session's number in o=.
    Session,
}

/// Replaces names by names.
pub struct Anonymiser {
    /// HMAC with the key set, to be cloned.
    mac: Hmac<Sha256>,
    /// Public IPv4 addresses, and what became of them: documentation has too few to draw them by hash alone.
    public: HashMap<Ipv4Addr, Ipv4Addr>,
    taken: HashSet<Ipv4Addr>,
}

impl Anonymiser {
    /// The key is drawn: the same seed makes the same names.
    pub fn new(rng: &mut Rng) -> Self {
        let mut key = [0; 64];
        rng.fill(&mut key);
        Anonymiser { mac: Hmac::new(&key.into()), public: HashMap::new(), taken: HashSet::new() }
    }

    /// 32 bytes that only who has the key can tell from chance.
    fn draw(&self, class: Class, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        mac.update(&[class as u8]);
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn draw_u64(&self, class: Class, parts: &[&[u8]]) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.draw(class, parts);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// So many bytes.
    fn draw_bytes(&self, class: Class, text: &[u8], length: usize) -> Vec<u8> {
        let blocks =
            (0..length.div_ceil(32) as u64).flat_map(|n| self.draw(class, &[text, &n.to_be_bytes()]));
        blocks.take(length).collect()
    }

    /// Permutes symbols, each below its radix: a Feistel network over the two halves, so that no two texts become one.
    fn permute(&self, class: Class, symbols: &mut [(u32, u32)]) {
        let half = symbols.len() / 2;
        let radices: Vec<u8> = symbols.iter().flat_map(|(_, radix)| radix.to_be_bytes()).collect();
        for round in 0_u8..6 {
            let (left, right) = symbols.split_at_mut(half);
            let (from, to) = if round % 2 == 0 { (left, right) } else { (right, left) };
            let text: Vec<u8> = from.iter().flat_map(|(symbol, _)| symbol.to_be_bytes()).collect();
            let mut key = [0; 32];
            for (index, (symbol, radix)) in to.iter_mut().enumerate() {
                if index % 8 == 0 {
                    key = self.draw(class, &[&[round], &radices, &text, &(index as u64).to_be_bytes()]);
                }
                let at = index % 8 * 4;
                let add = key[at..at + 4].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
                *symbol = ((u64::from(*symbol) + add) % u64::from((*radix).max(1))) as u32;
            }
        }
    }

    /// An address, in a network of the same kind.
    pub fn address(&mut self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => IpAddr::V4(self.v4(address)),
            IpAddr::V6(address) => IpAddr::V6(self.v6(address)),
        }
    }

    fn v4(&mut self, address: Ipv4Addr) -> Ipv4Addr {
        let [a, b, c, d] = address.octets();
        if address.is_unspecified() || address.is_loopback() || address.is_broadcast() {
            return address;
        }
        let byte = |byte: u8| (u32::from(byte), 256);
        let mut symbols = [byte(b), byte(c), byte(d)];
        let network = match (a, b) {
            (10, _) => 0,
            (172, 16..32) => {
                symbols[0] = (u32::from(b) - 16, 16);
                16
            }
            (100, 64..128) => {
                symbols[0] = (u32::from(b) - 64, 64);
                64
            }
            (192, 168) | (169, 254) => {
                self.permute(Class::Address, &mut symbols[1..]);
                return Ipv4Addr::new(a, b, symbols[1].0 as u8, symbols[2].0 as u8);
            }
            // MCAST-TEST-NET (RFC 6676 §2).
            (224..240, _) => {
                let [last, ..] = self.draw(Class::Address, &[&address.octets()]);
                return Ipv4Addr::new(233, 252, 0, last.max(1));
            }
            _ => return self.public(address),
        };
        self.permute(Class::Address, &mut symbols);
        Ipv4Addr::new(a, symbols[0].0 as u8 + network, symbols[1].0 as u8, symbols[2].0 as u8)
    }

    /// The three networks of documentation (RFC 5737), and when they are full, the one for benchmarks (RFC 2544 §C.2.2).
    fn public(&mut self, address: Ipv4Addr) -> Ipv4Addr {
        const HOSTS: u64 = 254;
        if let Some(known) = self.public.get(&address) {
            return *known;
        }
        let drawn = self.draw_u64(Class::Address, &[&address.octets()]);
        let documented = |number: u64| {
            let host = (number % HOSTS + 1) as u8;
            match number / HOSTS % 3 {
                0 => Ipv4Addr::new(192, 0, 2, host),
                1 => Ipv4Addr::new(198, 51, 100, host),
                _ => Ipv4Addr::new(203, 0, 113, host),
            }
        };
        let others = |number: u64| {
            let [_, _, high, low] = (number as u32).to_be_bytes();
            Ipv4Addr::new(198, 18 + (number >> 16 & 1) as u8, high, low)
        };
        let all = 3 * HOSTS;
        let free = |taken: &HashSet<Ipv4Addr>, of: &dyn Fn(u64) -> Ipv4Addr, count: u64, tries: u64| {
            (0..tries).map(|n| of((drawn % count + n) % count)).find(|address| !taken.contains(address))
        };
        let full = self.public.len() >= all as usize;
        let found = if full { None } else { free(&self.taken, &documented, all, all) };
        let found =
            found.or_else(|| free(&self.taken, &others, 1 << 17, 64)).unwrap_or_else(|| others(drawn));
        if self.public.len() < ANONYMISED_ADDRESSES {
            self.public.insert(address, found);
            self.taken.insert(found);
        }
        found
    }

    fn v6(&mut self, address: Ipv6Addr) -> Ipv6Addr {
        if let Some(inner) = address.to_ipv4_mapped() {
            return self.v4(inner).to_ipv6_mapped();
        }
        if address.is_unspecified() || address.is_loopback() {
            return address;
        }
        let drawn = self.draw(Class::Address, &[&address.octets()]);
        let mut octets = [0; 16];
        octets.copy_from_slice(&drawn[..16]);
        let keep: &[u8] = if address.is_multicast() {
            &address.octets()[..2]
        } else if address.is_unicast_link_local() {
            &[0xfe, 0x80, 0, 0, 0, 0, 0, 0]
        } else if address.is_unique_local() {
            &[0xfd]
        } else {
            &[0x20, 0x01, 0x0d, 0xb8]
        };
        octets[..keep.len()].copy_from_slice(keep);
        Ipv6Addr::from(octets)
    }
}
