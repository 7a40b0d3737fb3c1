//! The condition of a rule (`where`): which columns it names, and whether its source keeps them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, SchemaError};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use highwater_core::schema::TIME_COLUMN;

use crate::definition::{AggregateId, Definition, DefinitionError, GroupBy};

/// More columns than this in a condition are refused.
const MOST_COLUMNS: usize = 64;

/// The columns that a condition names.
///
/// # Errors
/// If it is not an expression over the columns of one point, or may change its mind about a point.
pub(crate) fn columns(state: &SessionState, text: &str) -> Result<BTreeSet<String>> {
    let mut columns = BTreeSet::new();
    while columns.len() <= MOST_COLUMNS {
        let fields = columns.iter().map(|name: &String| Field::new(name, DataType::Null, true));
        let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), HashMap::new());
        match state.create_logical_expr(text, &DFSchema::try_from(schema)?) {
            Ok(condition) => return refuse_unsteady(&condition).map(|()| columns),
            Err(error) => match missing_column(&error) {
                Some(name) if !columns.contains(&name) => columns.insert(name),
                _ => return Err(error),
            },
        };
    }
    Err(DataFusionError::Plan(format!("a condition names at most {MOST_COLUMNS} columns")))
}

/// Refuses what does not depend on the columns of one point alone.
fn refuse_unsteady(condition: &Expr) -> Result<()> {
    let refused = |reason: String| Err(DataFusionError::Plan(reason));
    condition.apply(|part| match part {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            refused(format!("{}() is not the same at every refresh", call.name()))
        }
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
            refused("a condition looks at one point, so it cannot aggregate".to_owned())
        }
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) => {
            refused("a condition looks at one point, so it has no subqueries".to_owned())
        }
        Expr::Placeholder(_) => refused("a condition has no parameters".to_owned()),
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}

/// Checks that a condition over the points of `schema` is one; columns that these do not have (yet)
/// may be of any type.
pub(crate) fn check_type(
    state: &SessionState,
    text: &str,
    schema: &highwater_core::Schema,
) -> std::result::Result<(), DefinitionError> {
    let found = || {
        let mut fields: Vec<FieldRef> = schema.arrow().fields().iter().cloned().collect();
        for name in columns(state, text)? {
            if schema.column(&name).is_none() && name != TIME_COLUMN {
                fields.push(Arc::new(Field::new(name, DataType::Null, true)));
            }
        }
        let schema = DFSchema::try_from(Schema::new(fields))?;
        state.create_logical_expr(text, &schema)?.get_type(&schema)
    };
    match found() {
        Ok(DataType::Boolean | DataType::Null) => Ok(()),
        Ok(other) => {
            let reason = format!("{text} is no condition but of type {other}");
            Err(DefinitionError::at("where", reason))
        }
        Err(error) => Err(DefinitionError::at("where", error.strip_backtrace())),
    }
}

/// The column whose absence made planning fail.
fn missing_column(error: &DataFusionError) -> Option<String> {
    match error {
        DataFusionError::SchemaError(error, _) => match &**error {
            SchemaError::FieldNotFound { field, .. } => Some(field.name.clone()),
            _ => None,
        },
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => {
            missing_column(inner)
        }
        _ => None,
    }
}

/// Checks the conditions of definitions: each must be an expression, and over an aggregate it
/// can only name the groups that the parent keeps apart.
pub(crate) fn check(
    state: &SessionState,
    definitions: &[Definition],
) -> std::result::Result<(), DefinitionError> {
    let by_id: BTreeMap<&AggregateId, &Definition> =
        definitions.iter().map(|one| (&one.id, one)).collect();
    for definition in definitions {
        let Some(text) = &definition.filter else { continue };
        let refused = |reason: String| {
            Err(DefinitionError::at("where", reason).of_aggregate(&definition.id.name))
        };
        let named = match columns(state, text) {
            Ok(named) => named,
            Err(error) => return refused(error.strip_backtrace()),
        };
        let parent = definition.parent().and_then(|id| by_id.get(id));
        let Some(kept) = parent.and_then(|parent| groups(parent)) else { continue };
        if let Some(lost) = named.iter().find(|name| !kept.iter().any(|own| **own == ***name)) {
            let source = &definition.rule.source;
            let kept: Vec<&str> = kept.iter().map(AsRef::as_ref).collect();
            let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
            return refused(format!(
                "{lost} is not a group of {source}, so its partials cannot be told apart by it; \
                 groups are: {kept}"
            ));
        }
    }
    Ok(())
}

/// The groups a definition keeps apart, if it names them.
fn groups(definition: &Definition) -> Option<&[Arc<str>]> {
    match &definition.group_by {
        GroupBy::Columns(columns) => Some(columns),
        GroupBy::AllTags => None,
    }
}
