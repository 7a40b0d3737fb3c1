//! SQL functions of this crate.

use super::*;

#[tokio::test]
async fn time_bucket_rounds_to_every_kind_of_bucket() {
    let db = Db::open().await;
    for (call, expected) in [
        ("'1m', TIMESTAMP '2024-01-15T14:32:45'", "2024-01-15T14:32:00"),
        ("'1h', TIMESTAMP '2024-01-15T14:32:45'", "2024-01-15T14:00:00"),
        ("INTERVAL '1 hour', '2024-01-15T14:32:45Z'", "2024-01-15T14:00:00"),
        ("'1 day', TIMESTAMP '1969-12-31T23:00:00'", "1969-12-31T00:00:00"),
        ("'1w', TIMESTAMP '2024-01-14T23:59:59'", "2024-01-08T00:00:00"),
        ("'7d', TIMESTAMP '2024-01-15T14:32:45'", "2024-01-11T00:00:00"),
        ("'1mo', TIMESTAMP '2024-02-29T10:00:00'", "2024-02-01T00:00:00"),
        ("INTERVAL '3 months', TIMESTAMP '2024-06-30T23:59:59'", "2024-04-01T00:00:00"),
        ("'1y', TIMESTAMP '1969-12-31T23:00:00'", "1969-01-01T00:00:00"),
        (
            "'1h', TIMESTAMP '2024-01-15T14:32:45', TIMESTAMP '2024-01-01T00:20:00'",
            "2024-01-15T14:20:00",
        ),
        ("'1d', DATE '2024-01-15'", "2024-01-15T00:00:00"),
        ("'1h', NULL", ""),
        ("NULL, TIMESTAMP '2024-01-15T14:32:45'", ""),
    ] {
        assert_eq!(db.sql(&format!("SELECT time_bucket({call})")).await, expected, "{call}");
    }
    for (call, expected) in [
        ("'1x', now()", "not a duration"),
        ("INTERVAL '7 days', now()", "ambiguous"),
        ("5, now()", "text or an interval"),
        ("'1h', 5", "takes a timestamp"),
        ("'1h'", "takes a width, a time"),
        ("'1mo', now(), TIMESTAMP '2024-01-05T00:00:00'", "an origin inside"),
    ] {
        let message = db.error(&format!("SELECT time_bucket({call})")).await;
        assert!(message.contains(expected), "{call}: {message}");
    }
}

#[tokio::test]
async fn buckets_group_points() {
    let db = Db::with_cpu().await;
    let sql =
        "SELECT time_bucket('1h', time) AS t, count(*), max(usage) FROM cpu GROUP BY t ORDER BY t";
    assert_eq!(db.sql(sql).await, "2024-01-01T10:00:00,2,20.0 / 2024-01-01T11:00:00,2,40.0");
    assert_eq!(db.sql("SELECT count(DISTINCT date(time)) FROM cpu").await, "1");
    assert_eq!(db.sql("SELECT date('2024-02-29T23:00:00Z')").await, "2024-02-29");
}

#[tokio::test]
async fn percentiles_are_exact() {
    let db = Db::open().await;
    for (call, expected) in [
        ("percentile(x, 0.95)", "19.0"),
        ("percentile(x, 0.5)", "10.0"),
        ("percentile(x, 1)", "20.0"),
        ("percentile_cont(0.95) WITHIN GROUP (ORDER BY x)", "19.0"),
        ("percentile_cont(0.25) WITHIN GROUP (ORDER BY x DESC)", "15.0"),
        ("percentile_cont(x, 0.5)", "10.0"),
        ("percentile(x, 0.5) FILTER (WHERE x > 5)", "15.0"),
        ("percentile(x, 0.5) FILTER (WHERE x > 50)", ""),
    ] {
        let sql = format!("SELECT {call} FROM (VALUES (5), (10), (NULL), (20)) v(x)");
        assert_eq!(db.sql(&sql).await, expected, "{call}");
    }
    let grouped = db.sql(
        "SELECT g, percentile(x, 0.5) FROM (SELECT value % 2 AS g, value AS x \
         FROM generate_series(0, 20000)) GROUP BY g ORDER BY g",
    );
    assert_eq!(grouped.await, "0,10000.0 / 1,10000.0");
    for (call, expected) in [
        ("percentile(x, 1.5)", "a number from 0 to 1"),
        ("percentile(x, x)", "a number from 0 to 1"),
        ("percentile(DISTINCT x, 0.5)", "DISTINCT"),
    ] {
        let message = db.error(&format!("SELECT {call} FROM (VALUES (1), (2)) v(x)")).await;
        assert!(message.contains(expected), "{call}: {message}");
    }
}

const HOURS: &str = "WHERE time >= '2024-01-01T09:00:00Z' AND time < '2024-01-01T13:00:00Z'";

#[tokio::test]
async fn gaps_are_filled_with_null() {
    let db = Db::with_cpu().await;
    let sql = format!(
        "SELECT time_bucket_gapfill('1h', time) AS t, avg(usage), count(*) FROM cpu {HOURS} \
         GROUP BY t ORDER BY t"
    );
    assert_eq!(
        db.sql(&sql).await,
        "2024-01-01T09:00:00,, / 2024-01-01T10:00:00,15.0,2 / 2024-01-01T11:00:00,35.0,2 / \
         2024-01-01T12:00:00,,"
    );
    let by_host = format!(
        "SELECT host, extract(hour FROM time_bucket_gapfill('1h', time)) AS hour, max(usage) \
         FROM cpu {HOURS} AND host IN ('a', 'b') GROUP BY time_bucket_gapfill('1h', time), host \
         ORDER BY host, hour"
    );
    assert_eq!(
        db.sql(&by_host).await,
        "a,9, / a,10,20.0 / a,11, / a,12, / b,9, / b,10, / b,11,30.0 / b,12,"
    );
    let nothing = sql.replace("FROM cpu WHERE", "FROM cpu WHERE host = 'nobody' AND");
    assert_eq!(db.sql(&nothing).await.split(" / ").count(), 4);
}

#[tokio::test]
async fn the_range_to_fill_is_found_below_names_and_functions() {
    let db = Db::with_cpu().await;
    for from in [
        "(SELECT time AS at, usage AS u FROM cpu) x WHERE x.at > now() - INTERVAL '2 hours' AND x.at <= now()",
        "(SELECT time AS at, usage AS u FROM cpu WHERE time > now() - INTERVAL '2 hours') x WHERE at <= now()",
    ] {
        let sql = format!(
            "SELECT time_bucket_gapfill('1h', at) t, sum(u) FROM {from} GROUP BY 1 ORDER BY 1"
        );
        assert_eq!(
            db.sql(&sql).await,
            "2024-01-01T10:00:00,20.0 / 2024-01-01T11:00:00,70.0 / 2024-01-01T12:00:00,",
            "{from}"
        );
    }
}

#[tokio::test]
async fn gaps_can_repeat_or_interpolate() {
    let db = Db::with_cpu().await;
    let sql = "SELECT time_bucket_gapfill('15m', time) AS t, max(usage), locf(max(usage)), \
               interpolate(max(usage)), round(locf(count(*))) AS n FROM cpu \
               WHERE time >= '2024-01-01T10:15:00Z' AND time < '2024-01-01T11:15:00Z' \
               GROUP BY t ORDER BY t";
    assert_eq!(
        db.sql(sql).await,
        "2024-01-01T10:15:00,,,, / 2024-01-01T10:30:00,20.0,20.0,20.0,1 / \
         2024-01-01T10:45:00,,20.0,25.0,1 / 2024-01-01T11:00:00,30.0,30.0,30.0,1"
    );
}

#[tokio::test]
async fn gapfill_is_refused_where_it_cannot_be_right() {
    let db = Db::with_cpu().await;
    for (sql, expected) in [
        ("SELECT time_bucket_gapfill('1h', time) t FROM cpu GROUP BY t", "needs a bounded range"),
        (
            "SELECT time_bucket_gapfill('1h', time) t FROM cpu WHERE time > '2024-01-01' GROUP BY t",
            "needs a bounded range",
        ),
        (
            "SELECT time_bucket_gapfill('1h', time) FROM cpu",
            "time_bucket_gapfill here is not supported",
        ),
        ("SELECT locf(usage) FROM cpu", "locf here is not supported"),
        (
            "SELECT time_bucket_gapfill('1ns', time) t FROM cpu WHERE time > '2024-01-01' AND time < '2025-01-01' GROUP BY t",
            "more than 1000000 buckets",
        ),
    ] {
        let message = db.error(sql).await;
        assert!(message.contains(expected), "{sql}: {message}");
    }
}
