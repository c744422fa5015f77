//! What of an answer does not fit its offer.
//!
//! In: the two descriptions. Out: [`Break`]s with the RFC's section, and the mend. Not here: what was negotiated (`mod.rs`).

use super::{Keys, Negotiated, Sides, Who, bundled, direction, formats, get};
use crate::sdp::{Direction, Sdp, Section, Setup, Severity};

/// One thing that breaks the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The index of the m-line; None where it is about the whole.
    pub media: Option<usize>,
    /// In the answer, counted from 1; the m-line's where a line is missing.
    pub line: u32,
    pub severity: Severity,
    pub code: &'static str,
    pub what: String,
    pub rfc: &'static str,
    pub mend: &'static str,
}

struct Report<'b> {
    media: Option<usize>,
    line: u32,
    breaks: &'b mut Vec<Break>,
}

impl Report<'_> {
    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        what: String,
        rfc: &'static str,
        mend: &'static str,
    ) {
        self.breaks.push(Break { media: self.media, line: self.line, severity, code, what, rfc, mend });
    }

    fn error(&mut self, code: &'static str, what: String, rfc: &'static str, mend: &'static str) {
        self.add(Severity::Error, code, what, rfc, mend);
    }

    fn warning(&mut self, code: &'static str, what: String, rfc: &'static str, mend: &'static str) {
        self.add(Severity::Warning, code, what, rfc, mend);
    }

    /// Points to the line of this attribute, where there is one.
    fn at(&mut self, section: &Section<'_, '_>, name: &str) -> &mut Self {
        let line =
            section.lines().iter().find(|line| line.attribute().is_some_and(|(found, _)| found == name));
        if let Some(line) = line {
            self.line = line.number;
        }
        self
    }
}

/// What is about the whole.
pub(super) fn of_session(offer: &Sdp<'_>, answer: &Sdp<'_>, breaks: &mut Vec<Break>) {
    let last = answer.lines().last().map_or(1, |line| line.number);
    let mut report = Report { media: None, line: last, breaks };
    let (offered, answered) = (offer.media_count(), answer.media_count());
    if answered < offered {
        report.error(
            "fewer-m-lines",
            format!("the answer has {answered} m-lines, the offer {offered}"),
            "RFC 3264 §6",
            "answer each m-line in its place, with port 0 where it is refused",
        );
    } else if answered > offered {
        report.error(
            "more-m-lines",
            format!("the answer has {answered} m-lines, the offer {offered}"),
            "RFC 3264 §6",
            "offer the further ones in an offer of one's own",
        );
    }
    let group = answer.session().lines().iter().find(|line| {
        line.attribute().is_some_and(|(name, value)| name == "group" && value.starts_with("BUNDLE"))
    });
    let Some(group) = group else { return };
    report.line = group.number;
    let offered = bundled(offer);
    for mid in bundled(answer) {
        if !offered.contains(&mid) {
            report.error(
                "bundle-not-offered",
                format!("the answer bundles {mid}, which the offer did not"),
                "RFC 9143 §7.3",
                "bundle only what was offered in one group",
            );
        }
        let refused = answer.medias().any(|section| {
            section.get("mid").map(str::trim) == Some(mid) && section.media().is_some_and(|m| m.port == 0)
        });
        if refused {
            report.error(
                "bundle-refused",
                format!("the answer bundles {mid}, and refuses its m-line"),
                "RFC 9143 §7.3.3",
                "take the mid out of the group",
            );
        }
    }
}

/// What is about one m-line.
pub(super) fn of_media(
    index: usize,
    sides: &Sides<'_, '_>,
    negotiated: &Negotiated,
    breaks: &mut Vec<Break>,
) {
    let line = sides.answer.lines().first().map_or(1, |line| line.number);
    let (Some(offer), Some(answer)) = (sides.offer.media(), sides.answer.media()) else { return };
    let mut report = Report { media: Some(index), line, breaks };
    if offer.media != answer.media {
        report.error(
            "media",
            format!("m={} is answered by m={}", offer.media, answer.media),
            "RFC 3264 §6",
            "keep the order of the offer's m-lines",
        );
    }
    mids(sides, &mut report);
    report.line = line;
    if negotiated.refused_by == Some(Who::Offerer) && answer.port != 0 {
        report.error(
            "port",
            format!("m={} is offered with port 0, and answered with port {}", offer.media, answer.port),
            "RFC 3264 §6",
            "answer with port 0",
        );
    }
    if negotiated.refused_by.is_some() {
        return;
    }
    if offer.protocol != answer.protocol {
        // An answerer of before RFC 8829 says RTP/SAVPF for what is DTLS all the same.
        let (a, b) = (offer.profile(), answer.profile());
        let alike = match (a, b) {
            (Some(a), Some(b)) => (a.is_secure(), a.has_feedback()) == (b.is_secure(), b.has_feedback()),
            _ => false,
        };
        let severity = if alike { Severity::Warning } else { Severity::Error };
        report.add(
            severity,
            "protocol",
            format!("{} is offered, and {} answered", offer.protocol, answer.protocol),
            "RFC 3264 §6, RFC 8829 §5.3.1",
            "answer in the protocol of the offer",
        );
    }
    codecs(sides, negotiated, &mut report);
    directions(sides, &mut report);
    report.line = line;
    keys(sides, negotiated, &mut report);
    report.line = line;
    if sides.answer.has("rtcp-mux") && !sides.offer.has("rtcp-mux") {
        report.at(&sides.answer, "rtcp-mux").error(
            "rtcp-mux-not-offered",
            "a=rtcp-mux is answered, and was not offered".to_owned(),
            "RFC 5761 §5.1.1",
            "take a=rtcp-mux out of the answer (--rtcp-mux=demux)",
        );
        report.line = line;
    }
    if sides.offered("ice-ufrag").is_none() && sides.answered("ice-ufrag").is_some() {
        report.at(&sides.answer, "ice-ufrag").error(
            "ice-not-offered",
            "ICE is answered, and was not offered".to_owned(),
            "RFC 8839 §4.2.2",
            "take ICE out of the answer (--ICE=remove)",
        );
        report.line = line;
    }
    extensions(sides, &mut report);
    report.line = line;
    let longest = sides.offer.get("maxptime").and_then(|value| value.trim().parse::<u32>().ok());
    if let (Some(longest), Some(ptime)) = (longest, negotiated.ptime.1)
        && ptime > longest
    {
        report.at(&sides.answer, "ptime").warning(
            "ptime",
            format!("packets of {ptime} ms are asked for, and the offerer takes {longest} ms at most"),
            "RFC 8866 §6.4",
            "ask for no more than the offer's maxptime",
        );
    }
}

fn mids(sides: &Sides<'_, '_>, report: &mut Report<'_>) {
    let mid = |section: &Section<'_, '_>| section.get("mid").map(|mid| mid.trim().to_owned());
    match (mid(&sides.offer), mid(&sides.answer)) {
        (Some(offered), Some(answered)) if offered != answered => {
            report.at(&sides.answer, "mid").error(
                "mid",
                format!("a=mid:{offered} is answered by a=mid:{answered}"),
                "RFC 5888 §9.1",
                "answer with the same",
            );
        }
        (None, Some(answered)) => {
            report.at(&sides.answer, "mid").error(
                "mid-not-offered",
                format!("a=mid:{answered} is answered, and was not offered"),
                "RFC 5888 §9.1",
                "take it out of the answer",
            );
        }
        (Some(offered), None) => {
            let grouped = get(&sides.offer_session, &sides.offer_session, "group").is_some();
            let answered = get(&sides.answer_session, &sides.answer_session, "group").is_some();
            if grouped && answered {
                report.error(
                    "mid",
                    format!("a=mid:{offered} is not answered, though there is a group"),
                    "RFC 5888 §9.1",
                    "answer with the same",
                );
            }
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
}

fn codecs(sides: &Sides<'_, '_>, negotiated: &Negotiated, report: &mut Report<'_>) {
    let (offered, answered) = (formats(&sides.offer), formats(&sides.answer));
    let helps = |name: &str| {
        let name = name.split('/').next().unwrap_or_default();
        ["telephone-event", "CN", "rtx", "red", "ulpfec", "flexfec-03"]
            .iter()
            .any(|n| n.eq_ignore_ascii_case(name))
    };
    let media = negotiated.codecs.iter().any(|codec| !helps(&codec.name));
    if !media && !answered.is_empty() {
        report.error(
            "no-common-codec",
            format!("m={}: no codec is in both", negotiated.media),
            "RFC 3264 §6.1",
            "answer one that was offered, or refuse with port 0",
        );
    }
    for format in &answered {
        let same: Vec<_> = offered.iter().filter(|o| o.same(format)).collect();
        let taken = offered.iter().find(|o| o.number == format.number);
        match taken {
            Some(other) if !other.same(format) && other.map.is_some() && format.map.is_some() => report
                .error(
                    "payload-type-changed",
                    format!(
                        "payload type {} is {} in the offer, and {} in the answer",
                        format.number,
                        other.name(),
                        format.name()
                    ),
                    "RFC 3264 §6.1",
                    "give a format the number that it has in the offer",
                ),
            _ if same.is_empty() => report.warning(
                "codec-not-offered",
                format!(
                    "{} ({}) is answered, and was not offered: it cannot be sent",
                    format.name(),
                    format.number
                ),
                "RFC 3264 §6.1",
                "take it out of the answer",
            ),
            _ if same.iter().all(|o| o.number != format.number) => {
                let numbers: Vec<&str> = same.iter().map(|o| o.number).collect();
                report.warning(
                    "payload-type-differs",
                    format!(
                        "{} is {} in the offer, and {} in the answer",
                        format.name(),
                        numbers.join(" and "),
                        format.number
                    ),
                    "RFC 3264 §6.1",
                    "give a format the number that it has in the offer",
                );
            }
            Some(_) | None => {}
        }
    }
}

fn directions(sides: &Sides<'_, '_>, report: &mut Report<'_>) {
    let offered = direction(&sides.offer, &sides.offer_session);
    let answered = direction(&sides.answer, &sides.answer_session);
    let possible = match offered {
        Direction::SendRecv => true,
        Direction::SendOnly => !answered.sends(),
        Direction::RecvOnly => !answered.receives(),
        Direction::Inactive => answered == Direction::Inactive,
    };
    if !possible {
        report.at(&sides.answer, answered.as_str()).error(
            "direction",
            format!("{} is offered, and {} answered", offered.as_str(), answered.as_str()),
            "RFC 3264 §6.1",
            "answer sendonly with recvonly, recvonly with sendonly, either of them or inactive with inactive",
        );
    }
}

fn keys(sides: &Sides<'_, '_>, negotiated: &Negotiated, report: &mut Report<'_>) {
    let (offered, answered) = (sides.offered("fingerprint"), sides.answered("fingerprint"));
    if negotiated.keys == Keys::Missing {
        let what = match (offered, sides.offer.has("crypto")) {
            (Some(_), false) => "DTLS is offered, and the answer has no a=fingerprint",
            (None, true) => "SDES is offered, and the answer has none of its suites",
            (Some(_), true) | (None, false) => "the answer is secure, and no keys can be agreed on",
        };
        report.error(
            "no-keys",
            format!("m={}: {what}", negotiated.media),
            "RFC 5763 §5, RFC 4568 §5.1.2",
            "answer with what was offered: a fingerprint, or one of the crypto lines",
        );
    }
    // In a group the first m-line speaks for the others.
    let speaks = !negotiated.bundled || sides.answer.has("setup");
    if offered.is_some() && answered.is_some() && (speaks || sides.is_first_of_group()) {
        setups(sides, report);
    }
    if negotiated.keys == Keys::None || offered.is_some() && answered.is_some() {
        return;
    }
    let cryptos: Vec<_> = sides.answer.cryptos().collect();
    if cryptos.len() > 1 {
        report.at(&sides.answer, "crypto").error(
            "crypto",
            format!("the answer has {} crypto lines", cryptos.len()),
            "RFC 4568 §5.1.2",
            "answer with one of those that were offered",
        );
    }
    for crypto in &cryptos {
        let matching = sides.offer.cryptos().find(|o| o.tag == crypto.tag);
        if matching.is_none_or(|o| o.suite != crypto.suite) {
            report.at(&sides.answer, "crypto").error(
                "crypto",
                format!("a=crypto:{} {} was not offered with that tag", crypto.tag, crypto.suite),
                "RFC 4568 §5.1.2",
                "answer with the tag and suite of one that was offered",
            );
        }
    }
}

fn setups(sides: &Sides<'_, '_>, report: &mut Report<'_>) {
    let setup = |value: Option<&str>| value.and_then(Setup::parse);
    let (offered, answered) = (setup(sides.offered("setup")), setup(sides.answered("setup")));
    report.at(&sides.answer, "setup");
    let what = match (offered, answered) {
        (_, Some(Setup::ActPass)) => "a=setup:actpass is answered: nobody begins the handshake".to_owned(),
        (_, Some(Setup::HoldConn)) => "a=setup:holdconn is answered: there is no handshake".to_owned(),
        (Some(Setup::Active), Some(Setup::Active)) => "both are a=setup:active".to_owned(),
        (Some(Setup::Passive), Some(Setup::Passive)) => "both are a=setup:passive".to_owned(),
        (_, None) => {
            return report.warning(
                "setup",
                "the answer has no a=setup: it counts as active".to_owned(),
                "RFC 4145 §4, RFC 5763 §5",
                "answer a=setup:active or a=setup:passive",
            );
        }
        (Some(Setup::HoldConn), _) => "a=setup:holdconn is offered: there is no handshake".to_owned(),
        (
            Some(Setup::Active | Setup::Passive | Setup::ActPass) | None,
            Some(Setup::Active | Setup::Passive),
        ) => return,
    };
    report.error(
        "setup",
        what,
        "RFC 4145 §4.1, RFC 5763 §5",
        "answer a=setup:active or a=setup:passive, other than the offerer's",
    );
}

/// An extension keeps its number, and is answered only where it was offered (RFC 8285 §6).
fn extensions(sides: &Sides<'_, '_>, report: &mut Report<'_>) {
    let read = |value: &str| {
        let mut words = value.split_ascii_whitespace();
        let id = words.next()?.split('/').next()?.to_owned();
        Some((id, words.next()?.to_owned()))
    };
    let offered: Vec<(String, String)> = sides.offer.all("extmap").filter_map(read).collect();
    for line in sides.answer.lines() {
        let Some(("extmap", value)) = line.attribute() else { continue };
        let Some((id, uri)) = read(value) else { continue };
        let what = match offered.iter().find(|(_, known)| *known == uri) {
            None => format!("the extension {uri} was not offered"),
            // Above 4095 the answerer chooses the number.
            Some((number, _)) if *number != id && number.parse::<u32>().is_ok_and(|n| n < 4096) => {
                format!("the extension {uri} has the number {number} in the offer, and {id} in the answer")
            }
            Some(_) => continue,
        };
        report.line = line.number;
        report.error("extmap", what, "RFC 8285 §6", "answer those that were offered, with their numbers");
    }
}
