//! Continuous aggregates through the real binary: functions, late points, hierarchies, retention.

use highwater_tests::{Reply, TestServer};
use serde_json::json;

use crate::{aggregate, with_rules};

/// Two hosts, two hours.
const D2: &str = "\
cpu,host=a usage=10,temp=50i 1704067200
cpu,host=a usage=20,temp=70i 1704067260
cpu,host=a usage=60,temp=60i 1704069000
cpu,host=a usage=40 1704070800
cpu,host=b usage=5 1704067200
";

const CPU_1H: &str = "
databases:
  t:
    aggregates:
      - name: cpu_1h
        source: cpu
        interval: 1h
        group_by: [host]
        aggregations: [{field: usage, function: [count, first, last, max, mean, min, sum]}]
        refresh: {strategy: periodic, every: 10s}
";

const CPU_1H_BY_HOST: &str = "SELECT * FROM cpu_1h ORDER BY host,time";

fn hourly() -> TestServer {
    let server = with_rules(CPU_1H);
    server.w("s", D2);
    server
}

fn materialized_at_two() -> TestServer {
    let server = hourly();
    server.clock("2024-01-01T02:00:00Z");
    server.tick();
    server
}

fn materialized_csv(server: &TestServer, sql: &str) -> String {
    server.query(sql, json!({ "freshness": "materialized" })).expect(200).body
}

#[test]
fn s002_01_count_sum_mean_min_max_first_last() {
    let server = materialized_at_two();
    let expected = [
        "time,host,usage_count,usage_first,usage_last,usage_max,usage_mean,usage_min,usage_sum",
        "2024-01-01T00:00:00Z,a,3,10.0,60.0,60.0,30.0,10.0,90.0",
        "2024-01-01T01:00:00Z,a,1,40.0,40.0,40.0,40.0,40.0,40.0",
        "2024-01-01T00:00:00Z,b,1,5.0,5.0,5.0,5.0,5.0,5.0",
        "",
    ];
    assert_eq!(server.csv(CPU_1H_BY_HOST), expected.join("\n"));
    assert_eq!(materialized_csv(&server, CPU_1H_BY_HOST), expected.join("\n"));
}

#[test]
fn s002_01_ties_go_to_the_greater_value() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: tie_1h, source: tie, interval: 1h, aggregations: [{field: v, function: [first, last]}]}
",
    );
    server.w("s", "tie,host=a v=1 1704067200\ntie,host=b v=2 1704067200\n");
    assert_eq!(server.q("SELECT v_first,v_last FROM tie_1h"), "2.0,2.0");
    assert_eq!(server.q("SELECT first(v),last(v) FROM tie"), "2.0,2.0");
}

#[test]
fn s002_02_stddev_variance_percentile() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: spread_1h, source: spread, interval: 1h, aggregations: [{field: v, function: [stddev, variance, stddev_pop, variance_pop]}]}
      - {name: spread_1d, source: spread_1h, interval: 1d}
      - {name: many_1h, source: many, interval: 1h, aggregations: [{field: v, function: [p95, distinct]}]}
      - {name: many_1d, source: many_1h, interval: 1d}
",
    );
    let values = [2, 4, 4, 4, 5, 5, 7, 9];
    let lines =
        values.iter().zip(0..).map(|(v, i)| format!("spread v={v} {}\n", 1704067200 + i * 1000));
    server.w("s", &lines.collect::<String>());
    let lines = (1..=100_000).map(|v| format!("many v={v} {}\n", 1704067200 + v / 2));
    for part in lines.collect::<Vec<String>>().chunks(25_000) {
        server.w("s", &part.concat());
    }
    server.w("s", "three v=5,w=1 1\nthree v=10,w=1 2\nthree v=20,w=2 3\n");
    let expected = "2.138089935299395,4.571428571428571,2.0,4.0";
    let of_points = "SELECT stddev(v), variance(v), stddev_pop(v), variance_pop(v) FROM spread";
    let of_days = "SELECT v_stddev, v_variance, v_stddev_pop, v_variance_pop FROM spread_1d";
    assert_eq!(server.q(of_points), expected);
    assert_eq!(server.q(of_days), expected);
    server.clock("2024-01-03T00:00:00Z");
    server.tick();
    assert_eq!(materialized_csv(&server, of_days).lines().nth(1), Some(expected));
    let of_points = server.q("SELECT approx_percentile(v, 0.95), \"distinct\"(v) FROM many");
    assert_eq!(server.q("SELECT v_p95, v_distinct FROM many_1d"), of_points);
    let p95: f64 = of_points.split(',').next().unwrap().parse().unwrap();
    assert!((94_050.0..=95_950.0).contains(&p95), "{p95}");
    assert_eq!(
        server.q("SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY v) FROM three"),
        "19.0"
    );
}

#[test]
fn buckets_follow_the_clocks_of_a_zone() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: load_1m, source: load, interval: 1m, aggregations: [{field: v, function: sum}]}
      - {name: load_1d, source: load_1m, interval: 1d, timezone: Europe/Berlin}
      - {name: load_1mo, source: load_1d, interval: 1mo, timezone: Europe/Berlin}
",
    );
    // Clocks go forward in the night to the 31st: that day has 23 hours.
    let hours = (0..72).map(|hour| format!("load v=1 {}\n", 1711670400 + hour * 3600));
    server.w("s", &hours.collect::<String>());
    let days = "SELECT time, v_sum FROM load_1d ORDER BY time";
    let expected = "2024-03-28T23:00:00Z,23.0 / 2024-03-29T23:00:00Z,24.0 / 2024-03-30T23:00:00Z,23.0 / 2024-03-31T22:00:00Z,2.0";
    let direct = "SELECT time_bucket('1d', time, 'Europe/Berlin') AS t, sum(v) FROM load GROUP BY t ORDER BY t";
    assert_eq!(server.q(days), expected);
    assert_eq!(server.q(direct), expected);
    server.clock("2024-05-01T00:00:00Z");
    server.tick();
    assert_eq!(server.q(days), expected);
    server.w("s", "load v=10 1711839600\n");
    assert_eq!(server.q("SELECT v_sum FROM load_1d WHERE time = '2024-03-30T23:00:00Z'"), "32.0");
    let months = "SELECT time, v_sum FROM load_1mo ORDER BY time";
    assert_eq!(server.q(months), "2024-02-29T23:00:00Z,79.0 / 2024-03-31T22:00:00Z,2.0");
}

#[test]
fn s002_01_an_integer_sum_that_overflows_is_an_error_of_its_bucket() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: big_1h, source: big, interval: 1h, group_by: [host], aggregations: [{field: v, function: sum}]}
",
    );
    server.w("s", "big,host=a v=9223372036854775807i 1704067200\nbig,host=a v=1i 1704067201\n");
    server.w("s", "big,host=a v=7i 1704070800\n");
    server.clock("2024-01-01T03:00:00Z");
    server.tick();
    let Reply { status, body, .. } = server.query("SELECT v_sum FROM big_1h", json!({}));
    assert_eq!(status, 500, "{body}");
    assert!(body.contains("\"computation\""), "{body}");
    assert!(body.contains("2024-01-01T00:00:00Z") && body.contains('a'), "{body}");
    let one_oclock = "SELECT v_sum FROM big_1h WHERE time = '2024-01-01T01:00:00Z'";
    assert_eq!(server.q(one_oclock), "7");
    let Reply { status, body, .. } = server.query("SELECT sum(v) FROM big", json!({}));
    assert_eq!(status, 500, "{body}");
    server.w("s", "big,host=a v=-5i 1704067202\n");
    let midnight = "SELECT v_sum FROM big_1h WHERE time = '2024-01-01T00:00:00Z'";
    assert_eq!(server.q(midnight), "9223372036854775803");
    assert_eq!(
        server.q("SELECT sum(v) FROM big WHERE time < '2024-01-01T01:00:00Z'"),
        "9223372036854775803"
    );
}

#[test]
fn s002_13_closing_buckets() {
    let server = hourly();
    server.clock("2024-01-01T01:30:00Z");
    server.tick();
    let count = "SELECT count(*) FROM cpu_1h";
    assert_eq!(server.q(count), "3");
    assert_eq!(
        server.qm("SELECT time,host FROM cpu_1h ORDER BY host"),
        "2024-01-01T00:00:00Z,a / 2024-01-01T00:00:00Z,b"
    );
    assert_eq!(aggregate(&server, "cpu_1h")["last_processed"], "2024-01-01T01:00:00Z");
    server.w("s", "cpu,host=z usage=1 9183110400\n");
    server.clock("2024-01-01T01:31:00Z");
    server.tick();
    assert_eq!(server.q(count), "4");
    assert_eq!(server.qm(count), "2");
    assert_eq!(aggregate(&server, "cpu_1h")["last_processed"], "2024-01-01T01:00:00Z");
}

#[test]
fn s002_14_late_and_corrected_data() {
    let server = materialized_at_two();
    let before = aggregate(&server, "cpu_1h")["buckets_recomputed"].as_u64().unwrap();
    server.w("s", "cpu,host=a usage=110 1704069900\n");
    server.w("s", "cpu,host=a usage=30 1704067260\n");
    let expected = "2024-01-01T00:00:00Z,a,4,10.0,110.0,110.0,52.5,10.0,210.0 / \
                    2024-01-01T01:00:00Z,a,1,40.0,40.0,40.0,40.0,40.0,40.0 / \
                    2024-01-01T00:00:00Z,b,1,5.0,5.0,5.0,5.0,5.0,5.0";
    assert_eq!(server.q(CPU_1H_BY_HOST), expected);
    server.clock("2024-01-01T02:00:10Z");
    server.tick();
    assert_eq!(server.qm(CPU_1H_BY_HOST), expected);
    let after = aggregate(&server, "cpu_1h")["buckets_recomputed"].as_u64().unwrap();
    assert_eq!(after - before, 1);
}

#[test]
fn s002_15_empty_buckets() {
    let server = materialized_at_two();
    let sql = "SELECT time_bucket_gapfill('1h', time) AS hour, count(usage) AS n, mean(usage) AS m \
               FROM cpu WHERE host='a' AND time >= '2024-01-01T00:00:00Z' \
               AND time < '2024-01-01T03:00:00Z' GROUP BY 1 ORDER BY 1";
    assert_eq!(
        server.q(sql),
        "2024-01-01T00:00:00Z,3,30.0 / 2024-01-01T01:00:00Z,1,40.0 / 2024-01-01T02:00:00Z,,"
    );
    assert_eq!(server.q("SELECT count(*) FROM cpu_1h WHERE time >= '2024-01-01T02:00:00Z'"), "0");
}

#[test]
fn s002_16_downsampling_rule() {
    let server = with_rules(
        "
databases:
  t:
    downsampling:
      - {source: cpu, target: cpu_5m, interval: 5m, fields: [{field: usage, function: mean}]}
      - {source: cpu, target: cpu_all, interval: 1h, fields: [{field: '*', function: max}]}
",
    );
    server.w("s", D2);
    assert_eq!(
        server.q("SELECT * FROM cpu_5m ORDER BY host,time LIMIT 2"),
        "2024-01-01T00:00:00Z,a,15.0 / 2024-01-01T00:30:00Z,a,60.0"
    );
    server.clock("2024-01-01T04:00:00Z");
    server.tick();
    server.w("s", "cpu,host=a load=7 1704070801\n");
    let all = "SELECT time,host,usage,temp,load FROM cpu_all ORDER BY host,time LIMIT 2";
    assert_eq!(server.q(all), "2024-01-01T00:00:00Z,a,60.0,70, / 2024-01-01T01:00:00Z,a,40.0,,7.0");
}

#[test]
fn s002_25_hierarchies() {
    let server =
        with_rules(&format!("{CPU_1H}      - {{name: cpu_1d, source: cpu_1h, interval: 1d}}\n"));
    server.w("s", D2);
    server.clock("2024-01-01T02:00:00Z");
    server.tick();
    server.w("s", "cpu,host=a usage=110 1704069900\ncpu,host=a usage=30 1704067260\n");
    let expected = "2024-01-01T00:00:00Z,a,50.0,250.0 / 2024-01-01T00:00:00Z,b,5.0,5.0";
    let sql = "SELECT time,host,usage_mean,usage_sum FROM cpu_1d ORDER BY host";
    assert_eq!(server.q(sql), expected);
    server.clock("2024-01-02T01:00:00Z");
    server.drain();
    assert_eq!(server.q(sql), expected);
    assert_eq!(server.qm(sql), expected);
}

#[test]
fn s002_25_sums_are_exact_through_all_levels() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: m_1m, source: m, interval: 1m, aggregations: [{field: v, function: sum}]}
      - {name: m_1h, source: m_1m, interval: 1h}
      - {name: m_1d, source: m_1h, interval: 1d}
",
    );
    server.w("s", "m v=1e16 1704067200\nm v=1 1704067260\nm v=-1e16 1704067320\n");
    for table in ["m_1h", "m_1d"] {
        assert_eq!(server.q(&format!("SELECT v_sum FROM {table}")), "1.0");
    }
    assert_eq!(server.q("SELECT sum(v) FROM m"), "1.0");
    server.clock("2024-01-03T00:00:00Z");
    server.drain();
    for table in ["m_1h", "m_1d"] {
        assert_eq!(server.qm(&format!("SELECT v_sum FROM {table}")), "1.0");
    }
}

#[test]
fn s002_26_a_retention_by_measurement() {
    let server = with_rules(&format!(
        "{CPU_1H}        retention: 30d
    retention: [{{measurement: cpu, keep: 1d}}, {{measurement: 'tmp_*', keep: 1d}}]
"
    ));
    server.clock("2024-01-01T02:00:00Z");
    server.w("s", D2);
    server.w("s", "mem used=1 1704067200\ntmp_a v=1 1704067200\ntmpx v=1 1704067200\n");
    server.clock("2024-01-05T00:00:00Z");
    assert_eq!(server.q("SELECT count(*) AS n FROM cpu"), "0");
    server.tick();
    server.tick();
    assert_eq!(server.q("SELECT count(*) FROM cpu_1h"), "3");
    assert_eq!(server.qm("SELECT count(*) FROM cpu_1h"), "3");
    assert_eq!(server.q("SELECT count(*) FROM mem"), "1");
    assert_eq!(server.q("SELECT count(*) FROM tmp_a"), "0");
    assert_eq!(server.q("SELECT count(*) FROM tmpx"), "1");
    let before = server.q(CPU_1H_BY_HOST);
    let Reply { status, body, .. } = server.write("s", "cpu,host=a usage=1 1704067200\n");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("retention"), "{body}");
    assert_eq!(server.q(CPU_1H_BY_HOST), before);
}

#[test]
fn s002_26_b_a_month_over_seven_days_of_raw() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: m_month, source: m, interval: 1mo, aggregations: [{field: v, function: [sum, count]}]}
    retention: [{measurement: m, keep: 7d}]
",
    );
    server.clock("2024-01-01T13:00:00Z");
    for day in 1..=10u64 {
        server.clock(&format!("2024-01-{day:02}T13:00:00Z"));
        let noon = 1_704_110_400 + (day - 1) * 86_400;
        server.w("s", &format!("m v={day}.0 {noon}\n"));
    }
    server.tick();
    assert_eq!(server.q("SELECT count(*),sum(v) FROM m"), "7,49.0");
    let month = "SELECT time,v_count,v_sum FROM m_month";
    assert_eq!(server.q(month), "2024-01-01T00:00:00Z,10,55.0");
    server.w("s", "m v=100 1704803400\n");
    assert_eq!(server.q("SELECT v_sum FROM m_month"), "155.0");
    server.w("s", "m v=20 1704888000\n");
    assert_eq!(server.q("SELECT v_sum FROM m_month"), "165.0");
    server.q("DELETE FROM m WHERE time = '2024-01-05T12:00:00Z'");
    assert_eq!(server.q("SELECT v_sum FROM m_month"), "160.0");
    let Reply { status, body, .. } = server.write("s", "m v=1 1704198600\n");
    assert!(status == 400 && body.contains("retention"), "{status} {body}");
    let Reply { status, body, .. } =
        server.query("DELETE FROM m WHERE time < '2024-01-02T00:00:00Z'", json!({}));
    assert!((400..500).contains(&status) && body.contains("m_month"), "{status} {body}");
    assert_eq!(server.q("SELECT v_sum FROM m_month"), "160.0");
}

#[test]
fn card_08_sql_over_downsampled_measurements() {
    let server = materialized_at_two();
    assert_eq!(
        server.q("SELECT time,usage_mean FROM cpu_1h WHERE host='a' ORDER BY time"),
        "2024-01-01T00:00:00Z,30.0 / 2024-01-01T01:00:00Z,40.0"
    );
}

#[test]
fn card_05_s002_22_definitions_and_progress_survive_restarts() {
    let mut server = with_rules("databases: {t: {}}");
    server.w("s", D2);
    let rule = json!({
        "name": "cpu_1h", "source": "cpu", "interval": "1h", "group_by": ["host"],
        "aggregations": [{ "field": "usage", "function": ["count", "sum"] }],
        "refresh": { "strategy": "periodic", "every": "10s" },
    });
    server.json("POST", "/api/v1/aggregates", &rule).expect(201);
    let idle = json!({ "name": "idle", "source": "cpu", "interval": "1d",
        "aggregations": [{ "function": "count" }] });
    server.json("POST", "/api/v1/aggregates", &idle).expect(201);
    server.post("/api/v1/aggregates/idle/disable").expect(200);
    server.clock("2024-01-01T02:00:00Z");
    server.drain();
    server.w("s", "cpu,host=a usage=30 1704067260");
    let keys = ["name", "status", "definition", "last_processed", "applied_seq", "stale_buckets"];
    let state = |server: &TestServer| {
        let of = |name| {
            let status = aggregate(server, name);
            keys.map(|key| status[key].clone())
        };
        (["cpu_1h", "idle"].map(of), server.q("SELECT * FROM cpu_1h ORDER BY host,time"))
    };
    let before = state(&server);
    assert_eq!(before.0[0][3], "2024-01-01T02:00:00Z");
    assert_eq!(before.0[0][5], 1, "the late point is remembered");
    assert_eq!(before.0[1][1], "disabled");
    server.restart();
    assert_eq!(state(&server), before);
    server.kill9();
    assert_eq!(state(&server), before);
    server.clock("2024-01-01T02:00:10Z");
    server.drain();
    assert_eq!(server.qm("SELECT * FROM cpu_1h ORDER BY host,time"), before.1);
    assert_eq!(aggregate(&server, "cpu_1h")["stale_buckets"], 0);
}

#[test]
fn a_month_whose_days_have_gaps_is_stored_as_a_whole() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: m_month, source: m, interval: 1mo, aggregations: [{field: v, function: sum}], refresh: {every: 10s}}
",
    );
    server.w("s", "m v=1 1705276800\nm v=2 1706486400\n");
    server.clock("2024-02-01T00:00:00Z");
    server.drain();
    let sum = "SELECT time,v_sum FROM m_month";
    assert_eq!(server.qm(sum), "2024-01-01T00:00:00Z,3.0");
    server.w("s", "m v=4 1704110400\n");
    assert_eq!(server.q(sum), "2024-01-01T00:00:00Z,7.0");
    assert_eq!(server.qm(sum), "2024-01-01T00:00:00Z,3.0");
    server.clock("2024-02-01T00:00:10Z");
    server.drain();
    assert_eq!(server.qm(sum), "2024-01-01T00:00:00Z,7.0");
}

#[test]
fn card_09_changed_rule_files() {
    let two = format!(
        "{CPU_1H}      - {{name: cpu_1d, source: cpu, interval: 1d, aggregations: [{{function: count}}]}}\n"
    );
    let mut server = with_rules(&two);
    server.w("s", D2);
    server.clock("2024-01-03T00:00:00Z");
    server.drain();
    let one_hour = "SELECT time,usage_max FROM cpu_1h WHERE host='a' ORDER BY time";
    assert_eq!(server.qm(one_hour), "2024-01-01T00:00:00Z,60.0 / 2024-01-01T01:00:00Z,40.0");
    let changed = CPU_1H.replace("interval: 1h", "interval: 30m");
    let added = "      - {name: cpu_all, source: cpu, aggregations: [{function: count}]}\n";
    std::fs::write(server.rules_folder().join("rules.yml"), format!("{changed}{added}")).unwrap();
    server.restart();
    assert!(server.stderr().contains("cpu_1d"), "a warning names what is detached");
    assert_eq!(aggregate(&server, "cpu_1d")["status"], "detached");
    assert_eq!(server.q("SELECT time,count FROM cpu_1d"), "2024-01-01T00:00:00Z,5");
    assert_eq!(server.q("SELECT * FROM cpu_all"), "5");
    let half_hours =
        "2024-01-01T00:00:00Z,20.0 / 2024-01-01T00:30:00Z,60.0 / 2024-01-01T01:00:00Z,40.0";
    assert_eq!(aggregate(&server, "cpu_1h")["status"], "building");
    let hours = "2024-01-01T00:00:00Z,60.0 / 2024-01-01T01:00:00Z,40.0";
    assert_eq!((server.q(one_hour).as_str(), server.qm(one_hour).as_str()), (hours, hours));
    server.clock("2024-01-03T00:00:00Z");
    server.drain();
    assert_eq!(
        (server.q(one_hour).as_str(), server.qm(one_hour).as_str()),
        (half_hours, half_hours)
    );
    assert_eq!(aggregate(&server, "cpu_1h")["status"], "active");
}

#[test]
fn s002_28_aggregates_are_grouped_by_time() {
    let server = with_rules(CPU_1H);
    let by_time = "SELECT time,count(*),max(usage_max) FROM cpu_1h GROUP BY time ORDER BY time";
    assert_eq!((server.q(by_time), server.qm(by_time)), (String::new(), String::new()));
    server.w("s", D2);
    let expected = "2024-01-01T00:00:00Z,2,60.0 / 2024-01-01T01:00:00Z,1,40.0";
    assert_eq!((server.q(by_time).as_str(), server.qm(by_time).as_str()), (expected, ""));
    server.clock("2024-01-01T02:00:00Z");
    server.drain();
    server.w("s", "cpu,host=a usage=1 1704070801\n");
    assert_eq!(server.qm(by_time), expected);
    assert_eq!(server.q(by_time), expected);
}
