//! What statements are sent with.

use std::io::{ErrorKind, Read};

use anyhow::Context;
use clap::Args;
use highwater_core::Stopwatch;
use serde_json::{Value, json};

use crate::cli::client::{Client, Host, Payload};
use crate::cli::print;

/// How rows can be printed.
pub(super) const FORMATS: [&str; 4] = ["pretty", "csv", "json", "jsonl"];
/// What aggregates can answer from.
pub(super) const FRESHNESS: [&str; 2] = ["exact", "materialized"];

/// Whether questions about points can be answered from aggregates.
pub(super) const REWRITE: [&str; 3] = ["on", "off", "require"];

/// How to ask.
#[derive(Args, Clone, Debug)]
pub(super) struct Asking {
    /// The database; may be left out while there is one
    #[arg(long)]
    pub(super) db: Option<String>,
    /// How to print rows
    #[arg(long, value_parser = FORMATS, default_value = "pretty")]
    pub(super) format: String,
    /// What aggregates answer from: stored buckets and the newest points, or stored buckets only
    #[arg(long, value_parser = FRESHNESS)]
    pub(super) freshness: Option<String>,
    /// Whether questions about points are answered from aggregates that say the same
    #[arg(long, value_parser = REWRITE, default_value = "on")]
    pub(super) rewrite: String,
}

/// A server, and how to ask it.
pub(super) struct Session {
    client: Client,
    pub(super) asking: Asking,
    /// Whether to print how long statements take.
    pub(super) timing: bool,
}

impl Session {
    pub(super) fn new(host: &Host, asking: Asking) -> Self {
        Session { client: Client::new(host), asking, timing: false }
    }

    /// Sends a statement and prints its rows.
    ///
    /// # Errors
    /// What the server says instead, and if it cannot be reached.
    pub(super) fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let stopwatch = Stopwatch::start();
        let mut rows = self.send(sql, &self.asking.format)?;
        match std::io::copy(&mut rows, &mut std::io::stdout().lock()) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => {
                return Err(e).context("the answer broke off; the log of the server says why");
            }
            Ok(_) if self.asking.format == "json" => print("\n")?,
            Ok(_) => {}
        }
        if self.timing {
            print(&format!("{:.1} ms\n", stopwatch.elapsed_ms()))?;
        }
        Ok(())
    }

    /// The rows of a query, one JSON object each.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub(super) fn rows(&self, sql: &str) -> anyhow::Result<Vec<Value>> {
        let mut text = String::new();
        let mut answer = self.send(sql, "json")?;
        answer.read_to_string(&mut text).context("could not read the answer")?;
        serde_json::from_str(&text).with_context(|| format!("the answer is no JSON: {text}"))
    }

    /// Names of all databases.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub(super) fn databases(&self) -> anyhow::Result<Vec<String>> {
        let query = [("q", "SHOW DATABASES")];
        let answer = self.client.json("GET", "/query", &query, Payload::None)?;
        let rows = answer["results"][0]["series"][0]["values"].as_array();
        let names = rows.into_iter().flatten().filter_map(|row| row[0].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn send(&self, sql: &str, format: &str) -> anyhow::Result<impl Read + use<>> {
        let mut request = json!({ "q": sql, "format": format, "rewrite": self.asking.rewrite });
        if let Some(db) = &self.asking.db {
            request["db"] = json!(db);
        }
        if let Some(freshness) = &self.asking.freshness {
            request["freshness"] = json!(freshness);
        }
        let path = "/api/v3/query_sql";
        let response = self.client.send("POST", path, &[], Payload::Json(request))?;
        Ok(response.into_body().into_reader())
    }
}
