//! Which rows of a batch can be the last ones of their series.

use arrow::array::{Array, ArrayRef};

use super::batch::MemBatch;

/// Ascending rows: all with the newest time of their series and, for every field, all with the
/// newest time at which their series has the field.
pub(super) fn last_rows(batch: &MemBatch) -> Vec<u32> {
    let mut is_last = vec![false; batch.rows()];
    mark(batch, None, &mut is_last);
    for field in batch.fields().filter(|field| field.null_count() > 0) {
        mark(batch, Some(field), &mut is_last);
    }
    let rows = is_last.iter().enumerate().filter(|(_, is_last)| **is_last);
    rows.map(|(row, _)| row as u32).collect()
}

/// Marks the newest rows of every series among those that have the field.
fn mark(batch: &MemBatch, field: Option<&ArrayRef>, is_last: &mut [bool]) {
    let rows = || {
        let has_field = move |row: &usize| field.is_none_or(|field| field.is_valid(*row));
        let rows = (0..batch.rows()).filter(has_field);
        rows.map(|row| (row, batch.series()[row] as usize, batch.row_times()[row]))
    };
    let series = batch.series().iter().max().map_or(0, |last| *last as usize + 1);
    let mut newest = vec![i64::MIN; series];
    for (_, series, time) in rows() {
        newest[series] = newest[series].max(time);
    }
    for (row, series, time) in rows() {
        is_last[row] |= newest[series] == time;
    }
}
