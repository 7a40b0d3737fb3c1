//! `f_partial` and `f_merge`: aggregates that give partials.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
    Volatility, udaf_default_display_name,
};
use highwater_core::FieldType;
use highwater_core::schema::time_data_type;

use super::adapter::{WithAdapter, with_adapter};
use super::bounds::check_call;
use super::column::field_type_of;
use super::function::AggregateFunction;
use super::groups::{Gives, MakeGroups, Reads};
use super::merging::{Growing, Merging, MergingGroups, Moving};
use super::metadata::{input_of, partial_field};
use super::notes::noted;
use super::raw::state_field;
use super::single::MakeSingle;
use super::sliding::MakeSliding;
use crate::partial::Function;

/// `f_partial(x)`, for `first` and `last` `f_partial(x, time)`.
pub(super) fn partial_udaf(name: &str, function: AggregateFunction) -> Arc<AggregateUDF> {
    let name = format!("{name}_partial");
    Arc::new(AggregateUDF::new_from_impl(Partials::new(name, function, Stage::Points)))
}

/// `f_merge(p)`.
pub(super) fn merge_udaf(name: &str, function: AggregateFunction) -> Arc<AggregateUDF> {
    let name = format!("{name}_merge");
    Arc::new(AggregateUDF::new_from_impl(Partials::new(name, function, Stage::Partials)))
}

/// The types that the arguments of a function over points are taken as; a time may be missing
/// until it is filled in.
pub(super) fn coerced(function: AggregateFunction, types: &[DataType]) -> Result<Vec<DataType>> {
    match types {
        [value, bounds @ ..] if function.partial_function() == Function::Histogram => {
            let is_number = |t: &&DataType| t.is_numeric() || t.is_null();
            match bounds.iter().find(|bound| !is_number(bound)) {
                Some(other) => plan_err!("the bounds of a histogram are numbers, not {other}"),
                None if bounds.is_empty() => plan_err!(
                    "histogram takes its bounds behind the value: histogram(x, 0.1, 0.5, 1)"
                ),
                None => {
                    let value = value_type(function, value)?;
                    Ok([vec![value], vec![DataType::Float64; bounds.len()]].concat())
                }
            }
        }
        [value] => Ok(vec![value_type(function, value)?]),
        [value, DataType::Timestamp(_, _) | DataType::Null] if function.goes_by_time() => {
            Ok(vec![value_type(function, value)?, time_data_type()])
        }
        [_, other] if function.goes_by_time() => {
            plan_err!("{function} goes by a timestamp, not by {other}")
        }
        _ if function.goes_by_time() => plan_err!("{function} takes a value and its time"),
        _ => plan_err!("{} takes one argument, not {}", function.name(), types.len()),
    }
}

/// The type that values are taken as.
fn value_type(function: AggregateFunction, input: &DataType) -> Result<DataType> {
    match field_type_of(input).filter(|values| function.accepts(*values).is_ok()) {
        Some(values) => Ok(values.arrow()),
        None => plan_err!("{} does not take values of type {input}", function.name()),
    }
}

/// What an aggregate that gives partials is fed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Points,
    Partials,
}

/// An aggregate that gives partials.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Partials {
    function: AggregateFunction,
    stage: Stage,
    name: String,
    signature: Signature,
}

impl Partials {
    fn new(name: String, function: AggregateFunction, stage: Stage) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Partials { function, stage, name, signature }
    }

    /// Makes an accumulator over points, or over partials whose type is known; else `None`.
    fn make<W: WithAdapter>(
        &self,
        args: &AccumulatorArgs,
        make: impl FnOnce(Reads, Gives) -> W,
    ) -> Result<Option<W::Output>> {
        if args.is_distinct {
            return plan_err!("{} takes no DISTINCT", self.name);
        }
        let function = self.function.partial_function();
        let input = &args.expr_fields[0];
        let (reads, values) = match self.stage {
            Stage::Points => {
                check_call(self.function, args)?;
                (Reads::Values, field_type_of(input.data_type()).unwrap_or(FieldType::Float))
            }
            // The same for every type of values.
            Stage::Partials if !function.is_typed() => (Reads::Partials, FieldType::Float),
            Stage::Partials => match input_of(input, function)? {
                Some(values) => (Reads::Partials, values),
                None => return Ok(None),
            },
        };
        with_adapter(function, values, make(reads, Gives::Partials)).map(Some)
    }
}

impl AggregateUDFImpl for Partials {
    fn name(&self) -> &str {
        &self.name
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        Ok(noted(self.function, udaf_default_display_name(self, params)?))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.stage, self.function, arg_types) {
            (Stage::Points, AggregateFunction::CountField, [any]) => Ok(vec![any.clone()]),
            (Stage::Points, function, types) => coerced(function, types),
            (Stage::Partials, _, [partial]) if partial.is_binary() || partial.is_null() => {
                Ok(vec![DataType::Binary])
            }
            (Stage::Partials, _, [other]) => {
                plan_err!("{} takes partials, not values of type {other}", self.name)
            }
            _ => plan_err!("{} takes one argument, not {}", self.name, arg_types.len()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        let input = match self.stage {
            Stage::Points => field_type_of(arg_fields[0].data_type()),
            Stage::Partials => input_of(&arg_fields[0], self.function.partial_function())?,
        };
        Ok(Arc::new(partial_field(&self.name, self.function.partial_function(), input)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_field(&args))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let typed = self.make(&args, MakeSingle)?;
        Ok(typed
            .unwrap_or_else(|| Box::new(Merging::new(self.function.partial_function(), Growing))))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let typed = self.make(&args, MakeSliding)?;
        Ok(typed
            .unwrap_or_else(|| Box::new(Merging::new(self.function.partial_function(), Moving))))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let typed = self.make(&args, MakeGroups)?;
        Ok(typed.unwrap_or_else(|| Box::new(MergingGroups::new(self.function.partial_function()))))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}
