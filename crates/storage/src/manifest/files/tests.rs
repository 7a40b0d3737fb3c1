use highwater_core::{Column, Condition, MeasurementId, Schema, TimeRange, TimeRanges, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::manifest::{MeasurementKind, RetentionRule, Tombstone};
use crate::segment::SegmentMeta;

fn seq(number: u64) -> SequenceNumber {
    SequenceNumber::new(number)
}

fn document(number: u64) -> Edit {
    Edit::PutDocument { key: format!("key {}", number % 5), text: Some(number.to_string().into()) }
}

async fn reopened(files: &Arc<FileStore>) -> Manifest {
    let mut manifest = Manifest::open(Arc::clone(files)).await.unwrap();
    manifest.min_commits = 4;
    manifest
}

/// A manifest of that many commits, with a checkpoint at least every four.
async fn manifest_of(commits: u64) -> (Arc<FileStore>, Manifest) {
    let files = FileStore::in_memory();
    let mut manifest = reopened(&files).await;
    for number in 1..=commits {
        manifest.commit(seq(10 * number), &[document(number)]).await.unwrap();
    }
    (files, manifest)
}

async fn names(files: &FileStore) -> Vec<String> {
    let listed = files.list(FOLDER).await.unwrap();
    let short = |path: &str| path.rsplit('/').next().unwrap().trim_start_matches('0').to_owned();
    listed.iter().map(|(path, _)| short(path)).collect()
}

async fn damage(files: &FileStore, path: &str) {
    let mut bytes = files.get(path).await.unwrap().to_vec();
    let middle = bytes.len() - 5;
    bytes[middle] ^= 1;
    files.put(path, bytes.into(), PutKind::Overwrite).await.unwrap();
}

#[tokio::test]
async fn only_the_last_two_checkpoints_and_what_follows_are_kept() {
    let (files, manifest) = manifest_of(14).await;
    let kept = [
        "8.checkpoint",
        "9.edit",
        "10.edit",
        "11.edit",
        "12.checkpoint",
        "12.edit",
        "13.edit",
        "14.edit",
    ];
    assert_eq!(names(&files).await, kept);
    assert_eq!(reopened(&files).await.state(), manifest.state());
}

#[tokio::test]
async fn a_damaged_checkpoint_is_replaced_from_the_one_before() {
    let (files, manifest) = manifest_of(14).await;
    damage(&files, &checkpoint_path(12)).await;
    assert_eq!(reopened(&files).await.state(), manifest.state());
    let names = names(&files).await;
    assert!(names.contains(&"14.checkpoint".to_owned()), "{names:?}");
    assert!(!names.contains(&"12.checkpoint".to_owned()), "{names:?}");
    for number in [8, 14] {
        damage(&files, &checkpoint_path(number)).await;
    }
    let error = Manifest::open(files).await.unwrap_err();
    assert!(error.to_string().contains(&checkpoint_path(14)), "{error}");
}

#[tokio::test]
async fn the_first_checkpoint_can_be_done_without() {
    let (files, manifest) = manifest_of(6).await;
    damage(&files, &checkpoint_path(4)).await;
    assert_eq!(reopened(&files).await.state(), manifest.state());
    assert!(names(&files).await.contains(&"6.checkpoint".to_owned()));
}

#[tokio::test]
async fn damage_and_loss_are_named() {
    for number in [13, 14] {
        let (files, _) = manifest_of(14).await;
        damage(&files, &edit_path(number)).await;
        let error = Manifest::open(files).await.unwrap_err();
        assert!(matches!(&error, StorageError::Corrupt { path, .. } if *path == edit_path(number)));
    }
    let (files, _) = manifest_of(14).await;
    files.delete(&edit_path(13)).await.unwrap();
    let error = Manifest::open(files).await.unwrap_err();
    assert!(matches!(&error, StorageError::Corrupt { path, .. } if *path == edit_path(13)));
}

#[tokio::test]
async fn an_incomplete_last_commit_never_was() {
    let (files, manifest) = manifest_of(13).await;
    let whole = encode_edits(seq(200), &[document(14)]).unwrap();
    for len in [0, 10, whole.len() - 1] {
        files.put(&edit_path(14), whole.slice(..len), PutKind::Create).await.unwrap();
        assert_eq!(reopened(&files).await.state(), manifest.state());
        assert!(!names(&files).await.contains(&"14.edit".to_owned()));
    }
    let mut manifest = reopened(&files).await;
    manifest.commit(seq(200), &[document(14)]).await.unwrap();
    assert_eq!(reopened(&files).await.state(), manifest.state());
}

#[tokio::test]
async fn edits_that_do_not_fit_leave_no_trace_and_a_second_writer_is_fatal() {
    let (files, mut manifest) = manifest_of(2).await;
    let unknown = Edit::RaiseFloor { id: MeasurementId::new("a", "b"), floor: Timestamp::EPOCH };
    let error = manifest.commit(seq(30), &[document(3), unknown]).await.unwrap_err();
    assert!(matches!(error, StorageError::Invalid(_)));
    let mut second = reopened(&files).await;
    second.commit(seq(30), &[document(3)]).await.unwrap();
    let error = manifest.commit(seq(30), &[document(4)]).await.unwrap_err();
    assert!(matches!(error, StorageError::Fenced));
    let error = manifest.commit(seq(31), &[document(4)]).await.unwrap_err();
    assert!(matches!(error, StorageError::Poisoned { .. }));
    assert_eq!(reopened(&files).await.state(), second.state());
}

fn segment(number: u64) -> Arc<SegmentMeta> {
    Arc::new(SegmentMeta {
        path: format!("segments/db/m/2024-01-01/{number}.parquet"),
        bytes: number,
        footer_at: 1,
        footer_crc: 7,
        rows: 3,
        times: TimeRange::new(Timestamp::EPOCH, Timestamp::from_nanos(number as i64 + 1)),
        min_seq: seq(number),
        max_seq: seq(number + 1),
        tags: vec![crate::segment::TagBounds {
            tag: "host".into(),
            values: Some(("a\"\n".to_owned(), "ü".to_owned())),
            has_null: number.is_multiple_of(2),
        }],
    })
}

fn id(number: u64) -> MeasurementId {
    MeasurementId::new("db", format!("m{}", number % 3))
}

fn edit() -> impl Strategy<Value = Edit> {
    let schema = |n: u64| {
        let field = Column::field(format!("f{n}"), highwater_core::FieldType::Float);
        Arc::new(Schema::of([Column::tag("host"), field]))
    };
    let kind = MeasurementKind::Points;
    let range = |n: u64| TimeRange::new(Timestamp::EPOCH, Timestamp::from_secs(n as i64));
    let tombstone = move |n: u64| Tombstone {
        seq: seq(n),
        times: if n.is_multiple_of(2) { TimeRanges::all() } else { range(n).into() },
        condition: Condition::And(vec![Condition::IsNull("host".into()), Condition::All]),
    };
    let rule = |n: u64| RetentionRule {
        measurement: "*".to_owned(),
        keep: format!("{}d", n + 1).parse().unwrap(),
        max_hold: n.is_multiple_of(2).then(|| "1h".parse().unwrap()),
    };
    (0u64..18, 0u64..30).prop_map(move |(choice, n)| match choice {
        0..=4 => Edit::DefineMeasurement { id: id(n), kind, schema: schema(n) },
        5..=7 => Edit::AddSegment { id: id(n), segment: segment(n) },
        8 => Edit::RemoveSegment { id: id(n), path: segment(n).path.clone() },
        9 => Edit::DropMeasurement { id: id(n) },
        10 => Edit::AddTombstone { id: id(n), tombstone: Arc::new(tombstone(n)) },
        11 => Edit::RemoveTombstone { id: id(n), seq: seq(n) },
        12 => Edit::RaiseFloor { id: id(n), floor: Timestamp::from_nanos(n as i64) },
        13 => Edit::TouchGranules { id: id(n), runs: vec![(range(n), seq(n))] },
        14 => Edit::CoarsenChanges { id: id(n), seq: seq(n) },
        15 => Edit::SetRetention { database: "db".into(), rules: vec![rule(n)] },
        16 if n % 2 == 0 => Edit::OpenLog { log: n },
        16 => Edit::CloseLog { log: n - 1 },
        _ if n % 3 == 0 => Edit::PutDocument { key: "x".to_owned(), text: None },
        _ if n % 3 == 1 => Edit::Flushed { seq: seq(n) },
        _ => document(n),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn reopening_changes_nothing(
        commits in prop::collection::vec(
            (prop::collection::vec(edit(), 1..4), prop::bool::weighted(0.2)), 0..60,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let files = FileStore::in_memory();
            let mut manifest = reopened(&files).await;
            let mut model = ManifestState::default();
            for (number, (edits, reopen)) in (1..).zip(&commits) {
                let expected = model.apply_commit(seq(number), edits);
                let result = manifest.commit(seq(number), edits).await;
                assert_eq!(expected.is_ok(), result.is_ok(), "{expected:?} {result:?}");
                if *reopen {
                    manifest = reopened(&files).await;
                }
                assert_eq!(manifest.state(), &model);
            }
            assert_eq!(reopened(&files).await.state(), &model);
        });
    }
}
