//! DuckDB on the same points as sorted Parquet, measured by `duckdb_floor.py`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use highwater_server::demo::tsbs::Fleet;
use serde_json::{Value, json};

use crate::queries::script;
use crate::report::print_row;
use crate::suite::Query;
use crate::workload::write_csv;

/// One query, measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Median in milliseconds.
    pub ms: f64,
    /// Rows of the answer.
    pub rows: usize,
}

/// What the script printed.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    queries: Vec<(String, Measured)>,
    builds: Vec<(String, f64)>,
}

impl Answer {
    /// The query of that name.
    pub fn of(&self, name: &str) -> Option<&Measured> {
        self.queries.iter().find(|(own, _)| own == name).map(|(_, measured)| measured)
    }

    /// Prints how long DuckDB computes the aggregates from Parquet, and how large that is.
    pub fn print_builds(&self) {
        if !self.builds.is_empty() {
            println!();
        }
        for (what, value) in &self.builds {
            print_row(&["DuckDB", what, &format!("{value:.3}")]);
        }
    }
}

/// Writes the base part as CSV and lets the script measure the queries over it.
///
/// # Errors
/// The script fails.
pub fn measure(
    python: &Path,
    fleet: &Fleet,
    queries: &[Query],
    runs: usize,
) -> anyhow::Result<Answer> {
    let folder = tempfile::tempdir()?;
    let csv = folder.path().join("cpu.csv");
    write_csv(&csv, fleet, fleet.base())?;
    let texts: Vec<Value> =
        queries.iter().map(|query| json!({"name": query.name, "sql": query.sql})).collect();
    let plan = folder.path().join("queries.json");
    std::fs::write(&plan, Value::from(texts).to_string())?;
    let output = Command::new(python)
        .arg(script())
        .arg(&csv)
        .arg(&plan)
        .arg(runs.to_string())
        .output()
        .with_context(|| format!("could not run {}", python.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read(&serde_json::from_slice(&output.stdout)?).context("the script's answer is incomplete")
}

fn read(answer: &Value) -> Option<Answer> {
    let queries = answer["queries"].as_object()?.iter().map(|(name, query)| {
        let measured =
            Measured { ms: query["ms"].as_f64()?, rows: query["rows"].as_u64()? as usize };
        Some((name.clone(), measured))
    });
    let builds = answer["builds"].as_object()?.iter();
    Some(Answer {
        queries: queries.collect::<Option<_>>()?,
        builds: builds.map(|(what, v)| Some((what.clone(), v.as_f64()?))).collect::<Option<_>>()?,
    })
}
