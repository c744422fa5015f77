//! The check inside the transaction: what a REGISTER does to the bindings that are there.
//!
//! RFC 3261 §10.3 steps 6 and 7, RFC 5626 §6. Goes in: the rows of one address-of-record and a [`Save`]. Comes out: which
//! rows are written and which go, or a [`Refusal`]. Every store runs this one function between its read and its write.
//! Not here: reading and writing.

use super::{Binding, Change, Contacts, Refusal, Save};
use std::cmp::{Ordering, Reverse};

/// What to do to the rows, in order.
pub fn save(rows: &[Binding], wanted: &Save) -> Result<Vec<(Change, Binding)>, Refusal> {
    let live = |row: &&Binding| row.expires > wanted.now;
    // Step 7: a request that was overtaken by a later one of its Call-ID fails as a whole.
    let overtaken = |row: &Binding| row.call_id == wanted.call_id && row.cseq >= wanted.cseq;
    let contacts = match &wanted.contacts {
        Contacts::RemoveAll => {
            if rows.iter().filter(live).any(overtaken) {
                return Err(Refusal::OutOfOrder);
            }
            return Ok(rows.iter().map(|row| (Change::Removed, row.clone())).collect());
        }
        Contacts::Each(contacts) => contacts,
    };
    let mut changes: Vec<(Change, Binding)> = Vec::new();
    for contact in contacts {
        let known = rows.iter().filter(live).find(|row| row.ruid == contact.ruid);
        if known.is_some_and(overtaken) {
            return Err(Refusal::OutOfOrder);
        }
        // The same contact twice in one request: the last one counts.
        changes.retain(|(_, earlier)| earlier.ruid != contact.ruid);
        let remove = contact.expires <= wanted.now;
        match known {
            Some(row) if remove => changes.push((Change::Removed, row.clone())),
            None if remove => {}
            Some(_) => changes.push((Change::Refreshed, contact.clone())),
            None => changes.push((Change::Added, contact.clone())),
        }
    }
    let stays = changes.iter().filter(|(change, _)| *change != Change::Removed).count();
    if stays > wanted.max_contacts {
        return Err(Refusal::TooManyContacts);
    }
    // A phone or browser that comes back under a new Contact must not be locked out by what it left behind: the
    // bindings that were longest without a refresh make room.
    let mut others: Vec<&Binding> =
        rows.iter().filter(live).filter(|row| !changes.iter().any(|(_, c)| c.ruid == row.ruid)).collect();
    if stays > 0 && others.len() + stays > wanted.max_contacts {
        others.sort_by_key(|row| row.modified);
        let excess = others.len() + stays - wanted.max_contacts;
        changes.extend(others.into_iter().take(excess).map(|row| (Change::Replaced, row.clone())));
    }
    Ok(changes)
}

/// Those that live at `now`, in their [`order`].
pub fn live(rows: impl IntoIterator<Item = Binding>, now: crate::time::Instant) -> Vec<Binding> {
    let mut rows: Vec<Binding> = rows.into_iter().filter(|row| row.expires > now).collect();
    rows.sort_by(order);
    rows
}

/// Best `q` first (none counts as 1), then the latest.
pub fn order(a: &Binding, b: &Binding) -> Ordering {
    let key = |row: &Binding| (Reverse(row.q.unwrap_or(1000)), Reverse(row.modified));
    key(a).cmp(&key(b)).then_with(|| a.ruid.cmp(&b.ruid))
}

/// Whether a stored Path has this TOKEN as the user part of one of its URIs.
pub fn path_has_token(path: &str, token: &str) -> bool {
    !token.is_empty()
        && crate::sip::List::new(path.as_bytes()).any(|value| {
            crate::sip::NameAddr::parse(value).is_ok_and(|hop| hop.uri.user == Some(token.as_bytes()))
        })
}
