//! `highwater demo`, the main job: it runs with nothing prepared, and everything is identical.

use std::io::Write;
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;

fn demo(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater-under-test"));
    command.arg("demo").args(args).output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}\n{text}", output.status);
    text
}

#[test]
fn every_answer_of_an_aggregate_is_that_of_its_points() {
    let text = stdout(&demo(&["--points", "20000", "--live-seconds", "0"]));
    assert!(text.contains("all 8 comparisons: identical"), "{text}");
    assert!(!text.contains("DIFFERENT") && !text.contains('\x1b'), "{text}");
    for title in ["History: ", "Aggregates of ", "A late point", "Retention: ", "Go on"] {
        assert!(text.contains(title), "no {title:?} in {text}");
    }
}

#[test]
fn this_machine_is_a_source_of_points() {
    let text = stdout(&demo(&["--points", "1000", "--live-seconds", "1"]));
    assert!(text.contains("all 9 comparisons: identical"), "{text}");
    assert!(text.contains("cpu_percent_mean"), "{text}");
}

#[test]
fn points_of_ones_own_are_compared_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("points.lp.gz");
    let line = |i: usize| {
        let host = i % 3;
        format!("load,host=h{host},site=a\\ b one={},two={i}i {}\n", i as f64 / 7.0, i * 60)
    };
    let text: String = (0..5_000).map(line).chain(["load one=\n".to_owned()]).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    std::fs::write(&file, encoder.finish().unwrap()).unwrap();

    let data = folder.path().join("data");
    let (path, data) = (file.to_str().unwrap(), data.to_str().unwrap());
    let args = ["--file", path, "--precision", "s", "--data", data];
    let text = stdout(&demo(&args));
    assert!(text.contains("load: 5,000 points; tags: host, site; numbers: one, two"), "{text}");
    assert!(text.contains("lines refused: 1, such as\n   line 5001: "), "{text}");
    assert!(text.contains("all 5 comparisons: identical"), "{text}");

    let again = demo(&args);
    assert_eq!(again.status.code(), Some(1));
    let words = String::from_utf8(again.stderr).unwrap();
    assert!(words.contains("highwater serve --data"), "{words}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert_eq!(demo(&["--points", "1"]).status.code(), Some(2));
    assert_eq!(demo(&["--precision", "s"]).status.code(), Some(2));
    let missing = demo(&["--file", "no such file"]);
    assert_eq!(missing.status.code(), Some(1));
    let words = String::from_utf8(missing.stderr).unwrap();
    assert!(words.contains("could not read no such file"), "{words}");
}
