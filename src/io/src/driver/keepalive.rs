//! Keep-alives on a SIP port: line breaks, and STUN binding requests (RFC 5626 §4.4.2, RFC 8489 §7).
//!
//! In: a datagram. Out: the success response with XOR-MAPPED-ADDRESS, or nothing where it is no binding request.
//! Not here: ICE (`core::media`).

use std::net::SocketAddr;

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];
const HEADER: usize = 20;

/// Whether it is a keep-alive of line breaks (and NULs, that some phones send) and nothing else.
pub(super) fn is_line_breaks(data: &[u8]) -> bool {
    data.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// A response to a well-formed binding request. SIP begins with a letter, so the two cannot be mixed up.
pub(super) fn binding_response(data: &[u8], remote: SocketAddr) -> Option<Vec<u8>> {
    let (header, attributes) = data.split_at_checked(HEADER)?;
    let length = usize::from(u16::from_be_bytes([*header.get(2)?, *header.get(3)?]));
    if !header.starts_with(&BINDING_REQUEST)
        || header.get(4..8)? != MAGIC_COOKIE
        || length != attributes.len()
    {
        return None;
    }
    // The port is masked with the cookie's first half, the address with cookie and transaction id (§14.2).
    let mask = header.get(4..HEADER)?;
    let (family, address): (u8, Vec<u8>) = match remote {
        SocketAddr::V4(v4) => (1, v4.ip().octets().to_vec()),
        SocketAddr::V6(v6) => (2, v6.ip().octets().to_vec()),
    };
    let mut answer = Vec::with_capacity(HEADER + 8 + address.len());
    answer.extend_from_slice(&BINDING_SUCCESS);
    answer.extend_from_slice(&(8 + address.len() as u16).to_be_bytes());
    answer.extend_from_slice(mask);
    answer.extend_from_slice(&XOR_MAPPED_ADDRESS);
    answer.extend_from_slice(&(4 + address.len() as u16).to_be_bytes());
    answer.extend_from_slice(&[0, family]);
    answer.extend_from_slice(&(remote.port() ^ 0x2112).to_be_bytes());
    answer.extend(address.iter().zip(mask).map(|(a, m)| a ^ m));
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.2 and §2.3: the transaction id and addresses of its sample responses.
    const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn request() -> Vec<u8> {
        [&[0, 1, 0, 0][..], &MAGIC_COOKIE, &TRANSACTION].concat()
    }

    #[test]
    fn answers_with_the_masked_address() {
        let answer = binding_response(&request(), "192.0.2.1:32853".parse().unwrap()).unwrap();
        assert_eq!(answer[..4], [0x01, 0x01, 0, 12]);
        assert_eq!(answer[20..], [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let answer =
            binding_response(&request(), "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap());
        assert_eq!(
            answer.unwrap()[20..],
            [
                0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1,
                0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9
            ]
        );
    }

    #[test]
    fn leaves_everything_else() {
        let remote = "192.0.2.1:5060".parse().unwrap();
        let mut long = request();
        long[3] = 4;
        let mut response = request();
        response[0] = 1;
        for other in [&b"OPTIONS sip:a@b SIP/2.0\r\n\r\n"[..], b"", &request()[..19], &long, &response] {
            assert_eq!(binding_response(other, remote), None);
        }
    }
}
