//! URIs in SIP messages, and addresses-of-record.
//!
//! RFC 3261 §19.1 (SIP and SIPS), RFC 3966 (tel), RFC 5118 (IPv6). Goes in: the bytes of a URI without `<>`. Comes out: its
//! parts as slices, whatever the scheme; [`Aor`], which compares as §19.1.4 says. Not here: where a URI leads (RFC 3263).

use super::error::{ParseError, ParseErrorKind};
use super::lex;
use super::params::Params;
use crate::flow::Transport;
use std::fmt;

/// A URI's scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme<'a> {
    Sip,
    Sips,
    Tel,
    Urn,
    Other(&'a [u8]),
}

/// A URI. For `sip` and `sips`, `host` is never empty; for others everything behind the scheme is in `user`
/// (for `tel` without its parameters), and `host` is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    raw: &'a [u8],
    pub scheme: Scheme<'a>,
    /// As written, with its escapes.
    pub user: Option<&'a [u8]>,
    pub password: Option<&'a [u8]>,
    /// A name, an IPv4 address, or an IPv6 address in its brackets.
    pub host: &'a str,
    pub port: Option<u16>,
    pub params: Params<'a>,
    /// What is behind `?`.
    pub headers: Option<&'a [u8]>,
}

impl<'a> Uri<'a> {
    pub fn parse(raw: &'a [u8]) -> Result<Self, ParseError> {
        let fault = |at| ParseError { at, kind: ParseErrorKind::Uri };
        if !lex::all(raw, lex::is_uri_byte) {
            return Err(fault(raw.iter().position(|&byte| !lex::is_uri_byte(byte)).unwrap_or_default()));
        }
        let colon = memchr::memchr(b':', raw).ok_or(fault(0))?;
        let scheme = &raw[..colon];
        if !scheme.first().is_some_and(u8::is_ascii_alphabetic)
            || !scheme.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        {
            return Err(fault(0));
        }
        let scheme = match scheme {
            s if s.eq_ignore_ascii_case(b"sip") => Scheme::Sip,
            s if s.eq_ignore_ascii_case(b"sips") => Scheme::Sips,
            s if s.eq_ignore_ascii_case(b"tel") => Scheme::Tel,
            s if s.eq_ignore_ascii_case(b"urn") => Scheme::Urn,
            s => Scheme::Other(s),
        };
        let rest = &raw[colon + 1..];
        if rest.is_empty() {
            return Err(fault(colon));
        }
        let mut uri = Uri {
            raw,
            scheme,
            user: None,
            password: None,
            host: "",
            port: None,
            params: Params::default(),
            headers: None,
        };
        match scheme {
            Scheme::Sip | Scheme::Sips => {}
            Scheme::Tel => {
                let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
                uri.user = Some(&rest[..end]);
                uri.params = Params::parse(&rest[end..]).map_err(|e| fault(colon + 1 + end + e.at))?;
                return Ok(uri);
            }
            Scheme::Urn | Scheme::Other(_) => {
                uri.user = Some(rest);
                return Ok(uri);
            }
        }
        // A user part may hold ";" and "?": the "@" decides, and neither host, parameters nor headers hold one bare.
        let (userinfo, hostpart) = match memchr::memchr(b'@', rest) {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        if let Some(userinfo) = userinfo {
            let (user, password) = match memchr::memchr(b':', userinfo) {
                Some(at) => (&userinfo[..at], Some(&userinfo[at + 1..])),
                None => (userinfo, None),
            };
            if user.is_empty() || !escapes_are_sound(userinfo) {
                return Err(fault(colon + 1));
            }
            uri.user = Some(user);
            uri.password = password;
        }
        let base = raw.len() - hostpart.len();
        let query = memchr::memchr(b'?', hostpart);
        let (before, headers) = match query {
            Some(at) => (&hostpart[..at], Some(&hostpart[at + 1..])),
            None => (hostpart, None),
        };
        let end = memchr::memchr(b';', before).unwrap_or(before.len());
        let (host, port) = lex::host_port(&before[..end]).ok_or(fault(base))?;
        uri.host = host;
        uri.port = port;
        uri.params = Params::parse(&before[end..]).map_err(|e| fault(base + end + e.at))?;
        uri.headers = headers;
        Ok(uri)
    }

    /// As it stands in the message.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    pub const fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The `lr` parameter: a loose router (§19.1.1); also `lr=on`.
    pub fn is_loose(&self) -> bool {
        self.params.has("lr")
    }

    /// The `transport` parameter as a known transport; for `ws` the scheme tells WS from WSS.
    pub fn transport(&self) -> Option<Transport> {
        let name = self.params.get("transport")?;
        let secure = self.scheme == Scheme::Sips;
        Some(match name {
            n if n.eq_ignore_ascii_case(b"udp") => Transport::Udp,
            n if n.eq_ignore_ascii_case(b"tcp") && secure => Transport::Tls,
            n if n.eq_ignore_ascii_case(b"tcp") => Transport::Tcp,
            n if n.eq_ignore_ascii_case(b"tls") => Transport::Tls,
            n if n.eq_ignore_ascii_case(b"ws") && secure => Transport::Wss,
            n if n.eq_ignore_ascii_case(b"ws") => Transport::Ws,
            n if n.eq_ignore_ascii_case(b"wss") => Transport::Wss,
            _ => return None,
        })
    }

    /// The host as an address, where it is one.
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        host_ip(self.host)
    }

    /// The address-of-record that this URI names; None unless it is `sip` or `sips`.
    pub fn aor(&self) -> Option<Aor> {
        self.is_sip().then(|| Aor {
            user: self.user.map(normal_user).unwrap_or_default(),
            domain: self.host.to_ascii_lowercase(),
        })
    }
}

/// An IP address in a host's place; IPv6 with or without brackets.
pub fn host_ip(host: &str) -> Option<std::net::IpAddr> {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn escapes_are_sound(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        match rest.get(at + 1..at + 3) {
            Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return false,
        }
    }
    true
}

/// §19.1.4: an escaped character equals the bare one unless it is reserved. So each user has one form: what need not be
/// escaped is bare, everything else is %HH in capitals.
fn normal_user(user: &[u8]) -> String {
    fn push(out: &mut String, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        out.push('%');
        out.push(HEX[usize::from(byte >> 4)] as char);
        out.push(HEX[usize::from(byte & 15)] as char);
    }
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&b);
    let mut out = String::with_capacity(user.len());
    let mut at = 0;
    while let Some(&byte) = user.get(at) {
        let escaped = user.get(at + 1..at + 3).and_then(|hex| {
            let (high, low) = ((hex[0] as char).to_digit(16)?, (hex[1] as char).to_digit(16)?);
            Some((high * 16 + low) as u8)
        });
        match (byte, escaped) {
            (b'%', Some(code)) => {
                if unreserved(code) {
                    out.push(code as char);
                } else {
                    push(&mut out, code);
                }
                at += 3;
                continue;
            }
            (b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/', _) => out.push(byte as char),
            (b, _) if unreserved(b) => out.push(b as char),
            (b, _) => push(&mut out, b),
        }
        at += 1;
    }
    out
}

/// An address-of-record in the one form that compares byte by byte: scheme, password, port and parameters are gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Aor {
    /// Case matters; empty for a domain's own.
    pub user: String,
    /// In small letters.
    pub domain: String,
}

impl Aor {
    /// Reads `sip:alice@example.com` or `alice@example.com`, as people and scripts write it.
    pub fn parse(text: &str) -> Option<Aor> {
        match Uri::parse(text.as_bytes()) {
            Ok(uri) if uri.is_sip() => uri.aor(),
            _ => Uri::parse(format!("sip:{text}").as_bytes()).ok()?.aor(),
        }
    }
}

impl fmt::Display for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.user.is_empty() {
            f.write_str(&self.domain)
        } else {
            write!(f, "{}@{}", self.user, self.domain)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_parts() {
        let uri =
            Uri::parse(b"sips:al%40ice;x=1:secret@[2001:db8::1]:5061;transport=ws;lr?Subject=x").unwrap();
        assert_eq!(uri.scheme, Scheme::Sips);
        assert_eq!(uri.user, Some(&b"al%40ice;x=1"[..]));
        assert_eq!(uri.password, Some(&b"secret"[..]));
        assert_eq!((uri.host, uri.port), ("[2001:db8::1]", Some(5061)));
        assert_eq!(uri.transport(), Some(Transport::Wss));
        assert!(uri.is_loose());
        assert_eq!(uri.headers, Some(&b"Subject=x"[..]));
        assert!(uri.ip().is_some());
    }

    #[test]
    fn keeps_other_schemes() {
        let tel = Uri::parse(b"tel:+15551234;phone-context=example.com").unwrap();
        assert_eq!((tel.scheme, tel.user), (Scheme::Tel, Some(&b"+15551234"[..])));
        assert_eq!(tel.params.get("phone-context"), Some(&b"example.com"[..]));
        assert_eq!(Uri::parse(b"urn:service:sos").unwrap().scheme, Scheme::Urn);
        assert_eq!(Uri::parse(b"soap.beep://x/y").unwrap().scheme, Scheme::Other(b"soap.beep"));
        assert!(tel.aor().is_none());
    }

    #[test]
    fn refuses_what_is_none() {
        for bad in [
            "sip:",
            "sip",
            ":x",
            "<sip:a@b>",
            "sip:a b@c",
            "sip:@b",
            "sip:a@",
            "sip:2001:db8::1",
            "sip:a%4@b",
        ] {
            assert!(Uri::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn compares_addresses_of_record() {
        let aor = |text: &str| Aor::parse(text).unwrap();
        assert_eq!(aor("sip:%61lice@EXAMPLE.com:5070;x=y"), aor("alice@example.com"));
        assert_ne!(aor("sip:Alice@example.com"), aor("sip:alice@example.com"));
        assert_ne!(aor("sip:a%3bb@example.com"), aor("sip:a;b@example.com"));
        assert_eq!(aor("sip:a%3bb@example.com").to_string(), "a%3Bb@example.com");
        assert_eq!(aor("sip:example.com").to_string(), "example.com");
    }
}
