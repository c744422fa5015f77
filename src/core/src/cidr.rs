//! Networks as `--edge`, `--trust` and `--local-net` name them: an address, or ADDRESS/BITS (RFC 4632, RFC 4291 §2.3).
//!
//! In: text. Out: whether an address lies within. An IPv4 address that a dual-stack socket shows as
//! `::ffff:a.b.c.d` is taken as the IPv4 address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// What stands before the slash is no IP address.
    Address,
    /// What stands after the slash is no number that the address has bits for.
    Bits,
}

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether one of `nets` holds `address`.
    pub fn any(nets: &[Cidr], address: IpAddr) -> bool {
        nets.iter().any(|net| net.contains(address))
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        let address: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or(CidrError::Bits)?,
            None => most,
        };
        Ok(Cidr { address, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CidrError::Address => "no IP address; write ADDRESS or ADDRESS/BITS",
            CidrError::Bits => "not a prefix length of this kind of address (0-32 for IPv4, 0-128 for IPv6)",
        })
    }
}

impl std::error::Error for CidrError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn holds_what_is_within() {
        assert!(net("192.0.2.0/24").contains("192.0.2.255".parse().unwrap()));
        assert!(!net("192.0.2.0/24").contains("192.0.3.0".parse().unwrap()));
        assert!(net("192.0.2.7").contains("192.0.2.7".parse().unwrap()));
        assert!(!net("192.0.2.7").contains("192.0.2.6".parse().unwrap()));
        assert!(net("0.0.0.0/0").contains("198.51.100.1".parse().unwrap()));
        assert!(net("2001:db8::/32").contains("2001:db8:ffff::1".parse().unwrap()));
        assert!(!net("::/0").contains("192.0.2.1".parse().unwrap()));
        assert!(net("192.0.2.0/24").contains("::ffff:192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn tells_what_is_wrong() {
        assert_eq!("localhost".parse::<Cidr>(), Err(CidrError::Address));
        assert_eq!("192.0.2.0/33".parse::<Cidr>(), Err(CidrError::Bits));
        assert_eq!("192.0.2.0/".parse::<Cidr>(), Err(CidrError::Bits));
    }
}
