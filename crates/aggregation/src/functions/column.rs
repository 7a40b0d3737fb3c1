//! Reading values out of Arrow arrays, and putting answers into new ones.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowNativeType, DataType, Float64Type, Int64Type, TimestampNanosecondType, UInt64Type,
};
use highwater_core::{FieldType, Timestamp};

use crate::partial::Value;

/// A value that has an Arrow array.
pub(super) trait Column: Value {
    /// The array of a field of this type.
    type Array: Array + 'static;

    /// The value in a row that is not NULL.
    fn at(array: &Self::Array, row: usize) -> Self::Ref<'_>;

    /// An array of these values.
    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef;
}

macro_rules! primitive_column {
    ($value:ty, $arrow:ty) => {
        impl Column for $value {
            type Array = PrimitiveArray<$arrow>;

            #[inline]
            fn at(array: &Self::Array, row: usize) -> $value {
                array.values()[row]
            }

            fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
                Arc::new(values.map(|value| value.copied()).collect::<Self::Array>())
            }
        }
    };
}

primitive_column!(f64, Float64Type);
primitive_column!(i64, Int64Type);
primitive_column!(u64, UInt64Type);

impl Column for Timestamp {
    type Array = PrimitiveArray<TimestampNanosecondType>;

    #[inline]
    fn at(array: &Self::Array, row: usize) -> Timestamp {
        Timestamp::from_nanos(array.values()[row])
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        Arc::new(values.map(|value| value.map(|at| at.as_nanos())).collect::<Self::Array>())
    }
}

impl Column for bool {
    type Array = BooleanArray;

    #[inline]
    fn at(array: &BooleanArray, row: usize) -> bool {
        array.value(row)
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        Arc::new(values.map(|value| value.copied()).collect::<BooleanArray>())
    }
}

impl Column for String {
    type Array = StringArray;

    #[inline]
    fn at(array: &StringArray, row: usize) -> &str {
        array.value(row)
    }

    fn array<'a>(values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        Arc::new(values.collect::<StringArray>())
    }
}

/// A number that sums and means are made of.
pub(super) trait Number: Column + ArrowNativeType {
    /// The number's Arrow type.
    type Arrow: ArrowPrimitiveType<Native = Self>;

    /// Equal bits for numbers that SQL holds for equal.
    fn to_key(self) -> u64;

    /// Undoes [`to_key`](Number::to_key).
    fn from_key(key: u64) -> Self;

    /// The number as a float, rounded to the nearest.
    fn nearest_float(self) -> f64;
}

impl Number for f64 {
    type Arrow = Float64Type;

    fn to_key(self) -> u64 {
        // Adding 0.0 makes -0.0 positive.
        if self.is_nan() { f64::NAN.to_bits() } else { (self + 0.0).to_bits() }
    }

    fn from_key(key: u64) -> f64 {
        f64::from_bits(key)
    }

    #[inline]
    fn nearest_float(self) -> f64 {
        self
    }
}

impl Number for i64 {
    type Arrow = Int64Type;

    fn to_key(self) -> u64 {
        self.cast_unsigned()
    }

    fn from_key(key: u64) -> i64 {
        key.cast_signed()
    }

    #[inline]
    fn nearest_float(self) -> f64 {
        self as f64
    }
}

impl Number for u64 {
    type Arrow = UInt64Type;

    fn to_key(self) -> u64 {
        self
    }

    fn from_key(key: u64) -> u64 {
        key
    }

    #[inline]
    fn nearest_float(self) -> f64 {
        self as f64
    }
}

/// The field type that values of this Arrow type are read as, if there is one.
///
/// Narrow numbers count as wide ones, other units of time as nanoseconds without a zone, all kinds
/// of strings (and so tags) as `Utf8`, untyped NULLs as floats.
pub(super) fn field_type_of(data_type: &DataType) -> Option<FieldType> {
    Some(match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Null => {
            FieldType::Float
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => FieldType::Integer,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            FieldType::Unsigned
        }
        DataType::Boolean => FieldType::Boolean,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => FieldType::String,
        DataType::Timestamp(_, _) => FieldType::Timestamp,
        DataType::Dictionary(_, values) => return field_type_of(values),
        _ => return None,
    })
}

/// The rows that count: valid in every column and let through by the filter; `None` for all rows.
pub(super) fn selected(columns: &[ArrayRef], filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let passing = filter.map(|filter| {
        let valid = filter.nulls().map(|nulls| filter.values() & nulls.inner());
        NullBuffer::new(valid.unwrap_or_else(|| filter.values().clone()))
    });
    let valid = columns.iter().fold(passing, |rows, column| {
        NullBuffer::union(rows.as_ref(), column.logical_nulls().as_ref())
    });
    valid.filter(|rows| rows.null_count() > 0)
}

/// Calls `visit` for each selected row of `length`.
#[inline]
pub(super) fn for_each_row(length: usize, rows: Option<&NullBuffer>, mut visit: impl FnMut(usize)) {
    match rows {
        None => (0..length).for_each(visit),
        Some(rows) => rows.valid_indices().for_each(&mut visit),
    }
}

/// An array as what DataFusion's type coercion has made of it.
pub(super) fn downcast<A: Array + 'static>(column: &ArrayRef) -> &A {
    column
        .as_any()
        .downcast_ref()
        .expect("arguments were coerced to the type the accumulator was made for")
}

/// An array of partials, likewise.
pub(super) fn binary(column: &ArrayRef) -> &arrow::array::BinaryArray {
    column.as_binary::<i32>()
}
