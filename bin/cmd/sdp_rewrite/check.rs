//! `--check`: what is wrong, a line a finding.
//!
//! In: items. Out: findings on standard output, and code 1 if there is any. Not here: the rules (`sipbox_core::check`).

use super::extract;
use super::source::Sink;
use crate::exit::{Code, Failure};
use crate::output::{Output, plain};
use serde_json::json;
use sipbox_core::check::{self, Context, Finding, Rule};
use sipbox_core::inputs::{Item, Piece};

pub struct Check {
    context: Context,
    allowed: Vec<Rule>,
    as_json: bool,
    out: Output,
    findings: u64,
    /// What could not be looked at, and has not been told yet.
    unread: super::Bad,
}

impl Check {
    pub fn new(context: Context, allowed: Vec<Rule>, as_json: bool, strict: bool) -> Self {
        Check { context, allowed, as_json, out: Output::new(), findings: 0, unread: super::Bad::new(strict) }
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        self.out.flush()?;
        self.unread.finish()?;
        match self.findings {
            0 => Ok(()),
            // The findings have said it all.
            _ => Err(Failure::new(Code::Failed, "")),
        }
    }

    fn item(&mut self, file: &str, item: &Item<'_>) -> Result<(), Failure> {
        let description = match extract::description(item) {
            Ok(Some(description)) => description,
            Ok(None) => return Ok(()),
            Err(reason) => return self.unread.add(super::place(file, &item.place, reason)),
        };
        let is_answer = self.context.is_answer || description.is_answer;
        let context = Context { is_answer, ..self.context };
        for finding in check::check(&description.sdp, &context) {
            if self.allowed.contains(&finding.rule) {
                continue;
            }
            self.findings += 1;
            let offset = if description.is_text { u64::from(finding.line.saturating_sub(1)) } else { 0 };
            let line = description.line + offset;
            if self.as_json {
                self.out.record(&record(file, line, item, &finding))?;
            } else {
                let within =
                    if description.is_text { String::new() } else { format!("SDP line {}: ", finding.line) };
                let text = plain(&format!("{file}:{line}: {within}{finding}"));
                self.out.text(&format!("{text}\n"))?;
            }
        }
        Ok(())
    }
}

fn record(file: &str, line: u64, item: &Item<'_>, finding: &Finding) -> serde_json::Value {
    let text = finding.rule.text();
    json!({
        "file": file,
        "line": line,
        "number": item.place.number,
        "sdp_line": finding.line,
        "severity": finding.severity.as_str(),
        "code": text.code,
        "what": finding.what,
        "why": text.why,
        "rfc": text.rfc,
        "mend": text.mend,
    })
}

impl Sink for Check {
    fn piece(&mut self, file: &str, piece: &Piece<'_>) -> Result<(), Failure> {
        match piece {
            Piece::Item(item) => self.item(file, item),
            Piece::Fault(place, reason) => self.unread.add(super::place(file, place, reason)),
        }
    }

    fn idle(&mut self) -> Result<(), Failure> {
        self.out.flush()
    }
}
