//! `highwater aggregate`: look at aggregates and change them.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use highwater_aggregation::AggregateRule;
use serde_json::{Value, json};

use super::client::{Client, Host, Payload, escaped};

const PATH: &str = "/api/v1/aggregates";

/// Which aggregates, and what about them.
#[derive(Args, Debug)]
pub(super) struct AggregateFlags {
    #[command(flatten)]
    host: Host,
    /// The database; may be left out while there is one
    #[arg(long, global = true)]
    db: Option<String>,
    #[command(subcommand)]
    command: AggregateCommand,
}

#[derive(Debug, Subcommand)]
enum AggregateCommand {
    /// List them by name
    List {
        /// Only those with a closed bucket that is stale or missing
        #[arg(long)]
        pending: bool,
        /// Print everything, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print one as JSON
    Show { name: String },
    /// Create one from a file that holds an entry of a rule file, YAML or JSON
    Create { file: PathBuf },
    /// Change one to what a file says, see create; the old one answers until the new one is built
    Change { file: PathBuf },
    /// Take back the last change or drop, while `aggregation.undo_window` lasts
    Undo { name: String },
    /// Give one another name; those that read it follow
    Rename { name: String, to: String },
    /// Recompute what is stale, or a range of time
    Refresh {
        /// Whose buckets; none: those of all aggregates
        names: Vec<String>,
        /// Start of the range; with --to, for one aggregate
        #[arg(long, requires = "to")]
        from: Option<String>,
        /// End of the range, not included
        #[arg(long, requires = "from")]
        to: Option<String>,
    },
    /// Compare what is stored with what the source gives, and replace what differs; exit code 1 if
    /// something did
    Verify {
        name: String,
        /// Start of the range; without one, everything that is stored
        #[arg(long, requires = "to")]
        from: Option<String>,
        /// End of the range, not included
        #[arg(long, requires = "from")]
        to: Option<String>,
        /// Only look
        #[arg(long)]
        no_repair: bool,
    },
    /// Refresh on schedule again
    Enable { name: String },
    /// Do not refresh on schedule; exact reads stay right
    Disable { name: String },
    /// Detach: what is stored stays readable as it stands
    Drop {
        name: String,
        /// Remove what is stored, too
        #[arg(long)]
        data: bool,
    },
}

pub(super) fn run(flags: &AggregateFlags) -> anyhow::Result<()> {
    let client = Client::new(&flags.host);
    let query: Vec<(&str, &str)> = flags.db.iter().map(|db| ("db", db.as_str())).collect();
    match &flags.command {
        AggregateCommand::List { pending, json } => {
            let mut query = query;
            query.extend(pending.then_some(("pending", "true")));
            let answer = client.json("GET", PATH, &query, Payload::None)?;
            if *json { print_json(&answer) } else { super::print(&table(&answer)) }
        }
        AggregateCommand::Show { name } => {
            print_json(&client.json("GET", &path(name), &query, Payload::None)?)
        }
        AggregateCommand::Create { file } => {
            let rule = Payload::Json(read_rule(file)?);
            print_json(&client.json("POST", PATH, &query, rule)?)
        }
        AggregateCommand::Change { file } => {
            let rule = read_rule(file)?;
            let name = rule["name"].as_str().unwrap_or_default().to_owned();
            print_json(&client.json("PUT", &path(&name), &query, Payload::Json(rule))?)
        }
        AggregateCommand::Undo { name } => {
            let path = format!("{}/undo", path(name));
            print_json(&client.json("POST", &path, &query, Payload::None)?)
        }
        AggregateCommand::Rename { name, to } => {
            let (path, to) = (format!("{}/rename", path(name)), json!({ "to": to }));
            print_json(&client.json("POST", &path, &query, Payload::Json(to))?)
        }
        AggregateCommand::Refresh { names, from, to } => {
            let (path, body) = refresh(names, from.as_deref().zip(to.as_deref()))?;
            print_json(&client.json("POST", &path, &query, body)?)
        }
        AggregateCommand::Verify { name, from, to, no_repair } => {
            let body = json!({ "from": from, "to": to, "repair": !no_repair });
            let path = format!("{}/verify", path(name));
            verified(&client.json("POST", &path, &query, Payload::Json(body))?)
        }
        AggregateCommand::Enable { name } => {
            client.send("POST", &format!("{}/enable", path(name)), &query, Payload::None).map(drop)
        }
        AggregateCommand::Disable { name } => {
            client.send("POST", &format!("{}/disable", path(name)), &query, Payload::None).map(drop)
        }
        AggregateCommand::Drop { name, data } => {
            let mut query = query;
            query.extend(data.then_some(("drop", "true")));
            client.send("DELETE", &path(name), &query, Payload::None).map(drop)
        }
    }
}

/// Prints what was found; that something differed is an error, so that scripts notice.
fn verified(report: &Value) -> anyhow::Result<()> {
    print_json(report)?;
    let dependants = report["dependants"].as_array().into_iter().flatten();
    let found = |one: &Value| one["mismatches"].as_u64().unwrap_or(0);
    match found(report) + dependants.map(found).sum::<u64>() {
        0 => Ok(()),
        differ => anyhow::bail!("{differ} stored rows were not what the source gives"),
    }
}

fn path(name: &str) -> String {
    format!("{PATH}/{}", escaped(name))
}

fn refresh(names: &[String], range: Option<(&str, &str)>) -> anyhow::Result<(String, Payload)> {
    let Some((from, to)) = range else {
        let body = if names.is_empty() { json!({}) } else { json!({ "names": names }) };
        return Ok((format!("{PATH}/refresh"), Payload::Json(body)));
    };
    let [name] = names else { anyhow::bail!("--from and --to go with the name of one aggregate") };
    Ok((format!("{}/refresh", path(name)), Payload::Json(json!({ "from": from, "to": to }))))
}

fn read_rule(file: &PathBuf) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("could not read {}", file.display()))?;
    // Typed, as untyped YAML takes a name like `n` for false.
    let rule: AggregateRule = serde_saphyr::from_str(&text)
        .with_context(|| format!("could not understand {}", file.display()))?;
    Ok(serde_json::to_value(rule)?)
}

fn print_json(value: &Value) -> anyhow::Result<()> {
    super::print(&format!("{value:#}\n"))
}

/// Name, state, watermark and stale buckets of each aggregate.
fn table(answer: &Value) -> String {
    const KEYS: [&str; 5] = ["name", "source", "status", "last_processed", "stale_buckets"];
    let cell = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let header = KEYS.map(str::to_owned).to_vec();
    let rows = answer["aggregates"].as_array().into_iter().flatten();
    let rows = rows.map(|row| KEYS.iter().map(|key| cell(&row[*key])).collect());
    super::aligned(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}
