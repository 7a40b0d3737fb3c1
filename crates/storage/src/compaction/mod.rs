//! Compaction: fewer and better segments.
//!
//! [`choice`] decides, purely, what to rewrite of some days and why; [`merge`] rewrites it
//! without what is hidden, and [`replace`] puts the result in their place, which is one commit.

mod choice;
mod history;
mod merge;
mod replace;
#[cfg(test)]
mod tests;
mod work;

pub(crate) use choice::{CompactionInput, CompactionJob, Limits, choose};
pub(crate) use history::CompactionHistory;
pub use history::CompactionRun;
pub(crate) use merge::rewrite;
pub(crate) use replace::plan_replaced;

use std::sync::Arc;

use highwater_core::{SequenceNumber, TimeRange};

use crate::manifest::Tombstone;

/// The tombstones that have nothing left to hide, where rows up to some commit lie in some range.
pub(crate) fn obsolete_tombstones(
    tombstones: &[Arc<Tombstone>],
    stored: &[(SequenceNumber, TimeRange)],
) -> Vec<SequenceNumber> {
    let hides_some = |tombstone: &Tombstone| {
        let mut older = stored.iter().filter(|(max_seq, _)| *max_seq < tombstone.seq);
        older.any(|(_, times)| tombstone.times.overlaps(*times))
    };
    let obsolete = tombstones.iter().filter(|tombstone| !hides_some(tombstone));
    obsolete.map(|tombstone| tombstone.seq).collect()
}
