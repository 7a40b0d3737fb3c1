//! What was acknowledged survives a crash at any moment, and a disk that breaks at any moment, as far
//! as the durability says.

use proptest::prelude::*;

use super::model::{Model, Step, apply, delete_point, lines, shown, steps, with_sorted_fields};
use super::points::read;
use super::*;
use crate::file_store::{FileStore, Left};

/// What can be read: points, and how often all of them were committed together with a document.
type Seen = (Vec<String>, Option<String>, Vec<String>);

/// A history on files in memory: after each operation what is to be seen if everything up to it
/// counts.
struct History {
    files: Arc<FileStore>,
    durability: Durability,
    moments: Vec<Moment>,
}

struct Moment {
    /// Steps on the disk after the operation.
    steps: usize,
    is_acknowledged: bool,
    /// Whether the operation makes everything before it durable, whatever the settings.
    is_durable: bool,
    seen: Seen,
}

async fn start(files: &Arc<FileStore>) -> Result<Engine, StorageError> {
    start_with(files, Durability::EveryWrite).await
}

async fn start_with(
    files: &Arc<FileStore>,
    durability: Durability,
) -> Result<Engine, StorageError> {
    // Every recovery of more than some points flushes on the way.
    let settings = Settings {
        compact_segments: 2,
        window_points: 5,
        flush_points: 12,
        durability,
        ..Settings::default()
    };
    let clock = Arc::new(MockClock::at(Timestamp::from_secs(1_000_000)));
    Engine::start(Arc::clone(files), None, settings, clock).await
}

/// Carries the steps out. Between them, commits count rounds in a document and a materialization.
async fn live(steps: &[Step], files: Arc<FileStore>, durability: Durability) -> History {
    let seen = seen_at(&Model::new(), 0);
    let mut moments = vec![Moment { steps: 0, is_acknowledged: true, is_durable: true, seen }];
    let Ok(engine) = start_with(&files, durability).await else {
        return History { files, durability, moments };
    };
    let (mut model, mut rounds) = (Model::new(), 0);
    for step in steps {
        let is_ok = match step {
            // A crash is what happens afterwards; here a commit takes its place.
            Step::Crash => {
                rounds += 1;
                engine.commit(round(rounds)).await.is_ok()
            }
            step => {
                apply(&mut model, step);
                carry_out(&engine, step).await
            }
        };
        moments.push(Moment {
            steps: files.journal().len(),
            is_acknowledged: is_ok,
            is_durable: matches!(step, Step::Flush | Step::Crash),
            seen: seen_at(&model, rounds),
        });
        if !is_ok {
            break;
        }
    }
    History { files, durability, moments }
}

/// A document and rows that belong together.
fn round(number: i64) -> Commit {
    let key = "round".to_owned();
    let mut replacement = hourly(secs(0, 7200), &format!("0={number} 3600={number}"));
    if number % 2 == 0 {
        replacement = hourly(secs(0, 3600), &format!("0={number}"));
    }
    Commit {
        edits: vec![Edit::PutDocument { key, text: Some(number.to_string().into()) }],
        replacements: vec![replacement],
        ..Commit::default()
    }
}

fn seen_at(model: &Model, rounds: i64) -> Seen {
    let second = if rounds % 2 == 0 { rounds - 1 } else { rounds };
    let rows = [(rounds, 0), (second, 3600)];
    let rows = rows.iter().map(|(sum, time)| format!("hourly sum={sum} {time}"));
    let rows: Vec<String> = if rounds > 0 { rows.collect() } else { Vec::new() };
    let mut rows = rows;
    rows.sort_unstable();
    (shown(model), (rounds > 0).then(|| rounds.to_string()), rows)
}

async fn see(engine: &Engine) -> Seen {
    let version = engine.version();
    let points = with_sorted_fields(read(&version, "cpu").await);
    let document = version.document("round").map(|text| text.to_string());
    (points, document, read(&version, "hourly").await)
}

/// Whether the step was acknowledged.
async fn carry_out(engine: &Engine, step: &Step) -> bool {
    let result = match step {
        Step::Write(rows) => {
            engine.write("db", points(&lines(rows)), WriteMode::StoreGoodLines).await.map(drop)
        }
        Step::DeleteHost(host) => delete(engine, host_is(&host.to_string())).await,
        Step::DeleteBefore(secs) => delete(engine, before(*secs)).await,
        Step::DeletePoint(host, time) => delete_point(engine, *host, *time).await,
        Step::Flush => engine.flush().await,
        Step::Compact => engine.compact().await.map(drop),
        Step::Crash => Ok(()),
    };
    match result {
        Ok(()) => true,
        Err(StorageError::Poisoned { .. } | StorageError::Io { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A measurement without points, or without the tag, has nothing to delete.
async fn delete(engine: &Engine, condition: Condition) -> Result<(), StorageError> {
    match engine.delete(&engine.version(), &id("cpu"), condition).await {
        Err(StorageError::NoSuchMeasurement(_) | StorageError::Invalid(_)) => Ok(()),
        result => result.map(drop),
    }
}

/// What ends at a crash, and so what the disk has of a log.
#[derive(Clone, Copy, Debug)]
enum Crash {
    /// The process: everything written is there.
    Process,
    /// The machine: of what was not synced, so many bytes are there, modulo their number, with
    /// such holes.
    Machine(usize, u64),
}

/// What may be seen after a crash at this step: everything acknowledged before it that is durable
/// counts, and what came later may, in order.
fn allowed(history: &History, crash: Crash, step: usize) -> Vec<&Seen> {
    let History { durability, moments, .. } = history;
    let synced = history.files.journal().synced_before(step);
    let counts = |moment: &Moment| {
        let survives = match (durability, crash) {
            (Durability::None, _) => moment.is_durable,
            (Durability::EveryWrite, _) | (_, Crash::Process) => true,
            (Durability::Periodic | Durability::Os, Crash::Machine(..)) => {
                moment.is_durable || moment.steps <= synced
            }
        };
        moment.steps <= step && moment.is_acknowledged && survives
    };
    let acknowledged = |moment: &Moment| moment.steps <= step && moment.is_acknowledged;
    let first = moments.iter().rposition(counts).unwrap_or(0);
    let last = moments.iter().rposition(acknowledged).unwrap_or(0);
    // One more may have been under way.
    moments[first..].iter().take(last + 2 - first).map(|moment| &moment.seen).collect()
}

async fn check_image(history: &History, crash: Crash, step: usize) -> Result<(), TestCaseError> {
    let left = |unsynced| match crash {
        Crash::Process => Left::first(unsynced),
        Crash::Machine(kept, holes) => Left { bytes: kept % (unsynced + 1), holes },
    };
    let files = history.files.journal().image(step, left).await;
    let engine = start(&files).await.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
    let seen = see(&engine).await;
    let allowed = allowed(history, crash, step);
    prop_assert!(
        allowed.contains(&&seen),
        "{:?} {crash:?} {step}: {seen:?} is none of {allowed:?}",
        history.durability
    );
    engine.write("db", points("new x=1 1"), WriteMode::StoreGoodLines).await.unwrap();
    engine.flush().await.unwrap();
    engine.compact().await.unwrap();
    prop_assert_eq!(see(&engine).await, seen);
    let files = files.journal().image(usize::MAX, |_| Left::NOTHING).await;
    let engine = start(&files).await.unwrap();
    prop_assert_eq!(read(&engine.version(), "new").await, ["new x=1.0 1"]);
    Ok(())
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        3 => Just(Durability::EveryWrite),
        1 => Just(Durability::Periodic),
        1 => Just(Durability::Os),
        1 => Just(Durability::None),
    ]
}

fn holes() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), any::<u64>()]
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_crash_leaves_what_was_acknowledged(
        steps in steps(),
        durability in durability(),
        crashes in prop::collection::vec((any::<prop::sample::Index>(), any::<usize>(), holes()), 6),
    ) {
        run(async {
            let history = live(&steps, FileStore::in_memory(), durability).await;
            for (step, kept, holes) in crashes {
                let step = step.index(history.files.journal().len() + 1);
                check_image(&history, Crash::Machine(kept, holes), step).await?;
                check_image(&history, Crash::Process, step).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }

    #[test]
    fn a_disk_that_breaks_takes_nothing_with_it(
        steps in steps(),
        breaks_after in 0usize..120,
        kept in any::<usize>(),
        holes in holes(),
    ) {
        run(async {
            let files = FileStore::in_memory();
            files.journal().fail_from(breaks_after);
            let history = live(&steps, Arc::clone(&files), Durability::EveryWrite).await;
            check_image(&history, Crash::Machine(kept, holes), usize::MAX).await
        })?;
    }
}

/// How many points there are after the machine, and after the process, stopped behind one write.
async fn left_by_a_crash(
    durability: Durability,
    is_over: impl Fn(&FileStore) -> bool,
) -> [usize; 2] {
    let files = FileStore::in_memory();
    let engine = start_with(&files, durability).await.unwrap();
    engine.write("db", points("cpu x=1 1"), WriteMode::StoreGoodLines).await.unwrap();
    while !is_over(&files) {
        tokio::task::yield_now().await;
    }
    let mut left = [0; 2];
    for (left, keeps) in left.iter_mut().zip([false, true]) {
        let kept = |unsynced: usize| if keeps { Left::first(unsynced) } else { Left::NOTHING };
        let image = files.journal().image(usize::MAX, kept).await;
        *left = read(&start(&image).await.unwrap().version(), "cpu").await.len();
    }
    left
}

/// What `docs/consistency.md` says that a crash can take.
#[tokio::test]
async fn weaker_durability_loses_what_it_says() {
    let at_once = |_: &FileStore| true;
    // The log is begun by a sync of its own.
    let synced_again = |files: &FileStore| files.journal().syncs() > 1;
    assert_eq!(left_by_a_crash(Durability::EveryWrite, at_once).await, [1, 1]);
    assert_eq!(left_by_a_crash(Durability::Periodic, synced_again).await, [1, 1]);
    assert_eq!(left_by_a_crash(Durability::Os, at_once).await, [0, 1]);
    assert_eq!(left_by_a_crash(Durability::None, at_once).await, [0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn writes_during_flushes_and_compactions_survive_a_crash_at_any_step() {
    let files = FileStore::in_memory();
    let engine = start(&files).await.unwrap();
    let writer = tokio::spawn({
        let (engine, files) = (engine.clone(), Arc::clone(&files));
        async move {
            let mut acknowledged_at = Vec::new();
            for i in 0..150 {
                let point = points(&format!("cpu,host=h{} x={i}i {}", i % 7, i * 600));
                engine.write("db", point, WriteMode::StoreGoodLines).await.unwrap();
                acknowledged_at.push(files.journal().len());
            }
            acknowledged_at
        }
    });
    let mut flushes = 0;
    while !writer.is_finished() {
        engine.flush().await.unwrap();
        engine.compact().await.unwrap();
        flushes += 1;
    }
    let acknowledged_at = writer.await.unwrap();
    assert!(flushes > 1, "flushes and writes took turns");
    for step in (0..=files.journal().len()).step_by(7) {
        let image = files.journal().image(step, |unsynced| Left::first(unsynced / 2)).await;
        let seen = read(&start(&image).await.unwrap().version(), "cpu").await.len();
        let acknowledged = acknowledged_at.iter().filter(|at| **at <= step).count();
        let range = acknowledged..=acknowledged + 1;
        assert!(range.contains(&seen), "after step {step}: {seen} rows, {acknowledged} expected");
    }
}
