//! Letting points go although somebody still needs them, because somebody says so.

use std::sync::Arc;

use highwater_core::{TimeRange, TimeRanges, Timestamp};
use serde::Serialize;
use tracing::warn;

use crate::catalog::{Aggregate, Progress};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::expiry::{Ageing, ageing, raising};
use crate::retention::{Dependant, Expiring, Forced, force};
use crate::runtime::Aggregates;

/// What was made to go, and what that cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ForcedExpiry {
    /// The measurement, or the aggregate with a retention of its own.
    pub measurement: String,
    /// Points before this instant are gone for good, or would be; `None` if none are.
    pub dropped_before: Option<Timestamp>,
    /// Whether this only says what would happen.
    pub dry_run: bool,
    /// What aggregates had not applied, each of them that lost something.
    pub lost: Vec<Lost>,
}

/// What one aggregate had not applied before it was gone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lost {
    /// The aggregate.
    pub aggregate: String,
    /// Buckets that will never have all their points.
    pub buckets: u64,
    /// Their event time.
    pub ranges: TimeRanges,
}

impl Aggregates {
    /// Lets everything before an instant go, at most what is past its age, which is also meant if
    /// there is none. What can still be applied is applied first; what cannot is lost for the
    /// aggregates named in the answer, whose pieces there are sealed as they stand. A `dry_run`
    /// applies nothing and says what would be lost if nothing more could be applied.
    ///
    /// # Errors
    /// If there is no retention for the name, the instant lies in what is not past its age, or
    /// nothing expires at present because the clock jumped.
    pub async fn force_expiry(
        &self,
        database: &Arc<str>,
        name: &str,
        before: Option<Timestamp>,
        dry_run: bool,
    ) -> Result<ForcedExpiry, AggregationError> {
        if let Some(objection) = self.expiry_paused() {
            return Err(AggregationError::Conflict(objection));
        }
        let ageing = find(&self.reader(database)?, name)?;
        check_before(&ageing, before)?;
        if !dry_run {
            self.raise_floor(database, &ageing.id).await?;
        }
        let _running = self.lock_refreshes().await;
        let reader = self.reader(database)?;
        let plan = Plan::of(&reader, find(&reader, name)?, before);
        if !dry_run && plan.forced.floor > plan.ageing.source.floor {
            self.drop_by_force(&reader, &plan).await?;
        }
        Ok(plan.report(dry_run))
    }

    async fn drop_by_force(&self, reader: &Reader, plan: &Plan) -> Result<(), AggregationError> {
        let mut commit = raising(reader, &plan.ageing, plan.forced.floor)?;
        for (aggregate, lost) in plan.losing() {
            let [_, key] = aggregate.keys();
            let text = reader.session().version().document(&key).cloned();
            let mut progress = Progress::clone(&aggregate.progress);
            progress.lost = progress.lost.union(lost);
            commit.expect_documents.push((key, text));
            commit.edits.push(aggregate.put_progress(&progress)?);
            warn!(aggregate = %aggregate.id(), %lost, "points expired by force were never applied");
        }
        self.engine().commit(commit).await?;
        warn!(measurement = %plan.ageing.id, floor = %plan.forced.floor, "expired by force");
        Ok(())
    }
}

/// What is to go, and who needs it.
struct Plan {
    ageing: Ageing,
    dependants: Vec<(Arc<Aggregate>, Dependant)>,
    forced: Forced,
}

impl Plan {
    fn of(reader: &Reader, ageing: Ageing, before: Option<Timestamp>) -> Self {
        let dependants = ageing.dependants(reader);
        let needs: Vec<Dependant> = dependants.iter().map(|(_, needs)| needs.clone()).collect();
        let horizon = before.unwrap_or(ageing.source.horizon).min(ageing.source.horizon);
        let forced = force(&Expiring { horizon, ..ageing.source }, &needs);
        Plan { ageing, dependants, forced }
    }

    fn losing(&self) -> impl Iterator<Item = (&Arc<Aggregate>, &TimeRanges)> {
        let all = self.dependants.iter().map(|(aggregate, _)| aggregate).zip(&self.forced.lost);
        all.filter(|(_, lost)| !lost.is_empty())
    }

    fn report(&self, dry_run: bool) -> ForcedExpiry {
        let lost = self.losing().map(|(aggregate, lost)| Lost {
            aggregate: aggregate.run_id().name.to_string(),
            buckets: aggregate.definition.pieces.count_buckets(lost),
            ranges: lost.clone(),
        });
        ForcedExpiry {
            measurement: self.ageing.name.to_string(),
            dropped_before: Some(self.forced.floor).filter(|at| *at > TimeRange::ALL.start),
            dry_run,
            lost: lost.collect(),
        }
    }
}

fn find(reader: &Reader, name: &str) -> Result<Ageing, AggregationError> {
    let found = ageing(reader).into_iter().find(|one| *one.name == *name);
    found.ok_or_else(|| {
        AggregationError::Invalid(format!(
            "nothing of {name} expires: it has no points, or no retention; system.retention lists \
             what does"
        ))
    })
}

fn check_before(ageing: &Ageing, before: Option<Timestamp>) -> Result<(), AggregationError> {
    let horizon = ageing.source.horizon;
    match before.filter(|before| *before > horizon) {
        None => Ok(()),
        Some(before) => Err(AggregationError::Invalid(format!(
            "{before} is later than {horizon}: what is younger than the retention of {} stays",
            ageing.keep
        ))),
    }
}
