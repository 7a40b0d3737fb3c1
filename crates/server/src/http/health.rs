//! Is it alive, is it ready, what version is it: `/health`, `/ready`, `/ping`, `/metrics`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::app::{App, Server};

/// What `/ping` says to clients of InfluxDB.
const VERSION: &str = concat!("highwater-", env!("CARGO_PKG_VERSION"));

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/ping", get(ping).post(ping))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

async fn ping() -> impl IntoResponse {
    (StatusCode::NO_CONTENT, [("X-Influxdb-Version", VERSION), ("X-Influxdb-Build", "highwater")])
}

/// 200 as long as the process answers at all.
async fn health(State(server): State<Server>) -> Json<Value> {
    Json(json!({
        "status": "pass",
        "name": "highwater",
        "message": server.phase().name(),
        "version": env!("CARGO_PKG_VERSION"),
        "http": server.address(),
    }))
}

/// 200 once recovery is done, 503 with the phase until then.
async fn ready(_: App) -> Json<Value> {
    Json(json!({ "status": "ready" }))
}

async fn metrics(State(server): State<Server>) -> impl IntoResponse {
    if let Ok(app) = server.app() {
        app.describe_metrics();
    }
    let text = server.metrics().render();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
