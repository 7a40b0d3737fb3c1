//! `/api/v1/segments/quarantine`: a damaged segment is given up.

use axum::routing::post;
use axum::{Json, Router};
use highwater_aggregation::Loss;
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/api/v1/segments/quarantine", post(quarantine))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Path of the segment, as `system.segments` has it.
    segment: String,
    /// Only says what would go.
    #[serde(default)]
    dry_run: bool,
    /// A sound segment goes too.
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Outcome {
    /// Whether the segment is given up now.
    done: bool,
    #[serde(flatten)]
    loss: Loss,
}

async fn quarantine(
    app: App,
    JsonBody(Wanted { segment, dry_run, force }): JsonBody<Wanted>,
) -> Result<Json<Outcome>, Refusal> {
    run_to_end(async move {
        let loss = match dry_run {
            true => app.aggregates.plan_quarantine(&segment, force).await?,
            false => app.aggregates.quarantine(&segment, force).await?,
        };
        Ok(Json(Outcome { done: !dry_run, loss }))
    })
    .await
}
