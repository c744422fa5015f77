//! The store that tests run on, and that says what the others must do.
//!
//! Goes in: a [`Query`]. Comes out: its [`Reply`], at once. Not here: durability.

use super::{Binding, Change, Query, Refusal, Reply, Save, Saved, Secret, plan, presence};
use crate::sip::Aor;
use crate::time::Instant;
use std::collections::BTreeMap;

/// Users, bindings and domains in maps.
#[derive(Debug, Default, Clone)]
pub struct Memory {
    users: BTreeMap<Aor, Secret>,
    bindings: BTreeMap<Aor, Vec<Binding>>,
    domains: Vec<String>,
    presence: presence::Tables,
}

impl Memory {
    pub fn new() -> Self {
        Memory::default()
    }

    /// Adds a row of `domain`.
    pub fn add_domain(&mut self, domain: &str) {
        self.domains.push(domain.to_ascii_lowercase());
    }

    pub fn ask(&mut self, query: Query) -> Reply {
        match query {
            Query::Secret { user, domain } => Reply::Secret(self.users.get(&aor(user, domain)).cloned()),
            Query::Bindings { aor, now } => {
                Reply::Bindings(plan::live(self.bindings.get(&aor).cloned().unwrap_or_default(), now))
            }
            Query::Save(save) => self.save(*save),
            Query::RemoveFlow { aor: of, token, now } => self.take(now, |aor, row| {
                *aor == of && row.path.as_deref().is_some_and(|path| plan::path_has_token(path, &token))
            }),
            Query::Expire { now, limit } => {
                let mut left = limit;
                let mut gone = Vec::new();
                for (aor, rows) in &mut self.bindings {
                    rows.retain(|row| {
                        let goes = row.expires <= now && left > 0;
                        if goes {
                            left -= 1;
                            gone.push((aor.clone(), row.clone()));
                        }
                        !goes
                    });
                }
                Reply::Removed(gone)
            }
            Query::RemoveBindings { aor: of, now } => self.take(now, |aor, _| *aor == of),
            Query::RemoveContact { contact, now } => self.take(now, |_, row| row.contact == contact),
            Query::Contacts { aor: of, now } => {
                let mut all = Vec::new();
                for (aor, rows) in &self.bindings {
                    if of.as_ref().is_none_or(|of| of == aor) {
                        all.extend(plan::live(rows.clone(), now).into_iter().map(|row| (aor.clone(), row)));
                    }
                }
                Reply::Contacts(all)
            }
            Query::Domains => Reply::Domains(self.domains.clone()),
            Query::UserAdd { user, domain, secret } => {
                let aor = aor(user, domain);
                if self.users.contains_key(&aor) {
                    return Reply::Refused(Refusal::UserExists);
                }
                self.users.insert(aor, secret);
                Reply::Done
            }
            Query::UserPassword { user, domain, secret } => match self.users.get_mut(&aor(user, domain)) {
                Some(known) => {
                    *known = secret;
                    Reply::Done
                }
                None => Reply::Refused(Refusal::NoSuchUser),
            },
            Query::UserRemove { user, domain } => {
                let aor = aor(user, domain);
                self.bindings.remove(&aor);
                match self.users.remove(&aor) {
                    Some(_) => Reply::Done,
                    None => Reply::Refused(Refusal::NoSuchUser),
                }
            }
            Query::Presence(query) => {
                let bindings = &self.bindings;
                let registered = |aor: &Aor, now| {
                    bindings.get(aor).is_some_and(|rows| rows.iter().any(|row| row.expires > now))
                };
                Reply::Presence(self.presence.ask(query, registered))
            }
            Query::Users { of } => Reply::Users(
                self.users
                    .keys()
                    .filter(|aor| {
                        of.as_ref().is_none_or(|of| {
                            of.domain == aor.domain && (of.user.is_empty() || of.user == aor.user)
                        })
                    })
                    .cloned()
                    .collect(),
            ),
        }
    }

    fn save(&mut self, save: Save) -> Reply {
        let rows = self.bindings.entry(save.aor.clone()).or_default();
        let changes = match plan::save(rows, &save) {
            Ok(changes) => changes,
            Err(refusal) => return Reply::Refused(refusal),
        };
        for (change, binding) in &changes {
            rows.retain(|row| row.ruid != binding.ruid);
            match change {
                Change::Added | Change::Refreshed => rows.push(binding.clone()),
                Change::Removed | Change::Replaced => {}
            }
        }
        Reply::Saved(Saved { bindings: plan::live(rows.clone(), save.now), changes })
    }

    /// Takes out what matches; tells those that were live.
    fn take(&mut self, now: Instant, matches: impl Fn(&Aor, &Binding) -> bool) -> Reply {
        let mut gone = Vec::new();
        for (aor, rows) in &mut self.bindings {
            rows.retain(|row| {
                let goes = matches(aor, row);
                if goes && row.expires > now {
                    gone.push((aor.clone(), row.clone()));
                }
                !goes
            });
        }
        Reply::Removed(gone)
    }
}

fn aor(user: String, domain: String) -> Aor {
    Aor { user, domain: domain.to_ascii_lowercase() }
}
