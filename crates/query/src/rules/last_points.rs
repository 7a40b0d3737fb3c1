//! Questions that the last points of every series answer: `last(x)`, `max(time)`,
//! `DISTINCT ON (tag) .. ORDER BY time DESC`, or which tags there are.
//!
//! Storage keeps these points ready, so such a query reads a row or so per series instead of all.
//! A group must be made of whole series, so only tags may group and filter; times are filtered by
//! storage itself, which knows where its last points are still the last ones.
//!
//! What is left is so little that numbering the rows of each group and keeping the first is far
//! cheaper than DataFusion's `first_value`, which keeps a state per column and group.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, TableScan, col, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use highwater_core::schema::TIME_COLUMN;

use crate::table::MeasurementTable;

/// Where rows are numbered within their group.
const ROW_NUMBER: &str = "__row_number";

/// The rule; see the module. Runs when filters have been pushed into scans.
#[derive(Debug)]
pub(crate) struct LastPoints {
    /// Names of functions `f(x, time)` that need the newest `x` of every series and no other.
    pub(crate) functions: BTreeSet<String>,
}

impl OptimizerRule for LastPoints {
    fn name(&self) -> &str {
        "last_points"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        if !last_points_suffice(aggregate, &self.functions) {
            return Ok(Transformed::no(plan));
        }
        let plan = match first_rows(aggregate)? {
            Some(first_rows) => Transformed::yes(first_rows),
            None => Transformed::no(plan),
        };
        plan.transform_data(|plan| {
            plan.transform_down(|node| match node {
                LogicalPlan::TableScan(scan) => only_last(scan),
                other => Ok(Transformed::no(other)),
            })
        })
    }
}

/// Whether the last points of every series answer an aggregate whose filters are pushed into the
/// scan below. `functions` are the names of those `f(x, time)` that need no other points.
pub fn last_points_suffice(aggregate: &Aggregate, functions: &BTreeSet<String>) -> bool {
    let Some(rows) = Rows::of(&aggregate.input) else { return false };
    let goes_by_last = |expr: &Expr| goes_by_last(expr, aggregate, &rows, functions);
    aggregate.group_expr.iter().all(|expr| rows.is_tag(expr))
        && aggregate.aggr_expr.iter().all(goes_by_last)
}

fn goes_by_last(
    expr: &Expr,
    aggregate: &Aggregate,
    rows: &Rows<'_>,
    functions: &BTreeSet<String>,
) -> bool {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias() else {
        return false;
    };
    if params.distinct || params.filter.is_some() {
        return false;
    }
    let takes_row = params.null_treatment != Some(NullTreatment::IgnoreNulls);
    match (func.name(), params.args.as_slice(), params.order_by.as_slice()) {
        ("max", [time], []) => rows.is_time(time),
        ("first_value", [_], order) => takes_row && rows.end_first(order, aggregate, false),
        ("last_value", [_], order) => takes_row && rows.end_first(order, aggregate, true),
        (name, [value, time], []) if functions.contains(name) => {
            rows.column_of(value).is_some() && rows.is_time(time)
        }
        _ => false,
    }
}

/// The same as an aggregate of nothing but first values in one order: the first row of each group.
fn first_rows(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let groups = &aggregate.group_expr;
    let firsts: Option<Vec<(&Expr, &[Sort])>> =
        aggregate.aggr_expr.iter().map(first_value_of).collect();
    let Some(firsts) = firsts else { return Ok(None) };
    let Some((_, order)) = firsts.first() else { return Ok(None) };
    if groups.is_empty() || firsts.iter().any(|(_, other)| other != order) {
        return Ok(None);
    }
    let number = row_number().partition_by(groups.clone()).order_by(order.to_vec()).build()?;
    let is_first = col(ROW_NUMBER).eq(lit(1_u64));
    let names = aggregate.schema.fields()[groups.len()..].iter().map(|field| field.name());
    let values = firsts.iter().zip(names).map(|((value, _), name)| (*value).clone().alias(name));
    let columns: Vec<Expr> = groups.iter().cloned().chain(values).collect();
    LogicalPlanBuilder::from(Arc::clone(&aggregate.input))
        .window([number.alias(ROW_NUMBER)])?
        .filter(is_first)?
        .project(columns)?
        .build()
        .map(Some)
}

/// Value and order of a `first_value`.
fn first_value_of(expr: &Expr) -> Option<(&Expr, &[Sort])> {
    match expr {
        Expr::Alias(alias) => first_value_of(&alias.expr),
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            let [value] = params.args.as_slice() else { return None };
            (func.name() == "first_value").then_some((value, params.order_by.as_slice()))
        }
        _ => None,
    }
}

/// The rows below an aggregate: those of one measurement, or of whole series of it.
struct Rows<'a> {
    plan: &'a LogicalPlan,
    scan: &'a TableScan,
}

impl<'a> Rows<'a> {
    fn of(plan: &'a LogicalPlan) -> Option<Self> {
        let below = |input: &'a LogicalPlan| Rows::of(input).map(|rows| Rows { plan, ..rows });
        match plan {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() && is_measurement(scan) => {
                Some(Rows { plan, scan })
            }
            LogicalPlan::SubqueryAlias(alias) => below(&alias.input),
            LogicalPlan::Projection(projection) => below(&projection.input),
            LogicalPlan::Filter(filter) => {
                let rows = below(&filter.input)?;
                let columns = filter.predicate.column_refs();
                let goes_by_tags = !columns.is_empty()
                    && !filter.predicate.is_volatile()
                    && columns.into_iter().all(|column| rows.is_tag(&Expr::Column(column.clone())));
                goes_by_tags.then_some(rows)
            }
            _ => None,
        }
    }

    /// The column of the measurement that an expression is.
    fn column_of(&self, expr: &Expr) -> Option<&'a str> {
        match expr {
            Expr::Alias(alias) => self.column_of(&alias.expr),
            Expr::Column(column) => column_below(self.plan, column),
            _ => None,
        }
    }

    fn is_time(&self, expr: &Expr) -> bool {
        self.column_of(expr) == Some(TIME_COLUMN)
    }

    fn is_tag(&self, expr: &Expr) -> bool {
        let column = self.column_of(expr);
        column.is_some_and(|name| {
            with_table(self.scan, |table| table.measurement().schema().tag_position(name).is_some())
        })
    }

    /// Whether this order puts, within a group, the newest row first; or last, if `ascending`.
    fn end_first(&self, order: &[Sort], aggregate: &Aggregate, ascending: bool) -> bool {
        let grouped: Vec<&str> =
            aggregate.group_expr.iter().filter_map(|expr| self.column_of(expr)).collect();
        let is_grouped =
            |sort: &&Sort| self.column_of(&sort.expr).is_some_and(|name| grouped.contains(&name));
        let first = order.iter().find(|sort| !is_grouped(sort));
        first.is_some_and(|sort| self.is_time(&sort.expr) && sort.asc == ascending)
    }
}

/// The column of the scan below that a column of the plan is.
fn column_below<'a>(plan: &'a LogicalPlan, column: &Column) -> Option<&'a str> {
    let position = plan.schema().maybe_index_of_column(column)?;
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan.projected_schema.field(position).name()),
        LogicalPlan::Filter(filter) => column_below(&filter.input, column),
        LogicalPlan::SubqueryAlias(alias) => {
            let (relation, field) = alias.input.schema().qualified_field(position);
            column_below(&alias.input, &Column::from((relation, field)))
        }
        LogicalPlan::Projection(projection) => match projection.expr[position].clone().unalias() {
            Expr::Column(inner) => column_below(&projection.input, &inner),
            _ => None,
        },
        _ => None,
    }
}

fn is_measurement(scan: &TableScan) -> bool {
    with_table(scan, |_| true)
}

/// What `look` says of the measurement that is scanned; `false` if it is none.
fn with_table(scan: &TableScan, look: impl Fn(&MeasurementTable) -> bool) -> bool {
    let provider = source_as_provider(&scan.source).ok();
    provider.is_some_and(|provider| provider.downcast_ref::<MeasurementTable>().is_some_and(look))
}

fn only_last(mut scan: TableScan) -> Result<Transformed<LogicalPlan>> {
    let provider = source_as_provider(&scan.source)?;
    let limited = provider.downcast_ref::<MeasurementTable>().and_then(MeasurementTable::only_last);
    let is_new = limited.is_some();
    if let Some(table) = limited {
        scan.source = provider_as_source(Arc::new(table));
    }
    Ok(Transformed::new_transformed(LogicalPlan::TableScan(scan), is_new))
}
