//! The whole layer over a real engine in a temporary folder.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use highwater_core::{MockClock, PointBatch, TagSet, Timestamp};
use highwater_query::{Freshness, Limits, Params, SessionOptions};
use highwater_storage::{Engine, Settings, WriteMode};

use super::*;

pub(crate) struct Fixture {
    _folder: tempfile::TempDir,
    clock: Arc<MockClock>,
    pub(crate) aggregates: Aggregates,
}

impl Fixture {
    pub(crate) async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(MockClock::default());
        let engine = Engine::open(folder.path(), Settings::default(), Arc::clone(&clock) as _)
            .await
            .unwrap();
        let aggregates =
            Aggregates::open(engine, AggregationSettings::default(), Limits::default()).unwrap();
        Fixture { _folder: folder, clock, aggregates }
    }

    pub(crate) async fn define(&self, json: &str) {
        let rule = serde_json::from_str(json).unwrap();
        self.aggregates.create("t", rule).await.unwrap();
    }

    /// Writes `cpu` points: host, seconds since 2024-01-01, usage.
    pub(crate) async fn write(&self, points: &[(&str, i64, f64)]) {
        let host = |point: &(&str, i64, f64)| TagSet::new([("host", point.0)]).unwrap();
        let batch = PointBatch {
            measurement: "cpu".into(),
            tag_sets: points.iter().map(host).collect(),
            tag_set_of_row: (0..points.len() as u32).collect(),
            times: points.iter().map(|p| (1_704_067_200 + p.1) * 1_000_000_000).collect(),
            fields: vec![(
                "usage".into(),
                Arc::new(points.iter().map(|p| p.2).collect::<Float64Array>()) as ArrayRef,
            )],
            lines: (1..=points.len() as u32).collect(),
        };
        let mode = WriteMode::AllOrNothing;
        let report = self.aggregates.engine().write("t", vec![batch], mode).await.unwrap();
        assert_eq!(report.rows, points.len());
    }

    /// Writes a text field of `cpu`, host a, a point a second.
    async fn write_fields(&self, field: &str, from: i64, values: &[&str]) {
        let seconds = (from..).take(values.len());
        let batch = PointBatch {
            measurement: "cpu".into(),
            tag_sets: vec![TagSet::new([("host", "a")]).unwrap()],
            tag_set_of_row: vec![0; values.len()],
            times: seconds.map(|s| (1_704_067_200 + s) * 1_000_000_000).collect(),
            fields: vec![(field.into(), Arc::new(StringArray::from(values.to_vec())) as ArrayRef)],
            lines: (1..=values.len() as u32).collect(),
        };
        let mode = WriteMode::AllOrNothing;
        self.aggregates.engine().write("t", vec![batch], mode).await.unwrap();
    }

    pub(crate) async fn at(&self, time: &str) {
        self.clock.advance_to(Timestamp::parse(time).unwrap()).unwrap();
        self.aggregates.tick().await.unwrap();
    }

    async fn query(&self, freshness: Freshness, sql: &str) -> String {
        self.ask(SessionOptions { freshness, ..SessionOptions::of("t") }, sql).await
    }

    pub(crate) async fn ask(&self, options: SessionOptions, sql: &str) -> String {
        let session = self.aggregates.query_engine().session(options);
        let answer = session.sql(sql, Params::None).await.unwrap().collect().await.unwrap();
        let format = FormatOptions::default();
        let mut rows = Vec::new();
        for batch in &answer {
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .map(|c| ArrayFormatter::try_new(c, &format).unwrap())
                .collect();
            for row in 0..batch.num_rows() {
                let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
                rows.push(cells.join(","));
            }
        }
        rows.join(" / ")
    }

    async fn exact(&self, sql: &str) -> String {
        self.query(Freshness::Default, sql).await
    }

    async fn stored(&self, sql: &str) -> String {
        self.query(Freshness::Materialized, sql).await
    }
}

const CPU_1H: &str = r#"{"name":"cpu_1h","source":"cpu","interval":"1h","group_by":["host"],
    "aggregations":[{"field":"usage","function":["count","first","last","max","mean","min","sum"]}],
    "refresh":{"strategy":"periodic","every":"10s"}}"#;
const D2: [(&str, i64, f64); 5] =
    [("a", 0, 10.0), ("a", 60, 20.0), ("a", 1800, 60.0), ("a", 3600, 40.0), ("b", 0, 5.0)];
const ALL: &str = "SELECT * FROM cpu_1h ORDER BY host, time";

#[tokio::test]
async fn exact_reads_see_points_before_any_refresh() {
    let fixture = Fixture::open().await;
    fixture.define(CPU_1H).await;
    assert_eq!(fixture.exact(ALL).await, "");
    fixture.write(&D2).await;
    let expected = "2024-01-01T00:00:00,a,3,10.0,60.0,60.0,30.0,10.0,90.0 / \
                    2024-01-01T01:00:00,a,1,40.0,40.0,40.0,40.0,40.0,40.0 / \
                    2024-01-01T00:00:00,b,1,5.0,5.0,5.0,5.0,5.0,5.0";
    assert_eq!(fixture.exact(ALL).await, expected);
    assert_eq!(fixture.stored(ALL).await, "");
    fixture.at("2024-01-01T02:00:00Z").await;
    assert_eq!(fixture.exact(ALL).await, expected);
    assert_eq!(fixture.stored(ALL).await, expected);
    assert_eq!(fixture.exact("SELECT count(*) FROM cpu_1h").await, "3");
    let since = "SELECT usage_sum FROM cpu_1h WHERE time >= '2024-01-01T01:00:00Z'";
    assert_eq!(fixture.exact(since).await, "40.0");
}

#[tokio::test]
async fn a_late_point_restates_its_bucket_alone() {
    let fixture = Fixture::open().await;
    fixture.define(CPU_1H).await;
    fixture.define(r#"{"name":"cpu_1d","source":"cpu_1h","interval":"1d"}"#).await;
    fixture.write(&D2).await;
    fixture.at("2024-01-01T02:00:00Z").await;
    let before = fixture.aggregates.get("t", "cpu_1h").unwrap();
    fixture.write(&[("a", 2700, 110.0), ("a", 60, 30.0)]).await;
    let first = "SELECT usage_count, usage_sum FROM cpu_1h ORDER BY host, time LIMIT 1";
    assert_eq!(fixture.exact(first).await, "4,210.0");
    assert_eq!(fixture.stored(first).await, "3,90.0");
    let day = "SELECT host, usage_mean, usage_sum FROM cpu_1d ORDER BY host";
    assert_eq!(fixture.exact(day).await, "a,50.0,250.0 / b,5.0,5.0");
    fixture.at("2024-01-01T02:00:10Z").await;
    assert_eq!(fixture.stored(first).await, "4,210.0");
    let after = fixture.aggregates.get("t", "cpu_1h").unwrap();
    assert_eq!(after.buckets_recomputed - before.buckets_recomputed, 1);
    assert_eq!(after.revisions, 1);
    assert_eq!(after.last_processed.unwrap().to_string(), "2024-01-01T02:00:00Z");
    fixture.at("2024-01-02T00:00:10Z").await;
    fixture.at("2024-01-02T00:10:10Z").await;
    assert_eq!(fixture.stored(day).await, "a,50.0,250.0 / b,5.0,5.0");
}

#[tokio::test]
async fn a_sum_is_a_partial_in_sql_too() {
    let fixture = Fixture::open().await;
    fixture.define(CPU_1H).await;
    fixture.write(&D2).await;
    let merged = "SELECT sum_finish(sum_merge(usage_sum_partial)) FROM cpu_1h";
    assert_eq!(fixture.exact(merged).await, "135.0");
    fixture.at("2024-01-01T02:00:00Z").await;
    for extra in ["", " WHERE host <> 'c'", " WHERE time < '2024-01-02'"] {
        assert_eq!(fixture.stored(&format!("{merged}{extra}")).await, "135.0");
        assert_eq!(fixture.exact(&format!("{merged}{extra}")).await, "135.0");
    }
}

/// Every function over three levels, with late points, from storage and exact, equals raw SQL.
#[tokio::test]
async fn functions_of_every_level_equal_those_over_points() {
    let fixture = Fixture::open().await;
    let functions = r#"["stddev","variance_pop","first_time","last_time","distinct",
        "approx_distinct","p50","approx_percentile(0.99)","increase","rate","time_weighted_average",
        "histogram(1, 2.5, 1e9)"]"#;
    fixture
        .define(&format!(
            r#"{{"name":"cpu_1m","source":"cpu","interval":"1m","group_by":"*",
            "aggregations":[{{"field":"usage","function":{functions}}}]}}"#
        ))
        .await;
    fixture.define(r#"{"name":"cpu_1h","source":"cpu_1m","interval":"1h"}"#).await;
    fixture.define(r#"{"name":"cpu_all","source":"cpu_1h"}"#).await;
    let usage = |n: i64| (n * n % 101) as f64 * 0.1;
    let early: Vec<_> = (0..300).map(|n| ("a", n * 40, usage(n))).collect();
    fixture.write(&early).await;
    fixture.at("2024-01-01T04:00:00Z").await;
    let late: Vec<_> = (0..50).map(|n| ("a", n * 250 + 7, usage(n + 7))).collect();
    let other: Vec<_> = (0..200).map(|n| ("b", n * 60, usage(n) + 1e9)).collect();
    fixture.write(&late).await;
    fixture.write(&other).await;
    let raw = "stddev(usage), variance_pop(usage), first_time(usage), last_time(usage), \
               count(DISTINCT usage), approx_distinct(usage), approx_percentile(usage, 0.5), \
               approx_percentile(usage, 0.99), increase(usage), rate(usage), \
               time_weighted_avg(usage), histogram(usage, 1, 2.5, 1e9)";
    let outputs = "usage_stddev, usage_variance_pop, usage_first_time, usage_last_time, \
                   usage_distinct, usage_approx_distinct, usage_p50, usage_p99, usage_increase, \
                   usage_rate, usage_time_weighted_average, usage_histogram";
    let hours = format!(
        "SELECT time_bucket('1h', time) AS t, host, {raw} FROM cpu GROUP BY t, host ORDER BY t, host"
    );
    let all = format!("SELECT host, {raw} FROM cpu GROUP BY host ORDER BY host");
    let (hours, all) = (fixture.exact(&hours).await, fixture.exact(&all).await);
    assert!(hours.matches(" / ").count() == 7 && !hours.contains(",,"), "{hours}");
    let of_hours = format!("SELECT time, host, {outputs} FROM cpu_1h ORDER BY time, host");
    let of_all = format!("SELECT host, {outputs} FROM cpu_all ORDER BY host");
    let exact = (fixture.exact(&of_hours).await, fixture.exact(&of_all).await);
    assert_eq!(exact, (hours.clone(), all.clone()));
    fixture.at("2024-01-01T05:00:00Z").await;
    fixture.at("2024-01-02T05:00:00Z").await;
    assert_eq!(fixture.stored(&of_hours).await, hours);
    assert_eq!(fixture.stored(&of_all).await, all);
    let merged = "SELECT distinct_finish(distinct_merge(usage_distinct_partial)), \
                  approx_percentile_finish(approx_percentile_merge(usage_p50_partial), 0.95) \
                  FROM cpu_1m";
    let points = "SELECT count(DISTINCT usage), approx_percentile(usage, 0.95) FROM cpu";
    assert_eq!(fixture.exact(merged).await, fixture.exact(points).await);
}

#[tokio::test]
async fn a_field_that_comes_later_may_be_of_any_type() {
    let fixture = Fixture::open().await;
    let outputs = r#"[{"field":"user","function":["distinct","last_time","approx_distinct"]}]"#;
    let rule =
        format!(r#"{{"name":"users","source":"cpu","interval":"1h","aggregations":{outputs}}}"#);
    fixture.define(&rule).await;
    fixture.define(r#"{"name":"users_1d","source":"users","interval":"1d"}"#).await;
    fixture.write(&[("a", 0, 1.0)]).await;
    fixture.at("2024-01-01T02:00:00Z").await;
    fixture.write_fields("user", 7200, &["u1", "u2", "u1"]).await;
    for time in ["2024-01-01T04:00:00Z", "2024-01-02T04:00:00Z"] {
        fixture.at(time).await;
        let hours = "SELECT user_distinct, user_approx_distinct FROM users ORDER BY time";
        assert_eq!(fixture.exact(hours).await, "0,0 / 2,2");
        let day = "SELECT user_distinct, user_last_time, user_approx_distinct FROM users_1d";
        assert_eq!(fixture.exact(day).await, "2,2024-01-01T02:00:02,2");
    }
}

#[tokio::test]
async fn a_condition_must_name_what_its_source_keeps() {
    let fixture = Fixture::open().await;
    fixture.define(CPU_1H).await;
    let rule = r#"{"name":"busy","source":"cpu_1h","interval":"1d","where":"usage > 10"}"#;
    let rule = serde_json::from_str(rule).unwrap();
    let error = fixture.aggregates.create("t", rule).await.unwrap_err().to_string();
    assert!(error.contains("usage is not a group of cpu_1h"), "{error}");
    let filtered = r#"{"name":"of_b","source":"cpu_1h","interval":"1d","where":"host = 'b'"}"#;
    fixture.define(filtered).await;
    let missing = r#"{"name":"none","source":"cpu","interval":"1d","where":"dc = 'x'",
        "aggregations":[{"function":"count"}]}"#;
    fixture.define(missing).await;
    fixture.write(&D2).await;
    assert_eq!(fixture.exact("SELECT host, usage_sum FROM of_b").await, "b,5.0");
    assert_eq!(fixture.exact("SELECT * FROM none").await, "");
}

#[tokio::test]
async fn system_tables_tell_how_it_is() {
    let fixture = Fixture::open().await;
    fixture.define(CPU_1H).await;
    fixture.write(&D2).await;
    fixture.at("2024-01-01T02:00:00Z").await;
    let state = "SELECT name, state, refresh_count, stale_buckets FROM system.aggregates";
    assert_eq!(fixture.exact(state).await, "cpu_1h,active,1,0");
    let runs = "SELECT name, reason, points_scanned FROM system.aggregate_runs";
    assert_eq!(fixture.exact(runs).await, "cpu_1h,buckets_closed,5");
    assert_ne!(fixture.exact("SELECT count(*) FROM system.segments").await, "0");
}
