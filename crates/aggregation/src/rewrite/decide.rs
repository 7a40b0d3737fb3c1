//! Whether an aggregate answers a question, whatever is stored of it.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;

use super::question::{Call, Question};
use super::reason::Reason;
use super::rounding::{is_time, rounding};
use crate::definition::{AggregateFunction, Definition, GroupColumn, Output, Resolved};

/// An aggregate as a question sees it.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    /// What it computes.
    pub(super) definition: &'a Definition,
    /// Its groups and outputs.
    pub(super) resolved: &'a Resolved,
    /// What all of its points meet, over the columns of the measurement: its own condition and
    /// those of the aggregates it is made of.
    pub(super) conditions: &'a [Expr],
}

/// How an aggregate answers a question.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answering {
    /// What gives each call.
    pub(super) sources: Vec<Source>,
    /// The conditions that its groups have to meet; the others all of its points meet.
    pub(super) conditions: Vec<Expr>,
}

/// The outputs whose partials give a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// One that has them.
    Output(usize),
    /// A sum and a count of the same values, together a mean.
    SumAndCount(usize, usize),
    /// A mean, which holds the sum of floats.
    SumOfMean(usize),
    /// A mean, which holds the count.
    CountOfMean(usize),
}

impl Source {
    /// The outputs.
    pub(super) fn outputs(self) -> impl Iterator<Item = usize> {
        let (one, other) = match self {
            Source::SumAndCount(sum, count) => (sum, Some(count)),
            Source::Output(at) | Source::SumOfMean(at) | Source::CountOfMean(at) => (at, None),
        };
        std::iter::once(one).chain(other)
    }
}

impl Answering {
    /// The outputs that are read, ascending.
    pub(super) fn outputs(&self) -> Vec<usize> {
        let outputs: BTreeSet<usize> =
            self.sources.iter().flat_map(|source| source.outputs()).collect();
        outputs.into_iter().collect()
    }
}

/// How the aggregate answers the question.
///
/// # Errors
/// Why it does not.
pub(super) fn decide(question: &Question, candidate: &Candidate<'_>) -> Result<Answering, Reason> {
    if let Some(column) = &candidate.definition.time_column {
        return Err(Reason::TimeColumn(column.clone()));
    }
    question.groups.iter().try_for_each(|group| candidate.tells_apart(group))?;
    let missing = candidate.conditions.iter().find(|own| !question.conditions.contains(own));
    if let Some(missing) = missing {
        return Err(Reason::Narrower { condition: missing.human_display().to_string() });
    }
    let is_met = |condition: &&Expr| candidate.conditions.contains(condition);
    let conditions: Vec<Expr> =
        question.conditions.iter().filter(|condition| !is_met(condition)).cloned().collect();
    conditions.iter().try_for_each(|condition| candidate.tells_apart(condition))?;
    let sources = question.calls.iter().map(|call| candidate.source_for(call, question));
    Ok(Answering { sources: sources.collect::<Result<_, _>>()?, conditions })
}

impl Candidate<'_> {
    /// Whether an expression has the same value for all points of a row of partials: it is one of
    /// group columns and of roundings of the time to no finer buckets.
    fn tells_apart(&self, expr: &Expr) -> Result<(), Reason> {
        let mut found = Ok(());
        let whole = || expr.human_display().to_string();
        let walked = expr.apply(|part| {
            found = match part {
                rounded if rounding(rounded).is_some() => {
                    let lies_within = rounding(rounded)
                        .is_some_and(|bucket| self.definition.pieces.refine(bucket));
                    if lies_within {
                        return Ok(TreeNodeRecursion::Jump);
                    }
                    Err(Reason::Boundaries { expr: rounded.human_display().to_string() })
                }
                time if is_time(time) => Err(Reason::SingleTimes { expr: whole() }),
                Expr::Column(column) if !self.groups_by(&column.name) => {
                    Err(Reason::NotAGroup { column: column.name.clone(), expr: whole() })
                }
                other if is_unsteady(other) => Err(Reason::Unsteady { expr: whole() }),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            Ok(TreeNodeRecursion::Stop)
        });
        walked?;
        found
    }

    fn groups_by(&self, column: &str) -> bool {
        let mut groups = self.resolved.groups.iter();
        groups.any(|group| group.is_known && *group.name == *column)
    }

    /// What gives the answer of a call.
    fn source_for(&self, call: &Call, question: &Question) -> Result<Source, Reason> {
        let function = call.function;
        let text = || call.text.clone();
        let source = self.own(call).or_else(|| self.derived(call));
        let source = source.ok_or_else(|| Reason::NotKept { call: text() })?;
        let is_asked = |group: &GroupColumn| {
            let is_it = |expr: &Expr| matches!(expr, Expr::Column(own) if *own.name == *group.name);
            question.groups.iter().any(is_it)
        };
        match !function.needs_one_series() || self.resolved.groups.iter().all(is_asked) {
            true => Ok(source),
            false => Err(Reason::NeedsAllGroups { call: text() }),
        }
    }

    /// The output with the partials of the call itself.
    fn own(&self, call: &Call) -> Option<Source> {
        let gives =
            |output: &Output| call.function.output_type(output.input).arrow() == call.output;
        let at = self.output(call, |kept| call.function.reads_partials_of(kept))?;
        gives(&self.resolved.outputs[at]).then_some(Source::Output(at))
    }

    /// Outputs of other functions of the same values that give the partials too.
    fn derived(&self, call: &Call) -> Option<Source> {
        let kept = |function| self.output(call, |kept| kept == function);
        let mean = || kept(AggregateFunction::Mean);
        match call.function {
            AggregateFunction::Mean => Some(Source::SumAndCount(
                kept(AggregateFunction::Sum)?,
                kept(AggregateFunction::CountField)?,
            )),
            AggregateFunction::CountField => mean().map(Source::CountOfMean),
            AggregateFunction::Sum if call.output == DataType::Float64 => {
                mean().map(Source::SumOfMean)
            }
            _ => None,
        }
    }

    /// The output of a function that will do, over the values of a call.
    fn output(&self, call: &Call, will_do: impl Fn(AggregateFunction) -> bool) -> Option<usize> {
        let mut outputs = self.resolved.outputs.iter();
        outputs.position(|output| {
            output.is_known && output.field == call.column && will_do(output.function)
        })
    }
}

/// Whether a part of an expression goes by more than the columns of one row.
fn is_unsteady(part: &Expr) -> bool {
    match part {
        Expr::AggregateFunction(_)
        | Expr::WindowFunction(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_)
        | Expr::ScalarSubquery(_)
        | Expr::SetComparison(_)
        | Expr::OuterReferenceColumn(..)
        | Expr::Placeholder(_) => true,
        other => other.is_volatile_node(),
    }
}
