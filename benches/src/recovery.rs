//! How long a server takes to bring back what is in its log only.

use std::path::Path;

use anyhow::ensure;
use highwater_server::demo::tsbs::{Fleet, Shape};

use crate::ingest::write_all;
use crate::report::{grouped, megabytes, print_head, print_row};
use crate::server::Server;
use crate::workload::Requests;

/// Nothing is flushed until a gigabyte is in the log.
const NO_FLUSH: [(&str, &str); 4] = [
    ("HIGHWATER_STORAGE__FLUSH_BYTES", "17179869184"),
    ("HIGHWATER_STORAGE__FLUSH_POINTS", "1000000000"),
    ("HIGHWATER_STORAGE__FLUSH_AGE_SECS", "86400"),
    ("HIGHWATER_STORAGE__MAX_MEMTABLE_BYTES", "17179869184"),
];
/// The points come in parts that fit in memory as line protocol.
const POINTS_AT_ONCE: usize = 1_000_000;

/// Writes 11.5 million points, kills the server and starts it again.
///
/// # Errors
/// It does not start, or does not have the points then.
pub fn run(binary: &Path, clients: usize) -> anyhow::Result<()> {
    let mut server = Server::start_with(binary, None, &NO_FLUSH)?;
    let fleet = Fleet::new(Shape::new(4000, 8));
    let (mut points, mut written) = (fleet.base(), 0);
    loop {
        let part = Requests::of(&fleet, points.by_ref().take(POINTS_AT_ONCE));
        if part.points == 0 {
            break;
        }
        written += part.points;
        write_all(&server, &part, clients)?;
    }
    let log = server.disk_bytes("wal")?;
    // What it needs then is what counts, so it starts with the usual settings.
    server.forget_variables();
    let seconds = server.kill_and_restart()?;
    let stored = server.client().query("SELECT count(*) AS n FROM cpu", &[])?;
    let stored = String::from_utf8_lossy(&stored).into_owned();
    ensure!(stored.lines().nth(1) == Some(&written.to_string()), "stored: {stored}");
    println!("recovery: a log of {} points\n", grouped(written as u64));
    print_head(&["log", "seconds", "MB/s", "peak memory"]);
    print_row(&[
        &megabytes(log),
        &format!("{seconds:.2}"),
        &format!("{:.0}", log as f64 / 1e6 / seconds),
        &megabytes(server.peak_memory()?),
    ]);
    Ok(())
}
