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

use super::adapter::{Adapter, OverflowAt, WithAdapter, feed_encoded, with_adapter};
use super::column::{Column, downcast, selected};
use super::error::ComputationError;
use super::metadata::input_of;
use crate::partial::Function;

/// `f_finish`; plans made in code say what it gives, SQL learns it from the column of partials.
pub(super) fn finish_udf(function: Function, output: Option<FieldType>) -> Arc<ScalarUDF> {
    let is_mean = function == Function::Mean;
    Arc::new(ScalarUDF::new_from_impl(Finish {
        function,
        output,
        name: format!("{function}_finish"),
        aliases: is_mean.then(|| "avg_finish".to_owned()).into_iter().collect(),
        signature: Signature::variadic_any(Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Finish {
    function: Function,
    output: Option<FieldType>,
    name: String,
    aliases: Vec<String>,
    signature: Signature,
}

impl Finish {
    fn output_for(&self, partial: &Field) -> Result<FieldType> {
        let input = input_of(partial, self.function)?;
        match (self.function, self.output.or(input)) {
            (Function::Count, _) => Ok(FieldType::Integer),
            (Function::Mean, _) => Ok(FieldType::Float),
            (_, Some(output)) => Ok(output),
            (function, None) => plan_err!(
                "{} cannot know the type of its answer; use it on a partial column of an \
                 aggregate, or on {function}_partial(..) or {function}_merge(..) of one",
                self.name
            ),
        }
    }
}

impl ScalarUDFImpl for Finish {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
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
        let output = self.output_for(partial)?;
        let nullable = self.function != Function::Count;
        Ok(Arc::new(Field::new(&self.name, output.arrow(), nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let partials = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Binary)?;
        // The mean's partial is the same whatever its values were.
        let values = FieldType::of_arrow(args.return_type()).unwrap_or(FieldType::Float);
        match with_adapter(self.function, values, FinishAll(&partials))?? {
            Ok(answers) => Ok(answer(&args, answers)?),
            Err(OverflowAt(row)) => {
                Err(ComputationError::IntegerOverflow { labels: labels(&args, row)? }.into())
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

struct FinishAll<'a>(&'a ArrayRef);

impl WithAdapter for FinishAll<'_> {
    type Output = Result<Result<ArrayRef, OverflowAt>>;

    fn with<A: Adapter>(self) -> Self::Output {
        let mut partials = vec![A::Partial::default(); self.0.len()];
        let rows = selected(std::slice::from_ref(self.0), None);
        feed_encoded(self.0, rows.as_ref(), &mut partials, |row| row)?;
        Ok(A::finish(&partials))
    }
}

/// Names and values of the labels in this row; times in RFC 3339.
fn labels(args: &ScalarFunctionArgs, row: usize) -> Result<Vec<(String, String)>> {
    let labelled = args.args.iter().zip(&args.arg_fields).skip(1);
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
