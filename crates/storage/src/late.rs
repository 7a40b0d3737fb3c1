//! Points that are older than the retention of their measurement.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_core::MeasurementId;
use parking_lot::Mutex;

/// What becomes of points that are older than the retention of their measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatePoints {
    /// Their lines are refused.
    #[default]
    Refuse,
    /// They are left out, and counted.
    Drop,
}

/// What becomes of late points, by measurement; the lines of others are refused.
pub type LateRules = BTreeMap<Arc<str>, LatePoints>;

/// How many were left out since the start, by measurement.
#[derive(Debug, Default)]
pub(crate) struct DroppedPoints(Mutex<BTreeMap<MeasurementId, u64>>);

impl DroppedPoints {
    /// The numbers so far; measurements without any are not among them.
    pub(crate) fn all(&self) -> BTreeMap<MeasurementId, u64> {
        self.0.lock().clone()
    }

    /// Counts points that are left out, and returns how many these are.
    pub(crate) fn count(&self, dropped: Vec<(MeasurementId, usize)>) -> usize {
        let sum = dropped.iter().map(|(_, points)| points).sum();
        let mut counted = self.0.lock();
        for (id, points) in dropped {
            *counted.entry(id).or_default() += points as u64;
        }
        sum
    }
}
