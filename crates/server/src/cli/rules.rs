//! `highwater rules`: rule files, before a server reads them and beside one.
//!
//! Exit codes of `plan`: 0 nothing to do, 2 something would change, 1 the rules are refused or it
//! did not work. Of `diff`: 0 equal, 1 different, 2 it did not work.

mod apply;
mod diff;
mod plan;
mod yaml;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use highwater_aggregation::rules::Rules;
use serde_json::{Value, json};

use super::client::{Client, Host, Payload};
use super::counted;
use crate::fixture;
use crate::rules::read_folder;

/// What to do with rule files.
#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// Check all files of a folder; needs no server
    Check {
        /// The folder
        folder: PathBuf,
    },
    /// Run fixtures: rules, points, and the rows that queries should answer; needs no server
    Test {
        /// The fixtures
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what applying rule files would change and cost; changes nothing
    Plan {
        #[command(flatten)]
        host: Host,
        /// The folder of rule files; without it, the server's own
        #[arg(long, value_name = "DIR")]
        rules: Option<PathBuf>,
        /// Print everything, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make rule files those in force, all of them or none
    Apply {
        #[command(flatten)]
        host: Host,
        /// The folder of rule files
        #[arg(long, value_name = "DIR")]
        rules: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Also on a server that has a rules folder, whose files count again from its next start
        /// or reload on
        #[arg(long)]
        force: bool,
    },
    /// Compare rule files with what is in force on a server
    Diff {
        #[command(flatten)]
        host: Host,
        /// The folder
        folder: PathBuf,
    },
}

pub(super) fn run(command: &RulesCommand) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        RulesCommand::Check { folder } => check(folder).map(done),
        RulesCommand::Test { files } => test(files).map(done),
        RulesCommand::Plan { host, rules, json } => plan::run(host, rules.as_deref(), *json),
        RulesCommand::Apply { host, rules, yes, force } => {
            apply::run(host, rules, *yes, *force).map(done)
        }
        RulesCommand::Diff { host, folder } => {
            Ok(diff::run(host, folder).unwrap_or_else(|error| {
                eprintln!("highwater: {error:#}");
                ExitCode::from(2)
            }))
        }
    }
}

/// All files of a folder as the body of a request has them.
fn files_of(folder: &Path) -> anyhow::Result<Value> {
    let files = read_folder(folder)?;
    if files.is_empty() {
        bail!("there are no rule files (*.yml, *.yaml) in {}", folder.display());
    }
    Ok(files.into_iter().map(|(name, text)| json!({ "name": name, "text": text })).collect())
}

/// What a server would do with files; without them, with those of its own folder.
fn ask_for_plan(client: &Client, files: Option<&Value>) -> anyhow::Result<Value> {
    let body = files.map_or(Payload::None, |files| Payload::Json(json!({ "files": files })));
    client.json("POST", "/api/v1/rules/plan", &[], body)
}

fn check(folder: &Path) -> anyhow::Result<()> {
    let files = read_folder(folder)?;
    let count = files.len();
    if count == 0 {
        bail!("there are no rule files (*.yml, *.yaml) in {}", folder.display());
    }
    match Rules::load(files) {
        Ok(rules) => {
            let aggregates = rules.definitions().count();
            let (files, aggregates) =
                (counted(count as u64, "file"), counted(aggregates as u64, "aggregate"));
            super::print(&format!("{files}, {aggregates}: no problems\n"))
        }
        Err(problems) => {
            for problem in &problems {
                super::print(&format!("{problem}\n"))?;
            }
            bail!("{} in {}", counted(problems.len() as u64, "problem"), folder.display())
        }
    }
}

fn test(files: &[PathBuf]) -> anyhow::Result<()> {
    let mut failed = 0;
    for file in files {
        let shown = file.display();
        let text = match fixture::run(file) {
            Ok(outcome) if outcome.differences.is_empty() => {
                format!("ok    {shown}: {}\n", counted(outcome.asked, "answer"))
            }
            Ok(outcome) => {
                failed += 1;
                let wrong = outcome.differences.len();
                let list = outcome.differences.concat();
                format!(
                    "FAIL  {shown}: {wrong} of {} wrong\n{list}",
                    counted(outcome.asked, "answer")
                )
            }
            Err(error) => {
                failed += 1;
                format!("FAIL  {shown}: {error:#}\n")
            }
        };
        super::print(&text)?;
    }
    match failed {
        0 => Ok(()),
        failed => bail!("{failed} of {} failed", counted(files.len() as u64, "fixture")),
    }
}
