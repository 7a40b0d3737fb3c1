//! Raw points that expire, and aggregates that stay.

use std::time::Duration;

use anyhow::{bail, ensure};

use super::compare::Comparisons;
use super::database::Database;
use super::report::Report;
use super::server::EmbeddedServer;
use super::{RULES, grouped};

const RETENTION: &str = include_str!("../../../../examples/demo-retention.yaml");
const HOURS: &str = "SELECT * FROM cpu_1h ORDER BY hostname, time";
const POINTS: &str = "SELECT count(*) AS n FROM cpu";
const SUMMED: &str = "SELECT CAST(sum(points) AS BIGINT) AS n FROM cpu_1h";
const FLOOR: &str = "SELECT dropped_before FROM system.retention WHERE measurement = 'cpu'";
/// How often the server is asked whether the files are gone, and the pause between.
const LOOKS: u32 = 600;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Keeps points of one day only, and shows that the hours of all days stay as they are.
pub(super) fn show(
    report: &Report,
    server: &EmbeddedServer,
    database: &Database,
    comparisons: &mut Comparisons,
) -> anyhow::Result<()> {
    report.heading("Retention: points of cpu are kept for one day, aggregates for ever")?;
    let points_before = database.number(POINTS)?;
    let hours_before = database.csv(HOURS)?;
    server.apply_rules(&[("demo-rules.yaml", RULES), ("demo-retention.yaml", RETENTION)])?;
    let floor = wait_for_floor(server, database)?;
    let points_after = database.number(POINTS)?;
    let hours_after = database.csv(HOURS)?;
    let summed = database.number(SUMMED)?;
    let verdict = comparisons.compare(&hours_before, &hours_after);
    let still = comparisons.compare(&points_before.to_string(), &summed.to_string());
    ensure!(points_after < points_before, "retention hides no points");
    let row = |label: &str, before: u64, after: u64, note: String| {
        vec![label.to_owned(), grouped(before), grouped(after), note]
    };
    let rows_of = |csv: &str| csv.lines().count().saturating_sub(1) as u64;
    let head = ["", "before", "after", ""].map(str::to_owned).to_vec();
    let dropped = format!("those before {floor} are gone for good");
    report.rows(&[
        head,
        row("points", points_before, points_after, dropped),
        row("hours in cpu_1h", rows_of(&hours_before), rows_of(&hours_after), verdict.to_owned()),
        row("points that cpu_1h counts", points_before, summed, still.to_owned()),
    ])
}

/// Waits until files are gone, and says up to which day.
fn wait_for_floor(server: &EmbeddedServer, database: &Database) -> anyhow::Result<String> {
    for _ in 0..LOOKS {
        let rows = database.objects(FLOOR)?;
        match rows.first().and_then(|row| row["dropped_before"].as_str()) {
            Some(floor) => return Ok(floor.trim_end_matches("T00:00:00Z").to_owned()),
            None => ensure!(server.pause(LOOK_EVERY), "interrupted"),
        }
    }
    bail!("expired points are not dropped; SELECT * FROM system.retention says who holds them")
}
