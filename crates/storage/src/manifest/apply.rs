//! What an edit does to the state: pure, and an error instead of a guess when they do not fit.

use std::sync::Arc;

use highwater_core::{MeasurementId, Schema, SequenceNumber, Timestamp};

use super::{Edit, ManifestState, MeasurementKind, MeasurementState, Tombstone};
use crate::changes::ChangeMap;
use crate::quarantine::QuarantinedSegment;
use crate::segment::SegmentMeta;

/// Why an edit does not fit the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// It names a measurement that does not exist.
    #[error("there is no measurement {0}")]
    NoSuchMeasurement(MeasurementId),
    /// It defines a measurement to hold something else than it does.
    #[error("what {0} holds cannot change")]
    KindIsSettled(MeasurementId),
    /// It adds a segment that is live already.
    #[error("segment {0} is live already")]
    SegmentIsLive(String),
    /// It removes a segment that is not live.
    #[error("segment {0} is not live")]
    NoSuchSegment(String),
    /// It adds a tombstone although there is another one of the same commit.
    #[error("{id} has another tombstone of commit {seq}")]
    TombstoneIsTaken {
        /// The measurement.
        id: MeasurementId,
        /// The commit.
        seq: SequenceNumber,
    },
    /// Its commit does not come after the one before it.
    #[error("commit {seq} does not come after commit {last}")]
    OutOfOrder {
        /// The commit.
        seq: SequenceNumber,
        /// The last commit of the state.
        last: SequenceNumber,
    },
}

impl ManifestState {
    /// Applies all edits of the commit `seq`, or none.
    ///
    /// # Errors
    /// [`EditError`] if some edit does not fit; the state has not changed then.
    pub fn apply_commit(&mut self, seq: SequenceNumber, edits: &[Edit]) -> Result<(), EditError> {
        if seq <= self.seq {
            return Err(EditError::OutOfOrder { seq, last: self.seq });
        }
        let mut next = ManifestState { seq, ..self.clone() };
        edits.iter().try_for_each(|edit| next.apply(edit))?;
        *self = next;
        Ok(())
    }

    /// Applies one edit of the commit `self.seq`. Edits that only forget (a measurement, a
    /// tombstone, a log, the order of old changes) are without effect when there is nothing to
    /// forget, since a commit may have been known to logs alone.
    ///
    /// # Errors
    /// [`EditError`] if it does not fit.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), EditError> {
        match edit {
            Edit::CreateDatabase { database } => self.ensure_database(database),
            Edit::DefineMeasurement { id, kind, schema } => self.define(id, *kind, schema)?,
            Edit::DropMeasurement { id } => self.drop_measurement(id),
            Edit::AddSegment { id, segment } => self.existing(id)?.add_segment(segment)?,
            Edit::RemoveSegment { id, path } => {
                self.existing(id)?.remove_segment(path)?;
            }
            Edit::QuarantineSegment { id, path, damage, at } => {
                self.quarantine_segment(id, path, damage.as_deref(), *at)?;
            }
            Edit::AddTombstone { id, tombstone } => {
                self.existing(id)?.add_tombstone(id, tombstone)?;
            }
            Edit::RemoveTombstone { id, seq } => {
                if let Ok(found) = self.existing(id) {
                    found.tombstones.retain(|tombstone| tombstone.seq != *seq);
                }
            }
            Edit::RaiseFloor { id, floor } => {
                let found = self.existing(id)?;
                found.floor = found.floor.max(*floor);
            }
            Edit::TouchGranules { id, runs } => {
                self.existing(id)?.changes.merge(runs.iter().copied());
            }
            Edit::CoarsenChanges { id, seq } => {
                if let Ok(found) = self.existing(id) {
                    found.changes.coarsen(*seq);
                }
            }
            Edit::SetRetention { database, rules } => {
                self.databases.insert(Arc::clone(database), rules.clone());
            }
            Edit::PutDocument { key, text: Some(text) } => {
                self.documents.insert(key.clone(), Arc::clone(text));
            }
            Edit::PutDocument { key, text: None } => drop(self.documents.remove(key)),
            Edit::Flushed { seq } => self.note_flushed(*seq),
            Edit::OpenLog { log } => {
                if let Err(position) = self.logs.binary_search(log) {
                    self.logs.insert(position, *log);
                }
            }
            Edit::Identify { identity } => {
                self.identity.get_or_insert_with(|| Arc::clone(identity));
            }
            Edit::Open { opening } => self.opening = Some(Arc::clone(opening)),
            Edit::SyncLog(synced) => self.synced_log = Some(*synced),
            Edit::CloseLog { log } => self.logs.retain(|own| own != log),
        }
        Ok(())
    }

    fn ensure_database(&mut self, database: &Arc<str>) {
        if !self.databases.contains_key(database) {
            self.databases.insert(Arc::clone(database), Vec::new());
        }
    }

    fn define(
        &mut self,
        id: &MeasurementId,
        kind: MeasurementKind,
        schema: &Arc<Schema>,
    ) -> Result<(), EditError> {
        self.ensure_database(&id.database);
        match self.existing(id) {
            Ok(found) if found.kind != kind => return Err(EditError::KindIsSettled(id.clone())),
            Ok(found) => found.schema = Arc::clone(schema),
            Err(_) => {
                let new = MeasurementState::new(kind, Arc::clone(schema));
                self.measurements.insert(id.clone(), Arc::new(new));
            }
        }
        Ok(())
    }

    fn drop_measurement(&mut self, id: &MeasurementId) {
        self.measurements.remove(id);
        self.dropped.insert(id.clone(), self.seq);
    }

    fn quarantine_segment(
        &mut self,
        id: &MeasurementId,
        path: &str,
        damage: Option<&str>,
        at: Timestamp,
    ) -> Result<(), EditError> {
        let found = self.existing(id)?;
        let (kind, segment) = (found.kind, found.remove_segment(path)?);
        let (id, damage, seq) = (id.clone(), damage.map(str::to_owned), self.seq);
        let given_up = QuarantinedSegment { id, kind, segment, damage, at, seq };
        Arc::make_mut(&mut self.quarantine).push(Arc::new(given_up));
        Ok(())
    }

    fn note_flushed(&mut self, seq: SequenceNumber) {
        self.flushed = self.flushed.max(seq);
        let needed = self.dropped.iter().filter(|(_, dropped)| **dropped > self.flushed);
        self.dropped = needed.map(|(id, dropped)| (id.clone(), *dropped)).collect();
    }

    fn existing(&mut self, id: &MeasurementId) -> Result<&mut MeasurementState, EditError> {
        let found = self.measurements.get_mut(id);
        found.map(Arc::make_mut).ok_or_else(|| EditError::NoSuchMeasurement(id.clone()))
    }
}

impl MeasurementState {
    /// A measurement without rows.
    fn new(kind: MeasurementKind, schema: Arc<Schema>) -> Self {
        MeasurementState {
            kind,
            schema,
            segments: Vec::new(),
            tombstones: Vec::new(),
            floor: Timestamp::from_nanos(i64::MIN),
            changes: ChangeMap::default(),
        }
    }

    fn add_segment(&mut self, segment: &Arc<SegmentMeta>) -> Result<(), EditError> {
        if self.segments.iter().any(|own| own.path == segment.path) {
            return Err(EditError::SegmentIsLive(segment.path.clone()));
        }
        let age = (segment.max_seq, &segment.path);
        let position = self.segments.partition_point(|own| (own.max_seq, &own.path) < age);
        self.segments.insert(position, Arc::clone(segment));
        Ok(())
    }

    fn remove_segment(&mut self, path: &str) -> Result<Arc<SegmentMeta>, EditError> {
        let position = self.segments.iter().position(|own| own.path == path);
        let position = position.ok_or_else(|| EditError::NoSuchSegment(path.to_owned()))?;
        Ok(self.segments.remove(position))
    }

    fn add_tombstone(
        &mut self,
        id: &MeasurementId,
        tombstone: &Arc<Tombstone>,
    ) -> Result<(), EditError> {
        match self.tombstones.binary_search_by_key(&tombstone.seq, |own| own.seq) {
            Ok(position) if self.tombstones[position] == *tombstone => Ok(()),
            Ok(_) => Err(EditError::TombstoneIsTaken { id: id.clone(), seq: tombstone.seq }),
            Err(position) => {
                self.tombstones.insert(position, Arc::clone(tombstone));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_core::{Column, Condition, TimeRange, TimeRanges};

    use super::*;

    fn id() -> MeasurementId {
        MeasurementId::new("db", "cpu")
    }

    fn seq(number: u64) -> SequenceNumber {
        SequenceNumber::new(number)
    }

    fn define(kind: MeasurementKind) -> Edit {
        Edit::DefineMeasurement {
            id: id(),
            kind,
            schema: Arc::new(Schema::of([Column::tag("host")])),
        }
    }

    fn segment(path: &str, max_seq: u64) -> Arc<SegmentMeta> {
        Arc::new(SegmentMeta {
            path: path.to_owned(),
            bytes: 1,
            footer_at: 1,
            footer_crc: 7,
            rows: 1,
            times: TimeRange::new(Timestamp::EPOCH, Timestamp::from_secs(1)),
            min_seq: seq(1),
            max_seq: seq(max_seq),
            tags: Vec::new(),
        })
    }

    fn add(path: &str, max_seq: u64) -> Edit {
        Edit::AddSegment { id: id(), segment: segment(path, max_seq) }
    }

    #[test]
    fn segments_are_ordered_by_age_and_known_once() {
        let mut state = ManifestState::default();
        let edits = [define(MeasurementKind::Points), add("b", 4), add("c", 2), add("a", 4)];
        state.apply_commit(seq(5), &edits).unwrap();
        let paths = |state: &ManifestState| -> Vec<String> {
            state.measurements[&id()].segments.iter().map(|segment| segment.path.clone()).collect()
        };
        assert_eq!(paths(&state), ["c", "a", "b"]);
        assert_eq!(state.apply(&add("a", 9)), Err(EditError::SegmentIsLive("a".to_owned())));
        let remove = Edit::RemoveSegment { id: id(), path: "a".to_owned() };
        state.apply(&remove).unwrap();
        assert_eq!(state.apply(&remove), Err(EditError::NoSuchSegment("a".to_owned())));
        assert_eq!(paths(&state), ["c", "b"]);
    }

    #[test]
    fn a_commit_applies_as_a_whole_or_not_at_all() {
        let mut state = ManifestState::default();
        state.apply_commit(seq(3), &[define(MeasurementKind::Points)]).unwrap();
        let before = state.clone();
        let create = Edit::CreateDatabase { database: "other".into() };
        let unfit = [
            (add("x", 1), None),
            (define(MeasurementKind::Materialization), Some(EditError::KindIsSettled(id()))),
        ];
        for (edit, error) in unfit {
            let mut state = state.clone();
            assert_eq!(state.apply_commit(seq(4), &[create.clone(), edit]).err(), error);
        }
        let other = MeasurementId::new("db", "mem");
        let lost = Edit::RaiseFloor { id: other.clone(), floor: Timestamp::EPOCH };
        let result = state.apply_commit(seq(4), &[create.clone(), lost]);
        assert_eq!(result, Err(EditError::NoSuchMeasurement(other)));
        let result = state.apply_commit(seq(3), &[create]);
        assert_eq!(result, Err(EditError::OutOfOrder { seq: seq(3), last: seq(3) }));
        assert_eq!(state, before);
    }

    #[test]
    fn a_drop_is_remembered_until_no_log_needs_it() {
        let mut state = ManifestState::default();
        state.apply_commit(seq(1), &[Edit::DropMeasurement { id: id() }]).unwrap();
        state.apply_commit(seq(2), &[define(MeasurementKind::Points)]).unwrap();
        assert_eq!(state.dropped.get(&id()), Some(&seq(1)));
        state.apply_commit(seq(4), &[Edit::Flushed { seq: seq(3) }]).unwrap();
        assert!(state.dropped.is_empty() && state.measurements.contains_key(&id()));
    }

    #[test]
    fn tombstones_are_ordered_and_one_per_commit() {
        let tombstone = |number, times: TimeRanges| Edit::AddTombstone {
            id: id(),
            tombstone: Arc::new(Tombstone { seq: seq(number), times, condition: Condition::All }),
        };
        let mut state = ManifestState::default();
        let all = TimeRanges::all;
        let edits = [define(MeasurementKind::Points), tombstone(3, all()), tombstone(2, all())];
        state.apply_commit(seq(5), &edits).unwrap();
        state.apply(&tombstone(3, all())).unwrap();
        let taken = EditError::TombstoneIsTaken { id: id(), seq: seq(3) };
        assert_eq!(state.apply(&tombstone(3, TimeRanges::none())), Err(taken));
        let seqs = |state: &ManifestState| -> Vec<u64> {
            state.measurements[&id()].tombstones.iter().map(|own| own.seq.get()).collect()
        };
        assert_eq!(seqs(&state), [2, 3]);
        state.apply(&Edit::RemoveTombstone { id: id(), seq: seq(2) }).unwrap();
        state.apply(&Edit::RemoveTombstone { id: id(), seq: seq(2) }).unwrap();
        assert_eq!(seqs(&state), [3]);
    }
}
