//! Why an aggregate does not answer a question.

use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use highwater_core::Timestamp;

use crate::partial::MOST_DISTINCT;

/// Why an aggregate does not answer a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No aggregate answers a question of this kind.
    Question(String),
    /// It stands still.
    Detached,
    /// It is not refreshed on schedule.
    Disabled,
    /// Its last refresh failed.
    Failing,
    /// The measurement was dropped under it.
    Dropped,
    /// Its definition does not fit the points.
    Misfit(String),
    /// It buckets another column than the time.
    TimeColumn(Arc<str>),
    /// An expression names a column that it does not group by.
    NotAGroup { column: String, expr: String },
    /// An expression goes by the time of single points.
    SingleTimes { expr: String },
    /// Buckets of an expression are not made of its pieces.
    Boundaries { expr: String },
    /// An expression is not the same for all points of a group.
    Unsteady { expr: String },
    /// It keeps nothing that answers a call.
    NotKept { call: String },
    /// A function by order or of single series needs all of its groups.
    NeedsAllGroups { call: String },
    /// It counts no more than so many different values.
    TooManyValues { call: String },
    /// It only has points that meet a condition that the question does not ask for.
    Narrower { condition: String },
    /// None of its pieces lies within the times that are asked for.
    NoWholePiece,
    /// An output that is needed was added later.
    ValidFrom(Timestamp),
    /// Nothing that is asked for is stored and fresh.
    NothingStored,
    /// The last points of the series are kept ready, and answer it.
    LastPoints,
    /// Another one has fewer rows to read.
    Costlier { chosen: Arc<str> },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Question(why) => f.write_str(why),
            Reason::Detached => f.write_str("it is detached"),
            Reason::Disabled => f.write_str("it is disabled"),
            Reason::Failing => f.write_str("its last refresh failed"),
            Reason::Dropped => f.write_str("the measurement was dropped under it"),
            Reason::Misfit(why) => write!(f, "it does not fit the points: {why}"),
            Reason::TimeColumn(column) => write!(f, "it buckets {column}, not time"),
            Reason::NotAGroup { column, expr } if column == expr => {
                write!(f, "it does not group by {column}")
            }
            Reason::NotAGroup { column, expr } => {
                write!(f, "it does not group by {column}, which {expr} names")
            }
            Reason::SingleTimes { expr } => {
                write!(f, "{expr} goes by the times of points, and it keeps buckets")
            }
            Reason::Boundaries { expr } => write!(f, "{expr} cuts its buckets"),
            Reason::Unsteady { expr } => write!(f, "{expr} is not a matter of groups alone"),
            Reason::NotKept { call } => write!(f, "it keeps nothing that gives {call}"),
            Reason::NeedsAllGroups { call } => {
                write!(f, "{call} needs every column that it groups by as a group")
            }
            Reason::TooManyValues { call } => write!(
                f,
                "there may be more than the {MOST_DISTINCT} different values that it counts for {call}"
            ),
            Reason::Narrower { condition } => {
                write!(f, "it has only points with {condition}, which the query does not ask for")
            }
            Reason::NoWholePiece => {
                f.write_str("no bucket of it lies within the times that are asked for")
            }
            Reason::ValidFrom(at) => write!(f, "what it keeps of this is valid from {at} on only"),
            Reason::NothingStored => f.write_str("nothing that is asked for is stored and fresh"),
            Reason::LastPoints => {
                f.write_str("the last points of every series answer this with less work")
            }
            Reason::Costlier { chosen } => write!(f, "{chosen} has fewer rows to read"),
        }
    }
}

impl From<DataFusionError> for Reason {
    /// What cannot be taken apart is left as it is.
    fn from(error: DataFusionError) -> Self {
        Reason::Question(error.strip_backtrace())
    }
}
