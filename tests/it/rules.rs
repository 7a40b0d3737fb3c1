//! Rules as code: what files would do is said beforehand, applied as said, and tested (section 0.5).

use std::path::Path;
use std::process::Output;

use highwater_tests::TestServer;
use serde_json::{Value, json};

use crate::cli::{run, stdout};
use crate::{aggregate, launch, with_rules};

const HOURLY: &str = "\
databases:
  t:
    aggregates:
      - {name: cpu_1h, source: cpu, interval: 1h, group_by: [host], aggregations: [{field: usage, function: mean}]}
";

/// A fresh server without a rules folder.
fn server() -> TestServer {
    launch().without_rules().start()
}

/// Two hosts, a point a minute for two hours.
fn points() -> String {
    let line =
        |i: i64, host: &str| format!("cpu,host={host} usage={i} {}\n", 1_704_067_200 + 60 * i);
    (0..120).flat_map(|i| [line(i, "a"), line(i, "b")]).collect()
}

fn plan(server: &TestServer, text: &str) -> Value {
    let files = json!([{ "name": "a.yml", "text": text }]);
    server.json("POST", "/api/v1/rules/plan", &json!({ "files": files })).expect(200).json()
}

fn apply(server: &TestServer, text: &str) {
    let files = json!([{ "name": "a.yml", "text": text }]);
    server.json("POST", "/api/v1/rules/apply", &json!({ "files": files })).expect(200);
}

fn actions(plan: &Value) -> Vec<String> {
    let all = plan["aggregates"].as_array().unwrap().iter();
    all.map(|one| format!("{} {}", one["action"], one["name"]).replace('"', "")).collect()
}

/// Runs `highwater rules ..` on a folder with this rule file.
fn rules(server: &TestServer, text: &str, args: impl Fn(&str) -> Vec<String>) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yml"), text).unwrap();
    let args = args(folder.path().to_str().unwrap());
    let args: Vec<&str> = ["rules"].into_iter().chain(args.iter().map(String::as_str)).collect();
    run(server, &args, "")
}

#[test]
fn a_plan_says_what_applying_does_and_changes_nothing() {
    let server = server();
    server.w("s", &points());
    server.clock("2024-01-02T00:00:00Z");
    let before = plan(&server, HOURLY);
    assert_eq!(actions(&before), ["added cpu_1h"]);
    let estimate = &before["aggregates"][0]["estimate"];
    for (key, number) in [("points_to_read", 240), ("pieces", 2), ("groups", 2), ("rows", 4)] {
        assert_eq!(estimate[key], number, "{key}: {estimate}");
    }
    assert_eq!(estimate["assumptions"].as_array().unwrap().len(), 2, "{estimate}");
    server.get("/api/v1/aggregates/cpu_1h").expect(404);

    apply(&server, HOURLY);
    server.drain();
    let settled = plan(&server, HOURLY);
    assert_eq!(
        (actions(&settled), &settled["settings"]),
        (vec!["unchanged cpu_1h".into()], &json!([]))
    );
    assert_eq!(aggregate(&server, "cpu_1h")["rows"], estimate["rows"]);

    let changed = HOURLY.replace("1h, group", "1d, group")
        + "      - {name: cpu_1w, source: cpu_1h, interval: 1w}\n    retention: [{measurement: cpu, keep: 7d}]\n";
    let changes = plan(&server, &changed);
    assert_eq!(actions(&changes), ["changed cpu_1h", "added cpu_1w"]);
    let keys = json!([{ "key": "interval", "old": "1h", "new": "1d" }]);
    assert_eq!(changes["aggregates"][0]["keys"], keys);
    assert_eq!(changes["aggregates"][0]["estimate"]["rows"], 2);
    assert_eq!(changes["aggregates"][1]["estimate"]["points_to_read"], 2, "rows of cpu_1h to come");
    let assumed = changes["aggregates"][0]["estimate"]["assumptions"].as_array().unwrap();
    assert!(assumed.is_empty(), "refreshes and stored rows have told: {assumed:?}");
    assert_eq!(changes["settings"], json!(["t: retention of cpu: no rule -> keep 7d"]));

    apply(&server, "databases: {t: {}}");
    assert_eq!(actions(&plan(&server, HOURLY)), ["attached cpu_1h"]);
    apply(&server, HOURLY);
    assert_eq!(actions(&plan(&server, "databases: {t: {}}")), ["detached cpu_1h"]);
}

#[test]
fn what_would_be_refused_has_its_file_and_line() {
    let server = server();
    server.w("s", "cpu,host=a usage=1 1704067200\nst text=\"x\" 1704067200");
    let refused = |text: &str| plan(&server, text)["refused"][0].clone();
    let wrong = refused(&HOURLY.replace("1h,", "soon,"));
    assert_eq!((&wrong["file"], &wrong["line"]), (&json!("a.yml"), &json!(4)), "{wrong}");
    for (rule, word) in [
        (
            "{name: st, source: cpu, interval: 1h, aggregations: [{function: count}]}",
            "measurement named st",
        ),
        (
            "{name: x, source: st, interval: 1h, aggregations: [{field: text, function: sum}]}",
            "text",
        ),
    ] {
        let wrong = refused(&format!("{HOURLY}      - {rule}\n"));
        assert_eq!((&wrong["file"], &wrong["line"]), (&json!("a.yml"), &json!(5)), "{wrong}");
        assert!(wrong["reason"].as_str().unwrap().contains(word), "{wrong}");
    }
    let output = rules(&server, &HOURLY.replace("1h,", "soon,"), |dir| {
        ["plan", "--rules", dir].map(str::to_owned).to_vec()
    });
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("a.yml:4: ") && text.contains("nothing would be applied"), "{text}");
}

#[test]
fn plan_apply_and_diff_from_the_command_line() {
    let server = server();
    server.w("s", &points());
    server.clock("2024-01-02T00:00:00Z");
    let plan = |dir: &str| ["plan", "--rules", dir].map(str::to_owned).to_vec();
    let apply = |dir: &str| ["apply", "--yes", "--rules", dir].map(str::to_owned).to_vec();
    let unasked = |dir: &str| ["apply", "--rules", dir].map(str::to_owned).to_vec();
    let diff = |dir: &str| ["diff", dir].map(str::to_owned).to_vec();

    let planned = rules(&server, HOURLY, plan);
    assert_eq!(planned.status.code(), Some(2));
    let text = String::from_utf8(planned.stdout).unwrap();
    assert!(text.contains("added  t.cpu_1h   240"), "{text}");
    let refused = rules(&server, HOURLY, unasked);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("--yes"));
    server.get("/api/v1/aggregates/cpu_1h").expect(404);

    assert!(stdout(rules(&server, HOURLY, apply)).ends_with("applied\n"));
    assert!(stdout(rules(&server, HOURLY, plan)).contains("nothing to do"));
    assert_eq!(stdout(rules(&server, HOURLY, diff)), "");
    let other = rules(&server, &HOURLY.replace("mean", "max"), diff);
    assert_eq!(other.status.code(), Some(1));
    let text = String::from_utf8(other.stdout).unwrap();
    assert!(text.starts_with("--- server t.cpu_1h\n+++ files t.cpu_1h\n@@ "), "{text}");
    assert!(text.contains("-    function: mean\n+    function: max\n"), "{text}");
    assert_eq!(rules(&server, "databases: [", diff).status.code(), Some(2));
    assert_eq!(server.q("SELECT count(*) FROM cpu_1h"), "4");
}

#[test]
fn applied_rules_are_there_after_a_restart() {
    let mut server = server();
    apply(&server, HOURLY);
    server.restart();
    assert_eq!(aggregate(&server, "cpu_1h")["status"], "active");
}

#[test]
fn a_rules_folder_is_the_truth() {
    let mut server = with_rules(HOURLY);
    let own = server.post("/api/v1/rules/plan").expect(200).json();
    assert_eq!(actions(&own), ["unchanged cpu_1h"]);
    let other = HOURLY.replace("cpu_1h", "cpu_60m");
    let files = json!([{ "name": "a.yml", "text": other }]);
    let refused =
        server.json("POST", "/api/v1/rules/apply", &json!({ "files": files })).expect(409);
    assert!(refused.error().contains("rules at every start"), "{}", refused.error());
    let force = rules(&server, &other, |dir| {
        ["apply", "--yes", "--force", "--rules", dir].map(str::to_owned).to_vec()
    });
    assert!(stdout(force).contains("count again"));
    assert_eq!(aggregate(&server, "cpu_1h")["status"], "detached");
    server.restart();
    assert_eq!(aggregate(&server, "cpu_1h")["status"], "active");
    assert_eq!(aggregate(&server, "cpu_60m")["status"], "detached");
    let nothing = self::server();
    assert!(nothing.post("/api/v1/rules/reload").expect(400).error().contains("--rules"));
}

#[test]
fn fixtures_are_run_without_a_server() {
    let page = include_str!("../../docs/rules.md");
    let fixture = page.split("```yaml fixture\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let nobody = |path: &Path| {
        let binary = env!("CARGO_BIN_EXE_highwater-under-test");
        let args = ["rules".as_ref(), "test".as_ref(), path.as_os_str()];
        std::process::Command::new(binary).args(args).output().unwrap()
    };
    let path = folder.path().join("cpu.yml");
    std::fs::write(&path, fixture).unwrap();
    assert!(stdout(nobody(&path)).starts_with("ok "));
    std::fs::write(&path, fixture.replace("b,8.0", "b,9.0")).unwrap();
    let wrong = nobody(&path);
    assert_eq!(wrong.status.code(), Some(1));
    let text = String::from_utf8(wrong.stdout).unwrap();
    assert!(text.contains("1 of 2 answers wrong") && text.contains("-b,9.0\n+b,8.0\n"), "{text}");
}
