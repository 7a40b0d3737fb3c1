//! Types and values of fields.

use std::fmt;

use arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Type of a field; the first one written stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// 64-bit IEEE float.
    Float,
    /// 64-bit signed integer.
    Integer,
    /// 64-bit unsigned integer.
    Unsigned,
    /// True or false.
    Boolean,
    /// UTF-8 text.
    String,
    /// Nanoseconds since the epoch, declared in a rule file.
    Timestamp,
    /// Encoded partials; never written by clients.
    Partial,
}

impl FieldType {
    /// The Arrow type of the field's column.
    pub fn arrow(self) -> DataType {
        match self {
            FieldType::Float => DataType::Float64,
            FieldType::Integer => DataType::Int64,
            FieldType::Unsigned => DataType::UInt64,
            FieldType::Boolean => DataType::Boolean,
            FieldType::String => DataType::Utf8,
            FieldType::Timestamp => DataType::Timestamp(TimeUnit::Nanosecond, None),
            FieldType::Partial => DataType::Binary,
        }
    }

    /// The field type whose column has this Arrow type, if there is one.
    pub fn of_arrow(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Float64 => FieldType::Float,
            DataType::Int64 => FieldType::Integer,
            DataType::UInt64 => FieldType::Unsigned,
            DataType::Boolean => FieldType::Boolean,
            DataType::Utf8 => FieldType::String,
            DataType::Timestamp(TimeUnit::Nanosecond, None) => FieldType::Timestamp,
            DataType::Binary => FieldType::Partial,
            _ => return None,
        })
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldType::Float => "float",
            FieldType::Integer => "integer",
            FieldType::Unsigned => "unsigned",
            FieldType::Boolean => "boolean",
            FieldType::String => "string",
            FieldType::Timestamp => "timestamp",
            FieldType::Partial => "partial",
        })
    }
}

/// One value of a field or of a tag, as conditions compare with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldValue {
    /// See [`FieldType::Float`].
    Float(f64),
    /// See [`FieldType::Integer`].
    Integer(i64),
    /// See [`FieldType::Unsigned`].
    Unsigned(u64),
    /// See [`FieldType::Boolean`].
    Boolean(bool),
    /// See [`FieldType::String`]; also the value of a tag.
    String(String),
    /// See [`FieldType::Timestamp`]; also compared with `time`.
    Timestamp(Timestamp),
}

impl FieldValue {
    /// The type of a field that could hold this value.
    pub fn field_type(&self) -> FieldType {
        match self {
            FieldValue::Float(_) => FieldType::Float,
            FieldValue::Integer(_) => FieldType::Integer,
            FieldValue::Unsigned(_) => FieldType::Unsigned,
            FieldValue::Boolean(_) => FieldType::Boolean,
            FieldValue::String(_) => FieldType::String,
            FieldValue::Timestamp(_) => FieldType::Timestamp,
        }
    }
}
