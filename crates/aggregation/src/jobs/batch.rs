//! One batch of a job: which points it reads, and what becomes of their partials.
//!
//! ```text
//!   read by the batch before ◄──┐
//!        piece          piece   │      piece
//!   |-------------|-------------|-------------|
//!            ├── this batch ───┤├── stored ───┤
//!            ▲                 ▲
//!         starts inside a     goes on with what the batch before
//!         piece: unfinished   left unfinished, and completes it
//! ```
//!
//! Batches go from new to old. All points of one instant belong to one batch, so none is read twice
//! and none is forgotten. Partials of an unfinished piece are stored in its place but not applied, so
//! only the next batch reads them. A piece that took several batches reflects the version of the first
//! of them: whatever came later makes it stale, as it does any piece.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::TimestampNanosecondType;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{ScanFilter, Stopwatch, TimeRange, TimeRanges, Timestamp};
use highwater_storage::{ScanRequest, StorageError};

use super::beginning::rows_of_source;
use super::job::{Job, Unfinished};
use super::newest::Newest;
use crate::catalog::{Aggregate, Progress};
use crate::definition::Resolved;
use crate::error::AggregationError;
use crate::exact::{Reader, Wanted, joined};
use crate::group_limit::check_groups;
use crate::plan::Occasion;
use crate::refresh::{Computed, Computing, Cost, buckets_of, piece_starts, restated_by, run};
use crate::steps::in_steps;

/// What a batch reads.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The points of these times.
    times: TimeRanges,
    /// The whole pieces that they lie in.
    pieces: TimeRanges,
    /// How many there are; `None` of an aggregate over an aggregate, until they are read.
    rows: Option<u64>,
    /// What it goes on with.
    before: Option<Unfinished>,
    /// What it leaves unfinished.
    after: Option<Unfinished>,
    /// Whether nothing is left after it.
    pub(crate) is_last: bool,
}

/// The whole pieces that are still to be built, unfinished ones too.
pub(crate) fn missing(reader: &Reader, aggregate: &Aggregate, job: &Job) -> TimeRanges {
    let closed = reader.plan(aggregate, Occasion::Backfill).ranges();
    let until = job.until.unwrap_or(TimeRange::ALL.end);
    let missing = closed.intersect(&TimeRange::before(until).into());
    missing.subtract(&aggregate.progress.applied.covered())
}

/// How many points a job has to read; of an aggregate over an aggregate about how many partials.
pub(crate) async fn count(
    reader: &Reader,
    aggregate: &Aggregate,
    job: &Job,
) -> Result<u64, AggregationError> {
    let missing = missing(reader, aggregate, job);
    if reader.catalog().parent(aggregate).is_some() {
        return Ok(rows_of_source(reader, &aggregate.definition, &missing));
    }
    let mut rows = 0;
    each_time(reader, aggregate, &missing, |times| rows += times.len() as u64).await?;
    Ok(rows)
}

/// The next batch; `None` if nothing is left. A job whose unfinished piece is not what it was any
/// more gives that up.
pub(crate) async fn next(
    reader: &Reader,
    aggregate: &Aggregate,
    job: &mut Job,
    batch_size: u64,
) -> Result<Option<Batch>, AggregationError> {
    let missing = missing(reader, aggregate, job);
    if missing.is_empty() {
        job.unfinished = None;
        return Ok(None);
    }
    check_unfinished(reader, aggregate, &missing, job);
    let before = job.unfinished;
    let left = match before {
        None => missing.clone(),
        Some(piece) => {
            let read = TimeRange::new(piece.read_from, TimeRange::ALL.end);
            missing.intersect(&TimeRange::before(piece.end).into()).subtract(&read.into())
        }
    };
    let mut steps = in_steps(reader, aggregate, &left, batch_size).into_iter();
    let first = steps.next().unwrap_or_else(TimeRanges::none);
    let mut batch = match reader.catalog().parent(aggregate) {
        Some(_) => Batch {
            pieces: first.clone(),
            times: first,
            rows: None,
            before,
            after: None,
            is_last: false,
        },
        None => {
            // The rest of one stretch that was cut to size, and another whole one, hold a batch.
            let stretch = first.union(&steps.next().unwrap_or_else(TimeRanges::none));
            let mut newest = Newest::of(batch_size);
            each_time(reader, aggregate, &stretch, |times| newest.add(times)).await?;
            newest.leave_out();
            cut(reader, aggregate, before, stretch, &newest)
        }
    };
    let done =
        batch.pieces.subtract(&batch.after.map(|one| one.piece().into()).unwrap_or_default());
    batch.is_last = missing.subtract(&done).is_empty();
    Ok(Some(batch))
}

/// Gives up an unfinished piece that somebody else has stored meanwhile, or whose stored part is
/// lost.
fn check_unfinished(reader: &Reader, aggregate: &Aggregate, missing: &TimeRanges, job: &mut Job) {
    let Some(own) = job.unfinished else { return };
    let stored = aggregate.stored();
    let version = reader.session().version();
    let was_in_memory = aggregate.is_in_memory() && own.seq < version.opened();
    let is_lost = was_in_memory
        || version.quarantine().iter().any(|one| {
            one.id == stored && one.seq > own.seq && one.segment.times.overlaps(own.piece())
        });
    let is_missing = missing.covers(own.piece());
    if is_lost || !is_missing {
        job.unfinished = None;
        if is_missing {
            job.processed_rows = job.processed_rows.saturating_sub(own.rows);
        }
    }
}

/// The batch that ends with the newest points of a stretch.
fn cut(
    reader: &Reader,
    aggregate: &Aggregate,
    before: Option<Unfinished>,
    stretch: TimeRanges,
    newest: &Newest,
) -> Batch {
    let pieces = aggregate.definition.pieces;
    let start = newest.start().map(Timestamp::from_nanos);
    let older = newest.older().map(Timestamp::from_nanos);
    let rows = newest.before(i64::MAX);
    let (mut after, mut times) = (None, stretch);
    if let (Some(start), Some(older)) = (start, older) {
        let piece = pieces.piece_of(start);
        let is_cut = piece.contains(older);
        let from = if is_cut { start } else { piece.start };
        times = times.intersect(&TimeRange::since(from).into());
        let same = before.filter(|one| one.piece() == piece);
        after = is_cut.then(|| Unfinished {
            start: piece.start,
            end: piece.end,
            read_from: from,
            seq: same.map_or(reader.session().version().seq(), |one| one.seq),
            rows: newest.before(piece.end.as_nanos()) + same.map_or(0, |one| one.rows),
        });
    }
    let begun = before.map(|one| one.piece().into()).unwrap_or_default();
    let pieces = pieces.round_out_all(&times).union(&begun);
    Batch { times, pieces, rows: Some(rows), before, after, is_last: false }
}

/// Looks at the times of all points of a stretch.
async fn each_time(
    reader: &Reader,
    aggregate: &Aggregate,
    stretch: &TimeRanges,
    mut look: impl FnMut(&[i64]),
) -> Result<(), AggregationError> {
    let Some(root) = reader.root(aggregate).filter(|_| !stretch.is_empty()) else { return Ok(()) };
    let columns = vec![Arc::from(TIME_COLUMN)];
    let scan = root.scan(&ScanRequest::new(columns, ScanFilter::at(stretch.clone())))?;
    let mut batches = scan.stream(0);
    while let Some(batch) = batches.try_next().await? {
        let times = batch.column(0).as_primitive_opt::<TimestampNanosecondType>();
        let times = times.ok_or_else(|| StorageError::Invalid("a time is no time".to_owned()))?;
        look(times.values());
    }
    Ok(())
}

/// Computes a batch, and what its job and its aggregate have to say once it is committed.
pub(crate) async fn compute(
    reader: &Reader,
    aggregate: &Aggregate,
    batch: &Batch,
    mut job: Job,
) -> Result<(Computed, Job), AggregationError> {
    let watch = Stopwatch::start();
    let computing = Computing::of(reader, aggregate)?;
    let (rows, points_scanned) = match batch.before {
        None => computing.computed(&Wanted::at(batch.times.clone())).await?,
        Some(before) => {
            let resolved = &computing.resolved;
            let plan = plan_joined(reader, aggregate, resolved, &batch.times, before.piece())?;
            run(reader, plan, &computing.schema).await?
        }
    };
    check_groups(aggregate, &rows)?;
    let after = batch.after.map(|after| after.piece());
    let done = batch.pieces.subtract(&after.map(TimeRanges::from).unwrap_or_default());
    let starts: BTreeSet<i64> = rows.iter().flat_map(piece_starts).copied().collect();
    let is_done = |start: &i64| done.contains(Timestamp::from_nanos(*start));
    let starts: Vec<i64> = starts.into_iter().filter(is_done).collect();
    // Below the watermark, what is stored now for the first time was empty to whoever follows.
    let restated = restated_by(reader, aggregate, &TimeRanges::none(), starts.iter().copied());
    let computed = rows.iter().map(|rows| rows.num_rows() as u64).sum();
    let cost = Cost {
        buckets: buckets_of(aggregate, starts).len() as u64,
        rows: computed,
        rows_changed: computed,
        points_scanned,
        revisions: 0,
        duration_ms: watch.elapsed_ms(),
    };
    let mut progress = applied_with(reader, aggregate, batch.before, &done);
    progress.buckets_recomputed += cost.buckets;
    progress.rows_recomputed += cost.rows;
    progress.rows_changed += cost.rows_changed;
    let medium = aggregate.medium(&batch.pieces);
    if aggregate.is_in_memory() {
        progress.note_medium(&batch.pieces, medium);
    }
    let times = (&batch.pieces, &TimeRanges::none());
    let replacement = computing.replacement(times, &rows, medium)?;
    job.processed_rows += batch.rows.unwrap_or(points_scanned);
    job.total_rows = job.total_rows.max(job.processed_rows);
    job.batches += 1;
    job.unfinished = batch.after;
    job.position = batch.times.hull().map(|hull| hull.start).or(job.position);
    job.updated_at = reader.session().now();
    let mut computed = Computed::of(Some(replacement), progress);
    computed.cost = cost;
    computed.restated = restated;
    Ok((computed, job))
}

/// The progress of an aggregate once `done` is stored.
fn applied_with(
    reader: &Reader,
    aggregate: &Aggregate,
    before: Option<Unfinished>,
    done: &TimeRanges,
) -> Progress {
    let seq = reader.session().version().seq();
    let mut progress = Progress::clone(&aggregate.progress);
    let still_stale = reader.stale(aggregate, &TimeRanges::all()).subtract(done);
    progress.applied.raise_clean(seq, &still_stale);
    progress.apply(&done.union(&reader.empty_beside(aggregate, done)), seq);
    if let Some(before) = before.filter(|before| done.covers(before.piece())) {
        progress.applied.set(before.piece(), before.seq);
    }
    progress
}

/// The partials of points of these times, joined with what is stored of a piece.
fn plan_joined(
    reader: &Reader,
    aggregate: &Aggregate,
    resolved: &Resolved,
    times: &TimeRanges,
    piece: TimeRange,
) -> Result<LogicalPlan, AggregationError> {
    let outputs: Vec<usize> = (0..resolved.outputs.len()).collect();
    let computed = reader.computed(aggregate, resolved, &outputs, &Wanted::at(times.clone()))?;
    let stored = reader.stored(aggregate, resolved, &outputs, &Wanted::at(piece.into()))?;
    joined(aggregate, resolved, &outputs, stored, computed)
}
