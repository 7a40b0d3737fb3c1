//! The memtable: points that are in the log and not yet in a segment.
//!
//! A measurement's memtable is a list of immutable batches in commit order. Readers share the
//! batches, so a snapshot copies nothing. Small neighbours are joined as they arrive, which keeps
//! the list short at amortised O(log n) copies per row.
//!
//! ```text
//!  frozen, being flushed        active
//! [ 16k ][ 20k ][ 16k ]    [ 18k ][ 9k ][ 4k ][ 1 ]  <- writes
//! ```

mod batch;
mod last_rows;
mod sort;

use std::sync::Arc;

use highwater_core::{SequenceNumber, TimeRange};

pub(crate) use batch::{MemBatch, Rows};

use crate::error::StorageError;

/// Batches with at least this many rows are not joined with their neighbours any more.
const LARGE_BATCH_ROWS: usize = 16 * 1024;

/// What memtables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Points, counting overwritten ones.
    pub(crate) rows: usize,
    /// Estimated bytes.
    pub(crate) bytes: usize,
}

impl Memory {
    pub(crate) fn with(self, other: Memory) -> Memory {
        Memory { rows: self.rows + other.rows, bytes: self.bytes + other.bytes }
    }

    pub(crate) fn without(self, other: Memory) -> Memory {
        Memory { rows: self.rows - other.rows, bytes: self.bytes - other.bytes }
    }
}

/// The batches of one measurement, by age.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memtable {
    frozen: Vec<Arc<MemBatch>>,
    active: Vec<Arc<MemBatch>>,
    memory: Memory,
}

impl Memtable {
    /// Adds the newest rows. `last_tombstone` is the newest delete of the measurement: batches
    /// from before it are not joined with batches from after it, so that it hides whole batches.
    pub(crate) fn push(
        &mut self,
        batch: MemBatch,
        last_tombstone: SequenceNumber,
    ) -> Result<(), StorageError> {
        let mut newest = Arc::new(batch);
        while let Some(previous) = self.active.last() {
            let similar = previous.rows() <= newest.rows().saturating_mul(2);
            let small = previous.rows().max(newest.rows()) < LARGE_BATCH_ROWS;
            let parted = previous.max_seq() < last_tombstone;
            if parted || !small || !similar {
                break;
            }
            newest = Arc::new(MemBatch::join(&[Arc::clone(previous), newest])?);
            self.memory = self.memory.without(previous.memory());
            self.active.pop();
        }
        self.memory = self.memory.with(newest.memory());
        self.active.push(newest);
        Ok(())
    }

    /// From here on everything present waits for the flush; new rows go to fresh batches.
    pub(crate) fn freeze(&mut self) {
        self.frozen.append(&mut self.active);
    }

    /// Forgets the frozen rows with commits up to `flushed`: segments hold them now.
    pub(crate) fn forget_frozen(&mut self, flushed: SequenceNumber) {
        self.frozen.retain(|batch| batch.max_seq() > flushed);
        self.memory = self.batches().map(|b| b.memory()).fold(Memory::default(), Memory::with);
    }

    /// Batches that wait for the flush, oldest first.
    pub(crate) fn frozen(&self) -> &[Arc<MemBatch>] {
        &self.frozen
    }

    /// All batches, oldest first.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &Arc<MemBatch>> {
        self.frozen.iter().chain(&self.active)
    }

    /// What all batches hold.
    pub(crate) fn memory(&self) -> Memory {
        self.memory
    }

    /// Bounds of the times of all rows.
    pub(crate) fn times(&self) -> Option<TimeRange> {
        self.batches()
            .map(|batch| batch.times())
            .reduce(|a, b| TimeRange::new(a.start.min(b.start), a.end.max(b.end)))
    }
}

#[cfg(test)]
mod tests;
