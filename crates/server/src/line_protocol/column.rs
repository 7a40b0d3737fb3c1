//! The values of one field of one measurement, row by row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray,
    UInt64Array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use highwater_core::FieldType;

use super::Options;
use super::number;
use super::refusal::Refusal;
use super::text;
use super::value::{Quoted, Value};

/// Values of a field; a row without one is padded when a later row or the end needs it.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    /// The name as it is written, with its escapes and the equals sign after it.
    key: Box<[u8]>,
    values: Values,
    /// Rows that have a value or are padded.
    rows: usize,
    /// Padded rows: first row and how many.
    gaps: Vec<(usize, usize)>,
}

#[derive(Debug)]
enum Values {
    Float(Vec<f64>),
    Integer(Vec<i64>),
    Unsigned(Vec<u64>),
    Boolean(Vec<bool>),
    /// Where each string ends in the bytes, after a leading 0.
    String(Vec<i32>, Vec<u8>),
    Timestamp(Vec<i64>),
}

impl Column {
    /// An empty column; `None` if clients cannot write fields of this type.
    pub(super) fn new(name: Arc<str>, key: &[u8], field_type: FieldType) -> Option<Self> {
        let values = match field_type {
            FieldType::Float => Values::Float(Vec::new()),
            FieldType::Integer => Values::Integer(Vec::new()),
            FieldType::Unsigned => Values::Unsigned(Vec::new()),
            FieldType::Boolean => Values::Boolean(Vec::new()),
            FieldType::String => Values::String(vec![0], Vec::new()),
            FieldType::Timestamp => Values::Timestamp(Vec::new()),
            FieldType::Partial => return None,
        };
        Some(Column { name, key: key.into(), values, rows: 0, gaps: Vec::new() })
    }

    /// Position of the value, if the key at `at` is this column's.
    #[inline]
    pub(super) fn value_at(&self, body: &[u8], at: usize) -> Option<usize> {
        body[at..].starts_with(&self.key).then(|| at + self.key.len())
    }

    /// Reads the value at `at` as that of `row` and returns the position after it.
    #[inline]
    pub(super) fn read(
        &mut self,
        body: &[u8],
        at: usize,
        row: usize,
        line: &mut LineContext<'_>,
    ) -> Result<usize, Refusal> {
        if self.rows != row {
            self.catch_up(row)?;
        }
        let end = match &mut self.values {
            Values::Integer(values) => match number::short_integer(body, at) {
                Some((value, end)) if body.get(end) == Some(&b'i') => {
                    values.push(value);
                    end + 1
                }
                _ => self.read_any(body, at, line)?,
            },
            Values::Float(values) => match number::short_float(body, at) {
                Some((value, end)) => {
                    values.push(value);
                    end
                }
                None => self.read_any(body, at, line)?,
            },
            Values::Unsigned(values) => match number::digits(body, at) {
                (value, end)
                    if (at + 1..at + 19).contains(&end) && body.get(end) == Some(&b'u') =>
                {
                    values.push(value);
                    end + 1
                }
                _ => self.read_any(body, at, line)?,
            },
            _ => self.read_any(body, at, line)?,
        };
        self.rows = row + 1;
        Ok(end)
    }

    fn read_any(
        &mut self,
        body: &[u8],
        at: usize,
        line: &mut LineContext<'_>,
    ) -> Result<usize, Refusal> {
        let (value, end) = Value::read(body, at, &self.name)?;
        match (&mut self.values, value) {
            (Values::Float(values), Value::Float(value)) => values.push(value),
            (Values::Integer(values), Value::Integer(value)) => values.push(value),
            (Values::Unsigned(values), Value::Unsigned(value)) => values.push(value),
            (Values::Boolean(values), Value::Boolean(value)) => values.push(value),
            (Values::Timestamp(values), Value::Integer(value)) => {
                let nanos = line.options.precision.to_nanos(value);
                values.push(nanos.ok_or_else(|| range_refusal(&self.name, value))?);
            }
            (Values::String(ends, bytes), Value::String(quoted)) => {
                push_string(&self.name, ends, bytes, quoted, line)?;
            }
            (_, value) => return Err(self.type_refusal(line.measurement, value.field_type())),
        }
        Ok(end)
    }

    fn type_refusal(&self, measurement: &str, written: FieldType) -> Refusal {
        Refusal::FieldType {
            field: self.name.to_string(),
            measurement: measurement.to_owned(),
            stored: self.field_type(),
            written,
        }
    }

    fn field_type(&self) -> FieldType {
        match self.values {
            Values::Float(_) => FieldType::Float,
            Values::Integer(_) => FieldType::Integer,
            Values::Unsigned(_) => FieldType::Unsigned,
            Values::Boolean(_) => FieldType::Boolean,
            Values::String(..) => FieldType::String,
            Values::Timestamp(_) => FieldType::Timestamp,
        }
    }

    /// Pads the rows before `row`.
    #[cold]
    fn catch_up(&mut self, row: usize) -> Result<(), Refusal> {
        if self.rows > row {
            return Err(Refusal::FieldTwice(self.name.to_string()));
        }
        self.gaps.push((self.rows, row - self.rows));
        self.set_rows(row);
        Ok(())
    }

    /// Forgets the value of `row` and, as padding is never wrong, nothing before it.
    pub(super) fn undo(&mut self, row: usize) {
        if self.rows > row {
            self.set_rows(row);
        }
    }

    /// Cuts or pads with arbitrary values.
    fn set_rows(&mut self, rows: usize) {
        match &mut self.values {
            Values::Float(values) => values.resize(rows, 0.0),
            Values::Integer(values) | Values::Timestamp(values) => values.resize(rows, 0),
            Values::Unsigned(values) => values.resize(rows, 0),
            Values::Boolean(values) => values.resize(rows, false),
            Values::String(ends, bytes) => {
                ends.resize(rows + 1, bytes.len() as i32);
                bytes.truncate(ends[rows] as usize);
            }
        }
        self.rows = rows;
    }

    /// Makes room for `rows` rows in all, if most rows so far have a value.
    pub(super) fn expect_rows(&mut self, so_far: usize, rows: usize) {
        if self.rows < so_far || !self.gaps.is_empty() {
            return;
        }
        let more = rows.saturating_sub(self.rows);
        match &mut self.values {
            Values::Float(values) => values.reserve_exact(more),
            Values::Integer(values) | Values::Timestamp(values) => values.reserve_exact(more),
            Values::Unsigned(values) => values.reserve_exact(more),
            Values::Boolean(values) => values.reserve_exact(more),
            Values::String(ends, _) => ends.reserve_exact(more),
        }
    }

    /// Name and values of all `rows` rows, NULL where padded.
    pub(super) fn finish(mut self, rows: usize) -> (Arc<str>, ArrayRef) {
        if self.rows < rows {
            self.gaps.push((self.rows, rows - self.rows));
            self.set_rows(rows);
        }
        let nulls = null_buffer(&self.gaps, rows);
        let array: ArrayRef = match self.values {
            Values::Float(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Integer(values) => Arc::new(Int64Array::new(values.into(), nulls)),
            Values::Unsigned(values) => Arc::new(UInt64Array::new(values.into(), nulls)),
            Values::Timestamp(values) => {
                Arc::new(TimestampNanosecondArray::new(values.into(), nulls))
            }
            Values::Boolean(values) => {
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Values::String(ends, bytes) => Arc::new(StringArray::new(
                OffsetBuffer::new(ScalarBuffer::from(ends)),
                Buffer::from_vec(bytes),
                nulls,
            )),
        };
        (self.name, array)
    }
}

/// What reading a value needs to know of its line, and tells about it.
pub(super) struct LineContext<'a> {
    pub(super) options: &'a Options<'a>,
    pub(super) measurement: &'a str,
    /// Newlines inside strings so far.
    pub(super) newlines: u32,
}

fn push_string(
    field: &str,
    ends: &mut Vec<i32>,
    bytes: &mut Vec<u8>,
    quoted: Quoted<'_>,
    line: &mut LineContext<'_>,
) -> Result<(), Refusal> {
    let before = bytes.len();
    if quoted.has_escapes {
        text::unescape_string(quoted.inside, bytes);
    } else {
        bytes.extend_from_slice(quoted.inside);
    }
    let limit = line.options.limits.string_bytes;
    let refusal = if bytes.len() - before > limit {
        Refusal::LongString { field: field.to_owned(), limit }
    } else if let Ok(end) = i32::try_from(bytes.len()) {
        ends.push(end);
        line.newlines += memchr::memchr_iter(b'\n', quoted.inside).count() as u32;
        return Ok(());
    } else {
        Refusal::ManyStrings(field.to_owned())
    };
    bytes.truncate(before);
    Err(refusal)
}

fn range_refusal(field: &str, value: i64) -> Refusal {
    Refusal::ValueRange {
        field: field.to_owned(),
        value: value.to_string(),
        field_type: FieldType::Timestamp,
    }
}

fn null_buffer(gaps: &[(usize, usize)], rows: usize) -> Option<NullBuffer> {
    if gaps.is_empty() {
        return None;
    }
    let mut valid = arrow::array::BooleanBufferBuilder::new(rows);
    for &(first, count) in gaps {
        valid.append_n(first - valid.len(), true);
        valid.append_n(count, false);
    }
    valid.append_n(rows - valid.len(), true);
    Some(NullBuffer::new(valid.finish()))
}
