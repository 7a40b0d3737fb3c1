//! How an edit of the manifest changes the version in memory.

use std::sync::Arc;

use highwater_core::{MeasurementId, SequenceNumber, Timestamp};

use super::{Measurement, Version};
use crate::columns::Columns;
use crate::manifest::{Edit, ManifestState, MeasurementState, Tombstone};
use crate::quarantine::QuarantinedSegment;
use crate::segment::{Removal, SegmentHandle, SegmentStore};

impl Version {
    /// The version that the manifest describes: what is in segments, and nothing in memory.
    pub(crate) fn of_manifest(state: &ManifestState, store: &Arc<SegmentStore>) -> Self {
        let measurements = state.measurements.iter().map(|(id, stored)| {
            let mut measurement = Measurement::of_manifest(id, stored, store);
            measurement.last_loss = state.seq;
            (id.clone(), Arc::new(measurement))
        });
        let databases = state
            .databases
            .iter()
            .map(|(name, rules)| (Arc::clone(name), Arc::from(rules.as_slice())));
        Version {
            seq: state.seq,
            flushed: state.flushed,
            databases: databases.collect(),
            measurements: measurements.collect(),
            documents: state.documents.iter().map(|(k, v)| (k.clone(), Arc::clone(v))).collect(),
            quarantine: Arc::clone(&state.quarantine),
            logs: state.logs.clone(),
            ..Version::default()
        }
    }

    /// Tells the segments of this version that an edit removes what becomes of their files.
    pub(crate) fn mark_removed_by(&self, edit: &Edit) {
        let (id, removed, removal) = match edit {
            Edit::DropMeasurement { id } => (id, None, Removal::Delete),
            Edit::RemoveSegment { id, path } => (id, Some(path), Removal::Delete),
            Edit::QuarantineSegment { id, path, .. } => (id, Some(path), Removal::Keep),
            _ => return,
        };
        let segments = self.measurement(id).into_iter().flat_map(|found| found.segments.iter());
        let is_removed =
            |segment: &&Arc<SegmentHandle>| removed.is_none_or(|path| segment.meta().path == *path);
        segments.filter(is_removed).for_each(|segment| segment.mark_removed(removal));
    }

    /// Applies one edit of the commit `seq`. Like in the manifest, an edit of something that does
    /// not exist is without effect.
    pub(crate) fn apply_edit(
        &mut self,
        edit: &Edit,
        seq: SequenceNumber,
        store: &Arc<SegmentStore>,
    ) {
        match edit {
            Edit::CreateDatabase { database } => self.ensure_database(database),
            Edit::SetRetention { database, rules } => {
                self.databases.insert(Arc::clone(database), Arc::from(rules.as_slice()));
            }
            Edit::PutDocument { key, text: Some(text) } => {
                self.documents.insert(key.clone(), Arc::clone(text));
            }
            Edit::PutDocument { key, text: None } => {
                self.documents.remove(key);
            }
            Edit::DropMeasurement { id } => self.drop_measurement(id),
            Edit::DefineMeasurement { id, kind, schema } => {
                let measurement = self.ensure_measurement(id, *kind);
                measurement.columns = Columns::of(schema);
                measurement.stored_schema = Some(Arc::clone(schema));
            }
            Edit::OpenLog { log } => {
                self.logs.push(*log);
                self.freeze();
            }
            Edit::Open { .. } | Edit::SyncLog(_) | Edit::Identify { .. } => {}
            Edit::CloseLog { log } => self.logs.retain(|own| own != log),
            Edit::Flushed { seq } => self.forget_flushed(*seq),
            Edit::QuarantineSegment { id, path, damage, at } => {
                self.quarantine_segment(id, path, damage.as_deref(), *at, seq);
            }
            Edit::AddSegment { id, .. }
            | Edit::RemoveSegment { id, .. }
            | Edit::AddTombstone { id, .. }
            | Edit::RemoveTombstone { id, .. }
            | Edit::RaiseFloor { id, .. }
            | Edit::TouchGranules { id, .. }
            | Edit::CoarsenChanges { id, .. } => {
                if let Some(measurement) = self.measurement_mut(id) {
                    measurement.apply_edit(edit, store);
                }
            }
        }
        self.note_seq(seq);
    }

    fn quarantine_segment(
        &mut self,
        id: &MeasurementId,
        path: &str,
        damage: Option<&str>,
        at: Timestamp,
        seq: SequenceNumber,
    ) {
        let Some(measurement) = self.measurement_mut(id) else { return };
        measurement.last_loss = measurement.last_loss.max(seq);
        let (kind, segments) = (measurement.kind(), Arc::make_mut(&mut measurement.segments));
        let Some(position) = segments.iter().position(|own| own.meta().path == path) else {
            return;
        };
        let segment = Arc::clone(segments.remove(position).meta());
        let (id, damage) = (id.clone(), damage.map(str::to_owned));
        let given_up = QuarantinedSegment { id, kind, segment, damage, at, seq };
        Arc::make_mut(&mut self.quarantine).push(Arc::new(given_up));
    }

    fn drop_measurement(&mut self, id: &MeasurementId) {
        if let Some(dropped) = self.measurements.remove(id) {
            self.memory = self.memory.without(dropped.memtable.memory());
        }
    }

    /// From here on everything in memory waits for the flush.
    pub(crate) fn freeze(&mut self) {
        self.is_flushing |= self.unflushed_since.take().is_some();
        for id in self.measurements_in_memory() {
            if let Some(measurement) = self.measurement_mut(&id) {
                measurement.freeze();
            }
        }
    }

    fn forget_flushed(&mut self, flushed: SequenceNumber) {
        for id in self.measurements_in_memory() {
            if let Some(measurement) = self.measurement_mut(&id) {
                let before = measurement.memtable.memory();
                measurement.memtable.forget_frozen(flushed);
                let after = measurement.memtable.memory();
                self.memory = self.memory.without(before).with(after);
            }
        }
        self.flushed = flushed;
        self.is_flushing = false;
    }
}

impl Measurement {
    fn of_manifest(
        id: &MeasurementId,
        stored: &MeasurementState,
        store: &Arc<SegmentStore>,
    ) -> Self {
        let handle = |segment| store.handle(Arc::clone(segment));
        let mut measurement = Measurement::new(id.clone(), stored.kind);
        measurement.columns = Columns::of(&stored.schema);
        measurement.stored_schema = Some(Arc::clone(&stored.schema));
        measurement.floor = stored.floor;
        measurement.segments = Arc::new(stored.segments.iter().map(handle).collect());
        measurement.tombstones = Arc::new(stored.tombstones.clone());
        measurement.changes = stored.changes.clone();
        measurement
    }

    fn apply_edit(&mut self, edit: &Edit, store: &Arc<SegmentStore>) {
        match edit {
            Edit::AddSegment { segment, .. } => {
                let segments = Arc::make_mut(&mut self.segments);
                segments.push(store.handle(Arc::clone(segment)));
                segments.sort_by(|a, b| {
                    let (a, b) = (a.meta(), b.meta());
                    (a.max_seq, &a.path).cmp(&(b.max_seq, &b.path))
                });
            }
            Edit::RemoveSegment { path, .. } => {
                let segments = Arc::make_mut(&mut self.segments);
                segments.retain(|segment| segment.meta().path != *path);
            }
            Edit::AddTombstone { tombstone, .. } => self.add_tombstone(Arc::clone(tombstone)),
            Edit::RemoveTombstone { seq, .. } => {
                Arc::make_mut(&mut self.tombstones).retain(|tombstone| tombstone.seq != *seq);
            }
            Edit::RaiseFloor { floor, .. } => self.floor = self.floor.max(*floor),
            Edit::TouchGranules { runs, .. } => {
                runs.iter().for_each(|(range, seq)| self.touch(*range, *seq));
            }
            Edit::CoarsenChanges { seq, .. } => {
                self.changes.coarsen(*seq);
                self.watch.iter_mut().for_each(|watch| watch.coarsen(*seq));
            }
            _ => unreachable!("edits of other things are applied to the version"),
        }
    }

    /// Adds a tombstone unless it is there: the flush makes those of deletes durable that are in
    /// memory already.
    pub(crate) fn add_tombstone(&mut self, tombstone: Arc<Tombstone>) {
        self.last_loss = self.last_loss.max(tombstone.seq);
        if self.tombstones.iter().all(|own| own.seq != tombstone.seq) {
            let tombstones = Arc::make_mut(&mut self.tombstones);
            tombstones.push(tombstone);
            tombstones.sort_by_key(|tombstone| tombstone.seq);
        }
    }
}
