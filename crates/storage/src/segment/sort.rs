//! Sorting rows by `(tags, time)` and parting them by windows of UTC days.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::TimestampNanosecondType;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Schema, Timestamp};

use super::tag_keys::TagColumns;
use super::windows::windows;
use crate::error::StorageError;
use crate::parallel::take_rows;

/// The rows sorted by `(tags in schema order, NULL first; time)`; rows that are equal in these
/// keep their order.
///
/// # Errors
/// [`StorageError::Invalid`] if a tag or `time` is missing.
pub(crate) fn sort_rows(schema: &Schema, batch: &RecordBatch) -> Result<RecordBatch, StorageError> {
    let times = times_of(batch)?;
    let ranks = TagColumns::of(schema, batch)?.ranks(times.len());
    let mut order: Vec<(u32, i64, u32)> =
        (0..).zip(ranks).zip(times).map(|((row, rank), time)| (rank, *time, row)).collect();
    if order.is_sorted() {
        return Ok(batch.clone());
    }
    order.sort_unstable();
    let rows: UInt32Array = order.into_iter().map(|(_, _, row)| row).collect();
    take_rows(batch, &rows)
}

/// The rows of each [window](windows) with its first day, windows ascending, rows in the order they
/// had.
///
/// # Errors
/// [`StorageError::Invalid`] if `time` is missing.
pub(crate) fn split_by_window(
    batch: &RecordBatch,
    window_rows: u64,
) -> Result<Vec<(Timestamp, RecordBatch)>, StorageError> {
    let mut rows_of_day: BTreeMap<Timestamp, Vec<u32>> = BTreeMap::new();
    for (row, time) in (0..).zip(times_of(batch)?) {
        let day = Timestamp::from_nanos(*time).start_of_day();
        rows_of_day.entry(day).or_default().push(row);
    }
    let days = rows_of_day.into_iter().map(|(day, rows)| {
        let count = rows.len() as u64;
        ((day, rows), count)
    });
    let windows = windows(days, window_rows);
    if let [window] = &windows[..] {
        return Ok(vec![(window[0].0, batch.clone())]);
    }
    let windows = windows.into_iter().map(|window| {
        let first = window[0].0;
        let mut rows: Vec<u32> = window.into_iter().flat_map(|(_, rows)| rows).collect();
        rows.sort_unstable();
        Ok((first, take_rows(batch, &UInt32Array::from(rows))?))
    });
    windows.collect()
}

/// The column `time` of a batch.
///
/// # Errors
/// [`StorageError::Invalid`] if it is missing.
pub(crate) fn times_of(batch: &RecordBatch) -> Result<&[i64], StorageError> {
    let column = batch.column_by_name(TIME_COLUMN);
    let times = column.and_then(|time| time.as_primitive_opt::<TimestampNanosecondType>());
    let times = times.ok_or_else(|| StorageError::Invalid("there is no column time".to_owned()))?;
    Ok(times.values())
}

#[cfg(test)]
mod tests {
    use highwater_core::time::NANOS_PER_DAY;

    use super::*;
    use crate::segment::test_rows::{Row, batch, rows, schema};

    #[test]
    fn rows_are_sorted_by_tags_then_time() {
        let schema = schema(&["host", "dc"], &["a"]);
        let unsorted = [
            Row::at(3).tag("host", "b").field("a", 1),
            Row::at(2).tag("host", "a").tag("dc", "x").field("a", 2),
            Row::at(9).tag("host", "a").field("a", 3),
            Row::at(1).tag("host", "a").tag("dc", "x").field("a", 4),
            Row::at(5).field("a", 5),
        ];
        let sorted = sort_rows(&schema, &batch(&schema, &unsorted)).unwrap();
        let order = [4, 2, 3, 1, 0].map(|i: usize| unsorted[i].clone());
        assert_eq!(rows(&sorted), order);
        assert_eq!(sort_rows(&schema, &sorted).unwrap(), sorted);
    }

    #[test]
    fn rows_are_parted_by_windows() {
        let schema = schema(&["host"], &["a"]);
        let given = [-1, NANOS_PER_DAY, 0, -2].map(|time| Row::at(time).field("a", time));
        let parted = |window_rows| {
            let windows = split_by_window(&batch(&schema, &given), window_rows).unwrap();
            let windows = windows.iter().map(|(day, part)| (day.as_nanos(), rows(part)));
            windows.collect::<Vec<_>>()
        };
        let [before, second, first, earlier] = given.clone();
        let last_days = vec![second.clone(), first.clone()];
        let first_day = (-NANOS_PER_DAY, vec![before, earlier]);
        let days = [first_day.clone(), (0, vec![first]), (NANOS_PER_DAY, vec![second])];
        assert_eq!(parted(1), days);
        assert_eq!(parted(2), [first_day, (0, last_days)]);
        assert_eq!(parted(4), [(-NANOS_PER_DAY, given.to_vec())]);
    }
}
