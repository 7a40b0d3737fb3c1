//! `GROUP BY time_bucket_gapfill(width, time)` becomes `GROUP BY time_bucket(width, time)` and a
//! [`GapFill`] that adds the empty buckets of the range of time that WHERE asks for.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Aggregate, Expr, Extension, LogicalPlan, Projection, ScalarUDF, UserDefinedLogicalNodeCore, col,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Bucket, Schema, TimeRange, TimeRanges};

use crate::error::QueryError;
use crate::functions::gapfill::{GAPFILL, INTERPOLATE, LOCF};
use crate::functions::time_bucket::{TimeBucket, bucket_of_arguments};
use crate::pushdown::prune;

/// The greatest number of buckets that one group is filled with.
const MAX_BUCKETS: usize = 1_000_000;

/// How a column continues in gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fill {
    /// The value of the last bucket that is not empty.
    LastValue,
    /// On the line between the neighbours that are not empty.
    Line,
}

/// Adds a row for every empty bucket of every group.
///
/// Columns: those of the input, then one per entry of `fills`. Columns of the group repeat in
/// added rows, all others are NULL there. Sorted by group, then time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GapFill {
    input: LogicalPlan,
    /// Position of the bucket column.
    pub(crate) time: usize,
    /// Columns up to here belong to the group, one of them is the bucket.
    pub(crate) group_columns: usize,
    pub(crate) bucket: Bucket,
    pub(crate) range: TimeRange,
    /// Column to continue, and how.
    pub(crate) fills: Vec<(usize, Fill)>,
    schema: DFSchemaRef,
}

impl PartialOrd for GapFill {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.input, self.time, &self.fills).partial_cmp(&(&other.input, other.time, &other.fills))
    }
}

impl GapFill {
    fn try_new(
        input: LogicalPlan,
        time: usize,
        group_columns: usize,
        bucket: Bucket,
        range: TimeRange,
    ) -> Result<Self> {
        let fields = input.schema().iter().enumerate().map(|(i, (qualifier, field))| {
            let field = field.as_ref().clone();
            let is_filled = i >= group_columns;
            let nullable = is_filled || field.is_nullable();
            (qualifier.cloned(), Arc::new(field.with_nullable(nullable)))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), Default::default())?;
        let schema = Arc::new(schema);
        Ok(GapFill { input, time, group_columns, bucket, range, fills: Vec::new(), schema })
    }

    /// The column that continues `column` in gaps; added if it is not there yet.
    fn filled(&mut self, name: String, column: usize, fill: Fill) -> Result<Expr> {
        if !self.fills.contains(&(column, fill)) {
            let data_type = match fill {
                Fill::LastValue => self.schema.field(column).data_type().clone(),
                Fill::Line => DataType::Float64,
            };
            let added = (None, Arc::new(Field::new(&name, data_type, true)));
            let fields = self.schema.iter().map(|(q, f)| (q.cloned(), Arc::clone(f)));
            let fields = fields.chain([added]).collect();
            self.schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
            self.fills.push((column, fill));
        }
        Ok(Expr::Column(Column::new_unqualified(name)))
    }
}

impl UserDefinedLogicalNodeCore for GapFill {
    fn name(&self) -> &str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GapFill: every {} of {}", self.bucket, self.range)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let input = inputs.pop().unwrap_or_else(|| self.input.clone());
        Ok(GapFill { input, ..self.clone() })
    }
}

/// The rule; see the module.
#[derive(Debug, Default)]
pub(crate) struct FillGaps;

impl OptimizerRule for FillGaps {
    fn name(&self) -> &str {
        "fill_gaps"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Aggregate(aggregate) = node {
                found |= gapfill_call(&aggregate.group_expr)?.is_some();
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !found {
            return Ok(Transformed::no(plan));
        }
        plan.transform_up_with_subqueries(|node| rewrite_node(node, config))
    }
}

fn rewrite_node(
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => match gapfill_call(&aggregate.group_expr)? {
            Some(position) => Ok(Transformed::yes(extension(fill(aggregate, position, config)?))),
            None => LogicalPlan::Aggregate(aggregate).recompute_schema().map(Transformed::yes),
        },
        LogicalPlan::Projection(projection) => continue_columns(projection),
        // Whether columns can be NULL has changed below.
        other => other.recompute_schema().map(Transformed::yes),
    }
}

fn extension(node: GapFill) -> LogicalPlan {
    LogicalPlan::Extension(Extension { node: Arc::new(node) })
}

fn call<'a>(expr: &'a Expr, name: &str) -> Option<&'a ScalarFunction> {
    match expr {
        Expr::ScalarFunction(function) if function.name() == name => Some(function),
        _ => None,
    }
}

/// Position of the call in GROUP BY.
fn gapfill_call(group: &[Expr]) -> Result<Option<usize>> {
    let mut positions = group
        .iter()
        .enumerate()
        .filter_map(|(i, expr)| call(expr.unalias_nested_ref(), GAPFILL).map(|_| i));
    let first = positions.next();
    match positions.next() {
        Some(_) => Err(QueryError::unsupported(format!("more than one {GAPFILL}")).into()),
        None => Ok(first),
    }
}

trait Unalias {
    fn unalias_nested_ref(&self) -> &Expr;
}

impl Unalias for Expr {
    fn unalias_nested_ref(&self) -> &Expr {
        match self {
            Expr::Alias(alias) => alias.expr.unalias_nested_ref(),
            other => other,
        }
    }
}

/// The same aggregate by `time_bucket`, below a node that fills gaps.
fn fill(aggregate: Aggregate, time: usize, config: &dyn OptimizerConfig) -> Result<GapFill> {
    let Aggregate { input, mut group_expr, aggr_expr, .. } = aggregate;
    let name = group_expr[time].schema_name().to_string();
    let arguments = match call(group_expr[time].unalias_nested_ref(), GAPFILL) {
        Some(function) => function.args.clone(),
        None => Vec::new(),
    };
    let simplifier = simplifier(input.schema(), config);
    let arguments =
        arguments.into_iter().map(|arg| simplifier.simplify(arg)).collect::<Result<Vec<_>>>()?;
    let Some(bucket) = bucket_of_arguments(&arguments)? else {
        return Err(QueryError::Invalid(format!("the width of {GAPFILL} must be constant")).into());
    };
    let range = range_of(&arguments[1], &input, config)?;
    if bucket.iter(range).nth(MAX_BUCKETS).is_some() {
        let message = format!("{GAPFILL} of more than {MAX_BUCKETS} buckets; ask for less time");
        return Err(QueryError::Invalid(message).into());
    }
    let bucket_udf = Arc::new(ScalarUDF::from(TimeBucket::default()));
    let rounded = Expr::ScalarFunction(ScalarFunction::new_udf(bucket_udf, arguments));
    group_expr[time] = rounded.alias(name);
    let group_columns = group_expr.len();
    let grouped = LogicalPlan::Aggregate(Aggregate::try_new(input, group_expr, aggr_expr)?);
    GapFill::try_new(grouped, time, group_columns, bucket, range)
}

fn simplifier(schema: &DFSchemaRef, config: &dyn OptimizerConfig) -> ExprSimplifier {
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(schema))
        .with_config_options(config.options())
        .with_query_execution_start_time(config.query_execution_start_time())
        .build();
    ExprSimplifier::new(context)
}

/// The range of time that the filters below ask for.
fn range_of(time: &Expr, input: &LogicalPlan, config: &dyn OptimizerConfig) -> Result<TimeRange> {
    let unbounded = || {
        QueryError::Invalid(format!(
            "{GAPFILL} needs a bounded range of time: add WHERE time >= '..' AND time < '..'"
        ))
    };
    let Expr::Column(column) = time else { return Err(unbounded().into()) };
    let times = times_below(column, input, config)?;
    let hull = times.hull().unwrap_or(TimeRange::new(TimeRange::ALL.start, TimeRange::ALL.start));
    let is_bounded = hull.start > TimeRange::ALL.start && hull.end < TimeRange::ALL.end;
    if is_bounded || times.is_empty() { Ok(hull) } else { Err(unbounded().into()) }
}

/// What all filters between here and the scan say about `column`.
fn times_below(
    column: &Column,
    plan: &LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<TimeRanges> {
    match plan {
        LogicalPlan::Filter(filter) => {
            let predicate =
                simplifier(filter.input.schema(), config).simplify(filter.predicate.clone())?;
            let own = prune(&as_time(predicate, column)?, &Schema::default()).times;
            Ok(own.intersect(&times_below(column, &filter.input, config)?))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let inner = alias.schema.index_of_column(column)?;
            let inner = Column::from(alias.input.schema().qualified_field(inner));
            times_below(&inner, &alias.input, config)
        }
        LogicalPlan::Projection(projection) => {
            let position = projection.schema.index_of_column(column)?;
            match projection.expr[position].unalias_nested_ref() {
                Expr::Column(inner) => times_below(inner, &projection.input, config),
                _ => Ok(TimeRanges::all()),
            }
        }
        LogicalPlan::TableScan(scan) => {
            scan.filters.iter().try_fold(TimeRanges::all(), |all, filter| {
                let own = prune(&as_time(filter.clone(), column)?, &Schema::default()).times;
                Ok(all.intersect(&own))
            })
        }
        _ => Ok(TimeRanges::all()),
    }
}

/// The predicate with `column` called `time`, and nothing else called so.
fn as_time(predicate: Expr, column: &Column) -> Result<Expr> {
    let renamed = predicate.transform(|expr| {
        Ok(match expr {
            Expr::Column(own) if own.name == column.name => Transformed::yes(col(TIME_COLUMN)),
            Expr::Column(own) if own.name == TIME_COLUMN => Transformed::yes(col("other time")),
            other => Transformed::no(other),
        })
    })?;
    Ok(renamed.data)
}

/// Replaces `locf(x)` and `interpolate(x)` above a [`GapFill`] by the column it continues.
fn continue_columns(projection: Projection) -> Result<Transformed<LogicalPlan>> {
    let node = match projection.input.as_ref() {
        LogicalPlan::Extension(Extension { node }) => node.as_any().downcast_ref::<GapFill>(),
        _ => None,
    };
    let Some(node) = node else {
        return LogicalPlan::Projection(projection).recompute_schema().map(Transformed::yes);
    };
    let mut node = node.clone();
    let mut exprs = Vec::with_capacity(projection.expr.len());
    for expr in &projection.expr {
        let name = expr.schema_name().to_string();
        let replaced = expr.clone().transform_up(|expr| replace_fill(expr, &mut node))?;
        let kept = matches!(&replaced.data, Expr::Alias(_)) || !replaced.transformed;
        exprs.push(if kept { replaced.data } else { replaced.data.alias(name) });
    }
    let plan = Projection::try_new(exprs, Arc::new(extension(node)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(plan)))
}

fn replace_fill(expr: Expr, node: &mut GapFill) -> Result<Transformed<Expr>> {
    let kinds = [(LOCF, Fill::LastValue), (INTERPOLATE, Fill::Line)];
    let Some((argument, fill)) = kinds
        .iter()
        .find_map(|(name, fill)| Some((call(&expr, name)?.args.first()?.clone(), *fill)))
    else {
        return Ok(Transformed::no(expr));
    };
    // Numbers are cast for `interpolate`, which casts by itself.
    let column = match argument.unalias_nested_ref() {
        Expr::Cast(cast) if fill == Fill::Line => cast.expr.unalias_nested_ref(),
        other => other,
    };
    let position = match column {
        Expr::Column(column) => node.schema.maybe_index_of_column(column),
        _ => None,
    };
    match position {
        Some(position) if position >= node.group_columns => {
            let name = expr.schema_name().to_string();
            Ok(Transformed::new(node.filled(name, position, fill)?, true, TreeNodeRecursion::Jump))
        }
        _ => Ok(Transformed::no(expr)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_column_counts_as_time() {
        let predicate = col("at").gt(col("time"));
        let renamed = as_time(predicate, &Column::from_name("at")).unwrap();
        assert_eq!(renamed, col("time").gt(col("other time")));
    }
}
