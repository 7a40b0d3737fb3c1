use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampNanosecondType};
use highwater_core::{Column, FieldType, Schema, TagSet};

use super::*;
use crate::series::SeriesIndex;

fn schema() -> Arc<Schema> {
    Arc::new(Schema::of([
        Column::tag("host"),
        Column::tag("dc"),
        Column::field("a", FieldType::Integer),
        Column::field("b", FieldType::Float),
    ]))
}

/// Host, dc (`""` for none), time, a, b.
type Point<'a> = (&'a str, &'a str, i64, Option<i64>, Option<f64>);

fn batch(index: &Arc<SeriesIndex>, seq: u64, points: &[Point<'_>]) -> MemBatch {
    let tag_sets: Vec<TagSet> = points
        .iter()
        .map(|(host, dc, ..)| TagSet::new([("host", *host), ("dc", *dc)]).unwrap())
        .collect();
    let a: ArrayRef = Arc::new(points.iter().map(|point| point.3).collect::<Int64Array>());
    let b: ArrayRef = Arc::new(points.iter().map(|point| point.4).collect::<Float64Array>());
    let fields = [(0, a), (1, b)].into_iter().filter(|(_, v)| v.null_count() < v.len());
    let rows = Rows {
        series: index.intern(&tag_sets),
        times: points.iter().map(|point| point.2).collect(),
        fields: fields.collect(),
    };
    MemBatch::new(schema(), Arc::clone(index), rows, SequenceNumber::new(seq))
}

fn show(batch: &RecordBatch) -> Vec<String> {
    let tag = |column: usize, row: usize| {
        let tags = batch.column(column).as_dictionary::<Int32Type>();
        let values = tags.values().as_string::<i32>();
        if tags.is_valid(row) { values.value(tags.keys().value(row) as usize) } else { "-" }
    };
    let (a, b) = (batch["a"].as_primitive::<Int64Type>(), batch["b"].as_primitive::<Float64Type>());
    let times = batch["time"].as_primitive::<TimestampNanosecondType>();
    let number = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let cells = |row: usize| {
        [
            tag(1, row).to_owned(),
            tag(2, row).to_owned(),
            times.value(row).to_string(),
            number(a.is_valid(row).then(|| a.value(row).to_string())),
            number(b.is_valid(row).then(|| b.value(row).to_string())),
        ]
        .join(" ")
    };
    (0..batch.num_rows()).map(cells).collect()
}

#[test]
fn rows_are_sorted_and_the_newest_value_of_each_field_wins() {
    let index = Arc::default();
    let batch = batch(
        &index,
        1,
        &[
            ("b", "", 5, Some(1), None),
            ("a", "x", 7, Some(2), Some(0.5)),
            ("a", "", 9, Some(3), None),
            ("b", "", 5, None, Some(1.5)),
            ("b", "", 4, Some(4), None),
            ("b", "", 5, Some(6), None),
            ("", "z", 1, Some(7), None),
        ],
    );
    let expected =
        ["- z 1 7 -", "a - 9 3 -", "a x 7 2 0.5", "b - 4 4 -", "b - 5 6 1.5"].map(str::to_owned);
    assert_eq!(show(batch.sorted().unwrap()), expected);
    assert_eq!(batch.times(), TimeRange::new(time(1), time(10)));
    let sorted = batch.sorted_rows(&[0, 2, 3]);
    assert_eq!(show(&sorted.all().unwrap()), ["a - 9 3 -", "b - 5 1 1.5"]);
    let parts = sorted.parts(1).map(|part| show(&part.unwrap())).collect::<Vec<_>>();
    assert_eq!(parts, [["a - 9 3 -"], ["b - 5 1 1.5"]]);
}

#[test]
fn the_last_points_are_the_newest_row_and_the_newest_with_each_field() {
    let index = Arc::default();
    let batch = batch(
        &index,
        1,
        &[
            ("a", "", 9, None, Some(0.1)),
            ("a", "", 1, Some(1), None),
            ("a", "", 8, Some(3), None),
            ("a", "", 8, None, Some(0.2)),
            ("a", "", 7, Some(4), Some(0.3)),
            ("b", "", 3, Some(5), None),
            ("b", "", 2, Some(6), Some(0.4)),
            ("b", "", 3, Some(7), None),
            ("b", "", 1, Some(8), Some(0.5)),
        ],
    );
    let expected = ["a - 8 3 -", "a - 9 - 0.1", "b - 2 6 0.4", "b - 3 7 -"];
    assert_eq!(show(batch.last_points().unwrap()), expected);
}

fn time(nanos: i64) -> highwater_core::Timestamp {
    highwater_core::Timestamp::from_nanos(nanos)
}

#[test]
fn joined_batches_keep_their_order() {
    let index = Arc::default();
    let old =
        Arc::new(batch(&index, 1, &[("a", "", 1, Some(1), None), ("b", "", 1, Some(2), None)]));
    let new =
        Arc::new(batch(&index, 2, &[("a", "", 1, None, Some(0.5)), ("b", "", 1, Some(3), None)]));
    let joined = MemBatch::join(&[old, new]).unwrap();
    assert_eq!(show(joined.sorted().unwrap()), ["a - 1 1 0.5", "b - 1 3 -"]);
    assert_eq!((joined.min_seq().get(), joined.max_seq().get()), (1, 2));
}

#[test]
fn single_points_make_a_short_list() {
    let index = Arc::default();
    let mut memtable = Memtable::default();
    for seq in 1..=1000 {
        let point = batch(&index, seq, &[("a", "", seq as i64, Some(1), None)]);
        memtable.push(point, SequenceNumber::ZERO).unwrap();
    }
    assert!(memtable.batches().count() <= 11, "{} batches", memtable.batches().count());
    assert_eq!(memtable.memory().rows, 1000);
    let bytes: usize = memtable.batches().map(|batch| batch.memory().bytes).sum();
    assert_eq!(memtable.memory().bytes, bytes);
    let seqs: Vec<(u64, u64)> =
        memtable.batches().map(|b| (b.min_seq().get(), b.max_seq().get())).collect();
    assert!(seqs.windows(2).all(|two| two[0].1 + 1 == two[1].0), "{seqs:?}");
}

#[test]
fn batches_are_not_joined_across_a_delete_or_a_freeze() {
    let index = Arc::default();
    let mut memtable = Memtable::default();
    let point = |seq| batch(&index, seq, &[("a", "", 1, Some(1), None)]);
    memtable.push(point(1), SequenceNumber::ZERO).unwrap();
    memtable.push(point(3), SequenceNumber::new(2)).unwrap();
    assert_eq!(memtable.batches().count(), 2);
    memtable.freeze();
    memtable.push(point(4), SequenceNumber::new(2)).unwrap();
    assert_eq!((memtable.frozen().len(), memtable.batches().count()), (2, 3));
    memtable.forget_frozen(SequenceNumber::new(3));
    assert_eq!((memtable.frozen().len(), memtable.memory().rows), (0, 1));
}
