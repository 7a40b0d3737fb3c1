//! `first(x)` means `first(x, time)`: fills in the time column beside the value, and refuses
//! modifiers that our functions would not heed.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result, TableReference, plan_err};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, WindowFunctionDefinition};
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use highwater_core::schema::{TIME_COLUMN, time_data_type};

use super::function::{AggregateFunction, by_name};

/// Fills in the time of `first`, `last` and their partials, and refuses what they do not heed.
#[derive(Debug)]
pub(super) struct TimeArgument;

/// [`TimeArgument`] as a rule over whole plans, before or after types are coerced.
pub(super) fn rule() -> ApplyFunctionRewrites {
    ApplyFunctionRewrites::new(vec![Arc::new(TimeArgument)])
}

impl FunctionRewrite for TimeArgument {
    fn name(&self) -> &str {
        "time_argument"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        match expr {
            Expr::AggregateFunction(mut call) => {
                let params = &mut call.params;
                check(&call.func, params.distinct, &params.order_by)?;
                let is_new = fill_in_time(&call.func, &mut params.args, schema)?;
                Ok(Transformed::new_transformed(Expr::AggregateFunction(call), is_new))
            }
            Expr::WindowFunction(mut window) => {
                let mut is_new = false;
                if let WindowFunctionDefinition::AggregateUDF(func) = &window.fun {
                    check(func, window.params.distinct, &[])?;
                    is_new = fill_in_time(func, &mut window.params.args, schema)?;
                }
                Ok(Transformed::new_transformed(Expr::WindowFunction(window), is_new))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

fn goes_by_time(name: &str) -> bool {
    let function = by_name(name.strip_suffix("_partial").unwrap_or(name));
    function.is_some_and(AggregateFunction::goes_by_time)
}

fn gives_partials(name: &str) -> bool {
    let function = name.strip_suffix("_partial").or(name.strip_suffix("_merge"));
    function.and_then(by_name).is_some()
}

fn check(func: &AggregateUDF, distinct: bool, order_by: &[Sort]) -> Result<()> {
    let name = func.name();
    if distinct && (goes_by_time(name) || gives_partials(name)) {
        return plan_err!("{name} takes no DISTINCT");
    }
    if goes_by_time(name) && !order_by.is_empty() {
        return plan_err!(
            "{name} goes by time and takes no ORDER BY; write {name}(x, time), or \
             first_value(x ORDER BY ..)"
        );
    }
    Ok(())
}

/// Adds the time to a lone value; `false` if there was nothing to do.
fn fill_in_time(func: &AggregateUDF, args: &mut Vec<Expr>, schema: &DFSchema) -> Result<bool> {
    match args.as_slice() {
        [value] if goes_by_time(func.name()) => {
            let time = time_beside(func.name(), value, schema)?;
            // Types may have been coerced already.
            args.push(Expr::Column(time).cast_to(&time_data_type(), schema)?);
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The time column of the relation that the value is from; else the only one there is.
fn time_beside(name: &str, value: &Expr, schema: &DFSchema) -> Result<Column> {
    let times: Vec<Column> = schema.columns_with_unqualified_name(TIME_COLUMN);
    let relations: HashSet<Option<TableReference>> =
        value.column_refs().into_iter().map(|column| column.relation.clone()).collect();
    let beside = times.iter().filter(|time| relations.contains(&time.relation));
    match (times.as_slice(), beside.collect::<Vec<_>>().as_slice()) {
        (_, [time]) => Ok((*time).clone()),
        ([time], _) => Ok(time.clone()),
        ([], _) => plan_err!("{name}(x) needs a column {TIME_COLUMN}; write {name}(x, <time>)"),
        _ => plan_err!("{name}(x) has several columns {TIME_COLUMN}; write {name}(x, <time>)"),
    }
}
