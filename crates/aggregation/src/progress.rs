//! The progress of an aggregate: what of it is stored, where, up to which commit, and what it took.

use highwater_core::{SequenceNumber, TimeRange, TimeRanges, Timestamp};
use highwater_storage::Medium;
use serde::{Deserialize, Serialize};

use crate::applied::Applied;

/// The progress document: what is stored, up to which commit, and what it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    /// Which ranges are stored, and the commit their partials reflect.
    pub(crate) applied: Applied,
    /// What of it is on disk although the aggregate lives in memory: sealed, or about to be.
    #[serde(skip_serializing_if = "TimeRanges::is_empty")]
    pub(crate) kept: TimeRanges,
    /// What was stored, at which commit, and is to be stored again: a restart took it from memory, or
    /// a change of the storage gave it up.
    #[serde(skip_serializing_if = "Applied::is_empty")]
    pub(crate) rebuilding: Applied,
    /// What had expired by force before it was applied: sealed as it stands, and missing points.
    #[serde(skip_serializing_if = "TimeRanges::is_empty")]
    pub(crate) lost: TimeRanges,
    /// Event time up to which buckets are closed and materialized; on a bucket boundary.
    pub(crate) last_processed: Option<Timestamp>,
    /// Refreshes that succeeded.
    pub(crate) refresh_count: u64,
    /// When the last one did.
    pub(crate) last_refresh: Option<Timestamp>,
    /// Closed buckets whose stored answer changed afterwards.
    pub(crate) revisions: u64,
    /// Buckets computed, again or for the first time.
    pub(crate) buckets_recomputed: u64,
    /// Rows of partials written.
    pub(crate) rows_recomputed: u64,
    /// Rows of partials that came, went or changed by that.
    pub(crate) rows_changed: u64,
    /// Time spent in refreshes, in milliseconds.
    pub(crate) refresh_ms: u64,
}

impl Progress {
    /// These whole pieces of an aggregate that lives in memory are stored in this medium now.
    pub(crate) fn note_medium(&mut self, pieces: &TimeRanges, medium: Medium) {
        self.kept = match medium {
            Medium::Disk => self.kept.union(pieces),
            Medium::Memory => self.kept.subtract(pieces),
        };
    }

    /// These whole pieces are stored at the commit `seq`.
    pub(crate) fn apply(&mut self, pieces: &TimeRanges, seq: SequenceNumber) {
        self.applied.set_all(pieces, seq);
        pieces.iter().for_each(|range| self.rebuilding.remove(range));
    }

    /// What is in memory alone of an aggregate that lives there, or was and is to be again.
    pub(crate) fn in_memory(&self) -> TimeRanges {
        self.applied.covered().union(&self.rebuilding.covered()).subtract(&self.kept)
    }

    /// Everything before this instant is gone for good.
    pub(crate) fn expire(&mut self, gone: TimeRange) {
        self.applied.remove(gone);
        self.rebuilding.remove(gone);
        self.kept = self.kept.subtract(&gone.into());
        self.lost = self.lost.subtract(&gone.into());
    }

    /// What was applied before the engine was opened is not in memory any more.
    ///
    /// That is seen by the commit: whatever was computed since is at the commit of the opening at
    /// least.
    pub(crate) fn forget_memory(&mut self, opened: SequenceNumber) {
        let before = |(range, seq): (TimeRange, SequenceNumber)| (seq < opened).then_some(range);
        let before: TimeRanges = self.applied.runs().filter_map(before).collect();
        self.forget(&before.subtract(&self.kept));
    }

    /// These whole pieces are not stored any more, and shall be again.
    pub(crate) fn forget(&mut self, pieces: &TimeRanges) {
        for piece in pieces.iter() {
            for (part, seq) in self.applied.parts(piece) {
                // Where nothing was stored, something from before may still wait.
                if seq > SequenceNumber::ZERO {
                    self.rebuilding.set(part, seq);
                }
            }
            self.applied.remove(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(start: i64, end: i64) -> TimeRange {
        TimeRange::new(Timestamp::from_secs(start * 3600), Timestamp::from_secs(end * 3600))
    }

    fn seq(number: u64) -> SequenceNumber {
        SequenceNumber::new(number)
    }

    #[test]
    fn a_restart_leaves_what_is_on_disk() {
        let mut progress = Progress::default();
        progress.apply(&hours(0, 6).into(), seq(5));
        progress.note_medium(&hours(0, 2).into(), Medium::Disk);
        assert_eq!(progress.in_memory(), hours(2, 6).into());
        let before = progress.clone();
        progress.forget_memory(seq(5));
        assert_eq!(progress, before, "the engine was opened at that commit");
        progress.forget_memory(seq(6));
        assert_eq!(progress.applied.covered(), hours(0, 2).into());
        assert_eq!(progress.rebuilding.runs().collect::<Vec<_>>(), [(hours(2, 6), seq(5))]);
        assert_eq!(progress.in_memory(), hours(2, 6).into(), "once it is there again");

        progress.apply(&hours(2, 4).into(), seq(7));
        assert_eq!(progress.rebuilding.covered(), hours(4, 6).into());
        progress.forget_memory(seq(8));
        let rebuilding: Vec<_> = progress.rebuilding.runs().collect();
        assert_eq!(rebuilding, [(hours(2, 4), seq(7)), (hours(4, 6), seq(5))]);
        progress.expire(hours(0, 5));
        assert_eq!(progress.rebuilding.covered(), hours(5, 6).into());
        assert!(progress.kept.is_empty() && progress.applied.is_empty());
    }

    #[test]
    fn a_document_of_a_durable_aggregate_says_nothing_of_memory() {
        let text = serde_json::to_string(&Progress::default()).unwrap();
        assert!(!text.contains("kept") && !text.contains("rebuilding"), "{text}");
    }
}
