//! What tombstones leave of each source.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_core::{Condition, TimeRange, TimeRanges, Timestamp};

use super::source::Source;
use crate::manifest::Tombstone;

/// Sets for every source the times it can return rows of, and the tombstones that need a look at
/// each row. Sources and tombstones are ordered from old to new.
///
/// Tombstones without condition only take away times, so that thousands of them cost little.
pub(super) fn limit(sources: &mut [Source], times: &TimeRanges, tombstones: &[Arc<Tombstone>]) {
    let mut newer = tombstones.iter().rev().peekable();
    let mut hidden = HiddenTimes::default();
    let mut conditional: Vec<&Arc<Tombstone>> = Vec::new();
    for source in sources.iter_mut().rev() {
        while let Some(tombstone) = newer.next_if(|tombstone| tombstone.seq > source.max_seq()) {
            match tombstone.condition {
                Condition::All => tombstone.times.iter().for_each(|range| hidden.insert(range)),
                _ => conditional.push(tombstone),
            }
        }
        let bounds = source.times();
        source.live = times.within(bounds).subtract(&hidden.within(bounds));
        let concerned = conditional.iter().filter(|tombstone| tombstone.times.overlaps(bounds));
        source.hidden = concerned.map(|tombstone| Arc::clone(tombstone)).collect();
    }
}

/// A set of instants that grows: starts and ends of disjoint, non-adjacent ranges.
#[derive(Debug, Default)]
struct HiddenTimes(BTreeMap<Timestamp, Timestamp>);

impl HiddenTimes {
    fn insert(&mut self, mut range: TimeRange) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.0.range(..=range.end).next_back() {
            if end < range.start {
                break;
            }
            self.0.remove(&start);
            range = TimeRange::new(range.start.min(start), range.end.max(end));
        }
        self.0.insert(range.start, range.end);
    }

    fn within(&self, bounds: TimeRange) -> TimeRanges {
        let from_before = self.0.range(..bounds.start).next_back();
        let inside = self.0.range(bounds.start..bounds.end.max(bounds.start));
        let ranges = from_before.into_iter().chain(inside);
        ranges.map(|(start, end)| TimeRange::new(*start, *end).intersect(bounds)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end))
    }

    #[test]
    fn hidden_times_join_and_are_cut() {
        let mut hidden = HiddenTimes::default();
        let mut expected = TimeRanges::none();
        for (start, end) in
            [(10, 20), (40, 50), (20, 25), (5, 6), (7, 7), (24, 41), (0, 60), (70, 80)]
        {
            hidden.insert(range(start, end));
            expected = expected.union(&TimeRanges::from(range(start, end)));
            for bounds in [range(0, 100), range(12, 45), range(75, 76), range(61, 70)] {
                assert_eq!(hidden.within(bounds), expected.intersect(&bounds.into()));
            }
        }
    }
}
