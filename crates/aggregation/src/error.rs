//! What can go wrong with aggregates.

use highwater_core::{ErrorKind, SequenceNumber, TimeRange};
use highwater_query::QueryError;
use highwater_storage::StorageError;

use crate::definition::DefinitionError;
use crate::jobs::state::MoveError;
use crate::watermark::WatermarkError;

/// An error of the aggregation layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AggregationError {
    /// A rule cannot be maintained as written.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// Several rules cannot be maintained as written; nothing was applied.
    #[error("{}", list(.0))]
    Rules(Vec<DefinitionError>),
    /// There is no such aggregate.
    #[error("there is no aggregate {name} in database {database}")]
    NoSuchAggregate {
        /// The database looked in.
        database: String,
        /// The name looked for.
        name: String,
    },
    /// There is no such job.
    #[error("there is no job {which} in database {database}; `highwater jobs list` lists them")]
    NoSuchJob {
        /// Number of the job or name of its aggregate.
        which: String,
        /// The database looked in.
        database: String,
    },
    /// A job cannot do that in its state.
    #[error(transparent)]
    Job(#[from] MoveError),
    /// A test wanted it to fail.
    #[error("the switch {0} lets this fail")]
    Injected(&'static str),
    /// A refresh that was asked for failed; what was stored before stays.
    #[error("could not refresh {name}: {reason}")]
    Refresh {
        /// The aggregate.
        name: String,
        /// Why, with its causes.
        reason: String,
    },
    /// The watermark cannot stand there.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// A refresh found more groups than the rule allows.
    #[error(
        "{count} groups in {piece} are more than max_groups = {most}; raise max_groups, or group by \
         fewer columns"
    )]
    TooManyGroups {
        /// The piece: a bucket, or a day of a longer one.
        piece: TimeRange,
        /// The groups in there.
        count: u64,
        /// The limit.
        most: u64,
    },
    /// Entries of a feed of restatements were dropped before they were read.
    #[error(
        "restatements of {name} up to commit {from} are not kept any more; read what the aggregate \
         holds now, and ask for those since {from}"
    )]
    FeedGone {
        /// The aggregate.
        name: String,
        /// The feed goes on after this commit.
        from: SequenceNumber,
    },
    /// The process ends, and background work with it.
    #[error("the server is stopping, so nothing is refreshed any more; ask again after the start")]
    Stopping,
    /// It contradicts what exists.
    #[error("{0}")]
    Conflict(String),
    /// The request is not one that can be carried out.
    #[error("{0}")]
    Invalid(String),
    /// A stored document is not what was written.
    #[error("document {key} in the manifest is damaged")]
    Document {
        /// Key of the document.
        key: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// Stored partials or points could not be read, or the result not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A query failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A plan could not be built or run.
    #[error(transparent)]
    DataFusion(#[from] datafusion::error::DataFusionError),
}

fn list(errors: &[DefinitionError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl AggregationError {
    /// What the caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            AggregationError::Definition(_)
            | AggregationError::Rules(_)
            | AggregationError::Job(_)
            | AggregationError::Invalid(_) => ErrorKind::Invalid,
            AggregationError::NoSuchAggregate { .. } | AggregationError::NoSuchJob { .. } => {
                ErrorKind::NotFound
            }
            AggregationError::Conflict(_) | AggregationError::FeedGone { .. } => {
                ErrorKind::Conflict
            }
            AggregationError::Stopping | AggregationError::Injected(_) => ErrorKind::Unavailable,
            AggregationError::Document { .. } => ErrorKind::Corrupt,
            AggregationError::Storage(error) => error.kind(),
            AggregationError::Query(error) => error.kind(),
            AggregationError::Watermark(error) => error.kind(),
            AggregationError::Refresh { .. } | AggregationError::TooManyGroups { .. } => {
                ErrorKind::Computation
            }
            AggregationError::DataFusion(_) => ErrorKind::Internal,
        }
    }
}
