//! Functions that make much of little, held within bounds.
//!
//! `repeat('a', 2000000000)` is a short line and two gigabytes. Functions of a row allocate on
//! their own, out of sight of the memory pool and while nothing can stop them; so those whose
//! result grows with a number, not with their input, are asked first how large it will be.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::common::{Result, resources_datafusion_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};
use highwater_core::time::NANOS_PER_DAY;

/// Bytes or elements that one call over a batch of rows may make.
const MOST: i128 = 64 << 20;

/// The functions that are held within bounds, and what their size is.
const BOUNDED: [(&str, Size); 7] = [
    ("repeat", Size::Times(0)),
    ("lpad", Size::Second),
    ("rpad", Size::Second),
    ("array_repeat", Size::Times(0)),
    ("array_resize", Size::Times(2)),
    ("range", Size::Steps),
    ("generate_series", Size::Steps),
];

/// What the size of a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Size {
    /// The second argument times the bytes of the one at this position.
    Times(usize),
    /// The second argument.
    Second,
    /// The steps from the first argument to the second, or from 0 to the first.
    Steps,
}

/// A function that is asked first how large its result will be.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    size: Size,
}

/// Names of the functions that [`bounded`] is for.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    BOUNDED.iter().map(|(name, _)| *name)
}

/// The function within bounds; as it is if it needs none.
pub(crate) fn bounded(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match BOUNDED.iter().find(|(name, _)| *name == inner.name()) {
        Some((_, size)) => Arc::new(ScalarUDF::from(Bounded { inner, size: *size })),
        None => inner,
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let size = self.size.of(&args.args)?;
        if size > MOST {
            return Err(resources_datafusion_err!(
                "{} would make {size} bytes or elements at once; {MOST} are allowed",
                self.name()
            ));
        }
        self.inner.invoke_with_args(args)
    }
}

impl Size {
    /// Of the results of all rows together.
    fn of(self, args: &[ColumnarValue]) -> Result<i128> {
        let args = ColumnarValue::values_to_arrays(args)?;
        let rows = args.first().map_or(0, |first| first.len());
        let numbers: Vec<Option<ArrayRef>> = args.iter().map(numbers).collect();
        let number = |at: usize, row: usize| {
            let numbers = numbers.get(at)?.as_ref()?.as_primitive::<Int64Type>();
            numbers.is_valid(row).then(|| i128::from(numbers.value(row)))
        };
        let bytes = match self {
            Size::Times(at) => args.get(at).map_or(1, bytes_of_one),
            Size::Second | Size::Steps => 1,
        };
        let of_row = |row: usize| match self {
            Size::Times(_) | Size::Second => number(1, row).unwrap_or(0).max(0) * bytes,
            Size::Steps => {
                let (start, stop) = match args.len() {
                    1 => (Some(0), number(0, row)),
                    _ => (number(0, row), number(1, row)),
                };
                let step = number(2, row).unwrap_or(1).abs().max(1);
                start.zip(stop).map_or(0, |(start, stop)| (stop - start).abs() / step)
            }
        };
        Ok((0..rows).map(of_row).sum())
    }
}

/// Bytes of a value, on average and at least 1.
fn bytes_of_one(values: &ArrayRef) -> i128 {
    let bytes = match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().value_data().len(),
        _ => values.to_data().get_slice_memory_size().unwrap_or(0),
    };
    (bytes as i128 / values.len().max(1) as i128).max(1)
}

/// Whole numbers as they are, times and intervals in nanoseconds; `None` for anything else.
fn numbers(values: &ArrayRef) -> Option<ArrayRef> {
    let as_nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let wrong_is_null = CastOptions { safe: true, ..CastOptions::default() };
    match values.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let nanos = values.as_primitive::<IntervalMonthDayNanoType>().unary::<_, Int64Type>(
                |interval| {
                    let days = i64::from(interval.months) * 28 + i64::from(interval.days);
                    days.saturating_mul(NANOS_PER_DAY).saturating_add(interval.nanoseconds)
                },
            );
            Some(Arc::new(nanos))
        }
        DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 => {
            let nanos = cast_with_options(values, &as_nanos, &wrong_is_null).ok()?;
            cast(&nanos, &DataType::Int64).ok()
        }
        number if number.is_integer() => {
            cast_with_options(values, &DataType::Int64, &wrong_is_null).ok()
        }
        _ => None,
    }
}
