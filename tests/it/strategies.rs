//! When stored buckets are brought up to date: strategies, freshness, limits and lanes.

use std::time::Duration;

use highwater_tests::TestServer;
use serde_json::json;

use crate::{aggregate, launch, with_rules};

const D0: &str = "\
orders,id=o1 status=\"pending\",customer_id=\"c1\",total_amount=10.0 1704067200
orders,id=o2 status=\"shipped\",customer_id=\"c1\",total_amount=20.0 1704070800
orders,id=o3 status=\"shipped\",customer_id=\"c2\",total_amount=5.5 1704153600
orders,id=o4 status=\"pending\",customer_id=\"c3\",total_amount=7.0 1704157200
";

const BY_STATUS: &str =
    "SELECT status,count,revenue FROM order_stats.total_by_status ORDER BY status";
const PENDING: &str =
    "SELECT count,revenue FROM order_stats.total_by_status WHERE status='pending'";
const SHIPPED: &str =
    "SELECT count,revenue FROM order_stats.total_by_status WHERE status='shipped'";

fn rules(refresh: &str, more: &str) -> String {
    format!(
        "
databases:
  t:
    aggregates:
      - set: order_stats
        source: orders
        refresh: {refresh}
        aggregates:
          - {{name: total_by_status, group_by: [status], aggregations: [{{field: id, function: count, as: count}}, {{field: total_amount, function: sum, as: revenue}}]}}
          - {{name: daily_totals, interval: 1d, aggregations: [{{function: count}}, {{field: total_amount, function: sum, as: revenue}}]}}
          - {{name: top_customers, group_by: [customer_id], aggregations: [{{function: count}}, {{field: total_amount, function: sum, as: total_spent}}], order_by: [{{column: total_spent, desc: true}}], limit: 100{more}}}
"
    )
}

fn orders(refresh: &str, more: &str) -> TestServer {
    let server = with_rules(&rules(refresh, more));
    server.clock("2024-01-03T00:00:00Z");
    server.w("s", D0);
    server
}

fn at_and_tick(server: &TestServer, time: &str) {
    server.clock(time);
    server.tick();
}

/// Asks until the answer is there, which has to be within so many real seconds.
fn within_seconds(seconds: u64, is_there: impl Fn() -> bool) -> bool {
    let clock = highwater_core::Stopwatch::start();
    while clock.elapsed() < Duration::from_secs(seconds) {
        if is_there() {
            return true;
        }
    }
    false
}

#[test]
fn s000_05_every_commit_is_followed_under_realtime() {
    let server = orders("{strategy: realtime}", "");
    server.w("s", "orders,id=o1 status=\"shipped\" 1704067200\n");
    assert_eq!(server.q(BY_STATUS), "pending,1,7.0 / shipped,3,35.5");
    server.q("DELETE FROM orders WHERE id='o2'");
    assert_eq!(server.q(BY_STATUS), "pending,1,7.0 / shipped,2,15.5");
    at_and_tick(&server, "2024-01-03T00:00:01Z");
    assert_eq!(server.qm(BY_STATUS), "pending,1,7.0 / shipped,2,15.5");
    let before = aggregate(&server, "order_stats.total_by_status");
    server.w("s", "orders,id=o1 note=\"x\" 1704067200\n");
    at_and_tick(&server, "2024-01-03T00:00:02Z");
    assert_eq!(server.q(BY_STATUS), "pending,1,7.0 / shipped,2,15.5");
    let after = aggregate(&server, "order_stats.total_by_status");
    assert_eq!(after["revisions"], before["revisions"]);
    assert_eq!(after["stale_buckets"], 0);
    let recomputed = |one: &serde_json::Value| one["buckets_recomputed"].as_u64().unwrap();
    assert_eq!(recomputed(&after) - recomputed(&before), 1, "the touched day, and only that");
}

#[test]
fn s000_06_strategy_realtime() {
    let server = orders("{strategy: realtime}", "");
    server.drain();
    server
        .w("s", "orders,id=o5 status=\"pending\",customer_id=\"c1\",total_amount=1.0 1704160800\n");
    assert_eq!((server.q(PENDING), server.qm(PENDING)), ("3,18.0".into(), "2,17.0".into()));
    at_and_tick(&server, "2024-01-03T00:00:00.099Z");
    assert_eq!(server.qm(PENDING), "2,17.0", "commits are gathered for 100 ms");
    at_and_tick(&server, "2024-01-03T00:00:01Z");
    assert_eq!(server.qm(PENDING), "3,18.0");
    // Open buckets too.
    let today = "SELECT count FROM order_stats.daily_totals WHERE time >= '2024-01-03'";
    server.w("s", "orders,id=o6 status=\"open\" 1704240001\n");
    at_and_tick(&server, "2024-01-03T00:00:02Z");
    assert_eq!(server.qm(today), "1");
    for number in 0..200 {
        server
            .w("s", &format!("orders,id=n{number} status=\"many\",total_amount=0.5 1704240002\n"));
        let many = "SELECT count FROM order_stats.total_by_status WHERE status='many'";
        assert_eq!(server.q(many), (number + 1).to_string());
    }
}

#[test]
fn s000_06_a_stream_of_commits_postpones_nothing() {
    let server = orders("{strategy: realtime, debounce: 500ms}", "");
    server.drain();
    for tenth in 1..=5 {
        server.w("s", &format!("orders,id=s{tenth} status=\"stream\" 1704160800\n"));
        at_and_tick(&server, &format!("2024-01-03T00:00:00.{tenth}Z"));
    }
    let stream = "SELECT count FROM order_stats.total_by_status WHERE status='stream'";
    assert_eq!(server.qm(stream), "5", "500 ms after the first");
}

#[test]
fn s000_06_within_a_second_of_the_clock_of_the_machine() {
    let server = launch().rules(&rules("{strategy: realtime}", "")).real_clock().start();
    server.w("s", D0);
    let pending = |expected: &str| within_seconds(60, || server.qm(PENDING) == expected);
    assert!(pending("2,17.0"), "the first refresh");
    let written = highwater_core::Stopwatch::start();
    server
        .w("s", "orders,id=o5 status=\"pending\",customer_id=\"c1\",total_amount=1.0 1704160800\n");
    assert!(pending("3,18.0"));
    eprintln!("stored {:.0} ms after the write", written.elapsed_ms());
}

#[test]
fn s000_09_strategy_hybrid() {
    let server = orders("{strategy: hybrid, critical: [status]}", "");
    server.drain();
    assert_eq!(server.qm(SHIPPED), "2,25.5");
    server.w("s", "orders,id=o3 total_amount=6.5 1704153600\n");
    at_and_tick(&server, "2024-01-03T00:00:01Z");
    assert_eq!((server.q(SHIPPED), server.qm(SHIPPED)), ("2,26.5".into(), "2,25.5".into()));
    server.w("s", "orders,id=o1 status=\"shipped\" 1704067200\n");
    at_and_tick(&server, "2024-01-03T00:00:02Z");
    assert_eq!((server.q(SHIPPED), server.qm(SHIPPED)), ("3,36.5".into(), "3,35.5".into()));
    at_and_tick(&server, "2024-01-03T00:15:02Z");
    assert_eq!(server.qm(SHIPPED), "3,36.5");
}

#[test]
fn s000_09_after_a_restart_what_is_stale_counts_as_critical_once() {
    let mut server = orders("{strategy: hybrid, critical: [status], every: 1h}", "");
    server.drain();
    server.w("s", "orders,id=o3 total_amount=6.5 1704153600\n");
    at_and_tick(&server, "2024-01-03T00:00:01Z");
    assert_eq!(server.qm(SHIPPED), "2,25.5");
    server.restart();
    server.clock("2024-01-03T00:00:02Z");
    server.drain();
    assert_eq!(server.qm(SHIPPED), "2,26.5");
    server.w("s", "orders,id=o3 total_amount=7.5 1704153600\n");
    at_and_tick(&server, "2024-01-03T00:00:03Z");
    assert_eq!(server.qm(SHIPPED), "2,26.5", "once");
    server.q("DELETE FROM orders WHERE id='o2'");
    at_and_tick(&server, "2024-01-03T00:00:04Z");
    assert_eq!(server.qm(SHIPPED), "1,6.5", "a delete takes a status away: 2024-01-01 at once");
}

#[test]
fn s000_16_one_commit_is_one_refresh() {
    let server = orders("{strategy: realtime}", "");
    at_and_tick(&server, "2024-01-03T00:00:01Z");
    let refreshes = "highwater_aggregation_refreshes_total{aggregate=\"order_stats.daily_totals\",result=\"ok\"}";
    assert_eq!(server.metric(refreshes), Some(1.0));
    let monitored = "SELECT strategy, lane, storage, stale_buckets, error_count, last_error, refresh_count \
                     FROM system.aggregates WHERE name='order_stats.daily_totals'";
    assert_eq!(server.q(monitored), "realtime,,durable,0,0,,1");
    let runs =
        "SELECT name, state, lane, reason, points_scanned FROM system.aggregate_runs ORDER BY 1";
    let run = |name: &str| format!("order_stats.{name},ok,live,changed_points,4");
    let expected = ["daily_totals", "top_customers", "total_by_status"].map(run);
    assert_eq!(server.q(runs), expected.join(" / "));
    for gauge in ["lag_seconds", "stale_seconds", "stale_buckets", "stored_rows", "stored_bytes"] {
        let name =
            format!("highwater_aggregation_{gauge}{{aggregate=\"order_stats.daily_totals\"}}");
        assert!(server.metric(&name).is_some(), "{name}");
    }
    assert_eq!(server.metric("highwater_aggregation_running_refreshes{lane=\"live\"}"), Some(0.0));
}

#[test]
fn s000_17_too_many_groups_degrade_one_rule() {
    for strategy in ["{strategy: realtime}", "{every: 1s}"] {
        let server = orders(strategy, ", max_groups: 1");
        server.drain();
        let top = "SELECT * FROM order_stats.top_customers";
        let failed = aggregate(&server, "order_stats.top_customers");
        assert_eq!(failed["status"], "failed");
        let error = failed["last_error"].as_str().unwrap();
        assert!(error.contains("max_groups") && error.contains("2024-01-02"), "{error}");
        server.get("/health").expect(200);
        assert_eq!(server.q(top), "c1,2,30.0 / c3,1,7.0 / c2,1,5.5");
        assert_eq!(server.qm(top), "");
        assert_eq!(server.qm(BY_STATUS), "pending,2,17.0 / shipped,2,25.5");
        // Others go on, and so does writing.
        server.w("s", "orders,id=o1 status=\"shipped\" 1704067200\n");
        at_and_tick(&server, "2024-01-03T00:00:01Z");
        assert_eq!(server.qm(BY_STATUS), "pending,1,7.0 / shipped,3,35.5");
        assert_eq!(server.q(top), "c1,2,30.0 / c3,1,7.0 / c2,1,5.5");
        // With one group a day again it recovers by itself.
        server.q("DELETE FROM orders WHERE id='o4'");
        at_and_tick(&server, "2024-01-03T02:00:00Z");
        assert_eq!(server.qm(top), "c1,2,30.0 / c2,1,5.5");
        assert_eq!(aggregate(&server, "order_stats.top_customers")["status"], "active");
    }
}

#[test]
fn s000_17_buckets_stored_before_stay() {
    let server = orders("{every: 1s}", ", max_groups: 2");
    server.drain();
    let top = "SELECT * FROM order_stats.top_customers";
    let stored = "c1,2,30.0 / c3,1,7.0 / c2,1,5.5";
    assert_eq!(server.qm(top), stored);
    server.w("s", "orders,id=o7 customer_id=\"c4\",total_amount=1.0 1704157201\n");
    at_and_tick(&server, "2024-01-03T00:00:01Z");
    assert_eq!(server.qm(top), stored);
    assert_eq!(server.q(top), format!("{stored} / c4,1,1.0"));
}

#[test]
fn x_02_max_staleness_uses_what_has_missed_young_changes_only() {
    let mut server = orders("{strategy: on_demand}", "");
    server.post("/api/v1/aggregates/refresh").expect(200);
    let ask = |server: &TestServer, age: &str| {
        let freshness = json!({ "freshness": format!("max_staleness {age}"), "format": "csv" });
        highwater_tests::rows(&server.query(PENDING, freshness).expect(200).body)
    };
    server.clock("2024-01-03T12:00:00Z");
    server.tick();
    server.w("s", "orders,id=o5 status=\"pending\",total_amount=1.0 1704160800\n");
    server.clock("2024-01-03T12:05:00Z");
    server.w("s", "orders,id=o5 total_amount=2.0 1704160800\n");
    server.clock("2024-01-03T12:09:59Z");
    assert_eq!(ask(&server, "10m"), "2,17.0", "its oldest unapplied change is 9:59 old");
    assert_eq!(ask(&server, "'10m'"), "2,17.0");
    assert_eq!(ask(&server, "9m"), "3,19.0", "the oldest counts, not the newest");
    assert_eq!(ask(&server, "0s"), "3,19.0");
    // A day that is not stored at all is computed, however young it is.
    server.w("s", "orders,id=o6 status=\"pending\",total_amount=4.0 1704240001\n");
    assert_eq!(ask(&server, "10m"), "3,21.0");
    server.clock("2024-01-03T12:10:00Z");
    assert_eq!(ask(&server, "10m"), "4,23.0");
    server.restart();
    server.clock("2024-01-03T12:10:00Z");
    assert_eq!(ask(&server, "1d"), "4,23.0", "nobody knows any more how old it is");
}

#[test]
fn x_02_max_staleness_may_stand_in_a_rule() {
    let server = orders("{strategy: on_demand}", ", freshness: max_staleness 10m");
    server.post("/api/v1/aggregates/refresh").expect(200);
    server.tick();
    server.w("s", "orders,id=o3 total_amount=50.0 1704153600\n");
    let top = "SELECT total_spent FROM order_stats.top_customers WHERE customer_id='c2'";
    assert_eq!(server.q(top), "5.5");
    let exact = server.query(top, json!({ "freshness": "exact", "format": "csv" })).expect(200);
    assert_eq!(highwater_tests::rows(&exact.body), "50.0");
    server.clock("2024-01-03T00:10:00Z");
    assert_eq!(server.q(top), "50.0");
}

/// A server whose backfills take a step per day.
fn with_small_steps(rules: &str) -> TestServer {
    launch()
        .rules(rules)
        .variable("HIGHWATER_AGGREGATION__STEP_POINTS", "2")
        .variable("HIGHWATER_STORAGE__WINDOW_POINTS", "1")
        .start()
}

#[test]
fn s002_21_a_backfill_goes_step_by_step_and_delays_nobody() {
    let server = with_small_steps(
        "
databases:
  t:
    aggregates:
      - {name: history, source: old, interval: 1h, aggregations: [{function: count}], refresh: {every: 1h}}
      - {name: live, source: new, interval: 1h, aggregations: [{function: count}], refresh: {strategy: realtime}}
",
    );
    server.clock("2024-01-11T00:00:00Z");
    let days = |count: i64| -> String {
        let point = |n: i64| format!("old v=1.0 {}\n", 1_704_067_200 + n * 43_200);
        (0..2 * count).map(point).collect()
    };
    server.w("s", &days(10));
    server.post("/api/v1/flush").expect(204);
    let stored = "SELECT count(*), min(time) FROM history";
    server.tick();
    assert_eq!(server.qm(stored), "2,2024-01-10T00:00:00Z", "newest first");
    assert_eq!(aggregate(&server, "history")["pending"], true);
    server.w("s", "new v=1.0 1704931200\n");
    server.clock("2024-01-11T00:00:01Z");
    server.tick();
    assert_eq!(server.qm(stored), "4,2024-01-09T00:00:00Z", "a step more");
    assert_eq!(server.qm("SELECT count FROM live"), "1", "while the backfill is not done");
    let history = aggregate(&server, "history");
    server.drain();
    assert_eq!(server.qm(stored), "20,2024-01-01T00:00:00Z");
    let done = aggregate(&server, "history");
    assert_eq!(done["last_processed"], "2024-01-11T00:00:00Z");
    assert_ne!(history["last_processed"], done["last_processed"]);
    let lanes =
        "SELECT name, lane, count(*) FROM system.aggregate_runs GROUP BY 1, 2 ORDER BY 1, 2";
    assert_eq!(server.q(lanes), "history,backfill,9 / history,live,1 / live,live,1");
}

#[test]
fn s002_21_whoever_asks_gets_all_steps() {
    let server = with_small_steps(
        "
databases:
  t:
    aggregates:
      - {name: history, source: old, interval: 1h, aggregations: [{function: count}], refresh: {strategy: on_demand}}
",
    );
    server.clock("2024-01-11T00:00:00Z");
    let points: String =
        (0..20).map(|n| format!("old v=1.0 {}\n", 1_704_067_200 + n * 43_200)).collect();
    server.w("s", &points);
    server.post("/api/v1/flush").expect(204);
    let report = server.post("/api/v1/aggregates/history/refresh").expect(200).json();
    assert_eq!(report["buckets"], 20);
    assert_eq!(server.qm("SELECT count(*) FROM history"), "20");
    assert_eq!(aggregate(&server, "history")["refresh_count"], 1);
}

#[test]
fn s002_21_requests_at_the_same_time_are_one() {
    let server = orders("{strategy: on_demand}", "");
    let path = "/api/v1/aggregates/order_stats.daily_totals/refresh";
    let client = server.client();
    std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..8).map(|_| scope.spawn(|| client.send("POST", path, &[], b""))).collect();
        for asked in asking {
            asked.join().unwrap().unwrap().expect(200);
        }
    });
    assert_eq!(server.qm("SELECT count(*) FROM order_stats.daily_totals"), "2");
    let runs = "SELECT count(*) FROM system.aggregate_runs";
    assert_eq!(server.q(runs), "1", "the others found nothing left to do");
}
