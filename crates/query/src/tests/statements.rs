//! DELETE, INSERT, parameters.

use datafusion::common::ScalarValue;

use super::*;

#[tokio::test]
async fn delete_removes_what_its_condition_names() {
    let db = Db::with_cpu().await;
    for (filter, left) in [
        ("host = 'nobody'", "10.0 / 20.0 / 30.0 / 40.0"),
        ("host = 'a' AND time < '2024-01-01T10:15:00Z'", "20.0 / 30.0 / 40.0"),
        ("dc IS NULL", "20.0 / 30.0"),
        ("NOT (host IN ('a', 'c')) AND time BETWEEN '2024-01-01' AND now()", "20.0"),
        ("false", "20.0"),
    ] {
        assert_eq!(db.sql(&format!("DELETE FROM cpu WHERE {filter}")).await, "", "{filter}");
        assert_eq!(db.sql("SELECT usage FROM cpu ORDER BY 1").await, left, "{filter}");
    }
    db.storage.flush().await.unwrap();
    db.sql("DELETE FROM cpu").await;
    assert_eq!(db.sql("SELECT count(*) FROM cpu").await, "0");
    assert_eq!(db.sql("SELECT count(*) FROM disk").await, "1");
}

#[tokio::test]
async fn delete_finds_points_by_any_condition() {
    for is_flushed in [false, true] {
        let db = Db::with_cpu().await;
        if is_flushed {
            db.storage.flush().await.unwrap();
        }
        for (filter, left) in [
            ("usage > 100", "10.0 / 20.0 / 30.0 / 40.0"),
            ("usage BETWEEN 15 AND 25 OR host = 'nobody'", "10.0 / 30.0 / 40.0"),
            ("host LIKE 'a%' AND time < '2024-01-01T10:15:00Z'", "30.0 / 40.0"),
            ("dc IS NULL AND usage = (SELECT max(usage) FROM cpu)", "30.0"),
            ("host NOT IN (SELECT host FROM cpu)", "30.0"),
        ] {
            assert_eq!(db.sql(&format!("DELETE FROM cpu WHERE {filter}")).await, "", "{filter}");
            assert_eq!(db.sql("SELECT usage FROM cpu ORDER BY 1").await, left, "{filter}");
        }
        db.storage.flush().await.unwrap();
        db.storage.compact().await.unwrap();
        assert_eq!(db.sql("SELECT usage FROM cpu").await, "30.0");
    }
}

#[tokio::test]
async fn delete_refuses_what_it_cannot_do() {
    let db = Db::with_cpu().await;
    for (sql, expected) in [
        ("DELETE FROM cpu LIMIT 1", "LIMIT in DELETE is not supported"),
        ("DELETE FROM cpu WHERE true RETURNING host", "RETURNING in DELETE is not supported"),
        ("DELETE FROM cpu USING disk WHERE true", "USING in DELETE is not supported"),
        ("DELETE FROM nothing", "table 'nothing' not found"),
        ("DELETE FROM cpu WHERE time < 'soon'", "soon"),
    ] {
        let message = db.error(sql).await;
        assert!(message.contains(expected), "{sql}: {message}");
    }
    assert_eq!(db.sql("SELECT count(*) FROM cpu").await, "4");
}

#[tokio::test]
async fn insert_writes_points() {
    let db = Db::with_cpu().await;
    let inserted = db.sql(
        "INSERT INTO cpu (time, host, usage) VALUES ('2024-01-01T09:00:00Z', 'z', 1.5), \
         ('2024-01-01T10:00:00Z', 'z', 2)",
    );
    assert_eq!(inserted.await, "2");
    assert_eq!(db.sql("INSERT INTO cpu (usage, host) VALUES (3.5, 'z')").await, "1");
    assert_eq!(
        db.sql("SELECT time, dc, usage, cores FROM cpu WHERE host = 'z' ORDER BY time").await,
        "2024-01-01T09:00:00,,1.5, / 2024-01-01T10:00:00,,2.0, / 2024-01-01T12:00:00,,3.5,"
    );
    let copied = db.sql(
        "INSERT INTO disk (time, host, free) SELECT time, host, cores FROM cpu WHERE cores > 0",
    );
    assert_eq!(copied.await, "2");
    assert_eq!(db.sql("SELECT host, free, name FROM disk ORDER BY host").await, "a,4,sd a / b,8,");
    let none =
        db.sql("INSERT INTO disk (host, free) SELECT host, cores FROM cpu WHERE false").await;
    assert_eq!(none, "0");
}

#[tokio::test]
async fn insert_refuses_rows_that_are_no_points() {
    let db = Db::with_cpu().await;
    for (sql, expected) in [
        ("INSERT INTO mem (a) VALUES (1)", "measurement 'mem' not found; it comes into being"),
        ("INSERT INTO cpu (host) VALUES ('a')", "row 1 has no field that is not NULL"),
        ("INSERT INTO cpu (host, usage) VALUES ('a', 'x')", "'x'"),
        ("INSERT INTO cpu (nope) VALUES (1)", "nope"),
        ("INSERT INTO cpu (time, usage) VALUES ('2300-01-01', 1.0)", ""),
        ("INSERT OVERWRITE TABLE cpu SELECT * FROM cpu", "INSERT OVERWRITE"),
        ("INSERT INTO cpu (usage) VALUES (1.0) RETURNING usage", "returning"),
    ] {
        let message = db.error(sql).await;
        assert!(message.contains(expected), "{sql}: {message}");
    }
    assert_eq!(db.sql("SELECT count(*) FROM cpu").await, "4");
}

#[tokio::test]
async fn parameters_are_bound_never_spliced() {
    let db = Db::with_cpu().await;
    let session = db.session();
    let text = |text: &str| ScalarValue::Utf8(Some(text.into()));
    let one = |value: ScalarValue| Params::Positional(vec![value]);
    let named = |name: &str, value| Params::Named(BTreeMap::from([(name.to_owned(), value)]));
    let by_host = "SELECT usage FROM cpu WHERE host = $1 ORDER BY 1";
    for (sql, params, expected) in [
        (by_host, one(text("b")), "30.0"),
        (by_host, one(text("b' OR '1'='1")), ""),
        ("SELECT usage FROM cpu WHERE time >= $1", one(text("2024-01-01T11:30:00Z")), "40.0"),
        ("SELECT usage FROM cpu ORDER BY 1 LIMIT $1", one(ScalarValue::Int64(Some(1))), "10.0"),
        (
            "SELECT usage FROM cpu WHERE usage > $x",
            named("x", ScalarValue::Int64(Some(35))),
            "40.0",
        ),
        ("SELECT $1 + 1", one(ScalarValue::Int64(Some(2))), "3"),
        ("SELECT $1", one(ScalarValue::Null), ""),
        (
            "SELECT time_bucket($1, time) t FROM cpu GROUP BY t ORDER BY t LIMIT 1",
            one(text("1d")),
            "2024-01-01T00:00:00",
        ),
        ("DELETE FROM cpu WHERE host = $1", one(text("b")), ""),
        (by_host, one(text("b")), ""),
    ] {
        let session = if sql == by_host { db.session() } else { session.clone() };
        let found = run(&session, sql, params).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(found, expected, "{sql}");
    }
    for (sql, params, expected) in [
        (by_host, Params::None, "parameter $1 has no value"),
        (by_host, named("x", text("a")), "parameter $1 has no value"),
        ("SELECT 1", one(text("a")), "a value for parameter $1, which the statement does not use"),
        ("DROP TABLE cpu", one(text("a")), "a parameter in this kind of statement"),
    ] {
        let error = run(&session, sql, params).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
}
