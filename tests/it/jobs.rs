//! Jobs: builds of aggregates over history (S001-06 to 11, 17, 18, 20).

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use highwater_core::Stopwatch;
use highwater_tests::{Launch, TestServer};
use serde_json::{Value, json};

use crate::cli::{run, stdout};
use crate::launch;
use crate::random::Random;

/// Points of data D1: a second apart from 2024-01-01T00:00:01Z on, in five categories.
const D1: u64 = 25_000;
/// Later than all of them.
const NOW: &str = "2024-01-02T00:00:00Z";
/// What the aggregate answers over D1.
const TOTALS: &str =
    "c0,5000,6250.0 / c1,5000,6250.0 / c2,5000,6250.0 / c3,5000,6250.0 / c4,5000,6250.0";
const READ: &str = "SELECT category, cnt, total_price FROM by_category ORDER BY category";
const DIRECT: &str =
    "SELECT category, count(*), sum(price) FROM products GROUP BY category ORDER BY category";

fn d1() -> String {
    let mut lines = String::new();
    for i in 1..=D1 {
        let (category, time) = (i % 5, 1_704_067_200 + i);
        writeln!(lines, "products,id={i} category=\"c{category}\",price=1.25 {time}").unwrap();
    }
    lines
}

/// A keyed aggregate of the products by category.
fn by_category(refresh: &Value) -> Value {
    json!({
        "name": "by_category", "source": "products", "group_by": ["category"], "refresh": refresh,
        "aggregations": [
            { "function": "count", "as": "cnt" },
            { "field": "price", "function": "sum", "as": "total_price" },
            { "field": "price", "function": "mean" },
            { "field": "id", "function": "distinct" },
        ],
    })
}

/// A server with D1 and the aggregate, whose job has not begun, in batches of 10,000 points.
fn with_d1(launch: Launch) -> TestServer {
    let server = launch.switch("--fault-injection").start();
    server.w("s", &d1());
    server.clock(NOW);
    let rule = by_category(&json!({ "strategy": "periodic", "every": "1h" }));
    server.json("POST", "/api/v1/aggregates", &rule).expect(201);
    backfill(&server, &json!({ "batch_size": 10_000 }));
    server
}

#[track_caller]
fn backfill(server: &TestServer, body: &Value) -> Value {
    server.json("POST", "/api/v1/aggregates/by_category/backfill", body).expect(200).json()
}

#[track_caller]
fn job(server: &TestServer) -> Value {
    server.get("/api/v1/jobs/by_category").expect(200).json()
}

#[track_caller]
fn fault(server: &TestServer, switch: &str, value: Value) {
    let body = json!({ "switch": switch, "value": value });
    server.json("POST", "/debug/fault", &body).expect(200);
}

#[track_caller]
fn clear(server: &TestServer) {
    server.json("POST", "/debug/fault", &json!({ "switch": "clear" })).expect(200);
}

/// Status, processed rows and progress.
#[track_caller]
fn progress(server: &TestServer) -> String {
    let job = job(server);
    let status = job["status"].as_str().unwrap();
    format!("{status} {} {}", job["processed_rows"], job["progress_percent"])
}

fn events(server: &TestServer, id: u64) -> String {
    let sql = format!("SELECT state FROM system.job_events WHERE id = {id} ORDER BY event");
    server.q(&sql)
}

/// Exact answers are those of the points, whatever the job does.
#[track_caller]
fn is_exact(server: &TestServer) {
    assert_eq!(server.q(READ), server.q(DIRECT));
    let more = "SELECT category, price_mean, id_distinct FROM by_category ORDER BY category";
    let direct = "SELECT category, mean(price), distinct(id) FROM products GROUP BY category ORDER BY category";
    assert_eq!(server.q(more), server.q(direct));
}

#[test]
fn s001_06_states() {
    let server = with_d1(launch());
    assert_eq!(events(&server, 1), "pending / creating");
    server.drain();
    assert_eq!(events(&server, 1), "pending / creating / backfilling / optimizing / completed");
    let job = job(&server);
    assert_eq!((&job["id"], &job["kind"]), (&json!(1), &json!("backfill")));
    assert_eq!(job["created_at"], job["inserted_at"]);
    assert_eq!(job["source_table"], "products");
    let refused = server.post("/api/v1/jobs/1/resume").expect(400);
    assert_eq!(refused.error(), "a job that is completed cannot be resumed");
    server.get("/api/v1/jobs/7").expect(404);
    server.get("/api/v1/jobs?status=nonsense").expect(400);
    let jobs = |query: &str| {
        let answer = server.get(&format!("/api/v1/jobs?{query}")).expect(200).json();
        answer["jobs"].as_array().unwrap().len()
    };
    assert_eq!((jobs("status=completed"), jobs("status=failed")), (1, 0));
    assert_eq!((jobs("name=by_category"), jobs("name=other")), (1, 0));
    assert_eq!(server.metric("highwater_aggregation_jobs{status=\"completed\"}"), Some(1.0));
}

#[test]
fn s001_06_an_empty_source_completes_at_0_of_0() {
    let server = launch().start();
    let rule = by_category(&json!({ "strategy": "periodic", "every": "1m" }));
    server.json("POST", "/api/v1/aggregates?db=t", &rule).expect(201);
    assert_eq!(progress(&server), "completed 0 100.0");
    assert_eq!(events(&server, 1), "pending / creating / backfilling / optimizing / completed");
    let on_demand = json!({
        "name": "later", "source": "products", "interval": "1h",
        "aggregations": [{ "function": "count" }], "refresh": { "strategy": "on_demand" },
    });
    server.json("POST", "/api/v1/aggregates", &on_demand).expect(201);
    server.get("/api/v1/jobs/later").expect(404);
    server.w("s", &d1());
    server.clock(NOW);
    server.drain();
    assert_eq!(server.qm("SELECT count(*) FROM later"), "0");
    server.post("/api/v1/aggregates/later/backfill").expect(200);
    server.drain();
    assert_eq!(server.qm("SELECT sum(count) FROM later"), "25000");
}

#[test]
fn s001_08_batches_end_inside_a_day() {
    let server = with_d1(launch());
    let expected = [
        "backfilling 0 0.0",
        "backfilling 10000 40.0",
        "backfilling 20000 80.0",
        "completed 25000 100.0",
    ];
    assert_eq!(progress(&server), "creating 0 0.0");
    for expected in expected {
        is_exact(&server);
        assert_eq!(server.qm("SELECT count(*) FROM by_category"), "0", "the day is not complete");
        assert!(server.tick() > 0);
        assert_eq!(progress(&server), expected);
    }
    assert_eq!(server.qm(READ), TOTALS);
    assert_eq!(server.q(READ), TOTALS);
    is_exact(&server);
    assert_eq!(server.tick(), 0);
    let audit = server.post("/api/v1/aggregates/by_category/verify").expect(200).json();
    assert_eq!((&audit["buckets_checked"], &audit["mismatches"]), (&json!(1), &json!(0)));
}

#[test]
fn s001_02_progress_waits_for_a_switch() {
    let server = with_d1(launch());
    fault(&server, "batch_pause", json!(2));
    server.drain();
    assert_eq!(progress(&server), "backfilling 20000 80.0");
    clear(&server);
    server.drain();
    assert_eq!(progress(&server), "completed 25000 100.0");
}

#[test]
fn s001_08_many_days_and_buckets() {
    let server = launch().start();
    let lines: String = (0..6_000)
        .map(|i| format!("m,h=h{} v={}.5 {}\n", i % 7, i, 1_704_067_200 + i * 97))
        .collect();
    server.w("s", &lines);
    server.post("/api/v1/flush").expect(204);
    // Ties: all points of an instant belong to one batch.
    let ties: String = (0..900).map(|i| format!("m,h=t{i} v=1 1704100000\n")).collect();
    server.w("s", &ties);
    server.clock("2024-02-01T00:00:00Z");
    let group_by = json!(["h"]);
    let aggregations = json!([
        { "function": "count" },
        { "field": "v", "function": ["sum", "first", "last", "mean", "p90"] },
    ]);
    for interval in [json!("1h"), json!("7h"), json!("1w"), Value::Null] {
        let mut rule = json!({ "name": "m_x", "source": "m", "group_by": group_by, "aggregations": aggregations });
        if !interval.is_null() {
            rule["interval"] = interval.clone();
        }
        server.json("POST", "/api/v1/aggregates", &rule).expect(201);
        server
            .json("POST", "/api/v1/aggregates/m_x/backfill", &json!({ "batch_size": 500 }))
            .expect(200);
        let mut batches = Vec::new();
        let mut before = 0;
        while server.tick() > 0 {
            let job = server.get("/api/v1/jobs/m_x").expect(200).json();
            let processed = job["processed_rows"].as_u64().unwrap();
            batches.push(processed - before);
            before = processed;
        }
        assert_eq!(before, 6_900, "{interval}");
        let largest = batches.iter().max().unwrap();
        assert!(batches.len() >= 13 && *largest <= 1_400, "{interval}: {batches:?}");
        let time = if interval.is_null() { "" } else { "time, " };
        let read = format!(
            "SELECT {time}h, count, v_sum, v_first, v_last, v_mean, v_p90 FROM m_x ORDER BY {time}h"
        );
        assert_eq!(server.qm(&read), server.q(&read), "{interval}");
        let audit = server.post("/api/v1/aggregates/m_x/verify").expect(200).json();
        assert_eq!(audit["mismatches"], 0, "{interval}");
        server.send("DELETE", "/api/v1/aggregates/m_x?drop=true", &[], &[]).expect(200);
    }
    let ended = server.q("SELECT id, name, state FROM system.jobs ORDER BY id");
    assert_eq!(ended, "1,m_x,completed / 2,m_x,completed / 3,m_x,completed / 4,m_x,completed");
}

#[test]
fn s001_08_changes_during_the_backfill() {
    let server = with_d1(launch());
    for _ in 0..3 {
        server.tick();
    }
    assert_eq!(progress(&server), "backfilling 20000 80.0");
    // Of what is read, of what is not, and of a day that has nothing yet.
    server.w("s", "products,id=24000 category=\"c1\",price=3 1704091200\nproducts,id=3 category=\"c4\" 1704067203");
    server.q("DELETE FROM products WHERE time >= '2024-01-01T06:00:00Z' AND time < '2024-01-01T06:00:10Z'");
    server.w("s", "products,id=x category=\"c9\",price=1 1703894400");
    is_exact(&server);
    server.drain();
    is_exact(&server);
    assert_eq!(job(&server)["status"], "completed");
    // What came after the first batch of a day makes it stale, which is for the schedule.
    server.clock("2024-01-02T02:00:00Z");
    server.drain();
    assert_eq!(server.qm(READ), server.q(DIRECT));
}

#[test]
fn s001_08_an_unfinished_day_that_is_lost_is_read_again() {
    let server = with_d1(launch());
    for _ in 0..3 {
        server.tick();
    }
    let sql = "SELECT DISTINCT path FROM system.segments WHERE measurement = 'by_category@1'";
    for segment in server.q(sql).split(" / ") {
        let body = json!({ "segment": segment, "force": true });
        server.json("POST", "/api/v1/segments/quarantine", &body).expect(200);
    }
    is_exact(&server);
    server.tick();
    assert_eq!(progress(&server), "backfilling 10000 40.0");
    server.drain();
    assert_eq!(progress(&server), "completed 25000 100.0");
    assert_eq!((server.q(READ), server.qm(READ)), (TOTALS.to_owned(), TOTALS.to_owned()));
}

#[test]
fn s001_08_sources_are_built_first() {
    let server = launch().start();
    server.w("s", &d1());
    server.clock(NOW);
    let minutes = json!({
        "name": "p_1m", "source": "products", "interval": "1m", "group_by": ["category"],
        "aggregations": [{ "function": "count" }, { "field": "price", "function": "sum" }],
    });
    server.json("POST", "/api/v1/aggregates", &minutes).expect(201);
    let hours = json!({ "name": "p_1h", "source": "p_1m", "interval": "1h" });
    server.json("POST", "/api/v1/aggregates", &hours).expect(201);
    let body = json!({ "batch_size": 9_000 });
    server.json("POST", "/api/v1/aggregates/p_1m/backfill", &body).expect(200);
    let status = |name: &str| {
        let job = server.get(&format!("/api/v1/jobs/{name}")).expect(200).json();
        job["status"].as_str().unwrap().to_owned()
    };
    let mut seen = Vec::new();
    while server.tick() > 0 {
        seen.push(format!("{} {}", status("p_1m"), status("p_1h")));
    }
    let waits = ["backfilling creating"; 3];
    assert_eq!(seen[..3], waits);
    assert_eq!(seen[3], "completed completed", "in the same tick, as it fits into a batch");
    let read = "SELECT time, category, count, price_sum FROM p_1h ORDER BY time, category";
    let direct = "SELECT time_bucket('1h', time) AS t, category, count(*), sum(price) \
                  FROM products GROUP BY 1, category ORDER BY t, category";
    assert_eq!(server.q(read), server.q(direct));
    assert_eq!(server.qm(read), server.q(direct));
    let job = server.get("/api/v1/jobs/p_1h").expect(200).json();
    assert_eq!(job["processed_rows"], job["total_rows"]);
    // 5 categories in 417 minutes, two of which may be stored twice until they are compacted.
    let processed = job["processed_rows"].as_u64().unwrap();
    assert!((2_085..=2_095).contains(&processed), "{processed}");
}

#[test]
fn s001_09_resume_after_a_crash() {
    let mut server = with_d1(launch());
    for _ in 0..3 {
        server.tick();
    }
    server.kill9();
    server.clock(NOW);
    assert_eq!(progress(&server), "backfilling 20000 80.0");
    is_exact(&server);
    server.drain();
    assert_eq!(progress(&server), "completed 25000 100.0");
    assert_eq!((server.q(READ), server.qm(READ)), (TOTALS.to_owned(), TOTALS.to_owned()));
}

#[test]
fn s001_09_a_crash_between_computing_and_committing() {
    let mut server = with_d1(launch());
    server.tick();
    server.tick();
    fault(&server, "commit_pause", json!(true));
    let client = server.client();
    let ticking = thread::spawn(move || client.send("POST", "/debug/tick", &[], &[]));
    let waiting = |server: &TestServer| {
        let held = server.get("/debug/fault").expect(200).json();
        held["waiting_commits"].as_u64().unwrap()
    };
    while waiting(&server) == 0 {
        thread::yield_now();
    }
    assert_eq!(progress(&server), "backfilling 10000 40.0");
    server.kill9();
    assert!(ticking.join().unwrap().is_err(), "the server went away");
    server.clock(NOW);
    assert_eq!(progress(&server), "backfilling 10000 40.0");
    server.drain();
    assert_eq!(progress(&server), "completed 25000 100.0");
    assert_eq!((server.q(READ), server.qm(READ)), (TOTALS.to_owned(), TOTALS.to_owned()));
}

/// Ticks, a minute after the other, until nothing is due at the end of one.
fn ticks_by_the_minute(server: &TestServer, from: &mut u64) {
    for _ in 0..30 {
        *from += 1;
        server.clock(&format!("2024-01-02T00:{:02}:00Z", *from));
        if server.tick() == 0 {
            return;
        }
    }
    panic!("the job never rests");
}

#[test]
fn s001_10_attempts() {
    let server = with_d1(launch());
    let mut minute = 0;
    fault(&server, "fail_batches", json!(2));
    ticks_by_the_minute(&server, &mut minute);
    let done = job(&server);
    assert_eq!((&done["status"], &done["attempts"]), (&json!("completed"), &json!(3)));
    assert_eq!((&done["error_message"], server.qm(READ)), (&Value::Null, TOTALS.to_owned()));

    let job_of = |body: &Value| backfill(&server, body);
    fault(&server, "fail_batches", json!(99));
    job_of(&json!({ "force": true, "batch_size": 10_000 }));
    ticks_by_the_minute(&server, &mut minute);
    let failed = job(&server);
    assert_eq!((&failed["status"], &failed["attempts"]), (&json!("failed"), &json!(5)));
    assert_eq!(failed["error_message"], "the switch fail_batches lets this fail");
    is_exact(&server);
    clear(&server);
    job_of(&json!({}));
    ticks_by_the_minute(&server, &mut minute);
    assert_eq!(job(&server)["status"], "completed");
    assert_eq!(server.qm(READ), TOTALS);
}

#[test]
fn s001_10_a_failing_job_disturbs_nobody() {
    let server = with_d1(launch());
    fault(&server, "fail_batches", json!(99));
    let mut minute = 0;
    ticks_by_the_minute(&server, &mut minute);
    assert_eq!(job(&server)["status"], "failed");
    // A new day is live work of the same aggregate.
    server.w("s", "products,id=new category=\"c0\",price=2 1704153700");
    server.clock("2024-01-02T02:00:00Z");
    server.drain();
    assert_eq!(server.qm(READ), "c0,1,2.0", "history is not built behind the job's back");
    is_exact(&server);
    clear(&server);
    assert_eq!(server.post("/api/v1/jobs/1/retry").expect(200).json()["status"], "backfilling");
    server.drain();
    assert_eq!(server.qm(READ), server.q(DIRECT));
    assert_eq!(
        events(&server, 1),
        "pending / creating / backfilling / failed / backfilling / optimizing / completed"
    );
}

#[test]
fn s001_11_repeating_is_harmless() {
    let server = with_d1(launch());
    server.drain();
    let refused = server.post("/api/v1/aggregates/by_category/backfill").expect(400);
    assert!(refused.error().contains("force"), "{}", refused.error());
    for id in [2, 3] {
        let started = backfill(&server, &json!({ "force": true, "batch_size": 7_000 }));
        assert_eq!((&started["id"], &started["kind"]), (&json!(id), &json!("rebuild")));
        server.tick();
        server.tick();
        assert_eq!(server.qm(READ), TOTALS, "the old one answers");
        server.drain();
        assert_eq!((server.q(READ), server.qm(READ)), (TOTALS.to_owned(), TOTALS.to_owned()));
        assert_eq!(progress(&server), "completed 25000 100.0");
    }
    let jobs = server.q("SELECT id, kind, status FROM system.jobs ORDER BY id");
    assert_eq!(jobs, "1,backfill,completed / 2,rebuild,completed / 3,rebuild,completed");
}

#[test]
fn s001_11_a_rebuild_survives_restarts_and_other_changes() {
    let server = with_d1(launch());
    server.drain();
    backfill(&server, &json!({ "force": true, "batch_size": 10_000 }));
    server.tick();
    server.tick();
    let other = json!({ "name": "other", "source": "products", "interval": "1h", "aggregations": [{ "function": "count" }] });
    server.json("POST", "/api/v1/aggregates", &other).expect(201);
    assert_eq!(progress(&server), "backfilling 10000 40.0");
    server.json("PUT", "/api/v1/aggregates/other", &json!({ "interval": "2h", "source": "products", "aggregations": [{ "function": "count" }] })).expect(200);
    server.drain();
    assert_eq!(progress(&server), "completed 25000 100.0");
    assert_eq!(server.qm(READ), TOTALS);
}

#[test]
fn s001_17_jobs_are_durable() {
    let mut server = with_d1(launch());
    server.drain();
    server.restart();
    assert_eq!(
        server.q("SELECT name, status FROM system.jobs WHERE name = 'by_category'"),
        "by_category,completed"
    );
}

#[test]
fn s001_18_pause_and_resume() {
    let server = with_d1(launch());
    for _ in 0..3 {
        server.tick();
    }
    assert_eq!(server.post("/api/v1/jobs/1/pause").expect(200).json()["status"], "paused");
    server.post("/api/v1/jobs/1/pause").expect(400);
    server.w("s", "products,id=y category=\"c0\",price=7 1704067300\nproducts,id=z category=\"c0\",price=9 1704153600");
    server.clock("2024-01-02T03:00:00Z");
    server.drain();
    assert_eq!(progress(&server), "paused 20000 80.0");
    is_exact(&server);
    assert_eq!(server.qm(READ), "c0,1,9.0", "what is new goes on");
    assert_eq!(server.post("/api/v1/jobs/1/resume").expect(200).json()["status"], "backfilling");
    server.drain();
    let done = job(&server);
    assert_eq!((&done["status"], &done["processed_rows"]), (&json!("completed"), &json!(25_001)));
    assert_eq!(server.qm(READ), server.q(DIRECT));
    is_exact(&server);
    server.post("/api/v1/jobs/1/pause").expect(400);
}

#[test]
fn s001_18_cancel() {
    let server = with_d1(launch());
    for _ in 0..3 {
        server.tick();
    }
    assert_eq!(server.post("/api/v1/jobs/1/cancel").expect(200).json()["status"], "cancelled");
    server.clock("2024-01-02T03:00:00Z");
    server.drain();
    assert_eq!(progress(&server), "cancelled 20000 80.0");
    is_exact(&server);
    assert_eq!(
        server.post("/api/v1/jobs/by_category/retry").expect(200).json()["status"],
        "backfilling"
    );
    server.drain();
    assert_eq!(server.qm(READ), TOTALS);

    backfill(&server, &json!({ "force": true, "batch_size": 10_000 }));
    server.tick();
    server.tick();
    let version = |server: &TestServer| crate::aggregate(server, "by_category")["version"].clone();
    let before = version(&server);
    assert_eq!(server.post("/api/v1/jobs/2/cancel").expect(200).json()["status"], "cancelled");
    server.drain();
    assert_eq!((version(&server), server.qm(READ)), (before, TOTALS.to_owned()));
    let refused = server.post("/api/v1/jobs/2/retry").expect(409);
    assert!(refused.error().contains("backfill"), "{}", refused.error());
}

#[test]
fn s001_05_jobs_on_the_command_line() {
    let server = with_d1(launch());
    server.tick();
    server.tick();
    let jobs = |args: &[&str]| run(&server, &[&["jobs"], args].concat(), "");
    let line = stdout(jobs(&["status", "by_category"]));
    assert_eq!(line, "job 1 by_category backfilling 10000/25000 (40.0%)\n");
    assert_eq!(stdout(jobs(&["pause", "1"])), "job 1 by_category paused 10000/25000 (40.0%)\n");
    server.drain();
    assert!(stdout(jobs(&["list", "--status", "paused"])).contains("paused 10000/25000 (40.0%)"));
    stdout(jobs(&["resume", "by_category"]));
    server.drain();
    let line = stdout(jobs(&["status", "1"]));
    assert_eq!(line, "job 1 by_category completed 25000/25000 (100.0%)\n");
    for args in [["status", "nobody"], ["pause", "1"], ["cancel", "9"]] {
        assert_eq!(jobs(&args).status.code(), Some(1), "{args:?}");
    }
    stdout(jobs(&["backfill", "by_category", "--force"]));
    server.drain();
    assert_eq!(server.qm(READ), TOTALS);
}

/// What a second writer adds while D1 is read: 100 points of category c0.
fn write_beside(server: &TestServer, random: &mut Random) {
    let client = server.client();
    let pauses: Vec<u64> = (0..10).map(|_| random.below(12)).collect();
    let writer = thread::spawn(move || {
        for (part, pause) in (0..).zip(pauses) {
            let lines: String = (part * 10 + 1..=part * 10 + 10)
                .map(|j| {
                    let (id, time) = (D1 + j, 1_704_092_200 + j);
                    format!("products,id={id} category=\"c0\",price=2.0 {time}\n")
                })
                .collect();
            let path = "/api/v3/write_lp?db=t&precision=s";
            client.send("POST", path, &[], lines.as_bytes()).unwrap().expect(204);
            // Other moments of the backfill each time: so many answers take a while.
            for _ in 0..pause {
                client.send("GET", "/api/v1/jobs/by_category?db=t", &[], &[]).unwrap();
            }
        }
    });
    while !writer.is_finished() {
        // One query at one version, as points come in between two.
        let both = format!(
            "SELECT count(*) FROM (({READ}) EXCEPT ({DIRECT}) UNION ALL (({DIRECT}) EXCEPT ({READ})))"
        );
        assert_eq!(server.q(&both), "0");
        let_background_work();
    }
    writer.join().unwrap();
}

/// Background work is nicer than queries: asking without a pause would leave it next to nothing of a
/// busy machine.
fn let_background_work() {
    thread::park_timeout(Duration::from_millis(50));
}

#[test]
fn s001_07_no_point_lost_or_counted_twice() {
    let mut random = Random::seeded(7);
    let server = launch().real_clock().start();
    server.w("s", &d1());
    let rule = by_category(&json!({ "strategy": "realtime" }));
    let expected = TOTALS.replace("c0,5000,6250.0", "c0,5100,6450.0");
    let rounds = std::env::var("HIGHWATER_JOB_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    for _ in 0..rounds {
        server.json("POST", "/api/v1/aggregates", &rule).expect(201);
        backfill_if_running(&server, 2_000);
        write_beside(&server, &mut random);
        assert_eq!(server.q(READ), expected);
        let start = Stopwatch::start();
        while server.qm(READ) != expected || job(&server)["status"] != "completed" {
            assert!(start.elapsed() < Duration::from_secs(120), "{}", job(&server));
            let_background_work();
        }
        server.send("DELETE", "/api/v1/aggregates/by_category?drop=true", &[], &[]).expect(200);
        server.q("DELETE FROM products WHERE time > '2024-01-01T06:56:40Z'");
    }
}

/// Makes the batches of a job small, unless it has ended already.
fn backfill_if_running(server: &TestServer, batch_size: u64) {
    let body = json!({ "batch_size": batch_size });
    let answer = server.json("POST", "/api/v1/aggregates/by_category/backfill", &body);
    assert!([200, 400].contains(&answer.status), "{}", answer.body);
}
