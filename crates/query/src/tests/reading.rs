//! Queries: columns, filters, time, retention, plans.

use highwater_core::bucket::Span;
use highwater_core::{MeasurementId, ScanFilter, TimeRange, TimeRanges, Timestamp};
use highwater_storage::{Commit, Edit, RetentionRule};

use super::*;

#[tokio::test]
async fn all_columns_are_time_tags_fields() {
    let db = Db::with_cpu().await;
    assert_eq!(
        db.sql("SELECT * FROM cpu ORDER BY time").await,
        "2024-01-01T10:00:00,x,a,10.0,4, / 2024-01-01T10:30:00,x,a,20.0,, / \
         2024-01-01T11:00:00,y,b,30.0,8, / 2024-01-01T11:30:00,,c,40.0,,true"
    );
    assert_eq!(db.sql("SELECT name, host FROM disk").await, "sd a,a");
    assert_eq!(db.sql("SELECT count(*) FROM cpu").await, "4");
    db.storage.flush().await.unwrap();
    db.write(&["cpu host=a,dc=x usage=11.0 2024-01-01T10:00:00Z"]).await;
    assert_eq!(
        db.sql("SELECT usage, cores FROM cpu WHERE host = 'a' ORDER BY time").await,
        "11.0,4 / 20.0,"
    );
}

#[tokio::test]
async fn filters_of_time_and_tags_are_right_in_every_spelling() {
    let db = Db::with_cpu().await;
    for _ in 0..2 {
        for (filter, expected) in [
            ("time >= '2024-01-01T11:00:00Z'", "30.0 / 40.0"),
            ("time >= '2024-01-01 11:00:00'", "30.0 / 40.0"),
            ("time > '2024-01-01T12:00:00+01:00'", "40.0"),
            ("'2024-01-01T11:00:00Z' > time", "10.0 / 20.0"),
            ("time >= TIMESTAMP '2024-01-01T11:30:00'", "40.0"),
            ("time BETWEEN '2024-01-01T10:30:00Z' AND '2024-01-01T11:00:00Z'", "20.0 / 30.0"),
            ("time = '2024-01-01T10:30:00Z' OR time > '2024-01-01T11:15:00Z'", "20.0 / 40.0"),
            ("time IN ('2024-01-01T10:30:00Z', '2024-01-01T10:00:00Z')", "10.0 / 20.0"),
            ("time < now() - INTERVAL '1 hour 15 minutes'", "10.0 / 20.0"),
            ("CAST(time AS DATE) = '2024-01-01'", "10.0 / 20.0 / 30.0 / 40.0"),
            ("date(time) < CURRENT_DATE", ""),
            ("date(time) = CURRENT_DATE AND host <> 'a'", "30.0 / 40.0"),
            ("time_bucket('1h', time) = '2024-01-01T10:00:00Z'", "10.0 / 20.0"),
            ("time_bucket('1h', time) > '2024-01-01T10:00:00Z'", "30.0 / 40.0"),
            ("host = 'b'", "30.0"),
            ("host IN ('a', 'c') AND dc IS NULL", "40.0"),
            ("host LIKE 'a%' OR usage = 30", "10.0 / 20.0 / 30.0"),
            ("host = 'a' AND time < '2024-01-01T10:15:00Z'", "10.0"),
            ("NOT (host = 'a' OR time > '2024-01-01T11:15:00Z')", "30.0"),
            ("time < NULL", ""),
        ] {
            let found = db.sql(&format!("SELECT usage FROM cpu WHERE {filter} ORDER BY 1")).await;
            assert_eq!(found, expected, "{filter}");
        }
        db.storage.flush().await.unwrap();
    }
}

#[tokio::test]
async fn the_usual_forms_of_queries_work() {
    let db = Db::with_cpu().await;
    for (sql, expected) in [
        ("SELECT c.host, d.free FROM cpu c JOIN disk d ON c.host = d.host LIMIT 1", "a,7"),
        (
            "WITH x AS (SELECT host, max(usage) m FROM cpu GROUP BY host) SELECT m FROM x ORDER BY m",
            "20.0 / 30.0 / 40.0",
        ),
        ("SELECT host FROM cpu UNION SELECT host FROM disk ORDER BY host", "a / b / c"),
        (
            "SELECT row_number() OVER (PARTITION BY host ORDER BY time) FROM cpu WHERE host = 'a' ORDER BY time",
            "1 / 2",
        ),
        ("SELECT usage FROM (SELECT * FROM cpu) WHERE host = 'b'", "30.0"),
        ("SELECT \"usage\" FROM public.cpu WHERE \"host\" = 'c'", "40.0"),
        ("SELECT COUNT(*) FROM highwater.public.cpu HAVING Count(*) > 3", "4"),
        ("VALUES (1, 'x')", "1,x"),
        ("SELECT count(*) FROM generate_series(1, 5)", "5"),
        ("SELECT usage FROM cpu ORDER BY time DESC LIMIT 2 OFFSET 1", "30.0 / 20.0"),
        ("SELECT jsonb_build_object('a', 1, 'b', 'x')", "{a: 1, b: x}"),
        ("SELECT max(time) AT TIME ZONE 'Europe/Berlin' FROM cpu", "2024-01-01T11:30:00+01:00"),
        ("SELECT date_trunc('hour', max(time)) FROM cpu", "2024-01-01T11:00:00"),
        ("SELECT first_value(usage ORDER BY time DESC) FROM cpu", "40.0"),
        (
            "SELECT usage FROM cpu WHERE time < '2262-01-01' AND time > '1678-01-01' ORDER BY time LIMIT 1",
            "10.0",
        ),
        (
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 4) SELECT max(n) FROM r",
            "4",
        ),
        (
            "SELECT host, count(*) FROM cpu GROUP BY ROLLUP (host) ORDER BY host NULLS LAST LIMIT 1",
            "a,2",
        ),
        ("SELECT now(), CURRENT_DATE", "2024-01-01T12:00:00,2024-01-01"),
    ] {
        assert_eq!(db.sql(sql).await, expected, "{sql}");
    }
    let limited = db.sql("SELECT usage FROM cpu LIMIT 2").await;
    assert_eq!(limited.split(" / ").count(), 2);
}

#[tokio::test]
async fn what_there_is_can_be_listed() {
    let db = Db::with_cpu().await;
    let tables = db.sql("SHOW TABLES").await;
    assert!(tables.contains("highwater,public,cpu,BASE TABLE"), "{tables}");
    assert!(tables.contains("highwater,public,disk,BASE TABLE"), "{tables}");
    assert_eq!(
        db.sql(
            "SELECT column_name, data_type FROM information_schema.columns \
                WHERE table_name = 'disk' ORDER BY ordinal_position"
        )
        .await,
        "time,Timestamp(ns) / host,Dictionary(Int32, Utf8) / free,Int64 / name,Utf8"
    );
    assert!(db.sql("DESCRIBE cpu").await.starts_with("time,Timestamp(ns),NO"));
    assert!(db.sql("SHOW COLUMNS FROM cpu").await.contains("usage"));
    for (sql, expected) in [
        ("SHOW MEASUREMENTS", "cpu / disk"),
        ("SHOW TAG KEYS", "cpu,dc / cpu,host / disk,host"),
        ("show tag keys from cpu", "dc / host"),
        ("SHOW FIELD KEYS FROM public.disk;", "free,Int64 / name,Utf8"),
        ("SHOW TAG VALUES FROM \"cpu\" WITH KEY = \"host\"", "a / b / c"),
    ] {
        assert_eq!(db.sql(sql).await, expected, "{sql}");
    }
    assert!(db.error("SHOW FIELD KEYS FROM nothing").await.contains("'nothing' not found"));
}

#[tokio::test]
async fn plans_show_what_is_scanned() {
    let db = Db::with_cpu().await;
    db.storage.flush().await.unwrap();
    let plan =
        db.sql("EXPLAIN SELECT usage FROM cpu WHERE time >= '2024-01-01T11:00:00Z' AND host = 'a'");
    let plan = plan.await;
    let scan = "MeasurementScan: cpu, segments=1 of 1, memtables=0, merges=0";
    assert!(plan.contains(scan), "{plan}");
    assert!(plan.contains("times=[2024-01-01T11:00:00Z, "), "{plan}");
    assert!(plan.contains("host={\"a\"}"), "{plan}");
    assert!(!plan.contains("FilterExec: time"), "time is filtered by the scan: {plan}");
    let pruned = db.sql("EXPLAIN SELECT usage FROM cpu WHERE time < '2023-01-01'").await;
    assert!(pruned.contains("segments=0 of 1"), "{pruned}");
    let ran = db.sql("EXPLAIN ANALYZE SELECT usage FROM cpu").await;
    assert!(ran.contains("output_rows=4") && ran.contains("segments=1"), "{ran}");
}

#[tokio::test]
async fn a_session_keeps_its_version_and_its_instant() {
    let db = Db::with_cpu().await;
    let session = db.session();
    db.write(&["cpu host=d usage=1.0 2024-01-01T11:45:00Z"]).await;
    db.clock.advance_to(Timestamp::parse("2025-01-01T00:00:00Z").unwrap()).unwrap();
    let sql = "SELECT count(*), now() FROM cpu";
    assert_eq!(run(&session, sql, Params::None).await.unwrap(), "4,2024-01-01T12:00:00");
    assert_eq!(db.sql(sql).await, "5,2025-01-01T00:00:00");
}

#[tokio::test]
async fn expired_points_are_hidden_unless_asked_for() {
    let db = Db::with_cpu().await;
    let keep = Span::Nanos(3_600_000_000_000);
    let rules = vec![RetentionRule { measurement: "c*".into(), keep, max_hold: None }];
    let edit = Edit::SetRetention { database: "t".into(), rules };
    db.storage.commit(Commit { edits: vec![edit], ..Default::default() }).await.unwrap();
    assert_eq!(db.sql("SELECT usage FROM cpu ORDER BY 1").await, "30.0 / 40.0");
    assert_eq!(db.sql("SELECT count(*) FROM cpu WHERE time < '2024-01-01T10:15:00Z'").await, "0");
    assert_eq!(db.sql("SELECT count(*) FROM disk").await, "1");
    let all = SessionOptions { show_expired: true, ..SessionOptions::of("t") };
    let all = || db.queries.session(all.clone());
    let count = run(&all(), "SELECT count(*) FROM cpu", Params::None).await;
    assert_eq!(count.unwrap(), "4");
    // What is hidden is deleted like the rest: aggregates still follow it.
    db.sql("DELETE FROM cpu WHERE usage < 35 AND usage <> 30 AND host IN (SELECT host FROM disk)")
        .await;
    let left = run(&all(), "SELECT usage FROM cpu ORDER BY 1", Params::None).await;
    assert_eq!(left.unwrap(), "30.0 / 40.0");
}

#[tokio::test]
async fn a_measurement_can_be_read_within_a_set_of_instants() {
    let db = Db::with_cpu().await;
    let session = db.session();
    let at = |text: &str| Timestamp::parse(text).unwrap();
    let times: TimeRanges = [
        TimeRange::new(at("2024-01-01T10:00:00Z"), at("2024-01-01T10:30:00Z")),
        TimeRange::since(at("2024-01-01T11:30:00Z")),
    ]
    .into_iter()
    .collect();
    let table =
        session.measurement_table(&MeasurementId::new("t", "cpu"), ScanFilter::at(times)).unwrap();
    let source = datafusion::datasource::provider_as_source(table);
    let plan = datafusion::logical_expr::LogicalPlanBuilder::scan("m", source, None)
        .and_then(|plan| plan.project(vec![datafusion::prelude::col("usage")]))
        .and_then(|plan| plan.sort(vec![datafusion::prelude::col("usage").sort(true, false)]))
        .and_then(|plan| plan.build())
        .unwrap();
    let found = session.execute(&plan).await.unwrap().collect().await.unwrap();
    assert_eq!(rows(&found), "10.0 / 40.0");
}
