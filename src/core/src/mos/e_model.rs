//! The E-model: ITU-T G.107 (06/2015), clause 7, with the equipment impairments of G.113 (11/2007) Appendix I.
//!
//! In: one-way delay (or that none is known), loss, its burstiness, the codec. Out: R and MOS.
//! Everything that a network does not change stands at G.107's Table 2 defaults (SLR 8, RLR 2, TELR 65, STMR 15, …),
//! so R starts at 93.2. Not here: wideband and fullband (G.107.1, G.107.2).

use super::{Model, Score, mos_of_r};
use std::time::Duration;

/// What a codec costs by itself, and how well it bears loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Codec {
    /// Encoding name as in rtpmap.
    pub name: &'static str,
    /// Equipment impairment factor without loss.
    pub ie: f64,
    /// Packet-loss robustness factor.
    pub bpl: f64,
    /// Whether the pair stands in G.113 Appendix I; otherwise it is an assumption, and a report says so.
    pub tabled: bool,
}

/// Impairments by rtpmap name. G.113 Appendix I, Tables I.3 and I.4; G.711 with the concealment of its Appendix I.
pub const IMPAIRMENTS: &[Codec] = &[
    Codec { name: "PCMU", ie: 0.0, bpl: 25.1, tabled: true },
    Codec { name: "PCMA", ie: 0.0, bpl: 25.1, tabled: true },
    Codec { name: "G729", ie: 11.0, bpl: 19.0, tabled: true },
    Codec { name: "G723", ie: 15.0, bpl: 16.1, tabled: true },
    Codec { name: "GSM-EFR", ie: 5.0, bpl: 10.0, tabled: true },
    // Not tabled for narrowband: scored as if G.711, which a narrowband ear cannot tell from them.
    Codec { name: "G722", ie: 0.0, bpl: 25.1, tabled: false },
    Codec { name: "opus", ie: 0.0, bpl: 25.1, tabled: false },
    Codec { name: "iLBC", ie: 11.0, bpl: 32.0, tabled: false },
];

/// For a codec that nobody knows: G.711's, marked as an assumption.
const UNKNOWN: Codec = Codec { name: "unknown", ie: 0.0, bpl: 25.1, tabled: false };

impl Codec {
    /// By rtpmap encoding name, in any case (RFC 8866 §6.6: encoding names compare so).
    pub fn by_name(name: &str) -> Codec {
        IMPAIRMENTS.iter().copied().find(|codec| codec.name.eq_ignore_ascii_case(name)).unwrap_or(UNKNOWN)
    }
}

/// What is known of the delay from mouth to ear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// Nothing was measured: the score is of listening quality.
    Unknown,
    /// One way, jitter buffer included.
    OneWay(Duration),
}

/// One stretch of a stream, ready to be scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EModel {
    pub codec: Codec,
    pub delay: Delay,
    /// 0 to 100.
    pub loss_percent: f64,
    /// BurstR: mean length of observed loss bursts over that of random loss; 1 is random, never less.
    pub burst_ratio: f64,
}

impl EModel {
    pub fn score(&self) -> Score {
        let model = match self.delay {
            Delay::Unknown => Model::G107Listening,
            Delay::OneWay(_) => Model::G107,
        };
        Score { mos: mos_of_r(self.r()), model }
    }

    /// Transmission rating factor: Ro - Is - Id - Ie,eff (equation 7-1, advantage factor 0).
    pub fn r(&self) -> f64 {
        let t = match self.delay {
            Delay::Unknown => 0.0,
            Delay::OneWay(delay) => delay.as_secs_f64() * 1000.0,
        };
        let no = noise();
        let ro = 15.0 - 1.5 * (SLR + no);
        ro - simultaneous(ro, no, t) - delayed(ro, no, t) - self.equipment()
    }

    /// Ie,eff, equation 7-29.
    fn equipment(&self) -> f64 {
        let loss = self.loss_percent.clamp(0.0, 100.0);
        if loss == 0.0 {
            return self.codec.ie;
        }
        self.codec.ie + (95.0 - self.codec.ie) * loss / (loss / self.burst_ratio.max(1.0) + self.codec.bpl)
    }
}

// G.107 Table 2.
const SLR: f64 = 8.0;
const RLR: f64 = 2.0;
const OLR: f64 = SLR + RLR;
const STMR: f64 = 15.0;
/// D-values of the telephone at the send and receive side.
const DS: f64 = 3.0;
const DR: f64 = 3.0;
const TELR: f64 = 65.0;
const WEPL: f64 = 110.0;
/// Circuit noise referred to 0 dBr, and noise floor at the receive side: dBm0p.
const NC: f64 = -70.0;
const NFOR: f64 = -64.0;
/// Room noise at the send and receive side: dB(A).
const PS: f64 = 35.0;
const PR: f64 = 35.0;

fn power_sum(levels: [f64; 4]) -> f64 {
    10.0 * levels.iter().map(|level| 10f64.powf(level / 10.0)).sum::<f64>().log10()
}

/// No: equations 7-3 to 7-7.
fn noise() -> f64 {
    let nos = PS - SLR - DS - 100.0 + 0.004 * (PS - OLR - DS - 14.0).powi(2);
    let lstr = STMR + DR;
    let pre = PR + 10.0 * (1.0 + 10f64.powf((10.0 - lstr) / 10.0)).log10();
    let nor = RLR - 121.0 + pre + 0.008 * (pre - 35.0).powi(2);
    power_sum([NC, nos, nor, NFOR + RLR])
}

/// Is: loudness, side tone and quantizing distortion at one qdu. Equations 7-8 to 7-17.
fn simultaneous(ro: f64, no: f64, t: f64) -> f64 {
    let x = OLR + 0.2 * (64.0 + no - RLR);
    let iolr = 20.0 * ((1.0 + (x / 8.0).powi(8)).powf(1.0 / 8.0) - x / 8.0);

    let stmro = -10.0 * (10f64.powf(-STMR / 10.0) + (-t / 4.0).exp() * 10f64.powf(-TELR / 10.0)).log10();
    let ist = 12.0 * (1.0 + ((stmro - 13.0) / 6.0).powi(8)).powf(1.0 / 8.0)
        - 28.0 * (1.0 + ((stmro + 1.0) / 19.4).powi(35)).powf(1.0 / 35.0)
        - 13.0 * (1.0 + ((stmro - 3.0) / 33.0).powi(13)).powf(1.0 / 13.0)
        + 29.0;

    let q: f64 = 37.0;
    let g = 1.07 + 0.258 * q + 0.0602 * q.powi(2);
    let y = (ro - 100.0) / 15.0 + 46.0 / 8.4 - g / 9.0;
    let z = 46.0 / 30.0 - g / 40.0;
    let iq = 15.0 * (1.0 + 10f64.powf(y) + 10f64.powf(z)).log10();

    iolr + ist + iq
}

/// Id: talker echo, listener echo and absolute delay, with T = Ta = Tr/2. Equations 7-18 to 7-28.
fn delayed(ro: f64, no: f64, t: f64) -> f64 {
    let roe = -1.5 * (no - RLR);
    let terv = TELR - 40.0 * ((1.0 + t / 10.0) / (1.0 + t / 150.0)).log10() + 6.0 * (-0.3 * t * t).exp();
    let re = 80.0 + 2.5 * (terv - 14.0);
    let half = (roe - re) / 2.0;
    let idte = (half + (half * half + 100.0).sqrt() - 1.0) * (1.0 - (-t).exp());

    let rle = 10.5 * (WEPL + 7.0) * (2.0 * t + 1.0).powf(-0.25);
    let half = (ro - rle) / 2.0;
    let idle = half + (half * half + 169.0).sqrt();

    let idd = if t <= 100.0 {
        0.0
    } else {
        let x = (t / 100.0).log2();
        25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
    };
    idte + idle + idd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcma(delay: Delay, loss_percent: f64) -> EModel {
        EModel { codec: Codec::by_name("pcma"), delay, loss_percent, burst_ratio: 1.0 }
    }

    fn millis(t: u64) -> Delay {
        Delay::OneWay(Duration::from_millis(t))
    }

    /// G.107 clause 7.7: with all parameters at their defaults, R is 93.2 and MOS 4.41.
    #[test]
    fn defaults_are_the_recommendation_s() {
        let default = pcma(millis(0), 0.0);
        assert!((default.r() - 93.2).abs() < 0.05, "{}", default.r());
        assert!((default.score().mos - 4.41).abs() < 0.005);
        assert_eq!(default.score().model.name(), "g107");
        assert_eq!(pcma(Delay::Unknown, 0.0).score().model.name(), "g107-lq");
    }

    /// G.107's own intermediate values: Ro 94.77, No -61.18.
    #[test]
    fn intermediate_values() {
        assert!((noise() + 61.18).abs() < 0.01, "{}", noise());
        assert!((15.0 - 1.5 * (SLR + noise()) - 94.77).abs() < 0.01);
    }

    /// Equation 7-29 by hand: 5 % random loss of G.711 with concealment costs 95·5/(5+25.1) = 15.78.
    #[test]
    fn loss_costs_what_the_equation_says() {
        let clean = pcma(Delay::Unknown, 0.0).r();
        assert!((clean - pcma(Delay::Unknown, 5.0).r() - 15.78).abs() < 0.01);
        let bursty = EModel { burst_ratio: 2.0, ..pcma(Delay::Unknown, 5.0) };
        assert!(bursty.r() < pcma(Delay::Unknown, 5.0).r());
    }

    #[test]
    fn worse_is_never_better() {
        let mut last = f64::MAX;
        for t in (0..1000).step_by(10) {
            let r = pcma(millis(t), 0.0).r();
            assert!(r <= last + 1e-9, "delay {t}: {r} after {last}");
            last = r;
        }
        let mut last = f64::MAX;
        for loss in 0..=100 {
            let mos = pcma(millis(20), f64::from(loss)).score().mos;
            assert!(mos <= last && (1.0..=4.5).contains(&mos), "loss {loss}: {mos} after {last}");
            last = mos;
        }
    }

    #[test]
    fn an_unknown_codec_is_marked() {
        assert!(!Codec::by_name("x-nobody").tabled);
        assert!(Codec::by_name("PCMU").tabled);
    }
}
