//! Rules in, definitions or reasons out.

use highwater_core::{Column, ColumnRole, FieldType, Schema};

use super::*;

/// Compiles a YAML list of rules of one database.
fn compiled(yaml: &str) -> Result<Vec<Definition>, Vec<String>> {
    let rules: Vec<AggregateRule> = serde_saphyr::from_str(yaml).unwrap();
    let placed: Vec<_> = rules.into_iter().map(|rule| ("t".into(), rule)).collect();
    compile_all(&placed).map_err(|all| all.into_iter().map(|(_, e)| e.to_string()).collect())
}

fn one(yaml: &str) -> Definition {
    compiled(&format!("[{yaml}]")).unwrap().pop().unwrap()
}

fn reasons(yaml: &str) -> String {
    compiled(yaml).expect_err("the rules are wrong").join("\n")
}

/// A rule `a` over `cpu` with one output, and these keys.
fn reasons_with(keys: &str) -> String {
    reasons(&format!("[{{name: a, source: cpu, aggregations: [{{function: count}}], {keys}}}]"))
}

const CPU: &str = "{name: cpu_1h, source: cpu, interval: 1h, group_by: [host], aggregations: \
    [{field: usage, function: [count, mean]}, {field: usage, function: max, as: peak}, {function: count}]}";

fn cpu_schema() -> Schema {
    Schema::of([
        Column::tag("host"),
        Column::tag("region"),
        Column::field("usage", FieldType::Float),
        Column::field("temp", FieldType::Integer),
        Column::field("note", FieldType::String),
        Column::field("seen", FieldType::Timestamp),
    ])
}

/// `name:type` of every column; a question mark where it is assumed.
fn columns(resolved: &Resolved) -> String {
    let groups = resolved.groups.iter().map(|g| {
        let role = match g.role {
            ColumnRole::Tag => "tag".to_owned(),
            ColumnRole::Field(field_type) => field_type.to_string(),
        };
        (&g.name, role, g.is_known)
    });
    let outputs = resolved.outputs.iter().map(|o| (&o.name, o.result.to_string(), o.is_known));
    let all = groups.chain(outputs);
    all.map(|(name, t, known)| format!("{name}:{t}{}", if known { "" } else { "?" }))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_rule_is_compiled_with_its_defaults() {
    let cpu = one(CPU);
    assert_eq!(cpu.id.to_string(), "t.cpu_1h");
    assert_eq!(cpu.source, Source::Measurement(MeasurementId::new("t", "cpu")));
    assert_eq!(cpu.bucket.unwrap().to_string(), "1h");
    assert_eq!(cpu.refresh, Refresh::Periodic { every: "5m".parse().unwrap() });
    assert_eq!((cpu.freshness, cpu.enabled), (Freshness::Exact, true));
    assert_eq!(cpu.allowed_lateness, Span::ZERO);
    let names: Vec<_> = cpu.outputs.iter().filter_map(OutputRule::name).collect();
    assert_eq!(names.join(" "), "usage_count usage_mean peak count");
}

#[test]
fn names_tell_schema_and_table() {
    let id = AggregateId::new("t", "order_stats.daily");
    assert_eq!((id.schema(), id.table()), ("order_stats", "daily"));
    let id = AggregateId::new("t", "cpu_1h");
    assert_eq!((id.schema(), id.table()), ("public", "cpu_1h"));
}

#[test]
fn equal_definitions_have_one_spelling() {
    let long = one(
        "{name: a, source: cpu, interval: 60m, time_column: time, group_by: [], storage: durable, \
        where: ' x > 1 ', aggregations: [{field: usage, function: [AVG], as: usage_mean}, {function: count, as: n}], \
        allowed_lateness: 0m, refresh: {strategy: periodic, every: 300s}, retention: 24h, freshness: exact, \
        late_after_retention: reject, max_groups: 1000000, enabled: true}",
    );
    let json = serde_json::to_string(&long.rule).unwrap();
    insta::assert_snapshot!(json, @r#"{"name":"a","source":"cpu","interval":"1h","where":"x > 1","aggregations":[{"field":"usage","function":"mean"},{"function":"count","as":"n"}],"retention":"1d"}"#);
    assert_eq!(one(&json), long, "what a GET shows, posted elsewhere, is the same");
    let drop = one(
        "{name: a, source: cpu, aggregations: [{function: count}], late_after_retention: drop}",
    );
    let json = serde_json::to_string(&drop.rule).unwrap();
    insta::assert_snapshot!(json, @r#"{"name":"a","source":"cpu","aggregations":[{"function":"count"}],"late_after_retention":"drop"}"#);
    assert_eq!(one(&json), drop);
    let off = one(
        "{name: a, source: cpu, aggregations: [{function: count}], enabled: no, refresh: {every: 10s}}",
    );
    let json = serde_json::to_string(&off.rule).unwrap();
    insta::assert_snapshot!(json, @r#"{"name":"a","source":"cpu","aggregations":[{"function":"count"}],"refresh":{"strategy":"periodic","every":"10s"},"enabled":false}"#);
    assert_eq!(one(&json), off);
}

#[test]
fn a_wrong_rule_is_refused_with_the_reason() {
    insta::assert_snapshot!(reasons("[{source: cpu, aggregations: [{function: count}]}]"), @"name: must not be empty");
    insta::assert_snapshot!(reasons("[{name: a, aggregations: [{function: count}]}]"), @"aggregate a: source: must not be empty");
    insta::assert_snapshot!(reasons("[{name: a, source: a, aggregations: [{function: count}]}]"), @"aggregate a: source: a would read itself; give it a name of its own");
    insta::assert_snapshot!(reasons("[{name: a, source: cpu}]"), @"aggregate a: aggregations: must not be empty; list what to compute, like {field: usage, function: mean}");
    insta::assert_snapshot!(reasons("[{name: system.a, source: cpu, aggregations: [{function: count}]}]"), @"aggregate system.a: name: a schema named system exists already");
    insta::assert_snapshot!(reasons("[{name: a.b.c, source: cpu, aggregations: [{function: count}]}]"), @r#"aggregate a.b.c: name: "a.b.c" must be a name, or set.name, without further dots"#);
    insta::assert_snapshot!(reasons_with("interval: 0s"), @r#"aggregate a: interval: "0s" must be longer than zero and shorter than 292 years"#);
    insta::assert_snapshot!(reasons_with("interval: -1h"), @r#"aggregate a: interval: "-1h" is not a duration; write a number and one of ns, us, ms, s, m, h, d, w, mo, q, y"#);
    insta::assert_snapshot!(reasons_with("group_by: [host, host]"), @"aggregate a: group_by: host is there twice");
    insta::assert_snapshot!(reasons_with("group_by: [host, '*']"), @r#"aggregate a: group_by: "*" means all tags and stands alone"#);
    insta::assert_snapshot!(reasons_with("group_by: [time]"), @"aggregate a: group_by: time is bucketed by interval, not grouped by");
    insta::assert_snapshot!(reasons_with("limit: 5"), @"aggregate a: limit: needs order_by, to say which rows to keep");
    insta::assert_snapshot!(reasons_with("order_by: [{column: peak}]"), @"aggregate a: column: peak is neither an output nor a group column");
    insta::assert_snapshot!(reasons_with("time_column: seen"), @"aggregate a: time_column: chooses what interval buckets, but there is no interval");
    insta::assert_snapshot!(reasons_with("retention: 30d"), @"aggregate a: retention: an aggregate without interval is one bucket of all time, which never expires");
    insta::assert_snapshot!(reasons_with("allowed_lateness: 30s"), @"aggregate a: allowed_lateness: only buckets of time close, and this aggregate has none");
    insta::assert_snapshot!(reasons_with("refresh: {strategy: sometimes}"), @r#"aggregate a: strategy: unknown strategy "sometimes", expected realtime, periodic, on_demand or hybrid"#);
    insta::assert_snapshot!(reasons_with("refresh: {strategy: on_demand, every: 5m}"), @"aggregate a: every: strategy on_demand has no every; leave it out");
    insta::assert_snapshot!(reasons_with("refresh: {every: 0s}"), @"aggregate a: every: must be longer than zero");
    insta::assert_snapshot!(reasons_with("freshness: stale"), @r#"aggregate a: freshness: freshness is exact, materialized or max_staleness 10m, not "stale""#);
    insta::assert_snapshot!(reasons_with("storage: floppy"), @r#"aggregate a: storage: unknown value "floppy", expected one of durable, memory, hybrid"#);
    insta::assert_snapshot!(reasons_with("where: ''"), @"aggregate a: where: must not be empty");
}

#[test]
fn wrong_outputs_are_refused_with_the_reason() {
    let outputs = |list: &str| {
        reasons(&format!("[{{name: a, source: cpu, group_by: [host], aggregations: [{list}]}}]"))
    };
    insta::assert_snapshot!(outputs("{field: usage}"), @"aggregate a: function: must name at least one function");
    insta::assert_snapshot!(outputs("{field: usage, function: averageish}"), @r#"aggregate a: function: unknown function "averageish"; known are approx_distinct, approx_percentile(0.99), avg, count, distinct, first, first_time, histogram(0.1, 1), increase, last, last_time, max, mean, min, p99, rate, stddev, stddev_pop, sum, sum_fast, time_weighted_average, variance, variance_pop"#);
    insta::assert_snapshot!(outputs("{field: usage, function: percentile(0.9)}"), @"aggregate a: function: function percentile works in queries only, as its answers cannot be merged; known are approx_distinct, approx_percentile(0.99), avg, count, distinct, first, first_time, histogram(0.1, 1), increase, last, last_time, max, mean, min, p99, rate, stddev, stddev_pop, sum, sum_fast, time_weighted_average, variance, variance_pop");
    insta::assert_snapshot!(outputs("{field: usage, function: p101}"), @r#"aggregate a: function: unknown function "p101"; known are approx_distinct, approx_percentile(0.99), avg, count, distinct, first, first_time, histogram(0.1, 1), increase, last, last_time, max, mean, min, p99, rate, stddev, stddev_pop, sum, sum_fast, time_weighted_average, variance, variance_pop"#);
    insta::assert_snapshot!(outputs("{field: usage, function: approx_percentile(5)}"), @"aggregate a: function: function approx_percentile needs a number from 0 to 1, like approx_percentile(0.99)");
    insta::assert_snapshot!(outputs("{field: usage, function: 'histogram(2, 1)'}"), @"aggregate a: function: function histogram needs 1 to 20 bounds that ascend, like histogram(0.1, 0.5, 1)");
    insta::assert_snapshot!(outputs("{field: usage, function: mean(5)}"), @r#"aggregate a: function: unknown function "mean(5)"; known are approx_distinct, approx_percentile(0.99), avg, count, distinct, first, first_time, histogram(0.1, 1), increase, last, last_time, max, mean, min, p99, rate, stddev, stddev_pop, sum, sum_fast, time_weighted_average, variance, variance_pop"#);
    insta::assert_snapshot!(outputs("{function: mean}"), @"aggregate a: field: function mean needs a field");
    insta::assert_snapshot!(outputs("{field: time, function: max}"), @"aggregate a: field: time is no field; count without field counts points");
    insta::assert_snapshot!(outputs("{field: usage, function: [min, max], as: x}"), @"aggregate a: as: names one output, but there are several functions");
    insta::assert_snapshot!(outputs("{field: '*', function: max, as: x}"), @r#"aggregate a: as: would name many outputs; leave it out, or take "*" for the fields' own names"#);
    insta::assert_snapshot!(outputs("{field: a, function: max, as: x}, {field: b, function: max, as: x}"), @"aggregate a: aggregations: two columns would be named x; use `as` to name one differently");
    insta::assert_snapshot!(outputs("{field: usage, function: max, as: host}"), @"aggregate a: aggregations: two columns would be named host; use `as` to name one differently");
    insta::assert_snapshot!(outputs("{field: usage, function: max, as: x}, {function: count, as: x_partial}"), @"aggregate a: aggregations: x_partial is the hidden column of x");
}

#[test]
fn buckets_that_no_clock_shows_are_refused() {
    let refused = |keys: &str| reasons_with(keys);
    insta::assert_snapshot!(refused("timezone: Europe/Berlin"), @"aggregate a: timezone: is about buckets, but there is no interval");
    insta::assert_snapshot!(refused("interval: 1d, timezone: Berlin"), @r#"aggregate a: timezone: "Berlin" is no time zone; write a name like Europe/Berlin or UTC"#);
    insta::assert_snapshot!(refused("interval: 7h, timezone: Europe/Berlin"), @"aggregate a: timezone: 7h neither divides a day nor is made of whole days, so it cannot have a time zone");
    insta::assert_snapshot!(refused("interval: 1d, week_start: sunday"), @"aggregate a: week_start: 1d cannot start on Sundays; only whole weeks like 1w can");
    insta::assert_snapshot!(refused("interval: 1w, week_start: tuesday"), @r#"aggregate a: week_start: "tuesday" is neither monday nor sunday"#);
    insta::assert_snapshot!(refused("interval: 1h, offset: 2h"), @"aggregate a: offset: 1h cannot begin 2h later: an offset is shorter than the width, and than a day");
    insta::assert_snapshot!(refused("interval: 1d, offset: soon"), @r#"aggregate a: offset: "soon" is not a duration; write a number and one of ns, us, ms, s, m, h, d, w, mo, q, y"#);
    let over = |child: &str| {
        reasons(&format!(
            "[{{name: a, source: cpu, interval: 1h, aggregations: [{{function: count}}]}}, \
             {{name: b, source: a, interval: 1d, {child}}}]"
        ))
    };
    insta::assert_snapshot!(over("timezone: Asia/Kolkata"), @"aggregate b: interval: boundaries of 1d Asia/Kolkata are not all boundaries of a, which has 1h");
    insta::assert_snapshot!(over("offset: 90m"), @"aggregate b: interval: boundaries of 1d +90m are not all boundaries of a, which has 1h");
}

#[test]
fn zones_and_offsets_are_spelled_out_in_the_canonical_rule() {
    let list = "[{name: a, source: cpu, interval: 1w, week_start: sunday, offset: 90m, \
                timezone: Asia/Kolkata, aggregations: [{function: count}]}]";
    let rule = &compiled(list).unwrap()[0].rule;
    let keys = [&rule.interval, &rule.week_start, &rule.offset, &rule.timezone];
    assert_eq!(
        keys.map(|key| key.as_deref().unwrap_or_default()),
        ["1w", "sunday", "90m", "Asia/Kolkata"]
    );
}

#[test]
fn strategies_are_read_and_spelled_one_way() {
    let refresh = |words: &str| {
        one(&format!("{{name: a, source: cpu, aggregations: [{{function: count}}], {words}}}"))
    };
    let seconds = |seconds: i64| Span::Nanos(seconds * 1_000_000_000);
    let tenth = Span::Nanos(100_000_000);
    let realtime = refresh("refresh: {strategy: realtime, debounce: 100ms}");
    assert_eq!(realtime.refresh, Refresh::Realtime { debounce: tenth });
    let hybrid = refresh("refresh: {strategy: hybrid, critical: [status, b, b], debounce: 0s}");
    let critical = vec!["b".into(), "status".into()];
    let expected = Refresh::Hybrid { critical, every: seconds(900), debounce: Span::ZERO };
    assert_eq!(hybrid.refresh, expected);
    let limited = refresh("max_groups: 5, freshness: max_staleness '10m'");
    assert_eq!(
        (limited.max_groups, limited.freshness),
        (5, Freshness::MaxStaleness(600_000_000_000))
    );
    let json = |rule: &Definition| serde_json::to_string(&rule.rule).unwrap();
    insta::assert_snapshot!(json(&realtime), @r#"{"name":"a","source":"cpu","aggregations":[{"function":"count"}],"refresh":{"strategy":"realtime"}}"#);
    insta::assert_snapshot!(json(&hybrid), @r#"{"name":"a","source":"cpu","aggregations":[{"function":"count"}],"refresh":{"strategy":"hybrid","debounce":"0s","critical":["b","status"]}}"#);
    insta::assert_snapshot!(json(&limited), @r#"{"name":"a","source":"cpu","aggregations":[{"function":"count"}],"max_groups":5,"freshness":"max_staleness 10m"}"#);
    for rule in [realtime, hybrid, limited] {
        assert_eq!(one(&json(&rule)), rule);
    }
}

#[test]
fn keys_that_a_strategy_has_no_use_for_are_refused() {
    insta::assert_snapshot!(reasons_with("refresh: {strategy: realtime, every: 5m}"), @"aggregate a: every: strategy realtime has no every; leave it out");
    insta::assert_snapshot!(reasons_with("refresh: {every: 5m, debounce: 1s}"), @"aggregate a: debounce: strategy periodic has no debounce; leave it out");
    insta::assert_snapshot!(reasons_with("refresh: {critical: [x]}"), @"aggregate a: critical: strategy periodic has no critical; leave it out");
    insta::assert_snapshot!(reasons_with("refresh: {strategy: hybrid}"), @"aggregate a: critical: strategy hybrid needs the fields that count at once, like critical: [status]");
    insta::assert_snapshot!(reasons_with("refresh: {strategy: realtime, debounce: 1mo}"), @"aggregate a: debounce: must be shorter than a month");
    insta::assert_snapshot!(reasons_with("late_after_retention: keep"), @r#"aggregate a: late_after_retention: unknown value "keep", expected one of reject, merge, drop"#);
    insta::assert_snapshot!(reasons("[{name: a, source: cpu, interval: 1h, aggregations: [{function: count}]}, {name: b, source: a, interval: 1d, late_after_retention: drop}]"), @"aggregate b: late_after_retention: points reach this aggregate through a; say it where cpu is read");
    insta::assert_snapshot!(reasons_with("max_groups: 0"), @"aggregate a: max_groups: must be greater than 0");
    insta::assert_snapshot!(reasons_with("freshness: max_staleness 1mo"), @"aggregate a: freshness: max_staleness takes seconds to weeks, not months");
}

#[test]
fn keys_of_later_versions_are_refused_by_name() {
    insta::assert_snapshot!(reasons_with("late_after_retention: merge"), @"aggregate a: late_after_retention: not supported yet: late_after_retention, other than reject and drop");
}

#[test]
fn every_problem_is_reported() {
    let all = reasons_with("interval: 1h, group_by: [time], retention: soon, limit: 3");
    insta::assert_snapshot!(all, @r#"
    aggregate a: group_by: time is bucketed by interval, not grouped by
    aggregate a: retention: "soon" is not a duration; write a number and one of ns, us, ms, s, m, h, d, w, mo, q, y
    "#);
}

#[test]
fn a_child_inherits_what_it_leaves_out() {
    let all =
        compiled(&format!("[{{name: cpu_1d, source: cpu_1h, interval: 1d}}, {CPU}]")).unwrap();
    let (parent, child) = (&all[0], &all[1]);
    assert_eq!(child.parent(), Some(&parent.id), "sources come first");
    assert_eq!(child.root, MeasurementId::new("t", "cpu"));
    assert_eq!((&child.outputs, &child.group_by), (&parent.outputs, &parent.group_by));
    insta::assert_snapshot!(serde_json::to_string(&child.rule).unwrap(), @r#"{"name":"cpu_1d","source":"cpu_1h","interval":"1d"}"#);
}

#[test]
fn a_child_derives_only_what_its_parent_keeps() {
    let child = |keys: &str| compiled(&format!("[{CPU}, {{name: b, source: cpu_1h, {keys}}}]"));
    let names = |keys: &str| {
        let all = child(keys).unwrap();
        let names: Vec<_> = all[1].outputs.iter().filter_map(OutputRule::name).collect();
        names.join(" ")
    };
    let list = |entries: &str| format!("interval: 1d, aggregations: [{entries}]");
    assert_eq!(names(&list("{field: usage, function: [mean, max]}")), "usage_mean usage_max");
    assert_eq!(names(&list("{field: peak, function: max}")), "peak_max", "a parent's own name");
    assert_eq!(names(&list("{function: count, as: n}")), "n");
    assert_eq!(names("group_by: []"), "usage_count usage_mean peak count", "keyed, one group");

    let refused = |keys: &str| child(keys).unwrap_err().join("\n");
    insta::assert_snapshot!(refused(&list("{field: usage, function: min}")), @"aggregate b: aggregations: min of usage cannot be derived from cpu_1h, which keeps count of usage, mean of usage, max of usage, count; add it there");
    insta::assert_snapshot!(refused(&list("{field: usage_mean, function: max}")), @"aggregate b: aggregations: max of usage_mean cannot be derived from cpu_1h, which keeps count of usage, mean of usage, max of usage, count; add it there");
    insta::assert_snapshot!(refused("interval: 90m"), @"aggregate b: interval: boundaries of 90m are not all boundaries of cpu_1h, which has 1h");
    insta::assert_snapshot!(refused("interval: 1d, group_by: [region]"), @"aggregate b: group_by: cpu_1h keeps only host, not region");
    insta::assert_snapshot!(refused("interval: 1d, time_column: seen"), @"aggregate b: time_column: cpu_1h buckets time, so this aggregate does too");
}

#[test]
fn functions_with_one_partial_derive_each_other() {
    let all = compiled(
        "[{name: p, source: cpu, interval: 1h, aggregations: [{field: usage, function: [stddev, last]}]}, \
          {name: c, source: p, interval: 1d, aggregations: [{field: usage, function: [variance_pop, last_time, var, last]}]}]",
    )
    .unwrap();
    let parent = all[0].resolve(SourceColumns::Points(&cpu_schema())).unwrap();
    let child = all[1].resolve(SourceColumns::Partials(&parent)).unwrap();
    insta::assert_snapshot!(columns(&parent), @"usage_stddev:float usage_last:float");
    insta::assert_snapshot!(columns(&child), @"usage_variance_pop:float usage_last_time:timestamp usage_variance:float usage_last:float");
    let merges: Vec<_> = child.outputs.iter().filter_map(|o| o.merges.as_deref()).collect();
    assert_eq!(merges, ["usage_stddev", "usage_last", "usage_stddev", "usage_last"]);
}

#[test]
fn percentiles_have_a_long_and_a_short_spelling() {
    let rule = |list: &str, more: &str| {
        one(&format!(
            "{{name: a, source: cpu, aggregations: [{{field: usage, function: {list}{more}}}]}}"
        ))
    };
    let spelled = rule("['approx_percentile(0.99)', p50, p999, approx_percentile( 0.125 )]", "");
    let names: Vec<_> = spelled.outputs.iter().filter_map(OutputRule::name).collect();
    assert_eq!(names.join(" "), "usage_p99 usage_p50 usage_p999 usage_p12_5");
    let json = serde_json::to_string(&spelled.rule).unwrap();
    insta::assert_snapshot!(json, @r#"{"name":"a","source":"cpu","aggregations":[{"field":"usage","function":["approx_percentile(0.99)","approx_percentile(0.5)","approx_percentile(0.999)","approx_percentile(0.125)"]}]}"#);
    assert_eq!(one(&json), spelled);
    assert_eq!(rule("p95", ", as: usage_p95").rule, rule("approx_percentile(.95)", "").rule);
    let child = compiled(
        "[{name: p, source: cpu, interval: 1h, aggregations: [{field: usage, function: [p50, distinct]}]}, \
          {name: c, source: p, interval: 1d, aggregations: [{field: usage, function: [p99, distinct]}]}]",
    )
    .unwrap();
    let parent = child[0].resolve(SourceColumns::Points(&cpu_schema())).unwrap();
    let child = child[1].resolve(SourceColumns::Partials(&parent)).unwrap();
    insta::assert_snapshot!(columns(&child), @"usage_p99:float usage_distinct:integer");
    assert_eq!(child.outputs[0].merges.as_deref(), Some("usage_p50"));
}

#[test]
fn a_counter_needs_groups_of_one_series() {
    let rule = |groups: &str| {
        format!(
            "{{name: a, source: cpu, interval: 1h, {groups} aggregations: [{{field: usage, function: [increase, rate]}}]}}"
        )
    };
    for groups in ["", "group_by: [host],"] {
        assert_eq!(
            reasons(&format!("[{}]", rule(groups))),
            "aggregate a: group_by: increase follows one series, so each needs a group of \
             its own; use \"*\""
        );
    }
    let all =
        compiled(&format!("[{}, {{name: b, source: a, interval: 1d}}]", rule("group_by: '*',")))
            .unwrap();
    let parent = all[0].resolve(SourceColumns::Points(&cpu_schema())).unwrap();
    let child = all[1].resolve(SourceColumns::Partials(&parent)).unwrap();
    insta::assert_snapshot!(columns(&child), @"host:tag region:tag usage_increase:float usage_rate:float");
    let regrouped = compiled(&format!(
        "[{}, {{name: b, source: a, interval: 1d, group_by: [host]}}]",
        rule("group_by: '*',")
    ));
    assert!(regrouped.unwrap_err()[0].contains("increase follows one series"));
}

#[test]
fn boundaries_of_a_child_are_boundaries_of_its_parent() {
    let rule = |name: &str, source: &str, interval: &str| {
        let interval =
            if interval == "none" { String::new() } else { format!("interval: {interval}, ") };
        format!("{{name: {name}, source: {source}, {interval}aggregations: [{{function: count}}]}}")
    };
    let over = |parent: &str, child: &str| {
        let rules = [rule("p", "cpu", parent), rule("c", "p", child)];
        compiled(&format!("[{}]", rules.join(", "))).map(|all| all[1].pieces)
    };
    for (parent, child) in
        [("1m", "1h"), ("1h", "none"), ("1d", "1mo"), ("1mo", "1y"), ("7h", "7d"), ("none", "none")]
    {
        assert!(over(parent, child).is_ok(), "{child} over {parent}");
    }
    for (parent, child) in
        [("1h", "1m"), ("7m", "1h"), ("1w", "1mo"), ("none", "1d"), ("7h", "none")]
    {
        assert!(over(parent, child).is_err(), "{child} over {parent}");
    }
    insta::assert_snapshot!(over("7h", "none").unwrap_err().join("\n"), @"aggregate c: interval: missing; all time is kept by UTC days, and 7h of p does not divide a day");
    insta::assert_snapshot!(over("none", "1d").unwrap_err().join("\n"), @"aggregate c: interval: p has no interval, so it cannot be cut into 1d");
}

#[test]
fn rules_are_checked_against_each_other() {
    let rule = |name: &str, source: &str| {
        format!(
            "{{name: {name}, source: {source}, interval: 1h, aggregations: [{{function: count}}]}}"
        )
    };
    let all = |rules: &[(&str, &str)]| {
        let rules: Vec<_> = rules.iter().map(|(name, source)| rule(name, source)).collect();
        format!("[{}]", rules.join(", "))
    };
    insta::assert_snapshot!(reasons(&all(&[("x", "a"), ("a", "b"), ("b", "c"), ("c", "a")])), @"source: these aggregates read each other: a -> b -> c -> a");
    insta::assert_snapshot!(reasons(&all(&[("a", "cpu"), ("a", "mem")])), @"name: there is another aggregate named a");
    let deep = compiled(&all(&[("c", "b"), ("b", "a"), ("a", "cpu")])).unwrap();
    let names: Vec<_> = deep.iter().map(|d| &*d.id.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn columns_exist_before_data_and_get_their_types_from_it() {
    let totals = one("{name: totals, source: orders, group_by: [status], aggregations: \
        [{field: id, function: count, as: count}, {field: amount, function: [sum, last], }]}");
    let empty = Schema::default();
    let before = totals.resolve(SourceColumns::Points(&empty)).unwrap();
    insta::assert_snapshot!(columns(&before), @"status:tag? count:integer? amount_sum:float? amount_last:float?");
    let schema = Schema::of([
        Column::tag("id"),
        Column::field("status", FieldType::String),
        Column::field("amount", FieldType::Integer),
    ]);
    let after = totals.resolve(SourceColumns::Points(&schema)).unwrap();
    insta::assert_snapshot!(columns(&after), @"status:string count:integer amount_sum:integer amount_last:integer");
}

#[test]
fn a_star_follows_fields_of_a_fitting_type() {
    let all = one("{name: all, source: cpu, interval: 5m, group_by: '*', aggregations: \
        [{field: '*', function: [mean, count]}, {field: usage, function: max, as: temp_mean}]}");
    let resolved = all.resolve(SourceColumns::Points(&cpu_schema())).unwrap();
    insta::assert_snapshot!(columns(&resolved), @"host:tag region:tag usage_mean:float usage_count:integer temp_count:integer note_count:integer seen_count:integer temp_mean:float");
    insta::assert_debug_snapshot!(resolved.left_out, @r#"
    [
        LeftOut {
            field: "temp",
            function: Mean,
            reason: "another column is named temp_mean",
        },
    ]
    "#);
    let own_names = one("{name: cpu_5m, source: cpu, interval: 5m, group_by: '*', aggregations: \
        [{field: '*', function: mean, as: '*'}]}");
    let parent = own_names.resolve(SourceColumns::Points(&cpu_schema())).unwrap();
    insta::assert_snapshot!(columns(&parent), @"host:tag region:tag usage:float temp:float");
}

#[test]
fn a_child_resolves_to_the_partials_of_its_parent() {
    let all = compiled(
        "[{name: cpu_5m, source: cpu, interval: 5m, group_by: '*', aggregations: [{field: '*', function: mean, as: '*'}]}, \
          {name: cpu_1h, source: cpu_5m, interval: 1h}, \
          {name: by_host, source: cpu_1h, group_by: [host, rack], aggregations: [{field: usage, function: mean}]}]",
    )
    .unwrap();
    let parent = all[0].resolve(SourceColumns::Points(&cpu_schema())).unwrap();
    let child = all[1].resolve(SourceColumns::Partials(&parent)).unwrap();
    insta::assert_snapshot!(columns(&child), @"host:tag region:tag usage:float temp:float");
    let merges: Vec<_> = child.outputs.iter().filter_map(|o| o.merges.as_deref()).collect();
    assert_eq!(merges, ["usage", "temp"]);
    let keyed = all[2].resolve(SourceColumns::Partials(&child)).unwrap();
    insta::assert_snapshot!(columns(&keyed), @"host:tag rack:tag? usage_mean:float");
    assert_eq!(keyed.outputs[0].merges.as_deref(), Some("usage"));
    let nothing = all[0].resolve(SourceColumns::Points(&Schema::default())).unwrap();
    let early = all[2].resolve(SourceColumns::Partials(&nothing)).unwrap();
    insta::assert_snapshot!(columns(&early), @"host:tag? rack:tag? usage_mean:float?");
}

#[test]
fn what_the_data_contradicts_is_refused() {
    let refused = |keys: &str| {
        let definition = one(&format!("{{name: a, source: cpu, {keys}}}"));
        definition.resolve(SourceColumns::Points(&cpu_schema())).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refused("aggregations: [{field: note, function: mean}]"), @"aggregate a: function: mean does not take note, which is a string");
    insta::assert_snapshot!(refused("aggregations: [{field: note, function: stddev}]"), @"aggregate a: function: stddev does not take note, which is a string");
    insta::assert_snapshot!(refused("aggregations: [{field: host, function: sum}]"), @"aggregate a: function: sum does not take host, which is a string");
    insta::assert_snapshot!(refused("interval: 1d, time_column: usage, aggregations: [{function: count}]"), @"aggregate a: time_column: usage is a field of type float; declare it as timestamp under measurements");
    insta::assert_snapshot!(refused("interval: 1d, time_column: nix, aggregations: [{function: count}]"), @"aggregate a: time_column: cpu has no nix; declare it as timestamp under measurements");
    insta::assert_snapshot!(refused("group_by: '*', aggregations: [{field: temp, function: max, as: host}]"), @"aggregate a: aggregations: the source has a tag host too; use `as` for another name");
}

#[test]
fn a_time_column_is_kept_by_days() {
    let keys = "interval: 1h, time_column: seen, aggregations: [{function: count}]";
    let all = compiled(&format!(
        "[{{name: p, source: cpu, {keys}}}, {{name: c, source: p, interval: 1d}}]"
    ))
    .unwrap();
    for definition in &all {
        assert!(definition.is_kept_by_days() && definition.has_time());
        assert_eq!(definition.pieces, Pieces::of(None));
        assert_eq!(definition.time_column.as_deref(), Some("seen"));
    }
    assert!(all[0].resolve(SourceColumns::Points(&cpu_schema())).is_ok());
}
