//! Errors of sound requests whose answer cannot be represented.

use std::error::Error;
use std::fmt;

use datafusion::common::DataFusionError;
use highwater_core::ErrorKind;
use highwater_query::QueryError;

use crate::partial::{DecodeError, MOST_DISTINCT};

/// The request is sound, but its computation has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComputationError {
    /// A sum of integers is beyond the integers of its column.
    #[error("sum of integers overflows{}; read fewer points or cast to DOUBLE", Where(labels))]
    IntegerOverflow {
        /// Names and values that say where: bucket, then groups.
        labels: Vec<(String, String)>,
    },
    /// A group has more different values than are counted exactly.
    #[error(
        "more than {MOST_DISTINCT} distinct values{}; use approx_distinct, or smaller groups",
        Where(labels)
    )]
    TooManyDistinct {
        /// Names and values that say where: bucket, then groups.
        labels: Vec<(String, String)>,
    },
    /// Histograms that count between different bounds.
    #[error(
        "histograms of different bounds mix in one group{}; merge those of one definition only",
        Where(labels)
    )]
    DifferentBounds {
        /// Names and values that say where: bucket, then groups.
        labels: Vec<(String, String)>,
    },
    /// Points that are not those of one series, in order of time.
    #[error(
        "points of several series mix in one group{}; group by every tag that tells them apart",
        Where(labels)
    )]
    SeveralSeries {
        /// Names and values that say where: bucket, then groups.
        labels: Vec<(String, String)>,
    },
}

impl ComputationError {
    /// The same, in the group that these names and values tell.
    pub(super) fn labelled(mut self, found: Vec<(String, String)>) -> Self {
        match &mut self {
            ComputationError::IntegerOverflow { labels }
            | ComputationError::TooManyDistinct { labels }
            | ComputationError::DifferentBounds { labels }
            | ComputationError::SeveralSeries { labels } => *labels = found,
        }
        self
    }

    /// What the caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Computation
    }
}

impl From<ComputationError> for DataFusionError {
    fn from(error: ComputationError) -> Self {
        through_a_plan(error.kind(), &error)
    }
}

/// An error on its way through DataFusion, from where it comes back as a [`QueryError`].
pub(crate) fn through_a_plan(kind: ErrorKind, error: &dyn Error) -> DataFusionError {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    QueryError::Other { kind, message }.into()
}

struct Where<'a>(&'a [(String, String)]);

impl fmt::Display for Where<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { " in " } else { ", " })?;
        }
        Ok(())
    }
}

/// Damaged partials, on their way through DataFusion.
pub(super) fn undecodable(error: DecodeError) -> DataFusionError {
    through_a_plan(ErrorKind::Corrupt, &error)
}
