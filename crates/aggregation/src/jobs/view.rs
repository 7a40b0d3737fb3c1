//! Jobs from outside: one struct for REST, SQL and metrics.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use highwater_core::schema::time_data_type;
use highwater_core::{SequenceNumber, Timestamp};
use highwater_query::QuerySession;
use serde::Serialize;

use super::job::{Job, JobKind};
use super::state::JobState;
use crate::catalog::Aggregate;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::runtime::Shared;
use crate::system::of_rows;

/// A job and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobStatus {
    /// Ascending in its database.
    pub id: u64,
    /// The aggregate that it builds.
    pub name: String,
    /// What it is for.
    pub kind: JobKind,
    /// Where it stands.
    pub status: JobState,
    /// What the aggregate reads; `None` once a job has ended that belongs to no aggregate any more.
    pub source_table: Option<String>,
    /// The newest commit when it was made.
    pub cutoff_id: SequenceNumber,
    /// How far back it has read, from the newest point on: the time of the oldest point of the last
    /// batch.
    pub last_processed_id: Option<Timestamp>,
    /// Points there are to read; of an aggregate over an aggregate about so many rows of partials.
    pub total_rows: u64,
    /// Those that it has read.
    pub processed_rows: u64,
    /// Their share in percent, with one decimal.
    pub progress_percent: f64,
    /// Points of a batch, about.
    pub batch_size: u64,
    /// The highest number of attempts that any step needed.
    pub attempts: u32,
    /// Why the last attempt failed, until one succeeds.
    pub error_message: Option<String>,
    /// When it will have read everything, at the rate since it last began to.
    pub eta: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The same as `created_at`.
    pub inserted_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A job of a catalogue.
pub(crate) struct Known {
    /// Name of its aggregate, or of the one that it had.
    pub(crate) name: Arc<str>,
    pub(crate) job: Arc<Job>,
    /// `None` once it belongs to no aggregate any more.
    pub(crate) aggregate: Option<Arc<Aggregate>>,
}

impl Known {
    /// As it looks from outside; a batch has so many points unless the job says otherwise.
    pub(crate) fn status(&self, step_points: u64) -> JobStatus {
        let job = &self.job;
        let source = self.aggregate.as_ref().map(|one| one.definition.rule.source.clone());
        JobStatus {
            id: job.id,
            name: self.name.to_string(),
            kind: job.kind,
            status: job.state,
            source_table: source,
            cutoff_id: job.cutoff_id,
            last_processed_id: job.position,
            total_rows: job.total_rows,
            processed_rows: job.processed_rows,
            progress_percent: job.progress_percent(),
            batch_size: job.batch_size.unwrap_or(step_points),
            attempts: job.attempts,
            error_message: job.error_message.clone(),
            eta: job.eta(),
            created_at: job.created_at,
            inserted_at: job.created_at,
            updated_at: job.updated_at,
        }
    }
}

/// All jobs of the reader's database, newest first.
pub(crate) fn known(reader: &Reader) -> Vec<Known> {
    let catalog = reader.catalog();
    let with_job = |one: &Arc<Aggregate>| {
        let (name, job) = (Arc::clone(one.name()), Arc::clone(one.job.as_ref()?));
        Some(Known { name, job, aggregate: Some(Arc::clone(one)) })
    };
    let ended = catalog.ended_jobs().iter().map(|(name, job)| Known {
        name: Arc::clone(name),
        job: Arc::clone(job),
        aggregate: None,
    });
    let current = catalog.iter().chain(catalog.shadows()).filter_map(with_job);
    let mut all: Vec<Known> = current.chain(ended).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.job.id));
    all
}

/// The table `system.jobs`.
pub(crate) fn jobs(
    shared: &Shared,
    session: &QuerySession,
) -> Result<Arc<dyn TableProvider>, AggregationError> {
    #[derive(Serialize)]
    struct Row {
        state: JobState,
        #[serde(flatten)]
        job: JobStatus,
    }
    let step_points = shared.settings().step_points;
    let all = known(&shared.reader_of(session)?);
    let rows = all.iter().map(|one| one.status(step_points));
    let rows: Vec<Row> = rows.map(|job| Row { state: job.status, job }).collect();
    let columns = [
        ("id", DataType::UInt64),
        ("name", DataType::Utf8),
        ("kind", DataType::Utf8),
        ("state", DataType::Utf8),
        ("status", DataType::Utf8),
        ("source_table", DataType::Utf8),
        ("cutoff_id", DataType::UInt64),
        ("last_processed_id", time_data_type()),
        ("total_rows", DataType::UInt64),
        ("processed_rows", DataType::UInt64),
        ("progress_percent", DataType::Float64),
        ("batch_size", DataType::UInt64),
        ("attempts", DataType::UInt32),
        ("error_message", DataType::Utf8),
        ("eta", time_data_type()),
        ("created_at", time_data_type()),
        ("inserted_at", time_data_type()),
        ("updated_at", time_data_type()),
    ];
    of_rows(&columns, &rows)
}

/// The table `system.job_events`: in the order they happened, job by job.
pub(crate) fn job_events(
    shared: &Shared,
    session: &QuerySession,
) -> Result<Arc<dyn TableProvider>, AggregationError> {
    #[derive(Serialize)]
    struct Row<'a> {
        id: u64,
        name: &'a str,
        event: u64,
        state: JobState,
        time: Timestamp,
    }
    let all = known(&shared.reader_of(session)?);
    let rows: Vec<Row<'_>> = all
        .iter()
        .rev()
        .flat_map(|one| {
            let events = (1..).zip(&one.job.events);
            events.map(|(number, event)| Row {
                id: one.job.id,
                name: &one.name,
                event: number,
                state: event.state,
                time: event.time,
            })
        })
        .collect();
    let columns = [
        ("id", DataType::UInt64),
        ("name", DataType::Utf8),
        ("event", DataType::UInt64),
        ("state", DataType::Utf8),
        ("time", time_data_type()),
    ];
    of_rows(&columns, &rows)
}
