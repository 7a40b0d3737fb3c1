//! Lets an overflowing `sum` of integers say in which group.
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
use super::function::AggregateFunction;
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
    let sums: Vec<Option<(Expr, FieldType)>> =
        aggregate.aggr_expr.iter().map(|expr| as_partial(expr, &input)).collect::<Result<_>>()?;
    if sums.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let columns: Vec<Column> = aggregate.schema.columns();
    let answers = columns.iter().enumerate().map(|(index, column)| {
        let sum = index.checked_sub(groups).and_then(|index| sums[index].as_ref());
        match sum {
            None => Expr::Column(column.clone()),
            Some((_, output)) => finished(column, *output, &columns[..groups]),
        }
    });
    let answers = answers.collect();
    let partials = aggregate.aggr_expr.iter().zip(&sums).map(|(expr, sum)| match sum {
        None => expr.clone(),
        Some((partial, _)) => partial.clone(),
    });
    let below = Aggregate::try_new(
        Arc::clone(&aggregate.input),
        aggregate.group_expr.clone(),
        partials.collect(),
    )?;
    let projection = Projection::try_new(answers, Arc::new(LogicalPlan::Aggregate(below)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

/// The partial in the place of an integer sum, under the same name; and the type of the answer.
fn as_partial(expr: &Expr, input: &DFSchema) -> Result<Option<(Expr, FieldType)>> {
    let Expr::AggregateFunction(Call { func, params }) = expr.clone().unalias() else {
        return Ok(None);
    };
    if func.name() != SUM || params.distinct {
        return Ok(None);
    }
    let output = match expr.get_type(input)? {
        DataType::Int64 => FieldType::Integer,
        DataType::UInt64 => FieldType::Unsigned,
        _ => return Ok(None),
    };
    let func = partial_udaf("sum", AggregateFunction::Sum);
    let partial = Expr::AggregateFunction(Call { func, params });
    let (relation, name) = expr.qualified_name();
    Ok(Some((partial.alias_qualified(relation, name), output)))
}

fn finished(column: &Column, output: FieldType, groups: &[Column]) -> Expr {
    let labels = groups.iter().filter(|group| group.name != Aggregate::INTERNAL_GROUPING_ID);
    let sum = std::iter::once(column).chain(labels).cloned().map(Expr::Column).collect();
    let answer = finish_udf("sum", AggregateFunction::Sum, Some(output)).call(sum);
    answer.alias_qualified(column.relation.clone(), &column.name)
}
