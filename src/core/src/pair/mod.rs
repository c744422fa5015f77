//! An offer and its answer: what was negotiated by them, m-line by m-line, and what of it breaks the rules.
//!
//! RFC 3264 (the model), 5761 (rtcp-mux), 4145, 5763 and 8842 (setup, DTLS), 4568 (SDES), 8839 (ICE), 5888 and 9143 (mid, BUNDLE),
//! 8285 (extmap). In: two parsed SDPs. Out: a [`Pair`]. Not here: what is wrong with either of them alone (`check`).

mod breaks;
#[cfg(test)]
mod tests;

pub use crate::sdp::Severity;
pub use breaks::Break;

use crate::sdp::{Direction, RtpMap, Sdp, Section, Setup};

/// The outcome of one exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// One for each m-line of the offer.
    pub media: Vec<Negotiated>,
    pub breaks: Vec<Break>,
}

/// Who of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Offerer,
    Answerer,
}

impl Who {
    pub const fn as_str(self) -> &'static str {
        match self {
            Who::Offerer => "offerer",
            Who::Answerer => "answerer",
        }
    }
}

/// One m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub media: String,
    pub mid: Option<String>,
    /// Whose port is 0; the answerer's too where he has no such m-line.
    pub refused_by: Option<Who>,
    /// The answer's; the offer's where there is none.
    pub protocol: String,
    /// Those that both have, in the answer's order.
    pub codecs: Vec<Codec>,
    /// Media flows toward the offerer, and toward the answerer.
    pub to_offerer: bool,
    pub to_answerer: bool,
    pub keys: Keys,
    /// RTP and RTCP share a port.
    pub mux: bool,
    pub ice: Ice,
    /// Milliseconds in a packet that the offerer, and the answerer, asks for.
    pub ptime: (Option<u32>, Option<u32>),
    /// Its transport is shared with the others of the group.
    pub bundled: bool,
}

/// A format, with the number that it has in each direction: a side receives by the numbers in its own description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// `opus/48000/2`; a format's own name where it is no RTP.
    pub name: String,
    pub to_offerer: String,
    pub to_answerer: String,
}

/// How the media is secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// In the clear.
    None,
    /// The suite; each side's key is in its own description.
    Sdes { suite: String },
    /// Who sends the ClientHello; None where the two leave it open.
    Dtls { client: Option<Who>, hash: String },
    /// A secure profile, and nothing that both agree on.
    Missing,
}

/// How the addresses are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ice {
    /// As the descriptions say them.
    No,
    /// Offered, and not taken: as the descriptions say them.
    OfferedOnly,
    /// Both; who nominates (RFC 8445 §6.1.1).
    Yes { controlling: Who },
}

/// The pair of one m-section, with what the session gives to it.
struct Sides<'s, 'a> {
    offer: Section<'s, 'a>,
    answer: Section<'s, 'a>,
    offer_session: Section<'s, 'a>,
    answer_session: Section<'s, 'a>,
}

fn get<'a>(section: &Section<'_, 'a>, session: &Section<'_, 'a>, name: &str) -> Option<&'a str> {
    section.get(name).or_else(|| session.get(name))
}

fn direction(section: &Section<'_, '_>, session: &Section<'_, '_>) -> Direction {
    section.direction().or_else(|| session.direction()).unwrap_or(Direction::SendRecv)
}

/// Compares an answer with its offer.
pub fn pair(offer: &Sdp<'_>, answer: &Sdp<'_>) -> Pair {
    let mut breaks = Vec::new();
    breaks::of_session(offer, answer, &mut breaks);
    let bundle = bundled(answer);
    let mut media = Vec::with_capacity(offer.media_count());
    for (index, section) in offer.medias().enumerate() {
        let Some(theirs) = answer.media(index) else {
            media.push(alone(&section));
            continue;
        };
        let sides = Sides {
            offer: section,
            answer: theirs,
            offer_session: offer.session(),
            answer_session: answer.session(),
        };
        let negotiated = sides.negotiate(&bundle);
        breaks::of_media(index, &sides, &negotiated, &mut breaks);
        media.push(negotiated);
    }
    breaks.sort_by_key(|found| found.media);
    Pair { media, breaks }
}

/// The mids of a description's BUNDLE groups.
fn bundled<'a>(sdp: &Sdp<'a>) -> Vec<&'a str> {
    let groups = sdp.session().groups().filter(|group| group.semantics == "BUNDLE");
    groups.flat_map(|group| group.mids.split_ascii_whitespace()).collect()
}

/// An m-line that has no answer.
fn alone(section: &Section<'_, '_>) -> Negotiated {
    let m = section.media();
    Negotiated {
        media: m.map(|m| m.media.to_owned()).unwrap_or_default(),
        mid: section.get("mid").map(|mid| mid.trim().to_owned()),
        refused_by: Some(Who::Answerer),
        protocol: m.map(|m| m.protocol.to_owned()).unwrap_or_default(),
        codecs: Vec::new(),
        to_offerer: false,
        to_answerer: false,
        keys: Keys::None,
        mux: false,
        ice: Ice::No,
        ptime: (None, None),
        bundled: false,
    }
}

impl<'a> Sides<'_, 'a> {
    fn offered(&self, name: &str) -> Option<&'a str> {
        get(&self.offer, &self.offer_session, name)
    }

    /// The m-line whose transport is that of its whole group (RFC 9143 §7.3.2).
    fn is_first_of_group(&self) -> bool {
        let groups = self.answer_session.groups().filter(|group| group.semantics == "BUNDLE");
        let mid = self.answer.get("mid").map(str::trim);
        groups.into_iter().any(|group| group.mids.split_ascii_whitespace().next() == mid)
    }

    fn answered(&self, name: &str) -> Option<&'a str> {
        get(&self.answer, &self.answer_session, name)
    }

    fn negotiate(&self, bundle: &[&str]) -> Negotiated {
        let (m, theirs) = (self.offer.media(), self.answer.media());
        let dead = |m: Option<crate::sdp::Media<'_>>, section: &Section<'_, '_>| {
            m.is_none_or(|m| m.port == 0) && !section.has("bundle-only")
        };
        let refused_by = if dead(m, &self.offer) {
            Some(Who::Offerer)
        } else {
            theirs.is_none_or(|m| m.port == 0).then_some(Who::Answerer)
        };
        let mut out = alone(&self.offer);
        out.refused_by = refused_by;
        out.protocol = theirs.map(|m| m.protocol.to_owned()).unwrap_or(out.protocol);
        if refused_by.is_some() {
            return out;
        }
        let offered = direction(&self.offer, &self.offer_session);
        let answered = direction(&self.answer, &self.answer_session);
        let mid = self.answer.get("mid").map(str::trim);
        Negotiated {
            codecs: self.codecs(),
            to_offerer: offered.receives() && answered.sends(),
            to_answerer: offered.sends() && answered.receives(),
            keys: self.keys(),
            mux: self.offer.has("rtcp-mux") && self.answer.has("rtcp-mux"),
            ice: self.ice(),
            ptime: (self.offer.ptime(), self.answer.ptime()),
            bundled: mid.is_some_and(|mid| bundle.contains(&mid)),
            ..out
        }
    }

    /// What both have; a format is the same by its name and what its parameters make another one of it.
    fn codecs(&self) -> Vec<Codec> {
        let offered = formats(&self.offer);
        let mut taken = vec![false; offered.len()];
        let mut both = Vec::new();
        for answered in formats(&self.answer) {
            let same = |index: usize, f: &Format<'_>| !taken[index] && f.same(&answered);
            // The same number first: two of a name are told apart by it.
            let found = (0..offered.len())
                .filter(|index| same(*index, &offered[*index]))
                .min_by_key(|index| offered[*index].number != answered.number);
            let Some(index) = found else { continue };
            taken[index] = true;
            both.push(Codec {
                name: answered.name(),
                to_offerer: offered[index].number.to_owned(),
                to_answerer: answered.number.to_owned(),
            });
        }
        both
    }

    fn keys(&self) -> Keys {
        let secure = |section: &Section<'_, '_>| {
            section.media().is_some_and(|m| {
                m.profile().is_some_and(|profile| profile.is_secure()) || m.protocol.contains("DTLS")
            })
        };
        if !secure(&self.answer) {
            return Keys::None;
        }
        let fingerprint = self.answered("fingerprint");
        if let (Some(_), Some(theirs)) = (self.offered("fingerprint"), fingerprint) {
            let hash = theirs.trim().split(' ').next().unwrap_or_default().to_ascii_lowercase();
            return Keys::Dtls { client: self.client(), hash };
        }
        let offered: Vec<&str> = self.offer.cryptos().map(|crypto| crypto.suite).collect();
        match self.answer.cryptos().find(|crypto| offered.contains(&crypto.suite)) {
            Some(crypto) => Keys::Sdes { suite: crypto.suite.to_owned() },
            None => Keys::Missing,
        }
    }

    /// Who is `active` is the client (RFC 5763 §5).
    fn client(&self) -> Option<Who> {
        match self.answered("setup").and_then(Setup::parse)? {
            Setup::Active => Some(Who::Answerer),
            Setup::Passive => Some(Who::Offerer),
            Setup::ActPass | Setup::HoldConn => None,
        }
    }

    fn ice(&self) -> Ice {
        let (offered, answered) = (self.offered("ice-ufrag"), self.answered("ice-ufrag"));
        match (offered, answered) {
            (Some(_), Some(_)) => {
                let lite = self.offer_session.has("ice-lite") && !self.answer_session.has("ice-lite");
                Ice::Yes { controlling: if lite { Who::Answerer } else { Who::Offerer } }
            }
            (Some(_), None) => Ice::OfferedOnly,
            (None, _) => Ice::No,
        }
    }
}

/// A format of an m-line.
#[derive(Clone, Debug)]
struct Format<'a> {
    number: &'a str,
    map: Option<RtpMap<'a>>,
    /// The parameters that make it another codec.
    variant: String,
}

impl Format<'_> {
    fn name(&self) -> String {
        match &self.map {
            Some(map) if map.channels > 1 => format!("{}/{}/{}", map.encoding, map.clock_rate, map.channels),
            Some(map) => format!("{}/{}", map.encoding, map.clock_rate),
            None => self.number.to_owned(),
        }
    }

    fn same(&self, other: &Format<'_>) -> bool {
        match (&self.map, &other.map) {
            (Some(a), Some(b)) => {
                a.encoding.eq_ignore_ascii_case(b.encoding)
                    && (a.clock_rate, a.channels) == (b.clock_rate, b.channels)
                    && self.variant == other.variant
            }
            // No RTP, or a number that says nothing.
            (None, None) => self.number == other.number,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

fn formats<'a>(section: &Section<'_, 'a>) -> Vec<Format<'a>> {
    let Some(m) = section.media() else { return Vec::new() };
    let is_rtp = m.profile().is_some();
    let format = |number: &'a str| {
        let payload_type: Option<u8> = number.parse().ok().filter(|_| is_rtp);
        let map = payload_type.and_then(|payload_type| {
            let map = section.rtpmaps().find(|map| map.payload_type == payload_type);
            map.or_else(|| RtpMap::of_static(payload_type))
        });
        let parameters =
            section.fmtps().find(|fmtp| fmtp.format == number).map_or("", |fmtp| fmtp.parameters);
        Format { number, variant: map.map_or_else(String::new, |map| variant(map.encoding, parameters)), map }
    };
    m.formats.split_ascii_whitespace().map(format).collect()
}

/// Of the parameters, those without which one side does not understand the other.
fn variant(encoding: &str, parameters: &str) -> String {
    let get = |name: &str| {
        parameters.split(';').find_map(|parameter| {
            let (key, value) = parameter.trim().split_once('=')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    };
    match encoding.to_ascii_uppercase().as_str() {
        // RFC 6184 §8.2.2: packetization mode and profile are symmetric, the level is not.
        "H264" => {
            let profile = get("profile-level-id").map(|id| id.get(..2).unwrap_or_default().to_owned());
            let mode = get("packetization-mode").unwrap_or("0".to_owned());
            format!("{mode} {}", profile.unwrap_or("42".to_owned()))
        }
        // RFC 4867 §8.3.1.
        "AMR" | "AMR-WB" => get("octet-align").unwrap_or("0".to_owned()),
        "VP9" => get("profile-id").unwrap_or("0".to_owned()),
        // What it repairs is another number in each description.
        _ => String::new(),
    }
}
