//! `/api/v1/retention`: what expires and who holds it back; letting it go by force; and expiry that
//! waits for somebody to say that the clock is right.

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use highwater_aggregation::ForcedExpiry;
use highwater_core::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::JsonBody;
use super::database::{Scope, choose};
use super::params::UrlParams;
use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/api/v1/retention", get(list))
        .route("/api/v1/retention/force", post(force))
        .route("/api/v1/retention/resume", post(resume))
}

async fn list(app: App, Scope(database): Scope) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!({ "retention": app.aggregates.retention(&database)? })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForceParams {
    db: Option<String>,
}

/// What is to go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Force {
    measurement: String,
    database: Option<String>,
    before: Option<Timestamp>,
    #[serde(default)]
    dry_run: bool,
}

async fn force(
    app: App,
    UrlParams(params): UrlParams<ForceParams>,
    JsonBody(Force { measurement, database, before, dry_run }): JsonBody<Force>,
) -> Result<Json<ForcedExpiry>, Refusal> {
    let named = match (params.db, database) {
        (Some(one), Some(other)) if one != other => {
            let message = format!("db says {one}, the body {other}; name one database");
            return Err(Refusal::invalid(message));
        }
        (one, other) => one.or(other),
    };
    let database = choose(&app.engine.version(), named)?;
    run_to_end(async move {
        let forced = app.aggregates.force_expiry(&database, &measurement, before, dry_run).await?;
        Ok(Json(forced))
    })
    .await
}

async fn resume(app: App) -> StatusCode {
    app.aggregates.resume_expiry();
    StatusCode::NO_CONTENT
}
