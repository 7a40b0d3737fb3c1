//! `highwater rules`: rule files, before a server reads them.

use std::path::PathBuf;

use anyhow::bail;
use clap::Subcommand;
use highwater_aggregation::rules::Rules;

use super::counted;
use crate::rules::read_folder;

/// What to do with rule files.
#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// Check all files of a folder; needs no server
    Check {
        /// The folder
        folder: PathBuf,
    },
}

pub(super) fn run(command: &RulesCommand) -> anyhow::Result<()> {
    let RulesCommand::Check { folder } = command;
    let files = read_folder(folder)?;
    let count = files.len();
    if count == 0 {
        bail!("there are no rule files (*.yml, *.yaml) in {}", folder.display());
    }
    match Rules::load(files) {
        Ok(rules) => {
            let aggregates = rules.definitions().count();
            let (files, aggregates) =
                (counted(count as u64, "file"), counted(aggregates as u64, "aggregate"));
            super::print(&format!("{files}, {aggregates}: no problems\n"))
        }
        Err(problems) => {
            for problem in &problems {
                super::print(&format!("{problem}\n"))?;
            }
            bail!("{} in {}", counted(problems.len() as u64, "problem"), folder.display())
        }
    }
}
