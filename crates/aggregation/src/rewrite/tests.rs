//! Which questions are answered from which aggregate, and why others are not.

use highwater_query::{Params, Rewrite, SessionOptions};

use crate::runtime::tests::Fixture;

const RULES: [&str; 5] = [
    r#"{"name":"cpu_1m","source":"cpu","interval":"1m","group_by":["host"],
        "aggregations":[{"function":"count"},
                        {"field":"usage","function":["count","mean","max","last","stddev","sum_fast"]}],
        "refresh":{"every":"10s"}}"#,
    r#"{"name":"cpu_1h","source":"cpu_1m","interval":"1h","refresh":{"every":"10s"}}"#,
    r#"{"name":"high_1h","source":"cpu","interval":"1h","group_by":["host"],"where":"usage > 90",
        "aggregations":[{"function":"count"},{"field":"usage","function":"min"}],
        "refresh":{"every":"10s"}}"#,
    r#"{"name":"berlin_1d","source":"cpu","interval":"1d","timezone":"Europe/Berlin",
        "aggregations":[{"field":"usage","function":["sum","count"]}],"refresh":{"every":"10s"}}"#,
    r#"{"name":"by_host","source":"cpu","group_by":["host"],
        "aggregations":[{"field":"usage","function":"last"}],"refresh":{"every":"10s"}}"#,
];

/// Points of two hosts, every 20 seconds of six hours, all refreshed.
async fn six_hours() -> Fixture {
    let fixture = Fixture::open().await;
    for rule in RULES {
        fixture.define(rule).await;
    }
    let points: Vec<(&str, i64, f64)> = (0..1080)
        .flat_map(|at| [("a", at * 20, (at % 100) as f64), ("b", at * 20, (at % 7) as f64 / 3.0)])
        .collect();
    fixture.write(&points).await;
    for _ in 0..20 {
        fixture.at("2024-01-03T00:00:00Z").await;
    }
    fixture
}

fn options(rewrite: Rewrite) -> SessionOptions {
    SessionOptions { rewrite, ..SessionOptions::of("t") }
}

/// What is said about a query, without the name of the measurement.
async fn said(fixture: &Fixture, sql: &str) -> Vec<String> {
    let plan = fixture.ask(options(Rewrite::On), &format!("EXPLAIN {sql}")).await;
    let rows = plan.split(" / ").filter_map(|row| row.strip_prefix("rewrite,cpu: "));
    rows.map(str::to_owned).collect()
}

#[tokio::test]
async fn questions_go_to_the_coarsest_aggregate_that_answers_them() {
    let fixture = six_hours().await;
    let answered = [
        (
            "SELECT host, max(usage) FROM cpu WHERE time < '2024-01-01T05:00:00Z' GROUP BY host",
            "cpu_1h",
        ),
        (
            "SELECT avg(usage), count(*), count(usage), stddev(usage), var_pop(usage) FROM cpu",
            "cpu_1h",
        ),
        ("SELECT time_bucket('1h', time), avg(usage) FROM cpu GROUP BY 1", "cpu_1h"),
        (
            "SELECT time_bucket('10 minutes', time) AS t, host, mean(usage) FROM cpu GROUP BY t, host",
            "cpu_1m",
        ),
        ("SELECT date_trunc('day', time), max(usage) FROM cpu GROUP BY 1", "cpu_1h"),
        ("SELECT sum(usage), avg(usage) FROM cpu WHERE host <> 'b'", "cpu_1h"),
        (
            "SELECT time_bucket('1d', time, 'Europe/Berlin'), avg(usage) FROM cpu GROUP BY 1",
            "berlin_1d",
        ),
        ("SELECT date_bin(INTERVAL '2 hours', time), max(usage) FROM cpu GROUP BY 1", "cpu_1h"),
        (
            "SELECT date_bin(INTERVAL '1 hour', time, TIMESTAMP '2024-01-01T00:30:00'), max(usage) FROM cpu GROUP BY 1",
            "cpu_1m",
        ),
        ("SELECT date_part('hour', time), max(usage) FROM cpu GROUP BY 1", "cpu_1h"),
        ("SELECT CAST(time AS DATE), upper(host), max(usage) FROM cpu GROUP BY 1, 2", "cpu_1h"),
        (
            "SELECT max(usage) FROM cpu WHERE time >= '2024-01-01T01:59:30Z' AND time < '2024-01-01T05:10:00Z'",
            "cpu_1h",
        ),
        (
            "SELECT max(usage) FROM cpu WHERE time >= '2024-01-01T01:10:00Z' AND time < '2024-01-01T01:40:00Z'",
            "cpu_1m",
        ),
        ("SELECT max(usage) FROM cpu WHERE host IN ('a', 'c') AND upper(host) <> 'B'", "cpu_1h"),
        ("SELECT count(*), min(usage) FROM cpu WHERE usage > 90 GROUP BY host", "high_1h"),
        ("SELECT count(*) FROM cpu WHERE usage > 90.0 AND host = 'a'", "high_1h"),
        (
            "SELECT time_bucket('1d', time, 'Europe/Berlin'), sum(usage) FROM cpu GROUP BY 1",
            "berlin_1d",
        ),
        ("SELECT time_bucket('1d', time), last(usage) FROM cpu GROUP BY 1", "by_host"),
        (
            "SELECT last(u, t) FROM (SELECT usage AS u, time AS t, host AS h FROM cpu) AS c WHERE h = 'a' AND t < '2024-01-01T05:00:00Z'",
            "cpu_1h",
        ),
        (
            "WITH c AS (SELECT time_bucket('1h', time) AS t, usage FROM cpu) SELECT t, max(usage) FROM c GROUP BY t HAVING max(usage) > 3",
            "cpu_1h",
        ),
        ("SELECT count(DISTINCT host) FROM cpu WHERE time < '2024-01-01T05:00:00Z'", "cpu_1h"),
    ];
    for (sql, expected) in answered {
        let said = said(&fixture, sql).await;
        let name = said.first().map(|line| line.replace("answered from ", ""));
        assert_eq!(name.as_deref(), Some(expected), "{sql}: {said:?}");
        assert_eq!(said.len(), RULES.len(), "{sql}: {said:?}");
        let sorted = |answer: String| {
            let mut rows: Vec<String> = answer.split(" / ").map(str::to_owned).collect();
            rows.sort();
            rows
        };
        let on = sorted(fixture.ask(options(Rewrite::Require), sql).await);
        assert_eq!(on, sorted(fixture.ask(options(Rewrite::Off), sql).await), "{sql}");
    }
}

#[tokio::test]
async fn what_is_not_answered_has_a_reason() {
    let fixture = six_hours().await;
    let refused = [
        (
            "SELECT median(usage) FROM cpu",
            "cpu_1h",
            "median(cpu.usage) is none of what aggregates keep",
        ),
        ("SELECT sum_fast(usage) FROM cpu", "cpu_1m", "is none of what aggregates keep"),
        (
            "SELECT max(usage) FILTER (WHERE host = 'a') FROM cpu",
            "cpu_1h",
            "is none of what aggregates keep",
        ),
        ("SELECT max(usage + 1) FROM cpu", "cpu_1h", "is none of what aggregates keep"),
        ("SELECT min(usage) FROM cpu", "cpu_1h", "it keeps nothing that gives min(usage)"),
        ("SELECT min(usage) FROM cpu", "high_1h", "it has only points with usage > 90"),
        (
            "SELECT max(usage) FROM cpu WHERE usage > 5",
            "cpu_1h",
            "it does not group by usage, which usage > 5 names",
        ),
        ("SELECT usage, count(*) FROM cpu GROUP BY usage", "cpu_1h", "it does not group by usage"),
        (
            "SELECT upper(host), min(usage) FROM cpu GROUP BY 1",
            "berlin_1d",
            "it does not group by host",
        ),
        (
            "SELECT time_bucket('90s', time), max(usage) FROM cpu GROUP BY 1",
            "cpu_1m",
            "cuts its buckets",
        ),
        (
            "SELECT time, max(usage) FROM cpu GROUP BY time",
            "cpu_1m",
            "time goes by the times of points",
        ),
        (
            "SELECT max(usage) FROM cpu WHERE time >= '2024-01-01T01:10:10Z' AND time < '2024-01-01T01:10:40Z'",
            "cpu_1m",
            "no bucket of it lies within",
        ),
        (
            "SELECT max(usage) FROM cpu WHERE random() < 0.5",
            "cpu_1h",
            "is not a matter of groups alone",
        ),
        (
            "SELECT host, last(usage) FROM cpu GROUP BY host",
            "cpu_1h",
            "the last points of every series",
        ),
        (
            "SELECT host, max(usage) FROM cpu GROUP BY ROLLUP (host)",
            "cpu_1h",
            "several ways at once",
        ),
        ("SELECT max(usage) FROM (SELECT * FROM cpu LIMIT 7)", "cpu_1h", ""),
    ];
    for (sql, aggregate, expected) in refused {
        let said = said(&fixture, sql).await;
        assert!(!said.iter().any(|line| line.starts_with("answered")), "{sql}: {said:?}");
        if expected.is_empty() {
            assert_eq!(said, [""; 0], "{sql}");
            continue;
        }
        let line = said.iter().find(|line| line.starts_with(&format!("not from {aggregate}, ")));
        assert!(line.is_some_and(|line| line.contains(expected)), "{sql}: {said:?}");
    }
}

#[tokio::test]
async fn require_says_why_not_and_off_leaves_all_alone() {
    let fixture = six_hours().await;
    let sql = "SELECT min(usage) FROM cpu";
    let session = fixture.aggregates.query_engine().session(options(Rewrite::Require));
    let error = session.sql(sql, Params::None).await.unwrap_err().to_string();
    assert!(error.contains("not from cpu_1h, it keeps nothing that gives min(usage)"), "{error}");
    for sql in [
        "SELECT 1",
        "SELECT usage FROM cpu LIMIT 1",
        "SELECT host, last(usage) FROM cpu GROUP BY host",
    ] {
        session.sql(sql, Params::None).await.unwrap();
    }
    let plan = fixture.ask(options(Rewrite::Off), "EXPLAIN SELECT max(usage) FROM cpu").await;
    assert!(!plan.contains("cpu_1h") && !plan.contains("rewrite"), "{plan}");
}

#[tokio::test]
async fn names_types_and_nullability_stay() {
    let fixture = six_hours().await;
    let sql = "SELECT time_bucket('1h', time), host, count(*), count(usage) AS n, avg(usage), \
               last_time(usage), var_pop(usage) FROM cpu GROUP BY 1, 2";
    let mut schemas = Vec::new();
    for rewrite in [Rewrite::Require, Rewrite::Off] {
        let session = fixture.aggregates.query_engine().session(options(rewrite));
        schemas.push(
            session
                .sql(sql.replace("last_time(usage), ", "").as_str(), Params::None)
                .await
                .unwrap()
                .schema,
        );
    }
    assert_eq!(schemas[0], schemas[1]);
}
