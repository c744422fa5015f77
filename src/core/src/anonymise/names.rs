//! Texts: tokens, hosts, URIs, and whatever else may name somebody.
//!
//! RFC 3261 §19 and §25 (URIs), 3966 (tel), 2606 (example.com). In: a piece of text and what it is. Out: another of the same shape.
//! Not here: which line or header holds what (`sdp`, `sip`).

use super::{Anonymiser, Class};
use std::net::IpAddr;

/// Schemes whose URIs name somebody.
const SCHEMES: [&str; 9] =
    ["sip:", "sips:", "tel:", "im:", "pres:", "mailto:", "http://", "https://", "msrp://"];

impl Anonymiser {
    /// Digits by digits, letters by letters, everything else as it is.
    pub(super) fn token(&self, class: Class, text: &str) -> String {
        let place = |c: char| match c {
            '0'..='9' => Some(('0', 10)),
            'a'..='z' => Some(('a', 26)),
            'A'..='Z' => Some(('A', 26)),
            _ => None,
        };
        let mut symbols: Vec<(u32, u32)> = text
            .chars()
            .filter_map(|c| place(c).map(|(first, radix)| (u32::from(c) - u32::from(first), radix)))
            .collect();
        self.permute(class, &mut symbols);
        let mut symbols = symbols.into_iter();
        text.chars()
            .map(|c| match place(c) {
                Some((first, _)) => {
                    let symbol = symbols.next().map_or(0, |(symbol, _)| symbol);
                    char::from_u32(u32::from(first) + symbol).unwrap_or(first)
                }
                // Letters of other alphabets say who it is just as well.
                None if c.is_alphabetic() => 'x',
                None => c,
            })
            .collect()
    }

    /// A name or extension; `anonymous` and blanks name nobody.
    pub(super) fn user(&self, text: &str) -> String {
        match text {
            "" | "-" | "anonymous" | "Anonymous" => text.to_owned(),
            // What the plus sign and the zeros of a number mean stays.
            _ => self.token(Class::User, text),
        }
    }

    /// An address, or a host's name, with what stands around it (brackets, a port).
    pub(super) fn host(&mut self, text: &str) -> String {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(ip) = inner.and_then(|inner| inner.parse::<IpAddr>().ok()) {
            return format!("[{}]", self.address(ip));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return self.address(ip).to_string();
        }
        if let Some((host, port)) = text.rsplit_once(':')
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && !port.is_empty()
            && (!host.contains(':') || host.starts_with('['))
        {
            return format!("{}:{port}", self.host(host));
        }
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        match lower.rsplit_once('.') {
            _ if matches!(lower.as_str(), "" | "-" | "localhost" | "anonymous.invalid" | "*") => {
                text.to_owned()
            }
            // Names that mean something by their end: mDNS, and JsSIP's Contact.
            Some((name, end @ ("local" | "invalid"))) => format!("{}.{end}", self.token(Class::Host, name)),
            Some(_) | None => {
                format!("h{:08x}.example.com", self.draw_u64(Class::Host, &[lower.as_bytes()]) as u32)
            }
        }
    }

    /// Call-ID: a token, and perhaps the host that made it.
    pub(super) fn call_id(&mut self, text: &str) -> String {
        match text.split_once('@') {
            Some((token, host)) => format!("{}@{}", self.token(Class::CallId, token), self.host(host)),
            None => self.token(Class::CallId, text),
        }
    }

    /// Branch: RFC 3261's cookie stays.
    pub(super) fn branch(&self, text: &str) -> String {
        match text.strip_prefix("z9hG4bK") {
            Some(rest) => format!("z9hG4bK{}", self.token(Class::Branch, rest)),
            None => self.token(Class::Branch, text),
        }
    }

    /// A URI with its parameters and headers.
    pub(super) fn uri(&mut self, text: &str) -> String {
        let Some((scheme, rest)) = text.split_once(':') else { return self.scrub(text) };
        match scheme.to_ascii_lowercase().as_str() {
            "tel" => {
                let (number, parameters) = cut(rest, ";");
                format!("{scheme}:{}{}", self.user(number), self.parameters(parameters))
            }
            "http" | "https" | "msrp" | "msrps" | "ws" | "wss" => {
                let rest = rest.trim_start_matches('/');
                let (authority, path) = cut(rest, "/;?#");
                let authority = match authority.rsplit_once('@') {
                    Some((user, host)) => format!("{}@{}", self.user(user), self.host(host)),
                    None => self.host(authority),
                };
                format!("{scheme}://{authority}{}", self.token(Class::Secret, path))
            }
            "urn" => format!("{scheme}:{}", self.urn(rest)),
            _ => {
                let (address, rest) = cut(rest, ";?");
                let address = match address.rsplit_once('@') {
                    Some((user, host)) => {
                        let (name, password) = cut(user, ":");
                        // A user part may have parameters of its own (RFC 3966 in a SIP URI, our route tokens).
                        format!(
                            "{}{}@{}",
                            self.user(name),
                            self.token(Class::Secret, password),
                            self.host(host)
                        )
                    }
                    None => self.host(address),
                };
                let (parameters, headers) = cut(rest, "?");
                format!("{scheme}:{address}{}{}", self.parameters(parameters), self.scrub(headers))
            }
        }
    }

    /// `uuid:…` is somebody's device; other names are services.
    fn urn(&self, text: &str) -> String {
        match text.split_once(':') {
            Some((kind, id)) if kind.eq_ignore_ascii_case("uuid") || kind.eq_ignore_ascii_case("gsma") => {
                format!("{kind}:{}", self.token(Class::Secret, id))
            }
            Some(_) | None => text.to_owned(),
        }
    }

    /// `;name=value;…`
    pub(super) fn parameters(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for (index, parameter) in split(text, ';').into_iter().enumerate() {
            if index > 0 {
                out.push(';');
            }
            let Some((name, value)) = parameter.split_once('=') else {
                out.push_str(parameter);
                continue;
            };
            let (quote, value) = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
                Some(inner) => ("\"", inner),
                None => ("", value),
            };
            let value = self.parameter(name.trim(), value);
            out.push_str(&format!("{name}={quote}{value}{quote}"));
        }
        out
    }

    fn parameter(&mut self, name: &str, value: &str) -> String {
        match name.to_ascii_lowercase().as_str() {
            "tag" | "ftag" | "to-tag" | "from-tag" | "totag" | "fromtag" => self.token(Class::Tag, value),
            "branch" => self.branch(value),
            "received" | "maddr" | "host" => {
                if value.contains(':') && value.to_ascii_lowercase().starts_with("sip") {
                    self.uri(value)
                } else {
                    self.host(value)
                }
            }
            // Kamailio's: address~port~transport.
            "alias" => {
                let (host, rest) = cut(value, "~");
                format!("{}{rest}", self.host(host))
            }
            "+sip.instance" | "+u.sip!devicename.ccm.cisco.com" => {
                let inner = value.trim_matches(['<', '>']);
                format!("<{}>", self.uri(inner))
            }
            "lr" | "transport" | "expires" | "q" | "rport" | "ttl" | "user" | "method" | "reg-id"
            | "methods" | "audio" | "video" | "cause" | "text" | "comp" | "sigcomp-id" | "pub-gruu"
            | "r2" | "nat" | "privacy" | "screen" | "party" | "index" | "reason" | "refresher" | "isub"
            | "ob" | "phone-context" | "language" => self.scrub(value),
            // Cookies of proxies (did, vsf, vst, i, alias's kin, our tokens) say where somebody is.
            _ if value.len() >= 6 && value.parse::<IpAddr>().is_err() => self.token(Class::Secret, value),
            _ => self.scrub(value),
        }
    }

    /// Any text: URIs, addresses, hosts' names, who stands before an `@`, and what looks like an identifier.
    pub(super) fn scrub(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(length) = uri_length(rest) {
                out.push_str(&self.uri(&rest[..length]));
                rest = &rest[length..];
                continue;
            }
            let is_word =
                |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '+' | '%' | '~');
            let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            if length == 0 {
                let c = rest.chars().next().unwrap_or(' ');
                out.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
            // A word ends where a URI begins in it.
            let inner =
                (1..length).find(|at| rest.is_char_boundary(*at) && uri_length(&rest[*at..]).is_some());
            let length = inner.unwrap_or(length);
            let (word, behind) = rest.split_at(length);
            let after_at = out.ends_with('@');
            let word = if behind.starts_with('@') {
                self.user(word)
            } else if after_at || is_host(word) {
                self.host(word)
            } else if is_identifier(word) {
                self.token(Class::Secret, word)
            } else {
                word.to_owned()
            };
            out.push_str(&word);
            rest = behind;
        }
        out
    }

    /// A field of a record or of an ng dictionary, by its name.
    pub fn field(&mut self, name: &str, value: &str) -> String {
        let name = name.to_ascii_lowercase().replace(['_', ' '], "-");
        match name.as_str() {
            "call-id" | "callid" | "call" => self.call_id(value),
            "from-tag" | "to-tag" | "tag" => self.token(Class::Tag, value),
            "via-branch" | "branch" => self.branch(value),
            "user" | "caller" | "callee" | "username" => self.user(value),
            "display" | "display-name" | "label" | "name" => self.token(Class::Words, value),
            "ice-ufrag" | "ice-pwd" | "ufrag" | "pwd" => self.token(Class::Ice, value),
            "cookie" | "key" | "password" => self.token(Class::Secret, value),
            _ => self.scrub(value),
        }
    }
}

/// The text before the first of these, and the rest with it.
pub(super) fn cut<'t>(text: &'t str, stops: &str) -> (&'t str, &'t str) {
    text.split_at(text.find(|c| stops.contains(c)).unwrap_or(text.len()))
}

/// Splits outside of quotation marks and angle brackets.
pub(super) fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    let (mut quoted, mut angle, mut escaped) = (false, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => angle = true,
            '>' if !quoted => angle = false,
            c if c == separator && !quoted && !angle => {
                parts.push(&text[from..at]);
                from = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// The length of the URI that begins here.
pub(super) fn uri_length(text: &str) -> Option<usize> {
    let scheme = SCHEMES
        .iter()
        .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?;
    let ends = |c: char| {
        c.is_whitespace() || matches!(c, '<' | '>' | '"' | '\'' | ',' | '(' | ')' | '{' | '}' | '|')
    };
    let length = text.find(ends).unwrap_or(text.len());
    (length > scheme.len()).then_some(length)
}

/// An address, or labels with a dot between them that end in letters.
fn is_host(word: &str) -> bool {
    if word.parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = match word.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => word,
    };
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let legal =
        |label: &&str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    labels.len() > 1
        && labels.iter().all(legal)
        && labels.last().is_some_and(|end| end.len() > 1 && end.bytes().all(|b| b.is_ascii_alphabetic()))
}

/// Long, of letters and digits mixed: nobody's word.
fn is_identifier(word: &str) -> bool {
    word.len() >= 8
        && word.bytes().any(|b| b.is_ascii_digit())
        && word.bytes().any(|b| b.is_ascii_alphabetic())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~' | b'.'))
}
