//! Scans of some series, and of what commits since another have stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use highwater_core::{ScanFilter, SequenceNumber, SeriesRanges, Timestamp};
use proptest::prelude::*;

use super::{Measurement, Step, assert_same, step, times};
use crate::scan::ScanRequest;
use crate::segment::test_rows::{Row, rows};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_wanted_series_are_all_there_and_no_others(
        steps in prop::collection::vec(step(), 1..12),
        wanted in prop::collection::vec((prop::option::of("[a-d]"), times()), 0..4),
        since in 0..8_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut measurement = Measurement::new(7);
            let mut written_since = Vec::new();
            for step in steps {
                let seq = measurement.seq;
                if let (Step::Write { rows, .. }, true) = (&step, seq.get() >= since) {
                    written_since.extend(rows.iter().map(|row| (row.time, row.tags.clone())));
                }
                measurement.apply(step).await;
            }
            let ranges = wanted.iter().flat_map(|(host, times)| {
                times.iter().map(move |range| (vec![host.clone()], range))
            });
            let series = SeriesRanges::new(vec!["host".into()], ranges);
            let is_wanted = |row: &Row| {
                let ranges = series.ranges_of(|_| row.tags.get("host").map(String::as_str));
                ranges.is_some_and(|ranges| ranges.contains(Timestamp::from_nanos(row.time)))
            };
            let filter = || ScanFilter {
                series: Some(Arc::new(series.clone())),
                ..ScanFilter::all()
            };
            let found = measurement.scan(&["a", "time", "dc", "host"], filter(), 2).await;
            let mut expected = measurement.expected(is_wanted);
            expected.iter_mut().for_each(|row| row.fields.retain(|field, _| field == "a"));
            expected.sort();
            assert_same(&found, &expected);

            let columns = ["time", "host", "dc"].map(Arc::from).to_vec();
            let newer_than = SequenceNumber::new(since);
            let request = ScanRequest { newer_than, ..ScanRequest::new(columns, filter()) };
            let scan = measurement.sources.scan(&request).unwrap();
            let batches: Vec<RecordBatch> = scan.stream(0).try_collect().await.unwrap();
            let newer: Vec<Row> = batches.iter().flat_map(rows).collect();
            for row in measurement.expected(is_wanted) {
                let is_newer = written_since
                    .iter()
                    .any(|(time, tags)| *time == row.time && same_series(tags, &row.tags));
                let is_found =
                    newer.iter().any(|own| own.time == row.time && same_series(&own.tags, &row.tags));
                assert!(is_found || !is_newer, "{row:?} was written after {since}");
            }
        });
    }
}

/// Whether these are the same as far as the test reads them.
fn same_series(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> bool {
    ["host", "dc"].iter().all(|tag| a.get(*tag) == b.get(*tag))
}
