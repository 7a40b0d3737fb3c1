//! Writing line protocol over HTTP (S002-27, 0.7).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::server;

const THREE_LINES: &str = "m,k=a v=1 1\nm,k=b v= 2\nm,k=c v=3 3";

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn s002_27_good_lines_beside_a_bad_one_are_stored() {
    let server = server();
    let refused = server.write("ns", THREE_LINES).expect(400);
    assert_eq!(refused.error(), "partial write of line protocol occurred");
    assert_eq!(refused.code(), "invalid");
    let data = &refused.json()["data"];
    assert_eq!(data.as_array().unwrap().len(), 1);
    assert_eq!(data[0]["line_number"], 2);
    assert_eq!(data[0]["original_line"], "m,k=b v= 2");
    assert!(!data[0]["error_message"].as_str().unwrap().is_empty());
    assert_eq!(server.q("SELECT count(*) AS n FROM m"), "2");
}

#[test]
fn s002_27_accept_partial_false_stores_all_or_nothing() {
    let server = server();
    let path = "/api/v3/write_lp?db=t&precision=ns&accept_partial=false";
    let refused = server.send("POST", path, &[], THREE_LINES.as_bytes()).expect(400);
    assert!(refused.error().contains("parsing failed for write_lp endpoint"), "{}", refused.body);
    assert_eq!(refused.json()["data"].as_array().unwrap().len(), 1);
    server.w("ns", "m,k=z v=1 1");
    assert_eq!(server.q("SELECT count(*) AS n FROM m"), "1");
    let conflict = server.send("POST", path, &[], b"m,k=y v=1 1\nm,k=x v=\"text\" 1").expect(400);
    assert_eq!(conflict.json()["data"][0]["line_number"], 2);
    assert_eq!(server.q("SELECT count(*) AS n FROM m"), "1");
}

#[test]
fn s002_27_the_first_type_of_a_field_stands() {
    let server = server();
    server.w("s", "m v=1 1");
    let refused = server.write("s", "m v=2 2\n\nm v=3i 3\nm v=4 4").expect(400);
    let data = &refused.json()["data"];
    assert_eq!(
        (&data[0]["line_number"], &data[0]["original_line"]),
        (&json!(3), &json!("m v=3i 3"))
    );
    assert_eq!(server.q("SELECT v FROM m ORDER BY time"), "1.0 / 2.0 / 4.0");
}

#[test]
fn s002_27_escapes_types_and_a_time_of_one_nanosecond() {
    let server = server();
    server.w("ns", r#"m\ x,t\,a=v\=1 f="a\"b,c d",i=1i,u=2u,b=t 1"#);
    assert_eq!(
        server.q(r#"SELECT "t,a", f, i, u, b, time FROM "m x""#),
        r#"v=1,"a""b,c d",1,2,true,1970-01-01T00:00:00.000000001Z"#
    );
}

#[test]
fn s002_27_a_missing_time_is_now() {
    let server = server();
    server.clock("2024-01-01T00:00:07Z");
    server.w("s", "m v=1");
    assert_eq!(server.q("SELECT time FROM m"), "2024-01-01T00:00:07Z");
}

#[test]
fn every_write_route_stores_the_same() {
    let server = server();
    let post = |path: &str| server.send("POST", path, &[], b"m v=1 1700000000").expect(204);
    post("/write?db=a&precision=s&u=me&p=secret&rp=autogen&consistency=one");
    post("/api/v2/write?bucket=b&org=mine&precision=s");
    post("/api/v3/write_lp?db=c&precision=second&no_sync=true");
    post("/api/v3/write_lp?db=d");
    for db in ["a", "b", "c", "d"] {
        let rows = server.query("SELECT time, v FROM m", json!({ "db": db })).expect(200).body;
        assert_eq!(rows, "time,v\n2023-11-14T22:13:20Z,1.0\n", "{db}");
    }
    server.send("POST", "/write?db=a", &[], b"").expect(204);
}

#[test]
fn every_write_route_has_its_own_way_to_refuse() {
    let server = server();
    let refused = |path: &str| server.send("POST", path, &[], THREE_LINES.as_bytes()).expect(400);
    let v1 = refused("/write?db=t").json();
    assert!(v1["error"].as_str().unwrap().contains("line 2: "), "{v1}");
    let v2 = refused("/api/v2/write?bucket=t").json();
    assert_eq!(v2["code"], "invalid");
    assert!(v2["message"].as_str().unwrap().contains("line 2: "), "{v2}");
    assert_eq!(v2["error"], "partial write of line protocol occurred");
    assert_eq!((&v1["data"], &v2["data"][0]["line_number"]), (&v2["data"], &json!(2)));
    assert!(refused("/write?db=t&rp=week").error().contains("week"));
    assert!(refused("/api/v2/write?org=t").json()["message"].as_str().unwrap().contains("bucket"));
    assert!(refused("/api/v3/write_lp").error().contains("db"));
    assert!(refused("/api/v3/write_lp?db=t&mode=replace").error().contains("mode=replace"));
    assert!(refused("/api/v3/write_lp?db=t&precison=s").error().contains("precison"));
}

#[test]
fn s002_27_gzip_bodies_and_unknown_encodings() {
    let server = server();
    let path = "/api/v3/write_lp?db=t&precision=s";
    let lines: String = (0..5_000).map(|i| format!("m,k=a v={i} {i}\n")).collect();
    let compressed = gzip(lines.as_bytes());
    server.send("POST", path, &[("content-encoding", "gzip")], &compressed).expect(204);
    assert_eq!(server.q("SELECT count(*) AS n, sum(v) AS s FROM m"), "5000,12497500.0");
    let cut = &compressed[..compressed.len() / 2];
    server.send("POST", path, &[("content-encoding", "gzip")], cut).expect(400);
    server.send("POST", path, &[("content-encoding", "br")], &compressed).expect(415);
    assert_eq!(server.q("SELECT count(*) AS n FROM m"), "5000");
}

#[test]
fn bodies_have_limits() {
    let server = crate::launch()
        .variable("HIGHWATER_LIMITS__BODY_BYTES", "1000")
        .variable("HIGHWATER_LIMITS__DECOMPRESSED_BYTES", "5000")
        .start();
    let path = "/api/v3/write_lp?db=t&precision=s";
    let lines = "m,k=a v=1 1\n".repeat(90);
    assert_eq!(server.send("POST", path, &[], lines.as_bytes()).expect(413).code(), "too_large");
    let bomb = gzip("m,k=a v=1 1\n".repeat(1_000).as_bytes());
    server.send("POST", path, &[("content-encoding", "gzip")], &bomb).expect(413);
    let small = gzip(lines.as_bytes());
    server.send("POST", path, &[("content-encoding", "gzip")], &small).expect(204);
}

#[test]
fn s002_29_acknowledged_points_survive_kill_9() {
    let mut server = server();
    let lines: String = (0..10_000).map(|i| format!("m,k={} v={i} {i}\n", i % 10)).collect();
    server.w("s", &lines);
    server.kill9();
    assert_eq!(server.q("SELECT count(*) AS n FROM m"), "10000");
    server.post("/api/v1/flush").expect(204);
    server.restart();
    assert_eq!(server.q("SELECT count(*) AS n FROM m"), "10000");
}

#[test]
fn points_can_be_written_at_once_by_many() {
    let server = server();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for i in 0..25 {
                    server.w("s", &format!("m,client={client} v={i} {i}\n"));
                }
            });
        }
    });
    assert_eq!(server.q("SELECT count(*) AS n FROM m"), "200");
}

#[test]
fn clients_of_influxdb_1_find_their_statements() {
    let server = server();
    let query = |q: &str| {
        let form = format!("q={}&db=t", q.replace(' ', "+"));
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        server.send("POST", "/query", &headers, form.as_bytes())
    };
    assert_eq!(query("CREATE DATABASE t").expect(200).body, r#"{"results":[{"statement_id":0}]}"#);
    query("CREATE DATABASE \"t\"").expect(200);
    assert_eq!(
        server.get("/query?q=SHOW%20DATABASES").expect(200).body,
        r#"{"results":[{"statement_id":0,"series":[{"name":"databases","columns":["name"],"values":[["t"]]}]}]}"#
    );
    assert_eq!(query("SHOW MEASUREMENTS").body, r#"{"results":[{"statement_id":0}]}"#);
    server.w("s", "mem v=1 1\ncpu v=1 1");
    assert!(query("SHOW MEASUREMENTS ON t").body.contains(r#""values":[["cpu"],["mem"]]"#));
    assert!(query("SHOW RETENTION POLICIES ON t").body.contains("autogen"));
    assert!(query("SHOW MEASUREMENTS ON nowhere").body.contains("database not found: nowhere"));
    assert!(query("SELECT * FROM cpu").expect(400).error().contains("/api/v3/query_sql"));
    server.get("/query").expect(400);
}

#[test]
fn compactions_are_listed_with_what_they_cost() {
    let server = server();
    for second in 0..20 {
        server.w("s", &format!("m,h=a v={second} {second}"));
        server.post("/api/v1/flush").expect(204);
    }
    server.post("/api/v1/compact").expect(204);
    let listed = "SELECT measurement, sum(rows) >= 8 AS joined, sum(segments) > sum(results) AS fewer, \
                  sum(bytes_written) > 0 AS written FROM system.compactions GROUP BY 1";
    assert_eq!(server.q(listed), "m,true,true,true");
    let [written, compacted] = ["written", "compacted"]
        .map(|what| server.metric(&format!("highwater_storage_{what}_bytes_total")).unwrap());
    assert!(0.0 < compacted && compacted < written, "{compacted} of {written}");
    assert_eq!(server.q("SELECT count(*) AS n FROM m"), "20");
}
