//! Parquet: what programs read without asking about types.

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::RowWriter;
use super::marks::with_marked_tags;

/// Rows of a row group; it is in memory until it is whole.
const GROUP_ROWS: usize = 256 << 10;
/// Encoded bytes of a row group, about.
const GROUP_BYTES: usize = 32 << 20;

/// Writes one Parquet file. It is none until it is finished: the schema stands at its end.
pub(super) struct ParquetWriter {
    schema: SchemaRef,
    /// None once it is finished.
    writer: Option<ArrowWriter<Vec<u8>>>,
}

impl ParquetWriter {
    /// # Errors
    /// A column of a type that Parquet does not have.
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let schema = SchemaRef::new(with_marked_tags(schema));
        let level = ZstdLevel::try_new(3).map_err(arrow_error)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_created_by(format!("highwater {}", env!("CARGO_PKG_VERSION")))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(&schema), Some(properties));
        Ok(ParquetWriter { schema, writer: Some(writer.map_err(arrow_error)?) })
    }
}

impl RowWriter for ParquetWriter {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let batch = RecordBatch::try_new(SchemaRef::clone(&self.schema), batch.columns().to_vec())?;
        if let Some(writer) = &mut self.writer {
            writer.write(&batch).map_err(arrow_error)?;
            writer.sync()?;
            out.append(writer.inner_mut());
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        if let Some(writer) = self.writer.take() {
            out.append(&mut writer.into_inner().map_err(arrow_error)?);
        }
        Ok(())
    }
}

fn arrow_error(error: ParquetError) -> ArrowError {
    ArrowError::ParquetError(error.to_string())
}
