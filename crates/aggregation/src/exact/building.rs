//! The steps that plans of exact reads are put together from.

use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ident};
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Column, TimeRange, Timestamp};

use super::PIECE;
use crate::catalog::Aggregate;
use crate::definition::{Output, Resolved};
use crate::error::AggregationError;
use crate::materialization::{BUCKET, is_partial, key_names, rows_schema};
use crate::pieces::Pieces;
use crate::starts::{Grid, start_expr};

/// Partials of points.
pub(super) fn aggregated(output: &Output) -> Expr {
    output.function.partial_expr(output.field.as_deref()).alias(&*output.name)
}

/// Partials of the parent's partials.
pub(super) fn merged(output: &Output) -> Expr {
    let partial = output.merges.as_deref().unwrap_or(&output.name);
    output.function.merge_expr(partial).alias(&*output.name)
}

/// Partials of the aggregate's own partials.
fn merged_again(output: &Output) -> Expr {
    output.function.merge_expr(&output.name).alias(&*output.name)
}

/// The value of an output, from its partial.
pub(super) fn finished(output: &Output, labels: &[Expr]) -> Expr {
    output.function.finish_expr(&output.name, output.result, labels.to_vec())
}

/// Adds the start of the piece and, for a `time_column`, of its bucket; rows without that time
/// are left out.
pub(super) fn with_starts(
    source: LogicalPlanBuilder,
    aggregate: &Aggregate,
) -> Result<LogicalPlanBuilder, AggregationError> {
    let definition = &aggregate.definition;
    let piece = start_expr(definition.pieces, Grid::Piece, ident(TIME_COLUMN)).alias(PIECE);
    match (&definition.time_column, definition.bucket) {
        (Some(column), Some(bucket)) if definition.parent().is_none() => {
            let buckets = Pieces::of(Some(bucket));
            let start = start_expr(buckets, Grid::Bucket, ident(&**column)).alias(BUCKET);
            let source = source.filter(ident(&**column).is_not_null())?;
            with_columns(source, vec![piece, start])
        }
        _ => with_columns(source, vec![piece]),
    }
}

/// `time` from `start`, the keys, the outputs: the order of [`rows_schema`].
pub(super) fn in_order(
    grouped: LogicalPlanBuilder,
    start: &str,
    aggregate: &Aggregate,
    resolved: &Resolved,
    outputs: &[usize],
) -> Result<LogicalPlan, AggregationError> {
    let time = ident(start).alias(TIME_COLUMN);
    let (tags, fields): (Vec<_>, Vec<_>) = rows_schema(aggregate, resolved)
        .columns()
        .filter(|column| !is_partial(column))
        .partition(Column::is_tag);
    let keys = tags.iter().chain(&fields).map(|column| ident(&*column.name).alias(&*column.name));
    let outputs = outputs.iter().map(|&at| {
        let name = &*resolved.outputs[at].name;
        ident(name).alias(name)
    });
    let columns: Vec<Expr> = std::iter::once(time).chain(keys).chain(outputs).collect();
    Ok(grouped.project(columns)?.build()?)
}

/// Joins the pieces of each bucket, where buckets have several.
pub(super) fn merged_per_bucket(
    aggregate: &Aggregate,
    partials: LogicalPlan,
    resolved: &Resolved,
    outputs: &[usize],
) -> Result<LogicalPlanBuilder, AggregationError> {
    let definition = &aggregate.definition;
    let partials = LogicalPlanBuilder::new(partials);
    if definition.pieces.are_buckets() {
        return Ok(partials);
    }
    let bucket = match (&definition.time_column, definition.bucket) {
        (_, None) => None,
        (Some(_), Some(_)) => Some(ident(BUCKET)),
        (None, Some(_)) => Some(start_expr(definition.pieces, Grid::Bucket, ident(TIME_COLUMN))),
    };
    let groups = resolved.groups.iter().map(|group| ident(&*group.name));
    let keys: Vec<Expr> = bucket.map(|b| b.alias(PIECE)).into_iter().chain(groups).collect();
    let merged = outputs.iter().map(|&at| merged_again(&resolved.outputs[at]));
    let grouped = partials.aggregate(keys, merged.collect::<Vec<_>>())?;
    if !definition.has_time() {
        return Ok(grouped);
    }
    let time = ident(PIECE).alias(TIME_COLUMN);
    let groups = resolved.groups.iter().map(|group| ident(&*group.name));
    let outputs = outputs.iter().map(|&at| ident(&*resolved.outputs[at].name));
    Ok(grouped.project(std::iter::once(time).chain(groups).chain(outputs).collect::<Vec<_>>())?)
}

/// Rows of partials of the same pieces from two sides, joined: one row per piece and group.
pub(crate) fn joined(
    aggregate: &Aggregate,
    resolved: &Resolved,
    outputs: &[usize],
    one: LogicalPlan,
    other: LogicalPlan,
) -> Result<LogicalPlan, AggregationError> {
    let both = LogicalPlanBuilder::new(one).union(other)?;
    let keys = std::iter::once(TIME_COLUMN).chain(key_names(aggregate, resolved)).map(ident);
    let merged = outputs.iter().map(|&at| merged_again(&resolved.outputs[at]));
    let grouped = both.aggregate(keys.collect::<Vec<_>>(), merged.collect::<Vec<_>>())?;
    in_order(grouped, TIME_COLUMN, aggregate, resolved, outputs)
}

/// End of the bucket that holds the end of `range`.
pub(super) fn last_bucket_end(grid: Pieces, range: TimeRange) -> Timestamp {
    grid.bucket_of(range.end.saturating_sub(1)).end
}

/// All columns of `source` and some more.
pub(super) fn with_columns(
    source: LogicalPlanBuilder,
    more: Vec<Expr>,
) -> Result<LogicalPlanBuilder, AggregationError> {
    if more.is_empty() {
        return Ok(source);
    }
    let own: Vec<Expr> = source.schema().columns().into_iter().map(Expr::Column).collect();
    Ok(source.project(own.into_iter().chain(more).collect::<Vec<_>>())?)
}
