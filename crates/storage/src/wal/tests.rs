use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampNanosecondArray, UInt64Array,
};
use bytes::Bytes;
use highwater_core::{
    Condition, ErrorKind, MeasurementId, PointBatch, SequenceNumber, TagSet, TimeRange, TimeRanges,
    Timestamp,
};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::frame::FILE_HEADER;
use super::reader::WalReader;
use super::*;
use crate::error::StorageError;
use crate::file_store::{FileStore, LogFile};
use crate::manifest::Tombstone;

fn seq(number: u64) -> SequenceNumber {
    SequenceNumber::new(number)
}

/// A log in memory that fails when told to.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    fails: Arc<Mutex<bool>>,
}

impl Disk {
    fn content(&self) -> Vec<u8> {
        self.bytes.lock().clone()
    }

    fn outcome(&self) -> Result<(), StorageError> {
        let full = StorageError::Io { action: "sync", path: "x".into(), source: "full".into() };
        if *self.fails.lock() { Err(full) } else { Ok(()) }
    }
}

impl LogFile for Disk {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.bytes.lock().extend_from_slice(bytes);
        self.outcome()
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.outcome()
    }

    fn len(&self) -> u64 {
        self.bytes.lock().len() as u64
    }
}

fn read(bytes: &[u8], is_last: bool) -> (Vec<Record>, Option<u64>, Option<StorageError>) {
    let bytes = Bytes::copy_from_slice(bytes);
    let mut reader = match WalReader::new("wal/1.wal", bytes, is_last) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), None, Some(error)),
    };
    let (mut records, mut failure) = (Vec::new(), None);
    for record in reader.by_ref() {
        match record {
            Ok(record) => records.push(record),
            Err(error) => failure = Some(error),
        }
    }
    (records, reader.torn_at(), failure)
}

fn tags(host: &str) -> TagSet {
    TagSet::new([("host", host), ("region", "eu")]).unwrap()
}

/// Three rows with a column of every type, with and without NULLs, cut out of longer columns.
fn points(measurement: &str, hosts: [&str; 2]) -> (MeasurementId, PointBatch) {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("float", Arc::new(Float64Array::from(vec![0.0, 1.5, f64::NEG_INFINITY, -0.0]))),
        ("integer", Arc::new(Int64Array::from(vec![Some(7), None, Some(i64::MIN), Some(3)]))),
        ("unsigned", Arc::new(UInt64Array::from(vec![7, 8, 9, u64::MAX]))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
        ("text", Arc::new(StringArray::from(vec![Some("cut"), Some("ü"), None, Some("")]))),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3, 4]))),
        ("partial", Arc::new(BinaryArray::from(vec![Some(&[1_u8][..]), None, Some(&[]), None]))),
    ];
    let fields = columns.into_iter().map(|(name, values)| (name.into(), values.slice(1, 3)));
    let batch = PointBatch {
        measurement: measurement.into(),
        tag_sets: hosts.map(tags).into(),
        tag_set_of_row: vec![0, 1, 0],
        times: vec![i64::MIN, 0, 5],
        fields: fields.collect(),
        lines: vec![0; 3],
    };
    (MeasurementId::new("db", measurement), batch)
}

fn delete(number: u64) -> (MeasurementId, Tombstone, TimeRanges) {
    let times = TimeRanges::from(TimeRange::before(Timestamp::from_secs(5)));
    let condition = Condition::Not(Box::new(Condition::IsNull("host".into())));
    let tombstone = Tombstone { seq: seq(number), times, condition };
    (MeasurementId::new("db", "cpu"), tombstone, TimeRanges::all())
}

fn assert_points(record: &Record, number: u64, expected: &[(MeasurementId, PointBatch)]) {
    let Record::Points { seq: found, batches } = record else { panic!("{record:?}") };
    assert_eq!((*found, batches.len()), (seq(number), expected.len()));
    for ((id, found), (expected_id, expected)) in batches.iter().zip(expected) {
        assert_eq!((id, &found.measurement), (expected_id, &expected.measurement));
        assert_eq!(found.tag_sets, expected.tag_sets);
        assert_eq!(found.tag_set_of_row, expected.tag_set_of_row);
        assert_eq!((&found.times, &found.lines), (&expected.times, &expected.lines));
        assert_eq!(found.fields, expected.fields);
    }
}

/// A log of four records, each synced before the next is encoded, and where they end.
fn synced_log() -> (Vec<u8>, Vec<usize>) {
    let disk = Disk::default();
    let mut writer = WalWriter::begin(Box::new(disk.clone()), 1).unwrap();
    let mut ends = Vec::new();
    for number in 1..=4 {
        writer.append_points(seq(number), &[points("cpu", ["a", "b"])]).unwrap();
        writer.sync().unwrap();
        ends.push(disk.content().len());
    }
    (disk.content(), ends)
}

#[test]
fn what_was_written_is_read() {
    let disk = Disk::default();
    let mut writer = WalWriter::begin(Box::new(disk.clone()), 7).unwrap();
    assert_eq!(disk.content(), FILE_HEADER);
    let first = [points("cpu", ["a", "b"]), points("mem", ["a", "c"])];
    let (id, tombstone, touched) = delete(5);
    let second = [points("cpu", ["c", "a"])];
    writer.append_points(seq(2), &first).unwrap();
    writer.append_delete(&id, &tombstone, &touched).unwrap();
    writer.append_points(seq(9), &second).unwrap();
    assert!(writer.has_unwritten() && disk.content().len() == FILE_HEADER.len());
    let bytes = writer.bytes();
    writer.write().unwrap();
    assert_eq!((bytes, writer.bytes(), writer.number()), (disk.len(), disk.len(), 7));
    let (records, torn_at, failure) = read(&disk.content(), false);
    assert!(torn_at.is_none() && failure.is_none() && records.len() == 3);
    assert_points(&records[0], 2, &first);
    assert_points(&records[2], 9, &second);
    let Record::Delete { id: of, tombstone: found, touched: granules } = &records[1] else {
        panic!("{records:?}")
    };
    assert_eq!((of, &**found, granules), (&id, &tombstone, &touched));
}

#[test]
fn a_series_is_spelled_out_once_per_file() {
    let (bytes, ends) = synced_log();
    assert!(ends[1] - ends[0] < ends[0] - FILE_HEADER.len());
    assert_eq!(ends[2] - ends[1], ends[1] - ends[0]);
    let spelled = bytes.windows(6).filter(|window| window == b"region").count();
    assert_eq!(spelled, 2);
}

#[test]
fn an_incomplete_end_is_cut_off() {
    let (bytes, ends) = synced_log();
    for len in ends[2] + 1..bytes.len() {
        let (records, torn_at, failure) = read(&bytes[..len], true);
        assert_eq!((records.len(), torn_at), (3, Some(ends[2] as u64)), "{failure:?}");
        assert!(read(&bytes[..len], false).2.is_some(), "a closed log ends early");
    }
    let mut zeros = bytes[..ends[2]].to_vec();
    zeros.resize(bytes.len(), 0);
    assert_eq!(read(&zeros, true).1, Some(ends[2] as u64));
}

#[test]
fn damage_of_what_was_durable_is_named_and_not_cut_off() {
    let (bytes, ends) = synced_log();
    for at in ends[0]..ends[1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let (records, torn_at, failure) = read(&damaged, true);
        assert_eq!((records.len(), torn_at), (1, None), "byte {at}");
        let Some(StorageError::Corrupt { offset, .. }) = failure else { panic!("byte {at}") };
        assert_eq!(offset, ends[0] as u64);
    }
}

#[test]
fn records_that_were_never_durable_together_may_be_lost_in_any_pattern() {
    let disk = Disk::default();
    let mut writer = WalWriter::begin(Box::new(disk.clone()), 1).unwrap();
    let mut ends = Vec::new();
    for number in 1..=4 {
        writer.append_points(seq(number), &[points("cpu", ["a", "b"])]).unwrap();
        writer.write().unwrap();
        ends.push(disk.content().len());
    }
    let mut torn = disk.content();
    torn[ends[0]..ends[0] + 20].fill(0);
    let (records, torn_at, failure) = read(&torn, true);
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!((records.len(), torn_at), (1, Some(ends[0] as u64)));
}

#[test]
fn after_a_failure_nothing_is_accepted() {
    for fail_in_sync in [false, true] {
        let disk = Disk::default();
        let mut writer = WalWriter::begin(Box::new(disk.clone()), 1).unwrap();
        writer.append_points(seq(1), &[points("cpu", ["a", "b"])]).unwrap();
        if fail_in_sync {
            writer.write().unwrap();
        }
        *disk.fails.lock() = true;
        assert!(matches!(writer.sync(), Err(StorageError::Io { .. })));
        *disk.fails.lock() = false;
        assert!(matches!(writer.sync(), Err(StorageError::Poisoned { .. })));
        let appended = writer.append_points(seq(2), &[points("cpu", ["a", "b"])]);
        assert!(matches!(appended, Err(StorageError::Poisoned { .. })));
    }
}

#[test]
fn what_could_not_be_read_again_is_refused() {
    let mut writer = WalWriter::begin(Box::new(Disk::default()), 1).unwrap();
    let (id, mut tombstone, touched) = delete(1);
    for _ in 0..200 {
        tombstone.condition = Condition::Not(Box::new(tombstone.condition));
    }
    let error = writer.append_delete(&id, &tombstone, &touched).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let (id, mut batch) = points("cpu", ["a", "b"]);
    batch.fields[0].1 = Arc::new(arrow::array::Int32Array::from(vec![1, 2, 3]));
    let error = writer.append_points(seq(1), &[(id, batch)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!writer.has_unwritten());
}

#[tokio::test]
async fn an_incomplete_end_is_cut_off_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let files = FileStore::local(folder.path()).unwrap();
    let mut writer = WalWriter::create(&files, 3).unwrap();
    assert!(WalWriter::create(&files, 3).is_err());
    for number in 1..=2 {
        writer.append_points(seq(number), &[points("cpu", ["a", "b"])]).unwrap();
        writer.sync().unwrap();
    }
    files.truncate_log(&log_path(3), writer.bytes() - 1).unwrap();
    let read = async |log, is_last| {
        let (mut reading, mut records) = (LogReading::start(&files, log, is_last, 0), 0);
        while let Some(part) = reading.next().await? {
            records += part.len();
        }
        Ok::<usize, StorageError>(records)
    };
    assert!(read(3, false).await.is_err());
    assert_eq!(read(3, true).await.unwrap(), 1);
    assert_eq!(read(3, false).await.unwrap(), 1);
    assert_eq!(read(4, true).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(log_number(&log_path(3)), Some(3));
    assert_eq!(log_number("wal/3.wal"), None);
}

/// A file of the first version, written by hand: one point of `db.m` with tag `a=b` at time 5 and
/// the field `x = 7`, then nothing.
#[rustfmt::skip]
const GOLDEN: &[u8] = &[
    b'h', b'i', b'g', b'h', b'w', b'a', b't', b'e', b'r', b'-', b'w', b'a', b'l', b' ', b'1', b'\n',
    89, 0, 0, 0,                              // length of the record
    0xd6, 0xd4, 0xaf, 0x9e,                   // CRC-32C of the rest
    1,                                        // kind: points
    9, 0, 0, 0, 0, 0, 0, 0,                   // commit
    16, 0, 0, 0, 0, 0, 0, 0,                  // bytes that were durable
    1, 0, 0, 0,                               // batches
    2, 0, 0, 0, b'd', b'b',                   // database
    1, 0, 0, 0, b'm',                         // measurement
    1, 0, 0, 0,                               // tag sets
    0, 0, 0, 0,                               // number of the series: a new one
    10, 0, 0, 0,                              // bytes of its tags
    1, 0, 0, 0, 1, 0, 0, 0, b'a', b'b',       // one tag
    1, 0, 0, 0,                               // rows
    0, 0, 0, 0,                               // tag set of the row
    5, 0, 0, 0, 0, 0, 0, 0,                   // time
    1, 0, 0, 0,                               // fields
    1, 0, 0, 0, b'x',                         // name
    2, 0,                                     // integer, no NULLs
    7, 0, 0, 0, 0, 0, 0, 0,                   // value
];

#[test]
fn files_of_the_first_version_are_read_and_written_the_same() {
    let batch = PointBatch {
        measurement: "m".into(),
        tag_sets: vec![TagSet::new([("a", "b")]).unwrap()],
        tag_set_of_row: vec![0],
        times: vec![5],
        fields: vec![("x".into(), Arc::new(Int64Array::from(vec![7])) as ArrayRef)],
        lines: vec![0],
    };
    let expected = [(MeasurementId::new("db", "m"), batch)];
    let (records, torn_at, failure) = read(GOLDEN, false);
    assert!(torn_at.is_none() && failure.is_none(), "{failure:?}");
    assert_points(&records[0], 9, &expected);
    let disk = Disk::default();
    let mut writer = WalWriter::begin(Box::new(disk.clone()), 1).unwrap();
    writer.append_points(seq(9), &expected).unwrap();
    writer.sync().unwrap();
    assert_eq!(disk.content(), GOLDEN);
    let newer = [b"highwater-wal 2\n", &GOLDEN[16..]].concat();
    assert!(read(&newer, true).2.is_some());
}

/// Puts right checksums on damaged records, so that decoding itself is put to the test.
fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    [FILE_HEADER.to_vec(), frame].concat()
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), is_last: bool) {
        let (records, ..) = read(&[FILE_HEADER.to_vec(), bytes.clone()].concat(), is_last);
        prop_assert!(records.is_empty());
        read(&bytes, is_last);
    }

    #[test]
    fn a_changed_byte_never_changes_a_record(at in 16usize..3000, flip in 1u8.., is_last: bool) {
        let (bytes, ends) = synced_log();
        let at = 16 + at % (bytes.len() - 16);
        let mut damaged = bytes.clone();
        damaged[at] ^= flip;
        let (records, torn_at, failure) = read(&damaged, is_last);
        let sound = ends.iter().filter(|end| **end <= at).count();
        prop_assert_eq!(records.len(), sound);
        prop_assert!(torn_at.is_some() != failure.is_some());
        for (number, record) in (1..).zip(&records) {
            assert_points(record, number, &[points("cpu", ["a", "b"])]);
        }
    }

    #[test]
    fn malformed_records_with_a_right_checksum_are_survived(
        flips in prop::collection::vec((0usize..3000, any::<u8>()), 1..4),
        is_last: bool,
    ) {
        let (bytes, ends) = synced_log();
        let mut frame = bytes[16..ends[0]].to_vec();
        for (at, value) in flips {
            let at = 8 + at % (frame.len() - 8);
            frame[at] = value;
        }
        read(&with_checksum(frame), is_last);
    }

    #[test]
    fn any_rows_come_back(
        rows in prop::collection::vec(
            (0u32..5, any::<i64>(), any::<Option<i64>>(), any::<Option<bool>>(), any::<Option<String>>()),
            0..50,
        ),
        skip in 0usize..50,
    ) {
        let skip = skip.min(rows.len());
        let columns: [(&str, ArrayRef); 3] = [
            ("i", Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>())),
            ("b", Arc::new(rows.iter().map(|row| row.3).collect::<BooleanArray>())),
            ("s", Arc::new(rows.iter().map(|row| row.4.clone()).collect::<StringArray>())),
        ];
        let rows = &rows[skip..];
        let cut = |values: &ArrayRef| values.slice(skip, rows.len());
        let batch = PointBatch {
            measurement: "m".into(),
            tag_sets: ["a", "b", "c", "d", "e"].map(tags).into(),
            tag_set_of_row: rows.iter().map(|row| row.0).collect(),
            times: rows.iter().map(|row| row.1).collect(),
            fields: columns.iter().map(|(name, values)| ((*name).into(), cut(values))).collect(),
            lines: vec![0; rows.len()],
        };
        let whole = [(MeasurementId::new("db", "m"), batch)];
        let disk = Disk::default();
        let mut writer = WalWriter::begin(Box::new(disk.clone()), 1).unwrap();
        writer.append_points(seq(1), &whole).unwrap();
        writer.sync().unwrap();
        let (records, torn_at, failure) = read(&disk.content(), true);
        prop_assert!(torn_at.is_none() && failure.is_none(), "{failure:?}");
        assert_points(&records[0], 1, &whole);
    }
}
