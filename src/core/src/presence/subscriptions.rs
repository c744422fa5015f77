//! The subscriptions that live, and how each is told.
//!
//! RFC 6665 §4.2.2 and §4.1.3. Goes in: rows that are durable, and what a look at the store brought. Comes out: NOTIFYs, the
//! newest state to each watcher, one at a time; word of those that ended. Not here: requests (`mod.rs`).

use super::document::{self, Document};
use super::notify::{self, Hop, Notify, Reason};
use super::{Asked, LOOK_BATCH, Presence, RESTART_SKIP, TIDY_BATCH, Timer};
use crate::flow::{Flow, Target};
use crate::limits;
use crate::machine::{Event, Level, Question};
use crate::rng::{KeyedHash, Rng};
use crate::sip::Aor;
use crate::store::presence::{self as rows, DialogKey, Package, State, Subscription};
use crate::time::Instant;
use crate::transaction::ClientId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::Bound;

/// Names a subscription within this process; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct WatchId(u64);

/// What a NOTIFY waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    No,
    /// The address of its next hop.
    Resolving,
    /// Its answer.
    Notified,
}

/// One subscription.
pub(super) struct Watch {
    pub row: Subscription,
    /// The connection that the watcher himself is on.
    pub flow: Option<Flow>,
    /// What he was told last.
    pub sent: Option<Document>,
    busy: Busy,
    /// What he is to be told next: while something is under way, the newest takes the place of what waited.
    next: Option<Option<Document>>,
    ending: Option<Reason>,
}

impl Watch {
    pub fn record(&self) -> String {
        serde_json::json!({
            "subscription": self.row.key.call_id,
            "presentity": self.row.presentity.to_string(),
            "package": self.row.package.as_str(),
            "watcher": self.row.watcher.to_string(),
            "expires": self.row.expires.rfc3339(),
            "busy": self.busy != Busy::No,
        })
        .to_string()
    }
}

/// All of them.
pub(super) struct Subscriptions {
    by_id: BTreeMap<WatchId, Watch>,
    by_dialog: HashMap<DialogKey, WatchId, KeyedHash>,
    /// Those that are to be told of changes.
    by_presentity: BTreeMap<Aor, BTreeSet<WatchId>>,
    ids: u64,
}

impl Subscriptions {
    pub fn new(rng: &mut Rng) -> Self {
        Subscriptions {
            by_id: BTreeMap::new(),
            by_dialog: HashMap::with_hasher(KeyedHash::new(rng)),
            by_presentity: BTreeMap::new(),
            ids: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn get(&self, id: WatchId) -> Option<&Watch> {
        self.by_id.get(&id)
    }

    pub fn get_mut(&mut self, id: WatchId) -> Option<&mut Watch> {
        self.by_id.get_mut(&id)
    }

    pub fn find(&self, key: &DialogKey) -> Option<WatchId> {
        self.by_dialog.get(key).copied()
    }

    pub fn all(&self) -> impl Iterator<Item = &Watch> {
        self.by_id.values()
    }

    pub fn add(&mut self, row: Subscription, flow: Option<Flow>) -> WatchId {
        self.ids += 1;
        let id = WatchId(self.ids);
        self.by_dialog.insert(row.key.clone(), id);
        self.by_presentity.entry(row.presentity.clone()).or_default().insert(id);
        let watch = Watch { row, flow, sent: None, busy: Busy::No, next: None, ending: None };
        self.by_id.insert(id, watch);
        id
    }

    /// Changes are no longer for it; a SUBSCRIBE in its dialog is a stranger's from now on.
    fn close(&mut self, id: WatchId) {
        let Some(watch) = self.by_id.get(&id) else { return };
        self.by_dialog.remove(&watch.row.key);
        if let Some(ids) = self.by_presentity.get_mut(&watch.row.presentity) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_presentity.remove(&watch.row.presentity);
            }
        }
    }

    pub fn flow_closed(&mut self, flow: &Flow) {
        for watch in self.by_id.values_mut() {
            if watch.flow.is_some_and(|own| own.connection == flow.connection) {
                watch.flow = None;
            }
        }
    }
}

pub(super) fn event(level: Level, name: &'static str, row: &Subscription) -> Event {
    Event::new(level, name)
        .with("presentity", &row.presentity)
        .with("package", row.package.as_str())
        .with("watcher", &row.watcher)
        .with("call_id", &row.key.call_id)
}

impl Presence {
    /// At the start: who was watching goes on, and is told what changed meanwhile.
    pub(super) fn load(&mut self, now: Instant, all: Vec<Subscription>) {
        self.loaded = true;
        for mut row in all.into_iter().take(limits::SUBSCRIPTIONS) {
            row.local_cseq = row.local_cseq.saturating_add(RESTART_SKIP);
            row.version = row.version.saturating_add(RESTART_SKIP);
            let expires = row.expires;
            let id = self.watches.add(row, None);
            self.timers.arm(Timer::Expires(id), expires);
        }
        self.look_round(now);
    }

    /// The next presentities in their order, and around again.
    pub(super) fn look_round(&mut self, now: Instant) {
        if self.looking || !self.loaded {
            return;
        }
        let from = match self.looked.take() {
            Some(last) => Bound::Excluded(last),
            None => Bound::Unbounded,
        };
        let of: Vec<Aor> = self
            .watches
            .by_presentity
            .range((from, Bound::Unbounded))
            .take(LOOK_BATCH)
            .map(|(aor, _)| aor.clone())
            .collect();
        if of.len() == LOOK_BATCH {
            self.looked = of.last().cloned();
        }
        if !of.is_empty() {
            self.looking = true;
            self.ask_rows(now, rows::Query::States { of, now }, Asked::Look { round: true });
        }
    }

    /// One presentity, at once: it was changed, or there is a new watcher.
    pub(super) fn look_soon(&mut self, now: Instant, presentity: &Aor) {
        if self.watches.by_presentity.contains_key(presentity) && self.uas.may_ask(self.asked.len()) {
            let query = rows::Query::States { of: vec![presentity.clone()], now };
            self.ask_rows(now, query, Asked::Look { round: false });
        }
    }

    /// What the store has of a presentity: whoever was told something else is told.
    pub(super) fn look(&mut self, now: Instant, state: &State) {
        let Some(ids) = self.watches.by_presentity.get(&state.presentity) else { return };
        let ids: Vec<WatchId> = ids.iter().copied().collect();
        let documents = Package::ALL.map(|package| (package, document::compose(package, state)));
        for id in ids {
            let Some(watch) = self.watches.get_mut(id) else { continue };
            let Some((_, document)) = documents.iter().find(|(package, _)| *package == watch.row.package)
            else {
                continue;
            };
            if watch.ending.is_none() && watch.sent.as_ref() != Some(document) {
                watch.sent = Some(document.clone());
                watch.next = Some(Some(document.clone()));
                self.go_on(now, id);
            }
        }
    }

    /// It ends: one look more, and one NOTIFY.
    pub(super) fn last(&mut self, now: Instant, id: WatchId) {
        let Some(watch) = self.watches.get_mut(id) else { return };
        watch.ending = Some(Reason::Timeout);
        let presentity = watch.row.presentity.clone();
        self.watches.close(id);
        self.timers.disarm(Timer::Expires(id));
        self.counted.remove(&id);
        self.ask_rows(now, rows::Query::States { of: vec![presentity], now }, Asked::Last(id));
    }

    pub(super) fn tell_last(&mut self, now: Instant, id: WatchId, state: Option<&State>) {
        let Some(watch) = self.watches.get_mut(id) else { return };
        watch.next = Some(state.map(|state| document::compose(watch.row.package, state)));
        self.go_on(now, id);
    }

    /// Its time is over without a refresh.
    pub(super) fn expired(&mut self, now: Instant, id: WatchId) {
        let Some(watch) = self.watches.get(id) else { return };
        if watch.row.expires > now {
            self.timers.arm(Timer::Expires(id), watch.row.expires);
            return;
        }
        self.gone.push(watch.row.key.clone());
        self.uas.event(event(Level::Info, "expired", &watch.row));
        self.last(now, id);
    }

    /// Sends what waits, unless something is under way.
    fn go_on(&mut self, now: Instant, id: WatchId) {
        let Some(watch) = self.watches.get_mut(id) else { return };
        if watch.busy != Busy::No || watch.next.is_none() {
            return;
        }
        match notify::way(&self.config, &watch.row, watch.flow).hop {
            Hop::Target(target) => self.send(now, id, target),
            Hop::Host { host, port, transport: _ } => {
                watch.busy = Busy::Resolving;
                self.ask(now, Question::Resolve { host, port }, Asked::Resolve { watch: id });
            }
            Hop::Nowhere(why) => self.failed(id, 503, why, true),
        }
    }

    pub(super) fn resolved(&mut self, now: Instant, id: WatchId, found: Option<SocketAddr>) {
        let Some(watch) = self.watches.get_mut(id) else { return };
        watch.busy = Busy::No;
        let Hop::Host { transport, .. } = notify::way(&self.config, &watch.row, watch.flow).hop else {
            return self.go_on(now, id);
        };
        let Some(found) = found else {
            return self.failed(id, 503, "its host has no address", false);
        };
        match notify::address(&self.config, &watch.row, transport, found) {
            Hop::Target(target) => self.send(now, id, target),
            Hop::Host { .. } => {}
            Hop::Nowhere(why) => self.failed(id, 503, why, true),
        }
    }

    fn send(&mut self, now: Instant, id: WatchId, target: Target) {
        let branch = self.uas.layer.branch(&mut self.uas.rng);
        let listener = match target {
            Target::Flow(flow) => flow.listener,
            Target::Address { listener, .. } => listener,
        };
        let Some(watch) = self.watches.get_mut(id) else { return };
        let Some(listener) = self.config.listeners.iter().find(|l| l.id == listener) else { return };
        let Some(next) = watch.next.take() else { return };
        watch.row.local_cseq = watch.row.local_cseq.saturating_add(1);
        let version = watch.row.version;
        watch.row.version = version.saturating_add(1);
        let way = notify::way(&self.config, &watch.row, watch.flow);
        let notify = Notify {
            row: &watch.row,
            uri: &way.uri,
            routes: &way.routes,
            listener,
            remote: target.remote(),
            branch: &branch,
            ending: watch.ending,
            document: next.map(|next| (watch.row.package.content_type(), next.with_version(version))),
        };
        let data = notify.write(now);
        match self.uas.layer.send_request(now, target, "NOTIFY", &branch, data.into()) {
            Some(client) => {
                watch.busy = Busy::Notified;
                if watch.ending.is_none() {
                    self.counted.insert(id);
                }
                self.notifies.insert(client, id);
            }
            None => self.failed(id, 503, "too many transactions", false),
        }
    }

    /// The final answer to a NOTIFY; 408 for none, 503 where it could not be sent.
    pub(super) fn notified(&mut self, now: Instant, client: ClientId, status: u16) {
        let Some(id) = self.notifies.remove(&client) else { return };
        let Some(watch) = self.watches.get_mut(id) else { return };
        watch.busy = Busy::No;
        if (200..300).contains(&status) {
            if watch.ending.is_some() && watch.next.is_none() {
                self.watches.by_id.remove(&id);
                return;
            }
            return self.go_on(now, id);
        }
        // RFC 6665 §4.2.2 and RFC 5057 §5.1: the watcher is not there, or wants nothing more. Nobody else is touched.
        let ends = matches!(status, 404 | 405 | 408 | 410 | 416 | 430 | 480..=485 | 489 | 501 | 604);
        self.failed(id, status, crate::sip::status::reason(status), ends);
    }

    /// A NOTIFY did not arrive. `ends`: neither will another.
    fn failed(&mut self, id: WatchId, status: u16, why: &str, ends: bool) {
        let Some(watch) = self.watches.get_mut(id) else { return };
        let notice = event(Level::Warn, "notify-failed", &watch.row)
            .with("status", status)
            .with("reason", why)
            .with("ends", ends || watch.ending.is_some());
        self.uas.event(notice);
        if ends || watch.ending.is_some() {
            if watch.ending.is_none() {
                self.gone.push(watch.row.key.clone());
                self.watches.close(id);
            }
            self.timers.disarm(Timer::Expires(id));
            self.counted.remove(&id);
            self.watches.by_id.remove(&id);
        } else {
            // The next look finds that he was not told.
            watch.next = None;
            watch.sent = None;
        }
    }

    /// Writes the numbers that were used, and removes the rows of those that ended.
    pub(super) fn tidy(&mut self, now: Instant) {
        while !self.counted.is_empty() {
            let ids: Vec<WatchId> = self.counted.iter().copied().take(TIDY_BATCH).collect();
            let mut counted = Vec::with_capacity(ids.len());
            for id in ids {
                self.counted.remove(&id);
                if let Some(watch) = self.watches.get(id) {
                    counted.push((watch.row.key.clone(), watch.row.local_cseq, watch.row.version));
                }
            }
            self.ask_rows(now, rows::Query::Counted(counted), Asked::Tidy);
        }
        while !self.gone.is_empty() {
            let rest = self.gone.split_off(self.gone.len().min(TIDY_BATCH));
            let keys = std::mem::replace(&mut self.gone, rest);
            self.ask_rows(now, rows::Query::Unsubscribe(keys), Asked::Tidy);
        }
        // A row that could not be removed now expires by itself, and goes then.
    }
}
