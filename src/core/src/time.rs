//! Points in time as numbers.
//!
//! An [`Instant`] is microseconds since the Unix epoch, on a clock that never goes back: the driver
//! anchors the monotonic clock to the wall clock once at start. So one number serves timers, database
//! columns and records, and `siptrace` and `mos-report` run the same machines on capture time.
//! Not here: reading any clock (`sipbox-io`, `clock`).

use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds since 1970-01-01T00:00:00Z, monotonic within a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    pub const fn from_secs(secs: u64) -> Self {
        Instant(secs * 1_000_000)
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Microseconds past [`unix_secs`](Self::unix_secs).
    pub const fn subsec_micros(self) -> u32 {
        (self.0 % 1_000_000) as u32
    }

    /// Time passed since `earlier`; zero where `earlier` is later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 in UTC with microseconds, as every record of sipbox has it.
    pub fn rfc3339(self) -> String {
        let days = (self.unix_secs() / 86_400) as i64;
        let second = self.unix_secs() % 86_400;
        let (year, month, day) = civil_from_days(days);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            self.subsec_micros()
        )
    }

    /// The form of the header Date (RFC 3261 §20.17, RFC 1123): whole seconds, always GMT.
    pub fn rfc1123(self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let days = self.unix_secs() / 86_400;
        let second = self.unix_secs() % 86_400;
        let (year, month, day) = civil_from_days(days as i64);
        format!(
            "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
            DAYS[(days % 7) as usize],
            MONTHS[month as usize - 1],
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(rhs.as_micros() as u64))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_sub(rhs.as_micros() as u64))
    }
}

/// Proleptic Gregorian date of a day counted from 1970-01-01, by shifting the year to begin in March.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc3339() {
        assert_eq!(Instant(0).rfc3339(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Instant(1_565_592_060_343_987).rfc3339(), "2019-08-12T06:41:00.343987Z");
        assert_eq!(Instant::from_secs(951_782_400).rfc3339(), "2000-02-29T00:00:00.000000Z");
    }

    #[test]
    fn prints_rfc1123() {
        assert_eq!(Instant::from_secs(784_111_777).rfc1123(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
