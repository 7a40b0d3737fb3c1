//! The database of the demo, over HTTP.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::cli::client::{Client, Payload, Refused};

/// How often a write is tried while the server asks to come back, and the pause between.
const PATIENCE: u32 = 120;
const PAUSE: Duration = Duration::from_millis(250);

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    Json,
    Pretty,
}

/// A database of a server; threads may share it.
pub(super) struct Database {
    client: Client,
    name: String,
}

impl Database {
    pub(super) fn new(url: &str, name: &str) -> Self {
        Database { client: Client::at(url), name: name.to_owned() }
    }

    /// Writes lines with times in `precision`; all good ones are stored. Waits while the server
    /// asks writers to. Returns the numbers of refused lines, from 1, and why.
    pub(super) fn write_some(
        &self,
        lines: &[u8],
        precision: &str,
    ) -> anyhow::Result<Vec<(u64, String)>> {
        let query = [("db", self.name.as_str()), ("precision", precision)];
        for _ in 0..PATIENCE {
            let payload = Payload::Text(lines.to_vec());
            let sent = self.client.send("POST", "/api/v3/write_lp", &query, payload);
            let Err(error) = sent else { return Ok(Vec::new()) };
            match error.downcast::<Refused>()? {
                busy if busy.status == 503 => std::thread::park_timeout(PAUSE),
                Refused { lines, .. } if !lines.is_empty() => return Ok(lines),
                refused => return Err(refused.into()),
            }
        }
        bail!("the server takes no points; is the disk full, or far too slow?")
    }

    /// Writes lines with times in nanoseconds, all of which have to be stored.
    pub(super) fn write(&self, lines: &[u8]) -> anyhow::Result<()> {
        let refused = self.write_some(lines, "ns")?;
        let first = refused.first().map(|(_, why)| why.as_str());
        ensure!(refused.is_empty(), "points were refused: {}", first.unwrap_or_default());
        Ok(())
    }

    /// The answer to a query, computed from what it names.
    pub(super) fn query(&self, sql: &str, format: Format) -> anyhow::Result<String> {
        let format = match format {
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Pretty => "pretty",
        };
        let ask = json!({ "db": self.name, "q": sql, "format": format, "rewrite": "off" });
        let answer = self
            .client
            .send("POST", "/api/v3/query_sql", &[], Payload::Json(ask))
            .with_context(|| format!("could not answer {sql}"))?;
        let mut text = String::new();
        answer
            .into_body()
            .into_reader()
            .read_to_string(&mut text)
            .context("the answer broke off")?;
        Ok(text)
    }

    /// The answer as CSV, header included.
    pub(super) fn csv(&self, sql: &str) -> anyhow::Result<String> {
        self.query(sql, Format::Csv)
    }

    /// The rows of an answer as JSON objects.
    pub(super) fn objects(&self, sql: &str) -> anyhow::Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.query(sql, Format::Json)?)?)
    }

    /// The only number of an answer.
    pub(super) fn number(&self, sql: &str) -> anyhow::Result<u64> {
        let csv = self.csv(sql)?;
        let number = csv.lines().nth(1).context("the answer has no rows")?;
        number.parse().with_context(|| format!("{number:?} is no whole number"))
    }

    /// How the aggregates are doing.
    pub(super) fn aggregates(&self) -> anyhow::Result<Vec<Value>> {
        let query = [("db", self.name.as_str())];
        let mut answer = self.client.json("GET", "/api/v1/aggregates", &query, Payload::None)?;
        Ok(answer["aggregates"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// Defines an aggregate.
    pub(super) fn define(&self, rule: Value) -> anyhow::Result<()> {
        let query = [("db", self.name.as_str())];
        self.client.send("POST", "/api/v1/aggregates", &query, Payload::Json(rule)).map(drop)
    }
}
