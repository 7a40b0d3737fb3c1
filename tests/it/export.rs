//! `highwater export`, and its files imported again (S002-29).

use std::path::Path;

use highwater_tests::{Reply, TestServer};
use serde_json::json;

use crate::cli::{run, stdout};
use crate::real_data::data_path;
use crate::{server, with_rules};

fn export(server: &TestServer, args: &[&str]) -> String {
    stdout(run(server, &[&["export", "--db", "t"], args].concat(), ""))
}

/// Imports every file of a folder into another database of the server.
fn import_all(server: &TestServer, folder: &Path) {
    let files = std::fs::read_dir(folder).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    let files = files.iter().map(|file| file.to_str().unwrap());
    let args: Vec<&str> = ["import", "--db", "copy"].into_iter().chain(files).collect();
    stdout(run(server, &args, ""));
}

#[track_caller]
fn assert_same(server: &TestServer, sql: &str) {
    let answer = |db: &str| -> Reply { server.query(sql, json!({ "db": db })).expect(200) };
    assert_eq!(answer("t").body, answer("copy").body);
}

#[test]
fn what_is_exported_comes_back() {
    let rules = |db: &str| {
        format!("  {db}:\n    measurements: [{{name: events, columns: {{seen: timestamp}}}}]\n")
    };
    let server = with_rules(&format!("databases:\n{}{}", rules("t"), rules("copy")));
    server.w(
        "ns",
        "all\\ kinds,a\\ b=x\\,y,c=C:\\temp f=0.1,i=-9223372036854775808i,u=18446744073709551615u,\
         b=true,s=\"one\n\\\"two\\\"\\\\\" 1\n\
         all\\ kinds,c=é f=-0.0,s=\"\" 1704067200000000001\n\
         all\\ kinds u=0u -5\n\
         a/b\\ 50% f=1 1\n\
         events,k=1 seen=1704067200000000000i,f=5e-324 2",
    );
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let said = export(&server, &["--out", out.to_str().unwrap()]);
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.contains("all kinds.parquet: 3 rows, "), "{said}");
    assert!(out.join("a%2Fb 50%25.parquet").exists());
    import_all(&server, &out);
    // The order of columns is that of their first appearance, which may be another one.
    for (columns, table) in
        [("time, \"a b\", c, f, i, u, b, s", "\"all kinds\""), ("time, f", "\"a/b 50%\"")]
    {
        assert_same(&server, &format!("SELECT {columns} FROM {table} ORDER BY time"));
    }
    assert_same(&server, "SELECT * FROM events ORDER BY time");
    assert_same(
        &server,
        "SELECT table_name, column_name, data_type FROM information_schema.columns \
         WHERE table_schema = 'public' ORDER BY 1, 2",
    );
}

#[test]
fn a_range_of_time_and_a_query() {
    let server = server();
    let lines: String = (0..10).map(|i| format!("m,k={i} f={i} {i}\n")).collect();
    server.w("s", &lines);
    let folder = tempfile::tempdir().unwrap();
    let range = folder.path().join("m.parquet");
    let path = range.to_str().unwrap();
    let bounds = ["--from", "1970-01-01T00:00:03Z", "--to", "1970-01-01T00:00:07Z"];
    let said = export(&server, &[&["m", "--out", path], &bounds[..]].concat());
    assert!(said.contains("m.parquet: 4 rows, "), "{said}");
    let query = folder.path().join("q.parquet");
    let sql = "SELECT time, k, f * 2 AS twice FROM m WHERE f < 3";
    export(&server, &["--query", sql, "--out", query.to_str().unwrap()]);
    import_all(&server, folder.path());
    let rows = |sql: &str| server.query(sql, json!({ "db": "copy" })).expect(200).body;
    let counted = "SELECT count(*) AS n, min(f) AS least FROM m";
    assert_eq!(rows(counted), "n,least\n4,3.0\n");
    assert_eq!(rows("SELECT k, twice FROM q ORDER BY k"), "k,twice\n0,0.0\n1,2.0\n2,4.0\n");
}

#[test]
fn an_answer_that_breaks_off_leaves_no_file() {
    let server = server();
    let lines: String = (0..300_000).map(|i| format!("m v={i}i {i}\n")).collect();
    server.w("s", &lines);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.parquet");
    let export = |sql: &str| {
        run(&server, &["export", "--db", "t", "--query", sql, "--out", out.to_str().unwrap()], "")
    };
    // The last row fails, when a row group has been sent; sorting would compute all rows first.
    let late = "SELECT v / 3.7 AS a, v * v / 1.3 AS b, v * v * v / 0.7 AS c, \
        1 / (v - 299999) AS d FROM m";
    let refused = export(late);
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("the answer broke off"), "{words}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let early = "SELECT 1 / (v - 5) AS y FROM m ORDER BY time";
    let words = String::from_utf8_lossy(&export(early).stderr).into_owned();
    assert!(words.to_lowercase().contains("divide by zero"), "{words}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(export("SELECT * FROM m").status.success());
}

#[test]
fn real_data_comes_back() {
    let taxis = data_path("nyc_taxis.lp.gz");
    if !taxis.exists() {
        eprintln!("skipped, as the data set is not there: {}", taxis.display());
        return;
    }
    let server = server();
    stdout(run(&server, &["import", "--db", "t", taxis.to_str().unwrap()], ""));
    let folder = tempfile::tempdir().unwrap();
    export(&server, &["--out", folder.path().to_str().unwrap()]);
    import_all(&server, folder.path());
    let tags = "color, payment, pickup_borough, dropoff_borough";
    assert_same(&server, &format!("SELECT * FROM taxi ORDER BY time, {tags}"));
}
