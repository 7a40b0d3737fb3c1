//! What applying rule files would do, with reasons and costs; nothing is changed to find out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_core::MeasurementId;
use highwater_storage::{Commit, RetentionRule};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::catalog::Aggregate;
use crate::definition::{AggregateId, AggregateRule, Definition, DefinitionError, Resolved};
use crate::error::AggregationError;
use crate::estimate::{Estimate, Measured, estimate, source_size};
use crate::exact::Reader;
use crate::fitting::{resolved, schema_of};
use crate::registry::{AppliedRules, change_aggregates};
use crate::rules::{DatabaseRules, Rules};
use crate::runtime::Aggregates;
use crate::versions::refuse_taken_name;

/// What applying rule files would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RulePlan {
    /// Every aggregate that rule files have or had, by database and name; empty if rules are
    /// refused.
    pub aggregates: Vec<PlannedAggregate>,
    /// Databases, declared columns and retention that would change, as sentences.
    pub settings: Vec<String>,
    /// Why nothing would be applied; empty if all of it would.
    pub refused: Vec<RefusedRule>,
}

/// One aggregate in a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedAggregate {
    /// Its database.
    pub database: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What would happen to it.
    pub action: Action,
    /// The keys of its rule that would change, by name.
    pub keys: Vec<ChangedKey>,
    /// The rule in force, in canonical words.
    pub before: Option<AggregateRule>,
    /// The rule to come, in canonical words.
    pub after: Option<AggregateRule>,
    /// What computing it would take, if it has to be.
    pub estimate: Option<Estimate>,
}

/// What applying rules does to an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Added,
    /// Its rule is another one: it is computed again.
    Changed,
    /// It stays as it is.
    Unchanged,
    /// No rule has it any more: its data stays as it stands.
    Detached,
    /// It was detached and is kept up to date again.
    Attached,
}

/// A key of a rule that changes; `null` where it is not given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedKey {
    /// The key.
    pub key: String,
    /// Its value in force.
    pub old: Value,
    /// Its value to come.
    pub new: Value,
}

/// A reason why rules are not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedRule {
    /// The rule file.
    pub file: Option<Arc<str>>,
    /// Line in it, counted from 1.
    pub line: Option<u64>,
    /// The aggregate it concerns.
    pub aggregate: Option<Arc<str>>,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl RulePlan {
    /// The plan of rules that are wrong.
    pub fn refused(problems: Vec<DefinitionError>) -> Self {
        let refused = problems.into_iter().map(RefusedRule::from).collect();
        RulePlan { refused, ..RulePlan::default() }
    }

    /// Whether applying would change nothing.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.aggregates.iter().all(|a| a.action == Action::Unchanged)
    }
}

impl From<DefinitionError> for RefusedRule {
    fn from(error: DefinitionError) -> Self {
        let (file, line) = (error.file.clone(), error.line);
        let aggregate = error.aggregate.clone();
        let reason = DefinitionError { file: None, line: None, ..error }.to_string();
        RefusedRule { file, line, aggregate, reason }
    }
}

impl Aggregates {
    /// What [`Aggregates::apply_rules`] would do with these rules now.
    ///
    /// # Errors
    /// If what is stored cannot be read; rules that would be refused are part of the plan.
    pub async fn plan_rules(&self, rules: &Rules) -> Result<RulePlan, AggregationError> {
        let mut databases: BTreeSet<Arc<str>> = self.databases().into_iter().collect();
        databases.extend(rules.databases.keys().cloned());
        let nothing = DatabaseRules::default();
        let mut plan = RulePlan::default();
        for database in &databases {
            let wanted = rules.databases.get(database).unwrap_or(&nothing);
            let reader = self.reader(database)?;
            match contradictions(&reader, database, wanted) {
                Ok(applied) => {
                    plan.settings.extend(settings(&reader, database, wanted));
                    let planned = self.planned(&reader, wanted, &applied).await?;
                    plan.aggregates.extend(planned);
                }
                Err(refused) => plan.refused.extend(refused.into_iter().map(|one| {
                    let id = AggregateId::new(
                        Arc::clone(database),
                        one.aggregate.clone().unwrap_or_default(),
                    );
                    match rules.places.get(&id) {
                        Some(place) if one.file.is_none() => {
                            let file = Some(Arc::clone(&place.file));
                            RefusedRule { file, line: place.line, ..one }
                        }
                        _ => one,
                    }
                })),
            }
        }
        if !plan.refused.is_empty() {
            plan = RulePlan { refused: plan.refused, ..RulePlan::default() };
        }
        Ok(plan)
    }

    /// The aggregates of a database, by name.
    async fn planned(
        &self,
        reader: &Reader,
        wanted: &DatabaseRules,
        applied: &AppliedRules,
    ) -> Result<Vec<PlannedAggregate>, AggregationError> {
        let stored = reader.catalog().iter().map(|one| stored_size(reader, one));
        let measured = Measured::of(self.schedules().lock().runs(), stored);
        let mut known: BTreeMap<&str, Resolved> = BTreeMap::new();
        let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
        let mut planned: Vec<PlannedAggregate> = Vec::new();
        for definition in &wanted.definitions {
            let mut one = compared(reader, definition, applied);
            // One that stays as it is need not fit its source.
            if let Ok(resolved) = resolved(reader, definition, &wanted.measurements, &known) {
                if one.estimate.is_some() {
                    let parent = definition.parent().map(|parent| &*parent.name);
                    let parent_rows = parent.map(|name| {
                        let stored =
                            || reader.catalog().get(name).map(|p| stored_size(reader, p).0);
                        rows.get(name).copied().or_else(stored).unwrap_or(0)
                    });
                    let source = source_size(reader, definition, &resolved, parent_rows).await?;
                    let found = estimate(definition, resolved.outputs.len(), &source, measured);
                    rows.insert(&definition.id.name, found.rows);
                    one.estimate = Some(found);
                }
                known.insert(&definition.id.name, resolved);
            }
            planned.push(one);
        }
        planned.extend(applied.detached.iter().map(|id| PlannedAggregate {
            database: Arc::clone(&id.database),
            name: Arc::clone(&id.name),
            action: Action::Detached,
            keys: Vec::new(),
            before: reader.catalog().get(&id.name).map(|one| one.document.rule.clone()),
            after: None,
            estimate: None,
        }));
        planned.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(planned)
    }
}

/// A definition beside the one in force; with room for an estimate if it has to be computed.
fn compared(reader: &Reader, definition: &Definition, applied: &AppliedRules) -> PlannedAggregate {
    let id = &definition.id;
    let existing = reader.catalog().get(&id.name);
    let is_in_force = existing.is_some_and(|one| !one.document.detached);
    let action = match existing {
        None => Action::Added,
        Some(_) if !is_in_force => Action::Attached,
        Some(_) if applied.changed.contains(id) => Action::Changed,
        Some(_) => Action::Unchanged,
    };
    let is_computed = existing.is_none() || applied.changed.contains(id);
    let before = existing.map(|one| one.document.rule.clone());
    PlannedAggregate {
        database: Arc::clone(&id.database),
        name: Arc::clone(&id.name),
        action,
        keys: before.as_ref().map_or_else(Vec::new, |rule| changed_keys(rule, &definition.rule)),
        before: before.filter(|_| is_in_force),
        after: Some(definition.rule.clone()),
        estimate: is_computed.then(Estimate::default),
    }
}

/// Why the rules of a database would be refused, or what applying them would change.
fn contradictions(
    reader: &Reader,
    database: &Arc<str>,
    wanted: &DatabaseRules,
) -> Result<AppliedRules, Vec<RefusedRule>> {
    let (mut commit, mut applied) = (Commit::default(), AppliedRules::default());
    let change = change_aggregates(reader, database, wanted, &mut commit, &mut applied);
    let Err(first) = change else {
        return Ok(applied);
    };
    let taken = |definition: &Definition| {
        let error = refuse_taken_name(reader, &definition.id).err()?;
        let aggregate = Some(Arc::clone(&definition.id.name));
        Some(RefusedRule { file: None, line: None, aggregate, reason: error.to_string() })
    };
    let taken: Vec<RefusedRule> = wanted.definitions.iter().filter_map(taken).collect();
    Err(match first {
        _ if !taken.is_empty() => taken,
        AggregationError::Definition(error) => vec![error.into()],
        AggregationError::Rules(errors) => errors.into_iter().map(Into::into).collect(),
        error => {
            let reason = error.to_string();
            vec![RefusedRule { file: None, line: None, aggregate: None, reason }]
        }
    })
}

/// Rows and bytes of stored partials.
fn stored_size(reader: &Reader, aggregate: &Aggregate) -> (u64, u64) {
    let stored = reader.session().version().measurement(&aggregate.stored());
    let segments = stored.into_iter().flat_map(|stored| stored.segments());
    segments.fold((0, 0), |(rows, bytes), one| (rows + one.rows, bytes + one.bytes))
}

/// The keys in which two rules differ.
fn changed_keys(old: &AggregateRule, new: &AggregateRule) -> Vec<ChangedKey> {
    let [old, new] = [old, new].map(|rule| match serde_json::to_value(rule) {
        Ok(Value::Object(keys)) => keys,
        _ => Map::new(),
    });
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    let value = |of: &Map<String, Value>, key: &str| of.get(key).cloned().unwrap_or(Value::Null);
    changed
        .map(|key| ChangedKey { key: key.clone(), old: value(&old, key), new: value(&new, key) })
        .collect()
}

/// The database, declared columns and retention that would change.
fn settings(reader: &Reader, database: &Arc<str>, wanted: &DatabaseRules) -> Vec<String> {
    let version = reader.session().version();
    let mut said = Vec::new();
    if !version.has_database(database) {
        said.push(format!("{database}: is created"));
    }
    for rule in &wanted.measurements {
        let id = MeasurementId::new(Arc::clone(database), Arc::clone(&rule.name));
        let schema = version.measurement(&id).map(|_| schema_of(reader, &id, &[]));
        let missing = rule.columns.iter().filter(|column| {
            schema.as_ref().is_none_or(|schema| schema.column(&column.name).is_none())
        });
        let name = &rule.name;
        said.extend(missing.map(|column| {
            format!("{database}: {} of {name} is declared a timestamp", column.name)
        }));
    }
    said.extend(retention_changes(database, version.retention_rules(database), &wanted.retention));
    said
}

fn retention_changes(
    database: &str,
    current: &[RetentionRule],
    wanted: &[RetentionRule],
) -> Vec<String> {
    let by_name = |rules: &[RetentionRule]| -> BTreeMap<String, String> {
        let said = |rule: &RetentionRule| match rule.max_hold {
            None => format!("keep {}", rule.keep),
            Some(most) => format!("keep {}, max_hold {most}", rule.keep),
        };
        rules.iter().map(|rule| (rule.measurement.clone(), said(rule))).collect()
    };
    let (old, new) = (by_name(current), by_name(wanted));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let keep = |of: &BTreeMap<String, String>, name: &String| {
        of.get(name).map_or_else(|| "no rule".to_owned(), String::clone)
    };
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed
        .map(|name| {
            format!("{database}: retention of {name}: {} -> {}", keep(&old, name), keep(&new, name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_keys_have_both_values() {
        let rule = |every: Option<&str>, limit| AggregateRule {
            name: "a".to_owned(),
            interval: every.map(str::to_owned),
            limit,
            ..AggregateRule::default()
        };
        let keys = changed_keys(&rule(Some("1h"), None), &rule(Some("1d"), Some(3)));
        let texts: Vec<String> =
            keys.iter().map(|key| format!("{}: {} -> {}", key.key, key.old, key.new)).collect();
        assert_eq!(texts, ["interval: \"1h\" -> \"1d\"", "limit: null -> 3"]);
        assert!(changed_keys(&rule(None, None), &rule(None, None)).is_empty());
    }

    #[test]
    fn retention_that_changes_is_said() {
        let rules = |keeps: &[(&str, &str)]| -> Vec<RetentionRule> {
            let rule = |(name, keep): &(&str, &str)| RetentionRule {
                measurement: (*name).to_owned(),
                keep: keep.parse().unwrap(),
                max_hold: None,
            };
            keeps.iter().map(rule).collect()
        };
        let (old, new) =
            (rules(&[("cpu", "7d"), ("mem", "1d")]), rules(&[("cpu", "3d"), ("mem", "1d")]));
        let patient = [RetentionRule { max_hold: Some("1d".parse().unwrap()), ..new[1].clone() }];
        assert_eq!(
            retention_changes("t", &new[1..], &patient),
            ["t: retention of mem: keep 1d -> keep 1d, max_hold 1d"]
        );
        assert_eq!(retention_changes("t", &old, &new), ["t: retention of cpu: keep 7d -> keep 3d"]);
        assert_eq!(
            retention_changes("t", &old, &[]),
            ["t: retention of cpu: keep 7d -> no rule", "t: retention of mem: keep 1d -> no rule"]
        );
    }
}
