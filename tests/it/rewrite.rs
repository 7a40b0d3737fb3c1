//! Queries on points that aggregates answer, over HTTP.

use highwater_tests::TestServer;
use serde_json::json;

use crate::with_rules;

const RULES: &str = "
databases:
  t:
    retention: [{measurement: old, keep: 2d}]
    aggregates:
      - name: cpu_1m
        source: cpu
        interval: 1m
        group_by: [host]
        aggregations: [{function: count}, {field: usage, function: [mean, max]}, {field: state, function: distinct}]
        refresh: {every: 10s}
      - {name: cpu_1h, source: cpu_1m, interval: 1h, refresh: {every: 10s}}
      - {name: old_1d, source: old, interval: 1d, aggregations: [{function: count}, {field: v, function: sum}], refresh: {every: 10s}}
";

/// Two hosts, a point every ten minutes of four hours; one of them without `usage`.
fn four_hours() -> TestServer {
    let server = with_rules(RULES);
    let start = 1_704_067_200;
    let lines: Vec<String> = (0..24)
        .flat_map(|at| {
            let time = start + at * 600;
            [
                format!("cpu,host=a usage={at},state=\"{}\" {time}", at % 3),
                format!("cpu,host=a usage={at}.5 {}", time + 30),
                format!("cpu,host=idle other=1 {time}"),
            ]
        })
        .collect();
    server.w("s", &lines.join("\n"));
    server.clock("2024-01-01T06:00:00Z");
    server.drain();
    server
}

fn answer(server: &TestServer, sql: &str, rewrite: &str) -> String {
    server.query(sql, json!({ "rewrite": rewrite })).expect(200).body
}

#[track_caller]
fn same_answer(server: &TestServer, sql: &str) -> String {
    let on = answer(server, sql, "on");
    assert_eq!(on, answer(server, sql, "off"), "{sql}");
    on
}

#[track_caller]
fn is_answered_from(server: &TestServer, sql: &str, aggregate: &str) {
    let plan = server.query(&format!("EXPLAIN {sql}"), json!({})).expect(200).body;
    assert!(plan.contains(&format!("answered from {aggregate}")), "{sql}: {plan}");
}

#[test]
fn x_02_a_query_on_points_is_answered_from_the_coarsest_aggregate() {
    let server = four_hours();
    let hourly = "SELECT time_bucket('1h', time) AS t, host, avg(usage), max(usage), count(*) \
                  FROM cpu GROUP BY t, host ORDER BY t, host";
    is_answered_from(&server, hourly, "cpu_1h");
    let plan = answer(&server, &format!("EXPLAIN {hourly}"), "on");
    assert!(plan.contains("not from cpu_1m, cpu_1h has fewer"), "{plan}");
    let rows = same_answer(&server, hourly);
    assert!(rows.contains("2024-01-01T00:00:00Z,idle,,,6"), "a group without values stays: {rows}");
    let finer = "SELECT date_trunc('minute', time) AS t, max(usage) FROM cpu GROUP BY t ORDER BY t";
    is_answered_from(&server, finer, "cpu_1m");
    same_answer(&server, finer);
    let derived = "SELECT sum(usage) AS s, count(DISTINCT state) AS n FROM cpu";
    is_answered_from(&server, derived, "cpu_1h");
    assert_eq!(same_answer(&server, derived), "s,n\n564.0,3\n");
    let nothing = "SELECT count(*), avg(usage) FROM cpu WHERE host = 'none'";
    is_answered_from(&server, nothing, "cpu_1h");
    assert!(same_answer(&server, nothing).ends_with("\n0,\n"));
}

#[test]
fn x_02_ragged_edges_and_late_points_come_from_points() {
    let server = four_hours();
    let ragged = "SELECT host, count(*), avg(usage) FROM cpu WHERE time >= '2024-01-01T00:10:30Z' \
                  AND time < '2024-01-01T03:20:00.000000001Z' GROUP BY host ORDER BY host";
    is_answered_from(&server, ragged, "cpu_1h");
    assert_eq!(same_answer(&server, ragged).lines().nth(1), Some("a,38,10.75"));
    server.w("s", "cpu,host=a usage=1e9 1704071000\ncpu,host=b usage=7 1704078000");
    is_answered_from(&server, ragged, "cpu_1h");
    let late = same_answer(&server, ragged);
    assert!(late.contains("\nb,1,7.0\n") && late.contains("a,39,"), "{late}");
    server.csv("DELETE FROM cpu WHERE host = 'idle' AND time < '2024-01-01T02:00:00Z'");
    assert_ne!(same_answer(&server, ragged), late);
}

#[test]
fn dec_75_expired_points_stay_expired_whatever_aggregates_have() {
    let server = with_rules(RULES);
    for day in 0..2 {
        server.clock(&format!("2024-01-0{}T00:00:00Z", day + 2));
        let hour = |hour: i64| format!("old v=1 {}", 1_704_067_200 + day * 86_400 + hour * 3600);
        server.w("s", &(0..24).map(hour).collect::<Vec<_>>().join("\n"));
        server.drain();
    }
    let by_day =
        "SELECT time_bucket('1d', time) AS t, count(*) AS n FROM old GROUP BY t ORDER BY t";
    is_answered_from(&server, by_day, "old_1d");
    let all = "t,n\n2024-01-01T00:00:00Z,24\n2024-01-02T00:00:00Z,24\n";
    assert_eq!(same_answer(&server, by_day), all);
    server.clock("2024-01-03T18:30:00Z");
    server.drain();
    assert_eq!(server.q("SELECT sum(count) FROM old_1d"), "48");
    is_answered_from(&server, by_day, "old_1d");
    let live = "t,n\n2024-01-01T00:00:00Z,5\n2024-01-02T00:00:00Z,24\n";
    assert_eq!(same_answer(&server, by_day), live);
    assert_eq!(
        same_answer(&server, "SELECT count(*) AS n, sum(v) FROM old"),
        "n,sum(old.v)\n29,29.0\n"
    );
}

#[test]
fn require_is_an_error_with_reasons_and_off_reads_the_points() {
    let server = four_hours();
    let refused = server.query("SELECT min(usage) FROM cpu", json!({ "rewrite": "require" }));
    let error = refused.expect(400).error();
    assert!(error.contains("not from cpu_1h, it keeps nothing that gives min(usage)"), "{error}");
    server.query("SELECT max(usage) FROM cpu", json!({ "rewrite": "require" })).expect(200);
    let off = json!({ "rewrite": "off" });
    let plan = server.query("EXPLAIN SELECT max(usage) FROM cpu", off).expect(200).body;
    assert!(!plan.contains("cpu_1h") && !plan.contains("\nrewrite"), "{plan}");
}
