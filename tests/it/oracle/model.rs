//! What a measurement should hold, in the plainest way: a map from identity to fields.

use std::collections::{BTreeMap, BTreeSet};

use highwater_core::Timestamp;

/// A field's value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Float(f64),
    Integer(i64),
    Text(&'static str),
    Boolean(bool),
    Time(i64),
}

impl Value {
    fn line_protocol(&self) -> String {
        match self {
            Value::Float(value) => format!("{value:?}"),
            Value::Integer(value) | Value::Time(value) => format!("{value}i"),
            Value::Text(value) => format!("{value:?}"),
            Value::Boolean(value) => value.to_string(),
        }
    }

    /// As [`cell`](super::database::cell) writes a value of an answer.
    fn cell(&self) -> String {
        match self {
            Value::Float(value) => float_cell(*value),
            Value::Integer(value) | Value::Time(value) => value.to_string(),
            Value::Text(value) => (*value).to_owned(),
            Value::Boolean(value) => value.to_string(),
        }
    }
}

/// A float with its bits, so that equal texts are equal bits.
pub(crate) fn float_cell(value: f64) -> String {
    format!("{value:?} {:016x}", value.to_bits())
}

/// A point as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) tags: BTreeMap<&'static str, &'static str>,
    pub(crate) time: i64,
    pub(crate) fields: BTreeMap<&'static str, Value>,
}

impl Point {
    pub(crate) fn line(&self, measurement: &str) -> String {
        let tags: String = self.tags.iter().map(|(key, value)| format!(",{key}={value}")).collect();
        let fields = self.fields.iter().map(|(key, v)| format!("{key}={}", v.line_protocol()));
        format!("{measurement}{tags} {} {}", fields.collect::<Vec<_>>().join(","), self.time)
    }
}

/// A delete over time, the tag `host` and the field `s`.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    /// `Some(None)`: points without that tag.
    pub(crate) host: Option<Option<&'static str>>,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Only points with this text.
    pub(crate) text: Option<&'static str>,
}

impl Deletion {
    pub(crate) fn sql(&self, measurement: &str) -> String {
        let at = |nanos| Timestamp::from_nanos(nanos).to_string();
        let host = match self.host {
            None => String::new(),
            Some(None) => " AND host IS NULL".to_owned(),
            Some(Some(host)) => format!(" AND host = '{host}'"),
        };
        let text = self.text.map(|text| format!(" AND s = '{text}'")).unwrap_or_default();
        format!(
            "DELETE FROM {measurement} WHERE time >= '{}' AND time < '{}'{host}{text}",
            at(self.start),
            at(self.end)
        )
    }

    fn hits(&self, (tags, time): &Identity, fields: &BTreeMap<&str, Value>) -> bool {
        let host = self.host.is_none_or(|host| tags.get("host").copied() == host);
        let found = fields.get("s");
        let text = self
            .text
            .is_none_or(|text| matches!(found, Some(Value::Text(found)) if *found == text));
        host && text && (self.start..self.end).contains(time)
    }
}

type Identity = (BTreeMap<&'static str, &'static str>, i64);

/// Deduplicated points.
#[derive(Debug, Default)]
pub(crate) struct Model {
    points: BTreeMap<Identity, BTreeMap<&'static str, Value>>,
    columns: BTreeSet<&'static str>,
}

impl Model {
    pub(crate) fn write(&mut self, points: &[Point]) {
        for point in points {
            self.columns.extend(point.tags.keys().chain(point.fields.keys()));
            let fields = self.points.entry((point.tags.clone(), point.time)).or_default();
            fields.extend(point.fields.iter().map(|(key, value)| (*key, value.clone())));
        }
    }

    pub(crate) fn delete(&mut self, deletion: &Deletion) {
        self.points.retain(|identity, fields| !deletion.hits(identity, fields));
    }

    /// Tags and fields that were ever written, in alphabetical order.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.columns.iter().copied()
    }

    /// `time` and [`columns`](Model::columns) of every point from `horizon` on, sorted.
    pub(crate) fn rows_since(&self, horizon: i64) -> Vec<Vec<String>> {
        let row = |((tags, time), fields): (&Identity, &BTreeMap<&str, Value>)| {
            let cell = |column: &str| match (tags.get(column), fields.get(column)) {
                (Some(tag), _) => (*tag).to_owned(),
                (None, Some(value)) => value.cell(),
                (None, None) => super::database::NULL.to_owned(),
            };
            std::iter::once(time.to_string()).chain(self.columns().map(cell)).collect()
        };
        let mut rows: Vec<Vec<String>> =
            self.points.iter().filter(|((_, time), _)| *time >= horizon).map(row).collect();
        rows.sort();
        rows
    }
}
