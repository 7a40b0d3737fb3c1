//! Checking a data folder: every live file is read and nothing is changed.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::error::StorageError;
use crate::file_store::{Bucket, FileStore, StoreMark, run_blocking};
use crate::manifest::{Manifest, ManifestState, UnsoundFiles};
use crate::quarantine::kept_path;
use crate::recovery::FolderLock;
use crate::segment::{SEGMENTS_FOLDER, SegmentShape, SegmentStore, verify};
use crate::wal::{LOGS_FOLDER, Record, WalReader, log_path};

/// What was found in a data folder.
#[derive(Debug, Default)]
pub struct FolderCheck {
    /// Live segments.
    pub segments: u64,
    /// Rows in them, counting overwritten and deleted ones.
    pub rows: u64,
    /// Size of segments and logs.
    pub bytes: u64,
    /// Commits in logs.
    pub logged_commits: u64,
    /// What is damaged: each names its file.
    pub problems: Vec<StorageError>,
    /// What is unusual and harmless, a sentence each.
    pub notes: Vec<String>,
}

/// A folder with a database, or with the log of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    /// The object store that everything but the log is in, as the settings have it.
    pub object_store: Option<String>,
}

/// Looks whether a folder is a data folder. Blocking.
///
/// # Errors
/// [`StorageError::Invalid`] if it is none, and those of reading.
pub fn data_folder(folder: &Path) -> Result<DataFolder, StorageError> {
    let mark = existing_mark(folder)?;
    Ok(DataFolder { object_store: mark.map(|mark| mark.url.to_string()) })
}

/// What a data folder knows of its object store, if it has one.
fn existing_mark(folder: &Path) -> Result<Option<StoreMark>, StorageError> {
    let mark = StoreMark::read(folder)?;
    if mark.is_none() && !folder.join("manifest").is_dir() {
        let shown = folder.display();
        return Err(StorageError::Invalid(format!("{shown} is no data folder of Highwater")));
    }
    Ok(mark)
}

/// Reads all of a data folder that no process has open, and says what is wrong with it. If the
/// folder belongs to an object store, what is there is read, and not the copies in the folder.
/// `on_progress` hears how many bytes of how many have been read.
///
/// # Errors
/// [`StorageError::Locked`] if a process has the folder open, [`StorageError::Invalid`] if it is
/// no data folder, [`StorageError::Corrupt`] if the manifest cannot be read: then it is not known
/// what else should be there. [`StorageError::Unreachable`] if its object store does not answer.
pub async fn check_folder(
    folder: &Path,
    mut on_progress: impl FnMut(u64, u64),
) -> Result<FolderCheck, StorageError> {
    let (_lock, files) = open_existing(folder).await?;
    let (manifest, unsound) = Manifest::read(Arc::clone(&files)).await?;
    let state = manifest.state();
    let mut check = FolderCheck::default();
    check.note_unsound(&unsound);
    let total = check.note_files(&files, state).await?;
    let shape = SegmentShape::of_windows(0);
    let store = SegmentStore::new(Arc::clone(&files), 0, shape);
    let mut done = 0;
    for measurement in state.measurements.values() {
        let is_unique = measurement.kind.is_deduplicated();
        for segment in &measurement.segments {
            let outcome = verify(&store.handle(Arc::clone(segment)), is_unique).await;
            check.problems.extend(outcome.err());
            check.segments += 1;
            check.rows += segment.rows;
            done += segment.bytes;
            on_progress(done, total);
        }
    }
    if let Some(mark) = files.mark().filter(|mark| !mark.had_open(state)) {
        let elsewhere = (!state.logs.is_empty()).then(|| mark.logs_elsewhere(state));
        check.problems.extend(elsewhere);
        check.bytes = done;
        return Ok(check);
    }
    for &log in &state.logs {
        let is_last = state.logs.last() == Some(&log);
        done += check.check_log(&files, log, is_last, state.durable_bytes(log));
        on_progress(done, total);
    }
    check.bytes = done;
    Ok(check)
}

/// Takes the lock of a folder that must be there already, unless it cannot be written to at all.
async fn open_existing(
    folder: &Path,
) -> Result<(Option<FolderLock>, Arc<FileStore>), StorageError> {
    let of_lock = folder.to_owned();
    let (lock, mark) = run_blocking(move || {
        let folder = &of_lock;
        let mark = existing_mark(folder)?;
        let lock = match FolderLock::take(folder) {
            Ok(lock) => Some(lock),
            // Then nobody else can have it open for writing either.
            Err(StorageError::Io { source, .. }) if is_read_only(&*source) => None,
            Err(error) => return Err(error),
        };
        Ok((lock, mark))
    })
    .await?;
    let folder = folder.to_owned();
    let files = match mark {
        None => run_blocking(move || FileStore::local(&folder)).await?,
        Some(mark) => {
            let bucket = Bucket::connect(&mark.url).await?;
            run_blocking(move || FileStore::remote(&folder, bucket, mark, None)).await?
        }
    };
    Ok((lock, files))
}

fn is_read_only(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::ReadOnlyFilesystem)
}

impl FolderCheck {
    fn note_unsound(&mut self, unsound: &UnsoundFiles) {
        if let Some(number) = unsound.torn {
            self.notes.push(format!(
                "commit {number} of the manifest is incomplete; it was never acknowledged, the \
                 next start removes it"
            ));
        }
        self.problems.extend(unsound.checkpoint_paths().map(|path| {
            let reason = "it is damaged; the next start writes it again".to_owned();
            StorageError::Corrupt { path, offset: 0, reason }
        }));
    }

    /// Notes files that nothing refers to, and returns the bytes of those that are live.
    async fn note_files(
        &mut self,
        files: &FileStore,
        state: &ManifestState,
    ) -> Result<u64, StorageError> {
        let segments = state.measurements.values().flat_map(|one| &one.segments);
        let mut live: HashSet<String> = segments.map(|segment| segment.path.clone()).collect();
        live.extend(state.logs.iter().map(|&log| log_path(log)));
        let given_up = state.quarantine.iter().map(|given_up| given_up.segment.path.as_str());
        let given_up: HashSet<&str> = given_up.collect();
        let (mut total, mut unneeded, mut unneeded_bytes) = (0, 0, 0);
        for folder in [SEGMENTS_FOLDER, LOGS_FOLDER] {
            for (path, bytes) in files.list(folder).await? {
                if live.contains(&path) {
                    total += bytes;
                } else if given_up.contains(path.as_str()) {
                    let kept = kept_path(&path);
                    self.notes
                        .push(format!("{path} was given up; the next start moves it to {kept}"));
                } else {
                    unneeded += 1;
                    unneeded_bytes += bytes;
                }
            }
        }
        if unneeded > 0 {
            self.notes.push(format!(
                "{unneeded} files with {unneeded_bytes} bytes are not needed; the next start \
                 deletes them"
            ));
        }
        if let Some(rows) = state.quarantine.iter().map(|one| one.segment.rows).reduce(|a, b| a + b)
        {
            let segments = state.quarantine.len();
            self.notes.push(format!(
                "{segments} segments with {rows} rows were given up; system.quarantine lists them"
            ));
        }
        Ok(total)
    }

    /// Reads a log and returns its size. Blocking.
    fn check_log(&mut self, files: &FileStore, number: u64, is_last: bool, durable: u64) -> u64 {
        let path = log_path(number);
        let log = match files.open_log(&path) {
            Ok(log) => log,
            Err(error) => {
                self.problems.push(error);
                return 0;
            }
        };
        let len = log.len();
        let mut reader = match WalReader::open(&path, log, is_last) {
            Ok(reader) => reader.with_durable(durable),
            Err(error) => {
                self.problems.push(error);
                return len;
            }
        };
        for record in reader.by_ref() {
            match record {
                Ok(Record::Points { .. } | Record::Delete { .. }) => self.logged_commits += 1,
                Err(error) => self.problems.push(error),
            }
        }
        if let Some(kept) = reader.torn_at() {
            let torn = len - kept;
            self.notes.push(format!(
                "{path}: the last {torn} bytes are an incomplete write; the next start cuts them off"
            ));
        }
        len
    }
}
