//! One measurement within a version.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::BooleanArray;
use highwater_core::{
    ColumnRole, MeasurementId, PointBatch, Schema, SequenceNumber, TimeRange, Timestamp,
};

use crate::changes::ChangeMap;
use crate::columns::{Columns, Place};
use crate::compaction::obsolete_tombstones;
use crate::error::StorageError;
use crate::manifest::{MeasurementKind, Tombstone};
use crate::memtable::{MemBatch, Memtable, Rows};
use crate::scan::source::visible;
use crate::scan::{Scan, ScanRequest, ScanSources, SortedRows};
use crate::segment::{SegmentHandle, SegmentMeta};
use crate::series::SeriesIndex;
use crate::watch::Watch;
use crate::write::{columns_of, tags_by_values};

/// A measurement: its columns, and everything stored of it at one commit.
#[derive(Clone, Debug)]
pub struct Measurement {
    id: MeasurementId,
    kind: MeasurementKind,
    pub(crate) columns: Columns,
    /// The schema that the manifest has.
    pub(crate) stored_schema: Option<Arc<Schema>>,
    pub(crate) floor: Timestamp,
    /// By `(max_seq, path)`.
    pub(crate) segments: Arc<Vec<Arc<SegmentHandle>>>,
    /// By `seq`.
    pub(crate) tombstones: Arc<Vec<Arc<Tombstone>>>,
    pub(crate) changes: ChangeMap,
    /// No later commit took rows away, but for those that expired.
    pub(crate) last_loss: SequenceNumber,
    /// What else is remembered of its changes, if somebody asked for that.
    pub(crate) watch: Option<Watch>,
    pub(crate) memtable: Memtable,
    /// Series of the active batches.
    index: Arc<SeriesIndex>,
    /// The same for all versions of a measurement, another if it was dropped and came again.
    birth: Arc<()>,
}

impl Measurement {
    /// A measurement without columns and rows.
    pub(crate) fn new(id: MeasurementId, kind: MeasurementKind) -> Self {
        Measurement {
            id,
            kind,
            columns: Columns::default(),
            stored_schema: None,
            floor: Timestamp::from_nanos(i64::MIN),
            segments: Arc::default(),
            tombstones: Arc::default(),
            changes: ChangeMap::default(),
            last_loss: SequenceNumber::ZERO,
            watch: None,
            memtable: Memtable::default(),
            index: Arc::default(),
            birth: Arc::default(),
        }
    }

    /// Its name.
    pub fn id(&self) -> &MeasurementId {
        &self.id
    }

    /// What it holds.
    pub fn kind(&self) -> MeasurementKind {
        self.kind
    }

    /// Its columns.
    pub fn schema(&self) -> &Arc<Schema> {
        self.columns.schema()
    }

    /// Which granules of event time were touched when.
    pub fn changes(&self) -> &ChangeMap {
        &self.changes
    }

    /// Whether what commits after `seq` changed is all told by the rows that they stored: none of
    /// them took rows away. After a restart only what happens from then on is known.
    pub fn has_only_gained_since(&self, seq: SequenceNumber) -> bool {
        self.last_loss <= seq
    }

    /// The same with everything that changed up to `at`, and perhaps with what changed somewhat
    /// later. What changed before the measurement was watched counts as long ago.
    pub fn changes_until(&self, at: Timestamp) -> &ChangeMap {
        self.watch.as_ref().and_then(|watch| watch.until(at)).unwrap_or(&self.changes)
    }

    /// When the first commit after `seq` touched it, or somewhat earlier; `None` if there is none,
    /// or if it came before the measurement was watched.
    pub fn first_change_after(&self, seq: SequenceNumber) -> Option<Timestamp> {
        let watch = self.watch.as_ref().filter(|_| self.changes.last() > seq);
        watch?.first_after(seq)
    }

    /// Which granules were touched when by commits that wrote this field or tag, or deleted
    /// something; `None` if it is not watched. See [`Engine::watch`](crate::Engine::watch).
    pub fn changes_of(&self, column: &str) -> Option<&ChangeMap> {
        self.watch.as_ref()?.column(column)
    }

    /// Whether it, and these columns of it, are watched.
    pub(crate) fn is_watched(&self, columns: &BTreeSet<Arc<str>>) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.has(columns))
    }

    /// Watches it, and these columns of it.
    pub(crate) fn watch(&mut self, columns: &BTreeSet<Arc<str>>) {
        self.watch.get_or_insert_default().add_columns(columns, &self.changes);
    }

    /// Records that the commit `seq` touched every column in `range`.
    pub(crate) fn touch(&mut self, range: TimeRange, seq: SequenceNumber) {
        self.changes.touch(range, seq);
        self.watch.iter_mut().for_each(|watch| watch.touch(range, seq));
    }

    /// Points before this instant are gone for good.
    pub fn floor(&self) -> Timestamp {
        self.floor
    }

    /// Bounds of everything stored, wider than what is live if something was deleted.
    pub fn times(&self) -> Option<TimeRange> {
        let segments = self.segments().map(|segment| segment.times);
        let all = segments.chain(self.memtable.times());
        let hull = all.reduce(|a, b| TimeRange::new(a.start.min(b.start), a.end.max(b.end)))?;
        let live = hull.intersect(TimeRange::since(self.floor));
        (!live.is_empty()).then_some(live)
    }

    /// Its segments, oldest commits first.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &Arc<SegmentMeta>> {
        self.segments.iter().map(|segment| segment.meta())
    }

    /// Rows in memory, counting overwritten ones.
    pub fn memtable_rows(&self) -> usize {
        self.memtable.memory().rows
    }

    /// Plans a scan. Nothing is read before a stream of it is polled.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if a column does not exist.
    pub fn scan(&self, request: &ScanRequest) -> Result<Scan, StorageError> {
        self.sources().scan(request)
    }

    /// Everything that holds rows of it.
    pub(crate) fn sources(&self) -> ScanSources {
        let batches = self.memtable.batches();
        ScanSources {
            schema: Arc::clone(self.schema()),
            kind: self.kind,
            floor: self.floor,
            tombstones: self.tombstones.to_vec(),
            segments: self.segments.to_vec(),
            rows: batches.map(|batch| Arc::clone(batch) as Arc<dyn SortedRows>).collect(),
        }
    }

    /// Adds points that were decided to be stored (at least one), and the columns they bring.
    pub(crate) fn apply_points(
        &mut self,
        points: &PointBatch,
        seq: SequenceNumber,
    ) -> Result<(), StorageError> {
        let is_new_tag = |(name, role): (&str, ColumnRole)| {
            role == ColumnRole::Tag && self.columns.place(name).is_none()
        };
        if columns_of(points).any(is_new_tag) {
            for tag in tags_by_values(points) {
                self.columns.insert(tag, ColumnRole::Tag);
            }
        }
        for (name, role) in columns_of(points) {
            self.columns.insert(name, role);
        }
        let series = self.index.intern(&points.tag_sets);
        let mut fields = Vec::with_capacity(points.fields.len());
        for (name, values) in &points.fields {
            match self.columns.place(name) {
                Some(Place::Field(position, stored)) if stored.arrow() == *values.data_type() => {
                    fields.push((position, Arc::clone(values)));
                }
                _ => {
                    let (id, written) = (&self.id, values.data_type());
                    return Err(StorageError::Invalid(format!("{name} of {id} is not {written}")));
                }
            }
        }
        fields.sort_unstable_by_key(|(position, _)| *position);
        let rows = Rows {
            series: points.tag_set_of_row.iter().map(|&at| series[at as usize]).collect(),
            times: points.times.clone(),
            fields,
        };
        self.changes.touch_times(&points.times, seq);
        self.watch.iter_mut().for_each(|watch| watch.touch_points(points, seq));
        let batch = MemBatch::new(Arc::clone(self.schema()), Arc::clone(&self.index), rows, seq);
        self.memtable.push(batch, self.last_tombstone())
    }

    /// Freezes the memtable; see [`Memtable::freeze`].
    pub(crate) fn freeze(&mut self) {
        self.memtable.freeze();
        self.index = Arc::default();
    }

    /// Tombstones that hide nothing, because everything older is gone or lies elsewhere.
    pub(crate) fn idle_tombstones(&self) -> Vec<SequenceNumber> {
        let segments = self.segments().map(|segment| (segment.max_seq, segment.times));
        let batches = self.memtable.batches().map(|batch| (batch.max_seq(), batch.times()));
        let stored: Vec<(SequenceNumber, TimeRange)> = segments.chain(batches).collect();
        obsolete_tombstones(&self.tombstones, &stored)
    }

    /// Whether this is the measurement of another version, not one that took its name.
    pub(crate) fn is_same(&self, other: &Measurement) -> bool {
        Arc::ptr_eq(&self.birth, &other.birth)
    }

    /// Whether something about it is in logs only, where segments hold all up to `flushed`.
    pub(crate) fn is_unflushed(&self, flushed: SequenceNumber) -> bool {
        !self.memtable.frozen().is_empty()
            || self.changes.last() > flushed
            || self.last_tombstone() > flushed
    }

    /// Which rows of a batch of the memtable are not deleted; `None` if none is.
    pub(crate) fn visible_rows(
        &self,
        batch: &MemBatch,
    ) -> Result<Option<BooleanArray>, StorageError> {
        let hides = |tombstone: &&Arc<Tombstone>| {
            tombstone.seq > batch.max_seq() && tombstone.times.overlaps(batch.times())
        };
        let hiding: Vec<Arc<Tombstone>> = self.tombstones.iter().filter(hides).cloned().collect();
        match hiding.as_slice() {
            [] => Ok(None),
            hiding => Ok(Some(visible(&batch.identities(self.schema())?, hiding)?)),
        }
    }

    /// The newest delete; zero if there is none.
    pub(crate) fn last_tombstone(&self) -> SequenceNumber {
        self.tombstones.last().map_or(SequenceNumber::ZERO, |tombstone| tombstone.seq)
    }
}
