//! What an import would do: everything is read as the server reads it, and nothing is sent.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;
use std::sync::Arc;

use highwater_core::{Column, FieldType, PointBatch, Schema, Timestamp};

use super::batch::{Batch, RefusedPoint};
use super::input::Input;
use crate::cli::counted;
use crate::demo::grouped;
use crate::line_protocol::{Limits, Options, Precision, parse_with};

/// Refused points that are shown per file.
const SHOWN: usize = 20;
/// The time of points that have none.
const NO_TIME: Timestamp = Timestamp::from_nanos(i64::MIN);

/// What was found in all files: the first type of a field stands.
#[derive(Debug, Default)]
pub(super) struct DryRun {
    schemas: BTreeMap<Arc<str>, Arc<Schema>>,
}

/// What was found in one file.
#[derive(Debug, Default)]
pub(super) struct FileReport {
    measurements: BTreeMap<Arc<str>, Found>,
    refused: Vec<RefusedPoint>,
    pub(super) refused_count: u64,
    points: u64,
}

#[derive(Debug, Default)]
struct Found {
    points: u64,
    without_time: u64,
    times: Option<(i64, i64)>,
    columns: Schema,
}

impl DryRun {
    /// Reads a batch as the server would, if these files were all it knew.
    pub(super) fn read(&mut self, batch: &Batch, precision: Precision, report: &mut FileReport) {
        let schema_of = |measurement: &str| self.schemas.get(measurement).cloned();
        let limits = Limits::default();
        let options =
            Options { precision, default_time: NO_TIME, limits: &limits, schema_of: &schema_of };
        let parsed = parse_with(&batch.body, &options);
        let refused = parsed.refused.into_iter().map(|refused| RefusedPoint {
            place: batch.place_of(u64::from(refused.line)),
            reason: refused.reason,
        });
        let refused = refused.chain(batch.refused.iter().cloned());
        report.refused_count += (parsed.refused_count + batch.refused.len()) as u64;
        let mut refused: Vec<RefusedPoint> = refused.collect();
        refused.sort_by_key(|refused| refused.place);
        report.refused.extend(refused.into_iter().take(SHOWN - report.refused.len()));
        for points in &parsed.batches {
            let known = self.schemas.entry(Arc::clone(&points.measurement)).or_default();
            add_columns(points, Arc::make_mut(known));
            report.add(points);
        }
    }
}

fn add_columns(points: &PointBatch, schema: &mut Schema) {
    for (tag, _) in points.tag_sets.iter().flat_map(|set| set.iter()) {
        if schema.tag_position(tag).is_none() {
            schema.add(Column::tag(tag));
        }
    }
    for (field, values) in &points.fields {
        if let Some(field_type) = FieldType::of_arrow(values.data_type()) {
            schema.add(Column::field(Arc::clone(field), field_type));
        }
    }
}

impl FileReport {
    fn add(&mut self, points: &PointBatch) {
        self.points += points.rows() as u64;
        let found = match self.measurements.entry(Arc::clone(&points.measurement)) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => place.insert(Found::default()),
        };
        found.points += points.rows() as u64;
        add_columns(points, &mut found.columns);
        for time in &points.times {
            if *time == NO_TIME.as_nanos() {
                found.without_time += 1;
                continue;
            }
            let (first, last) = found.times.unwrap_or((*time, *time));
            found.times = Some((first.min(*time), last.max(*time)));
        }
    }

    /// Everything about the file, for people.
    pub(super) fn text(&self, input: &Input) -> String {
        let mut text = format!("{}: {}\n", input.path.display(), counted(self.points, "point"));
        for (name, found) in &self.measurements {
            found.describe(name, &mut text);
        }
        if self.refused_count > 0 {
            push(&mut text, format_args!("  refused: {}\n", grouped(self.refused_count)));
        }
        for refused in &self.refused {
            let (place, word) = (refused.place, input.format.place());
            push(&mut text, format_args!("    {word} {place}: {}\n", refused.reason));
        }
        text
    }
}

impl Found {
    fn describe(&self, name: &str, text: &mut String) {
        push(text, format_args!("  {name}: {}", counted(self.points, "point")));
        if let Some((first, last)) = self.times {
            let [first, last] = [first, last].map(Timestamp::from_nanos);
            push(text, format_args!(", {first} to {last}"));
        }
        if self.without_time > 0 {
            push(text, format_args!(", {} of them without a time", grouped(self.without_time)));
        }
        let tags = self.columns.tags().join(", ");
        let tags = if tags.is_empty() { "none" } else { &tags };
        let fields = self.columns.fields().iter().map(|(name, t)| format!("{name} {t}"));
        let fields = fields.collect::<Vec<_>>().join(", ");
        push(text, format_args!("\n    tags: {tags}\n    fields: {fields}\n"));
    }
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to a string never fails");
}
