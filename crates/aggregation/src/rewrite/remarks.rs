//! What became of the questions of a plan, in words.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use highwater_query::{QueryError, Rewrite};

use super::reason::Reason;
use super::rule::AnswerFromAggregates;
use super::table::AnswerTable;
use crate::error::AggregationError;

/// What became of every question in an optimized plan: which aggregate answers it, and why others
/// do not. A line each.
///
/// # Errors
/// The same if all have to be answered from aggregates, and one is not.
pub(crate) fn remarks(
    rule: &AnswerFromAggregates,
    optimized: &LogicalPlan,
    rewrite: Rewrite,
) -> Result<Vec<String>, QueryError> {
    let mut remarks = Vec::new();
    let mut failed: Option<AggregationError> = None;
    let mut unanswered = None;
    optimized.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                if let Some(table) = provider.downcast_ref::<AnswerTable>() {
                    let AnswerTable { measurement, aggregate, others, .. } = table;
                    remarks.push(format!("{measurement}: answered from {aggregate}"));
                    remarks.extend(others.iter().map(|other| line(measurement, other)));
                }
            }
            LogicalPlan::Aggregate(aggregate) => match rule.look_at(aggregate) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    let own = found.choice.others.iter();
                    let own: Vec<String> = own.map(|one| line(&found.measurement, one)).collect();
                    unanswered.get_or_insert_with(|| (found.measurement, own.clone()));
                    remarks.extend(own);
                }
                Err(error) => failed = Some(error),
            },
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    match unanswered {
        Some((measurement, reasons)) if rewrite == Rewrite::Require => {
            Err(QueryError::Invalid(format!(
                "no aggregate answers this query on {measurement}, as rewrite=require asks: {}; \
                 leave rewrite out to read the points",
                reasons.join("; ")
            )))
        }
        _ => Ok(remarks),
    }
}

fn line(measurement: &str, (aggregate, reason): &(std::sync::Arc<str>, Reason)) -> String {
    format!("{measurement}: not from {aggregate}, {reason}")
}
