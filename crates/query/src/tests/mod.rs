//! Statements over a real storage engine in a temporary folder.

mod errors;
mod functions;
mod last_points;
mod planning;
mod reading;
mod seam;
mod statements;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use highwater_core::{MockClock, PointBatch, TagSet, Timestamp};
use highwater_storage::{Engine, Settings, WriteMode};
use tempfile::TempDir;

use crate::{Extension, Params, QueryEngine, QueryError, QuerySession, SessionOptions};

/// A database on disk, the clock at 2024-01-01T12:00:00Z.
struct Db {
    storage: Engine,
    queries: QueryEngine,
    clock: Arc<MockClock>,
    _folder: TempDir,
}

impl Db {
    async fn open() -> Db {
        Db::with(Vec::new()).await
    }

    async fn with(extensions: Vec<Arc<dyn Extension>>) -> Db {
        let folder = tempfile::tempdir().unwrap();
        let noon = Timestamp::parse("2024-01-01T12:00:00Z").unwrap();
        let clock = Arc::new(MockClock::at(noon));
        let storage =
            Engine::open(folder.path(), Settings::default(), Arc::clone(&clock) as _).await;
        let storage = storage.unwrap();
        let builder = QueryEngine::builder(storage.clone());
        let builder = extensions.into_iter().fold(builder, |builder, e| builder.extend(e));
        Db { storage, queries: builder.build().unwrap(), clock, _folder: folder }
    }

    /// Three hosts of `cpu` from ten o'clock on, and one of `disk`.
    async fn with_cpu() -> Db {
        let db = Db::open().await;
        db.write(&[
            "cpu host=a,dc=x usage=10.0,cores=4i 2024-01-01T10:00:00Z",
            "cpu host=a,dc=x usage=20.0 2024-01-01T10:30:00Z",
            "cpu host=b,dc=y usage=30.0,cores=8i 2024-01-01T11:00:00Z",
            "cpu host=c usage=40.0,ok=true 2024-01-01T11:30:00Z",
            "disk host=a free=7i,name=\"sd a\" 2024-01-01T10:00:00Z",
        ])
        .await;
        db
    }

    /// Writes points: `measurement tags fields time`, `-` for no tags.
    async fn write(&self, lines: &[&str]) {
        let batches = lines.iter().map(|line| point(line)).collect();
        let report = self.storage.write("t", batches, WriteMode::AllOrNothing).await.unwrap();
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    fn session(&self) -> QuerySession {
        self.queries.session(SessionOptions::of("t"))
    }

    /// The rows of the answer: `a,1 / b,2`, NULL empty.
    async fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn try_sql(&self, sql: &str) -> Result<String, QueryError> {
        run(&self.session(), sql, Params::None).await
    }

    /// The message of the error that the statement is answered with.
    async fn error(&self, sql: &str) -> String {
        match self.try_sql(sql).await {
            Ok(rows) => panic!("{sql} answered {rows}"),
            Err(error) => error.to_string(),
        }
    }
}

async fn run(session: &QuerySession, sql: &str, params: Params) -> Result<String, QueryError> {
    Ok(rows(&session.sql(sql, params).await?.collect().await?))
}

fn rows(batches: &[RecordBatch]) -> String {
    let options = FormatOptions::new().with_display_error(true);
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        rows.extend((0..batch.num_rows()).map(|row| {
            columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(",")
        }));
    }
    rows.join(" / ")
}

fn point(line: &str) -> PointBatch {
    // A value in quotes may hold a space.
    let (rest, time) = line.rsplit_once(' ').unwrap();
    let mut parts = rest.splitn(3, ' ');
    let (measurement, tags, fields) =
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let tags: BTreeMap<&str, &str> =
        tags.split(',').filter(|tag| *tag != "-").map(|tag| tag.split_once('=').unwrap()).collect();
    let fields = fields.split(',').map(|field| {
        let (name, value) = field.split_once('=').unwrap();
        (Arc::from(name), value_array(value))
    });
    PointBatch {
        measurement: Arc::from(measurement),
        tag_sets: vec![TagSet::new(tags).unwrap()],
        tag_set_of_row: vec![0],
        times: vec![Timestamp::parse(time).unwrap().as_nanos()],
        fields: fields.collect(),
        lines: vec![1],
    }
}

fn value_array(value: &str) -> ArrayRef {
    if let Some(text) = value.strip_prefix('"') {
        let mut column = StringBuilder::new();
        column.append_value(text.trim_end_matches('"'));
        return Arc::new(column.finish());
    }
    if let Some(whole) = value.strip_suffix('i') {
        let mut column = Int64Builder::new();
        column.append_value(whole.parse().unwrap());
        return Arc::new(column.finish());
    }
    if let Ok(truth) = value.parse() {
        let mut column = BooleanBuilder::new();
        column.append_value(truth);
        return Arc::new(column.finish());
    }
    let mut column = Float64Builder::new();
    column.append_value(value.parse().unwrap());
    Arc::new(column.finish())
}
