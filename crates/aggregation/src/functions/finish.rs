//! `f_finish(p, labels..)`: the answer of a partial.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use highwater_core::schema::time_data_type;
use highwater_core::{FieldType, Timestamp};

use super::adapter::{Adapter, NoAnswer, WithAdapter, feed_encoded, with_adapter};
use super::column::{Column, downcast, selected};
use super::fraction::Fraction;
use super::function::AggregateFunction;
use super::merging::first_type;
use super::metadata::input_of;
use super::notes::noted;

/// `f_finish`; plans made in code say what it gives, SQL learns it from the column of partials.
pub(super) fn finish_udf(
    name: &str,
    function: AggregateFunction,
    output: Option<FieldType>,
) -> Arc<ScalarUDF> {
    let name = format!("{name}_finish");
    // In plans made in code nobody looks for the name, but some read it.
    let name = if output.is_some() { noted(function, name) } else { name };
    let signature = Signature::variadic_any(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Finish { function, output, name, signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Finish {
    function: AggregateFunction,
    output: Option<FieldType>,
    name: String,
    signature: Signature,
}

impl Finish {
    fn output_for(&self, partial: &Field) -> Result<FieldType> {
        let input = input_of(partial, self.function.partial_function())?;
        match self.function.fixed_output_type().or(self.output).or(input) {
            Some(output) => Ok(output),
            None => plan_err!(
                "{} cannot know the type of its answer; use it on a partial column of an \
                 aggregate, or on {}_partial(..) or {}_merge(..) of one",
                self.name,
                self.function,
                self.function
            ),
        }
    }

    /// The function with the fraction that its call gives, if it takes one.
    fn with_fraction(&self, argument: Option<&ScalarValue>) -> Result<AggregateFunction> {
        if self.function.fraction().is_none() {
            return Ok(self.function);
        }
        let number = argument.and_then(|value| value.cast_to(&DataType::Float64).ok());
        let fraction = match number {
            Some(ScalarValue::Float64(Some(p))) => Fraction::new(p),
            _ => None,
        };
        match fraction {
            Some(fraction) => Ok(self.function.with_fraction(fraction)),
            None => {
                plan_err!("the second argument of {} is a number from 0 to 1", self.name)
            }
        }
    }

    /// Type of the values that the partials are made of. Only the partials know it where the type
    /// of the answer does not tell; some do not either, as theirs are the same for every type.
    fn values(&self, partials: &ArrayRef, output: &DataType) -> Result<FieldType> {
        let values = match self.function.fixed_output_type() {
            Some(_) => first_type(partials, None)?,
            None => FieldType::of_arrow(output),
        };
        Ok(values.unwrap_or(FieldType::Float))
    }
}

impl ScalarUDFImpl for Finish {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {} depends on its column", self.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let partial = &args.arg_fields[0];
        let is_partial = partial.data_type().is_binary() || partial.data_type().is_null();
        if !is_partial {
            return plan_err!("{} takes a partial, not {}", self.name, partial.data_type());
        }
        if self.function.fraction().is_some() {
            self.with_fraction(args.scalar_arguments.get(1).copied().flatten())?;
        }
        let output = self.output_for(partial)?;
        let nullable = !self.function.counts();
        Ok(Arc::new(Field::new(&self.name, output.arrow(), nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let partials = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Binary)?;
        let values = self.values(&partials, args.return_type())?;
        let function = match args.args.get(1) {
            Some(ColumnarValue::Scalar(fraction)) => self.with_fraction(Some(fraction))?,
            _ => self.function,
        };
        let finish = FinishAll { partials: &partials, function };
        match with_adapter(self.function.partial_function(), values, finish)?? {
            Ok(answers) => Ok(answer(&args, answers)?),
            Err(NoAnswer { at, error }) => {
                let before = if self.function.fraction().is_some() { 2 } else { 1 };
                Err(error.labelled(labels(&args, before, at)?).into())
            }
        }
    }
}

/// An array, or one value if the arguments were.
fn answer(args: &ScalarFunctionArgs, answers: ArrayRef) -> Result<ColumnarValue> {
    let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    match is_scalar && answers.len() == 1 {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&answers, 0)?)),
        false => Ok(ColumnarValue::Array(answers)),
    }
}

struct FinishAll<'a> {
    partials: &'a ArrayRef,
    function: AggregateFunction,
}

impl WithAdapter for FinishAll<'_> {
    type Output = Result<Result<ArrayRef, NoAnswer>>;

    fn with<A: Adapter>(self) -> Self::Output {
        let mut partials = vec![A::Partial::default(); self.partials.len()];
        let rows = selected(std::slice::from_ref(self.partials), None);
        feed_encoded(self.partials, rows.as_ref(), &mut partials, |row| row)?;
        Ok(A::finish(&partials, self.function))
    }
}

/// Names and values of the labels in this row, which follow some other arguments; times in RFC 3339.
fn labels(args: &ScalarFunctionArgs, before: usize, row: usize) -> Result<Vec<(String, String)>> {
    let labelled = args.args.iter().zip(&args.arg_fields).skip(before);
    labelled
        .map(|(value, field)| {
            let column = value.to_array(args.number_rows)?;
            Ok((field.name().clone(), label(&column, row)?))
        })
        .collect()
}

fn label(column: &ArrayRef, row: usize) -> Result<String> {
    let is_time = matches!(column.data_type(), DataType::Timestamp(_, _));
    if is_time && column.is_valid(row) {
        let times = cast(column, &time_data_type())?;
        let at = Timestamp::at(downcast::<<Timestamp as Column>::Array>(&times), row);
        return Ok(at.to_string());
    }
    let options = FormatOptions::new().with_null("NULL");
    Ok(ArrayFormatter::try_new(column, &options)?.value(row).to_string())
}
