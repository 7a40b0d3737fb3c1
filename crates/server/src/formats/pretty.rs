//! A table for people.

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::{TextWriter, columns, names};

/// Draws a table once all rows are known.
pub(super) struct PrettyWriter {
    rows: Vec<Vec<String>>,
}

impl PrettyWriter {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        PrettyWriter { rows: vec![names(schema)] }
    }
}

impl TextWriter for PrettyWriter {
    fn write(&mut self, batch: &RecordBatch, _: &mut String) -> Result<(), ArrowError> {
        let columns = columns(batch)?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| {
                let mut text = String::new();
                column.text(row, &mut text);
                text
            });
            self.rows.push(cells.collect());
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut String) {
        if self.rows[0].is_empty() {
            // A statement without an answer.
            return;
        }
        let mut widths = vec![0; self.rows[0].len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        draw_line(&widths, out);
        for (at, row) in self.rows.iter().enumerate() {
            draw_row(row, &widths, out);
            if at == 0 {
                draw_line(&widths, out);
            }
        }
        if self.rows.len() > 1 {
            draw_line(&widths, out);
        }
    }
}

fn draw_line(widths: &[usize], out: &mut String) {
    for width in widths {
        out.push('+');
        out.extend(std::iter::repeat_n('-', width + 2));
    }
    out.push_str("+\n");
}

fn draw_row(row: &[String], widths: &[usize], out: &mut String) {
    for (cell, width) in row.iter().zip(widths) {
        out.push_str("| ");
        out.push_str(cell);
        out.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 1));
    }
    out.push_str("|\n");
}
