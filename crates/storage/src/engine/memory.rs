//! Results that are kept in memory.

use super::resident::segment_files;
use super::rollups::by_host;
use super::*;
use crate::Medium;

fn in_memory(text: &str) -> Replacement {
    Replacement { medium: Medium::Memory, ..by_host(text) }
}

async fn replace(harness: &Harness, one: Replacement) -> Result<SequenceNumber, StorageError> {
    let commit = Commit { replacements: vec![one], ..Commit::default() };
    harness.engine.commit(commit).await
}

#[tokio::test]
async fn what_is_in_memory_is_read_and_lost_in_a_restart() {
    let harness = Harness::new().await;
    let first = TimeRange::new(Timestamp::EPOCH, Timestamp::from_secs(3600));
    let on_disk = Replacement { times: first.into(), ..by_host("a@0=1 b@0=2") };
    replace(&harness, on_disk).await.unwrap();
    let second = TimeRange::new(first.end, Timestamp::from_secs(7200));
    let later = Replacement { times: second.into(), ..in_memory("a@3600=3 b@3600=4") };
    let seq = replace(&harness, later).await.unwrap();
    assert!(harness.engine.version().opened() < seq);
    let both = harness.read("by_host").await;
    assert_eq!(both.len(), 4);
    assert!(harness.engine.bytes_in_memory() > 0);
    let files = segment_files(harness.folder.path());
    assert_eq!((files.len(), harness.engine.stats().segments), (1, 1));

    let harness = harness.after_crash().await;
    let left = harness.read("by_host").await;
    assert_eq!(left, both.into_iter().filter(|row| left.contains(row)).collect::<Vec<_>>());
    assert_eq!((left.len(), harness.engine.bytes_in_memory()), (2, 0));
    assert!(harness.engine.version().opened() > seq);
    assert_eq!(segment_files(harness.folder.path()).len(), 1);
}

#[tokio::test]
async fn what_is_replaced_in_memory_gives_its_room_back() {
    let harness = Harness::new().await;
    let minutes = |n: i64| format!("a@{}={n} b@{}={n}", n * 60, n * 60);
    for n in 0..40 {
        replace(&harness, in_memory(&minutes(n))).await.unwrap();
    }
    let (before, bytes) = (harness.read("by_host").await, harness.engine.bytes_in_memory());
    assert!(harness.engine.compact().await.unwrap() > 0);
    let version = harness.engine.version();
    let segments = version.measurement(&id("by_host")).unwrap().segments();
    assert!(segments.len() < 40 && segments.into_iter().all(|segment| segment.is_in_memory()));
    assert_eq!(harness.read("by_host").await, before);
    assert!(harness.engine.bytes_in_memory() < bytes);
    drop(version);

    // Moved to disk, nothing is left of it in memory.
    let moved = Replacement { times: TimeRange::ALL.into(), ..by_host("a@0=1") };
    replace(&harness, moved).await.unwrap();
    assert_eq!(harness.engine.bytes_in_memory(), 0);
    assert_eq!(harness.read("by_host").await.len(), 1);
    let harness = harness.after_crash().await;
    assert_eq!(harness.read("by_host").await.len(), 1);
}

#[tokio::test]
async fn what_does_not_fit_into_memory_changes_nothing() {
    let harness = Harness::new().await;
    replace(&harness, in_memory("a@0=1")).await.unwrap();
    let (before, bytes) = (harness.read("by_host").await, harness.engine.bytes_in_memory());
    harness.engine.limit_memory(bytes + 1);
    let refused = replace(&harness, in_memory("a@0=2")).await;
    assert!(matches!(refused, Err(StorageError::NoRoomInMemory { .. })), "{refused:?}");
    assert_eq!((harness.read("by_host").await, harness.engine.bytes_in_memory()), (before, bytes));
}
