//! What computing an aggregate would take, before anything is computed.
//!
//! From what is known without reading points: which minutes the source has points in, how many
//! there are, and how many series. What can be measured on this server is, the rest is assumed, and
//! every assumption is named.

use highwater_core::{ColumnRole, SequenceNumber, TimeRange, TimeRanges};
use highwater_query::Params;
use highwater_storage::Measurement;
use serde::Serialize;

use crate::definition::{Definition, Resolved};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::schedule::Run;

/// Points that a refresh reads per second, where no run has told.
const POINTS_PER_SECOND: f64 = 1e6;
/// Bytes stored per row beside its outputs, and per output, where nothing stored has told.
const ROW_BYTES: f64 = 12.0;
const OUTPUT_BYTES: f64 = 12.0;
/// Groups of a column that is a field, where nothing tells how many values it has.
const FIELD_GROUPS: u64 = 100;

/// What computing an aggregate over all of its source would take, about.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Points of the source to read; over an aggregate, stored rows of it.
    pub points_to_read: u64,
    /// Pieces with points in them: buckets, or days of longer ones.
    pub pieces: u64,
    /// Groups over all time.
    pub groups: u64,
    /// Rows stored, at most: a group in every piece, but no more rows than points.
    pub rows: u64,
    /// Bytes of these rows.
    pub bytes: u64,
    /// Seconds of one refresh slot.
    pub seconds: f64,
    /// What was assumed for want of knowing, as sentences.
    pub assumptions: Vec<String>,
}

/// What this server has seen of its own work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    points_per_second: Option<f64>,
    bytes_per_row: Option<f64>,
}

impl Measured {
    /// From refreshes that were run, and rows and bytes of what is stored.
    pub(crate) fn of<'a>(
        runs: impl Iterator<Item = &'a Run>,
        stored: impl Iterator<Item = (u64, u64)>,
    ) -> Self {
        let whole = runs.filter(|run| run.error.is_none());
        let (points, ms) = whole.fold((0, 0.0), |(points, ms), run| {
            (points + run.cost.points_scanned, ms + run.cost.duration_ms)
        });
        let (rows, bytes) = stored.fold((0, 0), |(a, b), (rows, bytes)| (a + rows, b + bytes));
        Measured {
            points_per_second: (points > 0 && ms > 0.0).then(|| points as f64 / ms * 1e3),
            bytes_per_row: (rows > 0).then(|| bytes as f64 / rows as f64),
        }
    }
}

/// The source of an aggregate, as far as it is known without reading it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SourceSize {
    /// Points, or stored rows.
    pub(crate) points: u64,
    /// Event time with points in it.
    pub(crate) covered: TimeRanges,
    /// Groups over all time, without those of columns that are fields.
    pub(crate) tag_groups: u64,
    /// Group columns that are fields.
    pub(crate) field_groups: Vec<String>,
}

/// What computing `definition` with so many outputs over such a source would take.
pub(crate) fn estimate(
    definition: &Definition,
    outputs: usize,
    source: &SourceSize,
    measured: Measured,
) -> Estimate {
    let mut assumptions = Vec::new();
    let pieces = definition.pieces.count(&source.covered);
    let mut groups = source.tag_groups;
    for field in &source.field_groups {
        groups = groups.saturating_mul(FIELD_GROUPS);
        assumptions.push(format!("the field {field} has {FIELD_GROUPS} values"));
    }
    if definition.filter.is_some() {
        assumptions.push("all points meet the condition where".to_owned());
    }
    let rows = pieces.saturating_mul(groups).min(source.points);
    let bytes_per_row = measured.bytes_per_row.unwrap_or_else(|| {
        let bytes = ROW_BYTES + OUTPUT_BYTES * outputs as f64;
        assumptions.push(format!("a row takes {bytes:.0} bytes; nothing is stored yet to tell"));
        bytes
    });
    let points_per_second = measured.points_per_second.unwrap_or_else(|| {
        assumptions.push(format!(
            "{POINTS_PER_SECOND:.0} points are read per second; no refresh has run yet to tell"
        ));
        POINTS_PER_SECOND
    });
    Estimate {
        points_to_read: source.points,
        pieces,
        groups,
        rows,
        bytes: (rows as f64 * bytes_per_row) as u64,
        seconds: source.points as f64 / points_per_second,
        assumptions,
    }
}

/// What is known of the source of an aggregate; over another aggregate, that one has or will have
/// so many rows.
///
/// # Errors
/// If the series cannot be counted.
pub(crate) async fn source_size(
    reader: &Reader,
    definition: &Definition,
    resolved: &Resolved,
    parent_rows: Option<u64>,
) -> Result<SourceSize, AggregationError> {
    let Some(root) = reader.session().version().measurement(&definition.root) else {
        return Ok(SourceSize::default());
    };
    let kept = definition.retention.map(|keep| keep.before(reader.session().now()));
    let kept = TimeRange::since(kept.unwrap_or(TimeRange::ALL.start).max(root.floor()));
    let covered = root.changes().touched_after(SequenceNumber::ZERO, kept).within(kept);
    let known = resolved.groups.iter().filter(|group| group.is_known);
    let (tags, fields): (Vec<_>, Vec<_>) = known.partition(|group| group.role == ColumnRole::Tag);
    let tags: Vec<&str> = tags.into_iter().map(|group| &*group.name).collect();
    let tag_groups = if tags.is_empty() { 1 } else { count_groups(reader, root, &tags).await? };
    Ok(SourceSize {
        points: parent_rows.unwrap_or_else(|| points_in(root, kept)),
        covered,
        tag_groups,
        field_groups: fields.into_iter().map(|group| group.name.to_string()).collect(),
    })
}

/// Points in a range, overwritten ones included; of a segment that sticks out, all.
fn points_in(measurement: &Measurement, range: TimeRange) -> u64 {
    let segments = measurement.segments().filter(|segment| segment.times.overlaps(range));
    segments.map(|segment| segment.rows).sum::<u64>() + measurement.memtable_rows() as u64
}

/// How many different values these tags have together; the last points of the series tell.
async fn count_groups(
    reader: &Reader,
    root: &Measurement,
    tags: &[&str],
) -> Result<u64, AggregationError> {
    let tags: Vec<String> = tags.iter().map(|tag| quoted(tag)).collect();
    let table = quoted(&root.id().measurement);
    let sql = format!("SELECT DISTINCT {} FROM {table}", tags.join(", "));
    let answer = reader.session().sql(&sql, Params::None).await?;
    let batches = datafusion::physical_plan::common::collect(answer.batches).await?;
    Ok(batches.iter().map(|batch| batch.num_rows() as u64).sum())
}

/// A name as SQL quotes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use highwater_core::Timestamp;

    use super::*;
    use crate::Rules;

    fn definition(rule: &str) -> Definition {
        let text = format!("databases: {{t: {{aggregates: [{rule}]}}}}");
        let rules = Rules::load([("a.yml".to_owned(), text)]).unwrap();
        rules.definitions().next().unwrap().clone()
    }

    fn days(start: &str, end: &str) -> TimeRanges {
        TimeRange::new(Timestamp::parse(start).unwrap(), Timestamp::parse(end).unwrap()).into()
    }

    const HOURLY: &str =
        "{name: a, source: m, interval: 1h, group_by: [host], aggregations: [{function: count}]}";

    #[test]
    fn rows_are_pieces_times_groups_but_no_more_than_points() {
        let covered = days("2024-01-01", "2024-01-03");
        let source = |points| SourceSize {
            points,
            covered: covered.clone(),
            tag_groups: 10,
            field_groups: Vec::new(),
        };
        let measured = Measured { points_per_second: Some(1000.0), bytes_per_row: Some(20.0) };
        let definition = definition(HOURLY);
        let large = estimate(&definition, 1, &source(100_000), measured);
        assert_eq!((large.pieces, large.rows, large.bytes), (48, 480, 9600));
        assert_eq!((large.seconds, large.assumptions.len()), (100.0, 0));
        assert_eq!(estimate(&definition, 1, &source(50), measured).rows, 50);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let source = SourceSize {
            points: 1_000_000,
            covered: days("2024-01-01", "2024-03-01"),
            tag_groups: 1,
            field_groups: vec!["state".to_owned()],
        };
        let monthly = definition(
            "{name: a, source: m, interval: 1mo, group_by: [state], where: v > 1, aggregations: [{function: count}]}",
        );
        let found = estimate(&monthly, 1, &source, Measured::default());
        assert_eq!((found.pieces, found.groups, found.seconds), (60, 100, 1.0));
        let said = found.assumptions.join("\n");
        for word in ["state", "where", "24 bytes", "1000000 points"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }

    #[test]
    fn nothing_takes_nothing() {
        let found = estimate(&definition(HOURLY), 1, &SourceSize::default(), Measured::default());
        assert_eq!((found.rows, found.bytes, found.points_to_read), (0, 0, 0));
    }
}
