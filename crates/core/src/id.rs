//! Newtype ids.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Position of a commit in the one order of all commits. `0` means "before every commit".
///
/// Every acknowledged write, delete, refresh or change of the catalogue gets the next number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SequenceNumber(u64);

impl SequenceNumber {
    /// Before every commit.
    pub const ZERO: SequenceNumber = SequenceNumber(0);

    /// The commit number `number`.
    pub const fn new(number: u64) -> Self {
        SequenceNumber(number)
    }

    /// The bare number, for encoding.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The commit right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        SequenceNumber(self.0 + 1)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A measurement inside a database; cheap to clone, ordered by database, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MeasurementId {
    /// Name of the database.
    pub database: Arc<str>,
    /// Name of the measurement inside the database.
    pub measurement: Arc<str>,
}

impl MeasurementId {
    /// The measurement `measurement` of `database`.
    pub fn new(database: impl Into<Arc<str>>, measurement: impl Into<Arc<str>>) -> Self {
        MeasurementId { database: database.into(), measurement: measurement.into() }
    }
}

impl fmt::Display for MeasurementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.measurement)
    }
}
