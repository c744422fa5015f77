//! The fields that name a transaction, taken from a message.
//!
//! RFC 3261 §17.1.3, §17.2.3. In: a message that passed [`Message::check`]. Out: a [`RequestId`] or [`ResponseId`] that borrows
//! from it. A part that is not UTF-8 counts as empty: it matches less, never more than it should, since the
//! other parts and the older rule of RFC 2543 still tell transactions apart.

use super::key::{RequestId, ResponseId};
use crate::sip::{Message, Method, Name};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl<'a> RequestId<'a> {
    pub fn of(message: &Message<'a>) -> RequestId<'a> {
        let via = message.top_via().ok();
        RequestId {
            method: method_name(message.method()),
            branch: via.and_then(|via| via.branch()).map(text).unwrap_or_default(),
            sent_by: via.map(|via| via.sent_by).unwrap_or_default(),
            uri: text(message.request_uri()),
            from_tag: message.from_tag().map(text).unwrap_or_default(),
            call_id: message.call_id().map(text).unwrap_or_default(),
            cseq: message.cseq().map(|(number, _)| number).unwrap_or_default(),
            in_dialog: message.to_tag().is_some(),
            bytes: message.as_bytes().len(),
        }
    }
}

impl<'a> ResponseId<'a> {
    /// `None` without a branch that we could have made.
    pub fn of(message: &Message<'a>) -> Option<ResponseId<'a>> {
        Some(ResponseId {
            branch: text(message.top_via().ok()?.branch()?),
            method: method_name(message.method()),
            status: message.status(),
            to: text(message.header(Name::To)?),
        })
    }
}

fn method_name(method: Method<'_>) -> &str {
    text(method.as_bytes())
}
