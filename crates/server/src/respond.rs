//! Errors to statuses: one `match` on what the caller may do about it.

use std::error::Error;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use highwater_aggregation::{AggregationError, DefinitionError};
use highwater_core::ErrorKind;
use highwater_query::QueryError;
use highwater_storage::StorageError;
use serde_json::{Map, Value, json};

use crate::rules::RulesError;

/// Seconds after which a client may try again what is unavailable now.
const RETRY_AFTER_SECS: &str = "1";

/// An answer that is not a success: `{"error", "code"}`, and more keys where a route says so.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// What went wrong, for programs.
    pub code: &'static str,
    /// What went wrong and what to do about it, for people, in one line.
    pub message: String,
    /// Further keys of the answer.
    pub more: Map<String, Value>,
}

impl Refusal {
    /// A refusal with this status and code.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into(), more: Map::new() }
    }

    /// The request is wrong: 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// What was named does not exist: 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The refusal that fits an error of one of the crates below; logs what an operator must see.
    pub fn of(error: &dyn Error, kind: ErrorKind) -> Self {
        let (status, code) = match kind {
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "storage"),
            ErrorKind::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "corrupt"),
            ErrorKind::Computation => (StatusCode::INTERNAL_SERVER_ERROR, "computation"),
            ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let message = in_one_line(error);
        match kind {
            ErrorKind::Corrupt | ErrorKind::Internal => tracing::error!(code, message, "refused"),
            ErrorKind::Unavailable => tracing::warn!(code, message, "refused"),
            _ => tracing::debug!(code, message, "refused"),
        }
        Refusal::new(status, code, message)
    }

    /// The same with one more key in the answer.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// The answer with a body of another shape than `{"error", "code"}`.
    pub fn respond_as(&self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let after = HeaderValue::from_static(RETRY_AFTER_SECS);
            response.headers_mut().insert(RETRY_AFTER, after);
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.message, "code": self.code });
        if let Value::Object(keys) = &mut body {
            keys.extend(self.more.clone());
        }
        self.respond_as(body)
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        Refusal::of(&error, error.kind())
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        let refusal = Refusal::of(&error, error.kind());
        match error {
            QueryError::Resources(_) => Refusal { code: "resources", ..refusal },
            _ => refusal,
        }
    }
}

impl From<AggregationError> for Refusal {
    fn from(error: AggregationError) -> Self {
        match error {
            AggregationError::Query(error) => error.into(),
            AggregationError::Definition(_) | AggregationError::Rules(_) => {
                let refusal = Refusal::of(&error, error.kind());
                Refusal { code: DefinitionError::CODE, ..refusal }
            }
            AggregationError::FeedGone { from, .. } => {
                Refusal::new(StatusCode::GONE, "gone", error.to_string()).with("next", from.get())
            }
            error => Refusal::of(&error, error.kind()),
        }
    }
}

impl From<RulesError> for Refusal {
    fn from(error: RulesError) -> Self {
        match error {
            RulesError::Aggregation(error) => error.into(),
            error => Refusal::of(&error, error.kind()),
        }
    }
}

/// An error and its causes in one line, each once.
pub fn in_one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_space() -> StorageError {
        StorageError::Io {
            action: "sync",
            path: "wal/1.wal".to_owned(),
            source: Box::new(std::io::Error::other("no space\nleft")),
        }
    }

    #[test]
    fn unavailable_storage_asks_to_come_back() {
        let response = Refusal::from(no_space()).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], RETRY_AFTER_SECS);
    }

    #[test]
    fn a_message_is_one_line_with_its_causes() {
        let refusal = Refusal::from(no_space());
        assert_eq!(refusal.message, "could not sync wal/1.wal: no space left");
        assert_eq!(refusal.code, "storage");
    }
}
