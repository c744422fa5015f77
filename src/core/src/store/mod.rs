//! What sipbox asks of a database, as values.
//!
//! A [`Query`] is carried out by `sipbox-io` on SQLite or MySQL, and by [`memory`] in tests; all three must give
//! the same [`Reply`]. A change carries its preconditions and is checked inside the transaction ([`plan`] is that check,
//! for all of them); one that fails rolls back alone. No reply to a change before it is durable (ARCHITECTURE.md,
//! invariant 5). Tables and columns are Kamailio 5.6's (`subscriber`, `location`, `domain`, …); what is ours is in `sipbox_*`.

pub mod memory;
pub mod plan;
pub mod presence;

#[cfg(test)]
mod tests;

use crate::sip::{Aor, Scheme, Uri};
use crate::time::Instant;
use sha2::{Digest, Sha256};

/// A question or a change. `now` decides what has expired.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// What a digest of this user is checked against. Answer: [`Reply::Secret`].
    Secret { user: String, domain: String },
    /// The bindings that have not expired, best `q` first, then the latest. Answer: [`Reply::Bindings`].
    Bindings { aor: Aor, now: Instant },
    /// What a REGISTER does. Answer: [`Reply::Saved`] or [`Reply::Refused`].
    Save(Box<Save>),
    /// The flow of this TOKEN is lost: the bindings whose Path has it go, and no others. Answer: [`Reply::Removed`].
    RemoveFlow { aor: Aor, token: String, now: Instant },
    /// Bindings that have expired go, at most `limit`. Answer: [`Reply::Removed`].
    Expire { now: Instant, limit: usize },
    /// By hand: all bindings of an address-of-record. Answer: [`Reply::Removed`].
    RemoveBindings { aor: Aor, now: Instant },
    /// By hand: every binding of this Contact URI. Answer: [`Reply::Removed`].
    RemoveContact { contact: String, now: Instant },
    /// Every live binding, or those of one address-of-record, in order of the addresses. Answer: [`Reply::Contacts`].
    Contacts { aor: Option<Aor>, now: Instant },
    /// The domains of the table `domain`. Answer: [`Reply::Domains`].
    Domains,
    /// Answer: [`Reply::Done`], or [`Reply::Refused`] where there is such a user.
    UserAdd { user: String, domain: String, secret: Secret },
    /// Answer: [`Reply::Done`], or [`Reply::Refused`] where there is none.
    UserPassword { user: String, domain: String, secret: Secret },
    /// The user and his bindings. Answer: [`Reply::Done`], or [`Reply::Refused`] where there is none.
    UserRemove { user: String, domain: String },
    /// Of one user, of one domain (`user` empty), or all. Answer: [`Reply::Users`].
    Users { of: Option<Aor> },
    /// Watchers and publications. Answer: [`Reply::Presence`].
    Presence(presence::Query),
}

impl Query {
    /// Whether it belongs to the writer.
    pub const fn changes(&self) -> bool {
        match self {
            Query::Presence(query) => query.changes(),
            Query::Secret { .. }
            | Query::Bindings { .. }
            | Query::Contacts { .. }
            | Query::Domains
            | Query::Users { .. } => false,
            Query::Save(_)
            | Query::RemoveFlow { .. }
            | Query::Expire { .. }
            | Query::RemoveBindings { .. }
            | Query::RemoveContact { .. }
            | Query::UserAdd { .. }
            | Query::UserPassword { .. }
            | Query::UserRemove { .. } => true,
        }
    }
}

/// What the database said.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// None: no such user.
    Secret(Option<Secret>),
    Bindings(Vec<Binding>),
    Saved(Saved),
    Removed(Vec<(Aor, Binding)>),
    Contacts(Vec<(Aor, Binding)>),
    Domains(Vec<String>),
    Users(Vec<Aor>),
    Presence(presence::Reply),
    /// The change is durable.
    Done,
    /// A precondition did not hold; nothing was changed.
    Refused(Refusal),
}

/// Why it could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Away, locked or over its deadline: the client is told 503 and may try again.
    Unavailable(String),
}

/// Which precondition did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A binding was made by a later request of the same Call-ID (RFC 3261 §10.3 step 7).
    OutOfOrder,
    /// One request with more contacts than one address-of-record may have.
    TooManyContacts,
    UserExists,
    NoSuchUser,
    /// SIP-If-Match names nothing that is published (RFC 3903 §6 step 4).
    NoSuchTag,
    /// One presentity with more publications than it may have.
    TooManyPublications,
    /// A value is too long for its column, or has letters that the column does not know.
    DoesNotFit,
}

/// What a digest is checked against: HA1s where they are filled in, else the password (`subscriber` of Kamailio).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret {
    pub password: String,
    /// MD5(user:realm:password).
    pub ha1: String,
    /// MD5(user@domain:realm:password), for clients that give that as their user name.
    pub ha1b: String,
}

/// Never in a log.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A row of `location`.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// [`ruid`] of what it is.
    pub ruid: String,
    /// The Contact URI as it was registered.
    pub contact: String,
    /// The client's real address in Kamailio's form, `sip:192.0.2.1:5060;transport=ws`.
    pub received: Option<String>,
    /// The values of Path, comma-separated.
    pub path: Option<String>,
    pub expires: Instant,
    /// In thousandths; None where the client gave none.
    pub q: Option<u16>,
    pub call_id: String,
    pub cseq: u32,
    pub modified: Instant,
    /// Kamailio's branch flags; bit 6 (64) is its usual NAT flag.
    pub cflags: u32,
    pub user_agent: String,
    /// The listener that it was received on, `udp:192.0.2.50:5060`.
    pub socket: Option<String>,
    /// Bits of the methods in Allow, Kamailio's numbering; None where there was no Allow.
    pub methods: Option<u32>,
    /// `+sip.instance` without its quotes and brackets kept: `<urn:uuid:…>`.
    pub instance: Option<String>,
    /// 0 where there is none.
    pub reg_id: u32,
}

/// What one REGISTER wants, to be carried out as a whole or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Save {
    pub aor: Aor,
    pub now: Instant,
    pub call_id: String,
    pub cseq: u32,
    pub contacts: Contacts,
    pub max_contacts: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Contacts {
    /// `Contact: *` with `Expires: 0`.
    RemoveAll,
    /// Each to be added or refreshed; with `expires` at or before `now`, removed.
    Each(Vec<Binding>),
}

/// What a REGISTER did.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// All that are live now, in the order of [`Query::Bindings`].
    pub bindings: Vec<Binding>,
    /// What changed, in the order in which it did.
    pub changes: Vec<(Change, Binding)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Refreshed,
    Removed,
    /// Removed, as the oldest, to make room for another.
    Replaced,
}

/// The name of a binding, the same whoever computes it: a hash of the address-of-record and of what tells its bindings
/// apart (RFC 5626 §6: instance and reg-id where there are both; else the Contact URI). `location` has a unique key over it.
pub fn ruid(aor: &Aor, instance: Option<&str>, reg_id: u32, contact: &str) -> String {
    let mut hash = Sha256::new();
    let mut part = |kind: u8, text: &[u8]| {
        hash.update([kind]);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    part(b'u', aor.user.as_bytes());
    part(b'd', aor.domain.as_bytes());
    match instance {
        Some(instance) if reg_id > 0 => {
            part(b'i', instance.to_ascii_lowercase().as_bytes());
            part(b'r', &reg_id.to_be_bytes());
        }
        _ => part(b'c', &contact_key(contact)),
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A Contact URI in a form that is equal for URIs that RFC 3261 §19.1.4 calls equal, but for one thing: a parameter that
/// only one of two has makes them differ here, always. (That rule is not transitive, so no key can follow it.)
fn contact_key(contact: &str) -> Vec<u8> {
    let Ok(uri) = Uri::parse(contact.as_bytes()) else { return contact.as_bytes().to_vec() };
    let Some(aor) = uri.aor() else { return contact.as_bytes().to_vec() };
    let mut key = if uri.scheme == Scheme::Sips { b"sips:".to_vec() } else { b"sip:".to_vec() };
    key.extend_from_slice(aor.user.as_bytes());
    key.push(b':');
    key.extend_from_slice(uri.password.unwrap_or_default());
    key.push(b'@');
    key.extend_from_slice(aor.domain.as_bytes());
    if let Some(port) = uri.port {
        key.extend_from_slice(format!(":{port}").as_bytes());
    }
    let mut params: Vec<Vec<u8>> = uri
        .params
        .iter()
        .map(|param| {
            let mut text = param.name.to_ascii_lowercase();
            if let Some(value) = param.value {
                text.push(b'=');
                text.extend(value.to_ascii_lowercase());
            }
            text
        })
        .collect();
    params.sort();
    for param in params {
        key.push(b';');
        key.extend(param);
    }
    key
}
