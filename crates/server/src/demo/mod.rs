//! `highwater demo`: the whole of Highwater in a minute, on generated points and on this machine.
//!
//! A server as `highwater serve` runs it is started inside this process, and everything is said to
//! it over HTTP. Each step prints what it did; where an aggregate stands beside raw points their
//! answers are compared byte for byte, and a difference ends in exit code 1.
//!
//! Reading order: [`tsbs`] (the points), `history` (which of them, and writing them), `aggregates`
//! (waiting until they are stored), `compare` (one question, two ways), `live` (this machine),
//! `late`, `retention`, `file` (somebody's own points); below them `server`, `folder`, `database`,
//! `progress` and `report`.

pub mod tsbs;

mod aggregates;
mod compare;
mod database;
mod file;
mod folder;
mod history;
mod late;
mod live;
pub(crate) mod progress;
mod report;
mod retention;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use self::compare::Comparisons;
use self::database::Database;
pub(crate) use self::folder::DataFolder;
use self::history::History;
use self::live::Machine;
pub(crate) use self::progress::is_bar_wanted;
use self::report::Report;
use self::server::EmbeddedServer;
use crate::telemetry;

/// Name of the database that everything goes to.
const DATABASE: &str = "demo";
const RULES: &str = include_str!("../../../../examples/demo-rules.yaml");

/// Flags of `highwater demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoFlags {
    /// About how many points of history to generate
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    points: u64,
    /// For how many seconds to write points of this machine; 0 leaves them out
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    live_seconds: u64,
    /// Take line protocol from this file (gzip, zstd or neither) instead of generating a history
    #[arg(long, value_name = "FILE", conflicts_with_all = ["points", "live_seconds"])]
    file: Option<PathBuf>,
    /// Unit of the times in the file: ns, us, ms, s or auto
    #[arg(long, default_value = "auto", requires = "file")]
    precision: String,
    /// Keep the data in this folder, new or empty, instead of a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the HTTP interface; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Keep serving afterwards, until Ctrl-C
    #[arg(long)]
    serve: bool,
}

/// Runs the demo.
///
/// # Errors
/// Whatever keeps a step from being done, and any answer that differs between an aggregate and the
/// points it is made of.
pub fn run(flags: &DemoFlags) -> anyhow::Result<()> {
    telemetry::log_to_stderr("warn").map_err(anyhow::Error::msg)?;
    let report = Report::to_stdout();
    let folder = DataFolder::new(flags.data.as_deref())?;
    let server = EmbeddedServer::start(folder.path(), flags.http)?;
    let outcome = tour(flags, &report, &server, &folder);
    let was_interrupted = server.was_interrupted();
    server.close()?;
    if was_interrupted && outcome.is_err() {
        bail!("interrupted");
    }
    outcome
}

fn tour(
    flags: &DemoFlags,
    report: &Report,
    server: &EmbeddedServer,
    folder: &DataFolder,
) -> anyhow::Result<()> {
    let database = Database::new(server.url(), DATABASE);
    report.heading("Server")?;
    report.line(&format!("listening on {}, points in {}", server.url(), folder))?;
    let mut comparisons = Comparisons::default();
    let mut machine =
        (flags.file.is_none() && flags.live_seconds > 0).then(Machine::new).transpose()?;
    match &flags.file {
        Some(file) => {
            file::show(report, server, &database, file, &flags.precision, &mut comparisons)?
        }
        None => generated(flags, report, server, &database, machine.as_mut(), &mut comparisons)?,
    }
    comparisons.conclude(report)?;
    go_on(flags, report, server, folder)?;
    if flags.serve {
        report.line("\nserving until Ctrl-C")?;
        match &mut machine {
            Some(machine) => machine.follow(server, &database)?,
            None => server.wait_for_interrupt(),
        }
    }
    Ok(())
}

/// The tour over points that are made here.
fn generated(
    flags: &DemoFlags,
    report: &Report,
    server: &EmbeddedServer,
    database: &Database,
    machine: Option<&mut Machine>,
    comparisons: &mut Comparisons,
) -> anyhow::Result<()> {
    let history = History::ending_at(server.now(), flags.points);
    history.show(report, database)?;
    server.apply_rules(&[("demo-rules.yaml", RULES)])?;
    let title = "Aggregates of examples/demo-rules.yaml, stored by the server's own schedule";
    aggregates::show(report, server, database, title, &["cpu_1m", "cpu_1h", "cpu_1d"])?;
    comparisons.show(report, database, "The same questions, two ways", &history.questions())?;
    if let Some(machine) = machine {
        machine.show(report, server, database, flags.live_seconds, comparisons)?;
    }
    late::show(report, database, &history, comparisons)?;
    retention::show(report, server, database, comparisons)
}

/// The commands to continue with.
fn go_on(
    flags: &DemoFlags,
    report: &Report,
    server: &EmbeddedServer,
    folder: &DataFolder,
) -> anyhow::Result<()> {
    let program = std::env::args().next().unwrap_or_else(|| "highwater".to_owned());
    report.heading("Go on")?;
    if flags.serve {
        let host = server.url();
        let table = if flags.file.is_some() { "system.aggregates" } else { "cpu_1h" };
        report.line(&format!("{program} sql --host {host} \"SELECT * FROM {table} LIMIT 5\""))?;
        report.line(&format!("{program} aggregate --host {host} list"))?;
        return report.line(&format!("curl {host}/api/v1/aggregates"));
    }
    if !folder.is_temporary() {
        report.line(&format!("{program} serve --data {folder}"))?;
    }
    report
        .line(&format!("{program} demo --serve                  the same, and the server stays"))?;
    report.line(&format!("{program} demo --file points.lp.gz      with points of your own"))?;
    report.line(&format!("{program} serve --data DIR --rules DIR  a server to keep"))
}

/// A whole number with a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
