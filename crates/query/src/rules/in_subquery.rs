//! `IN (SELECT ..)` where it matters whether it is false or unknown.
//!
//! DataFusion marks the rows that match, so a comparison with NULL comes out false instead of
//! unknown. As a condition of its own, `NOT IN` included, or below nothing but AND and OR that
//! makes no difference; anywhere else it would silently answer wrongly, so there it is an error.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use crate::error::QueryError;

/// The rule; see the module.
#[derive(Debug, Default)]
pub(crate) struct InSubqueries;

impl AnalyzerRule for InSubqueries {
    fn name(&self) -> &str {
        "in_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut is_sound = true;
        plan.apply_with_subqueries(|node| {
            is_sound &= match node {
                LogicalPlan::Filter(filter) => {
                    split_conjunction(&filter.predicate).into_iter().all(is_sound_condition)
                }
                other => other.expressions().iter().all(|expr| !contains(expr)),
            };
            Ok(if is_sound { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })?;
        match is_sound {
            true => Ok(plan),
            false => Err(QueryError::unsupported_but(
                "IN (SELECT ..) inside of NOT, of another expression, or NOT IN inside of OR",
                "use EXISTS or NOT EXISTS, or make it a condition of its own",
            )
            .into()),
        }
    }
}

/// A condition joined to others with AND.
fn is_sound_condition(condition: &Expr) -> bool {
    match condition {
        Expr::InSubquery(in_subquery) => !contains(&in_subquery.expr),
        other => is_sound_alternative(other),
    }
}

/// Below AND and OR, unknown and false are the same to a filter.
fn is_sound_alternative(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            is_sound_alternative(left) && is_sound_alternative(right)
        }
        Expr::InSubquery(in_subquery) => !in_subquery.negated && !contains(&in_subquery.expr),
        other => !contains(other),
    }
}

fn contains(expr: &Expr) -> bool {
    // Looking for something cannot fail.
    expr.exists(|inner| Ok(matches!(inner, Expr::InSubquery(_)))).unwrap_or(true)
}
