//! What is remembered of a measurement that somebody watches: when its changes came, and which of
//! them touched certain columns.
//!
//! It is kept in memory only, from the moment somebody asks for it. What happened before counts as
//! long ago, and as having touched every column.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::Array;
use highwater_core::{PointBatch, SequenceNumber, TimeRange, Timestamp};

use crate::changes::ChangeMap;

/// Commits closer together than this (10 ms) may count as one.
const GRAIN_NANOS: i64 = 10_000_000;
/// Earlier change maps stand no closer, two by two, than this part of their age, so that their number
/// grows with the logarithm of time.
const KEPT_PER_AGE: i64 = 4;

/// What is remembered of a watched measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    /// Ascending in time.
    earlier: Arc<Vec<Earlier>>,
    /// Which commit last touched a minute of these columns.
    columns: BTreeMap<Arc<str>, ChangeMap>,
}

/// A change map as it was before a commit.
#[derive(Clone, Debug)]
struct Earlier {
    /// When that commit came.
    until: Timestamp,
    changes: ChangeMap,
}

impl Watch {
    /// Remembers these columns too; whatever changed up to now counts as having touched them.
    pub(crate) fn add_columns(&mut self, columns: &BTreeSet<Arc<str>>, changes: &ChangeMap) {
        for column in columns {
            self.columns.entry(Arc::clone(column)).or_insert_with(|| changes.clone());
        }
    }

    /// Whether it remembers all of these columns.
    pub(crate) fn has(&self, columns: &BTreeSet<Arc<str>>) -> bool {
        columns.iter().all(|column| self.columns.contains_key(column))
    }

    /// Which commits touched a column; `None` if it is not watched.
    pub(crate) fn column(&self, name: &str) -> Option<&ChangeMap> {
        self.columns.get(name)
    }

    /// To be told of each commit before it touches `changes`.
    pub(crate) fn before_commit(&mut self, now: Timestamp, changes: &ChangeMap) {
        let last = self.earlier.last().map(|earlier| earlier.until);
        let is_near = |last: Timestamp| now.saturating_sub(GRAIN_NANOS) < last;
        if last.is_some_and(|last| last <= now && is_near(last)) {
            return;
        }
        let earlier = Arc::make_mut(&mut self.earlier);
        if last.is_some_and(|last| last > now) {
            // The clock went back: times that were noted cannot be compared with those to come.
            earlier.clear();
        }
        earlier.push(Earlier { until: now, changes: changes.clone() });
        thin_out(earlier, now);
    }

    /// Records that the commit `seq` wrote these points.
    pub(crate) fn touch_points(&mut self, points: &PointBatch, seq: SequenceNumber) {
        for (column, changes) in &mut self.columns {
            changes.touch_times(&times_with(points, column), seq);
        }
    }

    /// Records that the commit `seq` touched every column in `range`.
    pub(crate) fn touch(&mut self, range: TimeRange, seq: SequenceNumber) {
        self.columns.values_mut().for_each(|changes| changes.touch(range, seq));
    }

    /// See [`ChangeMap::coarsen`].
    pub(crate) fn coarsen(&mut self, seq: SequenceNumber) {
        self.columns.values_mut().for_each(|changes| changes.coarsen(seq));
    }

    /// The change map with everything that changed up to `at`, and perhaps somewhat later; `None`
    /// if that is all there is.
    pub(crate) fn until(&self, at: Timestamp) -> Option<&ChangeMap> {
        let first = self.earlier.partition_point(|earlier| earlier.until <= at);
        self.earlier.get(first).map(|earlier| &earlier.changes)
    }

    /// When the first commit after `seq` came, or somewhat earlier; `None` if that is not known.
    pub(crate) fn first_after(&self, seq: SequenceNumber) -> Option<Timestamp> {
        let later = self.earlier.partition_point(|earlier| earlier.changes.last() <= seq);
        Some(self.earlier.get(later.checked_sub(1)?)?.until)
    }
}

/// Leaves out what its neighbours stand close enough around for its age. The first and the last stay.
fn thin_out(earlier: &mut Vec<Earlier>, now: Timestamp) {
    let between = |from: Timestamp, to: Timestamp| to.as_nanos().saturating_sub(from.as_nanos());
    let untils: Vec<Timestamp> = earlier.iter().map(|one| one.until).collect();
    let mut position = 0;
    let mut before: Option<Timestamp> = None;
    earlier.retain(|one| {
        position += 1;
        let neighbours = before.zip(untils.get(position));
        let is_needed = neighbours.is_none_or(|(before, after)| {
            between(before, *after) > between(one.until, now) / KEPT_PER_AGE
        });
        if is_needed {
            before = Some(one.until);
        }
        is_needed
    });
}

/// Times of the points that have a value in this field, or this tag.
fn times_with(points: &PointBatch, column: &str) -> Vec<i64> {
    if let Some((_, values)) = points.fields.iter().find(|(name, _)| **name == *column) {
        let has_value = |row: &usize| values.is_valid(*row);
        return (0..points.rows()).filter(has_value).map(|row| points.times[row]).collect();
    }
    let has_tag: Vec<bool> =
        points.tag_sets.iter().map(|tags| tags.get(column).is_some()).collect();
    let rows = points.tag_set_of_row.iter().zip(&points.times);
    rows.filter(|(tags, _)| has_tag[**tags as usize]).map(|(_, time)| *time).collect()
}

#[cfg(test)]
mod tests {
    use highwater_core::TagSet;

    use super::*;

    fn seq(number: u64) -> SequenceNumber {
        SequenceNumber::new(number)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn minute(number: i64) -> TimeRange {
        TimeRange::new(at(number * 60), at(number * 60 + 60))
    }

    /// A watch that saw the commits 1, 2, .. at these seconds, each touching a minute of its own.
    fn watched(seconds: &[i64]) -> (Watch, ChangeMap) {
        let (mut watch, mut changes) = (Watch::default(), ChangeMap::default());
        for (second, number) in seconds.iter().zip(1..) {
            watch.before_commit(at(*second), &changes);
            changes.touch(minute(number), seq(number as u64));
        }
        (watch, changes)
    }

    #[test]
    fn it_tells_what_had_changed_by_then() {
        let (watch, changes) = watched(&[100, 200, 200, 300]);
        let last = |second| watch.until(at(second)).unwrap_or(&changes).last().get();
        assert_eq!([99, 100, 199, 200, 299, 300].map(last), [0, 1, 1, 3, 3, 4]);
        let first = |number| watch.first_after(seq(number));
        assert_eq!([0, 1, 2, 3].map(first), [100, 200, 200, 300].map(|s| Some(at(s))));
        let mut watch = Watch::default();
        watch.before_commit(at(1), &changes);
        assert_eq!(watch.first_after(seq(3)), None, "it came before the watch");
    }

    #[test]
    fn it_errs_towards_older_and_stays_short() {
        let seconds: Vec<i64> = (0..20_000).collect();
        let (watch, changes) = watched(&seconds);
        assert!(watch.earlier.len() < 100, "{}", watch.earlier.len());
        for second in 0..20_000_i64 {
            let known = watch.until(at(second)).unwrap_or(&changes).last().get() as i64;
            let age = 20_000 - second;
            assert!(known > second && known - second <= 2 + age / 3, "{second}: {known}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_makes_everything_old() {
        let (watch, changes) = watched(&[100, 200, 50, 60]);
        assert_eq!(watch.until(at(49)).map(ChangeMap::last), Some(seq(2)));
        assert_eq!(watch.until(at(55)).map(ChangeMap::last), Some(seq(3)));
        assert!(watch.until(at(60)).is_none() && changes.last() == seq(4));
    }

    #[test]
    fn columns_are_touched_where_points_have_them() {
        let values = arrow::array::Float64Array::from(vec![Some(1.0), None]);
        let points = PointBatch {
            measurement: "m".into(),
            tag_sets: vec![TagSet::new([("a", "x")]).unwrap(), TagSet::new([("b", "y")]).unwrap()],
            tag_set_of_row: vec![0, 1],
            times: vec![0, 60_000_000_000],
            fields: vec![("v".into(), Arc::new(values))],
            lines: vec![1, 2],
        };
        let mut watch = Watch::default();
        let columns: BTreeSet<Arc<str>> = ["v", "b", "none"].map(Arc::from).into();
        watch.add_columns(&columns, &ChangeMap::default());
        watch.touch_points(&points, seq(5));
        let runs = |column| watch.column(column).unwrap().runs().collect::<Vec<_>>();
        assert_eq!(runs("v"), [(minute(0), seq(5))]);
        assert_eq!(runs("b"), [(minute(1), seq(5))]);
        assert_eq!(runs("none"), []);
        assert!(watch.column("a").is_none() && watch.has(&columns));
    }
}
