//! The Route token: what we need to know in a dialog, signed, carried by the peers.
//!
//! RFC 3261 §16.6 step 4 (a Record-Route value is ours to fill) and §16.12. Anybody can send a To-tag; so nothing is
//! relayed in a dialog but by a token that this deployment signed over the Call-ID and the caller's tag, and it
//! goes to the hop that the token names. In go the two hops and the media decision; out comes text for the user part of
//! our Record-Route URI, 43 characters where both hops are IPv4, and back. Not here: the hop's use (`dialog`).

use crate::auth::Keys;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const MAC_BYTES: usize = 8;
/// Keeps these signatures apart from all else that is signed with the same keys.
const PURPOSE: &str = "route";

/// One side of a dialog as we reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub listener: u8,
    pub remote: SocketAddr,
    /// The connection that the side came by; 0 for none. Data, not a check: it may be gone.
    pub connection: u32,
    /// Outside of our domains (a trunk, another server): a further Route or the request-URI leads on.
    pub foreign: bool,
    /// Speaks WebRTC.
    pub browser: bool,
}

/// What the token carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteToken {
    pub caller: Hop,
    pub callee: Hop,
    /// The relay that has the media, where one has.
    pub relay: Option<u8>,
}

/// Which way an in-dialog request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    Caller,
    Callee,
}

impl RouteToken {
    /// Where a request in this direction goes.
    pub const fn hop(&self, toward: Toward) -> &Hop {
        match toward {
            Toward::Caller => &self.caller,
            Toward::Callee => &self.callee,
        }
    }

    /// Signs with the first key.
    pub fn mint(&self, keys: &Keys, call_id: &[u8], caller_tag: &[u8]) -> String {
        let mut bytes = Vec::with_capacity(56);
        bytes.push(
            u8::from(self.caller.remote.is_ipv6())
                | u8::from(self.callee.remote.is_ipv6()) << 1
                | u8::from(self.caller.foreign) << 2
                | u8::from(self.callee.foreign) << 3
                | u8::from(self.caller.browser) << 4
                | u8::from(self.callee.browser) << 5
                | u8::from(self.relay.is_some()) << 6,
        );
        bytes.push(self.relay.unwrap_or(0));
        put_hop(&mut bytes, &self.caller);
        put_hop(&mut bytes, &self.callee);
        let (_, mac) = keys.sign(PURPOSE, &[&bytes, call_id, caller_tag]);
        bytes.extend_from_slice(&mac[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that any of our keys signed for this Call-ID and one of these tags: the caller's is From's when the
    /// request goes to the callee, and To's when it goes to the caller.
    pub fn verify(
        text: &[u8],
        keys: &Keys,
        call_id: &[u8],
        from_tag: &[u8],
        to_tag: &[u8],
    ) -> Option<(RouteToken, Toward)> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, given) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        let signed = |tag: &[u8]| keys.verify_any(PURPOSE, &[body, call_id, tag], given);
        let toward = if signed(from_tag) {
            Toward::Callee
        } else if signed(to_tag) {
            Toward::Caller
        } else {
            return None;
        };
        Some((Self::read(body)?, toward))
    }

    fn read(body: &[u8]) -> Option<RouteToken> {
        let (&[flags, relay], rest) = body.split_first_chunk::<2>()?;
        let bit = |n: u8| flags & 1 << n != 0;
        let (mut caller, rest) = take_hop(rest, bit(0))?;
        let (mut callee, rest) = take_hop(rest, bit(1))?;
        (caller.foreign, callee.foreign) = (bit(2), bit(3));
        (caller.browser, callee.browser) = (bit(4), bit(5));
        rest.is_empty().then_some(RouteToken { caller, callee, relay: bit(6).then_some(relay) })
    }
}

fn put_hop(out: &mut Vec<u8>, hop: &Hop) {
    out.push(hop.listener);
    out.extend_from_slice(&hop.connection.to_be_bytes());
    match hop.remote.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&hop.remote.port().to_be_bytes());
}

fn take_hop(bytes: &[u8], v6: bool) -> Option<(Hop, &[u8])> {
    let (&[listener], rest) = bytes.split_first_chunk::<1>()?;
    let (connection, rest) = rest.split_first_chunk::<4>()?;
    let (ip, rest) = if v6 {
        let (octets, rest) = rest.split_first_chunk::<16>()?;
        (IpAddr::V6(Ipv6Addr::from(*octets)), rest)
    } else {
        let (octets, rest) = rest.split_first_chunk::<4>()?;
        (IpAddr::V4(Ipv4Addr::from(*octets)), rest)
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let remote = SocketAddr::new(ip, u16::from_be_bytes(*port));
    let connection = u32::from_be_bytes(*connection);
    Some((Hop { listener, remote, connection, foreign: false, browser: false }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(&["the second key, in force", "the first key, of old"]).expect("two keys")
    }

    fn token(caller: &str, callee: &str) -> RouteToken {
        let hop = |text: &str, connection| Hop {
            listener: 3,
            remote: text.parse().expect("an address"),
            connection,
            foreign: connection == 0,
            browser: connection != 0,
        };
        RouteToken { caller: hop(caller, 77), callee: hop(callee, 0), relay: Some(2) }
    }

    #[test]
    fn is_43_characters_and_comes_back() {
        let token = token("192.0.2.1:5060", "198.51.100.255:65535");
        let text = token.mint(&keys(), b"call", b"tag-a");
        assert_eq!(text.len(), 43);
        let read = |from: &[u8], to: &[u8]| RouteToken::verify(text.as_bytes(), &keys(), b"call", from, to);
        assert_eq!(read(b"tag-a", b"tag-b"), Some((token, Toward::Callee)));
        assert_eq!(read(b"tag-b", b"tag-a"), Some((token, Toward::Caller)));
        assert_eq!(read(b"tag-b", b"tag-c"), None);
        assert_eq!(RouteToken::verify(text.as_bytes(), &keys(), b"other", b"tag-a", b""), None);
        assert_eq!(
            RouteToken::verify(text.as_bytes(), &Keys::new(&["x"]).expect("a key"), b"call", b"tag-a", b""),
            None
        );
    }

    #[test]
    fn an_older_key_still_verifies() {
        let token = token("[2001:db8::1]:5060", "192.0.2.1:5060");
        let old = Keys::new(&["the first key, of old"]).expect("a key");
        let text = token.mint(&old, b"call", b"a");
        assert_eq!(
            RouteToken::verify(text.as_bytes(), &keys(), b"call", b"a", b"b"),
            Some((token, Toward::Callee))
        );
    }

    #[test]
    fn no_changed_bit_verifies() {
        let text = token("192.0.2.1:5060", "192.0.2.2:5060").mint(&keys(), b"call", b"a");
        let bytes = URL_SAFE_NO_PAD.decode(&text).expect("our own text");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let text = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(RouteToken::verify(text.as_bytes(), &keys(), b"call", b"a", b"b"), None, "bit {bit}");
        }
        for end in 0..text.len() {
            assert_eq!(RouteToken::verify(&text.as_bytes()[..end], &keys(), b"call", b"a", b"b"), None);
        }
    }
}
