//! Rows as values, for tests: built one by one, compared as a set.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use highwater_core::{Column, ColumnRole, FieldType, Schema};

use super::sort::times_of;

/// One row: integer and string fields only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) time: i64,
    pub(crate) fields: BTreeMap<String, i64>,
}

impl Row {
    pub(crate) fn at(time: i64) -> Self {
        Row { tags: BTreeMap::new(), time, fields: BTreeMap::new() }
    }

    pub(crate) fn tag(mut self, tag: &str, value: &str) -> Self {
        self.tags.insert(tag.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn field(mut self, field: &str, value: i64) -> Self {
        self.fields.insert(field.to_owned(), value);
        self
    }
}

/// A schema of these tags, integer fields, and string fields where the name starts with `s`.
pub(crate) fn schema(tags: &[&str], fields: &[&str]) -> Arc<Schema> {
    let field_type = |name: &str| match name.starts_with('s') {
        true => FieldType::String,
        false => FieldType::Integer,
    };
    let tags = tags.iter().map(|tag| Column::tag(*tag));
    let fields = fields.iter().map(|name| Column::field(*name, field_type(name)));
    Arc::new(Schema::of(tags.chain(fields)))
}

/// The rows as a batch of `schema.arrow()`, in their order.
pub(crate) fn batch(schema: &Schema, rows: &[Row]) -> RecordBatch {
    let times = TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.time));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times)];
    for column in schema.columns() {
        let name = &*column.name;
        let numbers = || rows.iter().map(|row| row.fields.get(name).copied());
        columns.push(match column.role {
            ColumnRole::Tag => {
                let mut values = StringDictionaryBuilder::<Int32Type>::new();
                rows.iter().for_each(|row| values.append_option(row.tags.get(name)));
                Arc::new(values.finish())
            }
            ColumnRole::Field(FieldType::String) => {
                Arc::new(numbers().map(|n| n.map(|n| n.to_string())).collect::<StringArray>())
            }
            ColumnRole::Field(_) => Arc::new(numbers().collect::<Int64Array>()),
        });
    }
    RecordBatch::try_new(schema.arrow(), columns).unwrap()
}

/// The rows of a batch, in their order.
pub(crate) fn rows(batch: &RecordBatch) -> Vec<Row> {
    let mut rows: Vec<Row> = times_of(batch).unwrap().iter().map(|time| Row::at(*time)).collect();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        for (i, row) in rows.iter_mut().enumerate().filter(|(i, _)| column.is_valid(*i)) {
            let name = field.name().clone();
            match field.data_type() {
                DataType::Dictionary(_, _) => {
                    let values = column.as_dictionary::<Int32Type>();
                    let key = values.keys().value(i) as usize;
                    let value = values.values().as_string::<i32>().value(key);
                    row.tags.insert(name, value.to_owned());
                }
                DataType::Int64 => {
                    row.fields.insert(name, column.as_primitive::<Int64Type>().value(i));
                }
                DataType::Utf8 => {
                    let value = column.as_string::<i32>().value(i).parse().unwrap();
                    row.fields.insert(name, value);
                }
                _ => {}
            }
        }
    }
    rows
}
