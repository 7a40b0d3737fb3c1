//! What a refresh should do now, and why. Only thinks; refreshing carries the plan out.

use std::fmt;

use highwater_core::{TimeRange, TimeRanges, Timestamp};

use crate::pieces::Pieces;

/// What a refresh should do now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshPlan {
    /// Everything that was asked for is materialized.
    UpToDate,
    /// Recompute these whole pieces.
    Recompute {
        /// Whole pieces, never sealed ones.
        ranges: TimeRanges,
        /// What made it necessary.
        reason: Reason,
    },
}

/// What made a refresh necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Time passed, and buckets beyond the watermark closed.
    BucketsClosed,
    /// Points came, changed or went below the watermark.
    LatePoints,
    /// Points came, changed or went in an aggregate that need not wait until buckets close: it
    /// follows every commit, or is kept by days.
    ChangedPoints,
    /// A critical field was written.
    CriticalChange,
    /// Somebody asked for it.
    Request,
    /// The source is about to expire, and what it still holds must be kept.
    Sealing,
    /// A changed definition needs partials of its own.
    Definition,
    /// A new aggregate needs what was there before it.
    Backfill,
}

impl Reason {
    /// One word, for logs, metrics and `system.aggregate_runs`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::BucketsClosed => "buckets_closed",
            Reason::LatePoints => "late_points",
            Reason::ChangedPoints => "changed_points",
            Reason::CriticalChange => "critical_change",
            Reason::Request => "request",
            Reason::Sealing => "sealing",
            Reason::Definition => "definition",
            Reason::Backfill => "backfill",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::BucketsClosed => "closed buckets",
            Reason::LatePoints => "late points",
            Reason::ChangedPoints => "changed points",
            Reason::CriticalChange => "critical changes",
            Reason::Request => "a request",
            Reason::Sealing => "expiring source data",
            Reason::Definition => "a changed definition",
            Reason::Backfill => "a backfill",
        })
    }
}

/// Why a plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// The schedule says so: closed buckets, or all days of an aggregate that is kept by days, and
    /// what critical changes touched.
    Scheduled,
    /// The source has changed, and every change counts at once: all stale pieces, open ones too.
    Changed,
    /// A critical field has changed: the pieces that such changes touched, open ones too.
    Critical,
    /// Somebody asks for what the schedule would do.
    Requested,
    /// Somebody asks for every bucket this window touches, open and clean ones too.
    RequestedWindow(TimeRange),
    /// Source data before this instant is about to expire: stale pieces there, open ones too.
    Sealing(Timestamp),
    /// A changed definition is built beside the one in force, whatever its schedule says.
    Building,
    /// A job brings in what was there when the aggregate was made.
    Backfill,
}

impl Occasion {
    /// Whether nobody waits for all of it, so that what is left may be done some other time.
    pub fn is_scheduled(self) -> bool {
        matches!(self, Occasion::Scheduled | Occasion::Changed | Occasion::Critical)
    }
}

/// Where an aggregate stands, at one version.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// How its time is cut.
    pub pieces: Pieces,
    /// Its stale pieces, see [`stale`](crate::staleness::stale).
    pub stale: &'a TimeRanges,
    /// Those of them that critical changes have overtaken.
    pub critical: &'a TimeRanges,
    /// Its watermark, if it has one yet.
    pub watermark: Option<Timestamp>,
    /// End of the last closed bucket, see [`closing`](crate::watermark::closing); `None` if
    /// it is kept by days, so that nothing needs to close.
    pub closing: Option<Timestamp>,
    /// Everything its source holds or its partials cover; a window is cut down to it.
    pub extent: Option<TimeRange>,
    /// Pieces that end at or before this instant are sealed and never recomputed.
    pub sealed_before: Timestamp,
}

/// What a refresh should do.
pub fn plan(standing: &Standing<'_>, occasion: Occasion) -> RefreshPlan {
    match occasion {
        Occasion::Scheduled => {
            let due = standing.closed().union(standing.critical);
            let reason = standing.scheduled_reason(&due);
            RefreshPlan::recompute(due, reason)
        }
        Occasion::Changed => RefreshPlan::recompute(standing.stale.clone(), Reason::ChangedPoints),
        Occasion::Critical => {
            RefreshPlan::recompute(standing.critical.clone(), Reason::CriticalChange)
        }
        Occasion::Requested => RefreshPlan::recompute(standing.closed(), Reason::Request),
        Occasion::Building => RefreshPlan::recompute(standing.closed(), Reason::Definition),
        Occasion::Backfill => RefreshPlan::recompute(standing.closed(), Reason::Backfill),
        Occasion::RequestedWindow(window) => {
            RefreshPlan::recompute(standing.inside(window), Reason::Request)
        }
        Occasion::Sealing(before) => {
            let expiring = standing.stale.intersect(&TimeRange::before(before).into());
            let whole = standing.pieces.round_out_all(&expiring);
            RefreshPlan::recompute(whole, Reason::Sealing)
        }
    }
}

impl Standing<'_> {
    /// Stale pieces of closed buckets; all of them where nothing needs to close.
    fn closed(&self) -> TimeRanges {
        match self.closing {
            Some(closing) => self.stale.intersect(&TimeRange::before(closing).into()),
            None => self.stale.clone(),
        }
    }

    fn scheduled_reason(&self, due: &TimeRanges) -> Reason {
        let is_late = |watermark| due.overlaps(TimeRange::before(watermark));
        match self.closing {
            None => Reason::ChangedPoints,
            Some(_) if self.watermark.is_some_and(is_late) => Reason::LatePoints,
            Some(_) => Reason::BucketsClosed,
        }
    }

    /// The whole buckets that a window touches, as far as there is anything and it can be
    /// recomputed. Of an aggregate without buckets: whole pieces.
    fn inside(&self, window: TimeRange) -> TimeRanges {
        let Some(extent) = self.extent else { return TimeRanges::none() };
        let rounded = match self.pieces.bucket() {
            Some(bucket) => bucket.round_out(window),
            None => self.pieces.round_out(window),
        };
        let live = TimeRange::since(self.sealed_before);
        let pieces = self.pieces.round_out(rounded.intersect(extent).intersect(live));
        match pieces.start < self.sealed_before {
            // A piece that holds sealed time as well cannot be recomputed as a whole.
            true => TimeRanges::from(pieces).subtract(&self.pieces.piece_of(pieces.start).into()),
            false => pieces.into(),
        }
    }
}

impl RefreshPlan {
    fn recompute(ranges: TimeRanges, reason: Reason) -> Self {
        match ranges.is_empty() {
            true => RefreshPlan::UpToDate,
            false => RefreshPlan::Recompute { ranges, reason },
        }
    }

    /// What is to be recomputed.
    pub fn ranges(&self) -> TimeRanges {
        match self {
            RefreshPlan::UpToDate => TimeRanges::none(),
            RefreshPlan::Recompute { ranges, .. } => ranges.clone(),
        }
    }

    /// What made it necessary, if anything is to be done.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            RefreshPlan::UpToDate => None,
            RefreshPlan::Recompute { reason, .. } => Some(*reason),
        }
    }

    /// The plan in batches: each is whole pieces that add up to at most `most_nanos` of event
    /// time, or a single longer piece.
    pub fn batches(
        &self,
        pieces: Pieces,
        most_nanos: i64,
        order: BatchOrder,
    ) -> impl Iterator<Item = TimeRanges> {
        let mut left: Vec<TimeRange> = self.ranges().iter().collect();
        if order == BatchOrder::OldestFirst {
            left.reverse();
        }
        std::iter::from_fn(move || next_batch(&mut left, pieces, most_nanos, order))
    }
}

/// Which end of event time a backfill starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOrder {
    /// Recent buckets first: they are read most.
    NewestFirst,
    /// Earliest buckets first: the watermark follows.
    OldestFirst,
}

/// Takes a batch from the back of `left`.
fn next_batch(
    left: &mut Vec<TimeRange>,
    pieces: Pieces,
    most_nanos: i64,
    order: BatchOrder,
) -> Option<TimeRanges> {
    let mut batch = Vec::new();
    let mut room = i128::from(most_nanos);
    while let Some(range) = left.pop() {
        if i128::from(range.end.as_nanos()) - i128::from(range.start.as_nanos()) <= room {
            room -= i128::from(range.end.as_nanos()) - i128::from(range.start.as_nanos());
            batch.push(range);
            continue;
        }
        let (taken, rest) = cut(range, pieces, room, order, batch.is_empty());
        batch.push(taken);
        left.push(rest);
        left.retain(|range| !range.is_empty());
        break;
    }
    Some(batch.into_iter().collect()).filter(|batch: &TimeRanges| !batch.is_empty())
}

/// Cuts whole pieces of at most `room` nanoseconds off the side that comes first; one piece at
/// least if `must_take`.
fn cut(
    range: TimeRange,
    pieces: Pieces,
    room: i128,
    order: BatchOrder,
    must_take: bool,
) -> (TimeRange, TimeRange) {
    // A range longer than `room`, so `room` fits.
    let room = i64::try_from(room.max(0)).unwrap_or(i64::MAX);
    match order {
        BatchOrder::OldestFirst => {
            let fits = pieces.piece_of(range.start.saturating_add(room)).start.max(range.start);
            let at = match must_take && fits == range.start {
                true => pieces.piece_of(range.start).end.min(range.end),
                false => fits,
            };
            (TimeRange::new(range.start, at), TimeRange::new(at, range.end))
        }
        BatchOrder::NewestFirst => {
            let fits = pieces.round_out(TimeRange::before(range.end.saturating_sub(room))).end;
            let fits = fits.min(range.end);
            let at = match must_take && fits == range.end {
                true => pieces.piece_of(range.end.saturating_sub(1)).start.max(range.start),
                false => fits,
            };
            (TimeRange::new(at, range.end), TimeRange::new(range.start, at))
        }
    }
}

impl fmt::Display for RefreshPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefreshPlan::UpToDate => f.write_str("up to date"),
            RefreshPlan::Recompute { ranges, reason } => {
                write!(f, "recompute {ranges} because of {reason}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(&format!("2024-01-01T{text}:00Z")).unwrap()
    }

    fn range((start, end): (&str, &str)) -> TimeRange {
        TimeRange::new(at(start), at(end))
    }

    /// An hourly aggregate whose watermark is 10:00 and whose buckets are closed up to 11:00.
    fn plan_with(stale: &[(&str, &str)], occasion: Occasion) -> String {
        let stale = stale.iter().copied().map(range).collect();
        let standing = Standing {
            pieces: Pieces::of(Some("1h".parse().unwrap())),
            stale: &stale,
            critical: &TimeRanges::none(),
            watermark: Some(at("10:00")),
            closing: Some(at("11:00")),
            extent: Some(range(("07:10", "11:40"))),
            sealed_before: at("07:00"),
        };
        plan(&standing, occasion).to_string().replace("2024-01-01T", "").replace(":00:00Z", "h")
    }

    #[test]
    fn a_schedule_takes_stale_closed_buckets() {
        let scheduled = |stale: &[(&str, &str)]| plan_with(stale, Occasion::Scheduled);
        assert_snapshot!(scheduled(&[]), @"up to date");
        assert_snapshot!(scheduled(&[("11:00", "12:00")]), @"up to date");
        assert_snapshot!(scheduled(&[("10:00", "12:00")]), @"recompute [10h, 11h) because of closed buckets");
        assert_snapshot!(scheduled(&[("09:00", "10:00")]), @"recompute [09h, 10h) because of late points");
        assert_snapshot!(scheduled(&[("08:00", "09:00"), ("10:00", "11:00")]), @"recompute [08h, 09h) [10h, 11h) because of late points");
    }

    #[test]
    fn a_request_takes_what_is_closed_or_every_bucket_of_its_window() {
        let stale = [("09:00", "10:00"), ("11:00", "12:00")];
        assert_snapshot!(plan_with(&stale, Occasion::Requested), @"recompute [09h, 10h) because of a request");
        let window = |from, to| plan_with(&stale, Occasion::RequestedWindow(range((from, to))));
        assert_snapshot!(window("08:30", "08:31"), @"recompute [08h, 09h) because of a request");
        assert_snapshot!(window("10:30", "23:00"), @"recompute [10h, 12h) because of a request");
        assert_snapshot!(window("00:00", "08:00"), @"recompute [07h, 08h) because of a request");
        assert_snapshot!(window("00:00", "06:30"), @"up to date");
    }

    #[test]
    fn changes_that_count_at_once_are_taken_in_open_buckets_too() {
        let stale = [range(("08:00", "09:00")), range(("11:00", "12:00"))].into_iter().collect();
        let critical = TimeRanges::from(range(("11:00", "12:00")));
        let standing = Standing {
            pieces: Pieces::of(Some("1h".parse().unwrap())),
            stale: &stale,
            critical: &critical,
            watermark: None,
            closing: Some(at("08:00")),
            extent: stale.hull(),
            sealed_before: at("07:00"),
        };
        assert_eq!(plan(&standing, Occasion::Changed).ranges(), stale);
        assert_eq!(plan(&standing, Occasion::Critical).ranges(), critical);
        assert_eq!(plan(&standing, Occasion::Scheduled).ranges(), critical, "closed ones are not");
        let reason = plan(&standing, Occasion::Critical).reason();
        assert_eq!(reason, Some(Reason::CriticalChange));
    }

    #[test]
    fn sealing_takes_open_buckets_too() {
        let stale = [("08:00", "09:00"), ("11:00", "12:00")];
        assert_snapshot!(plan_with(&stale, Occasion::Sealing(at("09:00"))), @"recompute [08h, 09h) because of expiring source data");
        assert_snapshot!(plan_with(&stale, Occasion::Sealing(at("12:00"))), @"recompute [08h, 09h) [11h, 12h) because of expiring source data");
    }

    #[test]
    fn days_of_a_keyed_aggregate_need_not_close() {
        let stale = TimeRange::new(at("00:00"), at("00:00").saturating_add(1)).into();
        let pieces = Pieces::of(None);
        let stale = pieces.round_out_all(&stale);
        let standing = Standing {
            pieces,
            stale: &stale,
            critical: &TimeRanges::none(),
            watermark: None,
            closing: None,
            extent: stale.hull(),
            sealed_before: Timestamp::EARLIEST,
        };
        assert_snapshot!(plan(&standing, Occasion::Scheduled), @"recompute [2024-01-01T00:00:00Z, 2024-01-02T00:00:00Z) because of changed points");
    }

    #[test]
    fn a_torn_sealed_piece_is_left_alone() {
        let stale = TimeRanges::none();
        let standing = Standing {
            pieces: Pieces::of(Some("1h".parse().unwrap())),
            stale: &stale,
            critical: &TimeRanges::none(),
            watermark: None,
            closing: Some(at("12:00")),
            extent: Some(range(("00:00", "12:00"))),
            sealed_before: at("09:30"),
        };
        let window = Occasion::RequestedWindow(range(("08:00", "12:00")));
        assert_eq!(plan(&standing, window).ranges(), range(("10:00", "12:00")).into());
    }

    fn batches(ranges: &[(&str, &str)], most_hours: i64, order: BatchOrder) -> Vec<String> {
        let ranges = ranges.iter().copied().map(range).collect();
        let plan = RefreshPlan::recompute(ranges, Reason::Request);
        let most = most_hours * highwater_core::time::NANOS_PER_HOUR;
        let hourly = Pieces::of(Some("1h".parse().unwrap()));
        let text = |batch: TimeRanges| {
            batch.to_string().replace("2024-01-01T", "").replace(":00:00Z", "h")
        };
        plan.batches(hourly, most, order).map(text).collect()
    }

    #[test]
    fn a_large_plan_is_cut_into_batches() {
        let ranges = [("00:00", "01:00"), ("02:00", "03:00"), ("04:00", "09:00")];
        assert_snapshot!(batches(&ranges, 3, BatchOrder::OldestFirst).join("\n"), @r"
        [00h, 01h) [02h, 03h) [04h, 05h)
        [05h, 08h)
        [08h, 09h)
        ");
        assert_snapshot!(batches(&ranges, 3, BatchOrder::NewestFirst).join("\n"), @r"
        [06h, 09h)
        [02h, 03h) [04h, 06h)
        [00h, 01h)
        ");
        assert_eq!(batches(&ranges, 0, BatchOrder::NewestFirst).len(), 7, "a piece at least");
        assert_eq!(batches(&[], 3, BatchOrder::NewestFirst).len(), 0);
    }

    proptest! {
        #[test]
        fn batches_are_the_plan_in_order(
            spans in prop::collection::vec((0..40i64, 1..10i64), 0..6),
            most in 0..20i64,
            newest in any::<bool>(),
            bucket in 0..3usize,
        ) {
            let hour = |hours: i64| Timestamp::from_secs(hours * 3600);
            let pieces = Pieces::of([Some("1h"), Some("7h"), None][bucket].map(|b| b.parse().unwrap()));
            let ranges: TimeRanges = spans.iter().map(|(from, length)| {
                TimeRange::new(hour(*from), hour(from + length))
            }).collect();
            let ranges = pieces.round_out_all(&ranges);
            let plan = RefreshPlan::recompute(ranges.clone(), Reason::Request);
            let order = if newest { BatchOrder::NewestFirst } else { BatchOrder::OldestFirst };
            let mut batches: Vec<_> = plan.batches(pieces, most * 3_600_000_000_000, order).collect();
            if newest {
                batches.reverse();
            }
            let hulls: Vec<_> = batches.iter().filter_map(TimeRanges::hull).collect();
            prop_assert!(hulls.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert_eq!(batches.iter().flat_map(TimeRanges::iter).collect::<TimeRanges>(), ranges);
            for batch in &batches {
                let nanos: i64 = batch.iter().map(|r| r.end.as_nanos() - r.start.as_nanos()).sum();
                let hull = batch.hull().unwrap();
                let is_one_piece = pieces.piece_of(hull.start) == hull;
                prop_assert!(nanos <= most * 3_600_000_000_000 || is_one_piece);
                prop_assert!(batch.iter().all(|r| pieces.is_boundary(r.start) && pieces.is_boundary(r.end)));
            }
        }
    }
}
