//! Line protocol: the bytes of a write request to points in columns.
//!
//! `docs/line-protocol.md` is the grammar as clients see it. One pass over the body: each line
//! is read straight into the columns of its measurement, a broken line is undone and reported,
//! its neighbours stay. Nothing is allocated per point: the `measurement,tags` of a line is
//! interned by its bytes and parsed only where it is new in the request, and which tag set and
//! which field come next is guessed from the lines before.
//!
//! Reading order: [`precision`], `refusal`, `text`, `number`, `value`, `column`, `tags`,
//! `measurement`, `head`, `line_end`, `parser`.

mod column;
mod head;
pub mod line_end;
mod measurement;
mod number;
mod parser;
mod precision;
mod refusal;
mod tags;
mod text;
mod value;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use highwater_core::{PointBatch, Schema, Timestamp};

pub use precision::Precision;

/// What a request may contain; a line beyond a limit is refused, its neighbours are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in the name of a measurement, tag or field.
    pub name_bytes: usize,
    /// Bytes in the value of a tag.
    pub tag_value_bytes: usize,
    /// Bytes in a string field.
    pub string_bytes: usize,
    /// Tags of a measurement.
    pub tags: usize,
    /// Fields of a measurement.
    pub fields: usize,
    /// Measurements in one request.
    pub measurements: usize,
    /// Missing fields in one request: per line, the fields that other lines of its measurement
    /// have. They take memory without being sent, so a small body could ask for a lot of it.
    pub missing_fields: usize,
    /// Refused lines that are reported; further ones are only counted.
    pub reported: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            name_bytes: 1024,
            tag_value_bytes: 64 * 1024,
            string_bytes: 1024 * 1024,
            tags: 250,
            fields: 4000,
            measurements: 100_000,
            missing_fields: 32 * 1024 * 1024,
            reported: 10_000,
        }
    }
}

/// A line that was not understood or may not be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLine {
    /// Physical line of the body on which it starts, counted from 1.
    pub line: u32,
    /// Its text, invalid UTF-8 replaced, cut at 1 KiB.
    pub original: String,
    /// Why, as a sentence without a stop.
    pub reason: String,
}

/// A write request as points.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// One batch per measurement, in order of appearance; rows in order of arrival.
    pub batches: Vec<PointBatch>,
    /// The first refused lines, see [`Limits::reported`].
    pub refused: Vec<RefusedLine>,
    /// Number of all refused lines.
    pub refused_count: usize,
    /// Number of lines that are or should have been points: neither empty nor comments.
    pub lines: usize,
}

/// How to read the lines of one request.
pub struct Options<'a> {
    /// Unit of the times, and of integers in declared timestamp fields.
    pub precision: Precision,
    /// Time of the points without one.
    pub default_time: Timestamp,
    /// See [`Limits`].
    pub limits: &'a Limits,
    /// The stored schema of a measurement, asked for once per measurement. Types that are stored
    /// already win over the types of the request's first line, and integers written to fields
    /// declared as timestamps become times.
    pub schema_of: &'a dyn Fn(&str) -> Option<Arc<Schema>>,
}

/// Reads a body whose measurements are not known yet; see [`parse_with`].
pub fn parse(
    body: &[u8],
    precision: Precision,
    default_time: Timestamp,
    limits: &Limits,
) -> Parsed {
    parse_with(body, &Options { precision, default_time, limits, schema_of: &|_| None })
}

/// Reads a body. Never fails as a whole: what cannot be read is in [`Parsed::refused`].
///
/// After a refused line, reading goes on behind its end. A newline inside a well-formed quoted
/// string is data and no end; if some string of the refused line is broken, the line ends at the
/// first newline after its start, so that an unclosed quote swallows no neighbour.
///
/// # Panics
/// If the body has 4 GiB or more; limits on bodies are far below.
pub fn parse_with(body: &[u8], options: &Options<'_>) -> Parsed {
    parser::Parser::new(body, options).run()
}
