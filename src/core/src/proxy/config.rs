//! What a proxy is told at its start.
//!
//! In go the values of the flags, checked by `bin`; the machine only reads them.

use crate::auth::Keys;
use crate::cidr::Cidr;
use crate::flow::Listener;
use std::time::Duration;

/// `--auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// What claims a From of ours is challenged.
    Digest,
    None,
}

/// `--relay-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayPolicy {
    /// Not for SIP to SIP without NAT.
    Auto,
    Always,
    Never,
}

/// `--fork`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    Parallel,
    Serial,
    /// Only the most preferred binding.
    None,
}

/// `--route PATTERN=URI`: where a request goes whose domain is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// A host, `*.SUFFIX`, or `*` for all.
    pub pattern: String,
    pub uri: String,
}

impl Route {
    pub fn matches(&self, host: &str) -> bool {
        match self.pattern.strip_prefix('*') {
            Some(suffix) => {
                host.len() >= suffix.len()
                    && host.is_char_boundary(host.len() - suffix.len())
                    && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }
            None => self.pattern.eq_ignore_ascii_case(host),
        }
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    pub listeners: Vec<Listener>,
    pub domains: Vec<String>,
    pub registrar: Option<String>,
    pub presence: Option<String>,
    /// The relays' names for people, at most 255; their addresses are the driver's.
    pub relays: Vec<String>,
    pub relay_policy: RelayPolicy,
    pub auth: Auth,
    pub trust: Vec<Cidr>,
    pub edge: Vec<Cidr>,
    pub fork: Fork,
    pub ring_timeout: Duration,
    pub routes: Vec<Route>,
    /// The first signs, all verify.
    pub keys: Keys,
    /// Our number among the workers of this process, and what all of them drew at its start: flows of a predecessor are
    /// not ours.
    pub worker: u8,
    pub epoch: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_hosts_suffixes_or_all() {
        let route = |pattern: &str| Route { pattern: pattern.into(), uri: String::new() };
        assert!(route("Example.com").matches("example.COM"));
        assert!(!route("example.com").matches("sub.example.com"));
        assert!(route("*.example.com").matches("sub.example.com"));
        assert!(!route("*.example.com").matches("example.com"));
        assert!(route("*").matches("192.0.2.1"));
        assert!(!route("*é").matches("xx"));
    }
}
