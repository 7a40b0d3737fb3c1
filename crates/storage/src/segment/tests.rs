use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use highwater_core::time::NANOS_PER_SEC;
use highwater_core::{
    ErrorKind, MeasurementId, Schema, SequenceNumber, TimeRange, TimeRanges, Timestamp,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::prune::plan_row_group;
use super::test_rows::{Row, batch, rows, schema};
use super::writer::ROW_GROUP_ROWS;
use super::{Medium, Removal, SegmentHandle, SegmentReader, SegmentShape, SegmentStore, Selection};
use crate::error::StorageError;
use crate::file_store::{FileStore, PutKind, object_path};

/// Every day by itself.
const DAYS: SegmentShape = SegmentShape { row_group_rows: ROW_GROUP_ROWS, window_rows: 0 };

fn id() -> MeasurementId {
    MeasurementId::new("db", "a b/c")
}

fn selection(columns: SchemaRef, times: TimeRanges) -> Selection {
    Selection::at(columns, times)
}

async fn write(
    store: &Arc<SegmentStore>,
    schema: &Arc<Schema>,
    rows: &[Row],
) -> Vec<Arc<SegmentHandle>> {
    let written =
        store.write_rows(&id(), schema, vec![batch(schema, rows)], Medium::Disk).await.unwrap();
    let seq = SequenceNumber::new(1);
    written.iter().map(|segment| store.handle(Arc::new(segment.meta(seq, seq)))).collect()
}

async fn read(
    segment: &Arc<SegmentHandle>,
    selection: Selection,
) -> Result<Vec<RecordBatch>, StorageError> {
    let mut reader = SegmentReader::new(Arc::clone(segment), Arc::new(selection), 0..usize::MAX);
    let mut batches = Vec::new();
    while let Some(batch) = reader.next().await? {
        batches.push(batch);
    }
    Ok(batches)
}

/// `hosts` hosts with a point every second.
fn many_rows(hosts: usize, seconds: i64) -> Vec<Row> {
    let host = |i: usize| format!("host_{i:04}");
    let row = |i: usize, second: i64| {
        let row = Row::at(second * NANOS_PER_SEC).tag("dc", "x").tag("host", &host(i));
        row.field("a", second).field("s", second % 10)
    };
    (0..hosts).flat_map(|i| (0..seconds).map(move |second| row(i, second))).collect()
}

fn seconds(from: i64, to: i64) -> TimeRanges {
    TimeRange::new(Timestamp::from_secs(from), Timestamp::from_secs(to)).into()
}

#[tokio::test]
async fn what_is_written_is_read_back_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let store = SegmentStore::new(FileStore::local(folder.path()).unwrap(), 1, DAYS);
    let schema = schema(&["host", "dc"], &["a", "s"]);
    let given = [
        Row::at(2).tag("host", "b").field("a", 1),
        Row::at(1).tag("host", "b").field("s", 2),
        Row::at(1).field("a", i64::MIN),
        Row::at(-1).tag("dc", "").field("a", 7),
    ];
    let [before, day] = <[_; 2]>::try_from(write(&store, &schema, &given).await).unwrap();
    assert!(folder.path().join(&day.meta().path).is_file(), "{}", day.meta().path);
    let all = || selection(schema.arrow(), TimeRanges::all());
    let [first, second, third, earlier] = given;
    assert_eq!(rows(&read(&before, all()).await.unwrap()[0]), [earlier]);
    assert_eq!(rows(&read(&day, all()).await.unwrap()[0]), [third, second, first]);

    let meta = day.meta();
    assert_eq!(meta.times, TimeRange::new(Timestamp::from_nanos(1), Timestamp::from_nanos(3)));
    assert_eq!(meta.tags[0].values, Some(("b".to_owned(), "b".to_owned())));
    assert!(meta.tags[0].has_null && meta.tags[1].has_null && meta.tags[1].values.is_none());
    assert_eq!(meta.rows, 3);
}

#[tokio::test]
async fn a_selection_reads_only_its_columns_and_times() {
    let store = SegmentStore::new(FileStore::in_memory(), 1, DAYS);
    let schema_then = schema(&["dc", "host"], &["a", "s"]);
    let segments = write(&store, &schema_then, &many_rows(3, 100)).await;
    let schema_now = schema(&["dc", "host", "new"], &["a", "s", "b"]).arrow();
    let columns = |names: &[&str]| {
        let at = names.iter().map(|name| schema_now.index_of(name).unwrap());
        Arc::new(schema_now.project(&at.collect::<Vec<_>>()).unwrap())
    };

    let times = seconds(10, 12).union(&seconds(90, 91));
    let some = selection(columns(&["b", "a", "new"]), times.clone());
    let found = read(&segments[0], some).await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 9);
    assert_eq!(found[0].schema(), columns(&["b", "a", "new"]));
    assert_eq!(found[0].column(0).null_count(), found[0].num_rows());
    assert_eq!(found[0].column(2).null_count(), found[0].num_rows());

    let none = selection(columns(&[]), times);
    let found = read(&segments[0], none).await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 9);
}

#[tokio::test]
async fn pages_of_other_series_and_times_are_not_read() {
    let store = SegmentStore::new(FileStore::in_memory(), 1, DAYS);
    let schema = schema(&["dc", "host"], &["a"]);
    let segments = write(&store, &schema, &many_rows(20, 8000)).await;
    let footer = segments[0].footer().await.unwrap();
    assert_eq!(footer.row_groups(), 2);
    assert_eq!(footer.first_tag_keys().unwrap().len(), 2);

    let host = (Arc::from("host"), BTreeSet::from(["host_0004".to_owned()]));
    let selection =
        Selection { tags: Arc::new([host]), ..selection(schema.arrow(), seconds(100, 200)) };
    let plan = plan_row_group(footer.parquet(), 0, &selection).unwrap();
    let selected = plan.rows.unwrap().rows();
    assert!(selected <= 2 * 8192 + 1024, "{selected} rows");
    assert_eq!(plan_row_group(footer.parquet(), 1, &selection), None);
    let found = read(&segments[0], selection).await.unwrap();
    let found: Vec<Row> = found.iter().flat_map(rows).collect();
    assert_eq!(found.iter().filter(|row| row.tags["host"] == "host_0004").count(), 100);
    assert!(found.len() < 500, "{} rows", found.len());
}

#[tokio::test]
async fn what_was_decoded_lately_is_not_read_again() {
    let files = FileStore::in_memory();
    let store = SegmentStore::new(Arc::clone(&files), 1, DAYS);
    let schema = schema(&["dc", "host"], &["a", "s"]);
    let segments = write(&store, &schema, &many_rows(20, 8000)).await;
    let host = (Arc::from("host"), BTreeSet::from(["host_0004".to_owned()]));
    let of_host = |columns: SchemaRef, times| Selection {
        tags: Arc::new([host.clone()]),
        ..selection(columns, times)
    };
    let own = |batches: Vec<RecordBatch>| {
        let rows = batches.iter().flat_map(rows);
        rows.filter(|row| row.tags["host"] == "host_0004").collect::<Vec<Row>>()
    };

    let first = read(&segments[0], of_host(schema.arrow(), seconds(100, 8000))).await.unwrap();
    let first = own(first);
    let expected = many_rows(5, 8000).into_iter().skip(4 * 8000 + 100);
    assert_eq!(first, expected.collect::<Vec<Row>>());
    files.delete(&segments[0].meta().path).await.unwrap();
    let again = read(&segments[0], of_host(schema.arrow(), seconds(150, 200))).await.unwrap();
    assert_eq!(own(again), first[50..100]);

    segments[0].forget_cached();
    let none = read(&segments[0], of_host(schema.arrow(), seconds(150, 200))).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn any_tool_reads_a_segment() {
    let store = SegmentStore::new(FileStore::in_memory(), 1, DAYS);
    let schema = schema(&["dc", "host"], &["a", "s"]);
    let written = store
        .write_rows(&id(), &schema, vec![batch(&schema, &many_rows(2, 50))], Medium::Disk)
        .await
        .unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(written[0].bytes.clone()).unwrap();
    let group = builder.metadata().row_group(0);
    let order: Vec<i32> = group.sorting_columns().unwrap().iter().map(|c| c.column_idx).collect();
    assert_eq!(order, [1, 2, 0]);
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(rows(&batches[0]), many_rows(2, 50));
}

#[tokio::test]
async fn damage_is_an_error_that_names_the_file() {
    let files = FileStore::in_memory();
    let store = SegmentStore::new(Arc::clone(&files), 1, DAYS);
    let schema = schema(&["dc", "host"], &["a", "s"]);
    let segments = write(&store, &schema, &many_rows(2, 1000)).await;
    let path = segments[0].meta().path.clone();
    let intact = files.get(&path).await.unwrap();

    let cut = intact.slice(..intact.len() - 1);
    let zeroed = |range: std::ops::Range<usize>| {
        let mut bytes = intact.to_vec();
        bytes[range].fill(0xA5);
        Bytes::from(bytes)
    };
    let tail = zeroed(intact.len() - 8..intact.len() - 4);
    let footer = zeroed(intact.len() - 200..intact.len() - 100);
    let pages = zeroed(100..500);
    for damaged in [cut, tail, footer, pages] {
        files.put(&path, damaged, PutKind::Overwrite).await.unwrap();
        let fresh = SegmentStore::new(Arc::clone(&files), 1, DAYS);
        let segment = fresh.handle(Arc::clone(segments[0].meta()));
        let error = read(&segment, selection(schema.arrow(), TimeRanges::all())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&path), "{error}");
        assert!(fresh.damaged().contains(&path));
    }
    files.delete(&path).await.unwrap();
    let fresh = SegmentStore::new(Arc::clone(&files), 1, DAYS);
    let segment = fresh.handle(Arc::clone(segments[0].meta()));
    let error = read(&segment, selection(schema.arrow(), TimeRanges::all())).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

/// Wherever a bit flips, what is read is what was written, or an error.
#[tokio::test]
async fn a_flipped_bit_is_never_served() {
    let files = FileStore::in_memory();
    let shape = SegmentShape { row_group_rows: 700, window_rows: 0 };
    let store = SegmentStore::new(Arc::clone(&files), 1, shape);
    let schema = schema(&["dc", "host"], &["a", "s"]);
    let segment = write(&store, &schema, &many_rows(2, 1000)).await.remove(0);
    let path = segment.meta().path.clone();
    let intact = files.get(&path).await.unwrap();
    for at in (0..intact.len()).step_by(13) {
        let mut bytes = intact.to_vec();
        bytes[at] ^= 1 << (at % 8);
        files.put(&path, bytes.into(), PutKind::Overwrite).await.unwrap();
        let fresh = SegmentStore::new(Arc::clone(&files), 1, shape);
        let segment = fresh.handle(Arc::clone(segment.meta()));
        let all = selection(schema.arrow(), TimeRanges::all());
        let error = read(&segment, all).await.unwrap_err().to_string();
        assert!(error.contains("checksum"), "byte {at}: {error}");
    }
}

#[tokio::test]
async fn a_removed_file_goes_after_its_last_reader() {
    let files = FileStore::in_memory();
    let store = SegmentStore::new(Arc::clone(&files), 1, DAYS);
    let schema = schema(&["host"], &["a"]);
    let segment = write(&store, &schema, &[Row::at(1).field("a", 1)]).await.remove(0);
    let location = object_path(&segment.meta().path).unwrap();
    let reader = Arc::clone(&segment);
    segment.mark_removed(Removal::Delete);
    drop(segment);
    assert_eq!(store.delete_unreferenced().await, 0);
    let all = selection(schema.arrow(), TimeRanges::all());
    assert_eq!(read(&reader, all).await.unwrap().len(), 1);
    drop(reader);
    assert_eq!(store.delete_unreferenced().await, 1);
    assert!(files.segment_size(&location, 0).await.is_err());
}
