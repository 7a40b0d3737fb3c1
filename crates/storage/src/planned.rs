//! A commit of the manifest in the making: the edits so far, and the version they lead to.

use std::sync::Arc;

use highwater_core::{MeasurementId, SequenceNumber};

use crate::error::StorageError;
use crate::manifest::Edit;
use crate::segment::SegmentStore;
use crate::version::{Measurement, Version};

/// Edits of one commit, each planned on what those before it lead to.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    edits: Vec<Edit>,
    after: Version,
    seq: SequenceNumber,
    store: &'a Arc<SegmentStore>,
}

impl<'a> Planned<'a> {
    /// No edits yet, for the commit `seq` that follows `version`.
    pub(crate) fn new(
        version: &Version,
        seq: SequenceNumber,
        store: &'a Arc<SegmentStore>,
    ) -> Self {
        Planned { edits: Vec::new(), after: version.clone(), seq, store }
    }

    /// Adds an edit.
    pub(crate) fn push(&mut self, edit: Edit) {
        self.after.apply_edit(&edit, self.seq, self.store);
        self.edits.push(edit);
    }

    /// Removes the tombstones of a measurement that have nothing left to hide.
    pub(crate) fn remove_idle_tombstones(&mut self, id: &MeasurementId) {
        let idle = self.after.measurement(id).map(|found| found.idle_tombstones());
        for seq in idle.unwrap_or_default() {
            self.push(Edit::RemoveTombstone { id: id.clone(), seq });
        }
    }

    /// A measurement as it is after the edits so far.
    ///
    /// # Errors
    /// [`StorageError::NoSuchMeasurement`] if it does not exist then.
    pub(crate) fn existing(&self, id: &MeasurementId) -> Result<&Arc<Measurement>, StorageError> {
        self.after.measurement(id).ok_or_else(|| StorageError::NoSuchMeasurement(id.clone()))
    }

    /// What the edits so far lead to.
    pub(crate) fn after(&self) -> &Version {
        &self.after
    }

    /// Number of the commit.
    pub(crate) fn seq(&self) -> SequenceNumber {
        self.seq
    }

    /// All edits.
    pub(crate) fn into_edits(self) -> Vec<Edit> {
        self.edits
    }
}
