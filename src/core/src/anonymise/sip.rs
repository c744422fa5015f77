//! A SIP message, header by header (RFC 3261 §20), with its body.
//!
//! In: a parsed message. Out: the same headers in their order, with other names, and a Content-Length that is right.
//! Not here: texts (`names`), descriptions (`sdp`).

use super::names::{cut, split, uri_length};
use super::{Anonymiser, Class};
use crate::inputs::sip::description;
use crate::sip::edit::Edit;
use crate::sip::{Message, Name, unfold};

impl Anonymiser {
    /// Appends the message with other names.
    pub fn sip(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        let mut head = Vec::with_capacity(message.as_bytes().len());
        let raw = message.as_bytes();
        let line_end = memchr::memchr(b'\n', raw).map_or(raw.len(), |lf| lf + 1);
        let start = String::from_utf8_lossy(&raw[..line_end]);
        let start = start.trim_end();
        match start.strip_suffix(" SIP/2.0").and_then(|start| start.split_once(' ')) {
            Some((method, uri)) if message.is_request() => {
                head.extend_from_slice(format!("{method} {} SIP/2.0\r\n", self.uri(uri)).as_bytes());
            }
            _ => head.extend_from_slice(format!("{start}\r\n").as_bytes()),
        }
        for header in message.all_headers() {
            let value = unfold(header.value);
            let text = String::from_utf8_lossy(&value);
            let name = String::from_utf8_lossy(header.name);
            let text = self.header(header.id, &name, &text);
            head.extend_from_slice(format!("{name}: {text}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        let body = self.body(message);
        // What was there of a Content-Length is the old one: no body is cut off by it.
        match Message::parse_to_show(&head) {
            Some(head) => Edit::new().replace_body(None, body).write(&head, out),
            None => out.extend_from_slice(&[head, body].concat()),
        }
    }

    fn body(&mut self, message: &Message<'_>) -> Vec<u8> {
        let body = message.body();
        let Some(place) = description(message) else {
            return match std::str::from_utf8(body) {
                Ok(text) => self.scrub(text).into_bytes(),
                // Nobody can tell what is in it.
                Err(_) => Vec::new(),
            };
        };
        let (before, behind) = (body.get(..place.start).unwrap_or(b""), body.get(place.end..).unwrap_or(b""));
        let mut out = self.scrub(&String::from_utf8_lossy(before)).into_bytes();
        let length = out.len();
        let sdp = body.get(place).unwrap_or_default();
        if self.sdp(sdp, &mut out).is_err() {
            out.truncate(length);
            out.extend_from_slice(self.scrub(&String::from_utf8_lossy(sdp)).as_bytes());
        }
        out.extend_from_slice(self.scrub(&String::from_utf8_lossy(behind)).as_bytes());
        out
    }

    fn header(&mut self, id: Name, name: &str, value: &str) -> String {
        match id {
            Name::Via => self.each(value, Self::via),
            Name::From
            | Name::To
            | Name::Contact
            | Name::Route
            | Name::RecordRoute
            | Name::Path
            | Name::ServiceRoute
            | Name::ReferTo
            | Name::ReferredBy
            | Name::ReplyTo
            | Name::PAssertedIdentity
            | Name::PPreferredIdentity
            | Name::HistoryInfo
            | Name::AlertInfo
            | Name::CallInfo
            | Name::ErrorInfo => self.each(value, Self::address_of),
            Name::CallId => self.call_id(value),
            Name::InReplyTo => self.each(value, |this, one| this.call_id(one)),
            Name::Replaces => {
                let (call_id, parameters) = cut(value, ";");
                format!("{}{}", self.call_id(call_id.trim()), self.parameters(parameters))
            }
            Name::Authorization
            | Name::ProxyAuthorization
            | Name::WwwAuthenticate
            | Name::ProxyAuthenticate
            | Name::AuthenticationInfo => self.credentials(value),
            Name::Subject | Name::Organization => self.token(Class::Words, value),
            Name::SipETag | Name::SipIfMatch | Name::Identity => self.token(Class::Secret, value),
            Name::CSeq
            | Name::MaxForwards
            | Name::MaxBreadth
            | Name::ContentLength
            | Name::ContentType
            | Name::ContentEncoding
            | Name::ContentDisposition
            | Name::ContentLanguage
            | Name::Expires
            | Name::MinExpires
            | Name::Require
            | Name::ProxyRequire
            | Name::Supported
            | Name::Unsupported
            | Name::Allow
            | Name::AllowEvents
            | Name::SubscriptionState
            | Name::Accept
            | Name::AcceptEncoding
            | Name::AcceptLanguage
            | Name::Date
            | Name::RetryAfter
            | Name::UserAgent
            | Name::Server
            | Name::SessionExpires
            | Name::MinSe
            | Name::RSeq
            | Name::RAck
            | Name::Timestamp
            | Name::Priority
            | Name::MimeVersion
            | Name::Privacy
            | Name::FlowTimer => value.to_owned(),
            Name::Event | Name::AcceptContact | Name::RejectContact | Name::RequestDisposition => {
                self.parameters(value)
            }
            Name::Reason | Name::Warning => self.scrub(value),
            Name::Other => self.other(name, value),
        }
    }

    fn other(&mut self, name: &str, value: &str) -> String {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "remote-party-id"
            | "diversion"
            | "p-called-party-id"
            | "p-associated-uri"
            | "p-charge-info"
            | "p-preferred-service"
            | "p-asserted-service" => self.each(value, Self::address_of),
            "join" | "target-dialog" => {
                let (call_id, parameters) = cut(value, ";");
                format!("{}{}", self.call_id(call_id.trim()), self.parameters(parameters))
            }
            "session-id" | "x-call-id" | "x-cid" => {
                let (id, parameters) = cut(value, ";");
                format!("{}{}", self.call_id(id), self.parameters(parameters))
            }
            // Cells and lines are places.
            "p-access-network-info" | "p-visited-network-id" | "p-charging-vector" | "geolocation" => {
                self.token(Class::Secret, value)
            }
            _ => self.scrub(value),
        }
    }

    /// Values with commas between them.
    fn each(&mut self, value: &str, mut of: impl FnMut(&mut Self, &str) -> String) -> String {
        let values: Vec<String> = split(value, ',').into_iter().map(|one| of(self, one.trim())).collect();
        values.join(", ")
    }

    /// `SIP/2.0/UDP host:port;branch=…`
    fn via(&mut self, value: &str) -> String {
        let (by, parameters) = cut(value, ";");
        let sent_by = match by.trim().rsplit_once(' ') {
            Some((protocol, host)) => format!("{protocol} {}", self.host(host)),
            None => self.scrub(by),
        };
        format!("{sent_by}{}", self.parameters(parameters))
    }

    /// `"Name" <uri>;parameters`, or a URI alone, whose parameters are the header's (RFC 3261 §20.10).
    fn address_of(&mut self, value: &str) -> String {
        let angle = split_at_angle(value);
        let Some((display, uri, parameters)) = angle else {
            let (uri, parameters) = cut(value, ";");
            let uri = if uri == "*" { uri.to_owned() } else { self.uri(uri) };
            return format!("{uri}{}", self.parameters(parameters));
        };
        let display = display.trim();
        let display = match display.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) => format!("\"{}\" ", self.token(Class::Words, text)),
            None if display.is_empty() => String::new(),
            None => format!("{} ", self.token(Class::Words, display)),
        };
        let uri =
            if uri_length(uri).is_some() || uri.contains(':') { self.uri(uri) } else { self.scrub(uri) };
        format!("{display}<{uri}>{}", self.parameters(parameters))
    }

    /// `Digest name="value", …`
    fn credentials(&mut self, value: &str) -> String {
        let (scheme, rest) = cut(value.trim(), " ");
        // Authentication-Info has no scheme.
        let (scheme, rest) = if scheme.contains('=') { ("", value.trim()) } else { (scheme, rest.trim()) };
        let parameters: Vec<String> = split(rest, ',')
            .into_iter()
            .map(|parameter| {
                let Some((name, value)) = parameter.trim().split_once('=') else {
                    return parameter.trim().to_owned();
                };
                let (quote, value) = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
                    Some(inner) => ("\"", inner),
                    None => ("", value),
                };
                let value = match name.trim().to_ascii_lowercase().as_str() {
                    "username" => match value.split_once('@') {
                        Some((user, host)) => format!("{}@{}", self.user(user), self.host(host)),
                        None => self.user(value),
                    },
                    "realm" => self.host(value),
                    "uri" | "domain" => self.uri(value),
                    "nonce" | "cnonce" | "opaque" | "response" | "nextnonce" | "rspauth" | "username*" => {
                        self.token(Class::Secret, value)
                    }
                    // algorithm, qop, nc, stale
                    _ => value.to_owned(),
                };
                format!("{name}={quote}{value}{quote}")
            })
            .collect();
        let blank = if scheme.is_empty() { "" } else { " " };
        format!("{scheme}{blank}{}", parameters.join(", "))
    }
}

/// What stands before `<`, within the brackets, and behind them; an angle within quotation marks is text.
fn split_at_angle(value: &str) -> Option<(&str, &str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    let open = value.char_indices().find_map(|(at, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => return Some(at),
            _ => {}
        }
        None
    })?;
    let rest = &value[open + 1..];
    let close = rest.find('>')?;
    Some((&value[..open], &rest[..close], &rest[close + 1..]))
}
