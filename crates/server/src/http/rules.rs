//! `/api/v1/rules/reload`: what SIGHUP does, with an answer.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use highwater_aggregation::AggregateId;
use serde_json::{Value, json};

use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;
use crate::rules::apply_folder;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/api/v1/rules/reload", post(reload))
}

async fn reload(app: App, State(server): State<Server>) -> Result<Json<Value>, Refusal> {
    let folder = server.settings().rules.clone();
    let Some(folder) = folder else {
        let message = "this server was started without a rules folder; start it with --rules";
        return Err(Refusal::invalid(message));
    };
    let applied =
        run_to_end(async move { Ok(apply_folder(&app.aggregates, &folder).await?) }).await?;
    let names = |ids: &[AggregateId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(Json(json!({
        "added": names(&applied.added),
        "changed": names(&applied.changed),
        "detached": names(&applied.detached),
    })))
}
