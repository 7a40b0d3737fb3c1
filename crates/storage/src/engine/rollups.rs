//! Rows of aggregates that take the place of others one by one.

use arrow::array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::Int32Type;
use highwater_core::{Column, ColumnRole, FieldType, Schema};

use super::*;

/// Sums of hosts, as `host@time=sum`, that take the place of those with the same host and time.
pub(super) fn by_host(text: &str) -> Replacement {
    let host = Column { name: "host".into(), role: ColumnRole::Tag };
    let schema = Arc::new(Schema::of([host, Column::field("sum", FieldType::Integer)]));
    let rows: Vec<(&str, i64, Option<i64>)> = text
        .split_whitespace()
        .map(|row| {
            let (host, rest) = row.split_once('@').unwrap();
            let (time, sum) = rest.split_once('=').unwrap();
            (host, time.parse::<i64>().unwrap() * 1_000_000_000, sum.parse().ok())
        })
        .collect();
    let times = TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.1));
    let hosts: DictionaryArray<Int32Type> = rows.iter().map(|row| row.0).collect();
    let sums = rows.iter().map(|row| row.2).collect::<Int64Array>();
    let columns: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(hosts), Arc::new(sums)];
    Replacement {
        id: id("by_host"),
        kind: MeasurementKind::Rollup,
        times: TimeRanges::none(),
        overwrites: TimeRanges::all(),
        batches: vec![RecordBatch::try_new(schema.arrow(), columns).unwrap()],
        schema,
        medium: crate::Medium::Disk,
    }
}

#[tokio::test]
async fn a_row_of_a_rollup_takes_the_place_of_the_one_before_as_a_whole() {
    let harness = Harness::new().await;
    let replace = async |replacement| {
        let commit = Commit { replacements: vec![replacement], ..Commit::default() };
        harness.engine.commit(commit).await
    };
    replace(by_host("a@0=1 b@0=2 a@3600=3")).await.unwrap();
    replace(by_host("b@0=4 c@0=5")).await.unwrap();
    replace(by_host("c@0=null")).await.unwrap();
    let expected = [
        "by_host,host=a sum=1 0",
        "by_host,host=a sum=3 3600",
        "by_host,host=b sum=4 0",
        "by_host,host=c  0",
    ];
    assert_eq!(harness.read("by_host").await, expected);
    assert_eq!(harness.after_crash().await.read("by_host").await, expected);

    // A range is replaced with all its rows.
    let hour = Replacement { times: secs(0, 3600).into(), ..by_host("a@0=7") };
    replace(Replacement { overwrites: TimeRanges::none(), ..hour }).await.unwrap();
    let expected = ["by_host,host=a sum=3 3600", "by_host,host=a sum=7 0"];
    assert_eq!(harness.read("by_host").await, expected);
    for i in 0..40 {
        replace(by_host(&format!("d@{i}={i} a@3600={i}"))).await.unwrap();
    }
    let before = harness.read("by_host").await;
    assert_eq!(before.len(), 42);
    while harness.engine.compact().await.unwrap() > 0 {}
    let version = harness.engine.version();
    assert!(version.measurement(&id("by_host")).unwrap().segments().len() < 40);
    assert_eq!(harness.read("by_host").await, before);

    let mixed = Replacement { kind: MeasurementKind::Materialization, ..by_host("a@0=1") };
    assert!(matches!(replace(mixed).await, Err(StorageError::Invalid(_))));
}
