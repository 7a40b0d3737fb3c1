//! `highwater changes`: the restatements of an aggregate.

use std::io::{BufRead, BufReader, ErrorKind, Write};

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use super::client::{Client, Host, Payload, escaped};

#[derive(Args, Debug)]
pub(crate) struct ChangesFlags {
    /// The aggregate
    name: String,
    /// Only what came after this commit: the `next` of an earlier answer
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
    /// Stay, and print more as it comes
    #[arg(long)]
    follow: bool,
    /// The database; not needed if there is only one
    #[arg(long)]
    db: Option<String>,
    #[command(flatten)]
    host: Host,
}

/// Prints what the server answers, line by line.
pub(crate) fn run(flags: &ChangesFlags) -> anyhow::Result<()> {
    let since = flags.since.map(|since| since.to_string());
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(flags.db.as_deref().map(|db| ("db", db)));
    query.extend(since.as_deref().map(|since| ("since", since)));
    query.extend(flags.follow.then_some(("follow", "true")));
    let path = format!("/api/v1/aggregates/{}/changes", escaped(&flags.name));
    let answer = Client::new(&flags.host).send("GET", &path, &query, Payload::None)?;
    let lines = BufReader::new(answer.into_body().into_reader()).lines();
    let mut out = std::io::stdout().lock();
    for line in lines {
        let line = line.context("the answer broke off; go on with the last `next` as --since")?;
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        if let Some(error) = refusal(&line) {
            anyhow::bail!(error);
        }
    }
    Ok(())
}

/// The error that ends a feed that is followed, if this line is one.
fn refusal(line: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.get("error")?.as_str().map(str::to_owned)
}
