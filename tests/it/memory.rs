//! Storage `memory` (S000-10): stored buckets are in memory, a restart takes them, and nothing
//! answers otherwise.

use highwater_tests::TestServer;
use serde_json::{Value, json};

use crate::backup::{backup, restored};
use crate::{aggregate, launch, with_rules};

/// 2024-01-01T00:00:00Z, in seconds.
const NEW_YEAR: u64 = 1_704_067_200;

/// Segments with partials, of the measurements whose name this begins.
fn segments(server: &TestServer, name: &str) -> String {
    let of = format!("measurement LIKE '{name}@%' AND measurement NOT LIKE '%restatements%'");
    server.q(&format!("SELECT count(*) FROM system.segments WHERE {of}"))
}

fn states(server: &TestServer) -> String {
    server.q("SELECT DISTINCT state FROM system.aggregates ORDER BY 1")
}

/// Folders of segments, by measurement.
fn folders(server: &TestServer) -> Vec<String> {
    let files = server.files().into_iter();
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "parquet"));
    files.map(|path| path.display().to_string()).collect()
}

fn two_days(server: &TestServer) {
    server.clock("2024-01-03T00:00:00Z");
    let lines: String = (0..96)
        .map(|i| format!("m,host=h{} v={}.25,n={i}i {}\n", i % 3, i * 7 % 11, NEW_YEAR + i * 1_800))
        .collect();
    server.w("s", &lines);
}

const HOURS: &str = "SELECT time, host, v_sum, n_max, count FROM hours ORDER BY host, time";
const DAYS: &str = "SELECT time, v_sum, n_max, count FROM days ORDER BY time";
const TOTAL: &str = "SELECT host, v_sum, count FROM total ORDER BY host";

fn direct(server: &TestServer) -> [String; 3] {
    let of = |groups: &str, width: &str, outputs: &str| {
        let bucket = format!("time_bucket('{width}', time)");
        format!(
            "SELECT {bucket} AS time, {groups}{outputs} FROM m GROUP BY {groups}{bucket} \
             ORDER BY {groups}{bucket}"
        )
    };
    let outputs = "sum(v), max(n), count(*)";
    [
        server.q(&of("host, ", "1h", outputs)),
        server.q(&of("", "1d", outputs)),
        server.q("SELECT host, sum(v), count(*) FROM m GROUP BY host ORDER BY host"),
    ]
}

fn read(server: &TestServer) -> [String; 3] {
    [HOURS, DAYS, TOTAL].map(|sql| server.q(sql))
}

fn read_stored(server: &TestServer) -> [String; 3] {
    [HOURS, DAYS, TOTAL].map(|sql| server.qm(sql))
}

/// Hours over points, days over hours, a keyed one over points, each stored in its own way.
fn rules(storage: [&str; 3], refresh: &str) -> String {
    let [hours, days, total] = storage;
    format!(
        "
databases:
  t:
    aggregates:
      - name: hours
        source: m
        interval: 1h
        group_by: [host]
        aggregations: [{{field: v, function: sum}}, {{field: n, function: max}}, {{function: count}}]
        refresh: {{strategy: {refresh}}}
        storage: {hours}
      - {{name: days, source: hours, interval: 1d, group_by: [], refresh: {{strategy: {refresh}}}, storage: {days}}}
      - name: total
        source: m
        group_by: [host]
        aggregations: [{{field: v, function: sum}}, {{function: count}}]
        refresh: {{strategy: {refresh}}}
        storage: {total}
"
    )
}

const MEMORY: [&str; 3] = ["memory"; 3];

#[test]
fn s000_10_storage_memory() {
    let mut server = with_rules(&rules(MEMORY, "realtime"));
    two_days(&server);
    server.drain();
    let before = read(&server);
    assert_eq!(before, direct(&server));
    assert_eq!(before, read_stored(&server));
    let status = aggregate(&server, "hours");
    assert_eq!((&status["storage"], &status["status"]), (&json!("memory"), &json!("active")));
    assert!(status["resident"]["bytes"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(status["resident"]["rows"], status["rows"], "{status}");
    server.post("/api/v1/flush").expect(204);
    let stored = ["hours", "days", "total"].map(|name| segments(&server, name));
    assert_eq!(stored, ["0", "0", "0"]);

    server.restart();
    assert_eq!(read(&server), before, "from the source");
    server.clock("2024-01-03T00:00:00Z");
    assert_eq!(states(&server), "rebuilding");
    assert_eq!(read_stored(&server), ["", "", ""]);
    server.drain();
    assert_eq!((states(&server), read_stored(&server)), ("active".to_owned(), before.clone()));
    assert_eq!(read(&server), before);

    server.kill9();
    assert_eq!(read(&server), before, "from the source");
    server.w("s", &format!("m,host=h1 v=100.5 {}\nm,host=h9 v=1 {}\n", NEW_YEAR + 60, NEW_YEAR));
    assert_eq!(read(&server), direct(&server));
    server.clock("2024-01-03T00:00:00Z");
    server.drain();
    assert_eq!(read_stored(&server), direct(&server));
    let folders = folders(&server);
    assert!(folders.iter().all(|path| !path.contains("%40") || path.contains("restatements")));
}

#[test]
fn s000_10_what_a_restart_took_is_stored_again_whatever_the_strategy() {
    let mut server = with_rules(&rules(MEMORY, "on_demand"));
    two_days(&server);
    for name in ["hours", "days", "total"] {
        server.post(&format!("/api/v1/aggregates/{name}/refresh")).expect(200);
    }
    let stored = read_stored(&server);
    assert_eq!(stored, direct(&server));
    server.w("s", &format!("m,host=h1 v=5 {}\n", NEW_YEAR + 200_000));
    server.restart();
    server.clock("2024-01-05T00:00:00Z");
    server.drain();
    let [hours, days, total] = read_stored(&server);
    assert_eq!([&hours, &days], [&stored[0], &stored[1]], "and nothing but that");
    assert_ne!(total, "");
    assert_eq!(read(&server), direct(&server));
    assert_eq!(server.tick(), 0);
}

#[test]
fn s000_10_parents_and_children_are_stored_in_any_way() {
    for storage in [["memory", "durable", "hybrid"], ["durable", "memory", "memory"]] {
        let mut server = with_rules(&rules(storage, "realtime"));
        two_days(&server);
        server.drain();
        let before = read(&server);
        let late = format!("m,host=h2 v=40.5 {}\n", NEW_YEAR + 7_000);
        server.w("s", &late);
        let after = read(&server);
        assert_ne!(before, after);
        server.kill9();
        assert_eq!(read(&server), after, "{storage:?}");
        server.q("DELETE FROM m WHERE host = 'h0' AND time < '2024-01-01T12:00:00Z'");
        assert_eq!(read(&server), direct(&server), "{storage:?}");
        server.clock("2024-01-03T00:00:00Z");
        server.drain();
        assert_eq!(read_stored(&server), direct(&server), "{storage:?}");
        for name in ["hours", "days", "total"] {
            let verify = format!("/api/v1/aggregates/{name}/verify");
            assert_eq!(server.post(&verify).expect(200).json()["mismatches"], 0);
        }
    }
}

/// The same points as `m`, which expire, and as `everything`, which do not.
fn write_day(server: &TestServer, day: u64) {
    let points = (0..6).map(|i| {
        let at = NEW_YEAR + day * 86_400 + i * 14_000;
        let (host, v) = (i % 2, day * 10 + i);
        let fields = format!("host=h{host} v={v}.5,n={v}i {at}\n");
        format!("m,{fields}everything,{fields}")
    });
    let end = i64::try_from(NEW_YEAR + (day + 1) * 86_400).unwrap();
    server.clock(&highwater_core::Timestamp::from_secs(end).to_string());
    server.w("s", &points.collect::<String>());
}

const MONTHS: &str = "
      - {name: months, source: m, interval: 1mo, group_by: [host], aggregations: [{field: v, function: [sum, count, last]}], storage: memory}
      - {name: of_days, source: days, interval: 1mo, group_by: [], storage: memory}
    retention: [{measurement: m, keep: 7d}]
";

#[track_caller]
fn check_all(server: &TestServer) {
    let levels = [
        ("hours", "1h", "host, ", "v_sum, n_max, count", "sum(v), max(n), count(*)"),
        ("days", "1d", "", "v_sum, n_max, count", "sum(v), max(n), count(*)"),
        ("months", "1mo", "host, ", "v_sum, v_count, v_last", "sum(v), count(v), last(v)"),
        ("of_days", "1mo", "", "v_sum, n_max, count", "sum(v), max(n), count(*)"),
    ];
    for (name, width, groups, stored, direct) in levels {
        let bucket = format!("time_bucket('{width}', time)");
        let own = format!("SELECT time, {groups}{stored} FROM {name} ORDER BY {groups}time");
        let direct = format!(
            "SELECT {bucket} AS time, {groups}{direct} FROM everything GROUP BY {groups}{bucket} \
             ORDER BY {groups}{bucket}"
        );
        assert_eq!(server.q(&own), server.q(&direct), "{name}");
    }
    let total = "SELECT host, sum(v), count(*) FROM everything GROUP BY host ORDER BY host";
    assert_eq!(server.q(TOTAL), server.q(total));
}

#[test]
fn s000_10_months_over_a_week_of_points_are_exact_through_expiry_and_kills() {
    let yaml = rules(["memory", "memory", "memory"], "periodic") + MONTHS;
    let mut server = with_rules(&yaml);
    for day in 0..45 {
        write_day(&server, day);
        match day % 10 {
            3 => server.drain(),
            6 => {
                server.kill9();
                check_all(&server);
                write_day(&server, day);
                server.tick();
            }
            9 => {
                server.drain();
                check_all(&server);
                server.kill9();
                check_all(&server);
            }
            _ => drop(server.tick()),
        }
    }
    server.clock("2024-03-20T00:00:00Z");
    server.drain();
    assert_eq!(server.q("SELECT count(*) FROM m"), "0");
    check_all(&server);
    let kept = ["hours", "months", "total"].map(|name| segments(&server, name));
    assert!(kept.iter().all(|count| count != "0"), "{kept:?}");
    assert_eq!(segments(&server, "days"), "0", "hours have them");
    server.kill9();
    check_all(&server);
    server.clock("2024-03-20T00:00:00Z");
    server.drain();
    check_all(&server);
    assert_eq!(server.q(TOTAL), server.qm(TOTAL));
    assert_eq!(server.q(HOURS), server.qm(HOURS));
    assert_eq!(server.q(DAYS), server.qm(DAYS));

    // What is sealed is deleted as a whole or not at all, on disk as well.
    let whole = "DELETE FROM m WHERE host = 'h1' AND time < '2024-02-01T00:00:00Z'";
    let refused = server.query(whole, json!({}));
    assert_eq!(refused.status, 409, "{}", refused.body);
}

fn change(server: &TestServer, name: &str, key: &str, value: &Value) {
    let mut rule = aggregate(server, name)["definition"].clone();
    rule[key] = value.clone();
    let reply = server.json("PUT", &format!("/api/v1/aggregates/{name}"), &rule);
    assert!(reply.status < 300, "{}", reply.body);
}

#[test]
fn s000_10_storage_can_be_changed_both_ways() {
    let yaml = rules(["durable"; 3], "periodic") + "    retention: [{measurement: m, keep: 7d}]\n";
    let mut server = launch().rules(&yaml).start();
    for day in 0..12 {
        write_day(&server, day);
        server.drain();
    }
    let before = read(&server);
    let on_disk = segments(&server, "hours");
    assert_ne!(on_disk, "0");
    for name in ["hours", "days", "total"] {
        change(&server, name, "storage", &json!("memory"));
    }
    assert_eq!(read(&server), before);
    assert_eq!(states(&server), "rebuilding");
    server.drain();
    assert_eq!((states(&server), read_stored(&server)), ("active".to_owned(), before.clone()));
    assert_eq!(segments(&server, "days"), "0");
    let resident = |name: &str| {
        let status = aggregate(&server, name);
        let rows = |status: &Value| status["rows"].as_u64().unwrap();
        (rows(&status["resident"]) > 0, rows(&status) - rows(&status["resident"]) > 0)
    };
    assert_eq!(
        ["hours", "days", "total"].map(resident),
        [(true, true), (true, false), (true, true)]
    );
    server.kill9();
    assert_eq!(read(&server), before);
    server.clock("2024-01-13T00:00:00Z");
    server.drain();
    for name in ["hours", "days", "total"] {
        change(&server, name, "storage", &json!("durable"));
    }
    assert_eq!(read(&server), before);
    server.kill9();
    assert_eq!(read(&server), before);
    server.clock("2024-01-13T00:00:00Z");
    server.drain();
    assert_eq!((states(&server), read_stored(&server)), ("active".to_owned(), before.clone()));
    server.kill9();
    assert_eq!((read(&server), read_stored(&server)), (before.clone(), before));
    assert_eq!(server.metric("highwater_storage_resident_bytes"), Some(0.0));
}

#[test]
fn s000_10_what_does_not_fit_into_memory_is_read_from_the_source() {
    let yaml = rules(MEMORY, "periodic") + "    retention: [{measurement: m, keep: 7d}]\n";
    let mut server =
        launch().rules(&yaml).variable("HIGHWATER_AGGREGATION__RESIDENT_MB", "0").start();
    two_days(&server);
    server.drain();
    assert_eq!(read(&server), direct(&server));
    assert_eq!(read_stored(&server), ["", "", ""]);
    let status = aggregate(&server, "total");
    let reason = status["resident"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("aggregation.resident_mb"), "{status}");
    server.w("s", &format!("m,host=h1 v=5 {}\n", NEW_YEAR + 5));
    server.clock("2024-01-03T01:00:00Z");
    server.drain();
    assert_eq!(read(&server), direct(&server));
    let told = server.stderr().matches("does not fit into aggregation.resident_mb").count();
    assert_eq!(told, 3, "once for each");
    let refused = server.post("/api/v1/aggregates/total/refresh");
    assert!(refused.status >= 500, "{}", refused.body);
    assert!(refused.error().contains("aggregation.resident_mb"), "{}", refused.body);

    // What expires goes to disk, which has room.
    let before = read(&server);
    server.clock("2024-02-01T00:00:00Z");
    server.drain();
    assert_eq!(server.q("SELECT count(*) FROM m"), "0");
    assert_eq!(read(&server), before);
    server.kill9();
    assert_eq!(read(&server), before);
}

#[test]
fn s000_10_a_job_begins_again_after_a_restart() {
    let mut server = launch().switch("--fault-injection").start();
    two_days(&server);
    let body = json!({"switch": "batch_pause", "value": 2});
    server.json("POST", "/debug/fault", &body).expect(200);
    let rule = json!({"name": "months", "source": "m", "interval": "1mo", "storage": "memory",
        "aggregations": [{"field": "v", "function": ["sum", "count"]}]});
    server.clock("2024-02-05T00:00:00Z");
    server.json("POST", "/api/v1/aggregates", &rule).expect(201);
    let small = json!({"batch_size": 7});
    server.json("POST", "/api/v1/aggregates/months/backfill", &small).expect(200);
    server.drain();
    let job = server.get("/api/v1/jobs/months").expect(200).json();
    assert_eq!(job["status"], "backfilling", "{job}");
    server.kill9();
    server.clock("2024-02-05T00:00:00Z");
    server.drain();
    let job = server.get("/api/v1/jobs/months").expect(200).json();
    assert_eq!(job["status"], "completed", "{job}");
    let months = "SELECT v_sum, v_count FROM months";
    let direct = server.q("SELECT sum(v), count(v) FROM m");
    assert_eq!((server.q(months), server.qm(months)), (direct.clone(), direct));
}

#[test]
fn s000_10_a_backup_without_its_rules_has_all_buckets() {
    let yaml = rules(MEMORY, "periodic") + "    retention: [{measurement: m, keep: 7d}]\n";
    let server = with_rules(&yaml);
    for day in 0..12 {
        write_day(&server, day);
        server.drain();
    }
    let before = read(&server);
    let folder = tempfile::tempdir().unwrap();
    backup(&server, folder.path());
    let (_place, mut restored) = restored(folder.path());
    restored.clock("2024-01-13T00:00:00Z");
    assert_eq!(states(&restored), "detached");
    assert_eq!(read(&restored), before, "from the source, as far as that is there");
    restored.drain();
    // Now what is stored is all there is.
    restored.w("s", &format!("m,host=h1 v=5 {}\n", NEW_YEAR + 11 * 86_400));
    restored.drain();
    assert_eq!((read(&restored), read_stored(&restored)), (before.clone(), before.clone()));
    restored.kill9();
    restored.clock("2024-03-13T00:00:00Z");
    restored.drain();
    assert_eq!((read(&restored), read_stored(&restored)), (before.clone(), before));
}

#[test]
fn s000_10_a_detached_aggregate_moves_to_disk_and_back() {
    let mut server = with_rules(&rules(MEMORY, "periodic"));
    two_days(&server);
    server.drain();
    let before = read(&server);
    let file = std::fs::read_dir(server.rules_folder()).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, "databases: {t: {}}").unwrap();
    server.post("/api/v1/rules/reload").expect(200);
    server.drain();
    assert_eq!(states(&server), "detached");
    assert_ne!(segments(&server, "hours"), "0");
    server.w("s", &format!("m,host=h1 v=5 {}\n", NEW_YEAR + 5));
    server.kill9();
    assert_eq!((read(&server), read_stored(&server)), (before.clone(), before));
    std::fs::write(&file, rules(MEMORY, "periodic")).unwrap();
    server.post("/api/v1/rules/reload").expect(200);
    assert_eq!(read(&server), direct(&server));
    server.clock("2024-01-03T01:00:00Z");
    server.drain();
    assert_eq!(
        (segments(&server, "hours"), read_stored(&server)),
        ("0".to_owned(), direct(&server))
    );
}

#[test]
fn s000_10_damage_is_repaired_and_changes_are_undone_in_memory() {
    let mut server = launch().rules(&rules(MEMORY, "periodic")).switch("--fault-injection").start();
    two_days(&server);
    server.drain();
    let before = read(&server);
    let body = json!({"switch": "corrupt_bucket", "value": "hours@2024-01-01T03:00:00Z"});
    server.json("POST", "/debug/fault", &body).expect(200);
    assert_ne!(read(&server), before);
    let verify =
        |server: &TestServer| server.post("/api/v1/aggregates/hours/verify").expect(200).json();
    assert_ne!(verify(&server)["mismatches"], 0);
    assert_eq!((read(&server), segments(&server, "hours")), (before.clone(), "0".to_owned()));

    change(&server, "total", "where", &json!("host <> 'h0'"));
    server.drain();
    assert_ne!(server.q(TOTAL), before[2]);
    server.kill9();
    server.clock("2024-01-03T00:00:00Z");
    server.post("/api/v1/aggregates/total/undo").expect(200);
    assert_eq!(read(&server), before);
    server.drain();
    assert_eq!((read(&server), read_stored(&server)), (before.clone(), before));
}

#[test]
fn s000_10_points_that_memory_needs_are_not_dropped_alone() {
    let server = with_rules(&rules(MEMORY, "periodic"));
    two_days(&server);
    server.drain();
    let keep = "/api/v1/measurements/m?aggregates=keep";
    let refused = server.send("DELETE", keep, &[], b"").expect(409);
    assert!(refused.error().contains("storage: durable"), "{}", refused.body);
    assert_eq!(server.q("SELECT count(*) FROM m"), "96");
}
