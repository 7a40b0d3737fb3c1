//! A database of many segments: how long it takes to open, and what it costs when idle.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use crate::report::{megabytes, print_head, print_row};
use crate::server::{Server, pause};

const DAYS: usize = 10_000;
const IDLE: Duration = Duration::from_secs(10);
/// Every day has its own segment.
const SEGMENT_PER_DAY: [(&str, &str); 1] = [("HIGHWATER_STORAGE__WINDOW_POINTS", "0")];

/// Stores a point on each of 10,000 days, restarts and looks.
///
/// # Errors
/// The server does not start, or does not have the points then.
pub fn run(binary: &Path) -> anyhow::Result<()> {
    let mut server = Server::start_with(binary, None, &SEGMENT_PER_DAY)?;
    let mut lines = String::new();
    for day in 0..DAYS {
        writeln!(lines, "cpu,hostname=a usage_user={day}i {}", day * 86_400_000_000_000)?;
    }
    server.client().write(lines.as_bytes())?;
    server.settle()?;
    let seconds = server.kill_and_restart()?;
    let before = server.cpu_seconds()?;
    pause(IDLE);
    let idle = server.cpu_seconds()? - before;
    let count = "SELECT count(*) AS n FROM system.segments";
    let stored = server.client().query(count, &[])?;
    let stored = String::from_utf8_lossy(&stored).into_owned();
    ensure!(stored.lines().nth(1) == Some(&DAYS.to_string()), "segments: {stored}");
    println!("segments: {DAYS} of one point each\n");
    print_head(&["seconds until ready", "CPU seconds in ten idle ones", "peak memory"]);
    print_row(&[
        &format!("{seconds:.2}"),
        &format!("{idle:.2}"),
        &megabytes(server.peak_memory()?),
    ]);
    Ok(())
}
