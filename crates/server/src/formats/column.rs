//! One column of a batch, printed cell by cell.

use std::fmt::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, PrimitiveArray, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat};
use highwater_core::Timestamp;

type Print<'a> = Box<dyn Fn(usize, &mut String) + 'a>;

/// How JSON shows the text of a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notation {
    /// As it is: numbers, booleans, text that is JSON already.
    Bare,
    /// As it is if it is finite, else `null`.
    Float,
    /// In quotes.
    Quoted,
}

/// One column of a batch.
pub(super) struct Column<'a> {
    nulls: Option<NullBuffer>,
    notation: Notation,
    print: Print<'a>,
}

impl<'a> Column<'a> {
    pub(super) fn new(array: &'a ArrayRef) -> Result<Self, ArrowError> {
        let (notation, print) = printer(array)?;
        Ok(Column { nulls: array.logical_nulls(), notation, print })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the text of a cell; nothing for NULL.
    pub(super) fn text(&self, row: usize, out: &mut String) {
        if !self.is_null(row) {
            (self.print)(row, out);
        }
    }

    /// Appends a cell as a JSON value.
    pub(super) fn json(&self, row: usize, out: &mut String) {
        if self.is_null(row) {
            out.push_str("null");
            return;
        }
        let start = out.len();
        (self.print)(row, out);
        match self.notation {
            Notation::Bare => {}
            Notation::Float if out[start..].ends_with(|last: char| last.is_ascii_digit()) => {}
            Notation::Float => out.replace_range(start.., "null"),
            Notation::Quoted => {
                let text = out.split_off(start);
                push_quoted(&text, out);
            }
        }
    }
}

/// Appends `text` as a JSON string.
pub(super) fn push_quoted(text: &str, out: &mut String) {
    out.push('"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => push_fmt(out, format_args!("\\u{control:04x}")),
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

fn push_fmt(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string never fails");
}

fn printer(array: &ArrayRef) -> Result<(Notation, Print<'_>), ArrowError> {
    use Notation::{Bare, Float, Quoted};
    Ok(match array.data_type() {
        DataType::Null => (Bare, Box::new(|_, _| {})),
        DataType::Boolean => {
            let values = array.as_boolean();
            (
                Bare,
                Box::new(|row, out| out.push_str(if values.value(row) { "true" } else { "false" })),
            )
        }
        DataType::Int8 => (Bare, number::<Int8Type>(array)),
        DataType::Int16 => (Bare, number::<Int16Type>(array)),
        DataType::Int32 => (Bare, number::<Int32Type>(array)),
        DataType::Int64 => (Bare, number::<Int64Type>(array)),
        DataType::UInt8 => (Bare, number::<UInt8Type>(array)),
        DataType::UInt16 => (Bare, number::<UInt16Type>(array)),
        DataType::UInt32 => (Bare, number::<UInt32Type>(array)),
        DataType::UInt64 => (Bare, number::<UInt64Type>(array)),
        DataType::Float16 => (Float, float(array.as_primitive::<Float16Type>(), |v| v.to_f64())),
        DataType::Float32 => (Float, number_debug(array.as_primitive::<Float32Type>())),
        DataType::Float64 => (Float, number_debug(array.as_primitive::<Float64Type>())),
        DataType::Utf8 => (Quoted, strings(array.as_string::<i32>())),
        DataType::LargeUtf8 => (Quoted, strings(array.as_string::<i64>())),
        DataType::Utf8View => {
            let values = array.as_string_view();
            (Quoted, Box::new(|row, out| out.push_str(values.value(row))))
        }
        DataType::Timestamp(unit, _) => (Quoted, time(array, *unit)),
        DataType::Dictionary(_, _) => dictionary(array)?,
        DataType::Struct(_) => (Bare, structs(array.as_struct())?),
        DataType::List(_) => (Bare, list(array.as_list::<i32>())?),
        DataType::LargeList(_) => (Bare, list(array.as_list::<i64>())?),
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => (Bare, other(array)?),
        _ => (Quoted, other(array)?),
    })
}

fn number<T: ArrowPrimitiveType>(array: &ArrayRef) -> Print<'_>
where
    T::Native: std::fmt::Display,
{
    let values: &PrimitiveArray<T> = array.as_primitive();
    Box::new(|row, out| push_fmt(out, format_args!("{}", values.value(row))))
}

/// Floats: Rust's debug form is the shortest that reads back, with a decimal or an exponent.
fn number_debug<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>) -> Print<'_>
where
    T::Native: std::fmt::Debug,
{
    Box::new(|row, out| push_fmt(out, format_args!("{:?}", values.value(row))))
}

fn float<T: ArrowPrimitiveType>(
    values: &PrimitiveArray<T>,
    widen: impl Fn(T::Native) -> f64 + 'static,
) -> Print<'_> {
    Box::new(move |row, out| push_fmt(out, format_args!("{:?}", widen(values.value(row)))))
}

fn strings<O: OffsetSizeTrait>(values: &arrow::array::GenericStringArray<O>) -> Print<'_> {
    Box::new(|row, out| out.push_str(values.value(row)))
}

fn time(array: &ArrayRef, unit: TimeUnit) -> Print<'_> {
    let (ticks, per_sec): (Box<dyn Fn(usize) -> i64 + '_>, i64) = match unit {
        TimeUnit::Second => (ticks::<TimestampSecondType>(array), 1),
        TimeUnit::Millisecond => (ticks::<TimestampMillisecondType>(array), 1_000),
        TimeUnit::Microsecond => (ticks::<TimestampMicrosecondType>(array), 1_000_000),
        TimeUnit::Nanosecond => (ticks::<TimestampNanosecondType>(array), 1_000_000_000),
    };
    Box::new(move |row, out| push_time(ticks(row), per_sec, out))
}

fn ticks<T: ArrowPrimitiveType<Native = i64>>(array: &ArrayRef) -> Box<dyn Fn(usize) -> i64 + '_> {
    let values: &PrimitiveArray<T> = array.as_primitive();
    Box::new(|row| values.value(row))
}

fn push_time(ticks: i64, per_sec: i64, out: &mut String) {
    if let Some(nanos) = ticks.checked_mul(1_000_000_000 / per_sec) {
        push_fmt(out, format_args!("{}", Timestamp::from_nanos(nanos)));
        return;
    }
    let nanos = (ticks.rem_euclid(per_sec) * (1_000_000_000 / per_sec)) as u32;
    match DateTime::from_timestamp(ticks.div_euclid(per_sec), nanos) {
        Some(at) => out.push_str(&at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        None => push_fmt(out, format_args!("{ticks}")),
    }
}

fn dictionary(array: &ArrayRef) -> Result<(Notation, Print<'_>), ArrowError> {
    let array = array.as_any_dictionary();
    // Without values all rows are NULL, and nothing is asked for.
    let keys = if array.values().is_empty() { Vec::new() } else { array.normalized_keys() };
    let (notation, print) = printer(array.values())?;
    Ok((notation, Box::new(move |row, out| print(keys[row], out))))
}

fn structs(array: &StructArray) -> Result<Print<'_>, ArrowError> {
    let names: Vec<&String> = array.fields().iter().map(|field| field.name()).collect();
    let columns: Vec<Column<'_>> =
        array.columns().iter().map(Column::new).collect::<Result<_, _>>()?;
    Ok(Box::new(move |row, out| {
        for (at, (name, column)) in names.iter().zip(&columns).enumerate() {
            out.push(if at == 0 { '{' } else { ',' });
            push_quoted(name, out);
            out.push(':');
            column.json(row, out);
        }
        out.push_str(if columns.is_empty() { "{}" } else { "}" });
    }))
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> Result<Print<'_>, ArrowError> {
    let values = Column::new(array.values())?;
    let offsets = array.value_offsets();
    Ok(Box::new(move |row, out| {
        out.push('[');
        for at in offsets[row].as_usize()..offsets[row + 1].as_usize() {
            if at > offsets[row].as_usize() {
                out.push(',');
            }
            values.json(at, out);
        }
        out.push(']');
    }))
}

/// Dates, times of day, intervals, decimals, bytes and what else there is, as Arrow prints them.
fn other(array: &ArrayRef) -> Result<Print<'_>, ArrowError> {
    const OPTIONS: FormatOptions<'static> = FormatOptions::new();
    let cells = ArrayFormatter::try_new(array.as_ref(), &OPTIONS)?;
    Ok(Box::new(move |row, out| push_fmt(out, format_args!("{}", cells.value(row)))))
}
