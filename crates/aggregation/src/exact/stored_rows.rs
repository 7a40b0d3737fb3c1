//! Stored partials, read as they stand: what a refresh compares with is too little to plan for.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::compute::cast;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use highwater_core::{ScanFilter, Schema};
use highwater_storage::{ScanRequest, StorageError};
use tokio::task::{JoinError, JoinSet};

use super::{Reader, Wanted};
use crate::catalog::Aggregate;
use crate::error::AggregationError;

/// The wanted rows with the columns of `schema`, in no particular order. What was stored before a
/// column existed is NULL there.
///
/// # Errors
/// Those of reading.
pub(crate) async fn stored_rows(
    reader: &Reader,
    aggregate: &Aggregate,
    schema: &Schema,
    wanted: &Wanted,
) -> Result<Vec<RecordBatch>, AggregationError> {
    let session = reader.session();
    let Some(stored) = session.version().measurement(&aggregate.stored()) else {
        return Ok(Vec::new());
    };
    let is_stored = |name: &&str| stored.schema().arrow().column_with_name(name).is_some();
    let arrow = schema.arrow();
    let columns = arrow.fields().iter().map(|field| field.name().as_str()).filter(is_stored);
    let filter =
        ScanFilter { series: wanted.series.clone(), ..ScanFilter::at(wanted.times.clone()) };
    let mut request = ScanRequest::new(columns.map(Arc::from).collect(), filter);
    request.partitions = session.partitions();
    let scan = stored.scan(&request)?;
    let mut parts = JoinSet::new();
    for partition in 0..scan.partitions() {
        parts.spawn(scan.stream(partition).try_collect::<Vec<RecordBatch>>());
    }
    let mut rows = Vec::new();
    while let Some(part) = parts.join_next().await {
        let part = part.map_err(ended)??;
        let part = part.iter().map(|batch| with_columns(batch, schema));
        rows.extend(part.collect::<Result<Vec<_>, _>>().map_err(StorageError::from)?);
    }
    Ok(rows)
}

/// Why a part was not read to its end; a panic goes on.
fn ended(error: JoinError) -> AggregationError {
    match error.try_into_panic() {
        Ok(reason) => std::panic::resume_unwind(reason),
        Err(_) => AggregationError::Stopping,
    }
}

/// A batch with these columns instead of its own.
fn with_columns(
    batch: &RecordBatch,
    schema: &Schema,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let arrow = schema.arrow();
    let columns = arrow.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(Arc::clone(&arrow), columns.collect::<Result<_, _>>()?)
}
