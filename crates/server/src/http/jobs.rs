//! `/api/v1/jobs`: builds of aggregates over history, and what somebody can do with them.

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Json, Router};
use highwater_aggregation::{Backfill, JobState, JobStatus, Move};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::OptionalJsonBody;
use super::database::{Scope, choose};
use super::params::UrlParams;
use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/api/v1/jobs", get(list))
        .route("/api/v1/jobs/{which}", get(show))
        .route("/api/v1/jobs/{which}/pause", post(pause))
        .route("/api/v1/jobs/{which}/resume", post(resume))
        .route("/api/v1/jobs/{which}/retry", post(retry))
        .route("/api/v1/jobs/{which}/cancel", post(cancel))
        .route("/api/v1/aggregates/{name}/backfill", post(backfill))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    db: Option<String>,
    status: Option<String>,
    name: Option<String>,
}

/// Jobs, newest first.
async fn list(app: App, UrlParams(params): UrlParams<ListParams>) -> Result<Json<Value>, Refusal> {
    let status = params.status.as_deref().map(state).transpose()?;
    let version = app.engine.version();
    let mut jobs = match (&params.db, version.databases().next()) {
        (None, None) => Vec::new(),
        _ => app.aggregates.jobs(&choose(&version, params.db)?)?,
    };
    jobs.retain(|job| {
        status.is_none_or(|status| job.status == status)
            && params.name.as_ref().is_none_or(|name| job.name == *name)
    });
    Ok(Json(json!({ "jobs": jobs })))
}

fn state(name: &str) -> Result<JobState, Refusal> {
    JobState::parse(name).ok_or_else(|| {
        let all = JobState::ALL.map(JobState::name).join(", ");
        Refusal::invalid(format!("there is no status {name}; one of {all}"))
    })
}

async fn show(
    app: App,
    Path(which): Path<String>,
    Scope(database): Scope,
) -> Result<Json<JobStatus>, Refusal> {
    Ok(Json(app.aggregates.job(&database, &which)?))
}

async fn pause(app: App, which: Path<String>, scope: Scope) -> Result<Json<JobStatus>, Refusal> {
    moved(app, which, scope, Move::Pause).await
}

async fn resume(app: App, which: Path<String>, scope: Scope) -> Result<Json<JobStatus>, Refusal> {
    moved(app, which, scope, Move::Resume).await
}

async fn retry(app: App, which: Path<String>, scope: Scope) -> Result<Json<JobStatus>, Refusal> {
    moved(app, which, scope, Move::Retry).await
}

async fn cancel(app: App, which: Path<String>, scope: Scope) -> Result<Json<JobStatus>, Refusal> {
    moved(app, which, scope, Move::Cancel).await
}

async fn moved(
    app: App,
    Path(which): Path<String>,
    Scope(database): Scope,
    wanted: Move,
) -> Result<Json<JobStatus>, Refusal> {
    run_to_end(async move { Ok(Json(app.aggregates.move_job(&database, &which, wanted).await?)) })
        .await
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    #[serde(default)]
    force: bool,
    batch_size: Option<u64>,
}

/// Starts the build of an aggregate, or lets it go on, or builds it again from zero.
async fn backfill(
    app: App,
    Path(name): Path<String>,
    Scope(database): Scope,
    OptionalJsonBody(Start { force, batch_size }): OptionalJsonBody<Start>,
) -> Result<Json<JobStatus>, Refusal> {
    let wanted = Backfill { force, batch_size };
    run_to_end(async move { Ok(Json(app.aggregates.backfill(&database, &name, wanted).await?)) })
        .await
}
