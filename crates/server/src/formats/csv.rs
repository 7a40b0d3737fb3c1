//! CSV: a header row, `\n` after every row, quotes only where they are needed.

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::{TextWriter, columns, names};

/// Writes CSV.
pub(super) struct CsvWriter {
    header: Option<Vec<String>>,
}

impl CsvWriter {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        CsvWriter { header: Some(names(schema)) }
    }

    fn write_header(&mut self, out: &mut String) {
        let Some(names) = self.header.take() else { return };
        for (at, name) in names.iter().enumerate() {
            separate(at, out);
            let start = out.len();
            out.push_str(name);
            quote_if_needed(start, out);
        }
        out.push('\n');
    }
}

impl TextWriter for CsvWriter {
    fn write(&mut self, batch: &RecordBatch, out: &mut String) -> Result<(), ArrowError> {
        self.write_header(out);
        let columns = columns(batch)?;
        for row in 0..batch.num_rows() {
            for (at, column) in columns.iter().enumerate() {
                separate(at, out);
                let start = out.len();
                column.text(row, out);
                // NULL is empty; in the only column it is quoted, or readers would skip the line.
                if !column.is_null(row) || columns.len() == 1 {
                    quote_if_needed(start, out);
                }
            }
            out.push('\n');
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut String) {
        self.write_header(out);
    }
}

fn separate(at: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
}

/// Quotes what was appended from `start`, if it is empty or holds a character that CSV uses.
fn quote_if_needed(start: usize, out: &mut String) {
    let text = &out[start..];
    if !text.is_empty() && !text.contains([',', '"', '\n', '\r']) {
        return;
    }
    let quoted = text.replace('"', "\"\"");
    out.truncate(start);
    out.push('"');
    out.push_str(&quoted);
    out.push('"');
}
