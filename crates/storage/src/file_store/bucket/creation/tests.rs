use std::sync::Arc;

use super::super::faulty::Fault::{self, AnswerLost, Lost, NeverSent};
use super::super::faulty::FaultyBucket;
use super::*;

const PATH: &str = "manifest/1";

fn bucket() -> (FaultyBucket, Bucket) {
    let store = FaultyBucket::default();
    let bucket = Bucket::of("s3://b", Arc::new(store.clone()));
    (store, bucket)
}

/// Creates an object while these faults happen.
async fn create(
    faults: &[Option<Fault>],
    before: Option<&'static str>,
) -> (Result<(), StorageError>, Bucket) {
    let (store, bucket) = bucket();
    if let Some(before) = before {
        bucket.create(PATH, before.into()).await.unwrap();
    }
    store.next_puts(faults.iter().copied());
    (bucket.create(PATH, "ours".into()).await, bucket)
}

async fn holds(bucket: &Bucket) -> Option<Bytes> {
    Some(bucket.objects().get(&object_path(PATH).unwrap()).await.ok()?.bytes().await.unwrap())
}

#[tokio::test]
async fn a_lost_answer_is_resolved_by_looking() {
    let all: [&[Option<Fault>]; 5] = [
        &[],
        &[Some(AnswerLost)],
        &[Some(Lost)],
        &[Some(Lost), Some(Lost), Some(AnswerLost)],
        &[Some(Lost), Some(NeverSent)],
    ];
    for faults in all {
        let (outcome, bucket) = create(faults, None).await;
        outcome.unwrap();
        assert_eq!(holds(&bucket).await.unwrap(), "ours", "{faults:?}");
    }
}

#[tokio::test]
async fn what_another_wrote_stays() {
    for faults in [vec![], vec![Some(Lost)], vec![Some(AnswerLost)]] {
        let (outcome, bucket) = create(&faults, Some("theirs")).await;
        assert!(matches!(outcome, Err(StorageError::Conflict { .. })), "{outcome:?}");
        assert_eq!(holds(&bucket).await.unwrap(), "theirs");
    }
    let (outcome, _) = create(&[], Some("ours")).await;
    outcome.unwrap();
}

#[tokio::test]
async fn what_never_left_has_not_happened() {
    let (outcome, bucket) = create(&[Some(NeverSent)], None).await;
    assert!(matches!(outcome, Err(StorageError::Unreachable { .. })), "{outcome:?}");
    assert_eq!(holds(&bucket).await, None);
}

#[tokio::test]
async fn a_store_that_stays_silent_leaves_it_open() {
    let (store, bucket) = bucket();
    store.always(Some(Lost));
    let outcome = bucket.create(PATH, "ours".into()).await;
    assert!(matches!(outcome, Err(StorageError::Unresolved { .. })), "{outcome:?}");
    assert!(matches!(bucket.check_reachable().await, Err(StorageError::Unreachable { .. })));
    store.always(None);
    bucket.check_reachable().await.unwrap();
}
