//! Acceptance tests: a real server, asked from outside. Tests are named after the rows of
//! `docs/requirements.md` that they check.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod aggregates;
mod backup;
mod changes;
mod cli;
mod continuous_aggregates;
mod damage;
mod declarative_aggregates;
mod definitions;
mod demo;
mod export;
mod fixtures;
mod functions;
mod http;
mod import;
mod jobs;
mod kill9;
mod memory;
mod object_store;
mod oracle;
mod quarantine;
mod query;
mod random;
mod real_data;
mod restatements;
mod retention;
mod rewrite;
mod rules;
mod soak;
mod start;
mod strategies;
mod tidy;
mod watching;
mod work_in_proportion;
mod write;

use highwater_tests::{Launch, TestServer};

/// How to start the server under test.
fn launch() -> Launch {
    Launch::of(env!("CARGO_BIN_EXE_highwater-under-test"))
}

/// A fresh server with an empty data folder and a manual clock.
fn server() -> TestServer {
    launch().start()
}

/// A fresh server with this rule file.
fn with_rules(yaml: &str) -> TestServer {
    launch().rules(yaml).start()
}

/// What the API says about an aggregate.
#[track_caller]
fn aggregate(server: &TestServer, name: &str) -> serde_json::Value {
    server.get(&format!("/api/v1/aggregates/{name}")).expect(200).json()
}
