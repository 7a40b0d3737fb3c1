mod last_points;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use highwater_core::{
    Comparison, Condition, FieldValue, MeasurementId, PointSet, ScanFilter, Schema, SequenceNumber,
    TimeRange, TimeRanges, Timestamp,
};
use proptest::prelude::*;

use super::{ScanRequest, ScanSources, SortedRows};
use crate::error::StorageError;
use crate::file_store::FileStore;
use crate::manifest::{MeasurementKind, Tombstone};
use crate::segment::selection::with_columns;
use crate::segment::sort::sort_rows;
use crate::segment::test_rows::{Row, batch, rows, schema};
use crate::segment::{Medium, SegmentHandle, SegmentShape, SegmentStore};

/// Identity of a row.
type Key = (BTreeMap<String, String>, i64);

/// What a measurement should hold: fields by identity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model(BTreeMap<Key, BTreeMap<String, i64>>);

impl Model {
    pub(crate) fn write(&mut self, rows: &[Row]) {
        for row in rows {
            let fields = self.0.entry((row.tags.clone(), row.time)).or_default();
            fields.extend(row.fields.clone());
        }
    }

    pub(crate) fn delete(&mut self, tombstone: &Tombstone) {
        self.0.retain(|(tags, time), _| {
            let is_inside = tombstone.times.contains(Timestamp::from_nanos(*time));
            !(is_inside && holds(&tombstone.condition, tags, *time) == Some(true))
        });
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |((tags, time), fields): (&Key, &BTreeMap<String, i64>)| Row {
            tags: tags.clone(),
            time: *time,
            fields: fields.clone(),
        };
        self.0.iter().map(row).collect()
    }
}

fn holds(condition: &Condition, tags: &BTreeMap<String, String>, time: i64) -> Option<bool> {
    match condition {
        Condition::All => Some(true),
        Condition::IsNull(tag) => Some(!tags.contains_key(&**tag)),
        Condition::Not(inner) => Some(!holds(inner, tags, time)?),
        Condition::Points(points) => {
            let times = points.times_of(|tag| tags.get(&*points.tags()[tag]).map(String::as_str));
            Some(times.contains(&time))
        }
        Condition::Compare { column, comparison, value } => {
            let order = match value {
                FieldValue::Timestamp(value) => time.cmp(&value.as_nanos()),
                FieldValue::String(value) => tags.get(&**column)?.cmp(value),
                other => panic!("no test compares with {other:?}"),
            };
            Some(match comparison {
                Comparison::Equal => order.is_eq(),
                Comparison::NotEqual => order.is_ne(),
                Comparison::Less => order.is_lt(),
                Comparison::LessOrEqual => order.is_le(),
                Comparison::Greater => order.is_gt(),
                Comparison::GreaterOrEqual => order.is_ge(),
            })
        }
        Condition::And(all) => {
            let all: Vec<_> = all.iter().map(|inner| holds(inner, tags, time)).collect();
            let is_false = all.contains(&Some(false));
            if is_false {
                Some(false)
            } else {
                all.into_iter().collect::<Option<Vec<_>>>().map(|_| true)
            }
        }
        Condition::Or(any) => {
            let any: Vec<_> = any.iter().map(|inner| holds(inner, tags, time)).collect();
            let is_true = any.contains(&Some(true));
            if is_true {
                Some(true)
            } else {
                any.into_iter().collect::<Option<Vec<_>>>().map(|_| false)
            }
        }
    }
}

/// A batch in memory, deduplicated.
#[derive(Debug)]
pub(crate) struct MemoryRows {
    sorted: RecordBatch,
    seq: SequenceNumber,
    times: TimeRange,
}

impl MemoryRows {
    fn new(schema: &Schema, rows: &[Row], seq: SequenceNumber) -> Self {
        let sorted = sort_rows(schema, &batch(schema, rows)).unwrap();
        let times = || rows.iter().map(|row| row.time);
        let (first, last) = (times().min().unwrap(), times().max().unwrap());
        let times = TimeRange::new(Timestamp::from_nanos(first), Timestamp::from_nanos(last + 1));
        MemoryRows { sorted, seq, times }
    }
}

impl SortedRows for MemoryRows {
    fn seqs(&self) -> (SequenceNumber, SequenceNumber) {
        (self.seq, self.seq)
    }

    fn times(&self) -> TimeRange {
        self.times
    }

    fn rows(&self) -> usize {
        self.sorted.num_rows()
    }

    fn sorted(&self, _: &ScanFilter) -> Result<RecordBatch, StorageError> {
        Ok(self.sorted.clone())
    }
}

/// A measurement with its sources, and what it should hold.
pub(crate) struct Measurement {
    pub(crate) store: Arc<SegmentStore>,
    pub(crate) sources: ScanSources,
    pub(crate) model: Model,
    pub(crate) seq: SequenceNumber,
}

impl Measurement {
    pub(crate) fn new(row_group_rows: usize) -> Self {
        let every_day = SegmentShape { row_group_rows, window_rows: 0 };
        let store = SegmentStore::new(FileStore::in_memory(), 1, every_day);
        let sources = ScanSources {
            schema: schema(&["host", "dc"], &["a", "s"]),
            kind: MeasurementKind::Points,
            floor: Timestamp::EARLIEST,
            tombstones: Vec::new(),
            segments: Vec::new(),
            rows: Vec::new(),
        };
        let (model, seq) = (Model::default(), SequenceNumber::ZERO);
        Measurement { store, sources, model, seq }
    }

    pub(crate) fn id() -> MeasurementId {
        MeasurementId::new("db", "m")
    }

    /// One commit, kept in memory.
    fn write_to_memory(&mut self, rows: &[Row]) {
        let rows = self.commit(rows);
        let rows = MemoryRows::new(&self.sources.schema, &rows, self.seq);
        self.sources.rows.push(Arc::new(rows));
    }

    /// One commit, stored as a segment per day, like all before.
    pub(crate) async fn write_segment(&mut self, rows: &[Row]) {
        for rows in std::mem::take(&mut self.sources.rows) {
            let sorted = rows.sorted(&ScanFilter::all()).unwrap();
            let sorted = with_columns(&sorted, &self.sources.schema.arrow()).unwrap();
            self.store_segments(sorted, rows.seqs().1).await;
        }
        let rows = self.commit(rows);
        self.store_segments(batch(&self.sources.schema, &rows), self.seq).await;
    }

    async fn store_segments(&mut self, rows: RecordBatch, seq: SequenceNumber) {
        let (id, schema) = (Measurement::id(), &self.sources.schema);
        for segment in self.store.write_rows(&id, schema, vec![rows], Medium::Disk).await.unwrap() {
            let meta = Arc::new(segment.meta(seq, seq));
            self.sources.segments.push(self.store.handle(meta));
        }
    }

    /// Counts the commit; the rows without duplicates.
    fn commit(&mut self, rows: &[Row]) -> Vec<Row> {
        self.seq = self.seq.next();
        self.model.write(rows);
        let mut once = Model::default();
        once.write(rows);
        once.rows()
    }

    pub(crate) fn delete(&mut self, times: TimeRanges, condition: Condition) {
        self.seq = self.seq.next();
        let tombstone = Tombstone { seq: self.seq, times, condition };
        self.model.delete(&tombstone);
        self.sources.tombstones.push(Arc::new(tombstone));
    }

    /// Replaces what is at some times, in one commit.
    async fn replace(&mut self, times: TimeRanges, rows: &[Row]) {
        self.delete(times, Condition::All);
        self.model.write(rows);
        self.store_segments(batch(&self.sources.schema, rows), self.seq).await;
    }

    /// From now on there is another tag and another field.
    fn add_columns(&mut self) {
        self.sources.schema = schema(&["host", "dc", "new"], &["a", "s", "b"]);
    }

    pub(crate) fn segments(&self) -> &[Arc<SegmentHandle>] {
        &self.sources.segments
    }

    async fn scan(&self, columns: &[&str], filter: ScanFilter, partitions: usize) -> Vec<Row> {
        self.rows_of(columns, filter, false, partitions).await
    }

    async fn rows_of(
        &self,
        columns: &[&str],
        filter: ScanFilter,
        only_last: bool,
        partitions: usize,
    ) -> Vec<Row> {
        let columns = columns.iter().map(|name| Arc::from(*name)).collect();
        let request = ScanRequest { only_last, partitions, ..ScanRequest::new(columns, filter) };
        let scan = self.sources.scan(&request).unwrap();
        let streams = (0..scan.partitions()).map(|partition| scan.stream(partition));
        let batches: Vec<RecordBatch> =
            futures::stream::select_all(streams).try_collect().await.unwrap();
        for batch in &batches {
            assert_eq!(batch.schema(), scan.schema());
            assert!(batch.num_rows() > 0);
        }
        let mut found: Vec<Row> = batches.iter().flat_map(rows).collect();
        found.sort();
        found
    }

    pub(crate) async fn all_rows(&self, partitions: usize) -> Vec<Row> {
        let names: Vec<String> =
            self.sources.schema.arrow().fields().iter().map(|f| f.name().clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.scan(&names, ScanFilter::all(), partitions).await
    }

    pub(crate) fn expected(&self, is_wanted: impl Fn(&Row) -> bool) -> Vec<Row> {
        let mut expected: Vec<Row> = self.model.rows().into_iter().filter(is_wanted).collect();
        expected.sort();
        expected
    }
}

/// Compares rows; a difference is told by the rows that differ.
pub(crate) fn assert_same(found: &[Row], expected: &[Row]) {
    let surplus: Vec<&Row> = found.iter().filter(|row| !expected.contains(row)).take(3).collect();
    let missing: Vec<&Row> = expected.iter().filter(|row| !found.contains(row)).take(3).collect();
    assert!(found == expected, "surplus: {surplus:?}, missing: {missing:?}, {} rows", found.len());
}

/// What happens to a measurement.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write { rows: Vec<Row>, to_memory: bool },
    Delete { times: TimeRanges, condition: Condition },
    AddColumns,
}

impl Measurement {
    pub(crate) async fn apply(&mut self, step: Step) {
        match step {
            Step::Write { rows, to_memory: true } => self.write_to_memory(&rows),
            Step::Write { rows, to_memory: false } => self.write_segment(&rows).await,
            Step::Delete { times, condition } => self.delete(times, condition),
            Step::AddColumns => self.add_columns(),
        }
    }
}

const MAX_TIME: i64 = 40;

fn row() -> impl Strategy<Value = Row> {
    let host = prop_oneof![Just(None), Just(Some("a")), Just(Some("b")), Just(Some("c"))];
    let dc = prop_oneof![Just(None), Just(Some("x"))];
    let field = || prop::option::of(0..1000_i64);
    (host, dc, 0..MAX_TIME, field(), field()).prop_map(|(host, dc, time, a, s)| {
        let tags = [("host", host), ("dc", dc)].into_iter();
        let row = tags.fold(Row::at(time), |row, (tag, value)| match value {
            Some(value) => row.tag(tag, value),
            None => row,
        });
        match (a, s) {
            (Some(a), Some(s)) => row.field("a", a).field("s", s),
            (None, Some(s)) => row.field("s", s),
            (a, None) => row.field("a", a.unwrap_or(-1)),
        }
    })
}

pub(crate) fn times() -> impl Strategy<Value = TimeRanges> {
    let range = (-1..MAX_TIME, 1..15_i64).prop_map(|(start, length)| {
        TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(start + length))
    });
    prop_oneof![
        1 => Just(TimeRanges::all()),
        4 => prop::collection::vec(range, 1..3).prop_map(|ranges| ranges.into_iter().collect()),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let host = Condition::Compare {
        column: "host".into(),
        comparison: Comparison::GreaterOrEqual,
        value: FieldValue::String("b".into()),
    };
    let late = Condition::Compare {
        column: "time".into(),
        comparison: Comparison::Greater,
        value: FieldValue::Timestamp(Timestamp::from_nanos(20)),
    };
    let no_dc = Condition::IsNull("dc".into());
    prop_oneof![
        3 => Just(Condition::All),
        1 => Just(host.clone()),
        1 => Just(Condition::Not(Box::new(host.clone()))),
        1 => Just(Condition::And(vec![host, late.clone()])),
        1 => Just(Condition::Or(vec![no_dc, late])),
        1 => prop::collection::vec(row(), 1..20).prop_map(named),
    ]
}

/// The points that rows would have, one by one.
fn named(rows: Vec<Row>) -> Condition {
    let tags: [Arc<str>; 2] = ["dc".into(), "host".into()];
    let values = |row: &Row| tags.iter().map(|tag| row.tags.get(&**tag).cloned()).collect();
    let points: Vec<(Vec<Option<String>>, Timestamp)> =
        rows.iter().map(|row| (values(row), Timestamp::from_nanos(row.time))).collect();
    Condition::Points(Arc::new(PointSet::new(tags.to_vec(), points)))
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let rows = prop::collection::vec(row(), 1..40);
    prop_oneof![
        8 => (rows, any::<bool>()).prop_map(|(rows, to_memory)| Step::Write { rows, to_memory }),
        2 => (times(), condition()).prop_map(|(times, condition)| Step::Delete { times, condition }),
        1 => Just(Step::AddColumns),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_returns_what_the_model_holds(
        steps in prop::collection::vec(step(), 1..12),
        wanted in times(),
        host in prop::option::of("[a-d]"),
        partitions in 1..4_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut measurement = Measurement::new(7);
            for step in steps {
                measurement.apply(step).await;
            }
            assert_same(&measurement.all_rows(partitions).await, &measurement.expected(|_| true));

            let tags = host.iter().map(|host| ("host".into(), BTreeSet::from([host.clone()])));
            let filter = ScanFilter { tags: tags.collect(), ..ScanFilter::at(wanted.clone()) };
            let has_host =
                |row: &Row| host.as_ref().is_none_or(|host| row.tags.get("host") == Some(host));
            let found = measurement.scan(&["s", "host", "dc", "time"], filter, partitions).await;
            let found: Vec<Row> = found.into_iter().filter(has_host).collect();
            let mut expected = measurement.expected(|row| {
                has_host(row) && wanted.contains(Timestamp::from_nanos(row.time))
            });
            for row in &mut expected {
                row.fields.retain(|field, _| field == "s");
            }
            expected.sort();
            assert_same(&found, &expected);
        });
    }
}

#[tokio::test]
async fn an_hour_of_a_host_opens_one_segment_of_thirty() {
    let mut measurement = Measurement::new(128 * 1024);
    let day = highwater_core::time::NANOS_PER_DAY;
    for i in 0..30 {
        let host = |host: &str, hour: i64| {
            Row::at(i * day + hour * day / 24).tag("host", host).field("a", i)
        };
        measurement.write_segment(&[host("a", 1), host("b", 2), host("a", 3)]).await;
    }
    let hour = |day_number: i64, hour: i64| {
        let start = Timestamp::from_nanos(day_number * day + hour * day / 24);
        TimeRanges::from(TimeRange::new(start, start.saturating_add(day / 24)))
    };
    let request = |times, host: &str| ScanRequest {
        columns: vec!["time".into(), "a".into()],
        filter: ScanFilter {
            tags: vec![("host".into(), BTreeSet::from([host.into()]))],
            ..ScanFilter::at(times)
        },
        newer_than: SequenceNumber::ZERO,
        only_last: false,
        partitions: 2,
    };
    let scan = measurement.sources.scan(&request(hour(17, 2), "b")).unwrap();
    assert_eq!((scan.describe().segments, scan.describe().pruned_segments), (1, 29));
    let found: Vec<RecordBatch> = scan.stream(0).try_collect().await.unwrap();
    assert_eq!(rows(&found[0]), [Row::at(17 * day + 2 * day / 24).field("a", 17)]);
    assert_eq!(scan.rows_read(), 1);
    let none = measurement.sources.scan(&request(TimeRanges::all(), "c")).unwrap();
    assert_eq!((none.describe().segments, none.partitions()), (0, 1));
}

#[tokio::test]
async fn every_round_of_a_scan_returns_all_rows() {
    let mut measurement = Measurement::new(2);
    let points: Vec<Row> = (0..9).map(|time| Row::at(time).field("a", time)).collect();
    measurement.write_segment(&points).await;
    let request = ScanRequest {
        columns: vec![],
        filter: ScanFilter::all(),
        newer_than: SequenceNumber::ZERO,
        only_last: false,
        partitions: 2,
    };
    let scan = measurement.sources.scan(&request).unwrap();
    assert_eq!(scan.partitions(), 2);
    for _ in 0..2 {
        let mut count = 0;
        for partition in 0..2 {
            let batches: Vec<RecordBatch> = scan.stream(partition).try_collect().await.unwrap();
            count += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        }
        assert_eq!(count, 9);
    }
}

#[tokio::test]
async fn a_materialization_keeps_equal_rows_and_loses_replaced_ones() {
    let mut measurement = Measurement::new(128);
    measurement.sources.kind = MeasurementKind::Materialization;
    let piece = |time, a| Row::at(time).tag("host", "h").field("a", a);
    measurement.write_segment(&[piece(0, 1), piece(10, 2)]).await;
    measurement.write_segment(&[piece(10, 3)]).await;
    assert_eq!(measurement.all_rows(2).await, [piece(0, 1), piece(10, 2), piece(10, 3)]);
    let ten = TimeRange::new(Timestamp::from_nanos(10), Timestamp::from_nanos(20));
    measurement.replace(ten.into(), &[piece(10, 4)]).await;
    assert_eq!(measurement.all_rows(2).await, [piece(0, 1), piece(10, 4)]);
    let request = ScanRequest {
        columns: vec![],
        filter: ScanFilter::at(ten.into()),
        newer_than: SequenceNumber::ZERO,
        only_last: false,
        partitions: 1,
    };
    assert_eq!(measurement.sources.scan(&request).unwrap().describe().segments, 1);
}

#[test]
fn unknown_and_repeated_columns_are_refused() {
    let measurement = Measurement::new(128);
    for columns in [vec!["nope".into()], vec!["a".into(), "a".into()]] {
        let request = ScanRequest::new(columns, ScanFilter::all());
        assert!(matches!(measurement.sources.scan(&request), Err(StorageError::Invalid(_))));
    }
}
