//! What one refresh has to do, cut into steps of bounded size.

use std::collections::{BTreeMap, VecDeque};

use highwater_core::{TimeRange, TimeRanges, Timestamp};

use crate::catalog::Aggregate;
use crate::definition::AggregateId;
use crate::exact::Reader;
use crate::lanes::Lane;
use crate::plan::{Occasion, Reason, RefreshPlan};
use crate::refresh::Cost;
use crate::schedule::Run;

/// A refresh that runs: what is left to do, and what was done.
#[derive(Debug)]
pub(crate) struct Task {
    id: AggregateId,
    reason: &'static str,
    pub(crate) lane: Lane,
    pub(crate) started: Timestamp,
    /// Ranges still to compute, newest first, one commit each.
    pub(crate) remaining: VecDeque<TimeRanges>,
    pub(crate) cost: Cost,
}

impl Task {
    /// What an aggregate has to do now, if anything, in steps of so many points.
    pub(crate) fn planned(
        reader: &Reader,
        id: &AggregateId,
        occasion: Occasion,
        step_points: u64,
    ) -> Option<Self> {
        let aggregate = reader.catalog().get(&id.name)?;
        let plan = reader.plan(aggregate, occasion);
        let (reason, remaining) = match &plan {
            RefreshPlan::Recompute { ranges, reason } => {
                (reason.name(), in_steps(reader, aggregate, ranges, step_points))
            }
            RefreshPlan::UpToDate if moves_on(reader, aggregate) => {
                ("empty_buckets_closed", [TimeRanges::none()].into())
            }
            RefreshPlan::UpToDate => return None,
        };
        let lane = match plan.reason() {
            _ if remaining.len() > 1 => Lane::Backfill,
            Some(Reason::LatePoints | Reason::Sealing) => Lane::Repair,
            _ => Lane::Live,
        };
        let started = reader.session().now();
        Some(Task { id: id.clone(), reason, lane, started, remaining, cost: Cost::default() })
    }

    /// How it ended.
    pub(crate) fn ended(self, error: Option<String>) -> Run {
        let Task { id, reason, lane, started, cost, .. } = self;
        Run { id, started, reason: reason.to_owned(), lane, cost, error }
    }
}

/// Whether time alone has closed buckets, without anything in them.
fn moves_on(reader: &Reader, aggregate: &Aggregate) -> bool {
    let stale = reader.stale(aggregate, &TimeRanges::all());
    reader.watermark(aggregate, &stale) > aggregate.progress.last_processed
}

/// Cuts ranges at UTC midnights that are piece boundaries, newest first, so that no step covers
/// many more than `step_points` stored points.
fn in_steps(
    reader: &Reader,
    aggregate: &Aggregate,
    ranges: &TimeRanges,
    step_points: u64,
) -> VecDeque<TimeRanges> {
    let mut points_by_day: BTreeMap<Timestamp, u64> = BTreeMap::new();
    for segment in reader.root(aggregate).into_iter().flat_map(|root| root.segments()) {
        *points_by_day.entry(segment.times.start.start_of_day()).or_default() += segment.rows;
    }
    let mut steps = VecDeque::new();
    let mut end = TimeRange::ALL.end;
    let mut points = 0;
    for (&day, &rows) in points_by_day.iter().rev() {
        points += rows;
        if points >= step_points && aggregate.definition.pieces.is_boundary(day) {
            steps.push_back(TimeRange::new(day, end));
            (end, points) = (day, 0);
        }
    }
    steps.push_back(TimeRange::before(end));
    let within = |step: TimeRange| ranges.intersect(&TimeRanges::from(step));
    steps.into_iter().map(within).filter(|step| !step.is_empty()).collect()
}
