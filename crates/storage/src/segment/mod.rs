//! Segments: immutable Parquet files, each over one or more UTC days of one measurement.
//!
//! Reading order: [`tag_keys`] and [`sort`] define the order of rows, [`windows`] says which days
//! share a segment, [`writer`] encodes them, [`store`] keeps the files or, by their [`medium`], just the bytes, and [`checksums`] tell
//! whether they are sound, [`reader`] reads what [`prune`] leaves, [`blocks`] that
//! were decoded are kept for a while, those of [`resident`] segments as long as they live, [`last_points`] are kept ready.

mod blocks;
mod bounds;
mod cache;
mod checksums;
mod damage;
mod describe;
mod footer;
pub(crate) mod last_points;
mod medium;
mod path;
mod prune;
pub(crate) mod reader;
mod resident;
mod row_ranges;
pub(crate) mod selection;
pub(crate) mod sort;
mod store;
pub(crate) mod tag_keys;
#[cfg(test)]
pub(crate) mod test_rows;
#[cfg(test)]
mod tests;
mod verify;
pub(crate) mod windows;
pub(crate) mod writer;

use std::sync::Arc;

use highwater_core::{SequenceNumber, TimeRange};
use serde::{Deserialize, Serialize};

pub(crate) use describe::describe_segment;
pub(crate) use last_points::LastPoints;
pub use medium::Medium;
pub(crate) use path::{SEGMENTS_FOLDER, file_number, is_in_memory};
pub(crate) use reader::SegmentReader;
pub(crate) use selection::Selection;
pub(crate) use store::{Removal, SegmentHandle, SegmentShape, SegmentStore};
pub(crate) use verify::verify;
pub(crate) use writer::{EncodedSegment, ROW_GROUP_ROWS};

/// What the manifest knows of a segment: enough to prune without opening it.
///
/// A segment's rows are sorted by `(tags in schema order, NULL first; time)` and hold every
/// (series, `time`) at most once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentMeta {
    /// Path relative to the data folder: `segments/<database>/<measurement>/<day>/<id>.parquet`,
    /// names percent-encoded; `memory/..` if it is in memory alone.
    pub path: String,
    /// Size of the file.
    pub bytes: u64,
    /// Where its footer begins; pages are before it, the indexes of pages in it.
    pub footer_at: u64,
    /// CRC-32C of the footer, which holds checksums of everything before it.
    pub footer_crc: u32,
    /// Number of rows.
    pub rows: u64,
    /// Times of the rows: first, and one past the last.
    pub times: TimeRange,
    /// Sequence of the oldest commit with a row in here.
    pub min_seq: SequenceNumber,
    /// Sequence of the newest commit with a row in here, or of a newer tombstone that compaction
    /// has put into effect. Segments of one measurement of points that overlap in time never
    /// overlap in `[min_seq, max_seq]`, so they are ordered by age.
    pub max_seq: SequenceNumber,
    /// Smallest and greatest value per tag, in the order of the schema when it was written.
    pub tags: Vec<TagBounds>,
}

/// Bounds of one tag's values within a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagBounds {
    /// Name of the tag.
    pub tag: Arc<str>,
    /// Smallest and greatest value that is not NULL; `None` if all are NULL.
    pub values: Option<(String, String)>,
    /// Whether some row lacks the tag.
    pub has_null: bool,
}
