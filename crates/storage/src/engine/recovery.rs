//! Bringing back logs that are larger than memory may be.

use std::fmt::Write;

use super::*;

/// Memtables of so many bytes are flushed, and twice as many are too many.
const FLUSH_BYTES: usize = 8 << 10;

/// A log with new points, overwritten ones, new fields and deletes, none of it flushed.
async fn harness_with_a_long_log() -> Harness {
    let harness = Harness::new().await;
    for round in 0..120_i64 {
        let mut lines = String::new();
        for row in 0..50 {
            let time = (round % 40) * 3_600 + row * 60;
            writeln!(lines, "cpu,host=h{} x={round}i,f{}=2 {time}", row % 7, round / 40).unwrap();
        }
        harness.write(&lines).await;
        harness.write(&format!("mem v={round} {round}")).await;
        if round % 30 == 29 {
            harness.delete("cpu", host_is(&format!("h{}", round % 7))).await;
        }
    }
    harness
}

fn small_memory() -> Settings {
    Settings {
        flush_bytes: FLUSH_BYTES,
        max_memtable_bytes: 2 * FLUSH_BYTES,
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_log_larger_than_memory_is_brought_back_in_parts() {
    let harness = harness_with_a_long_log().await;
    let (before, held) = (harness.engine.version(), harness.engine.stats());
    assert!(held.memtable_bytes > 10 * FLUSH_BYTES, "{held:?}");
    let Harness { folder, clock, settings, engine } = harness;
    let expected = (read(&before, "cpu").await, read(&before, "mem").await);
    drop((engine, before));

    let engine = open(folder.path(), &small_memory(), &clock).await.unwrap();
    let stats = engine.stats();
    assert!(stats.memtable_bytes <= 2 * FLUSH_BYTES, "{stats:?}");
    assert!(stats.segments > 5 && stats.flushed > SequenceNumber::new(100), "{stats:?}");
    assert_eq!(stats.seq.get(), held.seq.get() + 1, "the opening is the only commit");
    let found = engine.version();
    assert_eq!((read(&found, "cpu").await, read(&found, "mem").await), expected);
    drop((engine, found));

    // What is in segments now is not brought back again.
    let engine = open(folder.path(), &settings, &clock).await.unwrap();
    assert!(engine.stats().memtable_bytes <= 2 * FLUSH_BYTES, "{:?}", engine.stats());
    let found = engine.version();
    assert_eq!((read(&found, "cpu").await, read(&found, "mem").await), expected);
    engine.flush().await.unwrap();
    assert_eq!(engine.stats().logs, 1);
    assert_eq!(read(&engine.version(), "cpu").await, expected.0);
}

#[tokio::test]
async fn a_damaged_end_of_a_long_log_changes_nothing() {
    let harness = harness_with_a_long_log().await;
    let Harness { folder, clock, engine, .. } = harness;
    engine.commit(Commit::of([Edit::CreateDatabase { database: "other".into() }])).await.unwrap();
    drop(engine);
    let log = fs::read_dir(folder.path().join("wal")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&log).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let edits = || fs::read_dir(folder.path().join("manifest")).unwrap().count();
    let before = edits();
    let opened = open(folder.path(), &small_memory(), &clock).await;
    assert!(matches!(opened, Err(StorageError::Corrupt { .. })), "{opened:?}");
    assert_eq!(edits(), before, "segments of the part that could be read are of no commit");
    bytes[at] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let engine = open(folder.path(), &small_memory(), &clock).await.unwrap();
    assert_eq!(read(&engine.version(), "mem").await.len(), 120);
}
