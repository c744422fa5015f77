//! What Firefox's own parser says (the crate `webrtc-sdp`).
//!
//! In: the bytes. Out: a finding for each line that it refuses, and one where the whole is refused. What it merely does not
//! know is no finding: Firefox ignores it. Its result is thrown away: it drops what it does not know, so that it never stands
//! between reading and writing. Not here: our own rules.

use super::{Findings, Rule};
use webrtc_sdp::error::{SdpParserError, SdpParserInternalError};

pub(super) fn check(data: &[u8], findings: &mut Findings) {
    let Ok(text) = std::str::from_utf8(data) else {
        return findings.error(1, Rule::Firefox, "Firefox takes UTF-8 only");
    };
    let mut refused = false;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // The parser of the whole tells the last bad line only.
        if let Err(error) = webrtc_sdp::parse_sdp_line(line, index) {
            refused |= add(error, index, findings);
        }
    }
    if !refused && let Err(error) = webrtc_sdp::parse_sdp(text, false) {
        add(error, 0, findings);
    }
}

/// True where the line makes Firefox refuse the whole.
fn add(error: SdpParserError, index: usize, findings: &mut Findings) -> bool {
    let line = |number: usize| u32::try_from(number.max(index) + 1).unwrap_or(u32::MAX);
    match error {
        SdpParserError::Line { error, line_number, .. } => {
            findings.error(line(line_number), Rule::Firefox, format!("Firefox: {}", reason(&error)));
            true
        }
        SdpParserError::Sequence { message, line_number } => {
            findings.error(line(line_number), Rule::Firefox, format!("Firefox: {message}"));
            true
        }
        SdpParserError::Unsupported { .. } => false,
    }
}

fn reason(error: &SdpParserInternalError) -> String {
    match error {
        SdpParserInternalError::Generic(text) | SdpParserInternalError::Unsupported(text) => text.clone(),
        other => other.to_string(),
    }
}
