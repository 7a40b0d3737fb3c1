//! From the text of rule files to definitions, with the file and line of every problem.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Column, FieldType};
use highwater_query::expression_planner;
use highwater_storage::RetentionRule;

use super::file::{self, DatabaseFile, MeasurementFile, RetentionFile};
use super::place::Outline;
use super::{MeasurementRule, Place, Rules, set};
use crate::definition::{
    AggregateRule, Definition, DefinitionError, Step, checked_name, compile_all, span,
};
use crate::filter;

/// Rules on their way from text to definitions.
#[derive(Default)]
pub(super) struct Loading {
    rules: Rules,
    problems: Vec<DefinitionError>,
    files: Vec<(Arc<str>, Outline)>,
    /// Aggregates of all files, with their databases; at last those of no file.
    aggregates: Vec<(Arc<str>, AggregateRule)>,
    /// Where those of files stand, in the same order.
    origins: Vec<Origin>,
    /// What retention rules name, with their databases, and where they stand.
    retained: Vec<(Arc<str>, String, Origin)>,
}

/// Where a rule stands.
#[derive(Clone, Debug)]
struct Origin {
    file: usize,
    /// The rule.
    path: Vec<Step>,
    /// The set whose keys it shares, if it is a member of one.
    set: Option<Vec<Step>>,
    /// Whether its keys are those of a downsampling rule.
    is_downsampling: bool,
}

impl Loading {
    /// Reads one file.
    pub(super) fn read(&mut self, name: &str, text: &str) {
        match file::read(text) {
            Ok(read) => {
                self.files.push((name.into(), Outline::of(text)));
                for (database, rules) in read.databases {
                    self.read_database(&database, rules.unwrap_or_default());
                }
            }
            Err(problem) => {
                self.problems.push(DefinitionError { file: Some(name.into()), ..problem });
            }
        }
    }

    fn read_database(&mut self, name: &str, rules: DatabaseFile) {
        let base = vec![Step::from("databases"), Step::from(name)];
        let database = match checked_name(name) {
            Ok(database) => database,
            Err(problem) => return self.note(&self.origin(&base), problem.inside("databases")),
        };
        let later = [
            ("views", rules.views.is_some()),
            ("view_jobs", rules.view_jobs.is_some()),
            ("analytics", rules.analytics.is_some()),
        ];
        for (key, _) in later.into_iter().filter(|(_, is_there)| *is_there) {
            self.note(&self.origin(&base), DefinitionError::later(key, ""));
        }
        self.rules.databases.entry(Arc::clone(&database)).or_default();
        for (i, rule) in rules.measurements.into_iter().enumerate() {
            let origin = self.origin(&below(&base, "measurements", i));
            self.read_measurement(&database, rule, &origin);
        }
        for (i, rule) in rules.retention.into_iter().enumerate() {
            let origin = self.origin(&below(&base, "retention", i));
            self.read_retention(&database, rule, &origin);
        }
        for (i, rule) in rules.aggregates.into_iter().enumerate() {
            self.read_aggregates(&database, rule, &below(&base, "aggregates", i));
        }
        for (i, rule) in rules.downsampling.into_iter().enumerate() {
            let origin = self.origin(&below(&base, "downsampling", i));
            self.aggregates.push((Arc::clone(&database), rule.into_aggregate()));
            self.origins.push(Origin { is_downsampling: true, ..origin });
        }
    }

    fn read_aggregates(&mut self, database: &Arc<str>, rule: AggregateRule, path: &[Step]) {
        let origin = self.origin(path);
        let is_set = rule.set.is_some();
        match set::members(rule) {
            Ok(members) => {
                for (i, member) in members.into_iter().enumerate() {
                    self.aggregates.push((Arc::clone(database), member));
                    self.origins.push(match is_set {
                        true => Origin {
                            path: below(path, "aggregates", i),
                            set: Some(path.to_vec()),
                            ..origin.clone()
                        },
                        false => origin.clone(),
                    });
                }
            }
            Err(problems) => problems.into_iter().for_each(|problem| self.note(&origin, problem)),
        }
    }

    fn read_measurement(&mut self, database: &Arc<str>, rule: MeasurementFile, origin: &Origin) {
        let checked = checked_name(&rule.name).map_err(|e| e.inside("name"));
        let columns = rule.columns.iter().map(|(name, column_type)| declared(name, column_type));
        match checked.and_then(|name| Ok((name, columns.collect::<Result<Vec<_>, _>>()?))) {
            Ok((name, columns)) => {
                let rules = self.rules.databases.entry(Arc::clone(database)).or_default();
                declare(&mut rules.measurements, name, columns);
            }
            Err(problem) => self.note(origin, problem),
        }
    }

    fn read_retention(&mut self, database: &Arc<str>, rule: RetentionFile, origin: &Origin) {
        let read = retention(&rule).and_then(|rule| {
            let rules = self.rules.databases.entry(Arc::clone(database)).or_default();
            if rules.retention.iter().any(|other| other.measurement == rule.measurement) {
                let reason = format!("there is another rule for {}", rule.measurement);
                return Err(DefinitionError::at("measurement", reason));
            }
            self.retained.push((Arc::clone(database), rule.measurement.clone(), origin.clone()));
            rules.retention.push(rule);
            Ok(())
        });
        if let Err(problem) = read {
            self.note(origin, problem);
        }
    }

    /// The rules of all files, or everything that is wrong with them.
    pub(super) fn finish(
        mut self,
        others: &[(Arc<str>, AggregateRule)],
    ) -> Result<Rules, Vec<DefinitionError>> {
        // What a file that cannot be read would define is no reason to complain about others.
        if self.problems.is_empty() {
            self.compile(others);
        }
        if self.problems.is_empty() { Ok(self.rules) } else { Err(self.problems) }
    }

    /// Compiles the aggregates of all files together, and beside `others`.
    fn compile(&mut self, others: &[(Arc<str>, AggregateRule)]) {
        let is_here = |(of, rule): &&(Arc<str>, AggregateRule)| {
            self.aggregates.iter().any(|(database, own)| database == of && own.name == rule.name)
        };
        let others: Vec<_> = others.iter().filter(|other| !is_here(other)).cloned().collect();
        self.aggregates.extend(others);
        for position in 0..self.origins.len() {
            if let Err(problem) = self.check_declared(position) {
                self.note(&self.origins[position].clone(), problem);
            }
        }
        self.check_retained();
        match compile_all(&self.aggregates) {
            Ok(definitions) => {
                self.check_conditions(&definitions);
                definitions.into_iter().for_each(|own| self.keep(own));
            }
            Err(problems) => {
                for (position, problem) in problems {
                    match self.origins.get(position).cloned() {
                        Some(origin) => self.note(&origin, problem),
                        None => self.problems.push(problem),
                    }
                }
            }
        }
    }

    /// Notes retention rules that name an aggregate, as they concern measurements only.
    fn check_retained(&mut self) {
        for (database, name, origin) in std::mem::take(&mut self.retained) {
            let is_it =
                |(of, rule): &(Arc<str>, AggregateRule)| *of == database && rule.name == name;
            if self.aggregates.iter().any(is_it) {
                let reason = format!("{name} is an aggregate; give it a key retention of its own");
                self.note(&origin, DefinitionError::at("measurement", reason));
            }
        }
    }

    /// Notes the first condition that is none.
    fn check_conditions(&mut self, definitions: &[Definition]) {
        let checked = match expression_planner() {
            Ok(planner) => filter::check(&planner, definitions),
            Err(error) => Err(DefinitionError::new(error.to_string())),
        };
        if let Err(problem) = checked {
            let named = problem.aggregate.as_deref();
            let position =
                self.aggregates.iter().position(|(_, rule)| Some(rule.name.as_str()) == named);
            match position.and_then(|position| self.origins.get(position)).cloned() {
                Some(origin) => self.note(&origin, problem),
                None => self.problems.push(problem),
            }
        }
    }

    /// Keeps a definition if it comes from a file.
    fn keep(&mut self, definition: Definition) {
        let id = &definition.id;
        let is_it = |(database, rule): &(Arc<str>, AggregateRule)| {
            *database == id.database && *rule.name == *id.name
        };
        if let Some(position) = self.aggregates[..self.origins.len()].iter().position(is_it) {
            if let Some((file, outline)) = self.files.get(self.origins[position].file) {
                let line = outline.line_of(&self.origins[position].path);
                self.rules.places.insert(id.clone(), Place { file: Arc::clone(file), line });
            }
            let rules = self.rules.databases.entry(Arc::clone(&id.database)).or_default();
            rules.definitions.push(definition);
        }
    }

    /// Checks that the time column of a rule over a measurement is declared.
    fn check_declared(&self, position: usize) -> Result<(), DefinitionError> {
        let (database, rule) = &self.aggregates[position];
        let reads_aggregate =
            self.aggregates.iter().any(|(of, other)| of == database && other.name == rule.source);
        let Some(column) = rule.time_column.as_deref().filter(|name| *name != TIME_COLUMN) else {
            return Ok(());
        };
        let measurements = self.rules.databases.get(database).map(|rules| &rules.measurements);
        let mut columns = measurements
            .into_iter()
            .flatten()
            .filter(|declared| *declared.name == *rule.source)
            .flat_map(|declared| &declared.columns);
        if reads_aggregate || columns.any(|declared| *declared.name == *column) {
            return Ok(());
        }
        let source = &rule.source;
        let reason = format!(
            "{column} is not declared; add {{name: {source}, columns: {{{column}: timestamp}}}} \
             to measurements"
        );
        Err(DefinitionError::at("time_column", reason).of_aggregate(&rule.name))
    }

    /// An origin in the file read last.
    fn origin(&self, path: &[Step]) -> Origin {
        let file = self.files.len().saturating_sub(1);
        Origin { file, path: path.to_vec(), set: None, is_downsampling: false }
    }

    /// Notes a problem with its file and line.
    fn note(&mut self, origin: &Origin, mut problem: DefinitionError) {
        if origin.is_downsampling {
            problem.path.first_mut().into_iter().for_each(as_downsampling_key);
        }
        let Some((file, outline)) = self.files.get(origin.file) else { return };
        let under = |base: &[Step], steps: usize| [base, &problem.path[..steps]].concat();
        let own = under(&origin.path, problem.path.len());
        let shared = origin.set.clone().filter(|set| {
            let first = problem.path.len().min(1);
            !outline.has(&under(&origin.path, first)) && outline.has(&under(set, first))
        });
        let path = shared.as_ref().map_or(own, |set| under(set, problem.path.len()));
        problem.line = outline.line_of(&path);
        problem.file = Some(Arc::clone(file));
        if shared.is_some() {
            // What the set says wrong is wrong once, not once per member.
            problem.aggregate = None;
        }
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

fn below(base: &[Step], key: &str, index: usize) -> Vec<Step> {
    [base, &[Step::from(key), Step::from(index)]].concat()
}

fn as_downsampling_key(step: &mut Step) {
    let renamed = match step {
        Step::Key(key) if &**key == "name" => "target",
        Step::Key(key) if &**key == "aggregations" => "fields",
        _ => return,
    };
    *step = renamed.into();
}

fn declared(name: &str, column_type: &str) -> Result<Column, DefinitionError> {
    let refused = |reason: String| Err(DefinitionError::at(name, reason).inside("columns"));
    match column_type {
        _ if name.is_empty() => refused("must not be empty".into()),
        _ if name == TIME_COLUMN => refused("every measurement has time".into()),
        "timestamp" => Ok(Column::field(name, FieldType::Timestamp)),
        other => refused(format!(
            "only timestamp can be declared, not {other}; other fields get their type from the \
             first point that has them"
        )),
    }
}

/// Adds declared columns to those of the measurement so far.
fn declare(measurements: &mut Vec<MeasurementRule>, name: Arc<str>, columns: Vec<Column>) {
    match measurements.iter_mut().find(|other| other.name == name) {
        Some(other) => {
            let present: BTreeSet<_> = other.columns.iter().map(|c| Arc::clone(&c.name)).collect();
            other.columns.extend(columns.into_iter().filter(|c| !present.contains(&c.name)));
        }
        None => measurements.push(MeasurementRule { name, columns }),
    }
}

fn retention(rule: &RetentionFile) -> Result<RetentionRule, DefinitionError> {
    let pattern = checked_name(&rule.measurement).map_err(|e| e.inside("measurement"))?;
    if pattern.trim_end_matches('*').contains('*') || pattern.ends_with("**") {
        let reason = "must be a name, a prefix followed by *, or *";
        return Err(DefinitionError::at("measurement", reason));
    }
    if rule.keep.is_empty() {
        return Err(DefinitionError::at("keep", "is missing; say how long, like 7d"));
    }
    let keep = span("keep", &rule.keep, false)?;
    let max_hold = rule.max_hold.as_deref().map(|text| span("max_hold", text, true)).transpose()?;
    Ok(RetentionRule { measurement: rule.measurement.clone(), keep, max_hold })
}
