//! What a presence server is told at its start.
//!
//! In go the values of the flags, checked by `bin`; the machine only reads them.

use crate::auth::Keys;
use crate::cidr::Cidr;
use crate::flow::Listener;

/// `--auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Whoever is not of `edge` is challenged.
    Digest,
    /// Whoever asks is believed: for a network of one's own.
    None,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    pub listeners: Vec<Listener>,
    /// In small letters; the table `domain` adds to them. With none at all, every domain is served.
    pub domains: Vec<String>,
    pub auth: Auth,
    /// In seconds; of subscriptions and publications alike.
    pub min_expires: u32,
    pub max_expires: u32,
    /// Our own proxies and gateways: what comes from them was authenticated there.
    pub edge: Vec<Cidr>,
    pub keys: Keys,
}
