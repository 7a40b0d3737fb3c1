//! The only door to the disk: objects that appear whole or not at all, and logs that grow.
//!
//! Paths are relative to the data folder, with `/` between names and names already encoded, for
//! example `manifest/00000000000000000007.edit`. Reading and listing go through `object_store`,
//! so a folder and a bucket look the same; writing into a folder does not, because
//! `object_store` never syncs. With a bucket the logs stay in the data folder.

mod bucket;
mod folder;
mod journal;
mod log;
mod remote;
mod segment_cache;
mod store_mark;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parking_lot::Mutex;

use crate::error::StorageError;
use folder::Folder;
#[cfg(test)]
pub(crate) use journal::Left;
use journal::{FileStep, Journal};
use log::MemoryLog;
use remote::{Remote, is_local};

#[cfg(test)]
pub(crate) use bucket::faulty::{Fault, FaultyBucket};
pub(crate) use bucket::{Bucket, BucketUrl};
pub(crate) use log::{LogBytes, LogFile};
pub use segment_cache::CacheUse;
pub(crate) use store_mark::{StoreMark, unique_text};

/// What [`FileStore::put`] does when the path is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutKind {
    /// It fails with [`StorageError::Conflict`] and changes nothing.
    Create,
    /// It replaces the object.
    Overwrite,
}

/// The files of one data folder. Shared by reference counting.
#[derive(Debug)]
pub(crate) struct FileStore {
    objects: Arc<dyn ObjectStore>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Local(Arc<Folder>),
    Remote(Box<Remote>),
    Memory { logs: Mutex<BTreeMap<String, MemoryLog>>, journal: Arc<Journal> },
}

impl FileStore {
    /// The files in `folder`, which is created if it does not exist.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it cannot be created or opened.
    pub(crate) fn local(folder: &Path) -> Result<Arc<FileStore>, StorageError> {
        let shown = folder.display().to_string();
        let folder = Folder::open(folder).map_err(|e| io("create", &shown, e))?;
        let objects =
            LocalFileSystem::new_with_prefix(folder.root()).map_err(|e| io("open", &shown, e))?;
        let place = Place::Local(Arc::new(folder));
        Ok(Arc::new(FileStore { objects: Arc::new(objects), place }))
    }

    /// Logs in `folder` and everything else in `bucket`, to which the folder belongs as `mark`
    /// says. Copies of segments take up to `cache_bytes` in the folder; with `None` there are none.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the folder cannot be used.
    pub(crate) fn remote(
        folder: &Path,
        bucket: Bucket,
        mark: StoreMark,
        cache_bytes: Option<u64>,
    ) -> Result<Arc<FileStore>, StorageError> {
        let remote = Box::new(Remote::open(folder, bucket, mark, cache_bytes)?);
        let objects = Arc::clone(remote.bucket.objects());
        Ok(Arc::new(FileStore { objects, place: Place::Remote(remote) }))
    }

    /// Files that live as long as the value.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests keep files in memory"))]
    pub(crate) fn in_memory() -> Arc<FileStore> {
        let place = Place::Memory { logs: Mutex::default(), journal: Arc::default() };
        Arc::new(FileStore { objects: Arc::new(InMemory::new()), place })
    }

    /// What happened so far to files in memory.
    ///
    /// # Panics
    /// If the files are not in memory.
    #[cfg(test)]
    pub(crate) fn journal(&self) -> &Arc<Journal> {
        match &self.place {
            Place::Memory { journal, .. } => journal,
            Place::Local(_) | Place::Remote(_) => panic!("only files in memory have a journal"),
        }
    }

    /// What the data folder knows of its object store, if it has one.
    pub(crate) fn mark(&self) -> Option<StoreMark> {
        self.in_bucket().map(Remote::mark)
    }

    /// Whether everything but the logs is in an object store.
    pub(crate) fn is_in_bucket(&self) -> bool {
        self.in_bucket().is_some()
    }

    /// Replaces what the data folder knows of its object store, durably. A folder without object
    /// store knows nothing.
    ///
    /// # Errors
    /// [`StorageError::Io`] if that fails.
    pub(crate) async fn write_mark(&self, mark: StoreMark) -> Result<(), StorageError> {
        match self.in_bucket() {
            Some(remote) => remote.write_mark(mark).await,
            None => Ok(()),
        }
    }

    /// Makes sure that two writers cannot both commit.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if the object store does not see to that,
    /// [`StorageError::Unreachable`] if it does not answer.
    pub(crate) async fn check_conditional_writes(&self) -> Result<(), StorageError> {
        match self.in_bucket() {
            Some(remote) => remote.bucket.check_conditional_writes().await,
            None => Ok(()),
        }
    }

    /// Makes sure that a write can be expected to succeed, at the cost of a request to the object
    /// store if there is one.
    ///
    /// # Errors
    /// [`StorageError::Unreachable`] if the object store does not answer.
    pub(crate) async fn check_reachable(&self) -> Result<(), StorageError> {
        match self.in_bucket() {
            Some(remote) => remote.bucket.check_reachable().await,
            None => Ok(()),
        }
    }

    fn in_bucket(&self) -> Option<&Remote> {
        match &self.place {
            Place::Remote(remote) => Some(remote),
            Place::Local(_) | Place::Memory { .. } => None,
        }
    }

    /// Where the file with this path, or folder, is read.
    fn objects_at(&self, path: &str) -> &Arc<dyn ObjectStore> {
        match &self.place {
            Place::Remote(remote) if is_local(path) => &remote.logs,
            _ => &self.objects,
        }
    }

    /// Writes a whole object. It is there, complete and synced, when this returns; it is not there
    /// at all, or the one before it still is, when the machine stops earlier.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if the path is taken and `kind` is [`PutKind::Create`];
    /// [`StorageError::Unreachable`] if the object store was not reached and nothing has changed,
    /// [`StorageError::Unresolved`] if nobody knows; [`StorageError::Io`] otherwise.
    pub(crate) async fn put(
        &self,
        path: &str,
        bytes: Bytes,
        kind: PutKind,
    ) -> Result<(), StorageError> {
        let location = object_path(path)?;
        match &self.place {
            Place::Local(folder) => {
                let (folder, path) = (Arc::clone(folder), path.to_owned());
                run_blocking(move || folder.put(&path, &bytes, kind)).await
            }
            Place::Remote(remote) => remote.put(path, bytes, kind).await,
            Place::Memory { journal, .. } => {
                journal.note(FileStep::Put { path: path.to_owned(), bytes: bytes.clone() })?;
                let mode = match kind {
                    PutKind::Create => PutMode::Create,
                    PutKind::Overwrite => PutMode::Overwrite,
                };
                match self.objects.put_opts(&location, bytes.into(), PutOptions::from(mode)).await {
                    Ok(_) => Ok(()),
                    Err(object_store::Error::AlreadyExists { .. }) => Err(taken(path)),
                    Err(source) => Err(io("write", path, source)),
                }
            }
        }
    }

    /// The bytes of an object or log.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it is missing, since only files that must exist are read;
    /// [`StorageError::Io`] otherwise.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes, StorageError> {
        if let Some(log) = self.memory_log(path) {
            return Ok(log.bytes());
        }
        let failed = |source| match source {
            object_store::Error::NotFound { .. } => missing(path),
            source => io("read", path, source),
        };
        let found = self.objects_at(path).get(&object_path(path)?).await.map_err(failed)?;
        found.bytes().await.map_err(|e| io("read", path, e))
    }

    /// Paths and sizes of all files below the folder `prefix`, ascending by path.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the store refuses.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StorageError> {
        let objects = self.objects_at(prefix).list(Some(&object_path(prefix)?));
        let mut found: Vec<(String, u64)> = objects
            .map_ok(|object| (object.location.to_string(), object.size))
            .try_collect()
            .await
            .map_err(|e| io("list", prefix, e))?;
        if let Place::Memory { logs, .. } = &self.place {
            let below = format!("{}/", prefix.trim_end_matches('/'));
            let logs = logs.lock();
            let logs = logs.iter().filter(|(path, _)| path.starts_with(&below));
            found.extend(logs.map(|(path, log)| (path.clone(), log.bytes().len() as u64)));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Deletes an object or log; one that is gone already is no error.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the store refuses.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), StorageError> {
        if let Place::Memory { logs, journal } = &self.place {
            journal.note(FileStep::Delete { path: path.to_owned() })?;
            if logs.lock().remove(path).is_some() {
                return Ok(());
            }
        }
        if let (Place::Remote(remote), false) = (&self.place, is_local(path)) {
            return remote.delete_all(&[path.to_owned()]).await;
        }
        match self.objects_at(path).delete(&object_path(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(io("delete", path, source)),
        }
    }

    /// Deletes objects, with few requests where that is possible.
    ///
    /// # Errors
    /// [`StorageError::Io`] if some cannot be deleted.
    pub(crate) async fn delete_all(&self, paths: &[String]) -> Result<(), StorageError> {
        if let Place::Remote(remote) = &self.place {
            return remote.delete_all(paths).await;
        }
        let mut outcome = Ok(());
        for path in paths {
            outcome = outcome.and(self.delete(path).await);
        }
        outcome
    }

    /// Size of the segment at `path`, which should have `expected` bytes.
    ///
    /// # Errors
    /// [`object_store::Error`] if it is missing or cannot be read.
    pub(crate) async fn segment_size(
        &self,
        path: &ObjectPath,
        expected: u64,
    ) -> Result<u64, object_store::Error> {
        match &self.place {
            Place::Remote(remote) => remote.segment_size(path, expected).await,
            _ => Ok(self.objects.head(path).await?.size),
        }
    }

    /// Parts of the segment at `path`, which should have `expected` bytes; they may be shorter than
    /// asked for where it ends.
    ///
    /// # Errors
    /// [`object_store::Error`] if it is missing or cannot be read.
    pub(crate) async fn segment_ranges(
        &self,
        path: &ObjectPath,
        expected: u64,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, object_store::Error> {
        match &self.place {
            Place::Remote(remote) => remote.segment_ranges(path, expected, ranges).await,
            _ => self.objects.get_ranges(path, ranges).await,
        }
    }

    /// Keeps a copy of a segment near, where that makes a difference.
    pub(crate) async fn keep_copy(&self, path: &str, bytes: Bytes) {
        if let Some(remote) = self.in_bucket() {
            remote.keep_copy(path, bytes).await;
        }
    }

    /// Throws away the copy of a segment, if there is one. `false` says that there never are
    /// copies, so that what was read was the segment itself.
    pub(crate) fn forget_copy(&self, path: &str) -> bool {
        let remote = self.in_bucket();
        remote.inspect(|remote| remote.forget_copy(path)).is_some()
    }

    /// What the copies of segments were good for.
    pub(crate) fn cache_use(&self) -> CacheUse {
        self.in_bucket().map(Remote::cache_use).unwrap_or_default()
    }

    /// A new, empty log that exists durably. Blocking.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if the path is taken; [`StorageError::Io`] otherwise.
    pub(crate) fn create_log(&self, path: &str) -> Result<Box<dyn LogFile>, StorageError> {
        object_path(path)?;
        match &self.place {
            Place::Local(folder) => Ok(Box::new(folder.create_log(path)?)),
            Place::Remote(remote) => Ok(Box::new(remote.folder.create_log(path)?)),
            Place::Memory { logs, journal } => {
                let mut logs = logs.lock();
                if logs.contains_key(path) {
                    return Err(taken(path));
                }
                let log = MemoryLog::new(path, journal)?;
                logs.insert(path.to_owned(), log.clone());
                Ok(Box::new(log))
            }
        }
    }

    /// A log to read from. Blocking.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it is missing, since only logs that must exist are read;
    /// [`StorageError::Io`] otherwise.
    pub(crate) fn open_log(&self, path: &str) -> Result<LogBytes, StorageError> {
        object_path(path)?;
        let opened = match (&self.place, self.memory_log(path)) {
            (Place::Local(folder), _) => folder.open_log(path)?,
            (Place::Remote(remote), _) => remote.folder.open_log(path)?,
            (Place::Memory { .. }, log) => log.map(|log| LogBytes::Memory(log.bytes())),
        };
        opened.ok_or_else(|| missing(path))
    }

    /// Cuts a log to its first `len` bytes, durably. Blocking.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it does not exist or cannot be cut.
    pub(crate) fn truncate_log(&self, path: &str, len: u64) -> Result<(), StorageError> {
        match (&self.place, self.memory_log(path)) {
            (Place::Local(folder), _) => folder.truncate(path, len),
            (Place::Remote(remote), _) => remote.folder.truncate(path, len),
            (Place::Memory { .. }, Some(log)) => log.truncate(len),
            (Place::Memory { .. }, None) => Err(io("truncate", path, "the log does not exist")),
        }
    }

    /// Moves a log of a data folder, durably. Blocking.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it does not exist or cannot be moved, or is in memory.
    pub(crate) fn move_log(&self, from: &str, to: &str) -> Result<(), StorageError> {
        match &self.place {
            Place::Local(folder) => folder.rename(from, to),
            Place::Remote(remote) => remote.folder.rename(from, to),
            Place::Memory { .. } => Err(io("move", from, "it is in memory")),
        }
    }

    /// Moves the file of a segment, durably; `false` if there is none. A crash in between leaves it in
    /// its old place or in both.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it cannot be moved.
    pub(crate) async fn move_segment(&self, from: &str, to: &str) -> Result<bool, StorageError> {
        if let Place::Local(folder) = &self.place {
            let (folder, from, to) = (Arc::clone(folder), from.to_owned(), to.to_owned());
            let rename = move || match folder.has(&from) {
                true => folder.rename(&from, &to).map(|()| true),
                false => Ok(false),
            };
            return run_blocking(rename).await;
        }
        let bytes = match self.get(from).await {
            Ok(bytes) => bytes,
            Err(StorageError::Corrupt { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        self.put(to, bytes, PutKind::Overwrite).await?;
        self.delete(from).await?;
        Ok(true)
    }

    /// Removes what unfinished writes of an earlier process left behind. Blocking; to be called
    /// by the one process that holds the lock of the data folder.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the remains cannot be removed.
    pub(crate) fn remove_unfinished(&self) -> Result<(), StorageError> {
        match &self.place {
            Place::Local(folder) => folder.remove_unfinished(),
            Place::Remote(remote) => remote.folder.remove_unfinished(),
            Place::Memory { .. } => Ok(()),
        }
    }

    fn memory_log(&self, path: &str) -> Option<MemoryLog> {
        match &self.place {
            Place::Local(_) | Place::Remote(_) => None,
            Place::Memory { logs, .. } => logs.lock().get(path).cloned(),
        }
    }
}

/// Checks and converts a path relative to the data folder.
///
/// # Errors
/// [`StorageError::Invalid`] if it could leave the data folder or name a folder.
pub(crate) fn object_path(path: &str) -> Result<ObjectPath, StorageError> {
    ObjectPath::parse(path).map_err(|e| StorageError::Invalid(format!("no path of a file: {e}")))
}

fn missing(path: &str) -> StorageError {
    let reason = "the file is missing".to_owned();
    StorageError::Corrupt { path: path.to_owned(), offset: 0, reason }
}

fn taken(path: &str) -> StorageError {
    StorageError::Conflict { what: path.to_owned() }
}

fn io(
    action: &'static str,
    path: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StorageError {
    StorageError::Io { action, path: path.to_owned(), source: source.into() }
}

/// Runs work that blocks or takes long off the asynchronous threads; a panic goes on here.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StorageError::Closed),
        },
    }
}

#[cfg(test)]
mod tests;
