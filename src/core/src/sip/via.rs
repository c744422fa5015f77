//! Via.
//!
//! RFC 3261 §20.42, RFC 3581 (rport), RFC 7118 §5.2 (WS, WSS). Goes in: one value of Via. Comes out: its parts as slices.
//! Not here: where a response goes (RFC 3261 §18.2.2 is the transaction's).

use super::error::{ParseError, ParseErrorKind};
use super::lex;
use super::params::Params;
use crate::flow::Transport;

/// One hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    raw: &'a [u8],
    /// The token as written; [`transport`](Self::transport) knows the usual ones.
    pub protocol: &'a [u8],
    /// HOST[:PORT] as written.
    pub sent_by: &'a str,
    /// Host of sent-by; IPv6 in brackets.
    pub host: &'a str,
    pub port: Option<u16>,
    pub params: Params<'a>,
}

/// The state of `rport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rport {
    /// The client did not ask for it.
    Absent,
    /// The client asks for it.
    Asked,
    /// Filled in.
    Port(u16),
}

impl<'a> Via<'a> {
    pub fn parse(raw: &'a [u8]) -> Result<Self, ParseError> {
        let fault = |at: usize| ParseError { at, kind: ParseErrorKind::Via };
        let raw = lex::trim(raw);
        // SIP SLASH 2.0 SLASH transport LWS sent-by; SLASH may have LWS around it.
        let first = memchr::memchr(b'/', raw).ok_or(fault(0))?;
        let second = memchr::memchr(b'/', &raw[first + 1..]).ok_or(fault(first))? + first + 1;
        if !lex::trim(&raw[..first]).eq_ignore_ascii_case(b"SIP")
            || lex::trim(&raw[first + 1..second]) != b"2.0"
        {
            return Err(fault(0));
        }
        let rest = lex::trim_start(&raw[second + 1..]);
        let end = rest.iter().position(|&b| lex::is_lws(b)).ok_or(fault(second))?;
        let protocol = &rest[..end];
        if !lex::is_token(protocol) {
            return Err(fault(second + 1));
        }
        let sent = lex::trim_start(&rest[end..]);
        let base = raw.len() - sent.len();
        let end = memchr::memchr(b';', sent).unwrap_or(sent.len());
        let sent_by = lex::trim(&sent[..end]);
        let (host, port) = lex::host_port(sent_by).ok_or(fault(base))?;
        let sent_by = std::str::from_utf8(sent_by).map_err(|_| fault(base))?;
        let params = Params::parse(&sent[end..]).map_err(|e| fault(base + end + e.at))?;
        Ok(Via { raw, protocol, sent_by, host, port, params })
    }

    /// As it stands in the message.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    pub fn transport(&self) -> Option<Transport> {
        [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss]
            .into_iter()
            .find(|t| t.via().as_bytes().eq_ignore_ascii_case(self.protocol))
    }

    /// The whole branch, with its cookie.
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.params.get("branch").filter(|b| !b.is_empty())
    }

    /// Whether the branch is of RFC 3261 and so identifies the transaction (§17.2.3).
    pub fn has_cookie(&self) -> bool {
        self.branch().is_some_and(|b| b.len() > 7 && b[..7].eq_ignore_ascii_case(b"z9hG4bK"))
    }

    pub fn received(&self) -> Option<std::net::IpAddr> {
        super::uri::host_ip(self.params.get_str("received")?)
    }

    pub fn rport(&self) -> Rport {
        match self.params.find("rport") {
            None => Rport::Absent,
            Some(param) => match param.value.and_then(lex::port) {
                Some(port) => Rport::Port(port),
                None => Rport::Asked,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_parts() {
        let via = Via::parse(
            b"SIP / 2.0 /\r\n WSS [2001:db8::9:1] : 5062 ; rport;branch=z9hG4bKx;received=192.0.2.1",
        )
        .unwrap();
        assert_eq!(via.transport(), Some(Transport::Wss));
        assert_eq!((via.host, via.port), ("[2001:db8::9:1]", Some(5062)));
        assert_eq!(via.branch(), Some(&b"z9hG4bKx"[..]));
        assert!(via.has_cookie());
        assert_eq!(via.rport(), Rport::Asked);
        assert_eq!(via.received(), Some([192, 0, 2, 1].into()));
        assert_eq!(Via::parse(b"SIP/2.0/UNKNOWN h;rport=9").unwrap().rport(), Rport::Port(9));
    }

    #[test]
    fn refuses_what_is_none() {
        for bad in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0 UDP h",
            "SIP/3.0/UDP h",
            "SIP/2.0/UDP h;;",
            "SIP/2.0/UDP 2001:db8::1",
        ] {
            assert!(Via::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
