//! Deletes that reach below the floor of a measurement: sealed rows go in the same commit as the
//! points, through all levels, or nothing goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_core::{Condition, MeasurementId, TimeRange, TimeRanges};
use highwater_query::QuerySession;
use highwater_storage::{DerivedRows, TakenAlong};
use tracing::info;

use crate::catalog::Aggregate;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::feed::{self, Restated};
use crate::runtime::Aggregates;
use crate::sealed_delete::{Reach, Refused, Sealed};

impl Aggregates {
    /// Deletes points and the sealed rows that go with them; `false`, and nothing is deleted, if
    /// the delete reaches nothing that aggregates keep of expired points.
    ///
    /// # Errors
    /// A conflict that names the buckets, if a sealed one would have to be reduced.
    pub(crate) async fn delete_sealed(
        &self,
        session: &QuerySession,
        id: &MeasurementId,
        reach: &Reach,
        condition: &Condition,
    ) -> Result<bool, AggregationError> {
        if kept_of_expired(&self.reader_of(session)?, id, reach).is_empty() {
            return Ok(false);
        }
        // Nothing expires, is copied or redefined from here to the commit.
        let _running = self.lock_refreshes().await;
        let reader = self.reader(session.database())?;
        let along = plan_sealed_delete(&reader, id, reach)?;
        let version = Arc::clone(reader.session().version());
        let aggregates = along.rows.len();
        self.engine().delete_with(&version, id, condition.clone(), along).await?;
        info!(measurement = %id, aggregates, "deleted sealed rows with their points");
        Ok(true)
    }
}

/// Times below the floor that the delete reaches and aggregates cover: those in force, those that
/// are being built, and those that could be brought back.
fn kept_of_expired(reader: &Reader, id: &MeasurementId, reach: &Reach) -> TimeRanges {
    let expired = reach.times.intersect(&TimeRange::before(reader.floor(id)).into());
    if expired.is_empty() {
        return expired;
    }
    let previous = reader.catalog().previous().values();
    let previous = previous.filter(|one| one.root == id.measurement);
    let previous = previous.map(|one| one.progress.applied.covered());
    let own = dependants(reader, id).map(|(_, one)| one.progress.applied.covered());
    let covered = own.chain(previous).fold(TimeRanges::none(), |all, one| all.union(&one));
    expired.intersect(&covered)
}

/// What goes beside points.
///
/// What is not sealed is computed again, because the times of all that goes count as touched; that
/// also keeps definitions from coming back with what they had stored of it.
fn plan_sealed_delete(
    reader: &Reader,
    id: &MeasurementId,
    reach: &Reach,
) -> Result<TakenAlong, AggregationError> {
    let touched = kept_of_expired(reader, id, reach);
    let mut along = TakenAlong { touched, ..TakenAlong::default() };
    let mut refused = Vec::new();
    for (reader, aggregate) in dependants(reader, id) {
        match sealed(&reader, &aggregate)?.taken(reach) {
            Err(reason) => refused.push(reason),
            Ok(times) if times.is_empty() => {}
            Ok(times) => {
                if !aggregate.is_shadow() {
                    let restated = Restated::deleted(&aggregate, &times);
                    feed::append(&mut along.commit, &reader, aggregate.id(), &restated)?;
                }
                let condition = reach.tags.clone();
                along.rows.push(DerivedRows { id: aggregate.stored(), times, condition });
            }
        }
    }
    match refused.is_empty() {
        true => Ok(along),
        false => Err(refusal(reader, id, &refused)),
    }
}

/// Every aggregate that the measurement is the root of, and who reads it.
fn dependants(
    reader: &Reader,
    id: &MeasurementId,
) -> impl Iterator<Item = (Reader, Arc<Aggregate>)> {
    let of = |reader: &Reader, is_one: fn(&Aggregate) -> bool| {
        let all = reader.catalog().iter().filter(|one| one.definition.root == *id && is_one(one));
        all.map(|one| (reader.clone(), Arc::clone(one))).collect::<Vec<_>>()
    };
    let shadows = of(&reader.next(), Aggregate::is_shadow);
    of(reader, |_| true).into_iter().chain(shadows)
}

fn sealed(reader: &Reader, aggregate: &Aggregate) -> Result<Sealed, AggregationError> {
    let definition = &aggregate.definition;
    let before = TimeRange::before(reader.sealed_before(aggregate));
    let groups: BTreeSet<Arc<str>> =
        reader.resolve(aggregate)?.groups.into_iter().map(|group| group.name).collect();
    Ok(Sealed {
        name: aggregate.run_id().name,
        bucket: definition.bucket.filter(|_| !definition.is_kept_by_days()),
        times: aggregate.progress.applied.covered().intersect(&before.into()),
        groups,
    })
}

fn refusal(reader: &Reader, id: &MeasurementId, refused: &[Refused]) -> AggregationError {
    let floor = reader.floor(id);
    let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
    AggregationError::Conflict(format!(
        "points before {floor} have expired and live on in sealed buckets, which go as a whole or \
         not at all: {}; delete whole buckets, or by tags that all of these are grouped by, or add \
         `AND time >= '{floor}'` to delete what is still there",
        refused.join(", ")
    ))
}
