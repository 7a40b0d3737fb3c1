//! How fast points are stored: over HTTP, acknowledged when durable.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use highwater_core::Stopwatch;
use highwater_server::demo::tsbs::Fleet;

use crate::report::{grouped, median, megabytes, print_head, print_row};
use crate::server::Server;
use crate::workload::{Requests, Set};

/// Writes `requests` from `clients` threads that take the next request when the last one is
/// answered; returns the seconds it took.
///
/// # Errors
/// A request was refused.
pub fn write_all(server: &Server, requests: &Requests, clients: usize) -> anyhow::Result<f64> {
    let next = AtomicUsize::new(0);
    let stopwatch = Stopwatch::start();
    std::thread::scope(|threads| {
        let write = || -> anyhow::Result<()> {
            let client = server.client();
            while let Some(body) = requests.bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                client.write(body)?;
            }
            Ok(())
        };
        let running: Vec<_> = (0..clients).map(|_| threads.spawn(write)).collect();
        for thread in running {
            thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(stopwatch.elapsed().as_secs_f64())
    })
}

/// Writes the base part of a set into a fresh server, `runs` times.
///
/// # Errors
/// The server does not start, refuses points, or does not have them all afterwards.
pub fn run(binary: &Path, set: Set, clients: usize, runs: usize) -> anyhow::Result<()> {
    let fleet = Fleet::new(set.shape());
    let requests = Requests::of(&fleet, fleet.base());
    println!(
        "ingest {}: {} points, {} of line protocol, durability every_write, {clients} clients\n",
        set.name(),
        grouped(requests.points as u64),
        megabytes(requests.bytes() as u64)
    );
    print_head(&[
        "run",
        "points/s",
        "seconds",
        "server CPU s",
        "peak memory",
        "segments, settled",
        "all files",
    ]);
    let mut rates = Vec::new();
    for run in 1..=runs {
        let server = Server::start(binary, None)?;
        let seconds = write_all(&server, &requests, clients)?;
        let (peak, cpu) = (server.peak_memory()?, server.cpu_seconds()?);
        server.settle()?;
        let stored = server.client().query("SELECT count(*) AS n FROM cpu", &[])?;
        let stored = String::from_utf8_lossy(&stored).into_owned();
        ensure!(stored.lines().nth(1) == Some(&requests.points.to_string()), "stored: {stored}");
        let rate = requests.points as f64 / seconds;
        print_row(&[
            &run.to_string(),
            &grouped(rate as u64),
            &format!("{seconds:.2}"),
            &format!("{cpu:.2}"),
            &megabytes(peak),
            &megabytes(server.disk_bytes("segments")?),
            &megabytes(server.disk_bytes("")?),
        ]);
        rates.push(rate);
    }
    println!("\nmedian: {} points/s\n", grouped(median(rates) as u64));
    Ok(())
}
