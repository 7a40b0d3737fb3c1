//! The last points of every series in a segment, found once and kept in memory.
//!
//! The last points of a series are its newest one and, for every field that is NULL there, the
//! newest that has the field. Nothing else is needed to tell the last value of any field, the last
//! point or the series there are: the last points of several sources, merged, hold those of all.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use highwater_core::{ScanFilter, Schema, SequenceNumber, TimeRange, TimeRanges};

use super::reader::SegmentReader;
use super::selection::Selection;
use super::store::SegmentHandle;
use super::tag_keys::TagColumns;
use crate::error::StorageError;
use crate::scan::SortedRows;

/// Memory for the last points of all segments of one engine.
pub(super) const CACHE_BYTES: usize = 64 << 20;
/// More of one segment are not kept.
const MAX_BYTES: usize = CACHE_BYTES / 8;
/// Candidates that pile up before they are looked through again.
const CANDIDATE_ROWS: usize = 64 * 1024;

/// The last points of every series in one segment.
#[derive(Debug)]
pub(crate) enum LastPoints {
    /// Few enough to keep.
    Few(Arc<LastRows>),
    /// So many that the segment may as well be read.
    Many,
}

/// Rows of one segment in memory.
#[derive(Debug)]
pub(crate) struct LastRows {
    sorted: RecordBatch,
    seqs: (SequenceNumber, SequenceNumber),
    times: TimeRange,
}

impl SortedRows for LastRows {
    fn seqs(&self) -> (SequenceNumber, SequenceNumber) {
        self.seqs
    }

    fn times(&self) -> TimeRange {
        self.times
    }

    fn rows(&self) -> usize {
        self.sorted.num_rows()
    }

    fn sorted(&self, _: &ScanFilter) -> Result<RecordBatch, StorageError> {
        Ok(self.sorted.clone())
    }
}

impl LastPoints {
    /// Estimated memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            LastPoints::Few(rows) => rows.sorted.get_array_memory_size(),
            LastPoints::Many => size_of::<LastPoints>(),
        }
    }

    /// Reads a segment of a measurement with this schema.
    ///
    /// # Errors
    /// See [`SegmentReader::next`].
    pub(super) async fn read(
        segment: &Arc<SegmentHandle>,
        schema: &Arc<Schema>,
    ) -> Result<Self, StorageError> {
        let meta = segment.meta();
        let columns = schema.arrow();
        let selection = Selection::at(Arc::clone(&columns), TimeRanges::all());
        let mut reader = SegmentReader::new(Arc::clone(segment), selection.into(), 0..usize::MAX);
        let (mut candidates, mut rows) = (Vec::new(), 0);
        while let Some(batch) = reader.next().await? {
            let last = last_points_of(schema, &batch)?;
            rows += last.num_rows();
            candidates.push(last);
            if rows > CANDIDATE_ROWS {
                candidates = vec![last_points_of(schema, &concat_batches(&columns, &candidates)?)?];
                rows = candidates[0].num_rows();
                if is_much(&candidates[0]) {
                    return Ok(LastPoints::Many);
                }
            }
        }
        let sorted = last_points_of(schema, &concat_batches(&columns, &candidates)?)?;
        let are_most = sorted.num_rows() as u64 * 2 > meta.rows;
        if are_most || is_much(&sorted) {
            return Ok(LastPoints::Many);
        }
        let (seqs, times) = ((meta.min_seq, meta.max_seq), meta.times);
        Ok(LastPoints::Few(Arc::new(LastRows { sorted, seqs, times })))
    }
}

fn is_much(rows: &RecordBatch) -> bool {
    rows.get_array_memory_size() > MAX_BYTES
}

/// The last points of every series in a batch that is sorted by `(tags, time)`, in the same order.
///
/// # Errors
/// [`StorageError::Invalid`] if a tag is missing.
fn last_points_of(schema: &Schema, batch: &RecordBatch) -> Result<RecordBatch, StorageError> {
    let tags = TagColumns::of(schema, batch)?;
    let fields = schema.fields().iter().filter_map(|(name, _)| batch.column_by_name(name));
    let sparse: Vec<&dyn Array> =
        fields.filter(|field| field.null_count() > 0).map(|field| &**field).collect();
    let mut last: Vec<u32> = Vec::new();
    for run in tags.runs(batch.num_rows()) {
        let newest = run.end - 1;
        let start = last.len();
        for field in sparse.iter().filter(|field| field.is_null(newest)) {
            let with_field = run.clone().rev().find(|row| field.is_valid(*row));
            last.extend(with_field.map(|row| row as u32));
        }
        last.push(newest as u32);
        last[start..].sort_unstable();
    }
    last.dedup();
    Ok(take_record_batch(batch, &UInt32Array::from(last))?)
}
