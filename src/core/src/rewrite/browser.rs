//! What only browsers use, and what only browsers insist on.
//!
//! `strip-browser` takes out for a phone, which pays for it with the size of its INVITE: RFC 8829's lines about streams,
//! RTP/AVPF's about feedback, extensions of RTP's header that a profile without feedback has no use for, and codecs that
//! repair or double others. Toward a browser a description is mended: it reads nothing that leaves RFC 8866's order, lacks a
//! mandatory line or has one mid twice, while phones and their proxies write such things. In: names, texts. Out: yes or no, the
//! list of what was cut, the mended text. Not here: what the relay writes itself in any case (`compose`).

use super::memory::{Memory, Told};
use crate::media::plan::Side;
use crate::ng::{Flags, IceFlag};
use crate::sdp::{Line, Profile, RtpMap, Sdp, Section};

/// A line that was taken out for the receiver's sake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Of the sender's description, counted from 1; `None` for one that only the new description had.
    pub line: Option<u32>,
    pub text: String,
}

/// The list of what was taken out, where somebody wants it: a relay does not.
pub(super) struct Cuts {
    wanted: bool,
    list: Vec<Cut>,
}

impl Cuts {
    pub const fn new(wanted: bool) -> Cuts {
        Cuts { wanted, list: Vec::new() }
    }

    /// A line of the sender's.
    pub fn add(&mut self, line: &Line<'_>) {
        self.put(Some(line.number), line);
    }

    /// A line of the new description.
    fn add_composed(&mut self, line: &Line<'_>) {
        self.put(None, line);
    }

    fn put(&mut self, number: Option<u32>, line: &Line<'_>) {
        if self.wanted {
            let value = String::from_utf8_lossy(line.value);
            self.list.push(Cut { line: number, text: format!("{}={value}", char::from(line.kind)) });
        }
    }

    pub fn into_list(self) -> Vec<Cut> {
        self.list
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

/// Whether this m-line is for a browser: DTLS, and feedback.
pub(super) fn is_for_browser(told: &Told) -> bool {
    told.security.dtls.is_some() && told.profile.is_some_and(Profile::has_feedback)
}

/// Whether the flags are for one: `--to webrtc`'s.
pub(super) fn are_for_browser(flags: &Flags) -> bool {
    flags.ice == IceFlag::Force && flags.transport_protocol.is_some_and(Profile::has_feedback)
}

/// RFC 8866 §5's order; `None`: a line that it does not know.
fn rank(kind: u8, order: &[u8]) -> Option<usize> {
    order.iter().position(|known| *known == kind)
}

/// The text in the RFC's order, with the lines that must be there; what it does not know is left out.
pub(super) fn mend(text: Vec<u8>, cut: &mut Cuts) -> Vec<u8> {
    let Ok(sdp) = Sdp::parse(&text) else { return text };
    let mut out = Vec::with_capacity(text.len() + 16);
    let session = sdp.session();
    let missing = |kind| session.line(kind).is_none();
    let added: Vec<(u8, &[u8])> = [(b'o', &b"- 0 0 IN IP4 0.0.0.0"[..]), (b's', b"-"), (b't', b"0 0")]
        .into_iter()
        .filter(|(kind, _)| missing(*kind))
        .collect();
    section(&mut out, &session, b"vosiuepcbtrzka", b"vosiuepc", &added, cut);
    for media in sdp.medias() {
        section(&mut out, &media, b"micbka", b"mi", &[], cut);
    }
    out
}

/// One section's lines in this order; of the kinds in `once`, and of simulcast (RFC 8853 §5.1), the first counts.
fn section(
    out: &mut Vec<u8>,
    section: &Section<'_, '_>,
    order: &[u8],
    once: &[u8],
    added: &[(u8, &[u8])],
    cut: &mut Cuts,
) {
    let simulcast = |value: &[u8]| value.starts_with(b"simulcast:");
    // Without the extension that names its streams it means nothing (RFC 8853 §5.5).
    let has_rid = section.all("extmap").any(|value| value.contains("sdes:rtp-stream-id"));
    let mut lines: Vec<(usize, u8, &[u8])> = Vec::with_capacity(section.lines().len() + added.len());
    for line in section.lines().iter().filter(|line| line.kind != 0) {
        let odd = line.kind == b'a' && (is_half_ssrc(line) || simulcast(line.value) && !has_rid);
        if odd {
            cut.add_composed(line);
            continue;
        }
        let again = lines.iter().any(|(_, kind, value)| {
            *kind == line.kind
                && (once.contains(kind) || *kind == b'a' && simulcast(value) && simulcast(line.value))
        });
        match rank(line.kind, order).filter(|_| !again) {
            Some(rank) => lines.push((rank, line.kind, line.value)),
            None => cut.add_composed(line),
        }
    }
    lines.extend(added.iter().filter_map(|(kind, value)| Some((rank(*kind, order)?, *kind, *value))));
    lines.sort_by_key(|(rank, ..)| *rank);
    for (_, kind, value) in lines {
        // RFC 8866 §5.3: a session without a name has a hyphen.
        let value = if kind == b's' && value.trim_ascii().is_empty() { b"-" } else { value };
        out.extend_from_slice(&[kind, b'=']);
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// `a=ssrc` that says nothing of its source (RFC 5576 §4.1: an attribute must follow).
fn is_half_ssrc(line: &Line<'_>) -> bool {
    matches!(line.attribute(), Some(("ssrc", value)) if !value.trim().contains(' '))
}

/// RFC 8866 §9, token; RFC 5888 §4.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte))
}

/// Each m-line that a browser is offered has a mid of its own (RFC 8829 §5.2.1); who offered keeps his.
pub(super) fn settle_mids(memory: &mut Memory, receiver: Side) {
    let told = |memory: &Memory, at: usize| memory.side(at, receiver).and_then(|side| side.told.clone());
    let count = memory.media_count();
    let mut known: Vec<String> = Vec::with_capacity(count);
    if !(0..count).filter_map(|at| told(memory, at)).any(|told| is_for_browser(&told)) {
        return;
    }
    for at in 0..count {
        let Some(mid) = told(memory, at).and_then(|told| told.mid) else { continue };
        let usable = Some(mid).filter(|mid| is_token(mid) && !known.contains(mid));
        let mid = usable.unwrap_or_else(|| {
            let free = |mid: &String| !known.contains(mid);
            (at + 1..).map(|number| number.to_string()).find(free).unwrap_or_default()
        });
        known.push(mid.clone());
        if let Some(told) = memory.told_mut(at, receiver) {
            told.mid = Some(mid);
        }
    }
}
