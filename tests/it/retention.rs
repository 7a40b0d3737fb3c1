//! Retention through the real binary: what sealed buckets do when points are deleted, come late or
//! are made to go.

use highwater_tests::{Reply, TestServer};
use serde_json::json;

use crate::cli::{run, stdout};
use crate::{aggregate, with_rules};

/// 2024-01-01T00:00:00Z, in seconds.
const NEW_YEAR: u64 = 1_704_067_200;

/// Three levels over a day of raw: by host for three days, by host for ever, all hosts.
const THREE_LEVELS: &str = "
databases:
  t:
    aggregates:
      - name: cpu_1h
        source: cpu
        interval: 1h
        group_by: [host, dc]
        aggregations: [{field: usage, function: [count, sum, min]}]
        retention: 3d
      - {name: cpu_1d, source: cpu_1h, interval: 1d, group_by: [host]}
      - {name: all_1d, source: cpu_1d, interval: 1d, group_by: []}
    retention: [{measurement: cpu, keep: 1d}]
";

/// Points of `cpu` of six days, also as `everything`, which never expires; then it is the seventh.
fn after_a_week(rules: &str) -> TestServer {
    let server = with_rules(rules);
    for day in 0..6 {
        server.clock(&format!("2024-01-{:02}T23:00:00Z", day + 1));
        let mut lines = String::new();
        for (number, hour) in [1, 1, 5, 13].into_iter().enumerate() {
            for (host, dc) in [("a", "x"), ("b", "x"), ("c", "y")] {
                let at = NEW_YEAR + day * 86_400 + hour * 3_600 + number as u64 * 60;
                let usage = day * 10 + hour + host.len() as u64 + u64::from(host.as_bytes()[0]);
                for measurement in ["cpu", "everything"] {
                    lines += &format!("{measurement},host={host},dc={dc} usage={usage}.5 {at}\n");
                }
            }
        }
        server.w("s", &lines);
        server.drain();
    }
    server.clock("2024-01-07T12:00:00Z");
    server.drain();
    assert_eq!(floor(&server, "cpu"), "2024-01-06T00:00:00Z");
    server
}

fn floor(server: &TestServer, measurement: &str) -> String {
    let sql = "SELECT dropped_before FROM system.retention WHERE measurement = ";
    server.q(&format!("{sql}'{measurement}'"))
}

/// What the levels of [`THREE_LEVELS`] answer, and what they should.
#[track_caller]
fn check_levels(server: &TestServer) {
    let outputs = "usage_count, usage_sum, usage_min";
    let direct = "count(usage), sum(usage), min(usage)";
    let levels = [
        ("cpu_1h", "1h", "host, dc, ", "AND time >= '2024-01-04T12:00:00Z'"),
        ("cpu_1d", "1d", "host, ", ""),
        ("all_1d", "1d", "", ""),
    ];
    for (name, width, groups, since) in levels {
        let bucket = format!("time_bucket('{width}', time)");
        let stored = format!(
            "SELECT time, {groups}{outputs} FROM {name} WHERE true {since} ORDER BY {groups}time"
        );
        let expected = format!(
            "SELECT {bucket} AS time, {groups}{direct} FROM everything WHERE true {since} \
             GROUP BY {groups}{bucket} ORDER BY {groups}{bucket}"
        );
        assert_eq!(server.q(&stored), server.q(&expected), "{name}");
    }
}

/// Nothing that the server does later changes what the levels answer.
#[track_caller]
fn check_levels_last(server: &mut TestServer) {
    check_levels(server);
    for name in ["cpu_1h", "cpu_1d", "all_1d"] {
        let window = json!({ "from": "2024-01-01T00:00:00Z", "to": "2024-01-08T00:00:00Z" });
        server.json("POST", &format!("/api/v1/aggregates/{name}/refresh"), &window).expect(200);
        let report = server.post(&format!("/api/v1/aggregates/{name}/verify")).expect(200).json();
        assert_eq!(report["mismatches"], 0, "{report}");
    }
    server.drain();
    check_levels(server);
    for (name, order) in [("cpu_1h", "time, host"), ("cpu_1d", "time, host"), ("all_1d", "time")] {
        let rows = format!("SELECT * FROM {name} ORDER BY {order}");
        assert_eq!(server.qm(&rows), server.q(&rows), "{name}");
    }
    server.post("/api/v1/flush").expect(204);
    server.post("/api/v1/compact").expect(204);
    server.restart();
    server.clock("2024-01-07T12:00:01Z");
    server.drain();
    check_levels(server);
}

/// Deletes from both measurements.
#[track_caller]
fn delete(server: &TestServer, condition: &str) {
    server.q(&format!("DELETE FROM cpu {condition}"));
    server.q(&format!("DELETE FROM everything {condition}"));
}

#[track_caller]
fn refused(server: &TestServer, sql: &str) -> String {
    let Reply { status, body, .. } = server.query(sql, json!({}));
    assert_eq!(status, 409, "{body}");
    body
}

#[test]
fn s002_26_a_delete_by_tags_reaches_sealed_buckets_of_all_levels() {
    let mut server = after_a_week(THREE_LEVELS);
    check_levels(&server);
    delete(&server, "WHERE host = 'a'");
    check_levels_last(&mut server);
    delete(&server, "WHERE host IN ('b', 'z') AND time < '2024-01-03'");
    check_levels_last(&mut server);
    assert_eq!(server.q("SELECT count(*) FROM cpu_1d WHERE host = 'a'"), "0");
}

#[test]
fn s002_26_a_delete_of_whole_buckets_reaches_sealed_ones() {
    let mut server = after_a_week(THREE_LEVELS);
    // Days that all levels have, and the hours of one that only the hourly level has sealed.
    delete(&server, "WHERE time >= '2024-01-02' AND time < '2024-01-04'");
    delete(&server, "WHERE time >= '2024-01-05T05:00:00Z' AND time < '2024-01-05T06:00:00Z'");
    check_levels_last(&mut server);
    delete(&server, "WHERE time < '2024-01-06T13:00:00Z'");
    check_levels_last(&mut server);
    delete(&server, "");
    assert_eq!(server.q("SELECT count(*) FROM all_1d"), "0");
    check_levels_last(&mut server);
}

#[test]
fn s002_26_a_delete_that_would_reduce_a_sealed_bucket_names_it() {
    let mut server = after_a_week(THREE_LEVELS);
    let text = refused(&server, "DELETE FROM cpu WHERE time < '2024-01-02T05:00:00Z'");
    assert!(
        text.contains("cpu_1d (only a part of the bucket; bucket 2024-01-02T00:00:00Z)"),
        "{text}"
    );
    assert!(!text.contains("cpu_1h (") && !text.contains("all_1d ("), "{text}");
    let text = refused(&server, "DELETE FROM cpu WHERE dc = 'x'");
    let first = "2024-01-01T00:00:00Z, 2024-01-02T00:00:00Z, 2024-01-03T00:00:00Z";
    assert!(text.contains(&format!("cpu_1d (not grouped by dc; bucket {first})")), "{text}");
    let text = refused(&server, "DELETE FROM cpu WHERE usage > 100");
    assert!(text.contains("cpu_1h (more than times and tags is asked for"), "{text}");
    assert!(text.contains("add `AND time >= '2024-01-06T00:00:00Z'`"), "{text}");
    check_levels(&server);
    // As it says; and what the hourly level alone has sealed can go by what it is grouped by.
    delete(&server, "WHERE dc = 'x' AND time >= '2024-01-04'");
    delete(&server, "WHERE usage > 150 AND time >= '2024-01-06T12:00:00Z'");
    check_levels_last(&mut server);
}

#[test]
fn s002_26_a_definition_from_before_a_delete_does_not_bring_it_back() {
    let server = after_a_week(THREE_LEVELS);
    let rule = aggregate(&server, "all_1d")["definition"].clone();
    let mut changed = rule.clone();
    changed["aggregations"] = json!([{ "field": "usage", "function": "sum" }]);
    server.json("PUT", "/api/v1/aggregates/all_1d", &changed).expect(200);
    server.drain();
    delete(&server, "WHERE time < '2024-01-03'");
    let undone = server.post("/api/v1/aggregates/all_1d/undo");
    assert_eq!(undone.status, 409, "{}", undone.body);
    let sums = "SELECT time, usage_sum FROM all_1d ORDER BY time";
    let day = "time_bucket('1d', time)";
    let expected =
        format!("SELECT {day}, sum(usage) FROM everything GROUP BY {day} ORDER BY {day}");
    assert_eq!(server.q(sums), server.q(&expected));
}

/// A dependant that takes one host per bucket only, so that it can be kept from applying something.
const ONE_HOST: &str = "
databases:
  t:
    aggregates:
      - name: cpu_1h
        source: cpu
        interval: 1h
        group_by: [host]
        aggregations: [{field: usage, function: sum}]
        refresh: {every: 10s}
        max_groups: 1
    retention: [{measurement: cpu, keep: 1d, max_hold: 1d}]
";

const CPU_1H: &str = "SELECT time, host, usage_sum FROM cpu_1h ORDER BY time, host";

/// The hours 0 and 2 of the first of January are applied, then a second host comes in 0 and 1.
fn held_back() -> TestServer {
    let server = with_rules(ONE_HOST);
    server.w("s", "cpu,host=a usage=1 1704067800\ncpu,host=a usage=3 1704075000");
    server.clock("2024-01-01T04:00:00Z");
    server.drain();
    let late = "cpu,host=b usage=10 1704067900\ncpu,host=b usage=20 1704071400\n";
    server.w("s", &format!("{late}cpu,host=a usage=2 1704071400"));
    server
}

fn overdue(server: &TestServer) -> String {
    server.q("SELECT held_seconds, max_hold, overdue FROM system.retention")
}

fn alerts(server: &TestServer) -> usize {
    server.stderr().matches("expired points are kept for an aggregate").count()
}

#[test]
fn s002_26_points_that_are_held_back_for_too_long_raise_an_alert() {
    let server = held_back();
    server.clock("2024-01-02T23:00:00Z");
    server.tick();
    assert_eq!(overdue(&server), ",1d,false", "whole days expire");
    server.clock("2024-01-03T00:00:00Z");
    server.tick();
    assert_eq!(overdue(&server), "86400.0,1d,false");
    assert_eq!(alerts(&server), 0);
    server.clock("2024-01-03T12:00:00Z");
    server.tick();
    server.tick();
    assert_eq!(overdue(&server), "129600.0,1d,true");
    let row = &server.get("/api/v1/retention").expect(200).json()["retention"][0];
    assert_eq!((&row["overdue"], &row["measurement"]), (&json!(true), &json!("cpu")));
    assert!(row["held_back_by"].as_str().unwrap().starts_with("cpu_1h keeps everything"), "{row}");
    let metric = |name: &str| {
        let name = format!("highwater_aggregation_retention_{name}");
        server.metric(&format!("{name}{{database=\"t\",measurement=\"cpu\"}}"))
    };
    assert_eq!((metric("held_seconds"), metric("overdue")), (Some(129_600.0), Some(1.0)));
    assert_eq!(alerts(&server), 1, "once a day");
    server.clock("2024-01-04T00:00:00Z");
    server.tick();
    assert_eq!(alerts(&server), 2);
    let all = "2024-01-01T00:00:00Z,a,1.0 / 2024-01-01T00:00:00Z,b,10.0 / \
               2024-01-01T01:00:00Z,a,2.0 / 2024-01-01T01:00:00Z,b,20.0 / \
               2024-01-01T02:00:00Z,a,3.0";
    assert_eq!(server.q(CPU_1H), all, "nothing is lost meanwhile");
    let listed = stdout(run(&server, &["retention", "list"], ""));
    assert!(listed.contains("cpu ") && listed.contains("true"), "{listed}");
}

#[test]
fn s002_26_points_that_are_held_back_expire_by_force() {
    let mut server = held_back();
    server.clock("2024-01-03T12:00:00Z");
    server.drain();
    let force = |server: &TestServer, body| server.json("POST", "/api/v1/retention/force", &body);
    for (body, word) in [
        (json!({ "measurement": "mem" }), "nothing of mem expires"),
        (json!({ "measurement": "cpu", "before": "2024-01-02T12:00:01Z" }), "is later than"),
        (json!({ "measurement": "cpu", "befor": 1 }), "befor"),
    ] {
        let refused = force(&server, body);
        assert!(refused.status == 400 && refused.body.contains(word), "{}", refused.body);
    }
    let nothing = json!({ "measurement": "cpu", "before": "2024-01-01T00:00:00Z" });
    assert_eq!(force(&server, nothing).expect(200).json()["lost"], json!([]));
    let lost = json!([{ "aggregate": "cpu_1h", "buckets": 2, "ranges": [
        { "start": "2024-01-01T00:00:00Z", "end": "2024-01-01T02:00:00Z" }] }]);
    let dry = json!({ "measurement": "cpu", "database": "t", "dry_run": true });
    let dry = force(&server, dry).expect(200).json();
    assert_eq!((&dry["lost"], &dry["dry_run"]), (&lost, &json!(true)));
    assert_eq!(floor(&server, "cpu"), "2024-01-01T00:00:00Z", "where points begin");
    let forced = stdout(run(&server, &["retention", "force", "cpu"], ""));
    let forced: serde_json::Value = serde_json::from_str(&forced).unwrap();
    assert_eq!((&forced["lost"], &forced["dry_run"]), (&lost, &json!(false)));
    assert_eq!(forced["dropped_before"], "2024-01-02T00:00:00Z");
    assert_eq!(floor(&server, "cpu"), "2024-01-02T00:00:00Z");

    // Sealed as they stood: 0 without the second host, 1 not at all.
    let left = "2024-01-01T00:00:00Z,a,1.0 / 2024-01-01T02:00:00Z,a,3.0";
    let check = |server: &TestServer| {
        assert_eq!((server.q(CPU_1H), server.qm(CPU_1H)), (left.to_owned(), left.to_owned()));
        let status = aggregate(server, "cpu_1h");
        assert_eq!((&status["lost"], &status["stale_buckets"]), (&lost[0]["ranges"], &json!(0)));
    };
    check(&server);
    let window = json!({ "from": "2024-01-01T00:00:00Z", "to": "2024-01-02T00:00:00Z" });
    server.json("POST", "/api/v1/aggregates/cpu_1h/refresh", &window).expect(200);
    server.post("/api/v1/aggregates/cpu_1h/verify").expect(200);
    check(&server);
    server.restart();
    server.clock("2024-01-03T12:00:01Z");
    server.drain();
    check(&server);
    let again = force(&server, json!({ "measurement": "cpu" })).expect(200).json();
    assert_eq!(again["lost"], json!([]), "it is not lost twice");
}

#[test]
fn dec_72_late_points_are_dropped_and_counted_where_all_aggregates_say_so() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - name: cpu_1h
        source: cpu
        interval: 1h
        aggregations: [{field: usage, function: [count, sum]}]
        late_after_retention: drop
    retention: [{measurement: cpu, keep: 1d}]
",
    );
    server.clock("2024-01-01T02:00:00Z");
    server.w("s", "cpu usage=1 1704067800");
    server.clock("2024-01-03T12:00:00Z");
    server.drain();
    let late = "cpu usage=5 1704067860\n";
    server.write("s", late).expect(204);
    server
        .write("s", &format!("{late}cpu usage=7 1704283200\nmem used=1 1704067860\n"))
        .expect(204);
    let counts = "INSERT INTO cpu (time, usage) VALUES ('2024-01-01T00:12:00Z', 5.0), \
                  ('2024-01-03T11:00:00Z', 1.0)";
    assert_eq!(server.q(counts), "1");
    let hours = "SELECT time, usage_count, usage_sum FROM cpu_1h ORDER BY time";
    let expected = "2024-01-01T00:00:00Z,1,1.0 / 2024-01-03T11:00:00Z,1,1.0 / \
                    2024-01-03T12:00:00Z,1,7.0";
    assert_eq!(server.q(hours), expected);
    assert_eq!(server.q("SELECT count(*) FROM mem"), "1", "it has no retention");
    let status = "SELECT late_after_retention, late_dropped FROM system.retention";
    assert_eq!(server.q(status), "drop,3");
    let metric = "highwater_storage_late_dropped_points_total{database=\"t\",measurement=\"cpu\"}";
    assert_eq!(server.metric(metric), Some(3.0));

    // The strictest of them decides.
    let strict = json!({ "name": "strict", "source": "cpu", "interval": "1d",
        "aggregations": [{ "function": "count" }] });
    server.json("POST", "/api/v1/aggregates", &strict).expect(201);
    assert_eq!(server.q(status), "reject,3");
    let refused = server.write("s", late);
    assert!(refused.status == 400 && refused.body.contains("retention"), "{}", refused.body);
    server.json("DELETE", "/api/v1/aggregates/strict", &json!(null));
    server.write("s", late).expect(204);
    assert_eq!(server.q(hours), expected);
    let merge = json!({ "name": "merging", "source": "cpu", "interval": "1d",
        "late_after_retention": "merge", "aggregations": [{ "function": "count" }] });
    let refused = server.json("POST", "/api/v1/aggregates", &merge);
    assert!(
        refused.status == 400 && refused.body.contains("not supported yet"),
        "{}",
        refused.body
    );
}

#[test]
fn s002_26_years_and_months_of_a_zone_over_five_days_of_raw_are_exact() {
    let mut server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: days, source: m, interval: 1d, timezone: Europe/Berlin, group_by: [k], aggregations: [{field: v, function: [sum, count, last]}]}
      - {name: months, source: m, interval: 1mo, timezone: Europe/Berlin, group_by: [k], aggregations: [{field: v, function: [sum, count, last]}]}
      - {name: years, source: m, interval: 1y, timezone: Europe/Berlin, group_by: [k], aggregations: [{field: v, function: [sum, count, last]}]}
      - {name: years_of_days, source: days, interval: 1y, timezone: Europe/Berlin, group_by: []}
    retention: [{measurement: m, keep: 5d}]
",
    );
    let check = |server: &TestServer| {
        for (name, width, groups) in
            [("months", "1mo", "k, "), ("years", "1y", "k, "), ("years_of_days", "1y", "")]
        {
            let bucket = format!("time_bucket('{width}', time, 'Europe/Berlin')");
            let stored = format!(
                "SELECT time, {groups}v_sum, v_count, v_last FROM {name} ORDER BY {groups}time"
            );
            let direct = format!(
                "SELECT {bucket} AS time, {groups}sum(v), count(v), last(v) FROM everything \
                 GROUP BY {groups}{bucket} ORDER BY {groups}{bucket}"
            );
            assert_eq!(server.q(&stored), server.q(&direct), "{name}");
        }
    };
    // Fourteen months, three points a day around midnight in Berlin.
    let start = NEW_YEAR - 60 * 86_400;
    for day in (0..430).step_by(5) {
        let mut lines = String::new();
        for at in (day..day + 5).flat_map(|day| [1_380, 1_410, 720].map(|minute| (day, minute))) {
            let (day, minute) = at;
            let (k, time) = (day % 2, start + day * 86_400 + minute * 60);
            let v = format!("{day}.{minute}");
            lines += &format!("m,k={k} v={v} {time}\neverything,k={k} v={v} {time}\n");
        }
        let end = i64::try_from(start + (day + 5) * 86_400).unwrap();
        server.clock(&highwater_core::Timestamp::from_secs(end).to_string());
        server.w("s", &lines);
        if day % 15 == 0 {
            server.tick();
        }
    }
    server.drain();
    assert_eq!(server.q("SELECT count(*) FROM m"), "15");
    check(&server);
    for name in ["days", "months", "years", "years_of_days"] {
        let window = json!({ "from": "2023-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z" });
        server.json("POST", &format!("/api/v1/aggregates/{name}/refresh"), &window).expect(200);
        let report = server.post(&format!("/api/v1/aggregates/{name}/verify")).expect(200).json();
        assert_eq!(report["mismatches"], 0, "{report}");
    }
    check(&server);
    server.restart();
    check(&server);
}
