//! How long planning takes, by hand: `cargo test --release -p highwater-query planning -- --ignored --nocapture`.

use highwater_core::clock::Stopwatch;

use super::*;

#[tokio::test]
#[ignore = "a measurement, of release builds on an idle machine"]
async fn planning_a_simple_query_takes_well_under_a_millisecond() {
    let db = Db::with_cpu().await;
    db.storage.flush().await.unwrap();
    let statements = [
        "SELECT 1",
        "SELECT usage FROM cpu WHERE host = 'a' AND time >= '2024-01-01T10:00:00Z' LIMIT 1",
        "SELECT time_bucket('1h', time) AS t, host, avg(usage) FROM cpu \
         WHERE time >= '2024-01-01' AND time < now() GROUP BY t, host ORDER BY t",
        "SELECT c.host, max(d.free) FROM cpu c JOIN disk d USING (host) GROUP BY c.host",
    ];
    for sql in statements {
        for partitions in [1, 2] {
            let options =
                SessionOptions { partitions: Some(partitions), ..SessionOptions::of("t") };
            let micros = micros_per_run(async || {
                let session = db.queries.session(options.clone());
                let plan = session.plan(sql).await.unwrap();
                drop(session.physical_plan(&plan).await.unwrap());
            });
            let micros = micros.await;
            let whole = micros_per_run(async || {
                drop(run(&db.queries.session(options.clone()), sql, Params::None).await.unwrap());
            });
            let whole = whole.await;
            println!(
                "{micros:6.0} µs to plan, {whole:6.0} µs in all, {partitions} partitions: {sql}"
            );
            assert!(cfg!(debug_assertions) || micros < 1_000.0, "planning {sql} takes {micros} µs");
        }
    }
    let state = micros_per_run(async || drop(db.session().state())).await;
    println!("{state:6.0} µs for a session and its state");
}

async fn micros_per_run(work: impl AsyncFn()) -> f64 {
    const RUNS: u32 = 200;
    for _ in 0..20 {
        work().await;
    }
    let watch = Stopwatch::start();
    for _ in 0..RUNS {
        work().await;
    }
    watch.elapsed_ms() * 1e3 / f64::from(RUNS)
}
