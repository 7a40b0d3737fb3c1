//! Letting old points go, once everybody who needs them has them.
//!
//! Readers stop seeing a point at the *horizon* (`now - keep`). Its bytes go in whole UTC days,
//! when the *floor* of the measurement rises; before that every attached aggregate over it applies
//! what lies below, so that those pieces are sealed and not lost.

use std::sync::Arc;
use std::time::Duration;

use highwater_core::bucket::Span;
use highwater_core::{MeasurementId, TimeRange, TimeRanges, Timestamp};
use highwater_storage::{Commit, Edit, Measurement, MeasurementKind, guarded};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::catalog::{Aggregate, Progress};
use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::plan::Occasion;
use crate::retention::{Dependant, Expiring, Gate, gate};
use crate::runtime::Aggregates;

/// How often the background task looks whether something has expired.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);

/// A row of `system.retention`.
#[derive(Debug, Serialize)]
pub(crate) struct RetentionRow {
    measurement: String,
    keep: String,
    /// Readers see points from here on.
    horizon: Timestamp,
    /// Points before this instant are gone for good.
    dropped_before: Option<Timestamp>,
    /// Aggregates that have not applied what should go next, comma separated.
    held_back_by: Option<String>,
    /// Why nothing is dropped at present, whatever its age.
    paused: Option<String>,
}

/// A measurement or materialization with a limited age.
struct Ageing {
    /// The measurement whose floor is to rise.
    id: MeasurementId,
    /// The name that dependants call it by.
    name: Arc<str>,
    keep: Span,
    source: Expiring,
    /// The earliest time that may still be stored.
    oldest: Option<Timestamp>,
}

impl Ageing {
    /// How far its floor may rise, and who holds it back.
    fn gate(&self, reader: &Reader) -> Gate {
        let dependants = |reader: &Reader, is_one: fn(&Aggregate) -> bool| {
            let own = reader.catalog().dependants(&self.name).filter(|one| is_one(one));
            let dependant = own.map(|dependant| Dependant {
                name: dependant.run_id().name,
                pieces: dependant.definition.pieces,
                stale: reader.stale(dependant, &TimeRanges::all()),
            });
            dependant.collect::<Vec<_>>()
        };
        let mut all = dependants(reader, |one| !one.document.detached);
        all.extend(dependants(&reader.next(), Aggregate::is_shadow));
        let dependants = all;
        gate(&self.source, &dependants)
    }

    /// Whether something is stored that could go at `floor`.
    fn has_points_before(&self, floor: Timestamp) -> bool {
        self.oldest.is_some_and(|oldest| oldest < floor)
    }
}

impl Aggregates {
    /// Whether the wall clock may decide what expires, `elapsed` after some fixed moment.
    fn trusts_clock(&self, elapsed: Duration) -> bool {
        let mut guard = self.clock_guard().lock();
        let trusted_before = guard.objection().is_none();
        let trusts = guard.look(self.now(), elapsed);
        match (trusted_before, guard.objection()) {
            (true, Some(objection)) => warn!(objection, "nothing expires for now"),
            (false, None) => info!("points expire again"),
            _ => {}
        }
        trusts
    }

    /// Why nothing expires at present although its time has come; `None` if all is well.
    pub fn expiry_paused(&self) -> Option<String> {
        self.clock_guard().lock().objection()
    }

    /// Lets points expire by the clock as it is, although it has jumped.
    pub fn resume_expiry(&self) {
        self.clock_guard().lock().trust();
    }

    /// Drops what expires on the real clock until told to stop.
    pub(crate) async fn keep_expiring(&self, stop: &CancellationToken) {
        let mut age = tokio::time::interval(EXPIRE_EVERY);
        age.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let start = tokio::time::Instant::now();
        while stop.run_until_cancelled(age.tick()).await.is_some() {
            if !self.trusts_clock(start.elapsed()) {
                continue;
            }
            let expired = stop.run_until_cancelled(guarded(self.expire_and_forget())).await;
            if let Some(Err(error)) = expired {
                error!(error = &error as &dyn std::error::Error, "expiry failed");
            }
        }
    }

    /// Drops points that have expired, and stored partials that nobody can bring back any more.
    pub(crate) async fn expire_and_forget(&self) -> Result<usize, AggregationError> {
        Ok(self.expire().await? + self.forget_previous().await?)
    }

    /// Drops what has expired and is needed by nobody. Returns the number of floors raised.
    pub(crate) async fn expire(&self) -> Result<usize, AggregationError> {
        let mut raised = 0;
        for database in self.databases() {
            for one in ageing(&self.reader(&database)?) {
                raised += usize::from(self.raise_floor(&database, &one.id).await?);
            }
        }
        Ok(raised)
    }

    /// Lets every dependant apply what is about to go, then lets it go; `false` if nothing could.
    async fn raise_floor(
        &self,
        database: &Arc<str>,
        id: &MeasurementId,
    ) -> Result<bool, AggregationError> {
        let reader = self.reader(database)?;
        let Some((_, gate)) = expired(&reader, id) else { return Ok(false) };
        let waiting = gate.held_back.iter().filter(|held| !held.waits_for.is_empty());
        let waiting = waiting.map(|held| AggregateId::new(Arc::clone(database), &*held.by));
        self.refresh_together(waiting.collect(), Occasion::Sealing(gate.wanted)).await?;
        let _running = self.lock_refreshes().await;
        let reader = self.reader(database)?;
        let Some((ageing, gate)) = expired(&reader, id) else { return Ok(false) };
        for held in &gate.held_back {
            debug!(measurement = %id, %held, "expiry waits");
        }
        if !gate.is_open(&ageing.source) {
            return Ok(false);
        }
        let commit = raising(&reader, &ageing, gate.floor)?;
        self.engine().commit(commit).await?;
        info!(measurement = %id, floor = %gate.floor, "dropped expired points");
        Ok(true)
    }
}

/// A measurement with points that should go, and its gate.
fn expired(reader: &Reader, id: &MeasurementId) -> Option<(Ageing, Gate)> {
    let ageing = ageing(reader).into_iter().find(|one| one.id == *id)?;
    let gate = ageing.gate(reader);
    ageing.has_points_before(gate.wanted).then_some((ageing, gate))
}

/// The commit that raises a floor, unless somebody touches what lies below it meanwhile.
fn raising(reader: &Reader, ageing: &Ageing, floor: Timestamp) -> Result<Commit, AggregationError> {
    let version = reader.session().version();
    let gone = TimeRange::before(floor);
    let id = ageing.id.clone();
    let mut commit = Commit::of([Edit::RaiseFloor { id: id.clone(), floor }]);
    commit.expect_untouched.push((id, gone, version.seq()));
    if let Some(aggregate) = reader.catalog().get(&ageing.name) {
        let [_, key] = aggregate.keys();
        let mut progress = Progress::clone(&aggregate.progress);
        progress.applied.remove(gone);
        commit.expect_documents.push((key.clone(), version.document(&key).cloned()));
        commit.edits.push(aggregate.put_progress(&progress)?);
    }
    Ok(commit)
}

/// Everything that is stored and has a limited age: measurements first, then materializations.
fn ageing(reader: &Reader) -> Vec<Ageing> {
    let version = reader.session().version();
    let now = reader.session().now();
    let ageing = |stored: &Measurement, name: &Arc<str>, keep: Span, pieces| Ageing {
        id: stored.id().clone(),
        name: Arc::clone(name),
        keep,
        source: Expiring { floor: stored.floor(), horizon: keep.before(now), pieces },
        oldest: stored.times().map(|times| times.start.max(stored.floor())),
    };
    let points = version
        .measurements(reader.session().database())
        .filter(|one| one.kind() == MeasurementKind::Points)
        .filter_map(|one| {
            Some(ageing(one, &one.id().measurement, version.retention(one.id())?, None))
        });
    let attached = reader.catalog().iter().filter(|aggregate| !aggregate.document.detached);
    let stored = attached.filter_map(|aggregate| {
        let keep = aggregate.definition.retention?;
        let stored = version.measurement(&aggregate.stored())?;
        Some(ageing(stored, aggregate.name(), keep, Some(aggregate.definition.pieces)))
    });
    points.chain(stored).collect()
}

/// What `system.retention` shows.
pub(crate) fn overview(reader: &Reader, paused: Option<String>) -> Vec<RetentionRow> {
    let row = |one: Ageing| {
        let gate = one.gate(reader);
        let held: Vec<String> = gate.held_back.iter().map(ToString::to_string).collect();
        RetentionRow {
            measurement: one.name.to_string(),
            keep: one.keep.to_string(),
            horizon: one.source.horizon,
            dropped_before: Some(one.source.floor).filter(|at| *at > TimeRange::ALL.start),
            held_back_by: (!held.is_empty()).then(|| held.join("; ")),
            paused: paused.clone(),
        }
    };
    ageing(reader).into_iter().map(row).collect()
}
