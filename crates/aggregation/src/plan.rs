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
    /// A restart took it from memory, or it is to be stored elsewhere.
    Rebuilding,
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
            Reason::Rebuilding => "rebuilding",
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
            Reason::Rebuilding => "stored buckets that are gone",
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
    /// Source data before this instant is about to expire: pieces there that are stale, open ones
    /// too, or in memory alone.
    Sealing(Timestamp),
    /// A changed definition is built beside the one in force, whatever its schedule says.
    Building,
    /// A job brings in what was there when the aggregate was made.
    Backfill,
    /// The background stores again what is not stored any more.
    Rebuilding,
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
    /// Pieces that were stored and are to be again.
    pub rebuilding: &'a TimeRanges,
    /// Pieces that are in memory alone, stale or not.
    pub in_memory: &'a TimeRanges,
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
        Occasion::Rebuilding => {
            RefreshPlan::recompute(standing.rebuilding.clone(), Reason::Rebuilding)
        }
        Occasion::RequestedWindow(window) => {
            RefreshPlan::recompute(standing.inside(window), Reason::Request)
        }
        Occasion::Sealing(before) => {
            let needed = standing.stale.union(standing.in_memory);
            let live = TimeRange::new(standing.sealed_before.min(before), before);
            let expiring = needed.intersect(&live.into());
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
mod tests;
