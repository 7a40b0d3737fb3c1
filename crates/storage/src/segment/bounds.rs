//! Bounds of the rows of a segment, gathered while it is written.

use arrow::array::Array;
use highwater_core::{Schema, TimeRange, Timestamp};

use super::TagBounds;
use super::tag_keys::{TagColumn, TagColumns};

/// Smallest and greatest time and tag values of the rows seen so far.
#[derive(Debug)]
pub(crate) struct Bounds {
    first: i64,
    last: i64,
    tags: Vec<TagBounds>,
}

impl Bounds {
    /// The bounds of no rows at all.
    pub(crate) fn new(schema: &Schema) -> Self {
        let tags = schema.tags().iter();
        let tags = tags.map(|tag| TagBounds { tag: tag.clone(), values: None, has_null: false });
        Bounds { first: i64::MAX, last: i64::MIN, tags: tags.collect() }
    }

    /// Widens the bounds by some rows.
    pub(crate) fn add(&mut self, times: &[i64], tags: &TagColumns) {
        for &time in times {
            self.first = self.first.min(time);
            self.last = self.last.max(time);
        }
        for (bounds, column) in self.tags.iter_mut().zip(tags.columns()) {
            add_tag(bounds, column, times.len());
        }
    }

    /// From the first time to one past the last; empty without rows.
    pub(crate) fn times(&self) -> TimeRange {
        let end = Timestamp::from_nanos(self.last).saturating_add(1);
        TimeRange::new(Timestamp::from_nanos(self.first), end)
    }

    /// Bounds per tag, in the order of the schema.
    pub(crate) fn into_tags(self) -> Vec<TagBounds> {
        self.tags
    }
}

fn add_tag(bounds: &mut TagBounds, column: &TagColumn, rows: usize) {
    let mut is_used = vec![false; column.values().len()];
    for row in 0..rows {
        match column.key(row) {
            Some(key) => is_used[key] = true,
            None => bounds.has_null = true,
        }
    }
    for (value, _) in column.values().iter().zip(is_used).filter(|(_, is_used)| *is_used) {
        let value = value.expect("a key in use refers to a value");
        match &mut bounds.values {
            None => bounds.values = Some((value.to_owned(), value.to_owned())),
            Some((min, _)) if value < min.as_str() => value.clone_into(min),
            Some((_, max)) if value > max.as_str() => value.clone_into(max),
            Some(_) => {}
        }
    }
}
