//! What can go wrong with a query, in words for the person who wrote it.

use std::error::Error;
use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use highwater_core::ErrorKind;
use highwater_storage::StorageError;

/// An error of a query or statement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// A table is named that does not exist.
    #[error("table '{table}' not found{}", Hint(.close))]
    NoSuchTable {
        /// The name as it was written.
        table: String,
        /// Existing names that look alike.
        close: Vec<String>,
    },
    /// Correct SQL that is not answered, rather than answered wrongly.
    #[error("{what} is not supported{}", Advice(.advice))]
    Unsupported {
        /// The construct, as SQL names it.
        what: String,
        /// What to write instead, or empty.
        advice: &'static str,
    },
    /// The statement is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The statement is sound, its computation has no representable answer.
    #[error("{0}")]
    Computation(String),
    /// The query needs more memory or disk than it may use.
    #[error("the query needs more memory than it may use: {0}")]
    Resources(String),
    /// Storage could not read or write.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An error of a layer above, on its way through a plan.
    #[error("{message}")]
    Other {
        /// What the caller may do about it.
        kind: ErrorKind,
        /// The error and its causes.
        message: String,
    },
    /// A defect of Highwater or of the libraries it is built on.
    #[error("the query failed by a defect of the engine: {0}")]
    Internal(String),
}

struct Hint<'a>(&'a [String]);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            names => write!(f, "; did you mean {}?", names.join(" or ")),
        }
    }
}

struct Advice<'a>(&'a str);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; {}", self.0) }
    }
}

impl QueryError {
    /// `what` is refused.
    pub fn unsupported(what: impl Into<String>) -> Self {
        QueryError::Unsupported { what: what.into(), advice: "" }
    }

    /// `what` is refused, and what to write instead.
    pub fn unsupported_but(what: impl Into<String>, advice: &'static str) -> Self {
        QueryError::Unsupported { what: what.into(), advice }
    }

    /// What the caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            QueryError::NoSuchTable { .. } => ErrorKind::NotFound,
            QueryError::Unsupported { .. } | QueryError::Invalid(_) => ErrorKind::Invalid,
            QueryError::Computation(_) => ErrorKind::Computation,
            QueryError::Resources(_) => ErrorKind::Unavailable,
            QueryError::Storage(error) => error.kind(),
            QueryError::Other { kind, .. } => *kind,
            QueryError::Internal(_) => ErrorKind::Internal,
        }
    }

    /// An error met before anything ran: whatever cannot be computed there is wrong in the
    /// statement itself.
    pub(crate) fn while_planning(error: DataFusionError) -> Self {
        match QueryError::from(error) {
            QueryError::Computation(message) => QueryError::Invalid(message),
            other => other,
        }
    }
}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
                (*inner).into()
            }
            DataFusionError::Collection(mut all) if !all.is_empty() => all.swap_remove(0).into(),
            DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
                Ok(own) => own.into(),
                Err(shared) => describe(shared.find_root()),
            },
            DataFusionError::External(inner) => from_boxed(inner),
            DataFusionError::ArrowError(arrow, _) => match *arrow {
                ArrowError::ExternalError(inner) => from_boxed(inner),
                arrow => describe_arrow(&arrow),
            },
            other => describe(&other),
        }
    }
}

fn from_boxed(error: Box<dyn Error + Send + Sync>) -> QueryError {
    let error = match error.downcast::<QueryError>() {
        Ok(own) => return *own,
        Err(other) => other,
    };
    let error = match error.downcast::<StorageError>() {
        Ok(storage) => return (*storage).into(),
        Err(other) => other,
    };
    match error.downcast::<DataFusionError>() {
        Ok(planned) => (*planned).into(),
        Err(other) => QueryError::Internal(chain(&*other)),
    }
}

/// The error and its causes, outermost first.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn describe(error: &DataFusionError) -> QueryError {
    let message = clean(&error.message());
    match error {
        DataFusionError::Plan(_)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Configuration(_) => QueryError::Invalid(message),
        DataFusionError::SQL(error, _) => QueryError::Invalid(clean(&error.to_string())),
        DataFusionError::Execution(_) => QueryError::Computation(message),
        DataFusionError::ResourcesExhausted(_) => QueryError::Resources(message),
        DataFusionError::ArrowError(arrow, _) => describe_arrow(arrow),
        DataFusionError::External(inner) => match inner.downcast_ref::<QueryError>() {
            Some(own) => QueryError::Other { kind: own.kind(), message: own.to_string() },
            None => match inner.downcast_ref::<StorageError>() {
                Some(own) => QueryError::Other { kind: own.kind(), message: chain(own) },
                None => QueryError::Internal(message),
            },
        },
        _ => QueryError::Internal(message),
    }
}

fn describe_arrow(error: &ArrowError) -> QueryError {
    let message = clean(&error.to_string());
    match error {
        ArrowError::ArithmeticOverflow(_)
        | ArrowError::DivideByZero
        | ArrowError::CastError(_)
        | ArrowError::ParseError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::InvalidArgumentError(_) => QueryError::Computation(message),
        _ => QueryError::Internal(message),
    }
}

/// Removes what speaks of the engine instead of the statement.
fn clean(message: &str) -> String {
    let message = message.split("\n\nbacktrace:").next().unwrap_or(message);
    let message =
        message.split("\nThis issue was likely caused by a bug").next().unwrap_or(message);
    let noise = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "SQL error: ",
        "Schema error: ",
        "This feature is not implemented: ",
        "Optimizer rule 'optimize_projections' failed",
        "sql parser error: ",
        "Parser error: ",
        "Cast error: ",
        "Compute error: ",
        "Arithmetic overflow: ",
        "Invalid argument error: ",
        "External error: ",
    ];
    let mut rest = message.trim();
    while let Some(stripped) = noise.iter().find_map(|noise| rest.strip_prefix(noise)) {
        rest = stripped.trim_start();
    }
    rest.replace("highwater.public.", "").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_kind_through_a_plan() {
        let storage = StorageError::Invalid("no".into());
        let planned = DataFusionError::External(Box::new(storage)).context("scanning");
        let nested = ArrowError::ExternalError(Box::new(planned));
        let error = QueryError::from(DataFusionError::ArrowError(Box::new(nested), None));
        assert!(matches!(error, QueryError::Storage(StorageError::Invalid(_))), "{error:?}");
        let overflow = ArrowError::ArithmeticOverflow("1 + 1".into());
        let error = QueryError::from(DataFusionError::ArrowError(Box::new(overflow), None));
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Computation, "1 + 1"));
    }

    #[test]
    fn messages_speak_of_the_statement() {
        let error = DataFusionError::Plan("table 'highwater.public.cpu' is odd".into());
        assert_eq!(QueryError::from(error).to_string(), "table 'cpu' is odd");
        let error = QueryError::NoSuchTable { table: "cpv".into(), close: vec!["cpu".into()] };
        assert_eq!(error.to_string(), "table 'cpv' not found; did you mean cpu?");
    }
}
