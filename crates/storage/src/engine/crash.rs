//! What was acknowledged survives a crash at any moment, and a disk that breaks at any moment.

use proptest::prelude::*;

use super::model::{Model, Step, apply, lines, shown, steps, with_sorted_fields};
use super::points::read;
use super::*;
use crate::file_store::FileStore;

/// What can be read: points, and how often all of them were committed together with a document.
type Seen = (Vec<String>, Option<String>, Vec<String>);

/// A history on files in memory: after each operation the number of steps on the disk, whether it
/// was acknowledged, and what is to be seen if everything up to it counts.
struct History {
    files: Arc<FileStore>,
    moments: Vec<(usize, bool, Seen)>,
}

fn settings() -> Settings {
    Settings { compact_segments: 2, window_points: 5, ..Settings::default() }
}

async fn start(files: &Arc<FileStore>) -> Result<Engine, StorageError> {
    let clock = Arc::new(MockClock::at(Timestamp::from_secs(1_000_000)));
    Engine::start(Arc::clone(files), None, settings(), clock).await
}

/// Carries the steps out. Between them, commits count rounds in a document and a materialization.
async fn live(steps: &[Step], files: Arc<FileStore>) -> History {
    let mut moments = vec![(0, true, seen_at(&Model::new(), 0))];
    let Ok(engine) = start(&files).await else { return History { files, moments } };
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
        moments.push((files.journal().len(), is_ok, seen_at(&model, rounds)));
        if !is_ok {
            break;
        }
    }
    History { files, moments }
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
    match engine.delete(&id("cpu"), condition).await {
        Err(StorageError::NoSuchMeasurement(_) | StorageError::Invalid(_)) => Ok(()),
        result => result.map(drop),
    }
}

/// What may be seen after a crash at this step: everything acknowledged before it counts, and
/// what was under way may.
fn allowed(history: &History, step: usize) -> Vec<&Seen> {
    let acknowledged = |(len, is_ok, _): &(usize, bool, Seen)| *len <= step && *is_ok;
    let last = history.moments.iter().rposition(acknowledged).unwrap_or(0);
    history.moments[last..].iter().take(2).map(|(_, _, seen)| seen).collect()
}

async fn check_image(history: &History, step: usize, kept: usize) -> Result<(), TestCaseError> {
    let files = history.files.journal().image(step, |unsynced| kept % (unsynced + 1)).await;
    let engine = start(&files).await.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
    let seen = see(&engine).await;
    let allowed = allowed(history, step);
    prop_assert!(allowed.contains(&&seen), "step {step}: {seen:?} is none of {allowed:?}");
    engine.write("db", points("new x=1 1"), WriteMode::StoreGoodLines).await.unwrap();
    engine.flush().await.unwrap();
    engine.compact().await.unwrap();
    prop_assert_eq!(see(&engine).await, seen);
    let files = files.journal().image(usize::MAX, |_| 0).await;
    let engine = start(&files).await.unwrap();
    prop_assert_eq!(read(&engine.version(), "new").await, ["new x=1.0 1"]);
    Ok(())
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_crash_leaves_what_was_acknowledged(
        steps in steps(),
        crashes in prop::collection::vec((any::<prop::sample::Index>(), any::<usize>()), 6),
    ) {
        run(async {
            let history = live(&steps, FileStore::in_memory()).await;
            for (step, kept) in crashes {
                let step = step.index(history.files.journal().len() + 1);
                check_image(&history, step, kept).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }

    #[test]
    fn a_disk_that_breaks_takes_nothing_with_it(
        steps in steps(),
        breaks_after in 0usize..120,
        kept in any::<usize>(),
    ) {
        run(async {
            let files = FileStore::in_memory();
            files.journal().fail_from(breaks_after);
            let history = live(&steps, Arc::clone(&files)).await;
            check_image(&history, usize::MAX, kept).await
        })?;
    }
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
        let image = files.journal().image(step, |unsynced| unsynced / 2).await;
        let seen = read(&start(&image).await.unwrap().version(), "cpu").await.len();
        let acknowledged = acknowledged_at.iter().filter(|at| **at <= step).count();
        let range = acknowledged..=acknowledged + 1;
        assert!(range.contains(&seen), "after step {step}: {seen} rows, {acknowledged} expected");
    }
}
