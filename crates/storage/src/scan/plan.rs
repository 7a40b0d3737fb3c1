//! Which sources are read straight and which are merged: pure, from bounds alone.
//!
//! ```text
//!  time      ────────────────────────────────────►
//!  source 0  ███████████████████
//!  source 1                  ███████████
//!  source 2                                  █████
//!            └─ direct 0 ───┘└merge┘└ 1 ─┘   └─ 2 ┘
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use highwater_core::{TimeRange, TimeRanges, Timestamp};

use super::source::Source;
use crate::manifest::MeasurementKind;

/// Overlapping sources are parted in time as long as that reads no more than so many times the
/// rows; else they are merged as a whole.
const MAX_REREAD: u64 = 2;
/// Direct reads are cut into about so many tasks per partition, to spread evenly.
const TASKS_PER_PARTITION: usize = 4;

/// A piece of work that no other task overlaps in rows. Sources are positions in the list that
/// was planned for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Rows of one source, as they are.
    Direct { source: usize, times: TimeRanges, row_groups: Range<usize> },
    /// Rows of several sources, deduplicated. Sources are ascending, so old to new.
    Merge { sources: Vec<usize>, times: TimeRanges, share: Share },
}

/// One of several parts of a merge, cut between series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Which part, from 0.
    pub(crate) index: usize,
    /// How many parts there are.
    pub(crate) of: usize,
}

impl Share {
    /// The whole.
    pub(crate) const WHOLE: Share = Share { index: 0, of: 1 };
}

/// The tasks that together return what is live in the sources, for `partitions` workers.
pub(crate) fn plan(sources: &[Source], kind: MeasurementKind, partitions: usize) -> Vec<Task> {
    let units = match kind.is_deduplicated() {
        false => sources.iter().enumerate().map(|(at, s)| (vec![at], s.live.clone())).collect(),
        true => units(sources),
    };
    let row_groups = |at: usize| sources[at].row_groups();
    let direct = units.iter().filter(|(members, _)| members.len() == 1);
    let direct_groups: usize = direct.map(|(members, _)| row_groups(members[0])).sum();
    let groups_per_task = match partitions {
        1 => usize::MAX,
        _ => direct_groups.div_ceil(partitions * TASKS_PER_PARTITION).max(1),
    };
    let mut tasks = Vec::new();
    for (members, times) in units {
        if let [source] = members[..] {
            let groups = row_groups(source);
            for start in (0..groups).step_by(groups_per_task) {
                let end = start.saturating_add(groups_per_task);
                let end = if end >= groups { usize::MAX } else { end };
                let times = times.clone();
                tasks.push(Task::Direct { source, times, row_groups: start..end });
            }
        } else {
            let of = members.iter().map(|at| row_groups(*at)).max().unwrap_or(1).min(partitions);
            tasks.extend((0..of).map(|index| {
                let (sources, times) = (members.clone(), times.clone());
                Task::Merge { sources, times, share: Share { index, of } }
            }));
        }
    }
    tasks
}

/// Sets of sources and the times in which just these are to be read together.
type Units = BTreeMap<Vec<usize>, TimeRanges>;

fn units(sources: &[Source]) -> Vec<(Vec<usize>, TimeRanges)> {
    let mut slabs: BTreeMap<Vec<usize>, Vec<TimeRange>> = BTreeMap::new();
    for (range, members) in slabs_of(sources) {
        slabs.entry(members).or_default().push(range);
    }
    let mut components = Components::new(sources.len());
    slabs.keys().for_each(|members| components.join(members));
    let mut by_component: BTreeMap<usize, Units> = BTreeMap::new();
    for (members, ranges) in slabs {
        let component = components.of(members[0]);
        let units = by_component.entry(component).or_default();
        units.insert(members, ranges.into_iter().collect());
    }
    by_component.into_values().flat_map(|units| join_if_cheaper(sources, units)).collect()
}

/// Merges all sources of the units at once if reading them unit by unit reads too much twice.
fn join_if_cheaper(sources: &[Source], units: Units) -> Units {
    let rows = |members: &[usize]| members.iter().map(|at| sources[*at].rows()).sum::<u64>();
    let mut members: Vec<usize> = units.keys().flatten().copied().collect();
    members.sort_unstable();
    members.dedup();
    let read_by_units: u64 = units.keys().map(|members| rows(members)).sum();
    if read_by_units <= MAX_REREAD * rows(&members) {
        return units;
    }
    let times = units.values().flat_map(TimeRanges::iter).collect();
    BTreeMap::from([(members, times)])
}

/// Cuts time wherever a source begins or ends: ranges, each with the sources that are live in all
/// of it.
fn slabs_of(sources: &[Source]) -> Vec<(TimeRange, Vec<usize>)> {
    let mut edges: Vec<(Timestamp, usize)> = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        edges.extend(source.live.iter().flat_map(|range| [(range.start, at), (range.end, at)]));
    }
    edges.sort_unstable();
    let mut live: Vec<usize> = Vec::new();
    let mut slabs = Vec::new();
    for (i, (time, source)) in edges.iter().enumerate() {
        match live.binary_search(source) {
            Ok(at) => drop(live.remove(at)),
            Err(at) => live.insert(at, *source),
        }
        let next = edges.get(i + 1).map(|(next, _)| *next);
        if let Some(next) = next.filter(|next| next > time && !live.is_empty()) {
            slabs.push((TimeRange::new(*time, next), live.clone()));
        }
    }
    slabs
}

/// Which sources hang together.
struct Components(Vec<usize>);

impl Components {
    fn new(sources: usize) -> Self {
        Components((0..sources).collect())
    }

    fn of(&mut self, source: usize) -> usize {
        let mut root = source;
        while self.0[root] != root {
            self.0[root] = self.0[self.0[root]];
            root = self.0[root];
        }
        root
    }

    fn join(&mut self, members: &[usize]) {
        for two in members.windows(2) {
            let (a, b) = (self.of(two[0]), self.of(two[1]));
            self.0[a.max(b)] = a.min(b);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use highwater_core::{ScanFilter, SequenceNumber};

    use super::*;
    use crate::error::StorageError;
    use crate::scan::SortedRows;

    #[derive(Debug)]
    struct Bounds(TimeRange, usize);

    impl SortedRows for Bounds {
        fn seqs(&self) -> (SequenceNumber, SequenceNumber) {
            (SequenceNumber::ZERO, SequenceNumber::ZERO)
        }

        fn times(&self) -> TimeRange {
            self.0
        }

        fn rows(&self) -> usize {
            self.1
        }

        fn sorted(&self, _: &ScanFilter) -> Result<RecordBatch, StorageError> {
            unreachable!("planning reads nothing")
        }
    }

    fn ranges(ranges: &[(i64, i64)]) -> TimeRanges {
        let range = |(start, end): &(i64, i64)| {
            TimeRange::new(Timestamp::from_nanos(*start), Timestamp::from_nanos(*end))
        };
        ranges.iter().map(range).collect()
    }

    fn source(live: &[(i64, i64)], rows: usize) -> Source {
        let live = ranges(live);
        let bounds = Bounds(live.hull().unwrap(), rows);
        let mut source = Source::of_rows(Arc::new(bounds));
        source.live = live;
        source
    }

    fn direct(source: usize, times: &[(i64, i64)]) -> Task {
        Task::Direct { source, times: ranges(times), row_groups: 0..usize::MAX }
    }

    fn merge(sources: &[usize], times: &[(i64, i64)]) -> Task {
        let (sources, times) = (sources.to_vec(), ranges(times));
        Task::Merge { sources, times, share: Share::WHOLE }
    }

    #[test]
    fn only_overlaps_are_merged() {
        let sources = [source(&[(0, 20)], 10), source(&[(18, 30)], 10), source(&[(30, 40)], 10)];
        let tasks = plan(&sources, MeasurementKind::Points, 1);
        let expected = [
            direct(0, &[(0, 18)]),
            merge(&[0, 1], &[(18, 20)]),
            direct(1, &[(20, 30)]),
            direct(2, &[(30, 40)]),
        ];
        assert_eq!(tasks, expected);
    }

    #[test]
    fn a_source_in_the_gap_of_another_is_read_straight() {
        let sources = [source(&[(0, 10), (20, 30)], 10), source(&[(10, 20)], 10)];
        let tasks = plan(&sources, MeasurementKind::Points, 1);
        assert_eq!(tasks, [direct(0, &[(0, 10), (20, 30)]), direct(1, &[(10, 20)])]);
    }

    #[test]
    fn many_overlaps_are_merged_at_once() {
        let sources: Vec<Source> = (0..10).map(|i| source(&[(i, 100 + i)], 1000)).collect();
        let tasks = plan(&sources, MeasurementKind::Points, 1);
        assert_eq!(tasks, [merge(&(0..10).collect::<Vec<_>>(), &[(0, 109)])]);
        assert_eq!(plan(&sources, MeasurementKind::Materialization, 1).len(), 10);
    }
}
