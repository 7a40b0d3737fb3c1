//! Changing, renaming, dropping and bringing back definitions (S002-23, CARD-09, DEC-57).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_tests::{Reply, TestServer};
use serde_json::{Value, json};

use crate::aggregates::{create, server_with_cpu};
use crate::{aggregate, launch, server};

const PATH: &str = "/api/v1/aggregates/cpu_1h?db=t";
const MAXIMA: &str = "SELECT time,usage_max FROM cpu_1h WHERE host='a' ORDER BY time";
const HOURS: &str = "2024-01-01T00:00:00Z,60.0 / 2024-01-01T01:00:00Z,40.0";
const HALF_HOURS: &str =
    "2024-01-01T00:00:00Z,20.0 / 2024-01-01T00:30:00Z,60.0 / 2024-01-01T01:00:00Z,40.0";

/// The definition of `cpu_1h` with another interval.
fn every(server: &TestServer, interval: &str) -> Value {
    let mut rule = server.get(PATH).expect(200).json()["definition"].clone();
    rule["interval"] = json!(interval);
    rule
}

fn put(server: &TestServer, rule: &Value) -> Reply {
    server.json("PUT", PATH, rule)
}

/// `cpu_1h` with the hours stored.
fn stored() -> TestServer {
    let server = server_with_cpu();
    server.drain();
    server
}

#[test]
fn s002_23_the_old_definition_answers_until_the_new_one_is_built() {
    let server = stored();
    let count = "SELECT count(*) FROM cpu_1h";
    let done = Arc::new(AtomicBool::new(false));
    let poller = {
        let (client, done) = (server.client(), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !done.load(Ordering::Acquire) {
                for freshness in ["exact", "materialized"] {
                    let body =
                        json!({ "db": "t", "q": count, "format": "csv", "freshness": freshness });
                    let path = "/api/v3/query_sql";
                    let reply =
                        client.send("POST", path, &[], body.to_string().as_bytes()).unwrap();
                    seen.push((reply.status, highwater_tests::rows(&reply.body)));
                }
            }
            seen
        })
    };
    let changed = put(&server, &every(&server, "30m")).expect(200).json();
    assert_eq!((&changed["status"], &changed["version"]), (&json!("building"), &json!(1)));
    assert_eq!(changed["building"]["version"], 2);
    assert_eq!(changed["building"]["definition"]["interval"], "30m");
    assert_eq!((server.q(count), server.qm(count)), ("3".to_owned(), "3".to_owned()));
    server.drain();
    assert_eq!((server.q(count), server.qm(count)), ("4".to_owned(), "4".to_owned()));
    done.store(true, Ordering::Release);
    let seen = poller.join().unwrap();
    assert!(
        seen.iter().all(|(status, rows)| *status == 200 && ["3", "4"].contains(&&**rows)),
        "{seen:?}"
    );
    let after = aggregate(&server, "cpu_1h");
    assert_eq!((&after["status"], &after["version"]), (&json!("active"), &json!(2)));
    assert_eq!(after["last_processed"], "2024-01-01T02:00:00Z");
    assert!(after.get("building").is_none());
}

#[test]
fn s002_23_a_definition_without_anything_stored_is_replaced_at_once() {
    let server = server_with_cpu();
    let changed = put(&server, &every(&server, "30m")).expect(200).json();
    assert_eq!(
        (&changed["status"], &changed["definition"]["interval"]),
        (&json!("active"), &json!("30m"))
    );
    assert_eq!(server.q(MAXIMA), HALF_HOURS);
}

#[test]
fn s002_23_what_is_no_other_computation_keeps_what_is_stored() {
    let server = stored();
    let before = server.qm("SELECT time,host,usage_max FROM cpu_1h ORDER BY host,time");
    let mut rule = every(&server, "1h");
    rule["aggregations"] = json!([{ "field": "usage", "function": ["max", "mean"] }]);
    rule["retention"] = json!("400d");
    rule["allowed_lateness"] = json!("1m");
    rule["order_by"] = json!([{ "column": "usage_max", "desc": true }]);
    let changed = put(&server, &rule).expect(200).json();
    assert_eq!((&changed["status"], &changed["version"]), (&json!("active"), &json!(1)));
    assert_eq!(server.qm("SELECT time,host,usage_max FROM cpu_1h ORDER BY host,time"), before);
    let gone = server.query("SELECT usage_sum FROM cpu_1h", json!({}));
    assert_eq!(gone.status, 400, "{}", gone.body);
}

#[test]
fn s002_23_a_change_is_replaced_or_given_up_while_it_is_built() {
    let server = stored();
    put(&server, &every(&server, "30m")).expect(200);
    let other = put(&server, &every(&server, "15m")).expect(200).json();
    assert_eq!(other["building"]["definition"]["interval"], "15m");
    assert_eq!(put(&server, &every(&server, "1h")).expect(200).json()["status"], "active");
    server.drain();
    assert_eq!(server.q(MAXIMA), HOURS);
    put(&server, &every(&server, "30m")).expect(200);
    let undone = server.post("/api/v1/aggregates/cpu_1h/undo?db=t").expect(200).json();
    assert_eq!((&undone["status"], &undone["version"]), (&json!("active"), &json!(1)));
    server.drain();
    assert_eq!((server.q(MAXIMA), server.qm(MAXIMA)), (HOURS.to_owned(), HOURS.to_owned()));
}

#[test]
fn s002_23_building_goes_on_after_a_crash() {
    let mut server = stored();
    put(&server, &every(&server, "30m")).expect(200);
    server.kill9();
    assert_eq!(aggregate(&server, "cpu_1h")["status"], "building");
    assert_eq!(server.q(MAXIMA), HOURS);
    server.clock("2024-01-01T02:00:00Z");
    server.drain();
    assert_eq!(
        (server.q(MAXIMA), server.qm(MAXIMA)),
        (HALF_HOURS.to_owned(), HALF_HOURS.to_owned())
    );
    server.kill9();
    assert_eq!(server.qm(MAXIMA), HALF_HOURS);
}

#[test]
fn s002_23_points_that_come_while_it_is_built_count() {
    let server = stored();
    put(&server, &every(&server, "30m")).expect(200);
    server.w("s", "cpu,host=a usage=99 1704067201\ncpu,host=a usage=7 1704073000\n");
    let late = HOURS.replace("60.0", "99.0") + " / 2024-01-01T01:30:00Z,7.0";
    server.drain();
    assert_eq!(
        server.q(MAXIMA),
        late.replace("00:00:00Z,99.0", "00:00:00Z,99.0 / 2024-01-01T00:30:00Z,60.0")
    );
    assert_eq!(server.q(MAXIMA), server.qm(MAXIMA));
}

#[test]
fn s002_23_what_reads_a_changed_aggregate_follows_or_stays() {
    let server = stored();
    let daily = json!({ "name": "cpu_1d", "source": "cpu_1h", "interval": "1d" });
    let peaks = json!({ "name": "peaks", "source": "cpu_1h", "interval": "2h",
        "aggregations": [{ "field": "usage", "function": "max" }] });
    create(&server, &daily).expect(201);
    create(&server, &peaks).expect(201);
    server.clock("2024-01-02T00:00:00Z");
    server.drain();
    let daily = "SELECT host,usage_max,usage_mean FROM cpu_1d ORDER BY host";
    assert_eq!(server.qm(daily), "a,60.0,32.5 / b,5.0,5.0");

    // Merged from half hours, days are what they were.
    put(&server, &every(&server, "30m")).expect(200);
    assert_eq!(aggregate(&server, "cpu_1d")["status"], "active");
    server.drain();
    assert_eq!(aggregate(&server, "cpu_1d")["version"], 1);
    assert_eq!(server.qm(daily), server.q(daily));

    // Other points are another day, and both take over together.
    let mut some = every(&server, "30m");
    some["where"] = json!("usage < 50");
    put(&server, &some).expect(200);
    for name in ["cpu_1d", "peaks"] {
        assert_eq!(aggregate(&server, name)["status"], "building", "{name}");
    }
    assert_eq!(server.q(daily), "a,60.0,32.5 / b,5.0,5.0");
    server.drain();
    for name in ["cpu_1d", "peaks"] {
        assert_eq!(aggregate(&server, name)["version"], 2, "{name}");
    }
    let mean = server.q("SELECT mean(usage) FROM cpu WHERE usage < 50 AND host = 'a'");
    assert_eq!(server.q(daily), format!("a,40.0,{mean} / b,5.0,5.0"));
    assert_eq!(server.qm(daily), server.q(daily));

    // What `peaks` computes cannot be left out.
    let mut sums = every(&server, "30m");
    sums["aggregations"] = json!([{ "field": "usage", "function": "sum" }]);
    let refused = put(&server, &sums).expect(400);
    assert!(refused.error().contains("peaks"), "{}", refused.error());

    // A new child of a change that is being built answers at once.
    let mut sums = every(&server, "30m");
    sums["aggregations"] = json!([{ "field": "usage", "function": ["max", "mean", "last_time"] }]);
    put(&server, &sums).expect(200);
    let latest = json!({ "name": "latest", "source": "cpu_1h", "interval": "1d",
        "aggregations": [{ "field": "usage", "function": "last_time" }] });
    create(&server, &latest).expect(201);
    let read = "SELECT host,usage_last_time FROM latest ORDER BY host";
    let expected = "a,2024-01-01T01:00:00Z / b,2024-01-01T00:00:00Z";
    assert_eq!(server.q(read), expected);
    assert_eq!(aggregate(&server, "latest")["status"], "building");
    server.drain();
    assert_eq!((server.q(read).as_str(), server.qm(read).as_str()), (expected, expected));
    assert_eq!(aggregate(&server, "latest")["status"], "active");
}

/// Four days of two points each: the first two days are gone, and stored days are all that is left.
fn with_expired_points(settings: &str) -> TestServer {
    let rules = format!(
        "
databases:
  t:
    retention: [{{measurement: m, keep: 1d}}]
    aggregates:
      - {{name: m_1d, source: m, interval: 1d, aggregations: [{{field: v, function: sum}}]{settings}}}
"
    );
    let server = launch().rules(&rules).start();
    for day in 0..4 {
        let start = 1_704_067_200 + day * 86_400;
        server.clock(&format!("2024-01-{:02}T12:00:00Z", day + 1));
        server.w("s", &format!("m v={day}.5 {start}\nm v=1 {}\n", start + 3600));
        server.drain();
    }
    assert_eq!(server.q("SELECT count(*) FROM m"), "2", "most points have expired");
    server
}

#[test]
fn s002_23_an_added_function_keeps_history() {
    let server = with_expired_points("");
    let sums = "SELECT time,v_sum FROM m_1d ORDER BY time";
    let before = server.q(sums);
    let mut rule = aggregate(&server, "m_1d")["definition"].clone();
    rule["aggregations"] =
        json!([{ "field": "v", "function": ["sum", "count", "max"] }, { "function": "count" }]);
    server.json("PUT", "/api/v1/aggregates/m_1d?db=t", &rule).expect(200);
    server.drain();
    assert_eq!(aggregate(&server, "m_1d")["version"], 2);
    assert_eq!(server.q(sums), before);
    let from = "2024-01-03T00:00:00Z";
    let all = "SELECT time,v_count,v_max,count FROM m_1d ORDER BY time";
    let expected = "2024-01-01T00:00:00Z,,, / 2024-01-02T00:00:00Z,,, / \
                    2024-01-03T00:00:00Z,2,2.5,2 / 2024-01-04T00:00:00Z,2,3.5,2";
    assert_eq!(server.q(all), expected);
    let columns = aggregate(&server, "m_1d")["columns"].clone();
    let valid = |name: &str| {
        let columns = columns.as_array().unwrap();
        columns.iter().find(|one| one["name"] == name).unwrap()["valid_from"].clone()
    };
    assert_eq!(
        (valid("v_sum"), valid("v_max"), valid("count")),
        (Value::Null, json!(from), json!(from))
    );

    // What merges the new column is valid where it is.
    let total = json!({ "name": "m_2d", "source": "m_1d", "interval": "2d", "aggregations": [
        { "field": "v", "function": ["count", "sum"] }] });
    create(&server, &total).expect(201);
    assert_eq!(
        server.q("SELECT time,v_count,v_sum FROM m_2d ORDER BY time"),
        "2023-12-31T00:00:00Z,,1.5 / 2024-01-02T00:00:00Z,,6.0 / 2024-01-04T00:00:00Z,2,4.5"
    );

    // Anything else that would lose sealed buckets is refused.
    rule["interval"] = json!("12h");
    let refused = server.json("PUT", "/api/v1/aggregates/m_1d?db=t", &rule).expect(409);
    assert!(refused.error().contains("expired"), "{}", refused.error());
    assert_eq!(server.q(sums), before);
}

#[test]
fn dec_57_a_change_can_be_undone_for_a_while() {
    let server = stored();
    let undo = "/api/v1/aggregates/cpu_1h/undo?db=t";
    assert_eq!(server.post(undo).expect(409).code(), "conflict");
    put(&server, &every(&server, "30m")).expect(200);
    server.drain();
    let changed = aggregate(&server, "cpu_1h");
    assert_eq!(changed["previous"]["definition"]["interval"], "1h");
    assert_eq!(changed["previous"]["until"], "2024-01-01T03:00:00Z");
    server.w("s", "cpu,host=a usage=99 1704067201\n");
    let undone = server.post(undo).expect(200).json();
    assert_eq!((&undone["version"], &undone["definition"]["interval"]), (&json!(1), &json!("1h")));
    assert_eq!(server.qm(MAXIMA), HOURS, "as it was stored");
    assert_eq!(server.q(MAXIMA), HOURS.replace("60.0", "99.0"), "and exact all the same");
    assert_eq!(server.post(undo).expect(200).json()["version"], 2, "undone, too");
    server.clock("2024-01-01T03:00:00Z");
    server.drain();
    assert_eq!(server.post(undo).expect(409).code(), "conflict");
    let left = "SELECT DISTINCT measurement FROM system.segments \
                WHERE kind <> 'points' AND measurement <> 'cpu_1h@restatements'";
    assert_eq!(server.q(left), "cpu_1h@2");
}

#[test]
fn dec_57_a_drop_can_be_undone_for_a_while() {
    let server = stored();
    server.send("DELETE", "/api/v1/aggregates/cpu_1h?db=t&drop=true", &[], &[]).expect(200);
    server.get(PATH).expect(404);
    server.post("/api/v1/aggregates/cpu_1h/undo?db=t").expect(200);
    assert_eq!((server.q(MAXIMA), server.qm(MAXIMA)), (HOURS.to_owned(), HOURS.to_owned()));
    let none = launch().variable("HIGHWATER_AGGREGATION__UNDO_WINDOW", "0s").start();
    none.w("s", "cpu,host=a usage=1 1704067200\n");
    create(&none, &every(&server, "1h")).expect(201);
    none.send("DELETE", "/api/v1/aggregates/cpu_1h?db=t&drop=true", &[], &[]).expect(200);
    none.post("/api/v1/aggregates/cpu_1h/undo?db=t").expect(404);
}

#[test]
fn card_09_a_detached_aggregate_stands_still_while_its_source_changes() {
    let server = stored();
    create(&server, &json!({ "name": "cpu_2h", "source": "cpu_1h", "interval": "2h" })).expect(201);
    server.drain();
    server.send("DELETE", "/api/v1/aggregates/cpu_2h?db=t", &[], &[]).expect(200);
    let mut some = every(&server, "30m");
    some["where"] = json!("usage < 50");
    put(&server, &some).expect(200);
    server.drain();
    let maxima = "SELECT host,usage_max FROM cpu_2h ORDER BY host";
    assert_eq!(server.q(maxima), "a,60.0 / b,5.0", "as it stands");
    some["group_by"] = json!("*");
    some["interval"] = json!("1h");
    let refused = put(&server, &some).expect(409);
    assert!(refused.error().contains("cpu_2h"), "{}", refused.error());
}

#[test]
fn s002_23_an_aggregate_gets_another_name() {
    let server = stored();
    create(&server, &json!({ "name": "cpu_1d", "source": "cpu_1h", "interval": "1d" })).expect(201);
    let rename = |name: &str, to: &str| {
        server.json("POST", &format!("/api/v1/aggregates/{name}/rename?db=t"), &json!({ "to": to }))
    };
    for taken in ["cpu", "cpu_1d"] {
        assert_eq!(rename("cpu_1h", taken).expect(409).code(), "conflict", "{taken}");
    }
    rename("cpu_1h", "").expect(400);
    rename("nobody", "x").expect(404);
    let version = rename("cpu_1h", "hours").expect(200).json()["version"].clone();
    assert_eq!(version, 1);
    server.get(PATH).expect(404);
    let read = MAXIMA.replace("cpu_1h", "hours");
    assert_eq!((server.q(&read), server.qm(&read)), (HOURS.to_owned(), HOURS.to_owned()));
    assert_eq!(aggregate(&server, "cpu_1d")["source"], "hours");
    let days = "SELECT host,usage_max FROM cpu_1d ORDER BY host";
    assert_eq!(server.q(days), "a,60.0 / b,5.0");
    // The old name is free, and what it stores is its own.
    let mut other = aggregate(&server, "hours")["definition"].clone();
    other["name"] = json!("cpu_1h");
    create(&server, &other).expect(201);
    server.drain();
    assert_eq!((server.qm(MAXIMA), server.qm(&read)), (HOURS.to_owned(), HOURS.to_owned()));
}

#[test]
fn s002_23_put_says_what_is_wrong() {
    let server = server();
    let rule =
        json!({ "source": "cpu", "interval": "1h", "aggregations": [{ "function": "count" }] });
    put(&server, &rule).expect(404);
    let mut other = rule.clone();
    other["name"] = json!("x");
    assert!(put(&server, &other).expect(400).error().contains("rename"));
    let mut named = rule.clone();
    named["name"] = json!("cpu_1h");
    create(&server, &named).expect(201);
    put(&server, &rule).expect(200);
    let mut wrong = rule;
    wrong["interval"] = json!("0s");
    assert_eq!(put(&server, &wrong).expect(400).code(), "invalid_definition");
}

#[test]
fn s002_23_aggregates_go_with_their_measurement_or_stand_still() {
    let server = stored();
    create(&server, &json!({ "name": "cpu_1d", "source": "cpu_1h", "interval": "1d" })).expect(201);
    server.post("/api/v1/aggregates/cpu_1d/refresh?db=t").expect(200);
    let refused = server.query("DROP TABLE cpu", json!({})).expect(409);
    assert!(refused.error().contains("cpu_1h") && refused.error().contains("CASCADE"));
    let rule = every(&server, "1h");
    server.send("DELETE", "/api/v1/measurements/cpu?db=t&aggregates=keep", &[], &[]).expect(200);
    let all = "SELECT time,host,usage_max FROM cpu_1h ORDER BY host,time";
    let kept =
        "2024-01-01T00:00:00Z,a,60.0 / 2024-01-01T01:00:00Z,a,40.0 / 2024-01-01T00:00:00Z,b,5.0";
    assert_eq!(server.q(all), kept);
    server.w("s", "cpu usage=1i 1704067200\n");
    assert_eq!(server.q(all), kept, "other points of that name do not count");
    assert_eq!(aggregate(&server, "cpu_1d")["status"], "detached");
    assert!(create(&server, &rule).expect(409).error().contains("dropped"));
    server.q("DROP TABLE cpu CASCADE");
    server.get(PATH).expect(404);
    server.get("/api/v1/aggregates/cpu_1d?db=t").expect(404);
    assert_eq!(server.q("SELECT count(*) FROM system.segments"), "0");
}
