//! The third place for files: logs in a local folder, everything else in a bucket, and copies of
//! segments next to the logs.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;

use super::bucket::Bucket;
use super::folder::Folder;
use super::segment_cache::{CacheUse, SegmentCache};
use super::store_mark::{MARK_FILE, StoreMark};
use super::{PutKind, io, run_blocking};
use crate::error::StorageError;

use crate::wal::LOGS_FOLDER;

/// A local folder and the bucket that it belongs to.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) folder: Arc<Folder>,
    /// For reading logs.
    pub(super) logs: Arc<dyn ObjectStore>,
    pub(super) bucket: Bucket,
    mark: Mutex<StoreMark>,
    cache: Arc<SegmentCache>,
}

impl Remote {
    /// Blocking. With `cache_bytes` of `None` no copies are looked at or made.
    pub(super) fn open(
        folder: &Path,
        bucket: Bucket,
        mark: StoreMark,
        cache_bytes: Option<u64>,
    ) -> Result<Remote, StorageError> {
        let shown = folder.display().to_string();
        let folder = Folder::open(folder).map_err(|e| io("create", &shown, e))?;
        let logs =
            LocalFileSystem::new_with_prefix(folder.root()).map_err(|e| io("open", &shown, e))?;
        let cache = match cache_bytes {
            Some(bytes) => SegmentCache::open(folder.root(), bytes)?,
            None => SegmentCache::none(folder.root(), 0),
        };
        let (folder, logs, cache) = (Arc::new(folder), Arc::new(logs), Arc::new(cache));
        Ok(Remote { folder, logs, bucket, mark: Mutex::new(mark), cache })
    }

    pub(super) fn mark(&self) -> StoreMark {
        self.mark.lock().clone()
    }

    /// Keeps a mark durably.
    pub(super) async fn write_mark(&self, mark: StoreMark) -> Result<(), StorageError> {
        let (folder, text) = (Arc::clone(&self.folder), mark.text());
        run_blocking(move || folder.put(MARK_FILE, text.as_bytes(), PutKind::Overwrite)).await?;
        *self.mark.lock() = mark;
        Ok(())
    }

    pub(super) async fn put(
        &self,
        path: &str,
        bytes: Bytes,
        kind: PutKind,
    ) -> Result<(), StorageError> {
        match kind {
            PutKind::Create => self.bucket.create(path, bytes).await,
            PutKind::Overwrite => self.bucket.overwrite(path, bytes).await,
        }
    }

    /// Deletes objects of the bucket and their copies.
    pub(super) async fn delete_all(&self, paths: &[String]) -> Result<(), StorageError> {
        for path in paths {
            self.cache.remove(path);
        }
        self.bucket.delete_all(paths).await
    }

    /// Size of a segment, which should be `expected`. Fetches it on the way if it can be kept.
    pub(super) async fn segment_size(
        &self,
        segment: &ObjectPath,
        expected: u64,
    ) -> Result<u64, Error> {
        if self.cache.has(segment.as_ref(), expected) {
            return Ok(expected);
        }
        if !self.cache.has_room_for(expected) {
            return Ok(self.bucket.objects().head(segment).await?.size);
        }
        let _one_at_a_time = self.cache.fetching(segment.as_ref()).await;
        if self.cache.has(segment.as_ref(), expected) {
            return Ok(expected);
        }
        Ok(self.fetch_whole(segment, expected).await?.len() as u64)
    }

    /// Parts of a segment of `expected` bytes: from its copy if there is one, else the segment is
    /// fetched, once for all who want it. One that is too large to be kept is read in parts.
    pub(super) async fn segment_ranges(
        &self,
        segment: &ObjectPath,
        expected: u64,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, Error> {
        if let Some(found) = self.cache.read(segment.as_ref(), expected, ranges).await {
            return Ok(found);
        }
        if !self.cache.has_room_for(expected) {
            self.cache.note_miss();
            return self.bucket.objects().get_ranges(segment, ranges).await;
        }
        let _one_at_a_time = self.cache.fetching(segment.as_ref()).await;
        if let Some(found) = self.cache.read(segment.as_ref(), expected, ranges).await {
            return Ok(found);
        }
        let whole = self.fetch_whole(segment, expected).await?;
        let within = |at: u64| whole.len().min(at as usize);
        Ok(ranges.iter().map(|range| whole.slice(within(range.start)..within(range.end))).collect())
    }

    async fn fetch_whole(&self, segment: &ObjectPath, expected: u64) -> Result<Bytes, Error> {
        self.cache.note_miss();
        let whole = self.bucket.objects().get(segment).await?.bytes().await?;
        if whole.len() as u64 == expected {
            self.cache.insert(segment.as_ref(), whole.clone()).await;
        }
        Ok(whole)
    }

    pub(super) async fn keep_copy(&self, path: &str, bytes: Bytes) {
        self.cache.insert(path, bytes).await;
    }

    pub(super) fn forget_copy(&self, path: &str) {
        self.cache.remove(path);
    }

    pub(super) fn cache_use(&self) -> CacheUse {
        self.cache.stats()
    }
}

/// Whether a file is in the local folder.
pub(super) fn is_local(path: &str) -> bool {
    path.strip_prefix(LOGS_FOLDER).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
