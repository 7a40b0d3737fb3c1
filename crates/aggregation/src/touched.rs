//! Which groups of which pieces the commits since the last refresh can have changed.
//!
//! Nobody records that. The rows that those commits stored say it: they stand in the newest segments
//! and memtables, which are few when a refresh is recent. Only their tags and times are read. Where
//! that is not enough (rows were taken away, or groups are not told apart by tags), or not worth it,
//! whole pieces are computed again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch};
use arrow::datatypes::{Int32Type, TimestampNanosecondType};
use futures::TryStreamExt;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{ScanFilter, SequenceNumber, SeriesRanges, TimeRange, TimeRanges, Timestamp};
use highwater_storage::{Measurement, MeasurementKind, ScanRequest, StorageError};

use crate::catalog::Aggregate;
use crate::definition::Resolved;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::pieces::Pieces;

/// More rows than this are not looked through.
const MOST_ROWS: u64 = 1 << 20;
/// It is worth it if at most one in so many of the stored rows has to be computed again.
const WORTHWHILE_SHARE: u64 = 4;

/// The groups and pieces within `times` (whole pieces, all of them stored) that may have changed
/// since they were stored; `None` if that is not known, or so many that it does not matter.
///
/// # Errors
/// Those of reading.
pub(crate) async fn touched(
    reader: &Reader,
    aggregate: &Aggregate,
    resolved: &Resolved,
    times: &TimeRanges,
) -> Result<Option<SeriesRanges>, AggregationError> {
    let version = reader.session().version();
    let stored = version.measurement(&aggregate.stored());
    let Some(stored) = stored.filter(|stored| stored.kind() == MeasurementKind::Rollup) else {
        return Ok(None);
    };
    let Some(root) = reader.root(aggregate) else { return Ok(None) };
    let Some(since) = stored_since(aggregate, times) else { return Ok(None) };
    if !root.has_only_gained_since(since) {
        return Ok(None);
    }
    // An aggregate over an aggregate may still have to follow points that have expired meanwhile.
    if times.overlaps(TimeRange::before(root.floor())) {
        return Ok(None);
    }
    let tags: Vec<Arc<str>> = resolved.groups.iter().map(|one| Arc::clone(&one.name)).collect();
    if !tags.iter().all(|tag| root.schema().tag_position(tag).is_some()) {
        return Ok(None);
    }
    let most_groups = rows_within(stored, times) / WORTHWHILE_SHARE;
    let columns = std::iter::once(Arc::from(TIME_COLUMN)).chain(tags.iter().cloned());
    let filter = ScanFilter::at(times.clone());
    let request = ScanRequest { newer_than: since, ..ScanRequest::new(columns.collect(), filter) };
    let scan = root.scan(&request)?;
    if scan.describe().rows > MOST_ROWS {
        return Ok(None);
    }
    let mut found: Vec<(Vec<Option<String>>, TimeRange)> = Vec::new();
    let mut batches = scan.stream(0);
    while let Some(batch) = batches.try_next().await? {
        add_groups(&mut found, aggregate.definition.pieces, &batch)?;
        if found.len() as u64 > most_groups {
            return Ok(None);
        }
    }
    Ok(Some(SeriesRanges::new(tags, found)))
}

/// The oldest commit that stored pieces within `times` reflect.
fn stored_since(aggregate: &Aggregate, times: &TimeRanges) -> Option<SequenceNumber> {
    let overlapping = aggregate.progress.applied.runs().filter(|(range, _)| times.overlaps(*range));
    overlapping.map(|(_, seq)| seq).min()
}

/// About how many rows are stored there, at most.
fn rows_within(stored: &Measurement, times: &TimeRanges) -> u64 {
    let segments = stored.segments().filter(|segment| times.overlaps(segment.times));
    segments.map(|segment| segment.rows).sum()
}

/// Adds the groups and pieces that rows of `time` and tags belong to. Rows of one series are
/// neighbours, so each group and piece is added once or a few times.
fn add_groups(
    found: &mut Vec<(Vec<Option<String>>, TimeRange)>,
    pieces: Pieces,
    batch: &RecordBatch,
) -> Result<(), AggregationError> {
    let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
    let tags = batch.columns()[1..].iter().map(tag_column).collect::<Result<Vec<_>, _>>()?;
    let keys = |row: usize| tags.iter().map(move |tag| tag.key(row));
    let mut before: Option<(usize, TimeRange)> = None;
    for (row, &nanos) in times.values().iter().enumerate() {
        let time = Timestamp::from_nanos(nanos);
        let is_same =
            before.is_some_and(|(other, piece)| piece.contains(time) && keys(other).eq(keys(row)));
        if !is_same {
            let piece = pieces.piece_of(time);
            found.push((tags.iter().map(|tag| value(tag, row)).collect(), piece));
            before = Some((row, piece));
        }
    }
    Ok(())
}

fn tag_column(column: &ArrayRef) -> Result<&DictionaryArray<Int32Type>, StorageError> {
    let found = column.as_dictionary_opt::<Int32Type>();
    found.ok_or_else(|| StorageError::Invalid("a tag is not a dictionary".to_owned()))
}

fn value(tag: &DictionaryArray<Int32Type>, row: usize) -> Option<String> {
    let key = tag.key(row)?;
    let values = tag.values().as_string::<i32>();
    values.is_valid(key).then(|| values.value(key).to_owned())
}
