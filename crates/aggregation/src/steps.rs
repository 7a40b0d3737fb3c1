//! What one refresh has to do, by the plan for where its aggregate stands, cut into steps of bounded
//! size.

use std::collections::{BTreeMap, VecDeque};

use highwater_core::{TimeRange, TimeRanges, Timestamp};

use crate::catalog::Aggregate;
use crate::definition::AggregateId;
use crate::exact::Reader;
use crate::jobs::reserved;
use crate::jobs::state::JobState;
use crate::lanes::Lane;
use crate::plan::{self, Occasion, Reason, RefreshPlan, Standing};
use crate::refresh::Cost;
use crate::schedule::Run;
use crate::shadow;

/// A refresh that runs: what is left to do, and what was done.
#[derive(Debug)]
pub(crate) struct Task {
    /// Name of its run.
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
            Some(Reason::LatePoints | Reason::Sealing | Reason::Rebuilding) => Lane::Repair,
            _ => Lane::Live,
        };
        let started = reader.session().now();
        Some(Task {
            id: aggregate.run_id(),
            reason,
            lane,
            started,
            remaining,
            cost: Cost::default(),
        })
    }

    /// One that came to nothing before there was a plan.
    pub(crate) fn unplanned(id: &AggregateId, started: Timestamp) -> Self {
        let (reason, lane) = ("unplanned", Lane::Live);
        let (remaining, cost) = (VecDeque::new(), Cost::default());
        Task { id: id.clone(), reason, lane, started, remaining, cost }
    }

    /// How it ended.
    pub(crate) fn ended(self, error: Option<String>) -> Run {
        let Task { id, reason, lane, started, cost, .. } = self;
        Run { id, started, reason: reason.to_owned(), lane, cost, error }
    }
}

impl Reader {
    /// What a refresh should do on this occasion.
    pub(crate) fn plan(&self, aggregate: &Aggregate, occasion: Occasion) -> RefreshPlan {
        let mut stale = self.stale(aggregate, &self.kept(aggregate));
        if occasion.is_scheduled() {
            stale = stale.subtract(&reserved(aggregate));
        }
        let touched = self.root(aggregate).and_then(|root| root.changes().hull());
        let covered = aggregate.progress.applied.covered();
        let extent = touched.into_iter().chain(covered.hull()).collect::<TimeRanges>().hull();
        let standing = Standing {
            pieces: aggregate.definition.pieces,
            stale: &stale,
            critical: &self.critical(aggregate).intersect(&stale),
            rebuilding: &self.rebuilding(aggregate),
            in_memory: &self.in_memory(aggregate),
            watermark: aggregate.progress.last_processed,
            closing: self.closing(aggregate).max(shadow::stored_end(aggregate)),
            extent,
            sealed_before: self.sealed_before(aggregate),
        };
        plan::plan(&standing, occasion)
    }
}

/// Whether time alone has closed buckets, without anything in them. Before a job has brought history
/// in, the watermark stands at its start.
fn moves_on(reader: &Reader, aggregate: &Aggregate) -> bool {
    if aggregate.job.as_ref().is_some_and(|job| job.state != JobState::Completed) {
        return false;
    }
    let stale = reader.stale(aggregate, &TimeRanges::all());
    reader.watermark(aggregate, &stale) > aggregate.progress.last_processed
}

/// Cuts ranges at UTC midnights that are piece boundaries, newest first, so that no step covers
/// many more than `step_points` stored points.
pub(crate) fn in_steps(
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
