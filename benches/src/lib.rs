//! Benchmarks of Highwater on the shape "devops cpu-only" of the Time Series Benchmark Suite,
//! through the real binary, beside DuckDB in the same run.
//!
//! `docs/benchmarks.md` says how to run them and what came out. Reading order: [`workload`] (the
//! data), [`suite`] (the questions), [`server`] (the process that is measured), [`ingest`], [`materialize`], [`queries`],
//! [`parse`], [`peer`], [`report`].

pub mod ingest;
pub mod materialize;
pub mod parse;
pub mod peer;
pub mod queries;
pub mod report;
pub mod server;
pub mod suite;
pub mod workload;

/// Name of the database that all benchmarks write to.
pub const DATABASE: &str = "bench";
