//! `highwater jobs`: builds of aggregates over history, and how far they are.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, Host, Payload, escaped};

const PATH: &str = "/api/v1/jobs";

/// Which job, and what about it.
#[derive(Args, Debug)]
pub(super) struct JobsFlags {
    #[command(flatten)]
    host: Host,
    /// The database; may be left out while there is one
    #[arg(long, global = true)]
    db: Option<String>,
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// List them, newest first
    List {
        /// Only those that stand there, e.g. backfilling
        #[arg(long)]
        status: Option<String>,
        /// Print everything, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print how far one is; jobs are named by number, or by the aggregate that they build
    Status {
        job: String,
        /// Print everything, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let one wait; reads stay exact meanwhile
    Pause { job: String },
    /// Let one go on after a pause
    Resume { job: String },
    /// Let one go on after a failure or a cancellation
    Retry { job: String },
    /// End one: a changed definition is given up, a new aggregate keeps what it has
    Cancel { job: String },
    /// Start or go on with the build of an aggregate
    Backfill {
        name: String,
        /// Build it again from zero, beside what is stored
        #[arg(long)]
        force: bool,
        /// Points of a batch from now on
        #[arg(long)]
        batch_size: Option<u64>,
    },
}

pub(super) fn run(flags: &JobsFlags) -> anyhow::Result<()> {
    let client = Client::new(&flags.host);
    let query: Vec<(&str, &str)> = flags.db.iter().map(|db| ("db", db.as_str())).collect();
    let post = |path: &str, body: Payload| client.json("POST", path, &query, body);
    let moved = |job: &str, how: &str| {
        let answer = post(&format!("{PATH}/{}/{how}", escaped(job)), Payload::None)?;
        super::print(&line(&answer))
    };
    match &flags.command {
        JobsCommand::List { status, json } => {
            let mut query = query.clone();
            query.extend(status.iter().map(|status| ("status", status.as_str())));
            let answer = client.json("GET", PATH, &query, Payload::None)?;
            super::print(&if *json { format!("{answer:#}\n") } else { table(&answer) })
        }
        JobsCommand::Status { job, json } => {
            let path = format!("{PATH}/{}", escaped(job));
            let answer = client.json("GET", &path, &query, Payload::None)?;
            super::print(&if *json { format!("{answer:#}\n") } else { line(&answer) })
        }
        JobsCommand::Pause { job } => moved(job, "pause"),
        JobsCommand::Resume { job } => moved(job, "resume"),
        JobsCommand::Retry { job } => moved(job, "retry"),
        JobsCommand::Cancel { job } => moved(job, "cancel"),
        JobsCommand::Backfill { name, force, batch_size } => {
            let body = json!({ "force": force, "batch_size": batch_size });
            let path = format!("/api/v1/aggregates/{}/backfill", escaped(name));
            super::print(&line(&post(&path, Payload::Json(body))?))
        }
    }
}

/// Number, name, state, rows, and what is worth knowing besides: one line.
fn line(job: &Value) -> String {
    let mut line = format!("job {} {} {}", job["id"], text(&job["name"]), progress(job));
    if !job["eta"].is_null() {
        line += &format!(", done at about {}", text(&job["eta"]));
    }
    if !job["error_message"].is_null() {
        line += &format!(", attempts {}: {}", job["attempts"], text(&job["error_message"]));
    }
    line + "\n"
}

/// For example `backfilling 20000/25000 (80.0%)`.
fn progress(job: &Value) -> String {
    let percent = job["progress_percent"].as_f64().unwrap_or_default();
    let (done, total) = (&job["processed_rows"], &job["total_rows"]);
    format!("{} {done}/{total} ({percent:.1}%)", text(&job["status"]))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn table(answer: &Value) -> String {
    let header = ["id", "name", "kind", "progress", "updated_at"].map(str::to_owned).to_vec();
    let rows = answer["jobs"].as_array().into_iter().flatten().map(|job| {
        let cells = ["id", "name", "kind"].iter().map(|key| text(&job[*key]));
        cells.chain([progress(job), text(&job["updated_at"])]).collect()
    });
    super::aligned(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_one_line() {
        let mut job = json!({
            "id": 3, "name": "cpu_1h", "status": "backfilling", "processed_rows": 1000,
            "total_rows": 3000, "progress_percent": 33.3, "attempts": 2, "error_message": "no room",
            "eta": "2024-01-01T00:00:00Z",
        });
        let expected = "job 3 cpu_1h backfilling 1000/3000 (33.3%), done at about \
                        2024-01-01T00:00:00Z, attempts 2: no room\n";
        assert_eq!(line(&job), expected);
        (job["eta"], job["error_message"]) = (Value::Null, Value::Null);
        job["progress_percent"] = json!(100.0);
        assert_eq!(line(&job), "job 3 cpu_1h backfilling 1000/3000 (100.0%)\n");
    }
}
