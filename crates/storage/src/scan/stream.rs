//! Carrying a scan out: partitions take tasks from one queue until it is empty.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use highwater_core::{ScanFilter, Schema};
use parking_lot::Mutex;

use super::merge::{Duplicates, Merge};
use super::plan::Task;
use super::source::{ReadWork, Source, SourceReader, TagFilter};
use super::{ScanDescription, ScanSources};
use crate::error::StorageError;

/// A planned scan. Its streams may run side by side and more than once.
pub struct Scan {
    work: Arc<Work>,
    /// Per partition: how often its stream was asked for.
    rounds: Vec<AtomicUsize>,
    /// Per round: the tasks nobody has taken yet.
    queues: Mutex<Vec<Queue>>,
    description: ScanDescription,
}

/// Positions of tasks.
type Queue = Arc<Mutex<VecDeque<usize>>>;

/// What all partitions share.
struct Work {
    schema: Arc<Schema>,
    columns: SchemaRef,
    tags: TagFilter,
    duplicates: Duplicates,
    sources: Vec<Source>,
    tasks: Vec<Task>,
    rows_read: Arc<AtomicU64>,
}

impl Scan {
    pub(super) fn new(
        from: &ScanSources,
        columns: SchemaRef,
        filter: &ScanFilter,
        sources: Vec<Source>,
        tasks: Vec<Task>,
        partitions: usize,
        description: ScanDescription,
    ) -> Self {
        let partitions = tasks.len().clamp(1, partitions);
        let work = Work {
            schema: Arc::clone(&from.schema),
            columns,
            tags: filter.tags.clone().into(),
            duplicates: Duplicates::of(from.kind),
            sources,
            tasks,
            rows_read: Arc::default(),
        };
        let rounds = (0..partitions).map(|_| AtomicUsize::new(0)).collect();
        Scan { work: Arc::new(work), rounds, queues: Mutex::default(), description }
    }

    /// The requested columns in the requested order. Tags are `Dictionary(Int32, Utf8)`.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.work.columns)
    }

    /// Number of streams: at least 1, at most what was requested.
    pub fn partitions(&self) -> usize {
        self.rounds.len()
    }

    /// Rows of the requested points; all partitions together return each once. Which partition
    /// returns which rows is up to how fast they are. Asking for the stream of a partition again
    /// starts a new round with all rows.
    ///
    /// Columns: those of [`Scan::schema`]. Not sorted. No duplicate (series, `time`) in a
    /// measurement of points.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn stream(
        &self,
        partition: usize,
    ) -> BoxStream<'static, Result<RecordBatch, StorageError>> {
        let round = self.rounds[partition].fetch_add(1, Ordering::Relaxed);
        let worker =
            Worker { work: Arc::clone(&self.work), queue: self.queue(round), current: None };
        stream::try_unfold(worker, |mut worker| async {
            Ok(worker.next().await?.map(|batch| (batch, worker)))
        })
        .boxed()
    }

    /// What is going to be read.
    pub fn describe(&self) -> ScanDescription {
        self.description
    }

    /// Rows read from sources so far by all streams, before deduplication.
    pub fn rows_read(&self) -> u64 {
        self.work.rows_read.load(Ordering::Relaxed)
    }

    fn queue(&self, round: usize) -> Queue {
        let mut queues = self.queues.lock();
        while queues.len() <= round {
            queues.push(Arc::new(Mutex::new((0..self.work.tasks.len()).collect())));
        }
        Arc::clone(&queues[round])
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("columns", &self.work.columns)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// One partition at work.
struct Worker {
    work: Arc<Work>,
    queue: Queue,
    current: Option<TaskReader>,
}

enum TaskReader {
    Direct(SourceReader),
    Merge(Box<Merge>),
}

impl Worker {
    async fn next(&mut self) -> Result<Option<RecordBatch>, StorageError> {
        loop {
            if let Some(task) = &mut self.current {
                let batch = match task {
                    TaskReader::Direct(reader) => reader.next().await?,
                    TaskReader::Merge(merge) => merge.next().await?,
                };
                if batch.is_some() {
                    return Ok(batch);
                }
            }
            let next = self.queue.lock().pop_front();
            let Some(next) = next else { return Ok(None) };
            self.current = Some(self.work.start(next)?);
        }
    }
}

impl Work {
    fn start(&self, task: usize) -> Result<TaskReader, StorageError> {
        match self.tasks[task].clone() {
            Task::Direct { source, times, row_groups } => {
                let work = ReadWork { times, row_groups, ..self.read_work() };
                Ok(TaskReader::Direct(self.sources[source].read(work)))
            }
            Task::Merge { sources, times, share } => {
                let sources: Vec<&Source> = sources.iter().map(|at| &self.sources[*at]).collect();
                let work = ReadWork { times, ..self.read_work() };
                let merge = Merge::new(&self.schema, &sources, &work, self.duplicates, share)?;
                Ok(TaskReader::Merge(Box::new(merge)))
            }
        }
    }

    fn read_work(&self) -> ReadWork {
        ReadWork {
            columns: Arc::clone(&self.columns),
            times: highwater_core::TimeRanges::all(),
            tags: Arc::clone(&self.tags),
            row_groups: 0..usize::MAX,
            rows_read: Arc::clone(&self.rows_read),
        }
    }
}
