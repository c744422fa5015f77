//! Servers that did not answer: left out for a while, so that not every call waits for them.
//!
//! RFC 3263 §4.3 leaves to the client for how long. In: who failed, and the hops of a search. Out: the hops without those;
//! all of them where no other is left, since a dead server is better than none.

use super::Hop;
use crate::limits::DEAD_HOPS;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a server that did not answer is left out.
pub const PENALTY: Duration = Duration::from_secs(60);

/// Who is, and until when.
#[derive(Debug, Default)]
pub struct Dead(BTreeMap<Hop, Instant>);

impl Dead {
    pub fn mark(&mut self, now: Instant, hop: Hop) {
        if self.0.len() >= DEAD_HOPS {
            self.0.retain(|_, until| *until > now);
        }
        if self.0.len() < DEAD_HOPS {
            self.0.insert(hop, now + PENALTY);
        }
    }

    /// It answered.
    pub fn lives(&mut self, hop: &Hop) {
        if !self.0.is_empty() {
            self.0.remove(hop);
        }
    }

    pub fn has(&self, now: Instant, hop: &Hop) -> bool {
        self.0.get(hop).is_some_and(|until| *until > now)
    }

    pub fn leave_out(&self, now: Instant, hops: Vec<Hop>) -> Vec<Hop> {
        let alive = |hop: &Hop| !self.has(now, hop);
        if hops.iter().any(alive) { hops.into_iter().filter(alive).collect() } else { hops }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
