//! Partials of one function from those of others over the same values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, BinaryBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use highwater_core::FieldType;

use super::column::binary;
use super::error::undecodable;
use super::metadata::partial_field;
use crate::partial::{Count, DecodeError, ExactSum, Function, IntegerSum, Mean, Partial};

/// The partial of a mean, from those of the sum and the count of values of a type.
pub(crate) fn mean_of(sum: Expr, count: Expr, values: FieldType) -> Expr {
    Conversion::MeanOf(values).call(vec![sum, count])
}

/// The partial of the sum of floats, from that of their mean.
pub(crate) fn sum_of_mean(mean: Expr) -> Expr {
    Conversion::SumOfMean.call(vec![mean])
}

/// The partial of a count of values, from that of their mean.
pub(crate) fn count_of_mean(mean: Expr) -> Expr {
    Conversion::CountOfMean.call(vec![mean])
}

/// The same partials in a column that says what they are: stored ones say nothing, so that plans
/// over both kinds would differ in what they say.
pub(crate) fn described(partial: Expr, function: Function, values: Option<FieldType>) -> Expr {
    Conversion::Described(function, values).call(vec![partial])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Conversion {
    Described(Function, Option<FieldType>),
    MeanOf(FieldType),
    SumOfMean,
    CountOfMean,
}

/// A conversion as a function of rows. NULL, the partial of nothing, gives NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    conversion: Conversion,
    signature: Signature,
}

impl Conversion {
    fn call(self, partials: Vec<Expr>) -> Expr {
        let signature = Signature::any(partials.len(), Volatility::Immutable);
        ScalarUDF::from(Convert { conversion: self, signature }).call(partials)
    }

    /// Appends the encoding of what these partials give.
    fn convert(self, partials: &[&[u8]], bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
        match (self, partials) {
            (Conversion::MeanOf(values), [sum, count]) => {
                let count = Count::decode(count)?;
                mean(values, sum, count.finish())?.encode(bytes);
            }
            (Conversion::SumOfMean, [mean]) => Mean::decode(mean)?.sum().encode(bytes),
            (_, [mean]) => Mean::decode(mean)?.count().encode(bytes),
            _ => {}
        }
        Ok(())
    }
}

fn mean(values: FieldType, sum: &[u8], count: u64) -> Result<Mean, DecodeError> {
    Ok(match values {
        FieldType::Integer => Mean::of_integers(IntegerSum::<i64>::decode(sum)?.total(), count),
        FieldType::Unsigned => Mean::of_integers(IntegerSum::<u64>::decode(sum)?.total(), count),
        _ => Mean::of(ExactSum::decode(sum)?, count),
    })
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        match self.conversion {
            Conversion::MeanOf(_) => "mean_of_partials",
            Conversion::Described(..) => "described",
            Conversion::SumOfMean => "sum_of_mean",
            Conversion::CountOfMean => "count_of_mean",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        let field = match self.conversion {
            Conversion::Described(function, values) => partial_field(self.name(), function, values),
            _ => Field::new(self.name(), DataType::Binary, true),
        };
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = args
            .args
            .iter()
            .map(|arg| Ok(cast(&arg.to_array(args.number_rows)?, &DataType::Binary)?));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        if let (Conversion::Described(..), [same]) = (self.conversion, columns.as_slice()) {
            return Ok(ColumnarValue::Array(Arc::clone(same)));
        }
        if columns.iter().any(|column| column.len() != args.number_rows) {
            return internal_err!("{} got columns of different lengths", self.name());
        }
        let columns: Vec<&BinaryArray> = columns.iter().map(binary).collect();
        let (mut converted, mut bytes) = (BinaryBuilder::new(), Vec::new());
        for row in 0..args.number_rows {
            if columns.iter().any(|column| column.is_null(row)) {
                converted.append_null();
                continue;
            }
            let partials: Vec<&[u8]> = columns.iter().map(|column| column.value(row)).collect();
            bytes.clear();
            self.conversion.convert(&partials, &mut bytes).map_err(undecodable)?;
            converted.append_value(&bytes);
        }
        Ok(ColumnarValue::Array(Arc::new(converted.finish())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partial::Update;

    fn encoded(partial: &impl Partial) -> Vec<u8> {
        let mut bytes = Vec::new();
        partial.encode(&mut bytes);
        bytes
    }

    fn converted(conversion: Conversion, partials: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        conversion.convert(partials, &mut bytes).unwrap();
        bytes
    }

    fn of<N: Copy, P: Update<N>>(values: &[N]) -> P {
        let mut partial = P::default();
        values.iter().for_each(|value| partial.update(*value));
        partial
    }

    fn count(values: usize) -> Count {
        let mut count = Count::default();
        (0..values).for_each(|_| count.update());
        count
    }

    #[test]
    fn a_sum_and_a_count_are_a_mean_bit_for_bit() {
        for values in [&[][..], &[-0.0], &[0.1, 1e16, -1e16], &[f64::MAX, f64::MAX], &[f64::NAN]] {
            let (sum, mean): (ExactSum, Mean) = (of(values), of(values));
            let count = encoded(&count(values.len()));
            let own = encoded(&mean);
            let both = [&*encoded(&sum), &*count];
            assert_eq!(converted(Conversion::MeanOf(FieldType::Float), &both), own, "{values:?}");
            assert_eq!(converted(Conversion::SumOfMean, &[&own]), encoded(&sum), "{values:?}");
            assert_eq!(converted(Conversion::CountOfMean, &[&own]), count, "{values:?}");
        }
        for values in [&[][..], &[0], &[7, -3, 1 << 40], &[i64::MAX, i64::MAX, 5], &[i64::MIN; 3]] {
            let (sum, mean): (IntegerSum<i64>, Mean) = (of(values), of(values));
            let both = [&*encoded(&sum), &*encoded(&count(values.len()))];
            let found = Mean::decode(&converted(Conversion::MeanOf(FieldType::Integer), &both));
            assert_eq!(found.unwrap().finish(), mean.finish(), "{values:?}");
        }
    }
}
