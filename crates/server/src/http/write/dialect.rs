//! What the three write routes call things.

use std::sync::Arc;

use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use highwater_storage::WriteMode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::lines::Refusals;
use crate::http::{database, params};
use crate::line_protocol::Precision;
use crate::respond::Refusal;

/// One of the three write routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V1,
    V2,
    V3,
}

/// Where the lines of a request go.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) database: Arc<str>,
    pub(super) precision: Precision,
    pub(super) mode: WriteMode,
}

/// Parameters of all three routes.
#[derive(Debug)]
struct Common {
    database: Option<String>,
    precision: Option<String>,
    accept_partial: Option<bool>,
    mode: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct V1Params {
    db: Option<String>,
    rp: Option<String>,
    precision: Option<String>,
    accept_partial: Option<bool>,
    mode: Option<String>,
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
    #[serde(rename = "u")]
    _user: Option<String>,
    #[serde(rename = "p")]
    _password: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct V2Params {
    bucket: Option<String>,
    precision: Option<String>,
    accept_partial: Option<bool>,
    mode: Option<String>,
    #[serde(rename = "org")]
    _org: Option<String>,
    #[serde(rename = "orgID")]
    _org_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct V3Params {
    db: Option<String>,
    precision: Option<String>,
    accept_partial: Option<bool>,
    mode: Option<String>,
    /// Every write is as durable as the settings say, so asking for less changes nothing.
    #[serde(rename = "no_sync")]
    _no_sync: Option<bool>,
}

impl Dialect {
    /// Where the lines of a request go.
    pub(super) fn target(self, uri: &Uri) -> Result<Target, Refusal> {
        let common = match self {
            Dialect::V1 => v1_params(uri)?,
            Dialect::V2 => {
                let own: V2Params = read(uri)?;
                let V2Params { bucket, precision, accept_partial, mode, .. } = own;
                Common { database: bucket, precision, accept_partial, mode }
            }
            Dialect::V3 => {
                let own: V3Params = read(uri)?;
                let V3Params { db, precision, accept_partial, mode, .. } = own;
                Common { database: db, precision, accept_partial, mode }
            }
        };
        check_mode(common.mode.as_deref())?;
        let missing = || {
            let name = if self == Dialect::V2 { "bucket" } else { "db" };
            Refusal::invalid(format!("the parameter {name}, naming the database, is missing"))
        };
        Ok(Target {
            database: database::checked(&common.database.ok_or_else(missing)?)?,
            precision: self.precision(common.precision.as_deref())?,
            mode: match common.accept_partial {
                Some(false) => WriteMode::AllOrNothing,
                _ => WriteMode::StoreGoodLines,
            },
        })
    }

    fn precision(self, named: Option<&str>) -> Result<Precision, Refusal> {
        match named {
            Some(name) => name.parse().map_err(Refusal::invalid),
            None if self == Dialect::V3 => Ok(Precision::Auto),
            None => Ok(Precision::Nanosecond),
        }
    }

    /// The answer to a request of which nothing was stored.
    pub(super) fn refuse(self, refusal: Refusal) -> Response {
        match self {
            Dialect::V1 | Dialect::V3 => refusal.into_response(),
            Dialect::V2 => {
                let mut body = refusal.more.clone();
                body.insert("code".to_owned(), refusal.code.into());
                body.insert("message".to_owned(), refusal.message.as_str().into());
                refusal.respond_as(body.into())
            }
        }
    }

    /// The answer to a request some of whose lines were refused.
    pub(super) fn refuse_lines(self, refusals: &Refusals) -> Response {
        let refusal = Refusal::invalid(match self {
            Dialect::V1 | Dialect::V2 => refusals.in_a_sentence(),
            Dialect::V3 => refusals.headline().to_owned(),
        });
        let refusal = refusal.with("data", refusals.data());
        self.refuse(match self {
            Dialect::V1 | Dialect::V3 => refusal,
            // Clients of InfluxDB 3 write to this route, too, and look for their own keys.
            Dialect::V2 => refusal.with("error", refusals.headline()),
        })
    }
}

fn read<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    params::of_uri(uri)
}

fn v1_params(uri: &Uri) -> Result<Common, Refusal> {
    let V1Params { db, rp, precision, accept_partial, mode, .. } = read(uri)?;
    match rp.as_deref() {
        None | Some("" | "autogen" | "default") => {
            Ok(Common { database: db, precision, accept_partial, mode })
        }
        Some(other) => Err(Refusal::invalid(format!(
            "there is no retention policy {other:?}; leave rp out, expiry is set by retention rules"
        ))),
    }
}

/// Only the usual way of writing is there: new values beside the fields that a point has already.
fn check_mode(mode: Option<&str>) -> Result<(), Refusal> {
    match mode {
        None => Ok(()),
        Some("replace") => Err(Refusal::invalid(
            "mode=replace is not supported yet; a point is replaced by DELETE and a new write",
        )),
        Some(other) => Err(Refusal::invalid(format!("mode {other:?} is not supported"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(dialect: Dialect, query: &str) -> Result<Target, String> {
        let uri: Uri = format!("/write?{query}").parse().unwrap();
        dialect.target(&uri).map_err(|refusal| refusal.message)
    }

    #[test]
    fn each_route_has_its_own_names() {
        let v1 = target(Dialect::V1, "db=my%20db&rp=autogen&precision=s&u=a&p=b").unwrap();
        assert_eq!((&*v1.database, v1.precision), ("my db", Precision::Second));
        let v2 = target(Dialect::V2, "bucket=t&org=x").unwrap();
        assert_eq!((&*v2.database, v2.precision), ("t", Precision::Nanosecond));
        let v3 = target(Dialect::V3, "db=t&accept_partial=false&no_sync=true").unwrap();
        assert_eq!((v3.mode, v3.precision), (WriteMode::AllOrNothing, Precision::Auto));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let refused = |dialect, query| target(dialect, query).unwrap_err();
        assert!(refused(Dialect::V1, "db=t&rp=week").contains("retention"));
        assert!(refused(Dialect::V1, "").contains("db"));
        assert!(refused(Dialect::V2, "db=t").contains("db"));
        assert!(refused(Dialect::V2, "org=t").contains("bucket"));
        assert!(refused(Dialect::V3, "db=t&precision=fortnight").contains("fortnight"));
        assert!(refused(Dialect::V3, "db=t&mode=replace").contains("mode=replace"));
        assert!(refused(Dialect::V3, "db=t&sync=no").contains("sync"));
        assert!(refused(Dialect::V3, "db=").contains("empty"));
    }
}
