//! The engine as the layers above see it, on a real folder.

#[path = "bucket.rs"]
mod bucket;
#[path = "bucket_model.rs"]
mod bucket_model;
#[path = "check.rs"]
mod check;
#[path = "crash.rs"]
mod crash;
#[path = "deletes.rs"]
mod deletes;
#[path = "memory.rs"]
mod memory;
#[path = "model.rs"]
mod model;
#[path = "points.rs"]
mod points;
#[path = "quarantine.rs"]
mod quarantine;
#[path = "recovery.rs"]
mod recovery;
#[path = "resident.rs"]
mod resident;
#[path = "rollups.rs"]
mod rollups;

use std::fs;

use highwater_core::{
    Comparison, Condition, FieldValue, MockClock, PointSet, TimeRange, TimeRanges, Timestamp,
};
use tempfile::TempDir;

use super::*;
use crate::{Edit, ExaminedSegment, MeasurementKind, Replacement, RetentionRule};
use points::{points, read};

struct Harness {
    folder: TempDir,
    clock: Arc<MockClock>,
    settings: Settings,
    engine: Engine,
}

impl Harness {
    async fn new() -> Self {
        Harness::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(MockClock::at(Timestamp::from_secs(1_000_000)));
        let engine = open(folder.path(), &settings, &clock).await.unwrap();
        Harness { folder, clock, settings, engine }
    }

    async fn write(&self, text: &str) -> WriteReport {
        self.engine.write("db", points(text), WriteMode::StoreGoodLines).await.unwrap()
    }

    async fn read(&self, measurement: &str) -> Vec<String> {
        read(&self.engine.version(), measurement).await
    }

    async fn delete(&self, measurement: &str, condition: Condition) -> SequenceNumber {
        self.engine.delete(&self.engine.version(), &id(measurement), condition).await.unwrap()
    }

    /// As after the power went: what is on disk now is opened as another folder.
    async fn after_crash(&self) -> Harness {
        let folder = tempfile::tempdir().unwrap();
        copy(self.folder.path(), folder.path());
        let (clock, settings) = (Arc::clone(&self.clock), self.settings.clone());
        let engine = open(folder.path(), &settings, &clock).await.unwrap();
        Harness { folder, clock, settings, engine }
    }
}

async fn open(
    folder: &Path,
    settings: &Settings,
    clock: &Arc<MockClock>,
) -> Result<Engine, StorageError> {
    let clock: Arc<dyn Clock> = Arc::<MockClock>::clone(clock);
    Engine::open(folder, settings.clone(), clock).await
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn id(measurement: &str) -> MeasurementId {
    MeasurementId::new("db", measurement)
}

fn host_is(host: &str) -> Condition {
    let value = FieldValue::String(host.to_owned());
    Condition::Compare { column: "host".into(), comparison: Comparison::Equal, value }
}

fn before(secs: i64) -> Condition {
    let value = FieldValue::Timestamp(Timestamp::from_secs(secs));
    Condition::Compare { column: "time".into(), comparison: Comparison::Less, value }
}

fn secs(start: i64, end: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_secs(start), Timestamp::from_secs(end))
}

#[tokio::test]
async fn acknowledged_points_are_visible_and_survive_everything() {
    let harness = Harness::new().await;
    let report = harness.write("cpu,host=a usage=1.5 60\n cpu,host=b usage=2,count=3i 60").await;
    assert_eq!((report.rows, report.refused.len()), (2, 0));
    let expected = ["cpu,host=a usage=1.5 60", "cpu,host=b count=3,usage=2.0 60"];
    assert_eq!(harness.read("cpu").await, expected);
    assert_eq!(harness.engine.version().seq(), report.seq);

    let crashed = harness.after_crash().await;
    assert_eq!(crashed.read("cpu").await, expected);
    crashed.engine.flush().await.unwrap();
    assert_eq!(crashed.engine.stats().memtable_rows, 0);
    assert_eq!(crashed.read("cpu").await, expected);
    assert_eq!(crashed.after_crash().await.read("cpu").await, expected);

    harness.engine.close().await.unwrap();
    harness.engine.close().await.unwrap();
    let refused = harness.engine.write("db", points("cpu usage=1 1"), WriteMode::StoreGoodLines);
    assert!(matches!(refused.await, Err(StorageError::Closed)));
    let reopened = open(harness.folder.path(), &harness.settings, &harness.clock).await.unwrap();
    assert_eq!(read(&reopened.version(), "cpu").await, expected);
    assert_eq!(reopened.stats().logs, 1);
}

#[tokio::test]
async fn the_newest_value_of_each_field_wins_wherever_the_others_are() {
    let harness = Harness::new().await;
    harness.write("cpu,host=a x=1,y=1 60\n cpu,host=a x=2 120").await;
    harness.engine.flush().await.unwrap();
    harness.write("cpu,host=a x=3 60").await;
    harness.engine.flush().await.unwrap();
    harness.write("cpu,host=a z=4 60\n cpu,host=a z=5 60").await;
    let expected = ["cpu,host=a x=2.0 120", "cpu,host=a x=3.0,y=1.0,z=5.0 60"];
    assert_eq!(harness.read("cpu").await, expected);
    let crashed = harness.after_crash().await;
    assert_eq!(crashed.read("cpu").await, expected);
    crashed.engine.flush().await.unwrap();
    assert_eq!(crashed.read("cpu").await, expected);
}

#[tokio::test]
async fn a_version_does_not_change() {
    let harness = Harness::new().await;
    harness.write("cpu,host=a x=1 60").await;
    let pinned = harness.engine.version();
    harness.write("cpu,host=a x=2 60").await;
    harness.engine.flush().await.unwrap();
    harness.delete("cpu", Condition::All).await;
    harness.engine.flush().await.unwrap();
    assert_eq!(read(&pinned, "cpu").await, ["cpu,host=a x=1.0 60"]);
    assert!(harness.read("cpu").await.is_empty());
}

#[tokio::test]
async fn lines_that_contradict_are_refused_and_their_neighbours_stored() {
    let harness = Harness::new().await;
    harness.write("cpu,host=a x=1 60").await;
    let report = harness.write("cpu,host=a x=1i 61\n cpu,host=a x=2 62\n mem host=1 63").await;
    assert_eq!(report.rows, 2);
    let [refused] = report.refused.as_slice() else { panic!("{:?}", report.refused) };
    assert_eq!((refused.line, &*refused.measurement), (1, "cpu"));
    assert_eq!(refused.reason, "field x of cpu is float, not integer");

    let before = harness.engine.version().seq();
    let all = points("cpu,host=b x=9 64\n cpu,host=b x=1i 65\n new x=1 1");
    let report = harness.engine.write("db", all, WriteMode::AllOrNothing).await.unwrap();
    assert_eq!((report.rows, report.refused.len(), report.seq), (0, 1, before));
    assert_eq!(harness.read("cpu").await.len(), 2);
    assert!(harness.engine.version().measurement(&id("new")).is_none());
    assert_eq!(harness.engine.version().seq(), before);
}

#[tokio::test]
async fn points_older_than_the_retention_are_refused() {
    let harness = Harness::new().await;
    let rules = vec![RetentionRule {
        measurement: "cpu".into(),
        keep: "1h".parse().unwrap(),
        max_hold: None,
    }];
    let edits = vec![Edit::SetRetention { database: "db".into(), rules }];
    harness.engine.commit(Commit { edits, ..Commit::default() }).await.unwrap();
    let horizon = 1_000_000 - 3600;
    let report = harness.write(&format!("cpu x=1 {}\n cpu x=2 {horizon}", horizon - 1)).await;
    assert_eq!(report.rows, 1);
    assert!(report.refused[0].reason.contains("retention of 1h"), "{:?}", report.refused);
    let now = harness.clock.now();
    let version = harness.after_crash().await.engine.version();
    assert_eq!(version.horizon(&id("cpu"), now), Some(Timestamp::from_secs(horizon)));
    assert_eq!(version.horizon(&id("mem"), now), None);
}

#[tokio::test]
async fn deletes_hide_what_came_before_and_nothing_after() {
    let harness = Harness::new().await;
    harness.write("cpu,host=a x=1 60\n cpu,host=b x=1 60\n cpu,host=a x=1 7200").await;
    harness.engine.flush().await.unwrap();
    harness.write("cpu,host=a x=2 180\n cpu,host=b x=2 180").await;
    let deleted = harness.delete("cpu", host_is("a")).await;
    assert_eq!(deleted, harness.engine.version().seq());
    harness.write("cpu,host=a x=3 180").await;
    let expected = ["cpu,host=a x=3.0 180", "cpu,host=b x=1.0 60", "cpu,host=b x=2.0 180"];
    assert_eq!(harness.read("cpu").await, expected);

    let crashed = harness.after_crash().await;
    assert_eq!(crashed.read("cpu").await, expected);
    crashed.engine.flush().await.unwrap();
    assert_eq!(crashed.read("cpu").await, expected);
    let again = crashed.after_crash().await;
    assert_eq!(again.read("cpu").await, expected);

    let version = again.engine.version();
    let touched = version
        .measurement(&id("cpu"))
        .unwrap()
        .changes()
        .touched_after(SequenceNumber::new(deleted.get() - 1), TimeRange::ALL);
    let granules = [secs(60, 120), secs(180, 240), secs(7200, 7260)];
    assert_eq!(touched, granules.into_iter().collect::<TimeRanges>());
}

#[tokio::test]
async fn a_delete_by_a_tag_that_older_points_lack_leaves_them() {
    let harness = Harness::new().await;
    harness.write("cpu x=1 60").await;
    let crashed = harness.after_crash().await;
    crashed.write("cpu,host=a x=2 60").await;
    crashed.delete("cpu", host_is("a")).await;
    assert_eq!(crashed.read("cpu").await, ["cpu x=1.0 60"]);
    crashed.engine.flush().await.unwrap();
    assert_eq!(crashed.read("cpu").await, ["cpu x=1.0 60"]);
}

#[tokio::test]
async fn a_delete_of_nothing_is_no_commit_and_of_fields_is_refused() {
    let harness = Harness::new().await;
    harness.write("cpu,host=a x=1 60").await;
    let seq = harness.engine.version().seq();
    assert_eq!(harness.delete("cpu", before(60)).await, seq);
    assert_eq!(harness.engine.version().seq(), seq);
    let value = FieldValue::Float(1.0);
    let by_field = Condition::Compare { column: "x".into(), comparison: Comparison::Equal, value };
    let refused =
        harness.engine.delete(&harness.engine.version(), &id("cpu"), by_field).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot delete from cpu: x is a field; points are chosen by time and tags only"
    );
    let missing =
        harness.engine.delete(&harness.engine.version(), &id("mem"), Condition::All).await;
    assert!(matches!(missing, Err(StorageError::NoSuchMeasurement(_))));
}

#[tokio::test]
async fn writers_at_the_same_time_all_get_through() {
    let harness = Harness::new().await;
    let writers: Vec<_> = (0..32)
        .map(|writer| {
            let engine = harness.engine.clone();
            tokio::spawn(async move {
                for i in 0..20 {
                    let text = format!("cpu,host=h{writer} x={i} {}", i * 60);
                    let report = engine.write("db", points(&text), WriteMode::StoreGoodLines).await;
                    assert_eq!(report.unwrap().rows, 1);
                }
            })
        })
        .collect();
    harness.engine.flush().await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(harness.read("cpu").await.len(), 640);
    assert_eq!(harness.after_crash().await.read("cpu").await.len(), 640);
}

#[tokio::test]
async fn documents_are_compared_and_set() {
    let harness = Harness::new().await;
    let put =
        |text: &str| vec![Edit::PutDocument { key: "rule/a".into(), text: Some(text.into()) }];
    let first = Commit {
        edits: put("1"),
        expect_documents: vec![("rule/a".into(), None)],
        ..Commit::default()
    };
    harness.engine.commit(first).await.unwrap();
    let stale = Commit {
        edits: put("2"),
        expect_documents: vec![("rule/a".into(), None)],
        ..Commit::default()
    };
    let refused = harness.engine.commit(stale).await;
    assert!(matches!(refused, Err(StorageError::Conflict { .. })), "{refused:?}");
    let second = Commit {
        edits: put("2"),
        expect_documents: vec![("rule/a".into(), Some("1".into()))],
        ..Commit::default()
    };
    harness.engine.commit(second).await.unwrap();
    let version = harness.after_crash().await.engine.version();
    assert_eq!(version.document("rule/a").map(|text| &**text), Some("2"));
}

fn hourly(times: TimeRange, text: &str) -> Replacement {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray};
    use highwater_core::{Column, FieldType, Schema};
    let schema = Arc::new(Schema::of([Column::field("sum", FieldType::Integer)]));
    let rows: Vec<(i64, i64)> = text
        .split_whitespace()
        .map(|row| row.split_once('=').unwrap())
        .map(|(time, sum)| (time.parse::<i64>().unwrap() * 1_000_000_000, sum.parse().unwrap()))
        .collect();
    let times_of_rows = TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.0));
    let sums = rows.iter().map(|row| row.1).collect::<Int64Array>();
    let columns: Vec<ArrayRef> = vec![Arc::new(times_of_rows), Arc::new(sums)];
    let batch = RecordBatch::try_new(schema.arrow(), columns).unwrap();
    Replacement {
        id: id("hourly"),
        kind: MeasurementKind::Materialization,
        schema,
        times: times.into(),
        overwrites: TimeRanges::none(),
        batches: vec![batch],
        medium: crate::Medium::Disk,
    }
}

#[tokio::test]
async fn replacements_put_new_rows_in_the_place_of_old_ones() {
    let harness = Harness::new().await;
    let replace = async |replacement| {
        let commit = Commit { replacements: vec![replacement], ..Commit::default() };
        harness.engine.commit(commit).await.unwrap()
    };
    replace(hourly(secs(0, 86_400), "0=1 3600=2 7200=3 7200=4")).await;
    let expected =
        ["hourly sum=1 0", "hourly sum=2 3600", "hourly sum=3 7200", "hourly sum=4 7200"];
    assert_eq!(harness.read("hourly").await, expected);

    let seq = replace(hourly(secs(3600, 7200), "3600=5")).await;
    let expected =
        ["hourly sum=1 0", "hourly sum=3 7200", "hourly sum=4 7200", "hourly sum=5 3600"];
    assert_eq!(harness.read("hourly").await, expected);
    assert_eq!(harness.after_crash().await.read("hourly").await, expected);
    let version = harness.engine.version();
    let measurement = version.measurement(&id("hourly")).unwrap();
    assert_eq!(measurement.kind(), MeasurementKind::Materialization);
    let touched =
        measurement.changes().touched_after(SequenceNumber::new(seq.get() - 1), TimeRange::ALL);
    assert_eq!(touched, secs(3600, 7200).into());

    replace(hourly(secs(0, 86_400), "0=9")).await;
    let version = harness.engine.version();
    let measurement = version.measurement(&id("hourly")).unwrap();
    assert_eq!((measurement.segments().len(), measurement.tombstones.len()), (1, 0));
    assert_eq!(harness.read("hourly").await, ["hourly sum=9 0"]);

    let points = points("hourly sum=1i 5");
    let report = harness.engine.write("db", points, WriteMode::StoreGoodLines).await.unwrap();
    assert_eq!(report.refused.len(), 1);
}

#[tokio::test]
async fn a_dropped_measurement_stays_gone_and_its_name_is_free() {
    let harness = Harness::new().await;
    harness.write("cpu,host=a x=1 60\n mem x=1 60").await;
    harness.engine.flush().await.unwrap();
    harness.write("cpu,host=a x=2 120\n mem x=2 120").await;
    let drop_cpu =
        || Commit { edits: vec![Edit::DropMeasurement { id: id("cpu") }], ..Commit::default() };
    harness.engine.commit(drop_cpu()).await.unwrap();
    assert!(harness.engine.version().measurement(&id("cpu")).is_none());
    let crashed = harness.after_crash().await;
    assert!(crashed.engine.version().measurement(&id("cpu")).is_none());
    assert_eq!(crashed.read("mem").await.len(), 2);
    let again = crashed.engine.commit(drop_cpu()).await;
    assert!(matches!(again, Err(StorageError::NoSuchMeasurement(_))));

    crashed.write("cpu x=7i 60").await;
    assert_eq!(crashed.read("cpu").await, ["cpu x=7 60"]);
    let again = crashed.after_crash().await;
    assert_eq!(again.read("cpu").await, ["cpu x=7 60"]);
    again.engine.flush().await.unwrap();
    assert_eq!(again.after_crash().await.read("cpu").await, ["cpu x=7 60"]);
}

#[tokio::test]
async fn definitions_add_columns_and_never_change_them() {
    use highwater_core::{Column, FieldType, Schema};
    let harness = Harness::new().await;
    harness.write("visit,user=u x=1 60").await;
    let define = |column: Column| Commit {
        edits: vec![Edit::DefineMeasurement {
            id: id("visit"),
            kind: MeasurementKind::Points,
            schema: Arc::new(Schema::of([column])),
        }],
        ..Commit::default()
    };
    harness.engine.commit(define(Column::field("seen", FieldType::Timestamp))).await.unwrap();
    harness.write("visit,user=u seen=90000000000i 60").await;
    let expected = ["visit,user=u x=1.0,seen=1970-01-01T00:01:30 60"];
    assert_eq!(harness.read("visit").await, expected);
    assert_eq!(harness.after_crash().await.read("visit").await, expected);
    let refused = harness.engine.commit(define(Column::field("x", FieldType::Integer))).await;
    assert!(matches!(refused, Err(StorageError::FieldTypeConflict { .. })), "{refused:?}");
    let refused = harness.engine.commit(define(Column::field("user", FieldType::Integer))).await;
    assert!(matches!(refused, Err(StorageError::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn a_raised_floor_hides_and_removes() {
    let harness = Harness::with(Settings { window_points: 0, ..Settings::default() }).await;
    harness.write("cpu x=1 60\n cpu x=2 90000\n cpu x=3 90060").await;
    let raise = |floor| {
        let floor = Timestamp::from_secs(floor);
        let edits = vec![Edit::RaiseFloor { id: id("cpu"), floor }];
        harness.engine.commit(Commit { edits, ..Commit::default() })
    };
    harness.engine.flush().await.unwrap();
    assert_eq!(harness.engine.stats().segments, 2);
    raise(90_001).await.unwrap();
    assert_eq!(harness.engine.stats().segments, 1);
    assert_eq!(harness.read("cpu").await, ["cpu x=3.0 90060"]);
    raise(60).await.unwrap();
    assert_eq!(harness.after_crash().await.read("cpu").await, ["cpu x=3.0 90060"]);
}

#[tokio::test]
async fn too_much_in_memory_is_pushed_back_until_it_is_flushed() {
    let settings = Settings { max_memtable_bytes: 1, ..Settings::default() };
    let harness = Harness::with(settings).await;
    harness.write("cpu x=1 60").await;
    assert!(harness.engine.flush_due());
    let refused = harness.engine.write("db", points("cpu x=1 61"), WriteMode::StoreGoodLines).await;
    assert!(matches!(refused, Err(StorageError::Overloaded { .. })), "{refused:?}");
    harness.engine.flush().await.unwrap();
    assert!(!harness.engine.flush_due());
    harness.write("cpu x=1 61").await;
}

#[tokio::test]
async fn memtables_are_due_by_age() {
    let harness = Harness::new().await;
    assert!(!harness.engine.flush_due());
    harness.write("cpu x=1 60").await;
    assert!(!harness.engine.flush_due());
    harness.clock.advance_to(Timestamp::from_secs(1_000_060)).unwrap();
    assert!(harness.engine.flush_due());
    harness.engine.flush().await.unwrap();
    assert!(!harness.engine.flush_due());
    assert_eq!(harness.engine.stats().logs, 1);
}

#[tokio::test]
async fn a_folder_is_opened_once() {
    let harness = Harness::new().await;
    let second = open(harness.folder.path(), &harness.settings, &harness.clock).await;
    assert!(matches!(second, Err(StorageError::Locked { .. })));
    let Harness { folder, clock, settings, engine } = harness;
    drop(engine);
    open(folder.path(), &settings, &clock).await.unwrap();
}

#[tokio::test]
async fn a_missing_log_is_damage_and_orphans_are_removed() {
    let harness = Harness::new().await;
    harness.write("cpu x=1 60").await;
    harness.engine.flush().await.unwrap();
    harness.write("cpu x=2 61").await;
    let crashed = harness.after_crash().await;
    let Harness { folder, clock, settings, engine } = crashed;
    drop(engine);
    let orphan = folder.path().join("segments/db/cpu/1970-01-01/00000000000000000099.parquet");
    fs::write(&orphan, b"half a segment").unwrap();
    let reopened = open(folder.path(), &settings, &clock).await.unwrap();
    assert!(!orphan.exists());
    assert_eq!(read(&reopened.version(), "cpu").await.len(), 2);
    drop(reopened);
    for log in fs::read_dir(folder.path().join("wal")).unwrap() {
        fs::remove_file(log.unwrap().path()).unwrap();
    }
    let missing = open(folder.path(), &settings, &clock).await;
    assert!(matches!(missing, Err(StorageError::Corrupt { .. })), "{missing:?}");
}

#[tokio::test]
async fn every_durability_keeps_what_was_closed() {
    for durability in [Durability::Periodic, Durability::Os, Durability::None] {
        let harness = Harness::with(Settings { durability, ..Settings::default() }).await;
        harness.write("cpu x=1 60").await;
        harness.delete("cpu", before(60)).await;
        harness.write("cpu x=2 61").await;
        harness.engine.close().await.unwrap();
        assert_eq!(harness.after_crash().await.read("cpu").await.len(), 2, "{durability:?}");
    }
}

#[tokio::test]
async fn short_memory_flushes_early_and_then_refuses() {
    let harness = Harness::with(Settings { flush_bytes: 4096, ..Settings::default() }).await;
    let engine = &harness.engine;
    engine.note_memory_pressure(MemoryPressure::Full);
    assert!(!engine.flush_due(), "there is nothing to flush");
    harness.write(&(0..100).map(|at| format!("cpu x=1 {at}\n")).collect::<String>()).await;
    assert!(engine.flush_due());
    let write = || engine.write("db", points("cpu x=1 1000"), WriteMode::StoreGoodLines);
    assert!(matches!(write().await, Err(StorageError::MemoryFull)));
    engine.note_memory_pressure(MemoryPressure::High);
    write().await.unwrap();
    assert!(engine.flush_due());
    engine.note_memory_pressure(MemoryPressure::Full);
    engine.flush().await.unwrap();
    write().await.unwrap();
    assert_eq!(harness.read("cpu").await.len(), 101);
}

#[tokio::test]
async fn a_defect_on_the_commit_thread_is_told() {
    let harness = Harness::new().await;
    harness.write("cpu x=1 60").await;
    let defect: Plan = Box::new(|_: &Version, _| panic!("a defect, made on purpose"));
    harness.engine.edit_adding(Vec::new(), defect).await.unwrap_err();
    drop(harness.engine.0.thread.lock().take().map(std::thread::JoinHandle::join));
    let refused = harness.engine.write("db", points("cpu x=1 1"), WriteMode::StoreGoodLines).await;
    assert!(matches!(refused, Err(StorageError::Poisoned { .. })), "{refused:?}");
    assert!(harness.engine.failure().is_some());
    assert_eq!(harness.read("cpu").await.len(), 1);
}

/// Three points that are centuries apart, in one segment after another.
#[tokio::test]
async fn segments_may_span_all_of_time() {
    let harness = Harness::with(Settings { compact_segments: 2, ..Settings::default() }).await;
    let times = ["-9223372036", "-8520336000", "0", "1704067200", "4102444800", "9223372036"];
    for round in 0..5 {
        let lines: Vec<String> =
            times.iter().map(|time| format!("w,round=r{round} x={round} {time}")).collect();
        harness.write(&lines.join("\n")).await;
        harness.engine.flush().await.unwrap();
    }
    assert!(harness.engine.compact().await.unwrap() > 0);
    assert_eq!(harness.read("w").await.len(), 5 * times.len());
    assert!(harness.engine.stats().segments <= 3);
}
