//! Watchers and publications in Kamailio's tables: `presentity`, `active_watchers`, `watchers`.
//!
//! Kamailio 5.6's columns and their meaning: times are Unix seconds in integers; `to_tag` is ours and `from_tag` the watcher's;
//! `presentity_uri` is `sip:USER@DOMAIN`; `updated` is -1 where no NOTIFY is owed. In: a [`Query`], and a connection. Out: its
//! [`Reply`]. As in `tables`, what a database compares loosely is compared again here. Not here: transactions (`session`), what
//! a PUBLISH does (`core`, `store::presence`).

use super::sql::{Fault, Result, Row, Sql, Value, values};
use super::tables::is_registered;
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

/// What names a subscription's row.
const DIALOG: &str = "callid = ? AND to_tag = ? AND from_tag = ?";

fn dialog(key: &DialogKey) -> [Value; 3] {
    [(&key.call_id).into(), (&key.local_tag).into(), (&key.remote_tag).into()]
}

/// Rounded up: what is live for a part of a second is live.
fn seconds(at: Instant) -> i64 {
    at.0.div_ceil(1_000_000) as i64
}

fn whole_seconds(at: Instant) -> i64 {
    at.unix_secs() as i64
}

fn instant(seconds: i64) -> Instant {
    Instant::from_secs(seconds.max(0) as u64)
}

fn uri(aor: &Aor) -> String {
    format!("sip:{aor}")
}

/// None where it is not one of ours: another package, or no SIP address.
fn subscription(row: &Row) -> Option<Subscription> {
    Some(Subscription {
        key: DialogKey { local_tag: row.text(7), remote_tag: row.text(8), call_id: row.text(9) },
        presentity: Aor::parse(&row.text(0))?,
        package: Package::parse(row.text(5).as_bytes())?,
        event_id: row.some(6),
        watcher: Aor { user: row.text(1), domain: row.text(2) },
        to: Aor { user: row.text(3), domain: row.text(4) },
        local_cseq: row.count(10),
        remote_cseq: row.count(11),
        contact: row.text(12),
        record_route: row.some(13),
        expires: instant(row.int(14)),
        version: row.count(15),
        socket: row.text(16),
        local_contact: row.text(17),
        user_agent: row.text(18),
    })
}

fn publication(row: &Row) -> Option<Publication> {
    Some(Publication {
        presentity: Aor { user: row.text(0), domain: row.text(1).to_ascii_lowercase() },
        package: Package::parse(row.text(2).as_bytes())?,
        etag: row.text(3),
        expires: instant(row.int(4)),
        received: instant(row.int(5)),
        body: row.bytes(6),
        sender: row.text(7),
    })
}

fn publications(sql: &mut dyn Sql, of: Option<&Aor>, now: Instant) -> Result<Vec<Publication>> {
    let now = whole_seconds(now);
    let all = format!("SELECT {PUBLICATION} FROM presentity WHERE expires > ?");
    let rows = match of {
        Some(of) => {
            sql.rows(&format!("{all} AND username = ? AND domain = ?"), values![now, &of.user, &of.domain])?
        }
        // No index helps here, and every row is looked at: that is for people.
        None => sql.rows(&all, values![now])?,
    };
    let mut found: Vec<Publication> = rows.iter().filter_map(publication).collect();
    found.retain(|row| of.is_none_or(|of| row.presentity == *of));
    found.sort_by(Publication::order);
    Ok(found)
}

/// A query that changes nothing.
pub(super) fn read(sql: &mut dyn Sql, query: &Query) -> Result<Reply> {
    Ok(match query {
        Query::Subscriptions { of, now } => {
            let all = format!("SELECT {SUBSCRIPTION} FROM active_watchers WHERE expires > ? AND status = ?");
            let (now, most) = (whole_seconds(*now), limits::SUBSCRIPTIONS as i64);
            let rows = match of {
                Some(of) => sql.rows(
                    &format!("{all} AND presentity_uri = ? LIMIT ?"),
                    values![now, ACTIVE, uri(of), most],
                )?,
                None => sql.rows(&format!("{all} LIMIT ?"), values![now, ACTIVE, most])?,
            };
            let mut found: Vec<Subscription> = rows.iter().filter_map(subscription).collect();
            found.retain(|row| of.as_ref().is_none_or(|of| row.presentity == *of));
            found.sort_by(Subscription::order);
            Reply::Subscriptions(found)
        }
        Query::Publications { of, now } => Reply::Publications(publications(sql, of.as_ref(), *now)?),
        Query::States { of, now } => {
            let mut states = Vec::with_capacity(of.len());
            for presentity in of {
                states.push(State {
                    publications: publications(sql, Some(presentity), *now)?,
                    registered: is_registered(sql, presentity, *now)?,
                    presentity: presentity.clone(),
                });
            }
            Reply::States(states)
        }
        Query::Subscribe { .. }
        | Query::Counted(_)
        | Query::Unsubscribe(_)
        | Query::Publish(_)
        | Query::Expire { .. } => {
            return Err(Fault::Statement("a change was asked of the reader".to_owned()));
        }
    })
}

/// One change, in a transaction.
pub(super) fn change(sql: &mut dyn Sql, query: &Query) -> Result<Reply> {
    match query {
        Query::Subscribe { row, now } => subscribe(sql, row, *now)?,
        Query::Counted(counted) => {
            let text = format!("UPDATE active_watchers SET local_cseq = ?, version = ? WHERE {DIALOG}");
            for (key, cseq, version) in counted {
                let [call_id, local_tag, remote_tag] = dialog(key);
                sql.run(&text, values![*cseq, *version, call_id, local_tag, remote_tag])?;
            }
        }
        Query::Unsubscribe(keys) => {
            for key in keys {
                unsubscribe(sql, key)?;
            }
        }
        Query::Publish(wanted) => return published(sql, wanted),
        Query::Expire { now, limit } => {
            let (before, limit) = (whole_seconds(*now), *limit as i64);
            let text = "SELECT callid, to_tag, from_tag FROM active_watchers WHERE expires < ? LIMIT ?";
            for row in sql.rows(text, values![before, limit])? {
                let key = DialogKey { call_id: row.text(0), local_tag: row.text(1), remote_tag: row.text(2) };
                unsubscribe(sql, &key)?;
            }
            let text = "SELECT id FROM presentity WHERE expires < ? LIMIT ?";
            for row in sql.rows(text, values![before, limit])? {
                // The condition again: it may have been refreshed since.
                sql.run("DELETE FROM presentity WHERE id = ? AND expires < ?", values![row.int(0), before])?;
            }
        }
        Query::Subscriptions { .. } | Query::Publications { .. } | Query::States { .. } => {
            return read(sql, query);
        }
    }
    Ok(Reply::Done)
}

fn subscribe(sql: &mut dyn Sql, row: &Subscription, now: Instant) -> Result<()> {
    sql.run(&format!("DELETE FROM active_watchers WHERE {DIALOG}"), &dialog(&row.key))?;
    sql.run(
        &format!(
            "INSERT INTO active_watchers ({SUBSCRIPTION}, status, reason, from_user, from_domain, updated, updated_winfo, flags) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, 0)"
        ),
        values![
            uri(&row.presentity),
            &row.watcher.user,
            &row.watcher.domain,
            &row.to.user,
            &row.to.domain,
            row.package.as_str(),
            row.event_id.as_deref().unwrap_or_default(),
            &row.key.local_tag,
            &row.key.remote_tag,
            &row.key.call_id,
            row.local_cseq,
            row.remote_cseq,
            &row.contact,
            row.record_route.as_deref().unwrap_or_default(),
            seconds(row.expires),
            row.version,
            &row.socket,
            &row.local_contact,
            &row.user_agent,
            ACTIVE,
            &row.watcher.user,
            &row.watcher.domain,
            NOTHING_OWED,
            NOTHING_OWED,
        ],
    )?;
    let mark = values![
        uri(&row.presentity),
        &row.watcher.user,
        &row.watcher.domain,
        row.package.as_str(),
        ACTIVE,
        whole_seconds(now),
    ];
    if sql.rows(&format!("SELECT id FROM watchers WHERE {WATCHES}"), &mark[..4])?.is_empty() {
        sql.run(
            "INSERT INTO watchers (presentity_uri, watcher_username, watcher_domain, event, status, inserted_time) \
             VALUES (?, ?, ?, ?, ?, ?)",
            mark,
        )?;
    }
    Ok(())
}

/// Who watches whom, in `watchers` and `active_watchers`.
const WATCHES: &str = "presentity_uri = ? AND watcher_username = ? AND watcher_domain = ? AND event = ?";

/// The row goes, and with the watcher's last one what says that he watches.
fn unsubscribe(sql: &mut dyn Sql, key: &DialogKey) -> Result<()> {
    let text = format!(
        "SELECT presentity_uri, watcher_username, watcher_domain, event FROM active_watchers WHERE {DIALOG}"
    );
    let known = sql.rows(&text, &dialog(key))?;
    sql.run(&format!("DELETE FROM active_watchers WHERE {DIALOG}"), &dialog(key))?;
    for row in known {
        let watches = values![row.text(0), row.text(1), row.text(2), row.text(3), ACTIVE];
        let others = format!("SELECT id FROM active_watchers WHERE {WATCHES} LIMIT 1");
        if sql.rows(&others, &watches[..4])?.is_empty() {
            sql.run(&format!("DELETE FROM watchers WHERE {WATCHES} AND status = ?"), watches)?;
        }
    }
    Ok(())
}

fn published(sql: &mut dyn Sql, wanted: &Publish) -> Result<Reply> {
    const ROWS: &str = "username = ? AND domain = ? AND event = ?";
    let Publish { presentity, package, .. } = wanted;
    let whose = values![&presentity.user, &presentity.domain, package.as_str()];
    let text = format!("SELECT {PUBLICATION} FROM presentity WHERE {ROWS}{}", sql.dialect().lock);
    let mut rows: Vec<Publication> = sql.rows(&text, whose)?.iter().filter_map(publication).collect();
    rows.retain(|row| row.presentity == *presentity);
    let changes = match publish(&rows, wanted) {
        Ok(changes) => changes,
        Err(refusal) => return Ok(Reply::Refused(refusal)),
    };
    let gone = format!("DELETE FROM presentity WHERE {ROWS} AND etag = ?");
    let insert =
        format!("INSERT INTO presentity ({PUBLICATION}, priority) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
    for change in changes {
        let [user, domain, event] = [&whose[0], &whose[1], &whose[2]].map(Value::clone);
        match change {
            Change::Remove(etag) => sql.run(&gone, values![user, domain, event, etag])?,
            Change::Write(row) => {
                let received = whole_seconds(row.received);
                sql.run(&gone, values![user.clone(), domain.clone(), event.clone(), &row.etag])?;
                sql.run(
                    &insert,
                    values![
                        user,
                        domain,
                        event,
                        row.etag,
                        seconds(row.expires),
                        received,
                        Value::Bytes(row.body),
                        row.sender,
                        // As Kamailio's: the later one counts more.
                        received,
                    ],
                )?;
            }
        }
    }
    Ok(Reply::Done)
}
