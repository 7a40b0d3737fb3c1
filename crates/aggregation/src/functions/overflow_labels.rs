//! Lets a `sum` of integers that overflows, a `distinct` of too many values and the `increase` of
//! several counters say in which group.
//!
//! An accumulator does not know the values of its group. So a grouped `sum(x)` becomes
//! `sum_partial(x)` below a projection with `sum_finish(.., group columns)`, as a read of a
//! continuous aggregate is anyway:
//!
//! ```text
//! Aggregate: [host], [sum(x)]   →   Projection: host, sum_finish("sum(x)", host) AS "sum(x)"
//!                                     Aggregate: [host], [sum_partial(x) AS "sum(x)"]
//! ```

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::AggregateFunction as Call;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use highwater_core::FieldType;

use super::finish::finish_udf;
use super::function::{AggregateFunction, by_name};
use super::partials::partial_udaf;
use super::raw::SUM;

/// The rule; to be run after all others.
#[derive(Debug)]
pub(super) struct OverflowLabels;

impl OptimizerRule for OverflowLabels {
    fn name(&self) -> &str {
        "overflow_labels"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Aggregate(aggregate) if !aggregate.group_expr.is_empty() => {
                labelled(aggregate)
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

fn labelled(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let input = Arc::clone(aggregate.input.schema());
    let calls: Vec<Option<Steps>> =
        aggregate.aggr_expr.iter().map(|expr| in_steps(expr, &input)).collect::<Result<_>>()?;
    if calls.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let columns: Vec<Column> = aggregate.schema.columns();
    let answers = columns.iter().enumerate().map(|(index, column)| {
        let steps = index.checked_sub(groups).and_then(|index| calls[index].as_ref());
        match steps {
            None => Expr::Column(column.clone()),
            Some(steps) => finished(column, steps, &columns[..groups]),
        }
    });
    let answers = answers.collect();
    let partials = aggregate.aggr_expr.iter().zip(&calls).map(|(expr, steps)| match steps {
        None => expr.clone(),
        Some(steps) => steps.partial.clone(),
    });
    let below = Aggregate::try_new(
        Arc::clone(&aggregate.input),
        aggregate.group_expr.clone(),
        partials.collect(),
    )?;
    let projection = Projection::try_new(answers, Arc::new(LogicalPlan::Aggregate(below)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

/// A call that may have no answer, computed in two steps.
struct Steps {
    /// The partial in the place of the call, under the same name.
    partial: Expr,
    function: AggregateFunction,
    output: FieldType,
}

fn has_no_answer_for_some(function: AggregateFunction) -> bool {
    function == AggregateFunction::Distinct || function.needs_one_series()
}

fn in_steps(expr: &Expr, input: &DFSchema) -> Result<Option<Steps>> {
    let Expr::AggregateFunction(Call { func, params }) = expr.clone().unalias() else {
        return Ok(None);
    };
    let function = match func.name() {
        SUM if !params.distinct => AggregateFunction::Sum,
        name => match by_name(name).filter(|function| has_no_answer_for_some(*function)) {
            Some(function) => function,
            None => return Ok(None),
        },
    };
    let output = match (function.fixed_output_type(), expr.get_type(input)?) {
        (Some(output), _) => output,
        (None, DataType::Int64) => FieldType::Integer,
        (None, DataType::UInt64) => FieldType::Unsigned,
        _ => return Ok(None),
    };
    let func = partial_udaf(function.name(), function);
    let partial = Expr::AggregateFunction(Call { func, params });
    let (relation, name) = expr.qualified_name();
    Ok(Some(Steps { partial: partial.alias_qualified(relation, name), function, output }))
}

fn finished(column: &Column, steps: &Steps, groups: &[Column]) -> Expr {
    let labels = groups.iter().filter(|group| group.name != Aggregate::INTERNAL_GROUPING_ID);
    let partial = std::iter::once(column).chain(labels).cloned().map(Expr::Column).collect();
    let finish = finish_udf(steps.function.name(), steps.function, Some(steps.output));
    finish.call(partial).alias_qualified(column.relation.clone(), &column.name)
}
