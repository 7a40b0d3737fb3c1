//! Which segments to rewrite together, and why: pure.
//!
//! Segments that overlap in time are ordered by age, because the newest value of a field wins. So
//! a job never takes two of them and leaves out one that is between them:
//!
//! ```text
//!  age    time ─────────────►
//!   1     ██████████                   1 and 3 alone: not allowed, 2 is between them
//!   2           █████████              1, 2 and 3: allowed
//!   3        ███████                   4 lies elsewhere in time and may come along or not
//!   4                      █████
//! ```
//!
//! Rows that a tombstone hides are left out of the result. If nothing that overlaps it is newer,
//! the result counts as being as new as the tombstone, which can then be forgotten.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use highwater_core::{Condition, SequenceNumber, TimeRange, TimeRanges, Timestamp};

use crate::manifest::{MeasurementKind, Tombstone};
use crate::segment::SegmentMeta;
use crate::segment::windows::windows;

/// A segment is rewritten when tombstones take away more than one in so many of its rows.
const HIDDEN_SHARE: i128 = 4;
/// ... or when so many tombstones concern it, and one more for each so many rows.
const TOMBSTONES: usize = 16;
const ROWS_PER_TOMBSTONE: u64 = 16 * 1024;
/// ... or when one of them names so many points one by one, which the manifest should not keep.
const NAMED_POINTS: usize = 1024;
/// A job that joins small segments reads at most so many times what one segment may hold.
const MAX_JOB_SEGMENTS: u64 = 8;

/// When segments are rewritten, and how large they become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// So many small segments per window are fine.
    pub(crate) segments: usize,
    /// Results have about this many rows at most ...
    pub(crate) max_rows: u64,
    /// ... and bytes. A segment with half as much is not small.
    pub(crate) max_bytes: u64,
    /// Neighbouring days share a segment as long as they have no more rows.
    pub(crate) window_rows: u64,
}

impl Limits {
    /// For up to `segments` small segments per window of days, but no fewer than two.
    pub(crate) fn new(segments: usize, window_rows: u64) -> Self {
        Limits { segments: segments.max(2), max_rows: 4 << 20, max_bytes: 64 << 20, window_rows }
    }

    fn is_small(&self, segment: &SegmentMeta) -> bool {
        segment.rows < self.max_rows / 2 && segment.bytes < self.max_bytes / 2
    }
}

/// What is to be known of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct CompactionInput {
    /// Whether rows are deduplicated.
    pub(crate) kind: MeasurementKind,
    /// All live segments.
    pub(crate) segments: Vec<Arc<SegmentMeta>>,
    /// Paths of those that cannot be read.
    pub(crate) damaged: BTreeSet<String>,
    /// All tombstones.
    pub(crate) tombstones: Vec<Arc<Tombstone>>,
    /// Rows before it are gone.
    pub(crate) floor: Timestamp,
    /// The rows of all commits up to this one are in `segments`, and its tombstones are durable.
    pub(crate) settled: SequenceNumber,
}

/// Segments of one window of days to be rewritten together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CompactionJob {
    /// Which, oldest first.
    pub(crate) segments: Vec<Arc<SegmentMeta>>,
    /// `max_seq` of the results: tombstones up to this one are in effect in them.
    pub(crate) max_seq: SequenceNumber,
    /// Tombstones up to this one may be put into effect.
    pub(crate) settled: SequenceNumber,
    /// Why.
    pub(crate) reason: CompactionReason,
}

/// Why segments are rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompactionReason {
    /// The window has so many small segments.
    ManySegments(usize),
    /// So many large segments overlap at one instant.
    Overlaps(usize),
    /// A good part of a segment is hidden.
    HiddenRows,
    /// So many tombstones concern one segment.
    ManyTombstones(usize),
}

impl fmt::Display for CompactionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompactionReason::ManySegments(count) => write!(f, "{count} small segments"),
            CompactionReason::Overlaps(count) => write!(f, "{count} overlapping segments"),
            CompactionReason::HiddenRows => f.write_str("hidden rows"),
            CompactionReason::ManyTombstones(count) => write!(f, "{count} tombstones"),
        }
    }
}

/// The jobs that are due; no segment is in two of them.
pub(crate) fn choose(input: &CompactionInput, limits: &Limits) -> Vec<CompactionJob> {
    let days = segments_by_days(&input.segments).into_iter().map(|segments| {
        let rows = segments.iter().map(|segment| segment.rows).sum();
        (segments, rows)
    });
    let windows = windows(days, limits.window_rows).into_iter().map(|days| days.concat());
    windows.flat_map(|segments| Window::new(input, limits, segments).jobs()).collect()
}

/// The segments parted where no segment has rows of two neighbouring days, in order of time.
fn segments_by_days(segments: &[Arc<SegmentMeta>]) -> Vec<Vec<Arc<SegmentMeta>>> {
    let mut in_order = segments.to_vec();
    in_order.sort_by_key(|segment| segment.times.start);
    let mut parted: Vec<Vec<Arc<SegmentMeta>>> = Vec::new();
    let mut last_day = None;
    for segment in in_order {
        let first = segment.times.start.start_of_day();
        let last = segment.times.end.saturating_sub(1).start_of_day();
        match parted.last_mut() {
            Some(part) if Some(first) <= last_day => part.push(segment),
            _ => parted.push(vec![segment]),
        }
        last_day = last_day.max(Some(last));
    }
    parted
}

/// The segments of one window of days.
struct Window<'a> {
    input: &'a CompactionInput,
    limits: &'a Limits,
    /// Oldest first.
    segments: Vec<Arc<SegmentMeta>>,
    /// Positions of segments that are in a job or cannot be in one.
    taken: BTreeSet<usize>,
    jobs: Vec<CompactionJob>,
    /// What becomes of each job.
    results: Vec<Hull>,
}

impl<'a> Window<'a> {
    fn new(
        input: &'a CompactionInput,
        limits: &'a Limits,
        mut segments: Vec<Arc<SegmentMeta>>,
    ) -> Self {
        segments.sort_by_key(|segment| (segment.max_seq, segment.min_seq, segment.times.start));
        let is_damaged = |at: &usize| input.damaged.contains(&segments[*at].path);
        let taken = (0..segments.len()).filter(is_damaged).collect();
        let (jobs, results) = Default::default();
        Window { input, limits, segments, taken, jobs, results }
    }

    fn jobs(mut self) -> Vec<CompactionJob> {
        self.rewrite_hidden();
        while self.join_small() {}
        if self.input.kind.is_deduplicated() {
            self.part_overlapping();
        }
        self.jobs
    }

    /// Segments of which much is hidden, with whatever is older than the newest tombstone there.
    fn rewrite_hidden(&mut self) {
        for at in 0..self.segments.len() {
            let Some((reason, newest)) = self.hidden_in(&self.segments[at]) else { continue };
            let mut members = BTreeSet::from([at]);
            if self.input.kind.is_deduplicated()
                && let Some(newest) = newest
            {
                self.add_overlapping(&mut members, newest);
            }
            self.take(members, reason);
        }
    }

    /// Whether a segment should be rewritten because of tombstones and of what has expired, and
    /// the newest tombstone if there is one.
    fn hidden_in(
        &self,
        segment: &SegmentMeta,
    ) -> Option<(CompactionReason, Option<SequenceNumber>)> {
        let concerns = |tombstone: &&Arc<Tombstone>| {
            tombstone.seq > segment.max_seq
                && tombstone.seq <= self.input.settled
                && tombstone.times.overlaps(segment.times)
        };
        let concerned: Vec<&Arc<Tombstone>> =
            self.input.tombstones.iter().filter(concerns).collect();
        let newest = concerned.iter().map(|tombstone| tombstone.seq).max();
        let expired = TimeRange::before(self.input.floor).intersect(segment.times);
        let whole = concerned.iter().filter(|tombstone| tombstone.condition == Condition::All);
        let hidden: TimeRanges = whole
            .flat_map(|tombstone| tombstone.times.within(segment.times).iter().collect::<Vec<_>>())
            .chain([expired])
            .collect();
        let hidden_nanos: i128 = hidden.iter().map(length).sum();
        let bearable = TOMBSTONES + (segment.rows / ROWS_PER_TOMBSTONE) as usize;
        let names_many = |tombstone: &&Arc<Tombstone>| match &tombstone.condition {
            Condition::Points(points) => points.len() >= NAMED_POINTS,
            _ => false,
        };
        if hidden_nanos * HIDDEN_SHARE > length(segment.times) || concerned.iter().any(names_many) {
            Some((CompactionReason::HiddenRows, newest))
        } else if concerned.len() > bearable {
            Some((CompactionReason::ManyTombstones(concerned.len()), newest))
        } else {
            None
        }
    }

    /// Joins some of the small segments if there are too many; `false` if there is nothing (more)
    /// to join.
    ///
    /// As long as the largest of a job is no larger than the others together, a row's segment at
    /// least doubles whenever it is rewritten. That keeps the number of times logarithmic.
    fn join_small(&mut self) -> bool {
        let runs = self.runs_of_small();
        let small: usize = runs.iter().map(Vec::len).sum();
        // A job leaves one segment, which will be there too.
        if small + self.jobs.len() <= self.limits.segments {
            return false;
        }
        let best = |is_balanced: bool| {
            let candidates = runs.iter().filter_map(|run| self.best_neighbours(run, is_balanced));
            candidates.min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let Some((_, members)) = best(true).or_else(|| best(false)) else { return false };
        self.take(members, CompactionReason::ManySegments(small))
    }

    /// Small segments that nothing keeps from being joined with their neighbours in the list.
    fn runs_of_small(&self) -> Vec<Vec<usize>> {
        let is_small = |at: &usize| self.limits.is_small(&self.segments[*at]);
        let is_free = |at: &usize| !self.taken.contains(at);
        let all = 0..self.segments.len();
        if !self.input.kind.is_deduplicated() {
            let mut small: Vec<usize> = all.filter(is_small).filter(is_free).collect();
            small.sort_by_key(|at| self.segments[*at].times.start);
            return vec![small];
        }
        let small: Vec<usize> = all.clone().filter(is_small).filter(is_free).collect();
        let is_wall = |at: &usize| {
            let times = self.segments[*at].times;
            small.iter().any(|small| self.segments[*small].times.overlaps(times))
        };
        let joinable = |at: &usize| is_small(at) && is_free(at);
        let relevant: Vec<usize> = all.filter(|at| joinable(at) || is_wall(at)).collect();
        let runs = relevant.split(|at| !joinable(at)).map(<[usize]>::to_vec);
        runs.filter(|run| !run.is_empty()).collect()
    }

    /// The neighbours in a run that are joined with the least reading for what it saves.
    fn best_neighbours(&self, run: &[usize], is_balanced: bool) -> Option<(f64, BTreeSet<usize>)> {
        let most_rows = MAX_JOB_SEGMENTS * self.limits.max_rows;
        let mut best: Option<(f64, &[usize])> = None;
        for start in 0..run.len() {
            let (mut rows, mut largest) = (0, 0);
            for (end, at) in run.iter().enumerate().skip(start) {
                rows += self.segments[*at].rows;
                largest = largest.max(self.segments[*at].rows);
                if rows > most_rows {
                    break;
                }
                if end == start || (is_balanced && largest > rows - largest) {
                    continue;
                }
                let cost = rows as f64 / ((end - start) as f64).powi(2);
                if best.is_none_or(|(least, _)| cost <= least) {
                    best = Some((cost, &run[start..=end]));
                }
            }
        }
        best.map(|(cost, members)| (cost, members.iter().copied().collect()))
    }

    /// Large segments that overlap too often are rewritten so that they follow one another.
    fn part_overlapping(&mut self) {
        let deepest = (0..self.segments.len())
            .filter(|at| !self.taken.contains(at))
            .map(|at| self.covering(self.segments[at].times.start))
            .max_by_key(BTreeSet::len);
        let Some(members) = deepest.filter(|members| members.len() > self.limits.segments) else {
            return;
        };
        let count = members.len();
        let oldest = members.into_iter().take(self.limits.segments).collect();
        self.take(oldest, CompactionReason::Overlaps(count));
    }

    fn covering(&self, time: Timestamp) -> BTreeSet<usize> {
        let covers = |at: &usize| self.segments[*at].times.contains(time);
        (0..self.segments.len()).filter(covers).collect()
    }

    /// Makes a job of these and what has to come along; `false` if another job has some of it, or
    /// leaves something that would be neither older nor newer than the result of this one.
    fn take(&mut self, mut members: BTreeSet<usize>, reason: CompactionReason) -> bool {
        if self.input.kind.is_deduplicated() {
            self.add_between(&mut members);
        }
        if !members.is_disjoint(&self.taken) {
            return false;
        }
        let max_seq = self.max_seq(&members);
        let result = Hull { max_seq, ..self.hull(&members) };
        let is_deduplicated = self.input.kind.is_deduplicated();
        if is_deduplicated && self.results.iter().any(|other| other.conflicts(&result)) {
            return false;
        }
        self.results.push(result);
        let segments = members.iter().map(|at| Arc::clone(&self.segments[*at])).collect();
        let settled = self.input.settled;
        self.jobs.push(CompactionJob { segments, max_seq, settled, reason });
        self.taken.extend(members);
        true
    }

    /// Adds segments that overlap the members in time and have a row from up to `newest`.
    fn add_overlapping(&self, members: &mut BTreeSet<usize>, newest: SequenceNumber) {
        self.add_while(members, |hull, segment| {
            segment.min_seq <= newest && hull.times.overlaps(segment.times)
        });
    }

    /// Adds segments that overlap the members in time and age.
    fn add_between(&self, members: &mut BTreeSet<usize>) {
        self.add_while(members, |hull, segment| hull.conflicts(&Hull::of(segment)));
    }

    fn add_while(
        &self,
        members: &mut BTreeSet<usize>,
        belongs: impl Fn(&Hull, &SegmentMeta) -> bool,
    ) {
        loop {
            let hull = self.hull(members);
            let belongs = |at: &usize| !members.contains(at) && belongs(&hull, &self.segments[*at]);
            let more: Vec<usize> = (0..self.segments.len()).filter(belongs).collect();
            if more.is_empty() {
                return;
            }
            members.extend(more);
        }
    }

    fn hull(&self, members: &BTreeSet<usize>) -> Hull {
        let members = || members.iter().map(|at| &self.segments[*at]);
        let start = members().map(|segment| segment.times.start).min();
        let end = members().map(|segment| segment.times.end).max();
        Hull {
            times: TimeRange::new(start.unwrap_or_default(), end.unwrap_or_default()),
            min_seq: members().map(|segment| segment.min_seq).min().unwrap_or_default(),
            max_seq: members().map(|segment| segment.max_seq).max().unwrap_or_default(),
        }
    }

    /// The result is as new as it can be without overtaking anything it overlaps.
    fn max_seq(&self, members: &BTreeSet<usize>) -> SequenceNumber {
        let hull = self.hull(members);
        let settled = self.input.settled;
        if !self.input.kind.is_deduplicated() {
            return hull.max_seq.max(settled);
        }
        let newer = self
            .segments
            .iter()
            .filter(|segment| segment.min_seq > hull.max_seq && segment.times.overlaps(hull.times));
        let next = newer.map(|segment| segment.min_seq.get()).min();
        let before_next = next.map_or(settled, |next| SequenceNumber::new(next - 1));
        hull.max_seq.max(settled.min(before_next))
    }
}

/// Bounds of several segments.
#[derive(Debug)]
pub(super) struct Hull {
    pub(super) times: TimeRange,
    pub(super) min_seq: SequenceNumber,
    pub(super) max_seq: SequenceNumber,
}

impl Hull {
    pub(super) fn of(segment: &SegmentMeta) -> Self {
        let SegmentMeta { times, min_seq, max_seq, .. } = *segment;
        Hull { times, min_seq, max_seq }
    }

    /// Whether two overlap in time and neither is older.
    pub(super) fn conflicts(&self, other: &Hull) -> bool {
        self.min_seq <= other.max_seq
            && other.min_seq <= self.max_seq
            && self.times.overlaps(other.times)
    }
}

/// In nanoseconds; a range may be longer than 64 bits hold.
fn length(range: TimeRange) -> i128 {
    i128::from(range.end.as_nanos()) - i128::from(range.start.as_nanos())
}
