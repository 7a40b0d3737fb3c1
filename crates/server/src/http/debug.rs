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
    Router::new().route("/debug/fault", post(fault))
}

/// What to break.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    switch: String,
    value: Option<Value>,
}

/// Breaks something, once or until `clear`.
async fn fault(
    app: App,
    Scope(database): Scope,
    JsonBody(Fault { switch, value }): JsonBody<Fault>,
) -> Result<Json<Value>, Refusal> {
    match (switch.as_str(), value) {
        ("clear", None) => app.engine.fail_commits(false),
        ("clear", Some(_)) => return Err(Refusal::invalid("the switch clear takes no value")),
        ("corrupt_bucket", value) => {
            let place = value.as_ref().and_then(Value::as_str).unwrap_or_default();
            let (name, start) = place.rsplit_once('@').ok_or_else(|| {
                Refusal::invalid("the value of corrupt_bucket is \"<aggregate>@<bucket start>\"")
            })?;
            let (name, start) = (name.to_owned(), Timestamp::parse(start));
            let start = start.map_err(Refusal::invalid)?;
            run_to_end(
                async move { Ok(app.aggregates.corrupt_bucket(&database, &name, start).await?) },
            )
            .await?;
        }
        ("fail_store", Some(Value::Bool(fails))) => app.engine.fail_commits(fails),
        ("fail_store", _) => {
            return Err(Refusal::invalid("the value of fail_store is true or false"));
        }
        (other, _) => {
            let message = format!(
                "there is no switch {other} yet; there are corrupt_bucket, fail_store and clear"
            );
            return Err(Refusal::invalid(message));
        }
    }
    Ok(Json(json!({ "switch": switch })))
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
