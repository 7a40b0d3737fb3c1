//! What happened to files in memory, step by step: tests look at what a crash at any moment would
//! have left, and let steps fail.

use bytes::Bytes;
use parking_lot::Mutex;

#[cfg(test)]
use super::io;
use crate::error::StorageError;

/// A change of some file; done when it is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileStep {
    /// An object is there, durably.
    Put { path: String, bytes: Bytes },
    /// An object or log is gone.
    Delete { path: String },
    /// An empty log is there, durably.
    CreateLog { path: String },
    /// A log grew.
    Append { path: String, bytes: Bytes },
    /// Everything in a log is durable.
    Sync { path: String },
    /// A log was cut, durably.
    Truncate { path: String, len: u64 },
}

/// All steps so far, and from which on they fail.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    steps: Mutex<Vec<FileStep>>,
    #[cfg(test)]
    fail_from: Mutex<Option<usize>>,
}

impl Journal {
    /// Notes a step before it is done.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it is to fail; then it must not be done.
    pub(super) fn note(&self, step: FileStep) -> Result<(), StorageError> {
        let mut steps = self.steps.lock();
        #[cfg(test)]
        if self.fail_from.lock().is_some_and(|first| steps.len() >= first) {
            return Err(io("write", "a file", "the disk is broken"));
        }
        steps.push(step);
        Ok(())
    }
}

/// What a crash leaves of bytes that are not durable. Disks write blocks in any order.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// The first so many bytes have a place in the file.
    pub(crate) bytes: usize,
    /// Bit by bit, over and over: blocks that were not written and are zero.
    pub(crate) holes: u64,
}

#[cfg(test)]
impl Left {
    /// Smaller than those of disks, as logs of tests are.
    const BLOCK_BYTES: usize = 32;
    pub(crate) const NOTHING: Left = Left::first(0);

    /// The first so many bytes.
    pub(crate) const fn first(bytes: usize) -> Self {
        Left { bytes, holes: 0 }
    }

    fn of(self, unsynced: &[u8]) -> Vec<u8> {
        let mut left = unsynced[..self.bytes].to_vec();
        for (at, block) in left.chunks_mut(Left::BLOCK_BYTES).enumerate() {
            if self.holes >> (at % 64) & 1 == 1 {
                block.fill(0);
            }
        }
        left
    }
}

#[cfg(test)]
mod images {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::{FileStore, PutKind};
    use super::*;

    impl Journal {
        /// Number of steps so far.
        pub(crate) fn len(&self) -> usize {
            self.steps.lock().len()
        }

        /// How many of the first `steps` come before the first write that these leave unsynced.
        pub(crate) fn synced_before(&self, steps: usize) -> usize {
            let mut unsynced = BTreeMap::new();
            for (at, step) in self.steps.lock().iter().take(steps).enumerate() {
                match step {
                    FileStep::Append { path, .. } => {
                        unsynced.entry(path.clone()).or_insert(at);
                    }
                    FileStep::Sync { path }
                    | FileStep::Truncate { path, .. }
                    | FileStep::Delete { path } => drop(unsynced.remove(path)),
                    FileStep::Put { .. } | FileStep::CreateLog { .. } => {}
                }
            }
            unsynced.into_values().min().unwrap_or(usize::MAX)
        }

        /// Number of syncs so far.
        pub(crate) fn syncs(&self) -> usize {
            let steps = self.steps.lock();
            steps.iter().filter(|step| matches!(step, FileStep::Sync { .. })).count()
        }

        /// All steps from the one with this number on fail and change nothing.
        pub(crate) fn fail_from(&self, step: usize) {
            *self.fail_from.lock() = Some(step);
        }

        /// The files as a crash after so many steps may have left them. `left` says what is there
        /// nevertheless of so many bytes of a log that are not durable.
        pub(crate) async fn image(
            &self,
            steps: usize,
            mut left: impl FnMut(usize) -> Left,
        ) -> Arc<FileStore> {
            let mut objects: BTreeMap<String, Bytes> = BTreeMap::new();
            let mut logs: BTreeMap<String, (Vec<u8>, usize)> = BTreeMap::new();
            for step in self.steps.lock().iter().take(steps).cloned() {
                match step {
                    FileStep::Put { path, bytes } => drop(objects.insert(path, bytes)),
                    FileStep::CreateLog { path } => drop(logs.insert(path, (Vec::new(), 0))),
                    FileStep::Append { path, bytes } => {
                        logs.get_mut(&path).unwrap().0.extend_from_slice(&bytes);
                    }
                    FileStep::Sync { path } => {
                        let (bytes, durable) = logs.get_mut(&path).unwrap();
                        *durable = bytes.len();
                    }
                    FileStep::Truncate { path, len } => {
                        let (bytes, durable) = logs.get_mut(&path).unwrap();
                        bytes.truncate(len as usize);
                        *durable = bytes.len();
                    }
                    FileStep::Delete { path } => {
                        objects.remove(&path);
                        logs.remove(&path);
                    }
                }
            }
            let files = FileStore::in_memory();
            for (path, bytes) in objects {
                files.put(&path, bytes, PutKind::Create).await.unwrap();
            }
            for (path, (bytes, durable)) in logs {
                let mut log = files.create_log(&path).unwrap();
                log.append(&bytes[..durable]).unwrap();
                let unsynced = &bytes[durable..];
                log.append(&left(unsynced.len()).of(unsynced)).unwrap();
                log.sync().unwrap();
            }
            files
        }
    }
}
