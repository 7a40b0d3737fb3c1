//! The shape of the code itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The crates, each above those before it.
const ORDER: [&str; 5] = ["core", "storage", "query", "aggregation", "server"];

/// A function longer than this is the exception; tests may be tables of any length.
const MAX_LINES: usize = 70;

/// The exceptions, with the lines they have; they may shrink, not grow.
const LONG_FUNCTIONS: [(&str, usize); 0] = [];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn crates_only_know_those_below() {
    for (at, name) in ORDER.iter().enumerate() {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        for above in &ORDER[at..] {
            let dependency = format!("highwater-{above}.workspace");
            let knows = manifest.lines().any(|line| line.starts_with(&dependency));
            assert!(!knows, "crates/{name} depends on crates/{above}");
        }
    }
}

#[test]
fn there_is_one_datafusion_and_one_arrow() {
    let lock = read(&root().join("Cargo.lock"));
    for name in ["datafusion", "arrow", "parquet", "object_store"] {
        let entry = format!("name = \"{name}\"");
        let versions = lock.lines().filter(|line| *line == entry).count();
        assert_eq!(versions, 1, "versions of {name} in Cargo.lock");
    }
}

#[test]
fn functions_stay_short() {
    let allowed: BTreeMap<&str, usize> = LONG_FUNCTIONS.into_iter().collect();
    let mut long = BTreeMap::new();
    for file in sources(&root().join("crates")) {
        let source = read(&file);
        let code = source.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (name, lines) in functions(code) {
            let stem = file.strip_prefix(root()).unwrap_or(&file);
            if lines > MAX_LINES {
                long.insert(format!("{} {name}", stem.display()), lines);
            }
        }
    }
    for (name, lines) in &long {
        let limit = allowed.get(name.as_str()).copied().unwrap_or(MAX_LINES);
        assert!(*lines <= limit, "{name} has {lines} lines, may have {limit}");
    }
    for (name, lines) in &allowed {
        let now = long.get(*name).copied().unwrap_or(0);
        assert_eq!(now, *lines, "{name} has shrunk: write the new number down");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Name and lines of every function; rustfmt puts the last brace below the first letter.
fn functions(source: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[at..]
            .iter()
            .position(|line| *line == end || line.ends_with(';') && at_indent(line, indent));
        found.push((name.to_owned(), length.unwrap_or(0) + 1));
    }
    found
}

fn at_indent(line: &str, indent: usize) -> bool {
    line.len() - line.trim_start().len() == indent
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for word in ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "default "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

#[test]
fn functions_are_measured() {
    let source = "impl A {\n    fn one(&self) -> u8 {\n        1\n    }\n\n    fn declared();\n}\n";
    let expected = [("one".to_owned(), 3), ("declared".to_owned(), 1)];
    assert_eq!(functions(source), expected);
}
