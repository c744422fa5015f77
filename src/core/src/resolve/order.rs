//! The order of SRV records.
//!
//! RFC 2782: the lowest priority first; within one, each next one by chance, in proportion to the weights; those of weight
//! 0 have a very small chance of coming before others.

use super::Srv;
use crate::rng::Rng;

pub(super) fn by_priority(rng: &mut Rng, mut records: Vec<Srv>) -> Vec<Srv> {
    // Those without weight come first, so that a draw of 0 finds them.
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let same = records.iter().take_while(|record| record.priority == first.priority).count();
        let sum: u32 = records.iter().take(same).map(|record| u32::from(record.weight)).sum();
        let drawn = rng.below(sum.saturating_add(1));
        let mut reached = 0;
        let at = records.iter().take(same).position(|record| {
            reached += u32::from(record.weight);
            reached >= drawn
        });
        ordered.push(records.remove(at.unwrap_or(0)));
    }
    ordered
}
