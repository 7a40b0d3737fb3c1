//! `INSERT INTO measurement (..) VALUES .. | SELECT ..`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, TimestampNanosecondType};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{DmlStatement, LogicalPlan, WriteOp};
use datafusion::sql::parser::Statement as PlannedStatement;
use futures::TryStreamExt;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{PointBatch, Schema, TagSet, Timestamp};
use highwater_storage::{LateRules, Measurement, MeasurementKind, WriteMode};

use crate::error::QueryError;
use crate::params::Params;
use crate::session::{QueryResult, QuerySession};
use crate::table::MeasurementTable;

/// Writes points, all or none. The answer is one row with one column: `count`, the points written.
pub(crate) async fn insert(
    session: &QuerySession,
    statement: PlannedStatement,
    params: &Params,
) -> Result<QueryResult, QueryError> {
    let state = session.state();
    let planned = session.plan_statement(&state, statement).await;
    let (measurement, input) = target(params.bind(planned.map_err(explain_missing)?)?)?;
    let mut rows = session.execute(&input).await?.batches;
    let mut batches = Vec::new();
    let mut count = 0;
    while let Some(batch) = rows.try_next().await? {
        if batch.num_rows() > 0 {
            batches.push(points(&measurement, &batch, count, session.now())?);
            count += batch.num_rows();
        }
    }
    if !batches.is_empty() {
        let storage = session.engine().storage();
        let late = late_rules(session, &measurement.id().measurement);
        let report =
            storage.write_late(session.database(), batches, WriteMode::AllOrNothing, late).await?;
        if let Some(refused) = report.refused.first() {
            let message = format!("row {} is refused: {}", refused.line, refused.reason);
            return Err(QueryError::Invalid(message));
        }
        count -= report.dropped;
    }
    count_of(count)
}

fn late_rules(session: &QuerySession, measurement: &Arc<str>) -> LateRules {
    let mut extensions = session.engine().extensions().iter();
    let said = extensions.find_map(|extension| extension.late_points(session, measurement));
    said.map(|late| (Arc::clone(measurement), late)).into_iter().collect()
}

fn count_of(rows: usize) -> Result<QueryResult, QueryError> {
    let schema = Arc::new(ArrowSchema::new(vec![Field::new("count", DataType::UInt64, false)]));
    let column: ArrayRef = Arc::new(UInt64Array::from(vec![rows as u64]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]);
    let batch = batch.map_err(|error| QueryError::Internal(error.to_string()))?;
    Ok(QueryResult::of(schema, vec![batch]))
}

/// A measurement must exist: SQL cannot say what is a tag.
fn explain_missing(error: QueryError) -> QueryError {
    match error {
        QueryError::NoSuchTable { table, .. } => QueryError::Other {
            kind: highwater_core::ErrorKind::NotFound,
            message: format!(
                "measurement '{table}' not found; it comes into being with its first point in \
                 line protocol, or declare it in a rule file"
            ),
        },
        other => other,
    }
}

fn target(plan: LogicalPlan) -> Result<(Arc<Measurement>, LogicalPlan), QueryError> {
    let LogicalPlan::Dml(DmlStatement { table_name, target, op, input, .. }) = plan else {
        return Err(QueryError::Internal("INSERT was planned as something else".to_owned()));
    };
    match op {
        WriteOp::Insert(InsertOp::Append) => {}
        _ => return Err(QueryError::unsupported("INSERT OVERWRITE or REPLACE")),
    }
    let provider = source_as_provider(&target).map_err(QueryError::from)?;
    let table = provider.downcast_ref::<MeasurementTable>().map(MeasurementTable::measurement);
    match table.filter(|m| m.kind() == MeasurementKind::Points) {
        Some(measurement) => Ok((Arc::clone(measurement), Arc::unwrap_or_clone(input))),
        None => Err(QueryError::Invalid(format!(
            "{} is not a measurement; points are inserted into measurements",
            table_name.table()
        ))),
    }
}

/// The rows of `batch`, which has the columns of the measurement, as points. Rows without time
/// get `now`, like lines without time.
fn points(
    measurement: &Measurement,
    batch: &RecordBatch,
    rows_before: usize,
    now: Timestamp,
) -> Result<PointBatch, QueryError> {
    let schema = measurement.schema();
    let column = |name: &str| {
        let column = batch.column_by_name(name);
        column.ok_or_else(|| QueryError::Internal(format!("INSERT lost the column {name}")))
    };
    let times = column(TIME_COLUMN)?.as_primitive::<TimestampNanosecondType>();
    let times = times.iter().map(|time| time.unwrap_or(now.as_nanos())).collect();
    let mut fields = Vec::new();
    for (name, _) in schema.fields() {
        let values = column(name)?;
        if values.null_count() < values.len() {
            fields.push((Arc::clone(name), Arc::clone(values)));
        }
    }
    for row in 0..batch.num_rows() {
        if fields.iter().all(|(_, values)| values.is_null(row)) {
            let row = rows_before + row + 1;
            return Err(QueryError::Invalid(format!("row {row} has no field that is not NULL")));
        }
    }
    let (tag_sets, tag_set_of_row) = tag_sets(schema, batch, &column)?;
    let lines = (rows_before + 1..=rows_before + batch.num_rows()).map(|row| row as u32).collect();
    let measurement = Arc::clone(&measurement.id().measurement);
    Ok(PointBatch { measurement, tag_sets, tag_set_of_row, times, fields, lines })
}

/// The different tag sets, and per row the position of its own.
fn tag_sets<'a>(
    schema: &Schema,
    batch: &RecordBatch,
    column: &impl Fn(&str) -> Result<&'a ArrayRef, QueryError>,
) -> Result<(Vec<TagSet>, Vec<u32>), QueryError> {
    let mut columns = Vec::with_capacity(schema.tags().len());
    for tag in schema.tags() {
        let values = cast(column(tag)?, &DataType::Utf8);
        columns.push((tag, values.map_err(|error| QueryError::Internal(error.to_string()))?));
    }
    let mut sets = Vec::new();
    let mut positions: HashMap<TagSet, u32> = HashMap::new();
    let mut of_row = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let pairs = columns.iter().filter(|(_, values)| values.is_valid(row));
        let pairs = pairs.map(|(tag, values)| (&***tag, values.as_string::<i32>().value(row)));
        let set = TagSet::new(pairs).map_err(QueryError::Internal)?;
        let position = *positions.entry(set).or_insert_with_key(|set| {
            sets.push(set.clone());
            sets.len() as u32 - 1
        });
        of_row.push(position);
    }
    Ok((sets, of_row))
}
