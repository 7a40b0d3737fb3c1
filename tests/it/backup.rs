//! Backups of a running server (S002-29).

use std::path::Path;
use std::process::{Command, Output};

use highwater_tests::TestServer;
use serde_json::json;

use crate::{launch, server};

fn highwater(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_highwater-under-test")).args(args).output().unwrap()
}

#[track_caller]
pub(super) fn backup(server: &TestServer, folder: &Path) -> String {
    let output = highwater(&["backup", "--host", server.address(), folder.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub(super) fn restored(folder: &Path) -> (tempfile::TempDir, TestServer) {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let args = ["restore", folder.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let output = highwater(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(highwater(&args).status.code(), Some(1), "a data folder is never overwritten");
    let server = launch().data(&data).start();
    (place, server)
}

const SUMS: &str = "SELECT count(*) AS n, sum(v) AS s FROM m";
const HOURS: &str = "SELECT sum(n) AS n, sum(v_sum) AS s FROM m_1h";

fn with_hours(server: &TestServer) {
    let rule = json!({"name": "m_1h", "source": "m", "interval": "1h", "aggregations": [
        {"field": "v", "function": "sum"}, {"function": "count", "as": "n"}]});
    server.json("POST", "/api/v1/aggregates", &rule).expect(201);
}

#[test]
fn a_backup_is_one_moment_of_a_running_server() {
    let server = server();
    server.w("s", "m,h=a v=1i 0");
    with_hours(&server);
    let folder = tempfile::tempdir().unwrap();
    let (server, path) = (&server, folder.path());
    let written = std::sync::atomic::AtomicI64::new(1);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        use std::sync::atomic::Ordering::SeqCst;
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                let at = written.load(SeqCst);
                server.w("s", &format!("m,h=h{} v=1i {}", at % 7, at * 60));
                written.store(at + 1, SeqCst);
                if at % 5 == 0 {
                    server.post("/api/v1/aggregates/m_1h/refresh");
                }
            }
        });
        for _ in 0..4 {
            let before = written.load(SeqCst);
            backup(server, path);
            let after = written.load(SeqCst);
            let (_place, restored) = restored(path);
            let found = restored.q(SUMS);
            assert_eq!(restored.q(HOURS), found);
            let points: i64 = found.split(',').next().unwrap().parse().unwrap();
            assert!((before..=after + 1).contains(&points), "{points} of {before} to {after}");
        }
        is_over.store(true, SeqCst);
    });
}

#[test]
fn a_second_backup_copies_what_is_new() {
    let server = server();
    let value = |at: i64| at * at * 7919 % 100_003;
    let lines: String = (0..2000).map(|at| format!("m,h=a v={}i {at}\n", value(at))).collect();
    server.w("s", &lines);
    let folder = tempfile::tempdir().unwrap();
    let new_bytes = |report: String| {
        let (_, rest) = report.split_once("rows; ").unwrap();
        rest.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let first = new_bytes(backup(&server, folder.path()));
    server.w("s", "m,h=b v=1i 100000");
    let second = new_bytes(backup(&server, folder.path()));
    assert!(second < first, "{second} after {first}");
    let (_place, restored) = restored(folder.path());
    assert_eq!(restored.q("SELECT count(*) AS n FROM m"), "2001");

    // Another server has files of the same names.
    let other = crate::server();
    other.w("s", "m,h=a v=5i 5");
    let args = ["backup", "--host", other.address(), folder.path().to_str().unwrap()];
    let refused = highwater(&args);
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("is the backup of another database"), "{words}");
}

#[test]
fn a_damaged_backup_is_repaired_by_the_next() {
    let server = server();
    server.w("s", "m,h=a v=1i 1\nm,h=b v=2i 2");
    let folder = tempfile::tempdir().unwrap();
    backup(&server, folder.path());
    let mut open = vec![folder.path().join("segments")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[30] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
    }
    let nothing = tempfile::tempdir().unwrap();
    let target = nothing.path().join("data");
    let path = folder.path().to_str().unwrap();
    let refused = highwater(&["restore", path, "--data", target.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the backup is damaged"));
    backup(&server, folder.path());
    let (_place, restored) = restored(folder.path());
    assert_eq!(restored.q("SELECT sum(v) AS s FROM m"), "3");
}

#[test]
fn a_folder_in_use_is_no_place_for_a_backup() {
    let server = server();
    server.w("s", "m v=1 1");
    let data = server.data_folder();
    let args = ["backup", "--host", server.address(), data.to_str().unwrap()];
    let output = highwater(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("is not empty; choose another folder")
    );
    let nothing = tempfile::tempdir().unwrap();
    let target = nothing.path().join("data");
    let args = ["restore", nothing.path().to_str().unwrap(), "--data", target.to_str().unwrap()];
    assert_eq!(highwater(&args).status.code(), Some(1));
    assert!(!target.exists());
}
