//! Continuous aggregates of Highwater: definitions, partials, staleness, refresh, exact reads.
//!
//! Deciding is pure and apart from doing. Reading order of the deciding part: [`definition`] (what
//! an aggregate is), [`pieces`] (how event time is cut), [`applied`] (what stored partials
//! reflect), [`staleness`] (which pieces are overtaken), [`watermark`] (up to where buckets are
//! closed and done), [`plan`] (what to refresh and why), [`retention`] (what may expire), [`rules`]
//! (rule files, many definitions validated as a whole), `proposal` with `change` (what a changed definition means for
//! what is stored), `sealed_delete` (what a delete means for sealed buckets). The acting part: `catalog` (definitions in the manifest), `progress` (what is stored of each), `exact`
//! (exact reads as plans), `touched` (which groups changed), `freshness` (what may be used of what is
//! stored), `table` (aggregates in SQL), `refresh`; `schedule` (when something is due), `steps`, `lanes`,
//! `queue`, `commits`, and `scheduler`, which puts these together; `expiry` with `clock_guard`, `force_expiry`,
//! `late` (points older than that) and `retention_status`, `registry`, `shadow` (changed definitions built
//! aside), `resident` (what stays in memory too), `memory` (what stays in memory alone), `jobs` (builds over history, step by step), `undo`, `rule_plan` with
//! `estimate` (what rule files would do), `dropping`, `deleting`, `quarantine`; `audit` with `differences` and
//! `background_audit` (is what is stored right?), `buckets` and `explain_bucket` (how it stands), `feed` with
//! `restatements` (closed buckets that changed), `faults` and `switches` (damage, failures and waits for tests),
//! `rewrite` (questions about points answered from aggregates), and [`runtime`], the handle over all of it.

pub mod applied;
mod audit;
mod background_audit;
mod buckets;
mod catalog;
mod change;
mod changed_rows;
mod clock_guard;
mod commits;
pub mod definition;
mod deleting;
mod differences;
mod dropping;
mod error;
mod estimate;
mod exact;
mod expiry;
mod explain_bucket;
mod extension;
mod faults;
mod feed;
mod filter;
mod fitting;
mod force_expiry;
mod freshness;
pub mod functions;
mod group_limit;
mod jobs;
mod lanes;
mod late;
mod materialization;
mod memory;
pub mod partial;
pub mod pieces;
pub mod plan;
mod progress;
mod proposal;
mod quarantine;
mod queue;
mod refresh;
mod registry;
mod renaming;
mod resident;
mod restatements;
pub mod retention;
mod retention_status;
mod rewrite;
mod rule_plan;
pub mod rules;
pub mod runtime;
mod schedule;
mod scheduler;
mod sealed_delete;
mod settings;
mod shadow;
pub mod staleness;
mod starts;
mod status;
mod steps;
mod switches;
mod system;
mod table;
mod touched;
mod undo;
mod validity;
mod versions;
pub mod watermark;

pub use applied::Applied;
pub use audit::AuditReport;
pub use catalog::Origin;
pub use definition::{AggregateId, AggregateRule, Definition, DefinitionError};
pub use differences::Mismatch;
pub use dropping::Readers;
pub use error::AggregationError;
pub use estimate::Estimate;
pub use feed::Restatement;
pub use force_expiry::{ForcedExpiry, Lost};
pub use jobs::control::Backfill;
pub use jobs::job::JobKind;
pub use jobs::state::{JobState, Move, MoveError};
pub use jobs::view::JobStatus;
pub use pieces::Pieces;
pub use plan::RefreshPlan;
pub use quarantine::Loss;
pub use registry::AppliedRules;
pub use resident::ResidentStatus;
pub use restatements::Restatements;
pub use retention_status::RetentionStatus;
pub use rule_plan::{Action, ChangedKey, PlannedAggregate, RefusedRule, RulePlan};
pub use rules::Rules;
pub use runtime::{Aggregates, AggregationSettings, Created, RefreshReport};
pub use status::{AggregateStatus, BuildingStatus, ColumnStatus, PreviousStatus};
pub use switches::Switches;
