//! Rows to bytes: CSV, JSON, JSON lines, a table for people, and Parquet.
//!
//! All texts print a value the same way: times as RFC 3339 in UTC with `Z` and no superfluous
//! fraction, dates as `2024-01-31`, floats as the shortest text that reads back to the same float
//! with at least one decimal (`30.0`), bytes in hexadecimal, structs and lists as compact JSON.
//! NULL is empty in CSV and `null` in JSON; JSON has no NaN or infinity, so they are `null` there.

mod column;
mod csv;
mod json;
mod marks;
mod parquet;
mod pretty;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use column::Column;
pub use marks::is_marked_tag;

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One array of row objects.
    #[default]
    Json,
    /// One row object per line.
    JsonLines,
    /// A header row, then the rows.
    Csv,
    /// A table for people; held in memory until its widths are known.
    Pretty,
    /// A Parquet file, in row groups.
    Parquet,
}

impl Format {
    /// The format of that name: `json`, `jsonl`, `csv`, `pretty` or `parquet`.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "json" => Ok(Format::Json),
            "jsonl" => Ok(Format::JsonLines),
            "csv" => Ok(Format::Csv),
            "pretty" => Ok(Format::Pretty),
            "parquet" => Ok(Format::Parquet),
            _ => Err(format!(
                "format {name:?} is not supported; use json, jsonl, csv, pretty or parquet"
            )),
        }
    }

    /// The `Content-Type` of an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::JsonLines => "application/jsonl",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Pretty => "text/plain; charset=utf-8",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// A writer of rows with this schema.
    ///
    /// # Errors
    /// A column of a type that the format does not have.
    pub fn writer(self, schema: SchemaRef) -> Result<Box<dyn RowWriter>, ArrowError> {
        Ok(match self {
            Format::Json => Text::boxed(json::JsonWriter::array(&schema)),
            Format::JsonLines => Text::boxed(json::JsonWriter::lines(&schema)),
            Format::Csv => Text::boxed(csv::CsvWriter::new(&schema)),
            Format::Pretty => Text::boxed(pretty::PrettyWriter::new(&schema)),
            Format::Parquet => Box::new(parquet::ParquetWriter::new(&schema)?),
        })
    }
}

/// Turns batches into bytes, bit by bit.
pub trait RowWriter: Send {
    /// Appends the rows of a batch, or holds them back, and before the first one whatever has to
    /// come first.
    ///
    /// # Errors
    /// A column of a type that the format does not have.
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError>;

    /// Appends what was held back and whatever has to come last.
    ///
    /// # Errors
    /// Rows that were held back cannot be written.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError>;
}

/// Turns batches into text, bit by bit; see [`RowWriter`].
trait TextWriter: Send {
    fn write(&mut self, batch: &RecordBatch, out: &mut String) -> Result<(), ArrowError>;

    fn finish(&mut self, out: &mut String);
}

/// Text as bytes.
struct Text<W> {
    writer: W,
    /// Empty between calls; it keeps its room.
    text: String,
}

impl<W: TextWriter + 'static> Text<W> {
    fn boxed(writer: W) -> Box<dyn RowWriter> {
        Box::new(Text { writer, text: String::new() })
    }

    fn hand_out(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text.as_bytes());
        self.text.clear();
    }
}

impl<W: TextWriter + 'static> RowWriter for Text<W> {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let written = self.writer.write(batch, &mut self.text);
        self.hand_out(out);
        written
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.writer.finish(&mut self.text);
        self.hand_out(out);
        Ok(())
    }
}

fn columns(batch: &RecordBatch) -> Result<Vec<Column<'_>>, ArrowError> {
    batch.columns().iter().map(Column::new).collect()
}

fn names(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

#[cfg(test)]
mod tests;
