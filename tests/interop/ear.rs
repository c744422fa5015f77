//! The tests' own ear: how much of a recording is one tone (Goertzel), and WAV files.
//!
//! Written apart from the probe's, so that one mistake can't prove itself.

use std::f64::consts::TAU;

/// What a recording holds of one tone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heard {
    /// The tone's part of all energy, 0 to 1.
    pub share: f64,
    /// For how long it was there, in steps of a tenth of a second.
    pub seconds: f64,
}

/// Listens for `hz` in samples of `rate` a second.
pub fn listen(samples: &[i16], rate: u32, hz: u32) -> Heard {
    let window = rate as usize / 10;
    let turn = TAU * f64::from(hz) / f64::from(rate);
    let (mut tone, mut all, mut tenths) = (0.0, 0.0, 0u32);
    for samples in samples.chunks_exact(window) {
        let (mut s1, mut s2, mut energy) = (0.0f64, 0.0f64, 0.0f64);
        for &sample in samples {
            let x = f64::from(sample);
            energy += x * x;
            (s1, s2) = (x + 2.0 * turn.cos() * s1 - s2, s1);
        }
        let power = (s1 * s1 + s2 * s2 - 2.0 * turn.cos() * s1 * s2) * 2.0 / window as f64;
        all += energy;
        tone += power;
        // Louder than a whisper (an amplitude of 300 of 32767), and mostly this tone.
        if energy > window as f64 * 45_000.0 && power > 0.8 * energy {
            tenths += 1;
        }
    }
    Heard { share: if all > 0.0 { tone / all } else { 0.0 }, seconds: f64::from(tenths) / 10.0 }
}

/// A WAV file of a sine tone at 8 kHz.
pub fn tone_wav(hz: u32, seconds: u32) -> Vec<u8> {
    let samples = 8000 * seconds;
    let bytes = samples * 2;
    let mut wav = Vec::with_capacity(44 + bytes as usize);
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + bytes).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt ");
    wav.extend_from_slice(&16u32.to_le_bytes());
    for word in [1u16, 1] {
        wav.extend_from_slice(&word.to_le_bytes());
    }
    for long in [8000u32, 16_000] {
        wav.extend_from_slice(&long.to_le_bytes());
    }
    for word in [2u16, 16] {
        wav.extend_from_slice(&word.to_le_bytes());
    }
    wav.extend_from_slice(b"data");
    wav.extend_from_slice(&bytes.to_le_bytes());
    for index in 0..samples {
        let sample = ((TAU * f64::from(hz) * f64::from(index) / 8000.0).sin() * 8192.0) as i16;
        wav.extend_from_slice(&sample.to_le_bytes());
    }
    wav
}

/// Samples of a 16-bit mono WAV file at 8 kHz; one that was not closed has a wrong length in its head.
pub fn read_wav(file: &[u8]) -> Vec<i16> {
    assert_eq!(&file[..4], b"RIFF");
    let rate = u32::from_le_bytes(file[24..28].try_into().expect("four bytes"));
    assert_eq!((rate, file[22]), (8000, 1), "8 kHz, mono");
    file[44..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[test]
fn the_ear_hears() {
    let samples = read_wav(&tone_wav(1000, 2));
    let right = listen(&samples, 8000, 1000);
    assert!(right.share > 0.99 && right.seconds == 2.0, "{right:?}");
    let wrong = listen(&samples, 8000, 440);
    assert!(wrong.share < 0.01 && wrong.seconds == 0.0, "{wrong:?}");
    let silence = listen(&[0; 8000], 8000, 1000);
    assert!(silence.share == 0.0 && silence.seconds == 0.0, "{silence:?}");
}
