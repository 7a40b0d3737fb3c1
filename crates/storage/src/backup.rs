//! Backups: the files of one moment, while everything goes on.
//!
//! ```text
//! on the commit thread: manifest, length of each log ──► logs are read ──► segments, one by one
//!                                    (no flush may delete them)      (the pinned version keeps them)
//! ```
//!
//! A backup is a data folder: put in place, it is opened like any other, and the logs in it are
//! replayed. A later backup to the same folder needs only the segments that are new.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use crate::committer::Request;
use crate::engine::Engine;
use crate::error::StorageError;
use crate::file_store::FileStore;
use crate::manifest::{ManifestState, encode_checkpoint};
use crate::segment::SegmentMeta;
use crate::version::Version;
use crate::wal::log_path;

/// What the commit thread knows of one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Keeps the segments.
    pub(crate) version: Arc<Version>,
    pub(crate) state: ManifestState,
    /// Number of the last commit of the manifest.
    pub(crate) number: u64,
    /// Length of the newest log, up to which it is durable.
    pub(crate) newest_log_bytes: u64,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFile {
    /// Path relative to the data folder.
    pub path: String,
    /// All of it; for a segment at most some hundred MiB.
    pub bytes: Bytes,
}

/// The files of a backup that its receiver does not have yet.
#[derive(Debug)]
pub struct Backup {
    files: Arc<FileStore>,
    /// Keeps the segments until they are read.
    version: Arc<Version>,
    logs: Vec<BackupFile>,
    /// Those to send.
    missing: Vec<Arc<SegmentMeta>>,
    manifest: BackupFile,
    segments: Vec<Arc<SegmentMeta>>,
    identity: Arc<str>,
}

impl Engine {
    /// Begins a backup of everything that is acknowledged now. Segments in `have` are left out.
    ///
    /// # Errors
    /// Those of flushing and of reading the logs.
    pub async fn backup(&self, have: &HashSet<String>) -> Result<Backup, StorageError> {
        self.flush().await?;
        let _keeps_logs = self.flushing().lock().await;
        let snapshot = self.request(Request::Snapshot).await?;
        let files = Arc::clone(&self.shared().files);
        let newest = snapshot.state.logs.last().copied();
        let mut logs = Vec::with_capacity(snapshot.state.logs.len());
        for &log in &snapshot.state.logs {
            let path = log_path(log);
            let mut bytes = files.get(&path).await?;
            if Some(log) == newest {
                bytes.truncate(usize::try_from(snapshot.newest_log_bytes).unwrap_or(usize::MAX));
            }
            logs.push(BackupFile { path, bytes });
        }
        let segments = snapshot.state.measurements.values().flat_map(|one| &one.segments);
        let segments: Vec<Arc<SegmentMeta>> = segments.cloned().collect();
        let (path, bytes) = encode_checkpoint(snapshot.number, &snapshot.state)?;
        let manifest = BackupFile { path, bytes };
        let is_missing = |segment: &&Arc<SegmentMeta>| !have.contains(&segment.path);
        let missing = segments.iter().filter(is_missing).cloned().collect();
        let identity = snapshot.state.identity.unwrap_or_default();
        Ok(Backup { files, version: snapshot.version, logs, missing, manifest, segments, identity })
    }
}

impl Backup {
    /// Tells the database from others: a backup of it can be brought up to date by this one only.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// All segments of the backup, also those that are left out.
    pub fn segments(&self) -> &[Arc<SegmentMeta>] {
        &self.segments
    }

    /// Bytes that are still to come.
    pub fn bytes(&self) -> u64 {
        let logs: usize = self.logs.iter().map(|log| log.bytes.len()).sum();
        let segments: u64 = self.missing.iter().map(|segment| segment.bytes).sum();
        segments + (logs + self.manifest.bytes.len()) as u64
    }

    /// The files: logs, segments, and the manifest last, so that a folder that has it has it all.
    pub fn into_files(self) -> impl Stream<Item = Result<BackupFile, StorageError>> + Send {
        let Backup { files, version, logs, missing, manifest, .. } = self;
        let logs = stream::iter(logs.into_iter().map(Ok));
        let segments = stream::iter(missing).then(move |segment| {
            let (files, version) = (Arc::clone(&files), Arc::clone(&version));
            async move {
                let bytes = files.get(&segment.path).await?;
                drop(version);
                Ok(BackupFile { path: segment.path.clone(), bytes })
            }
        });
        logs.chain(segments).chain(stream::iter([Ok(manifest)]))
    }
}
