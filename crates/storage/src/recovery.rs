//! Opening a data folder: the manifest, then the commits in the logs that it does not cover yet.

mod replay;

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_core::{Clock, SequenceNumber, Timestamp};
use tracing::{info, warn};

use crate::committer::Shared;
use crate::error::StorageError;
use crate::file_store::{Bucket, FileStore, StoreMark, run_blocking, unique_text};
use crate::manifest::{Edit, Manifest, ManifestState};
use crate::quarantine::set_aside_quarantined;
use crate::segment::{SEGMENTS_FOLDER, SegmentShape, SegmentStore, file_number};
use crate::settings::Settings;
use crate::version::Version;
use crate::wal::{EMPTY_LOG_BYTES, LOGS_FOLDER, WalWriter, log_number, log_path};
use replay::Replay;

const LOCK_FILE: &str = "LOCK";
/// Folder of logs that were given up with what they hold.
const ABANDONED_FOLDER: &str = "abandoned";
/// How often it is tried to become the one writer while another process still is.
const OPENINGS: usize = 8;
/// Segments that one opening may write in an object store, as a power of two.
const FILES_OF_OPENING_BITS: u32 = 24;

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

/// Takes the lock of a folder and opens its files, in the object store that the settings name if
/// they do.
///
/// # Errors
/// [`StorageError::Locked`] if another process has it open, [`StorageError::Invalid`] if it belongs
/// to another object store, [`StorageError::Unreachable`] if that does not answer,
/// [`StorageError::Io`] if the folder cannot be opened.
pub(crate) async fn open_folder(
    folder: &Path,
    settings: &Settings,
) -> Result<(FolderLock, Arc<FileStore>), StorageError> {
    let (of_lock, url) = (folder.to_owned(), settings.object_store.clone());
    let (lock, mark) = run_blocking(move || {
        let lock = FolderLock::take(&of_lock)?;
        Ok((lock, StoreMark::of_folder(&of_lock, url.as_deref())?))
    })
    .await?;
    let folder = folder.to_owned();
    let files = match mark {
        None => run_blocking(move || FileStore::local(&folder)).await?,
        Some(mark) => {
            let bucket = Bucket::connect(&mark.url).await?;
            open_in_bucket(folder, bucket, mark, settings.cache_bytes).await?
        }
    };
    files.remove_unfinished()?;
    Ok((lock, files))
}

/// Opens the files of a folder in its bucket; the folder knows that it belongs there when this
/// returns.
pub(crate) async fn open_in_bucket(
    folder: PathBuf,
    bucket: Bucket,
    mark: StoreMark,
    cache_bytes: u64,
) -> Result<Arc<FileStore>, StorageError> {
    let own = mark.clone();
    let open = move || FileStore::remote(&folder, bucket, own, Some(cache_bytes));
    let files = run_blocking(open).await?;
    files.check_conditional_writes().await?;
    files.write_mark(mark).await?;
    Ok(files)
}

/// Brings back what the manifest and the logs say, and becomes the one writer.
///
/// # Errors
/// See [`Engine::open`](crate::Engine::open).
pub(crate) async fn recover(
    files: Arc<FileStore>,
    settings: Settings,
    clock: Arc<dyn Clock>,
) -> Result<Recovered, StorageError> {
    for attempt in 1..OPENINGS {
        match try_recover(&files, &settings, &clock).await {
            Err(StorageError::Fenced) => {}
            // A writer that still runs may have deleted what a new checkpoint made unneeded.
            Err(StorageError::Corrupt { .. }) if attempt == 1 && files.is_in_bucket() => {}
            outcome => return outcome,
        }
        info!("the last writer of the database still commits; looking again");
    }
    try_recover(&files, &settings, &clock).await
}

async fn try_recover(
    files: &Arc<FileStore>,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Recovered, StorageError> {
    let mut manifest = Manifest::open(Arc::clone(files)).await?;
    let has_logs = has_logs(files, manifest.state(), settings)?;
    let mut found = files.list(SEGMENTS_FOLDER).await?;
    let next_file = next_file(files, &manifest, &found);
    let shape = SegmentShape::of_windows(settings.window_points);
    let segments = SegmentStore::new(Arc::clone(files), next_file, shape);
    let version = Version::of_manifest(manifest.state(), &segments);
    let mut replay = Replay::new(manifest.state(), version, &segments, settings, &**clock);
    if has_logs {
        replay.run(files).await?;
    } else {
        set_aside_logs(files, manifest.number()).await?;
    }
    let Replay { mut version, edits, .. } = replay;
    let log = open_log(files, &mut manifest, &mut version, &segments, edits, clock.now()).await?;
    set_aside_quarantined(files, &version, &mut found).await;
    remove_orphans(files, &version, found).await;
    let (files, clock, settings) = (Arc::clone(files), Arc::clone(clock), settings.clone());
    let shared = Shared::new(segments, files, clock, settings, version);
    Ok(Recovered { shared: Arc::new(shared), manifest, log })
}

/// Whether the logs that the manifest names are in this data folder. In an object store they may
/// be in another one; then there must be none, or the settings give them up.
///
/// # Errors
/// [`StorageError::Invalid`] if this folder belongs to another database,
/// [`StorageError::LogsElsewhere`].
fn has_logs(
    files: &FileStore,
    state: &ManifestState,
    settings: &Settings,
) -> Result<bool, StorageError> {
    let Some(mark) = files.mark() else { return Ok(true) };
    let url = mark.url.to_string();
    if mark.database.is_some() && mark.database != state.identity {
        let found = if state.identity.is_some() { "another" } else { "no" };
        return Err(StorageError::Invalid(format!(
            "there is {found} database in {url}, and the data folder has the log of the one that was \
             there; look at AWS_ENDPOINT, or choose another folder"
        )));
    }
    if mark.had_open(state) {
        return Ok(true);
    }
    if !state.logs.is_empty() && !settings.abandon_logs {
        return Err(mark.logs_elsewhere(state));
    }
    for &log in &state.logs {
        warn!(path = log_path(log), "the log of another data folder is given up");
    }
    Ok(false)
}

/// The first number for new segments. In an object store a writer that has been replaced may be
/// about to write or delete files, so there every opening has numbers that no other ever uses.
fn next_file(files: &FileStore, manifest: &Manifest, found: &[(String, u64)]) -> u64 {
    let given_up = manifest.state().quarantine.iter().map(|given_up| &given_up.segment.path);
    let paths = found.iter().map(|(path, _)| path).chain(given_up);
    let last = paths.filter_map(|path| file_number(path)).max();
    let next = last.map_or(0, |last| last + 1);
    let of_opening = (manifest.number() + 1) << FILES_OF_OPENING_BITS;
    if files.is_in_bucket() { next.max(of_opening) } else { next }
}

/// Starts a new log. Logs that hold nothing any more are given up in the same commit, and edits of
/// replaying, which the version has already, become durable.
async fn open_log(
    files: &Arc<FileStore>,
    manifest: &mut Manifest,
    version: &mut Version,
    segments: &Arc<SegmentStore>,
    replayed: Vec<Edit>,
    now: Timestamp,
) -> Result<WalWriter, StorageError> {
    let on_disk =
        files.list(LOGS_FOLDER).await?.into_iter().filter_map(|(path, _)| log_number(&path));
    // What the manifest knows of a log must never be taken for knowledge of another one.
    let synced = manifest.state().synced_log.map(|synced| synced.log);
    let last = on_disk.chain(version.logs().iter().copied()).chain(synced).max();
    let number = last.map_or(0, |last| last + 1);
    let of_writer = Arc::clone(files);
    let log = run_blocking(move || WalWriter::create(&of_writer, number)).await?;
    let mut edits = vec![Edit::OpenLog { log: number }];
    let opening: Option<Arc<str>> = files.is_in_bucket().then(|| unique_text().into());
    if manifest.state().identity.is_none() {
        // Two databases are not made by one process in one instant.
        let in_folder = || format!("{:016x}-{:x}", now.as_nanos(), std::process::id()).into();
        let identity = opening.clone().unwrap_or_else(in_folder);
        edits.push(Edit::Identify { identity });
    }
    edits.extend(opening.clone().map(|opening| Edit::Open { opening }));
    if !version.is_unflushed() {
        edits.extend(version.logs().iter().map(|&log| Edit::CloseLog { log }));
    }
    let seq = version.seq().next();
    let all: Vec<Edit> = replayed.into_iter().chain(edits.iter().cloned()).collect();
    commit_opening(files, manifest, seq, &all, opening).await?;
    edits.iter().for_each(|edit| version.apply_edit(edit, seq, segments));
    version.opened = seq;
    Ok(log)
}

/// Commits an opening. The data folder knows of it before the manifest does, so that whatever
/// happens in between, it is known to have the logs.
async fn commit_opening(
    files: &FileStore,
    manifest: &mut Manifest,
    seq: SequenceNumber,
    edits: &[Edit],
    opening: Option<Arc<str>>,
) -> Result<(), StorageError> {
    let (Some(mut mark), Some(opening)) = (files.mark(), opening) else {
        return manifest.commit(seq, edits).await;
    };
    mark.openings.push(Arc::clone(&opening));
    files.write_mark(mark.clone()).await?;
    manifest.commit(seq, edits).await?;
    let database = manifest.state().identity.clone();
    files.write_mark(StoreMark { openings: vec![opening], database, ..mark }).await
}

/// Keeps the logs of a data folder whose database was opened from another one meanwhile: what was
/// acknowledged here last never got into the object store, and somebody may want to look at it.
async fn set_aside_logs(files: &Arc<FileStore>, number: u64) -> Result<(), StorageError> {
    for (path, bytes) in files.list(LOGS_FOLDER).await? {
        let log = log_number(&path).filter(|_| bytes > EMPTY_LOG_BYTES);
        let Some(log) = log else { continue };
        let kept = format!("{ABANDONED_FOLDER}/{number:020}-{log:020}.wal");
        let (of_move, from, to) = (Arc::clone(files), path.clone(), kept.clone());
        run_blocking(move || of_move.move_log(&from, &to)).await?;
        warn!(path, kept, bytes, "this log was given up by an opening elsewhere and is set aside");
    }
    Ok(())
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
