//! SQL over Highwater's measurements.
//!
//! A [`QueryEngine`] opens [`QuerySession`]s; a session pins one version of the data and answers
//! SQL with a stream of batches. Layers above plug in through [`Extension`]: tables, functions,
//! planner rules and statements. Nothing here knows of the log, of file layout, or of aggregates.
//!
//! Reading order: [`session`], [`engine`], [`extension`], [`table`], [`pushdown`], [`statement`],
//! [`functions`], [`error`].

mod catalog;
mod condition;
mod delete;
mod depth;
pub mod engine;
pub mod error;
mod explain;
pub mod extension;
pub mod functions;
mod gapfill_exec;
mod grouping;
mod insert;
pub mod limits;
pub mod options;
mod own_statements;
mod params;
pub mod pushdown;
mod refusal;
mod rules;
mod scan_exec;
pub mod session;
mod show;
pub mod statement;
pub mod table;
mod table_functions;
mod views;

pub use engine::{QueryEngine, QueryEngineBuilder, expression_planner};
pub use error::QueryError;
pub use extension::{Deleting, Extension, Registry};
pub use limits::Limits;
pub use options::{Freshness, Rewrite, SessionOptions};
pub use params::Params;
pub use rules::last_points::last_points_suffice;
pub use scan_exec::points_scanned;
pub use session::{QueryResult, QuerySession};
pub use statement::Statement;
pub use table::MeasurementTable;
pub use views::view_query;

#[cfg(test)]
mod tests;
