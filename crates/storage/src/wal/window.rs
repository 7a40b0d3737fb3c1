//! The part of a log that is in memory while it is read.

use super::frame;
use crate::error::StorageError;
use crate::file_store::LogBytes;

/// Bytes in memory at a time, unless one record is longer. Few in tests, which so see its ends.
const WINDOW_BYTES: usize = if cfg!(test) { 100 } else { 4 << 20 };

/// A log of which only some bytes are in memory. Reading forwards is cheap. All calls block.
#[derive(Debug)]
pub(super) struct Window {
    log: LogBytes,
    /// Where `bytes` are in the log.
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn new(log: LogBytes) -> Self {
        Window { log, start: 0, bytes: Vec::new() }
    }

    /// Length of the log.
    pub(super) fn len(&self) -> u64 {
        self.log.len()
    }

    /// So many bytes from `at` on, fewer only where the log ends.
    ///
    /// # Errors
    /// [`StorageError::Io`] if they cannot be read.
    pub(super) fn at(&mut self, at: u64, wanted: usize) -> Result<&[u8], StorageError> {
        let wanted = wanted.min(self.left(at));
        let is_there = at >= self.start && at - self.start <= self.bytes.len() as u64;
        let before = if is_there { (at - self.start) as usize } else { self.bytes.len() };
        if self.bytes.len() - before >= wanted && is_there {
            return Ok(&self.bytes[before..before + wanted]);
        }
        self.bytes.drain(..before);
        self.start = at;
        let (kept, target) = (self.bytes.len(), wanted.max(WINDOW_BYTES).min(self.left(at)));
        // Memory for one long record is not kept for all others.
        self.bytes.shrink_to(target.max(2 * WINDOW_BYTES));
        self.bytes.resize(target, 0);
        self.log.read_at(at + kept as u64, &mut self.bytes[kept..])?;
        Ok(&self.bytes[..wanted])
    }

    /// The frame at `at`, as long as it says it is; of one that would be longer than the log, only its
    /// beginning.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it cannot be read.
    pub(super) fn frame(&mut self, at: u64) -> Result<&[u8], StorageError> {
        let left = self.left(at);
        let stated = frame::stated_bytes(self.at(at, frame::PREFIX_BYTES)?);
        let wanted = if stated <= left { stated } else { frame::PREFIX_BYTES };
        self.at(at, wanted)
    }

    fn left(&self, at: u64) -> usize {
        usize::try_from(self.len().saturating_sub(at)).unwrap_or(usize::MAX)
    }
}
