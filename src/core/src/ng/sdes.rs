//! The flags about keys in the SDP: `SDES` (RFC 4568).
//!
//! In: a word. Out: which suites may be offered and taken, in which order, and how they are written. Names of suites are
//! taken with hyphens as well as with underscores. Not here: what an SDP then holds (`rewrite::sdes`).

use crate::media::srtp::Suite;

/// `SDES`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SdesFlags {
    pub off: bool,
    /// `no-SUITE`: neither offered nor taken.
    pub no: Vec<Suite>,
    /// `only-SUITE`: no other is.
    pub only: Vec<Suite>,
    /// `order:SUITE;SUITE`: these come first.
    pub order: Vec<Suite>,
    /// Nothing is offered that the sender has not offered, if he offered any.
    pub nonew: bool,
    /// Keys are written with `=` at their end.
    pub pad: bool,
    /// Keys are written with their lifetime, 2^31 packets.
    pub lifetime: bool,
    /// The answer to who offered keys has the suite that was agreed before, if he still offers it.
    pub is_static: bool,
}

impl SdesFlags {
    /// False where it means nothing here.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let suite = |name: &str| Suite::from_sdes(&name.replace('-', "_"));
        let suites = |names: &str| names.split(';').filter_map(suite).collect::<Vec<_>>();
        match word {
            "off" | "no" | "disable" => self.off = true,
            "on" | "enable" | "yes" => self.off = false,
            "nonew" => self.nonew = true,
            "pad" => self.pad = true,
            "lifetime" => self.lifetime = true,
            "static" => self.is_static = true,
            other => {
                if let Some(suite) = other.strip_prefix("no-").and_then(suite) {
                    self.no.push(suite);
                } else if let Some(suite) = other.strip_prefix("only-").and_then(suite) {
                    self.only.push(suite);
                } else if let Some(names) = other.strip_prefix("order:") {
                    self.order = suites(names);
                } else {
                    return false;
                }
            }
        }
        true
    }

    /// Whether this suite may be used.
    pub fn allows(&self, suite: Suite) -> bool {
        !self.off && !self.no.contains(&suite) && (self.only.is_empty() || self.only.contains(&suite))
    }

    /// All that may be used, as they are offered.
    pub fn suites(&self) -> impl Iterator<Item = Suite> + '_ {
        let rest = Suite::ALL.into_iter().filter(|suite| !self.order.contains(suite));
        self.order.iter().copied().chain(rest).filter(|suite| self.allows(*suite))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_by_name_in_order() {
        let mut flags = SdesFlags::default();
        for word in
            ["no-NULL_HMAC_SHA1_80", "no-NULL-HMAC-SHA1-32", "order:AES-CM-128-HMAC-SHA1-80;AEAD_AES_128_GCM"]
        {
            assert!(flags.take(word), "{word}");
        }
        let suites: Vec<Suite> = flags.suites().collect();
        assert_eq!(suites.len(), 10);
        assert_eq!(suites[..3], [Suite::AesCm128HmacSha1_80, Suite::AeadAes128Gcm, Suite::AeadAes256Gcm]);
        assert!(flags.take("only-AEAD_AES_256_GCM") && !flags.take("only-ROT13"));
        assert_eq!(flags.suites().collect::<Vec<_>>(), [Suite::AeadAes256Gcm]);
        assert!(flags.take("off") && flags.suites().next().is_none());
    }
}
