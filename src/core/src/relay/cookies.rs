//! Replies that are kept for requests that come again: an ng client repeats a request whose reply was lost.
//!
//! In: source, cookie, reply. Out: the same reply. Bounded in number, bytes and age, the oldest goes first.

use crate::limits::{NG_COOKIE_BYTES, NG_COOKIES};
use crate::time::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Clients give up after seconds.
const KEPT: Duration = Duration::from_secs(30);

type Key = (SocketAddr, Vec<u8>);

#[derive(Default)]
pub(super) struct Cookies {
    replies: BTreeMap<Key, Vec<u8>>,
    ages: VecDeque<(Instant, Key)>,
    bytes: usize,
}

impl Cookies {
    pub fn get(&mut self, now: Instant, source: SocketAddr, cookie: &[u8]) -> Option<Vec<u8>> {
        self.expire(now);
        self.replies.get(&(source, cookie.to_vec())).cloned()
    }

    pub fn put(&mut self, now: Instant, source: SocketAddr, cookie: &[u8], reply: &[u8]) {
        let key = (source, cookie.to_vec());
        if self.replies.insert(key.clone(), reply.to_vec()).is_none() {
            self.bytes += cookie.len() + reply.len();
            self.ages.push_back((now, key));
        }
        while self.ages.len() > NG_COOKIES || self.bytes > NG_COOKIE_BYTES {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.replies.len()
    }

    pub fn expire(&mut self, now: Instant) {
        while self.ages.front().is_some_and(|(at, _)| now.saturating_since(*at) > KEPT) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, key)) = self.ages.pop_front() else { return false };
        if let Some(reply) = self.replies.remove(&key) {
            self.bytes = self.bytes.saturating_sub(key.1.len() + reply.len());
        }
        true
    }
}
