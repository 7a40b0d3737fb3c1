//! `DELETE FROM measurement [WHERE ..]`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampNanosecondType};
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    DmlStatement, Expr, Filter, LogicalPlan, LogicalPlanBuilder, TableScan, WriteOp,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::parser::Statement as PlannedStatement;
use datafusion::sql::sqlparser::ast;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Condition, MeasurementId, PointSet, ScanFilter, Timestamp};
use highwater_storage::{Measurement, MeasurementKind, StorageError};

use crate::condition::condition;
use crate::error::QueryError;
use crate::extension::Deleting;
use crate::params::Params;
use crate::session::{QueryResult, QuerySession};
use crate::statement::innermost;
use crate::table::MeasurementTable;

/// Most points that a delete finds by more than time and tags.
const MAX_POINTS: usize = 100_000;
/// How often such a delete looks again because points have changed meanwhile.
const ATTEMPTS: usize = 8;

/// Deletes points. The answer has no columns: how many points there were is not known.
pub(crate) async fn delete(
    session: &QuerySession,
    statement: PlannedStatement,
    params: &Params,
) -> Result<QueryResult, QueryError> {
    refuse_clauses(&statement)?;
    let mut session = session.clone();
    let mut attempts = 1..=ATTEMPTS;
    loop {
        attempts.next();
        match attempt(&session, statement.clone(), params).await {
            Err(QueryError::Storage(StorageError::Conflict { .. })) if !attempts.is_empty() => {
                session = session.at_newest_version();
            }
            result => return result.map(|()| QueryResult::empty()),
        }
    }
}

async fn attempt(
    session: &QuerySession,
    statement: PlannedStatement,
    params: &Params,
) -> Result<(), QueryError> {
    let state = session.state();
    let plan = params.bind(session.plan_statement(&state, statement).await?)?;
    let target = target(session, &state, plan)?;
    let is_all = target.found_by.is_none();
    for extension in session.engine().extensions() {
        let deleting = extension.delete(session, &target.id, &target.condition, is_all).await?;
        if deleting == Deleting::Done {
            return Ok(());
        }
    }
    let (storage, seen) = (session.engine().storage(), session.version());
    match target.found_by {
        None => storage.delete(seen, &target.id, target.condition).await?,
        Some(rows) => {
            let points = points(session, &state, &target.tags, rows).await?;
            storage.delete_points(seen, &target.id, points).await?
        }
    };
    Ok(())
}

/// Tags and time of the rows of a plan, as points.
async fn points(
    session: &QuerySession,
    state: &SessionState,
    tags: &[Arc<str>],
    rows: LogicalPlan,
) -> Result<PointSet, QueryError> {
    let columns = tags.iter().map(|tag| &**tag).chain([TIME_COLUMN]);
    let columns = columns.map(|name| Expr::Column(Column::new_unqualified(name)));
    let plan = LogicalPlanBuilder::from(rows)
        .project(columns)
        .and_then(|plan| plan.limit(0, Some(MAX_POINTS + 1)))
        .and_then(LogicalPlanBuilder::build)
        .map_err(QueryError::while_planning)?;
    let mut found = Vec::new();
    for batch in session.run(state, &plan).await?.collect().await? {
        add_points(&batch, &mut found)?;
    }
    if found.len() > MAX_POINTS {
        return Err(QueryError::Invalid(format!(
            "this would delete more than {MAX_POINTS} points; by other conditions than time and \
             tags so many go at once, so add a range of time"
        )));
    }
    Ok(PointSet::new(tags.to_vec(), found))
}

/// Adds the rows of a batch: tags, then `time`.
fn add_points(
    batch: &RecordBatch,
    found: &mut Vec<(Vec<Option<String>>, Timestamp)>,
) -> Result<(), QueryError> {
    let unexpected = || QueryError::Internal("the points to delete have no time".to_owned());
    let (times, tags) = batch.columns().split_last().ok_or_else(unexpected)?;
    let times = times.as_primitive_opt::<TimestampNanosecondType>().ok_or_else(unexpected)?;
    let text = |tag: &ArrayRef| cast(tag, &DataType::Utf8);
    let tags = tags.iter().map(text).collect::<Result<Vec<ArrayRef>, _>>();
    let tags = tags.map_err(|error| QueryError::Internal(error.to_string()))?;
    let tags: Vec<&StringArray> = tags.iter().map(|tag| tag.as_string()).collect();
    found.extend(times.values().iter().enumerate().map(|(row, time)| {
        let value = |tag: &&StringArray| tag.is_valid(row).then(|| tag.value(row).to_owned());
        (tags.iter().map(value).collect(), Timestamp::from_nanos(*time))
    }));
    Ok(())
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
struct Target {
    id: MeasurementId,
    tags: Vec<Arc<str>>,
    /// What the WHERE says of time and tags.
    condition: Condition,
    /// The rows to delete, if it says more than that.
    found_by: Option<LogicalPlan>,
}

fn target(
    session: &QuerySession,
    state: &SessionState,
    plan: LogicalPlan,
) -> Result<Target, QueryError> {
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
    let (id, schema) = (measurement.id().clone(), measurement.schema());
    let tags = schema.tags().to_vec();
    let (condition, is_whole) = match &*input {
        LogicalPlan::Filter(filter) => {
            let filter = simplified(state, filter)?;
            let parts = split_conjunction(&filter);
            let known = parts.iter().filter_map(|part| condition(part, schema));
            let known: Vec<Condition> = known.collect();
            let is_whole = known.len() == parts.len();
            (Condition::And(known), is_whole)
        }
        LogicalPlan::TableScan(_) => (Condition::All, true),
        other => {
            return Err(QueryError::unsupported(format!("{} in DELETE", other.display())));
        }
    };
    let found_by = match is_whole {
        true => None,
        false => Some(with_expired(session, measurement, Arc::unwrap_or_clone(input))?),
    };
    Ok(Target { id, tags, condition, found_by })
}

/// The same rows, and those that have expired and are still there: aggregates follow them until they
/// are gone for good, so a delete does not leave them out. What subqueries see stays as it is.
fn with_expired(
    session: &QuerySession,
    measurement: &Arc<Measurement>,
    rows: LogicalPlan,
) -> Result<LogicalPlan, QueryError> {
    let table = MeasurementTable::new(session.clone(), Arc::clone(measurement), ScanFilter::all());
    let source = provider_as_source(Arc::new(table));
    let seen = rows.transform_down(|plan| match plan {
        LogicalPlan::TableScan(scan) => {
            let scan = TableScan { source: Arc::clone(&source), ..scan };
            Ok(Transformed::new(LogicalPlan::TableScan(scan), true, TreeNodeRecursion::Stop))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(seen.map_err(QueryError::from)?.data)
}

/// The predicate with types coerced and constants folded, `now()` among them.
fn simplified(state: &SessionState, filter: &Filter) -> Result<Expr, QueryError> {
    let schema = filter.input.schema();
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(schema))
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(context);
    simplifier
        .coerce(filter.predicate.clone(), schema)
        .and_then(|predicate| simplifier.simplify(predicate))
        .map_err(QueryError::while_planning)
}
