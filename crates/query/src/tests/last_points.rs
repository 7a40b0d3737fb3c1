//! Questions that the last points of every series answer.

use super::*;

/// Never false, and nothing that a planner can see through.
const TRUE: &str = "random() >= 0.0";

/// Statements with a place for a filter that begins with WHERE or AND.
const ANSWERED: [&str; 9] = [
    "SELECT DISTINCT ON (host) * FROM cpu WHERE {} ORDER BY host, time DESC",
    "SELECT DISTINCT ON (host, dc) host, usage, time FROM cpu WHERE {} ORDER BY host, dc, time DESC",
    "SELECT host, max(time) AS t FROM cpu WHERE {} GROUP BY host ORDER BY host",
    "SELECT max(time) AS t FROM cpu WHERE {}",
    "SELECT DISTINCT host FROM cpu WHERE {} ORDER BY host",
    "SELECT count(DISTINCT host) AS n FROM cpu WHERE {}",
    "SELECT dc, last_value(usage ORDER BY time) AS u FROM cpu WHERE {} GROUP BY dc ORDER BY dc",
    "SELECT h, max(t) AS t FROM (SELECT time AS t, host AS h, usage FROM cpu WHERE {}) c GROUP BY h ORDER BY h",
    "SELECT host, max(time) AS t FROM cpu WHERE host <> 'b' AND time >= '2024-01-01T10:10:00Z' AND {} GROUP BY host ORDER BY host",
];

/// Statements that need more than the last points.
const NOT_ANSWERED: [&str; 7] = [
    "SELECT host, min(time) AS t FROM cpu WHERE {} GROUP BY host ORDER BY host",
    "SELECT host, max(usage) AS u FROM cpu WHERE {} GROUP BY host ORDER BY host",
    "SELECT host, max(time) AS t FROM cpu WHERE usage > 15.0 AND {} GROUP BY host ORDER BY host",
    "SELECT usage, max(time) AS t FROM cpu WHERE {} GROUP BY usage ORDER BY usage",
    "SELECT DISTINCT ON (host) * FROM cpu WHERE {} ORDER BY host, time",
    "SELECT DISTINCT ON (host) * FROM cpu WHERE {} ORDER BY host, usage, time DESC",
    "SELECT host, max(time) FILTER (WHERE usage < 15.0) AS t FROM cpu WHERE {} GROUP BY host ORDER BY host",
];

async fn assert_right(db: &Db) {
    for sql in ANSWERED.iter().chain(&NOT_ANSWERED) {
        let (plain, slow) = (sql.replace("{}", "true"), sql.replace("{}", TRUE));
        assert_eq!(db.sql(&plain).await, db.sql(&slow).await, "{plain}");
    }
}

#[tokio::test]
async fn the_last_points_give_the_answer_of_all_points() {
    let db = Db::with_cpu().await;
    assert_right(&db).await;
    db.storage.flush().await.unwrap();
    assert_right(&db).await;
    // Late, overwritten, sparse, and then deleted.
    db.write(&[
        "cpu host=a,dc=x cores=5i 2024-01-01T10:45:00Z",
        "cpu host=b,dc=y usage=31.0 2024-01-01T10:59:00Z",
        "cpu host=c ok=false 2024-01-01T11:30:00Z",
        "cpu host=d,dc=x usage=1.0 2024-01-01T09:00:00Z",
    ])
    .await;
    assert_right(&db).await;
    db.storage.flush().await.unwrap();
    assert_right(&db).await;
    for delete in [
        "DELETE FROM cpu WHERE time >= '2024-01-01T11:30:00Z'",
        "DELETE FROM cpu WHERE host = 'a' AND time > '2024-01-01T10:30:00Z'",
        "DELETE FROM cpu WHERE usage = 31.0",
    ] {
        db.sql(delete).await;
        assert_right(&db).await;
        db.storage.flush().await.unwrap();
        assert_right(&db).await;
    }
    let last =
        "SELECT DISTINCT ON (host) host, usage, cores, time FROM cpu ORDER BY host, time DESC";
    assert_eq!(
        db.sql(last).await,
        "a,20.0,,2024-01-01T10:30:00 / b,30.0,8,2024-01-01T11:00:00 / d,1.0,,2024-01-01T09:00:00"
    );
}

#[tokio::test]
async fn explain_tells_when_only_the_last_points_are_read() {
    let db = Db::with_cpu().await;
    let reads_last = async |sql: &str| {
        let plan = db.sql(&format!("EXPLAIN {}", sql.replace("{}", "true"))).await;
        plan.contains("last points only")
    };
    for sql in ANSWERED {
        assert!(reads_last(sql).await, "{sql}");
    }
    let plan = db.sql(&format!("EXPLAIN {}", ANSWERED[0].replace("{}", "true"))).await;
    assert!(plan.contains("row_number") && !plan.contains("aggr=["), "{plan}");
    for sql in NOT_ANSWERED {
        assert!(!reads_last(sql).await, "{sql}");
    }
}
