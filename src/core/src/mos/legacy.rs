//! `legacy-2019`: the MOS that rtpengine filed from April 2017 to March 2021, to the digit.
//!
//! No standard: a simplification of the E-model in which the whole round trip (not one way) enters, divided by 40.
//! In: one RTCP receiver report's loss, jitter and round trip. Out: tenths, cut off, as the reply to `delete` has them.
//! Not here: which reports are kept, and the progression (`media::stats`).

use super::{Model, Score};

/// One kept receiver report, in the integers in which the reply to `delete` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegacySample {
    /// Both legs' round trips together, microseconds.
    pub round_trip_us: u32,
    /// Milliseconds.
    pub jitter_ms: u32,
    /// Percent.
    pub loss_percent: u8,
}

impl LegacySample {
    /// MOS times ten, the fraction cut off.
    pub fn tenths(self) -> u8 {
        (self.score().mos * 10.0) as u8
    }

    pub fn score(self) -> Score {
        let effective = f64::from(self.round_trip_us / 1000) + 2.0 * f64::from(self.jitter_ms) + 10.0;
        let r = if effective < 160.0 { 93.2 - effective / 40.0 } else { 93.2 - (effective - 120.0) / 40.0 };
        let r = (r - 2.5 * f64::from(self.loss_percent)).max(0.0);
        let mos = 1.0 + 0.035 * r + 0.000_007 * r * (r - 60.0) * (100.0 - r);
        Score { mos, model: Model::Legacy2019 }
    }
}

/// A report's `fraction lost` (RFC 3550 §6.4.1, in 256ths) as integer percent.
pub const fn fraction_lost_percent(fraction: u8) -> u8 {
    (fraction as u16 * 100 / 256) as u8
}

/// A report's interarrival jitter (in the RTP clock's units) as integer milliseconds; 0 for a clock of 0.
pub const fn jitter_millis(jitter: u32, clock_rate: u32) -> u32 {
    if clock_rate == 0 {
        return 0;
    }
    let millis = jitter as u64 * 1000 / clock_rate as u64;
    if millis > u32::MAX as u64 { u32::MAX } else { millis as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of a `delete` reply that a real deployment of 2019 printed.
    #[test]
    fn gives_the_field_values_of_2019() {
        for (round_trip_us, jitter_ms, loss_percent, tenths, exact) in [
            (249_450, 0, 4, 40, 4.0136),
            (261_626, 1, 0, 43, 4.3234),
            (380_912, 8, 0, 42, 4.2306),
            (297_329, 3, 1, 42, 4.2253),
        ] {
            let sample = LegacySample { round_trip_us, jitter_ms, loss_percent };
            assert_eq!(sample.tenths(), tenths);
            assert!((sample.score().mos - exact).abs() < 1e-3, "{sample:?}: {}", sample.score().mos);
        }
        // The average that was printed beside them is the mean of the tenths, not the score of the means.
        assert_eq!((40 + 43 + 42) / 3, 41);
    }

    #[test]
    fn loss_has_a_floor() {
        let sample = LegacySample { loss_percent: 100, ..LegacySample::default() };
        assert_eq!(sample.tenths(), 10);
    }

    #[test]
    fn report_units() {
        assert_eq!(fraction_lost_percent(0), 0);
        assert_eq!(fraction_lost_percent(12), 4);
        assert_eq!(fraction_lost_percent(255), 99);
        assert_eq!(jitter_millis(64, 8000), 8);
        assert_eq!(jitter_millis(64, 0), 0);
        assert_eq!(jitter_millis(u32::MAX, 1), u32::MAX);
    }
}
