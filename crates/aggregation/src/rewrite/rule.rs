//! The optimizer rule: finds questions and puts answers in their place.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::prelude::ident;
use highwater_core::TimeRange;
use highwater_query::{MeasurementTable, Rewrite, last_points_suffice};

use super::answer;
use super::choose::{Choice, choose, over};
use super::question::{Question, table_below};
use super::reason::Reason;
use super::table::AnswerTable;
use crate::catalog;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::functions;
use crate::runtime::Shared;
use crate::table::external;

/// The rule; to be run when filters are pushed into scans.
pub(crate) struct AnswerFromAggregates {
    shared: Arc<Shared>,
    /// Functions that the last points of every series answer.
    last_functions: BTreeSet<String>,
}

impl fmt::Debug for AnswerFromAggregates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerFromAggregates")
    }
}

/// An aggregate node over one measurement that has aggregates, and what can be made of it.
pub(super) struct Found {
    reader: Reader,
    question: Result<Question, Reason>,
    pub(super) measurement: Arc<str>,
    pub(super) choice: Choice,
}

impl AnswerFromAggregates {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let last_functions = functions::last_functions().collect();
        AnswerFromAggregates { shared, last_functions }
    }

    /// What can be made of an aggregate node; `None` if it is not about points that aggregates are
    /// made of.
    pub(super) fn look_at(&self, aggregate: &Aggregate) -> Result<Option<Found>, AggregationError> {
        let Some(provider) = provider_below(aggregate) else { return Ok(None) };
        let Some(table) = provider.downcast_ref::<MeasurementTable>() else { return Ok(None) };
        let (session, points) = (table.session(), table.measurement());
        let reader = self.shared.reader_of(session)?;
        if over(&reader, points).next().is_none() {
            return Ok(None);
        }
        let mut question = Question::of(aggregate, table);
        if session.options().rewrite != Rewrite::Require
            && last_points_suffice(aggregate, &self.last_functions)
        {
            let newest = points.changes().hull().map_or(TimeRange::ALL.start, |hull| hull.end);
            question = question.and_then(|question| match question.times.hull() {
                Some(asked) if asked.end >= newest => Err(Reason::LastPoints),
                _ => Ok(question),
            });
        }
        let is_failing = |one: &catalog::Aggregate| {
            self.shared.schedules.lock().get(&one.run_id()).last_error.is_some()
        };
        let choice = match &question {
            Ok(question) => choose(&reader, points, question, is_failing),
            Err(reason) => {
                let others = over(&reader, points);
                let others = others.map(|one| (Arc::clone(one.name()), reason.clone()));
                Choice { answer: None, others: others.collect() }
            }
        };
        let measurement = Arc::clone(&table.id().measurement);
        Ok(Some(Found { reader, question, measurement, choice }))
    }
}

fn provider_below(aggregate: &Aggregate) -> Option<Arc<dyn TableProvider>> {
    let scan: &TableScan = table_below(aggregate)?;
    source_as_provider(&scan.source).ok()
}

impl OptimizerRule for AnswerFromAggregates {
    fn name(&self) -> &str {
        "answer_from_aggregates"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        let found = self.look_at(aggregate).map_err(external)?;
        match found.map(|found| found.replacement(aggregate)).transpose()?.flatten() {
            Some(answered) => Ok(Transformed::yes(answered)),
            None => Ok(Transformed::no(plan)),
        }
    }
}

impl Found {
    /// The same columns as the node has, from a scan of the answer; `None` if there is none.
    fn replacement(self, aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
        let Found { reader, question, measurement, choice } = self;
        let (Some(chosen), Ok(question)) = (choice.answer, question) else { return Ok(None) };
        let plan = answer::plan(&reader, &chosen, &question).map_err(external)?;
        let name = chosen.aggregate.name();
        let session = reader.session().clone();
        let table = AnswerTable::new(session, plan, &measurement, name, choice.others);
        let source = provider_as_source(Arc::new(table));
        let scan = LogicalPlanBuilder::scan(TableReference::bare(Arc::clone(name)), source, None)?;
        let columns = aggregate.schema.iter().map(|(qualifier, field)| {
            ident(field.name()).alias_qualified(qualifier.cloned(), field.name())
        });
        let columns: Vec<Expr> = columns.collect();
        scan.project(columns)?.build().map(Some)
    }
}
