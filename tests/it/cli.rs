//! The command line as a client (S002-29).

use std::io::Write;
use std::process::{Command, Output, Stdio};

use highwater_tests::TestServer;

use crate::server;

/// Runs a command against a server.
pub(crate) fn run(server: &TestServer, args: &[&str], stdin: &str) -> Output {
    let mut process = Command::new(env!("CARGO_BIN_EXE_highwater-under-test"))
        .args(args)
        .env("HIGHWATER_HOST", server.address())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    process.wait_with_output().unwrap()
}

/// What a command printed, if it worked.
#[track_caller]
pub(crate) fn stdout(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn points_go_in_and_rows_come_out() {
    let server = server();
    let write = ["write", "--db", "t", "--precision", "s", "-"];
    stdout(run(&server, &write, "m,k=a v=1 1\nm,k=b v=2 2\n"));
    let large: String = (10..10_000).map(|i| format!("m,k=c v={i} {i}\n")).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), large).unwrap();
    let path = file.path().to_str().unwrap();
    stdout(run(&server, &["write", "--db", "t", "--precision", "s", path], ""));

    let sql = "SELECT k, count(*) AS n FROM m GROUP BY k ORDER BY k";
    let csv = stdout(run(&server, &["sql", "--format", "csv", sql], ""));
    assert_eq!(csv, "k,n\na,1\nb,1\nc,9990\n");
    let pretty = stdout(run(&server, &["sql", "--db", "t", "-"], sql));
    assert!(pretty.contains("| a | 1    |"), "{pretty}");
    assert_eq!(stdout(run(&server, &["sql", "DELETE FROM m WHERE v = 1"], "")), "");
}

#[test]
fn scripts_come_from_stdin_and_stop_where_they_fail() {
    let server = server();
    let script = "INSERT INTO m (time, k, v) VALUES ('2024-01-01', 'a;b', 1.5);\n\
                  -- one more; with a comment\n\
                  SELECT k, v FROM m ORDER BY k;\n\
                  SELECT * FROM none; SELECT 2";
    stdout(run(&server, &["write", "--db", "t", "-"], "m,k=x v=0 1\n"));
    let output = run(&server, &["sql", "--db", "t", "--format", "csv"], script);
    assert_eq!(output.status.code(), Some(1));
    let rows = String::from_utf8(output.stdout).unwrap();
    assert!(rows.ends_with("k,v\na;b,1.5\nx,0.0\n"), "{rows}");
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.starts_with("highwater: statement 3 of 4: "), "{words}");
    assert!(words.contains("'none' not found"), "{words}");
    let all = stdout(run(&server, &["sql", "-"], "SELECT 1 AS a; SELECT 2 AS b;"));
    assert!(all.contains("| a |") && all.contains("| b |"), "{all}");
}

#[test]
fn what_the_server_refuses_is_exit_code_1() {
    let server = server();
    let refused = run(&server, &["write", "--db", "t", "-"], "m v=1 1\nm v=\n");
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("line 2: "), "{words}");
    assert_eq!(run(&server, &["sql", "SELECT * FROM none"], "").status.code(), Some(1));
    assert_eq!(run(&server, &["sql"], " -- nothing\n").status.code(), Some(1));
    let nobody = ["sql", "--host", "http://127.0.0.1:9", "SELECT 1"];
    let words = String::from_utf8(run(&server, &nobody, "").stderr).unwrap();
    assert!(words.contains("is the server running?"), "{words}");
}

#[test]
fn aggregates_by_hand() {
    let server = server();
    server.w("s", "cpu,host=a usage=1 1704067200\ncpu,host=a usage=3 1704067201");
    server.clock("2024-01-01T02:00:00Z");
    let file = tempfile::NamedTempFile::new().unwrap();
    let rule = "name: cpu_1h\nsource: cpu\ninterval: 1h\naggregations: [{field: usage, function: mean}, {function: count, as: n}]\n";
    std::fs::write(file.path(), rule).unwrap();
    stdout(run(&server, &["aggregate", "create", file.path().to_str().unwrap()], ""));
    stdout(run(&server, &["aggregate", "refresh", "cpu_1h"], ""));
    assert_eq!(server.qm("SELECT usage_mean FROM cpu_1h"), "2.0");
    stdout(run(&server, &["aggregate", "disable", "cpu_1h"], ""));
    let list = stdout(run(&server, &["aggregate", "list"], ""));
    assert!(list.contains("cpu_1h  cpu     disabled"), "{list}");
    stdout(run(&server, &["aggregate", "enable", "cpu_1h"], ""));
    let shown = stdout(run(&server, &["aggregate", "show", "cpu_1h"], ""));
    assert!(shown.contains("\"status\": \"active\""), "{shown}");
    std::fs::write(file.path(), rule.replace("1h\nagg", "30m\nagg")).unwrap();
    let changed = stdout(run(&server, &["aggregate", "change", file.path().to_str().unwrap()], ""));
    assert!(changed.contains("\"status\": \"building\""), "{changed}");
    stdout(run(&server, &["aggregate", "undo", "cpu_1h"], ""));
    stdout(run(&server, &["aggregate", "rename", "cpu_1h", "hourly"], ""));
    assert_eq!(server.qm("SELECT usage_mean FROM hourly"), "2.0");
    stdout(run(&server, &["aggregate", "drop", "--data", "hourly"], ""));
    assert_eq!(run(&server, &["aggregate", "show", "hourly"], "").status.code(), Some(1));
    stdout(run(&server, &["aggregate", "undo", "hourly"], ""));
    assert_eq!(server.qm("SELECT usage_mean FROM hourly"), "2.0");
}

#[test]
fn rules_are_checked_without_a_server() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yml");
    let check = ["rules", "check", folder.path().to_str().unwrap()];
    let rule = "databases:\n  t:\n    retention: [{measurement: cpu, keep: 7d}]\n";
    std::fs::write(&file, rule).unwrap();
    assert!(stdout(run(&server, &check, "")).contains("no problems"));
    std::fs::write(&file, rule.replace("7d", "soon")).unwrap();
    let wrong = run(&server, &check, "");
    assert_eq!(wrong.status.code(), Some(1));
    let words = String::from_utf8(wrong.stdout).unwrap();
    assert!(words.contains("a.yml:3: ") && words.contains("keep"), "{words}");
}
