//! Benchmarks of Highwater on the shape "devops cpu-only" of the Time Series Benchmark Suite,
//! through the real binary, beside DuckDB in the same run. Parsing and scans are measured in process.
//!
//! `docs/benchmarks.md` says how to run them and what came out. Reading order: [`workload`] (the
//! data), [`suite`] (the questions), [`server`] (the process that is measured), [`ingest`], [`materialize`], [`queries`],
//! [`parse`], [`scan`], [`recovery`], [`segments`], [`series`], [`latency`], [`peer`], [`report`].

pub mod ingest;
pub mod latency;
pub mod materialize;
pub mod parse;
pub mod peer;
pub mod queries;
pub mod recovery;
pub mod report;
pub mod scan;
pub mod segments;
pub mod series;
pub mod server;
pub mod suite;
pub mod workload;

/// Name of the database that all benchmarks write to.
pub const DATABASE: &str = "bench";
