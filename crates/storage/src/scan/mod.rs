//! Scans: deduplicated rows of one measurement out of segments and memtable batches.
//!
//! [`plan`] decides what has to be merged, [`source`] reads one source, [`merge`] joins several,
//! [`stream`] spreads the work over partitions.

pub(crate) mod condition;
mod gather;
mod hidden;
pub(crate) mod merge;
pub(crate) mod plan;
pub(crate) mod source;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use highwater_core::{ScanFilter, Schema, SequenceNumber, TimeRange, TimeRanges, Timestamp};

pub use stream::Scan;

use crate::error::StorageError;
use crate::manifest::{MeasurementKind, Tombstone};
use crate::segment::SegmentHandle;
use plan::Task;
use source::Source;

/// Values of so many series at most are looked for in statistics.
const PRUNED_BY_SERIES: usize = 1024;

/// What to read of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanRequest {
    /// Names of the columns, `time` included, in the order they are wanted.
    pub columns: Vec<Arc<str>>,
    /// Which points.
    pub filter: ScanFilter,
    /// Only rows of commits after this one are needed, and every such row is returned; older ones
    /// may be, and what deletes after it took away is not told.
    pub newer_than: SequenceNumber,
    /// Only the last points of every series matter: its newest one and, for every field that is
    /// NULL there, the newest that has the field. Others may be left out.
    pub only_last: bool,
    /// How many streams the caller can run side by side; at least 1.
    pub partitions: usize,
}

impl ScanRequest {
    /// These columns of all points that the filter wants, in one stream.
    pub fn new(columns: Vec<Arc<str>>, filter: ScanFilter) -> Self {
        let newer_than = SequenceNumber::ZERO;
        ScanRequest { columns, filter, newer_than, only_last: false, partitions: 1 }
    }
}

/// What a scan is going to read, for `EXPLAIN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanDescription {
    /// Segments that may hold wanted points.
    pub segments: usize,
    /// Segments of the measurement that need not be opened.
    pub pruned_segments: usize,
    /// Batches of the memtable that may hold wanted points.
    pub memtable_batches: usize,
    /// Rows in all of these, an upper bound of the rows read.
    pub rows: u64,
    /// Pieces of work that read one source straight.
    pub direct_tasks: usize,
    /// Pieces of work that merge several sources.
    pub merge_tasks: usize,
}

impl fmt::Display for ScanDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ScanDescription { segments, pruned_segments, memtable_batches, rows, .. } = self;
        write!(f, "segments={segments} pruned={pruned_segments} memtable={memtable_batches} ")?;
        write!(f, "rows<={rows} direct={} merges={}", self.direct_tasks, self.merge_tasks)
    }
}

/// Rows in memory that can be scanned: a batch of the memtable.
pub(crate) trait SortedRows: Send + Sync + fmt::Debug {
    /// The oldest and the newest commit with a row in here.
    fn seqs(&self) -> (SequenceNumber, SequenceNumber);

    /// Bounds of the times.
    fn times(&self) -> TimeRange;

    /// Number of rows, at least.
    fn rows(&self) -> usize;

    /// The rows sorted by `(tags, time)`, NULL first, every identity once. Columns of the schema
    /// that no row has may be missing, and so may rows that the filter does not want.
    ///
    /// # Errors
    /// [`StorageError::Arrow`] if the columns do not fit together.
    fn sorted(&self, filter: &ScanFilter) -> Result<RecordBatch, StorageError>;

    /// As [`SortedRows::sorted`], but rows may be missing that are none of the last points of
    /// their series.
    ///
    /// # Errors
    /// As [`SortedRows::sorted`].
    fn last_points(&self, filter: &ScanFilter) -> Result<RecordBatch, StorageError> {
        self.sorted(filter)
    }
}

/// Everything that holds rows of one measurement, and what is gone of it.
#[derive(Clone, Debug)]
pub(crate) struct ScanSources {
    /// All columns.
    pub(crate) schema: Arc<Schema>,
    /// Whether rows are deduplicated.
    pub(crate) kind: MeasurementKind,
    /// Points before it are gone.
    pub(crate) floor: Timestamp,
    /// Deletes and replacements, by `seq`.
    pub(crate) tombstones: Vec<Arc<Tombstone>>,
    /// Live segments.
    pub(crate) segments: Vec<Arc<SegmentHandle>>,
    /// Batches of the memtable.
    pub(crate) rows: Vec<Arc<dyn SortedRows>>,
}

impl ScanSources {
    /// Plans a scan; nothing is read before its streams are.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if a column is unknown or wanted twice.
    pub(crate) fn scan(&self, request: &ScanRequest) -> Result<Scan, StorageError> {
        let columns = columns_of(&self.schema, &request.columns)?;
        let filter = narrowed(&request.filter);
        let mut sources = self.sources(&filter);
        sources.retain(|source| source.max_seq() > request.newer_than);
        if request.only_last && self.kind == MeasurementKind::Points {
            sources.iter_mut().for_each(|source| source.limit_to_last_points(&self.schema));
        }
        let partitions = request.partitions.max(1);
        let tasks = plan::plan(&sources, self.kind, partitions);
        let description = self.describe(&sources, &tasks);
        Ok(Scan::new(self, columns, &filter, sources, tasks, partitions, description))
    }

    /// The sources that may hold rows the filter wants, oldest first.
    pub(crate) fn sources(&self, filter: &ScanFilter) -> Vec<Source> {
        let times = filter.times.intersect(&TimeRanges::from(TimeRange::since(self.floor)));
        let segments = self.segments.iter().cloned().map(Source::of_segment);
        let rows = self.rows.iter().cloned().map(Source::of_rows);
        let mut sources: Vec<Source> = segments
            .chain(rows)
            .filter(|source| times.overlaps(source.times()) && source.may_hold(&filter.tags))
            .collect();
        sources.sort_by_key(Source::age);
        hidden::limit(&mut sources, &times, &self.tombstones);
        sources.iter_mut().for_each(|source| source.series.clone_from(&filter.series));
        sources.retain(|source| !source.live.is_empty());
        sources
    }

    fn describe(&self, sources: &[Source], tasks: &[Task]) -> ScanDescription {
        let segments = sources.iter().filter(|source| source.segment().is_some()).count();
        let merge_tasks = tasks.iter().filter(|task| matches!(task, Task::Merge { .. })).count();
        ScanDescription {
            segments,
            pruned_segments: self.segments.len() - segments,
            memtable_batches: sources.len() - segments,
            rows: sources.iter().map(Source::rows).sum(),
            direct_tasks: tasks.len() - merge_tasks,
            merge_tasks,
        }
    }
}

/// The filter with what the wanted series say of times and tags, which prunes before reading.
fn narrowed(filter: &ScanFilter) -> ScanFilter {
    let mut narrowed = filter.clone();
    if let Some(series) = &filter.series {
        narrowed.times = filter.times.intersect(&series.times());
        if series.len() <= PRUNED_BY_SERIES {
            narrowed.tags.extend(series.tag_values());
        }
    }
    narrowed
}

/// The Arrow schema of the named columns, in this order.
fn columns_of(schema: &Schema, names: &[Arc<str>]) -> Result<SchemaRef, StorageError> {
    let all = schema.arrow();
    let mut positions = Vec::with_capacity(names.len());
    for name in names {
        match all.index_of(name) {
            Ok(at) if !positions.contains(&at) => positions.push(at),
            Ok(_) => return Err(StorageError::Invalid(format!("column {name} is wanted twice"))),
            Err(_) => return Err(StorageError::Invalid(format!("there is no column {name}"))),
        }
    }
    Ok(Arc::new(all.project(&positions)?))
}
