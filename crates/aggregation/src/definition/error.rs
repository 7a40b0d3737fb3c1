//! What is wrong with a definition, and where it says so.

use std::fmt;
use std::sync::Arc;

use highwater_core::ErrorKind;

/// One step from a rule to a key inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value of a key.
    Key(Arc<str>),
    /// An element of a list, counted from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Step::Key(key.into())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}

/// Why a definition is refused; prints as `rules/a.yml:12: aggregations: reason`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefinitionError {
    /// The rule file, if the definition came from one.
    pub file: Option<Arc<str>>,
    /// Line in the file, counted from 1.
    pub line: Option<u64>,
    /// Where inside the rule; empty if it concerns the rule as a whole.
    pub path: Vec<Step>,
    /// Name of the aggregate, if it has one.
    pub aggregate: Option<Arc<str>>,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl DefinitionError {
    /// Code of every such error in answers of the API.
    pub const CODE: &'static str = "invalid_definition";

    /// An error of a rule as a whole.
    pub fn new(reason: impl Into<String>) -> Self {
        DefinitionError { reason: reason.into(), ..DefinitionError::default() }
    }

    /// An error of one key.
    pub fn at(key: &str, reason: impl Into<String>) -> Self {
        DefinitionError::new(reason).inside(key)
    }

    /// A key, or a value of it, that a later version will take.
    pub fn later(key: &str, what: &str) -> Self {
        DefinitionError::at(key, format!("not supported yet: {key}{what}"))
    }

    /// What a text that is not the JSON of a rule has wrong.
    pub fn from_json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
        let unknown = reason
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split_once("`, "))
            .map(|(key, expected)| DefinitionError::at(key, format!("unknown key, {expected}")));
        let found = unknown.unwrap_or_else(|| DefinitionError::new(reason));
        let line = u64::try_from(error.line()).ok().filter(|line| *line > 0);
        DefinitionError { line, ..found }
    }

    /// The same error, seen from one level further out.
    #[must_use]
    pub fn inside(mut self, step: impl Into<Step>) -> Self {
        self.path.insert(0, step.into());
        self
    }

    /// The same error, with the name of the aggregate.
    #[must_use]
    pub fn of_aggregate(mut self, name: &str) -> Self {
        self.aggregate = (!name.is_empty()).then(|| name.into());
        self
    }

    /// The innermost key, if the error concerns one.
    pub fn key(&self) -> Option<&str> {
        self.path.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(&**key),
            Step::Index(_) => None,
        })
    }

    /// What the caller may do about it: fix the definition.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            match self.line {
                Some(line) => write!(f, "{line}: ")?,
                None => f.write_str(" ")?,
            }
        }
        if let Some(aggregate) = &self.aggregate {
            write!(f, "aggregate {aggregate}: ")?;
        }
        if let Some(key) = self.key() {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for DefinitionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_the_place_and_the_key() {
        let error = DefinitionError::at("function", "unknown").inside(1).inside("aggregations");
        assert_eq!(error.to_string(), "function: unknown");
        let error = DefinitionError {
            file: Some("rules/a.yml".into()),
            line: Some(12),
            ..error.of_aggregate("cpu_1h")
        };
        assert_eq!(error.to_string(), "rules/a.yml:12: aggregate cpu_1h: function: unknown");
    }

    #[test]
    fn json_has_keys_too() {
        let error = |text| {
            let read = serde_json::from_str::<super::super::rule::OrderRule>(text);
            DefinitionError::from_json(&read.unwrap_err())
        };
        let unknown = error(r#"{"column": "a", "asc": true}"#);
        assert_eq!(unknown.key(), Some("asc"));
        assert_eq!(unknown.to_string(), "asc: unknown key, expected `column` or `desc`");
        let mistyped = error(r#"{"column": 5}"#);
        assert_eq!(mistyped.to_string(), "invalid type: integer `5`, expected a string");
    }
}
