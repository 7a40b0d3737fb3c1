//! Letting old points go, once everybody who needs them has them.
//!
//! Readers stop seeing a point at the *horizon* (`now - keep`). Its bytes go in whole UTC days,
//! when the *floor* of the measurement rises; before that every attached aggregate over it applies
//! what lies below, so that those pieces are sealed and not lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_core::bucket::Span;
use highwater_core::time::NANOS_PER_SEC;
use highwater_core::{MeasurementId, TimeRange, TimeRanges, Timestamp};
use highwater_storage::{Commit, Edit, Measurement, MeasurementKind, guarded};
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

/// A measurement or materialization with a limited age.
pub(crate) struct Ageing {
    /// The measurement whose floor is to rise.
    pub(crate) id: MeasurementId,
    /// The name that dependants call it by.
    pub(crate) name: Arc<str>,
    pub(crate) keep: Span,
    /// How much longer dependants may hold it before somebody should look.
    pub(crate) max_hold: Option<Span>,
    pub(crate) source: Expiring,
    /// The earliest time that may still be stored.
    oldest: Option<Timestamp>,
}

impl Ageing {
    /// Who needs it, those that are being built too; a detached aggregate needs nothing unless a
    /// restart would take what it has stored.
    pub(crate) fn dependants(&self, reader: &Reader) -> Vec<(Arc<Aggregate>, Dependant)> {
        let of = |reader: &Reader, is_one: fn(&Aggregate) -> bool| {
            let own = reader.catalog().dependants(&self.name).filter(|one| is_one(one));
            let dependant = own.map(|dependant| {
                let in_memory = reader.in_memory(dependant);
                let stale = match dependant.document.detached {
                    // It need not follow its source, only keep what it has.
                    true => in_memory,
                    false => reader.stale(dependant, &TimeRanges::all()).union(&in_memory),
                };
                let needs = Dependant {
                    name: dependant.run_id().name,
                    pieces: dependant.definition.pieces,
                    stale,
                };
                (Arc::clone(dependant), needs)
            });
            dependant.collect::<Vec<_>>()
        };
        let mut all = of(reader, |one| !one.document.detached || one.is_in_memory());
        all.extend(of(&reader.next(), Aggregate::is_shadow));
        all
    }

    /// How far its floor may rise, and who holds it back.
    pub(crate) fn gate(&self, reader: &Reader) -> Gate {
        let dependants = self.dependants(reader).into_iter().map(|(_, needs)| needs);
        gate(&self.source, &dependants.collect::<Vec<_>>())
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

    /// Drops points that have expired, stored partials that nobody can bring back any more, and
    /// restatements that are not kept.
    pub(crate) async fn expire_and_forget(&self) -> Result<usize, AggregationError> {
        Ok(self.expire().await? + self.forget_previous().await? + self.trim_feeds().await?)
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
    pub(crate) async fn raise_floor(
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
        self.warn_of_overdue(&ageing, &gate);
        if !gate.is_open(&ageing.source) {
            return Ok(false);
        }
        let commit = raising(&reader, &ageing, gate.floor)?;
        self.engine().commit(commit).await?;
        info!(measurement = %id, floor = %gate.floor, "dropped expired points");
        Ok(true)
    }
}

impl Aggregates {
    /// Says, once a day for each, which dependants hold points back for longer than they may.
    fn warn_of_overdue(&self, ageing: &Ageing, gate: &Gate) {
        let Some(max_hold) = ageing.max_hold else { return };
        for held in gate.held_back.iter().filter(|one| one.is_overdue(&ageing.source, max_hold)) {
            let key = (ageing.id.clone(), Arc::clone(&held.by));
            if self.hold_alerts().lock().is_due(key, self.now()) {
                let held_seconds = held.held_nanos(&ageing.source) / NANOS_PER_SEC;
                warn!(measurement = %ageing.id, aggregate = %held.by, held_seconds, %max_hold,
                    waits_for = %held.waits_for, "expired points are kept for an aggregate");
            }
        }
    }
}

/// When it was last said who holds what back.
#[derive(Debug, Default)]
pub(crate) struct HoldAlerts(BTreeMap<(MeasurementId, Arc<str>), Timestamp>);

impl HoldAlerts {
    /// Whether it is to be said now that a dependant holds a measurement back: once each UTC day.
    fn is_due(&mut self, held: (MeasurementId, Arc<str>), now: Timestamp) -> bool {
        let today = now.start_of_day();
        self.0.insert(held, today) != Some(today)
    }
}

/// A measurement with points that should go, and its gate.
fn expired(reader: &Reader, id: &MeasurementId) -> Option<(Ageing, Gate)> {
    let ageing = ageing(reader).into_iter().find(|one| one.id == *id)?;
    let gate = ageing.gate(reader);
    ageing.has_points_before(gate.wanted).then_some((ageing, gate))
}

/// The commit that raises a floor, unless somebody touches what lies below it meanwhile.
pub(crate) fn raising(
    reader: &Reader,
    ageing: &Ageing,
    floor: Timestamp,
) -> Result<Commit, AggregationError> {
    let version = reader.session().version();
    let gone = TimeRange::before(floor);
    let id = ageing.id.clone();
    let mut commit = Commit::of([Edit::RaiseFloor { id: id.clone(), floor }]);
    commit.expect_untouched.push((id, gone, version.seq()));
    if let Some(aggregate) = reader.catalog().get(&ageing.name) {
        let [_, key] = aggregate.keys();
        let mut progress = Progress::clone(&aggregate.progress);
        progress.expire(gone);
        commit.expect_documents.push((key.clone(), version.document(&key).cloned()));
        commit.edits.push(aggregate.put_progress(&progress)?);
    }
    Ok(commit)
}

/// Everything that is stored and has a limited age: measurements first, then materializations.
pub(crate) fn ageing(reader: &Reader) -> Vec<Ageing> {
    let version = reader.session().version();
    let now = reader.session().now();
    let ageing = |stored: &Measurement, name: &Arc<str>, keep: Span, pieces| Ageing {
        id: stored.id().clone(),
        name: Arc::clone(name),
        keep,
        max_hold: None,
        source: Expiring { floor: stored.floor(), horizon: keep.before(now), pieces },
        oldest: stored.times().map(|times| times.start.max(stored.floor())),
    };
    let points = version
        .measurements(reader.session().database())
        .filter(|one| one.kind() == MeasurementKind::Points)
        .filter_map(|one| {
            let rule = version.retention_rule(one.id())?;
            let points = ageing(one, &one.id().measurement, rule.keep, None);
            Some(Ageing { max_hold: rule.max_hold, ..points })
        });
    let attached = reader.catalog().iter().filter(|aggregate| !aggregate.document.detached);
    let stored = attached.filter_map(|aggregate| {
        let keep = aggregate.definition.retention?;
        let stored = version.measurement(&aggregate.stored())?;
        let pieces = Some(aggregate.definition.pieces);
        let own = ageing(stored, aggregate.name(), keep, pieces);
        // What a restart took from memory expires like what is there.
        let taken = aggregate.progress.rebuilding.covered().hull().map(|hull| hull.start);
        let oldest = own.oldest.into_iter().chain(taken).min();
        Some(Ageing { oldest, ..own })
    });
    points.chain(stored).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_something_back_is_named_once_a_day() {
        let mut alerts = HoldAlerts::default();
        let mut is_due = |measurement: &str, by: &str, now: &str| {
            let key = (MeasurementId::new("t", measurement), Arc::from(by));
            alerts.is_due(key, Timestamp::parse(now).unwrap())
        };
        assert!(is_due("cpu", "hourly", "2024-01-01T23:00:00Z"));
        assert!(!is_due("cpu", "hourly", "2024-01-01T23:59:59Z"));
        assert!(is_due("cpu", "daily", "2024-01-01T23:59:59Z"));
        assert!(is_due("mem", "hourly", "2024-01-01T23:59:59Z"));
        assert!(is_due("cpu", "hourly", "2024-01-02T00:00:00Z"));
    }
}
