//! Rewriting the segments of a job: deduplicated, without hidden rows, parted in time.

use std::sync::Arc;

use highwater_core::time::{NANOS_PER_DAY, NANOS_PER_MINUTE};
use highwater_core::{MeasurementId, ScanFilter, TimeRange, TimeRanges, Timestamp};
use tokio::runtime::Handle;

use super::choice::{CompactionJob, Limits};
use crate::error::StorageError;
use crate::file_store::run_blocking;
use crate::scan::ScanSources;
use crate::scan::merge::{Duplicates, Merge};
use crate::scan::plan::Share;
use crate::scan::source::{ReadWork, Source};
use crate::segment::windows::windows;
use crate::segment::{EncodedSegment, Medium, SegmentMeta, SegmentStore};

/// Writes the segments that take the place of those of the job, and returns what to put into the
/// manifest; nothing if no row is left. Works on a thread of its own, with one result in memory at
/// a time.
///
/// `sources` are the segments and tombstones of the measurement as of a version that holds the
/// job's segments.
///
/// # Errors
/// Those of reading, encoding and storing. Files stored so far stay until the next open then.
pub(crate) async fn rewrite(
    job: &CompactionJob,
    sources: &ScanSources,
    id: &MeasurementId,
    store: &Arc<SegmentStore>,
    limits: Limits,
) -> Result<Vec<SegmentMeta>, StorageError> {
    let is_member = |path: &str| job.segments.iter().any(|segment| segment.path == path);
    let mut sources = sources.clone();
    sources.rows.clear();
    sources.segments.retain(|segment| is_member(&segment.meta().path));
    sources.tombstones.retain(|tombstone| tombstone.seq <= job.settled);
    let (job, id, store) = (job.clone(), id.clone(), Arc::clone(store));
    let runtime = Handle::current();
    run_blocking(move || runtime.block_on(rewrite_here(&job, &sources, &id, &store, limits))).await
}

async fn rewrite_here(
    job: &CompactionJob,
    sources: &ScanSources,
    id: &MeasurementId,
    store: &SegmentStore,
    limits: Limits,
) -> Result<Vec<SegmentMeta>, StorageError> {
    let min_seq = job.segments.iter().map(|segment| segment.min_seq).min().unwrap_or_default();
    // A job never takes segments of two.
    let medium = job.segments.first().map(|segment| Medium::of(segment)).unwrap_or_default();
    let mut written = Vec::new();
    for times in slices(&job.segments, limits) {
        if let Some(segment) = encode(sources, times, id, store, medium).await? {
            store.put(&segment, medium).await?;
            written.push(segment.meta(min_seq, job.max_seq));
        }
    }
    Ok(written)
}

/// The live rows of these times as one segment; `None` if there are none.
async fn encode(
    sources: &ScanSources,
    times: TimeRange,
    id: &MeasurementId,
    store: &SegmentStore,
    medium: Medium,
) -> Result<Option<EncodedSegment>, StorageError> {
    let filter = ScanFilter::at(times.into());
    let live = sources.sources(&filter);
    let duplicates = Duplicates::of(sources.kind);
    let work = ReadWork {
        columns: sources.schema.arrow(),
        times: TimeRanges::all(),
        tags: Arc::new([]),
        row_groups: 0..usize::MAX,
        rows_read: Arc::default(),
    };
    let live: Vec<&Source> = live.iter().collect();
    let mut rows = Merge::new(&sources.schema, &live, &work, duplicates, Share::WHOLE)?;
    let Some(first) = live.first().map(|source| source.times().start) else { return Ok(None) };
    let mut writer = store.writer(id, first.start_of_day(), &sources.schema, medium)?;
    while let Some(batch) = rows.next().await? {
        writer.write(&batch)?;
    }
    if writer.rows() == 0 { Ok(None) } else { writer.finish().map(Some) }
}

/// Cuts time so that each result has about as many rows as is allowed, if rows are spread evenly
/// within each segment; and between windows of days, unless that leaves as many segments as before.
fn slices(segments: &[Arc<SegmentMeta>], limits: Limits) -> Vec<TimeRange> {
    let rows: u64 = segments.iter().map(|segment| segment.rows).sum();
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let count = rows.div_ceil(limits.max_rows).max(bytes.div_ceil(limits.max_bytes)).max(1);
    let by_rows = (1..count).map(|i| time_with_rows_before(segments, rows * i / count));
    let mut cuts = window_starts(segments, limits);
    if cuts.len() + count as usize >= segments.len() {
        cuts.clear();
    }
    cuts.extend(by_rows);
    cuts.sort_unstable();
    cuts.dedup();
    let starts = [TimeRange::ALL.start].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([TimeRange::ALL.end]);
    starts.zip(ends).map(|(start, end)| TimeRange::new(start, end)).collect()
}

/// The first days of all windows but the first.
fn window_starts(segments: &[Arc<SegmentMeta>], limits: Limits) -> Vec<Timestamp> {
    let starts = segments.iter().map(|segment| segment.times.start.start_of_day()).min();
    let ends = segments.iter().map(|segment| segment.times.end).max();
    let (Some(mut day), Some(end)) = (starts, ends) else { return Vec::new() };
    let mut days = Vec::new();
    let mut rows_so_far = 0;
    while day < end {
        let next = day.saturating_add(NANOS_PER_DAY);
        let rows = rows_before(segments, next.as_nanos());
        if rows > rows_so_far {
            days.push((day, rows - rows_so_far));
        }
        (day, rows_so_far) = (next, rows);
    }
    windows(days, limits.window_rows).iter().skip(1).map(|window| window[0]).collect()
}

/// The first whole minute with about so many rows before it.
fn time_with_rows_before(segments: &[Arc<SegmentMeta>], wanted: u64) -> Timestamp {
    let start = segments.iter().map(|segment| segment.times.start.as_nanos()).min().unwrap_or(0);
    let end = segments.iter().map(|segment| segment.times.end.as_nanos()).max().unwrap_or(0);
    let (mut low, mut high) =
        (start.div_euclid(NANOS_PER_MINUTE), end.div_euclid(NANOS_PER_MINUTE) + 1);
    while low < high {
        let middle = low.midpoint(high);
        if rows_before(segments, middle.saturating_mul(NANOS_PER_MINUTE)) < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Timestamp::from_nanos(low.saturating_mul(NANOS_PER_MINUTE))
}

fn rows_before(segments: &[Arc<SegmentMeta>], time: i64) -> u64 {
    let of_segment = |segment: &Arc<SegmentMeta>| {
        // A segment may span all of time, more than 64 bits of nanoseconds.
        let [start, end, time] =
            [segment.times.start.as_nanos(), segment.times.end.as_nanos(), time].map(i128::from);
        let passed = (time - start).clamp(0, end - start);
        (i128::from(segment.rows) * passed / (end - start).max(1)) as u64
    };
    segments.iter().map(of_segment).sum()
}
