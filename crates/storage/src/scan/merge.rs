//! Merging sources that overlap: one row per identity, per field the newest value that is set.
//!
//! A k-way merge by `(tags, time)`. Rows of one series are neighbours in every source, so keys are
//! made once per run of equal tags, and as many rows as possible are taken from one source at once.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use highwater_core::Schema;
use highwater_core::schema::TIME_COLUMN;

use super::gather::{Gather, Slot};
use super::plan::Share;
use super::source::{ReadWork, Source, SourceReader};
use crate::error::StorageError;
use crate::manifest::MeasurementKind;
use crate::segment::SegmentHandle;
use crate::segment::reader::BATCH_ROWS;
use crate::segment::tag_keys::TagColumns;

/// At least so many rows in a row of one source are passed on without copying.
const PASS_ON_ROWS: usize = 2 * 1024;

/// What becomes of rows of several sources with the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duplicates {
    /// They become one row: per field the newest value that is set.
    Join,
    /// The newest is returned.
    Newest,
    /// They are all returned.
    Keep,
}

impl Duplicates {
    /// What becomes of them in a measurement.
    pub(crate) fn of(kind: MeasurementKind) -> Self {
        match kind {
            MeasurementKind::Points => Duplicates::Join,
            MeasurementKind::Rollup => Duplicates::Newest,
            MeasurementKind::Materialization => Duplicates::Keep,
        }
    }
}

/// The rows of several sources as one stream, sorted by `(tags, time)`.
pub(crate) struct Merge {
    schema: Arc<Schema>,
    duplicates: Duplicates,
    /// Oldest first.
    cursors: Vec<Cursor>,
    /// Cursors with rows left, by their heads; at equal identity the newest first.
    order: Vec<usize>,
    gather: Gather,
    /// Rows to return as they are, after those in `gather`.
    passed_on: Option<RecordBatch>,
    /// The part still to be cut out, before the first row is read.
    share: Option<Share>,
    keys: KeyRange,
}

impl Merge {
    /// Merges a share of the sources, oldest first, as `work` says.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if a wanted column is unknown.
    pub(crate) fn new(
        schema: &Arc<Schema>,
        sources: &[&Source],
        work: &ReadWork,
        duplicates: Duplicates,
        share: Share,
    ) -> Result<Self, StorageError> {
        let columns = columns_to_merge(schema, &work.columns)?;
        let gather = Gather::new(schema, &columns, Arc::clone(&work.columns))?;
        let work = ReadWork { columns, ..work.clone() };
        let cursors = sources.iter().map(|source| Cursor::new(source, &work)).collect();
        Ok(Merge {
            schema: Arc::clone(schema),
            duplicates,
            cursors,
            order: Vec::new(),
            gather,
            passed_on: None,
            share: Some(share),
            keys: KeyRange::default(),
        })
    }

    /// The next batch, never empty; `None` at the end.
    ///
    /// # Errors
    /// See [`SourceReader::next`].
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, StorageError> {
        if let Some(share) = self.share.take() {
            self.start(share).await?;
        }
        loop {
            let is_due = self.passed_on.is_some() || self.order.is_empty();
            if self.gather.rows() >= BATCH_ROWS || (is_due && self.gather.rows() > 0) {
                return self.gather.finish().map(Some);
            }
            if is_due {
                return Ok(self.passed_on.take());
            }
            self.take_rows().await?;
        }
    }

    async fn start(&mut self, share: Share) -> Result<(), StorageError> {
        if share.of > 1 {
            let segments = self.cursors.iter().filter_map(|cursor| cursor.segment.clone());
            let largest = segments.max_by_key(|segment| segment.meta().rows);
            self.keys = keys_of(share, largest, &self.schema).await?;
            for cursor in &mut self.cursors {
                cursor.skip_row_groups(&self.schema, &self.keys).await?;
            }
        }
        for cursor in 0..self.cursors.len() {
            self.load(cursor).await?;
        }
        Ok(())
    }

    /// Takes rows of the source that is first, as far as they come before those of all others.
    async fn take_rows(&mut self) -> Result<(), StorageError> {
        let first = self.order[0];
        let limit = self.order.get(1).map(|second| self.cursors[*second].head());
        let rows = self.cursors[first].rows_before(limit);
        if rows.is_empty() {
            return match self.duplicates {
                Duplicates::Join | Duplicates::Newest => self.join_rows().await,
                Duplicates::Keep => self.copy_rows(first, rows.start..rows.start + 1).await,
            };
        }
        self.copy_rows(first, rows).await
    }

    async fn copy_rows(&mut self, first: usize, rows: Range<usize>) -> Result<(), StorageError> {
        let cursor = &mut self.cursors[first];
        if rows.len() >= PASS_ON_ROWS {
            self.passed_on = Some(self.gather.slice(cursor.batch(), rows.clone())?);
        } else {
            let slot = cursor.slot(&mut self.gather);
            self.gather.push_rows(slot, rows.clone());
        }
        self.order.remove(0);
        self.advance(first, rows.len()).await
    }

    /// Makes one row of the heads that have the same identity.
    async fn join_rows(&mut self) -> Result<(), StorageError> {
        let (first, head) = (self.order[0], self.cursors[self.order[0]].head());
        let same = |other: &&usize| self.cursors[**other].head() == head;
        let same = 1 + self.order[1..].iter().take_while(same).count();
        let newest_first: Vec<usize> = self.order.drain(..same).collect();
        debug_assert_eq!(newest_first.iter().max(), Some(&first), "the newest comes first");
        let counting = match self.duplicates {
            Duplicates::Newest => &newest_first[..1],
            Duplicates::Join | Duplicates::Keep => &newest_first,
        };
        let mut candidates = Vec::with_capacity(counting.len());
        for &cursor in counting {
            let cursor = &mut self.cursors[cursor];
            candidates.push((cursor.slot(&mut self.gather), cursor.row));
        }
        self.gather.push_joined(candidates.into_iter());
        for cursor in newest_first {
            self.advance(cursor, 1).await?;
        }
        Ok(())
    }

    /// Moves a cursor that is not in the order, and puts it back there if it has rows left.
    async fn advance(&mut self, cursor: usize, rows: usize) -> Result<(), StorageError> {
        if self.cursors[cursor].advance(rows) {
            self.insert(cursor);
            return Ok(());
        }
        self.load(cursor).await
    }

    async fn load(&mut self, cursor: usize) -> Result<(), StorageError> {
        if self.cursors[cursor].load(&self.schema, &self.keys).await? {
            self.insert(cursor);
        }
        Ok(())
    }

    fn insert(&mut self, cursor: usize) {
        let head = self.cursors[cursor].head();
        let comes_before = |other: &usize| match self.cursors[*other].head().cmp(&head) {
            Ordering::Equal => *other > cursor,
            order => order == Ordering::Less,
        };
        let at = self.order.partition_point(comes_before);
        self.order.insert(at, cursor);
    }
}

/// `time`, all tags and the wanted fields.
fn columns_to_merge(schema: &Schema, wanted: &SchemaRef) -> Result<SchemaRef, StorageError> {
    let all = schema.arrow();
    let is_needed = |name: &str| {
        name == TIME_COLUMN
            || schema.tag_position(name).is_some()
            || wanted.column_with_name(name).is_some()
    };
    let needed = all.fields().iter().enumerate().filter(|(_, field)| is_needed(field.name()));
    Ok(Arc::new(all.project(&needed.map(|(at, _)| at).collect::<Vec<_>>())?))
}

/// The tags of a share: the largest segment is cut at row groups.
async fn keys_of(
    share: Share,
    largest: Option<Arc<SegmentHandle>>,
    schema: &Schema,
) -> Result<KeyRange, StorageError> {
    let keys = match largest {
        Some(segment) => first_tag_keys(&segment, schema).await?,
        None => None,
    };
    let Some(keys) = keys else { return Ok(KeyRange::all_in_first(share)) };
    let cut = |index: usize| keys.get(index * keys.len() / share.of).cloned();
    Ok(KeyRange {
        start: if share.index == 0 { None } else { cut(share.index) },
        end: if share.index + 1 == share.of { None } else { cut(share.index + 1) },
    })
}

/// Key of the tags of the first row of every row group, under the newest schema.
async fn first_tag_keys(
    segment: &SegmentHandle,
    schema: &Schema,
) -> Result<Option<Vec<Vec<u8>>>, StorageError> {
    let newer_tags = schema.tags().len().saturating_sub(segment.meta().tags.len());
    let mut keys = segment.footer().await?.first_tag_keys();
    for key in keys.iter_mut().flatten() {
        // The key of a tag that the segment does not know: NULL.
        key.resize(key.len() + newer_tags, 0);
    }
    Ok(keys)
}

/// A half-open range of tag keys; open where there is no bound.
#[derive(Clone, Debug, Default)]
struct KeyRange {
    start: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Everything belongs to the first share.
    fn all_in_first(share: Share) -> Self {
        let nothing = Some(Vec::new());
        KeyRange { start: None, end: if share.index == 0 { None } else { nothing } }
    }
}

/// A batch with all tags and `time`, and the keys of its runs of equal tags.
#[derive(Debug)]
pub(super) struct KeyedBatch {
    rows: RecordBatch,
    times: ScalarBuffer<i64>,
    tags: TagColumns,
    runs: Vec<Range<usize>>,
    keys: Vec<u8>,
    /// Per run: end of its key in `keys`.
    key_ends: Vec<usize>,
}

impl KeyedBatch {
    fn new(schema: &Schema, rows: RecordBatch) -> Result<Self, StorageError> {
        let tags = TagColumns::of(schema, &rows)?;
        let times = rows.column(0).as_primitive::<TimestampNanosecondType>().values().clone();
        let runs = tags.runs(rows.num_rows());
        let (mut keys, mut key_ends) = (Vec::new(), Vec::with_capacity(runs.len()));
        for run in &runs {
            tags.append_key(run.start, &mut keys);
            key_ends.push(keys.len());
        }
        Ok(KeyedBatch { rows, times, tags, runs, keys, key_ends })
    }

    /// The rows themselves.
    pub(super) fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// Their tags.
    pub(super) fn tags(&self) -> &TagColumns {
        &self.tags
    }

    /// The runs from the one that holds `row` on.
    pub(super) fn runs_from(&self, row: usize) -> &[Range<usize>] {
        &self.runs[self.runs.partition_point(|run| run.end <= row)..]
    }

    fn key(&self, run: usize) -> &[u8] {
        let start = if run == 0 { 0 } else { self.key_ends[run - 1] };
        &self.keys[start..self.key_ends[run]]
    }

    /// The first run from `run` on whose key is not below `key`, or the number of runs.
    fn run_not_below(&self, run: usize, key: &[u8]) -> usize {
        // Near runs are likely, so look in growing steps before searching in between.
        let (mut low, mut step) = (run, 1);
        while low + step < self.runs.len() && self.key(low + step) < key {
            low += step;
            step *= 2;
        }
        let high = (low + step).min(self.runs.len());
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Where a merge is in one source.
struct Cursor {
    reader: SourceReader,
    segment: Option<Arc<SegmentHandle>>,
    batch: Option<Arc<KeyedBatch>>,
    run: usize,
    row: usize,
    /// One past the last run to take; less than there are when the share ends here.
    end_run: usize,
    slot: Option<Slot>,
}

impl Cursor {
    fn new(source: &Source, work: &ReadWork) -> Self {
        let segment = source.segment().cloned();
        let reader = source.read(work.clone());
        Cursor { reader, segment, batch: None, run: 0, row: 0, end_run: 0, slot: None }
    }

    fn batch(&self) -> &Arc<KeyedBatch> {
        self.batch.as_ref().expect("a cursor in the order has rows")
    }

    /// Identity of the next row.
    fn head(&self) -> (&[u8], i64) {
        let batch = self.batch();
        (batch.key(self.run), batch.times[self.row])
    }

    fn slot(&mut self, gather: &mut Gather) -> Slot {
        let slot = gather.slot(self.batch(), self.slot);
        self.slot = Some(slot);
        slot
    }

    /// The next rows of this batch that come before the identity `limit`.
    fn rows_before(&self, limit: Option<(&[u8], i64)>) -> Range<usize> {
        let batch = self.batch();
        let end_of_share = batch.runs[self.end_run - 1].end;
        let Some((key, time)) = limit else { return self.row..end_of_share };
        let mut run = batch.run_not_below(self.run, key).min(self.end_run);
        let mut end = batch.runs.get(run).map_or(end_of_share, |run| run.start.max(self.row));
        while run < self.end_run && batch.key(run) == key {
            let rest = &batch.times[end..batch.runs[run].end];
            end += rest.partition_point(|own| *own < time);
            if end < batch.runs[run].end {
                break;
            }
            run += 1;
        }
        self.row..end.min(end_of_share)
    }

    /// Steps over rows; `false` if none are left in this batch.
    fn advance(&mut self, rows: usize) -> bool {
        self.row += rows;
        let runs = &self.batch.as_ref().expect("a cursor in the order has rows").runs;
        while self.run < self.end_run && runs[self.run].end <= self.row {
            self.run += 1;
        }
        self.run < self.end_run
    }

    /// Goes to the next batch with rows in the range; `false` at the end.
    async fn load(&mut self, schema: &Schema, keys: &KeyRange) -> Result<bool, StorageError> {
        let is_past_end = self.batch.take().is_some_and(|batch| self.end_run < batch.runs.len());
        self.slot = None;
        if is_past_end {
            return Ok(false);
        }
        while let Some(rows) = self.reader.next().await? {
            let batch = KeyedBatch::new(schema, rows)?;
            let not_below = |key: &Vec<u8>| batch.run_not_below(0, key);
            self.run = keys.start.as_ref().map_or(0, not_below);
            self.end_run = keys.end.as_ref().map_or(batch.runs.len(), not_below);
            let is_last = self.end_run < batch.runs.len();
            if self.run < self.end_run {
                self.row = batch.runs[self.run].start;
                self.batch = Some(Arc::new(batch));
                return Ok(true);
            }
            if is_last {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Leaves out the row groups that hold nothing in the range.
    async fn skip_row_groups(
        &mut self,
        schema: &Schema,
        keys: &KeyRange,
    ) -> Result<(), StorageError> {
        let Some(segment) = &self.segment else { return Ok(()) };
        let Some(firsts) = first_tag_keys(segment, schema).await? else { return Ok(()) };
        // A series may go on from one row group to the next.
        let start = keys
            .start
            .as_ref()
            .map_or(0, |start| firsts.partition_point(|first| first < start).saturating_sub(1));
        let end = keys.end.as_ref();
        let end = end.map_or(firsts.len(), |end| firsts.partition_point(|first| first < end));
        self.reader.limit_row_groups(start..end);
        Ok(())
    }
}
