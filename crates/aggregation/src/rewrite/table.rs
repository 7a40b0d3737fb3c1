//! The scan that stands for an aggregate node: it is planned when the query is.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown,
};
use datafusion::physical_plan::ExecutionPlan;
use highwater_query::QuerySession;

use super::reason::Reason;
use crate::table::{planned_apart, projected};

/// The answer of a question about points, from an aggregate.
#[derive(Debug)]
pub(super) struct AnswerTable {
    session: QuerySession,
    plan: LogicalPlan,
    schema: SchemaRef,
    /// The measurement that the question is about.
    pub(super) measurement: Arc<str>,
    /// The aggregate.
    pub(super) aggregate: Arc<str>,
    /// Why not others.
    pub(super) others: Vec<(Arc<str>, Reason)>,
}

impl AnswerTable {
    pub(super) fn new(
        session: QuerySession,
        plan: LogicalPlan,
        measurement: &Arc<str>,
        aggregate: &Arc<str>,
        others: Vec<(Arc<str>, Reason)>,
    ) -> Self {
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let (measurement, aggregate) = (Arc::clone(measurement), Arc::clone(aggregate));
        AnswerTable { session, plan, schema, measurement, aggregate, others }
    }

    fn plan(&self, projection: &[usize], filters: &[Expr]) -> Result<LogicalPlan> {
        let mut plan = LogicalPlanBuilder::new(self.plan.clone());
        if let Some(filter) = conjunction(filters.iter().cloned().map(unnormalize_col)) {
            plan = plan.filter(filter)?;
        }
        projected(plan, &self.schema, projection)
    }
}

#[async_trait]
impl TableProvider for AnswerTable {
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
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
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
        planned_apart(&self.session, &plan, projection).await
    }
}
