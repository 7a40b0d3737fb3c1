//! How retention stands: what expires, who holds it back, and what became of points that came late.

use std::sync::Arc;

use highwater_core::{TimeRange, Timestamp};
use highwater_storage::LatePoints;
use serde::Serialize;

use crate::error::AggregationError;
use crate::exact::Reader;
use crate::expiry::{Ageing, ageing};
use crate::late::late_points_of;
use crate::runtime::{Aggregates, Shared};

/// How retention of one measurement or aggregate stands; a row of `system.retention`.
#[derive(Clone, Debug, Serialize)]
pub struct RetentionStatus {
    /// Its name.
    pub measurement: String,
    /// How long it is kept.
    pub keep: String,
    /// Readers see points from here on.
    pub horizon: Timestamp,
    /// Points before this instant are gone for good.
    pub dropped_before: Option<Timestamp>,
    /// Aggregates that have not applied what should go next, and what that is.
    pub held_back_by: Option<String>,
    /// For how long the earliest that waits to be applied is past its age.
    pub held_seconds: Option<f64>,
    /// How long that may be, if the rule says so.
    pub max_hold: Option<String>,
    /// Whether it is longer.
    pub overdue: bool,
    /// What becomes of points that are too old: `reject` or `drop`; `None` for an aggregate.
    pub late_after_retention: Option<&'static str>,
    /// Points left out because they were too old, since the start.
    pub late_dropped: u64,
    /// Why nothing is dropped at present, whatever its age.
    pub paused: Option<String>,
}

/// How retention stands in the reader's database: measurements first, then aggregates.
pub(crate) fn retention_status(reader: &Reader, shared: &Shared) -> Vec<RetentionStatus> {
    let paused = shared.clock_guard.lock().objection();
    let dropped = reader.session().engine().storage().dropped_late();
    let status = |one: Ageing| RetentionStatus {
        paused: paused.clone(),
        late_dropped: dropped.get(&one.id).copied().unwrap_or(0),
        ..of(&one, reader)
    };
    ageing(reader).into_iter().map(status).collect()
}

fn of(one: &Ageing, reader: &Reader) -> RetentionStatus {
    let gate = one.gate(reader);
    let held: Vec<String> = gate.held_back.iter().map(ToString::to_string).collect();
    let held_nanos = gate.held_back.iter().map(|held| held.held_nanos(&one.source)).max();
    let is_overdue = |most| gate.held_back.iter().any(|held| held.is_overdue(&one.source, most));
    let is_of_points = one.source.pieces.is_none();
    RetentionStatus {
        measurement: one.name.to_string(),
        keep: one.keep.to_string(),
        horizon: one.source.horizon,
        dropped_before: Some(one.source.floor).filter(|at| *at > TimeRange::ALL.start),
        held_back_by: (!held.is_empty()).then(|| held.join("; ")),
        held_seconds: held_nanos.filter(|nanos| *nanos > 0).map(|nanos| nanos as f64 / 1e9),
        max_hold: one.max_hold.map(|most| most.to_string()),
        overdue: one.max_hold.is_some_and(is_overdue),
        late_after_retention: is_of_points
            .then(|| word(late_points_of(reader.catalog(), &one.name))),
        late_dropped: 0,
        paused: None,
    }
}

/// As rules spell it.
fn word(late: LatePoints) -> &'static str {
    match late {
        LatePoints::Refuse => "reject",
        LatePoints::Drop => "drop",
    }
}

impl Aggregates {
    /// How retention stands in a database.
    ///
    /// # Errors
    /// If a stored definition cannot be read.
    pub fn retention(&self, database: &Arc<str>) -> Result<Vec<RetentionStatus>, AggregationError> {
        Ok(retention_status(&self.reader(database)?, self.shared()))
    }
}
