//! What a session is opened with, and `SET` for connections that outlive a statement.

use std::str::FromStr;
use std::sync::Arc;

use datafusion::sql::parser::Statement as PlannedStatement;
use datafusion::sql::sqlparser::ast::{self, Expr, Set, Value};
use highwater_core::bucket::Span;

use crate::error::QueryError;
use crate::limits::Limits;
use crate::statement::{parse_one, starts_with, tokenize};

/// How fresh the answers of aggregates are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// As the rule of the aggregate says.
    #[default]
    Default,
    /// Equal to the same query over the points.
    Exact,
    /// What is stored, however old.
    Materialized,
    /// What is stored if its oldest unapplied change is younger than this, in nanoseconds.
    MaxStaleness(i64),
}

/// Whether queries over measurements may be answered from aggregates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rewrite {
    /// Where that cannot change the answer.
    #[default]
    On,
    /// Never.
    Off,
    /// Always; a query that cannot be is an error.
    Require,
}

/// What a session is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// The database whose measurements are the tables.
    pub database: Arc<str>,
    /// How fresh the answers of aggregates are.
    pub freshness: Freshness,
    /// Whether queries over measurements may be answered from aggregates.
    pub rewrite: Rewrite,
    /// Whether points past their retention are seen as long as they are stored.
    pub show_expired: bool,
    /// Whether statements that change something are refused.
    pub read_only: bool,
    /// Number of threads a query is planned for; as many as the machine has if not given.
    pub partitions: Option<usize>,
}

impl SessionOptions {
    /// A session over `database`, everything else as usual.
    pub fn of(database: impl Into<Arc<str>>) -> Self {
        SessionOptions {
            database: database.into(),
            freshness: Freshness::Default,
            rewrite: Rewrite::On,
            show_expired: false,
            read_only: false,
            partitions: None,
        }
    }

    /// Carries out `SET freshness = ..` and `SET rewrite = ..`, which are for connections that
    /// outlive a statement. `false` and no change for any other statement.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if the variable or its value is unknown.
    pub fn apply_set(&mut self, sql: &str) -> Result<bool, QueryError> {
        apply_set(self, sql)
    }
}

/// See [`SessionOptions::apply_set`].
fn apply_set(options: &mut SessionOptions, sql: &str) -> Result<bool, QueryError> {
    let tokens = tokenize(sql)?;
    if !starts_with(&tokens, "set") {
        return Ok(false);
    }
    let (variable, value) = match parse_one(tokens, Limits::default())? {
        PlannedStatement::Statement(statement) => assignment(*statement)?,
        _ => return Ok(false),
    };
    match variable.to_lowercase().as_str() {
        "freshness" => options.freshness = value.parse()?,
        "max_staleness" => options.freshness = max_staleness(&value)?,
        "rewrite" => options.rewrite = value.parse()?,
        _ => return Err(QueryError::unsupported(format!("SET {variable}"))),
    }
    Ok(true)
}

fn assignment(statement: ast::Statement) -> Result<(String, String), QueryError> {
    let refused = || QueryError::unsupported("this form of SET");
    let ast::Statement::Set(Set::SingleAssignment {
        scope: None,
        hivevar: false,
        variable,
        values,
    }) = statement
    else {
        return Err(refused());
    };
    let value = match values.as_slice() {
        [Expr::Value(value)] => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        [Expr::Identifier(name)] => name.value.clone(),
        _ => return Err(refused()),
    };
    Ok((variable.to_string(), value))
}

fn max_staleness(age: &str) -> Result<Freshness, QueryError> {
    match age.trim().parse::<Span>() {
        Ok(Span::Nanos(nanos)) => Ok(Freshness::MaxStaleness(nanos)),
        Ok(Span::Months(_)) => {
            Err(QueryError::Invalid("max_staleness takes seconds to weeks, not months".to_owned()))
        }
        Err(error) => Err(QueryError::Invalid(error.to_string())),
    }
}

impl FromStr for Freshness {
    type Err = QueryError;

    /// Reads `default`, `exact`, `materialized` and `max_staleness 10m`, the age in quotes or not.
    fn from_str(text: &str) -> Result<Self, QueryError> {
        match text {
            "default" => Ok(Freshness::Default),
            "exact" => Ok(Freshness::Exact),
            "materialized" => Ok(Freshness::Materialized),
            _ => match text.strip_prefix("max_staleness ") {
                Some(age) => max_staleness(age.trim().trim_matches('\'')),
                None => Err(QueryError::Invalid(format!(
                    "freshness is exact, materialized or max_staleness 10m, not {text:?}"
                ))),
            },
        }
    }
}

impl FromStr for Rewrite {
    type Err = QueryError;

    /// Reads `on`, `off` and `require`.
    fn from_str(text: &str) -> Result<Self, QueryError> {
        match text {
            "on" => Ok(Rewrite::On),
            "off" => Ok(Rewrite::Off),
            "require" => Ok(Rewrite::Require),
            _ => Err(QueryError::Invalid(format!("rewrite is on, off or require, not {text:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_changes_the_options_of_a_connection() {
        let mut options = SessionOptions::of("t");
        assert!(!options.apply_set("SELECT 1").unwrap());
        assert!(options.apply_set("SET freshness = 'materialized'").unwrap());
        assert_eq!(options.freshness, Freshness::Materialized);
        assert!(options.apply_set("set freshness to 'max_staleness 10m'").unwrap());
        assert_eq!(options.freshness, Freshness::MaxStaleness(600_000_000_000));
        assert!(options.apply_set("SET rewrite = off").unwrap());
        assert_eq!(options.rewrite, Rewrite::Off);
        assert!(options.apply_set("SET freshness = 'soon'").is_err());
        assert!(options.apply_set("SET search_path = x").is_err());
    }
}
