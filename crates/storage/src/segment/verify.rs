//! Reading all of a segment to see whether it is what the manifest says.

use std::sync::Arc;

use arrow::array::RecordBatch;
use highwater_core::{TimeRanges, Timestamp};

use super::reader::SegmentReader;
use super::selection::Selection;
use super::sort::times_of;
use super::store::SegmentHandle;
use super::tag_keys::TagColumns;
use crate::error::StorageError;

/// Reads every byte of a segment and checks its checksums, the number of rows, their bounds and
/// their order; with `is_unique` also that no identity is there twice.
///
/// # Errors
/// [`StorageError::Corrupt`] or [`StorageError::Parquet`] with the first thing that is wrong,
/// [`StorageError::Io`] if the file cannot be read.
pub(crate) async fn verify(
    segment: &Arc<SegmentHandle>,
    is_unique: bool,
) -> Result<(), StorageError> {
    let columns = Arc::clone(segment.footer().await?.arrow().schema());
    let selection = Selection::at(columns, TimeRanges::all());
    let mut reader = SegmentReader::new(Arc::clone(segment), Arc::new(selection), 0..usize::MAX);
    let mut last = None;
    let mut rows = 0;
    while let Some(batch) = reader.next().await? {
        last = check_rows(segment, &batch, is_unique, last)?;
        rows += batch.num_rows() as u64;
    }
    match rows == segment.meta().rows {
        true => Ok(()),
        false => {
            Err(wrong(segment, format!("it has {rows} rows instead of {}", segment.meta().rows)))
        }
    }
}

/// Key of the tags and time of a row.
type Place = (Vec<u8>, i64);

/// Checks rows that follow a row at `last`, and returns where the last of them is.
fn check_rows(
    segment: &SegmentHandle,
    batch: &RecordBatch,
    is_unique: bool,
    last: Option<Place>,
) -> Result<Option<Place>, StorageError> {
    let meta = segment.meta();
    let times = times_of(batch)?;
    let is_outside = |time: &&i64| !meta.times.contains(Timestamp::from_nanos(**time));
    if let Some(time) = times.iter().find(is_outside) {
        let time = Timestamp::from_nanos(*time);
        return Err(wrong(segment, format!("a row at {time} is outside of {}", meta.times)));
    }
    let tags = TagColumns::of_names(meta.tags.iter().map(|bounds| &*bounds.tag), batch)?;
    let (mut key, mut time) = last.unwrap_or((Vec::new(), i64::MIN));
    for run in tags.runs(times.len()) {
        let mut next_key = Vec::with_capacity(key.len());
        tags.append_key(run.start, &mut next_key);
        for &next in &times[run] {
            let order = next_key.cmp(&key).then(next.cmp(&time));
            if order.is_lt() || (order.is_eq() && is_unique) {
                let time = Timestamp::from_nanos(next);
                return Err(wrong(segment, format!("the row at {time} is not in order")));
            }
            key.clone_from(&next_key);
            time = next;
        }
    }
    Ok(Some((key, time)))
}

fn wrong(segment: &SegmentHandle, reason: String) -> StorageError {
    segment.corrupt(0, reason)
}
