//! The one clock of a process: monotonic, anchored once to the wall clock.
//!
//! Out: [`sipbox_core::time::Instant`], microseconds since the Unix epoch. A clock that the administrator
//! sets back later moves neither timers nor records.

use sipbox_core::time::Instant;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Hands out points in time; a copy tells the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: std::time::Instant,
    base_micros: u64,
}

impl Clock {
    /// Anchors to the wall clock.
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { base: std::time::Instant::now(), base_micros: wall.as_micros() as u64 }
    }

    pub fn now(&self) -> Instant {
        Instant(self.base_micros + self.base.elapsed().as_micros() as u64)
    }

    /// The same point on the operating system's monotonic clock, for sleeping.
    pub fn to_std(&self, at: Instant) -> std::time::Instant {
        self.base + Duration::from_micros(at.0.saturating_sub(self.base_micros))
    }
}
