//! Tables of the schema `system`: what the database knows of itself.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use highwater_core::schema::time_data_type;
use highwater_core::{SequenceNumber, Timestamp};
use highwater_query::QuerySession;
use serde::Serialize;

use crate::error::AggregationError;
use crate::jobs::view;
use crate::restatements::RestatementsTable;
use crate::retention_status::retention_status;
use crate::runtime::Shared;
use crate::status::AggregateStatus;

/// Names of the tables.
pub(crate) const TABLES: [&str; 9] = [
    "aggregate_runs",
    "aggregates",
    "compactions",
    "job_events",
    "jobs",
    "quarantine",
    "restatements",
    "retention",
    "segments",
];

/// The table of that name, as of now.
pub(crate) fn table(
    shared: &Shared,
    session: &QuerySession,
    name: &str,
) -> Option<Result<Arc<dyn TableProvider>, AggregationError>> {
    match name {
        "aggregates" => Some(aggregates(shared, session)),
        "aggregate_runs" => Some(runs(shared)),
        "compactions" => Some(compactions(session)),
        "job_events" => Some(view::job_events(shared, session)),
        "jobs" => Some(view::jobs(shared, session)),
        "quarantine" => Some(quarantine(session)),
        "restatements" => Some(restatements(shared, session)),
        "retention" => Some(retention(shared, session)),
        "segments" => Some(segments(session)),
        _ => None,
    }
}

/// A table of rows that serialize to objects with the columns' names as keys.
pub(crate) fn of_rows(
    columns: &[(&str, DataType)],
    rows: &[impl Serialize],
) -> Result<Arc<dyn TableProvider>, AggregationError> {
    let batch = batch_of(columns, rows)?;
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}

/// The schema of columns of these names and types.
pub(crate) fn schema_of(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows that serialize to objects with the columns' names as keys.
pub(crate) fn batch_of(
    columns: &[(&str, DataType)],
    rows: &[impl Serialize],
) -> Result<RecordBatch, AggregationError> {
    let schema = schema_of(columns);
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema))
        .with_batch_size(rows.len().max(1))
        .build_decoder()
        .map_err(highwater_storage::StorageError::from)?;
    decoder.serialize(rows).map_err(highwater_storage::StorageError::from)?;
    let batch = decoder.flush().map_err(highwater_storage::StorageError::from)?;
    Ok(batch.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}

/// One row of `system.aggregates`.
#[derive(Serialize)]
struct AggregateRow {
    name: String,
    source: String,
    state: &'static str,
    strategy: &'static str,
    lane: Option<&'static str>,
    storage: &'static str,
    watermark: Option<Timestamp>,
    last_refresh: Option<Timestamp>,
    seconds_stale: Option<f64>,
    lag_seconds: Option<f64>,
    stale_buckets: u64,
    oldest_stale: Option<Timestamp>,
    refresh_count: u64,
    error_count: u64,
    last_error: Option<String>,
    rows: u64,
    bytes: u64,
    avg_duration_ms: Option<f64>,
    applied_seq: Option<SequenceNumber>,
    revisions: u64,
    rows_recomputed: u64,
    rows_changed: u64,
    amplification: Option<f64>,
    last_audit: Option<Timestamp>,
    audit_mismatches: u64,
    version: u32,
    resident_rows: Option<u64>,
}

impl From<AggregateStatus> for AggregateRow {
    fn from(one: AggregateStatus) -> Self {
        AggregateRow {
            strategy: one.strategy,
            lane: one.lane,
            storage: one.storage,
            name: one.name,
            source: one.source,
            state: one.status,
            watermark: one.last_processed,
            last_refresh: one.last_refresh,
            seconds_stale: one.seconds_stale,
            lag_seconds: one.lag_seconds,
            stale_buckets: one.stale_buckets,
            oldest_stale: one.oldest_stale,
            refresh_count: one.refresh_count,
            error_count: one.error_count,
            last_error: one.last_error,
            rows: one.rows,
            bytes: one.bytes,
            avg_duration_ms: one.avg_duration_ms,
            applied_seq: one.applied_seq,
            revisions: one.revisions,
            rows_recomputed: one.rows_recomputed,
            rows_changed: one.rows_changed,
            amplification: one.amplification,
            last_audit: one.last_audit,
            audit_mismatches: one.audit_mismatches,
            version: one.version,
            resident_rows: one.resident.map(|resident| resident.rows),
        }
    }
}

fn aggregates(
    shared: &Shared,
    session: &QuerySession,
) -> Result<Arc<dyn TableProvider>, AggregationError> {
    let statuses = shared.statuses(&shared.reader_of(session)?);
    let rows: Vec<AggregateRow> = statuses.into_iter().map(AggregateRow::from).collect();
    let columns = [
        ("name", DataType::Utf8),
        ("source", DataType::Utf8),
        ("state", DataType::Utf8),
        ("strategy", DataType::Utf8),
        ("lane", DataType::Utf8),
        ("storage", DataType::Utf8),
        ("watermark", time_data_type()),
        ("last_refresh", time_data_type()),
        ("seconds_stale", DataType::Float64),
        ("lag_seconds", DataType::Float64),
        ("stale_buckets", DataType::UInt64),
        ("oldest_stale", time_data_type()),
        ("refresh_count", DataType::UInt64),
        ("error_count", DataType::UInt64),
        ("last_error", DataType::Utf8),
        ("rows", DataType::UInt64),
        ("bytes", DataType::UInt64),
        ("avg_duration_ms", DataType::Float64),
        ("applied_seq", DataType::UInt64),
        ("revisions", DataType::UInt64),
        ("rows_recomputed", DataType::UInt64),
        ("rows_changed", DataType::UInt64),
        ("amplification", DataType::Float64),
        ("last_audit", time_data_type()),
        ("audit_mismatches", DataType::UInt64),
        ("version", DataType::UInt32),
        ("resident_rows", DataType::UInt64),
    ];
    of_rows(&columns, &rows)
}

fn runs(shared: &Shared) -> Result<Arc<dyn TableProvider>, AggregationError> {
    #[derive(Serialize)]
    struct Row {
        name: String,
        database: String,
        started: Timestamp,
        state: &'static str,
        lane: &'static str,
        reason: String,
        buckets_recomputed: u64,
        points_scanned: u64,
        rows_written: u64,
        rows_changed: u64,
        revisions: u64,
        duration_ms: f64,
        error: Option<String>,
    }
    let schedules = shared.schedules.lock();
    let rows: Vec<Row> = schedules
        .runs()
        .map(|run| Row {
            name: run.id.name.to_string(),
            database: run.id.database.to_string(),
            started: run.started,
            state: if run.error.is_some() { "failed" } else { "ok" },
            lane: run.lane.name(),
            reason: run.reason.clone(),
            buckets_recomputed: run.cost.buckets,
            points_scanned: run.cost.points_scanned,
            rows_written: run.cost.rows,
            rows_changed: run.cost.rows_changed,
            revisions: run.cost.revisions,
            duration_ms: run.cost.duration_ms,
            error: run.error.clone(),
        })
        .collect();
    let columns = [
        ("name", DataType::Utf8),
        ("database", DataType::Utf8),
        ("started", time_data_type()),
        ("state", DataType::Utf8),
        ("lane", DataType::Utf8),
        ("reason", DataType::Utf8),
        ("buckets_recomputed", DataType::UInt64),
        ("points_scanned", DataType::UInt64),
        ("rows_written", DataType::UInt64),
        ("rows_changed", DataType::UInt64),
        ("revisions", DataType::UInt64),
        ("duration_ms", DataType::Float64),
        ("error", DataType::Utf8),
    ];
    of_rows(&columns, &rows)
}

fn restatements(
    shared: &Shared,
    session: &QuerySession,
) -> Result<Arc<dyn TableProvider>, AggregationError> {
    Ok(Arc::new(RestatementsTable::new(shared.reader_of(session)?)))
}

fn retention(
    shared: &Shared,
    session: &QuerySession,
) -> Result<Arc<dyn TableProvider>, AggregationError> {
    let rows = retention_status(&shared.reader_of(session)?, shared);
    let columns = [
        ("measurement", DataType::Utf8),
        ("keep", DataType::Utf8),
        ("horizon", time_data_type()),
        ("dropped_before", time_data_type()),
        ("held_back_by", DataType::Utf8),
        ("held_seconds", DataType::Float64),
        ("max_hold", DataType::Utf8),
        ("overdue", DataType::Boolean),
        ("late_after_retention", DataType::Utf8),
        ("late_dropped", DataType::UInt64),
        ("paused", DataType::Utf8),
    ];
    of_rows(&columns, &rows)
}

fn compactions(session: &QuerySession) -> Result<Arc<dyn TableProvider>, AggregationError> {
    #[derive(Serialize)]
    struct Row {
        measurement: String,
        database: String,
        started: Timestamp,
        reason: String,
        segments: u64,
        results: u64,
        bytes_read: u64,
        bytes_written: u64,
        rows: u64,
        duration_ms: f64,
    }
    let rows = session.engine().storage().compactions().into_iter().map(|run| Row {
        measurement: run.measurement.measurement.to_string(),
        database: run.measurement.database.to_string(),
        started: run.started,
        reason: run.reason,
        segments: run.segments as u64,
        results: run.results as u64,
        bytes_read: run.bytes_read,
        bytes_written: run.bytes_written,
        rows: run.rows,
        duration_ms: run.duration_ms,
    });
    let columns = [
        ("measurement", DataType::Utf8),
        ("database", DataType::Utf8),
        ("started", time_data_type()),
        ("reason", DataType::Utf8),
        ("segments", DataType::UInt64),
        ("results", DataType::UInt64),
        ("bytes_read", DataType::UInt64),
        ("bytes_written", DataType::UInt64),
        ("rows", DataType::UInt64),
        ("duration_ms", DataType::Float64),
    ];
    of_rows(&columns, &rows.collect::<Vec<Row>>())
}

fn quarantine(session: &QuerySession) -> Result<Arc<dyn TableProvider>, AggregationError> {
    #[derive(Serialize)]
    struct Row<'a> {
        measurement: &'a str,
        kind: &'static str,
        path: &'a str,
        kept: String,
        rows: u64,
        bytes: u64,
        min_time: Timestamp,
        end_time: Timestamp,
        damage: Option<&'a str>,
        given_up: Timestamp,
        seq: SequenceNumber,
    }
    let all = session.version().quarantine().iter();
    let own = all.filter(|one| one.id.database == *session.database());
    let rows = own.map(|one| Row {
        measurement: &one.id.measurement,
        kind: one.kind.name(),
        path: &one.segment.path,
        kept: one.kept_path(),
        rows: one.segment.rows,
        bytes: one.segment.bytes,
        min_time: one.segment.times.start,
        end_time: one.segment.times.end,
        damage: one.damage.as_deref(),
        given_up: one.at,
        seq: one.seq,
    });
    let columns = [
        ("measurement", DataType::Utf8),
        ("kind", DataType::Utf8),
        ("path", DataType::Utf8),
        ("kept", DataType::Utf8),
        ("rows", DataType::UInt64),
        ("bytes", DataType::UInt64),
        ("min_time", time_data_type()),
        ("end_time", time_data_type()),
        ("damage", DataType::Utf8),
        ("given_up", time_data_type()),
        ("seq", DataType::UInt64),
    ];
    of_rows(&columns, &rows.collect::<Vec<Row<'_>>>())
}

fn segments(session: &QuerySession) -> Result<Arc<dyn TableProvider>, AggregationError> {
    #[derive(Serialize)]
    struct Row<'a> {
        measurement: &'a str,
        kind: &'static str,
        path: &'a str,
        rows: u64,
        bytes: u64,
        min_time: Timestamp,
        end_time: Timestamp,
        min_seq: SequenceNumber,
        max_seq: SequenceNumber,
        damage: Option<&'a str>,
    }
    let damaged = session.engine().storage().damaged_segments();
    let mut rows = Vec::new();
    for measurement in session.version().measurements(session.database()) {
        let kind = measurement.kind().name();
        let on_disk = measurement.segments().filter(|segment| !segment.is_in_memory());
        rows.extend(on_disk.map(|segment| Row {
            measurement: &measurement.id().measurement,
            kind,
            path: &segment.path,
            rows: segment.rows,
            bytes: segment.bytes,
            min_time: segment.times.start,
            end_time: segment.times.end,
            min_seq: segment.min_seq,
            max_seq: segment.max_seq,
            damage: damaged.get(&segment.path).map(String::as_str),
        }));
    }
    let columns = [
        ("measurement", DataType::Utf8),
        ("kind", DataType::Utf8),
        ("path", DataType::Utf8),
        ("rows", DataType::UInt64),
        ("bytes", DataType::UInt64),
        ("min_time", time_data_type()),
        ("end_time", time_data_type()),
        ("min_seq", DataType::UInt64),
        ("max_seq", DataType::UInt64),
        ("damage", DataType::Utf8),
    ];
    of_rows(&columns, &rows)
}
