//! Sets of aggregates over orders: keyed, bucketed, top-N, strategies.

use highwater_tests::{Reply, TestServer};
use serde_json::json;

use crate::{aggregate, launch, with_rules};

const D0: &str = "\
orders,id=o1 status=\"pending\",customer_id=\"c1\",total_amount=10.0 1704067200
orders,id=o2 status=\"shipped\",customer_id=\"c1\",total_amount=20.0 1704070800
orders,id=o3 status=\"shipped\",customer_id=\"c2\",total_amount=5.5 1704153600
orders,id=o4 status=\"pending\",customer_id=\"c3\",total_amount=7.0 1704157200
";

const O5: &str = "orders,id=o5 status=\"pending\",customer_id=\"c1\",total_amount=1.0 1704160800\n";

const PENDING: &str =
    "SELECT count,revenue FROM order_stats.total_by_status WHERE status='pending'";

fn rules(strategy: &str, limit: u32) -> String {
    format!(
        "
databases:
  t:
    aggregates:
      - set: order_stats
        source: orders
        refresh: {strategy}
        aggregates:
          - {{name: total_by_status, group_by: [status], aggregations: [{{field: id, function: count, as: count}}, {{field: total_amount, function: sum, as: revenue}}]}}
          - {{name: daily_totals, interval: 1d, aggregations: [{{function: count}}, {{field: total_amount, function: sum, as: revenue}}]}}
          - {{name: top_customers, group_by: [customer_id], aggregations: [{{function: count}}, {{field: total_amount, function: sum, as: total_spent}}], order_by: [{{column: total_spent, desc: true}}], limit: {limit}}}
"
    )
}

fn orders(strategy: &str, limit: u32) -> TestServer {
    let server = with_rules(&rules(strategy, limit));
    server.clock("2024-01-03T00:00:00Z");
    server.w("s", D0);
    server
}

#[test]
fn s000_01_aggregate_sets() {
    let server = orders("{strategy: periodic}", 100);
    assert_eq!(
        server.q("SELECT name FROM system.aggregates ORDER BY 1"),
        "order_stats.daily_totals / order_stats.top_customers / order_stats.total_by_status"
    );
}

#[test]
fn s000_01_a_broken_rule_file_stops_the_start() {
    let broken = rules("{strategy: periodic}", 1).replacen("aggregations", "agregations", 1);
    let error = launch().rules(&broken).try_start().unwrap_err().stderr;
    assert!(error.contains("agregations"), "{error}");
    assert!(error.contains(".yaml:") || error.contains(".yml:"), "file and line: {error}");
}

#[test]
fn s000_02_keyed_aggregate() {
    let server = orders("{strategy: periodic}", 100);
    let sql = "SELECT status,count,revenue FROM order_stats.total_by_status ORDER BY status";
    assert_eq!(server.q(sql), "pending,2,17.0 / shipped,2,25.5");
    server.clock("2024-01-03T00:00:01Z");
    server.drain();
    assert_eq!(server.qm(sql), "pending,2,17.0 / shipped,2,25.5");
}

#[test]
fn s000_03_buckets_on_a_chosen_time() {
    let server = orders("{strategy: periodic}", 100);
    assert_eq!(
        server.q("SELECT time,count,revenue FROM order_stats.daily_totals ORDER BY time"),
        "2024-01-01T00:00:00Z,2,30.0 / 2024-01-02T00:00:00Z,2,12.5"
    );
}

#[test]
fn s000_03_buckets_on_a_declared_time() {
    let server = with_rules(
        "
databases:
  t:
    measurements: [{name: sales, columns: {placed_at: timestamp}}]
    aggregates:
      - {name: placed, source: sales, interval: 1d, time_column: placed_at, aggregations: [{function: count}, {field: amount, function: sum, as: revenue}]}
",
    );
    let day1 = "1704067200i";
    let day2 = "1704153600i";
    server.w("s", &format!("sales,id=a placed_at={day1},amount=1.0 1704067200\nsales,id=b placed_at={day1},amount=2.0 1704067201\nsales,id=c amount=4.0 1704067202\n"));
    let sql = "SELECT time,count,revenue FROM placed ORDER BY time";
    assert_eq!(server.q(sql), "2024-01-01T00:00:00Z,2,3.0");
    server.clock("2024-01-03T00:00:00Z");
    server.drain();
    server.w("s", &format!("sales,id=b placed_at={day2} 1704067201\n"));
    assert_eq!(server.q(sql), "2024-01-01T00:00:00Z,1,1.0 / 2024-01-02T00:00:00Z,1,2.0");
}

#[test]
fn s000_04_top_n() {
    let server = orders("{strategy: periodic}", 2);
    assert_eq!(server.q("SELECT * FROM order_stats.top_customers"), "c1,2,30.0 / c3,1,7.0");
    server.w("s", "orders,id=o3 total_amount=50.0 1704153600\n");
    assert_eq!(server.q("SELECT * FROM order_stats.top_customers"), "c2,1,50.0 / c1,2,30.0");
}

#[test]
fn s000_05_updates_and_deletes_are_seen() {
    let server = orders("{strategy: periodic, every: 1s}", 100);
    server.drain();
    let sql = "SELECT status,count,revenue FROM order_stats.total_by_status ORDER BY status";
    server.w("s", "orders,id=o1 status=\"shipped\" 1704067200\n");
    assert_eq!(server.q(sql), "pending,1,7.0 / shipped,3,35.5");
    server.q("DELETE FROM orders WHERE id='o2'");
    assert_eq!(server.q(sql), "pending,1,7.0 / shipped,2,15.5");
    server.clock("2024-01-03T00:00:01Z");
    server.tick();
    assert_eq!(server.qm(sql), "pending,1,7.0 / shipped,2,15.5");
    let revisions = |server: &TestServer| {
        aggregate(server, "order_stats.total_by_status")["revisions"].as_u64().unwrap()
    };
    let before = revisions(&server);
    server.w("s", "orders,id=o1 note=\"x\" 1704067200\n");
    server.clock("2024-01-03T00:00:02Z");
    server.tick();
    assert_eq!(server.q(sql), "pending,1,7.0 / shipped,2,15.5");
    assert_eq!(revisions(&server), before);
}

#[test]
fn s000_07_strategy_periodic() {
    let server = orders("{strategy: periodic, every: 5m}", 100);
    server.clock("2024-01-03T12:00:00Z");
    server.tick();
    let count = |server: &TestServer| {
        aggregate(server, "order_stats.total_by_status")["refresh_count"].as_u64().unwrap()
    };
    let before = count(&server);
    server.w("s", O5);
    server.clock("2024-01-03T12:04:59Z");
    server.tick();
    assert_eq!(server.q(PENDING), "3,18.0");
    assert_eq!(server.qm(PENDING), "2,17.0");
    server.clock("2024-01-03T12:05:00Z");
    server.tick();
    assert_eq!(server.q(PENDING), "3,18.0");
    assert_eq!(server.qm(PENDING), "3,18.0");
    assert_eq!(count(&server), before + 1);
}

#[test]
fn s000_08_strategy_on_demand() {
    let server = orders("{strategy: on_demand}", 100);
    server.post("/api/v1/aggregates/order_stats.total_by_status/refresh").expect(200);
    server.w("s", O5);
    server.clock("2024-01-04T00:00:00Z");
    server.tick();
    assert_eq!(server.q(PENDING), "3,18.0");
    assert_eq!(server.qm(PENDING), "2,17.0");
    let refresh = "/api/v1/aggregates/order_stats.total_by_status/refresh";
    let body = server.post(refresh).expect(200).body;
    for key in ["buckets", "rows", "duration_ms"] {
        assert!(body.contains(key), "{body}");
    }
    assert_eq!(server.q(PENDING), "3,18.0");
    assert_eq!(server.qm(PENDING), "3,18.0");
}

#[test]
fn s000_11_storage_durable() {
    outlives_its_source(&rules("{strategy: realtime}", 100));
}

#[test]
fn s000_12_storage_hybrid() {
    let hybrid = rules("{strategy: realtime}\n        storage: hybrid", 100);
    let server = outlives_its_source(&hybrid);
    let rows = "highwater_aggregation_resident_rows{aggregate=\"order_stats.daily_totals\"}";
    assert_eq!(server.metric(rows), Some(2.0));
    let daily = "SELECT time,count,revenue FROM order_stats.daily_totals ORDER BY time";
    let before = (server.q(daily), server.qm(daily));
    for path in server
        .files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "parquet"))
    {
        let path = server.data_folder().join(path);
        let bytes = std::fs::read(&path).unwrap().len();
        std::fs::write(&path, vec![0; bytes]).unwrap();
    }
    assert_eq!((server.q(daily), server.qm(daily)), before, "no file is read");
    let storage = "SELECT DISTINCT storage FROM system.aggregates";
    assert_eq!(server.q(storage), "hybrid");
}

#[test]
fn s000_12_what_does_not_fit_is_read_from_disk() {
    let hybrid = rules("{strategy: realtime}\n        storage: hybrid", 100);
    let server =
        launch().rules(&hybrid).variable("HIGHWATER_AGGREGATION__RESIDENT_MB", "0").start();
    server.clock("2024-01-03T00:00:00Z");
    server.w("s", D0);
    server.drain();
    let daily = "SELECT count,revenue FROM order_stats.daily_totals ORDER BY time";
    assert_eq!(server.qm(daily), "2,30.0 / 2,12.5");
    let status = aggregate(&server, "order_stats.daily_totals");
    assert_eq!(status["resident"]["rows"], json!(0), "{status}");
    let reason = status["resident"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("aggregation.resident_mb"), "{status}");
}

/// The orders expire, the process is killed, and the aggregates answer as before.
fn outlives_its_source(rules: &str) -> TestServer {
    let retention = "    retention: [{measurement: orders, keep: 7d}]\n";
    let mut server = with_rules(&format!("{rules}{retention}"));
    server.clock("2024-01-03T00:00:00Z");
    server.w("s", D0);
    server.drain();
    let all = || {
        [
            "SELECT status,count,revenue FROM order_stats.total_by_status ORDER BY status",
            "SELECT time,count,revenue FROM order_stats.daily_totals ORDER BY time",
            "SELECT * FROM order_stats.top_customers",
        ]
    };
    let before = all().map(|sql| server.q(sql));
    server.clock("2024-02-01T00:00:00Z");
    server.drain();
    server.kill9();
    server.clock("2024-02-01T00:00:00Z");
    assert_eq!(server.q("SELECT count(*) AS n FROM orders"), "0");
    assert_eq!(all().map(|sql| server.q(sql)), before);
    assert_eq!(all().map(|sql| server.qm(sql)), before);
    server
}

#[test]
fn s000_13_refresh_all_some_or_one() {
    let server = orders("{strategy: on_demand}", 100);
    let Reply { status, body, .. } = server.json(
        "POST",
        "/api/v1/aggregates/refresh",
        &json!({"names":["order_stats.daily_totals","nobody"]}),
    );
    assert_eq!(status, 404, "{body}");
    assert!(body.contains("nobody"), "{body}");
    let daily = "SELECT count(*) FROM order_stats.daily_totals";
    assert_eq!(server.qm(daily), "0");
    let Reply { status, body, .. } = server.json(
        "POST",
        "/api/v1/aggregates/refresh",
        &json!({"names":["order_stats.daily_totals"]}),
    );
    assert_eq!(status, 200, "{body}");
    assert_eq!(server.qm(daily), "2");
    assert_eq!(server.qm("SELECT count(*) FROM order_stats.total_by_status"), "0");
}

#[test]
fn s000_14_aggregates_are_tables() {
    let server = orders("{strategy: periodic}", 100);
    let sql = "SELECT t.customer_id FROM order_stats.top_customers t \
               JOIN orders o ON o.customer_id=t.customer_id WHERE o.status='pending' ORDER BY 1";
    assert_eq!(server.q(sql), "c1 / c3");
}

#[test]
fn s000_19_schema_from_the_definition() {
    let server = with_rules(&rules("{strategy: periodic}", 100));
    let sql = "SELECT column_name FROM information_schema.columns \
               WHERE table_schema='order_stats' AND table_name='total_by_status' \
               ORDER BY ordinal_position";
    assert_eq!(server.q(sql), "status / count / revenue");
    assert_eq!(server.q("SELECT * FROM order_stats.total_by_status"), "");
}
