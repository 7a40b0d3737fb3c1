//! Scans that may leave out all but the last points of every series.

use std::collections::BTreeMap;

use super::*;

type Series = BTreeMap<String, String>;
/// The newest row, and per field the newest time that has it and the value there.
type Last = (Row, BTreeMap<String, (i64, i64)>);

fn last_of(rows: &[Row]) -> BTreeMap<Series, Last> {
    let mut last: BTreeMap<Series, Last> = BTreeMap::new();
    let mut by_time: Vec<&Row> = rows.iter().collect();
    by_time.sort_by_key(|row| row.time);
    for row in by_time {
        let entry = last.entry(row.tags.clone()).or_insert((row.clone(), BTreeMap::new()));
        entry.0 = row.clone();
        let fields = row.fields.iter().map(|(name, value)| (name.clone(), (row.time, *value)));
        entry.1.extend(fields);
    }
    last
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_last_points_are_those_of_all_points(
        steps in prop::collection::vec(step(), 1..12),
        wanted in times(),
        partitions in 1..4_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut measurement = Measurement::new(7);
            for step in steps {
                measurement.apply(step).await;
            }
            let columns = ["a", "s", "host", "dc", "time"];
            let filter = ScanFilter::at(wanted);
            let all = measurement.scan(&columns, filter.clone(), partitions).await;
            // The second time from memory.
            for _ in 0..2 {
                let last = measurement.rows_of(&columns, filter.clone(), true, partitions).await;
                assert!(last.len() <= all.len());
                assert_eq!(last_of(&last), last_of(&all));
            }
        });
    }
}

#[tokio::test]
async fn later_scans_of_a_segment_read_its_last_points_from_memory() {
    let mut measurement = Measurement::new(7);
    let points: Vec<Row> = (0..100)
        .map(|at| Row::at(at / 2).tag("host", ["a", "b"][at as usize % 2]).field("a", at))
        .collect();
    measurement.write_segment(&points).await;
    let request = ScanRequest {
        columns: vec!["time".into(), "a".into()],
        filter: ScanFilter::all(),
        newer_than: SequenceNumber::ZERO,
        only_last: true,
        partitions: 2,
    };
    for _ in 0..2 {
        let scan = measurement.sources.scan(&request).unwrap();
        let found: Vec<RecordBatch> = scan.stream(0).try_collect().await.unwrap();
        let found: Vec<Row> = found.iter().flat_map(rows).collect();
        assert_eq!(found, [Row::at(49).field("a", 98), Row::at(49).field("a", 99)]);
        assert_eq!(scan.rows_read(), 2);
    }
}
