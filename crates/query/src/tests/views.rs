//! CREATE VIEW and DROP VIEW.

use super::*;

const LOADED: &str = "CREATE VIEW loaded AS SELECT time, host, usage FROM cpu WHERE usage > 15";

#[tokio::test]
async fn a_view_reads_what_its_query_reads_now() {
    let db = Db::with_cpu().await;
    assert_eq!(db.sql(LOADED).await, "");
    assert_eq!(db.sql("SELECT host FROM loaded ORDER BY time").await, "a / b / c");
    db.write(&["cpu host=d usage=99.0 2024-01-01T11:45:00Z"]).await;
    let joined = "SELECT l.host, d.free FROM public.loaded l JOIN disk d USING (host)";
    assert_eq!(db.sql(joined).await, "a,7");
    assert_eq!(db.sql("SELECT count(*) FROM loaded").await, "4");
    let listed = "SELECT table_name, table_type FROM information_schema.tables \
                  WHERE table_schema = 'public' ORDER BY 1";
    assert_eq!(db.sql(listed).await, "cpu,BASE TABLE / disk,BASE TABLE / loaded,VIEW");
    let defined =
        db.sql("SELECT definition FROM information_schema.views WHERE table_name = 'loaded'").await;
    assert!(defined.starts_with("SELECT time, host, usage FROM cpu"), "{defined}");
    db.sql("CREATE OR REPLACE VIEW loaded (who, \"how much\") AS SELECT host, max(usage) FROM cpu GROUP BY host").await;
    assert_eq!(db.sql("SELECT \"how much\" FROM loaded WHERE who = 'd'").await, "99.0");
    assert_eq!(db.sql("CREATE VIEW IF NOT EXISTS loaded AS SELECT 1").await, "");
    db.sql("DROP VIEW loaded").await;
    assert!(db.error("SELECT * FROM loaded").await.contains("'loaded' not found"));
    assert_eq!(db.sql("DROP VIEW IF EXISTS loaded").await, "");
}

#[tokio::test]
async fn views_read_views_but_never_themselves() {
    let db = Db::with_cpu().await;
    db.sql(LOADED).await;
    db.sql("CREATE VIEW hosts AS WITH loaded2 AS (SELECT * FROM loaded) SELECT host FROM loaded2")
        .await;
    assert_eq!(db.sql("SELECT count(*) FROM hosts").await, "3");
    let error = db.error("CREATE OR REPLACE VIEW loaded AS SELECT host FROM hosts").await;
    assert_eq!(error, "a view would read itself: hosts -> loaded -> hosts");
    let error = db.error("CREATE OR REPLACE VIEW loaded AS SELECT * FROM loaded").await;
    assert_eq!(error, "a view would read itself: loaded -> loaded");
    let error = db.error("DROP VIEW loaded").await;
    assert_eq!(error, "view hosts reads loaded; drop it first, or with it");
    for (name, below) in [("v1", "loaded"), ("v2", "v1"), ("v3", "v2"), ("v4", "v3")] {
        let five = vec![format!("SELECT host FROM {below}"); 5].join(" UNION ALL ");
        db.sql(&format!("CREATE VIEW {name} AS {five}")).await;
    }
    let five = ["SELECT host FROM v4"; 5].join(" UNION ALL ");
    let error = db.error(&format!("CREATE VIEW v5 AS {five}")).await;
    assert_eq!(error, "view v5 would read more than 1000 views, through others");
    db.sql("DROP VIEW loaded, hosts, v1, v2, v3, v4").await;
    assert_eq!(db.sql("SELECT count(definition) FROM information_schema.views").await, "0");
}

#[tokio::test]
async fn what_a_view_cannot_be_is_refused() {
    let db = Db::with_cpu().await;
    db.sql(LOADED).await;
    for (sql, expected) in [
        (LOADED, "there is a view loaded; write CREATE OR REPLACE VIEW"),
        ("CREATE VIEW cpu AS SELECT 1", "there is a table cpu; choose another name"),
        ("CREATE VIEW system.x AS SELECT 1", "a view has a name without a schema"),
        ("CREATE VIEW v AS SELECT * FROM nothing", "table 'nothing' not found"),
        ("CREATE VIEW v AS SELECT * FROM cpu WHERE host = $1", "a parameter in a view"),
        ("CREATE TEMPORARY VIEW v AS SELECT 1", "a temporary view is not supported"),
        ("CREATE VIEW v AS SELECT * FROM cpu FOR UPDATE", "FOR UPDATE"),
        ("DROP VIEW cpu", "there is no view cpu"),
        ("DROP VIEW loaded CASCADE", "CASCADE is not supported; name all views"),
        ("DROP TABLE loaded", "DROP TABLE is not supported"),
        ("INSERT INTO loaded (host) VALUES ('x')", "loaded"),
        ("DELETE FROM loaded", "loaded"),
    ] {
        let message = db.error(sql).await;
        assert!(message.contains(expected), "{sql}: {message}");
    }
    let elsewhere = db.queries.session(SessionOptions::of("none"));
    let error = run(&elsewhere, "CREATE VIEW v AS SELECT 1", Params::None).await.unwrap_err();
    assert!(error.to_string().contains("there is no database none"), "{error}");
    let read_only = SessionOptions { read_only: true, ..SessionOptions::of("t") };
    let reader = db.queries.session(read_only);
    assert!(run(&reader, "DROP VIEW loaded", Params::None).await.is_err());
    assert_eq!(db.sql("SELECT count(*) FROM loaded").await, "3");
}

#[tokio::test]
async fn a_view_over_what_is_gone_says_so() {
    let db = Db::with_cpu().await;
    db.sql("CREATE VIEW v AS SELECT cores FROM cpu").await;
    db.sql("CREATE VIEW w AS SELECT cores FROM v").await;
    db.sql("CREATE OR REPLACE VIEW v AS SELECT host FROM cpu").await;
    let error = db.error("SELECT * FROM w").await;
    assert!(error.contains("view w cannot be read any more") && error.contains("cores"), "{error}");
}
