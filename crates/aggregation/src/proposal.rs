//! A wanted change of definitions, and how it is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_storage::{Commit, Edit, Replacement};

use crate::catalog::Origin;
use crate::definition::{AggregateId, AggregateRule};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::feed::{self, Restated};
use crate::rules::MeasurementRule;

/// What somebody wants of the definitions of a database.
#[derive(Debug)]
pub(crate) struct Proposal<'a> {
    /// These rules shall be in force.
    pub(crate) rules: Vec<AggregateRule>,
    /// Where they come from.
    pub(crate) origin: Origin,
    /// Columns that are about to be declared.
    pub(crate) declared: &'a [MeasurementRule],
    /// Names of aggregates that shall stand still.
    pub(crate) detach: BTreeSet<Arc<str>>,
    /// Names of aggregates that shall be built again as they are.
    pub(crate) rebuild: BTreeSet<Arc<str>>,
}

impl Proposal<'_> {
    /// These rules, and nothing else.
    pub(crate) fn of(rules: Vec<AggregateRule>, origin: Origin) -> Self {
        let (detach, rebuild) = (BTreeSet::new(), BTreeSet::new());
        Proposal { rules, origin, declared: &[], detach, rebuild }
    }
}

/// What becomes of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is as it was.
    Same,
    /// It is new, or attached again, and in force.
    Added,
    /// It is changed and in force; what is stored stays, if anything was.
    Changed,
    /// It is being built.
    Building,
}

impl Outcome {
    /// One word, for logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Same => "same",
            Outcome::Added => "added",
            Outcome::Changed => "changed",
            Outcome::Building => "building",
        }
    }
}

/// How a proposal is carried out: in one commit.
#[derive(Debug, Default)]
pub(crate) struct PlannedChange {
    pub(crate) edits: Vec<Edit>,
    /// What is given up because it is to be stored elsewhere.
    pub(crate) replacements: Vec<Replacement>,
    /// Of all definitions, sources first.
    pub(crate) outcomes: Vec<(AggregateId, Outcome)>,
    /// All rules as they shall be, in canonical words.
    pub(crate) rules: BTreeMap<Arc<str>, AggregateRule>,
    /// Those that are in force at once.
    pub(crate) written: BTreeMap<Arc<str>, AggregateRule>,
    /// Those in force whose closed buckets read otherwise at once.
    pub(crate) redefined: Vec<AggregateId>,
}

impl PlannedChange {
    /// Adds it to a commit, with what the feeds of restatements say of it.
    pub(crate) fn add_to(
        &self,
        commit: &mut Commit,
        reader: &Reader,
    ) -> Result<(), AggregationError> {
        commit.edits.extend(self.edits.iter().cloned());
        commit.replacements.extend(self.replacements.iter().cloned());
        let mut redefined = self.redefined.iter();
        redefined.try_for_each(|id| feed::append(commit, reader, id, &Restated::redefined()))
    }
}
