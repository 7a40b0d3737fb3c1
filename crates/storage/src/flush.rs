//! Flush: frozen memtables to segments, while writes go on.
//!
//! ```text
//! rotate the log, freeze ──► sort, encode, store segments ──► one commit ──► delete old logs
//! ```
//!
//! A reader sees a point in the frozen memtable until the commit and in its segment from then on.
//! A crash in between leaves the old logs, which hold it all.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use highwater_core::{MeasurementId, SequenceNumber, Timestamp};

use crate::error::StorageError;
use crate::file_store::run_blocking;
use crate::manifest::{Edit, MeasurementKind};
use crate::memtable::MemBatch;
use crate::planned::Planned;
use crate::segment::windows::windows;
use crate::segment::{EncodedSegment, Medium, ROW_GROUP_ROWS, SegmentMeta, SegmentStore};
use crate::version::{Measurement, Version};

/// Measurements that are encoded and stored at the same time.
const FLUSHED_TOGETHER: usize = 4;

/// Segments that hold what was frozen of one measurement, stored but not live yet.
#[derive(Debug)]
pub(crate) struct FlushedMeasurement {
    frozen: Arc<Measurement>,
    segments: Vec<Arc<SegmentMeta>>,
}

impl FlushedMeasurement {
    /// Paths of the new files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(|segment| segment.path.as_str())
    }
}

/// Stores what is frozen in `version` as segments.
///
/// # Errors
/// Those of encoding and storing; files stored so far stay until the next open.
pub(crate) async fn write_frozen(
    version: &Version,
    store: &Arc<SegmentStore>,
) -> Result<Vec<FlushedMeasurement>, StorageError> {
    let measurements: Vec<_> = version
        .all_measurements()
        .filter(|measurement| measurement.kind() == MeasurementKind::Points)
        .filter(|measurement| measurement.is_unflushed(version.flushed))
        .map(|measurement| write_measurement(Arc::clone(measurement), Arc::clone(store)))
        .collect();
    stream::iter(measurements).buffer_unordered(FLUSHED_TOGETHER).try_collect().await
}

async fn write_measurement(
    frozen: Arc<Measurement>,
    store: Arc<SegmentStore>,
) -> Result<FlushedMeasurement, StorageError> {
    let (measurement, paths) = (Arc::clone(&frozen), Arc::clone(&store));
    let encoded = run_blocking(move || encode_frozen(&measurement, &paths)).await?;
    let mut segments = Vec::with_capacity(encoded.len());
    for Encoded { segment, min_seq, max_seq } in encoded {
        store.put(&segment, Medium::Disk).await?;
        segments.push(Arc::new(segment.meta(min_seq, max_seq)));
    }
    Ok(FlushedMeasurement { frozen, segments })
}

struct Encoded {
    segment: EncodedSegment,
    min_seq: SequenceNumber,
    max_seq: SequenceNumber,
}

/// One segment per window of days and memtable generation; there is more than one only after
/// a flush that failed.
fn encode_frozen(
    measurement: &Measurement,
    store: &SegmentStore,
) -> Result<Vec<Encoded>, StorageError> {
    let mut encoded = Vec::new();
    let frozen = measurement.memtable.frozen();
    for generation in frozen.chunk_by(|a, b| Arc::ptr_eq(a.index(), b.index())) {
        let joined = MemBatch::join(generation)?;
        let days = live_rows(measurement, generation)?;
        for (day, rows) in in_windows(measurement, days, store.window_rows()) {
            let mut writer = store.writer(measurement.id(), day, joined.schema(), Medium::Disk)?;
            for part in joined.sorted_rows(&rows.rows).parts(ROW_GROUP_ROWS) {
                writer.write(&part?)?;
            }
            let (min_seq, max_seq) = (rows.min_seq, rows.max_seq);
            encoded.push(Encoded { segment: writer.finish()?, min_seq, max_seq });
        }
    }
    Ok(encoded)
}

/// Rows of a day or window, by position in all batches laid end to end.
struct DayRows {
    rows: Vec<u32>,
    min_seq: SequenceNumber,
    max_seq: SequenceNumber,
}

/// The rows that no delete hides and that are not below the floor, by UTC day.
fn live_rows(
    measurement: &Measurement,
    batches: &[Arc<MemBatch>],
) -> Result<BTreeMap<Timestamp, DayRows>, StorageError> {
    let mut days: BTreeMap<Timestamp, DayRows> = BTreeMap::new();
    let mut offset = 0;
    for batch in batches {
        let visible = measurement.visible_rows(batch)?;
        for (row, &time) in batch.row_times().iter().enumerate() {
            let time = Timestamp::from_nanos(time);
            let is_hidden = visible.as_ref().is_some_and(|visible| !visible.value(row));
            if is_hidden || time < measurement.floor() {
                continue;
            }
            let rows = days.entry(time.start_of_day()).or_insert_with(|| DayRows {
                rows: Vec::new(),
                min_seq: batch.min_seq(),
                max_seq: batch.max_seq(),
            });
            rows.rows.push(offset + row as u32);
            rows.max_seq = batch.max_seq();
        }
        offset += batch.rows() as u32;
    }
    Ok(days)
}

/// The rows of each window with its first day. A day counts with the rows that its own segments
/// hold already, so that a late point goes to its day and not to a window across others.
fn in_windows(
    measurement: &Measurement,
    days: BTreeMap<Timestamp, DayRows>,
    window_rows: u64,
) -> Vec<(Timestamp, DayRows)> {
    let mut stored: BTreeMap<Timestamp, u64> = BTreeMap::new();
    for segment in measurement.segments() {
        let day = segment.times.start.start_of_day();
        if segment.times.end.saturating_sub(1).start_of_day() == day {
            *stored.entry(day).or_default() += segment.rows;
        }
    }
    let days = days.into_iter().map(|(day, own)| {
        let rows = own.rows.len() as u64 + stored.get(&day).copied().unwrap_or(0);
        ((day, own), rows)
    });
    let joined = |window: Vec<(Timestamp, DayRows)>| {
        window.into_iter().reduce(|(first, mut all), (_, day)| {
            all.rows.extend(day.rows);
            all.min_seq = all.min_seq.min(day.min_seq);
            all.max_seq = all.max_seq.max(day.max_seq);
            (first, all)
        })
    };
    windows(days, window_rows).into_iter().filter_map(joined).collect()
}

/// The edits that put stored segments in the place of what is frozen in `frozen`, which is all up to
/// the commit `up_to`.
pub(crate) fn plan_flushed(
    flushed: &[FlushedMeasurement],
    up_to: SequenceNumber,
    version: &Version,
    seq: SequenceNumber,
    store: &Arc<SegmentStore>,
) -> Vec<Edit> {
    let mut planned = Planned::new(version, seq, store);
    // A measurement that was dropped meanwhile takes its segments with it.
    let live = |measurement: &&FlushedMeasurement| {
        let now = version.measurement(measurement.frozen.id());
        now.is_some_and(|now| now.is_same(&measurement.frozen))
    };
    let live: Vec<&FlushedMeasurement> = flushed.iter().filter(live).collect();
    for measurement in &live {
        plan_rows(&mut planned, measurement, version);
    }
    planned.push(Edit::Flushed { seq: up_to });
    for measurement in &live {
        plan_tombstones(&mut planned, measurement, version.flushed);
    }
    planned.into_edits()
}

/// The edits that give up the logs which hold nothing else than what is frozen in `frozen`.
pub(crate) fn close_logs(frozen: &Version, version: &Version) -> Vec<Edit> {
    let Some(newest) = frozen.logs().last() else { return Vec::new() };
    let older = version.logs().iter().filter(|log| *log < newest);
    older.map(|&log| Edit::CloseLog { log }).collect()
}

fn plan_rows(planned: &mut Planned<'_>, flushed: &FlushedMeasurement, version: &Version) {
    let id = flushed.frozen.id();
    let now = version.measurement(id).unwrap_or(&flushed.frozen);
    if now.stored_schema.as_ref() != Some(now.schema()) {
        let (kind, schema) = (now.kind(), Arc::clone(now.schema()));
        planned.push(Edit::DefineMeasurement { id: id.clone(), kind, schema });
    }
    for segment in &flushed.segments {
        planned.push(Edit::AddSegment { id: id.clone(), segment: Arc::clone(segment) });
    }
    let runs: Vec<_> = flushed.frozen.changes().runs_after(version.flushed).collect();
    if !runs.is_empty() {
        planned.push(Edit::TouchGranules { id: id.clone(), runs });
    }
}

/// Deletes become durable with the manifest, as far as there is something left for them to hide.
fn plan_tombstones(
    planned: &mut Planned<'_>,
    flushed: &FlushedMeasurement,
    durable: SequenceNumber,
) {
    let id: &MeasurementId = flushed.frozen.id();
    planned.remove_idle_tombstones(id);
    let remaining = planned.after().measurement(id).map(|now| Arc::clone(&now.tombstones));
    let last = flushed.frozen.last_tombstone();
    for tombstone in remaining.iter().flat_map(|all| all.iter()) {
        if tombstone.seq > durable && tombstone.seq <= last {
            let tombstone = Arc::clone(tombstone);
            planned.push(Edit::AddTombstone { id: id.clone(), tombstone });
        }
    }
}
