//! Work that is done in the background anyway, on request: flush and compaction.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;

use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/api/v1/flush", post(flush)).route("/api/v1/compact", post(compact))
}

async fn flush(app: App) -> Result<StatusCode, Refusal> {
    run_to_end(async move { Ok(app.engine.flush().await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn compact(app: App) -> Result<StatusCode, Refusal> {
    run_to_end(async move { Ok(app.engine.compact().await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}
