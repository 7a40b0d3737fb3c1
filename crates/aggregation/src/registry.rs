//! Adding, changing and removing definitions: each change is one commit, or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_core::{MeasurementId, Schema, TimeRange};
use highwater_storage::{Commit, Edit, MeasurementKind};
use tracing::{info, warn};

use crate::catalog::{
    Aggregate, DefinitionDocument, Origin, definition_key, of_rules, progress_key,
};
use crate::definition::{
    AggregateId, AggregateRule, Definition, Resolved, SourceColumns, compile_all,
};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::filter;
use crate::rules::{DatabaseRules, MeasurementRule, Rules, set};
use crate::runtime::{Aggregates, Created};

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
        let _running = self.lock_refreshes().await;
        let reader = self.reader(&database.into())?;
        let mut edits = Vec::new();
        let mut ids = Vec::new();
        let definitions = compiled_with(&reader, database, members)?;
        check_sources(&reader, &definitions, &[], |_| true)?;
        for definition in definitions {
            let existing = reader.catalog().get(&definition.id.name);
            if existing.is_some_and(|one| one.document.rule != definition.rule) {
                let name = &definition.id.name;
                let reason = format!(
                    "{name} is defined differently; drop it with its data first, or send the same"
                );
                return Err(AggregationError::Conflict(reason));
            }
            if existing.is_none_or(|one| one.document.detached) {
                edits.extend(definition_edits(&reader, &definition, Origin::Api)?);
                ids.push(definition.id);
            }
        }
        if ids.is_empty() {
            return Ok(Created::Same);
        }
        self.engine().commit(Commit::of(edits)).await?;
        for id in ids {
            self.schedules().lock().wake(&id);
            info!(aggregate = %id, "aggregate defined");
        }
        Ok(Created::New)
    }

    /// Makes the aggregates, declared columns and retention of rule files those in force, in one
    /// commit. Aggregates that came from rule files and are in none any more are detached.
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
        let (mut edits, mut applied) = (Vec::new(), AppliedRules::default());
        for database in databases {
            let wanted = rules.databases.get(&database).unwrap_or(&nothing);
            let reader = self.reader(&database)?;
            edits.extend(database_edits(&reader, &database, wanted));
            edits.extend(aggregate_edits(&reader, &database, wanted, &mut applied)?);
        }
        self.engine().commit(Commit::of(edits)).await?;
        for id in applied.added.iter().chain(&applied.changed) {
            self.schedules().lock().wake(id);
        }
        for id in &applied.detached {
            warn!(aggregate = %id, "detached: no rule file has it any more; its data stays");
        }
        Ok(applied)
    }

    /// Detaches an aggregate: its stored buckets stay readable as they stand. With `drop_data` the
    /// buckets and the name go too.
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
        let aggregate = reader.catalog().get(name).ok_or_else(|| {
            AggregationError::NoSuchAggregate { database: database.into(), name: name.into() }
        })?;
        let children: Vec<&str> = reader
            .catalog()
            .dependants(name)
            .filter(|child| drop_data || !child.document.detached)
            .map(|child| child.name().as_ref())
            .collect();
        if !children.is_empty() {
            let reason = format!("{name} is read by {}; remove that first", children.join(", "));
            return Err(AggregationError::Conflict(reason));
        }
        let edits = match drop_data {
            true => drop_edits(&reader, aggregate),
            false => vec![detached(aggregate).put(aggregate.id())?],
        };
        self.engine().commit(Commit::of(edits)).await?;
        info!(aggregate = %aggregate.id(), drop_data, "aggregate removed");
        Ok(())
    }
}

/// What applying rule files changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedRules {
    /// New aggregates, and those attached again.
    pub added: Vec<AggregateId>,
    /// Aggregates whose definition changed.
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

/// Definitions that are new or changed, and those to detach.
pub(crate) fn aggregate_edits(
    reader: &Reader,
    database: &Arc<str>,
    wanted: &DatabaseRules,
    applied: &mut AppliedRules,
) -> Result<Vec<Edit>, AggregationError> {
    let rules = wanted.definitions.iter().map(|definition| definition.rule.clone()).collect();
    let mut edits = Vec::new();
    let definitions = compiled_with(reader, database, rules)?;
    let is_kept = |definition: &Definition| {
        let existing = reader.catalog().get(&definition.id.name);
        existing.is_some_and(|one| !one.document.detached && one.document.rule == definition.rule)
    };
    check_sources(reader, &definitions, &wanted.measurements, |one| !is_kept(one))?;
    for definition in definitions {
        let existing = reader.catalog().get(&definition.id.name);
        match existing.map(|one| (one.document.detached, one.document.rule == definition.rule)) {
            Some((false, true)) => continue,
            Some((_, false)) => applied.changed.push(definition.id.clone()),
            None | Some((true, true)) => applied.added.push(definition.id.clone()),
        }
        edits.extend(definition_edits(reader, &definition, Origin::Rules)?);
    }
    let is_wanted = |id: &AggregateId| wanted.definitions.iter().any(|one| one.id == *id);
    let unwanted = reader.catalog().iter().filter(|one| {
        let document = &one.document;
        document.origin == Origin::Rules && !document.detached && !is_wanted(one.id())
    });
    for aggregate in unwanted {
        edits.push(detached(aggregate).put(aggregate.id())?);
        applied.detached.push(aggregate.id().clone());
    }
    Ok(edits)
}

/// The definitions of `rules`, compiled beside the others of their database, sources first.
fn compiled_with(
    reader: &Reader,
    database: &str,
    rules: Vec<AggregateRule>,
) -> Result<Vec<Definition>, AggregationError> {
    let database: Arc<str> = database.into();
    let is_given = |name: &str| rules.iter().any(|rule| rule.name == name);
    let others = reader.catalog().iter().filter(|one| !is_given(one.name()));
    let others: Vec<AggregateRule> = others.map(|one| one.document.rule.clone()).collect();
    let together: Vec<(Arc<str>, AggregateRule)> =
        rules.iter().cloned().chain(others).map(|rule| (Arc::clone(&database), rule)).collect();
    let definitions = compile_all(&together).map_err(of_rules)?;
    filter::check(&reader.session().state(), &definitions)?;
    Ok(definitions.into_iter().filter(|one| is_given(&one.id.name)).collect())
}

/// Checks that definitions, sources first, fit what is known of their sources, so that none is
/// stored that could not be read. One that is there already and need not fit stays as it is.
fn check_sources(
    reader: &Reader,
    definitions: &[Definition],
    declared: &[MeasurementRule],
    must_fit: impl Fn(&Definition) -> bool,
) -> Result<(), AggregationError> {
    let mut known: BTreeMap<&str, Resolved> = BTreeMap::new();
    for definition in definitions {
        match resolved(reader, definition, declared, &known) {
            Ok(resolved) => drop(known.insert(&definition.id.name, resolved)),
            Err(error) if must_fit(definition) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}

pub(crate) fn resolved(
    reader: &Reader,
    definition: &Definition,
    declared: &[MeasurementRule],
    known: &BTreeMap<&str, Resolved>,
) -> Result<Resolved, AggregationError> {
    let Some(parent) = definition.parent() else {
        let schema = schema_of(reader, &definition.root, declared);
        if let Some(condition) = &definition.filter {
            filter::check_type(&reader.session().state(), condition, &schema)
                .map_err(|error| error.of_aggregate(&definition.id.name))?;
        }
        return Ok(definition.resolve(SourceColumns::Points(&schema))?);
    };
    let stored = match (known.get(&*parent.name), reader.catalog().get(&parent.name)) {
        (Some(parent), _) => return Ok(definition.resolve(SourceColumns::Partials(parent))?),
        (None, Some(parent)) => reader.resolve(parent)?,
        (None, None) => {
            return Err(AggregationError::NoSuchAggregate {
                database: parent.database.to_string(),
                name: parent.name.to_string(),
            });
        }
    };
    Ok(definition.resolve(SourceColumns::Partials(&stored))?)
}

/// The columns of a measurement, and those that are about to be declared.
pub(crate) fn schema_of(
    reader: &Reader,
    id: &MeasurementId,
    declared: &[MeasurementRule],
) -> Schema {
    let stored = reader.session().version().measurement(id);
    let declared = declared.iter().filter(|rule| rule.name == id.measurement);
    let mut schema = stored.map_or_else(Schema::default, |stored| Schema::clone(stored.schema()));
    for column in declared.flat_map(|rule| &rule.columns) {
        // A column that is there stays what it is.
        schema.add(column.clone());
    }
    schema
}

/// What has to be stored for a definition that is new, changed or attached again.
pub(crate) fn definition_edits(
    reader: &Reader,
    definition: &Definition,
    origin: Origin,
) -> Result<Vec<Edit>, AggregationError> {
    let id = &definition.id;
    refuse_taken_name(reader, id)?;
    let existing = reader.catalog().get(&id.name);
    let is_same = existing.is_some_and(|one| one.document.rule == definition.rule);
    let version = existing.map_or(1, |one| one.document.version + u32::from(!is_same));
    let (rule, enabled) = (definition.rule.clone(), definition.enabled);
    let document = DefinitionDocument { origin, enabled, detached: false, version, rule };
    let mut edits =
        vec![Edit::CreateDatabase { database: Arc::clone(&id.database) }, document.put(id)?];
    if let Some(existing) = existing.filter(|_| !is_same) {
        refuse_losing_sealed(reader, existing)?;
        edits.push(Edit::PutDocument { key: progress_key(id), text: None });
        edits.extend(drop_stored(reader, existing));
    }
    Ok(edits)
}

/// A measurement of points hides an aggregate of its name.
fn refuse_taken_name(reader: &Reader, id: &AggregateId) -> Result<(), AggregationError> {
    let measurement = MeasurementId::new(Arc::clone(&id.database), Arc::clone(&id.name));
    let taken = reader.session().version().measurement(&measurement);
    match taken.filter(|taken| taken.kind() == MeasurementKind::Points) {
        None => Ok(()),
        Some(_) => Err(AggregationError::Conflict(format!(
            "there is a measurement named {}; choose another name for the aggregate",
            id.name
        ))),
    }
}

/// A changed definition starts from the source again; what only the old one still knows would
/// be lost.
fn refuse_losing_sealed(reader: &Reader, existing: &Aggregate) -> Result<(), AggregationError> {
    let sealed = TimeRange::before(reader.sealed_before(existing));
    if existing.progress.applied.covered().overlaps(sealed) {
        return Err(AggregationError::Conflict(format!(
            "the definition of {} changed, but its source has expired before {}: the new one could \
             not be computed there; give it a new name, the old one stays readable",
            existing.name(),
            sealed.end
        )));
    }
    Ok(())
}

pub(crate) fn detached(aggregate: &Aggregate) -> DefinitionDocument {
    DefinitionDocument { detached: true, ..(*aggregate.document).clone() }
}

fn drop_edits(reader: &Reader, aggregate: &Aggregate) -> Vec<Edit> {
    let keys = [definition_key(aggregate.id()), progress_key(aggregate.id())];
    let documents = keys.into_iter().map(|key| Edit::PutDocument { key, text: None });
    documents.chain(drop_stored(reader, aggregate)).collect()
}

fn drop_stored(reader: &Reader, aggregate: &Aggregate) -> Option<Edit> {
    let id = aggregate.stored();
    reader.session().version().measurement(&id)?;
    Some(Edit::DropMeasurement { id })
}
