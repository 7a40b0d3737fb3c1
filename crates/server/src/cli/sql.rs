//! `highwater sql`: a query or statement.

use std::io::{ErrorKind, Read};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::client::{Client, Host, Payload};

/// What to ask.
#[derive(Args, Debug)]
pub(super) struct SqlFlags {
    #[command(flatten)]
    host: Host,
    /// The database; may be left out while there is one
    #[arg(long)]
    db: Option<String>,
    /// How to print rows
    #[arg(long, value_parser = ["pretty", "csv", "json", "jsonl"], default_value = "pretty")]
    format: String,
    /// What aggregates answer from: stored buckets and the newest points, or stored buckets only
    #[arg(long, value_parser = ["exact", "materialized"])]
    freshness: Option<String>,
    /// The SQL text; `-` reads it from stdin
    sql: String,
}

pub(super) fn run(flags: &SqlFlags) -> anyhow::Result<()> {
    let mut sql = flags.sql.clone();
    if sql == "-" {
        sql.clear();
        std::io::stdin().lock().read_to_string(&mut sql).context("could not read stdin")?;
    }
    let mut request = json!({ "q": sql, "format": flags.format });
    if let Some(db) = &flags.db {
        request["db"] = json!(db);
    }
    if let Some(freshness) = &flags.freshness {
        request["freshness"] = json!(freshness);
    }
    let client = Client::new(&flags.host);
    let response = client.send("POST", "/api/v3/query_sql", &[], Payload::Json(request))?;
    let mut rows = response.into_body().into_reader();
    match std::io::copy(&mut rows, &mut std::io::stdout().lock()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(e).context("the answer broke off; the log of the server says why"),
        Ok(_) if flags.format == "json" => super::print("\n"),
        Ok(_) => Ok(()),
    }
}
