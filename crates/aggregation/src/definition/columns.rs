//! Outputs of a rule, and the columns of the answer they make.

use std::collections::HashSet;
use std::sync::Arc;

use highwater_core::schema::TIME_COLUMN;

use super::name::checked_name;
use super::rule::{AggregateRule, AggregationRule};
use super::{
    AggregateFunction, Definition, DefinitionError, FieldChoice, GroupBy, Naming, OutputRule,
    hierarchy,
};
use crate::functions::FunctionError;

/// The outputs of all entries; those of the parent if there are no entries.
pub(super) fn outputs(
    rule: &AggregateRule,
    parent: Option<&Definition>,
) -> Result<Vec<OutputRule>, Vec<DefinitionError>> {
    if rule.aggregations.is_empty() {
        let inherited = parent.map(|parent| parent.outputs.clone());
        let reason = "must not be empty; list what to compute, like {field: usage, function: mean}";
        return inherited.ok_or_else(|| vec![DefinitionError::at("aggregations", reason)]);
    }
    let (mut outputs, mut problems) = (Vec::new(), Vec::new());
    for (i, entry) in rule.aggregations.iter().enumerate() {
        match entry_outputs(entry, parent) {
            Ok(own) => outputs.extend(own),
            Err(problem) => problems.push(problem.inside(i).inside("aggregations")),
        }
    }
    if problems.is_empty() { Ok(outputs) } else { Err(problems) }
}

fn entry_outputs(
    entry: &AggregationRule,
    parent: Option<&Definition>,
) -> Result<Vec<OutputRule>, DefinitionError> {
    if entry.function.is_empty() {
        return Err(DefinitionError::at("function", "must name at least one function"));
    }
    let field = field_choice(entry)?;
    let naming = naming(entry, &field)?;
    let output = |name: &String| {
        let function = function_named(name, field != FieldChoice::Points)?;
        let own = OutputRule { field: field.clone(), function, naming: naming.clone() };
        hierarchy::derived(own.spelled(), parent)
    };
    entry.function.iter().map(output).collect()
}

/// The function of that name, in any case.
pub(super) fn function_named(
    name: &str,
    has_field: bool,
) -> Result<AggregateFunction, DefinitionError> {
    let name = name.trim().to_ascii_lowercase();
    AggregateFunction::named(&name, has_field).map_err(|error| {
        let error = with_arguments(&name).unwrap_or(error);
        let key = match error {
            FunctionError::NeedsField { .. } => "field",
            _ => "function",
        };
        DefinitionError::at(key, error.to_string())
    })
}

/// Why a function with arguments, like `percentile(0.99)`, is refused, if it is a function at all.
fn with_arguments(name: &str) -> Option<FunctionError> {
    let (function, _) = name.split_once('(')?;
    let error = AggregateFunction::named(function.trim(), true).err()?;
    (!matches!(error, FunctionError::Unknown { .. })).then_some(error)
}

fn field_choice(entry: &AggregationRule) -> Result<FieldChoice, DefinitionError> {
    match entry.field.as_deref() {
        None => Ok(FieldChoice::Points),
        Some("*") => Ok(FieldChoice::Every),
        Some("") => Err(DefinitionError::at("field", "must not be empty")),
        Some(TIME_COLUMN) => {
            Err(DefinitionError::at("field", "time is no field; count without field counts points"))
        }
        Some(field) => Ok(FieldChoice::Named(field.into())),
    }
}

fn naming(entry: &AggregationRule, field: &FieldChoice) -> Result<Naming, DefinitionError> {
    let refused = |reason: &str| Err(DefinitionError::at("as", reason));
    match (entry.alias.as_deref(), field) {
        (None, _) => Ok(Naming::FieldAndFunction),
        (Some(_), _) if entry.function.len() > 1 => {
            refused("names one output, but there are several functions")
        }
        (Some("*"), FieldChoice::Points) => refused("there is no field whose name to take"),
        (Some("*"), FieldChoice::Named(field)) => Ok(Naming::As(Arc::clone(field))),
        (Some("*"), FieldChoice::Every) => Ok(Naming::Field),
        (Some(_), FieldChoice::Every) => refused(
            "would name many outputs; leave it out, or take \"*\" for the fields' own names",
        ),
        (Some(name), _) => {
            checked_name(name).map(Naming::As).map_err(|e| DefinitionError::at("as", e.reason))
        }
    }
}

/// Columns of the answer that would share a name, hidden partials included.
pub(super) fn shared_names(definition: &Definition) -> Option<DefinitionError> {
    let outputs: Vec<_> = definition.outputs.iter().filter_map(OutputRule::name).collect();
    let groups = match &definition.group_by {
        GroupBy::AllTags => &[][..],
        GroupBy::Columns(columns) => columns,
    };
    let mut seen: HashSet<&str> = groups.iter().map(|group| &**group).collect();
    seen.insert(TIME_COLUMN);
    let twice = outputs.iter().find(|name| !seen.insert(name));
    if let Some(name) = twice {
        let reason = format!("two columns would be named {name}; use `as` to name one differently");
        return Some(DefinitionError::at("aggregations", reason));
    }
    let hides = |name: &&Arc<str>| seen.contains(partial_column(name).as_str());
    outputs.iter().find(hides).map(|name| {
        let reason = format!("{} is the hidden column of {name}", partial_column(name));
        DefinitionError::at("aggregations", reason)
    })
}

/// Name of the hidden column that carries the partial of an output.
pub fn partial_column(output: &str) -> String {
    format!("{output}_partial")
}

pub(super) fn ordering(definition: &Definition) -> Vec<DefinitionError> {
    let mut problems = Vec::new();
    if definition.limit == Some(0) {
        problems.push(DefinitionError::at("limit", "must be at least 1"));
    }
    if definition.limit.is_some() && definition.order_by.is_empty() {
        problems.push(DefinitionError::at("limit", "needs order_by, to say which rows to keep"));
    }
    for (i, by) in definition.order_by.iter().enumerate() {
        if !may_have_column(definition, &by.column) {
            let reason = format!("{} is neither an output nor a group column", by.column);
            problems.push(DefinitionError::at("column", reason).inside(i).inside("order_by"));
        }
    }
    problems
}

/// An output that needs groups of one series, where these are not.
pub(super) fn several_series(definition: &Definition) -> Option<DefinitionError> {
    let mut outputs = definition.outputs.iter();
    let output = outputs.find(|output| output.function.needs_one_series())?;
    (definition.group_by != GroupBy::AllTags).then(|| {
        let function = output.function;
        let reason =
            format!("{function} follows one series, so each needs a group of its own; use \"*\"");
        DefinitionError::at("group_by", reason)
    })
}

/// Whether the answer has this column, or may have it once more tags or fields appear.
fn may_have_column(definition: &Definition, column: &str) -> bool {
    let is_group = match &definition.group_by {
        GroupBy::AllTags => true,
        GroupBy::Columns(columns) => columns.iter().any(|group| &**group == column),
    };
    let is_output = definition.outputs.iter().any(|o| o.name().is_none_or(|n| &*n == column));
    is_group || is_output || (column == TIME_COLUMN && definition.has_time())
}
