//! `replace`: the lines o= and s= (RFC 8866 §5.2, RFC 3264 §8).
//!
//! In: descriptions and flags. Out: what stands in o= and s= for the receiver. A receiver may be told one user, one session
//! and versions that count without a gap, although behind us the other side changes. Not here: addresses (`address`).

use super::Input;
use super::compose::Out;
use crate::media::plan::Side;
use crate::ng::Flags;
use crate::sdp::{Line, Origin, Sdp};
use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;

/// What one side was told first, and last.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    username: String,
    session_id: String,
    session_name: Vec<u8>,
    version: u64,
    /// Of the last description without its o= lines.
    digest: u64,
}

/// Both sides of a dialog.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Origins {
    offerer: Option<Known>,
    answerer: Option<Known>,
}

/// What is put in; `None`: as the sender has it.
#[derive(Clone, Debug, Default)]
pub(super) struct OriginTold {
    username: Option<String>,
    session_id: Option<String>,
    session_name: Option<Vec<u8>>,
    version: Option<u64>,
}

impl Origins {
    /// Decides, and remembers.
    pub fn told(&mut self, sdp: &Sdp<'_>, input: &Input<'_>) -> OriginTold {
        let Some(theirs) = sdp.session().origin() else { return OriginTold::default() };
        let digest = digest(sdp, input.sdp);
        let stated = theirs.session_version.parse().unwrap_or(0);
        let known = match input.sender.other() {
            Side::Offerer => &mut self.offerer,
            Side::Answerer => &mut self.answerer,
        };
        let Some(known) = known else {
            let name = sdp.session().line(b's').map_or(&b"-"[..], |line| line.value);
            *known = Some(Known {
                username: theirs.username.to_owned(),
                session_id: theirs.session_id.to_owned(),
                session_name: name.to_vec(),
                version: stated,
                digest,
            });
            // Several descriptions in one body have one version too.
            let counts = input.flags.replace_version || input.flags.replace_origin_full;
            return OriginTold { version: counts.then_some(stated), ..OriginTold::default() };
        };
        let flags = input.flags;
        let full = flags.replace_origin_full;
        let version = if flags.force_version {
            Some(known.version.saturating_add(1))
        } else if flags.replace_version || full {
            Some(known.version.saturating_add(u64::from(known.digest != digest)))
        } else {
            None
        };
        known.version = version.unwrap_or(stated);
        known.digest = digest;
        OriginTold {
            username: (full || flags.replace_username).then(|| known.username.clone()),
            session_id: full.then(|| known.session_id.clone()),
            session_name: flags.replace_session_name.then(|| known.session_name.clone()),
            version,
        }
    }
}

/// Of all that is no o= line: `text` in as few pieces as may be.
fn digest(sdp: &Sdp<'_>, text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let (mut from, mut at) = (0, 0);
    for line in sdp.lines() {
        let next = at + line.raw.len();
        if line.kind == b'o' {
            hasher.write(text.get(from..at).unwrap_or_default());
            from = next;
        }
        at = next;
    }
    hasher.write(text.get(from..).unwrap_or_default());
    hasher.finish()
}

impl OriginTold {
    /// An o= line.
    pub fn write(&self, out: &mut Out, line: &Line<'_>, flags: &Flags, ours: Option<IpAddr>) {
        let Some(o) = Origin::parse(line.value) else { return out.keep(line) };
        let address = ours.filter(|_| flags.replace_origin || flags.replace_origin_full);
        let username = self.username.as_deref().unwrap_or(o.username);
        let session_id = self.session_id.as_deref().unwrap_or(o.session_id);
        let number = self.version.map(|version| version.to_string());
        let version = number.as_deref().unwrap_or(o.session_version);
        out.words(&["o=", username, " ", session_id, " ", version, " "]);
        match address {
            Some(address) => {
                out.address(address);
                out.parts(&[]);
            }
            None => out.parts(&[o.network, " ", o.address_type, " ", o.address]),
        }
    }

    /// An s= line.
    pub fn write_name(&self, out: &mut Out, line: &Line<'_>) {
        match &self.session_name {
            Some(name) => out.raw(b's', name),
            None => out.keep(line),
        }
    }
}
