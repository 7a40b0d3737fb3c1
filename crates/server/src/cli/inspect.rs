//! `highwater inspect`: what a file of a data folder says.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use highwater_storage::{FileDescription, describe_file};

use crate::respond::in_one_line;

/// What to look at.
#[derive(Args, Debug)]
pub(super) struct InspectFlags {
    /// What kind of files
    kind: Kind,
    /// Files, or folders with such files somewhere below
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// The log: commits that are not in segments yet
    Wal,
    /// Segments: Parquet files with points or partials
    Segment,
    /// The manifest: what is live, commit by commit
    Manifest,
}

impl Kind {
    fn endings(self) -> &'static [&'static str] {
        match self {
            Kind::Wal => &["wal"],
            Kind::Segment => &["parquet"],
            Kind::Manifest => &["edit", "checkpoint"],
        }
    }

    fn has(self, path: &Path) -> bool {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| self.endings().contains(&ending))
    }
}

pub(super) fn run(flags: &InspectFlags) -> anyhow::Result<()> {
    let mut damaged = 0;
    for path in &flags.paths {
        let files = files_below(flags.kind, path)?;
        if files.is_empty() {
            let endings = flags.kind.endings().join(" or .");
            bail!("there is no .{endings} file in {}", path.display());
        }
        for file in files {
            let bytes = std::fs::read(&file);
            let bytes = bytes.with_context(|| format!("could not read {}", file.display()))?;
            let shown = file.display().to_string();
            let FileDescription { mut lines, damage } = describe_file(&shown, bytes.into())?;
            if let Some(damage) = damage {
                lines.push_str(&in_one_line(&damage));
                damaged += 1;
            }
            super::print(&format!("{shown}\n{}", indented(&lines)))?;
        }
    }
    match damaged {
        0 => Ok(()),
        files => bail!("{} damaged", super::counted(files, "file")),
    }
}

/// The file itself, or all of that kind in a folder, by path.
fn files_below(kind: Kind, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let entries = std::fs::read_dir(path);
    for entry in entries.with_context(|| format!("could not read {}", path.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_below(kind, &path)?);
        } else if kind.has(&path) {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
