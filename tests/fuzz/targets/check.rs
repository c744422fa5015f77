//! What is said to be wrong with an SDP, by ourselves and by Firefox's parser.
//!
//! The first byte chooses for whom it is. Laws: each finding names a line that is there (or the one behind the last), in order;
//! what no parser reads has a finding.

use sipbox_core::check::{Context, Reader, check};
use sipbox_core::sdp::Sdp;

pub fn run(data: &[u8]) {
    let Some((&choice, sdp)) = data.split_first() else { return };
    let reader = match choice % 3 {
        0 => Reader::Claimed,
        1 => Reader::Browser,
        _ => Reader::Phone,
    };
    let findings = check(sdp, &Context { reader, is_answer: choice & 0x80 != 0 });
    assert!(Sdp::parse(sdp).is_ok() || !findings.is_empty(), "unreadable, and nothing to say");
    let lines = sdp.split(|&byte| byte == b'\n').count() as u32;
    let mut last = 1;
    for finding in &findings {
        assert!(
            finding.line >= last && finding.line <= lines + 1,
            "{finding} at line {} of {lines}",
            finding.line
        );
        assert!(!finding.to_string().is_empty());
        last = finding.line;
    }
}
