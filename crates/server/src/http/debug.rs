//! Controls for tests: `/debug/clock` and `/debug/tick`, there only with `--manual-clock`, and
//! `/debug/fault`, there only with `--fault-injection`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::routing::post;
use axum::{Json, Router};
use highwater_core::{MockClock, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body::JsonBody;
use super::database::Scope;
use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/debug/clock", post(set_clock)).route("/debug/tick", post(tick))
}

pub(super) fn fault_routes() -> Router<Server> {
    Router::new().route("/debug/fault", post(fault).get(held))
}

/// What to break.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    switch: String,
    value: Option<Value>,
}

/// Breaks something, once or until `clear`, or lets it wait.
async fn fault(
    app: App,
    Scope(database): Scope,
    JsonBody(Fault { switch, value }): JsonBody<Fault>,
) -> Result<Json<Value>, Refusal> {
    let switches = app.aggregates.switches();
    match (switch.as_str(), value) {
        ("clear", None) => {
            switches.clear();
            app.engine.fail_commits(false);
        }
        ("clear", Some(_)) => return Err(Refusal::invalid("the switch clear takes no value")),
        ("batch_pause", value) => switches.pause_after_batches(number(&switch, value.as_ref())?),
        ("fail_batches", value) => switches.fail_batches(number(&switch, value.as_ref())?),
        ("commit_pause", Some(Value::Bool(pause))) => switches.pause_commits(pause),
        ("commit_pause", _) => {
            return Err(Refusal::invalid("the value of commit_pause is true or false"));
        }
        ("fail_store", Some(Value::Bool(fails))) => app.engine.fail_commits(fails),
        ("fail_store", _) => {
            return Err(Refusal::invalid("the value of fail_store is true or false"));
        }
        ("corrupt_bucket", value) => corrupt_bucket(app, &database, value.as_ref()).await?,
        (other, _) => {
            let message = format!(
                "there is no switch {other}; there are batch_pause, fail_batches, commit_pause, \
                 fail_store, corrupt_bucket and clear"
            );
            return Err(Refusal::invalid(message));
        }
    }
    Ok(Json(json!({ "switch": switch })))
}

fn number(switch: &str, value: Option<&Value>) -> Result<u64, Refusal> {
    let number = value.and_then(Value::as_u64);
    number.ok_or_else(|| Refusal::invalid(format!("the value of {switch} is a number")))
}

async fn corrupt_bucket(app: App, database: &str, value: Option<&Value>) -> Result<(), Refusal> {
    let place = value.and_then(Value::as_str).unwrap_or_default();
    let (name, start) = place.rsplit_once('@').ok_or_else(|| {
        Refusal::invalid("the value of corrupt_bucket is \"<aggregate>@<bucket start>\"")
    })?;
    let (name, start) = (name.to_owned(), Timestamp::parse(start).map_err(Refusal::invalid)?);
    let database = database.to_owned();
    run_to_end(async move { Ok(app.aggregates.corrupt_bucket(&database, &name, start).await?) })
        .await
}

/// How many refreshes and batches are held between computing and committing.
async fn held(app: App) -> Json<Value> {
    Json(json!({ "waiting_commits": app.aggregates.switches().waiting_commits() }))
}

/// Where to move the clock.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockTime {
    now: Timestamp,
}

/// The hand of the manual clock; without one these routes are not there.
fn hand(server: &Server, uri: &Uri) -> Result<Arc<MockClock>, Refusal> {
    let none = || Refusal::not_found(format!("there is no route POST {}", uri.path()));
    server.clock().manual.clone().ok_or_else(none)
}

async fn set_clock(
    State(server): State<Server>,
    uri: Uri,
    JsonBody(to): JsonBody<ClockTime>,
) -> Result<Json<ClockTime>, Refusal> {
    let hand = hand(&server, &uri)?;
    hand.advance_to(to.now).map_err(|now| {
        Refusal::invalid(format!("the clock stands at {now} and never moves back to {}", to.now))
    })?;
    Ok(Json(to))
}

/// Runs every background step that is due, once.
async fn tick(State(server): State<Server>, uri: Uri) -> Result<Json<Value>, Refusal> {
    hand(&server, &uri)?;
    let app = server.app()?;
    let steps = run_to_end(async move { Ok(app.aggregates.tick().await?) }).await?;
    Ok(Json(json!({ "steps": steps })))
}
