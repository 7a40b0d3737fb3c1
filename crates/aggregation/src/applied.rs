//! What stored partials reflect: ranges of event time and the commit up to which each is applied.

use std::fmt;

use highwater_core::{SequenceNumber, TimeRange, TimeRanges, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Per range of event time, the commit that the stored partials there reflect (`applied_seq`);
/// [`SequenceNumber::ZERO`] where nothing is stored.
///
/// Serialized as `[[start_nanos, end_nanos, seq], ...]`. Runs are disjoint, ascending, not empty,
/// never at zero, and neighbours with the same commit are one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    runs: Vec<(TimeRange, SequenceNumber)>,
}

impl Applied {
    /// Nothing is stored.
    pub const fn nothing() -> Self {
        Applied { runs: Vec::new() }
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The stored partials of `range` now reflect `seq`, whatever was there before.
    pub fn set(&mut self, range: TimeRange, seq: SequenceNumber) {
        if range.is_empty() {
            return;
        }
        let mut runs = self.outside(range);
        if seq > SequenceNumber::ZERO {
            let at = runs.partition_point(|(run, _)| run.end <= range.start);
            runs.insert(at, (range, seq));
        }
        self.runs = joined(runs);
    }

    /// [`Applied::set`] for every range.
    pub fn set_all(&mut self, ranges: &TimeRanges, seq: SequenceNumber) {
        for range in ranges.iter() {
            self.set(range, seq);
        }
    }

    /// Whatever is stored and not `stale` at `seq` is as good as computed at `seq`.
    ///
    /// This keeps the list short: after a refresh everything stored has the same commit.
    pub fn raise_clean(&mut self, seq: SequenceNumber, stale: &TimeRanges) {
        let mut runs = Vec::with_capacity(self.runs.len());
        for &(range, own) in &self.runs {
            let here = TimeRanges::from(range);
            let (clean, dirty) = (here.subtract(stale), here.intersect(stale));
            runs.extend(clean.iter().map(|part| (part, own.max(seq))));
            runs.extend(dirty.iter().map(|part| (part, own)));
        }
        runs.sort_by_key(|(range, _)| range.start);
        self.runs = joined(runs);
    }

    /// Nothing is stored in `range` any more.
    pub fn remove(&mut self, range: TimeRange) {
        self.runs = self.outside(range);
    }

    /// The commit that everything in `range` reflects; zero if a part of it is not stored.
    pub fn get(&self, range: TimeRange) -> SequenceNumber {
        let mut reached = range.start;
        let mut lowest = None;
        for &(run, seq) in self.overlapping(range) {
            if run.start > reached {
                return SequenceNumber::ZERO;
            }
            reached = run.end;
            lowest = Some(lowest.map_or(seq, |other: SequenceNumber| other.min(seq)));
        }
        if reached < range.end {
            return SequenceNumber::ZERO;
        }
        lowest.unwrap_or_default()
    }

    /// Everything that is stored, at whatever commit.
    pub fn covered(&self) -> TimeRanges {
        self.runs.iter().map(|(range, _)| *range).collect()
    }

    /// The runs, ascending.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = (TimeRange, SequenceNumber)> + '_ {
        self.runs.iter().copied()
    }

    /// The lowest commit of anything stored; `None` when nothing is.
    pub fn lowest(&self) -> Option<SequenceNumber> {
        self.runs.iter().map(|(_, seq)| *seq).min()
    }

    /// The parts of `within`, ascending and without gap, each with the commit it reflects; zero
    /// where nothing is stored.
    pub fn parts(&self, within: TimeRange) -> Vec<(TimeRange, SequenceNumber)> {
        let mut parts = Vec::new();
        let mut from = within.start;
        for &(run, seq) in self.overlapping(within) {
            let run = run.intersect(within);
            parts.push((TimeRange::new(from, run.start), SequenceNumber::ZERO));
            parts.push((run, seq));
            from = run.end;
        }
        parts.push((TimeRange::new(from, within.end), SequenceNumber::ZERO));
        parts.retain(|(part, _)| !part.is_empty());
        parts
    }

    fn overlapping(&self, range: TimeRange) -> &[(TimeRange, SequenceNumber)] {
        if range.is_empty() {
            return &[];
        }
        let first = self.runs.partition_point(|(run, _)| run.end <= range.start);
        let after = self.runs.partition_point(|(run, _)| run.start < range.end);
        &self.runs[first..after]
    }

    /// The runs without what lies in `range`.
    fn outside(&self, range: TimeRange) -> Vec<(TimeRange, SequenceNumber)> {
        if range.is_empty() {
            return self.runs.clone();
        }
        let mut runs = Vec::with_capacity(self.runs.len() + 2);
        for &(run, seq) in &self.runs {
            let before = TimeRange::new(run.start, run.end.min(range.start));
            let after = TimeRange::new(run.start.max(range.end), run.end);
            runs.extend([before, after].into_iter().filter(|r| !r.is_empty()).map(|r| (r, seq)));
        }
        runs
    }
}

/// Joins neighbours that touch and reflect the same commit.
fn joined(runs: Vec<(TimeRange, SequenceNumber)>) -> Vec<(TimeRange, SequenceNumber)> {
    let mut joined: Vec<(TimeRange, SequenceNumber)> = Vec::with_capacity(runs.len());
    for (range, seq) in runs {
        match joined.last_mut() {
            Some((last, own)) if last.end == range.start && *own == seq => last.end = range.end,
            _ => joined.push((range, seq)),
        }
    }
    joined
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (range, seq)) in self.runs.iter().enumerate() {
            write!(f, "{}{range} at {seq}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Serialize for Applied {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = |at: Timestamp| at.as_nanos();
        serializer.collect_seq(self.runs.iter().map(|(r, s)| (nanos(r.start), nanos(r.end), s)))
    }
}

impl<'de> Deserialize<'de> for Applied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut applied = Applied::nothing();
        let mut reached = i64::MIN;
        for (start, end, seq) in Vec::<(i64, i64, SequenceNumber)>::deserialize(deserializer)? {
            if start < reached || end <= start || seq == SequenceNumber::ZERO {
                return Err(de::Error::custom("runs must be ascending, disjoint and not empty"));
            }
            reached = end;
            let at = Timestamp::from_nanos;
            applied.runs.push((TimeRange::new(at(start), at(end)), seq));
        }
        applied.runs = joined(applied.runs);
        Ok(applied)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end))
    }

    fn seq(number: u64) -> SequenceNumber {
        SequenceNumber::new(number)
    }

    fn applied(runs: &[(i64, i64, u64)]) -> Applied {
        let mut applied = Applied::nothing();
        for &(start, end, number) in runs {
            applied.set(range(start, end), seq(number));
        }
        applied
    }

    #[test]
    fn runs_are_cut_and_joined() {
        let mut runs = applied(&[(0, 10, 5), (10, 20, 5), (4, 6, 7)]);
        assert_eq!(runs, applied(&[(0, 4, 5), (4, 6, 7), (6, 20, 5)]));
        assert_eq!(runs.get(range(0, 20)), seq(5));
        assert_eq!(runs.get(range(4, 6)), seq(7));
        assert_eq!(runs.get(range(0, 21)), SequenceNumber::ZERO);
        runs.remove(range(5, 8));
        assert_eq!(runs.covered(), [range(0, 5), range(8, 20)].into_iter().collect());
        assert_eq!(runs.get(range(4, 9)), SequenceNumber::ZERO);
    }

    #[test]
    fn what_is_clean_is_raised_and_joins() {
        let mut runs = applied(&[(0, 10, 5), (10, 20, 3), (30, 40, 9)]);
        runs.raise_clean(seq(8), &range(12, 14).into());
        assert_eq!(runs, applied(&[(0, 12, 8), (12, 14, 3), (14, 20, 8), (30, 40, 9)]));
        runs.set(range(12, 14), seq(8));
        assert_eq!(runs.runs().len(), 2);
    }

    #[test]
    fn it_is_stored_as_short_json() {
        let runs = applied(&[(-5, 10, 5), (10, 20, 3)]);
        let text = serde_json::to_string(&runs).unwrap();
        assert_eq!(text, "[[-5,10,5],[10,20,3]]");
        assert_eq!(serde_json::from_str::<Applied>(&text).unwrap(), runs);
        for damaged in ["[[0,0,1]]", "[[0,5,1],[4,6,2]]", "[[0,5,0]]"] {
            assert!(serde_json::from_str::<Applied>(damaged).is_err(), "{damaged}");
        }
    }

    /// One commit number per instant of a short time line.
    type Model = [u64; 24];

    #[derive(Clone, Debug)]
    enum Step {
        Set(i64, i64, u64),
        Remove(i64, i64),
        RaiseClean(u64, i64, i64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let bound = || 0..24i64;
        prop_oneof![
            (bound(), bound(), 0..6u64).prop_map(|(a, b, s)| Step::Set(a, b, s)),
            (bound(), bound()).prop_map(|(a, b)| Step::Remove(a, b)),
            (0..6u64, bound(), bound()).prop_map(|(s, a, b)| Step::RaiseClean(s, a, b)),
        ]
    }

    fn apply(runs: &mut Applied, model: &mut Model, step: &Step) {
        let instants = 0..model.len() as i64;
        match *step {
            Step::Set(a, b, s) => {
                runs.set(range(a, b), seq(s));
                instants.filter(|at| (a..b).contains(at)).for_each(|at| model[at as usize] = s);
            }
            Step::Remove(a, b) => {
                runs.remove(range(a, b));
                instants.filter(|at| (a..b).contains(at)).for_each(|at| model[at as usize] = 0);
            }
            Step::RaiseClean(s, a, b) => {
                runs.raise_clean(seq(s), &range(a, b).into());
                for own in instants.filter(|at| !(a..b).contains(at)) {
                    let own = &mut model[own as usize];
                    *own = if *own == 0 { 0 } else { s.max(*own) };
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_number_per_instant(
            steps in prop::collection::vec(any_step(), 0..12), a in 0..24i64, b in 0..24i64,
        ) {
            let (mut runs, mut model) = (Applied::nothing(), [0; 24]);
            for step in &steps {
                apply(&mut runs, &mut model, step);
            }
            let each = |at: i64| runs.get(range(at, at + 1)).get();
            prop_assert_eq!((0..24).map(each).collect::<Vec<_>>(), model.to_vec());
            let lowest = (a..b).map(|at| model[at as usize]).min().unwrap_or(0);
            prop_assert_eq!(runs.get(range(a, b)).get(), lowest);
            for pair in runs.runs.windows(2) {
                prop_assert!(pair[0].0.end <= pair[1].0.start, "disjoint and ascending");
                prop_assert!(pair[0].0.end < pair[1].0.start || pair[0].1 != pair[1].1, "joined");
            }
            let parts = runs.parts(range(a, b));
            let spread: Vec<_> = parts.iter().flat_map(|(r, s)| {
                (r.start.as_nanos()..r.end.as_nanos()).map(|_| s.get())
            }).collect();
            let expected: Vec<_> = (a..b).map(|at| model[at as usize]).collect();
            prop_assert_eq!(spread, expected);
        }
    }
}
