//! Rows of partials: their columns in plans and in the measurement that stores them.
//!
//! Columns: `time` (start of the piece), the group columns that are tags, those that are fields,
//! for a `time_column` the start of its bucket, and one encoded partial per output under its name.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, ident, lit};
use datafusion::scalar::ScalarValue;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Column, ColumnRole, FieldType, MeasurementId, Schema, TimeRanges};
use highwater_storage::{MeasurementKind, Medium, Replacement, StorageError, Version};

use crate::catalog::Aggregate;
use crate::definition::{GroupColumn, Output, Resolved};
use crate::error::AggregationError;

/// Start of the bucket of a `time_column`.
pub(crate) const BUCKET: &str = "start of bucket";

/// Columns of an aggregate's rows of partials.
pub(crate) fn rows_schema(aggregate: &Aggregate, resolved: &Resolved) -> Schema {
    let bucket = aggregate.definition.time_column.is_some();
    let groups = resolved.groups.iter().map(group_column);
    let bucket = bucket.then(|| Column::field(BUCKET, FieldType::Timestamp));
    let outputs = resolved.outputs.iter();
    let outputs = outputs.map(|o| Column::field(Arc::clone(&o.name), FieldType::Partial));
    Schema::of(groups.chain(bucket).chain(outputs))
}

/// Name of the hidden column with the partials of an output.
pub(crate) fn partial_name(output: &str) -> String {
    format!("{output}_partial")
}

pub(crate) fn group_column(group: &GroupColumn) -> Column {
    Column { name: Arc::clone(&group.name), role: group.role }
}

/// The column an output reads; `None` for points.
pub(crate) fn field_column(output: &Output) -> Option<Column> {
    let name = Arc::clone(output.field.as_ref()?);
    Some(Column::field(name, output.input.unwrap_or(FieldType::Float)))
}

pub(crate) fn is_partial(column: &Column) -> bool {
    column.role == ColumnRole::Field(FieldType::Partial)
}

pub(crate) fn names<'a>(resolved: &'a Resolved, outputs: &[usize]) -> BTreeSet<&'a str> {
    outputs.iter().map(|&at| resolved.outputs[at].name.as_ref()).collect()
}

/// The columns that, with the piece, make a row of partials unique, in order.
pub(crate) fn key_names<'a>(
    aggregate: &Aggregate,
    resolved: &'a Resolved,
) -> impl Iterator<Item = &'a str> {
    let bucket = aggregate.definition.time_column.is_some().then_some(BUCKET);
    resolved.groups.iter().map(|group| group.name.as_ref()).chain(bucket)
}

/// A column of a stored schema, or NULL where rows were stored before it existed.
pub(crate) fn column_or_null(stored: &Schema, column: &Column) -> Expr {
    match stored.column(&column.name) {
        Some(own) if own.role == column.role => ident(&*column.name).alias(&*column.name),
        Some(_) => {
            let typed = cast(ident(&*column.name), column.data_type());
            typed.alias(&*column.name)
        }
        None => null_of(column),
    }
}

/// NULL of the column's type, under its name.
pub(crate) fn null_of(column: &Column) -> Expr {
    let null = ScalarValue::try_new_null(&column.data_type()).unwrap_or(ScalarValue::Null);
    lit(null).alias(&*column.name)
}

/// No rows, with the columns of `schema` less the partials that are not wanted.
pub(crate) fn empty(
    schema: &Schema,
    wanted: &BTreeSet<&str>,
) -> Result<LogicalPlan, AggregationError> {
    let time = lit(ScalarValue::TimestampNanosecond(None, None)).alias(TIME_COLUMN);
    let columns = schema.columns().filter(|c| !is_partial(c) || wanted.contains(&*c.name));
    let columns = columns.map(|column| null_of(&column));
    let columns: Vec<Expr> = std::iter::once(time).chain(columns).collect();
    Ok(LogicalPlanBuilder::empty(false).project(columns)?.build()?)
}

/// The replacement of stored partials by `rows`: of all in `times`, and of those with the tags and
/// time of a new row in `overwrites`. Group columns that the source does not have yet are NULL in
/// all of them and not stored, because their type is not known.
///
/// # Errors
/// If a column is missing.
pub(crate) fn replacement(
    stored: (MeasurementId, MeasurementKind, Medium),
    resolved: &Resolved,
    schema: &Schema,
    (times, overwrites): (&TimeRanges, &TimeRanges),
    rows: &[RecordBatch],
) -> Result<Replacement, AggregationError> {
    let (id, kind, medium) = stored;
    let is_unknown =
        |name: &str| resolved.groups.iter().any(|group| *group.name == *name && !group.is_known);
    let known = Schema::of(schema.columns().filter(|column| !is_unknown(&column.name)));
    let arrow = schema.arrow();
    let fields = arrow.fields().iter().enumerate();
    let kept: Vec<usize> =
        fields.filter(|(_, field)| !is_unknown(field.name())).map(|(at, _)| at).collect();
    let batches = rows.iter().map(|batch| batch.project(&kept)).collect::<Result<_, _>>();
    let batches = batches.map_err(StorageError::from)?;
    let (times, overwrites) = (times.clone(), overwrites.clone());
    Ok(Replacement { id, kind, schema: Arc::new(known), times, overwrites, batches, medium })
}

/// What the measurement of an aggregate's partials holds. Before there is one: tags and piece tell
/// rows apart only if no group column is a field, or may turn out to be one.
pub(crate) fn stored_kind(
    version: &Version,
    aggregate: &Aggregate,
    resolved: &Resolved,
) -> MeasurementKind {
    if let Some(stored) = version.measurement(&aggregate.stored()) {
        return stored.kind();
    }
    let is_tag = |group: &GroupColumn| group.is_known && group.role == ColumnRole::Tag;
    match aggregate.definition.time_column.is_none() && resolved.groups.iter().all(is_tag) {
        true => MeasurementKind::Rollup,
        false => MeasurementKind::Materialization,
    }
}
