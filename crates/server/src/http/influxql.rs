//! `/query`: the few statements of InfluxQL that clients of InfluxDB 1 send on their own.
//!
//! Everything else is refused with a hint to SQL, never half understood.

mod statement;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use highwater_storage::{Commit, Edit, MeasurementKind, StorageError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{body, params};
use crate::app::{App, Server};
use crate::respond::Refusal;
use statement::Statement;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/query", get(query).post(query))
}

/// What clients of InfluxDB 1 send; those that change nothing here are listed in `docs/http.md`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    q: Option<String>,
    db: Option<String>,
    #[serde(rename = "rp")]
    _retention_policy: Option<String>,
    #[serde(rename = "epoch")]
    _epoch: Option<String>,
    #[serde(rename = "pretty")]
    _pretty: Option<String>,
    #[serde(rename = "chunked")]
    _chunked: Option<String>,
    #[serde(rename = "u")]
    _user: Option<String>,
    #[serde(rename = "p")]
    _password: Option<String>,
}

async fn query(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let app = server.app()?;
    let mut request: Request = params::of_uri(&uri)?;
    if method == Method::POST {
        let form = body::read(&headers, body, &server.settings().limits).await?;
        let form: Request = params::of_form(&form)?;
        request.q = form.q.or(request.q);
        request.db = form.db.or(request.db);
    }
    let text = request.q.ok_or_else(|| Refusal::invalid("missing required parameter \"q\""))?;
    let statements = Statement::parse_all(&text)
        .map_err(|e| Refusal::invalid(format!("error parsing query: {e}")))?;
    let mut results = Vec::with_capacity(statements.len());
    for (id, statement) in statements.into_iter().enumerate() {
        results.push(answer(&app, id, statement, request.db.as_deref()).await?);
    }
    Ok((StatusCode::OK, Json(json!({ "results": results }))).into_response())
}

async fn answer(
    app: &App,
    id: usize,
    statement: Statement,
    database: Option<&str>,
) -> Result<Value, Refusal> {
    let version = app.engine.version();
    let databases = || version.databases().map(ToString::to_string);
    let chosen = |on: Option<String>| on.or_else(|| database.map(str::to_owned));
    let unknown = |database: Option<String>| match database {
        None => Some("database name required".to_owned()),
        Some(name) if databases().all(|known| known != name) => {
            Some(format!("database not found: {name}"))
        }
        Some(_) => None,
    };
    Ok(match statement {
        Statement::CreateDatabase { name } => {
            create_database(app, name).await?;
            json!({ "statement_id": id })
        }
        Statement::ShowDatabases => {
            let values: Vec<Value> = databases().map(|name| json!([name])).collect();
            series(id, json!({ "name": "databases", "columns": ["name"], "values": values }))
        }
        Statement::ShowRetentionPolicies { on } => match unknown(chosen(on)) {
            Some(error) => json!({ "statement_id": id, "error": error }),
            None => series(id, retention_policies()),
        },
        Statement::ShowMeasurements { on } => {
            let database = chosen(on);
            if let Some(error) = unknown(database.clone()) {
                return Ok(json!({ "statement_id": id, "error": error }));
            }
            let measurements = version.measurements(database.as_deref().unwrap_or_default());
            let names = measurements.filter(|own| own.kind() == MeasurementKind::Points);
            let values: Vec<Value> = names.map(|own| json!([own.id().measurement])).collect();
            if values.is_empty() {
                return Ok(json!({ "statement_id": id }));
            }
            series(id, json!({ "name": "measurements", "columns": ["name"], "values": values }))
        }
    })
}

fn series(id: usize, series: Value) -> Value {
    json!({ "statement_id": id, "series": [series] })
}

/// Expiry is set by rules here, so there is one policy, which keeps everything.
fn retention_policies() -> Value {
    json!({
        "columns": ["name", "duration", "shardGroupDuration", "replicaN", "default"],
        "values": [["autogen", "0s", "168h0m0s", 1, true]],
    })
}

/// Creates a database; one that exists is left alone, as InfluxDB does.
async fn create_database(app: &App, name: String) -> Result<(), StorageError> {
    if app.engine.version().databases().any(|known| **known == *name) {
        return Ok(());
    }
    let edits = vec![Edit::CreateDatabase { database: name.into() }];
    app.engine.commit(Commit { edits, ..Commit::default() }).await.map(|_| ())
}
