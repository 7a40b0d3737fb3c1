//! How stored partials differ from those that the source gives: told row by row, in plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::record_batch::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlanBuilder, lit};
use datafusion::physical_plan::collect;
use datafusion::scalar::ScalarValue;
use highwater_core::Timestamp;
use highwater_core::schema::TIME_COLUMN;
use highwater_storage::StorageError;
use serde::Serialize;

use crate::catalog::Aggregate;
use crate::definition::Output;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::materialization::{empty, key_names, names};
use crate::refresh::{Computing, piece_starts};

/// One stored partial that is not what the source gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Start of the bucket; of the UTC day for an aggregate that is kept by days.
    pub bucket: Timestamp,
    /// Start of the piece of it.
    pub piece: Timestamp,
    /// The group columns and their values, as text.
    pub group: BTreeMap<String, Option<String>>,
    /// The output whose partial differs.
    pub output: String,
    /// What the stored partial answers, as text; `None` for NULL and for a row that is missing.
    pub stored: Option<String>,
    /// What it should answer; `None` for NULL and for a row that should not be there.
    pub expected: Option<String>,
}

/// One group of one piece whose row is not what it should be.
pub(crate) struct Difference {
    stored: Option<RecordBatch>,
    expected: Option<RecordBatch>,
}

/// What differs.
pub(crate) struct Differences {
    /// By piece and group.
    pub(crate) rows: Vec<Difference>,
    /// The partial of no values, of every output.
    nothing: Vec<Option<Vec<u8>>>,
}

/// The rows of `pieces` (their starts) that differ.
///
/// Sums by plain addition only have to be of equally many values, as their order is not known. A stored NULL stands for a partial of no values, as rows have it that were stored before a
/// column existed.
pub(crate) async fn differences(
    computing: &Computing<'_>,
    reader: &Reader,
    pieces: &BTreeSet<i64>,
    (stored, expected): (&[RecordBatch], &[RecordBatch]),
) -> Result<Differences, AggregationError> {
    let nothing = partials_of_nothing(computing, reader).await?;
    let keys = computing.schema.arrow().fields().len() - computing.resolved.outputs.len();
    let Some(first) = stored.first().or(expected.first()) else {
        return Ok(Differences { rows: Vec::new(), nothing });
    };
    let fields = first.schema();
    let fields = fields.fields()[..keys].iter().map(|f| SortField::new(f.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).map_err(StorageError::from)?;
    let mut found: BTreeMap<OwnedRow, Difference> = BTreeMap::new();
    for (batches, is_stored) in [(stored, true), (expected, false)] {
        for batch in batches {
            let rows = converter.convert_columns(&batch.columns()[..keys]);
            let rows = rows.map_err(StorageError::from)?;
            let wanted = piece_starts(batch).iter().enumerate();
            for (at, _) in wanted.filter(|(_, start)| pieces.contains(start)) {
                let none = Difference { stored: None, expected: None };
                let own = found.entry(rows.row(at).owned()).or_insert(none);
                let side = if is_stored { &mut own.stored } else { &mut own.expected };
                *side = Some(batch.slice(at, 1));
            }
        }
    }
    let differs = |one: &Difference| match (&one.stored, &one.expected) {
        (Some(stored), Some(expected)) => (0..nothing.len()).any(|output| {
            let cell = |row| cell(row, keys + output).or(nothing[output].as_deref());
            let function = computing.resolved.outputs[output].function;
            !function.may_agree(cell(stored), cell(expected))
        }),
        _ => true,
    };
    Ok(Differences { rows: found.into_values().filter(differs).collect(), nothing })
}

/// The encoded partial in the only row of a batch.
fn cell(row: &RecordBatch, column: usize) -> Option<&[u8]> {
    let partials = row.column(column).as_binary::<i32>();
    partials.is_valid(0).then(|| partials.value(0))
}

/// The partial of no values, of every output.
async fn partials_of_nothing(
    computing: &Computing<'_>,
    reader: &Reader,
) -> Result<Vec<Option<Vec<u8>>>, AggregationError> {
    let resolved = &computing.resolved;
    let all: Vec<usize> = (0..resolved.outputs.len()).collect();
    let no_rows = empty(&computing.schema, &names(resolved, &all))?;
    let merged = resolved.outputs.iter().map(|one| one.function.merge_expr(&one.name));
    let plan = LogicalPlanBuilder::new(no_rows)
        .aggregate(Vec::<datafusion::logical_expr::Expr>::new(), merged.collect::<Vec<_>>())?
        .build()?;
    let state = reader.session().state();
    let physical = state.create_physical_plan(&plan).await?;
    let batches = collect(physical, state.task_ctx()).await?;
    let row = batches.iter().find(|batch| batch.num_rows() == 1);
    let row = row.ok_or_else(|| StorageError::Invalid("nothing has no partial".to_owned()))?;
    Ok(all.iter().map(|&at| cell(row, at).map(<[u8]>::to_vec)).collect())
}

impl Difference {
    /// Start of the piece.
    pub(crate) fn piece(&self) -> Option<i64> {
        let row = self.stored.as_ref().or(self.expected.as_ref())?;
        piece_starts(row).first().copied()
    }
}

impl Differences {
    /// What differs in one of the rows, output by output, in values.
    pub(crate) async fn described(
        &self,
        one: &Difference,
        computing: &Computing<'_>,
        reader: &Reader,
        aggregate: &Aggregate,
    ) -> Result<Vec<Mismatch>, AggregationError> {
        let Some(row) = one.stored.as_ref().or(one.expected.as_ref()) else {
            return Ok(Vec::new());
        };
        let resolved = &computing.resolved;
        let keys = row.num_columns() - resolved.outputs.len();
        let piece = Timestamp::from_nanos(one.piece().unwrap_or_default());
        let mut group = BTreeMap::new();
        for name in key_names(aggregate, resolved) {
            group.insert(name.to_owned(), text(row, name)?);
        }
        let mut found = Vec::new();
        for (at, output) in resolved.outputs.iter().enumerate() {
            let cell = |row: &Option<RecordBatch>| {
                let cell = cell(row.as_ref()?, keys + at).map(<[u8]>::to_vec);
                cell.or(self.nothing[at].clone())
            };
            let (stored, expected) = (cell(&one.stored), cell(&one.expected));
            if output.function.may_agree(stored.as_deref(), expected.as_deref()) {
                continue;
            }
            found.push(Mismatch {
                bucket: aggregate.definition.pieces.grid().start_of(piece),
                piece,
                group: group.clone(),
                output: output.name.to_string(),
                stored: answer_of(reader, output, stored).await,
                expected: answer_of(reader, output, expected).await,
            });
        }
        Ok(found)
    }
}

/// A value of the only row of a batch, as text.
fn text(row: &RecordBatch, column: &str) -> Result<Option<String>, AggregationError> {
    let Some(values) = row.column_by_name(column).filter(|values| !values.is_null(0)) else {
        return Ok(None);
    };
    let options = FormatOptions::default();
    let format = ArrayFormatter::try_new(values, &options).map_err(StorageError::from)?;
    Ok(Some(format.value(0).to_string()))
}

/// What a partial answers, as text; that it answers nothing is told, too.
async fn answer_of(reader: &Reader, output: &Output, partial: Option<Vec<u8>>) -> Option<String> {
    let partial = partial?;
    match finished(reader, output, partial).await {
        Ok(answer) => answer,
        Err(error) => Some(format!("unreadable: {error}")),
    }
}

async fn finished(
    reader: &Reader,
    output: &Output,
    partial: Vec<u8>,
) -> Result<Option<String>, AggregationError> {
    let row = LogicalPlanBuilder::empty(true)
        .project(vec![lit(ScalarValue::Binary(Some(partial))).alias(&*output.name)])?
        .build()?;
    // Through a table, so that nothing is computed while planning.
    let state = reader.session().state();
    let physical = state.create_physical_plan(&row).await?;
    let batches = collect(Arc::clone(&physical), state.task_ctx()).await?;
    let table = MemTable::try_new(physical.schema(), vec![batches])?;
    let answer = output.function.finish_expr(&output.name, output.result, Vec::new());
    let plan = LogicalPlanBuilder::scan("partial", provider_as_source(Arc::new(table)), None)?
        .project(vec![answer.alias(TIME_COLUMN)])?
        .build()?;
    let physical = state.create_physical_plan(&plan).await?;
    let batches = collect(physical, state.task_ctx()).await?;
    let row = batches.iter().find(|batch| batch.num_rows() == 1);
    row.map_or(Ok(None), |row| text(row, TIME_COLUMN))
}
