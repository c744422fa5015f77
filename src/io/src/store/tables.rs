//! Users, bindings and domains in Kamailio's tables: `subscriber`, `location`, `domain`.
//!
//! In: a [`Query`], and a connection; for a change, inside of a transaction. Out: its [`Reply`]. `ruid` is computed for every row
//! that is read, so that rows of a Kamailio, which names them otherwise, are found and replaced. A database may compare text
//! loosely (case, trailing spaces): it narrows down by its index, and what it gives is compared here, octet by octet; rows are
//! changed by their `id`. Not here: watchers and publications (`presence`), transactions (`session`), the schema (`schema`),
//! what a REGISTER does to the rows (`core`, `store::plan`).

use super::presence;
use super::sql::{Fault, Result, Row, Sql, Value, signed, values};
use sipbox_core::sip::Aor;
use sipbox_core::store::{self, Binding, Change, Query, Refusal, Reply, Save, Saved, Secret, plan};
use sipbox_core::time::Instant;

/// What a permanent binding of Kamailio's (`expires` is the epoch) counts as.
const NEVER: Instant = Instant(u64::MAX / 2);

const COLUMNS: &str = "id, username, domain, contact, received, path, expires, q, callid, cseq, last_modified, cflags, user_agent, \
     socket, methods, instance, reg_id";

/// A row of `location` with its key and whose it is.
struct Stored {
    id: i64,
    aor: Aor,
    binding: Binding,
}

/// `domain`: what counts for rows of a Kamailio that does not fill that column.
fn stored(sql: &dyn Sql, row: &Row, domain: Option<&str>) -> Stored {
    let aor = Aor {
        user: row.text(1),
        domain: row
            .some(2)
            .map_or_else(|| domain.unwrap_or_default().to_owned(), |domain| domain.to_ascii_lowercase()),
    };
    let contact = row.text(3);
    let expires = sql.time(row.value(6));
    let (instance, reg_id) = (row.some(15), row.count(16));
    let binding = Binding {
        ruid: store::ruid(&aor, instance.as_deref(), reg_id, &contact),
        contact,
        received: row.some(4),
        path: row.some(5),
        expires: if expires == Instant(0) { NEVER } else { expires },
        q: row.real(7).filter(|q| *q >= 0.0).map(|q| (q * 1000.0).round().min(1000.0) as u16),
        call_id: row.text(8),
        cseq: row.count(9),
        modified: sql.time(row.value(10)),
        cflags: row.bits(11).unwrap_or(0),
        user_agent: row.text(12),
        socket: row.some(13),
        methods: row.bits(14),
        instance,
        reg_id,
    };
    Stored { id: row.int(0), aor, binding }
}

/// Rows of `location` under a condition, whoever's they are.
fn rows_where(sql: &mut dyn Sql, condition: &str, values: &[Value]) -> Result<Vec<Stored>> {
    let rows = sql.rows(&format!("SELECT {COLUMNS} FROM location{condition}"), values)?;
    Ok(rows.iter().map(|row| stored(sql, row, None)).collect())
}

/// Those of one address-of-record. `lock`: the dialect's word, where they are about to be changed.
fn rows_of(sql: &mut dyn Sql, aor: &Aor, lock: &str) -> Result<Vec<Stored>> {
    let text = format!(
        "SELECT {COLUMNS} FROM location WHERE username = ? AND (domain = ? OR domain IS NULL OR domain = ''){lock}"
    );
    let rows = sql.rows(&text, values![&aor.user, &aor.domain])?;
    let rows = rows.iter().map(|row| stored(sql, row, Some(&aor.domain)));
    Ok(rows.filter(|row| row.aor == *aor).collect())
}

/// Whether an address-of-record has a binding that lives.
pub(super) fn is_registered(sql: &mut dyn Sql, aor: &Aor, now: Instant) -> Result<bool> {
    Ok(rows_of(sql, aor, "")?.iter().any(|row| row.binding.expires > now))
}

/// A row of `subscriber`: its key, and what is checked.
fn user(sql: &mut dyn Sql, user: &str, domain: &str, lock: &str) -> Result<Option<(i64, Secret)>> {
    let text = format!(
        "SELECT id, username, password, ha1, ha1b FROM subscriber WHERE username = ? AND domain = ?{lock}"
    );
    let rows = sql.rows(&text, values![user, domain.to_ascii_lowercase()])?;
    Ok(rows
        .iter()
        .find(|row| row.text(1) == user)
        .map(|row| (row.int(0), Secret { password: row.text(2), ha1: row.text(3), ha1b: row.text(4) })))
}

/// A query that changes nothing.
pub(super) fn read(sql: &mut dyn Sql, query: &Query) -> Result<Reply> {
    Ok(match query {
        Query::Secret { user: name, domain } => {
            Reply::Secret(user(sql, name, domain, "")?.map(|(_, secret)| secret))
        }
        Query::Bindings { aor, now } => {
            Reply::Bindings(plan::live(rows_of(sql, aor, "")?.into_iter().map(|row| row.binding), *now))
        }
        Query::Contacts { aor, now } => {
            let rows = match aor {
                Some(aor) => rows_of(sql, aor, "")?,
                None => rows_where(sql, "", &[])?,
            };
            let live = rows.into_iter().filter(|row| row.binding.expires > *now);
            let mut all: Vec<(Aor, Binding)> = live.map(|row| (row.aor, row.binding)).collect();
            all.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| plan::order(x, y)));
            Reply::Contacts(all)
        }
        Query::Domains => {
            let rows = sql.rows("SELECT domain FROM domain ORDER BY id", &[])?;
            Reply::Domains(rows.iter().map(|row| row.text(0).to_ascii_lowercase()).collect())
        }
        Query::Users { of } => {
            let all = "SELECT username, domain FROM subscriber";
            let rows = match of {
                None => sql.rows(all, &[])?,
                Some(of) if of.user.is_empty() => {
                    sql.rows(&format!("{all} WHERE domain = ?"), values![&of.domain])?
                }
                Some(of) => sql.rows(
                    &format!("{all} WHERE username = ? AND domain = ?"),
                    values![&of.user, &of.domain],
                )?,
            };
            let mut users: Vec<Aor> =
                rows.iter().map(|row| Aor { user: row.text(0), domain: row.text(1) }).collect();
            users.retain(|aor| of.as_ref().is_none_or(|of| of.user.is_empty() || of.user == aor.user));
            users.sort();
            Reply::Users(users)
        }
        Query::Presence(query) => Reply::Presence(presence::read(sql, query)?),
        Query::Save(_)
        | Query::RemoveFlow { .. }
        | Query::Expire { .. }
        | Query::RemoveBindings { .. }
        | Query::RemoveContact { .. }
        | Query::UserAdd { .. }
        | Query::UserPassword { .. }
        | Query::UserRemove { .. } => {
            return Err(Fault::Statement("a change was asked of the reader".to_owned()));
        }
    })
}

/// One change, in a transaction.
pub(super) fn change(sql: &mut dyn Sql, query: &Query) -> Result<Reply> {
    let lock = sql.dialect().lock;
    Ok(match query {
        Query::Save(wanted) => save(sql, wanted)?,
        Query::RemoveFlow { aor, token, now } => {
            let mut rows = rows_of(sql, aor, lock)?;
            rows.retain(|row| {
                row.binding.path.as_deref().is_some_and(|path| plan::path_has_token(path, token))
            });
            remove(sql, rows, *now)?
        }
        Query::RemoveBindings { aor, now } => {
            let rows = rows_of(sql, aor, lock)?;
            remove(sql, rows, *now)?
        }
        Query::RemoveContact { contact, now } => {
            let mut rows = rows_where(sql, &format!(" WHERE contact = ?{lock}"), values![contact])?;
            rows.retain(|row| row.binding.contact == *contact);
            remove(sql, rows, *now)?
        }
        Query::Expire { now, limit } => expire(sql, *now, *limit)?,
        Query::Presence(query) => Reply::Presence(presence::change(sql, query)?),
        Query::UserAdd { user: name, domain, secret } => {
            if user(sql, name, domain, lock)?.is_some() {
                return Ok(Reply::Refused(Refusal::UserExists));
            }
            sql.run(
                "INSERT INTO subscriber (username, domain, password, ha1, ha1b) VALUES (?, ?, ?, ?, ?)",
                values![name, domain.to_ascii_lowercase(), &secret.password, &secret.ha1, &secret.ha1b],
            )?;
            Reply::Done
        }
        Query::UserPassword { user: name, domain, secret } => {
            let Some((id, _)) = user(sql, name, domain, lock)? else {
                return Ok(Reply::Refused(Refusal::NoSuchUser));
            };
            sql.run(
                "UPDATE subscriber SET password = ?, ha1 = ?, ha1b = ? WHERE id = ?",
                values![&secret.password, &secret.ha1, &secret.ha1b, id],
            )?;
            Reply::Done
        }
        Query::UserRemove { user: name, domain } => {
            let aor = Aor { user: name.clone(), domain: domain.to_ascii_lowercase() };
            for row in rows_of(sql, &aor, lock)? {
                delete(sql, row.id)?;
            }
            let Some((id, _)) = user(sql, name, domain, lock)? else {
                return Ok(Reply::Refused(Refusal::NoSuchUser));
            };
            sql.run("DELETE FROM subscriber WHERE id = ?", values![id])?;
            Reply::Done
        }
        Query::Secret { .. }
        | Query::Bindings { .. }
        | Query::Contacts { .. }
        | Query::Domains
        | Query::Users { .. } => read(sql, query)?,
    })
}

fn save(sql: &mut dyn Sql, save: &Save) -> Result<Reply> {
    let lock = sql.dialect().lock;
    let rows = rows_of(sql, &save.aor, lock)?;
    let bindings: Vec<Binding> = rows.iter().map(|row| row.binding.clone()).collect();
    let changes = match plan::save(&bindings, save) {
        Ok(changes) => changes,
        Err(refusal) => return Ok(Reply::Refused(refusal)),
    };
    for (change, binding) in &changes {
        for row in rows.iter().filter(|row| row.binding.ruid == binding.ruid) {
            delete(sql, row.id)?;
        }
        match change {
            Change::Added | Change::Refreshed => insert(sql, &save.aor, binding)?,
            Change::Removed | Change::Replaced => {}
        }
    }
    let bindings = rows_of(sql, &save.aor, "")?.into_iter().map(|row| row.binding);
    Ok(Reply::Saved(Saved { bindings: plan::live(bindings, save.now), changes }))
}

fn insert(sql: &mut dyn Sql, aor: &Aor, binding: &Binding) -> Result<()> {
    sql.run(
        "INSERT INTO location (ruid, username, domain, contact, received, path, expires, q, callid, cseq, \
         last_modified, cflags, user_agent, socket, methods, instance, reg_id) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values![
            &binding.ruid,
            &aor.user,
            &aor.domain,
            &binding.contact,
            binding.received.as_ref(),
            binding.path.as_ref(),
            // To whole seconds, downwards: Kamailio counts in seconds, and a client must not be told more than he asked for.
            Instant::from_secs(binding.expires.unix_secs()),
            // Kamailio's mark for none.
            Value::Real(binding.q.map_or(-1.0, |q| f64::from(q) / 1000.0)),
            &binding.call_id,
            binding.cseq,
            binding.modified,
            signed(binding.cflags),
            &binding.user_agent,
            binding.socket.as_ref(),
            binding.methods.map(signed),
            binding.instance.as_ref(),
            binding.reg_id,
        ],
    )
}

fn delete(sql: &mut dyn Sql, id: i64) -> Result<()> {
    sql.run("DELETE FROM location WHERE id = ?", values![id])
}

/// Removes rows; tells those that were live.
fn remove(sql: &mut dyn Sql, rows: Vec<Stored>, now: Instant) -> Result<Reply> {
    let mut gone = Vec::new();
    for row in rows {
        delete(sql, row.id)?;
        if row.binding.expires > now {
            gone.push((row.aor, row.binding));
        }
    }
    Ok(Reply::Removed(gone))
}

fn expire(sql: &mut dyn Sql, now: Instant, limit: usize) -> Result<Reply> {
    let dialect = sql.dialect();
    let mut values = sql.expired(now);
    values.push(Value::Int(limit as i64));
    let condition = format!(" WHERE {} ORDER BY expires LIMIT ?{}", dialect.expired, dialect.lock);
    let mut gone = Vec::new();
    for row in rows_where(sql, &condition, &values)? {
        // A local time may stand for a later time than its text says (`local_time`): this one lives still.
        if row.binding.expires <= now {
            delete(sql, row.id)?;
            gone.push((row.aor, row.binding));
        }
    }
    Ok(Reply::Removed(gone))
}
