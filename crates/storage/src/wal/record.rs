//! Bodies of records: points and deletes as bytes, and back.

use std::sync::Arc;

use hashbrown::HashMap;
use highwater_core::{
    Condition, FieldType, MeasurementId, PointBatch, SequenceNumber, TagSet, TimeRanges,
};
use serde::{Deserialize, Serialize};

use super::column;
use super::encoding::{Malformed, Unread, put_len, put_text, put_u32, put_values};
use super::frame::{Frame, Kind};
use crate::error::StorageError;
use crate::manifest::Tombstone;

/// Largest record that is written.
const MAX_RECORD_BYTES: usize = 1 << 30;

/// What one commit did, as its log says.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// It stored points.
    Points {
        /// The commit.
        seq: SequenceNumber,
        /// The points; the numbers of their lines are not kept and 0.
        batches: Vec<(MeasurementId, PointBatch)>,
    },
    /// It hid points.
    Delete {
        /// Of which measurement.
        id: MeasurementId,
        /// Which points; its `seq` is the commit.
        tombstone: Arc<Tombstone>,
        /// The granules that lost some.
        touched: TimeRanges,
    },
}

/// Numbers of the series that a file has spelled out, per measurement in order of appearance.
#[derive(Debug, Default)]
pub(super) struct SeriesNumbers(HashMap<MeasurementId, HashMap<TagSet, u32>>);

/// The same for reading.
#[derive(Debug, Default)]
pub(super) struct SeriesNames(HashMap<MeasurementId, Vec<TagSet>>);

/// Upper bound of the bytes of these points.
///
/// # Errors
/// [`StorageError::Invalid`] if they are too many or of a type that is no field's.
pub(super) fn check_points(batches: &[(MeasurementId, PointBatch)]) -> Result<usize, StorageError> {
    let mut bytes = 4;
    for (id, points) in batches {
        let tags: usize = points.tag_sets.iter().map(|set| 8 + set.as_bytes().len()).sum();
        bytes += 20 + id.database.len() + id.measurement.len() + tags + 12 * points.rows();
        for (name, values) in &points.fields {
            let field_type = FieldType::of_arrow(values.data_type()).ok_or_else(|| {
                let found = values.data_type();
                StorageError::Invalid(format!("field {name} of {id} cannot be {found}"))
            })?;
            bytes += 4 + name.len() + column::most_bytes(values, field_type);
        }
    }
    if bytes > MAX_RECORD_BYTES {
        let text = format!("one write of {bytes} bytes is too large; {MAX_RECORD_BYTES} will do");
        return Err(StorageError::Invalid(text));
    }
    Ok(bytes)
}

/// Appends points that [`check_points`] has accepted.
pub(super) fn encode_points(
    out: &mut Vec<u8>,
    batches: &[(MeasurementId, PointBatch)],
    series: &mut SeriesNumbers,
) {
    put_len(out, batches.len());
    for (id, points) in batches {
        put_text(out, &id.database);
        put_text(out, &id.measurement);
        put_len(out, points.tag_sets.len());
        let known = series.0.entry(id.clone()).or_default();
        points.tag_sets.iter().for_each(|tag_set| put_series(out, tag_set, known));
        let rows = points.rows();
        assert!(points.tag_set_of_row.len() == rows, "every row has a tag set and a time");
        put_len(out, rows);
        put_values(out, &points.tag_set_of_row, u32::to_le_bytes);
        put_values(out, &points.times, i64::to_le_bytes);
        put_len(out, points.fields.len());
        for (name, values) in &points.fields {
            assert!(values.len() == rows, "every column has a value per row");
            put_text(out, name);
            let field_type = FieldType::of_arrow(values.data_type());
            column::encode(out, values, field_type.expect("types have been checked"));
        }
    }
}

/// The number of a series, and its tags if the number is new.
fn put_series(out: &mut Vec<u8>, tag_set: &TagSet, known: &mut HashMap<TagSet, u32>) {
    if let Some(number) = known.get(tag_set) {
        return put_u32(out, *number);
    }
    let number = known.len() as u32;
    put_u32(out, number);
    put_len(out, tag_set.as_bytes().len());
    out.extend_from_slice(tag_set.as_bytes());
    known.insert(tag_set.clone(), number);
}

/// A delete as text.
#[derive(Serialize, Deserialize)]
struct DeleteText {
    id: MeasurementId,
    times: TimeRanges,
    condition: Condition,
    touched: TimeRanges,
}

/// The body of a delete.
///
/// # Errors
/// [`StorageError::Invalid`] if it could not be read again.
pub(super) fn encode_delete(
    id: &MeasurementId,
    tombstone: &Tombstone,
    touched: &TimeRanges,
) -> Result<Vec<u8>, StorageError> {
    let text = DeleteText {
        id: id.clone(),
        times: tombstone.times.clone(),
        condition: tombstone.condition.clone(),
        touched: touched.clone(),
    };
    let unfit = |e| StorageError::Invalid(format!("a delete cannot be written as JSON: {e}"));
    let body = serde_json::to_vec(&text).map_err(unfit)?;
    serde_json::from_slice::<DeleteText>(&body).map_err(unfit)?;
    Ok(body)
}

/// The record in a frame.
pub(super) fn decode(frame: &Frame<'_>, names: &mut SeriesNames) -> Result<Record, Malformed> {
    let seq = frame.seq;
    Ok(match frame.kind {
        Kind::Points => Record::Points { seq, batches: decode_points(frame.body, names)? },
        Kind::Delete => {
            let text: DeleteText = serde_json::from_slice(frame.body)
                .map_err(|_| Malformed("its text is not that of a delete"))?;
            let DeleteText { id, times, condition, touched } = text;
            let tombstone = Arc::new(Tombstone { seq, times, condition });
            Record::Delete { id, tombstone, touched }
        }
    })
}

fn decode_points(
    body: &[u8],
    names: &mut SeriesNames,
) -> Result<Vec<(MeasurementId, PointBatch)>, Malformed> {
    let mut bytes = Unread(body);
    let mut batches = Vec::new();
    for _ in 0..bytes.len()? {
        let id = MeasurementId::new(bytes.text()?, bytes.text()?);
        let names = names.0.entry(id.clone()).or_default();
        let points = decode_batch(&mut bytes, Arc::clone(&id.measurement), names)?;
        batches.push((id, points));
    }
    bytes.end()?;
    Ok(batches)
}

fn decode_batch(
    bytes: &mut Unread<'_>,
    measurement: Arc<str>,
    names: &mut Vec<TagSet>,
) -> Result<PointBatch, Malformed> {
    let mut tag_sets = Vec::new();
    for _ in 0..bytes.len()? {
        tag_sets.push(take_series(bytes, names)?);
    }
    let rows = bytes.len()?;
    let tag_set_of_row = bytes.values(rows, u32::from_le_bytes)?;
    if tag_set_of_row.iter().any(|number| *number as usize >= tag_sets.len()) {
        return Err(Malformed("a row has no tag set"));
    }
    let times = bytes.values(rows, i64::from_le_bytes)?;
    let mut fields = Vec::new();
    for _ in 0..bytes.len()? {
        let name = Arc::from(bytes.text()?);
        fields.push((name, column::decode(bytes, rows)?));
    }
    Ok(PointBatch { measurement, tag_sets, tag_set_of_row, times, fields, lines: vec![0; rows] })
}

fn take_series(bytes: &mut Unread<'_>, names: &mut Vec<TagSet>) -> Result<TagSet, Malformed> {
    let number = bytes.len()?;
    if number == names.len() {
        let len = bytes.len()?;
        let tag_set = TagSet::from_bytes(bytes.take(len)?);
        names.push(tag_set.ok_or(Malformed("the tags of a series are not well formed"))?);
    }
    names.get(number).cloned().ok_or(Malformed("it names a series that was not spelled out"))
}
