//! What is wrong with an SDP, line by line: `sdp-rewrite --check`.
//!
//! RFC 8866 (grammar), 3551 and 5761 (payload types), 4568, 5763, 8122, 8842 (keys), 8839 (ICE), 5888 and 9143 (groups), 8829 and
//! 8834 (browsers). In: bytes, and for whom they are. Out: [`Finding`]s in the order of the lines. What applies depends on what
//! the description claims: a phone's RTP/AVP is not blamed for lacking ICE. Not here: files, and how findings are printed.

mod firefox;
mod media;
mod rules;
mod session;
#[cfg(test)]
mod tests;

pub use rules::{Rule, Text};

use crate::limits::CHECK_FINDINGS;
pub use crate::sdp::Severity;

use crate::sdp::Sdp;
use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In the SDP, counted from 1; what is missing is told where it should belong.
    pub line: u32,
    pub severity: Severity,
    pub rule: Rule,
    /// What it is, without the reason.
    pub what: String,
}

impl fmt::Display for Finding {
    /// `error: what; why (RFC); mend [code]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Text { code, why, rfc, mend } = self.rule.text();
        write!(f, "{}: {}; {why} ({rfc}); {mend} [{code}]", self.severity.as_str(), self.what)
    }
}

/// What is known of the description besides its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Whom it is for.
    pub reader: Reader,
    /// It answers an offer.
    pub is_answer: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// Each m-line is judged by what it claims.
    #[default]
    Claimed,
    /// A browser, whatever it claims.
    Browser,
    /// A phone without ICE and DTLS.
    Phone,
}

/// The findings so far; a hostile description does not make more of them than the bound.
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, line: u32, severity: Severity, rule: Rule, what: impl Into<String>) {
        if self.0.len() < CHECK_FINDINGS {
            self.0.push(Finding { line, severity, rule, what: what.into() });
        }
    }

    fn error(&mut self, line: u32, rule: Rule, what: impl Into<String>) {
        self.add(line, Severity::Error, rule, what);
    }

    fn warning(&mut self, line: u32, rule: Rule, what: impl Into<String>) {
        self.add(line, Severity::Warning, rule, what);
    }
}

/// Checks one description.
pub fn check(data: &[u8], context: &Context) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    let sdp = match Sdp::parse(data) {
        Ok(sdp) => sdp,
        Err(error) => {
            findings.error(error.line, Rule::NotSdp, format!("{} (byte {})", error.kind, error.at));
            return findings.0;
        }
    };
    session::check(&sdp, &mut findings);
    let for_browsers = media::check(&sdp, context, &mut findings);
    if for_browsers {
        firefox::check(data, &mut findings);
    }
    findings.0.sort_by_key(|finding| finding.line);
    findings.0
}
