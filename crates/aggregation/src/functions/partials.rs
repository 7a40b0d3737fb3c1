//! `f_partial` and `f_merge`: aggregates that give partials.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
    Volatility,
};
use highwater_core::FieldType;
use highwater_core::schema::time_data_type;

use super::adapter::{WithAdapter, with_adapter};
use super::column::field_type_of;
use super::function::AggregateFunction;
use super::groups::{Gives, MakeGroups, Reads};
use super::merging::{Growing, Merging, MergingGroups, Moving};
use super::metadata::{input_of, partial_field};
use super::raw::state_field;
use super::single::MakeSingle;
use super::sliding::MakeSliding;
use crate::partial::Function;

/// `f_partial(x)`, for `first` and `last` `f_partial(x, time)`.
pub(super) fn partial_udaf(function: Function) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Partials::new(function, Stage::Points, "partial")))
}

/// `f_merge(p)`.
pub(super) fn merge_udaf(function: Function) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Partials::new(function, Stage::Partials, "merge")))
}

/// The types of a value and its time; the time may be missing until it is filled in.
pub(super) fn coerced_with_time(function: Function, types: &[DataType]) -> Result<Vec<DataType>> {
    match types {
        [value] => Ok(vec![value_type(function, value)?]),
        [value, DataType::Timestamp(_, _) | DataType::Null] => {
            Ok(vec![value_type(function, value)?, time_data_type()])
        }
        [_, other] => plan_err!("{function} goes by a timestamp, not by {other}"),
        _ => plan_err!("{function} takes a value and its time"),
    }
}

/// The type that values are taken as.
fn value_type(function: Function, input: &DataType) -> Result<DataType> {
    let taken = field_type_of(input).filter(|values| AggregateFunction::takes(function, *values));
    match taken {
        Some(values) => Ok(values.arrow()),
        None => plan_err!("{function} does not take values of type {input}"),
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
    function: Function,
    stage: Stage,
    name: String,
    aliases: Vec<String>,
    signature: Signature,
}

impl Partials {
    fn new(function: Function, stage: Stage, suffix: &str) -> Self {
        let is_mean = function == Function::Mean;
        Partials {
            function,
            stage,
            name: format!("{function}_{suffix}"),
            aliases: is_mean.then(|| format!("avg_{suffix}")).into_iter().collect(),
            signature: Signature::user_defined(Volatility::Immutable),
        }
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
        let input = &args.expr_fields[0];
        let (reads, values) = match self.stage {
            Stage::Points => {
                (Reads::Values, field_type_of(input.data_type()).unwrap_or(FieldType::Float))
            }
            Stage::Partials if self.function == Function::Count => {
                (Reads::Partials, FieldType::Float)
            }
            Stage::Partials => match input_of(input, self.function)? {
                Some(values) => (Reads::Partials, values),
                None => return Ok(None),
            },
        };
        with_adapter(self.function, values, make(reads, Gives::Partials)).map(Some)
    }
}

impl AggregateUDFImpl for Partials {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.stage, self.function, arg_types) {
            (Stage::Points, Function::First | Function::Last, types) => {
                coerced_with_time(self.function, types)
            }
            (Stage::Points, Function::Count, [any]) => Ok(vec![any.clone()]),
            (Stage::Points, function, [value]) => Ok(vec![value_type(function, value)?]),
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
            Stage::Partials => input_of(&arg_fields[0], self.function)?,
        };
        Ok(Arc::new(partial_field(&self.name, self.function, input)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_field(&args))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let typed = self.make(&args, MakeSingle)?;
        Ok(typed.unwrap_or_else(|| Box::new(Merging::new(self.function, Growing))))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let typed = self.make(&args, MakeSliding)?;
        Ok(typed.unwrap_or_else(|| Box::new(Merging::new(self.function, Moving))))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let typed = self.make(&args, MakeGroups)?;
        Ok(typed.unwrap_or_else(|| Box::new(MergingGroups::new(self.function))))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}
