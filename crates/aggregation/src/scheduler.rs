//! When aggregates are refreshed, and by whom: one background task with bounded slots.
//!
//! Work is derived from staleness; the schedule only says when to look. Nothing "running" is
//! persisted, so a restart finds everything due and everything stale by itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use highwater_core::bucket::Span;
use highwater_core::{TimeRange, TimeRanges, Timestamp};
use tracing::{info, warn};

use crate::catalog::Aggregate;
use crate::definition::{AggregateId, Refresh};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::plan::{Occasion, RefreshPlan};
use crate::refresh::{self, Computed, Cost};
use crate::runtime::Aggregates;

/// Longest pause after repeated failures: an hour.
const LONGEST_BACKOFF: i64 = highwater_core::time::NANOS_PER_HOUR;
/// Runs kept for `system.aggregate_runs`.
const RUNS_KEPT: usize = 1_000;
/// A refresh of more points than this is cut into several commits.
const POINTS_PER_COMMIT: u64 = 4_000_000;

/// What the scheduler remembers between looks; lost in a restart without harm.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    by_aggregate: HashMap<AggregateId, Schedule>,
    runs: VecDeque<Run>,
}

/// When one aggregate is due, and how it fared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    /// `None`: due at once.
    next: Option<Timestamp>,
    failures_in_a_row: u32,
    /// Refreshes that failed since the start.
    pub(crate) error_count: u64,
    /// The last failure, until a refresh succeeds.
    pub(crate) last_error: Option<String>,
}

/// One refresh, as `system.aggregate_runs` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Which aggregate.
    pub(crate) id: AggregateId,
    /// When it started.
    pub(crate) started: Timestamp,
    /// Why.
    pub(crate) reason: String,
    /// What it took.
    pub(crate) cost: Cost,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
}

impl Schedules {
    /// What is known of one aggregate.
    pub(crate) fn get(&self, id: &AggregateId) -> Schedule {
        self.by_aggregate.get(id).cloned().unwrap_or_default()
    }

    /// The latest runs, oldest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    pub(crate) fn is_due(&self, id: &AggregateId, now: Timestamp) -> bool {
        self.by_aggregate.get(id).and_then(|own| own.next).is_none_or(|next| next <= now)
    }

    /// The next look at an aggregate: after its period, doubled with each failure in a row.
    pub(crate) fn looked_at(&mut self, id: &AggregateId, every: Span, now: Timestamp) {
        let schedule = self.by_aggregate.entry(id.clone()).or_default();
        let regular = every.after(now);
        let pause = regular.as_nanos().saturating_sub(now.as_nanos());
        let doubled = pause.saturating_mul(1 << schedule.failures_in_a_row.min(20));
        schedule.next = Some(now.saturating_add(doubled.min(pause.max(LONGEST_BACKOFF))));
    }

    fn record(&mut self, run: Run) {
        let schedule = self.by_aggregate.entry(run.id.clone()).or_default();
        let failed = run.error.is_some();
        schedule.failures_in_a_row = if failed { schedule.failures_in_a_row + 1 } else { 0 };
        schedule.error_count += u64::from(failed);
        schedule.last_error.clone_from(&run.error);
        if self.runs.len() == RUNS_KEPT {
            self.runs.pop_front();
        }
        self.runs.push_back(run);
    }

    /// Makes an aggregate due at once.
    pub(crate) fn wake(&mut self, id: &AggregateId) {
        self.by_aggregate.entry(id.clone()).or_default().next = None;
    }
}

/// An aggregate that is being refreshed: what is left to do, and what was done.
struct Task {
    id: AggregateId,
    /// Name of its run.
    run_id: AggregateId,
    reason: String,
    /// Ranges still to compute, one commit each; the last one also moves the watermark.
    remaining: VecDeque<TimeRanges>,
    cost: Cost,
}

/// A task whose next ranges are computed.
type Computation = (Task, Arc<Aggregate>, Computed);

impl Task {
    fn finished(self, started: Timestamp, error: Option<String>) -> Run {
        Run { id: self.run_id, started, reason: self.reason, cost: self.cost, error }
    }
}

impl Aggregates {
    /// Refreshes what is due now. Returns how many refreshes ran, well or not.
    pub(crate) async fn refresh_due(&self) -> Result<usize, AggregationError> {
        let mut count = 0;
        for database in self.databases() {
            for ids in self.due(&database)?.into_values() {
                count += self.refresh_together(ids, Occasion::Scheduled).await?.len();
            }
        }
        Ok(count)
    }

    /// Enabled aggregates whose time has come, parents before children.
    fn due(
        &self,
        database: &Arc<str>,
    ) -> Result<BTreeMap<usize, Vec<AggregateId>>, AggregationError> {
        let now = self.now();
        let reader = self.reader(database)?;
        let mut schedules = self.schedules().lock();
        let mut due: BTreeMap<usize, Vec<AggregateId>> = BTreeMap::new();
        for aggregate in reader.catalog().iter().filter(|one| one.is_scheduled()) {
            if let Refresh::Periodic { every } = aggregate.definition.refresh
                && schedules.is_due(aggregate.id(), now)
            {
                schedules.looked_at(aggregate.id(), every, now);
                let depth = reader.catalog().depth(aggregate);
                due.entry(depth).or_default().push(aggregate.id().clone());
            }
        }
        Ok(due)
    }

    /// Refreshes aggregates of one database that do not depend on each other; whatever they commit
    /// at the same time is one commit. One that fails does not disturb the others: its run says
    /// why. An aggregate without anything to do has no run.
    pub(crate) async fn refresh_together(
        &self,
        ids: Vec<AggregateId>,
        occasion: Occasion,
    ) -> Result<Vec<Run>, AggregationError> {
        let Some(database) = ids.first().map(|id| Arc::clone(&id.database)) else {
            return Ok(Vec::new());
        };
        let _running = self.lock_refreshes().await;
        let started = self.now();
        let reader = self.reader_for(&database, occasion)?;
        let mut tasks: Vec<Task> =
            ids.into_iter().filter_map(|id| planned(&reader, id, occasion)).collect();
        let mut runs = Vec::new();
        while !tasks.is_empty() {
            for run in self.step(&database, &mut tasks, occasion, started).await? {
                report(&run);
                self.schedules().lock().record(run.clone());
                runs.push(run);
            }
        }
        Ok(runs)
    }

    /// Who reads what is refreshed on this occasion.
    fn reader_for(
        &self,
        database: &Arc<str>,
        occasion: Occasion,
    ) -> Result<Reader, AggregationError> {
        let reader = self.reader(database)?;
        Ok(if occasion == Occasion::Building { reader.next() } else { reader })
    }

    /// Computes the next ranges of every task and commits them together. Keeps the tasks that go
    /// on and returns the runs of those that ended.
    async fn step(
        &self,
        database: &Arc<str>,
        tasks: &mut Vec<Task>,
        occasion: Occasion,
        started: Timestamp,
    ) -> Result<Vec<Run>, AggregationError> {
        let reader = self.reader_for(database, occasion)?;
        let results: Vec<_> = stream::iter(std::mem::take(tasks))
            .map(|task| compute_next(&reader, task, started))
            .buffer_unordered(self.settings().max_parallel)
            .collect()
            .await;
        let (mut ended, mut ready) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(computation) => ready.push(computation),
                Err(run) => ended.push(*run),
            }
        }
        let (running, computed): (Vec<Task>, Vec<_>) =
            ready.into_iter().map(|(task, of, computed)| (task, (of, computed))).unzip();
        let outcome = refresh::commit(self.engine(), &reader, computed).await;
        let error = outcome.err().map(|error| chain(&error));
        for task in running {
            match (&error, task.remaining.is_empty()) {
                (None, false) => tasks.push(task),
                (error, _) => ended.push(task.finished(started, error.clone())),
            }
        }
        Ok(ended)
    }
}

/// What an aggregate has to do now, if anything.
fn planned(reader: &Reader, id: AggregateId, occasion: Occasion) -> Option<Task> {
    let aggregate = reader.catalog().get(&id.name)?;
    let task = |reason: &str, remaining| {
        let (run_id, reason) = (aggregate.run_id(), reason.to_owned());
        Some(Task { id, run_id, reason, remaining, cost: Cost::default() })
    };
    match reader.plan(aggregate, occasion) {
        RefreshPlan::Recompute { ranges, reason } => {
            task(reason.name(), in_steps(reader, aggregate, &ranges))
        }
        RefreshPlan::UpToDate => {
            let stale = reader.stale(aggregate, &TimeRanges::all());
            let moves = reader.watermark(aggregate, &stale) > aggregate.progress.last_processed;
            if moves { task("empty_buckets_closed", [TimeRanges::none()].into()) } else { None }
        }
    }
}

async fn compute_next(
    reader: &Reader,
    mut task: Task,
    started: Timestamp,
) -> Result<Computation, Box<Run>> {
    let Some(aggregate) = reader.catalog().get(&task.id.name).map(Arc::clone) else {
        return Err(Box::new(task.finished(started, Some("it was dropped meanwhile".to_owned()))));
    };
    let times = task.remaining.pop_front().unwrap_or_default();
    match refresh::compute(reader, &aggregate, &times).await {
        Err(error) => Err(Box::new(task.finished(started, Some(chain(&error))))),
        Ok(mut computed) => {
            task.cost += computed.cost;
            if task.remaining.is_empty() {
                refresh::account(reader, &aggregate, &mut computed, task.cost, started);
            }
            Ok((task, aggregate, computed))
        }
    }
}

/// Cuts ranges at UTC midnights that are piece boundaries, newest first, so that no commit covers
/// many more than [`POINTS_PER_COMMIT`] stored points.
fn in_steps(reader: &Reader, aggregate: &Aggregate, ranges: &TimeRanges) -> VecDeque<TimeRanges> {
    let mut points_by_day: BTreeMap<Timestamp, u64> = BTreeMap::new();
    for segment in reader.root(aggregate).into_iter().flat_map(|root| root.segments()) {
        *points_by_day.entry(segment.times.start.start_of_day()).or_default() += segment.rows;
    }
    let mut steps = VecDeque::new();
    let mut end = TimeRange::ALL.end;
    let mut points = 0;
    for (&day, &rows) in points_by_day.iter().rev() {
        points += rows;
        if points >= POINTS_PER_COMMIT && aggregate.definition.pieces.is_boundary(day) {
            steps.push_back(TimeRange::new(day, end));
            (end, points) = (day, 0);
        }
    }
    steps.push_back(TimeRange::before(end));
    let within = |step: TimeRange| ranges.intersect(&TimeRanges::from(step));
    steps.into_iter().map(within).filter(|step| !step.is_empty()).collect()
}

/// An error with its causes, in one line.
fn chain(error: &AggregationError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

fn report(run: &Run) {
    let result = if run.error.is_some() { "failed" } else { "ok" };
    let aggregate = run.id.name.to_string();
    metrics::counter!("highwater_aggregation_refreshes_total", "aggregate" => aggregate.clone(), "result" => result)
        .increment(1);
    metrics::histogram!("highwater_aggregation_refresh_seconds", "aggregate" => aggregate.clone())
        .record(run.cost.duration_ms / 1e3);
    metrics::counter!("highwater_aggregation_points_scanned_total", "aggregate" => aggregate.clone())
        .increment(run.cost.points_scanned);
    metrics::counter!("highwater_aggregation_rows_written_total", "aggregate" => aggregate)
        .increment(run.cost.rows);
    let (reason, cost) = (&run.reason, run.cost);
    match &run.error {
        None => info!(
            aggregate = %run.id, reason, buckets = cost.buckets, rows = cost.rows,
            elapsed_ms = cost.duration_ms, "refreshed"
        ),
        Some(error) => warn!(aggregate = %run.id, reason, error, "refresh failed"),
    }
}
