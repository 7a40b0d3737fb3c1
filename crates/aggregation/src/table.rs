//! An aggregate as SQL sees it: a table of finished rows, planned when a query scans it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::TableType;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, SortExpr, TableProviderFilterPushDown, ident,
};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use highwater_core::schema::{TIME_COLUMN, time_data_type};
use highwater_core::{Column, Schema, TimeRanges};
use highwater_query::QuerySession;
use highwater_query::pushdown::prune_all;

use crate::catalog::Aggregate;
use crate::definition::Resolved;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::freshness::Tolerance;
use crate::functions::{partial_field, through_a_plan};
use crate::materialization::partial_name;

/// One aggregate at the version that a session has pinned.
pub(crate) struct AggregateTable {
    reader: Reader,
    aggregate: Arc<Aggregate>,
    resolved: Resolved,
    /// Outputs whose partials the statement names.
    partials: Vec<usize>,
    /// What may be used of what is stored.
    tolerance: Tolerance,
    schema: SchemaRef,
}

impl std::fmt::Debug for AggregateTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AggregateTable({})", self.aggregate.id())
    }
}

impl AggregateTable {
    pub(crate) fn new(
        reader: Reader,
        aggregate: Arc<Aggregate>,
        tolerance: Tolerance,
        mentioned: impl Fn(&str) -> bool,
    ) -> Result<Self, AggregationError> {
        let resolved = reader.resolve(&aggregate)?;
        let is_mentioned = |at: &usize| mentioned(&partial_name(&resolved.outputs[*at].name));
        let partials: Vec<usize> = (0..resolved.outputs.len()).filter(is_mentioned).collect();
        let time = aggregate.definition.has_time();
        // Never NULL, but the plans behind the table do not promise it, and must not promise less.
        let time = time.then(|| Field::new(TIME_COLUMN, time_data_type(), true));
        let groups = resolved.groups.iter().map(|group| {
            let column = Column { name: Arc::clone(&group.name), role: group.role };
            Field::new(&*group.name, column.data_type(), true)
        });
        let outputs = resolved.outputs.iter();
        let outputs = outputs.map(|output| Field::new(&*output.name, output.result.arrow(), true));
        let hidden = partials.iter().map(|&at| {
            let output = &resolved.outputs[at];
            let function = output.function.partial_function();
            partial_field(&partial_name(&output.name), function, output.input)
        });
        let fields: Vec<Field> =
            time.into_iter().chain(groups).chain(outputs).chain(hidden).collect();
        let schema = Arc::new(ArrowSchema::new(fields));
        Ok(AggregateTable { reader, aggregate, resolved, partials, tolerance, schema })
    }

    /// Whether a top-N stands between the rows of the table and those of the plan.
    fn is_limited(&self) -> bool {
        self.aggregate.definition.limit.is_some()
    }

    /// Positions, in the table, of the columns before the outputs.
    fn keys(&self) -> usize {
        self.schema.fields().len() - self.resolved.outputs.len() - self.partials.len()
    }

    /// Columns that a scan has to compute: those asked for, filtered by, or ordered by.
    fn needed_outputs(&self, projection: &[usize], filters: &[Expr]) -> Vec<usize> {
        let named: Vec<String> = filters
            .iter()
            .flat_map(|filter| filter.column_refs().into_iter().map(|c| c.name.clone()))
            .chain(self.resolved.order_by.iter().map(|by| by.column.to_string()))
            .collect();
        let is_needed = |at: &usize| {
            projection.contains(&(self.keys() + at))
                || self.partials.contains(at)
                || named.iter().any(|name| **name == *self.resolved.outputs[*at].name)
        };
        (0..self.resolved.outputs.len()).filter(is_needed).collect()
    }

    fn plan(&self, projection: &[usize], filters: &[Expr]) -> Result<LogicalPlan> {
        let outputs = self.needed_outputs(projection, filters);
        let times = match self.aggregate.definition.has_time() && !self.is_limited() {
            true => prune_all(filters, &Schema::default()).times,
            false => TimeRanges::all(),
        };
        let finished = self
            .reader
            .finished(&self.aggregate, &outputs, &self.partials, &times, self.tolerance)
            .map_err(external)?;
        let mut plan = LogicalPlanBuilder::new(finished);
        if let Some(filter) = conjunction(filters.iter().cloned().map(unqualified)) {
            plan = plan.filter(filter)?;
        }
        if self.is_limited() || !self.aggregate.definition.order_by.is_empty() {
            plan = self.top_n(plan)?;
        }
        projected(plan, &self.schema, projection)
    }

    /// Order, then limit; ties go by the group columns, ascending.
    fn top_n(&self, plan: LogicalPlanBuilder) -> Result<LogicalPlanBuilder> {
        let order = self.resolved.order_by.iter();
        let order = order.map(|by| SortExpr::new(ident(&*by.column), !by.descending, false));
        let fields = self.schema.fields().iter().take(self.keys());
        let ties = fields.map(|field| SortExpr::new(ident(field.name()), true, true));
        let fetch =
            self.aggregate.definition.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let plan = plan.sort(order.chain(ties).collect::<Vec<_>>())?;
        plan.limit(0, fetch)
    }
}

/// These columns of a table whose rows `plan` gives; all of them if only their number is wanted.
pub(crate) fn projected(
    plan: LogicalPlanBuilder,
    schema: &ArrowSchema,
    projection: &[usize],
) -> Result<LogicalPlan> {
    let names = projection.iter().map(|&at| ident(schema.field(at).name()));
    let names: Vec<Expr> = names.collect();
    if names.is_empty() { plan.build() } else { plan.project(names)?.build() }
}

/// A [`projected`] plan, ready to run; without any column if none is wanted.
pub(crate) async fn planned_apart(
    session: &QuerySession,
    plan: &LogicalPlan,
    projection: &[usize],
) -> Result<Arc<dyn ExecutionPlan>> {
    let physical = session.lean_state().create_physical_plan(plan).await?;
    match projection.is_empty() {
        true => Ok(Arc::new(ProjectionExec::try_new(Vec::<ProjectionExpr>::new(), physical)?)),
        false => Ok(physical),
    }
}

/// An error of this crate on its way through a plan.
pub(crate) fn external(error: AggregationError) -> DataFusionError {
    match error {
        AggregationError::DataFusion(error) => error,
        error => through_a_plan(error.kind(), &error),
    }
}

/// The same rows, with what the table says about its columns of partials: those that were stored
/// say nothing.
fn described(plan: Arc<dyn ExecutionPlan>, schema: &ArrowSchema) -> Result<Arc<dyn ExecutionPlan>> {
    let is_silent = |(own, said): (&Arc<Field>, &Arc<Field>)| own.metadata() != said.metadata();
    let fields = plan.schema();
    if !fields.fields().iter().zip(schema.fields()).any(is_silent) {
        return Ok(plan);
    }
    let column = |(at, field): (usize, &Arc<Field>)| ProjectionExpr {
        expr: Arc::new(PhysicalColumn::new(field.name(), at)),
        alias: field.name().clone(),
    };
    let columns: Vec<_> = fields.fields().iter().enumerate().map(column).collect();
    Ok(Arc::new(ProjectionExec::try_new_with_schema_metadata(columns, plan, schema)?))
}

/// The same expression over columns without table name.
fn unqualified(filter: Expr) -> Expr {
    datafusion::logical_expr::expr_rewriter::unnormalize_col(filter)
}

#[async_trait]
impl TableProvider for AggregateTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let kind = match self.is_limited() {
            true => TableProviderFilterPushDown::Unsupported,
            false => TableProviderFilterPushDown::Exact,
        };
        Ok(vec![kind; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let projection = projection.unwrap_or(&all);
        let plan = self.plan(projection, filters)?;
        let physical = planned_apart(self.reader.session(), &plan, projection).await?;
        described(physical, &self.schema.project(projection)?)
    }
}
