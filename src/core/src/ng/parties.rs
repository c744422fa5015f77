//! Whose an offer or an answer is: a call's branches, told apart by the tags of their sides and by `via-branch`.
//!
//! In: the tags of a request. Out: which branch, and which side of it. Not here: what a branch sets up (`relay`).

use crate::media::plan::Side;
use crate::time::Instant;

/// One side of a branch.
#[derive(Clone, Debug, Default)]
pub struct Party {
    /// Empty: not known yet.
    pub tag: String,
    /// Tags that a fork answered with before this one; the last [`RELAY_TAGS`](crate::limits::RELAY_TAGS).
    pub former: Vec<String>,
    pub label: Option<String>,
    pub created: Instant,
}

impl Party {
    pub fn has(&self, tag: &str) -> bool {
        !tag.is_empty() && (self.tag == tag || self.former.iter().any(|former| former == tag))
    }

    /// Takes another tag; the one before is still found.
    pub fn rename(&mut self, tag: &str) {
        if self.tag == tag {
            return;
        }
        self.former.retain(|former| former != tag);
        let before = std::mem::replace(&mut self.tag, tag.to_owned());
        if !before.is_empty() {
            if self.former.len() >= crate::limits::RELAY_TAGS {
                self.former.remove(0);
            }
            self.former.push(before);
        }
    }
}

/// The two sides of one branch.
#[derive(Clone, Debug, Default)]
pub struct Parties {
    /// The Via's branch with which a forking proxy offered; none: the call does not fork, or forks unseen.
    pub via_branch: Option<String>,
    pub offerer: Party,
    pub answerer: Party,
}

impl Parties {
    /// Of a first offer.
    pub fn of_offer(from: &str, to: &str, via_branch: Option<&str>) -> Parties {
        let party = |tag: &str| Party { tag: tag.to_owned(), ..Party::default() };
        Parties { via_branch: via_branch.map(str::to_owned), offerer: party(from), answerer: party(to) }
    }

    pub fn party(&self, side: Side) -> &Party {
        match side {
            Side::Offerer => &self.offerer,
            Side::Answerer => &self.answerer,
        }
    }

    /// The side that has this tag, or had it before.
    pub fn side_of(&self, tag: &str) -> Option<Side> {
        if self.offerer.tag == tag {
            Some(Side::Offerer)
        } else if self.answerer.has(tag) {
            Some(Side::Answerer)
        } else {
            None
        }
    }

    pub fn party_mut(&mut self, side: Side) -> &mut Party {
        match side {
            Side::Offerer => &mut self.offerer,
            Side::Answerer => &mut self.answerer,
        }
    }
}

/// The branch that an offer belongs to, and which side of it sends: one with both tags, else one whose answer is still
/// open with this `via-branch` and offerer.
pub fn find_offer<'a>(
    branches: impl Iterator<Item = &'a Parties> + Clone,
    from: &str,
    to: &str,
    via_branch: Option<&str>,
) -> Option<(usize, Side)> {
    of_tags(branches.clone(), from, to).or_else(|| {
        let same = |b: &Parties| b.via_branch.as_deref() == via_branch && b.offerer.tag == from;
        // Without a to-tag it is the first offer again, whether or not somebody answered it by now.
        let open = |b: &Parties| to.is_empty() || b.answerer.tag.is_empty();
        let first = || Some((branches.clone().position(|b| same(b) && open(b))?, Side::Offerer));
        // The other side's offer by its tag alone.
        let back =
            || Some((branches.clone().position(|b| to.is_empty() && b.answerer.has(from))?, Side::Answerer));
        first().or_else(back)
    })
}

/// The branch that an answer belongs to, and which side offered.
pub fn find_answer<'a>(
    branches: impl Iterator<Item = &'a Parties> + Clone,
    from: &str,
    to: &str,
    via_branch: Option<&str>,
) -> Option<(usize, Side)> {
    let offered = |wanted: &dyn Fn(&Parties) -> bool| {
        Some((branches.clone().position(|b| b.offerer.tag == from && wanted(b))?, Side::Offerer))
    };
    of_tags(branches.clone(), from, to)
        .or_else(|| offered(&|b| via_branch.is_some() && b.via_branch.as_deref() == via_branch))
        // A call may fork without branches: another tag answers the same offer.
        .or_else(|| offered(&|b| b.answerer.tag.is_empty()))
        .or_else(|| offered(&|b| via_branch.is_none() && b.via_branch.is_none()))
}

fn of_tags<'a>(
    mut branches: impl Iterator<Item = &'a Parties>,
    from: &str,
    to: &str,
) -> Option<(usize, Side)> {
    if to.is_empty() {
        return None;
    }
    let mut side = None;
    let at = branches.position(|branch| {
        side = branch.side_of(from).filter(|side| branch.party(side.other()).has(to));
        side.is_some()
    })?;
    Some((at, side?))
}
