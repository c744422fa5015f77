//! The scripted browser's mouth and ear: a sine tone in G.711, and what is heard in what comes back.
//!
//! ITU-T G.711 (PCMU and PCMA, 8000 samples a second). In go samples or payloads, out come payloads, samples and
//! the strongest tones. Not here: RTP, time.

use std::f64::consts::TAU;

/// Samples a second.
pub const RATE: u32 = 8000;
/// Samples in a packet of 20 ms.
pub const FRAME: usize = 160;
/// Samples in one look at the spectrum: 100 ms, so tones 10 Hz apart are told apart.
const WINDOW: usize = 800;
/// Frequencies looked at: telephone band in steps of the resolution.
const LOWEST_HZ: usize = 100;
const HIGHEST_HZ: usize = 3800;
const STEP_HZ: usize = 10;

/// The two laws of G.711.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// PCMU, payload type 0.
    Mu,
    /// PCMA, payload type 8.
    A,
}

impl Law {
    /// By the static payload type (RFC 3551 §6).
    pub fn of_payload_type(number: u8) -> Option<Self> {
        match number {
            0 => Some(Law::Mu),
            8 => Some(Law::A),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Law::Mu => "PCMU",
            Law::A => "PCMA",
        }
    }

    pub fn encode(self, sample: i16) -> u8 {
        match self {
            Law::Mu => mu_encode(sample),
            Law::A => a_encode(sample),
        }
    }

    pub fn decode(self, byte: u8) -> i16 {
        match self {
            Law::Mu => mu_decode(byte),
            Law::A => a_decode(byte),
        }
    }
}

/// 14 bits of magnitude with a bias of 33 in eight segments, all bits inverted.
fn mu_encode(sample: i16) -> u8 {
    const BIAS: i32 = 33 << 2;
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = (i32::from(sample).abs() + BIAS).min(0x7fff);
    let exponent = (24 - (magnitude as u32).leading_zeros() as i32).clamp(0, 7);
    let mantissa = magnitude >> (exponent + 3) & 0x0f;
    !(sign | (exponent << 4) as u8 | mantissa as u8)
}

fn mu_decode(byte: u8) -> i16 {
    let byte = !byte;
    let exponent = i32::from(byte >> 4 & 7);
    let mantissa = i32::from(byte & 0x0f);
    let magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84;
    if byte & 0x80 == 0 { magnitude as i16 } else { -magnitude as i16 }
}

/// 13 bits in eight segments, even bits inverted.
fn a_encode(sample: i16) -> u8 {
    // Positive has the sign bit set; negative numbers count from -1 downwards.
    let (sign, magnitude) = if sample >= 0 { (0x80, i32::from(sample)) } else { (0, !i32::from(sample)) };
    let exponent = (24 - (magnitude as u32).leading_zeros() as i32).clamp(0, 7);
    let mantissa = magnitude >> if exponent == 0 { 4 } else { exponent + 3 } & 0x0f;
    (sign | (exponent << 4) as u8 | mantissa as u8) ^ 0x55
}

fn a_decode(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let exponent = i32::from(byte >> 4 & 7);
    let mantissa = i32::from(byte & 0x0f) << 4;
    let magnitude = match exponent {
        0 => mantissa + 8,
        _ => (mantissa + 0x108) << (exponent - 1),
    };
    if byte & 0x80 == 0 { -magnitude as i16 } else { magnitude as i16 }
}

/// An endless sine tone at a quarter of full scale.
pub struct Tone {
    phase: f64,
    step: f64,
}

impl Tone {
    pub fn new(hz: f64) -> Self {
        Tone { phase: 0.0, step: TAU * hz / f64::from(RATE) }
    }

    /// The next 20 ms.
    pub fn frame(&mut self, law: Law) -> Vec<u8> {
        (0..FRAME)
            .map(|_| {
                let sample = (self.phase.sin() * 8192.0) as i16;
                self.phase = (self.phase + self.step) % TAU;
                law.encode(sample)
            })
            .collect()
    }
}

/// A tone that was heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heard {
    pub hz: u32,
    /// Its part of all the energy that was heard, 0 to 1.
    pub share: f64,
}

/// Energy at `hz` in `samples`, by Goertzel's algorithm, as a part of full coherent energy: a pure tone gives 1.
fn goertzel(samples: &[f64], hz: f64) -> f64 {
    let coefficient = 2.0 * (TAU * hz / f64::from(RATE)).cos();
    let (mut before, mut last) = (0.0, 0.0);
    for sample in samples {
        let next = sample + coefficient * last - before;
        before = last;
        last = next;
    }
    let power = last * last + before * before - coefficient * last * before;
    power * 2.0 / samples.len() as f64
}

/// The strongest tones in `samples`, at most `most`, the strongest first. Silence has none.
pub fn tones(samples: &[i16], most: usize) -> Vec<Heard> {
    let mut power = vec![0.0; (HIGHEST_HZ - LOWEST_HZ) / STEP_HZ + 1];
    let mut total = 0.0;
    for window in samples.chunks_exact(WINDOW) {
        let window: Vec<f64> = window.iter().map(|&sample| f64::from(sample)).collect();
        total += window.iter().map(|sample| sample * sample).sum::<f64>();
        for (index, power) in power.iter_mut().enumerate() {
            *power += goertzel(&window, (LOWEST_HZ + index * STEP_HZ) as f64);
        }
    }
    let mut found = Vec::new();
    // Below an average of one quantisation step there is nothing to hear.
    if total < samples.len() as f64 * 100.0 {
        return found;
    }
    for (index, &here) in power.iter().enumerate() {
        let beside = |at: Option<usize>| at.and_then(|at| power.get(at)).copied().unwrap_or(0.0);
        let is_peak = here >= beside(index.checked_sub(1)) && here > beside(Some(index + 1));
        if is_peak && here / total > 0.02 {
            found.push(Heard { hz: (LOWEST_HZ + index * STEP_HZ) as u32, share: (here / total).min(1.0) });
        }
    }
    found.sort_by(|a, b| b.share.total_cmp(&a.share));
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_laws_are_g711() {
        // Positive full scale, zero and the smallest steps, from the tables of G.711.
        assert_eq!(mu_encode(0), 0xff);
        assert_eq!(mu_encode(32_635), 0x80);
        assert_eq!(mu_encode(-32_635), 0x00);
        assert_eq!(a_encode(0), 0xd5);
        assert_eq!(a_encode(-1), 0x55);
        assert_eq!(a_encode(32_767), 0xaa);
        assert_eq!(a_encode(-32_768), 0x2a);
        assert_eq!(mu_decode(0xff), 0);
        assert_eq!(mu_decode(0x80), 32_124);
        assert_eq!(a_decode(0xd5), 8);
        assert_eq!(a_decode(0xaa), 32_256);
        for byte in 0..=255u8 {
            assert_eq!(a_encode(a_decode(byte)), byte, "PCMA {byte:#x}");
            // Mu-law has two zeros.
            if byte != 0x7f {
                assert_eq!(mu_encode(mu_decode(byte)), byte, "PCMU {byte:#x}");
            }
        }
    }

    #[test]
    fn a_tone_is_found_and_its_absence_too() {
        for law in [Law::Mu, Law::A] {
            let mut tone = Tone::new(440.0);
            let mut samples = Vec::new();
            for _ in 0..50 {
                samples.extend(tone.frame(law).into_iter().map(|byte| law.decode(byte)));
            }
            let heard = tones(&samples, 3);
            assert_eq!(heard[0].hz, 440);
            assert!(heard[0].share > 0.95, "{heard:?}");
            assert!(heard.len() == 1, "{heard:?}");
        }
        assert!(tones(&[0; 8000], 3).is_empty());
        assert!(tones(&[8; 8000], 3).is_empty(), "PCMA's silence");
    }
}
