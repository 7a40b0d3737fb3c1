//! Definitions: what an aggregate computes, from what, and how it is kept.
//!
//! ```text
//! AggregateRule --compile--> Definition --resolve (schema of the source)--> Resolved
//!  words as written           meaning        group columns and outputs with their types
//! ```
//!
//! [`rule`] holds the words, `compile` checks one rule, `hierarchy` checks rules against each
//! other, [`resolve`] adds what only the data knows.

mod canonical;
mod columns;
mod compile;
mod error;
mod hierarchy;
mod interval;
mod meaning;
mod name;
mod refresh;
pub mod resolve;
pub mod rule;

use std::fmt;
use std::sync::Arc;

use highwater_core::bucket::Span;
use highwater_core::{Bucket, MeasurementId};
use serde::{Deserialize, Serialize};

pub use columns::partial_column;
pub(crate) use compile::span;
pub use error::{DefinitionError, Step};
pub use hierarchy::compile_all;

pub(crate) use meaning::Meaning;
pub(crate) use name::{checked_name, set_name};
pub use refresh::Refresh;
pub use resolve::{GroupColumn, LeftOut, Output, Resolved, SourceColumns};
pub use rule::AggregateRule;

pub use crate::functions::{AggregateFunction, Fraction};
pub use crate::partial::Spread;
use crate::pieces::Pieces;

/// An aggregate inside a database; ordered by database, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AggregateId {
    /// Name of the database.
    pub database: Arc<str>,
    /// `name`, or `set.name` for a member of a set.
    pub name: Arc<str>,
}

impl AggregateId {
    /// The aggregate `name` of `database`.
    pub fn new(database: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        AggregateId { database: database.into(), name: name.into() }
    }

    /// SQL schema the aggregate is found in: its set, or `public`.
    pub fn schema(&self) -> &str {
        self.name.split_once('.').map_or("public", |(set, _)| set)
    }

    /// Name of its table inside [`AggregateId::schema`].
    pub fn table(&self) -> &str {
        self.name.split_once('.').map_or(&*self.name, |(_, table)| table)
    }
}

impl fmt::Display for AggregateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.name)
    }
}

/// What an aggregate reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Raw points.
    Measurement(MeasurementId),
    /// The partials of another aggregate.
    Aggregate(AggregateId),
}

/// What points are grouped by, beside the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// Every tag of the measurement, also those that appear later.
    AllTags,
    /// These tags or fields; none for one group.
    Columns(Vec<Arc<str>>),
}

/// Which values an output is computed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldChoice {
    /// None: points are counted.
    Points,
    /// The values of one field or tag.
    Named(Arc<str>),
    /// Each field whose type fits, in an output of its own.
    Every,
}

/// How an output gets its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `<field>_<function>`, or the function alone for points.
    FieldAndFunction,
    /// The field's own name.
    Field,
    /// This name.
    As(Arc<str>),
}

/// One output, or with [`FieldChoice::Every`] one output per field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRule {
    /// Which values.
    pub field: FieldChoice,
    /// What is computed of them.
    pub function: AggregateFunction,
    /// What it is called.
    pub naming: Naming,
}

impl OutputRule {
    /// Name of the output for this field, or for points.
    pub fn name_for(&self, field: Option<&str>) -> Arc<str> {
        match (&self.naming, field) {
            (Naming::As(name), _) => Arc::clone(name),
            (Naming::Field, Some(field)) => field.into(),
            (_, Some(field)) => format!("{field}_{}", self.function.suffix()).into(),
            (_, None) => self.function.suffix().into(),
        }
    }

    /// The same with its name spelled out where it is known, so that equal outputs are equal.
    fn spelled(self) -> Self {
        match self.name() {
            Some(name) => OutputRule { naming: Naming::As(name), ..self },
            None => self,
        }
    }

    /// The output's name; `None` if it depends on fields yet to come.
    pub fn name(&self) -> Option<Arc<str>> {
        match &self.field {
            FieldChoice::Points => Some(self.name_for(None)),
            FieldChoice::Named(field) => Some(self.name_for(Some(field))),
            FieldChoice::Every => None,
        }
    }
}

/// One column to order by on read; ties go by group columns, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBy {
    /// An output, a group column or `time`.
    pub column: Arc<str>,
    /// Greatest first.
    pub descending: bool,
}

/// What reads see unless they ask otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// What the source says at this commit.
    #[default]
    Exact,
    /// What is stored.
    Materialized,
    /// What is stored if its oldest unapplied change is younger than this, in nanoseconds.
    MaxStaleness(i64),
}

/// Where stored buckets live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// In segments.
    #[default]
    Durable,
    /// In segments, and in memory too, so that reads touch no disk.
    Hybrid,
    /// In memory; in segments is only what nothing could bring back after a restart.
    Memory,
}

impl Storage {
    /// As rules spell it.
    pub fn name(self) -> &'static str {
        match self {
            Storage::Durable => "durable",
            Storage::Hybrid => "hybrid",
            Storage::Memory => "memory",
        }
    }
}

/// What becomes of points older than the retention of the measurement that an aggregate reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateAfterRetention {
    /// Their lines are refused.
    #[default]
    Reject,
    /// They are left out.
    Drop,
}

/// A checked definition: what an aggregate computes, from what, and how it is kept.
///
/// Everything it inherits from the aggregate it reads is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Where it is found.
    pub id: AggregateId,
    /// What it reads.
    pub source: Source,
    /// The measurement at the bottom of its hierarchy, whose changes make it stale.
    pub root: MeasurementId,
    /// Its buckets; `None` for one "bucket" of all time (a keyed aggregate).
    pub bucket: Option<Bucket>,
    /// The declared timestamp field that is bucketed, if it is not `time`: such an aggregate is
    /// kept like a keyed one, with the bucket of this field as a further group column `time`.
    /// Over an aggregate this is the root's field; the parent's `time` already holds its bucket.
    pub time_column: Option<Arc<str>>,
    /// Its groups.
    pub group_by: GroupBy,
    /// What it computes, in order; never empty.
    pub outputs: Vec<OutputRule>,
    /// Condition in SQL that points must meet, not parsed yet. Over an aggregate it may only
    /// name group columns of that one, or else it could not be decided from its partials.
    pub filter: Option<Arc<str>>,
    /// Order of rows on read.
    pub order_by: Vec<OrderBy>,
    /// Most rows on read, after ordering.
    pub limit: Option<u64>,
    /// How far behind now the watermark stays.
    pub allowed_lateness: Span,
    /// When it is brought up to date.
    pub refresh: Refresh,
    /// How long its own buckets are kept; `None` for ever.
    pub retention: Option<Span>,
    /// What becomes of points that its sealed buckets cannot take any more.
    pub late_after_retention: LateAfterRetention,
    /// Most groups in a stored piece: a refresh that finds more of them fails.
    pub max_groups: u64,
    /// Where its stored buckets live.
    pub storage: Storage,
    /// What reads see by default.
    pub freshness: Freshness,
    /// Whether scheduled refreshes run.
    pub enabled: bool,
    /// How its event time is cut.
    pub pieces: Pieces,
    /// The rule it was compiled from, in canonical words.
    pub rule: AggregateRule,
}

impl Definition {
    /// Whether there is one row per group, over all time.
    pub fn is_keyed(&self) -> bool {
        self.bucket.is_none()
    }

    /// Whether its partials are kept by UTC days of `time` rather than by bucket, so that no bucket
    /// of it ever closes: a keyed aggregate, or one that buckets another column.
    pub fn is_kept_by_days(&self) -> bool {
        self.is_keyed() || self.time_column.is_some()
    }

    /// Whether its answer has a `time` column: the start of the bucket.
    pub fn has_time(&self) -> bool {
        self.bucket.is_some()
    }

    /// The aggregate it reads, if it does not read raw points.
    pub fn parent(&self) -> Option<&AggregateId> {
        match &self.source {
            Source::Measurement(_) => None,
            Source::Aggregate(parent) => Some(parent),
        }
    }
}

#[cfg(test)]
mod tests;
