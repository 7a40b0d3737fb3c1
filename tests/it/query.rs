//! SQL over HTTP (S002-28, 0.1, 0.7).

use serde_json::{Value, json};

use crate::server;

const CPU: &str = "\
cpu,host=a usage=10,temp=50i 1704067200
cpu,host=a usage=20,temp=70i 1704067260
cpu,host=a usage=60,temp=60i 1704069000
cpu,host=a usage=40 1704070800
cpu,host=b usage=5 1704067200
";

#[test]
fn s002_28_sql_over_measurements() {
    let server = server();
    server.w("s", CPU);
    let grouped = "SELECT host,count(*) AS n,avg(usage) AS m FROM cpu WHERE usage > 10 \
                   GROUP BY host HAVING count(*) > 1";
    assert_eq!(server.q(grouped), "a,3,40.0");
    assert_eq!(server.q("SELECT count(DISTINCT host) AS n FROM cpu"), "2");
    assert_eq!(
        server.query("SELECT * FROM cpu FOR UPDATE", json!({})).expect(400).code(),
        "invalid"
    );
    let unknown = server.query("SELECT * FROM cpv", json!({}));
    assert!((400..500).contains(&unknown.status), "{}", unknown.body);
    assert!(unknown.error().contains("cpv"));
    server.query("SELEC 1", json!({})).expect(400);
}

#[test]
fn answers_come_in_four_formats() {
    let server = server();
    server.w("s", "m,k=a f=1.5,n=2i 1704067200\nm,k=b n=3i 1704067201");
    let sql = "SELECT time, k, f, n FROM m ORDER BY time";
    let as_format = |format: &str| server.query(sql, json!({ "format": format })).expect(200);
    let csv = as_format("csv");
    assert_eq!(csv.body, "time,k,f,n\n2024-01-01T00:00:00Z,a,1.5,2\n2024-01-01T00:00:01Z,b,,3\n");
    assert!(csv.header("content-type").unwrap().starts_with("text/csv"));
    let rows = json!([
        { "time": "2024-01-01T00:00:00Z", "k": "a", "f": 1.5, "n": 2 },
        { "time": "2024-01-01T00:00:01Z", "k": "b", "f": null, "n": 3 },
    ]);
    assert_eq!(as_format("json").json(), rows);
    let lines: Vec<Value> =
        as_format("jsonl").body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::Array(lines), rows);
    assert!(as_format("pretty").body.contains("| 2024-01-01T00:00:01Z | b |     | 3 |"));
    server.query(sql, json!({ "format": "xml" })).expect(400);
    let default = json!({ "db": "t", "q": sql });
    assert_eq!(server.json("POST", "/api/v3/query_sql", &default).json(), rows);
}

#[test]
fn queries_by_get_and_with_parameters() {
    let server = server();
    server.w("s", CPU);
    let get =
        server.get("/api/v3/query_sql?db=t&format=csv&q=SELECT%20count(*)%20AS%20n%20FROM%20cpu");
    assert_eq!(get.expect(200).body, "n\n5\n");
    let sql = "SELECT usage FROM cpu WHERE host = $1 AND usage > $2 ORDER BY time";
    let positional = server.query(sql, json!({ "params": ["a", 15] }));
    assert_eq!(positional.expect(200).body, "usage\n20.0\n60.0\n40.0\n");
    let sql = "SELECT usage FROM cpu WHERE host = $host";
    let named = server.query(sql, json!({ "params": { "host": "b" } }));
    assert_eq!(named.expect(200).body, "usage\n5.0\n");
    let injected = server.query(sql, json!({ "params": { "host": "b' OR '1'='1" } }));
    assert_eq!(injected.expect(200).body, "usage\n");
    assert!(server.query(sql, json!({})).expect(400).error().contains("host"));
    server.query(sql, json!({ "params": { "host": ["b"] } })).expect(400);
}

#[test]
fn s003_19_parameters_and_plain_views() {
    let mut server = server();
    server.w("s", CPU);
    server
        .query("CREATE VIEW v AS SELECT host, usage FROM cpu WHERE usage > 5", json!({}))
        .expect(200);
    server.kill9();
    let read = "SELECT count(*) AS n FROM v WHERE host = $1";
    let rows = |host: &str| server.query(read, json!({ "params": [host] })).expect(200).body;
    assert_eq!(rows("a"), "n\n4\n");
    assert_eq!(rows("a' OR '1'='1"), "n\n0\n");
    let refused = server.write("s", "v x=1 1");
    assert!(refused.expect(400).body.contains("v is a view; write to what it reads"));
    let rule = json!({ "name": "v", "source": "cpu", "interval": "1h", "aggregations": [{ "function": "count" }] });
    let taken = server.json("POST", "/api/v1/aggregates?db=t", &rule);
    assert!(taken.expect(409).error().contains("there is a view named v"));
    server.query("DROP VIEW v", json!({})).expect(200);
    assert!(
        server.query("SELECT * FROM v", json!({})).expect(404).error().contains("'v' not found")
    );
}

#[test]
fn what_means_nothing_is_refused() {
    let server = server();
    server.w("s", CPU);
    let refused = |more: Value| server.query("SELECT 1", more).expect(400).error();
    assert!(refused(json!({ "fresh": "exact" })).contains("fresh"));
    assert!(refused(json!({ "freshness": "soon" })).contains("soon"));
    assert!(refused(json!({ "rewrite": "perhaps" })).contains("perhaps"));
    server.query("SELECT 1", json!({ "rewrite": "off", "freshness": "exact" })).expect(200);
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let deep = format!(r#"{{"db":"t","q":"SELECT 1","params":{deep}}}"#);
    server.send("POST", "/api/v3/query_sql", &[], deep.as_bytes()).expect(400);
}

#[test]
fn the_only_database_needs_no_name() {
    let server = server();
    let ask = json!({ "q": "SELECT 1 AS x", "format": "csv" });
    let asked = || server.json("POST", "/api/v3/query_sql", &ask);
    asked().expect(400);
    server.w("s", "m v=1 1");
    assert_eq!(asked().expect(200).body, "x\n1\n");
    server.send("POST", "/write?db=u", &[], b"m v=1 1").expect(204);
    assert!(asked().expect(400).error().contains("t, u"));
}

#[test]
fn long_answers_are_whole() {
    let server = server();
    let lines: String = (0..100_000).map(|i| format!("m,k={} v={i} {i}\n", i % 7)).collect();
    server.w("s", &lines);
    let csv = server.csv("SELECT time, k, v FROM m ORDER BY time");
    assert_eq!(csv.lines().count(), 100_001);
    assert!(csv.ends_with("1970-01-02T03:46:39Z,4,99999.0\n"), "{}", &csv[csv.len() - 80..]);
    let json = server.query("SELECT v FROM m", json!({ "format": "json" })).expect(200).json();
    assert_eq!(json.as_array().unwrap().len(), 100_000);
}

#[test]
fn deep_and_long_sql_is_refused_not_fatal() {
    let server = server();
    server.w("s", "m v=1 1");
    let chain = format!("SELECT {}", vec!["1"; 20_000].join("+"));
    let parentheses = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    for sql in [chain, parentheses, format!("SELECT '{}'", "x".repeat(2 << 20))] {
        let status = server.query(&sql, json!({})).status;
        assert!(status == 200 || status == 400, "{status}");
        server.get("/health").expect(200);
    }
}

#[test]
fn queries_at_once_are_limited() {
    let server = crate::launch().variable("HIGHWATER_QUERY__MAX_QUERIES", "1").start();
    server.w("s", "m v=1 1");
    assert_eq!(server.q("SELECT v FROM m"), "1.0");
    assert_eq!(server.q("SELECT v FROM m"), "1.0");
    assert_eq!(server.metric("highwater_query_active_queries"), Some(0.0));
}

/// A column of tags that no row has.
#[test]
fn tags_of_no_row_are_null_in_every_format() {
    let server = server();
    server.w("ns", "m v=1 1767225600000000000\nm,rack=q v=1 1767312000000000000");
    let sql = "SELECT rack, count(*) AS n FROM m WHERE time < '2026-01-02' GROUP BY rack";
    assert_eq!(server.q(sql), ",1");
    for format in ["json", "jsonl", "pretty"] {
        server.query(sql, serde_json::json!({ "format": format })).expect(200);
    }
}

#[test]
fn a_dropped_measurement_is_gone_for_good() {
    let mut server = crate::server();
    server.w("s", "cpu,host=a usage=1 1704067200\nmem v=1 1704067200");
    let rule = json!({"name": "cpu_1h", "source": "cpu", "interval": "1h",
        "aggregations": [{"function": "count"}]});
    server.json("POST", "/api/v1/aggregates", &rule).expect(201);
    let refused = |sql: &str, status: u16| server.query(sql, json!({})).expect(status).error();
    let reason = refused("DROP TABLE cpu", 409);
    assert!(reason.contains("cpu is read by cpu_1h"), "{reason}");
    let reason = refused("DROP TABLE cpu_1h", 400);
    assert!(reason.contains("highwater aggregate drop cpu_1h"), "{reason}");
    refused("DROP TABLE mem, none", 404);
    refused("DROP TABLE mem, none CASCADE", 404);
    assert_eq!(server.q("SELECT count(*) AS n FROM mem"), "1");

    server.send("DELETE", "/api/v1/aggregates/cpu_1h?drop=true", &[], &[]).expect(200);
    server.csv("DROP TABLE IF EXISTS cpu, none");
    server.query("SELECT * FROM cpu", json!({})).expect(404);
    let by_get = server.get("/api/v3/query_sql?q=DELETE+FROM+mem").expect(400).error();
    assert!(by_get.contains("may only read"), "{by_get}");
    server.w("s", "cpu,rack=r usage=7i 1704067200");
    server.kill9();
    assert_eq!(server.q("SELECT * FROM cpu"), "2024-01-01T00:00:00Z,r,7");
    assert_eq!(server.q("SELECT count(*) AS n FROM mem"), "1");
}
