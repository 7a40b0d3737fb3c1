//! `highwater retention`: what expires, who holds it back, and letting it go all the same.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, Host, Payload};

const PATH: &str = "/api/v1/retention";

/// Which retention, and what about it.
#[derive(Args, Debug)]
pub(super) struct RetentionFlags {
    #[command(flatten)]
    host: Host,
    /// The database; may be left out while there is one
    #[arg(long, global = true)]
    db: Option<String>,
    #[command(subcommand)]
    command: RetentionCommand,
}

#[derive(Debug, Subcommand)]
enum RetentionCommand {
    /// List what expires: measurements, then aggregates with a retention of their own
    List {
        /// Print everything, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let points go although aggregates that have not applied them hold them back; what could not be
    /// applied is lost for these, and printed
    Force {
        /// Whose points
        measurement: String,
        /// Only points before this time; without it, all that are past their age
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
        /// Only print what would be lost if nothing more could be applied
        #[arg(long)]
        dry_run: bool,
    },
    /// Say that the clock is right although it jumped, so that points expire again
    Resume,
}

pub(super) fn run(flags: &RetentionFlags) -> anyhow::Result<()> {
    let client = Client::new(&flags.host);
    let query: Vec<(&str, &str)> = flags.db.iter().map(|db| ("db", db.as_str())).collect();
    match &flags.command {
        RetentionCommand::List { json } => {
            let answer = client.json("GET", PATH, &query, Payload::None)?;
            if *json { print_json(&answer) } else { super::print(&table(&answer)) }
        }
        RetentionCommand::Force { measurement, before, dry_run } => {
            let body = json!({ "measurement": measurement, "before": before, "dry_run": dry_run });
            let path = format!("{PATH}/force");
            print_json(&client.json("POST", &path, &query, Payload::Json(body))?)
        }
        RetentionCommand::Resume => {
            client.send("POST", &format!("{PATH}/resume"), &[], Payload::None).map(drop)
        }
    }
}

fn print_json(value: &Value) -> anyhow::Result<()> {
    super::print(&format!("{value:#}\n"))
}

/// Age, floor and who holds it back, of each that expires.
fn table(answer: &Value) -> String {
    const KEYS: [&str; 6] =
        ["measurement", "keep", "dropped_before", "held_seconds", "overdue", "held_back_by"];
    let cell = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let header = KEYS.map(str::to_owned).to_vec();
    let rows = answer["retention"].as_array().into_iter().flatten();
    let rows = rows.map(|row| KEYS.iter().map(|key| cell(&row[*key])).collect());
    super::aligned(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}
