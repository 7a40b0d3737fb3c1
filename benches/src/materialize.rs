//! How fast aggregates are built and brought up to date, and whether they are right then.

use std::path::Path;

use anyhow::ensure;
use highwater_core::Stopwatch;
use highwater_server::demo::tsbs::Fleet;

use crate::ingest::write_all;
use crate::report::{megabytes, print_head, print_row};
use crate::server::Server;
use crate::workload::{AGGREGATES, Requests, Set, rules};

/// Builds `cpu_1m` and `cpu_1h` over a set, then refreshes them after more points, after late
/// points and after a single late point.
///
/// # Errors
/// Something fails, or an aggregate disagrees with the points.
pub fn run(binary: &Path, set: Set, clients: usize) -> anyhow::Result<()> {
    let fleet = Fleet::new(set.shape());
    let server = Server::start(binary, Some(&rules()))?;
    write_all(&server, &Requests::of(&fleet, fleet.base()), clients)?;
    server.settle()?;
    println!("materialize {}: 18 columns per hostname\n", set.name());
    print_head(&["step", "cpu_1m seconds", "cpu_1h seconds", "both"]);
    refresh(&server, "build")?;

    write_all(&server, &Requests::of(&fleet, fleet.appended()), clients)?;
    refresh(&server, "append ten minutes")?;

    let late = fleet.late_new().chain(fleet.late_again());
    write_all(&server, &Requests::of(&fleet, late), clients)?;
    refresh(&server, "1 % late points")?;

    write_all(&server, &Requests::of(&fleet, fleet.late_new().skip(3).take(1)), 1)?;
    write_all(&server, &Requests::of(&fleet, fleet.late_again().skip(5).take(1)), 1)?;
    refresh(&server, "two late points")?;
    println!("\npeak memory: {}\n", megabytes(server.peak_memory()?));
    Ok(())
}

/// Refreshes both aggregates, prints how long it took, and compares them with the points.
fn refresh(server: &Server, step: &str) -> anyhow::Result<()> {
    let client = server.client();
    check(server, "exact", step)?;
    let mut seconds = Vec::new();
    for (name, _) in AGGREGATES {
        let stopwatch = Stopwatch::start();
        // With a range, open buckets are refreshed too.
        let times = r#"{"from":"2026-01-01T00:00:00Z","to":"2026-01-02T00:00:00Z"}"#;
        let body = if step == "build" { times } else { "" };
        client.post(&format!("/api/v1/aggregates/{name}/refresh"), body)?;
        seconds.push(stopwatch.elapsed().as_secs_f64());
    }
    let both: f64 = seconds.iter().sum();
    let cells = [seconds[0], seconds[1], both].map(|seconds| format!("{seconds:.4}"));
    print_row(&[step, &cells[0], &cells[1], &cells[2]]);
    check(server, "materialized", step)
}

/// Fails unless the aggregates read with `freshness` agree with the points.
fn check(server: &Server, freshness: &str, step: &str) -> anyhow::Result<()> {
    let client = server.client();
    let from_points = "SELECT count(usage_user) AS n, sum(usage_user) AS s, max(usage_system) AS m \
                       FROM cpu";
    let points = client.query(from_points, &[("rewrite", "off")])?;
    for (name, _) in AGGREGATES {
        let sql = format!(
            "SELECT CAST(sum(usage_user_count) AS BIGINT) AS n, sum(usage_user_sum) AS s, \
             max(usage_system_max) AS m FROM {name}"
        );
        let aggregate = client.query(&sql, &[("freshness", freshness)])?;
        ensure!(
            aggregate == points,
            "{step}: {name}, {freshness}, has {} but the points say {}",
            String::from_utf8_lossy(&aggregate),
            String::from_utf8_lossy(&points)
        );
    }
    Ok(())
}
