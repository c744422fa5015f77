//! Who answers what a machine asks: the database, DNS, the relays.
//!
//! In: [`Question`](sipbox_core::machine::Question)s with a ticket. Out: answers on one channel that the driver reads,
//! in any order. Whatever blocks does so on a thread of its own; a question that is never answered is the machine's
//! own deadline.

use sipbox_core::machine::{Reply, Ticket};
use sipbox_core::store;
use std::net::SocketAddr;
use tokio::sync::mpsc::UnboundedSender;

/// Takes the answer to one question. May be moved to any thread. Dropped unused: the machine's deadline applies.
/// The channel needs no bound of its own: there is one message for each open ticket, and those are bounded by
/// [`OPEN_TICKETS`](sipbox_core::limits::OPEN_TICKETS).
pub struct ReplyTo {
    ticket: Ticket,
    channel: UnboundedSender<(Ticket, Reply)>,
}

impl ReplyTo {
    pub(crate) fn new(ticket: Ticket, channel: UnboundedSender<(Ticket, Reply)>) -> Self {
        ReplyTo { ticket, channel }
    }

    pub fn send(self, reply: Reply) {
        // A driver that has ended wants no answers.
        let _ = self.channel.send((self.ticket, reply));
    }
}

/// A database. `ask` must not block: it hands the query to a thread.
pub trait Store {
    fn ask(&mut self, query: store::Query, to: ReplyTo);
}

/// What a machine may ask; what is absent is never asked by it.
#[derive(Default)]
pub struct Services {
    pub store: Option<Box<dyn Store>>,
    /// ng addresses by relay index.
    pub relays: Vec<SocketAddr>,
}
