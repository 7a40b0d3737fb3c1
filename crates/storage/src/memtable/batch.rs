//! One immutable batch of a memtable: columns in order of arrival, and their sorted form on demand.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat;
use highwater_core::{ScanFilter, Schema, SequenceNumber, TimeRange, Timestamp};

use super::Memory;
use super::last_rows::last_rows;
use super::sort::{RowsInOrder, identities};
use crate::error::StorageError;
use crate::scan::SortedRows;
use crate::series::SeriesIndex;

/// Rows of one measurement from neighbouring commits, in commit order; never empty.
#[derive(Debug)]
pub(crate) struct MemBatch {
    schema: Arc<Schema>,
    index: Arc<SeriesIndex>,
    series: Vec<u32>,
    times: Vec<i64>,
    /// Position among the schema's fields, ascending, and values; columns that no row has are left
    /// out.
    fields: Vec<(usize, ArrayRef)>,
    min_seq: SequenceNumber,
    max_seq: SequenceNumber,
    bounds: TimeRange,
    bytes: usize,
    sorted: OnceLock<RecordBatch>,
    last: OnceLock<RecordBatch>,
}

/// Columns of a [`MemBatch`], as they come from one commit.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Per row: number of its series in the index.
    pub(crate) series: Vec<u32>,
    /// Per row: nanoseconds since the epoch.
    pub(crate) times: Vec<i64>,
    /// Position among the schema's fields, ascending, and values.
    pub(crate) fields: Vec<(usize, ArrayRef)>,
}

impl MemBatch {
    /// The rows of one commit. There must be at least one.
    pub(crate) fn new(
        schema: Arc<Schema>,
        index: Arc<SeriesIndex>,
        rows: Rows,
        seq: SequenceNumber,
    ) -> Self {
        MemBatch::of(schema, index, rows, seq, seq)
    }

    fn of(
        schema: Arc<Schema>,
        index: Arc<SeriesIndex>,
        rows: Rows,
        min_seq: SequenceNumber,
        max_seq: SequenceNumber,
    ) -> Self {
        let Rows { series, times, fields } = rows;
        let bounds = bounds_of(&times);
        assert!(!bounds.is_empty(), "a memtable batch has at least one row");
        let columns: usize = fields.iter().map(|(_, values)| values.get_array_memory_size()).sum();
        let bytes = columns + times.len() * 12 + size_of::<MemBatch>();
        let (sorted, last) = (OnceLock::new(), OnceLock::new());
        MemBatch {
            schema,
            index,
            series,
            times,
            fields,
            min_seq,
            max_seq,
            bounds,
            bytes,
            sorted,
            last,
        }
    }

    /// Neighbouring batches of one memtable generation as one; `batches` are in commit order.
    pub(crate) fn join(batches: &[Arc<MemBatch>]) -> Result<Self, StorageError> {
        let (first, last) = match batches {
            [first, .., last] => (first, last),
            [only] => (only, only),
            [] => unreachable!("only existing batches are joined"),
        };
        let mut positions: Vec<usize> =
            batches.iter().flat_map(|batch| batch.fields.iter().map(|(at, _)| *at)).collect();
        positions.sort_unstable();
        positions.dedup();
        let mut fields = Vec::with_capacity(positions.len());
        for position in positions {
            fields.push((position, join_field(batches, &last.schema, position)?));
        }
        let rows = Rows {
            series: batches.iter().flat_map(|batch| batch.series.iter().copied()).collect(),
            times: batches.iter().flat_map(|batch| batch.times.iter().copied()).collect(),
            fields,
        };
        let (schema, index) = (Arc::clone(&last.schema), Arc::clone(&last.index));
        Ok(MemBatch::of(schema, index, rows, first.min_seq, last.max_seq))
    }

    /// The rows as a batch of [`Schema::arrow`] under [`MemBatch::schema`], sorted by
    /// `(tags, time)`, NULL tags first. No duplicate (series, `time`): the newest value of every
    /// field has won. Computed once.
    pub(crate) fn sorted(&self) -> Result<&RecordBatch, StorageError> {
        if let Some(sorted) = self.sorted.get() {
            return Ok(sorted);
        }
        let sorted = self.sorted_rows(&(0..self.rows() as u32).collect::<Vec<_>>()).all()?;
        Ok(self.sorted.get_or_init(|| sorted))
    }

    /// The last points of every series in the form of [`MemBatch::sorted`]: the newest one and, for
    /// every field that is NULL there, the newest that has it. Computed once.
    pub(crate) fn last_points(&self) -> Result<&RecordBatch, StorageError> {
        if let Some(last) = self.last.get() {
            return Ok(last);
        }
        let last = self.sorted_rows(&last_rows(self)).all()?;
        Ok(self.last.get_or_init(|| last))
    }

    /// `time` and the tags of `schema` of all rows, in order of arrival. `schema` may be newer than
    /// the batch.
    pub(crate) fn identities(&self, schema: &Schema) -> Result<RecordBatch, StorageError> {
        identities(self, schema)
    }

    /// These rows in the form of [`MemBatch::sorted`]; `rows` are ascending.
    pub(crate) fn sorted_rows(&self, rows: &[u32]) -> RowsInOrder<'_> {
        RowsInOrder::of(self, rows)
    }

    /// Columns these rows are in.
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The index that [`MemBatch::series`] refers to.
    pub(crate) fn index(&self) -> &Arc<SeriesIndex> {
        &self.index
    }

    /// Per row: number of its series.
    pub(crate) fn series(&self) -> &[u32] {
        &self.series
    }

    /// Per row: nanoseconds since the epoch.
    pub(crate) fn row_times(&self) -> &[i64] {
        &self.times
    }

    /// Values of the fields that some row has.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &ArrayRef> {
        self.fields.iter().map(|(_, values)| values)
    }

    /// Values of the field at `position`; `None` if no row has one.
    pub(crate) fn field(&self, position: usize) -> Option<&ArrayRef> {
        let at = self.fields.binary_search_by_key(&position, |(own, _)| *own).ok()?;
        Some(&self.fields[at].1)
    }

    /// Number of rows, counting overwritten ones.
    pub(crate) fn rows(&self) -> usize {
        self.times.len()
    }

    /// Oldest commit with a row in here.
    pub(crate) fn min_seq(&self) -> SequenceNumber {
        self.min_seq
    }

    /// Newest commit with a row in here.
    pub(crate) fn max_seq(&self) -> SequenceNumber {
        self.max_seq
    }

    /// From the first time to one past the last.
    pub(crate) fn times(&self) -> TimeRange {
        self.bounds
    }

    /// Rows, and estimated memory without the sorted form.
    pub(crate) fn memory(&self) -> Memory {
        Memory { rows: self.rows(), bytes: self.bytes }
    }
}

impl SortedRows for MemBatch {
    fn seqs(&self) -> (SequenceNumber, SequenceNumber) {
        (self.min_seq, self.max_seq)
    }

    fn times(&self) -> TimeRange {
        self.bounds
    }

    fn rows(&self) -> usize {
        self.rows()
    }

    fn sorted(&self, _: &ScanFilter) -> Result<RecordBatch, StorageError> {
        self.sorted().cloned()
    }

    fn last_points(&self, _: &ScanFilter) -> Result<RecordBatch, StorageError> {
        self.last_points().cloned()
    }
}

fn join_field(
    batches: &[Arc<MemBatch>],
    schema: &Schema,
    position: usize,
) -> Result<ArrayRef, StorageError> {
    let data_type = schema.fields()[position].1.arrow();
    let pieces: Vec<ArrayRef> = batches
        .iter()
        .map(|batch| match batch.field(position) {
            Some(values) => Arc::clone(values),
            None => new_null_array(&data_type, batch.rows()),
        })
        .collect();
    Ok(concat(&pieces.iter().map(|piece| &**piece as &dyn Array).collect::<Vec<_>>())?)
}

fn bounds_of(times: &[i64]) -> TimeRange {
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for &time in times {
        first = first.min(time);
        last = last.max(time);
    }
    let end = Timestamp::from_nanos(last).saturating_add(1);
    TimeRange::new(Timestamp::from_nanos(first), end)
}
