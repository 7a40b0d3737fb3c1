//! Row objects: one array of them, or one per line. Every row has every column.

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::column::push_quoted;
use super::{TextWriter, columns, names};

/// Writes row objects.
pub(super) struct JsonWriter {
    /// The names, each in quotes and with a colon.
    keys: Vec<String>,
    in_array: bool,
    started: bool,
}

impl JsonWriter {
    /// All rows in one array.
    pub(super) fn array(schema: &SchemaRef) -> Self {
        JsonWriter { keys: keys(schema), in_array: true, started: false }
    }

    /// Every row in a line of its own.
    pub(super) fn lines(schema: &SchemaRef) -> Self {
        JsonWriter { keys: keys(schema), in_array: false, started: false }
    }

    fn start_row(&mut self, out: &mut String) {
        if self.in_array {
            out.push(if self.started { ',' } else { '[' });
        }
        self.started = true;
    }
}

fn keys(schema: &SchemaRef) -> Vec<String> {
    let key = |name: String| {
        let mut key = String::new();
        push_quoted(&name, &mut key);
        key.push(':');
        key
    };
    names(schema).into_iter().map(key).collect()
}

impl TextWriter for JsonWriter {
    fn write(&mut self, batch: &RecordBatch, out: &mut String) -> Result<(), ArrowError> {
        let columns = columns(batch)?;
        for row in 0..batch.num_rows() {
            self.start_row(out);
            out.push('{');
            for (at, (key, column)) in self.keys.iter().zip(&columns).enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(key);
                column.json(row, out);
            }
            out.push_str(if self.in_array { "}" } else { "}\n" });
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut String) {
        if self.in_array {
            out.push_str(if self.started { "]" } else { "[]" });
        }
    }
}
