//! `/api/v1/aggregates`: continuous aggregates, one and all.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use highwater_aggregation::{AggregateRule, AggregateStatus, AuditReport, Created, RefreshReport};
use highwater_core::{TimeRange, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{JsonBody, OptionalJsonBody};
use super::database::{Scope, choose};
use super::params::UrlParams;
use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/api/v1/aggregates", get(list).post(create))
        .route("/api/v1/aggregates/refresh", post(refresh_many))
        .route("/api/v1/aggregates/{name}", get(show).put(change).delete(remove))
        .route("/api/v1/aggregates/{name}/enable", post(enable))
        .route("/api/v1/aggregates/{name}/disable", post(disable))
        .route("/api/v1/aggregates/{name}/refresh", post(refresh))
        .route("/api/v1/aggregates/{name}/rename", post(rename))
        .route("/api/v1/aggregates/{name}/undo", post(undo))
        .route("/api/v1/aggregates/{name}/verify", post(verify))
        .route("/api/v1/aggregates/{name}/watermark", put(set_watermark))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    db: Option<String>,
    pending: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveParams {
    db: Option<String>,
    drop: Option<bool>,
}

async fn list(app: App, UrlParams(params): UrlParams<ListParams>) -> Result<Json<Value>, Refusal> {
    let version = app.engine.version();
    let mut aggregates = match (&params.db, version.databases().next()) {
        (None, None) => Vec::new(),
        _ => app.aggregates.list(&choose(&version, params.db)?)?,
    };
    if let Some(pending) = params.pending {
        aggregates.retain(|aggregate| aggregate.pending == pending);
    }
    Ok(Json(json!({ "aggregates": aggregates })))
}

async fn show(
    app: App,
    Path(name): Path<String>,
    Scope(database): Scope,
) -> Result<Json<AggregateStatus>, Refusal> {
    Ok(Json(app.aggregates.get(&database, &name)?))
}

async fn create(
    app: App,
    Scope(database): Scope,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, Refusal> {
    register(app, &database, rule_of(body)?).await
}

/// The rule in a body: a rule itself, or what a GET answered, which holds one.
fn rule_of(mut body: Value) -> Result<AggregateRule, Refusal> {
    let rule = match body.get_mut("definition") {
        Some(definition) => definition.take(),
        None => body,
    };
    serde_json::from_value(rule).map_err(|e| invalid_definition(&e))
}

/// A body that is no rule at all.
pub(super) fn invalid_definition(error: &serde_json::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_definition", format!("the definition: {error}"))
}

/// Creates an aggregate or a set of them: 201, or 200 if exactly this is there already.
pub(super) async fn register(
    app: App,
    database: &str,
    rule: AggregateRule,
) -> Result<Response, Refusal> {
    let (name, set, database) = (rule.name.clone(), rule.set.clone(), database.to_owned());
    run_to_end(async move {
        let status = match app.aggregates.create(&database, rule).await? {
            Created::New => StatusCode::CREATED,
            Created::Same => StatusCode::OK,
        };
        let Some(set) = set else {
            return Ok((status, Json(app.aggregates.get(&database, &name)?)).into_response());
        };
        let prefix = format!("{set}.");
        let mut members = app.aggregates.list(&database)?;
        members.retain(|member| member.name.starts_with(&prefix));
        Ok((status, Json(json!({ "aggregates": members }))).into_response())
    })
    .await
}

/// Gives an aggregate another definition; the old one answers until the new one is built.
async fn change(
    app: App,
    Path(name): Path<String>,
    Scope(database): Scope,
    JsonBody(body): JsonBody<Value>,
) -> Result<Json<AggregateStatus>, Refusal> {
    let mut rule = rule_of(body)?;
    if rule.name.is_empty() {
        rule.name.clone_from(&name);
    }
    if rule.name != name || rule.set.is_some() {
        let other = if rule.set.is_some() { "a set" } else { &rule.name };
        let message = format!(
            "the body defines {other}, the path names {name}; POST .../{name}/rename renames"
        );
        return Err(Refusal::invalid(message));
    }
    run_to_end(async move {
        app.aggregates.change(&database, rule).await?;
        Ok(Json(app.aggregates.get(&database, &name)?))
    })
    .await
}

async fn undo(
    app: App,
    Path(name): Path<String>,
    Scope(database): Scope,
) -> Result<Json<AggregateStatus>, Refusal> {
    run_to_end(async move {
        app.aggregates.undo(&database, &name).await?;
        Ok(Json(app.aggregates.get(&database, &name)?))
    })
    .await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewName {
    to: String,
}

async fn rename(
    app: App,
    Path(name): Path<String>,
    Scope(database): Scope,
    JsonBody(NewName { to }): JsonBody<NewName>,
) -> Result<Json<AggregateStatus>, Refusal> {
    run_to_end(async move {
        app.aggregates.rename(&database, &name, &to).await?;
        Ok(Json(app.aggregates.get(&database, &to)?))
    })
    .await
}

async fn remove(
    app: App,
    Path(name): Path<String>,
    UrlParams(params): UrlParams<RemoveParams>,
) -> Result<Json<Value>, Refusal> {
    let database = choose(&app.engine.version(), params.db)?;
    let drop_data = params.drop.unwrap_or(false);
    let status = if drop_data { "dropped" } else { "detached" };
    run_to_end(async move {
        app.aggregates.remove(&database, &name, drop_data).await?;
        Ok(Json(json!({ "name": name, "status": status })))
    })
    .await
}

async fn enable(
    app: App,
    name: Path<String>,
    scope: Scope,
) -> Result<Json<AggregateStatus>, Refusal> {
    set_enabled(app, name, scope, true).await
}

async fn disable(
    app: App,
    name: Path<String>,
    scope: Scope,
) -> Result<Json<AggregateStatus>, Refusal> {
    set_enabled(app, name, scope, false).await
}

async fn set_enabled(
    app: App,
    Path(name): Path<String>,
    Scope(database): Scope,
    enabled: bool,
) -> Result<Json<AggregateStatus>, Refusal> {
    run_to_end(async move {
        app.aggregates.set_enabled(&database, &name, enabled).await?;
        Ok(Json(app.aggregates.get(&database, &name)?))
    })
    .await
}

/// A range of event time; without one, all closed stale buckets are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Window {
    fn range(&self) -> Result<Option<TimeRange>, Refusal> {
        match (self.from, self.to) {
            (None, None) => Ok(None),
            (Some(start), Some(end)) if start < end => Ok(Some(TimeRange::new(start, end))),
            (Some(_), Some(_)) => Err(Refusal::invalid("from has to lie before to")),
            _ => Err(Refusal::invalid("from and to go together")),
        }
    }
}

async fn refresh(
    app: App,
    Path(name): Path<String>,
    Scope(database): Scope,
    OptionalJsonBody(window): OptionalJsonBody<Window>,
) -> Result<Json<RefreshReport>, Refusal> {
    let range = window.range()?;
    run_to_end(async move { Ok(Json(app.aggregates.refresh(&database, &name, range).await?)) })
        .await
}

/// What to verify; without a range, everything that is stored.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verification {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    repair: Option<bool>,
}

async fn verify(
    app: App,
    Path(name): Path<String>,
    Scope(database): Scope,
    OptionalJsonBody(Verification { from, to, repair }): OptionalJsonBody<Verification>,
) -> Result<Json<AuditReport>, Refusal> {
    let range = Window { from, to }.range()?;
    let repairs = repair.unwrap_or(true);
    run_to_end(
        async move { Ok(Json(app.aggregates.verify(&database, &name, range, repairs).await?)) },
    )
    .await
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    names: Option<Vec<String>>,
}

/// Refreshes some or all; if a name is unknown, none. One that fails keeps no other from it.
async fn refresh_many(
    app: App,
    Scope(database): Scope,
    OptionalJsonBody(named): OptionalJsonBody<Names>,
) -> Result<Json<RefreshReport>, Refusal> {
    let names = match named.names {
        None => attached(&app, &database)?,
        Some(names) => {
            for name in &names {
                app.aggregates.get(&database, name)?;
            }
            names
        }
    };
    run_to_end(async move {
        let refresh = |name: &String| {
            let (aggregates, name) = (app.aggregates.clone(), name.clone());
            let database = database.clone();
            async move { aggregates.refresh(&database, &name, None).await }
        };
        let mut total = RefreshReport::default();
        for report in futures::future::join_all(names.iter().map(refresh)).await {
            let report = report?;
            total.buckets += report.buckets;
            total.rows += report.rows;
            total.duration_ms += report.duration_ms;
        }
        Ok(Json(total))
    })
    .await
}

/// Names of the aggregates that can be refreshed.
fn attached(app: &App, database: &str) -> Result<Vec<String>, Refusal> {
    let all = app.aggregates.list(database)?.into_iter();
    Ok(all.filter(|one| one.is_attached).map(|one| one.name).collect())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watermark {
    to: Timestamp,
}

async fn set_watermark(
    app: App,
    Path(name): Path<String>,
    Scope(database): Scope,
    JsonBody(Watermark { to }): JsonBody<Watermark>,
) -> Result<Json<RefreshReport>, Refusal> {
    run_to_end(async move { Ok(Json(app.aggregates.set_watermark(&database, &name, to).await?)) })
        .await
}
