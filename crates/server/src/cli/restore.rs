//! `highwater restore`: a data folder from a backup.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use highwater_storage::check_folder;

use super::backup_folder::BackupFolder;
use crate::respond::in_one_line;

/// From where to where.
#[derive(Args, Debug)]
pub(super) struct RestoreFlags {
    /// The folder of the backup
    #[arg(value_name = "DIR")]
    backup: PathBuf,
    /// The data folder to make; it must not be there yet
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(super) fn run(flags: &RestoreFlags) -> anyhow::Result<()> {
    let backup = BackupFolder::open(&flags.backup)?;
    let data = &flags.data;
    if data.exists() {
        bail!("{} is there already; choose another folder, or move it away", data.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let check = runtime.block_on(check_folder(backup.path(), |_, _| {}))?;
    if let Some(problem) = check.problems.first() {
        bail!("the backup is damaged: {}", in_one_line(problem));
    }
    let name = data.file_name().context("the data folder needs a name")?.to_string_lossy();
    let unfinished = data.with_file_name(format!("{name}.unfinished"));
    if unfinished.exists() {
        bail!("{} is left of an interrupted restore; remove it first", unfinished.display());
    }
    for path in backup.files()? {
        let target = unfinished.join(&path);
        let copy = || {
            fs::create_dir_all(target.parent().unwrap_or(&unfinished))?;
            fs::copy(backup.path().join(&path), &target)?;
            fs::File::open(&target)?.sync_all()
        };
        copy().with_context(|| format!("could not write {}", target.display()))?;
    }
    fs::rename(&unfinished, data)
        .with_context(|| format!("could not rename {}", unfinished.display()))?;
    let (segments, rows) = (check.segments, check.rows);
    super::print(&format!("{}: {segments} segments with {rows} rows\n", data.display()))
}
