//! What a relay would put in: addresses, ports, secrets, from the command line or from a seed.
//!
//! In: what the flags pin. Out: a [`Supply`] for the rewriter. Not here: how it is used (`sipbox_core::rewrite`).

use sipbox_core::media::plan::Side;
use sipbox_core::rewrite::{Address, Supply, Want};
use sipbox_core::rng::Rng;
use sipbox_core::sdp::{Family, Fingerprint};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a relay would have.
pub struct Pinned {
    pub addresses: Vec<IpAddr>,
    /// The first one, and the next one that is free.
    pub first_port: u16,
    pub port: u16,
    pub fingerprint: Fingerprint,
    pub foundation: String,
    pub ufrag: Option<String>,
    pub pwd: Option<String>,
    pub rng: Rng,
}

impl Supply for Pinned {
    fn ports(&mut self, _: usize, _: Side, want: &Want) -> Result<Address, String> {
        let fits = |ip: &&IpAddr| want.family.is_none_or(|family| family == Family::of(ip));
        let advertised = match self.addresses.iter().find(fits) {
            Some(address) => *address,
            None if self.addresses.is_empty() && want.family != Some(Family::V6) => {
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            }
            None => return Err("none of that address family; give --media-address".to_owned()),
        };
        // A long stream begins again: no port is really opened.
        if self.port == u16::MAX {
            self.port = self.first_port;
        }
        let rtcp = self.port.saturating_add(1);
        let address = Address {
            advertised,
            rtp: SocketAddr::new(advertised, self.port),
            rtcp: SocketAddr::new(advertised, rtcp),
        };
        self.port = rtcp.checked_add(1).unwrap_or(self.first_port);
        Ok(address)
    }

    fn more_ports(&mut self, media: usize, side: Side, want: &Want) -> Option<Address> {
        let is_there = self.addresses.iter().any(|ip| want.family == Some(Family::of(ip)));
        is_there.then(|| self.ports(media, side, want).ok()).flatten()
    }

    fn ice(&mut self) -> (String, String) {
        let ufrag = self.ufrag.clone().unwrap_or_else(|| self.rng.token(8));
        let pwd = self.pwd.clone().unwrap_or_else(|| self.rng.token(26));
        (ufrag, pwd)
    }

    fn foundation(&mut self) -> String {
        self.foundation.clone()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint.clone()
    }

    /// There is no certificate: what stands for one is as long as it would be.
    fn fingerprint_by(&self, hash: &str) -> Option<Fingerprint> {
        let length = match hash {
            "sha-256" => 32,
            "sha-384" => 48,
            "sha-512" => 64,
            _ => return None,
        };
        if self.fingerprint.hash == hash {
            return Some(self.fingerprint());
        }
        let digest = self.fingerprint.digest.iter().copied().cycle().take(length).collect();
        Some(Fingerprint { hash: hash.to_owned(), digest })
    }

    fn sdes_key(&mut self) -> Vec<u8> {
        let mut key = vec![0; 30];
        self.rng.fill(&mut key);
        key
    }
}
