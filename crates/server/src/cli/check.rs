//! `highwater check`: read a whole data folder and say what is damaged.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use highwater_storage::{FolderCheck, check_folder};

use crate::demo::progress;
use crate::respond::in_one_line;

/// What to check.
#[derive(Args, Debug)]
pub(super) struct CheckFlags {
    /// The data folder; no server may be running on it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(super) fn run(flags: &CheckFlags) -> anyhow::Result<()> {
    let bar = progress::bar(0, "bytes", true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let check = runtime.block_on(check_folder(&flags.data, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    }));
    bar.finish_and_clear();
    let check = check?;
    super::print(&report(&check))?;
    match check.problems.len() {
        0 => Ok(()),
        1 => bail!("1 problem in {}", flags.data.display()),
        problems => bail!("{problems} problems in {}", flags.data.display()),
    }
}

fn report(check: &FolderCheck) -> String {
    let mut text = String::new();
    for problem in &check.problems {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "damaged: {}", in_one_line(problem));
    }
    for note in &check.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let FolderCheck { segments, rows, bytes, logged_commits, .. } = check;
    let _ = writeln!(
        text,
        "read {segments} segments with {rows} rows and {logged_commits} commits in logs, {bytes} bytes"
    );
    text
}
