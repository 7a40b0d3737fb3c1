//! Carrying out a refresh: compute whole pieces at a pinned version, replace them in one commit.
//!
//! A refresh never adds to what is stored. Repeating it changes nothing, and a crash leaves the
//! old pieces or the new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::TimestampNanosecondType;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use highwater_core::{MeasurementId, Schema, SequenceNumber, Stopwatch, TimeRanges, Timestamp};
use highwater_query::points_scanned;
use highwater_storage::{Commit, Edit, Engine, Replacement, StorageError};
use tracing::instrument;

use crate::catalog::{Aggregate, Progress};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::materialization::{replacement, rows_schema};

/// A change map of more runs than this is coarsened with the next refresh.
const LONG_CHANGE_MAP: usize = 4_096;

/// What one refresh has computed, before it is committed.
pub(crate) struct Computed {
    replacement: Option<Replacement>,
    progress: Progress,
    /// What it took.
    pub(crate) cost: Cost,
}

impl Computed {
    /// Partials that did not have to be computed.
    pub(crate) fn of(replacement: Option<Replacement>, progress: Progress) -> Self {
        Computed { replacement, progress, cost: Cost::default() }
    }
}

/// What a refresh did.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Cost {
    /// Buckets computed.
    pub buckets: u64,
    /// Rows of partials written.
    pub rows: u64,
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
        self.points_scanned += more.points_scanned;
        self.revisions += more.revisions;
        self.duration_ms += more.duration_ms;
    }
}

/// Computes `times` (whole pieces) of an aggregate at the reader's version.
#[instrument(skip_all, fields(aggregate = %aggregate.name(), times = %times))]
pub(crate) async fn compute(
    reader: &Reader,
    aggregate: &Aggregate,
    times: &TimeRanges,
) -> Result<Computed, AggregationError> {
    let watch = Stopwatch::start();
    let resolved = reader.resolve(aggregate)?;
    let outputs: Vec<usize> = (0..resolved.outputs.len()).collect();
    let schema = rows_schema(aggregate, &resolved);
    let (batches, points_scanned) = match times.is_empty() {
        true => (Vec::new(), 0),
        false => {
            run(reader, reader.computed(aggregate, &resolved, &outputs, times)?, &schema).await?
        }
    };
    let restated = aggregate.progress.applied.covered().intersect(times);
    let old = match restated.is_empty() {
        true => Vec::new(),
        false => {
            run(reader, reader.stored(aggregate, &resolved, &outputs, &restated)?, &schema).await?.0
        }
    };
    let revisions = changed_pieces(&old, &batches, &restated)?;
    let mut cost = Cost {
        buckets: touched_buckets(aggregate, &batches).len() as u64,
        rows: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
        points_scanned,
        revisions: buckets_of(aggregate, revisions.iter().copied()).len() as u64,
        duration_ms: 0.0,
    };
    let mut progress = Progress::clone(&aggregate.progress);
    let seq = reader.session().version().seq();
    let still_stale = reader.stale(aggregate, &TimeRanges::all()).subtract(times);
    progress.applied.raise_clean(seq, &still_stale);
    progress.applied.set_all(&times.union(&reader.empty_beside(aggregate, times)), seq);
    progress.revisions += cost.revisions;
    progress.buckets_recomputed += cost.buckets;
    progress.rows_recomputed += cost.rows;
    cost.duration_ms = watch.elapsed_ms();
    let replacement = match times.is_empty() {
        true => None,
        false => Some(replacement(aggregate.stored(), &resolved, &schema, times, &batches)?),
    };
    Ok(Computed { replacement, progress, cost })
}

/// Runs a plan whose columns are those of `schema`, in its order. Returns its rows and how many
/// points were read for them.
pub(crate) async fn run(
    reader: &Reader,
    plan: LogicalPlan,
    schema: &Schema,
) -> Result<(Vec<RecordBatch>, u64), AggregationError> {
    let state = reader.session().state();
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

fn piece_starts(batch: &RecordBatch) -> &[i64] {
    batch.column(0).as_primitive::<TimestampNanosecondType>().values()
}

/// Starts of the buckets that rows belong to.
fn touched_buckets(aggregate: &Aggregate, batches: &[RecordBatch]) -> BTreeSet<Timestamp> {
    let starts: BTreeSet<i64> =
        batches.iter().flat_map(|batch| piece_starts(batch).iter().copied()).collect();
    buckets_of(aggregate, starts)
}

fn buckets_of(aggregate: &Aggregate, pieces: impl IntoIterator<Item = i64>) -> BTreeSet<Timestamp> {
    let cut = aggregate.definition.pieces;
    pieces.into_iter().map(|start| cut.bucket_of(Timestamp::from_nanos(start)).start).collect()
}

/// Starts of the pieces inside `restated` whose rows differ between `old` and `new`.
fn changed_pieces(
    old: &[RecordBatch],
    new: &[RecordBatch],
    restated: &TimeRanges,
) -> Result<Vec<i64>, AggregationError> {
    if restated.is_empty() {
        return Ok(Vec::new());
    }
    let (old, new) = (rows_by_piece(old)?, rows_by_piece(new)?);
    let starts: BTreeSet<i64> = old.keys().chain(new.keys()).copied().collect();
    let differs = |start: &i64| {
        restated.contains(Timestamp::from_nanos(*start)) && old.get(start) != new.get(start)
    };
    Ok(starts.into_iter().filter(differs).collect())
}

/// Per piece: how many rows it has, and the sum of their hashes, which does not depend on their
/// order. The hasher has no keys, so that equal rows have equal hashes in both calls.
fn rows_by_piece(batches: &[RecordBatch]) -> Result<BTreeMap<i64, (u64, u64)>, AggregationError> {
    let mut pieces: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for batch in batches {
        let schema = batch.schema();
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone()));
        let converter = RowConverter::new(fields.collect()).map_err(StorageError::from)?;
        let rows = converter.convert_columns(batch.columns()).map_err(StorageError::from)?;
        let (mut last, mut of_last) = (None, (0, 0));
        for (start, row) in piece_starts(batch).iter().zip(rows.iter()) {
            if last != Some(*start) {
                add_rows(&mut pieces, last, of_last);
                (last, of_last) = (Some(*start), (0, 0));
            }
            let mut hasher = DefaultHasher::new();
            hasher.write(row.as_ref());
            of_last = (of_last.0 + 1, of_last.1.wrapping_add(hasher.finish()));
        }
        add_rows(&mut pieces, last, of_last);
    }
    Ok(pieces)
}

fn add_rows(pieces: &mut BTreeMap<i64, (u64, u64)>, start: Option<i64>, rows: (u64, u64)) {
    if let Some(start) = start {
        let piece = pieces.entry(start).or_default();
        *piece = (piece.0 + rows.0, piece.1.wrapping_add(rows.1));
    }
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
pub(crate) async fn commit(
    engine: &Engine,
    reader: &Reader,
    computed: Vec<(Arc<Aggregate>, Computed)>,
) -> Result<SequenceNumber, AggregationError> {
    let version = reader.session().version();
    let mut commit = Commit::of(coarsened(reader, &computed));
    for (aggregate, computed) in computed {
        for key in aggregate.keys() {
            let document = version.document(&key).cloned();
            commit.expect_documents.push((key, document));
        }
        commit.edits.push(aggregate.put_progress(&computed.progress)?);
        commit.replacements.extend(computed.replacement);
    }
    Ok(engine.commit(commit).await?)
}

/// Lets change maps forget what no dependant has to tell apart any more, once they are long.
///
/// A coarser map can only make a piece look stale that is not, never the other way round.
fn coarsened(reader: &Reader, computed: &[(Arc<Aggregate>, Computed)]) -> Vec<Edit> {
    let roots: BTreeSet<&MeasurementId> =
        computed.iter().map(|(aggregate, _)| &aggregate.definition.root).collect();
    let applied = |one: &Aggregate| {
        let new = computed.iter().find(|(aggregate, _)| aggregate.id() == one.id());
        let progress = new.map_or(&*one.progress, |(_, computed)| &computed.progress);
        progress.applied.lowest()
    };
    let coarsened = |id: &MeasurementId| {
        let changes = reader.session().version().measurement(id)?.changes();
        if changes.runs().count() < LONG_CHANGE_MAP {
            return None;
        }
        let dependants = reader.catalog().iter().filter(|one| one.definition.root == *id);
        let attached = dependants.filter(|one| !one.document.detached);
        let seq = attached.filter_map(|one| applied(one)).min()?;
        Some(Edit::CoarsenChanges { id: id.clone(), seq })
    };
    roots.into_iter().filter_map(coarsened).collect()
}
