//! The TOKEN in `Path: <sip:TOKEN@host;lr;ob>`: which flow a client is on, signed.
//!
//! RFC 5626 §5.2, RFC 3327. Goes in: the flow of a REGISTER's first hop. Comes out: base64url text that fits a user part, and,
//! read back, the same values, or nothing where it was not signed by us. Registrar and presence take a client's address and
//! transport from it; who owns the flow finds his connection by it. Not here: who may use it (registrar, gateway, proxy).

use super::keys::{KeyId, Keys};
use crate::flow::{ConnectionId, ListenerId, Transport};
use crate::sip::Aor;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const PURPOSE: &str = "flow";
const MAC: usize = 8;
/// Kind and transport, key, worker, listener, epoch, connection, client, port; then the address and the MAC.
const FIXED: usize = 1 + 1 + 1 + 1 + 4 + 6 + 6 + 2;
const LONGEST_TEXT: usize = (FIXED + 16 + MAC) * 4 / 3 + 1;
/// A bit beside the transport's number: the address has 16 bytes.
const IPV6: u8 = 0x80;
/// Another one: made for Record-Route.
const DIALOG: u8 = 0x40;

/// One flow, as whoever accepted it names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowToken {
    /// The worker that owns it.
    pub worker: u8,
    pub listener: ListenerId,
    pub transport: Transport,
    /// Number of the process that minted it, drawn at its start: `connection` means something only there.
    pub epoch: u32,
    /// None for UDP, where listener and remote are the flow.
    pub connection: Option<ConnectionId>,
    /// The client's real address.
    pub remote: SocketAddr,
    /// [`client_hash`] of the client.
    pub client: u64,
    /// Made for Record-Route, so that whoever the client talks to reads it: it leads to him within a dialog, and is no
    /// credential and no Path.
    pub dialog: bool,
}

/// 48 bits of a hash of the address-of-record and the host of the Contact: a token whose connection is gone goes to a
/// connection that shows the same, and to no other.
pub fn client_hash(aor: &Aor, contact_host: &str) -> u64 {
    let hash = Sha256::new()
        .chain_update((aor.user.len() as u32).to_be_bytes())
        .chain_update(&aor.user)
        .chain_update((aor.domain.len() as u32).to_be_bytes())
        .chain_update(&aor.domain)
        .chain_update(contact_host.to_ascii_lowercase())
        .finalize();
    hash.iter().take(6).fold(0, |value, &byte| value << 8 | u64::from(byte))
}

impl FlowToken {
    /// Signs it with the first key.
    pub fn mint(&self, keys: &Keys) -> String {
        let mut bytes = Vec::with_capacity(FIXED + 16 + MAC);
        let kind = if self.remote.is_ipv6() { IPV6 } else { 0 } | if self.dialog { DIALOG } else { 0 };
        bytes.extend_from_slice(&[
            kind | self.transport.kamailio(),
            keys.signing_id().0,
            self.worker,
            self.listener.0,
        ]);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        // 48 bits; all ones stands for none. A process does not live to see so many connections.
        let connection = self.connection.map_or(u64::MAX, |c| c.0);
        bytes.extend_from_slice(&connection.to_be_bytes()[2..]);
        bytes.extend_from_slice(&self.client.to_be_bytes()[2..]);
        bytes.extend_from_slice(&self.remote.port().to_be_bytes());
        match self.remote.ip() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
        let (_, mac) = keys.sign(PURPOSE, &[&bytes]);
        bytes.extend_from_slice(&mac[..MAC]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the user part of a Path URI, or of a Route that was made of one; None where it is no token of ours for that.
    pub fn verify_path(text: &[u8], keys: &Keys) -> Option<FlowToken> {
        Self::verify(text, keys).filter(|token| !token.dialog)
    }

    /// Reads the user part of any URI; None where it is no token of ours.
    pub fn verify(text: &[u8], keys: &Keys) -> Option<FlowToken> {
        if text.len() > LONGEST_TEXT {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC)?)?;
        let (fixed, address) = signed.split_at_checked(FIXED)?;
        let fixed: &[u8; FIXED] = fixed.try_into().ok()?;
        if !keys.verify(KeyId(fixed[1]), PURPOSE, &[signed], mac) {
            return None;
        }
        let ip = match fixed[0] & IPV6 {
            0 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?)),
            _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)),
        };
        let number = |part: &[u8]| part.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let connection = number(&fixed[8..14]);
        Some(FlowToken {
            worker: fixed[2],
            listener: ListenerId(fixed[3]),
            transport: Transport::from_kamailio(fixed[0] & !(IPV6 | DIALOG))?,
            epoch: number(&fixed[4..8]) as u32,
            connection: (connection != u64::MAX >> 16).then_some(ConnectionId(connection)),
            remote: SocketAddr::new(ip, number(&fixed[20..22]) as u16),
            client: number(&fixed[14..20]),
            dialog: fixed[0] & DIALOG != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(&["a key for the flow tokens"]).unwrap()
    }

    fn token(remote: &str, connection: Option<u64>) -> FlowToken {
        FlowToken {
            worker: 3,
            listener: ListenerId(1),
            transport: if connection.is_some() { Transport::Wss } else { Transport::Udp },
            epoch: 0xdead_beef,
            connection: connection.map(ConnectionId),
            remote: remote.parse().unwrap(),
            client: client_hash(&Aor::parse("alice@example.com").unwrap(), "x7.invalid"),
            dialog: false,
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        for flow in [token("192.0.2.1:5060", None), token("[2001:db8::1]:443", Some(17))] {
            let text = flow.mint(&keys());
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
            assert_eq!(FlowToken::verify(text.as_bytes(), &keys()), Some(flow));
        }
    }

    #[test]
    fn one_for_a_dialog_is_no_path() {
        let flow = FlowToken { dialog: true, ..token("[2001:db8::1]:443", Some(17)) };
        let text = flow.mint(&keys());
        assert_eq!(FlowToken::verify(text.as_bytes(), &keys()), Some(flow));
        assert_eq!(FlowToken::verify_path(text.as_bytes(), &keys()), None);
        let path = token("192.0.2.1:443", Some(17));
        assert_eq!(FlowToken::verify_path(path.mint(&keys()).as_bytes(), &keys()), Some(path));
    }

    #[test]
    fn a_changed_or_foreign_one_is_none() {
        let text = token("192.0.2.1:5060", Some(1)).mint(&keys());
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            // The last character may hold bits that decode to nothing; the decoder refuses those itself.
            assert_eq!(FlowToken::verify(&changed, &keys()), None, "at {at}");
        }
        assert_eq!(FlowToken::verify(text.as_bytes(), &Keys::new(&["another key, as long"]).unwrap()), None);
        for text in ["", "AAAA", "alice", &"A".repeat(1000)] {
            assert_eq!(FlowToken::verify(text.as_bytes(), &keys()), None);
        }
    }

    #[test]
    fn tells_clients_apart() {
        let aor = |text| Aor::parse(text).unwrap();
        let one = client_hash(&aor("alice@example.com"), "a.invalid");
        assert_eq!(one, client_hash(&aor("alice@EXAMPLE.com"), "A.invalid"));
        assert_ne!(one, client_hash(&aor("bob@example.com"), "a.invalid"));
        assert_ne!(one, client_hash(&aor("alice@example.com"), "b.invalid"));
        assert!(one < 1 << 48);
    }
}
