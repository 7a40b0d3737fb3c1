//! Engines that share a bucket: one writer at a time, lost answers, copies that are damaged.

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use futures::future::join_all;
use highwater_core::{ErrorKind, ScanFilter};

use super::*;
use crate::ScanRequest;
use crate::file_store::Fault::{AnswerLost, Lost, NeverSent, ThenSilence};
use crate::file_store::{Bucket, FaultyBucket, StoreMark};
use crate::recovery::open_in_bucket;

const URL: &str = "s3://b/plant";

/// A data folder of a bucket.
pub(super) struct Machine {
    folder: TempDir,
    bucket: FaultyBucket,
    settings: Settings,
}

impl Machine {
    pub(super) fn of(bucket: &FaultyBucket) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { object_store: Some(URL.to_owned()), ..Settings::default() };
        Machine { folder, bucket: bucket.clone(), settings }
    }

    /// The same that also goes without the logs of others.
    pub(super) fn abandoning(mut self) -> Machine {
        self.settings.abandon_logs = true;
        self
    }

    pub(super) async fn open(&self) -> Result<Engine, StorageError> {
        let lock = FolderLock::take(self.folder.path())?;
        let mark = StoreMark::of_folder(self.folder.path(), Some(URL))?.unwrap();
        let bucket = Bucket::of(URL, Arc::new(self.bucket.clone()));
        let folder = self.folder.path().to_owned();
        let files = open_in_bucket(folder, bucket, mark, self.settings.cache_bytes).await?;
        let clock = Arc::new(MockClock::at(Timestamp::from_secs(1_000_000)));
        Engine::start(files, Some(lock), self.settings.clone(), clock).await
    }

    /// Changes a bit of every copy of a segment.
    pub(super) fn damage_copies(&self) {
        for copy in self.copies() {
            let mut bytes = fs::read(&copy).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&copy, bytes).unwrap();
        }
    }

    /// The copies of segments, by path.
    fn copies(&self) -> Vec<std::path::PathBuf> {
        let files = fs::read_dir(self.folder.path().join("cache")).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        let mut copies: Vec<_> = files.filter(|path| path.is_file()).collect();
        copies.sort();
        copies
    }
}

async fn write(engine: &Engine, text: &str) -> Result<WriteReport, StorageError> {
    engine.write("db", points(text), WriteMode::StoreGoodLines).await
}

async fn cpu(engine: &Engine) -> Vec<String> {
    read(&engine.version(), "cpu").await
}

/// Reads all of a measurement, as far as that is possible.
async fn try_read(engine: &Engine) -> Result<Vec<RecordBatch>, StorageError> {
    let (columns, filter) = (vec!["n".into()], ScanFilter::all());
    let request = ScanRequest::new(columns, filter);
    let scan = engine.version().measurement(&id("cpu")).unwrap().scan(&request)?;
    scan.stream(0).try_collect().await
}

/// Stops without a flush, as far as the folder and the bucket can tell.
fn crash(engine: Engine) {
    drop(engine);
}

#[tokio::test]
async fn after_an_orderly_stop_another_machine_goes_on() {
    let bucket = FaultyBucket::default();
    let (first, second) = (Machine::of(&bucket), Machine::of(&bucket));
    let mut expected = Vec::new();
    for (round, machine) in [&first, &second, &first, &second].into_iter().enumerate() {
        let engine = machine.open().await.unwrap();
        assert_eq!(cpu(&engine).await, expected);
        let line = format!("cpu,host=a n={round}i {round}");
        write(&engine, &line).await.unwrap();
        expected.push(line.replace("i ", " "));
        assert_eq!(cpu(&engine).await, expected);
        engine.close().await.unwrap();
    }
    assert!(!first.folder.path().join("manifest").exists());
    assert!(!first.folder.path().join("segments").exists());
}

#[tokio::test]
async fn logs_that_are_needed_are_on_the_machine_that_wrote_them() {
    let bucket = FaultyBucket::default();
    let (first, second) = (Machine::of(&bucket), Machine::of(&bucket));
    let engine = first.open().await.unwrap();
    write(&engine, "cpu n=1i 60").await.unwrap();
    engine.flush().await.unwrap();
    write(&engine, "cpu n=2i 120").await.unwrap();
    crash(engine);
    let refused = second.open().await.unwrap_err();
    assert!(matches!(refused, StorageError::LogsElsewhere { .. }), "{refused}");
    assert!(refused.to_string().contains("wal/00000000000000000001.wal"), "{refused}");

    let engine = first.open().await.unwrap();
    assert_eq!(cpu(&engine).await, ["cpu n=1 60", "cpu n=2 120"]);
    crash(engine);
    let engine = second.abandoning().open().await.unwrap();
    assert_eq!(cpu(&engine).await, ["cpu n=1 60"]);
    engine.close().await.unwrap();
    // What was given up does not come back, and is kept.
    let engine = first.open().await.unwrap();
    assert_eq!(cpu(&engine).await, ["cpu n=1 60"]);
    assert_eq!(fs::read_dir(first.folder.path().join("abandoned")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_copy_of_a_folder_is_another_folder_from_its_opening_on() {
    let bucket = FaultyBucket::default();
    let (first, second) = (Machine::of(&bucket), Machine::of(&bucket));
    let engine = first.open().await.unwrap();
    write(&engine, "cpu n=1i 60").await.unwrap();
    copy(first.folder.path(), second.folder.path());
    let other = second.open().await.unwrap();
    assert_eq!(cpu(&other).await, ["cpu n=1 60"]);
    write(&other, "cpu n=2i 120").await.unwrap();
    write(&engine, "cpu n=3i 180").await.unwrap();
    assert!(matches!(engine.flush().await, Err(StorageError::Poisoned { .. })));
    crash(engine);
    crash(other);
    assert!(matches!(first.open().await, Err(StorageError::LogsElsewhere { .. })));
    let other = second.open().await.unwrap();
    assert_eq!(cpu(&other).await, ["cpu n=1 60", "cpu n=2 120"]);
    other.close().await.unwrap();
    let engine = first.open().await.unwrap();
    assert_eq!(cpu(&engine).await, ["cpu n=1 60", "cpu n=2 120"]);
}

#[tokio::test]
async fn an_opening_that_stays_open_is_found_out_by_the_next() {
    let bucket = FaultyBucket::default();
    let machine = Machine::of(&bucket);
    let engine = machine.open().await.unwrap();
    write(&engine, "cpu n=1i 60").await.unwrap();
    crash(engine);
    // The probe, then the opening: it gets lost until patience ends, or the store goes silent as
    // soon as it has it.
    for opening in [vec![Some(Lost); 100], vec![Some(ThenSilence)]] {
        bucket.next_puts([None].into_iter().chain(opening));
        let failed = machine.open().await.unwrap_err();
        assert!(matches!(failed, StorageError::Unresolved { .. }), "{failed}");
        bucket.recover();
        let engine = machine.open().await.unwrap();
        assert_eq!(cpu(&engine).await, ["cpu n=1 60"]);
        crash(engine);
    }
}

#[tokio::test]
async fn a_second_opening_fences_the_first() {
    let bucket = FaultyBucket::default();
    let (first, second) = (Machine::of(&bucket), Machine::of(&bucket).abandoning());
    let old = first.open().await.unwrap();
    write(&old, "cpu n=1i 60").await.unwrap();
    old.flush().await.unwrap();
    let new = second.open().await.unwrap();
    write(&new, "cpu n=2i 120").await.unwrap();
    new.flush().await.unwrap();

    write(&old, "cpu n=9i 180").await.unwrap();
    assert!(matches!(old.flush().await, Err(StorageError::Poisoned { .. })));
    let refused = write(&old, "cpu n=9i 240").await.unwrap_err();
    assert!(refused.to_string().contains("another process has opened this database"), "{refused}");
    assert!(old.close().await.is_err());
    write(&new, "cpu n=3i 180").await.unwrap();
    new.close().await.unwrap();
    let engine = second.open().await.unwrap();
    assert_eq!(cpu(&engine).await, ["cpu n=1 60", "cpu n=2 120", "cpu n=3 180"]);
}

#[tokio::test]
async fn commits_are_not_lost_with_their_answers() {
    let bucket = FaultyBucket::default();
    let machine = Machine::of(&bucket);
    // Two probes and the opening, then rotation, segment and result of each flush.
    bucket.next_puts([None, None, Some(AnswerLost)]);
    let engine = machine.open().await.unwrap();
    let faults = [
        [Some(AnswerLost), None, None],
        [Some(Lost), Some(AnswerLost), Some(Lost)],
        [Some(Lost), Some(Lost), Some(AnswerLost)],
    ];
    for (round, faults) in faults.into_iter().enumerate() {
        write(&engine, &format!("cpu n={round}i {round}")).await.unwrap();
        bucket.next_puts(faults);
        engine.flush().await.unwrap();
    }
    assert_eq!(engine.failure(), None);
    engine.close().await.unwrap();
    let engine = Machine::of(&bucket).open().await.unwrap();
    assert_eq!(cpu(&engine).await, ["cpu n=0 0", "cpu n=1 1", "cpu n=2 2"]);
}

#[tokio::test]
async fn a_commit_that_stays_open_is_found_out_by_the_next_opening() {
    for fault in [vec![Some(Lost); 100], vec![Some(ThenSilence)], vec![None, Some(ThenSilence)]] {
        let bucket = FaultyBucket::default();
        let machine = Machine::of(&bucket);
        let engine = machine.open().await.unwrap();
        write(&engine, "cpu n=1i 60").await.unwrap();
        bucket.next_puts(fault.iter().copied());
        engine.flush().await.unwrap_err();
        let is_unsure = fault[0].is_some();
        assert_eq!(engine.failure().is_some(), is_unsure, "{:?}", engine.failure());
        assert_eq!(write(&engine, "cpu n=2i 120").await.is_err(), is_unsure);
        bucket.recover();
        crash(engine);
        let engine = machine.open().await.unwrap();
        assert_eq!(cpu(&engine).await[0], "cpu n=1 60");
        engine.close().await.unwrap();
        assert_eq!(cpu(&machine.open().await.unwrap()).await[0], "cpu n=1 60");
    }
}

#[tokio::test]
async fn of_two_that_open_at_once_one_is_the_writer() {
    let bucket = FaultyBucket::default();
    let machines = [(); 3].map(|()| Machine::of(&bucket).abandoning());
    for round in 0..5 {
        let engines = join_all(machines.iter().map(Machine::open)).await;
        let engines: Vec<Engine> = engines.into_iter().map(Result::unwrap).collect();
        let mut written = 0;
        for (at, engine) in engines.iter().enumerate() {
            write(engine, &format!("cpu n={at}i {round}")).await.unwrap();
            written += usize::from(engine.flush().await.is_ok());
        }
        assert_eq!(written, 1);
    }
    assert_eq!(cpu(&machines[0].open().await.unwrap()).await.len(), 5);
}

#[tokio::test]
async fn while_the_store_is_away_writes_go_on() {
    let bucket = FaultyBucket::default();
    let machine = Machine::of(&bucket);
    let engine = machine.open().await.unwrap();
    for fault in [NeverSent, Lost] {
        bucket.always(Some(fault));
        write(&engine, "cpu n=1i 60").await.unwrap();
        let failed = engine.flush().await.unwrap_err();
        assert!(matches!(failed, StorageError::Unreachable { .. }), "{failed}");
        write(&engine, "cpu n=2i 120").await.unwrap();
        assert_eq!(cpu(&engine).await, ["cpu n=1 60", "cpu n=2 120"]);
        assert_eq!(engine.failure(), None);
        bucket.always(None);
        engine.flush().await.unwrap();
    }
    bucket.always(Some(Lost));
    fs::remove_dir_all(machine.folder.path().join("cache")).unwrap();
    let unread = try_read(&engine).await.unwrap_err();
    assert_eq!(unread.kind(), ErrorKind::Unavailable);
    assert!(engine.damaged_segments().is_empty());
    bucket.always(None);
    // Reached, but the write of the commit itself never leaves.
    write(&engine, "cpu n=3i 180").await.unwrap();
    bucket.next_puts([Some(NeverSent)]);
    assert!(matches!(engine.flush().await, Err(StorageError::Unreachable { .. })));
    assert_eq!((engine.failure(), engine.stats().logs), (None, 1));
    engine.flush().await.unwrap();
    assert_eq!(engine.stats().memtable_rows, 0);
    engine.close().await.unwrap();
    bucket.always(Some(NeverSent));
    machine.open().await.unwrap_err();
}

#[tokio::test]
async fn copies_are_damaged_cut_or_gone_and_nobody_notices() {
    let bucket = FaultyBucket::default();
    let machine = Machine::of(&bucket);
    let engine = machine.open().await.unwrap();
    write(&engine, "cpu n=1i 60\ncpu n=2i 120").await.unwrap();
    engine.flush().await.unwrap();
    let (copy, gets) = (machine.copies().remove(0), bucket.gets());
    let whole = fs::read(&copy).unwrap();
    assert_eq!(cpu(&engine).await.len(), 2);
    assert_eq!((bucket.gets(), engine.stats().cache.hits > 0), (gets, true));
    engine.close().await.unwrap();

    let mut flipped = whole.clone();
    flipped[20] ^= 4;
    let mut footer = whole.clone();
    footer[whole.len() - 12] ^= 4;
    for damaged in [&flipped, &footer, &vec![0; whole.len()], &whole[..whole.len() / 2].to_vec()] {
        fs::write(&copy, damaged).unwrap();
        let engine = machine.open().await.unwrap();
        for rows in join_all((0..8).map(|_| cpu(&engine))).await {
            assert_eq!(rows, ["cpu n=1 60", "cpu n=2 120"]);
        }
        assert!(engine.damaged_segments().is_empty());
        assert_eq!(fs::read(&copy).unwrap(), whole);
        fs::remove_file(&copy).unwrap();
        assert_eq!(cpu(&engine).await.len(), 2);
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_segment_of_the_bucket_is_refused() {
    let bucket = FaultyBucket::default();
    let machine = Machine::of(&bucket);
    let engine = machine.open().await.unwrap();
    write(&engine, "cpu n=1i 60").await.unwrap();
    engine.flush().await.unwrap();
    let files = &engine.shared().files;
    let (path, _) = files.list("segments").await.unwrap().remove(0);
    let mut bytes = files.get(&path).await.unwrap().to_vec();
    bytes[20] ^= 4;
    files.put(&path, bytes.into(), crate::file_store::PutKind::Overwrite).await.unwrap();
    files.forget_copy(&path);
    let unread = try_read(&engine).await.unwrap_err();
    assert!(matches!(unread, StorageError::Corrupt { .. }), "{unread}");
    assert!(engine.damaged_segments().contains_key(&path));
}

#[tokio::test]
async fn a_segment_is_fetched_once_for_all_and_kept_as_long_as_there_is_room() {
    let bucket = FaultyBucket::default();
    let mut machine = Machine::of(&bucket);
    let engine = machine.open().await.unwrap();
    for day in 0..3 {
        write(&engine, &format!("cpu n={day}i {}", day * 86_400)).await.unwrap();
        engine.flush().await.unwrap();
    }
    engine.close().await.unwrap();
    let sizes: Vec<u64> =
        machine.copies().iter().map(|copy| fs::metadata(copy).unwrap().len()).collect();
    fs::remove_dir_all(machine.folder.path().join("cache")).unwrap();

    let engine = machine.open().await.unwrap();
    let gets = bucket.gets();
    let readers = join_all((0..8).map(|_| cpu(&engine))).await;
    assert!(readers.iter().all(|rows| rows.len() == 3));
    assert_eq!((bucket.gets() - gets, machine.copies().len()), (3, 3));
    engine.close().await.unwrap();

    // Room for two, then for none.
    for (cache_bytes, copies) in [(sizes.iter().sum::<u64>() - 1, 2), (1, 0)] {
        machine.settings.cache_bytes = cache_bytes;
        let engine = machine.open().await.unwrap();
        assert_eq!(cpu(&engine).await.len(), 3);
        assert_eq!(machine.copies().len(), copies);
        assert!(engine.stats().cache.bytes <= cache_bytes);
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_folder_is_not_opened_with_another_database() {
    let machine = Machine::of(&FaultyBucket::default());
    machine.open().await.unwrap().close().await.unwrap();
    let other = FaultyBucket::default();
    let moved = Machine { bucket: other.clone(), ..machine };
    let refused = moved.open().await.unwrap_err();
    assert!(refused.to_string().contains("there is no database in s3://b/plant"), "{refused}");
    Machine::of(&other).open().await.unwrap().close().await.unwrap();
    let refused = moved.open().await.unwrap_err();
    assert!(refused.to_string().contains("there is another database"), "{refused}");
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    let bucket = FaultyBucket::default();
    let machine = Machine::of(&bucket);
    machine.open().await.unwrap().close().await.unwrap();
    bucket.be_careless();
    let refused = machine.open().await.unwrap_err();
    assert!(refused.to_string().contains("If-None-Match"), "{refused}");
}

#[tokio::test]
async fn numbers_of_segments_belong_to_one_opening() {
    let bucket = FaultyBucket::default();
    let machine = Machine::of(&bucket);
    let mut openings = Vec::new();
    for round in 0..3 {
        let engine = machine.open().await.unwrap();
        write(&engine, &format!("cpu n=1i {round}")).await.unwrap();
        engine.flush().await.unwrap();
        // As if the segment had not been there when the next opening looked.
        let files = &engine.shared().files;
        let (path, _) = files.list("segments").await.unwrap().pop().unwrap();
        openings.push(crate::segment::file_number(&path).unwrap() >> 24);
        let drop_it = Commit::of([Edit::DropMeasurement { id: id("cpu") }]);
        engine.commit(drop_it).await.unwrap();
        engine.close().await.unwrap();
    }
    assert!(openings.is_sorted_by(|earlier, later| earlier < later), "{openings:?}");
}
