//! Controls for tests: `/debug/clock` and `/debug/tick`, there only with `--manual-clock`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::routing::post;
use axum::{Json, Router};
use highwater_core::{MockClock, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body::JsonBody;
use super::run_to_end;
use crate::app::Server;
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/debug/clock", post(set_clock)).route("/debug/tick", post(tick))
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
