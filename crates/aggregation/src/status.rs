//! What an aggregate looks like from outside: one struct for REST, SQL and metrics.

use highwater_core::schema::TIME_COLUMN;
use highwater_core::{SequenceNumber, TimeRanges, Timestamp};
use serde::Serialize;

use crate::background_audit::Audited;
use crate::catalog::{Aggregate, Origin};
use crate::definition::AggregateRule;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::lanes::Lane;
use crate::plan::{Occasion, RefreshPlan};
use crate::resident::{ResidentStatus, resident_status};
use crate::schedule::Schedule;
use crate::shadow;

/// An aggregate and how it is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AggregateStatus {
    /// Name in its database.
    pub name: String,
    /// The measurement or aggregate it reads.
    pub source: String,
    /// `active`, `disabled`, `building` (a changed definition is), `failed` (the last refresh failed,
    /// or the source has become one that the definition does not fit), `rebuilding` (what a restart took
    /// from memory is computed again) or `detached`.
    pub status: &'static str,
    /// Where the definition came from.
    pub origin: Origin,
    /// Whether it is refreshed on schedule.
    pub enabled: bool,
    /// `realtime`, `periodic`, `on_demand` or `hybrid`.
    pub strategy: &'static str,
    /// `durable`, `hybrid` or `memory`.
    pub storage: &'static str,
    /// What is in memory with storage `hybrid` or `memory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident: Option<ResidentStatus>,
    /// The lane of the refresh that runs now, if one does: `live`, `repair` or `backfill`.
    pub lane: Option<&'static str>,
    /// The rule, as it can be posted again.
    pub definition: AggregateRule,
    /// Outputs and their types, as far as the source is known.
    pub columns: Vec<ColumnStatus>,
    /// Event time up to which buckets are closed and materialized.
    pub last_processed: Option<Timestamp>,
    /// The oldest commit that some stored partial reflects.
    pub applied_seq: Option<SequenceNumber>,
    /// Buckets whose stored partials do not reflect the source, open ones included.
    pub stale_buckets: u64,
    /// Start of the oldest of them.
    pub oldest_stale: Option<Timestamp>,
    /// Whether a scheduled refresh would find work now.
    pub pending: bool,
    /// Now minus `last_processed`, in seconds.
    pub lag_seconds: Option<f64>,
    /// Now minus `last_refresh`, in seconds.
    pub seconds_stale: Option<f64>,
    /// Refreshes that succeeded.
    pub refresh_count: u64,
    /// Refreshes that failed since the server started.
    pub error_count: u64,
    /// When a refresh last succeeded.
    pub last_refresh: Option<Timestamp>,
    /// Why the last refresh failed, until one succeeds, or why the definition does not fit.
    pub last_error: Option<String>,
    /// Rows of partials written by refreshes.
    pub rows_recomputed: u64,
    /// Rows of partials that came, went or changed by that.
    pub rows_changed: u64,
    /// `rows_recomputed` for each of `rows_changed`; `None` before the first change. One means that
    /// no row was computed in vain.
    pub amplification: Option<f64>,
    /// Buckets computed by refreshes.
    pub buckets_recomputed: u64,
    /// Closed buckets whose stored partials changed afterwards.
    pub revisions: u64,
    /// When stored partials were last audited since the server started.
    pub last_audit: Option<Timestamp>,
    /// Rows that were not what they should be, in all of these audits.
    pub audit_mismatches: u64,
    /// What had expired by force before it was applied: buckets there are missing points for good.
    #[serde(skip_serializing_if = "TimeRanges::is_empty")]
    pub lost: TimeRanges,
    /// Mean time of a refresh, in milliseconds.
    pub avg_duration_ms: Option<f64>,
    /// Rows stored, hidden ones included until compaction.
    pub rows: u64,
    /// Bytes of the segments.
    pub bytes: u64,
    /// Counts changes of the definition that needed new stored partials.
    pub version: u32,
    /// The definition that takes over once it is built, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub building: Option<BuildingStatus>,
    /// What an undo would bring back, if it can bring back anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousStatus>,
    /// Whether it is in force and not detached, so that it can be refreshed.
    #[serde(skip)]
    pub is_attached: bool,
}

/// A definition that is being built.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BuildingStatus {
    /// Its version.
    pub version: u32,
    /// The rule.
    pub definition: AggregateRule,
    /// Share of the buckets it needs that it has, from 0 to 1.
    pub progress: f64,
    /// Why the last step failed, until one succeeds.
    pub last_error: Option<String>,
}

/// What was in force before the last change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreviousStatus {
    /// Its version.
    pub version: u32,
    /// The rule.
    pub definition: AggregateRule,
    /// When it can no longer be brought back.
    pub until: Timestamp,
}

impl AggregateStatus {
    /// The rule that shall be in force: the one being built, if there is one.
    pub fn wanted_definition(&self) -> &AggregateRule {
        self.building.as_ref().map_or(&self.definition, |building| &building.definition)
    }

    /// The same with what audits found.
    pub(crate) fn with_audits(self, audited: Audited) -> Self {
        let (last_audit, audit_mismatches) = (audited.last, audited.mismatches);
        AggregateStatus { last_audit, audit_mismatches, ..self }
    }

    /// The same while memory is too small for it.
    pub(crate) fn without_room(mut self) -> Self {
        if let Some(resident) = &mut self.resident {
            resident.reason = Some(
                "aggregation.resident_mb has no room for all of it; the rest is read from its source",
            );
        }
        self
    }

    /// The same with what is being built, and what can be brought back. `run` is how building it
    /// fares.
    pub(crate) fn with_change(mut self, reader: &Reader, run: Option<&Schedule>) -> Self {
        let previous = reader.catalog().previous().get(&*self.name);
        let previous = previous.filter(|one| one.until > reader.session().now());
        self.previous = previous.map(|one| PreviousStatus {
            version: one.document.version,
            definition: one.document.rule.clone(),
            until: one.until,
        });
        if let Some(shadow) = reader.catalog().shadow(&self.name) {
            let of_job = shadow.job.as_ref().and_then(|job| job.error_message.clone());
            let last_error = of_job.or_else(|| run.and_then(|run| run.last_error.clone()));
            let has_failed = last_error.is_some() || self.status == "failed";
            self.status = if has_failed { "failed" } else { "building" };
            self.building = Some(BuildingStatus {
                version: shadow.document.version,
                definition: shadow.document.rule.clone(),
                progress: shadow::progress(&reader.next(), shadow),
                last_error,
            });
        }
        self
    }
}

/// One column of an aggregate's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnStatus {
    /// Name of the column.
    pub name: String,
    /// `time`, `group`, or the function as written in rules.
    pub function: String,
    /// From when on the column is valid; `None`: always.
    pub valid_from: Option<Timestamp>,
}

/// How an aggregate is doing at the reader's version.
pub(crate) fn status(
    reader: &Reader,
    aggregate: &Aggregate,
    schedule: &Schedule,
    lane: Option<Lane>,
) -> AggregateStatus {
    let (document, progress) = (&aggregate.document, &aggregate.progress);
    let definition = &aggregate.definition;
    let now = reader.session().now();
    let stale = reader.stale(aggregate, &reader.kept(aggregate));
    let stored = reader.session().version().measurement(&aggregate.stored());
    let segments = || stored.into_iter().flat_map(|stored| stored.segments());
    let seconds_since = |at: Timestamp| (now.as_nanos() - at.as_nanos()) as f64 / 1e9;
    // Points may have come that a function does not take.
    let (columns, misfit) = match columns(reader, aggregate) {
        Ok(columns) => (columns, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let last_error = misfit.or_else(|| schedule.last_error.clone());
    AggregateStatus {
        name: aggregate.name().to_string(),
        source: definition.rule.source.clone(),
        status: state(reader, aggregate, last_error.is_some()),
        origin: document.origin,
        enabled: document.enabled,
        strategy: definition.refresh.strategy(),
        storage: definition.storage.name(),
        resident: resident_status(reader, aggregate),
        lane: lane.map(Lane::name),
        definition: document.rule.clone(),
        columns,
        last_processed: progress.last_processed,
        applied_seq: progress.applied.lowest(),
        stale_buckets: definition.pieces.count_buckets(&stale),
        oldest_stale: stale.hull().map(|hull| hull.start),
        pending: aggregate.is_scheduled()
            && (aggregate.job.as_ref().is_some_and(|job| job.is_running())
                || reader.plan(aggregate, Occasion::Scheduled) != RefreshPlan::UpToDate),
        lag_seconds: progress.last_processed.map(seconds_since),
        seconds_stale: progress.last_refresh.map(seconds_since),
        refresh_count: progress.refresh_count,
        error_count: schedule.error_count,
        last_refresh: progress.last_refresh,
        last_error,
        rows_recomputed: progress.rows_recomputed,
        rows_changed: progress.rows_changed,
        amplification: (progress.rows_changed > 0)
            .then(|| progress.rows_recomputed as f64 / progress.rows_changed as f64),
        buckets_recomputed: progress.buckets_recomputed,
        revisions: progress.revisions,
        last_audit: None,
        audit_mismatches: 0,
        lost: progress.lost.clone(),
        avg_duration_ms: (progress.refresh_count > 0)
            .then(|| progress.refresh_ms as f64 / progress.refresh_count as f64),
        rows: segments().map(|segment| segment.rows).sum(),
        bytes: segments().map(|segment| segment.bytes).sum(),
        version: document.version,
        building: None,
        previous: None,
        is_attached: !document.detached && !aggregate.is_shadow(),
    }
}

/// One word for how an aggregate stands that does or does not fail.
fn state(reader: &Reader, aggregate: &Aggregate, fails: bool) -> &'static str {
    let document = &aggregate.document;
    match (document.detached, document.enabled) {
        (true, _) => "detached",
        (false, false) => "disabled",
        (false, true) if fails => "failed",
        (false, true) if !reader.rebuilding(aggregate).is_empty() => "rebuilding",
        (false, true) => "active",
    }
}

fn columns(reader: &Reader, aggregate: &Aggregate) -> Result<Vec<ColumnStatus>, AggregationError> {
    let resolved = reader.resolve(aggregate)?;
    let column = |name: &str, function: &str| ColumnStatus {
        name: name.to_owned(),
        function: function.to_owned(),
        valid_from: None,
    };
    let valid_from = |output| reader.valid_from(aggregate, output);
    let time = aggregate.definition.has_time().then(|| column(TIME_COLUMN, "time"));
    let groups = resolved.groups.iter().map(|group| column(&group.name, "group"));
    let outputs = resolved.outputs.iter();
    let outputs = outputs.map(|output| ColumnStatus {
        valid_from: valid_from(output),
        ..column(&output.name, output.function.name())
    });
    Ok(time.into_iter().chain(groups).chain(outputs).collect())
}
