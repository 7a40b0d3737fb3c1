//! Copies of segments on the local disk, so that reading does not wait for the object store.
//!
//! A copy is a whole segment, `cache/<number>.parquet`; the longest unused go first. Nothing here
//! is synced or trusted: a copy that is missing, cut or damaged is fetched again, which the
//! checksums of segments tell. Numbers of segments are never used twice.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use hashbrown::DefaultHashBuilder;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};
use tracing::{debug, warn};

use super::{io as io_error, run_blocking};
use crate::error::StorageError;
use crate::lru::Lru;

/// Folder of the copies below the data folder.
const FOLDER: &str = "cache";
/// Folder of copies that are being written.
const UNFINISHED: &str = "unfinished";
/// Segments that are fetched at the same time, at most.
const FETCHES: usize = 16;

/// The copies of one data folder.
#[derive(Debug)]
pub(super) struct SegmentCache {
    folder: PathBuf,
    capacity_bytes: u64,
    /// Which copies there are, by name of the file.
    copies: Mutex<Lru<String, ()>>,
    /// Whoever fetches a segment holds the lock that its name is hashed to.
    fetching: Vec<AsyncMutex<()>>,
    hasher: DefaultHashBuilder,
    next_unfinished: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What the cache has done since the start, and holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Reads that were answered from it.
    pub hits: u64,
    /// Reads that went to the object store.
    pub misses: u64,
    /// Size of the copies.
    pub bytes: u64,
}

impl SegmentCache {
    /// The copies of a data folder, at most this many bytes; what unfinished fetches of an earlier
    /// process left behind is removed. Blocking.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the folder cannot be read or changed.
    pub(super) fn open(root: &Path, capacity_bytes: u64) -> Result<SegmentCache, StorageError> {
        let cache = SegmentCache::none(root, capacity_bytes);
        let open = || {
            fs::create_dir_all(&cache.folder)?;
            remove_unfinished(&cache.folder)?;
            let mut copies = cache.copies.lock();
            for (name, bytes) in copies_in(&cache.folder)? {
                copies.insert(name, (), bytes);
            }
            cache.remove_files(copies.make_room(0, capacity_bytes));
            Ok(())
        };
        open().map_err(|e: io::Error| io_error("read", FOLDER, e))?;
        Ok(cache)
    }

    /// No copies, whatever is in the folder.
    pub(super) fn none(root: &Path, capacity_bytes: u64) -> SegmentCache {
        SegmentCache {
            folder: root.join(FOLDER),
            capacity_bytes,
            copies: Mutex::default(),
            fetching: (0..FETCHES).map(|_| AsyncMutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            next_unfinished: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Whether a segment of this size can be kept.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        bytes <= self.capacity_bytes
    }

    /// Whether there is a copy of that size; one of another size is thrown away.
    pub(super) fn has(&self, path: &str, bytes: u64) -> bool {
        let name = name_of(path);
        let found = self.copies.lock().get(name).map(|(_, bytes)| bytes);
        if found.is_some_and(|found| found != bytes) {
            self.remove(path);
        }
        found == Some(bytes)
    }

    /// Parts of a copy; `None` if there is none of that size that can be read.
    pub(super) async fn read(
        &self,
        path: &str,
        bytes: u64,
        ranges: &[Range<u64>],
    ) -> Option<Vec<Bytes>> {
        if !self.has(path, bytes) {
            return None;
        }
        let (file, ranges) = (self.folder.join(name_of(path)), ranges.to_vec());
        let read = run_blocking(move || {
            read_ranges(&file, &ranges).map_err(|e| io_error("read", &file.to_string_lossy(), e))
        });
        match read.await {
            Ok(found) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Some(found)
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                debug!(path, error, "the copy of a segment is gone and will be fetched again");
                self.remove(path);
                None
            }
        }
    }

    /// Counts a read that goes to the object store.
    pub(super) fn note_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// To be held by whoever fetches a segment.
    pub(super) async fn fetching(&self, path: &str) -> MutexGuard<'_, ()> {
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, path) as usize;
        self.fetching[hash % FETCHES].lock().await
    }

    /// Keeps a copy, if it is not too large. Failing to costs speed and nothing else.
    pub(super) async fn insert(self: &Arc<Self>, path: &str, bytes: Bytes) {
        if !self.has_room_for(bytes.len() as u64) {
            return;
        }
        let (cache, name) = (Arc::clone(self), name_of(path).to_owned());
        let written = run_blocking(move || {
            cache.write(&name, &bytes).map_err(|e| io_error("write", &name, e))
        });
        if let Err(error) = written.await {
            let error = &error as &dyn std::error::Error;
            warn!(path, error, "could not keep a copy of a segment");
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.folder.join(UNFINISHED);
        fs::create_dir_all(&unfinished)?;
        let number = self.next_unfinished.fetch_add(1, Ordering::Relaxed);
        let unfinished = unfinished.join(number.to_string());
        let evicted = self.copies.lock().make_room(bytes.len() as u64, self.capacity_bytes);
        self.remove_files(evicted);
        let written = fs::write(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, self.folder.join(name)));
        if written.is_err() {
            self.remove_files([format!("{UNFINISHED}/{number}")]);
        } else {
            self.copies.lock().insert(name.to_owned(), (), bytes.len() as u64);
        }
        written
    }

    /// Throws a copy away, if there is one.
    pub(super) fn remove(&self, path: &str) {
        let name = name_of(path);
        let was_there = self.copies.lock().remove(name);
        if was_there {
            self.remove_files([name.to_owned()]);
        }
    }

    fn remove_files(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            match fs::remove_file(self.folder.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(name, %error, "could not remove the copy of a segment");
                }
                _ => {}
            }
        }
    }

    pub(super) fn stats(&self) -> CacheUse {
        CacheUse {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.copies.lock().bytes(),
        }
    }
}

/// Name of the copy of a segment.
fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn remove_unfinished(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder.join(UNFINISHED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Names and sizes of the copies in a folder, oldest first.
fn copies_in(folder: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found: Vec<(SystemTime, String, u64)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
            found.push((metadata.modified()?, name, metadata.len()));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, name, bytes)| (name, bytes)).collect())
}

fn read_ranges(file: &Path, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
    let file = File::open(file)?;
    let read = |range: &Range<u64>| {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(Bytes::from(bytes))
    };
    ranges.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: u8) -> String {
        format!("segments/d/m/1970-01-01/{number}.parquet")
    }

    async fn read(cache: &SegmentCache, number: u8, bytes: u64) -> Option<Vec<u8>> {
        let found = cache.read(&path(number), bytes, &[0..1, 1..bytes]).await?;
        Some(found.concat())
    }

    #[tokio::test]
    async fn the_longest_unused_copies_go_first_and_the_rest_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Arc::new(SegmentCache::open(folder.path(), 10).unwrap());
        for number in 1..=3 {
            cache.insert(&path(number), vec![number; 3].into()).await;
        }
        assert_eq!(read(&cache, 1, 3).await, Some(vec![1; 3]));
        cache.insert(&path(4), vec![4; 4].into()).await;
        assert_eq!(read(&cache, 2, 3).await, None);
        assert_eq!(read(&cache, 1, 3).await, Some(vec![1; 3]));
        cache.insert(&path(5), vec![5; 11].into()).await;
        assert_eq!(cache.stats(), CacheUse { hits: 2, misses: 0, bytes: 10 });

        fs::create_dir_all(folder.path().join("cache/unfinished")).unwrap();
        fs::write(folder.path().join("cache/unfinished/7"), "half").unwrap();
        let cache = Arc::new(SegmentCache::open(folder.path(), 10).unwrap());
        assert!(!folder.path().join("cache/unfinished").exists());
        assert_eq!(read(&cache, 3, 3).await, Some(vec![3; 3]));
        assert_eq!(read(&cache, 4, 4).await, Some(vec![4; 4]));
        assert_eq!(cache.stats().bytes, 10);
        let cache = Arc::new(SegmentCache::open(folder.path(), 4).unwrap());
        assert_eq!(cache.stats().bytes, 4);
        assert_eq!(fs::read_dir(folder.path().join("cache")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_copy_of_another_size_or_that_is_gone_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Arc::new(SegmentCache::open(folder.path(), 100).unwrap());
        cache.insert(&path(1), vec![1; 3].into()).await;
        assert_eq!(read(&cache, 1, 4).await, None);
        assert_eq!(cache.stats().bytes, 0);
        cache.insert(&path(1), vec![1; 4].into()).await;
        fs::remove_dir_all(folder.path().join("cache")).unwrap();
        assert_eq!(read(&cache, 1, 4).await, None);
        cache.insert(&path(1), vec![1; 4].into()).await;
        assert_eq!(read(&cache, 1, 4).await, Some(vec![1; 4]));
        assert_eq!(cache.stats().bytes, 4);
    }
}
