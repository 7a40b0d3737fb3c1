//! `/api/v1/rules`: what rule files would do, and making them the rules in force.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use highwater_aggregation::{AggregateId, AppliedRules, RulePlan};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{JsonBody, OptionalJsonBody};
use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;
use crate::rules::{apply_files, apply_folder, plan_files, read_folder};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/api/v1/rules/plan", post(plan))
        .route("/api/v1/rules/apply", post(apply))
        .route("/api/v1/rules/reload", post(reload))
}

/// A rule file in a body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: String,
    text: String,
}

/// Rule files to plan; none given means those of the server's folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    files: Option<Vec<RuleText>>,
}

/// Rule files to apply.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Applied {
    files: Vec<RuleText>,
    /// Whether a server that has a rules folder takes them too.
    #[serde(default)]
    force: bool,
}

fn named(files: Vec<RuleText>) -> Vec<(String, String)> {
    files.into_iter().map(|file| (file.name, file.text)).collect()
}

async fn plan(
    app: App,
    State(server): State<Server>,
    OptionalJsonBody(body): OptionalJsonBody<Planned>,
) -> Result<Json<RulePlan>, Refusal> {
    let files = match (body.files, &server.settings().rules) {
        (Some(files), _) => named(files),
        (None, Some(folder)) => read_folder(folder)?,
        (None, None) => return Err(no_folder("send files, or start it with --rules")),
    };
    let running = app.queries.begin()?;
    let aggregates = app.aggregates.clone();
    let plan = async move { Ok(running.in_time(plan_files(&aggregates, files)).await??) };
    app.queries.run(plan).await.map(Json)
}

async fn apply(
    app: App,
    State(server): State<Server>,
    JsonBody(body): JsonBody<Applied>,
) -> Result<Json<Value>, Refusal> {
    if let Some(folder) = server.settings().rules.as_ref().filter(|_| !body.force) {
        let message = format!(
            "this server reads {} at every start and reload, which would undo this; change the \
             files there and reload, or send force to apply these until then",
            folder.display()
        );
        return Err(Refusal::new(StatusCode::CONFLICT, "conflict", message));
    }
    let files = named(body.files);
    let folder = server.settings().rules.as_ref().map(|folder| folder.display().to_string());
    run_to_end(async move {
        let mut answer = described(&apply_files(&app.aggregates, files).await?);
        answer["rules_folder"] = folder.into();
        Ok(Json(answer))
    })
    .await
}

async fn reload(app: App, State(server): State<Server>) -> Result<Json<Value>, Refusal> {
    let folder = server.settings().rules.clone();
    let folder = folder.ok_or_else(|| no_folder("start it with --rules"))?;
    run_to_end(async move { Ok(Json(described(&apply_folder(&app.aggregates, &folder).await?))) })
        .await
}

fn no_folder(advice: &str) -> Refusal {
    Refusal::invalid(format!("this server was started without a rules folder; {advice}"))
}

fn described(applied: &AppliedRules) -> Value {
    let names = |ids: &[AggregateId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "added": names(&applied.added),
        "changed": names(&applied.changed),
        "detached": names(&applied.detached),
    })
}
