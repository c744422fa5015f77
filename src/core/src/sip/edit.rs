//! Forwarding: the same message with a few headers changed, and the rest byte for byte.
//!
//! RFC 3261 §16.6, §16.7, §18.2.1; RFC 3581 §4; RFC 3327. Goes in: a [`Message`] and what to change. Comes out: the bytes to
//! send, appended to a buffer that the caller keeps. Not here: why something is changed.

use super::lex;
use super::name::Name;
use super::via::Via;
use super::{Entry, List, Message, StartLine};
use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;

/// Text that an edit puts in: borrowed or owned. Line ends in it become spaces when it is written, so that no value can
/// begin a header of its own.
#[derive(Clone, Debug)]
pub struct Text<'e>(Cow<'e, [u8]>);

impl<'e> From<&'e str> for Text<'e> {
    fn from(text: &'e str) -> Self {
        Text(Cow::Borrowed(text.as_bytes()))
    }
}

impl<'e> From<&'e String> for Text<'e> {
    fn from(text: &'e String) -> Self {
        Text(Cow::Borrowed(text.as_bytes()))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Text(Cow::Owned(text.into_bytes()))
    }
}

impl<'e> From<&'e [u8]> for Text<'e> {
    fn from(text: &'e [u8]) -> Self {
        Text(Cow::Borrowed(text))
    }
}

impl From<Vec<u8>> for Text<'_> {
    fn from(text: Vec<u8>) -> Self {
        Text(Cow::Owned(text))
    }
}

pub(super) fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    let at = out.len();
    out.extend_from_slice(value);
    for byte in &mut out[at..] {
        if matches!(byte, b'\r' | b'\n' | 0) {
            *byte = b' ';
        }
    }
}

/// In decimal. Each message has a few, and the formatting machinery costs more than the digits.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: usize) {
    let at = out.len();
    loop {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[at..].reverse();
}

pub(super) fn put_field(out: &mut Vec<u8>, name: &str, number: usize) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    put_number(out, number);
    out.extend_from_slice(b"\r\n");
}

fn put_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    put_value(out, value);
    out.extend_from_slice(b"\r\n");
}

#[derive(Clone, Debug)]
enum Contacts<'e> {
    Keep,
    /// All Contact headers are replaced by one with this value.
    Replace(Text<'e>),
}

#[derive(Clone, Debug)]
enum Body<'e> {
    Keep,
    Replace { content_type: Option<Text<'e>>, bytes: Text<'e> },
}

/// Changes to one message. Those that need no memory of their own (Via, Max-Forwards, received, …) allocate nothing.
#[derive(Clone, Debug)]
pub struct Edit<'e> {
    request_uri: Option<Text<'e>>,
    via: Option<Text<'e>>,
    remove_vias: usize,
    received: Option<IpAddr>,
    rport: Option<u16>,
    max_forwards: Option<u8>,
    remove_routes: usize,
    prepend: Vec<(&'static str, Text<'e>)>,
    remove: Vec<Name>,
    remove_named: Vec<&'e str>,
    add: Vec<(&'e str, Text<'e>)>,
    contacts: Contacts<'e>,
    body: Body<'e>,
}

impl Default for Edit<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'e> Edit<'e> {
    pub const fn new() -> Self {
        Edit {
            request_uri: None,
            via: None,
            remove_vias: 0,
            received: None,
            rport: None,
            max_forwards: None,
            remove_routes: 0,
            prepend: Vec::new(),
            remove: Vec::new(),
            remove_named: Vec::new(),
            add: Vec::new(),
            contacts: Contacts::Keep,
            body: Body::Keep,
        }
    }

    /// Puts another Request-URI; of no effect on a response.
    pub fn set_request_uri(&mut self, uri: impl Into<Text<'e>>) -> &mut Self {
        self.request_uri = Some(uri.into());
        self
    }

    /// Our own hop, as a whole value: `SIP/2.0/UDP 192.0.2.1:5060;branch=…`.
    pub fn prepend_via(&mut self, via: impl Into<Text<'e>>) -> &mut Self {
        self.via = Some(via.into());
        self
    }

    /// Takes our hop off a response.
    pub fn remove_top_via(&mut self) -> &mut Self {
        self.remove_vias += 1;
        self
    }

    /// Writes `received` into the topmost Via that came; a `received` that the sender put there himself goes.
    pub fn set_received(&mut self, address: IpAddr) -> &mut Self {
        self.received = Some(address);
        self
    }

    /// Fills in `rport` of the topmost Via that came, or adds it where the client did not ask (forced rport).
    pub fn set_rport(&mut self, port: u16) -> &mut Self {
        self.rport = Some(port);
        self
    }

    /// Sets it, and adds it where there is none.
    pub fn set_max_forwards(&mut self, hops: u8) -> &mut Self {
        self.max_forwards = Some(hops);
        self
    }

    /// `value` with its brackets: `<sip:…;lr>`.
    pub fn prepend_record_route(&mut self, value: impl Into<Text<'e>>) -> &mut Self {
        self.prepend.push(("Record-Route", value.into()));
        self
    }

    /// `value` with its brackets.
    pub fn prepend_path(&mut self, value: impl Into<Text<'e>>) -> &mut Self {
        self.prepend.push(("Path", value.into()));
        self
    }

    /// `value` with its brackets. What is prepended later stands before what was prepended earlier.
    pub fn prepend_route(&mut self, value: impl Into<Text<'e>>) -> &mut Self {
        self.prepend.push(("Route", value.into()));
        self
    }

    /// Takes off the topmost value of Route; call it again for the next.
    pub fn remove_first_route(&mut self) -> &mut Self {
        self.remove_routes += 1;
        self
    }

    /// Puts one Contact header with this value (perhaps a list) in place of all that are there.
    pub fn replace_contacts(&mut self, value: impl Into<Text<'e>>) -> &mut Self {
        self.contacts = Contacts::Replace(value.into());
        self
    }

    /// Takes off all header fields of this name.
    pub fn remove(&mut self, name: Name) -> &mut Self {
        self.remove.push(name);
        self
    }

    /// The same for a name that [`Name`] does not know.
    pub fn remove_named(&mut self, name: &'e str) -> &mut Self {
        self.remove_named.push(name);
        self
    }

    /// Adds a header field behind those that are there.
    pub fn add(&mut self, name: &'e str, value: impl Into<Text<'e>>) -> &mut Self {
        self.add.push((name, value.into()));
        self
    }

    /// Puts another body and mends Content-Length; Content-Type stays unless one is given.
    pub fn replace_body(&mut self, content_type: Option<&'e str>, bytes: impl Into<Text<'e>>) -> &mut Self {
        self.body = Body::Replace { content_type: content_type.map(Into::into), bytes: bytes.into() };
        self
    }

    /// Appends the changed message. An edit without changes writes the bytes of the message.
    pub fn write(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        let raw = message.raw;
        out.reserve(raw.len() + 256);
        match (&self.request_uri, message.start) {
            (Some(uri), StartLine::Request { method, .. }) => {
                out.extend_from_slice(method.as_bytes());
                out.push(b' ');
                put_value(out, &uri.0);
                out.extend_from_slice(b" SIP/2.0\r\n");
            }
            _ => out.extend_from_slice(&raw[..message.headers_at]),
        }
        if let Some(via) = &self.via {
            put_header(out, "Via", &via.0);
        }
        for (name, value) in self.prepend.iter().rev() {
            put_header(out, name, &value.0);
        }
        let mut state = State {
            vias_to_remove: self.remove_vias,
            via_to_mark: self.received.is_some() || self.rport.is_some(),
            routes_to_remove: self.remove_routes,
            max_forwards: self.max_forwards,
            contact_written: false,
            type_written: false,
            length_written: false,
        };
        for entry in message.table.iter() {
            if self.header(message, entry, &mut state, out) {
                out.extend_from_slice(&raw[usize::from(entry.start)..usize::from(entry.end)]);
            }
        }
        if let Some(hops) = state.max_forwards {
            put_field(out, "Max-Forwards", usize::from(hops));
        }
        if let (Contacts::Replace(value), false) = (&self.contacts, state.contact_written) {
            put_header(out, "Contact", &value.0);
        }
        for (name, value) in &self.add {
            put_header(out, name, &value.0);
        }
        match &self.body {
            Body::Keep => out.extend_from_slice(&raw[message.head_end..]),
            Body::Replace { content_type, bytes } => {
                if let (Some(kind), false) = (content_type, state.type_written) {
                    put_header(out, "Content-Type", &kind.0);
                }
                if !state.length_written {
                    put_field(out, "Content-Length", bytes.0.len());
                }
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(&bytes.0);
            }
        }
    }

    /// Writes a header field that changes, or nothing where it goes; true where it stays as it is.
    fn header(&self, message: &Message<'_>, entry: Entry, state: &mut State, out: &mut Vec<u8>) -> bool {
        let header = message.view(entry);
        if self.remove.contains(&entry.name) && entry.name != Name::Other {
            return false;
        }
        if self.remove_named.iter().any(|name| header.name.eq_ignore_ascii_case(name.as_bytes())) {
            return false;
        }
        match entry.name {
            Name::Via if state.vias_to_remove > 0 || state.via_to_mark => {
                let kept = drop_first(header.value, &mut state.vias_to_remove);
                let Some(kept) = kept else { return false };
                if state.vias_to_remove > 0 || !std::mem::take(&mut state.via_to_mark) {
                    put_rest(out, header.name, kept);
                } else {
                    let first_end = lex::find_outside(kept, b',');
                    out.extend_from_slice(header.name);
                    out.extend_from_slice(b": ");
                    self.mark_via(lex::trim(&kept[..first_end]), out);
                    out.extend_from_slice(&kept[first_end..]);
                    out.extend_from_slice(b"\r\n");
                }
                false
            }
            Name::Route if state.routes_to_remove > 0 => {
                if let Some(kept) = drop_first(header.value, &mut state.routes_to_remove) {
                    put_rest(out, header.name, kept);
                }
                false
            }
            Name::MaxForwards if self.max_forwards.is_some() => {
                if let Some(hops) = state.max_forwards.take() {
                    put_field(out, "Max-Forwards", usize::from(hops));
                }
                false
            }
            Name::Contact => match &self.contacts {
                Contacts::Keep => true,
                Contacts::Replace(value) => {
                    if !std::mem::replace(&mut state.contact_written, true) {
                        put_header(out, "Contact", &value.0);
                    }
                    false
                }
            },
            Name::ContentType => match &self.body {
                Body::Replace { content_type: Some(kind), .. } => {
                    if !std::mem::replace(&mut state.type_written, true) {
                        put_header(out, "Content-Type", &kind.0);
                    }
                    false
                }
                Body::Replace { content_type: None, .. } | Body::Keep => true,
            },
            Name::ContentLength => match &self.body {
                Body::Replace { bytes, .. } => {
                    if !std::mem::replace(&mut state.length_written, true) {
                        put_field(out, "Content-Length", bytes.0.len());
                    }
                    false
                }
                Body::Keep => true,
            },
            _ => true,
        }
    }

    /// RFC 3261 §18.2.1 and RFC 3581 §4 on one Via value; the order of its parameters stays.
    fn mark_via(&self, value: &[u8], out: &mut Vec<u8>) {
        let Ok(via) = Via::parse(value) else {
            out.extend_from_slice(value);
            return;
        };
        let params = via.params.as_bytes();
        let params_at =
            if params.is_empty() { value.len() } else { params.as_ptr() as usize - value.as_ptr() as usize };
        out.extend_from_slice(lex::trim(&value[..params_at]));
        let mut rport = self.rport;
        for param in via.params.iter() {
            let is = |name: &str| param.name.eq_ignore_ascii_case(name.as_bytes());
            if is("received") && self.received.is_some() {
                continue;
            }
            if is("rport") && self.rport.is_some() {
                if let Some(port) = rport.take() {
                    out.extend_from_slice(b";rport=");
                    put_number(out, usize::from(port));
                }
                continue;
            }
            out.push(b';');
            out.extend_from_slice(param.name);
            if let Some(text) = param.value {
                out.push(b'=');
                out.extend_from_slice(text);
            }
        }
        if let Some(address) = self.received {
            let _ = write!(out, ";received={address}");
        }
        if let Some(port) = rport {
            out.extend_from_slice(b";rport=");
            put_number(out, usize::from(port));
        }
    }
}

struct State {
    vias_to_remove: usize,
    via_to_mark: bool,
    routes_to_remove: usize,
    /// Still to be written.
    max_forwards: Option<u8>,
    contact_written: bool,
    type_written: bool,
    length_written: bool,
}

/// What is left of a list when `count` elements are taken off its front (`count` goes down); None where nothing is.
fn drop_first<'v>(value: &'v [u8], count: &mut usize) -> Option<&'v [u8]> {
    let mut rest = value;
    while *count > 0 {
        *count -= 1;
        let end = lex::find_outside(rest, b',');
        rest = lex::trim_start(rest.get(end + 1..)?);
    }
    List::new(rest).next().map(|_| rest)
}

/// A header's line again, with a value that is a part of the old one (and may be folded).
fn put_rest(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
