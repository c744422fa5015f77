//! The constants behind the timers.
//!
//! RFC 3261 table 4, RFC 4320 §4.1.

use std::time::Duration;

/// Estimate of the round trip; all else follows from it.
pub const T1: Duration = Duration::from_millis(500);
/// Longest interval between retransmissions of a non-INVITE request and of an INVITE's final response.
pub const T2: Duration = Duration::from_secs(4);
/// How long a message may be on its way.
pub const T4: Duration = Duration::from_secs(5);
/// Timer D: at least 32 s over UDP.
pub const D: Duration = Duration::from_secs(32);
/// When a non-INVITE client's timer E is at T2: 0.5 + 1 + 2 s passed, and only then does a 100 spare a retransmission.
pub const TRYING_AFTER: Duration = Duration::from_millis(3500);
