//! One column of values as bytes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, GenericByteArray, PrimitiveArray,
    StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, ByteArrayType, Float64Type, Int64Type, TimestampNanosecondType, UInt64Type,
};
use highwater_core::FieldType;

use super::encoding::{Malformed, Unread, put_values};

/// Upper bound of the bytes of a column.
pub(super) fn most_bytes(values: &ArrayRef, field_type: FieldType) -> usize {
    let rows = values.len();
    let bitmap = rows.div_ceil(8);
    2 + bitmap
        + match field_type {
            FieldType::Float | FieldType::Integer | FieldType::Unsigned | FieldType::Timestamp => {
                8 * rows
            }
            FieldType::Boolean => bitmap,
            FieldType::String => 4 * (rows + 1) + text_bytes(values.as_string::<i32>()),
            FieldType::Partial => 4 * (rows + 1) + text_bytes(values.as_binary::<i32>()),
        }
}

/// Appends a column: its type, whether it has NULLs, which values are not NULL, the values.
pub(super) fn encode(out: &mut Vec<u8>, values: &ArrayRef, field_type: FieldType) {
    out.push(code_of(field_type));
    let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0);
    out.push(u8::from(nulls.is_some()));
    if let Some(nulls) = nulls {
        put_bits(out, nulls.inner());
    }
    match field_type {
        FieldType::Float => {
            put_values(out, values.as_primitive::<Float64Type>().values(), f64::to_le_bytes);
        }
        FieldType::Integer => {
            put_values(out, values.as_primitive::<Int64Type>().values(), i64::to_le_bytes);
        }
        FieldType::Unsigned => {
            put_values(out, values.as_primitive::<UInt64Type>().values(), u64::to_le_bytes);
        }
        FieldType::Timestamp => {
            let values = values.as_primitive::<TimestampNanosecondType>().values();
            put_values(out, values, i64::to_le_bytes);
        }
        FieldType::Boolean => put_bits(out, values.as_boolean().values()),
        FieldType::String => put_texts(out, values.as_string::<i32>()),
        FieldType::Partial => put_texts(out, values.as_binary::<i32>()),
    }
}

/// Reads a column of `rows` values.
pub(super) fn decode(bytes: &mut Unread<'_>, rows: usize) -> Result<ArrayRef, Malformed> {
    let field_type = of_code(bytes.u8()?).ok_or(Malformed("a field has an unknown type"))?;
    let nulls = match bytes.u8()? {
        0 => None,
        1 => Some(NullBuffer::new(bits(bytes, rows)?)),
        _ => return Err(Malformed("a mark is neither 0 nor 1")),
    };
    Ok(match field_type {
        FieldType::Float => {
            primitive::<Float64Type>(bytes.values(rows, f64::from_le_bytes)?, nulls)
        }
        FieldType::Integer => {
            primitive::<Int64Type>(bytes.values(rows, i64::from_le_bytes)?, nulls)
        }
        FieldType::Unsigned => {
            primitive::<UInt64Type>(bytes.values(rows, u64::from_le_bytes)?, nulls)
        }
        FieldType::Timestamp => {
            primitive::<TimestampNanosecondType>(bytes.values(rows, i64::from_le_bytes)?, nulls)
        }
        FieldType::Boolean => Arc::new(BooleanArray::new(bits(bytes, rows)?, nulls)),
        FieldType::String => {
            let (offsets, values) = texts(bytes, rows)?;
            let array = StringArray::try_new(offsets, values, nulls);
            Arc::new(array.map_err(|_| Malformed("a text is not UTF-8"))?)
        }
        FieldType::Partial => {
            let (offsets, values) = texts(bytes, rows)?;
            let array = BinaryArray::try_new(offsets, values, nulls);
            Arc::new(array.map_err(|_| Malformed("partials do not fit their offsets"))?)
        }
    })
}

fn code_of(field_type: FieldType) -> u8 {
    match field_type {
        FieldType::Float => 1,
        FieldType::Integer => 2,
        FieldType::Unsigned => 3,
        FieldType::Boolean => 4,
        FieldType::String => 5,
        FieldType::Timestamp => 6,
        FieldType::Partial => 7,
    }
}

fn of_code(code: u8) -> Option<FieldType> {
    Some(match code {
        1 => FieldType::Float,
        2 => FieldType::Integer,
        3 => FieldType::Unsigned,
        4 => FieldType::Boolean,
        5 => FieldType::String,
        6 => FieldType::Timestamp,
        7 => FieldType::Partial,
        _ => return None,
    })
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls))
}

/// Bits, lowest first; bits after the last one are undefined.
fn put_bits(out: &mut Vec<u8>, bits: &BooleanBuffer) {
    out.extend_from_slice(&bits.sliced()[..bits.len().div_ceil(8)]);
}

fn bits(bytes: &mut Unread<'_>, rows: usize) -> Result<BooleanBuffer, Malformed> {
    Ok(BooleanBuffer::new(Buffer::from(bytes.take(rows.div_ceil(8))?), 0, rows))
}

/// Bytes of all texts together.
fn text_bytes<T: ByteArrayType<Offset = i32>>(texts: &GenericByteArray<T>) -> usize {
    let offsets = texts.value_offsets();
    (offsets[texts.len()] - offsets[0]) as usize
}

/// Offsets counted from the first text, one more than there are texts, then the texts.
fn put_texts<T: ByteArrayType<Offset = i32>>(out: &mut Vec<u8>, texts: &GenericByteArray<T>) {
    let offsets = texts.value_offsets();
    let (first, last) = (offsets[0], offsets[texts.len()]);
    put_values(out, offsets, |offset: i32| (offset - first).to_le_bytes());
    out.extend_from_slice(&texts.value_data()[first as usize..last as usize]);
}

fn texts(bytes: &mut Unread<'_>, rows: usize) -> Result<(OffsetBuffer<i32>, Buffer), Malformed> {
    let offsets = bytes.values(rows + 1, i32::from_le_bytes)?;
    if offsets[0] != 0 || !offsets.is_sorted() {
        return Err(Malformed("offsets of texts are not ascending"));
    }
    let values = bytes.take(offsets[rows] as usize)?;
    Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from(values)))
}
