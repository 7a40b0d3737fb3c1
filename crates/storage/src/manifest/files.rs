//! The manifest on disk: one object per commit, and now and then a checkpoint of everything.
//!
//! ```text
//! 64.checkpoint  65.edit  …  128.edit  128.checkpoint  129.edit  130.edit
//! └ kept in case the newer checkpoint is damaged ┘     └ what open reads ┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use highwater_core::SequenceNumber;
use tracing::warn;

use super::format::{Damage, decode_edits, decode_state, encode_edits, encode_state};
use super::{Edit, EditError, ManifestState};
use crate::error::StorageError;
use crate::file_store::{FileStore, PutKind};

const FOLDER: &str = "manifest";
/// Fewest commits between two checkpoints ...
const MIN_COMMITS: u64 = 64;
/// ... and most, which bounds the number of files that are read when opening. In between a
/// checkpoint waits until it is not much larger than the edits it saves.
const MAX_COMMITS: u64 = 16 * MIN_COMMITS;
/// Edits that are read at the same time.
const READ_TOGETHER: usize = 16;
/// Bytes of a checkpoint that one byte of edits pays for.
const BYTES_PAID: u64 = 8;

/// The durable state of the engine. There is one writer.
#[derive(Debug)]
pub(crate) struct Manifest {
    files: Arc<FileStore>,
    state: ManifestState,
    /// Number of the last commit of the manifest; the first is 1.
    number: u64,
    /// The newest checkpoint and the one before it, which are sound, and what is older.
    checkpoints: BTreeSet<u64>,
    /// Edits that are still there.
    edits: BTreeSet<u64>,
    edit_bytes: u64,
    checkpoint_bytes: u64,
    min_commits: u64,
    /// Why nothing is accepted any more.
    poisoned: Option<String>,
}

impl Manifest {
    /// Reads the manifest; an empty folder is an empty manifest.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if a file is damaged or missing. Only the last commit may be
    /// incomplete: it was never acknowledged, and is removed.
    pub(crate) async fn open(files: Arc<FileStore>) -> Result<Manifest, StorageError> {
        let (mut manifest, unsound) = Manifest::read(files).await?;
        if let Some(number) = unsound.torn {
            let path = edit_path(number);
            warn!(path, "the last commit of the manifest is incomplete and is removed");
            manifest.files.delete(&path).await?;
            manifest.edits.remove(&number);
        }
        manifest.replace_checkpoints(&unsound.checkpoints).await?;
        Ok(manifest)
    }

    /// Reads the manifest and changes nothing.
    ///
    /// # Errors
    /// As [`Manifest::open`].
    pub(crate) async fn read(
        files: Arc<FileStore>,
    ) -> Result<(Manifest, UnsoundFiles), StorageError> {
        let found = FilesFound::list(&files).await?;
        let mut manifest = Manifest {
            files,
            state: ManifestState::default(),
            number: 0,
            checkpoints: BTreeSet::new(),
            edits: found.edits.keys().copied().collect(),
            edit_bytes: 0,
            checkpoint_bytes: 0,
            min_commits: MIN_COMMITS,
            poisoned: None,
        };
        let checkpoints = manifest.read_checkpoint(&found).await?;
        let torn = manifest.read_edits(&found).await?;
        Ok((manifest, UnsoundFiles { checkpoints, torn }))
    }

    /// Number of the last commit of the manifest; the first is 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The state after the last commit.
    pub(crate) fn state(&self) -> &ManifestState {
        &self.state
    }

    /// Makes one commit durable and then visible in [`Manifest::state`].
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if the edits do not fit the state, [`StorageError::Unreachable`] if
    /// the object store was not reached: nothing has happened then. [`StorageError::Fenced`] if
    /// another process has become the writer. Any other error means that it is not known whether the
    /// commit is durable. After these two every commit fails with [`StorageError::Poisoned`].
    pub(crate) async fn commit(
        &mut self,
        seq: SequenceNumber,
        edits: &[Edit],
    ) -> Result<(), StorageError> {
        if let Some(reason) = &self.poisoned {
            return Err(StorageError::Poisoned { reason: reason.clone() });
        }
        let mut next = self.state.clone();
        next.apply_commit(seq, edits).map_err(|unfit| StorageError::Invalid(unfit.to_string()))?;
        let bytes = encode_edits(seq, edits).map_err(|e| not_json(&e))?;
        let (number, size) = (self.number + 1, bytes.len() as u64);
        let put = self.files.put(&edit_path(number), bytes, PutKind::Create).await;
        put.map_err(|error| self.not_committed(error))?;
        self.state = next;
        self.number = number;
        self.edits.insert(number);
        self.edit_bytes += size;
        if self.checkpoint_due()
            && let Err(error) = self.write_checkpoint().await
        {
            // The commit is durable all the same; the next one tries again.
            warn!(%error, "could not write a checkpoint of the manifest");
        }
        Ok(())
    }

    fn not_committed(&mut self, error: StorageError) -> StorageError {
        let error = match error {
            StorageError::Unreachable { .. } => return error,
            StorageError::Conflict { .. } => StorageError::Fenced,
            error => error,
        };
        self.poisoned = Some(error.to_string());
        error
    }

    fn checkpoint_due(&self) -> bool {
        let commits = self.number - self.checkpoints.last().copied().unwrap_or(0);
        let is_paid = self.edit_bytes.saturating_mul(BYTES_PAID) >= self.checkpoint_bytes;
        commits >= MAX_COMMITS || (commits >= self.min_commits && is_paid)
    }

    async fn write_checkpoint(&mut self) -> Result<(), StorageError> {
        let (path, bytes) = encode_checkpoint(self.number, &self.state)?;
        self.checkpoint_bytes = bytes.len() as u64;
        self.files.put(&path, bytes, PutKind::Overwrite).await?;
        self.checkpoints.insert(self.number);
        self.edit_bytes = 0;
        self.delete_unneeded().await
    }

    /// Deletes what is older than the last checkpoint but one.
    async fn delete_unneeded(&mut self) -> Result<(), StorageError> {
        let Some(&oldest) = self.checkpoints.iter().rev().nth(1) else { return Ok(()) };
        let edits = self.edits.range(..=oldest).map(|number| edit_path(*number));
        let checkpoints = self.checkpoints.range(..oldest).map(|number| checkpoint_path(*number));
        self.files.delete_all(&edits.chain(checkpoints).collect::<Vec<String>>()).await?;
        self.edits = self.edits.split_off(&(oldest + 1));
        self.checkpoints = self.checkpoints.split_off(&oldest);
        Ok(())
    }

    /// Starts from the newest sound checkpoint. Returns the damaged ones that are newer; the edits
    /// that led to them are still there.
    async fn read_checkpoint(&mut self, found: &FilesFound) -> Result<Vec<u64>, StorageError> {
        let mut damaged = Vec::new();
        let mut first_damage = None;
        for (&number, &bytes) in found.checkpoints.iter().rev() {
            let path = checkpoint_path(number);
            if self.number > 0 {
                // An older checkpoint: not read, but known to exist.
                self.checkpoints.insert(number);
                continue;
            }
            match decode_state(&self.files.get(&path).await?) {
                Ok(state) => {
                    (self.state, self.number, self.checkpoint_bytes) = (state, number, bytes);
                    self.checkpoints.insert(number);
                }
                Err(damage) => {
                    warn!(path, ?damage, "a checkpoint of the manifest is damaged");
                    damaged.push(number);
                    first_damage.get_or_insert(damage.in_file(path));
                }
            }
        }
        match first_damage {
            // Before the second checkpoint all edits are still there.
            Some(damage) if self.number == 0 && !found.edits.contains_key(&1) => Err(damage),
            _ => Ok(damaged),
        }
    }

    async fn replace_checkpoints(&mut self, damaged: &[u64]) -> Result<(), StorageError> {
        if damaged.is_empty() {
            return Ok(());
        }
        self.write_checkpoint().await?;
        for &number in damaged.iter().filter(|number| **number != self.number) {
            self.files.delete(&checkpoint_path(number)).await?;
        }
        Ok(())
    }

    /// Applies the edits since the checkpoint. Returns the number of the last one if it is
    /// incomplete, and so was never acknowledged.
    async fn read_edits(&mut self, found: &FilesFound) -> Result<Option<u64>, StorageError> {
        let checkpoint = found.checkpoints.keys().max().copied().unwrap_or(0);
        let last = found.edits.keys().max().copied().unwrap_or(0).max(checkpoint);
        let files = Arc::clone(&self.files);
        let read = |number| {
            let files = Arc::clone(&files);
            async move { (number, files.get(&edit_path(number)).await) }
        };
        let mut read = stream::iter(self.number + 1..=last).map(read).buffered(READ_TOGETHER);
        while let Some((number, bytes)) = read.next().await {
            let path = edit_path(number);
            let (seq, edits) = match decode_edits(&bytes?) {
                Ok(commit) => commit,
                Err(Damage::Torn) if number == last && number > checkpoint => {
                    return Ok(Some(number));
                }
                Err(damage) => return Err(damage.in_file(path)),
            };
            let applied = self.state.apply_commit(seq, &edits);
            applied.map_err(|unfit| unfit_in_file(path, &unfit))?;
            self.number = number;
            self.edit_bytes += found.edits.get(&number).copied().unwrap_or(0);
        }
        Ok(None)
    }
}

/// Files that opening can do without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnsoundFiles {
    /// Numbers of damaged checkpoints that are newer than the one that was read.
    pub(crate) checkpoints: Vec<u64>,
    /// Number of an incomplete last commit.
    pub(crate) torn: Option<u64>,
}

impl UnsoundFiles {
    /// Paths of the damaged checkpoints.
    pub(crate) fn checkpoint_paths(&self) -> impl Iterator<Item = String> {
        self.checkpoints.iter().map(|number| checkpoint_path(*number))
    }
}

/// Numbers and sizes of the files in the folder.
#[derive(Debug, Default)]
struct FilesFound {
    edits: BTreeMap<u64, u64>,
    checkpoints: BTreeMap<u64, u64>,
}

impl FilesFound {
    async fn list(files: &FileStore) -> Result<FilesFound, StorageError> {
        let mut found = FilesFound::default();
        for (path, bytes) in files.list(FOLDER).await? {
            let number = |path: &str| path.rsplit('/').next().and_then(|name| name.parse().ok());
            if let Some(number) = path.strip_suffix(".edit").and_then(number) {
                found.edits.insert(number, bytes);
            } else if let Some(number) = path.strip_suffix(".checkpoint").and_then(number) {
                found.checkpoints.insert(number, bytes);
            } else {
                warn!(path, "not a file of the manifest");
            }
        }
        Ok(found)
    }
}

fn edit_path(number: u64) -> String {
    format!("{FOLDER}/{number:020}.edit")
}

fn checkpoint_path(number: u64) -> String {
    format!("{FOLDER}/{number:020}.checkpoint")
}

/// Path and bytes of a checkpoint of `state`, which is that after the manifest's commit `number`.
///
/// # Errors
/// [`StorageError::Invalid`] if it cannot be written as JSON.
pub(crate) fn encode_checkpoint(
    number: u64,
    state: &ManifestState,
) -> Result<(String, Bytes), StorageError> {
    Ok((checkpoint_path(number), encode_state(state).map_err(|e| not_json(&e))?))
}

fn not_json(error: &serde_json::Error) -> StorageError {
    StorageError::Invalid(format!("cannot be written as JSON: {error}"))
}

fn unfit_in_file(path: String, unfit: &EditError) -> StorageError {
    StorageError::Corrupt { path, offset: 0, reason: unfit.to_string() }
}

#[cfg(test)]
mod tests;
