//! Writes: which points of a request are stored, and which lines are refused and why.
//!
//! Deciding is pure; the commit thread carries the decision out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use highwater_core::bucket::Span;
use highwater_core::{ColumnRole, FieldType, PointBatch, SequenceNumber, Timestamp};

use crate::columns::{Columns, Place};
use crate::error::StorageError;
use crate::late::LatePoints;
use crate::manifest::MeasurementKind;

/// What happens to the good lines of a request that has bad ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// They are stored.
    StoreGoodLines,
    /// Nothing is stored.
    AllOrNothing,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteReport {
    /// The commit that holds the points; the newest commit there was if none were stored.
    pub seq: SequenceNumber,
    /// Points stored.
    pub rows: usize,
    /// Points that came too late and were left out, see [`LatePoints::Drop`].
    pub dropped: usize,
    /// Lines that were not stored, in the order of the request within each measurement.
    pub refused: Vec<RefusedLine>,
}

/// A line that was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLine {
    /// Physical line of the request, counted from 1.
    pub line: u32,
    /// The measurement it was for.
    pub measurement: Arc<str>,
    /// A sentence for whoever sent it.
    pub reason: String,
}

/// Where points are to go.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// What the measurement holds; `Points` if it does not exist yet.
    pub(crate) kind: MeasurementKind,
    /// Its columns so far.
    pub(crate) columns: &'a Columns,
    /// Points before the instant have expired, by this rule.
    pub(crate) horizon: Option<(Timestamp, Span)>,
    /// What becomes of those.
    pub(crate) late: LatePoints,
}

/// The decision about a batch.
#[derive(Debug)]
pub(crate) struct Decision {
    /// The points to store, without columns that no point uses; possibly none.
    pub(crate) accepted: PointBatch,
    /// How many came too late and are left out.
    pub(crate) dropped: usize,
    /// The lines of the others.
    pub(crate) refused: Vec<RefusedLine>,
}

/// Checks what does not depend on the state of the engine.
///
/// # Errors
/// [`StorageError::Invalid`] if the columns of the batch do not belong together.
pub(crate) fn check_shape(batch: &PointBatch) -> Result<(), StorageError> {
    let invalid =
        |what: &str| Err(StorageError::Invalid(format!("points of {}: {what}", batch.measurement)));
    let rows = batch.rows();
    if batch.tag_set_of_row.len() != rows || batch.lines.len() != rows {
        return invalid("vectors differ in length");
    }
    if batch.tag_set_of_row.iter().any(|&tag_set| tag_set as usize >= batch.tag_sets.len()) {
        return invalid("a row has no tag set");
    }
    let mut seen = HashSet::new();
    for (name, values) in &batch.fields {
        let is_field = FieldType::of_arrow(values.data_type())
            .is_some_and(|field_type| field_type != FieldType::Partial);
        if values.len() != rows || !is_field {
            return invalid(&format!("field {name} is {} of {}", values.len(), values.data_type()));
        }
        if !seen.insert((name, values.data_type())) {
            return invalid(&format!("field {name} is there twice"));
        }
    }
    Ok(())
}

/// Decides line by line: a line is refused if it contradicts the target or a line before it that
/// is stored.
///
/// # Errors
/// [`StorageError::Arrow`] if columns cannot be taken apart, which is a defect.
pub(crate) fn decide(batch: PointBatch, target: &Target<'_>) -> Result<Decision, StorageError> {
    let batch = with_declared_timestamps(batch, target.columns)?;
    if target.kind != MeasurementKind::Points {
        return Ok(refuse_all(batch));
    }
    let columns_fit = columns_fit(&batch, target.columns);
    let oldest = batch.times.iter().min().copied().map(Timestamp::from_nanos);
    let times_fit = target.horizon.is_none_or(|(horizon, _)| oldest >= Some(horizon));
    if columns_fit && times_fit {
        let accepted = without_empty_columns(batch);
        return Ok(Decision { accepted, dropped: 0, refused: Vec::new() });
    }
    let (kept, refused) = decide_by_line(&batch, target, columns_fit);
    let dropped = batch.rows() - kept.len() - refused.len();
    Ok(Decision { accepted: without_empty_columns(take_rows(&batch, &kept)?), dropped, refused })
}

/// The columns of a batch in the order they are added in; tags may come more than once.
pub(crate) fn columns_of(batch: &PointBatch) -> impl Iterator<Item = (&str, ColumnRole)> {
    // Neighbouring tag sets mostly have the same tags.
    let tag_sets = &batch.tag_sets;
    let is_new = |at: &usize| *at == 0 || !tag_sets[*at].has_keys_of(&tag_sets[*at - 1]);
    let different = (0..batch.tag_sets.len()).filter(is_new);
    let tags = different.flat_map(|at| batch.tag_sets[at].iter());
    let fields = batch.fields.iter().filter_map(|(name, values)| {
        let field_type = FieldType::of_arrow(values.data_type())?;
        let is_used = values.null_count() < values.len();
        is_used.then_some((&**name, ColumnRole::Field(field_type)))
    });
    tags.map(|(tag, _)| (tag, ColumnRole::Tag)).chain(fields)
}

/// The tags of a batch, those with the most values first.
///
/// Rows are sorted by their tags in the order in which these were added. A tag that tells most
/// series apart, a host name say, then keeps each of its values in one place, while one with two
/// values in front would spread every host over two.
pub(crate) fn tags_by_values(batch: &PointBatch) -> Vec<&str> {
    let mut values: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for (tag, value) in batch.tag_sets.iter().flat_map(|tag_set| tag_set.iter()) {
        values.entry(tag).or_default().insert(value);
    }
    let mut tags: Vec<(&str, usize)> =
        values.into_iter().map(|(tag, values)| (tag, values.len())).collect();
    tags.sort_by_key(|(_, values)| Reverse(*values));
    tags.into_iter().map(|(tag, _)| tag).collect()
}

/// Integers for a field declared as a time are nanoseconds.
fn with_declared_timestamps(
    mut batch: PointBatch,
    columns: &Columns,
) -> Result<PointBatch, StorageError> {
    for (name, values) in &mut batch.fields {
        let declared = matches!(columns.place(name), Some(Place::Field(_, FieldType::Timestamp)));
        if declared && *values.data_type() == DataType::Int64 {
            *values = cast(values, &FieldType::Timestamp.arrow())?;
        }
    }
    Ok(batch)
}

fn refuse_all(mut batch: PointBatch) -> Decision {
    let name = &batch.measurement;
    let reason = format!("{name} holds the results of an aggregate and takes no points");
    let refuse =
        |&line: &u32| RefusedLine { line, measurement: Arc::clone(name), reason: reason.clone() };
    let refused = batch.lines.iter().map(refuse).collect();
    batch.times.clear();
    Decision { accepted: batch, dropped: 0, refused }
}

/// Whether no two columns, of the batch or of the target, contradict each other.
fn columns_fit(batch: &PointBatch, columns: &Columns) -> bool {
    let mut together = columns.clone();
    add_all(&mut together, &batch.measurement, columns_of(batch)).is_ok()
}

fn add_all<'a>(
    columns: &mut Columns,
    measurement: &str,
    new: impl Iterator<Item = (&'a str, ColumnRole)>,
) -> Result<(), String> {
    for (name, role) in new {
        if let Some(objection) = columns.objection(measurement, name, role) {
            return Err(objection);
        }
        columns.insert(name, role);
    }
    Ok(())
}

/// The rows to store and the lines that are refused; the rest is to be left out.
fn decide_by_line(
    batch: &PointBatch,
    target: &Target<'_>,
    columns_fit: bool,
) -> (Vec<u32>, Vec<RefusedLine>) {
    let mut columns = target.columns.clone();
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for row in 0..batch.rows() {
        let decision = check_time(batch.times[row], target.horizon);
        if decision.is_err() && target.late == LatePoints::Drop {
            continue;
        }
        let decision = decision.and_then(|()| {
            if columns_fit { Ok(()) } else { check_columns(batch, row, &mut columns) }
        });
        match decision {
            Ok(()) => kept.push(row as u32),
            Err(reason) => refused.push(RefusedLine {
                line: batch.lines[row],
                measurement: Arc::clone(&batch.measurement),
                reason,
            }),
        }
    }
    (kept, refused)
}

fn check_time(time: i64, horizon: Option<(Timestamp, Span)>) -> Result<(), String> {
    match horizon {
        Some((horizon, keep)) if Timestamp::from_nanos(time) < horizon => {
            Err(format!("older than the retention of {keep}: points before {horizon} are refused"))
        }
        _ => Ok(()),
    }
}

/// Adds the columns of a row, all or, with the reason, none.
fn check_columns(batch: &PointBatch, row: usize, columns: &mut Columns) -> Result<(), String> {
    let mut with_row = columns.clone();
    let tag_set = &batch.tag_sets[batch.tag_set_of_row[row] as usize];
    let tags = tag_set.iter().map(|(tag, _)| (tag, ColumnRole::Tag));
    let fields = batch.fields.iter().filter_map(|(name, values)| {
        let field_type = FieldType::of_arrow(values.data_type())?;
        values.is_valid(row).then_some((&**name, ColumnRole::Field(field_type)))
    });
    add_all(&mut with_row, &batch.measurement, tags.chain(fields))?;
    *columns = with_row;
    Ok(())
}

fn without_empty_columns(mut batch: PointBatch) -> PointBatch {
    batch.fields.retain(|(_, values)| values.null_count() < values.len());
    batch
}

/// These rows of the batch, with the tag sets they use.
fn take_rows(batch: &PointBatch, rows: &[u32]) -> Result<PointBatch, StorageError> {
    let at = UInt32Array::from(rows.to_vec());
    let mut taken = PointBatch {
        measurement: Arc::clone(&batch.measurement),
        tag_sets: Vec::new(),
        tag_set_of_row: Vec::with_capacity(rows.len()),
        times: rows.iter().map(|&row| batch.times[row as usize]).collect(),
        fields: Vec::with_capacity(batch.fields.len()),
        lines: rows.iter().map(|&row| batch.lines[row as usize]).collect(),
    };
    let mut new_place: Vec<Option<u32>> = vec![None; batch.tag_sets.len()];
    for &row in rows {
        let old = batch.tag_set_of_row[row as usize] as usize;
        let place = *new_place[old].get_or_insert_with(|| {
            taken.tag_sets.push(batch.tag_sets[old].clone());
            taken.tag_sets.len() as u32 - 1
        });
        taken.tag_set_of_row.push(place);
    }
    for (name, values) in &batch.fields {
        let values: ArrayRef = take(values, &at, None)?;
        taken.fields.push((Arc::clone(name), values));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests;
