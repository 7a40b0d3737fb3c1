//! The work of a refresh follows what changed, not how much there is.

use std::fmt::Write;

use highwater_tests::TestServer;
use serde_json::json;

use crate::{aggregate, with_rules};

/// Midnight of 2024-01-01.
const START: i64 = 1_704_067_200;
const DAY: i64 = 86_400;

/// Of the latest run of an aggregate.
fn scanned(server: &TestServer, name: &str) -> u64 {
    let runs = format!(
        "SELECT points_scanned FROM system.aggregate_runs WHERE name = '{name}' \
         ORDER BY started DESC LIMIT 1"
    );
    server.q(&runs).parse().unwrap()
}

/// What an aggregate answers from stored buckets, and what it answers exactly.
fn same_stored_and_exact(server: &TestServer, sql: &str) -> String {
    let stored = server.query(sql, json!({ "freshness": "materialized" })).expect(200).body;
    assert_eq!(stored, server.csv(sql), "{sql}");
    stored
}

#[test]
fn s000_15_cost_follows_the_change() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: orders_1d, source: orders, interval: 1d, refresh: {strategy: periodic, every: 1s},
         aggregations: [{function: count}, {field: amount, function: sum}]}
",
    );
    // A hundred days of a thousand orders.
    for day in 0..100 {
        let mut lines = String::new();
        for order in 0..1_000 {
            let time = START + day * DAY + order * 60;
            writeln!(lines, "orders,id=o{day}_{order} amount={order} {time}").unwrap();
        }
        server.w("s", &lines);
    }
    server.clock("2024-06-01T00:00:00Z");
    server.tick();
    same_stored_and_exact(&server, "SELECT * FROM orders_1d ORDER BY time");
    server.w("s", &format!("orders,id=late amount=0.5 {}", START + 40 * DAY + 30));
    server.clock("2024-06-01T00:00:01Z");
    server.tick();
    assert!(scanned(&server, "orders_1d") <= 1_001);
    same_stored_and_exact(&server, "SELECT * FROM orders_1d ORDER BY time");
}

const BY_HOST: &str = "
databases:
  t:
    aggregates:
      - name: cpu_1m
        source: cpu
        interval: 1m
        group_by: [host]
        where: 'usage >= 0'
        aggregations: [{field: usage, function: [count, sum, max, last]}]
        refresh: {strategy: periodic, every: 1s}
      - {name: cpu_1h, source: cpu_1m, interval: 1h, refresh: {strategy: periodic, every: 1s}}
      - {name: cpu_by_rack, source: cpu_1m, interval: 1d, group_by: [], refresh: {strategy: periodic, every: 1s}}
";

/// 50 hosts, three hours, a point every 20 seconds: 540 points each.
fn with_hosts() -> TestServer {
    let server = with_rules(BY_HOST);
    let mut lines = String::new();
    for host in 0..50 {
        for point in 0..540 {
            writeln!(lines, "cpu,host=h{host} usage={point} {}", START + point * 20).unwrap();
        }
    }
    server.w("s", &lines);
    server.clock("2024-01-01T04:00:00Z");
    server.tick();
    server
}

/// One more second, so that everything is due, and everything done.
fn refresh(server: &TestServer, second: u32) {
    server.clock(&format!("2024-01-01T04:00:{second:02}Z"));
    server.tick();
}

fn check_all(server: &TestServer) {
    for name in ["cpu_1m", "cpu_1h"] {
        let rows =
            same_stored_and_exact(server, &format!("SELECT * FROM {name} ORDER BY host,time"));
        let width = name.trim_start_matches("cpu_");
        let direct = server.csv(&format!(
            "SELECT time_bucket('{width}', time) AS time, host, count(usage) AS usage_count, \
             sum(usage) AS usage_sum, max(usage) AS usage_max, last(usage) AS usage_last \
             FROM cpu WHERE usage >= 0 GROUP BY 1, 2 ORDER BY 2, 1"
        ));
        assert_eq!(rows, direct);
    }
}

#[test]
fn s000_15_one_late_point_costs_its_series_and_its_minute() {
    let server = with_hosts();
    check_all(&server);
    // A new point, and one that is overwritten.
    server.w("s", &format!("cpu,host=h7 usage=1000 {}", START + 65));
    server
        .w("s", &format!("cpu,host=h9 usage=-7 {}\ncpu,host=h9 usage=9 {}", START + 7_265, START));
    refresh(&server, 1);
    // A minute of h7 with four points, and one of h9 with four, another with three.
    assert_eq!(scanned(&server, "cpu_1m"), 11);
    // An hour of h7, two of h9.
    assert_eq!(scanned(&server, "cpu_1h"), 3 * 60);
    check_all(&server);
    let revisions = aggregate(&server, "cpu_1m")["revisions"].as_u64().unwrap();
    assert_eq!(revisions, 2, "a point that the filter leaves out changes nothing");
    // Whoever names a range gets all of it computed, changed or not.
    let window = json!({ "from": "2024-01-01T01:00:00Z", "to": "2024-01-01T02:00:00Z" });
    let report = server.json("POST", "/api/v1/aggregates/cpu_1m/refresh", &window).expect(200);
    assert_eq!(report.json()["buckets"], 60);
    assert_eq!(report.json()["rows"], 60 * 50);
}

#[test]
fn s000_15_groups_that_vanish_are_not_left_behind() {
    let server = with_hosts();
    // The only points of a minute are not wanted any more.
    let gone: String =
        (0..3).map(|i| format!("cpu,host=h3 usage=-1 {}\n", START + 60 + i * 20)).collect();
    server.w("s", &gone);
    refresh(&server, 1);
    check_all(&server);
    assert_eq!(server.q("SELECT count(*) FROM cpu_1m WHERE host='h3'"), "179");
    server
        .query("DELETE FROM cpu WHERE host='h4' AND time < '2024-01-01T00:02:00Z'", json!({}))
        .expect(200);
    refresh(&server, 2);
    check_all(&server);
    // A delete, then a flush and a merge that forget it, then a refresh.
    server
        .query("DELETE FROM cpu WHERE host='h5' AND time < '2024-01-01T00:02:00Z'", json!({}))
        .expect(200);
    server.w("s", &format!("cpu,host=h6 usage=5 {}", START + 61));
    server.post("/api/v1/flush").expect(204);
    server.post("/api/v1/compact").expect(204);
    refresh(&server, 3);
    check_all(&server);
    assert_eq!(server.q("SELECT count(*) FROM cpu_1m WHERE host='h5'"), "178");
}

#[test]
fn s000_15_restarts_and_merges_do_not_hide_changes() {
    let mut server = with_hosts();
    server.w("s", &format!("cpu,host=h1 usage=77 {}", START + 61));
    server.restart();
    refresh(&server, 1);
    check_all(&server);
    server.w("s", &format!("cpu,host=h2 usage=78 {}", START + 3_661));
    server.post("/api/v1/flush").expect(204);
    server.post("/api/v1/compact").expect(204);
    refresh(&server, 2);
    check_all(&server);
    server.w("s", &format!("cpu,host=new usage=79 {}", START + 61));
    refresh(&server, 3);
    check_all(&server);
}

#[test]
fn s000_15_a_late_point_that_has_expired_since_is_not_forgotten() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - name: cpu_1m
        source: cpu
        interval: 1m
        group_by: [host]
        aggregations: [{field: usage, function: count}]
        refresh: {strategy: periodic, every: 1s}
      - {name: cpu_1h, source: cpu_1m, interval: 1h, refresh: {strategy: on_demand}}
    retention: [{measurement: cpu, keep: 1d}]
",
    );
    server.clock("2024-01-01T23:00:00Z");
    let evening = START + 20 * 3_600;
    let mut lines = String::new();
    for (host, minute) in (0..8).flat_map(|host| (0..60).map(move |minute| (host, minute))) {
        writeln!(lines, "cpu,host=h{host} usage=1 {}", evening + minute * 60).unwrap();
    }
    server.w("s", &lines);
    server.drain();
    server.post("/api/v1/aggregates/cpu_1h/refresh").expect(200);
    server.post("/api/v1/flush").expect(204);
    server.w("s", &format!("cpu,host=h1 usage=1 {}", evening + 1));
    server.drain();
    server.clock("2024-01-05T00:00:00Z");
    server.drain();
    assert_eq!(server.q("SELECT count(*) FROM cpu"), "0");
    server.post("/api/v1/aggregates/cpu_1h/refresh").expect(200);
    for name in ["cpu_1m", "cpu_1h"] {
        let sql = format!("SELECT sum(usage_count) AS points FROM {name}");
        assert_eq!(same_stored_and_exact(&server, &sql), "points\n481\n", "{name}");
    }
}
