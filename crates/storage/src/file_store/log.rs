//! Logs: files that only grow.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::io as io_error;
use super::journal::{FileStep, Journal};
use crate::error::StorageError;

/// A file that only grows. All calls block.
pub(crate) trait LogFile: Send + std::fmt::Debug {
    /// Adds bytes at the end; they may be lost until the next sync.
    ///
    /// # Errors
    /// [`StorageError::Io`]; some of the bytes may have been added.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// [`StorageError::Io`]; nothing is known then about what is durable.
    fn sync(&mut self) -> Result<(), StorageError>;

    /// Bytes appended so far.
    fn len(&self) -> u64;
}

/// A log to read from. All calls block.
#[derive(Debug)]
pub(crate) enum LogBytes {
    /// A file and its length.
    File { path: String, file: File, len: u64 },
    /// Bytes in memory.
    Memory(Bytes),
}

impl LogBytes {
    /// Length when it was opened.
    pub(crate) fn len(&self) -> u64 {
        match self {
            LogBytes::File { len, .. } => *len,
            LogBytes::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `into` with the bytes from `at` on, which must be so many at least.
    ///
    /// # Errors
    /// [`StorageError::Io`] if they cannot be read.
    pub(crate) fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<(), StorageError> {
        match self {
            LogBytes::File { path, file, .. } => {
                let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(into));
                read.map_err(|e| io_error("read", path, e))
            }
            LogBytes::Memory(bytes) => {
                let at = at as usize;
                into.copy_from_slice(&bytes[at..at + into.len()]);
                Ok(())
            }
        }
    }
}

/// A log in a local file.
#[derive(Debug)]
pub(super) struct LocalLog {
    path: String,
    file: File,
    len: u64,
}

impl LocalLog {
    /// `file` is empty and open for appending; `path` is for messages.
    pub(super) fn new(path: &str, file: File) -> Self {
        LocalLog { path: path.to_owned(), file, len: 0 }
    }
}

impl LogFile for LocalLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all(bytes).map_err(|e| io_error("write", &self.path, e))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(|e| io_error("sync", &self.path, e))
    }

    fn len(&self) -> u64 {
        self.len
    }
}

/// A log in memory.
#[derive(Clone, Debug)]
pub(super) struct MemoryLog {
    path: String,
    bytes: Arc<Mutex<Vec<u8>>>,
    journal: Arc<Journal>,
}

impl MemoryLog {
    /// An empty log whose steps are noted in `journal`.
    pub(super) fn new(path: &str, journal: &Arc<Journal>) -> Result<Self, StorageError> {
        journal.note(FileStep::CreateLog { path: path.to_owned() })?;
        let (path, journal) = (path.to_owned(), Arc::clone(journal));
        Ok(MemoryLog { path, bytes: Arc::default(), journal })
    }

    pub(super) fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes.lock())
    }

    pub(super) fn truncate(&self, len: u64) -> Result<(), StorageError> {
        self.journal.note(FileStep::Truncate { path: self.path.clone(), len })?;
        let mut bytes = self.bytes.lock();
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
        bytes.truncate(len);
        Ok(())
    }
}

impl LogFile for MemoryLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let (path, added) = (self.path.clone(), Bytes::copy_from_slice(bytes));
        self.journal.note(FileStep::Append { path, bytes: added })?;
        self.bytes.lock().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.journal.note(FileStep::Sync { path: self.path.clone() })
    }

    fn len(&self) -> u64 {
        self.bytes.lock().len() as u64
    }
}
