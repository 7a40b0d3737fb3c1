//! Which database a request means.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use highwater_storage::Version;
use serde::Deserialize;

use super::params;
use crate::app::Server;
use crate::respond::Refusal;

/// Longest name of a database, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// The database that a request names, or the only one there is.
///
/// # Errors
/// 400 if it names none and there is not exactly one.
pub(super) fn choose(version: &Version, named: Option<String>) -> Result<Arc<str>, Refusal> {
    if let Some(name) = named {
        return checked(&name);
    }
    let mut databases = version.databases();
    match (databases.next(), databases.next()) {
        (Some(only), None) => Ok(Arc::clone(only)),
        (None, _) => Err(Refusal::invalid("there is no database yet; name one with db")),
        (Some(first), Some(second)) => {
            let names: Vec<&str> =
                [first, second].into_iter().chain(databases).map(|n| &**n).collect();
            let names = names.join(", ");
            Err(Refusal::invalid(format!("name the database with db; there are {names}")))
        }
    }
}

/// The database of a request that takes no other parameter than `db`.
pub(super) struct Scope(pub(super) Arc<str>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeParams {
    db: Option<String>,
}

impl FromRequestParts<Server> for Scope {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Refusal> {
        let ScopeParams { db } = params::of_uri(&parts.uri)?;
        choose(&server.app()?.engine.version(), db).map(Scope)
    }
}

/// A name that a database can have.
pub(super) fn checked(name: &str) -> Result<Arc<str>, Refusal> {
    let reason = match name {
        "" => "is empty",
        _ if name.len() > MAX_NAME_BYTES => "is longer than 1024 bytes",
        _ if name.contains(char::is_control) => "has a control character in it",
        _ => return Ok(name.into()),
    };
    Err(Refusal::invalid(format!("the name of the database {reason}")))
}
