//! The segments of an engine: their files, parsed footers, and when a file may go.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use bytes::Bytes;
use highwater_core::{MeasurementId, Schema, Timestamp};
use parking_lot::{Mutex, RwLock};
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataPushDecoder};
use tracing::warn;

use super::SegmentMeta;
use super::blocks::Blocks;
use super::cache::PerSegment;
use super::checksums::{BlockChecksums, DamagedBlock};
use super::damage::DamagedSegments;
use super::footer::{Footer, value_of};
use super::last_points::{self, LastPoints};
use super::medium::{Medium, SegmentsInMemory};
use super::path::{is_in_memory, segment_path};
use super::resident::ResidentRows;
use super::sort::{sort_rows, split_by_window};
use super::writer::{
    BLOCK_CHECKSUMS_KEY, EncodedSegment, FORMAT_KEY, FORMAT_VERSION, ROW_GROUP_ROWS, SegmentWriter,
};
use crate::error::StorageError;
use crate::file_store::{FileStore, PutKind, object_path, run_blocking};
use crate::parallel::concat_rows;
use crate::quarantine::set_aside;

/// Memory for footers of one engine.
const FOOTER_BYTES: usize = 64 << 20;

/// The files of all segments, shared by all who read and write them.
#[derive(Debug)]
pub(crate) struct SegmentStore {
    files: Arc<FileStore>,
    in_memory: SegmentsInMemory,
    footers: PerSegment<Footer>,
    last_points: PerSegment<LastPoints>,
    blocks: Blocks,
    next_file: AtomicU64,
    shape: SegmentShape,
    damaged: DamagedSegments,
    /// Bytes of all segments written since the start.
    written_bytes: AtomicU64,
    /// Files of removed segments that no reader needs any more.
    unreferenced: Mutex<Vec<String>>,
    /// The same of segments that were given up.
    given_up: Mutex<Vec<String>>,
}

/// What becomes of the file of a segment that is not live any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is deleted.
    Delete,
    /// It is kept in another folder.
    Keep,
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
            in_memory: SegmentsInMemory::default(),
            footers: PerSegment::new(FOOTER_BYTES),
            last_points: PerSegment::new(last_points::CACHE_BYTES),
            blocks: Blocks::default(),
            next_file: AtomicU64::new(next_file),
            shape,
            damaged: DamagedSegments::default(),
            written_bytes: AtomicU64::new(0),
            unreferenced: Mutex::default(),
            given_up: Mutex::default(),
        })
    }

    /// Live segments that were found to be damaged.
    pub(crate) fn damaged(&self) -> &DamagedSegments {
        &self.damaged
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
        medium: Medium,
    ) -> Result<SegmentWriter, StorageError> {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let path = segment_path(id, day, number, medium);
        SegmentWriter::new(path, id, schema, self.shape.row_group_rows)
    }

    /// Stores an encoded segment in its medium, durably unless that is memory.
    ///
    /// # Errors
    /// [`StorageError::Io`] if that fails.
    pub(crate) async fn put(
        &self,
        segment: &EncodedSegment,
        medium: Medium,
    ) -> Result<(), StorageError> {
        if medium == Medium::Memory {
            self.in_memory.put(&segment.path, &segment.bytes);
            return Ok(());
        }
        self.files.put(&segment.path, segment.bytes.clone(), PutKind::Create).await?;
        self.files.keep_copy(&segment.path, segment.bytes.clone()).await;
        self.written_bytes.fetch_add(segment.bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// From now on new rows do not go to memory if that would take more than this. Compaction is
    /// free to, as it gives back more than it takes.
    pub(crate) fn limit_memory(&self, most_bytes: u64) {
        self.in_memory.limit(most_bytes);
    }

    /// What segments in memory take.
    pub(crate) fn bytes_in_memory(&self) -> u64 {
        self.in_memory.bytes()
    }

    /// Forgets a segment in memory; `false` if this names a file.
    pub(crate) fn forget_in_memory(&self, path: &str) -> bool {
        let is_in_memory = is_in_memory(path);
        if is_in_memory {
            self.in_memory.remove(path);
        }
        is_in_memory
    }

    /// Bytes of all segments written since the start.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Stores rows of `schema.arrow()` in any order as segments, one per window of days with
    /// rows, windows ascending. The rows must not hold an identity twice unless the measurement allows it.
    ///
    /// # Errors
    /// [`StorageError::Io`] if a file cannot be written, [`StorageError::Invalid`] if columns are
    /// missing, [`StorageError::Arrow`] or [`StorageError::Parquet`] if they do not fit together,
    /// [`StorageError::NoRoomInMemory`].
    pub(crate) async fn write_rows(
        self: &Arc<Self>,
        id: &MeasurementId,
        schema: &Arc<Schema>,
        batches: Vec<RecordBatch>,
        medium: Medium,
    ) -> Result<Vec<EncodedSegment>, StorageError> {
        let (store, id, schema) = (Arc::clone(self), id.clone(), Arc::clone(schema));
        let encode = move || store.encode_rows(&id, &schema, &batches, medium);
        let segments = run_blocking(encode).await?;
        if medium == Medium::Memory {
            self.in_memory.check_room(segments.iter().map(|one| one.bytes.len() as u64).sum())?;
        }
        for segment in &segments {
            self.put(segment, medium).await?;
        }
        Ok(segments)
    }

    fn encode_rows(
        &self,
        id: &MeasurementId,
        schema: &Arc<Schema>,
        batches: &[RecordBatch],
        medium: Medium,
    ) -> Result<Vec<EncodedSegment>, StorageError> {
        let rows = concat_rows(&schema.arrow(), batches)?;
        let mut segments = Vec::new();
        for (day, rows) in split_by_window(&sort_rows(schema, &rows)?, self.window_rows())? {
            let mut writer = self.writer(id, day, schema, medium)?;
            writer.write(&rows)?;
            segments.push(writer.finish()?);
        }
        Ok(segments)
    }

    /// A handle to a segment that is stored. There should be one per segment.
    pub(crate) fn handle(self: &Arc<Self>, meta: Arc<SegmentMeta>) -> Arc<SegmentHandle> {
        let store = Arc::clone(self);
        Arc::new(SegmentHandle {
            meta,
            store,
            removal: OnceLock::new(),
            resident: RwLock::default(),
        })
    }

    /// Deletes the files of removed segments whose last handle is gone, and says how many. If some
    /// cannot be deleted all are tried again by the next call. Those that were given up are kept
    /// elsewhere.
    pub(crate) async fn delete_unreferenced(&self) -> usize {
        self.set_aside_given_up().await;
        let paths = std::mem::take(&mut *self.unreferenced.lock());
        match self.files.delete_all(&paths).await {
            Ok(()) => paths.len(),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(segments = paths.len(), error, "could not delete removed segments");
                self.unreferenced.lock().extend(paths);
                0
            }
        }
    }

    async fn set_aside_given_up(&self) {
        let paths = std::mem::take(&mut *self.given_up.lock());
        for path in paths {
            if !set_aside(&self.files, &path).await {
                self.given_up.lock().push(path);
            }
        }
    }
}

/// A live segment: what the manifest says of it, and the way to its file.
///
/// The file stays as long as a handle does, even when the segment has been removed meanwhile.
#[derive(Debug)]
pub(crate) struct SegmentHandle {
    meta: Arc<SegmentMeta>,
    store: Arc<SegmentStore>,
    removal: OnceLock<Removal>,
    pub(super) resident: RwLock<Option<Arc<ResidentRows>>>,
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
    /// [`SegmentStore::delete_unreferenced`] does this with the file.
    pub(crate) fn mark_removed(&self, removal: Removal) {
        self.removal.get_or_init(|| removal);
    }

    /// The next reader reads the file itself, not what is kept of it in memory or in a copy.
    pub(crate) fn forget_cached(&self) {
        self.let_go();
        self.store.footers.forget(&self.meta.path);
        self.store.last_points.forget(&self.meta.path);
        self.store.blocks.forget(&self.meta.path);
        self.store.files.forget_copy(&self.meta.path);
    }

    /// Decoded blocks, of all segments.
    pub(super) fn blocks(&self) -> &Blocks {
        &self.store.blocks
    }

    /// The footer, from the cache if it is there.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] or [`StorageError::Parquet`] if the file is missing, has not its
    /// size, is damaged or has an unknown format; [`StorageError::Io`] if it cannot be read.
    pub(crate) async fn footer(&self) -> Result<Arc<Footer>, StorageError> {
        if let Some(rows) = self.resident() {
            return Ok(Arc::clone(rows.footer()));
        }
        if let Some(footer) = self.store.footers.get(&self.meta.path) {
            return Ok(footer);
        }
        let footer = Arc::new(self.load_footer().await?);
        self.store.footers.put(&self.meta.path, Arc::clone(&footer), footer.bytes);
        Ok(footer)
    }

    /// The last points of every series, kept from the first time on. The segment is one of a
    /// measurement with this schema.
    ///
    /// # Errors
    /// See [`SegmentReader::next`](super::SegmentReader::next).
    pub(crate) async fn last_points(
        self: &Arc<Self>,
        schema: &Arc<Schema>,
    ) -> Result<Arc<LastPoints>, StorageError> {
        if let Some(last) = self.store.last_points.get(&self.meta.path) {
            return Ok(last);
        }
        let last = Arc::new(LastPoints::read(self, schema).await?);
        self.store.last_points.put(&self.meta.path, Arc::clone(&last), last.bytes());
        Ok(last)
    }

    /// Parts of the file before its footer, checked.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if the file is missing or a checksum does not match,
    /// [`StorageError::Io`] if it cannot be read.
    pub(crate) async fn fetch_data(
        &self,
        footer: &Footer,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, StorageError> {
        let beyond = || self.corrupt(self.meta.footer_at, "a page is behind the data".to_owned());
        let around = ranges.iter().map(|range| footer.checksums.around(range).ok_or_else(beyond));
        let around = around.collect::<Result<Vec<Range<u64>>, StorageError>>()?;
        let is_sound = |blocks: &[Bytes]| {
            let mut pairs = around.iter().zip(blocks);
            pairs.try_for_each(|(around, bytes)| footer.checksums.check(around.start, bytes))
        };
        let blocks =
            self.fetch_sound(&around, is_sound).await?.map_err(|DamagedBlock { offset }| {
                self.corrupt(offset, "a checksum does not match".to_owned())
            })?;
        let parts =
            ranges.iter().zip(around.iter().zip(&blocks)).map(|(range, (around, bytes))| {
                let within = |at: u64| (at - around.start) as usize;
                bytes.slice(within(range.start)..within(range.end))
            });
        Ok(parts.collect())
    }

    /// Fetches ranges that have to be sound; if they are not, and may have come from a copy, once
    /// more. Whether they did come from one is not asked, as another reader may have thrown it
    /// away meanwhile.
    async fn fetch_sound<D>(
        &self,
        ranges: &[Range<u64>],
        is_sound: impl Fn(&[Bytes]) -> Result<(), D>,
    ) -> Result<Result<Vec<Bytes>, D>, StorageError> {
        let found = self.fetch(ranges).await?;
        match is_sound(&found) {
            Ok(()) => return Ok(Ok(found)),
            Err(damage) if !self.store.files.forget_copy(&self.meta.path) => {
                return Ok(Err(damage));
            }
            Err(_) => {
                let path = &self.meta.path;
                warn!(path, "a segment or the copy of it is damaged, and is fetched again");
            }
        }
        let found = self.fetch(ranges).await?;
        Ok(is_sound(&found).map(|()| found))
    }

    async fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StorageError> {
        if let Some(parts) = self.store.in_memory.ranges(&self.meta.path, ranges) {
            return Ok(parts);
        }
        let location = object_path(&self.meta.path)?;
        let files = &self.store.files;
        let found = files.segment_ranges(&location, self.meta.bytes, ranges).await;
        let found = found.map_err(|source| self.unreadable(source))?;
        let is_whole =
            |(bytes, range): (&Bytes, &Range<u64>)| bytes.len() as u64 == range.end - range.start;
        match found.iter().zip(ranges).find(|pair| !is_whole(*pair)) {
            None => Ok(found),
            Some((_, range)) => Err(self.corrupt(range.start, "the file ends early".to_owned())),
        }
    }

    fn unreadable(&self, source: object_store::Error) -> StorageError {
        match source {
            object_store::Error::NotFound { .. } => {
                self.corrupt(0, "the file is missing".to_owned())
            }
            source => {
                let path = self.meta.path.clone();
                StorageError::Io { action: "read", path, source: Box::new(source) }
            }
        }
    }

    /// The error that says that the file cannot be decoded.
    pub(crate) fn damaged(&self, source: ParquetError) -> StorageError {
        self.noted(StorageError::Parquet { path: self.meta.path.clone(), source })
    }

    /// The error that says what is wrong with the file.
    pub(crate) fn corrupt(&self, offset: u64, reason: String) -> StorageError {
        self.noted(StorageError::Corrupt { path: self.meta.path.clone(), offset, reason })
    }

    fn noted(&self, damage: StorageError) -> StorageError {
        self.store.damaged.note(&self.meta.path, &damage);
        damage
    }

    async fn load_footer(&self) -> Result<Footer, StorageError> {
        let SegmentMeta { bytes: expected, footer_at, footer_crc, .. } = *self.meta;
        let size = match self.store.in_memory.get(&self.meta.path) {
            Some(bytes) => bytes.len() as u64,
            None => {
                let location = object_path(&self.meta.path)?;
                let found = self.store.files.segment_size(&location, expected).await;
                found.map_err(|source| self.unreadable(source))?
            }
        };
        if size != expected {
            return Err(self.corrupt(size, format!("it has {size} bytes instead of {expected}")));
        }
        let range = footer_at..size;
        let is_sound = |bytes: &[Bytes]| {
            let differs = bytes.iter().any(|bytes| crc32c::crc32c(bytes) != footer_crc);
            if differs { Err("the checksum of the footer does not match") } else { Ok(()) }
        };
        let bytes = self.fetch_sound(std::slice::from_ref(&range), is_sound).await?;
        let bytes = bytes.map_err(|reason| self.corrupt(footer_at, reason.to_owned()))?;
        let decode = || {
            let mut decoder = ParquetMetaDataPushDecoder::try_new(size)?;
            decoder.push_ranges(vec![range], bytes)?;
            decoder.try_decode()
        };
        match decode().map_err(|e| self.damaged(e))? {
            DecodeResult::Data(metadata) => self.checked_footer(metadata),
            DecodeResult::NeedsData(_) | DecodeResult::Finished => {
                Err(self.corrupt(footer_at, "the footer is incomplete".to_owned()))
            }
        }
    }

    fn checked_footer(&self, metadata: ParquetMetaData) -> Result<Footer, StorageError> {
        let bytes = metadata.memory_size();
        let arrow = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(|e| self.damaged(e))?;
        let pairs = arrow.metadata().file_metadata().key_value_metadata();
        match value_of(pairs, FORMAT_KEY) {
            Some(FORMAT_VERSION) => {}
            version => {
                let version = version.unwrap_or("missing");
                let reason = format!("its format version is {version}, not {FORMAT_VERSION}");
                return Err(self.corrupt(self.meta.footer_at, reason));
            }
        }
        let checksums = value_of(pairs, BLOCK_CHECKSUMS_KEY)
            .and_then(|text| BlockChecksums::from_hex(text, self.meta.footer_at));
        match checksums {
            Some(checksums) => Ok(Footer { bytes: bytes + checksums.memory(), arrow, checksums }),
            None => {
                let reason = "the checksums of its blocks are missing".to_owned();
                Err(self.corrupt(self.meta.footer_at, reason))
            }
        }
    }
}

impl Drop for SegmentHandle {
    fn drop(&mut self) {
        let Some(removal) = self.removal.get() else { return };
        self.store.footers.forget(&self.meta.path);
        self.store.last_points.forget(&self.meta.path);
        self.store.blocks.forget(&self.meta.path);
        self.store.damaged.forget(&self.meta.path);
        if self.store.forget_in_memory(&self.meta.path) {
            return;
        }
        let files = match removal {
            Removal::Delete => &self.store.unreferenced,
            Removal::Keep => &self.store.given_up,
        };
        files.lock().push(self.meta.path.clone());
    }
}
