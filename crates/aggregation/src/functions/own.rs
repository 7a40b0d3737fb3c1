//! The functions over points that are ours alone, or instead of DataFusion's of the same name.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
    Volatility, udaf_default_display_name,
};
use datafusion::physical_expr::expressions::Literal;

use super::adapter::{WithAdapter, with_adapter};
use super::bounds::check_call;
use super::column::field_type_of;
use super::fraction::Fraction;
use super::function::{AggregateFunction, names};
use super::groups::{Gives, MakeGroups, Reads};
use super::notes::noted;
use super::partials::coerced;
use super::raw::state_field;
use super::single::MakeSingle;
use super::sliding::MakeSliding;

/// One for each name of a function that neither `raw` nor DataFusion (`count`) has.
pub(super) fn udafs() -> Vec<Arc<AggregateUDF>> {
    names().filter(|(_, function)| is_own(*function)).map(|(name, f)| Own::udaf(name, f)).collect()
}

fn is_own(function: AggregateFunction) -> bool {
    !matches!(
        function,
        AggregateFunction::Count
            | AggregateFunction::CountField
            | AggregateFunction::Sum
            | AggregateFunction::Mean
            | AggregateFunction::Min
            | AggregateFunction::Max
    )
}

/// `f(x)`, for `first` and `last` `f(x, time)`, for percentiles `f(x, p)`, for histograms `f(x, bounds..)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Own {
    name: &'static str,
    function: AggregateFunction,
    signature: Signature,
}

impl Own {
    fn udaf(name: &'static str, function: AggregateFunction) -> Arc<AggregateUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(Own { name, function, signature }))
    }

    fn make<W: WithAdapter>(
        &self,
        args: &AccumulatorArgs,
        make: impl FnOnce(Reads, Gives) -> W,
    ) -> Result<W::Output> {
        if args.is_distinct {
            return plan_err!("{} takes no DISTINCT", self.name);
        }
        let Some(values) = field_type_of(args.expr_fields[0].data_type()) else {
            return plan_err!("{} does not take {}", self.name, args.expr_fields[0]);
        };
        check_call(self.function, args)?;
        let make = make(Reads::Values, Gives::Answers(self.called(args)?));
        with_adapter(self.function.partial_function(), values, make)
    }

    /// The function with the constant that a percentile has as second argument.
    fn called(&self, args: &AccumulatorArgs) -> Result<AggregateFunction> {
        if self.function.fraction().is_none() {
            return Ok(self.function);
        }
        let literal = args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>());
        let fraction = match literal.map(Literal::value) {
            Some(ScalarValue::Float64(Some(p))) => Fraction::new(*p),
            _ => None,
        };
        match fraction {
            Some(fraction) => Ok(self.function.with_fraction(fraction)),
            None => plan_err!("the second argument of {} is a number from 0 to 1", self.name),
        }
    }
}

impl AggregateUDFImpl for Own {
    fn name(&self) -> &str {
        self.name
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        Ok(noted(self.function, udaf_default_display_name(self, params)?))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.function.fraction(), arg_types) {
            (None, types) => coerced(self.function, types),
            (Some(_), [value, _]) => {
                let value = coerced(self.function, std::slice::from_ref(value))?;
                Ok([value, vec![DataType::Float64]].concat())
            }
            _ => plan_err!("{0} takes two arguments: {0}(x, 0.99)", self.name),
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match self.function.fixed_output_type() {
            Some(output) => Ok(output.arrow()),
            None => Ok(self.coerce_types(arg_types)?[0].clone()),
        }
    }

    fn is_nullable(&self) -> bool {
        !self.function.counts()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        match self.function.counts() {
            true => ScalarValue::new_zero(data_type),
            false => ScalarValue::try_from(data_type),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_field(&args))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.make(&args, MakeSingle)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.make(&args, MakeSliding)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.make(&args, MakeGroups)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}
