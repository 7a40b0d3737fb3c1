//! New jobs: what there is to build, and about how much that is.

use highwater_core::{MeasurementId, TimeRange, TimeRanges, Timestamp};

use super::job::{Job, JobKind, new_job};
use crate::applied::Applied;
use crate::catalog::Aggregate;
use crate::definition::Definition;
use crate::exact::Reader;
use crate::staleness;
use crate::watermark;

/// The job that brings in what the source of a new aggregate, readable since `sealed_before`, holds
/// already.
pub(crate) fn first_job(
    id: u64,
    reader: &Reader,
    definition: &Definition,
    sealed_before: Timestamp,
) -> Job {
    let missing = to_build(reader, definition, sealed_before);
    let rows = rows_of_source(reader, definition, &missing);
    let until = missing.hull().map(|missing| missing.end);
    new_job((id, JobKind::Backfill), reader, until, rows)
}

/// The job that builds a definition beside the one in force.
pub(crate) fn rebuild(id: u64, reader: &Reader, definition: &Definition) -> Job {
    let rows = rows_of_source(reader, definition, &TimeRanges::all());
    new_job((id, JobKind::Rebuild), reader, None, rows)
}

/// The job that brings in what an aggregate in force lacks.
pub(crate) fn catching_up(id: u64, reader: &Reader, aggregate: &Aggregate) -> Job {
    let definition = &aggregate.definition;
    let missing = to_build(reader, definition, reader.sealed_before(aggregate));
    let missing = missing.subtract(&aggregate.progress.applied.covered());
    let rows = rows_of_source(reader, definition, &missing);
    let until = missing.hull().map(|missing| missing.end);
    new_job((id, JobKind::Backfill), reader, until, rows)
}

/// What an aggregate without anything stored has to build: the pieces of closed buckets in which its
/// source has points.
fn to_build(reader: &Reader, definition: &Definition, sealed_before: Timestamp) -> TimeRanges {
    let root = reader.session().version().measurement(&definition.root);
    let Some(changes) = root.map(|root| root.changes()) else { return TimeRanges::none() };
    let (pieces, all) = (definition.pieces, TimeRange::ALL);
    let stale = staleness::stale(changes, &Applied::nothing(), pieces, all, sealed_before);
    let (now, lateness) = (reader.session().now(), definition.allowed_lateness);
    let closing = pieces.bucket().map(|bucket| watermark::closing(bucket, now, lateness));
    stale.intersect(&TimeRange::before(closing.unwrap_or(all.end)).into())
}

/// About how many rows an aggregate has to read for these times, at most: those that its source has
/// stored, also if some of them overwrite others.
pub(crate) fn rows_of_source(reader: &Reader, definition: &Definition, times: &TimeRanges) -> u64 {
    if times.is_empty() {
        return 0;
    }
    let parent = definition.parent().and_then(|parent| reader.catalog().get(&parent.name));
    let source: MeasurementId = parent.map_or_else(|| definition.root.clone(), |one| one.stored());
    let Some(stored) = reader.session().version().measurement(&source) else { return 0 };
    let wanted = stored.segments().filter(|segment| times.overlaps(segment.times));
    wanted.map(|segment| segment.rows).sum::<u64>() + stored.memtable_rows() as u64
}
