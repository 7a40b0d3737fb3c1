//! Writing line protocol: `/write` (InfluxDB 1), `/api/v2/write` and `/api/v3/write_lp`.
//!
//! The three differ in the names of their parameters and in how they say what went wrong; what is
//! stored is the same.

mod dialect;
mod lines;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use highwater_core::{ErrorKind, MeasurementId, Timestamp};
use highwater_storage::{MemoryPressure, StorageError, Version, WriteMode};

use self::dialect::{Dialect, Target};
use self::lines::Refusals;
use super::body;
use crate::app::{App, Server};
use crate::line_protocol::{Limits, Options, Parsed, Precision, parse_with};
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route(
            "/write",
            post(|state, uri, headers, body| write(Dialect::V1, state, uri, headers, body)),
        )
        .route(
            "/api/v2/write",
            post(|state, uri, headers, body| write(Dialect::V2, state, uri, headers, body)),
        )
        .route(
            "/api/v3/write_lp",
            post(|state, uri, headers, body| write(Dialect::V3, state, uri, headers, body)),
        )
}

async fn write(
    dialect: Dialect,
    State(server): State<Server>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let stored = async {
        let app = server.app()?;
        let target = dialect.target(&uri)?;
        if app.engine.memory_pressure() == MemoryPressure::Full {
            // The body would take memory too.
            return Err(StorageError::MemoryFull.into());
        }
        let body = body::read(&headers, body, &server.settings().limits).await?;
        store(&app, &target, body).await
    };
    match stored.await {
        Ok(refusals) if refusals.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Ok(refusals) => dialect.refuse_lines(&refusals),
        Err(refusal) => dialect.refuse(refusal),
    }
}

/// Stores all lines of a text, or none.
///
/// # Errors
/// Why nothing is stored, as a sentence.
pub(crate) async fn write_lines(
    app: &App,
    database: &Arc<str>,
    precision: Precision,
    lines: Bytes,
) -> Result<(), String> {
    let database = Arc::clone(database);
    let target = Target { database, precision, mode: WriteMode::AllOrNothing };
    match store(app, &target, lines).await {
        Ok(refusals) if refusals.is_empty() => Ok(()),
        Ok(refusals) => Err(refusals.in_a_sentence()),
        Err(refusal) => Err(refusal.message),
    }
}

/// Stores the lines of a body and returns those that were refused.
async fn store(app: &App, target: &Target, body: Bytes) -> Result<Refusals, Refusal> {
    let version = app.engine.version();
    let now = app.engine.clock().now();
    let parsed = parse(&version, target, body.clone(), now).await?;
    let mut refusals =
        Refusals::of(parsed.refused, parsed.refused_count, parsed.lines, target.mode);
    let (aggregates, batches): (Vec<_>, Vec<_>) = parsed
        .batches
        .into_iter()
        .map(|batch| (app.aggregates.refuse_write(&target.database, &batch.measurement), batch))
        .partition(|(refused, _)| refused.is_some());
    for (reason, batch) in aggregates {
        let reason = reason.unwrap_or_default();
        refusals.add(batch.lines.iter().map(|line| (*line, reason.clone())), &body);
    }
    if target.mode == WriteMode::AllOrNothing && !refusals.is_empty() {
        return Ok(refusals);
    }
    let batches: Vec<_> = batches.into_iter().map(|(_, batch)| batch).collect();
    if !batches.is_empty() {
        let measurements = batches.iter().map(|batch| &batch.measurement);
        let late = app.aggregates.late_rules(&target.database, measurements)?;
        let report = app.engine.write_late(&target.database, batches, target.mode, late).await?;
        metrics::counter!("highwater_server_written_points_total").increment(report.rows as u64);
        refusals.add(report.refused.into_iter().map(|line| (line.line, line.reason)), &body);
    }
    metrics::counter!("highwater_server_refused_lines_total").increment(refusals.count() as u64);
    Ok(refusals)
}

/// Reads lines, long bodies away from the threads that answer requests.
async fn parse(
    version: &Arc<Version>,
    target: &Target,
    body: Bytes,
    now: Timestamp,
) -> Result<Parsed, Refusal> {
    let (version, database) = (Arc::clone(version), Arc::clone(&target.database));
    let precision = target.precision;
    let is_large = body.len() > body::LARGE_BYTES;
    let read = move || {
        let schema_of = |measurement: &str| {
            let id = MeasurementId::new(Arc::clone(&database), measurement);
            version.measurement(&id).map(|stored| Arc::clone(stored.schema()))
        };
        let limits = Limits::default();
        let options =
            Options { precision, default_time: now, limits: &limits, schema_of: &schema_of };
        parse_with(&body, &options)
    };
    if !is_large {
        return Ok(read());
    }
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|e| Refusal::of(&e, ErrorKind::Internal))
}
