//! `strip-browser`: what only browsers use, and what a phone pays for with the size of its INVITE.
//!
//! RFC 8829's lines about streams, RTP/AVPF's about feedback, extensions of RTP's header that a profile without feedback has no
//! use for, and codecs that repair or double others. In: names. Out: yes or no, and the list of what was cut. Not here: what
//! the relay writes itself in any case (`compose`).

use crate::sdp::{Line, RtpMap};

/// A line that was taken out for the receiver's sake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Of the sender's description, counted from 1.
    pub line: u32,
    pub text: String,
}

impl Cut {
    pub(super) fn of(line: &Line<'_>) -> Cut {
        let value = String::from_utf8_lossy(line.value);
        Cut { line: line.number, text: format!("{}={value}", char::from(line.kind)) }
    }
}

/// Attributes that only browsers use. `feedback`: the receiver's profile has it.
pub(super) fn is_browsers(name: &str, feedback: bool) -> bool {
    match name {
        "msid" | "msid-semantic" | "ssrc" | "ssrc-group" | "rid" | "simulcast" | "x-google-flag" => true,
        "rtcp-fb" | "rtcp-rsize" | "extmap" | "extmap-allow-mixed" => !feedback,
        _ => false,
    }
}

/// Formats that carry another one's copies or repair (RFC 2198, 5109, 4588, 8627), and codecs that only Chrome had.
pub(super) fn is_browsers_codec(map: &RtpMap<'_>) -> bool {
    ["red", "ulpfec", "flexfec-03", "rtx", "ISAC"].iter().any(|name| name.eq_ignore_ascii_case(map.encoding))
}
