//! Giving segments up, on disk and through crashes.

use object_store::ObjectStoreExt;

use super::bucket::Machine;
use super::check::damage;
use super::points::{points, read};
use super::*;
use crate::check_folder;
use crate::file_store::{FaultyBucket, FileStore, Left, object_path};
use crate::quarantine::kept_path;

/// Paths of the segments of a measurement, oldest first.
fn segments(engine: &Engine, measurement: &str) -> Vec<String> {
    let version = engine.version();
    let found = version.measurement(&id(measurement)).unwrap();
    found.segments().map(|segment| segment.path.clone()).collect()
}

async fn give_up(engine: &Engine, path: &str) -> Result<SequenceNumber, StorageError> {
    let ExaminedSegment { id, segment, damage, .. } = engine.examine_segment(path).await?;
    let (path, at) = (segment.path.clone(), engine.clock().now());
    engine.commit(Commit::of([Edit::QuarantineSegment { id, path, damage, at }])).await
}

/// Two segments of `cpu` on two days; the later one is damaged.
async fn damaged() -> (Harness, String) {
    let harness = Harness::with(Settings { window_points: 0, ..Settings::default() }).await;
    harness.write("cpu,host=a x=1 60\ncpu,host=a x=2 90000").await;
    harness.engine.flush().await.unwrap();
    let path = segments(&harness.engine, "cpu").pop().unwrap();
    damage(harness.folder.path(), "segments", &path, 30);
    (harness, path)
}

#[tokio::test]
async fn what_is_left_answers_and_what_is_gone_is_on_the_list() {
    let (harness, path) = damaged().await;
    let seq = harness.engine.version().seq();
    give_up(&harness.engine, &path).await.unwrap();
    for harness in [harness.after_crash().await, harness] {
        assert_eq!(harness.read("cpu").await, ["cpu,host=a x=1.0 60"]);
        let version = harness.engine.version();
        let [given_up] = version.quarantine() else { panic!("{:?}", version.quarantine()) };
        assert_eq!(
            (&given_up.id, given_up.segment.rows, &given_up.segment.path),
            (&id("cpu"), 1, &path)
        );
        assert!(given_up.damage.as_ref().unwrap().contains("checksum"), "{given_up:?}");
        let touched =
            version.measurement(&id("cpu")).unwrap().changes().touched_after(seq, TimeRange::ALL);
        assert_eq!(touched, secs(90_000, 90_060).into());
        assert!(harness.engine.damaged_segments().is_empty());
        assert!(harness.folder.path().join(given_up.kept_path()).is_file());
        assert!(!harness.folder.path().join(&path).exists());
        harness.engine.close().await.unwrap();
        let check = check_folder(harness.folder.path(), |_, _| {}).await.unwrap();
        assert!(check.problems.is_empty(), "{:?}", check.problems);
        assert!(
            check.notes[0].contains("1 segments with 1 rows were given up"),
            "{:?}",
            check.notes
        );
    }
}

#[tokio::test]
async fn a_missing_file_can_be_given_up_and_a_path_of_nothing_cannot() {
    let (harness, path) = damaged().await;
    fs::remove_file(harness.folder.path().join(&path)).unwrap();
    give_up(&harness.engine, &path).await.unwrap();
    assert_eq!(harness.read("cpu").await, ["cpu,host=a x=1.0 60"]);
    let again = give_up(&harness.engine, &path).await;
    assert!(matches!(again, Err(StorageError::NoSuchSegment { .. })), "{again:?}");
}

#[tokio::test]
async fn a_file_that_was_put_back_is_sound_again() {
    let (harness, path) = damaged().await;
    assert!(harness.engine.examine_segment(&path).await.unwrap().damage.is_some());
    damage(harness.folder.path(), "segments", &path, 30);
    assert_eq!(harness.engine.examine_segment(&path).await.unwrap().damage, None);
    assert!(harness.engine.damaged_segments().is_empty());
}

#[tokio::test]
async fn a_crash_before_the_file_moved_is_made_good_by_the_next_start() {
    let (harness, path) = damaged().await;
    give_up(&harness.engine, &path).await.unwrap();
    let Harness { folder, clock, settings, engine } = harness;
    drop(engine);
    let (here, kept) = (folder.path().join(&path), folder.path().join(kept_path(&path)));
    fs::rename(&kept, &here).unwrap();
    let check = check_folder(folder.path(), |_, _| {}).await.unwrap();
    assert!(check.problems.is_empty() && check.notes[0].contains("was given up"), "{check:?}");
    let engine = open(folder.path(), &settings, &clock).await.unwrap();
    assert!(kept.is_file() && !here.exists());
    // Its number is not given to another segment, which might have to be kept as well one day.
    engine.write("db", points("cpu,host=a x=3 90000"), WriteMode::StoreGoodLines).await.unwrap();
    engine.flush().await.unwrap();
    assert!(!segments(&engine, "cpu").contains(&path));
}

#[tokio::test]
async fn the_file_stays_while_somebody_reads_it() {
    let (harness, path) = damaged().await;
    let reader = harness.engine.version();
    give_up(&harness.engine, &path).await.unwrap();
    assert!(harness.folder.path().join(&path).is_file());
    drop(reader);
    harness.engine.compact().await.unwrap();
    assert!(harness.folder.path().join(kept_path(&path)).is_file());
}

#[tokio::test]
async fn a_crash_at_any_step_keeps_the_file() {
    let files = FileStore::in_memory();
    let clock = Arc::new(MockClock::at(Timestamp::from_secs(1_000_000)));
    let start = async |files| {
        let clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Engine::start(files, None, Settings::default(), clock).await.unwrap()
    };
    let engine = start(Arc::clone(&files)).await;
    engine.write("db", points("cpu,host=a x=1 60"), WriteMode::StoreGoodLines).await.unwrap();
    engine.flush().await.unwrap();
    let path = segments(&engine, "cpu").pop().unwrap();
    let before = files.journal().len();
    give_up(&engine, &path).await.unwrap();
    let after = files.journal().len();
    assert!(after >= before + 3, "a commit, the file comes, the file goes");
    for step in before..=after {
        let image = files.journal().image(step, |_| Left::NOTHING).await;
        let engine = start(Arc::clone(&image)).await;
        let is_live = engine.version().quarantine().is_empty();
        assert_eq!(read(&engine.version(), "cpu").await.len(), usize::from(is_live));
        let place = if is_live { path.clone() } else { kept_path(&path) };
        assert!(!image.get(&place).await.unwrap().is_empty(), "after step {step}");
    }
}

#[tokio::test]
async fn in_a_bucket_the_object_moves_and_a_good_copy_does_not_hide_its_damage() {
    let bucket = FaultyBucket::default();
    let machine = Machine::of(&bucket);
    let engine = machine.open().await.unwrap();
    let write = async |text| {
        engine.write("db", points(text), WriteMode::StoreGoodLines).await.unwrap();
        engine.flush().await.unwrap();
    };
    write("cpu,host=a x=1 60").await;
    write("cpu,host=a x=2 120").await;
    let path = segments(&engine, "cpu").pop().unwrap();
    let object = object_path(&path).unwrap();
    let mut bytes = bucket.get(&object).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[30] ^= 4;
    bucket.put(&object, bytes.clone().into()).await.unwrap();
    assert_eq!(read(&engine.version(), "cpu").await.len(), 2, "there is a copy");
    give_up(&engine, &path).await.unwrap();
    assert_eq!(read(&engine.version(), "cpu").await, ["cpu,host=a x=1.0 60"]);
    assert!(engine.version().quarantine()[0].damage.is_some());
    let kept = object_path(&kept_path(&path)).unwrap();
    assert_eq!(bucket.get(&kept).await.unwrap().bytes().await.unwrap(), bytes);
    assert!(bucket.head(&object).await.is_err());

    // As after a crash between the commit and moving the object.
    engine.close().await.unwrap();
    drop(engine);
    bucket.rename(&kept, &object).await.unwrap();
    let engine = Machine::of(&bucket).open().await.unwrap();
    assert!(bucket.head(&kept).await.is_ok() && bucket.head(&object).await.is_err());
    assert_eq!(read(&engine.version(), "cpu").await.len(), 1);
}
