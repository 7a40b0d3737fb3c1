//! Somebody's own line protocol instead of a generated history.

use std::path::Path;

use anyhow::{Context, ensure};
use highwater_core::Stopwatch;
use serde_json::{Value, json};

use super::compare::{Comparisons, Question};
use super::database::Database;
use super::report::Report;
use super::server::EmbeddedServer;
use super::{aggregates, grouped, progress};
use crate::cli::client::quoted;
use crate::import::batch::{BatchSize, Source};
use crate::import::input::{Format, Input};
use crate::import::lines::Lines;

/// How much goes into one request.
const REQUEST: BatchSize = BatchSize { lines: usize::MAX, bytes: 4 << 20 };
/// Refused lines that are shown.
const REFUSED_SHOWN: usize = 3;
/// Fields that questions are asked about.
const FIELDS_ASKED: usize = 2;

/// Loads a file, makes hours and days of its largest measurement, and compares them with it.
pub(super) fn show(
    report: &Report,
    server: &EmbeddedServer,
    database: &Database,
    file: &Path,
    precision: &str,
    comparisons: &mut Comparisons,
) -> anyhow::Result<()> {
    report.heading(&format!("Line protocol of {}", file.display()))?;
    load(report, database, file, precision)?;
    let shape = Shape::largest(database)?;
    report.line(&shape.to_string())?;
    shape.define(database)?;
    let title = "Aggregates hourly and daily, stored by the server's own schedule";
    aggregates::show(report, server, database, title, &["hourly", "daily"])?;
    comparisons.show(report, database, "The same questions, two ways", &shape.questions())
}

fn load(report: &Report, database: &Database, file: &Path, precision: &str) -> anyhow::Result<()> {
    let unreadable = || format!("could not read {}", file.display());
    let input = Input::examine(file, Some(Format::Lp))?;
    let bar = progress::bar(input.bytes, "bytes", false);
    let text = input.open(&bar).with_context(unreadable)?;
    let mut lines = Lines::new(text, REQUEST, 0).with_context(unreadable)?;
    let mut refused = Vec::new();
    let mut line_count = 0;
    let stopwatch = Stopwatch::start();
    while let Some(batch) = lines.next().with_context(unreadable)? {
        for (at, why) in database.write_some(&batch.body, precision)? {
            refused.push(format!("line {}: {why}", batch.place_of(at)));
        }
        line_count = batch.end;
    }
    let seconds = stopwatch.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let rate = grouped((line_count as f64 / seconds) as u64);
    report.line(&format!("{} lines in {seconds:.1} s, {rate} lines/s", grouped(line_count)))?;
    if !refused.is_empty() {
        let shown = refused.iter().take(REFUSED_SHOWN).cloned().collect::<Vec<_>>().join("\n");
        report
            .line(&format!("lines refused: {}, such as\n{shown}", grouped(refused.len() as u64)))?;
    }
    Ok(())
}

/// What a measurement looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    measurement: String,
    points: u64,
    tags: Vec<String>,
    /// Fields that are numbers.
    fields: Vec<String>,
}

impl Shape {
    /// The shape of the measurement with most points.
    fn largest(database: &Database) -> anyhow::Result<Self> {
        let columns = database.objects(
            "SELECT table_name, column_name, data_type FROM information_schema.columns \
             WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
        )?;
        let mut names: Vec<&str> =
            columns.iter().filter_map(|column| column["table_name"].as_str()).collect();
        names.dedup();
        let mut largest = None;
        for name in names {
            let points = database.number(&format!("SELECT count(*) AS n FROM {}", quoted(name)))?;
            largest = largest.max(Some((points, name)));
        }
        let (points, name) = largest.context(
            "no line of the file could be stored; is it line protocol, and --precision right?",
        )?;
        Ok(Shape::of(name, points, &columns))
    }

    fn of(measurement: &str, points: u64, columns: &[Value]) -> Self {
        let of_type = |is_wanted: fn(&str) -> bool| {
            let own = columns.iter().filter(|column| column["table_name"] == *measurement);
            let own = own.filter(|column| column["data_type"].as_str().is_some_and(is_wanted));
            own.filter_map(|column| Some(column["column_name"].as_str()?.to_owned())).collect()
        };
        Shape {
            measurement: measurement.to_owned(),
            points,
            tags: of_type(|data_type| data_type.starts_with("Dictionary")),
            fields: of_type(|data_type| matches!(data_type, "Float64" | "Int64" | "UInt64")),
        }
    }

    /// Makes `hourly` over the points, keeping all tags, and `daily` over it.
    fn define(&self, database: &Database) -> anyhow::Result<()> {
        let of_fields = self
            .fields
            .iter()
            .map(|field| json!({ "field": field, "function": ["mean", "min", "max"] }));
        let functions: Vec<Value> =
            of_fields.chain([json!({ "function": "count", "as": "points" })]).collect();
        ensure!(self.points > 0, "measurement {} has no points", self.measurement);
        database.define(json!({
            "name": "hourly", "source": self.measurement, "interval": "1h", "group_by": "*",
            "aggregations": functions, "refresh": { "strategy": "periodic", "every": "10s" },
        }))?;
        database.define(json!({
            "name": "daily", "source": "hourly", "interval": "1d",
            "refresh": { "strategy": "periodic", "every": "10s" },
        }))
    }

    fn questions(&self) -> Vec<Question> {
        let mut questions = Vec::new();
        for (table, width, label) in
            [("hourly", "1h", "by the hour"), ("daily", "1d", "by the day")]
        {
            for field in self.fields.iter().take(FIELDS_ASKED) {
                questions.push(self.question(field, table, width, label));
            }
        }
        questions.push(Question {
            label: "number of points".to_owned(),
            raw: format!("SELECT count(*) AS n FROM {}", quoted(&self.measurement)),
            aggregate: "SELECT CAST(sum(points) AS BIGINT) AS n FROM daily".to_owned(),
        });
        questions
    }

    /// Mean, minimum and maximum of a field, for every series and bucket.
    fn question(&self, field: &str, table: &str, width: &str, label: &str) -> Question {
        let tags: String = self.tags.iter().map(|tag| format!(", {}", quoted(tag))).collect();
        let keys =
            (1..=self.tags.len() + 1).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
        let value = quoted(field);
        let output = |function: &str| quoted(&format!("{field}_{function}"));
        Question {
            label: format!("{field} of every series {label}"),
            raw: format!(
                "SELECT time_bucket('{width}', time) AS time{tags}, avg({value}) AS mean, \
                 min({value}) AS lowest, max({value}) AS highest FROM {} GROUP BY {keys} \
                 ORDER BY {keys}",
                quoted(&self.measurement)
            ),
            aggregate: format!(
                "SELECT time{tags}, {} AS mean, {} AS lowest, {} AS highest FROM {table} \
                 ORDER BY {keys}",
                output("mean"),
                output("min"),
                output("max")
            ),
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { measurement, points, tags, fields } = self;
        let (points, tags, fields) = (grouped(*points), tags.join(", "), fields.join(", "));
        write!(f, "{measurement}: {points} points; tags: {tags}; numbers: {fields}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_numbers_of_the_measurement_are_found() {
        let column = |table: &str, name: &str, data_type: &str| json!({ "table_name": table, "column_name": name, "data_type": data_type });
        let columns = [
            column("disk", "free", "Int64"),
            column("m", "time", "Timestamp(ns)"),
            column("m", "the \"host\"", "Dictionary(Int32, Utf8)"),
            column("m", "load", "Float64"),
            column("m", "note", "Utf8"),
        ];
        let shape = Shape::of("m", 1234, &columns);
        assert_eq!(shape.to_string(), "m: 1,234 points; tags: the \"host\"; numbers: load");
        let questions = shape.questions();
        assert_eq!(questions.len(), 3);
        assert_eq!(
            questions[0].raw,
            "SELECT time_bucket('1h', time) AS time, \"the \"\"host\"\"\", avg(\"load\") AS mean, \
             min(\"load\") AS lowest, max(\"load\") AS highest FROM \"m\" GROUP BY 1, 2 ORDER BY 1, 2"
        );
    }
}
