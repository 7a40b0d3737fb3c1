//! `EXPLAIN BUCKET name 'time'`: what one bucket is made of, level by level.

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use highwater_core::schema::time_data_type;
use highwater_core::time::NANOS_PER_MINUTE;
use highwater_core::{SequenceNumber, TimeRange, TimeRanges, Timestamp};
use serde::Serialize;

use crate::buckets::{Piece, pieces};
use crate::catalog::Aggregate;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::system::batch_of;

/// Neighbouring pieces of one level that stand alike.
#[derive(Debug, Serialize)]
struct Part {
    level: u32,
    name: String,
    bucket: Timestamp,
    bucket_end: Timestamp,
    from: Timestamp,
    to: Timestamp,
    pieces: u64,
    state: &'static str,
    applied_seq: SequenceNumber,
    touched_seq: SequenceNumber,
    touched_granules: u64,
    touched_from: Option<Timestamp>,
    touched_to: Option<Timestamp>,
    rows: u64,
    read_from: String,
}

/// What the bucket that holds `at` is made of; for an aggregate that is kept by days, the UTC day.
///
/// Columns: `level` (0 is the aggregate itself, 1 what it reads, and so on), `name`, `bucket` and
/// `bucket_end` (of the aggregate itself), `from` and `to` (not included) of the pieces the row is
/// about, `pieces`, `state` (`fresh`, `stale` or `sealed`), `applied_seq`, `touched_seq` (last commit
/// that touched the source there), `touched_granules` (minutes touched after `applied_seq`) between
/// `touched_from` and `touched_to`, `rows` stored, `read_from` (where an exact read takes it from:
/// `stored`, or the name of the source it is computed from). Pieces without anything have no row.
///
/// # Errors
/// If there is no such aggregate, or it cannot be read.
pub(crate) async fn explain_bucket(
    reader: &Reader,
    name: &str,
    at: Timestamp,
) -> Result<RecordBatch, AggregationError> {
    let own = reader.in_force(name)?;
    let bucket = own.definition.pieces.grid().range_of(at);
    let levels = std::iter::successors(Some(own), |one| reader.catalog().parent(one));
    let mut parts = Vec::new();
    for (level, aggregate) in (0..).zip(levels) {
        let within = aggregate.definition.pieces.round_out(bucket);
        let pieces = pieces(reader, aggregate, within).await?;
        let alike = pieces.chunk_by(|a, b| is_alike(reader, aggregate, a, b));
        parts.extend(alike.map(|of| part(reader, aggregate, (level, bucket), of)));
    }
    batch_of(&columns(), &parts)
}

fn columns() -> [(&'static str, DataType); 15] {
    [
        ("level", DataType::UInt32),
        ("name", DataType::Utf8),
        ("bucket", time_data_type()),
        ("bucket_end", time_data_type()),
        ("from", time_data_type()),
        ("to", time_data_type()),
        ("pieces", DataType::UInt64),
        ("state", DataType::Utf8),
        ("applied_seq", DataType::UInt64),
        ("touched_seq", DataType::UInt64),
        ("touched_granules", DataType::UInt64),
        ("touched_from", time_data_type()),
        ("touched_to", time_data_type()),
        ("rows", DataType::UInt64),
        ("read_from", DataType::Utf8),
    ]
}

fn state(piece: &Piece) -> &'static str {
    match (piece.is_stale, piece.is_sealed) {
        (true, _) => "stale",
        (false, true) => "sealed",
        (false, false) => "fresh",
    }
}

/// Whether two neighbours need only one row. Stale ones do only if each was never computed.
fn is_alike(reader: &Reader, aggregate: &Aggregate, a: &Piece, b: &Piece) -> bool {
    let touches = a.range.end == b.range.start;
    let same = state(a) == state(b) && a.applied == b.applied;
    let differ = |one: &Piece| one.is_stale && !touched(reader, aggregate, one).is_empty();
    let same_touch = a.touched == b.touched || !differ(a) && !differ(b);
    touches && same && same_touch
}

/// The granules of a piece that were touched after its partials were computed.
fn touched(reader: &Reader, aggregate: &Aggregate, piece: &Piece) -> TimeRanges {
    let root = reader.root(aggregate).filter(|_| piece.is_stale);
    root.map_or_else(TimeRanges::none, |root| {
        root.changes().touched_after(piece.applied, piece.range)
    })
}

fn part(
    reader: &Reader,
    aggregate: &Aggregate,
    (level, bucket): (u32, TimeRange),
    pieces: &[Piece],
) -> Part {
    let (first, last) = (&pieces[0], &pieces[pieces.len() - 1]);
    let granules: TimeRanges = pieces
        .iter()
        .map(|one| touched(reader, aggregate, one))
        .fold(TimeRanges::none(), |all, more| all.union(&more));
    let minutes = |range: TimeRange| {
        (range.end.as_nanos() / NANOS_PER_MINUTE - range.start.as_nanos() / NANOS_PER_MINUTE) as u64
    };
    let source = reader.catalog().parent(aggregate).map(|parent| parent.name().to_string());
    let source = source.unwrap_or_else(|| aggregate.definition.root.measurement.to_string());
    Part {
        level,
        name: aggregate.name().to_string(),
        bucket: bucket.start,
        bucket_end: bucket.end,
        from: first.range.start,
        to: last.range.end,
        pieces: pieces.len() as u64,
        state: state(first),
        applied_seq: first.applied,
        touched_seq: pieces.iter().map(|one| one.touched).max().unwrap_or_default(),
        touched_granules: granules.iter().map(minutes).sum(),
        touched_from: granules.hull().map(|hull| hull.start),
        touched_to: granules.hull().map(|hull| hull.end),
        rows: pieces.iter().map(|one| one.rows).sum(),
        read_from: if first.is_stale { source } else { "stored".to_owned() },
    }
}
