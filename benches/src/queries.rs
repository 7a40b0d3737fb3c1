//! How fast questions are answered: the queries of the suite, on points and on aggregates.

use std::path::{Path, PathBuf};

use highwater_core::Stopwatch;
use highwater_server::demo::tsbs::Fleet;

use crate::ingest::write_all;
use crate::peer::{self, Measured};
use crate::report::{median, print_head, print_row};
use crate::server::{Client, Server};
use crate::suite::{Query, Source, queries};
use crate::workload::{AGGREGATES, Requests, Set, rules};

/// What is measured and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server's binary.
    pub binary: PathBuf,
    /// The data.
    pub set: Set,
    /// Threads that load it.
    pub clients: usize,
    /// Warm runs of each query.
    pub runs: usize,
    /// The Python with DuckDB, if there is one.
    pub python: Option<PathBuf>,
}

/// Loads a set, builds the aggregates, measures every query, and DuckDB on the same.
///
/// # Errors
/// Something fails.
pub fn run(plan: &Plan) -> anyhow::Result<()> {
    let fleet = Fleet::new(plan.set.shape());
    let server = Server::start(&plan.binary, Some(&rules()))?;
    write_all(&server, &Requests::of(&fleet, fleet.base()), plan.clients)?;
    server.settle()?;
    let client = server.client();
    for (name, _) in AGGREGATES {
        client.post(&format!("/api/v1/aggregates/{name}/refresh"), "")?;
    }
    server.settle()?;
    let queries = queries(&plan.set.shape());
    let peer = match &plan.python {
        Some(python) => peer::measure(python, &fleet, &queries, plan.runs)?,
        None => peer::Answer::default(),
    };
    println!("queries {}: median of {} warm runs, CSV over HTTP\n", plan.set.name(), plan.runs);
    print_head(&["query", "rows", "ms", "rewritten ms", "DuckDB ms", "ratio"]);
    for query in &queries {
        print_query(&client, query, plan.runs, peer.of(query.name))?;
    }
    peer.print_builds();
    println!("\npeak memory: {}\n", crate::report::megabytes(server.peak_memory()?));
    Ok(())
}

fn print_query(
    client: &Client,
    query: &Query,
    runs: usize,
    peer: Option<&Measured>,
) -> anyhow::Result<()> {
    let own = measure(client, &query.sql, &[("rewrite", "off")], runs)?;
    let rewritten = match query.source {
        Source::Points => format!("{:.2}", measure(client, &query.sql, &[], runs)?.ms),
        Source::Aggregate => String::new(),
    };
    let (peer_ms, ratio) = match peer {
        Some(peer) if peer.rows != own.rows => (format!("{} rows!", peer.rows), String::new()),
        Some(peer) => (format!("{:.2}", peer.ms), format!("{:.2}", own.ms / peer.ms)),
        None => Default::default(),
    };
    let (rows, ms) = (own.rows.to_string(), format!("{:.2}", own.ms));
    print_row(&[query.name, &rows, &ms, &rewritten, &peer_ms, &ratio]);
    Ok(())
}

fn measure(
    client: &Client,
    sql: &str,
    options: &[(&str, &str)],
    runs: usize,
) -> anyhow::Result<Measured> {
    let answer = client.query(sql, options)?;
    let rows = memchr::memchr_iter(b'\n', &answer).count().saturating_sub(1);
    let mut times = Vec::new();
    for _ in 0..runs {
        let stopwatch = Stopwatch::start();
        client.query(sql, options)?;
        times.push(stopwatch.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(Measured { ms: median(times), rows })
}

/// Prints the queries, to be tried by hand.
pub fn print(set: Set) {
    for query in queries(&set.shape()) {
        println!("-- {}\n{};\n", query.name, query.sql);
    }
}

/// The script that measures DuckDB, where this package is.
pub fn script() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/duckdb_floor.py"))
}
