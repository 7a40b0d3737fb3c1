//! Data folders that earlier versions wrote are opened by this one.
//!
//! A folder below `tests/fixtures` is never changed. A new one is made, when a format gets a new
//! version, by `HIGHWATER_FIXTURE=tests/fixtures/<name> cargo test --test it make_fixture -- --ignored`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use highwater_tests::TestServer;

use crate::launch;

const RULES: &str = "
databases:
  t:
    measurements: [{name: orders, columns: {paid_at: timestamp}}]
    aggregates:
      - name: cpu_1h
        source: cpu
        interval: 1h
        group_by: [host]
        aggregations:
          - {field: usage, function: [count, sum, mean, min, max, first, last]}
          - {field: n, function: [sum, max]}
          - {field: state, function: [first, last]}
          - {function: count, as: points}
      - {name: cpu_1d, source: cpu_1h, interval: 1d}
      - {name: cpu_1mo, source: cpu, interval: 1mo, aggregations: [{field: usage, function: sum}]}
    retention: [{measurement: tmp_*, keep: 1d}]
";

const QUESTIONS: [&str; 6] = [
    "SELECT * FROM cpu ORDER BY time, host, dc",
    "SELECT * FROM cpu_1h ORDER BY time, host",
    "SELECT * FROM cpu_1d ORDER BY time, host",
    "SELECT * FROM cpu_1mo ORDER BY time",
    "SELECT * FROM orders ORDER BY time",
    "SELECT * FROM tmp_a ORDER BY time",
];

/// Everything that is persisted in some form: all types, missing tags and fields, a flushed and
/// an unflushed part, deletes of both kinds, refreshed and stale buckets, expired points.
fn fill(server: &TestServer) {
    server.clock("2024-01-02T00:30:00Z");
    server.w("s", "cpu,host=a,dc=x usage=1.5,n=3i,state=\"on\",up=t 1704067200\ncpu,host=b usage=2.5,u=7u 1704067260\ncpu usage=-0.0 1704070800");
    server.w("s", "orders,id=o1 total=12.5,paid_at=1704067200i 1704067200\ntmp_a v=1 1704100000");
    server.post("/api/v1/flush").expect(204);
    server.tick();
    server.w("s", "cpu,host=a,dc=x usage=9.5 1704067205\ncpu,host=c,rack=r1 n=-4i 1704153600");
    server.post("/api/v1/flush").expect(204);
    server.csv("DELETE FROM cpu WHERE host = 'b' AND time < '2024-01-01T00:01:30Z'");
    server.csv("DELETE FROM cpu WHERE usage = 9.5");
    server.clock("2024-01-04T00:30:00Z");
    server.tick();
    server.w("s", "cpu,host=b usage=1e300,state=\"a\\\"b\" 1704067261\ntmp_a v=2 1704326400");
    server.csv("DELETE FROM orders WHERE total > 100");
}

/// The answers as text: the question, then its rows.
fn answers(server: &TestServer) -> String {
    QUESTIONS.iter().map(|sql| format!("{sql}\n{}\n", server.csv(sql))).collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn folders_of_earlier_versions_are_opened() {
    let mut versions = 0;
    for fixture in fs::read_dir(fixtures()).unwrap() {
        let fixture = fixture.unwrap().path();
        let expected = fs::read_to_string(fixture.join("answers.txt")).unwrap();
        let place = tempfile::tempdir().unwrap();
        copy(&fixture.join("data"), place.path());
        let check = Command::new(env!("CARGO_BIN_EXE_highwater-under-test"))
            .args(["check", "--data", place.path().to_str().unwrap()])
            .output()
            .unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));

        let mut server = launch().rules(RULES).data(place.path()).start();
        server.clock("2024-01-04T00:30:00Z");
        assert_eq!(answers(&server), expected, "{}", fixture.display());
        // What it writes on top fits to what is there.
        server.w("s", "cpu,host=a,dc=x usage=0.25 1704067200");
        server.post("/api/v1/aggregates/refresh").expect(200);
        server.post("/api/v1/compact").expect(204);
        server.restart();
        let sql = "SELECT sum(usage_sum) AS s FROM cpu_1h WHERE host = 'a'";
        assert_eq!(server.q(sql), "0.25");
        versions += 1;
    }
    assert!(versions > 0);
}

#[test]
#[ignore = "makes a fixture"]
fn make_fixture() {
    let folder = PathBuf::from(std::env::var("HIGHWATER_FIXTURE").unwrap());
    let folder = fixtures().parent().unwrap().parent().unwrap().join(folder);
    let server = launch().rules(RULES).start();
    fill(&server);
    let before = answers(&server);
    server.signal("KILL");
    copy(&server.data_folder(), &folder.join("data"));
    fs::remove_file(folder.join("data/LOCK")).unwrap();
    fs::write(folder.join("answers.txt"), before).unwrap();
}
