//! Segments and manifest in an object store, over the real S3 protocol.

mod s3_server;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use highwater_tests::{Launch, StartFailure, TestServer};
use serde_json::json;

use crate::launch;
use s3_server::{BUCKET, S3Server};

const RULES: &str = "
databases:
  t:
    aggregates:
      - {name: cpu_1h, source: cpu, interval: 1h, group_by: [host], aggregations: [{function: count}, {field: n, function: sum}]}
";
const STORED: &str = "SELECT time,host,count,n_sum FROM cpu_1h ORDER BY host,time";
const DIRECT: &str = "SELECT time_bucket('1h',time) AS t,host,count(*),sum(n) FROM cpu GROUP BY 1,host ORDER BY host,t";

fn url(prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}")
}

/// How to start a server whose database is in the bucket.
fn in_bucket(s3: &S3Server) -> Launch {
    s3.used_by(launch(), &url("one"))
}

fn refused(launch: Launch) -> String {
    let StartFailure { status, stderr } = launch.try_start().unwrap_err();
    assert_eq!(status.code(), Some(1), "{stderr}");
    stderr
}

fn highwater(s3: &S3Server, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater-under-test"));
    command.args(args).envs(s3.variables()).output().unwrap()
}

/// So many points of each of three hosts, from this one on.
fn points(from: u64, count: u64) -> String {
    let line =
        |at: u64, host: &str| format!("cpu,host={host} n={at}i {}\n", 1_704_067_200 + at * 60);
    (from..from + count).flat_map(|at| ["a", "b", "c"].map(|host| line(at, host))).collect()
}

#[track_caller]
fn is_exact(server: &TestServer) {
    assert_eq!(server.q(STORED), server.q(DIRECT));
}

fn is_flushed(server: &TestServer) -> bool {
    server.metric("highwater_storage_memtable_rows") == Some(0.0)
}

/// Asks again and again. Each time is a request, so these are many minutes.
#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    assert!((0..1_000_000).any(|_| is_so()), "it never became so");
}

fn wipe_cache(data: &Path) {
    fs::remove_dir_all(data.join("cache")).unwrap();
}

#[test]
fn a_database_in_a_bucket_answers_as_any_other() {
    let s3 = S3Server::start();
    let mut server = in_bucket(&s3).rules(RULES).start();
    server.clock("2024-02-01T00:00:00Z");
    let (mut from, odd) = (0, "a/b\\ %é,x=1 v=1 0");
    server.w("s", odd);
    for round in 0..4 {
        server.w("s", &points(from, 50));
        from += 50;
        server.post("/api/v1/flush").expect(204);
        server.drain();
        server.w("s", &points(from, 10));
        from += 10;
        is_exact(&server);
        let before = server.q(STORED);
        server.kill();
        if round % 2 == 0 {
            wipe_cache(&server.data_folder());
        }
        server.start_again();
        server.clock("2024-02-01T00:00:00Z");
        assert_eq!(server.q(STORED), before);
        is_exact(&server);
    }
    assert_eq!(
        server.q("SELECT count(*), sum(n) FROM cpu"),
        format!("{},{}", 3 * from, 3 * from * (from - 1) / 2)
    );
    assert_eq!(server.q("SELECT v FROM \"a/b %é\""), "1.0");
    server.csv("DELETE FROM cpu WHERE host = 'b' AND n < 100");
    server.post("/api/v1/compact").expect(204);
    server.drain();
    is_exact(&server);
    for counted in ["cache_hits_total", "cache_misses_total", "cache_bytes"] {
        assert!(server.metric(&format!("highwater_storage_{counted}")) > Some(0.0), "{counted}");
    }
    assert!(!s3.objects("one/segments").is_empty() && !s3.objects("one/manifest").is_empty());
    let local = server.files();
    let is_of_bucket =
        |path: &&std::path::PathBuf| path.starts_with("segments") || path.starts_with("manifest");
    assert_eq!(local.iter().find(is_of_bucket), None);
    server.restart();
    is_exact(&server);
}

#[test]
fn another_machine_goes_on_after_an_orderly_stop() {
    let s3 = S3Server::start();
    let mut first = in_bucket(&s3).start();
    first.w("s", &points(0, 10));
    let elsewhere = refused(in_bucket(&s3));
    assert!(elsewhere.contains("wal/0") && elsewhere.contains("--abandon-logs"), "{elsewhere}");
    assert!(first.terminate().success(), "{}", first.stderr());
    let mut second = in_bucket(&s3).start();
    assert_eq!(second.q("SELECT count(*) FROM cpu"), "30");
    second.w("s", &points(10, 10));
    assert!(second.terminate().success());
    first.start_again();
    assert_eq!(first.q("SELECT count(*) FROM cpu"), "60");
}

/// The bucket is consistent without the log: no bucket of the aggregate counts a lost point.
#[test]
fn a_lost_disk_takes_what_was_not_flushed_and_nothing_else() {
    let s3 = S3Server::start();
    let mut first = in_bucket(&s3).rules(RULES).start();
    first.clock("2024-02-01T00:00:00Z");
    first.w("s", &points(0, 100));
    first.drain();
    first.w("s", &points(50, 10));
    first.w("s", &points(100, 20));
    first.json("POST", "/api/v1/aggregates/cpu_1h/refresh", &json!({})).expect(200);
    first.w("s", &points(120, 10));
    is_exact(&first);
    first.kill();
    let second = in_bucket(&s3).switch("--abandon-logs").rules(RULES).start();
    second.clock("2024-02-01T00:00:00Z");
    assert_eq!(second.q("SELECT count(*) FROM cpu"), "360");
    is_exact(&second);
    second.drain();
    is_exact(&second);
}

#[test]
fn a_second_server_fences_the_first() {
    let s3 = S3Server::start();
    let first = in_bucket(&s3).start();
    first.w("s", &points(0, 10));
    first.post("/api/v1/flush").expect(204);
    let second = in_bucket(&s3).switch("--abandon-logs").start();
    second.w("s", &points(10, 10));
    second.post("/api/v1/flush").expect(204);

    first.w("s", &points(100, 1));
    let told = "another process has opened this database";
    assert!(first.post("/api/v1/flush").expect(503).error().contains(told));
    assert!(first.write("s", &points(101, 1)).expect(503).error().contains(told));
    assert_eq!(second.q("SELECT count(*) FROM cpu"), "60");
    second.w("s", &points(20, 10));
    second.post("/api/v1/flush").expect(204);
}

#[test]
fn the_store_goes_away_and_comes_back() {
    let mut s3 = S3Server::start();
    let mut server =
        in_bucket(&s3).real_clock().variable("HIGHWATER_STORAGE__FLUSH_POINTS", "1").start();
    server.w("s", &points(0, 10));
    wait_until(|| is_flushed(&server));
    s3.stop();
    for batch in 1..5 {
        server.w("s", &points(batch * 10, 10));
        assert_eq!(server.q("SELECT count(*) FROM cpu"), format!("{}", (batch + 1) * 30));
    }
    let failure = "flush failed and will be tried again";
    wait_until(|| server.get("/health").status == 200 && server.stderr().contains(failure));
    server.w("s", &points(50, 10));
    assert!(!is_flushed(&server));
    s3.resume();
    s3.lose_answers(3);
    wait_until(|| is_flushed(&server));
    // The end of a server does not wait for the store; its log has what is missing there.
    s3.stop();
    server.w("s", &points(60, 10));
    assert!(!server.terminate().success());
    s3.resume();
    server.start_again();
    assert_eq!(server.q("SELECT count(*) FROM cpu"), "210");
    server.kill();
    wipe_cache(&server.data_folder());
    server.start_again();
    assert_eq!(server.q("SELECT count(*), sum(n) FROM cpu"), format!("210,{}", 3 * 69 * 70 / 2));
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let mut s3 = S3Server::start();
    let at = |url: &str| s3.used_by(launch(), url);
    for (launch, told) in [
        (at("gs://bucket/one"), "only s3://bucket/prefix is supported"),
        (at("s3://not-there/one"), "could not reach the object store s3://not-there/one"),
        (at(&url("one")).variable("AWS_SECRET_ACCESS_KEY", "wrong"), "SignatureDoesNotMatch"),
        (at(&url("one")).variable("AWS_ALLOW_HTTP", "perhaps"), "AWS_ variables"),
    ] {
        let stderr = refused(launch);
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut local = launch().data(folder.path()).start();
    assert!(local.terminate().success());
    let stderr = refused(at(&url("one")).data(folder.path()));
    assert!(stderr.contains("a database of its own"), "{stderr}");

    let folder = tempfile::tempdir().unwrap();
    let mut remote = at(&url("one")).data(folder.path()).start();
    assert!(remote.terminate().success());
    let stderr = refused(at(&url("two")).data(folder.path()));
    assert!(stderr.contains("belongs to s3://plant-data/one"), "{stderr}");
    let stderr = refused(launch().data(folder.path()));
    assert!(stderr.contains("set storage.object_store to s3://plant-data/one"), "{stderr}");
    let launch = at(&url("one")).data(folder.path());
    s3.stop();
    let stderr = refused(launch);
    assert!(stderr.contains("could not reach the object store s3://plant-data/one"), "{stderr}");
}

#[test]
fn check_and_backup_know_the_bucket() {
    let s3 = S3Server::start();
    let mut server = in_bucket(&s3).start();
    server.w("s", &points(0, 10));
    server.post("/api/v1/flush").expect(204);
    server.w("s", &points(10, 10));
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let output = highwater(&s3, &["backup", "--host", server.address(), &path("backup")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = highwater(&s3, &["restore", &path("backup"), "--data", &path("restored")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let restored = launch().data(&place.path().join("restored")).start();
    assert_eq!(restored.q("SELECT count(*) FROM cpu"), "60");

    server.kill();
    let data = server.data_folder();
    let check = || highwater(&s3, &["check", "--data", data.to_str().unwrap()]);
    let output = check();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert!(report.contains("read 2 segments with 60 rows"), "{report}");
    let segment = s3.objects("one/segments").remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[20] ^= 16;
    fs::write(&segment, bytes).unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("damaged: segments/t/cpu/"), "{report}");
    // The server has a copy that is sound.
    server.start_again();
    assert_eq!(server.q("SELECT sum(n) FROM cpu"), "570");
    wipe_cache(&data);
    let refused = server.query("SELECT sum(n) FROM cpu", json!({})).expect(500).error();
    assert!(refused.contains("checksum"), "{refused}");
}
