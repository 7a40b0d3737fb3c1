//! Waiting until the server has stored what its aggregates can hold.

use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::Value;

use super::database::Database;
use super::report::Report;
use super::server::EmbeddedServer;
use super::{grouped, progress};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until nothing is due for the aggregates of these names, then prints what they have.
pub(super) fn show(
    report: &Report,
    server: &EmbeddedServer,
    database: &Database,
    title: &str,
    names: &[&str],
) -> anyhow::Result<()> {
    report.heading(title)?;
    let mut most = 0;
    let bar = progress::bar(0, "buckets", false);
    let done = loop {
        let aggregates = named(database, names)?;
        let now: u64 = aggregates.iter().filter_map(|one| one["stale_buckets"].as_u64()).sum();
        most = now.max(most);
        bar.set_length(most);
        bar.set_position(most - now);
        bar.tick();
        if !aggregates.iter().any(|one| one["pending"] == true) {
            break aggregates;
        }
        ensure!(server.pause(LOOK_EVERY), "interrupted");
    };
    bar.finish_and_clear();
    report.rows(&done.iter().map(row).collect::<Vec<_>>())
}

/// The aggregates of these names, in their order.
fn named(database: &Database, names: &[&str]) -> anyhow::Result<Vec<Value>> {
    let all = database.aggregates()?;
    let mut found = Vec::new();
    for name in names {
        let Some(one) = all.iter().find(|one| one["name"] == **name) else {
            bail!("the server has no aggregate {name}");
        };
        if let Some(error) = one["last_error"].as_str() {
            bail!("{name} could not be refreshed: {error}");
        }
        found.push(one.clone());
    }
    Ok(found)
}

fn row(aggregate: &Value) -> Vec<String> {
    let number = |key: &str| aggregate[key].as_u64().unwrap_or(0);
    let name = aggregate["name"].as_str().unwrap_or_default().to_owned();
    let refreshes = aggregate["refresh_count"].as_f64().unwrap_or(0.0);
    let seconds = aggregate["avg_duration_ms"].as_f64().unwrap_or(0.0) * refreshes / 1e3;
    let megabytes = number("bytes") as f64 / 1e6;
    vec![
        name,
        format!("{} rows", grouped(number("rows"))),
        format!("{megabytes:.1} MB"),
        format!("{seconds:.2} s"),
        String::new(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_what_is_stored_and_what_it_took() {
        let aggregate = json!({ "name": "cpu_1h", "rows": 5520, "bytes": 210_000,
            "avg_duration_ms": 60.0, "refresh_count": 2 });
        assert_eq!(row(&aggregate), ["cpu_1h", "5,520 rows", "0.2 MB", "0.12 s", ""]);
    }
}
