//! What stands in one rule file.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

use super::downsampling::DownsamplingRule;
use super::place::Outline;
use crate::definition::rule::Later;
use crate::definition::{AggregateRule, DefinitionError};

/// One rule file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleFile {
    /// Rules by the name of their database.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) databases: BTreeMap<String, Option<DatabaseFile>>,
}

/// The rules of a file for one database.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatabaseFile {
    /// Declared columns.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) measurements: Vec<MeasurementFile>,
    /// Aggregates, and sets of them.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) aggregates: Vec<AggregateRule>,
    /// Downsampling rules.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) downsampling: Vec<DownsamplingRule>,
    /// How long points are kept.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) retention: Vec<RetentionFile>,
    /// SQL views; a key of a later version.
    pub(super) views: Option<Later>,
    /// Scheduled refreshes of views; a key of a later version.
    pub(super) view_jobs: Option<Later>,
    /// Event analytics; a key of a later version.
    pub(super) analytics: Option<Later>,
}

/// Columns declared for a measurement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MeasurementFile {
    /// Name of the measurement.
    #[serde(default)]
    pub(super) name: String,
    /// Types by column.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) columns: BTreeMap<String, String>,
}

/// How long points of some measurements are kept.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionFile {
    /// A name, a prefix followed by `*`, or `*`.
    #[serde(default)]
    pub(super) measurement: String,
    /// For how long.
    #[serde(default)]
    pub(super) keep: String,
    /// How much longer they may be kept for a dependant before that is an alert.
    pub(super) max_hold: Option<String>,
}

/// A key without value is a key that was left out.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a file; without documents in it, it has no rules.
///
/// # Errors
/// The first thing that is not as it should be, with its line and, where there is one, its key.
pub(super) fn read(text: &str) -> Result<RuleFile, DefinitionError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let read = serde_saphyr::from_str_with_options::<Option<RuleFile>>(text, options);
    read.map(Option::unwrap_or_default).map_err(|error| unreadable(&error, text))
}

fn unreadable(error: &Error, text: &str) -> DefinitionError {
    let error = error.without_snippet();
    let line = error.location().map(|location| location.line());
    let found = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let expected = expected.join(", ");
            DefinitionError::at(field, format!("unknown key, expected one of {expected}"))
        }
        Error::SerdeMissingField { field, .. } => DefinitionError::at(field, "is missing"),
        error => {
            let reason = UserMessageFormatter.format_message(error).into_owned();
            let outline = Outline::of(text);
            let key = error.location().and_then(|at| outline.key_at(at));
            key.map_or_else(
                || DefinitionError::new(reason.clone()),
                |key| DefinitionError::at(key, reason.clone()),
            )
        }
    };
    DefinitionError { line, ..found }
}
