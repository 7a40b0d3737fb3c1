//! Adding, changing and removing definitions: each change is one commit, or nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_core::{MeasurementId, Schema};
use highwater_storage::{Commit, Edit, MeasurementKind};
use tracing::{info, warn};

use crate::catalog::{
    Aggregate, Catalog, DefinitionDocument, Origin, definition_key, progress_key,
};
use crate::change::plan_change;
use crate::definition::{AggregateId, AggregateRule};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::feed;
use crate::jobs::retired;
use crate::proposal::{Outcome, PlannedChange, Proposal};
use crate::rules::{DatabaseRules, Rules, set};
use crate::runtime::{Aggregates, Created, no_such};
use crate::undo;
use crate::versions::cancelled;

impl Aggregates {
    /// Adds an aggregate, or all of a set, or attaches detached ones again.
    ///
    /// # Errors
    /// If a rule cannot be maintained, or another definition has the name; nothing is added then.
    pub async fn create(
        &self,
        database: &str,
        rule: AggregateRule,
    ) -> Result<Created, AggregationError> {
        let members = set::members(rule).map_err(AggregationError::Rules)?;
        let names: Vec<String> = members.iter().map(|rule| rule.name.clone()).collect();
        let _running = self.lock_refreshes().await;
        let database = Arc::from(database);
        let reader = self.reader(&database)?;
        let proposal = Proposal::of(members, Origin::Api);
        let planned = plan_change(&reader, &database, &proposal)?;
        let is_named = |id: &AggregateId| names.iter().any(|name| **name == *id.name);
        for (id, outcome) in planned.outcomes.iter().filter(|(id, _)| is_named(id)) {
            let is_other = reader.find(&id.name).is_some() && *outcome != Outcome::Same;
            if is_other && !is_attached_again(&reader, &planned, id) {
                let reason = format!(
                    "{} is defined differently; change it with PUT /api/v1/aggregates/{0}, or send \
                     the same",
                    id.name
                );
                return Err(AggregationError::Conflict(reason));
            }
        }
        if planned.outcomes.iter().all(|(id, outcome)| *outcome == Outcome::Same || !is_named(id)) {
            return Ok(Created::Same);
        }
        self.commit_change(&reader, planned).await?;
        Ok(Created::New)
    }

    /// Gives an aggregate another definition. If its stored partials do not serve the new one, that
    /// is built beside the old one, which answers until then; aggregates that read it likewise. The
    /// definition in force gives up what is being built.
    ///
    /// # Errors
    /// If there is none of that name, the rule cannot be maintained, an aggregate that reads it could
    /// not be any more, or sealed buckets would be lost; nothing changes then.
    pub async fn change(
        &self,
        database: &str,
        rule: AggregateRule,
    ) -> Result<(), AggregationError> {
        let _running = self.lock_refreshes().await;
        let database = Arc::from(database);
        let reader = self.reader(&database)?;
        if reader.find(&rule.name).is_none() {
            return Err(no_such(&reader, &rule.name));
        }
        let proposal = Proposal::of(vec![rule], Origin::Api);
        self.commit_change(&reader, plan_change(&reader, &database, &proposal)?).await
    }

    pub(crate) async fn commit_change(
        &self,
        reader: &Reader,
        planned: PlannedChange,
    ) -> Result<(), AggregationError> {
        if planned.edits.is_empty() {
            return Ok(());
        }
        let mut commit = Commit::default();
        planned.add_to(&mut commit, reader)?;
        self.engine().commit(commit).await?;
        for (id, outcome) in planned.outcomes {
            if outcome != Outcome::Same {
                self.schedules().lock().wake(&id);
                info!(aggregate = %id, outcome = outcome.name(), "definition changed");
            }
        }
        Ok(())
    }

    /// Makes the aggregates, declared columns and retention of rule files those in force, in one
    /// commit; changed ones are built aside first, see [`Aggregates::change`]. Aggregates that came
    /// from rule files and are in none any more are detached.
    ///
    /// # Errors
    /// If a rule contradicts what exists; nothing is applied then.
    pub async fn apply_rules(&self, rules: &Rules) -> Result<AppliedRules, AggregationError> {
        let _running = self.lock_refreshes().await;
        let mut databases = self.databases();
        databases.extend(rules.databases.keys().cloned());
        databases.sort();
        databases.dedup();
        let nothing = DatabaseRules::default();
        let (mut commit, mut applied) = (Commit::default(), AppliedRules::default());
        for database in databases {
            let wanted = rules.databases.get(&database).unwrap_or(&nothing);
            let reader = self.reader(&database)?;
            commit.edits.extend(database_edits(&reader, &database, wanted));
            change_aggregates(&reader, &database, wanted, &mut commit, &mut applied)?;
        }
        self.engine().commit(commit).await?;
        for id in applied.added.iter().chain(&applied.changed) {
            self.schedules().lock().wake(id);
        }
        for id in &applied.detached {
            warn!(aggregate = %id, "detached: no rule file has it any more; its data stays");
        }
        Ok(applied)
    }

    /// Detaches an aggregate: its stored buckets stay readable as they stand. With `drop_data` the
    /// buckets and the name go too; see [`Aggregates::undo`].
    ///
    /// # Errors
    /// If there is none of that name, or another aggregate reads it.
    pub async fn remove(
        &self,
        database: &str,
        name: &str,
        drop_data: bool,
    ) -> Result<(), AggregationError> {
        let _running = self.lock_refreshes().await;
        let reader = self.reader(&database.into())?;
        let catalog = reader.catalog();
        let (aggregate, shadow) = (catalog.get(name), catalog.shadow(name));
        if aggregate.or(shadow).is_none() {
            return Err(no_such(&reader, name));
        }
        let children = readers_of(catalog, name, |one| drop_data || !one.document.detached);
        if !children.is_empty() {
            let children = children.into_iter().collect::<Vec<_>>().join(", ");
            let reason = format!("{name} is read by {children}; remove that first");
            return Err(AggregationError::Conflict(reason));
        }
        let mut edits: Vec<Edit> =
            shadow.into_iter().flat_map(|shadow| cancelled(&reader, shadow)).collect();
        match aggregate {
            Some(aggregate) if drop_data => {
                edits.extend(gone(&reader, aggregate));
                edits.extend(feed::dropped(&reader, aggregate.id())?);
                edits.extend(undo::remembered(&reader, &[aggregate], self.undo_until())?);
            }
            Some(aggregate) => edits.push(detached(aggregate).put(aggregate.id())?),
            None => {}
        }
        self.engine().commit(Commit::of(edits)).await?;
        info!(aggregate = %AggregateId::new(database, name), drop_data, "aggregate removed");
        Ok(())
    }

    /// Gives up what is being built under that name.
    pub(crate) async fn give_up(
        &self,
        reader: &Reader,
        name: &str,
    ) -> Result<(), AggregationError> {
        let catalog = reader.catalog();
        let mut proposal = Proposal::of(Vec::new(), Origin::Api);
        match catalog.get(name) {
            Some(old) if !old.document.detached => proposal.rules.push(old.document.rule.clone()),
            _ => drop(proposal.detach.insert(name.into())),
        }
        let planned = plan_change(reader, reader.session().database(), &proposal)?;
        if planned.edits.is_empty() {
            let reason = format!("{name} is built anew because its source is; undo that change");
            return Err(AggregationError::Conflict(reason));
        }
        self.commit_change(reader, planned).await
    }
}

/// Whether all that happens to it is that it is attached again, as it was.
fn is_attached_again(reader: &Reader, planned: &PlannedChange, id: &AggregateId) -> bool {
    let old = reader.catalog().get(&id.name).filter(|old| old.document.detached);
    let is_same = |old: &Arc<Aggregate>| planned.rules.get(&id.name) == Some(&old.document.rule);
    reader.catalog().shadow(&id.name).is_none() && old.is_some_and(is_same)
}

/// Names of the aggregates that read one, now or once shadows have taken over.
pub(crate) fn readers_of(
    catalog: &Arc<Catalog>,
    name: &str,
    counts: impl Fn(&Aggregate) -> bool,
) -> BTreeSet<Arc<str>> {
    let both = [catalog, catalog.next()].into_iter();
    let readers = both.flat_map(|catalog| catalog.dependants(name).filter(|one| counts(one)));
    readers.map(|one| Arc::clone(one.name())).collect()
}

/// What applying rule files changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedRules {
    /// New aggregates, and those attached again.
    pub added: Vec<AggregateId>,
    /// Aggregates whose definition changed, or will once it is built.
    pub changed: Vec<AggregateId>,
    /// Aggregates that no rule file has any more.
    pub detached: Vec<AggregateId>,
}

/// Declared columns and retention.
fn database_edits(reader: &Reader, database: &Arc<str>, wanted: &DatabaseRules) -> Vec<Edit> {
    let mut edits = Vec::new();
    let exists = reader.session().version().databases().any(|one| one == database);
    if !exists {
        edits.push(Edit::CreateDatabase { database: Arc::clone(database) });
    }
    edits.extend(wanted.measurements.iter().map(|rule| Edit::DefineMeasurement {
        id: MeasurementId::new(Arc::clone(database), Arc::clone(&rule.name)),
        kind: MeasurementKind::Points,
        schema: Arc::new(Schema::of(rule.columns.iter().cloned())),
    }));
    let rules = wanted.retention.clone();
    edits.push(Edit::SetRetention { database: Arc::clone(database), rules });
    edits
}

/// Adds definitions that are new or changed, and those to detach, to a commit.
pub(crate) fn change_aggregates(
    reader: &Reader,
    database: &Arc<str>,
    wanted: &DatabaseRules,
    commit: &mut Commit,
    applied: &mut AppliedRules,
) -> Result<(), AggregationError> {
    let is_wanted = |id: &AggregateId| wanted.definitions.iter().any(|one| one.id == *id);
    let catalog = reader.catalog();
    let mut unwanted = catalog.next().iter().chain(catalog.iter()).filter(|one| {
        one.document.origin == Origin::Rules && !one.document.detached && !is_wanted(one.id())
    });
    let rules = wanted.definitions.iter().map(|definition| definition.rule.clone()).collect();
    let proposal = Proposal {
        declared: &wanted.measurements,
        detach: unwanted.by_ref().map(|one| Arc::clone(one.name())).collect(),
        ..Proposal::of(rules, Origin::Rules)
    };
    let planned = plan_change(reader, database, &proposal)?;
    planned.add_to(commit, reader)?;
    for (id, outcome) in planned.outcomes {
        match outcome {
            Outcome::Same => {}
            Outcome::Building if catalog.get(&id.name).is_none() => applied.added.push(id),
            Outcome::Added => applied.added.push(id),
            Outcome::Changed | Outcome::Building => applied.changed.push(id),
        }
    }
    for name in proposal.detach {
        let aggregate = catalog.get(&name).filter(|one| !one.document.detached);
        if let Some(aggregate) = aggregate {
            commit.edits.push(detached(aggregate).put(aggregate.id())?);
            applied.detached.push(aggregate.id().clone());
        }
    }
    Ok(())
}

pub(crate) fn detached(aggregate: &Aggregate) -> DefinitionDocument {
    DefinitionDocument { detached: true, ..(*aggregate.document).clone() }
}

/// The edits after which there is no aggregate of that name.
pub(crate) fn gone(reader: &Reader, aggregate: &Aggregate) -> impl Iterator<Item = Edit> {
    let keys = [definition_key(aggregate.id()), progress_key(aggregate.id())];
    let documents = keys.into_iter().map(|key| Edit::PutDocument { key, text: None });
    documents.chain(retired(reader, aggregate))
}
