//! `system.aggregate_buckets(name, from, to)`: the buckets of an aggregate and how each stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::functions_aggregate::count::count_all;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ident};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;
use highwater_core::schema::{TIME_COLUMN, time_data_type};
use highwater_core::{SequenceNumber, TimeRange, TimeRanges, Timestamp};
use highwater_query::QuerySession;
use serde::Serialize;

use crate::catalog::Aggregate;
use crate::error::AggregationError;
use crate::exact::{Reader, Wanted};
use crate::functions::through_a_plan;
use crate::refresh::piece_starts;
use crate::runtime::Shared;
use crate::system::{of_rows, schema_of};

/// Name of the function in the schema `system`.
pub(crate) const NAME: &str = "aggregate_buckets";
/// An answer has at most so many pieces in it.
const MOST_PIECES: u64 = 100_000;

/// A piece that holds rows, or that should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) range: TimeRange,
    /// The commit its stored partials reflect; zero if it was never computed.
    pub(crate) applied: SequenceNumber,
    /// The last commit that touched the source there; zero if none did.
    pub(crate) touched: SequenceNumber,
    /// Whether the source has changed since.
    pub(crate) is_stale: bool,
    /// Whether the source has expired.
    pub(crate) is_sealed: bool,
    /// Rows stored.
    pub(crate) rows: u64,
}

/// The pieces within `window` (whole pieces) that hold rows or are stale, ascending.
///
/// # Errors
/// If there are more than 100,000.
pub(crate) async fn pieces(
    reader: &Reader,
    aggregate: &Aggregate,
    window: TimeRange,
) -> Result<Vec<Piece>, AggregationError> {
    let cut = aggregate.definition.pieces;
    let wanted = reader.kept(aggregate).intersect(&window.into());
    let stale = reader.stale(aggregate, &wanted).intersect(&wanted);
    if cut.count_buckets(&stale) > MOST_PIECES {
        return Err(too_many(aggregate));
    }
    let mut rows = stored_rows(reader, aggregate, wanted).await?;
    for piece in stale.iter().flat_map(|range| cut.iter(range)) {
        rows.entry(piece.start).or_default();
    }
    let sealed_before = reader.sealed_before(aggregate);
    let changes = reader.root(aggregate).map(|root| root.changes());
    let piece = |(start, rows): (Timestamp, u64)| {
        let range = cut.piece_of(start);
        Piece {
            range,
            applied: aggregate.progress.applied.get(range),
            touched: changes.map(|changes| changes.last_change(range)).unwrap_or_default(),
            is_stale: stale.overlaps(range),
            is_sealed: range.end <= sealed_before,
            rows,
        }
    };
    Ok(rows.into_iter().map(piece).collect())
}

/// How many rows are stored, by start of the piece.
async fn stored_rows(
    reader: &Reader,
    aggregate: &Aggregate,
    times: TimeRanges,
) -> Result<BTreeMap<Timestamp, u64>, AggregationError> {
    let resolved = reader.resolve(aggregate)?;
    let covered = aggregate.progress.applied.covered().intersect(&times);
    let stored = reader.stored(aggregate, &resolved, &[], &Wanted::at(covered))?;
    let plan = LogicalPlanBuilder::new(stored)
        .aggregate(vec![ident(TIME_COLUMN)], vec![count_all().alias("rows")])?
        .build()?;
    let state = reader.session().state();
    let physical = state.create_physical_plan(&plan).await?;
    let mut batches = execute_stream(physical, state.task_ctx())?;
    let mut rows: BTreeMap<Timestamp, u64> = BTreeMap::new();
    while let Some(batch) = batches.try_next().await? {
        let counts = batch.column(1).as_primitive::<Int64Type>().values();
        for (start, count) in piece_starts(&batch).iter().zip(counts) {
            rows.insert(Timestamp::from_nanos(*start), u64::try_from(*count).unwrap_or_default());
        }
        if rows.len() as u64 > MOST_PIECES {
            return Err(too_many(aggregate));
        }
    }
    Ok(rows)
}

fn too_many(aggregate: &Aggregate) -> AggregationError {
    AggregationError::Invalid(format!(
        "{} has more than {MOST_PIECES} buckets there; ask for a shorter range: \
         system.{NAME}('{}', '<from>', '<to>')",
        aggregate.name(),
        aggregate.name()
    ))
}

/// One row of the answer: a bucket, or a UTC day of an aggregate that is kept by days.
#[derive(Debug, PartialEq, Serialize)]
struct BucketRow {
    bucket: Timestamp,
    bucket_end: Timestamp,
    state: &'static str,
    reason: Option<&'static str>,
    applied_seq: SequenceNumber,
    touched_seq: SequenceNumber,
    pieces: u64,
    stale_pieces: u64,
    sealed_pieces: u64,
    rows: u64,
}

fn columns() -> [(&'static str, DataType); 10] {
    [
        ("bucket", time_data_type()),
        ("bucket_end", time_data_type()),
        ("state", DataType::Utf8),
        ("reason", DataType::Utf8),
        ("applied_seq", DataType::UInt64),
        ("touched_seq", DataType::UInt64),
        ("pieces", DataType::UInt64),
        ("stale_pieces", DataType::UInt64),
        ("sealed_pieces", DataType::UInt64),
        ("rows", DataType::UInt64),
    ]
}

/// What the pieces of one bucket (one at least) say about it. Buckets that end after `closing` are
/// open; where there is none, nothing has to close.
fn bucket_row(bucket: TimeRange, pieces: &[Piece], closing: Option<Timestamp>) -> BucketRow {
    let count = |is: fn(&Piece) -> bool| pieces.iter().filter(|one| is(one)).count() as u64;
    let (stale, sealed) = (count(|one| one.is_stale), count(|one| one.is_sealed));
    let is_open = closing.is_some_and(|closing| bucket.end > closing);
    let state = match (is_open, stale) {
        (true, _) => "open",
        (false, 1..) => "stale",
        (false, 0) if sealed == pieces.len() as u64 => "sealed",
        (false, 0) => "fresh",
    };
    let never = |one: &Piece| one.is_stale && one.applied == SequenceNumber::ZERO;
    let reason = match stale {
        0 => None,
        _ if pieces.iter().any(never) => Some("never_applied"),
        _ => Some("touched_later"),
    };
    BucketRow {
        bucket: bucket.start,
        bucket_end: bucket.end,
        state,
        reason,
        applied_seq: pieces.iter().map(|one| one.applied).min().unwrap_or_default(),
        touched_seq: pieces.iter().map(|one| one.touched).max().unwrap_or_default(),
        pieces: pieces.len() as u64,
        stale_pieces: stale,
        sealed_pieces: sealed,
        rows: pieces.iter().map(|one| one.rows).sum(),
    }
}

/// The function: looks up its aggregate when a statement is planned.
pub(crate) struct AggregateBuckets {
    shared: Arc<Shared>,
    session: QuerySession,
}

impl std::fmt::Debug for AggregateBuckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NAME)
    }
}

impl AggregateBuckets {
    pub(crate) fn new(shared: Arc<Shared>, session: QuerySession) -> Self {
        AggregateBuckets { shared, session }
    }

    fn table(&self, arguments: &[Expr]) -> Result<Buckets, AggregationError> {
        let usage = || {
            let usage =
                format!("write system.{NAME}('name') or system.{NAME}('name', 'from', 'to')");
            AggregationError::Invalid(usage)
        };
        let texts: Option<Vec<&str>> = arguments.iter().map(text).collect();
        let (name, window) = match texts.ok_or_else(usage)?.as_slice() {
            [name] => (*name, TimeRange::ALL),
            [name, from, to] => {
                let at = |text: &str| Timestamp::parse(text).map_err(AggregationError::Invalid);
                (*name, TimeRange::new(at(from)?, at(to)?))
            }
            _ => return Err(usage()),
        };
        let reader = self.shared.reader_of(&self.session)?;
        let aggregate = Arc::clone(reader.in_force(name)?);
        let window = aggregate.definition.pieces.grid().round_out(window);
        Ok(Buckets { reader, aggregate, window })
    }
}

/// The text of an argument; `None` if it is something else than a constant text.
fn text(argument: &Expr) -> Option<&str> {
    match argument {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::Utf8View(Some(text))
            | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => Some(text),
        _ => None,
    }
}

impl TableFunctionImpl for AggregateBuckets {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let table = self.table(args.exprs());
        Ok(Arc::new(table.map_err(|error| through_a_plan(error.kind(), &error))?))
    }
}

/// The buckets of one aggregate in whole buckets of a window, as a table.
struct Buckets {
    reader: Reader,
    aggregate: Arc<Aggregate>,
    window: TimeRange,
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buckets({}, {})", self.aggregate.id(), self.window)
    }
}

impl Buckets {
    async fn rows(&self) -> Result<Vec<BucketRow>, AggregationError> {
        let grid = self.aggregate.definition.pieces.grid();
        let closing = self.reader.closing(&self.aggregate);
        let closing = closing.filter(|_| !self.aggregate.definition.is_kept_by_days());
        let pieces = pieces(&self.reader, &self.aggregate, self.window).await?;
        let buckets = pieces.chunk_by(|a, b| grid.range_of(a.range.start).contains(b.range.start));
        let row = |of: &[Piece]| bucket_row(grid.range_of(of[0].range.start), of, closing);
        Ok(buckets.map(row).collect())
    }
}

#[async_trait]
impl TableProvider for Buckets {
    fn schema(&self) -> SchemaRef {
        schema_of(&columns())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = match self.rows().await {
            Ok(rows) => of_rows(&columns(), &rows),
            Err(error) => Err(error),
        };
        let table = table.map_err(|error| through_a_plan(error.kind(), &error))?;
        table.scan(state, projection, filters, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(hour: i64, applied: u64, is_stale: bool, is_sealed: bool) -> Piece {
        let at = |hour: i64| Timestamp::from_secs(hour * 3600);
        Piece {
            range: TimeRange::new(at(hour), at(hour + 1)),
            applied: SequenceNumber::new(applied),
            touched: SequenceNumber::new(applied + u64::from(is_stale)),
            is_stale,
            is_sealed,
            rows: 2,
        }
    }

    fn row(pieces: &[Piece], closing_hour: Option<i64>) -> BucketRow {
        let bucket = TimeRange::new(pieces[0].range.start, pieces[pieces.len() - 1].range.end);
        bucket_row(bucket, pieces, closing_hour.map(|hour| Timestamp::from_secs(hour * 3600)))
    }

    #[test]
    fn a_bucket_is_as_stale_as_its_worst_piece() {
        let (fresh, sealed) = (piece(1, 7, false, false), piece(0, 3, false, true));
        let (stale, never) = (piece(2, 5, true, false), piece(2, 0, true, false));
        let of = |pieces: &[Piece]| {
            let row = row(pieces, Some(9));
            (row.state, row.reason, row.applied_seq.get(), row.stale_pieces, row.sealed_pieces)
        };
        assert_eq!(of(&[fresh]), ("fresh", None, 7, 0, 0));
        assert_eq!(of(&[sealed]), ("sealed", None, 3, 0, 1));
        assert_eq!(of(&[sealed, fresh]), ("fresh", None, 3, 0, 1));
        assert_eq!(of(&[sealed, fresh, stale]), ("stale", Some("touched_later"), 3, 1, 1));
        assert_eq!(of(&[fresh, never]), ("stale", Some("never_applied"), 0, 1, 0));
    }

    #[test]
    fn what_has_not_closed_is_open_whatever_is_stored() {
        let stale = piece(2, 5, true, false);
        assert_eq!(row(&[stale], Some(2)).state, "open");
        assert_eq!(row(&[stale], Some(3)).state, "stale");
        assert_eq!(row(&[stale], None).state, "stale");
        assert_eq!((row(&[stale], Some(2)).rows, row(&[stale], Some(2)).touched_seq.get()), (2, 6));
    }
}
