//! What presence asks of a database: who watches whom, and what was published.
//!
//! RFC 6665, RFC 3903. Tables and columns are Kamailio 5.6's: `presentity`, `active_watchers`, `watchers`. Here: the
//! questions, their answers, the check inside of the transaction ([`publish`]), and the reference store of the tests.
//! Not here: SQL (`sipbox-io`), documents (`presence`).

use super::Refusal;
use crate::limits;
use crate::sip::Aor;
use crate::time::Instant;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// An event package that we serve, as in Event and in the column `event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Package {
    /// RFC 3856.
    Presence,
    /// RFC 4235.
    Dialog,
}

impl Package {
    pub const ALL: [Package; 2] = [Package::Presence, Package::Dialog];

    pub const fn as_str(self) -> &'static str {
        match self {
            Package::Presence => "presence",
            Package::Dialog => "dialog",
        }
    }

    pub fn parse(name: &[u8]) -> Option<Self> {
        Package::ALL.into_iter().find(|package| package.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Of its documents.
    pub const fn content_type(self) -> &'static str {
        match self {
            Package::Presence => "application/pidf+xml",
            Package::Dialog => "application/dialog-info+xml",
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What names a subscription: its dialog, `active_watchers`' unique key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialogKey {
    pub call_id: String,
    /// Ours: of To in a SUBSCRIBE.
    pub local_tag: String,
    /// The watcher's: of From in a SUBSCRIBE.
    pub remote_tag: String,
}

/// A row of `active_watchers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub key: DialogKey,
    pub presentity: Aor,
    pub package: Package,
    /// The parameter `id` of Event.
    pub event_id: Option<String>,
    /// Of From.
    pub watcher: Aor,
    /// Of To.
    pub to: Aor,
    /// Of the latest NOTIFY.
    pub local_cseq: u32,
    /// Of the latest SUBSCRIBE.
    pub remote_cseq: u32,
    /// The watcher's remote target; with Kamailio's parameter `alias` where he is somewhere else than he says.
    pub contact: String,
    /// The values of Record-Route, comma-separated.
    pub record_route: Option<String>,
    pub expires: Instant,
    /// Number of the next document.
    pub version: u32,
    /// The listener that it came in on, `udp:192.0.2.50:5060`.
    pub socket: String,
    /// Our Contact in this dialog.
    pub local_contact: String,
    pub user_agent: String,
}

impl Subscription {
    /// By presentity.
    pub fn order(&self, other: &Self) -> Ordering {
        (&self.presentity, &self.key).cmp(&(&other.presentity, &other.key))
    }
}

/// A row of `presentity`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub presentity: Aor,
    pub package: Package,
    pub etag: String,
    pub expires: Instant,
    pub received: Instant,
    pub body: Vec<u8>,
    /// The URI of who published.
    pub sender: String,
}

impl Publication {
    /// By presentity and package, then the oldest first.
    pub fn order(&self, other: &Self) -> Ordering {
        let key = |row: &Self| (row.package, row.received);
        self.presentity
            .cmp(&other.presentity)
            .then_with(|| key(self).cmp(&key(other)))
            .then_with(|| self.etag.cmp(&other.etag))
    }
}

/// What one PUBLISH wants (RFC 3903 §6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub presentity: Aor,
    pub package: Package,
    /// SIP-If-Match: what it refreshes, modifies or removes.
    pub if_match: Option<String>,
    /// What it is called from now on.
    pub etag: String,
    /// None: what is there stays.
    pub body: Option<Vec<u8>>,
    /// At or before `now`: to be removed.
    pub expires: Instant,
    pub now: Instant,
    pub sender: String,
}

/// What is known of one watched address-of-record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub presentity: Aor,
    /// Live ones of all packages that we serve, oldest first, then by entity tag.
    pub publications: Vec<Publication>,
    /// Has a binding that lives.
    pub registered: bool,
}

/// A question or a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Live ones, of one address-of-record or all, in order of the presentity. Answer: [`Reply::Subscriptions`].
    Subscriptions { of: Option<Aor>, now: Instant },
    /// Live ones, of one address-of-record or all, in order of the presentity. Answer: [`Reply::Publications`].
    Publications { of: Option<Aor>, now: Instant },
    /// Of each, in this order. Answer: [`Reply::States`].
    States { of: Vec<Aor>, now: Instant },
    /// Makes or replaces the row of its dialog. Answer: [`Reply::Done`].
    Subscribe { row: Box<Subscription>, now: Instant },
    /// CSeq and version that were used last. Answer: [`Reply::Done`].
    Counted(Vec<(DialogKey, u32, u32)>),
    /// Answer: [`Reply::Done`], also where there was no such row.
    Unsubscribe(Vec<DialogKey>),
    /// Answer: [`Reply::Done`] or [`Reply::Refused`].
    Publish(Box<Publish>),
    /// What expired before `now` goes, of each table at most `limit`. Answer: [`Reply::Done`].
    Expire { now: Instant, limit: usize },
}

impl Query {
    /// Whether it belongs to the writer.
    pub const fn changes(&self) -> bool {
        match self {
            Query::Subscriptions { .. } | Query::Publications { .. } | Query::States { .. } => false,
            Query::Subscribe { .. }
            | Query::Counted(_)
            | Query::Unsubscribe(_)
            | Query::Publish(_)
            | Query::Expire { .. } => true,
        }
    }
}

/// What the database said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Subscriptions(Vec<Subscription>),
    Publications(Vec<Publication>),
    States(Vec<State>),
    /// The change is durable.
    Done,
    Refused(Refusal),
}

/// What a PUBLISH does to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Write(Publication),
    /// The row of this entity tag goes.
    Remove(String),
}

/// The check inside of the transaction (RFC 3903 §6): `rows` are those of one presentity and package. What is written
/// takes the place of what `if_match` and `etag` name.
pub fn publish(rows: &[Publication], wanted: &Publish) -> Result<Vec<Change>, Refusal> {
    let live = || rows.iter().filter(|row| row.expires > wanted.now);
    let known = match &wanted.if_match {
        Some(etag) => Some(live().find(|row| row.etag == *etag).ok_or(Refusal::NoSuchTag)?),
        None => None,
    };
    let mut changes: Vec<Change> = known.map(|row| Change::Remove(row.etag.clone())).into_iter().collect();
    if wanted.expires <= wanted.now {
        return Ok(changes);
    }
    if known.is_none()
        && live().filter(|row| row.etag != wanted.etag).count() >= limits::PUBLICATIONS_PER_PRESENTITY
    {
        return Err(Refusal::TooManyPublications);
    }
    let body = match (&wanted.body, known) {
        (Some(body), _) => body.clone(),
        (None, Some(row)) => row.body.clone(),
        (None, None) => return Err(Refusal::NoSuchTag),
    };
    changes.push(Change::Write(Publication {
        presentity: wanted.presentity.clone(),
        package: wanted.package,
        etag: wanted.etag.clone(),
        expires: wanted.expires,
        received: wanted.now,
        body,
        sender: wanted.sender.clone(),
    }));
    Ok(changes)
}

/// The reference store's tables.
#[derive(Debug, Default, Clone)]
pub struct Tables {
    subscriptions: BTreeMap<DialogKey, Subscription>,
    publications: BTreeMap<(Aor, Package, String), Publication>,
}

impl Tables {
    /// `registered`: whether an address-of-record has a live binding.
    pub fn ask(&mut self, query: Query, registered: impl Fn(&Aor, Instant) -> bool) -> Reply {
        match query {
            Query::Subscriptions { of, now } => {
                let mut rows: Vec<Subscription> = self
                    .subscriptions
                    .values()
                    .filter(|row| row.expires > now && of.as_ref().is_none_or(|of| *of == row.presentity))
                    .cloned()
                    .collect();
                rows.sort_by(Subscription::order);
                Reply::Subscriptions(rows)
            }
            Query::Publications { of, now } => Reply::Publications(self.live(of.as_ref(), now)),
            Query::States { of, now } => Reply::States(
                of.into_iter()
                    .map(|presentity| State {
                        publications: self.live(Some(&presentity), now),
                        registered: registered(&presentity, now),
                        presentity,
                    })
                    .collect(),
            ),
            Query::Subscribe { row, now: _ } => {
                self.subscriptions.insert(row.key.clone(), *row);
                Reply::Done
            }
            Query::Counted(counted) => {
                for (key, cseq, version) in counted {
                    if let Some(row) = self.subscriptions.get_mut(&key) {
                        (row.local_cseq, row.version) = (cseq, version);
                    }
                }
                Reply::Done
            }
            Query::Unsubscribe(keys) => {
                self.subscriptions.retain(|key, _| !keys.contains(key));
                Reply::Done
            }
            Query::Publish(wanted) => {
                let rows: Vec<Publication> = self
                    .publications
                    .values()
                    .filter(|row| row.presentity == wanted.presentity && row.package == wanted.package)
                    .cloned()
                    .collect();
                let changes = match publish(&rows, &wanted) {
                    Ok(changes) => changes,
                    Err(refusal) => return Reply::Refused(refusal),
                };
                let name = |etag: String| (wanted.presentity.clone(), wanted.package, etag);
                for change in changes {
                    match change {
                        Change::Write(row) => {
                            self.publications.insert(name(row.etag.clone()), row);
                        }
                        Change::Remove(etag) => {
                            self.publications.remove(&name(etag));
                        }
                    }
                }
                Reply::Done
            }
            Query::Expire { now, limit } => {
                let mut left = limit;
                self.subscriptions.retain(|_, row| row.expires >= now || !take(&mut left));
                let mut left = limit;
                self.publications.retain(|_, row| row.expires >= now || !take(&mut left));
                Reply::Done
            }
        }
    }

    fn live(&self, of: Option<&Aor>, now: Instant) -> Vec<Publication> {
        let mut rows: Vec<Publication> = self
            .publications
            .values()
            .filter(|row| row.expires > now && of.is_none_or(|of| *of == row.presentity))
            .cloned()
            .collect();
        rows.sort_by(Publication::order);
        rows
    }
}

fn take(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}
