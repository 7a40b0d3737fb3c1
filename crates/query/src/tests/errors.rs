//! What is refused, and how it is said.

use highwater_core::ErrorKind;

use super::*;
use crate::limits::STACK_BYTES;

#[tokio::test]
async fn errors_have_a_kind_and_name_the_fault() {
    let db = Db::with_cpu().await;
    for (sql, kind, expected) in [
        ("SELECT * FROM cpv", ErrorKind::NotFound, "table 'cpv' not found; did you mean cpu?"),
        (
            "SELECT * FROM other.cpu",
            ErrorKind::NotFound,
            "table 'other.cpu' not found; did you mean cpu?",
        ),
        ("SELECT * FROM CPU", ErrorKind::NotFound, "table 'CPU' not found; did you mean cpu?"),
        ("SELECT nope FROM cpu", ErrorKind::Invalid, "No field named nope"),
        ("SELEC 1", ErrorKind::Invalid, "SELEC"),
        ("SELECT nope(1)", ErrorKind::Invalid, "nope"),
        ("SELECT 'a", ErrorKind::Invalid, "Unterminated"),
        (
            "SELECT * FROM cpu FOR UPDATE",
            ErrorKind::Invalid,
            "FOR UPDATE or FOR SHARE is not supported",
        ),
        ("CREATE TABLE x (a INT)", ErrorKind::Invalid, "CREATE TABLE is not supported"),
        ("DROP TABLE cpu", ErrorKind::Invalid, "DROP TABLE is not supported"),
        ("UPDATE cpu SET usage = 1", ErrorKind::Invalid, "UPDATE is not supported"),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT 1",
            ErrorKind::Invalid,
            "CREATE MATERIALIZED VIEW is not supported",
        ),
        (
            "REFRESH MATERIALIZED VIEW v",
            ErrorKind::Invalid,
            "REFRESH MATERIALIZED VIEW is not supported",
        ),
        ("BEGIN", ErrorKind::Invalid, "BEGIN is not supported"),
        ("SELECT usage FROM cpu FETCH FIRST 1 ROWS ONLY", ErrorKind::Invalid, "FETCH"),
        ("SELECT abs(DISTINCT usage) FROM cpu", ErrorKind::Invalid, "DISTINCT or ALL in abs"),
        ("SELECT * FROM cpu WHERE time > 'soon'", ErrorKind::Invalid, "soon"),
        ("SELECT * FROM cpu WHERE time < '9999-12-31'", ErrorKind::Invalid, "9999-12-31"),
        ("SELECT 9223372036854775807 + cores FROM cpu", ErrorKind::Computation, "verflow"),
        ("SELECT cores - 1 + 9223372036854775807 - 1 FROM cpu", ErrorKind::Computation, "verflow"),
        ("SELECT 9223372036854775807 + 1", ErrorKind::Computation, "verflow"),
        ("SELECT -(cores - 4) * 9223372036854775807 FROM cpu", ErrorKind::Computation, "verflow"),
        ("SELECT cores / 0 FROM cpu WHERE cores > 1", ErrorKind::Computation, "ivide by zero"),
        ("SELECT CAST(name AS BIGINT) FROM disk", ErrorKind::Computation, "sd a"),
    ] {
        let error = db.try_sql(sql).await.expect_err(sql);
        assert!(error.to_string().contains(expected), "{sql}: {error}");
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        for noise in ["Error during planning", "DataFusion", "highwater.public", "External"] {
            assert!(!error.to_string().contains(noise), "{sql}: {error}");
        }
    }
}

#[tokio::test]
async fn in_subqueries_answer_rightly_or_not_at_all() {
    let db = Db::with_cpu().await;
    let count = |condition: &str| format!("SELECT count(*) FROM cpu WHERE {condition}");
    for (condition, expected) in [
        ("host IN (SELECT host FROM disk)", "2"),
        ("host NOT IN (SELECT host FROM disk) AND usage > 0", "2"),
        ("dc NOT IN (SELECT dc FROM cpu WHERE host = 'a')", "1"),
        ("dc NOT IN (SELECT dc FROM cpu)", "0"),
        ("host IN (SELECT host FROM disk) OR usage > 35", "3"),
    ] {
        assert_eq!(db.sql(&count(condition)).await, expected, "{condition}");
    }
    for condition in [
        "dc NOT IN (SELECT dc FROM cpu) OR usage > 100",
        "NOT (dc IN (SELECT dc FROM cpu) OR usage > 100)",
        "(dc IN (SELECT dc FROM cpu)) IS NULL",
        "CASE WHEN dc IN (SELECT dc FROM cpu) THEN false ELSE true END",
    ] {
        let message = db.error(&count(condition)).await;
        assert!(message.contains("use EXISTS or NOT EXISTS"), "{condition}: {message}");
    }
    let message = db.error("SELECT host IN (SELECT host FROM disk) FROM cpu").await;
    assert!(message.contains("use EXISTS"), "{message}");
}

#[tokio::test]
async fn a_correlated_aggregate_over_a_cast_is_refused() {
    let db = Db::with_cpu().await;
    let days = "(SELECT CAST('2024-01-01' AS DATE) AS date) d";
    let lateral = format!(
        "SELECT d.date, s.m FROM {days} LEFT JOIN LATERAL \
         (SELECT avg(usage) AS m FROM cpu WHERE CAST(time AS DATE) = d.date) s ON true"
    );
    let scalar = format!(
        "SELECT d.date, (SELECT avg(usage) FROM cpu WHERE d.date = date(time)) FROM {days}"
    );
    for sql in [lateral, scalar] {
        let message = db.error(&sql).await;
        assert!(message.contains("computes with a column of the inner query"), "{sql}: {message}");
    }
    let right = format!(
        "SELECT d.date, s.m FROM {days} LEFT JOIN LATERAL (SELECT avg(usage) AS m FROM \
         (SELECT usage, CAST(time AS DATE) AS day FROM cpu) x WHERE x.day = d.date) s ON true"
    );
    assert_eq!(db.sql(&right).await, "2024-01-01,25.0");
    let text = "SELECT name, (SELECT max(usage) FROM cpu c WHERE c.host || '' = d.x) FROM \
                (SELECT name, CAST(host AS VARCHAR) x FROM disk) d";
    assert!(db.error(text).await.contains("computes with a column"));
    let tag = text.replace(" || ''", "");
    assert_eq!(db.sql(&tag).await, "sd a,20.0");
    let lateral = "SELECT d.x, s.m FROM (SELECT CAST(host AS VARCHAR) x FROM disk) d LEFT JOIN \
                   LATERAL (SELECT sum(usage) AS m FROM cpu c WHERE d.x = c.host) s ON true";
    assert_eq!(db.sql(lateral).await, "a,30.0");
    let plain = "SELECT host, (SELECT max(usage) FROM cpu c WHERE c.host = d.host) FROM disk d";
    assert_eq!(db.sql(plain).await, "a,20.0");
}

#[test]
fn deep_statements_are_planned_or_refused_but_never_overflow() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_stack_size(STACK_BYTES)
        .build()
        .unwrap();
    // Blocking on the future itself would use the small stack of the test.
    runtime.block_on(runtime.spawn(deep_statements())).unwrap();
}

async fn deep_statements() {
    let db = Db::with_cpu().await;
    let chain = |n: usize| format!("SELECT 0{}", " + 1".repeat(n));
    assert_eq!(db.sql(&chain(500)).await, "500");
    assert!(db.error(&chain(20_000)).await.contains("more than 512 deep"));
    let nested = |n: usize| format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(db.sql(&nested(500)).await, "1");
    assert!(db.error(&nested(20_000)).await.contains("more than 512 deep"));
    let columns = format!(
        "SELECT usage FROM cpu WHERE usage > 0{} ORDER BY 1",
        " AND usage < 40".repeat(300)
    );
    assert_eq!(db.sql(&columns).await, "10.0 / 20.0 / 30.0");
    let sums = format!("SELECT cores{} FROM cpu WHERE host = 'b'", " + cores".repeat(400));
    assert_eq!(db.sql(&sums).await, "3208");
    let right = format!(
        "SELECT {}cores{} FROM cpu WHERE host = 'b'",
        "cores + (".repeat(200),
        ")".repeat(200)
    );
    assert_eq!(db.sql(&right).await, "1608");
    let list: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
    let list = format!("SELECT usage FROM cpu WHERE cores IN ({})", list.join(","));
    assert_eq!(db.sql(&list).await.split(" / ").count(), 2);
}

#[tokio::test]
async fn functions_that_make_much_of_little_are_bounded() {
    let db = Db::with_cpu().await;
    for sql in [
        "SELECT length(repeat('a', 2000000000))",
        "SELECT length(repeat(host, 2000000000)) FROM cpu",
        "SELECT length(lpad('a', 2147483647, 'b'))",
        "SELECT length(rpad(host, 2147483647, 'b')) FROM cpu",
        "SELECT array_length(array_repeat(1, 2000000000))",
        "SELECT array_length(array_repeat(repeat('a', 1000000), 1000))",
        "SELECT array_length(array_resize([1], 2000000000, 0))",
        "SELECT array_length(range(0, 3000000000))",
        "SELECT array_length(generate_series(3000000000))",
        "SELECT array_length(range(TIMESTAMP '2024-01-01', TIMESTAMP '2025-01-01', \
         INTERVAL '1 millisecond'))",
    ] {
        let error = db.try_sql(sql).await.unwrap_err();
        assert!(matches!(error, QueryError::Resources(_)), "{sql}: {error}");
    }
    for (sql, expected) in [
        ("SELECT length(repeat('ab', 1000000)) AS n", "2000000"),
        ("SELECT array_length(range(5000000000, 5000000010)) AS n", "10"),
        ("SELECT lpad('a', 3, 'b') AS n", "bba"),
        ("SELECT array_length(generate_series(1, 10, 3)) AS n", "4"),
    ] {
        assert!(db.sql(sql).await.contains(expected), "{sql}");
    }
}
