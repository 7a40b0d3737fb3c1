//! Rows to text: CSV, JSON, JSON lines, and a table for people.
//!
//! All of them print a value the same way: times as RFC 3339 in UTC with `Z` and no superfluous
//! fraction, dates as `2024-01-31`, floats as the shortest text that reads back to the same float
//! with at least one decimal (`30.0`), bytes in hexadecimal, structs and lists as compact JSON.
//! NULL is empty in CSV and `null` in JSON; JSON has no NaN or infinity, so they are `null` there.

mod column;
mod csv;
mod json;
mod pretty;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use column::Column;

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
}

impl Format {
    /// The format of that name: `json`, `jsonl`, `csv` or `pretty`.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "json" => Ok(Format::Json),
            "jsonl" => Ok(Format::JsonLines),
            "csv" => Ok(Format::Csv),
            "pretty" => Ok(Format::Pretty),
            _ => Err(format!("format {name:?} is not supported; use json, jsonl, csv or pretty")),
        }
    }

    /// The `Content-Type` of an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::JsonLines => "application/jsonl",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Pretty => "text/plain; charset=utf-8",
        }
    }

    /// A writer of rows with this schema.
    pub fn writer(self, schema: SchemaRef) -> Box<dyn RowWriter> {
        match self {
            Format::Json => Box::new(json::JsonWriter::array(&schema)),
            Format::JsonLines => Box::new(json::JsonWriter::lines(&schema)),
            Format::Csv => Box::new(csv::CsvWriter::new(&schema)),
            Format::Pretty => Box::new(pretty::PrettyWriter::new(&schema)),
        }
    }
}

/// Turns batches into text, bit by bit.
pub trait RowWriter: Send {
    /// Appends the rows of a batch, and before the first one whatever has to come first.
    ///
    /// # Errors
    /// A column of a type that has no text.
    fn write(&mut self, batch: &RecordBatch, out: &mut String) -> Result<(), ArrowError>;

    /// Appends whatever has to come last.
    fn finish(&mut self, out: &mut String);
}

fn columns(batch: &RecordBatch) -> Result<Vec<Column<'_>>, ArrowError> {
    batch.columns().iter().map(Column::new).collect()
}

fn names(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

#[cfg(test)]
mod tests;
