//! One table of deadlines for everything that a machine waits for.
//!
//! RFC 3261 §17 has ten timers for each transaction, most of which never fire. So arming is cheap: a timer that is
//! moved to later only changes its row, and the heap finds out when the old time comes; a timer that is disarmed
//! leaves a stale entry, which is skipped. In go a key (an enum of the owner's, with what it belongs to) and a
//! time; out come the keys whose time has come, in order of time. Not here: what a timer means.

use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};

/// Stale entries that the heap may hold before it is swept, besides as many as live ones.
const STALE_SLACK: usize = 64;

/// When a key is due, and the heap entry that stands for it.
#[derive(Clone, Copy)]
struct Row {
    due: Instant,
    /// The time of its heap entry: not later than `due`.
    queued: Instant,
    /// Tells its heap entry from the stale ones of the same key.
    entry: u64,
}

/// Deadlines by key. Keys are made by us, never by a peer, so the hash needs no secret.
pub struct Timers<K> {
    heap: BinaryHeap<Reverse<(Instant, u64, K)>>,
    rows: HashMap<K, Row, BuildHasherDefault<DefaultHasher>>,
    entries: u64,
}

impl<K: Copy + Ord + Hash> Default for Timers<K> {
    fn default() -> Self {
        Timers { heap: BinaryHeap::new(), rows: HashMap::default(), entries: 0 }
    }
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to fire at `due`, wherever it stood before.
    pub fn arm(&mut self, key: K, due: Instant) {
        match self.rows.get_mut(&key) {
            Some(row) if row.queued <= due => row.due = due,
            _ => {
                self.entries += 1;
                self.rows.insert(key, Row { due, queued: due, entry: self.entries });
                self.heap.push(Reverse((due, self.entries, key)));
            }
        }
        self.settle();
    }

    /// Forgets `key`; says whether it was armed.
    pub fn disarm(&mut self, key: K) -> bool {
        let was = self.rows.remove(&key).is_some();
        if was {
            self.settle();
        }
        was
    }

    /// When `key` fires.
    pub fn due(&self, key: K) -> Option<Instant> {
        self.rows.get(&key).map(|row| row.due)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes one key whose time has come, the earliest first.
    pub fn expire(&mut self, now: Instant) -> Option<K> {
        let &Reverse((at, _, key)) = self.heap.peek()?;
        if at > now {
            return None;
        }
        // `settle` left a live entry on top, at the very time that its key is due.
        self.heap.pop();
        self.rows.remove(&key);
        self.settle();
        Some(key)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Leaves on top of the heap a live entry at its key's due time, and sweeps when most of it is stale.
    fn settle(&mut self) {
        while let Some(mut top) = self.heap.peek_mut() {
            let Reverse((at, entry, key)) = *top;
            match self.rows.get_mut(&key) {
                Some(row) if row.entry == entry && row.due == at => break,
                Some(row) if row.entry == entry => {
                    row.queued = row.due;
                    *top = Reverse((row.due, entry, key));
                }
                _ => {
                    std::collections::binary_heap::PeekMut::pop(top);
                }
            }
        }
        if self.heap.len() > 2 * self.rows.len() + STALE_SLACK {
            let rows = &self.rows;
            self.heap.retain(|Reverse((_, entry, key))| rows.get(key).is_some_and(|row| row.entry == *entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_secs(secs)
    }

    #[test]
    fn fires_in_order_and_once() {
        let mut timers = Timers::new();
        timers.arm('b', at(2));
        timers.arm('a', at(1));
        timers.arm('c', at(3));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.expire(at(0)), None);
        assert_eq!(timers.expire(at(2)), Some('a'));
        assert_eq!(timers.expire(at(2)), Some('b'));
        assert_eq!(timers.expire(at(2)), None);
        assert_eq!(timers.next(), Some(at(3)));
        assert_eq!(timers.len(), 1);
    }

    #[test]
    fn rearming_moves_it_both_ways() {
        let mut timers = Timers::new();
        timers.arm('a', at(5));
        timers.arm('a', at(9));
        assert_eq!(timers.next(), Some(at(9)));
        timers.arm('a', at(2));
        assert_eq!(timers.next(), Some(at(2)));
        timers.arm('a', at(7));
        assert_eq!(timers.expire(at(6)), None);
        assert_eq!(timers.expire(at(7)), Some('a'));
        assert_eq!(timers.expire(at(100)), None);
    }

    #[test]
    fn a_disarmed_timer_is_silent() {
        let mut timers = Timers::new();
        timers.arm('a', at(1));
        timers.arm('b', at(2));
        assert!(timers.disarm('a'));
        assert!(!timers.disarm('a'));
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.expire(at(5)), Some('b'));
        assert!(timers.is_empty());
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn stale_entries_do_not_pile_up() {
        let mut timers = Timers::new();
        timers.arm(0u32, at(1));
        for n in 1..100_000u32 {
            timers.arm(n, at(1000 + u64::from(n)));
            timers.disarm(n);
            // The same key to and fro: earlier needs an entry, later does not.
            timers.arm(0, at(u64::from(n % 7) + 1));
        }
        assert!(timers.heap.len() <= 2 * timers.len() + STALE_SLACK + 1);
        assert_eq!(timers.len(), 1);
    }
}
