//! `DELETE FROM measurement [WHERE ..]`.

use std::sync::Arc;

use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{DmlStatement, Filter, LogicalPlan, WriteOp};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::parser::Statement as PlannedStatement;
use datafusion::sql::sqlparser::ast;
use highwater_core::{Condition, MeasurementId};
use highwater_storage::MeasurementKind;

use crate::condition::condition;
use crate::error::QueryError;
use crate::params::Params;
use crate::session::{QueryResult, QuerySession};
use crate::statement::innermost;
use crate::table::MeasurementTable;

/// Deletes points. The answer has no columns: how many points there were is not known.
pub(crate) async fn delete(
    session: &QuerySession,
    statement: PlannedStatement,
    params: &Params,
) -> Result<QueryResult, QueryError> {
    refuse_clauses(&statement)?;
    let state = session.state();
    let plan = params.bind(session.plan_statement(&state, statement).await?)?;
    let (id, condition) = target(&state, plan)?;
    for extension in session.engine().extensions() {
        extension.before_delete(session, &id, &condition).await?;
    }
    session.engine().storage().delete(&id, condition).await?;
    Ok(QueryResult::empty())
}

/// Refuses what the planner would drop or only pretend to do.
fn refuse_clauses(statement: &PlannedStatement) -> Result<(), QueryError> {
    let Some(ast::Statement::Delete(delete)) = innermost(statement) else { return Ok(()) };
    let tables = match &delete.from {
        ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables) => tables,
    };
    let aliased = tables
        .iter()
        .any(|table| matches!(&table.relation, ast::TableFactor::Table { alias: Some(_), .. }));
    let clauses = [
        (delete.limit.is_some(), "LIMIT in DELETE"),
        (!delete.order_by.is_empty(), "ORDER BY in DELETE"),
        (delete.returning.is_some(), "RETURNING in DELETE"),
        (delete.using.is_some(), "USING in DELETE"),
        (aliased, "an alias in DELETE"),
    ];
    match clauses.iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => Err(QueryError::unsupported(*what)),
        None => Ok(()),
    }
}

/// What is deleted, and from where.
fn target(
    state: &SessionState,
    plan: LogicalPlan,
) -> Result<(MeasurementId, Condition), QueryError> {
    let LogicalPlan::Dml(DmlStatement { table_name, target, op: WriteOp::Delete, input, .. }) =
        plan
    else {
        return Err(QueryError::Internal("DELETE was planned as something else".to_owned()));
    };
    let provider = source_as_provider(&target).map_err(QueryError::from)?;
    let table = provider.downcast_ref::<MeasurementTable>().map(MeasurementTable::measurement);
    let Some(measurement) = table.filter(|m| m.kind() == MeasurementKind::Points) else {
        return Err(QueryError::Invalid(format!(
            "{} is not a measurement; points are deleted from measurements",
            table_name.table()
        )));
    };
    let condition = match Arc::unwrap_or_clone(input) {
        LogicalPlan::Filter(filter) => {
            condition(&simplified(state, filter)?, measurement.schema())?
        }
        LogicalPlan::TableScan(_) => Condition::All,
        other => {
            return Err(QueryError::unsupported(format!("{} in DELETE", other.display())));
        }
    };
    Ok((measurement.id().clone(), condition))
}

/// The predicate with types coerced and constants folded, `now()` among them.
fn simplified(
    state: &SessionState,
    filter: Filter,
) -> Result<datafusion::logical_expr::Expr, QueryError> {
    let schema = filter.input.schema();
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(schema))
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(context);
    simplifier
        .coerce(filter.predicate, schema)
        .and_then(|predicate| simplifier.simplify(predicate))
        .map_err(QueryError::while_planning)
}
