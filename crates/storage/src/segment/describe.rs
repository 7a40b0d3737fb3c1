//! What a segment says of itself, for people who look into a data folder.

use std::fmt::Write;

use bytes::Bytes;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{TimeRange, Timestamp};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::statistics::Statistics;

use super::checksums::{BlockChecksums, DamagedBlock};
use super::footer::value_of;
use super::writer::{BLOCK_CHECKSUMS_KEY, FORMAT_KEY};
use crate::error::StorageError;

/// Describes a segment, a line per fact, and checks the checksums of its data; `name` is for
/// messages.
///
/// # Errors
/// [`StorageError::Parquet`] if its footer cannot be read.
pub(crate) fn describe_segment(name: &str, bytes: &Bytes) -> Result<String, StorageError> {
    let failed = |source| StorageError::Parquet { path: name.to_owned(), source };
    let metadata = ParquetMetaDataReader::new().parse_and_finish(bytes).map_err(failed)?;
    describe(&metadata, bytes).map_err(|_| failed(ParquetError::General("no text".to_owned())))
}

fn describe(metadata: &ParquetMetaData, bytes: &Bytes) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let file = metadata.file_metadata();
    let pairs = file.key_value_metadata();
    let value = |key| value_of(pairs, key).unwrap_or("?");
    writeln!(
        text,
        "rows of {}.{}, format {}, written by {}",
        value("highwater.database"),
        value("highwater.measurement"),
        value(FORMAT_KEY),
        file.created_by().unwrap_or("?"),
    )?;
    let (rows, groups) = (file.num_rows(), metadata.num_row_groups());
    writeln!(text, "{rows} rows in {groups} row groups, {} bytes", bytes.len())?;
    if let Some(times) = times(metadata) {
        writeln!(text, "times {times}")?;
    }
    for column in 0..file.schema_descr().num_columns() {
        let chunks = || metadata.row_groups().iter().map(|group| group.column(column));
        let stored: i64 = chunks().map(|chunk| chunk.compressed_size()).sum();
        let name = file.schema_descr().column(column).path().string();
        writeln!(text, "column {name}: {stored} bytes")?;
    }
    writeln!(text, "{}", blocks(metadata, pairs, bytes))?;
    Ok(text)
}

fn times(metadata: &ParquetMetaData) -> Option<TimeRange> {
    let mut times: Option<TimeRange> = None;
    for group in metadata.row_groups() {
        let time =
            group.columns().iter().find(|chunk| chunk.column_path().string() == TIME_COLUMN)?;
        let Statistics::Int64(statistics) = time.statistics()? else { return None };
        let first = Timestamp::from_nanos(*statistics.min_opt()?);
        let end = Timestamp::from_nanos(*statistics.max_opt()?).saturating_add(1);
        let all = times.unwrap_or(TimeRange::new(first, end));
        times = Some(TimeRange::new(all.start.min(first), all.end.max(end)));
    }
    times
}

/// Whether the bytes before the footer are those that were written.
fn blocks(metadata: &ParquetMetaData, pairs: Option<&Vec<KeyValue>>, bytes: &Bytes) -> String {
    let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    let ends = chunks.map(|chunk| {
        let (start, length) = chunk.byte_range();
        start.saturating_add(length)
    });
    let end = ends.max().unwrap_or(0);
    let checksums = value_of(pairs, BLOCK_CHECKSUMS_KEY)
        .and_then(|text| BlockChecksums::from_hex(text, end))
        .zip(usize::try_from(end).ok().and_then(|end| bytes.get(..end)));
    match checksums.map(|(checksums, data)| checksums.check(0, data)) {
        Some(Ok(())) => "checksums of the data match".to_owned(),
        Some(Err(DamagedBlock { offset })) => {
            format!("damaged: the checksum of the block at byte {offset} does not match")
        }
        None => "there are no checksums that fit the data".to_owned(),
    }
}
