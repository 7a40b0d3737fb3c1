//! The command line: `highwater serve` is the server, `highwater demo` brings one along, everything
//! else talks to one over HTTP.
//!
//! Exit codes: 0 it worked, 1 it did not (the server said no, a rule file is wrong), 2 the command
//! line makes no sense. `rules plan` and `rules diff` have codes of their own, see [`rules`].

mod aggregate;
mod backup;
mod backup_folder;
mod changes;
mod check;
pub(crate) mod client;
mod config;
mod inspect;
mod jobs;
mod quarantine;
mod restore;
mod retention;
mod rules;
mod sql;
mod write;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::demo::{self, DemoFlags, grouped};
use crate::export::{self, ExportFlags};
use crate::import::{self, ImportFlags};
use crate::serve::{self, ServeFlags};

/// Highwater: a time-series database whose continuous aggregates are always right.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what Highwater does, on generated points and on this machine; needs nothing
    Demo(DemoFlags),
    /// Run a server
    Serve(ServeFlags),
    /// Write line protocol
    Write(write::WriteFlags),
    /// Write files of line protocol, CSV or Parquet, of any size
    Import(ImportFlags),
    /// Write measurements or the answer to a query to Parquet files
    Export(ExportFlags),
    /// Ask in SQL
    Sql(sql::SqlFlags),
    /// Look at continuous aggregates and change them
    Aggregate(aggregate::AggregateFlags),
    /// Print the closed buckets of an aggregate that got other values, one line of JSON each
    Changes(changes::ChangesFlags),
    /// See what expires and who holds it back, and let it go all the same
    Retention(retention::RetentionFlags),
    /// Look at builds of aggregates over history, stop them and start them
    Jobs(jobs::JobsFlags),
    /// Check, test, plan and apply rule files
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Copy what a running server holds into a folder; again and only what is new is copied
    Backup(backup::BackupFlags),
    /// Make a data folder from a backup
    Restore(restore::RestoreFlags),
    /// Read a whole data folder and say what is damaged; changes nothing
    Check(check::CheckFlags),
    /// Give up damaged segments of a data folder, so that the rest of it answers again
    Quarantine(quarantine::QuarantineFlags),
    /// Show what files of a data folder say
    Inspect(inspect::InspectFlags),
    /// Print settings
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Runs the command of this process's arguments; the exit code says how it went.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Rules(command) => return exit_code(rules::run(&command)),
        Command::Demo(flags) => demo::run(&flags),
        Command::Serve(flags) => serve::run(&flags),
        Command::Write(flags) => write::run(&flags),
        Command::Import(flags) => import::run(&flags),
        Command::Export(flags) => export::run(&flags),
        Command::Sql(flags) => sql::run(&flags),
        Command::Aggregate(flags) => aggregate::run(&flags),
        Command::Changes(flags) => changes::run(&flags),
        Command::Retention(flags) => retention::run(&flags),
        Command::Jobs(flags) => jobs::run(&flags),
        Command::Backup(flags) => backup::run(&flags),
        Command::Restore(flags) => restore::run(&flags),
        Command::Check(flags) => check::run(&flags),
        Command::Quarantine(flags) => quarantine::run(&flags),
        Command::Inspect(flags) => inspect::run(&flags),
        Command::Config(command) => config::run(&command),
    };
    exit_code(outcome.map(|()| ExitCode::SUCCESS))
}

fn exit_code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("highwater: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes text to stdout; a reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Rows of cells in columns, one line each.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let length = |cell: &String| cell.chars().count();
    let widest = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(length).max();
    let widths: Vec<usize> = (0..columns).map(|at| widest(at).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// "1 file", "2,000 files".
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}
