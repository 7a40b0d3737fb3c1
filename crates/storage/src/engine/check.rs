//! Checking data folders, sound and damaged.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::check_folder;

/// A folder with a segment, and with a log that an end without close has left.
async fn folder() -> TempDir {
    let harness = Harness::new().await;
    harness.write("cpu,host=a x=1 1\ncpu,host=b x=2 2").await;
    harness.engine.flush().await.unwrap();
    for second in 3..6 {
        harness.write(&format!("cpu,host=a x=1 {second}")).await;
    }
    harness.folder
}

/// Changes a byte of the file below `part` with this ending, and returns its path.
pub(super) fn damage(folder: &Path, part: &str, ending: &str, at: usize) -> String {
    let mut open = vec![folder.join(part)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.display().to_string().ends_with(ending) {
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 4;
            fs::write(&path, bytes).unwrap();
            return path.strip_prefix(folder).unwrap().display().to_string();
        }
    }
    panic!("there is no {ending} in {part}");
}

#[tokio::test]
async fn a_sound_folder_has_no_problems() {
    let folder = folder().await;
    let mut heard = Vec::new();
    let check = check_folder(folder.path(), |done, of| heard.push((done, of))).await.unwrap();
    assert!(check.problems.is_empty(), "{:?}", check.problems);
    assert_eq!((check.segments, check.rows, check.logged_commits), (1, 2, 3));
    assert_eq!(heard.last(), Some(&(check.bytes, check.bytes)));
    let empty = tempfile::tempdir().unwrap();
    assert!(check_folder(empty.path(), |_, _| {}).await.is_err());
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_damaged_is_named() {
    for (part, ending, at) in [("segments", ".parquet", 30), ("wal", ".wal", 40)] {
        let folder = folder().await;
        let path = damage(folder.path(), part, ending, at);
        let check = check_folder(folder.path(), |_, _| {}).await.unwrap();
        let problems: Vec<String> = check.problems.iter().map(ToString::to_string).collect();
        assert!(problems.len() == 1 && problems[0].starts_with(&path), "{problems:?}");
    }
    let folder = folder().await;
    damage(folder.path(), "manifest", "1.edit", 50);
    assert!(check_folder(folder.path(), |_, _| {}).await.is_err());
}

/// What came before a commit of the manifest was durable, so its damage is no torn write.
#[tokio::test]
async fn a_damaged_end_of_the_log_is_told_from_a_torn_one() {
    let harness = Harness::new().await;
    harness.write("cpu x=1 1").await;
    harness.write("cpu x=1 2").await;
    let edits = vec![Edit::PutDocument { key: "a".to_owned(), text: Some("b".into()) }];
    harness.engine.commit(crate::Commit::of(edits)).await.unwrap();
    let Harness { folder, clock, settings, engine } = harness;
    drop(engine);
    let log = fs::read_dir(folder.path().join("wal")).unwrap().next().unwrap().unwrap().path();
    let intact = fs::read(&log).unwrap();
    let mut flipped = intact.clone();
    flipped[intact.len() - 3] ^= 1;
    for damaged in [&flipped, &intact[..intact.len() - 1].to_vec(), &intact[..16].to_vec()] {
        fs::write(&log, damaged).unwrap();
        let check = check_folder(folder.path(), |_, _| {}).await.unwrap();
        assert_eq!(check.problems.len(), 1, "{:?}", check.notes);
        let opened = open(folder.path(), &settings, &clock).await;
        assert!(matches!(opened, Err(StorageError::Corrupt { .. })), "{opened:?}");
    }
    fs::write(&log, &intact).unwrap();
    let engine = open(folder.path(), &settings, &clock).await.unwrap();
    assert_eq!(read(&engine.version(), "cpu").await.len(), 2);
}

/// Compaction does not try again and again what cannot be read, and joins the others.
#[tokio::test]
async fn a_damaged_segment_harms_nothing_else() {
    let settings = Settings { compact_segments: 2, ..Settings::default() };
    let harness = Harness::with(settings).await;
    for second in 1..6 {
        harness.write(&format!("cpu,host=a x={second} {second}\nmem x=1 {second}")).await;
        harness.engine.flush().await.unwrap();
    }
    let version = harness.engine.version();
    let oldest = version.measurement(&id("cpu")).unwrap().segments().next().unwrap();
    damage(harness.folder.path(), "segments", &oldest.path, 30);
    assert!(harness.engine.compact().await.unwrap_err().to_string().contains(&oldest.path));
    harness.engine.compact().await.unwrap();
    let damaged = harness.engine.damaged_segments();
    assert!(damaged[&oldest.path].contains("checksum"), "{damaged:?}");
    assert_eq!(harness.read("mem").await.len(), 5);
    assert!(harness.engine.version().measurement(&id("cpu")).unwrap().segments().count() < 5);
    harness.write("cpu,host=a x=9 9").await;
}
