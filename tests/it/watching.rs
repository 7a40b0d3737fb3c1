//! Looking into aggregates: what a bucket is made of, whether what is stored is right, and what
//! happens when it is not.

use highwater_tests::{Reply, TestServer};
use serde_json::{Value, json};

use crate::{aggregate, launch, server};

const RULES: &str = "
databases:
  t:
    aggregates:
      - {name: cpu_1h, source: cpu, interval: 1h, group_by: [host], aggregations: [{field: usage, function: [count, mean, sum]}]}
      - {name: cpu_1d, source: cpu_1h, interval: 1d}
      - {name: cpu_all, source: cpu, group_by: [host], aggregations: [{field: usage, function: [count, max]}]}
";

/// Hours 0, 1 and 2 of 2024-01-01, the first with two hosts.
const POINTS: &str = "\
cpu,host=a usage=10 1704067200
cpu,host=a usage=20 1704067260
cpu,host=b usage=5 1704067200
cpu,host=a usage=40 1704070800
cpu,host=a usage=7 1704074400
";

const BY_HOUR: &str = "SELECT time,host,usage_count,usage_sum FROM cpu_1h ORDER BY host,time";
const RIGHT_BY_HOUR: &str = "2024-01-01T00:00:00Z,a,2,30.0 / 2024-01-01T01:00:00Z,a,1,40.0 / \
                             2024-01-01T02:00:00Z,a,1,7.0 / 2024-01-01T00:00:00Z,b,1,5.0";
const BY_DAY: &str = "SELECT host,usage_count,usage_sum FROM cpu_1d ORDER BY host";

/// A server that can be damaged, with everything materialized.
fn materialized() -> TestServer {
    let server = launch().rules(RULES).switch("--fault-injection").start();
    server.clock("2024-01-02T00:00:00Z");
    server.w("s", POINTS);
    server.drain();
    server
}

fn corrupt(server: &TestServer, place: &str) -> Reply {
    server.json("POST", "/debug/fault", &json!({ "switch": "corrupt_bucket", "value": place }))
}

#[track_caller]
fn verify(server: &TestServer, name: &str, body: Value) -> Value {
    server.json("POST", &format!("/api/v1/aggregates/{name}/verify"), &body).expect(200).json()
}

/// Buckets checked, rows that differed, buckets repaired.
fn numbers(report: &Value) -> (u64, u64, u64) {
    let number = |key: &str| report[key].as_u64().unwrap();
    (number("buckets_checked"), number("mismatches"), number("buckets_repaired"))
}

#[test]
fn s004_10_a_damaged_partial_is_found_reported_and_repaired() {
    let server = materialized();
    assert_eq!(numbers(&verify(&server, "cpu_1h", json!({}))), (3, 0, 0));
    corrupt(&server, "cpu_1h@2024-01-01T00:00:00Z").expect(200);
    assert_ne!(server.q(BY_HOUR), RIGHT_BY_HOUR, "the damage shows");

    let only_looked = verify(&server, "cpu_1h", json!({ "repair": false }));
    assert_eq!(numbers(&only_looked), (3, 1, 0));
    assert_ne!(server.q(BY_HOUR), RIGHT_BY_HOUR, "looking repairs nothing");

    let report = verify(&server, "cpu_1h", json!({}));
    assert_eq!(numbers(&report), (3, 1, 1));
    let detail = &report["details"][0];
    assert_eq!(detail["bucket"], "2024-01-01T00:00:00Z");
    assert_eq!(detail["group"], json!({ "host": "a" }));
    assert_eq!(detail["output"], "usage_count");
    assert_eq!((&detail["stored"], &detail["expected"]), (&json!("3"), &json!("2")));
    assert_eq!(report["details"].as_array().unwrap().len(), 1);

    assert_eq!(server.q(BY_HOUR), RIGHT_BY_HOUR);
    assert_eq!(server.qm(BY_HOUR), RIGHT_BY_HOUR);
    assert_eq!(numbers(&verify(&server, "cpu_1h", json!({}))), (3, 0, 0));
    let metric = |name: &str| server.metric(&format!("{name}{{aggregate=\"cpu_1h\"}}"));
    assert_eq!(metric("highwater_aggregation_audit_mismatches_total"), Some(2.0));
    assert_eq!(metric("highwater_aggregation_audited_buckets_total"), Some(12.0));
}

#[test]
fn s004_10_damage_is_traced_through_a_hierarchy() {
    let server = materialized();
    assert_eq!(server.q(BY_DAY), "a,4,77.0 / b,1,5.0");
    // A late point lets the day be made again from a damaged hour, so it is wrong too, and nothing
    // is stale.
    corrupt(&server, "cpu_1h@2024-01-01T00:00:00Z").expect(200);
    server.w("s", "cpu,host=a usage=0 1704074460\n");
    server.clock("2024-01-02T00:10:00Z");
    server.drain();
    assert_eq!(server.q(BY_DAY), "a,6,77.0 / b,1,5.0");
    let right = "a,5,77.0 / b,1,5.0";

    let report = verify(&server, "cpu_1h", json!({}));
    assert_eq!(numbers(&report), (3, 1, 1));
    assert_eq!(report["dependants"][0]["name"], "cpu_1d");
    assert_eq!(numbers(&report["dependants"][0]), (1, 1, 1));
    assert_eq!(server.q(BY_DAY), right);

    // And the other way round: a right day is not made wrong by a damaged hour.
    corrupt(&server, "cpu_1h@2024-01-01T01:00:00Z").expect(200);
    assert_eq!(numbers(&verify(&server, "cpu_1d", json!({}))), (1, 0, 0));
    assert_eq!(server.q(BY_DAY), right);
}

#[test]
fn s004_10_verify_in_sql() {
    let server = materialized();
    corrupt(&server, "cpu_all@2024-01-01T00:00:00Z").expect(200);
    let answer = server.csv("VERIFY AGGREGATE cpu_all");
    let mut lines = answer.lines();
    let header =
        "name,buckets_checked,buckets_sealed,buckets_stale,mismatches,buckets_repaired,details";
    assert_eq!(lines.next(), Some(header));
    let row = lines.next().unwrap();
    assert!(row.starts_with("cpu_all,1,0,0,1,1,"), "{row}");
    let range = "FROM '2024-01-01' TO '2024-01-01T00:30:00Z'";
    assert_eq!(server.q(&format!("VERIFY AGGREGATE cpu_1h {range}")), "cpu_1h,1,0,0,0,0,[]");
    assert_eq!(server.q("VERIFY AGGREGATE cpu_all;"), "cpu_all,1,0,0,0,0,[]");

    let refused = |sql: &str, status: u16| server.query(sql, json!({})).expect(status).error();
    assert!(refused("VERIFY AGGREGATE nothing", 404).contains("nothing"));
    assert!(refused("VERIFY AGGREGATE cpu_1h FROM 'x' TO 'y'", 400).contains('x'));
    let backwards = "VERIFY AGGREGATE cpu_1h FROM '2024-01-02' TO '2024-01-01'";
    assert!(refused(backwards, 400).contains("before"));
}

#[test]
fn s004_10_what_is_stale_or_sealed_is_left_out_and_said() {
    let server = materialized();
    server.w("s", "cpu,host=a usage=1 1704070801\n");
    let report = verify(&server, "cpu_1h", json!({}));
    assert_eq!((numbers(&report), report["buckets_stale"].as_u64()), ((2, 0, 0), Some(1)));

    std::fs::write(
        server.rules_folder().join("more.yml"),
        "databases: {t: {retention: [{measurement: cpu, keep: 1d}]}}",
    )
    .unwrap();
    server.post("/api/v1/rules/reload").expect(200);
    server.clock("2024-01-04T00:00:00Z");
    server.drain();
    assert_eq!(server.q("SELECT count(*) FROM cpu"), "0");
    let report = verify(&server, "cpu_1h", json!({}));
    assert_eq!((numbers(&report), report["buckets_sealed"].as_u64()), ((0, 0, 0), Some(3)));
    assert_eq!(server.q("SELECT sum(usage_count) FROM cpu_1h"), "6");
}

#[test]
fn s004_10_a_field_that_came_later_is_no_damage() {
    let server = server();
    let rule = json!({ "name": "all_1h", "source": "cpu", "interval": "1h",
        "group_by": "*", "aggregations": [{ "field": "*", "function": ["count", "sum"] }] });
    server.w("s", POINTS);
    server.json("POST", "/api/v1/aggregates?db=t", &rule).expect(201);
    server.clock("2024-01-02T00:00:00Z");
    server.drain();
    server.w("s", "cpu,host=a,rack=r1 load=1,usage=3 1704078000\n");
    server.clock("2024-01-02T00:10:00Z");
    server.drain();
    assert_eq!(numbers(&verify(&server, "all_1h", json!({}))), (4, 0, 0));
}

#[test]
fn x_01_faults_need_their_flag_and_are_refused_by_name() {
    let plain = server();
    corrupt(&plain, "cpu_1h@2024-01-01T00:00:00Z").expect(404);
    let server = materialized();
    let fault = |body: Value| server.json("POST", "/debug/fault", &body);
    fault(json!({ "switch": "clear" })).expect(200);
    for (switch, value) in [("batch_pause", json!("x")), ("fail_store", json!("yes"))] {
        let refused = fault(json!({ "switch": switch, "value": value })).expect(400);
        assert!(refused.error().contains(switch), "{}", refused.error());
    }
    for (place, expected) in [
        ("cpu_1h", "<bucket start>"),
        ("cpu_1h@2024-01-01T00:10:00Z", "one starts at 2024-01-01T00:00:00Z"),
        ("cpu_1h@2024-02-01T00:00:00Z", "nothing of cpu_1h is stored"),
    ] {
        let refused = corrupt(&server, place).expect(400);
        assert!(refused.error().contains(expected), "{}", refused.error());
    }
    corrupt(&server, "none@2024-01-01T00:00:00Z").expect(404);
}

#[test]
fn s000_16_buckets_and_their_states() {
    let server = materialized();
    let sql = "SELECT bucket,bucket_end,state,reason,pieces,stale_pieces,sealed_pieces,rows \
               FROM system.aggregate_buckets('cpu_1h') ORDER BY bucket";
    assert_eq!(
        server.q(sql),
        "2024-01-01T00:00:00Z,2024-01-01T01:00:00Z,fresh,,1,0,0,2 / \
         2024-01-01T01:00:00Z,2024-01-01T02:00:00Z,fresh,,1,0,0,1 / \
         2024-01-01T02:00:00Z,2024-01-01T03:00:00Z,fresh,,1,0,0,1"
    );
    // A late point, a bucket that was never computed, and one that is still open.
    server.w("s", "cpu,host=a usage=1 1704070801\ncpu,host=a usage=1 1704081600\n");
    server.w("s", "cpu,host=a usage=1 1704153600\n");
    let states = "SELECT bucket,state,reason FROM system.aggregate_buckets('cpu_1h') \
                  WHERE state <> 'fresh' ORDER BY bucket";
    assert_eq!(
        server.q(states),
        "2024-01-01T01:00:00Z,stale,touched_later / 2024-01-01T04:00:00Z,stale,never_applied / \
         2024-01-02T00:00:00Z,open,never_applied"
    );
    let oldest = server.metric("highwater_aggregation_oldest_stale_seconds{aggregate=\"cpu_1h\"}");
    assert_eq!(oldest, Some(23.0 * 3600.0), "the bucket of one o'clock");
    let touched = "SELECT touched_seq > applied_seq FROM system.aggregate_buckets('cpu_1h', \
                   '2024-01-01T01:30:00Z', '2024-01-01T02:00:00Z')";
    assert_eq!(server.q(touched), "true");
    let days = "SELECT bucket,state,rows FROM system.aggregate_buckets('cpu_all') ORDER BY 1";
    assert_eq!(server.q(days), "2024-01-01T00:00:00Z,stale,2 / 2024-01-02T00:00:00Z,stale,0");

    let refused = |sql: &str, status: u16| server.query(sql, json!({})).expect(status).error();
    assert!(refused("SELECT * FROM system.aggregate_buckets('none')", 404).contains("none"));
    assert!(refused("SELECT * FROM system.aggregate_buckets(1)", 400).contains("'name'"));
    let half = "SELECT * FROM system.aggregate_buckets('cpu_1h', '2024-01-01')";
    assert!(refused(half, 400).contains("'from', 'to'"));
}

#[test]
fn s000_16_more_buckets_than_an_answer_holds() {
    let server = launch().rules("databases: {t: {aggregates: [{name: cpu_1s, source: cpu, interval: 1s, aggregations: [{function: count}]}]}}").start();
    let line = |second: i64| format!("cpu v=1 {}\n", 1_704_067_200 + second * 60);
    server.w("s", &(0..2_000).map(line).collect::<String>());
    let sql = "SELECT count(*) FROM system.aggregate_buckets('cpu_1s'";
    let refused = server.query(&format!("{sql})"), json!({})).expect(400);
    assert!(refused.error().contains("shorter range"), "{}", refused.error());
    let minute = format!("{sql}, '2024-01-01T00:00:00Z', '2024-01-01T00:01:00Z')");
    assert_eq!(server.q(&minute), "60");
}

#[test]
fn s000_16_what_a_bucket_is_made_of() {
    let server = materialized();
    let seq = aggregate(&server, "cpu_1d")["applied_seq"].as_u64().unwrap();
    server.w("s", "cpu,host=a usage=1 1704070801\ncpu,host=c usage=1 1704070950\n");
    let answer = server.csv("EXPLAIN BUCKET cpu_1d '2024-01-01T12:00:00Z'");
    let header = "level,name,bucket,bucket_end,from,to,pieces,state,applied_seq,touched_seq,\
                  touched_granules,touched_from,touched_to,rows,read_from";
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!(lines[0], header);
    let day = "2024-01-01T00:00:00Z,2024-01-02T00:00:00Z";
    let late = lines[1].split(',').nth(9).unwrap();
    assert!(late.parse::<u64>().unwrap() > seq, "{late} came after {seq}");
    let touched = "2024-01-01T01:00:00Z,2024-01-01T01:03:00Z";
    assert_eq!(lines[1], format!("0,cpu_1d,{day},{day},1,stale,{seq},{late},2,{touched},2,cpu_1h"));
    let hour = "2024-01-01T01:00:00Z,2024-01-01T02:00:00Z";
    let states: Vec<&str> = lines[2..].iter().map(|line| line.split(',').nth(7).unwrap()).collect();
    assert_eq!(states, ["fresh", "stale", "fresh"]);
    assert!(lines[3].starts_with(&format!("1,cpu_1h,{day},{hour},1,stale,")), "{}", lines[3]);
    assert!(lines[3].ends_with(&format!(",{late},2,{touched},1,cpu")), "{}", lines[3]);
    assert!(lines[2].ends_with(",0,,,2,stored"), "{}", lines[2]);

    // It only reads, so a request that may only read may ask.
    let read_only = "/api/v3/query_sql?db=t&format=csv&q=EXPLAIN%20BUCKET%20cpu_1h%20'2024-01-01'";
    server.get(read_only).expect(200);
    server.query("EXPLAIN BUCKET none '2024-01-01'", json!({})).expect(404);
    server.query("EXPLAIN BUCKET cpu_1h 'noon'", json!({})).expect(400);
}

#[test]
fn s004_10_audits_find_and_repair_by_themselves() {
    let rules = "databases: {t: {aggregates: [{name: cpu_1h, source: cpu, interval: 1h, \
                 group_by: [host], aggregations: [{field: usage, function: [count, sum]}]}]}}";
    let every = ("HIGHWATER_AGGREGATION__AUDIT_EVERY", "10m");
    let server =
        launch().rules(rules).switch("--fault-injection").variable(every.0, every.1).start();
    server.clock("2024-01-02T00:00:00Z");
    server.w("s", POINTS);
    server.drain();
    corrupt(&server, "cpu_1h@2024-01-01T00:00:00Z").expect(200);
    server.clock("2024-01-02T00:09:59Z");
    server.drain();
    assert_ne!(server.q(BY_HOUR), RIGHT_BY_HOUR, "no audit is due yet");
    assert_eq!(aggregate(&server, "cpu_1h")["last_audit"], Value::Null);
    server.clock("2024-01-02T00:10:00Z");
    server.tick();
    assert_eq!(server.q(BY_HOUR), RIGHT_BY_HOUR);
    let audited = "SELECT last_audit,audit_mismatches FROM system.aggregates";
    assert_eq!(server.q(audited), "2024-01-02T00:10:00Z,1");
    let metric = |name: &str| server.metric(&format!("{name}{{aggregate=\"cpu_1h\"}}"));
    assert_eq!(metric("highwater_aggregation_audit_mismatches_total"), Some(1.0));
    assert_eq!(metric("highwater_aggregation_audited_buckets_total"), Some(3.0));
    assert!(server.stderr().contains("stored partials are not what the source gives"));
    server.drain();
    assert_eq!(metric("highwater_aggregation_audited_buckets_total"), Some(3.0), "one a period");
    server.clock("2024-01-02T00:20:00Z");
    server.drain();
    assert_eq!(metric("highwater_aggregation_audited_buckets_total"), Some(6.0));
    assert_eq!(server.q(audited), "2024-01-02T00:20:00Z,1");
}

#[test]
fn x_01_a_store_that_fails_loses_nothing() {
    let mut server = materialized();
    let fault = |server: &TestServer, body: Value| {
        server.json("POST", "/debug/fault", &body).expect(200);
    };
    fault(&server, json!({ "switch": "fail_store", "value": true }));
    server.w("s", "cpu,host=a usage=8 1704067320\n");
    let right = RIGHT_BY_HOUR.replace("a,2,30.0", "a,3,38.0");
    assert_eq!(server.q(BY_HOUR), right, "what is acknowledged is read");
    let refresh = "/api/v1/aggregates/cpu_1h/refresh";
    let refused = server.post(refresh).expect(500);
    assert!(refused.error().contains("fail_store"), "{}", refused.error());
    let refused = server.post("/api/v1/flush").expect(503);
    assert!(refused.error().contains("fail_store"), "{}", refused.error());
    assert_eq!(server.qm(BY_HOUR), RIGHT_BY_HOUR, "nothing is half stored");
    assert_eq!(aggregate(&server, "cpu_1h")["status"], "failed");
    server.kill9();
    assert_eq!(server.q(BY_HOUR), right);
    fault(&server, json!({ "switch": "fail_store", "value": true }));
    server.post("/api/v1/flush").expect(503);
    fault(&server, json!({ "switch": "clear" }));
    server.post("/api/v1/flush").expect(204);
    server.clock("2024-01-02T01:00:00Z");
    server.drain();
    assert_eq!(server.qm(BY_HOUR), right);
    assert_eq!(aggregate(&server, "cpu_1h")["status"], "active");
}

#[test]
fn s002_24_one_late_point_costs_one_row() {
    let server = launch().rules(RULES).start();
    server.clock("2024-01-02T00:00:00Z");
    assert_eq!(aggregate(&server, "cpu_1h")["amplification"], Value::Null);
    server.w("s", POINTS);
    server.drain();
    let numbers = "SELECT rows_recomputed,rows_changed,amplification FROM system.aggregates \
                   WHERE name = 'cpu_1h'";
    assert_eq!(server.q(numbers), "4,4,1.0");
    server.post("/api/v1/flush").expect(204);
    server.w("s", "cpu,host=b usage=8 1704067320\n");
    server.clock("2024-01-02T00:10:00Z");
    server.drain();
    assert_eq!(server.q(numbers), "5,5,1.0");
    // A point that was there already changes nothing, and is computed all the same.
    server.w("s", "cpu,host=b usage=8 1704067320\n");
    server.clock("2024-01-02T00:20:00Z");
    server.drain();
    assert_eq!(server.q(numbers), "6,5,1.2");
    let changed = server.metric("highwater_aggregation_rows_changed_total{aggregate=\"cpu_1h\"}");
    assert_eq!(changed, Some(5.0));
}
