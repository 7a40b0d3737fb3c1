//! Putting rows of several batches together, column by column.
//!
//! A merge first decides which rows come next, as *pieces*; then every column is built in one go,
//! which keeps the inner loops short and typed.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, DictionaryArray, Int32Array, NullBufferBuilder,
    PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::compute::interleave;
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, SchemaRef, TimestampNanosecondType, UInt64Type,
};
use hashbrown::HashMap;
use highwater_core::Schema;

use super::merge::KeyedBatch;
use crate::error::StorageError;

/// Rows chosen for the next batch of a merge.
#[derive(Debug)]
pub(super) struct Gather {
    output: SchemaRef,
    /// Per column of the output: its position in the batches, and among the tags if it is one.
    columns: Vec<(usize, Option<usize>)>,
    batches: Vec<Arc<KeyedBatch>>,
    pieces: Vec<Piece>,
    /// Rows of one identity, newest first; [`Piece::Joined`] points here.
    candidates: Vec<(usize, usize)>,
    rows: usize,
    generation: u64,
}

/// Where some rows come from; batches are positions in [`Gather::batches`].
#[derive(Debug)]
enum Piece {
    /// Rows as they are.
    Rows { batch: usize, rows: Range<usize> },
    /// One row: per field the newest value that is not NULL.
    Joined { candidates: Range<usize> },
}

/// A batch that [`Gather`] knows, until it is finished the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    batch: usize,
    generation: u64,
}

impl Gather {
    /// Gathers the columns of `output` from batches with the columns `input`.
    ///
    /// # Errors
    /// [`StorageError::Arrow`] if `input` lacks a column.
    pub(super) fn new(
        schema: &Schema,
        input: &SchemaRef,
        output: SchemaRef,
    ) -> Result<Self, StorageError> {
        let columns = output
            .fields()
            .iter()
            .map(|field| Ok((input.index_of(field.name())?, schema.tag_position(field.name()))));
        let columns = columns.collect::<Result<_, StorageError>>()?;
        let (batches, pieces, candidates) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Gather { output, columns, batches, pieces, candidates, rows: 0, generation: 0 })
    }

    /// Number of rows chosen.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The slot of a batch: the one it had if that is still good, or a new one.
    pub(super) fn slot(&mut self, batch: &Arc<KeyedBatch>, before: Option<Slot>) -> Slot {
        if let Some(slot) = before.filter(|slot| slot.generation == self.generation) {
            return slot;
        }
        self.batches.push(Arc::clone(batch));
        Slot { batch: self.batches.len() - 1, generation: self.generation }
    }

    /// Appends rows of a batch.
    pub(super) fn push_rows(&mut self, slot: Slot, rows: Range<usize>) {
        self.rows += rows.len();
        match self.pieces.last_mut() {
            Some(Piece::Rows { batch, rows: last })
                if *batch == slot.batch && last.end == rows.start =>
            {
                last.end = rows.end;
            }
            _ => self.pieces.push(Piece::Rows { batch: slot.batch, rows }),
        }
    }

    /// Appends one row out of several of the same identity, newest first.
    pub(super) fn push_joined(&mut self, candidates: impl Iterator<Item = (Slot, usize)>) {
        let start = self.candidates.len();
        self.candidates.extend(candidates.map(|(slot, row)| (slot.batch, row)));
        self.pieces.push(Piece::Joined { candidates: start..self.candidates.len() });
        self.rows += 1;
    }

    /// The wanted columns of some rows of a batch, without copying.
    pub(super) fn slice(
        &self,
        batch: &KeyedBatch,
        rows: Range<usize>,
    ) -> Result<RecordBatch, StorageError> {
        let columns = self
            .columns
            .iter()
            .map(|(at, _)| batch.rows().column(*at).slice(rows.start, rows.len()));
        self.batch(columns.collect(), rows.len())
    }

    /// The chosen rows; starts over with none.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, StorageError> {
        let columns =
            self.columns.iter().zip(self.output.fields()).map(|((at, tag), field)| {
                match (tag, field.data_type()) {
                    (Some(tag), _) => self.tag(*tag),
                    (None, DataType::Int64) => Ok(self.primitive::<Int64Type>(*at)),
                    (None, DataType::UInt64) => Ok(self.primitive::<UInt64Type>(*at)),
                    (None, DataType::Float64) => Ok(self.primitive::<Float64Type>(*at)),
                    (None, DataType::Timestamp(_, _)) => {
                        Ok(self.primitive::<TimestampNanosecondType>(*at))
                    }
                    (None, _) => self.any(*at),
                }
            });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let batch = self.batch(columns, self.rows)?;
        self.batches.clear();
        self.pieces.clear();
        self.candidates.clear();
        self.rows = 0;
        self.generation += 1;
        Ok(batch)
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, StorageError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?)
    }

    fn primitive<T: ArrowPrimitiveType>(&self, column: usize) -> ArrayRef {
        let columns: Vec<&PrimitiveArray<T>> =
            self.batches.iter().map(|batch| batch.rows().column(column).as_primitive()).collect();
        let mut values: Vec<T::Native> = Vec::with_capacity(self.rows);
        let mut nulls = NullBufferBuilder::new(self.rows);
        for piece in &self.pieces {
            match piece {
                Piece::Rows { batch, rows } => {
                    let column = columns[*batch];
                    values.extend_from_slice(&column.values()[rows.clone()]);
                    match column.nulls() {
                        None => nulls.append_n_non_nulls(rows.len()),
                        Some(own) => nulls.append_buffer(&own.slice(rows.start, rows.len())),
                    }
                }
                Piece::Joined { candidates } => {
                    let (batch, row) =
                        self.newest(candidates, |batch, row| columns[batch].is_valid(row));
                    values.push(columns[batch].value(row));
                    nulls.append(columns[batch].is_valid(row));
                }
            }
        }
        Arc::new(PrimitiveArray::<T>::new(values.into(), nulls.finish()))
    }

    fn any(&self, column: usize) -> Result<ArrayRef, StorageError> {
        let columns: Vec<&dyn Array> =
            self.batches.iter().map(|batch| &**batch.rows().column(column)).collect();
        let mut rows = Vec::with_capacity(self.rows);
        for piece in &self.pieces {
            match piece {
                Piece::Rows { batch, rows: own } => {
                    rows.extend(own.clone().map(|row| (*batch, row)));
                }
                Piece::Joined { candidates } => {
                    let is_set = |batch: usize, row| columns[batch].is_valid(row);
                    rows.push(self.newest(candidates, is_set));
                }
            }
        }
        Ok(interleave(&columns, &rows)?)
    }

    /// The newest candidate that `is_set`, or the newest one.
    fn newest(
        &self,
        candidates: &Range<usize>,
        is_set: impl Fn(usize, usize) -> bool,
    ) -> (usize, usize) {
        let candidates = &self.candidates[candidates.clone()];
        *candidates.iter().find(|(batch, row)| is_set(*batch, *row)).unwrap_or(&candidates[0])
    }

    /// A tag column with a dictionary of the values in use; looked up once per run of equal tags.
    fn tag(&self, tag: usize) -> Result<ArrayRef, StorageError> {
        let mut column = TagBuilder::with_capacity(self.rows);
        for piece in &self.pieces {
            match piece {
                Piece::Rows { batch, rows } => {
                    let batch = &self.batches[*batch];
                    let mut start = rows.start;
                    for run in batch.runs_from(start) {
                        let end = run.end.min(rows.end);
                        column.append(batch.tags().columns()[tag].value(start), end - start);
                        start = end;
                        if start == rows.end {
                            break;
                        }
                    }
                }
                Piece::Joined { candidates } => {
                    let (batch, row) = self.candidates[candidates.start];
                    column.append(self.batches[batch].tags().columns()[tag].value(row), 1);
                }
            }
        }
        column.finish()
    }
}

/// Builds a dictionary column out of values that often repeat the one before.
#[derive(Debug)]
struct TagBuilder<'a> {
    keys: Vec<i32>,
    nulls: NullBufferBuilder,
    values: Vec<&'a str>,
    key_of: HashMap<&'a str, i32>,
    last_key: i32,
}

impl<'a> TagBuilder<'a> {
    fn with_capacity(rows: usize) -> Self {
        TagBuilder {
            keys: Vec::with_capacity(rows),
            nulls: NullBufferBuilder::new(rows),
            values: Vec::new(),
            key_of: HashMap::new(),
            last_key: 0,
        }
    }

    fn append(&mut self, value: Option<&'a str>, rows: usize) {
        let Some(value) = value else {
            self.keys.resize(self.keys.len() + rows, 0);
            self.nulls.append_n_nulls(rows);
            return;
        };
        if self.values.get(self.last_key as usize) != Some(&value) {
            let values = &mut self.values;
            self.last_key = *self.key_of.entry(value).or_insert_with(|| {
                values.push(value);
                values.len() as i32 - 1
            });
        }
        self.keys.resize(self.keys.len() + rows, self.last_key);
        self.nulls.append_n_non_nulls(rows);
    }

    fn finish(mut self) -> Result<ArrayRef, StorageError> {
        let keys = Int32Array::new(self.keys.into(), self.nulls.finish());
        let values = Arc::new(StringArray::from(self.values));
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values)?))
    }
}
