//! Restatements: closed buckets that got other values, told to whoever follows.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use highwater_tests::TestServer;
use serde_json::{Value, json};

use crate::{aggregate, launch};

const RULES: &str = "
databases:
  t:
    aggregates:
      - {name: cpu_1h, source: cpu, interval: 1h, group_by: [host], aggregations: [{field: usage, function: [count, sum]}]}
      - {name: cpu_1d, source: cpu_1h, interval: 1d}
      - {name: cpu_all, source: cpu, group_by: [host], aggregations: [{field: usage, function: sum}]}
";

/// Hours 0, 1 and 2 of 2024-01-01.
const POINTS: &str = "\
cpu,host=a usage=10 1704067200
cpu,host=b usage=5 1704067200
cpu,host=a usage=40 1704070800
cpu,host=a usage=7 1704074400
";

/// A server with everything materialized, keeping so many restatements.
fn materialized(kept: &str) -> TestServer {
    let kept = ("HIGHWATER_AGGREGATION__RESTATEMENTS_KEPT", kept);
    let server = launch().rules(RULES).switch("--fault-injection").variable(kept.0, kept.1).start();
    server.clock("2024-01-02T00:00:00Z");
    server.w("s", POINTS);
    server.drain();
    server
}

/// Lets everything that is due be refreshed, so many minutes after midnight.
fn refresh_at(server: &TestServer, minutes: u64) {
    server.clock(&format!("2024-01-02T{:02}:{:02}:00Z", minutes / 60, minutes % 60));
    server.drain();
}

/// The lines of an answer: entries, and where to go on.
#[track_caller]
fn changes(server: &TestServer, name: &str, more: &str) -> (Vec<Value>, u64) {
    let text = server.get(&format!("/api/v1/aggregates/{name}/changes?db=t{more}")).expect(200);
    let mut lines: Vec<Value> =
        text.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let next = lines.pop().unwrap()["next"].as_u64().unwrap();
    (lines, next)
}

/// Start of the bucket, its end and the reason, of each.
fn told(entries: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").replace("2024-01-", "");
    let told =
        |one: &Value| [&one["bucket"], &one["bucket_end"], &one["reason"]].map(text).join(" ");
    entries.iter().map(told).collect()
}

#[test]
fn s002_24_closed_buckets_that_change_are_told() {
    let mut server = materialized("10000");
    for name in ["cpu_1h", "cpu_1d", "cpu_all"] {
        assert_eq!(changes(&server, name, "&since=0"), (vec![], 0), "closing is no restatement");
    }
    server.w("s", "cpu,host=a usage=1 1704070801\n");
    refresh_at(&server, 10);
    let (first, next) = changes(&server, "cpu_1h", "&since=0");
    assert_eq!(told(&first), ["01T01:00:00Z 01T02:00:00Z changed"]);
    assert_eq!(first[0]["revision"], 1);
    assert_eq!(first[0]["aggregate"], "cpu_1h");
    assert_eq!(first[0]["at"], "2024-01-02T00:10:00Z");
    assert_eq!(first[0]["seq"], next);
    assert_eq!(changes(&server, "cpu_1h", &format!("&since={next}")), (vec![], next));
    let by_sql = "SELECT aggregate,bucket,bucket_end,revision,reason FROM system.restatements \
                  ORDER BY aggregate";
    let day = "2024-01-01T00:00:00Z,2024-01-02T00:00:00Z,1,changed";
    let hour = "2024-01-01T01:00:00Z,2024-01-01T02:00:00Z,1,changed";
    assert_eq!(server.q(by_sql), format!("cpu_1d,{day} / cpu_1h,{hour} / cpu_all,{day}"));

    // The same point again changes no value. One before all others makes a closed bucket.
    server.w("s", "cpu,host=a usage=1 1704070801\n");
    refresh_at(&server, 20);
    assert_eq!(changes(&server, "cpu_1h", &format!("&since={next}")), (vec![], next));
    server.w("s", "cpu,host=a usage=1 1704060000\n");
    refresh_at(&server, 30);
    server.csv("DELETE FROM cpu WHERE host = 'b'");
    refresh_at(&server, 40);
    let (more, last) = changes(&server, "cpu_1h", &format!("&since={next}"));
    let expected =
        ["2023-12-31T22:00:00Z 2023-12-31T23:00:00Z changed", "01T00:00:00Z 01T01:00:00Z changed"];
    assert_eq!(told(&more), expected);
    let fault = json!({ "switch": "corrupt_bucket", "value": "cpu_1h@2024-01-01T02:00:00Z" });
    server.json("POST", "/debug/fault", &fault).expect(200);
    server.json("POST", "/api/v1/aggregates/cpu_1h/verify", &json!({})).expect(200);
    let (repaired, _) = changes(&server, "cpu_1h", &format!("&since={last}"));
    assert_eq!(told(&repaired), ["01T02:00:00Z 01T03:00:00Z repaired"]);

    let all = changes(&server, "cpu_1h", "");
    assert_eq!(all.0.len(), 4);
    let revisions: Vec<u64> = all.0.iter().map(|one| one["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, [1, 2, 3, 4]);
    server.kill9();
    assert_eq!(changes(&server, "cpu_1h", ""), all, "the feed is as durable as the values");

    let refused = |path: &str, status: u16| server.get(path).expect(status).error();
    assert!(refused("/api/v1/aggregates/none/changes", 404).contains("none"));
    assert!(refused("/api/v1/aggregates/cpu_1h/changes?since=x", 400).contains("invalid digit"));
}

#[test]
fn s002_24_another_definition_over_the_same_partials_restates_everything() {
    let server = materialized("10000");
    server.json("DELETE", "/api/v1/aggregates/cpu_1d?drop=true", &json!({})).expect(200);
    let mut rule = aggregate(&server, "cpu_1h")["definition"].clone();
    let change = |rule: &Value| {
        server.json("PUT", "/api/v1/aggregates/cpu_1h", rule).expect(200);
        let status = aggregate(&server, "cpu_1h");
        assert_eq!(status["pending"], false, "it is in force at once: {status}");
        changes(&server, "cpu_1h", "").0
    };
    rule["max_groups"] = json!(77);
    assert_eq!(change(&rule), [0; 0], "rows read as before");
    rule["aggregations"][0]["function"] = json!(["sum"]);
    assert_eq!(told(&change(&rule)), ["- - redefined"]);
    rule["order_by"] = json!([{ "column": "usage_sum" }]);
    rule["limit"] = json!(2);
    assert_eq!(told(&change(&rule)), ["- - redefined"; 2]);
}

#[test]
fn s002_24_another_definition_restates_everything() {
    let server = materialized("10000");
    let mut rule = aggregate(&server, "cpu_1h")["definition"].clone();
    rule["aggregations"] = json!([{ "field": "usage", "function": "max" }]);
    server.json("DELETE", "/api/v1/aggregates/cpu_1d?drop=true", &json!({})).expect(200);
    server.json("PUT", "/api/v1/aggregates/cpu_1h", &rule).expect(200);
    server.drain();
    let (entries, next) = changes(&server, "cpu_1h", "");
    assert_eq!(told(&entries), ["- - redefined"]);
    server.json("POST", "/api/v1/aggregates/cpu_1h/undo", &json!({})).expect(200);
    let (entries, _) = changes(&server, "cpu_1h", &format!("&since={next}"));
    assert_eq!(told(&entries), ["- - redefined"]);
    server
        .json("POST", "/api/v1/aggregates/cpu_1h/rename", &json!({ "to": "by_hour" }))
        .expect(200);
    assert_eq!(changes(&server, "by_hour", "").0.len(), 2, "the feed goes along");
    server.json("DELETE", "/api/v1/aggregates/by_hour?drop=true", &json!({})).expect(200);
    let segments = "SELECT count(*) FROM system.segments WHERE measurement LIKE '%restatements%'";
    assert_eq!(server.q(segments), "0", "nothing of it is left");
}

#[test]
fn s002_24_who_comes_too_late_is_told_where_to_go_on() {
    let server = materialized("2");
    for at in 1..=4 {
        server.w("s", &format!("cpu,host=a usage={at} 170407080{at}\n"));
        refresh_at(&server, at * 10);
    }
    let (kept, _) = changes(&server, "cpu_1h", "");
    let revisions: Vec<u64> = kept.iter().map(|one| one["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, [3, 4]);
    let refused = server.get("/api/v1/aggregates/cpu_1h/changes?since=0").expect(410);
    assert_eq!(refused.code(), "gone");
    let next = refused.json()["next"].as_u64().unwrap();
    assert!(refused.error().contains(&format!("since {next}")), "{}", refused.error());
    assert_eq!(changes(&server, "cpu_1h", &format!("&since={next}")).0, kept);

    // By age, without anything that is new.
    server.clock("2024-02-02T00:00:00Z");
    server.drain();
    assert_eq!(changes(&server, "cpu_1h", "").0, [Value::Null; 0]);
}

#[test]
fn s002_24_restatements_are_followed_until_the_server_stops() {
    let mut server = materialized("10000");
    let mut follower = Command::new(env!("CARGO_BIN_EXE_highwater-under-test"))
        .args(["changes", "cpu_1h", "--since", "0", "--follow", "--host", server.address()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("{\"next\":0}"));
    server.w("s", "cpu,host=a usage=1 1704070801\n");
    refresh_at(&server, 10);
    let entry: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(told(&[entry]), ["01T01:00:00Z 01T02:00:00Z changed"]);
    let next: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    server.w("s", "cpu,host=a usage=1 1704067201\n");
    refresh_at(&server, 20);
    let entry: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert!(entry["seq"].as_u64() > next["next"].as_u64());
    lines.next().unwrap();
    assert!(server.terminate().success(), "nobody who follows holds it up");
    assert_eq!(lines.next(), None);
    assert!(follower.wait().unwrap().success());
}
