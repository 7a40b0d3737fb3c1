//! What a file of the log, the manifest or a segment says, for people who look into a data folder.

use std::fmt::Write;

use bytes::Bytes;
use highwater_core::{MeasurementId, PointBatch, SequenceNumber, TimeRange, Timestamp};

use crate::error::StorageError;
use crate::manifest::{ManifestState, MeasurementState, SyncedLog, decode_edits, decode_state};
use crate::quarantine::QuarantinedSegment;
use crate::segment::describe_segment;
use crate::wal::{Record, WalReader};

/// What a file says.
#[derive(Debug)]
pub struct FileDescription {
    /// A line per fact, as far as it could be read.
    pub lines: String,
    /// Why the rest could not be read, if there is one.
    pub damage: Option<StorageError>,
}

/// Describes a file of the log (`.wal`), the manifest (`.edit`, `.checkpoint`) or a segment
/// (`.parquet`), a line per fact.
/// A log that cannot be read to its end is described up to there.
///
/// # Errors
/// [`StorageError::Invalid`] if the name is that of something else, [`StorageError::Corrupt`] if
/// the file is damaged from the start.
pub fn describe_file(name: &str, bytes: Bytes) -> Result<FileDescription, StorageError> {
    let whole = |lines| FileDescription { lines, damage: None };
    match name.rsplit('.').next() {
        Some("wal") => describe_log(name, bytes),
        Some("edit") => describe_edits(name, &bytes).map(whole),
        Some("checkpoint") => describe_checkpoint(name, &bytes).map(whole),
        Some("parquet") => describe_segment(name, &bytes).map(whole),
        _ => {
            let text = format!(
                "{name} is no log (.wal), manifest (.edit, .checkpoint) or segment (.parquet)"
            );
            Err(StorageError::Invalid(text))
        }
    }
}

fn describe_log(name: &str, bytes: Bytes) -> Result<FileDescription, StorageError> {
    let (mut lines, mut damage) = (Lines::default(), None);
    let len = bytes.len();
    let mut reader = WalReader::new(name, bytes, true)?;
    loop {
        let at = reader.offset();
        match reader.next() {
            Some(Ok(record)) => describe_record(&mut lines, at, &record),
            Some(Err(error)) => damage = Some(error),
            None => break,
        }
    }
    if let Some(kept) = reader.torn_at() {
        lines.push(format_args!("byte {kept}: incomplete, {} bytes", len as u64 - kept));
    }
    Ok(FileDescription { lines: lines.0, damage })
}

fn describe_record(lines: &mut Lines, at: u64, record: &Record) {
    match record {
        Record::Points { seq, batches } => {
            for (id, points) in batches {
                lines.push(format_args!("byte {at}: commit {seq}: {}", summary(id, points)));
            }
        }
        Record::Delete { id, tombstone, touched } => {
            let (seq, times, condition) = (tombstone.seq, &tombstone.times, &tombstone.condition);
            lines.push(format_args!(
                "byte {at}: commit {seq}: delete from {id} in {times} where {condition:?}, touches {touched}"
            ));
        }
    }
}

fn summary(id: &MeasurementId, points: &PointBatch) -> String {
    let names: Vec<&str> = points.fields.iter().map(|(name, _)| &**name).collect();
    let (rows, series, fields) = (points.rows(), points.tag_sets.len(), names.join(", "));
    let first = points.times.iter().min().copied().unwrap_or_default();
    let last = points.times.iter().max().copied().unwrap_or_default();
    let end = Timestamp::from_nanos(last).saturating_add(1);
    let times = TimeRange::new(Timestamp::from_nanos(first), end);
    format!("{rows} points of {series} series into {id} in {times}, fields {fields}")
}

fn describe_edits(name: &str, bytes: &[u8]) -> Result<String, StorageError> {
    let (seq, edits) = decode_edits(bytes).map_err(|damage| damage.in_file(name.to_owned()))?;
    let mut lines = Lines::default();
    for edit in &edits {
        let text = serde_json::to_string(edit).unwrap_or_else(|_| format!("{edit:?}"));
        lines.push(format_args!("commit {seq}: {text}"));
    }
    Ok(lines.0)
}

fn describe_checkpoint(name: &str, bytes: &[u8]) -> Result<String, StorageError> {
    let state = decode_state(bytes).map_err(|damage| damage.in_file(name.to_owned()))?;
    let ManifestState { seq, flushed, logs, synced_log, .. } = &state;
    let ManifestState { databases, measurements, dropped, documents, quarantine, .. } = &state;
    let mut lines = Lines::default();
    lines.push(format_args!("commit {seq}, flushed up to {flushed}, logs {logs:?}"));
    if let Some(SyncedLog { log, bytes }) = synced_log {
        lines.push(format_args!("the first {bytes} bytes of log {log} are durable"));
    }
    if let Some(identity) = &state.identity {
        lines.push(format_args!("database {identity}"));
    }
    if let Some(opening) = &state.opening {
        lines.push(format_args!("opening {opening}"));
    }
    for (database, rules) in databases {
        let rules = rules.iter().map(|rule| format!(" {} {}", rule.measurement, rule.keep));
        let rules = rules.reduce(|all, rule| format!("{all},{rule}"));
        lines.push(format_args!(
            "database {database}: keeps{}",
            rules.as_deref().unwrap_or(" everything")
        ));
    }
    for (id, measurement) in measurements {
        lines.push(format_args!("measurement {id}: {}", contents(measurement)));
    }
    for (id, seq) in dropped {
        lines.push(format_args!("measurement {id}: dropped by commit {seq}"));
    }
    for given_up in quarantine.iter() {
        let QuarantinedSegment { id, segment, seq, .. } = &**given_up;
        lines.push(format_args!(
            "given up by commit {seq}: {} of {id}, {} rows in {}",
            segment.path, segment.rows, segment.times
        ));
    }
    for (key, text) in documents {
        lines.push(format_args!("document {key}: {} bytes", text.len()));
    }
    Ok(lines.0)
}

fn contents(measurement: &MeasurementState) -> String {
    let MeasurementState { kind, schema, segments, tombstones, floor, changes } = measurement;
    let rows: u64 = segments.iter().map(|segment| segment.rows).sum();
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let last: SequenceNumber = changes.last();
    format!(
        "{kind:?}, {} tags, {} fields, {rows} rows and {bytes} bytes in {} segments, \
         {} tombstones, floor {floor}, {} runs of changes up to commit {last}",
        schema.tags().len(),
        schema.fields().len(),
        segments.len(),
        tombstones.len(),
        changes.runs().count(),
    )
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn push(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes every text");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use highwater_core::{Condition, TagSet, TimeRanges};

    use super::*;
    use crate::file_store::FileStore;
    use crate::manifest::{Edit, Manifest, Tombstone};
    use crate::wal::{WalWriter, log_path};

    fn seq(number: u64) -> SequenceNumber {
        SequenceNumber::new(number)
    }

    #[tokio::test]
    async fn a_log_is_described_record_by_record() {
        let files = FileStore::in_memory();
        let mut writer = WalWriter::create(&files, 1).unwrap();
        let id = MeasurementId::new("db", "cpu");
        let batch = PointBatch {
            measurement: "cpu".into(),
            tag_sets: vec![TagSet::new([("host", "a")]).unwrap()],
            tag_set_of_row: vec![0, 0],
            times: vec![60_000_000_000, 0],
            fields: vec![("load".into(), Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)],
            lines: vec![0, 0],
        };
        writer.append_points(seq(4), &[(id.clone(), batch)]).unwrap();
        writer.sync().unwrap();
        let times = TimeRanges::from(TimeRange::new(Timestamp::EPOCH, Timestamp::from_secs(1)));
        let condition = Condition::IsNull("host".into());
        let tombstone = Tombstone { seq: seq(5), times, condition };
        writer.append_delete(&id, &tombstone, &tombstone.times).unwrap();
        writer.sync().unwrap();
        let whole = files.get(&log_path(1)).await.unwrap();
        let FileDescription { lines: text, damage } =
            describe_file("1.wal", whole.clone()).unwrap();
        assert!(damage.is_none(), "{damage:?}");
        let expected = "byte 16: commit 4: 2 points of 1 series into db.cpu in \
             [1970-01-01T00:00:00Z, 1970-01-01T00:01:00.000000001Z), fields load\n\
             byte 141: commit 5: delete from db.cpu in \
             [1970-01-01T00:00:00Z, 1970-01-01T00:00:01Z) where IsNull(\"host\"), touches \
             [1970-01-01T00:00:00Z, 1970-01-01T00:00:01Z)\n";
        assert_eq!(text, expected);
        let torn = describe_file("1.wal", whole.slice(..whole.len() - 1)).unwrap();
        let incomplete = format!("byte 141: incomplete, {} bytes\n", whole.len() - 142);
        assert!(torn.lines.ends_with(&incomplete) && torn.damage.is_none(), "{torn:?}");
        let mut damaged = whole.to_vec();
        damaged[60] ^= 1;
        let damaged = describe_file("1.wal", damaged.into()).unwrap();
        assert!(damaged.lines.is_empty() && damaged.damage.is_some(), "{damaged:?}");
        assert!(describe_file("1.parquet", whole).is_err());
    }

    #[tokio::test]
    async fn a_manifest_is_described_edit_by_edit_and_as_a_whole() {
        let files = FileStore::in_memory();
        let mut manifest = Manifest::open(Arc::clone(&files)).await.unwrap();
        for number in 1..=64 {
            let edits = [Edit::PutDocument { key: "a".to_owned(), text: Some("text".into()) }];
            manifest.commit(seq(number), &edits).await.unwrap();
        }
        let mut described = String::new();
        for (path, _) in files.list("manifest").await.unwrap().into_iter().rev().take(2) {
            described += &describe_file(&path, files.get(&path).await.unwrap()).unwrap().lines;
        }
        let expected = "commit 64: {\"put_document\":{\"key\":\"a\",\"text\":\"text\"}}\n\
             commit 64, flushed up to 0, logs []\ndocument a: 4 bytes\n";
        assert_eq!(described, expected);
    }
}
