//! Damaged files are found, named, and never served.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use highwater_tests::TestServer;

use crate::server;

pub(crate) fn highwater(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_highwater-under-test")).args(args).output().unwrap()
}

pub(crate) fn check(data: &Path) -> (Option<i32>, String) {
    let output = highwater(&["check", "--data", data.to_str().unwrap()]);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// The first file of the server's data folder whose path has all of this.
pub(crate) fn file(server: &TestServer, parts: &[&str]) -> PathBuf {
    let mut files = server.files();
    files.sort_unstable();
    let has_all =
        |path: &PathBuf| parts.iter().all(|part| path.display().to_string().contains(part));
    server.data_folder().join(files.into_iter().find(has_all).unwrap())
}

pub(crate) fn flip_bit(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 16;
    fs::write(path, bytes).unwrap();
}

#[test]
fn x_04_damaged_segments_are_never_served() {
    let mut server = server();
    server.w("s", "cpu,host=a v=1.5 60\ncpu,host=b v=2.5 120\nmem v=1 60");
    assert!(server.terminate().success());
    let segment = file(&server, &["/cpu/", ".parquet"]);
    let (code, report) = check(&server.data_folder());
    assert_eq!(
        (code, &*report.replace(char::is_numeric, "")),
        (Some(0), "read  segments with  rows and  commits in logs,  bytes\n")
    );

    let intact = fs::read(&segment).unwrap();
    for at in [20, intact.len() / 2, intact.len() - 6] {
        flip_bit(&segment, at);
        let (code, report) = check(&server.data_folder());
        let name = segment.strip_prefix(server.data_folder()).unwrap().display().to_string();
        assert_eq!(code, Some(1), "{report}");
        assert!(report.starts_with(&format!("damaged: {name} is damaged at byte")), "{report}");

        server.start_again();
        let refused = server.query("SELECT * FROM cpu", serde_json::json!({})).expect(500).error();
        assert!(refused.contains(&name) && refused.contains("checksum"), "{refused}");
        assert_eq!(server.q("SELECT v FROM mem"), "1.0");
        let damaged = "SELECT measurement FROM system.segments WHERE damage LIKE '%checksum%'";
        assert_eq!(server.q(damaged), "cpu");
        assert_eq!(server.metric("highwater_storage_damaged_segments_count"), Some(1.0));
        server.w("s", "cpu,host=c v=3 180");
        assert!(server.terminate().success());
        fs::write(&segment, &intact).unwrap();
    }
    server.start_again();
    assert_eq!(server.q("SELECT sum(v) AS s FROM cpu"), "7.0");
}

#[test]
fn files_of_a_data_folder_are_shown() {
    let mut server = server();
    server.w("s", "cpu,host=a v=1.5 60\ncpu,host=b v=2.5 120");
    // It says that what came before it was durable.
    server.w("s", "mem v=1 60");
    server.kill9();
    let shown = |kind: &str| {
        let output = highwater(&["inspect", kind, server.data_folder().to_str().unwrap()]);
        String::from_utf8(output.stdout).unwrap()
    };
    let log = shown("wal");
    assert!(log.contains("2 points of 2 series into t.cpu"), "{log}");
    assert!(shown("manifest").contains("open_log"));
    let copy = tempfile::tempdir().unwrap();
    let damaged = copy.path().join("1.wal");
    fs::copy(file(&server, &[".wal"]), &damaged).unwrap();
    flip_bit(&damaged, 40);
    let output = highwater(&["inspect", "wal", damaged.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("byte 16"), "{said}");
    assert_eq!(highwater(&["inspect", "segment", "none"]).status.code(), Some(1));
    assert!(server.terminate().success());
    let output = highwater(&["inspect", "segment", server.data_folder().to_str().unwrap()]);
    let segment = String::from_utf8(output.stdout).unwrap();
    let times = "times [1970-01-01T00:01:00Z, 1970-01-01T00:02:00.000000001Z)";
    for fact in
        ["rows of t.cpu, format 2", "2 rows in 1 row groups", times, "checksums of the data match"]
    {
        assert!(segment.contains(fact), "{segment}");
    }
}
