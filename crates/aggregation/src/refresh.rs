//! Carrying out a refresh: compute whole pieces at a pinned version, replace them in one commit.
//!
//! A refresh never adds to what is stored. Repeating it changes nothing, and a crash leaves the
//! old pieces or the new ones.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::TimestampNanosecondType;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use highwater_core::{Schema, Stopwatch, TimeRanges, Timestamp};
use highwater_query::points_scanned;
use highwater_storage::{Commit, Edit, Engine, Medium, Replacement, StorageError};
use tracing::instrument;

use crate::catalog::{Aggregate, Progress};
use crate::changed_rows::changed_rows;
use crate::commits::Ready;
use crate::definition::Resolved;
use crate::error::AggregationError;
use crate::exact::{Reader, Wanted, stored_rows};
use crate::feed::{self, Restated};
use crate::group_limit::check_groups;
use crate::jobs::Job;
use crate::materialization::{replacement, rows_schema, stored_kind};
use crate::touched::touched;

/// A change map of more runs than this is coarsened with the next refresh.
const LONG_CHANGE_MAP: usize = 4_096;

/// What one refresh has computed, before it is committed.
#[derive(Clone, Debug)]
pub(crate) struct Computed {
    replacement: Option<Replacement>,
    progress: Progress,
    /// What of it changes closed buckets.
    pub(crate) restated: Option<Restated>,
    /// What it took.
    pub(crate) cost: Cost,
    /// The job that it is a step of, as it is afterwards.
    pub(crate) job: Option<Job>,
}

impl Computed {
    /// Partials that did not have to be computed.
    pub(crate) fn of(replacement: Option<Replacement>, progress: Progress) -> Self {
        let (restated, job, cost) = (None, None, Cost::default());
        Computed { replacement, progress, restated, cost, job }
    }
}

/// What a refresh did.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Cost {
    /// Buckets computed.
    pub buckets: u64,
    /// Rows of partials written.
    pub rows: u64,
    /// Of these and of the rows stored before, those that came, went or changed.
    pub rows_changed: u64,
    /// Points, or partials of the source, read.
    pub points_scanned: u64,
    /// Closed buckets whose stored partials changed.
    pub revisions: u64,
    /// Time taken, in milliseconds with fraction.
    pub duration_ms: f64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, more: Cost) {
        self.buckets += more.buckets;
        self.rows += more.rows;
        self.rows_changed += more.rows_changed;
        self.points_scanned += more.points_scanned;
        self.revisions += more.revisions;
        self.duration_ms += more.duration_ms;
    }
}

/// Rows that were computed, and those stored before for the same groups and pieces.
#[derive(Default)]
struct Rows {
    new: Vec<RecordBatch>,
    old: Vec<RecordBatch>,
    points_scanned: u64,
}

impl std::ops::AddAssign for Rows {
    fn add_assign(&mut self, more: Rows) {
        self.new.extend(more.new);
        self.old.extend(more.old);
        self.points_scanned += more.points_scanned;
    }
}

impl Computed {
    /// Rows that replace others while what the aggregate has applied stays as it is.
    pub(crate) fn same_progress(aggregate: &Aggregate, replacement: Replacement) -> Self {
        Computed::of(Some(replacement), Progress::clone(&aggregate.progress))
    }
}

/// One aggregate as a refresh computes it.
pub(crate) struct Computing<'a> {
    reader: &'a Reader,
    aggregate: &'a Aggregate,
    pub(crate) resolved: Resolved,
    outputs: Vec<usize>,
    /// Columns of all rows, see [`rows_schema`].
    pub(crate) schema: Schema,
}

/// Computes `times` (whole pieces) of an aggregate at the reader's version, to be stored in a medium.
#[instrument(skip_all, fields(aggregate = %aggregate.name(), times = %times))]
pub(crate) async fn compute(
    reader: &Reader,
    aggregate: &Aggregate,
    times: &TimeRanges,
    medium: Medium,
) -> Result<Computed, AggregationError> {
    let watch = Stopwatch::start();
    let computing = Computing::of(reader, aggregate)?;
    let restated = aggregate.progress.applied.covered().intersect(times);
    let (mut whole, mut overwrites) = (times.clone(), TimeRanges::none());
    let mut rows = Rows::default();
    // What is clean was asked for by name, and is computed as a whole.
    let changed = restated.intersect(&reader.stale(aggregate, times));
    // Rows of one piece are in one medium.
    if aggregate.is_all_in(medium, &changed)
        && let Some(few) = computing.few(&changed).await?
    {
        (whole, overwrites) = (times.subtract(&changed), changed);
        rows = few;
    }
    rows += computing.all(&whole, &restated).await?;
    check_groups(aggregate, &rows.new)?;
    let mut changed = changed_rows(&rows.old, &rows.new, computing.keys())?;
    let (same, other) = reader.rebuilt(aggregate, times);
    changed.retain(|start, _| !same.contains(Timestamp::from_nanos(*start)));
    let ended = restated.intersect(&aggregate.done().into());
    let starts = changed.keys().filter(|start| ended.contains(Timestamp::from_nanos(**start)));
    let revised = buckets_of(aggregate, starts.copied());
    let pieces = aggregate.definition.pieces;
    let other = other.iter().flat_map(|range| pieces.iter(range)).map(|one| one.start.as_nanos());
    let restated = restated.union(&aggregate.progress.rebuilding.covered().intersect(times));
    let restated = restated_by(reader, aggregate, &restated, changed.keys().copied().chain(other));
    let mut cost = Cost {
        buckets: touched_buckets(aggregate, &rows.new).len() as u64,
        rows: rows.new.iter().map(|batch| batch.num_rows() as u64).sum(),
        rows_changed: changed.values().sum(),
        points_scanned: rows.points_scanned,
        revisions: revised.len() as u64,
        duration_ms: 0.0,
    };
    let mut progress = Progress::clone(&aggregate.progress);
    let seq = reader.session().version().seq();
    let still_stale = reader.stale(aggregate, &TimeRanges::all()).subtract(times);
    progress.applied.raise_clean(seq, &still_stale);
    let empty = reader.empty_beside(aggregate, times).union(&reader.empty_again(aggregate));
    let stored = times.union(&empty);
    progress.apply(&stored, seq);
    if aggregate.is_in_memory() {
        progress.note_medium(&stored, medium);
    }
    progress.revisions += cost.revisions;
    progress.buckets_recomputed += cost.buckets;
    progress.rows_recomputed += cost.rows;
    progress.rows_changed += cost.rows_changed;
    cost.duration_ms = watch.elapsed_ms();
    let replacement = match times.is_empty() {
        true => None,
        false => Some(computing.replacement((&whole, &overwrites), &rows.new, medium)?),
    };
    Ok(Computed { restated, cost, ..Computed::of(replacement, progress) })
}

/// The closed buckets of the changed pieces. What has no watermark was closed if it was stored.
pub(crate) fn restated_by(
    reader: &Reader,
    aggregate: &Aggregate,
    stored: &TimeRanges,
    changed: impl Iterator<Item = i64>,
) -> Option<Restated> {
    if aggregate.is_shadow() {
        return None;
    }
    let is_by_days = aggregate.definition.is_kept_by_days();
    let counts = |start: &i64| !is_by_days || stored.contains(Timestamp::from_nanos(*start));
    let now = reader.session().now();
    Some(Restated::of_pieces(aggregate, changed.filter(counts), now))
}

impl<'a> Computing<'a> {
    /// All outputs of an aggregate at the reader's version.
    pub(crate) fn of(
        reader: &'a Reader,
        aggregate: &'a Aggregate,
    ) -> Result<Self, AggregationError> {
        let resolved = reader.resolve(aggregate)?;
        let outputs: Vec<usize> = (0..resolved.outputs.len()).collect();
        let schema = rows_schema(aggregate, &resolved);
        Ok(Computing { reader, aggregate, resolved, outputs, schema })
    }

    /// How many columns, the first ones, tell rows apart.
    pub(crate) fn keys(&self) -> usize {
        self.schema.arrow().fields().len() - self.resolved.outputs.len()
    }

    /// All groups of `times`, of which `restated` were stored before.
    async fn all(
        &self,
        times: &TimeRanges,
        restated: &TimeRanges,
    ) -> Result<Rows, AggregationError> {
        if times.is_empty() {
            return Ok(Rows::default());
        }
        let restated = restated.intersect(times);
        let (new, points_scanned) = self.computed(&Wanted::at(times.clone())).await?;
        let old = match restated.is_empty() {
            true => Vec::new(),
            false => self.stored(&Wanted::at(restated)).await?,
        };
        Ok(Rows { new, old, points_scanned })
    }

    /// The groups that may have changed in these pieces, if they are known and few, and none of them
    /// has vanished.
    async fn few(&self, changed: &TimeRanges) -> Result<Option<Rows>, AggregationError> {
        if !self.reader.trusts_stored() {
            return Ok(None);
        }
        let found = touched(self.reader, self.aggregate, &self.resolved, changed).await?;
        let Some(series) = found else { return Ok(None) };
        if series.is_empty() {
            return Ok(Some(Rows::default()));
        }
        let wanted = Wanted::of(Arc::new(series));
        let (new, points_scanned) = self.computed(&wanted).await?;
        let old = self.stored(&wanted).await?;
        let keys = 1 + self.resolved.groups.len();
        let is_whole = has_all_keys(&new, &old, keys)? && !self.may_exceed_groups(&new, &old);
        Ok(is_whole.then_some(Rows { new, old, points_scanned }))
    }

    /// Whether new groups may be too many beside those that were stored and are not looked at.
    fn may_exceed_groups(&self, new: &[RecordBatch], old: &[RecordBatch]) -> bool {
        let rows =
            |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        let version = self.reader.session().version();
        let stored = version.measurement(&self.aggregate.stored());
        let stored: u64 = stored.into_iter().flat_map(|own| own.segments()).map(|s| s.rows).sum();
        let most = self.aggregate.definition.max_groups;
        rows(new) > rows(old) && stored + rows(new) as u64 > most
    }

    /// The wanted rows as the source has them, and how many points were read for them.
    pub(crate) async fn computed(
        &self,
        wanted: &Wanted,
    ) -> Result<(Vec<RecordBatch>, u64), AggregationError> {
        let Computing { reader, aggregate, resolved, outputs, schema } = self;
        run(reader, reader.computed(aggregate, resolved, outputs, wanted)?, schema).await
    }

    /// The wanted rows as they are stored.
    pub(crate) async fn stored(
        &self,
        wanted: &Wanted,
    ) -> Result<Vec<RecordBatch>, AggregationError> {
        stored_rows(self.reader, self.aggregate, &self.schema, wanted).await
    }

    pub(crate) fn replacement(
        &self,
        times: (&TimeRanges, &TimeRanges),
        rows: &[RecordBatch],
        medium: Medium,
    ) -> Result<Replacement, AggregationError> {
        let kind = stored_kind(self.reader.session().version(), self.aggregate, &self.resolved);
        let stored = (self.aggregate.stored(), kind, medium);
        replacement(stored, &self.resolved, &self.schema, times, rows)
    }
}

/// Runs a plan whose columns are those of `schema`, in its order. Returns its rows and how many
/// points were read for them.
pub(crate) async fn run(
    reader: &Reader,
    plan: LogicalPlan,
    schema: &Schema,
) -> Result<(Vec<RecordBatch>, u64), AggregationError> {
    let state = reader.session().lean_state();
    let physical = state.create_physical_plan(&plan).await?;
    let batches = collect(Arc::clone(&physical), state.task_ctx()).await?;
    let schema = schema.arrow();
    let typed = |batch: &RecordBatch| -> Result<RecordBatch, arrow::error::ArrowError> {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()));
        RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)
    };
    let batches = batches.iter().filter(|batch| batch.num_rows() > 0).map(typed);
    let batches = batches.collect::<Result<_, _>>().map_err(StorageError::from)?;
    Ok((batches, points_scanned(&physical)))
}

pub(crate) fn piece_starts(batch: &RecordBatch) -> &[i64] {
    batch.column(0).as_primitive::<TimestampNanosecondType>().values()
}

/// Starts of the buckets that rows belong to.
fn touched_buckets(aggregate: &Aggregate, batches: &[RecordBatch]) -> BTreeSet<Timestamp> {
    let starts: BTreeSet<i64> =
        batches.iter().flat_map(|batch| piece_starts(batch).iter().copied()).collect();
    buckets_of(aggregate, starts)
}

/// Starts of the buckets that pieces, named by their starts, belong to.
pub(crate) fn buckets_of(
    aggregate: &Aggregate,
    pieces: impl IntoIterator<Item = i64>,
) -> BTreeSet<Timestamp> {
    let cut = aggregate.definition.pieces;
    pieces.into_iter().map(|start| cut.bucket_of(Timestamp::from_nanos(start)).start).collect()
}

/// Whether every combination of the first `keys` columns of `old` is in `new` too.
fn has_all_keys(
    new: &[RecordBatch],
    old: &[RecordBatch],
    keys: usize,
) -> Result<bool, AggregationError> {
    let Some(first) = old.first().or(new.first()) else { return Ok(true) };
    let schema = first.schema();
    let fields = schema.fields()[..keys].iter().map(|f| SortField::new(f.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).map_err(StorageError::from)?;
    let rows = |batch: &RecordBatch| {
        converter.convert_columns(&batch.columns()[..keys]).map_err(StorageError::from)
    };
    let new = new.iter().map(rows).collect::<Result<Vec<_>, _>>()?;
    let known: HashSet<_> = new.iter().flat_map(|rows| rows.iter()).collect();
    for batch in old {
        if rows(batch)?.iter().any(|row| !known.contains(&row)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Counts a finished run and moves the watermark to `closing`, if everything before it is
/// materialized.
pub(crate) fn account(
    reader: &Reader,
    aggregate: &Aggregate,
    computed: &mut Computed,
    run: Cost,
    now: Timestamp,
) {
    let progress = &mut computed.progress;
    let unfinished = reader.stale_under(aggregate, &progress.applied, &TimeRanges::all());
    progress.last_processed = reader.watermark(aggregate, &unfinished);
    progress.refresh_count += 1;
    progress.last_refresh = Some(now);
    progress.refresh_ms += run.duration_ms as u64;
}

/// Commits computed refreshes together: stored partials, progress and watermarks, or nothing.
///
/// # Errors
/// A conflict if one of the aggregates was refreshed or redefined in between.
pub(crate) async fn commit(engine: &Engine, steps: Vec<Ready>) -> Result<(), AggregationError> {
    let mut commit = Commit::default();
    for Ready { reader, aggregate, computed } in steps {
        let version = reader.session().version();
        commit.edits.extend(coarsened(&reader, &aggregate, &computed));
        for key in aggregate.keys() {
            let document = version.document(&key).cloned();
            commit.expect_documents.push((key, document));
        }
        commit.edits.push(aggregate.put_progress(&computed.progress)?);
        if let Some(job) = &computed.job {
            let key = aggregate.job_key();
            commit.expect_documents.push((key.clone(), version.document(&key).cloned()));
            commit.edits.push(job.put(key));
        }
        commit.replacements.extend(computed.replacement);
        if let Some(restated) = &computed.restated {
            feed::append(&mut commit, &reader, aggregate.id(), restated)?;
        }
    }
    engine.commit(commit).await?;
    Ok(())
}

/// Lets the change map of the source forget what no dependant has to tell apart any more, once it is long.
///
/// A coarser map can only make a piece look stale that is not, never the other way round.
fn coarsened(reader: &Reader, aggregate: &Aggregate, computed: &Computed) -> Option<Edit> {
    let id = &aggregate.definition.root;
    let changes = reader.session().version().measurement(id)?.changes();
    if changes.runs().count() < LONG_CHANGE_MAP {
        return None;
    }
    let applied = |one: &Aggregate| match one.id() == aggregate.id() {
        true => computed.progress.applied.lowest(),
        false => one.progress.applied.lowest(),
    };
    let dependants = reader.catalog().iter().filter(|one| one.definition.root == *id);
    let attached = dependants.filter(|one| !one.document.detached);
    let seq = attached.filter_map(|one| applied(one)).min()?;
    Some(Edit::CoarsenChanges { id: id.clone(), seq })
}
