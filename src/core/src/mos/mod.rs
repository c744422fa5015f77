//! Mean opinion scores: one call's numbers in, one score out, always with the name of its model.
//!
//! A MOS without its model says nothing: the same call scores 4.1 by one and 3.4 by another. So a score is a
//! [`Score`], which carries the [`Model`]. The relay, `mos-report` and the reply to `delete` use these functions
//! and no others. Not here: where loss, jitter and round trip come from (`media::stats`).

mod e_model;
mod legacy;

pub use e_model::{Codec, Delay, EModel, IMPAIRMENTS};
pub use legacy::{LegacySample, fraction_lost_percent, jitter_millis};

use std::fmt;

/// How a score was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// rtpengine's formula of April 2017 to March 2021: integers, RTT/40, tenths cut off.
    Legacy2019,
    /// ITU-T G.107 (06/2015) with the impairments of G.113 Appendix I; conversational where the delay is known.
    G107,
    /// The same without a delay, because none was measured: listening quality only.
    G107Listening,
}

impl Model {
    pub const fn name(self) -> &'static str {
        match self {
            Model::Legacy2019 => "legacy-2019",
            Model::G107 => "g107",
            Model::G107Listening => "g107-lq",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A mean opinion score, 1.0 to 4.5, and the model that gave it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub mos: f64,
    pub model: Model,
}

/// R to MOS: ITU-T G.107 Annex B, equation B-4. Between R = 0 and 6.5 the polynomial dips under 1; a MOS does not.
pub(crate) fn mos_of_r(r: f64) -> f64 {
    if r <= 0.0 {
        1.0
    } else if r >= 100.0 {
        4.5
    } else {
        (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_to_mos_is_annex_b() {
        // G.107 Table B.1: R 90 is 4.34, 80 is 4.03, 70 is 3.60, 60 is 3.10, 50 is 2.58.
        for (r, mos) in [(90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)] {
            assert!((mos_of_r(r) - mos).abs() < 0.01, "R {r}: {}", mos_of_r(r));
        }
        assert_eq!(mos_of_r(-5.0), 1.0);
        assert_eq!(mos_of_r(3.0), 1.0);
        assert_eq!(mos_of_r(120.0), 4.5);
    }
}
