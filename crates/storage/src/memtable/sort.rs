//! Sorting the rows of a batch by (tags, time) and joining rows of the same identity.
//!
//! Series are ranked once, rows are then counted into place and only rows of one series are
//! compared, by time. Everything is stable, so among equals the newest row comes last.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::Int32Type;
use hashbrown::HashMap;
use highwater_core::{Schema, TagSet};

use super::batch::MemBatch;
use crate::error::StorageError;

/// Rows of a batch, sorted and without duplicates; see [`MemBatch::sorted`]. Columns are made part
/// by part, so that what is only passed on need not be in memory twice.
pub(crate) struct RowsInOrder<'a> {
    batch: &'a MemBatch,
    series: RankedSeries,
    identities: Identities,
}

impl<'a> RowsInOrder<'a> {
    /// These rows of the batch, ascending.
    pub(super) fn of(batch: &'a MemBatch, rows: &[u32]) -> Self {
        let series = RankedSeries::of(batch, rows);
        let identities = Identities::of(batch, series.sort(batch, rows));
        RowsInOrder { batch, series, identities }
    }

    /// All of them.
    pub(super) fn all(&self) -> Result<RecordBatch, StorageError> {
        self.part(&self.identities.bounds)
    }

    /// All of them in batches of up to `most` rows, in order.
    pub(crate) fn parts(
        &self,
        most: usize,
    ) -> impl Iterator<Item = Result<RecordBatch, StorageError>> + '_ {
        let bounds = &self.identities.bounds;
        let starts = (0..bounds.len() - 1).step_by(most);
        starts.map(move |start| self.part(&bounds[start..=(start + most).min(bounds.len() - 1)]))
    }

    /// The identities between the first and the last of `bounds`, which are a part of all bounds.
    fn part(&self, bounds: &[usize]) -> Result<RecordBatch, StorageError> {
        let (batch, identities) = (self.batch, &self.identities);
        let schema = batch.schema();
        let firsts = || identities.firsts(bounds).map(|row| row as usize);
        let ranks: Vec<u32> = firsts().map(|row| self.series.rank(batch, row)).collect();
        let times: Vec<i64> = firsts().map(|row| batch.row_times()[row]).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampNanosecondArray::from(times))];
        for tag in schema.tags() {
            columns.push(self.series.tag_column(tag, &ranks)?);
        }
        let only_row = identities.are_unique().then(|| identities.newest_rows(bounds));
        for (position, (_, field_type)) in schema.fields().iter().enumerate() {
            columns.push(match (batch.field(position), &only_row) {
                (None, _) => new_null_array(&field_type.arrow(), ranks.len()),
                (Some(values), Some(rows)) => take(values, rows, None)?,
                (Some(values), None) => {
                    take(values, &identities.newest_values(bounds, values), None)?
                }
            });
        }
        Ok(RecordBatch::try_new(schema.arrow(), columns)?)
    }
}

/// `time` and the tags of `schema` of all rows, in order of arrival.
pub(super) fn identities(batch: &MemBatch, schema: &Schema) -> Result<RecordBatch, StorageError> {
    let rows: Vec<u32> = (0..batch.rows() as u32).collect();
    let series = RankedSeries::of(batch, &rows);
    let ranks: Vec<u32> = (0..batch.rows()).map(|row| series.rank(batch, row)).collect();
    let times = TimestampNanosecondArray::from(batch.row_times().to_vec());
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times)];
    for tag in schema.tags() {
        columns.push(series.tag_column(tag, &ranks)?);
    }
    let schema = schema.arrow().project(&(0..columns.len()).collect::<Vec<_>>())?;
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// The series of some rows in the order of their tags.
struct RankedSeries {
    /// Number of a series to its rank.
    rank_of: HashMap<u32, u32>,
    /// By rank.
    tag_sets: Vec<Arc<TagSet>>,
}

impl RankedSeries {
    fn of(batch: &MemBatch, rows: &[u32]) -> Self {
        let mut rank_of = HashMap::new();
        for &row in rows {
            rank_of.entry(batch.series()[row as usize]).or_insert(0);
        }
        let ids: Vec<u32> = rank_of.keys().copied().collect();
        let tag_sets = batch.index().tag_sets(&ids);
        let tags = batch.schema().tags();
        let mut ranked: Vec<_> = tag_sets.iter().zip(&ids).collect();
        ranked.sort_by_cached_key(|(tag_set, _)| {
            // `None` comes first, as NULL does.
            tags.iter().map(|tag| tag_set.get(tag)).collect::<Vec<Option<&str>>>()
        });
        for (rank, (_, id)) in ranked.iter().enumerate() {
            rank_of.insert(**id, rank as u32);
        }
        let tag_sets = ranked.into_iter().map(|(tag_set, _)| Arc::clone(tag_set)).collect();
        RankedSeries { rank_of, tag_sets }
    }

    fn rank(&self, batch: &MemBatch, row: usize) -> u32 {
        self.rank_of[&batch.series()[row]]
    }

    /// The rows by (rank, time); rows of one identity stay in the order they had.
    fn sort(&self, batch: &MemBatch, rows: &[u32]) -> Vec<u32> {
        let ranks: Vec<u32> = rows.iter().map(|&row| self.rank(batch, row as usize)).collect();
        let mut next = vec![0_usize; self.tag_sets.len() + 1];
        for &rank in &ranks {
            next[rank as usize + 1] += 1;
        }
        for rank in 1..next.len() {
            next[rank] += next[rank - 1];
        }
        let starts = next.clone();
        let mut sorted = vec![0_u32; rows.len()];
        for (&row, &rank) in rows.iter().zip(&ranks) {
            let place = &mut next[rank as usize];
            sorted[*place] = row;
            *place += 1;
        }
        let time = |row: &u32| batch.row_times()[*row as usize];
        for bounds in starts.windows(2) {
            let of_series = &mut sorted[bounds[0]..bounds[1]];
            if !of_series.is_sorted_by_key(time) {
                of_series.sort_by_key(time);
            }
        }
        sorted
    }

    /// The values of a tag, with a dictionary of those in the range of `ranks`.
    fn tag_column(&self, tag: &str, ranks: &[u32]) -> Result<ArrayRef, StorageError> {
        let lowest = ranks.iter().min().map_or(0, |&rank| rank as usize);
        let after = ranks.iter().max().map_or(0, |&rank| rank as usize + 1);
        let (mut key_of, mut values) = (HashMap::new(), Vec::new());
        let key_of_rank: Vec<Option<i32>> = self.tag_sets[lowest..after]
            .iter()
            .map(|tag_set| {
                let value = tag_set.get(tag)?;
                Some(*key_of.entry(value).or_insert_with(|| {
                    values.push(value);
                    values.len() as i32 - 1
                }))
            })
            .collect();
        let keys: Int32Array =
            ranks.iter().map(|&rank| key_of_rank[rank as usize - lowest]).collect();
        let values = Arc::new(StringArray::from(values));
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values)?))
    }
}

/// Sorted rows, grouped by identity.
struct Identities {
    /// Rows by (series, time, age).
    sorted: Vec<u32>,
    /// Where each identity starts in `sorted`, and the end.
    bounds: Vec<usize>,
}

impl Identities {
    fn of(batch: &MemBatch, sorted: Vec<u32>) -> Self {
        let identity = |at: usize| {
            let row = sorted[at] as usize;
            (batch.series()[row], batch.row_times()[row])
        };
        let is_first = |at: &usize| *at == 0 || identity(*at) != identity(*at - 1);
        let mut bounds: Vec<usize> = (0..sorted.len()).filter(is_first).collect();
        bounds.push(sorted.len());
        Identities { sorted, bounds }
    }

    fn are_unique(&self) -> bool {
        self.bounds.len() == self.sorted.len() + 1
    }

    /// Per identity its oldest row.
    fn firsts(&self, bounds: &[usize]) -> impl Iterator<Item = u32> {
        bounds[..bounds.len() - 1].iter().map(|&at| self.sorted[at])
    }

    /// Per identity its newest row.
    fn newest_rows(&self, bounds: &[usize]) -> UInt32Array {
        bounds[1..].iter().map(|&end| self.sorted[end - 1]).collect::<Vec<_>>().into()
    }

    /// Per identity the newest row that has a value, or just the newest if none has.
    fn newest_values(&self, bounds: &[usize], values: &dyn Array) -> UInt32Array {
        let pick = |bounds: &[usize]| {
            let rows = &self.sorted[bounds[0]..bounds[1]];
            let with_value = rows.iter().rev().find(|row| values.is_valid(**row as usize));
            *with_value.unwrap_or(&rows[rows.len() - 1])
        };
        bounds.windows(2).map(pick).collect::<Vec<_>>().into()
    }
}
