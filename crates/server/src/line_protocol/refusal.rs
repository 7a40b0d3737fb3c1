//! Why a line is refused.

use highwater_core::FieldType;

/// What is wrong with a line; its text is the `reason` that clients get.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the measurement is missing")]
    NoMeasurement,
    #[error("the line has no fields; it needs at least one, like {measurement} value=1")]
    NoFields { measurement: String },
    #[error("a tag has no key")]
    NoTagKey,
    #[error("tag {0} has no value")]
    NoTagValue(String),
    #[error("the value of tag {0} has an equals sign in it; write it as \\=")]
    EqualsInTagValue(String),
    #[error("tag {0} is there twice")]
    TagTwice(String),
    #[error("a field has no key")]
    NoFieldKey,
    #[error("field {0} has no value")]
    NoFieldValue(String),
    #[error("field {0} is there twice")]
    FieldTwice(String),
    #[error("time is the name of the time column and cannot be a {0}")]
    NamedTime(&'static str),
    #[error("{name} of {measurement} is a tag, so it cannot be a field")]
    TagAsField { name: String, measurement: String },
    #[error("{name} of {measurement} is a field, so it cannot be a tag")]
    FieldAsTag { name: String, measurement: String },
    #[error("field {field} of {measurement} is {stored}, not {written}")]
    FieldType { field: String, measurement: String, stored: FieldType, written: FieldType },
    #[error("the value {value:?} of field {field} is no number, boolean or quoted string")]
    BadValue { field: String, value: String },
    #[error("the value {value} of field {field} does not fit into {field_type}")]
    ValueRange { field: String, value: String, field_type: FieldType },
    #[error("the quoted string of field {0} is not closed")]
    OpenString(String),
    #[error("there is text after the closing quote of field {0}")]
    TextAfterString(String),
    #[error("there is text after a value: {0:?}")]
    TextAfterValue(String),
    #[error("the time {0:?} is not an integer")]
    BadTime(String),
    #[error("the time {0} is outside 1678-01-01 to 2262-01-01")]
    TimeRange(String),
    #[error("there is text after the time: {0:?}")]
    TextAfterTime(String),
    #[error("the name of a {0} has a NUL in it")]
    NulInName(&'static str),
    #[error("the line is not valid UTF-8")]
    NotUtf8,
    #[error("the name of a {kind} is longer than {limit} bytes")]
    LongName { kind: &'static str, limit: usize },
    #[error("the value of tag {tag} is longer than {limit} bytes")]
    LongTagValue { tag: String, limit: usize },
    #[error("the string of field {field} is longer than {limit} bytes")]
    LongString { field: String, limit: usize },
    #[error("{measurement} would have more than {limit} tags")]
    ManyTags { measurement: String, limit: usize },
    #[error("{measurement} would have more than {limit} fields")]
    ManyFields { measurement: String, limit: usize },
    #[error("the request has more than {0} measurements; split it")]
    ManyMeasurements(usize),
    #[error("the lines of the request have too few fields in common; split it")]
    Sparse,
    #[error("the strings of field {0} are more than 2 GiB; split the request")]
    ManyStrings(String),
}
