//! Correlated aggregates whose correlated predicate computes with a column of the inner query.
//!
//! DataFusion turns `(SELECT sum(x) FROM t WHERE CAST(t.time AS DATE) = d.date)` into a join on
//! groups of the raw column, one per distinct time, and silently answers wrongly. Until it
//! does not, such a query is an error that says how to write it. A tag that is compared with text
//! is cast without anybody asking for it, so there the rule itself names the cast first.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Cast, Expr, ExprSchemable, Filter, LogicalPlan, Projection,
};
use datafusion::optimizer::AnalyzerRule;

use crate::error::QueryError;

/// The rule; see the module. Runs last, when implicit casts are there too.
#[derive(Debug, Default)]
pub(crate) struct CorrelatedAggregates;

impl AnalyzerRule for CorrelatedAggregates {
    fn name(&self) -> &str {
        "correlated_aggregates"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Filter(filter) = node {
                found |= split_conjunction(&filter.predicate).into_iter().any(computes);
            }
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !found {
            return Ok(plan);
        }
        Ok(plan.transform_up_with_subqueries(rewrite)?.data)
    }
}

fn rewrite(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(aggregate) = node else { return Ok(Transformed::no(node)) };
    let Aggregate { input, group_expr, aggr_expr, .. } = aggregate;
    let input = below_aggregate(Arc::unwrap_or_clone(input))?;
    let aggregate = Aggregate::try_new(Arc::new(input), group_expr, aggr_expr)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// The plan with a name for every tag that is correlated by its text.
fn below_aggregate(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = match plan {
        // What is above another aggregate has been looked at there.
        LogicalPlan::Aggregate(_) => return Ok(plan),
        LogicalPlan::Filter(filter) => name_casts(filter)?,
        other => other,
    };
    plan.map_children(|input| below_aggregate(input).map(Transformed::yes))?.data.recompute_schema()
}

/// The filter over a projection that has the casts of its correlated predicates as columns.
fn name_casts(filter: Filter) -> Result<LogicalPlan> {
    let Filter { predicate, input, .. } = filter;
    let mut named: Vec<Expr> = Vec::new();
    let mut predicates = Vec::new();
    for predicate in split_conjunction(&predicate) {
        let Some((inner, outer)) = sides(predicate) else {
            predicates.push(predicate.clone());
            continue;
        };
        if !is_text_of_tag(inner, &input) {
            return Err(QueryError::unsupported_but(
                "a correlated aggregate whose condition computes with a column of the inner query",
                "select the expression under a name first, as in FROM (SELECT CAST(time AS DATE) \
                 AS day, .. FROM m) x WHERE x.day = d.date",
            )
            .into());
        }
        let name = format!("__text_{}", named.len());
        named.push(inner.clone().alias(&name));
        predicates.push(Expr::Column(Column::new_unqualified(name)).eq(outer.clone()));
    }
    let input = match named.is_empty() {
        true => input,
        false => {
            let columns = input.schema().columns().into_iter().map(Expr::Column);
            let columns = columns.chain(named).collect();
            Arc::new(LogicalPlan::Projection(Projection::try_new(columns, input)?))
        }
    };
    match conjunction(predicates) {
        Some(predicate) => Ok(LogicalPlan::Filter(Filter::try_new(predicate, input)?)),
        None => Ok(Arc::unwrap_or_clone(input)),
    }
}

fn computes(predicate: &Expr) -> bool {
    sides(predicate).is_some()
}

/// The sides of `f(inner) op outer`, either way round. DataFusion sees through casts, and
/// functions may turn out to be casts, so only a plain column is known to be right.
fn sides(predicate: &Expr) -> Option<(&Expr, &Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, right, .. }) = predicate else { return None };
    let computes = |inner: &Expr, outer: &Expr| {
        let is_inner = !inner.contains_outer() && inner.any_column_refs();
        outer.contains_outer() && is_inner && !matches!(inner, Expr::Column(_))
    };
    if computes(left, right) {
        Some((left, right))
    } else {
        computes(right, left).then_some((right, left))
    }
}

/// Whether this is a column of a dictionary type cast to text, as comparing a tag with text does.
fn is_text_of_tag(expr: &Expr, input: &LogicalPlan) -> bool {
    let Expr::Cast(Cast { expr, field, .. }) = expr else { return false };
    let is_dictionary =
        expr.get_type(input.schema()).is_ok_and(|own| matches!(own, DataType::Dictionary(..)));
    is_dictionary && matches!(**expr, Expr::Column(_)) && field.data_type().is_string()
}
