//! One table of deadlines for everything that a machine waits for.
//!
//! RFC 3261 §17 has ten timers for each transaction, most of which never fire, and nearly all of one kind last equally
//! long. So a deadline goes to the end of a queue wherever one ends no later than it: as many queues as there are durations
//! come about by themselves, and both ends of a queue are cheap however many wait. What fits none goes to a heap. A timer
//! that is moved to later only changes its row, and its entry finds out when the old time comes; a timer that is disarmed
//! leaves a stale entry, which is skipped. In go a key (an enum of the owner's, with what it belongs to) and a time; out
//! come the keys whose time has come, in order of time. Not here: what a timer means.

use std::cmp::Reverse;
use std::collections::hash_map::Entry as Place;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::time::Instant;

/// Stale entries that may wait before they are swept, besides as many as live ones.
const STALE_SLACK: usize = 64;

/// Queues: more than a transaction has durations.
const LANES: usize = 16;

/// A hash of keys that we make ourselves: nobody can choose them to collide, so it need not be a secret's, only quick.
#[derive(Clone, Copy, Default)]
pub struct OwnHasher(u64);

/// For tables whose keys are numbers of ours.
pub type OwnHash = BuildHasherDefault<OwnHasher>;

impl OwnHasher {
    /// An odd number without a pattern; multiplying by it carries every bit upwards.
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(Self::MIX);
    }
}

impl Hasher for OwnHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        // The table takes its place from the low bits, which multiplying mixes least.
        self.0 ^ self.0.rotate_left(32)
    }
}

/// When a key is due, and the entry that stands for it.
#[derive(Clone, Copy)]
struct Row {
    due: Instant,
    /// The time of its entry: not later than `due`.
    queued: Instant,
    /// Tells its entry from the stale ones of the same key.
    entry: u64,
}

/// A deadline as it waits: its time, then its number, so that what is due together comes in the order of arming.
type Entry<K> = (Instant, u64, K);

/// Where the first entry stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Lane(usize),
    Heap,
}

/// Deadlines by key.
pub struct Timers<K> {
    /// Each in order of time.
    lanes: Vec<VecDeque<Entry<K>>>,
    heap: BinaryHeap<Reverse<Entry<K>>>,
    rows: HashMap<K, Row, OwnHash>,
    /// The earliest of all entries, which is a live one at its key's due time.
    first: Option<(Entry<K>, At)>,
    /// In lanes and heap.
    waiting: usize,
    entries: u64,
}

impl<K: Copy + Ord + Hash> Default for Timers<K> {
    fn default() -> Self {
        Timers {
            lanes: Vec::new(),
            heap: BinaryHeap::new(),
            rows: HashMap::default(),
            first: None,
            waiting: 0,
            entries: 0,
        }
    }
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to fire at `due`, wherever it stood before.
    pub fn arm(&mut self, key: K, due: Instant) {
        self.entries += 1;
        let row = Row { due, queued: due, entry: self.entries };
        match self.rows.entry(key) {
            Place::Occupied(mut old) if old.get().queued <= due => {
                old.get_mut().due = due;
                return self.changed(key);
            }
            Place::Occupied(mut old) => *old.get_mut() = row,
            Place::Vacant(place) => drop(place.insert(row)),
        }
        let entry = (due, row.entry, key);
        let at = self.queue(entry);
        if self.first.is_none_or(|(first, _)| entry < first) {
            self.first = Some((entry, at));
        } else {
            self.changed(key);
        }
    }

    /// Forgets `key`; says whether it was armed.
    pub fn disarm(&mut self, key: K) -> bool {
        let was = self.rows.remove(&key).is_some();
        if was {
            self.changed(key);
        }
        was
    }

    /// When `key` fires.
    pub fn due(&self, key: K) -> Option<Instant> {
        self.rows.get(&key).map(|row| row.due)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.first.map(|((at, ..), _)| at)
    }

    /// Takes one key whose time has come, the earliest first.
    pub fn expire(&mut self, now: Instant) -> Option<K> {
        let ((at, _, key), _) = self.first?;
        if at > now {
            return None;
        }
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

    /// Puts an entry where it waits: in the queue whose end is the latest that is not later, so that long durations do not
    /// close the queues of short ones.
    fn queue(&mut self, entry: Entry<K>) -> At {
        self.waiting += 1;
        let mut best: Option<(usize, Option<Instant>)> = None;
        for (lane, queue) in self.lanes.iter().enumerate() {
            let end = queue.back().map(|(at, ..)| *at);
            if end.is_none_or(|end| end <= entry.0) && best.is_none_or(|(_, other)| end > other) {
                best = Some((lane, end));
            }
        }
        let lane = match best {
            Some((lane, _)) => lane,
            None if self.lanes.len() < LANES => {
                self.lanes.push(VecDeque::new());
                self.lanes.len() - 1
            }
            None => {
                self.heap.push(Reverse(entry));
                return At::Heap;
            }
        };
        if let Some(queue) = self.lanes.get_mut(lane) {
            queue.push_back(entry);
        }
        At::Lane(lane)
    }

    /// Something changed about `key`: looks for the first anew where it was the first, and sweeps when most is stale.
    fn changed(&mut self, key: K) {
        if self.first.is_some_and(|((.., first), _)| first == key) {
            self.settle();
        }
        if self.waiting > 2 * self.rows.len() + STALE_SLACK {
            let rows = &self.rows;
            let live = |(_, entry, key): &Entry<K>| rows.get(key).is_some_and(|row| row.entry == *entry);
            self.lanes.iter_mut().for_each(|queue| queue.retain(live));
            self.heap.retain(|Reverse(entry)| live(entry));
            self.waiting = self.heap.len() + self.lanes.iter().map(VecDeque::len).sum::<usize>();
            self.settle();
        }
    }

    /// Finds the first entry that is live and at its key's due time; those before it go, or to their new places.
    fn settle(&mut self) {
        self.first = None;
        while let Some((entry, at)) = self.earliest() {
            let (time, number, key) = entry;
            match self.rows.get_mut(&key) {
                Some(row) if row.entry == number && row.due == time => {
                    self.first = Some((entry, at));
                    return;
                }
                Some(row) if row.entry == number => {
                    row.queued = row.due;
                    let due = row.due;
                    self.take(at);
                    self.queue((due, number, key));
                }
                _ => self.take(at),
            }
        }
    }

    fn earliest(&self) -> Option<(Entry<K>, At)> {
        let mut first = self.heap.peek().map(|Reverse(entry)| (*entry, At::Heap));
        for (lane, queue) in self.lanes.iter().enumerate() {
            if let Some(entry) = queue.front()
                && first.is_none_or(|(other, _)| *entry < other)
            {
                first = Some((*entry, At::Lane(lane)));
            }
        }
        first
    }

    fn take(&mut self, at: At) {
        let taken = match at {
            At::Lane(lane) => self.lanes.get_mut(lane).and_then(VecDeque::pop_front).is_some(),
            At::Heap => self.heap.pop().is_some(),
        };
        self.waiting -= usize::from(taken);
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
        let waiting = timers.heap.len() + timers.lanes.iter().map(VecDeque::len).sum::<usize>();
        assert_eq!(timers.waiting, waiting);
        assert!(waiting <= 2 * timers.len() + STALE_SLACK + 1);
        assert_eq!(timers.len(), 1);
    }

    /// The same as a sorted map would do, whatever comes: with few durations, and with so many that the heap is needed.
    #[test]
    fn does_what_a_sorted_map_does() {
        for spread in [4u64, 1_000_000] {
            let mut rng = crate::rng::Rng::from_seed(spread);
            let mut below = |limit: u64| (u64::from(rng.u32()) << 32 | u64::from(rng.u32())) % limit;
            let mut timers = Timers::new();
            let mut model = std::collections::BTreeMap::new();
            let mut heaped = false;
            for now in 1..20_000u64 {
                let key = below(300);
                match below(4) {
                    0 => assert_eq!(timers.disarm(key), model.remove(&key).is_some()),
                    _ => {
                        let due = Instant(now + 500 * (1 + below(spread)));
                        timers.arm(key, due);
                        model.insert(key, due);
                    }
                }
                heaped |= !timers.heap.is_empty();
                assert_eq!(timers.next(), model.values().min().copied());
                assert_eq!(timers.len(), model.len());
                while let Some(key) = timers.expire(Instant(now)) {
                    let due = model.remove(&key).expect("armed");
                    assert!(due <= Instant(now) && model.values().all(|other| *other >= due), "in order");
                }
                assert!(model.values().all(|due| *due > Instant(now)), "all of them");
            }
            assert!(heaped || spread == 4, "both ways were gone");
        }
    }
}
