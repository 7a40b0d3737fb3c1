//! How fast points are read: Highwater's scan beside the same files read as plain Parquet.
//!
//! Segments that overlap nothing are read straight, so in order the two should be equal. Where late
//! points overlap, a scan also has to merge, and plain Parquet tells the same points twice.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use highwater_core::{MeasurementId, ScanFilter, Stopwatch, SystemClock, Timestamp};
use highwater_query::{Params, QueryEngine, SessionOptions};
use highwater_server::demo::tsbs::{FIELDS, Fleet};
use highwater_server::line_protocol::{Limits, Precision, parse};
use highwater_storage::{Engine, Measurement, ScanRequest, Settings, WriteMode};
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use tokio::fs::File;
use tokio::runtime::{Builder, Runtime};

use crate::DATABASE;
use crate::report::{median, print_head, print_row};
use crate::workload::{Requests, Set};

const MEASUREMENT: &str = "cpu";
/// The field that is summed up.
const FIELD: &str = FIELDS[0];

/// What a run has read: rows, and the sum of the field if it was asked for.
type Read = (u64, i64);

/// The points of a set, settled in segments.
struct Stored {
    folder: PathBuf,
    query: QueryEngine,
}

/// How many threads decode.
struct Threads {
    runtime: Runtime,
    count: usize,
}

/// Stores a set in segments and reads it, in order and then with 1 % late points beside it.
///
/// # Errors
/// It cannot be stored or read, or the two do not read the same.
pub fn run(set: Set, runs: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::new(set.shape());
    let cores = std::thread::available_parallelism()?.get();
    let one = Threads { runtime: Builder::new_current_thread().enable_all().build()?, count: 1 };
    let all = Builder::new_multi_thread().worker_threads(cores).enable_all().build()?;
    let all = Threads { runtime: all, count: cores };
    let stored = all.runtime.block_on(Stored::create(folder.path(), &fleet))?;
    println!("scan {}: median of {runs} warm runs, in process\n", set.name());
    print_head(&["points", "read", "threads", "rows", "ms", "plain Parquet ms", "ratio"]);
    for points in ["in order", "1 % late"] {
        if points == "1 % late" {
            let late = fleet.late_new().chain(fleet.late_again());
            all.runtime.block_on(stored.write(&Requests::of(&fleet, late)))?;
        }
        for threads in [&one, &all] {
            stored.compare(points, threads, runs)?;
        }
    }
    println!();
    all.runtime.block_on(stored.query.storage().close())?;
    Ok(())
}

impl Stored {
    async fn create(folder: &Path, fleet: &Fleet) -> anyhow::Result<Stored> {
        let engine = Engine::open(folder, Settings::default(), Arc::new(SystemClock)).await?;
        let query = QueryEngine::builder(engine).build()?;
        let stored = Stored { folder: folder.to_owned(), query };
        stored.write(&Requests::of(fleet, fleet.base())).await?;
        while stored.query.storage().compact().await? > 0 {}
        Ok(stored)
    }

    /// Stores points in segments of their own.
    async fn write(&self, requests: &Requests) -> anyhow::Result<()> {
        let engine = self.query.storage();
        for body in &requests.bodies {
            let parsed = parse(body, Precision::Nanosecond, Timestamp::EPOCH, &Limits::default());
            engine.write(DATABASE, parsed.batches, WriteMode::AllOrNothing).await?;
            if engine.flush_due() {
                engine.flush().await?;
            }
        }
        Ok(engine.flush().await?)
    }

    fn measurement(&self) -> anyhow::Result<Arc<Measurement>> {
        let version = self.query.storage().version();
        let found = version.measurement(&MeasurementId::new(DATABASE, MEASUREMENT));
        found.cloned().context("no points were stored")
    }

    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let measurement = self.measurement()?;
        Ok(measurement.segments().map(|segment| self.folder.join(&segment.path)).collect())
    }

    fn compare(&self, points: &str, threads: &Threads, runs: usize) -> anyhow::Result<()> {
        let in_order = points == "in order";
        let (ms, own) = threads.measure(runs, || self.scan(threads.count))?;
        let (plain_ms, plain) = threads.measure(runs, || self.plain(threads.count, None))?;
        print_pair([points, "all columns"], threads, own, ms, plain_ms);
        ensure!(!in_order || own.0 == plain.0, "{own:?} rows are not {plain:?}");
        let (ms, own) = threads.measure(runs, || self.sql())?;
        let (plain_ms, plain) = threads.measure(runs, || self.plain(threads.count, Some(FIELD)))?;
        print_pair([points, "count and sum in SQL"], threads, own, ms, plain_ms);
        ensure!(!in_order || own == plain, "{own:?} is not {plain:?}");
        Ok(())
    }

    /// All columns, as the storage engine returns them.
    async fn scan(&self, threads: usize) -> anyhow::Result<Read> {
        let measurement = self.measurement()?;
        let columns = measurement.schema().arrow();
        let columns = columns.fields().iter().map(|field| field.name().as_str().into()).collect();
        let request =
            ScanRequest { partitions: threads, ..ScanRequest::new(columns, ScanFilter::all()) };
        let scan = measurement.scan(&request)?;
        let partitions = (0..scan.partitions()).map(|partition| {
            let mut rows = scan.stream(partition);
            tokio::spawn(async move {
                let mut read = 0;
                while let Some(batch) = rows.try_next().await? {
                    read += std::hint::black_box(batch).num_rows() as u64;
                }
                anyhow::Ok(read)
            })
        });
        let read = try_join_all(partitions).await?.into_iter().sum::<anyhow::Result<u64>>()?;
        Ok((read, 0))
    }

    /// One field through SQL.
    async fn sql(&self) -> anyhow::Result<Read> {
        let session = self.query.session(SessionOptions::of(DATABASE));
        let sql = format!("SELECT count(*), sum({FIELD}) FROM {MEASUREMENT}");
        let answer = session.sql(&sql, Params::None).await?.collect().await?;
        let answer = answer.first().context("no answer")?;
        let value = |at: usize| answer.column(at).as_primitive::<Int64Type>().value(0);
        Ok((value(0).unsigned_abs(), value(1)))
    }

    /// The row groups of all files, read by the Parquet library alone; all columns, or one that is
    /// summed up.
    async fn plain(&self, threads: usize, column: Option<&'static str>) -> anyhow::Result<Read> {
        let mut tasks = VecDeque::new();
        for file in self.files()? {
            let groups = open(&file).await?.metadata().num_row_groups();
            tasks.extend((0..groups).map(|group| (file.clone(), group)));
        }
        let tasks = Arc::new(std::sync::Mutex::new(tasks));
        let workers = (0..threads).map(|_| {
            let tasks = Arc::clone(&tasks);
            tokio::spawn(async move {
                let mut read = (0, 0);
                let next = || tasks.lock().map(|mut tasks| tasks.pop_front()).ok().flatten();
                while let Some((file, group)) = next() {
                    let own = read_group(&file, group, column).await?;
                    read = (read.0 + own.0, read.1 + own.1);
                }
                anyhow::Ok(read)
            })
        });
        let mut total = (0, 0);
        for read in try_join_all(workers).await? {
            let read = read?;
            total = (total.0 + read.0, total.1 + read.1);
        }
        Ok(total)
    }
}

async fn open(file: &Path) -> anyhow::Result<ParquetRecordBatchStreamBuilder<File>> {
    Ok(ParquetRecordBatchStreamBuilder::new(File::open(file).await?).await?)
}

async fn read_group(file: &Path, group: usize, column: Option<&str>) -> anyhow::Result<Read> {
    let builder = open(file).await?.with_row_groups(vec![group]);
    let mask = match column {
        Some(column) => ProjectionMask::columns(builder.parquet_schema(), [column]),
        None => ProjectionMask::all(),
    };
    let mut batches = builder.with_projection(mask).build()?;
    let mut read = (0, 0);
    while let Some(batch) = batches.next().await {
        let batch = std::hint::black_box(batch?);
        read.0 += batch.num_rows() as u64;
        if column.is_some() {
            read.1 += sum_of(&batch);
        }
    }
    Ok(read)
}

/// The sum of the one column there is.
fn sum_of(batch: &RecordBatch) -> i64 {
    arrow::compute::sum(batch.column(0).as_primitive::<Int64Type>()).unwrap_or(0)
}

impl Threads {
    /// Milliseconds of a run, the middle one of so many, and what it has read.
    fn measure<F: Future<Output = anyhow::Result<Read>>>(
        &self,
        runs: usize,
        read: impl Fn() -> F,
    ) -> anyhow::Result<(f64, Read)> {
        let found = self.runtime.block_on(read())?;
        let mut times = Vec::new();
        for _ in 0..runs {
            let stopwatch = Stopwatch::start();
            ensure!(self.runtime.block_on(read())? == found, "two runs read different rows");
            times.push(stopwatch.elapsed_ms());
        }
        Ok((median(times), found))
    }
}

fn print_pair(what: [&str; 2], threads: &Threads, (rows, _): Read, ms: f64, plain_ms: f64) {
    print_row(&[
        what[0],
        what[1],
        &threads.count.to_string(),
        &rows.to_string(),
        &format!("{ms:.1}"),
        &format!("{plain_ms:.1}"),
        &format!("{:.2}", ms / plain_ms),
    ]);
}
