//! The aggregate functions in DataFusion: thin shells around [`crate::partial`].
//!
//! Each function `f` comes in four shapes that share one algebra, and may be mixed freely in SQL:
//!
//! | shape | what it is |
//! |---|---|
//! | `f(x)` | the aggregate over points, instead of DataFusion's own (but `count` is its own) |
//! | `f_partial(x)` | aggregate over points, gives a partial (`Binary`) |
//! | `f_merge(p)` | aggregate over partials, gives a partial |
//! | `f_finish(p, labels..)` | scalar: the answer of a partial; the labels are for its error |
//!
//! `first`, `last`, the times of both, `increase`, `rate` and `time_weighted_average` take the time as second argument; in SQL it may be left out
//! and is then the column `time` beside the value. `approx_percentile` and its finish take the fraction
//! as second argument, `histogram` and its partial the bounds behind the value. The NULL partial is the partial of nothing.
//! Functions with one partial (`stddev` and `variance`, `last` and `last_time`) finish each other's.
//!
//! Reading order: [`function`] (names, types, expressions), `fraction`, `bounds`, `adapter` and `adapters` (arrays to
//! partials and back), `groups` and `single` (DataFusion's accumulators), `raw`, `own`, `partials` and
//! `finish` (DataFusion's functions), `conversions` (partials of one function from those of others), `metadata`, `time_argument` and `overflow_labels` (rewrites of plans).

mod adapter;
mod adapters;
mod bounds;
mod column;
mod conversions;
mod distinct;
mod error;
mod finish;
mod fraction;
pub mod function;
mod groups;
mod merging;
mod metadata;
mod notes;
mod overflow_labels;
mod own;
mod partials;
mod raw;
mod single;
mod sliding;
mod time_argument;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::optimizer::{AnalyzerRule, OptimizerRule};
use datafusion::prelude::SessionContext;

use crate::partial::Function;

pub use bounds::{Bounds, MOST_BOUNDS};
pub(crate) use conversions::{count_of_mean, described, mean_of, sum_of_mean};
pub use error::ComputationError;
pub(crate) use error::through_a_plan;
pub use fraction::Fraction;
pub use function::{AggregateFunction, FunctionError};
pub use metadata::partial_field;
use overflow_labels::OverflowLabels;

/// Registers every function and rule of this module.
///
/// # Errors
/// Those of DataFusion's registry.
pub fn register(context: &SessionContext) -> Result<()> {
    let state = context.state_ref();
    for function in aggregate_functions() {
        state.write().register_udaf(function)?;
    }
    for function in scalar_functions() {
        state.write().register_udf(function)?;
    }
    for rule in analyzer_rules() {
        context.add_analyzer_rule(rule);
    }
    for rule in optimizer_rules() {
        context.add_optimizer_rule(rule);
    }
    Ok(())
}

/// Names of the aggregate functions that give partials, which are also their state.
pub fn partial_functions() -> impl Iterator<Item = String> {
    // The state of those keeps points apart until there are no more to come.
    let is_state = |function: AggregateFunction| !function.needs_one_series();
    let named = function::names().filter(move |(_, function)| is_state(*function));
    named.flat_map(|(name, _)| [format!("{name}_partial"), format!("{name}_merge")])
}

/// Names of the aggregate functions whose answer is that of the last point.
pub fn last_functions() -> impl Iterator<Item = String> {
    let last = |function: AggregateFunction| function.partial_function() == Function::Last;
    let named = function::names().filter(move |(_, function)| last(*function));
    named.flat_map(|(name, _)| [name.to_owned(), format!("{name}_partial")])
}

/// The aggregate functions; they replace DataFusion's of the same name.
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    let shapes = function::names().flat_map(|(name, function)| {
        [partials::partial_udaf(name, function), partials::merge_udaf(name, function)]
    });
    raw::udafs().into_iter().chain(own::udafs()).chain(shapes).collect()
}

/// The scalar functions.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    function::names().map(|(name, function)| finish::finish_udf(name, function, None)).collect()
}

/// Rules to be run after DataFusion's analyzer rules.
pub fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    vec![Arc::new(time_argument::rule())]
}

/// Rules to be run after DataFusion's optimizer rules.
pub fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![Arc::new(OverflowLabels)]
}
