//! One source of rows: a segment or a batch of the memtable, and reading what is left of it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef};
use highwater_core::schema::{TIME_COLUMN, tag_data_type, time_data_type};
use highwater_core::{
    ScanFilter, Schema, SequenceNumber, SeriesRanges, TimeRange, TimeRanges, Timestamp,
};

use super::SortedRows;
use super::condition::{collect_columns, evaluate};
use crate::error::StorageError;
use crate::manifest::Tombstone;
use crate::segment::reader::BATCH_ROWS;
use crate::segment::selection::{at_times, keep, of_series, with_columns};
use crate::segment::sort::times_of;
use crate::segment::{LastPoints, SegmentHandle, SegmentMeta, SegmentReader, Selection};

/// Tags and the values wanted of each; all must hold.
pub(crate) type TagFilter = Arc<[(Arc<str>, BTreeSet<String>)]>;

/// Where rows are, and what is left of them.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    place: Place,
    /// Only rows in here are to be returned.
    pub(crate) live: TimeRanges,
    /// Tombstones with a condition that may hide some of them.
    pub(crate) hidden: Vec<Arc<Tombstone>>,
    /// The series and times that are wanted, if not all.
    pub(crate) series: Option<Arc<SeriesRanges>>,
    /// The schema, if only the last points of every series are wanted.
    only_last: Option<Arc<Schema>>,
}

#[derive(Clone, Debug)]
enum Place {
    Segment(Arc<SegmentHandle>),
    Memory(Arc<dyn SortedRows>),
}

impl Source {
    /// All rows of a segment.
    pub(crate) fn of_segment(segment: Arc<SegmentHandle>) -> Self {
        let live = segment.meta().times.into();
        Source::of_place(Place::Segment(segment), live)
    }

    /// All rows of a batch in memory.
    pub(crate) fn of_rows(rows: Arc<dyn SortedRows>) -> Self {
        let live = rows.times().into();
        Source::of_place(Place::Memory(rows), live)
    }

    fn of_place(place: Place, live: TimeRanges) -> Self {
        Source { place, live, hidden: Vec::new(), series: None, only_last: None }
    }

    /// Reads the last points of every series only, if these are among the rows that can be
    /// returned: if nothing newer than what is live is hidden or cut off.
    pub(crate) fn limit_to_last_points(&mut self, schema: &Arc<Schema>) {
        let mut live = self.live.iter();
        let reaches_end =
            live.next().is_some_and(|first| first.end >= self.times().end) && live.next().is_none();
        if reaches_end && self.hidden.is_empty() && self.series.is_none() {
            self.only_last = Some(Arc::clone(schema));
        }
    }

    /// Bounds of the times of all rows.
    pub(crate) fn times(&self) -> TimeRange {
        match &self.place {
            Place::Segment(segment) => segment.meta().times,
            Place::Memory(rows) => rows.times(),
        }
    }

    /// Number of rows, hidden ones included.
    pub(crate) fn rows(&self) -> u64 {
        match &self.place {
            Place::Segment(segment) => segment.meta().rows,
            Place::Memory(rows) => rows.rows() as u64,
        }
    }

    /// How finely its rows can be split between readers.
    pub(crate) fn row_groups(&self) -> usize {
        match self.segment() {
            Some(segment) if self.only_last.is_none() => segment.expected_row_groups().max(1),
            _ => 1,
        }
    }

    /// Commit of the newest row.
    pub(crate) fn max_seq(&self) -> SequenceNumber {
        self.age().0
    }

    /// Sources that overlap in time are ordered by this, old to new.
    pub(crate) fn age(&self) -> (SequenceNumber, SequenceNumber) {
        match &self.place {
            Place::Segment(segment) => (segment.meta().max_seq, segment.meta().min_seq),
            Place::Memory(rows) => {
                let (min_seq, max_seq) = rows.seqs();
                (max_seq, min_seq)
            }
        }
    }

    /// The segment, if it is one.
    pub(crate) fn segment(&self) -> Option<&Arc<SegmentHandle>> {
        match &self.place {
            Place::Segment(segment) => Some(segment),
            Place::Memory(_) => None,
        }
    }

    /// Whether some row may have the wanted tags.
    pub(crate) fn may_hold(&self, tags: &[(Arc<str>, BTreeSet<String>)]) -> bool {
        let Place::Segment(segment) = &self.place else { return true };
        tags.iter().all(|(tag, values)| holds_any(segment.meta(), tag, values))
    }

    /// A reader of the rows of these row groups, or of all rows if it is no segment.
    pub(crate) fn read(&self, work: ReadWork) -> SourceReader {
        let ReadWork { columns, times, tags, row_groups, rows_read } = work;
        let times = self.live.intersect(&times);
        let read = columns_to_read(&columns, &self.hidden, self.series.as_deref());
        let rows = match &self.place {
            Place::Segment(segment) => {
                let segment = Arc::clone(segment);
                let series = self.series.clone();
                let selection = Arc::new(Selection { columns: read, times, tags, series });
                match self.only_last.clone() {
                    None => {
                        let reader = SegmentReader::new(segment, selection, row_groups);
                        Rows::Segment(Box::new(reader))
                    }
                    Some(schema) => Rows::LastPoints { segment, schema, selection },
                }
            }
            Place::Memory(rows) => {
                let filter = ScanFilter { tags: tags.to_vec(), ..ScanFilter::at(times) };
                let only_last = self.only_last.is_some();
                Rows::Memory(MemoryReader::new(Arc::clone(rows), filter, read, only_last))
            }
        };
        let (hidden, series) = (self.hidden.clone(), self.series.clone());
        SourceReader { rows, hidden, series, columns, rows_read }
    }
}

fn holds_any(meta: &SegmentMeta, tag: &str, values: &BTreeSet<String>) -> bool {
    let bounds = meta.tags.iter().find(|bounds| &*bounds.tag == tag);
    let Some((min, max)) = bounds.and_then(|bounds| bounds.values.as_ref()) else { return false };
    values.range::<String, _>(min..=max).next().is_some()
}

/// What to read of a source.
#[derive(Clone, Debug)]
pub(crate) struct ReadWork {
    /// The columns wanted, in this order.
    pub(crate) columns: SchemaRef,
    /// Only rows in here, besides what the source is limited to.
    pub(crate) times: TimeRanges,
    /// Rows with other tags may be left out.
    pub(crate) tags: TagFilter,
    /// Which row groups of a segment.
    pub(crate) row_groups: Range<usize>,
    /// Counts the rows read.
    pub(crate) rows_read: Arc<AtomicU64>,
}

/// Reads the rows of one source that are not hidden.
///
/// Columns of a batch: those wanted. Sorted by `(tags, time)`.
pub(crate) struct SourceReader {
    rows: Rows,
    hidden: Vec<Arc<Tombstone>>,
    series: Option<Arc<SeriesRanges>>,
    columns: SchemaRef,
    rows_read: Arc<AtomicU64>,
}

enum Rows {
    Segment(Box<SegmentReader>),
    Memory(MemoryReader),
    /// The last points of a segment, before it is known whether they are in memory.
    LastPoints {
        segment: Arc<SegmentHandle>,
        schema: Arc<Schema>,
        selection: Arc<Selection>,
    },
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>, StorageError> {
        loop {
            match self {
                Rows::Segment(reader) => return reader.next().await,
                Rows::Memory(reader) => return reader.next(),
                Rows::LastPoints { segment, schema, selection } => {
                    *self = open_last_points(segment, schema, selection).await?;
                }
            }
        }
    }
}

async fn open_last_points(
    segment: &Arc<SegmentHandle>,
    schema: &Arc<Schema>,
    selection: &Arc<Selection>,
) -> Result<Rows, StorageError> {
    Ok(match &*segment.last_points(schema).await? {
        LastPoints::Few(rows) => {
            let Selection { columns, times, tags, .. } = &**selection;
            let filter = ScanFilter { tags: tags.to_vec(), ..ScanFilter::at(times.clone()) };
            let rows = Arc::clone(rows) as Arc<dyn SortedRows>;
            Rows::Memory(MemoryReader::new(rows, filter, Arc::clone(columns), true))
        }
        LastPoints::Many => {
            let (segment, selection) = (Arc::clone(segment), Arc::clone(selection));
            Rows::Segment(Box::new(SegmentReader::new(segment, selection, 0..usize::MAX)))
        }
    })
}

impl SourceReader {
    /// The next batch, never empty; `None` at the end.
    ///
    /// # Errors
    /// See [`SegmentReader::next`].
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, StorageError> {
        loop {
            let Some(mut batch) = self.rows.next().await? else { return Ok(None) };
            self.rows_read.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            if let Some(series) = &self.series {
                let wanted = of_series(&batch, series)?;
                batch = keep(batch, &wanted)?;
            }
            if !self.hidden.is_empty() {
                let visible = visible(&batch, &self.hidden)?;
                batch = keep(batch, &visible)?;
            }
            if self.series.is_some() || !self.hidden.is_empty() {
                batch = with_columns(&batch, &self.columns)?;
            }
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
    }

    /// Reads only these row groups, if it reads a segment and has not started.
    pub(crate) fn limit_row_groups(&mut self, row_groups: Range<usize>) {
        if let Rows::Segment(reader) = &mut self.rows {
            reader.limit_row_groups(row_groups);
        }
    }
}

/// Reads a batch in memory.
struct MemoryReader {
    /// `None` once it is being read.
    source: Option<Arc<dyn SortedRows>>,
    filter: ScanFilter,
    columns: SchemaRef,
    only_last: bool,
    rest: Option<RecordBatch>,
}

impl MemoryReader {
    fn new(
        source: Arc<dyn SortedRows>,
        filter: ScanFilter,
        columns: SchemaRef,
        only_last: bool,
    ) -> Self {
        MemoryReader { source: Some(source), filter, columns, only_last, rest: None }
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, StorageError> {
        if let Some(source) = self.source.take() {
            let mut sorted = match self.only_last {
                true => source.last_points(&self.filter)?,
                false => source.sorted(&self.filter)?,
            };
            // Fewer columns are fewer to filter.
            let has_time = self.columns.column_with_name(TIME_COLUMN).is_some();
            if has_time {
                sorted = with_columns(&sorted, &self.columns)?;
            }
            if !self.filter.times.covers(source.times()) {
                sorted = at_times(sorted, &self.filter.times)?;
            }
            if !has_time {
                sorted = with_columns(&sorted, &self.columns)?;
            }
            self.rest = Some(sorted);
        }
        let Some(rest) = self.rest.take().filter(|rest| rest.num_rows() > 0) else {
            return Ok(None);
        };
        let rows = rest.num_rows().min(BATCH_ROWS);
        self.rest = Some(rest.slice(rows, rest.num_rows() - rows));
        Ok(Some(rest.slice(0, rows)))
    }
}

/// The wanted columns and those that conditions look at.
fn columns_to_read(
    wanted: &SchemaRef,
    hidden: &[Arc<Tombstone>],
    series: Option<&SeriesRanges>,
) -> SchemaRef {
    if hidden.is_empty() && series.is_none() {
        return Arc::clone(wanted);
    }
    let mut names = BTreeSet::from([Arc::from(TIME_COLUMN)]);
    names.extend(series.into_iter().flat_map(SeriesRanges::tags).cloned());
    hidden.iter().for_each(|tombstone| collect_columns(&tombstone.condition, &mut names));
    let missing = names.iter().filter(|name| wanted.column_with_name(name).is_none());
    let missing = missing.map(|name| match &**name {
        TIME_COLUMN => Arc::new(Field::new(TIME_COLUMN, time_data_type(), false)),
        tag => Arc::new(Field::new(tag, tag_data_type(), true)),
    });
    Arc::new(ArrowSchema::new(wanted.fields().iter().cloned().chain(missing).collect::<Vec<_>>()))
}

/// Per row: whether no tombstone hides it.
pub(crate) fn visible(
    batch: &RecordBatch,
    tombstones: &[Arc<Tombstone>],
) -> Result<BooleanArray, StorageError> {
    let mut visible = vec![true; batch.num_rows()];
    for tombstone in tombstones {
        let holds = evaluate(&tombstone.condition, batch)?;
        for ((visible, time), holds) in visible.iter_mut().zip(times_of(batch)?).zip(&holds) {
            let hides =
                holds == Some(true) && tombstone.times.contains(Timestamp::from_nanos(*time));
            *visible &= !hides;
        }
    }
    Ok(BooleanArray::from(visible))
}
