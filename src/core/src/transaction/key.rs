//! What matches a message to its transaction.
//!
//! RFC 3261 §17.1.3 (responses: top branch and CSeq method) and §17.2.3 (requests: top branch, sent-by and method,
//! where an ACK counts as its INVITE; without the magic cookie the older rule of RFC 2543). In go the fields that
//! the caller took from the message; out comes a text that is equal for what belongs together.

use std::fmt::Write;

/// RFC 3261 §8.1.1.7: a branch that begins so is unique across space and time.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// The fields of a request that name its transaction. All as they stand in the message.
#[derive(Clone, Copy, Debug)]
pub struct RequestId<'a> {
    pub method: &'a str,
    /// Of the top Via; empty where there is none.
    pub branch: &'a str,
    /// HOST[:PORT] of the top Via.
    pub sent_by: &'a str,
    pub uri: &'a str,
    pub from_tag: &'a str,
    pub call_id: &'a str,
    /// The number of CSeq.
    pub cseq: u32,
    /// It has a To tag.
    pub in_dialog: bool,
    /// Bytes of the message, which whoever answers it keeps meanwhile.
    pub bytes: usize,
}

/// The fields of a response that name its client transaction, and what an ACK to it needs.
#[derive(Clone, Copy, Debug)]
pub struct ResponseId<'a> {
    /// Of the top Via, which is ours.
    pub branch: &'a str,
    /// Of CSeq.
    pub method: &'a str,
    pub status: u16,
    /// The value of To, with its tag.
    pub to: &'a str,
}

/// The server transaction of a request; of an ACK and of a CANCEL's target with `method` "INVITE".
pub(super) fn server(id: &RequestId<'_>, method: &str, out: &mut String) {
    out.clear();
    // A key is written for every request: into one buffer, and copied only for a new transaction.
    let written = match id.branch.strip_prefix(MAGIC_COOKIE) {
        Some(rest) if !rest.is_empty() => {
            out.push_str(rest);
            out.push('\n');
            // Hosts are compared without regard to case (RFC 3261 §19.1.4).
            out.extend(id.sent_by.chars().map(|c| c.to_ascii_lowercase()));
            // Beyond the RFC: a branch that its client uses twice, for another request, is no retransmission.
            write!(out, "\n{method}\n{}\n{}", id.cseq, id.call_id)
        }
        // RFC 2543: URI, From tag, Call-ID, CSeq number and the top Via. The To tag is left out, since an ACK has one that
        // its INVITE had not; the rest tells them apart well enough.
        _ => write!(
            out,
            "2543\n{}\n{}\n{}\n{}\n{}\n{}\n{method}",
            id.uri, id.from_tag, id.call_id, id.cseq, id.branch, id.sent_by
        ),
    };
    debug_assert!(written.is_ok(), "writing to a String");
}

/// What all copies of one request have in common, whichever way they came (RFC 3261 §8.2.2.2).
pub(super) fn merged(id: &RequestId<'_>, out: &mut String) {
    out.clear();
    let written = write!(out, "{}\n{}\n{}\n{}", id.from_tag, id.cseq, id.method, id.call_id);
    debug_assert!(written.is_ok(), "writing to a String");
}

pub(super) fn client(branch: &str, method: &str, out: &mut String) {
    out.clear();
    out.push_str(branch);
    out.push('\n');
    out.push_str(method);
}
