//! Opening a data folder: the manifest, then the commits in the logs that it does not cover yet.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use highwater_core::{Clock, MeasurementId, SequenceNumber, Timestamp};
use tracing::{info, warn};

use crate::committer::Shared;
use crate::error::StorageError;
use crate::file_store::{FileStore, run_blocking};
use crate::manifest::{Edit, Manifest, ManifestState};
use crate::segment::{SEGMENTS_FOLDER, SegmentShape, SegmentStore, file_number};
use crate::settings::Settings;
use crate::version::Version;
use crate::wal::{LOGS_FOLDER, Record, WalWriter, log_number, log_path, read_log};

const LOCK_FILE: &str = "LOCK";

/// What was found in a data folder, ready for the commit thread.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) shared: Arc<Shared>,
    pub(crate) manifest: Manifest,
    pub(crate) log: WalWriter,
}

/// The right to use a data folder, given back when dropped.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the right; the folder is created if it does not exist.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another process has it.
    pub(crate) fn take(folder: &Path) -> Result<FolderLock, StorageError> {
        let path = folder.join(LOCK_FILE);
        let failed = |source: std::io::Error| StorageError::Io {
            action: "lock",
            path: path.display().to_string(),
            source: Box::new(source),
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let options = File::options().create(true).write(true).truncate(false).open(&path);
        let file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(StorageError::Locked { path: folder.display().to_string() })
            }
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Takes the lock of a folder and opens its files.
///
/// # Errors
/// [`StorageError::Locked`] if another process has it open, [`StorageError::Io`] if it cannot be
/// opened.
pub(crate) async fn open_folder(
    folder: &Path,
) -> Result<(FolderLock, Arc<FileStore>), StorageError> {
    let folder = folder.to_owned();
    run_blocking(move || {
        let lock = FolderLock::take(&folder)?;
        let files = FileStore::local(&folder)?;
        files.remove_unfinished()?;
        Ok((lock, files))
    })
    .await
}

/// Brings back what the manifest and the logs say.
///
/// # Errors
/// See [`Engine::open`](crate::Engine::open).
pub(crate) async fn recover(
    files: Arc<FileStore>,
    settings: Settings,
    clock: Arc<dyn Clock>,
) -> Result<Recovered, StorageError> {
    let mut manifest = Manifest::open(Arc::clone(&files)).await?;
    let found = files.list(SEGMENTS_FOLDER).await?;
    let last_file = found.iter().filter_map(|(path, _)| file_number(path)).max();
    let next_file = last_file.map_or(0, |last| last + 1);
    let shape = SegmentShape::of_windows(settings.window_points);
    let segments = SegmentStore::new(Arc::clone(&files), next_file, shape);
    let mut version = Version::of_manifest(manifest.state(), &segments);
    replay_logs(&files, manifest.state(), &mut version, &*clock).await?;
    let log = open_log(&files, &mut manifest, &mut version, &segments, clock.now()).await?;
    remove_orphans(&files, &version, found).await;
    let shared = Shared::new(segments, files, clock, settings, version);
    Ok(Recovered { shared: Arc::new(shared), manifest, log })
}

/// Applies the commits that segments do not hold yet, oldest first.
async fn replay_logs(
    files: &Arc<FileStore>,
    state: &ManifestState,
    version: &mut Version,
    clock: &dyn Clock,
) -> Result<(), StorageError> {
    let mut replayed = 0_u64;
    for &number in &state.logs {
        let is_last = state.logs.last() == Some(&number);
        for record in read_log(files, number, is_last, state.durable_bytes(number)).await? {
            if replay(version, state, record)? {
                replayed += 1;
                version.note_unflushed(clock.now());
            }
        }
    }
    if replayed > 0 {
        info!(replayed, rows = version.memory().rows, "brought back commits from the log");
    }
    Ok(())
}

/// Applies one record; `false` if its effect is durable elsewhere or has been undone.
fn replay(
    version: &mut Version,
    state: &ManifestState,
    record: Record,
) -> Result<bool, StorageError> {
    let is_over = |id: &MeasurementId, seq: SequenceNumber| {
        seq <= state.flushed || state.dropped.get(id).is_some_and(|dropped| seq <= *dropped)
    };
    let mut applied = false;
    match record {
        Record::Points { seq, batches } => {
            for (id, points) in batches.iter().filter(|(id, _)| !is_over(id, seq)) {
                version.apply_points(id, points, seq)?;
                applied = true;
            }
            version.note_seq(seq);
        }
        Record::Delete { id, tombstone, touched } => {
            version.note_seq(tombstone.seq);
            if !is_over(&id, tombstone.seq) {
                version.apply_delete(&id, tombstone, &touched);
                applied = true;
            }
        }
    }
    Ok(applied)
}

/// Starts a new log. Logs that hold nothing any more are given up in the same commit.
async fn open_log(
    files: &Arc<FileStore>,
    manifest: &mut Manifest,
    version: &mut Version,
    segments: &Arc<SegmentStore>,
    now: Timestamp,
) -> Result<WalWriter, StorageError> {
    let on_disk =
        files.list(LOGS_FOLDER).await?.into_iter().filter_map(|(path, _)| log_number(&path));
    let last = on_disk.chain(version.logs().iter().copied()).max();
    let number = last.map_or(0, |last| last + 1);
    let of_writer = Arc::clone(files);
    let log = run_blocking(move || WalWriter::create(&of_writer, number)).await?;
    let mut edits = vec![Edit::OpenLog { log: number }];
    if manifest.state().identity.is_none() {
        // Two databases are not made by one process in one instant.
        let identity = format!("{:016x}-{:x}", now.as_nanos(), std::process::id());
        edits.push(Edit::Identify { identity: identity.into() });
    }
    if !version.is_unflushed() {
        edits.extend(version.logs().iter().map(|&log| Edit::CloseLog { log }));
    }
    let seq = version.seq().next();
    manifest.commit(seq, &edits).await?;
    edits.iter().for_each(|edit| version.apply_edit(edit, seq, segments));
    Ok(log)
}

/// Deletes files that no commit refers to: left behind by a crash before the commit that was to
/// add them, or after the one that removed them. Failing to is no reason not to open.
async fn remove_orphans(files: &FileStore, version: &Version, segments: Vec<(String, u64)>) {
    let live = version.all_measurements().flat_map(|measurement| measurement.segments());
    let mut live: HashSet<String> = live.map(|segment| segment.path.clone()).collect();
    live.extend(version.logs().iter().map(|&log| log_path(log)));
    let logs = files.list(LOGS_FOLDER).await.unwrap_or_default();
    for (path, bytes) in segments.into_iter().chain(logs) {
        if live.contains(&path) {
            continue;
        }
        match files.delete(&path).await {
            Ok(()) => info!(path, bytes, "deleted a file that no commit refers to"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(path, error, "could not delete a file that no commit refers to");
            }
        }
    }
}
