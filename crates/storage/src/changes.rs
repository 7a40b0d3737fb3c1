//! The change map: which commit last touched each minute of event time.
//!
//! Staleness is derived from it: whoever remembers having seen everything up to some commit asks
//! which minutes were touched after that. Nothing here knows who asks.

use highwater_core::time::NANOS_PER_MINUTE;
use highwater_core::{SequenceNumber, TimeRange, TimeRanges, Timestamp};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

/// Which commit last touched each granule (UTC minute) of a measurement.
///
/// Neighbouring granules touched by the same commit are kept, and serialized, as one run. A clone
/// costs nothing and shares what later changes leave alone. At the ends of representable time a
/// granule is cut short.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(TimeRange, SequenceNumber)>", into = "Vec<(TimeRange, SequenceNumber)>")]
pub struct ChangeMap {
    /// Start of a run to its end and commit. Runs are not empty and do not overlap; two that
    /// touch have different commits.
    runs: OrdMap<Timestamp, (Timestamp, SequenceNumber)>,
    last: SequenceNumber,
}

impl ChangeMap {
    /// The granules inside or overlapping `within` that some commit after `seq` touched. Whole
    /// granules, so they may stick out of `within` by less than a minute.
    pub fn touched_after(&self, seq: SequenceNumber, within: TimeRange) -> TimeRanges {
        let granules = round_out(within);
        self.overlapping(granules)
            .filter(|(_, touched)| *touched > seq)
            .map(|(run, _)| run.intersect(granules))
            .collect()
    }

    /// The last commit that touched a granule overlapping `range`; zero if there is none.
    pub fn last_change(&self, range: TimeRange) -> SequenceNumber {
        self.overlapping(range).map(|(_, seq)| seq).max().unwrap_or_default()
    }

    /// The last commit that touched anything; zero if there is none.
    pub fn last(&self) -> SequenceNumber {
        self.last
    }

    /// The smallest range around everything ever touched.
    pub fn hull(&self) -> Option<TimeRange> {
        let (start, _) = self.runs.get_min()?;
        let (_, (end, _)) = self.runs.get_max()?;
        Some(TimeRange::new(*start, *end))
    }

    /// Records that commit `seq` touched every granule overlapping `range`. A granule keeps the
    /// newest commit, whatever the order of calls.
    pub fn touch(&mut self, range: TimeRange, seq: SequenceNumber) {
        if range.is_empty() {
            return;
        }
        let range = round_out(range);
        self.last = self.last.max(seq);
        let first = self.overlapping(range).next();
        if first.is_some_and(|(run, touched)| touched >= seq && run.covers(range)) {
            return;
        }
        let old: Vec<(TimeRange, SequenceNumber)> = self.overlapping(widened(range)).collect();
        for (run, _) in &old {
            self.runs.remove(&run.start);
        }
        for (run, seq) in overlay(&old, range, seq) {
            self.runs.insert(run.start, (run.end, seq));
        }
    }

    /// Records that commit `seq` touched these instants (nanoseconds since the epoch), which may
    /// come in any order.
    pub fn touch_times(&mut self, times: &[i64], seq: SequenceNumber) {
        for run in runs_of_minutes(distinct_minutes(times)) {
            self.touch(run, seq);
        }
    }

    /// Adds what another map knows; the newer commit wins per granule.
    pub fn merge(&mut self, runs: impl IntoIterator<Item = (TimeRange, SequenceNumber)>) {
        for (range, seq) in runs {
            self.touch(range, seq);
        }
    }

    /// Forgets to tell commits up to `seq` apart: they are all recorded as the newest of them.
    /// Whoever has seen `seq` notices nothing; nobody is ever told too little.
    pub fn coarsen(&mut self, seq: SequenceNumber) {
        let old = self.runs().map(|(_, touched)| touched).filter(|touched| *touched <= seq);
        let Some(newest) = old.max() else { return };
        let mut coarse = Vec::new();
        for (run, touched) in self.runs() {
            push_joined(&mut coarse, run, if touched <= seq { newest } else { touched });
        }
        self.runs = coarse.into_iter().map(|(run, seq)| (run.start, (run.end, seq))).collect();
    }

    /// Everything known: ranges of whole granules, ascending and disjoint, each with the commit
    /// that touched it last.
    pub fn runs(&self) -> impl Iterator<Item = (TimeRange, SequenceNumber)> + '_ {
        self.runs.iter().map(|(start, (end, seq))| (TimeRange::new(*start, *end), *seq))
    }

    /// Those of [`ChangeMap::runs`] that commits after `seq` touched.
    pub fn runs_after(
        &self,
        seq: SequenceNumber,
    ) -> impl Iterator<Item = (TimeRange, SequenceNumber)> + '_ {
        self.runs().filter(move |(_, touched)| *touched > seq)
    }

    fn overlapping(
        &self,
        range: TimeRange,
    ) -> impl Iterator<Item = (TimeRange, SequenceNumber)> + '_ {
        let first = self.runs.get_prev(&range.start).map_or(range.start, |(start, _)| *start);
        // An empty range overlaps nothing, and a map refuses bounds in the wrong order.
        let end = range.end.max(first);
        self.runs
            .range(first..end)
            .map(|(start, (end, seq))| (TimeRange::new(*start, *end), *seq))
            .filter(move |(run, _)| run.overlaps(range))
    }
}

impl From<Vec<(TimeRange, SequenceNumber)>> for ChangeMap {
    fn from(runs: Vec<(TimeRange, SequenceNumber)>) -> Self {
        let mut map = ChangeMap::default();
        map.merge(runs);
        map
    }
}

impl From<ChangeMap> for Vec<(TimeRange, SequenceNumber)> {
    fn from(map: ChangeMap) -> Self {
        map.runs().collect()
    }
}

/// The runs that result from touching `range` with `seq`, where `old` are the runs that overlap
/// or touch it, ascending.
fn overlay(
    old: &[(TimeRange, SequenceNumber)],
    range: TimeRange,
    seq: SequenceNumber,
) -> Vec<(TimeRange, SequenceNumber)> {
    let mut result = Vec::with_capacity(2 * old.len() + 1);
    let mut rest = range;
    for &(run, touched) in old {
        push_joined(&mut result, run.intersect(TimeRange::before(range.start)), touched);
        push_joined(&mut result, rest.intersect(TimeRange::before(run.start)), seq);
        push_joined(&mut result, run.intersect(range), touched.max(seq));
        rest.start = rest.start.max(run.end.min(range.end));
        push_joined(&mut result, run.intersect(TimeRange::since(range.end)), touched);
    }
    push_joined(&mut result, rest, seq);
    result
}

/// Appends a run that follows those before, joining it with the last one where it continues that.
fn push_joined(runs: &mut Vec<(TimeRange, SequenceNumber)>, range: TimeRange, seq: SequenceNumber) {
    if range.is_empty() {
        return;
    }
    match runs.last_mut() {
        Some((last, same)) if *same == seq && last.end == range.start => last.end = range.end,
        _ => runs.push((range, seq)),
    }
}

/// Minutes since the epoch of these instants, ascending and each once.
fn distinct_minutes(times: &[i64]) -> Vec<i64> {
    let mut minutes: Vec<i64> = Vec::new();
    let mut latest = TimeRange::new(Timestamp::EPOCH, Timestamp::EPOCH);
    for &time in times {
        if !latest.contains(Timestamp::from_nanos(time)) {
            let minute = time.div_euclid(NANOS_PER_MINUTE);
            latest = minutes_range(minute, minute);
            minutes.push(minute);
        }
    }
    minutes.sort_unstable();
    minutes.dedup();
    minutes
}

/// Consecutive minutes as ranges; `minutes` ascending and each once.
fn runs_of_minutes(minutes: Vec<i64>) -> impl Iterator<Item = TimeRange> {
    let mut rest = minutes.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = rest.next()?;
        let mut last = first;
        while let Some(next) = rest.next_if_eq(&(last + 1)) {
            last = next;
        }
        Some(minutes_range(first, last))
    })
}

fn minutes_range(first: i64, last: i64) -> TimeRange {
    let start = Timestamp::from_nanos(first.saturating_mul(NANOS_PER_MINUTE));
    TimeRange::new(start, Timestamp::from_nanos((last + 1).saturating_mul(NANOS_PER_MINUTE)))
}

fn round_out(range: TimeRange) -> TimeRange {
    if range.is_empty() {
        return range;
    }
    let last = range.end.as_nanos() - 1;
    minutes_range(
        range.start.as_nanos().div_euclid(NANOS_PER_MINUTE),
        last.div_euclid(NANOS_PER_MINUTE),
    )
}

/// `range` and the granules on either side, where runs may have to be joined.
fn widened(range: TimeRange) -> TimeRange {
    TimeRange::new(range.start.saturating_sub(1), range.end.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn minutes(first: i64, end: i64) -> TimeRange {
        TimeRange::new(Timestamp::from_secs(first * 60), Timestamp::from_secs(end * 60))
    }

    fn seq(number: u64) -> SequenceNumber {
        SequenceNumber::new(number)
    }

    #[test]
    fn a_touch_covers_whole_minutes_and_newer_commits_win() {
        let mut map = ChangeMap::default();
        map.touch(TimeRange::new(Timestamp::from_secs(61), Timestamp::from_secs(181)), seq(5));
        assert_eq!(map.runs().collect::<Vec<_>>(), [(minutes(1, 4), seq(5))]);
        map.touch(minutes(2, 3), seq(7));
        map.touch(minutes(0, 9), seq(6));
        let expected = [(minutes(0, 2), seq(6)), (minutes(2, 3), seq(7)), (minutes(3, 9), seq(6))];
        assert_eq!(map.runs().collect::<Vec<_>>(), expected);
        let half = TimeRange::new(Timestamp::from_secs(150), Timestamp::from_secs(150));
        assert!(map.touched_after(SequenceNumber::ZERO, half).is_empty());
        assert_eq!(map.touched_after(seq(6), TimeRange::ALL), minutes(2, 3).into());
        assert_eq!((map.last(), map.hull()), (seq(7), Some(minutes(0, 9))));
        map.coarsen(seq(100));
        assert_eq!(map.runs().collect::<Vec<_>>(), [(minutes(0, 9), seq(7))]);
    }

    #[test]
    fn the_ends_of_time_are_touched_without_overflow() {
        let mut map = ChangeMap::default();
        map.touch_times(&[i64::MIN, i64::MAX - 1, 0, i64::MIN], seq(1));
        assert_eq!(map.runs().count(), 3);
        assert_eq!(map.last_change(TimeRange::before(Timestamp::from_nanos(i64::MIN + 1))), seq(1));
        map.touch(TimeRange::ALL, seq(2));
        assert_eq!(map.runs().collect::<Vec<_>>(), [(TimeRange::ALL, seq(2))]);
        let text = serde_json::to_string(&map).unwrap();
        assert_eq!(serde_json::from_str::<ChangeMap>(&text).unwrap(), map);
    }

    /// One step, in seconds so that ranges begin and end inside minutes too.
    #[derive(Clone, Debug)]
    enum Step {
        Touch(i64, i64, u64),
        Times(Vec<i64>, u64),
        Coarsen(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (-900i64..900, 0i64..400, 1u64..40).prop_map(|(a, n, s)| Step::Touch(a, a + n, s)),
            3 => (prop::collection::vec(-900i64..900, 0..20), 1u64..40)
                .prop_map(|(times, s)| Step::Times(times, s)),
            1 => (1u64..40).prop_map(Step::Coarsen),
        ];
        prop::collection::vec(step, 0..40)
    }

    type Model = BTreeMap<i64, u64>;

    fn raise(model: &mut Model, minute: i64, seq: u64) {
        let slot = model.entry(minute).or_default();
        *slot = seq.max(*slot);
    }

    fn carry_out(step: &Step, map: &mut ChangeMap, model: &mut Model) {
        match step {
            Step::Touch(from, to, s) => {
                let ends = (Timestamp::from_secs(*from), Timestamp::from_secs(*to));
                map.touch(TimeRange::new(ends.0, ends.1), seq(*s));
                (*from..*to).for_each(|second| raise(model, second.div_euclid(60), *s));
            }
            Step::Times(seconds, s) => {
                let times: Vec<i64> = seconds.iter().map(|s| s * 1_000_000_000).collect();
                map.touch_times(&times, seq(*s));
                seconds.iter().for_each(|second| raise(model, second.div_euclid(60), *s));
            }
            Step::Coarsen(s) => {
                map.coarsen(seq(*s));
                let newest = model.values().copied().filter(|v| v <= s).max();
                model.values_mut().filter(|v| **v <= *s).for_each(|v| *v = newest.unwrap());
            }
        }
    }

    fn assert_same(map: &ChangeMap, model: &Model) {
        let mut flat = Model::new();
        let mut before: Option<(TimeRange, SequenceNumber)> = None;
        for (run, s) in map.runs() {
            let (first, end) = (run.start.as_nanos(), run.end.as_nanos());
            assert!(first < end && first % NANOS_PER_MINUTE == 0 && end % NANOS_PER_MINUTE == 0);
            let joined = before.is_some_and(|(b, other)| b.end == run.start && other == s);
            assert!(!joined, "runs that should be one: {before:?} {run}");
            (first / NANOS_PER_MINUTE..end / NANOS_PER_MINUTE)
                .for_each(|minute| assert!(flat.insert(minute, s.get()).is_none()));
            before = Some((run, s));
        }
        assert_eq!(&flat, model);
        assert_eq!(map.last().get(), model.values().copied().max().unwrap_or(0));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_commit_per_minute(
            steps in steps(),
            asked in 0u64..40,
            from in -900i64..900,
            len in 1i64..600,
        ) {
            let (mut map, mut model) = (ChangeMap::default(), Model::new());
            for step in &steps {
                let kept = map.clone();
                let frozen: Vec<_> = kept.runs().collect();
                carry_out(step, &mut map, &mut model);
                assert_same(&map, &model);
                prop_assert_eq!(frozen, kept.runs().collect::<Vec<_>>());
            }
            let within = TimeRange::new(Timestamp::from_secs(from), Timestamp::from_secs(from + len));
            let minutes_within = from.div_euclid(60)..=(from + len - 1).div_euclid(60);
            let inside = || model.iter().filter(|(minute, _)| minutes_within.contains(minute));
            let stale = inside().filter(|(_, s)| **s > asked);
            let stale: TimeRanges = stale.map(|(minute, _)| minutes_range(*minute, *minute)).collect();
            prop_assert_eq!(map.touched_after(seq(asked), within), stale);
            let last = inside().map(|(_, s)| *s).max().unwrap_or(0);
            prop_assert_eq!(map.last_change(within).get(), last);
            let text = serde_json::to_string(&map).unwrap();
            prop_assert_eq!(serde_json::from_str::<ChangeMap>(&text).unwrap(), map);
        }
    }
}
