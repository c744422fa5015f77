//! The HTTP side of a WebSocket port: the request's head, who may upgrade, and what is answered.
//!
//! RFC 6455 §4.2 with RFC 7118 §4.1 (sub-protocol `sip`). In: bytes up to the empty line. Out: what to do with them.
//! Refusals: 403 for a Host or Origin that is not ours, 404 for what is no upgrade and no file, 400 for an upgrade
//! that is wrong in itself, 426 for another version. Not here: files (`web`), frames (`websocket`).

use super::WebSocketOptions;
use base64::Engine;

/// Bytes of a request's head; browsers with large cookies send some 4 KiB.
pub(super) const HEAD_BYTES: usize = 8192;
/// Header fields in a request.
const HEADERS: usize = 64;

/// A request without its body.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer 101 with this Sec-WebSocket-Accept.
    Upgrade {
        accept: String,
    },
    /// Perhaps a file of this path.
    File {
        path: String,
        head_only: bool,
    },
    Refuse {
        status: u16,
        reason: &'static str,
    },
}

/// Where the head ends in `data`, past the empty line.
pub(super) fn head_end(data: &[u8]) -> Option<usize> {
    data.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

impl<'a> Request<'a> {
    pub fn parse(head: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(head).ok()?;
        let mut lines = text.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?, first.next()?);
        if first.next()? != "HTTP/1.1"
            || first.next().is_some()
            || method.is_empty()
            || !target.starts_with('/')
        {
            return None;
        }
        let mut headers = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(token) || headers.len() == HEADERS {
                return None;
            }
            headers.push((name, value.trim_matches([' ', '\t'])));
        }
        Some(Request { method, target, headers })
    }

    /// The value of a field that may stand once: `None` where it is absent or there twice.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let (_, value) = found.next()?;
        found.next().is_none().then_some(*value)
    }

    /// Whether one of a field's comma-separated values is `token`.
    fn lists(&self, name: &str, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(token))
    }

    fn is_upgrade(&self) -> bool {
        self.lists("Upgrade", "websocket") && self.lists("Connection", "Upgrade")
    }
}

/// Decides, in the order in which a stranger learns least.
pub(super) fn judge(request: &Request<'_>, options: &WebSocketOptions) -> Verdict {
    let refuse = |status, reason| Verdict::Refuse { status, reason };
    let Some(host) = request.header("Host").filter(|host| !host.is_empty()) else {
        return refuse(400, "no Host");
    };
    if !host_is_ours(host, &options.hosts) {
        return refuse(403, "Host is not ours");
    }
    if !request.is_upgrade() {
        return match request.method {
            "GET" | "HEAD" => {
                let path = request.target.split(['?', '#']).next().unwrap_or_default().to_owned();
                Verdict::File { path, head_only: request.method == "HEAD" }
            }
            _ => refuse(404, "neither an upgrade nor a file"),
        };
    }
    if request.method != "GET" {
        return refuse(404, "an upgrade must be a GET");
    }
    if let Some(origin) = request.header("Origin")
        && !origin_is_allowed(origin, host, &options.origins)
    {
        return refuse(403, "Origin is not allowed");
    }
    if request.header("Sec-WebSocket-Version") != Some("13") {
        return refuse(426, "WebSocket version is not 13");
    }
    let key = request.header("Sec-WebSocket-Key").unwrap_or_default();
    let decoded = base64::engine::general_purpose::STANDARD.decode(key);
    if decoded.map(|key| key.len()) != Ok(16) {
        return refuse(400, "Sec-WebSocket-Key is not 16 bytes in base64");
    }
    if !request.lists("Sec-WebSocket-Protocol", "sip") {
        return refuse(400, "sub-protocol sip is not offered");
    }
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    Verdict::Upgrade { accept }
}

/// Without a list any Host will do; else a name of the list or one below it, with any port.
fn host_is_ours(host: &str, ours: &[String]) -> bool {
    let name = without_port(host);
    ours.is_empty()
        || ours.iter().any(|our| {
            name.eq_ignore_ascii_case(our)
                || name.len() > our.len()
                    && name.is_char_boundary(name.len() - our.len())
                    && name[name.len() - our.len()..].eq_ignore_ascii_case(our)
                    && name[..name.len() - our.len()].ends_with('.')
        })
}

/// Without patterns only the page's own host; `*` in a pattern stands for any characters.
fn origin_is_allowed(origin: &str, host: &str, patterns: &[String]) -> bool {
    if patterns.is_empty() {
        return origin
            .split_once("://")
            .is_some_and(|(_, rest)| without_port(rest).eq_ignore_ascii_case(without_port(host)));
    }
    let origin = origin.to_ascii_lowercase();
    patterns.iter().any(|pattern| glob(&pattern.to_ascii_lowercase(), &origin))
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(before) else { return false };
    // The parts between stars are found from the left, the last one must be the end.
    let mut parts = after.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// A refusal with its connection's end.
pub(super) fn refusal(status: u16) -> String {
    let (phrase, extra) = match status {
        400 => ("Bad Request", ""),
        403 => ("Forbidden", ""),
        404 => ("Not Found", ""),
        408 => ("Request Timeout", ""),
        426 => ("Upgrade Required", "Sec-WebSocket-Version: 13\r\n"),
        503 => ("Service Unavailable", ""),
        _ => ("Error", ""),
    };
    format!(
        "HTTP/1.1 {status} {phrase}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{phrase}\n",
        phrase.len() + 1
    )
}

/// The answer to an upgrade.
pub(super) fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: wss.example.com:8443\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\nOrigin: https://wss.example.com\r\n\r\n";

    fn options(hosts: &[&str], origins: &[&str]) -> WebSocketOptions {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        WebSocketOptions { hosts: strings(hosts), origins: strings(origins), ..WebSocketOptions::default() }
    }

    fn status(text: &str, options: &WebSocketOptions) -> u16 {
        match judge(&Request::parse(text.as_bytes()).unwrap(), options) {
            Verdict::Refuse { status, .. } => status,
            Verdict::Upgrade { .. } => 101,
            Verdict::File { .. } => 200,
        }
    }

    #[test]
    fn accepts_an_upgrade() {
        let verdict = judge(&Request::parse(UPGRADE.as_bytes()).unwrap(), &options(&[], &[]));
        // RFC 6455 §1.3's own example.
        assert_eq!(verdict, Verdict::Upgrade { accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into() });
    }

    #[test]
    fn refuses_with_the_right_status() {
        let any = options(&[], &[]);
        let changed = |from: &str, to: &str| status(&UPGRADE.replace(from, to), &any);
        assert_eq!(changed("https://wss.example.com", "https://evil.example.net"), 403);
        assert_eq!(changed("https://wss.example.com", "null"), 403);
        assert_eq!(changed("Origin: https://wss.example.com\r\n", ""), 101);
        assert_eq!(changed("Protocol: sip", "Protocol: chat"), 400);
        assert_eq!(changed("Protocol: sip", "Protocol: chat, sip"), 101);
        assert_eq!(changed("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400);
        assert_eq!(changed("Version: 13", "Version: 8"), 426);
        assert_eq!(changed("GET", "POST"), 404);
        assert_eq!(changed("Host: wss.example.com:8443\r\n", ""), 400);
        assert_eq!(changed("Upgrade: websocket\r\n", ""), 200);
        assert_eq!(status(UPGRADE, &options(&["example.com"], &[])), 101);
        assert_eq!(status(UPGRADE, &options(&["ample.com"], &[])), 403);
        assert_eq!(status(UPGRADE, &options(&["example.net"], &[])), 403);
    }

    #[test]
    fn origin_patterns() {
        for (pattern, origin, allowed) in [
            ("*", "null", true),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.example.com.evil.test", false),
            ("https://example.com", "https://example.com:8443", false),
            ("http*://example.com*", "https://example.com:8443", true),
            ("https://A.example.com", "https://a.EXAMPLE.com", true),
        ] {
            assert_eq!(origin_is_allowed(origin, "h", &[pattern.to_owned()]), allowed, "{pattern} {origin}");
        }
    }

    #[test]
    fn parses_nothing_else() {
        for bad in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\n folded: x\r\n\r\n",
            "SIP/2.0 200 OK\r\n\r\n",
            "",
        ] {
            assert!(Request::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert!(Request::parse(b"GET / HTTP/1.1\r\nA: \xff\r\n\r\n").is_none());
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS + 1));
        assert!(Request::parse(many.as_bytes()).is_none());
    }
}
