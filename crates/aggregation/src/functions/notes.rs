//! What plans say beside the name of a function.

use super::function::AggregateFunction;

/// The text of a call in a plan, with a note if its answer depends on the order of the values.
pub(super) fn noted(function: AggregateFunction, call: String) -> String {
    match function.goes_by_order() {
        true => format!("{call} (order-dependent)"),
        false => call,
    }
}
