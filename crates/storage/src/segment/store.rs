//! The segments of an engine: their files, parsed footers, and when a file may go.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::RecordBatch;
use bytes::Bytes;
use highwater_core::{MeasurementId, Schema, Timestamp};
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataPushDecoder};
use tracing::warn;

use super::SegmentMeta;
use super::footers::FooterCache;
use super::path::segment_path;
use super::sort::{sort_rows, split_by_window};
use super::writer::{
    EncodedSegment, FIRST_TAG_KEYS_KEY, FORMAT_KEY, FORMAT_VERSION, ROW_GROUP_ROWS, SegmentWriter,
};
use crate::error::StorageError;
use crate::file_store::{FileStore, PutKind, object_path, run_blocking};
use crate::parallel::concat_rows;

/// Bytes read at once from the end of a file to find its footer; usually enough for all of it.
const FOOTER_GUESS_BYTES: u64 = 64 << 10;
/// Length of a Parquet file's last part: the length of the footer, and a magic number.
const FOOTER_TAIL_BYTES: u64 = 8;

/// The files of all segments, shared by all who read and write them.
#[derive(Debug)]
pub(crate) struct SegmentStore {
    files: Arc<FileStore>,
    footers: FooterCache,
    next_file: AtomicU64,
    shape: SegmentShape,
    /// Files of removed segments that no reader needs any more.
    unreferenced: Mutex<Vec<String>>,
}

/// How rows are cut into segments, and segments into row groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentShape {
    /// Rows of a row group, [`ROW_GROUP_ROWS`] but in tests.
    pub(crate) row_group_rows: usize,
    /// Neighbouring days share a segment as long as they have no more rows.
    pub(crate) window_rows: u64,
}

impl SegmentShape {
    /// With windows of so many rows.
    pub(crate) fn of_windows(window_rows: u64) -> Self {
        SegmentShape { row_group_rows: ROW_GROUP_ROWS, window_rows }
    }
}

impl SegmentStore {
    /// The segments in `files`. New ones are numbered from `next_file` on, which must be greater
    /// than [`file_number`](super::file_number) of any file there is.
    pub(crate) fn new(files: Arc<FileStore>, next_file: u64, shape: SegmentShape) -> Arc<Self> {
        Arc::new(SegmentStore {
            files,
            footers: FooterCache::default(),
            next_file: AtomicU64::new(next_file),
            shape,
            unreferenced: Mutex::default(),
        })
    }

    /// Neighbouring days share a segment as long as they have no more rows.
    pub(crate) fn window_rows(&self) -> u64 {
        self.shape.window_rows
    }

    /// A writer of a new segment of this measurement with rows from this UTC day on.
    ///
    /// # Errors
    /// [`StorageError::Parquet`] if the schema cannot be stored.
    pub(crate) fn writer(
        &self,
        id: &MeasurementId,
        day: Timestamp,
        schema: &Arc<Schema>,
    ) -> Result<SegmentWriter, StorageError> {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        SegmentWriter::new(segment_path(id, day, number), id, schema, self.shape.row_group_rows)
    }

    /// Stores an encoded segment durably.
    ///
    /// # Errors
    /// [`StorageError::Io`] if that fails.
    pub(crate) async fn put(&self, segment: &EncodedSegment) -> Result<(), StorageError> {
        self.files.put(&segment.path, segment.bytes.clone(), PutKind::Create).await
    }

    /// Stores rows of `schema.arrow()` in any order as segments, one per window of days with
    /// rows, windows ascending. The rows must not hold an identity twice unless the measurement allows it.
    ///
    /// # Errors
    /// [`StorageError::Io`] if a file cannot be written, [`StorageError::Invalid`] if columns are
    /// missing, [`StorageError::Arrow`] or [`StorageError::Parquet`] if they do not fit together.
    pub(crate) async fn write_rows(
        self: &Arc<Self>,
        id: &MeasurementId,
        schema: &Arc<Schema>,
        batches: Vec<RecordBatch>,
    ) -> Result<Vec<EncodedSegment>, StorageError> {
        let (store, id, schema) = (Arc::clone(self), id.clone(), Arc::clone(schema));
        let segments = run_blocking(move || store.encode_rows(&id, &schema, &batches)).await?;
        for segment in &segments {
            self.put(segment).await?;
        }
        Ok(segments)
    }

    fn encode_rows(
        &self,
        id: &MeasurementId,
        schema: &Arc<Schema>,
        batches: &[RecordBatch],
    ) -> Result<Vec<EncodedSegment>, StorageError> {
        let rows = concat_rows(&schema.arrow(), batches)?;
        let mut segments = Vec::new();
        for (day, rows) in split_by_window(&sort_rows(schema, &rows)?, self.window_rows())? {
            let mut writer = self.writer(id, day, schema)?;
            writer.write(&rows)?;
            segments.push(writer.finish()?);
        }
        Ok(segments)
    }

    /// A handle to a segment that is stored. There should be one per segment.
    pub(crate) fn handle(self: &Arc<Self>, meta: Arc<SegmentMeta>) -> Arc<SegmentHandle> {
        let store = Arc::clone(self);
        Arc::new(SegmentHandle { meta, store, is_removed: AtomicBool::new(false) })
    }

    /// Deletes the files of removed segments whose last handle is gone, and says how many. One
    /// that cannot be deleted is tried again by the next call.
    pub(crate) async fn delete_unreferenced(&self) -> usize {
        let paths = std::mem::take(&mut *self.unreferenced.lock());
        let mut deleted = 0;
        for path in paths {
            match self.files.delete(&path).await {
                Ok(()) => deleted += 1,
                Err(error) => {
                    warn!(
                        path,
                        error = &error as &dyn std::error::Error,
                        "could not delete a removed segment"
                    );
                    self.unreferenced.lock().push(path);
                }
            }
        }
        deleted
    }

    async fn fetch(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StorageError> {
        let location = object_path(path)?;
        let found = self.files.objects().get_ranges(&location, ranges).await;
        found.map_err(|source| unreadable(path, source))
    }
}

/// A live segment: what the manifest says of it, and the way to its file.
///
/// The file stays as long as a handle does, even when the segment has been removed meanwhile.
#[derive(Debug)]
pub(crate) struct SegmentHandle {
    meta: Arc<SegmentMeta>,
    store: Arc<SegmentStore>,
    is_removed: AtomicBool,
}

impl SegmentHandle {
    /// What the manifest says of it.
    pub(crate) fn meta(&self) -> &Arc<SegmentMeta> {
        &self.meta
    }

    /// Number of row groups, as far as known without opening the file.
    pub(crate) fn expected_row_groups(&self) -> usize {
        (self.meta.rows as usize).div_ceil(self.store.shape.row_group_rows)
    }

    /// The segment is no longer live: once the last handle is gone, the next
    /// [`SegmentStore::delete_unreferenced`] deletes the file.
    pub(crate) fn mark_removed(&self) {
        self.is_removed.store(true, Ordering::Relaxed);
    }

    /// The footer, from the cache if it is there.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] or [`StorageError::Parquet`] if the file is missing, has not its
    /// size, is damaged or has an unknown format; [`StorageError::Io`] if it cannot be read.
    pub(crate) async fn footer(&self) -> Result<Arc<Footer>, StorageError> {
        if let Some(footer) = self.store.footers.get(&self.meta.path) {
            return Ok(footer);
        }
        let footer = Arc::new(self.load_footer().await?);
        self.store.footers.put(&self.meta.path, Arc::clone(&footer));
        Ok(footer)
    }

    /// Parts of the file.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if the file is missing, [`StorageError::Io`] if it cannot be read.
    pub(crate) async fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StorageError> {
        self.store.fetch(&self.meta.path, ranges).await
    }

    /// The error that says that the file cannot be decoded.
    pub(crate) fn damaged(&self, source: ParquetError) -> StorageError {
        StorageError::Parquet { path: self.meta.path.clone(), source }
    }

    /// The error that says what is wrong with the file.
    pub(crate) fn corrupt(&self, offset: u64, reason: String) -> StorageError {
        StorageError::Corrupt { path: self.meta.path.clone(), offset, reason }
    }

    async fn load_footer(&self) -> Result<Footer, StorageError> {
        let expected = self.meta.bytes;
        let location = object_path(&self.meta.path)?;
        let found = self.store.files.objects().head(&location).await;
        let size = found.map_err(|source| unreadable(&self.meta.path, source))?.size;
        if size != expected || size < FOOTER_TAIL_BYTES {
            return Err(self.corrupt(size, format!("it has {size} bytes instead of {expected}")));
        }
        let tail = size.saturating_sub(FOOTER_GUESS_BYTES)..size;
        let bytes = self.fetch(std::slice::from_ref(&tail)).await?;
        self.check_footer_length(size, bytes.first())?;
        let mut decoder = ParquetMetaDataPushDecoder::try_new(size).map_err(|e| self.damaged(e))?;
        decoder.push_ranges(vec![tail], bytes).map_err(|e| self.damaged(e))?;
        loop {
            match decoder.try_decode().map_err(|e| self.damaged(e))? {
                DecodeResult::Data(metadata) => return self.checked_footer(metadata),
                DecodeResult::NeedsData(ranges) => {
                    let bytes = self.fetch(&ranges).await?;
                    decoder.push_ranges(ranges, bytes).map_err(|e| self.damaged(e))?;
                }
                DecodeResult::Finished => {
                    return Err(self.corrupt(size, "there is no footer".to_owned()));
                }
            }
        }
    }

    /// Refuses a footer that is longer than the file; the decoder does not expect one.
    fn check_footer_length(&self, size: u64, tail: Option<&Bytes>) -> Result<(), StorageError> {
        let length = tail.and_then(|bytes| {
            let at = bytes.len().checked_sub(FOOTER_TAIL_BYTES as usize)?;
            bytes[at..].first_chunk::<4>().map(|length| u32::from_le_bytes(*length))
        });
        match length {
            Some(length) if u64::from(length) + FOOTER_TAIL_BYTES <= size => Ok(()),
            _ => Err(self.corrupt(size, "the length of the footer is impossible".to_owned())),
        }
    }

    fn checked_footer(&self, metadata: ParquetMetaData) -> Result<Footer, StorageError> {
        let bytes = metadata.memory_size();
        let arrow = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(|e| self.damaged(e))?;
        let footer = Footer { arrow, bytes };
        match footer.key_value(FORMAT_KEY) {
            Some(FORMAT_VERSION) => Ok(footer),
            version => {
                let version = version.unwrap_or("missing");
                Err(self
                    .corrupt(0, format!("its format version is {version}, not {FORMAT_VERSION}")))
            }
        }
    }
}

impl Drop for SegmentHandle {
    fn drop(&mut self) {
        if *self.is_removed.get_mut() {
            self.store.footers.forget(&self.meta.path);
            self.store.unreferenced.lock().push(self.meta.path.clone());
        }
    }
}

fn unreadable(path: &str, source: object_store::Error) -> StorageError {
    match source {
        object_store::Error::NotFound { .. } => {
            let reason = "the file is missing".to_owned();
            StorageError::Corrupt { path: path.to_owned(), offset: 0, reason }
        }
        source => {
            StorageError::Io { action: "read", path: path.to_owned(), source: Box::new(source) }
        }
    }
}

/// What a segment says of its columns, row groups and pages.
#[derive(Debug)]
pub(crate) struct Footer {
    arrow: ArrowReaderMetadata,
    bytes: usize,
}

impl Footer {
    /// With the Arrow types of the columns.
    pub(crate) fn arrow(&self) -> &ArrowReaderMetadata {
        &self.arrow
    }

    /// As Parquet has it, page index included.
    pub(crate) fn parquet(&self) -> &ParquetMetaData {
        self.arrow.metadata()
    }

    /// Number of row groups.
    pub(crate) fn row_groups(&self) -> usize {
        self.parquet().num_row_groups()
    }

    /// Estimated memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Key of the tags of the first row of every row group, under the schema of the segment.
    pub(crate) fn first_tag_keys(&self) -> Option<Vec<Vec<u8>>> {
        let keys: Option<Vec<Vec<u8>>> =
            self.key_value(FIRST_TAG_KEYS_KEY)?.split(',').map(from_hex).collect();
        keys.filter(|keys| keys.len() == self.row_groups())
    }

    fn key_value(&self, key: &str) -> Option<&str> {
        let pairs = self.parquet().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}
