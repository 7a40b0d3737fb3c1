//! `cargo run --release -p highwater-benches -- <what> --set <S|L|tiny>`

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use highwater_benches::queries::Plan;
use highwater_benches::server::default_binary;
use highwater_benches::workload::Set;
use highwater_benches::{
    ingest, latency, materialize, parse, queries, recovery, scan, segments, series,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Benchmarks of Highwater; see docs/benchmarks.md.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Store a set over HTTP, durable when acknowledged
    Ingest(Options),
    /// Build two aggregates, then bring them up to date after later and late points
    Materialize(Options),
    /// Run the queries of the suite, and DuckDB on the same data where --python names one
    Queries(Options),
    /// Parse line protocol, nothing else
    Parse(Options),
    /// Read settled segments, beside the same files read as plain Parquet
    Scan(Options),
    /// Kill a server with a gigabyte of points that are in the log only, and start it again
    Recovery(Options),
    /// Open a database of 10,000 segments, and let it idle
    Segments(Options),
    /// Store a million series
    Series(Options),
    /// How long writes take, alone and beside flushes, compaction and refreshes
    Latency(Options),
    /// Print the queries
    Sql(Options),
}

#[derive(Args, Clone, Debug)]
struct Options {
    /// How much data
    #[arg(long, default_value = "S")]
    set: Set,
    /// Threads that write
    #[arg(long, default_value_t = 2)]
    clients: usize,
    /// Runs of what is measured
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The server's binary; by default the one beside this program
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// A Python with the package duckdb, to measure DuckDB in the same run
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
}

impl Options {
    fn binary(&self) -> anyhow::Result<PathBuf> {
        self.server.clone().map_or_else(default_binary, Ok)
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Ingest(o) => ingest::run(&o.binary()?, o.set, o.clients, o.runs),
        What::Materialize(o) => materialize::run(&o.binary()?, o.set, o.clients),
        What::Queries(o) => queries::run(&Plan {
            binary: o.binary()?,
            set: o.set,
            clients: o.clients,
            runs: o.runs,
            python: o.python,
        }),
        What::Recovery(o) => recovery::run(&o.binary()?, o.clients),
        What::Segments(o) => segments::run(&o.binary()?),
        What::Series(o) => series::run(&o.binary()?, o.clients),
        What::Latency(o) => latency::run(&o.binary()?),
        What::Parse(o) => parse::run(o.set, o.runs),
        What::Scan(o) => scan::run(o.set, o.runs),
        What::Sql(o) => {
            queries::print(o.set);
            Ok(())
        }
    }
}
