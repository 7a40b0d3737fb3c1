//! Versions: what one reader sees, immutable and complete.
//!
//! The commit thread builds the next version from the newest one and publishes it. Versions share
//! nearly everything, and each keeps alive the batches and segment files it refers to.

mod edit;
mod measurement;

use std::sync::Arc;

use highwater_core::bucket::Span;
use highwater_core::time::NANOS_PER_SEC;
use highwater_core::{MeasurementId, PointBatch, SequenceNumber, TimeRanges, Timestamp};
use imbl::OrdMap;

use crate::error::StorageError;
use crate::manifest::{MeasurementKind, RetentionRule, Tombstone, retention_of};
use crate::memtable::Memory;
use crate::quarantine::QuarantinedSegment;
use crate::settings::Settings;

pub use measurement::Measurement;

/// The state of the engine right after one commit.
#[derive(Clone, Debug, Default)]
pub struct Version {
    pub(crate) seq: SequenceNumber,
    /// All commits up to this one are in segments.
    pub(crate) flushed: SequenceNumber,
    /// The commit with which the engine was opened.
    pub(crate) opened: SequenceNumber,
    databases: OrdMap<Arc<str>, Arc<[RetentionRule]>>,
    measurements: OrdMap<MeasurementId, Arc<Measurement>>,
    documents: OrdMap<String, Arc<str>>,
    /// Segments that were given up, oldest first.
    pub(crate) quarantine: Arc<Vec<Arc<QuarantinedSegment>>>,
    /// What all memtables hold together.
    memory: Memory,
    /// When the first commit came that is in the log and not in segments, unless it is frozen.
    unflushed_since: Option<Timestamp>,
    /// Whether frozen commits wait for their segments.
    is_flushing: bool,
    /// Log files in use, ascending.
    logs: Vec<u64>,
}

impl Version {
    /// The last commit in here.
    pub fn seq(&self) -> SequenceNumber {
        self.seq
    }

    /// The commit with which the engine was opened. Whatever is in memory alone came after it.
    pub fn opened(&self) -> SequenceNumber {
        self.opened
    }

    /// Names of all databases, ascending.
    pub fn databases(&self) -> impl Iterator<Item = &Arc<str>> {
        self.databases.keys()
    }

    /// Whether there is such a database.
    pub fn has_database(&self, database: &str) -> bool {
        self.databases.contains_key(database)
    }

    /// All measurements of a database, of both kinds, ascending by name.
    pub fn measurements(&self, database: &str) -> impl Iterator<Item = &Arc<Measurement>> {
        let first = MeasurementId::new(database, "");
        let database = Arc::clone(&first.database);
        self.measurements
            .range(first..)
            .map(|(_, measurement)| measurement)
            .take_while(move |measurement| measurement.id().database == database)
    }

    /// All measurements of all databases.
    pub fn all_measurements(&self) -> impl Iterator<Item = &Arc<Measurement>> {
        self.measurements.values()
    }

    /// A measurement, if it exists.
    pub fn measurement(&self, id: &MeasurementId) -> Option<&Arc<Measurement>> {
        self.measurements.get(id)
    }

    /// Text of a document of a layer above.
    pub fn document(&self, key: &str) -> Option<&Arc<str>> {
        self.documents.get(key)
    }

    /// Documents whose key begins with `prefix`, ascending by key.
    pub fn documents(&self, prefix: &str) -> impl Iterator<Item = (&str, &Arc<str>)> {
        self.documents
            .range::<_, str>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .map(|(key, text)| (key.as_str(), text))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// How long points of a measurement are kept; `None` means for ever. An exact name beats the
    /// longest prefix, which beats `*`.
    pub fn retention(&self, id: &MeasurementId) -> Option<Span> {
        Some(self.retention_rule(id)?.keep)
    }

    /// The rule that a measurement has, see [`Version::retention`].
    pub fn retention_rule(&self, id: &MeasurementId) -> Option<&RetentionRule> {
        retention_of(self.databases.get(&id.database)?, &id.measurement)
    }

    /// Points of a measurement before this instant have expired for readers; `None` without a
    /// rule.
    pub fn horizon(&self, id: &MeasurementId, now: Timestamp) -> Option<Timestamp> {
        Some(self.retention(id)?.before(now))
    }

    /// The retention rules of a database.
    pub fn retention_rules(&self, database: &str) -> &[RetentionRule] {
        self.databases.get(database).map_or(&[], |rules| rules)
    }

    /// Log files in use, ascending.
    pub(crate) fn logs(&self) -> &[u64] {
        &self.logs
    }

    /// Whether some commit is in the log and not in segments.
    pub(crate) fn is_unflushed(&self) -> bool {
        self.is_flushing || self.unflushed_since.is_some()
    }

    /// Whether memtables have grown enough to be flushed.
    pub(crate) fn flush_due_by_size(&self, settings: &Settings) -> bool {
        let most_bytes = settings.flush_bytes.min(settings.max_memtable_bytes);
        self.memory.bytes >= most_bytes || self.memory.rows >= settings.flush_points
    }

    /// Whether some commit has waited long enough to be flushed.
    pub(crate) fn flush_due_by_age(&self, settings: &Settings, now: Timestamp) -> bool {
        let age = settings.flush_age_secs.saturating_mul(NANOS_PER_SEC as u64);
        let age = i64::try_from(age).unwrap_or(i64::MAX);
        self.is_flushing
            || self.unflushed_since.is_some_and(|since| since <= now.saturating_sub(age))
    }

    /// Remembers that the number of a commit is taken.
    pub(crate) fn note_seq(&mut self, seq: SequenceNumber) {
        self.seq = self.seq.max(seq);
    }

    /// Remembers that a commit came that is in the log and not in segments.
    pub(crate) fn note_unflushed(&mut self, now: Timestamp) {
        self.unflushed_since.get_or_insert(now);
    }

    /// Remembers when the next change of a measurement comes, if somebody watches it.
    pub(crate) fn note_time(&mut self, id: &MeasurementId, now: Timestamp) {
        if self.measurement(id).is_some_and(|measurement| measurement.watch.is_some())
            && let Some(measurement) = self.measurement_mut(id)
            && let Some(watch) = &mut measurement.watch
        {
            watch.before_commit(now, &measurement.changes);
        }
    }

    /// What all memtables hold together.
    pub(crate) fn memory(&self) -> Memory {
        self.memory
    }

    /// Adds points that were decided to be stored (at least one) as part of the commit `seq`. The
    /// measurement comes into being if it does not exist.
    pub(crate) fn apply_points(
        &mut self,
        id: &MeasurementId,
        points: &PointBatch,
        seq: SequenceNumber,
    ) -> Result<(), StorageError> {
        let measurement = self.ensure_measurement(id, MeasurementKind::Points);
        let before = measurement.memtable.memory();
        measurement.apply_points(points, seq)?;
        let after = measurement.memtable.memory();
        self.memory = self.memory.without(before).with(after);
        self.note_seq(seq);
        Ok(())
    }

    /// Hides the rows of a delete, which is the commit of the tombstone. `touched` are the granules
    /// that lose rows.
    pub(crate) fn apply_delete(
        &mut self,
        id: &MeasurementId,
        tombstone: Arc<Tombstone>,
        touched: &TimeRanges,
    ) {
        self.note_seq(tombstone.seq);
        if let Some(measurement) = self.measurement_mut(id) {
            for range in touched.iter() {
                measurement.touch(range, tombstone.seq);
            }
            measurement.add_tombstone(tombstone);
        }
    }

    /// Adds a database unless it is there.
    pub(crate) fn ensure_database(&mut self, database: &Arc<str>) {
        if !self.has_database(database) {
            self.databases.insert(Arc::clone(database), Arc::new([]));
        }
    }

    /// The measurement for changing, created (with its database) if it does not exist.
    pub(crate) fn ensure_measurement(
        &mut self,
        id: &MeasurementId,
        kind: MeasurementKind,
    ) -> &mut Measurement {
        if !self.measurements.contains_key(id) {
            self.ensure_database(&id.database);
            self.measurements.insert(id.clone(), Arc::new(Measurement::new(id.clone(), kind)));
        }
        self.measurement_mut(id).expect("it was there or has just been added")
    }

    /// The measurement for changing, if it exists.
    pub(crate) fn measurement_mut(&mut self, id: &MeasurementId) -> Option<&mut Measurement> {
        self.measurements.get_mut(id).map(Arc::make_mut)
    }

    /// Ids of all measurements with points in memory.
    pub(crate) fn measurements_in_memory(&self) -> Vec<MeasurementId> {
        let in_memory = self.all_measurements().filter(|m| m.memtable_rows() > 0);
        in_memory.map(|measurement| measurement.id().clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_found_by_prefix() {
        let mut version = Version::default();
        for key in ["rule/a", "rule/b", "rules", "job/1"] {
            version.documents.insert(key.to_owned(), key.into());
        }
        assert_eq!(
            version.documents("rule/").map(|(key, _)| key).collect::<Vec<_>>(),
            ["rule/a", "rule/b"]
        );
    }
}
