//! Changing definitions: what each change means for what is stored. Only decides.
//!
//! ```text
//! rules in force, shadows over them, changes over both ──compile──► definitions as they shall be
//!    per definition, sources first:
//!      means the same, or less  ──► in force at once, stored partials stay
//!      means something else     ──► a shadow is built beside the old one, then takes its place
//!      … and nothing is stored  ──► in force at once
//! ```
//!
//! An aggregate can come to mean something else because of what it reads; so shadows are linked like
//! sources are, and take over together.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_core::{Schema, TimeRange, Timestamp};
use highwater_storage::{Edit, MeasurementKind};
use tracing::warn;

use crate::catalog::{
    Aggregate, DefinitionDocument, Origin, job_key, of_rules, progress_key, put, shadow_job_key,
    shadow_key,
};
use crate::definition::{
    AggregateRule, Definition, Meaning, Output, Refresh, Resolved, compile_all,
};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::filter;
use crate::fitting::check_sources;
use crate::jobs::{first_job, rebuild, retired, unused_id};
use crate::memory;
use crate::proposal::{Outcome, PlannedChange, Proposal};
use crate::versions::{cancelled, drop_stored, refuse_taken_name, unused_version};

/// What has to happen to one definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: it is detached and nobody attaches it.
    StandStill,
    /// Nothing: it is in force as it shall be.
    Stay,
    /// Its document is written; stored partials stay.
    Write,
    /// Its stored partials are made anew.
    Rebuild,
}

/// The definitions as they shall be, beside those that are.
struct Target<'a> {
    reader: &'a Reader,
    proposal: &'a Proposal<'a>,
    /// Sources first.
    definitions: &'a [Definition],
    steps: BTreeMap<&'a str, Step>,
    /// The number of the next new job.
    next_job: Cell<u64>,
}

/// Plans a proposal.
///
/// # Errors
/// If a rule cannot be maintained, an aggregate that reads a changed one could not be resolved any
/// more, or sealed buckets would be lost.
pub(crate) fn plan_change(
    reader: &Reader,
    database: &Arc<str>,
    proposal: &Proposal<'_>,
) -> Result<PlannedChange, AggregationError> {
    let rules = rules_after(reader, database, proposal);
    let definitions = compile_all(&rules).map_err(of_rules)?;
    filter::check(&reader.session().state(), &definitions)?;
    let next_job = Cell::new(unused_id(reader.catalog()));
    let steps = BTreeMap::new();
    let mut target = Target { reader, proposal, definitions: &definitions, steps, next_job };
    for definition in &definitions {
        let step = target.step(definition)?;
        target.steps.insert(&definition.id.name, step);
    }
    let must_fit = |one: &Definition| target.must_fit(one);
    let resolved = check_sources(reader, &definitions, proposal.declared, must_fit)?;
    let mut planned = PlannedChange::default();
    let exists = reader.session().version().has_database(database);
    if !exists && !definitions.is_empty() {
        planned.edits.push(Edit::CreateDatabase { database: Arc::clone(database) });
    }
    for definition in &definitions {
        planned.rules.insert(Arc::clone(&definition.id.name), definition.rule.clone());
        target.plan_one(definition, resolved.get(&*definition.id.name), &mut planned)?;
    }
    let unheard = reader.catalog().shadows().filter(|one| target.find(one.name()).is_none());
    planned.edits.extend(unheard.flat_map(|shadow| cancelled(reader, shadow)));
    check_what_stays(reader, database, &planned.written)?;
    Ok(planned)
}

/// All rules as they shall be: those proposed, those being built, those in force.
fn rules_after(
    reader: &Reader,
    database: &Arc<str>,
    proposal: &Proposal<'_>,
) -> Vec<(Arc<str>, AggregateRule)> {
    let is_given = |name: &str| proposal.rules.iter().any(|rule| rule.name == name);
    let catalog = reader.catalog();
    let others = catalog.next().iter().filter(|one| !is_given(one.name())).filter_map(|one| {
        let stands = match proposal.detach.contains(one.name()) {
            true => catalog.get(one.name())?,
            false => one,
        };
        Some(stands.document.rule.clone())
    });
    let all = proposal.rules.iter().cloned().chain(others);
    all.map(|rule| (Arc::clone(database), rule)).collect()
}

impl<'a> Target<'a> {
    fn find(&self, name: &str) -> Option<&'a Definition> {
        self.definitions.iter().find(|one| *one.id.name == *name)
    }

    fn of(&self, definition: &Definition) -> Step {
        self.steps.get(&*definition.id.name).copied().unwrap_or(Step::Stay)
    }

    fn is_given(&self, name: &str) -> bool {
        self.proposal.rules.iter().any(|rule| rule.name == name)
    }

    /// Whether it has to fit what is known of its source. What did not before need not now.
    fn must_fit(&self, definition: &Definition) -> bool {
        let name = &*definition.id.name;
        let fits = self.reader.catalog().get(name).map(|old| self.reader.resolve(old).is_ok());
        fits.unwrap_or(true) || self.is_given(name) && self.of(definition) != Step::Stay
    }

    fn meaning(&self, definition: &'a Definition) -> Meaning {
        Meaning::of(definition, &|name| self.find(name))
    }

    /// Whether the source of a definition is made anew.
    fn reads_rebuilt(&self, definition: &Definition) -> bool {
        let parent = definition.parent().and_then(|parent| self.find(&parent.name));
        parent.is_some_and(|parent| self.of(parent) == Step::Rebuild)
    }

    fn step(&self, definition: &'a Definition) -> Result<Step, AggregationError> {
        let reads_rebuilt = self.reads_rebuilt(definition);
        let catalog = self.reader.catalog();
        let Some(old) = catalog.get(&definition.id.name) else {
            return Ok(if reads_rebuilt { Step::Rebuild } else { Step::Write });
        };
        if old.document.root_columns.is_some() {
            return self.without_root(old);
        }
        let (own, before) = (self.meaning(definition), self.reader.meaning(old));
        let is_attached = !old.document.detached
            || self.is_given(old.name())
            || catalog.shadow(old.name()).is_some();
        if !is_attached || self.proposal.detach.contains(old.name()) {
            return match own.reads_rows_of(&before) {
                true => Ok(Step::StandStill),
                false => Err(AggregationError::Conflict(format!(
                    "{} is detached and would not be readable any more with what it reads changed; \
                     drop it with its data first",
                    old.name()
                ))),
            };
        }
        let is_same_rule = old.document.rule == definition.rule;
        if is_same_rule && self.is_built_again(old) {
            return Ok(Step::Rebuild);
        }
        Ok(match own.is_part_of(&before) {
            true if is_same_rule && !old.document.detached => Step::Stay,
            true if !reads_rebuilt || is_same_rule => Step::Write,
            _ => Step::Rebuild,
        })
    }

    /// Whether an aggregate is or shall be built again although it means what it meant. A request
    /// that gives its definition takes it as it is.
    fn is_built_again(&self, old: &Aggregate) -> bool {
        let is_same = |shadow: &Arc<Aggregate>| shadow.document.rule == old.document.rule;
        let is_building = self.reader.catalog().shadow(old.name()).is_some_and(is_same);
        let is_taken = self.proposal.origin == Origin::Api && self.is_given(old.name());
        self.proposal.rebuild.contains(old.name()) || is_building && !is_taken
    }

    /// An aggregate whose points were dropped stands still: what it has stored is of other points
    /// than those that may have come under the same name.
    fn without_root(&self, old: &Aggregate) -> Result<Step, AggregationError> {
        if !self.is_given(old.name()) {
            return Ok(Step::StandStill);
        }
        match self.proposal.origin {
            Origin::Rules => {
                warn!(aggregate = %old.id(), "stays detached, as the points it was made of were dropped");
                Ok(Step::StandStill)
            }
            Origin::Api => Err(AggregationError::Conflict(format!(
                "the points that {0} was made of were dropped; drop it with its data first, or \
                 choose another name",
                old.name()
            ))),
        }
    }

    /// Whether nothing is stored yet of any definition that is made anew together with this one.
    fn is_cheap(&self, definition: &Definition) -> bool {
        let top = self.top(definition);
        let together = self
            .definitions
            .iter()
            .filter(|one| self.of(one) == Step::Rebuild && self.top(one) == top);
        let catalog = self.reader.catalog();
        let mut old = together.filter_map(|one| catalog.get(&one.id.name));
        old.all(|old| old.progress.applied.is_empty())
    }

    /// The first of the definitions that are made anew, one because of the other, up to this one.
    fn top(&self, definition: &Definition) -> Arc<str> {
        let mut at = Arc::clone(&definition.id.name);
        let mut one = Some(definition);
        while let Some(parent) = one.filter(|one| self.reads_rebuilt(one)).and_then(|o| o.parent())
        {
            at = Arc::clone(&parent.name);
            one = self.find(&parent.name);
        }
        at
    }

    fn plan_one(
        &self,
        definition: &'a Definition,
        resolved: Option<&Resolved>,
        planned: &mut PlannedChange,
    ) -> Result<(), AggregationError> {
        let (reader, id) = (self.reader, &definition.id);
        let catalog = reader.catalog();
        let (old, shadow) = (catalog.get(&id.name), catalog.shadow(&id.name));
        let step = self.of(definition);
        if step == Step::Rebuild && !self.is_cheap(definition) {
            let is_built = shadow.is_some_and(|shadow| {
                shadow.document.rule == definition.rule
                    && reader.next().meaning(shadow) == self.meaning(definition)
            });
            let outcome = if is_built { Outcome::Same } else { Outcome::Building };
            if !is_built {
                refuse_taken_name(reader, id)?;
                planned.edits.extend(shadow.into_iter().flat_map(|one| cancelled(reader, one)));
                self.plan_shadow(definition, resolved, &mut planned.edits)?;
            }
            planned.outcomes.push((id.clone(), outcome));
            return Ok(());
        }
        planned.edits.extend(shadow.into_iter().flat_map(|one| cancelled(reader, one)));
        let outcome = match (step, old) {
            (Step::StandStill | Step::Stay, _) => Outcome::Same,
            (_, Some(old)) if !old.document.detached => Outcome::Changed,
            _ => Outcome::Added,
        };
        if outcome != Outcome::Same {
            refuse_taken_name(reader, id)?;
            let mut document = self.document(definition);
            if let Some(old) = old.filter(|_| step == Step::Rebuild) {
                document.version = unused_version(reader, id);
                document.valid_from.clear();
                document.stored_as = None;
                planned.edits.extend(retired(reader, old));
                planned.edits.push(Edit::PutDocument { key: progress_key(id), text: None });
                planned.edits.extend(drop_stored(reader, &old.stored()));
            }
            if let Some(old) = old.filter(|_| step == Step::Write) {
                memory::plan_move(reader, old, definition, planned)?;
            }
            planned.edits.push(document.put(id)?);
            if old.is_none() || step == Step::Rebuild {
                planned.edits.extend(self.first_job(definition, document.enabled));
            }
            planned.written.insert(Arc::clone(&id.name), document.rule);
        }
        if old.is_some_and(|old| answers_otherwise(old, definition)) {
            planned.redefined.push(id.clone());
        }
        planned.outcomes.push((id.clone(), outcome));
        Ok(())
    }

    /// The document of a definition over the stored partials of the one in force.
    fn document(&self, definition: &Definition) -> DefinitionDocument {
        let catalog = self.reader.catalog();
        let name = &*definition.id.name;
        let (old, pending) = (catalog.get(name), catalog.next().get(name));
        let (origin, enabled) = match pending.filter(|_| !self.is_given(name)) {
            Some(pending) => (pending.document.origin, pending.document.enabled),
            None => (self.proposal.origin, definition.enabled),
        };
        let version = old.map(|old| old.document.version);
        DefinitionDocument {
            origin,
            enabled,
            detached: false,
            version: version.unwrap_or_else(|| unused_version(self.reader, &definition.id)),
            rule: definition.rule.clone(),
            valid_from: old.map(|old| old.document.valid_from.clone()).unwrap_or_default(),
            stored_as: old.and_then(|old| old.document.stored_as.clone()),
            root_columns: None,
        }
    }

    /// The edits that begin to build a definition beside the one in force.
    fn plan_shadow(
        &self,
        definition: &'a Definition,
        resolved: Option<&Resolved>,
        edits: &mut Vec<Edit>,
    ) -> Result<(), AggregationError> {
        let (reader, id) = (self.reader, &definition.id);
        let mut document = self.document(definition);
        document.version = unused_version(reader, id);
        document.stored_as = None;
        document.valid_from.clear();
        let mut floor = self.sealed_before(definition);
        if let Some(old) = reader.catalog().get(&id.name) {
            let lost = self.sealed_of(old, definition, floor);
            if let Some(before) = lost {
                document.valid_from = self.kept_validity(old, definition, resolved, before)?;
                floor = reader.floor(&old.stored());
            }
        }
        let floor = definition.pieces.piece_of(floor).start;
        if floor > TimeRange::ALL.start {
            let (id, kind) = (document.stored(id), MeasurementKind::Materialization);
            let schema = Arc::new(Schema::default());
            edits.push(Edit::DefineMeasurement { id: id.clone(), kind, schema });
            edits.push(Edit::RaiseFloor { id, floor });
        }
        edits.push(put(shadow_key(id), &document)?);
        edits.push(rebuild(self.new_id(), reader, definition).put(shadow_job_key(id)));
        Ok(())
    }

    fn new_id(&self) -> u64 {
        self.next_job.replace(self.next_job.get() + 1)
    }

    /// The job of a new aggregate; none for one that is only refreshed when asked.
    fn first_job(&self, definition: &Definition, enabled: bool) -> Option<Edit> {
        let is_scheduled = enabled && definition.refresh != Refresh::OnDemand;
        let (reader, sealed_before) = (self.reader, self.sealed_before(definition));
        let job = is_scheduled.then(|| first_job(self.new_id(), reader, definition, sealed_before));
        Some(job?.put(job_key(&definition.id)))
    }

    /// Before this instant the source of a definition cannot be read any more.
    fn sealed_before(&self, definition: &Definition) -> Timestamp {
        let Some(parent) = definition.parent() else { return self.reader.floor(&definition.root) };
        match (self.reader.catalog().get(&parent.name), self.find(&parent.name)) {
            (Some(parent), _) => {
                self.reader.floor(&parent.stored()).min(self.reader.sealed_before(parent))
            }
            (None, Some(parent)) => self.sealed_before(parent),
            (None, None) => TimeRange::ALL.start,
        }
    }

    /// Up to when the old one has stored what the new one cannot compute, if there is such.
    fn sealed_of(
        &self,
        old: &Aggregate,
        definition: &Definition,
        floor: Timestamp,
    ) -> Option<Timestamp> {
        let before = match old.definition.root == definition.root {
            true => floor,
            false => floor.max(self.reader.sealed_before(old)),
        };
        old.progress.applied.covered().overlaps(TimeRange::before(before)).then_some(before)
    }

    /// From when on each output will be valid, if the sealed partials of the old one are kept.
    fn kept_validity(
        &self,
        old: &Aggregate,
        definition: &'a Definition,
        resolved: Option<&Resolved>,
        before: Timestamp,
    ) -> Result<BTreeMap<Arc<str>, Timestamp>, AggregationError> {
        let refused = |why: &str| {
            Err(AggregationError::Conflict(format!(
                "the definition of {} changed, but its source has expired before {before}: {why}; \
                 give it a new name, the old one stays readable",
                old.name()
            )))
        };
        if self.meaning(definition).layout != self.reader.meaning(old).layout {
            return refused("the new one could not be computed there");
        }
        if definition.is_kept_by_days() {
            return refused("its buckets reach back there, and would never have the new columns");
        }
        let Some(resolved) = resolved else {
            return refused("its columns are not known");
        };
        let known = self.reader.resolve(old)?;
        let from = |output: &Output| match known.outputs.iter().any(|one| is_same(one, output)) {
            true => old.document.valid_from.get(&output.name).copied(),
            false => Some(before),
        };
        let outputs = resolved.outputs.iter();
        Ok(outputs.filter_map(|one| Some((Arc::clone(&one.name), from(one)?))).collect())
    }
}

/// Whether the rows of closed buckets read otherwise by this definition.
fn answers_otherwise(old: &Aggregate, definition: &Definition) -> bool {
    let answer = |one: &Definition| (one.outputs.clone(), one.order_by.clone(), one.limit);
    answer(&old.definition) != answer(definition)
}

/// Whether two outputs have the same partials under the same name.
pub(crate) fn is_same(one: &Output, other: &Output) -> bool {
    (&one.name, one.function, &one.field) == (&other.name, other.function, &other.field)
}

impl Reader {
    /// What an aggregate of this catalogue means.
    pub(crate) fn meaning(&self, aggregate: &Aggregate) -> Meaning {
        let find = |name: &str| self.catalog().get(name).map(|one| &*one.definition);
        Meaning::of(&aggregate.definition, &find)
    }
}

/// What stays in force until shadows are built has to be readable until then.
fn check_what_stays(
    reader: &Reader,
    database: &Arc<str>,
    written: &BTreeMap<Arc<str>, AggregateRule>,
) -> Result<(), AggregationError> {
    let catalog = reader.catalog();
    let stays = catalog.iter().filter(|one| !written.contains_key(one.name()));
    let rules = written.values().chain(stays.map(|one| &one.document.rule));
    let rules: Vec<_> = rules.map(|rule| (Arc::clone(database), rule.clone())).collect();
    compile_all(&rules).map(drop).map_err(|errors| {
        AggregationError::Conflict(format!(
            "{}; another change is being built, try again when it is done",
            of_rules(errors)
        ))
    })
}
