//! A dialog as its user agent keeps it: who, along which route, with which numbers.
//!
//! RFC 3261 §12. In goes the request and response that made it; out come the parts of later requests.
//! Not here: transactions, the calls that use it.

use super::{Fault, text};
use crate::sip::{Message, Name};

/// Both ends of one call, and the way between them.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    pub call_id: String,
    /// Value of From in our requests, with our tag.
    pub local: String,
    /// Value of To in our requests, with the peer's tag.
    pub remote: String,
    pub local_tag: String,
    pub remote_tag: String,
    /// The peer's Contact: request-URI of our requests.
    pub target: String,
    /// Values of Route, in order (§12.1.1, §12.1.2).
    pub route: Vec<String>,
    pub local_cseq: u32,
    /// None until the peer sent a request.
    pub remote_cseq: Option<u32>,
}

impl Dialog {
    /// §12.1.2: from our INVITE and its 2xx (or 1xx with a tag).
    pub fn from_response(response: &Message<'_>, cseq: u32) -> Result<Self, Fault> {
        let mut route = values(response, Name::RecordRoute)?;
        route.reverse();
        let (local, remote) = (header(response, Name::From)?, header(response, Name::To)?);
        Ok(Dialog {
            call_id: header(response, Name::CallId)?,
            local_tag: tag(response.from_tag())?,
            remote_tag: tag(response.to_tag())?,
            local,
            remote,
            target: contact(response)?,
            route,
            local_cseq: cseq,
            remote_cseq: None,
        })
    }

    /// §12.1.1: from an INVITE that we answer with `local_tag` in To.
    pub fn from_request(request: &Message<'_>, local_tag: &str) -> Result<Self, Fault> {
        let (cseq, _) = request.cseq()?;
        Ok(Dialog {
            call_id: header(request, Name::CallId)?,
            local_tag: local_tag.to_owned(),
            remote_tag: tag(request.from_tag())?,
            local: format!("{};tag={local_tag}", header(request, Name::To)?),
            remote: header(request, Name::From)?,
            target: contact(request)?,
            route: values(request, Name::RecordRoute)?,
            local_cseq: 0,
            remote_cseq: Some(cseq),
        })
    }

    /// Whether this request from the peer is in it.
    pub fn has(&self, request: &Message<'_>) -> bool {
        request.call_id() == Some(self.call_id.as_bytes())
            && request.from_tag() == Some(self.remote_tag.as_bytes())
            && request.to_tag() == Some(self.local_tag.as_bytes())
    }
}

/// The first value of a header that must be there, in one line.
pub(super) fn header(message: &Message<'_>, name: Name) -> Result<String, Fault> {
    message.header(name).and_then(text).ok_or(Fault::Missing(name))
}

fn values(message: &Message<'_>, name: Name) -> Result<Vec<String>, Fault> {
    message.values(name).map(|value| text(value).ok_or(Fault::Missing(name))).collect()
}

fn tag(tag: Option<&[u8]>) -> Result<String, Fault> {
    tag.and_then(text).ok_or(Fault::NoTag)
}

fn contact(message: &Message<'_>) -> Result<String, Fault> {
    let contact = message.contacts().next().ok_or(Fault::Missing(Name::Contact))??;
    text(contact.uri.as_bytes()).ok_or(Fault::Missing(Name::Contact))
}
