//! Giving damaged segments up, and what that takes: points are lost, stored partials are computed
//! again from their source, unless it has expired.
//!
//! Storage knows segments and rows; only here it is known which rows are partials. So this is the
//! door to [`Edit::QuarantineSegment`].

use std::sync::Arc;

use highwater_core::{TimeRange, TimeRanges, Timestamp};
use highwater_storage::{Commit, Edit, ExaminedSegment, MeasurementKind};
use serde::Serialize;
use tracing::warn;

use crate::catalog::{Aggregate, Progress};
use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::runtime::Aggregates;

/// What goes, or went, with a segment that is given up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loss {
    /// Path of the segment.
    pub segment: String,
    /// Where the file is kept afterwards.
    pub kept: String,
    /// Name of the database.
    pub database: String,
    /// Name of the measurement.
    pub measurement: String,
    /// The aggregate whose stored partials the segment holds, if it holds partials of one.
    pub aggregate: Option<String>,
    /// Rows, counting overwritten and deleted ones.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Times of the rows.
    pub times: TimeRange,
    /// What is wrong with it; `None` if nothing is.
    pub damage: Option<String>,
    /// Times whose rows do not come back.
    pub lost: Vec<TimeRange>,
    /// Times that are computed again from the source.
    pub computed_again: Vec<TimeRange>,
    /// All of it in a sentence or two.
    pub summary: String,
}

/// A commit that gives a segment up, what it takes, and the aggregates that have work then.
struct Plan {
    commit: Commit,
    loss: Loss,
    affected: Vec<AggregateId>,
}

impl Aggregates {
    /// Reads all of a segment and says what would go with it. Changes nothing.
    ///
    /// # Errors
    /// If there is no such segment, if it is sound unless `force` says that this does not matter,
    /// or if it cannot be read for other reasons than damage.
    pub async fn plan_quarantine(&self, path: &str, force: bool) -> Result<Loss, AggregationError> {
        let examined = self.engine().examine_segment(path).await?;
        Ok(self.planned_quarantine(&examined, force)?.loss)
    }

    /// Gives a segment up in one commit, so that everything else answers again. Its file is kept in
    /// the folder `quarantine`.
    ///
    /// # Errors
    /// As [`Aggregates::plan_quarantine`]; nothing has changed then.
    pub async fn quarantine(&self, path: &str, force: bool) -> Result<Loss, AggregationError> {
        let _running = self.lock_refreshes().await;
        let examined = self.engine().examine_segment(path).await?;
        let Plan { commit, loss, affected } = self.planned_quarantine(&examined, force)?;
        self.engine().commit(commit).await?;
        affected.iter().for_each(|id| self.schedules().lock().wake(id));
        warn!(path, damage = loss.damage, "{}", loss.summary);
        Ok(loss)
    }

    /// The reader, and with it the version, is gone when this returns: it would keep the file where
    /// it is.
    fn planned_quarantine(
        &self,
        examined: &ExaminedSegment,
        force: bool,
    ) -> Result<Plan, AggregationError> {
        if examined.damage.is_none() && !force {
            return Err(AggregationError::Conflict(format!(
                "{} is sound, every checksum of it matches; ask with force to give it up all the \
                 same",
                examined.segment.path
            )));
        }
        plan(&self.reader(&examined.id.database)?, examined, self.now())
    }
}

fn plan(
    reader: &Reader,
    examined: &ExaminedSegment,
    now: Timestamp,
) -> Result<Plan, AggregationError> {
    let ExaminedSegment { id, segment, damage, .. } = examined;
    let edit = Edit::QuarantineSegment {
        id: id.clone(),
        path: segment.path.clone(),
        damage: damage.clone(),
        at: now,
    };
    let mut commit = Commit::of([edit]);
    let mut loss = Loss {
        segment: segment.path.clone(),
        kept: examined.kept_path(),
        database: id.database.to_string(),
        measurement: id.measurement.to_string(),
        aggregate: None,
        rows: segment.rows,
        bytes: segment.bytes,
        times: segment.times,
        damage: damage.clone(),
        lost: Vec::new(),
        computed_again: Vec::new(),
        summary: String::new(),
    };
    let next = reader.next();
    let mut all = reader.catalog().iter().chain(next.catalog().iter());
    let holder = all.find(|one| one.stored() == *id);
    let affected = match (examined.kind, holder) {
        (MeasurementKind::Points, _) => of_points(reader, &mut loss),
        (MeasurementKind::Materialization | MeasurementKind::Rollup, Some(aggregate)) => {
            let progress = of_partials(reader, aggregate, &mut loss);
            let [_, key] = aggregate.keys();
            let expected = reader.session().version().document(&key).cloned();
            commit.expect_documents.push((key, expected));
            commit.edits.push(aggregate.put_progress(&progress)?);
            vec![aggregate.id().clone()]
        }
        (MeasurementKind::Materialization | MeasurementKind::Rollup, None) => {
            loss.summary = format!("{} rows of partials go that no aggregate reads", loss.rows);
            Vec::new()
        }
    };
    Ok(Plan { commit, loss, affected })
}

/// Points are lost. Aggregates over them are computed again from those that are left, except where
/// they are sealed.
fn of_points(reader: &Reader, loss: &mut Loss) -> Vec<AggregateId> {
    loss.lost.push(loss.times);
    let Loss { rows, measurement, times, .. } = &*loss;
    let over = |one: &&Arc<Aggregate>| *one.definition.root.measurement == **measurement;
    let readers: Vec<&Arc<Aggregate>> = reader.catalog().iter().filter(over).collect();
    let names: Vec<&str> = readers.iter().map(|one| &**one.name()).collect();
    let mut summary = format!("{rows} points of {measurement} in {times} are lost");
    if !names.is_empty() {
        summary += &format!(
            "; {} will say what is left there, except in buckets whose points have expired",
            names.join(", ")
        );
    }
    loss.summary = summary;
    readers.into_iter().map(|one| one.id().clone()).collect()
}

/// Partials whose source is there count as not applied any more, so they are computed again. The
/// sealed ones are lost, and what other segments hold beside them stays.
fn of_partials(reader: &Reader, aggregate: &Aggregate, loss: &mut Loss) -> Progress {
    let pieces = aggregate.definition.pieces;
    let held = TimeRanges::from(pieces.round_out(loss.times));
    let held = held.intersect(&aggregate.progress.applied.covered());
    let live = held.intersect(&live_pieces(reader, aggregate, loss.times));
    let sealed = held.subtract(&live).intersect(&loss.times.into());
    let mut progress = Progress::clone(&aggregate.progress);
    live.iter().for_each(|range| progress.applied.remove(range));
    let name = aggregate.name();
    let mut summary = match aggregate.document.detached {
        _ if live.is_empty() => format!("nothing of {name} can be computed again"),
        true => format!(
            "{name} is detached: {live} has no stored buckets until its definition is posted again"
        ),
        false => format!("{name} is computed again in {live}, nothing of that is lost"),
    };
    if !sealed.is_empty() {
        summary += &format!("; sealed buckets in {sealed} are lost, as their points have expired");
    }
    loss.aggregate = Some(name.to_string());
    loss.lost = sealed.iter().collect();
    loss.computed_again = live.iter().collect();
    loss.summary = summary;
    progress
}

/// The whole pieces around `times` that can be computed again.
fn live_pieces(reader: &Reader, aggregate: &Aggregate, times: TimeRange) -> TimeRanges {
    let pieces = aggregate.definition.pieces;
    let sealed_before = reader.sealed_before(aggregate);
    let live = pieces.round_out(times.intersect(TimeRange::since(sealed_before)));
    match live.start < sealed_before {
        // A piece that holds sealed time as well cannot be computed as a whole.
        true => TimeRanges::from(live).subtract(&pieces.piece_of(live.start).into()),
        false => live.into(),
    }
}
