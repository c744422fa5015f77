//! `--interface` and `--port-range`: pairs of UDP ports for media legs.
//!
//! RFC 3550 §11: RTP on an even port, RTCP on the next. In: what a leg wants. Out: two bound sockets. Pairs are given
//! out in turn, so that one that was just freed is the last to come again: late packets of the old call then meet
//! a closed port. Not here: what happens on the sockets (`media`).

use crate::listen::set_tos;
use crate::start::{Kind, StartError};
use sipbox_core::relay::{Family, PortError, Want};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::str::FromStr;

/// What a socket may hold back for us: half a second of some calls' packets while the thread sleeps.
const RECEIVE_BUFFER: usize = 1 << 19;

/// `[NAME/]ADDRESS[!ADVERTISED]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: Option<String>,
    pub address: IpAddr,
    /// What peers are told.
    pub advertised: IpAddr,
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = |part: &str| {
            let bare = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')).unwrap_or(part);
            bare.parse::<IpAddr>().map_err(|_| format!("'{part}' is not an IP address"))
        };
        let (name, rest) = match text.split_once('/') {
            Some(("", _)) => return Err("no name before '/'".into()),
            Some((name, rest)) => (Some(name.to_owned()), rest),
            None => (None, text),
        };
        let (local, advertised) = match rest.split_once('!') {
            Some((local, advertised)) => (address(local)?, Some(address(advertised)?)),
            None => (address(rest)?, None),
        };
        if local.is_unspecified() {
            return Err("peers cannot send to an address of zeros; name one of this machine".into());
        }
        let advertised = advertised.unwrap_or(local);
        if advertised.is_ipv4() != local.is_ipv4() {
            return Err("the advertised address is of another family".into());
        }
        Ok(Interface { name, address: local, advertised })
    }
}

/// `LOW-HIGH`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    low: u16,
    high: u16,
}

impl Range {
    fn first(self) -> u16 {
        self.low.next_multiple_of(2)
    }

    /// Whole pairs in it.
    pub fn pairs(self) -> usize {
        (usize::from(self.high) + 1).saturating_sub(usize::from(self.first())) / 2
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (low, high) = text.split_once('-').ok_or("give it as LOW-HIGH")?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| format!("'{text}' is not a port"));
        let range = Range { low: port(low)?, high: port(high)? };
        if range.low == 0 || range.low == u16::MAX || range.pairs() == 0 {
            return Err("it holds no even port with the next odd one".into());
        }
        Ok(range)
    }
}

/// Two sockets of one leg.
#[derive(Debug)]
pub struct Pair {
    pub rtp: UdpSocket,
    pub rtcp: UdpSocket,
    pub address: SocketAddr,
    pub advertised: IpAddr,
}

struct Pool {
    interface: Interface,
    used: Vec<bool>,
    next: usize,
}

/// All pairs of all interfaces.
pub struct Allocator {
    range: Range,
    /// `--tos`: what the sockets' packets are marked with.
    tos: u8,
    pools: Vec<Pool>,
}

impl Allocator {
    /// Tries each address once, so that one that is not of this machine is told at start.
    pub fn new(interfaces: Vec<Interface>, range: Range) -> Result<Allocator, StartError> {
        for interface in &interfaces {
            UdpSocket::bind((interface.address, 0)).map_err(|error| {
                StartError::new(
                    Kind::System,
                    format!(
                        "--interface {}: {error}; give an address of this machine, see `ip address`",
                        interface.address
                    ),
                )
            })?;
        }
        let pools = interfaces
            .into_iter()
            .map(|interface| Pool { interface, used: vec![false; range.pairs()], next: 0 })
            .collect();
        Ok(Allocator { range, tos: 0, pools })
    }

    /// Marks what leaves all ports that are opened from now on.
    #[must_use]
    pub fn with_tos(mut self, tos: u8) -> Allocator {
        self.tos = tos;
        self
    }

    /// Binds the next free pair.
    pub fn open(&mut self, want: &Want) -> Result<Pair, PortError> {
        let (first, tos) = (self.range.first(), self.tos);
        let interface = |address| self.interfaces().find(|one| one.address == address);
        let beside = want.beside.and_then(interface).map(|one| one.name.clone());
        let fits = |pool: &&mut Pool| {
            let family = match want.family {
                None => true,
                Some(Family::V4) => pool.interface.address.is_ipv4(),
                Some(Family::V6) => pool.interface.address.is_ipv6(),
            };
            let same = beside.as_ref().is_none_or(|name| *name == pool.interface.name);
            family
                && same
                && want.interface.as_ref().is_none_or(|name| pool.interface.name.as_ref() == Some(name))
        };
        let pool = self.pools.iter_mut().find(fits).ok_or(PortError::NoInterface)?;
        for _ in 0..pool.used.len() {
            let at = pool.next;
            pool.next = (at + 1) % pool.used.len();
            if pool.used[at] {
                continue;
            }
            let address = SocketAddr::new(pool.interface.address, first + 2 * at as u16);
            // A port that another program holds is passed over.
            let (Some(rtp), Some(rtcp)) =
                (bind(address, tos), bind(SocketAddr::new(address.ip(), address.port() + 1), tos))
            else {
                continue;
            };
            pool.used[at] = true;
            return Ok(Pair { rtp, rtcp, address, advertised: pool.interface.advertised });
        }
        Err(PortError::Exhausted)
    }

    /// The sockets of this pair are closed.
    pub fn release(&mut self, address: SocketAddr) {
        let at = usize::from(address.port().saturating_sub(self.range.first())) / 2;
        for pool in &mut self.pools {
            if pool.interface.address == address.ip()
                && let Some(used) = pool.used.get_mut(at)
            {
                *used = false;
            }
        }
    }

    /// Pairs that are given out.
    pub fn in_use(&self) -> usize {
        self.pools.iter().map(|pool| pool.used.iter().filter(|used| **used).count()).sum()
    }

    /// What there is.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.pools.iter().map(|pool| &pool.interface)
    }
}

fn bind(address: SocketAddr, tos: u8) -> Option<UdpSocket> {
    let socket = UdpSocket::bind(address).ok()?;
    socket.set_nonblocking(true).ok()?;
    if tos != 0 {
        set_tos(&(&socket).into(), address.is_ipv6(), tos).ok()?;
    }
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(range: &str) -> Allocator {
        Allocator::new(vec!["127.0.4.1".parse().unwrap()], range.parse().unwrap()).unwrap()
    }

    #[test]
    fn parses_interfaces() {
        let plain: Interface = "192.0.2.1".parse().unwrap();
        assert_eq!((plain.name, plain.advertised), (None, plain.address));
        let full: Interface = "public/10.0.0.1!192.0.2.1".parse().unwrap();
        assert_eq!(full.name.as_deref(), Some("public"));
        assert_eq!(full.advertised, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert!("[2001:db8::1]".parse::<Interface>().is_ok());
        for bad in ["", "host", "/192.0.2.1", "0.0.0.0", "192.0.2.1!", "192.0.2.1!2001:db8::1"] {
            assert!(bad.parse::<Interface>().is_err(), "{bad}");
        }
    }

    #[test]
    fn parses_ranges() {
        assert_eq!("10000-10003".parse::<Range>().unwrap().pairs(), 2);
        assert_eq!("10001-10004".parse::<Range>().unwrap().pairs(), 1);
        for bad in ["", "10000", "10001-10002", "10000-9000", "0-0", "1-70000", "65535-65535"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
        assert_eq!("65534-65535".parse::<Range>().unwrap().pairs(), 1);
    }

    #[test]
    fn fills_fails_and_recovers() {
        let mut ports = allocator("31000-31005");
        let pairs: Vec<Pair> = (0..3).map(|_| ports.open(&Want::default()).unwrap()).collect();
        assert!(pairs.iter().all(|pair| pair.address.port() % 2 == 0
            && pair.rtcp.local_addr().unwrap().port() == pair.address.port() + 1));
        assert_eq!(ports.open(&Want::default()).unwrap_err(), PortError::Exhausted);
        assert_eq!(ports.in_use(), 3);
        let freed = pairs[1].address;
        drop(pairs);
        ports.release(freed);
        assert_eq!(ports.open(&Want::default()).unwrap().address, freed);
    }

    #[test]
    fn a_freed_pair_comes_last() {
        let mut ports = allocator("31010-31019");
        let first = ports.open(&Want::default()).unwrap().address;
        ports.release(first);
        assert_ne!(ports.open(&Want::default()).unwrap().address, first);
    }

    #[test]
    fn passes_over_what_others_hold() {
        let _taken = UdpSocket::bind("127.0.4.1:31021").unwrap();
        let mut ports = allocator("31020-31023");
        assert_eq!(ports.open(&Want::default()).unwrap().address.port(), 31022);
    }

    #[test]
    fn wants_are_met_or_refused() {
        let interfaces = vec!["a/127.0.4.1".parse().unwrap(), "b/127.0.4.2!192.0.2.1".parse().unwrap()];
        let mut ports = Allocator::new(interfaces, "31030-31039".parse().unwrap()).unwrap();
        let want = Want { interface: Some("b".into()), family: Some(Family::V4), beside: None };
        let pair = ports.open(&want).unwrap();
        assert_eq!(
            (pair.address.ip().to_string(), pair.advertised.to_string()),
            ("127.0.4.2".into(), "192.0.2.1".into())
        );
        let want = Want { interface: None, family: Some(Family::V6), beside: None };
        assert_eq!(ports.open(&want).unwrap_err(), PortError::NoInterface);
    }
}
