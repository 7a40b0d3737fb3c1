//! Writing a segment: sorted rows to the bytes of one Parquet file.
//!
//! `docs/format/segments.md` describes the result.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{ColumnRole, FieldType, MeasurementId, Schema, SequenceNumber, TimeRange};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::blocks::block_rows;
use super::bounds::Bounds;
use super::checksums::BlockChecksums;
use super::sort::times_of;
use super::tag_keys::TagColumns;
use super::{SegmentMeta, TagBounds};
use crate::error::StorageError;
use crate::parallel;

/// Rows per row group; only the last one of a file has fewer.
pub(crate) const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Tags stay dictionaries up to this size per row group.
const TAG_DICTIONARY_BYTES: usize = 8 << 20;
const COMPRESSION_LEVEL: i32 = 1;

/// Version of the format of segments, stored under [`FORMAT_KEY`].
pub(crate) const FORMAT_VERSION: &str = "2";
/// Key of the format's version in a segment's key-value metadata.
pub(crate) const FORMAT_KEY: &str = "highwater.format";
/// Key of the hexadecimal tag keys of the first row of every row group, parted by commas.
pub(crate) const FIRST_TAG_KEYS_KEY: &str = "highwater.first_tag_keys";
/// Key of the checksums of the blocks before the footer.
pub(super) const BLOCK_CHECKSUMS_KEY: &str = "highwater.block_checksums";

/// The bytes of a segment that is not stored yet, and what the manifest needs to know.
#[derive(Clone, Debug)]
pub(crate) struct EncodedSegment {
    pub(crate) path: String,
    pub(crate) bytes: Bytes,
    pub(crate) footer_at: usize,
    pub(crate) rows: u64,
    pub(crate) times: TimeRange,
    pub(crate) tags: Vec<TagBounds>,
}

impl EncodedSegment {
    /// What the manifest says once the segment is stored.
    pub(crate) fn meta(&self, min_seq: SequenceNumber, max_seq: SequenceNumber) -> SegmentMeta {
        SegmentMeta {
            path: self.path.clone(),
            bytes: self.bytes.len() as u64,
            footer_at: self.footer_at as u64,
            footer_crc: crc32c::crc32c(&self.bytes[self.footer_at..]),
            rows: self.rows,
            times: self.times,
            min_seq,
            max_seq,
            tags: self.tags.clone(),
        }
    }
}

/// Encodes one segment in memory, its columns side by side.
pub(crate) struct SegmentWriter {
    path: String,
    schema: Arc<Schema>,
    row_group_rows: usize,
    parquet: SerializedFileWriter<Vec<u8>>,
    row_groups: ArrowRowGroupWriterFactory,
    /// The columns of the row group that is being written; none between two of them.
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
    bounds: Bounds,
    first_tag_keys: Vec<String>,
}

impl SegmentWriter {
    /// A writer of rows of `schema`, for a segment that will be at `path`, with
    /// [`ROW_GROUP_ROWS`] rows per row group but in tests.
    ///
    /// # Errors
    /// [`StorageError::Parquet`] if the schema cannot be stored.
    pub(crate) fn new(
        path: String,
        id: &MeasurementId,
        schema: &Arc<Schema>,
        row_group_rows: usize,
    ) -> Result<Self, StorageError> {
        let properties = properties(id, schema, row_group_rows);
        let (parquet, row_groups) =
            ArrowWriter::try_new(Vec::new(), schema.arrow(), Some(properties))
                .and_then(ArrowWriter::into_serialized_writer)
                .map_err(|source| failed(&path, source))?;
        Ok(SegmentWriter {
            path,
            schema: Arc::clone(schema),
            row_group_rows,
            parquet,
            row_groups,
            columns: Vec::new(),
            rows: 0,
            bounds: Bounds::new(schema),
            first_tag_keys: Vec::new(),
        })
    }

    /// Appends rows of `schema.arrow()`, which must follow the rows before in `(tags, time)`. Takes processor time, so call it where that is no harm.
    ///
    /// # Errors
    /// [`StorageError::Parquet`] if they cannot be encoded, [`StorageError::Invalid`] if columns
    /// are missing.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), StorageError> {
        let tags = TagColumns::of(&self.schema, batch)?;
        self.bounds.add(times_of(batch)?, &tags);
        let until_next_group = self.rows.next_multiple_of(self.row_group_rows) - self.rows;
        for row in (until_next_group..batch.num_rows()).step_by(self.row_group_rows) {
            let mut key = Vec::new();
            tags.append_key(row, &mut key);
            self.first_tag_keys.push(to_hex(&key));
        }
        let mut written = 0;
        while written < batch.num_rows() {
            let free = self.row_group_rows - self.rows % self.row_group_rows;
            let rows = free.min(batch.num_rows() - written);
            self.write_columns(&batch.slice(written, rows))?;
            written += rows;
            self.rows += rows;
            if rows == free {
                self.close_row_group()?;
            }
        }
        Ok(())
    }

    /// Appends rows to the row group.
    fn write_columns(&mut self, rows: &RecordBatch) -> Result<(), StorageError> {
        if self.columns.is_empty() {
            let group = self.parquet.flushed_row_groups().len();
            let columns = self.row_groups.create_column_writers(group);
            self.columns = columns.map_err(|source| failed(&self.path, source))?;
        }
        let schema = self.schema.arrow();
        let columns = std::mem::take(&mut self.columns).into_iter();
        let parts: Vec<_> = columns.zip(schema.fields()).zip(rows.columns()).collect();
        let values = rows.num_rows() * parts.len();
        let path = &self.path;
        self.columns = parallel::map(parts, values, |((mut column, field), values)| {
            let leaves = compute_leaves(field, values);
            let written = leaves.and_then(|all| all.iter().try_for_each(|leaf| column.write(leaf)));
            written.map(|()| column).map_err(|source| failed(path, source))
        })?;
        Ok(())
    }

    fn close_row_group(&mut self) -> Result<(), StorageError> {
        let columns = std::mem::take(&mut self.columns);
        let values = self.row_group_rows * columns.len();
        let path = &self.path;
        let closed = parallel::map(columns, values, |column| {
            column.close().map_err(|source| failed(path, source))
        })?;
        let failed = |source| failed(path, source);
        let mut group = self.parquet.next_row_group().map_err(failed)?;
        for column in closed {
            column.append_to_row_group(&mut group).map_err(failed)?;
        }
        group.close().map_err(failed)?;
        Ok(())
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The finished segment.
    ///
    /// # Errors
    /// [`StorageError::Parquet`] if the last rows cannot be encoded.
    ///
    /// # Panics
    /// If there are no rows.
    pub(crate) fn finish(mut self) -> Result<EncodedSegment, StorageError> {
        let times = self.bounds.times();
        assert!(!times.is_empty(), "a segment without rows");
        if !self.columns.is_empty() {
            self.close_row_group()?;
        }
        let footer_at = self.describe_data()?;
        let SegmentWriter { path, parquet, rows, bounds, .. } = self;
        let bytes = parquet.into_inner().map_err(|source| failed(&path, source))?;
        let (bytes, rows, tags) = (bytes.into(), rows as u64, bounds.into_tags());
        Ok(EncodedSegment { path, bytes, footer_at, rows, times, tags })
    }

    /// Puts what only a complete segment knows into the footer, and returns where that begins.
    fn describe_data(&mut self) -> Result<usize, StorageError> {
        let flushed = self.parquet.flush().map_err(ParquetError::from);
        flushed.map_err(|source| failed(&self.path, source))?;
        let data = self.parquet.inner();
        let (footer_at, checksums) = (data.len(), BlockChecksums::of(data).to_hex());
        let keys = self.first_tag_keys.join(",");
        for (key, value) in [(FIRST_TAG_KEYS_KEY, keys), (BLOCK_CHECKSUMS_KEY, checksums)] {
            self.parquet.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        Ok(footer_at)
    }
}

fn failed(path: &str, source: ParquetError) -> StorageError {
    StorageError::Parquet { path: path.to_owned(), source }
}

fn properties(id: &MeasurementId, schema: &Schema, row_group_rows: usize) -> WriterProperties {
    let level = ZstdLevel::try_new(COMPRESSION_LEVEL).expect("a level that zstd has");
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_created_by(concat!("highwater ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_data_page_row_count_limit(block_rows(&schema.arrow()))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(Some(sorting_columns(schema)))
        .set_key_value_metadata(Some(vec![
            KeyValue::new(FORMAT_KEY.to_owned(), FORMAT_VERSION.to_owned()),
            KeyValue::new("highwater.database".to_owned(), id.database.to_string()),
            KeyValue::new("highwater.measurement".to_owned(), id.measurement.to_string()),
        ]));
    let time = ColumnPath::from(TIME_COLUMN);
    properties = properties
        .set_column_encoding(time.clone(), Encoding::DELTA_BINARY_PACKED)
        .set_column_statistics_enabled(time, EnabledStatistics::Page);
    for column in schema.columns() {
        let path = ColumnPath::new(vec![column.name.to_string()]);
        properties = match column.role {
            ColumnRole::Tag => properties
                .set_column_dictionary_enabled(path.clone(), true)
                .set_column_dictionary_page_size_limit(path.clone(), TAG_DICTIONARY_BYTES)
                .set_column_statistics_enabled(path, EnabledStatistics::Page),
            ColumnRole::Field(field_type) => with_field(properties, path, field_type),
        };
    }
    properties.build()
}

fn with_field(
    properties: WriterPropertiesBuilder,
    path: ColumnPath,
    field_type: FieldType,
) -> WriterPropertiesBuilder {
    match field_type {
        FieldType::Integer | FieldType::Unsigned | FieldType::Timestamp => {
            properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
        }
        FieldType::Float => properties.set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT),
        FieldType::Boolean => properties.set_column_encoding(path, Encoding::RLE),
        FieldType::String => properties.set_column_dictionary_enabled(path, true),
        // Written and read much more often than kept, unlike points.
        FieldType::Partial => properties
            .set_column_encoding(path.clone(), Encoding::PLAIN)
            .set_column_compression(path.clone(), Compression::LZ4_RAW)
            .set_column_statistics_enabled(path, EnabledStatistics::None),
    }
}

/// Tags in their order, NULL first, then `time`; the file's first column is `time`.
fn sorting_columns(schema: &Schema) -> Vec<SortingColumn> {
    let ascending = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: true };
    let tags = (1..=schema.tags().len()).map(|at| ascending(at as i32));
    tags.chain([ascending(0)]).collect()
}

/// Two hexadecimal digits per byte.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
