//! How fast line protocol becomes columns, without network, disk or other threads.

use anyhow::ensure;
use highwater_core::{Stopwatch, Timestamp};
use highwater_server::demo::tsbs::Fleet;
use highwater_server::line_protocol::{Limits, Precision, parse};

use crate::workload::{Requests, Set};

/// Parses all requests of a set, `runs` times, and prints the best.
///
/// # Errors
/// A line is refused.
pub fn run(set: Set, runs: usize) -> anyhow::Result<()> {
    let fleet = Fleet::new(set.shape());
    let requests = Requests::of(&fleet, fleet.base());
    let limits = Limits::default();
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let stopwatch = Stopwatch::start();
        for body in &requests.bodies {
            let parsed = parse(body, Precision::Nanosecond, Timestamp::EPOCH, &limits);
            ensure!(parsed.refused_count == 0, "{:?}", parsed.refused.first());
            std::hint::black_box(&parsed);
        }
        best = best.min(stopwatch.elapsed().as_secs_f64());
    }
    println!(
        "parse {}: {:.0} MB/s, {:.0} ns a point, one thread, best of {runs}\n",
        set.name(),
        requests.bytes() as f64 / best / 1e6,
        best * 1e9 / requests.points as f64
    );
    Ok(())
}
