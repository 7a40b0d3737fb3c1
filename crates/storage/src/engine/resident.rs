//! Measurements that stay in memory.

use std::path::PathBuf;

use super::*;
use crate::Residency;

pub(super) fn segment_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(segment_files(&path)),
            false => found.push(path),
        }
    }
    found.retain(|path| path.extension().is_some_and(|end| end == "parquet"));
    found
}

/// Overwrites all segments, so that whoever reads one finds damage.
fn damage(folder: &Path) {
    for path in segment_files(folder) {
        let bytes = fs::read(&path).unwrap().len();
        fs::write(&path, vec![b'x'; bytes]).unwrap();
    }
}

async fn two_hosts() -> Harness {
    let harness = Harness::new().await;
    for hour in 0..3 {
        let line = |host, n: i64| format!("m,host={host} v={n} {}\n", hour * 3600 + n);
        let lines = (0..50).flat_map(|n| [line("a", n), line("b", n)]);
        harness.write(&lines.collect::<String>()).await;
        harness.write(&format!("other v=1 {hour}")).await;
        harness.engine.flush().await.unwrap();
    }
    harness
}

const PLENTY: u64 = 1 << 30;

#[tokio::test]
async fn what_is_resident_is_read_without_the_disk() {
    let harness = two_hosts().await;
    harness.delete("m", host_is("b")).await;
    let before = harness.read("m").await;
    assert_eq!(before.len(), 150);
    harness.engine.keep_resident(&[id("m")], PLENTY).await;
    let residency = harness.engine.residency(&id("m")).unwrap();
    assert!(residency.is_whole && residency.rows == 300 && residency.bytes > 0, "{residency:?}");
    assert_eq!(harness.engine.residency(&id("other")), None);
    damage(harness.folder.path());
    assert_eq!(harness.read("m").await, before);
    let version = harness.engine.version();
    harness.engine.keep_resident(&[], PLENTY).await;
    assert_eq!(harness.engine.residency(&id("m")), None);
    let measurement = version.measurement(&id("m")).unwrap();
    assert!(measurement.segments.iter().all(|segment| segment.resident().is_none()));
}

#[tokio::test]
async fn segments_come_and_go() {
    let harness = two_hosts().await;
    let wanted = [id("m"), id("unknown")];
    harness.engine.keep_resident(&wanted, PLENTY).await;
    let nothing = Residency { is_whole: true, rows: 0, bytes: 0 };
    assert_eq!(harness.engine.residency(&id("unknown")), Some(nothing));
    harness.write("m,host=c v=7 90000").await;
    harness.engine.flush().await.unwrap();
    assert_eq!(harness.read("m").await.len(), 301);
    assert_eq!(harness.engine.residency(&id("m")).unwrap().rows, 300);
    harness.engine.keep_resident(&wanted, PLENTY).await;
    assert_eq!(harness.engine.residency(&id("m")).unwrap().rows, 301);
    harness.engine.compact().await.unwrap();
    harness.engine.keep_resident(&wanted, PLENTY).await;
    damage(harness.folder.path());
    assert_eq!(harness.read("m").await.len(), 301);
}

#[tokio::test]
async fn what_does_not_fit_stays_on_disk() {
    let harness = two_hosts().await;
    harness.engine.keep_resident(&[id("other"), id("m")], PLENTY).await;
    let bytes = |name| harness.engine.residency(&id(name)).unwrap().bytes;
    let (of_m, of_other) = (bytes("m"), bytes("other"));
    for most in [of_other, of_other + of_m - 1] {
        harness.engine.keep_resident(&[id("other"), id("m")], most).await;
        assert!(harness.engine.residency(&id("other")).unwrap().is_whole);
        assert_eq!(harness.engine.residency(&id("m")), Some(Residency::default()));
        let version = harness.engine.version();
        let segments = &version.measurement(&id("m")).unwrap().segments;
        assert!(segments.iter().all(|segment| segment.resident().is_none()));
    }
    assert_eq!(harness.read("m").await.len(), 300);
    harness.engine.keep_resident(&[id("other"), id("m")], of_other + of_m).await;
    assert!(harness.engine.residency(&id("m")).unwrap().is_whole);
}

#[tokio::test]
async fn what_cannot_be_read_is_not_resident() {
    let harness = two_hosts().await;
    damage(harness.folder.path());
    harness.engine.keep_resident(&[id("m")], PLENTY).await;
    assert_eq!(harness.engine.residency(&id("m")), Some(Residency::default()));
}
