use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_core::time::{NANOS_PER_DAY, NANOS_PER_MINUTE, NANOS_PER_SEC};
use highwater_core::{Condition, SequenceNumber, TimeRange, TimeRanges, Timestamp};
use proptest::prelude::*;

use super::choice::{CompactionReason, Hull};
use super::{CompactionInput, CompactionJob, Limits, choose, obsolete_tombstones, rewrite};
use crate::manifest::{MeasurementKind, Tombstone};
use crate::scan::tests::{Measurement, assert_same, step};
use crate::segment::test_rows::Row;
use crate::segment::{Removal, SegmentMeta};

const LIMITS: Limits = Limits { segments: 8, max_rows: 1000, max_bytes: 1 << 40, window_rows: 0 };

fn seq(number: u64) -> SequenceNumber {
    SequenceNumber::new(number)
}

fn range(start: i64, end: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end))
}

fn segment(path: u64, (min, max): (u64, u64), (start, end): (i64, i64), rows: u64) -> SegmentMeta {
    let (min_seq, max_seq) = (seq(min), seq(max));
    let (path, times) = (path.to_string(), range(start, end));
    let (bytes, footer_at, footer_crc, tags) = (rows, 0, 0, Vec::new());
    SegmentMeta { path, bytes, footer_at, footer_crc, rows, times, min_seq, max_seq, tags }
}

fn input(kind: MeasurementKind, segments: Vec<SegmentMeta>, settled: u64) -> CompactionInput {
    let segments = segments.into_iter().map(Arc::new).collect();
    let floor = TimeRange::ALL.start;
    let (damaged, tombstones) = Default::default();
    CompactionInput { kind, segments, damaged, tombstones, floor, settled: seq(settled) }
}

fn members(job: &CompactionJob) -> Vec<&str> {
    job.segments.iter().map(|segment| segment.path.as_str()).collect()
}

fn hide(input: &mut CompactionInput, number: u64, times: TimeRange) {
    let tombstone = Tombstone { seq: seq(number), times: times.into(), condition: Condition::All };
    input.tombstones.push(Arc::new(tombstone));
}

/// Applies jobs as if every row stayed; returns the rows rewritten.
fn apply(input: &mut CompactionInput, jobs: Vec<CompactionJob>, next_path: &mut u64) -> u64 {
    let mut rewritten = 0;
    for job in jobs {
        let rows: u64 = job.segments.iter().map(|segment| segment.rows).sum();
        let starts = job.segments.iter().map(|segment| segment.times.start);
        let ends = job.segments.iter().map(|segment| segment.times.end);
        let min_seq = job.segments.iter().map(|segment| segment.min_seq).min().unwrap();
        let paths: Vec<String> = members(&job).into_iter().map(str::to_owned).collect();
        input.segments.retain(|segment| !paths.contains(&segment.path));
        *next_path += 1;
        let result = SegmentMeta {
            times: TimeRange::new(starts.min().unwrap(), ends.max().unwrap()),
            min_seq,
            max_seq: job.max_seq,
            ..segment(*next_path, (0, 0), (0, 0), rows)
        };
        input.segments.push(Arc::new(result));
        rewritten += rows;
    }
    let obsolete = obsolete_tombstones(&input.tombstones, &ages(&input.segments));
    input.tombstones.retain(|tombstone| !obsolete.contains(&tombstone.seq));
    rewritten
}

fn ages(segments: &[Arc<SegmentMeta>]) -> Vec<(SequenceNumber, TimeRange)> {
    segments.iter().map(|segment| (segment.max_seq, segment.times)).collect()
}

#[test]
fn a_damaged_segment_is_left_alone_and_nothing_is_joined_across_it() {
    let segments = (1..=20).map(|at| segment(at, (at, at), (0, 100), 10)).collect();
    let mut input = input(MeasurementKind::Points, segments, 100);
    input.damaged.insert("10".to_owned());
    let jobs = choose(&input, &LIMITS);
    assert!(!jobs.is_empty());
    for job in &jobs {
        let members = members(job);
        assert!(!members.contains(&"10"), "{members:?}");
        let older = |path: &&&str| path.parse::<u64>().unwrap() < 10;
        let count = members.iter().filter(older).count();
        assert!(count == 0 || count == members.len(), "{members:?}");
    }
}

#[test]
fn a_day_of_small_flushes_is_rewritten_few_times() {
    let mut day = input(MeasurementKind::Points, Vec::new(), 0);
    let limits = Limits { max_rows: 1 << 30, ..LIMITS };
    let (mut rewritten, mut next_path) = (0, 1_000_000);
    for i in 1..=1440_i64 {
        let (at, minute) = (i as u64, NANOS_PER_MINUTE);
        day.segments.push(Arc::new(segment(at, (at, at), (i * minute, (i + 1) * minute), 100)));
        day.settled = seq(at);
        let jobs = choose(&day, &limits);
        rewritten += apply(&mut day, jobs, &mut next_path);
        assert!(day.segments.len() <= limits.segments + 1, "{} segments", day.segments.len());
    }
    let amplification = rewritten as f64 / 144_000.0;
    assert!(amplification < 6.0, "every row was rewritten {amplification} times");
}

/// Ten years with a row a day, one flush each.
#[test]
fn years_of_a_few_rows_are_few_segments() {
    let mut years = input(MeasurementKind::Points, Vec::new(), 0);
    let limits = Limits { window_rows: 1000, ..LIMITS };
    let (mut rewritten, mut next_path) = (0, 1_000_000);
    for i in 1..=3650_i64 {
        let (at, day) = (i as u64, NANOS_PER_DAY);
        years.segments.push(Arc::new(segment(at, (at, at), (i * day, i * day + 1), 1)));
        years.settled = seq(at);
        let jobs = choose(&years, &limits);
        rewritten += apply(&mut years, jobs, &mut next_path);
    }
    let count = years.segments.len();
    assert!(count <= 4 * (limits.segments + 1), "{count} segments");
    assert!(rewritten < 6 * 3650, "{rewritten} rows were rewritten");
}

#[test]
fn a_day_of_many_rows_is_not_joined_with_its_neighbours() {
    let mut segments: Vec<SegmentMeta> = Vec::new();
    for i in 1..=40u64 {
        let day = (i as i64 - 1) / 10;
        let rows = if day == 1 { 300 } else { 1 };
        let times = (day * NANOS_PER_DAY, day * NANOS_PER_DAY + 1);
        segments.push(segment(i, (i, i), times, rows));
    }
    let days = input(MeasurementKind::Points, segments, 40);
    let jobs = choose(&days, &Limits { window_rows: 100, max_rows: 1 << 20, ..LIMITS });
    let days_of = |job: &CompactionJob| {
        let days = job.segments.iter().map(|one| one.times.start.as_nanos() / NANOS_PER_DAY);
        days.collect::<BTreeSet<i64>>()
    };
    assert!(jobs.iter().all(|job| days_of(job).len() == 1 || !days_of(job).contains(&1)));
    assert!(jobs.iter().any(|job| days_of(job) == BTreeSet::from([2, 3])), "{jobs:?}");
}

#[test]
fn what_has_expired_leaves_segments_that_hold_more() {
    let segments = vec![segment(1, (1, 1), (0, 100), 500), segment(2, (2, 2), (50, 150), 500)];
    let mut days = input(MeasurementKind::Points, segments, 2);
    days.floor = Timestamp::from_nanos(25);
    assert_eq!(choose(&days, &LIMITS), [], "a quarter can wait");
    days.floor = Timestamp::from_nanos(26);
    let jobs = choose(&days, &LIMITS);
    assert_eq!(jobs.iter().map(members).collect::<Vec<_>>(), [["1"]]);
    assert_eq!(jobs[0].reason, CompactionReason::HiddenRows);
}

#[test]
fn large_segments_are_left_alone() {
    let large = |i: i64| segment(i as u64, (i as u64, i as u64), (i * 10, i * 10 + 10), 600);
    let day = input(MeasurementKind::Points, (1..50).map(large).collect(), 50);
    assert_eq!(choose(&day, &LIMITS), []);
}

#[test]
fn nothing_between_two_members_is_left_out() {
    let mut segments: Vec<SegmentMeta> =
        (1..=9).map(|i| segment(i, (i, i), (0, 100), 10)).collect();
    segments[4].rows = 900;
    let day = input(MeasurementKind::Points, segments, 9);
    let jobs = choose(&day, &Limits { segments: 4, ..LIMITS });
    assert_eq!(
        jobs.iter().map(members).collect::<Vec<_>>(),
        [["1", "2", "3", "4"], ["6", "7", "8", "9"]]
    );
    assert_eq!((jobs[0].max_seq, jobs[1].max_seq), (seq(4), seq(9)));
}

#[test]
fn a_segment_that_is_mostly_hidden_is_rewritten_with_those_it_overlaps() {
    let segments = vec![
        segment(1, (1, 1), (0, 100), 500),
        segment(2, (2, 3), (50, 150), 500),
        segment(3, (5, 5), (0, 100), 500),
        segment(4, (2, 2), (500, 600), 500),
    ];
    let mut day = input(MeasurementKind::Points, segments, 7);
    hide(&mut day, 4, range(0, 20));
    assert_eq!(choose(&day, &LIMITS), []);
    hide(&mut day, 7, range(10, 30));
    let jobs = choose(&day, &LIMITS);
    assert_eq!(jobs.len(), 1);
    assert_eq!(members(&jobs[0]), ["1", "2", "3"]);
    assert_eq!((jobs[0].reason, jobs[0].max_seq), (CompactionReason::HiddenRows, seq(7)));
    apply(&mut day, jobs, &mut 100);
    assert_eq!(day.tombstones, []);
    assert_eq!(choose(&day, &LIMITS), []);
}

#[test]
fn tombstones_that_are_not_settled_wait() {
    let mut day = input(MeasurementKind::Points, vec![segment(1, (1, 1), (0, 100), 500)], 3);
    hide(&mut day, 4, range(0, 100));
    assert_eq!(choose(&day, &LIMITS), []);
    day.settled = seq(4);
    assert_eq!(choose(&day, &LIMITS)[0].max_seq, seq(4));
}

#[test]
fn a_materialization_refreshed_all_day_keeps_few_segments_and_tombstones() {
    let mut day = input(MeasurementKind::Materialization, Vec::new(), 0);
    let (mut rewritten, mut next_path, mut written) = (0, 1_000_000, 0);
    let limits = Limits { max_rows: 1 << 30, ..LIMITS };
    for i in 1..=2000_i64 {
        // The bucket in progress is replaced, now and then an old one too.
        let bucket = if i % 7 == 0 { i / 14 } else { i / 2 };
        let times = (bucket * NANOS_PER_MINUTE, (bucket + 1) * NANOS_PER_MINUTE);
        hide(&mut day, i as u64, range(times.0, times.1));
        day.segments.push(Arc::new(segment(i as u64, (i as u64, i as u64), times, 100)));
        day.settled = seq(i as u64);
        written += 100;
        let jobs = choose(&day, &limits);
        rewritten += apply(&mut day, jobs, &mut next_path);
        assert!(day.segments.len() <= limits.segments + 1, "{} segments", day.segments.len());
        assert!(day.tombstones.len() <= 64, "{} tombstones", day.tombstones.len());
    }
    assert!(rewritten < 40 * written, "{}", rewritten / written);
}

#[test]
fn large_overlapping_segments_are_parted() {
    let segments = (1..=9).map(|i| segment(i, (i, i), (i as i64, 100), 700)).collect();
    let jobs = choose(&input(MeasurementKind::Points, segments, 9), &LIMITS);
    assert_eq!(jobs.len(), 1);
    assert_eq!(members(&jobs[0]), ["1", "2", "3", "4", "5", "6", "7", "8"]);
    assert_eq!(jobs[0].reason, CompactionReason::Overlaps(9));
}

impl Measurement {
    /// Carries out what is due, until nothing is; returns the number of jobs.
    async fn compact(&mut self, limits: Limits) -> usize {
        let unflushed = self.sources.rows.iter().map(|rows| rows.seqs().0.get()).min();
        let settled = unflushed.map_or(self.seq, |first| seq(first - 1));
        let mut done = 0;
        loop {
            let input = CompactionInput {
                kind: self.sources.kind,
                segments: self.segments().iter().map(|s| Arc::clone(s.meta())).collect(),
                damaged: BTreeSet::new(),
                tombstones: self.sources.tombstones.clone(),
                floor: self.sources.floor,
                settled,
            };
            let jobs = choose(&input, &limits);
            if jobs.is_empty() {
                return done;
            }
            for job in jobs {
                self.carry_out(&job, limits).await;
                done += 1;
            }
            assert!(done < 100, "compaction comes to an end");
        }
    }

    async fn carry_out(&mut self, job: &CompactionJob, limits: Limits) {
        let results =
            rewrite(job, &self.sources, &Measurement::id(), &self.store, limits).await.unwrap();
        let paths = members(job);
        self.sources.segments.retain(|segment| {
            let is_member = paths.contains(&segment.meta().path.as_str());
            if is_member {
                segment.mark_removed(Removal::Delete);
            }
            !is_member
        });
        for (at, result) in results.iter().enumerate() {
            let others = &results[at + 1..];
            assert!(others.iter().all(|other| !other.times.overlaps(result.times)));
            self.sources.segments.push(self.store.handle(Arc::new(result.clone())));
        }
        self.check_order();
        let mut metas: Vec<_> = self.segments().iter().map(|s| Arc::clone(s.meta())).collect();
        metas.extend(self.sources.rows.iter().map(|rows| {
            let (min_seq, max_seq) = rows.seqs();
            Arc::new(SegmentMeta {
                times: rows.times(),
                min_seq,
                max_seq,
                ..segment(0, (0, 0), (0, 0), 0)
            })
        }));
        let obsolete = obsolete_tombstones(&self.sources.tombstones, &ages(&metas));
        self.sources.tombstones.retain(|tombstone| !obsolete.contains(&tombstone.seq));
        assert!(self.store.delete_unreferenced().await > 0);
    }

    /// Segments that overlap in time do not overlap in age.
    fn check_order(&self) {
        for (at, a) in self.segments().iter().enumerate() {
            for b in &self.segments()[at + 1..] {
                let (a, b) = (a.meta(), b.meta());
                let is_ordered = a.max_seq < b.min_seq || b.max_seq < a.min_seq;
                assert!(is_ordered || !a.times.overlaps(b.times), "{a:?} and {b:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compaction_changes_no_row(
        parts in prop::collection::vec(prop::collection::vec(step(), 1..8), 1..4),
        segments in 2..4_usize,
        max_rows in prop_oneof![Just(20_u64), Just(1000)],
        window_rows in prop_oneof![Just(0_u64), Just(5), Just(1000)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut measurement = Measurement::new(7);
            let limits = Limits { segments, max_rows, max_bytes: 1 << 40, window_rows };
            for steps in parts {
                for step in steps {
                    measurement.apply(step).await;
                }
                measurement.compact(limits).await;
                assert_same(&measurement.all_rows(2).await, &measurement.expected(|_| true));
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Jobs of one round know nothing of each other's results.
    #[test]
    fn results_of_one_round_have_an_order(
        segments in prop::collection::vec((0..30_i64, 1..12_i64, 0..3_usize), 3..14),
        tombstones in prop::collection::vec((1..14_u64, 0..30_i64, 1..12_i64), 0..4),
        few in 2..4_usize,
    ) {
        let segments = segments.into_iter().zip(1..).map(|((start, length, size), at)| {
            segment(at, (at, at), (start, start + length), [5, 100, 900][size])
        });
        let mut input = input(MeasurementKind::Points, segments.collect(), 20);
        for (number, start, length) in tombstones {
            hide(&mut input, number, range(start, start + length));
        }
        let jobs = choose(&input, &Limits { segments: few, ..LIMITS });
        let taken: Vec<&str> = jobs.iter().flat_map(members).collect();
        let is_left = |segment: &&Arc<SegmentMeta>| !taken.contains(&segment.path.as_str());
        let left = input.segments.iter().filter(is_left).map(|segment| Hull::of(segment));
        let results = jobs.iter().map(|job| Hull {
            times: TimeRange::new(
                job.segments.iter().map(|one| one.times.start).min().unwrap(),
                job.segments.iter().map(|one| one.times.end).max().unwrap(),
            ),
            min_seq: job.segments.iter().map(|one| one.min_seq).min().unwrap(),
            max_seq: job.max_seq,
        });
        let after: Vec<Hull> = left.chain(results).collect();
        for (at, one) in after.iter().enumerate() {
            let other = after[at + 1..].iter().find(|other| one.conflicts(other));
            prop_assert!(other.is_none(), "{one:?} and {other:?}");
        }
    }
}

#[tokio::test]
async fn results_follow_one_another_in_time_and_forget_what_is_hidden() {
    let mut measurement = Measurement::new(128);
    let second = |i: i64| Row::at(i * NANOS_PER_SEC).tag("host", "h").field("a", i);
    for part in 0..6 {
        let rows: Vec<Row> = (0..500).map(|i| second(6 * i + part)).collect();
        measurement.write_segment(&rows).await;
    }
    let first_minute = TimeRange::new(Timestamp::EPOCH, Timestamp::from_secs(60));
    measurement.delete(TimeRanges::from(first_minute), Condition::All);
    let limits = Limits { segments: 4, max_rows: 1200, ..LIMITS };
    assert_eq!(measurement.compact(limits).await, 1);
    let mut rows: Vec<u64> = measurement.segments().iter().map(|s| s.meta().rows).collect();
    rows.sort_unstable();
    assert_eq!(rows, [960, 960, 1020]);
    assert_eq!(measurement.sources.tombstones, []);
    assert_eq!(measurement.all_rows(2).await, measurement.expected(|_| true));
}
