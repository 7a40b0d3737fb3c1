//! The vocabulary of Highwater: time, buckets, points, schema, predicates, ids, error kinds.
//!
//! Everything above this crate speaks in these words. Nothing here knows of files, tokio,
//! Parquet, DataFusion or HTTP.
//!
//! Reading order: [`time`], [`bucket`], [`value`], [`point`], [`schema`], [`predicate`], [`id`],
//! [`clock`], [`error`].

pub mod bucket;
pub mod clock;
pub mod error;
pub mod id;
pub mod point;
pub mod point_set;
pub mod predicate;
pub mod schema;
pub mod series_ranges;
pub mod time;
pub mod value;

pub use bucket::{Bucket, BucketError};
pub use clock::{Clock, MockClock, Stopwatch, SystemClock};
pub use error::ErrorKind;
pub use id::{MeasurementId, SequenceNumber};
pub use point::{PointBatch, TagSet};
pub use point_set::PointSet;
pub use predicate::{Comparison, Condition, ScanFilter};
pub use schema::{Column, ColumnRole, Schema};
pub use series_ranges::SeriesRanges;
pub use time::{TimeRange, TimeRanges, Timestamp};
pub use value::{FieldType, FieldValue};
