//! Grouping that knows how measurements are stored.
//!
//! Scans return rows series by series, each in order of time. So rows of one group come in runs,
//! and a group is seldom met again once it has been left. DataFusion's own operator knows neither:
//! it looks every row up, in two stages between which all state is encoded, sent and decoded. Here
//!
//! * a row is looked up only if its key differs from that of the row before it, and tags are
//!   compared by number ([`keys`]);
//! * every partition of the input has a worker that hands its groups on once they are many, so
//!   state is small and hot ([`worker`]);
//! * at the end, only the groups that several workers met are merged ([`combine`]).
//!
//! [`rule`] puts [`exec`] where DataFusion would group the rows of a scan.

mod combine;
mod exec;
mod keys;
mod rule;
mod worker;

#[cfg(test)]
mod tests;

pub(crate) use rule::GroupRuns;
