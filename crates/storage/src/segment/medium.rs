//! What segments are kept in: files, or memory that a restart empties.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use super::SegmentMeta;
use super::path::is_in_memory;
use crate::error::StorageError;

/// What segments are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// Files, on disk or in an object store.
    #[default]
    Disk,
    /// Memory: gone after a restart, and never in the manifest.
    Memory,
}

impl Medium {
    /// That of a segment.
    pub(crate) fn of(segment: &SegmentMeta) -> Self {
        if segment.is_in_memory() { Medium::Memory } else { Medium::Disk }
    }
}

impl SegmentMeta {
    /// Whether it is in memory alone, so that a restart loses it.
    pub fn is_in_memory(&self) -> bool {
        is_in_memory(&self.path)
    }
}

/// The segments in memory, encoded like files, by path.
#[derive(Debug)]
pub(super) struct SegmentsInMemory {
    segments: RwLock<HashMap<String, Bytes>>,
    most_bytes: AtomicU64,
}

impl Default for SegmentsInMemory {
    fn default() -> Self {
        SegmentsInMemory { segments: RwLock::default(), most_bytes: AtomicU64::new(u64::MAX) }
    }
}

impl SegmentsInMemory {
    /// From now on new rows are refused that would take more than this with all there is.
    pub(super) fn limit(&self, most_bytes: u64) {
        self.most_bytes.store(most_bytes, Ordering::Relaxed);
    }

    /// # Errors
    /// [`StorageError::NoRoomInMemory`] if so many bytes more would be too many.
    pub(super) fn check_room(&self, needed_bytes: u64) -> Result<(), StorageError> {
        let (used_bytes, most_bytes) = (self.bytes(), self.most_bytes.load(Ordering::Relaxed));
        match used_bytes.saturating_add(needed_bytes) > most_bytes {
            true => Err(StorageError::NoRoomInMemory { needed_bytes, used_bytes, most_bytes }),
            false => Ok(()),
        }
    }

    /// Adds a segment.
    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        // The encoder may have reserved more than it needed.
        self.segments.write().insert(path.to_owned(), Bytes::copy_from_slice(bytes));
    }

    pub(super) fn get(&self, path: &str) -> Option<Bytes> {
        is_in_memory(path).then(|| self.segments.read().get(path).cloned())?
    }

    /// Parts of a segment, cut at its end; `None` if it is not in memory.
    pub(super) fn ranges(&self, path: &str, ranges: &[Range<u64>]) -> Option<Vec<Bytes>> {
        let bytes = self.get(path)?;
        let within = |at: u64| at.min(bytes.len() as u64) as usize;
        Some(ranges.iter().map(|r| bytes.slice(within(r.start)..within(r.end))).collect())
    }

    pub(super) fn remove(&self, path: &str) {
        self.segments.write().remove(path);
    }

    /// What all of them take.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.read().values().map(|segment| segment.len() as u64).sum()
    }
}
