//! When a worker cannot keep up: new work is refused at once, so that what is under way goes on.
//!
//! RFC 3261 §21.5.4 (503 with Retry-After), RFC 6357 in spirit: a server that answers late is worse than one that says no,
//! since everybody repeats what it has not answered. In: the kernel's own count of datagrams that it had to drop because a
//! socket was full. Out: whether new requests are refused now, and the refusal. It costs nothing until a socket has more
//! than one batch waiting. Not here: bounds on what is under way (`core::limits`), whose owners answer 503 themselves.

use super::datagrams::DATAGRAMS;
use sipbox_core::sip::{Message, Method, build};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// How often the kernel is asked, at most.
const LOOK: Duration = Duration::from_millis(50);
/// How long new work is refused after the last loss.
const REFUSE: Duration = Duration::from_millis(200);
/// What the refused are told to wait, in seconds.
const RETRY_AFTER: &str = "5";
/// Place of the count of drops in the answer to SO_MEMINFO (linux/sock_diag.h, SK_MEMINFO_DROPS).
const DROPS: usize = 8;
const FIELDS: usize = 9;

/// One socket's state.
#[derive(Debug, Default)]
pub(super) struct Overload {
    looked: Option<Instant>,
    drops: u32,
    until: Option<Instant>,
    /// Since it began.
    refused: u64,
}

/// What has changed.
pub(super) enum Change {
    Begins { lost: u32 },
    Ends { refused: u64 },
}

impl Overload {
    /// After a batch of `count` datagrams from `socket`.
    pub fn look(&mut self, socket: RawFd, count: usize) -> Option<Change> {
        if count < DATAGRAMS && self.until.is_none() {
            return None;
        }
        let now = Instant::now();
        if self.looked.is_some_and(|looked| now < looked + LOOK) {
            return None;
        }
        self.looked = Some(now);
        let drops = drops(socket)?;
        let lost = drops.wrapping_sub(std::mem::replace(&mut self.drops, drops));
        if lost > 0 {
            return self.until.replace(now + REFUSE).is_none().then_some(Change::Begins { lost });
        }
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
            return Some(Change::Ends { refused: std::mem::take(&mut self.refused) });
        }
        None
    }

    /// The answer to a request that is new work, where there is too much of it.
    pub fn refuse(&mut self, data: &[u8], tag: &str) -> Option<Vec<u8>> {
        self.until?;
        let message = Message::parse(data).ok().filter(Message::is_request)?;
        // What belongs to a dialog or a transaction ends or mends something; it comes in less with fewer of them.
        if message.to_tag().is_some() || matches!(message.method(), Method::Ack | Method::Cancel) {
            return None;
        }
        self.refused += 1;
        Some(build::response(&message, 503, None, Some(tag), &[("Retry-After", RETRY_AFTER)], b""))
    }
}

/// Datagrams that the kernel dropped on this socket since it was made.
fn drops(socket: RawFd) -> Option<u32> {
    let mut fields = [0u32; FIELDS];
    let mut length = std::mem::size_of_val(&fields) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of an array that lives through the call.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            fields.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize == std::mem::size_of_val(&fields)).then(|| fields[DROPS])
}
