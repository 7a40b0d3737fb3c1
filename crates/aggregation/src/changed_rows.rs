//! Which rows of partials are not what they were, told by hashes.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};

use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use highwater_storage::StorageError;

use crate::error::AggregationError;
use crate::refresh::piece_starts;

/// How many rows came, went or changed from `old` to `new`, by start of the piece; pieces without
/// any are not there. The first `keys` columns tell rows apart.
///
/// # Errors
/// If rows cannot be compared.
pub(crate) fn changed_rows(
    old: &[RecordBatch],
    new: &[RecordBatch],
    keys: usize,
) -> Result<BTreeMap<i64, u64>, AggregationError> {
    let mut changed: BTreeMap<i64, u64> = BTreeMap::new();
    if old.is_empty() {
        // A first computation is long, and needs no hashes.
        for start in new.iter().flat_map(piece_starts) {
            *changed.entry(*start).or_default() += 1;
        }
        return Ok(changed);
    }
    let mut before: HashMap<u64, Hashed> = HashMap::new();
    for_each_row(old, keys, |key, row| {
        before.insert(key, row);
    })?;
    for_each_row(new, keys, |key, row| {
        if before.remove(&key).is_none_or(|old| old.values != row.values) {
            *changed.entry(row.start).or_default() += 1;
        }
    })?;
    for gone in before.into_values() {
        *changed.entry(gone.start).or_default() += 1;
    }
    Ok(changed)
}

/// A row: its piece, and the hash of what is no key.
struct Hashed {
    start: i64,
    values: u64,
}

/// Calls `seen` with the hash of its key, and each row.
fn for_each_row(
    batches: &[RecordBatch],
    keys: usize,
    mut seen: impl FnMut(u64, Hashed),
) -> Result<(), AggregationError> {
    for batch in batches {
        let starts = piece_starts(batch);
        let key_hashes = hashes(batch, 0..keys)?;
        let value_hashes = hashes(batch, keys..batch.num_columns())?;
        for ((key, values), &start) in key_hashes.into_iter().zip(value_hashes).zip(starts) {
            seen(key, Hashed { start, values });
        }
    }
    Ok(())
}

/// Hashes of these columns, row by row. The hasher has no secret, so equal rows have equal hashes in
/// every batch.
fn hashes(
    batch: &RecordBatch,
    columns: std::ops::Range<usize>,
) -> Result<Vec<u64>, AggregationError> {
    let columns = &batch.columns()[columns];
    if columns.is_empty() {
        return Ok(vec![0; batch.num_rows()]);
    }
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).map_err(StorageError::from)?;
    let rows = converter.convert_columns(columns).map_err(StorageError::from)?;
    let hash = |row: arrow::row::Row<'_>| {
        let mut hasher = DefaultHasher::new();
        hasher.write(row.as_ref());
        hasher.finish()
    };
    Ok(rows.iter().map(hash).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, StringArray, TimestampNanosecondArray};

    use super::*;

    /// Rows of piece, host and partial, as in `0,a,x`.
    fn rows(text: &str) -> Vec<RecordBatch> {
        let cells: Vec<Vec<&str>> =
            text.split_whitespace().map(|row| row.split(',').collect()).collect();
        let column = |at: usize| cells.iter().map(move |row| row[at]);
        let starts = column(0).map(|start| start.parse::<i64>().unwrap());
        let partials = column(2).map(|text| (text != "-").then_some(text.as_bytes()));
        let columns: [(&str, ArrayRef); 3] = [
            ("time", Arc::new(TimestampNanosecondArray::from_iter_values(starts))),
            ("host", Arc::new(column(1).map(Some).collect::<StringArray>())),
            ("count", Arc::new(partials.collect::<BinaryArray>())),
        ];
        vec![
            RecordBatch::try_from_iter_with_nullable(
                columns.map(|(name, column)| (name, column, true)),
            )
            .unwrap(),
        ]
    }

    fn changed(old: &str, new: &str) -> Vec<(i64, u64)> {
        let old = if old.is_empty() { Vec::new() } else { rows(old) };
        changed_rows(&old, &rows(new), 2).unwrap().into_iter().collect()
    }

    #[test]
    fn rows_that_came_went_or_changed_count_once() {
        assert_eq!(changed("", "0,a,x 0,b,x 9,a,x"), [(0, 2), (9, 1)], "all are new");
        assert_eq!(changed("0,a,x 9,a,y", "9,a,y 0,a,x"), [], "whatever the order");
        assert_eq!(changed("0,a,x 0,b,x", "0,a,y 0,b,x"), [(0, 1)], "changed");
        assert_eq!(changed("0,a,x 0,b,x", "0,a,x 9,b,x"), [(0, 1), (9, 1)], "went and came");
        assert_eq!(changed("0,a,-", "0,a,x"), [(0, 1)]);
        assert_eq!(changed("0,a,x 0,b,y", "0,a,y 0,b,x"), [(0, 2)], "by key");
    }
}
