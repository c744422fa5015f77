//! Messages of our own: answers, and requests that we originate.
//!
//! RFC 3261 §8.2.6 (responses), §7.1 (requests). Goes in: the request that is answered, or the parts. Comes out: bytes.
//! Not here: which status, which headers; Via, From, tags and branches of a request are the caller's.

use super::edit::{put_field, put_number, put_value};
use super::lex;
use super::name::Name;
use super::{Message, status};

/// Answers a request: Via, From, To (with `to_tag` unless it has one), Call-ID and CSeq are the request's, byte for byte;
/// a 100 takes its Timestamp along (§8.2.6.1). Of what may be there once, the first counts: the request may be one that is
/// refused for having two. Then `headers` in order, Content-Length, and the body.
pub fn response(
    request: &Message<'_>,
    code: u16,
    reason: Option<&str>,
    to_tag: Option<&str>,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + body.len());
    out.extend_from_slice(b"SIP/2.0 ");
    put_number(&mut out, usize::from(code));
    out.push(b' ');
    put_value(&mut out, reason.unwrap_or(status::reason(code)).as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut once = [Name::From, Name::To, Name::CallId, Name::CSeq, Name::Timestamp].map(Some);
    if code != 100 {
        once[4] = None;
    }
    for header in request.all_headers() {
        let wanted = once.iter_mut().find(|name| **name == Some(header.id));
        let copied = header.id == Name::Via || wanted.is_some_and(|name| name.take().is_some());
        if !copied {
            continue;
        }
        out.extend_from_slice(header.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(header.value);
        if header.id == Name::To
            && let Some(tag) = to_tag
            && !has_tag(header.value)
        {
            out.extend_from_slice(b";tag=");
            put_value(&mut out, tag.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    finish(out, headers, body)
}

/// A To that cannot be read may have a tag all the same: it is looked for behind the address.
fn has_tag(to: &[u8]) -> bool {
    let behind = memchr::memrchr(b'>', to).map_or(to, |at| &to[at..]);
    behind.split(|&b| b == b';').skip(1).any(|param| {
        let name = param.split(|&b| b == b'=').next().unwrap_or_default();
        lex::trim(name).eq_ignore_ascii_case(b"tag")
    })
}

/// A request: the start-line, `headers` in order, Content-Length, and the body.
pub fn request(method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + body.len());
    put_value(&mut out, method.as_bytes());
    out.push(b' ');
    put_value(&mut out, uri.as_bytes());
    out.extend_from_slice(b" SIP/2.0\r\n");
    finish(out, headers, body)
}

fn finish(mut out: Vec<u8>, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    for (name, value) in headers {
        put_value(&mut out, name.as_bytes());
        out.extend_from_slice(b": ");
        put_value(&mut out, value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    put_field(&mut out, "Content-Length", body.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}
