//! Definitions that are refused, and those that the data contradicts later (S002-03).

use serde_json::{Value, json};

use crate::aggregates::{create, server_with_cpu};
use crate::launch;

#[test]
fn s002_03_definition_and_validation() {
    let server = server_with_cpu();
    let hours = json!({ "name": "x", "source": "cpu", "interval": "1h", "group_by": ["host"],
        "aggregations": [{ "field": "usage", "function": ["mean", "max"] }] });
    let over = |source: &str, interval: &str| json!({ "name": "x", "source": source, "interval": interval });
    let with = |key: &str, value: Value| {
        let mut rule = hours.clone();
        rule[key] = value;
        rule
    };
    let twice = json!([{ "field": "usage", "function": "max" },
        { "field": "temp", "function": "min", "as": "usage_max" }]);
    for (rule, word) in [
        (with("name", json!("")), "name"),
        (with("source", json!("")), "source"),
        (with("source", json!("x")), "itself"),
        (with("interval", json!("0s")), "interval"),
        (with("interval", json!("-1h")), "interval"),
        (with("aggregations", json!([])), "aggregations"),
        (with("aggregations", json!([{ "field": "usage", "function": "no" }])), "no"),
        (with("aggregations", twice), "usage_max"),
        (over("cpu_1h", "90m"), "90m"),
    ] {
        let refused = create(&server, &rule).expect(400);
        assert_eq!(refused.code(), "invalid_definition", "{rule}");
        assert!(refused.error().contains(word), "{rule}: {}", refused.error());
    }
    server.get("/api/v1/aggregates/x").expect(404);
    create(&server, &hours).expect(201);
    assert_eq!(server.q("SELECT usage_mean, usage_max FROM x WHERE host = 'b'"), "5.0,5.0");
}

#[test]
fn s002_03_a_circle_is_printed() {
    let rule = |name: &str, source: &str| {
        format!("      - {{name: {name}, source: {source}, interval: 1h}}\n")
    };
    let circle = rule("a", "c") + &rule("b", "a") + &rule("c", "b");
    let failure = launch().rules(&format!("databases:\n  t:\n    aggregates:\n{circle}"));
    let stderr = failure.try_start().expect_err("a circle").stderr;
    assert!(stderr.contains("a -> c -> b -> a"), "{stderr}");
}

#[test]
fn what_does_not_fit_its_source_is_not_stored() {
    let mut server = server_with_cpu();
    let rule = |more: Value| {
        let mut rule = json!({ "name": "x", "source": "cpu", "interval": "1h",
            "aggregations": [{ "function": "count" }] });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    for (more, word) in [
        (json!({ "aggregations": [{ "field": "host", "function": "sum" }] }), "host"),
        (json!({ "time_column": "usage" }), "usage"),
        (json!({ "time_column": "none", "source": "nothing" }), "none"),
        (json!({ "where": "random() > 0.5" }), "random"),
        (json!({ "where": "time > now()" }), "now"),
        (json!({ "where": "sum(usage) > 5" }), "aggregate"),
        (json!({ "where": "host" }), "condition"),
        (json!({ "where": "usage >" }), "where"),
    ] {
        let refused = create(&server, &rule(more.clone())).expect(400);
        assert_eq!(refused.code(), "invalid_definition", "{more}");
        assert!(refused.error().contains(word), "{more}: {}", refused.error());
    }
    server.get("/api/v1/aggregates/x").expect(404);
    server.restart();
    assert_eq!(server.q("SELECT count(*) FROM cpu_1h"), "3");
}

/// Whoever writes points decides about the types of fields, and must not stop anything but the
/// aggregates that need others.
#[test]
fn a_field_of_another_type_fails_its_aggregate_and_nothing_else() {
    let of = |name: &str, source: &str| {
        format!(
            "      - {{name: {name}, source: {source}, interval: 1h, aggregations: [{{field: \
             status, function: mean}}], refresh: {{every: 1s}}}}\n"
        )
    };
    let rules = of("st_1h", "st") + &of("ok_1h", "ok");
    let mut server = crate::with_rules(&format!("databases:\n  t:\n    aggregates:\n{rules}"));
    server.w("s", "st,host=a status=\"fine\" 1704067200\nok,host=a status=1 1704067200");
    server.clock("2024-01-01T02:00:00Z");
    server.tick();
    server.restart();
    let one = |name: &str| server.get(&format!("/api/v1/aggregates/{name}")).expect(200).json();
    assert_eq!(one("st_1h")["status"], "failed");
    assert!(one("st_1h")["last_error"].as_str().unwrap().contains("status"));
    assert_eq!(one("ok_1h")["status"], "active");
    assert_eq!(server.qm("SELECT status_mean FROM ok_1h"), "1.0");
    assert_eq!(
        server.get("/api/v1/aggregates").expect(200).json()["aggregates"][1]["name"],
        "st_1h"
    );
    let query = server.query("SELECT * FROM st_1h", json!({}));
    assert!(query.status == 400 && query.error().contains("status"), "{}", query.body);
    std::fs::write(server.rules_folder().join("rules.yml"), "databases: {t: {}}").unwrap();
    server.post("/api/v1/rules/reload").expect(200);
    assert_eq!(one("st_1h")["status"], "detached");
}
