//! How long small writes take, alone and while the server has other work.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater_core::Stopwatch;
use highwater_server::demo::tsbs::{Fleet, Shape};

use crate::report::{print_head, print_row};
use crate::server::{Server, pause};
use crate::workload::{Requests, rules};

/// Writes of the writer whose waiting is measured.
const WRITES: usize = 4_000;
/// Lines of each of them.
const LINES: usize = 100;
/// Time from one to the next.
const PERIOD: Duration = Duration::from_millis(5);
/// Lines of a request of the other writer, which keeps background work busy. Small ones: requests
/// that are committed together wait for each other, and that is not what is measured.
const OTHER_LINES: usize = 1_000;
/// Time between them: 40,000 points/s.
const OTHER_PERIOD: Duration = Duration::from_millis(25);
/// Flushes and merges happen many times within the measurement.
const SMALL_MEMTABLES: [(&str, &str); 2] =
    [("HIGHWATER_STORAGE__FLUSH_POINTS", "100000"), ("HIGHWATER_STORAGE__COMPACT_SEGMENTS", "4")];

/// Measures three times: a server that has nothing else to do, one with another writer, and one that
/// beside both refreshes two aggregates every second, flushes and compacts.
///
/// # Errors
/// A server does not start or refuses points.
pub fn run(binary: &Path) -> anyhow::Result<()> {
    println!("latency: writes of {LINES} points, one every {} ms\n", PERIOD.as_millis());
    print_head(&["beside", "p50 ms", "p99 ms", "p99.9 ms", "greatest ms"]);
    let idle = Server::start(binary, None)?;
    let alone = print("nothing", measure(&idle)?);
    drop(idle);
    let shared = Server::start(binary, None)?;
    let with_writer = print("another writer", measure_beside_writer(&shared)?);
    drop(shared);
    let rules = rules().replace("strategy: on_demand", "strategy: periodic, every: 1s");
    let busy = Server::start_with(binary, Some(&rules), &SMALL_MEMTABLES)?;
    let beside = print("that, flushes, merges, refreshes", measure_beside_writer(&busy)?);
    let (to_alone, to_writer) = (beside / alone, beside / with_writer);
    println!("\nratio of p99: {to_alone:.1} to nothing, {to_writer:.1} to another writer\n");
    Ok(())
}

fn measure_beside_writer(server: &Server) -> anyhow::Result<Vec<f64>> {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let other = threads.spawn(|| write_beside(server, &is_done));
        let measured = measure(server);
        is_done.store(true, Ordering::Relaxed);
        other.join().map_err(|_| anyhow::anyhow!("the other writer panicked"))??;
        measured
    })
}

/// Milliseconds that each write took, ascending.
fn measure(server: &Server) -> anyhow::Result<Vec<f64>> {
    let fleet = Fleet::new(Shape::new(LINES, 24));
    let client = server.client();
    let mut points = fleet.base();
    let mut taken = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let body = Requests::of(&fleet, points.by_ref().take(LINES)).bodies.concat();
        let stopwatch = Stopwatch::start();
        client.write(&body)?;
        taken.push(stopwatch.elapsed_ms());
        pause(PERIOD.saturating_sub(stopwatch.elapsed()));
    }
    taken.sort_unstable_by(f64::total_cmp);
    Ok(taken)
}

fn write_beside(server: &Server, is_done: &AtomicBool) -> anyhow::Result<()> {
    let fleet = Fleet::new(Shape::new(1_000, 24));
    let client = server.client();
    let mut points = fleet.base();
    while !is_done.load(Ordering::Relaxed) {
        for body in Requests::of(&fleet, points.by_ref().take(OTHER_LINES)).bodies {
            client.write(&body)?;
        }
        pause(OTHER_PERIOD);
    }
    Ok(())
}

/// Prints a row and returns the 99th percentile.
fn print(beside: &str, taken: Vec<f64>) -> f64 {
    let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize];
    let cells = [0.5, 0.99, 0.999, 1.0].map(|share| format!("{:.2}", at(share)));
    print_row(&[beside, &cells[0], &cells[1], &cells[2], &cells[3]]);
    at(0.99)
}
