//! What a column of partials says about itself in the metadata of its Arrow field.
//!
//! SQL needs it to know the type of `sum_finish(p)` before a partial has been seen.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, plan_err};
use highwater_core::FieldType;

use crate::partial::Function;

const FUNCTION: &str = "highwater.function";
const INPUT: &str = "highwater.input";

const INPUTS: [FieldType; 6] = [
    FieldType::Float,
    FieldType::Integer,
    FieldType::Unsigned,
    FieldType::Boolean,
    FieldType::String,
    FieldType::Timestamp,
];

/// A nullable column of partials of `function` over values of type `input`, known as such to SQL.
pub fn partial_field(name: &str, function: Function, input: Option<FieldType>) -> Field {
    let function = (FUNCTION.to_owned(), function.name().to_owned());
    let input = input.map(|input| (INPUT.to_owned(), input.to_string()));
    let metadata = HashMap::from_iter(std::iter::once(function).chain(input));
    Field::new(name, DataType::Binary, true).with_metadata(metadata)
}

/// Type of the values that the partials of this column are made of, where the column says so.
///
/// # Errors
/// If the column says that its partials are another function's.
pub(super) fn input_of(field: &Field, function: Function) -> Result<Option<FieldType>> {
    match field.metadata().get(FUNCTION) {
        Some(other) if other != function.name() => {
            plan_err!("{} holds partials of {other}, not of {function}", field.name())
        }
        _ => {
            let input = field.metadata().get(INPUT);
            Ok(INPUTS.into_iter().find(|known| input == Some(&known.to_string())))
        }
    }
}
