//! The database under test, in process, over a folder that outlives it.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, TimestampNanosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use highwater_aggregation::{
    AggregateRule, AggregateStatus, Aggregates, AggregationSettings, Backfill, JobKind, JobState,
    Mismatch, Move, Restatements, Rules,
};
use highwater_core::{
    Clock, ErrorKind, MeasurementId, MockClock, SequenceNumber, TimeRange, Timestamp,
};
use highwater_query::{
    Freshness, Limits as QueryLimits, Params, QueryError, Rewrite, SessionOptions,
};
use highwater_server::line_protocol::{Limits, Options, Precision, parse_with};
use highwater_storage::{Engine, MeasurementKind, Settings, WriteMode};
use tempfile::TempDir;

use super::model::{Point, float_cell};
use super::steps::JobStep;

/// A missing value in the cells of an answer.
pub(crate) const NULL: &str = "NULL";
/// The database of the test.
const DATABASE: &str = "t";

/// An engine with aggregates, a manual clock and a folder.
pub(crate) struct Database {
    pub(crate) aggregates: Aggregates,
    pub(crate) clock: Arc<MockClock>,
    folder: TempDir,
}

impl Database {
    pub(crate) async fn create(rules: &str, now: i64) -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(MockClock::at(Timestamp::from_nanos(now)));
        let aggregates = open(folder.path(), &clock).await;
        let rules = Rules::load([("rules.yml".to_owned(), rules.to_owned())]);
        aggregates.apply_rules(&rules.unwrap()).await.unwrap();
        Database { aggregates, clock, folder }
    }

    fn engine(&self) -> &Engine {
        self.aggregates.engine()
    }

    /// Writes points and returns how many were refused, which only happens to those too old.
    pub(crate) async fn write(&self, measurement: &str, points: &[Point]) -> usize {
        let lines: Vec<String> = points.iter().map(|point| point.line(measurement)).collect();
        let version = self.engine().version();
        let schema_of = |measurement: &str| {
            let id = MeasurementId::new(DATABASE, measurement);
            version.measurement(&id).map(|measurement| Arc::clone(measurement.schema()))
        };
        let options = Options {
            precision: Precision::Nanosecond,
            default_time: self.clock.now(),
            limits: &Limits::default(),
            schema_of: &schema_of,
        };
        let parsed = parse_with(lines.join("\n").as_bytes(), &options);
        assert_eq!(parsed.refused, []);
        if parsed.batches.is_empty() {
            return 0;
        }
        let mode = WriteMode::StoreGoodLines;
        let written = self.engine().write(DATABASE, parsed.batches, mode).await;
        written.unwrap().refused.len()
    }

    /// Points before this time are gone for good.
    pub(crate) fn floor(&self, measurement: &str) -> i64 {
        let version = self.engine().version();
        let measurement = version.measurement(&MeasurementId::new(DATABASE, measurement));
        measurement.map_or(i64::MIN, |measurement| measurement.floor().as_nanos())
    }

    pub(crate) async fn flush(&self) {
        self.engine().flush().await.unwrap();
    }

    pub(crate) async fn compact(&self) {
        self.engine().compact().await.unwrap();
    }

    /// Lets the background work until nothing is due.
    pub(crate) async fn drain(&self) {
        for _ in 0..1_000 {
            if self.aggregates.tick().await.unwrap() == 0 {
                return;
            }
        }
        panic!("the background never rests");
    }

    pub(crate) async fn refresh(&self, name: &str, window: Option<(i64, i64)>) {
        let at = Timestamp::from_nanos;
        let window = window.map(|(start, end)| TimeRange::new(at(start), at(end)));
        self.aggregates.refresh(DATABASE, name, window).await.unwrap();
    }

    pub(crate) async fn enable(&self, name: &str, enabled: bool) {
        self.aggregates.set_enabled(DATABASE, name, enabled).await.unwrap();
    }

    /// Gives one of the segments of stored partials up, if none of them is sealed: then nothing is
    /// lost.
    pub(crate) async fn give_up_partials(&self, number: u64) {
        let version = self.engine().version();
        let stored = version.all_measurements().filter(|m| {
            m.kind() != MeasurementKind::Points && !m.id().measurement.contains("@restatements")
        });
        let paths: Vec<String> = stored
            .flat_map(|m| m.segments())
            .filter(|segment| !segment.is_in_memory())
            .map(|segment| segment.path.clone())
            .collect();
        let Some(at) = number.checked_rem(paths.len() as u64) else { return };
        let path = &paths[at as usize];
        if self.aggregates.plan_quarantine(path, true).await.unwrap().lost.is_empty() {
            self.aggregates.quarantine(path, true).await.unwrap();
        }
    }

    pub(crate) async fn restatements(&self, name: &str, since: SequenceNumber) -> Restatements {
        self.aggregates.restatements(DATABASE, name, Some(since)).await.unwrap()
    }

    pub(crate) fn status(&self, name: &str) -> AggregateStatus {
        self.aggregates.get(DATABASE, name).unwrap()
    }

    /// Changes some keys of a definition; `false` if that would lose what has expired.
    pub(crate) async fn change(&self, rule: &AggregateRule, keys: &str) -> bool {
        let mut changed = serde_json::to_value(rule).unwrap();
        let keys: serde_json::Map<_, _> = serde_json::from_str(keys).unwrap();
        changed.as_object_mut().unwrap().extend(keys);
        let rule = serde_json::from_value(changed).unwrap();
        match self.aggregates.change(DATABASE, rule).await {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::Conflict => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes back the last change, if there is one and it can be.
    pub(crate) async fn undo(&self, name: &str) {
        match self.aggregates.undo(DATABASE, name).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Does something with the job of an aggregate, if there is one and its state allows it.
    pub(crate) async fn job(&self, name: &str, what: JobStep) {
        let move_job = |wanted| self.aggregates.move_job(DATABASE, name, wanted);
        let again = |force| {
            let wanted = Backfill { force, batch_size: Some(20) };
            self.aggregates.backfill(DATABASE, name, wanted)
        };
        let outcome = match what {
            JobStep::Rebuild => again(true).await,
            JobStep::Start => again(false).await,
            JobStep::Pause => move_job(Move::Pause).await,
            JobStep::Cancel => move_job(Move::Cancel).await,
        };
        let refused = [ErrorKind::Conflict, ErrorKind::Invalid, ErrorKind::NotFound];
        if let Err(error) = outcome.map_err(|error| (error.kind(), error)) {
            assert!(refused.contains(&error.0), "{}", error.1);
        }
    }

    /// Whether somebody stopped the first build of an aggregate.
    pub(crate) fn lacks_history(&self, name: &str) -> bool {
        let jobs = self.aggregates.jobs(DATABASE).unwrap();
        let mut own = jobs.iter().filter(|job| job.name == name && job.source_table.is_some());
        own.any(|job| job.kind == JobKind::Backfill && job.status != JobState::Completed)
    }

    /// What of the stored partials is not what an audit computes, which has to be nothing.
    pub(crate) async fn mismatches(&self, name: &str) -> Vec<Mismatch> {
        self.aggregates.verify(DATABASE, name, None, false).await.unwrap().details
    }

    pub(crate) async fn reopen(self) -> Self {
        self.engine().close().await.unwrap();
        let Database { aggregates, clock, folder } = self;
        drop(aggregates);
        let aggregates = open(folder.path(), &clock).await;
        Database { aggregates, clock, folder }
    }

    /// Opens the files as they lie there, as if the process had died.
    pub(crate) async fn crash(self) -> Self {
        let folder = TempDir::new().unwrap();
        copy(self.folder.path(), folder.path());
        let clock = Arc::clone(&self.clock);
        drop(self);
        let aggregates = open(folder.path(), &clock).await;
        Database { aggregates, clock, folder }
    }

    /// The answer as tables give it that the statement names: an aggregate cannot vouch for itself.
    async fn ask(&self, freshness: Freshness, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
        let rewrite = Rewrite::Off;
        self.ask_with(SessionOptions { freshness, rewrite, ..SessionOptions::of(DATABASE) }, sql)
            .await
    }

    async fn ask_with(
        &self,
        options: SessionOptions,
        sql: &str,
    ) -> Result<Vec<RecordBatch>, QueryError> {
        let session = self.aggregates.query_engine().session(options);
        session.sql(sql, Params::None).await?.collect().await
    }

    /// The rows of an answer that may come from aggregates, sorted.
    pub(crate) async fn rows_from_aggregates(&self, sql: &str) -> Vec<Vec<String>> {
        sorted(sql, self.ask_with(SessionOptions::of(DATABASE), sql).await)
    }

    /// Whether an aggregate answers a part of a query.
    pub(crate) async fn is_rewritten(&self, sql: &str) -> bool {
        let plan = self.rows_from_aggregates(&format!("EXPLAIN {sql}")).await;
        plan.iter().any(|row| row[0] == "rewrite" && row[1].contains("answered from"))
    }

    /// Deletes, unless that would reduce sealed buckets; returns whether it did.
    pub(crate) async fn delete(&self, sql: &str) -> bool {
        match self.ask(Freshness::Default, sql).await {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::Conflict => {
                assert!(error.to_string().contains("sealed buckets"), "{sql}: {error}");
                false
            }
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// The rows of an answer, sorted.
    pub(crate) async fn rows(&self, freshness: Freshness, sql: &str) -> Vec<Vec<String>> {
        sorted(sql, self.ask(freshness, sql).await)
    }
}

/// The rows of the answer to a query, sorted.
fn sorted(sql: &str, answer: Result<Vec<RecordBatch>, QueryError>) -> Vec<Vec<String>> {
    let answer = answer.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut rows: Vec<Vec<String>> = answer
        .iter()
        .flat_map(|batch| {
            let row = |row| batch.columns().iter().map(|c| cell(c.as_ref(), row)).collect();
            (0..batch.num_rows()).map(row).collect::<Vec<Vec<String>>>()
        })
        .collect();
    rows.sort();
    rows
}

async fn open(folder: &Path, clock: &Arc<MockClock>) -> Aggregates {
    let settings = Settings {
        flush_points: 300,
        compact_segments: 2,
        window_points: 20,
        ..Settings::default()
    };
    let engine = Engine::open(folder, settings, Arc::clone(clock) as Arc<dyn Clock>).await.unwrap();
    let aggregation = AggregationSettings { step_points: 50, ..AggregationSettings::default() };
    let aggregates = Aggregates::open(engine, aggregation, QueryLimits::default()).unwrap();
    aggregates.keep_resident().await.unwrap();
    aggregates
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// A value as text: times in nanoseconds, floats with their bits.
fn cell(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return NULL.to_owned();
    }
    match column.data_type() {
        DataType::Float64 => float_cell(column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(..) => {
            column.as_primitive::<TimestampNanosecondType>().value(row).to_string()
        }
        _ => {
            let format = FormatOptions::default();
            ArrayFormatter::try_new(column, &format).unwrap().value(row).to_string()
        }
    }
}
