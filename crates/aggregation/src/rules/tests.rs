//! Rule files in, definitions or lines with reasons out.

use insta::assert_snapshot;

use highwater_core::FieldType;

use super::*;
use crate::definition::OutputRule;

fn load(files: &[(&str, &str)]) -> Result<Rules, String> {
    let owned = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Rules::load(owned)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn one(text: &str) -> Result<Rules, String> {
    load(&[("rules/a.yml", text)])
}

fn refused(text: &str) -> String {
    one(text).expect_err("the rules are wrong")
}

/// `id <- source: output output`, a line per definition.
fn describe(rules: &Rules) -> String {
    let line = |definition: &Definition| {
        let names: Vec<_> = definition
            .outputs
            .iter()
            .map(|o| o.name().map_or_else(|| format!("*_{}", o.function), |n| n.to_string()))
            .collect();
        format!("{} <- {}: {}", definition.id, definition.rule.source, names.join(" "))
    };
    rules.definitions().map(line).collect::<Vec<_>>().join("\n")
}

const ORDERS: &str = "\
databases:
  t:
    aggregates:
      - set: order_stats
        source: orders
        refresh: {every: 10s}
        retention: 30d
        aggregates:
          - {name: total_by_status, group_by: [status], aggregations: [{field: id, function: count, as: count}]}
          - name: daily_totals
            interval: 1d
            aggregations: [{function: count}, {field: total_amount, function: sum, as: revenue}]
";

#[test]
fn a_set_is_a_block_of_aggregates_of_one_source() {
    let rules = one(ORDERS).unwrap();
    assert_snapshot!(describe(&rules), @r"
    t.order_stats.total_by_status <- orders: count
    t.order_stats.daily_totals <- orders: count revenue
    ");
    let all: Vec<_> = rules.definitions().collect();
    assert!(all.iter().all(|d| d.rule.refresh.is_some()), "what the set says holds for all");
    assert_eq!(all[0].retention, None, "all time never expires");
    assert!(all[1].retention.is_some());
    assert_eq!(all[1].id.schema(), "order_stats");
}

#[test]
fn a_wrong_set_is_refused() {
    let set = |keys: &str| refused(&format!("databases: {{t: {{aggregates: [{{{keys}}}]}}}}"));
    let member = "aggregates: [{name: a, aggregations: [{function: count}]}]";
    assert_snapshot!(set(&format!("set: public, source: cpu, {member}")), @"rules/a.yml:1: set: a schema named public exists already");
    assert_snapshot!(set(&format!("set: s.t, source: cpu, {member}")), @r#"rules/a.yml:1: set: "s.t" must not hold a dot"#);
    assert_snapshot!(set(&format!("set: s, {member}")), @"rules/a.yml:1: aggregate s.a: source: must not be empty");
    assert_snapshot!(set(&format!("set: s, source: cpu, interval: 1h, {member}")), @"rules/a.yml:1: interval: belongs to an aggregate of the set, not to the set");
    assert_snapshot!(set("set: s, source: cpu"), @"rules/a.yml:1: aggregates: must not be empty");
    assert_snapshot!(set("set: s, source: cpu, aggregates: [{name: a.b}]"), @"rules/a.yml:1: name: must be a name without dot; it is found as s.<name>");
    assert_snapshot!(set("set: s, source: cpu, aggregates: [{name: a, source: b}]"), @"rules/a.yml:1: source: is named once, by the set");
    assert_snapshot!(set(&format!("name: a, source: cpu, {member}")), @"rules/a.yml:1: aggregates: belongs to a set; name it");
}

#[test]
fn every_error_has_its_line_and_key() {
    let wrong =
        ORDERS.replace("aggregations: [{function: count}, ", "agregations: [{function: count}, ");
    assert_snapshot!(refused(&wrong), @"rules/a.yml:12: agregations: unknown key, expected one of name, source, interval, time_column, group_by, where, aggregations, order_by, limit, allowed_lateness, refresh, storage, retention, late_after_retention, max_groups, freshness, enabled, timezone, offset, week_start, set, aggregates");
    let wrong = ORDERS.replace("every: 10s", "every: often");
    assert_snapshot!(refused(&wrong), @r#"rules/a.yml:6: every: "often" is not a duration; write a number and one of ns, us, ms, s, m, h, d, w, mo, q, y"#);
    let wrong =
        ORDERS.replace("interval: 1d", "interval: 0d").replace("function: sum", "function: total");
    assert_snapshot!(refused(&wrong), @r#"
    rules/a.yml:12: aggregate order_stats.daily_totals: function: unknown function "total"; known are approx_distinct, approx_percentile(0.99), avg, count, distinct, first, first_time, histogram(0.1, 1), increase, last, last_time, max, mean, min, p99, rate, stddev, stddev_pop, sum, sum_fast, time_weighted_average, variance, variance_pop
    rules/a.yml:11: aggregate order_stats.daily_totals: interval: "0d" must be longer than zero and shorter than 292 years
    "#);
    let wrong = ORDERS.replace("source: orders", "limit: some");
    assert_snapshot!(refused(&wrong), @"rules/a.yml:5: limit: invalid u64");
    let wrong = ORDERS.replace("[status]", "[{a: 1}]");
    assert_snapshot!(refused(&wrong), @"rules/a.yml:9: group_by: expected string scalar");
    let wrong = ORDERS.replace("source: orders", "source: orders\n        source: orders");
    assert_snapshot!(refused(&wrong), @"rules/a.yml:6: duplicate mapping key: source not allowed here");
    assert_snapshot!(refused("databases: [\n"), @"rules/a.yml:1: expected mapping start");
    assert_snapshot!(refused("database: {}\n"), @"rules/a.yml:1: database: unknown key, expected one of databases");
    assert_snapshot!(refused("databases:\n  t:\n    aggregates:\n      - {name: a}\n      - \n"), @r"
    rules/a.yml:5: name: must not be empty
    rules/a.yml:5: source: must not be empty
    rules/a.yml:5: aggregations: must not be empty; list what to compute, like {field: usage, function: mean}
    ");
}

#[test]
fn nothing_is_a_rule_file_too() {
    for text in [
        "",
        "# only a comment\n",
        "databases:\n",
        "databases:\n  t:\n",
        "databases:\n  t:\n    aggregates:\n",
    ] {
        assert_eq!(one(text).unwrap().definitions().count(), 0, "{text:?}");
    }
}

#[test]
fn files_are_validated_together() {
    let parent = "databases: {t: {aggregates: [{name: cpu_1m, source: cpu, interval: 1m, aggregations: [{field: usage, function: mean}]}]}}";
    let child =
        "databases:\n  t:\n    aggregates:\n      - {name: cpu_1h, source: cpu_1m, interval: 1h}\n";
    let rules = load(&[("a.yml", child), ("b.yml", parent)]).unwrap();
    assert_snapshot!(describe(&rules), @r"
    t.cpu_1m <- cpu: usage_mean
    t.cpu_1h <- cpu_1m: usage_mean
    ");
    let wrong = child.replace("1h}", "90s}");
    let problem = load(&[("a.yml", &wrong), ("b.yml", parent)]).unwrap_err();
    assert_snapshot!(problem, @"a.yml:4: aggregate cpu_1h: interval: boundaries of 90s are not all boundaries of cpu_1m, which has 1m");
    let twice = load(&[("b.yml", parent), ("a.yml", parent)]).unwrap_err();
    assert_snapshot!(twice, @"b.yml:1: name: there is another aggregate named cpu_1m");
    let unreadable =
        load(&[("a.yml", "x: 1"), ("b.yml", "databases: 5"), ("c.yml", parent)]).unwrap_err();
    assert_snapshot!(unreadable, @r"
    a.yml:1: x: unknown key, expected one of databases
    b.yml:1: databases: expected mapping start
    ");
}

#[test]
fn a_file_may_read_aggregates_of_no_file() {
    let rule = |json: &str| ("t".into(), AggregateRule::from_json(json).unwrap());
    let others = [
        rule(
            r#"{"name":"cpu_1m","source":"cpu","interval":"1m","aggregations":[{"function":"count"}]}"#,
        ),
        rule(
            r#"{"name":"cpu_1h","source":"mem","interval":"1h","aggregations":[{"function":"count"}]}"#,
        ),
    ];
    let text = "databases: {t: {aggregates: [{name: cpu_1h, source: cpu_1m, interval: 1h}]}}";
    let files = [("a.yml".to_owned(), text.to_owned())];
    let rules = Rules::load_beside(files.clone(), &others).unwrap();
    assert_snapshot!(describe(&rules), @"t.cpu_1h <- cpu_1m: count");
    let problems = Rules::load(files).unwrap_err();
    assert_snapshot!(problems[0], @"a.yml:1: aggregate cpu_1h: aggregations: must not be empty; list what to compute, like {field: usage, function: mean}");
}

#[test]
fn downsampling_keeps_series_and_names() {
    let rules = one("
databases:
  t:
    downsampling:
      - {source: cpu, target: cpu_5m, interval: 5m, fields: [{field: usage, function: mean}, {field: temp, function: [min, max]}]}
      - {source: cpu_5m, target: cpu_1h, interval: 1h}
      - {source: disk, target: disk_5m, interval: 5m, fields: [{field: '*', function: mean}]}
      - {source: disk, target: disk_1h, interval: 1h, fields: [{field: '*', function: mean}, {field: used, function: max}]}
      - {source: net, target: net_1h, interval: 1h, fields: [{field: a, function: min}, {field: a, function: max}, {function: count}]}
")
    .unwrap();
    assert_snapshot!(describe(&rules), @r"
    t.cpu_5m <- cpu: usage temp_min temp_max
    t.cpu_1h <- cpu_5m: usage temp_min temp_max
    t.disk_5m <- disk: *_mean
    t.disk_1h <- disk: *_mean used_max
    t.net_1h <- net: a_min a_max count
    ");
    let first = rules.definitions().next().unwrap();
    assert_snapshot!(serde_json::to_string(&first.rule).unwrap(), @r#"{"name":"cpu_5m","source":"cpu","interval":"5m","group_by":"*","aggregations":[{"field":"usage","function":"mean","as":"*"},{"field":"temp","function":["min","max"]}]}"#);
    let back = DownsamplingRule::of(&first.rule).unwrap();
    assert_eq!(back.target, "cpu_5m");
    assert_eq!(back.into_aggregate(), first.rule, "there and back");
}

#[test]
fn downsampling_problems_name_its_own_keys() {
    let wrong = "
databases:
  t:
    downsampling:
      - source: cpu
        target: system.x
        interval: 5m
        fields:
          - {field: usage, function: mean}
          - {field: usage, function: percentile}
      - {source: cpu, interval: 5m, target: y}
      - {source: cpu, interval: 5m, target: z, group_by: [host]}
";
    assert_snapshot!(refused(wrong), @"rules/a.yml:12: group_by: unknown key, expected one of source, target, interval, fields, where, allowed_lateness, refresh, storage, retention, late_after_retention, max_groups, freshness, enabled, timezone, offset, week_start");
    assert_snapshot!(refused(&wrong.replace(", group_by: [host]", "")), @r"
    rules/a.yml:6: aggregate system.x: target: a schema named system exists already
    rules/a.yml:10: aggregate system.x: function: function percentile works in queries only, as its answers cannot be merged; known are approx_distinct, approx_percentile(0.99), avg, count, distinct, first, first_time, histogram(0.1, 1), increase, last, last_time, max, mean, min, p99, rate, stddev, stddev_pop, sum, sum_fast, time_weighted_average, variance, variance_pop
    rules/a.yml:11: aggregate y: fields: must not be empty; list what to compute, like {field: usage, function: mean}
    rules/a.yml:12: aggregate z: fields: must not be empty; list what to compute, like {field: usage, function: mean}
    ");
}

#[test]
fn measurements_declare_timestamps() {
    let text = |column: &str, column_type: &str| {
        format!("
databases:
  t:
    measurements: [{{name: tasks, columns: {{completed_at: {column_type}}}}}]
    aggregates:
      - {{name: done, source: tasks, interval: 1d, time_column: {column}, aggregations: [{{function: count}}]}}
      - {{name: done_weekly, source: done, interval: 1w}}
")
    };
    let rules = one(&text("completed_at", "timestamp")).unwrap();
    let declared = &rules.databases["t"].measurements[0];
    assert_eq!(declared.columns, [Column::field("completed_at", FieldType::Timestamp)]);
    assert!(rules.definitions().all(|d| d.time_column.as_deref() == Some("completed_at")));
    assert_snapshot!(refused(&text("updated_at", "timestamp")), @"rules/a.yml:6: aggregate done: time_column: updated_at is not declared; add {name: tasks, columns: {updated_at: timestamp}} to measurements");
    assert_snapshot!(refused(&text("completed_at", "float")), @"rules/a.yml:4: completed_at: only timestamp can be declared, not float; other fields get their type from the first point that has them");
}

#[test]
fn retention_goes_by_name_prefix_or_all() {
    let text = |list: &str| format!("databases:\n  t:\n    retention: [{list}]\n");
    let rules = one(&text(
        "{measurement: cpu, keep: 7d}, {measurement: 'tmp_*', keep: 1mo}, {measurement: '*', keep: 2y}",
    ));
    let keeps: Vec<_> = rules.unwrap().databases["t"]
        .retention
        .iter()
        .map(|r| (r.measurement.clone(), r.keep.to_string()))
        .collect();
    assert_eq!(format!("{keeps:?}"), r#"[("cpu", "7d"), ("tmp_*", "1mo"), ("*", "2y")]"#);
    assert_snapshot!(refused(&text("{measurement: 'a*b', keep: 7d}")), @"rules/a.yml:3: measurement: must be a name, a prefix followed by *, or *");
    assert_snapshot!(refused(&text("{measurement: cpu}")), @"rules/a.yml:3: keep: is missing; say how long, like 7d");
    assert_snapshot!(refused(&text("{measurement: cpu, keep: 0s}")), @"rules/a.yml:3: keep: must be longer than zero");
    assert_snapshot!(refused(&text("{measurement: cpu, keep: 7d}, {measurement: cpu, keep: 8d}")), @"rules/a.yml:3: measurement: there is another rule for cpu");
}

#[test]
fn blocks_of_later_versions_are_refused_by_name() {
    assert_snapshot!(refused("
databases:
  t:
    views: [{name: v, sql: SELECT 1}]
    view_jobs: []
    analytics: {events: events}
"), @r"
    rules/a.yml:4: views: not supported yet: views
    rules/a.yml:5: view_jobs: not supported yet: view_jobs
    rules/a.yml:6: analytics: not supported yet: analytics
    ");
}

#[test]
fn changes_tell_what_applying_would_do() {
    let before = one(ORDERS).unwrap();
    let after = ORDERS
        .replace("interval: 1d", "interval: 1w")
        .replace("name: total_by_status", "name: by_status");
    let after = one(&after).unwrap();
    assert_snapshot!(after.diff(before.definitions()), @r"
    + t.order_stats.by_status
    ~ t.order_stats.daily_totals (interval)
    - t.order_stats.total_by_status (detached, its data stays)
    ");
    assert!(before.diff(before.definitions()).is_empty());
    assert_eq!(before.diff([]).added.len(), 2);
    let nothing = Rules::default();
    assert_eq!(nothing.diff(before.definitions()).removed.len(), 2);
}

#[test]
fn a_child_changes_with_its_source() {
    let text = |function: &str| {
        format!("
databases:
  t:
    aggregates:
      - {{name: a, source: cpu, interval: 1m, aggregations: [{{field: usage, function: {function}}}]}}
      - {{name: b, source: a, interval: 1h}}
")
    };
    let (before, after) = (one(&text("mean")).unwrap(), one(&text("[mean, max]")).unwrap());
    assert_snapshot!(after.diff(before.definitions()), @r"
    ~ t.a (aggregations)
    ~ t.b (its source changes)
    ");
}

/// The fenced examples of the documentation.
fn examples() -> Vec<&'static str> {
    let page = include_str!("../../../../docs/rules.md");
    let blocks = page.split("```yaml\n").skip(1);
    blocks.filter_map(|block| block.split("```").next()).collect()
}

#[test]
fn the_documented_examples_load() {
    let examples = examples();
    assert!(examples.len() >= 3, "the page has examples");
    for (i, text) in examples.iter().enumerate() {
        let rules = load(&[("docs/rules.md", text)]);
        assert!(rules.is_ok(), "example {i}:\n{}", rules.unwrap_err());
    }
    let all: Vec<_> = examples.iter().filter_map(|text| one(text).ok()).collect();
    assert!(all.iter().flat_map(Rules::definitions).count() >= 8);
}

#[test]
fn every_key_is_documented() {
    let page = include_str!("../../../../docs/rules.md");
    let unknown = refused("databases: {t: {aggregates: [{nix: 1}]}}");
    let aggregate = unknown.split("expected one of ").nth(1).unwrap();
    let unknown = refused("databases: {t: {downsampling: [{nix: 1}]}}");
    let downsampling = unknown.split("expected one of ").nth(1).unwrap();
    let unknown = refused("databases: {t: {nix: 1}}");
    let database = unknown.split("expected one of ").nth(1).unwrap();
    for key in [aggregate, downsampling, database].iter().flat_map(|keys| keys.trim().split(", ")) {
        assert!(page.contains(&format!("`{key}`")), "{key} is not documented");
    }
}

#[test]
fn outputs_of_an_example_are_named_as_documented() {
    let rules = one("databases: {t: {aggregates: [{name: a, source: cpu, aggregations: [{field: usage, function: [mean, max]}, {function: count}]}]}}").unwrap();
    let names: Vec<_> =
        rules.definitions().flat_map(|d| &d.outputs).filter_map(OutputRule::name).collect();
    assert_eq!(
        names.iter().map(|n| &**n).collect::<Vec<_>>(),
        ["usage_mean", "usage_max", "count"]
    );
}
