//! What a registrar is told at its start.
//!
//! In go the values of the flags, checked by `bin`; the machine only reads them.

use crate::auth::Keys;
use crate::cidr::Cidr;
use crate::flow::Listener;

/// `--auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    Digest,
    /// Whoever asks is believed: for a network of one's own.
    None,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    pub listeners: Vec<Listener>,
    /// In small letters; the table `domain` adds to them. With none at all, every domain is served that has users.
    pub domains: Vec<String>,
    /// None: the domain of the address-of-record.
    pub realm: Option<String>,
    pub auth: Auth,
    /// In seconds.
    pub min_expires: u32,
    pub max_expires: u32,
    pub default_expires: u32,
    /// Of one address-of-record.
    pub max_contacts: usize,
    pub edge: Vec<Cidr>,
    pub keys: Keys,
}
