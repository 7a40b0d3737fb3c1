//! What to read of a source of rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use highwater_core::{SeriesRanges, TimeRange, TimeRanges, Timestamp};

use super::sort::times_of;
use super::tag_keys::TagColumns;
use crate::error::StorageError;

/// Which columns and rows to read.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// The columns, in this order; one that the source lacks is NULL in every row.
    pub(crate) columns: SchemaRef,
    /// Only rows with a time in here.
    pub(crate) times: TimeRanges,
    /// Other rows may be left out: `(tag, values)`, all must hold.
    pub(crate) tags: Arc<[(Arc<str>, BTreeSet<String>)]>,
    /// Other rows may be left out, if not all are wanted.
    pub(crate) series: Option<Arc<SeriesRanges>>,
}

impl Selection {
    /// These columns of all rows with a time in `times`.
    pub(crate) fn at(columns: SchemaRef, times: TimeRanges) -> Self {
        Selection { columns, times, tags: Arc::new([]), series: None }
    }
}

/// The batch with just these columns, in this order; NULL where it lacks one.
///
/// # Errors
/// [`StorageError::Arrow`] if a column has another type than asked for.
pub(crate) fn with_columns(
    batch: &RecordBatch,
    columns: &SchemaRef,
) -> Result<RecordBatch, StorageError> {
    let rows = batch.num_rows();
    let arrays = columns.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => new_null_array(field.data_type(), rows),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(columns), arrays.collect(), &options)?)
}

/// The rows of a batch whose time is in `times`.
///
/// # Errors
/// [`StorageError::Invalid`] if the batch has no time.
pub(crate) fn at_times(
    batch: RecordBatch,
    times: &TimeRanges,
) -> Result<RecordBatch, StorageError> {
    let mut range_before = TimeRange::new(Timestamp::EPOCH, Timestamp::EPOCH);
    let is_inside = |time: &i64| {
        let time = Timestamp::from_nanos(*time);
        if !range_before.contains(time) {
            match times.range_at(time) {
                Some(range) => range_before = range,
                None => return false,
            }
        }
        true
    };
    let mask: Vec<bool> = times_of(&batch)?.iter().map(is_inside).collect();
    keep(batch, &BooleanArray::from(mask))
}

/// Per row: whether its series is wanted at its time.
///
/// # Errors
/// [`StorageError::Invalid`] if the batch lacks `time` or a tag.
pub(crate) fn of_series(
    batch: &RecordBatch,
    wanted: &SeriesRanges,
) -> Result<BooleanArray, StorageError> {
    let times = times_of(batch)?;
    let tags = TagColumns::of_names(wanted.tags().iter().map(|tag| &**tag), batch)?;
    let mut mask = Vec::with_capacity(times.len());
    for run in tags.runs(times.len()) {
        match wanted.ranges_of(|tag| tags.columns()[tag].value(run.start)) {
            None => mask.resize(mask.len() + run.len(), false),
            Some(ranges) => {
                let is_wanted = |time: &i64| ranges.contains(Timestamp::from_nanos(*time));
                mask.extend(times[run].iter().map(is_wanted));
            }
        }
    }
    Ok(BooleanArray::from(mask))
}

/// The rows for which `mask` is true; without copying if they are neighbours.
pub(crate) fn keep(batch: RecordBatch, mask: &BooleanArray) -> Result<RecordBatch, StorageError> {
    let kept = mask.true_count();
    if kept == batch.num_rows() {
        return Ok(batch);
    }
    let first = (0..mask.len()).find(|&row| mask.value(row)).unwrap_or(0);
    if kept == 0 || mask.slice(first, kept).true_count() == kept {
        return Ok(batch.slice(first, kept));
    }
    Ok(filter_record_batch(&batch, mask)?)
}
