//! Parquet files.

use std::fs::File;

use anyhow::{Context, bail};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, Schema as ArrowSchema, TimeUnit, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use highwater_core::Timestamp;
use indicatif::ProgressBar;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::batch::{Batch, BatchSize, RefusedPoint, Source};
use super::columns::{ColumnChoice, Role};
use super::input::Input;
use super::points::{Key, PointLines, Value};
use crate::formats::is_marked_tag;
use crate::line_protocol::Precision;

/// Rows that are decoded at once.
const ROWS_AT_ONCE: usize = 1024;

/// A Parquet file.
pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    columns: Vec<Column>,
    /// Position of the times.
    time: usize,
    /// Unit of times that are integers.
    precision: Precision,
    decoded: Option<Decoded>,
    points: PointLines,
    size: BatchSize,
    /// Rows before the next one.
    rows: u64,
    all_rows: u64,
    bytes: u64,
    bar: ProgressBar,
}

struct Column {
    at: usize,
    key: Key,
    is_tag: bool,
}

/// How to read a Parquet file.
#[derive(Clone, Debug)]
pub(super) struct ParquetReading<'a> {
    pub(super) measurement: &'a str,
    pub(super) choice: &'a ColumnChoice,
    /// Unit of times that are integers.
    pub(super) precision: Precision,
    pub(super) size: BatchSize,
}

impl ParquetRows {
    /// The rows after the first `skipped` ones.
    ///
    /// # Errors
    /// The file is no Parquet, lacks a column that was chosen, or has one that can be no field.
    pub(super) fn new(
        input: &Input,
        reading: &ParquetReading<'_>,
        skipped: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Self> {
        let file = ParquetRecordBatchReaderBuilder::try_new(File::open(&input.path)?)
            .context("this is no Parquet file, or a damaged one")?;
        let all_rows = u64::try_from(file.metadata().file_metadata().num_rows()).unwrap_or(0);
        let roles = roles(file.schema(), reading.choice)?;
        let used: Vec<usize> = (0..roles.len()).filter(|at| roles[*at] != Role::Unused).collect();
        let (columns, time) = columns(file.schema(), &roles, &used)?;
        let mask = ProjectionMask::roots(file.parquet_schema(), used);
        let reader = file
            .with_projection(mask)
            .with_batch_size(ROWS_AT_ONCE)
            .with_offset(usize::try_from(skipped)?)
            .build()?;
        Ok(ParquetRows {
            reader,
            columns,
            time,
            precision: reading.precision,
            decoded: None,
            points: PointLines::new(reading.measurement)?,
            size: reading.size,
            rows: skipped.min(all_rows),
            all_rows,
            bytes: input.bytes,
            bar: bar.clone(),
        })
    }

    /// Makes sure that there is a row to take; `false` at the end.
    fn decode(&mut self) -> anyhow::Result<bool> {
        while self.decoded.as_ref().is_none_or(|decoded| decoded.next == decoded.rows) {
            let Some(batch) = self.reader.next() else { return Ok(false) };
            let batch =
                batch.with_context(|| format!("could not read on at row {}", self.rows + 1))?;
            self.decoded = Some(Decoded::of(&batch, &self.columns, self.time, self.precision)?);
        }
        Ok(true)
    }

    /// The bar goes by rows, as a Parquet file is not read from front to back.
    fn show_progress(&self, rows_before: u64) {
        let at = |rows: u64| {
            (u128::from(self.bytes) * u128::from(rows) / u128::from(self.all_rows.max(1))) as u64
        };
        self.bar.inc(at(self.rows) - at(rows_before));
    }
}

impl Source for ParquetRows {
    fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        let (mut refused, rows_before) = (Vec::new(), self.rows);
        while self.points.len() + refused.len() < self.size.lines
            && self.points.bytes() < self.size.bytes
            && self.decode()?
        {
            self.rows += 1;
            let Some(decoded) = &mut self.decoded else { break };
            if let Err(reason) = decoded.add_next(&self.columns, self.rows, &mut self.points) {
                refused.push(RefusedPoint { place: self.rows, reason });
            }
        }
        if self.rows == rows_before {
            return Ok(None);
        }
        self.show_progress(rows_before);
        let (body, points, places) = self.points.take();
        Ok(Some(Batch { body, points, end: self.rows, places, refused }))
    }
}

fn roles(schema: &ArrowSchema, choice: &ColumnChoice) -> anyhow::Result<Vec<Role>> {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let own_tags = schema.fields().iter().filter(|field| is_marked_tag(field));
    let own_tags: Vec<String> = own_tags.map(|field| field.name().clone()).collect();
    choice.roles(&names, &own_tags)
}

/// Tags, then fields, and where the time is among the columns that are read.
fn columns(
    schema: &ArrowSchema,
    roles: &[Role],
    used: &[usize],
) -> anyhow::Result<(Vec<Column>, usize)> {
    let (mut tags, mut fields, mut time) = (Vec::new(), Vec::new(), 0);
    for (at, column) in used.iter().enumerate() {
        let field = schema.field(*column);
        let (name, data_type) = (field.name(), field.data_type());
        match roles[*column] {
            Role::Time if !is_time(data_type) => {
                bail!("column {name} is {data_type}, which is no time; name another by --time")
            }
            Role::Time => time = at,
            Role::Tag => tags.push(Column { at, key: Key::new(name)?, is_tag: true }),
            _ if plain_type(data_type).is_none() => bail!(
                "column {name} is {data_type}, which cannot be a field; choose others by --fields"
            ),
            _ => fields.push(Column { at, key: Key::new(name)?, is_tag: false }),
        }
    }
    tags.append(&mut fields);
    Ok((tags, time))
}

fn is_time(data_type: &DataType) -> bool {
    match plain_type(data_type) {
        Some(plain) => {
            matches!(plain, DataType::Int64 | DataType::UInt64 | DataType::Utf8)
        }
        None => false,
    }
}

/// The type as which a column is read; none if it cannot be a field.
fn plain_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Dictionary(_, values) => plain_type(values)?,
        DataType::Boolean => DataType::Boolean,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => DataType::Int64,
        other if other.is_signed_integer() => DataType::Int64,
        other if other.is_unsigned_integer() => DataType::UInt64,
        other if other.is_floating() || other.is_decimal() => DataType::Float64,
        _ => return None,
    })
}

/// Some rows of a Parquet file.
struct Decoded {
    times: Cells,
    /// Per column.
    cells: Vec<Cells>,
    rows: usize,
    next: usize,
}

/// One column of some rows.
enum Cells {
    Integer(Int64Array),
    Unsigned(UInt64Array),
    Float(Float64Array),
    Boolean(BooleanArray),
    String(StringArray),
    Time(Int64Array, Precision),
}

impl Decoded {
    fn of(
        batch: &RecordBatch,
        columns: &[Column],
        time: usize,
        precision: Precision,
    ) -> anyhow::Result<Self> {
        let times = match Cells::of(batch.column(time))? {
            Cells::Integer(ticks) => Cells::Time(ticks, precision),
            Cells::Unsigned(_) => {
                let ticks = cast(batch.column(time), &DataType::Int64)?;
                Cells::Time(ticks.as_primitive::<Int64Type>().clone(), precision)
            }
            other => other,
        };
        let cells = columns.iter().map(|column| {
            let array = batch.column(column.at);
            let array = if column.is_tag { &cast(array, &DataType::Utf8)? } else { array };
            Cells::of(array)
        });
        let cells = cells.collect::<anyhow::Result<_>>()?;
        Ok(Decoded { times, cells, rows: batch.num_rows(), next: 0 })
    }

    /// Makes a point of the next row, which is row `place` of the file.
    fn add_next(
        &mut self,
        columns: &[Column],
        place: u64,
        points: &mut PointLines,
    ) -> Result<(), String> {
        let row = self.next;
        self.next += 1;
        let time = self.times.time(row)?.ok_or("the row has no time")?;
        points.begin();
        for (column, cells) in columns.iter().zip(&self.cells) {
            match cells.value(row)? {
                Some(Value::String(tag)) if column.is_tag => points.tag(&column.key, tag)?,
                Some(value) => points.field(&column.key, value)?,
                None => {}
            }
        }
        points.end(time, place)
    }
}

impl Cells {
    fn of(array: &ArrayRef) -> anyhow::Result<Self> {
        let array = match array.data_type() {
            DataType::Dictionary(_, values) => &cast(array, values)?,
            // Days as milliseconds, which a Date64 counts.
            DataType::Date32 => &cast(array, &DataType::Date64)?,
            _ => array,
        };
        let unit = match array.data_type() {
            DataType::Timestamp(unit, _) => Some(precision_of(*unit)),
            DataType::Date64 => Some(Precision::Millisecond),
            _ => None,
        };
        let plain = plain_type(array.data_type()).context("a column of a type without cells")?;
        let array = cast(array, &plain)?;
        Ok(match (plain, unit) {
            (DataType::Int64, Some(unit)) => {
                Cells::Time(array.as_primitive::<Int64Type>().clone(), unit)
            }
            (DataType::Int64, None) => Cells::Integer(array.as_primitive::<Int64Type>().clone()),
            (DataType::UInt64, _) => Cells::Unsigned(array.as_primitive::<UInt64Type>().clone()),
            (DataType::Float64, _) => Cells::Float(array.as_primitive::<Float64Type>().clone()),
            (DataType::Boolean, _) => Cells::Boolean(array.as_boolean().clone()),
            _ => Cells::String(array.as_string::<i32>().clone()),
        })
    }

    /// The value of a row; none for NULL. Times are integers of nanoseconds.
    fn value(&self, row: usize) -> Result<Option<Value<'_>>, String> {
        if self.array().is_null(row) {
            return Ok(None);
        }
        Ok(Some(match self {
            Cells::Integer(values) => Value::Integer(values.value(row)),
            Cells::Unsigned(values) => Value::Unsigned(values.value(row)),
            Cells::Float(values) => Value::Float(values.value(row)),
            Cells::Boolean(values) => Value::Boolean(values.value(row)),
            Cells::String(values) => Value::String(values.value(row)),
            Cells::Time(ticks, unit) => {
                let ticks = ticks.value(row);
                let nanos = unit.to_nanos(ticks);
                Value::Integer(nanos.ok_or_else(|| {
                    format!("the time {ticks} is outside 1678-01-01 to 2262-01-01")
                })?)
            }
        }))
    }

    /// The same of a column of times.
    fn time(&self, row: usize) -> Result<Option<i64>, String> {
        match self.value(row)? {
            None => Ok(None),
            Some(Value::Integer(nanos)) => Ok(Some(nanos)),
            Some(Value::String(text)) => {
                Timestamp::parse(text.trim()).map(|time| Some(time.as_nanos()))
            }
            Some(other) => Err(format!("{other:?} is no time")),
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Cells::Integer(values) | Cells::Time(values, _) => values,
            Cells::Unsigned(values) => values,
            Cells::Float(values) => values,
            Cells::Boolean(values) => values,
            Cells::String(values) => values,
        }
    }
}

fn precision_of(unit: TimeUnit) -> Precision {
    match unit {
        TimeUnit::Second => Precision::Second,
        TimeUnit::Millisecond => Precision::Millisecond,
        TimeUnit::Microsecond => Precision::Microsecond,
        TimeUnit::Nanosecond => Precision::Nanosecond,
    }
}
