//! Starting, stopping and settings (S002-29, X-01).

use std::process::{Command, Output};

use serde_json::json;

use crate::{launch, server};

fn highwater(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_highwater-under-test")).args(args).output().unwrap()
}

#[test]
fn s002_29_health_and_readiness() {
    let server = server();
    let health = server.get("/health").expect(200).json();
    assert_eq!(health["status"], "pass");
    assert_eq!(health["http"], server.address());
    server.get("/ready").expect(200);
    let ping = server.get("/ping").expect(204);
    assert!(ping.header("X-Influxdb-Version").is_some());
    server.send("HEAD", "/ping", &[], &[]).expect(204);
}

#[test]
fn s002_29_sigterm_ends_well() {
    let mut server = server();
    assert!(server.terminate().success(), "{}", server.stderr());
}

#[test]
fn s002_29_running_requests_end_before_the_server_does() {
    let mut server = server();
    let lines: String = (0..3_000).map(|i| format!("m v={i} {i}\n")).collect();
    server.w("s", &lines);
    let address = server.address().to_owned();
    let slow = std::thread::spawn(move || {
        let q = "SELECT count(*) AS n FROM m a CROSS JOIN m b WHERE a.v * b.v >= 0";
        let body = json!({ "db": "t", "q": q, "format": "csv" }).to_string();
        let answer = ureq::post(format!("{address}/api/v3/query_sql")).send(&body).unwrap();
        answer.into_body().read_to_string().unwrap()
    });
    while server.metric("highwater_query_active_queries") != Some(1.0) {
        assert!(!slow.is_finished(), "the query is not slow enough");
    }
    assert!(server.terminate().success(), "{}", server.stderr());
    assert_eq!(slow.join().unwrap(), "n\n9000000\n");
}

#[test]
fn s002_29_one_process_uses_a_data_folder() {
    let first = server();
    let folder = first.data_folder();
    let second = launch().data(&folder).try_start().unwrap_err();
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stderr.contains("in use"), "{}", second.stderr);
}

#[test]
fn s002_29_settings_that_make_no_sense_stop_the_start() {
    let failure = |launch: highwater_tests::Launch| launch.try_start().unwrap_err();
    let unknown = failure(launch().variable("HIGHWATER_STORAGE__FLUSH", "1"));
    assert!(!unknown.status.success());
    assert!(unknown.stderr.contains("HIGHWATER_STORAGE__FLUSH"), "{}", unknown.stderr);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("highwater.yml");
    std::fs::write(&file, "storage:\n  flush_pionts: 1\n").unwrap();
    let misspelt = failure(launch().flag("--config", file.to_str().unwrap()));
    assert!(!misspelt.status.success());
    assert!(misspelt.stderr.contains("flush_pionts"), "{}", misspelt.stderr);
}

#[test]
fn s002_29_the_default_settings_can_be_used() {
    let output = highwater(&["config", "default"]);
    assert!(output.status.success());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("highwater.yml");
    std::fs::write(&file, output.stdout).unwrap();
    let server = launch().flag("--config", file.to_str().unwrap()).start();
    server.get("/ready").expect(200);
}

#[test]
fn what_is_not_supported_yet_is_refused() {
    let postgres = highwater(&["serve", "--postgres", "127.0.0.1:5433"]);
    assert_eq!(postgres.status.code(), Some(2));
    assert_eq!(highwater(&["fly"]).status.code(), Some(2));
}

#[test]
fn x_01_test_controls_need_their_flag() {
    let real = launch().real_clock().start();
    assert_eq!(real.post("/debug/tick").expect(404).code(), "not_found");
    assert_eq!(real.get("/debug/clock").expect(404).code(), "not_found");

    let manual = server();
    assert_eq!(manual.tick(), 0);
    manual.clock("2024-01-01T00:00:00Z");
    manual.clock("2024-01-01T00:00:00Z");
    let back = json!({ "now": "2023-12-31T00:00:00Z" });
    let refused = manual.json("POST", "/debug/clock", &back).expect(400);
    assert!(refused.error().contains("2024-01-01T00:00:00Z"), "{}", refused.error());
    manual.json("POST", "/debug/clock", &json!({ "to": "2025-01-01" })).expect(400);
}
