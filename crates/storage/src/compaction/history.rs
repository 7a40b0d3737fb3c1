//! What was compacted lately, for operators.

use std::collections::VecDeque;

use highwater_core::{MeasurementId, Timestamp};
use parking_lot::Mutex;

/// Compactions that are remembered.
const KEPT: usize = 1000;

/// One compaction: some segments of a measurement were joined or cleaned.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactionRun {
    /// Whose segments.
    pub measurement: MeasurementId,
    /// When it began.
    pub started: Timestamp,
    /// Why, in words: `9 small segments`.
    pub reason: String,
    /// Segments that went.
    pub segments: usize,
    /// Segments that came.
    pub results: usize,
    /// Size of those that went.
    pub bytes_read: u64,
    /// Size of those that came.
    pub bytes_written: u64,
    /// Rows that came.
    pub rows: u64,
    /// How long it took.
    pub duration_ms: f64,
}

/// The last compactions, and what all of them wrote.
#[derive(Debug, Default)]
pub(crate) struct CompactionHistory(Mutex<History>);

#[derive(Debug, Default)]
struct History {
    /// Oldest first.
    runs: VecDeque<CompactionRun>,
    bytes_written: u64,
}

impl CompactionHistory {
    /// Adds one; the oldest goes when there are too many.
    pub(crate) fn add(&self, run: CompactionRun) {
        let mut history = self.0.lock();
        history.bytes_written += run.bytes_written;
        if history.runs.len() == KEPT {
            history.runs.pop_front();
        }
        history.runs.push_back(run);
    }

    /// All that are remembered, oldest first.
    pub(crate) fn all(&self) -> Vec<CompactionRun> {
        self.0.lock().runs.iter().cloned().collect()
    }

    /// What all of them wrote, also those that are forgotten.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.0.lock().bytes_written
    }
}
