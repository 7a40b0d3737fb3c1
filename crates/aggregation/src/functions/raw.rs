//! The functions over points that DataFusion has too: its `sum`, `avg`, `min` and `max` with exact
//! accumulators.
//!
//! What our partials do not cover (decimals, durations, extrema of anything but floats) is left to
//! DataFusion, where it is right.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, not_impl_err, plan_err};
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs, Volatility,
};
use datafusion::logical_expr::{
    udaf_default_display_name, udaf_default_human_display, udaf_default_schema_name,
    udaf_default_window_function_display_name, udaf_default_window_function_schema_name,
};
use highwater_core::FieldType;

use super::adapter::{WithAdapter, with_adapter};
use super::adapters::{FloatSums, IntegerSums, Means};
use super::column::field_type_of;
use super::distinct::Distinct;
use super::function::AggregateFunction;
use super::groups::{Gives, MakeGroups, Reads};
use super::own;
use super::single::MakeSingle;
use super::sliding::MakeSliding;

/// Name of our `sum`, which is shown as `sum` and found under that name too.
///
/// The optimizer splits what is called exactly "sum" beside a DISTINCT, and would round it twice.
pub(super) const SUM: &str = "SUM";

/// `sum`, `avg`, `mean`, `min`, `max`.
pub(super) fn udafs() -> Vec<Arc<AggregateUDF>> {
    vec![
        Exact::udaf(AggregateFunction::Sum, SUM, Sum::new()),
        Exact::udaf(AggregateFunction::Mean, "avg", Avg::new()),
        Exact::udaf(AggregateFunction::Mean, "mean", Avg::new()),
        Exact::udaf(AggregateFunction::Min, "min", Min::new()),
        Exact::udaf(AggregateFunction::Max, "max", Max::new()),
    ]
}

/// The function over points; `None` for `count`, which is DataFusion's.
pub(super) fn udaf(name: &str) -> Option<Arc<AggregateUDF>> {
    let mut udafs = udafs().into_iter().chain(own::udafs());
    udafs.find(|udaf| udaf.name().eq_ignore_ascii_case(name))
}

/// The state of our accumulators: one column of partials.
pub(super) fn state_field(args: &StateFieldsArgs) -> Vec<FieldRef> {
    vec![Arc::new(Field::new(format_state_name(args.name, "partial"), DataType::Binary, true))]
}

/// A function of DataFusion's with our accumulators.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Exact<B> {
    function: AggregateFunction,
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
    builtin: B,
}

impl<B: AggregateUDFImpl + PartialEq + Eq + Hash + 'static> Exact<B> {
    fn udaf(function: AggregateFunction, name: &'static str, builtin: B) -> Arc<AggregateUDF> {
        Arc::new(AggregateUDF::new_from_impl(Exact {
            function,
            name,
            aliases: (name == SUM).then(|| "sum".to_owned()).into_iter().collect(),
            signature: Signature::user_defined(Volatility::Immutable),
            builtin,
        }))
    }

    /// The type of values if these are ours to aggregate.
    fn ours(&self, input: &Field) -> Option<FieldType> {
        let ours = match input.data_type() {
            DataType::Float64 => FieldType::Float,
            DataType::Int64 => FieldType::Integer,
            DataType::UInt64 => FieldType::Unsigned,
            _ => return None,
        };
        let is_ours = match self.function {
            AggregateFunction::Min | AggregateFunction::Max => ours == FieldType::Float,
            _ => true,
        };
        is_ours.then_some(ours)
    }

    fn with<W: WithAdapter>(&self, values: FieldType, work: W) -> Result<W::Output> {
        with_adapter(self.function.partial_function(), values, work)
    }

    fn distinct(&self, values: FieldType) -> Option<Box<dyn Accumulator>> {
        let function = self.function;
        Some(match (function, values) {
            (AggregateFunction::Sum, FieldType::Float) => {
                Box::new(Distinct::<FloatSums, f64>::new(function))
            }
            (AggregateFunction::Sum, FieldType::Integer) => {
                Box::new(Distinct::<IntegerSums<i64>, i64>::new(function))
            }
            (AggregateFunction::Sum, FieldType::Unsigned) => {
                Box::new(Distinct::<IntegerSums<u64>, u64>::new(function))
            }
            (AggregateFunction::Mean, FieldType::Float) => {
                Box::new(Distinct::<Means<f64>, f64>::new(function))
            }
            (AggregateFunction::Mean, FieldType::Integer) => {
                Box::new(Distinct::<Means<i64>, i64>::new(function))
            }
            (AggregateFunction::Mean, FieldType::Unsigned) => {
                Box::new(Distinct::<Means<u64>, u64>::new(function))
            }
            _ => return None,
        })
    }
}

/// The type that a sum, mean or extremum is computed in.
fn widened(function: AggregateFunction, input: &DataType) -> Result<DataType> {
    let is_number = matches!(
        field_type_of(input),
        Some(FieldType::Float | FieldType::Integer | FieldType::Unsigned)
    );
    match (function, input) {
        (_, DataType::Dictionary(_, values)) => widened(function, values),
        (
            AggregateFunction::Min | AggregateFunction::Max,
            DataType::Float16 | DataType::Float32,
        ) => Ok(DataType::Float64),
        (AggregateFunction::Min | AggregateFunction::Max, other) => Ok(other.clone()),
        (_, other) if is_number => Ok(field_type_of(other).unwrap_or(FieldType::Float).arrow()),
        (_, other) if other.is_decimal() => Ok(other.clone()),
        (_, DataType::Duration(_)) => Ok(input.clone()),
        (AggregateFunction::Sum, DataType::Interval(_)) => Ok(input.clone()),
        (function, other) => plan_err!("{function} does not take values of type {other}"),
    }
}

// The name of "mean" is its own, as a function called by an alias loses FILTER and DISTINCT from
// its column's name.
impl<B: AggregateUDFImpl + PartialEq + Eq + Hash + 'static> AggregateUDFImpl for Exact<B> {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        match self.name {
            SUM => self.builtin.schema_name(params),
            _ => udaf_default_schema_name(self, params),
        }
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        match self.name {
            SUM => self.builtin.human_display(params),
            _ => udaf_default_human_display(self, params),
        }
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        match self.name {
            SUM => self.builtin.window_function_schema_name(params),
            _ => udaf_default_window_function_schema_name(self, params),
        }
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        match self.name {
            SUM => self.builtin.display_name(params),
            _ => udaf_default_display_name(self, params),
        }
    }

    fn window_function_display_name(&self, params: &WindowFunctionParams) -> Result<String> {
        match self.name {
            SUM => self.builtin.window_function_display_name(params),
            _ => udaf_default_window_function_display_name(self, params),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [input] => Ok(vec![widened(self.function, input)?]),
            _ => plan_err!("{} takes one argument, not {}", self.function, arg_types.len()),
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.builtin.return_type(&self.coerce_types(arg_types)?)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match self.ours(&args.input_fields[0]) {
            Some(_) => Ok(state_field(&args)),
            None => self.builtin.state_fields(args),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let Some(values) = self.ours(&args.expr_fields[0]) else {
            return self.builtin.accumulator(args);
        };
        match self.distinct(values).filter(|_| args.is_distinct) {
            Some(distinct) => Ok(distinct),
            None => self.with(values, MakeSingle(Reads::Values, Gives::Answers(self.function))),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let Some(values) = self.ours(&args.expr_fields[0]) else {
            return self.builtin.create_sliding_accumulator(args);
        };
        if args.is_distinct && self.distinct(values).is_some() {
            return not_impl_err!("{}(DISTINCT) over a moving window", self.function);
        }
        match self.function {
            // DataFusion's moving extrema keep to the total order of floats, and less memory.
            AggregateFunction::Min | AggregateFunction::Max => {
                self.builtin.create_sliding_accumulator(args)
            }
            function => self.with(values, MakeSliding(Reads::Values, Gives::Answers(function))),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        match self.ours(&args.expr_fields[0]) {
            Some(values) => !args.is_distinct || self.distinct(values).is_none(),
            None => self.builtin.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        match self.ours(&args.expr_fields[0]) {
            Some(values) => {
                self.with(values, MakeGroups(Reads::Values, Gives::Answers(self.function)))
            }
            None => self.builtin.create_groups_accumulator(args),
        }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn is_descending(&self) -> Option<bool> {
        self.builtin.is_descending()
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        // Statistics of floats leave out NaN; sums in statistics may have wrapped.
        let is_extremum = matches!(self.function, AggregateFunction::Min | AggregateFunction::Max);
        let is_trusted = is_extremum && !args.return_type.is_floating();
        is_trusted.then(|| self.builtin.value_from_stats(args)).flatten()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.builtin.set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.builtin.documentation()
    }
}
