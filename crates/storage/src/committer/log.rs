//! The log of the commit thread: written and synced for groups, rotated, closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tracing::warn;

use super::{Committer, SYNC_PERIOD};
use crate::error::StorageError;
use crate::manifest::{Edit, SyncedLog};
use crate::settings::Durability;
use crate::version::Version;
use crate::wal::{WalWriter, log_path};

impl Committer {
    /// Makes what was appended as durable as the settings ask.
    pub(super) fn write_log(&mut self) -> Result<(), String> {
        if !self.log.has_unwritten() {
            return Ok(());
        }
        let mut written = self.log.write();
        match self.shared.settings.durability {
            Durability::EveryWrite => written = written.and_then(|()| self.log.sync()),
            Durability::Periodic => {
                self.sync_at.get_or_insert_with(|| Instant::now() + SYNC_PERIOD);
            }
            Durability::Os | Durability::None => {}
        }
        self.note_log_bytes();
        written.map_err(|error| self.poison(&error))
    }

    fn note_log_bytes(&self) {
        self.shared.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
    }

    /// Continues in a new log and freezes all memtables.
    pub(super) async fn rotate_log(&mut self) -> Result<Arc<Version>, StorageError> {
        self.check_sound()?;
        let number = self.next_log;
        self.next_log += 1;
        let log = WalWriter::create(&self.shared.files, number)?;
        let seq = self.shared.version().seq().next();
        let version = match self.commit_edits(seq, &[Edit::OpenLog { log: number }]).await {
            Ok(version) => version,
            Err(error) => {
                let may_be_needed = matches!(error, StorageError::Poisoned { .. });
                let path = log_path(number);
                if !may_be_needed && let Err(error) = self.shared.files.delete(&path).await {
                    warn!(path, %error, "could not delete a log that is not needed");
                }
                return Err(error);
            }
        };
        self.log = log;
        self.note_log_bytes();
        Ok(version)
    }

    /// Syncs the log. In an object store it is also given up if it holds nothing, so that the
    /// database can be opened from another folder.
    pub(super) async fn close_log(&mut self) -> Result<(), StorageError> {
        self.sync_log()?;
        let version = self.shared.version();
        if !self.shared.files.is_in_bucket() || version.is_unflushed() {
            return Ok(());
        }
        self.check_sound()?;
        let edits: Vec<Edit> = version.logs().iter().map(|&log| Edit::CloseLog { log }).collect();
        self.commit_edits(version.seq().next(), &edits).await?;
        for &log in version.logs() {
            self.shared.files.delete(&log_path(log)).await?;
        }
        Ok(())
    }

    /// How much of the log is durable, if the manifest does not know it yet.
    pub(super) fn synced_log(&self) -> Option<SyncedLog> {
        let synced = SyncedLog { log: self.log.number(), bytes: self.log.bytes() };
        let is_new = self.manifest.state().synced_log != Some(synced);
        (self.is_logging() && is_new).then_some(synced)
    }

    /// Makes the log durable, if there is one.
    pub(super) fn sync_log(&mut self) -> Result<(), StorageError> {
        self.sync_at = None;
        if self.is_logging() {
            self.log.sync().inspect_err(|error| drop(self.poison(error)))?;
        }
        Ok(())
    }
}
