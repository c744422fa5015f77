//! The flags about codecs: `codec`, and the flat forms `codec-strip-PCMU`.
//!
//! In: a dictionary of lists, or a flag's rest. Out: names of codecs, each `NAME`, `NAME/CLOCK` or `NAME/CLOCK/CHANNELS`.
//! What asks for transcoding (`transcode`, `consume`, `set`, `accept`) is named as ignored: nothing is offered that nobody
//! can deliver. Not here: what becomes of formats (`rewrite::codecs`).

use super::Value;
use super::flags::list;

/// `codec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodecFlags {
    /// Taken out, or all with `all`.
    pub strip: Vec<String>,
    /// First, in this order; and kept where all else is taken out.
    pub offer: Vec<String>,
    /// Kept, and no other.
    pub except: Vec<String>,
    /// An answer may have one codec, with telephone-event.
    pub single: bool,
    /// An answer may have formats that its offer has not, or has under another number.
    pub asymmetric: bool,
}

impl CodecFlags {
    pub(super) fn take_dict(&mut self, value: &Value, ignored: &mut Vec<String>) {
        let Some(dict) = value.as_dict() else { return ignored.push("codec".to_owned()) };
        for (what, names) in dict.iter() {
            for name in list(names) {
                if !self.take(what, &name) {
                    ignored.push(format!("codec-{what}-{name}"));
                }
            }
        }
    }

    /// `strip-PCMU`; false where it means nothing here.
    pub(super) fn take_flag(&mut self, rest: &str) -> bool {
        rest.split_once('-').is_some_and(|(what, name)| self.take(what, name))
    }

    fn take(&mut self, what: &str, name: &str) -> bool {
        let name = name.to_owned();
        match what {
            // Without transcoding, what is hidden from one side is of no use to the other.
            "strip" | "mask" => self.strip.push(name),
            "offer" => self.offer.push(name),
            "except" => self.except.push(name),
            _ => return false,
        }
        true
    }

    /// Whether anything is asked for an offer's formats.
    pub fn is_empty(&self) -> bool {
        self.strip.is_empty() && self.offer.is_empty() && self.except.is_empty()
    }
}
