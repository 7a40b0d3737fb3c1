//! Questions about points, answered from aggregates.
//!
//! An aggregate over (projections and filters over) a scan of a measurement becomes a scan of what is
//! stored of the cheapest aggregate that gives the very same answer:
//!
//! ```text
//! Aggregate: [host], [avg(usage)]                   Projection: the same names
//!   Filter: time >= 09:30                     →       TableScan: cpu_1h, planned as
//!     TableScan: cpu
//!                                       finish ── merge ── filter by groups ── union
//!                                                                             ╱      ╲
//!                                             exact partials of whole pieces          partials of points
//!                                             [10:00, ..)                             [09:30, 10:00)
//! ```
//!
//! Only tables that a query names itself are replaced, see
//! [`MeasurementTable::is_replaceable`](highwater_query::MeasurementTable::is_replaceable): plans that
//! aggregates are computed and audited with scan tables that are not.
//!
//! Reading order: `question` (what is asked), `rounding` (which buckets an expression of time tells
//! apart), `decide` (pure: whether one aggregate answers, or why not), `choose` (which of them does
//! at one version), `answer` (the plan), `table` (the scan that stands for it), `rule`, `remarks`.

mod answer;
mod choose;
mod decide;
mod question;
mod reason;
mod remarks;
mod rounding;
mod rule;
mod table;

pub(crate) use remarks::remarks;
pub(crate) use rule::AnswerFromAggregates;

#[cfg(test)]
mod tests;
