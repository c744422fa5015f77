//! `sdp-attr`: what an operator adds, removes and substitutes, after everything else is decided.
//!
//! In: the text that would leave, and the rules. Out: the text. The rules see our own lines as well as the sender's. Not here:
//! how they are asked for (`ng`).

use crate::ng::{Manipulations, Rules};
use crate::sdp::{Sdp, Section};

/// Applies all rules; a text that is none (which does not happen) passes.
pub(super) fn apply(text: Vec<u8>, manipulations: &Manipulations) -> Vec<u8> {
    if manipulations.rules.is_empty() {
        return text;
    }
    let Ok(sdp) = Sdp::parse(&text) else { return text };
    let mut out = Vec::with_capacity(text.len() + 128);
    for section in std::iter::once(sdp.session()).chain(sdp.medias()) {
        let kind = section.media().map_or("", |m| m.media);
        let known = ["audio", "video", "image", "text", "message", "application"].contains(&kind);
        let concerns = |rules: &&Rules| match rules.section.as_str() {
            "other" => !kind.is_empty() && !known,
            section => section == kind,
        };
        let rules: Vec<&Rules> = manipulations.rules.iter().filter(concerns).collect();
        write(&mut out, &section, &rules);
    }
    out
}

fn write(out: &mut Vec<u8>, section: &Section<'_, '_>, rules: &[&Rules]) {
    let mut push = |value: &[u8]| {
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    for line in section.lines() {
        let attribute = line.text().filter(|_| line.kind == b'a');
        let Some(text) = attribute else {
            push(line.raw.trim_ascii_end());
            continue;
        };
        let name = text.split(':').next().unwrap_or(text);
        if rules.iter().flat_map(|rules| &rules.remove).any(|gone| gone == text || gone == name) {
            continue;
        }
        let substitute = rules.iter().flat_map(|rules| &rules.substitute).find(|(from, _)| from == text);
        push(format!("a={}", substitute.map_or(text, |(_, to)| to)).as_bytes());
    }
    for added in rules.iter().flat_map(|rules| &rules.add) {
        push(format!("a={added}").as_bytes());
    }
}
