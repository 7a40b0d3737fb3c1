//! Damaged segments are given up, and everything else answers again.

use std::fs;

use highwater_tests::{Reply, TestServer};
use serde_json::{Value, json};

use crate::damage::{check, file, flip_bit, highwater};
use crate::with_rules;

const RULES: &str = "
databases:
  t:
    aggregates:
      - name: cpu_1h
        source: cpu
        interval: 1h
        group_by: [host]
        aggregations: [{field: v, function: [count, sum, last]}]
        refresh: {strategy: periodic, every: 10s}
      - {name: cpu_1d, source: cpu_1h, interval: 1d}
";
/// 2024-01-01T00:00:00Z.
const BASE: i64 = 1_704_067_200;
/// The hours are closed then, and so is their day.
const NOW: &str = "2024-01-02T07:00:00Z";
const HOURS: &str = "SELECT * FROM cpu_1h ORDER BY time, host";
const HOURS_OF_POINTS: &str = "SELECT time_bucket('1h', time) AS b, host, count(v), sum(v), last(v) \
    FROM cpu GROUP BY b, host ORDER BY b, host";
const DAYS: &str = "SELECT time, host, v_count, v_sum FROM cpu_1d ORDER BY time, host";
const DAYS_OF_POINTS: &str = "SELECT time_bucket('1d', time) AS b, host, count(v), sum(v) \
    FROM cpu GROUP BY b, host ORDER BY b, host";

/// Two segments of points: hours 0 to 3, and late points of hours 1 and 2 that overwrite some.
fn fleet(rules: &str) -> TestServer {
    let server = with_rules(rules);
    let line =
        |host: char, minute: i64, v: f64| format!("cpu,host={host} v={v} {}\n", BASE + minute * 60);
    let minutes = |from: i64, to: i64, step: usize| (from..to).step_by(step);
    let first: String = minutes(0, 240, 10)
        .flat_map(|minute| ['a', 'b'].map(|host| line(host, minute, minute as f64 / 8.0)))
        .collect();
    server.clock("2024-01-01T06:00:00Z");
    server.w("s", &first);
    server.post("/api/v1/flush").expect(204);
    server.drain();
    let late: String = minutes(60, 180, 5).map(|minute| line('a', minute, 1000.5)).collect();
    server.w("s", &late);
    server.post("/api/v1/flush").expect(204);
    server.clock(NOW);
    server.drain();
    server
}

/// Flips a bit in the newest segment of a measurement while the server is down, and starts it.
fn damaged(server: &mut TestServer, measurement: &str) -> String {
    let newest = format!(
        "SELECT path FROM system.segments WHERE measurement = '{measurement}' \
         ORDER BY max_seq DESC LIMIT 1"
    );
    let path = server.q(&newest);
    assert!(server.terminate().success());
    flip_bit(&server.data_folder().join(&path), 30);
    server.start_again();
    server.clock(NOW);
    path
}

fn quarantine(server: &TestServer, body: Value) -> Reply {
    server.json("POST", "/api/v1/segments/quarantine", &body)
}

#[track_caller]
fn assert_aggregates_are_right(server: &TestServer) {
    assert_eq!(server.q(HOURS), server.q(HOURS_OF_POINTS));
    assert_eq!(server.q(DAYS), server.q(DAYS_OF_POINTS));
}

#[track_caller]
fn assert_sound(server: &mut TestServer) {
    assert!(server.terminate().success());
    let (code, report) = check(&server.data_folder());
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("were given up"), "{report}");
    server.start_again();
}

#[test]
fn x_04_points_of_a_damaged_segment_are_given_up() {
    let mut server = fleet(RULES);
    let path = damaged(&mut server, "cpu");
    let refused = server.query("SELECT * FROM cpu", json!({})).expect(500);
    assert_eq!(refused.code(), "corrupt");
    assert!(refused.error().contains(&path), "{}", refused.error());

    let plan = quarantine(&server, json!({"segment": path, "dry_run": true})).expect(200).json();
    assert_eq!(
        (&plan["done"], &plan["rows"], &plan["measurement"]),
        (&json!(false), &json!(24), &json!("cpu"))
    );
    assert_eq!(plan["times"]["start"], "2024-01-01T01:00:00Z");
    assert!(plan["summary"].as_str().unwrap().contains("24 points of cpu"), "{plan}");
    server.query("SELECT * FROM cpu", json!({})).expect(500);

    let done = quarantine(&server, json!({"segment": path})).expect(200).json();
    assert_eq!((&done["done"], &done["lost"]), (&json!(true), &plan["lost"]));
    // The values that the lost points had overwritten are back.
    assert_eq!(server.q("SELECT count(*), max(v) FROM cpu"), "48,28.75");
    assert_aggregates_are_right(&server);
    server.drain();
    assert_eq!(server.qm(HOURS), server.q(HOURS_OF_POINTS));

    assert_sound(&mut server);
    assert_aggregates_are_right(&server);
    let listed = "SELECT measurement, kind, path, rows, given_up FROM system.quarantine \
        WHERE damage LIKE '%checksum%'";
    assert_eq!(server.q(listed), format!("cpu,points,{path},24,{NOW}"));
    assert_eq!(server.q("SELECT count(*) FROM system.segments WHERE damage IS NOT NULL"), "0");
    let kept = server.q("SELECT kept FROM system.quarantine");
    assert!(kept.starts_with("quarantine/t/cpu/") && server.data_folder().join(kept).is_file());
    server.w("s", &format!("cpu,host=a v=9 {}", BASE + 3600));
    server.post("/api/v1/flush").expect(204);
    server.post("/api/v1/compact").expect(204);
    assert_aggregates_are_right(&server);
}

#[test]
fn x_04_stored_buckets_of_a_damaged_segment_are_computed_again() {
    for stored in ["cpu_1h@1", "cpu_1d@1"] {
        let mut server = fleet(RULES);
        let expected = (server.q(HOURS), server.q(DAYS));
        let version = server.q("SELECT DISTINCT measurement FROM system.segments \
            WHERE kind <> 'points' ORDER BY 1");
        assert!(version.contains(stored), "{version}");
        let path = damaged(&mut server, stored);
        let aggregate = stored.split('@').next().unwrap();
        let refused = server.query(&format!("SELECT * FROM {aggregate}"), json!({})).expect(500);
        assert!(refused.error().contains(&path), "{}", refused.error());

        let done = quarantine(&server, json!({"segment": path})).expect(200).json();
        assert_eq!((&done["aggregate"], &done["lost"]), (&json!(aggregate), &json!([])));
        assert!(done["summary"].as_str().unwrap().contains("nothing of that is lost"), "{done}");
        assert_eq!((server.q(HOURS), server.q(DAYS)), expected);
        assert_aggregates_are_right(&server);
        server.drain();
        assert_eq!((server.qm(HOURS), server.qm(DAYS)), expected);
        assert_sound(&mut server);
        assert_eq!((server.q(HOURS), server.q(DAYS)), expected);
        assert_eq!(server.q("SELECT count(*) FROM system.quarantine"), "1");
    }
}

#[test]
fn x_04_sealed_buckets_do_not_come_back() {
    let rules = format!("{RULES}    retention: [{{measurement: cpu, keep: 1d}}]\n");
    let mut server = fleet(&rules);
    server.clock("2024-01-04T00:00:00Z");
    server.drain();
    server.w("s", &format!("cpu,host=a v=3 {}", BASE + 3 * 86_400));
    assert_eq!(server.q("SELECT count(*) FROM cpu_1h"), "9");
    server.post("/api/v1/compact").expect(204);
    let path = damaged(&mut server, "cpu_1h@1");
    let done = quarantine(&server, json!({"segment": path})).expect(200).json();
    let summary = done["summary"].as_str().unwrap();
    assert!(summary.contains("as their points have expired"), "{done}");
    assert_ne!(done["lost"], json!([]), "{done}");
    assert!(server.q(HOURS).ends_with("2024-01-04T00:00:00Z,a,1,3.0,3.0"), "{}", server.q(HOURS));
    // The days were made of them before.
    assert_eq!(server.q("SELECT sum(v_count) FROM cpu_1d"), "61");
}

#[test]
fn x_04_what_is_sound_is_not_given_up_by_mistake() {
    let server = fleet(RULES);
    let path = server.q("SELECT path FROM system.segments WHERE measurement = 'cpu' LIMIT 1");
    let refused = quarantine(&server, json!({"segment": path})).expect(409);
    assert!(refused.error().contains("is sound"), "{}", refused.error());
    let none = quarantine(&server, json!({"segment": "segments/none"})).expect(404);
    assert!(none.error().contains("system.segments"), "{}", none.error());
    quarantine(&server, json!({"segment": path, "sure": true})).expect(400);
    assert_eq!(server.q("SELECT count(*) FROM system.quarantine"), "0");
    quarantine(&server, json!({"segment": path, "force": true})).expect(200);
    assert_eq!(server.q("SELECT count(*) FROM system.quarantine"), "1");
    assert_aggregates_are_right(&server);
}

#[test]
fn x_04_quarantine_without_a_server() {
    let mut server = fleet(RULES);
    let points = file_of(&server, "/cpu/");
    let partials = file_of(&server, "/cpu_1h%401/");
    assert!(server.terminate().success());
    let data = server.data_folder().display().to_string();
    let command = |more: &[&str]| {
        let output = highwater(&[&["quarantine", "--data", &data], more].concat());
        let texts =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), texts.0, texts.1)
    };
    assert_eq!(
        command(&["--all-damaged"]),
        (Some(0), "no segment is damaged\n".to_owned(), String::new())
    );
    assert_eq!(command(&[]).0, Some(2));
    for path in [&points, &partials] {
        flip_bit(&server.data_folder().join(path), 30);
    }

    let (code, said, complaint) = command(&["--all-damaged"]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&points) && said.contains("are lost"), "{said}");
    assert!(said.contains(&partials) && said.contains("computed again"), "{said}");
    assert!(complaint.contains("add --yes to give up 2 segments"), "{complaint}");
    assert_eq!(check(&server.data_folder()).0, Some(1), "nothing has changed");

    // A path that leads to the file will do as well.
    let path = server.data_folder().join(&points);
    let (code, said, _) = command(&["--segment", path.to_str().unwrap(), "--yes"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("kept as quarantine/t/cpu/"), "{said}");
    assert_eq!(command(&["--all-damaged", "--yes"]).0, Some(0));
    assert_eq!(check(&server.data_folder()).0, Some(0));

    // As if the last one had been killed between the commit and moving the file.
    let kept = partials.replacen("segments/", "quarantine/", 1);
    let place = |path: &str| server.data_folder().join(path);
    fs::rename(place(&kept), place(&partials)).unwrap();
    assert_eq!(check(&server.data_folder()).0, Some(0));
    let (kept, partials) = (place(&kept), place(&partials));
    server.start_again();
    assert!(kept.is_file() && !partials.exists());
    assert_aggregates_are_right(&server);
    assert_eq!(server.q("SELECT count(*) FROM system.quarantine"), "2");
}

/// The first segment with this in its path, relative to the data folder.
fn file_of(server: &TestServer, part: &str) -> String {
    let path = file(server, &[part, ".parquet"]);
    path.strip_prefix(server.data_folder()).unwrap().display().to_string()
}
