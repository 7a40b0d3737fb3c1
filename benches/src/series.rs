//! A million series.

use std::fmt::Write;
use std::path::Path;

use anyhow::ensure;
use highwater_core::Stopwatch;

use crate::ingest::write_all;
use crate::report::{grouped, megabytes, print_head, print_row};
use crate::server::Server;
use crate::workload::{LINES_PER_REQUEST, Requests};

const SERIES: usize = 1_000_000;
const ROUNDS: usize = 3;

const QUERIES: [&str; 4] = [
    "SELECT count(*) AS n FROM reading",
    "SELECT count(DISTINCT device) AS n FROM reading",
    "SELECT count(*) AS n FROM reading WHERE device = 'd-0500000'",
    "SELECT region, max(time) AS last FROM reading GROUP BY region ORDER BY region LIMIT 1",
];

/// Writes three points of each series, then asks.
///
/// # Errors
/// The server does not start, refuses points, or does not have them all.
pub fn run(binary: &Path, clients: usize) -> anyhow::Result<()> {
    let server = Server::start(binary, None)?;
    let requests = requests()?;
    let seconds = write_all(&server, &requests, clients)?;
    let peak = server.peak_memory()?;
    server.settle()?;
    println!("series: {} points of {}\n", grouped(requests.points as u64), grouped(SERIES as u64));
    print_head(&["points/s", "peak memory", "segments, settled"]);
    print_row(&[
        &grouped((requests.points as f64 / seconds) as u64),
        &megabytes(peak),
        &megabytes(server.disk_bytes("segments")?),
    ]);
    println!();
    print_head(&["query", "first, ms", "again, ms"]);
    for (at, sql) in QUERIES.into_iter().enumerate() {
        let (first, answer) = timed(&server, sql)?;
        let (again, _) = timed(&server, sql)?;
        let expected = [requests.points, SERIES, ROUNDS].get(at).map(ToString::to_string);
        let found = answer.lines().nth(1).map(str::to_owned);
        ensure!(expected.is_none() || found == expected, "{sql}: {answer}");
        print_row(&[sql, &format!("{first:.1}"), &format!("{again:.1}")]);
    }
    println!("\npeak memory: {}\n", megabytes(server.peak_memory()?));
    Ok(())
}

fn requests() -> anyhow::Result<Requests> {
    let mut bodies = Vec::new();
    for round in 0..ROUNDS {
        for start in (0..SERIES).step_by(LINES_PER_REQUEST) {
            let mut body = String::with_capacity(LINES_PER_REQUEST * 72);
            for device in start..start + LINES_PER_REQUEST {
                let time = 1_767_225_600_000_000_000 + round * 60_000_000_000 + device;
                let region = device % 50;
                writeln!(
                    body,
                    "reading,device=d-{device:07},region=r{region} value={device}.5 {time}"
                )?;
            }
            bodies.push(body.into_bytes());
        }
    }
    Ok(Requests { bodies, points: ROUNDS * SERIES })
}

fn timed(server: &Server, sql: &str) -> anyhow::Result<(f64, String)> {
    let client = server.client();
    let stopwatch = Stopwatch::start();
    let answer = client.query(sql, &[])?;
    Ok((stopwatch.elapsed_ms(), String::from_utf8_lossy(&answer).into_owned()))
}
