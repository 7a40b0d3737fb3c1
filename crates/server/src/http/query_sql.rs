//! `/api/v3/query_sql`: SQL in, rows out as they come.

mod answer;

use std::collections::BTreeMap;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use datafusion::common::ScalarValue;
use highwater_query::{Params, SessionOptions};
use serde::Deserialize;
use serde_json::Value;

use super::body::{self, JsonBody};
use super::database;
use super::params::UrlParams;
use crate::app::{App, Server};
use crate::formats::Format;
use crate::respond::Refusal;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/api/v3/query_sql", get(query_by_get).post(query_by_post))
}

/// A query, as the body of a POST.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    db: Option<String>,
    q: String,
    format: Option<String>,
    params: Option<Value>,
    freshness: Option<String>,
    rewrite: Option<String>,
}

/// A query, as the parameters of a GET.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskInUrl {
    db: Option<String>,
    q: String,
    format: Option<String>,
    /// JSON.
    params: Option<String>,
    freshness: Option<String>,
    rewrite: Option<String>,
}

impl AskInUrl {
    fn into_ask(self) -> Result<Ask, Refusal> {
        let AskInUrl { db, q, format, params, freshness, rewrite } = self;
        let params = params.map(|text| body::from_json(text.as_bytes())).transpose()?;
        Ok(Ask { db, q, format, params, freshness, rewrite })
    }
}

async fn query_by_post(app: App, JsonBody(ask): JsonBody<Ask>) -> Result<Response, Refusal> {
    run(&app, ask, false).await
}

/// A GET promises to change nothing.
async fn query_by_get(app: App, UrlParams(ask): UrlParams<AskInUrl>) -> Result<Response, Refusal> {
    run(&app, ask.into_ask()?, true).await
}

async fn run(app: &App, ask: Ask, read_only: bool) -> Result<Response, Refusal> {
    let running = app.queries.begin()?;
    let format = ask.format.as_deref().map(Format::parse).transpose().map_err(Refusal::invalid)?;
    let database = database::choose(&app.engine.version(), ask.db)?;
    let mut options = SessionOptions { read_only, ..SessionOptions::of(database) };
    if let Some(freshness) = ask.freshness {
        options.freshness = freshness.parse()?;
    }
    if let Some(rewrite) = ask.rewrite {
        options.rewrite = rewrite.parse()?;
    }
    let params = params_of(ask.params)?;
    let session = app.aggregates.query_engine().session(options);
    let answer = async move {
        let result = running.in_time(session.sql(&ask.q, params)).await??;
        answer::respond(result, format.unwrap_or_default(), running).await
    };
    app.queries.run(answer).await
}

fn params_of(params: Option<Value>) -> Result<Params, Refusal> {
    match params {
        None | Some(Value::Null) => Ok(Params::None),
        Some(Value::Array(values)) => {
            let values =
                values.into_iter().zip(1..).map(|(value, at)| scalar(&format!("${at}"), value));
            values.collect::<Result<_, _>>().map(Params::Positional)
        }
        Some(Value::Object(values)) => {
            let named = values.into_iter().map(|(name, value)| {
                let value = scalar(&name, value)?;
                Ok((name.trim_start_matches('$').to_owned(), value))
            });
            named.collect::<Result<BTreeMap<_, _>, Refusal>>().map(Params::Named)
        }
        Some(_) => Err(Refusal::invalid(
            "params is an array of values for $1, $2 .. or an object of values by name",
        )),
    }
}

fn scalar(name: &str, value: Value) -> Result<ScalarValue, Refusal> {
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => value.into(),
        Value::String(text) => text.into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(integer), _, _) => integer.into(),
            (_, Some(unsigned), _) => unsigned.into(),
            (_, _, Some(float)) => float.into(),
            _ => return Err(Refusal::invalid(format!("parameter {name}: {number} is too large"))),
        },
        Value::Array(_) | Value::Object(_) => {
            let message = format!("parameter {name} is no number, text, boolean or null");
            return Err(Refusal::invalid(message));
        }
    })
}
