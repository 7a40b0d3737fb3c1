//! `/api/v1/measurements`: dropping a measurement.

use axum::extract::Path;
use axum::routing::delete;
use axum::{Json, Router};
use highwater_aggregation::Readers;
use serde::Deserialize;
use serde_json::{Value, json};

use super::database::choose;
use super::params::UrlParams;
use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/api/v1/measurements/{name}", delete(remove))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveParams {
    db: Option<String>,
    aggregates: Option<WithAggregates>,
}

/// What becomes of the aggregates that read it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WithAggregates {
    Keep,
    Drop,
}

async fn remove(
    app: App,
    Path(name): Path<String>,
    UrlParams(params): UrlParams<RemoveParams>,
) -> Result<Json<Value>, Refusal> {
    let database = choose(&app.engine.version(), params.db)?;
    let readers = match params.aggregates {
        None => Readers::Refuse,
        Some(WithAggregates::Keep) => Readers::Keep,
        Some(WithAggregates::Drop) => Readers::Drop,
    };
    run_to_end(async move {
        app.aggregates.drop_measurement(&database, &name, readers).await?;
        Ok(Json(json!({ "name": name, "status": "dropped" })))
    })
    .await
}
