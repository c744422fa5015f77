//! Watchers and publications in SQLite: `presentity`, `active_watchers`, `watchers`.
//!
//! Kamailio 5.6's columns and their meaning: times are Unix seconds in integers; `to_tag` is ours and `from_tag` the watcher's;
//! `presentity_uri` is `sip:USER@DOMAIN`; `updated` is -1 where no NOTIFY is owed. In: a [`Query`]. Out: its [`Reply`]. Not here:
//! transactions (`sqlite`), what a PUBLISH does (`core`, `store::presence`).

use super::sqlite::rows_of;
use rusqlite::{Connection, Result, Row, params};
use sipbox_core::limits;
use sipbox_core::sip::Aor;
use sipbox_core::store::presence::{
    Change, DialogKey, Package, Publication, Publish, Query, Reply, State, Subscription, publish,
};
use sipbox_core::time::Instant;

/// Kamailio's ACTIVE_STATUS.
const ACTIVE: i64 = 1;
/// Kamailio's NO_UPDATE_TYPE.
const NOTHING_OWED: i64 = -1;

const SUBSCRIPTION: &str = "presentity_uri, watcher_username, watcher_domain, to_user, to_domain, event, event_id, to_tag, from_tag, callid, \
     local_cseq, remote_cseq, contact, record_route, expires, version, socket_info, local_contact, user_agent";

const PUBLICATION: &str = "username, domain, event, etag, expires, received_time, body, sender";

/// Rounded up: what is live for a part of a second is live.
fn seconds(at: Instant) -> i64 {
    at.0.div_ceil(1_000_000) as i64
}

fn instant(seconds: i64) -> Instant {
    Instant::from_secs(seconds.max(0) as u64)
}

fn number(row: &Row<'_>, index: usize) -> Result<u32> {
    Ok(row.get::<_, i64>(index)?.clamp(0, i64::from(u32::MAX)) as u32)
}

/// None where it is not one of ours: another package, or no SIP address.
fn subscription(row: &Row<'_>) -> Result<Option<Subscription>> {
    let some = |index| row.get::<_, Option<String>>(index).map(|text| text.filter(|text| !text.is_empty()));
    let (Some(presentity), Some(package)) =
        (Aor::parse(&row.get::<_, String>(0)?), Package::parse(row.get::<_, String>(5)?.as_bytes()))
    else {
        return Ok(None);
    };
    Ok(Some(Subscription {
        key: DialogKey { local_tag: row.get(7)?, remote_tag: row.get(8)?, call_id: row.get(9)? },
        presentity,
        package,
        event_id: some(6)?,
        watcher: Aor { user: row.get(1)?, domain: row.get(2)? },
        to: Aor { user: row.get(3)?, domain: row.get(4)? },
        local_cseq: number(row, 10)?,
        remote_cseq: number(row, 11)?,
        contact: row.get(12)?,
        record_route: some(13)?,
        expires: instant(row.get(14)?),
        version: number(row, 15)?,
        socket: row.get(16)?,
        local_contact: row.get(17)?,
        user_agent: some(18)?.unwrap_or_default(),
    }))
}

fn publication(row: &Row<'_>) -> Result<Option<Publication>> {
    let Some(package) = Package::parse(row.get::<_, String>(2)?.as_bytes()) else { return Ok(None) };
    let body = match row.get_ref(6)? {
        rusqlite::types::ValueRef::Text(bytes) | rusqlite::types::ValueRef::Blob(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    };
    Ok(Some(Publication {
        presentity: Aor { user: row.get(0)?, domain: row.get::<_, String>(1)?.to_ascii_lowercase() },
        package,
        etag: row.get(3)?,
        expires: instant(row.get(4)?),
        received: instant(row.get(5)?),
        body,
        sender: row.get(7)?,
    }))
}

fn publications(connection: &Connection, of: Option<&Aor>, now: Instant) -> Result<Vec<Publication>> {
    let (user, domain) = (of.map(|of| &of.user), of.map(|of| &of.domain));
    // Without an address the index is not used, and every row is looked at: that is for people.
    let sql = match of {
        Some(_) => format!(
            "SELECT {PUBLICATION} FROM presentity WHERE username = ?1 AND domain = ?2 AND expires > ?3 \
             ORDER BY event DESC, received_time, etag"
        ),
        None => format!(
            "SELECT {PUBLICATION} FROM presentity WHERE ?1 IS NULL AND ?2 IS NULL AND expires > ?3 \
             ORDER BY username, domain, event DESC, received_time, etag"
        ),
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![user, domain, now.unix_secs() as i64], publication)?;
    rows.filter_map(Result::transpose).collect()
}

pub(super) fn read(connection: &Connection, query: &Query) -> Result<Reply> {
    Ok(match query {
        Query::Subscriptions { of, now } => {
            let sql = format!(
                "SELECT {SUBSCRIPTION} FROM active_watchers WHERE (?1 IS NULL OR presentity_uri = ?1) AND expires > ?2 \
                 AND status = ?3 ORDER BY presentity_uri, callid, to_tag, from_tag LIMIT ?4"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let of = of.as_ref().map(uri);
            let most = limits::SUBSCRIPTIONS as i64;
            let rows =
                statement.query_map(params![of, now.unix_secs() as i64, ACTIVE, most], subscription)?;
            Reply::Subscriptions(rows.filter_map(Result::transpose).collect::<Result<_>>()?)
        }
        Query::Publications { of, now } => Reply::Publications(publications(connection, of.as_ref(), *now)?),
        Query::States { of, now } => {
            let mut states = Vec::with_capacity(of.len());
            for presentity in of {
                states.push(State {
                    publications: publications(connection, Some(presentity), *now)?,
                    registered: rows_of(connection, presentity)?
                        .iter()
                        .any(|(_, _, binding)| binding.expires > *now),
                    presentity: presentity.clone(),
                });
            }
            Reply::States(states)
        }
        Query::Subscribe { .. }
        | Query::Counted(_)
        | Query::Unsubscribe(_)
        | Query::Publish(_)
        | Query::Expire { .. } => return Err(rusqlite::Error::InvalidQuery),
    })
}

fn uri(aor: &Aor) -> String {
    format!("sip:{aor}")
}

/// One change, in a write transaction.
pub(super) fn change(connection: &Connection, query: &Query) -> Result<Reply> {
    match query {
        Query::Subscribe { row, now } => subscribe(connection, row, *now)?,
        Query::Counted(counted) => {
            let mut statement = connection.prepare_cached(
                "UPDATE active_watchers SET local_cseq = ?4, version = ?5 \
                 WHERE callid = ?1 AND to_tag = ?2 AND from_tag = ?3",
            )?;
            for (key, cseq, version) in counted {
                statement.execute(params![key.call_id, key.local_tag, key.remote_tag, cseq, version])?;
            }
        }
        Query::Unsubscribe(keys) => {
            for key in keys {
                unsubscribe(connection, key)?;
            }
        }
        Query::Publish(wanted) => return published(connection, wanted),
        Query::Expire { now, limit } => {
            let (before, limit) = (now.unix_secs() as i64, *limit as i64);
            let keys: Vec<DialogKey> = connection
                .prepare_cached(
                    "SELECT callid, to_tag, from_tag FROM active_watchers WHERE expires < ?1 LIMIT ?2",
                )?
                .query_map([before, limit], |row| {
                    Ok(DialogKey { call_id: row.get(0)?, local_tag: row.get(1)?, remote_tag: row.get(2)? })
                })?
                .collect::<Result<_>>()?;
            for key in &keys {
                unsubscribe(connection, key)?;
            }
            connection
                .prepare_cached(
                    "DELETE FROM presentity WHERE id IN (SELECT id FROM presentity WHERE expires < ?1 LIMIT ?2)",
                )?
                .execute([before, limit])?;
        }
        Query::Subscriptions { .. } | Query::Publications { .. } | Query::States { .. } => {
            return read(connection, query);
        }
    }
    Ok(Reply::Done)
}

fn subscribe(connection: &Connection, row: &Subscription, now: Instant) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM active_watchers WHERE callid = ?1 AND to_tag = ?2 AND from_tag = ?3")?
        .execute(params![row.key.call_id, row.key.local_tag, row.key.remote_tag])?;
    let sql = format!(
        "INSERT INTO active_watchers ({SUBSCRIPTION}, status, reason, from_user, from_domain, updated, updated_winfo, flags) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, NULL, ?2, ?3, ?21, ?21, 0)"
    );
    connection.prepare_cached(&sql)?.execute(params![
        uri(&row.presentity),
        row.watcher.user,
        row.watcher.domain,
        row.to.user,
        row.to.domain,
        row.package.as_str(),
        row.event_id.as_deref().unwrap_or_default(),
        row.key.local_tag,
        row.key.remote_tag,
        row.key.call_id,
        row.local_cseq,
        row.remote_cseq,
        row.contact,
        row.record_route.as_deref().unwrap_or_default(),
        seconds(row.expires),
        row.version,
        row.socket,
        row.local_contact,
        row.user_agent,
        ACTIVE,
        NOTHING_OWED,
    ])?;
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO watchers (presentity_uri, watcher_username, watcher_domain, event, status, inserted_time) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            uri(&row.presentity),
            row.watcher.user,
            row.watcher.domain,
            row.package.as_str(),
            ACTIVE,
            now.unix_secs() as i64,
        ])?;
    Ok(())
}

/// The row goes, and with the watcher's last one what says that he watches.
fn unsubscribe(connection: &Connection, key: &DialogKey) -> Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM watchers WHERE status = ?4 AND id IN (SELECT w.id FROM watchers w JOIN active_watchers a ON \
             w.presentity_uri = a.presentity_uri AND w.watcher_username = a.watcher_username AND \
             w.watcher_domain = a.watcher_domain AND w.event = a.event \
             WHERE a.callid = ?1 AND a.to_tag = ?2 AND a.from_tag = ?3 AND NOT EXISTS (SELECT 1 FROM active_watchers o \
             WHERE o.presentity_uri = a.presentity_uri AND o.watcher_username = a.watcher_username AND \
             o.watcher_domain = a.watcher_domain AND o.event = a.event AND o.id <> a.id))",
        )?
        .execute(params![key.call_id, key.local_tag, key.remote_tag, ACTIVE])?;
    connection
        .prepare_cached("DELETE FROM active_watchers WHERE callid = ?1 AND to_tag = ?2 AND from_tag = ?3")?
        .execute(params![key.call_id, key.local_tag, key.remote_tag])?;
    Ok(())
}

fn published(connection: &Connection, wanted: &Publish) -> Result<Reply> {
    let Publish { presentity, package, .. } = wanted;
    let sql =
        format!("SELECT {PUBLICATION} FROM presentity WHERE username = ?1 AND domain = ?2 AND event = ?3");
    let rows: Vec<Publication> = connection
        .prepare_cached(&sql)?
        .query_map(params![presentity.user, presentity.domain, package.as_str()], publication)?
        .filter_map(Result::transpose)
        .collect::<Result<_>>()?;
    let changes = match publish(&rows, wanted) {
        Ok(changes) => changes,
        Err(refusal) => return Ok(Reply::Refused(refusal)),
    };
    for change in changes {
        match change {
            Change::Remove(etag) => {
                connection
                    .prepare_cached(
                        "DELETE FROM presentity WHERE username = ?1 AND domain = ?2 AND event = ?3 AND etag = ?4",
                    )?
                    .execute(params![presentity.user, presentity.domain, package.as_str(), etag])?;
            }
            Change::Write(row) => {
                let sql = format!(
                    "INSERT OR REPLACE INTO presentity ({PUBLICATION}, priority) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
                );
                connection.prepare_cached(&sql)?.execute(params![
                    row.presentity.user,
                    row.presentity.domain,
                    row.package.as_str(),
                    row.etag,
                    seconds(row.expires),
                    row.received.unix_secs() as i64,
                    row.body,
                    row.sender,
                    // As Kamailio's: the later one counts more.
                    row.received.unix_secs() as i64,
                ])?;
            }
        }
    }
    Ok(Reply::Done)
}
