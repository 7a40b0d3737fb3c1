//! The plan that answers a question from an aggregate.

use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ident};

use super::choose::Answer;
use super::question::Question;
use crate::error::AggregationError;
use crate::exact::{Reader, Wanted};

/// Columns: the groups and the calls of the question, under its names.
pub(super) fn plan(
    reader: &Reader,
    answer: &Answer,
    question: &Question,
) -> Result<LogicalPlan, AggregationError> {
    let rows = LogicalPlanBuilder::new(rows(reader, answer)?);
    let rows = match conjunction(answer.answering.conditions.iter().cloned()) {
        Some(condition) => rows.filter(condition)?,
        None => rows,
    };
    let named = |(expr, name): (&Expr, &String)| expr.clone().alias(name);
    let groups: Vec<Expr> = question.groups.iter().zip(question.group_names()).map(named).collect();
    let outputs = answer.answering.outputs.iter().map(|&at| &answer.resolved.outputs[at]);
    let calls = || question.calls.iter().zip(question.call_names()).zip(outputs.clone());
    let merges: Vec<Expr> = calls()
        .map(|((call, name), output)| call.function.merge_expr(&output.name).alias(name))
        .collect();
    let merged = rows.aggregate(groups, merges)?;
    let labels: Vec<Expr> = question.group_names().iter().map(ident).collect();
    let answers = calls().map(|((call, name), output)| {
        let result = call.function.output_type(output.input);
        call.function.finish_expr(name, result, labels.clone()).alias(name)
    });
    let columns: Vec<Expr> = labels.iter().cloned().chain(answers).collect();
    Ok(merged.project(columns)?.build()?)
}

/// Rows of partials of all points that the question is about.
fn rows(reader: &Reader, answer: &Answer) -> Result<LogicalPlan, AggregationError> {
    let mut outputs = answer.answering.outputs.clone();
    outputs.sort_unstable();
    outputs.dedup();
    let (aggregate, resolved) = (&answer.aggregate, &answer.resolved);
    let whole =
        reader.partials(aggregate, resolved, &outputs, &Wanted::at(answer.whole.clone()))?;
    if answer.ragged.is_empty() {
        return Ok(whole);
    }
    let ragged = reader.from_points(aggregate, resolved, &outputs, answer.ragged.clone())?;
    Ok(LogicalPlanBuilder::new(whole).union(ragged)?.build()?)
}
