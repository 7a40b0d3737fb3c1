//! A definition met with the columns of its source: group columns and outputs with their types.
//!
//! The columns of an aggregate exist as soon as its definition does. What the data has not shown
//! yet is assumed, and marked as not known: group columns to be tags, fields to be floats.

use std::collections::HashSet;
use std::sync::Arc;

use highwater_core::schema::TIME_COLUMN;
use highwater_core::{ColumnRole, FieldType, Schema};

use super::{
    AggregateFunction, Definition, DefinitionError, FieldChoice, GroupBy, OrderBy, OutputRule,
    partial_column,
};

/// One group column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupColumn {
    /// Its name, in the source and in the answer.
    pub name: Arc<str>,
    /// Tag or field; a tag while not known.
    pub role: ColumnRole,
    /// Whether the source has it; if not, it is NULL in every row.
    pub is_known: bool,
}

/// One output of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name; the hidden column of its partial is `<name>_partial`.
    pub name: Arc<str>,
    /// What is computed.
    pub function: AggregateFunction,
    /// Of which field or tag of the root measurement; `None` for points.
    pub field: Option<Arc<str>>,
    /// The parent's output whose partials are merged; `None` over raw points.
    pub merges: Option<Arc<str>>,
    /// Type of the values; of a tag: string. `None` for points.
    pub input: Option<FieldType>,
    /// Type of the result.
    pub result: FieldType,
    /// Whether the source has the field; if not, there are no values of it at all.
    pub is_known: bool,
}

/// A field that `field: "*"` met and could not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Which field.
    pub field: Arc<str>,
    /// Which function.
    pub function: AggregateFunction,
    /// Why not.
    pub reason: String,
}

/// The columns of an aggregate: `time` (if the definition has an interval), the group columns,
/// the outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Group columns, in order of the definition; all tags in order of the schema.
    pub groups: Vec<GroupColumn>,
    /// Outputs, in order of the definition; those of `"*"` in order of the schema.
    pub outputs: Vec<Output>,
    /// What `"*"` could not take, for whoever wonders.
    pub left_out: Vec<LeftOut>,
    /// The order on read, as far as its columns exist yet.
    pub order_by: Vec<OrderBy>,
}

/// What a definition reads, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum SourceColumns<'a> {
    /// A measurement; an empty schema if nothing was written yet.
    Points(&'a Schema),
    /// An aggregate.
    Partials(&'a Resolved),
}

impl Definition {
    /// Finds the group columns and outputs among the columns of the source.
    ///
    /// # Errors
    /// If a function does not take the field's known type, `time_column` is not a declared
    /// timestamp, or the parent has no such group or output.
    pub fn resolve(&self, source: SourceColumns<'_>) -> Result<Resolved, DefinitionError> {
        let named = |e: DefinitionError| e.of_aggregate(&self.id.name);
        if let SourceColumns::Points(schema) = source {
            self.check_time_column(schema).map_err(named)?;
        }
        let groups = self.resolve_groups(source).map_err(named)?;
        let mut columns = Columns::of(self, &groups);
        for rule in &self.outputs {
            let found = match source {
                SourceColumns::Points(schema) => self.of_points(rule, schema, &groups),
                SourceColumns::Partials(parent) => of_partials(rule, parent),
            };
            columns.add(rule, found.map_err(named)?).map_err(named)?;
        }
        let Columns { outputs, left_out, groups: names, .. } = columns;
        let is_output = |by: &OrderBy| outputs.iter().any(|output| output.name == by.column);
        let exists = |by: &&OrderBy| names.contains(&by.column) || is_output(by);
        let order_by = self.order_by.iter().filter(exists).cloned().collect();
        Ok(Resolved { groups, outputs, left_out, order_by })
    }

    fn check_time_column(&self, schema: &Schema) -> Result<(), DefinitionError> {
        let Some(column) = &self.time_column else { return Ok(()) };
        let found = match schema.column(column).map(|column| column.role) {
            Some(ColumnRole::Field(FieldType::Timestamp)) => return Ok(()),
            Some(ColumnRole::Field(other)) => format!("{column} is a field of type {other}"),
            Some(ColumnRole::Tag) => format!("{column} is a tag"),
            None => format!("{} has no {column}", self.root.measurement),
        };
        let reason = format!("{found}; declare it as timestamp under measurements");
        Err(DefinitionError::at("time_column", reason))
    }

    fn resolve_groups(
        &self,
        source: SourceColumns<'_>,
    ) -> Result<Vec<GroupColumn>, DefinitionError> {
        match (&self.group_by, source) {
            (GroupBy::AllTags, SourceColumns::Points(schema)) => {
                let mut tags: Vec<&Arc<str>> = schema.tags().iter().collect();
                tags.sort();
                Ok(tags.into_iter().map(|tag| group(tag, Some(ColumnRole::Tag))).collect())
            }
            (GroupBy::AllTags, SourceColumns::Partials(parent)) => Ok(parent.groups.clone()),
            (GroupBy::Columns(columns), SourceColumns::Points(schema)) => {
                let role = |name: &str| schema.column(name).map(|column| column.role);
                Ok(columns.iter().map(|name| group(name, role(name))).collect())
            }
            (GroupBy::Columns(columns), SourceColumns::Partials(parent)) => {
                Ok(columns.iter().map(|name| group_of_parent(name, parent)).collect())
            }
        }
    }

    /// The outputs of a rule over raw points: one, or one per field.
    fn of_points(
        &self,
        rule: &OutputRule,
        schema: &Schema,
        groups: &[GroupColumn],
    ) -> Result<Vec<Output>, DefinitionError> {
        match &rule.field {
            FieldChoice::Points => Ok(vec![points_output(rule, None)]),
            FieldChoice::Named(field) => {
                let role = schema.column(field).map(|column| column.role);
                named_output(rule, field, role).map(|output| vec![output])
            }
            FieldChoice::Every => {
                let is_free = |field: &str| {
                    let is_group = groups.iter().any(|group| &*group.name == field);
                    !is_group && self.time_column.as_deref() != Some(field)
                };
                let fields = schema.fields().iter().filter(|(field, _)| is_free(field));
                let fitting = fields.filter_map(|(field, t)| {
                    named_output(rule, field, Some(ColumnRole::Field(*t))).ok()
                });
                Ok(fitting.collect())
            }
        }
    }
}

/// Columns found so far.
struct Columns {
    /// Names of group columns, and `time`.
    groups: HashSet<Arc<str>>,
    /// Names that the definition spells out; what `"*"` finds gives way to them.
    spelled: HashSet<Arc<str>>,
    outputs: Vec<Output>,
    left_out: Vec<LeftOut>,
}

impl Columns {
    fn of(definition: &Definition, groups: &[GroupColumn]) -> Self {
        let names = groups.iter().map(|group| Arc::clone(&group.name));
        Columns {
            groups: names.chain([TIME_COLUMN.into()]).collect(),
            spelled: definition.outputs.iter().filter_map(OutputRule::name).collect(),
            outputs: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Adds the outputs of a rule; those of `"*"` whose name is taken are left out.
    fn add(&mut self, rule: &OutputRule, found: Vec<Output>) -> Result<(), DefinitionError> {
        for output in found {
            let follows = rule.field == FieldChoice::Every;
            match output.field.clone() {
                Some(field) if follows && self.is_taken(&output.name) => {
                    let reason = format!("another column is named {}", output.name);
                    self.left_out.push(LeftOut { field, function: output.function, reason });
                }
                _ if self.groups.contains(&output.name) => {
                    let name = &output.name;
                    let reason =
                        format!("the source has a tag {name} too; use `as` for another name");
                    return Err(DefinitionError::at("aggregations", reason));
                }
                _ => self.outputs.push(output),
            }
        }
        Ok(())
    }

    fn is_taken(&self, name: &str) -> bool {
        let hidden = partial_column(name);
        let is_found = |output: &Output| {
            &*output.name == name || *output.name == hidden || partial_column(&output.name) == name
        };
        let is_spelled = |own: &Arc<str>| partial_column(own) == name;
        self.groups.contains(name)
            || self.spelled.contains(name)
            || self.spelled.contains(hidden.as_str())
            || self.spelled.iter().any(is_spelled)
            || self.outputs.iter().any(is_found)
    }
}

fn group(name: &Arc<str>, role: Option<ColumnRole>) -> GroupColumn {
    GroupColumn {
        name: Arc::clone(name),
        role: role.unwrap_or(ColumnRole::Tag),
        is_known: role.is_some(),
    }
}

fn group_of_parent(name: &Arc<str>, parent: &Resolved) -> GroupColumn {
    let kept = parent.groups.iter().find(|group| group.name == *name);
    kept.cloned().unwrap_or_else(|| group(name, None))
}

fn points_output(rule: &OutputRule, merges: Option<Arc<str>>) -> Output {
    Output {
        name: rule.name_for(None),
        function: rule.function,
        field: None,
        merges,
        input: None,
        result: rule.function.output_type(None),
        is_known: true,
    }
}

fn named_output(
    rule: &OutputRule,
    field: &Arc<str>,
    role: Option<ColumnRole>,
) -> Result<Output, DefinitionError> {
    let input = match role {
        None => FieldType::Float,
        Some(ColumnRole::Tag) => FieldType::String,
        Some(ColumnRole::Field(field_type)) => field_type,
    };
    rule.function.accepts(input).map_err(|_| {
        let reason = format!("{} does not take {field}, which is a {input}", rule.function);
        DefinitionError::at("function", reason).inside("aggregations")
    })?;
    Ok(Output {
        name: rule.name_for(Some(field)),
        function: rule.function,
        field: Some(Arc::clone(field)),
        merges: None,
        input: Some(input),
        result: rule.function.output_type(Some(input)),
        is_known: role.is_some(),
    })
}

/// The outputs of a rule over the partials of a parent.
fn of_partials(rule: &OutputRule, parent: &Resolved) -> Result<Vec<Output>, DefinitionError> {
    let answering =
        parent.outputs.iter().filter(|kept| rule.function.reads_partials_of(kept.function));
    let merging = |kept: &Output| Output {
        name: rule.name_for(kept.field.as_deref()),
        function: rule.function,
        merges: Some(Arc::clone(&kept.name)),
        result: rule.function.output_type(kept.input),
        ..kept.clone()
    };
    let found: Vec<Output> = match &rule.field {
        FieldChoice::Points => {
            answering.filter(|kept| kept.field.is_none()).take(1).map(merging).collect()
        }
        FieldChoice::Named(field) => {
            let is_it = |kept: &&Output| kept.field.as_ref() == Some(field);
            answering.filter(is_it).take(1).map(merging).collect()
        }
        FieldChoice::Every => {
            let mut seen = HashSet::new();
            let is_new = |kept: &&Output| kept.field.is_some() && seen.insert(kept.field.clone());
            return Ok(answering.filter(is_new).map(merging).collect());
        }
    };
    if !found.is_empty() {
        return Ok(found);
    }
    // The parent follows "*" and has not met the field yet.
    match &rule.field {
        FieldChoice::Named(field) => Ok(vec![named_output(rule, field, None)?]),
        _ => Err(DefinitionError::at("aggregations", "the source has no such output")),
    }
}
