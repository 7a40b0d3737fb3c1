//! The plan that answers a question from an aggregate.

use std::sync::Arc;

use datafusion::arrow::datatypes::Field;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ident};

use highwater_core::FieldType;

use super::choose::Answer;
use super::decide::Source;
use super::question::Question;
use crate::definition::Resolved;
use crate::error::AggregationError;
use crate::exact::{Reader, Wanted};
use crate::functions;

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
    let calls = || question.calls.iter().zip(question.call_names());
    let merges: Vec<Expr> = calls()
        .zip(&answer.answering.sources)
        .map(|((call, name), source)| {
            call.function.merge_of(partial(source, &answer.resolved)).alias(name)
        })
        .collect();
    let merged = rows.aggregate(groups, merges)?;
    let labels: Vec<Expr> = question.group_names().iter().map(ident).collect();
    let answers = calls().map(|(call, name)| {
        let result = FieldType::of_arrow(&call.output).unwrap_or(FieldType::Float);
        call.function.finish_expr(name, result, labels.clone()).alias(name)
    });
    let columns: Vec<Expr> = labels.iter().cloned().chain(answers).collect();
    Ok(merged.project(columns)?.build()?)
}

/// The partials that give a call, in a row of partials.
fn partial(source: &Source, resolved: &Resolved) -> Expr {
    let column = |at: usize| ident(&*resolved.outputs[at].name);
    match *source {
        Source::Output(at) => column(at),
        Source::SumAndCount(sum, count) => {
            let values = resolved.outputs[sum].input.unwrap_or(FieldType::Float);
            functions::mean_of(column(sum), column(count), values)
        }
        Source::SumOfMean(mean) => functions::sum_of_mean(column(mean)),
        Source::CountOfMean(mean) => functions::count_of_mean(column(mean)),
    }
}

/// Rows of partials of all points that the question is about.
fn rows(reader: &Reader, answer: &Answer) -> Result<LogicalPlan, AggregationError> {
    let outputs = answer.answering.outputs();
    let (aggregate, resolved) = (&answer.aggregate, &answer.resolved);
    let whole =
        reader.partials(aggregate, resolved, &outputs, &Wanted::at(answer.whole.clone()))?;
    let whole = described(whole, resolved)?;
    if answer.ragged.is_empty() {
        return Ok(whole.build()?);
    }
    let ragged = reader.partials_of_points(aggregate, resolved, &outputs, answer.ragged.clone())?;
    Ok(whole.union(described(ragged, resolved)?.build()?)?.build()?)
}

/// The same rows, whose partials say what they are.
fn described(
    rows: LogicalPlan,
    resolved: &Resolved,
) -> Result<LogicalPlanBuilder, AggregationError> {
    let column = |field: &Arc<Field>| {
        let output = resolved.outputs.iter().find(|output| *output.name == **field.name());
        let column = ident(field.name());
        let column = match output {
            None => column,
            Some(one) => functions::described(column, one.function.partial_function(), one.input),
        };
        column.alias(field.name())
    };
    let columns: Vec<Expr> = rows.schema().fields().iter().map(column).collect();
    Ok(LogicalPlanBuilder::new(rows).project(columns)?)
}
