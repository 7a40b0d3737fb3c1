//! `/api/v1/downsampling`: aggregates that keep every series, named by their targets.

use axum::extract::Path;
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Json, Router};
use highwater_aggregation::rules::DownsamplingRule;
use serde::Deserialize;
use serde_json::{Value, json};

use super::aggregates::{invalid_definition, register};
use super::body::JsonBody;
use super::database::{Scope, choose};
use super::params::UrlParams;
use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/api/v1/downsampling", get(list).post(create))
        .route("/api/v1/downsampling/{target}", delete(remove))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    db: Option<String>,
    source: Option<String>,
}

async fn list(app: App, UrlParams(params): UrlParams<ListParams>) -> Result<Json<Value>, Refusal> {
    let version = app.engine.version();
    let aggregates = match (&params.db, version.databases().next()) {
        (None, None) => Vec::new(),
        _ => app.aggregates.list(&choose(&version, params.db)?)?,
    };
    let is_wanted = |rule: &DownsamplingRule| {
        params.source.as_ref().is_none_or(|source| rule.source == *source)
    };
    let attached = aggregates.iter().filter(|one| one.status != "detached");
    let rules = attached.filter_map(|one| DownsamplingRule::of(&one.definition));
    let rules: Vec<DownsamplingRule> = rules.filter(is_wanted).collect();
    Ok(Json(json!({ "downsampling": rules })))
}

async fn create(
    app: App,
    Scope(database): Scope,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, Refusal> {
    let rule: DownsamplingRule =
        serde_json::from_value(body).map_err(|e| invalid_definition(&e))?;
    register(app, &database, rule.into_aggregate()).await
}

async fn remove(
    app: App,
    Path(target): Path<String>,
    Scope(database): Scope,
) -> Result<Json<Value>, Refusal> {
    let aggregate = app.aggregates.get(&database, &target)?;
    if DownsamplingRule::of(&aggregate.definition).is_none() {
        let message = format!("{target} is an aggregate, but no downsampling rule");
        return Err(Refusal::not_found(message));
    }
    run_to_end(async move {
        app.aggregates.remove(&database, &target, false).await?;
        Ok(Json(json!({ "target": target, "status": "detached" })))
    })
    .await
}
